//! What is inspected of a call and its answer, and how. Requests are masked before a provider sees them,
//! answers before the agent does; policies speak of what was found, and the record names it.

use std::sync::Arc;

use bytes::Bytes;
use castra_core::{Refusal, RefusalCode, Step, StreamMode};
use castra_inspect::{JsonError, JsonOptions, MaskedJson, Scanner, kinds};
use castra_protocol::model::Brought;

use crate::{
    gate::Gate,
    inspect::{Inspection, KINDS_MAX},
    metrics::Side,
};

/// Members that name things, which whoever gave the names must find unchanged.
const NAMES: &[&[&str]] = &[&["id"], &["model"], &["previous_response_id"], &["conversation"]];

/// Inspects one call and its answer, from beginning to end with the same rules.
#[derive(Clone)]
pub(super) struct Watch {
    gate: Arc<Gate>,
    inspection: Arc<Inspection>,
    mode: StreamMode,
    /// What the user says in the request.
    said: Arc<str>,
}

/// A text with what was found in it masked, and the kinds of that.
pub(super) struct Seen<T> {
    /// None if it may stay as it is.
    pub(super) masked: Option<T>,
    pub(super) kinds: Vec<Arc<str>>,
}

impl<T> Seen<T> {
    const NOTHING: Self = Self { masked: None, kinds: Vec::new() };
}

impl Watch {
    /// Begins with a request, and with the configured mode for its answer.
    pub(super) fn new(gate: &Arc<Gate>, brought: &[Brought<'_>]) -> Self {
        let inspection = gate.inspection();
        let said: Vec<&str> = brought.iter().filter_map(Brought::of_user).collect();
        Self { gate: gate.clone(), mode: inspection.mode, inspection, said: said.join("\n").into() }
    }

    /// The same with another mode for the answer, where one is wanted.
    pub(super) fn answers_in(self, mode: Option<StreamMode>) -> Self {
        Self { mode: mode.unwrap_or(self.mode), ..self }
    }

    /// How the answer is inspected; where nothing is looked for, it passes.
    pub(super) fn mode(&self) -> StreamMode {
        if self.inspection.inspector.looks() { self.mode } else { StreamMode::Pass }
    }

    /// What the record says of it; none where nothing is looked for.
    pub(super) fn noted(&self) -> Option<StreamMode> {
        self.inspection.inspector.looks().then_some(self.mode)
    }

    /// A scanner for a text of the answer.
    pub(super) fn scanner(&self) -> Scanner {
        self.inspection.inspector.scanner()
    }

    /// The request as a provider may see it.
    pub(super) fn request(&self, body: &Bytes) -> Result<Seen<Vec<u8>>, Refusal> {
        self.look(body, Side::Request).map_err(|error| {
            let reason = format!("the request cannot be inspected: {error}");
            Refusal::new(Step::Understand, RefusalCode::Malformed, reason)
        })
    }

    /// A whole answer as the agent may see it.
    pub(super) fn answer(&self, body: &[u8]) -> Result<Seen<Vec<u8>>, Refusal> {
        if self.mode() == StreamMode::Pass {
            return Ok(Seen::NOTHING);
        }
        self.look(body, Side::Answer).map_err(|error| {
            let reason = format!("the provider's answer cannot be inspected: {error}");
            Refusal::new(Step::Answer, RefusalCode::UpstreamMisbehaved, reason)
        })
    }

    /// The arguments of a tool call as the agent may see them.
    pub(super) fn arguments(&self, written: &str) -> Result<Seen<String>, Refusal> {
        if self.mode() == StreamMode::Pass {
            return Ok(Seen::NOTHING);
        }
        let seen = self.look(written.as_bytes(), Side::Answer).map_err(|error| {
            let reason = format!("the arguments that the model wrote cannot be inspected: {error}");
            Refusal::new(Step::Understand, RefusalCode::Malformed, reason)
        })?;
        let masked = seen.masked.map(|masked| String::from_utf8_lossy(&masked).into_owned());
        Ok(Seen { masked, kinds: seen.kinds })
    }

    /// Counts what a stream's scanners found.
    pub(super) fn found(&self, kinds: &[Arc<str>]) {
        for kind in kinds {
            self.gate.metrics.finding(kind, Side::Answer);
        }
    }

    fn look(&self, text: &[u8], side: Side) -> Result<Seen<Vec<u8>>, JsonError> {
        let inspector = &self.inspection.inspector;
        if !inspector.looks() {
            return Ok(Seen::NOTHING);
        }
        let options =
            JsonOptions { depth_max: self.gate.limits.json_depth_max, opaque: NAMES, said: &self.said };
        let Some(MaskedJson { bytes, findings }) = inspector.mask_json(text, &options)? else {
            return Ok(Seen::NOTHING);
        };
        let mut kinds = kinds(&findings);
        kinds.truncate(KINDS_MAX);
        for kind in &kinds {
            self.gate.metrics.finding(kind, side);
        }
        Ok(Seen { masked: bytes, kinds })
    }
}
