//! Writing JSON objects and arrays from left to right.

use crate::json::push_quoted;

/// An object that grows.
#[derive(Debug)]
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self("{".into())
    }

    /// Adds a member with raw JSON.
    pub(super) fn raw(&mut self, name: &str, raw: &str) {
        self.name(name);
        self.0.push_str(raw);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    /// Adds members that are raw JSON, without the braces around them.
    pub(super) fn members(&mut self, raw: &str) {
        if self.0.len() > 1 && !raw.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(raw);
    }

    pub(super) fn raw_some(&mut self, name: &str, raw: Option<&str>) {
        if let Some(raw) = raw {
            self.raw(name, raw);
        }
    }

    pub(super) fn string(&mut self, name: &str, text: &str) {
        self.name(name);
        push_quoted(&mut self.0, text);
    }

    pub(super) fn string_or_null(&mut self, name: &str, text: Option<&str>) {
        match text {
            Some(text) => self.string(name, text),
            None => self.raw(name, "null"),
        }
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        push_quoted(&mut self.0, name);
        self.0.push(':');
    }
}

/// An array that grows.
#[derive(Debug)]
pub(super) struct Array(String);

impl Array {
    pub(super) fn new() -> Self {
        Self("[".into())
    }

    /// An array of strings.
    pub(super) fn of_strings(texts: &[impl AsRef<str>]) -> String {
        let mut array = Self::new();
        texts.iter().for_each(|text| array.string(text.as_ref()));
        array.finish()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    /// Adds raw JSON.
    pub(super) fn raw(&mut self, raw: &str) {
        self.comma();
        self.0.push_str(raw);
    }

    pub(super) fn string(&mut self, text: &str) {
        self.comma();
        push_quoted(&mut self.0, text);
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push(']');
        self.0
    }

    fn comma(&mut self) {
        if !self.is_empty() {
            self.0.push(',');
        }
    }
}
