//! What the gate counts, and its page in the Prometheus text format.
//!
//! Every update is a relaxed addition on a cache line that, as a rule, only the own thread writes:
//! some nanoseconds, no lock, no allocation. Labels are fixed here or come from configuration
//! (server names), so a caller cannot make the page grow. The rest is read when the page is asked
//! for: listeners' own counters, and whatever `source` adds.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc,
        atomic::{
            AtomicI64, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed},
        },
    },
    time::Duration,
};

use castra_core::{ModelName, Operation, RefusalCode, ServerName};
use castra_net::listen::ListenStats;
use parking_lot::{Mutex, RwLock};

use crate::model::FailureKind;

/// What was decided, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// Policy permits it.
    Allow,
    /// Policy does not permit it.
    Deny,
    /// A person has to say yes first.
    Ask,
    /// It could not be decided.
    Undecided,
}

impl Decided {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Ask => "ask",
            Self::Undecided => "undecided",
        }
    }
}

/// What became of an action, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream answered, if only with an error of its own.
    Answered,
    /// The upstream did not answer, or not with an answer.
    Failed,
    /// Castra refused it.
    Refused,
    /// The caller went away or took it back.
    Cancelled,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Where an inspector saw something, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// In what a caller asks.
    Request,
    /// In what comes back.
    Answer,
}

impl Side {
    fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Answer => "answer",
        }
    }
}

/// Lists all variants in their order. A variant that is missing does not compile.
macro_rules! all {
    ($name:ident: $type:ident, $($variant:ident)*) => {
        const $name: &[$type] = &[$($type::$variant),*];
        const _: fn($type) = |variant| match variant { $($type::$variant)|* => {} };
    };
}

all!(OPERATIONS: Operation, Call Read Complete Send Infer Connect);
all!(DECISIONS: Decided, Allow Deny Ask Undecided);
all!(OUTCOMES: Outcome, Answered Failed Refused Cancelled);
all!(CODES: RefusalCode, Unauthenticated BadCredential InsufficientScope ForeignOrigin Malformed HeaderMismatch
    UnsupportedVersion NotFound NotAllowedHere LimitReached Busy OverBudget Denied ApprovalRequired Undecided Unrecorded UpstreamUnavailable
    UpstreamMisbehaved UpstreamTimeout Cancelled ShuttingDown);

/// Everything that a gate counts. One per process, shared.
pub struct Metrics {
    /// Actions between their record of intent and that of their outcome.
    pub in_flight: Gauge,
    /// Sessions of legacy MCP clients.
    pub sessions: Gauge,
    /// Calls that wait for their client's input.
    pub parked: Gauge,
    version: String,
    actions: Vec<Counter>,
    refusals: Vec<Counter>,
    overhead: Histogram,
    decision: Histogram,
    durable_wait: Histogram,
    policies_loaded: Counter,
    policies_rejected: Counter,
    upstreams: RwLock<BTreeMap<ServerName, Arc<UpstreamMetrics>>>,
    models: RwLock<BTreeMap<(ModelName, String), Arc<ModelMetrics>>>,
    listeners: Mutex<Vec<(&'static str, Arc<ListenStats>)>>,
    findings: Mutex<BTreeMap<(Arc<str>, Side), u64>>,
    sources: Mutex<Vec<Source>>,
}

type Source = Box<dyn Fn(&mut Page) + Send + Sync>;

impl Metrics {
    /// Starts at zero. `version` is the program's.
    pub fn new(version: &str) -> Self {
        let counters = |n| std::iter::repeat_with(Counter::default).take(n).collect();
        Self {
            in_flight: Gauge::default(),
            sessions: Gauge::default(),
            parked: Gauge::default(),
            version: version.to_owned(),
            actions: counters(OPERATIONS.len() * DECISIONS.len() * OUTCOMES.len()),
            refusals: counters(CODES.len()),
            overhead: Histogram::default(),
            decision: Histogram::default(),
            durable_wait: Histogram::default(),
            policies_loaded: Counter::default(),
            policies_rejected: Counter::default(),
            upstreams: RwLock::default(),
            models: RwLock::default(),
            listeners: Mutex::default(),
            findings: Mutex::default(),
            sources: Mutex::default(),
        }
    }

    /// Counts an action that has come to its end.
    pub fn action(&self, operation: Operation, decided: Decided, outcome: Outcome) {
        if let Some(counter) = self.actions.get(action_slot(operation, decided, outcome)) {
            counter.add(1);
        }
    }

    /// Counts a refusal, of an action or of a request that never became one.
    pub fn refusal(&self, code: RefusalCode) {
        if let Some(counter) = self.refusals.get(code as usize) {
            counter.add(1);
        }
    }

    /// The path's own time for one action: all but what the upstream took.
    pub fn overhead(&self, time: Duration) {
        self.overhead.observe(time);
    }

    /// The time of one decision.
    pub fn decision(&self, time: Duration) {
        self.decision.observe(time);
    }

    /// How long a record that had to be durable waited for the disk.
    pub fn durable_wait(&self, time: Duration) {
        self.durable_wait.observe(time);
    }

    /// Counts a policy set that was loaded, or rejected with the old one kept.
    pub fn policy_reload(&self, good: bool) {
        if good { &self.policies_loaded } else { &self.policies_rejected }.add(1);
    }

    /// Counts a message in which an inspector saw something of a kind. Kinds are built in or come from
    /// configuration. Takes a lock: findings are rare.
    pub fn finding(&self, kind: &Arc<str>, side: Side) {
        *self.findings.lock().entry((kind.clone(), side)).or_default() += 1;
    }

    /// What is counted of one server. Takes a lock, so keep what it gives.
    pub fn upstream(&self, server: &ServerName) -> Arc<UpstreamMetrics> {
        if let Some(known) = self.upstreams.read().get(server) {
            return known.clone();
        }
        self.upstreams.write().entry(server.clone()).or_default().clone()
    }

    /// What is counted of one version of a model route. Takes a lock, so keep what it gives.
    pub fn model(&self, route: &ModelName, version: &str) -> Arc<ModelMetrics> {
        self.models.write().entry((route.clone(), version.to_owned())).or_default().clone()
    }

    /// Shows the counters of a listener.
    pub fn listener(&self, stats: Arc<ListenStats>, name: &'static str) {
        self.listeners.lock().push((name, stats));
    }

    /// Adds values that are read when the page is asked for.
    pub fn source(&self, source: impl Fn(&mut Page) + Send + Sync + 'static) {
        self.sources.lock().push(Box::new(source));
    }

    /// The page, in Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        let mut page = Page::default();
        page.gauge(
            "castra_build_info",
            "The version of Castra that runs; always 1.",
            &[("version", &self.version)],
            1.0,
        );
        self.show_actions(&mut page);
        self.show_levels(&mut page);
        for ((kind, side), count) in &*self.findings.lock() {
            let help = "Messages in which an inspector saw something, by kind.";
            let labels = [("kind", &**kind), ("in", side.as_str())];
            page.counter("castra_findings_total", help, &labels, *count);
        }
        for (server, upstream) in &*self.upstreams.read() {
            upstream.show(&mut page, server);
        }
        for ((route, version), model) in &*self.models.read() {
            model.show(&mut page, route, version);
        }
        for (name, stats) in &*self.listeners.lock() {
            show_listener(&mut page, name, stats);
        }
        for source in &*self.sources.lock() {
            source(&mut page);
        }
        page.finish()
    }

    fn show_actions(&self, page: &mut Page) {
        for &operation in OPERATIONS {
            for &decided in DECISIONS {
                for &outcome in OUTCOMES {
                    let count =
                        self.actions.get(action_slot(operation, decided, outcome)).map_or(0, Counter::sum);
                    // Most combinations never happen; those of tool calls are there from the start.
                    if count > 0 || operation == Operation::Call {
                        let labels = [
                            ("operation", operation.as_str()),
                            ("decision", decided.as_str()),
                            ("outcome", outcome.as_str()),
                        ];
                        page.counter("castra_actions_total", "Actions that came to an end.", &labels, count);
                    }
                }
            }
        }
        for (&code, counter) in CODES.iter().zip(&self.refusals) {
            let help = "Refusals by kind, of actions and of requests that never became one.";
            page.counter("castra_refusals_total", help, &[("code", code.as_str())], counter.sum());
        }
    }

    fn show_levels(&self, page: &mut Page) {
        for (name, help, histogram) in [
            (
                "castra_overhead_seconds",
                "Time of the gate itself per action, without the upstream's.",
                &self.overhead,
            ),
            ("castra_decision_seconds", "Time of one policy decision.", &self.decision),
            (
                "castra_log_durable_wait_seconds",
                "How long records that had to be durable waited for the disk.",
                &self.durable_wait,
            ),
        ] {
            page.histogram(name, help, &[], histogram);
        }
        for (name, help, gauge) in [
            ("castra_actions_in_flight", "Actions in flight.", &self.in_flight),
            ("castra_sessions", "Open sessions of legacy MCP clients.", &self.sessions),
            ("castra_parked_calls", "Calls that wait for their client's input.", &self.parked),
        ] {
            page.gauge(name, help, &[], gauge.sum() as f64);
        }
        for (result, counter) in [("loaded", &self.policies_loaded), ("rejected", &self.policies_rejected)] {
            let help = "Policy sets that were loaded, or rejected with the old one kept.";
            page.counter("castra_policy_reloads_total", help, &[("result", result)], counter.sum());
        }
    }
}

fn action_slot(operation: Operation, decided: Decided, outcome: Outcome) -> usize {
    (operation as usize * DECISIONS.len() + decided as usize) * OUTCOMES.len() + outcome as usize
}

/// What is counted of one server.
#[derive(Default)]
pub struct UpstreamMetrics {
    time: Histogram,
    failed: Counter,
}

impl UpstreamMetrics {
    /// It answered after this time.
    pub fn took(&self, time: Duration) {
        self.time.observe(time);
    }

    /// It could not be reached, died, or answered nonsense or nothing in time.
    pub fn failed(&self) {
        self.failed.add(1);
    }

    fn show(&self, page: &mut Page, server: &ServerName) {
        let labels = [("server", server.as_str())];
        page.histogram(
            "castra_upstream_seconds",
            "Time of a server from request to whole answer.",
            &labels,
            &self.time,
        );
        let help = "Calls that a server did not answer.";
        page.counter("castra_upstream_failures_total", help, &labels, self.failed.sum());
    }
}

/// What is counted of one version of a model route.
#[derive(Default)]
pub struct ModelMetrics {
    requests: Counter,
    first_byte: Histogram,
    failures: [Counter; FailureKind::ALL.len()],
    input_tokens: Counter,
    output_tokens: Counter,
}

impl ModelMetrics {
    /// A request went out.
    pub fn sent(&self) {
        self.requests.add(1);
    }

    /// Its answer began after this time.
    pub fn answered(&self, after: Duration) {
        self.first_byte.observe(after);
    }

    /// An answer used so many tokens, by the provider's word or by an estimate.
    pub fn used(&self, input_tokens: u64, output_tokens: u64) {
        self.input_tokens.add(input_tokens);
        self.output_tokens.add(output_tokens);
    }

    /// There was no answer, or none that could be used.
    pub fn failed(&self, kind: FailureKind) {
        if let Some(counter) = self.failures.get(kind as usize) {
            counter.add(1);
        }
    }

    fn show(&self, page: &mut Page, route: &ModelName, version: &str) {
        let labels = [("route", route.as_str()), ("version", version)];
        let help = "Requests that were sent to a provider, each attempt by itself.";
        page.counter("castra_model_requests_total", help, &labels, self.requests.sum());
        let help = "Time of a provider until its answer began.";
        page.histogram("castra_model_first_byte_seconds", help, &labels, &self.first_byte);
        for (kind, counter) in [("input", &self.input_tokens), ("output", &self.output_tokens)] {
            let [route, version] = labels;
            let help = "Tokens that models used, as their providers count them or else as estimated.";
            page.counter("castra_model_tokens_total", help, &[route, version, ("kind", kind)], counter.sum());
        }
        for (kind, counter) in FailureKind::ALL.iter().zip(&self.failures) {
            let [route, version] = labels;
            let help = "Requests that a provider did not answer, or not with an answer.";
            page.counter(
                "castra_model_failures_total",
                help,
                &[route, version, ("reason", kind.as_str())],
                counter.sum(),
            );
        }
    }
}

fn show_listener(page: &mut Page, name: &str, stats: &ListenStats) {
    let listener = ("listener", name);
    let read = |counter: &AtomicU64| counter.load(Relaxed);
    page.gauge("castra_connections_open", "Open connections.", &[listener], read(&stats.open) as f64);
    let help = "Connections that were accepted, those refused at once included.";
    page.counter("castra_connections_accepted_total", help, &[listener], read(&stats.accepted));
    let help = "Times that the system could not accept a connection.";
    page.counter("castra_accept_errors_total", help, &[listener], read(&stats.accept_errors));
    for (reason, counter) in [
        ("full", &stats.refused_full),
        ("slow-head", &stats.closed_slow_head),
        ("idle", &stats.closed_idle),
        ("stalled", &stats.closed_stalled),
        ("large-head", &stats.closed_large_head),
        ("malformed", &stats.closed_malformed),
        ("broken", &stats.closed_broken),
        ("drained", &stats.aborted),
    ] {
        let help = "Connections that the gate ended, by reason.";
        page.counter("castra_connections_ended_total", help, &[listener, ("reason", reason)], read(counter));
    }
    for (reason, counter) in [("failed", &stats.handshakes_failed), ("late", &stats.handshakes_late)] {
        let help = "TLS handshakes that did not succeed.";
        let labels = [listener, ("reason", reason)];
        page.counter("castra_tls_handshake_failures_total", help, &labels, read(counter));
    }
}

/// A number that only grows.
#[derive(Default)]
pub struct Counter {
    cells: [Cell; SHARDS],
}

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        if let Some(Cell(cell)) = self.cells.get(shard()) {
            cell.fetch_add(n, Relaxed);
        }
    }

    /// The sum over all threads.
    pub fn sum(&self) -> u64 {
        self.cells.iter().map(|Cell(cell)| cell.load(Acquire)).fold(0, u64::wrapping_add)
    }
}

/// A number that grows and falls. One thread may add what another takes away.
#[derive(Default)]
pub struct Gauge {
    cells: [SignedCell; SHARDS],
}

impl Gauge {
    /// Adds `n`.
    pub fn add(&self, n: i64) {
        if let Some(SignedCell(cell)) = self.cells.get(shard()) {
            cell.fetch_add(n, Relaxed);
        }
    }

    /// Takes `n` away.
    pub fn sub(&self, n: i64) {
        self.add(n.wrapping_neg());
    }

    /// The sum over all threads.
    pub fn sum(&self) -> i64 {
        self.cells.iter().map(|SignedCell(cell)| cell.load(Acquire)).fold(0, i64::wrapping_add)
    }
}

/// Durations counted in buckets of [`BOUNDS_NANOS`].
#[derive(Default)]
pub struct Histogram {
    shards: [HistogramShard; SHARDS],
}

#[derive(Default)]
#[repr(align(64))]
struct HistogramShard {
    // Not cumulative here; the last one counts what is beyond all bounds.
    buckets: [AtomicU64; BOUNDS_NANOS.len() + 1],
    nanos: AtomicU64,
}

/// Upper bounds of the buckets, from 1 µs to 60 s. All histograms have the same, so that they can be
/// compared and added.
const BOUNDS_NANOS: [u64; 24] = {
    const US: u64 = 1_000;
    const MS: u64 = 1_000_000;
    const S: u64 = 1_000_000_000;
    [
        US,
        2_500,
        5 * US,
        10 * US,
        25 * US,
        50 * US,
        100 * US,
        250 * US,
        500 * US,
        MS,
        2_500 * US,
        5 * MS,
        10 * MS,
        25 * MS,
        50 * MS,
        100 * MS,
        250 * MS,
        500 * MS,
        S,
        2_500 * MS,
        5 * S,
        10 * S,
        30 * S,
        60 * S,
    ]
};

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NANOS.partition_point(|bound| *bound < nanos);
        let Some(shard) = self.shards.get(shard()) else { return };
        if let Some(bucket) = shard.buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        shard.nanos.fetch_add(nanos, Relaxed);
    }

    fn read(&self) -> (Vec<u64>, f64) {
        let mut buckets = vec![0_u64; BOUNDS_NANOS.len() + 1];
        let mut nanos = 0_u64;
        for shard in &self.shards {
            nanos = nanos.wrapping_add(shard.nanos.load(Acquire));
            for (sum, bucket) in buckets.iter_mut().zip(&shard.buckets) {
                *sum = sum.wrapping_add(bucket.load(Acquire));
            }
        }
        (buckets, seconds(nanos))
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// Threads that update at once without sharing a cache line. More threads share, which is slower
/// and still right.
const SHARDS: usize = 8;

#[derive(Default)]
#[repr(align(64))]
struct Cell(AtomicU64);

#[derive(Default)]
#[repr(align(64))]
struct SignedCell(AtomicI64);

/// The shard of this thread; threads take turns.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Relaxed) % SHARDS;
    }
    OWN.try_with(|own| *own).unwrap_or(0)
}

/// A page in the making. Values of one name may be added in any order; they come out together.
#[derive(Default)]
pub struct Page {
    families: BTreeMap<String, Family>,
}

struct Family {
    kind: &'static str,
    help: &'static str,
    lines: String,
}

impl Page {
    /// Adds a value that only grows; the name ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &'static str, labels: &[(&str, &str)], value: u64) {
        let lines = self.family(name, help, "counter");
        line(lines, name, "", labels, None, format_args!("{value}"));
    }

    /// Adds a value of the moment, in base units (seconds, bytes).
    pub fn gauge(&mut self, name: &str, help: &'static str, labels: &[(&str, &str)], value: f64) {
        let lines = self.family(name, help, "gauge");
        line(lines, name, "", labels, None, format_args!("{value}"));
    }

    /// Adds a histogram of durations; the name ends in `_seconds`.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &'static str,
        labels: &[(&str, &str)],
        histogram: &Histogram,
    ) {
        let lines = self.family(name, help, "histogram");
        let (buckets, sum) = histogram.read();
        let mut below = 0_u64;
        for (bound, count) in BOUNDS_NANOS.iter().zip(&buckets) {
            below = below.wrapping_add(*count);
            let bound = seconds(*bound).to_string();
            line(lines, name, "_bucket", labels, Some(("le", &bound)), format_args!("{below}"));
        }
        let all = buckets.iter().fold(0, |sum: u64, n| sum.wrapping_add(*n));
        line(lines, name, "_bucket", labels, Some(("le", "+Inf")), format_args!("{all}"));
        line(lines, name, "_sum", labels, None, format_args!("{sum}"));
        line(lines, name, "_count", labels, None, format_args!("{all}"));
    }

    fn family(&mut self, name: &str, help: &'static str, kind: &'static str) -> &mut String {
        let make = || Family { kind, help, lines: String::new() };
        &mut self.families.entry(name.to_owned()).or_insert_with(make).lines
    }

    pub(crate) fn finish(self) -> String {
        let mut text = String::new();
        for (name, family) in self.families {
            let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", family.kind);
            text.push_str(&family.lines);
        }
        text
    }
}

fn line(
    lines: &mut String,
    name: &str,
    suffix: &str,
    labels: &[(&str, &str)],
    bound: Option<(&str, &str)>,
    value: std::fmt::Arguments<'_>,
) {
    lines.push_str(name);
    lines.push_str(suffix);
    let mut open = '{';
    for (label, value) in labels.iter().copied().chain(bound) {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(lines, "{open}{label}=\"{value}\"");
        open = ',';
    }
    if open == ',' {
        lines.push('}');
    }
    let _ = writeln!(lines, " {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(page: &str, series: &str) -> String {
        let found = page.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("{series} in\n{page}")).to_owned()
    }

    #[test]
    fn all_variants_stand_in_their_order() {
        assert!(OPERATIONS.iter().enumerate().all(|(i, v)| *v as usize == i));
        assert!(DECISIONS.iter().enumerate().all(|(i, v)| *v as usize == i));
        assert!(OUTCOMES.iter().enumerate().all(|(i, v)| *v as usize == i));
        assert!(CODES.iter().enumerate().all(|(i, v)| *v as usize == i));
        assert!(FailureKind::ALL.iter().enumerate().all(|(i, v)| *v as usize == i));
    }

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Arc::new(Metrics::new("1.2.3"));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let metrics = metrics.clone();
                std::thread::spawn(move || {
                    for _ in 0..1000 {
                        metrics.action(Operation::Call, Decided::Allow, Outcome::Answered);
                        metrics.refusal(RefusalCode::ShuttingDown);
                        metrics.in_flight.add(1);
                        metrics.overhead(Duration::from_micros(30));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        metrics.in_flight.sub(3999);
        metrics.action(Operation::Read, Decided::Deny, Outcome::Refused);
        metrics.overhead(Duration::from_secs(100));
        metrics.policy_reload(false);
        let server = ServerName::new("files").unwrap();
        metrics.upstream(&server).took(Duration::from_millis(2));
        metrics.upstream(&server).failed();
        let model = metrics.model(&ModelName::new("assistant").unwrap(), "v1");
        model.sent();
        model.failed(FailureKind::RateLimited);
        let stats = Arc::new(ListenStats::default());
        stats.accepted.store(7, Relaxed);
        metrics.listener(stats, "gate");
        metrics.source(|page| page.gauge("castra_log_entries", "Entries.", &[], 12.0));

        let page = metrics.render();
        for (series, expected) in [
            (r#"castra_build_info{version="1.2.3"}"#, "1"),
            (r#"castra_actions_total{operation="call",decision="allow",outcome="answered"}"#, "4000"),
            (r#"castra_actions_total{operation="read",decision="deny",outcome="refused"}"#, "1"),
            (r#"castra_refusals_total{code="shutting-down"}"#, "4000"),
            ("castra_actions_in_flight", "1"),
            (r#"castra_overhead_seconds_bucket{le="0.000025"}"#, "0"),
            (r#"castra_overhead_seconds_bucket{le="0.00005"}"#, "4000"),
            (r#"castra_overhead_seconds_bucket{le="60"}"#, "4000"),
            (r#"castra_overhead_seconds_bucket{le="+Inf"}"#, "4001"),
            ("castra_overhead_seconds_count", "4001"),
            ("castra_overhead_seconds_sum", "100.12"),
            (r#"castra_policy_reloads_total{result="rejected"}"#, "1"),
            (r#"castra_upstream_seconds_bucket{server="files",le="0.0025"}"#, "1"),
            (r#"castra_upstream_failures_total{server="files"}"#, "1"),
            (r#"castra_model_requests_total{route="assistant",version="v1"}"#, "1"),
            (r#"castra_model_failures_total{route="assistant",version="v1",reason="rate-limited"}"#, "1"),
            (r#"castra_connections_accepted_total{listener="gate"}"#, "7"),
            ("castra_log_entries", "12"),
        ] {
            assert_eq!(value(&page, series), expected, "{series}");
        }
    }

    /// The rules of `promtool check metrics`: help and type once, before the samples of the family,
    /// which stand together; counters end in `_total`, histograms in a base unit.
    #[test]
    fn the_page_keeps_the_rules_of_the_format() {
        let metrics = Metrics::new("0\"\\\n");
        metrics.upstream(&ServerName::new("files").unwrap());
        metrics.upstream(&ServerName::new("tickets").unwrap());
        metrics.listener(Arc::default(), "gate");
        metrics.listener(Arc::default(), "console");
        let page = metrics.render();
        assert!(page.contains(r#"{version="0\"\\\n"}"#));
        let mut seen = std::collections::BTreeSet::new();
        let mut lines = page.lines().peekable();
        while let Some(help) = lines.next() {
            let (name, help) = help.strip_prefix("# HELP ").unwrap().split_once(' ').unwrap();
            assert!(name.starts_with("castra_") && help.ends_with('.'), "{name}: {help}");
            assert!(seen.insert(name.to_owned()), "{name} twice");
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap();
            match kind {
                "counter" => assert!(name.ends_with("_total"), "{name}"),
                "histogram" => assert!(name.ends_with("_seconds"), "{name}"),
                "gauge" => assert!(!name.ends_with("_total") && !name.ends_with("_count"), "{name}"),
                other => panic!("{other}"),
            }
            let mut samples = 0;
            while let Some(sample) = lines.next_if(|l| !l.starts_with('#')) {
                let series = sample.split(['{', ' ']).next().unwrap();
                let base = series.strip_prefix(name).unwrap();
                assert!(
                    base.is_empty() || kind == "histogram" && ["_bucket", "_sum", "_count"].contains(&base)
                );
                assert!(sample.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{sample}");
                samples += 1;
            }
            assert!(samples > 0, "{name}");
        }
    }
}
