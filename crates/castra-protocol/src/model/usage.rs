//! Tokens that a call used, over all forms.

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
}
