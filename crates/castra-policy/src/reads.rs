//! What a policy reads of the context, found once at load. Only that is built for a decision, and
//! an argument that is read and cannot be typed denies instead of being silently absent.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

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

    /// What the conditions of a policy in Cedar's JSON form read.
    pub(crate) fn of_policy(policy: &Value) -> Self {
        let mut reads = Self::default();
        for path in policy_paths(policy).iter().filter(|path| path.root == "context") {
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

/// The accesses in the conditions of a policy in Cedar's JSON form.
pub(crate) fn policy_paths(policy: &Value) -> Vec<Path> {
    let conditions = policy.get("conditions").and_then(Value::as_array);
    let bodies = conditions.into_iter().flatten().filter_map(|condition| condition.get("body"));
    bodies.flat_map(paths).collect()
}

/// The accesses in an expression of Cedar's JSON form ("JSON policy format" of the Cedar
/// documentation). Works through a list instead of recursing.
fn paths(expression: &Value) -> Vec<Path> {
    let mut found = Vec::new();
    let mut open = vec![expression];
    while let Some(node) = open.pop() {
        match node {
            Value::Array(items) => open.extend(items),
            Value::Object(node) => step(node, &mut open, &mut found),
            _ => {}
        }
    }
    found
}

fn step<'a>(node: &'a Map<String, Value>, open: &mut Vec<&'a Value>, found: &mut Vec<Path>) {
    for (operator, operand) in node {
        match operator.as_str() {
            "Value" => {}
            // The keys of a record are names and not operators.
            "Record" => open.extend(operand.as_object().into_iter().flat_map(Map::values)),
            "Var" | "." => match access(node) {
                Some((root, attributes)) => found.push(Path { root, attributes, whole: true }),
                None => open.extend(operand.get("left")),
            },
            "has" => match operand.get("left").and_then(Value::as_object).and_then(access) {
                Some((root, mut attributes)) => {
                    attributes.extend(names(operand.get("attr")));
                    found.push(Path { root, attributes, whole: false });
                }
                None => open.extend(operand.get("left")),
            },
            _ => match operand {
                Value::Object(operands) => open.extend(operands.values()),
                other => open.push(other),
            },
        }
    }
}

/// The variable and the attributes of a chain of accesses, if it is one.
fn access(mut node: &Map<String, Value>) -> Option<(String, Vec<String>)> {
    let mut attributes = Vec::new();
    loop {
        if let Some(variable) = node.get("Var") {
            attributes.reverse();
            return Some((variable.as_str()?.to_owned(), attributes));
        }
        let dot = node.get(".")?;
        attributes.push(dot.get("attr")?.as_str()?.to_owned());
        node = dot.get("left")?.as_object()?;
    }
}

/// `has` names one attribute, or a path of them.
fn names(attr: Option<&Value>) -> Vec<String> {
    match attr {
        Some(Value::String(name)) => vec![name.clone()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use cedar_policy::Policy;

    use super::*;

    fn reads(condition: &str) -> Vec<String> {
        let policy = format!("permit (principal, action, resource) when {{ {condition} }};");
        let json = Policy::parse(None, policy).unwrap().to_json().unwrap();
        let mut out = Vec::new();
        let reads = Reads::of_policy(&json);
        list(&reads, "context", &mut out);
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
        }
    }
}
