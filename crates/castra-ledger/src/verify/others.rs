//! What lies in a log's folder beside the files that its checkpoint needs: partial tiles of earlier
//! checkpoints, which a log has to keep until their full tile is there (tlog-tiles, "Partial
//! Tiles"); tiles on their way to the next checkpoint; and what is no part of a log. None of it
//! hides a change: what is signed has to be the same everywhere, and what is not signed yet has to
//! agree with itself.

use std::ops::Range;

use castra_core::Digest;

use super::{FindingKind, Verifier, shown};
use crate::{
    checkpoint::Checkpoint,
    merkle::{leaf_hash, perfect_root},
    note::VerifierKey,
    tile::{
        CHECKPOINT_NEW, SourceError, TILE_WIDTH, TileError, TileKind, TilePath, parse_hashes, read_tile,
        take_entries,
    },
};

impl Verifier<'_> {
    /// Checks every file that verification of the checkpoint's own tree did not read.
    pub(super) fn others(&mut self, keys: &[VerifierKey]) -> Result<(), SourceError> {
        for path in self.source.others(self.size)? {
            match path.parse() {
                Ok(tile) => self.other_tile(tile)?,
                Err(_) if path == CHECKPOINT_NEW => self.checkpoint_to_come(keys)?,
                Err(_) => {
                    let message = "it is no part of the log: somebody or something else put it there".into();
                    self.report.add(FindingKind::Foreign, &path, None, message);
                }
            }
        }
        Ok(())
    }

    fn other_tile(&mut self, path: TilePath) -> Result<(), SourceError> {
        // Gone since it was listed: a log deletes partial tiles once it has the full one. An empty
        // file is one that a crash left before anything was written.
        let bytes = self.source.read(&path.to_string())?.filter(|bytes| !bytes.is_empty());
        let Some(bytes) = bytes else { return Ok(()) };
        let signed = TilePath::in_log(path.kind, path.index, self.size).map_or(0, |tile| tile.width);
        let (held, problem) = content(path, &bytes);
        let should = self.signed_hashes(path)?;
        let beyond = self.unsigned_hashes(path, signed.min(path.width)..path.width)?;
        let should = should.into_iter().map(Some).chain(std::iter::repeat(None)).take(usize::from(signed));
        let should = should.chain(beyond);
        let differs = (0_u16..)
            .zip(held.iter().zip(should))
            .find(|(_, (held, should))| should.is_some_and(|should| should != **held));
        let message = match (differs, problem) {
            (Some((at, _)), _) if at < signed => {
                format!("it is not what is signed from {} on: it was changed", named(path, at))
            }
            (Some((at, _)), _) => format!(
                "no checkpoint covers it yet, and it does not agree with {} from {} on",
                match path.kind {
                    TileKind::Hashes(1..) => "the tiles below it".to_owned(),
                    _ => sibling(path).to_string(),
                },
                named(path, at)
            ),
            (None, Some(cause)) => cause.to_string(),
            (None, None) => return Ok(()),
        };
        let kind = if path.kind == TileKind::Entries { FindingKind::Entry } else { FindingKind::Tile };
        self.report.add(kind, &path.to_string(), Some(path.entries()), message);
        Ok(())
    }

    /// The hashes that are signed for a tile, from files that nothing was found against; none of
    /// them when there is no such file.
    fn signed_hashes(&self, path: TilePath) -> Result<Vec<Digest>, SourceError> {
        let kind = match path.kind {
            TileKind::Entries => TileKind::Hashes(0),
            level => level,
        };
        let Some(tile) = TilePath::in_log(kind, path.index, self.size) else { return Ok(Vec::new()) };
        if !self.report.is_named(&tile)
            && let Some((bytes, full)) = read_tile(self.source, tile)?
            && let Ok(hashes) = parse_hashes(&bytes, tile.width, full)
        {
            return Ok(hashes);
        }
        let bundle = TilePath { kind: TileKind::Entries, ..tile };
        if kind == TileKind::Hashes(0)
            && !self.report.is_named(&bundle)
            && let Some((bytes, _)) = read_tile(self.source, bundle)?
        {
            return Ok(content(bundle, &bytes).0);
        }
        Ok(Vec::new())
    }

    /// What the hashes in `range` of a tile should be by other tiles that are not signed yet either.
    fn unsigned_hashes(&self, path: TilePath, range: Range<u16>) -> Result<Vec<Option<Digest>>, SourceError> {
        let TileKind::Hashes(level @ 1..) = path.kind else {
            let sibling = sibling(path);
            let bytes = if range.is_empty() { None } else { self.source.read(&sibling.to_string())? };
            let hashes = bytes.map(|bytes| content(sibling, &bytes).0).unwrap_or_default();
            return Ok(range.map(|at| hashes.get(usize::from(at)).copied()).collect());
        };
        let first = path.index * u64::from(TILE_WIDTH);
        let below = |at: u16| TilePath {
            kind: TileKind::Hashes(level - 1),
            index: first + u64::from(at),
            width: TILE_WIDTH,
        };
        let root = |at| {
            let bytes = self.source.read(&below(at).to_string())?;
            let hashes = bytes.and_then(|bytes| parse_hashes(&bytes, TILE_WIDTH, true).ok());
            Ok(hashes.as_deref().and_then(perfect_root))
        };
        range.map(root).collect()
    }

    /// A log writes its next checkpoint beside the present one; a crash may leave it there.
    fn checkpoint_to_come(&mut self, keys: &[VerifierKey]) -> Result<(), SourceError> {
        let note = self.source.read(CHECKPOINT_NEW)?.filter(|note| !note.is_empty());
        if let Some(Err(cause)) = note.map(|note| Checkpoint::open(&note, keys)) {
            self.report.add(FindingKind::Checkpoint, CHECKPOINT_NEW, None, cause.to_string());
        }
        Ok(())
    }
}

/// The hashes that a tile holds, or those of the entries that a bundle holds, as far as it is whole,
/// and what keeps it from being whole.
fn content(path: TilePath, bytes: &[u8]) -> (Vec<Digest>, Option<TileError>) {
    let width = path.width;
    if path.kind != TileKind::Entries {
        return match parse_hashes(bytes, width, !path.is_partial()) {
            Ok(hashes) => (hashes, None),
            Err(cause) => (Vec::new(), Some(cause)),
        };
    }
    let (entries, rest) = take_entries(bytes, width);
    let problem = if entries.len() < usize::from(width) {
        Some(TileError::Truncated { at: entries.len(), width })
    } else if rest.is_empty() {
        None
    } else {
        Some(TileError::Trailing { extra: rest.len(), width })
    };
    (entries.into_iter().map(leaf_hash).collect(), problem)
}

/// The bundle of a tile of leaf hashes, or the other way round.
fn sibling(path: TilePath) -> TilePath {
    let kind = match path.kind {
        TileKind::Entries => TileKind::Hashes(0),
        TileKind::Hashes(_) => TileKind::Entries,
    };
    TilePath { kind, ..path }
}

fn named(path: TilePath, at: u16) -> String {
    let tile = path.entries();
    let each = (tile.end - tile.start) / u64::from(path.width);
    let start = tile.start + u64::from(at) * each;
    match path.kind {
        TileKind::Entries => format!("entry {start}"),
        TileKind::Hashes(0) => format!("the hash of entry {start}"),
        TileKind::Hashes(_) => format!("the hash of the entries {}", shown(&(start..start + each))),
    }
}
