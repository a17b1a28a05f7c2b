//! The JSON Canonicalization Scheme (RFC 8785): the one form of a document that is signed.

use std::fmt::Write;

use serde_json::Value;

/// Why a document has no canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JcsError {
    /// RFC 8785, section 3.2.2.3: numbers are doubles.
    #[error("a number is no IEEE 754 double, or an integer beyond 2^53 that none can hold")]
    Number,
}

/// Writes a document in its canonical form. Its depth was bounded when it was read.
///
/// # Errors
/// For numbers that a double cannot hold.
pub fn canonical(value: &Value) -> Result<String, JcsError> {
    let mut out = String::new();
    write(value, &mut out)?;
    Ok(out)
}

fn write(value: &Value, out: &mut String) -> Result<(), JcsError> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => number_of(number, out)?,
        Value::String(text) => write_text(text, out),
        Value::Array(list) => {
            out.push('[');
            for (at, item) in list.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(item, out)?;
            }
            out.push(']');
        }
        Value::Object(members) => {
            // Section 3.2.3: names are sorted by their UTF-16 code units.
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (at, (name, item)) in members.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_text(name, out);
                out.push(':');
                write(item, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

/// Section 3.2.2.2: two characters and the control characters are escaped, everything else stands.
fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            // Writing to a String cannot fail.
            c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Section 3.2.2.3, which is `Number::toString` of ECMA-262: the shortest digits that read back as the
/// same double, without an exponent from 1e-6 up to 1e21.
fn number_of(number: &serde_json::Number, out: &mut String) -> Result<(), JcsError> {
    const SAFE_MAX: u64 = 1 << 53;
    if number.as_i64().map(i64::unsigned_abs).or(number.as_u64()).is_some_and(|whole| whole > SAFE_MAX) {
        return Err(JcsError::Number);
    }
    let double = number.as_f64().filter(|double| double.is_finite()).ok_or(JcsError::Number)?;
    if double == 0.0 {
        out.push('0');
        return Ok(());
    }
    // The shortest digits, as `d.ddde±x`.
    let shortest = format!("{:e}", double.abs());
    let (digits, exponent) = shortest.split_once('e').ok_or(JcsError::Number)?;
    let exponent: i32 = exponent.parse().map_err(|_| JcsError::Number)?;
    let digits: String = digits.chars().filter(|c| *c != '.').collect();
    if double < 0.0 {
        out.push('-');
    }
    write_digits(&digits, exponent, out);
    Ok(())
}

/// `digits` with a point after the first one, times ten to the power of `exponent`.
fn write_digits(digits: &str, exponent: i32, out: &mut String) {
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let split = |at: i32| digits.split_at_checked(usize::try_from(at).unwrap_or(0)).unwrap_or((digits, ""));
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    match exponent {
        21.. | ..=-7 => {
            let (first, rest) = split(1);
            let point = if rest.is_empty() { "" } else { "." };
            let sign = if exponent > 0 { "+" } else { "-" };
            let _ = write!(out, "{first}{point}{rest}e{sign}{}", exponent.unsigned_abs());
        }
        0.. if exponent + 1 >= count => {
            out.push_str(digits);
            out.push_str(&zeros(exponent + 1 - count));
        }
        0.. => {
            let (whole, fraction) = split(exponent + 1);
            let _ = write!(out, "{whole}.{fraction}");
        }
        _ => {
            out.push_str("0.");
            out.push_str(&zeros(-exponent - 1));
            out.push_str(digits);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Result<String, JcsError> {
        canonical(&serde_json::from_str(text).expect("JSON"))
    }

    #[test]
    fn examples_of_the_standard() {
        // RFC 8785, section 3.2.2 to 3.2.4.
        let text = r#"{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],
            "string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#;
        let expected = "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
            \"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
        assert_eq!(of(text).as_deref(), Ok(expected));
        // Section 3.2.3: names beyond the BMP sort by their surrogates.
        let text = r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}"#;
        assert_eq!(
            of(text).as_deref(),
            Ok("{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}")
        );
    }

    #[test]
    fn numbers_are_written_as_in_ecmascript() {
        for (number, written) in [
            ("-0", "0"),
            ("1e21", "1e+21"),
            ("1.2345678901234568e20", "123456789012345680000"),
            ("1e-6", "0.000001"),
            ("1e-7", "1e-7"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("-12.5", "-12.5"),
            ("1e20", "100000000000000000000"),
            ("9007199254740992", "9007199254740992"),
        ] {
            assert_eq!(of(number).as_deref(), Ok(written), "{number}");
        }
        assert_eq!(of("9007199254740993"), Err(JcsError::Number));
    }

    proptest! {
        #[test]
        fn what_is_written_is_the_same_number(double in any::<f64>().prop_filter("finite", |d| d.is_finite())) {
            let written = canonical(&Value::from(double)).expect("a number");
            prop_assert_eq!(written.parse::<f64>().ok(), Some(double), "{}", written);
        }
    }
}
