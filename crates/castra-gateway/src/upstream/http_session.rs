//! A session with a legacy server over Streamable HTTP (2025-11-25, basic/transports, "Session
//! Management"): opened by `initialize`, named by `Mcp-Session-Id`, ended by DELETE.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use castra_protocol::mcp::{Id, Message, Revision};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use super::{
    Answer, Hello, Outgoing, RequestId, UpstreamError,
    endpoint::{Endpoint, Reply},
    events::HttpEvents,
    handshake::{self, Opened},
    message::read,
    rewrite::Mapping,
};

const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Saying good-bye may take this long; nobody waits for more.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// One session.
#[derive(Debug)]
pub(super) struct HttpSession {
    link: Arc<Link>,
    pub(super) opened: Opened,
    shared: bool,
    next_number: AtomicU64,
}

/// What every message of a session needs, and what its streams share.
#[derive(Debug)]
pub(super) struct Link {
    endpoint: Arc<Endpoint>,
    id: Option<HeaderValue>,
    revision: Revision,
    ended: OnceLock<UpstreamError>,
}

impl HttpSession {
    /// Opens a session: `initialize`, its result checked, `notifications/initialized`.
    pub(super) async fn open(endpoint: Arc<Endpoint>, hello: &Hello) -> Result<Self, UpstreamError> {
        let deadline = endpoint.deadline();
        let (id, body) = handshake::initialize(hello);
        let response = endpoint.post(body, HeaderMap::new(), deadline).await?;
        let session_id = response.headers().get(&SESSION_ID).cloned();
        if session_id.as_ref().is_some_and(|id| !is_visible(id)) {
            return Err(UpstreamError::BadHeader("Mcp-Session-Id"));
        }
        let reply = Reply { id, mapping: None, long: false, deadline, link: None };
        let answer = endpoint.answer(response, Some(reply)).await?;
        let opened = handshake::initialized(&handshake::response_of(answer).await?, &endpoint.parse)?;
        let link =
            Arc::new(Link { endpoint, id: session_id, revision: opened.revision, ended: OnceLock::new() });
        link.send(handshake::INITIALIZED.into(), deadline).await?;
        Ok(Self { link, opened, shared: hello.shared, next_number: AtomicU64::new(1) })
    }

    pub(super) async fn exchange(&self, out: Outgoing) -> Result<Answer, UpstreamError> {
        self.link.check()?;
        let endpoint = &self.link.endpoint;
        let deadline = endpoint.deadline();
        let Outgoing { body, id, headers, long } = out;
        let Some(id) = id else {
            self.link.send(body, deadline).await?;
            return Ok(Answer::Accepted);
        };
        let (id, mapping, body) = if self.shared { self.rewritten(&body)? } else { (id, None, body) };
        let taken_back = CancelOnDrop { link: &self.link, id: id.clone(), armed: true };
        let answer = self.answered(Outgoing { body, id: None, headers, long }, id, mapping, deadline).await;
        // A request that timed out is taken back as well.
        if !matches!(answer, Err(UpstreamError::Timeout { .. })) {
            taken_back.disarm();
        }
        answer
    }

    async fn answered(
        &self,
        out: Outgoing,
        id: RequestId,
        mapping: Option<Mapping>,
        deadline: Instant,
    ) -> Result<Answer, UpstreamError> {
        let endpoint = &self.link.endpoint;
        let response = endpoint.post(out.body, self.link.headers(out.headers), deadline).await?;
        let response = self.link.checked(response)?;
        let reply = Reply { id, mapping, long: out.long, deadline, link: Some(self.link.clone()) };
        endpoint.answer(response, Some(reply)).await
    }

    fn rewritten(&self, body: &[u8]) -> Result<(RequestId, Option<Mapping>, Bytes), UpstreamError> {
        let Message::Request(request) = read(body, &self.link.endpoint.parse)? else {
            return Err(UpstreamError::NotAnAnswer { kind: "notification" });
        };
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let (mapping, body) = Mapping::outgoing(&request, number);
        Ok((RequestId::number(number), Some(mapping), body))
    }

    /// Sends what has no answer: a notification, or the response to a request of the server.
    pub(super) async fn tell(&self, body: Bytes) -> Result<(), UpstreamError> {
        self.link.check()?;
        self.link.send(body, self.link.endpoint.deadline()).await
    }

    /// The GET stream.
    pub(super) fn listen(&self) -> HttpEvents {
        HttpEvents::of_session(self.link.endpoint.clone(), self.link.clone())
    }

    pub(super) fn ended(&self) -> Option<UpstreamError> {
        self.link.ended.get().cloned()
    }

    pub(super) async fn close(&self) {
        if self.link.end(UpstreamError::Closed) {
            self.link.clone().delete().await;
        }
    }
}

impl Drop for HttpSession {
    fn drop(&mut self) {
        if self.link.end(UpstreamError::Closed) {
            self.link.in_background(Link::delete);
        }
    }
}

/// Takes a request back whose caller went away while the head of the answer was awaited.
struct CancelOnDrop<'a> {
    link: &'a Arc<Link>,
    id: RequestId,
    armed: bool,
}

impl CancelOnDrop<'_> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.link.cancel(&self.id);
        }
    }
}

impl Link {
    /// Marks the end; false if it was marked before.
    pub(super) fn end(&self, why: UpstreamError) -> bool {
        self.ended.set(why).is_ok()
    }

    /// Whether the server gave the session an id, without which it cannot forget it.
    pub(super) fn has_id(&self) -> bool {
        self.id.is_some()
    }

    fn check(&self) -> Result<(), UpstreamError> {
        self.ended.get().map_or(Ok(()), |why| Err(why.clone()))
    }

    /// 404 to a request with a session id means that the session is gone.
    fn checked<B>(&self, response: http::Response<B>) -> Result<http::Response<B>, UpstreamError> {
        if response.status() == StatusCode::NOT_FOUND && self.has_id() {
            self.end(UpstreamError::SessionExpired);
            return Err(UpstreamError::SessionExpired);
        }
        Ok(response)
    }

    fn headers(&self, mut headers: HeaderMap) -> HeaderMap {
        if let Some(id) = &self.id {
            headers.insert(SESSION_ID, id.clone());
        }
        headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(self.revision.as_str()));
        headers
    }

    /// Headers of a GET that listens, from where it was if it was.
    pub(super) fn headers_to_listen(&self, last_event_id: &str) -> HeaderMap {
        let mut headers = self.headers(HeaderMap::new());
        if let (false, Ok(id)) = (last_event_id.is_empty(), HeaderValue::from_str(last_event_id)) {
            headers.insert(LAST_EVENT_ID, id);
        }
        headers
    }

    async fn send(&self, body: Bytes, deadline: Instant) -> Result<(), UpstreamError> {
        let response = self.endpoint.post(body, self.headers(HeaderMap::new()), deadline).await?;
        self.endpoint.answer(self.checked(response)?, None).await.map(drop)
    }

    /// Tells the server that nobody waits for this request any more.
    pub(super) fn cancel(self: &Arc<Self>, id: &RequestId) {
        if self.ended.get().is_none() {
            self.tell_in_background(handshake::cancelled(id).into());
        }
    }

    /// Answers a ping of the server.
    pub(super) fn pong(self: &Arc<Self>, id: Id<'_>) {
        self.tell_in_background(castra_protocol::mcp::result_response(id, "{}").into());
    }

    fn tell_in_background(self: &Arc<Self>, body: Bytes) {
        self.in_background(|link| async move {
            let deadline = Instant::now() + CLOSE_TIME_MAX;
            if let Err(error) = link.send(body, deadline).await {
                tracing::debug!(%error, "a message to a legacy server was lost");
            }
        });
    }

    fn in_background<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(Arc<Self>) -> F,
    ) {
        // Without a runtime the gate is going down, and the server's own timeout has to do.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(work(self.clone()));
        }
    }

    async fn delete(self: Arc<Self>) {
        if self.has_id() {
            let deadline = Instant::now() + CLOSE_TIME_MAX;
            // 405 means that the server ends sessions itself; any other answer changes nothing.
            let headers = self.headers(HeaderMap::new());
            let _ = self.endpoint.send(Method::DELETE, Bytes::new(), headers, deadline).await;
        }
    }
}

/// 2025-11-25: the session id "MUST only contain visible ASCII characters (0x21 to 0x7E)".
fn is_visible(id: &HeaderValue) -> bool {
    !id.is_empty() && id.as_bytes().iter().all(u8::is_ascii_graphic)
}
