//! Token counts as the forms write them. None where what stands there are no counts.

use serde::Deserialize;

use crate::model::Usage;

#[derive(Deserialize)]
struct Chat {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    prompt_tokens_details: Option<Details>,
    completion_tokens_details: Option<Details>,
}

#[derive(Deserialize, Default, Clone, Copy)]
struct Details {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}

/// `usage` of chat completions.
pub(super) fn chat(raw: &str) -> Option<Usage> {
    let usage: Chat = serde_json::from_str(raw).ok()?;
    let input = usage.prompt_tokens_details.unwrap_or_default();
    Some(Usage {
        input_tokens: usage.prompt_tokens,
        output_tokens: usage.completion_tokens,
        cache_read_tokens: input.cached_tokens.unwrap_or(0),
        cache_write_tokens: input.cache_write_tokens.unwrap_or(0),
        reasoning_tokens: usage
            .completion_tokens_details
            .and_then(|details| details.reasoning_tokens)
            .unwrap_or(0),
    })
}

#[derive(Deserialize)]
struct Responses {
    input_tokens: u64,
    output_tokens: u64,
    input_tokens_details: Option<Details>,
    output_tokens_details: Option<Details>,
}

/// `usage` of responses.
pub(super) fn responses(raw: &str) -> Option<Usage> {
    let usage: Responses = serde_json::from_str(raw).ok()?;
    let input = usage.input_tokens_details.unwrap_or_default();
    Some(Usage {
        input_tokens: usage.input_tokens,
        output_tokens: usage.output_tokens,
        cache_read_tokens: input.cached_tokens.unwrap_or(0),
        cache_write_tokens: input.cache_write_tokens.unwrap_or(0),
        reasoning_tokens: usage.output_tokens_details.and_then(|d| d.reasoning_tokens).unwrap_or(0),
    })
}

#[derive(Deserialize)]
struct Messages {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

/// `usage` of Anthropic messages: of `message_start`, or what is known so far of `message_delta`.
pub(super) fn messages(raw: &str) -> Option<Usage> {
    let usage: Messages = serde_json::from_str(raw).ok()?;
    let read = usage.cache_read_input_tokens.unwrap_or(0);
    let written = usage.cache_creation_input_tokens.unwrap_or(0);
    Some(Usage {
        input_tokens: usage.input_tokens.map_or(0, |n| n.saturating_add(read).saturating_add(written)),
        output_tokens: usage.output_tokens.unwrap_or(0),
        cache_read_tokens: read,
        cache_write_tokens: written,
        reasoning_tokens: 0,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Gemini {
    #[serde(default)]
    prompt_token_count: u64,
    #[serde(default)]
    tool_use_prompt_token_count: u64,
    #[serde(default)]
    candidates_token_count: u64,
    #[serde(default)]
    thoughts_token_count: u64,
    #[serde(default)]
    cached_content_token_count: u64,
}

/// `usageMetadata` of Gemini.
pub(super) fn gemini(raw: &str) -> Option<Usage> {
    let usage: Gemini = serde_json::from_str(raw).ok()?;
    Some(Usage {
        input_tokens: usage.prompt_token_count.saturating_add(usage.tool_use_prompt_token_count),
        output_tokens: usage.candidates_token_count.saturating_add(usage.thoughts_token_count),
        cache_read_tokens: usage.cached_content_token_count,
        cache_write_tokens: 0,
        reasoning_tokens: usage.thoughts_token_count,
    })
}
