//! JWT access tokens of configured OpenID Connect issuers (RFC 7515, 7517, 7519, 9068).
//!
//! What may be believed is settled by configuration, never by the token: the algorithm must be on
//! the issuer's list and fit the key that was chosen, keys come from the issuer's key set only
//! (`jwk`, `jku` and `x5u` headers are not looked at), and `none` and HMAC do not exist here.
//! Fetching key sets is the business of castra-net; remembering results that of `IdentityCache`.

mod claims;
mod delegation;
mod keys;
mod metadata;
mod mint;

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use castra_core::{AgentName, GroupName, Timestamp};
use serde::{Deserialize, Serialize};

use self::claims::Claims;
pub use self::{
    delegation::ACTORS_MAX,
    keys::{Algorithm, Jwks, JwksError},
    metadata::{MetadataError, discovery_urls, jwks_url},
    mint::{MintError, Minter},
};

/// Longest token that is looked at. Tokens with many groups reach 6 KiB; the header limit of the
/// listener is the next bound.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;

/// What is believed of an issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The issuer's identifier, compared byte for byte with `iss`.
    pub issuer: String,
    /// Where its keys are, when its metadata is not asked.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// Values of `aud` that are meant for this gate, besides the URL of the resource itself.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Algorithms that count.
    #[serde(default = "Algorithm::defaults")]
    pub algorithms: Vec<Algorithm>,
    /// The claim that names the agent. Not looked at in tokens with `act`, which names it then.
    #[serde(default = "default_agent_claim")]
    pub agent_claim: String,
    /// Names of agents by the value of that claim; a value that is not listed is the name itself.
    #[serde(default)]
    pub agents: BTreeMap<String, AgentName>,
    /// The claim that lists groups: its name, or a path such as `realm_access.roles`.
    #[serde(default = "default_groups_claim")]
    pub groups_claim: String,
    /// Groups by the value in the claim; a value that is not listed is the group itself.
    #[serde(default)]
    pub groups: BTreeMap<String, GroupName>,
    /// The claim that lists scopes. A token without it is limited by policy only.
    #[serde(default = "default_scope_claim")]
    pub scope_claim: String,
    /// What the issuer's scopes mean in Castra's words (`"mcp:tools" = ["mcp:call", "mcp:read"]`);
    /// a scope that is not listed stands for itself.
    #[serde(default)]
    pub scopes: BTreeMap<String, Vec<String>>,
    /// Whether agents that are not registered may act.
    #[serde(default)]
    pub unknown_agents: UnknownAgents,
    /// Whether only tokens that call themselves access tokens count (`typ` `at+jwt`, RFC 9068).
    #[serde(default)]
    pub at_jwt_only: bool,
    /// Seconds that the issuer's clock may differ from ours.
    #[serde(default = "default_clock_skew_secs")]
    pub clock_skew_secs: u32,
}

/// Whether agents that are not registered may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownAgents {
    /// No.
    #[default]
    Refuse,
    /// The issuer's word is enough; policy decides what they may do.
    Accept,
}

impl IssuerConfig {
    /// An issuer with the defaults: asymmetric algorithms, `sub` names a registered agent, one
    /// minute of skew.
    pub fn new(issuer: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            jwks_url: None,
            audiences: Vec::new(),
            algorithms: Algorithm::defaults(),
            agent_claim: default_agent_claim(),
            agents: BTreeMap::new(),
            groups_claim: default_groups_claim(),
            groups: BTreeMap::new(),
            scope_claim: default_scope_claim(),
            scopes: BTreeMap::new(),
            unknown_agents: UnknownAgents::default(),
            at_jwt_only: false,
            clock_skew_secs: default_clock_skew_secs(),
        }
    }
}

/// An issuer with its current keys.
#[derive(Debug, Clone)]
pub struct Issuer {
    config: Arc<IssuerConfig>,
    keys: Jwks,
}

impl Issuer {
    /// Puts an issuer and its keys together.
    pub fn new(config: IssuerConfig, keys: Jwks) -> Self {
        Self { config: Arc::new(config), keys }
    }

    /// The same issuer with keys that were fetched again.
    #[must_use]
    pub fn with_keys(&self, keys: Jwks) -> Self {
        Self { config: Arc::clone(&self.config), keys }
    }

    /// What is believed of it.
    pub fn config(&self) -> &IssuerConfig {
        &self.config
    }
}

/// What a good token says, in Castra's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedJwt {
    /// The agent that it speaks for.
    pub agent: AgentName,
    /// Groups that the issuer vouches for. Values that cannot name a group are left out: no policy
    /// can speak of them.
    pub groups: Vec<GroupName>,
    /// Scopes that it is limited to; empty means no limit besides policy.
    pub scopes: Vec<Arc<str>>,
    /// Names the token without giving it away: issuer and `jti`, else issuer and subject.
    pub credential: Arc<str>,
    /// Until when it counts: `exp` and the clock skew.
    pub expires: Timestamp,
    /// Whether the agent must be registered.
    pub unknown_agents: UnknownAgents,
    /// On whose behalf it acts (`act`, RFC 8693): who asked it, nearest first; the subject stands last.
    pub delegation: Vec<Arc<str>>,
}

/// Why a token does not count.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum JwtError {
    #[error("the JWT has {bytes} bytes, and {max} are the most that is looked at")]
    TooLong { bytes: usize, max: usize },
    #[error("the text is not a signed JWT: it needs three parts in base64url, separated by dots")]
    NotAJwt,
    #[error("the {part} of the JWT is not what it should be: {reason}")]
    Unreadable { part: &'static str, reason: String },
    #[error("algorithm {algorithm:?} does not count for issuer {issuer}")]
    Algorithm { algorithm: String, issuer: String },
    #[error("the JWT demands an extension that is not spoken here (`crit`)")]
    CriticalExtension,
    #[error("a JWT of type {found:?} is not an access token")]
    Type { found: String },
    #[error("issuer {issuer} has no key {key_id:?} that fits")]
    UnknownKey { key_id: Option<String>, issuer: String },
    #[error("the signature of the JWT is wrong")]
    Signature,
    #[error("none of the issuers that are trusted here made this JWT")]
    UnknownIssuer,
    #[error("the JWT is of issuer {found:?}, not of {expected:?}")]
    Issuer { found: String, expected: String },
    #[error("the JWT is meant for {found:?}, not for {resource}")]
    Audience { found: Vec<String>, resource: String },
    #[error("the JWT has no usable claim {claim:?}: {expected} is needed")]
    Claim { claim: String, expected: &'static str },
    #[error("the JWT expired at {at}")]
    Expired { at: Timestamp },
    #[error("the JWT does not count before {at}")]
    NotYet { at: Timestamp },
    #[error("the JWT was issued at {at}, which is in the future")]
    IssuedInFuture { at: Timestamp },
    #[error("claim {claim:?} does not name an agent: {reason}")]
    AgentName { claim: String, reason: String },
    #[error("claim {claim:?} grants no scope")]
    NoScope { claim: String },
    #[error("claim {claim:?} has more than {max} entries")]
    TooMany { claim: String, max: usize },
}

impl JwtError {
    /// Whether the issuer may have changed its keys, so that fetching them again can help.
    pub fn wants_fresh_keys(&self) -> bool {
        matches!(self, Self::UnknownKey { .. })
    }
}

/// Whether a bearer credential has the shape of a JWT.
pub fn looks_like_jwt(text: &str) -> bool {
    split(text).is_some()
}

/// The issuer that a token claims to be of, unverified: good for choosing an [`Issuer`] and for
/// nothing else.
pub fn issuer_of(token: &str) -> Result<String, JwtError> {
    let (_, payload, _) = parts(token)?;
    let claims = Claims::parse(&decode("payload", payload)?)?;
    Ok(claims.text("iss")?.to_owned())
}

/// Verifies a token of `issuer` that was shown at `resource`, the canonical URI of the endpoint
/// (see [`crate::oauth::ResourceServer::resource`]). The signature is checked before any claim, so
/// that reasons about claims are given for genuine tokens only.
pub fn verify(token: &str, issuer: &Issuer, resource: &str, now: Timestamp) -> Result<VerifiedJwt, JwtError> {
    let (header, payload, signature) = parts(token)?;
    let config = issuer.config();
    let parsed = Header::parse(&decode("header", header)?)?;
    let algorithm = parsed.algorithm(config)?;
    parsed.check_type(config)?;
    let signature = decode("signature", signature)?;
    let signed = token.get(..header.len() + 1 + payload.len()).ok_or(JwtError::NotAJwt)?;
    issuer.keys.verify(parsed.kid.as_deref(), algorithm, signed.as_bytes(), &signature).map_err(
        |e| match e {
            keys::NoMatch::Key => {
                JwtError::UnknownKey { key_id: parsed.kid.clone(), issuer: config.issuer.clone() }
            }
            keys::NoMatch::Signature => JwtError::Signature,
        },
    )?;
    let claims = Claims::parse(&decode("payload", payload)?)?;
    claims.check_issuer(config)?;
    claims.check_audience(config, resource)?;
    let expires = claims.check_times(config, now)?;
    let (agent, delegation) = claims.agent(config)?;
    Ok(VerifiedJwt {
        agent,
        groups: claims.groups(config)?,
        scopes: claims.scopes(config)?,
        credential: claims.credential(config),
        expires,
        unknown_agents: config.unknown_agents,
        delegation,
    })
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, JwtError> {
        let header: Self = serde_json::from_slice(bytes).map_err(|e| unreadable("header", &e))?;
        // RFC 7515 section 4.1.11: whoever does not understand an extension must refuse.
        if header.crit.is_some() { Err(JwtError::CriticalExtension) } else { Ok(header) }
    }

    fn algorithm(&self, config: &IssuerConfig) -> Result<Algorithm, JwtError> {
        Algorithm::from_name(&self.alg)
            .filter(|a| config.algorithms.contains(a))
            .ok_or_else(|| JwtError::Algorithm { algorithm: shown(&self.alg), issuer: config.issuer.clone() })
    }

    /// RFC 9068 section 4 wants `at+jwt`; many issuers say `JWT` or nothing. Other types (identity
    /// tokens for logout, security events, DPoP proofs) are signed by the same keys and must not
    /// pass for access tokens.
    fn check_type(&self, config: &IssuerConfig) -> Result<(), JwtError> {
        let typ = self.typ.as_deref().unwrap_or("");
        let bare = match typ.split_once('/') {
            Some((tree, rest)) if tree.eq_ignore_ascii_case("application") => rest,
            _ => typ,
        };
        let good = bare.eq_ignore_ascii_case("at+jwt")
            || (!config.at_jwt_only && (bare.is_empty() || bare.eq_ignore_ascii_case("jwt")));
        if good { Ok(()) } else { Err(JwtError::Type { found: shown(typ) }) }
    }
}

fn parts(token: &str) -> Result<(&str, &str, &str), JwtError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(JwtError::TooLong { bytes: token.len(), max: TOKEN_BYTES_MAX });
    }
    split(token).ok_or(JwtError::NotAJwt)
}

fn split(text: &str) -> Option<(&str, &str, &str)> {
    let mut parts = text.split('.');
    let three = (parts.next()?, parts.next()?, parts.next()?);
    let good = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    (parts.next().is_none() && good(three.0) && good(three.1) && good(three.2)).then_some(three)
}

fn decode(part: &'static str, text: &str) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|e| unreadable(part, &e))
}

fn unreadable(part: &'static str, reason: &dyn std::fmt::Display) -> JwtError {
    JwtError::Unreadable { part, reason: reason.to_string() }
}

/// A value of the token as far as an error shows it.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

fn default_agent_claim() -> String {
    "sub".into()
}

fn default_groups_claim() -> String {
    "groups".into()
}

fn default_scope_claim() -> String {
    "scope".into()
}

fn default_clock_skew_secs() -> u32 {
    60
}

#[cfg(test)]
mod tests;
