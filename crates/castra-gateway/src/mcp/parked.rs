//! Calls that wait at a legacy server for input that a modern client was asked for.
//!
//! The client gets a random, single-use state; the call stays open here. What comes back with the
//! state must be of the same agent, for the same server and request: state that went through a
//! client is an attacker's until shown otherwise (2026-07-28, Multi Round-Trip Requests).

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use castra_core::{AgentName, Limits, Refusal, RefusalCode, ServerName, Step};
use castra_protocol::mcp::Request;
use castra_store::clock;
use parking_lot::Mutex;

use super::channel::Channel;
use crate::{metrics::Metrics, upstream::EventStream};

/// A call that waits.
pub(crate) struct Parked {
    pub(crate) agent: AgentName,
    pub(crate) key: Key,
    /// The server's questions, as it asked them.
    pub(crate) questions: Vec<Bytes>,
    pub(crate) channel: Channel,
    pub(crate) events: EventStream,
}

/// What a retry must agree with: the server, and the request without what a retry adds.
#[derive(PartialEq, Eq, Clone, Debug)]
pub(crate) struct Key {
    server: ServerName,
    request: String,
}

/// The key of a request.
pub(crate) fn key_of(request: &Request<'_>, server: &ServerName) -> Key {
    let target = request.target.as_ref().map(|t| &*t.text).unwrap_or_default();
    let arguments = request.arguments.map(|span| request.slice(span)).unwrap_or_default();
    Key { server: server.clone(), request: format!("{} {target} {arguments}", request.method) }
}

/// All calls that wait.
pub(crate) struct ParkedCalls {
    calls: Mutex<HashMap<String, (Parked, Instant)>>,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
}

impl ParkedCalls {
    pub(crate) fn new(limits: Arc<Limits>, metrics: Arc<Metrics>) -> Self {
        Self { calls: Mutex::default(), limits, metrics }
    }

    /// Keeps a call; the state names it.
    pub(crate) fn put(&self, parked: Parked) -> Result<String, Refusal> {
        let random =
            clock::random::<16>().map_err(|e| Refusal::new(Step::Act, RefusalCode::Busy, e.to_string()))?;
        let state = format!("castra-{:032x}", u128::from_be_bytes(random));
        let mut calls = self.calls.lock();
        let of_agent = calls.values().filter(|(p, _)| p.agent == parked.agent).count();
        if of_agent >= self.limits.parked_per_agent_max {
            let reason =
                format!("agent {} has {of_agent} calls waiting for input, which is its limit", parked.agent);
            return Err(Refusal::new(Step::Act, RefusalCode::Busy, reason)
                .advise("Answer one of them, or let it lapse"));
        }
        calls.insert(state.clone(), (parked, Instant::now()));
        self.metrics.parked.add(1);
        Ok(state)
    }

    /// Gives a call back, once, to whom it belongs.
    pub(crate) fn take(&self, state: &str, agent: &AgentName, key: &Key) -> Option<Parked> {
        self.drop_late();
        let mut calls = self.calls.lock();
        let (parked, _) = calls.get(state)?;
        if parked.agent != *agent || parked.key != *key {
            return None;
        }
        let (parked, _) = calls.remove(state)?;
        self.metrics.parked.sub(1);
        Some(parked)
    }

    /// Lets those lapse that waited too long; dropping one cancels it at its server.
    pub(crate) fn drop_late(&self) {
        self.retain(|_, since| since.elapsed() < self.limits.parked_time_max);
    }

    pub(crate) fn drop_of(&self, agent: &AgentName) {
        self.retain(|parked, _| parked.agent != *agent);
    }

    pub(crate) fn drop_all(&self) {
        self.retain(|_, _| false);
    }

    fn retain(&self, keep: impl Fn(&Parked, &Instant) -> bool) {
        let mut calls = self.calls.lock();
        let before = calls.len();
        calls.retain(|_, (parked, since)| keep(parked, since));
        self.metrics.parked.sub((before - calls.len()) as i64);
    }
}

/// Whose a task is: its id is only good for the agent that was given it, at the server that gave it.
#[derive(Default)]
pub(crate) struct TaskOwners {
    owners: Mutex<HashMap<AgentName, Tasks>>,
}

/// Tasks of one agent that are remembered; one more, and the oldest is forgotten. Counted for each
/// agent, so that none can make the gate forget another's.
const TASKS_MAX: usize = 4096;

/// Longest id of a task that is remembered; servers make them, usually as UUIDs.
const TASK_ID_BYTES_MAX: usize = 1024;

/// The tasks of one agent.
#[derive(Default)]
struct Tasks {
    known: HashSet<Task>,
    /// The same, oldest first.
    order: VecDeque<Task>,
}

type Task = Arc<(ServerName, Box<str>)>;

impl TaskOwners {
    pub(crate) fn put(&self, agent: &AgentName, task: &str, server: &ServerName) {
        if task.len() > TASK_ID_BYTES_MAX {
            tracing::warn!(%agent, %server, bytes = task.len(), "a task has too long an id to be remembered");
            return;
        }
        let task = Task::new((server.clone(), task.into()));
        let mut owners = self.owners.lock();
        let tasks = owners.entry(agent.clone()).or_default();
        if !tasks.known.insert(task.clone()) {
            return;
        }
        tasks.order.push_back(task);
        if tasks.order.len() > TASKS_MAX
            && let Some(oldest) = tasks.order.pop_front()
        {
            tasks.known.remove(&oldest);
        }
    }

    /// Whether a server made a task for an agent.
    pub(crate) fn owns(&self, agent: &AgentName, task: &str, server: &ServerName) -> bool {
        let task = (server.clone(), Box::from(task));
        self.owners.lock().get(agent).is_some_and(|tasks| tasks.known.contains(&task))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_good_for_its_agent_and_server_and_the_oldest_is_forgotten_first() {
        let owners = TaskOwners::default();
        let (alice, carol) = (AgentName::new("alice").unwrap(), AgentName::new("carol").unwrap());
        let (jobs, other) = (ServerName::new("jobs").unwrap(), ServerName::new("other").unwrap());
        owners.put(&alice, "one", &jobs);
        owners.put(&carol, "one", &other);
        assert!(owners.owns(&alice, "one", &jobs) && owners.owns(&carol, "one", &other));
        assert!(!owners.owns(&carol, "one", &jobs) && !owners.owns(&alice, "one", &other));
        for n in 0..TASKS_MAX {
            owners.put(&carol, &format!("task-{n}"), &jobs);
        }
        assert!(!owners.owns(&carol, "one", &other), "the oldest is still there");
        assert!(owners.owns(&carol, "task-0", &jobs) && owners.owns(&alice, "one", &jobs));
        let long = "x".repeat(TASK_ID_BYTES_MAX + 1);
        owners.put(&alice, &long, &jobs);
        assert!(!owners.owns(&alice, &long, &jobs));
    }
}
