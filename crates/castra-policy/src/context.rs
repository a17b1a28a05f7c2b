//! The circumstances of an action as Cedar's `context`: only what the policies at hand read.

use std::{net::IpAddr, sync::Arc};

use castra_core::{
    AgentIdentity, Approval, Coverage, Effect, FlowFacts, Operation, Protocol, ResourceRef, RunId, Timestamp,
};
use cedar_policy::{Context, RestrictedExpression as Value};

use crate::{
    arguments::{self, Misfit},
    reads::Reads,
    types::{ArgumentTypes, ToolTypes},
};

/// One question: may this agent do this to that, now and from there?
#[derive(Debug, Clone, Copy)]
pub struct DecisionRequest<'a> {
    /// Who.
    pub agent: &'a AgentIdentity,
    /// Does what.
    pub operation: Operation,
    /// To what.
    pub resource: &'a ResourceRef,
    /// What the tool does to the world; [`Effect::Act`] when unknown, ignored for what is no tool.
    pub effect: Effect,
    /// Whether the tool reaches outside; true when unknown, ignored for what is no tool.
    pub external: bool,
    /// When.
    pub time: Timestamp,
    /// From where.
    pub source: IpAddr,
    /// By which protocol.
    pub protocol: Protocol,
    /// By which revision of it.
    pub revision: &'a str,
    /// Whether the revision is one without handshake and session.
    pub modern: bool,
    /// In which run.
    pub run: Option<&'a RunId>,
    /// The arguments of a call: one JSON object, as it was sent.
    pub arguments: Option<&'a [u8]>,
    /// Kinds of what inspectors saw in it.
    pub findings: &'a [Arc<str>],
    /// What this kind of action has beside.
    pub particulars: Particulars<'a>,
    /// What flow control knows of it; none where it knows nothing, such as of a question asked beside the
    /// gate: then it counts as a call in an untainted run whose model traffic is not seen.
    pub flow: Option<&'a FlowFacts>,
    /// A person's word for exactly this action.
    pub approval: Option<&'a Approval>,
}

/// What is known of an action beside what all actions have; policies see it in their context.
#[derive(Debug, Clone, Copy, Default)]
pub enum Particulars<'a> {
    /// Nothing: a tool is called, something is read.
    #[default]
    None,
    /// A model is asked (`context.model`).
    Model {
        /// `chat`, `responses`, `messages`, `embeddings` or `count-tokens`.
        kind: &'static str,
        /// Whether the answer is asked for as a stream.
        stream: bool,
        /// Names of the tools that the model may call.
        tools: &'a [Arc<str>],
        /// Whether images, sound or files are in the request.
        media: bool,
    },
    /// A peer is sent a message (`context.message`).
    Message {
        /// The operation in A2A's own words, such as `SendMessage`.
        method: &'a str,
        /// Whether files are in the message.
        media: bool,
    },
}

/// What policies see where flow control does not look: a call in an untainted run of which only tools are
/// seen. A gate that looks hands in facts, and their default is the worst that can be known.
static NOT_LOOKED_AT: FlowFacts = FlowFacts {
    coverage: Coverage::Tools,
    described: false,
    tainted: false,
    prompted: false,
    secret: false,
    suspect: false,
    intended: false,
    unfounded: Vec::new(),
    unseen: Vec::new(),
    injected: Vec::new(),
    active: Vec::new(),
    leaking: Vec::new(),
};

/// Which parts of the context have to be built.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    reads: Reads,
}

/// The catalogue's types that a request needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Types<'a> {
    pub(crate) arguments: &'a ArgumentTypes,
    /// Of the called tool.
    pub(crate) tool: Option<&'a ToolTypes>,
}

impl Plan {
    pub(crate) fn new(reads: Reads) -> Self {
        Self { reads }
    }

    pub(crate) fn build(&self, request: &DecisionRequest<'_>, types: Types<'_>) -> Result<Context, Misfit> {
        let mut pairs = Vec::with_capacity(8);
        self.records(request, &mut pairs)?;
        self.words(request, &mut pairs);
        if request.operation == Operation::Call {
            self.arguments(request, types, &mut pairs)?;
        }
        Context::from_pairs(pairs).map_err(undecidable)
    }

    fn records(&self, request: &DecisionRequest<'_>, pairs: &mut Vec<(String, Value)>) -> Result<(), Misfit> {
        if self.reads.needs(&["time"]) {
            pairs.push(("time".to_owned(), self.time(request.time)?));
        }
        if self.reads.needs(&["source"]) {
            let ip = request.source.to_canonical();
            let mut fields = Vec::new();
            self.put(&mut fields, &["source", "ip"], || Value::new_ip(ip.to_string()));
            self.put(&mut fields, &["source", "network"], || Value::new_string(network(ip).to_owned()));
            pairs.push(("source".to_owned(), record(fields)?));
        }
        if self.reads.needs(&["auth"]) {
            let method = &request.agent.method;
            let mut fields = Vec::new();
            self.put(&mut fields, &["auth", "method"], || Value::new_string(method.as_str().to_owned()));
            self.put(&mut fields, &["auth", "strength"], || Value::new_long(method.strength() as i64));
            pairs.push(("auth".to_owned(), record(fields)?));
        }
        if self.reads.needs(&["delegation"]) {
            let chain = &request.agent.delegation;
            let depth = i64::try_from(chain.len()).unwrap_or(i64::MAX);
            let mut fields = Vec::new();
            self.put(&mut fields, &["delegation", "depth"], || Value::new_long(depth));
            self.put(&mut fields, &["delegation", "chain"], || texts(chain));
            pairs.push(("delegation".to_owned(), record(fields)?));
        }
        self.put(pairs, &["findings"], || texts(request.findings));
        self.flow(request, pairs)?;
        self.particulars(request, pairs)
    }

    fn flow(&self, request: &DecisionRequest<'_>, pairs: &mut Vec<(String, Value)>) -> Result<(), Misfit> {
        if self.reads.needs(&["flow"]) {
            let facts = request.flow.unwrap_or(&NOT_LOOKED_AT);
            let mut fields = Vec::with_capacity(12);
            self.put(&mut fields, &["flow", "coverage"], || {
                Value::new_string(facts.coverage.as_str().to_owned())
            });
            for (name, holds) in [
                ("described", facts.described),
                ("tainted", facts.tainted),
                ("prompted", facts.prompted),
                ("secret", facts.secret),
                ("suspect", facts.suspect),
                ("intended", facts.intended),
            ] {
                self.put(&mut fields, &["flow", name], || Value::new_bool(holds));
            }
            for (name, arguments) in [
                ("unfounded", &facts.unfounded),
                ("unseen", &facts.unseen),
                ("injected", &facts.injected),
                ("active", &facts.active),
                ("leaking", &facts.leaking),
            ] {
                self.put(&mut fields, &["flow", name], || texts(arguments));
            }
            pairs.push(("flow".to_owned(), record(fields)?));
        }
        if let Some(approval) = request.approval.filter(|_| self.reads.needs(&["approval"])) {
            let age = i64::try_from(approval.age_secs).unwrap_or(i64::MAX);
            let mut fields = Vec::with_capacity(2);
            self.put(&mut fields, &["approval", "by"], || texts(&approval.by));
            self.put(&mut fields, &["approval", "age"], || Value::new_long(age));
            pairs.push(("approval".to_owned(), record(fields)?));
        }
        Ok(())
    }

    fn particulars(
        &self,
        request: &DecisionRequest<'_>,
        pairs: &mut Vec<(String, Value)>,
    ) -> Result<(), Misfit> {
        let mut fields = Vec::new();
        let name = match request.particulars {
            Particulars::None => return Ok(()),
            Particulars::Model { kind, stream, tools, media } => {
                self.put(&mut fields, &["model", "kind"], || Value::new_string(kind.to_owned()));
                self.put(&mut fields, &["model", "stream"], || Value::new_bool(stream));
                self.put(&mut fields, &["model", "tools"], || texts(tools));
                self.put(&mut fields, &["model", "media"], || Value::new_bool(media));
                "model"
            }
            Particulars::Message { method, media } => {
                self.put(&mut fields, &["message", "method"], || Value::new_string(method.to_owned()));
                self.put(&mut fields, &["message", "media"], || Value::new_bool(media));
                "message"
            }
        };
        if self.reads.needs(&[name]) {
            pairs.push((name.to_owned(), record(fields)?));
        }
        Ok(())
    }

    fn time(&self, time: Timestamp) -> Result<Value, Misfit> {
        let mut fields = Vec::new();
        self.put(&mut fields, &["time", "epoch"], || Value::new_long(time.secs()));
        self.put(&mut fields, &["time", "hour"], || Value::new_long(time.hour().into()));
        self.put(&mut fields, &["time", "minute_of_day"], || Value::new_long(time.minute_of_day().into()));
        self.put(&mut fields, &["time", "weekday"], || Value::new_string(time.weekday().as_str().to_owned()));
        self.put(&mut fields, &["time", "datetime"], || Value::new_datetime(datetime(time)));
        record(fields)
    }

    fn words(&self, request: &DecisionRequest<'_>, pairs: &mut Vec<(String, Value)>) {
        let era = if request.modern { "modern" } else { "legacy" };
        self.put(pairs, &["protocol"], || Value::new_string(request.protocol.as_str().to_owned()));
        self.put(pairs, &["era"], || Value::new_string(era.to_owned()));
        self.put(pairs, &["revision"], || Value::new_string(request.revision.to_owned()));
        if let Some(run) = request.run {
            self.put(pairs, &["run"], || Value::new_string(run.as_str().to_owned()));
        }
    }

    fn arguments(
        &self,
        request: &DecisionRequest<'_>,
        types: Types<'_>,
        pairs: &mut Vec<(String, Value)>,
    ) -> Result<(), Misfit> {
        let raw = request.arguments.unwrap_or(b"{}");
        if let Some(reads) = self.below("args") {
            pairs.push(("args".to_owned(), arguments::by_name(raw, types.arguments, &reads)?));
        }
        if let Some(reads) = self.below("call") {
            let tool = matches!(request.resource, ResourceRef::Tool { .. }).then(|| request.resource.id());
            let mut calls = Vec::new();
            if let Some(tool) = tool {
                let reads = if reads.whole { Some(Reads::all()) } else { reads.field(&tool).cloned() };
                if let Some(reads) = reads {
                    calls.push((tool, arguments::by_tool(raw, types.tool, &reads)?));
                }
            }
            pairs.push(("call".to_owned(), record(calls)?));
        }
        Ok(())
    }

    fn below(&self, name: &str) -> Option<std::borrow::Cow<'_, Reads>> {
        use std::borrow::Cow;
        if self.reads.whole {
            Some(Cow::Owned(Reads::all()))
        } else {
            self.reads.field(name).map(Cow::Borrowed)
        }
    }

    fn put(&self, to: &mut Vec<(String, Value)>, path: &[&str], value: impl FnOnce() -> Value) {
        if let (true, Some(name)) = (self.reads.needs(path), path.last()) {
            to.push(((*name).to_owned(), value()));
        }
    }
}

fn record(fields: Vec<(String, Value)>) -> Result<Value, Misfit> {
    Value::new_record(fields).map_err(undecidable)
}

fn texts(of: &[Arc<str>]) -> Value {
    Value::new_set(of.iter().map(|text| Value::new_string(text.to_string())))
}

fn undecidable(error: impl std::error::Error) -> Misfit {
    Misfit::new(format!("cannot be expressed in Cedar: {error}"))
}

/// The form that Cedar's `datetime` reads (RFC 80 of Cedar: milliseconds, `Z`).
fn datetime(time: Timestamp) -> String {
    let mut text = Timestamp(time.millis().saturating_mul(1000)).to_string();
    // The last four characters are three digits of microseconds and the Z.
    text.truncate(text.len().saturating_sub(4));
    text.push('Z');
    text
}

/// "loopback"; "private": RFC 1918, RFC 4193, link-local; else "public".
fn network(ip: IpAddr) -> &'static str {
    let private = match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    if ip.is_loopback() {
        "loopback"
    } else if private {
        "private"
    } else {
        "public"
    }
}
