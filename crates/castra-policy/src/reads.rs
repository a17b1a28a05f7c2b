//! What a policy reads of the context, found once at load. Only that is built for a decision, and
//! an argument that is read and cannot be typed denies instead of being silently absent.

use std::collections::BTreeMap;

use crate::tokens::{Token, tokens};

/// A tree of attribute names below `context`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Reads {
    /// The value itself is read, not only what is in it or whether it is there.
    pub(crate) whole: bool,
    pub(crate) fields: BTreeMap<String, Reads>,
}

impl Reads {
    /// Everything.
    pub(crate) fn all() -> Self {
        Self { whole: true, fields: BTreeMap::new() }
    }

    /// What a policy reads, by its text.
    pub(crate) fn of_policy(text: &str) -> Self {
        let mut reads = Self::default();
        for path in paths(text).iter().filter(|path| path.root == "context") {
            reads.add(&path.attributes, path.whole);
        }
        reads
    }

    pub(crate) fn join(&mut self, other: &Self) {
        self.whole |= other.whole;
        for (name, below) in &other.fields {
            self.fields.entry(name.clone()).or_default().join(below);
        }
    }

    /// Whether the attribute is read in any way.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        self.fields.get(name)
    }

    /// Whether an attribute at the end of a path has to be built.
    pub(crate) fn needs(&self, path: &[&str]) -> bool {
        let mut node = self;
        for name in path {
            if node.whole {
                return true;
            }
            match node.field(name) {
                Some(below) => node = below,
                None => return false,
            }
        }
        true
    }

    fn add(&mut self, attributes: &[String], whole: bool) {
        let mut node = self;
        for name in attributes {
            node = node.fields.entry(name.clone()).or_default();
        }
        node.whole |= whole;
    }
}

/// An access such as `context.args.path`, or a question such as `context has run` (not whole).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path {
    pub(crate) root: String,
    pub(crate) attributes: Vec<String>,
    pub(crate) whole: bool,
}

/// The accesses to the four variables in an expression or policy that Cedar has parsed. Where the
/// text leaves doubt, the variable or attribute counts as read whole: what is built needlessly costs
/// time, what is missing would be absent for a `has`.
pub(crate) fn paths(text: &str) -> Vec<Path> {
    let tokens: Vec<_> = tokens(text).map(|(_, token)| token).collect();
    let mut found = Vec::new();
    let mut before = None;
    for (i, token) in tokens.iter().enumerate() {
        let named = matches!(before, Some(Token::Other('.' | '@')));
        before = Some(*token);
        match token {
            Token::Word(root) if !named && VARIABLES.contains(root) => {
                found.push(access(root, tokens.get(i + 1..).unwrap_or_default()));
            }
            _ => {}
        }
    }
    found
}

const VARIABLES: [&str; 4] = ["context", "principal", "resource", "action"];

/// Follows `.name`, `["name"]` and a last `has` behind a variable.
fn access(root: &str, mut rest: &[Token<'_>]) -> Path {
    let mut path = Path { root: root.to_owned(), attributes: Vec::new(), whole: true };
    loop {
        rest = match rest {
            // A method such as `.contains(…)` works on the value before it.
            [Token::Other('.'), Token::Word(_), Token::Open('('), ..] => return path,
            [Token::Other('.'), Token::Word(name), rest @ ..] => {
                path.attributes.push((*name).to_owned());
                rest
            }
            [Token::Open('['), Token::Text(name), Token::Close(']'), rest @ ..] if plain(name) => {
                path.attributes.push((*name).to_owned());
                rest
            }
            [Token::Word("has"), Token::Text(name), ..] if plain(name) => {
                path.attributes.push((*name).to_owned());
                path.whole = false;
                return path;
            }
            [Token::Word("has"), Token::Word(name), rest @ ..] => {
                path.attributes.push((*name).to_owned());
                path.whole = false;
                has_more(&mut path, rest);
                return path;
            }
            _ => return path,
        };
    }
}

/// `context has args.path` asks for each step.
fn has_more(path: &mut Path, mut rest: &[Token<'_>]) {
    while let [Token::Other('.'), Token::Word(name), more @ ..] = rest {
        path.attributes.push((*name).to_owned());
        rest = more;
    }
}

/// Without escapes the text between the quotes is the name.
fn plain(text: &str) -> bool {
    !text.contains('\\')
}

#[cfg(test)]
mod tests {
    use cedar_policy::Policy;
    use serde_json::Value;

    use super::*;

    fn policy(condition: &str) -> String {
        format!("@context(\"x\") permit (principal, action, resource) when {{ {condition} }};")
    }

    fn reads(condition: &str) -> Vec<String> {
        let mut out = Vec::new();
        list(&Reads::of_policy(&policy(condition)), "context", &mut out);
        out
    }

    fn list(reads: &Reads, at: &str, out: &mut Vec<String>) {
        if reads.whole {
            out.push(at.to_owned());
        } else if reads.fields.is_empty() && at != "context" {
            out.push(format!("{at}?"));
        }
        for (name, below) in &reads.fields {
            list(below, &format!("{at}.{name}"), out);
        }
    }

    #[test]
    fn finds_what_is_read() {
        for (condition, expected) in [
            ("resource.effect == \"read\"", vec![]),
            ("resource.name == \"context.time\"", vec![]),
            ("context.time.hour < 18", vec!["context.time.hour"]),
            ("context has run && context.run like \"a*\"", vec!["context.run"]),
            ("context has run", vec!["context.run?"]),
            ("context has args.path", vec!["context.args.path?"]),
            ("context has args && context.args has path", vec!["context.args.path?"]),
            ("context.call[\"files/read\"].path == \"x\"", vec!["context.call.files/read.path"]),
            ("context == {}", vec!["context"]),
            ("(if true then context else context).time.hour < 3", vec!["context"]),
            ("{Var: \"context\"}.Var == \"x\"", vec![]),
            ("[context.args].contains({a: 1})", vec!["context.args"]),
            ("context.source.ip.isInRange(ip(\"10.0.0.0/8\"))", vec!["context.source.ip"]),
            ("!(context.args.a > 1) || -context.args.b < 2", vec!["context.args.a", "context.args.b"]),
            ("{a: context.args}.a.path == \"x\"", vec!["context.args"]),
            ("principal in [resource.server] || (context.era is Castra::Tool)", vec!["context.era"]),
        ] {
            assert_eq!(reads(condition), expected, "{condition}");
            // Cedar's own form of the policy is another way to the same answer.
            let json = Policy::parse(None, policy(condition)).unwrap().to_json().unwrap();
            let mut from_json = Reads::default();
            walk(&json["conditions"][0]["body"], &mut from_json);
            assert_eq!(Reads::of_policy(&policy(condition)), from_json, "{condition}");
        }
    }

    #[test]
    fn doubt_counts_as_read() {
        for (condition, expected) in [
            ("{context: 1}.context == 1", vec!["context"]),
            ("context[\"a\\u{72}gs\"].path == \"x\"", vec!["context"]),
            ("(context).time.hour == 1", vec!["context"]),
            ("context // .time\n .args // \"\n [\"path\"] == \"context.run\"", vec!["context.args.path"]),
        ] {
            assert_eq!(reads(condition), expected, "{condition}");
        }
    }

    /// The accesses in Cedar's JSON policy format.
    fn walk(node: &Value, reads: &mut Reads) {
        let Value::Object(map) = node else {
            return node.as_array().into_iter().flatten().for_each(|item| walk(item, reads));
        };
        for (operator, operand) in map {
            match operator.as_str() {
                "Value" => {}
                "Record" => operand.as_object().unwrap().values().for_each(|value| walk(value, reads)),
                "Var" | "." | "has" => match chain(node) {
                    Some((root, names)) if root == "context" => reads.add(&names, operator != "has"),
                    Some(_) => {}
                    None => walk(&operand["left"], reads),
                },
                _ if operand.is_object() => {
                    operand.as_object().unwrap().values().for_each(|value| walk(value, reads))
                }
                _ => walk(operand, reads),
            }
        }
    }

    fn chain(node: &Value) -> Option<(String, Vec<String>)> {
        if let Some(root) = node.get("Var") {
            return Some((root.as_str()?.to_owned(), Vec::new()));
        }
        let step = node.get(".").or_else(|| node.get("has"))?;
        let (root, mut names) = chain(&step["left"])?;
        match &step["attr"] {
            Value::Array(more) => names.extend(more.iter().map(|name| name.as_str().unwrap().to_owned())),
            name => names.push(name.as_str()?.to_owned()),
        }
        Some((root, names))
    }
}
