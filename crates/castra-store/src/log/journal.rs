//! The journal's files: `<state>/journal/<first index>.seg`. A writer appends to the newest segment
//! only; recovery reads what the checkpoint does not cover yet; readers look single records up.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use castra_core::Digest;
use castra_ledger::leaf_hash;

use super::{
    LogError,
    frame::{self, FRAME_HEAD, FrameHead, SEGMENT_HEAD},
};

/// A segment as its name tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) first: u64,
}

/// The journal's segments in order. Other files are passed over.
pub(super) fn segments(dir: &Path) -> Result<Vec<Segment>, LogError> {
    let mut found = Vec::new();
    for item in fs::read_dir(dir).map_err(LogError::io("list", dir))? {
        let path = item.map_err(LogError::io("list", dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".seg"));
        if let Some(first) = name.filter(|name| name.len() == 20).and_then(|name| name.parse().ok()) {
            found.push(Segment { path, first });
        }
    }
    found.sort_by_key(|segment| segment.first);
    Ok(found)
}

/// Where segments are made; a seam for tests that let a disk fail.
pub(super) trait Disk: Send {
    /// Makes a new segment whose name survives a crash.
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;
}

/// A segment that is being written.
pub(super) trait SegmentFile: Send {
    /// Writes at the end.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Returns when all that was written is on the disk.
    fn sync(&mut self) -> io::Result<()>;
}

/// The real disk.
pub(super) struct Files;

impl Disk for Files {
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        if let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(Box::new(file))
    }
}

impl SegmentFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Appends groups of records.
pub(super) struct JournalWriter {
    dir: PathBuf,
    disk: Box<dyn Disk>,
    segment_bytes: u64,
    segment: Option<(PathBuf, Box<dyn SegmentFile>, u64)>,
    buffer: Vec<u8>,
}

/// Bytes that are gathered before they go to the file within one group.
const WRITE_BYTES: usize = 4 << 20;

impl JournalWriter {
    /// A writer that begins a new segment with its first group.
    pub(super) fn new(dir: &Path, disk: Box<dyn Disk>, segment_bytes: u64) -> Self {
        Self { dir: dir.to_owned(), disk, segment_bytes, segment: None, buffer: Vec::new() }
    }

    /// Writes records from index `first` on and returns when they are on the disk.
    pub(super) fn write_group<'a>(
        &mut self,
        first: u64,
        records: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), LogError> {
        let (path, file, bytes) =
            match self.segment.take().filter(|(_, _, bytes)| *bytes < self.segment_bytes) {
                Some(segment) => self.segment.insert(segment),
                None => {
                    let path = self.dir.join(format!("{first:020}.seg"));
                    let file = self.disk.create(&path).map_err(LogError::io("create", &path))?;
                    frame::push_segment_head(&mut self.buffer, first);
                    self.segment.insert((path, file, 0))
                }
            };
        for (index, (entry, payload)) in (first..).zip(records) {
            frame::push_frame(&mut self.buffer, index, first, entry, payload);
            if self.buffer.len() >= WRITE_BYTES {
                *bytes += self.buffer.len() as u64;
                file.append(&self.buffer).map_err(LogError::io("write", &*path))?;
                self.buffer.clear();
            }
        }
        *bytes += self.buffer.len() as u64;
        file.append(&self.buffer).map_err(LogError::io("write", &*path))?;
        file.sync().map_err(LogError::io("sync", &*path))?;
        self.buffer.clear();
        self.buffer.shrink_to(WRITE_BYTES / 4);
        Ok(())
    }
}

/// A record that is on the disk but not in the tiles yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recent {
    pub(super) entry: Bytes,
    pub(super) leaf: Digest,
}

/// Records of one group, shared by whoever reads them.
pub(super) type RecentGroup = Arc<Vec<Recent>>;

/// What recovery found in the journal.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// Records from the size that recovery started with.
    pub(super) records: Vec<Recent>,
    /// Bytes of a torn last write that were cut off.
    pub(super) torn_bytes: u64,
}

/// Reads the journal from entry `size` on, which the checkpoint covers, cuts off a torn last write
/// and makes sure that all that is left is on the disk.
pub(super) fn recover(dir: &Path, size: u64) -> Result<Recovered, LogError> {
    let all = segments(dir)?;
    let start = all.iter().rposition(|segment| segment.first <= size).unwrap_or(0);
    let mut found = Recovered::default();
    let mut end = all.get(start).map_or(0, |segment| segment.first);
    for (at, segment) in all.iter().enumerate().skip(start) {
        if segment.first != end {
            return Err(damaged(segment, 0, end, "records are missing before this segment"));
        }
        end = recover_segment(segment, at + 1 == all.len(), size, &mut found)?;
    }
    if end < size { Err(LogError::JournalBehind { end, size }) } else { Ok(found) }
}

/// Reads one segment and gives the index behind its last record.
fn recover_segment(
    segment: &Segment,
    is_last: bool,
    size: u64,
    found: &mut Recovered,
) -> Result<u64, LogError> {
    let mut scan = Scan::open(segment)?;
    // Where the records begin that no checkpoint covers.
    let mut uncovered = None;
    let problem = loop {
        let (at, index) = (scan.at, scan.index);
        if index < size {
            match scan.skip()? {
                Step::Frame => continue,
                Step::End => break None,
                Step::Bad(why) => break Some(why),
            }
        }
        match scan.read()? {
            Step::Frame => {
                uncovered.get_or_insert(at);
                let entry = Bytes::copy_from_slice(scan.entry());
                let leaf = leaf_hash(&entry);
                found.records.push(Recent { entry, leaf });
            }
            Step::End => break None,
            Step::Bad(why) => break Some(why),
        }
    };
    let (at, index, length) = (scan.at, scan.index, scan.length);
    if let Some(why) = problem {
        if index < size || !is_last {
            return Err(damaged(segment, at, index, why));
        }
        if later_group_follows(segment, at, index)? {
            return Err(damaged(
                segment,
                at,
                index,
                "intact records that were written later follow a damaged one",
            ));
        }
        found.torn_bytes = length - at;
    }
    if is_last {
        settle(segment, uncovered, at, problem.is_some())?;
    }
    Ok(index)
}

/// Leaves the last segment with nothing but whole records, all of them on the disk.
fn settle(segment: &Segment, uncovered: Option<u64>, end: u64, torn: bool) -> Result<(), LogError> {
    let path = &segment.path;
    if end <= SEGMENT_HEAD as u64 {
        // Not one record: the next group makes a segment of this name anew.
        fs::remove_file(path).map_err(LogError::io("remove", path))?;
        return path.parent().map_or(Ok(()), sync_folder);
    }
    if uncovered.is_none() && !torn {
        return Ok(());
    }
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(LogError::io("open", path))?;
    file.set_len(end).map_err(LogError::io("cut", path))?;
    if let Some(start) = uncovered {
        // After a failed sync the kernel may hold pages as clean that never reached the disk, and a
        // later sync would say yes to them. Writing the same bytes once more makes it true.
        let mut bytes = vec![0; (end - start) as usize];
        file.read_exact_at(&mut bytes, start).map_err(LogError::io("read", path))?;
        file.write_all_at(&bytes, start).map_err(LogError::io("write", path))?;
    }
    file.sync_all().map_err(LogError::io("sync", path))
}

/// Whether an intact record that was written later than `index` follows in the segment.
pub(super) fn later_group_follows(segment: &Segment, at: u64, index: u64) -> Result<bool, LogError> {
    let path = &segment.path;
    let mut file = File::open(path).map_err(LogError::io("open", path))?;
    let mut rest = Vec::new();
    file.seek(SeekFrom::Start(at))
        .and_then(|_| file.read_to_end(&mut rest))
        .map_err(LogError::io("read", path))?;
    Ok(frame::find_later_group(&rest, index).is_some())
}

fn damaged(segment: &Segment, at: u64, index: u64, why: &'static str) -> LogError {
    LogError::Damaged { path: segment.path.clone(), at, index, why }
}

/// What a step through a segment met.
pub(super) enum Step {
    /// A record.
    Frame,
    /// The end of the file, just behind a record.
    End,
    /// Bytes that are not the record that should be here.
    Bad(&'static str),
}

/// Walks through a segment record by record.
pub(super) struct Scan<'a> {
    segment: &'a Segment,
    file: BufReader<File>,
    /// Where the next record begins.
    pub(super) at: u64,
    /// The next record's index.
    pub(super) index: u64,
    /// Bytes of the file.
    pub(super) length: u64,
    body: Vec<u8>,
    entry_bytes: usize,
}

impl<'a> Scan<'a> {
    /// At the first record. A wrong header shows at the first step.
    pub(super) fn open(segment: &'a Segment) -> Result<Self, LogError> {
        let mut scan = Self::at(segment, 0, segment.first)?;
        let mut head = [0; SEGMENT_HEAD];
        let whole = scan.length >= SEGMENT_HEAD as u64;
        if whole {
            scan.file.read_exact(&mut head).map_err(LogError::io("read", &segment.path))?;
        }
        if whole && frame::parse_segment_head(&head) == Some(segment.first) {
            scan.at = SEGMENT_HEAD as u64;
        }
        Ok(scan)
    }

    /// Goes on at a place that an earlier scan came to.
    fn at(segment: &'a Segment, at: u64, index: u64) -> Result<Self, LogError> {
        let path = &segment.path;
        let mut file = File::open(path).map_err(LogError::io("open", path))?;
        let length = file.metadata().map_err(LogError::io("inspect", path))?.len();
        file.seek(SeekFrom::Start(at)).map_err(LogError::io("read", path))?;
        let file = BufReader::with_capacity(128 << 10, file);
        Ok(Self { segment, file, at, index, length, body: Vec::new(), entry_bytes: 0 })
    }

    /// The entry of the record that [`Self::read`] came to last.
    pub(super) fn entry(&self) -> &[u8] {
        self.body.get(..self.entry_bytes).unwrap_or_default()
    }

    /// Passes a record without looking at its content.
    fn skip(&mut self) -> Result<Step, LogError> {
        let (head, _) = match self.head()? {
            Ok(head) => head,
            Err(step) => return Ok(step),
        };
        let body = (head.entry_bytes + head.payload_bytes) as i64;
        self.file.seek_relative(body).map_err(LogError::io("read", &self.segment.path))?;
        self.pass(&head);
        Ok(Step::Frame)
    }

    /// Reads a record and checks all of it.
    pub(super) fn read(&mut self) -> Result<Step, LogError> {
        let (head, head_bytes) = match self.head()? {
            Ok(head) => head,
            Err(step) => return Ok(step),
        };
        self.body.resize(head.entry_bytes + head.payload_bytes, 0);
        self.file.read_exact(&mut self.body).map_err(LogError::io("read", &self.segment.path))?;
        if frame::parse_body(&head, &head_bytes, &self.body).is_none() {
            return Ok(Step::Bad("its checksum is wrong"));
        }
        self.entry_bytes = head.entry_bytes;
        self.pass(&head);
        Ok(Step::Frame)
    }

    fn head(&mut self) -> Result<Result<(FrameHead, [u8; FRAME_HEAD]), Step>, LogError> {
        if self.at < SEGMENT_HEAD as u64 {
            return Ok(Err(Step::Bad("the segment's header is not whole")));
        }
        let left = self.length.saturating_sub(self.at);
        if left == 0 {
            return Ok(Err(Step::End));
        }
        if left < FRAME_HEAD as u64 {
            return Ok(Err(Step::Bad("the file ends within it")));
        }
        let mut bytes = [0; FRAME_HEAD];
        self.file.read_exact(&mut bytes).map_err(LogError::io("read", &self.segment.path))?;
        let Some(head) = frame::parse_head(&bytes).filter(|head| head.index == self.index) else {
            return Ok(Err(Step::Bad("it does not begin as this record does")));
        };
        if head.frame_bytes() > left {
            return Ok(Err(Step::Bad("the file ends within it")));
        }
        Ok(Ok((head, bytes)))
    }

    fn pass(&mut self, head: &FrameHead) {
        self.at += head.frame_bytes();
        self.index += 1;
    }
}

/// Looks up single records. Knows where the records of the segment used last begin.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    dir: PathBuf,
    known: Option<Known>,
}

/// What the journal holds of a record.
pub(super) struct Held {
    pub(super) entry: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

#[derive(Debug)]
struct Known {
    segment: Segment,
    offsets: Vec<u64>,
    /// Where the record behind the last known one begins.
    end: u64,
}

impl Lookup {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, known: None }
    }

    /// Entry and payload of a record; none when the journal does not have it, or not whole yet.
    /// Below `covered`, which a checkpoint vouches for, it has to be whole.
    pub(super) fn find(&mut self, index: u64, covered: u64) -> Result<Option<Held>, LogError> {
        let Some(at) = self.offset(index)? else { return Ok(None) };
        let Some(known) = &self.known else { return Ok(None) };
        let mut scan = Scan::at(&known.segment, at, index)?;
        match scan.read()? {
            Step::Frame => {
                let (entry, payload) = scan.body.split_at(scan.entry_bytes);
                Ok(Some(Held { entry: entry.to_vec(), payload: payload.to_vec() }))
            }
            Step::Bad(why) if index < covered => Err(damaged(&known.segment, at, index, why)),
            // The newest records may be half written.
            Step::Bad(_) | Step::End => Ok(None),
        }
    }

    fn offset(&mut self, index: u64) -> Result<Option<u64>, LogError> {
        let within = |known: &Known| index.checked_sub(known.segment.first).map(|at| at as usize);
        if let Some(known) = &self.known
            && let Some(at) = within(known)
            && let Some(offset) = known.offsets.get(at)
        {
            return Ok(Some(*offset));
        }
        let Some(segment) = segments(&self.dir)?.into_iter().rfind(|segment| segment.first <= index) else {
            return Ok(None);
        };
        if self.known.as_ref().is_none_or(|known| known.segment != segment) {
            self.known = Some(Known { segment, offsets: Vec::new(), end: 0 });
        }
        let Some(known) = &mut self.known else { return Ok(None) };
        let mut scan = match known.end {
            0 => Scan::open(&known.segment)?,
            end => Scan::at(&known.segment, end, known.segment.first + known.offsets.len() as u64)?,
        };
        loop {
            let at = scan.at;
            match scan.skip()? {
                Step::Frame => known.offsets.push(at),
                Step::End | Step::Bad(_) => break,
            }
            known.end = scan.at;
        }
        Ok(within(known).and_then(|at| known.offsets.get(at).copied()))
    }
}

/// Makes a folder that only its owner can enter, with those above it.
pub(super) fn make_private_folder(dir: &Path) -> Result<(), LogError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(LogError::io("create", dir))
}

/// Makes the names in a folder survive a crash.
pub(super) fn sync_folder(dir: &Path) -> Result<(), LogError> {
    File::open(dir).and_then(|folder| folder.sync_all()).map_err(LogError::io("sync", dir))
}
