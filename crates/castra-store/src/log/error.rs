//! What can go wrong with the log on disk, in words that say what to do.

use std::{io, path::PathBuf, sync::Arc};

use castra_ledger::{CheckpointError, ENTRY_BYTES_MAX, merkle::ProofError, tile::ReadTileError};

use super::PAYLOAD_BYTES_MAX;

/// Why the log cannot be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system refused something.
    #[error("cannot {doing} {path}: {cause}")]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// A thread for the log could not be started.
    #[error("cannot start the thread {name}: {cause}")]
    Thread {
        /// Its name.
        name: &'static str,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// Another process writes this log.
    #[error("another Castra writes the log in {dir}; stop it first, or use another [state] dir")]
    Locked {
        /// The state folder.
        dir: PathBuf,
    },
    /// Something failed earlier, so nothing is taken any more.
    #[error(
        "the log takes no records any more: {cause}. Actions are refused until this is mended (a full or failing disk?) and the gate is started again; what was acknowledged is safe"
    )]
    Failed {
        /// What failed first.
        cause: Arc<str>,
    },
    /// The log was closed in order.
    #[error("the log is closed")]
    Closed,
    /// Too much waits for the disk.
    #[error(
        "{records} records ({bytes} bytes) wait for the disk, which is the limit; the disk is too slow for this load"
    )]
    Full {
        /// Records that wait.
        records: u64,
        /// Bytes that wait.
        bytes: usize,
    },
    /// An entry that tlog-tiles cannot hold.
    #[error("an entry of {bytes} bytes does not fit the log, which takes {ENTRY_BYTES_MAX}")]
    EntryTooLong {
        /// Its size.
        bytes: usize,
    },
    /// A payload above the limit.
    #[error("a payload of {bytes} bytes does not fit the journal, which takes {PAYLOAD_BYTES_MAX}")]
    PayloadTooLong {
        /// Its size.
        bytes: usize,
    },
    /// A record that the log does not have.
    #[error("there is no entry {index}; the log has {size}")]
    NoSuchEntry {
        /// Which one was asked for.
        index: u64,
        /// How many there are.
        size: u64,
    },
    /// The journal is damaged where it had been acknowledged.
    #[error(
        "the journal is damaged: {path} at byte {at}, record {index}: {why}. This is not what a crash leaves; restore the state folder from a backup, and keep this one for inspection"
    )]
    Damaged {
        /// Which segment.
        path: PathBuf,
        /// Where in it.
        at: u64,
        /// Which record should be there.
        index: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// The journal lacks records that the checkpoint covers.
    #[error(
        "the journal ends before entry {end}, but the checkpoint covers {size}: journal files were removed or the folder is partly restored. Restore log/ and journal/ together"
    )]
    JournalBehind {
        /// One past the journal's last record.
        end: u64,
        /// What the checkpoint covers.
        size: u64,
    },
    /// There are records, but no checkpoint.
    #[error(
        "{path} is missing although the journal has records; restore it from a backup. A new one is not signed, because it might contradict the lost one"
    )]
    CheckpointMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The checkpoint is not one of this log's key.
    #[error("the log's own checkpoint cannot be opened: {0}. Was the signing key or the log's name changed?")]
    Checkpoint(#[from] CheckpointError),
    /// Tiles are missing or damaged.
    #[error("{0}; `castra log verify` says what else is. Restore the folder log/ from a backup")]
    Tiles(#[from] ReadTileError),
    /// The tiles are not those of the checkpoint.
    #[error(
        "the tiles in log/ do not have the root that the checkpoint signs for {size} entries; `castra log verify` says which. Restore the folder log/ from a backup"
    )]
    RootMismatch {
        /// What the checkpoint covers.
        size: u64,
    },
    /// A proof was asked for that the tree does not have.
    #[error("there is no proof: {what} {position} is not in the {size} entries that are signed so far")]
    NoProof {
        /// "entry" or "tree size".
        what: &'static str,
        /// Which one.
        position: u64,
        /// How many entries are signed.
        size: u64,
    },
}

impl LogError {
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| Self::Io { doing, path, cause }
    }
}

impl From<ProofError<ReadTileError>> for LogError {
    fn from(error: ProofError<ReadTileError>) -> Self {
        match error {
            ProofError::OutOfRange { what, position, size } => Self::NoProof { what, position, size },
            ProofError::Node(cause) => Self::Tiles(cause),
        }
    }
}
