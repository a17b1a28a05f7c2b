//! OpenAI chat completions: requests and answers, read into [`ir`](super::ir) and written from it.
//!
//! Members and their values are those of the OpenAPI description that the official SDKs are made of
//! (openai-python 3.57, `types/chat`). Reasoning text stands in `reasoning_content`, which is not of
//! OpenAI but what DeepSeek, vLLM, SGLang and their clients use.

mod read;
mod reply;
mod write;

pub(super) use read::{read_request, source_of_url};
pub(super) use reply::{read_reply, write_reply};
pub(super) use write::write_request;

use super::Form;

const FORM: Form = Form::OpenAiChat;
