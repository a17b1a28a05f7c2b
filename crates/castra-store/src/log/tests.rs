//! The log as its users meet it: crashes at every byte, damage, failing disks, many callers.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use castra_core::{ActionId, Digest, Timestamp};
use castra_ledger::{Event, EventKind, FindingKind, Outcome, Record, Report, Status, TileSource, verify_log};
use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    journal::{SegmentFile, segments},
    *,
};

fn signer() -> Signer {
    Signer::from_seed("gate.example/log", &[9; 32]).expect("key")
}

fn quick() -> LogOptions {
    LogOptions {
        interval: Duration::from_millis(1),
        linger: Duration::from_micros(100),
        ..LogOptions::default()
    }
}

/// An interval that no test reaches: tiles follow at closing only.
fn unsigned() -> LogOptions {
    LogOptions { interval: Duration::from_secs(3600), ..quick() }
}

fn open(dir: &Path, options: LogOptions) -> Log {
    Log::open(dir, signer(), options).expect("opens")
}

fn entry(n: u64) -> Vec<u8> {
    let detail = format!("event {n} {}", "x".repeat((n % 97) as usize)).into();
    let event = Event { time: Timestamp(n as i64), event: EventKind::KeyUsed, subject: None, detail };
    Record::Event(event).encode().expect("encodes")
}

fn payload(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat((n % 13) as usize)
}

fn append(log: &Log, range: Range<u64>) {
    for n in range {
        assert_eq!(log.append(entry(n), payload(n)).expect("taken").index, n);
    }
}

#[track_caller]
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("runtime").block_on(future)
}

fn verify(dir: &Path) -> Report {
    let source = FolderSource::open(&dir.join("log"));
    let keys = [signer().verifier_key().clone()];
    let mut report = verify_log(&source, &keys, None, &mut |_| ()).expect("can be read");
    assert!(verify_journal(dir, &mut report).expect("can be read").is_some());
    report
}

/// All entries and payloads are there, by every way of reading, and the log holds.
#[track_caller]
fn check(dir: &Path, size: u64) {
    let report = verify(dir);
    assert!(report.holds(), "{report}");
    assert_eq!(report.entries, size);
    let reader = LogReader::open(dir).expect("opens");
    let entries = (0..size).map(entry).collect::<Vec<_>>();
    assert_eq!(reader.entries(0..size + 1).expect("reads"), entries);
    for n in (0..size).rev().enumerate().filter(|(at, _)| *at < 12 || at % 16 == 0).map(|(_, n)| n) {
        assert_eq!(reader.entry(n).expect("reads").as_deref(), Some(&*entry(n)), "{n}");
        assert_eq!(reader.payload(n).expect("reads"), Some(payload(n)), "{n}");
    }
    assert_eq!(reader.entry(size).expect("reads"), None);
    assert_eq!(reader.payload(size).expect("reads"), None);
}

/// A folder in memory where there is one: these tests open logs by the hundred, and a sync takes
/// its time.
fn folder() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("folder")
}

/// Copies a state folder that is in use to `to`, as a crash at this moment might leave it: the
/// checkpoint before the tiles and the journal last, since each is never ahead of the next.
fn copy(from: &Path, to: &Path) {
    while copy_once(from, to).is_none() {
        fs::remove_dir_all(to).expect("removes");
    }
}

/// None when a file went away in the middle, as partial tiles do.
fn copy_once(from: &Path, to: &Path) -> Option<()> {
    let journal = to.join("journal");
    fs::create_dir_all(to.join("log")).expect("folder");
    fs::copy(from.join("log/checkpoint"), to.join("log/checkpoint")).expect("checkpoint");
    if from.join("log/tile").exists() {
        copy_folder(&from.join("log/tile"), &to.join("log/tile"))?;
    }
    copy_folder(&from.join("journal"), &journal)
}

fn copy_folder(from: &Path, to: &Path) -> Option<()> {
    fs::create_dir_all(to).expect("folder");
    for item in fs::read_dir(from).ok()? {
        let path = item.ok()?.path();
        let target = to.join(path.file_name()?);
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            fs::copy(&path, &target).ok()?;
        }
    }
    Some(())
}

fn last_segment(dir: &Path) -> std::path::PathBuf {
    segments(&dir.join("journal")).expect("lists").pop().expect("a segment").path
}

#[test]
fn records_survive_and_the_tree_goes_on() {
    let dir = folder();
    let mut size = 0;
    for more in [0, 1, 254, 1, 0, 1, 300] {
        let log = open(dir.path(), quick());
        assert_eq!(log.recovery(), Recovery { signed: size, recovered: 0, torn_bytes: 0 });
        append(&log, size..size + more);
        size += more;
        log.close().expect("closes");
        log.close().expect("twice is fine");
        assert!(matches!(log.append(entry(size), vec![]), Err(LogError::Closed)));
        check(dir.path(), size);
    }
    // Full tiles have done away with the partial ones before them.
    assert!(dir.path().join("log/tile/0/000").is_file());
    assert!(!dir.path().join("log/tile/0/000.p").exists());
    assert!(!dir.path().join("log/tile/entries/000.p").exists());
}

#[test]
fn what_is_durable_is_read_at_once_and_receipts_hold() {
    let dir = folder();
    let log = open(dir.path(), unsigned());
    append(&log, 0..300);
    wait(log.durable(299)).expect("durable");
    assert_eq!(log.status().integrated, 0);
    let reader = LogReader::open(dir.path()).expect("opens");
    for start in [0, 7, 255, 299, 300] {
        let expected: Vec<_> = (start..300).map(entry).collect();
        assert_eq!(log.entries(start..900).expect("reads"), expected);
        assert_eq!(reader.entries(start..900).expect("reads"), expected);
    }
    assert_eq!(log.entries(10..12).expect("reads"), [entry(10), entry(11)]);
    assert_eq!(log.payload(12).expect("reads"), Some(payload(12)));
    assert_eq!(reader.receipt(5).expect("reads"), None);
    assert!(matches!(wait(log.durable(300)), Err(LogError::NoSuchEntry { index: 300, size: 300 })));
    drop(log);

    let log = open(dir.path(), quick());
    append(&log, 300..310);
    let receipt = wait(log.receipt(305)).expect("receipt");
    assert_eq!(receipt.entry, entry(305));
    receipt.verify(&[log.verifier_key().clone()]).expect("holds");
    assert_eq!(log.entries(290..308).expect("reads"), (290..308).map(entry).collect::<Vec<_>>());
    let proof = log.inclusion_proof(3, 300).expect("proof");
    assert_eq!(proof.len(), 9);
    assert!(matches!(log.inclusion_proof(3, 1000), Err(LogError::NoProof { .. })));
    let appended = log.append(entry(310), vec![]).expect("taken");
    let header = log.receipt_header(&appended).to_string();
    assert!(header.starts_with("gate.example/log;index=310;leaf="), "{header}");
}

#[test]
fn one_process_writes_and_others_read() {
    let dir = folder();
    assert!(LogReader::open(dir.path()).is_err());
    let log = open(dir.path(), quick());
    assert!(matches!(Log::open(dir.path(), signer(), quick()), Err(LogError::Locked { .. })));
    assert!(LogReader::open(dir.path()).is_ok());
    log.close().expect("closes");
    assert!(Log::open(dir.path(), signer(), quick()).is_ok());
    let other = Signer::from_seed("gate.example/log", &[8; 32]).expect("key");
    assert!(matches!(Log::open(dir.path(), other, quick()), Err(LogError::Checkpoint(_))));
}

#[test]
fn limits_refuse_rather_than_forget() {
    let dir = folder();
    let log = open(dir.path(), LogOptions { linger: Duration::from_secs(60), waiting_max: 3, ..quick() });
    append(&log, 0..3);
    assert!(matches!(log.append(entry(3), vec![]), Err(LogError::Full { records: 3, .. })));
    assert!(matches!(log.append(vec![0; 65_536], vec![]), Err(LogError::EntryTooLong { .. })));
    // A waiter ends the lingering, and there is room again.
    wait(log.durable(0)).expect("durable");
    append(&log, 3..4);
    drop(log);
    check(dir.path(), 4);

    let log =
        Log::open(dir.path(), signer(), LogOptions { waiting_bytes_max: 1000, ..quick() }).expect("opens");
    assert!(matches!(log.append(entry(4), vec![0; 1000]), Err(LogError::Full { .. })));
}

#[test]
fn segments_roll_and_every_opening_begins_one() {
    let dir = folder();
    let options = LogOptions { segment_bytes: 2000, ..quick() };
    let log = open(dir.path(), options.clone());
    for n in 0..100 {
        append(&log, n..n + 1);
        wait(log.durable(n)).expect("durable");
    }
    drop(log);
    let rolled = segments(&dir.path().join("journal")).expect("lists").len();
    assert!(rolled > 5, "{rolled}");
    check(dir.path(), 100);
    drop(open(dir.path(), options.clone()));
    assert_eq!(segments(&dir.path().join("journal")).expect("lists").len(), rolled);
    let log = open(dir.path(), options);
    append(&log, 100..101);
    drop(log);
    assert_eq!(segments(&dir.path().join("journal")).expect("lists").len(), rolled + 1);
    check(dir.path(), 101);
}

/// A log with 40 signed records and, in its last segment, three durable groups that are not signed:
/// as a crash leaves it. Gives the folder and the size.
fn crashed() -> (TempDir, u64) {
    let (dir, kept) = (folder(), folder());
    let log = open(dir.path(), quick());
    append(&log, 0..40);
    drop(log);
    let log = open(dir.path(), unsigned());
    for end in [45, 46, 50] {
        append(&log, log.status().next..end);
        wait(log.durable(end - 1)).expect("durable");
    }
    copy(dir.path(), kept.path());
    (kept, 50)
}

#[test]
fn a_crash_loses_nothing_that_is_durable() {
    let (dir, size) = crashed();
    let log = open(dir.path(), quick());
    assert_eq!(log.recovery(), Recovery { signed: 40, recovered: 10, torn_bytes: 0 });
    assert_eq!(log.entry(47).expect("reads").as_deref(), Some(&*entry(47)));
    append(&log, size..size + 5);
    drop(log);
    check(dir.path(), size + 5);
}

#[test]
fn a_journal_cut_at_any_byte_goes_on_from_what_is_whole() {
    let (dir, size) = crashed();
    let segment = last_segment(dir.path());
    let bytes = fs::read(&segment).expect("reads");
    let scratch = folder();
    let last_group = bytes.len() - (46..50).map(|n| 32 + entry(n).len() + payload(n).len()).sum::<usize>();
    for length in (0..last_group).step_by(9).chain(last_group..=bytes.len()) {
        let here = scratch.path().join(length.to_string());
        copy(dir.path(), &here);
        fs::write(last_segment(&here), &bytes[..length]).expect("cuts");
        let log = open(&here, unsigned());
        let Recovery { recovered, torn_bytes, .. } = log.recovery();
        assert_eq!(recovered == size - 40, length == bytes.len());
        assert!(torn_bytes < 400 && (torn_bytes == 0 || length > 0), "{torn_bytes}");
        let next = 40 + recovered;
        append(&log, next..next + 2);
        drop(log);
        check(&here, next + 2);
        fs::remove_dir_all(&here).expect("removes");
    }
}

#[test]
fn a_torn_group_is_cut_whatever_of_it_reached_the_disk() {
    let (dir, size) = crashed();
    let segment = last_segment(dir.path());
    let bytes = fs::read(&segment).expect("reads");
    // The last group: frames 46 to 49. Its first frame is lost, the others are there.
    let start = bytes.len() - (46..50).map(|n| 32 + entry(n).len() + payload(n).len()).sum::<usize>();
    let mut torn = bytes.clone();
    torn[start..start + 60].fill(0);
    torn.extend_from_slice(&[0; 4096]);
    fs::write(&segment, torn).expect("writes");
    let log = open(dir.path(), quick());
    assert_eq!(log.recovery().recovered, 6);
    append(&log, 46..size);
    drop(log);
    check(dir.path(), size);
}

#[test]
fn damage_before_acknowledged_records_is_an_error_that_says_where() {
    let (dir, _) = crashed();
    let segment = last_segment(dir.path());
    let bytes = fs::read(&segment).expect("reads");
    let frame = |n: u64| 32 + entry(n).len() + payload(n).len();
    let last_group = bytes.len() - (46..50).map(frame).sum::<usize>();
    for at in 0..last_group {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x20;
        fs::write(&segment, damaged).expect("writes");
        let Err(LogError::Damaged { path, at: found, index, .. }) = Log::open(dir.path(), signer(), quick())
        else {
            panic!("byte {at} was passed over")
        };
        let starts: Vec<_> = (40..=index).scan(32, |end, n| (Some(*end), *end += frame(n)).0).collect();
        let expected = if at < 32 { 0 } else { *starts.last().expect("a frame") as u64 };
        assert_eq!((path, found), (segment.clone(), expected), "byte {at}");
        assert!(expected <= at as u64 && (at < 32 || (at as u64) < expected + frame(index) as u64));
    }
}

#[test]
fn lost_files_are_noticed() {
    let (dir, _) = crashed();
    fs::remove_file(last_segment(dir.path())).expect("removes");
    fs::remove_file(last_segment(dir.path())).expect("removes");
    assert!(matches!(
        Log::open(dir.path(), signer(), quick()),
        Err(LogError::JournalBehind { end: 0, size: 40 })
    ));

    let (dir, _) = crashed();
    let all = segments(&dir.path().join("journal")).expect("lists");
    fs::rename(&all[1].path, all[1].path.with_file_name("00000000000000000043.seg")).expect("renames");
    assert!(matches!(Log::open(dir.path(), signer(), quick()), Err(LogError::Damaged { index: 40, .. })));

    let (dir, _) = crashed();
    fs::remove_file(dir.path().join("log/checkpoint")).expect("removes");
    assert!(matches!(Log::open(dir.path(), signer(), quick()), Err(LogError::CheckpointMissing { .. })));

    let (dir, _) = crashed();
    let tile = dir.path().join("log/tile/0/000.p/40");
    let mut bytes = fs::read(&tile).expect("reads");
    bytes[100] ^= 1;
    fs::write(&tile, &bytes).expect("writes");
    assert!(matches!(Log::open(dir.path(), signer(), quick()), Err(LogError::RootMismatch { size: 40 })));
    fs::remove_file(&tile).expect("removes");
    assert!(matches!(Log::open(dir.path(), signer(), quick()), Err(LogError::Tiles(_))));
}

#[test]
fn a_copy_made_at_any_moment_is_a_valid_log() {
    let (dir, scratch) = (folder(), folder());
    let options = LogOptions { segment_bytes: 20_000, ..quick() };
    let log = open(dir.path(), options.clone());
    let writer = {
        let log = log.clone();
        std::thread::spawn(move || {
            for n in 0..3000 {
                append(&log, n..n + 1);
                if n % 7 == 0 {
                    wait(log.durable(n)).expect("durable");
                }
            }
        })
    };
    for round in 0..12 {
        let here = scratch.path().join(round.to_string());
        copy(dir.path(), &here);
        let again = open(&here, options.clone());
        let size = again.status().next;
        append(&again, size..size + 3);
        drop(again);
        check(&here, size + 3);
    }
    writer.join().expect("writes");
    drop(log);
    check(dir.path(), 3000);
}

/// A disk that has room for so many bytes, or whose sync fails after so many.
struct SmallDisk {
    left: Arc<AtomicUsize>,
    only_sync_fails: bool,
}

struct SmallFile {
    file: fs::File,
    left: Arc<AtomicUsize>,
    only_sync_fails: bool,
}

impl Disk for SmallDisk {
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let file = fs::File::create_new(path)?;
        Ok(Box::new(SmallFile { file, left: self.left.clone(), only_sync_fails: self.only_sync_fails }))
    }
}

impl SegmentFile for SmallFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(bytes.len()), Ordering::Relaxed);
        if bytes.len() <= left || self.only_sync_fails {
            return self.file.write_all(bytes);
        }
        self.file.write_all(&bytes[..left])?;
        Err(io::ErrorKind::StorageFull.into())
    }

    fn sync(&mut self) -> io::Result<()> {
        let failing = self.only_sync_fails && self.left.load(Ordering::Relaxed) == 0;
        if failing { Err(io::Error::other("the disk does not answer")) } else { self.file.sync_data() }
    }
}

#[test]
fn a_failing_disk_closes_the_log_and_acknowledged_records_stay() {
    for only_sync_fails in [false, true] {
        let dir = folder();
        let disk = SmallDisk { left: Arc::new(AtomicUsize::new(5000)), only_sync_fails };
        let log = Log::open_on(dir.path(), signer(), unsigned(), Box::new(disk)).expect("opens");
        let mut acknowledged = 0;
        let failure = loop {
            append(&log, acknowledged..acknowledged + 1);
            match wait(log.durable(acknowledged)) {
                Ok(()) => acknowledged += 1,
                Err(failure) => break failure,
            }
        };
        let text = failure.to_string();
        assert!(matches!(failure, LogError::Failed { .. }) && text.contains(".seg"), "{text}");
        assert!(matches!(log.append(entry(0), vec![]), Err(LogError::Failed { .. })));
        assert!(matches!(wait(log.receipt(0)), Err(LogError::Failed { .. })));
        assert!(log.status().failed.is_some());
        assert!(log.close().is_err());
        assert!(acknowledged > 5);

        let log = open(dir.path(), quick());
        let next = log.status().next;
        assert!(next == acknowledged || next == acknowledged + 1, "{next} {acknowledged}");
        append(&log, next..next + 1);
        drop(log);
        check(dir.path(), next + 1);
    }
}

#[test]
fn a_checkpoint_that_cannot_be_written_closes_the_log() {
    let dir = folder();
    let log = open(dir.path(), quick());
    fs::write(dir.path().join("log/tile"), b"in the way").expect("writes");
    append(&log, 0..1);
    let failure = wait(log.integrated(0)).expect_err("fails");
    assert!(failure.to_string().contains("log/tile"), "{failure}");
    assert!(matches!(log.append(entry(1), vec![]), Err(LogError::Failed { .. })));
    drop(log);
    fs::remove_file(dir.path().join("log/tile")).expect("removes");
    drop(open(dir.path(), quick()));
    check(dir.path(), 1);
}

#[test]
fn many_callers_wait_at_once() {
    let dir = folder();
    let log = open(dir.path(), LogOptions { segment_bytes: 100_000, ..quick() });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("runtime");
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let log = log.clone();
            runtime.spawn(async move {
                for _ in 0..50 {
                    let appended = log.append(entry(1), vec![1; 100]).expect("taken");
                    // Waiting that is given up must leave nothing behind.
                    drop(log.durable(appended.index));
                    log.durable(appended.index).await.expect("durable");
                    assert!(log.status().durable > appended.index);
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for caller in callers {
            caller.await.expect("ends well");
        }
    });
    let status = log.status();
    assert_eq!((status.durable, status.waiting, status.waiting_bytes), (3200, 0, 0));
    assert!(status.groups < 3200, "{status:?}");
    log.close().expect("closes");
    assert_eq!(verify(dir.path()).entries, 3200);
}

/// All files below a folder, by their paths within it.
fn all_files(dir: &Path) -> Vec<String> {
    let (mut folders, mut files) = (vec![dir.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder).expect("folder") {
            let path = item.expect("item").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(dir).expect("below").to_str().expect("text").to_owned());
            }
        }
    }
    files.sort();
    files
}

/// A log that was signed at several sizes, and whose newest tiles and records are not signed: as a
/// crash between the two leaves it.
fn grown() -> TempDir {
    let dir = folder();
    for end in [3, 40, 46, 250, 290, 300, 310] {
        let log = open(dir.path(), LogOptions { segment_bytes: 2000, ..unsigned() });
        append(&log, log.status().next..end);
        drop(log);
        if end == 300 {
            fs::copy(dir.path().join("log/checkpoint"), dir.path().join("kept")).expect("kept");
        }
    }
    fs::rename(dir.path().join("kept"), dir.path().join("log/checkpoint")).expect("goes back");
    dir
}

#[test]
fn every_file_of_the_log_has_its_say_and_no_other() {
    let dir = grown();
    let partials =
        |end: &str| all_files(&dir.path().join("log")).into_iter().filter(|p| p.contains(end)).count();
    // Widths 34, 44 and 54 of hashes and entries, and one of level 1.
    assert_eq!((partials("001.p/"), partials("000.p/")), (6, 1));
    let report = verify(dir.path());
    assert!(report.holds(), "{report}");

    // What a crash left goes when the log is opened; the records are in the journal.
    fs::write(dir.path().join("log/checkpoint.new"), b"cut").expect("writes");
    fs::write(dir.path().join("log/tile/0/001.p/50"), b"torn").expect("writes");
    let paths = |report: Report| report.findings.into_iter().map(|f| f.path).collect::<Vec<_>>();
    assert_eq!(paths(verify(dir.path())), ["checkpoint.new", "tile/0/001.p/50"]);
    drop(open(dir.path(), quick()));
    check(dir.path(), 310);

    fs::write(dir.path().join("log/tile/0/notes"), b"").expect("writes");
    std::os::unix::fs::symlink("entries", dir.path().join("log/tile/1/x001")).expect("links");
    assert_eq!(paths(verify(dir.path())), ["tile/0/notes", "tile/1/x001"]);
}

#[test]
fn a_journal_without_what_is_signed_is_named() {
    let dir = grown();
    let all = segments(&dir.path().join("journal")).expect("lists");
    let (second, last) = (&all[1], all.last().expect("a segment"));
    let name = |segment: &journal::Segment| format!("journal/{:020}.seg", segment.first);
    let found = |report: Report| {
        report.findings.into_iter().map(|f| (f.kind, f.path, f.entries.expect("entries"))).collect::<Vec<_>>()
    };
    let without = |first: usize, then: Option<usize>| {
        let here = folder();
        copy(dir.path(), here.path());
        for segment in &all[first..then.unwrap_or(all.len())] {
            let path = here.path().join(name(segment));
            fs::remove_file(path).expect("removes");
        }
        found(verify(here.path()))
    };
    assert_eq!(without(1, Some(2)), [(FindingKind::Journal, name(&all[2]), second.first..all[2].first)]);
    assert_eq!(without(0, None), [(FindingKind::Journal, "journal".to_owned(), 0..300)]);
    // The records of the last segment are not signed yet.
    assert_eq!((last.first, without(all.len() - 1, None)), (300, vec![]));

    // An entry that is whole, but is not the one in the log.
    let path = dir.path().join(name(second));
    let first = second.first;
    let mut bytes = Vec::new();
    frame::push_segment_head(&mut bytes, first);
    (first..all[2].first)
        .for_each(|n| frame::push_frame(&mut bytes, n, first, &entry(n + u64::from(n == 5)), &[]));
    fs::write(path, bytes).expect("writes");
    assert_eq!(found(verify(dir.path())), [(FindingKind::Journal, name(second), 5..6)]);
}

#[test]
fn outcomes_are_checked_against_their_intents() {
    let dir = folder();
    let log = open(dir.path(), quick());
    let outcome = Outcome {
        time: Timestamp(1),
        action: ActionId::new(Timestamp(1), [0; 10]),
        intent: 0,
        status: Status::Ok,
        code: None,
        commit: Some(Digest([0; 32])),
        bytes: 0,
        micros: 0,
        findings: Vec::new(),
        inspection: None,
        model: None,
    };
    log.append(Record::Outcome(outcome).encode().expect("encodes"), vec![]).expect("taken");
    drop(log);
    let report = verify(dir.path());
    assert_eq!(report.findings.iter().map(|f| f.kind).collect::<Vec<_>>(), [FindingKind::Link]);
}

#[test]
fn only_public_files_are_served() {
    let dir = folder();
    let log = open(dir.path(), quick());
    append(&log, 0..2);
    drop(log);
    fs::write(dir.path().join("log/other"), b"private").expect("writes");
    let reader = LogReader::open(dir.path()).expect("opens");
    for path in ["other", "../journal/lock", "tile", "tile/0", "", "checkpoint/", "tile/0/../../checkpoint"] {
        assert_eq!(reader.tiles().read(path), Ok(None), "{path}");
    }
    assert!(reader.tiles().read("tile/entries/000.p/2").is_ok_and(|tile| tile.is_some()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Any mixture of appending, waiting, closing and crashing keeps every acknowledged record.
    #[test]
    fn any_history_keeps_what_was_acknowledged(steps in proptest::collection::vec((0_u64..60, 0_u8..4), 1..8)) {
        let (mut dir, mut acknowledged) = (folder(), 0);
        let options = |kind: u8| LogOptions { segment_bytes: 3000, ..if kind & 1 == 0 { quick() } else { unsigned() } };
        for (count, kind) in steps {
            let log = open(dir.path(), options(kind));
            let next = log.status().next;
            prop_assert!(next >= acknowledged);
            append(&log, next..next + count);
            if count > 0 {
                wait(log.durable(next + count / 2)).expect("durable");
                acknowledged = next + count / 2 + 1;
            }
            if kind < 2 {
                log.close().expect("closes");
                acknowledged = next + count;
            } else {
                let left = folder();
                copy(dir.path(), left.path());
                drop(log);
                dir = left;
            }
        }
        let log = open(dir.path(), quick());
        let size = log.status().next;
        prop_assert!(size >= acknowledged);
        drop(log);
        check(dir.path(), size);
    }

    /// Nothing that is public, and nothing of the journal that is signed, can change unnoticed.
    #[test]
    fn a_flipped_bit_anywhere_is_named(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_u32..8), 10)) {
        let dir = grown();
        let is_signed = |path: &String| path.starts_with("log/") || path.ends_with(".seg") && *path != "journal/00000000000000000300.seg";
        let files: Vec<_> = all_files(dir.path()).into_iter().filter(is_signed).collect();
        for (file, at, bit) in flips {
            let (name, path) = (&files[file.index(files.len())], dir.path().join(&files[file.index(files.len())]));
            let good = fs::read(&path).expect("reads");
            let mut bad = good.clone();
            bad[at.index(good.len())] ^= 1 << bit;
            fs::write(&path, bad).expect("writes");
            let report = verify(dir.path());
            let name = name.strip_prefix("log/").unwrap_or(name);
            prop_assert!(report.findings.iter().any(|f| f.path == name), "{name}: {report}");
            fs::write(&path, good).expect("writes");
        }
    }
}
