//! Why a stream ends before its end.

use crate::json::JsonError;

/// Why a stream ends before its end. The caller gets it as an error event of its own form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// HTML, or a JSON document.
    #[error("the provider answered with a document, not with a stream of events; check its base URL")]
    NotEvents,
    /// Not UTF-8.
    #[error("the provider's stream is not UTF-8")]
    NotUtf8,
    /// One event is too long.
    #[error("an event of the provider's stream is longer than {0} bytes")]
    EventTooLong(usize),
    /// All of it together is too long.
    #[error("the provider's stream is longer than {0} bytes")]
    StreamTooLong(u64),
    /// More of something than an answer has.
    #[error("the provider's stream has too many {0}")]
    TooMany(&'static str),
    /// An event whose data is not JSON.
    #[error("an event of the provider's stream is not JSON as the standard has it (byte {0} of its data)")]
    BadEvent(usize),
    /// A member has another type than its form says, or an event stands where none can.
    #[error("the provider's stream is not in its form: {0}")]
    Unexpected(&'static str),
    /// The answer is not, or no longer, the assistant's.
    #[error("the provider's stream speaks in more roles than the assistant's")]
    Role,
    /// A text went on after its end.
    #[error("the provider's stream goes on with a text that had ended")]
    TextAfterEnd,
    /// A tool call's arguments never became JSON.
    #[error("the arguments of the tool call {name:?} are not JSON")]
    CallBroken {
        /// Name of the tool.
        name: String,
    },
    /// A tool call did not end before the stream did.
    #[error("the stream ended inside the tool call {name:?}")]
    CallUnfinished {
        /// Name of the tool.
        name: String,
    },
    /// A tool call is too long.
    #[error("the tool calls of one answer are longer than {0} bytes")]
    CallTooLong(usize),
    /// What was said of a call later is not what was said of it first.
    #[error("the provider's stream changed a tool call after it was made: {0}")]
    CallChanged(&'static str),
    /// Something that the caller's form has no place for.
    #[error("the provider's stream holds something that cannot be translated: {0}")]
    Untranslatable(&'static str),
    /// The stream ended without its end.
    #[error("the provider's stream ended before the answer was complete")]
    Truncated,
    /// The provider gave up, and what it said.
    #[error("the provider gave up: {0}")]
    Provider(String),
    /// The gate ended it.
    #[error("{message}")]
    Cut {
        /// Why, in a word for programs.
        code: &'static str,
        /// Why, for people.
        message: String,
    },
}

impl StreamError {
    /// A word for programs: in the error event and in the record.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotEvents => "not_a_stream",
            Self::NotUtf8 => "not_utf8",
            Self::EventTooLong(_) | Self::StreamTooLong(_) | Self::TooMany(_) => "stream_too_long",
            Self::BadEvent(_) | Self::Unexpected(_) | Self::TextAfterEnd => "stream_malformed",
            Self::Role => "stream_role",
            Self::CallBroken { .. } | Self::CallUnfinished { .. } => "tool_call_broken",
            Self::CallTooLong(_) => "tool_call_too_long",
            Self::CallChanged(_) => "tool_call_changed",
            Self::Untranslatable(_) => "untranslatable",
            Self::Truncated => "stream_truncated",
            Self::Provider(_) => "provider_error",
            Self::Cut { code, .. } => code,
        }
    }

    /// The type of error that the forms of OpenAI and Anthropic share.
    pub(super) fn kind(&self) -> &'static str {
        "api_error"
    }
}

impl From<JsonError> for StreamError {
    /// Without what stands there: it would be text that no inspector has seen.
    fn from(error: JsonError) -> Self {
        Self::BadEvent(error.offset)
    }
}
