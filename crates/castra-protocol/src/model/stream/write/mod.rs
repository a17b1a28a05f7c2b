//! Writers: events of the caller's form. A translated stream is written by them from its first event to
//! its last; a stream that passes in its own form takes from them the few events that are put in.

mod chat;
mod messages;
mod responses;

pub(super) use chat::Chat;
pub(super) use messages::{Messages, input, more, note, stop};
pub(super) use responses::Responses;

use std::sync::Arc;

use super::{StreamError, frame::Out, part::TextKind};
use crate::{
    json::quote,
    model::{Api, Asked, RequestFacts, StopReason, ToolCall, Usage},
};

/// What names an answer, as raw JSON.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) id: String,
    pub(super) created: String,
    pub(super) model: String,
    /// Members of the request that a response repeats.
    pub(super) echo: Arc<str>,
}

/// What a response repeats of a request that said nothing of it.
const NOTHING_ASKED: &str = r#""instructions":null,"metadata":{},"parallel_tool_calls":true,"temperature":null,"tool_choice":"auto","tools":[],"top_p":null"#;

impl Head {
    pub(super) fn new(facts: &RequestFacts, id: &str) -> Self {
        let echo = match &facts.asked {
            Asked::Response { repeated, .. } => repeated.clone(),
            _ => NOTHING_ASKED.into(),
        };
        Self { id: quote(id), created: facts.created.to_string(), model: quote(&facts.model), echo }
    }

    /// A name that is built from the answer's id, quoted.
    fn derived(&self, prefix: &str, number: u64) -> String {
        let id: String = self.id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        quote(&format!("{prefix}_{id}_{number}"))
    }
}

#[derive(Debug)]
pub(super) enum Writer {
    Chat(Chat),
    Messages(Messages),
    Responses(Responses),
}

impl Writer {
    pub(super) fn new(facts: &RequestFacts, head: Head, input_tokens: u64) -> Self {
        match facts.api {
            Api::Messages | Api::CountTokens => Self::Messages(Messages::new(head, input_tokens)),
            Api::Responses => Self::Responses(Responses::new(head)),
            Api::Chat | Api::Embeddings => Self::Chat(Chat::new(head, facts.usage_asked)),
        }
    }

    pub(super) fn head(&mut self) -> &mut Head {
        match self {
            Self::Chat(chat) => &mut chat.head,
            Self::Messages(messages) => &mut messages.head,
            Self::Responses(responses) => &mut responses.head,
        }
    }

    /// Whether texts of different kinds follow each other, so that one ends where the next begins.
    pub(super) fn is_sequential(&self) -> bool {
        !matches!(self, Self::Chat(_))
    }

    /// The answer begins; later calls do nothing.
    pub(super) fn start(&mut self, out: &mut Out) {
        match self {
            Self::Chat(_) => {}
            Self::Messages(messages) => messages.start(out),
            Self::Responses(responses) => responses.start(out),
        }
    }

    /// More of what the model says in a choice. Only chat completions have more choices than one.
    pub(super) fn text(&mut self, out: &mut Out, at: u32, kind: TextKind, text: &str) {
        match self {
            Self::Chat(chat) => chat.text(out, at, kind, text),
            Self::Messages(messages) => messages.text(out, kind, text),
            Self::Responses(responses) => responses.text(out, kind, text),
        }
    }

    /// The text of one kind is complete.
    pub(super) fn close(&mut self, out: &mut Out) {
        match self {
            Self::Chat(_) => {}
            Self::Messages(messages) => messages.close(out),
            Self::Responses(responses) => responses.close(out),
        }
    }

    /// A call that may be made.
    pub(super) fn call(&mut self, out: &mut Out, at: u32, call: &ToolCall) {
        match self {
            Self::Chat(chat) => chat.call(out, at, call),
            Self::Messages(messages) => messages.call(out, call),
            Self::Responses(responses) => responses.call(out, call),
        }
    }

    /// What stands in place of a call that may not be made: a text of its own.
    pub(super) fn note(&mut self, out: &mut Out, at: u32, text: &str) {
        self.close(out);
        self.text(out, at, TextKind::Content, text);
        self.close(out);
    }

    /// A choice is complete.
    pub(super) fn stop(&mut self, out: &mut Out, at: u32, reason: StopReason) {
        match self {
            Self::Chat(chat) => chat.stop(out, at, reason),
            Self::Messages(messages) => messages.stop(reason),
            Self::Responses(responses) => responses.stop(reason),
        }
    }

    /// The stream is complete.
    pub(super) fn end(&mut self, out: &mut Out, usage: Usage) {
        match self {
            Self::Chat(chat) => chat.end(out, usage),
            Self::Messages(messages) => messages.end(out, usage),
            Self::Responses(responses) => responses.end(out, usage),
        }
    }

    /// The stream ends here, and why.
    pub(super) fn error(&mut self, out: &mut Out, error: &StreamError) {
        match self {
            Self::Chat(_) => {
                let (code, message) = (quote(error.code()), quote(&error.to_string()));
                let kind = quote(error.kind());
                let data = format!(
                    r#"{{"error":{{"message":{message},"type":{kind},"param":null,"code":{code}}}}}"#
                );
                out.event(None, &data);
                out.done();
            }
            Self::Messages(_) => {
                let (kind, message) = (quote(error.kind()), quote(&error.to_string()));
                let data = format!(r#"{{"type":"error","error":{{"type":{kind},"message":{message}}}}}"#);
                out.event(Some("error"), &data);
            }
            Self::Responses(responses) => responses.error(out, error),
        }
    }
}
