//! The one-time link that makes a person an operator. `castra up` prints the first one.
//!
//! Opening the link only explains, so that a preview or a prefetch does not use it up; the form
//! redeems it. The secret in the path is all the authority there is, so a foreign page that could
//! send the form would have to know it already.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::{Html, IntoResponse, Response},
};
use castra_identity::{
    TokenKind,
    token::{is_intact, kind_of},
};
use http::StatusCode;

use crate::{
    EnrolError, Enrolled, Shared,
    page::{Text, page},
};

/// Says what the link does and asks.
pub(crate) async fn explain(Path(secret): Path<String>) -> Response {
    if !is_link(&secret) {
        return incomplete();
    }
    page(
        "Become an operator",
        format_args!(
            "<p>This link makes you an operator of this Castra gate: you will get a token with which you can see \
             its agents, servers and log, and later approve and stop what agents do.</p>\n\
             <p>It works once. The token is shown once, on the next page; have a password manager at hand.</p>\n\
             <form method=\"post\" action=\"/enroll/{}\"><button>Enrol and show the token</button></form>\n",
            Text(&secret)
        ),
    )
    .into_response()
}

/// Redeems the link and shows the token.
pub(crate) async fn redeem(State(shared): State<Arc<Shared>>, Path(secret): Path<String>) -> Response {
    if !is_link(&secret) {
        return incomplete();
    }
    let view = shared.view.clone();
    let done = tokio::task::spawn_blocking(move || view.enrol(&secret)).await;
    match done.unwrap_or_else(|e| Err(EnrolError::Failed(e.to_string()))) {
        Ok(enrolled) => {
            tracing::info!(person = enrolled.person, "enrolled as an operator");
            welcome(&enrolled).into_response()
        }
        Err(error) => refuse(&error),
    }
}

fn welcome(enrolled: &Enrolled) -> Html<String> {
    let until = match enrolled.expires {
        Some(time) => format!(" It is good until {time}."),
        None => String::new(),
    };
    page(
        "You are an operator",
        format_args!(
            "<p>{}, this is your token. It is not shown again.{until}</p>\n<pre>{}</pre>\n\
             <p>Keep it in a password manager. Whoever has it is you.</p>\n\
             <h2>What to do with it</h2>\n\
             <p>Send it as a bearer token to the operator API of this gate:</p>\n\
             <pre>curl -H \"Authorization: Bearer $CASTRA_OPERATOR_TOKEN\" …/api/v1/status</pre>\n\
             <p>Enrol others with <code>castra person enroll NAME</code>.</p>\n",
            Text(&enrolled.person),
            Text(&enrolled.token)
        ),
    )
}

fn refuse(error: &EnrolError) -> Response {
    let status = match error {
        EnrolError::Unknown => StatusCode::NOT_FOUND,
        EnrolError::Used | EnrolError::Expired => StatusCode::GONE,
        EnrolError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    problem(status, &error.to_string())
}

fn incomplete() -> Response {
    problem(
        StatusCode::NOT_FOUND,
        "this link is not complete: copy it whole, from https or http to its last character",
    )
}

fn problem(status: StatusCode, what: &str) -> Response {
    let body = page(
        "No enrolment",
        format_args!(
            "<p class=\"bad\">{}.</p>\n<p>Whoever runs this gate gets a new link with \
             <code>castra person enroll NAME</code>.</p>\n",
            Text(&sentence(what))
        ),
    );
    (status, body).into_response()
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

fn is_link(secret: &str) -> bool {
    kind_of(secret) == Some(TokenKind::Enrolment) && is_intact(secret)
}
