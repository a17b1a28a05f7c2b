//! What flow control found out about an action, in the words that policies use.
//!
//! `castra-flow` makes these facts, `castra-policy` shows them to Cedar as `context.flow` and
//! `context.approval`. Areas do not know each other, so the words stand here.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How much of a run the gate sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coverage {
    /// Only calls of tools and their results. What the user asked is not known.
    #[default]
    Tools,
    /// Also what the user said: the run's model traffic passes the gate, or the client hands prompts in.
    Full,
}

impl Coverage {
    /// The word that policies and records use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Full => "full",
        }
    }
}

/// What is known of a call and of the run that it belongs to. The default is the worst that can be
/// known: a tainted run without a prompt, a call that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowFacts {
    /// How much of the run the gate sees.
    pub coverage: Coverage,
    /// Whether a manifest describes the tool.
    pub described: bool,
    /// Whether the run has read anything that strangers may have written.
    pub tainted: bool,
    /// Whether anything that the user said is known.
    pub prompted: bool,
    /// Whether the run has read a source that its manifest calls secret.
    pub secret: bool,
    /// Whether an attack on this run was seen before.
    pub suspect: bool,
    /// Whether what the user said asks for this kind of call.
    pub intended: bool,
    /// Critical arguments with a value that no trusted source gave.
    pub unfounded: Vec<Arc<str>>,
    /// Of those, ids of objects that appeared nowhere in the run, where the gate sees all of it: a guess. Nobody
    /// needs to be asked about it; the agent has to look the object up first.
    pub unseen: Vec<Arc<str>>,
    /// Of those, and of free text, arguments with a value that was seen only in untrusted text.
    pub injected: Vec<Arc<str>>,
    /// Free arguments with links, addresses or orders to a machine that no trusted source gave.
    pub active: Vec<Arc<str>>,
    /// Arguments that carry what was first seen in a confidential source to a place that its label does
    /// not allow.
    pub leaking: Vec<Arc<str>>,
}

impl Default for FlowFacts {
    fn default() -> Self {
        Self {
            coverage: Coverage::Tools,
            described: false,
            tainted: true,
            prompted: false,
            secret: false,
            suspect: false,
            intended: false,
            unfounded: Vec::new(),
            unseen: Vec::new(),
            injected: Vec::new(),
            active: Vec::new(),
            leaking: Vec::new(),
        }
    }
}

/// A person's word for exactly one action: bound to agent, run, operation, resource and the canonical
/// form of the arguments, and used up by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Who approved, by id, in the order in which they did.
    pub by: Vec<Arc<str>>,
    /// Whole seconds since the last of them did.
    pub age_secs: u64,
}
