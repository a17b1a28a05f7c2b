//! A Responses object as an answer, and an answer as a Responses object.

use super::FORM;
use crate::{
    json::{DEPTH_CEILING, Value},
    model::{
        Asked, ModelError, RequestFacts, StopReason, Usage,
        fields::{Fields, Place, whole},
        ir::{Call, GEMINI, Part, Reply, SIGNATURE},
        write::{Array, Object},
    },
};

/// Reads an answer of a provider.
pub(in crate::model) fn read_reply(text: &str, value: Value) -> Result<Reply<'_>, ModelError> {
    let root = Place::Root;
    let mut fields = Fields::of(text, value, &root)?;
    let mut output = Output { text, parts: Vec::new(), refused: false, calls: false };
    let list = root.member("output");
    for (index, item) in fields.elements("output")?.into_iter().enumerate() {
        output.item(item, &list.item(index))?;
    }
    let place = root.member("usage");
    let usage = match fields.object("usage")? {
        Some(usage) => Some(Usage::read_responses(text, usage, &place)?),
        None => None,
    };
    let stop = match stop_of(&mut fields)? {
        StopReason::End if output.refused => StopReason::Refusal,
        StopReason::End if output.calls => StopReason::ToolCalls,
        stop => stop,
    };
    Ok(Reply {
        id: fields.string("id")?.unwrap_or_default(),
        model: fields.string("model")?.unwrap_or_default(),
        parts: output.parts,
        stop,
        stop_sequence: None,
        usage,
    })
}

/// Why the model stopped, as `status` and `incomplete_details` tell together.
pub(super) fn stop_of(fields: &mut Fields<'_, '_>) -> Result<StopReason, ModelError> {
    let fault = |fault: String| ModelError::Answer { form: FORM, fault };
    let (text, place) = (fields.text, fields.place.member("incomplete_details"));
    let reason = match fields.object("incomplete_details")? {
        Some(details) => Fields::of(text, details, &place)?.string("reason")?,
        None => None,
    };
    match fields.need_string("status")?.as_ref() {
        "completed" => Ok(StopReason::End),
        "incomplete" => {
            let stop = reason.as_deref().and_then(StopReason::from_responses);
            stop.ok_or_else(|| place.member("reason").wrong("a reason of the Responses API"))
        }
        "failed" => Err(fault("the response failed".into())),
        "cancelled" | "queued" | "in_progress" => Err(fault("the response is not there yet".into())),
        _ => Err(fields.place.member("status").wrong("a status of the Responses API")),
    }
}

/// The output of an answer under way.
struct Output<'a> {
    text: &'a str,
    parts: Vec<Part<'a>>,
    refused: bool,
    calls: bool,
}

impl<'a> Output<'a> {
    fn item(&mut self, value: Value, place: &Place<'_>) -> Result<(), ModelError> {
        let mut item = Fields::of(self.text, value, place)?;
        match &*item.need_string("type")? {
            "message" => self.message(&mut item),
            "function_call" => {
                self.calls = true;
                self.parts.push(Part::Call(Call {
                    id: item.need_string("call_id")?,
                    name: item.need_string("name")?,
                    arguments: item.need_string("arguments")?,
                    signature: None,
                }));
                Ok(())
            }
            "reasoning" => self.reasoning(&mut item),
            _ => Err(unsaid(&place.member("type"))),
        }
    }

    fn message(&mut self, item: &mut Fields<'a, '_>) -> Result<(), ModelError> {
        let list = item.place.member("content");
        for (index, value) in item.elements("content")?.into_iter().enumerate() {
            let place = list.item(index);
            let mut part = Fields::of(self.text, value, &place)?;
            match &*part.need_string("type")? {
                "output_text" => self.parts.push(Part::Text(part.need_string("text")?)),
                "refusal" => {
                    self.refused = true;
                    self.parts.push(Part::Refusal(part.need_string("refusal")?));
                }
                _ => return Err(unsaid(&place.member("type"))),
            }
        }
        Ok(())
    }

    /// The summary, or the whole thought of an open model; one without either says nothing.
    fn reasoning(&mut self, item: &mut Fields<'a, '_>) -> Result<(), ModelError> {
        let mut texts: Vec<String> = Vec::new();
        for name in ["content", "summary"] {
            let list = item.place.member(name);
            for (index, value) in item.elements(name)?.into_iter().enumerate() {
                let place = list.item(index);
                texts.push(Fields::of(self.text, value, &place)?.need_string("text")?.into_owned());
            }
            if !texts.is_empty() {
                self.parts.push(Part::Reasoning { text: texts.join("\n\n").into(), signature: None });
                break;
            }
        }
        Ok(())
    }
}

fn unsaid(place: &Place<'_>) -> ModelError {
    ModelError::AnswerUntranslatable {
        field: place.to_string(),
        why: "the caller's form has nothing like it",
    }
}

/// Writes an answer.
pub(in crate::model) fn write_reply(reply: &Reply<'_>, facts: &RequestFacts) -> Result<String, ModelError> {
    let ending = Ending::of(reply)?;
    let mut out = Object::new();
    out.string("id", &format!("resp_{}", plain(&reply.id)));
    out.string("object", "response");
    out.raw("created_at", &facts.created.to_string());
    out.string("status", ending.status);
    out.raw("background", "false");
    out.raw("error", "null");
    match ending.reason {
        Some(reason) => out.raw("incomplete_details", &format!("{{\"reason\":\"{reason}\"}}")),
        None => out.raw("incomplete_details", "null"),
    }
    out.string("model", &reply.model);
    out.raw("output", &write_output(reply, facts, ending.status)?);
    if let Some(repeated) = facts.repeated() {
        out.members(repeated);
    }
    match &reply.usage {
        Some(usage) => out.raw("usage", &usage.to_responses()),
        None => out.raw("usage", "null"),
    }
    Ok(out.finish())
}

/// How an answer ended, in two words.
struct Ending {
    status: &'static str,
    reason: Option<&'static str>,
}

impl Ending {
    fn of(reply: &Reply<'_>) -> Result<Self, ModelError> {
        let says_no = reply.parts.iter().any(|part| matches!(part, Part::Refusal(_)));
        let (status, reason) = match reply.stop {
            StopReason::End | StopReason::StopSequence | StopReason::ToolCalls => ("completed", None),
            StopReason::Refusal if says_no => ("completed", None),
            StopReason::Refusal => ("incomplete", Some("content_filter")),
            StopReason::MaxTokens | StopReason::ContextFull => ("incomplete", Some("max_output_tokens")),
            StopReason::Pause => {
                let why = "the Responses API has no pause";
                return Err(ModelError::AnswerUntranslatable { field: "stop_reason".into(), why });
            }
        };
        Ok(Self { status, reason })
    }
}

/// Text that follows text is one message; calls and thoughts are items of their own. Only what comes
/// last can be incomplete.
fn write_output(reply: &Reply<'_>, facts: &RequestFacts, status: &str) -> Result<String, ModelError> {
    let sealed = matches!(facts.asked, Asked::Response { sealed_reasoning: true, .. });
    let id = plain(&reply.id);
    let said = |part: &Part<'_>| matches!(part, Part::Text(_) | Part::Refusal(_));
    let runs: Vec<_> = reply.parts.chunk_by(|a, b| said(a) && said(b)).collect();
    let mut output = Array::new();
    for (index, run) in runs.iter().enumerate() {
        let status = if index + 1 == runs.len() { status } else { "completed" };
        match run {
            [Part::Reasoning { text, signature }] => {
                let sealed = signature.as_deref().filter(|mark| sealed && *mark != SIGNATURE);
                output.raw(&reasoning_item(&format!("rs_{id}_{index}"), text, sealed));
            }
            [Part::Call(call)] => {
                if let Some(signature) = call.signature.as_deref().filter(|_| sealed) {
                    let mark = format!("{GEMINI}{signature}");
                    output.raw(&reasoning_item(&format!("rs_{id}_{index}"), "", Some(&mark)));
                }
                output.raw(&call_item(&format!("fc_{id}_{index}"), call, status));
            }
            run => output.raw(&message_item(&format!("msg_{id}_{index}"), run, status)?),
        }
    }
    Ok(output.finish())
}

fn message_item(id: &str, run: &[Part<'_>], status: &str) -> Result<String, ModelError> {
    let mut content = Array::new();
    for part in run {
        match part {
            Part::Text(text) => content.raw(&text_part(text)),
            Part::Refusal(text) => {
                let mut part = Object::new();
                part.string("type", "refusal");
                part.string("refusal", text);
                content.raw(&part.finish());
            }
            _ => {
                let why = "output of the Responses API holds text, reasoning and calls of functions";
                return Err(ModelError::AnswerUntranslatable { field: "content".into(), why });
            }
        }
    }
    Ok(message(id, status, &content.finish()))
}

/// A message of the assistant.
pub(super) fn message(id: &str, status: &str, content: &str) -> String {
    let mut item = Object::new();
    item.string("id", id);
    item.string("type", "message");
    item.string("status", status);
    item.string("role", "assistant");
    item.raw("content", content);
    item.finish()
}

/// Text of the assistant.
pub(super) fn text_part(text: &str) -> String {
    let mut part = Object::new();
    part.string("type", "output_text");
    part.raw("annotations", "[]");
    part.raw("logprobs", "[]");
    part.string("text", text);
    part.finish()
}

fn call_item(id: &str, call: &Call<'_>, status: &str) -> String {
    let mut item = Object::new();
    item.string("id", id);
    item.string("type", "function_call");
    item.string("status", status);
    item.string("arguments", &call.arguments);
    item.string("call_id", &call.id);
    item.string("name", &call.name);
    item.finish()
}

fn reasoning_item(id: &str, text: &str, sealed: Option<&str>) -> String {
    let mut summary = Array::new();
    if !text.is_empty() {
        let mut part = Object::new();
        part.string("type", "summary_text");
        part.string("text", text);
        summary.raw(&part.finish());
    }
    let mut item = Object::new();
    item.string("id", id);
    item.string("type", "reasoning");
    item.raw("summary", &summary.finish());
    if let Some(sealed) = sealed {
        item.string("encrypted_content", sealed);
    }
    item.finish()
}

/// The letters of a provider's id that ids of OpenAI are made of.
pub(super) fn plain(id: &str) -> String {
    const ID_MAX: usize = 96;
    id.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).take(ID_MAX).collect()
}

impl StopReason {
    /// Reads `incomplete_details.reason` of the Responses API. None for a word that the form does not
    /// have.
    pub fn from_responses(word: &str) -> Option<Self> {
        Some(match word {
            "max_output_tokens" => Self::MaxTokens,
            "content_filter" => Self::Refusal,
            _ => return None,
        })
    }
}

impl Usage {
    /// Reads the object `usage` of the Responses API (`ResponseUsage`), given as JSON. None if it is not
    /// one.
    pub fn from_responses(raw: &str) -> Option<Self> {
        Self::read_responses(raw, whole(raw, DEPTH_CEILING).ok()?, &Place::Root).ok()
    }

    pub(in crate::model) fn read_responses(
        text: &str,
        value: Value,
        place: &Place<'_>,
    ) -> Result<Self, ModelError> {
        let mut usage = Fields::of(text, value, place)?;
        let mut read = Self {
            input_tokens: usage.unsigned("input_tokens")?.unwrap_or_default(),
            output_tokens: usage.unsigned("output_tokens")?.unwrap_or_default(),
            ..Self::default()
        };
        if let Some(details) = usage.object("input_tokens_details")? {
            let mut details = Fields::of(text, details, place)?;
            read.cache_read_tokens = details.unsigned("cached_tokens")?.unwrap_or_default();
            read.cache_write_tokens = details.unsigned("cache_write_tokens")?.unwrap_or_default();
        }
        if let Some(details) = usage.object("output_tokens_details")? {
            let mut details = Fields::of(text, details, place)?;
            read.reasoning_tokens = details.unsigned("reasoning_tokens")?.unwrap_or_default();
        }
        Ok(read)
    }

    /// The object `usage` of the Responses API.
    pub fn to_responses(&self) -> String {
        format!(
            "{{\"input_tokens\":{},\"input_tokens_details\":{{\"cached_tokens\":{},\
             \"cache_write_tokens\":{}}},\"output_tokens\":{},\
             \"output_tokens_details\":{{\"reasoning_tokens\":{}}},\"total_tokens\":{}}}",
            self.input_tokens,
            self.cache_read_tokens,
            self.cache_write_tokens,
            self.output_tokens,
            self.reasoning_tokens,
            self.total_tokens(),
        )
    }
}
