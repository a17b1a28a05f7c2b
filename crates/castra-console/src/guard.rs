//! What all paths have in common: only for our own names and sites, only for operators where the
//! list says so, headers that keep browsers strict, and one form of error.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use castra_core::{Refusal, RefusalCode, Step};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;

use crate::{Shared, ViewError};

/// An error of the API.
pub(crate) struct ApiError {
    status: StatusCode,
    refusal: Refusal,
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code {
            RefusalCode::Unauthenticated | RefusalCode::BadCredential => StatusCode::UNAUTHORIZED,
            RefusalCode::ForeignOrigin
            | RefusalCode::InsufficientScope
            | RefusalCode::Denied
            | RefusalCode::ApprovalRequired => StatusCode::FORBIDDEN,
            RefusalCode::NotFound => StatusCode::NOT_FOUND,
            RefusalCode::Malformed => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self { status, refusal }
    }
}

impl From<ViewError> for ApiError {
    fn from(error: ViewError) -> Self {
        Refusal::new(Step::Answer, RefusalCode::Busy, error.0).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Refusal { code, reason, advice, .. } = self.refusal;
        let body = json!({"error": {"code": code.as_str(), "message": reason, "advice": advice}});
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 6750, section 3: what was wrong is only said of a token that was shown.
            let challenge = match code {
                RefusalCode::BadCredential => r#"Bearer realm="castra-console", error="invalid_token""#,
                _ => r#"Bearer realm="castra-console""#,
            };
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

/// Lets operators pass.
pub(crate) async fn operators_only(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    check_operator(&shared, request.headers())?;
    Ok(next.run(request).await)
}

fn check_operator(shared: &Shared, headers: &HeaderMap) -> Result<(), Refusal> {
    let refuse = |code, reason: &str| Err(Refusal::new(Step::Identify, code, reason));
    let Some(value) = only(headers, header::AUTHORIZATION)? else {
        return refuse(RefusalCode::Unauthenticated, "this needs an operator token")
            .map_err(|r| r.advise("Send it as Authorization: Bearer castra_operator_…"));
    };
    let Some((scheme, token)) = value.split_once(' ') else {
        return refuse(RefusalCode::Unauthenticated, "the Authorization header holds no bearer token");
    };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return refuse(RefusalCode::Unauthenticated, "the Authorization header holds no bearer token");
    }
    shared.view.operator(token.trim()).map(drop)
}

/// Whether a request shows a good operator token, for pages that say more to operators.
pub(crate) fn is_operator(shared: &Shared, headers: &HeaderMap) -> bool {
    check_operator(shared, headers).is_ok()
}

/// Refuses requests for other names and from other sites (DNS rebinding).
pub(crate) async fn own_sites_only(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    // HTTP/2 names the host in the target (RFC 9113, section 8.3.1).
    let authority = request.uri().authority().map(|a| a.as_str().to_owned());
    let host = match authority {
        Some(authority) => Some(authority),
        None => only(request.headers(), header::HOST)?.map(str::to_owned),
    };
    let origin = only(request.headers(), header::ORIGIN)?;
    shared.config.sites.check(host.as_deref(), origin)?;
    Ok(next.run(request).await)
}

/// The value of a header that may only be there once.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Refusal> {
    let bad = |reason| Refusal::new(Step::Listen, RefusalCode::Malformed, reason);
    let mut values = headers.get_all(&name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad(format!("the request has several {name} headers")));
    }
    value.to_str().map(Some).map_err(|_| bad(format!("the {name} header is not text")))
}

/// Nothing from elsewhere, no scripts, no frames, nothing kept unless a handler says so.
const STRICT: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Not `no-referrer`, with which browsers send forms with `Origin: null`.
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

pub(crate) async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in STRICT {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

pub(crate) async fn not_found() -> ApiError {
    Refusal::new(Step::Understand, RefusalCode::NotFound, "there is nothing at this path")
        .advise("See / for what there is")
        .into()
}
