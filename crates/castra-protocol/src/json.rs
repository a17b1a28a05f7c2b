//! A strict JSON scanner over borrowed text.
//!
//! It validates while it walks and hands out byte spans, so that a message can be understood without
//! building a tree and forwarded without being written again. It is stricter than RFC 8259 where
//! parsers are known to differ, because what we read and what the server behind us reads must be the
//! same: duplicate names (RFC 8259 section 4), lone surrogates (section 8.2), a byte order mark
//! (section 8.1) and nesting beyond a limit (section 9) are refused.

use std::{borrow::Cow, collections::BTreeSet};

/// Half open range of bytes of the scanned text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// The part of `text` that the span names; empty if it is not a part of this text.
    pub fn of(self, text: &str) -> &str {
        text.get(self.start..self.end).unwrap_or_default()
    }
}

/// What kind of value stands somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

/// Where a value stands and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    /// Its kind.
    pub kind: Kind,
    /// Its bytes; for a string with the quotes.
    pub span: Span,
}

/// A string as it stands in the text. Known to be valid, not yet unescaped.
#[derive(Debug, Clone, Copy)]
pub struct Str<'a> {
    raw: &'a str,
    start: usize,
    escaped: bool,
}

impl<'a> Str<'a> {
    /// The string that is meant; borrowed unless it has escapes.
    pub fn decode(&self) -> Cow<'a, str> {
        if self.escaped { Cow::Owned(unescape(self.raw)) } else { Cow::Borrowed(self.raw) }
    }

    /// Its bytes with the quotes.
    pub fn span(&self) -> Span {
        Span { start: self.start, end: self.start + self.raw.len() + 2 }
    }
}

/// Why a text is not JSON as we take it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {fault}")]
pub struct JsonError {
    /// Byte at which it was noticed.
    pub offset: usize,
    /// What is wrong.
    pub fault: JsonFault,
}

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// Not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// The text ended inside a value.
    #[error("the text ends where {0} is expected")]
    Ended(&'static str),
    /// Another byte than the grammar allows.
    #[error("{found:?} stands where {expected} is expected")]
    Unexpected {
        /// The character that stands there.
        found: char,
        /// What could stand there.
        expected: &'static str,
    },
    /// A control character inside a string.
    #[error("a control character must be escaped inside a string")]
    Control,
    /// A backslash that starts no escape.
    #[error("not an escape sequence")]
    Escape,
    /// Half of a surrogate pair.
    #[error("half of a surrogate pair is not a character")]
    LoneSurrogate,
    /// One name twice in one object.
    #[error("the name {0:?} stands twice in one object")]
    Duplicate(String),
    /// Nested deeper than allowed.
    #[error("nested deeper than {0} levels")]
    Depth(usize),
    /// Something follows the value.
    #[error("something follows the value")]
    Trailing,
}

/// More levels than this are never allowed, whatever a caller asks for, since the scanner recurses.
pub const DEPTH_CEILING: usize = 128;

/// Checks a whole document and returns it as text.
pub fn check(bytes: &[u8], depth_max: usize) -> Result<&str, JsonError> {
    let mut scanner = Scanner::new(bytes, depth_max)?;
    scanner.skip()?;
    scanner.end()?;
    Ok(scanner.text)
}

/// Walks over a text once, from front to back.
#[derive(Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    pos: usize,
    depth: usize,
    depth_max: usize,
}

impl<'a> Scanner<'a> {
    /// Starts at the front. Fails when the bytes are not UTF-8.
    pub fn new(bytes: &'a [u8], depth_max: usize) -> Result<Self, JsonError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self::of(text, depth_max)),
            Err(e) => Err(JsonError { offset: e.valid_up_to(), fault: JsonFault::NotUtf8 }),
        }
    }

    /// Starts at the front of a text.
    pub fn of(text: &'a str, depth_max: usize) -> Self {
        Self { text, pos: 0, depth: 0, depth_max: depth_max.min(DEPTH_CEILING) }
    }

    /// Starts at a value inside a text that was scanned before; spans stay those of the whole text.
    pub fn at(text: &'a str, value: Span) -> Self {
        Self { text, pos: value.start, depth: 0, depth_max: DEPTH_CEILING }
    }

    /// The text that is scanned.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The byte that comes next.
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// The kind of the next value, which is not consumed.
    pub fn kind(&mut self) -> Result<Kind, JsonError> {
        self.space();
        match self.peek() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            _ => Err(self.unexpected("a value")),
        }
    }

    /// Validates the next value, whatever it is, and says where it stands.
    pub fn skip(&mut self) -> Result<Value, JsonError> {
        let kind = self.kind()?;
        let start = self.pos;
        match kind {
            Kind::Object => self.members(|s, _| s.skip().map(drop))?,
            Kind::Array => self.elements(|s| s.skip().map(drop))?,
            Kind::String => self.string().map(drop)?,
            Kind::Number => self.number()?,
            Kind::Bool if self.peek() == Some(b't') => self.literal("true")?,
            Kind::Bool => self.literal("false")?,
            Kind::Null => self.literal("null")?,
        }
        Ok(Value { kind, span: Span { start, end: self.pos } })
    }

    /// Reads the next value, which must be a string.
    pub fn string(&mut self) -> Result<Str<'a>, JsonError> {
        self.space();
        let start = self.pos;
        self.take(b'"', "a string")?;
        let mut escaped = false;
        loop {
            self.plain_run();
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.error(JsonFault::Control)),
                None => return Err(self.error(JsonFault::Ended("the end of a string"))),
            }
        }
        let raw = self.text.get(start + 1..self.pos).unwrap_or_default();
        self.pos += 1;
        Ok(Str { raw, start, escaped })
    }

    /// Reads the next value, which must be an object. `each` is given every name and must consume its
    /// value. Names that stand twice, compared after unescaping, are refused.
    pub fn members<E: From<JsonError>>(
        &mut self,
        mut each: impl FnMut(&mut Self, Str<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open(b'{', "an object")?;
        let mut names = Names::default();
        self.space();
        if self.eat(b'}') {
            self.depth -= 1;
            return Ok(());
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("a name in quotes").into());
            }
            let name = self.string()?;
            if !names.insert(&name) {
                let shown = name.decode().chars().take(80).collect();
                return Err(JsonError { offset: name.start, fault: JsonFault::Duplicate(shown) }.into());
            }
            self.space();
            self.take(b':', "':'")?;
            each(self, name)?;
            self.space();
            if self.eat(b'}') {
                self.depth -= 1;
                return Ok(());
            }
            self.take(b',', "',' or '}'")?;
        }
    }

    /// Reads the next value, which must be an array. `each` must consume one element.
    pub fn elements<E: From<JsonError>>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open(b'[', "an array")?;
        self.space();
        if self.eat(b']') {
            self.depth -= 1;
            return Ok(());
        }
        loop {
            each(self)?;
            self.space();
            if self.eat(b']') {
                self.depth -= 1;
                return Ok(());
            }
            self.take(b',', "',' or ']'")?;
        }
    }

    /// Nothing but white space may follow.
    pub fn end(&mut self) -> Result<(), JsonError> {
        self.space();
        if self.pos == self.text.len() { Ok(()) } else { Err(self.error(JsonFault::Trailing)) }
    }

    fn open(&mut self, byte: u8, what: &'static str) -> Result<(), JsonError> {
        self.space();
        if self.depth == self.depth_max && self.peek() == Some(byte) {
            return Err(self.error(JsonFault::Depth(self.depth_max)));
        }
        self.take(byte, what)?;
        self.depth += 1;
        Ok(())
    }

    /// Moves to the next byte of a string that is not plain: a quote, a backslash or a control
    /// character. Eight bytes at a time; the lowest flag of a word is exact (the borrow of the
    /// subtractions only reaches bytes after a hit).
    fn plain_run(&mut self) {
        const LOW: u64 = 0x0101_0101_0101_0101;
        const HIGH: u64 = 0x8080_8080_8080_8080;
        let zero = |word: u64| word.wrapping_sub(LOW) & !word;
        let rest = self.text.as_bytes().get(self.pos..).unwrap_or_default();
        let (words, tail) = rest.as_chunks::<8>();
        for bytes in words {
            let word = u64::from_le_bytes(*bytes);
            let quote = zero(word ^ (LOW * b'"' as u64));
            let backslash = zero(word ^ (LOW * b'\\' as u64));
            let control = word.wrapping_sub(LOW * 0x20) & !word;
            let hit = (quote | backslash | control) & HIGH;
            if hit != 0 {
                self.pos += hit.trailing_zeros() as usize / 8;
                return;
            }
            self.pos += 8;
        }
        self.pos += tail.iter().take_while(|b| !matches!(b, b'"' | b'\\' | 0..0x20)).count();
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let start = self.pos;
        self.pos += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.pos += 1,
            Some(b'u') => {
                self.pos += 1;
                match self.hex4(start)? {
                    0xd800..0xdc00 => {
                        let pair = self.eat(b'\\') && self.eat(b'u');
                        if !pair || !(0xdc00..0xe000).contains(&self.hex4(start)?) {
                            return Err(JsonError { offset: start, fault: JsonFault::LoneSurrogate });
                        }
                    }
                    0xdc00..0xe000 => {
                        return Err(JsonError { offset: start, fault: JsonFault::LoneSurrogate });
                    }
                    _ => {}
                }
            }
            Some(_) => return Err(JsonError { offset: start, fault: JsonFault::Escape }),
            None => return Err(self.error(JsonFault::Ended("an escape sequence"))),
        }
        Ok(())
    }

    fn hex4(&mut self, start: usize) -> Result<u32, JsonError> {
        let digits = self.text.as_bytes().get(self.pos..self.pos + 4).and_then(hex_value);
        self.pos += 4;
        digits.ok_or(JsonError { offset: start, fault: JsonFault::Escape })
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
        let rest = self.text.as_bytes().get(self.pos..).unwrap_or_default();
        let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if count == 0 {
            return Err(self.unexpected("a digit"));
        }
        self.pos += count;
        Ok(())
    }

    fn literal(&mut self, word: &'static str) -> Result<(), JsonError> {
        let found = self.text.as_bytes().get(self.pos..).is_some_and(|r| r.starts_with(word.as_bytes()));
        if !found {
            return Err(self.unexpected("true, false or null"));
        }
        self.pos += word.len();
        Ok(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.pos += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.pos += usize::from(found);
        found
    }

    fn take(&mut self, byte: u8, expected: &'static str) -> Result<(), JsonError> {
        if self.eat(byte) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn unexpected(&self, expected: &'static str) -> JsonError {
        match self.text.get(self.pos..).and_then(|rest| rest.chars().next()) {
            Some(found) => self.error(JsonFault::Unexpected { found, expected }),
            None => self.error(JsonFault::Ended(expected)),
        }
    }

    fn error(&self, fault: JsonFault) -> JsonError {
        JsonError { offset: self.pos, fault }
    }
}

/// The names of one object. The first few are compared one by one; the rest, and names with escapes,
/// are kept sorted, so that an object of a million names costs no more than sorting them.
#[derive(Default)]
struct Names<'a> {
    few: [&'a str; 12],
    count: usize,
    /// One bit per name seen; where a name's bit is not set, it is new.
    seen: u64,
    more: BTreeSet<Cow<'a, str>>,
}

impl<'a> Names<'a> {
    /// False if the name was there before.
    #[inline]
    fn insert(&mut self, name: &Str<'a>) -> bool {
        if name.escaped {
            return self.insert_slowly(name.decode());
        }
        let bit = mark(name.raw);
        let fresh = self.seen & bit == 0;
        self.seen |= bit;
        match self.few.get_mut(self.count) {
            Some(slot) if fresh => {
                *slot = name.raw;
                self.count += 1;
                true
            }
            _ => self.insert_slowly(Cow::Borrowed(name.raw)),
        }
    }

    fn insert_slowly(&mut self, name: Cow<'a, str>) -> bool {
        if self.few.iter().take(self.count).any(|known| **known == *name) {
            return false;
        }
        self.seen |= mark(&name);
        self.more.insert(name)
    }
}

/// One of 64 bits, from what is at hand: the length and the outer bytes.
fn mark(name: &str) -> u64 {
    let (first, last) = match name.as_bytes() {
        [] => (0, 0),
        [only] => (*only, *only),
        [first, .., last] => (*first, *last),
    };
    1 << ((name.len() as u64 * 7 + u64::from(first) * 5 + u64::from(last)) % 64)
}

/// The bytes of the value at a path of names, in a text that holds one valid object.
pub fn get<'a>(object: &'a str, path: &[&str]) -> Option<&'a str> {
    let mut text = object;
    for name in path {
        let mut found = None;
        let mut scanner = Scanner::of(text, DEPTH_CEILING);
        scanner
            .members(|s, key| {
                let value = s.skip()?;
                if key.decode() == *name {
                    found = Some(value.span);
                }
                Ok::<_, JsonError>(())
            })
            .ok()?;
        text = found?.of(text);
    }
    Some(text)
}

/// Unescapes a string value that was scanned before, given with its quotes.
pub(crate) fn decode_scanned(value: &str) -> Cow<'_, str> {
    let raw = value.get(1..value.len().saturating_sub(1)).unwrap_or_default();
    if memchr::memchr(b'\\', raw.as_bytes()).is_some() {
        Cow::Owned(unescape(raw))
    } else {
        Cow::Borrowed(raw)
    }
}

/// Unescapes a string value given with its quotes. None if it is not a string.
pub fn decode(value: &str) -> Option<Cow<'_, str>> {
    let mut scanner = Scanner::of(value, 0);
    let text = scanner.string().ok()?;
    scanner.end().ok()?;
    Some(text.decode())
}

/// Writes a text as a JSON string, quotes included.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_quoted(&mut out, text);
    out
}

/// Appends a text as a JSON string, quotes included.
pub fn push_quoted(out: &mut String, text: &str) {
    use std::fmt::Write;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing to a String cannot fail.
            '\0'..'\x20' | '\x7f' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// Unescapes what [`Scanner::string`] has checked.
fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, tail)) = rest.split_once('\\') {
        out.push_str(plain);
        let mut chars = tail.chars();
        match chars.next() {
            Some('b') => out.push('\x08'),
            Some('f') => out.push('\x0c'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('u') => {
                let unit = |text: &str| text.as_bytes().get(..4).and_then(hex_value);
                let high = unit(chars.as_str()).unwrap_or_default();
                chars.nth(3);
                let mut code = high;
                if (0xd800..0xdc00).contains(&high) {
                    let low = chars.as_str().get(2..).and_then(unit).unwrap_or_default();
                    chars.nth(5);
                    code = 0x1_0000 + ((high - 0xd800) << 10) + (low.wrapping_sub(0xdc00) & 0x3ff);
                }
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(same) => out.push(same),
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out
}

fn hex_value(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |n, b| Some(n << 4 | char::from(*b).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(text: &str) -> Option<String> {
        check(text.as_bytes(), 8).err().map(|e| e.to_string())
    }

    #[test]
    fn faults_say_where_and_what() {
        for (text, expected) in [
            ("", "byte 0: the text ends where a value is expected"),
            ("{\"a\":1,}", "byte 7: '}' stands where a name in quotes is expected"),
            ("{\"a\" 1}", "byte 5: '1' stands where ':' is expected"),
            ("[1 2]", "byte 3: '2' stands where ',' or ']' is expected"),
            ("01", "byte 1: something follows the value"),
            ("-", "byte 1: the text ends where a digit is expected"),
            ("1.", "byte 2: the text ends where a digit is expected"),
            ("nul", "byte 0: 'n' stands where true, false or null is expected"),
            ("\"a\nb\"", "byte 2: a control character must be escaped inside a string"),
            ("\"\\x\"", "byte 1: not an escape sequence"),
            ("\"\\ud800\"", "byte 1: half of a surrogate pair is not a character"),
            ("\"\\udc00\"", "byte 1: half of a surrogate pair is not a character"),
            ("\"\\ud800\\u0041\"", "byte 1: half of a surrogate pair is not a character"),
            ("{\"a\":1,\"a\":2}", "byte 7: the name \"a\" stands twice in one object"),
            ("{\"a\":1,\"\\u0061\":2}", "byte 7: the name \"a\" stands twice in one object"),
            ("{\"\\u0061\":1,\"a\":2}", "byte 12: the name \"a\" stands twice in one object"),
            ("[[[[[[[[[1]]]]]]]]]", "byte 8: nested deeper than 8 levels"),
            ("\u{feff}1", "byte 0: '\\u{feff}' stands where a value is expected"),
            ("{}{}", "byte 2: something follows the value"),
        ] {
            assert_eq!(fault(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(check(b"\"\xff\"", 8).map_err(|e| e.to_string()), Err("byte 1: not UTF-8".to_string()));
        for good in ["[[[[[[[[1]]]]]]]]", " { \"a\" : [ ] , \"b\":{} } ", "-0.5e+7", "\"\\ud83d\\ude00\""] {
            assert_eq!(fault(good), None, "{good}");
        }
    }

    #[test]
    fn a_duplicate_among_many_names_is_found() {
        let names: Vec<String> = (0..40).map(|i| format!("\"k{i}\":{i}")).collect();
        assert_eq!(fault(&format!("{{{}}}", names.join(","))), None);
        for i in [0, 11, 12, 39] {
            let text = format!("{{{},\"\\u006b{i}\":0}}", names.join(","));
            assert!(fault(&text).is_some_and(|f| f.contains("stands twice")), "{i}");
        }
    }

    #[test]
    fn values_are_found_by_path() {
        let text = r#"{"a":{"b\n":[1,{"c":2}]},"d":"x"}"#;
        assert_eq!(get(text, &["a", "b\n"]), Some(r#"[1,{"c":2}]"#));
        assert_eq!(get(text, &["d"]).and_then(decode).as_deref(), Some("x"));
        assert_eq!(get(text, &["a", "x"]), None);
    }

    /// JSON texts with white space, escapes and all kinds of values.
    fn json_text() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_string()),
            Just("true".to_string()),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(|f| f.to_string()),
            any::<String>().prop_map(|s| quote(&s)),
            "[a-z]{0,12}"
                .prop_map(|s| s.chars().map(|c| format!("\\u{:04x}", c as u32)).collect())
                .prop_map(|s: String| format!("\"{s}\"")),
        ];
        leaf.prop_recursive(4, 24, 6, |inner| {
            let member = ("[a-c]{1,2}", inner.clone()).prop_map(|(k, v)| format!(" {} :\t{v}", quote(&k)));
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(|v| format!("[{}]", v.join(" ,\n"))),
                prop::collection::vec(member, 0..4).prop_map(|v| format!("{{{}}}", v.join(","))),
            ]
        })
    }

    fn ours_only(e: &JsonError) -> bool {
        matches!(e.fault, JsonFault::Duplicate(_) | JsonFault::Depth(_) | JsonFault::LoneSurrogate)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn agrees_with_serde_json_on_json(text in json_text()) {
            match check(text.as_bytes(), 128) {
                Ok(_) => prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok()),
                Err(e) => prop_assert!(ours_only(&e), "{e}"),
            }
        }

        #[test]
        fn agrees_with_serde_json_on_broken_json(text in json_text(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let theirs = serde_json::from_slice::<serde_json::Value>(&bytes);
            match check(&bytes, 128) {
                Ok(_) => prop_assert!(theirs.is_ok() || theirs.is_err_and(|e| e.to_string().contains("out of range"))),
                Err(e) => prop_assert!(ours_only(&e) || theirs.is_err(), "{e}"),
            }
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = check(&bytes, 8);
        }

        #[test]
        fn strings_go_both_ways(text in any::<String>()) {
            let quoted = quote(&text);
            prop_assert_eq!(decode(&quoted), Some(Cow::from(&*text)));
            prop_assert_eq!(serde_json::from_str::<String>(&quoted).ok(), Some(text.clone()));
            let escaped: String = text.encode_utf16().map(|u| format!("\\u{u:04x}")).collect();
            let escaped = format!("\"{escaped}\"");
            prop_assert_eq!(decode(&escaped), Some(Cow::from(&*text)));
        }
    }
}
