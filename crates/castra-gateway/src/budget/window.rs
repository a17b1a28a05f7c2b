//! The windows of time that budgets count in: minutes, hours, days and months of UTC.

use castra_core::Timestamp;
use serde::Serialize;

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// How long a budget counts before it begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// From second 0 to second 59 of a minute: a rate.
    Minute,
    /// From minute 0 to minute 59 of an hour.
    Hour,
    /// From midnight to midnight, UTC.
    Day,
    /// A month of the calendar, UTC.
    Month,
}

impl Per {
    /// Every window, shortest first.
    pub const ALL: [Self; 4] = [Self::Minute, Self::Hour, Self::Day, Self::Month];

    /// The word that configuration and messages use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// Reads [`Self::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|per| per.as_str() == word)
    }

    /// The window that a time is in.
    pub fn window(self, time: Timestamp) -> Window {
        let fixed = |length: i64| {
            let start = time.0.div_euclid(length).saturating_mul(length);
            Window { start: Timestamp(start), end: Timestamp(start.saturating_add(length)) }
        };
        match self {
            Self::Minute => fixed(MINUTE),
            Self::Hour => fixed(HOUR),
            Self::Day => fixed(DAY),
            Self::Month => Window { start: time.start_of_month(), end: time.start_of_next_month() },
        }
    }
}

/// A stretch of time, from its start to just before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first moment.
    pub start: Timestamp,
    /// The first moment after it.
    pub end: Timestamp,
}

impl Window {
    /// Whether it lies so far ahead of `now` that a clock that was set right explains it, rather than one
    /// that was nudged: by more than its own length.
    pub(crate) fn is_far_ahead_of(&self, now: Timestamp) -> bool {
        let length = self.end.0.saturating_sub(self.start.0);
        self.start.0.saturating_sub(now.0) > length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_those_of_the_calendar() {
        let time = Timestamp::parse("2028-02-29T22:04:28.5Z").unwrap();
        for (per, start, end) in [
            (Per::Minute, "2028-02-29T22:04:00Z", "2028-02-29T22:05:00Z"),
            (Per::Hour, "2028-02-29T22:00:00Z", "2028-02-29T23:00:00Z"),
            (Per::Day, "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z"),
            (Per::Month, "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
        ] {
            let window = per.window(time);
            assert_eq!(
                (Some(window.start), Some(window.end)),
                (Timestamp::parse(start), Timestamp::parse(end))
            );
            // Its end is the start of the next one.
            assert_eq!(per.window(window.end).start, window.end);
            assert_eq!(Per::parse(per.as_str()), Some(per));
        }
    }
}
