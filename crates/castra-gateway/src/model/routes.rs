//! Model routes: which version of a route a call goes to, and in which order others are tried.
//!
//! A route's versions come from the configuration; which of them serve, and with which shares, is
//! what was promoted last (`castra model promote`), else what the configuration says. Both can change
//! while the gate runs; a call that is under way keeps what it has.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use castra_core::{AgentName, Limits, ModelName, Refusal, RefusalCode, Step, StreamMode, Timestamp};
use castra_store::{Promotions, Share};
use parking_lot::Mutex;

use super::{
    attempts::Attempts,
    breaker::{BreakerSettings, BreakerState},
    continued::Continued,
    health::Health,
    provider::{ProviderAnswer, ProviderError},
    version::{Version, VersionParts},
};
use crate::{
    metrics::{Metrics, Page},
    upstream::Random,
};

/// One route, ready to be made.
#[derive(Debug, Clone)]
pub struct ModelParts {
    /// The name that agents use.
    pub name: ModelName,
    /// How it is routed.
    pub settings: RouteSettings,
    /// Its versions in the order of the configuration.
    pub versions: Vec<VersionParts>,
}

/// How the calls of a route are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSettings {
    /// How its answers are inspected, where it does not go by the default.
    pub inspection: Option<StreamMode>,
    /// The versions that are tried when the chosen one gives no answer, in order; none: the others that
    /// serve, those with larger shares first.
    pub fallback: Option<Vec<String>>,
    /// How often it is tried again after the first attempt, here or there.
    pub retries: u32,
    /// The longest that a provider's `Retry-After` is waited for within a call.
    pub retry_after_max: Duration,
    /// All attempts together have this long until the answer begins.
    pub timeout: Duration,
    /// When a version is left alone for a while.
    pub breaker: BreakerSettings,
}

/// A route with its versions.
#[derive(Debug)]
pub struct Route {
    name: ModelName,
    pub(super) settings: RouteSettings,
    versions: Vec<Arc<Version>>,
    /// Places in `versions` with their shares; the shares are above zero.
    serving: Vec<(usize, u32)>,
    /// What was promoted and is not configured.
    missing: Vec<String>,
}

impl Route {
    /// The name that agents use.
    pub fn name(&self) -> &ModelName {
        &self.name
    }

    /// How its answers are inspected; none: as is done by default.
    pub fn inspection(&self) -> Option<StreamMode> {
        self.settings.inspection
    }

    /// Its versions in the order of the configuration.
    pub fn versions(&self) -> &[Arc<Version>] {
        &self.versions
    }

    /// The version of this name.
    pub fn version(&self, id: &str) -> Option<&Arc<Version>> {
        self.versions.iter().find(|v| v.id() == id)
    }

    fn new(parts: ModelParts, promoted: Option<&[Share]>, versions: Vec<Arc<Version>>) -> Self {
        let configured: Vec<(&str, u32)> = parts.versions.iter().map(|v| (v.id.as_str(), v.weight)).collect();
        let wanted: Vec<(&str, u32)> = match promoted {
            Some(shares) => shares.iter().map(|s| (s.version.as_str(), s.weight)).collect(),
            None => initial_shares(&configured),
        };
        let place = |id: &str| versions.iter().position(|v| v.id() == id);
        let serving =
            wanted.iter().filter(|(_, w)| *w > 0).filter_map(|(id, w)| Some((place(id)?, *w))).collect();
        let missing =
            wanted.iter().filter(|(id, _)| place(id).is_none()).map(|(id, _)| (*id).to_owned()).collect();
        Self { name: parts.name, settings: parts.settings, serving, missing, versions }
    }

    /// The version for a key, or for chance: each gets its share of keys, and when shares change only
    /// as many keys move as must (weighted rendezvous hashing).
    fn choose(&self, key: Option<&str>, chance: u64) -> Option<usize> {
        let score = |place: usize, weight: u32| {
            let version = self.versions.get(place).map_or("", |v| v.id());
            let point = match key {
                Some(key) => point(&[self.name.as_str(), version, key]),
                None => mix(chance ^ point(&[version])),
            };
            // -ln of a uniform number is exponential; divided by its weight, the least of them is each
            // version's with a chance of its share.
            let uniform = ((point >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            -uniform.ln() / f64::from(weight)
        };
        self.serving
            .iter()
            .map(|(place, weight)| (*place, score(*place, *weight)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(place, _)| place)
    }

    /// The chosen version and after it those that may stand in for it, each once.
    fn order(&self, chosen: usize) -> Vec<Arc<Version>> {
        let stand_ins: Vec<usize> = match &self.settings.fallback {
            Some(ids) => {
                ids.iter().filter_map(|id| self.versions.iter().position(|v| v.id() == id)).collect()
            }
            None => {
                let mut serving = self.serving.clone();
                serving.sort_by_key(|(place, weight)| (std::cmp::Reverse(*weight), *place));
                serving.into_iter().map(|(place, _)| place).collect()
            }
        };
        let mut order: Vec<usize> = Vec::with_capacity(stand_ins.len() + 1);
        for place in std::iter::once(chosen).chain(stand_ins) {
            if !order.contains(&place) {
                order.push(place);
            }
        }
        order.into_iter().filter_map(|place| self.versions.get(place).cloned()).collect()
    }

    fn share(&self, id: &str) -> u32 {
        let serves = |(place, _): &&(usize, u32)| self.versions.get(*place).is_some_and(|v| v.id() == id);
        self.serving.iter().find(serves).map_or(0, |(_, weight)| *weight)
    }
}

/// The shares of a route of which nothing was promoted: the weights of the configuration, and if it
/// gives none, all to the first version.
pub fn initial_shares<'v>(configured: &[(&'v str, u32)]) -> Vec<(&'v str, u32)> {
    if configured.iter().all(|(_, weight)| *weight == 0) {
        return configured.first().map(|(id, _)| (*id, 100)).into_iter().collect();
    }
    configured.iter().copied().filter(|(_, weight)| *weight > 0).collect()
}

/// 64 bits that follow from the texts.
fn point(texts: &[&str]) -> u64 {
    let mut bytes = Vec::new();
    for text in texts {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
    }
    let digest = digest(&SHA256, &bytes);
    digest.as_ref().first_chunk().map_or(0, |head| u64::from_be_bytes(*head))
}

/// Spreads 64 bits (the finaliser of SplitMix64).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Who asks, as far as it says which version fits.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The agent.
    pub agent: &'a AgentName,
    /// The run, or the conversation: one run keeps one version while that has a share.
    pub run: Option<&'a str>,
    /// The answer that this request goes on from, by its id, when the provider keeps the conversation
    /// (OpenAI's `previous_response_id`).
    pub continues: Option<&'a str>,
}

/// All routes of a gate.
pub struct Routes {
    table: ArcSwap<HashMap<ModelName, Arc<Route>>>,
    inputs: Mutex<Inputs>,
    continued: Continued,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    clock: fn() -> Timestamp,
    random: Random,
}

#[derive(Default)]
struct Inputs {
    parts: Vec<ModelParts>,
    promotions: Promotions,
}

impl Routes {
    /// Routes without any; `random` is any 64 bits each time.
    pub fn new(limits: Arc<Limits>, metrics: Arc<Metrics>, clock: fn() -> Timestamp, random: Random) -> Self {
        Self {
            table: ArcSwap::default(),
            inputs: Mutex::default(),
            continued: Continued::default(),
            limits,
            metrics,
            clock,
            random,
        }
    }

    /// Swaps the routes. A version that is as before keeps its connections and its breaker.
    pub fn replace(&self, parts: Vec<ModelParts>) {
        let mut inputs = self.inputs.lock();
        inputs.parts = parts;
        self.rebuild(&inputs);
    }

    /// Swaps what was promoted.
    pub fn promoted(&self, promotions: Promotions) {
        let mut inputs = self.inputs.lock();
        inputs.promotions = promotions;
        self.rebuild(&inputs);
    }

    fn rebuild(&self, inputs: &Inputs) {
        let old = self.table.load_full();
        let route = |parts: &ModelParts| {
            let known = old.get(&parts.name);
            let versions =
                parts.versions.iter().map(|version| self.version(known, &parts.name, version)).collect();
            let route = Route::new(parts.clone(), inputs.promotions.of(&parts.name), versions);
            if !route.missing.is_empty() {
                tracing::warn!(route = %route.name, versions = ?route.missing, "promoted and not configured");
            }
            (parts.name.clone(), Arc::new(route))
        };
        self.table.store(Arc::new(inputs.parts.iter().map(route).collect()));
    }

    fn version(&self, known: Option<&Arc<Route>>, route: &ModelName, parts: &VersionParts) -> Arc<Version> {
        match known.and_then(|route| route.version(&parts.id)) {
            Some(version) if version.fingerprint() == parts.fingerprint => version.clone(),
            _ => Arc::new(Version::new(parts.clone(), Health::new(self.metrics.model(route, &parts.id)))),
        }
    }

    /// The names of all routes, in order.
    pub fn names(&self) -> Vec<ModelName> {
        let mut names: Vec<ModelName> = self.table.load().keys().cloned().collect();
        names.sort();
        names
    }

    /// The route of this name.
    pub fn route(&self, name: &str) -> Option<Arc<Route>> {
        self.table.load().get(name).cloned()
    }

    /// Says which versions are asked, in which order.
    pub fn pick(&self, name: &ModelName, asker: &Asker<'_>) -> Result<Attempts, RouteError> {
        let unknown = || RouteError::Unknown { route: name.clone() };
        let route = self.table.load().get(name).cloned().ok_or_else(unknown)?;
        let candidates = match self.continued_at(&route, asker)? {
            // The conversation is kept by that provider, so no other could go on with it.
            Some(version) => vec![version],
            None => {
                let key = asker.run.map(|run| format!("{}\0{run}", asker.agent));
                let chosen = route.choose(key.as_deref(), (self.random)());
                let none = || RouteError::NoneServes { route: name.clone(), missing: route.missing.clone() };
                route.order(chosen.ok_or_else(none)?)
            }
        };
        let (limits, random) = (self.limits.clone(), self.random.clone());
        Ok(Attempts::new(route, candidates, limits, self.clock, random))
    }

    fn continued_at(&self, route: &Route, asker: &Asker<'_>) -> Result<Option<Arc<Version>>, RouteError> {
        let Some(answer) = asker.continues else { return Ok(None) };
        let Some(origin) = self.continued.find(answer) else { return Ok(None) };
        if origin.agent != *asker.agent {
            return Err(RouteError::ForeignConversation);
        }
        let here = origin.route == *route.name();
        Ok(route.version(&origin.version).filter(|_| here).cloned())
    }

    /// Remembers that this agent got the answer of this id from this version, for a request that goes on
    /// from it.
    pub fn gave(&self, agent: &AgentName, answer: &str, route: &ModelName, version: &Version) {
        self.continued.remember(answer, agent, route, version.id());
    }

    /// Shares and breakers, for the page of figures.
    pub(crate) fn show(&self, page: &mut Page) {
        let now = tokio::time::Instant::now().into_std();
        let table = self.table.load_full();
        let routes: BTreeMap<_, _> = table.iter().collect();
        for (name, route) in routes {
            for version in &route.versions {
                let labels = [("route", name.as_str()), ("version", version.id())];
                let help = "Weight of a version among those that serve; 0 serves only in another's stead.";
                page.gauge("castra_model_weight", help, &labels, f64::from(route.share(version.id())));
                let state = version.health.state(now);
                let help = "Whether a version is left alone: 0 closed (asked), 1 half-open (tried), 2 open (left alone).";
                page.gauge("castra_model_breaker_state", help, &labels, breaker_figure(state));
            }
        }
    }
}

fn breaker_figure(state: BreakerState) -> f64 {
    match state {
        BreakerState::Closed => 0.0,
        BreakerState::HalfOpen => 1.0,
        BreakerState::Open => 2.0,
    }
}

/// Why a route gives no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RouteError {
    /// No such route.
    #[error("there is no model {route}")]
    Unknown {
        /// As it was asked for.
        route: ModelName,
    },
    /// All that serves was taken out of the configuration.
    #[error("no version of the model {route} serves: {} was promoted and is not configured", missing.join(", "))]
    NoneServes {
        /// The route.
        route: ModelName,
        /// What was promoted.
        missing: Vec<String>,
    },
    /// The request goes on from an answer that another agent got.
    #[error("there is no such answer to go on from")]
    ForeignConversation,
    /// All versions failed so often lately that none is tried now.
    #[error("the versions of the model {route} failed again and again, so none is tried now")]
    Resting {
        /// The route.
        route: ModelName,
        /// When one is tried again, if that is known.
        retry_in: Option<Duration>,
    },
    /// Every attempt failed.
    #[error("the provider of model {route} (version {version}) {error}{}", tries_text(*tries))]
    Failed {
        /// The route.
        route: ModelName,
        /// The version that was tried last.
        version: String,
        /// How many attempts were made.
        tries: u32,
        /// How the last one failed.
        error: ProviderError,
        /// What the provider answered, if it did.
        answer: Option<Box<ProviderAnswer>>,
    },
}

fn tries_text(tries: u32) -> String {
    if tries > 1 { format!("; {tries} attempts were made") } else { String::new() }
}

impl RouteError {
    /// The refusal that the caller gets and the ledger keeps.
    pub fn refusal(&self) -> Refusal {
        let say = |code| Refusal::new(Step::Act, code, self.to_string());
        match self {
            Self::Unknown { .. } => Refusal::new(Step::Understand, RefusalCode::NotFound, self.to_string())
                .advise("GET /v1/models lists those there are"),
            Self::NoneServes { .. } => say(RefusalCode::UpstreamUnavailable)
                .advise("The operator promotes another version: castra model promote"),
            Self::ForeignConversation => {
                Refusal::new(Step::Understand, RefusalCode::NotFound, self.to_string())
            }
            Self::Resting { retry_in, .. } => {
                let refusal = say(RefusalCode::UpstreamUnavailable).advise("Try again later");
                match retry_in {
                    Some(wait) => refusal.retry_after(*wait),
                    None => refusal.retry_after(Duration::from_secs(1)),
                }
            }
            Self::Failed { error, .. } => {
                let refusal = say(error.code()).advise(error.advice());
                match error.retry_after() {
                    Some(wait) => refusal.retry_after(wait),
                    None => refusal,
                }
            }
        }
    }

    /// What the provider answered to the last attempt, if it was an error of its own.
    pub fn provider_answer(&self) -> Option<&ProviderAnswer> {
        match self {
            Self::Failed { answer, .. } => answer.as_deref(),
            _ => None,
        }
    }
}

/// Until when, from now.
pub(super) fn until(when: Instant, now: Instant) -> Duration {
    when.saturating_duration_since(now)
}
