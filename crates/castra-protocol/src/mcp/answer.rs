//! What Castra itself answers: results, errors, and how each refusal looks to the caller.

use std::sync::Arc;

use castra_core::{Refusal, RefusalCode};

use super::{Era, Id, Revision};
use crate::json::{push_quoted, quote};

/// JSON-RPC error codes.
pub mod code {
    /// Not JSON (JSON-RPC 2.0 section 5.1).
    pub const PARSE_ERROR: i64 = -32700;
    /// Not a request.
    pub const INVALID_REQUEST: i64 = -32600;
    /// No such method.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// Wrong parameters; in 2026-07-28 also an unknown resource.
    pub const INVALID_PARAMS: i64 = -32602;
    /// Something went wrong behind the gate.
    pub const INTERNAL_ERROR: i64 = -32603;
    /// Headers and body differ (2026-07-28).
    pub const HEADER_MISMATCH: i64 = -32020;
    /// The client did not declare what the request needs (2026-07-28).
    pub const MISSING_CAPABILITY: i64 = -32021;
    /// The revision is not spoken (2026-07-28).
    pub const UNSUPPORTED_VERSION: i64 = -32022;
    /// The codes that only the specification may give out (2026-07-28, basic, "Error Codes").
    pub const RESERVED: std::ops::RangeInclusive<i64> = -32099..=-32020;
    /// Unknown resource, up to 2025-11-25.
    pub const LEGACY_RESOURCE_NOT_FOUND: i64 = -32002;
    /// A person must visit a URL first, only in 2025-11-25.
    pub const LEGACY_URL_ELICITATION: i64 = -32042;

    // Castra's own stand outside of JSON-RPC's reserved range, as 2026-07-28 asks of new codes. The
    // first three digits are those of the HTTP status with the nearest meaning.

    /// No credential.
    pub const UNAUTHENTICATED: i64 = 40101;
    /// A credential that is not good.
    pub const BAD_CREDENTIAL: i64 = 40102;
    /// Policy says no.
    pub const DENIED: i64 = 40301;
    /// A person has to say yes first.
    pub const APPROVAL_REQUIRED: i64 = 40306;
    /// It could not be decided.
    pub const UNDECIDED: i64 = 40302;
    /// It could not be recorded.
    pub const UNRECORDED: i64 = 40303;
    /// The credential lacks a scope.
    pub const INSUFFICIENT_SCOPE: i64 = 40304;
    /// Another site's page sent it.
    pub const FOREIGN_ORIGIN: i64 = 40305;
    /// No such session.
    pub const NO_SESSION: i64 = 40401;
    /// No such path or server.
    pub const NO_PLACE: i64 = 40402;
    /// Not in this way.
    pub const NOT_ALLOWED_HERE: i64 = 40501;
    /// A limit was reached.
    pub const LIMIT_REACHED: i64 = 41301;
    /// Too many at once.
    pub const BUSY: i64 = 42901;
    /// A budget or rate is used up.
    pub const OVER_BUDGET: i64 = 42902;
    /// The caller took it back.
    pub const CANCELLED: i64 = 49901;
    /// The server could not be reached.
    pub const UPSTREAM_UNAVAILABLE: i64 = 50201;
    /// The server's answer is not one.
    pub const UPSTREAM_MISBEHAVED: i64 = 50202;
    /// The gate is going down.
    pub const SHUTTING_DOWN: i64 = 50301;
    /// The server did not answer in time.
    pub const UPSTREAM_TIMEOUT: i64 = 50401;
}

/// Key of `_meta` and of an error's `data` that holds a refusal: code, reason, advice, policies, and
/// after how many seconds it may pass, where that is known.
pub const META_REFUSAL: &str = "castra.dev/refusal";
/// Key of `_meta` and of an error's `data` that holds a receipt.
pub const META_RECEIPT: &str = "castra.dev/receipt";
/// Where an answer says that a person has to approve: in `_meta`, or in the `data` of an error.
pub const META_APPROVAL: &str = "castra.dev/approval_required";

/// Bytes of an error. `data` is raw JSON.
pub fn error_response(id: Option<Id<'_>>, code: i64, message: &str, data: Option<&str>) -> Vec<u8> {
    let mut out = String::with_capacity(96 + message.len() + data.map_or(0, str::len));
    out.push_str("{\"jsonrpc\":\"2.0\",");
    if let Some(id) = id {
        out.push_str("\"id\":");
        out.push_str(id.raw());
        out.push(',');
    }
    out.push_str(&format!("\"error\":{{\"code\":{code},\"message\":"));
    push_quoted(&mut out, message);
    if let Some(data) = data {
        out.push_str(",\"data\":");
        out.push_str(data);
    }
    out.push_str("}}");
    out.into_bytes()
}

/// Bytes of a result. `result` is the raw JSON of an object.
pub fn result_response(id: Id<'_>, result: &str) -> Vec<u8> {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{result}}}", id.raw()).into_bytes()
}

/// What is known of the refused message.
#[derive(Debug, Clone)]
pub struct RefusalContext<'a> {
    /// Its id; None for a notification and for what could not be read.
    pub id: Option<Id<'a>>,
    /// Its method; empty if it could not be read.
    pub method: &'a str,
    /// The revision that it is in, as far as known.
    pub revision: Option<Revision>,
    /// The JSON-RPC code for a malformed message, where it is not -32600.
    pub code: Option<i64>,
    /// The HTTP status for what is not allowed here, where it is not 405.
    pub status: Option<u16>,
    /// What was not found.
    pub missing: Missing,
    /// The policies that determined the decision.
    pub policies: &'a [Arc<str>],
    /// The receipt of the refusal.
    pub receipt: Option<&'a str>,
    /// What a person has to approve first.
    pub approval: Option<ApprovalRequired<'a>>,
    /// The revision that was asked for and is not spoken.
    pub requested: &'a str,
    /// The revisions that are spoken at this place.
    pub supported: &'a [Revision],
}

impl Default for RefusalContext<'_> {
    fn default() -> Self {
        Self {
            id: None,
            method: "",
            revision: None,
            code: None,
            status: None,
            missing: Missing::Target,
            policies: &[],
            receipt: None,
            approval: None,
            requested: "",
            supported: &Revision::SUPPORTED,
        }
    }
}

/// A question to a person that an action waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApprovalRequired<'a> {
    /// Its id, by which the person answers.
    pub id: &'a str,
    /// Until when it can be answered (RFC 3339).
    pub expires: &'a str,
}

impl ApprovalRequired<'_> {
    /// As JSON, the same in all protocols.
    pub fn to_json(self) -> String {
        format!("{{\"id\":{},\"expires\":{}}}", quote(self.id), quote(self.expires))
    }
}

/// What was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Missing {
    /// The tool, resource or prompt.
    #[default]
    Target,
    /// The method.
    Method,
    /// The session, so that the client opens a new one.
    Session,
    /// The path or the server.
    Place,
}

/// An answer over HTTP; the body is `application/json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status. Of no use when the answer goes into a stream that has begun.
    pub status: u16,
    /// One JSON-RPC response.
    pub body: Vec<u8>,
}

/// How a refusal looks to the caller.
///
/// A decision against a tool call is a result that says so (`isError`), since a model reads results
/// and can act on the reason; everything else is a JSON-RPC error. An error about a request that could
/// be read is HTTP 200, unless the specification asks for a status or the client's HTTP layer must see
/// it (401, 403, 404 of a session, 413, 429, 503).
pub fn refusal(refusal: &Refusal, context: &RefusalContext<'_>) -> Answer {
    use RefusalCode::{ApprovalRequired, Denied, OverBudget, Undecided, Unrecorded};
    if let (ApprovalRequired | Denied | OverBudget | Undecided | Unrecorded, "tools/call", Some(id)) =
        (refusal.code, context.method, context.id)
    {
        return Answer { status: 200, body: result_response(id, &refused_call(refusal, context)) };
    }
    let (status, code) = shape(refusal, context);
    // Without an id the body may be lost to the client, so the status must tell.
    let status = if status == 200 && context.id.is_none() { bare_status(code) } else { status };
    let data = match code {
        code::UNSUPPORTED_VERSION => versions(context),
        _ => format!("{{{}}}", notes(refusal, context)),
    };
    let body = error_response(context.id, code, &refusal.to_string(), Some(&data));
    Answer { status, body }
}

fn shape(refusal: &Refusal, context: &RefusalContext<'_>) -> (u16, i64) {
    use RefusalCode::*;
    let modern = context.revision.is_some_and(|r| r.era() == Era::Modern);
    match refusal.code {
        Unauthenticated => (401, code::UNAUTHENTICATED),
        BadCredential => (401, code::BAD_CREDENTIAL),
        InsufficientScope => (403, code::INSUFFICIENT_SCOPE),
        ForeignOrigin => (403, code::FOREIGN_ORIGIN),
        Malformed => (400, context.code.unwrap_or(code::INVALID_REQUEST)),
        HeaderMismatch => (400, code::HEADER_MISMATCH),
        UnsupportedVersion => (400, code::UNSUPPORTED_VERSION),
        NotFound => match context.missing {
            // 2026-07-28, transports, "Protocol Version Header".
            Missing::Method => (if modern { 404 } else { 200 }, code::METHOD_NOT_FOUND),
            Missing::Target if !modern && context.method == "resources/read" => {
                (200, code::LEGACY_RESOURCE_NOT_FOUND)
            }
            Missing::Target => (200, code::INVALID_PARAMS),
            Missing::Session => (404, code::NO_SESSION),
            Missing::Place => (404, code::NO_PLACE),
        },
        NotAllowedHere => (context.status.unwrap_or(405), code::NOT_ALLOWED_HERE),
        LimitReached => (413, code::LIMIT_REACHED),
        Busy => (429, code::BUSY),
        // 429 invites to try again, which helps only if there is a time when it may pass.
        OverBudget => (if refusal.retry_after.is_some() { 429 } else { 200 }, code::OVER_BUDGET),
        Denied => (200, code::DENIED),
        ApprovalRequired => (200, code::APPROVAL_REQUIRED),
        Undecided => (200, code::UNDECIDED),
        Unrecorded => (200, code::UNRECORDED),
        UpstreamUnavailable => (200, code::UPSTREAM_UNAVAILABLE),
        UpstreamMisbehaved => (200, code::UPSTREAM_MISBEHAVED),
        UpstreamTimeout => (200, code::UPSTREAM_TIMEOUT),
        Cancelled => (200, code::CANCELLED),
        ShuttingDown => (503, code::SHUTTING_DOWN),
    }
}

fn bare_status(code: i64) -> u16 {
    match code {
        code::CANCELLED => 400,
        40000.. => u16::try_from(code / 100).unwrap_or(500),
        _ => 400,
    }
}

fn versions(context: &RefusalContext<'_>) -> String {
    let supported: Vec<String> = context.supported.iter().map(|r| quote(r.as_str())).collect();
    format!("{{\"supported\":[{}],\"requested\":{}}}", supported.join(","), quote(context.requested))
}

fn refused_call(refusal: &Refusal, context: &RefusalContext<'_>) -> String {
    let modern = context.revision.is_some_and(|r| r.era() == Era::Modern);
    let complete = if modern { "\"resultType\":\"complete\"," } else { "" };
    format!(
        "{{{complete}\"content\":[{{\"type\":\"text\",\"text\":{}}}],\"isError\":true,\"_meta\":{{{}}}}}",
        quote(&match refusal.code {
            RefusalCode::ApprovalRequired => refusal.to_string(),
            _ => format!("Castra refused this call: {refusal}"),
        }),
        notes(refusal, context)
    )
}

fn notes(refusal: &Refusal, context: &RefusalContext<'_>) -> String {
    let policies: Vec<String> = context.policies.iter().map(|p| quote(p)).collect();
    let mut out = format!(
        "{}:{{\"code\":{},\"reason\":{},\"advice\":{},\"policies\":[{}]}}",
        quote(META_REFUSAL),
        quote(refusal.code.as_str()),
        quote(&refusal.reason),
        quote(&refusal.advice),
        policies.join(",")
    );
    if let Some(secs) = refusal.retry_secs() {
        out.pop();
        out.push_str(&format!(",\"retry_after_seconds\":{secs}}}"));
    }
    if let Some(receipt) = context.receipt {
        out.push_str(&format!(",{}:{}", quote(META_RECEIPT), quote(receipt)));
    }
    if let Some(approval) = context.approval {
        out.push_str(&format!(",{}:{}", quote(META_APPROVAL), approval.to_json()));
    }
    out
}

/// What [`approval_question`] puts before the id of the approval in `requestState`. The client may change
/// it, so nothing is decided by it: it only tells the gate that this state is its own.
pub const APPROVAL_STATE: &str = "castra-approval:";

/// Asks a modern client's person to wait for an approval (2026-07-28, basic/patterns/mrtr): a result of
/// `input_required` with one question. Its answer is no approval, and nothing of it is read: when the
/// client tries again, the action is judged anew.
pub fn approval_question(
    id: Id<'_>,
    refusal: &Refusal,
    approval: ApprovalRequired<'_>,
    context: &RefusalContext<'_>,
) -> Vec<u8> {
    let question = format!(
        "{{\"method\":\"elicitation/create\",\"params\":{{\"mode\":\"form\",\"message\":{},\"requestedSchema\":{{\"type\":\"object\",\"properties\":{{}}}}}}}}",
        quote(&refusal.to_string())
    );
    let context = RefusalContext { approval: Some(approval), ..context.clone() };
    let result = format!(
        "{{\"resultType\":\"input_required\",\"inputRequests\":{{\"castra-approval\":{question}}},\"requestState\":{},\"_meta\":{{{}}}}}",
        quote(&format!("{APPROVAL_STATE}{}", approval.id)),
        notes(refusal, &context)
    );
    result_response(id, &result)
}

#[cfg(test)]
mod tests {
    use castra_core::Step;

    use super::*;

    fn answered(code: RefusalCode, context: &RefusalContext<'_>) -> (u16, serde_json::Value) {
        let refused = Refusal::new(Step::Decide, code, "because \"so\"").advise("Ask.");
        let answer = refusal(&refused, context);
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    #[test]
    fn a_denied_call_is_a_result_that_explains_itself() {
        let policies = ["no-deletes".into()];
        let context = RefusalContext {
            id: Id::from_raw("7"),
            method: "tools/call",
            revision: Some(Revision::V2026_07_28),
            policies: &policies,
            receipt: Some("r1"),
            ..Default::default()
        };
        let (status, body) = answered(RefusalCode::Denied, &context);
        assert_eq!(status, 200);
        assert_eq!(body["id"], 7);
        assert_eq!(body["result"]["resultType"], "complete");
        assert_eq!(body["result"]["isError"], true);
        assert_eq!(body["result"]["content"][0]["text"], "Castra refused this call: because \"so\". Ask.");
        let expected = serde_json::json!({
            "code": "denied", "reason": "because \"so\"", "advice": "Ask.", "policies": ["no-deletes"]
        });
        assert_eq!(body["result"]["_meta"][META_REFUSAL], expected);
        assert_eq!(body["result"]["_meta"][META_RECEIPT], "r1");
        let legacy = RefusalContext { revision: Some(Revision::V2025_11_25), ..context };
        assert_eq!(answered(RefusalCode::Denied, &legacy).1["result"].get("resultType"), None);
    }

    #[test]
    fn what_is_over_budget_says_when_it_may_pass() {
        let refused = Refusal::new(Step::Decide, RefusalCode::OverBudget, "used up");
        let in_time = refused.clone().retry_after(std::time::Duration::from_millis(59_001));
        let context = |method| RefusalContext { id: Id::from_raw("1"), method, ..Default::default() };
        for (refused, method, status, place) in [
            (&in_time, "tools/call", 200, "/result/_meta"),
            (&in_time, "prompts/get", 429, "/error/data"),
            (&refused, "prompts/get", 200, "/error/data"),
        ] {
            let answer = refusal(refused, &context(method));
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(answer.status, status, "{method}");
            let told = &body.pointer(place).unwrap()[META_REFUSAL];
            assert_eq!(told["code"], "over-budget");
            let secs = told.get("retry_after_seconds").and_then(serde_json::Value::as_u64);
            assert_eq!(secs, refused.retry_secs());
        }
    }

    #[test]
    fn other_refusals_are_errors_with_the_status_that_the_specification_asks_for() {
        use RefusalCode::*;
        let modern = Some(Revision::V2026_07_28);
        let legacy = Some(Revision::V2025_11_25);
        let missing = |missing| RefusalContext { missing, ..Default::default() };
        for (code, revision, context, status, number) in [
            (Denied, modern, missing(Missing::Target), 200, 40301),
            (HeaderMismatch, modern, missing(Missing::Target), 400, -32020),
            (UnsupportedVersion, modern, missing(Missing::Target), 400, -32022),
            (NotFound, modern, missing(Missing::Method), 404, -32601),
            (NotFound, legacy, missing(Missing::Method), 200, -32601),
            (NotFound, modern, missing(Missing::Target), 200, -32602),
            (NotFound, legacy, missing(Missing::Target), 200, -32002),
            (NotFound, legacy, missing(Missing::Session), 404, 40401),
            (Malformed, modern, missing(Missing::Target), 400, -32600),
            (Unauthenticated, modern, missing(Missing::Target), 401, 40101),
            (UpstreamTimeout, legacy, missing(Missing::Target), 200, 50401),
        ] {
            let context =
                RefusalContext { id: Id::from_raw("\"a\""), method: "resources/read", revision, ..context };
            let (got, body) = answered(code, &context);
            assert_eq!((got, &body["error"]["code"]), (status, &number.into()), "{code:?}");
            assert_eq!(body["id"], "a");
            let expected =
                if number == -32022 { &body["error"]["data"]["supported"][0] } else { &body["id"] };
            assert!(expected.is_string());
        }
    }

    #[test]
    fn without_an_id_the_status_tells() {
        for (code, status) in [(RefusalCode::Denied, 403), (RefusalCode::UpstreamTimeout, 504)] {
            let (got, body) = answered(code, &RefusalContext::default());
            assert_eq!(got, status);
            assert_eq!(body.get("id"), None);
        }
    }
}
