//! Server-sent events, as they come off the wire in chunks and as they go out.
//!
//! Follows the WHATWG HTML standard, section 9.2 (parsing and interpreting an event stream), with two
//! differences that a gate needs: an event that grows beyond a limit and text that is not UTF-8 are
//! errors, instead of being buffered or repaired. An event whose one line of data lies within one
//! chunk is handed out without copying it.

use std::mem;

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its type; `message` if the stream names none.
    pub event: &'a str,
    /// Its data, lines joined by `\n`. May be empty: 2025-11-25 opens a stream with such an event, to
    /// give it an id.
    pub data: &'a str,
    /// The id that came with this very event.
    pub id: Option<&'a str>,
    /// How long to wait before connecting again, in milliseconds, if this event says so.
    pub retry_ms: Option<u64>,
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// An event or a line is too long.
    #[error("an event of the stream is longer than {0} bytes")]
    TooLong(usize),
    /// Not UTF-8.
    #[error("the stream is not UTF-8")]
    NotUtf8,
}

/// A comment that keeps a connection from looking idle; no receiver sees it as an event.
pub const KEEP_ALIVE: &[u8] = b":\n\n";

/// Takes a stream apart.
#[derive(Debug)]
pub struct Decoder {
    event_bytes_max: usize,
    /// The beginning of a line that has not ended yet.
    partial: Vec<u8>,
    /// The last line ended with CR at the end of a chunk, so a LF that follows belongs to it.
    after_cr: bool,
    first_line: bool,
    failed: Option<SseError>,
    event: String,
    id: Option<String>,
    retry_ms: Option<u64>,
    data: Vec<u8>,
    has_data: bool,
    /// Bytes of the lines of the event so far.
    size: usize,
}

impl Decoder {
    /// A decoder for one stream. `event_bytes_max` bounds the lines of one event together.
    pub fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            partial: Vec::new(),
            after_cr: false,
            first_line: true,
            failed: None,
            event: String::new(),
            id: None,
            retry_ms: None,
            data: Vec::new(),
            has_data: false,
            size: 0,
        }
    }

    /// Takes the next chunk and hands out every event that it completes. After an error the stream is
    /// over: each further call gives the same error.
    pub fn feed(&mut self, chunk: &[u8], mut out: impl FnMut(Event<'_>)) -> Result<(), SseError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.lines(chunk, &mut out).inspect_err(|error| self.failed = Some(*error))
    }

    /// Whether an event has begun and not ended; what has begun when a stream ends is lost.
    pub fn is_inside(&self) -> bool {
        self.has_data || !self.partial.is_empty()
    }

    fn lines<'c>(&mut self, chunk: &'c [u8], out: &mut impl FnMut(Event<'_>)) -> Result<(), SseError> {
        let mut rest = chunk;
        if mem::take(&mut self.after_cr) {
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            if chunk.is_empty() {
                self.after_cr = true;
            }
        }
        // The one line of data so far, if it lies in this chunk.
        let mut here: Option<&'c [u8]> = None;
        while let Some(end) = memchr::memchr2(b'\r', b'\n', rest) {
            let (line, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            rest = match tail {
                [b'\r', b'\n', tail @ ..] => tail,
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [_, tail @ ..] => tail,
                [] => &[],
            };
            if self.partial.is_empty() {
                self.line(line, &mut here, out)?;
            } else {
                self.grow(line)?;
                let whole = mem::take(&mut self.partial);
                self.whole_line(&whole, &mut here, out)?;
                self.partial = whole;
                self.partial.clear();
            }
        }
        self.grow(rest)?;
        if let Some(data) = here {
            self.data.extend_from_slice(data);
        }
        Ok(())
    }

    fn grow(&mut self, more: &[u8]) -> Result<(), SseError> {
        if self.size + self.partial.len() + more.len() > self.event_bytes_max {
            return Err(SseError::TooLong(self.event_bytes_max));
        }
        self.partial.extend_from_slice(more);
        Ok(())
    }

    /// A line that lies in the chunk.
    fn line<'c>(
        &mut self,
        line: &'c [u8],
        here: &mut Option<&'c [u8]>,
        out: &mut impl FnMut(Event<'_>),
    ) -> Result<(), SseError> {
        if let Some(value) = self.field(line, *here, out)? {
            if self.has_data {
                self.join(here.take());
                self.data.extend_from_slice(value);
            } else {
                *here = Some(value);
            }
            self.has_data = true;
        } else if line.is_empty() {
            *here = None;
        }
        Ok(())
    }

    /// A line that was put together from several chunks.
    fn whole_line(
        &mut self,
        line: &[u8],
        here: &mut Option<&[u8]>,
        out: &mut impl FnMut(Event<'_>),
    ) -> Result<(), SseError> {
        if let Some(value) = self.field(line, *here, out)? {
            if self.has_data {
                self.join(here.take());
            }
            self.data.extend_from_slice(value);
            self.has_data = true;
        } else if line.is_empty() {
            *here = None;
        }
        Ok(())
    }

    fn join(&mut self, here: Option<&[u8]>) {
        self.data.extend_from_slice(here.unwrap_or_default());
        self.data.push(b'\n');
    }

    /// Takes one line; returns the value of a `data` field.
    fn field<'l>(
        &mut self,
        line: &'l [u8],
        here: Option<&[u8]>,
        out: &mut impl FnMut(Event<'_>),
    ) -> Result<Option<&'l [u8]>, SseError> {
        if self.size + line.len() > self.event_bytes_max {
            return Err(SseError::TooLong(self.event_bytes_max));
        }
        let line =
            if mem::take(&mut self.first_line) { line.strip_prefix(BOM).unwrap_or(line) } else { line };
        if line.is_empty() {
            self.dispatch(here, out)?;
            return Ok(None);
        }
        let (name, value) = match memchr::memchr(b':', line) {
            // A comment; it is not a part of the event and does not count towards its size.
            Some(0) => return Ok(None),
            Some(at) => line.split_at_checked(at).unwrap_or((line, &[])),
            None => (line, &[][..]),
        };
        self.size += line.len();
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = || std::str::from_utf8(value).map_err(|_| SseError::NotUtf8);
        match name {
            b"data" => return Ok(Some(value)),
            b"event" => {
                self.event.clear();
                self.event.push_str(text()?);
            }
            b"id" if !value.contains(&0) => self.id = Some(text()?.to_string()),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                self.retry_ms = text()?.parse().ok();
            }
            _ => {}
        }
        Ok(None)
    }

    fn dispatch(&mut self, here: Option<&[u8]>, out: &mut impl FnMut(Event<'_>)) -> Result<(), SseError> {
        if self.has_data {
            let data = here.unwrap_or(&self.data);
            out(Event {
                event: if self.event.is_empty() { "message" } else { &self.event },
                data: std::str::from_utf8(data).map_err(|_| SseError::NotUtf8)?,
                id: self.id.as_deref(),
                retry_ms: self.retry_ms,
            });
        }
        self.event.clear();
        self.id = None;
        self.retry_ms = None;
        self.data.clear();
        self.has_data = false;
        self.size = 0;
        Ok(())
    }
}

/// Finds where events end, so that an event can be forwarded as the bytes that brought it.
///
/// It looks for line ends only; what an event says, [`Decoder`] knows. Each byte is looked at once,
/// however small the chunks are. A CR that came last may be half of a line end, so it waits for what
/// follows.
#[derive(Debug, Default)]
pub struct Cutter {
    /// Bytes of the buffer that were looked at.
    seen: usize,
    /// Where the line that is looked at begins.
    line: usize,
}

impl Cutter {
    /// The length of the first event in `buffer`, its blank line included; None if it has not ended. A
    /// block of comments is an event too, as is a blank line alone. The caller takes what was found
    /// off the front and calls again; otherwise `buffer` may only have grown.
    pub fn cut(&mut self, buffer: &[u8]) -> Option<usize> {
        loop {
            let rest = buffer.get(self.seen..).unwrap_or_default();
            let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else {
                self.seen = buffer.len();
                return None;
            };
            let end = self.seen + end;
            let blank = end == self.line;
            self.seen = match buffer.get(end..) {
                Some([b'\r', b'\n', ..]) => end + 2,
                Some([b'\r']) => {
                    self.seen = end;
                    return None;
                }
                _ => end + 1,
            };
            self.line = self.seen;
            if blank {
                let length = self.seen;
                *self = Self::default();
                return Some(length);
            }
        }
    }
}

const BOM: &[u8] = b"\xef\xbb\xbf";

/// Writes one event. A line break in `event` or `id` ends them there, so that neither can forge a
/// field; line breaks in `data` become lines, which the receiver joins by `\n`.
pub fn encode(out: &mut Vec<u8>, event: Option<&str>, id: Option<&str>, data: &[u8]) {
    for (name, value) in [("event", event), ("id", id)] {
        if let Some(value) = value {
            let line = value.split(['\r', '\n']).next().unwrap_or_default();
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        }
    }
    let mut rest = data;
    loop {
        let end = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let (line, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
        rest = match tail {
            [] => break,
            [b'\r', b'\n', tail @ ..] | [_, tail @ ..] => tail,
        };
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owned = (String, String, Option<String>, Option<u64>);

    fn decode(chunks: &[&[u8]], max: usize) -> (Vec<Owned>, Option<SseError>) {
        let mut decoder = Decoder::new(max);
        let mut events = Vec::new();
        for chunk in chunks {
            let fed = decoder.feed(chunk, |e| {
                events.push((e.event.to_string(), e.data.to_string(), e.id.map(str::to_string), e.retry_ms));
            });
            if let Err(error) = fed {
                assert_eq!(decoder.feed(b"", |_| {}), Err(error));
                return (events, Some(error));
            }
        }
        (events, None)
    }

    fn event(event: &str, data: &str, id: Option<&str>, retry: Option<u64>) -> Owned {
        (event.into(), data.into(), id.map(Into::into), retry)
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        for (stream, expected) in [
            ("data: a\n\n", vec![event("message", "a", None, None)]),
            (
                "\u{feff}data:a\r\rdata: b\r\n\r\n",
                vec![event("message", "a", None, None), event("message", "b", None, None)],
            ),
            (
                "event: x\nid: 7\nretry: 10\ndata: a\ndata:  b\n: comment\ndata\n\ndata: c\n\n",
                vec![event("x", "a\n b\n", Some("7"), Some(10)), event("message", "c", None, None)],
            ),
            ("id: 1\ndata:\n\n", vec![event("message", "", Some("1"), None)]),
            ("event: x\n\ndata: a\n\n", vec![event("message", "a", None, None)]),
            (
                ": only\n\nunknown: x\n\nretry: -1\ndata: \u{e9}\n\n",
                vec![event("message", "\u{e9}", None, None)],
            ),
            ("data: a\n\r\ndata: b", vec![event("message", "a", None, None)]),
            ("\n\n\u{feff}data: a\n\n", vec![]),
        ] {
            assert_eq!(decode(&[stream.as_bytes()], 99), (expected, None), "{stream:?}");
        }
    }

    #[test]
    fn what_is_too_long_or_not_text_ends_the_stream() {
        let long = decode(&[b"data: a\n\n", b"data: ", b"0123456789"], 12);
        assert_eq!(long, (vec![event("message", "a", None, None)], Some(SseError::TooLong(12))));
        assert_eq!(decode(&[b"data: a\ndata: a\n\n"], 12).1, Some(SseError::TooLong(12)));
        assert_eq!(decode(&[b"data: a\n:0123456789\n:0123456789\n\n"], 24).1, None);
        assert_eq!(decode(&[b"data: \xff\n\n"], 12).1, Some(SseError::NotUtf8));
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            Just(""),
            Just("data: a"),
            Just("data:"),
            Just("data: \u{e9}\u{1f600}"),
            Just("event: x"),
            Just("id: 1"),
            Just("retry: 5"),
            Just(": c"),
            Just("data"),
            Just("\u{feff}data: b"),
        ];
        let end = prop_oneof![Just("\n"), Just("\r"), Just("\r\n")];
        prop::collection::vec((line, end), 0..24)
            .prop_map(|lines| lines.iter().map(|(l, e)| format!("{l}{e}")).collect::<String>().into_bytes())
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            stream in stream(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6), max in 8_usize..60,
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|i| i.index(stream.len() + 1)).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(&stream[from..cut]);
                from = cut;
            }
            chunks.push(&stream[from..]);
            prop_assert_eq!(decode(&chunks, max), decode(&[&stream], max));
        }

        #[test]
        fn events_that_were_cut_are_the_events_of_the_stream(
            stream in stream(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|i| i.index(stream.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(stream.len());
            let (mut cutter, mut buffer, mut raws, mut from) = (Cutter::default(), Vec::new(), Vec::new(), 0);
            for cut in cuts {
                buffer.extend_from_slice(&stream[from..cut]);
                from = cut;
                while let Some(length) = cutter.cut(&buffer) {
                    raws.push(buffer.drain(..length).collect::<Vec<u8>>());
                }
            }
            prop_assert_eq!(cutter.cut(&buffer), None);
            // What has no blank line, or ends with a CR that may be half a line end.
            raws.push(buffer);
            let mut each = Decoder::new(999);
            let mut counts = Vec::new();
            let mut events = Vec::new();
            for raw in &raws {
                let before = events.len();
                let fed = each.feed(raw, |e| events.push(e.data.to_string()));
                counts.push(events.len() - before);
                if fed.is_err() {
                    break;
                }
            }
            let whole: Vec<_> = decode(&[&stream], 999).0.into_iter().map(|e| e.1).collect();
            prop_assert_eq!(events, whole);
            prop_assert!(counts.iter().all(|n| *n <= 1), "{counts:?}");
        }

        #[test]
        fn what_is_encoded_is_read_back(data in "[a-z\n:{} ]{0,40}", id in proptest::option::of("[a-z0-9]{1,8}")) {
            let mut bytes = Vec::new();
            encode(&mut bytes, Some("message"), id.as_deref(), data.as_bytes());
            prop_assert_eq!(decode(&[&bytes], 999), (vec![event("message", &data, id.as_deref(), None)], None));
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            decode(&[&bytes], 16);
        }
    }
}
