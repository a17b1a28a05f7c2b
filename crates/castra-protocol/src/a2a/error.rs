//! Errors in the protocol's own form, for both bindings (specification, sections 5.4, 9.5 and 11.6).
//!
//! A2A's own kinds have fixed codes; what a gate refuses besides has codes of its own in the range
//! that JSON-RPC leaves to servers, apart from those of A2A. Details follow `google.rpc`: an
//! `ErrorInfo` with a reason, and a `RetryInfo` where waiting helps.

use castra_core::{Refusal, RefusalCode};
use serde_json::{Value, json};

use super::Binding;

/// What an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // named as in the specification; the last seven are the gate's own
pub enum ErrorKind {
    Parse,
    InvalidRequest,
    MethodNotFound,
    InvalidParams,
    Internal,
    TaskNotFound,
    TaskNotCancelable,
    PushNotificationNotSupported,
    UnsupportedOperation,
    ContentTypeNotSupported,
    InvalidAgentResponse,
    ExtendedAgentCardNotConfigured,
    ExtensionSupportRequired,
    VersionNotSupported,
    Unauthenticated,
    Denied,
    TooMuch,
    TooLarge,
    Unavailable,
    Late,
    Cancelled,
}

/// Code of JSON-RPC, status of HTTP+JSON, status word of `google.rpc.Code`, reason.
type Shape = (i64, u16, &'static str, &'static str);

impl ErrorKind {
    fn shape(self) -> Shape {
        match self {
            Self::Parse => (-32700, 400, "INVALID_ARGUMENT", "INVALID_REQUEST"),
            Self::InvalidRequest => (-32600, 400, "INVALID_ARGUMENT", "INVALID_REQUEST"),
            Self::MethodNotFound => (-32601, 404, "NOT_FOUND", "METHOD_NOT_FOUND"),
            Self::InvalidParams => (-32602, 400, "INVALID_ARGUMENT", "INVALID_PARAMS"),
            Self::Internal => (-32603, 500, "INTERNAL", "INTERNAL_ERROR"),
            Self::TaskNotFound => (-32001, 404, "NOT_FOUND", "TASK_NOT_FOUND"),
            Self::TaskNotCancelable => (-32002, 400, "FAILED_PRECONDITION", "TASK_NOT_CANCELABLE"),
            Self::PushNotificationNotSupported => {
                (-32003, 400, "FAILED_PRECONDITION", "PUSH_NOTIFICATION_NOT_SUPPORTED")
            }
            Self::UnsupportedOperation => (-32004, 400, "FAILED_PRECONDITION", "UNSUPPORTED_OPERATION"),
            Self::ContentTypeNotSupported => (-32005, 400, "INVALID_ARGUMENT", "CONTENT_TYPE_NOT_SUPPORTED"),
            Self::InvalidAgentResponse => (-32006, 500, "INTERNAL", "INVALID_AGENT_RESPONSE"),
            Self::ExtendedAgentCardNotConfigured => {
                (-32007, 400, "FAILED_PRECONDITION", "EXTENDED_AGENT_CARD_NOT_CONFIGURED")
            }
            Self::ExtensionSupportRequired => {
                (-32008, 400, "FAILED_PRECONDITION", "EXTENSION_SUPPORT_REQUIRED")
            }
            Self::VersionNotSupported => (-32009, 400, "FAILED_PRECONDITION", "VERSION_NOT_SUPPORTED"),
            Self::Unauthenticated => (-32040, 401, "UNAUTHENTICATED", "UNAUTHENTICATED"),
            Self::Denied => (-32041, 403, "PERMISSION_DENIED", "PERMISSION_DENIED"),
            Self::TooMuch => (-32042, 429, "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"),
            Self::TooLarge => (-32043, 413, "INVALID_ARGUMENT", "LIMIT_REACHED"),
            Self::Unavailable => (-32044, 503, "UNAVAILABLE", "AGENT_UNAVAILABLE"),
            Self::Late => (-32045, 504, "DEADLINE_EXCEEDED", "AGENT_TIMEOUT"),
            Self::Cancelled => (-32046, 499, "CANCELLED", "CANCELLED"),
        }
    }

    /// The status of the response. JSON-RPC has its errors in a response that succeeded, besides
    /// those that HTTP itself knows: whom to believe, how much, and when again.
    pub fn status(self, binding: Binding) -> u16 {
        match (binding, self) {
            (Binding::HttpJson, kind) => kind.shape().1,
            (_, Self::Unauthenticated | Self::TooMuch | Self::TooLarge | Self::Unavailable) => self.shape().1,
            (Binding::JsonRpc, _) => 200,
        }
    }

    /// Whether it is one that A2A defines.
    fn is_of_a2a(self) -> bool {
        self.shape().0 > -32040 || self.shape().0 < -32099
    }
}

/// The kind that a refusal is told as, where nothing more precise is known.
pub fn refusal_kind(refusal: &Refusal) -> ErrorKind {
    use RefusalCode as R;
    match refusal.code {
        // It would never fit, so that waiting does not help.
        R::OverBudget if refusal.retry_after.is_none() => ErrorKind::Denied,
        R::Unauthenticated | R::BadCredential => ErrorKind::Unauthenticated,
        R::InsufficientScope
        | R::ForeignOrigin
        | R::Denied
        | R::ApprovalRequired
        | R::Undecided
        | R::Unrecorded => ErrorKind::Denied,
        R::Malformed | R::HeaderMismatch => ErrorKind::InvalidParams,
        R::UnsupportedVersion => ErrorKind::VersionNotSupported,
        R::NotFound => ErrorKind::TaskNotFound,
        R::NotAllowedHere => ErrorKind::UnsupportedOperation,
        R::LimitReached => ErrorKind::TooLarge,
        R::Busy | R::OverBudget => ErrorKind::TooMuch,
        R::UpstreamUnavailable | R::ShuttingDown => ErrorKind::Unavailable,
        R::UpstreamMisbehaved => ErrorKind::InvalidAgentResponse,
        R::UpstreamTimeout => ErrorKind::Late,
        R::Cancelled => ErrorKind::Cancelled,
    }
}

/// What an error says beside its message.
#[derive(Debug, Clone, Copy, Default)]
pub struct Notes<'a> {
    /// Policies that made the decision.
    pub policies: &'a [std::sync::Arc<str>],
    /// The receipt of the record.
    pub receipt: Option<&'a str>,
    /// Seconds after which it may work.
    pub retry_secs: Option<u64>,
    /// What a person has to approve first: the id of the approval, and until when it can be answered.
    pub approval: Option<(&'a str, &'a str)>,
}

/// The error as a body. `id` is the JSON-RPC id as the caller wrote it.
pub fn error_body(
    binding: Binding,
    id: Option<&str>,
    kind: ErrorKind,
    refusal: &Refusal,
    notes: &Notes<'_>,
) -> String {
    let (code, status, word, _) = kind.shape();
    let message = refusal.to_string();
    let details = details(kind, refusal, notes);
    match binding {
        Binding::JsonRpc => {
            let error = json!({ "code": code, "message": message, "data": details });
            format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"error\":{error}}}", id.unwrap_or("null"))
        }
        Binding::HttpJson => {
            json!({ "error": { "code": status, "status": word, "message": message, "details": details } })
                .to_string()
        }
    }
}

fn details(kind: ErrorKind, refusal: &Refusal, notes: &Notes<'_>) -> Vec<Value> {
    // `metadata` is a map of texts.
    let mut metadata = serde_json::Map::new();
    metadata.insert("castraCode".to_owned(), refusal.code.as_str().into());
    if !notes.policies.is_empty() {
        metadata.insert("policies".to_owned(), notes.policies.join(" ").into());
    }
    if let Some(receipt) = notes.receipt {
        metadata.insert("receipt".to_owned(), receipt.into());
    }
    if let Some((id, expires)) = notes.approval {
        metadata.insert("approval_required".to_owned(), id.into());
        metadata.insert("approval_expires".to_owned(), expires.into());
    }
    let domain = if kind.is_of_a2a() { "a2a-protocol.org" } else { "castra.dev" };
    let mut details = vec![json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": kind.shape().3,
        "domain": domain,
        "metadata": metadata,
    })];
    if let Some(secs) = notes.retry_secs {
        details.push(json!({
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{secs}s"),
        }));
    }
    details
}
