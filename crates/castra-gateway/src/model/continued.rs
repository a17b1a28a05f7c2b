//! Which version gave which answer to whom, for conversations that a provider keeps: a request that
//! goes on from an answer (`previous_response_id`) has to go where that answer came from, and only
//! the agent that got it may go on from it.

use std::{collections::HashMap, sync::Arc};

use castra_core::{AgentName, ModelName};
use parking_lot::Mutex;

/// Answers that are remembered at least; up to twice as many may be. About 200 bytes each.
const ANSWERS_MIN: usize = 16_384;
/// Longer ids are not remembered; those of providers have some 60 characters.
const ID_BYTES_MAX: usize = 256;

/// Where an answer came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) agent: AgentName,
    pub(super) route: ModelName,
    pub(super) version: Arc<str>,
}

/// The newest answers in two halves: when the young half is full, the old one is forgotten.
#[derive(Debug, Default)]
pub(super) struct Continued(Mutex<Halves>);

#[derive(Debug, Default)]
struct Halves {
    young: HashMap<Box<str>, Origin>,
    old: HashMap<Box<str>, Origin>,
}

impl Continued {
    pub(super) fn remember(&self, answer: &str, agent: &AgentName, route: &ModelName, version: &str) {
        if answer.len() > ID_BYTES_MAX {
            return;
        }
        let origin = Origin { agent: agent.clone(), route: route.clone(), version: version.into() };
        let mut halves = self.0.lock();
        if halves.young.len() >= ANSWERS_MIN {
            halves.old = std::mem::take(&mut halves.young);
        }
        halves.young.insert(answer.into(), origin);
    }

    pub(super) fn find(&self, answer: &str) -> Option<Origin> {
        let halves = self.0.lock();
        halves.young.get(answer).or_else(|| halves.old.get(answer)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_the_newest_and_stays_small() {
        let (agent, route) = (AgentName::new("a").unwrap(), ModelName::new("m").unwrap());
        let continued = Continued::default();
        for n in 0..3 * ANSWERS_MIN {
            continued.remember(&format!("resp_{n}"), &agent, &route, "v1");
        }
        continued.remember(&"x".repeat(ID_BYTES_MAX + 1), &agent, &route, "v1");
        let newest = continued.find(&format!("resp_{}", 3 * ANSWERS_MIN - 1)).unwrap();
        assert_eq!((&newest.agent, &*newest.version), (&agent, "v1"));
        assert!(continued.find(&format!("resp_{}", 2 * ANSWERS_MIN)).is_some());
        assert!(continued.find("resp_0").is_none());
        assert!(continued.find(&"x".repeat(ID_BYTES_MAX + 1)).is_none());
        let halves = continued.0.lock();
        assert!(halves.young.len() + halves.old.len() <= 2 * ANSWERS_MIN);
    }
}
