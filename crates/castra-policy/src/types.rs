//! From JSON Schema to Cedar types. Input schemas come from servers and are hostile: everything is
//! bounded, and what cannot be typed exactly is left out, so that no policy can rely on it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The type of an argument, as far as Cedar can hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ArgumentType {
    String,
    Long,
    Bool,
    Decimal,
    Set(Box<ArgumentType>),
    Record(Fields),
}

impl ArgumentType {
    /// What a value of it is called in a sentence.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Long => "an integer",
            Self::Bool => "a boolean",
            Self::Decimal => "a number with at most four decimal places",
            Self::Set(_) => "an array",
            Self::Record(_) => "an object",
        }
    }
}

/// The attributes of a record; `None` for a name that exists and cannot be typed.
pub(crate) type Fields = BTreeMap<String, Option<Field>>;

/// One attribute of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) kind: ArgumentType,
    /// Always there and never null.
    pub(crate) required: bool,
}

/// The arguments of one tool.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ToolTypes {
    pub(crate) fields: Fields,
}

impl ToolTypes {
    /// Types what can be typed of a tool's input schema. Never fails.
    pub(crate) fn of(schema: &Value, budget: &mut Budget) -> Self {
        budget.left_of_tool = ATTRIBUTES_PER_TOOL_MAX;
        let fields = schema.as_object().map(|schema| record(schema, budget, 0)).unwrap_or_default();
        Self { fields }
    }
}

/// Argument names over all tools: typed where all tools that have the name agree, else `None`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ArgumentTypes(pub(crate) BTreeMap<String, Option<ArgumentType>>);

impl ArgumentTypes {
    pub(crate) fn join(&mut self, tool: &ToolTypes) {
        for (name, field) in &tool.fields {
            let kind = field.as_ref().map(|field| &field.kind);
            match self.0.get_mut(name) {
                None => {
                    self.0.insert(name.clone(), kind.cloned());
                }
                Some(known) if known.as_ref() == kind => {}
                Some(known) => *known = None,
            }
        }
    }
}

/// How many attributes may still be typed.
#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
    left_of_tool: usize,
}

/// Validation time grows with the schema, and one server must not use up what others need.
const ATTRIBUTES_MAX: usize = 50_000;
const ATTRIBUTES_PER_TOOL_MAX: usize = 256;
/// Objects and arrays within each other. Deeper than that no policy is readable.
const DEPTH_MAX: usize = 4;
/// Argument names become attribute names in messages.
const NAME_BYTES_MAX: usize = 128;
/// Names beyond this count are not even remembered as untyped.
const NAMES_MAX: usize = 4096;

impl Default for Budget {
    fn default() -> Self {
        Self { left: ATTRIBUTES_MAX, left_of_tool: ATTRIBUTES_PER_TOOL_MAX }
    }
}

impl Budget {
    fn take(&mut self) -> bool {
        let some = self.left > 0 && self.left_of_tool > 0;
        if some {
            self.left -= 1;
            self.left_of_tool -= 1;
        }
        some
    }
}

fn record(schema: &Map<String, Value>, budget: &mut Budget, depth: usize) -> Fields {
    let required: Vec<&str> = match schema.get("required") {
        Some(Value::Array(names)) => names.iter().take(NAMES_MAX).filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let Some(Value::Object(properties)) = schema.get("properties") else { return Fields::new() };
    let mut fields = Fields::new();
    for (name, property) in properties.iter().take(NAMES_MAX) {
        if name.len() > NAME_BYTES_MAX {
            continue;
        }
        let typed = match typed(property, budget, depth) {
            Some((kind, nullable)) if budget.take() => {
                Some(Field { kind, required: !nullable && required.contains(&name.as_str()) })
            }
            _ => None,
        };
        fields.insert(name.clone(), typed);
    }
    fields
}

/// The type of a schema and whether it also admits null.
fn typed(schema: &Value, budget: &mut Budget, depth: usize) -> Option<(ArgumentType, bool)> {
    let schema = schema.as_object()?;
    if depth >= DEPTH_MAX || schema.contains_key("$ref") || schema.contains_key("$dynamicRef") {
        return None;
    }
    let (kind, nullable) = match schema.get("type") {
        Some(Value::String(kind)) => (kind.as_str(), false),
        Some(Value::Array(kinds)) => (other_than_null(kinds)?, kinds.len() == 2),
        Some(_) => return None,
        None => return untyped(schema, budget, depth),
    };
    let kind = match kind {
        "string" => ArgumentType::String,
        "integer" => ArgumentType::Long,
        "boolean" => ArgumentType::Bool,
        "number" => ArgumentType::Decimal,
        "array" => {
            if schema.contains_key("prefixItems") {
                return None;
            }
            let (item, null) = typed(schema.get("items")?, budget, depth + 1)?;
            if null {
                return None;
            }
            ArgumentType::Set(Box::new(item))
        }
        "object" => {
            let fields = record(schema, budget, depth + 1);
            if fields.values().all(Option::is_none) {
                return None;
            }
            ArgumentType::Record(fields)
        }
        _ => return None,
    };
    Some((kind, nullable))
}

/// Without `type`: an enumeration of strings, or "X or null" as an alternative of two.
fn untyped(schema: &Map<String, Value>, budget: &mut Budget, depth: usize) -> Option<(ArgumentType, bool)> {
    match (schema.get("enum"), schema.get("const")) {
        (Some(Value::Array(values)), None) if !values.is_empty() => {
            let nullable = values.iter().any(Value::is_null);
            let strings =
                values.iter().all(|v| v.is_string() || v.is_null()) && !values.iter().all(Value::is_null);
            return strings.then_some((ArgumentType::String, nullable));
        }
        (None, Some(Value::String(_))) => return Some((ArgumentType::String, false)),
        (None, None) => {}
        _ => return None,
    }
    let alternatives = match (schema.get("anyOf"), schema.get("oneOf"), schema.get("allOf")) {
        (Some(Value::Array(of)), None, None) | (None, Some(Value::Array(of)), None) => of,
        _ => return None,
    };
    let is_null = |v: &Value| v.get("type").and_then(Value::as_str) == Some("null");
    match alternatives.as_slice() {
        [one] => typed(one, budget, depth + 1),
        [one, null] | [null, one] if is_null(null) && !is_null(one) => {
            typed(one, budget, depth + 1).map(|(kind, _)| (kind, true))
        }
        _ => None,
    }
}

fn other_than_null(kinds: &[Value]) -> Option<&str> {
    match kinds {
        [one] => one.as_str(),
        [one, null] | [null, one] if null.as_str() == Some("null") => one.as_str(),
        _ => None,
    }
}
