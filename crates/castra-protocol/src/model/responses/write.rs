//! A conversation as a request of the Responses API.
//!
//! Nothing is to be kept at the provider, since the caller's form has no way to fetch or delete it.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::FORM;
use crate::model::{
    Api, ModelError, Target,
    ir::{Conversation, Effort, Part, Piece, Reasoning, Role, Source, ToolChoice, Turn},
    write::{Array, Object},
};

/// Writes a request. `api` is what the caller speaks.
pub(in crate::model) fn write_request(
    read: &mut Conversation<'_>,
    target: &Target<'_>,
    api: Api,
) -> Result<String, ModelError> {
    if !read.stop.is_empty() {
        let field = if api == Api::Messages { "stop_sequences" } else { "stop" };
        let why = "the model cannot be stopped at a text";
        return Err(ModelError::Untranslatable { field: field.into(), form: FORM, why });
    }
    let mut out = Object::new();
    out.string("model", target.model);
    if let Some(prompt) = target.system {
        out.string("instructions", prompt);
    }
    let mut input = Input { items: Array::new(), foreign_reasoning: false };
    read.turns.iter().try_for_each(|turn| input.turn(turn))?;
    out.raw("input", &input.items.finish());
    if input.foreign_reasoning {
        read.set_aside(if api == Api::Messages { "thinking" } else { "reasoning_content" });
    }
    write_tools(&mut out, read);
    if let Some(max) = read.max_tokens {
        out.raw("max_output_tokens", &max.to_string());
    }
    out.raw_some("temperature", read.temperature);
    out.raw_some("top_p", read.top_p);
    if let Some(effort) = read.reasoning.and_then(effort_word) {
        let mut reasoning = Object::new();
        reasoning.string("effort", effort);
        out.raw("reasoning", &reasoning.finish());
    }
    let text = write_text(read);
    if text != "{}" {
        out.raw("text", &text);
    }
    if let Some(user) = &read.end_user {
        out.string("safety_identifier", user);
    }
    for name in ["service_tier", "metadata"] {
        out.raw_some(name, read.take_setting(name).map(|setting| setting.raw));
    }
    out.raw("store", "false");
    if read.stream {
        out.raw("stream", "true");
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

/// The items of an input under way.
struct Input {
    items: Array,
    foreign_reasoning: bool,
}

impl Input {
    /// Calls and results are items of their own between the messages.
    fn turn(&mut self, turn: &Turn<'_>) -> Result<(), ModelError> {
        let mut content = Array::new();
        for piece in &turn.pieces {
            let item = match &piece.part {
                Part::Call(call) => {
                    let mut item = Object::new();
                    item.string("type", "function_call");
                    item.string("call_id", &call.id);
                    item.string("name", &call.name);
                    item.string("arguments", &call.arguments);
                    item.finish()
                }
                Part::Result { id, pieces, is_error } => result_item(id, pieces, *is_error)?,
                Part::Reasoning { .. } => {
                    self.foreign_reasoning = true;
                    continue;
                }
                _ => {
                    content.raw(&content_part(piece, turn.role)?);
                    continue;
                }
            };
            self.message(turn.role, std::mem::replace(&mut content, Array::new()));
            self.items.raw(&item);
        }
        self.message(turn.role, content);
        Ok(())
    }

    fn message(&mut self, role: Role, content: Array) {
        if !content.is_empty() {
            let mut item = Object::new();
            item.string("type", "message");
            item.string("role", word(role));
            item.raw("content", &content.finish());
            self.items.raw(&item.finish());
        }
    }
}

fn word(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}

/// What stands before a result that is an error: the form has no other way to say so.
const ERROR_MARK: &str = "Error: ";

fn result_item(id: &str, pieces: &[Piece<'_>], is_error: bool) -> Result<String, ModelError> {
    let mut item = Object::new();
    item.string("type", "function_call_output");
    item.string("call_id", id);
    let mark = if is_error { ERROR_MARK } else { "" };
    match pieces {
        [] => item.string("output", mark.trim_end_matches([':', ' '])),
        [Piece { part: Part::Text(text), .. }] => item.string("output", &format!("{mark}{text}")),
        pieces => {
            let mut output = Array::new();
            if is_error {
                output.raw(&text_part("input_text", mark));
            }
            for piece in pieces {
                output.raw(&content_part(piece, Role::User)?);
            }
            item.raw("output", &output.finish());
        }
    }
    Ok(item.finish())
}

fn text_part(kind: &str, text: &str) -> String {
    let mut part = Object::new();
    part.string("type", kind);
    part.string("text", text);
    part.finish()
}

fn content_part(piece: &Piece<'_>, role: Role) -> Result<String, ModelError> {
    let says = if role == Role::Assistant { "output_text" } else { "input_text" };
    let mut part = Object::new();
    match &piece.part {
        Part::Text(text) => return Ok(text_part(says, text)),
        Part::Refusal(text) if role == Role::Assistant => {
            part.string("type", "refusal");
            part.string("refusal", text);
        }
        Part::Refusal(text) => return Ok(text_part(says, text)),
        _ if role != Role::User => {
            return Err(piece.untranslatable(FORM, "only the user can show media there"));
        }
        Part::Image(source) => {
            part.string("type", "input_image");
            part.string("detail", "auto");
            part.string("image_url", &url_of(source));
        }
        Part::File { source, name } => {
            part.string("type", "input_file");
            match source {
                Source::Url(url) => part.string("file_url", url),
                source => {
                    part.string("filename", name.as_deref().unwrap_or("document"));
                    part.string("file_data", &url_of(source));
                }
            }
        }
        _ => return Err(piece.untranslatable(FORM, "its messages hold text, images and files")),
    }
    Ok(part.finish())
}

fn url_of(source: &Source<'_>) -> String {
    match source {
        Source::Url(url) => url.clone().into_owned(),
        Source::Base64 { media_type, data } => format!("data:{media_type};base64,{data}"),
        Source::Text(text) => format!("data:text/plain;base64,{}", STANDARD.encode(&**text)),
    }
}

fn write_tools(out: &mut Object, read: &Conversation<'_>) {
    if read.tools.is_empty() {
        return;
    }
    let mut tools = Array::new();
    for tool in &read.tools {
        let mut item = Object::new();
        item.string("type", "function");
        item.string("name", &tool.name);
        if let Some(description) = &tool.description {
            item.string("description", description);
        }
        item.raw("parameters", tool.parameters.unwrap_or("{\"type\":\"object\",\"properties\":{}}"));
        // The other forms do not promise what they are not asked for; here it would be the default.
        item.raw("strict", if tool.strict == Some(true) { "true" } else { "false" });
        tools.raw(&item.finish());
    }
    out.raw("tools", &tools.finish());
    match &read.tool_choice {
        None => {}
        Some(ToolChoice::Auto) => out.string("tool_choice", "auto"),
        Some(ToolChoice::None) => out.string("tool_choice", "none"),
        Some(ToolChoice::Any) => out.string("tool_choice", "required"),
        Some(ToolChoice::Named(name)) => {
            let mut choice = Object::new();
            choice.string("type", "function");
            choice.string("name", name);
            out.raw("tool_choice", &choice.finish());
        }
    }
    if let Some(parallel) = read.parallel_calls {
        out.raw("parallel_tool_calls", if parallel { "true" } else { "false" });
    }
}

fn write_text(read: &mut Conversation<'_>) -> String {
    let mut text = Object::new();
    if let Some(schema) = &read.schema {
        let mut format = Object::new();
        format.string("type", "json_schema");
        format.string("name", schema.name.as_deref().unwrap_or("answer"));
        if let Some(description) = &schema.description {
            format.string("description", description);
        }
        format.raw("schema", schema.raw);
        if let Some(strict) = schema.strict {
            format.raw("strict", if strict { "true" } else { "false" });
        }
        text.raw("format", &format.finish());
    } else if read.take_setting("json_object").is_some() {
        text.raw("format", "{\"type\":\"json_object\"}");
    }
    text.raw_some("verbosity", read.take_setting("verbosity").map(|setting| setting.raw));
    text.finish()
}
