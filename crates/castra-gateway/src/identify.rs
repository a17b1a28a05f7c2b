//! Step 2, identify: from credentials to an agent.
//!
//! A bearer token of Castra, a JWT of a configured issuer, or the client certificate of the
//! connection. A certificate and a token together must name the same agent. Clients of Anthropic's
//! API send their token as `x-api-key`, so that is read where models are asked.

use std::{sync::Arc, time::Duration};

use castra_core::{AgentIdentity, Refusal, RefusalCode, Step, Timestamp};
use castra_identity::{BadCredential, CacheKey, JwtError, PeerCertificate, TokenKind, jwt, token};
use http::{HeaderMap, header::AUTHORIZATION};

use crate::{
    gate::Gate,
    listen::{Connection, single},
};

/// Where clients of Anthropic's API show their token.
const API_KEY: &str = "x-api-key";

/// How long a request waits for fresh keys when its JWT names one that is not known.
const FRESH_KEYS_WAIT: Duration = Duration::from_secs(3);

/// A refusal to believe, with the challenge that tells a client how to do better (RFC 9728, RFC 6750).
pub(crate) struct Challenge {
    pub(crate) refusal: Refusal,
    pub(crate) www_authenticate: String,
}

/// What a credential is shown for.
#[derive(Clone, Copy)]
pub(crate) struct Endpoint<'p> {
    /// The endpoint's path, by which the OAuth resource is named.
    pub(crate) path: &'p str,
    /// Whether a token may stand in `x-api-key`.
    pub(crate) takes_api_key: bool,
}

/// Says who asks, or why nobody is believed.
pub(crate) async fn identify(
    connection: &Connection,
    headers: &HeaderMap,
    endpoint: Endpoint<'_>,
) -> Result<Arc<AgentIdentity>, Challenge> {
    let Endpoint { path, takes_api_key } = endpoint;
    let gate = connection.gate();
    let now = gate.now();
    let certificate = match connection.certificate(now) {
        None => None,
        Some(Ok(peer)) => Some(by_certificate(gate, peer, now).map_err(|why| challenge(gate, path, &why))?),
        Some(Err(why)) => return Err(challenge(gate, path, why)),
    };
    let token = match token_of(headers, takes_api_key) {
        Ok(token) => token,
        Err(refusal) => {
            return Err(Challenge { refusal, www_authenticate: gate.resource().unauthenticated(path) });
        }
    };
    let of_token = match token {
        Some(text) => Some(by_token(gate, text, path, now).await.map_err(|why| challenge(gate, path, &why))?),
        None => None,
    };
    match (certificate, of_token) {
        (Some(certificate), Some(token)) if certificate.name != token.name => {
            let reason = "the token names another agent than the client certificate";
            let refusal = Refusal::new(Step::Identify, RefusalCode::BadCredential, reason)
                .advise("Send the token of the certificate's agent, or no token");
            Err(Challenge { refusal, www_authenticate: gate.resource().unauthenticated(path) })
        }
        // The stronger proof counts; the token may still narrow the scopes.
        (Some(certificate), Some(token)) if token.scopes.is_empty() => Ok(certificate),
        (_, Some(token)) => Ok(token),
        (Some(certificate), None) => Ok(certificate),
        (None, None) => {
            let refusal = Refusal::new(Step::Identify, RefusalCode::Unauthenticated, "no credential was shown")
                .advise("Send Authorization: Bearer TOKEN (castra agent add NAME makes one) or use a client certificate");
            Err(Challenge { refusal, www_authenticate: gate.resource().unauthenticated(path) })
        }
    }
}

fn challenge(gate: &Gate, path: &str, why: &BadCredential) -> Challenge {
    Challenge { refusal: why.refusal(), www_authenticate: gate.resource().bad_credential(path, why) }
}

/// The token that is shown, if there is exactly one.
fn token_of(headers: &HeaderMap, takes_api_key: bool) -> Result<Option<&str>, Refusal> {
    let bearer = bearer(headers)?;
    if !takes_api_key {
        return Ok(bearer);
    }
    let key =
        single(headers, API_KEY).map_err(|()| bad("more than one x-api-key header, or it is not ASCII"))?;
    match (bearer, key.map(str::trim)) {
        (Some(bearer), Some(key)) if bearer != key => {
            Err(bad("Authorization and x-api-key hold different credentials").advise("Send one of them"))
        }
        (bearer, key) => Ok(bearer.or(key)),
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let value = single(headers, AUTHORIZATION.as_str())
        .map_err(|()| bad("more than one Authorization header, or it is not ASCII"))?;
    match value.map(|value| value.split_once(' ')) {
        None => Ok(None),
        Some(Some((scheme, token))) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        Some(_) => Err(bad("the Authorization header is not of the form \"Bearer TOKEN\"")),
    }
}

fn bad(reason: &str) -> Refusal {
    Refusal::new(Step::Identify, RefusalCode::BadCredential, reason)
}

fn by_certificate(
    gate: &Gate,
    peer: &PeerCertificate,
    now: Timestamp,
) -> Result<Arc<AgentIdentity>, BadCredential> {
    let table = gate.credentials.load();
    let key = CacheKey::certificate(&peer.fingerprint);
    if let Some(known) = gate.identities.get(&key, table.version(), now) {
        return Ok(known);
    }
    let identity = table.authenticate_certificate(peer, now)?;
    gate.identities.put(key, table.version(), identity.clone(), now);
    Ok(identity)
}

async fn by_token(
    gate: &Gate,
    text: &str,
    path: &str,
    now: Timestamp,
) -> Result<Arc<AgentIdentity>, BadCredential> {
    match token::kind_of(text) {
        Some(TokenKind::Agent) => gate.credentials.load().authenticate_token(text, now),
        None if jwt::looks_like_jwt(text) => by_jwt(gate, text, path, now).await,
        // Says itself what is wrong with it.
        _ => gate.credentials.load().authenticate_token(text, now),
    }
}

async fn by_jwt(
    gate: &Gate,
    text: &str,
    path: &str,
    now: Timestamp,
) -> Result<Arc<AgentIdentity>, BadCredential> {
    let resource = gate.resource().resource(path);
    let changes = gate.issuer_changes.load(std::sync::atomic::Ordering::Relaxed);
    let key = CacheKey::jwt(text, &format!("{resource}#{changes}"));
    let version = gate.credentials.load().version();
    if let Some(known) = gate.identities.get(&key, version, now) {
        return Ok(known);
    }
    let verified = match verify(gate, text, &resource, now) {
        Err(why) if why.wants_fresh_keys() => {
            gate.ask_for_fresh_keys(FRESH_KEYS_WAIT).await;
            verify(gate, text, &resource, now)?
        }
        other => other?,
    };
    let table = gate.credentials.load();
    let identity = table.admit_jwt(&verified)?;
    gate.identities.put(key, table.version(), identity.clone(), now);
    Ok(identity)
}

fn verify(gate: &Gate, text: &str, resource: &str, now: Timestamp) -> Result<jwt::VerifiedJwt, JwtError> {
    let named = jwt::issuer_of(text)?;
    let issuers = gate.issuers.load();
    let issuer = issuers.iter().find(|i| i.config().issuer == named).ok_or(JwtError::UnknownIssuer)?;
    jwt::verify(text, issuer, resource, now)
}
