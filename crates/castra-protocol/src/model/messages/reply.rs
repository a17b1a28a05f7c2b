//! Reading and writing an answer.

use super::{input_of, text_block, tool_use};
use crate::{
    json::Value,
    model::{
        ModelError, StopReason, Usage,
        fields::{Fields, Place},
        ir::{Call, GEMINI, Part, Reply, SIGNATURE},
        write::{Array, Object},
    },
};

/// Reads an answer. Members beside content, reason and usage tell of the provider and not of the
/// answer, and are passed over.
pub(in crate::model) fn read_reply(text: &str, value: Value) -> Result<Reply<'_>, ModelError> {
    let root = Place::Root;
    let mut fields = Fields::of(text, value, &root)?;
    fields.check_assistant()?;
    let place = root.member("content");
    let mut parts = Vec::new();
    if fields.take("content").is_none() {
        return Err(place.missing("an array of content blocks"));
    }
    for (index, value) in fields.elements("content")?.into_iter().enumerate() {
        parts.extend(read_reply_block(text, value, &place.item(index))?);
    }
    let word = fields.need_string("stop_reason")?;
    let stop = StopReason::from_messages(&word);
    let stop = stop.ok_or_else(|| root.member("stop_reason").wrong("a reason of Anthropic messages"))?;
    let place = root.member("stop_details");
    if let Some(details) = fields.object("stop_details")? {
        parts.extend(Fields::of(text, details, &place)?.string("explanation")?.map(Part::Refusal));
    }
    let place = root.member("usage");
    let usage = match fields.object("usage")? {
        Some(usage) => Some(Usage::read_messages(text, usage, &place)?),
        None => None,
    };
    Ok(Reply {
        id: fields.string("id")?.unwrap_or_default(),
        model: fields.string("model")?.unwrap_or_default(),
        parts,
        stop,
        stop_sequence: fields.string("stop_sequence")?,
        usage,
    })
}

fn read_reply_block<'a>(
    text: &'a str,
    value: Value,
    place: &Place<'_>,
) -> Result<Option<Part<'a>>, ModelError> {
    let mut block = Fields::of(text, value, place)?;
    Ok(Some(match &*block.need_string("type")? {
        "text" => Part::Text(block.need_string("text")?),
        "tool_use" => {
            let input = block.object("input")?.ok_or_else(|| place.member("input").missing("an object"))?;
            Part::Call(Call {
                id: block.need_string("id")?,
                name: block.need_string("name")?,
                arguments: input.span.of(text).into(),
                signature: None,
            })
        }
        "thinking" => {
            Part::Reasoning { text: block.need_string("thinking")?, signature: block.string("signature")? }
        }
        // Only the model that made it can read it.
        "redacted_thinking" => return Ok(None),
        _ => {
            let field = place.member("type").to_string();
            return Err(ModelError::AnswerUntranslatable {
                field,
                why: "the caller's form has nothing like it",
            });
        }
    }))
}

/// Writes an answer.
pub(in crate::model) fn write_reply(reply: &Reply<'_>) -> Result<String, ModelError> {
    let mut content = Array::new();
    for (index, part) in reply.parts.iter().enumerate() {
        let unsaid = |why| ModelError::AnswerUntranslatable { field: format!("content[{index}]"), why };
        match part {
            Part::Text(text) | Part::Refusal(text) => content.raw(&text_block(text)),
            Part::Reasoning { text, signature } => {
                content.raw(&thinking_block(text, signature.as_deref().unwrap_or(SIGNATURE)));
            }
            Part::Call(call) => {
                if let Some(signature) = &call.signature {
                    content.raw(&thinking_block("", &format!("{GEMINI}{signature}")));
                }
                let input = input_of(&call.arguments);
                let input = input.ok_or_else(|| unsaid("the arguments of a call are not a JSON object"))?;
                content.raw(&tool_use(call, input));
            }
            _ => return Err(unsaid("Anthropic messages of a model hold text, thinking and tool calls")),
        }
    }
    let mut out = Object::new();
    out.string("id", &reply.id);
    out.string("type", "message");
    out.string("role", "assistant");
    out.string("model", &reply.model);
    out.raw("content", &content.finish());
    out.string("stop_reason", reply.stop.as_messages());
    out.string_or_null("stop_sequence", reply.stop_sequence.as_deref());
    if reply.stop == StopReason::Refusal {
        out.raw("stop_details", "{\"type\":\"refusal\",\"category\":null,\"explanation\":null}");
    }
    out.raw("usage", &reply.usage.unwrap_or_default().to_messages());
    Ok(out.finish())
}

fn thinking_block(text: &str, signature: &str) -> String {
    let mut block = Object::new();
    block.string("type", "thinking");
    block.string("thinking", text);
    block.string("signature", signature);
    block.finish()
}
