//! Which reader and which writer a translation goes through.

use super::{
    Api, Form, ModelError, Request, RequestFacts, Target, chat,
    ir::{Conversation, Reply},
    messages,
};
use crate::json::Value;

/// A request in another form.
pub(super) struct Translated {
    pub(super) body: String,
    /// Most tokens of the answer, as the body says.
    pub(super) max_output_tokens: Option<u64>,
    pub(super) set_aside: Vec<&'static str>,
}

/// Translates a request to the form of `target`, with its system prompt in front.
pub(super) fn request(request: &Request<'_>, target: &Target<'_>) -> Result<Translated, ModelError> {
    let mut read = read_request(request, target.form)?;
    let body = match target.form {
        Form::OpenAiChat => chat::write_request(&mut read, target)?,
        Form::AnthropicMessages => messages::write_request(&mut read, target)?,
        Form::OpenAiResponses | Form::Gemini => return Err(unserved(request.api, target.form)),
    };
    let default = (target.form == Form::AnthropicMessages).then_some(messages::DEFAULT_MAX_TOKENS);
    Ok(Translated { body, max_output_tokens: read.max_tokens.or(default), set_aside: read.set_aside })
}

fn read_request<'a>(request: &Request<'a>, to: Form) -> Result<Conversation<'a>, ModelError> {
    match request.api {
        Api::Chat => chat::read_request(request, to),
        Api::Messages => messages::read_request(request, to),
        Api::Responses | Api::Embeddings | Api::CountTokens => Err(unserved(request.api, to)),
    }
}

/// Reads an answer of the provider.
pub(super) fn read_reply<'a>(
    facts: &RequestFacts,
    text: &'a str,
    value: Value,
) -> Result<Reply<'a>, ModelError> {
    match facts.form {
        Form::OpenAiChat => chat::read_reply(text, value),
        Form::AnthropicMessages => messages::read_reply(text, value),
        Form::OpenAiResponses | Form::Gemini => Err(unserved(facts.api, facts.form)),
    }
}

/// Writes an answer for the caller.
pub(super) fn write_reply(facts: &RequestFacts, reply: &Reply<'_>) -> Result<String, ModelError> {
    match facts.api {
        Api::Chat => chat::write_reply(reply, facts),
        Api::Messages => messages::write_reply(reply),
        Api::Responses | Api::Embeddings | Api::CountTokens => Err(unserved(facts.api, facts.form)),
    }
}

fn unserved(api: Api, form: Form) -> ModelError {
    ModelError::Unserved { api, form }
}
