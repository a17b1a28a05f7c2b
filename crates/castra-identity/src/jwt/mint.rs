//! Tokens of the gate itself: who acts towards a peer, and for whom (RFC 7519, RFC 8693 section 4.1).

use std::{fmt, sync::Arc};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use castra_core::{AgentIdentity, Timestamp};
use serde_json::{Value, json};

use crate::sha256;

/// How long a token counts: from the request to its arrival, with room for clocks that differ.
const LIFE_SECS: i64 = 120;

/// Signs what the gate says of an agent; Ed25519 (RFC 8037).
pub struct Minter {
    pair: Ed25519KeyPair,
    key_id: String,
    issuer: String,
}

impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Minter({}, key {})", self.issuer, self.key_id)
    }
}

/// The key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the seed makes no Ed25519 key")]
pub struct MintError;

impl Minter {
    /// A minter with the key of a seed; `issuer` is the gate's URL, and goes into `iss`.
    ///
    /// # Errors
    /// When the cryptographic library refuses the seed.
    pub fn new(seed: &[u8; 32], issuer: &str) -> Result<Self, MintError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| MintError)?;
        let mut key_id = sha256(&[pair.public_key().as_ref()]).to_hex();
        key_id.truncate(16);
        Ok(Self { pair, key_id, issuer: issuer.to_owned() })
    }

    /// The gate's URL, as `iss` has it.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public key as a key set (RFC 7517), for whoever verifies the tokens.
    pub fn key_set(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key().as_ref());
        json!({ "keys": [{
            "kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.key_id, "alg": "EdDSA", "use": "sig",
        }] })
        .to_string()
    }

    /// A token that says to `audience` that `agent` acts, and for whom: `sub` is the one on whose behalf
    /// it does, the agent itself where there is nobody; `act` names the agent and whoever stands in between.
    pub fn mint(&self, agent: &AgentIdentity, audience: &str, id: &str, now: Timestamp) -> String {
        let subject = agent.delegation.last().map_or(agent.name.as_str(), |subject| subject);
        let mut claims = json!({
            "iss": self.issuer,
            "sub": subject,
            "aud": audience,
            "iat": now.secs(),
            "exp": now.secs() + LIFE_SECS,
            "jti": id,
        });
        if let (Some((_, between)), Some(claims)) = (agent.delegation.split_last(), claims.as_object_mut()) {
            claims.insert("act".to_owned(), act(agent.name.as_str(), between));
        }
        self.sign("JWT", &claims.to_string())
    }

    /// A JSON Web Signature in compact form (RFC 7515, section 7.1).
    fn sign(&self, kind: &str, payload: &str) -> String {
        let header = json!({ "alg": "EdDSA", "typ": kind, "kid": self.key_id }).to_string();
        let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.pair.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        token
    }
}

/// The actors, the current one outermost. `between` is nearest first.
fn act(agent: &str, between: &[Arc<str>]) -> Value {
    let inner = between.iter().rev().fold(None, |inner: Option<Value>, name| {
        Some(match inner {
            None => json!({ "sub": &**name }),
            Some(inner) => json!({ "sub": &**name, "act": inner }),
        })
    });
    match inner {
        None => json!({ "sub": agent }),
        Some(inner) => json!({ "sub": agent, "act": inner }),
    }
}

#[cfg(test)]
mod tests {
    use castra_core::{AgentName, AuthMethod};

    use super::*;
    use crate::{Issuer, IssuerConfig, Jwks, jwt};

    fn agent(delegation: &[&str]) -> AgentIdentity {
        AgentIdentity {
            name: AgentName::new("planner").unwrap(),
            groups: Vec::new(),
            method: AuthMethod::Token,
            credential: "token:1".into(),
            expires: None,
            scopes: Vec::new(),
            delegation: delegation.iter().map(|name| Arc::from(*name)).collect(),
        }
    }

    #[test]
    fn another_gate_reads_the_same_chain() {
        let minter = Minter::new(&[7; 32], "https://gate.example").unwrap();
        let keys = Jwks::parse(minter.key_set().as_bytes()).unwrap();
        let issuer = Issuer::new(IssuerConfig::new("https://gate.example"), keys);
        let now = Timestamp::from_secs(1_800_000_000);
        for chain in [&[][..], &["alice"], &["intake", "scheduler", "alice"]] {
            let token = minter.mint(&agent(chain), "https://peer.example/a2a/x", "01", now);
            let verified = jwt::verify(&token, &issuer, "https://peer.example/a2a/x", now).unwrap();
            assert_eq!(verified.agent.as_str(), "planner");
            assert_eq!(verified.delegation, agent(chain).delegation);
            assert!(jwt::verify(&token, &issuer, "https://other.example/a2a/x", now).is_err());
            let late = now.plus_secs(LIFE_SECS + 61);
            assert!(jwt::verify(&token, &issuer, "https://peer.example/a2a/x", late).is_err());
        }
        assert!(!format!("{minter:?}").contains("Ed25519KeyPair"));
    }
}
