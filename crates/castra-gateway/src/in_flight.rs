//! Calls in flight, in all and per agent: the limit that keeps one agent from starving the others,
//! and what a shutdown waits for.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use castra_core::{AgentName, Refusal, RefusalCode, Step};
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Counts what is in flight.
pub(crate) struct InFlight {
    per_agent: RwLock<HashMap<AgentName, Arc<AtomicUsize>>>,
    per_agent_max: usize,
    all: AtomicUsize,
    closed: AtomicBool,
    /// Cancelled when `closed` is set, for what has no end of its own.
    closing: CancellationToken,
    done: Notify,
    metrics: Arc<Metrics>,
}

/// A place among the calls in flight; given back when dropped.
pub(crate) struct Slot {
    agent: Arc<AtomicUsize>,
    in_flight: Arc<InFlight>,
}

impl InFlight {
    pub(crate) fn new(per_agent_max: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            per_agent: RwLock::default(),
            per_agent_max,
            all: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            closing: CancellationToken::new(),
            done: Notify::new(),
            metrics,
        })
    }

    /// Takes a place, or says why there is none.
    pub(crate) fn enter(self: &Arc<Self>, agent: &AgentName) -> Result<Slot, Refusal> {
        let count = self.count_of(agent);
        // Counted first and looked at afterwards, so that two callers cannot both take the last place.
        let before = count.fetch_add(1, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::SeqCst);
        self.metrics.in_flight.add(1);
        let slot = Slot { agent: count, in_flight: self.clone() };
        if self.closed.load(Ordering::SeqCst) {
            return Err(Refusal::new(Step::Listen, RefusalCode::ShuttingDown, "the gate is shutting down")
                .advise("Try again when it is back"));
        }
        if before >= self.per_agent_max {
            let reason =
                format!("agent {agent} has {} calls in flight, which is its limit", self.per_agent_max);
            return Err(Refusal::new(Step::Listen, RefusalCode::Busy, reason)
                .advise("Wait for one of them to end, or raise limits.calls_per_agent_max"));
        }
        Ok(slot)
    }

    fn count_of(&self, agent: &AgentName) -> Arc<AtomicUsize> {
        if let Some(count) = self.per_agent.read().get(agent) {
            return count.clone();
        }
        self.per_agent.write().entry(agent.clone()).or_default().clone()
    }

    /// From now on nobody enters.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.closing.cancel();
    }

    /// Is cancelled when nobody enters any more; what would go on for ever should end then.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    pub(crate) fn closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(crate) fn count(&self) -> usize {
        self.all.load(Ordering::SeqCst)
    }

    /// Returns when nothing is in flight.
    pub(crate) async fn all_done(&self) {
        loop {
            let done = self.done.notified();
            if self.count() == 0 {
                return;
            }
            done.await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.agent.fetch_sub(1, Ordering::Relaxed);
        self.in_flight.metrics.in_flight.sub(1);
        if self.in_flight.all.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.in_flight.done.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_holds_per_agent_and_closing_waits() {
        let in_flight = InFlight::new(2, Arc::new(Metrics::new("test")));
        let (a, b) = (AgentName::new("a").unwrap(), AgentName::new("b").unwrap());
        let one = in_flight.enter(&a).unwrap();
        let two = in_flight.enter(&a).unwrap();
        assert_eq!(in_flight.enter(&a).err().unwrap().code, RefusalCode::Busy);
        let three = in_flight.enter(&b).unwrap();
        drop(one);
        assert!(in_flight.enter(&a).is_ok());
        in_flight.close();
        assert_eq!(in_flight.enter(&b).err().unwrap().code, RefusalCode::ShuttingDown);
        assert_eq!(in_flight.count(), 2);
        let waiting = tokio::spawn({
            let in_flight = in_flight.clone();
            async move { in_flight.all_done().await }
        });
        drop((two, three));
        waiting.await.unwrap();
    }
}
