//! The heart of flow control: what a call's arguments are made of, and whether anybody who may say so
//! asked for it. Plain functions on values; nothing here reads a clock, a file or a socket.
//!
//! A [`Run`] is told everything that the gate sees of one task: what the user said
//! ([`Run::user_said`]), what tools returned ([`Run::returned`]), what came from elsewhere
//! ([`Run::received`]). Before a call it is asked ([`Run::judge`]) and answers with facts, never with a
//! decision: those belong to policy. A [`Manifest`] says what a server's catalogue cannot.

mod active;
mod credentials;
mod dates;
mod intent;
mod json;
mod judge;
mod judgement;
mod known;
mod labels;
mod limits;
mod manifest;
mod mark;
mod prompt;
mod records;
mod run;
mod scanned;
mod seen;
mod text;
mod tool;

pub use castra_core::{Coverage, FlowFacts};
pub use judgement::{ActiveSpan, ArgumentFinding, Judgement, Origin};
pub use manifest::{ArgumentKind, Confidentiality, Manifest, ManifestError, Output, Secret, ToolManifest};
pub use mark::{Mark, Marks, NoMarks};
pub use run::{Run, RunFacts};
pub use tool::{Content, Returned, Tool};
