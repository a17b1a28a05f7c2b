//! The attempts of one call: the chosen version first, others in its stead when it gives no answer,
//! the same again after a while when nobody else is left. Ends with the first byte of an answer; from
//! there on nothing is tried again, because the caller may have seen it.

use std::{sync::Arc, time::Duration};

use castra_core::{Limits, Timestamp};
use http::{HeaderMap, response};
use tokio::time::Instant;

use super::{
    health::Running,
    provider::{ProviderAnswer, ProviderBody, ProviderError, Wire},
    routes::{Route, RouteError, until},
    version::Version,
};
use crate::upstream::Random;

/// The first wait before the same version is asked again; it doubles with each failure.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait of our own.
const LAST_WAIT: Duration = Duration::from_secs(8);

/// What is asked, in which order.
pub struct Attempts {
    route: Arc<Route>,
    candidates: Vec<Arc<Version>>,
    limits: Arc<Limits>,
    clock: fn() -> Timestamp,
    random: Random,
}

/// Why a call got no answer.
#[derive(Debug)]
pub enum AskError<E> {
    /// The request cannot be made into one for the chosen version.
    Prepare(E),
    /// No provider answered.
    Route(RouteError),
}

/// An answer, from its first byte on.
#[derive(Debug)]
pub struct Answered {
    /// The version that gave it.
    pub version: Arc<Version>,
    /// Its head, as the provider sent it.
    pub head: response::Parts,
    /// Its body; the first bytes are there.
    pub body: ProviderBody,
    /// How many attempts it took.
    pub tries: u32,
    running: Running,
}

impl Answered {
    /// The answer turned out to be none after it began: HTML, half an event, a broken connection.
    /// That counts against the version like any failure.
    pub fn failed(&self, error: &ProviderError) {
        self.running.failed(error, Instant::now().into_std());
    }

    /// Takes the answer apart, with what a failure is told to.
    pub fn into_parts(self) -> (Arc<Version>, response::Parts, ProviderBody, Afterwards) {
        (self.version, self.head, self.body, Afterwards(self.running))
    }
}

/// Where it is told how an answer went on after its first byte.
#[derive(Debug)]
pub struct Afterwards(Running);

impl Afterwards {
    /// As [`Answered::failed`].
    pub fn failed(&self, error: &ProviderError) {
        self.0.failed(error, Instant::now().into_std());
    }
}

/// One version within the attempts of a call.
struct Candidate {
    version: Arc<Version>,
    wire: Option<Wire>,
    failures: u32,
    /// Not before this; none: not again within this call.
    next: Option<Instant>,
}

/// How the last attempt failed.
struct Failure {
    version: String,
    error: ProviderError,
    answer: Option<Box<ProviderAnswer>>,
}

impl Attempts {
    pub(super) fn new(
        route: Arc<Route>,
        candidates: Vec<Arc<Version>>,
        limits: Arc<Limits>,
        clock: fn() -> Timestamp,
        random: Random,
    ) -> Self {
        Self { route, candidates, limits, clock, random }
    }

    /// The route.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// The versions that may be asked, the chosen one first.
    pub fn candidates(&self) -> &[Arc<Version>] {
        &self.candidates
    }

    /// Asks until one answers, the attempts or the time are used up, or nobody is left. `prepare` makes
    /// the request for a version; it is called once for each that is tried. Dropping the future ends
    /// the exchange that is under way.
    pub async fn ask<E>(
        self,
        headers: &HeaderMap,
        stream: bool,
        mut prepare: impl FnMut(&Version) -> Result<Wire, E>,
    ) -> Result<Answered, AskError<E>> {
        let settings = &self.route.settings;
        let start = Instant::now();
        // Whatever a route takes for itself, no call outlasts the limit of all calls.
        let deadline = start + settings.timeout.min(self.limits.call_time_max);
        let mut candidates: Vec<Candidate> = self
            .candidates
            .iter()
            .map(|version| Candidate { version: version.clone(), wire: None, failures: 0, next: Some(start) })
            .collect();
        let (mut tries, mut last, mut rested) = (0, None::<Failure>, None::<Duration>);
        while tries <= settings.retries {
            let Some(place) =
                soonest(&candidates).filter(|(_, next)| *next < deadline).map(|(place, _)| place)
            else {
                break;
            };
            let Some(candidate) = candidates.get_mut(place) else { break };
            // A timer that is due already still waits for the clock's next millisecond.
            if let Some(next) = candidate.next.filter(|next| *next > Instant::now()) {
                tokio::time::sleep_until(next).await;
            }
            if candidate.wire.is_none() {
                match prepare(&candidate.version) {
                    Ok(wire) => candidate.wire = Some(wire),
                    Err(error) if place == 0 => return Err(AskError::Prepare(error)),
                    // What the chosen version can do, this one cannot.
                    Err(_) => {
                        candidate.next = None;
                        continue;
                    }
                }
            }
            let Some(wire) = &candidate.wire else { break };
            let version = &candidate.version;
            let sent = Instant::now();
            let trial = match version.health.admit(sent.into_std(), settings.breaker) {
                Ok(trial) => trial,
                Err(resting) => {
                    let wait = resting.until.map(|when| until(when, sent.into_std()));
                    rested = rested.into_iter().chain(wait).min();
                    candidate.next = None;
                    continue;
                }
            };
            tries += 1;
            let left = deadline.saturating_duration_since(sent);
            let patience = version.timeout().map_or(left, |own| own.min(left));
            let running = Running::of(&trial);
            let idle = self.limits.stream_idle_max;
            match version.endpoint.ask(wire, headers, stream, patience, idle, self.clock).await {
                Ok(response) => {
                    trial.answered(sent.elapsed());
                    let (head, body) = response.into_parts();
                    return Ok(Answered { version: version.clone(), head, body, tries, running });
                }
                Err((error, answer)) => {
                    trial.failed(&error, Instant::now().into_std());
                    tracing::debug!(route = %self.route.name(), version = version.id(), %error, "an attempt failed");
                    candidate.failures += 1;
                    candidate.next =
                        again(candidate.failures, &error, settings.retry_after_max, (self.random)());
                    last = Some(Failure { version: version.id().to_owned(), error, answer });
                }
            }
        }
        Err(AskError::Route(self.gave_up(tries, last, rested)))
    }

    fn gave_up(&self, tries: u32, last: Option<Failure>, rested: Option<Duration>) -> RouteError {
        let route = self.route.name().clone();
        match last {
            Some(Failure { version, error, answer }) => {
                RouteError::Failed { route, version, tries, error, answer }
            }
            None => RouteError::Resting { route, retry_in: rested },
        }
    }
}

/// Who is asked next and when: those that were not asked yet in their order, then who may be asked
/// again soonest.
fn soonest(candidates: &[Candidate]) -> Option<(usize, Instant)> {
    let open = candidates.iter().enumerate().filter_map(|(place, c)| Some((place, c.failures, c.next?)));
    let next = open.min_by_key(|(place, failures, next)| (*failures > 0, *next, *place));
    next.map(|(place, _, next)| (place, next))
}

/// When a version that failed may be asked again within the call; none: not at all.
fn again(failures: u32, error: &ProviderError, retry_after_max: Duration, random: u64) -> Option<Instant> {
    if !error.passes() {
        return None;
    }
    let own = own_wait(failures, random);
    let wait = match error.retry_after() {
        Some(wish) if wish > retry_after_max => return None,
        Some(wish) => wish.max(own),
        None => own,
    };
    Some(Instant::now() + wait)
}

/// Between half and all of a step that doubles.
fn own_wait(failures: u32, random: u64) -> Duration {
    let step = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LAST_WAIT);
    step.mul_f64(0.5 + (random >> 11) as f64 / (1_u64 << 54) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_with_jitter() {
        assert_eq!([1, 2, 3, 20].map(|n| own_wait(n, u64::MAX).as_millis()), [250, 500, 1000, 8000]);
        assert_eq!(own_wait(2, 0), Duration::from_millis(250));
    }

    #[tokio::test(start_paused = true)]
    async fn a_providers_wish_counts_within_bounds() {
        let limited = |secs| ProviderError::Status {
            status: http::StatusCode::TOO_MANY_REQUESTS,
            retry_after: Some(Duration::from_secs(secs)),
        };
        let max = Duration::from_secs(10);
        let wait = |error: &ProviderError| again(1, error, max, 0).map(|at| at - Instant::now());
        assert_eq!(wait(&limited(7)), Some(Duration::from_secs(7)));
        assert_eq!(wait(&limited(0)), Some(Duration::from_millis(125)));
        assert_eq!(wait(&limited(11)), None);
        assert_eq!(wait(&ProviderError::Empty), Some(Duration::from_millis(125)));
        assert_eq!(wait(&ProviderError::KeyRefused(http::StatusCode::UNAUTHORIZED)), None);
    }
}
