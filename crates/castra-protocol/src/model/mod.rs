//! Model APIs: what callers and providers speak, and what becomes of it in between.
//!
//! [`parse_request`] reads a request into a borrowed [`Request`], which is what routing, budgets and
//! decisions look at. [`prepare`] makes the body for a provider: the caller's own bytes with a few
//! spans changed when the provider speaks the caller's form, a translation through [`ir`] when it does
//! not. [`answer`] does the same on the way back for an answer that came as a whole; streams have
//! their own engine. What cannot be translated is a [`ModelError`] that names the field, never
//! something left out.

mod chat;
mod error;
mod errors;
mod fields;
mod found;
mod gemini;
mod ir;
mod list;
mod messages;
mod openai;
mod prepare;
mod request;
mod responses;
mod stop;
pub mod stream;
mod talk;
mod target;
mod translate;
mod usage;
mod whole;
mod write;

pub use error::ModelError;
pub use errors::{ErrorAnswer, RefusalNotes, provider_error, refusal_answer, status_of, stream_error};
pub use list::{ModelEntry, list_protocol, models_entry, models_list};
pub use messages::DEFAULT_MAX_TOKENS;
pub use prepare::{check_param, prepare};
pub use request::{Media, ModelLimits, Places, Request, parse_request};
pub use stop::StopReason;
pub use talk::{Brought, OfferedTool, ToolResult};
pub use target::{Asked, Prepared, RequestFacts, Target};
pub use usage::Usage;
pub use whole::{AnswerCall, WholeAnswer, answer, replace_calls};

use castra_core::Protocol;

/// What a caller speaks: one place of the gate with its request and answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Api {
    /// OpenAI `POST /v1/chat/completions`.
    Chat,
    /// OpenAI `POST /v1/responses`.
    Responses,
    /// OpenAI `POST /v1/embeddings`.
    Embeddings,
    /// Anthropic `POST /v1/messages`.
    Messages,
    /// Anthropic `POST /v1/messages/count_tokens`.
    CountTokens,
}

impl Api {
    /// The protocol that it belongs to; errors and lists have one form per protocol.
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Chat | Self::Responses | Self::Embeddings => Protocol::OpenAi,
            Self::Messages | Self::CountTokens => Protocol::Anthropic,
        }
    }

    /// The form of a provider that takes this caller's bytes as they are.
    pub fn native_form(self) -> Form {
        match self {
            Self::Chat | Self::Embeddings => Form::OpenAiChat,
            Self::Responses => Form::OpenAiResponses,
            Self::Messages | Self::CountTokens => Form::AnthropicMessages,
        }
    }

    /// The word that records use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::Messages => "messages",
            Self::CountTokens => "count-tokens",
        }
    }
}

/// What a provider speaks. Azure, Ollama, vLLM, llama.cpp and whatever else calls itself compatible
/// speak [`Form::OpenAiChat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// OpenAI chat completions, and embeddings beside them.
    OpenAiChat,
    /// OpenAI responses.
    OpenAiResponses,
    /// Anthropic messages, and token counting beside them.
    AnthropicMessages,
    /// Google Gemini `generateContent`.
    Gemini,
}

impl Form {
    /// Its name in sentences.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAiChat => "OpenAI chat completions",
            Self::OpenAiResponses => "OpenAI responses",
            Self::AnthropicMessages => "Anthropic messages",
            Self::Gemini => "Gemini generateContent",
        }
    }
}

/// One call of a tool that a model asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// The id that the result must name. Unique within an answer, as far as the provider keeps to it.
    pub id: String,
    /// Name of the tool as the caller declared it.
    pub name: String,
    /// The arguments: JSON of an object in every form, but written by a model, so it may be anything.
    pub arguments: String,
}
