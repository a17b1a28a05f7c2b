//! The HTTP headers that mirror a request's body since 2026-07-28
//! (basic/transports/streamable-http, "Request Metadata").
//!
//! Whoever stands in front of the gate may have routed or limited by these headers, and whoever stands
//! behind it may do so, so they are compared with the body when a request comes in and written from
//! the body when it goes out.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use castra_core::{Refusal, RefusalCode, Step};

use super::{Request, TargetKind};
use crate::json::{self, JsonError, Kind, Scanner, Span};

/// Carries the revision.
pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
/// Carries the method.
pub const METHOD: &str = "mcp-method";
/// Carries the name of a tool or prompt, the URI of a resource, or the id of a task.
pub const NAME: &str = "mcp-name";
/// Begins the headers that carry parameters of a tool.
pub const PARAM_PREFIX: &str = "mcp-param-";

/// A header to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name in lower case.
    pub name: Cow<'static, str>,
    /// Its value, visible ASCII and spaces.
    pub value: String,
}

/// Why headers and body do not agree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// A header is missing.
    #[error("the header {name} is missing")]
    Missing {
        /// The header.
        name: String,
    },
    /// A header cannot be read.
    #[error("the header {name} has a value that cannot be read")]
    Unreadable {
        /// The header.
        name: String,
    },
    /// A header says something else than the body.
    #[error("the header {name} says something else than the body")]
    Differs {
        /// The header.
        name: String,
    },
    /// A header mirrors something that is not in the body.
    #[error("the header {name} mirrors an argument that is not in the body")]
    Unexpected {
        /// The header.
        name: String,
    },
    /// An argument cannot be mirrored in a header.
    #[error("an argument of another type than the tool's schema says cannot be sent as the header {name}")]
    NotMirrored {
        /// The header.
        name: String,
    },
}

impl HeaderFault {
    /// The refusal.
    pub fn refusal(&self) -> Refusal {
        Refusal::new(Step::Understand, RefusalCode::HeaderMismatch, self.to_string())
            .advise("Send the headers that the body's values ask for; list the tools again if they changed")
    }
}

/// Compares the headers of a request in the modern era with its body.
///
/// `lookup` is asked for names in lower case. It must refuse a header that stands twice before it
/// comes here, since it can give only one value. `params` are those of the called tool.
pub fn check<'h>(
    request: &Request<'_>,
    lookup: impl Fn(&str) -> Option<&'h [u8]>,
    params: Option<&ParamHeaders>,
) -> Result<(), HeaderFault> {
    let plain = |name: &str, body: &str| {
        let value = lookup(name).ok_or(HeaderFault::Missing { name: name.into() })?;
        if value == body.as_bytes() { Ok(()) } else { Err(HeaderFault::Differs { name: name.into() }) }
    };
    plain(PROTOCOL_VERSION, request.meta.protocol_version.as_deref().unwrap_or_default())?;
    plain(METHOD, &request.method)?;
    if let Some(target) = mirrored_target(request) {
        let value = lookup(NAME).ok_or(HeaderFault::Missing { name: NAME.into() })?;
        let value = decode_value(value).ok_or(HeaderFault::Unreadable { name: NAME.into() })?;
        if value != target {
            return Err(HeaderFault::Differs { name: NAME.into() });
        }
    }
    for param in params.into_iter().flat_map(|p| &p.params) {
        let name = || param.header.to_string();
        let body = param.in_arguments(request.arguments_text());
        match (lookup(&param.header), body) {
            (None, None) => {}
            (None, Some(_)) => return Err(HeaderFault::Missing { name: name() }),
            (Some(_), None) => return Err(HeaderFault::Unexpected { name: name() }),
            (Some(value), Some(body)) => {
                let value = decode_value(value).ok_or_else(|| HeaderFault::Unreadable { name: name() })?;
                if !param.same(&value, body) {
                    return Err(HeaderFault::Differs { name: name() });
                }
            }
        }
    }
    Ok(())
}

/// Whether a header of a request that passed [`check`] with these `params` may go on to the server:
/// those that were compared with the body, and those of a tool whose definition is not known, which
/// whoever stands between must hand on ("Server Behavior for Custom Headers").
pub fn may_go_on(name: &str, request: &Request<'_>, params: Option<&ParamHeaders>) -> bool {
    match name {
        PROTOCOL_VERSION | METHOD => true,
        NAME => mirrored_target(request).is_some(),
        _ if !name.starts_with(PARAM_PREFIX) || request.method != "tools/call" => false,
        _ => params.is_none_or(|params| params.params.iter().any(|param| param.header == name)),
    }
}

/// The headers to send with a request in the modern era.
pub fn build(request: &Request<'_>, params: Option<&ParamHeaders>) -> Result<Vec<Header>, HeaderFault> {
    let header = |name: &'static str, value: &str| Header {
        name: name.into(),
        value: encode_value(value).into_owned(),
    };
    let version = request.meta.protocol_version.as_deref().unwrap_or_default();
    let mut headers = vec![header(PROTOCOL_VERSION, version), header(METHOD, &request.method)];
    headers.extend(mirrored_target(request).map(|target| header(NAME, target)));
    for param in params.into_iter().flat_map(|p| &p.params) {
        if let Some(body) = param.in_arguments(request.arguments_text()) {
            let fault = || HeaderFault::NotMirrored { name: param.header.clone() };
            let value = param.value(body).ok_or_else(fault)?;
            let name = Cow::Owned(param.header.clone());
            headers.push(Header { name, value: encode_value(&value).into_owned() });
        }
    }
    Ok(headers)
}

/// `Mcp-Name` is asked for where the specification and the tasks extension do.
fn mirrored_target<'r>(request: &'r Request<'_>) -> Option<&'r str> {
    let target = request.target.as_ref()?;
    matches!(target.kind, TargetKind::Name | TargetKind::Uri | TargetKind::Task).then_some(&target.text)
}

/// Writes a value so that a header can hold it ("Value Encoding").
pub fn encode_value(value: &str) -> Cow<'_, str> {
    let plain = value.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t'));
    let padded = value.trim_matches([' ', '\t']).len() != value.len();
    let looks_encoded = value.starts_with(OPEN) && value.ends_with(CLOSE);
    if plain && !padded && !looks_encoded && !value.is_empty() {
        Cow::Borrowed(value)
    } else {
        Cow::Owned(format!("{OPEN}{}{CLOSE}", STANDARD.encode(value)))
    }
}

/// Reads a value that [`encode_value`] wrote. None if it has other bytes than a header may have, or is
/// marked as Base64 and is not Base64 of UTF-8.
pub fn decode_value(value: &[u8]) -> Option<Cow<'_, str>> {
    if !value.iter().all(|b| matches!(b, b' '..=b'~' | b'\t')) {
        return None;
    }
    let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    match text.strip_prefix(OPEN).and_then(|t| t.strip_suffix(CLOSE)) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned),
        None => Some(Cow::Borrowed(text)),
    }
}

const OPEN: &str = "=?base64?";
const CLOSE: &str = "?=";

/// The parameters of a tool that are mirrored in headers, read from the `x-mcp-header` annotations of
/// its input schema.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParamHeaders {
    params: Vec<Param>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Param {
    /// `mcp-param-…` in lower case.
    header: String,
    /// The chain of `properties` names that leads to the value.
    path: Vec<String>,
    kind: ParamKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ParamKind {
    String,
    Integer,
    Boolean,
}

/// Why a tool's annotations are not valid. Such a tool must be left out of lists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationFault {
    /// The schema is not JSON.
    #[error("the input schema is not valid: {0}")]
    Json(#[from] JsonError),
    /// The annotation is not a header name.
    #[error("x-mcp-header {0:?} is not a name that a header can have")]
    Name(String),
    /// One name twice.
    #[error("x-mcp-header {0:?} stands twice")]
    Twice(String),
    /// Not a string, an integer or a boolean.
    #[error("x-mcp-header {0:?} stands at a parameter that is not of type string, integer or boolean")]
    Type(String),
    /// Not reachable by `properties` alone.
    #[error(
        "x-mcp-header stands where no single argument is meant (only a chain of \"properties\" may lead to it)"
    )]
    Unreachable,
}

impl ParamHeaders {
    /// Reads the annotations of a tool's `inputSchema`.
    pub fn from_schema(input_schema: &str) -> Result<Self, AnnotationFault> {
        let mut found = Self::default();
        // Most tools have no annotation; nothing else can spell this key than these letters or escapes.
        if input_schema.contains(ANNOTATION) || input_schema.contains("\\u") {
            let mut path = Vec::new();
            found.schema(&mut Scanner::of(input_schema, json::DEPTH_CEILING), Some(&mut path))?;
        }
        Ok(found)
    }

    /// Whether no parameter is mirrored.
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// Walks over one schema. `path` is the chain of properties that leads here, None where a schema is
    /// reached in any other way.
    fn schema(
        &mut self,
        s: &mut Scanner<'_>,
        mut path: Option<&mut Vec<String>>,
    ) -> Result<(), AnnotationFault> {
        match s.kind()? {
            Kind::Object => {}
            Kind::Array => return s.elements(|s| self.schema(s, None)),
            _ => return Ok(s.skip().map(|_| ())?),
        }
        let mut annotation = None;
        let mut kind = None;
        s.members(|s, key| {
            match &*key.decode() {
                ANNOTATION => annotation = Some(s.skip()?),
                "type" => kind = Some(s.skip()?),
                "properties" => return self.properties(s, path.as_deref_mut()),
                "$defs" | "definitions" | "patternProperties" | "dependentSchemas" => {
                    return self.properties(s, None);
                }
                // Data, not schemas.
                "const" | "enum" | "default" | "examples" => drop(s.skip()?),
                _ => return self.schema(s, None),
            }
            Ok(())
        })?;
        let Some(annotation) = annotation else { return Ok(()) };
        let path = path.filter(|p| !p.is_empty()).ok_or(AnnotationFault::Unreachable)?;
        let raw = annotation.span.of(s.text());
        let name = json::decode(raw).ok_or_else(|| AnnotationFault::Name(raw.chars().take(80).collect()))?;
        let kind = kind.map(|k| k.span.of(s.text()));
        self.add(&name, kind.unwrap_or_default(), path)
    }

    fn properties(
        &mut self,
        s: &mut Scanner<'_>,
        mut path: Option<&mut Vec<String>>,
    ) -> Result<(), AnnotationFault> {
        if s.kind()? != Kind::Object {
            return Ok(s.skip().map(|_| ())?);
        }
        s.members(|s, key| match path.as_deref_mut() {
            Some(path) => {
                path.push(key.decode().into_owned());
                self.schema(s, Some(path))?;
                path.pop();
                Ok(())
            }
            None => self.schema(s, None),
        })
    }

    fn add(&mut self, name: &str, kind: &str, path: &[String]) -> Result<(), AnnotationFault> {
        let shown = || name.chars().take(80).collect();
        if name.is_empty() || !name.bytes().all(is_tchar) {
            return Err(AnnotationFault::Name(shown()));
        }
        let kind = match kind {
            "\"string\"" => ParamKind::String,
            "\"integer\"" => ParamKind::Integer,
            "\"boolean\"" => ParamKind::Boolean,
            _ => return Err(AnnotationFault::Type(shown())),
        };
        let header = format!("{PARAM_PREFIX}{}", name.to_ascii_lowercase());
        if self.params.iter().any(|p| p.header == header) {
            return Err(AnnotationFault::Twice(shown()));
        }
        self.params.push(Param { header, path: path.to_vec(), kind });
        Ok(())
    }
}

impl Param {
    /// The raw value in the arguments. One that is null counts as absent.
    fn in_arguments<'a>(&self, arguments: &'a str) -> Option<&'a str> {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        json::get(arguments, &path).filter(|raw| *raw != "null")
    }

    fn value<'a>(&self, raw: &'a str) -> Option<Cow<'a, str>> {
        match self.kind {
            ParamKind::String => json::decode(raw),
            ParamKind::Boolean => matches!(raw, "true" | "false").then_some(Cow::Borrowed(raw)),
            ParamKind::Integer => safe_integer(raw).map(|n| Cow::Owned(n.to_string())),
        }
    }

    fn same(&self, header: &str, raw: &str) -> bool {
        match self.kind {
            ParamKind::Integer => {
                matches!((safe_integer(header), safe_integer(raw)), (Some(a), Some(b)) if a == b)
            }
            _ => self.value(raw).is_some_and(|body| body == header),
        }
    }
}

/// An integer in any JSON spelling (`42`, `42.0`, `4.2e1`) within what JavaScript holds exactly.
fn safe_integer(text: &str) -> Option<i64> {
    const SAFE: i64 = (1 << 53) - 1;
    let mut scanner = Scanner::of(text, 0);
    let number = scanner.skip().ok().filter(|v| v.kind == Kind::Number && v.span == whole(text))?;
    let text = number.span.of(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (digits, negative) = match mantissa.strip_prefix('-') {
        Some(digits) => (digits, true),
        None => (mantissa, false),
    };
    let (int, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let all = format!("{int}{fraction}");
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    let scale = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let trimmed = significant.trim_end_matches('0');
    let scale = scale.checked_add(i32::try_from(significant.len() - trimmed.len()).ok()?)?;
    // More than 16 digits are beyond the safe range anyway.
    let scale = u32::try_from(scale).ok().filter(|scale| *scale <= 16)?;
    let value = trimmed.parse::<i64>().ok()?.checked_mul(10_i64.pow(scale))?;
    (value <= SAFE).then_some(if negative { -value } else { value })
}

fn whole(text: &str) -> Span {
    Span { start: 0, end: text.len() }
}

/// RFC 9110 section 5.6.2.
fn is_tchar(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

const ANNOTATION: &str = "x-mcp-header";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_encoded_as_in_the_specification() {
        for (value, encoded) in [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
            ("", "=?base64??="),
        ] {
            assert_eq!(encode_value(value), encoded);
            assert_eq!(decode_value(encoded.as_bytes()).as_deref(), Some(value));
        }
        assert_eq!(decode_value(b"=?base64?AA?="), None);
        assert_eq!(decode_value(b"=?base64?/w==?="), None);
        assert_eq!(decode_value("é".as_bytes()), None);
        assert_eq!(decode_value(b"=?BASE64?AA==?=").as_deref(), Some("=?BASE64?AA==?="));
    }

    #[test]
    fn integers_are_compared_as_numbers() {
        for (text, value) in [
            ("42", Some(42)),
            ("42.0", Some(42)),
            ("4.2e1", Some(42)),
            ("-7", Some(-7)),
            ("0.0", Some(0)),
            ("-0", Some(0)),
            ("100e-2", Some(1)),
            ("9007199254740991", Some(9_007_199_254_740_991)),
            ("9007199254740992", None),
            ("9007199254740991.4", None),
            ("1e99999999999", None),
            ("1e300", None),
            ("042", None),
            ("0x2a", None),
            (" 42", None),
            ("4.2", None),
            ("", None),
        ] {
            assert_eq!(safe_integer(text), value, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_value_goes_both_ways(value in any::<String>()) {
            let encoded = encode_value(&value);
            prop_assert_eq!(decode_value(encoded.as_bytes()), Some(Cow::from(&*value)));
        }

        #[test]
        fn integers_agree_with_the_machine(n in -9_007_199_254_740_991_i64..=9_007_199_254_740_991) {
            prop_assert_eq!(safe_integer(&n.to_string()), Some(n));
            prop_assert_eq!(safe_integer(&format!("{n}.000")), Some(n));
        }

        #[test]
        fn schemas_never_panic(text in "[\\[\\]{}\":,a-z-]{0,60}") {
            let _ = ParamHeaders::from_schema(&text);
            let _ = ParamHeaders::from_schema(&format!("{{\"x-mcp-header\":{text}"));
        }
    }
}
