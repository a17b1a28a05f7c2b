//! A stream of messages from a server: server-sent events over HTTP, or the queue of an exchange with
//! a child. It ends with the response; who drops it before takes the request back.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use castra_protocol::{
    mcp::Message,
    sse::{Decoder, SseError},
};
use futures_util::FutureExt;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming as Body;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Incoming, UpstreamError,
    child_session::ChildEvents,
    endpoint::{Endpoint, Reply, is_event_stream},
    error::shown,
    http_session::Link,
    message::read,
};

/// The messages of one exchange, the last of which is the response.
#[derive(Debug)]
pub struct EventStream(Kind);

#[derive(Debug)]
enum Kind {
    Http(Box<HttpEvents>),
    Child(ChildEvents),
}

impl EventStream {
    pub(super) fn http(events: HttpEvents) -> Self {
        Self(Kind::Http(Box::new(events)))
    }

    pub(super) fn child(events: ChildEvents) -> Self {
        Self(Kind::Child(events))
    }

    /// The next message. None after the response, after an error, and for a long stream when the
    /// server ended it. Safe to cancel.
    pub async fn next(&mut self) -> Option<Result<Incoming, UpstreamError>> {
        match &mut self.0 {
            Kind::Http(events) => events.next().await,
            Kind::Child(events) => events.next().await,
        }
    }

    /// A message that is already here, so that a burst can leave in one write.
    pub fn try_next(&mut self) -> Option<Result<Incoming, UpstreamError>> {
        match &mut self.0 {
            Kind::Http(events) => events.try_next(),
            Kind::Child(events) => events.try_next(),
        }
    }
}

/// Reconnecting in a row without a new event; then the stream has ended.
const RESUMES_MAX: u32 = 5;
/// The wait before reconnecting when the server names none, and the longest that it may name.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// What is left of a response body after the answer is read for this long, so that the connection
/// can be used again.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);

/// Server-sent events over HTTP, of one exchange or of a session's GET stream. In the legacy era a
/// broken stream is resumed (2025-11-25, basic/transports, "Resumability and Redelivery").
#[derive(Debug)]
pub(super) struct HttpEvents {
    endpoint: Arc<Endpoint>,
    purpose: Purpose,
    /// None while there is no connection.
    body: Option<Body>,
    decoder: Decoder,
    /// The id of the last event that had one.
    resume_from: String,
    ready: VecDeque<Result<Incoming, UpstreamError>>,
    over: bool,
    retry: Option<Duration>,
    resumes: u32,
}

#[derive(Debug)]
enum Purpose {
    /// Until the response of this exchange.
    Reply(Reply),
    /// What the server says unasked.
    Listen(Arc<Link>),
}

impl HttpEvents {
    /// The stream that answers a POST.
    pub(super) fn of_reply(endpoint: Arc<Endpoint>, body: Body, reply: Reply) -> Self {
        Self::new(endpoint, Some(body), Purpose::Reply(reply))
    }

    /// The GET stream of a session; connects when it is first asked.
    pub(super) fn of_session(endpoint: Arc<Endpoint>, link: Arc<Link>) -> Self {
        Self::new(endpoint, None, Purpose::Listen(link))
    }

    fn new(endpoint: Arc<Endpoint>, body: Option<Body>, purpose: Purpose) -> Self {
        let decoder = Decoder::new(endpoint.limits.answer_bytes_max);
        Self {
            endpoint,
            purpose,
            body,
            decoder,
            resume_from: String::new(),
            ready: VecDeque::new(),
            over: false,
            retry: None,
            resumes: 0,
        }
    }

    pub(super) fn try_next(&mut self) -> Option<Result<Incoming, UpstreamError>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            if self.over {
                return None;
            }
            match self.body.as_mut()?.frame().now_or_never()? {
                Some(Ok(frame)) => self.take(frame.into_data().unwrap_or_default()),
                Some(Err(_)) | None => {
                    self.disconnected();
                    self.ready.front()?;
                }
            }
        }
    }

    pub(super) async fn next(&mut self) -> Option<Result<Incoming, UpstreamError>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            if self.over {
                return None;
            }
            let patience = self.patience();
            // A server that never stops sending is late too.
            if patience <= Instant::now() {
                self.silent();
                continue;
            }
            let Some(body) = &mut self.body else {
                self.reconnect(patience).await;
                continue;
            };
            match timeout_at(patience, body.frame()).await {
                Ok(Some(Ok(frame))) => self.take(frame.into_data().unwrap_or_default()),
                Ok(Some(Err(_)) | None) => self.disconnected(),
                Err(_) => self.silent(),
            }
        }
    }

    fn patience(&self) -> Instant {
        let idle = self.endpoint.limits.stream_idle_max;
        match &self.purpose {
            Purpose::Reply(reply) => reply.patience(idle),
            Purpose::Listen(_) => Instant::now() + idle,
        }
    }

    fn link(&self) -> Option<&Arc<Link>> {
        match &self.purpose {
            Purpose::Reply(reply) => reply.link.as_ref(),
            Purpose::Listen(link) => Some(link),
        }
    }

    /// Takes a chunk of the body apart.
    fn take(&mut self, chunk: Bytes) {
        let Self { decoder, resume_from, ready, endpoint, purpose, over, retry, resumes, .. } = self;
        let fed = decoder.feed(&chunk, |event| {
            *resumes = 0;
            if let Some(ms) = event.retry_ms {
                *retry = Some(Duration::from_millis(ms).min(RETRY_MAX));
            }
            if let Some(id) = event.id {
                id.clone_into(resume_from);
            }
            // An event without data only carries an id to resume from.
            if *over || event.event != "message" || event.data.is_empty() {
                return;
            }
            let message = read_event(endpoint, purpose, data_of(&chunk, event.data));
            *over = matches!(message, Some(Err(_) | Ok(Incoming::Response(_))));
            ready.extend(message);
        });
        if let Err(error) = fed {
            self.fail(match error {
                SseError::TooLong(max) => UpstreamError::TooLarge { what: "an event", max },
                SseError::NotUtf8 => UpstreamError::NotAMessage { fault: shown(&error.to_string()) },
            });
        } else if self.over {
            self.finish();
        }
    }

    /// The answer is here: what is left of the body is only its end. Reading that keeps the
    /// connection for the next exchange.
    fn finish(&mut self) {
        let Some(mut body) = self.body.take() else { return };
        while let Some(frame) = body.frame().now_or_never() {
            if !matches!(frame, Some(Ok(_))) {
                return;
            }
        }
        tokio::spawn(timeout(DRAIN_TIME_MAX, async move { while let Some(Ok(_)) = body.frame().await {} }));
    }

    fn disconnected(&mut self) {
        self.body = None;
        // What is half read of an event is gone with the connection; the id to resume from stays.
        self.decoder = Decoder::new(self.endpoint.limits.answer_bytes_max);
        let resumable = match &self.purpose {
            Purpose::Listen(_) => true,
            Purpose::Reply(reply) if reply.long => return self.over = true,
            Purpose::Reply(reply) => reply.link.is_some() && !self.resume_from.is_empty(),
        };
        if !resumable {
            self.fail(UpstreamError::EndedEarly);
        }
    }

    fn silent(&mut self) {
        match &self.purpose {
            // Silence is normal here; a fresh connection finds out whether the old one is dead.
            Purpose::Listen(_) => self.disconnected(),
            Purpose::Reply(reply) => {
                if let Some(link) = &reply.link {
                    link.cancel(&reply.id);
                }
                self.fail(self.endpoint.late("answer"));
            }
        }
    }

    fn fail(&mut self, error: UpstreamError) {
        self.over = true;
        self.body = None;
        self.ready.push_back(Err(error));
    }

    async fn reconnect(&mut self, patience: Instant) {
        let Some(link) = self.link().cloned() else { return self.fail(UpstreamError::EndedEarly) };
        if self.resumes > RESUMES_MAX {
            return self.give_up();
        }
        let first = self.resumes == 0 && self.resume_from.is_empty();
        let wait = match self.retry {
            Some(retry) => retry,
            None if first => Duration::ZERO,
            None => RETRY.saturating_mul(1 << self.resumes.min(5)).min(RETRY_MAX),
        };
        if timeout_at(patience, tokio::time::sleep(wait)).await.is_err() {
            return self.silent();
        }
        let headers = link.headers_to_listen(&self.resume_from);
        let response = self.endpoint.send(Method::GET, Bytes::new(), headers, patience).await;
        self.resumes += 1;
        let Ok(response) = response else { return };
        match response.status() {
            StatusCode::OK if is_event_stream(response.headers()) => self.body = Some(response.into_body()),
            StatusCode::NOT_FOUND if link.has_id() => {
                link.end(UpstreamError::SessionExpired);
                self.fail(UpstreamError::SessionExpired);
            }
            status if status.is_client_error() => self.give_up(),
            _ => {}
        }
    }

    fn give_up(&mut self) {
        match &self.purpose {
            Purpose::Listen(_) => self.over = true,
            Purpose::Reply(_) => self.fail(UpstreamError::EndedEarly),
        }
    }
}

impl Drop for HttpEvents {
    fn drop(&mut self) {
        // In the modern era dropping the connection is the cancellation.
        if let (false, Purpose::Reply(Reply { link: Some(link), id, .. })) = (self.over, &self.purpose) {
            link.cancel(id);
        }
    }
}

/// Reads one event; None where it is not for the caller.
fn read_event(
    endpoint: &Endpoint,
    purpose: &Purpose,
    data: Bytes,
) -> Option<Result<Incoming, UpstreamError>> {
    let message = match read(&data, &endpoint.parse) {
        Ok(message) => message,
        Err(error) => return Some(Err(error)),
    };
    match (message, purpose) {
        (Message::Response(response), Purpose::Reply(reply)) => {
            let accepted = reply.accept(&response).map(|other| other.unwrap_or_else(|| data.clone()));
            Some(accepted.map(Incoming::Response))
        }
        // Only a resumed exchange may be answered there, and that has a stream of its own here.
        (Message::Response(_), Purpose::Listen(_)) => None,
        (Message::Notification(notification), Purpose::Reply(reply)) => {
            let bytes = reply.notification(&notification).unwrap_or_else(|| data.clone());
            Some(Ok(Incoming::Notification(bytes)))
        }
        (Message::Notification(_), Purpose::Listen(_)) => Some(Ok(Incoming::Notification(data.clone()))),
        (Message::Request(request), purpose) => {
            let link = match purpose {
                Purpose::Reply(reply) => reply.link.as_ref(),
                Purpose::Listen(link) => Some(link),
            };
            let Some(link) = link else { return Some(Err(UpstreamError::UnaskedRequest)) };
            if request.method == "ping" {
                link.pong(request.id);
                return None;
            }
            Some(Ok(Incoming::Request(data.clone())))
        }
    }
}

/// The data of an event, sharing the chunk's memory where it stands in it.
fn data_of(chunk: &Bytes, data: &str) -> Bytes {
    let (whole, part) = (chunk.as_ptr_range(), data.as_bytes().as_ptr_range());
    if whole.start <= part.start && part.end <= whole.end {
        chunk.slice_ref(data.as_bytes())
    } else {
        Bytes::copy_from_slice(data.as_bytes())
    }
}
