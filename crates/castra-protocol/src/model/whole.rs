//! An answer that came as a whole.

use std::borrow::Cow;

use super::{StopReason, ToolCall, Usage};

/// An answer that came as a whole, in the caller's form.
#[derive(Debug, Clone)]
pub struct WholeAnswer<'a> {
    /// The body for the caller; the provider's own bytes if it speaks the caller's form.
    pub body: Cow<'a, [u8]>,
    /// What the provider says was used; None if it does not say.
    pub usage: Option<Usage>,
    /// The tool calls that the model asks for, in the order in which they stand.
    pub calls: Vec<AnswerCall>,
    /// Why the model stopped (of the first choice).
    pub stop: Option<StopReason>,
    /// The model as the provider names it.
    pub model: Option<String>,
}

/// A tool call of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerCall {
    /// What is to be called.
    pub call: ToolCall,
    /// In which of several answers (`choices`) it stands.
    pub choice: usize,
}
