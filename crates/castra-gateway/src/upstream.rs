//! One MCP server as the gate reaches it: over HTTP or as a child process, in the era that the
//! server itself speaks. Nothing is translated here; what era it is gets found out and told.
//!
//! [`Upstream::post`] is the stateless path of the modern era and the hot one: no task, no queue, no
//! copy. [`Upstream::open_session`] is for servers that keep something between requests. Whatever a
//! server does wrong comes out as one [`UpstreamError`].

mod backoff;
mod child_session;
mod counters;
mod endpoint;
mod error;
mod events;
mod handshake;
mod http_session;
mod message;
mod queue;
mod rewrite;
mod session;

use std::{fmt, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use castra_core::{Limits, ServerName};
use castra_host::{
    Secret,
    child::{self, ChildLimits, ChildSpec},
};
use castra_net::client::HttpClient;
use castra_protocol::mcp::Revision;
use http::{HeaderName, HeaderValue, Uri};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::timeout};

pub use backoff::Random;
pub use counters::Counters;
pub use error::UpstreamError;
pub use events::EventStream;
pub use handshake::ServerEra;
pub use message::{Answer, Hello, Incoming, Outgoing, RequestId, forwardable};
pub use session::{Session, Unsolicited};

use backoff::Health;
use child_session::ChildSession;
use endpoint::{Endpoint, Reply};
use handshake::Discovered;
use http_session::HttpSession;

/// A server as it is configured, with its secrets resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Its name.
    pub name: ServerName,
    /// How it is reached.
    pub transport: Transport,
}

/// How a server is reached. `Debug` shows no value of a header or variable.
#[derive(Clone, PartialEq, Eq)]
pub enum Transport {
    /// Streamable HTTP.
    Http {
        /// The MCP endpoint.
        url: Uri,
        /// Headers of every message, such as credentials. Each name once.
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    /// A child process.
    Stdio {
        /// The program and its arguments.
        command: Vec<String>,
        /// Its environment, besides [`castra_host::child::BASE_ENVIRONMENT`].
        env: Vec<(String, Secret)>,
        /// Its working folder.
        cwd: Option<PathBuf>,
    },
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { url, headers } => {
                let names: Vec<_> = headers.iter().map(|(name, _)| name).collect();
                // A query can hold a key.
                let place = url.authority().map(|a| a.host());
                f.debug_struct("Http").field("host", &place).field("headers", &names).finish()
            }
            Self::Stdio { command, env, cwd } => {
                let names: Vec<_> = env.iter().map(|(name, _)| name).collect();
                let program = command.first();
                f.debug_struct("Stdio")
                    .field("program", &program)
                    .field("env", &names)
                    .field("cwd", cwd)
                    .finish()
            }
        }
    }
}

/// What an upstream needs from outside.
#[derive(Clone)]
pub struct Deps {
    /// The client for HTTP; one with its own TLS where the server needs that.
    pub client: HttpClient,
    /// The limits of the gate.
    pub limits: Arc<Limits>,
    /// Chance, for the jitter of the backoff.
    pub random: Random,
}

/// One configured server, shared by all who call it.
#[derive(Debug)]
pub struct Upstream {
    config: UpstreamConfig,
    limits: Arc<Limits>,
    endpoint: Option<Arc<Endpoint>>,
    era: ArcSwapOption<ServerEra>,
    /// Held by whoever is finding out the era.
    probing: tokio::sync::Mutex<()>,
    /// The session of the last probe, for whoever opens one with the same hello soon.
    spare: Mutex<Option<Spare>>,
    health: Health,
    counters: Arc<Counters>,
    children: Arc<Semaphore>,
}

#[derive(Debug)]
struct Spare {
    hello: Hello,
    session: Arc<Session>,
}

/// What is known of a child before it is greeted.
enum Known {
    Nothing,
    Modern(ServerEra),
    Legacy,
}

/// How a greeting went.
enum Greeted {
    As(ServerEra),
    /// Modern, but it has been sent `initialize` as well, which binds a server of both eras to the
    /// legacy one for the life of the process.
    ModernTooLate(ServerEra),
    /// It ended when it was asked who it is, as some legacy servers do.
    DiedOfTheProbe,
}

/// A child that has not answered `server/discover` by then may be a legacy server that ignores it,
/// or slow to start, so it is sent `initialize` as well.
const PROBE_TIME: Duration = Duration::from_secs(3);
/// A spare session that nobody wanted is closed.
const SPARE_TIME_MAX: Duration = Duration::from_secs(60);
/// Lines that wait for a child to read them.
const STDIN_QUEUE_MAX: usize = 16;
/// Closing standard input, then SIGTERM, then SIGKILL, this far apart.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);

impl Upstream {
    /// Makes it; reaches for nothing.
    pub fn new(config: UpstreamConfig, deps: Deps) -> Arc<Self> {
        let endpoint = match &config.transport {
            Transport::Http { url, headers } => {
                Some(Arc::new(Endpoint::new(deps.client, url.clone(), headers, deps.limits.clone())))
            }
            Transport::Stdio { .. } => None,
        };
        Arc::new(Self {
            children: Arc::new(Semaphore::new(deps.limits.children_per_server_max)),
            config,
            endpoint,
            limits: deps.limits,
            era: ArcSwapOption::empty(),
            probing: tokio::sync::Mutex::default(),
            spare: Mutex::default(),
            health: Health::new(deps.random),
            counters: Arc::default(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &ServerName {
        &self.config.name
    }

    /// As it was configured.
    pub fn config(&self) -> &UpstreamConfig {
        &self.config
    }

    /// Whether it is reached over HTTP; else it is a child process.
    pub fn is_http(&self) -> bool {
        self.endpoint.is_some()
    }

    /// What it did that it should not.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What it speaks, if that has been found out.
    pub fn known_era(&self) -> Option<ServerEra> {
        self.era.load().as_deref().cloned()
    }

    /// Forgets what it speaks, for when the server seems to have been replaced.
    pub fn forget_era(&self) {
        self.era.store(None);
    }

    /// What it speaks. Found out once and kept; who asks meanwhile waits for the same answer.
    pub async fn era(self: &Arc<Self>) -> Result<ServerEra, UpstreamError> {
        if let Some(era) = self.known_era() {
            return Ok(era);
        }
        let _turn = self.probing.lock().await;
        if let Some(era) = self.known_era() {
            return Ok(era);
        }
        match &self.endpoint {
            Some(endpoint) => self.probe_http(endpoint).await,
            None => self.probe_child().await,
        }
    }

    /// Sends one message to a modern server over HTTP and gives its answer.
    ///
    /// The body and headers go as they are, with the configured headers over them. A response is
    /// checked to be for this id; whatever else the server sends instead is an error.
    pub async fn post(&self, out: Outgoing) -> Result<Answer, UpstreamError> {
        let endpoint = self.endpoint.as_ref().ok_or(UpstreamError::NotStateless)?;
        post(endpoint, out).await
    }

    /// Opens a session with a legacy server, or starts a child process.
    pub async fn open_session(self: &Arc<Self>, hello: Hello) -> Result<Arc<Session>, UpstreamError> {
        if let Some(session) = self.take_spare(&hello) {
            return Ok(session);
        }
        let Some(endpoint) = &self.endpoint else { return self.start(&hello).await.map(Arc::new) };
        if self.era().await?.is_modern() {
            return Err(UpstreamError::Stateless);
        }
        if let Some(session) = self.take_spare(&hello) {
            return Ok(session);
        }
        self.open_http(endpoint, &hello).await.map(Arc::new)
    }

    async fn open_http(&self, endpoint: &Arc<Endpoint>, hello: &Hello) -> Result<Session, UpstreamError> {
        self.health.admit().await?;
        match HttpSession::open(endpoint.clone(), hello).await {
            Ok(session) => {
                self.health.succeeded();
                Ok(Session::http(session))
            }
            Err(error) => {
                self.failed(&error);
                Err(error)
            }
        }
    }

    async fn probe_http(self: &Arc<Self>, endpoint: &Arc<Endpoint>) -> Result<ServerEra, UpstreamError> {
        self.health.admit().await?;
        let discovered = discover_http(endpoint).await.inspect_err(|error| self.failed(error))?;
        let era = match discovered {
            Discovered::Modern(era) => {
                self.health.succeeded();
                era
            }
            Discovered::Legacy => {
                let hello = Hello::gate(Revision::LATEST_LEGACY);
                let session = self.open_http(endpoint, &hello).await?;
                let era = session.era().clone();
                self.keep_spare(hello, session);
                era
            }
        };
        self.era.store(Some(Arc::new(era.clone())));
        Ok(era)
    }

    async fn probe_child(self: &Arc<Self>) -> Result<ServerEra, UpstreamError> {
        let hello = Hello::gate(Revision::LATEST_LEGACY);
        let session = self.start(&hello).await?;
        let era = session.era().clone();
        self.keep_spare(hello, session);
        Ok(era)
    }

    /// Starts a child and greets it; finds out its era on the way if that is not known.
    async fn start(self: &Arc<Self>, hello: &Hello) -> Result<Session, UpstreamError> {
        self.health.admit().await?;
        let mut known = match self.known_era() {
            None => Known::Nothing,
            Some(era) if era.is_modern() => Known::Modern(era),
            Some(_) => Known::Legacy,
        };
        // Each turn knows more than the one before, so there are at most two.
        loop {
            let place =
                self.children.clone().try_acquire_owned().map_err(|_| UpstreamError::TooManyChildren {
                    max: self.limits.children_per_server_max,
                })?;
            let child = self.spawn().inspect_err(|error| self.failed(error))?;
            let time_max = self.limits.start_time_max;
            let greeted = timeout(time_max, greet(&child, hello, &known)).await;
            let late = UpstreamError::Timeout { awaited: "handshake", after: time_max };
            match greeted.unwrap_or(Err(late)) {
                Ok(Greeted::As(era)) => {
                    if era.is_modern() {
                        child.speaks_modern();
                    }
                    self.era.store(Some(Arc::new(era.clone())));
                    return Ok(Session::child(child, era, place));
                }
                Ok(Greeted::ModernTooLate(era)) => known = Known::Modern(era),
                Ok(Greeted::DiedOfTheProbe) => known = Known::Legacy,
                Err(error) => {
                    // A child that ended by itself has been counted where that was seen.
                    if !matches!(error, UpstreamError::Died(_)) {
                        self.failed(&error);
                    }
                    self.forget_era();
                    return Err(error);
                }
            }
        }
    }

    fn spawn(&self) -> Result<ChildSession, UpstreamError> {
        let Transport::Stdio { command, env, cwd } = &self.config.transport else {
            return Err(UpstreamError::NotStateless);
        };
        let (program, args) = command.split_first().map_or((String::new(), &[][..]), |(p, a)| (p.clone(), a));
        let spec = ChildSpec {
            name: self.config.name.clone(),
            command: program.into(),
            args: args.iter().map(Into::into).collect(),
            env: env.clone(),
            cwd: cwd.clone(),
        };
        let limits = ChildLimits {
            line_bytes_max: self.limits.answer_bytes_max,
            stdin_queue_max: STDIN_QUEUE_MAX,
            stop_time_max: STOP_TIME_MAX,
        };
        let (child, lines) = child::start(&spec, limits).map_err(UpstreamError::NotStarted)?;
        Counters::add(&self.counters.started);
        let name = self.config.name.clone();
        Ok(ChildSession::new(
            name,
            child,
            lines,
            self.limits.clone(),
            self.counters.clone(),
            self.health.clone(),
        ))
    }

    /// Notes a failure that should slow the next attempt down. That a server has no session for us
    /// or no place is an answer, not a failure to come up.
    fn failed(&self, error: &UpstreamError) {
        if !matches!(error, UpstreamError::TooManyChildren { .. } | UpstreamError::BackingOff { .. }) {
            self.health.failed(error);
        }
        if matches!(error, UpstreamError::HandshakeRefused { .. } | UpstreamError::Status(_)) {
            self.forget_era();
        }
    }

    fn take_spare(&self, hello: &Hello) -> Option<Arc<Session>> {
        let mut spare = self.spare.lock();
        let fits = spare.as_ref().is_some_and(|s| s.session.era().is_modern() || s.hello == *hello);
        let session = if fits { spare.take()?.session } else { return None };
        session.ended().is_none().then_some(session)
    }

    fn keep_spare(self: &Arc<Self>, hello: Hello, session: Session) {
        let session = Arc::new(session);
        *self.spare.lock() = Some(Spare { hello, session: session.clone() });
        let (upstream, session) = (Arc::downgrade(self), Arc::downgrade(&session));
        tokio::spawn(async move {
            tokio::time::sleep(SPARE_TIME_MAX).await;
            let (Some(upstream), Some(session)) = (upstream.upgrade(), session.upgrade()) else { return };
            let unwanted = {
                let mut spare = upstream.spare.lock();
                let still = spare.as_ref().is_some_and(|s| Arc::ptr_eq(&s.session, &session));
                if still { spare.take() } else { None }
            };
            if unwanted.is_some() {
                session.close().await;
            }
        });
    }
}

async fn post(endpoint: &Arc<Endpoint>, out: Outgoing) -> Result<Answer, UpstreamError> {
    let deadline = endpoint.deadline();
    let Outgoing { body, id, headers, long } = out;
    let response = endpoint.post(body, headers, deadline).await?;
    let reply = id.map(|id| Reply { id, mapping: None, long, deadline, link: None });
    endpoint.answer(response, reply).await
}

/// Asks a server over HTTP who it is. An answer of any kind but a modern one is a legacy server's;
/// no answer, or a refused credential, is no answer to the question.
async fn discover_http(endpoint: &Arc<Endpoint>) -> Result<Discovered, UpstreamError> {
    use http::StatusCode;
    let answered = async { handshake::response_of(post(endpoint, handshake::discover()).await?).await };
    match answered.await {
        Ok(response) => handshake::discovered(&response, &endpoint.parse),
        Err(
            error @ (UpstreamError::Unreachable(_)
            | UpstreamError::Broken(_)
            | UpstreamError::Timeout { .. }
            | UpstreamError::TooLarge { .. }
            | UpstreamError::Redirected(_)
            | UpstreamError::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)),
        ) => Err(error),
        Err(_) => Ok(Discovered::Legacy),
    }
}

/// Greets a child: asks who it is unless that is known, and does the handshake of a legacy one
/// (2026-07-28, basic/transports/stdio, "Backward Compatibility").
async fn greet(child: &ChildSession, hello: &Hello, known: &Known) -> Result<Greeted, UpstreamError> {
    match known {
        Known::Modern(era) => return Ok(Greeted::As(era.clone())),
        Known::Legacy => return initialize(child, hello).await.map(Greeted::As),
        Known::Nothing => {}
    }
    let mut discovering = pin!(discover_child(child));
    match timeout(PROBE_TIME, &mut discovering).await {
        Ok(Ok(Discovered::Modern(era))) => return Ok(Greeted::As(era)),
        Ok(Ok(Discovered::Legacy)) => return initialize(child, hello).await.map(Greeted::As),
        Ok(Err(UpstreamError::Died(_))) => return Ok(Greeted::DiedOfTheProbe),
        Ok(Err(error)) => return Err(error),
        Err(_) => {}
    }
    let mut initializing = pin!(initialize(child, hello));
    tokio::select! {
        biased;
        discovered = &mut discovering => {
            if let Discovered::Modern(era) = discovered? {
                return Ok(Greeted::ModernTooLate(era));
            }
        }
        era = &mut initializing => return era.map(Greeted::As),
    }
    initializing.await.map(Greeted::As)
}

async fn discover_child(child: &ChildSession) -> Result<Discovered, UpstreamError> {
    let response = handshake::response_of(child.exchange(handshake::discover()).await?).await?;
    handshake::discovered(&response, child.parse_limits())
}

async fn initialize(child: &ChildSession, hello: &Hello) -> Result<ServerEra, UpstreamError> {
    let (id, body) = handshake::initialize(hello);
    let response = handshake::response_of(child.exchange(Outgoing::request(body, id)).await?).await?;
    let opened = handshake::initialized(&response, child.parse_limits())?;
    child.tell(handshake::INITIALIZED.into()).await?;
    Ok(opened.into())
}
