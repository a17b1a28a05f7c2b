//! Fields of ProtoJSON messages: read under either spelling, at most once, and why a message is refused.

use std::borrow::Cow;

use castra_core::{Refusal, RefusalCode, Step};

use super::{ErrorKind, ID_BYTES_MAX};
use crate::json::{JsonError, JsonFault, Kind, Scanner, Span};

/// Why a request or an answer is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum Fault {
    #[error("the body is not JSON as it is taken here: {0}")]
    Json(JsonError),
    #[error("a batch is not part of A2A: send one request at a time")]
    Batch,
    #[error("the request is not JSON-RPC 2.0: {0}")]
    NotRpc(&'static str),
    #[error("there is no A2A operation {0:?}")]
    NoMethod(String),
    #[error("nothing of A2A answers {method} {path}")]
    NoPlace { method: String, path: String },
    #[error("A2A version {0} is not spoken here, 1.0 is")]
    Version(String),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{field} must be {expected}")]
    Kind { field: &'static str, expected: &'static str },
    #[error("{0} stands there in both spellings of ProtoJSON: use one")]
    TwoSpellings(&'static str),
    #[error("{0} stands twice in the query")]
    Twice(String),
    #[error("{name:?} is not a parameter of {method}")]
    Parameter { name: String, method: &'static str },
    #[error("{0} in the body is not the one in the path")]
    Disagree(&'static str),
    #[error("{0} is not an id: 1 to 1024 bytes without control characters, '/', '\\', '?', '#' and '%'")]
    Id(&'static str),
    #[error("the path or query is not percent-encoded UTF-8")]
    Encoding,
}

impl From<JsonError> for Fault {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

impl Fault {
    /// The protocol's own kind of it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Json(JsonError { fault: JsonFault::Depth(_) | JsonFault::Duplicate(_), .. })
            | Self::Batch
            | Self::NotRpc(_) => ErrorKind::InvalidRequest,
            Self::Json(_) => ErrorKind::Parse,
            Self::NoMethod(_) | Self::NoPlace { .. } => ErrorKind::MethodNotFound,
            Self::Version(_) => ErrorKind::VersionNotSupported,
            _ => ErrorKind::InvalidParams,
        }
    }

    /// The refusal that records bear.
    pub fn refusal(&self) -> Refusal {
        let code = match self {
            Self::Json(JsonError { fault: JsonFault::Depth(_), .. }) => RefusalCode::LimitReached,
            Self::NoMethod(_) | Self::NoPlace { .. } => RefusalCode::NotFound,
            Self::Version(_) => RefusalCode::UnsupportedVersion,
            Self::Disagree(_) => RefusalCode::HeaderMismatch,
            _ => RefusalCode::Malformed,
        };
        let refusal = Refusal::new(Step::Understand, code, self.to_string());
        match self {
            Self::Version(_) => refusal.advise("Send A2A-Version: 1.0 and speak that version"),
            _ => refusal,
        }
    }
}

/// Whether `name` is a spelling of a field: its lowerCamelCase name or the original one, which
/// has an underscore before each capital letter, in lower case.
pub(super) fn spells(name: &str, field: &str) -> bool {
    if name == field {
        return true;
    }
    let mut rest = name.chars();
    let original = field.chars().all(|c| {
        if c.is_ascii_uppercase() {
            rest.next() == Some('_') && rest.next() == Some(c.to_ascii_lowercase())
        } else {
            rest.next() == Some(c)
        }
    });
    original && rest.next().is_none()
}

/// Reads an object of ProtoJSON. `each` gets the fields in `known`, under these names, and must
/// consume the value; fields of which nothing is known are passed over, and so is null, which
/// means that a field is not set.
pub(super) fn fields<'a>(
    scanner: &mut Scanner<'a>,
    known: &'static [&'static str],
    mut each: impl FnMut(&mut Scanner<'a>, &'static str) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut seen = 0_u64;
    scanner.members(|scanner, name| {
        let name = name.decode();
        let Some((at, field)) = known.iter().enumerate().find(|(_, field)| spells(&name, field)) else {
            scanner.skip()?;
            return Ok(());
        };
        if seen & (1 << at) != 0 {
            return Err(Fault::TwoSpellings(field));
        }
        seen |= 1 << at;
        if scanner.kind()? == Kind::Null {
            scanner.skip()?;
            return Ok(());
        }
        each(scanner, field)
    })
}

/// Reads a text.
pub(super) fn text<'a>(scanner: &mut Scanner<'a>, field: &'static str) -> Result<Cow<'a, str>, Fault> {
    expect(scanner, field, Kind::String, "a text")?;
    Ok(scanner.string()?.decode())
}

/// Reads an id; an empty one is one that is not set.
pub(super) fn id<'a>(scanner: &mut Scanner<'a>, field: &'static str) -> Result<Option<Cow<'a, str>>, Fault> {
    let id = text(scanner, field)?;
    if id.is_empty() { Ok(None) } else { checked_id(id, field).map(Some) }
}

/// Checks an id, whose characters may come to stand in a path.
pub(super) fn checked_id<'a>(id: Cow<'a, str>, field: &'static str) -> Result<Cow<'a, str>, Fault> {
    let bad = |c: char| c.is_control() || matches!(c, '/' | '\\' | '?' | '#' | '%');
    let good = (1..=ID_BYTES_MAX).contains(&id.len()) && id != "." && id != ".." && !id.contains(bad);
    if good { Ok(id) } else { Err(Fault::Id(field)) }
}

/// Reads a truth value.
pub(super) fn truth(scanner: &mut Scanner<'_>, field: &'static str) -> Result<bool, Fault> {
    expect(scanner, field, Kind::Bool, "true or false")?;
    let value = scanner.skip()?;
    Ok(value.span.of(scanner.text()) == "true")
}

/// Reads past an object and says where it stands.
pub(super) fn object(scanner: &mut Scanner<'_>, field: &'static str) -> Result<Span, Fault> {
    expect(scanner, field, Kind::Object, "an object")?;
    Ok(scanner.skip()?.span)
}

/// Says which kind of value must come next.
pub(super) fn expect(
    scanner: &mut Scanner<'_>,
    field: &'static str,
    kind: Kind,
    expected: &'static str,
) -> Result<(), Fault> {
    if scanner.kind()? == kind { Ok(()) } else { Err(Fault::Kind { field, expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_the_same_field() {
        for good in ["taskPushNotificationConfig", "task_push_notification_config"] {
            assert!(spells(good, "taskPushNotificationConfig"), "{good}");
        }
        for bad in [
            "task_PushNotificationConfig",
            "task_push_notification_configs",
            "TaskPushNotificationConfig",
            "task",
        ] {
            assert!(!spells(bad, "taskPushNotificationConfig"), "{bad}");
        }
        let read = |text: &str| fields(&mut Scanner::of(text, 8), &["taskId"], |s, f| id(s, f).map(drop));
        assert_eq!(read(r#"{"taskId":"a","other":[1]}"#), Ok(()));
        assert_eq!(read(r#"{"taskId":null,"x":{}}"#), Ok(()));
        assert_eq!(read(r#"{"taskId":"a","task_id":"b"}"#), Err(Fault::TwoSpellings("taskId")));
        assert_eq!(read(r#"{"task\u005fid":"a","task\u0049d":null}"#), Err(Fault::TwoSpellings("taskId")));
        assert_eq!(read(r#"{"taskId":1}"#), Err(Fault::Kind { field: "taskId", expected: "a text" }));
        assert_eq!(read(r#"{"taskId":"../a"}"#), Err(Fault::Id("taskId")));
    }
}
