//! What callers and the two threads of the log share: records that wait for the disk, records that
//! wait for the tiles, and who waits for either.
//!
//! Indexes are given out under one short lock. A caller that waits for the disk leaves a waker; the
//! writer, once a group is on the disk, wakes exactly those whose records were in it.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use castra_core::Digest;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{
    LogError, LogOptions, LogStatus,
    journal::{Recent, RecentGroup},
};

/// Without records for this many lingers the writer sleeps until it is woken.
const QUIET_LINGERS: u32 = 20;
/// Records, and bytes, beyond which the writer does not linger.
const GROUP_RECORDS: usize = 4096;
const GROUP_BYTES: usize = 4 << 20;
/// Records, and bytes, beyond which the tiles are brought up to date before their interval is over.
const RECENT_RECORDS_SOON: u64 = 16_384;
const RECENT_BYTES_SOON: usize = 16 << 20;
/// Bytes of recent entries beyond which the writer waits for the tiles, so that memory is bounded.
const RECENT_BYTES_MAX: usize = 128 << 20;

/// A record that waits for the disk.
pub(super) struct Pending {
    pub(super) entry: Bytes,
    pub(super) payload: Vec<u8>,
    pub(super) leaf: Digest,
}

/// What a waiter waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// The record is on the disk.
    Durable,
    /// The checkpoint covers it.
    Integrated,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// At work; it looks for more when it is done.
    Busy,
    /// Waits a little for more records, but not when somebody waits for it.
    Lingering,
    /// Sleeps until there is a record.
    Asleep,
}

struct State {
    /// Index of the next record.
    next: u64,
    /// Records from `durable + in the group being written` on.
    pending: Vec<Pending>,
    /// Bytes of records that are not durable yet.
    waiting_bytes: usize,
    writer: Writer,
    /// Groups of durable records that are not in the tiles, with the index of their first record;
    /// the first of all is `integrated`.
    recent: VecDeque<(u64, RecentGroup)>,
    recent_bytes: usize,
    integrated: u64,
    groups: u64,
    closing: bool,
    writer_done: bool,
    failed: Option<Arc<str>>,
    waiters: Waiters,
}

#[derive(Default)]
struct Waiters {
    durable: BTreeMap<(u64, u64), Waker>,
    integrated: BTreeMap<(u64, u64), Waker>,
    tickets: u64,
}

impl Waiters {
    fn of(&mut self, goal: Goal) -> &mut BTreeMap<(u64, u64), Waker> {
        match goal {
            Goal::Durable => &mut self.durable,
            Goal::Integrated => &mut self.integrated,
        }
    }

    /// Takes out those who wait for records below `size`.
    fn take(&mut self, goal: Goal, size: u64) -> BTreeMap<(u64, u64), Waker> {
        let waiters = self.of(goal);
        let later = waiters.split_off(&(size, 0));
        std::mem::replace(waiters, later)
    }
}

/// The shared part of a log.
pub(super) struct Queue {
    options: LogOptions,
    state: Mutex<State>,
    /// Size that is durable; a copy outside the lock for those who need not wait.
    durable: AtomicU64,
    /// The writer waits here for records.
    work: Condvar,
    /// The integrator waits here for durable records, the writer for the integrator.
    progress: Condvar,
}

/// A group of records for the writer.
pub(super) struct Group {
    pub(super) first: u64,
    pub(super) records: Vec<Pending>,
}

impl Queue {
    /// The queue of a log of `integrated` entries in tiles and `recent` further ones on the disk.
    pub(super) fn new(options: LogOptions, integrated: u64, recent: Vec<Recent>) -> Self {
        let next = integrated + recent.len() as u64;
        let recent_bytes = entry_bytes(&recent);
        let recent =
            if recent.is_empty() { VecDeque::new() } else { [(integrated, Arc::new(recent))].into() };
        Self {
            options,
            state: Mutex::new(State {
                next,
                pending: Vec::new(),
                waiting_bytes: 0,
                writer: Writer::Busy,
                recent,
                recent_bytes,
                integrated,
                groups: 0,
                closing: false,
                writer_done: false,
                failed: None,
                waiters: Waiters::default(),
            }),
            durable: AtomicU64::new(next),
            work: Condvar::new(),
            progress: Condvar::new(),
        }
    }

    /// Gives a record its index and leaves it to the writer.
    pub(super) fn append(&self, record: Pending) -> Result<u64, LogError> {
        let mut state = self.state.lock();
        state.refuse_when_closed()?;
        let waiting = state.next - self.durable.load(Ordering::Relaxed);
        let bytes = record.entry.len() + record.payload.len();
        let too_many = waiting >= self.options.waiting_max as u64;
        if too_many || state.waiting_bytes.saturating_add(bytes) > self.options.waiting_bytes_max {
            return Err(LogError::Full { records: waiting, bytes: state.waiting_bytes });
        }
        let index = state.next;
        state.next += 1;
        state.waiting_bytes += bytes;
        state.pending.push(record);
        let wake = match state.writer {
            Writer::Busy => false,
            Writer::Asleep => true,
            Writer::Lingering => state.is_large(),
        };
        self.wake_writer(state, wake);
        Ok(index)
    }

    /// Waits until the record `index` has come to `goal`.
    pub(super) fn wait(&self, goal: Goal, index: u64) -> Wait<'_> {
        Wait { queue: self, goal, index, ticket: None }
    }

    /// Size that is durable.
    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Durable records from `start` on, at most `max`, as far as they are not in the tiles; and the
    /// size that is.
    pub(super) fn recent(&self, start: u64, max: usize) -> (u64, Vec<Bytes>) {
        let state = self.state.lock();
        let at = state.recent.partition_point(|(first, group)| first + group.len() as u64 <= start);
        let groups = state.recent.iter().skip(at);
        let skip = groups.clone().next().map_or(0, |(first, _)| start.saturating_sub(*first) as usize);
        let records = groups.flat_map(|(_, group)| group.iter()).skip(skip);
        (state.integrated, records.take(max).map(|record| record.entry.clone()).collect())
    }

    /// Where the log stands.
    pub(super) fn status(&self) -> LogStatus {
        let state = self.state.lock();
        let durable = self.durable();
        LogStatus {
            next: state.next,
            durable,
            integrated: state.integrated,
            waiting: state.next - durable,
            waiting_bytes: state.waiting_bytes,
            groups: state.groups,
            failed: state.failed.clone().or_else(|| state.closing.then(|| "it is closed".into())),
        }
    }

    /// Takes no further records; the threads finish what there is and end.
    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.work.notify_one();
        self.progress.notify_all();
    }

    /// Ends everything with a cause; nothing that is not durable by now will be acknowledged.
    pub(super) fn fail(&self, cause: &LogError) {
        let mut state = self.state.lock();
        state.failed.get_or_insert_with(|| cause.to_string().into());
        state.pending = Vec::new();
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        self.work.notify_one();
        self.progress.notify_all();
        waiters.durable.into_values().chain(waiters.integrated.into_values()).for_each(Waker::wake);
    }

    /// Why the log takes nothing any more, if that is so because something failed.
    pub(super) fn failure(&self) -> Option<Arc<str>> {
        self.state.lock().failed.clone()
    }

    /// For the writer: waits for records; none when the log is closed or has failed. `spare` is an
    /// empty vector whose memory is used again.
    pub(super) fn next_group(&self, spare: Vec<Pending>) -> Option<Group> {
        let mut state = self.state.lock();
        let (mut quiet, mut lingered) = (0, false);
        loop {
            if state.failed.is_some() {
                return None;
            }
            if state.pending.is_empty() {
                if state.closing {
                    state.writer_done = true;
                    self.progress.notify_all();
                    return None;
                }
                if quiet >= QUIET_LINGERS {
                    state.writer = Writer::Asleep;
                    self.work.wait(&mut state);
                    (quiet, lingered) = (0, false);
                    continue;
                }
            } else if lingered || state.closing || state.is_large() || !state.waiters.durable.is_empty() {
                state.writer = Writer::Busy;
                let records = std::mem::replace(&mut state.pending, spare);
                return Some(Group { first: self.durable(), records });
            }
            state.writer = Writer::Lingering;
            lingered = self.work.wait_for(&mut state, self.options.linger).timed_out();
            quiet += u32::from(state.pending.is_empty());
        }
    }

    /// For the writer: a group is on the disk. Waits when too much waits for the tiles.
    pub(super) fn group_done(&self, first: u64, bytes: usize, records: Vec<Recent>) {
        let size = first + records.len() as u64;
        let (entries, group) = (entry_bytes(&records), Arc::new(records));
        let mut state = self.state.lock();
        state.recent_bytes += entries;
        state.recent.push_back((first, group));
        state.waiting_bytes -= bytes;
        state.groups += 1;
        self.durable.store(size, Ordering::Release);
        let waiters = state.waiters.take(Goal::Durable, size);
        // With the first group the integrator starts its interval.
        let soon = state.recent_is_large() || state.recent.len() == 1;
        drop(state);
        if soon {
            self.progress.notify_all();
        }
        waiters.into_values().for_each(Waker::wake);

        let mut state = self.state.lock();
        while state.recent_bytes > RECENT_BYTES_MAX && state.failed.is_none() {
            self.progress.wait(&mut state);
        }
    }

    /// For the integrator: waits until there are durable records and the interval is over, and
    /// gives them. None when the log is closed and all is done, or has failed.
    pub(super) fn next_integration(&self, interval: Duration) -> Option<Vec<RecentGroup>> {
        let mut state = self.state.lock();
        let mut until = None;
        loop {
            if state.failed.is_some() || (state.writer_done && state.recent.is_empty()) {
                return None;
            }
            let ready = state.recent_is_large() || (state.closing && state.writer_done);
            if state.recent.is_empty() {
                self.progress.wait(&mut state);
            } else if ready || until.is_some_and(|until| Instant::now() >= until) {
                return Some(state.recent.iter().map(|(_, group)| group.clone()).collect());
            } else {
                let until = *until.get_or_insert_with(|| Instant::now() + interval);
                self.progress.wait_until(&mut state, until);
            }
        }
    }

    /// For the integrator: the checkpoint covers `size` entries.
    pub(super) fn integrated(&self, size: u64) {
        let mut state = self.state.lock();
        let count = state.recent.partition_point(|(first, _)| *first < size);
        let done: Vec<_> = state.recent.drain(..count).collect();
        state.recent_bytes -= done.iter().map(|(_, group)| entry_bytes(group)).sum::<usize>();
        state.integrated = size;
        let waiters = state.waiters.take(Goal::Integrated, size);
        drop(state);
        drop(done);
        self.progress.notify_all();
        waiters.into_values().for_each(Waker::wake);
    }

    fn wake_writer(&self, mut state: MutexGuard<'_, State>, wake: bool) {
        if wake {
            // Woken once is enough.
            state.writer = Writer::Busy;
            drop(state);
            self.work.notify_one();
        }
    }
}

impl State {
    fn refuse_when_closed(&self) -> Result<(), LogError> {
        match &self.failed {
            Some(cause) => Err(LogError::Failed { cause: cause.clone() }),
            None if self.closing => Err(LogError::Closed),
            None => Ok(()),
        }
    }

    fn is_large(&self) -> bool {
        self.pending.len() >= GROUP_RECORDS || self.waiting_bytes >= GROUP_BYTES
    }

    fn recent_is_large(&self) -> bool {
        let first = self.recent.front().map_or(0, |(first, _)| *first);
        let end = self.recent.back().map_or(0, |(first, group)| first + group.len() as u64);
        end - first >= RECENT_RECORDS_SOON || self.recent_bytes >= RECENT_BYTES_SOON
    }
}

/// Ends when a record has come to its goal, or never will.
pub(super) struct Wait<'a> {
    queue: &'a Queue,
    goal: Goal,
    index: u64,
    ticket: Option<u64>,
}

impl Future for Wait<'_> {
    type Output = Result<(), LogError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (queue, goal, index) = (self.queue, self.goal, self.index);
        if goal == Goal::Durable && index < queue.durable() {
            return Poll::Ready(Ok(()));
        }
        let mut state = queue.state.lock();
        let size = match goal {
            Goal::Durable => queue.durable(),
            Goal::Integrated => state.integrated,
        };
        if index < size {
            return Poll::Ready(Ok(()));
        }
        if let Some(cause) = &state.failed {
            return Poll::Ready(Err(LogError::Failed { cause: cause.clone() }));
        }
        if index >= state.next {
            return Poll::Ready(Err(LogError::NoSuchEntry { index, size: state.next }));
        }
        let ticket = *self.ticket.get_or_insert_with(|| {
            state.waiters.tickets += 1;
            state.waiters.tickets
        });
        state.waiters.of(goal).insert((index, ticket), context.waker().clone());
        let wake = goal == Goal::Durable && state.writer == Writer::Lingering;
        queue.wake_writer(state, wake);
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.queue.state.lock().waiters.of(self.goal).remove(&(self.index, ticket));
        }
    }
}

fn entry_bytes(records: &[Recent]) -> usize {
    records.iter().map(|record| record.entry.len()).sum()
}
