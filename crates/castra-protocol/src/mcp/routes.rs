//! Names in the federated view: which server is meant.
//!
//! Tools and prompts are shown as `server__name`; a server's name has no `_`, so that this can be
//! taken apart in one way only. Resources keep their URIs, because URIs also stand inside results
//! (links, embedded resources) that pass unchanged: the view routes a URI to the server that lists it,
//! or whose template it fits. A URI stays with the server that listed it first for as long as that
//! server is there, whatever others list. What cannot be routed by such a table (a URI that another
//! server has, or one too many) is shown as `castra+server:uri`, which needs none and is reversible.

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

/// Why a URI has no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// No server lists it, and it fits no template.
    #[error("no server lists it")]
    Unlisted,
    /// Whoever came first would read for the other, so neither does.
    #[error("it fits templates of several servers")]
    Several,
}

/// Which server a URI belongs to. Filled from the servers' lists, and bounded for each server by
/// itself, so that none can push out what another listed.
#[derive(Debug, Clone, Default)]
pub struct UriRoutes {
    exact: BTreeMap<Box<str>, ServerName>,
    templates: BTreeMap<Box<str>, (Template, ServerName)>,
    held: BTreeMap<ServerName, Held>,
}

/// How much of the table is one server's.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    uris: usize,
    templates: usize,
}

impl UriRoutes {
    /// URIs of one server that are remembered; further ones are shown in the long form.
    pub const URIS_MAX: usize = 20_000;
    /// Templates of one server that are remembered. A URI is compared with each of them.
    pub const TEMPLATES_MAX: usize = 500;
    /// Bytes of a URI or template that is remembered.
    pub const LENGTH_MAX: usize = 2048;

    /// Adds a URI that a server lists; returns the URI under which the federated view shows it.
    pub fn add_uri<'u>(&mut self, server: &ServerName, uri: &'u str) -> Cow<'u, str> {
        if let Some(owner) = self.exact.get(uri) {
            return shown(server, uri, owner == server);
        }
        let held = self.held.entry(server.clone()).or_default();
        if !can_be_held(uri) || held.uris >= Self::URIS_MAX {
            return shown(server, uri, false);
        }
        held.uris += 1;
        self.exact.insert(uri.into(), server.clone());
        shown(server, uri, true)
    }

    /// Adds a template (RFC 6570) that a server lists; returns the template under which the federated
    /// view shows it. One that begins with an expression would fit every URI and is not routed by.
    pub fn add_template<'u>(&mut self, server: &ServerName, text: &'u str) -> Cow<'u, str> {
        if let Some((_, owner)) = self.templates.get(text) {
            return shown(server, text, owner == server);
        }
        let template = Template::new(text);
        let held = self.held.entry(server.clone()).or_default();
        if template.prefix.is_empty() || !can_be_held(text) || held.templates >= Self::TEMPLATES_MAX {
            return shown(server, text, false);
        }
        held.templates += 1;
        self.templates.insert(text.into(), (template, server.clone()));
        shown(server, text, true)
    }

    /// Forgets what a server listed, when it is gone or another has its name.
    pub fn forget(&mut self, server: &ServerName) {
        if self.held.remove(server).is_some() {
            self.exact.retain(|_, owner| owner != server);
            self.templates.retain(|_, (_, owner)| owner != server);
        }
    }

    /// The server of a URI, and the URI as that server knows it. What is listed goes before what fits
    /// a template.
    ///
    /// # Errors
    /// When no server has it, or more than one.
    pub fn route<'u>(&self, uri: &'u str) -> Result<(ServerName, &'u str), NoRoute> {
        if let Some(rest) = uri.strip_prefix(SCHEME) {
            let (server, inner) = rest.split_once(':').ok_or(NoRoute::Unlisted)?;
            let server = ServerName::new(server).map_err(|_| NoRoute::Unlisted)?;
            return Ok((server, inner));
        }
        // A template by itself is what is asked about when its variables are to be completed.
        let listed = self.exact.get(uri).or_else(|| self.templates.get(uri).map(|(_, server)| server));
        if let Some(server) = listed {
            return Ok((server.clone(), uri));
        }
        let mut fits = self.templates.values().filter(|(template, _)| template.fits(uri));
        let (_, server) = fits.next().ok_or(NoRoute::Unlisted)?;
        if fits.any(|(_, other)| other != server) { Err(NoRoute::Several) } else { Ok((server.clone(), uri)) }
    }
}

/// A server that lists our own form would otherwise speak for another server.
fn can_be_held(uri: &str) -> bool {
    !uri.starts_with(SCHEME) && uri.len() <= UriRoutes::LENGTH_MAX
}

fn shown<'u>(server: &ServerName, uri: &'u str, routed: bool) -> Cow<'u, str> {
    if routed { Cow::Borrowed(uri) } else { Cow::Owned(format!("{SCHEME}{server}:{uri}")) }
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
        for (server, uri, shown) in [
            (&a, "demo://x", "demo://x"),
            (&a, "demo://x", "demo://x"),
            (&b, "demo://x", "castra+b:demo://x"),
            (&b, "demo://any/item", "demo://any/item"),
            (&b, "castra+a:demo://x", "castra+b:castra+a:demo://x"),
        ] {
            assert_eq!(routes.add_uri(server, uri), shown);
        }
        for (server, template, shown) in [
            (&a, "demo://{kind}/item", "demo://{kind}/item"),
            (&a, "demo://{kind}/item", "demo://{kind}/item"),
            (&b, "demo://{kind}/item", "castra+b:demo://{kind}/item"),
            (&b, "demo://notes/{id}", "demo://notes/{id}"),
            (&b, "{+anything}", "castra+b:{+anything}"),
            (&b, "castra+a:{+x}", "castra+b:castra+a:{+x}"),
            (&a, "exact://one", "exact://one"),
        ] {
            assert_eq!(routes.add_template(server, template), shown);
        }
        for (uri, expected) in [
            ("demo://x", Ok((a.clone(), "demo://x"))),
            ("castra+b:demo://x", Ok((b.clone(), "demo://x"))),
            ("castra+b:castra+a:demo://x", Ok((b.clone(), "castra+a:demo://x"))),
            ("demo://any/item", Ok((b.clone(), "demo://any/item"))),
            ("demo://other/item", Ok((a.clone(), "demo://other/item"))),
            ("demo://notes/item", Err(NoRoute::Several)),
            ("demo://{kind}/item", Ok((a.clone(), "demo://{kind}/item"))),
            ("demo://notes/one", Ok((b.clone(), "demo://notes/one"))),
            ("exact://one", Ok((a.clone(), "exact://one"))),
            ("exact://one/more", Err(NoRoute::Unlisted)),
            ("other://x", Err(NoRoute::Unlisted)),
            ("castra+B:x", Err(NoRoute::Unlisted)),
            ("castra+b", Err(NoRoute::Unlisted)),
        ] {
            assert_eq!(routes.route(uri), expected, "{uri}");
        }
        routes.forget(&a);
        assert_eq!(routes.route("demo://x"), Err(NoRoute::Unlisted));
        assert_eq!(routes.route("demo://notes/item"), Ok((b.clone(), "demo://notes/item")));
        assert_eq!(routes.add_uri(&b, "demo://x"), "demo://x");
    }

    #[test]
    fn a_server_cannot_push_out_what_another_listed() {
        let mut routes = UriRoutes::default();
        let (a, b) = (server("a"), server("b"));
        routes.add_uri(&a, "demo://x");
        for _ in 0..3 {
            for n in 0..UriRoutes::URIS_MAX + 100 {
                routes.add_uri(&b, &format!("flood://{n}"));
            }
            for n in 0..UriRoutes::TEMPLATES_MAX + 100 {
                routes.add_template(&b, &format!("flood://{n}/{{id}}"));
            }
        }
        assert_eq!(routes.exact.len(), 1 + UriRoutes::URIS_MAX);
        assert_eq!(routes.templates.len(), UriRoutes::TEMPLATES_MAX);
        assert_eq!(routes.route("demo://x"), Ok((a.clone(), "demo://x")));
        assert_eq!(routes.add_uri(&b, "flood://more"), "castra+b:flood://more");
        assert_eq!(routes.add_uri(&a, "demo://y"), "demo://y");
        let long = format!("demo://{}", "x".repeat(UriRoutes::LENGTH_MAX));
        assert_eq!(routes.add_uri(&a, &long), format!("castra+a:{long}"));
    }
}
