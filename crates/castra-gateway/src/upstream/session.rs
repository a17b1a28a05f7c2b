//! A conversation with one server that keeps something between requests: a legacy HTTP session, or a
//! child process of either era.

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Answer, Incoming, Outgoing, ServerEra, UpstreamError,
    child_session::{ChildSession, ChildUnsolicited},
    events::HttpEvents,
    http_session::HttpSession,
};

/// An open session. Dropping it ends it: a child is killed, an HTTP session deleted.
#[derive(Debug)]
pub struct Session {
    era: ServerEra,
    kind: Kind,
    taken: std::sync::atomic::AtomicBool,
}

#[derive(Debug)]
enum Kind {
    Http(HttpSession),
    Child { session: ChildSession, _place: OwnedSemaphorePermit },
}

impl Session {
    pub(super) fn http(session: HttpSession) -> Self {
        let era = session.opened.clone().into();
        Self { era, kind: Kind::Http(session), taken: false.into() }
    }

    pub(super) fn child(session: ChildSession, era: ServerEra, place: OwnedSemaphorePermit) -> Self {
        Self { era, kind: Kind::Child { session, _place: place }, taken: false.into() }
    }

    /// What the server speaks in this session, with its own description of itself.
    pub fn era(&self) -> &ServerEra {
        &self.era
    }

    /// The `InitializeResult` of this session as sent; of a modern child the `DiscoverResult`.
    pub fn initialize_result(&self) -> &Bytes {
        self.era.description()
    }

    /// The process id, if the server is a child.
    pub fn pid(&self) -> Option<u32> {
        match &self.kind {
            Kind::Http(_) => None,
            Kind::Child { session, .. } => Some(session.pid()),
        }
    }

    /// Sends a request and waits for its answer, or for the first message of it. Dropping the future,
    /// or the stream before its response, takes the request back.
    pub async fn exchange(&self, out: Outgoing) -> Result<Answer, UpstreamError> {
        match &self.kind {
            Kind::Http(session) => session.exchange(out).await,
            Kind::Child { session, .. } => session.exchange(out).await,
        }
    }

    /// Sends a notification of the client. Not `notifications/initialized`, which was sent when the
    /// session was opened, nor `notifications/cancelled`, for which the exchange is dropped.
    pub async fn notify(&self, body: Bytes) -> Result<(), UpstreamError> {
        match &self.kind {
            Kind::Http(session) => session.tell(body).await,
            Kind::Child { session, .. } => session.tell(body).await,
        }
    }

    /// Sends the client's response to an [`Incoming::Request`], with the id that it had.
    pub async fn respond(&self, body: Bytes) -> Result<(), UpstreamError> {
        self.notify(body).await
    }

    /// What the server says that belongs to no exchange; once. Over HTTP this is the GET stream,
    /// which is opened by the first [`Unsolicited::next`].
    pub fn take_unsolicited(&self) -> Option<Unsolicited> {
        if self.taken.swap(true, std::sync::atomic::Ordering::Relaxed) {
            return None;
        }
        Some(Unsolicited(match &self.kind {
            Kind::Http(session) => Source::Http(Box::new(session.listen())),
            Kind::Child { session, .. } => Source::Child(session.unsolicited()),
        }))
    }

    /// Why the session cannot be used any more, if so.
    pub fn ended(&self) -> Option<UpstreamError> {
        match &self.kind {
            Kind::Http(session) => session.ended(),
            Kind::Child { session, .. } => session.ended(),
        }
    }

    /// Ends it in good order: DELETE, or the child is asked to go. What is in flight fails.
    pub async fn close(&self) {
        match &self.kind {
            Kind::Http(session) => session.close().await,
            Kind::Child { session, .. } => session.close().await,
        }
    }
}

/// What a server says that belongs to no exchange.
#[derive(Debug)]
pub struct Unsolicited(Source);

#[derive(Debug)]
enum Source {
    Http(Box<HttpEvents>),
    Child(ChildUnsolicited),
}

impl Unsolicited {
    /// The next notification or request. None when there is no such stream (405) or it was given up;
    /// an error, once, when the session ended. Safe to cancel.
    pub async fn next(&mut self) -> Option<Result<Incoming, UpstreamError>> {
        match &mut self.0 {
            Source::Http(events) => events.next().await,
            Source::Child(queue) => queue.next().await,
        }
    }

    /// One that is already here.
    pub fn try_next(&mut self) -> Option<Result<Incoming, UpstreamError>> {
        match &mut self.0 {
            Source::Http(events) => events.try_next(),
            Source::Child(queue) => queue.try_next(),
        }
    }
}
