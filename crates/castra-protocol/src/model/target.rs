//! What a request is prepared for, and what comes of it.

use std::{borrow::Cow, sync::Arc};

use super::{Api, Form};

/// The version of a model route that a request is prepared for.
#[derive(Debug, Clone, Copy)]
pub struct Target<'t> {
    /// What its provider speaks.
    pub form: Form,
    /// Whether it is a server that calls itself compatible with OpenAI, rather than OpenAI or Azure:
    /// those know the older names of some members (`max_tokens`, `user`).
    pub compatible: bool,
    /// The provider's own name for the model.
    pub model: &'t str,
    /// Members of the provider's request that this version sets, name and raw JSON. They stand in
    /// place of what the caller says. Names must have passed [`check_param`](super::check_param).
    pub params: &'t [(String, String)],
    /// Most tokens of an answer where neither the caller nor `params` say.
    pub output_max: Option<u64>,
    /// A system prompt that stands before the caller's own.
    pub system: Option<&'t str>,
    /// The only tools that callers may offer the model; None for any.
    pub tools: Option<&'t [String]>,
    /// The time of the request in seconds since 1970: OpenAI's answers carry it.
    pub now: u64,
}

/// A request as it goes to the provider.
#[derive(Debug, Clone)]
pub struct Prepared<'a> {
    /// The body; the caller's own bytes if nothing had to change.
    pub body: Cow<'a, [u8]>,
    /// Path below the provider's base URL, which ends with the version (`https://api.openai.com/v1`,
    /// `https://api.anthropic.com/v1`, `https://generativelanguage.googleapis.com/v1beta`), without a
    /// slash in front; for Gemini with the query that asks for a stream.
    pub endpoint: Cow<'static, str>,
    /// What the answer must be read with.
    pub facts: RequestFacts,
    /// Most tokens of each answer as the provider is told; None if it is not told.
    pub max_output_tokens: Option<u64>,
    /// Fields of the caller that the provider's form has no place for and that change nothing of what
    /// is asked: hints for caches and delivery, and reasoning of earlier turns that only the model
    /// which made it can read. Each name once; empty when the provider speaks the caller's form.
    pub set_aside: Vec<&'static str>,
}

/// What of a request is needed to read, translate and refuse its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFacts {
    /// What the caller speaks.
    pub api: Api,
    /// What the provider speaks.
    pub form: Form,
    /// The model as the caller named it.
    pub model: String,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether the caller wants the usage event of a chat stream. The provider is always asked for it,
    /// so the stream engine leaves it out if this is false.
    pub usage_asked: bool,
    /// The time of the request in seconds since 1970.
    pub created: u64,
    /// What the answer repeats of the request, or follows, where the provider does not see to it.
    pub asked: Asked,
}

impl RequestFacts {
    /// Members of the request that a Responses object repeats, as raw JSON.
    pub fn repeated(&self) -> Option<&Arc<str>> {
        match &self.asked {
            Asked::Response { repeated, .. } => Some(repeated),
            Asked::Nothing | Asked::Vectors { .. } => None,
        }
    }
}

/// What an answer repeats of its request, or follows, where the provider does not see to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    #[default]
    Nothing,
    /// A Responses object.
    Response {
        /// Members of the request that it repeats, as raw JSON: `"instructions":null,"tools":[]`.
        repeated: Arc<str>,
        /// Whether what a model sealed of its reasoning is wanted (`include` has
        /// `reasoning.encrypted_content`).
        sealed_reasoning: bool,
    },
    /// Vectors.
    Vectors {
        /// As base64 of little-endian floats of 32 bits rather than as numbers.
        base64: bool,
    },
}
