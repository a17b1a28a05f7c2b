//! Numbers, days and years in text.

use std::collections::BTreeSet;

use crate::text::words;

const MONTHS: &[&str] = &[
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// A month and a day of it.
pub(crate) type Day = (u8, u8);

/// The days that a text names: `2024-05-15`, `May 15th`, `15th of May`.
pub(crate) fn days(text: &str) -> BTreeSet<Day> {
    let mut found = BTreeSet::new();
    let words: Vec<String> = words(text).map(str::to_lowercase).collect();
    for window in words.windows(3) {
        let [a, b, c] = window else { continue };
        if a.len() == 4 && year(a).is_some() {
            // An ISO time begins in the same word as the day ends: `15t10`.
            let day = c.split('t').next().unwrap_or_default();
            if b.len() == 2 && day.len() == 2 {
                found.extend(valid(b.parse().ok(), day.parse().ok()));
            }
        }
        if b == "of" {
            found.extend(valid(month(c), ordinal(a)));
        }
    }
    for window in words.windows(2) {
        let [a, b] = window else { continue };
        found.extend(valid(month(a), ordinal(b)));
        found.extend(valid(month(b), ordinal(a)));
    }
    found
}

/// The years from 1900 to 2199 that a text names.
pub(crate) fn years(text: &str) -> BTreeSet<u16> {
    words(text).filter_map(year).collect()
}

fn year(word: &str) -> Option<u16> {
    let good = word.len() == 4 && word.bytes().all(|b| b.is_ascii_digit());
    word.parse().ok().filter(|year| good && (1900..2200).contains(year))
}

pub(crate) fn month(word: &str) -> Option<u8> {
    let found = MONTHS.iter().position(|m| *m == word || (word.len() == 3 && m.starts_with(word)));
    found.and_then(|i| u8::try_from(i + 1).ok())
}

fn ordinal(word: &str) -> Option<u8> {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let ending = word.get(digits.len()..)?;
    let good = matches!(ending, "" | "st" | "nd" | "rd" | "th") && (1..=2).contains(&digits.len());
    good.then(|| digits.parse().ok()).flatten()
}

fn valid(month: Option<u8>, day: Option<u8>) -> Option<Day> {
    let (month, day) = (month?, day?);
    ((1..=12).contains(&month) && (1..=31).contains(&day)).then_some((month, day))
}

/// A number of a text and where it stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Number {
    pub(crate) value: f64,
    /// Bytes of the number itself.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The numbers that stand alone, thousands commas removed. What is glued to a letter, or is a part of
/// something with more than one dot or of a time, is none.
pub(crate) fn numbers(text: &str) -> Vec<Number> {
    let bytes = text.as_bytes();
    let at = |i: usize| bytes.get(i).copied().unwrap_or(b' ');
    let mut found = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        if !at(i).is_ascii_digit() {
            i += 1;
            continue;
        }
        let start = i;
        while at(i).is_ascii_digit() || (matches!(at(i), b'.' | b',') && at(i + 1).is_ascii_digit()) {
            i += 1;
        }
        let before = if start == 0 { b' ' } else { at(start - 1) };
        let glued = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80;
        let before_glued = (glued(before) && !ends_with_currency(text, start))
            || matches!(before, b'.' | b':' | b'-' | b'/' | b'#');
        let after = at(i);
        let after_glued = glued(after) && !text.get(i..).is_some_and(|t| t.starts_with(['€', '£', '¥', '₹']))
            || (matches!(after, b':' | b'-' | b'/') && at(i + 1).is_ascii_digit());
        let written = text.get(start..i).unwrap_or_default().replace(',', "");
        if !before_glued
            && !after_glued
            && written.matches('.').count() <= 1
            && let Ok(value) = written.parse()
        {
            found.push(Number { value, start, end: i });
        }
    }
    found
}

fn ends_with_currency(text: &str, end: usize) -> bool {
    text.get(..end).is_some_and(|t| t.ends_with(['€', '£', '¥', '₹']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_as_people_write_them() {
        for (text, expected) in [
            ("2024-05-15 10:00", vec![(5, 15)]),
            ("2024-05-15T10:00:00", vec![(5, 15)]),
            ("on May 15th, 2024", vec![(5, 15)]),
            ("the 15th of May", vec![(5, 15)]),
            ("Saturday 18th May", vec![(5, 18)]),
            ("10:00", vec![]),
            ("May 99", vec![]),
        ] {
            assert_eq!(days(text).into_iter().collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn numbers_stand_alone() {
        let values = |text: &str| numbers(text).iter().map(|n| n.value).collect::<Vec<_>>();
        assert_eq!(values("pay 1,200.50 and (10.00). $30"), [1200.5, 10.0, 30.0]);
        assert_eq!(values("€5 and 5€"), [5.0, 5.0]);
        assert_eq!(values("GB29NWBK 1.2.3 10:30 2024-05-15 x7 #12 7th"), Vec::<f64>::new());
    }
}
