//! How a version fares: its breaker and its figures, together, so that neither is forgotten.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    breaker::{Breaker, BreakerSettings, BreakerState, Resting, Ticket},
    provider::ProviderError,
};
use crate::metrics::ModelMetrics;

/// The health of one version, shared by all calls that it gets.
#[derive(Clone)]
pub(super) struct Health {
    breaker: Arc<Mutex<Breaker>>,
    metrics: Arc<ModelMetrics>,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.breaker.lock().fmt(f)
    }
}

impl Health {
    pub(super) fn new(metrics: Arc<ModelMetrics>) -> Self {
        Self { breaker: Arc::default(), metrics }
    }

    /// Asks whether a call may go out now. What is given has to be told how it went; dropped, it says
    /// that the call was given up.
    pub(super) fn admit(&self, now: Instant, settings: BreakerSettings) -> Result<Trial, Resting> {
        let ticket = self.breaker.lock().admit(now)?;
        self.metrics.sent();
        Ok(Trial { health: self.clone(), settings, ticket: Some(ticket) })
    }

    /// An answer used so many tokens.
    pub(super) fn used(&self, input_tokens: u64, output_tokens: u64) {
        self.metrics.used(input_tokens, output_tokens);
    }

    pub(super) fn state(&self, now: Instant) -> BreakerState {
        self.breaker.lock().state(now)
    }
}

/// A call that was let through and has not been answered.
#[derive(Debug)]
pub(super) struct Trial {
    health: Health,
    settings: BreakerSettings,
    ticket: Option<Ticket>,
}

impl Trial {
    /// Its answer began after this time.
    pub(super) fn answered(mut self, after: Duration) {
        self.health.metrics.answered(after);
        if let Some(ticket) = self.ticket.take() {
            self.health.breaker.lock().succeeded(ticket);
        }
    }

    /// It was not answered.
    pub(super) fn failed(mut self, error: &ProviderError, now: Instant) {
        self.health.metrics.failed(error.kind());
        if let Some(ticket) = self.ticket.take() {
            self.health.breaker.lock().failed(ticket, now, error.retry_after(), &self.settings);
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.health.breaker.lock().abandoned(ticket);
        }
    }
}

/// An answer that began, and whose end is still to be seen.
#[derive(Debug, Clone)]
pub(super) struct Running {
    health: Health,
    settings: BreakerSettings,
}

impl Running {
    pub(super) fn of(trial: &Trial) -> Self {
        Self { health: trial.health.clone(), settings: trial.settings }
    }

    /// It turned out to be no good: that counts like a failed call.
    pub(super) fn failed(&self, error: &ProviderError, now: Instant) {
        self.health.metrics.failed(error.kind());
        let mut breaker = self.health.breaker.lock();
        // Not in place of a probe: an answer that began long ago says little of the provider now.
        if breaker.state(now) == BreakerState::Closed
            && let Ok(ticket) = breaker.admit(now)
        {
            breaker.failed(ticket, now, None, &self.settings);
        }
    }
}
