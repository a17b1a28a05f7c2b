//! Why a credential is not good, for the caller, the operator and the record alike.

use castra_core::{AgentName, Refusal, RefusalCode, Step, Timestamp};

use crate::{CertificateError, JwtError, TokenKind};

/// Why a credential was refused. Nothing in it gives a secret away.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BadCredential {
    /// Neither a Castra token nor a JWT.
    #[error("the bearer credential is neither a Castra token nor a JWT")]
    NotACredential,
    /// The checksum of the token does not hold.
    #[error("the token is damaged: its checksum does not hold, so it was cut or mistyped")]
    Damaged,
    /// The token is whole, but nobody here issued it.
    #[error("the token is not known here")]
    Unknown,
    /// A token of another kind.
    #[error("an {expected} token is needed here, and this is an {found} token")]
    WrongKind {
        /// What is needed.
        expected: TokenKind,
        /// What was shown.
        found: TokenKind,
    },
    /// Its time is over.
    #[error("the credential expired at {at}")]
    Expired {
        /// When.
        at: Timestamp,
    },
    /// It was taken back.
    #[error("the credential was revoked")]
    Revoked,
    /// The agent as a whole was shut out.
    #[error("agent {agent} is revoked")]
    AgentRevoked {
        /// Which.
        agent: AgentName,
    },
    /// The credential is genuine and names an agent that is not registered.
    #[error("the credential is genuine, but agent {agent} is not registered")]
    UnknownAgent {
        /// Which.
        agent: AgentName,
    },
    /// A certificate of the built-in CA's domain that is not in the list of issued ones.
    #[error("the certificate is not among those issued here")]
    UnknownCertificate,
    /// The JWT is not good.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// The certificate is not good.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl BadCredential {
    /// The refusal that the caller is answered with.
    pub fn refusal(&self) -> Refusal {
        Refusal::new(Step::Identify, RefusalCode::BadCredential, self.to_string()).advise(self.advice())
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::NotACredential | Self::Damaged => {
                "Send `Authorization: Bearer <token>` with the whole token"
            }
            Self::Unknown | Self::Expired { .. } | Self::Revoked => {
                "Get a new token: an operator runs `castra agent rotate NAME`"
            }
            Self::WrongKind { .. } => "Use the token that was made for this",
            Self::AgentRevoked { .. } => "Ask the operator why; a revoked name is not used again",
            Self::UnknownAgent { .. } => "An operator registers it with `castra agent add NAME`",
            Self::UnknownCertificate => "Get a certificate that this gate issued",
            Self::Jwt(JwtError::UnknownIssuer) => {
                "Add the issuer to the configuration, or use a token of a configured one"
            }
            Self::Jwt(_) => "Get a new access token from the issuer for this resource",
            Self::Certificate(_) => "Get a certificate with the right name",
        }
    }
}
