//! What is kept of runs on the disk, so that neither a restart nor a crash clears what an agent has read.
//!
//! Writing a whole run after each thing that it learns would cost more than the call. So a run is first
//! put down as *held*: more is known of it than is written. That note is on the disk before anything
//! that was learned can leave the gate; when the run has been quiet for a moment, the whole of it takes
//! the note's place. A gate that finds only the note takes the run for lost. Writes that wait at the same
//! time go together.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use castra_core::{AgentName, Coverage, Timestamp};
use castra_flow::{Mark, Run};
use castra_protect::{ProtectError, Sealer, key_id_of, open};
use castra_store::{KeptRun, RunWrite, State, StoreError, clock};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::{Key, Live, recent::Recent, said::Seen};

/// A run that was quiet for this long is written, in microseconds.
const QUIET: i64 = 500_000;
/// So is one that was never quiet for this long.
const BUSY: i64 = 15_000_000;

/// Marks in memory; beyond it some are forgotten.
const MARKS_MAX: usize = 1_000_000;

/// What the gate knows of a run.
pub(super) struct Kept {
    pub(super) run: Run,
    /// Messages of users and results of tools that it was told, so that it is told them once.
    pub(super) seen: Seen,
    pub(super) recent: Recent,
    /// It knows more than is written.
    pub(super) dirty: bool,
    /// The note of that is under way or on the disk.
    held: bool,
    dirty_since: Timestamp,
    changed: Timestamp,
}

/// What is written beside the run itself.
#[derive(Serialize, Deserialize)]
struct Beside<S, R> {
    seen: S,
    recent: R,
}

impl Default for Kept {
    fn default() -> Self {
        Self::new(Run::new(Coverage::Tools))
    }
}

impl Kept {
    pub(super) fn new(run: Run) -> Self {
        Self {
            run,
            seen: Seen::default(),
            recent: Recent::default(),
            dirty: false,
            held: false,
            dirty_since: Timestamp(0),
            changed: Timestamp(0),
        }
    }

    /// A run of which nothing is known.
    pub(super) fn lost() -> Self {
        Self { recent: Recent::forgotten(), ..Self::new(Run::lost()) }
    }

    /// As it was found, if it was; what was known once and is not any more, is lost.
    pub(super) fn from(found: &Found) -> Option<Self> {
        let Found::State(state) = found else { return None };
        Some(Self::read(state).unwrap_or_else(Self::lost))
    }

    /// The run as `castra-flow` writes it and what stands beside it, each after its length.
    fn read(state: &[u8]) -> Option<Self> {
        let (length, rest) = state.split_first_chunk::<8>()?;
        let (run, beside) = rest.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)?;
        let Beside { seen, recent } = serde_json::from_slice(beside).ok()?;
        Some(Self { seen, recent, ..Self::new(Run::restore(run)) })
    }

    fn write(&self) -> serde_json::Result<Vec<u8>> {
        let run = serde_json::to_vec(&self.run)?;
        let mut state = u64::try_from(run.len()).unwrap_or(u64::MAX).to_be_bytes().to_vec();
        state.extend_from_slice(&run);
        serde_json::to_writer(&mut state, &Beside { seen: &self.seen, recent: &self.recent })?;
        Ok(state)
    }

    pub(super) fn size(&self) -> usize {
        self.run.size() + self.seen.size() + self.recent.size()
    }

    /// Whether it should be written now.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let ago = |then: Timestamp| now.0.saturating_sub(then.0);
        self.dirty && (ago(self.changed) >= QUIET || ago(self.dirty_since) >= BUSY || ago(self.changed) < 0)
    }

    /// Tells a run what strangers wrote.
    pub(super) fn pour(&self, run: &mut Run) {
        self.recent.pour(run);
    }
}

/// What the disk has of a run.
#[derive(PartialEq, Eq)]
pub(super) enum Found {
    /// There never was such a run.
    Never,
    /// All that was known of it.
    State(Vec<u8>),
    /// It has ended, or more was known of it than was written.
    Ended,
}

/// Why a run cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeepError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Protect(#[from] ProtectError),
    #[error("a run cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the writer ended: {0}")]
    Writer(#[from] tokio::task::JoinError),
}

/// Keeps runs.
pub(super) struct Keeper {
    state: Arc<State>,
    sealers: Arc<Mutex<HashMap<AgentName, Arc<Sealer>>>>,
    waiting: Mutex<Waiting>,
    /// Number of the newest write that is on the disk; whoever writes holds it.
    written: tokio::sync::Mutex<u64>,
    marks: RwLock<std::collections::HashSet<Mark>>,
}

/// What is to be written, in order.
#[derive(Default)]
struct Waiting {
    /// Number of the newest.
    newest: u64,
    runs: Vec<Pending>,
    marks: Vec<Mark>,
}

struct Pending {
    key: Key,
    began: Timestamp,
    used: Timestamp,
    kept: ToKeep,
}

enum ToKeep {
    Held,
    /// Not sealed yet.
    Whole(Vec<u8>),
    Ended,
}

impl Keeper {
    pub(super) fn new(state: Arc<State>) -> Self {
        let marks = state.marks().unwrap_or_else(|error| {
            tracing::error!(%error, "marks of what runs wrote cannot be read");
            Vec::new()
        });
        Self {
            state,
            sealers: Arc::default(),
            waiting: Mutex::default(),
            written: tokio::sync::Mutex::new(0),
            marks: RwLock::new(marks.into_iter().map(Mark).collect()),
        }
    }

    /// The marks of all runs of all agents.
    pub(super) fn marks(&self) -> parking_lot::RwLockReadGuard<'_, std::collections::HashSet<Mark>> {
        self.marks.read()
    }

    /// What the disk has of a run, and when it began.
    pub(super) async fn find(&self, key: &Key) -> Result<Option<(Timestamp, Found)>, KeepError> {
        let (state, key) = (self.state.clone(), key.clone());
        let found = tokio::task::spawn_blocking(move || {
            let Some(row) = state.run(&key.agent, &key.run)? else { return Ok(None) };
            let Some(sealed) = row.state else { return Ok(Some((row.began, Found::Ended))) };
            let opened = key_id_of(&sealed)
                .map_err(KeepError::from)
                .and_then(|id| Ok(open(&state.data_key_by_id(id)?, &place(&key), &sealed)?));
            let found = match opened {
                Ok(opened) => Found::State(opened.to_vec()),
                Err(error) => {
                    tracing::warn!(%error, agent = %key.agent, "what was kept of a run does not open; it is lost");
                    Found::Ended
                }
            };
            Ok::<_, KeepError>(Some((row.began, found)))
        });
        found.await?
    }

    /// A run is about to know more than is written. What it then learns may leave once
    /// [`Keeper::settle`] has returned.
    pub(super) fn hold(&self, live: &Live, kept: &mut Kept, now: Timestamp) {
        let Some(key) = &live.key else { return };
        kept.changed = now;
        if !kept.dirty {
            kept.dirty = true;
            kept.dirty_since = now;
        }
        if !kept.held {
            kept.held = true;
            let number = self.waiting.lock().put(key, live, now, ToKeep::Held);
            live.written_by.store(number, Ordering::Release);
        }
    }

    /// Keeps marks of what a run wrote.
    pub(super) fn mark(&self, live: &Live, marks: Vec<Mark>) {
        let new: Vec<Mark> = {
            let mut known = self.marks.write();
            if known.len() > MARKS_MAX {
                let mut n = 0_usize;
                known.retain(|_| {
                    n += 1;
                    !n.is_multiple_of(8)
                });
            }
            marks.into_iter().filter(|mark| known.insert(*mark)).collect()
        };
        if new.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock();
        waiting.marks.extend(new);
        waiting.newest += 1;
        live.written_by.store(waiting.newest, Ordering::Release);
    }

    /// A run has ended.
    pub(super) fn ended(&self, live: &Live) {
        if let Some(key) = &live.key {
            let used = Timestamp(live.used.load(Ordering::Relaxed));
            self.waiting.lock().put(key, live, used, ToKeep::Ended);
        }
    }

    /// Returns when a crash cannot make the gate forget that the run knows more.
    pub(super) async fn settle(&self, live: &Live) -> Result<(), KeepError> {
        self.write_until(live.written_by.load(Ordering::Acquire)).await
    }

    /// Writes the whole of these runs, as far as it is not written.
    pub(super) async fn keep_all(&self, lives: &[Arc<Live>], now: Timestamp) -> Result<(), KeepError> {
        // Also what ended, and waits with nobody.
        let mut newest = self.waiting.lock().newest;
        for live in lives {
            let Some(key) = &live.key else { continue };
            let mut kept = live.kept.lock();
            if !kept.dirty {
                continue;
            }
            let state = kept.write()?;
            (kept.dirty, kept.held) = (false, false);
            newest = self.waiting.lock().put(key, live, now, ToKeep::Whole(state));
        }
        self.write_until(newest).await
    }

    async fn write_until(&self, number: u64) -> Result<(), KeepError> {
        if number == 0 {
            return Ok(());
        }
        let mut written = self.written.lock().await;
        if *written >= number {
            return Ok(());
        }
        let batch = self.waiting.lock().take();
        let newest = batch.newest;
        let (state, sealers) = (self.state.clone(), self.sealers.clone());
        let (batch, done) = tokio::task::spawn_blocking(move || {
            let done = write(&state, &sealers, &batch);
            (batch, done)
        })
        .await?;
        match done {
            Ok(()) => {
                *written = newest;
                Ok(())
            }
            Err(error) => {
                self.waiting.lock().put_back(batch);
                Err(error)
            }
        }
    }
}

impl Waiting {
    fn put(&mut self, key: &Key, live: &Live, used: Timestamp, kept: ToKeep) -> u64 {
        self.newest += 1;
        self.runs.push(Pending { key: key.clone(), began: live.began, used, kept });
        self.newest
    }

    /// All of it; the count goes on.
    fn take(&mut self) -> Self {
        let (runs, marks) = (std::mem::take(&mut self.runs), std::mem::take(&mut self.marks));
        Self { newest: self.newest, runs, marks }
    }

    fn put_back(&mut self, failed: Waiting) {
        let later = std::mem::replace(&mut self.runs, failed.runs);
        self.runs.extend(later);
        self.marks.extend(failed.marks);
    }
}

fn write(
    state: &State,
    sealers: &Mutex<HashMap<AgentName, Arc<Sealer>>>,
    batch: &Waiting,
) -> Result<(), KeepError> {
    let now = clock::now();
    let mut writes = Vec::with_capacity(batch.runs.len());
    for Pending { key, began, used, kept } in &batch.runs {
        let kept = match kept {
            ToKeep::Held => KeptRun::Held,
            ToKeep::Ended => KeptRun::Ended,
            ToKeep::Whole(state_of_run) => {
                KeptRun::Whole(sealer(state, sealers, &key.agent, now)?.seal(&place(key), state_of_run)?)
            }
        };
        let (agent, run) = (key.agent.clone(), key.run.to_string());
        writes.push(RunWrite { agent, run, began: *began, used: *used, kept });
    }
    let marks: Vec<u64> = batch.marks.iter().map(|mark| mark.0).collect();
    Ok(state.keep_runs(&writes, &marks, now)?)
}

fn sealer(
    state: &State,
    sealers: &Mutex<HashMap<AgentName, Arc<Sealer>>>,
    agent: &AgentName,
    now: Timestamp,
) -> Result<Arc<Sealer>, KeepError> {
    let mut sealers = sealers.lock();
    if let Some(sealer) = sealers.get(agent) {
        return Ok(sealer.clone());
    }
    let (id, key) = state.data_key(&format!("agent:{agent}"), now)?;
    let sealer = Arc::new(Sealer::new(&key, id, clock::random()?)?);
    sealers.insert(agent.clone(), sealer.clone());
    Ok(sealer)
}

/// Binds a sealed run to its place: rows that were swapped do not open.
fn place(key: &Key) -> Vec<u8> {
    format!("run/{}/{}", key.agent, key.run).into_bytes()
}
