//! Text that comes in pieces: what is clean leaves, what may be the beginning of something is held.

use std::sync::Arc;

use castra_core::TextScanner;

use crate::{
    inspector::Sets,
    set::Set,
    tracker::{Found, Tracker},
};

/// Inspects one channel of text. What is held never exceeds [`crate::WINDOW`] bytes; ordinary text
/// leaves in the piece that it came in.
#[derive(Clone)]
pub struct Scanner {
    sets: Arc<Sets>,
    masking: Masking,
    reporting: Tracker,
    seen: Vec<Arc<str>>,
}

/// The tracker of what is masked, and the text that it has not decided yet.
#[derive(Debug, Clone, Default)]
struct Masking {
    tracker: Tracker,
    /// The end of the text so far, from `done` on.
    held: String,
    /// Everything before this place has left, or a mask stands for it.
    done: usize,
}

impl Scanner {
    pub(crate) fn new(sets: Arc<Sets>) -> Self {
        Self { sets, masking: Masking::default(), reporting: Tracker::default(), seen: Vec::new() }
    }

    /// Bytes of text that wait for a decision.
    pub fn held(&self) -> usize {
        self.masking.held.len()
    }
}

impl TextScanner for Scanner {
    fn push(&mut self, text: &str, out: &mut String) {
        match &self.sets.mask {
            Some(set) => self.masking.push(set, text, out, &mut self.seen),
            None => out.push_str(text),
        }
        if let Some(set) = &self.sets.report {
            self.reporting.advance(set, text.as_bytes(), &mut |found| note(&mut self.seen, set, &found));
        }
    }

    fn finish(&mut self, out: &mut String) {
        if let Some(set) = &self.sets.mask {
            self.masking.finish(set, out, &mut self.seen);
        }
        if let Some(set) = &self.sets.report {
            self.reporting.finish(set, &mut |found| note(&mut self.seen, set, &found));
        }
    }

    fn findings(&self) -> &[Arc<str>] {
        &self.seen
    }
}

impl Masking {
    fn push(&mut self, set: &Set, text: &str, out: &mut String, seen: &mut Vec<Arc<str>>) {
        let Self { tracker, held, done } = self;
        let known = Known { held, held_from: tracker.pos() - held.len(), text, text_from: tracker.pos() };
        tracker.advance(set, text.as_bytes(), &mut |found| known.write(set, &found, done, out, seen));
        known.copy(*done, tracker.decided(), out);
        *done = (*done).max(tracker.decided());
        match done.checked_sub(known.text_from) {
            Some(left) => {
                held.clear();
                held.push_str(text.get(left..).unwrap_or_default());
            }
            None => {
                let left = *done - known.held_from;
                held.drain(..left);
                held.push_str(text);
            }
        }
    }

    fn finish(&mut self, set: &Set, out: &mut String, seen: &mut Vec<Arc<str>>) {
        let Self { tracker, held, done } = self;
        let end = tracker.pos();
        let known = Known { held, held_from: end - held.len(), text: "", text_from: end };
        tracker.finish(set, &mut |found| known.write(set, &found, done, out, seen));
        known.copy(*done, end, out);
        held.clear();
        *done = 0;
    }
}

/// The text that is at hand: what was held, and the piece that came.
struct Known<'a> {
    held: &'a str,
    held_from: usize,
    text: &'a str,
    text_from: usize,
}

impl Known<'_> {
    /// Writes what stands before a finding, and its mask.
    fn write(&self, set: &Set, found: &Found, done: &mut usize, out: &mut String, seen: &mut Vec<Arc<str>>) {
        note(seen, set, found);
        match *found {
            Found::Match { start, end, pattern } => {
                self.copy(*done, start, out);
                if let Some(kind) = set.kind(pattern) {
                    out.push_str(&kind.mask);
                }
                *done = end;
            }
            Found::More { end } => *done = (*done).max(end),
        }
    }

    fn copy(&self, from: usize, to: usize, out: &mut String) {
        for (text, base) in [(self.held, self.held_from), (self.text, self.text_from)] {
            let part = from.saturating_sub(base)..to.saturating_sub(base).min(text.len());
            out.push_str(text.get(part).unwrap_or_default());
        }
    }
}

fn note(seen: &mut Vec<Arc<str>>, set: &Set, found: &Found) {
    let Found::Match { pattern, .. } = found else { return };
    if let Some(kind) = set.kind(*pattern)
        && !seen.contains(&kind.kind)
    {
        seen.push(kind.kind.clone());
    }
}
