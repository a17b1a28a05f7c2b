//! What is looked for in an answer that stays as it is: usage, stop reason, and tool calls with the
//! places where they stand, so that a refused one can be replaced by text.
//!
//! Only what must be understood is required; everything else passes. A tool call that cannot be read
//! cannot be decided, so it makes the whole answer unreadable.

use std::borrow::Cow;

use super::{
    Api, ModelError, StopReason, ToolCall, Usage,
    fields::{Fields, Place, elements_of, string_of},
    responses,
};
use crate::{
    edit::{Changes, Edit, apply, cut},
    json::{Kind, Span, Value, quote},
};

/// As many as a request can ask for (OpenAI API reference, `n`).
const CHOICES_MAX: usize = 128;

/// What was found in an answer.
#[derive(Debug, Default)]
pub(super) struct Found<'a> {
    pub(super) model: Option<Cow<'a, str>>,
    pub(super) usage: Option<Usage>,
    pub(super) stop: Option<StopReason>,
    pub(super) calls: Vec<FoundCall>,
    /// The messages of chat completions; one per choice.
    choices: Vec<Choice>,
    /// `stop_reason` of a message.
    stop_reason: Option<Value>,
}

impl<'a> Found<'a> {
    /// What was found in a response, whose calls are items.
    pub(super) fn in_response(
        model: Option<Cow<'a, str>>,
        usage: Option<Usage>,
        stop: Option<StopReason>,
        calls: Vec<FoundCall>,
    ) -> Self {
        Self { model, usage, stop, calls, ..Self::default() }
    }
}

/// A tool call and where it stands.
#[derive(Debug)]
pub(super) struct FoundCall {
    pub(super) call: ToolCall,
    pub(super) choice: usize,
    at: CallAt,
}

impl FoundCall {
    /// A call that is an element of an array.
    pub(super) fn element(call: ToolCall, span: Span) -> Self {
        Self { call, choice: 0, at: CallAt::Element(span) }
    }
}

#[derive(Debug)]
enum CallAt {
    /// An element of an array (`tool_calls`, `content`).
    Element(Span),
    /// The older member `function_call` of a message.
    FunctionCall,
}

#[derive(Debug)]
struct Choice {
    message: Value,
    content: Option<Value>,
    finish_reason: Option<Value>,
}

/// Looks through an answer in the form of `api`.
pub(super) fn find(api: Api, text: &str, root: Value) -> Result<Found<'_>, ModelError> {
    let place = Place::Root;
    if root.kind != Kind::Object {
        return Err(ModelError::Wrong { field: "the answer".into(), want: "an object" });
    }
    let mut fields = Fields::of(text, root, &place)?;
    match api {
        Api::Chat => find_in_chat(&mut fields),
        Api::Messages => find_in_message(&mut fields),
        Api::Embeddings => {
            need_array(&mut fields, "data")?;
            let model = fields.string("model")?;
            Ok(Found { usage: chat_usage(&mut fields)?, model, ..Found::default() })
        }
        Api::CountTokens => {
            let missing = || place.member("input_tokens").missing("an integer");
            fields.unsigned("input_tokens")?.ok_or_else(missing)?;
            Ok(Found::default())
        }
        Api::Responses => responses::find(&mut fields),
    }
}

/// Puts texts in the place of calls.
pub(super) fn replace(
    api: Api,
    text: &str,
    found: &Found<'_>,
    verdicts: &[Option<String>],
) -> Result<String, ModelError> {
    let decided: Vec<_> = found.calls.iter().zip(verdicts).collect();
    let mut edits = Vec::new();
    match api {
        Api::Chat => {
            for (index, choice) in found.choices.iter().enumerate() {
                let of_choice = decided.iter().filter(|(call, _)| call.choice == index);
                replace_in_choice(text, choice, &of_choice.copied().collect::<Vec<_>>(), &mut edits)?;
            }
        }
        Api::Responses => replace_items(&decided, &mut edits),
        _ => replace_in_message(text, found, &decided, &mut edits),
    }
    Ok(apply(text, edits))
}

/// A refused item of a response becomes a message in its place.
fn replace_items(calls: &[Decided<'_>], edits: &mut Vec<Edit>) {
    for (call, verdict) in calls {
        if let (CallAt::Element(span), Some(refusal)) = (&call.at, verdict) {
            let text = responses::refused_item(&call.call, refusal);
            edits.push(Edit { range: span.start..span.end, text });
        }
    }
}

type Decided<'d> = (&'d FoundCall, &'d Option<String>);

fn need_array(fields: &mut Fields<'_, '_>, name: &str) -> Result<Vec<Value>, ModelError> {
    let place = fields.place.member(name);
    match fields.take(name) {
        Some(value) if value.kind == Kind::Array => elements_of(fields.text, value),
        Some(_) => Err(place.wrong("an array")),
        None => Err(place.missing("an array")),
    }
}

fn chat_usage(fields: &mut Fields<'_, '_>) -> Result<Option<Usage>, ModelError> {
    let place = fields.place.member("usage");
    let usage = fields.object("usage")?;
    usage.map(|usage| Usage::read_chat(fields.text, usage, &place)).transpose()
}

fn find_in_chat<'a>(fields: &mut Fields<'a, '_>) -> Result<Found<'a>, ModelError> {
    let mut found = Found { model: fields.string("model")?, usage: chat_usage(fields)?, ..Found::default() };
    let list = fields.place.member("choices");
    let choices = need_array(fields, "choices")?;
    if choices.len() > CHOICES_MAX {
        return Err(ModelError::TooMany { field: list.to_string(), max: CHOICES_MAX });
    }
    for (index, value) in choices.into_iter().enumerate() {
        find_in_choice(&mut found, fields.text, value, index, &list.item(index))?;
    }
    Ok(found)
}

fn find_in_choice(
    found: &mut Found<'_>,
    text: &str,
    value: Value,
    index: usize,
    place: &Place<'_>,
) -> Result<(), ModelError> {
    let mut choice = Fields::of(text, value, place)?;
    let finish_reason = choice.take("finish_reason");
    if index == 0 {
        found.stop = choice.string("finish_reason")?.as_deref().and_then(StopReason::from_chat);
    }
    let place = place.member("message");
    let message = choice.object("message")?.ok_or_else(|| place.missing("an object"))?;
    let mut fields = Fields::of(text, message, &place)?;
    fields.check_assistant()?;
    let calls = place.member("tool_calls");
    for (i, value) in fields.elements("tool_calls")?.into_iter().enumerate() {
        let call = chat_call(text, value, &calls.item(i))?;
        found.calls.push(FoundCall { call, choice: index, at: CallAt::Element(value.span) });
    }
    let older = place.member("function_call");
    if let Some(value) = fields.object("function_call")? {
        let (name, arguments) = called(text, value, &older)?;
        let call = ToolCall { id: String::new(), name, arguments };
        found.calls.push(FoundCall { call, choice: index, at: CallAt::FunctionCall });
    }
    found.choices.push(Choice { message, content: fields.take("content"), finish_reason });
    Ok(())
}

fn chat_call(text: &str, value: Value, place: &Place<'_>) -> Result<ToolCall, ModelError> {
    let mut call = Fields::of(text, value, place)?;
    let id = call.string("id")?.unwrap_or_default().into_owned();
    if let Some(custom) = call.object("custom")? {
        let place = place.member("custom");
        let mut custom = Fields::of(text, custom, &place)?;
        let (name, input) = (custom.need_string("name")?, custom.need_string("input")?);
        // Free text; as JSON it is a string.
        return Ok(ToolCall { id, name: name.into_owned(), arguments: quote(&input) });
    }
    let place = place.member("function");
    let function = call.object("function")?.ok_or_else(|| place.missing("an object"))?;
    let (name, arguments) = called(text, function, &place)?;
    Ok(ToolCall { id, name, arguments })
}

/// Name and arguments of a function. Some compatible servers write the arguments as an object.
fn called(text: &str, value: Value, place: &Place<'_>) -> Result<(String, String), ModelError> {
    let mut function = Fields::of(text, value, place)?;
    let name = function.need_string("name")?.into_owned();
    let arguments = match function.take("arguments") {
        None => String::new(),
        Some(value) if value.kind == Kind::Object => value.span.of(text).to_string(),
        Some(value) => string_of(text, value, &place.member("arguments"))?.into_owned(),
    };
    Ok((name, arguments))
}

fn replace_in_choice(
    text: &str,
    choice: &Choice,
    calls: &[Decided<'_>],
    edits: &mut Vec<Edit>,
) -> Result<(), ModelError> {
    let refusals: Vec<&str> = calls.iter().filter_map(|(_, verdict)| verdict.as_deref()).collect();
    if refusals.is_empty() {
        return Ok(());
    }
    let mut message = Changes::default();
    let elements = |(call, verdict): &Decided<'_>| match call.at {
        CallAt::Element(span) => Some((span, verdict.is_none())),
        CallAt::FunctionCall => None,
    };
    let listed: Vec<(Span, bool)> = calls.iter().filter_map(elements).collect();
    if listed.iter().any(|(_, kept)| *kept) {
        cut(&listed, edits);
    } else {
        message.remove("tool_calls");
    }
    if calls.iter().any(|(call, verdict)| matches!(call.at, CallAt::FunctionCall) && verdict.is_some()) {
        message.remove("function_call");
    }
    add_to_content(text, choice.content, &refusals.join("\n\n"), &mut message, edits)?;
    if let Some(reason) = choice.finish_reason
        && calls.iter().all(|(_, verdict)| verdict.is_some())
        && matches!(reason.span.of(text), "\"tool_calls\"" | "\"function_call\"")
    {
        edits.push(Edit { range: reason.span.start..reason.span.end, text: quote("stop") });
    }
    Ok(message.edit(text, choice.message.span, edits)?)
}

/// Adds a text to the content of a message, whose bytes stay.
fn add_to_content(
    text: &str,
    content: Option<Value>,
    added: &str,
    message: &mut Changes,
    edits: &mut Vec<Edit>,
) -> Result<(), ModelError> {
    match content {
        Some(Value { kind: Kind::String, span }) if span.of(text).len() > 2 => {
            let quoted = quote(&format!("\n\n{added}"));
            let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
            let at = span.end.saturating_sub(1);
            edits.push(Edit { range: at..at, text: inner.to_string() });
        }
        // Parts, as some compatible servers answer.
        Some(Value { kind: Kind::Array, span }) => {
            let is_empty = elements_of(text, Value { kind: Kind::Array, span })?.is_empty();
            let comma = if is_empty { "" } else { "," };
            let part = format!("{comma}{{\"type\":\"text\",\"text\":{}}}", quote(added));
            let at = span.end.saturating_sub(1);
            edits.push(Edit { range: at..at, text: part });
        }
        _ => message.set("content", &quote(added)),
    }
    Ok(())
}

fn find_in_message<'a>(fields: &mut Fields<'a, '_>) -> Result<Found<'a>, ModelError> {
    let place = fields.place;
    fields.check_assistant()?;
    let mut found = Found { model: fields.string("model")?, ..Found::default() };
    found.stop = fields.string("stop_reason")?.as_deref().and_then(StopReason::from_messages);
    found.stop_reason = fields.take("stop_reason");
    let usage = place.member("usage");
    if let Some(value) = fields.object("usage")? {
        found.usage = Some(Usage::read_messages(fields.text, value, &usage)?);
    }
    let content = place.member("content");
    for (index, value) in need_array(fields, "content")?.into_iter().enumerate() {
        let item = content.item(index);
        let mut block = Fields::of(fields.text, value, &item)?;
        if block.need_string("type")? != "tool_use" {
            continue;
        }
        let input = block.take("input").map_or("{}", |input| input.span.of(fields.text));
        let call = ToolCall {
            id: block.need_string("id")?.into_owned(),
            name: block.need_string("name")?.into_owned(),
            arguments: input.to_string(),
        };
        found.calls.push(FoundCall { call, choice: 0, at: CallAt::Element(value.span) });
    }
    Ok(found)
}

fn replace_in_message(text: &str, found: &Found<'_>, calls: &[Decided<'_>], edits: &mut Vec<Edit>) {
    for (call, verdict) in calls {
        if let (CallAt::Element(span), Some(refusal)) = (&call.at, verdict) {
            let block = format!("{{\"type\":\"text\",\"text\":{}}}", quote(refusal));
            edits.push(Edit { range: span.start..span.end, text: block });
        }
    }
    if let Some(reason) = found.stop_reason
        && calls.iter().all(|(_, verdict)| verdict.is_some())
        && reason.span.of(text) == "\"tool_use\""
    {
        edits.push(Edit { range: reason.span.start..reason.span.end, text: quote("end_turn") });
    }
}
