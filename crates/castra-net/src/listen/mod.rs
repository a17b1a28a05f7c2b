//! Listeners: the first step of the path. They accept, shake hands, bound what a peer may take in
//! connections and time, and hand each connection to a service of its own.
//!
//! This is the floor under every call, so a request on an open connection costs no allocation
//! beyond hyper's and sets no timer: `pace` tells what a connection is doing, `connection` judges
//! it with one timer, `drain` carries the order to finish.

mod connection;
mod drain;
mod pace;
mod peer;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    error::Error,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use castra_core::{Limits, Refusal, RefusalCode, Step};
use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::Service,
};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

pub use self::peer::{Peer, TlsInfo};
use self::{
    connection::{End, drive},
    drain::{Drain, Stage},
    pace::{Counted, Pace, Paced},
};
use crate::tls::ServerTls;

/// Where and how to listen.
pub struct ListenConfig {
    /// What it is called in logs and metrics.
    pub name: &'static str,
    /// Addresses to bind; port 0 lets the system choose.
    pub addresses: Vec<SocketAddr>,
    /// TLS; only loopback addresses may do without.
    pub tls: Option<Arc<ServerTls>>,
    /// Of these: connections, handshake, head and idle time, header bytes, drain time.
    pub limits: Limits,
}

/// Why a listener could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// No address.
    #[error("the {name} has no address to listen on")]
    NoAddress {
        /// The listener.
        name: &'static str,
    },
    /// Plain text where others could read it.
    #[error(
        "the {name} would listen on {address} without TLS: give it a certificate, or a loopback address such as 127.0.0.1:{}",
        address.port()
    )]
    PlainBeyondLoopback {
        /// The listener.
        name: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// The system refused.
    #[error("the {name} cannot listen on {address}: {source}{}", bind_advice(source))]
    Bind {
        /// The listener.
        name: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

fn bind_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; stop what listens there, or choose another port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege, choose another",
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        _ => "",
    }
}

/// What a listener has counted since it was bound.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct ListenStats {
    pub accepted: AtomicU64,
    /// Connections at this moment.
    pub open: AtomicU64,
    /// Closed at once because `connections_max` were open.
    pub refused_full: AtomicU64,
    /// The system could not accept, such as for want of file descriptors.
    pub accept_errors: AtomicU64,
    /// TLS handshakes that failed: no TLS 1.3, a bad client certificate, not TLS at all.
    pub handshakes_failed: AtomicU64,
    /// TLS handshakes that took longer than `handshake_time_max`.
    pub handshakes_late: AtomicU64,
    /// Closed because a request's head was not there within `head_time_max`.
    pub closed_slow_head: AtomicU64,
    /// Closed after `idle_time_max` without a request.
    pub closed_idle: AtomicU64,
    /// Closed because the peer took nothing of an answer for `idle_time_max`.
    pub closed_stalled: AtomicU64,
    /// Closed because a head had more than `header_bytes_max`.
    pub closed_large_head: AtomicU64,
    /// Closed because what came was not HTTP.
    pub closed_malformed: AtomicU64,
    /// Ended by the peer in the middle of a request or of an answer.
    pub closed_broken: AtomicU64,
    /// Cut off at the end of a drain.
    pub aborted: AtomicU64,
}

/// Bound addresses that nobody is served on yet; peers wait in the system's queue.
pub struct Listener {
    config: ListenConfig,
    sockets: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    stats: Arc<ListenStats>,
    tell: Tell,
}

/// Hears of every connection that was refused or ended for what its peer did, with the peer's
/// address, so that it can be recorded.
type Tell = Box<dyn Fn(IpAddr, Refusal) + Send + Sync>;

impl Listener {
    /// Binds all addresses, or none. Must be called within a tokio runtime.
    pub fn bind(config: ListenConfig) -> Result<Self, ListenError> {
        let name = config.name;
        if config.addresses.is_empty() {
            return Err(ListenError::NoAddress { name });
        }
        let mut sockets = Vec::new();
        let mut addresses = Vec::new();
        for &address in &config.addresses {
            if config.tls.is_none() && !address.ip().to_canonical().is_loopback() {
                return Err(ListenError::PlainBeyondLoopback { name, address });
            }
            let bound = bind_one(address).and_then(|s| Ok((s.local_addr()?, s)));
            let (real, socket) = bound.map_err(|source| ListenError::Bind { name, address, source })?;
            addresses.push(real);
            sockets.push(socket);
        }
        Ok(Self { config, sockets, addresses, stats: Arc::default(), tell: Box::new(|_, _| {}) })
    }

    /// Calls `tell` for every connection that is refused or ended for what its peer did: too many,
    /// no good handshake, a head that is slow, too large or not HTTP, an answer that is not taken.
    /// It is called on the path of other connections, so it must be quick.
    #[must_use]
    pub fn on_refusal(mut self, tell: impl Fn(IpAddr, Refusal) + Send + Sync + 'static) -> Self {
        self.tell = Box::new(tell);
        self
    }

    /// The addresses as they are, with the ports that the system chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What it counts.
    pub fn stats(&self) -> Arc<ListenStats> {
        self.stats.clone()
    }

    /// Serves until [`Serving::drain`]. `service_for` is called once per connection, after its TLS
    /// handshake; the service is then called for each request of that connection. Small events that
    /// an answer's body gives in a burst leave in one write.
    pub fn serve<F, S, B>(self, service_for: F) -> Serving
    where
        F: Fn(&Arc<Peer>) -> S + Send + Sync + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes, Error: Send> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let gate = Arc::new(Gate {
            http1: http1_builder(&self.config.limits),
            http2: http2_builder(&self.config.limits),
            config: self.config,
            stats: self.stats,
            tell: self.tell,
            drain: Arc::default(),
            tasks: TaskTracker::new(),
        });
        let service_for = Arc::new(service_for);
        for socket in self.sockets {
            gate.tasks.spawn(accept(socket, gate.clone(), service_for.clone()));
        }
        Serving { gate }
    }
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for connections of the one before to leave TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Connections that the system keeps until we accept them; the system's own limit still holds.
const BACKLOG: u32 = 4096;

/// A listener that serves.
pub struct Serving {
    gate: Arc<Gate>,
}

/// What became of the connections that were open at the start of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Ended by themselves.
    pub finished: u64,
    /// Cut off after `drain_time_max`.
    pub aborted: u64,
}

impl Serving {
    /// What the listener counts.
    pub fn stats(&self) -> Arc<ListenStats> {
        self.gate.stats.clone()
    }

    /// Stops accepting at once, lets what is in flight finish within `drain_time_max`, and cuts off
    /// the rest. Streams that never end by themselves must be ended by the service before that.
    pub async fn drain(self) -> Drained {
        let Gate { stats, drain, tasks, config, .. } = &*self.gate;
        let open = stats.open.load(Relaxed);
        drain.enter(Stage::Finish);
        tasks.close();
        if tokio::time::timeout(config.limits.drain_time_max, tasks.wait()).await.is_err() {
            drain.enter(Stage::Abort);
            let _ = tokio::time::timeout(ABORT_TIME_MAX, tasks.wait()).await;
        }
        let aborted = stats.aborted.load(Relaxed);
        let drained = Drained { finished: open.saturating_sub(aborted), aborted };
        tracing::info!(listener = config.name, finished = drained.finished, aborted, "drained");
        drained
    }
}

/// Tasks that are told to go only have to be polled once more.
const ABORT_TIME_MAX: Duration = Duration::from_secs(1);

/// What the connections of one listener share.
struct Gate {
    config: ListenConfig,
    stats: Arc<ListenStats>,
    tell: Tell,
    drain: Arc<Drain>,
    tasks: TaskTracker,
    http1: http1::Builder,
    http2: http2::Builder<Spawn>,
}

/// Streams of HTTP/2 run as tasks of their own.
#[derive(Clone)]
struct Spawn;

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Spawn {
    fn execute(&self, stream: F) {
        tokio::spawn(stream);
    }
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    // hyper's own timer would be set and dropped for each request, and would end idle connections
    // as if they were slow; `connection` watches both.
    http.header_read_timeout(None).max_header_size(limits.header_bytes_max);
    http
}

fn http2_builder(limits: &Limits) -> http2::Builder<Spawn> {
    let mut http = http2::Builder::new(Spawn);
    let header_bytes_max = u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX);
    let streams_max = u32::try_from(limits.calls_per_agent_max).unwrap_or(u32::MAX);
    http.max_header_list_size(header_bytes_max).max_concurrent_streams(streams_max);
    http
}

async fn accept<F, S, B>(socket: TcpListener, gate: Arc<Gate>, service_for: Arc<F>)
where
    F: Fn(&Arc<Peer>) -> S + Send + Sync + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Send> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut draining = gate.drain.wait();
    loop {
        let accepted = tokio::select! {
            biased;
            () = draining.ended() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                gate.stats.accepted.fetch_add(1, Relaxed);
                match Open::new(&gate) {
                    Some(open) => {
                        gate.tasks.spawn(connection(stream, address, open, service_for.clone()));
                    }
                    None => gate.refuse(&gate.stats.refused_full, address, too_many(&gate.config.limits)),
                }
            }
            Err(error) => {
                gate.stats.accept_errors.fetch_add(1, Relaxed);
                if !is_of_one_connection(&error) {
                    tracing::warn!(listener = gate.config.name, %error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Errors of accept(2) that tell of the peer that was next and not of us.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Accepting fails at once again while file descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A place among the `connections_max`, given back on drop.
struct Open {
    gate: Arc<Gate>,
}

impl Open {
    fn new(gate: &Arc<Gate>) -> Option<Self> {
        let open = Self { gate: gate.clone() };
        let before = gate.stats.open.fetch_add(1, Relaxed);
        (before < gate.config.limits.connections_max as u64).then_some(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gate.stats.open.fetch_sub(1, Relaxed);
    }
}

async fn connection<F, S, B>(stream: TcpStream, address: SocketAddr, open: Open, service_for: Arc<F>)
where
    F: Fn(&Arc<Peer>) -> S,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Send> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let gate = &open.gate;
    // Both fail only when the peer is gone already.
    let (Ok(()), Ok(local)) = (stream.set_nodelay(true), stream.local_addr()) else { return };
    let end = match &gate.config.tls {
        None => {
            let service = service_for(&Arc::new(Peer { address, local, tls: None }));
            serve_http1(gate, stream, service).await
        }
        Some(tls) => {
            let Some(stream) = shake_hands(gate, tls, stream, address).await else { return };
            let (_, session) = stream.get_ref();
            let http2 = session.alpn_protocol() == Some(b"h2");
            let tls = Some(TlsInfo::of(session));
            let service = service_for(&Arc::new(Peer { address, local, tls }));
            if http2 {
                serve_http2(gate, stream, service).await
            } else {
                serve_http1(gate, stream, service).await
            }
        }
    };
    gate.conclude(end, address);
}

type TlsStream = tokio_rustls::server::TlsStream<TcpStream>;

async fn shake_hands(
    gate: &Gate,
    tls: &ServerTls,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<TlsStream> {
    let time_max = gate.config.limits.handshake_time_max;
    let handshake = tokio::time::timeout(time_max, TlsAcceptor::from(tls.current()).accept(stream));
    let outcome = tokio::select! {
        outcome = handshake => outcome,
        () = async { gate.drain.wait().ended().await } => return None,
    };
    match outcome {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => gate.refuse(&gate.stats.handshakes_failed, address, handshake_failed(&error)),
        Err(_) => {
            let reason = format!("the TLS handshake took longer than {} seconds", time_max.as_secs());
            gate.refuse(&gate.stats.handshakes_late, address, limit(reason));
        }
    }
    None
}

fn handshake_failed(error: &io::Error) -> Refusal {
    let of_tls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let code = match of_tls {
        Some(rustls::Error::InvalidCertificate(_)) => RefusalCode::BadCredential,
        Some(rustls::Error::PeerIncompatible(_)) => RefusalCode::UnsupportedVersion,
        _ => RefusalCode::Malformed,
    };
    Refusal::new(Step::Listen, code, format!("the TLS handshake failed: {error}"))
}

fn too_many(limits: &Limits) -> Refusal {
    limit(format!("{} connections are open already", limits.connections_max))
}

fn limit(reason: String) -> Refusal {
    Refusal::new(Step::Listen, RefusalCode::LimitReached, reason)
}

async fn serve_http1<T, S, B>(gate: &Gate, stream: T, service: S) -> End
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let pace = Arc::new(Pace::default());
    let io = TokioIo::new(Paced::new(stream, pace.clone(), true));
    let http = gate.http1.serve_connection(io, Counted::new(service, pace.clone()));
    drive(http, |c| c.graceful_shutdown(), &pace, &gate.config.limits, &gate.drain).await
}

async fn serve_http2<T, S, B>(gate: &Gate, stream: T, service: S) -> End
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Send> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let pace = Arc::new(Pace::default());
    let io = TokioIo::new(Paced::new(stream, pace.clone(), false));
    let http = gate.http2.serve_connection(io, Counted::new(service, pace.clone()));
    drive(http, |c| c.graceful_shutdown(), &pace, &gate.config.limits, &gate.drain).await
}

impl Gate {
    fn conclude(&self, end: End, address: SocketAddr) {
        let Limits { head_time_max, idle_time_max, header_bytes_max, .. } = &self.config.limits;
        let (counter, refusal) = match end {
            End::Done => return,
            End::Idle => return count(&self.stats.closed_idle),
            End::Broken => return count(&self.stats.closed_broken),
            End::Aborted => return count(&self.stats.aborted),
            End::SlowHead => {
                let reason = format!("no whole request came within {} seconds", head_time_max.as_secs());
                (&self.stats.closed_slow_head, limit(reason))
            }
            End::LargeHead => {
                let reason = format!("the head of a request has more than {header_bytes_max} bytes");
                (&self.stats.closed_large_head, limit(reason))
            }
            End::Stalled => {
                let reason =
                    format!("nothing of an answer was taken for {} seconds", idle_time_max.as_secs());
                (&self.stats.closed_stalled, limit(reason))
            }
            End::Malformed(what) => {
                let reason = format!("what came is not HTTP: {what}");
                let refusal = Refusal::new(Step::Listen, RefusalCode::Malformed, reason);
                (&self.stats.closed_malformed, refusal)
            }
        };
        self.refuse(counter, address, refusal);
    }

    fn refuse(&self, counter: &AtomicU64, address: SocketAddr, refusal: Refusal) {
        count(counter);
        tracing::debug!(listener = self.config.name, %address, %refusal, "connection refused or ended");
        (self.tell)(address.ip().to_canonical(), refusal);
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Turns a function from request to answer into a service, without boxing anything.
pub fn answer<F>(function: F) -> Answer<F> {
    Answer { function }
}

/// See [`answer`].
#[derive(Clone)]
pub struct Answer<F> {
    function: F,
}

impl<F, R, B> Service<Request<Incoming>> for Answer<F>
where
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<B>>,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = AnswerFuture<R>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        AnswerFuture { inner: (self.function)(request) }
    }
}

pin_project! {
    /// See [`answer`].
    pub struct AnswerFuture<R> {
        #[pin]
        inner: R,
    }
}

impl<R: Future> Future for AnswerFuture<R> {
    type Output = Result<R::Output, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(ready!(self.project().inner.poll(cx))))
    }
}
