//! What trusted sources gave: the user, trusted outputs, attested fields of records that the user named.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::{
    dates::Day,
    limits::{AMOUNTS_MAX, ATTESTED_BYTES_MAX, TRUSTED_BYTES_MAX},
    text::{lower_words, words},
};

/// Trusted values. All are compared in lower case and as they are, never by a hash.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Values that may be used as they are, with the source that gave them.
    exact: HashMap<Box<str>, u32>,
    /// Values that a trusted listing holds.
    listed: HashMap<Box<str>, u32>,
    /// `type:id` of records that the user named.
    ids: HashSet<Box<str>>,
    /// Addresses that a word of the prompt may mean.
    names: BTreeMap<Box<str>, BTreeSet<Box<str>>>,
    /// Addresses that the user has dealt with before.
    dealt: HashSet<Box<str>>,
    /// The values that name the user.
    own: HashSet<Box<str>>,
    /// Values of attested fields, whoever they belong to. They found nothing; they are only not injected.
    attested: HashSet<Box<str>>,
    attested_bytes: usize,
    amounts: Vec<f64>,
    words: HashSet<Box<str>>,
    days: BTreeSet<Day>,
    years: BTreeSet<u16>,
    resolved: BTreeSet<Box<str>>,
    bytes: usize,
}

/// What a value costs beside its letters.
const ENTRY: usize = 48;

impl Known {
    fn fits(&mut self, text: &str) -> bool {
        let cost = text.len() + ENTRY;
        let fits = self.bytes + cost <= TRUSTED_BYTES_MAX;
        self.bytes += if fits { cost } else { 0 };
        fits
    }

    pub(crate) fn add_exact(&mut self, value: &str, source: u32) {
        let value = value.to_lowercase();
        if !value.is_empty() && !self.exact.contains_key(&*value) && self.fits(&value) {
            self.exact.insert(value.into(), source);
        }
    }

    pub(crate) fn add_listed(&mut self, value: &str, source: u32) {
        let value = value.to_lowercase();
        if !value.is_empty() && !self.listed.contains_key(&*value) && self.fits(&value) {
            self.listed.insert(value.into(), source);
        }
    }

    pub(crate) fn add_id(&mut self, object: &str, id: &str) {
        let id = format!("{object}:{id}");
        if self.fits(&id) {
            self.ids.insert(id.into());
        }
    }

    /// An address that this word of the prompt may mean. If there is no room for it, the word means nothing
    /// any more.
    pub(crate) fn add_name(&mut self, word: &str, address: &str) {
        if self.fits(word) && self.fits(address) {
            self.names.entry(word.into()).or_default().insert(address.to_lowercase().into());
        } else {
            self.names.remove(word);
        }
    }

    pub(crate) fn add_dealt(&mut self, address: &str) {
        let address = address.to_lowercase();
        if self.fits(&address) {
            self.dealt.insert(address.into());
        }
    }

    pub(crate) fn add_attested(&mut self, value: &str) {
        let value = value.to_lowercase();
        let cost = value.len() + ENTRY;
        if !self.attested.contains(&*value) && self.attested_bytes + cost <= ATTESTED_BYTES_MAX {
            self.attested_bytes += cost;
            self.attested.insert(value.into());
        }
    }

    pub(crate) fn is_attested(&self, value: &str) -> bool {
        self.attested.contains(&*value.to_lowercase())
    }

    pub(crate) fn add_own(&mut self, value: &str) {
        let value = value.to_lowercase();
        if self.own.len() < 16 && self.fits(&value) {
            self.own.insert(value.into());
        }
    }

    pub(crate) fn add_amount(&mut self, amount: f64) {
        if amount.is_finite() && self.amounts.len() < AMOUNTS_MAX && !self.amounts.contains(&amount) {
            self.amounts.push(amount);
        }
    }

    pub(crate) fn add_text(&mut self, text: &str) {
        for word in lower_words(text) {
            if !self.words.contains(&word) && self.fits(&word) {
                self.words.insert(word);
            }
        }
        self.days.extend(crate::dates::days(text));
        if self.years.len() < 256 {
            self.years.extend(crate::dates::years(text));
        }
    }

    /// Whether this superlative is resolved now for the first time in the run.
    pub(crate) fn resolve(&mut self, word: &str) -> bool {
        self.resolved.insert(word.into())
    }

    pub(crate) fn exact(&self, value: &str) -> Option<u32> {
        self.exact.get(&*value.to_lowercase()).copied()
    }

    pub(crate) fn listed(&self, value: &str) -> Option<u32> {
        self.listed.get(&*value.to_lowercase()).copied()
    }

    pub(crate) fn has_id(&self, object: &str, id: &str) -> bool {
        self.ids.contains(&*format!("{object}:{id}"))
    }

    /// Whether the user named any record by this id.
    pub(crate) fn has_any_id(&self, id: &str) -> bool {
        self.ids.iter().any(|known| known.split_once(':').is_some_and(|(_, value)| value == id))
    }

    /// Whether a word of the prompt means this address and no other.
    pub(crate) fn named(&self, address: &str) -> bool {
        let address = address.to_lowercase();
        self.names.values().any(|group| group.len() == 1 && group.contains(&*address))
    }

    pub(crate) fn dealt_with(&self, address: &str) -> bool {
        let address = address.to_lowercase();
        self.dealt.contains(&*address) || self.own.contains(&*address) || self.exact.contains_key(&*address)
    }

    pub(crate) fn is_own(&self, value: &str) -> bool {
        self.own.contains(&*value.to_lowercase())
    }

    pub(crate) fn has_own(&self) -> bool {
        !self.own.is_empty()
    }

    pub(crate) fn amounts(&self) -> &[f64] {
        &self.amounts
    }

    pub(crate) fn has_word(&self, word: &str) -> bool {
        self.words.contains(word)
    }

    /// Whether every word of a text is known.
    pub(crate) fn all_words(&self, text: &str, or: impl Fn(&str) -> bool) -> bool {
        let mut any = false;
        words(text).all(|word| {
            any = true;
            let word = word.to_lowercase();
            self.words.contains(&*word) || or(&word)
        }) && any
    }

    pub(crate) fn days(&self) -> &BTreeSet<Day> {
        &self.days
    }

    pub(crate) fn years(&self) -> &BTreeSet<u16> {
        &self.years
    }

    pub(crate) fn size(&self) -> usize {
        self.bytes
            + self.attested_bytes
            + self.amounts.capacity() * 8
            + self.days.len() * 4
            + self.years.len() * 4
    }
}
