//! Which reader and which writer a translation goes through.

use super::{
    Api, Asked, Form, ModelError, Request, RequestFacts, Target, chat, gemini,
    ir::{Conversation, Reply},
    messages, responses,
};
use crate::json::Value;

/// A request in another form.
pub(super) struct Translated {
    pub(super) body: String,
    pub(super) asked: Asked,
    /// Most tokens of the answer, as the body says.
    pub(super) max_output_tokens: Option<u64>,
    pub(super) set_aside: Vec<&'static str>,
}

/// Translates a request to the form of `target`, with its system prompt in front.
pub(super) fn request(request: &Request<'_>, target: &Target<'_>) -> Result<Translated, ModelError> {
    if request.api == Api::Embeddings && target.form == Form::Gemini {
        return gemini::write_texts(request, target);
    }
    let mut read = read_request(request, target.form)?;
    read.max_tokens = read.max_tokens.or(target.output_max);
    let body = match target.form {
        Form::OpenAiChat => chat::write_request(&mut read, target)?,
        Form::AnthropicMessages => messages::write_request(&mut read, target)?,
        Form::OpenAiResponses => responses::write_request(&mut read, target, request.api)?,
        Form::Gemini => gemini::write_request(&mut read, target, request.api)?,
    };
    let asked = match request.api {
        Api::Responses => responses::asked(request)?,
        _ => Asked::Nothing,
    };
    let default = (target.form == Form::AnthropicMessages).then_some(messages::DEFAULT_MAX_TOKENS);
    Ok(Translated { body, asked, max_output_tokens: read.max_tokens.or(default), set_aside: read.set_aside })
}

fn read_request<'a>(request: &Request<'a>, to: Form) -> Result<Conversation<'a>, ModelError> {
    match request.api {
        Api::Chat => chat::read_request(request, to),
        Api::Messages => messages::read_request(request, to),
        Api::Responses => responses::read_request(request, to),
        Api::Embeddings | Api::CountTokens => Err(unserved(request.api, to)),
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
        Form::OpenAiResponses => responses::read_reply(text, value),
        Form::Gemini => gemini::read_reply(text, value, facts),
    }
}

/// Writes an answer for the caller.
pub(super) fn write_reply(facts: &RequestFacts, reply: &Reply<'_>) -> Result<String, ModelError> {
    match facts.api {
        Api::Chat => chat::write_reply(reply, facts),
        Api::Messages => messages::write_reply(reply),
        Api::Responses => responses::write_reply(reply, facts),
        Api::Embeddings | Api::CountTokens => Err(unserved(facts.api, facts.form)),
    }
}

fn unserved(api: Api, form: Form) -> ModelError {
    ModelError::Unserved { api, form }
}
