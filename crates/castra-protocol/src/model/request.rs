//! A request of a model API as a borrowed view: what the gate must know of it, and where it stands.

use std::borrow::Cow;

use castra_core::Limits;

use super::Api;
use crate::json::{Span, Value};

/// What bounds the parser. The size of the text is bounded by whoever read it.
#[derive(Debug, Clone, Copy)]
pub struct ModelLimits {
    /// Levels of arrays and objects.
    pub depth_max: usize,
    /// Tool definitions in one request; each is looked at by name.
    pub tools_max: usize,
    /// Answers to one request (`n`); each costs the whole output.
    pub choices_max: u64,
}

impl Default for ModelLimits {
    fn default() -> Self {
        Self::from(&Limits::default())
    }
}

impl From<&Limits> for ModelLimits {
    fn from(limits: &Limits) -> Self {
        Self { depth_max: limits.json_depth_max, tools_max: 1024, choices_max: 128 }
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// What it is a request of.
    pub api: Api,
    /// The whole request; `text.as_bytes()` are the bytes that were parsed.
    pub text: &'a str,
    /// The model that it names: a route of this gate.
    pub model: Cow<'a, str>,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether the caller wants the usage as an event of its own at the end of a stream
    /// (`stream_options.include_usage` of chat completions; the other APIs always tell it).
    pub usage_asked: bool,
    /// Most tokens of the answer, as the caller puts it. Each of `choices` answers may have as many.
    pub max_output_tokens: Option<u64>,
    /// How many answers are wanted (`n`); 1 if the request does not say.
    pub choices: u64,
    /// Names of the tools that the model is offered, in order.
    pub tools: Vec<Cow<'a, str>>,
    /// What is in it beside text.
    pub media: Media,
    /// Bytes of the request without encoded media: what a rough count of input tokens starts from.
    pub text_bytes: usize,
    /// The protocol's own name for the conversation that this is a part of.
    pub conversation: Option<Cow<'a, str>>,
    /// Whom the caller says it acts for; a claim, not an identity.
    pub end_user: Option<Cow<'a, str>>,
    /// Where things stand that may have to change.
    pub places: Places,
}

/// How many pieces of media a request has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Media {
    pub images: usize,
    pub files: usize,
    pub audio: usize,
}

/// Where things stand in the text of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Places {
    /// The object itself.
    pub root: Option<Span>,
    /// The name of the model, with its quotes.
    pub model: Option<Span>,
    /// The array of messages (chat, messages), or `input` (responses, embeddings).
    pub messages: Option<Value>,
    /// `system` (messages) or `instructions` (responses).
    pub system: Option<Value>,
    /// `stream_options` (chat).
    pub stream_options: Option<Value>,
    /// `tools`.
    pub tools: Option<Value>,
}

impl<'a> Request<'a> {
    /// The part of the text that a span names.
    pub fn slice(&self, span: Span) -> &'a str {
        span.of(self.text)
    }

    /// A count of input tokens to reserve from a budget, rather too high than too low: a token for
    /// every three bytes of text, and what the providers' documentation gives as the usual cost of an
    /// image. The usage in the answer takes its place.
    pub fn input_estimate(&self) -> u64 {
        const IMAGE_TOKENS: u64 = 1_600;
        const FILE_TOKENS: u64 = 20_000;
        const AUDIO_TOKENS: u64 = 2_000;
        let count = |n: usize, tokens: u64| u64::try_from(n).unwrap_or(u64::MAX).saturating_mul(tokens);
        count(self.text_bytes.div_ceil(3), 1)
            .saturating_add(count(self.media.images, IMAGE_TOKENS))
            .saturating_add(count(self.media.files, FILE_TOKENS))
            .saturating_add(count(self.media.audio, AUDIO_TOKENS))
    }
}
