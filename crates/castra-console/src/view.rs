//! What the console reads of a gate and what it may order. The program implements it.

use std::sync::Arc;

use bytes::Bytes;
use castra_core::{PersonIdentity, PolicyMode, Refusal, ServerName, Timestamp};
use serde::Serialize;
use serde_json::Value;

/// A running gate as an operator sees it.
pub trait GateView: Send + Sync + 'static {
    /// What must be right for the gate to decide and record: log writable, policies loaded,
    /// listeners up. Quick.
    fn checks(&self) -> Vec<Check>;
    /// The page of metrics in the Prometheus text format. Quick.
    fn metrics(&self) -> String;
    /// The state of the whole. Quick.
    fn status(&self) -> Status;
    /// The configured servers with what is known of their tools. Quick.
    fn servers(&self) -> Vec<ServerView>;
    /// Who an operator token belongs to, or why it is not good. Quick.
    fn operator(&self, token: &str) -> Result<Arc<PersonIdentity>, Refusal>;
    /// The agents, as `castra agent list --json` prints them: objects with an `id`. May block.
    fn agents(&self) -> Result<Vec<Value>, ViewError>;
    /// What waits for a person's word, as `castra approval list --json` prints it: objects with an `id`.
    /// May block.
    fn approvals(&self) -> Result<Vec<Value>, ViewError>;
    /// The accounts of budgets, as `castra budget list --json` prints them: objects with an `id`. Quick.
    fn budgets(&self) -> Result<Vec<Value>, ViewError>;
    /// Entries of the log from `start` on, at most `limit`, as they are in the log. May block.
    fn entries(&self, start: u64, limit: usize) -> Result<Vec<Bytes>, ViewError>;
    /// A file of the public log: `checkpoint`, or a tile's path in the one form that tlog-tiles
    /// has for it. None when there is no such file. May block.
    fn log_file(&self, path: &str) -> Result<Option<Vec<u8>>, ViewError>;
    /// Redeems an enrolment link for an operator token. Works once per link. May block.
    fn enrol(&self, secret: &str) -> Result<Enrolled, EnrolError>;
}

/// One thing that must be right.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What is checked, such as `log`.
    pub name: &'static str,
    /// Whether it is right.
    pub ok: bool,
    /// Why not, or what was found.
    pub reason: String,
}

/// The state of the whole.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Version of the program.
    pub version: &'static str,
    /// When this process began to serve.
    pub started: Timestamp,
    /// URL of the gate, for agents.
    pub gate: String,
    /// Whether decisions are enforced.
    pub mode: PolicyMode,
    /// Digest of the policy set in force.
    pub policy_set: String,
    /// Number of policies in it.
    pub policies: usize,
    /// Actions in flight.
    pub in_flight: i64,
    /// The log.
    pub log: LogStatus,
}

/// The state of the log.
#[derive(Debug, Clone, Serialize)]
pub struct LogStatus {
    /// The key that verifies its checkpoints, in signed-note form.
    pub key: String,
    /// Entries that were appended.
    pub appended: u64,
    /// Entries that are on disk.
    pub durable: u64,
    /// Entries that the checkpoint covers.
    pub integrated: u64,
    /// Why nothing can be written any more, if so.
    pub failed: Option<String>,
}

/// One configured server.
#[derive(Debug, Clone, Serialize)]
pub struct ServerView {
    /// Its name.
    pub id: ServerName,
    /// `http` or `stdio`.
    pub transport: &'static str,
    /// The protocol revision that it speaks, once it was reached.
    pub revision: Option<&'static str>,
    /// What went wrong last, if nothing has gone right since.
    pub problem: Option<String>,
    /// Its tools, as far as they were seen.
    pub tools: Vec<ToolView>,
}

/// One tool of a server.
#[derive(Debug, Clone, Serialize)]
pub struct ToolView {
    /// `server/tool`.
    pub id: String,
    /// `read`, `write`, `destroy` or `act`.
    pub effect: &'static str,
}

/// Why something could not be read. The text is for operators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ViewError(pub String);

/// A new operator. The token is shown once; neither it nor this type is ever logged.
pub struct Enrolled {
    /// Who it is.
    pub person: String,
    /// The operator token in clear.
    pub token: String,
    /// When the token ends, if it does.
    pub expires: Option<Timestamp>,
}

/// Why an enrolment link was not redeemed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnrolError {
    /// Nobody made such a link.
    #[error("this link was not made by this gate")]
    Unknown,
    /// It was redeemed before.
    #[error("this link was used already")]
    Used,
    /// It is too old.
    #[error("this link has expired")]
    Expired,
    /// It could not be done.
    #[error("the link could not be redeemed: {0}")]
    Failed(String),
}
