//! A conversation as a `GenerateContentRequest`.

use std::collections::HashMap;

use super::{FORM, NO_SIGNATURE, holding, is_gemini_3};
use crate::{
    json::{DEPTH_CEILING, Kind, quote},
    model::{
        Api, ModelError, Target,
        fields::whole,
        ir::{Call, Conversation, Effort, GEMINI, Part, Piece, Reasoning, Role, Source, ToolChoice, Turn},
        write::{Array, Object},
    },
};

/// Writes the body of `models/MODEL:generateContent`. `api` is what the caller speaks: fields that the
/// conversation does not carry the names of are named in its words.
pub(in crate::model) fn write_request(
    read: &mut Conversation<'_>,
    target: &Target<'_>,
    api: Api,
) -> Result<String, ModelError> {
    let mut out = Object::new();
    if let Some(system) = system_instruction(read, target)? {
        out.raw("systemInstruction", &system);
    }
    let mut contents = Contents::new(target.model);
    for turn in read.turns.iter().filter(|turn| turn.role != Role::System) {
        contents.turn(turn)?;
    }
    let (written, set_aside) = (contents.written.finish(), contents.set_aside);
    out.raw("contents", &written);
    set_aside.into_iter().for_each(|name| read.set_aside(name));
    if read.end_user.is_some() {
        read.set_aside(if api == Api::Messages { "metadata.user_id" } else { "user" });
    }
    write_tools(&mut out, read, api)?;
    let config = generation_config(read, target, api)?;
    if config != "{}" {
        out.raw("generationConfig", &config);
    }
    write_tier(&mut out, read)?;
    read.no_more_settings(FORM)?;
    Ok(out.finish())
}

/// How soon and at what price, in Gemini's words.
fn write_tier(out: &mut Object, read: &mut Conversation<'_>) -> Result<(), ModelError> {
    let Some(setting) = read.take_setting("service_tier") else { return Ok(()) };
    let tier = match setting.raw {
        "\"default\"" => "standard",
        "\"flex\"" => "flex",
        "\"priority\"" | "\"fast\"" => "priority",
        _ => {
            let (field, why) = (setting.field.into(), "it has no such tier");
            return Err(ModelError::Untranslatable { field, form: FORM, why });
        }
    };
    out.string("serviceTier", tier);
    Ok(())
}

/// The system's text has a place of its own, outside the conversation, so that it can only stand in
/// front of it.
fn system_instruction(read: &Conversation<'_>, target: &Target<'_>) -> Result<Option<String>, ModelError> {
    let mut parts = Array::new();
    if let Some(prompt) = target.system {
        parts.raw(&text_part(prompt));
    }
    for (index, turn) in read.turns.iter().enumerate().filter(|(_, turn)| turn.role == Role::System) {
        if index > 0 {
            let why = "the system can speak only at the beginning there";
            return Err(ModelError::Untranslatable { field: turn.field.clone(), form: FORM, why });
        }
        for piece in &turn.pieces {
            match &piece.part {
                Part::Text(text) => parts.raw(&text_part(text)),
                _ => return Err(piece.untranslatable(FORM, "the system can speak only in text there")),
            }
        }
    }
    Ok((!parts.is_empty()).then(|| holding("parts", &parts.finish())))
}

/// The contents of a request under way.
struct Contents<'t> {
    /// Names of the functions that were called, by the id of the call: a result must name its function.
    called: HashMap<&'t str, &'t str>,
    is_gemini_3: bool,
    written: Array,
    set_aside: Vec<&'static str>,
}

impl<'t> Contents<'t> {
    fn new(model: &str) -> Self {
        Self {
            called: HashMap::new(),
            is_gemini_3: is_gemini_3(model),
            written: Array::new(),
            set_aside: Vec::new(),
        }
    }

    fn turn(&mut self, turn: &'t Turn<'_>) -> Result<(), ModelError> {
        match turn.role {
            Role::Assistant => self.model_turn(&turn.pieces),
            Role::User | Role::System => self.user_turn(&turn.pieces),
        }
    }

    /// Results go into a content of their own: it must hold as many as the content before has calls.
    fn user_turn(&mut self, pieces: &[Piece<'_>]) -> Result<(), ModelError> {
        let is_result = |piece: &Piece<'_>| matches!(piece.part, Part::Result { .. });
        for run in pieces.chunk_by(|a, b| is_result(a) == is_result(b)) {
            let mut parts = Array::new();
            for piece in run {
                match &piece.part {
                    Part::Result { id, pieces, is_error } => {
                        parts.raw(&self.result_part(piece, id, pieces, *is_error)?);
                    }
                    _ => parts.raw(&self.said_part(piece)?),
                }
            }
            self.write("user", parts);
        }
        Ok(())
    }

    /// The first call of a turn must be signed on Gemini 3; calls that are parallel to it are not.
    fn model_turn(&mut self, pieces: &'t [Piece<'_>]) -> Result<(), ModelError> {
        let mut parts = Array::new();
        let mut stand_in = self.is_gemini_3.then_some(NO_SIGNATURE);
        for piece in pieces {
            match &piece.part {
                Part::Call(call) => {
                    let signature = call.signature.as_deref().or(stand_in);
                    stand_in = None;
                    self.called.insert(&call.id, &call.name);
                    parts.raw(&call_part(call, signature, piece)?);
                }
                Part::Reasoning { text, signature } => {
                    match signature.as_deref().and_then(|signature| signature.strip_prefix(GEMINI)) {
                        Some(signature) => parts.raw(&thought_part(text, signature)),
                        None => self.set_aside("thinking"),
                    }
                }
                _ => parts.raw(&self.said_part(piece)?),
            }
        }
        self.write("model", parts);
        Ok(())
    }

    fn write(&mut self, role: &str, parts: Array) {
        if !parts.is_empty() {
            let mut content = Object::new();
            content.string("role", role);
            content.raw("parts", &parts.finish());
            self.written.raw(&content.finish());
        }
    }

    fn said_part(&mut self, piece: &Piece<'_>) -> Result<String, ModelError> {
        match &piece.part {
            Part::Text(text) | Part::Refusal(text) => Ok(text_part(text)),
            Part::Image(source) => Ok(media_part(source)),
            Part::File { source, name } => {
                if name.is_some() {
                    self.set_aside("filename");
                }
                Ok(media_part(source))
            }
            Part::Audio { data, format } => Ok(inline_part(&format!("audio/{format}"), data)),
            Part::Call(_) | Part::Result { .. } | Part::Reasoning { .. } => {
                Err(piece.untranslatable(FORM, "this cannot stand in a turn of this role there"))
            }
        }
    }

    /// A result: its text under the word that Gemini reads it by, its media beside it.
    fn result_part(
        &mut self,
        piece: &Piece<'_>,
        id: &str,
        inside: &[Piece<'_>],
        is_error: bool,
    ) -> Result<String, ModelError> {
        let why = "a result names its function there, and no call with this id comes before it";
        let name = *self.called.get(id).ok_or_else(|| piece.untranslatable(FORM, why))?;
        let mut texts: Vec<&str> = Vec::new();
        let mut media = Array::new();
        for piece in inside {
            match &piece.part {
                Part::Text(text) | Part::Refusal(text) => texts.push(text),
                Part::File { source: Source::Text(text), .. } => texts.push(text),
                _ => media.raw(&self.said_part(piece)?),
            }
        }
        let mut response = Object::new();
        response.string(if is_error { "error" } else { "output" }, &texts.join("\n"));
        let mut result = Object::new();
        result.string("id", id);
        result.string("name", name);
        result.raw("response", &response.finish());
        if !media.is_empty() {
            result.raw("parts", &media.finish());
        }
        Ok(holding("functionResponse", &result.finish()))
    }

    fn set_aside(&mut self, name: &'static str) {
        if !self.set_aside.contains(&name) {
            self.set_aside.push(name);
        }
    }
}

fn text_part(text: &str) -> String {
    holding("text", &quote(text))
}

fn thought_part(text: &str, signature: &str) -> String {
    let mut part = Object::new();
    part.string("text", text);
    part.raw("thought", "true");
    part.string("thoughtSignature", signature);
    part.finish()
}

fn inline_part(media_type: &str, data: &str) -> String {
    let mut blob = Object::new();
    blob.string("mimeType", media_type);
    blob.string("data", data);
    holding("inlineData", &blob.finish())
}

fn media_part(source: &Source<'_>) -> String {
    match source {
        Source::Text(text) => text_part(text),
        Source::Base64 { media_type, data } => inline_part(media_type, data),
        Source::Url(url) => {
            let mut file = Object::new();
            if let Some(media_type) = media_type_of(url) {
                file.string("mimeType", media_type);
            }
            file.string("fileUri", url);
            holding("fileData", &file.finish())
        }
    }
}

/// What the end of a URL's path says of its type. Where it says nothing, Gemini finds out itself.
fn media_type_of(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next()?;
    let (_, extension) = path.rsplit('/').next()?.rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "heic" => "image/heic",
        "pdf" => "application/pdf",
        "txt" => "text/plain",
        "csv" => "text/csv",
        "html" => "text/html",
        _ => return None,
    })
}

fn call_part(call: &Call<'_>, signature: Option<&str>, piece: &Piece<'_>) -> Result<String, ModelError> {
    let why = "its arguments must be a JSON object there";
    let args = object_of(&call.arguments).ok_or_else(|| piece.untranslatable(FORM, why))?;
    let mut written = Object::new();
    written.string("id", &call.id);
    written.string("name", &call.name);
    written.raw("args", args);
    let mut part = Object::new();
    part.raw("functionCall", &written.finish());
    if let Some(signature) = signature {
        part.string("thoughtSignature", signature);
    }
    Ok(part.finish())
}

/// The arguments of a call as the object that they must be. Models write nothing for no arguments.
fn object_of(arguments: &str) -> Option<&str> {
    if arguments.trim().is_empty() {
        return Some("{}");
    }
    let value = whole(arguments, DEPTH_CEILING).ok()?;
    (value.kind == Kind::Object).then(|| value.span.of(arguments))
}

fn write_tools(out: &mut Object, read: &Conversation<'_>, api: Api) -> Result<(), ModelError> {
    if !read.tools.is_empty() {
        let mut declarations = Array::new();
        for tool in &read.tools {
            let mut declaration = Object::new();
            declaration.string("name", &tool.name);
            if let Some(description) = &tool.description {
                declaration.string("description", description);
            }
            declaration.raw_some("parametersJsonSchema", tool.parameters);
            declarations.raw(&declaration.finish());
        }
        let tool = holding("functionDeclarations", &declarations.finish());
        out.raw("tools", &format!("[{tool}]"));
    }
    if read.parallel_calls == Some(false) {
        let field = match api {
            Api::Messages => "tool_choice.disable_parallel_tool_use",
            _ => "parallel_tool_calls",
        };
        let why = "it cannot forbid parallel calls";
        return Err(ModelError::Untranslatable { field: field.into(), form: FORM, why });
    }
    if let Some(config) = function_calling_config(read) {
        out.raw("toolConfig", &holding("functionCallingConfig", &config));
    }
    Ok(())
}

/// Which tools may or must be called. That arguments follow their schema, which other forms promise of
/// a strict tool, Gemini promises in the modes `VALIDATED` and `ANY`, of all tools alike.
fn function_calling_config(read: &Conversation<'_>) -> Option<String> {
    let strict = read.tools.iter().any(|tool| tool.strict == Some(true));
    let mut config = Object::new();
    match &read.tool_choice {
        None if !strict => return None,
        Some(ToolChoice::Auto) if !strict => config.string("mode", "AUTO"),
        None | Some(ToolChoice::Auto) => config.string("mode", "VALIDATED"),
        Some(ToolChoice::None) => config.string("mode", "NONE"),
        Some(ToolChoice::Any) => config.string("mode", "ANY"),
        Some(ToolChoice::Named(name)) => {
            config.string("mode", "ANY");
            config.raw("allowedFunctionNames", &Array::of_strings(&[name]));
        }
    }
    Some(config.finish())
}

/// Settings that only differ in their name.
const SETTINGS: [(&str, &str); 4] = [
    ("top_k", "topK"),
    ("seed", "seed"),
    ("presence_penalty", "presencePenalty"),
    ("frequency_penalty", "frequencyPenalty"),
];

fn generation_config(
    read: &mut Conversation<'_>,
    target: &Target<'_>,
    api: Api,
) -> Result<String, ModelError> {
    let mut config = Object::new();
    if let Some(max) = read.max_tokens {
        config.raw("maxOutputTokens", &max.to_string());
    }
    config.raw_some("temperature", read.temperature);
    config.raw_some("topP", read.top_p);
    for (name, member) in SETTINGS {
        config.raw_some(member, read.take_setting(name).map(|setting| setting.raw));
    }
    if !read.stop.is_empty() {
        config.raw("stopSequences", &Array::of_strings(&read.stop));
    }
    let json = read.take_setting("json_object").is_some();
    if json || read.schema.is_some() {
        config.string("responseMimeType", "application/json");
    }
    if let Some(schema) = &read.schema {
        config.raw("responseJsonSchema", &schema.labelled()?);
    }
    let summary = read.take_setting("reasoning_summary").is_some();
    if let Some(reasoning) = read.reasoning {
        // Anthropic's callers are shown what the model thinks whenever it is asked to think.
        let shown = summary || (api == Api::Messages && reasoning != Reasoning::Off);
        config.raw("thinkingConfig", &thinking_config(reasoning, target.model, shown));
    } else if summary {
        config.raw("thinkingConfig", "{\"includeThoughts\":true}");
    }
    Ok(config.finish())
}

/// Gemini 3 is told a level and 2.5 a budget; the budgets are those of Google's own OpenAI-compatible
/// endpoint. The most that there is stands for more than that.
fn thinking_config(reasoning: Reasoning, model: &str, shown: bool) -> String {
    let mut config = Object::new();
    match reasoning {
        Reasoning::Off => config.raw("thinkingBudget", "0"),
        Reasoning::Adaptive => config.raw("thinkingBudget", "-1"),
        Reasoning::Budget(tokens) => config.raw("thinkingBudget", &tokens.to_string()),
        Reasoning::Effort(effort) if is_gemini_3(model) => config.string("thinkingLevel", level(effort)),
        Reasoning::Effort(effort) => config.raw("thinkingBudget", budget(effort)),
    }
    if shown {
        config.raw("includeThoughts", "true");
    }
    config.finish()
}

fn level(effort: Effort) -> &'static str {
    match effort {
        Effort::Minimal => "MINIMAL",
        Effort::Low => "LOW",
        Effort::Medium => "MEDIUM",
        Effort::High => "HIGH",
        Effort::Xhigh | Effort::Max => "XHIGH",
    }
}

fn budget(effort: Effort) -> &'static str {
    match effort {
        Effort::Minimal | Effort::Low => "1024",
        Effort::Medium => "8192",
        Effort::High | Effort::Xhigh | Effort::Max => "24576",
    }
}
