//! What is wrong with policy sources, and where.

use std::fmt;

use miette::Diagnostic;
use serde::Serialize;

/// One finding about the sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The source's file name.
    pub file: String,
    /// Line from 1.
    pub line: u32,
    /// Column from 1, in characters.
    pub column: u32,
    /// The policy's id, if it is known by then.
    pub policy: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// Why sources were refused. Nothing of them is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyProblems {
    /// What has to be mended, by file and line; not empty.
    pub errors: Vec<Problem>,
    /// What is probably not meant.
    pub warnings: Vec<Problem>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        if let Some(policy) = &self.policy {
            write!(f, " (policy {policy:?})")?;
        }
        if let Some(help) = &self.help {
            write!(f, "; {help}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PolicyProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyProblems {}

/// Problems that are kept of one load; more are counted.
const PROBLEMS_MAX: usize = 1000;

/// Findings in the making, in order of file and place.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Problem>,
    more: usize,
}

impl Findings {
    pub(crate) fn add(&mut self, problem: Problem) {
        if self.list.len() < PROBLEMS_MAX {
            self.list.push(problem);
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= PROBLEMS_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn finish(mut self) -> Vec<Problem> {
        self.list.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        self.list.dedup();
        if let (Some(last), true) = (self.list.last_mut(), self.more > 0) {
            last.message = format!("{} (and {} more problems)", last.message, self.more);
        }
        self.list
    }
}

/// A place in a source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) file: &'a str,
    pub(crate) text: &'a str,
}

/// A byte offset whose line is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) offset: usize,
    pub(crate) line: u32,
}

impl Mark {
    /// Where a text begins.
    pub(crate) const START: Self = Self { offset: 0, line: 1 };
}

impl Place<'_> {
    /// A problem at a byte offset.
    pub(crate) fn problem(&self, offset: usize, message: impl Into<String>) -> Problem {
        self.problem_near(Mark::START, offset, message)
    }

    /// A problem at a byte offset near a mark: with thousands of problems in one file, counting
    /// lines from the top for each would take longer than everything else.
    pub(crate) fn problem_near(&self, mark: Mark, offset: usize, message: impl Into<String>) -> Problem {
        let (line, column) = line_and_column(self.text, mark, offset);
        Problem {
            file: self.file.to_owned(),
            line,
            column,
            policy: None,
            message: message.into(),
            help: None,
        }
    }

    /// A problem as Cedar tells it: at its first label, else at the mark.
    pub(crate) fn diagnostic(&self, diagnostic: &dyn Diagnostic, mark: Mark) -> Problem {
        let label = diagnostic.labels().and_then(|mut labels| labels.next());
        let at = label.as_ref().map_or(mark.offset, |label| label.offset());
        let mut problem = self.problem_near(mark, at, without_id(&diagnostic.to_string()));
        problem.help = diagnostic.help().map(|help| without_id(&help.to_string()));
        problem
    }
}

impl Problem {
    pub(crate) fn of_policy(mut self, id: &str) -> Self {
        self.policy = Some(id.to_owned());
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Line and column of a byte offset, both from 1; the end for an offset behind the text.
fn line_and_column(text: &str, mark: Mark, offset: usize) -> (u32, u32) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mark = if mark.offset <= end { mark } else { Mark::START };
    let between = text.get(mark.offset..end).unwrap_or_default();
    let lines = between.bytes().filter(|b| *b == b'\n').count();
    let before = text.get(..end).unwrap_or_default();
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    (mark.line.saturating_add(number(lines)), number(column))
}

/// Cedar repeats the policy's id in front, which a [`Problem`] has as a field.
fn without_id(message: &str) -> String {
    match message.strip_prefix("for policy `").and_then(|rest| rest.split_once("`, ")) {
        Some((_, rest)) => rest.to_owned(),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_mark_anywhere_gives_the_same_place(text in "[aé\n]{0,30}", at in 0_usize..40, mark in 0_usize..40) {
            let from_top = line_and_column(&text, Mark::START, at);
            let offset = (0..=mark.min(text.len())).rfind(|n| text.is_char_boundary(*n)).unwrap_or(0);
            let (line, _) = line_and_column(&text, Mark::START, offset);
            prop_assert_eq!(line_and_column(&text, Mark { offset, line }, at), from_top);
        }
    }
}
