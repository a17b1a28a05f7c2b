//! Why an action did not happen, in a form that is recorded and shown alike.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// The step of the path that refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Connection, transport, size.
    Listen,
    /// Who is it?
    Identify,
    /// What is meant?
    Understand,
    /// May it happen?
    Decide,
    /// Writing it down.
    Record,
    /// Doing it.
    Act,
    /// Giving the result back.
    Answer,
}

impl Step {
    /// The word that records use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::Identify => "identify",
            Self::Understand => "understand",
            Self::Decide => "decide",
            Self::Record => "record",
            Self::Act => "act",
            Self::Answer => "answer",
        }
    }
}

/// The kind of a refusal. Adapters turn it into their protocol's own error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalCode {
    /// No credential was shown.
    Unauthenticated,
    /// A credential was shown and is not good (unknown, expired, revoked, foreign).
    BadCredential,
    /// The credential lacks a scope.
    InsufficientScope,
    /// Host or Origin header of another site (DNS rebinding).
    ForeignOrigin,
    /// The bytes are not a message of the protocol.
    Malformed,
    /// Headers and body say different things.
    HeaderMismatch,
    /// The protocol revision is not spoken here.
    UnsupportedVersion,
    /// No such path, server, tool, session or method.
    NotFound,
    /// Not in this way (HTTP method, content type).
    NotAllowedHere,
    /// A limit was reached: size, depth, count.
    LimitReached,
    /// Too many at once; later it may pass.
    Busy,
    /// A budget or rate that covers it is used up.
    OverBudget,
    /// Policy says no.
    Denied,
    /// A person has to say yes first.
    ApprovalRequired,
    /// It could not be decided, so it is denied.
    Undecided,
    /// It could not be recorded, so it is denied.
    Unrecorded,
    /// The upstream could not be reached or died.
    UpstreamUnavailable,
    /// The upstream answered something that is not an answer.
    UpstreamMisbehaved,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The caller went away or took it back.
    Cancelled,
    /// The gate is going down.
    ShuttingDown,
}

impl RefusalCode {
    /// The word that records and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::BadCredential => "bad-credential",
            Self::InsufficientScope => "insufficient-scope",
            Self::ForeignOrigin => "foreign-origin",
            Self::Malformed => "malformed",
            Self::HeaderMismatch => "header-mismatch",
            Self::UnsupportedVersion => "unsupported-version",
            Self::NotFound => "not-found",
            Self::NotAllowedHere => "not-allowed-here",
            Self::LimitReached => "limit-reached",
            Self::Busy => "busy",
            Self::OverBudget => "over-budget",
            Self::Denied => "denied",
            Self::ApprovalRequired => "approval-required",
            Self::Undecided => "undecided",
            Self::Unrecorded => "unrecorded",
            Self::UpstreamUnavailable => "upstream-unavailable",
            Self::UpstreamMisbehaved => "upstream-misbehaved",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::Cancelled => "cancelled",
            Self::ShuttingDown => "shutting-down",
        }
    }
}

/// What happened, why, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where on the path.
    pub step: Step,
    /// What kind.
    pub code: RefusalCode,
    /// Why, in one sentence that may be shown to the caller: no secrets, no content of others.
    pub reason: String,
    /// What the caller or operator can do; may be empty.
    pub advice: String,
    /// After how long the same may pass, where that is known (RFC 9110, section 10.2.3, `Retry-After`).
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal with its reason.
    pub fn new(step: Step, code: RefusalCode, reason: impl Into<String>) -> Self {
        Self { step, code, reason: reason.into(), advice: String::new(), retry_after: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    /// Adds after how long the same may pass.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// [`Self::retry_after`] in whole seconds, rounded up and at least one, as the header takes it.
    pub fn retry_secs(&self) -> Option<u64> {
        let wait = self.retry_after?;
        let begun = u64::from(wait.subsec_nanos() > 0);
        Some(wait.as_secs().saturating_add(begun).max(1))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        if !self.advice.is_empty() {
            write!(f, ". {}", self.advice)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_rounded_up_to_whole_seconds() {
        let refusal = Refusal::new(Step::Decide, RefusalCode::OverBudget, "used up");
        assert_eq!(refusal.retry_secs(), None);
        for (millis, secs) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (3_600_000, 3600)] {
            let refusal = refusal.clone().retry_after(Duration::from_millis(millis));
            assert_eq!(refusal.retry_secs(), Some(secs), "{millis} ms");
        }
    }
}
