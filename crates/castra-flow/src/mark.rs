//! Marks of what was written while a run was tainted, so that a later run knows it when it reads it.
//!
//! A mark is a hash of a few consecutive words, whatever their case and punctuation, so that it is
//! found again when a server wraps, escapes or cuts the text. A false match only makes a run stricter,
//! so the hash need not be cryptographic.

use serde::{Deserialize, Serialize};

/// A mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(pub u64);

/// The marks of all runs of all agents, kept by the gate.
pub trait Marks {
    /// Whether a tainted run wrote this.
    fn wrote(&self, mark: Mark) -> bool;
}

/// No marks at all: nothing was ever written.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMarks;

impl Marks for NoMarks {
    fn wrote(&self, _: Mark) -> bool {
        false
    }
}

impl Marks for std::collections::HashSet<Mark> {
    fn wrote(&self, mark: Mark) -> bool {
        self.contains(&mark)
    }
}
