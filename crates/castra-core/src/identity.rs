//! Who acts.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{AgentName, GroupName, Timestamp};

/// How an agent proved who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthMethod {
    /// A random bearer token that Castra issued.
    Token,
    /// A client certificate over TLS 1.3.
    Certificate,
    /// A JWT of a configured OpenID Connect issuer.
    Jwt,
}

impl AuthMethod {
    /// The word that records and policies use.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Certificate => "certificate",
            Self::Jwt => "jwt",
        }
    }

    /// How much the method proves.
    pub fn strength(&self) -> AuthStrength {
        match self {
            Self::Token | Self::Jwt => AuthStrength::Bearer,
            Self::Certificate => AuthStrength::ProofOfPossession,
        }
    }
}

/// How strong a proof of identity is; policies read it as a number (`context.auth.strength`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuthStrength {
    /// Whoever holds the credential is believed.
    Bearer = 1,
    /// The holder proved possession of a private key in this connection.
    ProofOfPossession = 2,
}

/// An authenticated agent. Shared, because every action of a connection holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentIdentity {
    /// Its name, unique in this installation.
    pub name: AgentName,
    /// Groups that it belongs to.
    pub groups: Vec<GroupName>,
    /// How it proved itself.
    pub method: AuthMethod,
    /// Names the credential without giving it away (token id, certificate fingerprint, `iss` and `jti`).
    pub credential: Arc<str>,
    /// When the credential ends, if it does.
    pub expires: Option<Timestamp>,
    /// Scopes that the credential is limited to; empty means no limit besides policy.
    pub scopes: Vec<Arc<str>>,
    /// On whose behalf it acts: the subject of the token and the actors in between, nearest first
    /// (RFC 8693, section 4.1), so that the subject stands last. Empty when it acts for itself.
    pub delegation: Vec<Arc<str>>,
}

impl AgentIdentity {
    /// The person (or whoever else is the subject) that it acts for in the end: the last of the chain.
    pub fn person(&self) -> Option<&Arc<str>> {
        self.delegation.last()
    }
}

/// An authenticated person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonIdentity {
    /// The person's stable id.
    pub id: Arc<str>,
}

/// Who is on the other side of a request. An absent identity is a case of its own, so that code
/// that needs an agent has to say what it does without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// An agent that proved who it is.
    Agent(Arc<AgentIdentity>),
    /// Nobody known: no credential was shown.
    Anonymous {
        /// Where the request came from.
        source: IpAddr,
    },
}
