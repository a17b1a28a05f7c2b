//! Servers that behave and servers that do not, as the upstream layer sees them: real processes and
//! real sockets, one case for each way to misbehave.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

mod child;
mod legacy_http;
mod modern_http;
mod server;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use castra_core::{Limits, ServerName};
use castra_gateway::upstream::{
    Answer, Deps, EventStream, Incoming, Outgoing, RequestId, Transport, Upstream, UpstreamConfig,
    UpstreamError,
};
use castra_net::client::{ClientSettings, HttpClient};
use castra_protocol::mcp::{Message, ParseLimits, parse};

/// Limits small enough to reach in a test.
fn limits() -> Limits {
    Limits {
        answer_bytes_max: 64 << 10,
        call_time_max: Duration::from_secs(20),
        stream_idle_max: Duration::from_secs(20),
        connect_time_max: Duration::from_secs(10),
        children_per_server_max: 2,
        ..Limits::default()
    }
}

fn upstream(transport: Transport, limits: Limits) -> Arc<Upstream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let client = HttpClient::new(ClientSettings::from(&limits), &tls);
    let config = UpstreamConfig { name: ServerName::new("test").unwrap(), transport };
    Upstream::new(config, Deps { client, limits: Arc::new(limits), random: Arc::new(|| u64::MAX) })
}

/// A request with the id that stands in it.
fn request(body: impl Into<String>) -> Outgoing {
    let body = body.into();
    let Ok(Message::Request(view)) = parse(body.as_bytes(), &ParseLimits::default()) else {
        panic!("no request: {body}")
    };
    let id = RequestId::from(view.id);
    Outgoing::request(body.into(), id)
}

/// A call of a tool.
fn call(id: &str, tool: &str) -> Outgoing {
    request(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}"}}}}"#))
}

fn text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn whole(answer: Result<Answer, UpstreamError>) -> String {
    match answer.expect("an answer") {
        Answer::Whole { body, .. } => text(&body).to_owned(),
        other => panic!("not whole: {other:?}"),
    }
}

fn events(answer: Result<Answer, UpstreamError>) -> EventStream {
    match answer.expect("an answer") {
        Answer::Events(events) => events,
        other => panic!("no stream: {other:?}"),
    }
}

/// The whole of a stream: n:, q: and r: for notifications, requests and the response, e: for an error.
async fn all(mut events: EventStream) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(message) = events.next().await {
        seen.push(shown(message));
    }
    assert!(events.next().await.is_none() && events.try_next().is_none());
    seen
}

fn shown(message: Result<Incoming, UpstreamError>) -> String {
    match message {
        Ok(Incoming::Notification(bytes)) => format!("n:{}", text(&bytes)),
        Ok(Incoming::Request(bytes)) => format!("q:{}", text(&bytes)),
        Ok(Incoming::Response(bytes)) => format!("r:{}", text(&bytes)),
        Err(error) => format!("e:{error}"),
    }
}

/// Waits for something that happens beside us.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}
