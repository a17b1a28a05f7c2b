//! JSON within bounds: its scalars in order, its records, and one text of all of it.

use serde_json::{Map, Value};

use crate::limits::{DEPTH_MAX, LEAVES_MAX, RECORDS_MAX, RESULT_BYTES_MAX};

/// A scalar and the key that it stands under.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaf<'a> {
    pub(crate) key: &'a str,
    pub(crate) value: Scalar<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Scalar<'a> {
    /// A key of an object.
    Key(&'a str),
    Value(&'a Value),
}

impl Leaf<'_> {
    /// The scalar as text; none for null and booleans.
    pub(crate) fn text(&self) -> Option<String> {
        match self.value {
            Scalar::Key(key) => Some(key.to_owned()),
            Scalar::Value(value) => scalar_text(value),
        }
    }
}

/// A scalar as text, whole numbers without a fraction; none for null, booleans, lists and objects.
pub(crate) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(match number.as_f64() {
            Some(f) if number.is_f64() && f.fract() == 0.0 && f.abs() < 1e15 => format!("{f:.0}"),
            _ => number.to_string(),
        }),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// All leaves in order, or none if there are more of them, or deeper ones, than are looked at.
pub(crate) fn leaves(value: &Value) -> Option<Vec<Leaf<'_>>> {
    let mut found = Vec::new();
    let mut bytes = 0;
    walk("", value, DEPTH_MAX, &mut bytes, &mut found).then_some(found)
}

fn walk<'a>(
    key: &'a str,
    value: &'a Value,
    depth: usize,
    bytes: &mut usize,
    found: &mut Vec<Leaf<'a>>,
) -> bool {
    if depth == 0 || found.len() >= LEAVES_MAX || *bytes > RESULT_BYTES_MAX {
        return false;
    }
    match value {
        Value::Array(items) => items.iter().all(|item| walk(key, item, depth - 1, bytes, found)),
        Value::Object(members) => members.iter().all(|(name, item)| {
            *bytes += name.len() + 1;
            found.push(Leaf { key, value: Scalar::Key(name) });
            walk(name, item, depth - 1, bytes, found)
        }),
        _ => {
            *bytes += value.as_str().map_or(8, str::len) + 1;
            found.push(Leaf { key, value: Scalar::Value(value) });
            *bytes <= RESULT_BYTES_MAX
        }
    }
}

/// The records of a result: a list of objects, one object, or either of them wrapped in an object that has
/// nothing else of the kind.
pub(crate) fn records(value: &Value) -> Vec<&Map<String, Value>> {
    let list = |items: &'_ [Value]| items.iter().all(Value::is_object) && !items.is_empty();
    match value {
        Value::Array(items) => items.iter().filter_map(Value::as_object).take(RECORDS_MAX).collect(),
        Value::Object(members) => {
            let mut inner = members.values().filter(|v| v.as_array().is_some_and(|a| list(a)));
            match (inner.next(), inner.next()) {
                (Some(only), None) => records(only),
                _ => match members.values().next() {
                    Some(only @ Value::Object(_)) if members.len() == 1 => records(only),
                    _ => vec![members],
                },
            }
        }
        _ => Vec::new(),
    }
}

/// A field of a record; dots lead into objects.
pub(crate) fn field<'a>(record: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = record.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    field(record.get(first)?.as_object()?, rest)
}

/// The scalars of a value as texts.
pub(crate) fn texts(value: &Value) -> Vec<String> {
    leaves(value).unwrap_or_default().iter().filter_map(Leaf::text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn records_are_found_in_their_wrapping() {
        for (value, count) in [
            (json!([{"a": 1}, {"a": 2}]), 2),
            (json!({"result": [{"a": 1}, {"a": 2}]}), 2),
            (json!({"items": [{"a": 1}], "total": 1}), 1),
            (json!({"a": 1, "to": ["x"]}), 1),
            (json!({"result": {"a": 1}}), 1),
            (json!({"result": []}), 1),
            (json!("text"), 0),
        ] {
            assert_eq!(records(&value).len(), count, "{value}");
        }
    }

    #[test]
    fn bounds_are_all_or_nothing() {
        let mut deep = json!(1);
        for _ in 0..DEPTH_MAX {
            deep = json!([deep]);
        }
        assert!(leaves(&deep).is_none());
        assert!(leaves(&Value::from(vec![0; LEAVES_MAX + 1])).is_none());
        assert_eq!(leaves(&json!({"a": [1, "x"]})).unwrap().len(), 3);
    }
}
