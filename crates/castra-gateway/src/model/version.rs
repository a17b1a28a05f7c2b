//! A version of a model route: what it is made of, and the digest by which records name exactly that.

use std::{fmt, sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use castra_core::Digest;
use castra_net::client::HttpClient;
use castra_protocol::{
    a2a::jcs::{JcsError, canonical},
    model::{Api, Form, Target},
};
use http::{HeaderName, HeaderValue, Uri};
use serde_json::{Map, Value, json};

use super::{health::Health, provider::Endpoint};

/// Who answers. Each has its own way to take a key; OpenAI's three speak the same forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// OpenAI.
    OpenAi,
    /// A server that speaks OpenAI's chat completions: Ollama, vLLM, llama.cpp and many others.
    OpenAiCompatible,
    /// Anthropic.
    Anthropic,
    /// Google's Gemini API.
    Gemini,
    /// Azure OpenAI.
    Azure,
}

impl Provider {
    /// The word of the configuration, of records and of price tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::OpenAiCompatible => "openai-compatible",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Azure => "azure",
        }
    }
}

/// Which of OpenAI's two forms is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OpenAiForm {
    /// Chat completions.
    #[default]
    Chat,
    /// Responses.
    Responses,
}

/// What makes a version what it is. Whoever changes any of it has made another version.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionFacts {
    /// Who answers.
    pub provider: Provider,
    /// Where, without a slash at the end and, for all but Azure's dated interfaces, with the version
    /// of the provider's interface.
    pub base_url: Uri,
    /// The provider's name for the model.
    pub model: String,
    /// Members that are set in each request, over the caller's.
    pub parameters: Map<String, Value>,
    /// The system prompt that stands before the caller's.
    pub system: Option<String>,
    /// The only tools that callers may offer; none: any.
    pub tools: Option<Vec<String>>,
    /// Tokens of an answer where the caller gives no bound.
    pub max_output_tokens: Option<u64>,
    /// Whether the provider has OpenAI's responses besides chat completions.
    pub responses: bool,
    /// Which of the two is used for callers of another form.
    pub form: OpenAiForm,
    /// The dated interface, for Azure.
    pub api_version: Option<String>,
}

impl VersionFacts {
    /// SHA-256 of the facts as JSON in the canonical form of RFC 8785: an object with the members
    /// `v` (1), `provider`, `base_url`, `model`, `parameters`, `system`, `tools` (sorted, each once),
    /// `max_output_tokens`, `responses`, `form` and `api_version`; what is not given is left out.
    /// Keys, headers, weights, time-outs and TLS do not count: they do not change what is answered.
    pub fn digest(&self) -> Digest {
        let document = self.document();
        // The configuration takes no number that has no canonical form; should one come in another way, it
        // still makes a digest of its own.
        let text = canonical(&document).unwrap_or_else(|JcsError::Number| document.to_string());
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(digest(&SHA256, text.as_bytes()).as_ref()) {
            *to = *from;
        }
        Digest(bytes)
    }

    fn document(&self) -> Value {
        let mut document = json!({
            "v": 1,
            "provider": self.provider.as_str(),
            "base_url": self.base_url.to_string().trim_end_matches('/'),
            "model": self.model,
            "parameters": self.parameters,
        });
        let mut put = |name: &str, value: Option<Value>| {
            if let (Some(value), Some(members)) = (value, document.as_object_mut()) {
                members.insert(name.into(), value);
            }
        };
        put("system", self.system.clone().map(Value::from));
        put(
            "tools",
            self.tools.as_ref().map(|tools| {
                let mut tools = tools.clone();
                tools.sort();
                tools.dedup();
                tools.into()
            }),
        );
        put("max_output_tokens", self.max_output_tokens.map(Value::from));
        put("responses", self.responses.then_some(true.into()));
        put("form", (self.form == OpenAiForm::Responses).then_some("responses".into()));
        put("api_version", self.api_version.clone().map(Value::from));
        document
    }

    /// The form in which a call of this kind goes out: the caller's own where the provider has it.
    pub fn form(&self, api: Api) -> Form {
        match self.provider {
            Provider::Anthropic => Form::AnthropicMessages,
            Provider::Gemini => Form::Gemini,
            Provider::OpenAi | Provider::OpenAiCompatible | Provider::Azure => match api {
                Api::Chat | Api::Embeddings => Form::OpenAiChat,
                Api::Responses if self.responses => Form::OpenAiResponses,
                Api::Responses => Form::OpenAiChat,
                Api::Messages | Api::CountTokens => match self.form {
                    OpenAiForm::Responses if self.responses => Form::OpenAiResponses,
                    _ => Form::OpenAiChat,
                },
            },
        }
    }
}

/// One version of a route, ready to be made.
#[derive(Clone)]
pub struct VersionParts {
    /// Its name within the route.
    pub id: String,
    /// What it is.
    pub facts: VersionFacts,
    /// The key, as the provider takes it; none for a server that wants none.
    pub key: Option<Key>,
    /// Headers of each request besides; each name once.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The HTTP client to use.
    pub client: HttpClient,
    /// Its share while nothing was promoted.
    pub weight: u32,
    /// How long one attempt may take to begin its answer.
    pub timeout: Option<Duration>,
    /// Changes when the configuration of this version changes; an unchanged one keeps its connections
    /// and what was learnt about its health.
    pub fingerprint: u64,
}

impl fmt::Debug for VersionParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("VersionParts")
            .field("id", &self.id)
            .field("facts", &self.facts)
            .field("key", &self.key.as_ref().map(|_| "…"))
            .field("headers", &headers)
            .finish_non_exhaustive()
    }
}

/// A provider's key in the header that the provider takes it in; shows nothing.
#[derive(Clone)]
pub struct Key {
    pub(super) name: HeaderName,
    pub(super) value: HeaderValue,
}

impl Key {
    /// Puts a key into its header. None: the text cannot stand in a header.
    pub fn new(provider: Provider, key: &str) -> Option<Self> {
        let (name, text) = match provider {
            Provider::OpenAi | Provider::OpenAiCompatible => ("authorization", format!("Bearer {key}")),
            Provider::Anthropic => ("x-api-key", key.to_owned()),
            Provider::Gemini => ("x-goog-api-key", key.to_owned()),
            Provider::Azure => ("api-key", key.to_owned()),
        };
        if key.is_empty() {
            return None;
        }
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(Self { name: HeaderName::from_static(name), value })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// One version of a route, shared by all who ask it.
#[derive(Debug)]
pub struct Version {
    id: Arc<str>,
    facts: VersionFacts,
    digest: Digest,
    /// The parameters as raw JSON, in the order of their names.
    parameters: Vec<(String, String)>,
    timeout: Option<Duration>,
    fingerprint: u64,
    pub(super) endpoint: Endpoint,
    pub(super) health: Health,
}

impl Version {
    pub(super) fn new(parts: VersionParts, health: Health) -> Self {
        let endpoint = Endpoint::new(&parts);
        let mut parameters: Vec<_> =
            parts.facts.parameters.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
        parameters.sort();
        Self {
            id: parts.id.into(),
            digest: parts.facts.digest(),
            facts: parts.facts,
            parameters,
            timeout: parts.timeout,
            fingerprint: parts.fingerprint,
            endpoint,
            health,
        }
    }

    /// Its name within the route.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What stands for everything that makes it; see [`VersionFacts::digest`].
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Who answers.
    pub fn provider(&self) -> Provider {
        self.facts.provider
    }

    /// The provider's name for the model.
    pub fn model(&self) -> &str {
        &self.facts.model
    }

    /// The form in which a call of this kind goes out.
    pub fn form(&self, api: Api) -> Form {
        self.facts.form(api)
    }

    /// What a request has to be made into. `output_max` bounds the tokens of an answer that nobody else
    /// bounds; `now` is in seconds since 1970.
    pub fn target(&self, api: Api, output_max: Option<u64>, now: u64) -> Target<'_> {
        Target {
            form: self.form(api),
            compatible: self.facts.provider == Provider::OpenAiCompatible,
            model: &self.facts.model,
            params: &self.parameters,
            output_max: self.facts.max_output_tokens.or(output_max),
            system: self.facts.system.as_deref(),
            tools: self.facts.tools.as_deref(),
            now,
        }
    }

    /// Tokens of an answer where the caller gives no bound.
    pub fn max_output_tokens(&self) -> Option<u64> {
        self.facts.max_output_tokens
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> VersionFacts {
        let Value::Object(parameters) = json!({ "top_p": 0.5, "temperature": 1.0, "stop": ["é\n"] }) else {
            panic!("an object")
        };
        VersionFacts {
            provider: Provider::OpenAi,
            base_url: Uri::from_static("https://api.example/v1"),
            model: "some-model".into(),
            parameters,
            system: Some("Be brief.".into()),
            tools: Some(vec!["b".into(), "a".into(), "b".into()]),
            max_output_tokens: None,
            responses: true,
            form: OpenAiForm::Chat,
            api_version: None,
        }
    }

    /// `printf '%s' TEXT | sha256sum` gives the same: whoever reads the record can check it.
    #[test]
    fn the_digest_is_that_of_the_canonical_text() {
        let text = "{\"base_url\":\"https://api.example/v1\",\"model\":\"some-model\",\
            \"parameters\":{\"stop\":[\"é\\n\"],\"temperature\":1,\"top_p\":0.5},\"provider\":\"openai\",\
            \"responses\":true,\"system\":\"Be brief.\",\"tools\":[\"a\",\"b\"],\"v\":1}";
        assert_eq!(canonical(&facts().document()).unwrap(), text);
        let expected = "fd36a926de08cd9870f6ae50a0fcd06c22105fea994cac1cb1d007ea1a992019";
        assert_eq!(facts().digest().to_hex(), expected);
    }

    #[test]
    fn whatever_changes_the_answer_changes_the_digest() {
        let base = facts().digest();
        let changed: [fn(&mut VersionFacts); 9] = [
            |f| f.provider = Provider::Azure,
            |f| f.base_url = Uri::from_static("https://api.example/v2"),
            |f| f.model = "other".into(),
            |f| drop(f.parameters.insert("seed".into(), 1.into())),
            |f| f.system = None,
            |f| f.tools = Some(Vec::new()),
            |f| f.max_output_tokens = Some(1),
            |f| f.form = OpenAiForm::Responses,
            |f| f.api_version = Some("2024-10-21".into()),
        ];
        let mut seen = vec![base];
        for change in changed {
            let mut other = facts();
            change(&mut other);
            assert!(!seen.contains(&other.digest()), "{other:?}");
            seen.push(other.digest());
        }
        let mut same = facts();
        same.base_url = Uri::from_static("https://api.example/v1/");
        same.parameters = same.parameters.into_iter().rev().collect();
        same.tools = Some(vec!["a".into(), "b".into()]);
        assert_eq!(same.digest(), base);
    }

    #[test]
    fn keys_go_where_the_provider_takes_them_and_are_not_shown() {
        let key = |provider| Key::new(provider, "s3cret").expect("a key");
        let header = |provider| {
            let key = key(provider);
            (key.name.to_string(), key.value.to_str().map(str::to_owned).unwrap_or_default())
        };
        assert_eq!(header(Provider::OpenAi), ("authorization".into(), "Bearer s3cret".into()));
        assert_eq!(header(Provider::Anthropic), ("x-api-key".into(), "s3cret".into()));
        assert_eq!(header(Provider::Gemini), ("x-goog-api-key".into(), "s3cret".into()));
        assert_eq!(header(Provider::Azure), ("api-key".into(), "s3cret".into()));
        assert!(Key::new(Provider::OpenAi, "").is_none() && Key::new(Provider::OpenAi, "a\nb").is_none());
        let shown = format!("{:?} {:?}", key(Provider::OpenAi), key(Provider::OpenAi).value);
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn the_callers_own_form_is_kept_where_the_provider_has_it() {
        let mut facts = facts();
        assert_eq!(facts.form(Api::Responses), Form::OpenAiResponses);
        assert_eq!(facts.form(Api::Messages), Form::OpenAiChat);
        facts.form = OpenAiForm::Responses;
        assert_eq!(facts.form(Api::Messages), Form::OpenAiResponses);
        assert_eq!(facts.form(Api::Chat), Form::OpenAiChat);
        facts.responses = false;
        assert_eq!(facts.form(Api::Responses), Form::OpenAiChat);
        facts.provider = Provider::Anthropic;
        assert_eq!(facts.form(Api::Chat), Form::AnthropicMessages);
    }
}
