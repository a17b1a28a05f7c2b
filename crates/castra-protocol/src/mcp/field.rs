//! Typed access to members that a scan has noted: either the right type or a fault that names the field.

use std::borrow::Cow;

use super::{Id, ParseFault};
use crate::json::{self, Kind, Span, Value};

/// A member that may be absent, with the text that it stands in.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) text: &'a str,
    pub(super) name: &'static str,
    pub(super) value: Option<Value>,
}

impl<'a> Field<'a> {
    pub(super) fn string(self) -> Result<Option<Cow<'a, str>>, ParseFault> {
        Ok(self.of_kind(Kind::String, "a string")?.map(|span| json::decode_scanned(span.of(self.text))))
    }

    pub(super) fn object(self) -> Result<Option<Span>, ParseFault> {
        self.of_kind(Kind::Object, "an object")
    }

    pub(super) fn boolean(self) -> Result<Option<bool>, ParseFault> {
        Ok(self.of_kind(Kind::Bool, "true or false")?.map(|span| span.of(self.text) == "true"))
    }

    /// A string or an integer, as ids and progress tokens are.
    pub(super) fn id(self) -> Result<Option<Id<'a>>, ParseFault> {
        let Some(value) = self.value else { return Ok(None) };
        match Id::from_raw(value.span.of(self.text)) {
            Some(id) => Ok(Some(id)),
            None => Err(self.wrong("a string or an integer")),
        }
    }

    pub(super) fn required<T>(self, found: Option<T>, want: &'static str) -> Result<T, ParseFault> {
        found.ok_or(ParseFault::Missing { field: self.name, want })
    }

    pub(super) fn wrong(self, want: &'static str) -> ParseFault {
        ParseFault::Param { field: self.name, want }
    }

    fn of_kind(self, kind: Kind, want: &'static str) -> Result<Option<Span>, ParseFault> {
        match self.value {
            None => Ok(None),
            Some(value) if value.kind == kind => Ok(Some(value.span)),
            Some(_) => Err(self.wrong(want)),
        }
    }
}
