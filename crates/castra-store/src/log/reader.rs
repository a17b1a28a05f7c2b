//! Reading a log, without a lock: for other processes while the gate runs, for what the gate
//! serves under `/log/`, and for the writing process itself.

use std::{
    fs::{self, File},
    io::{self, Read},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use castra_core::Digest;
use castra_ledger::{
    Checkpoint, Receipt, SourceError, TileSource, leaf_hash,
    merkle::{inclusion_proof, verify_inclusion},
    note::NOTE_BYTES_MAX,
    tile::{
        BUNDLE_BYTES_MAX, CHECKPOINT_NEW, TILE_WIDTH, TileKind, TileNodes, TilePath, is_needed, read_entries,
    },
};
use parking_lot::Mutex;

use super::{LogError, journal::Lookup};

/// Folders within each other: `tile`, the level, six groups of an index, and `.p`.
const FOLDERS_DEEP_MAX: usize = 9;
/// Files that a log does not need: up to 255 partial tiles at the end of each of its levels.
const OTHERS_MAX: usize = 65_536;
/// A tile that was changed this long ago is not being written any more.
const WRITE_TIME_MAX: Duration = Duration::from_millis(200);
const LOOK_TIME: Duration = Duration::from_millis(50);
const LOOKS_MAX: u32 = 20;
/// Entries that are read in one call.
pub const ENTRIES_MAX: usize = 4096;

/// A folder with a log's public files: `checkpoint`, for a moment the next one, and `tile/…`. Reads
/// nothing else.
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
            "checkpoint" | CHECKPOINT_NEW => NOTE_BYTES_MAX,
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

    /// Waits a moment for tiles that a running gate has just written and is about to sign, so that
    /// none is met half written.
    fn others(&self, size: u64) -> Result<Vec<String>, SourceError> {
        let mut others = Vec::new();
        list(&self.dir, "", FOLDERS_DEEP_MAX, &mut |path| {
            if !is_needed(&path, size) {
                others.push(path);
            }
            if others.len() <= OTHERS_MAX {
                return Ok(());
            }
            Err(format!("there are more than {OTHERS_MAX} files that the log does not need"))
        })?;
        for _ in 0..LOOKS_MAX {
            if !self.is_being_written(&others)? {
                break;
            }
            std::thread::sleep(LOOK_TIME);
        }
        others.sort();
        Ok(others)
    }
}

impl FolderSource {
    /// Whether some of these tiles are not signed and were changed just now.
    fn is_being_written(&self, paths: &[String]) -> Result<bool, SourceError> {
        let note = self.read("checkpoint")?.and_then(|note| String::from_utf8(note).ok());
        let size = note.and_then(|note| head_of(&note).ok()).map_or(0, |head| head.size);
        let is_signed = |path: &String| path.parse().is_ok_and(|tile: TilePath| tile.entries().end <= size);
        let is_new = |path: &String| {
            let changed = fs::metadata(self.dir.join(path)).and_then(|meta| meta.modified());
            changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|ago| ago < WRITE_TIME_MAX))
        };
        Ok(paths.iter().any(|path| !is_signed(path) && is_new(path)))
    }
}

/// Gives the path of every file below a folder. Symbolic links are not followed: they count as files.
fn list(
    dir: &Path,
    below: &str,
    deep: usize,
    each: &mut dyn FnMut(String) -> Result<(), String>,
) -> Result<(), SourceError> {
    let failed = |cause: String| SourceError { path: below.to_owned(), cause };
    let items = match fs::read_dir(dir.join(below)) {
        Ok(items) => items,
        // A folder of partial tiles goes when the full tile comes.
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(failed(cause.to_string())),
    };
    for item in items {
        let item = item.map_err(|cause| failed(cause.to_string()))?;
        let slash = if below.is_empty() { "" } else { "/" };
        let path = format!("{below}{slash}{}", item.file_name().to_string_lossy());
        let is_folder = item.file_type().is_ok_and(|kind| kind.is_dir());
        match (is_folder, deep.checked_sub(1)) {
            (true, Some(deep)) => list(dir, &path, deep, each)?,
            _ => each(path).map_err(failed)?,
        }
    }
    Ok(())
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
