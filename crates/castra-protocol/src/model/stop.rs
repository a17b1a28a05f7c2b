//! Why a model stopped, over all forms.

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// It had said what it wanted to say.
    End,
    /// The most tokens that were asked for, or that the model can write, are used up.
    MaxTokens,
    /// It came to one of the caller's stop sequences. OpenAI's forms do not tell this from the end.
    StopSequence,
    /// It waits for the results of tool calls.
    ToolCalls,
    /// The provider or the model declined to go on.
    Refusal,
    /// The provider's own long work can be gone on with by sending the answer back (Anthropic).
    Pause,
    /// The model's context is full.
    ContextFull,
}

impl StopReason {
    /// Reads `choices[].finish_reason` of chat completions. `function_call` is the older word for a
    /// tool call. None for a word that the form does not have.
    pub fn from_chat(word: &str) -> Option<Self> {
        Some(match word {
            "stop" => Self::End,
            "length" => Self::MaxTokens,
            "tool_calls" | "function_call" => Self::ToolCalls,
            "content_filter" => Self::Refusal,
            _ => return None,
        })
    }

    /// The word of chat completions. There is none for a pause.
    pub fn as_chat(self) -> Option<&'static str> {
        Some(match self {
            Self::End | Self::StopSequence => "stop",
            Self::MaxTokens | Self::ContextFull => "length",
            Self::ToolCalls => "tool_calls",
            Self::Refusal => "content_filter",
            Self::Pause => return None,
        })
    }

    /// Reads `stop_reason` of Anthropic messages. None for a word that the form does not have.
    pub fn from_messages(word: &str) -> Option<Self> {
        Some(match word {
            "end_turn" => Self::End,
            "max_tokens" => Self::MaxTokens,
            "stop_sequence" => Self::StopSequence,
            "tool_use" => Self::ToolCalls,
            "refusal" => Self::Refusal,
            "pause_turn" => Self::Pause,
            "model_context_window_exceeded" => Self::ContextFull,
            _ => return None,
        })
    }

    /// The word of Anthropic messages.
    pub fn as_messages(self) -> &'static str {
        match self {
            Self::End => "end_turn",
            Self::MaxTokens => "max_tokens",
            Self::StopSequence => "stop_sequence",
            Self::ToolCalls => "tool_use",
            Self::Refusal => "refusal",
            Self::Pause => "pause_turn",
            Self::ContextFull => "model_context_window_exceeded",
        }
    }

    /// The word that records use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::MaxTokens => "max-tokens",
            Self::StopSequence => "stop-sequence",
            Self::ToolCalls => "tool-calls",
            Self::Refusal => "refusal",
            Self::Pause => "pause",
            Self::ContextFull => "context-full",
        }
    }
}
