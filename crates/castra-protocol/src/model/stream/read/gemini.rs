//! Chunks of Gemini's `streamGenerateContent?alt=sse`.
//!
//! Wire form: `GenerateContentResponse` of the Gemini API reference. Each chunk holds the next parts of
//! each candidate; calls come whole. There is no end marker: the body ends after a `finishReason`.

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

pub(super) fn read(data: &str, number: u64, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    let mut scanner = Scanner::of(data, DEPTH_MAX);
    let (mut id, mut position, mut calls) = (None, 0_u32, 0_u64);
    scanner.members(|s, name| match &*name.decode() {
        "responseId" => present(s).map(|value| id = value).map_err(Into::into),
        "candidates" => array(s, |s| {
            position += 1;
            let mut next_key = || {
                calls += 1;
                (number << 16 | calls) & 0xffff_ffff
            };
            candidate(s, position - 1, &mut next_key, reading)
        }),
        "usageMetadata" => {
            if let Some(value) = present(s)? {
                reading.push(Part::Usage(usage::gemini(value.of(data))));
            }
            Ok(())
        }
        "promptFeedback" => object(s, |s, name| match (&*name.decode(), s.kind()?) {
            ("blockReason", Kind::String) => {
                s.skip()?;
                reading.push(Part::Stop { at: 0, reason: Some(StopReason::Refusal), word: None });
                reading.push(Part::End { at: None, sub: None });
                Ok(())
            }
            _ => s.skip().map(drop).map_err(StreamError::from),
        }),
        "error" => error(s, reading),
        _ => s.skip().map(drop).map_err(StreamError::from),
    })?;
    scanner.end()?;
    reading.push(Part::Opening { id, created: None, model: None });
    Ok(())
}

fn candidate(
    s: &mut Scanner<'_>,
    position: u32,
    next_key: &mut impl FnMut() -> u64,
    reading: &mut Reading<'_>,
) -> Result<(), StreamError> {
    let first = reading.parts.len();
    let (mut at, mut finish) = (position, None);
    object(s, |s, name| match &*name.decode() {
        "index" => index(s, "candidates[].index").map(|(number, _)| at = number),
        "content" => object(s, |s, name| match &*name.decode() {
            "parts" => array(s, |s| part(s, next_key(), reading)),
            "role" => match text(s, "candidates[].content.role")? {
                Some(role) if role.decode() != "model" => Err(StreamError::Role),
                _ => Ok(()),
            },
            _ => s.skip().map(drop).map_err(StreamError::from),
        }),
        "finishReason" => text(s, "candidates[].finishReason").map(|word| finish = word),
        "finishMessage" => reading.wholes(s),
        _ => s.skip().map(drop).map_err(StreamError::from),
    })?;
    let known = finish.map(|word| word.decode()).filter(|word| word != "FINISH_REASON_UNSPECIFIED");
    if let Some(word) = known {
        reading.push(Part::Stop { at, reason: Some(reason(&word)), word: None });
        reading.push(Part::End { at: Some(at), sub: None });
    }
    for part in reading.parts.iter_mut().skip(first) {
        part.set_choice(at);
    }
    Ok(())
}

/// `FinishReason` of the API reference: all that is neither an end nor a limit says that something was
/// not to be said.
fn reason(word: &str) -> StopReason {
    match word {
        "STOP" => StopReason::End,
        "MAX_TOKENS" => StopReason::MaxTokens,
        _ => StopReason::Refusal,
    }
}

fn part(s: &mut Scanner<'_>, key: u64, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    let (mut said, mut thought) = (None, false);
    let data = s.text();
    object(s, |s, name| match &*name.decode() {
        "text" => text(s, "candidates[].content.parts[].text").map(|text| said = text.map(|t| t.span())),
        "thought" => {
            present(s).map(|value| thought = value.is_some_and(|v| v.of(data) == "true")).map_err(Into::into)
        }
        "functionCall" => call(s, key, reading),
        // Opaque to everyone but the provider, or a hint on how the part was made.
        "thoughtSignature" | "partMetadata" | "videoMetadata" | "mediaResolution" => {
            s.skip().map(drop).map_err(StreamError::from)
        }
        _ => {
            if present(s)?.is_some() {
                reading.push(Part::Foreign(
                    "a part of Gemini's answer that is neither text nor a function call",
                ));
            }
            Ok(())
        }
    })?;
    if let Some(text) = said {
        let kind = if thought { TextKind::Reasoning } else { TextKind::Content };
        reading.push(Part::Text { channel: Channel { at: 0, sub: 0, kind }, text, item: None });
    }
    Ok(())
}

fn call(s: &mut Scanner<'_>, key: u64, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    let mut call = CallPart::new(0, key);
    call.ends = true;
    object(s, |s, name| {
        match &*name.decode() {
            "id" => call.id = text(s, "the id of a function call")?.map(|id| id.span()),
            "name" => call.name = text(s, "the name of a function call")?.map(|name| name.span()),
            "args" => call.arguments = present(s)?.map(Arguments::Value),
            // Fragments of arguments come only when they are asked for (Vertex), which Castra does not.
            "partialArgs" | "willContinue" => {
                if present(s)?.is_some_and(|v| v.of(s.text()) != "false") {
                    return Err(StreamError::Unexpected("arguments of a function call in pieces"));
                }
            }
            _ => drop(s.skip()?),
        }
        Ok::<_, StreamError>(())
    })?;
    reading.push(Part::Call(call));
    Ok(())
}

fn error(s: &mut Scanner<'_>, reading: &mut Reading<'_>) -> Result<(), StreamError> {
    let mut message: Option<Span> = None;
    object(s, |s, name| match (&*name.decode(), s.kind()?) {
        ("message", Kind::String) => {
            message = Some(s.string()?.span());
            Ok(())
        }
        _ => s.skip().map(drop).map_err(StreamError::from),
    })?;
    reading.push(Part::Error { message });
    Ok(())
}
