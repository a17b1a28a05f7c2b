//! From chunks to events: server-sent events, or one JSON text per line.
//!
//! Events stay in one buffer until they have left, so that an event can be read twice: once when it
//! arrives, to see whether a tool call begins or goes on, and once when its turn to leave has come.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::StreamError;
use crate::sse::{self, Cutter, Decoder};

/// How the events of a stream are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Sse,
    /// One JSON text per line, as Ollama's own API streams.
    NdJson,
}

impl Framing {
    /// The framing of a content type; None if it is none of a stream.
    pub fn of(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let is = |known: &[&str]| known.iter().any(|k| essence.eq_ignore_ascii_case(k));
        if is(&["text/event-stream"]) {
            Some(Self::Sse)
        } else if is(&["application/x-ndjson", "application/ndjson", "application/jsonl"]) {
            Some(Self::NdJson)
        } else {
            None
        }
    }
}

/// One event as it came.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// All its bytes, to the blank line or line end that ends it.
    pub raw: &'a [u8],
    /// Its type; `message` if it names none.
    pub event: &'a str,
    /// Its data. None for what no receiver sees as an event, such as a comment.
    pub data: Option<&'a str>,
    /// Where the data stands in `raw`; None if it was put together from several lines.
    pub at: Option<usize>,
    /// The id that came with it.
    pub id: Option<&'a str>,
}

/// Takes a stream apart, event by event.
#[derive(Debug)]
pub struct Framer {
    framing: Framing,
    event_bytes_max: usize,
    buffer: Vec<u8>,
    /// Where the first event begins that has not left.
    front: usize,
    /// Where the first event begins that was not cut off.
    next: usize,
    cutter: Cutter,
    /// Bytes after `next` that hold no line end (lines only).
    looked_at: usize,
    decoder: Decoder,
    begun: bool,
}

impl Framer {
    /// For one stream; `event_bytes_max` bounds an event.
    pub fn new(framing: Framing, event_bytes_max: usize) -> Self {
        Self {
            framing,
            event_bytes_max,
            buffer: Vec::new(),
            front: 0,
            next: 0,
            cutter: Cutter::default(),
            looked_at: 0,
            decoder: Decoder::new(event_bytes_max),
            begun: false,
        }
    }

    /// Takes the next chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.drain(..self.front);
        self.next -= self.front;
        self.front = 0;
        self.buffer.extend_from_slice(chunk);
    }

    /// The length of the next event that has arrived whole. It stays in the buffer until
    /// [`Framer::leave`].
    pub fn cut(&mut self) -> Result<Option<usize>, StreamError> {
        let rest = self.buffer.get(self.next..).unwrap_or_default();
        if !self.begun {
            self.begun = begins_well(self.framing, rest)?;
        }
        let cut = match self.framing {
            Framing::Sse => self.cutter.cut(rest),
            Framing::NdJson => {
                let unseen = rest.get(self.looked_at..).unwrap_or_default();
                let end = memchr::memchr(b'\n', unseen).map(|end| self.looked_at + end + 1);
                self.looked_at = if end.is_some() { 0 } else { rest.len() };
                end
            }
        };
        if cut.unwrap_or(rest.len()) > self.event_bytes_max {
            return Err(StreamError::EventTooLong(self.event_bytes_max));
        }
        self.next += cut.unwrap_or(0);
        Ok(cut)
    }

    /// Ends what the stream left unfinished, so that a last event without its blank line is read too.
    /// True if there was something.
    pub fn close(&mut self) -> bool {
        let rest = self.buffer.get(self.next..).unwrap_or_default();
        if rest.iter().all(u8::is_ascii_whitespace) {
            return false;
        }
        self.buffer.extend_from_slice(match self.framing {
            Framing::Sse => b"\n\n",
            Framing::NdJson => b"\n",
        });
        true
    }

    /// The last `length` bytes that were cut off.
    pub fn latest(&self, length: usize) -> Range<usize> {
        self.next.saturating_sub(length)..self.next
    }

    /// The first `length` bytes that have not left.
    pub fn first(&self, length: usize) -> Range<usize> {
        self.front..self.front + length
    }

    /// The first `length` bytes have left.
    pub fn leave(&mut self, length: usize) {
        self.front = (self.front + length).min(self.next);
    }

    /// Bytes of events that wait.
    pub fn waiting(&self) -> usize {
        self.next - self.front
    }

    /// Reads an event.
    pub fn read<R>(
        &mut self,
        place: Range<usize>,
        read: impl FnOnce(Frame<'_>) -> Result<R, StreamError>,
    ) -> Result<R, StreamError> {
        let raw = self.buffer.get(place).unwrap_or_default();
        match self.framing {
            Framing::Sse => read_event(&mut self.decoder, raw, read),
            Framing::NdJson => read_line(raw, read),
        }
    }
}

fn read_event<R>(
    decoder: &mut Decoder,
    raw: &[u8],
    read: impl FnOnce(Frame<'_>) -> Result<R, StreamError>,
) -> Result<R, StreamError> {
    let mut read = Some(read);
    let mut result = None;
    let fed = decoder.feed(raw, |event| {
        if let Some(read) = read.take() {
            let data = event.data;
            let frame =
                Frame { raw, event: event.event, data: Some(data), at: place_in(raw, data), id: event.id };
            result = Some(read(frame));
        }
    });
    fed.map_err(|error| match error {
        sse::SseError::TooLong(max) => StreamError::EventTooLong(max),
        sse::SseError::NotUtf8 => StreamError::NotUtf8,
    })?;
    match (result, read) {
        (Some(result), _) => result,
        (None, Some(read)) => read(Frame { raw, event: "message", data: None, at: None, id: None }),
        (None, None) => Err(StreamError::Unexpected("an event that is none")),
    }
}

fn read_line<R>(
    raw: &[u8],
    read: impl FnOnce(Frame<'_>) -> Result<R, StreamError>,
) -> Result<R, StreamError> {
    let line = std::str::from_utf8(raw).map_err(|_| StreamError::NotUtf8)?.trim();
    let data = (!line.is_empty()).then_some(line);
    let at = data.and_then(|data| place_in(raw, data));
    read(Frame { raw, event: "message", data, at, id: None })
}

/// Where `part` stands in `whole`, if it is a part of it.
fn place_in(whole: &[u8], part: &str) -> Option<usize> {
    let at = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (at + part.len() <= whole.len()).then_some(at)
}

/// Whether the first bytes can begin a stream; false if there are none yet.
fn begins_well(framing: Framing, bytes: &[u8]) -> Result<bool, StreamError> {
    match (framing, bytes.iter().find(|b| !b.is_ascii_whitespace())) {
        (_, None) => Ok(false),
        (Framing::Sse, Some(b':' | b'd' | b'e' | b'i' | b'r' | 0xef)) | (Framing::NdJson, Some(b'{')) => {
            Ok(true)
        }
        (_, Some(_)) => Err(StreamError::NotEvents),
    }
}

/// Bytes on their way to the caller.
#[derive(Debug)]
pub(super) struct Out {
    framing: Framing,
    bytes: BytesMut,
    total: u64,
}

impl Out {
    pub(super) fn new(framing: Framing) -> Self {
        Self { framing, bytes: BytesMut::new(), total: 0 }
    }

    /// Bytes that came so.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// An event of its own. `data` is one line.
    pub(super) fn event(&mut self, name: Option<&str>, data: &str) {
        self.identified(name, None, data);
    }

    /// An event that keeps the id with which it came.
    pub(super) fn identified(&mut self, name: Option<&str>, id: Option<&str>, data: &str) {
        match self.framing {
            Framing::Sse => {
                let mut event = Vec::with_capacity(data.len() + 64);
                sse::encode(&mut event, name, id, data.as_bytes());
                self.bytes.extend_from_slice(&event);
            }
            Framing::NdJson => {
                self.bytes.extend_from_slice(data.as_bytes());
                self.bytes.extend_from_slice(b"\n");
            }
        }
    }

    /// The end of a chat stream, which is no JSON and stands in no stream of lines.
    pub(super) fn done(&mut self) {
        if self.framing == Framing::Sse {
            self.raw(b"data: [DONE]\n\n");
        }
    }

    /// Something that no receiver sees as an event.
    pub(super) fn keep_alive(&mut self) {
        if self.framing == Framing::Sse {
            self.raw(sse::KEEP_ALIVE);
        }
    }

    /// Makes room for what will probably leave.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets what has not been taken.
    pub(super) fn discard(&mut self) {
        self.bytes.clear();
    }

    /// All that is readable, in one piece.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        if self.bytes.is_empty() {
            return None;
        }
        self.total += self.bytes.len() as u64;
        Some(self.bytes.split().freeze())
    }

    /// Bytes that were taken so far.
    pub(super) fn total(&self) -> u64 {
        self.total
    }
}
