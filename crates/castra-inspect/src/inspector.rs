//! The inspector: patterns compiled once, and whole texts looked at.

use std::{fmt, ops::Range, sync::Arc};

use castra_core::Finding;
use regex_syntax::hir::{Hir, Look};

use crate::{
    automaton::parse_secret,
    scanner::Scanner,
    secrets::{SECRETS, Secret},
    set::{ALL_BYTES_MAX, Kind, ONE_BYTES_MAX, Part, Set},
    settings::{Action, PATTERNS_MAX, Pattern, PatternError, REGEX_BYTES_MAX, Settings},
    tracker::{Found, Tracker},
};

/// Findings of one text that are kept one by one. Of more, each kind is kept once.
pub const FINDINGS_MAX: usize = 256;

/// Finds and masks what must not leave. Cheap to clone.
#[derive(Clone, Default)]
pub struct Inspector {
    sets: Arc<Sets>,
}

/// What is masked and what is only reported are looked for apart, so that a wide pattern that only
/// reports does not hide a secret within its match.
#[derive(Default)]
pub(crate) struct Sets {
    pub(crate) mask: Option<Set>,
    pub(crate) report: Option<Set>,
}

/// A text in which something was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masked {
    /// The text with masks; none if what was found is only to be reported.
    pub text: Option<String>,
    /// What was found, at most [`FINDINGS_MAX`] and one of each kind; places are of the text as it was.
    pub findings: Vec<Finding>,
}

/// One match in a whole text.
pub(crate) struct Hit<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) place: Range<usize>,
    pub(crate) masked: bool,
}

impl Hit<'_> {
    pub(crate) fn finding(&self, place: Range<usize>) -> Finding {
        Finding {
            kind: self.kind.kind.clone(),
            severity: self.kind.severity,
            confidence: self.kind.confidence,
            place,
        }
    }
}

impl Inspector {
    /// Compiles the operator's patterns, the built-in list with them. That takes some milliseconds; the list
    /// alone is compiled already.
    pub fn new(settings: &Settings) -> Result<Self, PatternError> {
        if settings.patterns.len() > PATTERNS_MAX {
            return Err(PatternError::TooMany { count: settings.patterns.len() });
        }
        let (mut mask, mut report) = (Vec::new(), Vec::new());
        for (at, pattern) in settings.patterns.iter().enumerate() {
            let earlier = settings.patterns.iter().take(at);
            if earlier.into_iter().any(|other| other.name == pattern.name) {
                return Err(PatternError::Duplicate { name: pattern.name.clone() });
            }
            let part = part(pattern)?;
            match pattern.action {
                Action::Mask => mask.push(part),
                Action::Report => report.push(part),
                Action::Off => {}
            }
        }
        let set = |parts, action| set(parts, settings.secrets == action);
        Ok(Self {
            sets: Arc::new(Sets { mask: set(mask, Action::Mask)?, report: set(report, Action::Report)? }),
        })
    }

    /// An inspector for one channel of text.
    pub fn scanner(&self) -> Scanner {
        Scanner::new(self.sets.clone())
    }

    /// Whether it looks for anything at all.
    pub fn looks(&self) -> bool {
        self.sets.mask.is_some() || self.sets.report.is_some()
    }

    /// Looks at a whole text. None when nothing was found.
    pub fn mask_text(&self, text: &str) -> Option<Masked> {
        let mut masked = String::new();
        let mut done = 0;
        let mut findings = Vec::new();
        self.hits(text, &mut |hit| {
            if hit.masked {
                masked.push_str(text.get(done..hit.place.start).unwrap_or_default());
                masked.push_str(&hit.kind.mask);
                done = hit.place.end;
            }
            keep(&mut findings, hit.finding(hit.place.clone()));
        });
        if findings.is_empty() {
            return None;
        }
        masked.push_str(text.get(done..).unwrap_or_default());
        Some(Masked { text: (done > 0).then_some(masked), findings })
    }

    /// Whether something may be found in a text; false is certain, and quick.
    pub(crate) fn may_match(&self, text: &str) -> bool {
        let may = |set: &Option<Set>| set.as_ref().is_some_and(|set| set.may_match(text.as_bytes()));
        may(&self.sets.mask) || may(&self.sets.report)
    }

    /// All matches in a whole text: first those that are masked in their order, then those that are
    /// reported.
    pub(crate) fn hits(&self, text: &str, each: &mut impl FnMut(&Hit<'_>)) {
        for (set, masked) in [(&self.sets.mask, true), (&self.sets.report, false)] {
            if let Some(set) = set.as_ref().filter(|set| set.may_match(text.as_bytes())) {
                hits_of(set, masked, text, each);
            }
        }
    }
}

impl fmt::Debug for Inspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspector").field("looks", &self.looks()).finish_non_exhaustive()
    }
}

fn hits_of(set: &Set, masked: bool, text: &str, each: &mut impl FnMut(&Hit<'_>)) {
    // A match is told when it is known to go no further, or from the window on piece by piece.
    let mut last: Option<(Range<usize>, &Kind)> = None;
    let mut tell = |last: &mut Option<(Range<usize>, _)>| {
        if let Some((place, kind)) = last.take() {
            each(&Hit { kind, place, masked });
        }
    };
    let mut take = |found| match found {
        Found::Match { start, end, pattern } => {
            tell(&mut last);
            last = set.kind(pattern).map(|kind| (start..end, kind));
        }
        Found::More { end } => {
            if let Some((place, _)) = &mut last {
                place.end = place.end.max(end);
            }
        }
    };
    let mut tracker = Tracker::default();
    tracker.advance(set, text.as_bytes(), &mut take);
    tracker.finish(set, &mut take);
    tell(&mut last);
}

/// Keeps a finding, if there is room or it is the first of its kind.
pub(crate) fn keep(findings: &mut Vec<Finding>, finding: Finding) {
    if findings.len() < FINDINGS_MAX || !findings.iter().any(|known| known.kind == finding.kind) {
        findings.push(finding);
    }
}

/// The kinds among findings, each once and in order.
pub fn kinds(findings: &[Finding]) -> Vec<Arc<str>> {
    let mut kinds: Vec<Arc<str>> = findings.iter().map(|finding| finding.kind.clone()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// The operator's patterns, with the built-in list before them if it is `listed`.
fn set(own: Vec<Part>, listed: bool) -> Result<Option<Set>, PatternError> {
    let set = match (listed, own.is_empty()) {
        (true, true) => Set::built_in().map(Some),
        (true, false) => Set::new(secrets()?.into_iter().chain(own).collect(), ALL_BYTES_MAX),
        (false, _) => Set::new(own, ALL_BYTES_MAX),
    };
    set.map_err(|_| PatternError::TooLargeTogether)
}

/// The built-in list, ready to be compiled.
fn secrets() -> Result<Vec<Part>, PatternError> {
    let one = |secret: &Secret| {
        let hir = parse_secret(secret.regex).map_err(|error| syntax(secret.name, &error))?;
        Ok(Part { hir, kind: Kind::of_secret(secret) })
    };
    SECRETS.iter().map(one).collect()
}

/// A pattern of the operator's, checked.
fn part(pattern: &Pattern) -> Result<Part, PatternError> {
    let name = || pattern.name.clone();
    if !is_name(&pattern.name) {
        return Err(PatternError::Name { name: name() });
    }
    if pattern.regex.len() > REGEX_BYTES_MAX {
        return Err(PatternError::TooLong { name: name(), bytes: pattern.regex.len() });
    }
    let hir = regex_syntax::ParserBuilder::new()
        .nest_limit(50)
        .build()
        .parse(&pattern.regex)
        .map_err(|error| syntax(&pattern.name, &error))?;
    if let Some(what) = hir.properties().look_set().iter().find_map(looks_around) {
        return Err(PatternError::LooksAround { name: name(), what });
    }
    match hir.properties().minimum_len() {
        Some(0) => {
            return Err(PatternError::Vacuous { name: name(), how: "matches the empty text" });
        }
        None => return Err(PatternError::Vacuous { name: name(), how: "can match nothing" }),
        Some(_) => {}
    }
    // The operator says what it is, so it is certain.
    let kind = || Kind::new("pattern", &pattern.name, pattern.severity, 100);
    // Alone first, so that the message can name the one that is too large.
    let alone = Part { hir: Hir::clone(&hir), kind: kind() };
    Set::new(vec![alone], ONE_BYTES_MAX).map_err(|_| PatternError::TooLarge { name: name() })?;
    Ok(Part { hir, kind: kind() })
}

fn is_name(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=40).contains(&name.len())
        && name.bytes().all(good)
        && name.starts_with(|c: char| c.is_ascii_lowercase())
}

/// What an assertion is called, unless it can be told from one byte before and one behind.
fn looks_around(look: Look) -> Option<&'static str> {
    match look {
        Look::Start | Look::StartLF | Look::StartCRLF => Some("the anchor ^ or \\A"),
        Look::End | Look::EndLF | Look::EndCRLF => Some("the anchor $ or \\z"),
        Look::WordUnicode
        | Look::WordUnicodeNegate
        | Look::WordStartUnicode
        | Look::WordEndUnicode
        | Look::WordStartHalfUnicode
        | Look::WordEndHalfUnicode => Some("the word boundary of all languages (\\b, \\B, \\<, \\>)"),
        _ => None,
    }
}

/// The parser's message draws the expression over several lines; its last line is the reason.
fn syntax(name: &str, error: &regex_syntax::Error) -> PatternError {
    let shown = error.to_string();
    let why = shown.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
    PatternError::Syntax { name: name.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_that_was_built_in_is_the_list_in_the_source() {
        let compiled = Set::new(secrets().unwrap(), ALL_BYTES_MAX).ok().flatten().unwrap();
        assert!(Set::built_in().ok().unwrap() == compiled);
    }
}
