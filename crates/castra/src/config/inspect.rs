//! Inspection as it is written: what is looked for in requests and answers, and what becomes of it.

use castra_core::{Severity, StreamMode};
use castra_inspect::{Action, Pattern, Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is looked for in requests and answers, and what becomes of it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Inspect {
    /// What becomes of secrets that Castra knows by their form (cloud and API keys, tokens, private keys, passwords in
    /// URLs): `"mask"` puts `[redacted:NAME]` in their place, `"report"` only records them, `"off"` does not look.
    pub secrets: Becomes,
    /// How answers are inspected where no policy says otherwise (`@inspect`): `"window"` lets out what is clean
    /// as it comes, `"hold"` nothing before all was seen, `"pass"` everything without a look, and says so.
    #[schemars(with = "ModeSchema")]
    pub mode: StreamMode,
    /// A pattern of your own. One table per pattern.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pattern: Vec<InspectPattern>,
}

/// A pattern of your own.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InspectPattern {
    /// Its name: lower case letters, digits and `-`, at most 40. Findings are of the kind `pattern.NAME`, the
    /// mask is `[redacted:NAME]`.
    pub name: String,
    /// A regular expression in the syntax of Rust's `regex`, without `^`, `$` and `\b`; `(?-u:\b)` stands for a word
    /// boundary of ASCII letters. It must match within 4 KiB; what it takes beyond that is masked up to 64 KiB.
    pub regex: String,
    /// How bad it is when it leaves: `"low"`, `"medium"`, `"high"` or `"critical"`.
    #[serde(default = "medium")]
    #[schemars(with = "SeveritySchema")]
    pub severity: Severity,
    /// What becomes of a match, as for `secrets`.
    #[serde(default)]
    pub action: Becomes,
}

/// What becomes of what was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Becomes {
    /// A mask takes its place, and it is recorded.
    #[default]
    Mask,
    /// It stays and is recorded.
    Report,
    /// It is not looked for.
    Off,
}

#[derive(JsonSchema)]
#[schemars(rename = "InspectMode", rename_all = "lowercase")]
#[allow(dead_code)]
enum ModeSchema {
    /// What cannot be the beginning of something any more leaves at once.
    Window,
    /// Nothing leaves before all of it was inspected.
    Hold,
    /// Nothing is inspected; the answer and the record say so.
    Pass,
}

#[derive(JsonSchema)]
#[schemars(rename = "Severity", rename_all = "lowercase")]
#[allow(dead_code)]
enum SeveritySchema {
    /// Worth knowing.
    Low,
    /// Worth looking at.
    Medium,
    /// Harm is likely.
    High,
    /// Harm is certain if it leaves.
    Critical,
}

fn medium() -> Severity {
    Severity::Medium
}

impl From<Becomes> for Action {
    fn from(becomes: Becomes) -> Self {
        match becomes {
            Becomes::Mask => Self::Mask,
            Becomes::Report => Self::Report,
            Becomes::Off => Self::Off,
        }
    }
}

impl Inspect {
    /// As the inspector takes it.
    pub fn settings(&self) -> Settings {
        let pattern = |p: &InspectPattern| Pattern {
            name: p.name.clone(),
            regex: p.regex.clone(),
            severity: p.severity,
            action: p.action.into(),
        };
        Settings { secrets: self.secrets.into(), patterns: self.pattern.iter().map(pattern).collect() }
    }
}
