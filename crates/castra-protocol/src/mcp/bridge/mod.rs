//! Translation between the eras, in both directions, as pure functions on messages.
//!
//! A legacy conversation (2025-11-25 and before) opens with a handshake, keeps state, and lets the
//! server ask the client in the middle of a call. A modern one (2026-07-28) has no state: every request
//! describes itself, and a server that needs input answers with what it needs and is asked again. The
//! bridge holds no state either: what a conversation knows is handed in as [`ClientFacts`] and
//! [`ServerFacts`], and what must be kept or sent comes back as values.
//!
//! Between two legacy revisions nothing is translated: the gate negotiates one revision end to end.
//!
//! Tasks are not bridged. In 2025-11-25 the client asks for a task and fetches input and result through
//! a blocking `tasks/result`; in the extension of 2026-07-28 the server decides and the client polls.
//! So neither side is told that the other knows tasks, calls run without them, as both specifications
//! allow, and `tasks/*` across the eras is refused by name.

mod facts;
mod legacy_client;
mod modern_client;
mod subscriptions;

use std::borrow::Cow;

pub use facts::{ClientFacts, ServerFacts, initialize_request};
pub use legacy_client::{
    InputNeeded, InputRequest, LegacyAnswer, LegacyStep, legacy_to_modern, modern_answer_to_legacy,
    modern_notification_to_legacy,
};
pub use modern_client::{
    ModernStep, input_required, legacy_answer_to_modern, legacy_notification_to_modern, legacy_replies,
    modern_to_legacy,
};
pub use subscriptions::{
    SubscriptionFilter, listen_acknowledged, listen_ended, listen_notification, listen_request,
};

pub use super::revision::negotiate;
use super::{InputKind, ParseFault};
use crate::{
    edit::{Changes, apply},
    json::{self, JsonError, Span},
};

/// Why something cannot be translated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BridgeFault {
    /// Not JSON.
    #[error("the server's description of itself is not JSON: {0}")]
    Json(#[from] JsonError),
    /// A member is missing or has the wrong type.
    #[error("{field} must be {want}")]
    Field {
        /// The member.
        field: &'static str,
        /// What it must be.
        want: &'static str,
    },
    /// The server wants something that the client did not declare.
    #[error("the server asks for {method}, which the client did not declare that it can answer")]
    Undeclared {
        /// The method.
        method: &'static str,
    },
    /// The server wants more at once than is passed on.
    #[error("the server asks for more than {max} things at once")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// The kind of result is not known, which makes it invalid (2026-07-28, basic, "ResultType").
    #[error("the server answered with a result of the unknown type {result_type:?}")]
    UnknownResult {
        /// What it says.
        result_type: String,
    },
    /// The client answered a question with an error.
    #[error("the client did not answer {method}: {message} (code {code})")]
    ClientRefused {
        /// What was asked.
        method: &'static str,
        /// The client's code.
        code: i64,
        /// The client's message.
        message: String,
    },
}

impl From<ParseFault> for BridgeFault {
    fn from(fault: ParseFault) -> Self {
        match fault {
            ParseFault::Json(e) => Self::Json(e),
            ParseFault::Envelope { field, want }
            | ParseFault::Param { field, want }
            | ParseFault::Missing { field, want } => Self::Field { field, want },
            ParseFault::Batch | ParseFault::NotAnObject => {
                Self::Field { field: "the message", want: "an object" }
            }
        }
    }
}

/// Questions that one answer of a server may hold.
const QUESTIONS_MAX: usize = 16;

/// The answer to an elicitation that stands for "nobody answered" (elicitation, "Response Actions").
const CANCELLED: &str = "{\"action\":\"cancel\"}";

/// Whether the mode of an elicitation is `url`. Without a mode it is `form`.
fn is_url_mode(params: &str) -> bool {
    json::get(params, &["mode"]) == Some("\"url\"")
}

fn input_kind(method: &str) -> Option<InputKind> {
    [InputKind::Elicit, InputKind::Sample, InputKind::Roots].into_iter().find(|kind| kind.method() == method)
}

/// A valid object with some members set and others removed.
fn changed<'a>(object: &'a str, set: &[(&str, &str)], remove: &[&str]) -> Cow<'a, str> {
    let mut changes = Changes::default();
    remove.iter().for_each(|name| changes.remove(name));
    set.iter().for_each(|(name, raw)| changes.set(name, raw));
    let mut edits = Vec::new();
    match changes.edit(object, Span { start: 0, end: object.len() }, &mut edits) {
        Ok(()) if !edits.is_empty() => Cow::Owned(apply(object, edits)),
        _ => Cow::Borrowed(object),
    }
}

/// Writes an object from names and raw values.
fn object<'v>(members: impl IntoIterator<Item = (&'v str, Cow<'v, str>)>) -> String {
    let members = members.into_iter().map(|(name, raw)| format!("{}:{raw}", json::quote(name)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}
