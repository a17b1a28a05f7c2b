//! How a message gets to a server: by itself, or within a session.

use std::sync::Arc;

use bytes::Bytes;
use castra_core::{Refusal, ServerName};
use castra_protocol::mcp::{Request, headers, headers::ParamHeaders};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::upstream::{Answer, Outgoing, Session, Upstream, UpstreamError};

/// A way to a server.
#[derive(Clone)]
pub(crate) enum Channel {
    /// Each request by itself: a modern server over HTTP.
    Stateless(Arc<Upstream>),
    /// A session of a legacy server, or a child process.
    Session(Arc<Session>),
}

impl Channel {
    pub(crate) async fn send(&self, out: Outgoing) -> Result<Answer, UpstreamError> {
        match self {
            Self::Stateless(upstream) => upstream.post(out).await,
            Self::Session(session) => session.exchange(out).await,
        }
    }

    /// Gives the client's answer to something that the server asked. A stateless server cannot ask.
    pub(crate) async fn respond(&self, body: Bytes) -> Result<(), UpstreamError> {
        match self {
            Self::Stateless(_) => Ok(()),
            Self::Session(session) => session.respond(body).await,
        }
    }

    pub(crate) async fn close(&self) {
        if let Self::Session(session) = self {
            session.close().await;
        }
    }
}

/// Why there is no way to a server.
pub(crate) enum Unreached {
    /// The server's fault.
    Upstream(UpstreamError),
    /// The gate's own no: a limit, or eras that cannot be bridged for this request.
    Refused(Refusal),
}

impl From<UpstreamError> for Unreached {
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(error)
    }
}

impl From<Refusal> for Unreached {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Unreached {
    pub(crate) fn refusal(&self, server: &ServerName) -> Refusal {
        match self {
            Self::Upstream(error) => error.refusal(server),
            Self::Refused(refusal) => refusal.clone(),
        }
    }

    /// Whether nothing has happened yet, so that a new session may be tried.
    pub(crate) fn retry_elsewhere(&self) -> bool {
        matches!(self, Self::Upstream(error) if error.retry_elsewhere())
    }
}

/// The headers that a modern request must carry, made from its own bytes.
pub(crate) fn standard_headers(request: &Request<'_>, params: Option<&ParamHeaders>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for header in headers::build(request, params).unwrap_or_default() {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&header.value)) {
            map.insert(name, value);
        }
    }
    map
}
