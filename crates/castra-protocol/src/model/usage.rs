//! Tokens that a call used, over all forms.

use super::{
    ModelError,
    fields::{Fields, Place, whole},
};
use crate::json::{DEPTH_CEILING, Value};

/// Tokens that a call used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// All input tokens, those from and for a cache included. (OpenAI counts so; Anthropic counts them
    /// apart.)
    pub input_tokens: u64,
    /// All output tokens, reasoning included.
    pub output_tokens: u64,
    /// Input tokens that came from a cache, which most providers charge less for.
    pub cache_read_tokens: u64,
    /// Input tokens that were written to a cache, which some providers charge more for.
    pub cache_write_tokens: u64,
    /// Output tokens that the model spent on reasoning.
    pub reasoning_tokens: u64,
}

impl Usage {
    /// Input tokens without those from and for a cache, as Anthropic counts them.
    pub fn uncached_input_tokens(&self) -> u64 {
        self.input_tokens.saturating_sub(self.cache_read_tokens).saturating_sub(self.cache_write_tokens)
    }

    /// All tokens.
    pub fn total_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    /// Reads the object `usage` of chat completions and embeddings (`CompletionUsage`), given as JSON.
    /// None if it is not one.
    pub fn from_chat(raw: &str) -> Option<Self> {
        Self::read_chat(raw, whole(raw, DEPTH_CEILING).ok()?, &Place::Root).ok()
    }

    /// Reads the object `usage` of Anthropic messages (`Usage`, `MessageDeltaUsage`), given as JSON. In
    /// a stream, what an event does not tell is zero. None if it is not one.
    pub fn from_messages(raw: &str) -> Option<Self> {
        Self::read_messages(raw, whole(raw, DEPTH_CEILING).ok()?, &Place::Root).ok()
    }

    pub(super) fn read_chat(text: &str, value: Value, place: &Place<'_>) -> Result<Self, ModelError> {
        let mut usage = Fields::of(text, value, place)?;
        let mut read = Self {
            input_tokens: usage.unsigned("prompt_tokens")?.unwrap_or(0),
            output_tokens: usage.unsigned("completion_tokens")?.unwrap_or(0),
            ..Self::default()
        };
        if let Some(details) = usage.object("prompt_tokens_details")? {
            let mut details = Fields::of(text, details, place)?;
            read.cache_read_tokens = details.unsigned("cached_tokens")?.unwrap_or(0);
            read.cache_write_tokens = details.unsigned("cache_write_tokens")?.unwrap_or(0);
        }
        if let Some(details) = usage.object("completion_tokens_details")? {
            let mut details = Fields::of(text, details, place)?;
            read.reasoning_tokens = details.unsigned("reasoning_tokens")?.unwrap_or(0);
        }
        Ok(read)
    }

    pub(super) fn read_messages(text: &str, value: Value, place: &Place<'_>) -> Result<Self, ModelError> {
        let mut usage = Fields::of(text, value, place)?;
        let uncached = usage.unsigned("input_tokens")?.unwrap_or(0);
        let read = usage.unsigned("cache_read_input_tokens")?.unwrap_or(0);
        let written = usage.unsigned("cache_creation_input_tokens")?.unwrap_or(0);
        let reasoning = match usage.object("output_tokens_details")? {
            Some(details) => Fields::of(text, details, place)?.unsigned("thinking_tokens")?.unwrap_or(0),
            None => 0,
        };
        Ok(Self {
            input_tokens: uncached.saturating_add(read).saturating_add(written),
            output_tokens: usage.unsigned("output_tokens")?.unwrap_or(0),
            cache_read_tokens: read,
            cache_write_tokens: written,
            reasoning_tokens: reasoning,
        })
    }

    /// The object `usage` of chat completions.
    pub fn to_chat(&self) -> String {
        format!(
            "{{\"prompt_tokens\":{},\"completion_tokens\":{},\"total_tokens\":{},\
             \"prompt_tokens_details\":{{\"cached_tokens\":{},\"cache_write_tokens\":{}}},\
             \"completion_tokens_details\":{{\"reasoning_tokens\":{}}}}}",
            self.input_tokens,
            self.output_tokens,
            self.total_tokens(),
            self.cache_read_tokens,
            self.cache_write_tokens,
            self.reasoning_tokens,
        )
    }

    /// The object `usage` of Anthropic messages.
    pub fn to_messages(&self) -> String {
        format!(
            "{{\"input_tokens\":{},\"cache_creation_input_tokens\":{},\"cache_read_input_tokens\":{},\
             \"output_tokens\":{},\"output_tokens_details\":{{\"thinking_tokens\":{}}}}}",
            self.uncached_input_tokens(),
            self.cache_write_tokens,
            self.cache_read_tokens,
            self.output_tokens,
            self.reasoning_tokens,
        )
    }
}
