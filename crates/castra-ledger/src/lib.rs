//! The log as values: notes, checkpoints, tiles, entries, receipts, verification.
//!
//! Castra's log is a C2SP tlog-tiles log. This crate turns its parts into bytes and back, makes and
//! checks proofs, and verifies a whole log that somebody else reads from a disk or a server
//! ([`TileSource`]). Nothing here does input or output; `castra_store::log` keeps the log on disk.

mod checkpoint;
mod entry;
pub mod fuzz;
pub mod merkle;
pub mod note;
mod receipt;
pub mod tile;
mod verify;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use entry::{
    ENTRY_BYTES_MAX, EntryError, Event, EventKind, Intent, ModelUse, Outcome, Record, RefusedRequest, Status,
    commitment,
};
pub use merkle::{leaf_hash, node_hash};
pub use note::{NoteError, Signer, VerifierKey};
pub use receipt::{RECEIPT_BYTES_MAX, Receipt, ReceiptError, ReceiptHeader};
pub use tile::{SourceError, TileSource};
pub use verify::{Counts, FINDINGS_MAX, Finding, FindingKind, Progress, Report, verify_log};
