//! What [`crate::Run::judge`] answers: facts for policies, and findings for people.

use std::{ops::Range, sync::Arc};

use castra_core::FlowFacts;

use crate::ArgumentKind;

/// What is known of a call.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Judgement {
    /// For policies.
    pub facts: FlowFacts,
    /// For people: one for each argument that some list of the facts names, and one for intent.
    pub findings: Vec<ArgumentFinding>,
}

/// Why an argument stands in one of the lists of the facts.
#[derive(Debug, Clone, PartialEq)]
pub struct ArgumentFinding {
    /// The argument's name; with an index where it is a list (`recipients[2]`); empty for the call itself.
    pub argument: Arc<str>,
    /// The value, at most [`ArgumentFinding::SHOWN_MAX`] characters of it.
    pub shown: String,
    /// The kind that the manifest gives the argument; none for free text.
    pub kind: Option<ArgumentKind>,
    /// Where the value was seen.
    pub origin: Origin,
    /// The rule that it breaks, by its name in the documentation.
    pub rule: &'static str,
    /// What would change it.
    pub fix: String,
}

impl ArgumentFinding {
    /// Longest piece of a value that is shown.
    pub const SHOWN_MAX: usize = 80;
}

/// Where a value was seen first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The user wrote it.
    Prompt,
    /// A trusted output of this tool (`server/tool`) holds it.
    Trusted {
        /// The tool.
        tool: Arc<str>,
    },
    /// It was seen only in text that strangers may have written.
    Untrusted {
        /// Index of the record of the result in the log.
        record: u64,
        /// The tool, peer or resource that it came from.
        source: Arc<str>,
        /// The text around it; empty if it is not kept any more.
        excerpt: String,
    },
    /// It was not seen in this run.
    Nowhere,
}

/// A piece of an answer to the user that only untrusted text gave, and that a reader or a client would
/// act on: a link, an image, an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveSpan {
    /// Bytes of the answer.
    pub place: Range<usize>,
    /// Where it came from.
    pub origin: Origin,
}
