//! `[[model]]`: routes that agents name, and the versions behind them.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use castra_core::{ModelName, StreamMode};
use castra_gateway::model::{OpenAiForm, Provider, VersionFacts};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};

use super::{Count, Text, Time, Url};

/// A model route: the name that agents use, at the gate's model interfaces (`/v1/…`), and the versions
/// that answer to it. Which of them serve can be changed while the gate runs: `castra model promote`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "ModelTable")]
pub struct Model {
    /// The name that agents send in `model`.
    pub name: ModelName,
    /// How its answers are inspected; none: by the default.
    pub inspection: Option<StreamMode>,
    /// The versions that are tried when the chosen one gives no answer.
    pub fallback: Option<Vec<String>>,
    /// Further attempts after the first.
    pub retries: u32,
    /// The longest that a `Retry-After` is waited for.
    pub retry_after_max: Duration,
    /// Until the answer begins, over all attempts.
    pub timeout: Option<Duration>,
    /// Failures in a row after which a version is left alone.
    pub breaker_failures: u32,
    /// For how long it is left alone.
    pub breaker_rest: Duration,
    /// What answers.
    pub version: Vec<ModelVersion>,
}

/// A version of a model route.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "VersionTable")]
pub struct ModelVersion {
    /// Its name within the route.
    pub id: String,
    /// Who answers.
    pub provider: Provider,
    /// Where.
    pub base_url: Url,
    /// The provider's name for the model.
    pub model: String,
    /// The provider's key.
    pub key: Option<SecretRef>,
    /// The dated interface, for Azure.
    pub api_version: Option<String>,
    /// Whether the provider has OpenAI's responses.
    pub responses: bool,
    /// Which of OpenAI's forms callers of another form get.
    pub form: OpenAiForm,
    /// Members set in each request.
    pub parameters: Map<String, Value>,
    /// A system prompt before the caller's.
    pub system: Option<Text>,
    /// The only tools that may be offered.
    pub tools: Option<Vec<String>>,
    /// Tokens of an answer where the caller gives no bound.
    pub max_output_tokens: Option<u64>,
    /// Its share while nothing was promoted.
    pub weight: u32,
    /// Until the answer begins, one attempt.
    pub timeout: Option<Duration>,
    /// Headers added to each request.
    pub headers: BTreeMap<String, Text>,
    /// Whether TLS 1.2 is taken too.
    pub tls12: bool,
    /// CAs to trust instead of the system's.
    pub ca: Option<PathBuf>,
}

impl ModelVersion {
    /// What makes the version, with its system prompt as it was looked up.
    pub fn facts(&self, system: Option<String>) -> VersionFacts {
        VersionFacts {
            provider: self.provider,
            base_url: self.base_url.uri().clone(),
            model: self.model.clone(),
            parameters: self.parameters.clone(),
            system,
            tools: self.tools.clone(),
            max_output_tokens: self.max_output_tokens,
            responses: self.responses,
            form: self.form,
            api_version: self.api_version.clone(),
        }
    }
}

/// A `[[model]]` table as it is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Model")]
struct ModelTable {
    /// The name that agents send in `model`, that policies and records use: letters, digits, `.`, `_`, `-`, `:`,
    /// `/`, at most 128.
    #[schemars(with = "String")]
    name: ModelName,
    /// How its answers are inspected on their way: `"window"`, `"hold"` or `"pass"` (not at all). Left out: as
    /// for all.
    #[schemars(with = "Option<StreamModeSchema>")]
    inspection: Option<StreamMode>,
    /// Ids of the versions that are tried, in this order, when the chosen one cannot be reached, fails (5xx),
    /// has had enough (429) or is late. Left out: the others that serve. An empty list: none.
    fallback: Option<Vec<String>>,
    /// How often it is tried again after the first attempt: at the next version, or after a wait at the same
    /// one. 0 to 10.
    #[serde(default = "retries")]
    #[schemars(range(min = 0, max = 10))]
    retries: u32,
    /// The longest that a provider's `Retry-After` is waited for within a call; one that asks for more is not
    /// asked again by that call.
    #[serde(default = "retry_after_max")]
    retry_after_max: Time<0>,
    /// All attempts together have this long until the answer begins. Left out: `limits.call_time_max`.
    timeout: Option<Time>,
    /// A version that fails this often in a row is left alone for a while; then one call tries it.
    #[serde(default = "breaker_failures")]
    breaker_failures: Count<1000>,
    /// How long it is left alone; longer if its `Retry-After` says so, at most ten times as long.
    #[serde(default = "breaker_rest")]
    breaker_rest: Time,
    /// What answers to the name.
    version: Vec<ModelVersion>,
}

fn retries() -> u32 {
    2
}

fn retry_after_max() -> Time<0> {
    Time(Duration::from_secs(10))
}

fn breaker_failures() -> Count<1000> {
    Count(5)
}

fn breaker_rest() -> Time {
    Time(Duration::from_secs(30))
}

impl TryFrom<ModelTable> for Model {
    type Error = String;

    fn try_from(t: ModelTable) -> Result<Self, String> {
        let name = &t.name;
        if t.version.is_empty() {
            return Err(format!("model {name} has no version: add [[model.version]] with what answers"));
        }
        if t.retries > 10 {
            return Err(format!("retries of model {name}: expected 0 to 10"));
        }
        for (n, version) in t.version.iter().enumerate() {
            if t.version.iter().take(n).any(|other| other.id == version.id) {
                return Err(format!("model {name} has two versions {:?}: ids are unique", version.id));
            }
        }
        for id in t.fallback.iter().flatten() {
            if !t.version.iter().any(|version| version.id == *id) {
                let known: Vec<&str> = t.version.iter().map(|v| v.id.as_str()).collect();
                return Err(format!(
                    "fallback of model {name}: there is no version {id:?}, there are {}",
                    known.join(", ")
                ));
            }
        }
        Ok(Self {
            name: t.name,
            inspection: t.inspection,
            fallback: t.fallback,
            retries: t.retries,
            retry_after_max: t.retry_after_max.0,
            timeout: t.timeout.map(|t| t.0),
            breaker_failures: u32::try_from(t.breaker_failures.0).unwrap_or(u32::MAX),
            breaker_rest: t.breaker_rest.0,
            version: t.version,
        })
    }
}

impl JsonSchema for Model {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Model".into()
    }
    fn json_schema(g: &mut schemars::SchemaGenerator) -> schemars::Schema {
        ModelTable::json_schema(g)
    }
}

/// A `[[model.version]]` table as it is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ModelVersion")]
struct VersionTable {
    /// Its name within the route, such as `v1`: letters, digits, `.`, `_`, `-`, at most 64. Change it
    /// whenever you change what the version is; records also name a digest of that.
    id: String,
    /// Who answers.
    provider: ProviderWord,
    /// Where, up to and with the version of the interface (`https://api.example/v1`). Left out: where
    /// OpenAI, Anthropic and Gemini are. Requests go there and nowhere else; redirects are not followed.
    base_url: Option<Url>,
    /// The provider's name for the model; for Azure, the deployment.
    model: String,
    /// The provider's key: `env:NAME` or `file:PATH`. It never stands in this file. A changed file counts
    /// at once. Only a server of your own that wants none may go without.
    key: Option<SecretRef>,
    /// Azure's dated interfaces only: the date that goes into `api-version`. `base_url` then ends with
    /// `/openai/deployments/NAME`; without a date it ends with `/openai/v1`.
    api_version: Option<String>,
    /// The server has OpenAI's responses (`/responses`) besides chat completions. OpenAI has them anyway.
    responses: Option<bool>,
    /// Which of OpenAI's two forms is used for callers of another form, where the provider has both.
    #[serde(default)]
    form: FormWord,
    /// Members that are set in each request, over what the caller says: names and values as the provider
    /// has them.
    #[serde(default)]
    parameters: BTreeMap<String, Value>,
    /// A system prompt that stands before the caller's own: a text, or `file:PATH`.
    system: Option<Text>,
    /// The only tools that callers may offer the model, by name; a request with another one is refused.
    /// Left out: any. An empty list: none.
    tools: Option<Vec<String>>,
    /// Tokens of an answer where the caller gives no bound.
    #[schemars(range(min = 1))]
    max_output_tokens: Option<u32>,
    /// Its share of the calls while nothing was promoted, beside the others' weights. Left out
    /// everywhere: the first version serves alone.
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    weight: u32,
    /// One attempt has this long until the answer begins. Left out: as long as the route has.
    timeout: Option<Time>,
    /// Headers added to each request. Values may be `env:NAME` or `file:PATH`.
    #[serde(default)]
    headers: BTreeMap<String, Text>,
    /// Takes TLS 1.2 besides 1.3. Only for servers that cannot do better.
    #[serde(default)]
    tls12: bool,
    /// Permits an `http` URL to another machine: prompts and answers can be read on the way.
    #[serde(default)]
    plaintext: bool,
    /// A PEM file with the CAs to trust, instead of the system's.
    ca: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Provider")]
enum ProviderWord {
    /// OpenAI.
    Openai,
    /// A server that speaks OpenAI's chat completions: Ollama, vLLM, llama.cpp and many others.
    OpenaiCompatible,
    /// Anthropic.
    Anthropic,
    /// Google's Gemini API.
    Gemini,
    /// Azure OpenAI.
    Azure,
    #[schemars(skip)]
    Vertex,
    #[schemars(skip)]
    Bedrock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "OpenAiForm")]
enum FormWord {
    /// Chat completions.
    #[default]
    Chat,
    /// Responses.
    Responses,
}

/// The words of [`StreamMode`], which core defines without a schema.
#[derive(JsonSchema)]
#[schemars(rename = "StreamMode", rename_all = "lowercase")]
#[allow(dead_code)]
enum StreamModeSchema {
    /// Not at all; answer and record say so.
    Pass,
    /// What cannot be the beginning of something any more leaves at once.
    Window,
    /// Nothing leaves before all of it was inspected.
    Hold,
}

impl ProviderWord {
    /// The provider, or what to use instead of one that Castra has no credentials for.
    fn provider(self) -> Result<Provider, &'static str> {
        match self {
            Self::Openai => Ok(Provider::OpenAi),
            Self::OpenaiCompatible => Ok(Provider::OpenAiCompatible),
            Self::Anthropic => Ok(Provider::Anthropic),
            Self::Gemini => Ok(Provider::Gemini),
            Self::Azure => Ok(Provider::Azure),
            Self::Vertex => Err(
                "vertex wants Google Cloud's short-lived tokens, which Castra does not fetch: use provider = \"gemini\" with a key of the Gemini API, \
                 or \"openai-compatible\" with Vertex's OpenAI-compatible endpoint and key = \"file:PATH\", a file in which something of yours keeps a token fresh",
            ),
            Self::Bedrock => Err(
                "bedrock's own interface wants requests signed with AWS credentials, which Castra does not do: use provider = \"openai-compatible\" with \
                 base_url = \"https://bedrock-runtime.REGION.amazonaws.com/openai/v1\" and a Bedrock API key",
            ),
        }
    }
}

/// Where a provider is that has one address.
fn usual_url(provider: Provider) -> Option<Url> {
    Url::parse(match provider {
        Provider::OpenAi => "https://api.openai.com/v1",
        Provider::Anthropic => "https://api.anthropic.com/v1",
        Provider::Gemini => "https://generativelanguage.googleapis.com/v1beta",
        Provider::OpenAiCompatible | Provider::Azure => return None,
    })
}

impl TryFrom<VersionTable> for ModelVersion {
    type Error = String;

    fn try_from(t: VersionTable) -> Result<Self, String> {
        let id = t.id.clone();
        let wrong = |what: String| format!("version {id:?}: {what}");
        let good = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
        if t.id.is_empty() || t.id.len() > 64 || !t.id.bytes().all(good) {
            return Err(wrong("an id has 1 to 64 letters, digits, '.', '_' or '-'".into()));
        }
        let provider = t.provider.provider().map_err(|why| wrong(why.to_owned()))?;
        let word = provider.as_str();
        if t.model.is_empty() || t.model.len() > 256 || t.model.chars().any(|c| c.is_control() || c == ' ') {
            return Err(wrong(
                "model: expected the provider's name for it, 1 to 256 characters without spaces".into(),
            ));
        }
        let base_url = t.base_url.or_else(|| usual_url(provider));
        let base_url =
            base_url.ok_or_else(|| wrong(format!("base_url is missing: {word} can be anywhere")))?;
        if base_url.uri().query().is_some() {
            return Err(wrong(
                "base_url has a query, and a key in a URL ends in logs: use key and headers".into(),
            ));
        }
        if !base_url.is_protected() && !t.plaintext {
            return Err(wrong(
                "base_url is plain http to another machine: use https, or add plaintext = true".into(),
            ));
        }
        if t.key.is_none() && provider != Provider::OpenAiCompatible {
            return Err(wrong(format!("{word} wants a key: add key = \"env:NAME\" or \"file:PATH\"")));
        }
        if let Some(date) = &t.api_version {
            if provider != Provider::Azure {
                return Err(wrong(format!("api_version is Azure's; {word} has none: remove it")));
            }
            if date.is_empty() || !date.bytes().all(good) {
                return Err(wrong("api_version: expected a date such as \"2024-10-21\"".into()));
            }
        }
        let has_forms = matches!(provider, Provider::OpenAi | Provider::OpenAiCompatible | Provider::Azure);
        let responses = t.responses.unwrap_or(provider == Provider::OpenAi);
        if !has_forms && (t.responses.is_some() || t.form == FormWord::Responses) {
            return Err(wrong(format!(
                "responses and form are OpenAI's; {word} has its own form: remove them"
            )));
        }
        if t.form == FormWord::Responses && !responses {
            return Err(wrong(
                "form = \"responses\" needs a server that has them: add responses = true".into(),
            ));
        }
        for (name, value) in &t.parameters {
            parameter(name, value).map_err(&wrong)?;
        }
        for name in t.headers.keys() {
            if OURS.contains(&name.to_ascii_lowercase().as_str()) {
                return Err(wrong(format!(
                    "headers: {name} is set by Castra; the provider's key goes into key"
                )));
            }
        }
        if t.max_output_tokens.is_some() && provider == Provider::Gemini {
            return Err(wrong("max_output_tokens: Gemini's bound is one of its generationConfig; set parameters.generationConfig".into()));
        }
        if t.max_output_tokens == Some(0) || t.weight > 1_000_000 {
            return Err(wrong("max_output_tokens is at least 1, weight at most 1000000".into()));
        }
        Ok(Self {
            id: t.id,
            provider,
            base_url,
            model: t.model,
            key: t.key,
            api_version: t.api_version,
            responses,
            form: match t.form {
                FormWord::Chat => OpenAiForm::Chat,
                FormWord::Responses => OpenAiForm::Responses,
            },
            parameters: t.parameters.into_iter().collect(),
            system: t.system,
            tools: t.tools,
            max_output_tokens: t.max_output_tokens.map(u64::from),
            weight: t.weight,
            timeout: t.timeout.map(|t| t.0),
            headers: t.headers,
            tls12: t.tls12,
            ca: t.ca,
        })
    }
}

/// Headers that are not the operator's to set.
const OURS: &[&str] = &[
    "authorization",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
    "host",
    "content-type",
    "content-length",
    "transfer-encoding",
    "connection",
    "accept",
    "accept-encoding",
];

/// Checks a parameter: not one that says what is asked, and nothing that JSON does not have.
fn parameter(name: &str, value: &Value) -> Result<(), String> {
    castra_protocol::model::check_param(name).map_err(|e| format!("parameters: {e}"))?;
    if has_no_json(value) {
        return Err(format!(
            "parameters.{name}: expected what JSON has: no date, no inf, no nan, no integer beyond 2^53"
        ));
    }
    Ok(())
}

/// TOML's dates come out as an object with a private name, its infinities as null.
fn has_no_json(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Number(number) => number.as_i64().is_some_and(|n| n.unsigned_abs() > 1 << 53),
        Value::Array(items) => items.iter().any(has_no_json),
        Value::Object(members) => {
            members.iter().any(|(name, value)| name.starts_with("$__toml_private") || has_no_json(value))
        }
        _ => false,
    }
}

impl JsonSchema for ModelVersion {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ModelVersion".into()
    }
    fn json_schema(g: &mut schemars::SchemaGenerator) -> schemars::Schema {
        VersionTable::json_schema(g)
    }
}

/// Where a secret stands that may not stand in the configuration itself.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretRef(Text);

impl SecretRef {
    /// The place, for looking it up.
    pub fn text(&self) -> &Text {
        &self.0
    }

    /// The file, if it stands in one.
    pub fn file_mut(&mut self) -> Option<&mut PathBuf> {
        match &mut self.0 {
            Text::File(path) => Some(path),
            Text::Plain(_) | Text::Env(_) => None,
        }
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match Text::deserialize(d)? {
            // It is not shown: it may be the key.
            Text::Plain(_) => {
                Err(de::Error::custom("keys do not stand in this file: use \"env:NAME\" or \"file:PATH\""))
            }
            place => Ok(Self(place)),
        }
    }
}

impl JsonSchema for SecretRef {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretRef".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^(env:[A-Za-z0-9_]+|file:.+)$" })
    }
}
