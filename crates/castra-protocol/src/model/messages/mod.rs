//! Anthropic messages: requests and answers, read into [`ir`](super::ir) and written from it.
//!
//! Members and their values are those of the official SDK (anthropic-python 2.13, `types`), and
//! `temperature`, `top_p` and `top_k`, which it no longer has but the API still takes for models that
//! know them.

mod read;
mod reply;
mod write;

pub(super) use read::read_request;
pub(super) use reply::{read_reply, write_reply};
pub(super) use write::write_request;

use super::{Form, fields::whole, ir::Call, write::Object};
use crate::json::{DEPTH_CEILING, Kind};

const FORM: Form = Form::AnthropicMessages;

/// `max_tokens` of a request whose caller set no limit; the form requires one. All models that
/// Anthropic serves can write as much.
pub const DEFAULT_MAX_TOKENS: u64 = 16_384;

/// What Anthropic takes as an id or name (`^[a-zA-Z0-9_-]+$`).
fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// The arguments of a call as the JSON object that this form wants; None if they are none.
fn input_of(arguments: &str) -> Option<&str> {
    let arguments = arguments.trim_matches([' ', '\t', '\n', '\r']);
    if arguments.is_empty() {
        return Some("{}");
    }
    let value = whole(arguments, DEPTH_CEILING).ok()?;
    (value.kind == Kind::Object).then_some(arguments)
}

fn tool_use(call: &Call<'_>, input: &str) -> String {
    let mut block = Object::new();
    block.string("type", "tool_use");
    block.string("id", &call.id);
    block.string("name", &call.name);
    block.raw("input", input);
    block.finish()
}

fn text_block(text: &str) -> String {
    let mut block = Object::new();
    block.string("type", "text");
    block.string("text", text);
    block.finish()
}
