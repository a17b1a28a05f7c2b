//! Model Context Protocol, revisions 2025-03-26 to 2026-07-28.
//!
//! The path of a message: [`parse`] gives a view, [`opening`] says which revision it is in,
//! [`headers::check`] compares it with the HTTP headers, [`classify`] says what it is. What goes on is
//! the same bytes, with a [`Splice`] where a name or an id must change, or what [`bridge`] makes of
//! them when the two sides speak different eras. What is refused becomes bytes in [`refusal`].

mod answer;
pub mod bridge;
mod field;
pub mod headers;
pub mod lists;
mod message;
mod method;
mod opening;
mod revision;
mod routes;
mod splice;

pub use answer::{
    APPROVAL_STATE, Answer, ApprovalRequired, META_APPROVAL, META_RECEIPT, META_REFUSAL, Missing,
    RefusalContext, approval_question, code, error_response, refusal, result_response,
};
pub use message::{
    ErrorView, Id, LogLevel, Message, Meta, Notification, Outcome, ParseError, ParseFault, ParseLimits,
    Request, Response, ResultView, Target, TargetKind, parse,
};
pub use method::{
    ActionOn, Handshake, InputKind, ListKind, MethodKind, NotificationKind, classify, exists_in,
};
pub use opening::{Opening, OpeningFault, opening};
pub use revision::{Era, Revision, negotiate};
pub use routes::{NoRoute, UriRoutes, federated_name, split_name};
pub use splice::Splice;

/// Keys of `_meta` that the specification reserves (2026-07-28, basic, "`_meta`").
pub mod meta_key {
    /// The revision of a request.
    pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    /// Name and version of the client.
    pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    /// What the client can do.
    pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    /// The least severe log message that is wanted.
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    /// The subscription that a notification belongs to.
    pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
    /// Name and version of the server.
    pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
    /// Opts into progress notifications.
    pub const PROGRESS_TOKEN: &str = "progressToken";
    /// W3C Trace Context.
    pub const TRACEPARENT: &str = "traceparent";
    /// The task that a message of 2025-11-25 belongs to.
    pub const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";
}
