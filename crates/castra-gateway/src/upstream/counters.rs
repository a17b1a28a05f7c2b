//! What upstreams did that they should not, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one upstream since the gate started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Child processes started.
    pub started: AtomicU64,
    /// Child processes that ended by themselves.
    pub died: AtomicU64,
    /// Answers to ids that were never asked.
    pub foreign_ids: AtomicU64,
    /// Answers to ids that were answered before.
    pub second_answers: AtomicU64,
    /// Exchanges that were ended because their caller could not keep up.
    pub flooded: AtomicU64,
    /// Messages that nobody could be found for, or that came faster than they were taken.
    pub dropped: AtomicU64,
    /// Lines and messages that were not MCP.
    pub garbage: AtomicU64,
}

impl Counters {
    /// Adds one. Returns true for the first, which is the one to report.
    pub(super) fn add(counter: &AtomicU64) -> bool {
        counter.fetch_add(1, Ordering::Relaxed) == 0
    }
}
