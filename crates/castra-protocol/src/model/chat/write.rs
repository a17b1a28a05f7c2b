//! Writing a request.

use super::FORM;
use crate::{
    json::quote,
    model::{
        ModelError, Target,
        ir::{
            Call, Conversation, Effort, Part, Piece, Reasoning, Role, SIGNATURE, Schema, Source, ToolChoice,
        },
        write::{Array, Object},
    },
};

/// Writes a request.
pub(in crate::model) fn write_request(
    read: &mut Conversation<'_>,
    target: &Target<'_>,
) -> Result<String, ModelError> {
    let mut out = Object::new();
    out.string("model", target.model);
    out.raw("messages", &write_messages(read, target)?);
    write_tools(&mut out, read);
    if let Some(max) = read.max_tokens {
        let name = if target.compatible { "max_tokens" } else { "max_completion_tokens" };
        out.raw(name, &max.to_string());
    }
    out.raw_some("temperature", read.temperature);
    out.raw_some("top_p", read.top_p);
    if !read.stop.is_empty() {
        out.raw("stop", &Array::of_strings(&read.stop));
    }
    if let Some(schema) = &read.schema {
        out.raw("response_format", &write_schema(schema));
    }
    if let Some(effort) = read.reasoning.and_then(effort_word) {
        out.string("reasoning_effort", effort);
    }
    if let Some(user) = &read.end_user {
        out.string(if target.compatible { "user" } else { "safety_identifier" }, user);
    }
    for name in [
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "top_logprobs",
        "service_tier",
        "store",
        "verbosity",
        "metadata",
        "n",
    ] {
        if let Some(setting) = read.take_setting(name) {
            out.raw(name, setting.raw);
        }
    }
    if read.take_setting("json_object").is_some() {
        out.raw("response_format", "{\"type\":\"json_object\"}");
    }
    if read.stream {
        out.raw("stream", "true");
        out.raw("stream_options", "{\"include_usage\":true}");
    }
    read.no_more_settings(FORM)?;
    Ok(out.finish())
}

/// The model's default for reasoning as it sees fit.
fn effort_word(reasoning: Reasoning) -> Option<&'static str> {
    match reasoning {
        Reasoning::Off => Some("none"),
        Reasoning::Adaptive => None,
        Reasoning::Effort(effort) => Some(effort.as_str()),
        Reasoning::Budget(tokens) => Some(Effort::of_budget(tokens).as_str()),
    }
}

fn write_messages(read: &mut Conversation<'_>, target: &Target<'_>) -> Result<String, ModelError> {
    let mut messages = Array::new();
    let mut foreign = Foreign::default();
    let (first, rest) = match read.turns.split_first() {
        Some((first, rest)) if first.role == Role::System => (first.pieces.as_slice(), rest),
        _ => (Default::default(), read.turns.as_slice()),
    };
    write_system(&mut messages, target.system, first, target)?;
    for turn in rest {
        match turn.role {
            Role::System => write_system(&mut messages, None, &turn.pieces, target)?,
            Role::User => write_user(&mut messages, &turn.pieces)?,
            Role::Assistant => {
                write_assistant(&mut messages, &turn.pieces, target, &mut foreign)?;
            }
        }
    }
    if foreign.reasoning {
        read.set_aside("thinking");
    }
    if foreign.signature {
        read.set_aside("thought_signature");
    }
    Ok(messages.finish())
}

/// One message for all prompts that stand together: the templates of many models know only one, and
/// compatible servers may take no parts in it.
fn write_system(
    messages: &mut Array,
    own: Option<&str>,
    pieces: &[Piece<'_>],
    target: &Target<'_>,
) -> Result<(), ModelError> {
    let mut texts: Vec<&str> = own.into_iter().collect();
    for piece in pieces {
        match &piece.part {
            Part::Text(text) => texts.push(text),
            _ => return Err(piece.untranslatable(FORM, "system prompts are text")),
        }
    }
    if texts.is_empty() {
        return Ok(());
    }
    let mut message = Object::new();
    message.string("role", "system");
    match texts.as_slice() {
        texts if texts.len() == 1 || target.compatible => message.string("content", &texts.join("\n\n")),
        texts => message.raw("content", &text_parts(texts)),
    }
    messages.raw(&message.finish());
    Ok(())
}

fn text_parts(texts: &[&str]) -> String {
    let mut parts = Array::new();
    texts.iter().for_each(|text| parts.raw(&text_part(text)));
    parts.finish()
}

/// Results are messages of their own, in the order in which they stand between the user's words.
fn write_user(messages: &mut Array, pieces: &[Piece<'_>]) -> Result<(), ModelError> {
    let is_result = |piece: &Piece<'_>| matches!(piece.part, Part::Result { .. });
    for run in pieces.chunk_by(|a, b| is_result(a) == is_result(b)) {
        if !run.iter().any(is_result) {
            let mut message = Object::new();
            message.string("role", "user");
            message.raw("content", &write_content(run)?);
            messages.raw(&message.finish());
            continue;
        }
        for piece in run {
            if let Part::Result { id, pieces, is_error } = &piece.part {
                messages.raw(&write_result(id, pieces, *is_error)?);
            }
        }
    }
    Ok(())
}

/// What stands before a result that is an error: chat completions have no other way to say so.
const ERROR_MARK: &str = "Error: ";

fn write_result(id: &str, pieces: &[Piece<'_>], is_error: bool) -> Result<String, ModelError> {
    let mut message = Object::new();
    message.string("role", "tool");
    message.string("tool_call_id", id);
    let mut texts = Vec::with_capacity(pieces.len() + 1);
    for piece in pieces {
        match &piece.part {
            Part::Text(text) | Part::Refusal(text) => texts.push(&**text),
            _ => return Err(piece.untranslatable(FORM, "results of tools hold only text there")),
        }
    }
    match (texts.as_slice(), is_error) {
        ([], false) => message.string("content", ""),
        ([], true) => message.string("content", ERROR_MARK.trim_end_matches([':', ' '])),
        ([text], false) => message.string("content", text),
        ([text], true) => message.string("content", &format!("{ERROR_MARK}{text}")),
        (texts, _) => {
            let mut parts = Array::new();
            for (index, text) in texts.iter().enumerate() {
                let mark = if is_error && index == 0 { ERROR_MARK } else { "" };
                parts.raw(&text_part(&format!("{mark}{text}")));
            }
            message.raw("content", &parts.finish());
        }
    }
    Ok(message.finish())
}

fn text_part(text: &str) -> String {
    let mut part = Object::new();
    part.string("type", "text");
    part.string("text", text);
    part.finish()
}

/// A single text is a string, since not every compatible server takes an array.
fn write_content(pieces: &[Piece<'_>]) -> Result<String, ModelError> {
    if let [Piece { part: Part::Text(text), .. }] = pieces {
        return Ok(quote(text));
    }
    let mut parts = Array::new();
    for piece in pieces {
        parts.raw(&write_part(piece)?);
    }
    Ok(parts.finish())
}

fn write_part(piece: &Piece<'_>) -> Result<String, ModelError> {
    let wrap = |kind: &str, inside: Object| {
        let mut part = Object::new();
        part.string("type", kind);
        part.raw(kind, &inside.finish());
        part.finish()
    };
    let mut inside = Object::new();
    match &piece.part {
        Part::Text(text) | Part::Refusal(text) => Ok(text_part(text)),
        Part::Image(Source::Url(url)) => {
            inside.string("url", url);
            Ok(wrap("image_url", inside))
        }
        Part::Image(Source::Base64 { media_type, data }) => {
            inside.string("url", &format!("data:{media_type};base64,{data}"));
            Ok(wrap("image_url", inside))
        }
        Part::File { source: Source::Base64 { media_type, data }, name } => {
            inside.string("filename", name.as_deref().unwrap_or("document"));
            inside.string("file_data", &format!("data:{media_type};base64,{data}"));
            Ok(wrap("file", inside))
        }
        Part::File { source: Source::Text(text), name } => {
            use base64::{Engine, engine::general_purpose::STANDARD};
            inside.string("filename", name.as_deref().unwrap_or("document.txt"));
            inside.string("file_data", &format!("data:text/plain;base64,{}", STANDARD.encode(&**text)));
            Ok(wrap("file", inside))
        }
        Part::Audio { data, format } => {
            inside.string("data", data);
            inside.string("format", format);
            Ok(wrap("input_audio", inside))
        }
        Part::File { .. } => Err(piece.untranslatable(FORM, "files cannot be given by URL there")),
        Part::Image(_) => Err(piece.untranslatable(FORM, "an image is a URL or base64")),
        Part::Call(_) | Part::Result { .. } | Part::Reasoning { .. } => {
            Err(piece.untranslatable(FORM, "this cannot stand in a message of this role there"))
        }
    }
}

/// What was found in turns of the model that only the provider which made it can read.
#[derive(Default)]
struct Foreign {
    reasoning: bool,
    signature: bool,
}

fn write_assistant(
    messages: &mut Array,
    pieces: &[Piece<'_>],
    target: &Target<'_>,
    foreign: &mut Foreign,
) -> Result<(), ModelError> {
    let mut texts = Vec::new();
    let mut reasoning = String::new();
    let mut calls = Array::new();
    for piece in pieces {
        match &piece.part {
            Part::Text(text) | Part::Refusal(text) => texts.push(&**text),
            Part::Call(call) => {
                // OpenAI refuses members that it does not know.
                foreign.signature |= call.signature.is_some() && !target.compatible;
                calls.raw(&write_call(call, target.compatible));
            }
            Part::Reasoning { text, signature } if target.compatible && is_own(signature.as_deref()) => {
                reasoning.push_str(text);
            }
            Part::Reasoning { .. } => foreign.reasoning = true,
            _ => return Err(piece.untranslatable(FORM, "messages of the assistant hold only text there")),
        }
    }
    if texts.is_empty() && calls.is_empty() {
        return Ok(());
    }
    let mut message = Object::new();
    message.string("role", "assistant");
    match texts.as_slice() {
        [] => message.raw("content", "null"),
        [text] => message.string("content", text),
        texts => message.raw("content", &text_parts(texts)),
    }
    if !reasoning.is_empty() {
        message.string("reasoning_content", &reasoning);
    }
    if !calls.is_empty() {
        message.raw("tool_calls", &calls.finish());
    }
    messages.raw(&message.finish());
    Ok(())
}

/// Whether reasoning came from a provider that speaks this form. In a stream it has no signature.
fn is_own(signature: Option<&str>) -> bool {
    signature.is_none_or(|s| s.is_empty() || s == SIGNATURE)
}

pub(super) fn write_call(call: &Call<'_>, with_signature: bool) -> String {
    let mut function = Object::new();
    function.string("name", &call.name);
    function.string("arguments", &call.arguments);
    let mut out = Object::new();
    out.string("id", &call.id);
    out.string("type", "function");
    out.raw("function", &function.finish());
    if let Some(signature) = call.signature.as_deref().filter(|_| with_signature) {
        let mut google = Object::new();
        google.string("thought_signature", signature);
        let mut extra = Object::new();
        extra.raw("google", &google.finish());
        out.raw("extra_content", &extra.finish());
    }
    out.finish()
}

fn write_tools(out: &mut Object, read: &Conversation<'_>) {
    if read.tools.is_empty() {
        return;
    }
    let mut tools = Array::new();
    for tool in &read.tools {
        let mut function = Object::new();
        function.string("name", &tool.name);
        if let Some(description) = &tool.description {
            function.string("description", description);
        }
        function.raw_some("parameters", tool.parameters);
        if let Some(strict) = tool.strict {
            function.raw("strict", if strict { "true" } else { "false" });
        }
        let mut wrapper = Object::new();
        wrapper.string("type", "function");
        wrapper.raw("function", &function.finish());
        tools.raw(&wrapper.finish());
    }
    out.raw("tools", &tools.finish());
    match &read.tool_choice {
        None => {}
        Some(ToolChoice::Auto) => out.string("tool_choice", "auto"),
        Some(ToolChoice::None) => out.string("tool_choice", "none"),
        Some(ToolChoice::Any) => out.string("tool_choice", "required"),
        Some(ToolChoice::Named(name)) => {
            let mut function = Object::new();
            function.string("name", name);
            let mut choice = Object::new();
            choice.string("type", "function");
            choice.raw("function", &function.finish());
            out.raw("tool_choice", &choice.finish());
        }
    }
    if let Some(parallel) = read.parallel_calls {
        out.raw("parallel_tool_calls", if parallel { "true" } else { "false" });
    }
}

fn write_schema(schema: &Schema<'_>) -> String {
    let mut inside = Object::new();
    inside.string("name", schema.name.as_deref().unwrap_or("answer"));
    if let Some(description) = &schema.description {
        inside.string("description", description);
    }
    inside.raw("schema", schema.raw);
    if let Some(strict) = schema.strict {
        inside.raw("strict", if strict { "true" } else { "false" });
    }
    let mut format = Object::new();
    format.string("type", "json_schema");
    format.raw("json_schema", &inside.finish());
    format.finish()
}
