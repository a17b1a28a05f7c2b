//! Runs: what the gate has seen of each task of each agent, for as long as the task goes on.
//!
//! A run is known by its agent and its name, never by the name alone ([`name`]). It begins when the
//! name is first used, ends by time or when its session does, and is never reset: a name that is used
//! again after that is a run of which nothing is known ([`castra_flow::Run::lost`]). What is known is
//! kept ([`keep`]), so that a restart does not clear it. An action's part in its run is a [`Part`].
//!
//! An agent that reads in one run and acts in another would shed what it has read. So what strangers
//! wrote to an agent is remembered beside its runs ([`recent`]), and a run that begins without words of
//! a user begins with that.

mod keep;
mod name;
mod part;
mod recent;
mod said;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use castra_core::{AgentName, Coverage, Refusal, RefusalCode, RunId, Step, Timestamp};
use castra_flow::Run;
use castra_store::State;
use parking_lot::Mutex;

use self::{
    keep::{Found, Keeper, Kept},
    name::is_derived,
};
pub(crate) use self::{
    name::{chosen, named, of_conversation, trace_id},
    part::{Part, Source, Told, parsed},
    said::leaves,
};

/// Name under which an agent's traffic without a run is one run, where only tools are seen.
const UNNAMED: &str = " unnamed";

/// Name under which what strangers wrote to an agent is kept like a run.
const RECENT: &str = " recent";

/// How the gate follows runs.
#[derive(Debug, Clone)]
pub struct FlowSettings {
    /// Whether words of users are known, and from where.
    pub prompts: Prompts,
    /// A run that was not used for this long leaves the memory; it goes on when it is used again.
    pub idle_max: Duration,
    /// A run that began this long ago has ended.
    pub age_max: Duration,
    /// Runs in memory.
    pub runs_max: usize,
    /// Bytes that runs take in memory, about.
    pub bytes_max: usize,
}

impl Default for FlowSettings {
    fn default() -> Self {
        Self {
            prompts: Prompts::None,
            idle_max: Duration::from_secs(3600),
            age_max: Duration::from_secs(24 * 3600),
            runs_max: 16_384,
            bytes_max: 512 << 20,
        }
    }
}

impl FlowSettings {
    fn coverage(&self) -> Coverage {
        if self.prompts == Prompts::None { Coverage::Tools } else { Coverage::Full }
    }
}

/// Where the gate learns what users said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompts {
    /// From the model traffic that passes it.
    Model,
    /// Not at all.
    None,
}

/// All runs that are going on.
pub(crate) struct Runs {
    settings: ArcSwap<FlowSettings>,
    table: Mutex<HashMap<Key, Arc<Live>>>,
    /// Held while a run is looked up on the disk, so that it never lives twice.
    loading: tokio::sync::Mutex<()>,
    keeper: Keeper,
    /// Which run gave an answer that a later request may go on from.
    answers: Mutex<AnswerRuns>,
    clock: fn() -> Timestamp,
}

/// Answers that are remembered.
const ANSWERS_MAX: usize = 16_384;

/// Runs by the answers that they gave, and those in order.
#[derive(Default)]
struct AnswerRuns {
    runs: HashMap<(AgentName, Arc<str>), RunId>,
    order: VecDeque<(AgentName, Arc<str>)>,
}

/// Names one run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    agent: AgentName,
    run: Arc<str>,
}

impl Key {
    /// Whether it ends by time; what strangers wrote to an agent does not.
    fn ends(&self) -> bool {
        *self.run != *RECENT
    }
}

/// A run that is going on.
pub(crate) struct Live {
    /// None for one that ends with its only action.
    key: Option<Key>,
    began: Timestamp,
    used: AtomicI64,
    size: AtomicUsize,
    /// Number of the write that must be on the disk before anything learned since leaves the gate.
    written_by: AtomicU64,
    kept: Mutex<Kept>,
}

impl Live {
    fn new(key: Option<Key>, began: Timestamp, now: Timestamp, kept: Kept) -> Arc<Self> {
        let size = AtomicUsize::new(kept.size());
        let (used, written_by) = (AtomicI64::new(now.0), AtomicU64::new(0));
        Arc::new(Self { key, began, used, size, written_by, kept: Mutex::new(kept) })
    }
}

impl Runs {
    /// Begins with what an earlier process kept.
    pub(crate) fn new(state: Arc<State>, settings: FlowSettings, clock: fn() -> Timestamp) -> Self {
        Self {
            settings: ArcSwap::from_pointee(settings),
            table: Mutex::default(),
            loading: tokio::sync::Mutex::default(),
            keeper: Keeper::new(state),
            answers: Mutex::default(),
            clock,
        }
    }

    /// Remembers the run that gave an answer, for a request that goes on from it.
    pub(crate) fn gave(&self, agent: &AgentName, answer: &str, run: &RunId) {
        let key = (agent.clone(), Arc::from(answer));
        let mut answers = self.answers.lock();
        if answers.runs.insert(key.clone(), run.clone()).is_none() {
            answers.order.push_back(key);
        }
        if answers.order.len() > ANSWERS_MAX
            && let Some(oldest) = answers.order.pop_front()
        {
            answers.runs.remove(&oldest);
        }
    }

    /// The run that gave an answer to an agent. One that is forgotten has no name, so that nothing is known
    /// of it.
    pub(crate) fn of_answer(&self, agent: &AgentName, answer: &str) -> Option<RunId> {
        self.answers.lock().runs.get(&(agent.clone(), Arc::from(answer))).cloned()
    }

    /// Swaps the settings; runs that are going on keep the coverage that they began with.
    pub(crate) fn replace(&self, settings: FlowSettings) {
        self.settings.store(Arc::new(settings));
    }

    pub(crate) fn settings(&self) -> Arc<FlowSettings> {
        self.settings.load_full()
    }

    /// The run of an agent with this name, and what strangers wrote to the agent lately. `spoken`: a user
    /// of the run speaks in what is about to be told.
    pub(super) async fn of(
        &self,
        agent: &AgentName,
        run: Option<&RunId>,
        spoken: bool,
    ) -> Result<(Arc<Live>, Arc<Live>), Refusal> {
        let recent = Key { agent: agent.clone(), run: RECENT.into() };
        let known = |found: Found| match Kept::from(&found) {
            Some(kept) => kept,
            None if found == Found::Never => Kept::default(),
            None => Kept::lost(),
        };
        let recent = self.find(recent, known).await?;
        let now = (self.clock)();
        let Some(key) = self.key(agent, run) else {
            return Ok((Live::new(None, now, now, Kept::lost()), recent));
        };
        let begin = |found: Found| match Kept::from(&found) {
            Some(kept) => kept,
            // It has ended, or what was known of it is gone. Under a name that the agent chose it could be
            // used to shed what was read in it.
            None if found != Found::Never && !run.is_none_or(is_derived) => Kept::lost(),
            None => self.new_run(&recent, spoken),
        };
        Ok((self.find(key, begin).await?, recent))
    }

    /// A run in memory, or on the disk, or as `begin` makes it.
    async fn find(&self, key: Key, begin: impl FnOnce(Found) -> Kept) -> Result<Arc<Live>, Refusal> {
        let now = (self.clock)();
        if let Some(live) = self.known(&key, now) {
            return Ok(live);
        }
        let _one = self.loading.lock().await;
        if let Some(live) = self.known(&key, now) {
            return Ok(live);
        }
        let (began, found) =
            self.keeper.find(&key).await.map_err(|e| unkept(&e))?.unwrap_or((now, Found::Never));
        let (began, found) =
            if key.ends() && self.is_over(began, now) { (now, Found::Ended) } else { (began, found) };
        let live = Live::new(Some(key.clone()), began, now, begin(found));
        self.table.lock().insert(key, live.clone());
        self.make_room(now).await;
        Ok(live)
    }

    /// Traffic without a run is one run of its agent where only tools are seen; where prompts are, each
    /// piece of it is a run of which nothing is known.
    fn key(&self, agent: &AgentName, run: Option<&RunId>) -> Option<Key> {
        let run = match run {
            Some(run) => Arc::from(run.as_str()),
            None if self.settings.load().coverage() == Coverage::Tools => Arc::from(UNNAMED),
            None => return None,
        };
        Some(Key { agent: agent.clone(), run })
    }

    /// A run in memory that has not ended.
    fn known(&self, key: &Key, now: Timestamp) -> Option<Arc<Live>> {
        let mut table = self.table.lock();
        let live = table.get(key)?;
        if key.ends() && self.is_over(live.began, now) {
            let over = table.remove(key)?;
            self.keeper.ended(&over);
            return None;
        }
        live.used.store(now.0, Ordering::Relaxed);
        Some(live.clone())
    }

    fn is_over(&self, began: Timestamp, now: Timestamp) -> bool {
        let age = u64::try_from(now.0.saturating_sub(began.0)).unwrap_or(0);
        u128::from(age) > self.settings.load().age_max.as_micros()
    }

    fn new_run(&self, recent: &Live, spoken: bool) -> Kept {
        let coverage = self.settings.load().coverage();
        let mut run = Run::new(coverage);
        if !(spoken && coverage == Coverage::Full) {
            recent.kept.lock().pour(&mut run);
        }
        Kept::new(run)
    }

    /// Ends a run: its name does not lead to what is known of it any more.
    pub(crate) fn end(&self, agent: &AgentName, run: &RunId) {
        let Some(key) = self.key(agent, Some(run)) else { return };
        let over = self.table.lock().remove(&key);
        if let Some(over) = over {
            self.keeper.ended(&over);
        }
    }

    /// Lets runs out of memory until there is room: first those that were not used for the longest.
    /// What is known of them is kept first.
    async fn make_room(&self, now: Timestamp) {
        let settings = self.settings.load_full();
        let mut by_use: Vec<(i64, usize, Key)> = {
            let table = self.table.lock();
            if table.len() <= settings.runs_max && bytes(&table) <= settings.bytes_max {
                return;
            }
            let entry = |(key, live): (&Key, &Arc<Live>)| {
                (live.used.load(Ordering::Relaxed), live.size.load(Ordering::Relaxed), key.clone())
            };
            table.iter().map(entry).collect()
        };
        by_use.sort_by_key(|(used, ..)| *used);
        // A tenth more, so that this is not done again for the next run.
        let (runs_max, bytes_max) = (settings.runs_max * 9 / 10, settings.bytes_max / 10 * 9);
        let mut bytes_now: usize = by_use.iter().map(|(_, size, _)| size).sum();
        let mut count = by_use.len();
        let mut out = Vec::new();
        for (_, size, key) in by_use {
            if count <= runs_max && bytes_now <= bytes_max {
                break;
            }
            count -= 1;
            bytes_now -= size;
            out.push(key);
        }
        self.let_go(&out, now).await;
    }

    /// Keeps these runs and lets them out of memory, except those that somebody uses.
    async fn let_go(&self, keys: &[Key], now: Timestamp) {
        let lives: Vec<Arc<Live>> = {
            let table = self.table.lock();
            keys.iter().filter_map(|key| table.get(key).cloned()).collect()
        };
        if let Err(error) = self.keeper.keep_all(&lives, now).await {
            tracing::error!(%error, "runs could not be kept, so they stay in memory");
            return;
        }
        drop(lives);
        let mut table = self.table.lock();
        for key in keys {
            // One that is used again since is not clean, or somebody holds it.
            if table.get(key).is_some_and(|live| Arc::strong_count(live) == 1 && !live.kept.lock().dirty) {
                table.remove(key);
            }
        }
    }

    /// Keeps what has been quiet for a moment, and lets go what was not used for long.
    pub(crate) async fn tidy(&self) {
        let now = (self.clock)();
        let idle = self.settings.load().idle_max.as_micros();
        let (due, old) = {
            let table = self.table.lock();
            let mut due: Vec<Arc<Live>> = Vec::new();
            let mut old = Vec::new();
            for (key, live) in table.iter() {
                let unused = u128::try_from(now.0.saturating_sub(live.used.load(Ordering::Relaxed)));
                if unused.is_ok_and(|unused| unused > idle) {
                    old.push(key.clone());
                } else if live.kept.lock().is_due(now) {
                    due.push(live.clone());
                }
            }
            (due, old)
        };
        if let Err(error) = self.keeper.keep_all(&due, now).await {
            tracing::error!(%error, "runs could not be kept; they are tried again");
        }
        drop(due);
        if !old.is_empty() {
            self.let_go(&old, now).await;
        }
    }

    /// Keeps all that is known, before the gate ends.
    pub(crate) async fn keep_everything(&self) {
        let lives: Vec<Arc<Live>> = self.table.lock().values().cloned().collect();
        if let Err(error) = self.keeper.keep_all(&lives, (self.clock)()).await {
            tracing::error!(%error, "runs could not be kept; after a restart they count as lost");
        }
    }
}

fn bytes(table: &HashMap<Key, Arc<Live>>) -> usize {
    table.values().map(|live| live.size.load(Ordering::Relaxed)).sum()
}

fn unkept(error: &dyn std::fmt::Display) -> Refusal {
    tracing::error!(%error, "what is known of a run cannot be read or kept");
    Refusal::new(
        Step::Record,
        RefusalCode::Unrecorded,
        "what is known of the run cannot be kept, so nothing may happen in it",
    )
    .advise("Ask the operator to look at the gate's log and disk (castra doctor)")
}
