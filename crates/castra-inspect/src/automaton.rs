//! How patterns become one automaton and the literals that tell quickly where a match may begin. The
//! build script does this for the built-in list, the crate for patterns of operators.

use regex_automata::{
    MatchKind,
    dfa::{StartKind, dense},
    nfa::thompson::{self, WhichCaptures},
};
use regex_syntax::hir::{
    Hir,
    literal::{Extractor, Literal},
};

/// Bytes of a literal beginning. Longer ones are no rarer, and text that ends in the middle of one
/// has to be looked at byte by byte.
const LITERAL_BYTES_MAX: usize = 8;

/// Literals of this many bytes are looked for together: vector instructions compare so many at once, and
/// fewer bytes fit much more text. Shorter ones are few and have a search of their own.
const LITERAL_BYTES_MIN: usize = 4;

/// So many are found with vector instructions (what the search for several literals, Teddy, can take).
const LITERALS_MAX: usize = 64;

/// An expression of the built-in list. It is of bytes, not Unicode.
pub(crate) fn parse_secret(regex: &str) -> Result<Hir, Box<regex_syntax::Error>> {
    regex_syntax::ParserBuilder::new().unicode(false).utf8(true).build().parse(regex).map_err(Box::new)
}

/// The automaton of several patterns; none if it would take more than so many bytes.
pub(crate) fn automaton(hirs: &[&Hir], bytes_max: usize) -> Option<dense::DFA<Vec<u32>>> {
    let nfa = thompson::Compiler::new()
        .configure(
            thompson::Config::new().which_captures(WhichCaptures::None).nfa_size_limit(Some(bytes_max)),
        )
        .build_many_from_hir(hirs)
        .ok()?;
    dense::Builder::new()
        .configure(
            dense::Config::new()
                .start_kind(StartKind::Anchored)
                .match_kind(MatchKind::LeftmostFirst)
                .dfa_size_limit(Some(bytes_max))
                .determinize_size_limit(Some(bytes_max)),
        )
        .build_from_nfa(&nfa)
        .ok()
}

/// Literals with which every match begins, long ones and short ones apart; none if some pattern has no such.
pub(crate) fn literals(hirs: &[&Hir]) -> Option<Vec<Vec<Vec<u8>>>> {
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
    Some([long, short].into_iter().filter(|literals| !literals.is_empty()).collect())
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
