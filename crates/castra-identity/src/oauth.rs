//! The gate as an OAuth 2.1 resource server, as the MCP authorization specification asks:
//! protected resource metadata (RFC 9728), challenges (RFC 6750, RFC 9728 section 5.1), resource
//! indicators (RFC 8707) and scopes.
//!
//! | scope | what it lets an agent ask for |
//! |---|---|
//! | `mcp:read` | lists, resources, prompts, completion |
//! | `mcp:call` | tool calls |
//! | `model:complete` | models: completions, embeddings, lists |
//! | `a2a:send` | messages to peers |
//!
//! A scope only narrows: policy decides within it.

use castra_core::{AgentIdentity, Operation, Refusal, RefusalCode, Step};
use serde::Serialize;

use crate::BadCredential;

/// Where metadata documents are: this path, followed by the path of the endpoint (RFC 9728
/// section 3.1).
pub const METADATA_PREFIX: &str = "/.well-known/oauth-protected-resource";

/// Why the gate's URL cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{url:?} is not the URL of a gate: use http:// or https:// with a host and without query or fragment"
)]
pub struct ResourceError {
    url: String,
}

/// What the gate says of itself to OAuth clients.
#[derive(Debug, Clone)]
pub struct ResourceServer {
    /// Scheme and authority, canonical, without a slash at the end.
    origin: String,
    /// Path under which the gate is reached, empty or `/something`.
    base: String,
    authorization_servers: Vec<String>,
}

impl ResourceServer {
    /// `gate_url` is how clients reach the gate, `authorization_servers` the identifiers of the
    /// configured issuers. Without any there is nothing to discover: agents use tokens that an
    /// operator gave them, and no metadata is published.
    pub fn new(gate_url: &str, authorization_servers: Vec<String>) -> Result<Self, ResourceError> {
        let bad = || ResourceError { url: gate_url.to_owned() };
        let url = canonical_resource(gate_url).filter(|url| !url.contains('?')).ok_or_else(bad)?;
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(bad());
        }
        let host_at = url.find("://").map_or(0, |at| at + 3);
        let path_at = url.get(host_at..).and_then(|rest| rest.find('/')).map_or(url.len(), |at| host_at + at);
        let (origin, base) = url.split_at_checked(path_at).ok_or_else(bad)?;
        Ok(Self { origin: origin.to_owned(), base: base.to_owned(), authorization_servers })
    }

    /// The canonical URI of an endpoint, given its path (`/mcp/files`).
    pub fn resource(&self, path: &str) -> String {
        format!("{}{}{}", self.origin, self.base, path.trim_end_matches('/'))
    }

    /// The metadata document of an endpoint (RFC 9728 section 2), if there is an authorization
    /// server to name.
    pub fn metadata(&self, path: &str) -> Option<String> {
        if self.authorization_servers.is_empty() {
            return None;
        }
        let document = Metadata {
            resource: self.resource(path),
            resource_name: "Castra gate",
            authorization_servers: &self.authorization_servers,
            scopes_supported: scopes_at(path),
            bearer_methods_supported: ["header"],
        };
        serde_json::to_string(&document).ok()
    }

    /// Where that document is.
    pub fn metadata_url(&self, path: &str) -> String {
        format!("{}{METADATA_PREFIX}{}{}", self.origin, self.base, path.trim_end_matches('/'))
    }

    /// `WWW-Authenticate` of 401 for a request without a credential. It carries no error code
    /// (RFC 6750 section 3.1), and the scopes that a client should ask for.
    pub fn unauthenticated(&self, path: &str) -> String {
        self.challenge(path, &[("scope", &scopes_at(path).join(" "))])
    }

    /// `WWW-Authenticate` of 401 for a credential that is not good.
    pub fn bad_credential(&self, path: &str, why: &BadCredential) -> String {
        let why = why.to_string();
        self.challenge(path, &[("error", "invalid_token"), ("error_description", &why)])
    }

    /// `WWW-Authenticate` of 403 when a scope is missing: the client may step up and ask again.
    pub fn insufficient_scope(&self, path: &str, operation: Operation) -> String {
        let scope = scope_for(operation);
        let why = format!("this needs scope {scope}");
        self.challenge(
            path,
            &[("error", "insufficient_scope"), ("scope", scope), ("error_description", &why)],
        )
    }

    fn challenge(&self, path: &str, parameters: &[(&str, &str)]) -> String {
        let mut text = String::from("Bearer");
        let mut separator = ' ';
        let url = (!self.authorization_servers.is_empty()).then(|| self.metadata_url(path));
        let metadata = url.as_deref().map(|url| ("resource_metadata", url));
        for (name, value) in parameters.iter().copied().chain(metadata) {
            text.push(separator);
            text.push_str(name);
            text.push_str("=\"");
            text.extend(value.chars().map(quotable));
            text.push('"');
            separator = ',';
        }
        text
    }
}

/// RFC 6750 section 3 allows printable ASCII without `"` and `\` in these values.
fn quotable(c: char) -> char {
    match c {
        '"' => '\'',
        ' '..='~' if c != '\\' => c,
        _ => '?',
    }
}

#[derive(Serialize)]
struct Metadata<'a> {
    resource: String,
    resource_name: &'a str,
    authorization_servers: &'a [String],
    scopes_supported: Vec<&'a str>,
    bearer_methods_supported: [&'a str; 1],
}

/// The scope that an operation needs of a credential that is limited to scopes.
pub fn scope_for(operation: Operation) -> &'static str {
    match operation {
        Operation::Call => "mcp:call",
        Operation::Read => "mcp:read",
        Operation::Complete => "model:complete",
        Operation::Send => "a2a:send",
        Operation::Infer => "model:infer",
        Operation::Connect => "net:connect",
    }
}

/// The scopes that there is a use for at an endpoint, given its path.
fn scopes_at(path: &str) -> Vec<&'static str> {
    let below =
        |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let operations: &[Operation] = match () {
        () if below("/v1") => &[Operation::Complete],
        () if below("/a2a") => &[Operation::Send],
        () => &[Operation::Read, Operation::Call],
    };
    operations.iter().map(|operation| scope_for(*operation)).collect()
}

/// Whether a credential's scopes allow an operation at all.
pub fn check_scope(identity: &AgentIdentity, operation: Operation) -> Result<(), Refusal> {
    let needed = scope_for(operation);
    if identity.scopes.is_empty() || identity.scopes.iter().any(|scope| &**scope == needed) {
        return Ok(());
    }
    let reason = format!("the credential of agent {} lacks scope {needed}", identity.name);
    let advice = format!("Ask the authorization server for a token with scope {needed}");
    Err(Refusal::new(Step::Identify, RefusalCode::InsufficientScope, reason).advise(advice))
}

/// A resource URI in the one form in which two of them are compared (RFC 8707 section 2; RFC 3986
/// section 6.2.2): scheme and host in lower case, no default port, no slash at the end. None for
/// what is not an absolute URI with a host, has a fragment or user information, or has dot segments.
pub fn canonical_resource(uri: &str) -> Option<String> {
    if uri.len() > 2048 || !uri.bytes().all(|b| b.is_ascii_graphic()) || uri.contains(['#', '\\', '"']) {
        return None;
    }
    let (scheme, rest) = uri.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let good_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(path_at)?;
    let dots = path.split(['/', '?']).any(|segment| segment == "." || segment == "..");
    if !good_scheme || authority.is_empty() || authority.contains('@') || dots {
        return None;
    }
    let authority = authority.to_ascii_lowercase();
    let host_end = match authority.strip_prefix('[') {
        Some(address) => address.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at_checked(host_end)?;
    let good_port = match port.strip_prefix(':') {
        Some(digits) => (1..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()),
        None => port.is_empty(),
    };
    if host.is_empty() || !good_port {
        return None;
    }
    let authority = match (scheme.as_str(), port) {
        ("https", ":443") | ("http", ":80") => host,
        _ => &authority,
    };
    Some(format!("{scheme}://{authority}{}", path.trim_end_matches('/')))
}

/// Whether a token for `audience` may be used at `resource`: it is the same, or above it.
pub fn covers(audience: &str, resource: &str) -> bool {
    let (Some(audience), Some(resource)) = (canonical_resource(audience), canonical_resource(resource))
    else {
        return false;
    };
    match resource.strip_prefix(&audience) {
        Some("") => true,
        Some(below) => below.starts_with('/') && !audience.contains('?'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use castra_core::{AgentName, AuthMethod};
    use proptest::prelude::*;

    use super::*;
    use crate::JwtError;

    fn server() -> ResourceServer {
        ResourceServer::new("https://Gate.example:443/", vec!["https://idp.example".into()]).expect("URL")
    }

    #[test]
    fn metadata_names_the_endpoint_that_was_asked() {
        let document: serde_json::Value =
            serde_json::from_str(&server().metadata("/mcp/files").expect("published")).expect("JSON");
        assert_eq!(document["resource"], "https://gate.example/mcp/files");
        assert_eq!(document["authorization_servers"][0], "https://idp.example");
        assert_eq!(
            server().metadata_url("/mcp/files"),
            "https://gate.example/.well-known/oauth-protected-resource/mcp/files"
        );
        let below = ResourceServer::new("https://x.example/castra", vec![]).expect("URL");
        assert_eq!(below.resource("/mcp"), "https://x.example/castra/mcp");
        assert_eq!(below.metadata("/mcp"), None);
        assert_eq!(below.unauthenticated("/mcp"), "Bearer scope=\"mcp:read mcp:call\"");
        assert_eq!(below.unauthenticated("/v1"), "Bearer scope=\"model:complete\"");
        assert_eq!(below.unauthenticated("/a2a/planner"), "Bearer scope=\"a2a:send\"");
        for bad in ["gate.example", "ftp://x", "https://x/#a", "https://x?y", "https://a@b"] {
            assert!(ResourceServer::new(bad, vec![]).is_err(), "{bad}");
        }
    }

    #[test]
    fn challenges_have_their_form() {
        let url = "resource_metadata=\"https://gate.example/.well-known/oauth-protected-resource/mcp\"";
        assert_eq!(server().unauthenticated("/mcp"), format!("Bearer scope=\"mcp:read mcp:call\",{url}"));
        assert_eq!(
            server().bad_credential("/mcp", &BadCredential::Unknown),
            format!("Bearer error=\"invalid_token\",error_description=\"the token is not known here\",{url}")
        );
        assert_eq!(
            server().insufficient_scope("/mcp", Operation::Call),
            format!(
                "Bearer error=\"insufficient_scope\",scope=\"mcp:call\",error_description=\"this needs scope mcp:call\",{url}"
            )
        );
        let hostile = BadCredential::Jwt(JwtError::Type { found: "a\"\\\r\nX: y\u{e9}".into() });
        let text = server().bad_credential("/mcp", &hostile);
        assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'\\'), "{text}");
        assert_eq!(text.matches('"').count(), 6, "{text}");
    }

    #[test]
    fn audiences_cover_what_is_below_them() {
        let resource = "https://gate.example/mcp/files";
        for good in
            ["https://gate.example", "https://gate.example/", "HTTPS://GATE.example:443/mcp", resource]
        {
            assert!(covers(good, resource), "{good}");
        }
        for bad in [
            "https://gate.example/mcp/file",
            "https://gate.example/mcp/git",
            "https://gate.exampl",
            "http://gate.example",
            "https://gate.example:8443",
            "https://gate.example/mcp?x",
            "https://gate.example/mcp/files/deeper",
            "gate.example",
            "",
        ] {
            assert!(!covers(bad, resource), "{bad}");
        }
    }

    #[test]
    fn scopes_narrow() {
        let mut identity = AgentIdentity {
            name: AgentName::new("a").expect("name"),
            groups: vec![],
            method: AuthMethod::Jwt,
            credential: "x".into(),
            expires: None,
            scopes: vec![],
            delegation: vec![],
        };
        assert!(check_scope(&identity, Operation::Call).is_ok());
        identity.scopes = vec!["openid".into(), "mcp:read".into()];
        assert!(check_scope(&identity, Operation::Read).is_ok());
        let refusal = check_scope(&identity, Operation::Call).expect_err("narrow");
        assert_eq!(refusal.code, RefusalCode::InsufficientScope);
    }

    proptest! {
        #[test]
        fn canonical_is_stable(uri in "[a-zA-Z]{1,5}://[a-zA-Z0-9.:@]{0,9}[a-zA-Z0-9/?.#%]{0,20}") {
            if let Some(once) = canonical_resource(&uri) {
                prop_assert_eq!(canonical_resource(&once), Some(once.clone()));
                prop_assert!(covers(&uri, &once));
            }
        }
    }
}
