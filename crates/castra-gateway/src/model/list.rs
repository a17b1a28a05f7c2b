//! Lists of models: the routes that the agent may ask, and nothing of the others.

use std::sync::Arc;

use castra_core::{
    Effect, ModelName, Operation, PolicyMode, Refusal, RefusalCode, ResourceRef, Step, Timestamp,
};
use castra_identity::oauth;
use castra_protocol::model::{ModelEntry, models_entry, models_list};
use http::{Response, StatusCode};

use super::call::Caller;
use crate::answer::{self, AnswerBody};

/// All routes that the agent may ask.
pub(super) fn all(caller: &Arc<Caller>) -> Response<AnswerBody> {
    shown(caller, |caller| {
        let names = caller.gate.models.names();
        let mine: Vec<ModelName> = names.into_iter().filter(|name| caller.may_ask(name)).collect();
        let entries: Vec<_> = mine.iter().map(entry).collect();
        Ok(models_list(caller.api.protocol(), &entries))
    })
}

/// One of them. A route that the agent may not ask does not exist.
pub(super) fn one(caller: &Arc<Caller>, id: &str) -> Response<AnswerBody> {
    shown(caller, |caller| {
        let named = ModelName::new(id).ok();
        let route =
            named.filter(|name| caller.gate.models.route(name.as_str()).is_some() && caller.may_ask(name));
        match route {
            Some(name) => Ok(models_entry(caller.api.protocol(), &entry(&name))),
            None => Err(no_such_model(id)),
        }
    })
}

/// Answers within the number of calls that an agent may have in flight.
fn shown(
    caller: &Arc<Caller>,
    body: impl FnOnce(&Caller) -> Result<Vec<u8>, Refusal>,
) -> Response<AnswerBody> {
    let body = oauth::check_scope(&caller.agent, Operation::Complete)
        .and_then(|()| caller.gate.in_flight.enter(&caller.agent.name))
        .and_then(|_place| body(caller));
    match body {
        Ok(body) => answer::json(StatusCode::OK, body),
        Err(refusal) => caller.refuse(&refusal),
    }
}

fn entry(name: &ModelName) -> ModelEntry<'_> {
    // When a route was made is nobody's business, and the APIs want some time.
    ModelEntry { id: name.as_str(), created: Timestamp::from_secs(0) }
}

/// The refusal of a name that is no route here, as far as this agent is concerned.
pub(super) fn no_such_model(id: &str) -> Refusal {
    let shown: String = id.chars().take(120).collect();
    Refusal::new(Step::Understand, RefusalCode::NotFound, format!("there is no model {shown:?} here"))
        .advise("GET /v1/models lists the models that may be asked")
}

/// A path segment with its `%xx` undone; what is not such stands for itself.
pub(super) fn unescaped(segment: &str) -> String {
    let mut out = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let byte = after.get(..2).filter(|_| first == b'%').and_then(|hex| {
            let hex =
                std::str::from_utf8(hex).ok().filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
            u8::from_str_radix(hex, 16).ok()
        });
        out.push(byte.unwrap_or(first));
        rest = if byte.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Caller {
    /// Whether some circumstances could permit the agent to ask a model; in observe mode everybody may.
    fn may_ask(&self, name: &ModelName) -> bool {
        let resource = ResourceRef::Model(name.clone());
        self.gate.mode() == PolicyMode::Observe
            || self.gate.engine.load().may_use(
                &self.agent,
                Operation::Complete,
                &resource,
                Effect::Read,
                true,
                false,
            )
    }
}
