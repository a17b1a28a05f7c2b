//! The Model Context Protocol, both eras, on the gate's side of the wire.
//!
//! A request comes in as bytes ([`serve`]), becomes an action (`target`), passes the path, and is
//! carried to its server and back by an `Exchange`, which also bridges the eras. Clients of the
//! legacy era have a `Session` here; clients of the modern era that meet a legacy server borrow a
//! `Link`. Nothing here decides or records: that is `path`.

mod call;
mod channel;
mod exchange;
mod handshake;
mod heard;
mod link;
mod list;
mod parked;
mod session;
mod subscribe;
mod target;

use std::sync::Arc;

use bytes::Bytes;
use castra_core::{AgentIdentity, Refusal, RefusalCode, ServerName, Step};
use castra_net::body::{self, BodyError};
use castra_protocol::mcp::{
    self, Era, Message, Missing, Opening, ParseLimits, RefusalContext, Request, Revision,
    headers::{self, ParamHeaders},
};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header::ACCEPT, request::Parts};
use hyper::body::Incoming;

use self::{
    call::{Caller, Client},
    session::Session,
};
pub(crate) use self::{
    channel::{Channel, standard_headers},
    link::LinkPool,
    list::SharedRoutes,
    parked::{ParkedCalls, TaskOwners},
    session::Sessions,
};
use crate::{
    answer::{self, AnswerBody, RECEIPT},
    listen::{Connection, is_json, single},
};

const SESSION: &str = "mcp-session-id";
const VERSION: &str = "mcp-protocol-version";

/// What an endpoint shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// `/mcp`: all servers, names `server__tool`.
    All,
    /// `/mcp/{server}`: one server, names unchanged.
    Server(ServerName),
}

impl Scope {
    /// The endpoint at a path, if there can be one.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/mcp")?;
        match rest.strip_prefix('/') {
            None if rest.is_empty() => Some(Self::All),
            None => None,
            Some("") => Some(Self::All),
            Some(name) => ServerName::new(name).ok().map(Self::Server),
        }
    }
}

/// Answers one HTTP request of an identified agent.
pub(crate) async fn serve(
    connection: &Connection,
    agent: Arc<AgentIdentity>,
    scope: Scope,
    head: Parts,
    body: Incoming,
) -> Response<AnswerBody> {
    if let Scope::Server(name) = &scope
        && connection.gate().server(name).is_none()
    {
        let refusal =
            Refusal::new(Step::Understand, RefusalCode::NotFound, format!("there is no server {name}"))
                .advise("castra tool list shows the servers; castra.toml names them");
        return connection.refuse(StatusCode::NOT_FOUND, &refusal, Some(&agent.name));
    }
    let door = Door { connection, agent, scope, head };
    match door.head.method {
        Method::POST => door.post(body).await,
        Method::GET => door.get().await,
        Method::DELETE => door.delete().await,
        _ => {
            let reason = format!("{} is not a method of this endpoint", door.head.method);
            let refusal = Refusal::new(Step::Listen, RefusalCode::NotAllowedHere, reason);
            let response = door.refuse_http(StatusCode::METHOD_NOT_ALLOWED, &refusal);
            answer::with_header(response, "allow", "POST, GET, DELETE")
        }
    }
}

/// One HTTP request at an MCP endpoint.
struct Door<'c> {
    connection: &'c Connection,
    agent: Arc<AgentIdentity>,
    scope: Scope,
    head: Parts,
}

impl Door<'_> {
    async fn post(self, body: Incoming) -> Response<AnswerBody> {
        let limits = self.connection.gate().limits.clone();
        if !is_json(&self.head.headers) {
            let refusal =
                Refusal::new(Step::Listen, RefusalCode::NotAllowedHere, "the body is not declared as JSON")
                    .advise("Send Content-Type: application/json");
            return self.refuse_http(StatusCode::UNSUPPORTED_MEDIA_TYPE, &refusal);
        }
        let bytes = match body::read(body, limits.body_bytes_max, limits.body_time_max).await {
            Ok(bytes) => bytes,
            Err(error) => return self.refuse_body(&error),
        };
        let message = match mcp::parse(&bytes, &ParseLimits::from(&*limits)) {
            Ok(message) => message,
            Err(fault) => {
                let id = fault.id.as_deref().and_then(mcp::Id::from_raw);
                let code = Some(fault.code());
                return self
                    .refuse(&fault.refusal(), &RefusalContext { id, code, ..RefusalContext::default() });
            }
        };
        for name in self.head.headers.keys().filter(|name| name.as_str().starts_with("mcp-")) {
            if single(&self.head.headers, name.as_str()).is_err() {
                let reason = format!("the header {name} stands twice or is not plain text");
                let refusal = Refusal::new(Step::Understand, RefusalCode::HeaderMismatch, reason);
                return self.refuse(&refusal, &context_of(&message));
            }
        }
        let modern = match &message {
            Message::Request(request) => {
                let header = self.head.headers.get(VERSION).map(HeaderValue::as_bytes);
                match mcp::opening(request, header) {
                    Ok(Opening::Modern(_)) => true,
                    Ok(Opening::Initialize | Opening::Legacy(_)) => false,
                    Err(fault) => {
                        let code = Some(fault.code());
                        // A modern client could do nothing with the older revisions.
                        let supported: &[Revision] =
                            if request.is_modern() { &[Revision::LATEST] } else { &Revision::SUPPORTED };
                        let context = RefusalContext { code, supported, ..context_of(&message) };
                        return self.refuse(&fault.refusal(), &context);
                    }
                }
            }
            Message::Notification(_) | Message::Response(_) => {
                self.header(VERSION).and_then(Revision::parse).is_some_and(|r| r.era() == Era::Modern)
            }
        };
        if modern { self.modern(&message, &bytes).await } else { self.legacy(&message, &bytes).await }
    }

    async fn modern(mut self, message: &Message<'_>, bytes: &Bytes) -> Response<AnswerBody> {
        let request = match message {
            Message::Request(request) => request,
            // No core notification goes from client to server over HTTP; closing the stream cancels.
            Message::Notification(_) => return answer::empty(StatusCode::ACCEPTED),
            Message::Response(_) => {
                let reason = "responses are not sent to a server in this revision";
                let refusal = Refusal::new(Step::Understand, RefusalCode::Malformed, reason)
                    .advise("Retry the request with inputResponses");
                return self.refuse(&refusal, &context_of(message));
            }
        };
        if !mcp::exists_in(&request.method, Era::Modern) {
            return self.no_such_method(request);
        }
        let params = match self.check_modern(request) {
            Ok(params) => params,
            Err(refusal) => return self.refuse(&refusal, &context_of(message)),
        };
        self.drop_mirrors(|name| headers::may_go_on(name, request, params.as_deref()));
        let caller = self.caller(Client::Modern);
        caller.answer(request, bytes).await
    }

    /// Headers and `_meta` must be there and agree, or header-routed policy could be led past. Gives
    /// the parameters that the called tool mirrors; none for a tool whose definition is not known.
    fn check_modern(&self, request: &Request<'_>) -> Result<Option<Arc<ParamHeaders>>, Refusal> {
        handshake::check_introduction(request)?;
        let tool = match (&self.scope, &request.target) {
            (Scope::Server(server), Some(target)) if request.method == "tools/call" => {
                self.connection.gate().server(server).and_then(|s| s.tool(&target.text).params.clone())
            }
            (Scope::All, Some(target)) if request.method == "tools/call" => mcp::split_name(&target.text)
                .and_then(|(server, tool)| self.connection.gate().server(&server)?.tool(tool).params.clone()),
            _ => None,
        };
        let lookup = |name: &str| self.head.headers.get(name).map(HeaderValue::as_bytes);
        headers::check(request, lookup, tool.as_deref()).map_err(|fault| fault.refusal())?;
        Ok(tool)
    }

    /// Drops headers that mirror the body and were not compared with it: whoever stands behind the
    /// gate would take the gate's word for them.
    fn drop_mirrors(&mut self, may_go_on: impl Fn(&str) -> bool) {
        let mirrors = |name: &&HeaderName| {
            matches!(name.as_str(), headers::METHOD | headers::NAME)
                || name.as_str().starts_with(headers::PARAM_PREFIX)
        };
        let headers = &mut self.head.headers;
        let dropped: Vec<HeaderName> =
            headers.keys().filter(mirrors).filter(|name| !may_go_on(name.as_str())).cloned().collect();
        for name in dropped {
            headers.remove(name);
        }
    }

    async fn legacy(mut self, message: &Message<'_>, bytes: &Bytes) -> Response<AnswerBody> {
        if let Message::Request(request) = message
            && request.method == "initialize"
        {
            return handshake::initialize(&self, request).await;
        }
        let session = match self.session() {
            Ok(session) => session,
            Err(refusal) => {
                let missing = Missing::Session;
                return self.refuse(&refusal, &RefusalContext { missing, ..context_of(message) });
            }
        };
        match message {
            Message::Request(request) => {
                if !mcp::exists_in(&request.method, Era::Legacy) {
                    return self.no_such_method(request);
                }
                // In this era nothing says that they agree with the body.
                self.drop_mirrors(|_| false);
                let caller = self.caller(Client::Legacy(session));
                caller.answer(request, bytes).await
            }
            Message::Notification(notification) => {
                session.notified(self.connection.gate(), notification).await;
                answer::empty(StatusCode::ACCEPTED)
            }
            Message::Response(response) => {
                match session.answered(self.connection.gate(), response, bytes).await {
                    Ok(()) => answer::empty(StatusCode::ACCEPTED),
                    Err(refusal) => self.refuse(&refusal, &context_of(message)),
                }
            }
        }
    }

    async fn get(self) -> Response<AnswerBody> {
        let modern = self.header(VERSION).and_then(Revision::parse).is_some_and(|r| r.era() == Era::Modern);
        let wants_events = self.head.headers.get_all(ACCEPT).iter().any(|v| {
            v.to_str()
                .is_ok_and(|v| v.contains("text/event-stream") || v.contains("*/*") || v.contains("text/*"))
        });
        if modern || !wants_events {
            let refusal = Refusal::new(
                Step::Listen,
                RefusalCode::NotAllowedHere,
                "GET opens a stream of events in revisions before 2026-07-28 only",
            )
            .advise("Use subscriptions/listen, or send Accept: text/event-stream");
            let response = self.refuse_http(StatusCode::METHOD_NOT_ALLOWED, &refusal);
            return answer::with_header(response, "allow", "POST");
        }
        match self.session() {
            Ok(session) => session.stream(self.connection.gate().standings.of(&self.agent)),
            Err(refusal) => self
                .refuse(&refusal, &RefusalContext { missing: Missing::Session, ..RefusalContext::default() }),
        }
    }

    async fn delete(self) -> Response<AnswerBody> {
        match self.session() {
            Ok(session) => {
                let gate = self.connection.gate();
                gate.sessions.close(&session).await;
                gate.runs.end(&self.agent.name, session.run());
                answer::empty(StatusCode::OK)
            }
            Err(refusal) => self
                .refuse(&refusal, &RefusalContext { missing: Missing::Session, ..RefusalContext::default() }),
        }
    }

    /// The session that the request names. A session of another agent or endpoint does not exist.
    fn session(&self) -> Result<Arc<Session>, Refusal> {
        let Ok(Some(id)) = single(&self.head.headers, SESSION) else {
            return Err(Refusal::new(
                Step::Understand,
                RefusalCode::Malformed,
                "the request names no session",
            )
            .advise("Send initialize first and Mcp-Session-Id with every request after it"));
        };
        self.connection
            .gate()
            .sessions
            .get(id, &self.agent.name, &self.scope, self.connection.gate().now())
            .ok_or_else(|| {
                Refusal::new(Step::Understand, RefusalCode::NotFound, "there is no such session").advise(
                    "Send initialize again: sessions end when they are unused or when the gate restarts",
                )
            })
    }

    /// Hands the request's headers on; the door is not used any more.
    fn caller(&mut self, client: Client) -> Arc<Caller> {
        Arc::new(Caller {
            gate: self.connection.gate().clone(),
            agent: self.agent.clone(),
            source: self.connection.peer().address.ip(),
            scope: self.scope.clone(),
            client,
            headers: std::mem::take(&mut self.head.headers),
        })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    fn no_such_method(&self, request: &Request<'_>) -> Response<AnswerBody> {
        let method: String = request.method.chars().take(100).collect();
        let refusal =
            Refusal::new(Step::Understand, RefusalCode::NotFound, format!("there is no method {method:?}"));
        let context = RefusalContext { missing: Missing::Method, ..context_of_request(request) };
        self.refuse(&refusal, &context)
    }

    fn refuse_body(&self, error: &BodyError) -> Response<AnswerBody> {
        let (status, refusal) = answer::body_refusal(error);
        self.refuse_http(status, &refusal)
    }

    /// Refuses before there is a message.
    fn refuse_http(&self, status: StatusCode, refusal: &Refusal) -> Response<AnswerBody> {
        self.connection.refuse(status, refusal, Some(&self.agent.name))
    }

    /// Refuses a message, in the protocol's own form.
    fn refuse(&self, refusal: &Refusal, context: &RefusalContext<'_>) -> Response<AnswerBody> {
        self.connection.gate().recorder.refusal(
            refusal,
            Some(&self.agent.name),
            self.connection.peer().address.ip(),
        );
        refused(refusal, context)
    }
}

/// The protocol's own form of a refusal, as a response.
fn refused(refusal: &Refusal, context: &RefusalContext<'_>) -> Response<AnswerBody> {
    let told = mcp::refusal(refusal, context);
    let status = StatusCode::from_u16(told.status).unwrap_or(StatusCode::BAD_REQUEST);
    let response = answer::retry_header(answer::json(status, told.body), refusal);
    match context.receipt {
        Some(receipt) => answer::with_header(response, RECEIPT, receipt),
        None => response,
    }
}

fn context_of<'a>(message: &'a Message<'_>) -> RefusalContext<'a> {
    match message {
        Message::Request(request) => context_of_request(request),
        Message::Notification(_) | Message::Response(_) => RefusalContext::default(),
    }
}

fn context_of_request<'a>(request: &'a Request<'_>) -> RefusalContext<'a> {
    RefusalContext {
        id: Some(request.id),
        method: &request.method,
        revision: request.revision(),
        requested: request.meta.protocol_version.as_deref().unwrap_or_default(),
        ..RefusalContext::default()
    }
}
