//! The circuit breaker of one version of a model route: after failures in a row nothing is sent for a
//! while, then one call tries whether it works again. A pure state machine; the time is handed in.

use std::time::{Duration, Instant};

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that open it; at least 1.
    pub failures: u32,
    /// How long it stays open, if the provider does not say when to come back.
    pub rest: Duration,
    /// The longest that a provider's own word keeps it open.
    pub rest_max: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { failures: 5, rest: Duration::from_secs(30), rest_max: Duration::from_secs(300) }
    }
}

/// What a breaker does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Lets all through.
    Closed,
    /// Lets one through, to see whether it works again.
    HalfOpen,
    /// Lets none through.
    Open,
}

impl BreakerState {
    /// The word that people read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// The breaker.
#[derive(Debug, Default)]
pub struct Breaker {
    phase: Phase,
    /// Counts changes of phase: the verdict of a call that was let through in an earlier one is late
    /// and says nothing about this one.
    generation: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { probing: bool },
}

impl Default for Phase {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// A call was let through. What became of it is told with it, once.
#[derive(Debug)]
#[must_use = "a probe that is never concluded keeps the breaker half-open"]
pub struct Ticket(u64);

/// No call is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resting {
    /// When to ask again; none while another call tries whether it works.
    pub until: Option<Instant>,
}

impl Breaker {
    /// Asks whether a call may go out now.
    pub fn admit(&mut self, now: Instant) -> Result<Ticket, Resting> {
        match self.phase {
            Phase::Closed { .. } => Ok(Ticket(self.generation)),
            Phase::Open { until } if now < until => Err(Resting { until: Some(until) }),
            Phase::HalfOpen { probing: true } => Err(Resting { until: None }),
            Phase::Open { .. } | Phase::HalfOpen { probing: false } => {
                self.enter(Phase::HalfOpen { probing: true });
                Ok(Ticket(self.generation))
            }
        }
    }

    /// The call was answered.
    pub fn succeeded(&mut self, ticket: Ticket) {
        if ticket.0 != self.generation {
            return;
        }
        match &mut self.phase {
            Phase::Closed { failures } => *failures = 0,
            Phase::HalfOpen { .. } => self.enter(Phase::default()),
            Phase::Open { .. } => {}
        }
    }

    /// The call failed; `wish` is when the provider wants to be asked again, if it said so.
    pub fn failed(
        &mut self,
        ticket: Ticket,
        now: Instant,
        wish: Option<Duration>,
        settings: &BreakerSettings,
    ) {
        if ticket.0 != self.generation {
            return;
        }
        let opens = match &mut self.phase {
            Phase::Closed { failures } => {
                *failures = failures.saturating_add(1);
                *failures >= settings.failures
            }
            Phase::HalfOpen { .. } => true,
            Phase::Open { .. } => false,
        };
        if opens {
            let rest = wish.map_or(settings.rest, |wish| wish.min(settings.rest_max).max(settings.rest));
            self.enter(Phase::Open { until: now + rest });
        }
    }

    /// The call was given up by its caller and says nothing.
    pub fn abandoned(&mut self, ticket: Ticket) {
        if ticket.0 == self.generation && self.phase == (Phase::HalfOpen { probing: true }) {
            self.phase = Phase::HalfOpen { probing: false };
        }
    }

    /// What it does with calls now.
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { until } if now < until => BreakerState::Open,
            Phase::Open { .. } | Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation = self.generation.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: BreakerSettings =
        BreakerSettings { failures: 3, rest: Duration::from_secs(10), rest_max: Duration::from_secs(60) };

    fn fail(breaker: &mut Breaker, now: Instant, wish: Option<u64>) {
        let ticket = breaker.admit(now).expect("let through");
        breaker.failed(ticket, now, wish.map(Duration::from_secs), &SETTINGS);
    }

    #[test]
    fn it_opens_rests_probes_and_closes() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        fail(&mut breaker, start, None);
        fail(&mut breaker, start, None);
        let good = breaker.admit(start).expect("closed");
        breaker.succeeded(good);
        for _ in 0..3 {
            fail(&mut breaker, start, None);
        }
        assert_eq!(breaker.admit(at(9)).unwrap_err(), Resting { until: Some(at(10)) });
        let probe = breaker.admit(at(10)).expect("a probe");
        assert_eq!(breaker.admit(at(11)).unwrap_err(), Resting { until: None });
        breaker.failed(probe, at(11), Some(Duration::from_secs(3600)), &SETTINGS);
        assert_eq!(breaker.admit(at(12)).unwrap_err(), Resting { until: Some(at(71)) }, "within bounds");
        let lost = breaker.admit(at(71)).expect("a probe");
        breaker.abandoned(lost);
        let probe = breaker.admit(at(71)).expect("another probe, since the first said nothing");
        breaker.succeeded(probe);
        assert_eq!(breaker.state(at(71)), BreakerState::Closed);
    }

    #[test]
    fn late_verdicts_say_nothing() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        let (early, late) = (breaker.admit(start).unwrap(), breaker.admit(start).unwrap());
        for _ in 0..3 {
            fail(&mut breaker, start, None);
        }
        breaker.succeeded(early);
        assert_eq!(breaker.state(start), BreakerState::Open);
        breaker.failed(late, start + Duration::from_secs(9), None, &SETTINGS);
        assert!(breaker.admit(start + Duration::from_secs(10)).is_ok(), "its rest was not made longer");
    }

    #[derive(Debug, Clone)]
    enum Event {
        Pass(u64),
        Ask,
        /// Concludes one of the calls under way: which, and how.
        Conclude(usize, Verdict),
    }

    #[derive(Debug, Clone, Copy)]
    enum Verdict {
        Good,
        Bad(Option<u64>),
        Given,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let verdict = prop_oneof![
            Just(Verdict::Good),
            proptest::option::of(0_u64..100).prop_map(Verdict::Bad),
            proptest::option::of(0_u64..100).prop_map(Verdict::Bad),
            Just(Verdict::Given),
        ];
        let event = prop_oneof![
            (0_u64..20).prop_map(Event::Pass),
            Just(Event::Ask),
            Just(Event::Ask),
            (any::<usize>(), verdict).prop_map(|(which, how)| Event::Conclude(which, how)),
        ];
        proptest::collection::vec(event, 0..80)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn it_never_floods_and_never_sticks(events in events()) {
            let mut breaker = Breaker::default();
            let mut now = Instant::now();
            let mut under_way: Vec<(Ticket, BreakerState)> = Vec::new();
            for event in events {
                let before = breaker.state(now);
                match event {
                    Event::Pass(secs) => now += Duration::from_secs(secs),
                    Event::Ask => match breaker.admit(now) {
                        Ok(ticket) => {
                            prop_assert_ne!(before, BreakerState::Open);
                            under_way.push((ticket, before));
                        }
                        Err(resting) => {
                            prop_assert_ne!(before, BreakerState::Closed);
                            // It never rests longer than the longest rest.
                            if let Some(until) = resting.until {
                                prop_assert!(until > now && until <= now + SETTINGS.rest_max);
                            }
                        }
                    },
                    Event::Conclude(which, how) if !under_way.is_empty() => {
                        let (ticket, _) = under_way.swap_remove(which % under_way.len());
                        match how {
                            Verdict::Good => breaker.succeeded(ticket),
                            Verdict::Bad(wish) => {
                                breaker.failed(ticket, now, wish.map(Duration::from_secs), &SETTINGS);
                            }
                            Verdict::Given => breaker.abandoned(ticket),
                        }
                        // Only a probe's success closes it.
                        if before == BreakerState::Open {
                            prop_assert_ne!(breaker.state(now), BreakerState::Closed);
                        }
                    }
                    Event::Conclude(..) => {}
                }
                // One probe at a time: those before it were of another generation.
                let probes = under_way
                    .iter()
                    .filter(|(ticket, state)| *state == BreakerState::HalfOpen && ticket.0 == breaker.generation)
                    .count();
                prop_assert!(probes <= 1);
            }
            // Once everything under way has ended and the rest is over, a call is let through.
            for (ticket, _) in under_way {
                breaker.abandoned(ticket);
            }
            prop_assert!(breaker.admit(now + SETTINGS.rest_max).is_ok());
        }
    }
}
