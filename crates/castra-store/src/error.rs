//! Why something could not be read, written or found.

use std::{
    io,
    path::{Path, PathBuf},
};

use castra_core::{AgentName, ModelName};
use castra_identity::CertificateError;
use castra_protect::ProtectError;

use crate::{ApprovalState, Enrolment};

/// Why the store refused. Every message says what happened, why, and what helps.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum StoreError {
    #[error("{} cannot be {action}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} has {bytes} bytes, and {max} are the most that is read", path.display())]
    TooLarge { path: PathBuf, bytes: u64, max: u64 },
    #[error("{} is not UTF-8 text", path.display())]
    NotText { path: PathBuf },
    #[error("{} holds a secret and others can read it (mode {mode:03o}). Run: chmod 600 {0}", path.display())]
    SecretReadable { path: PathBuf, mode: u32 },
    #[error("others can write to {} (mode {mode:03o}), so nothing in it can be trusted. Run: chmod 700 {0}", path.display())]
    FolderWritable { path: PathBuf, mode: u32 },
    #[error("there is no state folder {}. Run `castra up` or `castra init` to make one, or name another with --state", path.display())]
    NoFolder { path: PathBuf },
    #[error("another gate runs on {} (process {holder}). Stop it first, or use another state folder", path.display())]
    GateRuns { path: PathBuf, holder: String },
    #[error("{} is missing, and {what} was made with it. Restore it from a backup; a new one would not fit", path.display())]
    KeyLost { path: PathBuf, what: &'static str },
    #[error("{} is not a key file of Castra: {reason}", path.display())]
    BadKey { path: PathBuf, reason: String },
    #[error("{} has more than {max} policy files", path.display())]
    TooManyPolicies { path: PathBuf, max: usize },
    #[error("{} leads out of the policy folder. Copy the file into the folder", path.display())]
    PolicyOutside { path: PathBuf },
    #[error("the state database failed: {0}")]
    Database(#[from] rusqlite::Error),
    #[error(
        "the state database is of a newer Castra (schema {found}, this one knows {known}). Use the newer program"
    )]
    NewerSchema { found: u32, known: u32 },
    #[error("the state database holds {what} that cannot be read: {reason}")]
    Corrupt { what: &'static str, reason: String },
    #[error("there is an agent {name} already. Use `castra agent rotate {name}` for a new token")]
    AgentExists { name: AgentName },
    #[error(
        "there is no agent {name}. `castra agent list` shows those there are, `castra agent add {name}` adds it"
    )]
    NoAgent { name: AgentName },
    #[error("agent {name} is revoked, and its name is not used again. Add an agent with another name")]
    AgentRevoked { name: AgentName },
    #[error(
        "agent {name} has no token {id} that could be revoked. `castra agent show {name}` lists its tokens"
    )]
    NoToken { name: AgentName, id: String },
    #[error("there is no certificate {serial} that could be revoked")]
    NoCertificate { serial: String },
    #[error(
        "agent {name} has {max} live tokens, which is the most. Revoke one, or rotate with a shorter overlap"
    )]
    TooManyTokens { name: AgentName, max: usize },
    #[error("the enrolment secret {state}. Make a new link with `castra up` or `castra init`")]
    Enrolment { state: Enrolment },
    #[error("{subject:?} cannot name a person or key: use 1 to {max} printable characters")]
    BadSubject { subject: String, max: usize },
    #[error("there is no data key {id}; what it protected cannot be read")]
    NoDataKey { id: u64 },
    #[error(
        "nothing was promoted of the model {route}, or all of it was rolled back: it serves as the configuration says"
    )]
    NothingPromoted { route: ModelName },
    #[error("there is no approval {id:?}. `castra approval list --all` shows those there are")]
    NoApproval { id: String },
    #[error("approval {id} is {}, so it cannot be answered any more", state.as_str())]
    ApprovalEnded { id: String, state: ApprovalState },
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Protect(#[from] ProtectError),
    #[error("the operating system gave no random bytes; the process should not go on")]
    NoRandomness,
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
