//! The configuration: `castra.toml` in one typed form.
//!
//! The docstrings of the types below are the reference that users read
//! (`docs/reference/configuration.md`) and stand in the JSON Schema that editors check with;
//! both are generated from here. `read.rs` is the one parser, `values.rs` the kinds of value.

mod budgets;
mod flow;
mod inspect;
mod model;
mod peer;
mod read;
mod reference;
mod values;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use castra_core::{AgentName, GroupName, Limits, PolicyMode, ServerName};
use castra_store::{ApprovalBounds, log::LogOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

pub use budgets::{Budget, Budgets, Money, Per, Quantity, UnknownPrice};
pub use flow::{Flow, FlowPrompts};
pub use inspect::{Becomes, Inspect, InspectPattern};
pub use model::{Model, ModelVersion, SecretRef};
pub use peer::{Card, Delegation, Peer};
pub use read::{ConfigError, Loaded, Problem};
pub(crate) use read::{read_file, read_strictly};
pub use reference::{json_schema, markdown};
pub use values::{Count, Size, Text, Time, Tls, Url};

/// Everything that `castra.toml` can say. Every key may be left out.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where agents come in.
    pub gate: Gate,
    /// Where people come in: the console and its API.
    pub console: Console,
    /// Where Castra keeps what it must not forget.
    pub state: State,
    /// What may happen.
    pub policy: Policy,
    /// Questions to people, which policies ask with `@ask("person")`.
    pub approvals: Approvals,
    /// How actions are written down.
    pub record: Record,
    /// Limits; reaching one is a refusal that is recorded.
    pub limits: LimitsTable,
    /// What is looked for in requests and answers, and what becomes of it.
    pub inspect: Inspect,
    /// Flow control.
    pub flow: Flow,
    /// Agents' own tools: those that a model calls and no server offers.
    pub local: Local,
    /// What all budgets share.
    pub budgets: Budgets,
    /// What Castra says about itself on standard error.
    pub log: Log,
    /// An MCP server that agents reach through the gate. One table per server.
    pub server: Vec<Server>,
    /// A model route: a name that agents use, and the versions that answer to it. One table per route.
    pub model: Vec<Model>,
    /// Another agent (A2A) that agents reach through the gate. One table per peer.
    pub peer: Vec<Peer>,
    /// An OpenID Connect issuer whose JWTs are taken from agents. One table per issuer.
    pub issuer: Vec<Issuer>,
    /// What may be used in a stretch of time, by whom and of which model. A call must fit every budget that covers
    /// it. One table per budget.
    pub budget: Vec<Budget>,
}

/// Where agents come in.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Gate {
    /// Address and port. Port 0 takes a free one.
    #[serde(deserialize_with = "address")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Host names that requests may carry, with a port or without, besides the listening address itself
    /// and, on loopback, `localhost`. Others are refused, so that a web page cannot reach the gate by DNS rebinding.
    pub hosts: Vec<String>,
    /// Web pages that may speak to the gate, such as `"https://app.example"`. Pages of this machine may when
    /// the gate listens on loopback; others may not.
    pub origins: Vec<String>,
    /// The URL under which agents reach the gate, when it is another than the listening address. Its
    /// host is among the allowed ones, and tokens of an issuer must be meant for it (RFC 8707).
    pub public_url: Option<Url>,
    /// `"off"`, `"auto"` (a certificate of Castra's own CA) or `{ cert = "…", key = "…" }` (PEM
    /// files). Left out: `"off"` on a loopback address, `"auto"` elsewhere. `"off"` is refused elsewhere.
    pub tls: Option<Tls>,
    /// A PEM file with the CAs whose client certificates are taken, besides Castra's own CA.
    pub client_ca: Option<PathBuf>,
    /// The SPIFFE trust domain of client certificates: their name is `spiffe://DOMAIN/agent/NAME`.
    pub trust_domain: String,
}

/// Where people come in: the console and its API.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Console {
    /// Address and port. Port 0 takes a free one.
    #[serde(deserialize_with = "address")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Host names that requests may carry, as for the gate.
    pub hosts: Vec<String>,
    /// The URL under which people reach the console, when it is another than the listening address.
    pub public_url: Option<Url>,
    /// As for the gate.
    pub tls: Option<Tls>,
}

/// Where Castra keeps what it must not forget.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// The folder: keys, agents, the log. Only castra's own user may read it.
    pub dir: PathBuf,
}

/// What may happen.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// The folder with the Cedar policies (`*.cedar`).
    pub dir: PathBuf,
    /// `"enforce"` refuses what no policy permits; `"observe"` records it as denied and lets it through.
    #[schemars(with = "PolicyModeSchema")]
    pub mode: PolicyMode,
    /// Whether the standard pack stands beside the folder's policies: flow control, and leave for tools that a
    /// manifest describes. `castra policy standard` prints it; to change it, put a copy into the folder and
    /// set this to `false`.
    pub standard: bool,
}

/// Questions to people, which policies ask with `@ask("person")`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Approvals {
    /// How long a question waits for its answer, and how long an answer is good.
    pub expires: Time<1000>,
    /// Questions that may wait at once; of one agent a quarter of them. What would be one more is refused.
    pub pending_max: NonZeroU32,
}

impl Approvals {
    /// As the gate takes them.
    pub(crate) fn bounds(&self) -> ApprovalBounds {
        let in_all = u64::from(self.pending_max.get());
        ApprovalBounds { expires: self.expires.0, of_agent: in_all.div_ceil(4), in_all }
    }
}

impl Default for Approvals {
    fn default() -> Self {
        let ApprovalBounds { expires, in_all, .. } = ApprovalBounds::default();
        let pending_max = u32::try_from(in_all).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
        Self { expires: Time(expires), pending_max }
    }
}

/// Agents' own tools: those that a model calls and no server offers. Policies know them as
/// `Castra::Tool::"local/NAME"` in `Castra::Server::"local"`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Local {
    /// A TOML file that says what they do, a table per tool. What it does not name may do anything.
    pub manifest: Option<PathBuf>,
}

/// How actions are written down.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Record {
    /// Whether a call that only reads waits until its record is on disk (`"before"`), or is forwarded
    /// while that is written (`"alongside"`). Calls that change something always wait.
    pub reads: Reads,
    /// How long records that nobody waits for are gathered before they are written together.
    pub linger: Time<0>,
    /// How often a signed checkpoint of the log is made while there are new records.
    pub checkpoint: Time,
}

/// Whether read-only calls wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reads {
    /// Forwarded while the record is written.
    Alongside,
    /// Forwarded when the record is on disk.
    Before,
}

/// What Castra says about itself on standard error.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `"text"` for people, `"json"` for machines (one object per line).
    pub format: LogFormat,
    /// `"error"`, `"warn"`, `"info"`, `"debug"` or `"trace"`.
    pub level: LogLevel,
}

/// The form of castra's own log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// How much castra says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What failed.
    Error,
    /// And what looks wrong.
    Warn,
    /// And what happened.
    Info,
    /// And how.
    Debug,
    /// And every step of it.
    Trace,
}

/// An MCP server that agents reach through the gate, at `/mcp/NAME` and, together with the others, at
/// `/mcp`. Either a child process (`command`) or over HTTP (`url`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "ServerTable")]
pub struct Server {
    /// Its name in paths, policies and records.
    pub name: ServerName,
    /// What it is.
    pub upstream: Upstream,
    /// The tool manifest, if there is one.
    pub manifest: Option<PathBuf>,
    /// What the server may ask of the agents' clients.
    pub allow: Vec<Allow>,
}

/// How an MCP server is reached.
#[derive(Debug, Clone, PartialEq)]
pub enum Upstream {
    /// As a child process over standard input and output.
    Command {
        /// The program.
        program: String,
        /// Its arguments.
        args: Vec<String>,
        /// Its working folder.
        cwd: Option<PathBuf>,
        /// Variables added to its environment.
        env: BTreeMap<String, Text>,
    },
    /// Over streamable HTTP.
    Http {
        /// Its endpoint.
        url: Url,
        /// Headers added to each request.
        headers: BTreeMap<String, Text>,
        /// Whether TLS 1.2 is taken too.
        tls12: bool,
        /// CAs to trust instead of the system's.
        ca: Option<PathBuf>,
    },
}

/// What a server may ask of an agent's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Allow {
    /// An answer of the client's model.
    Sampling,
    /// A question to the client's user.
    Elicitation,
    /// The folders that the client works in.
    Roots,
}

/// A `[[server]]` table as it is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Server")]
struct ServerTable {
    /// Its name in paths, policies and records: lower case letters, digits and `-`, at most 40.
    #[schemars(with = "String")]
    name: ServerName,
    /// Program and arguments of a server that Castra starts itself and speaks to over standard input
    /// and output. Either this or `url`.
    command: Option<Vec<String>>,
    /// Working folder of the command. Left out: the one that castra was started in.
    cwd: Option<PathBuf>,
    /// Variables added to the small environment that the command gets. Values may be `env:NAME` or `file:PATH`.
    #[serde(default)]
    env: BTreeMap<String, Text>,
    /// Endpoint of a server over streamable HTTP. Either this or `command`.
    url: Option<Url>,
    /// Headers added to each request to `url`. Values may be `env:NAME` or `file:PATH`.
    #[serde(default)]
    headers: BTreeMap<String, Text>,
    /// Takes TLS 1.2 besides 1.3 for `url`. Only for servers that cannot do better.
    #[serde(default)]
    tls12: bool,
    /// Permits an `http` URL to another machine: nothing sent there is secret.
    #[serde(default)]
    plaintext: bool,
    /// A PEM file with the CAs to trust for `url`, instead of the system's.
    ca: Option<PathBuf>,
    /// A TOML file that says what the server's catalogue cannot: effects of its tools and more.
    manifest: Option<PathBuf>,
    /// What the server may ask of an agent's client: `"sampling"`, `"elicitation"`, `"roots"`.
    #[serde(default)]
    allow: Vec<Allow>,
}

impl TryFrom<ServerTable> for Server {
    type Error = String;

    fn try_from(t: ServerTable) -> Result<Self, String> {
        let name = &t.name;
        let upstream = match (t.command, t.url) {
            (Some(_), Some(_)) => return Err(format!("server {name} has both command and url: keep one")),
            (None, None) => {
                return Err(format!(
                    "server {name} has neither command nor url: add command = [\"program\", …] or url = \"https://…\""
                ));
            }
            (Some(command), None) => {
                if !t.headers.is_empty() || t.tls12 || t.plaintext || t.ca.is_some() {
                    return Err(format!(
                        "server {name} has a command, so headers, tls12, plaintext and ca mean nothing: remove them"
                    ));
                }
                let mut parts = command.into_iter();
                let program = parts.next().filter(|p| !p.is_empty());
                let program = program.ok_or_else(|| format!("command of server {name} names no program"))?;
                Upstream::Command { program, args: parts.collect(), cwd: t.cwd, env: t.env }
            }
            (None, Some(url)) => {
                if t.cwd.is_some() || !t.env.is_empty() {
                    return Err(format!("server {name} has a url, so cwd and env mean nothing: remove them"));
                }
                if !url.is_protected() && !t.plaintext {
                    return Err(format!(
                        "url of server {name} is plain http to another machine: use https, or add plaintext = true"
                    ));
                }
                Upstream::Http { url, headers: t.headers, tls12: t.tls12, ca: t.ca }
            }
        };
        Ok(Self { name: t.name, upstream, manifest: t.manifest, allow: t.allow })
    }
}

impl JsonSchema for Server {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Server".into()
    }
    fn json_schema(g: &mut schemars::SchemaGenerator) -> schemars::Schema {
        ServerTable::json_schema(g)
    }
}

/// An OpenID Connect issuer whose JWTs are taken from agents.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// The issuer, exactly as `iss` in its tokens has it: an https URL.
    pub issuer: String,
    /// Values of `aud` that are taken. Left out: the gate's public URL, or its address.
    #[serde(default)]
    pub audience: Vec<String>,
    /// Where its keys are. Left out: as its discovery document says.
    pub jwks_url: Option<Url>,
    /// Signature algorithms that are taken.
    #[serde(default = "Algorithm::all")]
    pub algorithms: Vec<Algorithm>,
    /// The claim with the agent's name. Tokens with `act` (RFC 8693) name the agent there: who acts now is
    /// `act.sub`, on behalf of `sub`.
    #[serde(default = "claim_sub")]
    pub agent_claim: String,
    /// The claim with the agent's groups (a list, or one text): its name, or a path such as `realm_access.roles`.
    #[serde(default = "claim_groups")]
    pub groups_claim: String,
    /// The claim with the scopes (a text with spaces, or a list). A token without it is limited by policy only.
    #[serde(default = "claim_scope")]
    pub scope_claim: String,
    /// What the issuer's scopes mean in Castra's words (`"mcp:call"`, `"mcp:read"`); one that is not here
    /// stands for itself.
    #[serde(default)]
    pub scopes: BTreeMap<String, Vec<String>>,
    /// Takes only tokens that call themselves access tokens (`typ` is `at+jwt`, RFC 9068).
    #[serde(default)]
    pub access_tokens_only: bool,
    /// How far the issuer's clock may be from ours.
    #[serde(default = "skew")]
    pub skew: Time<0>,
    /// Names of agents by the claim's value, where that is not the name itself.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub agents: BTreeMap<String, AgentName>,
    /// Names of groups by the claim's values, where they are not the names themselves.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub groups: BTreeMap<String, GroupName>,
    /// Takes agents that are not known yet. Otherwise `castra agent add` comes first.
    #[serde(default)]
    pub auto_agents: bool,
}

/// A signature algorithm of JWTs (RFC 7518, section 3.1; RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[allow(missing_docs, clippy::upper_case_acronyms)]
pub enum Algorithm {
    ES256,
    ES384,
    EdDSA,
    PS256,
    PS384,
    PS512,
    RS256,
    RS384,
    RS512,
}

impl Algorithm {
    fn all() -> Vec<Self> {
        vec![Self::ES256, Self::ES384, Self::EdDSA, Self::PS256, Self::RS256]
    }
}

fn claim_sub() -> String {
    "sub".into()
}

fn claim_groups() -> String {
    "groups".into()
}

fn claim_scope() -> String {
    "scope".into()
}

fn skew() -> Time<0> {
    Time(Duration::from_secs(60))
}

/// Limits; reaching one is a refusal that is recorded.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsTable {
    /// A request body. It is held in memory once.
    pub body_bytes_max: Size,
    /// An upstream's whole answer, or one event of a stream.
    pub answer_bytes_max: Size,
    /// All headers of a request.
    pub header_bytes_max: Size,
    /// Levels of arrays and objects in JSON.
    pub json_depth_max: Count<256>,
    /// Connections at once.
    pub connections_max: Count<1_000_000>,
    /// Calls in flight of one agent, so that one cannot starve the others.
    pub calls_per_agent_max: Count<1_000_000>,
    /// Sessions of one agent (MCP before 2026-07-28).
    pub sessions_per_agent_max: Count<1_000_000>,
    /// Calls of one agent that wait for its client's input.
    pub parked_per_agent_max: Count<1_000_000>,
    /// Child processes of one configured server over all agents.
    pub children_per_server_max: Count<100_000>,
    /// A TLS handshake ends within this time.
    pub handshake_time_max: Time,
    /// The head of a request is there within this time.
    pub head_time_max: Time,
    /// The body of a request is there within this time.
    pub body_time_max: Time,
    /// A connection without a request is closed after this time.
    pub idle_time_max: Time,
    /// One call, from forwarding to its final answer.
    pub call_time_max: Time,
    /// A stream without an event ends after this time.
    pub stream_idle_max: Time,
    /// Connecting to an upstream, and its handshake.
    pub connect_time_max: Time,
    /// Starting a server's process, and its handshake: a first `npx` or `uvx` downloads the server.
    pub start_time_max: Time,
    /// A session that is not used for this long is forgotten.
    pub session_idle_max: Time,
    /// A call waits this long for the client's input. `call_time_max` goes on meanwhile.
    pub parked_time_max: Time,
    /// Calls in flight get this long to finish at shutdown.
    pub drain_time_max: Time,
    /// Records that wait to be written; beyond it actions are refused rather than forgotten.
    pub records_waiting_max: Count<10_000_000>,
}

impl LimitsTable {
    /// The limits as the gate takes them.
    pub fn to_limits(&self) -> Limits {
        Limits {
            body_bytes_max: self.body_bytes_max.0,
            answer_bytes_max: self.answer_bytes_max.0,
            header_bytes_max: self.header_bytes_max.0,
            json_depth_max: self.json_depth_max.0,
            connections_max: self.connections_max.0,
            calls_per_agent_max: self.calls_per_agent_max.0,
            sessions_per_agent_max: self.sessions_per_agent_max.0,
            parked_per_agent_max: self.parked_per_agent_max.0,
            children_per_server_max: self.children_per_server_max.0,
            handshake_time_max: self.handshake_time_max.0,
            head_time_max: self.head_time_max.0,
            body_time_max: self.body_time_max.0,
            idle_time_max: self.idle_time_max.0,
            call_time_max: self.call_time_max.0,
            stream_idle_max: self.stream_idle_max.0,
            connect_time_max: self.connect_time_max.0,
            start_time_max: self.start_time_max.0,
            session_idle_max: self.session_idle_max.0,
            parked_time_max: self.parked_time_max.0,
            drain_time_max: self.drain_time_max.0,
            records_waiting_max: self.records_waiting_max.0,
        }
    }
}

impl Default for LimitsTable {
    fn default() -> Self {
        let l = Limits::default();
        Self {
            body_bytes_max: Size(l.body_bytes_max),
            answer_bytes_max: Size(l.answer_bytes_max),
            header_bytes_max: Size(l.header_bytes_max),
            json_depth_max: Count(l.json_depth_max),
            connections_max: Count(l.connections_max),
            calls_per_agent_max: Count(l.calls_per_agent_max),
            sessions_per_agent_max: Count(l.sessions_per_agent_max),
            parked_per_agent_max: Count(l.parked_per_agent_max),
            children_per_server_max: Count(l.children_per_server_max),
            handshake_time_max: Time(l.handshake_time_max),
            head_time_max: Time(l.head_time_max),
            body_time_max: Time(l.body_time_max),
            idle_time_max: Time(l.idle_time_max),
            call_time_max: Time(l.call_time_max),
            stream_idle_max: Time(l.stream_idle_max),
            connect_time_max: Time(l.connect_time_max),
            start_time_max: Time(l.start_time_max),
            session_idle_max: Time(l.session_idle_max),
            parked_time_max: Time(l.parked_time_max),
            drain_time_max: Time(l.drain_time_max),
            records_waiting_max: Count(l.records_waiting_max),
        }
    }
}

impl Gate {
    /// Whether it speaks TLS, with the default for its address.
    pub fn tls(&self) -> Tls {
        tls_for(self.tls.as_ref(), self.listen)
    }
}

impl Console {
    /// Whether it speaks TLS, with the default for its address.
    pub fn tls(&self) -> Tls {
        tls_for(self.tls.as_ref(), self.listen)
    }
}

fn tls_for(given: Option<&Tls>, listen: SocketAddr) -> Tls {
    let default = if listen.ip().is_loopback() { Tls::Off } else { Tls::Auto };
    given.cloned().unwrap_or(default)
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            listen: loopback(8440),
            hosts: Vec::new(),
            origins: Vec::new(),
            public_url: None,
            tls: None,
            client_ca: None,
            trust_domain: "castra".into(),
        }
    }
}

impl Default for Console {
    fn default() -> Self {
        Self { listen: loopback(8441), hosts: Vec::new(), public_url: None, tls: None }
    }
}

fn address<'de, D: Deserializer<'de>>(d: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(d)?;
    let what = "expected an address and a port, such as \"127.0.0.1:8440\" or \"[::]:8440\"";
    text.parse().map_err(|_| serde::de::Error::custom(what))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Default for State {
    fn default() -> Self {
        Self { dir: "castra-state".into() }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self { dir: "policies".into(), mode: PolicyMode::default(), standard: true }
    }
}

impl Default for Record {
    fn default() -> Self {
        let LogOptions { linger, interval, .. } = LogOptions::default();
        Self { reads: Reads::Alongside, linger: Time(linger), checkpoint: Time(interval) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: LogLevel::Info }
    }
}

/// The words of [`PolicyMode`], which core defines without a schema.
#[derive(JsonSchema)]
#[schemars(rename = "PolicyMode", rename_all = "lowercase")]
#[allow(dead_code)]
enum PolicyModeSchema {
    /// A denied action is refused.
    Enforce,
    /// A denied action is recorded as denied and let through.
    Observe,
}

impl Config {
    /// Joins every relative path to the folder of the configuration file.
    fn anchor(mut self, folder: &Path) -> Self {
        let join = |path: &mut PathBuf| *path = folder.join(&*path);
        join(&mut self.state.dir);
        join(&mut self.policy.dir);
        self.gate.client_ca.iter_mut().for_each(join);
        self.budgets.prices.iter_mut().for_each(join);
        for tls in [&mut self.gate.tls, &mut self.console.tls] {
            if let Some(Tls::Files { cert, key }) = tls {
                join(cert);
                join(key);
            }
        }
        self.peer.iter_mut().flat_map(Peer::files_mut).for_each(join);
        self.local.manifest.iter_mut().for_each(join);
        for server in &mut self.server {
            server.manifest.iter_mut().for_each(join);
            let texts = match &mut server.upstream {
                Upstream::Command { cwd, env, .. } => {
                    cwd.iter_mut().for_each(join);
                    env
                }
                Upstream::Http { ca, headers, .. } => {
                    ca.iter_mut().for_each(join);
                    headers
                }
            };
            for text in texts.values_mut() {
                if let Text::File(path) = text {
                    join(path);
                }
            }
        }
        for version in self.model.iter_mut().flat_map(|model| &mut model.version) {
            version.ca.iter_mut().for_each(join);
            version.key.iter_mut().filter_map(SecretRef::file_mut).for_each(join);
            for text in version.system.iter_mut().chain(version.headers.values_mut()) {
                if let Text::File(path) = text {
                    join(path);
                }
            }
        }
        self
    }
}
