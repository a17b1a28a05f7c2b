//! What strangers wrote to one agent lately, whatever the run: a run that begins without words of a user
//! begins with it.

use std::collections::VecDeque;

use castra_flow::Run;
use serde::{Deserialize, Serialize};

/// Texts that are remembered.
const TEXTS_MAX: usize = 64;
/// Bytes of one text that are remembered.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Bytes of all of them.
const BYTES_MAX: usize = 512 << 10;

/// Untrusted texts, newest last.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Recent {
    texts: VecDeque<Text>,
}

#[derive(Serialize, Deserialize)]
struct Text {
    source: String,
    text: String,
    record: u64,
}

impl Recent {
    /// That there was something, and what it was is gone.
    pub(super) fn forgotten() -> Self {
        let mut recent = Self::default();
        recent.add("an earlier run", "", 0);
        recent
    }

    pub(super) fn add(&mut self, source: &str, text: &str, record: u64) {
        let mut end = text.len().min(TEXT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = text.get(..end).unwrap_or_default().to_owned();
        self.texts.push_back(Text { source: source.to_owned(), text, record });
        // One is always left: an agent that has read once has read.
        while self.texts.len() > 1 && (self.texts.len() > TEXTS_MAX || self.bytes() > BYTES_MAX) {
            self.texts.pop_front();
        }
    }

    fn bytes(&self) -> usize {
        self.texts.iter().map(|text| text.text.len()).sum()
    }

    pub(super) fn size(&self) -> usize {
        self.texts.iter().map(|text| text.text.capacity() + text.source.capacity() + 64).sum()
    }

    /// Tells a run all of it.
    pub(super) fn pour(&self, run: &mut Run) {
        for Text { source, text, record } in &self.texts {
            run.received(source, text, *record);
        }
    }
}
