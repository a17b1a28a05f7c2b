//! When a server that failed is tried again: exponential, with jitter, so that neither it nor the
//! gate is worn out and several gates do not come at once.

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{UpstreamError, error::shown};

/// The first wait; it doubles with each failure.
const FIRST: Duration = Duration::from_millis(250);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);
/// A wait this short is waited for; a longer one is an error at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// A process that lived this long and then ended did not fail to start.
const HEALTHY: Duration = Duration::from_secs(10);

/// Random 64 bits, handed in.
pub type Random = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How starting a server fares, shared by all of its sessions.
#[derive(Clone)]
pub(super) struct Health {
    backoff: Arc<Backoff>,
    random: Random,
}

impl Health {
    pub(super) fn new(random: Random) -> Self {
        Self { backoff: Arc::default(), random }
    }

    /// Waits until an attempt may be made, or says when it may.
    pub(super) async fn admit(&self) -> Result<(), UpstreamError> {
        self.backoff.admit().await
    }

    pub(super) fn failed(&self, error: &UpstreamError) {
        self.backoff.failed(error, (self.random)());
    }

    pub(super) fn succeeded(&self) {
        self.backoff.succeeded();
    }

    /// A process ended by itself after this time.
    pub(super) fn ended(&self, lived: Duration, error: &UpstreamError) {
        if lived >= HEALTHY {
            self.succeeded();
        } else {
            self.failed(error);
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.backoff.fmt(f)
    }
}

/// Failures in a row and what follows from them.
#[derive(Debug, Default)]
struct Backoff(Mutex<Option<Failing>>);

#[derive(Debug, Clone)]
struct Failing {
    failures: u32,
    not_before: Instant,
    last: Arc<str>,
}

impl Backoff {
    /// Waits until an attempt may be made, or says when it may.
    async fn admit(&self) -> Result<(), UpstreamError> {
        let Some(failing) = self.0.lock().clone() else { return Ok(()) };
        let retry_in = failing.not_before.saturating_duration_since(Instant::now());
        if retry_in > PATIENCE {
            let Failing { failures, last, .. } = failing;
            return Err(UpstreamError::BackingOff { failures, retry_in, last });
        }
        tokio::time::sleep(retry_in).await;
        Ok(())
    }

    /// Notes a failure. `random` is any 64 bits.
    fn failed(&self, error: &UpstreamError, random: u64) {
        let mut state = self.0.lock();
        let failures = state.as_ref().map_or(1, |f| f.failures.saturating_add(1));
        let wait = wait(failures, random);
        *state =
            Some(Failing { failures, not_before: Instant::now() + wait, last: shown(&error.to_string()) });
    }

    /// Forgets all failures.
    fn succeeded(&self) {
        *self.0.lock() = None;
    }
}

/// The wait after so many failures: between half and all of its step.
fn wait(failures: u32, random: u64) -> Duration {
    let step = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST);
    step.mul_f64(0.5 + (random >> 11) as f64 / (1_u64 << 54) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_with_jitter() {
        let longest = [1, 2, 3, 20].map(|n| wait(n, u64::MAX).as_millis());
        assert_eq!(longest, [250, 500, 1000, 30_000]);
        assert_eq!(wait(2, 0), Duration::from_millis(250));
    }

    #[tokio::test]
    async fn a_long_wait_is_an_error_and_success_forgets() {
        let backoff = Backoff::default();
        backoff.admit().await.unwrap();
        for _ in 0..5 {
            backoff.failed(&UpstreamError::EndedEarly, u64::MAX);
        }
        let error = backoff.admit().await.unwrap_err().to_string();
        assert!(error.starts_with("failed 5 times in a row, last: it ended the stream"), "{error}");
        backoff.succeeded();
        backoff.admit().await.unwrap();
    }
}
