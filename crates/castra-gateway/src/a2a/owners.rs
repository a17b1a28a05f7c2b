//! Whose a task or a conversation is. A peer sees one caller, the gate; that an agent reaches only what
//! was made for it is the gate's to keep.

use std::{collections::HashMap, sync::Arc};

use castra_core::{AgentName, PeerName, Refusal, RefusalCode, Step, Timestamp};
use castra_store::{PeerThing, State};
use parking_lot::Mutex;

/// Owners that are remembered beside the database; when it is full it starts anew.
const KNOWN_MAX: usize = 16_384;

type Thing = (PeerName, PeerThing, Box<str>);

/// Tasks and conversations with their agents; the database knows all of them.
pub(crate) struct Owners {
    state: Arc<State>,
    known: Mutex<HashMap<Thing, AgentName>>,
}

impl Owners {
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self { state, known: Mutex::default() }
    }

    /// Whose it is, if anybody's.
    pub(crate) async fn of(
        &self,
        peer: &PeerName,
        thing: PeerThing,
        id: &str,
    ) -> Result<Option<AgentName>, Refusal> {
        let key: Thing = (peer.clone(), thing, id.into());
        if let Some(owner) = self.known.lock().get(&key) {
            return Ok(Some(owner.clone()));
        }
        let (state, asked) = (self.state.clone(), key.clone());
        let owner = blocking(move || state.owner(&asked.0, asked.1, &asked.2)).await?;
        if let Some(owner) = &owner {
            self.remember(key, owner);
        }
        Ok(owner)
    }

    /// Gives it to the agent if it is nobody's; says whose it is.
    pub(crate) async fn claim(
        &self,
        peer: &PeerName,
        thing: PeerThing,
        id: &str,
        agent: &AgentName,
        now: Timestamp,
    ) -> Result<AgentName, Refusal> {
        let key: Thing = (peer.clone(), thing, id.into());
        if let Some(owner) = self.known.lock().get(&key) {
            return Ok(owner.clone());
        }
        let (state, asked, agent) = (self.state.clone(), key.clone(), agent.clone());
        let owner = blocking(move || state.claim(&asked.0, asked.1, &asked.2, &agent, now)).await?;
        self.remember(key, &owner);
        Ok(owner)
    }

    fn remember(&self, key: Thing, owner: &AgentName) {
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(key, owner.clone());
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, castra_store::StoreError> + Send + 'static,
) -> Result<T, Refusal> {
    let failed = |why: String| {
        tracing::error!(why, "whose a task is cannot be looked up");
        Refusal::new(Step::Understand, RefusalCode::Undecided, "whose the task is could not be looked up")
            .advise("Ask the operator to look at the gate's state (castra doctor)")
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}
