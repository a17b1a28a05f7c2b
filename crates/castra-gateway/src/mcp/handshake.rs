//! Handshakes: `initialize` and its kin of the legacy era, `server/discover` of the modern one.
//! Between eras each is answered from what the server said in its own.

use std::sync::Arc;

use bytes::Bytes;
use castra_core::{Refusal, RefusalCode, Step};
use castra_protocol::{
    json::Span,
    mcp::{
        self, Handshake, Message, Request, Revision,
        bridge::{self, ClientFacts, LegacyStep, ServerFacts},
    },
};
use http::{Response, StatusCode};

use super::{
    Door, SESSION, Scope,
    call::{Caller, Client},
    context_of_request,
    exchange::{Exchange, Purpose},
    session::NewSession,
    target::check_may_use_some,
};
use crate::{
    answer::{self, AnswerBody},
    catalogue::Server,
    inspect,
    upstream::{Hello, Outgoing, RequestId, ServerEra, UpstreamError},
};

/// What the federated view offers; single servers may offer less, and then their lists are empty.
const FEDERATED: &str = r#"{"tools":{"listChanged":true},"resources":{"subscribe":true,"listChanged":true},"prompts":{"listChanged":true},"completions":{},"logging":{}}"#;

const LEGACY: [Revision; 3] = [Revision::V2025_11_25, Revision::V2025_06_18, Revision::V2025_03_26];

/// Bytes of the params of `initialize`. A session keeps them and shows them to each of its servers;
/// what clients say of themselves is mostly below one KiB, with an icon as a data URI some more.
const HELLO_BYTES_MAX: usize = 64 << 10;

/// Bytes of a client's capabilities, which are part of the key under which a link is found.
const CAPABILITIES_BYTES_MAX: usize = 16 << 10;

/// Opens a session for a client of the legacy era.
pub(super) async fn initialize(door: &Door<'_>, request: &Request<'_>) -> Response<AnswerBody> {
    match open(door, request).await {
        Ok((session, result)) => answer::with_header(answer::json(StatusCode::OK, result), SESSION, &session),
        Err(refusal) => door.refuse(&refusal, &context_of_request(request)),
    }
}

async fn open(door: &Door<'_>, request: &Request<'_>) -> Result<(String, Bytes), Refusal> {
    let gate = door.connection.gate();
    let _place = gate.in_flight.enter(&door.agent.name)?;
    if let Scope::Server(name) = &door.scope {
        check_may_use_some(gate, &door.agent, name)?;
    }
    let malformed = |reason: String| Refusal::new(Step::Understand, RefusalCode::Malformed, reason);
    let (mut facts, asked) = ClientFacts::from_initialize(request).map_err(|f| malformed(f.to_string()))?;
    let params = request.params.map(|span| request.slice(span)).unwrap_or("{}");
    at_most(params.len(), HELLO_BYTES_MAX, "the parameters of initialize")?;
    at_most(facts.capabilities.len(), CAPABILITIES_BYTES_MAX, CAPABILITIES)?;
    let hello = Bytes::copy_from_slice(params.as_bytes());
    let mut upstream = None;
    let result = match &door.scope {
        Scope::All => {
            facts.revision = bridge::negotiate(&asked, &LEGACY);
            federated_facts().initialize_result(facts.revision)
        }
        Scope::Server(name) => {
            let server = gate.server(name).ok_or_else(|| malformed(format!("there is no server {name}")))?;
            let failed = |error: UpstreamError| {
                server.metrics.failed();
                error.refusal(name)
            };
            match server.upstream().era().await.map_err(failed)? {
                ServerEra::Legacy { .. } => {
                    let hello = Hello { params: hello.clone(), shared: false };
                    let session = server.upstream().open_session(hello).await.map_err(failed)?;
                    facts.revision = session.era().revision();
                    let result = String::from_utf8_lossy(session.initialize_result()).into_owned();
                    upstream = Some((server.clone(), session));
                    result
                }
                ServerEra::Modern { discover, .. } => {
                    facts.revision = bridge::negotiate(&asked, &LEGACY);
                    let server = server_facts(&discover, ServerFacts::from_discover_result)?;
                    server.initialize_result(facts.revision)
                }
            }
        }
    };
    let new = NewSession { agent: &door.agent, scope: &door.scope, facts, hello, upstream };
    let shown = inspect::shown_result(gate, request.id, &result)?;
    let session = gate.sessions.open(gate, new).await?;
    Ok((session.id().to_owned(), shown))
}

const CAPABILITIES: &str = "what the client says that it can do";

/// What a modern client says of itself with each request must not be more than a legacy client may
/// say of itself once: it is kept in the same places.
pub(super) fn check_introduction(request: &Request<'_>) -> Result<(), Refusal> {
    let length = |span: Option<Span>| span.map_or(0, |span| span.end.saturating_sub(span.start));
    at_most(length(request.meta.client_info), HELLO_BYTES_MAX, "what the client says of itself")?;
    at_most(length(request.meta.client_capabilities), CAPABILITIES_BYTES_MAX, CAPABILITIES)
}

fn at_most(bytes: usize, bytes_max: usize, what: &str) -> Result<(), Refusal> {
    if bytes <= bytes_max {
        return Ok(());
    }
    let reason = format!("{what} takes {bytes} bytes; the limit is {bytes_max}");
    Err(Refusal::new(Step::Understand, RefusalCode::LimitReached, reason).advise("Say less"))
}

/// Answers a handshake within a session, or `server/discover`.
pub(crate) async fn answer(
    caller: &Arc<Caller>,
    request: &Request<'_>,
    bytes: &Bytes,
    step: Handshake,
) -> Response<AnswerBody> {
    let here = |result: &str| answer::json(StatusCode::OK, mcp::result_response(request.id, result));
    let known = match (step, &caller.scope) {
        (Handshake::Ping, _) => return here("{}"),
        (Handshake::Discover, Scope::All) => {
            return here(&federated_facts().discover_result(&[Revision::LATEST]));
        }
        (Handshake::Discover, Scope::Server(name)) => discover(caller, name).await,
        (Handshake::SetLogLevel, _) => return set_log_level(caller, request, bytes).await,
        (Handshake::Initialize, _) => {
            Err(Refusal::new(Step::Understand, RefusalCode::Malformed, "the session is open already"))
        }
    };
    match known {
        Ok(Discovered::Translated(result)) => {
            match inspect::shown_result(&caller.gate, request.id, &result) {
                Ok(shown) => answer::json(StatusCode::OK, shown),
                Err(refusal) => caller.refuse(&refusal, &caller.context(request)),
            }
        }
        Ok(Discovered::AskServer(server)) => forward(caller, server, request, bytes).await,
        Err(refusal) => caller.refuse(&refusal, &caller.context(request)),
    }
}

enum Discovered {
    Translated(String),
    AskServer(Arc<Server>),
}

async fn discover(caller: &Caller, name: &castra_core::ServerName) -> Result<Discovered, Refusal> {
    let server = caller.server(name)?;
    match server.upstream().era().await.map_err(|e| e.refusal(name))? {
        ServerEra::Modern { .. } => Ok(Discovered::AskServer(server)),
        ServerEra::Legacy { initialize, .. } => {
            let facts = server_facts(&initialize, ServerFacts::from_initialize_result)?;
            Ok(Discovered::Translated(facts.discover_result(&[Revision::LATEST])))
        }
    }
}

async fn forward(
    caller: &Arc<Caller>,
    server: Arc<Server>,
    request: &Request<'_>,
    bytes: &Bytes,
) -> Response<AnswerBody> {
    Exchange::start(caller.clone(), server, request, bytes.clone(), None, Purpose::Plain)
        .await
        .respond()
        .await
}

/// The level counts for the session: modern servers are told with each request, legacy ones now.
async fn set_log_level(caller: &Arc<Caller>, request: &Request<'_>, bytes: &Bytes) -> Response<AnswerBody> {
    let Client::Legacy(session) = &caller.client else {
        let refusal = Refusal::new(Step::Understand, RefusalCode::NotFound, "the level is said in _meta");
        return caller.refuse(&refusal, &caller.context(request));
    };
    let step = bridge::legacy_to_modern(&Message::Request(request.clone()), &session.facts());
    let answer = match step {
        LegacyStep::SetLogLevel { level, answer } => {
            session.set_log_level(level);
            answer
        }
        LegacyStep::Refuse(refusal) => return caller.refuse(&refusal, &caller.context(request)),
        _ => mcp::result_response(request.id, "{}"),
    };
    if let Scope::Server(name) = &caller.scope
        && let Ok(server) = caller.server(name)
        && matches!(server.upstream().known_era(), Some(ServerEra::Legacy { .. }))
    {
        return forward(caller, server, request, bytes).await;
    }
    for server in session.at_servers() {
        let out = Outgoing::request(bytes.clone(), RequestId::from(request.id.raw()));
        if let Err(error) = server.exchange(out).await {
            tracing::debug!(%error, "a server did not take the log level");
        }
    }
    answer::json(StatusCode::OK, answer)
}

fn server_facts<E: std::fmt::Display>(
    said: &Bytes,
    read: fn(&str) -> Result<ServerFacts, E>,
) -> Result<ServerFacts, Refusal> {
    let misbehaved = |why: String| Refusal::new(Step::Act, RefusalCode::UpstreamMisbehaved, why);
    let text = std::str::from_utf8(said).map_err(|e| misbehaved(e.to_string()))?;
    read(text).map_err(|e| misbehaved(e.to_string()))
}

fn federated_facts() -> ServerFacts {
    ServerFacts {
        info: Some(format!("{{\"name\":\"castra\",\"version\":\"{}\"}}", env!("CARGO_PKG_VERSION"))),
        capabilities: FEDERATED.to_owned(),
        instructions: None,
        versions: Vec::new(),
    }
}
