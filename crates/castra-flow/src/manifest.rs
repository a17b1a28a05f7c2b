//! Tool manifests: what a server's catalogue cannot say about its tools, in TOML, one table per tool.
//!
//! A manifest is written once per server and says which output can be trusted, by which fields a user
//! names a record, and which arguments matter. Everything that is left out takes the strict default.

use std::collections::BTreeMap;

use castra_core::Effect;
use serde::{Deserialize, Serialize};

/// The tools of one server, by the server's own names for them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Manifest {
    /// What is said of each tool.
    pub tools: BTreeMap<String, ToolManifest>,
}

/// What a manifest says of a tool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ToolManifest {
    /// What it does to the world: `"read"`, `"write"` (can be changed back), `"destroy"`, or `"act"`
    /// (anything). Left out: as the server's own hints say, else `"act"`.
    #[cfg_attr(feature = "schema", schemars(with = "Option<EffectSchema>"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// Whether it reaches something outside the server's own data. Left out: as the server's hints say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<bool>,
    /// The integrity of what it returns: `"trusted"` or `"untrusted"`. Left out: untrusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    /// The kind of each critical argument: `"prompt"`, `"exact"`, `"directory"`, `"bounded"`, `"quoted"`,
    /// `"composed"`, `"date"` or `"id:TYPE"`. Arguments that are not named are free text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, ArgumentKind>,
    /// Output fields that the server itself vouches for; `["*"]`: all of them, as a directory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attested: Vec<String>,
    /// Output fields by which a user names a record.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Such fields that another party writes. They never name a record by themselves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weak_keys: Vec<String>,
    /// Output fields that say who wrote the record. A record that a stranger wrote is not named by its
    /// keys alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authors: Vec<String>,
    /// The type of the ids that it returns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Words of a user that ask for this tool. Left out: the words of the tool's own name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub intent: Vec<String>,
    /// Words for the largest, newest … record, each with the output field that they compare.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub superlatives: BTreeMap<String, String>,
    /// Output fields that hold secrets, or `true` for all of its output.
    #[serde(skip_serializing_if = "Secret::is_none")]
    pub secret: Secret,
    /// Who may see what it returns: `"public"`, `"internal"`, `"confidential"` or `"restricted"`. What is
    /// confidential or restricted leaves only to `places`. Left out: internal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidentiality: Option<Confidentiality>,
    /// Where confidential output may go: a tool (`"mail/send"`), all tools of a server (`"mail/*"`), an
    /// address (`"ann@example.com"`) or all addresses of a domain (`"@example.com"`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<String>,
}

/// The integrity of what a tool returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// It only holds what the server itself says.
    Trusted,
    /// It may hold what strangers wrote.
    Untrusted,
}

/// Who may see a value. Ordered: the later, the fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Confidentiality {
    /// Everybody.
    Public,
    /// Whom the user writes to.
    #[default]
    Internal,
    /// Only the places that are named for it.
    Confidential,
    /// As `confidential`, and the run counts as one that has read a secret.
    Restricted,
}

/// The kind of a critical argument.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub enum ArgumentKind {
    /// A value that the user wrote: what is bought, reserved, promised.
    Prompt,
    /// A value that must come from a trusted source as it is.
    Exact,
    /// As exact; or one that a trusted listing holds, if the free text with it is the user's own.
    Directory,
    /// A number that must not exceed a trusted one, summed over the run.
    Bounded,
    /// A text that the user gave in quotes, letter by letter.
    Quoted,
    /// A text that the agent may write itself, of words from trusted sources.
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
            "prompt" => Self::Prompt,
            "exact" => Self::Exact,
            "directory" => Self::Directory,
            "bounded" => Self::Bounded,
            "quoted" => Self::Quoted,
            "composed" => Self::Composed,
            "date" => Self::Date,
            other => match other.strip_prefix("id:").filter(|kind| !kind.is_empty()) {
                Some(kind) => Self::Id(kind.into()),
                None => {
                    return Err(format!(
                        "{other:?} is no kind of argument: use prompt, exact, directory, bounded, quoted, \
                         composed, date or id:TYPE"
                    ));
                }
            },
        })
    }
}

impl From<ArgumentKind> for String {
    fn from(kind: ArgumentKind) -> Self {
        match kind {
            ArgumentKind::Prompt => "prompt".into(),
            ArgumentKind::Exact => "exact".into(),
            ArgumentKind::Directory => "directory".into(),
            ArgumentKind::Bounded => "bounded".into(),
            ArgumentKind::Quoted => "quoted".into(),
            ArgumentKind::Composed => "composed".into(),
            ArgumentKind::Date => "date".into(),
            ArgumentKind::Id(object) => format!("id:{object}"),
        }
    }
}

/// What of a tool's output is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Secret {
    /// All of it, or nothing.
    All(bool),
    /// These fields.
    Fields(Vec<String>),
}

impl Secret {
    fn is_none(&self) -> bool {
        *self == Self::All(false)
    }
}

impl Default for Secret {
    fn default() -> Self {
        Self::All(false)
    }
}

/// The words of [`Effect`], which core defines without a schema.
#[cfg(feature = "schema")]
#[derive(schemars::JsonSchema)]
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

/// Why a text is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is no TOML, or not of the form of a manifest; names line, column and the keys that exist.
    #[error("the tool manifest cannot be read: {0}")]
    Form(#[from] toml::de::Error),
    /// It is longer than any manifest.
    #[error("the tool manifest has {0} bytes; at most {max} are read: divide the server", max = Manifest::BYTES_MAX)]
    TooLong(usize),
}

impl Manifest {
    /// Longest text that is taken for a manifest.
    pub const BYTES_MAX: usize = 1 << 20;

    /// Reads a manifest. Unknown keys are errors that name the known ones.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        if text.len() > Self::BYTES_MAX {
            return Err(ManifestError::TooLong(text.len()));
        }
        Ok(toml::from_str(text)?)
    }

    /// The manifest as TOML, without what is left out.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}
