//! JSON with comments and trailing commas, as MCP clients write it: read into a tree that knows where
//! each thing stands, so that a change is a splice of bytes and everything else stays as it is.

use std::ops::Range;

/// Deepest nesting that is read.
const DEPTH_MAX: usize = 64;

/// A value with its place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) span: Range<usize>,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Object(Vec<Member>),
    Array(Vec<Node>),
    String(String),
    Bool(bool),
    Number(serde_json::Number),
    Null,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) key: String,
    pub(crate) key_span: Range<usize>,
    pub(crate) value: Node,
    /// Where the comma after it is, if there is one.
    pub(crate) comma: Option<usize>,
}

impl Node {
    pub(crate) fn members(&self) -> &[Member] {
        match &self.kind {
            Kind::Object(members) => members,
            _ => &[],
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.members().iter().find(|m| m.key == key).map(|m| &m.value)
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value at a path of keys.
    pub(crate) fn at(&self, path: &[String]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }
}

/// Why a text was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(crate) struct JsonError {
    pub(crate) line: usize,
    pub(crate) what: &'static str,
}

/// Reads a whole text; a byte order mark before it is skipped, and counted in the spans.
pub(crate) fn parse(text: &str) -> Result<Node, JsonError> {
    let mut reader = Reader { text, at: 0 };
    if text.starts_with('\u{feff}') {
        reader.at = '\u{feff}'.len_utf8();
    }
    let node = reader.value(0)?;
    reader.blanks()?;
    if reader.peek().is_some() { Err(reader.error("something follows after the value")) } else { Ok(node) }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn error(&self, what: &'static str) -> JsonError {
        let line = self.text.bytes().take(self.at).filter(|b| *b == b'\n').count() + 1;
        JsonError { line, what }
    }

    /// Skips white space and comments.
    fn blanks(&mut self) -> Result<(), JsonError> {
        loop {
            let rest = self.rest();
            if rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                let Some(end) = rest.find("*/") else { return Err(self.error("a comment is not closed")) };
                // `/*/` opens and does not close.
                let end = if end == 1 {
                    rest.get(2..).and_then(|r| r.find("*/")).map(|e| e + 2)
                } else {
                    Some(end)
                };
                let Some(end) = end else { return Err(self.error("a comment is not closed")) };
                self.at += end + 2;
            } else if matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
                self.at += 1;
            } else {
                return Ok(());
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node, JsonError> {
        if depth > DEPTH_MAX {
            return Err(self.error("the nesting is too deep"));
        }
        self.blanks()?;
        let start = self.at;
        let kind = match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Kind::String(self.string()?),
            Some(_) => self.word()?,
            None => return Err(self.error("a value is missing")),
        };
        Ok(Node { span: start..self.at, kind })
    }

    fn object(&mut self, depth: usize) -> Result<Kind, JsonError> {
        self.at += 1;
        let mut members: Vec<Member> = Vec::new();
        loop {
            self.blanks()?;
            if self.eat(b'}') {
                return Ok(Kind::Object(members));
            }
            if members.last().is_some_and(|m| m.comma.is_none()) {
                return Err(self.error("a comma or } is missing"));
            }
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.error("a key in quotes is missing"));
            }
            let key = self.string()?;
            let key_span = start..self.at;
            if members.iter().any(|m| m.key == key) {
                return Err(self.error("a key stands twice in one object"));
            }
            self.blanks()?;
            if !self.eat(b':') {
                return Err(self.error("a colon is missing"));
            }
            let value = self.value(depth + 1)?;
            self.blanks()?;
            let comma = self.eat(b',').then(|| self.at - 1);
            members.push(Member { key, key_span, value, comma });
        }
    }

    fn array(&mut self, depth: usize) -> Result<Kind, JsonError> {
        self.at += 1;
        let mut items = Vec::new();
        let mut separated = true;
        loop {
            self.blanks()?;
            if self.eat(b']') {
                return Ok(Kind::Array(items));
            }
            if !separated {
                return Err(self.error("a comma or ] is missing"));
            }
            items.push(self.value(depth + 1)?);
            self.blanks()?;
            separated = self.eat(b',');
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// A string; serde_json decodes and checks it once its end is found.
    fn string(&mut self) -> Result<String, JsonError> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'\\') => self.at += 2,
                Some(b'"') => {
                    self.at += 1;
                    break;
                }
                Some(b'\n') | None => return Err(self.error("a text is not closed")),
                Some(_) => self.at += 1,
            }
        }
        let raw = self.text.get(start..self.at).unwrap_or_default();
        serde_json::from_str(raw).map_err(|_| self.error("a text has a bad escape"))
    }

    fn word(&mut self) -> Result<Kind, JsonError> {
        let rest = self.rest();
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))).unwrap_or(rest.len());
        let word = rest.get(..end).unwrap_or_default();
        let kind = match serde_json::from_str(word) {
            Ok(serde_json::Value::Bool(b)) => Kind::Bool(b),
            Ok(serde_json::Value::Number(n)) => Kind::Number(n),
            Ok(serde_json::Value::Null) => Kind::Null,
            _ => return Err(self.error("this is no value")),
        };
        self.at += end;
        Ok(kind)
    }
}

/// A change of bytes: what stands in the span becomes the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Splice {
    pub(crate) span: Range<usize>,
    pub(crate) text: String,
}

/// Makes the changes; they must not overlap.
pub(crate) fn apply(text: &str, mut splices: Vec<Splice>) -> String {
    splices.sort_by_key(|s| (s.span.start, s.span.end));
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for splice in splices {
        out.push_str(text.get(at..splice.span.start).unwrap_or_default());
        out.push_str(&splice.text);
        at = at.max(splice.span.end);
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

/// What becomes of an object's members: `replace` has a key with the members (key and value, as JSON
/// text) that stand in its place, `remove` the keys that go. All other bytes stay.
pub(crate) fn rewrite_members(
    text: &str,
    object: &Node,
    replace: (&str, &[(&str, String)]),
    remove: impl Fn(&str) -> bool,
) -> Vec<Splice> {
    let members = object.members();
    let goes = |m: &Member| m.key != replace.0 && remove(&m.key);
    let mut splices = Vec::new();
    for member in members.iter().filter(|m| m.key == replace.0) {
        let separator = gap_before(text, object, member);
        let new: Vec<String> = replace.1.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
        let span = member.key_span.start..member.value.span.end;
        splices.push(Splice { span, text: new.join(&format!(",{separator}")) });
    }
    for (i, member) in members.iter().enumerate().filter(|(_, m)| goes(m)) {
        let more_stay = members.iter().skip(i + 1).any(|m| !goes(m));
        // The comma goes with the member. When nothing that stays follows, the comma before goes
        // instead, unless the object ends in a comma anyway.
        if let Some(comma) = member.comma {
            splices.push(Splice { span: comma..comma + 1, text: String::new() });
        }
        let ended_in_comma = members.last().is_some_and(|m| m.comma.is_some());
        let before = i.checked_sub(1).and_then(|b| members.get(b)).filter(|b| !goes(b));
        if let (false, false, Some(comma)) = (more_stay, ended_in_comma, before.and_then(|b| b.comma)) {
            splices.push(Splice { span: comma..comma + 1, text: String::new() });
        }
        let span = member.key_span.start..member.value.span.end;
        splices.push(Splice { span: whole_lines(text, span, member.comma), text: String::new() });
    }
    merged(splices)
}

/// The white space between a member and what stands before it: a line break with indentation, or a space.
fn gap_before(text: &str, object: &Node, member: &Member) -> String {
    let before = text.get(object.span.start..member.key_span.start).unwrap_or_default();
    match before.rfind('\n') {
        Some(line) => {
            let line_end = if before.get(..line).is_some_and(|b| b.ends_with('\r')) { "\r\n" } else { "\n" };
            let indent = before.get(line + 1..).unwrap_or_default();
            let blank: String = indent.chars().take_while(|c| *c == ' ' || *c == '\t').collect();
            format!("{line_end}{blank}")
        }
        None => " ".into(),
    }
}

/// Widens a span to the whole lines it stands on if nothing else (but its comma) stands on them.
fn whole_lines(text: &str, span: Range<usize>, comma: Option<usize>) -> Range<usize> {
    let start = text.get(..span.start).and_then(|t| t.rfind('\n')).map_or(0, |n| n + 1);
    let blank = |t: Option<&str>| t.is_some_and(|t| t.bytes().all(|b| matches!(b, b' ' | b'\t' | b'\r')));
    let after = comma.map_or(span.end, |c| c + 1);
    let end = text.get(after..).and_then(|t| t.find('\n')).map(|n| after + n);
    let between = comma.is_none_or(|c| blank(text.get(span.end..c)));
    match end {
        Some(end)
            if start > 0 && blank(text.get(start..span.start)) && blank(text.get(after..end)) && between =>
        {
            start..end + 1
        }
        // On a line with others: take one of the two spaces around it along.
        _ if comma.is_some() && between && blank(text.get(after..after + 1)) => span.start..after + 1,
        _ => span,
    }
}

/// Joins changes that overlap.
pub(crate) fn merged(mut splices: Vec<Splice>) -> Vec<Splice> {
    splices.sort_by_key(|s| (s.span.start, std::cmp::Reverse(s.span.end)));
    let mut out: Vec<Splice> = Vec::new();
    for splice in splices {
        match out.last_mut() {
            Some(last) if splice.span.start < last.span.end => {
                last.span.end = last.span.end.max(splice.span.end);
                last.text.push_str(&splice.text);
            }
            _ => out.push(splice),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> String {
        let node = parse(text).unwrap();
        let new = [("command", "\"castra\"".to_owned()), ("args", "[\"connect\"]".to_owned())];
        let splices =
            rewrite_members(text, &node, ("command", &new), |k| matches!(k, "args" | "env" | "cwd"));
        let out = apply(text, splices);
        let read = parse(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
        assert_eq!(read.get("command").and_then(Node::as_str), Some("castra"));
        assert!(read.get("env").is_none() && read.get("cwd").is_none());
        out
    }

    #[test]
    fn members_are_replaced_in_place() {
        let cases = [
            ("{\"command\":\"a\"}", "{\"command\": \"castra\", \"args\": [\"connect\"]}"),
            (
                "{\n  // why\n  \"command\": \"a\", // what\n  \"args\": [\n    \"b\"\n  ],\n  \"env\": {\"K\": \"s\"}, // secret\n  // next\n  \"timeout\": 5\n}",
                "{\n  // why\n  \"command\": \"castra\",\n  \"args\": [\"connect\"], // what\n  // secret\n  // next\n  \"timeout\": 5\n}",
            ),
            (
                "{\r\n\t\"command\": \"a\",\r\n\t\"env\": {}\r\n}",
                "{\r\n\t\"command\": \"castra\",\r\n\t\"args\": [\"connect\"]\r\n}",
            ),
            (
                "{ \"env\": {}, \"command\": \"a\", \"cwd\": \"/\", }",
                "{ \"command\": \"castra\", \"args\": [\"connect\"], }",
            ),
            (
                "{\"command\": \"a\", \"args\": [], \"env\": {}, \"x\": 1}",
                "{\"command\": \"castra\", \"args\": [\"connect\"], \"x\": 1}",
            ),
            (
                "{\"command\": \"a\", \"args\": [], \"env\": {}}",
                "{\"command\": \"castra\", \"args\": [\"connect\"] }",
            ),
        ];
        for (before, after) in cases {
            assert_eq!(rewritten(before), after, "{before}");
        }
    }

    #[test]
    fn bad_text_is_refused_with_its_line() {
        for (text, what) in [
            ("", "a value is missing"),
            ("{", "a key in quotes is missing"),
            ("{\"a\" 1}", "a colon is missing"),
            ("{\"a\": 1 \"b\": 2}", "a comma or } is missing"),
            ("{\"a\": 1, \"a\": 2}", "a key stands twice in one object"),
            ("[1 2]", "a comma or ] is missing"),
            ("{} x", "something follows after the value"),
            ("\"a", "a text is not closed"),
            ("\"\\x\"", "a text has a bad escape"),
            ("/*/", "a comment is not closed"),
            ("nul", "this is no value"),
        ] {
            assert_eq!(parse(text).unwrap_err().what, what, "{text}");
        }
        assert_eq!(parse("{\n\n x}").unwrap_err().line, 3);
        assert!(parse(&"[".repeat(100)).is_err());
        assert!(parse("\u{feff}// c\n{\"a\": [1, true, null, /* */ \"x\",],}").is_ok());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]{}\",:/*a \\\\\n0-9é-]{0,40}") {
            if let Ok(node) = parse(&text) {
                proptest::prop_assert!(text.get(node.span).is_some());
            }
        }
    }
}
