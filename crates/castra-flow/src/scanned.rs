//! A text that was looked at once: its words and its targets, for everything that asks for them.

use crate::{
    active::{Target, targets},
    text::word_hashes,
};

/// A text, the hash and place of each of its words, and its targets.
pub(crate) struct Scanned<'t> {
    pub(crate) text: &'t str,
    pub(crate) words: Vec<(usize, u64)>,
    pub(crate) targets: Vec<Target>,
}

impl<'t> Scanned<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self { text, words: word_hashes(text), targets: targets(text) }
    }

    /// The hashes of the words alone.
    pub(crate) fn hashes(&self) -> Vec<u64> {
        self.words.iter().map(|(_, hash)| *hash).collect()
    }
}
