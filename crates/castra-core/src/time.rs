//! A point in time, as records and policies write it. The clock itself is handed in.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Microseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// Days of the week in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl Weekday {
    /// Lower case English name, as policies compare it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Monday => "monday",
            Self::Tuesday => "tuesday",
            Self::Wednesday => "wednesday",
            Self::Thursday => "thursday",
            Self::Friday => "friday",
            Self::Saturday => "saturday",
            Self::Sunday => "sunday",
        }
    }
}

const DAY_US: i64 = 86_400_000_000;

impl Timestamp {
    /// From seconds since 1970.
    pub fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Whole seconds since 1970, rounded down.
    pub fn secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Whole milliseconds since 1970, rounded down.
    pub fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// This time moved by `secs` seconds.
    pub fn plus_secs(self, secs: i64) -> Self {
        Self(self.0.saturating_add(secs.saturating_mul(1_000_000)))
    }

    /// Day of the week in UTC.
    pub fn weekday(self) -> Weekday {
        // 1970-01-01 was a Thursday.
        match (self.0.div_euclid(DAY_US) + 3).rem_euclid(7) {
            0 => Weekday::Monday,
            1 => Weekday::Tuesday,
            2 => Weekday::Wednesday,
            3 => Weekday::Thursday,
            4 => Weekday::Friday,
            5 => Weekday::Saturday,
            _ => Weekday::Sunday,
        }
    }

    /// Hour of the day in UTC, 0 to 23.
    pub fn hour(self) -> u8 {
        (self.0.rem_euclid(DAY_US) / 3_600_000_000) as u8
    }

    /// Minute of the day in UTC, 0 to 1439.
    pub fn minute_of_day(self) -> u16 {
        (self.0.rem_euclid(DAY_US) / 60_000_000) as u16
    }

    /// The first moment of its month in UTC.
    pub fn start_of_month(self) -> Self {
        let (year, month, _) = self.civil();
        Self::from_secs(days_from_civil(year, month, 1).saturating_mul(86_400))
    }

    /// The first moment of the month after its own in UTC.
    pub fn start_of_next_month(self) -> Self {
        let (year, month, _) = self.civil();
        let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
        Self::from_secs(days_from_civil(year, month, 1).saturating_mul(86_400))
    }

    /// Reads RFC 3339 in UTC (`Z`), with up to six digits of fraction.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, rest) = text.split_at_checked(10)?;
        let rest = rest.strip_prefix(['T', 't', ' '])?.strip_suffix(['Z', 'z'])?;
        let mut parts = date.split('-').map(digits);
        let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
        let (clock, fraction) = rest.split_once('.').unwrap_or((rest, "0"));
        let mut parts = clock.split(':').map(digits);
        let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
        let in_range = (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60
            && parts.next().is_none();
        if !in_range || fraction.len() > 6 {
            return None;
        }
        let scale = 10_i64.checked_pow(6_u32.checked_sub(u32::try_from(fraction.len()).ok()?)?)?;
        let micros = digits(fraction)?.checked_mul(scale)?;
        let days = days_from_civil(year, month, day);
        let time = Self((days * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000_000 + micros);
        // 30 February and its like come out as another date.
        (time.civil() == (year, month, day)).then_some(time)
    }

    fn civil(self) -> (i64, i64, i64) {
        // Howard Hinnant's algorithm for proleptic Gregorian dates, "chrono-Compatible Low-Level
        // Date Algorithms", civil_from_days.
        let z = self.0.div_euclid(DAY_US) + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        (yoe + era * 400 + i64::from(month <= 2), month, day)
    }
}

fn digits(text: &str) -> Option<i64> {
    let all = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if all { text.parse().ok() } else { None }
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (y, m, d) = self.civil();
        let us = self.0.rem_euclid(DAY_US);
        let (s, fraction) = (us / 1_000_000, us % 1_000_000);
        write!(f, "{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}.{fraction:06}Z", s / 3600, s / 60 % 60, s % 60)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("expected a time such as 2026-11-24T12:00:00Z"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_both_ways() {
        for (text, secs) in [
            ("1970-01-01T00:00:00.000000Z", 0),
            ("2000-02-29T12:34:56.000000Z", 951_827_696),
            ("2026-11-24T22:04:28.000000Z", 1_795_557_868),
            ("1969-12-31T23:59:59.000000Z", -1),
        ] {
            let t = Timestamp::from_secs(secs);
            assert_eq!(t.to_string(), text);
            assert_eq!(Timestamp::parse(text), Some(t));
        }
        assert_eq!(Timestamp::parse("2026-11-24T00:00:00.5Z").map(|t| t.0 % 1_000_000), Some(500_000));
        for bad in [
            "",
            "2026-02-30T00:00:00Z",
            "2026-11-24T24:00:00Z",
            "2026-11-24T00:00:00",
            "2026-11-24T00:00:00.1234567Z",
        ] {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
        assert_eq!(Timestamp::from_secs(1_795_557_868).weekday(), Weekday::Tuesday);
        assert_eq!(Timestamp::from_secs(1_795_557_868).hour(), 22);
    }

    #[test]
    fn months_begin_and_end() {
        for (time, start, next) in [
            ("2026-11-24T22:04:28Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
            ("2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("2028-02-29T00:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
            ("1969-12-01T00:00:00Z", "1969-12-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ] {
            let t = Timestamp::parse(time).unwrap();
            assert_eq!(Some(t.start_of_month()), Timestamp::parse(start), "{time}");
            assert_eq!(Some(t.start_of_next_month()), Timestamp::parse(next), "{time}");
        }
    }
}
