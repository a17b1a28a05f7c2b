//! Configuration to parts of a gate: secrets are looked up, names and files checked.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::Arc,
};

use castra_core::{Limits, Timestamp};
use castra_flow::ToolManifest;
use castra_gateway::{
    AllowedAsks, ServerParts,
    budget::{Covers, Limit, Per, Rule, Settings, UnknownPrice},
    upstream::{Transport, UpstreamConfig},
};
use castra_host::Secret;
use castra_identity::{Authority, NameRule, ResourceServer, SiteRules, TrustDomain};
use castra_inspect::Inspector;
use castra_net::{
    client::{ClientSettings, HttpClient, machine_tls},
    tls::{ClientTlsConfig, ServerTls, ServerTlsConfig, client_config},
};
use castra_store::{StateDir, files};
use http::{HeaderName, HeaderValue};

use crate::{
    config::{self, Allow, Config, Server, Text, Tls, Upstream, Url},
    manifest::Manifest,
    out::Failure,
    policies, prices,
};

/// Bytes of a file with a secret, certificate or key.
pub(super) const SECRET_BYTES_MAX: u64 = 1 << 20;

/// The servers, ready to be reached.
pub(crate) fn server_parts(
    config: &Config,
    limits: &Limits,
    own_ca: &str,
) -> Result<Vec<ServerParts>, Failure> {
    let manifests = policies::manifests(config)?;
    let clients = Clients::new(limits, own_ca);
    let part = |server: &Server| {
        server_part(server, manifests.get(&server.name), &clients)
            .map_err(|e| Failure::new(format!("server {}: {e}", server.name)).advise(e.advice()))
    };
    config.server.iter().map(part).collect()
}

fn server_part(
    server: &Server,
    manifest: Option<&Manifest>,
    clients: &Clients<'_>,
) -> Result<ServerParts, Failure> {
    // What is hashed here is what a change of means a new connection.
    let mut hasher = DefaultHasher::new();
    format!("{server:?}{manifest:?}").hash(&mut hasher);
    let (transport, client) = match &server.upstream {
        Upstream::Command { program, args, cwd, env } => {
            let env = resolved(env)?;
            env.hash(&mut hasher);
            let command = std::iter::once(program).chain(args).cloned().collect();
            let env = env.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
            (Transport::Stdio { command, env, cwd: cwd.clone() }, clients.plain()?)
        }
        Upstream::Http { url, headers, tls12, ca } => {
            let headers = resolved(headers)?;
            headers.hash(&mut hasher);
            let client = match ca {
                Some(ca) => {
                    let roots = files::read_bytes(ca, SECRET_BYTES_MAX)?;
                    roots.hash(&mut hasher);
                    clients.trusting(roots, *tls12)?
                }
                None => clients.for_url(url, *tls12)?,
            };
            (Transport::Http { url: url.uri().clone(), headers: header_list(headers)? }, client)
        }
    };
    let allowed = |what| server.allow.contains(&what);
    Ok(ServerParts {
        config: UpstreamConfig { name: server.name.clone(), transport },
        client,
        tools: described(manifest),
        allow: AllowedAsks {
            sampling: allowed(Allow::Sampling),
            elicitation: allowed(Allow::Elicitation),
            roots: allowed(Allow::Roots),
        },
        fingerprint: hasher.finish(),
    })
}

/// What is said of agents' own tools.
pub(super) fn local_tools(config: &Config) -> Result<HashMap<String, ToolManifest>, Failure> {
    let manifest = config.local.manifest.as_deref().map(crate::manifest::load).transpose()?;
    Ok(described(manifest.as_ref()))
}

fn described(manifest: Option<&Manifest>) -> HashMap<String, ToolManifest> {
    let tools = manifest.map(|m| &m.tools).into_iter().flatten();
    tools.map(|(name, said)| (name.clone(), said.clone())).collect()
}

pub(super) fn resolved(texts: &BTreeMap<String, Text>) -> Result<BTreeMap<String, String>, Failure> {
    texts.iter().map(|(name, text)| Ok((name.clone(), resolve(name, text)?))).collect()
}

/// Looks a text up where it stands.
pub(crate) fn resolve(name: &str, text: &Text) -> Result<String, Failure> {
    match text {
        Text::Plain(text) => Ok(text.clone()),
        Text::Env(variable) => std::env::var(variable).map_err(|_| {
            Failure::new(format!("{name} is to be taken from the variable {variable}, which is not set"))
                .advise(format!("Set {variable} where castra is started, or use file:PATH."))
        }),
        Text::File(path) => {
            let text = files::read_text(path, SECRET_BYTES_MAX)?;
            let line = text.strip_suffix('\n').unwrap_or(&text);
            Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
        }
    }
}

pub(super) fn header_list(
    headers: BTreeMap<String, String>,
) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
    let header = |(name, value): (String, String)| {
        let bad = |what| Failure::new(format!("{name:?} in headers is no {what} of HTTP"));
        let header = HeaderName::try_from(name.as_str()).map_err(|_| bad("header name"))?;
        let mut value = HeaderValue::try_from(value).map_err(|_| bad("header with a value"))?;
        value.set_sensitive(true);
        Ok((header, value))
    };
    headers.into_iter().map(header).collect()
}

/// HTTP clients; those without exceptions share one.
pub(super) struct Clients<'a> {
    settings: ClientSettings,
    own_ca: &'a str,
    shared: std::cell::OnceCell<HttpClient>,
}

impl<'a> Clients<'a> {
    pub(super) fn new(limits: &Limits, own_ca: &'a str) -> Self {
        Self { settings: ClientSettings::from(limits), own_ca, shared: std::cell::OnceCell::new() }
    }

    /// With this time for connections without a request.
    pub(super) fn idle(mut self, time_max: std::time::Duration) -> Self {
        self.settings.idle_time_max = time_max;
        self
    }

    pub(super) fn for_url(&self, url: &Url, tls12: bool) -> Result<HttpClient, Failure> {
        if url.uri().scheme_str() == Some("http") {
            return self.plain();
        }
        self.for_machine(tls12)
    }

    /// A client that trusts what this machine trusts.
    pub(super) fn for_machine(&self, tls12: bool) -> Result<HttpClient, Failure> {
        if tls12 {
            return Ok(HttpClient::new(self.settings, &machine_tls(true)?));
        }
        if let Some(client) = self.shared.get() {
            return Ok(client.clone());
        }
        let client = HttpClient::new(self.settings, &machine_tls(false)?);
        Ok(self.shared.get_or_init(|| client).clone())
    }

    /// A client for servers that need no TLS: a machine without root certificates can have these too.
    fn plain(&self) -> Result<HttpClient, Failure> {
        self.trusting(self.own_ca.as_bytes().to_vec(), false)
    }

    pub(super) fn trusting(&self, roots_pem: Vec<u8>, allow_tls12: bool) -> Result<HttpClient, Failure> {
        let config =
            ClientTlsConfig { roots_pem: vec![roots_pem], allow_tls12, ..ClientTlsConfig::default() };
        Ok(HttpClient::new(self.settings, &client_config(&config)?))
    }
}

/// Budgets and prices as the gate takes them.
pub(crate) fn budgets(config: &Config) -> Result<Settings, Failure> {
    Ok(Settings {
        rules: config.budget.iter().map(rule).collect(),
        prices: prices::load(config.budgets.prices.as_deref())?,
        unknown_price: match config.budgets.unknown_price {
            config::UnknownPrice::Refuse => UnknownPrice::Refuse,
            config::UnknownPrice::Allow => UnknownPrice::Allow,
        },
        output_default: config.budgets.output_tokens.0,
    })
}

fn rule(budget: &config::Budget) -> Rule {
    Rule {
        name: budget.name.as_str().into(),
        covers: Covers {
            agent: budget.agent.clone(),
            group: budget.group.clone(),
            person: budget.person.as_deref().map(Into::into),
            model: budget.model.clone(),
        },
        each: budget.each,
        per: match budget.per {
            config::Per::Minute => Per::Minute,
            config::Per::Hour => Per::Hour,
            config::Per::Day => Per::Day,
            config::Per::Month => Per::Month,
        },
        limit: Limit {
            requests: budget.requests.map(|n| n.0),
            tokens: budget.tokens.map(|n| n.0),
            money: budget.money.map(|n| n.0),
        },
    }
}

/// Which Host and Origin headers the gate takes.
pub(super) fn gate_sites(config: &Config) -> Result<SiteRules, Failure> {
    let gate = &config.gate;
    sites(gate.listen, &gate.hosts, &gate.origins, gate.public_url.as_ref())
}

/// Which Host and Origin headers the console takes.
pub(super) fn console_sites(config: &Config) -> Result<SiteRules, Failure> {
    let console = &config.console;
    sites(console.listen, &console.hosts, &[], console.public_url.as_ref())
}

fn sites(
    listen: std::net::SocketAddr,
    hosts: &[String],
    origins: &[String],
    public_url: Option<&Url>,
) -> Result<SiteRules, Failure> {
    let mut hosts = hosts.to_vec();
    hosts.extend(public_url.and_then(|url| url.uri().authority()).map(ToString::to_string));
    Ok(SiteRules::new(&[listen.ip()], &hosts, origins)?)
}

/// How client certificates name agents: those of the built-in CA, then those of a given one.
pub(super) fn certificate_rules(config: &Config) -> Result<Vec<NameRule>, Failure> {
    let domain = TrustDomain::new(&config.gate.trust_domain)?;
    let mut rules = vec![NameRule::Issued(domain.clone())];
    if config.gate.client_ca.is_some() {
        rules.push(NameRule::Spiffe(domain));
    }
    Ok(rules)
}

/// What looks for secrets and the operator's own patterns.
pub(super) fn inspector(config: &Config) -> Result<Inspector, Failure> {
    Ok(Inspector::new(&config.inspect.settings())?)
}

/// The gate as an OAuth resource server.
pub(super) fn resource_server(config: &Config, address: &str) -> Result<ResourceServer, Failure> {
    let issuers = config.issuer.iter().map(|issuer| issuer.issuer.clone()).collect();
    Ok(ResourceServer::new(address, issuers)?)
}

/// The TLS of both listeners; none where they speak plain HTTP.
pub(super) struct Listening {
    pub(super) gate: Option<Arc<ServerTls>>,
    pub(super) console: Option<Arc<ServerTls>>,
}

impl Listening {
    pub(super) fn new(
        config: &Config,
        dir: &StateDir,
        authority: &Authority,
        now: Timestamp,
    ) -> Result<Self, Failure> {
        let gate = tls_config(config, &config.gate.tls(), true, dir, authority, now)?;
        let console = tls_config(config, &config.console.tls(), false, dir, authority, now)?;
        let make = |config: Option<ServerTlsConfig>| config.map(|c| ServerTls::new(&c, now)).transpose();
        Ok(Self { gate: make(gate)?, console: make(console)? })
    }

    /// Takes renewed or changed certificates. New connections get them.
    pub(super) fn reload(
        &self,
        config: &Config,
        dir: &StateDir,
        authority: &Authority,
        now: Timestamp,
    ) -> Result<(), Failure> {
        for (listener, tls, is_gate) in
            [(&self.gate, config.gate.tls(), true), (&self.console, config.console.tls(), false)]
        {
            if let (Some(listener), Some(new)) =
                (listener, tls_config(config, &tls, is_gate, dir, authority, now)?)
            {
                listener.reload(&new, now)?;
            }
        }
        Ok(())
    }
}

fn tls_config(
    config: &Config,
    tls: &Tls,
    is_gate: bool,
    dir: &StateDir,
    authority: &Authority,
    now: Timestamp,
) -> Result<Option<ServerTlsConfig>, Failure> {
    let (certificate_pem, key_pem) = match tls {
        Tls::Off => return Ok(None),
        Tls::Auto => {
            let issued = dir.server_certificate(authority, &certificate_names(config), now)?;
            (issued.chain_pem.into_bytes(), issued.key_pem.as_bytes().to_vec())
        }
        Tls::Files { cert, key } => (read_pem(cert)?, read_pem(key)?),
    };
    let mut client_roots_pem = Vec::new();
    if is_gate {
        client_roots_pem.push(authority.certificate_pem().as_bytes().to_vec());
        client_roots_pem.extend(config.gate.client_ca.as_deref().map(read_pem).transpose()?);
    }
    Ok(Some(ServerTlsConfig { certificate_pem, key_pem: key_pem.into(), client_roots_pem, http2: true }))
}

fn read_pem(file: &Path) -> Result<Vec<u8>, Failure> {
    Ok(files::read_bytes(file, SECRET_BYTES_MAX)?)
}

/// The names that a certificate of the built-in CA stands for: one certificate for both listeners.
fn certificate_names(config: &Config) -> Vec<String> {
    let mut names = vec!["localhost".to_owned()];
    for (listen, hosts, url) in [
        (config.gate.listen, &config.gate.hosts, &config.gate.public_url),
        (config.console.listen, &config.console.hosts, &config.console.public_url),
    ] {
        let ip = listen.ip();
        // "All addresses" is no name; this machine's own is the least that clients can use.
        names.push(if ip.is_unspecified() { "127.0.0.1".into() } else { ip.to_string() });
        names.extend(hosts.iter().map(|host| without_port(host).to_owned()));
        names.extend(url.as_ref().map(|url| url.host().to_owned()));
    }
    names.sort();
    names.dedup();
    names
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host.trim_start_matches('[').trim_end_matches(']'),
    }
}
