//! Who a server is: the modern `server/discover`, the legacy `initialize`, and what their answers
//! mean (2026-07-28, basic/versioning and the "Backward Compatibility" sections of the transports).

use bytes::Bytes;
use castra_protocol::mcp::{Message, Outcome, ParseLimits, Revision, code, meta_key};
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;

use super::{
    Answer, Hello, Incoming, Outgoing, RequestId, UpstreamError,
    error::shown,
    message::{CLIENT_INFO, read},
};

/// What a server speaks, and how it described itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEra {
    /// Stateless, from 2026-07-28 on.
    Modern {
        /// The `DiscoverResult` object, as sent.
        discover: Bytes,
        /// The newest revision that both sides speak.
        revision: Revision,
    },
    /// With a handshake, up to 2025-11-25.
    Legacy {
        /// The `InitializeResult` object, as sent.
        initialize: Bytes,
        /// The revision that the handshake settled.
        revision: Revision,
    },
}

impl ServerEra {
    /// The revision that is spoken.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Modern { revision, .. } | Self::Legacy { revision, .. } => *revision,
        }
    }

    /// Whether it is stateless.
    pub fn is_modern(&self) -> bool {
        matches!(self, Self::Modern { .. })
    }

    /// How the server described itself: a `DiscoverResult` or an `InitializeResult`.
    pub fn description(&self) -> &Bytes {
        match self {
            Self::Modern { discover: result, .. } | Self::Legacy { initialize: result, .. } => result,
        }
    }
}

/// What a legacy handshake settled.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    pub(super) revision: Revision,
    pub(super) result: Bytes,
}

impl From<Opened> for ServerEra {
    fn from(opened: Opened) -> Self {
        Self::Legacy { initialize: opened.result, revision: opened.revision }
    }
}

/// What the answer to `server/discover` says.
#[derive(Debug)]
pub(super) enum Discovered {
    /// A modern server.
    Modern(ServerEra),
    /// Anything that is not a recognised modern answer: a legacy server.
    Legacy,
}

/// The notification that ends a legacy handshake.
pub(super) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// The probe, with the headers that it needs over HTTP.
pub(super) fn discover() -> Outgoing {
    let revision = Revision::LATEST.as_str();
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":"discover","method":"server/discover","params":{{"_meta":{{"{version}":"{revision}","{info}":{CLIENT_INFO},"{capabilities}":{{}}}}}}}}"#,
        version = meta_key::PROTOCOL_VERSION,
        info = meta_key::CLIENT_INFO,
        capabilities = meta_key::CLIENT_CAPABILITIES,
    );
    let mut out = Outgoing::request(body.into(), RequestId::from_static(r#""discover""#));
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert("mcp-protocol-version", HeaderValue::from_static(revision));
    headers.insert("mcp-method", HeaderValue::from_static("server/discover"));
    out.headers = headers;
    out
}

/// The legacy handshake.
pub(super) fn initialize(hello: &Hello) -> (RequestId, Bytes) {
    let mut body = br#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":"#.to_vec();
    body.extend_from_slice(&hello.params);
    body.push(b'}');
    (RequestId::number(0), body.into())
}

/// Takes a request back. The words of the reason are the gate's, not the caller's.
pub(super) fn cancelled(id: &RequestId) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{},"reason":"the caller went away"}}}}"#,
        id.raw()
    )
}

/// The response of an answer, whatever else comes before it.
pub(super) async fn response_of(answer: Answer) -> Result<Bytes, UpstreamError> {
    let mut events = match answer {
        Answer::Accepted => return Err(UpstreamError::NoAnswer),
        Answer::Whole { body, .. } => return Ok(body),
        Answer::Events(events) => events,
    };
    while let Some(message) = events.next().await {
        if let Incoming::Response(body) = message? {
            return Ok(body);
        }
    }
    Err(UpstreamError::EndedEarly)
}

/// Judges the answer to [`discover`].
pub(super) fn discovered(response: &Bytes, limits: &ParseLimits) -> Result<Discovered, UpstreamError> {
    let Message::Response(view) = read(response, limits)? else { return Ok(Discovered::Legacy) };
    match view.outcome {
        Outcome::Result(result) => {
            let result = response.slice_ref(result.span.of(view.text).as_bytes());
            let Some(versions) = supported_versions(&result) else { return Ok(Discovered::Legacy) };
            match newest_modern(&versions) {
                Some(revision) => Ok(Discovered::Modern(ServerEra::Modern { discover: result, revision })),
                // It answers discover and yet names only revisions with a handshake.
                None if versions.iter().any(|v| legacy_revision(v).is_some()) => Ok(Discovered::Legacy),
                None => Err(UpstreamError::NoCommonRevision { offered: shown(&versions.join(", ")) }),
            }
        }
        Outcome::Error(error) if error.code == code::UNSUPPORTED_VERSION => {
            let data = error.data.map_or("", |span| span.of(view.text));
            let offered = serde_json::from_str::<Unsupported>(data).unwrap_or_default().supported;
            if offered.iter().any(|v| legacy_revision(v).is_some()) {
                return Ok(Discovered::Legacy);
            }
            Err(UpstreamError::NoCommonRevision { offered: shown(&offered.join(", ")) })
        }
        // Other errors of the modern era come from a modern server that does not like the probe.
        Outcome::Error(error) if [code::HEADER_MISMATCH, code::MISSING_CAPABILITY].contains(&error.code) => {
            Err(refused("server/discover", error.code, &error.message))
        }
        Outcome::Error(_) => Ok(Discovered::Legacy),
    }
}

/// Judges the answer to [`initialize`].
pub(super) fn initialized(response: &Bytes, limits: &ParseLimits) -> Result<Opened, UpstreamError> {
    const METHOD: &str = "initialize";
    let Message::Response(view) = read(response, limits)? else {
        return Err(UpstreamError::NotAnAnswer { kind: "message" });
    };
    let result = match view.outcome {
        Outcome::Result(result) => response.slice_ref(result.span.of(view.text).as_bytes()),
        Outcome::Error(error) => return Err(refused(METHOD, error.code, &error.message)),
    };
    let offered = serde_json::from_slice::<InitializeResult>(&result)
        .map_err(|_| UpstreamError::BadHandshake { method: METHOD, member: "protocolVersion" })?
        .protocol_version;
    match legacy_revision(&offered) {
        Some(revision) => Ok(Opened { revision, result }),
        None => Err(UpstreamError::NoCommonRevision { offered: shown(&offered) }),
    }
}

fn refused(method: &'static str, code: i64, message: &str) -> UpstreamError {
    UpstreamError::HandshakeRefused { method, code, message: shown(message) }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DiscoverResult {
    supported_versions: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InitializeResult {
    protocol_version: String,
}

#[derive(Deserialize, Default)]
struct Unsupported {
    #[serde(default)]
    supported: Vec<String>,
}

fn supported_versions(result: &[u8]) -> Option<Vec<String>> {
    serde_json::from_slice::<DiscoverResult>(result).ok().map(|r| r.supported_versions)
}

fn newest_modern(versions: &[String]) -> Option<Revision> {
    use castra_protocol::mcp::Era;
    versions.iter().filter_map(|v| Revision::parse(v)).filter(|r| r.era() == Era::Modern).max()
}

/// The revision to speak with a server that settled on this one. 2024-11-05 has a transport of its
/// own over HTTP, but its messages are a subset of 2025-03-26, and it is what many older child
/// processes answer.
fn legacy_revision(text: &str) -> Option<Revision> {
    use castra_protocol::mcp::Era;
    if text == "2024-11-05" {
        return Some(Revision::V2025_03_26);
    }
    Revision::parse(text).filter(|r| r.era() == Era::Legacy)
}
