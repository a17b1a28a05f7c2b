//! C2SP tlog-tiles: where the parts of a log lie, hash tiles and entry bundles as bytes, the
//! builder that turns appended entries into tiles, and tree nodes read back from tiles.

use std::{collections::HashMap, fmt, str::FromStr};

use castra_core::Digest;

use crate::{
    entry::ENTRY_BYTES_MAX,
    merkle::{Frontier, perfect_root},
};

/// Hashes of a full tile, and entries of a full bundle.
pub const TILE_WIDTH: u16 = 256;
/// Largest entry bundle: 256 entries with their lengths.
pub const BUNDLE_BYTES_MAX: usize = TILE_WIDTH as usize * (2 + ENTRY_BYTES_MAX);
/// Highest tile level that a tree of at most 2^64 entries has.
pub const LEVEL_MAX: u8 = 7;

/// Where a log writes its next checkpoint before that takes the present one's place.
pub const CHECKPOINT_NEW: &str = "checkpoint.new";

const HASH_BYTES: usize = 32;
const TILE_HEIGHT: u32 = 8;
/// tlog-tiles allows levels up to 63; those above [`LEVEL_MAX`] are never filled.
const LEVEL_WRITTEN_MAX: u64 = 63;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Hashes of the tree, at a level (0 holds leaf hashes).
    Hashes(u8),
    /// The entries themselves.
    Entries,
}

impl TileKind {
    /// Height in the tree of the hashes that it holds.
    fn height(self) -> u32 {
        match self {
            Self::Hashes(level) => u32::from(level) * TILE_HEIGHT,
            Self::Entries => 0,
        }
    }
}

/// Which tile: its kind, its index within the level, and its width (256 when it is full).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TilePath {
    /// Hashes of a level, or entries.
    pub kind: TileKind,
    /// Index among the tiles of its kind.
    pub index: u64,
    /// Number of hashes or entries, 1 to 256; below 256 the tile is partial.
    pub width: u16,
}

impl TilePath {
    /// The tile with this index as it is in a log of `size` entries; none when it would be empty.
    pub fn in_log(kind: TileKind, index: u64, size: u64) -> Option<Self> {
        let hashes = size.checked_shr(kind.height()).unwrap_or(0);
        let before = index.checked_mul(u64::from(TILE_WIDTH))?;
        let width = hashes.checked_sub(before)?.min(u64::from(TILE_WIDTH)) as u16;
        (width > 0).then_some(Self { kind, index, width })
    }

    /// The last tile of a kind in a log of `size` entries; none when there is no tile of that kind.
    pub fn last_in_log(kind: TileKind, size: u64) -> Option<Self> {
        let last = size.checked_shr(kind.height())?.checked_sub(1)?;
        Self::in_log(kind, last >> TILE_HEIGHT, size)
    }

    /// The full tile in the same place. A log may delete a partial tile once it has the full one.
    #[must_use]
    pub fn full(self) -> Self {
        Self { width: TILE_WIDTH, ..self }
    }

    /// Whether the tile has fewer than 256 hashes.
    pub fn is_partial(&self) -> bool {
        self.width < TILE_WIDTH
    }

    /// The entries that it spans.
    pub fn entries(&self) -> std::ops::Range<u64> {
        let scale = |hashes: u64| hashes.checked_mul(1_u64.checked_shl(self.kind.height())?);
        let start = self.index.saturating_mul(u64::from(TILE_WIDTH));
        let end = start.saturating_add(u64::from(self.width));
        scale(start).unwrap_or(u64::MAX)..scale(end).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        let mut groups = [0_u16; 7];
        let (mut rest, mut count) = (self.index, 0);
        for slot in &mut groups {
            *slot = (rest % 1000) as u16;
            rest /= 1000;
            count += 1;
            if rest == 0 {
                break;
            }
        }
        for group in groups.iter().take(count).skip(1).rev() {
            write!(f, "x{group:03}/")?;
        }
        write!(f, "{:03}", groups.first().unwrap_or(&0))?;
        if self.is_partial() { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

/// A path that names no tile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this path names no tile; expected tile/<level>/<index> or tile/entries/<index>, as in tile/0/x001/234.p/7"
)]
pub struct BadTilePath;

impl FromStr for TilePath {
    type Err = BadTilePath;

    fn from_str(path: &str) -> Result<Self, BadTilePath> {
        let (kind, rest) = path.strip_prefix("tile/").and_then(|p| p.split_once('/')).ok_or(BadTilePath)?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => match decimal(level) {
                Some(level) if level <= LEVEL_WRITTEN_MAX => TileKind::Hashes(level as u8),
                _ => return Err(BadTilePath),
            },
        };
        let (index, width) = match rest.split_once(".p/") {
            None => (rest, TILE_WIDTH),
            Some((index, width)) => match decimal(width) {
                Some(width @ 1..=255) => (index, width as u16),
                _ => return Err(BadTilePath),
            },
        };
        let index = parse_index(index).ok_or(BadTilePath)?;
        Ok(Self { kind, index, width })
    }
}

/// Reads groups of three digits, all but the last one with an `x` before them, without leading
/// groups of zeros.
fn parse_index(text: &str) -> Option<u64> {
    let (front, last) = match text.rsplit_once('/') {
        Some((front, last)) => (Some(front), last),
        None => (None, text),
    };
    let group = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        if digits { text.parse::<u64>().ok() } else { None }
    };
    let mut index = 0_u64;
    for (at, part) in front.into_iter().flat_map(|front| front.split('/')).enumerate() {
        let value = group(part.strip_prefix('x')?)?;
        if at == 0 && value == 0 {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(value)?;
    }
    index.checked_mul(1000)?.checked_add(group(last)?)
}

/// Reads an ASCII decimal without sign and without leading zeros.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let plain = digits && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Bytes that are not the tile that their path promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// A hash tile of another length.
    #[error("it has {found} bytes instead of {expected}")]
    Length {
        /// Bytes that a tile of this width has.
        expected: usize,
        /// Bytes that it has.
        found: usize,
    },
    /// An entry bundle that ends within an entry.
    #[error("it ends within entry {at} of {width}")]
    Truncated {
        /// Position within the bundle.
        at: usize,
        /// Entries that the bundle should have.
        width: u16,
    },
    /// An entry bundle with bytes behind its last entry.
    #[error("it has {extra} bytes behind its {width} entries")]
    Trailing {
        /// How many bytes.
        extra: usize,
        /// Entries that the bundle should have.
        width: u16,
    },
    /// The file is missing.
    #[error("it is missing")]
    Missing,
}

/// Reads the first `width` hashes of a hash tile; `full` says that it holds 256.
///
/// # Errors
/// When the length is not exactly that of the tile.
pub fn parse_hashes(bytes: &[u8], width: u16, full: bool) -> Result<Vec<Digest>, TileError> {
    let expected = HASH_BYTES * usize::from(if full { TILE_WIDTH } else { width });
    if bytes.len() != expected {
        return Err(TileError::Length { expected, found: bytes.len() });
    }
    let (hashes, _) = bytes.as_chunks::<HASH_BYTES>();
    Ok(hashes.iter().take(usize::from(width)).map(|hash| Digest(*hash)).collect())
}

/// Reads the entries of a bundle of `width` entries.
///
/// # Errors
/// When it holds fewer or more bytes than its entries take.
pub fn parse_entries(bytes: &[u8], width: u16) -> Result<Vec<&[u8]>, TileError> {
    let (entries, rest) = take_entries(bytes, width);
    if entries.len() < usize::from(width) {
        return Err(TileError::Truncated { at: entries.len(), width });
    }
    if !rest.is_empty() {
        return Err(TileError::Trailing { extra: rest.len(), width });
    }
    Ok(entries)
}

/// As many of a bundle's first `width` entries as are whole, and the bytes behind them.
pub fn take_entries(bytes: &[u8], width: u16) -> (Vec<&[u8]>, &[u8]) {
    let (mut entries, mut rest) = (Vec::with_capacity(usize::from(width)), bytes);
    while entries.len() < usize::from(width) {
        let Some((length, behind)) = rest.split_first_chunk() else { break };
        let Some((entry, behind)) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length))) else {
            break;
        };
        entries.push(entry);
        rest = behind;
    }
    (entries, rest)
}

/// Reads parts of a log by their path below its prefix: `checkpoint` or `tile/…`. A folder, a
/// server, or a test's memory.
pub trait TileSource {
    /// The bytes at `path`; none when there is nothing.
    ///
    /// # Errors
    /// When it cannot be said whether there is something. What is read is not yet trusted; whoever
    /// reads from others takes no more than [`BUNDLE_BYTES_MAX`] bytes and one.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, SourceError>;

    /// The paths of all files that are there although a log of `size` entries does not
    /// [need](is_needed) them. A source that cannot be listed, as a server, knows of none.
    ///
    /// # Errors
    /// When the files cannot be listed.
    fn others(&self, size: u64) -> Result<Vec<String>, SourceError> {
        let _ = size;
        Ok(Vec::new())
    }
}

/// Whether a log of `size` entries needs the file at `path`: its checkpoint, its full tiles, and the
/// partial tiles at its end.
pub fn is_needed(path: &str, size: u64) -> bool {
    let tile = || path.parse::<TilePath>().ok();
    path == "checkpoint"
        || tile().is_some_and(|tile| TilePath::in_log(tile.kind, tile.index, size) == Some(tile))
}

/// A part of the log could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {path}: {cause}")]
pub struct SourceError {
    /// Path below the log's prefix.
    pub path: String,
    /// What the disk or the server said.
    pub cause: String,
}

/// Why a tile could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadTileError {
    /// It could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It is not what it should be.
    #[error("{path} is damaged: {cause}")]
    Damaged {
        /// Which one.
        path: TilePath,
        /// In which way.
        cause: TileError,
    },
}

/// Reads the bytes of a tile, and whether they are those of the full tile, which stands in for a
/// partial one that the log has deleted.
pub(crate) fn read_tile(
    source: &dyn TileSource,
    path: TilePath,
) -> Result<Option<(Vec<u8>, bool)>, SourceError> {
    if let Some(bytes) = source.read(&path.to_string())? {
        return Ok(Some((bytes, !path.is_partial())));
    }
    if !path.is_partial() {
        return Ok(None);
    }
    Ok(source.read(&path.full().to_string())?.map(|bytes| (bytes, true)))
}

/// Reads the hashes of a tile.
///
/// # Errors
/// When it cannot be read, is missing, or has another length.
pub fn read_hashes(source: &dyn TileSource, path: TilePath) -> Result<Vec<Digest>, ReadTileError> {
    let damaged = |cause| ReadTileError::Damaged { path, cause };
    let (bytes, full) = read_tile(source, path)?.ok_or(damaged(TileError::Missing))?;
    parse_hashes(&bytes, path.width, full).map_err(damaged)
}

/// Reads the bundle at `path` and gives its first `path.width` entries.
///
/// # Errors
/// When it cannot be read, is missing, or does not hold its entries.
pub fn read_entries(source: &dyn TileSource, path: TilePath) -> Result<Vec<Vec<u8>>, ReadTileError> {
    let damaged = |cause| ReadTileError::Damaged { path, cause };
    let (bytes, full) = read_tile(source, path)?.ok_or(damaged(TileError::Missing))?;
    let held = if full { TILE_WIDTH } else { path.width };
    let entries = parse_entries(&bytes, held).map_err(damaged)?;
    Ok(entries.into_iter().take(usize::from(path.width)).map(<[u8]>::to_vec).collect())
}

/// Reads the nodes of a tree from its tiles and keeps the tiles that it has read: for
/// [`crate::merkle::inclusion_proof`] and its like. Meant to live for one proof.
pub struct TileNodes<'a> {
    source: &'a dyn TileSource,
    size: u64,
    read: HashMap<TilePath, Vec<Digest>>,
}

impl<'a> TileNodes<'a> {
    /// Nodes of the log of `size` entries at `source`.
    pub fn new(source: &'a dyn TileSource, size: u64) -> Self {
        Self { source, size, read: HashMap::new() }
    }

    /// Root of the perfect subtree of this height and index.
    ///
    /// # Errors
    /// When the tile that holds it cannot be read, or the tree has no such node.
    pub fn node(&mut self, height: u32, index: u64) -> Result<Digest, ReadTileError> {
        let (level, within) = ((height / TILE_HEIGHT) as u8, height % TILE_HEIGHT);
        let kind = TileKind::Hashes(level);
        let tile = index >> (TILE_HEIGHT - within);
        let path =
            TilePath::in_log(kind, tile, self.size).unwrap_or(TilePath { kind, index: tile, width: 1 });
        let hashes = match self.read.entry(path) {
            std::collections::hash_map::Entry::Occupied(held) => held.into_mut(),
            std::collections::hash_map::Entry::Vacant(slot) => slot.insert(read_hashes(self.source, path)?),
        };
        let start = ((index << within) & u64::from(TILE_WIDTH - 1)) as usize;
        let part = hashes.get(start..start + (1 << within));
        let cause = TileError::Length {
            expected: HASH_BYTES * (start + (1 << within)),
            found: HASH_BYTES * hashes.len(),
        };
        part.and_then(perfect_root).ok_or(ReadTileError::Damaged { path, cause })
    }
}

/// The right edge of a log as tiles: takes entries and gives out the tiles that they fill.
#[derive(Debug, Clone, Default)]
pub struct TreeBuilder {
    frontier: Frontier,
    /// Hashes of the partial tile at each level, from level 0.
    levels: Vec<Vec<Digest>>,
    /// The partial entry bundle.
    bundle: Vec<u8>,
    /// Full tiles since the last [`Self::take_tiles`].
    full: Vec<(TilePath, Vec<u8>)>,
    /// Size at the last [`Self::take_tiles`].
    taken: u64,
}

impl TreeBuilder {
    /// The builder of an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes up a log of `size` entries from its tiles.
    ///
    /// # Errors
    /// When a tile on the right edge is missing or damaged. Whether the tiles are those of a
    /// checkpoint is for the caller to see, by comparing [`Self::root`].
    pub fn resume(source: &dyn TileSource, size: u64) -> Result<Self, ReadTileError> {
        let mut levels = Vec::new();
        for level in 0..=LEVEL_MAX {
            let kind = TileKind::Hashes(level);
            let edge = size.checked_shr(TILE_HEIGHT * (u32::from(level) + 1)).unwrap_or(0);
            let path = TilePath::in_log(kind, edge, size);
            levels.push(path.map_or(Ok(Vec::new()), |path| read_hashes(source, path))?);
        }
        let edge = TilePath::in_log(TileKind::Entries, size >> TILE_HEIGHT, size);
        let mut bundle = Vec::new();
        for entry in edge.map_or(Ok(Vec::new()), |path| read_entries(source, path))? {
            push_entry(&mut bundle, &entry);
        }
        Ok(Self { frontier: edge_frontier(size, &levels), levels, bundle, full: Vec::new(), taken: size })
    }

    /// Number of entries.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Root hash over all entries.
    pub fn root(&self) -> Digest {
        self.frontier.root()
    }

    /// Adds an entry, at most [`ENTRY_BYTES_MAX`] bytes, with its leaf hash.
    pub fn push(&mut self, entry: &[u8], leaf: Digest) {
        debug_assert!(entry.len() <= ENTRY_BYTES_MAX);
        push_entry(&mut self.bundle, entry);
        let at = self.frontier.size();
        let (levels, full) = (&mut self.levels, &mut self.full);
        self.frontier.append_seeing(leaf, |height, node| {
            if height % TILE_HEIGHT != 0 {
                return;
            }
            let level = (height / TILE_HEIGHT) as usize;
            if levels.len() <= level {
                levels.push(Vec::new());
            }
            let Some(hashes) = levels.get_mut(level) else { return };
            hashes.push(node);
            if hashes.len() == usize::from(TILE_WIDTH) {
                let index = at >> (height + TILE_HEIGHT);
                let path = TilePath { kind: TileKind::Hashes(level as u8), index, width: TILE_WIDTH };
                full.push((path, hash_bytes(hashes)));
                hashes.clear();
            }
        });
        if self.size().is_multiple_of(u64::from(TILE_WIDTH)) {
            let path = TilePath { kind: TileKind::Entries, index: at >> TILE_HEIGHT, width: TILE_WIDTH };
            self.full.push((path, std::mem::take(&mut self.bundle)));
        }
    }

    /// The tiles that are new since the last call: full ones, then the partial ones that the
    /// present size needs.
    pub fn take_tiles(&mut self) -> Vec<(TilePath, Vec<u8>)> {
        let mut tiles = std::mem::take(&mut self.full);
        let size = self.size();
        for (level, hashes) in self.levels.iter().enumerate() {
            let height = TILE_HEIGHT * level as u32;
            // A partial tile of an earlier size is still good when nothing came to its level.
            let grown = size.checked_shr(height) != self.taken.checked_shr(height);
            let index = size.checked_shr(height + TILE_HEIGHT).unwrap_or(0);
            if grown && !hashes.is_empty() {
                let path =
                    TilePath { kind: TileKind::Hashes(level as u8), index, width: hashes.len() as u16 };
                tiles.push((path, hash_bytes(hashes)));
            }
        }
        let width = (size % u64::from(TILE_WIDTH)) as u16;
        if width > 0 && size != self.taken {
            tiles.push((
                TilePath { kind: TileKind::Entries, index: size >> TILE_HEIGHT, width },
                self.bundle.clone(),
            ));
        }
        self.taken = size;
        tiles
    }
}

/// The frontier of a tree of `size` entries from the hashes of the partial tile at each level.
pub(crate) fn edge_frontier(size: u64, levels: &[Vec<Digest>]) -> Frontier {
    let mut nodes = Vec::new();
    for hashes in levels.iter().rev() {
        let mut rest = &hashes[..];
        while !rest.is_empty() {
            let (tree, behind) = rest.split_at(1 << rest.len().ilog2());
            nodes.extend(perfect_root(tree));
            rest = behind;
        }
    }
    Frontier::from_nodes(size, nodes).unwrap_or_default()
}

fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) {
    bundle.extend_from_slice(&(entry.len() as u16).to_be_bytes());
    bundle.extend_from_slice(entry);
}

fn hash_bytes(hashes: &[Digest]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::merkle::{
        consistency_proof, inclusion_proof, leaf_hash, verify_consistency, verify_inclusion,
    };

    impl TileSource for BTreeMap<String, Vec<u8>> {
        fn read(&self, path: &str) -> Result<Option<Vec<u8>>, SourceError> {
            Ok(self.get(path).cloned())
        }

        fn others(&self, size: u64) -> Result<Vec<String>, SourceError> {
            Ok(self.keys().filter(|path| !is_needed(path, size)).cloned().collect())
        }
    }

    #[test]
    fn paths_of_the_specification() {
        let path = |text: &str| text.parse::<TilePath>();
        for (text, index, width) in [
            ("tile/0/x001/x234/067", 1_234_067, 256),
            ("tile/63/000", 0, 256),
            ("tile/2/999.p/255", 999, 255),
            ("tile/0/x001/000.p/1", 1000, 1),
            ("tile/entries/x018/x446/x744/x073/x709/x551/615", u64::MAX, 256),
        ] {
            let parsed = path(text).expect(text);
            assert_eq!((parsed.index, parsed.width), (index, width));
            assert_eq!(parsed.to_string(), text);
        }
        for bad in [
            "",
            "tile",
            "tile/0",
            "tile/0/",
            "tile/00/000",
            "tile/64/000",
            "tile/-1/000",
            "tile/0/0",
            "tile/0/0000",
            "tile/0/x000/001",
            "tile/0/001/x001",
            "tile/0/x001",
            "tile/0/001/001",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/000.p",
            "tile/0/000.p/",
            "tile/0/+00",
            "/tile/0/000",
            "tile/0/000/",
            "tile/0/../000",
            "tile/data/000",
            "tile/entries/x018/x446/x744/x073/x709/x551/616",
        ] {
            assert_eq!(path(bad), Err(BadTilePath), "{bad}");
        }
    }

    #[test]
    fn a_tree_of_70000_has_the_tiles_that_the_specification_lists() {
        let widths = |level, size| {
            (0..)
                .map_while(|index| TilePath::in_log(TileKind::Hashes(level), index, size))
                .map(|p| p.width)
                .collect::<Vec<_>>()
        };
        let level0 = widths(0, 70_000);
        assert_eq!((level0.len(), level0.last()), (274, Some(&112)));
        assert_eq!(widths(1, 70_000), [256, 17]);
        assert_eq!(widths(2, 70_000), [1]);
        assert!(widths(3, 70_000).is_empty());
        assert_eq!((widths(0, 256), widths(1, 256)), (vec![256], vec![1]));
    }

    #[test]
    fn a_built_log_reads_back_and_proves() {
        let (mut builder, mut files) = (TreeBuilder::new(), BTreeMap::new());
        let mut checkpoints = Vec::new();
        for i in 0..70_000_u64 {
            let entry = i.to_string().into_bytes();
            builder.push(&entry, leaf_hash(&entry));
            if [0, 100, 254, 255, 256, 600, 65_535, 65_536, 69_999].contains(&i) {
                files.extend(builder.take_tiles().into_iter().map(|(path, bytes)| (path.to_string(), bytes)));
                checkpoints.push((builder.size(), builder.root()));
            }
        }
        for (size, root) in &checkpoints {
            let again = TreeBuilder::resume(&files, *size).expect("resumes");
            assert_eq!((again.size(), again.root()), (*size, *root));
        }
        let (size, root) = *checkpoints.last().expect("some");
        for (old, old_root) in &checkpoints {
            let mut nodes = TileNodes::new(&files, size);
            let proof = consistency_proof(*old, size, |h, i| nodes.node(h, i)).expect("proof");
            verify_consistency(*old, old_root, size, &root, &proof).expect("holds");
        }
        for index in [0, 1, 255, 256, 65_535, 65_536, 69_999] {
            let mut nodes = TileNodes::new(&files, size);
            let proof = inclusion_proof(index, size, |h, i| nodes.node(h, i)).expect("proof");
            let bundle = TilePath::in_log(TileKind::Entries, index / 256, size).expect("bundle");
            let entry = &read_entries(&files, bundle).expect("reads")[(index % 256) as usize];
            assert_eq!(entry, index.to_string().as_bytes());
            verify_inclusion(&leaf_hash(entry), index, size, &proof, &root).expect("holds");
        }
    }

    proptest! {
        #[test]
        fn indexes_go_both_ways(level in 0_u8..64, index in any::<u64>(), width in 1_u16..=256, entries: bool) {
            let kind = if entries { TileKind::Entries } else { TileKind::Hashes(level) };
            let path = TilePath { kind, index, width };
            prop_assert_eq!(path.to_string().parse(), Ok(path));
        }

        #[test]
        fn a_path_that_parses_is_written_the_same(text in "(tile/)?([0-9]{1,2}|entries)/(x?[0-9]{3}/){0,2}[0-9]{3}(\\.p/[0-9]{1,3})?") {
            if let Ok(path) = text.parse::<TilePath>() {
                prop_assert_eq!(path.to_string(), text);
            }
        }

        #[test]
        fn bundles_go_both_ways(entries in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..20), cut in 1_usize..10) {
            let mut bundle = Vec::new();
            entries.iter().for_each(|entry| push_entry(&mut bundle, entry));
            let width = entries.len() as u16;
            prop_assert_eq!(parse_entries(&bundle, width).expect("parses"), entries);
            prop_assert!(parse_entries(&bundle, width + 1).is_err());
            prop_assert!(parse_entries(&bundle[..bundle.len() - cut.min(bundle.len())], width).is_err());
            bundle.push(0);
            prop_assert!(parse_entries(&bundle, width).is_err());
        }

        #[test]
        fn resumed_builders_go_on_alike(first in 0_u64..600, second in 0_u64..600) {
            let (mut whole, mut files) = (TreeBuilder::new(), BTreeMap::new());
            let leaf = |i: u64| leaf_hash(&i.to_be_bytes());
            (0..first).for_each(|i| whole.push(&i.to_be_bytes(), leaf(i)));
            files.extend(whole.take_tiles().into_iter().map(|(path, bytes)| (path.to_string(), bytes)));
            let mut resumed = TreeBuilder::resume(&files, first).expect("resumes");
            for i in first..first + second {
                whole.push(&i.to_be_bytes(), leaf(i));
                resumed.push(&i.to_be_bytes(), leaf(i));
            }
            prop_assert_eq!(whole.root(), resumed.root());
            prop_assert_eq!(whole.take_tiles(), resumed.take_tiles());
        }
    }
}
