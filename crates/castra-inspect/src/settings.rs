//! What an operator decides: whether secrets are masked, and patterns of their own.

use castra_core::Severity;

/// Patterns of one operator. More than this is a word list, which an automaton is the wrong tool for.
pub const PATTERNS_MAX: usize = 256;

/// Bytes of one pattern's expression.
pub const REGEX_BYTES_MAX: usize = 2048;

/// What an [`crate::Inspector`] is built from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// What becomes of secrets that the built-in list knows.
    pub secrets: Action,
    /// The operator's own.
    pub patterns: Vec<Pattern>,
}

/// What becomes of what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// A mask takes its place, and it is reported.
    #[default]
    Mask,
    /// It stays where it is and is reported.
    Report,
    /// It is not looked for.
    Off,
}

/// A pattern of the operator's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// Its name: lower case letters, digits and `-`, at most 40. Findings are of the kind
    /// `pattern.NAME`, the mask is `[redacted:NAME]`.
    pub name: String,
    /// A regular expression in the syntax of the `regex` crate, without anchors and look-around but
    /// for the ASCII word boundary `(?-u:\b)`.
    pub regex: String,
    /// How bad a match is.
    pub severity: Severity,
    /// What becomes of a match.
    pub action: Action,
}

/// Why the operator's patterns are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A name that neither records nor masks could hold.
    #[error(
        "pattern {name:?} needs another name: 1 to 40 lower case letters, digits and '-', beginning with a letter"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// One name twice.
    #[error("two patterns are called {name:?}: findings would not tell them apart; rename one")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// Too many.
    #[error("{count} patterns are more than {PATTERNS_MAX}: join some with '|'")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// An expression of too many bytes.
    #[error("pattern {name:?} has {bytes} bytes, more than {REGEX_BYTES_MAX}: divide it into several")]
    TooLong {
        /// The pattern.
        name: String,
        /// Bytes of its expression.
        bytes: usize,
    },
    /// Not a regular expression as we take it.
    #[error("pattern {name:?} is not a regular expression: {why}")]
    Syntax {
        /// The pattern.
        name: String,
        /// What the parser says, in one line.
        why: String,
    },
    /// It looks at what stands around the match.
    #[error(
        "pattern {name:?} uses {what}, which cannot be told of text that comes in pieces: leave it out, or write (?-u:\\b) for a word boundary"
    )]
    LooksAround {
        /// The pattern.
        name: String,
        /// The assertion.
        what: &'static str,
    },
    /// It matches nothing at all, or the empty text everywhere.
    #[error("pattern {name:?} {how}: make it name at least one character that must be there")]
    Vacuous {
        /// The pattern.
        name: String,
        /// Which of both.
        how: &'static str,
    },
    /// Its automaton is too large.
    #[error(
        "pattern {name:?} needs too large an automaton: lower its counts ({{n,m}}), or write ASCII classes such as [A-Za-z0-9_] or (?-u:\\w) instead of \\w, \\d and case-insensitive letters of all languages"
    )]
    TooLarge {
        /// The pattern.
        name: String,
    },
    /// Each is small enough, all of them together are not.
    #[error(
        "the patterns together need too large an automaton: parts without an end such as .* multiply with each other; give them bounds, or leave some out"
    )]
    TooLargeTogether,
}

impl PatternError {
    /// The pattern that is at fault, where it is one.
    pub fn pattern(&self) -> Option<&str> {
        match self {
            Self::Name { name }
            | Self::Duplicate { name }
            | Self::TooLong { name, .. }
            | Self::Syntax { name, .. }
            | Self::LooksAround { name, .. }
            | Self::Vacuous { name, .. }
            | Self::TooLarge { name } => Some(name),
            Self::TooMany { .. } | Self::TooLargeTogether => None,
        }
    }
}
