//! What an event says, in words that all forms share. Values stay where they stand: a part names spans
//! of the event's data, so that an event that needs no change costs no copy.

use crate::{
    json::{JsonError, Kind, Scanner, Span, Str},
    model::{StopReason, Usage},
};

use super::StreamError;

/// Levels of JSON in an event. Schemas of tools are echoed in some of them.
pub(super) const DEPTH_MAX: usize = 64;

/// One text of an answer: what a receiver joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Channel {
    /// Choice, content block or output item.
    pub(super) at: u32,
    /// Part of the item, where items have parts.
    pub(super) sub: u32,
    pub(super) kind: TextKind,
}

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextKind {
    /// What the model says.
    Content,
    /// Why it will not.
    Refusal,
    /// What it thought.
    Reasoning,
    /// A summary of that (responses), or the same under another name (chat).
    Summary,
    /// A text that only its own form knows, by the number of its name.
    Other(u16),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// What names the answer.
    Opening { id: Option<Span>, created: Option<Span>, model: Option<Span> },
    /// More of a text. `item` is the id of the output item (responses).
    Text { channel: Channel, text: Span, item: Option<Span> },
    /// A text that is whole: one that repeats a channel, or one that no channel has.
    Whole { channel: Option<Channel>, text: Span },
    /// A value that shows text once more, and what stands there when the text may not be seen.
    Blank { value: Span, with: &'static str },
    /// There is more in the event than texts and calls.
    More,
    /// Something of a tool call.
    Call(CallPart),
    /// JSON of content block `at`, which is a call's if the block is a call (messages).
    Json { at: u32, text: Span },
    /// The array (or the object) in which calls of a choice stand (chat).
    Calls { value: Span },
    /// What stands at `at` (None: everything) is complete; with `sub` only that part.
    End { at: Option<u32>, sub: Option<u32> },
    /// Why the model stopped; None for a reason that we do not know. `word` is absent where the form
    /// has no word for it.
    Stop { at: u32, reason: Option<StopReason>, word: Option<Span> },
    /// Tokens used so far; None if what stands there are no counts.
    Usage(Option<Usage>),
    /// The event has usage only (chat).
    UsageOnly,
    /// The output item that the event is about (responses).
    At(u32),
    /// The number of the event (responses).
    Sequence { value: Span, number: u64 },
    /// The provider gives up.
    Error { message: Option<Span> },
    /// Nothing but a sign of life.
    Ping,
    /// Something that another form cannot carry.
    Foreign(&'static str),
    /// The stream is complete.
    Done,
}

/// Something of a tool call.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallPart {
    /// Choice, content block or output item: what must end for the call to be complete.
    pub(super) at: u32,
    /// Tells calls of one stream apart.
    pub(super) key: u64,
    pub(super) id: Option<Span>,
    pub(super) name: Option<Span>,
    pub(super) arguments: Option<Arguments>,
    /// Namespace of the tool, or the remote server that has it (responses).
    pub(super) space: Option<Span>,
    /// The value that is the call (chat: the entry of `tool_calls`; responses: the item).
    pub(super) entry: Option<Span>,
    /// Its index (chat).
    pub(super) index: Option<Span>,
    /// The call is complete with this.
    pub(super) ends: bool,
    /// It is of a tool that only its own form has.
    pub(super) native: bool,
}

/// Arguments of a call as they stand in an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arguments {
    /// The next piece, a string.
    Piece(Span),
    /// All of them, a string of JSON.
    Whole(Span),
    /// All of them, JSON as it is.
    Value(Span),
    /// Free text of a custom tool: the next piece, a string.
    FreePiece(Span),
    /// Free text of a custom tool, all of it.
    FreeWhole(Span),
}

impl CallPart {
    pub(super) fn new(at: u32, key: u64) -> Self {
        let (entry, index, ends, native) = (None, None, false, false);
        let (id, name, arguments, space) = (None, None, None, None);
        Self { at, key, id, name, arguments, space, entry, index, ends, native }
    }
}

impl Part {
    /// Moves what was read before its choice's index was known.
    pub(super) fn set_choice(&mut self, choice: u32) {
        match self {
            Self::Text { channel, .. } | Self::Whole { channel: Some(channel), .. } => channel.at = choice,
            Self::Call(call) => {
                call.at = choice;
                call.key |= u64::from(choice) << 32;
            }
            Self::Stop { at, .. } => *at = choice,
            Self::End { at, .. } => *at = Some(choice),
            _ => {}
        }
    }
}

/// Names of texts that only one form knows. Bounded: a stream has few.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<String>);

impl Names {
    const MAX: usize = 64;

    pub(super) fn number(&mut self, name: &str) -> Result<u16, StreamError> {
        let known = self.0.iter().position(|n| n == name);
        let number = match known {
            Some(number) => number,
            None if self.0.len() < Self::MAX => {
                self.0.push(name.into());
                self.0.len() - 1
            }
            None => return Err(StreamError::TooMany("kinds of text")),
        };
        u16::try_from(number).map_err(|_| StreamError::TooMany("kinds of text"))
    }
}

/// What a reader is given beside the event.
pub(super) struct Reading<'n> {
    pub(super) names: &'n mut Names,
    pub(super) parts: &'n mut Vec<Part>,
}

impl Reading<'_> {
    pub(super) fn push(&mut self, part: Part) {
        self.parts.push(part);
    }

    /// Every string of a value becomes a text of its own channel, by its path.
    pub(super) fn others(
        &mut self,
        scanner: &mut Scanner<'_>,
        path: &str,
        at: u32,
        sub: u32,
    ) -> Result<(), StreamError> {
        strings(scanner, path, &mut |path, text| {
            let kind = TextKind::Other(self.names.number(path)?);
            self.parts.push(Part::Text { channel: Channel { at, sub, kind }, text, item: None });
            Ok(())
        })
    }

    /// Every string of a value is a whole text.
    pub(super) fn wholes(&mut self, scanner: &mut Scanner<'_>) -> Result<(), StreamError> {
        strings(scanner, "", &mut |_, text| {
            self.parts.push(Part::Whole { channel: None, text });
            Ok(())
        })
    }
}

/// Strings that are no text: names, marks, and what is opaque and would not survive a change.
const NO_TEXT: &[&str] = &[
    "type",
    "id",
    "item_id",
    "call_id",
    "tool_use_id",
    "file_id",
    "container_id",
    "role",
    "status",
    "object",
    "model",
    "format",
    "encrypted_content",
    "encrypted_index",
    "signature",
    "thought_signature",
    "data",
    "media_type",
    "obfuscation",
    "partial_image_b64",
    "b64_json",
    "image_url",
    "phase",
];

fn strings(
    scanner: &mut Scanner<'_>,
    path: &str,
    each: &mut impl FnMut(&str, Span) -> Result<(), StreamError>,
) -> Result<(), StreamError> {
    match scanner.kind()? {
        Kind::String => {
            let text = scanner.string()?.span();
            if text.end - text.start > 2 { each(path, text) } else { Ok(()) }
        }
        Kind::Object => scanner.members(|s, name| {
            let name = name.decode();
            if NO_TEXT.contains(&&*name) {
                return s.skip().map(drop).map_err(Into::into);
            }
            strings(s, &format!("{path}.{name}"), each)
        }),
        Kind::Array => scanner.elements(|s| strings(s, &format!("{path}[]"), each)),
        _ => scanner.skip().map(drop).map_err(Into::into),
    }
}

/// A string or null.
pub(super) fn text<'a>(
    scanner: &mut Scanner<'a>,
    what: &'static str,
) -> Result<Option<Str<'a>>, StreamError> {
    match scanner.kind()? {
        Kind::String => Ok(Some(scanner.string()?)),
        Kind::Null => {
            scanner.skip()?;
            Ok(None)
        }
        _ => Err(StreamError::Unexpected(what)),
    }
}

/// A number that counts something, and where it stands.
pub(super) fn count(scanner: &mut Scanner<'_>, what: &'static str) -> Result<(u64, Span), StreamError> {
    let value = scanner.skip()?;
    let number = value.span.of(scanner.text()).parse();
    number.map(|n| (n, value.span)).map_err(|_| StreamError::Unexpected(what))
}

/// An index. More than a few thousand things in one answer are no answer.
pub(super) fn index(scanner: &mut Scanner<'_>, what: &'static str) -> Result<(u32, Span), StreamError> {
    let (number, span) = count(scanner, what)?;
    match u32::try_from(number) {
        Ok(number) if number < 1 << 16 => Ok((number, span)),
        _ => Err(StreamError::Unexpected(what)),
    }
}

/// A value that is not null.
pub(super) fn present(scanner: &mut Scanner<'_>) -> Result<Option<Span>, JsonError> {
    let value = scanner.skip()?;
    Ok((value.kind != Kind::Null).then_some(value.span))
}

/// A value that is an object; null and anything else are passed over.
pub(super) fn object<'a>(
    scanner: &mut Scanner<'a>,
    each: impl FnMut(&mut Scanner<'a>, Str<'a>) -> Result<(), StreamError>,
) -> Result<(), StreamError> {
    match scanner.kind()? {
        Kind::Object => scanner.members(each),
        _ => scanner.skip().map(drop).map_err(Into::into),
    }
}

/// A value that is an array; null and anything else are passed over.
pub(super) fn array<'a>(
    scanner: &mut Scanner<'a>,
    each: impl FnMut(&mut Scanner<'a>) -> Result<(), StreamError>,
) -> Result<(), StreamError> {
    match scanner.kind()? {
        Kind::Array => scanner.elements(each),
        _ => scanner.skip().map(drop).map_err(Into::into),
    }
}
