//! Confidentiality: values and phrases that were first seen where not everybody may see them.
//!
//! Three things carry a label. What a manifest calls confidential or secret goes only to the places that it
//! names. What a call read that the user did not ask for ("search my mail for codes") goes nowhere. What looks
//! like a credential, because it stands by a word such as `password`, goes nowhere unless the user asked for
//! just that. Labels stand on hashes: a collision can only hold a call back.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{
    active::{Target, targets},
    limits::{LABELLED_MAX, LABELS_MAX},
    seen::{Seen, pairs, table},
    text::{folded, hash, is_stop, phrases, stem, word_hashes, words_at},
};

/// Words of a phrase that is recognised again.
const PHRASE: usize = 5;
/// Phrases of one text that are labelled.
const PHRASES_MAX: usize = 2048;
/// Phrases that make a copy of a text whose label only the way of reading gave; fewer are figures of speech.
const COPIED: usize = 2;

/// Why a value carries a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Why {
    /// A manifest says so; it may go to these places.
    Declared { places: Vec<String> },
    /// The user did not ask for its source.
    Unlocated,
    /// It stands by this word; `strong` if the word leaves no doubt.
    Credential { word: String, strong: bool },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Label {
    pub(crate) why: Why,
    pub(crate) source: u32,
    /// The server that already knows it.
    pub(crate) server: String,
}

/// The labels of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Labels {
    labels: Vec<Label>,
    #[serde(with = "pairs")]
    values: HashMap<u64, u16>,
    /// Whether something was not labelled: then no text of the agent's own may leave.
    full: bool,
}

/// A labelled value that a text carries.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Carried<'a> {
    /// Nothing if the labels are full and the text may carry anything.
    pub(crate) label: Option<&'a Label>,
    pub(crate) shown: String,
}

impl Labels {
    /// Labels all of a text. `open` says whether a value is known from a source without a label.
    pub(crate) fn add_text(&mut self, label: Label, text: &str, open: impl Fn(u64) -> bool) {
        let Some(index) = self.index(&label) else { return };
        for (_, value) in values(text) {
            if !open(value) {
                self.put(value, index);
            }
        }
        let words: Vec<u64> = word_hashes(text).into_iter().map(|(_, h)| h).collect();
        for phrase in phrases::<PHRASE>(&words).take(PHRASES_MAX) {
            self.put(phrase, index);
        }
        if words.len() > PHRASES_MAX + PHRASE && matches!(label.why, Why::Declared { .. }) {
            self.full = true;
        }
    }

    /// Labels one whole value, however short.
    pub(crate) fn add_value(&mut self, label: Label, value: &str) {
        let Some(index) = self.index(&label) else { return };
        for form in forms(value) {
            self.put(form, index);
        }
    }

    /// What the user asked for is no longer unlocated.
    pub(crate) fn lift(&mut self, text: &str) {
        if self.values.is_empty() {
            return;
        }
        let words: Vec<u64> = word_hashes(text).into_iter().map(|(_, h)| h).collect();
        let all = values(text).into_iter().map(|(_, v)| v).chain(phrases::<PHRASE>(&words));
        for value in all {
            let label = self.values.get(&value).and_then(|i| self.labels.get(usize::from(*i)));
            if label.is_some_and(|l| l.why == Why::Unlocated) {
                self.values.remove(&value);
            }
        }
    }

    pub(crate) fn overflow(&mut self) {
        self.full = true;
    }

    /// Whether anything is labelled.
    pub(crate) fn any(&self) -> bool {
        self.full || !self.values.is_empty()
    }

    fn index(&mut self, label: &Label) -> Option<u16> {
        if let Some(at) = self.labels.iter().position(|l| l == label) {
            return u16::try_from(at).ok();
        }
        if self.labels.len() >= LABELS_MAX {
            // The last label of the same kind stands for the rest; only its explanation is less exact.
            let same = self.labels.iter().rposition(|l| l.why == label.why);
            self.full |= same.is_none();
            return same.and_then(|at| u16::try_from(at).ok());
        }
        self.labels.push(label.clone());
        u16::try_from(self.labels.len() - 1).ok()
    }

    fn put(&mut self, value: u64, index: u16) {
        if self.values.len() >= LABELLED_MAX && !self.values.contains_key(&value) {
            self.full = true;
            return;
        }
        let strength = |i: u16| {
            self.labels.get(usize::from(i)).map_or(0, |l| match l.why {
                Why::Declared { .. } => 3,
                Why::Credential { .. } => 2,
                Why::Unlocated => 1,
            })
        };
        let better = self.values.get(&value).is_none_or(|old| strength(index) > strength(*old));
        if better {
            self.values.insert(value, index);
        }
    }

    /// The labelled values that a text carries, of those that `counts`.
    pub(crate) fn carried<'a>(
        &'a self,
        text: &str,
        mine: impl Fn(&str) -> bool,
        counts: impl Fn(&Label) -> bool,
    ) -> Vec<Carried<'a>> {
        let mut found: Vec<Carried<'a>> = Vec::new();
        if self.values.is_empty() && !self.full {
            return found;
        }
        let decoded = decoded(text);
        for text in std::iter::once(text).chain(decoded.iter().map(String::as_str)) {
            for (piece, value) in values(text).into_iter().chain(put_together(text)).chain(whole(text)) {
                let label = self.values.get(&value).and_then(|i| self.labels.get(usize::from(*i)));
                if let Some(label) = label.filter(|l| counts(l)).filter(|_| !mine(&piece)) {
                    found.push(Carried { label: Some(label), shown: piece });
                }
            }
            self.copied(text, &mine, &counts, &mut found);
        }
        if found.is_empty() && self.full && words_at(text).any(|(_, w)| !mine(w)) {
            found.push(Carried { label: None, shown: text.to_owned() });
        }
        found
    }

    fn copied<'a>(
        &'a self,
        text: &str,
        mine: impl Fn(&str) -> bool,
        counts: impl Fn(&Label) -> bool,
        found: &mut Vec<Carried<'a>>,
    ) {
        let words = word_hashes(text);
        let hashes: Vec<u64> = words.iter().map(|(_, h)| *h).collect();
        let mut runs: HashMap<u16, (usize, usize)> = HashMap::new();
        for (i, phrase) in phrases::<PHRASE>(&hashes).enumerate() {
            if let Some(label) = self.values.get(&phrase) {
                let entry = runs.entry(*label).or_insert((0, i));
                entry.0 += 1;
            }
        }
        for (index, (count, first)) in runs {
            let Some(label) = self.labels.get(usize::from(index)).filter(|l| counts(l)) else { continue };
            let needed = if label.why == Why::Unlocated { COPIED } else { 1 };
            let start = words.get(first).map_or(0, |w| w.0);
            let end = words.get(first + PHRASE).map_or(text.len(), |w| w.0);
            let piece = text.get(start..end).unwrap_or_default().trim();
            if count >= needed && !mine(piece) {
                found.push(Carried { label: Some(label), shown: piece.to_owned() });
            }
        }
    }

    pub(crate) fn size(&self) -> usize {
        table(self.values.capacity(), size_of::<(u64, u16)>())
            + self.labels.iter().map(|l| size_of::<Label>() + l.server.len() + 32).sum::<usize>()
    }
}

/// The values of a text that say something by themselves: words with digits, long words that are no prose,
/// addresses and links.
fn values(text: &str) -> Vec<(String, u64)> {
    let mut found: Vec<(String, u64)> = Vec::new();
    for (_, word) in words_at(text) {
        if says_something(word) {
            found.push((word.to_owned(), hash(&folded(word))));
        }
    }
    let places = targets(text).into_iter().filter(|t| !t.order);
    found.extend(places.map(|Target { name, .. }| (name.clone(), hash(&name))));
    found
}

fn says_something(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let length = word.chars().count();
    // Years, times and small numbers are everywhere.
    let year = digits == 4 && length == 4 && word.parse::<u16>().is_ok_and(|y| (1900..2200).contains(&y));
    (digits >= 4 && !year) || (digits >= 1 && length >= 6 && length > digits) || length >= 24
}

/// The hashes under which a value is found again.
fn forms(value: &str) -> Vec<u64> {
    let plain = folded(value.trim());
    let backwards: String = plain.chars().rev().collect();
    let joined: String = plain.chars().filter(|c| c.is_alphanumeric()).collect();
    let mut forms = vec![hash(&plain)];
    if joined.chars().count() >= 4 {
        forms.extend([hash(&joined), hash(&joined.chars().rev().collect::<String>()), hash(&backwards)]);
    }
    forms
}

/// A short text as one value.
fn whole(text: &str) -> Option<(String, u64)> {
    let text = text.trim();
    (4..=128).contains(&text.len()).then(|| (text.to_owned(), hash(&folded(text))))
}

/// Pieces that were taken apart: `4 6 3 8 2 0`, `463-820`, `four six three`, `hunter 2`.
fn put_together(text: &str) -> Vec<(String, u64)> {
    const DIGITS: &[&str] = &["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let mut found = Vec::new();
    let mut joined = String::new();
    let mut pieces = 0;
    let mut before = String::new();
    for (_, word) in words_at(text).map(|(at, w)| (at, folded(w))).chain([(0, String::from("\n"))]) {
        let digit = DIGITS.iter().position(|d| *d == word).map(|d| d.to_string());
        let small = digit.is_some()
            || word.chars().count() == 1 && word != "\n"
            || word.bytes().all(|b| b.is_ascii_digit()) && word != "\n";
        if small {
            joined.push_str(digit.as_deref().unwrap_or(&word));
            pieces += 1;
        }
        if !small || joined.len() > 64 {
            if pieces > 1 && joined.len() >= 4 {
                found.push((joined.clone(), hash(&joined)));
            }
            joined.clear();
            pieces = 0;
        }
        if !before.is_empty() && before.len() + word.len() <= 64 && (has_digit(&before) || has_digit(&word)) {
            let pair = format!("{before}{word}");
            let key = hash(&pair);
            found.push((pair, key));
        }
        before = word;
    }
    found
}

fn has_digit(word: &str) -> bool {
    word.bytes().any(|b| b.is_ascii_digit())
}

/// What base64 and hex in a text stand for, if that is text.
fn decoded(text: &str) -> Vec<String> {
    let pieces = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-' | '_')))
        .filter(|p| p.len() >= 6);
    pieces.filter_map(|p| hex(p).or_else(|| base64(p))).collect()
}

fn hex(piece: &str) -> Option<String> {
    if !piece.len().is_multiple_of(2) || piece.len() < 8 {
        return None;
    }
    let bytes: Option<Vec<u8>> = piece
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    printable(bytes?)
}

fn base64(piece: &str) -> Option<String> {
    let mut bits = 0_u32;
    let mut count = 0;
    let mut bytes = Vec::with_capacity(piece.len());
    for b in piece.bytes() {
        let six = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' | b'-' => 62,
            _ => 63,
        };
        bits = (bits << 6) | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap_or_default());
            bits &= (1 << count) - 1;
        }
    }
    printable(bytes)
}

fn printable(bytes: Vec<u8>) -> Option<String> {
    let text = String::from_utf8(bytes).ok()?;
    (text.len() >= 4 && text.chars().all(|c| !c.is_control() || c.is_whitespace())).then_some(text)
}

/// Words by which credentials stand; with those of the second kind only in doubt.
const STRONG: &[&str] = &[
    "password",
    "passcode",
    "passphrase",
    "pin",
    "otp",
    "secret",
    "cvv",
    "cvc",
    "ssn",
    "apikey",
    "api_key",
    "credential",
    "credentials",
    "passwd",
    "pwd",
    "mnemonic",
    "token",
    "2fa",
    "mfa",
];
const WEAK: &[&str] = &["code", "key", "iban", "account", "card", "seed", "login"];
/// Words that make a weak one strong.
const MAKES_STRONG: &[&str] = &[
    "security",
    "verification",
    "access",
    "recovery",
    "login",
    "api",
    "private",
    "secret",
    "confirmation",
    "backup",
    "auth",
    "authentication",
    "signing",
    "activation",
    "reset",
    "master",
    "one",
    "time",
    "door",
    "alarm",
    "vault",
];

/// A value that looks like a credential.
pub(crate) struct Credential<'t> {
    pub(crate) value: &'t str,
    pub(crate) word: &'t str,
    pub(crate) strong: bool,
}

/// The values of a text that look like credentials: a word with a digit near a word such as `code`, whatever
/// stands after `password:`, and tokens that tell by their first letters.
pub(crate) fn credentials(text: &str) -> Vec<Credential<'_>> {
    let pieces: Vec<(usize, &str)> = pieces(text).collect();
    let lower: Vec<String> =
        pieces.iter().map(|(_, w)| w.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase()).collect();
    let mut found = Vec::new();
    for (i, (_, piece)) in pieces.iter().enumerate() {
        let value = piece.trim_matches(|c: char| {
            matches!(
                c,
                '.' | ','
                    | ';'
                    | ':'
                    | '!'
                    | '?'
                    | '"'
                    | '\''
                    | '('
                    | ')'
                    | '`'
                    | '*'
                    | '<'
                    | '>'
                    | '['
                    | ']'
                    | '{'
                    | '}'
            )
        });
        if ["sk-", "ghp_", "gho_", "akia", "xoxb-", "xoxp-", "eyj", "glpat-"]
            .iter()
            .any(|p| value.to_lowercase().starts_with(p))
            && value.len() >= 16
        {
            found.push(Credential { value, word: "token", strong: true });
            continue;
        }
        let Some((at, word, strong)) = word_near(&lower, i) else { continue };
        if secret_shaped(value)
            || (strong
                && follows_directly(&pieces, &lower, at, i)
                && value.len() >= 4
                && !is_stop(&value.to_lowercase()))
        {
            found.push(Credential { value, word, strong });
        }
    }
    found
}

fn pieces(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let base = text.as_ptr() as usize;
    text.split(|c: char| c.is_whitespace() || matches!(c, '=' | '"' | '|'))
        .flat_map(|p| match p.split_once(':') {
            Some((a, b)) if !b.is_empty() && !b.starts_with('/') => [a, b],
            _ => [p, ""],
        })
        .filter(|p| !p.is_empty())
        .map(move |p| (p.as_ptr() as usize - base, p))
}

/// The nearest word that speaks of a credential: up to six words before a value, or two after it.
fn word_near(lower: &[String], i: usize) -> Option<(usize, &'static str, bool)> {
    let before = (i.saturating_sub(6)..i).rev();
    for at in before.chain(i + 1..(i + 3).min(lower.len())) {
        let Some(word) = lower.get(at) else { continue };
        let singular = word.strip_suffix('s').unwrap_or(word);
        if let Some(strong) = STRONG.iter().find(|s| **s == word.as_str() || **s == singular) {
            return Some((at, strong, true));
        }
        if let Some(weak) = WEAK.iter().find(|s| **s == word.as_str() || **s == singular) {
            let made = at
                .checked_sub(1)
                .and_then(|b| lower.get(b))
                .is_some_and(|w| MAKES_STRONG.contains(&w.as_str()));
            return Some((at, weak, made));
        }
    }
    None
}

/// A word of letters and digits, or of digits alone, that is no date, time, amount or file.
fn secret_shaped(value: &str) -> bool {
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    let plain = value.chars().all(|c| {
        c.is_alphanumeric() || matches!(c, '-' | '_' | '#' | '!' | '$' | '%' | '&' | '@' | '*' | '+' | '^')
    });
    let date = crate::dates::years(value).len() == 1 && (value.len() == 4 || value.len() == 10);
    (4..=128).contains(&value.len()) && plain && digits >= 1 && !date && !value.contains('@')
}

/// Whether a value stands right after the word, or after it and `is`.
fn follows_directly(pieces: &[(usize, &str)], lower: &[String], at: usize, i: usize) -> bool {
    if at >= i {
        return false;
    }
    let marked = pieces.get(at).is_some_and(|(_, w)| w.ends_with([':', '=']));
    let between = lower.get(at + 1..i).unwrap_or_default();
    match between {
        [] => marked,
        [word] => matches!(word.as_str(), "is" | "to" | "was" | "" | "be"),
        _ => false,
    }
}

/// Whether the user's words speak of a credential by this word.
pub(crate) fn same_word(a: &str, b: &str) -> bool {
    stem(a) == stem(b)
}

impl Labels {
    /// Labels what looks like a credential.
    pub(crate) fn add_credentials(
        &mut self,
        text: &str,
        source: u32,
        server: &str,
        mine: impl Fn(&str) -> bool,
        seen: &Seen,
    ) {
        for Credential { value, word, strong } in credentials(text) {
            if mine(value) || (!strong && seen.in_located(hash(&folded(value)))) {
                continue;
            }
            let why = Why::Credential { word: word.to_owned(), strong };
            self.add_value(Label { why, source, server: server.to_owned() }, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(why: Why) -> Label {
        Label { why, source: 0, server: "mail".into() }
    }

    #[test]
    fn credentials_are_known_by_their_neighbours() {
        fn found(text: &str) -> Vec<&str> {
            credentials(text).into_iter().map(|c| c.value).collect()
        }
        for (text, expected) in [
            ("Your security code is 463820.", vec!["463820"]),
            ("password: hunter", vec!["hunter"]),
            ("The password is correcthorse", vec!["correcthorse"]),
            ("PIN 1234", vec!["1234"]),
            ("Reset your password by Friday", vec![]),
            ("Meet at 10:30 on 2024-05-15 in room 12", vec![]),
            ("use AKIAIOSFODNN7EXAMPLE", vec!["AKIAIOSFODNN7EXAMPLE"]),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
    }

    #[test]
    fn a_labelled_value_is_found_in_every_dress() {
        let mut labels = Labels::default();
        labels.add_value(label(Why::Credential { word: "code".into(), strong: true }), "463820");
        for text in [
            "463820",
            "the 463820!",
            "4 6 3 8 2 0",
            "463-820",
            "NDYzODIw",
            "343633383230",
            "028364",
            "four six three eight two zero",
            "４６３８２０",
        ] {
            assert_eq!(labels.carried(text, |_| false, |_| true).len().min(1), 1, "{text}");
        }
        assert!(labels.carried("463821 and 46 and 3820", |_| false, |_| true).is_empty());
    }

    #[test]
    fn copies_are_found_and_figures_of_speech_are_not() {
        let mut labels = Labels::default();
        labels.add_text(
            label(Why::Unlocated),
            "We will merge with Initech in autumn and close the office in Graz.",
            |_| false,
        );
        assert!(!labels.carried("FYI: we will merge with Initech in autumn", |_| false, |_| true).is_empty());
        assert!(labels.carried("We will merge the branches", |_| false, |_| true).is_empty());
        labels.lift("We will merge with Initech in autumn and close the office in Graz.");
        assert!(labels.carried("we will merge with Initech in autumn", |_| false, |_| true).is_empty());
    }

    #[test]
    fn full_labels_let_nothing_of_the_agents_own_leave() {
        let mut labels = Labels::default();
        labels.overflow();
        assert!(!labels.carried("anything", |_| false, |_| true).is_empty());
        assert!(labels.carried("mine", |w| w == "mine", |_| true).is_empty());
    }
}
