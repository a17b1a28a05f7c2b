//! What a run was told already, so that a chat that repeats its history tells it nothing twice; and the
//! texts in what is told.

use std::collections::HashSet;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Things of one kind that are remembered. What is told again beyond it only repeats itself.
const THINGS_MAX: usize = 16_384;

/// Messages and results that a run was told.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Seen {
    digests: HashSet<u128>,
    /// Tools of the gate that were called in this run.
    tools: HashSet<String>,
    /// Whether the run has asked a model before.
    pub(super) talked: bool,
}

impl Seen {
    /// Whether this is new. `what` keeps things of different kinds apart.
    pub(super) fn is_new(&mut self, what: &str, text: &str) -> bool {
        let mut hash = Context::new(&SHA256);
        hash.update(what.as_bytes());
        hash.update(b"\0");
        hash.update(text.as_bytes());
        let hash = hash.finish();
        let digest = hash.as_ref().first_chunk().copied().map(u128::from_be_bytes).unwrap_or_default();
        if self.digests.contains(&digest) {
            return false;
        }
        if self.digests.len() < THINGS_MAX {
            self.digests.insert(digest);
        }
        true
    }

    /// A tool of the gate was called.
    pub(super) fn called(&mut self, tool: &str) {
        if self.tools.len() < THINGS_MAX && !self.tools.contains(tool) {
            self.tools.insert(tool.to_owned());
        }
    }

    pub(super) fn has_called(&self, tool: &str) -> bool {
        self.tools.contains(tool)
    }

    pub(super) fn size(&self) -> usize {
        self.digests.capacity() * 17 + self.tools.iter().map(|tool| tool.capacity() + 33).sum::<usize>()
    }
}

/// All strings within a value, one a line.
pub(crate) fn leaves(value: &Value) -> String {
    let mut out = String::new();
    push(value, &mut out);
    out
}

fn push(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => {
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(text);
        }
        Value::Array(items) => items.iter().for_each(|item| push(item, out)),
        Value::Object(members) => members.values().for_each(|member| push(member, out)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
