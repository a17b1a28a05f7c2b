//! Tool calls in a model's answer. Each is an action of its own, decided when it leaves the model, so
//! that an agent's own tools are guarded too, whoever runs them. One that may not happen gives way to
//! words that the model and the agent understand.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use castra_core::{Effect, FlowFacts, Operation, Refusal, RefusalCode, ResourceRef, RunId, ServerName, Step};
use castra_flow::Judgement;
use castra_ledger::Status;
use castra_protocol::{
    json, mcp,
    model::{Api, ToolCall},
};

use super::{
    call::{Caller, REVISION},
    watch::{Seen, Watch},
};
use crate::{
    catalogue::{Server, ToolFacts},
    path::{self, Stopped},
    record::{Ending, Noted},
    run::Source,
    understand::{Action, Particulars},
};

/// Longer names are refused: policies have no names for them.
const NAME_BYTES_MAX: usize = 256;

/// Decides the tool calls of one answer.
#[derive(Clone)]
pub(super) struct Judge {
    caller: Arc<Caller>,
    run: Option<RunId>,
    offered: Offered,
    watch: Watch,
}

/// Which tools the model may know of.
#[derive(Clone)]
pub(super) struct Offered {
    /// Those that the request names; none if it goes on from an earlier one that may have named more.
    names: Option<Vec<Arc<str>>>,
    /// What each takes, by its name: the names of its parameters, sorted.
    parameters: Arc<HashMap<Arc<str>, Vec<Arc<str>>>>,
}

impl Offered {
    pub(super) fn new(names: Option<Vec<Arc<str>>>, parameters: HashMap<Arc<str>, Vec<Arc<str>>>) -> Self {
        Self { names, parameters: Arc::new(parameters) }
    }
}

/// What becomes of a tool call.
pub(super) enum Judged {
    /// It goes to the agent.
    Release,
    /// It goes to the agent with these arguments.
    Masked(String),
    /// These words go to the agent in its place.
    Refused(String),
}

impl Judged {
    /// The words in place of a refused call.
    pub(super) fn refused(self) -> Option<String> {
        match self {
            Self::Refused(words) => Some(words),
            Self::Release | Self::Masked(_) => None,
        }
    }
}

/// What a call is directed at.
struct Target {
    resource: ResourceRef,
    effect: Effect,
    external: bool,
    /// The agent calls it through the gate, where the call itself is decided.
    comes_to_the_gate: bool,
    /// Whether a manifest describes it.
    described: bool,
}

impl Target {
    fn of_gate(tool: GateTool) -> Self {
        Self {
            resource: tool.server.tool_ref(&tool.name),
            effect: tool.facts.effect,
            external: tool.facts.external,
            comes_to_the_gate: true,
            described: tool.facts.described(),
        }
    }
}

/// A tool of a server behind the gate.
struct GateTool {
    server: Arc<Server>,
    name: Arc<str>,
    facts: Arc<ToolFacts>,
}

impl Caller {
    /// The tool of the gate that a model means: by the name that the gate gives it, or by the server's own
    /// name where what is offered under it takes the arguments of exactly one such tool that the agent may
    /// use. Agents that connect to `/mcp/{server}` know tools by those names.
    fn gate_tool(&self, name: &str, offered: &Offered) -> Option<GateTool> {
        if let Some((server, tool)) = mcp::split_name(name)
            && let Some(server) = self.gate.server(&server)
        {
            let facts = server.tool(tool);
            return Some(GateTool { server, name: tool.into(), facts });
        }
        let parameters = offered.parameters.get(name)?;
        let engine = self.gate.engine.load();
        let mut meant = self.gate.all_servers().into_iter().filter_map(|server| {
            if !server.knows_tool(name) {
                return None;
            }
            let facts = server.tool(name);
            let same = facts.argument_names()?.into_iter().eq(parameters.iter().map(|name| &**name));
            let resource = server.tool_ref(name);
            let may = || {
                engine.may_use(
                    &self.agent,
                    Operation::Call,
                    &resource,
                    facts.effect,
                    facts.external,
                    facts.described(),
                )
            };
            (same && may()).then(|| GateTool { server, name: name.into(), facts })
        });
        let tool = meant.next()?;
        if meant.next().is_some() { None } else { Some(tool) }
    }

    /// Whose tool it is that a model calls by this name.
    pub(super) fn source<'n>(&self, name: &'n str, offered: &Offered) -> Source<'n> {
        match self.gate_tool(name, offered) {
            Some(tool) => Source::OfGate(tool.server.tool_ref(&tool.name).id().into()),
            None => Source::Local(name),
        }
    }
}

impl Judge {
    pub(super) fn new(caller: Arc<Caller>, run: Option<RunId>, offered: Offered, watch: Watch) -> Self {
        Self { caller, run, offered, watch }
    }

    /// The run that the answer belongs to.
    pub(super) fn run(&self) -> Option<&RunId> {
        self.run.as_ref()
    }

    /// Decides one call and records that.
    pub(super) async fn of(&self, call: &ToolCall) -> Judged {
        let (action, masked) = match self.action(call) {
            Ok(understood) => understood,
            Err(refusal) => return self.refuse(call, &refusal),
        };
        let permit = match path::admit(&self.caller.gate, action).await {
            Ok(permit) => permit,
            Err(Stopped::Asked(asked)) => {
                self.caller.gate.metrics.refusal(RefusalCode::ApprovalRequired);
                return Judged::Refused(held(call, &asked.question.refusal()));
            }
            Err(Stopped::Refused(refusal)) => return self.refuse(call, &refusal),
            Err(Stopped::Denied(denied)) => {
                self.caller.gate.metrics.refusal(RefusalCode::Denied);
                return Judged::Refused(words(call, &denied.verdict.reason, &denied.verdict.advice));
            }
        };
        // The agent runs it from here on, where the gate cannot see how it ends.
        let handed_over = Ending {
            status: Status::Ok,
            code: Some("handed-over"),
            said: b"",
            upstream: std::time::Duration::ZERO,
            noted: Noted::default(),
        };
        match permit.conclude(&handed_over).await {
            Ok(_) => masked.map_or(Judged::Release, Judged::Masked),
            Err(refusal) => self.refuse(call, &refusal),
        }
    }

    fn refuse(&self, call: &ToolCall, refusal: &Refusal) -> Judged {
        let Caller { gate, agent, source, .. } = &*self.caller;
        gate.recorder.refusal(refusal, Some(&agent.name), *source);
        Judged::Refused(words(call, &refusal.reason, &refusal.advice))
    }

    /// The call as an action, and its arguments where something in them was masked.
    fn action(&self, call: &ToolCall) -> Result<(Action, Option<String>), Refusal> {
        let target = self.target(&call.name)?;
        let written = if call.arguments.trim().is_empty() { "{}" } else { call.arguments.as_str() };
        self.check_arguments(written)?;
        let Seen { masked, kinds } = self.watch.arguments(written)?;
        let request = Bytes::copy_from_slice(masked.as_deref().unwrap_or(written).as_bytes());
        let action = Action {
            id: self.caller.action_id()?,
            agent: self.caller.agent.clone(),
            source: self.caller.source,
            run: self.run.clone(),
            protocol: self.caller.api.protocol(),
            revision: REVISION,
            modern: true,
            method: method(self.caller.api).to_owned(),
            operation: Operation::Call,
            resource: target.resource,
            effect: target.effect,
            external: target.external,
            arguments: Some(0..request.len()),
            request,
            findings: kinds,
            particulars: Particulars::None,
            flow: target.comes_to_the_gate.then(|| left_to_the_call(target.described)),
            part: None,
            judged_at_call: target.comes_to_the_gate,
            approval: None,
        };
        Ok((action, masked))
    }

    /// A tool of a server of the gate, by the name that the gate gives it, or else the agent's own.
    fn target(&self, name: &str) -> Result<Target, Refusal> {
        self.check_offered(name)?;
        if let Some(tool) = self.caller.gate_tool(name, &self.offered) {
            return Ok(Target::of_gate(tool));
        }
        let stated = self.caller.gate.local_tool(name);
        Ok(Target {
            resource: ResourceRef::Tool { server: ServerName::local(), name: name.into() },
            effect: stated.effect,
            external: stated.external,
            comes_to_the_gate: false,
            described: stated.described(),
        })
    }

    /// A model may dream up tools. An agent that looks its tools up by name might find another one.
    fn check_offered(&self, name: &str) -> Result<(), Refusal> {
        let names = self.offered.names.as_ref();
        let offered = names.is_none_or(|names| names.iter().any(|offered| **offered == *name));
        if offered && name.len() <= NAME_BYTES_MAX {
            return Ok(());
        }
        let shown: String = name.chars().take(120).collect();
        let reason = format!("the request offers no tool {shown:?}, so the model cannot call it");
        Err(Refusal::new(Step::Understand, RefusalCode::NotFound, reason))
    }

    fn check_arguments(&self, written: &str) -> Result<(), Refusal> {
        let depth_max = self.caller.gate.limits.json_depth_max;
        let good = json::check(written.as_bytes(), depth_max).map_err(|e| e.to_string());
        let fault = match good {
            Ok(_) if written.trim_start().starts_with('{') => return Ok(()),
            Ok(_) => "they are not a JSON object".to_owned(),
            Err(fault) => fault,
        };
        let reason = format!("the arguments that the model wrote cannot be read: {fault}");
        Err(Refusal::new(Step::Understand, RefusalCode::Malformed, reason))
    }
}

/// What flow control says of a call that comes to the gate itself: nothing yet, but whether it knows the tool.
fn left_to_the_call(described: bool) -> Judgement {
    let facts = FlowFacts { described, tainted: false, ..FlowFacts::default() };
    Judgement { facts, findings: Vec::new() }
}

/// The API's own word for a tool call.
fn method(api: Api) -> &'static str {
    match api {
        Api::Responses => "function_call",
        Api::Messages | Api::CountTokens => "tool_use",
        Api::Chat | Api::Embeddings => "tool_calls",
    }
}

/// What stands in place of a call that waits for a person.
fn held(call: &ToolCall, refusal: &Refusal) -> String {
    let name: String = call.name.chars().take(120).collect();
    format!("[The call of the tool {name:?} did not happen. {refusal}.]")
}

/// What stands in place of a refused call. It is read by the agent, and by the model in the next turn.
fn words(call: &ToolCall, reason: &str, advice: &str) -> String {
    let name: String = call.name.chars().take(120).collect();
    let end = if advice.is_empty() { "" } else { " " };
    format!("[Castra refused the call of the tool {name:?}: {reason}.{end}{advice}]")
}
