//! What is counted: requests, tokens and money, together, in whole numbers that never wrap.

use serde::Serialize;

/// A unit that a budget can limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Calls.
    Requests,
    /// Tokens, those of the request and those of the answer.
    Tokens,
    /// Millionths of the price table's currency.
    Money,
}

impl Unit {
    /// Every unit, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Requests, Self::Tokens, Self::Money];

    /// The word that configuration, metrics and messages use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Money => "money",
        }
    }
}

/// An amount of each unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Amounts {
    /// Calls.
    pub requests: u64,
    /// Tokens, those of the request and those of the answer.
    pub tokens: u64,
    /// Millionths of the price table's currency.
    pub money: u64,
}

impl Amounts {
    /// One request and nothing else.
    pub const REQUEST: Self = Self { requests: 1, tokens: 0, money: 0 };

    /// The amount of one unit.
    pub fn of(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => self.requests,
            Unit::Tokens => self.tokens,
            Unit::Money => self.money,
        }
    }

    /// Applies a function to each unit, with the amount of the same unit of `other`.
    pub(crate) fn with(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            requests: f(self.requests, other.requests),
            tokens: f(self.tokens, other.tokens),
            money: f(self.money, other.money),
        }
    }

    /// The sum. Stops at the largest number: an amount that large is over every limit, which is the
    /// safe side.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// The difference. Stops at zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    /// The larger of each unit.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        self.with(other, u64::max)
    }

    /// The smaller of each unit.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        self.with(other, u64::min)
    }

    /// Whether each unit is within that of `other`.
    pub fn within(&self, other: &Self) -> bool {
        Unit::ALL.iter().all(|unit| self.of(*unit) <= other.of(*unit))
    }
}

/// A limit for some of the units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// Calls, at most.
    pub requests: Option<u64>,
    /// Tokens, at most.
    pub tokens: Option<u64>,
    /// Millionths of the price table's currency, at most.
    pub money: Option<u64>,
}

impl Limit {
    /// The limit of one unit, if it has one.
    pub fn of(&self, unit: Unit) -> Option<u64> {
        match unit {
            Unit::Requests => self.requests,
            Unit::Tokens => self.tokens,
            Unit::Money => self.money,
        }
    }

    /// The units that are limited, each with its limit.
    pub fn units(&self) -> impl Iterator<Item = (Unit, u64)> {
        let limit = *self;
        Unit::ALL.into_iter().filter_map(move |unit| Some((unit, limit.of(unit)?)))
    }
}

/// Millionths as people write money: `12.34`, with at least two places and no zeros after them.
pub fn money_text(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let kept = text.trim_end_matches('0').len();
    let two_places = text.len() - 4;
    text.get(..kept.max(two_places)).unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_stop_at_the_ends() {
        let most = Amounts { requests: u64::MAX, tokens: 1, money: 0 };
        let sum = most.plus(Amounts { requests: 1, tokens: 2, money: 3 });
        assert_eq!(sum, Amounts { requests: u64::MAX, tokens: 3, money: 3 });
        assert_eq!(Amounts::REQUEST.minus(most), Amounts::default());
        assert!(Amounts::REQUEST.within(&most) && !most.within(&Amounts::REQUEST));
    }

    #[test]
    fn money_is_written_as_people_do() {
        for (micros, text) in
            [(0, "0.00"), (12_340_000, "12.34"), (5_000_000, "5.00"), (1_500, "0.0015"), (1, "0.000001")]
        {
            assert_eq!(money_text(micros), text);
        }
    }
}
