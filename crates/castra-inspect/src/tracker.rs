//! Finds matches in one pass over text that comes in pieces, without ever looking back.
//!
//! Each place at which a match may begin becomes a candidate: a state of the automaton that goes on
//! with every byte until it dies. Candidates that come to the same state have the same future, so the
//! later is dropped: what it could match lies within what the earlier would. That bounds their number
//! by the states of the automaton, and makes hostile text cost no more than any other.
//!
//! What is found depends on the text alone and not on how it was cut: a candidate begins, goes on and
//! dies at the same bytes however they come.

use regex_automata::{PatternID, util::primitives::StateID};

use crate::set::{Clear, Set};

/// How long something may stay undecided, in bytes: the most that a stream holds back. The longest
/// tokens (JWTs with many claims) stay below it, and an agent's screen does not wait for more.
pub const WINDOW: usize = 4 << 10;

/// How much one match can take away, in bytes. Above the largest private keys in PEM form with a chain
/// beside them; below what would let one opening line blank out a whole document.
pub const SWALLOW: usize = 64 << 10;

/// Something that was found. Places count from the beginning of the text.
pub(crate) enum Found {
    /// A match, which begins where the last one ended or later.
    Match { start: usize, end: usize, pattern: PatternID },
    /// The last match goes on to here.
    More { end: usize },
}

/// Where the search stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tracker {
    /// Bytes seen.
    pos: usize,
    /// The last of them.
    before: Option<u8>,
    /// In the order of their beginnings.
    live: Vec<Candidate>,
    swallowing: Option<Swallowing>,
    clear: Clear,
    /// Scratch: states that are taken, by number.
    taken: Vec<u64>,
}

#[derive(Debug, Clone)]
struct Candidate {
    start: usize,
    /// Where the last candidate began that came to the same state as this one, and when it did.
    latest: usize,
    merged: usize,
    state: StateID,
    alive: bool,
    /// The end of the longest match so far, and of which pattern.
    matched: Option<(usize, PatternID)>,
}

/// A match longer than the window, of which everything is taken away until it can go on no more.
#[derive(Debug, Clone, Copy)]
enum Swallowing {
    While {
        state: StateID,
        start: usize,
    },
    /// It ended inside a character, of which the rest goes with it.
    Character,
}

/// Below this many candidates they are compared with each other, above through a set of states.
const FEW: usize = 8;

impl Tracker {
    /// Bytes seen so far.
    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    /// Everything before this place is decided.
    pub(crate) fn decided(&self) -> usize {
        self.live.first().map_or(self.pos, |candidate| candidate.start)
    }

    /// Takes the next bytes and tells what was found.
    pub(crate) fn advance(&mut self, set: &Set, bytes: &[u8], each: &mut impl FnMut(Found)) {
        let mut rest = bytes;
        while let [first, after @ ..] = rest {
            if self.live.is_empty() && self.swallowing.is_none() {
                let (passed, left) = rest.split_at(set.skip(self.pos, rest, &mut self.clear).min(rest.len()));
                if let Some(last) = passed.last() {
                    self.pos += passed.len();
                    self.before = Some(*last);
                    rest = left;
                    continue;
                }
            }
            let passed = self.run(set, rest);
            if passed > 0 {
                rest = rest.get(passed..).unwrap_or_default();
                continue;
            }
            self.step(set, *first, after.first().copied(), each);
            rest = after;
        }
        if self.swallowing.is_some() && !bytes.is_empty() {
            each(Found::More { end: self.pos });
        }
    }

    /// The text ends here. The next one begins afresh.
    pub(crate) fn finish(&mut self, set: &Set, each: &mut impl FnMut(Found)) {
        for candidate in self.live.iter_mut().filter(|candidate| candidate.alive) {
            candidate.state = set.end(candidate.state);
            candidate.note(set, self.pos);
            candidate.alive = false;
        }
        self.settle(each);
        *self = Self { taken: std::mem::take(&mut self.taken), ..Self::default() };
    }

    /// The common case in short: one candidate that goes on, and none that begins. Takes bytes as long
    /// as that is all that happens.
    fn run(&mut self, set: &Set, bytes: &[u8]) -> usize {
        let [only] = self.live.as_mut_slice() else { return 0 };
        if !only.alive {
            return 0;
        }
        let room = (only.start + WINDOW).saturating_sub(self.pos + 1);
        let mut passed = 0;
        for (byte, after) in bytes.iter().zip(bytes.iter().skip(1).map(Some).chain([None])).take(room) {
            let state = set.next(only.state, *byte);
            if set.speaks(state) || set.begin(self.before, *byte, after.copied()).is_some() {
                break;
            }
            only.state = state;
            self.before = Some(*byte);
            passed += 1;
        }
        self.pos += passed;
        passed
    }

    fn step(&mut self, set: &Set, byte: u8, after: Option<u8>, each: &mut impl FnMut(Found)) {
        if self.swallow(set, byte, each) {
            self.pos += 1;
            self.before = Some(byte);
            return;
        }
        for candidate in self.live.iter_mut().filter(|candidate| candidate.alive) {
            candidate.state = set.next(candidate.state, byte);
            candidate.note(set, self.pos);
            candidate.alive = !set.is_dead(candidate.state);
        }
        self.live.retain(|candidate| candidate.alive || candidate.matched.is_some());
        if let Some(state) = set.begin(self.before, byte, after) {
            let start = self.pos;
            self.live.push(Candidate {
                start,
                latest: start,
                merged: start,
                state,
                alive: true,
                matched: None,
            });
        }
        self.pos += 1;
        self.before = Some(byte);
        self.merge();
        self.settle(each);
        self.overrun(each);
    }

    /// Whether the byte belongs to a match that goes on beyond the window.
    fn swallow(&mut self, set: &Set, byte: u8, each: &mut impl FnMut(Found)) -> bool {
        let inside_character = byte & 0xc0 == 0x80;
        self.swallowing = match self.swallowing {
            None => return false,
            Some(Swallowing::While { state, start }) => {
                let next = set.next(state, byte);
                if !set.is_dead(next) && self.pos - start < SWALLOW {
                    Some(Swallowing::While { state: next, start })
                } else {
                    inside_character.then_some(Swallowing::Character)
                }
            }
            Some(Swallowing::Character) => inside_character.then_some(Swallowing::Character),
        };
        if self.swallowing.is_none() {
            each(Found::More { end: self.pos });
        }
        self.swallowing.is_some()
    }

    /// Drops candidates that have the future of an earlier one.
    fn merge(&mut self) {
        match self.live.len() {
            0 | 1 => {}
            2..=FEW => self.merge_few(),
            _ => self.merge_many(),
        }
    }

    fn merge_few(&mut self) {
        let mut at = 1;
        while let Some((earlier, [candidate, ..])) = self.live.split_at_mut_checked(at) {
            let twin = earlier.iter_mut().find(|e| candidate.alive && e.alive && e.state == candidate.state);
            match twin {
                Some(twin) if candidate.matched.is_none() => {
                    twin.absorb(candidate.latest, self.pos);
                    self.live.remove(at);
                    continue;
                }
                // What it has matched counts if the earlier comes to nothing; more than that it cannot.
                Some(_) => candidate.alive = false,
                None => {}
            }
            at += 1;
        }
    }

    fn merge_many(&mut self) {
        let Self { live, taken, pos, .. } = self;
        let place = |state: StateID| (state.as_usize() / 64, 1_u64 << (state.as_usize() % 64));
        let mut twins = Vec::new();
        live.retain_mut(|candidate| {
            if !candidate.alive {
                return true;
            }
            let (word, bit) = place(candidate.state);
            if taken.len() <= word {
                taken.resize(word + 1, 0);
            }
            let Some(slot) = taken.get_mut(word) else { return true };
            if *slot & bit == 0 {
                *slot |= bit;
                return true;
            }
            candidate.alive = false;
            if candidate.matched.is_none() {
                twins.push((candidate.state, candidate.latest));
            }
            candidate.matched.is_some()
        });
        for candidate in live.iter_mut().filter(|candidate| candidate.alive) {
            let (word, _) = place(candidate.state);
            taken.get_mut(word).map(std::mem::take);
        }
        for (state, latest) in twins {
            if let Some(twin) = live.iter_mut().find(|c| c.alive && c.state == state) {
                twin.absorb(latest, *pos);
            }
        }
    }

    /// Tells matches that can neither grow nor be covered by an earlier one.
    fn settle(&mut self, each: &mut impl FnMut(Found)) {
        while let Some(first) = self.live.first().filter(|candidate| !candidate.alive) {
            let (start, matched) = (first.start, first.matched);
            self.live.remove(0);
            if let Some((end, pattern)) = matched {
                each(Found::Match { start, end, pattern });
                self.cover(end);
            }
        }
    }

    /// Drops candidates that began within a match.
    fn cover(&mut self, end: usize) {
        for candidate in &mut self.live {
            // Another may have begun behind the match and come to the same state.
            if candidate.start < end && candidate.latest >= end && candidate.alive {
                candidate.start = candidate.latest;
                candidate.matched = candidate.matched.filter(|(end, _)| *end >= candidate.merged);
            }
        }
        self.live.retain(|candidate| candidate.start >= end);
        self.live.sort_by_key(|candidate| candidate.start);
    }

    /// Decides what stayed undecided for a whole window: a match goes on being swallowed, anything else
    /// is none.
    fn overrun(&mut self, each: &mut impl FnMut(Found)) {
        while let Some(first) = self.live.first_mut().filter(|c| c.alive && self.pos - c.start >= WINDOW) {
            match first.matched {
                Some((_, pattern)) => {
                    let (start, state) = (first.start, first.state);
                    self.live.clear();
                    self.swallowing = Some(Swallowing::While { state, start });
                    each(Found::Match { start, end: self.pos, pattern });
                }
                None if first.latest > first.start => {
                    first.start = first.latest;
                    self.live.sort_by_key(|candidate| candidate.start);
                }
                None => {
                    self.live.remove(0);
                }
            }
        }
        self.settle(each);
    }
}

impl Candidate {
    /// Takes in a later candidate that came to the same state, before it matched anything.
    fn absorb(&mut self, latest: usize, now: usize) {
        if latest > self.latest {
            (self.latest, self.merged) = (latest, now);
        }
    }

    /// Notes a match that ended at `end`, where the state says so.
    fn note(&mut self, set: &Set, end: usize) {
        if let Some(pattern) = set.matched(self.state) {
            self.matched = Some((end, pattern));
        }
    }
}
