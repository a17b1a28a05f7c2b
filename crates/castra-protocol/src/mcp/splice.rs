//! Changing a message without writing it again: every byte that need not change stays.
//!
//! A splice collects what shall change and finds the places when it is finished. Members that are new
//! go to the front of their object, where no trailing comma has to be looked for.

use std::borrow::Cow;

use super::{Notification, Outcome, Request, Response, meta_key};
use crate::{
    edit::{Changes, Edit, apply},
    json::{JsonError, Span, quote},
};

/// Changes to one message.
#[derive(Debug, Clone)]
pub struct Splice<'a> {
    text: &'a str,
    root: Span,
    /// `params` or `result`, and where it stands.
    body: (&'static str, Option<Span>),
    meta: Option<Span>,
    places: Places,
    edits: Vec<Edit>,
    in_root: Changes,
    in_body: Changes,
    in_meta: Changes,
}

/// Values that are replaced as a whole.
#[derive(Debug, Clone, Copy, Default)]
struct Places {
    id: Option<Span>,
    target: Option<Span>,
    progress_token: Option<Span>,
}

impl<'a> Splice<'a> {
    /// Changes a request.
    pub fn request(request: &Request<'a>) -> Self {
        let places = Places {
            id: Some(request.id_span),
            target: request.target.as_ref().map(|t| t.span),
            progress_token: request.meta.progress_token_span,
        };
        Self::new(request.text, ("params", request.params), request.meta.span, places)
    }

    /// Changes a notification. Its progress token is the one of `notifications/progress`, its id the
    /// request that `notifications/cancelled` names.
    pub fn notification(notification: &Notification<'a>) -> Self {
        let places = Places {
            id: notification.request_id_span,
            target: None,
            progress_token: notification.progress_token_span,
        };
        Self::new(notification.text, ("params", notification.params), notification.meta.span, places)
    }

    /// Changes a response. An error has no `_meta` and no members to set, so that only its id changes.
    pub fn response(response: &Response<'a>) -> Self {
        let places = Places { id: response.id_span, ..Places::default() };
        let (body, meta) = match &response.outcome {
            Outcome::Result(result) => (("result", Some(result.span)), result.meta),
            Outcome::Error(_) => (("result", None), None),
        };
        Self::new(response.text, body, meta, places)
    }

    fn new(text: &'a str, body: (&'static str, Option<Span>), meta: Option<Span>, places: Places) -> Self {
        let start = text.find('{').unwrap_or(0);
        Self {
            text,
            root: Span { start, end: text.len() },
            body,
            meta,
            places,
            edits: Vec::new(),
            in_root: Changes::default(),
            in_body: Changes::default(),
            in_meta: Changes::default(),
        }
    }

    /// Replaces the id by raw JSON.
    #[must_use]
    pub fn id(mut self, raw: &str) -> Self {
        match self.places.id {
            Some(span) => self.replace(span, raw.to_string()),
            None => self.in_root.add("id", raw.into()),
        }
        self
    }

    /// Replaces the name or URI that a request is directed at.
    #[must_use]
    pub fn target(mut self, name: &str) -> Self {
        if let Some(span) = self.places.target {
            self.replace(span, quote(name));
        }
        self
    }

    /// Replaces the progress token by raw JSON; a request that has none gets one.
    #[must_use]
    pub fn progress_token(mut self, raw: &str) -> Self {
        match self.places.progress_token {
            Some(span) => self.replace(span, raw.to_string()),
            None => self.in_meta.set(meta_key::PROGRESS_TOKEN, raw),
        }
        self
    }

    /// Sets a key of `_meta` to raw JSON.
    #[must_use]
    pub fn set_meta(mut self, key: &str, raw: &str) -> Self {
        self.in_meta.set(key, raw);
        self
    }

    /// Removes a key of `_meta`.
    #[must_use]
    pub fn remove_meta(mut self, key: &str) -> Self {
        self.in_meta.remove(key);
        self
    }

    /// Sets a member of `params` or `result` to raw JSON.
    #[must_use]
    pub fn set(mut self, key: &str, raw: &str) -> Self {
        self.in_body.set(key, raw);
        self
    }

    /// Removes a member of `params` or `result`.
    #[must_use]
    pub fn remove(mut self, key: &str) -> Self {
        self.in_body.remove(key);
        self
    }

    /// Replaces a value elsewhere in the message by raw JSON.
    #[must_use]
    pub(super) fn replace_value(mut self, span: Span, raw: &str) -> Self {
        self.replace(span, raw.to_string());
        self
    }

    /// Adds edits that overlap with nothing else.
    #[must_use]
    pub(super) fn edits(mut self, edits: Vec<Edit>) -> Self {
        self.edits.extend(edits);
        self
    }

    /// The changed message; the original bytes if nothing changed.
    pub fn finish(mut self) -> Cow<'a, [u8]> {
        match self.collect() {
            Ok(()) if self.edits.is_empty() => Cow::Borrowed(self.text.as_bytes()),
            Ok(()) => Cow::Owned(apply(self.text, self.edits).into_bytes()),
            // The objects were scanned when the message was parsed, so this is out of reach.
            Err(_) => Cow::Borrowed(self.text.as_bytes()),
        }
    }

    fn replace(&mut self, span: Span, text: String) {
        self.edits.retain(|edit| edit.range.start != span.start);
        if span.of(self.text) != text {
            self.edits.push(Edit { range: span.start..span.end, text });
        }
    }

    fn collect(&mut self) -> Result<(), JsonError> {
        let (name, body) = self.body;
        let can_begin = name == "params";
        match self.meta {
            Some(meta) => self.in_meta.edit(self.text, meta, &mut self.edits)?,
            None if self.in_meta.sets() && (body.is_some() || can_begin) => {
                self.in_body.add("_meta", self.in_meta.object());
            }
            None => {}
        }
        match body {
            Some(body) => self.in_body.edit(self.text, body, &mut self.edits)?,
            None if can_begin && !self.in_body.adds_nothing() => {
                self.in_root.add(name, self.in_body.object());
            }
            None => {}
        }
        self.in_root.edit(self.text, self.root, &mut self.edits)
    }
}
