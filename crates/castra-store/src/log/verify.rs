//! Verification of the private journal: the log can hold while the content that it commits to, or
//! the source from which tiles are made after a crash, is damaged. Reads only.

use std::path::Path;

use castra_core::Digest;
use castra_ledger::{
    FindingKind, Report, leaf_hash,
    tile::{TILE_WIDTH, TileKind, TilePath, read_entries},
};

use super::{
    LogError,
    journal::{Scan, Segment, Step, later_group_follows, segments},
    reader::FolderSource,
};

/// Verifies the journal of a state folder, whose log `report` is of: every record that the
/// checkpoint covers is there and whole, and has the entry that is in the log. Adds what is wrong to
/// the report. Gives how many whole records there are, those behind the checkpoint included; none
/// when the folder has no journal.
///
/// # Errors
/// When the journal cannot be read. One that is read and is damaged is a finding.
pub fn verify_journal(dir: &Path, report: &mut Report) -> Result<Option<u64>, LogError> {
    let journal = dir.join("journal");
    if !journal.is_dir() {
        return Ok(None);
    }
    let size = report.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
    let bundles = Bundles { source: FolderSource::open(&dir.join("log")), size, held: None };
    let mut verifier = Verifier { report, bundles, size, records: 0 };
    let all = segments(&journal)?;
    let mut next = 0;
    for (at, segment) in all.iter().enumerate() {
        if segment.first != next {
            let message = match segment.first.checked_sub(next) {
                Some(_) => format!("the records {next} to {} are missing before it", segment.first - 1),
                None => {
                    format!("it begins anew with record {}, which is in the segment before it", segment.first)
                }
            };
            verifier.add(segment, next.min(segment.first), segment.first.max(next), message);
        }
        next = verifier.segment(segment, all.get(at + 1))?;
    }
    if next < size {
        let message = format!("it ends before record {next}, but the checkpoint covers {size}");
        verifier.report.add(FindingKind::Journal, "journal", Some(next..size), message);
    }
    Ok(Some(verifier.records))
}

struct Verifier<'a> {
    report: &'a mut Report,
    bundles: Bundles,
    size: u64,
    records: u64,
}

impl Verifier<'_> {
    /// Checks one segment and gives the index with which the next one has to begin.
    fn segment(&mut self, segment: &Segment, following: Option<&Segment>) -> Result<u64, LogError> {
        let mut scan = Scan::open(segment)?;
        loop {
            let (at, index) = (scan.at, scan.index);
            match scan.read()? {
                Step::Frame => {
                    self.records += 1;
                    if self
                        .bundles
                        .leaf(index, self.report)
                        .is_some_and(|leaf| leaf != leaf_hash(scan.entry()))
                    {
                        let message = format!("record {index} at byte {at} has another entry than the log");
                        self.add(segment, index, index + 1, message);
                    }
                }
                Step::End => return Ok(index),
                Step::Bad(why) => {
                    // The newest record, which no checkpoint covers, may be half written.
                    let is_last = following.is_none() && index >= self.size;
                    if is_last && !later_group_follows(segment, at, index)? {
                        return Ok(index);
                    }
                    let end = following.map_or(self.size.max(index + 1), |following| following.first);
                    let message = format!(
                        "record {index} at byte {at} is damaged: {why}; what follows in this file cannot be told"
                    );
                    self.add(segment, index, end, message);
                    return Ok(end);
                }
            }
        }
    }

    fn add(&mut self, segment: &Segment, first: u64, end: u64, message: String) {
        let name = segment.path.file_name().unwrap_or_default().to_string_lossy();
        self.report.add(FindingKind::Journal, &format!("journal/{name}"), Some(first..end), message);
    }
}

/// Leaf hashes of the log's entries, bundle by bundle.
struct Bundles {
    source: FolderSource,
    size: u64,
    held: Option<(u64, Vec<Digest>)>,
}

impl Bundles {
    /// The leaf hash of the entry `index` as the log has it; none when it is not signed yet, or
    /// something was found against the bundle that it is in.
    fn leaf(&mut self, index: u64, report: &Report) -> Option<Digest> {
        let at = index / u64::from(TILE_WIDTH);
        if self.held.as_ref().is_none_or(|(held, _)| *held != at) {
            let path = TilePath::in_log(TileKind::Entries, at, self.size)?;
            let read = if report.is_named(&path) { None } else { read_entries(&self.source, path).ok() };
            let leaves = read.unwrap_or_default().iter().map(|entry| leaf_hash(entry)).collect();
            self.held = Some((at, leaves));
        }
        let (_, leaves) = self.held.as_ref()?;
        leaves.get((index % u64::from(TILE_WIDTH)) as usize).copied()
    }
}
