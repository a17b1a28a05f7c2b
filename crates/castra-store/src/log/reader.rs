//! Reading a log, without a lock: for other processes while the gate runs, for what the gate
//! serves under `/log/`, and for the writing process itself.

use std::{
    fs::File,
    io::{self, Read},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use castra_core::Digest;
use castra_ledger::{
    Checkpoint, Receipt, SourceError, TileSource, leaf_hash,
    merkle::{inclusion_proof, verify_inclusion},
    note::NOTE_BYTES_MAX,
    tile::{BUNDLE_BYTES_MAX, TILE_WIDTH, TileKind, TileNodes, TilePath, read_entries},
};
use parking_lot::Mutex;

use super::{LogError, journal::Lookup};

/// Entries that are read in one call.
pub const ENTRIES_MAX: usize = 4096;

/// A folder with a log's public files: `checkpoint` and `tile/…`. Reads nothing else.
#[derive(Debug, Clone)]
pub struct FolderSource {
    dir: PathBuf,
}

impl FolderSource {
    /// The files in `dir`, which is `<state>/log` or a copy of it.
    pub fn open(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }
}

impl TileSource for FolderSource {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let max = match path {
            "checkpoint" => NOTE_BYTES_MAX,
            _ if path.parse::<TilePath>().is_ok() => BUNDLE_BYTES_MAX,
            _ => return Ok(None),
        };
        let read = File::open(self.dir.join(path)).and_then(|file| {
            let mut bytes = Vec::with_capacity(file.metadata()?.len().min(max as u64) as usize);
            // One byte more than can be good, so that what is too long is seen to be.
            file.take(max as u64 + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(cause) => Err(SourceError { path: path.to_owned(), cause: cause.to_string() }),
        }
    }
}

/// Reads the log of a state folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogReader {
    tiles: FolderSource,
    journal: Arc<Mutex<Lookup>>,
}

impl LogReader {
    /// Opens the log in a state folder. Takes no lock and changes nothing.
    ///
    /// # Errors
    /// When there is no log.
    pub fn open(dir: &Path) -> Result<Self, LogError> {
        let log = dir.join("log");
        let there = log.join("checkpoint");
        File::open(&there).map_err(LogError::io("open", &there))?;
        let journal = Arc::new(Mutex::new(Lookup::new(dir.join("journal"))));
        Ok(Self { tiles: FolderSource::open(&log), journal })
    }

    /// The public files, as `/log/` serves them and `verify_log` reads them.
    pub fn tiles(&self) -> &FolderSource {
        &self.tiles
    }

    /// The signed checkpoint.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn checkpoint(&self) -> Result<String, LogError> {
        let bytes = self.tiles.read("checkpoint").map_err(|cause| LogError::Tiles(cause.into()))?;
        let bytes =
            bytes.ok_or_else(|| LogError::CheckpointMissing { path: self.tiles.dir.join("checkpoint") })?;
        String::from_utf8(bytes).map_err(|_| malformed("it is not UTF-8"))
    }

    /// What the checkpoint says; its signature is not checked here.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn head(&self) -> Result<Checkpoint, LogError> {
        head_of(&self.checkpoint()?)
    }

    /// Entries from `range.start` on, at most [`ENTRIES_MAX`]; fewer where the log ends. Those that
    /// the checkpoint does not cover yet come from the journal.
    ///
    /// # Errors
    /// When a tile or the journal is damaged or cannot be read.
    pub fn entries(&self, range: Range<u64>) -> Result<Vec<Bytes>, LogError> {
        let size = self.head()?.size;
        let mut entries = self.signed_entries(range.clone(), size)?;
        let mut journal = self.journal.lock();
        let mut index = range.start.saturating_add(entries.len() as u64).max(range.start);
        while index >= size && index < range.end && entries.len() < ENTRIES_MAX {
            let Some(held) = journal.find(index, size)? else { break };
            entries.push(held.entry.into());
            index += 1;
        }
        Ok(entries)
    }

    /// One entry; none when the log does not have it yet.
    ///
    /// # Errors
    /// As for [`Self::entries`].
    pub fn entry(&self, index: u64) -> Result<Option<Bytes>, LogError> {
        Ok(self.entries(index..index.saturating_add(1))?.pop())
    }

    /// What the journal keeps with an entry, as it was given: sealed. None when there is no such
    /// record.
    ///
    /// # Errors
    /// When the journal is damaged or cannot be read.
    pub fn payload(&self, index: u64) -> Result<Option<Vec<u8>>, LogError> {
        let covered = self.head()?.size;
        Ok(self.journal.lock().find(index, covered)?.map(|held| held.payload))
    }

    /// Proof that entry `index` is among the first `size` entries.
    ///
    /// # Errors
    /// When the checkpoint does not cover `size`, or tiles are damaged.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Digest>, LogError> {
        let signed = self.head()?.size;
        if size > signed {
            return Err(LogError::NoProof { what: "tree size", position: size, size: signed });
        }
        // Nodes of a smaller tree are nodes of the larger one, whose tiles are there.
        let mut nodes = TileNodes::new(&self.tiles, signed);
        Ok(inclusion_proof(index, size, |height, at| nodes.node(height, at))?)
    }

    /// The receipt of an entry; none when the checkpoint does not cover it yet.
    ///
    /// # Errors
    /// When tiles are damaged, so that the receipt would not hold.
    pub fn receipt(&self, index: u64) -> Result<Option<Receipt>, LogError> {
        let checkpoint = self.checkpoint()?;
        let head = head_of(&checkpoint)?;
        if index >= head.size {
            return Ok(None);
        }
        let mut nodes = TileNodes::new(&self.tiles, head.size);
        let proof = inclusion_proof(index, head.size, |height, at| nodes.node(height, at))?;
        let entry = self.signed_entries(index..index + 1, head.size)?.pop().unwrap_or_default();
        verify_inclusion(&leaf_hash(&entry), index, head.size, &proof, &head.root)
            .map_err(|_| LogError::RootMismatch { size: head.size })?;
        Ok(Some(Receipt { index, proof, checkpoint, entry: entry.to_vec() }))
    }

    /// Entries below `size` from the bundles.
    pub(super) fn signed_entries(&self, range: Range<u64>, size: u64) -> Result<Vec<Bytes>, LogError> {
        let (mut index, end) = (range.start, range.end.min(size));
        let mut entries = Vec::new();
        while index < end && entries.len() < ENTRIES_MAX {
            let width = u64::from(TILE_WIDTH);
            let Some(path) = TilePath::in_log(TileKind::Entries, index / width, size) else { break };
            let skip = (index % width) as usize;
            let bundle = read_entries(&self.tiles, path)?;
            let wanted = (end - index).min((ENTRIES_MAX - entries.len()) as u64) as usize;
            let before = entries.len();
            entries.extend(bundle.into_iter().skip(skip).take(wanted).map(Bytes::from));
            index += (entries.len() - before) as u64;
        }
        Ok(entries)
    }
}

/// Reads a checkpoint without its signatures.
fn head_of(note: &str) -> Result<Checkpoint, LogError> {
    let end = note.rfind("\n\n").ok_or(malformed("it has no signatures"))?;
    Ok(Checkpoint::parse(note.get(..=end).unwrap_or_default())?)
}

fn malformed(why: &'static str) -> LogError {
    LogError::Checkpoint(castra_ledger::CheckpointError::Malformed { why })
}
