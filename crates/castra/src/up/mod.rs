//! A running gate: its parts are put together, it serves, follows what changes, and ends in order.
//!
//! `parts.rs` turns configuration into parts, `keys.rs` fetches the keys of issuers, `follow.rs` carries
//! changes of files and credentials into the running gate, `view.rs` is what the console sees.

mod follow;
mod keys;
mod models;
mod parts;
mod peers;
mod view;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
};

use castra_console::{Console, ConsoleConfig};
use castra_core::PolicyMode;
use castra_gateway::{
    Gate, GateParts,
    budget::Budgets,
    metrics::{Metrics, Page},
};
use castra_identity::Minter;
use castra_inspect::Inspector;
use castra_ledger::{EventKind, Signer};
use castra_net::{
    listen::{ListenConfig, Listener, Serving, answer},
    tls::ServerTls,
};
use castra_store::{
    CredentialFollower, State, StateDir, clock,
    log::{Log, LogOptions},
};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use self::{follow::Follower, parts::Listening};
use crate::{
    commands::{init::write_starter_policy, person::enrolment_link},
    config::{Config, Loaded, LogFormat, LogLevel, Reads, Tls},
    context::base_url,
    out::{Failure, Out},
    policies,
};
pub(crate) use models::{model_parts, told, version_facts};
pub(crate) use parts::{budgets, resolve, server_parts};
pub(crate) use peers::peer_parts;

/// Larger payloads are recorded by digest only: a log of answers is not a store of files.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Warnings of policies that a start shows one by one.
const WARNINGS_SHOWN: usize = 20;

/// Runs a gate until it is told to end.
pub(crate) async fn serve(loaded: Loaded, out: &mut Out) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut reload = signal(SignalKind::hangup())?;
    let running = Running::start(loaded).await?;
    running.announce(out)?;
    tokio::select! {
        why = signals.end() => tracing::info!(signal = why, "ending: calls in flight may finish"),
        failed = running.follow(&mut reload) => return Err(failed),
    }
    tokio::select! {
        () = running.end() => Ok(()),
        why = signals.end() => Err(Failure::new(format!("ended at once by a second {why}; what was acknowledged is recorded"))),
    }
}

/// Castra's own words about itself, on standard error.
pub(crate) fn start_logging(log: &crate::config::Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level);
    // A second subscriber is refused, which is as good: the first one stays.
    let _ = match log.format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
    };
}

/// The signer of an installation's log. The log's name follows from its key, so that no two
/// installations share one.
pub(crate) fn signer(seed: &[u8; 32]) -> Result<Signer, Failure> {
    let id = Signer::from_seed("castra", seed)?.verifier_key().id();
    Ok(Signer::from_seed(&format!("castra-{id:08x}"), seed)?)
}

struct Running {
    gate: Arc<Gate>,
    log: Log,
    state: Arc<State>,
    addresses: Addresses,
    loaded: Loaded,
    follower: tokio::sync::Mutex<Follower>,
    serving: (Serving, Serving),
    /// Held for as long as the gate runs.
    _lock: castra_store::GateLock,
}

/// Where agents and people come in, as they would write it.
#[derive(Clone)]
struct Addresses {
    gate: String,
    console: String,
}

impl Running {
    async fn start(loaded: Loaded) -> Result<Self, Failure> {
        let config = &loaded.config;
        let now = clock::now();
        // Patterns take as long as the rest of the start together, so nothing of it waits for them; what
        // was needed to compile them is given back with the thread.
        let inspector = std::thread::spawn({
            let settings = config.inspect.settings();
            move || Inspector::new(&settings)
        });
        let dir = StateDir::open_or_create(&config.state.dir)?;
        let lock = dir.lock_gate()?;
        let keys = dir.keys(now)?;
        let state = Arc::new(dir.state(keys.master.clone())?);
        let log = open_log(config, &dir, signer(&keys.log_seed)?)?;
        if !config.policy.dir.exists() {
            write_starter_policy(&config.policy.dir)?;
            tracing::info!(folder = %config.policy.dir.display(), "made the policy folder with the starter policy");
        }
        let catalogue = policies::catalogue(config, Some(&state), now)?;
        let engine = policies::load(config, &catalogue)?.map_err(|problems| {
            Failure::new(format!("the policies are not good:\n{problems}"))
                .advise("Nothing is let through under policies that are not understood. Mend them; `castra policy check` shows all.")
        })?;
        warn_of_policies(&engine);
        let limits = Arc::new(config.limits.to_limits());
        let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
        let listening = Listening::new(config, &dir, &keys.authority, now)?;
        let gate_listener = bind("gate", config.gate.listen, listening.gate.clone(), &limits)?;
        let console_listener = bind("console", config.console.listen, listening.console.clone(), &limits)?;
        let addresses = Addresses {
            gate: public(
                &config.gate.public_url,
                &config.gate.tls(),
                first(&gate_listener, config.gate.listen),
            ),
            console: public(
                &config.console.public_url,
                &config.console.tls(),
                first(&console_listener, config.console.listen),
            ),
        };
        let issuers = keys::Issuers::new(&config.issuer)?;
        let credentials = state.credential_table()?;
        let seen = credentials.version();
        let authority_pem = keys.authority.certificate_pem().to_owned();
        let budgets = Budgets::open(state.clone(), clock::now, parts::budgets(config)?)?;
        let token_seed = dir.token_seed()?;
        let gate = Gate::new(GateParts {
            budgets,
            limits: limits.clone(),
            state: state.clone(),
            log: log.clone(),
            clock: clock::now,
            metrics: metrics.clone(),
            credentials,
            engine,
            mode: config.policy.mode,
            issuers: issuers.without_keys(),
            certificate_rules: parts::certificate_rules(config)?,
            sites: parts::gate_sites(config)?,
            resource: parts::resource_server(config, &addresses.gate)?,
            servers: server_parts(config, &limits, &authority_pem)?,
            inspector: inspector.join().map_err(|_| Failure::new("the patterns could not be compiled"))??,
            inspection_mode: config.inspect.mode,
            approvals: config.approvals.bounds(),
            local_tools: parts::local_tools(config)?,
            flow: config.flow.settings(!config.model.is_empty()),
            models: model_parts(config, &limits, &authority_pem)?,
            promotions: state.promotions()?,
            peers: peer_parts(config, &limits, &authority_pem)?,
            minter: Minter::new(&token_seed, &addresses.gate)?,
            reads_wait: config.record.reads == Reads::Before,
            payload_bytes_max: PAYLOAD_BYTES_MAX,
        });
        metrics.listener(gate_listener.stats(), "gate");
        metrics.listener(console_listener.stats(), "console");
        metrics.source({
            let log = log.clone();
            move |page| log_figures(page, &log)
        });
        let observing = Arc::new(AtomicBool::new(config.policy.mode == PolicyMode::Observe));
        let view = Arc::new(view::View {
            gate: gate.clone(),
            log: log.clone(),
            state: state.clone(),
            metrics,
            started: now,
            address: addresses.gate.clone(),
            observing: observing.clone(),
            operators: std::sync::Mutex::new(view::Operators {
                follower: CredentialFollower::new(state.clone(), seen),
                table: state.credential_table()?,
            }),
        });
        let open = config.console.listen.ip().is_loopback();
        let console = Console::new(ConsoleConfig { sites: parts::console_sites(config)?, open }, view);
        let gate_listener = gate_listener.on_refusal({
            let gate = gate.clone();
            move |source, refusal| gate.record_refusal(&refusal, source)
        });
        let serving = (
            gate_listener.serve({
                let gate = gate.clone();
                move |peer| {
                    let connection = gate.connection(peer);
                    answer(move |request| connection.clone().call(request))
                }
            }),
            console_listener.serve(move |_| console.service()),
        );
        gate.record_event(EventKind::Start, None, concat!("castra ", env!("CARGO_PKG_VERSION")));
        let follower = Follower::new(
            &loaded,
            gate.clone(),
            state.clone(),
            seen,
            issuers,
            listening,
            dir,
            keys.authority,
            observing,
        );
        let follower = tokio::sync::Mutex::new(follower);
        Ok(Self { gate, log, state, addresses, loaded, follower, serving, _lock: lock })
    }

    /// Says that it serves, once, and how the first person gets in.
    fn announce(&self, out: &mut Out) -> Result<(), Failure> {
        let now = clock::now();
        let enrol = if self.state.has_operator(now)? {
            None
        } else {
            let issued = self.state.create_enrolment("admin", now)?;
            Some(enrolment_link(&self.addresses.console, issued.token.expose()))
        };
        let Addresses { gate, console } = &self.addresses;
        let mode =
            if self.loaded.config.policy.mode == PolicyMode::Observe { ", observing only" } else { "" };
        out.value(&json!({ "gate": gate, "console": console, "enrol": enrol }));
        out.line(format_args!(
            "Castra serves {} servers to agents at {gate}/mcp{mode}, and people at {console}/",
            self.loaded.config.server.len()
        ));
        if let Some(link) = enrol {
            out.line(format_args!("Enrol as admin, within a day: {link}"));
        }
        Ok(())
    }

    /// Follows changes; ends only when the gate cannot go on.
    async fn follow(&self, reload: &mut Signal) -> Failure {
        self.follower.lock().await.run(reload).await
    }

    /// Ends in order: no new connections, calls in flight finish or are cut off, the log is closed.
    async fn end(self) {
        let Self { gate, log, serving: (agents, people), .. } = self;
        let (_, _, cut) = tokio::join!(agents.drain(), people.drain(), gate.drain());
        if cut > 0 {
            tracing::warn!(cut, "calls were cut off");
        }
        if let Err(error) = gate.budgets().close().await {
            tracing::error!(%error, "what was really spent of budgets could not be written; what was promised counts as spent");
        }
        gate.record_event(EventKind::Stop, None, "");
        let closed = tokio::task::spawn_blocking(move || log.close()).await;
        if let Ok(Err(error)) = closed {
            tracing::error!(%error, "the log could not be closed");
        }
    }
}

fn warn_of_policies(engine: &castra_policy::Engine) {
    let warnings = engine.warnings();
    for warning in warnings.iter().take(WARNINGS_SHOWN) {
        tracing::warn!(%warning, "policy");
    }
    if let Some(more @ 1..) = warnings.len().checked_sub(WARNINGS_SHOWN) {
        tracing::warn!(more, "policies have further warnings; `castra policy check` shows all");
    }
}

fn open_log(config: &Config, dir: &StateDir, signer: Signer) -> Result<Log, Failure> {
    dir.publish("log.vkey", &format!("{}\n", signer.verifier_key()))?;
    let options = LogOptions {
        linger: config.record.linger.0,
        interval: config.record.checkpoint.0,
        waiting_max: config.limits.records_waiting_max.0,
        ..LogOptions::default()
    };
    let log = Log::open(dir.path(), signer, options)?;
    let found = log.recovery();
    if found.recovered > 0 || found.torn_bytes > 0 {
        tracing::warn!(
            recovered = found.recovered,
            torn_bytes = found.torn_bytes,
            "the last run did not end in order; its acknowledged records are all here"
        );
    }
    Ok(log)
}

fn log_figures(page: &mut Page, log: &Log) {
    let status = log.status();
    page.counter("castra_log_records_total", "Records that were appended to the log.", &[], status.next);
    page.counter("castra_log_durable_total", "Records that are on disk.", &[], status.durable);
    page.counter("castra_log_signed_total", "Records that the checkpoint covers.", &[], status.integrated);
    page.counter(
        "castra_log_groups_total",
        "Groups of records that were written with one sync.",
        &[],
        status.groups,
    );
    page.gauge("castra_log_waiting_records", "Records that wait for the disk.", &[], status.waiting as f64);
    page.gauge("castra_log_waiting_bytes", "Bytes that wait for the disk.", &[], status.waiting_bytes as f64);
    let failed = f64::from(u8::from(status.failed.is_some()));
    page.gauge("castra_log_failed", "1 when the log takes no records any more.", &[], failed);
}

fn bind(
    name: &'static str,
    address: SocketAddr,
    tls: Option<Arc<ServerTls>>,
    limits: &castra_core::Limits,
) -> Result<Listener, Failure> {
    let config = ListenConfig { name, addresses: vec![address], tls, limits: limits.clone() };
    Listener::bind(config).map_err(|e| {
        Failure::from(e)
            .advise(format!("Set [{name}] listen to another address, or end what holds {address}."))
    })
}

fn first(listener: &Listener, asked: SocketAddr) -> SocketAddr {
    listener.addresses().first().copied().unwrap_or(asked)
}

fn public(url: &Option<crate::config::Url>, tls: &Tls, listen: SocketAddr) -> String {
    match url {
        Some(url) => url.to_string().trim_end_matches('/').to_owned(),
        None => base_url(tls, listen),
    }
}

/// The signals that end a gate.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
