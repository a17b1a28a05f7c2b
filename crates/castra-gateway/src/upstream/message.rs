//! What goes to a server and what comes back, era by era unchanged.

use bytes::Bytes;
use castra_protocol::mcp::{Id, Message, ParseLimits, Revision, parse};
use http::{HeaderMap, HeaderName, StatusCode};

use super::{EventStream, UpstreamError};

/// A JSON-RPC id as raw JSON, owned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Box<str>);

impl RequestId {
    /// The raw JSON of the id.
    pub fn raw(&self) -> &str {
        &self.0
    }

    pub(super) fn number(number: u64) -> Self {
        Self(number.to_string().into())
    }

    pub(super) fn from_static(raw: &'static str) -> Self {
        Self(raw.into())
    }

    /// Whether it is this id, however that is escaped.
    pub fn is(&self, id: Id<'_>) -> bool {
        *self.0 == *id.raw() || Id::from_raw(&self.0) == Some(id)
    }
}

impl From<&str> for RequestId {
    /// From raw JSON that is known to be an id.
    fn from(raw: &str) -> Self {
        Self(raw.into())
    }
}

impl From<Id<'_>> for RequestId {
    fn from(id: Id<'_>) -> Self {
        Self(id.raw().into())
    }
}

/// One message to a server.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The JSON-RPC message as it goes out.
    pub body: Bytes,
    /// The id of the request in it; none for a notification or a response.
    pub id: Option<RequestId>,
    /// Headers that go along over HTTP (see [`forwardable`]). Content type, accept and the configured
    /// headers are set over them.
    pub headers: HeaderMap,
    /// A stream that lives on (`subscriptions/listen`): no limit on the whole of it, only on its
    /// silence, and it may end without an answer.
    pub long: bool,
}

impl Outgoing {
    /// A request, with the id that stands in it.
    pub fn request(body: Bytes, id: RequestId) -> Self {
        Self { body, id: Some(id), headers: HeaderMap::new(), long: false }
    }

    /// A notification, or the response to a request of the server.
    pub fn notification(body: Bytes) -> Self {
        Self { body, id: None, headers: HeaderMap::new(), long: false }
    }
}

/// The headers of a caller that a server may see: those of the protocol and of tracing. Everything
/// else (credentials above all) stays at the gate. Whoever hands them over has dropped those that
/// mirror a body and do not agree with it.
pub fn forwardable(from: &HeaderMap) -> HeaderMap {
    let mut to = HeaderMap::with_capacity(8);
    for (name, value) in from {
        if is_forwardable(name) {
            to.append(name.clone(), value.clone());
        }
    }
    to
}

fn is_forwardable(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "mcp-protocol-version" | "mcp-method" | "mcp-name" | "traceparent" | "tracestate" | "baggage"
    ) || name.starts_with("mcp-param-")
}

/// What a server answered.
#[derive(Debug)]
pub enum Answer {
    /// It took a notification or response.
    Accepted,
    /// The JSON-RPC response to the request, whole; its id is checked.
    Whole {
        /// The HTTP status; may be an error, which then carries a JSON-RPC error. 200 from a child.
        status: StatusCode,
        /// The response.
        body: Bytes,
    },
    /// Messages, the last of which is the response.
    Events(EventStream),
}

/// A message from a server; each is one whole JSON-RPC message that was parsed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// Wants no answer.
    Notification(Bytes),
    /// Wants an answer from the client ([`super::Session::respond`]); legacy era only.
    Request(Bytes),
    /// The answer to the exchange; the last of its stream.
    Response(Bytes),
}

impl Incoming {
    /// The message.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Notification(bytes) | Self::Request(bytes) | Self::Response(bytes) => bytes,
        }
    }
}

/// How a session is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The `params` object of `initialize`: protocolVersion, capabilities, clientInfo.
    pub params: Bytes,
    /// Whether several callers will use the session, so that ids and progress tokens have to be
    /// rewritten over HTTP too. For a child they always are.
    pub shared: bool,
}

impl Hello {
    /// The gate's own: no capabilities.
    pub fn gate(revision: Revision) -> Self {
        let params = format!(
            r#"{{"protocolVersion":"{}","capabilities":{{}},"clientInfo":{CLIENT_INFO}}}"#,
            revision.as_str()
        );
        Self { params: params.into(), shared: true }
    }
}

/// Who the gate says it is, as raw JSON.
pub(super) const CLIENT_INFO: &str =
    concat!(r#"{"name":"castra","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);

/// Reads one message of a server.
pub(super) fn read<'a>(bytes: &'a [u8], limits: &ParseLimits) -> Result<Message<'a>, UpstreamError> {
    parse(bytes, limits)
        .map_err(|e| UpstreamError::NotAMessage { fault: super::error::shown(&e.to_string()) })
}
