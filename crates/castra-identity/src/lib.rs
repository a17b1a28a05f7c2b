//! Credentials to who: what an agent or an operator shows is turned into an identity or a reason.
//!
//! Nothing here opens a file or a socket, reads a clock or keeps a secret: tables, keys and the
//! time are handed in. A request meets this crate as `origin` (is it meant for us?), then a
//! credential (`token` and `table`, `jwt`, or `certificate`), then `oauth` for what is answered
//! when the credential is missing, bad or too narrow.

mod cache;
pub mod certificate;
mod error;
pub mod jwt;
pub mod oauth;
pub mod origin;
mod table;
pub mod token;

pub use cache::{CacheKey, IdentityCache};
pub use certificate::{
    Authority, CertificateError, IssuedCertificate, NameRule, PeerCertificate, TrustDomain,
};
pub use error::BadCredential;
pub use jwt::{Issuer, IssuerConfig, Jwks, JwtError, Minter, UnknownAgents, VerifiedJwt};
pub use oauth::ResourceServer;
pub use origin::SiteRules;
pub use table::{AgentEntry, AgentState, CertificateEntry, CredentialTable, TokenEntry, TokenOwner};
pub use token::{Token, TokenHash, TokenKind};

use aws_lc_rs::digest::{Context, SHA256};
use castra_core::Digest;

/// SHA-256 of some bytes, given in parts.
fn sha256(parts: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.iter_mut().zip(context.finish().as_ref()).for_each(|(slot, byte)| *slot = *byte);
    Digest(out)
}
