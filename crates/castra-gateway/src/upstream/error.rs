//! Why an upstream gave no answer. Each variant is one way for a server to fail or to misbehave.

use std::{sync::Arc, time::Duration};

use castra_core::{Refusal, RefusalCode, ServerName, Step};
use castra_host::child::{ChildError, Exit};
use castra_net::client::ClientError;
use http::StatusCode;

/// Why there is no answer. Holds no content of messages and no configured header or variable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamError {
    /// No connection came about; nothing was sent.
    #[error("cannot be reached: {0}")]
    Unreachable(#[source] ClientError),
    /// The connection broke before the answer was whole; the request may have arrived.
    #[error("broke the connection: {0}")]
    Broken(Arc<str>),
    /// The child process could not be started.
    #[error("did not start: {0}")]
    NotStarted(#[source] ChildError),
    /// The child process ended while it was needed.
    #[error("ended with {0}")]
    Died(Exit),
    /// The gate closed the session.
    #[error("was closed by the gate")]
    Closed,
    /// The server forgot the session (404); a new one has to be opened.
    #[error("forgot the session")]
    SessionExpired,
    /// Nothing came in time.
    #[error("gave no {awaited} within {} seconds", after.as_secs())]
    Timeout {
        /// What was waited for.
        awaited: &'static str,
        /// How long.
        after: Duration,
    },
    /// It failed again and again, so the next attempt waits.
    #[error("failed {failures} times in a row, last: it {last}; the next attempt is in {} ms", retry_in.as_millis())]
    BackingOff {
        /// Failures in a row.
        failures: u32,
        /// When an attempt will be made again.
        retry_in: Duration,
        /// What the last failure was.
        last: Arc<str>,
    },
    /// As many child processes run as may.
    #[error("has {max} processes running, which is the limit")]
    TooManyChildren {
        /// The limit.
        max: usize,
    },
    /// A body, an event or a line is longer than the limit.
    #[error("sent {what} of more than {max} bytes")]
    TooLarge {
        /// What was too long.
        what: &'static str,
        /// The limit in bytes.
        max: usize,
    },
    /// It sent more than its caller could take.
    #[error("sent messages faster than they could be taken, more than {max} waited")]
    Flooded {
        /// How many may wait.
        max: usize,
    },
    /// What it sent is no JSON-RPC message of MCP.
    #[error("sent something that is not a message: {fault}")]
    NotAMessage {
        /// What is wrong with it.
        fault: Arc<str>,
    },
    /// It answered a request that was not this one.
    #[error("answered another request than the one it was asked")]
    ForeignId,
    /// It sent something else where an answer had to be.
    #[error("sent a {kind} where the answer had to be")]
    NotAnAnswer {
        /// What it sent.
        kind: &'static str,
    },
    /// It took a request as if it were a notification (202).
    #[error("took the request without answering it")]
    NoAnswer,
    /// The stream ended before the answer.
    #[error("ended the stream before the answer")]
    EndedEarly,
    /// It asked the client something where its revision does not allow that.
    #[error("sent a request of its own, which revision 2026-07-28 does not allow")]
    UnaskedRequest,
    /// Neither JSON nor an event stream, such as the HTML page of some proxy.
    #[error(
        "answered with status {status} and content type {content_type:?} instead of JSON or an event stream"
    )]
    WrongContentType {
        /// The HTTP status.
        status: StatusCode,
        /// The content type as sent, cut.
        content_type: Arc<str>,
    },
    /// It sent us elsewhere. Redirects are not followed: they could lead past the configured server.
    #[error("answered with a redirect ({0}), which is not followed")]
    Redirected(StatusCode),
    /// An HTTP error without a JSON-RPC error in it.
    #[error("answered with HTTP status {0}")]
    Status(StatusCode),
    /// A header of its own that breaks the specification.
    #[error("sent a bad {0} header")]
    BadHeader(&'static str),
    /// It refused to be asked who it is, or to open a session.
    #[error("refused {method} with error {code}: {message}")]
    HandshakeRefused {
        /// The method.
        method: &'static str,
        /// The JSON-RPC error code.
        code: i64,
        /// The message of the server, cut and without control characters.
        message: Arc<str>,
    },
    /// The answer to the handshake is not what the specification says.
    #[error("answered {method} without a usable {member}")]
    BadHandshake {
        /// The method.
        method: &'static str,
        /// What is missing or wrong.
        member: &'static str,
    },
    /// No revision that both sides speak.
    #[error("speaks revision {offered}, which is not spoken here")]
    NoCommonRevision {
        /// What it offered, cut.
        offered: Arc<str>,
    },
    /// A session with a server that has none.
    #[error("is stateless and has no sessions")]
    Stateless,
    /// A stateless request to a server that needs a session.
    #[error("needs a session for this")]
    NotStateless,
}

impl UpstreamError {
    /// The kind of refusal that it becomes.
    pub fn code(&self) -> RefusalCode {
        match self {
            Self::Unreachable(_)
            | Self::Broken(_)
            | Self::NotStarted(_)
            | Self::Died(_)
            | Self::Closed
            | Self::SessionExpired
            | Self::BackingOff { .. }
            | Self::Status(_)
            | Self::HandshakeRefused { .. } => RefusalCode::UpstreamUnavailable,
            Self::Timeout { .. } => RefusalCode::UpstreamTimeout,
            Self::TooManyChildren { .. } => RefusalCode::Busy,
            Self::TooLarge { .. } => RefusalCode::LimitReached,
            Self::NoCommonRevision { .. } => RefusalCode::UnsupportedVersion,
            Self::NotStateless | Self::Stateless => RefusalCode::NotAllowedHere,
            Self::Flooded { .. }
            | Self::NotAMessage { .. }
            | Self::ForeignId
            | Self::NotAnAnswer { .. }
            | Self::NoAnswer
            | Self::EndedEarly
            | Self::UnaskedRequest
            | Self::WrongContentType { .. }
            | Self::Redirected(_)
            | Self::BadHeader(_)
            | Self::BadHandshake { .. } => RefusalCode::UpstreamMisbehaved,
        }
    }

    /// The refusal that the caller gets and the ledger keeps.
    pub fn refusal(&self, server: &ServerName) -> Refusal {
        Refusal::new(Step::Act, self.code(), format!("the server {server} {self}")).advise(self.advice())
    }

    /// Whether the server has not acted on the request, so that sending it again on a new session
    /// cannot do a thing twice.
    pub fn retry_elsewhere(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_)
                | Self::NotStarted(_)
                | Self::SessionExpired
                | Self::BackingOff { .. }
                | Self::TooManyChildren { .. }
        )
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "Check the server's url in castra.toml and whether the server runs",
            Self::NotStarted(_) => "Check the server's command in castra.toml",
            Self::Redirected(_) => "Put the address that it redirects to into castra.toml, if you trust it",
            Self::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                "Check the credentials in the server's headers in castra.toml"
            }
            Self::WrongContentType { .. } | Self::Status(StatusCode::NOT_FOUND) => {
                "Check that the server's url in castra.toml is its MCP endpoint"
            }
            Self::TooLarge { .. } => "Ask for less, or raise limits.answer_bytes_max in castra.toml",
            Self::TooManyChildren { .. } => {
                "Try again, or raise limits.children_per_server_max in castra.toml"
            }
            Self::Died(_) => "Its standard error is in the gate's log",
            _ => "",
        }
    }
}

impl From<ClientError> for UpstreamError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Broken(reason) => Self::Broken(reason),
            ClientError::NoConnection(_) | ClientError::NoRoots(_) => Self::Unreachable(error),
        }
    }
}

/// Text of a server for an error: cut, and without characters that could act on a terminal.
pub(super) fn shown(text: &str) -> Arc<str> {
    text.chars().filter(|c| !c.is_control()).take(160).collect::<String>().into()
}
