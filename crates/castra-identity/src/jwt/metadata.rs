//! Where an issuer says its keys are (RFC 8414, OpenID Connect Discovery 1.0).

use serde::Deserialize;

use super::shown;

/// Why a metadata document cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// It is not metadata of an issuer.
    #[error("the document is not metadata of an issuer: {reason}")]
    Unreadable {
        /// What the parser says.
        reason: String,
    },
    /// It is of another issuer.
    #[error("the metadata is of issuer {found:?}, not of {expected:?}")]
    OtherIssuer {
        /// Whose it says it is.
        found: String,
        /// Who was asked.
        expected: String,
    },
    /// Keys over an open line are no keys.
    #[error("issuer {issuer:?} is reached by TLS, but says its keys are at {url:?}, which is not")]
    InsecureKeys {
        /// Who was asked.
        issuer: String,
        /// Where it says that its keys are.
        url: String,
    },
}

/// Where an issuer's metadata may be, in the order to try: RFC 8414 section 3.1 (path inserted),
/// then OpenID Connect Discovery 1.0 section 4 (path appended).
pub fn discovery_urls(issuer: &str) -> [String; 2] {
    let issuer = issuer.trim_end_matches('/');
    let host_at = issuer.find("://").map_or(0, |at| at + 3);
    let path_at =
        issuer.get(host_at..).and_then(|rest| rest.find('/')).map_or(issuer.len(), |at| host_at + at);
    let (origin, path) = issuer.split_at_checked(path_at).unwrap_or((issuer, ""));
    [
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
        format!("{issuer}/.well-known/openid-configuration"),
    ]
}

/// Reads where the keys are from a metadata document. The document must name the issuer that was
/// asked (RFC 8414 section 3.3), or any page of the same host could stand in for it.
pub fn jwks_url(document: &[u8], issuer: &str) -> Result<String, MetadataError> {
    #[derive(Deserialize)]
    struct Metadata {
        issuer: String,
        jwks_uri: String,
    }
    let metadata: Metadata =
        serde_json::from_slice(document).map_err(|e| MetadataError::Unreadable { reason: e.to_string() })?;
    if metadata.issuer != issuer {
        return Err(MetadataError::OtherIssuer {
            found: shown(&metadata.issuer),
            expected: issuer.to_owned(),
        });
    }
    let (secure, url) = (issuer.starts_with("https://"), metadata.jwks_uri);
    if secure && !url.starts_with("https://") {
        return Err(MetadataError::InsecureKeys { issuer: issuer.to_owned(), url: shown(&url) });
    }
    Ok(url)
}
