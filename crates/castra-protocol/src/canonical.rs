//! One form for JSON that means the same, so that a digest can stand for it.
//!
//! As RFC 8785 (JSON Canonicalization Scheme) has it: no space, members sorted by UTF-16 code units, the
//! shortest escapes. Numbers stay as they were written, other than there: two that a parser with 64-bit
//! floats takes for the same number can be different to the server behind the gate.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Nesting beyond this is refused.
const DEPTH_MAX: usize = 256;

/// Why there is no canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// It is not JSON.
    #[error("it is not JSON: {0}")]
    Syntax(String),
    /// It is nested too deeply.
    #[error("it is nested more than {DEPTH_MAX} levels deep")]
    TooDeep,
}

/// The canonical form of a JSON text. Members of the same name stay in their order.
///
/// # Errors
/// When the text is not JSON, or nested too deeply.
pub fn canonical(text: &[u8]) -> Result<String, CanonicalError> {
    let raw: &RawValue = serde_json::from_slice(text).map_err(syntax)?;
    let mut out = String::with_capacity(raw.get().len());
    write(raw, 0, &mut out)?;
    Ok(out)
}

fn write(raw: &RawValue, depth: usize, out: &mut String) -> Result<(), CanonicalError> {
    if depth > DEPTH_MAX {
        return Err(CanonicalError::TooDeep);
    }
    match raw.get().as_bytes().first() {
        Some(b'{') => {
            let Members(mut members) = serde_json::from_str(raw.get()).map_err(syntax)?;
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (i, (name, value)) in members.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&crate::json::quote(name));
                out.push(':');
                write(value, depth + 1, out)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(syntax)?;
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, depth + 1, out)?;
            }
            out.push(']');
        }
        Some(b'"') => {
            let text: String = serde_json::from_str(raw.get()).map_err(syntax)?;
            out.push_str(&crate::json::quote(&text));
        }
        _ => out.push_str(raw.get()),
    }
    Ok(())
}

fn syntax(error: serde_json::Error) -> CanonicalError {
    CanonicalError::Syntax(error.to_string())
}

/// The members of an object in their order; a map would lose those of the same name.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_is_written_the_same() {
        for (text, expected) in [
            (r#" { "b" : 1 , "a" : [ true , null ] } "#, r#"{"a":[true,null],"b":1}"#),
            (r#"{"a":{"z":{},"y":[]}}"#, r#"{"a":{"y":[],"z":{}}}"#),
            (r#"{"\u0061":"\u00e9\/"}"#, r#"{"a":"é/"}"#),
            ("\"\\u000a\\u0007\"", "\"\\n\\u0007\""),
            // By UTF-16 code units a surrogate pair comes before U+FB33 (RFC 8785, section 3.2.3).
            ("{\"\u{fb33}\":1,\"\u{1f600}\":2}", "{\"\u{1f600}\":2,\"\u{fb33}\":1}"),
            // What is one number to some parsers stays two here.
            (
                "[9007199254740993,9007199254740992,1.0,1,1e0]",
                "[9007199254740993,9007199254740992,1.0,1,1e0]",
            ),
            (r#"{"a":1,"a":2}"#, r#"{"a":1,"a":2}"#),
            (r#"{"a":2,"a":1}"#, r#"{"a":2,"a":1}"#),
        ] {
            let once = canonical(text.as_bytes()).unwrap();
            assert_eq!(once, expected, "{text}");
            assert_eq!(canonical(once.as_bytes()).unwrap(), once);
        }
    }

    #[test]
    fn what_is_no_json_has_no_form() {
        for text in ["", "{", "{\"a\"}", "[1,]", "\"\\ud800\"", "1 2"] {
            assert!(matches!(canonical(text.as_bytes()), Err(CanonicalError::Syntax(_))), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(canonical(deep.as_bytes()).is_err());
    }
}
