//! A run: what the gate has seen of one task, and what that says of the next call.

use castra_core::{Coverage, FlowFacts};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ActiveSpan, Judgement, Mark, Marks, Returned, Tool};

/// The form of a serialised run.
const VERSION: u32 = 1;

/// One task of one agent, as the gate sees it.
///
/// A run only ever gets stricter by itself: what makes it laxer is what the user says and what trusted
/// tools return. When a bound is reached, what does not fit counts as untrusted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    version: u32,
    coverage: Coverage,
    tainted: bool,
    prompted: bool,
    secret: bool,
    suspect: bool,
    marks: Vec<Mark>,
}

/// What is known of a run as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunFacts {
    /// Whether it has read anything that strangers may have written.
    pub tainted: bool,
    /// Whether it has read a secret source.
    pub secret: bool,
    /// Whether an attack on it was seen.
    pub suspect: bool,
    /// Whether anything that the user said is known.
    pub prompted: bool,
}

impl Run {
    /// A run that begins now.
    pub fn new(coverage: Coverage) -> Self {
        Self {
            version: VERSION,
            coverage,
            tainted: false,
            prompted: false,
            secret: false,
            suspect: false,
            marks: Vec::new(),
        }
    }

    /// A run of which nothing is known any more, or was ever known: tainted, without a prompt, and deaf to
    /// what is said in it from now on.
    pub fn lost() -> Self {
        Self { tainted: true, secret: true, ..Self::new(Coverage::Full) }
    }

    /// Takes what the user said: each new message of the user, once.
    pub fn user_said(&mut self, text: &str) {
        let _ = text;
    }

    /// What is known of a call. Changes nothing.
    pub fn judge(&self, tool: &Tool<'_>, arguments: &Value) -> Judgement {
        let _ = arguments;
        let facts = FlowFacts {
            coverage: self.coverage,
            described: tool.described,
            secret: self.secret,
            suspect: self.suspect,
            ..FlowFacts::default()
        };
        Judgement { facts, findings: Vec::new() }
    }

    /// A call was permitted and goes now; `approved` if a person said so.
    pub fn went(&mut self, tool: &Tool<'_>, arguments: &Value, approved: bool) {
        let _ = (tool, arguments, approved);
    }

    /// A call returned.
    pub fn returned(
        &mut self,
        tool: &Tool<'_>,
        arguments: &Value,
        returned: Returned<'_>,
        marks: &dyn Marks,
    ) {
        let _ = (tool, arguments, returned, marks);
        self.tainted = true;
    }

    /// Untrusted text came from elsewhere: a peer's answer, a resource, a result of an agent's own tool.
    pub fn received(&mut self, source: &str, text: &str, record: u64) {
        let _ = (source, text, record);
        self.tainted = true;
    }

    /// The gate held something that was clearly injected: from now on the run is suspect.
    pub fn attacked(&mut self) {
        self.suspect = true;
    }

    /// Marks of what this run wrote while it was tainted, since this was last asked. Ask after each
    /// [`Run::went`].
    pub fn wrote(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.marks)
    }

    /// What is known of the run as a whole.
    pub fn facts(&self) -> RunFacts {
        RunFacts {
            tainted: self.tainted,
            secret: self.secret,
            suspect: self.suspect,
            prompted: self.prompted,
        }
    }

    /// Links, images and addresses in an answer to the user that came only from untrusted text.
    pub fn answer(&self, text: &str) -> Vec<ActiveSpan> {
        vec![ActiveSpan { place: 0..text.len(), origin: crate::Origin::Nowhere }]
    }

    /// Bytes of memory that the run holds, about.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.marks.capacity() * size_of::<Mark>()
    }
}
