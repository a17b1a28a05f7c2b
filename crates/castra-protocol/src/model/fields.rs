//! Typed reading of JSON objects that remembers where it is and what was read.
//!
//! Translation must not lose anything, so a reader takes every member by name and then asks for the
//! rest: a member that nobody took is refused with its path.

use std::{borrow::Cow, fmt};

use super::{Form, ModelError};
use crate::json::{self, JsonError, Kind, Scanner, Value};

/// Where a value stands. Built on the stack while reading and written out only for an error.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'p> {
    /// The whole text.
    Root,
    /// A member of an object.
    Member(&'p Place<'p>, &'p str),
    /// An element of an array.
    Item(&'p Place<'p>, usize),
}

impl<'p> Place<'p> {
    pub(super) fn member(&'p self, name: &'p str) -> Place<'p> {
        Place::Member(self, name)
    }

    pub(super) fn item(&'p self, index: usize) -> Place<'p> {
        Place::Item(self, index)
    }

    pub(super) fn wrong(&self, want: &'static str) -> ModelError {
        let field = match self {
            Self::Root => "the body".to_string(),
            place => place.to_string(),
        };
        ModelError::Wrong { field, want }
    }

    pub(super) fn missing(&self, want: &'static str) -> ModelError {
        ModelError::Missing { field: self.to_string(), want }
    }

    pub(super) fn untranslatable(&self, form: Form, why: &'static str) -> ModelError {
        ModelError::Untranslatable { field: self.to_string(), form, why }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("the body"),
            Self::Member(Self::Root, name) => f.write_str(&shown(name)),
            Self::Member(parent, name) => write!(f, "{parent}.{}", shown(name)),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A name as errors show it: names come from the caller and may be anything.
fn shown(name: &str) -> String {
    const NAME_MAX: usize = 80;
    name.chars().take(NAME_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Why a field that no reader knows is refused.
pub(super) const UNKNOWN: &str = "this gate does not know the field";

/// The members of one object, of which each can be taken once.
#[derive(Debug)]
pub(super) struct Fields<'a, 'p> {
    pub(super) text: &'a str,
    pub(super) place: &'p Place<'p>,
    members: Vec<Member<'a>>,
}

#[derive(Debug)]
struct Member<'a> {
    name: Cow<'a, str>,
    value: Value,
    taken: bool,
}

impl<'a, 'p> Fields<'a, 'p> {
    /// Reads the members of the object at `value`, a part of a text that was checked before.
    pub(super) fn of(text: &'a str, value: Value, place: &'p Place<'p>) -> Result<Self, ModelError> {
        if value.kind != Kind::Object {
            return Err(place.wrong("an object"));
        }
        let mut members = Vec::new();
        Scanner::at(text, value.span).members(|s, name| {
            members.push(Member { name: name.decode(), value: s.skip()?, taken: false });
            Ok::<_, JsonError>(())
        })?;
        Ok(Self { text, place, members })
    }

    /// Takes a member. Null counts as absent, as the SDKs write it for what is not set.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        let member = self.members.iter_mut().find(|m| m.name == name)?;
        member.taken = true;
        (member.value.kind != Kind::Null).then_some(member.value)
    }

    /// Takes a member and gives its JSON.
    pub(super) fn raw(&mut self, name: &str) -> Option<&'a str> {
        self.take(name).map(|value| value.span.of(self.text))
    }

    /// Takes a string.
    pub(super) fn string(&mut self, name: &str) -> Result<Option<Cow<'a, str>>, ModelError> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => string_of(self.text, value, &self.place.member(name)).map(Some),
        }
    }

    /// Takes a string that must be there.
    pub(super) fn need_string(&mut self, name: &str) -> Result<Cow<'a, str>, ModelError> {
        self.string(name)?.ok_or_else(|| self.place.member(name).missing("a string"))
    }

    /// Takes a boolean.
    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ModelError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value { kind: Kind::Bool, span }) => Ok(Some(span.of(self.text) == "true")),
            Some(_) => Err(self.place.member(name).wrong("true or false")),
        }
    }

    /// Takes an integer that is not negative.
    pub(super) fn unsigned(&mut self, name: &str) -> Result<Option<u64>, ModelError> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => match unsigned_of(self.text, value) {
                Some(number) => Ok(Some(number)),
                None => Err(self.place.member(name).wrong("an integer that is not negative")),
            },
        }
    }

    /// Takes a number and gives it as it stands.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<&'a str>, ModelError> {
        self.of_kind(name, Kind::Number, "a number").map(|v| v.map(|v| v.span.of(self.text)))
    }

    /// Takes an object.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Value>, ModelError> {
        self.of_kind(name, Kind::Object, "an object")
    }

    /// Takes the elements of an array; none if it is absent.
    pub(super) fn elements(&mut self, name: &str) -> Result<Vec<Value>, ModelError> {
        match self.of_kind(name, Kind::Array, "an array")? {
            Some(value) => elements_of(self.text, value),
            None => Ok(Vec::new()),
        }
    }

    /// A provider answers as the assistant; in another role it would speak for the user or the operator.
    pub(super) fn check_assistant(&mut self) -> Result<(), ModelError> {
        match self.string("role")?.as_deref() {
            None | Some("assistant") => Ok(()),
            Some(_) => Err(self.place.member("role").wrong("\"assistant\"")),
        }
    }

    /// Takes an array of strings.
    pub(super) fn strings(&mut self, name: &str) -> Result<Vec<Cow<'a, str>>, ModelError> {
        let values = self.elements(name)?;
        let place = self.place.member(name);
        values.into_iter().enumerate().map(|(i, v)| string_of(self.text, v, &place.item(i))).collect()
    }

    /// Refuses what nobody took.
    pub(super) fn rest(&self, form: Form) -> Result<(), ModelError> {
        match self.members.iter().find(|m| !m.taken && m.value.kind != Kind::Null) {
            Some(member) => Err(self.place.member(&member.name).untranslatable(form, UNKNOWN)),
            None => Ok(()),
        }
    }

    /// The name of a member that nobody took.
    pub(super) fn left(&self) -> Option<&str> {
        let left = self.members.iter().find(|m| !m.taken && m.value.kind != Kind::Null);
        left.map(|member| &*member.name)
    }

    fn of_kind(&mut self, name: &str, kind: Kind, want: &'static str) -> Result<Option<Value>, ModelError> {
        match self.take(name) {
            Some(value) if value.kind != kind => Err(self.place.member(name).wrong(want)),
            value => Ok(value),
        }
    }
}

/// Takes the object that a content part or tool wraps.
pub(super) fn wrapped<'a, 'p>(
    fields: &mut Fields<'a, '_>,
    name: &str,
    place: &'p Place<'p>,
) -> Result<Fields<'a, 'p>, ModelError> {
    let value = fields.object(name)?.ok_or_else(|| place.missing("an object"))?;
    Fields::of(fields.text, value, place)
}

/// The elements of the array at `value`.
pub(super) fn elements_of(text: &str, value: Value) -> Result<Vec<Value>, ModelError> {
    let mut found = Vec::new();
    Scanner::at(text, value.span).elements(|s| {
        found.push(s.skip()?);
        Ok::<_, JsonError>(())
    })?;
    Ok(found)
}

/// The string at `value`.
pub(super) fn string_of<'a>(
    text: &'a str,
    value: Value,
    place: &Place<'_>,
) -> Result<Cow<'a, str>, ModelError> {
    match value.kind {
        Kind::String => Ok(json::decode_scanned(value.span.of(text))),
        _ => Err(place.wrong("a string")),
    }
}

/// The integer at `value`; None if it is none of 64 bits without a sign.
pub(super) fn unsigned_of(text: &str, value: Value) -> Option<u64> {
    if value.kind == Kind::Number { value.span.of(text).parse().ok() } else { None }
}

/// The whole of a text that holds one value.
pub(super) fn whole(text: &str, depth_max: usize) -> Result<Value, ModelError> {
    let mut scanner = Scanner::of(text, depth_max);
    let value = scanner.skip()?;
    scanner.end()?;
    Ok(value)
}
