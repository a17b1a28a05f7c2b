//! Tool manifests: what a server's catalogue cannot say about its tools, in TOML, one table per tool.
//!
//! The gate uses `effect` and `external`; the other keys are read and checked, so that a manifest
//! written once for the flow control of later versions is good today.

use std::{collections::BTreeMap, path::Path};

use castra_core::Effect;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{ConfigError, Problem, read_strictly};

/// The tools of one server, by the server's own names for them.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Manifest {
    /// What is said of each tool.
    pub tools: BTreeMap<String, ToolEntry>,
}

/// What a manifest says of a tool.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ToolEntry {
    /// What it does to the world: `"read"`, `"write"` (can be changed back), `"destroy"`, or `"act"`
    /// (anything). Left out: as the server's own hints say, else `"act"`.
    #[schemars(with = "Option<EffectSchema>")]
    pub effect: Option<Effect>,
    /// Whether it reaches something outside the server's own data. Left out: as the server's hints say.
    pub external: Option<bool>,
    /// The integrity of what it returns: `"trusted"` or `"untrusted"`.
    pub output: Option<Output>,
    /// The kind of each critical argument: `"exact"`, `"bounded"`, `"quoted"`, `"composed"`, `"date"` or
    /// `"id:TYPE"`. Arguments that are not named are free text.
    pub args: BTreeMap<String, ArgumentKind>,
    /// Output fields that the server itself vouches for.
    pub attested: Vec<String>,
    /// Output fields by which a user names a record.
    pub keys: Vec<String>,
    /// Such fields that another party writes.
    pub weak_keys: Vec<String>,
    /// The type of the ids that it returns.
    pub object: Option<String>,
    /// Words of a user that ask for this tool.
    pub intent: Vec<String>,
    /// Words for the largest, newest … record, each with the output field that they compare.
    pub superlatives: BTreeMap<String, String>,
    /// Output fields that hold secrets, or `true` for all of its output.
    pub secret: Secret,
}

/// The integrity of what a tool returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// It only holds what the server itself says.
    Trusted,
    /// It may hold what strangers wrote.
    Untrusted,
}

/// The kind of a critical argument.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub enum ArgumentKind {
    /// A value that must come from a trusted source as it is.
    Exact,
    /// A number that must not exceed a trusted one.
    Bounded,
    /// A text that the user gave word by word.
    Quoted,
    /// A text that the agent may write itself.
    Composed,
    /// A date or time.
    Date,
    /// The id of an object of this type.
    Id(String),
}

impl TryFrom<String> for ArgumentKind {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Ok(match text.as_str() {
            "exact" => Self::Exact,
            "bounded" => Self::Bounded,
            "quoted" => Self::Quoted,
            "composed" => Self::Composed,
            "date" => Self::Date,
            other => match other.strip_prefix("id:").filter(|kind| !kind.is_empty()) {
                Some(kind) => Self::Id(kind.into()),
                None => {
                    return Err(format!(
                        "{other:?} is no kind of argument: use exact, bounded, quoted, composed, date or id:TYPE"
                    ));
                }
            },
        })
    }
}

/// What of a tool's output is secret.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Secret {
    /// All of it, or nothing.
    All(bool),
    /// These fields.
    Fields(Vec<String>),
}

impl Default for Secret {
    fn default() -> Self {
        Self::All(false)
    }
}

/// The words of [`Effect`], which core defines without a schema.
#[derive(JsonSchema)]
#[schemars(rename = "Effect", rename_all = "lowercase")]
#[allow(dead_code)]
enum EffectSchema {
    /// It only reads.
    Read,
    /// It changes something that can be changed back.
    Write,
    /// It may destroy something.
    Destroy,
    /// Anything.
    Act,
}

impl Manifest {
    /// Reads a manifest.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        read_strictly(text).map(|(manifest, _)| manifest)
    }

    /// Reads a manifest file.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = crate::config::read_file(file)?;
        Self::parse(&text).map_err(|problems| ConfigError::Wrong { file: file.into(), problems })
    }
}
