//! What inspectors see, and how an answer is inspected on its way.

use std::{fmt, ops::Range, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// What an inspector saw. Holds no content: the place says where to look in the sealed payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is, such as `secret.aws-access-key`: a family, a dot, a name.
    pub kind: Arc<str>,
    /// How bad it would be.
    pub severity: Severity,
    /// How sure the inspector is, in percent.
    pub confidence: u8,
    /// Bytes of the inspected text.
    pub place: Range<usize>,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Low,
    /// Worth looking at.
    Medium,
    /// Harm is likely.
    High,
    /// Harm is certain if it leaves.
    Critical,
}

impl Severity {
    /// The word that records and policies use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// How the text of an answer is inspected before it leaves. Ordered: the later, the stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamMode {
    /// Not at all; the answer and the record say so.
    Pass,
    /// What cannot be the beginning of something any more leaves at once.
    #[default]
    Window,
    /// Nothing leaves before all of it was inspected.
    Hold,
}

impl StreamMode {
    /// The word that configuration, records and annotations of policies use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Window => "window",
            Self::Hold => "hold",
        }
    }
}

impl fmt::Display for StreamMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StreamMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "pass" => Ok(Self::Pass),
            "window" => Ok(Self::Window),
            "hold" => Ok(Self::Hold),
            _ => Err("the modes of inspection are \"pass\", \"window\" and \"hold\""),
        }
    }
}

/// Inspects one text that comes in pieces, and gives out what may leave, masked.
///
/// How the text is cut into pieces does not matter: what all calls append, one after the other, is
/// what the whole text in one `push` and a `finish` would give. What may still become a part of
/// something is held back, never more than the inspector's window.
pub trait TextScanner: Send {
    /// Takes the next piece and appends to `out` what may leave now. If that is the piece itself, the
    /// bytes that brought it can leave as they came.
    fn push(&mut self, text: &str, out: &mut String);

    /// The text is at its end: appends what was held back. Nothing is pushed afterwards.
    fn finish(&mut self, out: &mut String);

    /// The kinds of what was found so far, such as `secret.aws-access-key`, each once, in the order in
    /// which they were first seen.
    fn findings(&self) -> &[Arc<str>];
}
