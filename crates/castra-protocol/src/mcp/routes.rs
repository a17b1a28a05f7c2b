//! Names in the federated view: which server is meant.
//!
//! Tools and prompts are shown as `server__name`; a server's name has no `_`, so that this can be
//! taken apart in one way only. Resources keep their URIs, because URIs also stand inside results
//! (links, embedded resources) that pass unchanged: the view routes a URI to the server that lists it,
//! or whose template it fits. Only where two servers list the same URI, the later one is shown as
//! `castra+server:uri`, which routes without any table and is reversible.

use std::{borrow::Cow, collections::BTreeMap};

use castra_core::ServerName;

const SEPARATOR: &str = "__";
const SCHEME: &str = "castra+";

/// `server__name`.
pub fn federated_name(server: &ServerName, name: &str) -> String {
    format!("{server}{SEPARATOR}{name}")
}

/// Takes `server__name` apart.
pub fn split_name(name: &str) -> Option<(ServerName, &str)> {
    let (server, rest) = name.split_once(SEPARATOR)?;
    if rest.is_empty() {
        return None;
    }
    Some((ServerName::new(server).ok()?, rest))
}

/// Which server a URI belongs to. Filled from the servers' lists, in the servers' configured order.
#[derive(Debug, Clone, Default)]
pub struct UriRoutes {
    exact: BTreeMap<String, ServerName>,
    templates: Vec<(Template, ServerName)>,
}

impl UriRoutes {
    /// Adds a URI that a server lists; returns the URI under which the federated view shows it.
    pub fn add_uri<'u>(&mut self, server: &ServerName, uri: &'u str) -> Cow<'u, str> {
        // A server that lists our own form would otherwise speak for another server.
        let taken = uri.starts_with(SCHEME) || self.exact.get(uri).is_some_and(|owner| owner != server);
        if taken {
            return Cow::Owned(format!("{SCHEME}{server}:{uri}"));
        }
        self.exact.entry(uri.to_string()).or_insert_with(|| server.clone());
        Cow::Borrowed(uri)
    }

    /// Adds a template (RFC 6570) that a server lists. One that begins with an expression would fit
    /// every URI and routes nothing.
    pub fn add_template(&mut self, server: &ServerName, template: &str) {
        let template = Template::new(template);
        if !template.prefix.is_empty() {
            self.templates.push((template, server.clone()));
        }
    }

    /// The server of a URI, and the URI as that server knows it. None if no server lists it.
    pub fn route<'u>(&self, uri: &'u str) -> Option<(ServerName, &'u str)> {
        if let Some(rest) = uri.strip_prefix(SCHEME) {
            let (server, inner) = rest.split_once(':')?;
            return Some((ServerName::new(server).ok()?, inner));
        }
        if let Some(server) = self.exact.get(uri) {
            return Some((server.clone(), uri));
        }
        let fits = self.templates.iter().filter(|(template, _)| template.fits(uri));
        // The longest literal beginning is the most particular; the first of equals was configured first.
        let best = fits.rev().max_by_key(|(template, _)| template.prefix.len())?;
        Some((best.1.clone(), uri))
    }
}

/// The literal parts of a URI template: what a URI that fits must begin with, contain in this order,
/// and end with.
#[derive(Debug, Clone)]
struct Template {
    prefix: String,
    middle: Vec<String>,
    /// None for a template without expressions, which fits only itself.
    suffix: Option<String>,
}

impl Template {
    fn new(text: &str) -> Self {
        let mut literals = text.split('{').enumerate().map(|(i, part)| match part.split_once('}') {
            Some((_, literal)) if i > 0 => literal.to_string(),
            _ => part.to_string(),
        });
        let prefix = literals.next().unwrap_or_default();
        let mut middle: Vec<String> = literals.filter(|l| !l.is_empty()).collect();
        let suffix = match text.ends_with('}') {
            _ if !text.contains('{') => None,
            true => Some(String::new()),
            false => middle.pop(),
        };
        Self { prefix, middle, suffix }
    }

    fn fits(&self, uri: &str) -> bool {
        let Some(rest) = uri.strip_prefix(&*self.prefix) else { return false };
        let Some(suffix) = &self.suffix else { return rest.is_empty() };
        let Some(mut rest) = rest.strip_suffix(&**suffix) else { return false };
        for literal in &self.middle {
            match rest.split_once(&**literal) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> ServerName {
        ServerName::new(name).unwrap()
    }

    #[test]
    fn names_come_apart_in_one_way() {
        assert_eq!(federated_name(&server("files"), "read__all"), "files__read__all");
        assert_eq!(split_name("files__read__all"), Some((server("files"), "read__all")));
        for bad in ["files", "files__", "__read", "my_files__read", "Files__read"] {
            assert_eq!(split_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn uris_go_to_the_server_that_lists_them() {
        let mut routes = UriRoutes::default();
        let (a, b) = (server("a"), server("b"));
        assert_eq!(routes.add_uri(&a, "demo://x"), "demo://x");
        assert_eq!(routes.add_uri(&a, "demo://x"), "demo://x");
        assert_eq!(routes.add_uri(&b, "demo://x"), "castra+b:demo://x");
        assert_eq!(routes.add_uri(&b, "castra+a:demo://x"), "castra+b:castra+a:demo://x");
        routes.add_template(&a, "demo://{kind}/item");
        routes.add_template(&b, "demo://notes/{id}");
        routes.add_template(&b, "{+anything}");
        routes.add_template(&a, "exact://one");
        for (uri, expected) in [
            ("demo://x", Some((a.clone(), "demo://x"))),
            ("castra+b:demo://x", Some((b.clone(), "demo://x"))),
            ("castra+b:castra+a:demo://x", Some((b.clone(), "castra+a:demo://x"))),
            ("demo://any/item", Some((a.clone(), "demo://any/item"))),
            ("demo://notes/item", Some((b.clone(), "demo://notes/item"))),
            ("exact://one", Some((a.clone(), "exact://one"))),
            ("exact://one/more", None),
            ("other://x", None),
            ("castra+B:x", None),
        ] {
            assert_eq!(routes.route(uri), expected, "{uri}");
        }
    }
}
