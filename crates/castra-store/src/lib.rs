//! Everything on disk: SQLite state, the log and its journal, keys, policy files.
//!
//! `folder` is the state folder with its locks and key files, `state` the database in it, `files`
//! the few ways in which any file is read or written, `clock` the program's clock and source of
//! chance. All calls block for as long as the disk takes.
#![allow(clippy::disallowed_methods)] // the rightful place of files and of the program's clock

pub mod clock;
mod error;
pub mod files;
mod folder;
pub mod log;
mod state;

pub use error::StoreError;
pub use folder::{GateLock, KeyFiles, ServerCertificate, StateDir};
pub use state::{
    AgentDetail, AgentRow, ApprovalAsk, ApprovalBounds, ApprovalFollower, ApprovalOf, ApprovalRow,
    ApprovalState, AskedApproval, BudgetAmounts, BudgetRow, CertificateRow, CredentialFollower, Enrolment,
    IssuedToken, KeptRun, PeerCard, PeerRow, PeerThing, PromotionFollower, PromotionKind, PromotionRow,
    Promotions, RunRow, RunWrite, SeenCard, SeenTool, Share, State, TokenRow, ToolRow,
};
