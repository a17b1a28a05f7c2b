//! Confidentiality: values and phrases that were first seen where not everybody may see them.
//!
//! Three things carry a label. What a manifest calls confidential or secret goes only to the places that it
//! names. What a call read that the user did not ask for ("search my mail for codes") goes nowhere. What looks
//! like a credential, because it stands by a word such as `password`, goes nowhere unless the user asked for
//! just that. Labels stand on hashes: a collision can only hold a call back.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{
    credentials::{Credential, credentials},
    limits::{LABELLED_MAX, LABELS_MAX},
    scanned::Scanned,
    seen::{Seen, pairs, table},
    text::{Hash, folded, hash, phrases, stem, words_at},
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
    pub(crate) fn add_text(&mut self, label: Label, text: &Scanned<'_>, open: impl Fn(u64) -> bool) {
        let Some(index) = self.index(&label) else { return };
        for (_, value) in values(text) {
            if !open(value) {
                self.put(value, index);
            }
        }
        let words = text.hashes();
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
    pub(crate) fn lift(&mut self, text: &Scanned<'_>) {
        if self.values.is_empty() {
            return;
        }
        let words = text.hashes();
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
            let same = self.labels.iter().rposition(|l| l.why == label.why && l.server == label.server);
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

    /// The labelled values that a text carries, of those that `counts`; what is `mine` is the user's own.
    pub(crate) fn carried<'a>(
        &'a self,
        text: &Scanned<'_>,
        mine: impl Fn(&str) -> bool,
        counts: impl Fn(&Label) -> bool,
    ) -> Vec<Carried<'a>> {
        let mut found = Vec::new();
        if !self.any() {
            return found;
        }
        self.carried_plainly(text, &mine, &counts, &mut found);
        for decoded in decoded(text.text) {
            self.carried_plainly(&Scanned::new(&decoded), &mine, &counts, &mut found);
        }
        if found.is_empty() && self.full && words_at(text.text).any(|(_, w)| !mine(w)) {
            found.push(Carried { label: None, shown: text.text.to_owned() });
        }
        found
    }

    fn carried_plainly<'a>(
        &'a self,
        text: &Scanned<'_>,
        mine: &impl Fn(&str) -> bool,
        counts: &impl Fn(&Label) -> bool,
        found: &mut Vec<Carried<'a>>,
    ) {
        let mut look = |shown: &str, value: u64| {
            let label = self.values.get(&value).and_then(|i| self.labels.get(usize::from(*i)));
            if let Some(label) = label.filter(|l| counts(l)).filter(|_| !mine(shown)) {
                found.push(Carried { label: Some(label), shown: shown.to_owned() });
            }
        };
        values(text).into_iter().for_each(|(shown, value)| look(shown, value));
        put_together(text.text).iter().for_each(|(shown, value)| look(shown, *value));
        let short = text.text.trim();
        if (4..=128).contains(&short.len()) {
            look(short, hash(&folded(short)));
        }
        spans(text.text, &mut look);
        self.copied(text, mine, counts, found);
    }

    fn copied<'a>(
        &'a self,
        text: &Scanned<'_>,
        mine: &impl Fn(&str) -> bool,
        counts: &impl Fn(&Label) -> bool,
        found: &mut Vec<Carried<'a>>,
    ) {
        let mut runs: HashMap<u16, (usize, usize)> = HashMap::new();
        for (i, phrase) in phrases::<PHRASE>(&text.hashes()).enumerate() {
            if let Some(label) = self.values.get(&phrase) {
                runs.entry(*label).or_insert((0, i)).0 += 1;
            }
        }
        for (index, (count, first)) in runs {
            let Some(label) = self.labels.get(usize::from(index)).filter(|l| counts(l)) else { continue };
            let needed = if label.why == Why::Unlocated { COPIED } else { 1 };
            let start = text.words.get(first).map_or(0, |w| w.0);
            let end = text.words.get(first + PHRASE).map_or(text.text.len(), |w| w.0);
            let piece = text.text.get(start..end).unwrap_or_default().trim();
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
fn values<'a>(text: &'a Scanned<'_>) -> Vec<(&'a str, u64)> {
    let words = words_at(text.text).filter(|(_, word)| says_something(word));
    let mut found: Vec<(&str, u64)> = words.map(|(_, word)| (word, hash(&folded(word)))).collect();
    let places = text.targets.iter().filter(|t| !t.order);
    found.extend(places.map(|t| (t.name.as_str(), hash(&t.name))));
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

/// Looks at each word, and at two or three words next to each other, as values that may carry a label.
fn spans(text: &str, look: &mut impl FnMut(&str, u64)) {
    let words: Vec<(usize, &str)> = words_at(text).collect();
    let mut buffer = String::new();
    for (i, (start, _)) in words.iter().enumerate() {
        let mut joined = Hash::default();
        for (n, (at, word)) in words.iter().skip(i).take(3).enumerate() {
            joined.word(word, &mut buffer);
            if n > 0 || word.len() >= 4 {
                look(text.get(*start..at + word.len()).unwrap_or_default(), joined.finish());
            }
        }
    }
}

/// Pieces that were taken apart: `4 6 3 8 2 0`, `46 38 20`, `four six three`.
fn put_together(text: &str) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let (mut joined, mut pieces) = (String::new(), 0);
    for word in words_at(text).map(|(_, w)| Some(w)).chain([None]) {
        let small = word.and_then(small);
        if let Some(small) = &small {
            joined.push_str(small);
            pieces += 1;
        }
        if small.is_none() || joined.len() > 64 {
            if pieces > 1 && joined.len() >= 4 {
                let key = hash(&joined);
                found.push((std::mem::take(&mut joined), key));
            }
            joined.clear();
            pieces = 0;
        }
    }
    found
}

/// A digit in letters, a number or a single character: what longer values are taken apart into.
fn small(word: &str) -> Option<String> {
    const DIGITS: &[&str] = &["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    if word.len() > 24
        || word.bytes().all(|b| b.is_ascii_alphabetic())
            && !(word.len() == 1 || (3..=5).contains(&word.len()))
    {
        return None;
    }
    let word = folded(word);
    if let Some(digit) = DIGITS.iter().position(|d| *d == word) {
        return Some(digit.to_string());
    }
    let number = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    (number || word.chars().count() == 1).then_some(word)
}

/// What base64 and hex in a text stand for, if that is text.
fn decoded(text: &str) -> Vec<String> {
    let pieces = text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-' | '_')));
    // Prose has neither digits nor capitals within its words.
    let coded = |p: &&str| {
        let inner = p.bytes().skip(1);
        p.len() >= 6 && inner.clone().any(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
    };
    pieces.filter(coded).filter_map(|p| hex(p).or_else(|| base64(p))).collect()
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
            assert_eq!(labels.carried(&Scanned::new(text), |_| false, |_| true).len().min(1), 1, "{text}");
        }
        assert!(labels.carried(&Scanned::new("463821 and 46 and 3820"), |_| false, |_| true).is_empty());
    }

    #[test]
    fn copies_are_found_and_figures_of_speech_are_not() {
        let mut labels = Labels::default();
        labels.add_text(
            label(Why::Unlocated),
            &Scanned::new("We will merge with Initech in autumn and close the office in Graz."),
            |_| false,
        );
        assert!(
            !labels
                .carried(&Scanned::new("FYI: we will merge with Initech in autumn"), |_| false, |_| true)
                .is_empty()
        );
        assert!(labels.carried(&Scanned::new("We will merge the branches"), |_| false, |_| true).is_empty());
        labels.lift(&Scanned::new("We will merge with Initech in autumn and close the office in Graz."));
        assert!(
            labels
                .carried(&Scanned::new("we will merge with Initech in autumn"), |_| false, |_| true)
                .is_empty()
        );
    }

    #[test]
    fn full_labels_let_nothing_of_the_agents_own_leave() {
        let mut labels = Labels::default();
        labels.overflow();
        assert!(!labels.carried(&Scanned::new("anything"), |_| false, |_| true).is_empty());
        assert!(labels.carried(&Scanned::new("mine"), |w| w == "mine", |_| true).is_empty());
    }
}
