//! A client of the modern era in front of a server of the legacy era.

use std::borrow::Cow;

use castra_core::{Refusal, RefusalCode, Step};

use super::{
    BridgeFault, CANCELLED, ClientFacts, QUESTIONS_MAX, ServerFacts, SubscriptionFilter, changed, object,
};
use crate::{
    edit::Edit,
    json::{self, Kind, Scanner, quote},
    mcp::{
        Era, ErrorView, Handshake, Id, InputKind, ListKind, LogLevel, MethodKind, Notification,
        NotificationKind, Outcome, Request, Response, Revision, Splice, classify, code, error_response,
        exists_in, lists, meta_key, result_response,
    },
};

/// What to do with a request of a modern client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModernStep {
    /// Send this request to the server.
    Forward(Vec<u8>),
    /// Answer with [`ServerFacts::discover_result`].
    Discover,
    /// Open a stream, acknowledge it, and send what the server announces.
    Listen(SubscriptionFilter),
    /// Go on with the call that waits under this state: give the server these answers.
    Retry {
        /// The state, as it came back from the client.
        request_state: String,
        /// The client's results by key, each the raw JSON of an object.
        responses: Vec<(String, String)>,
    },
    /// It cannot be translated.
    Refuse(Refusal),
}

/// Translates a request of a modern client for a server that speaks `revision`.
pub fn modern_to_legacy(request: &Request<'_>, server: &ServerFacts, revision: Revision) -> ModernStep {
    let refuse = |code, reason: String| ModernStep::Refuse(Refusal::new(Step::Understand, code, reason));
    match request.kind() {
        MethodKind::Handshake(Handshake::Discover) => return ModernStep::Discover,
        MethodKind::Subscription => {
            return match SubscriptionFilter::from_request(request) {
                Ok(filter) => ModernStep::Listen(filter.restricted_to(server)),
                Err(fault) => refuse(RefusalCode::Malformed, fault.to_string()),
            };
        }
        _ if request.method.starts_with("tasks/") => {
            let reason = format!(
                "{} of {} has no counterpart at a server of {}, where tasks work in another way",
                request.method,
                Revision::LATEST.as_str(),
                revision.as_str()
            );
            return refuse(RefusalCode::NotFound, reason);
        }
        kind if kind != MethodKind::Unknown && !exists_in(&request.method, Era::Modern) => {
            let reason = format!("{} is not a method of {}", request.method, Revision::LATEST.as_str());
            return refuse(RefusalCode::NotFound, reason);
        }
        _ => {}
    }
    match (&request.request_state, responses(request)) {
        (_, Err(fault)) => refuse(RefusalCode::Malformed, fault.to_string()),
        (Some(state), Ok(responses)) => ModernStep::Retry { request_state: state.to_string(), responses },
        // Answers without a state belong to no call that waits: what the legacy server asked for with
        // -32042 was done elsewhere, and the call starts afresh.
        (None, Ok(_)) => {
            let mut splice = Splice::request(request).remove("inputResponses").remove("task");
            for key in [
                meta_key::PROTOCOL_VERSION,
                meta_key::CLIENT_INFO,
                meta_key::CLIENT_CAPABILITIES,
                meta_key::LOG_LEVEL,
            ] {
                splice = splice.remove_meta(key);
            }
            ModernStep::Forward(splice.finish().into_owned())
        }
    }
}

fn responses(request: &Request<'_>) -> Result<Vec<(String, String)>, BridgeFault> {
    let mut all = Vec::new();
    let Some(span) = request.input_responses else { return Ok(all) };
    Scanner::at(request.text, span).members(|s, key| {
        let value = s.skip()?;
        if value.kind != Kind::Object {
            return Err(BridgeFault::Field { field: "params.inputResponses.*", want: "an object" });
        }
        if all.len() == QUESTIONS_MAX {
            return Err(BridgeFault::TooMany { max: QUESTIONS_MAX });
        }
        all.push((key.decode().into_owned(), value.span.of(request.text).to_string()));
        Ok(())
    })?;
    Ok(all)
}

/// Translates a legacy server's answer to a request with this method of this client.
pub fn legacy_answer_to_modern(
    response: &Response<'_>,
    method: &str,
    server: &ServerFacts,
    client: &ClientFacts,
) -> Vec<u8> {
    let result = match &response.outcome {
        Outcome::Error(error) => return error_to_modern(response, error, server, client),
        Outcome::Result(result) => result,
    };
    // Set, not added where missing: a legacy server has no say in what these mean.
    let mut splice = Splice::response(response).set("resultType", "\"complete\"");
    let cacheable = matches!(classify(method), MethodKind::List(_)) || method == "resources/read";
    if cacheable {
        splice = splice.set("ttlMs", "0").set("cacheScope", "\"private\"");
    }
    if let Some(info) = &server.info {
        splice = splice.set_meta(meta_key::SERVER_INFO, info);
    }
    if method == "tools/list" {
        splice =
            splice.edits(without_task_tools(response.text, result.span.start, result.span.of(response.text)));
    }
    splice.finish().into_owned()
}

/// A tool that only runs as a task (2025-11-25, `execution.taskSupport`) cannot be called across the
/// eras, so it is not shown.
fn without_task_tools(text: &str, offset: usize, result: &str) -> Vec<Edit> {
    if !text.contains("\"taskSupport\"") {
        return Vec::new();
    }
    match lists::read(ListKind::Tools, result) {
        Ok(page) => page.cuts(offset, |item| item.task != lists::TaskSupport::Required),
        Err(_) => Vec::new(),
    }
}

fn error_to_modern(
    response: &Response<'_>,
    error: &ErrorView<'_>,
    server: &ServerFacts,
    client: &ClientFacts,
) -> Vec<u8> {
    let code = match error.code {
        code::LEGACY_RESOURCE_NOT_FOUND => code::INVALID_PARAMS,
        code::LEGACY_URL_ELICITATION => {
            return visit_first(response, error, server, client).unwrap_or_else(|| {
                let needed = "{\"requiredCapabilities\":{\"elicitation\":{\"url\":{}}}}";
                error_response(response.id, code::MISSING_CAPABILITY, &error.message, Some(needed))
            });
        }
        // Only the specification may give these out, and the legacy era gave out none of them.
        code if code::RESERVED.contains(&code) => code::INTERNAL_ERROR,
        code => code,
    };
    let splice = Splice::response(response).replace_value(error.code_span, &code.to_string());
    splice.finish().into_owned()
}

/// `-32042` of 2025-11-25: a person must visit URLs before the request can be sent again. In the modern
/// era that is a result that asks for it. None if the client cannot open URLs or the error lists none.
fn visit_first(
    response: &Response<'_>,
    error: &ErrorView<'_>,
    server: &ServerFacts,
    client: &ClientFacts,
) -> Option<Vec<u8>> {
    let list = json::get(error.data?.of(response.text), &["elicitations"])?;
    let mut asked = Vec::new();
    Scanner::of(list, json::DEPTH_CEILING)
        .elements(|s| {
            let value = s.skip()?;
            let params = value.span.of(list);
            let good = value.kind == Kind::Object && client.declares_for(InputKind::Elicit, params);
            if good && super::is_url_mode(params) {
                asked.push((format!("visit-{}", asked.len()), question(InputKind::Elicit, Some(params))));
            }
            Ok::<_, BridgeFault>(())
        })
        .ok()?;
    if asked.is_empty() || asked.len() > QUESTIONS_MAX {
        return None;
    }
    Some(input_required_result(response.id?, asked, None, server))
}

/// The result that asks a modern client what a legacy server asks in the middle of a call.
/// `request_state` names the waiting call to the gate and must not be guessable; `id` is the client's id
/// of its request.
pub fn input_required(
    parked: &[Request<'_>],
    request_state: &str,
    id: Id<'_>,
    server: &ServerFacts,
) -> Vec<u8> {
    let ask = |asked: &Request<'_>| {
        let MethodKind::ClientRequest(kind) = asked.kind() else { return None };
        Some((key_of(asked), question(kind, asked.params.map(|span| span.of(asked.text)))))
    };
    input_required_result(id, parked.iter().filter_map(ask).collect(), Some(request_state), server)
}

/// A question as it stands in `inputRequests`. The modern era has no `elicitationId`, no tasks and no
/// `_meta` here.
fn question(kind: InputKind, params: Option<&str>) -> String {
    let params = params.map(|params| changed(params, &[], &["elicitationId", "task", "_meta"]));
    let method = ("method", Cow::from(quote(kind.method())));
    object([method].into_iter().chain(params.map(|params| ("params", params))))
}

fn input_required_result(
    id: Id<'_>,
    asked: Vec<(String, String)>,
    request_state: Option<&str>,
    server: &ServerFacts,
) -> Vec<u8> {
    let asked = object(asked.iter().map(|(key, raw)| (&**key, Cow::from(raw))));
    let state = request_state.map(|state| ("requestState", quote(state).into()));
    let meta =
        server.info.as_deref().map(|info| ("_meta", object([(meta_key::SERVER_INFO, info.into())]).into()));
    let members = [("resultType", Cow::from("\"input_required\"")), ("inputRequests", asked.into())];
    result_response(id, &object(members.into_iter().chain(state).chain(meta)))
}

/// What the legacy server gets for each of its questions: the client's result, or that there is none.
pub fn legacy_replies(parked: &[Request<'_>], responses: &[(String, String)]) -> Vec<Vec<u8>> {
    let reply = |asked: &Request<'_>| {
        let key = key_of(asked);
        match (responses.iter().find(|(k, _)| *k == key), asked.kind()) {
            (Some((_, raw)), _) => result_response(asked.id, &changed(raw, &[], &["resultType"])),
            (None, MethodKind::ClientRequest(InputKind::Elicit)) => result_response(asked.id, CANCELLED),
            (None, _) => {
                error_response(Some(asked.id), code::INTERNAL_ERROR, "the client gave no answer", None)
            }
        }
    };
    parked.iter().map(reply).collect()
}

/// The key of a question among the questions of its call: made of the server's own id of it, which may
/// be `1` and `"1"` for two of them.
fn key_of(asked: &Request<'_>) -> String {
    match asked.id.raw().strip_prefix('"').and_then(|id| id.strip_suffix('"')) {
        Some(text) => format!("ask-{text}"),
        None => format!("ask-number-{}", asked.id.raw()),
    }
}

/// Translates a notification that a legacy server sends about a request. `log_level` is that of the
/// request: without one the client gets no log messages. None if the client is not to get it, or not on
/// this stream.
pub fn legacy_notification_to_modern<'a>(
    notification: &Notification<'a>,
    log_level: Option<LogLevel>,
) -> Option<Cow<'a, [u8]>> {
    let wanted = match notification.kind() {
        Some(NotificationKind::Progress) => true,
        Some(NotificationKind::Message) => {
            log_level.zip(notification.level).is_some_and(|(least, level)| level >= least)
        }
        _ => false,
    };
    wanted.then(|| Splice::notification(notification).remove_meta(meta_key::RELATED_TASK).finish())
}
