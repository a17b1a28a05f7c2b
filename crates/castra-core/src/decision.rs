//! What was decided, and why.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::StreamMode;

/// The answer to "may this happen?".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It may.
    Allow,
    /// It may not.
    Deny,
    /// It may once a person has said so, and not before.
    Ask,
}

impl Decision {
    /// The word that records use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Ask => "ask",
        }
    }
}

/// Whether decisions are enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyMode {
    /// A denied action is refused, one that a person has to approve waits for it.
    #[default]
    Enforce,
    /// A denied action is recorded as denied and let through.
    Observe,
}

/// A decision with what made it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What was decided.
    pub decision: Decision,
    /// Ids of the policies that determined it, in a stable order; empty when none permitted.
    pub policies: Vec<Arc<str>>,
    /// Ids of the forbids that a person's word would lift; empty unless the decision is [`Decision::Ask`].
    pub ask: Vec<Arc<str>>,
    /// One sentence on why, for a person or a model to read; names policies and facts.
    pub reason: String,
    /// What would have to change for another answer; empty for an allowed action.
    pub advice: String,
    /// Digest of the policy set that decided, so that the decision can be replayed.
    pub policy_set: Arc<str>,
    /// How the answer is to be inspected, where a policy that permitted says so (`@inspect("hold")`);
    /// of several the strictest.
    pub inspect: Option<StreamMode>,
}
