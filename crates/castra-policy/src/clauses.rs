//! Takes the conditions of a policy apart, so that an explanation can say which part was not so.
//! Works on the author's text, because Cedar's own print of an expression is hard to read; a part
//! that Cedar does not read back as an expression is joined with its neighbours again.

use std::str::FromStr;

use cedar_policy::Expression;

use crate::{
    reads::{self, Path},
    tokens::{Token, space_and_comments, string_length, tokens},
};

/// One part of a `when` or `unless`; all parts of a policy have to be as it says.
#[derive(Debug)]
pub(crate) struct Clause {
    /// `when`, else `unless`.
    pub(crate) when: bool,
    pub(crate) text: String,
    pub(crate) expression: Expression,
    /// What it reads, each as an expression.
    pub(crate) facts: Vec<Fact>,
}

/// An attribute that a clause reads.
#[derive(Debug)]
pub(crate) struct Fact {
    pub(crate) text: String,
    pub(crate) expression: Expression,
    /// It holds data of the caller, which has no place in records.
    pub(crate) private: bool,
    /// Only its presence is asked for.
    pub(crate) presence: bool,
}

/// Facts that are shown of one clause.
const FACTS_MAX: usize = 8;

impl Clause {
    /// The clauses of a policy whose text stands at the start of `text`.
    pub(crate) fn of(text: &str) -> Box<[Self]> {
        let mut clauses = Vec::new();
        for (when, body) in conditions(text) {
            let parts = if when { conjuncts(body) } else { vec![body] };
            let parsed: Option<Vec<_>> = parts.iter().map(|part| Self::parse(when, part)).collect();
            let whole = || Self::parse(when, body).into_iter().collect();
            clauses.extend(parsed.unwrap_or_else(whole));
        }
        clauses.into()
    }

    fn parse(when: bool, text: &str) -> Option<Self> {
        let text = one_line(text);
        let expression = Expression::from_str(&text).ok()?;
        let mut paths = reads::paths(&text);
        paths.retain(|path| !path.attributes.is_empty());
        paths.sort();
        paths.dedup();
        let facts = paths.iter().take(FACTS_MAX).filter_map(Fact::of).collect();
        Some(Self { when, text, expression, facts })
    }
}

impl Fact {
    fn of(path: &Path) -> Option<Self> {
        let first = path.attributes.first().map(String::as_str);
        let (last, before) = path.attributes.split_last()?;
        let full = written(&path.root, &path.attributes);
        let question = format!("{} has {}", written(&path.root, before), crate::schema::quoted(last));
        Some(Self {
            expression: Expression::from_str(if path.whole { &full } else { &question }).ok()?,
            text: full,
            private: path.root == "context" && matches!(first, Some("args" | "call")),
            presence: !path.whole,
        })
    }
}

fn written(root: &str, attributes: &[String]) -> String {
    attributes.iter().fold(root.to_owned(), |mut text, name| {
        let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !KEYWORDS.contains(&name.as_str());
        if plain {
            text.push('.');
            text.push_str(name);
        } else {
            text.push('[');
            text.push_str(&crate::schema::quoted(name));
            text.push(']');
        }
        text
    })
}

/// Words that Cedar's grammar keeps for itself.
const KEYWORDS: [&str; 10] = ["true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"];

/// `when` (true) and `unless` (false) with what stands in their braces.
fn conditions(text: &str) -> Vec<(bool, &str)> {
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut word = "";
    let mut open: Option<(bool, usize)> = None;
    for (at, token) in tokens(text) {
        match token {
            Token::Open(_) => {
                if depth == 0 && matches!(word, "when" | "unless") && text.get(at..=at) == Some("{") {
                    open = Some((word == "when", at + 1));
                }
                depth += 1;
            }
            Token::Close(_) => {
                depth = depth.saturating_sub(1);
                if let (0, Some((when, from))) = (depth, open) {
                    found.extend(text.get(from..at).map(|body| (when, body.trim())));
                    open = None;
                }
            }
            Token::Word(text) if depth == 0 => word = text,
            Token::Other(';') if depth == 0 => break,
            _ => {}
        }
    }
    found
}

/// The parts of `a && b && c`; one part when it is anything else.
fn conjuncts(body: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut from) = (0_usize, 0);
    for (at, token) in tokens(body) {
        match token {
            Token::Open(_) => depth += 1,
            Token::Close(_) => depth = depth.saturating_sub(1),
            Token::Or | Token::Word("if") if depth == 0 => return vec![body],
            Token::And if depth == 0 => {
                parts.extend(body.get(from..at).map(str::trim));
                from = at + 2;
            }
            _ => {}
        }
    }
    parts.extend(body.get(from..).map(str::trim));
    parts
}

/// The text without comments and line breaks, for use in a sentence.
fn one_line(text: &str) -> String {
    let mut out = String::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let space = space_and_comments(rest);
        if space > 0 {
            at += space;
            if !out.is_empty() && at < text.len() {
                out.push(' ');
            }
            continue;
        }
        let length = if rest.starts_with('"') {
            string_length(rest)
        } else {
            rest.chars().next().map_or(1, char::len_utf8)
        };
        out.push_str(rest.get(..length).unwrap_or_default());
        at += length;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        Clause::of(text)
            .iter()
            .map(|c| format!("{} {}", if c.when { "when" } else { "unless" }, c.text))
            .collect()
    }

    #[test]
    fn conditions_are_taken_apart() {
        let cases: [(&str, &[&str]); 7] = [
            ("permit (principal, action, resource);permit(a) when {true};", &[]),
            (
                "@when(\"x\") permit (principal, action, resource) when { true && context.time.hour < 18 };",
                &["when true", "when context.time.hour < 18"],
            ),
            (
                "permit (principal, action, resource) when { context.run == \"a && }\\\"b\" // && no\n && 1 == 1 } unless { false && true };",
                &["when context.run == \"a && }\\\"b\"", "when 1 == 1", "unless false && true"],
            ),
            (
                "permit (principal, action, resource) when { true && (false || true) };",
                &["when true", "when (false || true)"],
            ),
            (
                "permit (principal, action, resource) when { true && false || true };",
                &["when true && false || true"],
            ),
            (
                "permit (principal, action, resource) when { if true then true && true else false };",
                &["when if true then true && true else false"],
            ),
            (
                "permit (principal, action, resource) when\n{\n  // why\n  [1,\n   2].contains(1)\n};",
                &["when [1, 2].contains(1)"],
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn facts_are_what_a_clause_reads() {
        let clauses = Clause::of(
            "forbid (principal, action, resource) when { context.args has \"a-b\" && context.args[\"a-b\"] == resource.server.name };",
        );
        let facts = |i: usize| {
            clauses[i].facts.iter().map(|f| (f.text.as_str(), f.private, f.presence)).collect::<Vec<_>>()
        };
        assert_eq!(facts(0), [("context.args[\"a-b\"]", true, true)]);
        assert_eq!(
            facts(1),
            [("context.args[\"a-b\"]", true, false), ("resource.server.name", false, false)]
        );
    }
}
