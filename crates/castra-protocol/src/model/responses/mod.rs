//! OpenAI's Responses API: as what a caller speaks, and as the form of a provider.
//!
//! Items and their members are those of the OpenAPI description that the official SDKs are made of
//! (openai-python 3.57, `types/responses`). Between the same form on both sides only `tools` and
//! `native` are needed; `read` and `reply` translate for callers, `write` for providers. What OpenAI
//! keeps (earlier answers, conversations, prompts, files) or runs itself (hosted tools) exists nowhere
//! else and is refused by name when it would have to be translated.

mod native;
mod read;
mod reply;
mod tools;
mod write;

pub(super) use native::{find, refused_item};
pub(super) use read::{asked, read_request};
pub(super) use reply::{read_reply, write_reply};
pub(super) use tools::offered;
pub(super) use write::write_request;

use super::Form;

const FORM: Form = Form::OpenAiResponses;
