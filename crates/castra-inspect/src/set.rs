//! Patterns as one automaton, and what tells quickly that none of them begins here.

use std::sync::Arc;

use castra_core::Severity;
use regex_automata::{
    Anchored, MatchKind, PatternID, Span,
    dfa::{Automaton, dense},
    util::{prefilter::Prefilter, primitives::StateID, start, wire::AlignAs},
};
use regex_syntax::hir::Hir;

use crate::{
    automaton::{automaton, literals},
    secrets::{SECRETS, Secret},
};

/// Bytes of the automaton of one operator's pattern, and of the working memory that building it takes.
pub(crate) const ONE_BYTES_MAX: usize = 2 << 20;

/// Bytes of the automaton of all patterns together. It is shared by all streams.
pub(crate) const ALL_BYTES_MAX: usize = 24 << 20;

/// The automaton of the built-in list, as the build script wrote it.
static BUILT_IN: &AlignAs<[u8], u32> =
    &AlignAs { _align: [], bytes: *include_bytes!(concat!(env!("OUT_DIR"), "/secrets.dfa")) };

// `BUILT_IN_LITERALS`: what every match of it begins with, by length.
include!(concat!(env!("OUT_DIR"), "/literals.rs"));

/// A pattern, ready to be compiled with others.
pub(crate) struct Part {
    pub(crate) hir: Hir,
    pub(crate) kind: Kind,
}

/// What a match of a pattern means.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    /// `secret.aws-access-key`
    pub(crate) kind: Arc<str>,
    /// `[redacted:aws-access-key]`
    pub(crate) mask: Arc<str>,
    pub(crate) severity: Severity,
    pub(crate) confidence: u8,
}

impl Kind {
    pub(crate) fn of_secret(secret: &Secret) -> Self {
        Self::new("secret", secret.name, secret.severity, secret.confidence)
    }

    pub(crate) fn new(family: &str, name: &str, severity: Severity, confidence: u8) -> Self {
        Self {
            kind: format!("{family}.{name}").into(),
            mask: format!("[redacted:{name}]").into(),
            severity,
            confidence,
        }
    }
}

/// The automaton would be larger than it may be.
#[derive(Debug)]
pub(crate) struct TooLarge;

/// Several patterns as one automaton, which is asked whether one of them begins *here*.
///
/// It is anchored: where a match could begin is found first, by literals that all matches begin with,
/// and the automaton says byte by byte whether it goes on. Where several patterns match from one
/// place, the first of them counts, with the preferences (greedy or not) of its expression.
pub(crate) struct Set {
    dfa: dense::DFA<Vec<u32>>,
    /// The state before the first byte, by the byte before it; the last is for the start of the text.
    starts: Vec<StateID>,
    /// States that say that a match ended and cannot go on, by their number; they count as dead.
    spent: Vec<bool>,
    /// Finds where a match may begin; empty if some pattern has no literal that its matches begin with.
    searches: Vec<Search>,
    /// Bytes with which some match begins.
    first: [bool; 256],
    kinds: Vec<Kind>,
}

/// Looks for literals, the longest of which has so many bytes. Every match begins with a literal of one
/// of the searches.
struct Search {
    prefilter: Prefilter,
    longest: usize,
}

impl Search {
    /// None where there is no quick search for these literals.
    fn new<B: AsRef<[u8]>>(literals: &[B]) -> Option<Self> {
        let longest = literals.iter().map(|literal| literal.as_ref().len()).max()?;
        let prefilter = Prefilter::new(MatchKind::LeftmostFirst, literals)?;
        Some(Self { prefilter, longest })
    }

    fn find(&self, text: &[u8]) -> Option<usize> {
        self.prefilter.find(text, Span { start: 0, end: text.len() }).map(|found| found.start)
    }
}

/// Up to where each search of a set is known to find nothing, so that none looks twice.
pub(crate) type Clear = [usize; 2];

impl Set {
    /// Compiles. None when there are no patterns.
    pub(crate) fn new(parts: Vec<Part>, bytes_max: usize) -> Result<Option<Self>, TooLarge> {
        if parts.is_empty() {
            return Ok(None);
        }
        let hirs: Vec<&Hir> = parts.iter().map(|part| &part.hir).collect();
        let dfa = automaton(&hirs, bytes_max).ok_or(TooLarge)?;
        let searches = literals(&hirs).and_then(|sets| sets.iter().map(|set| Search::new(set)).collect());
        let kinds = parts.into_iter().map(|part| part.kind).collect();
        Self::of(dfa, searches.unwrap_or_default(), kinds).map(Some)
    }

    /// The built-in list, which the build script compiled: a start costs a check of its tables instead
    /// of building them anew.
    pub(crate) fn built_in() -> Result<Self, TooLarge> {
        let (dfa, _) = dense::DFA::from_bytes(&BUILT_IN.bytes).map_err(|_| TooLarge)?;
        let searches = BUILT_IN_LITERALS.iter().map(|set| Search::new(set)).collect::<Option<_>>();
        let kinds = SECRETS.iter().map(Kind::of_secret).collect();
        Self::of(dfa.to_owned(), searches.unwrap_or_default(), kinds)
    }

    fn of(dfa: dense::DFA<Vec<u32>>, searches: Vec<Search>, kinds: Vec<Kind>) -> Result<Self, TooLarge> {
        let start = |before: Option<u8>| {
            let config = start::Config::new().anchored(Anchored::Yes).look_behind(before);
            dfa.start_state(&config).map_err(|_| TooLarge)
        };
        let mut starts = Vec::with_capacity(257);
        for before in (0..=u8::MAX).map(Some).chain([None]) {
            starts.push(start(before)?);
        }
        let first = first_bytes(&dfa, &starts);
        let spent = spent(&dfa, &starts);
        Ok(Self { searches, first, spent, starts, dfa, kinds })
    }

    /// Whether a match may begin anywhere in a whole text; false is certain.
    pub(crate) fn may_match(&self, text: &[u8]) -> bool {
        if self.searches.is_empty() {
            return self.first(text) < text.len();
        }
        self.searches.iter().any(|search| search.find(text).is_some())
    }

    /// How many bytes can be passed over because no match begins at any of them, whatever follows.
    /// `pos` is where `rest` stands in the text.
    pub(crate) fn skip(&self, pos: usize, rest: &[u8], clear: &mut Clear) -> usize {
        let mut passed = rest.len();
        for (search, clear) in self.searches.iter().zip(clear) {
            if *clear <= pos {
                // The end of a literal may be in the next piece.
                let Some(known) = (rest.len() + 1).checked_sub(search.longest) else {
                    return self.first(rest);
                };
                *clear = pos + search.find(rest).unwrap_or(known);
            }
            passed = passed.min(*clear - pos);
        }
        if self.searches.is_empty() { self.first(rest) } else { passed }
    }

    /// How many bytes stand before the first with which some match begins.
    fn first(&self, text: &[u8]) -> usize {
        text.iter().take_while(|byte| self.first.get(usize::from(**byte)) == Some(&false)).count()
    }

    /// The state after the first byte of a match; `before` is the byte before it, `after` the one behind
    /// it if that is known already, which spares most candidates.
    pub(crate) fn begin(&self, before: Option<u8>, byte: u8, after: Option<u8>) -> Option<StateID> {
        let start = self.starts.get(before.map_or(256, usize::from))?;
        let state = self.dfa.next_state(*start, byte);
        let nothing = |state| self.dfa.is_special_state(state) && self.dfa.is_dead_state(state);
        let vain = nothing(state) || after.is_some_and(|after| nothing(self.dfa.next_state(state, after)));
        (!vain).then_some(state)
    }

    /// The state after one more byte.
    pub(crate) fn next(&self, state: StateID, byte: u8) -> StateID {
        self.dfa.next_state(state, byte)
    }

    /// The state after the end of the text.
    pub(crate) fn end(&self, state: StateID) -> StateID {
        self.dfa.next_eoi_state(state)
    }

    /// Whether the state says something: that a match ended, or that nothing can come of it.
    pub(crate) fn speaks(&self, state: StateID) -> bool {
        self.dfa.is_special_state(state)
    }

    /// Whether nothing can come of it any more.
    pub(crate) fn is_dead(&self, state: StateID) -> bool {
        self.dfa.is_special_state(state)
            && (self.dfa.is_dead_state(state)
                || self.dfa.is_quit_state(state)
                || self.spent.get(number(&self.dfa, state)) == Some(&true))
    }

    /// The pattern that matched up to, and not including, the byte that led here.
    pub(crate) fn matched(&self, state: StateID) -> Option<PatternID> {
        let is_match = self.dfa.is_special_state(state) && self.dfa.is_match_state(state);
        is_match.then(|| self.dfa.match_pattern(state, 0))
    }

    /// What a match of a pattern means.
    pub(crate) fn kind(&self, pattern: PatternID) -> Option<&Kind> {
        self.kinds.get(pattern.as_usize())
    }
}

/// A match is told one byte late, so that its end can look at what follows. States that only tell
/// are found here once, so that nothing waits for another byte to learn that nothing more comes.
fn spent(dfa: &dense::DFA<Vec<u32>>, starts: &[StateID]) -> Vec<bool> {
    let bytes: Vec<u8> =
        dfa.byte_classes().representatives(0..=u8::MAX).filter_map(|unit| unit.as_u8()).collect();
    let (mut spent, mut known, mut waiting) = (Vec::new(), Vec::new(), starts.to_vec());
    while let Some(state) = waiting.pop() {
        let at = number(dfa, state);
        if known.len() <= at {
            known.resize(at + 1, false);
            spent.resize(at + 1, false);
        }
        let Some(fresh) = known.get_mut(at).filter(|known| !**known) else { continue };
        *fresh = true;
        let mut goes_on = !dfa.is_dead_state(dfa.next_eoi_state(state));
        for next in bytes.iter().map(|byte| dfa.next_state(state, *byte)) {
            if !dfa.is_dead_state(next) {
                goes_on = true;
                if known.get(number(dfa, next)) != Some(&true) {
                    waiting.push(next);
                }
            }
        }
        if let Some(spent) = spent.get_mut(at) {
            *spent = !goes_on && dfa.is_match_state(state);
        }
    }
    spent
}

/// States are numbered by where their transitions stand.
fn number(dfa: &dense::DFA<Vec<u32>>, state: StateID) -> usize {
    state.as_usize() >> dfa.stride2()
}

fn first_bytes(dfa: &dense::DFA<Vec<u32>>, starts: &[StateID]) -> [bool; 256] {
    let mut first = [false; 256];
    for (byte, slot) in (0..=u8::MAX).zip(first.iter_mut()) {
        *slot = starts.iter().any(|start| !dfa.is_dead_state(dfa.next_state(*start, byte)));
    }
    first
}

#[cfg(test)]
impl PartialEq for Set {
    fn eq(&self, other: &Self) -> bool {
        let lengths = |set: &Self| set.searches.iter().map(|search| search.longest).collect::<Vec<_>>();
        self.dfa.to_bytes_native_endian().0 == other.dfa.to_bytes_native_endian().0
            && lengths(self) == lengths(other)
            && (&self.starts, &self.spent, self.first) == (&other.starts, &other.spent, other.first)
    }
}
