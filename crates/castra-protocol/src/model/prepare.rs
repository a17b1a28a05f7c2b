//! Making the body that goes to a provider.
//!
//! A provider that speaks the caller's form gets the caller's bytes, in which only spans change: the
//! name of the model, what the version sets, its system prompt, and the wish for usage at the end of a
//! chat stream. For any other provider the request is translated and then changed in the same places.

use std::borrow::Cow;

use super::{
    Api, Asked, Form, ModelError, Prepared, Request, RequestFacts, Target,
    fields::{elements_of, unsigned_of, whole},
    gemini, translate,
};
use crate::{
    edit::{Changes, Edit, apply},
    json::{self, DEPTH_CEILING, JsonError, Kind, Scanner, Value, quote},
};

/// Members that a version cannot set, since the gate or a key of the version's own says what they are.
const RESERVED: [&str; 13] = [
    "model",
    "messages",
    "input",
    "contents",
    "system",
    "instructions",
    "systemInstruction",
    "system_instruction",
    "tools",
    "n",
    "stream",
    "stream_options",
    "candidateCount",
];

/// Whether a version of a model may set this member of a request; for the reader of a configuration.
///
/// # Errors
///
/// [`ModelError::Wrong`] with the name, if what it says is decided elsewhere.
pub fn check_param(name: &str) -> Result<(), ModelError> {
    if RESERVED.contains(&name) {
        let want = "a parameter of the model; this member is set by the request or by a key of its own";
        return Err(ModelError::Wrong { field: name.into(), want });
    }
    Ok(())
}

/// Makes the request that goes to the provider of `target`.
///
/// # Errors
///
/// The provider has nothing that answers this API, a tool is offered that the version does not have,
/// or a part of the request cannot be said in the provider's form.
pub fn prepare<'a>(request: &Request<'a>, target: &Target<'_>) -> Result<Prepared<'a>, ModelError> {
    check_tools(request, target)?;
    let mut facts = RequestFacts {
        api: request.api,
        form: target.form,
        model: request.model.clone().into_owned(),
        stream: request.stream,
        usage_asked: request.usage_asked,
        created: target.now,
        asked: Asked::Nothing,
    };
    let endpoint = endpoint(request, target)?;
    if request.api.native_form() == target.form {
        let default = bound_name(request, target).and(target.output_max);
        let max_output_tokens = max_param(target).or(request.max_output_tokens).or(default);
        let body = splice(request, target)?;
        return Ok(Prepared { body, endpoint, facts, max_output_tokens, set_aside: Vec::new() });
    }
    let translated = translate::request(request, target)?;
    facts.asked = translated.asked;
    let max_output_tokens = max_param(target).or(translated.max_output_tokens);
    let body = with_params(&translated.body, target)?.into_bytes();
    Ok(Prepared {
        body: Cow::Owned(body),
        endpoint,
        facts,
        max_output_tokens,
        set_aside: translated.set_aside,
    })
}

/// Refuses a tool that is not in the version's set. The set bounds what a version was tried with, so
/// another tool is an error of the caller and not something to leave out.
fn check_tools(request: &Request<'_>, target: &Target<'_>) -> Result<(), ModelError> {
    let Some(allowed) = target.tools else { return Ok(()) };
    let foreign = |(_, tool): &(usize, &Cow<'_, str>)| !allowed.iter().any(|a| *a == **tool);
    match request.tools.iter().enumerate().find(foreign) {
        Some((index, tool)) => {
            let tool = tool.chars().take(128).collect();
            Err(ModelError::ForeignTool { field: format!("tools[{index}]"), tool })
        }
        None => Ok(()),
    }
}

fn endpoint(request: &Request<'_>, target: &Target<'_>) -> Result<Cow<'static, str>, ModelError> {
    let unserved = || ModelError::Unserved { api: request.api, form: target.form };
    Ok(match (request.api, target.form) {
        (Api::Embeddings, Form::OpenAiChat) => Cow::Borrowed("embeddings"),
        (Api::CountTokens, Form::AnthropicMessages) => Cow::Borrowed("messages/count_tokens"),
        (Api::Embeddings, Form::Gemini) => gemini_endpoint(target, "batchEmbedContents"),
        (Api::Embeddings | Api::CountTokens, _) => return Err(unserved()),
        (_, Form::OpenAiChat) => Cow::Borrowed("chat/completions"),
        (_, Form::OpenAiResponses) => Cow::Borrowed("responses"),
        (_, Form::AnthropicMessages) => Cow::Borrowed("messages"),
        (_, Form::Gemini) if request.stream => gemini_endpoint(target, "streamGenerateContent?alt=sse"),
        (_, Form::Gemini) => gemini_endpoint(target, "generateContent"),
    })
}

/// Gemini has the model in the path. A name with a slash is the name of a resource (`tunedModels/x`).
fn gemini_endpoint(target: &Target<'_>, verb: &str) -> Cow<'static, str> {
    Cow::Owned(format!("{}:{verb}", gemini::resource(target.model)))
}

/// The most output tokens that a version sets.
fn max_param(target: &Target<'_>) -> Option<u64> {
    const NAMES: [&str; 3] = ["max_completion_tokens", "max_tokens", "max_output_tokens"];
    let of = |(name, raw): &(String, String)| {
        let value = whole(raw, DEPTH_CEILING).ok()?;
        match name.as_str() {
            "generationConfig" => json::get(raw, &["maxOutputTokens"])?.parse().ok(),
            name if NAMES.contains(&name) => unsigned_of(raw, value),
            _ => None,
        }
    };
    target.params.iter().filter_map(of).max()
}

fn splice<'a>(request: &Request<'a>, target: &Target<'_>) -> Result<Cow<'a, [u8]>, ModelError> {
    let mut edits = Vec::new();
    let mut root = Changes::default();
    if request.model != target.model {
        let span = request.places.model;
        edits.push(Edit { range: span.start..span.end, text: quote(target.model) });
    }
    set_params(&mut root, request.api, target);
    set_bound(&mut root, request, target);
    ask_for_usage(request, &mut root, &mut edits)?;
    if let Some(prompt) = target.system {
        add_system(request, prompt, &mut root, &mut edits)?;
    }
    root.edit(request.text, request.places.root.span, &mut edits)?;
    Ok(match edits.is_empty() {
        true => Cow::Borrowed(request.text.as_bytes()),
        false => Cow::Owned(apply(request.text, edits).into_bytes()),
    })
}

/// Sets what the version sets in a body that was just written.
fn with_params(body: &str, target: &Target<'_>) -> Result<String, ModelError> {
    let api = match target.form {
        Form::OpenAiChat => Api::Chat,
        Form::OpenAiResponses => Api::Responses,
        Form::AnthropicMessages | Form::Gemini => Api::Messages,
    };
    let mut root = Changes::default();
    set_params(&mut root, api, target);
    if let (Form::Gemini, Some(own)) = (target.form, json::get(body, &[GENERATION])) {
        merge_generation(&mut root, own, target)?;
    }
    let mut edits = Vec::new();
    root.edit(body, whole(body, DEPTH_CEILING)?.span, &mut edits)?;
    Ok(apply(body, edits))
}

/// Where Gemini has what other forms have in the request itself.
const GENERATION: &str = "generationConfig";

/// What a version sets of the generation stands in place of the same of the caller, beside the rest.
fn merge_generation(root: &mut Changes, own: &str, target: &Target<'_>) -> Result<(), ModelError> {
    let Some((_, set)) = target.params.iter().find(|(name, _)| name == GENERATION) else { return Ok(()) };
    let mut merged = Changes::default();
    Scanner::at(set, whole(set, DEPTH_CEILING)?.span).members(|s, name| {
        merged.set(&name.decode(), s.skip()?.span.of(set));
        Ok::<_, JsonError>(())
    })?;
    let mut edits = Vec::new();
    merged.edit(own, whole(own, DEPTH_CEILING)?.span, &mut edits)?;
    root.set(GENERATION, &apply(own, edits));
    Ok(())
}

fn set_params(root: &mut Changes, api: Api, target: &Target<'_>) {
    for (name, raw) in target.params {
        // Counting takes only what changes the count (Anthropic, `MessageCountTokensParams`).
        const COUNTED: [&str; 5] = ["cache_control", "output_config", "speed", "thinking", "tool_choice"];
        if api == Api::CountTokens && !COUNTED.contains(&name.as_str()) {
            continue;
        }
        root.set(name, raw);
        // Two names for one limit; OpenAI refuses a request that has both.
        match name.as_str() {
            "max_completion_tokens" => root.remove("max_tokens"),
            "max_tokens" if api == Api::Chat => root.remove("max_completion_tokens"),
            _ => {}
        }
    }
}

/// Bounds the answer where neither the caller nor the version's parameters do.
fn set_bound(root: &mut Changes, request: &Request<'_>, target: &Target<'_>) {
    if let (Some(name), Some(max), None, None) =
        (bound_name(request, target), target.output_max, request.max_output_tokens, max_param(target))
    {
        root.set(name, &max.to_string());
    }
}

/// The member that bounds an answer, where the caller's form has one. OpenAI's newer models know only
/// the newer name, and what is compatible often only the older.
fn bound_name(request: &Request<'_>, target: &Target<'_>) -> Option<&'static str> {
    match request.api {
        Api::Chat if target.compatible => Some("max_tokens"),
        Api::Chat => Some("max_completion_tokens"),
        Api::Responses => Some("max_output_tokens"),
        Api::Messages => Some("max_tokens"),
        Api::Embeddings | Api::CountTokens => None,
    }
}

/// Without its usage a stream could not be settled with the budgets.
fn ask_for_usage(request: &Request<'_>, root: &mut Changes, edits: &mut Vec<Edit>) -> Result<(), ModelError> {
    if request.api != Api::Chat || !request.stream || request.usage_asked {
        return Ok(());
    }
    match request.places.stream_options {
        Some(options) => {
            let mut inside = Changes::default();
            inside.set("include_usage", "true");
            inside.edit(request.text, options.span, edits)?;
        }
        None => root.set("stream_options", "{\"include_usage\":true}"),
    }
    Ok(())
}

/// Puts the version's system prompt before everything that the caller says.
fn add_system(
    request: &Request<'_>,
    prompt: &str,
    root: &mut Changes,
    edits: &mut Vec<Edit>,
) -> Result<(), ModelError> {
    let before = |at: usize, text: String| Edit { range: at..at, text };
    match (request.api, request.places.system) {
        (Api::Embeddings, _) => {}
        (Api::Chat, _) => {
            let message = format!("{{\"role\":\"system\",\"content\":{}}}", quote(prompt));
            edits.push(first_element(request.text, request.places.messages, message)?);
        }
        (Api::Messages | Api::CountTokens, None) => root.set("system", &quote(prompt)),
        (Api::Responses, None) => root.set("instructions", &quote(prompt)),
        (_, Some(own)) if own.kind == Kind::String => {
            // Inside the quotes of the caller's own, so that its bytes stay.
            let quoted = quote(&format!("{prompt}\n\n"));
            let inner = quoted.trim_start_matches('"');
            let inner = inner.strip_suffix('"').unwrap_or(inner);
            edits.push(before(own.span.start + 1, inner.to_string()));
        }
        (Api::Messages | Api::CountTokens, Some(own)) if own.kind == Kind::Array => {
            let block = format!("{{\"type\":\"text\",\"text\":{}}}", quote(prompt));
            edits.push(first_element(request.text, own, block)?);
        }
        (api, Some(_)) => {
            let field = if api == Api::Responses { "instructions" } else { "system" };
            return Err(ModelError::Wrong {
                field: field.into(),
                want: "a string or an array of text blocks",
            });
        }
    }
    Ok(())
}

fn first_element(text: &str, array: Value, mut element: String) -> Result<Edit, ModelError> {
    if !elements_of(text, array)?.is_empty() {
        element.push(',');
    }
    let at = array.span.start + 1;
    Ok(Edit { range: at..at, text: element })
}
