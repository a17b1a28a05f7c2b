//! The words of Castra: the types that every other crate speaks in.
//!
//! One name for one thing, as in `ARCHITECTURE.md`. Nothing here does input or output, reads a
//! clock or draws a random number; clock and chance are handed in. This crate stays tiny, because
//! an edit here rebuilds everything.

mod action;
mod decision;
mod digest;
mod flow;
mod identity;
mod inspect;
mod limits;
mod names;
mod refusal;
mod time;

pub use action::{ActionId, Effect, Operation, Protocol, ResourceRef, RunId};
pub use decision::{Decision, PolicyMode, Verdict};
pub use digest::Digest;
pub use flow::{Approval, Coverage, FlowFacts};
pub use identity::{AgentIdentity, AuthMethod, AuthStrength, Caller, PersonIdentity};
pub use inspect::{Finding, Severity, StreamMode, TextScanner};
pub use limits::Limits;
pub use names::{AgentName, GroupName, ModelName, NameError, PeerName, ServerName};
pub use refusal::{Refusal, RefusalCode, Step};
pub use time::{Timestamp, Weekday};
