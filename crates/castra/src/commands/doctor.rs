//! `castra doctor`: looks at everything that a gate needs, and says of each thing that is not right how
//! to mend it. It changes nothing.

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use castra_core::Timestamp;
use castra_gateway::{
    ServerParts,
    model::{VersionParts, list_models},
    upstream::{Answer, Deps, Hello, Incoming, Outgoing, RequestId, ServerEra, Upstream, UpstreamError},
};
use castra_ledger::{Checkpoint, Record};
use castra_net::{
    listen::{ListenConfig, Listener},
    tls::CertificateFacts,
};
use castra_policy::Problem;
use castra_protocol::mcp;
use castra_store::{StateDir, clock, files, log::LogReader};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::{Value, json};

use super::verify::key_of_state;
use crate::{
    cli::Global,
    config::{Config, Text, Tls, Upstream as Configured},
    context::Context,
    out::{Exit, Failure, Out, Outcome},
    policies, up,
};

/// A certificate that ends sooner than this is a finding.
const DAYS_LEFT_MIN: i64 = 30;
/// A server that takes longer than this to say what it offers is a finding.
/// A provider that takes longer than this to say what models it has is a finding.
const MODELS_TIME_MAX: Duration = Duration::from_secs(15);
const LIST_TIME_MAX: Duration = Duration::from_secs(15);
/// Before this, a clock was never set: the day that this file was written.
const NO_EARLIER: i64 = 1_795_478_400;

/// What was looked at and found.
#[derive(Debug, Serialize)]
struct Check {
    id: String,
    ok: bool,
    what: String,
    /// How to mend it; empty when nothing is wrong.
    mend: String,
}

#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn good(&mut self, id: impl Into<String>, what: impl Into<String>) {
        self.0.push(Check { id: id.into(), ok: true, what: what.into(), mend: String::new() });
    }

    fn bad(&mut self, id: impl Into<String>, what: impl Into<String>, mend: impl Into<String>) {
        self.0.push(Check { id: id.into(), ok: false, what: what.into(), mend: mend.into() });
    }

    fn failure(&mut self, id: impl Into<String>, failure: &Failure, else_mend: &str) {
        let mend = if failure.advice().is_empty() { else_mend } else { failure.advice() };
        self.bad(id, failure.to_string(), mend);
    }
}

pub(super) fn run(global: &Global) -> Outcome {
    let mut checks = Checks::default();
    let mut out = Out::new(global.json);
    match Context::new(global) {
        Ok(cx) => look(&cx, &mut checks)?,
        Err(failure) => {
            checks.failure("configuration", &failure, "Mend the file; the reference lists all keys.")
        }
    }
    out.value(&checks.0);
    for check in &checks.0 {
        let mark = if check.ok { "ok     " } else { "FINDING" };
        out.line(format_args!("{mark}  {:18}  {}", check.id, check.what));
        if !check.mend.is_empty() {
            out.line(format_args!("         {:18}  -> {}", "", check.mend));
        }
    }
    let found = checks.0.iter().filter(|c| !c.ok).count();
    out.line(if found == 0 { "All is well.".into() } else { format!("{found} findings.") });
    Ok(if found == 0 { Exit::Done } else { Exit::Found })
}

fn look(cx: &Context, checks: &mut Checks) -> Result<(), Failure> {
    let config = cx.config();
    match &cx.loaded.file {
        Some(file) => checks.good("configuration", file.display().to_string()),
        None => checks.good("configuration", "no file, all as by default"),
    }
    let running = state_folder(cx, checks);
    secrets(config, checks);
    certificates(cx, checks);
    the_clock(cx, checks);
    the_policies(cx, checks);
    prices(config, checks);
    the_log(cx, checks);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        ports(config, running, checks);
        servers(cx, checks).await;
        models(cx, checks).await;
        peers(cx, checks).await;
    });
    runtime.shutdown_background();
    Ok(())
}

/// Looks at the state folder. True: a gate runs on it.
fn state_folder(cx: &Context, checks: &mut Checks) -> bool {
    let path = cx.state_dir();
    if !path.exists() {
        checks.good("state", format!("{} is not there yet; the first start makes it", path.display()));
        return false;
    }
    let dir = match StateDir::open(path) {
        Ok(dir) => dir,
        Err(e) => {
            checks.failure("state", &e.into(), &format!("chmod 700 {}", path.display()));
            return false;
        }
    };
    if let Err(e) = dir.keys(cx.now).and_then(|keys| dir.state(keys.master)) {
        checks.failure(
            "state",
            &e.into(),
            "Restore the folder from a backup, or move it away and start anew.",
        );
        return false;
    }
    let running = dir.lock_gate().is_err();
    let word = if running { "a gate runs on it" } else { "no gate runs on it" };
    checks.good("state", format!("{}, {word}", path.display()));
    running
}

/// Whether files with secrets are there, and for their owner only.
fn secrets(config: &Config, checks: &mut Checks) {
    for (model, version) in config.model.iter().flat_map(|m| m.version.iter().map(move |v| (m, v))) {
        let key = version.key.iter().map(|key| ("key", key.text()));
        for (name, text) in key.chain(version.headers.iter().map(|(name, text)| (name.as_str(), text))) {
            secret(format!("secret {} {} {name}", model.name, version.id), name, text, checks);
        }
    }
    for server in &config.server {
        let texts = match &server.upstream {
            Configured::Command { env, .. } => env,
            Configured::Http { headers, .. } => headers,
        };
        for (name, text) in texts {
            secret(format!("secret {}.{name}", server.name), name, text, checks);
        }
    }
    for peer in &config.peer {
        for (name, text) in &peer.headers {
            secret(format!("secret {}.{name}", peer.name), name, text, checks);
        }
    }
}

fn secret(id: String, name: &str, text: &Text, checks: &mut Checks) {
    match (up::resolve(name, text), text) {
        (Err(failure), _) => checks.failure(id, &failure, "Write the secret to that file."),
        (Ok(_), Text::File(file)) if readable_by_others(file) => checks.bad(
            id,
            format!("{} can be read by others", file.display()),
            format!("chmod 600 {}", file.display()),
        ),
        (Ok(_), _) => {}
    }
}

fn readable_by_others(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|facts| facts.permissions().mode() & 0o077 != 0)
}

fn certificates(cx: &Context, checks: &mut Checks) {
    let config = cx.config();
    for (id, tls) in [("gate certificate", config.gate.tls()), ("console certificate", config.console.tls())]
    {
        match tls {
            Tls::Off => checks.good(id, "none: plain HTTP on this machine only"),
            Tls::Auto => checks.good(id, "of the built-in CA, renewed by itself"),
            Tls::Files { cert, .. } => certificate(id, &cert, cx.now, checks),
        }
    }
    if let Some(ca) = &config.gate.client_ca {
        certificate("client CA", ca, cx.now, checks);
    }
}

fn certificate(id: &str, file: &Path, now: Timestamp, checks: &mut Checks) {
    let read = files::read_bytes(file, 1 << 20).map_err(Failure::from);
    let facts = read.and_then(|pem| Ok(CertificateFacts::from_pem(&pem)?));
    match facts {
        Err(failure) => checks.failure(id, &failure, "Give a PEM file that castra can read."),
        Ok(facts) if facts.not_before > now => checks.bad(
            id,
            format!("{} is not valid before {}", file.display(), facts.not_before),
            "Look at the clock, or get another certificate.",
        ),
        Ok(facts) => {
            let days = (facts.not_after.secs() - now.secs()).div_euclid(86_400);
            let what = format!("{}, {days} days left", file.display());
            if days < DAYS_LEFT_MIN {
                checks.bad(id, what, "Renew it; castra takes the new file without a restart.");
            } else {
                checks.good(id, what);
            }
        }
    }
}

/// Time must not run backwards: records, tokens and certificates depend on it.
fn the_clock(cx: &Context, checks: &mut Checks) {
    let mend = "Set the clock (timedatectl set-ntp true), and look why it was wrong.";
    if cx.now.secs() < NO_EARLIER {
        return checks.bad("clock", format!("it says {}, which is long past", cx.now), mend);
    }
    match last_record(cx) {
        Some(last) if last.secs() > cx.now.secs() + 1 => {
            checks.bad("clock", format!("it says {}, but the last record is of {last}", cx.now), mend);
        }
        _ => checks.good("clock", cx.now.to_string()),
    }
}

/// Whether the price table can be read, and how old it is.
fn prices(config: &Config, checks: &mut Checks) {
    let settings = match up::budgets(config) {
        Ok(settings) => settings,
        Err(failure) => {
            return checks.failure("prices", &failure, "Mend the file that [budgets] prices names.");
        }
    };
    let table = &settings.prices;
    checks.good("prices", format!("{} models, in {}, as of {}", table.len(), table.currency, table.as_of));
}

fn last_record(cx: &Context) -> Option<Timestamp> {
    let reader = LogReader::open(cx.state_dir()).ok()?;
    let last = reader.head().ok()?.size.checked_sub(1)?;
    let entry = reader.entry(last).ok()??;
    Record::decode(&entry).ok().map(|record| record.time())
}

fn the_policies(cx: &Context, checks: &mut Checks) {
    let config = cx.config();
    if !config.policy.dir.exists() {
        let what = format!("{} is not there yet; the first start makes it", config.policy.dir.display());
        return checks.good("policies", what);
    }
    let state = if cx.state_dir().exists() { cx.open().ok().map(|opened| opened.state) } else { None };
    let loaded = policies::catalogue(config, state.as_ref(), cx.now)
        .and_then(|catalogue| policies::load(config, &catalogue));
    let list = |problems: &[Problem]| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let mend = "`castra policy check` shows them one by one.";
    match loaded {
        Err(failure) => checks.failure("policies", &failure, mend),
        Ok(Err(problems)) => checks.bad("policies", list(&problems.errors), mend),
        Ok(Ok(engine)) if engine.own_policy_count() == 0 => {
            let what = match config.policy.standard {
                true => "there is none, so everything is denied but tools that a manifest describes",
                false => "there is none, so everything is denied",
            };
            checks.bad("policies", what, "Write one; `castra init` shows how.");
        }
        Ok(Ok(engine)) if !engine.warnings().is_empty() => {
            checks.bad("policies", list(engine.warnings()), mend)
        }
        Ok(Ok(engine)) => checks.good("policies", format!("{} are good", engine.own_policy_count())),
    }
}

/// The newest checkpoint must be signed by our key and prove the newest record. All of the log is the
/// business of `castra log verify`.
fn the_log(cx: &Context, checks: &mut Checks) {
    let dir = cx.state_dir();
    if !dir.join("log").join("checkpoint").exists() {
        return checks.good("log", "there is none yet");
    }
    let mend = "Keep the folder as it is, run `castra log verify`, and compare with a backup.";
    let verified = || -> Result<u64, Failure> {
        let reader = LogReader::open(dir)?;
        let checkpoint = Checkpoint::open(reader.checkpoint()?.as_bytes(), &[key_of_state(dir)?])?;
        if let Some(last) = checkpoint.size.checked_sub(1) {
            // Fails unless the proof leads from the entry to the signed root.
            reader.receipt(last)?;
        }
        Ok(checkpoint.size)
    };
    match verified() {
        Ok(size) => checks.good("log", format!("the checkpoint holds, {size} records")),
        Err(failure) => checks.failure("log", &failure, mend),
    }
}

/// Whether the ports are free, or held by the gate that runs on this state.
fn ports(config: &Config, running: bool, checks: &mut Checks) {
    for (id, listen, tls) in [
        ("gate port", config.gate.listen, config.gate.tls()),
        ("console port", config.console.listen, config.console.tls()),
    ] {
        if listen.port() == 0 {
            checks.good(id, "any free one");
            continue;
        }
        let limits = config.limits.to_limits();
        // Loopback in its stead: whether the port is free is asked without TLS, which needs certificates.
        let asked = if tls == Tls::Off { listen } else { loopback(listen) };
        let listener =
            Listener::bind(ListenConfig { name: "doctor", addresses: vec![asked], tls: None, limits });
        match (listener, running) {
            (Ok(_), false) => checks.good(id, format!("{listen} is free")),
            (Err(_), true) => checks.good(id, format!("{listen} is held, by the running gate")),
            (Ok(_), true) => checks.bad(
                id,
                format!("a gate runs, but {listen} is free"),
                "It listens elsewhere: restart it, or look at its [gate] and [console].",
            ),
            (Err(e), false) => checks.bad(
                id,
                e.to_string(),
                "End what holds it (ss -ltnp shows it), or listen on another port.",
            ),
        }
    }
}

fn loopback(address: std::net::SocketAddr) -> std::net::SocketAddr {
    let ip: std::net::IpAddr = if address.is_ipv6() {
        std::net::Ipv6Addr::LOCALHOST.into()
    } else {
        std::net::Ipv4Addr::LOCALHOST.into()
    };
    (ip, address.port()).into()
}

/// Starts or reaches each server and asks what it offers.
async fn servers(cx: &Context, checks: &mut Checks) {
    let limits = Arc::new(cx.config().limits.to_limits());
    let own_ca = match own_ca(cx) {
        Ok(pem) => pem,
        Err(failure) => return checks.failure("servers", &failure, "See state."),
    };
    let parts = match up::server_parts(cx.config(), &limits, &own_ca) {
        Ok(parts) => parts,
        Err(failure) => return checks.failure("servers", &failure, "Mend the [[server]] table."),
    };
    for part in parts {
        let id = format!("server {}", part.config.name);
        let name = part.config.name.clone();
        let deps = Deps { client: part.client.clone(), limits: limits.clone(), random: Arc::new(|| 0) };
        match tokio::time::timeout(LIST_TIME_MAX, offers(part, deps)).await {
            Ok(Ok((revision, tools))) => {
                checks.good(id, format!("speaks MCP {revision}, offers {tools} tools"))
            }
            Ok(Err(e)) => {
                let refusal = e.refusal(&name);
                let advice = if refusal.advice.is_empty() {
                    "Start it by hand, as its [[server]] table says, and see what it answers.".to_owned()
                } else {
                    refusal.advice
                };
                checks.bad(id, refusal.reason, advice);
            }
            Err(_) => checks.bad(
                id,
                format!("it said nothing within {} seconds", LIST_TIME_MAX.as_secs()),
                "Start it by hand, as its [[server]] table says, and see what it answers.",
            ),
        }
    }
}

/// Whether what was promoted is configured, and whether each provider is there and takes its key. That is
/// asked with a list of models, which costs nothing.
async fn models(cx: &Context, checks: &mut Checks) {
    let config = cx.config();
    if config.model.is_empty() {
        return;
    }
    promoted(cx, checks);
    let limits = config.limits.to_limits();
    let own_ca = match own_ca(cx) {
        Ok(pem) => pem,
        Err(failure) => return checks.failure("models", &failure, "See state."),
    };
    let routes = match up::model_parts(config, &limits, &own_ca) {
        Ok(routes) => routes,
        Err(failure) => return checks.failure("models", &failure, "Mend the [[model.version]] table."),
    };
    for route in &routes {
        for version in &route.versions {
            provider(&format!("model {} {}", route.name, version.id), version, checks).await;
        }
    }
}

fn promoted(cx: &Context, checks: &mut Checks) {
    match super::model::remarks(cx) {
        Ok(remarks) => {
            for (route, remark) in remarks {
                let mend = format!("castra model promote {route} VERSION, or castra model rollback {route}");
                checks.bad(format!("model {route}"), remark, mend);
            }
        }
        Err(failure) => checks.failure("models", &failure, "See state."),
    }
}

async fn provider(id: &str, version: &VersionParts, checks: &mut Checks) {
    let provider = version.facts.provider.as_str();
    match list_models(version, MODELS_TIME_MAX).await {
        Ok(names) if names.contains(&version.facts.model) => {
            checks.good(id, format!("{provider} is there and has {}", version.facts.model));
        }
        // Short names of models often stand in no list.
        Ok(names) => checks.good(
            id,
            format!(
                "{provider} is there; {} is not among the {} models that it lists",
                version.facts.model,
                names.len()
            ),
        ),
        Err(error) => checks.bad(
            id,
            format!("{provider} {error}"),
            "Look at base_url, key, ca and tls12 of the version, and whether this machine may go there.",
        ),
    }
}

/// Each peer must show a card that counts, and it must be the accepted one.
async fn peers(cx: &Context, checks: &mut Checks) {
    let limits = cx.config().limits.to_limits();
    let parts = own_ca(cx).and_then(|own_ca| up::peer_parts(cx.config(), &limits, &own_ca));
    let parts = match parts {
        Ok(parts) => parts,
        Err(failure) => return checks.failure("peers", &failure, "Mend the [[peer]] table."),
    };
    let state = if cx.state_dir().exists() { cx.open().ok().map(|opened| opened.state) } else { None };
    for part in parts {
        let (id, name) = (format!("peer {}", part.name), &part.name);
        let facts = match castra_gateway::look_at_card(&part, &limits).await {
            Ok(facts) => facts,
            Err(why) => {
                checks.bad(id, why, "Look at its [[peer]] table, and ask whoever runs the peer.");
                continue;
            }
        };
        let signed = if facts.verified { "signed" } else { "its signature is not checked" };
        let what = format!("{}, card {}, {signed}", facts.title, facts.digest.to_hex());
        let accepted = state.as_ref().and_then(|state| state.peer(name).ok()?).map(|row| row.pinned.digest);
        match part.pin.or(accepted) {
            Some(pinned) if pinned != facts.digest => checks.bad(
                id,
                format!("{what}; the accepted one is {}", pinned.to_hex()),
                format!("Look at what changed (castra peer show {name}), then castra peer accept {name}."),
            ),
            _ => checks.good(id, what),
        }
    }
}

/// The certificate of the built-in CA; a throw-away one where there is no state yet.
fn own_ca(cx: &Context) -> Result<String, Failure> {
    if cx.state_dir().exists() {
        return Ok(cx.open()?.keys.authority.certificate_pem().to_owned());
    }
    let serial = clock::random::<16>()?;
    let made = castra_identity::certificate::create_authority(
        "castra doctor",
        castra_identity::certificate::Curve::P256,
        cx.now,
        serial,
    )?;
    Ok(made.certificate_pem)
}

async fn offers(part: ServerParts, deps: Deps) -> Result<(&'static str, usize), UpstreamError> {
    let upstream = Upstream::new(part.config, deps);
    let era = upstream.era().await?;
    let (revision, modern) = match &era {
        ServerEra::Modern { revision, .. } => (*revision, true),
        ServerEra::Legacy { revision, .. } => (*revision, false),
    };
    let request = list_request(revision, modern);
    let headers = standard_headers(&request);
    let mut out = Outgoing::request(request, RequestId::from("1"));
    out.headers = headers;
    if modern && upstream.is_http() {
        return Ok((revision.as_str(), count(upstream.post(out).await?).await?));
    }
    let session = upstream.open_session(Hello::gate(revision)).await?;
    let counted = match session.exchange(out).await {
        Ok(answer) => count(answer).await,
        Err(e) => Err(e),
    };
    session.close().await;
    Ok((revision.as_str(), counted?))
}

fn list_request(revision: mcp::Revision, modern: bool) -> Bytes {
    let meta = json!({ "_meta": {
        "io.modelcontextprotocol/protocolVersion": revision.as_str(),
        "io.modelcontextprotocol/clientInfo": { "name": "castra-doctor", "version": env!("CARGO_PKG_VERSION") },
        "io.modelcontextprotocol/clientCapabilities": {},
    }});
    let params = if modern { meta } else { json!({}) };
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params }).to_string().into()
}

fn standard_headers(request: &Bytes) -> HeaderMap {
    let Ok(mcp::Message::Request(request)) = mcp::parse(request, &mcp::ParseLimits::default()) else {
        return HeaderMap::new();
    };
    let built = mcp::headers::build(&request, None).unwrap_or_default();
    let pair = |h: mcp::headers::Header| {
        Some((HeaderName::try_from(h.name.as_ref()).ok()?, HeaderValue::try_from(h.value).ok()?))
    };
    if request.is_modern() { built.into_iter().filter_map(pair).collect() } else { HeaderMap::new() }
}

/// Tools on the first page of the answer. A server without tools answers an error, which counts as none.
async fn count(answer: Answer) -> Result<usize, UpstreamError> {
    let body = match answer {
        Answer::Accepted => Bytes::new(),
        Answer::Whole { body, .. } => body,
        Answer::Events(mut events) => {
            let mut last = Bytes::new();
            while let Some(event) = events.next().await {
                if let Incoming::Response(body) = event? {
                    last = body;
                }
            }
            last
        }
    };
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    Ok(answer.pointer("/result/tools").and_then(Value::as_array).map_or(0, Vec::len))
}
