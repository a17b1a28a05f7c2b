//! Calls that wait at a legacy server for input that a modern client was asked for.
//!
//! The client gets a random, single-use state; the call stays open here. What comes back with the
//! state must be of the same agent, for the same server and request: state that went through a
//! client is an attacker's until shown otherwise (2026-07-28, Multi Round-Trip Requests).

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
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

/// Which server a task belongs to, per agent: a task id is only good for the agent that was given it.
#[derive(Default)]
pub(crate) struct TaskOwners {
    owners: Mutex<HashMap<u64, ServerName>>,
}

/// Tasks that are remembered; when there are more, all are forgotten and agents use `/mcp/{server}`.
const TASKS_MAX: usize = 65_536;

impl TaskOwners {
    pub(crate) fn put(&self, agent: &AgentName, task: &str, server: &ServerName) {
        let mut owners = self.owners.lock();
        if owners.len() >= TASKS_MAX {
            owners.clear();
        }
        owners.insert(Self::key(agent, task), server.clone());
    }

    pub(crate) fn get(&self, agent: &AgentName, task: &str) -> Option<ServerName> {
        self.owners.lock().get(&Self::key(agent, task)).cloned()
    }

    fn key(agent: &AgentName, task: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (agent, task).hash(&mut hasher);
        hasher.finish()
    }
}
