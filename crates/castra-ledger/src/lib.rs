//! The log as values: notes, checkpoints, tiles, entries, receipts, verification.
