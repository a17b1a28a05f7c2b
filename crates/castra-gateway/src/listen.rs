//! Step 1, listen: one connection, and what every request on it must pass before anybody looks
//! into it: the right host and origin, a known place.

use std::sync::{Arc, OnceLock};

use castra_core::{AgentName, Refusal, RefusalCode, Step, Timestamp};
use castra_identity::{BadCredential, PeerCertificate, certificate, oauth::METADATA_PREFIX};
use castra_net::listen::Peer;
use http::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, HOST, ORIGIN},
    request::Parts,
};
use hyper::body::Incoming;

use crate::{
    a2a,
    answer::{self, AnswerBody},
    gate::Gate,
    identify::{Endpoint, identify},
    mcp, model,
};

/// A client's connection. What is proved once per connection is kept here.
pub struct Connection {
    gate: Arc<Gate>,
    peer: Arc<Peer>,
    certificate: OnceLock<Option<Result<PeerCertificate, BadCredential>>>,
}

impl Connection {
    pub(crate) fn new(gate: Arc<Gate>, peer: Arc<Peer>) -> Self {
        Self { gate, peer, certificate: OnceLock::new() }
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The client's certificate as an agent, read once; rustls has verified the chain already.
    pub(crate) fn certificate(&self, _now: Timestamp) -> Option<&Result<PeerCertificate, BadCredential>> {
        self.certificate
            .get_or_init(|| {
                let der = self.peer.tls.as_ref()?.client_certificate.as_ref()?;
                let mut last = None;
                for rule in self.gate.certificate_rules() {
                    match certificate::read_peer(der, rule) {
                        Ok(peer) => return Some(Ok(peer)),
                        Err(why) => last = Some(why),
                    }
                }
                last.map(|why| Err(BadCredential::from(why)))
            })
            .as_ref()
    }

    /// Answers one request.
    pub async fn call(self: Arc<Self>, request: Request<Incoming>) -> Response<AnswerBody> {
        let (head, body) = request.into_parts();
        let place = Place::of(&head);
        if let Err(refusal) = self.check_site(&head) {
            return self.refuse_at(&place, StatusCode::FORBIDDEN, &refusal);
        }
        match place {
            Place::Metadata => return self.metadata(&head),
            Place::KeySet => return self.key_set(&head),
            _ => {}
        }
        if let Some(refusal) = place.nothing_there(head.uri.path()) {
            return self.refuse_at(&place, StatusCode::NOT_FOUND, &refusal);
        }
        let agent = match identify(&self, &head.headers, place.endpoint(&head)).await {
            Ok(agent) => agent,
            Err(challenge) => {
                let response = self.refuse_at(&place, StatusCode::UNAUTHORIZED, &challenge.refusal);
                return answer::with_header(response, "www-authenticate", &challenge.www_authenticate);
            }
        };
        match place {
            Place::Mcp(scope) => mcp::serve(&self, agent, scope, head, body).await,
            Place::Peer(place) => a2a::serve(&self, agent, place, head, body).await,
            Place::Model(place) => model::serve(&self, agent, place, head, body).await,
            Place::Metadata | Place::KeySet | Place::Nothing => answer::empty(StatusCode::NOT_FOUND),
        }
    }

    /// Host and Origin, against DNS rebinding.
    fn check_site(&self, head: &Parts) -> Result<(), Refusal> {
        let repeated =
            |name| Refusal::new(Step::Listen, RefusalCode::Malformed, format!("more than one {name} header"));
        let host = single(&head.headers, HOST.as_str()).map_err(|()| repeated("Host"))?;
        let origin = single(&head.headers, ORIGIN.as_str()).map_err(|()| repeated("Origin"))?;
        // HTTP/2 names the host in the URI.
        let host = head.uri.authority().map(|a| a.as_str()).or(host);
        self.gate.sites().check(host, origin)
    }

    /// RFC 9728: anybody may read how to authenticate here.
    fn metadata(&self, head: &Parts) -> Response<AnswerBody> {
        if head.method != Method::GET {
            return answer::empty(StatusCode::METHOD_NOT_ALLOWED);
        }
        let resource = head.uri.path().strip_prefix(METADATA_PREFIX).unwrap_or_default();
        let endpoint = if resource.is_empty() { "/mcp" } else { resource };
        let known = mcp::Scope::of(endpoint).is_some()
            || a2a::Place::of(endpoint).is_some()
            || endpoint == model::ENDPOINT;
        if !known {
            return answer::empty(StatusCode::NOT_FOUND);
        }
        match self.gate.resource().metadata(endpoint) {
            Some(document) => answer::json(StatusCode::OK, document),
            // Without an issuer there is no authorization server to name.
            None => answer::empty(StatusCode::NOT_FOUND),
        }
    }

    /// Anybody may read with which key the gate signs what it says of agents to peers (RFC 7517).
    fn key_set(&self, head: &Parts) -> Response<AnswerBody> {
        if head.method != Method::GET {
            return answer::empty(StatusCode::METHOD_NOT_ALLOWED);
        }
        answer::json(StatusCode::OK, self.gate.peers.minter.key_set())
    }

    /// Refuses before it is known who asks, in the form of the place.
    fn refuse_at(&self, place: &Place, status: StatusCode, refusal: &Refusal) -> Response<AnswerBody> {
        match place {
            Place::Model(place) => {
                self.gate.recorder.refusal(refusal, None, self.peer.address.ip());
                model::refused_as(place.api(), status, refusal)
            }
            _ => self.refuse(status, refusal, None),
        }
    }

    /// Refuses something that never became a message of a protocol.
    pub(crate) fn refuse(
        &self,
        status: StatusCode,
        refusal: &Refusal,
        agent: Option<&AgentName>,
    ) -> Response<AnswerBody> {
        self.gate.recorder.refusal(refusal, agent, self.peer.address.ip());
        let body = serde_json::json!({
            "error": { "code": refusal.code.as_str(), "message": refusal.reason, "advice": refusal.advice }
        });
        answer::json(status, body.to_string())
    }
}

/// Where a request knocks.
enum Place {
    /// MCP, below `/mcp`.
    Mcp(mcp::Scope),
    /// Other agents, below `/a2a`.
    Peer(a2a::Place),
    /// Model APIs, below `/v1`.
    Model(model::Place),
    /// How to authenticate at the others.
    Metadata,
    /// The public key of the gate's own tokens.
    KeySet,
    Nothing,
}

impl Place {
    fn of(head: &Parts) -> Self {
        let path = head.uri.path();
        if path.starts_with(METADATA_PREFIX) {
            return Self::Metadata;
        }
        if path == a2a::KEY_SET_PATH {
            return Self::KeySet;
        }
        if let Some(place) = a2a::Place::of(path) {
            return Self::Peer(place);
        }
        if let Some(scope) = mcp::Scope::of(path) {
            return Self::Mcp(scope);
        }
        model::Place::of(path, &head.headers).map_or(Self::Nothing, Self::Model)
    }

    /// The refusal of a path at which there is nothing.
    fn nothing_there(&self, path: &str) -> Option<Refusal> {
        let advice = match self {
            Self::Nothing => "Agents use /mcp, /mcp/SERVER, /a2a/PEER or the model APIs below /v1",
            Self::Model(place) if place.is_nothing() => model::PLACES,
            _ => return None,
        };
        let reason = format!("there is nothing at {}", path.chars().take(100).collect::<String>());
        Some(Refusal::new(Step::Listen, RefusalCode::NotFound, reason).advise(advice))
    }

    /// For what a credential has to be good here.
    fn endpoint<'h>(&self, head: &'h Parts) -> Endpoint<'h> {
        let path = head.uri.path();
        match self {
            // One resource for all that is below it: a client has one token for an API.
            Self::Model(_) => Endpoint { path: model::ENDPOINT, takes_api_key: true },
            Self::Peer(place) => Endpoint { path: place.endpoint(path), takes_api_key: false },
            _ => Endpoint { path, takes_api_key: false },
        }
    }
}

/// The value of a header that may stand at most once; `Err` where it stands twice or is no text.
pub(crate) fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, ()> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(());
    }
    value.to_str().map(Some).map_err(|_| ())
}

/// Whether the body is declared as JSON.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).is_some_and(|value| {
        let essence = value.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    })
}
