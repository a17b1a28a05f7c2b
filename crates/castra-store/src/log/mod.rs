//! The log on disk: a private write-ahead journal and, made from it, the public tlog-tiles folder.
//!
//! ```text
//! <state>/journal/<first index>.seg   records with their sealed payloads: the source
//! <state>/journal/lock                held by the one process that writes
//! <state>/log/checkpoint, tile/…      C2SP tlog-tiles, for anybody to read and verify
//! ```
//!
//! [`Log::append`] gives a record its index and returns; [`Log::durable`] returns when the record is
//! on the disk. One thread writes all records that wait at once and syncs them once (group commit);
//! another turns durable records into tiles and signs them. When the disk fails, nothing more is
//! taken: an action that cannot be recorded does not happen.

mod error;
mod frame;
mod integrate;
mod journal;
mod queue;
mod reader;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    fs::{File, OpenOptions},
    ops::Range,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use castra_core::Digest;
use castra_ledger::{ENTRY_BYTES_MAX, Receipt, ReceiptHeader, Signer, VerifierKey, leaf_hash};
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};

pub use self::{
    error::LogError,
    frame::{PAYLOAD_BYTES_MAX, fuzz_segment},
    reader::{ENTRIES_MAX, FolderSource, LogReader},
    verify::verify_journal,
};
use self::{
    integrate::Integrator,
    journal::{Disk, Files, JournalWriter, Recent, make_private_folder, recover, segments},
    queue::{Goal, Pending, Queue},
};

/// How a log is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Records that nobody waits for are gathered this long before they are written: a sync costs
    /// some 60 µs of processor time. Whoever waits ends it at once.
    pub linger: Duration,
    /// Tiles and checkpoint follow new records after this time.
    pub interval: Duration,
    /// A journal segment that has reached this size is followed by a new one.
    pub segment_bytes: u64,
    /// Records that may wait for the disk.
    pub waiting_max: usize,
    /// Bytes that may wait for the disk.
    pub waiting_bytes_max: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(5),
            interval: Duration::from_millis(500),
            // A look-up of one payload, and opening, walk through one segment.
            segment_bytes: 32 << 20,
            waiting_max: 65_536,
            waiting_bytes_max: 256 << 20,
        }
    }
}

/// Where a record went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its index.
    pub index: u64,
    /// Leaf hash of its entry.
    pub leaf: Digest,
}

/// Where the log stands, for readiness and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStatus {
    /// Index of the next record.
    pub next: u64,
    /// Records that are on the disk.
    pub durable: u64,
    /// Records that the checkpoint covers.
    pub integrated: u64,
    /// Records that wait for the disk.
    pub waiting: u64,
    /// Bytes that wait for the disk.
    pub waiting_bytes: usize,
    /// Groups of records that were written, each with one sync, since the log was opened.
    pub groups: u64,
    /// Why no records are taken any more: something failed, or the log is closed.
    pub failed: Option<Arc<str>>,
}

/// What opening the log found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Entries that the checkpoint covered.
    pub signed: u64,
    /// Further records that the journal had.
    pub recovered: u64,
    /// Bytes of a torn last write, never acknowledged, that were cut off.
    pub torn_bytes: u64,
}

/// The log, open for writing. A handle: cheap to clone. Dropping the last one closes the log, which
/// waits for the disk.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Arc<Queue>,
    reader: LogReader,
    key: VerifierKey,
    recovery: Recovery,
    /// Threads and lock, until the log is closed.
    running: Mutex<Option<Running>>,
}

struct Running {
    writer: JoinHandle<()>,
    integrator: JoinHandle<()>,
    _lock: File,
}

impl Log {
    /// Opens the log in a state folder, or makes it. `signer` signs the checkpoints; its name is
    /// the log's origin. Recovers from a crash: a torn last write, which nobody was told of, is cut
    /// off, and the tree goes on.
    ///
    /// # Errors
    /// When another process writes the log, when a file cannot be used, or when the journal or the
    /// tiles are damaged in a way that a crash does not leave.
    pub fn open(dir: &Path, signer: Signer, options: LogOptions) -> Result<Self, LogError> {
        Self::open_on(dir, signer, options, Box::new(Files))
    }

    fn open_on(
        dir: &Path,
        signer: Signer,
        options: LogOptions,
        disk: Box<dyn Disk>,
    ) -> Result<Self, LogError> {
        let journal_dir = dir.join("journal");
        make_private_folder(&journal_dir)?;
        let lock = lock(dir, &journal_dir)?;
        let key = signer.verifier_key().clone();
        let has_records = !segments(&journal_dir)?.is_empty();
        let integrator = Integrator::open(&dir.join("log"), signer, has_records)?;
        let signed = integrator.size();
        let found = recover(&journal_dir, signed)?;
        integrator.clear_unsigned(signed + found.records.len() as u64);
        let recovery =
            Recovery { signed, recovered: found.records.len() as u64, torn_bytes: found.torn_bytes };
        if recovery.recovered > 0 || recovery.torn_bytes > 0 {
            tracing::warn!(
                ?recovery,
                "the log was not closed in order; it goes on from what was on the disk"
            );
        }
        let reader = LogReader::open(dir)?;
        let queue = Arc::new(Queue::new(options.clone(), signed, found.records));
        let journal = JournalWriter::new(&journal_dir, disk, options.segment_bytes);
        let writer = {
            let queue = queue.clone();
            spawn("castra-log", move || write(&queue, journal))?
        };
        let integrating = {
            let queue = queue.clone();
            spawn("castra-tiles", move || integrate(&queue, integrator, options.interval))
        };
        let integrator = integrating.inspect_err(|_| queue.close())?;
        let running = Mutex::new(Some(Running { writer, integrator, _lock: lock }));
        Ok(Self { inner: Arc::new(Inner { queue, reader, key, recovery, running }) })
    }

    /// Takes a record: an entry for the log and its sealed payload for the journal. Gives the index
    /// without waiting for the disk. Until the record is [durable](Self::durable), a crash may
    /// forget it, and its index then goes to another record.
    ///
    /// # Errors
    /// When entry or payload is too long, when too much waits for the disk, and when the log has
    /// failed or is closed.
    pub fn append(&self, entry: Vec<u8>, payload: Vec<u8>) -> Result<Appended, LogError> {
        if entry.len() > ENTRY_BYTES_MAX {
            return Err(LogError::EntryTooLong { bytes: entry.len() });
        }
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(LogError::PayloadTooLong { bytes: payload.len() });
        }
        let leaf = leaf_hash(&entry);
        let index = self.inner.queue.append(Pending { entry: entry.into(), payload, leaf })?;
        Ok(Appended { index, leaf })
    }

    /// Returns when everything up to and with `index` is on the disk.
    ///
    /// # Errors
    /// When the log failed before that, or has no such record.
    pub async fn durable(&self, index: u64) -> Result<(), LogError> {
        self.inner.queue.wait(Goal::Durable, index).await
    }

    /// Returns when the checkpoint covers `index`.
    ///
    /// # Errors
    /// When the log failed before that, or has no such record.
    pub async fn integrated(&self, index: u64) -> Result<(), LogError> {
        self.inner.queue.wait(Goal::Integrated, index).await
    }

    /// The receipt of a record, once the checkpoint covers it. Reads files.
    ///
    /// # Errors
    /// When the log failed before that, has no such record, or has damaged tiles.
    pub async fn receipt(&self, index: u64) -> Result<Receipt, LogError> {
        self.integrated(index).await?;
        let size = self.inner.queue.durable();
        self.inner.reader.receipt(index)?.ok_or(LogError::NoSuchEntry { index, size })
    }

    /// The short receipt that an answer carries, known at once.
    pub fn receipt_header(&self, appended: &Appended) -> ReceiptHeader {
        let origin = self.inner.key.name().to_owned();
        ReceiptHeader { origin, index: appended.index, leaf: appended.leaf }
    }

    /// Durable entries from `range.start` on, at most [`ENTRIES_MAX`]; fewer where the log ends.
    ///
    /// # Errors
    /// When a tile is damaged or cannot be read.
    pub fn entries(&self, range: Range<u64>) -> Result<Vec<Bytes>, LogError> {
        let count = range.end.saturating_sub(range.start).min(ENTRIES_MAX as u64) as usize;
        let (integrated, recent) = self.inner.queue.recent(range.start, count);
        if range.start >= integrated {
            return Ok(recent);
        }
        let mut entries = self.inner.reader.signed_entries(range, integrated)?;
        let room = count.saturating_sub(entries.len());
        entries.extend(recent.into_iter().take(room));
        Ok(entries)
    }

    /// One durable entry; none when the log does not have it yet.
    ///
    /// # Errors
    /// As for [`Self::entries`].
    pub fn entry(&self, index: u64) -> Result<Option<Bytes>, LogError> {
        Ok(self.entries(index..index.saturating_add(1))?.pop())
    }

    /// What the journal keeps with an entry, as it was given: sealed.
    ///
    /// # Errors
    /// When the journal is damaged or cannot be read.
    pub fn payload(&self, index: u64) -> Result<Option<Vec<u8>>, LogError> {
        if index < self.inner.queue.durable() { self.inner.reader.payload(index) } else { Ok(None) }
    }

    /// The signed checkpoint.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn checkpoint(&self) -> Result<String, LogError> {
        self.inner.reader.checkpoint()
    }

    /// Proof that entry `index` is among the first `size` entries.
    ///
    /// # Errors
    /// When the checkpoint does not cover `size`, or tiles are damaged.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Digest>, LogError> {
        self.inner.reader.inclusion_proof(index, size)
    }

    /// Reads the same log without holding it open.
    pub fn reader(&self) -> LogReader {
        self.inner.reader.clone()
    }

    /// Where the log stands.
    pub fn status(&self) -> LogStatus {
        self.inner.queue.status()
    }

    /// What opening the log found.
    pub fn recovery(&self) -> Recovery {
        self.inner.recovery
    }

    /// What others verify the checkpoints with.
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.inner.key
    }

    /// Takes no further records, writes and signs those that wait, and lets go of the folder.
    /// Blocks until that is done; closing twice does nothing more.
    ///
    /// # Errors
    /// When the log has failed, now or before.
    pub fn close(&self) -> Result<(), LogError> {
        self.inner.close();
        match self.inner.queue.failure() {
            Some(cause) => Err(LogError::Failed { cause }),
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("origin", &self.inner.key.name()).field("status", &self.status()).finish()
    }
}

impl Inner {
    fn close(&self) {
        // The guard is held to the end, so that whoever closes at the same time waits too.
        let mut running = self.running.lock();
        let Some(Running { writer, integrator, _lock }) = running.take() else { return };
        self.queue.close();
        for thread in [writer, integrator] {
            if thread.join().is_err() {
                tracing::error!("a thread of the log ended in disorder");
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock(dir: &Path, journal_dir: &Path) -> Result<File, LogError> {
    let path = journal_dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(LogError::io("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LogError::Locked { dir: dir.to_owned() }),
        Err(cause) => Err(LogError::io("lock", &path)(cause.into())),
    }
}

fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LogError> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|cause| LogError::Thread { name, cause })
}

/// Room for records that the writer keeps from one group to the next.
const SPARE_RECORDS: usize = 4096;

/// The writer's thread.
fn write(queue: &Queue, mut journal: JournalWriter) {
    let mut spare = Vec::new();
    while let Some(mut group) = queue.next_group(spare) {
        let records = group.records.iter().map(|record| (&record.entry[..], &record.payload[..]));
        if let Err(cause) = journal.write_group(group.first, records) {
            tracing::error!(%cause, "the log cannot be written; no action is let through any more");
            queue.fail(&cause);
            return;
        }
        let bytes = group.records.iter().map(|record| record.entry.len() + record.payload.len()).sum();
        let recent =
            group.records.drain(..).map(|Pending { entry, leaf, .. }| Recent { entry, leaf }).collect();
        queue.group_done(group.first, bytes, recent);
        spare = group.records;
        spare.shrink_to(SPARE_RECORDS);
    }
}

/// The integrator's thread.
fn integrate(queue: &Queue, mut integrator: Integrator, interval: Duration) {
    while let Some(groups) = queue.next_integration(interval) {
        if let Err(cause) = integrator.integrate(&groups) {
            tracing::error!(%cause, "the log cannot be signed; no action is let through any more");
            queue.fail(&cause);
            return;
        }
        queue.integrated(integrator.size());
    }
}
