//! Everything that castra prints: results on standard output, in words or as JSON; remarks and errors
//! on standard error. What comes from servers and agents may hold control characters; they are shown
//! escaped, so that a tool's name cannot drive the reader's terminal.

use std::{
    fmt::Display,
    io::{self, Write},
};

use serde::Serialize;

/// How a command ended, as its exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what was asked.
    Done,
    /// It did, and found something to look at; or it was asked in a way that makes no sense.
    Found,
}

/// Why a command failed, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    advice: String,
    usage: bool,
}

impl Failure {
    /// What happened, and why.
    pub(crate) fn new(what: impl Display) -> Self {
        Self { what: what.to_string(), advice: String::new(), usage: false }
    }

    /// The command line makes no sense (exit code 2).
    pub(crate) fn usage(what: impl Display) -> Self {
        Self { usage: true, ..Self::new(what) }
    }

    /// What to do; may be empty.
    pub(crate) fn advice(&self) -> &str {
        &self.advice
    }

    /// Adds what to do.
    pub(crate) fn advise(mut self, advice: impl Display) -> Self {
        self.advice = advice.to_string();
        self
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

/// Any error becomes a failure with the words of the error and of its causes.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut what = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let text = inner.to_string();
            // Some errors already say their cause.
            if !what.contains(&text) {
                what.push_str(": ");
                what.push_str(&text);
            }
            cause = inner.source();
        }
        Self::new(what)
    }
}

pub(crate) type Outcome = Result<Exit, Failure>;

/// Where results go, and in which form.
pub(crate) struct Out {
    json: bool,
    out: Box<dyn Write + Send>,
    gone: bool,
}

impl Out {
    /// Standard output.
    pub(crate) fn new(json: bool) -> Self {
        Self { json, out: Box::new(io::stdout()), gone: false }
    }

    /// Whether results are wanted as JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether nobody reads any more (`castra log tail | head`).
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// A line for people; nothing when JSON is wanted.
    pub(crate) fn line(&mut self, text: impl Display) {
        if !self.json {
            let text = shown(&text.to_string());
            self.put(&format!("{text}\n"));
        }
    }

    /// A result for machines, on one line; nothing otherwise.
    pub(crate) fn value(&mut self, value: &impl Serialize) {
        if !self.json {
            return;
        }
        match serde_json::to_string(value) {
            Ok(text) => self.put(&format!("{text}\n")),
            Err(e) => remark(format!("cannot write the result as JSON: {e}")),
        }
    }

    /// Text that is a file or a document of its own, as it is, in either form.
    pub(crate) fn document(&mut self, text: &str) {
        self.put(text);
    }

    /// Rows under headings, in columns as wide as they need.
    pub(crate) fn table<const N: usize>(&mut self, head: [&str; N], rows: &[[String; N]]) {
        let head = head.map(str::to_owned);
        self.columns(
            std::iter::once(&head)
                .chain(rows)
                .map(|row| row.clone().map(|cell| shown_in_line(&cell)))
                .collect(),
        );
    }

    fn columns<const N: usize>(&mut self, all: Vec<[String; N]>) {
        if self.json {
            return;
        }
        let width = |column: usize| {
            all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: [usize; N] = std::array::from_fn(width);
        for row in &all {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            self.put(&format!("{}\n", line.trim_end()));
        }
    }

    /// Rows without headings.
    pub(crate) fn rows<const N: usize>(&mut self, rows: &[[String; N]]) {
        self.columns(rows.iter().map(|row| row.clone().map(|cell| shown_in_line(&cell))).collect());
    }

    fn put(&mut self, text: &str) {
        if !self.gone && self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).is_err() {
            self.gone = true;
        }
    }
}

/// For a part that tells its own story; its text is for people, so it goes out as it is.
impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A remark on standard error, for people; results never go there.
pub(crate) fn remark(text: impl Display) {
    let text = shown(&text.to_string());
    // Nowhere is left to say that standard error is closed.
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Says why a command failed and gives its exit code.
pub(crate) fn fail(failure: &Failure, json: bool) -> u8 {
    if json {
        let error = serde_json::json!({ "error": { "what": failure.what, "advice": failure.advice } });
        remark(error);
    } else {
        remark(format!("error: {}", failure.what));
        if !failure.advice.is_empty() {
            remark(format!("  {}", failure.advice));
        }
    }
    if failure.usage { 2 } else { 1 }
}

/// A time to the minute, for tables.
pub(crate) fn minute(time: castra_core::Timestamp) -> String {
    let text = time.to_string();
    let date = text.get(..10).unwrap_or_default();
    let clock = text.get(11..16).unwrap_or_default();
    format!("{date} {clock}Z")
}

/// Text with its control characters escaped, except line ends and tabs.
fn shown(text: &str) -> String {
    escape(text, |c| c != '\n' && c != '\t')
}

fn shown_in_line(text: &str) -> String {
    escape(text, |_| true)
}

fn escape(text: &str, also: impl Fn(char) -> bool) -> String {
    // Besides the control characters, those that turn the direction of text around.
    let risky = |c: char| {
        (c.is_control() && also(c)) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if risky(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_driven() {
        assert_eq!(shown("a\x1b[31mb\nc"), "a\\u{1b}[31mb\nc");
        assert_eq!(shown_in_line("a\nb"), "a\\u{a}b");
        assert_eq!(shown("\u{202e}x"), "\\u{202e}x");
    }

    #[test]
    fn failures_tell_causes_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("inner")]
        struct Inner;
        assert_eq!(Failure::from(Outer(Inner)).what, "outer: inner");
    }
}
