//! Verification of a whole log from nothing but its files and a verifier key: every entry is hashed
//! again, every tile recomputed and compared, every record read, and each outcome matched with its
//! intent. What does not fit is named: the checkpoint, the tile, or the entry.
//!
//! Who is right when an entry and a tile disagree? The signed root vouches for the tiles on the
//! right edge of the tree, and each of these for the tiles below it, so trust is handed down from
//! the checkpoint and a single damaged file is told from its undamaged neighbours. Where the log can
//! be listed, `others` then looks at every file that the checkpoint does not need.

mod others;

use std::{collections::HashMap, fmt, ops::Range};

use castra_core::{ActionId, Decision, Digest};
use serde::Serialize;

use crate::{
    checkpoint::Checkpoint,
    entry::Record,
    merkle::{consistency_proof, empty_root, leaf_hash, perfect_root, verify_consistency},
    note::VerifierKey,
    tile::{
        LEVEL_MAX, SourceError, TILE_WIDTH, TileError, TileKind, TileNodes, TilePath, TileSource,
        edge_frontier, parse_hashes, read_tile, take_entries,
    },
};

/// Findings that a report holds; a log that is wrecked throughout is not listed entry by entry.
pub const FINDINGS_MAX: usize = 100;

/// How far verification has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Entries checked.
    pub entries: u64,
    /// Entries to check.
    pub size: u64,
}

/// How many records there are of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Intents.
    pub intents: u64,
    /// Outcomes.
    pub outcomes: u64,
    /// Requests that never became actions.
    pub refusals: u64,
    /// Events.
    pub events: u64,
    /// Intents without an outcome: actions in flight, or cut off by a crash.
    pub open: u64,
}

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// The checkpoint is missing, malformed, or not signed by a given key.
    Checkpoint,
    /// The signed root is not that of the entries and tiles.
    Root,
    /// A file is missing.
    Missing,
    /// A hash tile is wrong.
    Tile,
    /// Entries are wrong.
    Entry,
    /// Entries and hashes disagree, and nothing intact says which of them is wrong.
    Disagreement,
    /// An entry is what was signed, but it is not a record.
    Record,
    /// An outcome does not belong to the intent that it names.
    Link,
    /// The log is shorter than it was.
    RolledBack,
    /// The log has another past than it had.
    Forked,
    /// The older checkpoint cannot be compared.
    Since,
    /// A file that is no part of the log.
    Foreign,
    /// The private journal lacks a record, or has another one than the log.
    Journal,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// The file that is at fault, below the log's prefix; `journal/…` for the private journal.
    pub path: String,
    /// The entries concerned, first and one past the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<Range<u64>>,
    /// What is wrong, in a sentence.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The checkpoint, when it could be opened.
    pub checkpoint: Option<Checkpoint>,
    /// Entries that were read.
    pub entries: u64,
    /// Records of each kind.
    pub counts: Counts,
    /// What is wrong, the first [`FINDINGS_MAX`]; empty when the log holds.
    pub findings: Vec<Finding>,
    /// Findings beyond these.
    pub findings_left_out: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn holds(&self) -> bool {
        self.checkpoint.is_some() && self.findings.is_empty()
    }

    /// Adds a finding; only counts it when there are [`FINDINGS_MAX`].
    pub fn add(&mut self, kind: FindingKind, path: &str, entries: Option<Range<u64>>, message: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { kind, path: path.to_owned(), entries, message });
        } else {
            self.findings_left_out += 1;
        }
    }

    /// Whether a finding names this tile.
    pub fn is_named(&self, tile: &TilePath) -> bool {
        !self.findings.is_empty() && {
            let path = tile.to_string();
            self.findings.iter().any(|finding| finding.path == path)
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        let name = self.checkpoint.as_ref().map_or("", |checkpoint| &checkpoint.origin);
        let verdict = if self.holds() { "holds" } else { "does not hold" };
        writeln!(
            f,
            "The log {name} {verdict}: {} entries read ({} intents, {} outcomes, {} refusals, {} events).",
            self.entries, counts.intents, counts.outcomes, counts.refusals, counts.events
        )?;
        if counts.open > 0 {
            writeln!(f, "{} intents have no outcome: in flight, or cut off by a crash.", counts.open)?;
        }
        for finding in &self.findings {
            writeln!(f, "- {finding}")?;
        }
        if self.findings_left_out > 0 {
            writeln!(f, "- and {} more", self.findings_left_out)?;
        }
        Ok(())
    }
}

/// Verifies the log at `source` against `keys`. `since` is an older signed checkpoint of the same
/// log that the caller has kept: the log must have grown from it. `progress` is called for each
/// bundle of 256 entries.
///
/// # Errors
/// When the source cannot be read. A log that is read and does not hold is a [`Report`].
pub fn verify_log(
    source: &dyn TileSource,
    keys: &[VerifierKey],
    since: Option<&[u8]>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, SourceError> {
    let mut verifier = Verifier { source, progress, size: 0, report: Report::new(), links: Links::default() };
    let Some(checkpoint) = verifier.checkpoint(keys)? else { return Ok(verifier.report) };
    verifier.size = checkpoint.size;
    verifier.report.checkpoint = Some(checkpoint.clone());
    verifier.tree(&checkpoint)?;
    if let Some(note) = since {
        verifier.since(note, keys, &checkpoint)?;
    }
    verifier.others(keys)?;
    verifier.report.counts.open = verifier.links.open.len() as u64;
    Ok(verifier.report)
}

struct Verifier<'a> {
    source: &'a dyn TileSource,
    progress: &'a mut dyn FnMut(Progress),
    size: u64,
    report: Report,
    links: Links,
}

/// Which side of a comparison what is signed vouches for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Right {
    /// The tile.
    Tile,
    /// What was computed from below it.
    Below,
    /// Neither.
    Nobody,
}

/// A tile as it is, and as it should be from what lies below it.
struct Compared {
    path: TilePath,
    /// None when the tile is missing or has the wrong length, which is then reported already.
    tile: Option<Vec<Digest>>,
    /// A hash is unknown where entries are missing.
    below: Vec<Option<Digest>>,
    /// Why the entries could not all be read, for a tile at level 0.
    bundle: Option<TileError>,
}

impl Verifier<'_> {
    fn checkpoint(&mut self, keys: &[VerifierKey]) -> Result<Option<Checkpoint>, SourceError> {
        let path = "checkpoint";
        let Some(note) = self.source.read(path)? else {
            self.report.add(
                FindingKind::Missing,
                path,
                None,
                "it is missing, so that nothing is vouched for".into(),
            );
            return Ok(None);
        };
        match Checkpoint::open(&note, keys) {
            Ok(checkpoint) => Ok(Some(checkpoint)),
            Err(cause) => {
                self.report.add(FindingKind::Checkpoint, path, None, cause.to_string());
                Ok(None)
            }
        }
    }

    /// Checks all tiles and entries. The tiles on the right edge are those that the signed root is
    /// made of; all others are below one of them.
    fn tree(&mut self, checkpoint: &Checkpoint) -> Result<(), SourceError> {
        let mut edges = Vec::new();
        for level in 0..=LEVEL_MAX {
            let index = self.size.checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0);
            let path = TilePath::in_log(TileKind::Hashes(level), index, self.size);
            let tile = path.map(|path| self.hashes(path)).transpose()?.flatten();
            edges.push((path, tile));
        }
        let is_signed = |levels: Option<Vec<Vec<Digest>>>| {
            levels.is_some_and(|levels| edge_frontier(checkpoint.size, &levels).root() == checkpoint.root)
        };
        let as_read =
            edges.iter().map(|(path, tile)| path.map_or(Some(Vec::new()), |_| tile.clone())).collect();
        let tiles_right = is_signed(as_read);

        let mut compared = Vec::new();
        for (path, tile) in edges.into_iter().rev() {
            let Some(path) = path else { continue };
            compared.push(self.below(path, tile, tiles_right)?);
        }
        let mut rebuilt = vec![Some(Vec::new()); usize::from(LEVEL_MAX) + 1];
        for edge in &compared {
            if let TileKind::Hashes(level) = edge.path.kind
                && let Some(slot) = rebuilt.get_mut(usize::from(level))
            {
                *slot = edge.below.iter().copied().collect();
            }
        }
        let judgement = match tiles_right {
            true => Right::Tile,
            false if is_signed(rebuilt.into_iter().collect()) => Right::Below,
            false => Right::Nobody,
        };
        let before = self.report.total();
        for edge in compared {
            self.judge(edge, judgement);
        }
        if judgement == Right::Nobody && self.report.total() == before {
            self.report.add(FindingKind::Root, "checkpoint", Some(0..self.size), format!(
                "it signs the root {} for {} entries, but the entries and tiles here have another root: the checkpoint is of another history (a fork), or entries and tiles were replaced together",
                checkpoint.root, checkpoint.size
            ));
        }
        Ok(())
    }

    /// Checks a full tile and all below it, and gives its root as the level above should have it.
    /// `signed` is the root that an intact tile above says it has.
    fn full(&mut self, level: u8, index: u64, signed: Option<Digest>) -> Result<Option<Digest>, SourceError> {
        let path = TilePath { kind: TileKind::Hashes(level), index, width: TILE_WIDTH };
        let tile = self.hashes(path)?;
        let tile_right = signed.is_some() && tile.as_deref().and_then(perfect_root) == signed;
        let compared = self.below(path, tile, tile_right)?;
        let hashes: Option<Vec<_>> = compared.below.iter().copied().collect();
        let root = hashes.as_deref().and_then(perfect_root);
        match signed {
            None => self.judge(compared, Right::Nobody),
            Some(_) if tile_right => self.judge(compared, Right::Tile),
            Some(_) if root == signed => self.judge(compared, Right::Below),
            Some(_) => {
                let before = self.report.total();
                self.judge(compared, Right::Nobody);
                if self.report.total() == before {
                    self.report.add(FindingKind::Disagreement, &path.to_string(), Some(path.entries()), format!(
                        "it agrees with the entries {}, but not with what is signed: they were replaced together",
                        shown(&path.entries())
                    ));
                }
            }
        }
        // What is wrong here is reported; the level above is not to report it again.
        Ok(signed.or(root))
    }

    /// Computes a tile from what is below it. `tile_right` says that the tile is vouched for.
    fn below(
        &mut self,
        path: TilePath,
        tile: Option<Vec<Digest>>,
        tile_right: bool,
    ) -> Result<Compared, SourceError> {
        let level = match path.kind {
            TileKind::Hashes(level) if level > 0 => level,
            _ => return self.bundle(path, tile, tile_right),
        };
        let mut below = Vec::with_capacity(usize::from(path.width));
        for at in 0..path.width {
            let signed =
                tile.as_ref().filter(|_| tile_right).and_then(|tile| tile.get(usize::from(at)).copied());
            below.push(self.full(level - 1, path.index * u64::from(TILE_WIDTH) + u64::from(at), signed)?);
        }
        Ok(Compared { path, tile, below, bundle: None })
    }

    /// Hashes and reads the entries below a tile of level 0.
    fn bundle(
        &mut self,
        path: TilePath,
        tile: Option<Vec<Digest>>,
        tile_right: bool,
    ) -> Result<Compared, SourceError> {
        let bundle = TilePath { kind: TileKind::Entries, ..path };
        let read = read_tile(self.source, bundle)?;
        let (entries, problem) = match &read {
            None => (Vec::new(), Some(TileError::Missing)),
            Some((bytes, full)) => {
                let held = if *full { TILE_WIDTH } else { path.width };
                let (mut entries, rest) = take_entries(bytes, held);
                let problem = if entries.len() < usize::from(held) {
                    Some(TileError::Truncated { at: entries.len(), width: held })
                } else if rest.is_empty() {
                    None
                } else {
                    Some(TileError::Trailing { extra: rest.len(), width: held })
                };
                entries.truncate(usize::from(path.width));
                (entries, problem)
            }
        };
        let mut below = vec![None; usize::from(path.width)];
        let start = bundle.entries().start;
        for (at, slot) in below.iter_mut().enumerate() {
            let index = start + at as u64;
            let Some(entry) = entries.get(at) else {
                self.links.skip(index);
                continue;
            };
            let leaf = leaf_hash(entry);
            *slot = Some(leaf);
            let is_signed = tile.as_ref().and_then(|tile| tile.get(at)) == Some(&leaf);
            if is_signed || !tile_right {
                self.entry(bundle, index, entry);
            } else {
                self.links.skip(index);
            }
        }
        self.report.entries += entries.len() as u64;
        (self.progress)(Progress { entries: bundle.entries().end, size: self.size });
        Ok(Compared { path, tile, below, bundle: problem })
    }

    /// Reports where a tile and what is below it differ, and lays it at the door of the one that
    /// is not vouched for.
    fn judge(&mut self, compared: Compared, right: Right) {
        let Compared { path, tile, below, bundle } = compared;
        let entries_path = TilePath { kind: TileKind::Entries, ..path };
        if bundle == Some(TileError::Missing) {
            let entries = path.entries();
            let message = format!("it is missing, and with it the entries {}", shown(&entries));
            self.report.add(FindingKind::Missing, &entries_path.to_string(), Some(entries), message);
            return;
        }
        let scale = (path.entries().end - path.entries().start) / u64::from(path.width);
        let start = path.entries().start;
        let differ: Vec<u64> = match &tile {
            None => Vec::new(),
            Some(tile) => (0..)
                .zip(tile.iter().zip(&below))
                .filter(|(_, (t, b))| b.as_ref() != Some(*t))
                .map(|(at, _)| at)
                .collect(),
        };
        let (Some(first), Some(last)) = (differ.first(), differ.last()) else {
            if let Some(cause) = bundle {
                self.report.add(
                    FindingKind::Entry,
                    &entries_path.to_string(),
                    Some(path.entries()),
                    cause.to_string(),
                );
            }
            return;
        };
        let entries = start + first * scale..start + (last + 1) * scale;
        let is_leaf = path.kind == TileKind::Hashes(0);
        let (kind, at_fault, message) = match right {
            Right::Tile if differ.len() == 1 => (
                FindingKind::Entry,
                entries_path,
                format!("entry {} was changed: its hash is not the one that is signed", entries.start),
            ),
            Right::Tile => (
                FindingKind::Entry,
                entries_path,
                format!(
                    "entries were changed, removed, added or moved: {} of {} differ from what is signed, the first is entry {}{}",
                    differ.len(),
                    path.width,
                    entries.start,
                    because(bundle.as_ref())
                ),
            ),
            Right::Below => (
                FindingKind::Tile,
                path,
                format!(
                    "{} of its hashes are wrong, the first is hash {first}, for the entries {}; the entries themselves are what is signed",
                    differ.len(),
                    shown(&(entries.start..entries.start + scale))
                ),
            ),
            Right::Nobody if is_leaf => (
                FindingKind::Disagreement,
                entries_path,
                format!(
                    "it disagrees with {path} from entry {} on{}, and neither leads to what is signed",
                    entries.start,
                    because(bundle.as_ref())
                ),
            ),
            Right::Nobody => (
                FindingKind::Disagreement,
                path,
                format!(
                    "it disagrees with the tiles below it from hash {first} on, entries {}",
                    shown(&entries)
                ),
            ),
        };
        self.report.add(kind, &at_fault.to_string(), Some(entries), message);
    }

    /// Reads the hashes of a tile; reports it when that is not possible.
    fn hashes(&mut self, path: TilePath) -> Result<Option<Vec<Digest>>, SourceError> {
        let problem = match read_tile(self.source, path)? {
            None => TileError::Missing,
            Some((bytes, full)) => match parse_hashes(&bytes, path.width, full) {
                Ok(hashes) => return Ok(Some(hashes)),
                Err(cause) => cause,
            },
        };
        let kind = if problem == TileError::Missing { FindingKind::Missing } else { FindingKind::Tile };
        self.report.add(kind, &path.to_string(), Some(path.entries()), problem.to_string());
        Ok(None)
    }

    fn entry(&mut self, bundle: TilePath, index: u64, entry: &[u8]) {
        let counts = &mut self.report.counts;
        let record = match Record::decode(entry) {
            Ok(record) => record,
            Err(cause) => {
                self.links.skip(index);
                let message = format!("entry {index} cannot be read: {cause}");
                self.report.add(FindingKind::Record, &bundle.to_string(), Some(index..index + 1), message);
                return;
            }
        };
        match record {
            Record::Intent(intent) => {
                counts.intents += 1;
                // An enforced no ends there: nothing was done that could have an outcome.
                if intent.decision == Decision::Allow || !intent.enforced {
                    self.links.open.insert(index, intent.action);
                }
            }
            Record::Outcome(outcome) => {
                counts.outcomes += 1;
                if !self.links.close(outcome.intent, outcome.action) {
                    let message = format!(
                        "entry {index} is an outcome of the action {}, but entry {} is not an earlier intent of that action that still waits for one",
                        outcome.action, outcome.intent
                    );
                    self.report.add(FindingKind::Link, &bundle.to_string(), Some(index..index + 1), message);
                }
            }
            Record::Refusal(_) => counts.refusals += 1,
            Record::Event(_) => counts.events += 1,
        }
    }

    /// Checks that the log has grown from an older checkpoint.
    fn since(&mut self, note: &[u8], keys: &[VerifierKey], now: &Checkpoint) -> Result<(), SourceError> {
        let path = "checkpoint";
        let old = match Checkpoint::open(note, keys) {
            Ok(old) if old.origin == now.origin => old,
            Ok(old) => {
                let message = format!("the older checkpoint is of another log, {:?}", old.origin);
                self.report.add(FindingKind::Since, path, None, message);
                return Ok(());
            }
            Err(cause) => {
                self.report.add(
                    FindingKind::Since,
                    path,
                    None,
                    format!("the older checkpoint cannot be used: {cause}"),
                );
                return Ok(());
            }
        };
        if old.size > now.size {
            let message =
                format!("the log was rolled back: it had {} entries and now has {}", old.size, now.size);
            self.report.add(FindingKind::RolledBack, path, Some(now.size..old.size), message);
            return Ok(());
        }
        let grown = if old.size == 0 {
            Ok(old.root == empty_root())
        } else {
            // By proof rather than by comparing roots, so that a server cannot answer differently
            // from one reading to the next.
            let mut nodes = TileNodes::new(self.source, now.size);
            consistency_proof(old.size, now.size, |height, index| nodes.node(height, index))
                .map(|proof| verify_consistency(old.size, &old.root, now.size, &now.root, &proof).is_ok())
        };
        match grown {
            Ok(true) => {}
            Ok(false) => {
                let message = format!(
                    "the log was forked: it once signed another history of its first {} entries (root {})",
                    old.size, old.root
                );
                self.report.add(FindingKind::Forked, path, Some(0..old.size), message);
            }
            Err(cause) => {
                let message = format!("growth from the older checkpoint cannot be shown: {cause}");
                self.report.add(FindingKind::Since, path, None, message);
            }
        }
        Ok(())
    }
}

impl Report {
    fn new() -> Self {
        let (counts, findings) = (Counts::default(), Vec::new());
        Self { checkpoint: None, entries: 0, counts, findings, findings_left_out: 0 }
    }

    fn total(&self) -> u64 {
        self.findings.len() as u64 + self.findings_left_out
    }
}

/// Which intents still wait for their outcome.
#[derive(Default)]
struct Links {
    open: HashMap<u64, ActionId>,
    /// Entries that could not be read, in rising order: nothing is said about their outcomes.
    skipped: Vec<Range<u64>>,
}

impl Links {
    fn skip(&mut self, index: u64) {
        match self.skipped.last_mut() {
            Some(last) if last.end == index => last.end += 1,
            _ => self.skipped.push(index..index + 1),
        }
    }

    fn close(&mut self, intent: u64, action: ActionId) -> bool {
        if self.open.get(&intent) == Some(&action) {
            self.open.remove(&intent);
            return true;
        }
        let at = self.skipped.partition_point(|range| range.end <= intent);
        self.skipped.get(at).is_some_and(|range| range.contains(&intent))
    }
}

fn shown(entries: &Range<u64>) -> String {
    format!("{} to {}", entries.start, entries.end.saturating_sub(1))
}

fn because(cause: Option<&TileError>) -> String {
    cause.map_or(String::new(), |cause| format!(" ({cause})"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        entry::tests::{intent, outcome},
        note::Signer,
        tile::TreeBuilder,
    };

    type Files = BTreeMap<String, Vec<u8>>;

    fn signer() -> Signer {
        Signer::from_seed("gate.example/log", &[5; 32]).expect("key")
    }

    /// Intents and outcomes in turn; `salt` makes logs that differ from entry `fork` on.
    fn log(size: u64, fork: u64, salt: u64) -> Files {
        let mut builder = TreeBuilder::new();
        for index in 0..size {
            let pair = index / 2 + if index >= fork { salt << 32 } else { 0 };
            let record = if index % 2 == 0 { intent(pair) } else { outcome(pair, index - 1) };
            let entry = record.encode().expect("encodes");
            builder.push(&entry, leaf_hash(&entry));
        }
        publish(&mut builder)
    }

    fn publish(builder: &mut TreeBuilder) -> Files {
        let head = Checkpoint {
            origin: "gate.example/log".into(),
            size: builder.size(),
            root: builder.root(),
            extensions: vec![],
        };
        let mut files: Files =
            builder.take_tiles().into_iter().map(|(path, bytes)| (path.to_string(), bytes)).collect();
        files.insert("checkpoint".into(), head.sign(&signer()).expect("signs").into_bytes());
        files
    }

    fn verify(files: &Files, since: Option<&[u8]>) -> Report {
        let mut last = 0;
        verify_log(files, &[signer().verifier_key().clone()], since, &mut |progress| {
            assert!(progress.entries > last && progress.entries <= progress.size);
            last = progress.entries;
        })
        .expect("memory can be read")
    }

    fn findings(report: &Report) -> Vec<(FindingKind, &str, Option<Range<u64>>)> {
        report.findings.iter().map(|f| (f.kind, &*f.path, f.entries.clone())).collect()
    }

    #[test]
    fn whole_logs_hold() {
        for size in [0, 1, 2, 255, 256, 257, 512, 1000] {
            let report = verify(&log(size, 0, 0), None);
            assert!(report.holds(), "{report}");
            assert_eq!((report.entries, report.counts.intents), (size, size.div_ceil(2)));
            assert_eq!(report.counts.open, size % 2);
        }
    }

    #[test]
    fn an_old_checkpoint_needs_no_partial_tiles_of_its_own() {
        let (small, mut large) = (log(300, 0, 0), log(1000, 0, 0));
        large.insert("checkpoint".into(), small["checkpoint"].clone());
        let report = verify(&large, None);
        // tile/0/001 is full by now and stands in for tile/0/001.p/44; tile/1/000 is not.
        assert_eq!(findings(&report), [(FindingKind::Missing, "tile/1/000.p/1", Some(0..256))], "{report}");
        large.extend(small);
        assert!(verify(&large, None).holds());
    }

    #[test]
    fn every_flipped_bit_is_laid_at_the_right_door() {
        let files = log(700, 0, 0);
        for (path, bytes) in &files {
            for at in (0..bytes.len()).step_by(bytes.len() / 12 + 1).chain([bytes.len() - 1]) {
                let mut files = files.clone();
                let file = files.get_mut(path).expect("file");
                file[at] ^= 1 << (at % 8);
                let report = verify(&files, None);
                assert!(!report.holds(), "{path} {at}");
                assert_eq!(report.findings.len(), 1, "{path} {at}: {report}");
                assert_eq!(report.findings[0].path, *path, "{at}: {report}");
            }
        }
    }

    /// A log that was signed at each of `signed` and has further tiles, of `written` entries, that
    /// are not signed yet.
    fn log_with_past(signed: &[u64], written: u64) -> Files {
        let mut files = Files::new();
        for size in signed {
            files.extend(log(*size, 0, 0));
        }
        let checkpoint = files["checkpoint"].clone();
        files.extend(log(written, 0, 0));
        files.insert("checkpoint".into(), checkpoint);
        files
    }

    #[test]
    fn a_flipped_bit_in_what_is_older_or_newer_than_the_checkpoint_is_named() {
        for (signed, written) in
            [(&[10, 42, 46][..], 46), (&[46], 60), (&[46], 300), (&[7, 250, 300, 302], 302), (&[300], 700)]
        {
            let files = log_with_past(signed, written);
            assert!(verify(&files, None).holds(), "{}", verify(&files, None));
            for (path, bytes) in &files {
                for at in (0..bytes.len()).step_by(bytes.len() / 12 + 1).chain([bytes.len() - 1]) {
                    let mut files = files.clone();
                    files.get_mut(path).expect("file")[at] ^= 1 << (at % 8);
                    let report = verify(&files, None);
                    assert!(report.findings.iter().any(|f| f.path == *path), "{path} {at}: {report}");
                    // Of tiles that nothing vouches for, any may be wrong.
                    let most = if written > signed[signed.len() - 1] { 3 } else { 1 };
                    assert!(report.findings.len() <= most, "{path} {at}: {report}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_part_of_the_log_is_named() {
        let mut files = log(300, 0, 0);
        files.insert("checkpoint.new".into(), Vec::new());
        files.insert("tile/0/001.p/99".into(), Vec::new());
        assert!(verify(&files, None).holds(), "a crash leaves empty files");
        files.insert("checkpoint.new".into(), log(310, 0, 0)["checkpoint"].clone());
        assert!(verify(&files, None).holds(), "or a checkpoint that was to come");
        files.insert("checkpoint.new".into(), b"other".to_vec());
        files.insert("tile/0/0".into(), Vec::new());
        files.insert("notes.txt".into(), b"hello".to_vec());
        assert_eq!(
            findings(&verify(&files, None)),
            [
                (FindingKind::Checkpoint, "checkpoint.new", None),
                (FindingKind::Foreign, "notes.txt", None),
                (FindingKind::Foreign, "tile/0/0", None),
            ]
        );
    }

    #[test]
    fn a_changed_entry_is_pinned_to_its_index() {
        for index in [0, 3, 255, 256, 511, 512, 699] {
            let mut files = log(700, 0, 0);
            let path = TilePath::in_log(TileKind::Entries, index / 256, 700).expect("bundle");
            let file = files.get_mut(&path.to_string()).expect("file");
            let (entries, _) = take_entries(file, path.width);
            let at = entries[(index % 256) as usize].as_ptr() as usize - file.as_ptr() as usize + 20;
            file[at] ^= 1;
            let report = verify(&files, None);
            assert_eq!(findings(&report), [(FindingKind::Entry, &*path.to_string(), Some(index..index + 1))]);
            assert!(
                report.findings[0].message.starts_with(&format!("entry {index} was changed")),
                "{report}"
            );
        }
    }

    #[test]
    fn removed_entries_swapped_and_missing_tiles_are_named() {
        let good = log(2_000, 0, 0);
        let mut removed = good.clone();
        let bundle = removed.get_mut("tile/entries/005").expect("bundle");
        let (entries, _) = take_entries(bundle, 256);
        let start: usize = entries[..100].iter().map(|entry| entry.len() + 2).sum();
        let length = entries[100].len() + 2;
        bundle.drain(start..start + length);
        let report = verify(&removed, None);
        assert_eq!(
            findings(&report),
            [(FindingKind::Entry, "tile/entries/005", Some(1380..1536))],
            "{report}"
        );

        for (a, b) in [("tile/entries/001", "tile/entries/002"), ("tile/0/001", "tile/0/002")] {
            let mut swapped = good.clone();
            let (one, two) = (good[a].clone(), good[b].clone());
            swapped.extend([(a.to_owned(), two), (b.to_owned(), one)]);
            let report = verify(&swapped, None);
            let paths: Vec<_> = report.findings.iter().map(|f| &*f.path).collect();
            assert_eq!(paths, [a, b], "{report}");
        }

        for path in good.keys().filter(|path| *path != "checkpoint") {
            let mut missing = good.clone();
            missing.remove(path);
            let report = verify(&missing, None);
            assert_eq!(report.findings.len(), 1, "{report}");
            assert_eq!((report.findings[0].kind, &*report.findings[0].path), (FindingKind::Missing, &**path));
        }
    }

    #[test]
    fn a_changed_hash_above_the_leaves_is_pinned() {
        let mut files = log(65_800, 0, 0);
        files.get_mut("tile/1/000").expect("tile")[40] ^= 1;
        let report = verify(&files, None);
        assert_eq!(findings(&report), [(FindingKind::Tile, "tile/1/000", Some(256..512))], "{report}");
        assert_eq!(report.entries, 65_800);
    }

    #[test]
    fn entries_and_tile_replaced_together_are_noticed() {
        let (mut files, other) = (log(700, 0, 0), log(700, 0, 1));
        for path in ["tile/0/001", "tile/entries/001"] {
            files.insert(path.to_owned(), other[path].clone());
        }
        let report = verify(&files, None);
        assert_eq!(report.findings[0].path, "tile/0/001", "{report}");
        assert!(report.findings[0].message.contains("replaced together"), "{report}");
    }

    #[test]
    fn forks_and_rollbacks_are_named() {
        let (ours, theirs) = (log(700, 0, 0), log(700, 350, 1));
        let mut forked = ours.clone();
        forked.insert("checkpoint".into(), theirs["checkpoint"].clone());
        let report = verify(&forked, None);
        assert_eq!(findings(&report), [(FindingKind::Root, "checkpoint", Some(0..700))]);

        for (old, fine) in
            [(0, true), (1, true), (256, true), (350, true), (351, false), (600, false), (700, false)]
        {
            let before = log(old, 0, 0);
            let report = verify(&theirs, Some(&before["checkpoint"]));
            assert_eq!(report.holds(), fine, "{old}: {report}");
            assert!(fine || report.findings[0].kind == FindingKind::Forked, "{report}");
        }
        let report = verify(&ours, Some(&log(701, 0, 0)["checkpoint"]));
        assert_eq!(findings(&report), [(FindingKind::RolledBack, "checkpoint", Some(700..701))]);
        let report = verify(&ours, Some(b"nonsense"));
        assert_eq!(report.findings[0].kind, FindingKind::Since);
    }

    #[test]
    fn a_foreign_key_or_no_checkpoint_vouches_for_nothing() {
        let mut files = log(10, 0, 0);
        let other = Signer::from_seed("gate.example/log", &[6; 32]).expect("key");
        let report = verify_log(&files, &[other.verifier_key().clone()], None, &mut |_| ()).expect("read");
        assert_eq!(findings(&report), [(FindingKind::Checkpoint, "checkpoint", None)]);
        files.remove("checkpoint");
        assert_eq!(findings(&verify(&files, None)), [(FindingKind::Missing, "checkpoint", None)]);
    }

    #[test]
    fn signed_nonsense_is_named() {
        let records = [
            intent(1).encode().expect("encodes"),
            outcome(2, 0).encode().expect("another action"),
            outcome(1, 0).encode().expect("good"),
            outcome(1, 0).encode().expect("a second time"),
            outcome(3, 4).encode().expect("itself"),
            outcome(3, 9).encode().expect("later"),
            b"{\"v\":9,\"kind\":\"intent\"}".to_vec(),
            outcome(5, 6).encode().expect("of an entry that cannot be read"),
        ];
        let mut builder = TreeBuilder::new();
        records.iter().for_each(|entry| builder.push(entry, leaf_hash(entry)));
        let report = verify(&publish(&mut builder), None);
        let found: Vec<_> =
            report.findings.iter().map(|f| (f.kind, f.entries.clone().expect("entry").start)).collect();
        let link = FindingKind::Link;
        assert_eq!(found, [(link, 1), (link, 3), (link, 4), (link, 5), (FindingKind::Record, 6)], "{report}");
    }
}
