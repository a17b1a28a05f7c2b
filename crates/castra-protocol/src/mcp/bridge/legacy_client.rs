//! A client of the legacy era in front of a server of the modern era.

use std::borrow::Cow;

use castra_core::{Refusal, RefusalCode, Step};

use super::{BridgeFault, CANCELLED, ClientFacts, QUESTIONS_MAX, changed, input_kind, is_url_mode, object};
use crate::{
    edit::{Changes, Edit},
    json::{self, JsonError, Scanner, Span, quote},
    mcp::{
        Era, Handshake, Id, InputKind, LogLevel, Message, MethodKind, Notification, NotificationKind,
        Outcome, Request, Response, ResultView, Revision, Splice, classify, code, exists_in, meta_key,
        result_response,
    },
};

/// What to do with a message of a legacy client.
#[derive(Debug, Clone)]
pub enum LegacyStep<'a> {
    /// Send this request to the server.
    Forward(Vec<u8>),
    /// The server is not needed: this is the answer.
    AnswerHere(Vec<u8>),
    /// Keep the level for the requests to come, and answer.
    SetLogLevel {
        /// The level.
        level: LogLevel,
        /// The answer.
        answer: Vec<u8>,
    },
    /// Listen for changes of a resource (`subscriptions/listen`), and answer.
    Subscribe {
        /// The resource.
        uri: String,
        /// The answer.
        answer: Vec<u8>,
    },
    /// Listen no more for changes of a resource, and answer.
    Unsubscribe {
        /// The resource.
        uri: String,
        /// The answer.
        answer: Vec<u8>,
    },
    /// Take back this request: over HTTP by closing its stream, over stdio by a notification.
    Cancel {
        /// The client's id of the request.
        request_id: Id<'a>,
    },
    /// The modern era has nothing like it, and nothing is lost.
    Swallow,
    /// It answers what the client was asked ([`InputRequest::to_legacy`]).
    ClientAnswer,
    /// It cannot be translated.
    Refuse(Refusal),
}

/// Translates a message of a legacy client.
pub fn legacy_to_modern<'a>(message: &Message<'a>, facts: &ClientFacts) -> LegacyStep<'a> {
    match message {
        Message::Request(request) => request_to_modern(request, facts),
        Message::Notification(notification) => match (notification.kind(), notification.request_id) {
            (Some(NotificationKind::Cancelled), Some(request_id)) => LegacyStep::Cancel { request_id },
            _ => LegacyStep::Swallow,
        },
        Message::Response(_) => LegacyStep::ClientAnswer,
    }
}

fn request_to_modern<'a>(request: &Request<'a>, facts: &ClientFacts) -> LegacyStep<'a> {
    let answer = || result_response(request.id, "{}");
    let uri = || request.target.as_ref().map(|t| t.text.to_string()).unwrap_or_default();
    match (&*request.method, request.kind(), request.level) {
        (_, MethodKind::Handshake(Handshake::Ping), _) => LegacyStep::AnswerHere(answer()),
        (_, MethodKind::Handshake(Handshake::SetLogLevel), Some(level)) => {
            LegacyStep::SetLogLevel { level, answer: answer() }
        }
        ("resources/subscribe", ..) => LegacyStep::Subscribe { uri: uri(), answer: answer() },
        ("resources/unsubscribe", ..) => LegacyStep::Unsubscribe { uri: uri(), answer: answer() },
        (method, ..) if method.starts_with("tasks/") => refuse(format!(
            "{method} of {} has no counterpart at a server of {}, where tasks work in another way",
            facts.revision.as_str(),
            Revision::LATEST.as_str()
        )),
        (method, kind, _) if kind != MethodKind::Unknown && !in_both(method) => {
            refuse(format!("{method} cannot be sent here in {}", facts.revision.as_str()))
        }
        _ => {
            let described = facts.modern_meta().into_iter();
            let splice = described.fold(Splice::request(request), |s, (key, raw)| s.set_meta(key, &raw));
            // A call that asks to be run as a task runs as a call, as servers without tasks do it.
            LegacyStep::Forward(splice.remove("task").finish().into_owned())
        }
    }
}

fn in_both(method: &str) -> bool {
    exists_in(method, Era::Legacy) && exists_in(method, Era::Modern)
}

fn refuse<'a>(reason: String) -> LegacyStep<'a> {
    LegacyStep::Refuse(Refusal::new(Step::Understand, RefusalCode::NotFound, reason))
}

/// What a server's answer means for a legacy client.
#[derive(Debug, Clone)]
pub enum LegacyAnswer {
    /// This is the answer.
    Final(Vec<u8>),
    /// Ask the client this, then send the request again.
    NeedsInput(InputNeeded),
}

/// What a modern server needs before it can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputNeeded {
    /// What to ask the client; may be empty, then the request is to be sent again at once.
    pub requests: Vec<InputRequest>,
    /// The state to come back with.
    pub request_state: Option<String>,
}

/// One thing to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRequest {
    /// The server's name for it.
    pub key: String,
    /// What kind of thing.
    pub kind: InputKind,
    /// Raw JSON of its parameters.
    params: Option<String>,
}

impl InputRequest {
    /// The request to the client. `id` is raw JSON, unique among what the client is asked.
    pub fn to_legacy(&self, id: &str, revision: Revision) -> Vec<u8> {
        let params = self.params.as_deref().map(|params| match self.kind {
            InputKind::Elicit if is_url_mode(params) => {
                // 2025-11-25 wants a name for the interaction; the modern era has none any more.
                let name = if id.starts_with('"') { id.to_string() } else { quote(id) };
                changed(params, &[("elicitationId", &name)], &[])
            }
            InputKind::Elicit if revision < Revision::V2025_11_25 => changed(params, &[], &["mode"]),
            _ => Cow::Borrowed(params),
        });
        let params = params.map(|params| format!(",\"params\":{params}")).unwrap_or_default();
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{}\"{params}}}", self.kind.method())
            .into_bytes()
    }

    /// What the client's answer is to the server.
    fn answered(&self, response: &Response<'_>) -> Result<String, BridgeFault> {
        match (&response.outcome, self.kind) {
            (Outcome::Result(result), _) => Ok(result.span.of(response.text).to_string()),
            (Outcome::Error(_), InputKind::Elicit) => Ok(CANCELLED.to_string()),
            (Outcome::Error(error), kind) => Err(BridgeFault::ClientRefused {
                method: kind.method(),
                code: error.code,
                message: error.message.to_string(),
            }),
        }
    }
}

impl InputNeeded {
    /// The request to send again. `original` is the request as it went to the server, `new_id` raw JSON
    /// of another id, `answers` the client's responses by the keys of [`InputNeeded::requests`].
    pub fn retry(
        &self,
        original: &Request<'_>,
        new_id: &str,
        answers: &[(String, Response<'_>)],
    ) -> Result<Vec<u8>, BridgeFault> {
        let mut responses = Vec::new();
        for request in &self.requests {
            let answer = answers.iter().find(|(key, _)| *key == request.key);
            let answered = answer.map(|(_, response)| request.answered(response)).transpose()?;
            responses.extend(answered.map(|raw| (&*request.key, Cow::from(raw))));
        }
        let splice = Splice::request(original).id(new_id);
        let splice = match responses.is_empty() {
            true => splice.remove("inputResponses"),
            false => splice.set("inputResponses", &object(responses)),
        };
        let splice = match &self.request_state {
            Some(state) => splice.set("requestState", &quote(state)),
            None => splice.remove("requestState"),
        };
        Ok(splice.finish().into_owned())
    }
}

/// Translates a modern server's answer to a request with this method.
pub fn modern_answer_to_legacy(
    response: &Response<'_>,
    method: &str,
    client: &ClientFacts,
) -> Result<LegacyAnswer, BridgeFault> {
    let result = match &response.outcome {
        Outcome::Error(error) => {
            let code = match error.code {
                code::INVALID_PARAMS if method == "resources/read" => code::LEGACY_RESOURCE_NOT_FOUND,
                code if code::RESERVED.contains(&code) => code::INTERNAL_ERROR,
                code => code,
            };
            let splice = Splice::response(response).replace_value(error.code_span, &code.to_string());
            return Ok(LegacyAnswer::Final(splice.finish().into_owned()));
        }
        Outcome::Result(result) => result,
    };
    match result.result_type.as_deref() {
        None | Some("complete") => {
            let mut splice = Splice::response(response);
            for name in ["resultType", "ttlMs", "cacheScope"] {
                splice = splice.remove(name);
            }
            // Until 2025-11-25 structured content is an object; its text stands in `content` too.
            if result.structured_content.is_some_and(|span| !span.of(response.text).starts_with('{')) {
                splice = splice.remove("structuredContent");
            }
            if method == "tools/list" {
                splice = splice.edits(tools_for_legacy(response.text, result.span)?);
            }
            Ok(LegacyAnswer::Final(splice.finish().into_owned()))
        }
        Some("input_required") => input_needed(response.text, result, client).map(LegacyAnswer::NeedsInput),
        Some(other) => Err(BridgeFault::UnknownResult { result_type: other.chars().take(40).collect() }),
    }
}

/// Until 2025-11-25 an output schema describes an object; clients refuse a whole list for another one.
fn tools_for_legacy(text: &str, result: Span) -> Result<Vec<Edit>, BridgeFault> {
    let [tools] = crate::mcp::message::members_of(text, result, ["tools"])?;
    let mut edits = Vec::new();
    let Some(tools) = tools.filter(|v| v.kind == json::Kind::Array) else { return Ok(edits) };
    let mut drop_schema = Changes::default();
    drop_schema.remove("outputSchema");
    Scanner::at(text, tools.span).elements(|s| {
        let tool = s.skip()?;
        let schema = json::get(tool.span.of(text), &["outputSchema"]);
        if schema.is_some_and(|schema| json::get(schema, &["type"]) != Some("\"object\"")) {
            drop_schema.edit(text, tool.span, &mut edits)?;
        }
        Ok::<_, JsonError>(())
    })?;
    Ok(edits)
}

fn input_needed(
    text: &str,
    result: &ResultView<'_>,
    client: &ClientFacts,
) -> Result<InputNeeded, BridgeFault> {
    let mut requests = Vec::new();
    if let Some(asked) = result.input_requests {
        Scanner::at(text, asked).members(|s, key| {
            let value = s.skip()?.span.of(text);
            let wrong = |field, want| BridgeFault::Field { field, want };
            let method = json::get(value, &["method"]).and_then(json::decode);
            let kind = method.as_deref().and_then(input_kind);
            let kind = kind.ok_or(wrong("inputRequests.*.method", "a request to a client"))?;
            let params = json::get(value, &["params"]);
            if params.is_some_and(|raw| !raw.starts_with('{')) {
                return Err(wrong("inputRequests.*.params", "an object"));
            }
            if !client.declares_for(kind, params.unwrap_or("{}")) {
                return Err(BridgeFault::Undeclared { method: kind.method() });
            }
            if requests.len() == QUESTIONS_MAX {
                return Err(BridgeFault::TooMany { max: QUESTIONS_MAX });
            }
            requests.push(InputRequest { key: key.decode().into(), kind, params: params.map(Into::into) });
            Ok(())
        })?;
    }
    let request_state = result.request_state.as_deref().map(str::to_string);
    if requests.is_empty() && request_state.is_none() {
        return Err(BridgeFault::Field { field: "inputRequests or requestState", want: "present" });
    }
    Ok(InputNeeded { requests, request_state })
}

/// Translates a modern server's notification. None if a legacy client has no use for it.
pub fn modern_notification_to_legacy<'a>(notification: &Notification<'a>) -> Option<Cow<'a, [u8]>> {
    match classify(&notification.method) {
        MethodKind::Notification(NotificationKind::Cancelled | NotificationKind::TaskStatus) => None,
        MethodKind::Notification(_) if !exists_in(&notification.method, Era::Legacy) => None,
        _ => Some(Splice::notification(notification).remove_meta(meta_key::SUBSCRIPTION_ID).finish()),
    }
}
