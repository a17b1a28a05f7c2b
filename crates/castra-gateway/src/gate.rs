//! The gate: what all connections share, how it is put together, changed while it runs, and closed.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use castra_core::{AgentName, Limits, PolicyMode, Refusal, ServerName, StreamMode, Timestamp};
use castra_flow::ToolManifest;
use castra_identity::{CredentialTable, IdentityCache, Issuer, Minter, NameRule, ResourceServer, SiteRules};
use castra_inspect::Inspector;
use castra_ledger::EventKind;
use castra_net::{client::HttpClient, listen::Peer};
use castra_policy::{Catalogue, Engine};
use castra_store::{ApprovalBounds, Promotions, State, log::Log};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    a2a::{PeerParts, PeerStatus, Peers},
    approval::Approvals,
    budget::Budgets,
    catalogue::{Server, ToolFacts, random_u64},
    in_flight::InFlight,
    inspect::Inspection,
    listen::Connection,
    mcp::{LinkPool, ParkedCalls, Sessions, SharedRoutes, TaskOwners},
    metrics::{Metrics, Page},
    model::{ModelParts, Routes},
    record::Recorder,
    run::{FlowSettings, Runs},
    standing::Standings,
    upstream::UpstreamConfig,
};

/// How many verified credentials are remembered; more agents than this still work, only slower.
const IDENTITIES_MAX: usize = 16_384;

/// How often sessions, links and parked calls are looked through for what is past its time.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// How often runs are looked through for what should be written.
const KEEPING_RUNS: Duration = Duration::from_millis(250);

/// What a gate is made of.
pub struct GateParts {
    /// Every limit.
    pub limits: Arc<Limits>,
    /// Agents, keys, catalogue.
    pub state: Arc<State>,
    /// Where records go.
    pub log: Log,
    /// The clock.
    pub clock: fn() -> Timestamp,
    /// Where figures go.
    pub metrics: Arc<Metrics>,
    /// What agents may use.
    pub budgets: Arc<Budgets>,
    /// Who is known, as of now.
    pub credentials: CredentialTable,
    /// The policies.
    pub engine: Engine,
    /// Whether they are enforced.
    pub mode: PolicyMode,
    /// Whose JWTs are believed.
    pub issuers: Vec<Issuer>,
    /// How a verified client certificate names an agent; tried in order.
    pub certificate_rules: Vec<NameRule>,
    /// Which Host and Origin headers are ours.
    pub sites: SiteRules,
    /// The gate as an OAuth resource server.
    pub resource: ResourceServer,
    /// The servers behind the gate.
    pub servers: Vec<ServerParts>,
    /// The peers behind the gate.
    pub peers: Vec<PeerParts>,
    /// Signs what the gate says of agents to peers.
    pub minter: Minter,
    /// How many questions to people may wait, and how long.
    pub approvals: ApprovalBounds,
    /// What looks for secrets and the operator's own patterns.
    pub inspector: Inspector,
    /// How answers are inspected where no policy says otherwise.
    pub inspection_mode: StreamMode,
    /// The model routes.
    pub models: Vec<ModelParts>,
    /// Which of their versions serve.
    pub promotions: Promotions,
    /// What is said of agents' own tools, which models call and no server has.
    pub local_tools: HashMap<String, ToolManifest>,
    /// How runs are followed.
    pub flow: FlowSettings,
    /// Whether calls that only read wait for the disk too.
    pub reads_wait: bool,
    /// Payloads above this size are recorded by digest only.
    pub payload_bytes_max: usize,
}

/// One server behind the gate.
pub struct ServerParts {
    /// How to reach it.
    pub config: UpstreamConfig,
    /// The HTTP client to use.
    pub client: HttpClient,
    /// What its manifest says of tools.
    pub tools: HashMap<String, ToolManifest>,
    /// What it may ask of the client.
    pub allow: AllowedAsks,
    /// Changes when the configuration of this server changes; an unchanged one keeps its connections.
    pub fingerprint: u64,
}

/// What a server may ask of the client during a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AllowedAsks {
    /// `sampling/createMessage`.
    pub sampling: bool,
    /// `elicitation/create`.
    pub elicitation: bool,
    /// `roots/list`.
    pub roots: bool,
}

/// One thing that must be right for the gate to work.
#[derive(Debug, Clone)]
pub struct ReadyCheck {
    /// What is checked.
    pub name: &'static str,
    /// Whether it is right.
    pub ok: bool,
    /// Why not, or what was found.
    pub reason: String,
}

/// What the gate knows of a server.
#[derive(Debug, Clone)]
pub struct ServerStatus {
    /// Its name.
    pub name: ServerName,
    /// `http` or `stdio`.
    pub transport: &'static str,
    /// Its protocol revision, once it was reached.
    pub revision: Option<&'static str>,
    /// How many tools it was seen to have.
    pub tools: usize,
    /// What went wrong last, if nothing has gone right since.
    pub problem: Option<String>,
}

/// The gate. One per process.
pub struct Gate {
    pub(crate) limits: Arc<Limits>,
    pub(crate) state: Arc<State>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) budgets: Arc<Budgets>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) approvals: Arc<Approvals>,
    pub(crate) engine: ArcSwap<Engine>,
    pub(crate) credentials: ArcSwap<CredentialTable>,
    pub(crate) identities: IdentityCache,
    pub(crate) standings: Standings,
    pub(crate) issuers: ArcSwap<Vec<Issuer>>,
    /// Part of the key of cached JWTs: an issuer that is gone, or a key, is not believed from the cache.
    pub(crate) issuer_changes: AtomicU64,
    pub(crate) sessions: Sessions,
    pub(crate) links: LinkPool,
    pub(crate) parked: ParkedCalls,
    pub(crate) tasks: TaskOwners,
    pub(crate) routes: SharedRoutes,
    pub(crate) models: Routes,
    pub(crate) peers: Peers,
    pub(crate) runs: Arc<Runs>,
    local_tools: ArcSwap<HashMap<String, Arc<ToolManifest>>>,
    pub(crate) in_flight: Arc<InFlight>,
    /// Ends everything that is still open.
    pub(crate) closing: CancellationToken,
    observe: AtomicBool,
    servers: ArcSwap<HashMap<ServerName, Arc<Server>>>,
    inspection: ArcSwap<Inspection>,
    certificate_rules: Vec<NameRule>,
    sites: ArcSwap<SiteRules>,
    resource: ResourceServer,
    clock: fn() -> Timestamp,
    log: Log,
    keys_wanted: Notify,
    keys_fetched: Notify,
    servers_changed: Arc<Notify>,
    revalidation: Revalidation,
}

/// Keeps the policies validated against the newest catalogue, one validation at a time.
#[derive(Default)]
struct Revalidation {
    /// Whether one waits that has not looked at the catalogue yet.
    waits: AtomicBool,
    turn: Mutex<()>,
}

impl Gate {
    /// Puts a gate together and starts its housekeeping. Needs a tokio runtime.
    pub fn new(parts: GateParts) -> Arc<Self> {
        let recorder = Arc::new(Recorder::new(
            parts.log.clone(),
            parts.state.clone(),
            parts.clock,
            parts.metrics.clone(),
            parts.reads_wait,
            parts.payload_bytes_max,
        ));
        let closing = CancellationToken::new();
        let (limits, metrics, random) = (parts.limits.clone(), parts.metrics.clone(), Arc::new(random_u64));
        let models = Routes::new(limits, metrics, parts.clock, random);
        models.promoted(parts.promotions);
        models.replace(parts.models);
        let approvals = Arc::new(Approvals::new(parts.state.clone(), parts.approvals, (parts.clock)()));
        let gate = Arc::new(Self {
            models,
            sessions: Sessions::new(parts.limits.clone(), parts.metrics.clone()),
            links: LinkPool::new(parts.limits.clone()),
            parked: ParkedCalls::new(parts.limits.clone(), parts.metrics.clone()),
            tasks: TaskOwners::default(),
            routes: SharedRoutes::default(),
            peers: Peers::new(parts.state.clone(), parts.minter),
            in_flight: InFlight::new(parts.limits.calls_per_agent_max, parts.metrics.clone()),
            local_tools: ArcSwap::from_pointee(shared(parts.local_tools)),
            runs: Arc::new(Runs::new(parts.state.clone(), parts.flow, parts.clock)),
            limits: parts.limits,
            state: parts.state,
            metrics: parts.metrics,
            budgets: parts.budgets,
            recorder,
            approvals,
            engine: ArcSwap::from_pointee(parts.engine),
            credentials: ArcSwap::from_pointee(parts.credentials),
            identities: IdentityCache::new(IDENTITIES_MAX),
            issuers: ArcSwap::from_pointee(parts.issuers),
            issuer_changes: AtomicU64::new(0),
            standings: Standings::new(closing.clone()),
            closing,
            observe: AtomicBool::new(parts.mode == PolicyMode::Observe),
            servers: ArcSwap::default(),
            inspection: ArcSwap::from_pointee(Inspection {
                inspector: parts.inspector,
                mode: parts.inspection_mode,
            }),
            certificate_rules: parts.certificate_rules,
            sites: ArcSwap::from_pointee(parts.sites),
            resource: parts.resource,
            clock: parts.clock,
            log: parts.log,
            keys_wanted: Notify::new(),
            keys_fetched: Notify::new(),
            servers_changed: Arc::default(),
            revalidation: Revalidation::default(),
        });
        gate.replace_peers(parts.peers);
        gate.replace_servers(parts.servers);
        gate.metrics.source(misbehaviour_of(Arc::downgrade(&gate)));
        let budgets = gate.budgets.clone();
        gate.metrics.source(move |page| budgets.show(page));
        let approvals = gate.approvals.clone();
        gate.metrics.source(move |page| approvals.show(page));
        gate.metrics.source(models_of(Arc::downgrade(&gate)));
        tokio::spawn(housekeeping(Arc::downgrade(&gate), gate.closing.clone()));
        tokio::spawn(keeping_runs(Arc::downgrade(&gate), gate.closing.clone()));
        tokio::spawn(learning(Arc::downgrade(&gate), gate.closing.clone()));
        gate
    }

    /// A client's connection.
    pub fn connection(self: &Arc<Self>, peer: &Arc<Peer>) -> Arc<Connection> {
        Arc::new(Connection::new(self.clone(), peer.clone()))
    }

    /// Swaps the policies; actions under way keep the ones that decided them.
    pub fn replace_policies(&self, engine: Engine, mode: PolicyMode) {
        let detail = format!("{} policies, set {}", engine.policy_count(), engine.policy_set());
        self.engine.store(Arc::new(engine));
        self.observe.store(mode == PolicyMode::Observe, Ordering::Relaxed);
        self.metrics.policy_reload(true);
        self.recorder.event(EventKind::PolicyLoaded, None, &detail);
    }

    /// Notes that changed policies were refused; the old ones stay in force.
    pub fn policies_rejected(&self, why: &str) {
        self.metrics.policy_reload(false);
        self.recorder.event(EventKind::PolicyRejected, None, why);
    }

    /// Records what the listener refused before there was a request.
    pub fn record_refusal(&self, refusal: &Refusal, source: IpAddr) {
        self.recorder.refusal(refusal, None, source);
    }

    /// Writes an event of the program that runs the gate into the log.
    pub fn record_event(&self, event: EventKind, subject: Option<&str>, detail: &str) {
        self.recorder.event(event, subject, detail);
    }

    /// Changes how many questions to people may wait from now on, and how long.
    pub fn set_approval_bounds(&self, bounds: ApprovalBounds) {
        self.approvals.set_bounds(bounds);
    }

    /// What agents may use, and what of it is used.
    pub fn budgets(&self) -> &Arc<Budgets> {
        &self.budgets
    }

    /// The policies in force.
    pub fn engine(&self) -> Arc<Engine> {
        self.engine.load_full()
    }

    /// Swaps who is known. Takes effect on the next request, and on what is open: calls and streams of
    /// a credential that is revoked end, and sessions and links of agents that are no longer active.
    pub fn replace_credentials(self: &Arc<Self>, table: CredentialTable) {
        self.credentials.store(Arc::new(table));
        self.standings.review(&self.credentials.load());
        // A changed card that was accepted counts up the same counter.
        self.peers.look_again();
        let gate = self.clone();
        tokio::spawn(async move { gate.close_of_revoked().await });
    }

    async fn close_of_revoked(&self) {
        let table = self.credentials.load_full();
        let revoked: Vec<AgentName> = table
            .agents()
            .filter(|a| a.state == castra_identity::AgentState::Revoked)
            .map(|a| a.name.clone())
            .collect();
        let close = |agent: AgentName| async move {
            self.parked.drop_of(&agent);
            tokio::join!(self.sessions.close_of(&agent), self.links.close_of(&agent));
        };
        futures_util::future::join_all(revoked.into_iter().map(close)).await;
    }

    /// Swaps whose JWTs are believed, or their keys.
    pub fn replace_issuers(&self, issuers: Vec<Issuer>) {
        self.issuers.store(Arc::new(issuers));
        self.issuer_changes.fetch_add(1, Ordering::Relaxed);
        self.keys_fetched.notify_waiters();
    }

    /// Wakes when a JWT named a key that is not known, so that the key sets should be fetched again.
    pub fn keys_wanted(&self) -> &Notify {
        &self.keys_wanted
    }

    pub(crate) async fn ask_for_fresh_keys(&self, wait: Duration) {
        let fetched = self.keys_fetched.notified();
        self.keys_wanted.notify_one();
        // Late or never: the caller verifies again and gives its own reason.
        let _ = tokio::time::timeout(wait, fetched).await;
    }

    /// Swaps which Host and Origin headers are ours.
    pub fn replace_sites(&self, sites: SiteRules) {
        self.sites.store(Arc::new(sites));
    }

    /// Swaps what inspects; exchanges under way keep what they began with.
    pub fn replace_inspector(&self, inspector: Inspector, mode: StreamMode) {
        self.inspection.store(Arc::new(Inspection { inspector, mode }));
    }

    /// Swaps what is said of agents' own tools.
    pub fn replace_local_tools(&self, tools: HashMap<String, ToolManifest>) {
        self.local_tools.store(Arc::new(shared(tools)));
    }

    /// Swaps how runs are followed; those that are going on keep the coverage that they began with.
    pub fn replace_flow(&self, settings: FlowSettings) {
        self.runs.replace(settings);
    }

    /// What is known of an agent's own tool.
    pub(crate) fn local_tool(&self, name: &str) -> Arc<ToolFacts> {
        self.local_tools.load().get(name).cloned().map_or_else(ToolFacts::unknown, ToolFacts::of_manifest)
    }

    /// Swaps the servers. One whose fingerprint is unchanged keeps its connections and children.
    pub fn replace_servers(self: &Arc<Self>, parts: Vec<ServerParts>) {
        let old = self.servers.load_full();
        let mut new = HashMap::with_capacity(parts.len());
        for part in parts {
            let name = part.config.name.clone();
            let server = match old.get(&name) {
                Some(server) if server.fingerprint() == part.fingerprint => server.clone(),
                _ => Server::new(self, part),
            };
            new.insert(name, server);
        }
        let gone: Vec<ServerName> = old
            .iter()
            .filter(|(name, server)| new.get(*name).is_none_or(|n| !Arc::ptr_eq(n, server)))
            .map(|(name, _)| name.clone())
            .collect();
        self.servers.store(Arc::new(new));
        for server in &gone {
            self.routes.forget(server);
        }
        if !gone.is_empty() {
            let gate = self.clone();
            tokio::spawn(async move {
                for server in gone {
                    gate.links.close_to(&server).await;
                    gate.sessions.close_to(&server).await;
                }
            });
        }
        self.refresh_engine();
        self.refresh_catalogue();
    }

    /// Swaps the model routes. What is under way goes on with what it has; a version that is as before
    /// keeps its connections.
    pub fn replace_models(self: &Arc<Self>, parts: Vec<ModelParts>) {
        self.models.replace(parts);
        self.refresh_engine();
    }

    /// Swaps which versions of the model routes serve, from the next call on.
    pub fn replace_promotions(&self, promotions: Promotions) {
        self.models.promoted(promotions);
    }

    /// The model routes.
    pub fn models(&self) -> &Routes {
        &self.models
    }

    /// Swaps the peers. One whose fingerprint is unchanged keeps its card.
    pub fn replace_peers(self: &Arc<Self>, parts: Vec<PeerParts>) {
        self.peers.replace(self, parts);
        self.refresh_engine();
    }

    /// What the gate knows of its peers, by name.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.peers.statuses()
    }

    /// Learns the catalogues of all servers again, soon.
    pub fn refresh_catalogue(&self) {
        for server in self.servers.load().values() {
            server.look_again();
        }
        self.servers_changed.notify_one();
    }

    /// Validates the policies in force against what the servers are now known to offer, beside
    /// whatever goes on. Until that is done, arguments of tools that are new have no types.
    pub(crate) fn refresh_engine(self: &Arc<Self>) {
        if self.revalidation.waits.swap(true, Ordering::SeqCst) {
            return;
        }
        let gate = self.clone();
        tokio::task::spawn_blocking(move || {
            let _turn = gate.revalidation.turn.lock();
            gate.revalidation.waits.store(false, Ordering::SeqCst);
            let catalogue = gate.catalogue();
            gate.engine.rcu(|engine| Arc::new(engine.with_catalogue(&catalogue)));
        });
    }

    /// What policies can speak of.
    pub fn catalogue(&self) -> Catalogue {
        let mut servers: Vec<_> = self.servers.load().values().map(|s| s.for_policies()).collect();
        servers.sort_by(|a, b| a.name.cmp(&b.name));
        let agents = self.credentials.load().agents().map(|a| (a.name.clone(), a.groups.clone())).collect();
        Catalogue { servers, agents, models: self.models.names(), peers: self.peers.names() }
    }

    /// What the gate knows of its servers, by name.
    pub fn servers(&self) -> Vec<ServerStatus> {
        let mut all: Vec<_> = self.servers.load().values().map(|s| s.status()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Whether actions can be decided and recorded.
    pub fn ready(&self) -> Vec<ReadyCheck> {
        let log = self.log.status();
        let draining = self.in_flight.closed();
        let policies = self.engine.load().policy_count();
        vec![
            ReadyCheck {
                name: "log",
                ok: log.failed.is_none(),
                reason: log.failed.map_or_else(
                    || format!("{} records, {} on disk", log.next, log.durable),
                    |why| why.to_string(),
                ),
            },
            ReadyCheck {
                name: "policies",
                ok: policies > 0,
                reason: if policies > 0 {
                    format!("{policies} loaded")
                } else {
                    "no policy is loaded, so everything is denied".into()
                },
            },
            ReadyCheck {
                name: "open",
                ok: !draining,
                reason: if draining { "shutting down" } else { "taking calls" }.into(),
            },
        ]
    }

    /// Ends the gate: new calls are refused, those in flight get `drain_time_max`, then everything
    /// is cancelled, and sessions and children are closed. Returns how many calls were cut off.
    pub async fn drain(&self) -> usize {
        self.in_flight.close();
        let all_done = self.in_flight.all_done();
        let in_time = tokio::time::timeout(self.limits.drain_time_max, all_done).await.is_ok();
        let cut = if in_time { 0 } else { self.in_flight.count() };
        self.closing.cancel();
        self.sessions.close_all().await;
        self.links.close_all().await;
        self.parked.drop_all();
        self.runs.keep_everything().await;
        cut
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub(crate) fn mode(&self) -> PolicyMode {
        if self.observe.load(Ordering::Relaxed) { PolicyMode::Observe } else { PolicyMode::Enforce }
    }

    pub(crate) fn server(&self, name: &ServerName) -> Option<Arc<Server>> {
        self.servers.load().get(name).cloned()
    }

    /// All servers in the order of their names, so that federated lists are stable.
    pub(crate) fn all_servers(&self) -> Vec<Arc<Server>> {
        let mut all: Vec<_> = self.servers.load().values().cloned().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    pub(crate) fn inspection(&self) -> Arc<Inspection> {
        self.inspection.load_full()
    }

    pub(crate) fn certificate_rules(&self) -> &[NameRule] {
        &self.certificate_rules
    }

    pub(crate) fn sites(&self) -> arc_swap::Guard<Arc<SiteRules>> {
        self.sites.load()
    }

    pub(crate) fn resource(&self) -> &ResourceServer {
        &self.resource
    }
}

/// What servers did that they should not, and their processes' lives, read when figures are asked for.
fn misbehaviour_of(gate: std::sync::Weak<Gate>) -> impl Fn(&mut Page) {
    move |page| {
        for server in gate.upgrade().map(|gate| gate.all_servers()).unwrap_or_default() {
            let counters = server.upstream().counters();
            let labels = [("server", server.name().as_str())];
            for (name, help, count) in [
                ("castra_child_starts_total", "Child processes started.", &counters.started),
                ("castra_child_deaths_total", "Child processes that ended by themselves.", &counters.died),
                (
                    "castra_upstream_foreign_ids_total",
                    "Answers to what was never asked.",
                    &counters.foreign_ids,
                ),
                (
                    "castra_upstream_second_answers_total",
                    "Answers that came twice.",
                    &counters.second_answers,
                ),
                ("castra_upstream_floods_total", "Exchanges ended because of a flood.", &counters.flooded),
                ("castra_upstream_dropped_total", "Messages that nobody took.", &counters.dropped),
                ("castra_upstream_garbage_total", "Lines that were not MCP.", &counters.garbage),
            ] {
                page.counter(name, help, &labels, count.load(Ordering::Relaxed));
            }
        }
    }
}

/// Shares and breakers of model versions, read when figures are asked for.
fn models_of(gate: std::sync::Weak<Gate>) -> impl Fn(&mut Page) {
    move |page| {
        if let Some(gate) = gate.upgrade() {
            gate.models.show(page);
        }
    }
}

async fn housekeeping(gate: std::sync::Weak<Gate>, closing: CancellationToken) {
    let mut tick = tokio::time::interval(HOUSEKEEPING);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = closing.cancelled() => return,
        }
        let Some(gate) = gate.upgrade() else { return };
        gate.sessions.close_idle().await;
        gate.links.close_idle().await;
        gate.parked.drop_late();
        gate.standings.expire(gate.now());
    }
}

/// Writes down what is known of runs when they have been quiet for a moment.
async fn keeping_runs(gate: std::sync::Weak<Gate>, closing: CancellationToken) {
    let mut tick = tokio::time::interval(KEEPING_RUNS);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = closing.cancelled() => return,
        }
        let Some(runs) = gate.upgrade().map(|gate| gate.runs.clone()) else { return };
        runs.tidy().await;
    }
}

fn shared(tools: HashMap<String, ToolManifest>) -> HashMap<String, Arc<ToolManifest>> {
    tools.into_iter().map(|(name, said)| (name, Arc::new(said))).collect()
}

/// Sees to it that somebody learns what each server offers, and tells those who follow a server that
/// it is gone.
async fn learning(gate: std::sync::Weak<Gate>, closing: CancellationToken) {
    let mut known: Vec<Arc<Server>> = Vec::new();
    loop {
        let Some(strong) = gate.upgrade() else { return };
        let servers = strong.all_servers();
        let among = |all: &[Arc<Server>], server: &Arc<Server>| all.iter().any(|s| Arc::ptr_eq(s, server));
        for server in servers.iter().filter(|s| !among(&known, s)) {
            tokio::spawn(learning_of(gate.clone(), server.clone(), closing.clone()));
        }
        for server in known.iter().filter(|s| !among(&servers, s)) {
            server.gone().cancel();
        }
        known = servers;
        let changed = strong.servers_changed.clone();
        drop(strong);
        tokio::select! {
            () = changed.notified() => {}
            () = closing.cancelled() => return,
        }
    }
}

/// Learns what one server offers: at the start, every few minutes, when it says that its list changed
/// or somebody names a tool that is not known, and after a while again if it could not be reached.
async fn learning_of(gate: std::sync::Weak<Gate>, server: Arc<Server>, closing: CancellationToken) {
    const FIRST_RETRY: Duration = Duration::from_secs(1);
    const LAST_RETRY: Duration = Duration::from_secs(60);
    const EVERY: Duration = Duration::from_secs(300);
    /// Neither a server nor its callers can make the gate ask more often than this.
    const BETWEEN_WISHES: Duration = Duration::from_secs(10);
    let mut retry = FIRST_RETRY;
    let mut next_wish = tokio::time::Instant::now();
    loop {
        let Some(strong) = gate.upgrade() else { return };
        server.looks_now();
        let learned = tokio::select! {
            learned = server.learn(&strong) => learned,
            () = server.gone().cancelled() => return,
            () = closing.cancelled() => return,
        };
        if learned == Some(true) {
            strong.refresh_engine();
        }
        drop(strong);
        retry = if learned.is_some() { FIRST_RETRY } else { (retry * 2).min(LAST_RETRY) };
        let wish = async {
            tokio::time::sleep_until(next_wish).await;
            server.looked_for().await;
        };
        tokio::select! {
            () = wish => next_wish = tokio::time::Instant::now() + BETWEEN_WISHES,
            () = tokio::time::sleep(if learned.is_some() { EVERY } else { retry }) => {}
            () = server.gone().cancelled() => return,
            () = closing.cancelled() => return,
        }
    }
}
