//! Inspects what goes to a peer and what comes back: whole answers, and streams whose artifacts come in pieces.
//!
//! What a message says is looked at before the decision, and not changed. In answers every text is
//! masked. An artifact that is streamed is one text, wherever its pieces end: what could be the
//! beginning of something is held back and leaves with the artifact's next piece, or in an event
//! of its own before the client may stop reading.

use std::sync::Arc;

use bytes::Bytes;
use castra_core::{Refusal, RefusalCode, Step, StreamMode, TextScanner};
use castra_inspect::{JsonOptions, Scanner, kinds};
use castra_protocol::{
    a2a::{Artifact, Binding, Event, Ids, Method, Request, continuation},
    json,
};

use crate::{gate::Gate, inspect::Inspection, metrics::Side, record::Noted};

/// Kinds that one record holds; the first that were seen.
const KINDS_MAX: usize = 16;
/// Artifacts of one stream that are unfinished at once.
const ARTIFACTS_MAX: usize = 64;

/// What both sides hand back to each other; masking it would lose the task.
const OPAQUE: &[&[&str]] = &[
    &["id"],
    &["contextId"],
    &["nextPageToken"],
    &["task", "id"],
    &["task", "contextId"],
    &["message", "messageId"],
    &["message", "taskId"],
    &["message", "contextId"],
    &["statusUpdate", "taskId"],
    &["statusUpdate", "contextId"],
    &["artifactUpdate", "taskId"],
    &["artifactUpdate", "contextId"],
    &["artifactUpdate", "artifact", "artifactId"],
    &["result", "id"],
    &["result", "contextId"],
    &["result", "nextPageToken"],
    &["result", "task", "id"],
    &["result", "task", "contextId"],
    &["result", "message", "messageId"],
    &["result", "message", "taskId"],
    &["result", "message", "contextId"],
    &["result", "statusUpdate", "taskId"],
    &["result", "statusUpdate", "contextId"],
    &["result", "artifactUpdate", "taskId"],
    &["result", "artifactUpdate", "contextId"],
    &["result", "artifactUpdate", "artifact", "artifactId"],
];

/// Kinds of what stands in the message of a request and its metadata.
pub(super) fn in_request(gate: &Gate, request: &Request<'_>) -> Result<Vec<Arc<str>>, Refusal> {
    let inspection = gate.inspection();
    let mut seen: Vec<Arc<str>> = Vec::new();
    if !inspection.inspector.looks() {
        return Ok(seen);
    }
    for part in &request.content {
        let options = JsonOptions { depth_max: gate.limits.json_depth_max, opaque: &[], said: "" };
        let found =
            inspection.inspector.mask_json(part.of(request.text).as_bytes(), &options).map_err(|error| {
                let reason = format!("the message could not be inspected: {error}");
                Refusal::new(Step::Understand, RefusalCode::Malformed, reason)
            })?;
        note(gate, Side::Request, &mut seen, found.map(|f| kinds(&f.findings)).unwrap_or_default());
    }
    Ok(seen)
}

fn note(gate: &Gate, side: Side, seen: &mut Vec<Arc<str>>, found: Vec<Arc<str>>) {
    for kind in found {
        gate.metrics.finding(&kind, side);
        if seen.len() < KINDS_MAX && !seen.contains(&kind) {
            seen.push(kind);
        }
    }
}

/// Inspects what a peer sends during one exchange, and remembers what it saw.
pub(super) struct Watch {
    inspection: Arc<Inspection>,
    mode: StreamMode,
    binding: Binding,
    id: Option<String>,
    seen: Vec<Arc<str>>,
    pieces: Vec<Piece>,
}

/// An artifact that is not complete.
struct Piece {
    ids: Ids<'static>,
    artifact: String,
    text: Text,
}

enum Text {
    /// Leaves as soon as it is clean.
    Window(Box<Scanner>),
    /// Leaves when all of it is there.
    Hold(String),
}

impl Watch {
    /// Begins, in the mode that a policy asked for or else the configured one. `id` is the JSON-RPC id.
    pub(super) fn new(gate: &Gate, asked: Option<StreamMode>, binding: Binding, id: Option<String>) -> Self {
        let inspection = gate.inspection();
        let mode = asked.unwrap_or(inspection.mode);
        Self { mode, inspection, binding, id, seen: Vec::new(), pieces: Vec::new() }
    }

    /// Whether anything is looked at.
    fn looks(&self) -> bool {
        self.mode != StreamMode::Pass && self.inspection.inspector.looks()
    }

    /// Whether the exchange passes uninspected although something would inspect it.
    pub(super) fn passes(&self) -> bool {
        self.mode == StreamMode::Pass && self.inspection.inspector.looks()
    }

    /// What the record of the outcome says of it.
    pub(super) fn noted(&self) -> Noted<'_> {
        let inspection = self.inspection.inspector.looks().then_some(self.mode);
        Noted { findings: &self.seen, inspection, ..Noted::default() }
    }

    /// A whole answer as the caller may see it. Where notifications go, and with which credential, is the
    /// caller's own word coming back.
    pub(super) fn answer(&mut self, gate: &Gate, method: Method, body: Bytes) -> Result<Bytes, Refusal> {
        if !self.looks() || method.is_about_push() || body.is_empty() {
            return Ok(body);
        }
        Ok(self.masked(gate, &body)?.map_or(body, Bytes::from))
    }

    /// The events that take this one's place, in order.
    pub(super) fn event(&mut self, gate: &Gate, event: &Event<'_>) -> Result<Vec<String>, Refusal> {
        if !self.looks() {
            return Ok(vec![event.text.to_owned()]);
        }
        let mut out = Vec::new();
        let changed = match &event.artifact {
            Some(artifact) => self.artifact(gate, event, artifact, &mut out)?,
            None => {
                if event.pauses {
                    out = self.rest(gate);
                }
                None
            }
        };
        let text = changed.unwrap_or_else(|| event.text.to_owned());
        let masked = self.masked(gate, text.as_bytes())?.and_then(|bytes| String::from_utf8(bytes).ok());
        out.push(masked.unwrap_or(text));
        Ok(out)
    }

    /// What was held back, when the stream is at its end.
    pub(super) fn rest(&mut self, gate: &Gate) -> Vec<String> {
        let pieces = std::mem::take(&mut self.pieces);
        pieces.into_iter().filter_map(|piece| self.ended(gate, piece)).collect()
    }

    /// An event with what is left of an artifact.
    fn ended(&mut self, gate: &Gate, piece: Piece) -> Option<String> {
        let Piece { ids, artifact, text } = piece;
        let rest = self.finished(gate, text);
        (!rest.is_empty()).then(|| continuation(self.binding, self.id.as_deref(), &ids, &artifact, &rest))
    }

    fn finished(&mut self, gate: &Gate, text: Text) -> String {
        let mut rest = String::new();
        let found = match text {
            Text::Window(mut scanner) => {
                scanner.finish(&mut rest);
                scanner.findings().to_vec()
            }
            Text::Hold(whole) => match self.inspection.inspector.mask_text(&whole) {
                None => {
                    rest = whole;
                    Vec::new()
                }
                Some(found) => {
                    rest = found.text.unwrap_or(whole);
                    kinds(&found.findings)
                }
            },
        };
        note(gate, Side::Answer, &mut self.seen, found);
        rest
    }

    /// Takes a piece of an artifact; gives the event with what may leave of it, if that is something else.
    fn artifact(
        &mut self,
        gate: &Gate,
        event: &Event<'_>,
        artifact: &Artifact<'_>,
        out: &mut Vec<String>,
    ) -> Result<Option<String>, Refusal> {
        let mut piece = self.piece(gate, event, artifact, out)?;
        let mut texts = Vec::with_capacity(artifact.texts.len());
        for span in &artifact.texts {
            let text = json::decode(span.of(event.text)).unwrap_or_default();
            let mut leaves = String::with_capacity(text.len());
            match &mut piece.text {
                Text::Window(scanner) => scanner.push(&text, &mut leaves),
                Text::Hold(whole) if whole.len() + text.len() > gate.limits.answer_bytes_max => {
                    let reason = "the peer sent a longer artifact than may be held";
                    return Err(Refusal::new(Step::Answer, RefusalCode::LimitReached, reason));
                }
                Text::Hold(whole) => whole.push_str(&text),
            }
            texts.push((leaves, text));
        }
        if artifact.last {
            match texts.last_mut() {
                Some((leaves, _)) => leaves.push_str(&self.finished(gate, piece.text)),
                None => out.extend(self.ended(gate, piece)),
            }
        } else {
            self.pieces.push(piece);
        }
        if texts.iter().all(|(leaves, text)| leaves == text) {
            return Ok(None);
        }
        let texts: Vec<String> = texts.into_iter().map(|(leaves, _)| leaves).collect();
        Ok(Some(event.with_texts(&texts)))
    }

    /// The artifact so far: the one that this piece continues, or a new one.
    fn piece(
        &mut self,
        gate: &Gate,
        event: &Event<'_>,
        artifact: &Artifact<'_>,
        out: &mut Vec<String>,
    ) -> Result<Piece, Refusal> {
        let at = self.pieces.iter().position(|p| p.ids.task == event.ids.task && p.artifact == artifact.id);
        let known = at.map(|at| self.pieces.remove(at));
        match known {
            Some(piece) if artifact.append => return Ok(piece),
            // It begins anew: what was before is at its end.
            Some(piece) => out.extend(self.ended(gate, piece)),
            None => {}
        }
        if self.pieces.len() >= ARTIFACTS_MAX {
            let reason = format!("the peer has more than {ARTIFACTS_MAX} unfinished artifacts in one stream");
            return Err(Refusal::new(Step::Answer, RefusalCode::UpstreamMisbehaved, reason));
        }
        let owned =
            |id: &Option<std::borrow::Cow<'_, str>>| id.as_ref().map(|id| id.clone().into_owned().into());
        let text = match self.mode {
            StreamMode::Hold => Text::Hold(String::new()),
            StreamMode::Window | StreamMode::Pass => {
                Text::Window(Box::new(self.inspection.inspector.scanner()))
            }
        };
        let ids = Ids { task: owned(&event.ids.task), context: owned(&event.ids.context) };
        Ok(Piece { ids, artifact: artifact.id.clone().into_owned(), text })
    }

    fn masked(&mut self, gate: &Gate, body: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        let options = JsonOptions { depth_max: gate.limits.json_depth_max, opaque: OPAQUE, said: "" };
        let found = self.inspection.inspector.mask_json(body, &options).map_err(|error| {
            let reason = format!("what the peer sent could not be inspected: {error}");
            Refusal::new(Step::Answer, RefusalCode::UpstreamMisbehaved, reason)
        })?;
        let Some(found) = found else { return Ok(None) };
        note(gate, Side::Answer, &mut self.seen, kinds(&found.findings));
        Ok(found.bytes)
    }
}
