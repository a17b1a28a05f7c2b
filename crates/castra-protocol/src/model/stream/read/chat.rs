//! Chunks of OpenAI chat completions, and of all that call themselves compatible.
//!
//! Wire form: `ChatCompletionChunk` of OpenAI's API reference ("Streaming" under "Chat"). Compatible
//! servers add members to `delta` (`reasoning_content`, `reasoning`, `reasoning_details`); each of their
//! strings is a text of its own.

use crate::{
    json::{Kind, Scanner, Span},
    model::{
        StopReason,
        stream::{
            StreamError,
            part::{
                Arguments, CallPart, Channel, DEPTH_MAX, Part, Reading, TextKind, array, index, object,
                present, text,
            },
        },
    },
};

use super::usage;

/// The key of the one call that the older `function_call` can make in a choice.
const FUNCTION_CALL: u64 = 0xffff_ffff;

pub(super) fn read(data: &str, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    if data.trim_ascii() == "[DONE]" {
        reading.push(Part::End { at: None, sub: None });
        reading.push(Part::Done);
        return Ok(());
    }
    let mut scanner = Scanner::of(data, DEPTH_MAX);
    let (mut id, mut created, mut model, mut used, mut choices) = (None, None, None, false, 0_u32);
    scanner.members(|s, name| match &*name.decode() {
        "id" => present(s).map(|value| id = value).map_err(Into::into),
        "created" => present(s).map(|value| created = value).map_err(Into::into),
        "model" => present(s).map(|value| model = value).map_err(Into::into),
        "choices" => array(s, |s| {
            choices += 1;
            choice(s, choices - 1, reading)
        }),
        "usage" => {
            let Some(value) = present(s)? else { return Ok(()) };
            used = true;
            reading.push(Part::More);
            reading.push(Part::Usage(usage::chat(value.of(data))));
            Ok(())
        }
        "error" => error(s, reading),
        _ => s.skip().map(drop).map_err(StreamError::from),
    })?;
    scanner.end()?;
    reading.push(Part::Opening { id, created, model });
    if used && choices == 0 {
        reading.push(Part::UsageOnly);
    }
    Ok(())
}

fn choice(s: &mut Scanner<'_>, position: u32, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    let first = reading.parts.len();
    let (mut at, mut finish) = (position, None);
    object(s, |s, name| match &*name.decode() {
        "index" => index(s, "choices[].index").map(|(number, _)| at = number),
        "delta" => object(s, |s, name| delta(s, &name.decode(), reading)),
        "finish_reason" => text(s, "choices[].finish_reason").map(|word| finish = word),
        "logprobs" => {
            if let Some(value) = present(s)? {
                reading.push(Part::Blank { value, with: "null" });
            }
            Ok(())
        }
        other => reading.others(s, other, 0, 0),
    })?;
    if let Some(word) = finish {
        reading.push(Part::More);
        reading.push(Part::Stop {
            at,
            reason: StopReason::from_chat(&word.decode()),
            word: Some(word.span()),
        });
        reading.push(Part::End { at: Some(at), sub: None });
    }
    for part in reading.parts.iter_mut().skip(first) {
        part.set_choice(at);
    }
    Ok(())
}

fn delta(s: &mut Scanner<'_>, name: &str, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    let kind = match name {
        "content" => TextKind::Content,
        "refusal" => TextKind::Refusal,
        "reasoning_content" => TextKind::Reasoning,
        "reasoning" => TextKind::Summary,
        "role" => {
            if let Some(role) = text(s, "choices[].delta.role")? {
                reading.push(Part::More);
                if !matches!(&*role.decode(), "assistant" | "") {
                    return Err(StreamError::Role);
                }
            }
            return Ok(());
        }
        "tool_calls" => return calls(s, reading),
        "function_call" => return function_call(s, reading),
        other => {
            let before = reading.parts.len();
            reading.others(s, other, 0, 0)?;
            if reading.parts.len() > before {
                reading.push(Part::Foreign("a member of `delta` that chat completions do not define"));
            }
            return Ok(());
        }
    };
    match s.kind()? {
        Kind::String => {
            let channel = Channel { at: 0, sub: 0, kind };
            reading.push(Part::Text { channel, text: s.string()?.span(), item: None });
            Ok(())
        }
        Kind::Null => s.skip().map(drop).map_err(Into::into),
        _ => {
            reading.push(Part::Foreign("`content` in parts"));
            reading.others(s, name, 0, 0)
        }
    }
}

fn calls(s: &mut Scanner<'_>, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    if s.kind()? != Kind::Array {
        return s.skip().map(drop).map_err(Into::into);
    }
    let first = reading.parts.len();
    let start = s.pos();
    let mut position = 0;
    s.elements(|s| {
        position += 1;
        let call = call(s, position - 1)?;
        reading.push(Part::Call(call));
        Ok::<_, StreamError>(())
    })?;
    if position > 0 {
        reading.parts.insert(first, Part::Calls { value: Span { start, end: s.pos() } });
    }
    Ok(())
}

fn call(s: &mut Scanner<'_>, position: u64) -> Result<CallPart, StreamError> {
    if s.kind()? != Kind::Object {
        return Err(StreamError::Unexpected("choices[].delta.tool_calls[]"));
    }
    let start = s.pos();
    let mut call = CallPart::new(0, position);
    s.members(|s, name| match &*name.decode() {
        "index" => index(s, "choices[].delta.tool_calls[].index").map(|(number, span)| {
            call.key = u64::from(number);
            call.index = Some(span);
        }),
        "id" => text(s, "choices[].delta.tool_calls[].id").map(|id| call.id = id.map(|id| id.span())),
        "function" => object(s, |s, name| function(s, &name.decode(), &mut call)),
        "custom" => object(s, |s, name| function(s, &name.decode(), &mut call)),
        _ => s.skip().map(drop).map_err(StreamError::from),
    })?;
    call.entry = Some(Span { start, end: s.pos() });
    Ok(call)
}

fn function(s: &mut Scanner<'_>, name: &str, call: &mut CallPart) -> Result<(), StreamError> {
    match name {
        "name" => text(s, "the name of a tool call").map(|name| call.name = name.map(|n| n.span())),
        "input" => text(s, "the input of a tool call")
            .map(|input| call.arguments = input.map(|i| Arguments::FreePiece(i.span()))),
        "arguments" => {
            call.arguments = match s.kind()? {
                // Some compatible servers write an object where a string belongs.
                Kind::Object => Some(Arguments::Value(s.skip()?.span)),
                _ => text(s, "the arguments of a tool call")?.map(|a| Arguments::Piece(a.span())),
            };
            Ok(())
        }
        _ => s.skip().map(drop).map_err(Into::into),
    }
}

fn function_call(s: &mut Scanner<'_>, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    if s.kind()? != Kind::Object {
        return s.skip().map(drop).map_err(Into::into);
    }
    let start = s.pos();
    let mut call = CallPart::new(0, FUNCTION_CALL);
    s.members(|s, name| function(s, &name.decode(), &mut call))?;
    let value = Span { start, end: s.pos() };
    reading.push(Part::Calls { value });
    call.entry = Some(value);
    reading.push(Part::Call(call));
    Ok(())
}

fn error(s: &mut Scanner<'_>, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    let mut message = None;
    match s.kind()? {
        Kind::Null => return s.skip().map(drop).map_err(Into::into),
        Kind::String => message = Some(s.string()?.span()),
        _ => object(s, |s, name| match (&*name.decode(), s.kind()?) {
            ("message", Kind::String) => {
                message = Some(s.string()?.span());
                Ok(())
            }
            _ => reading.wholes(s),
        })?,
    }
    reading.push(Part::Error { message });
    Ok(())
}
