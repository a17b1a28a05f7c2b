//! Errors and refusals in the caller's own form.
//!
//! OpenAI's SDKs read `{"error": {"message", "type", "param", "code"}}`, Anthropic's
//! `{"type": "error", "error": {"type", "message"}}`; both choose their exception by the HTTP status.
//! What is known of a refusal beyond that stands in `castra` inside of the error.

use std::{borrow::Cow, sync::Arc};

use castra_core::{Protocol, Refusal, RefusalCode};

use super::{
    Api, Form, RequestFacts,
    fields::{Fields, Place, whole},
    write::{Array, Object},
};
use crate::json::{self, DEPTH_CEILING, Kind, Value};

/// An error over HTTP; the body is `application/json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorAnswer {
    /// HTTP status.
    pub status: u16,
    /// The error in the caller's form.
    pub body: Vec<u8>,
}

/// What is known of a refusal beside itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct RefusalNotes<'a> {
    /// The policies that determined the decision.
    pub policies: &'a [Arc<str>],
    /// The receipt of the refusal.
    pub receipt: Option<&'a str>,
    /// The member of the request that it is about ([`ModelError::field`](super::ModelError::field)).
    pub field: Option<&'a str>,
    /// More members of `castra`, name and raw JSON (a budget, an approval).
    pub extra: &'a [(&'a str, String)],
}

/// A refusal by Castra, in the form of `protocol`.
pub fn refusal_answer(protocol: Protocol, refusal: &Refusal, notes: &RefusalNotes<'_>) -> ErrorAnswer {
    let status = status_of(refusal.code);
    let mut castra = Object::new();
    castra.string("code", refusal.code.as_str());
    castra.string("reason", &refusal.reason);
    castra.string("advice", &refusal.advice);
    castra.raw("policies", &Array::of_strings(notes.policies));
    if let Some(receipt) = notes.receipt {
        castra.string("receipt", receipt);
    }
    if let Some(seconds) = refusal.retry_secs() {
        castra.raw("retry_after", &seconds.to_string());
    }
    for (name, raw) in notes.extra {
        castra.raw(name, raw);
    }
    let error = ErrorText {
        status,
        message: &refusal.to_string(),
        code: Some(refusal.code.as_str()),
        param: notes.field,
        castra: Some(castra.finish()),
    };
    ErrorAnswer { status, body: error.write(protocol).into_bytes() }
}

/// The HTTP status of a refusal on the places of model APIs.
pub fn status_of(code: RefusalCode) -> u16 {
    use RefusalCode::*;
    match code {
        Unauthenticated | BadCredential => 401,
        InsufficientScope | ForeignOrigin | Denied | ApprovalRequired | Undecided | Unrecorded => 403,
        Malformed | HeaderMismatch | UnsupportedVersion => 400,
        NotFound => 404,
        NotAllowedHere => 405,
        LimitReached => 413,
        Busy | OverBudget => 429,
        // nginx's word for a client that went away; nobody is left to read it.
        Cancelled => 499,
        UpstreamUnavailable | UpstreamMisbehaved => 502,
        ShuttingDown => 503,
        UpstreamTimeout => 504,
    }
}

/// The error of a provider, in the caller's form. It passes as it came if it is an error of the
/// caller's form; HTML and anything else that is not one of the provider's errors becomes an error that
/// says only that. A provider that does not accept the gate's own credential is a fault of the gate and
/// not of the caller: it becomes 502, and its text, which may hold parts of the key, stays here.
pub fn provider_error(facts: &RequestFacts, status: u16, body: &[u8]) -> ErrorAnswer {
    let protocol = facts.api.protocol();
    let refused = matches!(status, 401 | 403 | 407) || refuses_key(facts.form, body);
    let status_out = if refused { 502 } else { caller_status(protocol, status) };
    let own_fault = |message: &str| {
        let error = ErrorText { status: status_out, message, code: None, param: None, castra: None };
        ErrorAnswer { status: status_out, body: error.write(protocol).into_bytes() }
    };
    if refused {
        return own_fault(
            "The model's provider did not accept the credential of this gate; tell its operator.",
        );
    }
    let said = whole_text(body).and_then(|(text, root)| ProviderError::read(text, root));
    let Some(said) = said else {
        return own_fault(&format!(
            "The model's provider answered HTTP {status} with something that is not an error of its API."
        ));
    };
    if facts.api.native_form().family() == facts.form.family() && said.is_complete && status_out == status {
        return ErrorAnswer { status, body: body.to_vec() };
    }
    let error = ErrorText {
        status: status_out,
        message: &said.message,
        code: said.code.as_deref(),
        param: None,
        castra: None,
    };
    ErrorAnswer { status: status_out, body: error.write(protocol).into_bytes() }
}

/// The body of an error event inside a stream that has begun, in the caller's form: the same object as
/// in an error over HTTP.
pub fn stream_error(api: Api, status: u16, message: &str, code: &str) -> String {
    ErrorText { status, message, code: Some(code), param: None, castra: None }.write(api.protocol())
}

/// Whether Google refuses the gate's key, for which it answers 400.
fn refuses_key(form: Form, body: &[u8]) -> bool {
    let Some(text) = std::str::from_utf8(body).ok().filter(|_| form == Form::Gemini) else { return false };
    text.contains("API_KEY_INVALID")
}

/// What the caller sees for the status of a provider.
fn caller_status(protocol: Protocol, status: u16) -> u16 {
    match status {
        401 | 403 | 407 => 502,
        // Anthropic's own, for which nobody else has an exception.
        529 if protocol != Protocol::Anthropic => 503,
        400..600 => status,
        _ => 502,
    }
}

impl Form {
    /// Whose errors it has.
    fn family(self) -> &'static str {
        match self {
            Self::OpenAiChat | Self::OpenAiResponses => "openai",
            Self::AnthropicMessages => "anthropic",
            Self::Gemini => "google",
        }
    }
}

fn whole_text(body: &[u8]) -> Option<(&str, Value)> {
    let text = json::check(body, DEPTH_CEILING).ok()?;
    Some((text, whole(text, DEPTH_CEILING).ok()?))
}

/// The error of a provider, in whatever form.
struct ProviderError<'a> {
    message: Cow<'a, str>,
    code: Option<Cow<'a, str>>,
    /// Whether it has the members that SDKs look for.
    is_complete: bool,
}

impl<'a> ProviderError<'a> {
    /// `{"error": {"message"}}` of OpenAI, Anthropic and Google, of which Google puts one into an array
    /// for streams; `{"error": "…"}` and `{"message": "…"}` of compatible servers.
    fn read(text: &'a str, root: Value) -> Option<Self> {
        let place = Place::Root;
        let root = match root.kind {
            Kind::Array => *super::fields::elements_of(text, root).ok()?.first()?,
            _ => root,
        };
        let mut fields = Fields::of(text, root, &place).ok()?;
        let bare = |message| Self { message: bounded(message), code: None, is_complete: false };
        match fields.take("error") {
            None => fields.string("message").ok()?.map(bare),
            Some(error) if error.kind == Kind::String => fields.string("error").ok()?.map(bare),
            Some(error) => {
                let mut error = Fields::of(text, error, &place).ok()?;
                let message = error.string("message").ok()??;
                let kind = error.string("type").ok().flatten();
                let code = error.string("code").ok().flatten().or(error.string("status").ok().flatten());
                Some(Self { message: bounded(message), is_complete: kind.is_some(), code: code.or(kind) })
            }
        }
    }
}

/// The beginning of a message; some servers put whole requests into theirs.
fn bounded(message: Cow<'_, str>) -> Cow<'_, str> {
    const CHARS_MAX: usize = 2_000;
    match message.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", message.get(..end).unwrap_or_default())),
        None => message,
    }
}

/// An error before it has a form.
struct ErrorText<'a> {
    status: u16,
    message: &'a str,
    code: Option<&'a str>,
    param: Option<&'a str>,
    castra: Option<String>,
}

impl ErrorText<'_> {
    fn write(&self, protocol: Protocol) -> String {
        let anthropic = protocol == Protocol::Anthropic;
        let mut error = Object::new();
        let kind = if anthropic { anthropic_type(self.status) } else { openai_type(self.status) };
        if anthropic {
            error.string("type", kind);
            error.string("message", self.message);
        } else {
            error.string("message", self.message);
            error.string("type", kind);
            error.string_or_null("param", self.param);
            error.string_or_null("code", self.code);
        }
        error.raw_some("castra", self.castra.as_deref());
        let mut out = Object::new();
        if anthropic {
            out.string("type", "error");
        }
        out.raw("error", &error.finish());
        out.finish()
    }
}

/// Types of Anthropic's errors (API reference, "Errors"; anthropic-python 2.13, `ErrorType`).
fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        500..600 => "api_error",
        _ => "invalid_request_error",
    }
}

/// OpenAI has no closed list of types; these are the ones that its API gives out.
fn openai_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        500..600 => "server_error",
        _ => "invalid_request_error",
    }
}
