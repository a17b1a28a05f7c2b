//! One JSON-RPC message of MCP as a borrowed view: what the gate must know, and where it stands.
//!
//! One scan notes where the known members stand; then the method says which of them count and what
//! type they must have. Members that the specification does not know pass through unread. JSON-RPC
//! batches were removed in 2025-06-18 and are refused in every revision, since one decision per body
//! is what headers, records and receipts are made for.

use std::{
    borrow::Cow,
    hash::{Hash, Hasher},
};

use castra_core::{Limits, Operation, Refusal, RefusalCode, Step};

use super::{
    ActionOn, Era, MethodKind, NotificationKind, Revision, answer::code, classify, exists_in, field::Field,
    meta_key,
};
use crate::json::{self, JsonError, JsonFault, Kind, Scanner, Span, Str, Value};

/// What bounds the parser. The size of the text is bounded by whoever read it.
#[derive(Debug, Clone, Copy)]
pub struct ParseLimits {
    /// Levels of arrays and objects.
    pub depth_max: usize,
}

impl Default for ParseLimits {
    fn default() -> Self {
        Self::from(&Limits::default())
    }
}

impl From<&Limits> for ParseLimits {
    fn from(limits: &Limits) -> Self {
        Self { depth_max: limits.json_depth_max }
    }
}

/// A message.
#[derive(Debug, Clone)]
pub enum Message<'a> {
    /// Wants an answer.
    Request(Request<'a>),
    /// Wants none.
    Notification(Notification<'a>),
    /// Is one.
    Response(Response<'a>),
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The whole message; `text.as_bytes()` are the bytes that were parsed.
    pub text: &'a str,
    /// Its id.
    pub id: Id<'a>,
    /// Where the id stands.
    pub id_span: Span,
    /// The method.
    pub method: Cow<'a, str>,
    /// The object of parameters.
    pub params: Option<Span>,
    /// What the request is directed at, for methods that have such a thing.
    pub target: Option<Target<'a>>,
    /// The object of arguments (`tools/call`, `prompts/get`).
    pub arguments: Option<Span>,
    /// What `_meta` says.
    pub meta: Meta<'a>,
    /// Where a list is to be continued.
    pub cursor: Option<Cow<'a, str>>,
    /// Answers to what an earlier `input_required` asked for (2026-07-28, basic/patterns/mrtr).
    pub input_responses: Option<Span>,
    /// The state that came with an earlier `input_required`. The caller may have changed it.
    pub request_state: Option<Cow<'a, str>>,
    /// The request of 2025-11-25 to run as a task.
    pub task: Option<Span>,
    /// The level of `logging/setLevel`.
    pub level: Option<LogLevel>,
}

impl<'a> Request<'a> {
    /// What its method is.
    pub fn kind(&self) -> MethodKind {
        classify(&self.method)
    }

    /// The action that it is, with the reference of `completion/complete` looked at.
    pub fn action(&self) -> Option<(Operation, ActionOn)> {
        let MethodKind::Action { operation, on } = self.kind() else { return None };
        match &self.target {
            Some(Target { kind: TargetKind::TemplateRef, .. }) => Some((operation, ActionOn::Resource)),
            _ => Some((operation, on)),
        }
    }

    /// Whether it describes itself, as requests of the modern era do.
    pub fn is_modern(&self) -> bool {
        self.meta.protocol_version.is_some()
    }

    /// The revision that it says it is in; None for a legacy request or an unknown revision.
    pub fn revision(&self) -> Option<Revision> {
        self.meta.protocol_version.as_deref().and_then(Revision::parse)
    }

    /// A part of the message.
    pub fn slice(&self, span: Span) -> &'a str {
        span.of(self.text)
    }

    /// The arguments as JSON; an empty object if there are none.
    pub fn arguments_text(&self) -> &'a str {
        self.arguments.map_or("{}", |span| span.of(self.text))
    }
}

/// What a request is directed at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    /// Which field names it.
    pub kind: TargetKind,
    /// Its name or URI, unescaped.
    pub text: Cow<'a, str>,
    /// Where it stands, with the quotes.
    pub span: Span,
}

/// The field that names a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// `params.name` of a tool or prompt.
    Name,
    /// `params.uri` of a resource.
    Uri,
    /// `params.ref.name` of a prompt.
    PromptRef,
    /// `params.ref.uri` of a resource template.
    TemplateRef,
    /// `params.taskId`.
    Task,
}

/// The members of `_meta` that the specification defines.
#[derive(Debug, Clone, Default)]
pub struct Meta<'a> {
    /// The object itself.
    pub span: Option<Span>,
    /// Revision of the request.
    pub protocol_version: Option<Cow<'a, str>>,
    /// Who the client says it is.
    pub client_info: Option<Span>,
    /// What the client says it can do.
    pub client_capabilities: Option<Span>,
    /// The least severe log message that is wanted.
    pub log_level: Option<LogLevel>,
    /// Token for progress notifications.
    pub progress_token: Option<Id<'a>>,
    /// Where the token stands.
    pub progress_token_span: Option<Span>,
    /// W3C Trace Context.
    pub traceparent: Option<Cow<'a, str>>,
    /// The subscription that a notification belongs to.
    pub subscription_id: Option<Id<'a>>,
}

/// A notification.
#[derive(Debug, Clone)]
pub struct Notification<'a> {
    /// The whole message.
    pub text: &'a str,
    /// The method.
    pub method: Cow<'a, str>,
    /// The object of parameters.
    pub params: Option<Span>,
    /// What `_meta` says.
    pub meta: Meta<'a>,
    /// The request that `notifications/cancelled` is about; absent for a task.
    pub request_id: Option<Id<'a>>,
    /// Where that id stands.
    pub request_id_span: Option<Span>,
    /// The token of `notifications/progress`.
    pub progress_token: Option<Id<'a>>,
    /// Where the token stands.
    pub progress_token_span: Option<Span>,
    /// The resource of `notifications/resources/updated`.
    pub uri: Option<Cow<'a, str>>,
    /// The level of `notifications/message`.
    pub level: Option<LogLevel>,
}

impl Notification<'_> {
    /// What it says; None for a method that neither era knows.
    pub fn kind(&self) -> Option<NotificationKind> {
        match classify(&self.method) {
            MethodKind::Notification(kind) => Some(kind),
            _ => None,
        }
    }
}

/// A response.
#[derive(Debug, Clone)]
pub struct Response<'a> {
    /// The whole message.
    pub text: &'a str,
    /// The request that it answers; absent in an error about something that could not be read.
    pub id: Option<Id<'a>>,
    /// Where the id stands.
    pub id_span: Option<Span>,
    /// What came of the request.
    pub outcome: Outcome<'a>,
}

/// What came of a request.
#[derive(Debug, Clone)]
pub enum Outcome<'a> {
    /// It was done.
    Result(ResultView<'a>),
    /// It was not.
    Error(ErrorView<'a>),
}

/// A result.
#[derive(Debug, Clone)]
pub struct ResultView<'a> {
    /// The object itself.
    pub span: Span,
    /// Whether a tool says that it failed.
    pub is_error: bool,
    /// `complete`, `input_required`, `task`; absent in the legacy era.
    pub result_type: Option<Cow<'a, str>>,
    /// Structured content of a tool's result.
    pub structured_content: Option<Span>,
    /// Content of a tool's result.
    pub content: Option<Span>,
    /// `_meta`.
    pub meta: Option<Span>,
    /// What an `input_required` result asks for.
    pub input_requests: Option<Span>,
    /// The state to come back with.
    pub request_state: Option<Cow<'a, str>>,
    /// The task that was made (2025-11-25).
    pub task: Option<Span>,
}

/// An error.
#[derive(Debug, Clone)]
pub struct ErrorView<'a> {
    /// The object itself.
    pub span: Span,
    /// Its code.
    pub code: i64,
    /// Where the code stands.
    pub code_span: Span,
    /// Its message.
    pub message: Cow<'a, str>,
    /// More about it.
    pub data: Option<Span>,
}

/// The id of a request, or a progress token, as it stands in the text: a string or an integer. Two are
/// equal when they mean the same, however they are escaped.
#[derive(Debug, Clone, Copy)]
pub struct Id<'a>(&'a str);

impl<'a> Id<'a> {
    /// Takes the raw JSON of a string, or of an integer of 64 bits.
    pub fn from_raw(raw: &'a str) -> Option<Self> {
        let string = raw.starts_with('"') && json::decode(raw).is_some();
        let integer = || {
            let digits = raw.strip_prefix('-').unwrap_or(raw);
            let plain =
                digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
            plain && raw.parse::<i64>().is_ok()
        };
        (string || integer()).then_some(Self(raw))
    }

    /// The raw JSON.
    pub fn raw(self) -> &'a str {
        self.0
    }

    /// The text that a string means; None for an integer.
    fn string(self) -> Option<Cow<'a, str>> {
        if self.0.starts_with('"') { json::decode(self.0) } else { None }
    }
}

impl PartialEq for Id<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || matches!((self.string(), other.string()), (Some(a), Some(b)) if a == b)
    }
}

impl Eq for Id<'_> {}

impl Hash for Id<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.string() {
            Some(text) => (true, &*text).hash(state),
            None => (false, self.0).hash(state),
        }
    }
}

/// Severity of a log message, least severe first (RFC 5424 section 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum LogLevel {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl LogLevel {
    const ALL: [Self; 8] = [
        Self::Debug,
        Self::Info,
        Self::Notice,
        Self::Warning,
        Self::Error,
        Self::Critical,
        Self::Alert,
        Self::Emergency,
    ];

    /// Reads the word of the wire.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }

    /// The word of the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct ParseError {
    /// What is wrong.
    pub fault: ParseFault,
    /// Raw JSON of the id, where it could be read, so that the error can name its request.
    pub id: Option<String>,
}

/// What is wrong with a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseFault {
    /// Not JSON.
    #[error("the body is not JSON: {0}")]
    Json(#[from] JsonError),
    /// A JSON-RPC batch.
    #[error("batches were removed from MCP in 2025-06-18; send one message per body")]
    Batch,
    /// JSON, but no message.
    #[error("a message is a JSON object")]
    NotAnObject,
    /// A member of the message itself has the wrong type or value.
    #[error("{field} must be {want}")]
    Envelope {
        /// The member.
        field: &'static str,
        /// What it must be.
        want: &'static str,
    },
    /// A parameter has the wrong type or value.
    #[error("{field} must be {want}")]
    Param {
        /// The parameter.
        field: &'static str,
        /// What it must be.
        want: &'static str,
    },
    /// A parameter that the method needs is not there.
    #[error("{field} is missing; it must be {want}")]
    Missing {
        /// The parameter.
        field: &'static str,
        /// What it must be.
        want: &'static str,
    },
}

impl ParseError {
    /// The JSON-RPC error code for it.
    pub fn code(&self) -> i64 {
        match self.fault {
            ParseFault::Json(_) => code::PARSE_ERROR,
            ParseFault::Batch | ParseFault::NotAnObject | ParseFault::Envelope { .. } => {
                code::INVALID_REQUEST
            }
            ParseFault::Param { .. } | ParseFault::Missing { .. } => code::INVALID_PARAMS,
        }
    }

    /// The refusal of a caller's message.
    pub fn refusal(&self) -> Refusal {
        let code = match &self.fault {
            ParseFault::Json(e) if matches!(e.fault, JsonFault::Depth(_)) => RefusalCode::LimitReached,
            _ => RefusalCode::Malformed,
        };
        Refusal::new(Step::Understand, code, self.to_string())
    }
}

/// Reads one message.
pub fn parse<'a>(bytes: &'a [u8], limits: &ParseLimits) -> Result<Message<'a>, ParseError> {
    let mut envelope = Envelope::default();
    read(bytes, limits, &mut envelope).map_err(|fault| ParseError {
        id: match fault {
            ParseFault::Json(_) => None,
            _ => envelope.id_text(bytes),
        },
        fault,
    })
}

fn read<'a>(
    bytes: &'a [u8],
    limits: &ParseLimits,
    envelope: &mut Envelope,
) -> Result<Message<'a>, ParseFault> {
    let mut scanner = Scanner::new(bytes, limits.depth_max)?;
    match scanner.kind()? {
        Kind::Object => {}
        Kind::Array => return Err(ParseFault::Batch),
        _ => return Err(ParseFault::NotAnObject),
    }
    scanner.members(|s, key| envelope.note(s, key))?;
    scanner.end()?;
    envelope.finish(scanner.text())
}

/// Where the members of a message stand.
#[derive(Default)]
struct Envelope {
    jsonrpc: Option<Value>,
    id: Option<Value>,
    method: Option<Value>,
    params: Option<Value>,
    result: Option<Value>,
    error: Option<Value>,
    inside: Inside,
    meta: MetaValues,
}

/// Where the members of `params`, `result` or `error` stand that some method knows. One set serves
/// all three, since a message has only one of them.
#[derive(Default)]
struct Inside {
    name: Option<Value>,
    uri: Option<Value>,
    reference: Option<Value>,
    task_id: Option<Value>,
    arguments: Option<Value>,
    meta: Option<Value>,
    cursor: Option<Value>,
    input_responses: Option<Value>,
    request_state: Option<Value>,
    task: Option<Value>,
    request_id: Option<Value>,
    progress_token: Option<Value>,
    level: Option<Value>,
    is_error: Option<Value>,
    result_type: Option<Value>,
    structured_content: Option<Value>,
    content: Option<Value>,
    input_requests: Option<Value>,
    code: Option<Value>,
    message: Option<Value>,
    data: Option<Value>,
}

#[derive(Default)]
struct MetaValues {
    protocol_version: Option<Value>,
    client_info: Option<Value>,
    client_capabilities: Option<Value>,
    log_level: Option<Value>,
    progress_token: Option<Value>,
    traceparent: Option<Value>,
    subscription_id: Option<Value>,
}

impl Envelope {
    fn note<'a>(&mut self, s: &mut Scanner<'a>, key: Str<'a>) -> Result<(), JsonError> {
        match &*key.decode() {
            "jsonrpc" => self.jsonrpc = Some(s.skip()?),
            "id" => self.id = Some(s.skip()?),
            "method" => self.method = Some(s.skip()?),
            "params" => self.params = Some(self.walk(s)?),
            "result" => self.result = Some(self.walk(s)?),
            "error" => self.error = Some(self.walk(s)?),
            _ => drop(s.skip()?),
        }
        Ok(())
    }

    fn walk(&mut self, s: &mut Scanner<'_>) -> Result<Value, JsonError> {
        if s.kind()? != Kind::Object {
            return s.skip();
        }
        let start = s.pos();
        let Self { inside, meta, .. } = self;
        s.members(|s, key| inside.note(meta, s, key))?;
        Ok(Value { kind: Kind::Object, span: Span { start, end: s.pos() } })
    }

    fn id_text(&self, bytes: &[u8]) -> Option<String> {
        let id = Id::from_raw(self.id?.span.of(std::str::from_utf8(bytes).ok()?))?;
        Some(id.raw().to_string())
    }

    fn finish<'a>(&self, text: &'a str) -> Result<Message<'a>, ParseFault> {
        let wrong = |field, want| Err(ParseFault::Envelope { field, want });
        if self.jsonrpc.map(|v| v.span.of(text)) != Some("\"2.0\"") {
            return wrong("jsonrpc", "the string \"2.0\"");
        }
        match (self.method, self.result, self.error) {
            (Some(_), None, None) if self.id.is_some() => self.request(text).map(Message::Request),
            (Some(_), None, None) => self.notification(text).map(Message::Notification),
            (None, Some(result), None) => self.result(text, result).map(Message::Response),
            (None, None, Some(error)) => self.error(text, error).map(Message::Response),
            (None, None, None) => wrong("method", "present in a request, result or error in a response"),
            _ => wrong("method, result and error", "present one at a time"),
        }
    }

    fn request<'a>(&self, text: &'a str) -> Result<Request<'a>, ParseFault> {
        let (id, id_span) = self.id(text)?.ok_or(ID_FAULT)?;
        let method = self.method(text)?;
        let params = self.params()?;
        let inside = &self.inside;
        let meta = self.meta(text)?;
        let field = |name, value| Field { text, name, value };
        let removed = meta.protocol_version.is_some() && !exists_in(&method, Era::Modern);
        if removed || classify(&method) == MethodKind::Unknown {
            // Nothing is known of its parameters, so nothing of them is taken or refused.
            return Ok(Request {
                text,
                id,
                id_span,
                method,
                params,
                target: None,
                arguments: None,
                meta,
                cursor: None,
                input_responses: None,
                request_state: None,
                task: None,
                level: None,
            });
        }
        let level = field("params.level", inside.level);
        let level = match &*method {
            "logging/setLevel" => {
                let found = log_level(level)?;
                Some(level.required(found, LEVELS)?)
            }
            _ => None,
        };
        let with_arguments = matches!(&*method, "tools/call" | "prompts/get");
        let arguments = if with_arguments { inside.arguments } else { None };
        Ok(Request {
            text,
            id,
            id_span,
            params,
            target: inside.target(text, &method)?,
            arguments: field("params.arguments", arguments).object()?,
            meta,
            cursor: field("params.cursor", inside.cursor).string()?,
            input_responses: field("params.inputResponses", inside.input_responses).object()?,
            request_state: field("params.requestState", inside.request_state).string()?,
            task: field("params.task", inside.task).object()?,
            level,
            method,
        })
    }

    fn notification<'a>(&self, text: &'a str) -> Result<Notification<'a>, ParseFault> {
        use NotificationKind::{Cancelled, Message, Progress, ResourceUpdated};
        let method = self.method(text)?;
        let params = self.params()?;
        let kind = match classify(&method) {
            MethodKind::Notification(kind) => Some(kind),
            _ => None,
        };
        let inside = &self.inside;
        let only = |wanted, name, value| Field {
            text,
            name,
            value: if kind == Some(wanted) { value } else { None },
        };
        let request_id = only(Cancelled, "params.requestId", inside.request_id);
        let token = only(Progress, "params.progressToken", inside.progress_token);
        let uri = only(ResourceUpdated, "params.uri", inside.uri);
        let level = only(Message, "params.level", inside.level);
        let view = Notification {
            text,
            params,
            meta: self.meta(text)?,
            request_id: request_id.id()?,
            request_id_span: request_id.value.map(|v| v.span),
            progress_token: token.id()?,
            progress_token_span: token.value.map(|v| v.span),
            uri: uri.string()?,
            level: log_level(level)?,
            method,
        };
        match kind {
            Some(Progress) => token.required(view.progress_token, "a string or an integer").map(drop)?,
            Some(ResourceUpdated) => uri.required(view.uri.as_ref(), "a string").map(drop)?,
            Some(Message) => level.required(view.level, LEVELS).map(drop)?,
            _ => {}
        }
        Ok(view)
    }

    fn result<'a>(&self, text: &'a str, result: Value) -> Result<Response<'a>, ParseFault> {
        let (id, id_span) = self.id(text)?.ok_or(ID_FAULT)?;
        if result.kind != Kind::Object {
            return Err(ParseFault::Envelope { field: "result", want: "an object" });
        }
        let inside = &self.inside;
        let field = |name, value| Field { text, name, value };
        let result_type = field("result.resultType", inside.result_type).string()?;
        let asks = result_type.as_deref() == Some("input_required");
        let only_asking = |value| if asks { value } else { None };
        let view = ResultView {
            span: result.span,
            is_error: field("result.isError", inside.is_error).boolean()?.unwrap_or(false),
            structured_content: inside.structured_content.map(|v| v.span),
            content: inside.content.map(|v| v.span),
            meta: field("result._meta", inside.meta).object()?,
            input_requests: field("result.inputRequests", only_asking(inside.input_requests)).object()?,
            request_state: field("result.requestState", only_asking(inside.request_state)).string()?,
            task: inside.task.filter(|v| v.kind == Kind::Object).map(|v| v.span),
            result_type,
        };
        Ok(Response { text, id: Some(id), id_span: Some(id_span), outcome: Outcome::Result(view) })
    }

    fn error<'a>(&self, text: &'a str, error: Value) -> Result<Response<'a>, ParseFault> {
        let wrong = |field, want| ParseFault::Envelope { field, want };
        let id = match self.id {
            Some(value) if value.kind == Kind::Null => None,
            _ => self.id(text)?,
        };
        if error.kind != Kind::Object {
            return Err(wrong("error", "an object"));
        }
        let inside = &self.inside;
        let code = inside.code.ok_or(wrong("error.code", "an integer"))?;
        let view = ErrorView {
            span: error.span,
            code: code.span.of(text).parse().map_err(|_| wrong("error.code", "an integer"))?,
            code_span: code.span,
            message: Field { text, name: "error.message", value: inside.message }
                .string()?
                .ok_or(wrong("error.message", "a string"))?,
            data: inside.data.map(|v| v.span),
        };
        Ok(Response {
            text,
            id: id.map(|(id, _)| id),
            id_span: self.id.map(|v| v.span),
            outcome: Outcome::Error(view),
        })
    }

    fn id<'a>(&self, text: &'a str) -> Result<Option<(Id<'a>, Span)>, ParseFault> {
        let Some(value) = self.id else { return Ok(None) };
        let id = Id::from_raw(value.span.of(text)).ok_or(ID_FAULT)?;
        Ok(Some((id, value.span)))
    }

    fn method<'a>(&self, text: &'a str) -> Result<Cow<'a, str>, ParseFault> {
        let wrong = ParseFault::Envelope { field: "method", want: "a string" };
        Field { text, name: "method", value: self.method }.string().ok().flatten().ok_or(wrong)
    }

    fn params(&self) -> Result<Option<Span>, ParseFault> {
        match self.params {
            Some(value) if value.kind != Kind::Object => {
                Err(ParseFault::Envelope { field: "params", want: "an object" })
            }
            value => Ok(value.map(|v| v.span)),
        }
    }

    fn meta<'a>(&self, text: &'a str) -> Result<Meta<'a>, ParseFault> {
        let meta = &self.meta;
        let field = |name, value| Field { text, name, value };
        let token = field("params._meta.progressToken", meta.progress_token);
        Ok(Meta {
            span: field("params._meta", self.inside.meta).object()?,
            protocol_version: field(meta_key::PROTOCOL_VERSION, meta.protocol_version).string()?,
            client_info: field(meta_key::CLIENT_INFO, meta.client_info).object()?,
            client_capabilities: field(meta_key::CLIENT_CAPABILITIES, meta.client_capabilities).object()?,
            log_level: log_level(field(meta_key::LOG_LEVEL, meta.log_level))?,
            progress_token: token.id()?,
            progress_token_span: token.value.map(|v| v.span),
            traceparent: field("params._meta.traceparent", meta.traceparent).string()?,
            subscription_id: field(meta_key::SUBSCRIPTION_ID, meta.subscription_id).id()?,
        })
    }
}

impl Inside {
    fn note<'a>(
        &mut self,
        meta: &mut MetaValues,
        s: &mut Scanner<'a>,
        key: Str<'a>,
    ) -> Result<(), JsonError> {
        let slot = match &*key.decode() {
            "_meta" => {
                self.meta = Some(meta.walk(s)?);
                return Ok(());
            }
            "name" => &mut self.name,
            "uri" => &mut self.uri,
            "ref" => &mut self.reference,
            "taskId" => &mut self.task_id,
            "arguments" => &mut self.arguments,
            "cursor" => &mut self.cursor,
            "inputResponses" => &mut self.input_responses,
            "requestState" => &mut self.request_state,
            "task" => &mut self.task,
            "requestId" => &mut self.request_id,
            "progressToken" => &mut self.progress_token,
            "level" => &mut self.level,
            "isError" => &mut self.is_error,
            "resultType" => &mut self.result_type,
            "structuredContent" => &mut self.structured_content,
            "content" => &mut self.content,
            "inputRequests" => &mut self.input_requests,
            "code" => &mut self.code,
            "message" => &mut self.message,
            "data" => &mut self.data,
            _ => return s.skip().map(drop),
        };
        *slot = Some(s.skip()?);
        Ok(())
    }

    fn target<'a>(&self, text: &'a str, method: &str) -> Result<Option<Target<'a>>, ParseFault> {
        let one = |kind, name, value: Option<Value>| {
            let field = Field { text, name, value };
            let found = field.required(field.string()?, "a string")?;
            let span = field.required(value, "a string")?.span;
            Ok(Some(Target { kind, text: found, span }))
        };
        match method {
            "tools/call" | "prompts/get" => one(TargetKind::Name, "params.name", self.name),
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
                one(TargetKind::Uri, "params.uri", self.uri)
            }
            "tasks/get" | "tasks/result" | "tasks/cancel" | "tasks/update" => {
                one(TargetKind::Task, "params.taskId", self.task_id)
            }
            "completion/complete" => {
                let field = Field { text, name: "params.ref", value: self.reference };
                let span = field.required(field.object()?, "an object")?;
                let [kind, name, uri] = members_of(text, span, ["type", "name", "uri"])?;
                match kind.map(|v| v.span.of(text)) {
                    Some("\"ref/prompt\"") => one(TargetKind::PromptRef, "params.ref.name", name),
                    Some("\"ref/resource\"") => one(TargetKind::TemplateRef, "params.ref.uri", uri),
                    _ => Err(ParseFault::Param {
                        field: "params.ref.type",
                        want: "\"ref/prompt\" or \"ref/resource\"",
                    }),
                }
            }
            _ => Ok(None),
        }
    }
}

impl MetaValues {
    fn walk(&mut self, s: &mut Scanner<'_>) -> Result<Value, JsonError> {
        if s.kind()? != Kind::Object {
            return s.skip();
        }
        let start = s.pos();
        s.members(|s, key| {
            let slot = match &*key.decode() {
                meta_key::PROTOCOL_VERSION => &mut self.protocol_version,
                meta_key::CLIENT_INFO => &mut self.client_info,
                meta_key::CLIENT_CAPABILITIES => &mut self.client_capabilities,
                meta_key::LOG_LEVEL => &mut self.log_level,
                meta_key::PROGRESS_TOKEN => &mut self.progress_token,
                meta_key::TRACEPARENT => &mut self.traceparent,
                meta_key::SUBSCRIPTION_ID => &mut self.subscription_id,
                _ => return s.skip().map(drop),
            };
            *slot = Some(s.skip()?);
            Ok(())
        })?;
        Ok(Value { kind: Kind::Object, span: Span { start, end: s.pos() } })
    }
}

/// Looks up members of an object that was scanned before.
pub(super) fn members_of<const N: usize>(
    text: &str,
    object: Span,
    names: [&str; N],
) -> Result<[Option<Value>; N], JsonError> {
    let mut found = [None; N];
    Scanner::at(text, object).members(|s, key| {
        let key = key.decode();
        let value = s.skip()?;
        if let Some((slot, _)) = found.iter_mut().zip(names).find(|(_, name)| *name == key) {
            *slot = Some(value);
        }
        Ok::<_, JsonError>(())
    })?;
    Ok(found)
}

fn log_level(field: Field<'_>) -> Result<Option<LogLevel>, ParseFault> {
    match field.string()? {
        None => Ok(None),
        Some(text) => LogLevel::parse(&text).map(Some).ok_or(field.wrong(LEVELS)),
    }
}

const LEVELS: &str = "one of debug, info, notice, warning, error, critical, alert, emergency";

const ID_FAULT: ParseFault =
    ParseFault::Envelope { field: "id", want: "a string or an integer of at most 64 bits, not null" };
