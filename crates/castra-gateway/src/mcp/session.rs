//! Sessions of clients of the legacy era: who opened it, what it said of itself, its own sessions
//! at the servers, what it was asked and has not answered, and its stream.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use castra_core::{
    AgentIdentity, AgentName, Limits, Refusal, RefusalCode, RunId, ServerName, Step, Timestamp,
};
use castra_ledger::EventKind;
use castra_protocol::{
    mcp::{
        self, LogLevel, Message, MethodKind, Notification, NotificationKind, ParseLimits, Request,
        Response as Reply, Revision, Splice, bridge::ClientFacts,
    },
    sse,
};
use castra_store::{StoreError, clock};
use http::Response;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Mutex as AsyncMutex, OnceCell, OwnedMutexGuard, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Scope, link::in_time, subscribe};
use crate::{
    answer::{self, AnswerBody},
    catalogue::Server,
    gate::Gate,
    inspect::Watch,
    metrics::Metrics,
    upstream::{self, Hello, Incoming, UpstreamError},
};

/// Messages that wait for the client's stream; when it does not take them, newer ones are dropped.
const OUTBOX_MAX: usize = 256;

/// Questions to one client that may be open at once.
const QUESTIONS_MAX: usize = 64;

/// A comment goes out on a quiet stream after this time.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(20);

/// One session of one agent at one endpoint.
pub(crate) struct Session {
    id: String,
    agent: Arc<AgentIdentity>,
    scope: Scope,
    revision: Revision,
    facts: RwLock<ClientFacts>,
    /// The params of the client's `initialize`, for servers that are met later.
    hello: Bytes,
    /// A place is made first and filled when the server answers: a server that hangs holds up nobody else.
    servers: Mutex<HashMap<ServerName, Place>>,
    questions: Mutex<HashMap<String, Question>>,
    running: Mutex<Vec<(u64, String, CancellationToken)>>,
    subscriptions: Mutex<HashMap<ServerName, subscribe::Kept>>,
    outbox: mpsc::Sender<Bytes>,
    inbox: Arc<AsyncMutex<mpsc::Receiver<Bytes>>>,
    /// Ends the stream that is open, when the client opens another.
    streaming: Mutex<Option<CancellationToken>>,
    /// Names the session in records, where its id, which is a secret of the client, does not belong.
    run: RunId,
    number: AtomicU64,
    used: AtomicI64,
    closed: CancellationToken,
}

type Place = Arc<OnceCell<Arc<upstream::Session>>>;

/// Something that the client was asked.
enum Question {
    /// By a server, under this id.
    Server { session: Arc<upstream::Session>, id: String },
    /// By the gate, on behalf of a modern server.
    Gate(oneshot::Sender<Bytes>),
}

/// A request that can be taken back; forgets itself.
pub(crate) struct Running {
    session: Arc<Session>,
    number: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.session.running.lock().retain(|(number, ..)| *number != self.number);
    }
}

/// A question that is open; forgets itself.
pub(crate) struct Expected {
    session: Arc<Session>,
    id: String,
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.session.questions.lock().remove(&self.id);
    }
}

impl Session {
    pub(crate) fn run(&self) -> &RunId {
        &self.run
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Who opened it.
    pub(crate) fn agent(&self) -> &AgentIdentity {
        &self.agent
    }

    pub(crate) fn facts(&self) -> ClientFacts {
        self.facts.read().clone()
    }

    pub(crate) fn set_log_level(&self, level: LogLevel) {
        self.facts.write().log_level = Some(level);
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Puts a message on the client's stream, if there is room.
    pub(crate) fn tell(&self, message: Bytes) {
        if self.outbox.try_send(message).is_err() {
            tracing::debug!(agent = %self.agent.name, "a client does not read its stream; a message was dropped");
        }
    }

    pub(crate) fn running(self: &Arc<Self>, id: &str, cancel: CancellationToken) -> Running {
        // A client may use an id twice: each request has an entry of its own.
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        self.running.lock().push((number, id.to_owned(), cancel));
        Running { session: self.clone(), number }
    }

    /// The session's own session at a legacy server, opened when first needed.
    pub(crate) async fn to_server(
        self: &Arc<Self>,
        gate: &Arc<Gate>,
        server: &Arc<Server>,
    ) -> Result<Arc<upstream::Session>, UpstreamError> {
        let place = self.place(server)?;
        let hello = Hello { params: self.hello.clone(), shared: false };
        let opened = place
            .get_or_try_init(|| async {
                let session = server.upstream().open_session(hello).await?;
                self.adopt(gate, server, session.clone());
                Ok::<_, UpstreamError>(session)
            })
            .await?;
        if self.closed.is_cancelled() {
            // It was closed meanwhile, so nobody else will close this one.
            in_time(opened.close()).await;
            return Err(UpstreamError::Closed);
        }
        Ok(opened.clone())
    }

    fn place(&self, server: &Server) -> Result<Place, UpstreamError> {
        let mut servers = self.servers.lock();
        let place = servers.entry(server.name().clone()).or_default();
        if let Some(error) = place.get().and_then(|session| session.ended()) {
            // A session that is the client's own ends with the server's: the client must know.
            if self.is_the_servers_own(server) {
                return Err(error);
            }
            *place = Place::default();
        }
        Ok(place.clone())
    }

    /// Whether this session stands for one session of one server over HTTP.
    pub(crate) fn is_the_servers_own(&self, server: &Server) -> bool {
        matches!(self.scope, Scope::Server(_)) && server.upstream().is_http()
    }

    /// Starts to hand on what a server says unasked.
    fn adopt(self: &Arc<Self>, gate: &Arc<Gate>, server: &Arc<Server>, session: Arc<upstream::Session>) {
        let (this, gate, name) = (Arc::downgrade(self), gate.clone(), server.name().clone());
        let (server, closed) = (server.clone(), self.closed.clone());
        tokio::spawn(async move {
            let Some(mut unsolicited) = session.take_unsolicited() else { return };
            let (weak_session, allow) = (Arc::downgrade(&session), gate.server(&name).map(|s| s.allow()));
            drop(session);
            loop {
                let incoming = tokio::select! {
                    incoming = unsolicited.next() => incoming,
                    () = closed.cancelled() => return,
                };
                let (Some(Ok(incoming)), Some(this)) = (incoming, this.upgrade()) else { return };
                match incoming {
                    Incoming::Notification(body) => {
                        server.heard(&body);
                        if let Some(body) = Watch::new(&gate, None).announcement(&gate, body) {
                            this.tell(body);
                        }
                    }
                    Incoming::Request(body) => {
                        let Some(session) = weak_session.upgrade() else { return };
                        let Ok(Message::Request(question)) = mcp::parse(&body, &ParseLimits::default())
                        else {
                            continue;
                        };
                        let may = match question.kind() {
                            MethodKind::ClientRequest(mcp::InputKind::Elicit) => {
                                allow.is_some_and(|a| a.elicitation)
                            }
                            MethodKind::ClientRequest(mcp::InputKind::Sample) => {
                                allow.is_some_and(|a| a.sampling)
                            }
                            MethodKind::ClientRequest(mcp::InputKind::Roots) => {
                                allow.is_some_and(|a| a.roots)
                            }
                            _ => false,
                        };
                        let asked = if may && this.facts().can_answer(&question) {
                            this.pass_on(&session, &question, &body)
                        } else {
                            None
                        };
                        // No call ends it: it stays until it is answered, or the session ends.
                        if let Some((asked, _)) = asked {
                            let detail = format!("agent {} was asked {}", this.agent.name, question.method);
                            gate.recorder.event(EventKind::ClientAsked, Some(name.as_str()), &detail);
                            if let Some(asked) = Watch::new(&gate, None).announcement(&gate, asked) {
                                this.tell(asked);
                            }
                        } else {
                            let why = "the gate does not let this server ask that";
                            let id = Some(question.id);
                            let body = mcp::error_response(id, mcp::code::METHOD_NOT_FOUND, why, None);
                            let _ = session.respond(body.into()).await;
                        }
                    }
                    Incoming::Response(_) => {}
                }
            }
        });
    }

    /// Remembers a server's question, and gives it as the client will see it, with the id that it has
    /// there: where several servers share the session, one of ours. `None` when too many are open.
    pub(crate) fn pass_on(
        &self,
        server: &Arc<upstream::Session>,
        question: &Request<'_>,
        body: &Bytes,
    ) -> Option<(Bytes, String)> {
        let id = question.id.raw().to_owned();
        let (shown, body) = match &self.scope {
            Scope::Server(_) => (id.clone(), body.clone()),
            Scope::All => {
                let ours = self.next_id();
                let renamed = Splice::request(question).id(&ours).finish().into_owned();
                (ours, renamed.into())
            }
        };
        let mut questions = self.questions.lock();
        if questions.len() >= QUESTIONS_MAX {
            return None;
        }
        questions.insert(shown.clone(), Question::Server { session: server.clone(), id });
        Some((body, shown))
    }

    /// Forgets a question when it is dropped.
    pub(crate) fn expected(self: &Arc<Self>, id: String) -> Expected {
        Expected { session: self.clone(), id }
    }

    /// An id for a question of the gate, and where the answer will come.
    pub(crate) fn expect_answer(self: &Arc<Self>) -> (String, Expected, oneshot::Receiver<Bytes>) {
        let id = self.next_id();
        let (sender, receiver) = oneshot::channel();
        self.questions.lock().insert(id.clone(), Question::Gate(sender));
        (id.clone(), Expected { session: self.clone(), id }, receiver)
    }

    fn next_id(&self) -> String {
        format!("\"castra-{}\"", self.number.fetch_add(1, Ordering::Relaxed))
    }

    /// The client answered a question.
    pub(crate) async fn answered(&self, gate: &Gate, reply: &Reply<'_>, body: &Bytes) -> Result<(), Refusal> {
        let id = reply.id.as_ref().map(|id| id.raw().to_owned()).unwrap_or_default();
        let question = self.questions.lock().remove(&id);
        if question.is_some() {
            let detail = format!("agent {} answered a question with {} bytes", self.agent.name, body.len());
            gate.recorder.event(EventKind::ClientAnswered, None, &detail);
        }
        match question {
            Some(Question::Gate(waiting)) => {
                // Whoever waited may have given up.
                let _ = waiting.send(body.clone());
                Ok(())
            }
            Some(Question::Server { session, id: own }) => {
                let body = if own == id {
                    body.clone()
                } else {
                    Bytes::from(Splice::response(reply).id(&own).finish().into_owned())
                };
                session.respond(body).await.map_err(|error| {
                    Refusal::new(
                        Step::Act,
                        error.code(),
                        format!("the server did not take the answer: {error}"),
                    )
                })
            }
            None => {
                Err(Refusal::new(Step::Understand, RefusalCode::NotFound, "nothing was asked under this id"))
            }
        }
    }

    /// The client notified.
    pub(crate) async fn notified(self: &Arc<Self>, gate: &Arc<Gate>, notification: &Notification<'_>) {
        match notification.kind() {
            Some(NotificationKind::Cancelled) => {
                let id = notification.request_id.as_ref().map(|id| id.raw().to_owned()).unwrap_or_default();
                for (_, _, cancel) in self.running.lock().iter().filter(|(_, running, _)| *running == id) {
                    cancel.cancel();
                }
            }
            // Ours was sent when the server's session was opened.
            Some(NotificationKind::Initialized) => {
                subscribe::follow_modern_servers(self, gate).await;
            }
            Some(NotificationKind::Progress | NotificationKind::RootsChanged) => {
                let servers = self.at_servers();
                let body = Bytes::copy_from_slice(notification.text.as_bytes());
                for server in servers {
                    if let Err(error) = server.notify(body.clone()).await {
                        tracing::debug!(%error, "a server did not take a notification");
                    }
                }
            }
            _ => {}
        }
    }

    /// Keeps or ends a subscription to a resource of a modern server.
    pub(crate) fn subscribe(self: &Arc<Self>, gate: &Arc<Gate>, server: &ServerName, uri: &str, on: bool) {
        let mut all = self.subscriptions.lock();
        let kept = all.entry(server.clone()).or_default();
        kept.change(uri, on);
        if let Some(server) = gate.server(server) {
            kept.restart(self, gate, &server);
        }
    }

    /// Follows what a modern server announces.
    pub(crate) fn follow(self: &Arc<Self>, gate: &Arc<Gate>, server: &Arc<Server>) {
        let mut all = self.subscriptions.lock();
        all.entry(server.name().clone()).or_default().restart(self, gate, server);
    }

    /// The client's stream (GET), while its credential stands. There is one at a time, and the newest
    /// counts: a client that lost its connection may be back before that shows here.
    pub(crate) fn stream(self: Arc<Self>, standing: CancellationToken) -> Response<AnswerBody> {
        let current = standing.child_token();
        if let Some(before) = self.streaming.lock().replace(current.clone()) {
            before.cancel();
        }
        let stream = Stream { inbox: None, current, session: self };
        let events = futures_util::stream::unfold(stream, |mut stream| async move {
            let burst = stream.next().await?;
            Some((burst, stream))
        });
        answer::events(events)
    }

    pub(crate) async fn forget(&self, server: &ServerName) {
        let gone = self.servers.lock().remove(server);
        if let Some(session) = gone.as_ref().and_then(|place| place.get()) {
            in_time(session.close()).await;
        }
    }

    /// Open sessions at servers, to pass something on to all of them.
    pub(crate) fn at_servers(&self) -> Vec<Arc<upstream::Session>> {
        self.servers.lock().values().filter_map(|place| place.get().cloned()).collect()
    }

    async fn close(&self) {
        self.closed.cancel();
        for (_, _, cancel) in self.running.lock().iter() {
            cancel.cancel();
        }
        self.questions.lock().clear();
        self.subscriptions.lock().clear();
        let servers = self.at_servers();
        self.servers.lock().clear();
        futures_util::future::join_all(servers.iter().map(|session| in_time(session.close()))).await;
    }

    fn idle_ms(&self, now: Timestamp) -> i64 {
        let streaming = self.streaming.lock().as_ref().is_some_and(|stream| !stream.is_cancelled());
        if !self.running.lock().is_empty() || streaming {
            return 0;
        }
        now.millis() - self.used.load(Ordering::Relaxed)
    }
}

/// The client's stream, until the client goes or opens another.
struct Stream {
    session: Arc<Session>,
    inbox: Option<OwnedMutexGuard<mpsc::Receiver<Bytes>>>,
    current: CancellationToken,
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        let inbox = match &mut self.inbox {
            Some(inbox) => inbox,
            none => tokio::select! {
                inbox = self.session.inbox.clone().lock_owned() => none.insert(inbox),
                () = self.current.cancelled() => return None,
            },
        };
        let mut buffer = Vec::new();
        tokio::select! {
            message = inbox.recv() => sse::encode(&mut buffer, Some("message"), None, &message?),
            () = self.session.closed.cancelled() => return None,
            () = self.current.cancelled() => return None,
            () = tokio::time::sleep(KEEP_ALIVE) => buffer.extend_from_slice(sse::KEEP_ALIVE),
        }
        while let Ok(message) = inbox.try_recv() {
            sse::encode(&mut buffer, Some("message"), None, &message);
        }
        Some(buffer.into())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A newer stream has put its own token there and cancelled this one's.
        if !self.current.is_cancelled() {
            *self.session.streaming.lock() = None;
        }
    }
}

/// All sessions.
pub(crate) struct Sessions {
    sessions: RwLock<HashMap<String, Arc<Session>>>,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
}

/// A session that is to be.
pub(crate) struct NewSession<'a> {
    pub(crate) agent: &'a Arc<AgentIdentity>,
    pub(crate) scope: &'a Scope,
    pub(crate) facts: ClientFacts,
    pub(crate) hello: Bytes,
    /// The server's session that came with it, where the endpoint is of one legacy server.
    pub(crate) upstream: Option<(Arc<Server>, Arc<upstream::Session>)>,
}

impl Sessions {
    pub(crate) fn new(limits: Arc<Limits>, metrics: Arc<Metrics>) -> Self {
        Self { sessions: RwLock::default(), limits, metrics }
    }

    /// Opens a session. An agent that has its limit loses the one that it used longest ago: clients
    /// of this era often go without closing theirs.
    pub(crate) async fn open(&self, gate: &Arc<Gate>, new: NewSession<'_>) -> Result<Arc<Session>, Refusal> {
        let random = |_| clock::random::<16>().map(u128::from_be_bytes);
        let [id, run] = [0, 1].map(random);
        let no_chance = |e: StoreError| Refusal::new(Step::Understand, RefusalCode::Busy, e.to_string());
        let (id, run) = (id.map_err(no_chance)?, format!("session-{:032x}", run.map_err(no_chance)?));
        let run = RunId::new(&run).ok_or_else(|| {
            Refusal::new(Step::Understand, RefusalCode::Busy, "the session could not be named")
        })?;
        let (outbox, inbox) = mpsc::channel(OUTBOX_MAX);
        let now = gate.now();
        let session = Arc::new(Session {
            id: format!("{id:032x}"),
            agent: new.agent.clone(),
            scope: new.scope.clone(),
            revision: new.facts.revision,
            facts: RwLock::new(new.facts),
            hello: new.hello,
            servers: Mutex::default(),
            questions: Mutex::default(),
            running: Mutex::default(),
            subscriptions: Mutex::default(),
            outbox,
            inbox: Arc::new(AsyncMutex::new(inbox)),
            streaming: Mutex::default(),
            run,
            number: AtomicU64::new(1),
            used: AtomicI64::new(now.millis()),
            closed: gate.closing.child_token(),
        });
        if let Some((server, upstream)) = new.upstream {
            session.adopt(gate, &server, upstream.clone());
            let place = Place::new(OnceCell::new_with(Some(upstream)));
            session.servers.lock().insert(server.name().clone(), place);
        }
        let pushed_out = {
            let mut sessions = self.sessions.write();
            let of_agent = sessions.values().filter(|s| s.agent.name == session.agent.name);
            let full = of_agent.clone().count() >= self.limits.sessions_per_agent_max;
            let oldest = of_agent.max_by_key(|s| s.idle_ms(now)).map(|s| s.id.clone());
            let pushed_out = if full { oldest.and_then(|id| sessions.remove(&id)) } else { None };
            sessions.insert(session.id.clone(), session.clone());
            self.metrics.sessions.add(if pushed_out.is_some() { 0 } else { 1 });
            pushed_out
        };
        if let Some(old) = pushed_out {
            tracing::info!(agent = %old.agent.name, "an agent has too many sessions; the least used one ends");
            old.close().await;
        }
        Ok(session)
    }

    /// The session under an id, if it is this agent's and this endpoint's.
    pub(crate) fn get(
        &self,
        id: &str,
        agent: &AgentName,
        scope: &Scope,
        now: Timestamp,
    ) -> Option<Arc<Session>> {
        let sessions = self.sessions.read();
        let session = sessions.get(id).filter(|s| s.agent.name == *agent && s.scope == *scope)?;
        session.used.store(now.millis(), Ordering::Relaxed);
        Some(session.clone())
    }

    pub(crate) async fn close(&self, session: &Session) {
        self.close_where(|s| s.id == session.id).await;
    }

    pub(crate) async fn close_idle(&self) {
        let (now, idle) = (clock::now(), self.limits.session_idle_max.as_millis() as i64);
        self.close_where(|s| s.idle_ms(now) > idle).await;
    }

    pub(crate) async fn close_of(&self, agent: &AgentName) {
        self.close_where(|s| s.agent.name == *agent).await;
    }

    pub(crate) async fn close_to(&self, server: &ServerName) {
        self.close_where(|s| s.scope == Scope::Server(server.clone())).await;
        let others: Vec<_> = self.sessions.read().values().cloned().collect();
        futures_util::future::join_all(others.iter().map(|session| session.forget(server))).await;
    }

    pub(crate) async fn close_all(&self) {
        self.close_where(|_| true).await;
    }

    async fn close_where(&self, which: impl Fn(&Session) -> bool) {
        let mut closed = Vec::new();
        {
            let mut sessions = self.sessions.write();
            sessions.retain(|_, session| {
                let close = which(session);
                if close {
                    closed.push(session.clone());
                }
                !close
            });
        }
        self.metrics.sessions.sub(closed.len() as i64);
        futures_util::future::join_all(closed.iter().map(|session| session.close())).await;
    }
}
