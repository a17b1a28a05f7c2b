//! Call arguments as Cedar values: only what policies read, typed as the tools' input schemas say.
//! What is read and does not fit is a [`Misfit`] and denies: left out, a `forbid` that looks for
//! it would not apply, and a server that changes its catalogue could open the gate.

use std::{borrow::Cow, fmt};

use cedar_policy::RestrictedExpression;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    reads::Reads,
    types::{ArgumentType, ArgumentTypes, Fields, ToolTypes},
};

/// An argument that a policy reads and that cannot be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// Attribute names below the arguments.
    pub(crate) path: Vec<String>,
    pub(crate) what: String,
}

type Result<T> = std::result::Result<T, Misfit>;

/// Elements of an array that become a set.
const SET_ITEMS_MAX: usize = 1024;
/// Bytes of a string; pattern matching and copies of more would make a decision slow.
const STRING_BYTES_MAX: usize = 1 << 20;

/// `context.args`.
pub(crate) fn by_name(raw: &[u8], types: &ArgumentTypes, reads: &Reads) -> Result<RestrictedExpression> {
    let object = object(raw)?;
    record(&object, reads, |name| types.0.get(name).and_then(Option::as_ref))
}

/// The called tool's entry of `context.call`.
pub(crate) fn by_tool(raw: &[u8], types: Option<&ToolTypes>, reads: &Reads) -> Result<RestrictedExpression> {
    let object = object(raw)?;
    record(&object, reads, |name| types.and_then(|types| typed(&types.fields, name)))
}

fn typed<'a>(fields: &'a Fields, name: &str) -> Option<&'a ArgumentType> {
    fields.get(name)?.as_ref().map(|field| &field.kind)
}

fn record<'t>(
    object: &Object<'_>,
    reads: &Reads,
    kind: impl Fn(&str) -> Option<&'t ArgumentType>,
) -> Result<RestrictedExpression> {
    let mut pairs = Vec::new();
    let mut add = |name: &str, raw: &RawValue, below: &Reads| {
        let value = value(raw, kind(name), below).map_err(|misfit| misfit.below(name))?;
        pairs.push((name.to_owned(), value));
        Ok(())
    };
    if reads.whole {
        for (name, raw) in &object.0 {
            if !is_null(raw) {
                object.once(name)?;
                add(name, raw, &Reads::all())?;
            }
        }
    } else {
        for (name, below) in &reads.fields {
            match object.get(name) {
                Some(raw) if !is_null(raw) => {
                    object.once(name)?;
                    add(name, raw, below)?;
                }
                _ => {}
            }
        }
    }
    RestrictedExpression::new_record(pairs).map_err(|error| Misfit::new(error.to_string()))
}

fn value(raw: &RawValue, kind: Option<&ArgumentType>, reads: &Reads) -> Result<RestrictedExpression> {
    let text = raw.get();
    if !reads.whole && reads.fields.is_empty() {
        // Only asked for with `has`: any value will do, and none is looked at.
        return Ok(RestrictedExpression::new_bool(true));
    }
    let Some(kind) = kind else {
        return Err(Misfit::new("cannot be typed from the tools' input schemas".to_owned()));
    };
    let wrong =
        || Misfit::new(format!("is {} where the input schema asks for {}", shape(text), kind.describe()));
    match kind {
        ArgumentType::String if text.starts_with('"') => string(text),
        ArgumentType::Bool => text.parse().map(RestrictedExpression::new_bool).map_err(|_| wrong()),
        ArgumentType::Long => long(text).map(RestrictedExpression::new_long).ok_or_else(wrong),
        ArgumentType::Decimal => decimal(text).map(RestrictedExpression::new_decimal).ok_or_else(wrong),
        ArgumentType::Set(item) if text.starts_with('[') => set(text, item),
        ArgumentType::Record(fields) if text.starts_with('{') => {
            record(&object(text.as_bytes())?, reads, |name| typed(fields, name))
        }
        _ => Err(wrong()),
    }
}

fn string(text: &str) -> Result<RestrictedExpression> {
    if text.len() > STRING_BYTES_MAX {
        return Err(Misfit::new(format!("is longer than {STRING_BYTES_MAX} bytes")));
    }
    let text: String = serde_json::from_str(text).map_err(|_| Misfit::new("is not valid JSON".to_owned()))?;
    Ok(RestrictedExpression::new_string(text))
}

fn set(text: &str, item: &ArgumentType) -> Result<RestrictedExpression> {
    let items: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|_| Misfit::new("is not valid JSON".to_owned()))?;
    if items.len() > SET_ITEMS_MAX {
        return Err(Misfit::new(format!("has more than {SET_ITEMS_MAX} elements")));
    }
    let all = Reads::all();
    let items: Vec<_> = items
        .into_iter()
        .map(|raw| value(raw, Some(item), &all))
        .collect::<Result<_>>()
        .map_err(|m| m.below("[]"))?;
    Ok(RestrictedExpression::new_set(items))
}

/// An integer of JSON; `5.0` and `1e3` are integers too (JSON Schema 2020-12, section 6.1.1).
fn long(text: &str) -> Option<i64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if let Ok(n) = text.parse() {
        return Some(n);
    }
    let number: f64 = text.parse().ok()?;
    let exact = number.fract() == 0.0 && number.abs() < EXACT_MAX && text.contains(['.', 'e', 'E']);
    exact.then_some(number as i64)
}

/// A number as Cedar's `decimal` writes it: an optional sign, digits, a point, one to four digits.
/// Range: i64 in ten-thousandths.
fn decimal(text: &str) -> Option<String> {
    let text =
        if text.contains(['e', 'E']) { Cow::Owned(long(text)?.to_string()) } else { Cow::Borrowed(text) };
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, "0"));
    let fraction = match fraction.trim_end_matches('0') {
        "" => "0",
        digits if digits.len() <= 4 => digits,
        _ => return None,
    };
    let written = format!("{whole}.{fraction}");
    // One conversion decides on the range, so that it cannot differ from Cedar's own.
    let scale = 10_i64.pow(4 - u32::try_from(fraction.len()).ok()?);
    let parts = whole.parse::<i64>().ok()?.checked_mul(10_000)?;
    let rest = fraction.parse::<i64>().ok()?.checked_mul(scale)?;
    if whole.starts_with('-') {
        parts.checked_sub(rest)?
    } else {
        parts.checked_add(rest)?
    };
    Some(written)
}

fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}

fn shape(text: &str) -> &'static str {
    match text.bytes().next() {
        Some(b'"') => "a string",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// A JSON object, one level of it, in the order it was sent and with names that occur twice.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

fn object(raw: &[u8]) -> Result<Object<'_>> {
    serde_json::from_slice(raw).map_err(|_| Misfit::new("is not a JSON object".to_owned()))
}

impl<'a> Object<'a> {
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, raw)| *raw)
    }

    /// Which of two the server takes is not known.
    fn once(&self, name: &str) -> Result<()> {
        match self.0.iter().filter(|(key, _)| key == name).nth(1) {
            None => Ok(()),
            Some(_) => Err(Misfit::new("is there twice".to_owned()).below(name)),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> std::result::Result<Self::Value, M::Error> {
                let mut entries = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    entries.push((name, map.next_value()?));
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(Entries).map(Self)
    }
}

/// A key, borrowed where it has no escapes (`Cow` alone would always copy).
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl Misfit {
    pub(crate) fn new(what: String) -> Self {
        Self { path: Vec::new(), what }
    }

    fn below(mut self, name: &str) -> Self {
        self.path.insert(0, name.to_owned());
        self
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_slice() {
            [] => write!(f, "the arguments: {}", self.what),
            path => write!(f, "argument {:?} {}", path.join("."), self.what),
        }
    }
}

/// What Cedar reads back, for the tests of the conversion.
#[cfg(test)]
pub(crate) fn shown(expression: RestrictedExpression) -> String {
    let context = cedar_policy::Context::from_pairs([("x".to_owned(), expression)]).unwrap();
    context.get("x").unwrap().to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::Budget;

    fn tool(properties: serde_json::Value) -> ToolTypes {
        ToolTypes::of(&json!({"type": "object", "properties": properties}), &mut Budget::default())
    }

    fn reads(paths: &[&str]) -> Reads {
        let mut all = Reads::default();
        for path in paths {
            let mut node = &mut all;
            for name in path.trim_end_matches('?').split('.') {
                node = node.fields.entry(name.to_owned()).or_default();
            }
            node.whole = !path.ends_with('?');
        }
        all
    }

    #[test]
    fn values_are_typed_as_the_schema_says() {
        let types = tool(json!({
            "s": {"type": "string"}, "n": {"type": "integer"}, "b": {"type": "boolean"}, "d": {"type": "number"},
            "l": {"type": "array", "items": {"type": "string"}}, "u": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            "o": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}},
        }));
        for (path, args, expected) in [
            ("s", r#"{"s": "a\u0062"}"#, Ok(r#"{"s": "ab"}"#)),
            ("s", r#"{"s": null}"#, Ok("{}")),
            ("s", r#"{}"#, Ok("{}")),
            ("s", r#"{"s": 1}"#, Err("argument \"s\" is a number where the input schema asks for a string")),
            (
                "s",
                r#"{"s": ["a"]}"#,
                Err("argument \"s\" is an array where the input schema asks for a string"),
            ),
            ("s", r#"{"s": "a", "s": "b"}"#, Err("argument \"s\" is there twice")),
            ("s", r#"{"\u0073": "a"}"#, Ok(r#"{"s": "a"}"#)),
            ("s", r#"{"s": "a", "n": "not read"}"#, Ok(r#"{"s": "a"}"#)),
            ("n", r#"{"n": -5}"#, Ok(r#"{"n": -5}"#)),
            ("n", r#"{"n": 5.0}"#, Ok(r#"{"n": 5}"#)),
            ("n", r#"{"n": 1e3}"#, Ok(r#"{"n": 1000}"#)),
            (
                "n",
                r#"{"n": 9223372036854775808}"#,
                Err("argument \"n\" is a number where the input schema asks for an integer"),
            ),
            (
                "n",
                r#"{"n": 5.5}"#,
                Err("argument \"n\" is a number where the input schema asks for an integer"),
            ),
            ("b", r#"{"b": true}"#, Ok(r#"{"b": true}"#)),
            (
                "b",
                r#"{"b": "true"}"#,
                Err("argument \"b\" is a string where the input schema asks for a boolean"),
            ),
            ("d", r#"{"d": 1}"#, Ok(r#"{"d": decimal("1.0")}"#)),
            ("d", r#"{"d": -0.5}"#, Ok(r#"{"d": decimal("-0.5")}"#)),
            ("d", r#"{"d": 1.25000}"#, Ok(r#"{"d": decimal("1.25")}"#)),
            ("d", r#"{"d": 2e2}"#, Ok(r#"{"d": decimal("200.0")}"#)),
            (
                "d",
                r#"{"d": 0.00001}"#,
                Err(
                    "argument \"d\" is a number where the input schema asks for a number with at most four decimal places",
                ),
            ),
            (
                "d",
                r#"{"d": 922337203685478.0}"#,
                Err(
                    "argument \"d\" is a number where the input schema asks for a number with at most four decimal places",
                ),
            ),
            ("l", r#"{"l": ["b", "a", "b"]}"#, Ok(r#"{"l": ["a", "b"]}"#)),
            (
                "l",
                r#"{"l": ["b", 1]}"#,
                Err("argument \"l.[]\" is a number where the input schema asks for a string"),
            ),
            ("o.a", r#"{"o": {"a": 1, "b": 2}}"#, Ok(r#"{"o": {"a": 1}}"#)),
            (
                "o.b",
                r#"{"o": {"a": 1, "b": 2}}"#,
                Err("argument \"o.b\" cannot be typed from the tools' input schemas"),
            ),
            (
                "o",
                r#"{"o": {"a": 1, "z": 2}}"#,
                Err("argument \"o.z\" cannot be typed from the tools' input schemas"),
            ),
            (
                "o.a",
                r#"{"o": "x"}"#,
                Err("argument \"o\" is a string where the input schema asks for an object"),
            ),
            ("u", r#"{"u": "x"}"#, Err("argument \"u\" cannot be typed from the tools' input schemas")),
            ("u?", r#"{"u": "x"}"#, Ok(r#"{"u": true}"#)),
            ("z", r#"{"z": "x"}"#, Err("argument \"z\" cannot be typed from the tools' input schemas")),
        ] {
            let got =
                by_tool(args.as_bytes(), Some(&types), &reads(&[path])).map(shown).map_err(|m| m.to_string());
            assert_eq!(got, expected.map(str::to_owned).map_err(str::to_owned), "{path} of {args}");
        }
    }
}
