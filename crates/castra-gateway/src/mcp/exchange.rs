//! Step 7, act: one request on its way to a server and back.
//!
//! Where client and server speak the same era, bytes pass as they are. Where they do not, this is
//! the bridge: a legacy server's question becomes `input_required` and the call is parked until the
//! client retries; a modern server's `input_required` becomes questions to the legacy client, and
//! the retry is made here.

mod questions;
mod respond;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use castra_core::{Refusal, RefusalCode, Step};
use castra_ledger::Status;
use castra_protocol::{
    json,
    mcp::{
        self, ListKind, LogLevel, Message, Missing, NotificationKind, Outcome, ParseLimits, RefusalContext,
        Request, Response as Reply, Splice,
        bridge::{self, ClientFacts, InputNeeded, LegacyAnswer, LegacyStep, ModernStep, ServerFacts},
    },
};
use http::{HeaderMap, StatusCode};
use tokio_util::sync::CancellationToken;

use self::questions::{ASKS_TOO_MUCH, Asked};
use super::{
    Scope,
    call::{Caller, Client},
    channel::{Channel, Unreached, standard_headers},
    heard, list,
    session::Running,
    target::Target,
};
use crate::{
    catalogue::Server,
    inspect::Watch,
    record::{Ending, Permit},
    upstream::{Answer, EventStream, Incoming, Outgoing, RequestId, ServerEra, UpstreamError, forwardable},
};

/// How the two sides' eras differ.
pub(crate) enum Lane {
    /// They do not.
    Straight,
    /// A modern client meets a legacy server.
    ToLegacyServer { server: Arc<ServerFacts>, revision: mcp::Revision, client: Box<ClientFacts> },
    /// A legacy client meets a modern server.
    ToModernServer { client: Box<ClientFacts> },
}

/// What an exchange is for.
pub(crate) enum Purpose {
    /// A permitted action; its outcome is recorded before the answer leaves.
    Act(Permit),
    /// A list, of which the caller sees what it may use.
    List(ListKind),
    /// Something that is neither, such as a handshake.
    Plain,
}

/// A message on its way to the client.
pub(crate) enum Out {
    /// Something before the answer.
    Message(Bytes),
    /// The answer; nothing follows.
    Final(Final),
}

/// The answer.
pub(crate) struct Final {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    pub(crate) receipt: Option<String>,
}

/// One request on its way.
pub(crate) struct Exchange {
    caller: Arc<Caller>,
    server: Arc<Server>,
    lane: Lane,
    channel: Option<Channel>,
    purpose: Option<Purpose>,
    /// Inspects what comes back; none where the gate itself reads it.
    watch: Option<Watch>,
    /// The caller's request, under the server's own names.
    request: Bytes,
    /// What the server was sent last.
    sent: Bytes,
    id: String,
    method: String,
    params: Option<Arc<mcp::headers::ParamHeaders>>,
    log_level: Option<LogLevel>,
    /// The token under which this round's progress is told; a parked call began under another.
    progress_token: Option<String>,
    source: Source,
    out: VecDeque<Out>,
    asked: Option<Asked>,
    /// Questions of the server that the client has not answered; forgotten with the exchange.
    questions: Vec<super::session::Expected>,
    /// Takes itself out of the session's list of running requests.
    _running: Option<Running>,
    cancel: CancellationToken,
    /// Ends when the caller's credential does, or the gate.
    standing: CancellationToken,
    started: Instant,
    rounds: u8,
}

enum Source {
    Whole(StatusCode, Bytes),
    Events(EventStream),
    /// An event that was taken early, and the rest.
    Next(Incoming, Option<EventStream>),
    Failed(Unreached),
    Nothing,
}

impl Exchange {
    /// Starts a permitted action.
    pub(crate) async fn act(
        caller: Arc<Caller>,
        request: &Request<'_>,
        target: Target,
        permit: Permit,
    ) -> Self {
        let Target { server, request: renamed, params, .. } = target;
        Self::start(caller, server, request, renamed, params, Purpose::Act(permit)).await
    }

    /// Starts a request that is not an action.
    pub(crate) async fn start(
        caller: Arc<Caller>,
        server: Arc<Server>,
        request: &Request<'_>,
        renamed: Bytes,
        params: Option<Arc<mcp::headers::ParamHeaders>>,
        purpose: Purpose,
    ) -> Self {
        // Only a session's client can take a single call back; others close their connection.
        let standing = caller.gate.standings.of(&caller.agent);
        let (cancel, running) = match caller.session() {
            Some(session) => {
                let cancel = standing.child_token();
                (cancel.clone(), Some(session.running(request.id.raw(), cancel)))
            }
            None => (standing.clone(), None),
        };
        let asked = match &purpose {
            Purpose::Act(permit) => permit.inspect(),
            Purpose::List(_) | Purpose::Plain => None,
        };
        let mut exchange = Self {
            watch: Some(Watch::new(&caller.gate, asked)),
            server,
            lane: Lane::Straight,
            channel: None,
            purpose: Some(purpose),
            sent: renamed.clone(),
            request: renamed,
            id: request.id.raw().to_owned(),
            method: request.method.to_string(),
            params,
            log_level: request.meta.log_level,
            progress_token: request.meta.progress_token.map(|token| token.raw().to_owned()),
            source: Source::Nothing,
            out: VecDeque::new(),
            asked: None,
            questions: Vec::new(),
            _running: running,
            cancel,
            standing,
            started: Instant::now(),
            rounds: 0,
            caller,
        };
        exchange.open().await;
        exchange
    }

    /// Finds the way and sends. A session that turns out to be gone is opened again, once.
    async fn open(&mut self) {
        let limits = self.caller.gate.limits.clone();
        let reach_max =
            if self.server.upstream().is_http() { limits.connect_time_max } else { limits.start_time_max };
        for last in [false, true] {
            let reached = tokio::select! {
                reached = tokio::time::timeout(reach_max, self.caller.reach(&self.server, &self.request)) => {
                    reached.unwrap_or_else(|_| Err(too_slow(reach_max).into()))
                }
                () = self.cancel.cancelled() => return,
            };
            let sent = match reached {
                Ok((channel, lane)) => {
                    self.lane = lane;
                    self.channel = Some(channel);
                    self.first_send().await
                }
                Err(error) => Err(error),
            };
            match sent {
                Ok(()) => return,
                Err(error) if last || !error.retry_elsewhere() || self.clients_session_ended(&error) => {
                    self.source = Source::Failed(error);
                    return;
                }
                Err(error) => self.caller.forget(&self.server, &error).await,
            }
        }
    }

    /// A client whose session stands for the server's own must hear that it ended, and open another:
    /// what the server kept in it is gone.
    fn clients_session_ended(&self, error: &Unreached) -> bool {
        matches!(error, Unreached::Upstream(UpstreamError::SessionExpired))
            && self.caller.session().is_some_and(|session| session.is_the_servers_own(&self.server))
    }

    async fn first_send(&mut self) -> Result<(), Unreached> {
        let request = self.request.clone();
        if matches!(self.lane, Lane::Straight) && matches!(self.caller.scope, Scope::Server(_)) {
            let id = RequestId::from(self.id.as_str());
            return self.send(request, id, forwardable(&self.caller.headers)).await;
        }
        let limits = ParseLimits::from(&*self.caller.gate.limits);
        // It was parsed when it came in; a name was replaced since, nothing else.
        let Ok(message) = mcp::parse(&request, &limits) else {
            self.finish_refused(&malformed("the request could not be read again")).await;
            return Ok(());
        };
        let Message::Request(parsed) = &message else { return Ok(()) };
        match &self.lane {
            Lane::Straight => {
                let headers = self.headers_of_renamed(parsed);
                self.send(request.clone(), RequestId::from(parsed.id.raw()), headers).await
            }
            Lane::ToLegacyServer { server, revision, .. } => {
                match bridge::modern_to_legacy(parsed, server, *revision) {
                    ModernStep::Forward(body) => {
                        self.send(body.into(), RequestId::from(parsed.id.raw()), HeaderMap::new()).await
                    }
                    ModernStep::Retry { request_state, responses } => {
                        self.resume(parsed, &request_state, &responses).await
                    }
                    ModernStep::Refuse(refusal) => {
                        self.finish_refused(&refusal).await;
                        Ok(())
                    }
                    ModernStep::Discover | ModernStep::Listen(_) => {
                        self.finish_refused(&malformed("the request does not belong here")).await;
                        Ok(())
                    }
                }
            }
            Lane::ToModernServer { client } => match bridge::legacy_to_modern(&message, client) {
                LegacyStep::Forward(body) => self.send_modern(body.into()).await,
                LegacyStep::AnswerHere(body) => {
                    self.source = Source::Whole(StatusCode::OK, body.into());
                    Ok(())
                }
                LegacyStep::Subscribe { uri, answer } => {
                    self.subscribed(&uri, true);
                    self.finish(StatusCode::OK, answer.into()).await;
                    Ok(())
                }
                LegacyStep::Unsubscribe { uri, answer } => {
                    self.subscribed(&uri, false);
                    self.finish(StatusCode::OK, answer.into()).await;
                    Ok(())
                }
                LegacyStep::SetLogLevel { answer, .. } => {
                    self.finish(StatusCode::OK, answer.into()).await;
                    Ok(())
                }
                LegacyStep::Refuse(refusal) => {
                    self.finish_refused(&refusal).await;
                    Ok(())
                }
                LegacyStep::Cancel { .. } | LegacyStep::Swallow | LegacyStep::ClientAnswer => {
                    self.finish_refused(&malformed("the request does not belong here")).await;
                    Ok(())
                }
            },
        }
    }

    fn subscribed(&self, uri: &str, on: bool) {
        if let Some(session) = self.caller.session() {
            session.subscribe(&self.caller.gate, self.server.name(), uri, on);
        }
    }

    /// Headers for a request that goes out under another name than it came in.
    fn headers_of_renamed(&self, request: &Request<'_>) -> HeaderMap {
        let mut headers = forwardable(&self.caller.headers);
        if request.is_modern() {
            headers.remove("mcp-name");
            headers.extend(standard_headers(request, self.params.as_deref()));
        }
        headers
    }

    async fn send_modern(&mut self, body: Bytes) -> Result<(), Unreached> {
        let parsed = match mcp::parse(&body, &ParseLimits::default()) {
            Ok(Message::Request(request)) => {
                Some((RequestId::from(request.id.raw()), standard_headers(&request, self.params.as_deref())))
            }
            _ => None,
        };
        match parsed {
            Some((id, headers)) => self.send(body.clone(), id, headers).await,
            None => {
                self.finish_refused(&malformed("the request could not be put into the server's revision"))
                    .await;
                Ok(())
            }
        }
    }

    async fn send(&mut self, body: Bytes, id: RequestId, headers: HeaderMap) -> Result<(), Unreached> {
        let Some(channel) = self.channel.clone() else { return Ok(()) };
        self.sent = body.clone();
        let mut out = Outgoing::request(body, id);
        out.headers = headers;
        out.long = self.is_long();
        let answer = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Ok(()),
            answer = channel.send(out) => answer?,
        };
        self.source = match answer {
            Answer::Whole { status, body } => Source::Whole(status, body),
            Answer::Events(events) => Source::Events(events),
            Answer::Accepted => Source::Failed(UpstreamError::NoAnswer.into()),
        };
        Ok(())
    }

    /// The next message for the client; `None` after the final one, or when the call was taken back.
    pub(crate) async fn next(&mut self) -> Option<Out> {
        loop {
            if let Some(out) = self.out.pop_front() {
                return Some(self.settled(out).await);
            }
            self.purpose.as_ref()?;
            if let Some(asked) = self.asked.take() {
                self.hear(asked).await;
                continue;
            }
            match self.incoming().await {
                Heard::Incoming(status, incoming) => self.take(status, incoming).await,
                Heard::Failed(error) => self.finish_failed(&error).await,
                // A subscription may end without an answer.
                Heard::Ended if self.is_long() => {
                    self.purpose = None;
                    return None;
                }
                Heard::Ended => self.finish_failed(&UpstreamError::EndedEarly.into()).await,
                Heard::Cancelled => return self.cancelled().await,
            }
        }
    }

    /// What the run has learned from a message before the answer must not be lost once it has left.
    async fn settled(&mut self, out: Out) -> Out {
        let Some(Purpose::Act(permit)) = &self.purpose else { return out };
        let Err(refusal) = permit.settle().await else { return out };
        self.out.clear();
        self.finish_refused(&refusal).await;
        self.out.pop_front().unwrap_or(out)
    }

    fn is_long(&self) -> bool {
        self.method == "subscriptions/listen"
    }

    async fn incoming(&mut self) -> Heard {
        match std::mem::replace(&mut self.source, Source::Nothing) {
            Source::Whole(status, body) => Heard::Incoming(status, Incoming::Response(body)),
            Source::Failed(error) => Heard::Failed(error),
            Source::Next(incoming, rest) => {
                if let Some(events) = rest {
                    self.source = Source::Events(events);
                }
                Heard::Incoming(StatusCode::OK, incoming)
            }
            Source::Events(mut events) => {
                let heard = tokio::select! {
                    // Who ends a call closes its sessions too; the caller hears of the reason, not of that.
                    biased;
                    () = self.cancel.cancelled() => Heard::Cancelled,
                    event = events.next() => match event {
                        Some(Ok(incoming)) => Heard::Incoming(StatusCode::OK, incoming),
                        Some(Err(error)) => Heard::Failed(error.into()),
                        None => Heard::Ended,
                    },
                };
                if matches!(heard, Heard::Incoming(..)) {
                    self.source = Source::Events(events);
                }
                heard
            }
            Source::Nothing if self.cancel.is_cancelled() => Heard::Cancelled,
            Source::Nothing => Heard::Ended,
        }
    }

    async fn take(&mut self, status: StatusCode, incoming: Incoming) {
        match incoming {
            Incoming::Response(body) => self.answered(status, body).await,
            Incoming::Notification(body) => {
                if let Some(out) = self.notification(body) {
                    self.out.push_back(out);
                }
            }
            Incoming::Request(body) => self.server_asks(body).await,
        }
    }

    /// A server's notification as the client may see it.
    fn notification(&mut self, body: Bytes) -> Option<Out> {
        self.server.heard(&body);
        let translated = self.translated(body)?;
        self.message(translated)
    }

    /// A message before the answer, inspected.
    fn message(&mut self, body: Bytes) -> Option<Out> {
        let body = match &mut self.watch {
            Some(watch) => watch.announcement(&self.caller.gate, body)?,
            None => body,
        };
        if let Some(Purpose::Act(permit)) = &self.purpose {
            heard::message(permit, &body);
        }
        Some(Out::Message(body))
    }

    /// A notification in the client's era.
    fn translated(&self, body: Bytes) -> Option<Bytes> {
        let translated = match &self.lane {
            Lane::Straight => return Some(body),
            Lane::ToLegacyServer { .. } => {
                let notification = parse_notification(&body)?;
                let modern = bridge::legacy_notification_to_modern(&notification, self.log_level)?;
                match notification.kind() {
                    Some(NotificationKind::Progress) => {
                        let modern = Bytes::from(modern.into_owned());
                        let told = parse_notification(&modern)?;
                        let token = self.progress_token.as_deref()?;
                        Splice::notification(&told).progress_token(token).finish().into_owned()
                    }
                    _ => modern.into_owned(),
                }
            }
            Lane::ToModernServer { .. } => {
                let notification = parse_notification(&body)?;
                bridge::modern_notification_to_legacy(&notification)?.into_owned()
            }
        };
        Some(translated.into())
    }

    /// The server's answer is here.
    async fn answered(&mut self, status: StatusCode, body: Bytes) {
        let limits = ParseLimits::from(&*self.caller.gate.limits);
        let translated = match mcp::parse(&body, &limits) {
            Ok(Message::Response(response)) => match &self.lane {
                Lane::Straight if self.asks_too_much(&response) => {
                    Translated::Fault(ASKS_TOO_MUCH.to_owned())
                }
                Lane::Straight => Translated::Same(self.ending_of(&response)),
                Lane::ToLegacyServer { .. } if self.sends_elsewhere(&response) => {
                    Translated::Fault(ASKS_TOO_MUCH.to_owned())
                }
                Lane::ToLegacyServer { server, client, .. } => {
                    let modern = bridge::legacy_answer_to_modern(&response, &self.method, server, client);
                    Translated::Final(self.under_own_id(modern.into()))
                }
                Lane::ToModernServer { client } => {
                    match bridge::modern_answer_to_legacy(&response, &self.method, client) {
                        Ok(LegacyAnswer::Final(bytes)) => Translated::Final(self.under_own_id(bytes.into())),
                        Ok(LegacyAnswer::NeedsInput(needed)) => Translated::Ask(needed),
                        Err(fault) => Translated::Fault(fault.to_string()),
                    }
                }
            },
            _ => Translated::Fault("the answer is not a JSON-RPC response".to_owned()),
        };
        match translated {
            Translated::Same(ending) => {
                let status = self.status_like(status, &body);
                self.finish_as(status, body, ending).await;
            }
            Translated::Final(bytes) => {
                let status = self.status_of(&bytes);
                self.finish(status, bytes).await;
            }
            Translated::Ask(needed) => self.ask_client(needed).await,
            Translated::Fault(reason) => {
                let refusal = Refusal::new(Step::Act, RefusalCode::UpstreamMisbehaved, reason);
                self.finish_refused(&refusal).await;
            }
        }
    }

    /// A resumed or repeated call was sent under another id than the one that the client waits for.
    fn under_own_id(&self, body: Bytes) -> Bytes {
        let Ok(Message::Response(response)) = mcp::parse(&body, &ParseLimits::default()) else { return body };
        if response.id.as_ref().is_some_and(|id| id.raw() == self.id) {
            return body;
        }
        let spliced = Splice::response(&response).id(&self.id).finish().into_owned();
        spliced.into()
    }

    /// The HTTP status of a server's own answer. Its 401 or 503 is between it and the gate: a client
    /// that saw it would drop a good token, or give up on all servers.
    fn status_like(&self, status: StatusCode, body: &Bytes) -> StatusCode {
        let modern = matches!(self.caller.client, Client::Modern);
        match status {
            StatusCode::OK | StatusCode::BAD_REQUEST => status,
            StatusCode::NOT_FOUND if modern => status,
            _ => self.status_of(body),
        }
    }

    /// The HTTP status that a translated answer bears (2026-07-28, Streamable HTTP).
    fn status_of(&self, body: &Bytes) -> StatusCode {
        let code = match mcp::parse(body, &ParseLimits::default()) {
            Ok(Message::Response(Reply { outcome: Outcome::Error(error), .. })) => error.code,
            _ => return StatusCode::OK,
        };
        match (&self.caller.client, code) {
            (Client::Modern, mcp::code::METHOD_NOT_FOUND) => StatusCode::NOT_FOUND,
            (Client::Modern, mcp::code::MISSING_CAPABILITY) => StatusCode::BAD_REQUEST,
            _ => StatusCode::OK,
        }
    }

    async fn finish_failed(&mut self, error: &Unreached) {
        self.server.metrics.failed();
        let refusal = if self.clients_session_ended(error) {
            if let Some(session) = self.caller.session() {
                self.caller.gate.sessions.close(session).await;
            }
            Refusal::new(Step::Act, RefusalCode::NotFound, "the server ended the session")
                .advise("Send initialize again")
        } else {
            error.refusal(self.server.name())
        };
        self.finish_refused(&refusal).await;
    }

    /// Ends with a refusal in the protocol's own form.
    async fn finish_refused(&mut self, refusal: &Refusal) {
        let Some(purpose) = self.purpose.take() else { return };
        let id = self.id.clone();
        let context = RefusalContext {
            id: mcp::Id::from_raw(&id),
            method: &self.method.clone(),
            revision: Some(self.caller.revision()),
            // What the other era does not know is a method, not a tool.
            missing: match refusal.step {
                Step::Understand => Missing::Method,
                _ if refusal.code == RefusalCode::NotFound => Missing::Session,
                _ => Missing::Target,
            },
            // The message was well-formed when it came in, so what is wrong is a parameter.
            code: (refusal.code == RefusalCode::Malformed).then_some(mcp::code::INVALID_PARAMS),
            ..RefusalContext::default()
        };
        let told = mcp::refusal(refusal, &context);
        let status = StatusCode::from_u16(told.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let body = Bytes::from(told.body);
        self.caller.gate.metrics.refusal(refusal.code);
        let receipt = match purpose {
            Purpose::Act(permit) => {
                let ended = match refusal.code {
                    RefusalCode::UpstreamTimeout => Status::Timeout,
                    RefusalCode::UpstreamUnavailable | RefusalCode::UpstreamMisbehaved => {
                        Status::UpstreamFailed
                    }
                    // It was permitted, so a credential that does not count ended since.
                    RefusalCode::Cancelled | RefusalCode::ShuttingDown | RefusalCode::BadCredential => {
                        Status::Cancelled
                    }
                    _ => Status::Refused,
                };
                let ending = Ending {
                    status: ended,
                    code: Some(refusal.code.as_str()),
                    said: refusal.reason.as_bytes(),
                    upstream: self.started.elapsed(),
                    noted: self.watch.as_ref().map(Watch::noted).unwrap_or_default(),
                };
                permit.conclude(&ending).await.ok()
            }
            Purpose::List(_) | Purpose::Plain => {
                self.caller.gate.recorder.refusal(refusal, Some(&self.caller.agent.name), self.caller.source);
                None
            }
        };
        self.out.push_back(Out::Final(Final { status, body, receipt }));
    }

    /// Ends with the server's answer, in the client's form.
    async fn finish(&mut self, status: StatusCode, body: Bytes) {
        let limits = ParseLimits::from(&*self.caller.gate.limits);
        let ending = match mcp::parse(&body, &limits) {
            Ok(Message::Response(response)) => self.ending_of(&response),
            _ => (Status::UpstreamFailed, None),
        };
        self.finish_as(status, body, ending).await;
    }

    async fn finish_as(&mut self, status: StatusCode, body: Bytes, (ended, code): Ended) {
        let upstream = self.started.elapsed();
        self.server.metrics.took(upstream);
        let body = match self.shown(body) {
            Ok(body) => body,
            Err(refusal) => {
                Box::pin(self.finish_refused(&refusal)).await;
                return;
            }
        };
        let Some(purpose) = self.purpose.take() else { return };
        match purpose {
            Purpose::Act(permit) => {
                heard::answer(&permit, &self.method, &body, &ParseLimits::from(&*self.caller.gate.limits));
                let ending = Ending {
                    status: ended,
                    code: code.as_deref(),
                    said: &body,
                    upstream,
                    noted: self.watch.as_ref().map(Watch::noted).unwrap_or_default(),
                };
                match permit.conclude(&ending).await {
                    Ok(receipt) => {
                        self.out.push_back(Out::Final(Final { status, body, receipt: Some(receipt) }));
                    }
                    // It happened, but the outcome is not on record: the result does not leave.
                    Err(refusal) => {
                        self.purpose = Some(Purpose::Plain);
                        Box::pin(self.finish_refused(&refusal)).await;
                    }
                }
            }
            Purpose::List(_) | Purpose::Plain => {
                self.out.push_back(Out::Final(Final { status, body, receipt: None }));
            }
        }
    }

    /// The answer as the caller may see it: of a list what it may use, of anything what may leave.
    fn shown(&mut self, body: Bytes) -> Result<Bytes, Refusal> {
        let body = match &self.purpose {
            Some(Purpose::List(kind)) => {
                list::show(&self.caller, &self.server, *kind, &body)?.unwrap_or(body)
            }
            _ => body,
        };
        match &mut self.watch {
            Some(watch) => watch.message(&self.caller.gate, body),
            None => Ok(body),
        }
    }

    /// How the answer reads in the record.
    fn ending_of(&self, reply: &Reply<'_>) -> Ended {
        match &reply.outcome {
            Outcome::Result(result) => {
                if let Some(task) = task_id(result, reply.text) {
                    self.caller.gate.tasks.put(&self.caller.agent.name, &task, self.server.name());
                }
                let status = if result.is_error { Status::ToolError } else { Status::Ok };
                let kind = result.result_type.as_deref().filter(|kind| *kind != "complete");
                (status, kind.map(|kind| kind.chars().take(40).collect()))
            }
            Outcome::Error(error) => (Status::Error, Some(error.code.to_string())),
        }
    }

    /// The client took it back, its credential ended, or the gate is going down.
    async fn cancelled(&mut self) -> Option<Out> {
        self.source = Source::Nothing;
        if self.caller.gate.closing.is_cancelled() {
            let refusal = Refusal::new(Step::Act, RefusalCode::ShuttingDown, "the gate is shutting down")
                .advise("Try again when it is back");
            self.finish_refused(&refusal).await;
            return self.out.pop_front();
        }
        if self.standing.is_cancelled() {
            let reason = "the credential was revoked, or ended, while the request ran";
            let refusal = Refusal::new(Step::Identify, RefusalCode::BadCredential, reason);
            self.finish_refused(&refusal).await;
            return self.out.pop_front();
        }
        // Dropping the permit records that it was cancelled.
        self.purpose = None;
        None
    }

    /// Runs to the end and gives the final answer's body; for the gate's own use of lists.
    pub(crate) async fn whole(mut self) -> Option<Bytes> {
        // What it shows of them is inspected there; what it learns must be what the server said.
        self.watch = None;
        loop {
            if let Out::Final(last) = self.next().await? {
                return Some(last.body);
            }
        }
    }
}

enum Heard {
    Incoming(StatusCode, Incoming),
    Failed(Unreached),
    Ended,
    Cancelled,
}

/// How an answer reads in the record: its status, and a code where there is one.
type Ended = (Status, Option<String>);

enum Translated {
    Same(Ended),
    Final(Bytes),
    Ask(InputNeeded),
    Fault(String),
}

impl Caller {
    /// The way to a server, and the eras on it.
    pub(crate) async fn reach(
        self: &Arc<Self>,
        server: &Arc<Server>,
        request: &Bytes,
    ) -> Result<(Channel, Lane), Unreached> {
        let upstream = server.upstream();
        let era = match upstream.known_era() {
            Some(era) => era,
            None => upstream.era().await?,
        };
        match (&self.client, &era) {
            (Client::Modern, ServerEra::Modern { .. }) if upstream.is_http() => {
                Ok((Channel::Stateless(upstream.clone()), Lane::Straight))
            }
            (Client::Modern, ServerEra::Modern { .. }) => {
                let link = self.gate.links.get(&self.gate, &self.agent.name, server, None).await?;
                Ok((Channel::Session(link.session().clone()), Lane::Straight))
            }
            (Client::Modern, ServerEra::Legacy { .. }) => {
                let facts = modern_facts(request)?;
                let link = self.gate.links.get(&self.gate, &self.agent.name, server, Some(&facts)).await?;
                let lane = Lane::ToLegacyServer {
                    server: link.facts().clone(),
                    revision: link.revision(),
                    client: Box::new(facts),
                };
                Ok((Channel::Session(link.session().clone()), lane))
            }
            (Client::Legacy(session), ServerEra::Legacy { .. }) => {
                let upstream = session.to_server(&self.gate, server).await?;
                Ok((Channel::Session(upstream), Lane::Straight))
            }
            (Client::Legacy(session), ServerEra::Modern { .. }) => {
                let lane = Lane::ToModernServer { client: Box::new(session.facts()) };
                if upstream.is_http() {
                    return Ok((Channel::Stateless(upstream.clone()), lane));
                }
                let link = self.gate.links.get(&self.gate, &self.agent.name, server, None).await?;
                Ok((Channel::Session(link.session().clone()), lane))
            }
        }
    }

    /// Forgets the way to a server that turned out to be gone.
    async fn forget(&self, server: &Arc<Server>, why: &Unreached) {
        // A server that lost a session is the same as before; one that cannot be reached may come
        // back as another. What is only full or backing off says nothing about it.
        if matches!(why, Unreached::Upstream(UpstreamError::Unreachable(_) | UpstreamError::NotStarted(_))) {
            server.upstream().forget_era();
        }
        if let Some(session) = self.session() {
            session.forget(server.name()).await;
        }
        self.gate.links.forget(&self.agent.name, server.name()).await;
    }
}

fn modern_facts(request: &Bytes) -> Result<ClientFacts, Refusal> {
    match mcp::parse(request, &ParseLimits::default()) {
        Ok(Message::Request(request)) => {
            ClientFacts::from_modern(&request).map_err(|fault| malformed(&fault.to_string()))
        }
        _ => Err(malformed("the request could not be read again")),
    }
}

/// The task that a result made, in the form of either era.
fn task_id(result: &mcp::ResultView<'_>, text: &str) -> Option<String> {
    let object = result.span.of(text);
    let raw = match (&result.task, result.result_type.as_deref()) {
        (Some(task), _) => json::get(task.of(text), &["taskId"])?,
        (None, Some("task")) => json::get(object, &["taskId"])?,
        _ => return None,
    };
    json::decode(raw).map(|id| id.into_owned())
}

fn too_slow(limit: Duration) -> Refusal {
    let reason = format!("the server was not reached within {} seconds", limit.as_secs());
    Refusal::new(Step::Act, RefusalCode::UpstreamTimeout, reason)
}

fn malformed(reason: &str) -> Refusal {
    Refusal::new(Step::Understand, RefusalCode::Malformed, reason)
}

fn parse_request(bytes: &Bytes) -> Option<Request<'_>> {
    match mcp::parse(bytes, &ParseLimits::default()) {
        Ok(Message::Request(request)) => Some(request),
        _ => None,
    }
}

fn parse_notification(bytes: &Bytes) -> Option<mcp::Notification<'_>> {
    match mcp::parse(bytes, &ParseLimits::default()) {
        Ok(Message::Notification(notification)) => Some(notification),
        _ => None,
    }
}
