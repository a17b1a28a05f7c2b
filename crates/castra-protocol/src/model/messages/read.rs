//! Reading a request.

use std::borrow::Cow;

use super::is_id;
use crate::{
    json::{self, Kind, Value},
    model::{
        Form, ModelError, Request,
        fields::{Fields, Place, elements_of, string_of},
        ir::{
            Call, Conversation, Effort, GEMINI, Part, Piece, Reasoning, Role, Schema, Source, Tool,
            ToolChoice,
        },
        request::message_values,
    },
};

/// Reads a request that is to be translated to `to`.
pub(in crate::model) fn read_request<'a>(
    request: &Request<'a>,
    to: Form,
) -> Result<Conversation<'a>, ModelError> {
    let place = Place::Root;
    let mut fields = Fields::of(request.text, request.places.root, &place)?;
    let mut read = Conversation { stream: request.stream, ..Conversation::default() };
    for name in ["model", "messages", "stream"] {
        fields.take(name);
    }
    if fields.take("cache_control").is_some() {
        read.set_aside("cache_control");
    }
    let system = place.member("system");
    let pieces = read_content(&mut read, &mut fields, "system", to)?;
    if !pieces.is_empty() {
        read.say(Role::System, system.to_string(), pieces);
    }
    let messages = place.member("messages");
    for (index, value) in message_values(request)?.into_iter().enumerate() {
        read_message(&mut read, request.text, value, &messages.item(index), to)?;
    }
    read.max_tokens = fields.unsigned("max_tokens")?;
    read.stop = fields.strings("stop_sequences")?;
    read.temperature = fields.number("temperature")?;
    read.top_p = fields.number("top_p")?;
    let top_k = fields.number("top_k")?;
    read.setting("top_k", "top_k", top_k);
    read_tools(&mut read, &mut fields, to)?;
    read_output(&mut read, &mut fields, to)?;
    read_service(&mut read, &mut fields, to)?;
    fields.rest(to)?;
    Ok(read)
}

fn read_message<'a>(
    read: &mut Conversation<'a>,
    text: &'a str,
    value: Value,
    place: &Place<'_>,
    to: Form,
) -> Result<(), ModelError> {
    let mut message = Fields::of(text, value, place)?;
    let role = match &*message.need_string("role")? {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "system" => Role::System,
        _ => return Err(place.member("role").wrong("user, assistant or system")),
    };
    let pieces = read_content(read, &mut message, "content", to)?;
    message.rest(to)?;
    read.say(role, place.to_string(), pieces);
    Ok(())
}

/// Content is a string or an array of blocks.
fn read_content<'a>(
    read: &mut Conversation<'a>,
    fields: &mut Fields<'a, '_>,
    name: &str,
    to: Form,
) -> Result<Vec<Piece<'a>>, ModelError> {
    let place = fields.place.member(name);
    let text = fields.text;
    let Some(content) = fields.take(name) else { return Ok(Vec::new()) };
    match content.kind {
        Kind::String => {
            let part = Part::Text(string_of(text, content, &place)?);
            Ok(vec![Piece { field: place.to_string(), part }])
        }
        Kind::Array => {
            let mut pieces = Vec::new();
            let mut signature = None;
            for (index, value) in elements_of(text, content)?.into_iter().enumerate() {
                let item = place.item(index);
                let Some(mut part) = read_block(read, text, value, &item, to)? else { continue };
                match &mut part {
                    // What Gemini wants back with its next call; see `write_reply`.
                    Part::Reasoning { text, signature: Some(mark) }
                        if text.is_empty() && mark.starts_with(GEMINI) =>
                    {
                        signature = mark.strip_prefix(GEMINI).map(|s| Cow::Owned(s.to_string()));
                        continue;
                    }
                    Part::Call(call) => call.signature = signature.take(),
                    _ => {}
                }
                pieces.push(Piece { field: item.to_string(), part });
            }
            Ok(pieces)
        }
        _ => Err(place.wrong("a string or an array of content blocks")),
    }
}

/// A block; None for what is set aside.
fn read_block<'a>(
    read: &mut Conversation<'a>,
    text: &'a str,
    value: Value,
    place: &Place<'_>,
    to: Form,
) -> Result<Option<Part<'a>>, ModelError> {
    let mut block = Fields::of(text, value, place)?;
    let kind = block.need_string("type")?;
    if block.take("cache_control").is_some() {
        read.set_aside("cache_control");
    }
    let part = match &*kind {
        "text" => {
            if !block.elements("citations")?.is_empty() {
                return Err(place.member("citations").untranslatable(to, "it has no place for citations"));
            }
            Part::Text(block.need_string("text")?)
        }
        "image" => Part::Image(read_source(&mut block, to)?),
        "document" => read_document(&mut block, to)?,
        "tool_use" => read_call(&mut block, to)?,
        "tool_result" => read_result(read, &mut block, to)?,
        "thinking" => Part::Reasoning {
            text: block.need_string("thinking")?,
            signature: Some(block.need_string("signature")?),
        },
        "redacted_thinking" => {
            read.set_aside("redacted_thinking");
            return Ok(None);
        }
        _ => return Err(place.member("type").untranslatable(to, "it has no such content")),
    };
    block.rest(to)?;
    Ok(Some(part))
}

fn read_source<'a>(block: &mut Fields<'a, '_>, to: Form) -> Result<Source<'a>, ModelError> {
    let place = block.place.member("source");
    let value = block.object("source")?.ok_or_else(|| place.missing("an object"))?;
    let mut source = Fields::of(block.text, value, &place)?;
    let read = match &*source.need_string("type")? {
        "url" => Source::Url(source.need_string("url")?),
        "base64" => Source::Base64 {
            media_type: source.need_string("media_type")?,
            data: source.need_string("data")?,
        },
        "text" => {
            source.need_string("media_type")?;
            Source::Text(source.need_string("data")?)
        }
        "file" => {
            let why = "a file that was uploaded to one provider is not there at another";
            return Err(place.member("type").untranslatable(to, why));
        }
        _ => return Err(place.member("type").untranslatable(to, "it has no such source")),
    };
    source.rest(to)?;
    Ok(read)
}

fn read_document<'a>(block: &mut Fields<'a, '_>, to: Form) -> Result<Part<'a>, ModelError> {
    let place = block.place.member("citations");
    if let Some(citations) = block.object("citations")?
        && Fields::of(block.text, citations, &place)?.boolean("enabled")? == Some(true)
    {
        return Err(place.member("enabled").untranslatable(to, "it does not cite documents"));
    }
    Ok(Part::File { source: read_source(block, to)?, name: block.string("title")? })
}

fn read_call<'a>(block: &mut Fields<'a, '_>, to: Form) -> Result<Part<'a>, ModelError> {
    only_direct(block, to)?;
    let place = block.place.member("input");
    let input = block.object("input")?.ok_or_else(|| place.missing("an object"))?;
    Ok(Part::Call(Call {
        id: block.need_string("id")?,
        name: block.need_string("name")?,
        arguments: input.span.of(block.text).into(),
        signature: None,
    }))
}

/// A call that the model made itself, not code that it runs at the provider.
fn only_direct(block: &mut Fields<'_, '_>, to: Form) -> Result<(), ModelError> {
    let place = block.place.member("caller");
    let Some(caller) = block.object("caller")? else { return Ok(()) };
    let mut caller = Fields::of(block.text, caller, &place)?;
    match caller.need_string("type")?.as_ref() {
        "direct" => Ok(()),
        _ => Err(place.member("type").untranslatable(to, "tools are called by the model only")),
    }
}

fn read_result<'a>(
    read: &mut Conversation<'a>,
    block: &mut Fields<'a, '_>,
    to: Form,
) -> Result<Part<'a>, ModelError> {
    Ok(Part::Result {
        id: block.need_string("tool_use_id")?,
        pieces: read_result_content(read, block, to)?,
        is_error: block.boolean("is_error")? == Some(true),
    })
}

/// The content of a result, which holds no results itself.
fn read_result_content<'a>(
    read: &mut Conversation<'a>,
    block: &mut Fields<'a, '_>,
    to: Form,
) -> Result<Vec<Piece<'a>>, ModelError> {
    let place = block.place.member("content");
    let text = block.text;
    let Some(content) = block.take("content") else { return Ok(Vec::new()) };
    match content.kind {
        Kind::String => {
            let part = Part::Text(string_of(text, content, &place)?);
            Ok(vec![Piece { field: place.to_string(), part }])
        }
        Kind::Array => {
            let mut pieces = Vec::new();
            for (index, value) in elements_of(text, content)?.into_iter().enumerate() {
                let item = place.item(index);
                match read_flat_block(read, text, value, &item, to)? {
                    Some(part) => pieces.push(Piece { field: item.to_string(), part }),
                    None => return Err(item.member("type").untranslatable(to, "it has no such content")),
                }
            }
            Ok(pieces)
        }
        _ => Err(place.wrong("a string or an array of content blocks")),
    }
}

/// A block of a result: text, image or document.
fn read_flat_block<'a>(
    read: &mut Conversation<'a>,
    text: &'a str,
    value: Value,
    place: &Place<'_>,
    to: Form,
) -> Result<Option<Part<'a>>, ModelError> {
    let kind = Fields::of(text, value, place)?.need_string("type")?;
    match &*kind {
        "text" | "image" | "document" => read_block(read, text, value, place, to),
        _ => Ok(None),
    }
}

fn read_tools<'a>(
    read: &mut Conversation<'a>,
    fields: &mut Fields<'a, '_>,
    to: Form,
) -> Result<(), ModelError> {
    let list = fields.place.member("tools");
    for (index, value) in fields.elements("tools")?.into_iter().enumerate() {
        let tool = read_tool(read, fields.text, value, &list.item(index), to)?;
        read.tools.push(tool);
    }
    let place = fields.place.member("tool_choice");
    let Some(choice) = fields.object("tool_choice")? else { return Ok(()) };
    let mut choice = Fields::of(fields.text, choice, &place)?;
    read.parallel_calls = choice.boolean("disable_parallel_tool_use")?.map(|off| !off);
    read.tool_choice = Some(match &*choice.need_string("type")? {
        "auto" => ToolChoice::Auto,
        "any" => ToolChoice::Any,
        "none" => ToolChoice::None,
        "tool" => ToolChoice::Named(choice.need_string("name")?),
        _ => return Err(place.member("type").wrong("auto, any, tool or none")),
    });
    choice.rest(to)
}

fn read_tool<'a>(
    read: &mut Conversation<'a>,
    text: &'a str,
    value: Value,
    place: &Place<'_>,
    to: Form,
) -> Result<Tool<'a>, ModelError> {
    let mut tool = Fields::of(text, value, place)?;
    if tool.string("type")?.is_some_and(|kind| kind != "custom") {
        return Err(place.member("type").untranslatable(to, "it has no such tool"));
    }
    for hint in ["cache_control", "eager_input_streaming"] {
        if tool.take(hint).is_some() {
            read.set_aside(hint);
        }
    }
    if tool.boolean("defer_loading")? == Some(true) {
        return Err(place.member("defer_loading").untranslatable(to, "its tools are all loaded at once"));
    }
    if tool.strings("allowed_callers")?.iter().any(|caller| caller != "direct") {
        let why = "tools are called by the model only";
        return Err(place.member("allowed_callers").untranslatable(to, why));
    }
    let name = tool.need_string("name")?;
    let missing = || place.member("input_schema").missing("a JSON Schema");
    let read_tool = Tool {
        name,
        description: tool.string("description")?,
        parameters: Some(tool.object("input_schema")?.ok_or_else(missing)?.span.of(text)),
        strict: tool.boolean("strict")?,
    };
    tool.rest(to)?;
    Ok(read_tool)
}

fn read_output<'a>(
    read: &mut Conversation<'a>,
    fields: &mut Fields<'a, '_>,
    to: Form,
) -> Result<(), ModelError> {
    let place = fields.place.member("output_config");
    let mut effort = None;
    if let Some(config) = fields.object("output_config")? {
        let mut config = Fields::of(fields.text, config, &place)?;
        if let Some(word) = config.string("effort")? {
            let wrong = || place.member("effort").wrong("low, medium, high, xhigh or max");
            effort = Some(Effort::parse(&word).ok_or_else(wrong)?);
        }
        let place = place.member("format");
        if let Some(format) = config.object("format")? {
            let mut format = Fields::of(fields.text, format, &place)?;
            if format.need_string("type")? != "json_schema" {
                return Err(place.member("type").wrong("json_schema"));
            }
            let missing = || place.member("schema").missing("a JSON Schema");
            let raw = format.object("schema")?.ok_or_else(missing)?.span.of(fields.text);
            let name = json::get(raw, &["title"]).and_then(json::decode).filter(|t| is_label(t));
            read.schema = Some(Schema { name, description: None, raw, strict: Some(true) });
            format.rest(to)?;
        }
        config.rest(to)?;
    }
    read.reasoning_field = if effort.is_some() { "output_config.effort" } else { "thinking" };
    read.reasoning = match (read_thinking(fields, to)?, effort) {
        (None | Some(Reasoning::Adaptive), Some(effort)) => Some(Reasoning::Effort(effort)),
        (thinking, None) => thinking,
        (Some(_), Some(_)) => {
            let why = "it takes either an effort or none at all, not beside a budget or thinking that is off";
            return Err(place.member("effort").untranslatable(to, why));
        }
    };
    Ok(())
}

fn read_thinking(fields: &mut Fields<'_, '_>, to: Form) -> Result<Option<Reasoning>, ModelError> {
    let place = fields.place.member("thinking");
    let Some(thinking) = fields.object("thinking")? else { return Ok(None) };
    let mut thinking = Fields::of(fields.text, thinking, &place)?;
    if thinking.string("display")?.is_some_and(|display| display != "summarized") {
        return Err(place.member("display").untranslatable(to, "what is thought cannot be left out there"));
    }
    let read = match &*thinking.need_string("type")? {
        "disabled" => Reasoning::Off,
        "adaptive" => Reasoning::Adaptive,
        "enabled" => {
            let missing = || place.member("budget_tokens").missing("an integer");
            Reasoning::Budget(thinking.unsigned("budget_tokens")?.ok_or_else(missing)?)
        }
        _ => return Err(place.member("type").untranslatable(to, "it cannot think in this way")),
    };
    thinking.rest(to)?;
    Ok(Some(read))
}

fn read_service<'a>(
    read: &mut Conversation<'a>,
    fields: &mut Fields<'a, '_>,
    to: Form,
) -> Result<(), ModelError> {
    let place = fields.place.member("metadata");
    if let Some(metadata) = fields.object("metadata")? {
        let mut metadata = Fields::of(fields.text, metadata, &place)?;
        read.end_user = metadata.string("user_id")?;
        metadata.rest(to)?;
    }
    match fields.string("service_tier")?.as_deref() {
        None | Some("auto") => {}
        Some("standard_only") => read.setting("service_tier", "service_tier", Some("\"default\"")),
        Some(_) => return Err(fields.place.member("service_tier").wrong("auto or standard_only")),
    }
    match fields.string("speed")?.as_deref() {
        None | Some("standard") => Ok(()),
        Some(_) => Err(fields.place.member("speed").untranslatable(to, "it has one speed")),
    }
}

/// Whether a text can name a schema or a tool in OpenAI's forms.
fn is_label(text: &str) -> bool {
    const LABEL_MAX: usize = 64;
    (1..=LABEL_MAX).contains(&text.len()) && is_id(text)
}
