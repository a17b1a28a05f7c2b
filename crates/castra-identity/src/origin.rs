//! Host and Origin checks against DNS rebinding.
//!
//! A page on a foreign site can point its own name at 127.0.0.1 and have a browser talk to a gate
//! there. The browser then sends that name as `Host` and the page's site as `Origin`, so a gate
//! that answers only to its own names and to no foreign site is out of reach. Programs that are
//! not browsers send no `Origin`, which is fine. Runs for every request and allocates nothing
//! unless it refuses.

use std::net::{IpAddr, Ipv6Addr};

use castra_core::{Refusal, RefusalCode, Step};

/// Which names a listener answers to and which sites may speak to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteRules {
    hosts: Vec<Site>,
    addresses: Vec<IpAddr>,
    /// The listener has no address of its own to name (0.0.0.0, ::). A browser that sends an
    /// address as `Host` did not look up a name, so no name can have been rebound.
    any_address: bool,
    /// Pages of this machine may speak to a listener of this machine (MCP inspectors do).
    local_pages: bool,
    origins: Vec<(Box<str>, Site)>,
}

/// A name or address, and a port where it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Site {
    host: Box<str>,
    port: Option<u16>,
}

/// Why an entry of the configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SiteRuleError {
    /// Not a host.
    #[error(
        "{entry:?} is not a host: write a name or address, with a port or without, such as gate.example:8440"
    )]
    Host {
        /// The entry.
        entry: String,
    },
    /// Not an origin.
    #[error("{entry:?} is not an origin: write it as browsers do, such as https://app.example:3000")]
    Origin {
        /// The entry.
        entry: String,
    },
}

impl SiteRules {
    /// Rules of a listener on `listen`, which may also be called by the names in `hosts` (a name
    /// without a port counts with any port) and by pages of the sites in `origins`.
    pub fn new(listen: &[IpAddr], hosts: &[String], origins: &[String]) -> Result<Self, SiteRuleError> {
        let host =
            |entry: &String| Site::parse(entry).ok_or_else(|| SiteRuleError::Host { entry: entry.clone() });
        let origin = |entry: &String| {
            split_origin(entry)
                .and_then(|(scheme, site)| Some((scheme.to_ascii_lowercase().into(), Site::parse(site)?)))
                .ok_or_else(|| SiteRuleError::Origin { entry: entry.clone() })
        };
        Ok(Self {
            hosts: hosts.iter().map(host).collect::<Result<_, _>>()?,
            addresses: listen.to_vec(),
            any_address: listen.iter().any(IpAddr::is_unspecified),
            local_pages: !listen.is_empty() && listen.iter().all(IpAddr::is_loopback),
            origins: origins.iter().map(origin).collect::<Result<_, _>>()?,
        })
    }

    /// Checks the `Host` header (or `:authority`) and the `Origin` header of a request. A request
    /// with several of either must be refused before.
    pub fn check(&self, host: Option<&str>, origin: Option<&str>) -> Result<(), Refusal> {
        let Some(host) = host else {
            return Err(Refusal::new(Step::Listen, RefusalCode::Malformed, "the request has no Host header"));
        };
        let Some(named) = HostPort::parse(host).filter(|named| self.answers_to(named)) else {
            return Err(foreign("host", host, "hosts"));
        };
        match origin {
            Some(origin) if !self.may_speak(origin, &named) => Err(foreign("origin", origin, "origins")),
            _ => Ok(()),
        }
    }

    fn answers_to(&self, named: &HostPort<'_>) -> bool {
        match named.address() {
            _ if self.hosts.iter().any(|site| site.matches(named)) => true,
            Some(ip) => ip.is_loopback() || self.any_address || self.addresses.contains(&ip),
            None => named.is_localhost(),
        }
    }

    fn may_speak(&self, origin: &str, host: &HostPort<'_>) -> bool {
        let Some((scheme, site)) = split_origin(origin) else { return false };
        let Some(from) = HostPort::parse(site) else { return false };
        let same_site = from.host.eq_ignore_ascii_case(host.host) && from.port == host.port;
        let local = || from.is_localhost() || from.address().is_some_and(|ip| ip.is_loopback());
        let listed = || self.origins.iter().any(|(s, site)| s.eq_ignore_ascii_case(scheme) && site.is(&from));
        same_site || (self.local_pages && local()) || listed()
    }
}

impl Site {
    fn parse(text: &str) -> Option<Self> {
        HostPort::parse(text)
            .map(|parsed| Self { host: parsed.host.to_ascii_lowercase().into(), port: parsed.port })
    }

    fn matches(&self, named: &HostPort<'_>) -> bool {
        self.host.eq_ignore_ascii_case(named.host) && self.port.is_none_or(|port| named.port == Some(port))
    }

    fn is(&self, from: &HostPort<'_>) -> bool {
        self.host.eq_ignore_ascii_case(from.host) && self.port == from.port
    }
}

/// A host as headers write it: name, IPv4 address or IPv6 address without its brackets.
#[derive(Debug, PartialEq, Eq)]
struct HostPort<'a> {
    host: &'a str,
    port: Option<u16>,
    bracketed: bool,
}

impl<'a> HostPort<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (host, rest, bracketed) = match text.strip_prefix('[') {
            Some(inner) => {
                let (host, rest) = inner.split_once(']')?;
                host.parse::<Ipv6Addr>().ok()?;
                (host, rest, true)
            }
            None => {
                let (host, rest) = text.split_at_checked(text.find(':').unwrap_or(text.len()))?;
                (host, rest, false)
            }
        };
        let port = match rest.strip_prefix(':') {
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            Some(_) => return None,
            None if rest.is_empty() => None,
            None => return None,
        };
        // The absolute form of a name (`localhost.`) names the same.
        let host = if bracketed { host } else { host.strip_suffix('.').unwrap_or(host) };
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let named = bracketed || ((1..=253).contains(&host.len()) && host.bytes().all(good));
        named.then_some(Self { host, port, bracketed })
    }

    fn address(&self) -> Option<IpAddr> {
        let could_be = self.bracketed || self.host.starts_with(|c: char| c.is_ascii_digit());
        if could_be { self.host.parse().ok() } else { None }
    }

    fn is_localhost(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
    }
}

/// `scheme://host:port` and nothing more, as RFC 6454 section 7 writes it; never `null`.
fn split_origin(origin: &str) -> Option<(&str, &str)> {
    let (scheme, site) = origin.split_once("://")?;
    let good = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    (good && !site.contains('/')).then_some((scheme, site))
}

fn foreign(what: &str, found: &str, key: &str) -> Refusal {
    let found: String = found.chars().filter(|c| !c.is_control()).take(100).collect();
    Refusal::new(Step::Listen, RefusalCode::ForeignOrigin, format!("{what} {found:?} is not served here"))
        .advise(format!("If it belongs to this gate, add it to `{key}` in the configuration"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(listen: &str, hosts: &[&str], origins: &[&str]) -> SiteRules {
        let owned = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        SiteRules::new(&[listen.parse().expect("address")], &owned(hosts), &owned(origins)).expect("rules")
    }

    #[test]
    fn hosts_and_origins_are_judged() {
        let local = rules("127.0.0.1", &["gate.example", "fixed.example:8440"], &["https://app.example"]);
        let outside = rules("192.0.2.1", &["gate.example"], &["https://app.example:3000"]);
        let anywhere = rules("0.0.0.0", &[], &[]);
        for (rules, host, origin, good) in [
            (&local, "localhost:8440", None, true),
            (&local, "LocalHost.", None, true),
            (&local, "127.0.0.1:8440", None, true),
            (&local, "[::1]:8440", None, true),
            (&local, "gate.example:1234", None, true),
            (&local, "fixed.example:8440", None, true),
            (&local, "fixed.example", None, false),
            (&local, "evil.example", None, false),
            (&local, "evil.example:8440", Some("http://evil.example:8440"), false),
            (&local, "localhost.evil.example", None, false),
            (&local, "192.0.2.1", None, false),
            (&local, "", None, false),
            (&local, "localhost:", None, false),
            (&local, "localhost:99999", None, false),
            (&local, "localhost:+80", None, false),
            (&local, "user@localhost", None, false),
            (&local, "[::1", None, false),
            (&local, "[localhost]", None, false),
            (&local, "localhost", Some("http://localhost:6274"), true),
            (&local, "localhost", Some("http://[::1]:6274"), true),
            (&local, "localhost", Some("https://app.example"), true),
            (&local, "localhost", Some("http://app.example"), false),
            (&local, "localhost", Some("https://app.example:8443"), false),
            (&local, "localhost", Some("https://app.example.evil"), false),
            (&local, "localhost", Some("null"), false),
            (&local, "localhost", Some(""), false),
            (&local, "localhost", Some("http://localhost/"), false),
            (&local, "localhost", Some("http://evil.example"), false),
            (&outside, "192.0.2.1:8440", None, true),
            (&outside, "192.0.2.2:8440", None, false),
            (&outside, "gate.example:8440", Some("https://gate.example:8440"), true),
            (&outside, "gate.example:8440", Some("https://gate.example:9000"), false),
            (&outside, "gate.example", Some("http://localhost:3000"), false),
            (&outside, "gate.example", Some("https://app.example:3000"), true),
            (&anywhere, "198.51.100.7:8440", None, true),
            (&anywhere, "[2001:db8::1]:8440", None, true),
            (&anywhere, "evil.example", None, false),
        ] {
            assert_eq!(rules.check(Some(host), origin).is_ok(), good, "{host} {origin:?}");
        }
        assert!(local.check(None, None).is_err());
        let refusal = local.check(Some("evil.example"), None).expect_err("foreign");
        assert_eq!(refusal.code, RefusalCode::ForeignOrigin);
    }

    #[test]
    fn wrong_entries_are_named() {
        let ip = ["127.0.0.1".parse().expect("address")];
        for bad in ["", "a b", "http://x", "x:port", "::1"] {
            assert!(SiteRules::new(&ip, &[bad.into()], &[]).is_err(), "{bad}");
        }
        for bad in ["x.example", "https://x/y", "null"] {
            assert!(SiteRules::new(&ip, &[], &[bad.into()]).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_judged_without_panic(host in any::<String>(), origin in any::<String>()) {
            let rules = rules("127.0.0.1", &["gate.example"], &["https://app.example"]);
            let _ = rules.check(Some(&host), Some(&origin));
            let _ = rules.check(Some("localhost"), Some(&format!("http://{origin}")));
        }

        #[test]
        fn foreign_names_never_pass(name in "[a-z]{1,10}\\.[a-z]{2,5}", port in any::<u16>()) {
            let rules = rules("127.0.0.1", &[], &[]);
            let host = format!("{name}:{port}");
            prop_assert!(rules.check(Some(&host), None).is_err());
        }
    }
}
