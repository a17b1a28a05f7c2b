//! What the demo shows, line by line: plain words, with colour only where a terminal reads them.

use std::{fmt::Display, io};

use crate::DemoError;

/// Widest line; longer ones go on in the next.
const WIDTH: usize = 100;
/// How far details are indented.
const INDENT: usize = 11;

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const RED: &str = "31";

/// Where the demo is shown.
pub(crate) struct Screen<'a> {
    out: &'a mut (dyn io::Write + Send),
    colour: bool,
    chapters: u32,
}

impl<'a> Screen<'a> {
    pub(crate) fn new(out: &'a mut (dyn io::Write + Send), colour: bool) -> Self {
        Self { out, colour, chapters: 0 }
    }

    /// The title of the whole.
    pub(crate) fn title(&mut self, text: &str) -> Result<(), DemoError> {
        let text = self.paint(BOLD, text);
        self.line(text)
    }

    /// Begins a numbered chapter.
    pub(crate) fn chapter(&mut self, text: &str) -> Result<(), DemoError> {
        self.chapters += 1;
        let text = self.paint(BOLD, &format!("{}. {text}", self.chapters));
        self.line("")?;
        self.line(text)
    }

    /// A sentence of explanation.
    pub(crate) fn say(&mut self, text: impl Display) -> Result<(), DemoError> {
        self.line(format!("   {text}"))
    }

    /// A command, as one would type it.
    pub(crate) fn command(&mut self, text: impl Display) -> Result<(), DemoError> {
        let text = self.paint(DIM, &format!("$ {text}"));
        self.say(text)
    }

    /// Something that happened.
    pub(crate) fn passed(&mut self, what: &str, detail: &str) -> Result<(), DemoError> {
        self.marked(GREEN, "passed ", what, detail)
    }

    /// Something that did not happen, and why.
    pub(crate) fn refused(&mut self, what: &str, detail: &str) -> Result<(), DemoError> {
        self.marked(RED, "refused", what, detail)
    }

    /// Lines that belong to what was shown before, quieter.
    pub(crate) fn detail(&mut self, text: &str) -> Result<(), DemoError> {
        for line in text.lines().flat_map(|line| wrapped(line, WIDTH - INDENT)) {
            let line = self.paint(DIM, &line);
            self.line(format!("{:INDENT$}{line}", ""))?;
        }
        Ok(())
    }

    /// A table of a command: lines keep their columns and are cut at the edge.
    pub(crate) fn table(&mut self, text: &str) -> Result<(), DemoError> {
        for line in text.lines() {
            let line: String = line.chars().take(WIDTH - INDENT).collect();
            let line = self.paint(DIM, line.trim_end());
            self.line(format!("{:INDENT$}{line}", ""))?;
        }
        Ok(())
    }

    fn marked(&mut self, colour: &str, mark: &str, what: &str, detail: &str) -> Result<(), DemoError> {
        let mark = self.paint(colour, mark);
        self.line(format!("   {mark} {what}"))?;
        self.detail(detail)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn line(&mut self, text: impl Display) -> Result<(), DemoError> {
        writeln!(self.out, "{text}").and_then(|()| self.out.flush()).map_err(DemoError::Screen)
    }
}

/// Breaks a line between words; one that fits stays as it is.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    if line.chars().count() <= width {
        return vec![line.trim_end().to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in line.split_whitespace() {
        match lines.last_mut() {
            Some(last) if last.is_empty() => last.push_str(word),
            Some(last) if last.chars().count() + 1 + word.chars().count() <= width => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_it_is_plain() {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, false);
        screen.chapter("A chapter").expect("written");
        screen.refused("a call", "because").expect("written");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "\n1. A chapter\n   refused a call\n           because\n"
        );
    }

    #[test]
    fn long_lines_are_broken_between_words() {
        assert_eq!(wrapped("a  b", 4), ["a  b"]);
        assert_eq!(wrapped("äöü ß x", 5), ["äöü ß", "x"]);
        assert_eq!(wrapped("unbreakable", 4), ["unbreakable"]);
    }
}
