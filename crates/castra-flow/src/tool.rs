//! A tool as flow control sees it, and what a call of it gave.

use castra_core::Effect;
use serde_json::Value;

use crate::ToolManifest;

/// A tool that is called.
#[derive(Debug, Clone, Copy)]
pub struct Tool<'a> {
    /// `server/tool`.
    pub id: &'a str,
    /// Whether an operator's manifest describes it. If not, it acts, what it returns is untrusted, and
    /// every argument is critical.
    pub described: bool,
    /// What it does to the world, as the gate believes it.
    pub effect: Effect,
    /// Whether it reaches outside the server's own data, as the gate believes it.
    pub external: bool,
    /// What the manifest says; empty if nothing does.
    pub manifest: &'a ToolManifest,
    /// The schema of its arguments, if the catalogue has one.
    pub schema: Option<&'a Value>,
}

impl<'a> Tool<'a> {
    /// The name of the server: what stands before the first `/` of the id.
    pub fn server(&self) -> &'a str {
        self.id.split_once('/').map_or("", |(server, _)| server)
    }

    /// The tool's own name.
    pub fn name(&self) -> &'a str {
        self.id.split_once('/').map_or(self.id, |(_, name)| name)
    }

    /// Whether the call changes nothing. The word of a tool that no manifest describes is the gate's to
    /// believe: it hands in [`Effect::Act`] where it does not.
    pub fn reads(&self) -> bool {
        self.effect == Effect::Read
    }
}

/// The content of a result.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// Structured content, or text that is JSON.
    Json(&'a Value),
    /// Any other text.
    Text(&'a str),
}

/// What a call returned.
#[derive(Debug, Clone, Copy)]
pub struct Returned<'a> {
    /// The result.
    pub content: Content<'a>,
    /// Whether the tool says that it failed.
    pub is_error: bool,
    /// Index of the record of this call in the log, for explanations.
    pub record: u64,
}
