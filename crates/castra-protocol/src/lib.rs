//! Bytes to actions and decisions to bytes: MCP in both eras, model APIs, A2A.
//!
//! Everything here is a pure function of its arguments. Start with [`mcp::parse`], which reads one
//! message into a borrowed view; [`mcp::classify`] says what its method is; [`mcp::Splice`] changes
//! what must change and leaves every other byte; [`mcp::bridge`] translates between the eras.
//! [`model::parse_request`], [`model::prepare`] and [`model::answer`] do the same for model APIs, and
//! translate between their forms. [`json`] and [`sse`] are the two syntaxes below; [`canonical`] is the form that digests are of.

pub mod a2a;
mod canonical;
mod edit;
pub mod json;
pub mod mcp;
pub mod model;
pub mod sse;

pub use canonical::{CanonicalError, canonical};
