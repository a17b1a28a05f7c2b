//! Patterns as one automaton, and what tells quickly that none of them begins here.

use std::sync::Arc;

use castra_core::Severity;
use regex_automata::{
    Anchored, MatchKind, PatternID, Span,
    dfa::{Automaton, StartKind, dense},
    nfa::thompson::{self, WhichCaptures},
    util::{prefilter::Prefilter, primitives::StateID, start},
};
use regex_syntax::hir::{
    Hir,
    literal::{Extractor, Literal},
};

/// Bytes of the automaton of one operator's pattern, and of the working memory that building it takes.
pub(crate) const ONE_BYTES_MAX: usize = 2 << 20;

/// Bytes of the automaton of all patterns together. It is shared by all streams.
pub(crate) const ALL_BYTES_MAX: usize = 24 << 20;

/// Bytes of a literal beginning. Longer ones are no rarer, and text that ends in the middle of one
/// has to be looked at byte by byte.
const LITERAL_BYTES_MAX: usize = 8;

/// Literals of this many bytes are looked for together: vector instructions compare so many at once, and
/// fewer bytes fit much more text. Shorter ones are few and have a search of their own.
const LITERAL_BYTES_MIN: usize = 4;

/// So many are found with vector instructions (what the search for several literals, Teddy, can take).
const LITERALS_MAX: usize = 64;

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
        let dfa = automaton(&hirs, bytes_max)?;
        let start = |before: Option<u8>| {
            let config = start::Config::new().anchored(Anchored::Yes).look_behind(before);
            dfa.start_state(&config).map_err(|_| TooLarge)
        };
        let mut starts = Vec::with_capacity(257);
        for before in (0..=u8::MAX).map(Some).chain([None]) {
            starts.push(start(before)?);
        }
        let searches = searches(&hirs).unwrap_or_default();
        let first = first_bytes(&dfa, &starts);
        let spent = spent(&dfa, &starts);
        Ok(Some(Self {
            searches,
            first,
            spent,
            starts,
            dfa,
            kinds: parts.into_iter().map(|part| part.kind).collect(),
        }))
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

fn automaton(hirs: &[&Hir], bytes_max: usize) -> Result<dense::DFA<Vec<u32>>, TooLarge> {
    let nfa = thompson::Compiler::new()
        .configure(
            thompson::Config::new().which_captures(WhichCaptures::None).nfa_size_limit(Some(bytes_max)),
        )
        .build_many_from_hir(hirs)
        .map_err(|_| TooLarge)?;
    dense::Builder::new()
        .configure(
            dense::Config::new()
                .start_kind(StartKind::Anchored)
                .match_kind(MatchKind::LeftmostFirst)
                .dfa_size_limit(Some(bytes_max))
                .determinize_size_limit(Some(bytes_max)),
        )
        .build_from_nfa(&nfa)
        .map_err(|_| TooLarge)
}

/// Searches for literals with which every match begins; none if some pattern has no such.
fn searches(hirs: &[&Hir]) -> Option<Vec<Search>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for hir in hirs {
        let of_one = Extractor::new().limit_literal_len(LITERAL_BYTES_MAX).extract(hir);
        all.extend(of_one.literals()?.iter().map(Literal::as_bytes).map(<[u8]>::to_vec));
    }
    // A literal of one byte is found as quickly in the automaton.
    if all.iter().any(|literal| literal.len() < 2) {
        return None;
    }
    let (short, mut long): (Vec<_>, Vec<_>) = all.into_iter().partition(|l| l.len() < LITERAL_BYTES_MIN);
    for siblings in [4, 2] {
        for length in (LITERAL_BYTES_MIN..LITERAL_BYTES_MAX).rev() {
            if long.len() > LITERALS_MAX {
                long = shortened(long, length, siblings);
            }
        }
    }
    [long, short].into_iter().filter(|literals| !literals.is_empty()).map(search).collect()
}

fn search(literals: Vec<Vec<u8>>) -> Option<Search> {
    let longest = literals.iter().map(Vec::len).max()?;
    let prefilter = Prefilter::new(MatchKind::LeftmostFirst, &literals)?;
    Some(Search { prefilter, longest })
}

/// Puts one literal of `length` bytes in the place of so many siblings that begin with it. What begins
/// with another literal is left out: it is found by that one.
fn shortened(mut all: Vec<Vec<u8>>, length: usize, siblings_min: usize) -> Vec<Vec<u8>> {
    all.sort();
    let mut out: Vec<Vec<u8>> = Vec::new();
    for siblings in all.chunk_by(|a, b| a.get(..length).is_some_and(|prefix| b.starts_with(prefix))) {
        match siblings.first().and_then(|first| first.get(..length)) {
            Some(prefix) if siblings.len() >= siblings_min => out.push(prefix.to_vec()),
            _ => out.extend_from_slice(siblings),
        }
    }
    out.dedup_by(|next, kept| next.starts_with(kept));
    out
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
