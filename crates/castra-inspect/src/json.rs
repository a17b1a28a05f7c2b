//! JSON, masked in place: walked once without building a tree, every string looked at as it is meant.
//!
//! A string counts decoded, so `\u0041KIA…` hides nothing. What needs no change keeps its bytes. A
//! value is also looked at together with the name that it stands under, because `"password": "…"`
//! says more than either half.

use std::{borrow::Cow, ops::Range};

use castra_core::Finding;

use crate::{
    inspector::{Inspector, keep},
    tracker::WINDOW,
};

/// Nested deeper than this is refused whatever a caller allows: the walk recurses.
pub const DEPTH_CEILING: usize = 128;

/// Shorter values stand in any text by chance.
const SAID_BYTES_MIN: usize = 6;

/// How a document is walked.
#[derive(Debug, Clone, Copy)]
pub struct JsonOptions<'a> {
    /// Levels of arrays and objects, at most [`DEPTH_CEILING`].
    pub depth_max: usize,
    /// Members that are handed back to whoever made them and must come back unchanged, as names from
    /// the top: ids, cursors. They are not looked at. At most 64.
    pub opaque: &'a [&'a [&'a str]],
    /// What whoever sees the document said itself. A value that only its name makes a secret, such as a
    /// password, is told but not masked if it stands in there: a user may hand one to a tool.
    pub said: &'a str,
}

impl Default for JsonOptions<'_> {
    fn default() -> Self {
        Self { depth_max: 64, opaque: &[], said: "" }
    }
}

/// A document in which something was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskedJson {
    /// The document with masks; none if what was found is only to be reported.
    pub bytes: Option<Vec<u8>>,
    /// What was found, as for text. Places are bytes of the document; where a string has escapes, the
    /// whole string.
    pub findings: Vec<Finding>,
}

/// Why a document cannot be looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {fault}")]
pub struct JsonError {
    /// Byte at which it was noticed.
    pub offset: usize,
    /// What is wrong.
    pub fault: JsonFault,
}

/// What is wrong with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// Not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// Another byte than the grammar of RFC 8259 allows, or the end.
    #[error("{0} is expected")]
    Expected(&'static str),
    /// Nested too deeply.
    #[error("nested deeper than {0} levels")]
    Depth(usize),
}

impl Inspector {
    /// Looks at every string of a JSON document, names of members included. None when nothing was
    /// found.
    pub fn mask_json(
        &self,
        bytes: &[u8],
        options: &JsonOptions<'_>,
    ) -> Result<Option<MaskedJson>, JsonError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|e| JsonError { offset: e.valid_up_to(), fault: JsonFault::NotUtf8 })?;
        let mut walk = Walk {
            inspector: self,
            text,
            pos: 0,
            depth_max: options.depth_max.min(DEPTH_CEILING),
            opaque: options.opaque,
            said: options.said,
            edits: Vec::new(),
            findings: Vec::new(),
        };
        walk.space();
        walk.value(0, Opaque::of(options.opaque))?;
        walk.space();
        if walk.pos != text.len() {
            return Err(walk.expected("the end"));
        }
        if walk.findings.is_empty() {
            return Ok(None);
        }
        let bytes = (!walk.edits.is_empty()).then(|| spliced(text, &walk.edits));
        Ok(Some(MaskedJson { bytes, findings: walk.findings }))
    }
}

/// Bytes of the document, quotes included, and what takes their place.
type Edit = (Range<usize>, String);

struct Walk<'a> {
    inspector: &'a Inspector,
    text: &'a str,
    pos: usize,
    depth_max: usize,
    opaque: &'a [&'a [&'a str]],
    said: &'a str,
    edits: Vec<Edit>,
    findings: Vec<Finding>,
}

/// A string as it stands in the document.
struct Str<'a> {
    raw: &'a str,
    /// Its bytes without the quotes.
    place: Range<usize>,
    escaped: bool,
}

impl<'a> Str<'a> {
    fn decoded(&self) -> Cow<'a, str> {
        if self.escaped { Cow::Owned(unescaped(self.raw)) } else { Cow::Borrowed(self.raw) }
    }

    fn quoted(&self) -> Range<usize> {
        self.place.start.saturating_sub(1)..self.place.end + 1
    }

    /// A part of the decoded string, as bytes of the document.
    fn part(&self, part: &Range<usize>) -> Range<usize> {
        if self.escaped {
            return self.place.clone();
        }
        self.place.start + part.start..self.place.start + part.end
    }
}

/// Which of the opaque paths lead here, one bit each.
#[derive(Clone, Copy)]
struct Opaque(u64);

impl Opaque {
    const NONE: Self = Self(0);

    fn of(paths: &[&[&str]]) -> Self {
        Self(u64::MAX.checked_shr(64_u32.saturating_sub(paths.len().min(64) as u32)).unwrap_or(0))
    }

    /// The paths that go on with `name`, and whether one of them ends with it.
    fn under(self, paths: &[&[&str]], depth: usize, name: &str) -> (Self, bool) {
        let (mut on, mut ends) = (0, false);
        for (at, path) in paths.iter().enumerate().take(64) {
            if self.0 >> at & 1 == 1 && path.get(depth) == Some(&name) {
                on |= 1 << at;
                ends |= path.len() == depth + 1;
            }
        }
        (Self(on), ends)
    }
}

impl<'a> Walk<'a> {
    fn value(&mut self, depth: usize, opaque: Opaque) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'{') => self.object(depth, opaque),
            Some(b'[') => self.array(depth),
            Some(b'"') => {
                let string = self.string()?;
                let decoded = string.decoded();
                self.look(&string, &decoded);
                Ok(())
            }
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize, opaque: Opaque) -> Result<(), JsonError> {
        self.enter(depth)?;
        let mut masked_names = 0;
        self.space();
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            self.space();
            let name = self.string()?;
            let meant = name.decoded();
            if self.look(&name, &meant) {
                masked_names += 1;
                self.tell_apart(masked_names);
            }
            self.space();
            self.take(b':', "':'")?;
            self.space();
            let (opaque, ends) =
                if opaque.0 == 0 { (opaque, false) } else { opaque.under(self.opaque, depth, &meant) };
            self.member(depth, opaque, ends, &meant)?;
            self.space();
            if self.eat(b'}') {
                return Ok(());
            }
            self.take(b',', "',' or '}'")?;
        }
    }

    /// The value of a member.
    fn member(&mut self, depth: usize, opaque: Opaque, ends: bool, name: &str) -> Result<(), JsonError> {
        if self.peek() != Some(b'"') {
            return self.value(depth + 1, opaque);
        }
        let value = self.string()?;
        if !ends {
            let meant = value.decoded();
            if !self.look(&value, &meant) {
                self.look_under(name, &value, &meant);
            }
        }
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), JsonError> {
        self.enter(depth)?;
        self.space();
        if self.eat(b']') {
            return Ok(());
        }
        loop {
            self.space();
            self.value(depth + 1, Opaque::NONE)?;
            self.space();
            if self.eat(b']') {
                return Ok(());
            }
            self.take(b',', "',' or ']'")?;
        }
    }

    /// Looks at one string; says whether it is masked.
    fn look(&mut self, string: &Str<'_>, meant: &str) -> bool {
        if !self.inspector.may_match(meant) {
            return false;
        }
        if let Some(inner) = self.inner(meant) {
            let Some(MaskedJson { bytes, findings }) = inner else { return false };
            findings
                .into_iter()
                .for_each(|found| keep(&mut self.findings, Finding { place: string.place.clone(), ..found }));
            let Some(text) = bytes.and_then(|bytes| String::from_utf8(bytes).ok()) else { return false };
            self.edits.push((string.quoted(), quoted(&text)));
            return true;
        }
        let Some(masked) = self.inspector.mask_text(meant) else { return false };
        for finding in masked.findings {
            let place = string.part(&finding.place);
            keep(&mut self.findings, Finding { place, ..finding });
        }
        let Some(text) = masked.text else { return false };
        self.edits.push((string.quoted(), quoted(&text)));
        true
    }

    /// What is in a string that is a JSON object or array itself, as the arguments of tool calls are in the
    /// APIs of models: looked at as text, a mask over name and value would leave no JSON. None for any other
    /// string. Quotes are escaped anew at each level, so levels are few.
    fn inner(&self, meant: &str) -> Option<Option<MaskedJson>> {
        if !meant.trim_start().starts_with(['{', '[']) {
            return None;
        }
        let options = JsonOptions { depth_max: self.depth_max, opaque: &[], said: self.said };
        self.inspector.mask_json(meant.as_bytes(), &options).ok()
    }

    /// Looks at a value under its name, for what only both together tell. The value is masked whole.
    fn look_under(&mut self, name: &str, value: &Str<'_>, meant: &str) {
        if meant.len() > WINDOW || name.len() > WINDOW || !self.inspector.may_match(name) {
            return;
        }
        let both = format!("\"{name}\":\"{meant}\"");
        let value_from = name.len() + 4;
        let spared = meant.len() >= SAID_BYTES_MIN && self.said.contains(meant);
        let (findings, edits) = (&mut self.findings, &mut self.edits);
        let mut masked = false;
        self.inspector.hits(&both, &mut |hit| {
            if hit.place.start < value_from && hit.place.end > value_from {
                keep(findings, hit.finding(value.place.clone()));
                if hit.masked && !spared && !masked {
                    masked = true;
                    edits.push((value.quoted(), quoted(&hit.kind.mask)));
                }
            }
        });
    }

    /// Two names of one object that are masked alike would be one name.
    fn tell_apart(&mut self, count: usize) {
        if let Some((_, name)) = self.edits.last_mut().filter(|_| count > 1) {
            name.truncate(name.len().saturating_sub(1));
            name.push_str(&format!(" {count}\""));
        }
    }

    fn enter(&mut self, depth: usize) -> Result<(), JsonError> {
        if depth >= self.depth_max {
            return Err(JsonError { offset: self.pos, fault: JsonFault::Depth(self.depth_max) });
        }
        self.pos += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<Str<'a>, JsonError> {
        self.take(b'"', "a string")?;
        let start = self.pos;
        let mut escaped = false;
        loop {
            self.plain_run();
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(self.expected("the end of a string, or an escape")),
            }
        }
        let place = start..self.pos;
        self.pos += 1;
        Ok(Str { raw: self.text.get(place.clone()).unwrap_or_default(), place, escaped })
    }

    /// Moves to the next quote, backslash or control character, eight bytes at a time. The lowest flag
    /// of a word is exact: the borrow of the subtractions only reaches bytes behind a hit.
    fn plain_run(&mut self) {
        const LOW: u64 = 0x0101_0101_0101_0101;
        const HIGH: u64 = 0x8080_8080_8080_8080;
        let zero = |word: u64| word.wrapping_sub(LOW) & !word;
        let (words, tail) = self.rest().as_chunks::<8>();
        let mut run = 0;
        for bytes in words {
            let word = u64::from_le_bytes(*bytes);
            let quote = zero(word ^ (LOW * b'"' as u64));
            let backslash = zero(word ^ (LOW * b'\\' as u64));
            let hit = (quote | backslash | word.wrapping_sub(LOW * 0x20) & !word) & HIGH;
            if hit != 0 {
                self.pos += run + hit.trailing_zeros() as usize / 8;
                return;
            }
            run += 8;
        }
        self.pos += run + tail.iter().take_while(|b| !matches!(b, b'"' | b'\\' | 0..0x20)).count();
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let good = match self.rest() {
            [_, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [_, b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) => 6,
            _ => return Err(self.expected("an escape sequence")),
        };
        self.pos += good;
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            if !self.eat(b'+') {
                self.eat(b'-');
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let count = self.rest().iter().take_while(|b| b.is_ascii_digit()).count();
        if count == 0 {
            return Err(self.expected("a value"));
        }
        self.pos += count;
        Ok(())
    }

    fn literal(&mut self, word: &'static str) -> Result<(), JsonError> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(self.expected("true, false or null"));
        }
        self.pos += word.len();
        Ok(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.pos += 1;
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.pos..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.pos += usize::from(found);
        found
    }

    fn take(&mut self, byte: u8, what: &'static str) -> Result<(), JsonError> {
        if self.eat(byte) { Ok(()) } else { Err(self.expected(what)) }
    }

    fn expected(&self, what: &'static str) -> JsonError {
        JsonError { offset: self.pos, fault: JsonFault::Expected(what) }
    }
}

/// The document with its edits, which stand in order.
fn spliced(text: &str, edits: &[Edit]) -> Vec<u8> {
    let grown: usize = edits.iter().map(|(_, new)| new.len()).sum();
    let mut out = Vec::with_capacity(text.len() + grown);
    let mut done = 0;
    for (place, new) in edits {
        out.extend_from_slice(text.get(done..place.start).unwrap_or_default().as_bytes());
        out.extend_from_slice(new.as_bytes());
        done = place.end;
    }
    out.extend_from_slice(text.get(done..).unwrap_or_default().as_bytes());
    out
}

/// The string that is meant. Half of a surrogate pair is no character and becomes U+FFFD.
fn unescaped(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        let (meant, length) = match escape.as_bytes() {
            [b'b', ..] => ('\u{8}', 1),
            [b'f', ..] => ('\u{c}', 1),
            [b'n', ..] => ('\n', 1),
            [b'r', ..] => ('\r', 1),
            [b't', ..] => ('\t', 1),
            [b'u', ..] => code_point(escape),
            [other, ..] => (char::from(*other), 1),
            [] => (char::REPLACEMENT_CHARACTER, 0),
        };
        out.push(meant);
        rest = escape.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// The character of `uXXXX`, or of a pair of such, and how many bytes it takes.
fn code_point(escape: &str) -> (char, usize) {
    let unit = |from: usize| u32::from_str_radix(escape.get(from..from + 4)?, 16).ok();
    let high = unit(1).unwrap_or(0xfffd);
    if (0xd800..0xdc00).contains(&high)
        && escape.get(5..7) == Some("\\u")
        && let Some(low @ 0xdc00..0xe000) = unit(7)
    {
        let joined = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
        return (char::from_u32(joined).unwrap_or(char::REPLACEMENT_CHARACTER), 11);
    }
    (char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER), 5)
}

/// A string as JSON, with its quotes.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
