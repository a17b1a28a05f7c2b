//! Events of Anthropic messages.
//!
//! Wire form: "Streaming messages" of Anthropic's API reference; `RawMessageStreamEvent` of its SDKs.
//! `type` in the data says what an event is; a different name of the event is refused, since clients
//! differ in which of the two they believe.

use crate::{
    json::{Kind, Scanner, Span},
    model::{
        StopReason,
        stream::{
            StreamError,
            part::{
                Arguments, CallPart, Channel, DEPTH_MAX, Part, Reading, TextKind, index, object, present,
                text,
            },
        },
    },
};

use super::usage;

/// What stands in an event, by its members.
#[derive(Default)]
struct Members<'a> {
    kind: std::borrow::Cow<'a, str>,
    index: Option<u32>,
    message: Option<Span>,
    block: Option<Span>,
    delta: Option<Span>,
    usage: Option<Span>,
    error: Option<Span>,
    others: bool,
}

pub(super) fn read(event: &str, data: &str, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    let members = members(data)?;
    if event != "message" && event != members.kind {
        return Err(StreamError::Unexpected("an event whose name is not its type"));
    }
    let at = || members.index.ok_or(StreamError::Unexpected("`index` of a content block"));
    let scanner = |value: Option<Span>| {
        value
            .map(|value| Scanner::at(data, value))
            .ok_or(StreamError::Unexpected("an event without its value"))
    };
    match &*members.kind {
        "message_start" => start(&mut scanner(members.message)?, reading)?,
        "content_block_start" => block(&mut scanner(members.block)?, at()?, reading)?,
        "content_block_delta" => delta(&mut scanner(members.delta)?, at()?, reading)?,
        "content_block_stop" => {
            reading.push(Part::More);
            reading.push(Part::End { at: Some(at()?), sub: None });
        }
        "message_delta" => stop(&mut scanner(members.delta)?, reading)?,
        "message_stop" => {
            reading.push(Part::End { at: None, sub: None });
            reading.push(Part::Done);
        }
        "ping" => reading.push(Part::Ping),
        "error" => error(&mut scanner(members.error)?, reading)?,
        _ => {
            reading.wholes(&mut Scanner::of(data, DEPTH_MAX))?;
            reading.push(Part::More);
            reading.push(Part::Foreign("an event that Castra does not know"));
        }
    }
    if let Some(used) = members.usage {
        reading.push(Part::Usage(usage::messages(used.of(data))));
    }
    Ok(())
}

fn members(data: &str) -> Result<Members<'_>, StreamError> {
    let mut scanner = Scanner::of(data, DEPTH_MAX);
    let mut members = Members::default();
    scanner.members(|s, name| {
        match &*name.decode() {
            "type" => members.kind = s.string()?.decode(),
            "index" => members.index = Some(index(s, "`index` of a content block")?.0),
            "message" => members.message = present(s)?,
            "content_block" => members.block = present(s)?,
            "delta" => members.delta = present(s)?,
            "usage" => members.usage = present(s)?,
            "error" => members.error = present(s)?,
            _ => members.others |= present(s)?.is_some(),
        }
        Ok::<_, StreamError>(())
    })?;
    scanner.end()?;
    Ok(members)
}

fn start(s: &mut Scanner<'_>, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    let mut id = None;
    let whole = s.text();
    object(s, |s, name| match &*name.decode() {
        "id" => present(s).map(|value| id = value).map_err(Into::into),
        "role" => match text(s, "`role` of the message")? {
            Some(role) if role.decode() != "assistant" => Err(StreamError::Role),
            _ => Ok(()),
        },
        // Empty in every known answer: content comes in blocks.
        "content" => {
            let before = reading.parts.len();
            reading.wholes(s)?;
            match reading.parts.len() {
                now if now > before => Err(StreamError::Unexpected("content in `message_start`")),
                _ => Ok(()),
            }
        }
        "usage" => {
            if let Some(value) = present(s)? {
                reading.push(Part::Usage(usage::messages(value.of(whole))));
            }
            Ok(())
        }
        _ => s.skip().map(drop).map_err(StreamError::from),
    })?;
    reading.push(Part::More);
    reading.push(Part::Opening { id, created: None, model: None });
    Ok(())
}

/// Types of blocks that the provider runs itself; what they say is text.
const SERVER_BLOCKS: &[&str] = &["server_tool_use", "mcp_tool_use"];

fn block(s: &mut Scanner<'_>, at: u32, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    let block = Span { start: s.pos(), end: s.skip()?.span.end };
    let kind = member(s.text(), block, "type")?;
    reading.push(Part::More);
    match &*kind {
        "text" => known(s.text(), block, at, ("text", TextKind::Content), reading),
        "thinking" => known(s.text(), block, at, ("thinking", TextKind::Reasoning), reading),
        "redacted_thinking" => Ok(()),
        "tool_use" => call(s.text(), block, at, reading),
        _ => {
            if !SERVER_BLOCKS.contains(&&*kind) && kind.ends_with("tool_use") {
                return call(s.text(), block, at, reading);
            }
            reading.push(Part::Foreign("a content block that is neither text nor thinking nor a tool call"));
            reading.wholes(&mut Scanner::at(s.text(), block))
        }
    }
}

/// A string member of an object that was scanned before; empty if it has none.
fn member(data: &str, object: Span, wanted: &str) -> Result<String, StreamError> {
    let mut found = String::new();
    Scanner::at(data, object).members(|s, name| {
        match name.decode() == wanted && s.kind()? == Kind::String {
            true => found = s.string()?.decode().into_owned(),
            false => drop(s.skip()?),
        }
        Ok::<_, StreamError>(())
    })?;
    Ok(found)
}

/// A block or a delta whose member `text` is more of a channel; its other strings are texts of their own.
fn known(
    data: &str,
    value: Span,
    at: u32,
    text: (&str, TextKind),
    reading: &mut Reading<'_>,
) -> Result<(), StreamError> {
    Scanner::at(data, value).members(|s, name| match &*name.decode() {
        name if name == text.0 => {
            let channel = Channel { at, sub: 0, kind: text.1 };
            reading.push(Part::Text { channel, text: s.string()?.span(), item: None });
            Ok(())
        }
        "type" | "signature" => s.skip().map(drop).map_err(StreamError::from),
        _ => reading.wholes(s),
    })
}

fn call(data: &str, block: Span, at: u32, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    let mut call = CallPart::new(at, u64::from(at));
    call.entry = Some(block);
    Scanner::at(data, block).members(|s, name| {
        match &*name.decode() {
            "id" => call.id = Some(s.string()?.span()),
            "name" => call.name = Some(s.string()?.span()),
            "input" => {
                let input = s.skip()?.span;
                // Empty in every answer of Anthropic: the input comes in pieces.
                if !input.of(data).bytes().all(|b| b.is_ascii_whitespace() || matches!(b, b'{' | b'}')) {
                    call.arguments = Some(Arguments::Value(input));
                }
            }
            _ => drop(s.skip()?),
        }
        Ok::<_, StreamError>(())
    })?;
    reading.push(Part::Call(call));
    Ok(())
}

fn delta(s: &mut Scanner<'_>, at: u32, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    let delta = Span { start: s.pos(), end: s.skip()?.span.end };
    let data = s.text();
    let kind = member(data, delta, "type")?;
    match &*kind {
        "text_delta" => known(data, delta, at, ("text", TextKind::Content), reading),
        "thinking_delta" => known(data, delta, at, ("thinking", TextKind::Reasoning), reading),
        "input_json_delta" => Scanner::at(data, delta).members(|s, name| match &*name.decode() {
            "partial_json" => {
                reading.push(Part::Json { at, text: s.string()?.span() });
                Ok(())
            }
            _ => s.skip().map(drop).map_err(StreamError::from),
        }),
        "signature_delta" => {
            reading.push(Part::More);
            Ok(())
        }
        _ => {
            reading.push(Part::More);
            reading.push(Part::Foreign("a delta that is neither text nor thinking nor a tool call"));
            reading.others(&mut Scanner::at(data, delta), &kind, at, 0)
        }
    }
}

fn stop(s: &mut Scanner<'_>, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    let mut reason = None;
    object(s, |s, name| match &*name.decode() {
        "stop_reason" => text(s, "`stop_reason`").map(|word| reason = word),
        _ => reading.wholes(s),
    })?;
    reading.push(Part::More);
    if let Some(word) = reason {
        let reason = StopReason::from_messages(&word.decode());
        reading.push(Part::Stop { at: 0, reason, word: Some(word.span()) });
        reading.push(Part::End { at: None, sub: None });
    }
    Ok(())
}

fn error(s: &mut Scanner<'_>, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    let mut message = None;
    object(s, |s, name| match (&*name.decode(), s.kind()?) {
        ("message", Kind::String) => {
            message = Some(s.string()?.span());
            Ok(())
        }
        _ => reading.wholes(s),
    })?;
    reading.push(Part::Error { message });
    Ok(())
}
