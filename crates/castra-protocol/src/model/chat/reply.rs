//! Reading and writing an answer.

use super::{read::read_thought_signature, write::write_call};
use crate::{
    json::Value,
    model::{
        ModelError, RequestFacts, StopReason, Usage,
        fields::{Fields, Place, wrapped},
        ir::{Call, Part, Reply},
        write::{Array, Object},
    },
};

/// Reads an answer. Members beside the message (fingerprints, timings) tell of the provider and not
/// of the answer, and are passed over.
pub(in crate::model) fn read_reply(text: &str, value: Value) -> Result<Reply<'_>, ModelError> {
    let root = Place::Root;
    let mut fields = Fields::of(text, value, &root)?;
    let choices = fields.elements("choices")?;
    let place = root.member("choices");
    let [choice] = choices.as_slice() else { return Err(place.wrong("an array of one choice")) };
    let item = place.item(0);
    let mut choice = Fields::of(text, *choice, &item)?;
    let message_place = item.member("message");
    let mut message = wrapped(&mut choice, "message", &message_place)?;
    let (parts, refused) = read_reply_parts(&mut message)?;
    let word = choice.need_string("finish_reason")?;
    let stop = StopReason::from_chat(&word);
    let stop = stop.ok_or_else(|| item.member("finish_reason").wrong("a reason of chat completions"))?;
    let has_calls = parts.iter().any(|part| matches!(part, Part::Call(_)));
    let usage_place = root.member("usage");
    let usage = match fields.object("usage")? {
        Some(usage) => Some(Usage::read_chat(text, usage, &usage_place)?),
        None => None,
    };
    Ok(Reply {
        id: fields.string("id")?.unwrap_or_default(),
        model: fields.string("model")?.unwrap_or_default(),
        parts,
        stop: match stop {
            StopReason::End if refused => StopReason::Refusal,
            // Some compatible servers do not tell.
            StopReason::End if has_calls => StopReason::ToolCalls,
            stop => stop,
        },
        stop_sequence: None,
        usage,
    })
}

/// The parts of a message and whether it is a refusal.
fn read_reply_parts<'a>(message: &mut Fields<'a, '_>) -> Result<(Vec<Part<'a>>, bool), ModelError> {
    message.check_assistant()?;
    let mut parts = Vec::new();
    for name in ["reasoning_content", "reasoning"] {
        // Servers that know both names write the same under both.
        if let Some(text) = message.string(name)?.filter(|text| parts.is_empty() && !text.is_empty()) {
            parts.push(Part::Reasoning { text, signature: None });
        }
    }
    if let Some(text) = message.string("content")?.filter(|text| !text.is_empty()) {
        parts.push(Part::Text(text));
    }
    let refusal = message.string("refusal")?.filter(|text| !text.is_empty());
    let refused = refusal.is_some();
    parts.extend(refusal.map(Part::Refusal));
    for unsaid in ["audio", "function_call"] {
        if message.take(unsaid).is_some() {
            let field = message.place.member(unsaid).to_string();
            return Err(ModelError::AnswerUntranslatable {
                field,
                why: "the caller's form has nothing like it",
            });
        }
    }
    let place = message.place.member("tool_calls");
    for (index, value) in message.elements("tool_calls")?.into_iter().enumerate() {
        parts.push(Part::Call(read_reply_call(message.text, value, &place.item(index), index)?));
    }
    Ok((parts, refused))
}

/// A call of an answer. Some compatible servers give no ids, or empty ones.
fn read_reply_call<'a>(
    text: &'a str,
    value: Value,
    place: &Place<'_>,
    index: usize,
) -> Result<Call<'a>, ModelError> {
    let mut call = Fields::of(text, value, place)?;
    let id = call.string("id")?.filter(|id| !id.is_empty());
    let signature = read_thought_signature(&mut call)?;
    if call.take("custom").is_some() {
        let field = place.member("custom").to_string();
        return Err(ModelError::AnswerUntranslatable {
            field,
            why: "the caller's tools take JSON, not free text",
        });
    }
    let wrapper = place.member("function");
    let mut function = wrapped(&mut call, "function", &wrapper)?;
    Ok(Call {
        id: id.unwrap_or_else(|| format!("castra_call_{index}").into()),
        name: function.need_string("name")?,
        arguments: function.string("arguments")?.unwrap_or_default(),
        signature,
    })
}

/// Writes an answer.
pub(in crate::model) fn write_reply(reply: &Reply<'_>, facts: &RequestFacts) -> Result<String, ModelError> {
    let mut choice = Object::new();
    choice.raw("index", "0");
    choice.raw("message", &write_reply_message(reply)?);
    choice.raw("logprobs", "null");
    let why = "chat completions have no pause";
    let unsaid = || ModelError::AnswerUntranslatable { field: "stop_reason".into(), why };
    choice.string("finish_reason", reply.stop.as_chat().ok_or_else(unsaid)?);
    let mut out = Object::new();
    out.string("id", &reply.id);
    out.string("object", "chat.completion");
    out.raw("created", &facts.created.to_string());
    out.string("model", &reply.model);
    out.raw("choices", &format!("[{}]", choice.finish()));
    if let Some(usage) = &reply.usage {
        out.raw("usage", &usage.to_chat());
    }
    Ok(out.finish())
}

fn write_reply_message(reply: &Reply<'_>) -> Result<String, ModelError> {
    let (mut text, mut refusal, mut reasoning) = (None::<String>, None::<String>, None::<String>);
    let mut calls = Array::new();
    let add = |to: &mut Option<String>, text: &str| to.get_or_insert_default().push_str(text);
    for part in &reply.parts {
        match part {
            Part::Text(more) => add(&mut text, more),
            Part::Refusal(more) => add(&mut refusal, more),
            Part::Reasoning { text, .. } => add(&mut reasoning, text),
            Part::Call(call) => calls.raw(&write_call(call, true)),
            _ => {
                let why = "messages of chat completions hold text and tool calls";
                return Err(ModelError::AnswerUntranslatable { field: "content".into(), why });
            }
        }
    }
    let mut message = Object::new();
    message.string("role", "assistant");
    message.string_or_null("content", text.as_deref());
    message.string_or_null("refusal", refusal.as_deref());
    if let Some(reasoning) = reasoning.filter(|text| !text.is_empty()) {
        message.string("reasoning_content", &reasoning);
    }
    if !calls.is_empty() {
        message.raw("tool_calls", &calls.finish());
    }
    Ok(message.finish())
}
