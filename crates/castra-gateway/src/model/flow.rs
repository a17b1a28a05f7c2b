//! What a request of a model tells the run that it belongs to, and which run that is.

use castra_core::{Refusal, RunId};
use castra_protocol::model::{Api, Brought, Request};

use super::{call::Caller, tools::Offered};
use crate::{
    record::Permit,
    run::{self, Told},
};

impl Caller {
    /// The run of a request that names none: the provider's own conversation, the run of the answer that it
    /// goes on from, else the one that its first words name, since all of it is sent each time.
    pub(super) fn conversation(&self, request: &Request<'_>, brought: &[Brought<'_>]) -> Option<RunId> {
        if matches!(request.api, Api::Embeddings | Api::CountTokens) {
            return None;
        }
        if let Some(earlier) = request.continues.as_deref() {
            return self.gate.runs.of_answer(&self.agent.name, earlier);
        }
        if let Some(conversation) = request.conversation.as_deref() {
            return run::chosen(conversation);
        }
        brought.iter().find_map(|brought| match brought {
            Brought::User(text) => run::of_conversation(text),
            Brought::Result(_) | Brought::Model => None,
        })
    }

    /// Tells the run what a permitted request brings, before anything comes of it.
    pub(super) async fn tell_run(
        &self,
        permit: &Permit,
        brought: &[Brought<'_>],
        offered: &Offered,
    ) -> Result<(), Refusal> {
        let Some((part, record)) = permit.part() else { return Ok(()) };
        if matches!(self.api, Api::Embeddings | Api::CountTokens) {
            return Ok(());
        }
        let told: Vec<Told<'_>> = brought
            .iter()
            .map(|brought| match brought {
                Brought::User(text) => Told::User(text),
                Brought::Model => Told::Model,
                Brought::Result(result) => Told::Result {
                    tool: result.tool.as_deref().map(|name| self.source(name, offered)),
                    arguments: result.arguments.as_deref().unwrap_or("{}"),
                    text: &result.text,
                    is_error: result.is_error,
                },
            })
            .collect();
        part.told(&self.gate, &told, record);
        part.settle().await
    }
}
