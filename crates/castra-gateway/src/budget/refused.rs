//! Why a budget refused a call, in words that say how much is used and when it works again.

use std::{fmt, sync::Arc, time::Duration};

use castra_core::{Refusal, RefusalCode, Step, Timestamp};

use super::{
    amounts::{Unit, money_text},
    ledger::{Refused, UsedUp},
};

/// Why a call may not happen now. Its text may be shown to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OverBudget {
    /// A budget has too little left.
    UsedUp {
        /// What it has, and what was asked.
        account: Box<UsedUp>,
        /// When it was asked.
        now: Timestamp,
        /// What money is counted in.
        currency: Arc<str>,
    },
    /// A budget limits money, and what the call will cost is not known.
    Unpriced {
        /// The budget.
        budget: Arc<str>,
    },
    /// There are as many accounts as there may be.
    TooManyAccounts,
    /// What was spent cannot be written down.
    Unwritten {
        /// Why not; for operators.
        why: Arc<str>,
    },
    /// The gate is going down.
    Closed,
}

impl OverBudget {
    pub(super) fn new(refused: Refused, now: Timestamp, currency: &Arc<str>) -> Self {
        match refused {
            Refused::UsedUp(account) => Self::UsedUp { account, now, currency: currency.clone() },
            Refused::Unpriced { budget } => Self::Unpriced { budget },
            Refused::TooManyAccounts => Self::TooManyAccounts,
        }
    }

    /// The budget that refused.
    pub fn budget(&self) -> Option<&Arc<str>> {
        match self {
            Self::UsedUp { account, .. } => Some(&account.budget),
            Self::Unpriced { budget } => Some(budget),
            Self::TooManyAccounts | Self::Unwritten { .. } | Self::Closed => None,
        }
    }

    /// After how long the same call may pass; none where that is not known, or it never will.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::UsedUp { account, now, .. } => account.until.map(|until| wait(*now, until)),
            Self::Unpriced { .. } | Self::TooManyAccounts | Self::Unwritten { .. } | Self::Closed => None,
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::UsedUp { account, now, currency } => {
                let resets = format!("{} (in {})", seconds(account.resets), waiting(wait(*now, account.resets)));
                match account.until {
                    None => format!(
                        "It will never fit: ask for less (a shorter request or answer), or have the budget raised to at least {}",
                        amount(account.unit, account.asked, currency)
                    ),
                    Some(until) if until < account.resets => format!(
                        "Calls in flight hold what is missing, so try again in a moment; the budget begins anew at {resets}"
                    ),
                    Some(_) => format!("It works again at {resets}"),
                }
            }
            Self::Unpriced { .. } => "Add the model to the price table ([budgets] prices), or let models without a price pass ([budgets] unknown_price = \"allow\")".into(),
            Self::TooManyAccounts => "Accounts of windows that are over go away by themselves".into(),
            Self::Unwritten { .. } => "The gate's log says why; the operator of the gate must look at its disk".into(),
            Self::Closed => String::new(),
        }
    }
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UsedUp { account: a, currency, .. } => {
                let number = |n| number(a.unit, n);
                let limit = amount(a.unit, a.limit, currency);
                write!(f, "budget {} ({}", a.budget, a.covers)?;
                if let Some(agent) = &a.agent {
                    write!(f, "; the account of {agent}")?;
                }
                write!(f, "): {} of {limit} for this {} are used", number(a.spent), a.per.as_str())?;
                if a.held > 0 {
                    write!(f, ", {} are held by calls in flight", number(a.held))?;
                }
                write!(f, ", and this call may take {}", number(a.asked))
            }
            Self::Unpriced { budget } => write!(
                f,
                "budget {budget} limits money, and the price of a model that may answer this call is not known"
            ),
            Self::TooManyAccounts => f.write_str("there are too many budget accounts at once"),
            Self::Unwritten { .. } => f.write_str(
                "what is spent of the budgets that cover this call cannot be written down, so it may not happen",
            ),
            Self::Closed => f.write_str("the gate is shutting down"),
        }
    }
}

impl std::error::Error for OverBudget {}

impl From<OverBudget> for Refusal {
    fn from(over: OverBudget) -> Self {
        let code = match &over {
            OverBudget::UsedUp { .. } | OverBudget::Unpriced { .. } => RefusalCode::OverBudget,
            OverBudget::TooManyAccounts => RefusalCode::LimitReached,
            OverBudget::Unwritten { .. } => RefusalCode::Unrecorded,
            OverBudget::Closed => RefusalCode::ShuttingDown,
        };
        let refusal = Self::new(Step::Decide, code, over.to_string()).advise(over.advice());
        match over.retry_after() {
            Some(wait) => refusal.retry_after(wait),
            None => refusal,
        }
    }
}

fn wait(now: Timestamp, until: Timestamp) -> Duration {
    Duration::from_micros(u64::try_from(until.0.saturating_sub(now.0)).unwrap_or(0))
}

fn amount(unit: Unit, n: u64, currency: &str) -> String {
    let unit_text = if unit == Unit::Money { currency } else { unit.as_str() };
    format!("{} {unit_text}", number(unit, n))
}

fn number(unit: Unit, n: u64) -> String {
    if unit == Unit::Money { money_text(n) } else { n.to_string() }
}

/// A time without its fraction of a second.
fn seconds(time: Timestamp) -> String {
    let text = time.to_string();
    match text.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => text,
    }
}

/// A wait in its two largest units: `3 h 12 min`.
fn waiting(wait: Duration) -> String {
    let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let (days, hours, minutes) = (secs / 86_400, secs / 3_600 % 24, secs / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs} s"),
        (0, 0, _) => format!("{minutes} min {} s", secs % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}
