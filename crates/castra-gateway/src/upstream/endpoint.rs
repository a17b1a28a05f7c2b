//! One MCP endpoint over HTTP: a message out, an answer in, every way of misbehaving told apart.
//! Knows nothing of sessions; the legacy ones are those of `http_session`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use castra_core::Limits;
use castra_net::{
    body::{self, BodyError},
    client::HttpClient,
};
use castra_protocol::mcp::{Message, Notification, ParseLimits, Response as RpcResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming as Body;
use tokio::time::{Instant, timeout_at};

use super::{
    Answer, EventStream, RequestId, UpstreamError,
    error::shown,
    events::HttpEvents,
    http_session::Link,
    message::read,
    rewrite::{self, Mapping},
};

/// Where a server is reached and what goes along with every message to it.
#[derive(Debug)]
pub(super) struct Endpoint {
    client: HttpClient,
    url: Uri,
    headers: HeaderMap,
    pub(super) limits: Arc<Limits>,
    pub(super) parse: ParseLimits,
}

/// What is known of an exchange when its answer comes.
#[derive(Debug)]
pub(super) struct Reply {
    /// The id that the server has to answer.
    pub(super) id: RequestId,
    /// The caller's words for it, where it was rewritten.
    pub(super) mapping: Option<Mapping>,
    /// See [`super::Outgoing::long`].
    pub(super) long: bool,
    /// When all of it has to be there; not for a long one.
    pub(super) deadline: Instant,
    /// The legacy session that it belongs to.
    pub(super) link: Option<Arc<Link>>,
}

impl Endpoint {
    pub(super) fn new(
        client: HttpClient,
        url: Uri,
        configured: &[(HeaderName, HeaderValue)],
        limits: Arc<Limits>,
    ) -> Self {
        let mut headers = HeaderMap::with_capacity(configured.len() + 2);
        for (name, value) in configured {
            headers.insert(name, value.clone());
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        let parse = ParseLimits::from(&*limits);
        Self { client, url, headers, limits, parse }
    }

    /// When an exchange that starts now has to be over.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.limits.call_time_max
    }

    /// Sends a message and waits for the head of the answer.
    pub(super) async fn post(
        &self,
        body: Bytes,
        headers: HeaderMap,
        deadline: Instant,
    ) -> Result<Response<Body>, UpstreamError> {
        self.send(Method::POST, body, headers, deadline).await
    }

    /// Sends any request; `headers` give way to the configured ones.
    pub(super) async fn send(
        &self,
        method: Method,
        body: Bytes,
        mut headers: HeaderMap,
        deadline: Instant,
    ) -> Result<Response<Body>, UpstreamError> {
        // Configured headers come last and replace: a caller cannot slip in a credential of its own.
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = headers;
        let head = timeout_at(deadline, self.client.send(request)).await;
        Ok(head.map_err(|_| self.late("answer"))??)
    }

    /// Makes an answer of a response. `reply` is none for a notification.
    pub(super) async fn answer(
        self: &Arc<Self>,
        response: Response<Body>,
        reply: Option<Reply>,
    ) -> Result<Answer, UpstreamError> {
        let status = response.status();
        if status.is_redirection() {
            return Err(UpstreamError::Redirected(status));
        }
        let Some(reply) = reply else {
            return if status.is_success() {
                Ok(Answer::Accepted)
            } else {
                Err(UpstreamError::Status(status))
            };
        };
        match Content::of(response.headers()) {
            Content::Json => self.whole(status, response.into_body(), &reply).await,
            Content::Events if status.is_success() => {
                let events = HttpEvents::of_reply(self.clone(), response.into_body(), reply);
                Ok(Answer::Events(EventStream::http(events)))
            }
            _ if status == StatusCode::ACCEPTED => Err(UpstreamError::NoAnswer),
            Content::Other(content_type) if status.is_success() => {
                Err(UpstreamError::WrongContentType { status, content_type })
            }
            _ => Err(UpstreamError::Status(status)),
        }
    }

    async fn whole(&self, status: StatusCode, body: Body, reply: &Reply) -> Result<Answer, UpstreamError> {
        let max = self.limits.answer_bytes_max;
        let left = reply.deadline.saturating_duration_since(Instant::now());
        let body = body::read(body, max, left).await.map_err(|e| match e {
            BodyError::TooLarge { bytes_max } => {
                UpstreamError::TooLarge { what: "an answer", max: bytes_max }
            }
            BodyError::TooSlow { .. } => self.late("whole answer"),
            BodyError::Broken { reason } => UpstreamError::Broken(shown(&reason)),
        })?;
        match self.response(&body, reply) {
            Ok(None) => Ok(Answer::Whole { status, body }),
            Ok(Some(body)) => Ok(Answer::Whole { status, body }),
            // An error page that happens to be JSON.
            Err(UpstreamError::NotAMessage { .. }) if !status.is_success() => {
                Err(UpstreamError::Status(status))
            }
            Err(error) => Err(error),
        }
    }

    /// Checks that the body is the response; gives other bytes where the caller needs others.
    fn response(&self, body: &[u8], reply: &Reply) -> Result<Option<Bytes>, UpstreamError> {
        match read(body, &self.parse)? {
            Message::Response(response) => reply.accept(&response),
            Message::Request(_) => Err(UpstreamError::NotAnAnswer { kind: "request" }),
            Message::Notification(_) => Err(UpstreamError::NotAnAnswer { kind: "notification" }),
        }
    }

    pub(super) fn late(&self, awaited: &'static str) -> UpstreamError {
        UpstreamError::Timeout { awaited, after: self.limits.call_time_max }
    }
}

impl Reply {
    /// Checks a response's id. None: the bytes can stay as they are.
    pub(super) fn accept(&self, response: &RpcResponse<'_>) -> Result<Option<Bytes>, UpstreamError> {
        let caller_id = self.mapping.as_ref().map_or(&self.id, Mapping::id);
        match response.id {
            Some(id) if self.id.is(id) => Ok(self.mapping.as_ref().map(|m| m.response(response))),
            Some(_) => Err(UpstreamError::ForeignId),
            None => rewrite::with_id(response, caller_id).map(Some).ok_or(UpstreamError::ForeignId),
        }
    }

    /// A notification on the stream of this exchange. None: the bytes can stay as they are.
    pub(super) fn notification(&self, notification: &Notification<'_>) -> Option<Bytes> {
        let mapping = self.mapping.as_ref()?;
        let ours = notification.progress_token.is_some_and(|token| self.id.is(token));
        ours.then(|| mapping.notification(notification))
    }

    /// How long the next message may take, and what to say if it takes longer.
    pub(super) fn patience(&self, idle: Duration) -> Instant {
        let silent = Instant::now() + idle;
        if self.long { silent } else { silent.min(self.deadline) }
    }
}

enum Content {
    Json,
    Events,
    Other(Arc<str>),
    None,
}

impl Content {
    fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Self::None };
        let text = value.to_str().unwrap_or("(not text)");
        let media_type = text.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/json") {
            Self::Json
        } else if is_event_stream(headers) {
            Self::Events
        } else {
            Self::Other(shown(text))
        }
    }
}

/// Whether the response is a stream of server-sent events.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    let text = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
}
