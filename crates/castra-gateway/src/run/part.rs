//! The part that one action has in its run: what its arguments are made of before it is decided, that
//! it went, what came back.

use std::sync::Arc;

use castra_core::{Effect, FlowFacts, Operation, Refusal, RefusalCode, ResourceRef, RunId, Step};
use castra_flow::{Content, Judgement, Output, Returned, Tool, ToolManifest};
use serde_json::Value;

use super::{Live, Runs, unkept};
use crate::{catalogue::ToolFacts, gate::Gate, understand::Action};

/// A tool as flow control takes it.
#[derive(Clone)]
pub(crate) struct KnownTool {
    /// `server/tool`.
    pub(crate) id: Arc<str>,
    pub(crate) facts: Arc<ToolFacts>,
}

impl KnownTool {
    fn with<T>(&self, f: impl FnOnce(&Tool<'_>) -> T) -> T {
        let nothing = ToolManifest::default();
        let described = self.facts.manifest.as_deref();
        f(&Tool {
            id: &self.id,
            described: described.is_some(),
            // The word of a tool that nobody describes is not believed here.
            effect: if described.is_some() { self.facts.effect } else { Effect::Act },
            external: described.is_none() || self.facts.external,
            manifest: described.unwrap_or(&nothing),
            schema: self.facts.schema(),
        })
    }

    /// Whether strangers may have written what it returns.
    fn is_untrusted(&self) -> bool {
        self.facts.manifest.as_deref().is_none_or(|manifest| manifest.output != Some(Output::Trusted))
    }
}

/// An action's part in its run.
pub(crate) struct Part {
    runs: Arc<Runs>,
    run: Arc<Live>,
    recent: Arc<Live>,
    what: What,
}

enum What {
    /// A tool is called with these arguments.
    Call(KnownTool, Value),
    /// Anything else, by the name of what it is directed at.
    Other(Arc<str>),
}

impl Runs {
    /// What is known of an action and of its run; the action takes it along.
    pub(crate) async fn judge(self: &Arc<Self>, gate: &Gate, mut action: Action) -> Result<Action, Refusal> {
        if action.judged_at_call {
            return Ok(action);
        }
        let what = What::of(gate, &action)?;
        let spoken = action.operation == Operation::Complete;
        let part = self.part(&action.agent.name, action.run.as_ref(), spoken, what).await?;
        action.flow = Some(part.judgement());
        action.part = Some(Arc::new(part));
        Ok(action)
    }

    async fn part(
        self: &Arc<Self>,
        agent: &castra_core::AgentName,
        run: Option<&RunId>,
        spoken: bool,
        what: What,
    ) -> Result<Part, Refusal> {
        let (run, recent) = self.of(agent, run, spoken).await?;
        Ok(Part { runs: self.clone(), run, recent, what })
    }
}

impl What {
    fn of(gate: &Gate, action: &Action) -> Result<Self, Refusal> {
        let id: Arc<str> = action.resource.id().into();
        match (action.operation, &action.resource) {
            (Operation::Call, ResourceRef::Tool { server, name }) => {
                let facts = match gate.server(server) {
                    Some(server) => server.tool(name),
                    None => gate.local_tool(name),
                };
                let arguments = action.arguments().map_or(Ok(Value::Null), arguments)?;
                Ok(Self::Call(KnownTool { id, facts }, arguments))
            }
            // A message is the only argument of a call of its peer, which nobody describes.
            (Operation::Send, ResourceRef::Peer(name)) if action.effect != Effect::Read => {
                let tool = KnownTool { id: format!("peer/{name}").into(), facts: ToolFacts::unknown() };
                let message = serde_json::from_slice::<Value>(&action.request).unwrap_or_default();
                let texts = super::leaves(&message);
                Ok(Self::Call(tool, serde_json::json!({ "message": texts })))
            }
            _ => Ok(Self::Other(id)),
        }
    }
}

fn arguments(bytes: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| {
        let reason = format!("the arguments of the call cannot be looked at: {error}");
        Refusal::new(Step::Understand, RefusalCode::Malformed, reason)
    })
}

impl Part {
    fn judgement(&self) -> Judgement {
        let kept = self.run.kept.lock();
        match &self.what {
            What::Call(tool, arguments) => tool.with(|tool| kept.run.judge(tool, arguments)),
            What::Other(_) => {
                let facts = kept.run.facts();
                let coverage = self.runs.settings().coverage();
                Judgement {
                    facts: FlowFacts {
                        coverage,
                        tainted: facts.tainted,
                        prompted: facts.prompted,
                        secret: facts.secret,
                        suspect: facts.suspect,
                        ..FlowFacts::default()
                    },
                    findings: Vec::new(),
                }
            }
        }
    }

    /// The action was permitted and goes now.
    pub(crate) fn went(&self, approved: bool) {
        let What::Call(tool, arguments) = &self.what else { return };
        let marks = self.change(|kept| {
            tool.with(|tool| kept.run.went(tool, arguments, approved));
            kept.seen.called(&tool.id);
            kept.run.wrote()
        });
        self.runs.keeper.mark(&self.run, marks);
    }

    /// A person is asked about the call because of where its arguments come from.
    pub(crate) fn held(&self) {
        let What::Call(tool, arguments) = &self.what else { return };
        self.change(|kept| tool.with(|tool| kept.run.held(tool, arguments)));
    }

    /// The call of a tool returned; `record` is the index of the intent in the log.
    pub(crate) fn returned(&self, content: Content<'_>, is_error: bool, record: u64) {
        let What::Call(tool, arguments) = &self.what else {
            return self.received(&text_of(content), record);
        };
        self.change(|kept| {
            let marks = self.runs.keeper.marks();
            let returned = Returned { content, is_error, record };
            tool.with(|tool| kept.run.returned(tool, arguments, returned, &*marks));
        });
        if tool.is_untrusted() {
            self.remember(&tool.id, &text_of(content), record);
        }
    }

    /// Text came that strangers may have written: the action's answer, or a question on the way to it.
    pub(crate) fn received(&self, text: &str, record: u64) {
        let source = match &self.what {
            What::Call(tool, _) => &tool.id,
            What::Other(id) => id,
        };
        self.change(|kept| kept.run.received(source, text, record));
        self.remember(source, text, record);
    }

    /// What a request of a model brings; `record` is the index of its intent.
    pub(crate) fn told(&self, gate: &Gate, told: &[Told<'_>], record: u64) {
        let by_model = self.runs.settings().prompts == super::Prompts::Model;
        for told in told {
            match told {
                Told::User(text) if by_model => self.change(|kept| {
                    if kept.seen.is_new("user", text) {
                        kept.run.user_said(text);
                    }
                }),
                Told::User(_) => {}
                Told::Result { tool: Some(Source::OfGate(id)), text, .. }
                    if self.run.kept.lock().seen.has_called(id) =>
                {
                    // The run saw it when the tool returned it.
                    let _ = text;
                }
                Told::Result { tool, arguments, text, is_error } => {
                    self.told_result(gate, tool.as_ref(), arguments, text, *is_error, record);
                }
                Told::Model => self.change(|kept| {
                    if !kept.seen.talked {
                        // A conversation that began where the gate did not see it.
                        kept.run.received("an earlier conversation", "", record);
                    }
                }),
            }
        }
        self.change(|kept| kept.seen.talked = true);
    }

    fn told_result(
        &self,
        gate: &Gate,
        tool: Option<&Source<'_>>,
        arguments: &str,
        text: &str,
        is_error: bool,
        record: u64,
    ) {
        let what = format!("result {} {arguments}", tool.map_or("", Source::name));
        if !self.change(|kept| kept.seen.is_new(&what, text)) {
            return;
        }
        let described = match tool {
            Some(Source::Local(name)) => Some((*name, gate.local_tool(name))).filter(|(_, f)| f.described()),
            _ => None,
        };
        let Some((name, facts)) = described else {
            let source = tool.map_or("a tool", Source::name);
            self.change(|kept| kept.run.received(source, text, record));
            self.remember(source, text, record);
            return;
        };
        let server = castra_core::ServerName::local();
        let known = KnownTool { id: format!("{server}/{name}").into(), facts };
        let arguments = serde_json::from_str(arguments).unwrap_or_default();
        let parsed = parsed(text);
        let content = parsed.as_ref().map_or(Content::Text(text), Content::Json);
        self.change(|kept| {
            let marks = self.runs.keeper.marks();
            let returned = Returned { content, is_error, record };
            known.with(|tool| kept.run.returned(tool, &arguments, returned, &*marks));
        });
        if known.is_untrusted() {
            self.remember(&known.id, text, record);
        }
    }

    /// Returns when a crash cannot make the gate forget what the run has learned: before any of it leaves.
    pub(crate) async fn settle(&self) -> Result<(), Refusal> {
        let keeper = &self.runs.keeper;
        keeper.settle(&self.run).await.map_err(|e| unkept(&e))?;
        keeper.settle(&self.recent).await.map_err(|e| unkept(&e))
    }

    fn change<T>(&self, f: impl FnOnce(&mut super::keep::Kept) -> T) -> T {
        change(&self.runs, &self.run, f)
    }

    fn remember(&self, source: &str, text: &str, record: u64) {
        change(&self.runs, &self.recent, |kept| kept.recent.add(source, text, record));
    }
}

fn change<T>(runs: &Runs, live: &Live, f: impl FnOnce(&mut super::keep::Kept) -> T) -> T {
    let mut kept = live.kept.lock();
    runs.keeper.hold(live, &mut kept, (runs.clock)());
    let changed = f(&mut kept);
    live.size.store(kept.size(), std::sync::atomic::Ordering::Relaxed);
    changed
}

/// Something that a request of a model brings.
pub(crate) enum Told<'a> {
    User(&'a str),
    Result {
        tool: Option<Source<'a>>,
        arguments: &'a str,
        text: &'a str,
        is_error: bool,
    },
    /// Words of the model.
    Model,
}

/// Whose tool it is that a model called.
pub(crate) enum Source<'a> {
    /// One of a server behind the gate, `server/tool`.
    OfGate(Arc<str>),
    /// The agent's own.
    Local(&'a str),
}

impl Source<'_> {
    fn name(&self) -> &str {
        match self {
            Self::OfGate(id) => id,
            Self::Local(name) => name,
        }
    }
}

/// Text that is a JSON object or array.
pub(crate) fn parsed(text: &str) -> Option<Value> {
    let start = text.trim_start();
    if start.starts_with(['{', '[']) { serde_json::from_str(text).ok() } else { None }
}

fn text_of<'a>(content: Content<'a>) -> std::borrow::Cow<'a, str> {
    match content {
        Content::Text(text) => text.into(),
        Content::Json(value) => super::leaves(value).into(),
    }
}
