//! Other people's servers behind the gate, and other people's clients in front of it.

use crate::tally::Tally;

/// How much to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Every client with one server.
    Quick,
    /// Every client with every server.
    Full,
}

/// Runs every pair.
pub(crate) fn run(_extent: Extent) -> Tally {
    Tally::default()
}
