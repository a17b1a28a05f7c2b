//! Model APIs, on the gate's side of the wire.
//!
//! A request comes in as bytes ([`serve`]), becomes an action and takes the path (`call`), is carried
//! to a provider (`exchange`), and its answer comes back as a whole (`whole`) or as a stream
//! (`stream`). What a model says on the way is inspected, and each tool that it wants called is an
//! action of its own (`tools`). Nothing here decides or records: that is `path`.
//!
//! `routes` says which version of a model is asked and `attempts` who stands in for it; `version` and
//! `provider` are what is asked.

mod attempts;
mod breaker;
mod call;
mod continued;
mod exchange;
mod flow;
mod health;
mod list;
mod provider;
mod routes;
mod stream;
mod tools;
mod version;
mod watch;
mod whole;

pub use attempts::{Afterwards, Answered, AskError, Attempts};
pub use breaker::{Breaker, BreakerSettings, BreakerState, Resting, Ticket};
pub use provider::{FailureKind, ProviderAnswer, ProviderBody, ProviderError, Wire, list_models};
pub use routes::{Asker, ModelParts, Route, RouteError, RouteSettings, Routes, initial_shares};
pub use version::{Key, OpenAiForm, Provider, Version, VersionFacts, VersionParts};

use std::sync::Arc;

use castra_core::{AgentIdentity, Refusal, RefusalCode, Step};
use castra_net::body::{self, BodyError};
use castra_protocol::model::{Api, RefusalNotes, refusal_answer};
use http::{HeaderMap, Method, Response, StatusCode, request::Parts};
use hyper::body::Incoming;

use self::call::Caller;
use crate::{
    answer::{self, AnswerBody, RECEIPT},
    listen::{Connection, is_json},
};

/// The endpoint that credentials are for: one for all model APIs.
pub(crate) const ENDPOINT: &str = "/v1";

/// What there is below [`ENDPOINT`], for whoever asks for something else.
pub(crate) const PLACES: &str = "Models are asked at /v1/chat/completions, /v1/responses, /v1/embeddings, \
     /v1/messages and /v1/messages/count_tokens; /v1/models lists them";

/// The answer header that names the route and the version that answered.
const MODEL: &str = "castra-model";
/// The answer header that says how the answer is inspected.
const INSPECTION: &str = "castra-inspection";
/// The answer header that names fields which the provider's form does not carry.
const SET_ASIDE: &str = "castra-set-aside";

/// What a path below [`ENDPOINT`] is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    what: What,
    /// In whose form errors are told.
    api: Api,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Ask,
    List,
    Describe(String),
    Nothing,
}

impl Place {
    /// The place at a path, if it is below [`ENDPOINT`]. OpenAI's and Anthropic's APIs share some; the
    /// latter's clients always say which version they speak.
    pub(crate) fn of(path: &str, headers: &HeaderMap) -> Option<Self> {
        let rest = path.strip_prefix(ENDPOINT)?;
        let rest = match rest.strip_prefix('/') {
            Some(rest) => rest,
            None if rest.is_empty() => "",
            None => return None,
        };
        let shared = if headers.contains_key("anthropic-version") { Api::Messages } else { Api::Chat };
        let (what, api) = match rest {
            "chat/completions" => (What::Ask, Api::Chat),
            "responses" => (What::Ask, Api::Responses),
            "embeddings" => (What::Ask, Api::Embeddings),
            "messages" => (What::Ask, Api::Messages),
            "messages/count_tokens" => (What::Ask, Api::CountTokens),
            "models" => (What::List, shared),
            _ => match rest.strip_prefix("models/") {
                Some(id) if !id.is_empty() => (What::Describe(list::unescaped(id)), shared),
                _ if rest.starts_with("messages/") => (What::Nothing, Api::Messages),
                _ => (What::Nothing, shared),
            },
        };
        Some(Self { what, api })
    }

    /// The API in whose form errors are told here.
    pub(crate) fn api(&self) -> Api {
        self.api
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.what == What::Nothing
    }

    fn method(&self) -> Method {
        if self.what == What::Ask { Method::POST } else { Method::GET }
    }
}

/// Answers one HTTP request of an identified agent.
pub(crate) async fn serve(
    connection: &Connection,
    agent: Arc<AgentIdentity>,
    place: Place,
    head: Parts,
    body: Incoming,
) -> Response<AnswerBody> {
    let caller = Arc::new(Caller {
        gate: connection.gate().clone(),
        agent,
        source: connection.peer().address.ip(),
        api: place.api,
        headers: head.headers,
    });
    if head.method != place.method() {
        let reason = format!("{} is not a method of this endpoint", head.method);
        let refusal = Refusal::new(Step::Listen, RefusalCode::NotAllowedHere, reason);
        let response = caller.refuse_http(StatusCode::METHOD_NOT_ALLOWED, &refusal);
        return answer::with_header(response, "allow", place.method().as_str());
    }
    match place.what {
        What::Ask => caller.post(body).await,
        What::List => list::all(&caller),
        What::Describe(id) => list::one(&caller, &id),
        What::Nothing => answer::empty(StatusCode::NOT_FOUND),
    }
}

impl Caller {
    async fn post(self: &Arc<Self>, body: Incoming) -> Response<AnswerBody> {
        if !is_json(&self.headers) {
            let reason = "the body is not declared as JSON";
            let refusal = Refusal::new(Step::Listen, RefusalCode::NotAllowedHere, reason)
                .advise("Send Content-Type: application/json");
            return self.refuse_http(StatusCode::UNSUPPORTED_MEDIA_TYPE, &refusal);
        }
        let limits = &self.gate.limits;
        match body::read(body, limits.body_bytes_max, limits.body_time_max).await {
            Ok(bytes) => self.answer(bytes).await,
            Err(error) => self.refuse_body(&error),
        }
    }

    fn refuse_body(&self, error: &BodyError) -> Response<AnswerBody> {
        let (status, refusal) = answer::body_refusal(error);
        self.refuse_http(status, &refusal)
    }

    /// Refuses before there is a message.
    fn refuse_http(&self, status: StatusCode, refusal: &Refusal) -> Response<AnswerBody> {
        self.gate.recorder.refusal(refusal, Some(&self.agent.name), self.source);
        refused_as(self.api, status, refusal)
    }
}

/// A refusal in an API's own form, under a status of HTTP's.
pub(crate) fn refused_as(api: Api, status: StatusCode, refusal: &Refusal) -> Response<AnswerBody> {
    let mut response = refused(api, refusal, &RefusalNotes::default());
    *response.status_mut() = status;
    response
}

/// A refusal in an API's own form.
fn refused(api: Api, refusal: &Refusal, notes: &RefusalNotes<'_>) -> Response<AnswerBody> {
    let told = refusal_answer(api.protocol(), refusal, notes);
    let status = StatusCode::from_u16(told.status).unwrap_or(StatusCode::BAD_REQUEST);
    let response = answer::retry_header(answer::json(status, told.body), refusal);
    match notes.receipt {
        Some(receipt) => answer::with_header(response, RECEIPT, receipt),
        None => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_whose_errors_they_speak() {
        let openai = HeaderMap::new();
        let mut anthropic = HeaderMap::new();
        anthropic.insert("anthropic-version", "2023-06-01".parse().unwrap());
        let of = |path: &str, headers: &HeaderMap| Place::of(path, headers).map(|p| (p.what, p.api));
        for (path, headers, expected) in [
            ("/v1/chat/completions", &openai, Some((What::Ask, Api::Chat))),
            ("/v1/messages", &openai, Some((What::Ask, Api::Messages))),
            ("/v1/models", &openai, Some((What::List, Api::Chat))),
            ("/v1/models", &anthropic, Some((What::List, Api::Messages))),
            ("/v1/models/a%2Fb", &openai, Some((What::Describe("a/b".into()), Api::Chat))),
            ("/v1/models/a/b", &anthropic, Some((What::Describe("a/b".into()), Api::Messages))),
            ("/v1/models/", &openai, Some((What::Nothing, Api::Chat))),
            ("/v1/messages/batches", &openai, Some((What::Nothing, Api::Messages))),
            ("/v1", &anthropic, Some((What::Nothing, Api::Messages))),
            ("/v1beta/models", &openai, None),
            ("/v2/chat/completions", &openai, None),
        ] {
            assert_eq!(of(path, headers), expected, "{path}");
        }
    }
}
