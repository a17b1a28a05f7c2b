//! From durable records to tiles and a signed checkpoint: the public part of the log.
//!
//! The order keeps the promise of the signature: tiles are on the disk before a size is signed, and
//! only records that are on the disk come into tiles, so that whatever happens, what was signed can
//! be shown again and is never contradicted.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use castra_ledger::{
    Checkpoint, Signer, TileSource,
    tile::{CHECKPOINT_NEW, LEVEL_MAX, TileKind, TilePath, TreeBuilder},
};

use super::{
    LogError,
    journal::{RecentGroup, sync_folder},
    reader::FolderSource,
};

/// From this many files on, one sync of the whole file system is cheaper than one per file.
const FILES_SYNCED_ALONE: usize = 12;

/// Keeps the folder `<state>/log`.
pub(super) struct Integrator {
    dir: PathBuf,
    signer: Signer,
    builder: TreeBuilder,
}

impl Integrator {
    /// Takes up the log where its checkpoint left it. A log without records gets its first
    /// checkpoint, of no entries, so that a missing one is always noticed later.
    pub(super) fn open(dir: &Path, signer: Signer, has_records: bool) -> Result<Self, LogError> {
        fs::create_dir_all(dir).map_err(LogError::io("create", dir))?;
        let source = FolderSource::open(dir);
        let note = source.read("checkpoint").map_err(|cause| LogError::Tiles(cause.into()))?;
        let Some(note) = note else {
            if has_records {
                return Err(LogError::CheckpointMissing { path: dir.join("checkpoint") });
            }
            let mut integrator = Self { dir: dir.to_owned(), signer, builder: TreeBuilder::new() };
            integrator.publish()?;
            return Ok(integrator);
        };
        let checkpoint = Checkpoint::open(&note, std::slice::from_ref(signer.verifier_key()))?;
        let builder = TreeBuilder::resume(&source, checkpoint.size)?;
        if builder.root() != checkpoint.root {
            return Err(LogError::RootMismatch { size: checkpoint.size });
        }
        Ok(Self { dir: dir.to_owned(), signer, builder })
    }

    /// Size of the checkpoint.
    pub(super) fn size(&self) -> u64 {
        self.builder.size()
    }

    /// Deletes what a crash left between writing and signing: a next checkpoint, and partial tiles
    /// beyond the present one. Their records, in the journal up to `end`, come into tiles again, but
    /// not always into tiles of the same width, and a torn one must not stay among those that are
    /// kept. Tiles beyond `end` are not from a crash, and verification is to name them.
    pub(super) fn clear_unsigned(&self, end: u64) {
        delete(&self.dir.join(CHECKPOINT_NEW));
        if end == self.size() {
            return;
        }
        let kinds = (0..=LEVEL_MAX).map(TileKind::Hashes).chain([TileKind::Entries]);
        for edge in kinds.filter_map(|kind| TilePath::last_in_log(kind, end)).filter(TilePath::is_partial) {
            let signed = TilePath::in_log(edge.kind, edge.index, self.size()).map_or(0, |tile| tile.width);
            for width in signed + 1..=edge.width {
                delete(&self.dir.join(TilePath { width, ..edge }.to_string()));
            }
        }
    }

    /// Brings tiles and checkpoint up to date with further durable records.
    pub(super) fn integrate(&mut self, groups: &[RecentGroup]) -> Result<(), LogError> {
        for record in groups.iter().flat_map(|group| group.iter()) {
            self.builder.push(&record.entry, record.leaf);
        }
        self.publish()
    }

    fn publish(&mut self) -> Result<(), LogError> {
        let tiles = self.builder.take_tiles();
        self.write_tiles(&tiles)?;
        let checkpoint = Checkpoint {
            origin: self.signer.name().to_owned(),
            size: self.builder.size(),
            root: self.builder.root(),
            extensions: Vec::new(),
        };
        self.replace_checkpoint(&checkpoint.sign(&self.signer)?)?;
        self.drop_partial_tiles(&tiles);
        Ok(())
    }

    fn write_tiles(&self, tiles: &[(TilePath, Vec<u8>)]) -> Result<(), LogError> {
        let alone = tiles.len() <= FILES_SYNCED_ALONE;
        let mut folders = BTreeSet::new();
        for (path, bytes) in tiles {
            let path = self.dir.join(path.to_string());
            self.make_folder(&path, &mut folders)?;
            // A file may be left here by a crash before its size was signed: it is written anew.
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o644)
                .open(&path)
                .map_err(LogError::io("create", &path))?;
            file.write_all(bytes).map_err(LogError::io("write", &path))?;
            if alone {
                file.sync_all().map_err(LogError::io("sync", &path))?;
            }
        }
        if alone {
            return folders.iter().rev().try_for_each(|folder| sync_folder(folder));
        }
        let folder = File::open(&self.dir).map_err(LogError::io("open", &self.dir))?;
        rustix::fs::syncfs(&folder).map_err(|cause| LogError::io("sync", &self.dir)(cause.into()))
    }

    /// Makes the folder that `path` is in; collects those whose names have changed.
    fn make_folder(&self, path: &Path, changed: &mut BTreeSet<PathBuf>) -> Result<(), LogError> {
        let Some(folder) = path.parent() else { return Ok(()) };
        if !changed.insert(folder.to_owned()) || folder.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(folder).map_err(LogError::io("create", folder))?;
        changed
            .extend(folder.ancestors().take_while(|above| above.starts_with(&self.dir)).map(Path::to_owned));
        Ok(())
    }

    fn replace_checkpoint(&self, note: &str) -> Result<(), LogError> {
        let (new, path) = (self.dir.join(CHECKPOINT_NEW), self.dir.join("checkpoint"));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&new)
            .map_err(LogError::io("create", &new))?;
        file.write_all(note.as_bytes()).map_err(LogError::io("write", &new))?;
        file.sync_all().map_err(LogError::io("sync", &new))?;
        fs::rename(&new, &path).map_err(LogError::io("replace", &path))?;
        sync_folder(&self.dir)
    }

    /// Deletes partial tiles whose full tile is published (tlog-tiles, "Partial Tiles", allows
    /// it). What cannot be deleted only takes room.
    fn drop_partial_tiles(&self, tiles: &[(TilePath, Vec<u8>)]) {
        for (path, _) in tiles.iter().filter(|(path, _)| !path.is_partial()) {
            let folder = self.dir.join(format!("{path}.p"));
            if folder.is_dir()
                && let Err(cause) = fs::remove_dir_all(&folder)
            {
                tracing::warn!(folder = %folder.display(), %cause, "cannot delete partial tiles of the log");
            }
        }
    }
}

fn delete(path: &Path) {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %cause, "cannot delete what a crash left of the log");
        }
        _ => {}
    }
}
