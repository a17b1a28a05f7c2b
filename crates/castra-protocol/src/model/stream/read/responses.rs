//! Events of OpenAI responses.
//!
//! Wire form: "Streaming events" of OpenAI's API reference; `ResponseStreamEvent` of its SDKs. Text comes
//! in `.delta` events and is repeated by the `.done` events of its part and item and by the response at
//! the end; calls likewise. What repeats is checked like what came first.

use std::borrow::Cow;

use crate::{
    json::{Kind, Scanner, Span},
    model::{
        StopReason,
        stream::{
            StreamError,
            part::{
                Arguments, CallPart, Channel, DEPTH_MAX, Part, Reading, TextKind, array, count, index,
                object, present,
            },
        },
    },
};

use super::usage;

/// What stands in an event, by its members.
#[derive(Default)]
struct Members<'a> {
    kind: Cow<'a, str>,
    at: u32,
    placed: bool,
    sub: Option<u32>,
    item_id: Option<Span>,
    delta: Option<Span>,
    text: Option<Span>,
    arguments: Option<Span>,
    part: Option<Span>,
    item: Option<Span>,
    response: Option<Span>,
    message: Option<Span>,
    logprobs: Option<Span>,
}

pub(super) fn read(event: &str, data: &str, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    if data.trim_ascii() == "[DONE]" {
        // Some compatible servers end every stream so.
        reading.push(Part::Ping);
        return Ok(());
    }
    let m = members(data, reading)?;
    if event != "message" && event != m.kind {
        return Err(StreamError::Unexpected("an event whose name is not its type"));
    }
    let channel = |kind| Channel { at: m.at, sub: m.sub.unwrap_or(0), kind };
    let end = Part::End { at: Some(m.at), sub: m.sub };
    match &*m.kind {
        "response.output_text.delta" => more(&m, channel(TextKind::Content), reading)?,
        "response.refusal.delta" => more(&m, channel(TextKind::Refusal), reading)?,
        "response.reasoning_text.delta" => more(&m, channel(TextKind::Reasoning), reading)?,
        "response.reasoning_summary_text.delta" => more(&m, channel(TextKind::Summary), reading)?,
        "response.output_text.done" => done(m.text, channel(TextKind::Content), end, reading),
        "response.refusal.done" => done(m.text, channel(TextKind::Refusal), end, reading),
        "response.reasoning_text.done" => done(m.text, channel(TextKind::Reasoning), end, reading),
        "response.reasoning_summary_text.done" => done(m.text, channel(TextKind::Summary), end, reading),
        "response.content_part.done" | "response.reasoning_summary_part.done" => {
            part(&mut Scanner::at(data, needed(m.part)?), m.at, m.sub.unwrap_or(0), &m.kind, reading)?;
            reading.push(end);
        }
        "response.function_call_arguments.delta" => fragment(&m, Arguments::Piece(needed(m.delta)?), reading),
        "response.custom_tool_call_input.delta" => {
            fragment(&m, Arguments::FreePiece(needed(m.delta)?), reading)
        }
        "response.function_call_arguments.done" => {
            fragment(&m, Arguments::Whole(needed(m.arguments)?), reading)
        }
        "response.custom_tool_call_input.done" => {
            fragment(&m, Arguments::FreeWhole(needed(m.arguments)?), reading);
        }
        "response.output_item.added" => {
            reading.push(Part::More);
            item(&mut Scanner::at(data, needed(m.item)?), m.at, Stage::Added, reading)?;
        }
        "response.output_item.done" => {
            item(&mut Scanner::at(data, needed(m.item)?), m.at, Stage::Done, reading)?;
            reading.push(Part::End { at: Some(m.at), sub: None });
        }
        "response.created" | "response.in_progress" | "response.queued" => {
            response(&mut Scanner::at(data, needed(m.response)?), false, reading)?;
        }
        "response.completed" | "response.incomplete" => {
            response(&mut Scanner::at(data, needed(m.response)?), true, reading)?;
            reading.push(Part::Done);
        }
        "response.failed" => failed(&mut Scanner::at(data, needed(m.response)?), reading)?,
        "error" => reading.push(Part::Error { message: m.message }),
        _ => unknown(&m, data, reading)?,
    }
    if let Some(value) = m.logprobs {
        reading.push(Part::Blank { value, with: "[]" });
    }
    Ok(())
}

fn needed(value: Option<Span>) -> Result<Span, StreamError> {
    value.ok_or(StreamError::Unexpected("an event without its value"))
}

fn members<'a>(data: &'a str, reading: &mut Reading<'_>) -> Result<Members<'a>, StreamError> {
    let mut scanner = Scanner::of(data, DEPTH_MAX);
    let mut m = Members::default();
    scanner.members(|s, name| {
        match &*name.decode() {
            "type" => m.kind = s.string()?.decode(),
            "sequence_number" => {
                let (number, value) = count(s, "`sequence_number`")?;
                reading.push(Part::Sequence { value, number });
            }
            "output_index" => {
                m.at = index(s, "`output_index`")?.0;
                m.placed = true;
                reading.push(Part::At(m.at));
            }
            "content_index" | "summary_index" => m.sub = Some(index(s, "the index of a part")?.0),
            "item_id" => m.item_id = present(s)?,
            "delta" => m.delta = present(s)?,
            "text" | "refusal" => m.text = string(s)?,
            "arguments" | "input" => m.arguments = string(s)?,
            "part" => m.part = present(s)?,
            "item" => m.item = present(s)?,
            "response" => m.response = present(s)?,
            "message" => m.message = string(s)?,
            "logprobs" => m.logprobs = present(s)?,
            _ => drop(s.skip()?),
        }
        Ok::<_, StreamError>(())
    })?;
    scanner.end()?;
    Ok(m)
}

/// A value that is a string; anything else is passed over.
fn string(s: &mut Scanner<'_>) -> Result<Option<Span>, StreamError> {
    let value = s.skip()?;
    Ok((value.kind == Kind::String).then_some(value.span))
}

fn more(m: &Members<'_>, channel: Channel, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    reading.push(Part::Text { channel, text: needed(m.delta)?, item: m.item_id });
    Ok(())
}

fn done(text: Option<Span>, channel: Channel, end: Part, reading: &mut Reading<'_>) {
    if let Some(text) = text {
        reading.push(Part::Whole { channel: Some(channel), text });
    }
    reading.push(end);
}

fn fragment(m: &Members<'_>, arguments: Arguments, reading: &mut Reading<'_>) {
    let mut call = CallPart::new(m.at, u64::from(m.at));
    call.arguments = Some(arguments);
    reading.push(Part::Call(call));
}

/// An event that has no place in what we know: its text is text all the same.
fn unknown(m: &Members<'_>, data: &str, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    let before = reading.parts.len();
    match m.delta {
        Some(delta) if m.kind.ends_with(".delta") => {
            reading.others(&mut Scanner::at(data, delta), &m.kind, m.at, m.sub.unwrap_or(0))?;
        }
        _ => reading.wholes(&mut Scanner::of(data, DEPTH_MAX))?,
    }
    let carries = reading.parts.len() > before;
    reading.push(Part::More);
    if carries {
        reading.push(Part::Foreign("an event that only OpenAI responses have"));
    }
    Ok(())
}

/// Where an item stands in the life of a response.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It begins; what it holds may be incomplete.
    Added,
    /// It is complete.
    Done,
    /// It stands in the response at the end.
    Listed,
}

/// Items that end with `_call` and that the provider runs itself.
const HOSTED: &[&str] = &[
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "mcp_call",
    "tool_search_call",
];

fn item(s: &mut Scanner<'_>, at: u32, stage: Stage, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    let data = s.text();
    if s.kind()? != Kind::Object {
        return Err(StreamError::Unexpected("an output item"));
    }
    let place = s.skip()?.span;
    let mut kind = None;
    Scanner::at(data, place).members(|s, name| {
        match &*name.decode() {
            "type" => kind = Some(s.string()?),
            _ => drop(s.skip()?),
        }
        Ok::<_, StreamError>(())
    })?;
    let kind = kind.ok_or(StreamError::Unexpected("an output item without `type`"))?;
    let word = kind.decode();
    match &*word {
        "message" | "reasoning" => texts(&mut Scanner::at(data, place), at, reading),
        call if asks_the_client(call) && !HOSTED.contains(&call) => {
            reading.push(Part::Call(call_item(data, place, kind.span(), &word, at, stage)?));
            Ok(())
        }
        _ => {
            let before = reading.parts.len();
            reading.wholes(&mut Scanner::at(data, place))?;
            if reading.parts.len() > before {
                reading.push(Part::Foreign("an output item that is neither text nor a tool call"));
            }
            Ok(())
        }
    }
}

/// Whether an item of this type waits for something that its receiver does: all calls that are not
/// hosted, known or not, and the call of a remote server's tool that waits for approval.
fn asks_the_client(kind: &str) -> bool {
    kind.ends_with("_call") || kind == APPROVAL
}

const APPROVAL: &str = "mcp_approval_request";

/// Members of items that hold what a client is asked to do.
const WHAT_TO_DO: &[&str] = &["action", "actions", "operation", "arguments"];

fn call_item(
    data: &str,
    place: Span,
    kind: Span,
    word: &str,
    at: u32,
    stage: Stage,
) -> Result<CallPart, StreamError> {
    let mut call = CallPart::new(at, u64::from(at));
    call.entry = Some(place);
    call.ends = stage == Stage::Listed;
    let plain = matches!(word, "function_call" | "custom_tool_call");
    if !plain {
        // Built-in tools have no name but their type, and do what their members say.
        call.native = true;
        call.name = Some(kind);
        call.arguments = (stage != Stage::Added).then_some(Arguments::Value(place));
    }
    Scanner::at(data, place).members(|s, name| {
        match (&*name.decode(), s.kind()?) {
            ("call_id", Kind::String) => call.id = Some(s.string()?.span()),
            ("id", Kind::String) if call.id.is_none() => call.id = Some(s.string()?.span()),
            ("namespace" | "server_label", Kind::String) => call.space = Some(s.string()?.span()),
            ("name", Kind::String) if plain || word == APPROVAL => call.name = Some(s.string()?.span()),
            ("arguments", Kind::String) if plain || word == APPROVAL => {
                call.arguments = filled(s, Arguments::Whole)?
            }
            ("input", Kind::String) if plain => call.arguments = filled(s, Arguments::FreeWhole)?,
            (what, Kind::Object | Kind::Array) if WHAT_TO_DO.contains(&what) && stage != Stage::Added => {
                call.arguments = Some(Arguments::Value(s.skip()?.span));
            }
            _ => drop(s.skip()?),
        }
        Ok::<_, StreamError>(())
    })?;
    Ok(call)
}

/// A string, if there is something in it: an item that has just been added has empty arguments.
fn filled(s: &mut Scanner<'_>, kind: fn(Span) -> Arguments) -> Result<Option<Arguments>, StreamError> {
    let span = s.string()?.span();
    Ok((span.end - span.start > 2).then(|| kind(span)))
}

/// The parts of a message or of reasoning.
fn texts(s: &mut Scanner<'_>, at: u32, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    object(s, |s, name| match &*name.decode() {
        "role" => match string(s)? {
            Some(role) if role.of(s.text()) != "\"assistant\"" => Err(StreamError::Role),
            _ => Ok(()),
        },
        list @ ("content" | "summary") => {
            let mut sub = 0;
            array(s, |s| {
                sub += 1;
                part(s, at, sub - 1, list, reading)
            })
        }
        "type" | "id" | "status" | "encrypted_content" | "phase" => {
            s.skip().map(drop).map_err(StreamError::from)
        }
        _ => reading.wholes(s),
    })
}

/// One part of a message or of reasoning; its type says which text it repeats.
fn part(
    s: &mut Scanner<'_>,
    at: u32,
    sub: u32,
    list: &str,
    reading: &mut Reading<'_>,
) -> Result<(), StreamError> {
    let (mut text, mut kind) = (None, TextKind::Content);
    object(s, |s, name| match (&*name.decode(), s.kind()?) {
        ("type", Kind::String) => {
            match &*s.string()?.decode() {
                "reasoning_text" => kind = TextKind::Reasoning,
                "summary_text" => kind = TextKind::Summary,
                _ => {}
            }
            Ok(())
        }
        ("text", Kind::String) => {
            text = Some(s.string()?.span());
            Ok(())
        }
        ("refusal", Kind::String) => {
            kind = TextKind::Refusal;
            text = Some(s.string()?.span());
            Ok(())
        }
        ("logprobs", Kind::Array) => {
            reading.push(Part::Blank { value: s.skip()?.span, with: "[]" });
            Ok(())
        }
        _ => {
            let before = reading.parts.len();
            reading.wholes(s)?;
            if reading.parts.len() > before {
                reading.push(Part::Foreign("annotations of a text"));
            }
            Ok(())
        }
    })?;
    if list == "summary" {
        kind = TextKind::Summary;
    }
    if let Some(text) = text {
        reading.push(Part::Whole { channel: Some(Channel { at, sub, kind }), text });
    }
    Ok(())
}

fn response(s: &mut Scanner<'_>, complete: bool, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    let data = s.text();
    let (mut id, mut created, mut reason) = (None, None, StopReason::End);
    object(s, |s, name| match (&*name.decode(), s.kind()?) {
        ("id", Kind::String) => {
            id = Some(s.string()?.span());
            Ok(())
        }
        ("created_at", Kind::Number) => {
            created = Some(s.skip()?.span);
            Ok(())
        }
        ("output", Kind::Array) => {
            let mut at = 0;
            s.elements(|s| {
                at += 1;
                match complete {
                    true => item(s, at - 1, Stage::Listed, reading),
                    false => Err(StreamError::Unexpected("output of a response that has just begun")),
                }
            })
        }
        ("usage", Kind::Object) => {
            let value = s.skip()?.span;
            reading.push(Part::Usage(usage::responses(value.of(data))));
            Ok(())
        }
        ("incomplete_details", Kind::Object) => s.members(|s, name| {
            match (&*name.decode(), s.kind()?) {
                ("reason", Kind::String) => {
                    reason = match &*s.string()?.decode() {
                        "content_filter" => StopReason::Refusal,
                        _ => StopReason::MaxTokens,
                    };
                }
                _ => drop(s.skip()?),
            }
            Ok::<_, StreamError>(())
        }),
        ("error", Kind::Object) => reading.wholes(s),
        _ => s.skip().map(drop).map_err(StreamError::from),
    })?;
    reading.push(Part::Opening { id, created, model: None });
    reading.push(Part::More);
    if complete {
        reading.push(Part::Stop { at: 0, reason: Some(reason), word: None });
        reading.push(Part::End { at: None, sub: None });
    }
    Ok(())
}

fn failed(s: &mut Scanner<'_>, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    let mut message = None;
    object(s, |s, name| match (&*name.decode(), s.kind()?) {
        ("error", Kind::Object) => s.members(|s, name| {
            match (&*name.decode(), s.kind()?) {
                ("message", Kind::String) => message = Some(s.string()?.span()),
                _ => drop(s.skip()?),
            }
            Ok::<_, StreamError>(())
        }),
        ("output", Kind::Array) => {
            let mut at = 0;
            s.elements(|s| {
                at += 1;
                item(s, at - 1, Stage::Listed, reading)
            })
        }
        ("usage", Kind::Object) => {
            let value = s.skip()?.span;
            reading.push(Part::Usage(usage::responses(value.of(s.text()))));
            Ok(())
        }
        _ => s.skip().map(drop).map_err(StreamError::from),
    })?;
    reading.push(Part::Error { message });
    Ok(())
}
