//! Agent2Agent 1.0: requests of both HTTP bindings as one borrowed view, answers and stream events, errors, cards.
//!
//! Source: the A2A specification 1.0 with its `a2a.proto`; bodies are ProtoJSON. A request of either
//! binding (section 9, JSON-RPC; section 11, HTTP+JSON) becomes a [`Request`], which says what the
//! gate has to know (which task, which conversation, where notifications go) and leaves the rest
//! of the bytes alone. ProtoJSON lets a field be written as `taskId` and as `task_id`; both are read
//! here, and a message that has both is refused, because its receiver might take the other one.

mod answer;
pub mod card;
mod error;
mod fields;
mod http;
pub mod jcs;
mod method;
mod request;
mod rpc;

pub use self::{
    answer::{Answer, Artifact, Event, Ids, continuation, read_answer, read_error, read_event},
    card::AgentCard,
    error::{ErrorKind, Notes, error_body, refusal_kind},
    fields::Fault,
    http::{HttpRequest, parse_http},
    method::{Binding, Method},
    request::Request,
    rpc::{RpcFault, parse_rpc},
};

/// The version that is spoken here, as `A2A-Version` names it.
pub const VERSION: &str = "1.0";
/// The header (and query parameter) with the version that a client speaks.
pub const VERSION_HEADER: &str = "a2a-version";
/// The header with the extensions that a client asks for and a server used.
pub const EXTENSIONS_HEADER: &str = "a2a-extensions";
/// The media type of HTTP+JSON bodies; `application/json` is taken as well.
pub const MEDIA_TYPE: &str = "application/a2a+json";
/// Where a card is, below an agent's own address.
pub const CARD_PATH: &str = "/.well-known/agent-card.json";

/// Longest id of a task, a conversation or a notification's configuration; agents use UUIDs.
pub const ID_BYTES_MAX: usize = 1024;

/// Checks the version that a request names in its header and its query (specification, section
/// 3.6): the same in both, and `1.0` with any patch number. A request that names none is one of 0.3.
///
/// # Errors
/// [`Fault::Version`] with what was asked for.
pub fn check_version(header: Option<&str>, query: Option<&str>) -> Result<(), Fault> {
    let named = match (header.map(str::trim), query.map(str::trim)) {
        (Some(a), Some(b)) if a != b => return Err(Fault::Version(format!("{a} and {b}"))),
        (Some(one), _) | (None, Some(one)) if !one.is_empty() => one,
        _ => "0.3",
    };
    let mut parts = named.split('.');
    let (major, minor, patch) = (parts.next(), parts.next(), parts.next());
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let good = major == Some("1") && minor == Some("0") && patch.is_none_or(digits) && parts.next().is_none();
    if good { Ok(()) } else { Err(Fault::Version(named.chars().take(40).collect())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_version_is_spoken() {
        for (header, query) in
            [(Some("1.0"), None), (None, Some("1.0")), (Some("1.0.7"), None), (Some("1.0"), Some("1.0"))]
        {
            assert_eq!(check_version(header, query), Ok(()), "{header:?} {query:?}");
        }
        for (header, query) in [
            (None, None),
            (Some(""), None),
            (Some("0.3"), None),
            (Some("1.1"), None),
            (Some("1"), None),
            (Some("1.0.x"), None),
            (Some("1.0"), Some("0.3")),
        ] {
            assert!(check_version(header, query).is_err(), "{header:?} {query:?}");
        }
    }
}
