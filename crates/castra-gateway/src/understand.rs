//! Step 3, understand: what is meant, as an [`Action`] that knows no protocol any more.
//!
//! Adapters (`mcp`) parse the bytes and fill this in; from here on nobody looks at the wire again.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use castra_core::{ActionId, AgentIdentity, Effect, Operation, Protocol, ResourceRef, RunId};
use serde::Serialize;

use crate::run::Part;

/// One thing that an agent tries, before anybody has said whether it may.
#[derive(Clone)]
pub(crate) struct Action {
    pub(crate) id: ActionId,
    pub(crate) agent: Arc<AgentIdentity>,
    pub(crate) source: IpAddr,
    pub(crate) run: Option<RunId>,
    pub(crate) protocol: Protocol,
    /// The protocol's revision as the caller speaks it, and whether that is of the stateless era.
    pub(crate) revision: &'static str,
    pub(crate) modern: bool,
    /// The protocol's own word for it, such as `tools/call`.
    pub(crate) method: String,
    pub(crate) operation: Operation,
    pub(crate) resource: ResourceRef,
    pub(crate) effect: Effect,
    pub(crate) external: bool,
    /// The message as it came in.
    pub(crate) request: Bytes,
    /// The arguments within `request`, a JSON object.
    pub(crate) arguments: Option<std::ops::Range<usize>>,
    /// Kinds of what inspectors saw in it.
    pub(crate) findings: Vec<Arc<str>>,
    pub(crate) particulars: Particulars,
    /// What flow control knows of it and of its run; none where it does not look.
    pub(crate) flow: Option<castra_flow::Judgement>,
    /// Its part in its run.
    pub(crate) part: Option<Arc<Part>>,
    /// A model asks for it and the call itself will come to the gate: what flow control says, and what a
    /// person is asked, is left to that.
    pub(crate) judged_at_call: bool,
    /// A person's word for it, once the path has found one.
    pub(crate) approval: Option<castra_core::Approval>,
}

/// What this kind of action has beside what all have.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Particulars {
    #[default]
    None,
    /// A model is asked.
    Model { kind: &'static str, stream: bool, tools: Vec<Arc<str>>, media: bool },
    /// A peer is sent a message.
    Message { method: String, media: bool },
}

impl Particulars {
    /// None where there are none.
    pub(crate) fn some(&self) -> Option<&Self> {
        (!matches!(self, Self::None)).then_some(self)
    }

    /// As policies take them.
    pub(crate) fn for_policies(&self) -> castra_policy::Particulars<'_> {
        use castra_policy::Particulars as To;
        match self {
            Self::None => To::None,
            Self::Model { kind, stream, tools, media } => {
                To::Model { kind, stream: *stream, tools, media: *media }
            }
            Self::Message { method, media } => To::Message { method, media: *media },
        }
    }
}

impl Action {
    pub(crate) fn arguments(&self) -> Option<&[u8]> {
        self.request.get(self.arguments.clone()?)
    }
}
