//! Writing a request.

use super::{DEFAULT_MAX_TOKENS, FORM, input_of, is_id, text_block, tool_use};
use crate::model::{
    ModelError, Target,
    ir::{Call, Conversation, Effort, Part, Piece, Reasoning, Role, Source, ToolChoice, Turn},
    write::{Array, Object},
};

/// Writes a request.
pub(in crate::model) fn write_request(
    read: &mut Conversation<'_>,
    target: &Target<'_>,
) -> Result<String, ModelError> {
    let mut out = Object::new();
    out.string("model", target.model);
    out.raw("max_tokens", &read.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS).to_string());
    let spoken = match read.turns.split_first() {
        Some((first, rest)) if first.role == Role::System => {
            write_system(&mut out, target.system, &first.pieces)?;
            rest
        }
        _ => {
            write_system(&mut out, target.system, &[])?;
            &read.turns
        }
    };
    if spoken.is_empty() {
        return Err(ModelError::Untranslatable {
            field: "messages".into(),
            form: FORM,
            why: "at least one message must be of the user",
        });
    }
    let mut messages = Array::new();
    let mut foreign = Foreign::default();
    for turn in spoken {
        write_turn(&mut messages, turn, &mut foreign)?;
    }
    out.raw("messages", &messages.finish());
    write_tools(&mut out, read)?;
    if !read.stop.is_empty() {
        out.raw("stop_sequences", &Array::of_strings(&read.stop));
    }
    if let Some(raw) = read.temperature {
        if raw.parse::<f64>().is_ok_and(|t| t > 1.0) {
            let field = "temperature".into();
            return Err(ModelError::Untranslatable { field, form: FORM, why: "the highest is 1" });
        }
        out.raw("temperature", raw);
    }
    out.raw_some("top_p", read.top_p);
    write_output(&mut out, read)?;
    if let Some(user) = &read.end_user {
        let mut metadata = Object::new();
        metadata.string("user_id", user);
        out.raw("metadata", &metadata.finish());
    }
    if let Some(setting) = read.take_setting("top_k") {
        out.raw("top_k", setting.raw);
    }
    if let Some(setting) = read.take_setting("service_tier") {
        if setting.raw != "\"default\"" {
            let (field, why) = (setting.field.into(), "it has no such tier");
            return Err(ModelError::Untranslatable { field, form: FORM, why });
        }
        out.string("service_tier", "standard_only");
    }
    if read.stream {
        out.raw("stream", "true");
    }
    read.no_more_settings(FORM)?;
    foreign.set_aside(read);
    Ok(out.finish())
}

/// What was found in turns of the model that only the provider which made it can read.
#[derive(Default)]
struct Foreign {
    reasoning: bool,
    signature: bool,
}

impl Foreign {
    fn set_aside(&self, read: &mut Conversation<'_>) {
        if self.reasoning {
            read.set_aside("reasoning_content");
        }
        if self.signature {
            read.set_aside("thought_signature");
        }
    }
}

fn write_system(out: &mut Object, own: Option<&str>, pieces: &[Piece<'_>]) -> Result<(), ModelError> {
    let mut texts: Vec<&str> = own.into_iter().collect();
    for piece in pieces {
        match &piece.part {
            Part::Text(text) if text.is_empty() => {}
            Part::Text(text) => texts.push(text),
            _ => return Err(piece.untranslatable(FORM, "system prompts are text")),
        }
    }
    match texts.as_slice() {
        [] => {}
        [text] => out.string("system", text),
        texts => {
            let mut blocks = Array::new();
            texts.iter().for_each(|text| blocks.raw(&text_block(text)));
            out.raw("system", &blocks.finish());
        }
    }
    Ok(())
}

fn write_turn(messages: &mut Array, turn: &Turn<'_>, foreign: &mut Foreign) -> Result<(), ModelError> {
    let mut blocks = Array::new();
    for piece in &turn.pieces {
        match (&piece.part, turn.role) {
            (Part::Reasoning { .. }, Role::Assistant) => foreign.reasoning = true,
            (Part::Call(call), Role::Assistant) => {
                foreign.signature |= call.signature.is_some();
                blocks.raw(&write_call(call, piece)?);
            }
            (Part::Result { .. } | Part::Image(_) | Part::File { .. }, Role::User)
            | (Part::Text(_) | Part::Refusal(_), _) => blocks.raw(&write_block(piece)?),
            (Part::Audio { .. }, _) => return Err(piece.untranslatable(FORM, "it does not take audio")),
            _ => return Err(piece.untranslatable(FORM, "this cannot stand in a message of this role there")),
        }
    }
    let role = match turn.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    if blocks.is_empty() {
        return match turn.role {
            // It says nothing, and the form does not take it.
            Role::Assistant => Ok(()),
            _ => Err(ModelError::Untranslatable {
                field: turn.field.clone(),
                form: FORM,
                why: "a message cannot be empty",
            }),
        };
    }
    let mut message = Object::new();
    message.string("role", role);
    match turn.pieces.as_slice() {
        [Piece { part: Part::Text(text), .. }] => message.string("content", text),
        _ => message.raw("content", &blocks.finish()),
    }
    messages.raw(&message.finish());
    Ok(())
}

fn write_block(piece: &Piece<'_>) -> Result<String, ModelError> {
    let mut block = Object::new();
    match &piece.part {
        Part::Text(text) | Part::Refusal(text) => {
            if text.is_empty() {
                return Err(piece.untranslatable(FORM, "a text cannot be empty"));
            }
            return Ok(text_block(text));
        }
        Part::Image(source) => {
            block.string("type", "image");
            block.raw("source", &write_image_source(source, piece)?);
        }
        Part::File { source, name } => {
            block.string("type", "document");
            block.raw("source", &write_document_source(source, piece)?);
            if let Some(name) = name {
                block.string("title", name);
            }
        }
        Part::Result { id, pieces, is_error } => write_result(&mut block, id, pieces, *is_error, piece)?,
        Part::Audio { .. } | Part::Call(_) | Part::Reasoning { .. } => {
            return Err(piece.untranslatable(FORM, "this cannot stand in a message of this role there"));
        }
    }
    Ok(block.finish())
}

fn write_image_source(source: &Source<'_>, piece: &Piece<'_>) -> Result<String, ModelError> {
    const TYPES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];
    match source {
        Source::Base64 { media_type, .. } if !TYPES.contains(&&**media_type) => {
            Err(piece.untranslatable(FORM, "images are JPEG, PNG, GIF or WebP"))
        }
        Source::Text(_) => Err(piece.untranslatable(FORM, "an image is a URL or base64")),
        source => Ok(write_source(source)),
    }
}

fn write_document_source(source: &Source<'_>, piece: &Piece<'_>) -> Result<String, ModelError> {
    match source {
        Source::Base64 { media_type, data } if media_type == "text/plain" => {
            use base64::{Engine, engine::general_purpose::STANDARD};
            let bytes = STANDARD.decode(&**data).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let wrong = || ModelError::Wrong { field: piece.field.clone(), want: "base64 of UTF-8 text" };
            Ok(write_source(&Source::Text(bytes.ok_or_else(wrong)?.into())))
        }
        Source::Base64 { media_type, .. } if media_type != "application/pdf" => {
            Err(piece.untranslatable(FORM, "documents are PDF or plain text"))
        }
        source => Ok(write_source(source)),
    }
}

fn write_source(source: &Source<'_>) -> String {
    let mut out = Object::new();
    match source {
        Source::Url(url) => {
            out.string("type", "url");
            out.string("url", url);
        }
        Source::Base64 { media_type, data } => {
            out.string("type", "base64");
            out.string("media_type", media_type);
            out.string("data", data);
        }
        Source::Text(text) => {
            out.string("type", "text");
            out.string("media_type", "text/plain");
            out.string("data", text);
        }
    }
    out.finish()
}

fn write_result(
    block: &mut Object,
    id: &str,
    pieces: &[Piece<'_>],
    is_error: bool,
    whole: &Piece<'_>,
) -> Result<(), ModelError> {
    if !is_id(id) {
        return Err(whole.untranslatable(FORM, "ids of calls are letters, digits, `_` and `-`"));
    }
    block.string("type", "tool_result");
    block.string("tool_use_id", id);
    match pieces {
        [] => {}
        [Piece { part: Part::Text(text), .. }] => block.string("content", text),
        pieces => {
            let mut blocks = Array::new();
            for piece in pieces {
                blocks.raw(&write_block(piece)?);
            }
            block.raw("content", &blocks.finish());
        }
    }
    if is_error {
        block.raw("is_error", "true");
    }
    Ok(())
}

fn write_call(call: &Call<'_>, piece: &Piece<'_>) -> Result<String, ModelError> {
    if !is_id(&call.id) {
        return Err(piece.untranslatable(FORM, "ids of calls are letters, digits, `_` and `-`"));
    }
    match input_of(&call.arguments) {
        Some(input) => Ok(tool_use(call, input)),
        None => Err(piece.untranslatable(FORM, "the arguments of a call must be a JSON object")),
    }
}

fn write_tools(out: &mut Object, read: &Conversation<'_>) -> Result<(), ModelError> {
    if read.tools.is_empty() {
        return match read.tool_choice {
            None | Some(ToolChoice::Auto | ToolChoice::None) => Ok(()),
            Some(_) => Err(ModelError::Untranslatable {
                field: "tool_choice".into(),
                form: FORM,
                why: "no tools are offered that could be called",
            }),
        };
    }
    let mut tools = Array::new();
    for tool in &read.tools {
        let mut out = Object::new();
        out.string("name", &tool.name);
        if let Some(description) = &tool.description {
            out.string("description", description);
        }
        out.raw("input_schema", tool.parameters.unwrap_or("{\"type\":\"object\",\"properties\":{}}"));
        if let Some(strict) = tool.strict {
            out.raw("strict", if strict { "true" } else { "false" });
        }
        tools.raw(&out.finish());
    }
    out.raw("tools", &tools.finish());
    let one_by_one = read.parallel_calls == Some(false);
    let choice = match (&read.tool_choice, one_by_one) {
        (None, false) => return Ok(()),
        (choice, _) => choice.clone().unwrap_or(ToolChoice::Auto),
    };
    let mut written = Object::new();
    match &choice {
        ToolChoice::Auto => written.string("type", "auto"),
        ToolChoice::Any => written.string("type", "any"),
        ToolChoice::None => written.string("type", "none"),
        ToolChoice::Named(name) => {
            written.string("type", "tool");
            written.string("name", name);
        }
    }
    if let (Some(parallel), true) = (read.parallel_calls, choice != ToolChoice::None) {
        written.raw("disable_parallel_tool_use", if parallel { "false" } else { "true" });
    }
    out.raw("tool_choice", &written.finish());
    Ok(())
}

fn write_output(out: &mut Object, read: &Conversation<'_>) -> Result<(), ModelError> {
    let mut config = Object::new();
    let mut thinking = Object::new();
    match read.reasoning {
        None => {}
        Some(Reasoning::Off) => thinking.string("type", "disabled"),
        Some(Reasoning::Adaptive) => thinking.string("type", "adaptive"),
        Some(Reasoning::Effort(Effort::Minimal)) => {
            let (field, why) = (read.reasoning_field.into(), "the least effort is `low`");
            return Err(ModelError::Untranslatable { field, form: FORM, why });
        }
        Some(Reasoning::Effort(effort)) => {
            thinking.string("type", "adaptive");
            config.string("effort", effort.as_str());
        }
        Some(Reasoning::Budget(tokens)) => {
            thinking.string("type", "enabled");
            thinking.raw("budget_tokens", &tokens.to_string());
        }
    }
    if let Some(schema) = &read.schema {
        let mut format = Object::new();
        format.string("type", "json_schema");
        format.raw("schema", &schema.labelled()?);
        config.raw("format", &format.finish());
    }
    if !thinking.is_empty() {
        out.raw("thinking", &thinking.finish());
    }
    if !config.is_empty() {
        out.raw("output_config", &config.finish());
    }
    Ok(())
}
