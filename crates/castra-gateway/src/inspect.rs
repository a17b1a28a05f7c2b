//! Inspect: what a request holds before it is decided, and what an answer holds before it leaves.
//!
//! Requests are looked at and not changed: policies speak of what was found (`context.findings`).
//! Answers are masked; what needs no change leaves as the bytes that came. What was found in them, and
//! how they were inspected, stands in the record of the outcome.

use std::sync::Arc;

use bytes::Bytes;
use castra_core::{Refusal, RefusalCode, Step, StreamMode};
use castra_inspect::{Inspector, JsonError, JsonOptions, MaskedJson, kinds};
use castra_protocol::mcp::{self, Id};

use crate::{gate::Gate, metrics::Side, record::Noted};

/// Kinds that one record holds; the first that were seen.
pub(crate) const KINDS_MAX: usize = 16;

/// What inspects, and how answers are inspected where no policy says otherwise.
#[derive(Default)]
pub(crate) struct Inspection {
    pub(crate) inspector: Inspector,
    pub(crate) mode: StreamMode,
}

/// What both sides of MCP only hand back to each other: masking it would break the exchange, and no
/// model reads it.
const MCP_OPAQUE: &[&[&str]] = &[
    &["id"],
    &["jsonrpc"],
    &["method"],
    &["params", "progressToken"],
    &["params", "_meta", "progressToken"],
    &["params", "requestId"],
    &["params", "requestState"],
    &["params", "cursor"],
    &["params", "taskId"],
    &["result", "requestState"],
    &["result", "nextCursor"],
    &["result", "taskId"],
    &["result", "task", "taskId"],
];

/// Kinds of what stands in a request of MCP.
pub(crate) fn in_request(gate: &Gate, request: &[u8]) -> Result<Vec<Arc<str>>, Refusal> {
    let found = look(&gate.inspection().inspector, gate, request).map_err(|error| {
        let reason = format!("the request could not be inspected: {error}");
        Refusal::new(Step::Understand, RefusalCode::Malformed, reason)
    })?;
    let mut kinds = found.map(|found| kinds(&found.findings)).unwrap_or_default();
    kinds.truncate(KINDS_MAX);
    for kind in &kinds {
        gate.metrics.finding(kind, Side::Request);
    }
    Ok(kinds)
}

fn look(inspector: &Inspector, gate: &Gate, message: &[u8]) -> Result<Option<MaskedJson>, JsonError> {
    if !inspector.looks() {
        return Ok(None);
    }
    let options = JsonOptions { depth_max: gate.limits.json_depth_max, opaque: MCP_OPAQUE, said: "" };
    inspector.mask_json(message, &options)
}

/// The result of a request as the caller may see it.
pub(crate) fn shown_result(gate: &Gate, id: Id<'_>, result: &str) -> Result<Bytes, Refusal> {
    Watch::new(gate, None).message(gate, mcp::result_response(id, result).into())
}

/// Inspects what a server sends during one exchange, and remembers what it saw.
pub(crate) struct Watch {
    inspection: Arc<Inspection>,
    mode: StreamMode,
    seen: Vec<Arc<str>>,
}

impl Watch {
    /// Begins, in the mode that a policy asked for or else the configured one.
    pub(crate) fn new(gate: &Gate, asked: Option<StreamMode>) -> Self {
        let inspection = gate.inspection();
        Self { mode: asked.unwrap_or(inspection.mode), inspection, seen: Vec::new() }
    }

    /// A message as the client may see it.
    pub(crate) fn message(&mut self, gate: &Gate, message: Bytes) -> Result<Bytes, Refusal> {
        if self.mode == StreamMode::Pass {
            return Ok(message);
        }
        let found = look(&self.inspection.inspector, gate, &message).map_err(|error| {
            let reason = format!("what the server sent could not be inspected: {error}");
            Refusal::new(Step::Answer, RefusalCode::UpstreamMisbehaved, reason)
        })?;
        let Some(found) = found else { return Ok(message) };
        for kind in kinds(&found.findings) {
            gate.metrics.finding(&kind, Side::Answer);
            if self.seen.len() < KINDS_MAX && !self.seen.contains(&kind) {
                self.seen.push(kind);
            }
        }
        Ok(found.bytes.map_or(message, Bytes::from))
    }

    /// A message that nobody waits for; one that cannot be inspected is left out.
    pub(crate) fn announcement(&mut self, gate: &Gate, message: Bytes) -> Option<Bytes> {
        self.message(gate, message)
            .inspect_err(|refusal| tracing::warn!(%refusal, "a server's message was left out"))
            .ok()
    }

    /// Whether the exchange passes uninspected although something would inspect it.
    pub(crate) fn passes(&self) -> bool {
        self.mode == StreamMode::Pass && self.inspection.inspector.looks()
    }

    /// What the record of the outcome says of it.
    pub(crate) fn noted(&self) -> Noted<'_> {
        let inspection = self.inspection.inspector.looks().then_some(self.mode);
        Noted { findings: &self.seen, inspection, ..Noted::default() }
    }
}
