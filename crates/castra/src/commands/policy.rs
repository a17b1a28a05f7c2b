//! `castra policy`: check, test, explain and suggest policies.

use std::{collections::BTreeMap, net::IpAddr, ops::ControlFlow, path::PathBuf, sync::Arc};

use castra_core::{
    ActionId, AgentIdentity, AgentName, Approval, AuthMethod, Coverage, Decision, Effect, FlowFacts,
    GroupName, Operation, Protocol, ResourceRef, RunId, ServerName, Timestamp,
};
use castra_ledger::{Intent, Record};
use castra_policy::{
    Catalogue, DecisionRequest, Engine, Observation, Particulars, PolicyProblems, Problem, run_tests, suggest,
};
use castra_store::{State, files};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{log::reader, policy_change};
use crate::{
    cli::{ExplainArgs, FilterArgs, PolicyCommand},
    context::Context,
    out::{Exit, Failure, Outcome, remark},
    policies,
    records::{self, Filter, Payload},
};

/// Bytes of a file of policy tests.
const TESTS_BYTES_MAX: u64 = 16 << 20;

pub(super) fn run(cx: Context, command: PolicyCommand) -> Outcome {
    match command {
        PolicyCommand::Check => check(cx),
        PolicyCommand::Test { file } => test(cx, file),
        PolicyCommand::Explain(args) => explain(cx, &args),
        PolicyCommand::Suggest { filter, output } => suggest_from_log(cx, &filter, output),
        PolicyCommand::Standard => {
            let mut cx = cx;
            let pack = castra_policy::standard_policies();
            cx.out.value(&json!({ "file": pack.file, "policy": pack.text }));
            if !cx.out.is_json() {
                cx.out.document(&pack.text);
            }
            Ok(Exit::Done)
        }
        PolicyCommand::Prove { file, policies } => policy_change::prove(cx, &file, policies.as_deref()),
        PolicyCommand::Diff { old, new } => policy_change::diff(cx, &old, &new),
        PolicyCommand::Simulate { policies, filter } => policy_change::simulate(cx, &policies, &filter),
        PolicyCommand::Schema => {
            let mut cx = cx;
            let schema = castra_policy::schema_text(&catalogue(&cx)?);
            cx.out.value(&json!({ "schema": schema }));
            if !cx.out.is_json() {
                cx.out.document(&schema);
            }
            Ok(Exit::Done)
        }
    }
}

/// The state, if there is one yet: policies can be checked before the first start.
fn state(cx: &Context) -> Result<Option<State>, Failure> {
    if cx.state_dir().exists() { Ok(Some(cx.open()?.state)) } else { Ok(None) }
}

pub(super) fn catalogue(cx: &Context) -> Result<Catalogue, Failure> {
    policies::catalogue(cx.config(), state(cx)?.as_ref(), cx.now)
}

fn check(mut cx: Context) -> Outcome {
    let catalogue = catalogue(&cx)?;
    let (errors, warnings, count) = match policies::load(cx.config(), &catalogue)? {
        Ok(engine) => (Vec::new(), engine.warnings().to_vec(), engine.own_policy_count()),
        Err(PolicyProblems { errors, warnings }) => (errors, warnings, 0),
    };
    cx.out.value(&json!({
        "good": errors.is_empty(),
        "policies": count,
        "errors": errors,
        "warnings": warnings,
        "standard": cx.config().policy.standard,
    }));
    for (word, problems) in [("error", &errors), ("warning", &warnings)] {
        for problem in problems {
            cx.out.line(format_args!("{word}: {problem}"));
        }
    }
    if errors.is_empty() {
        cx.out.line(format_args!(
            "{count} policies are good; they know {} servers with {} tools.",
            catalogue.servers.len(),
            catalogue.servers.iter().map(|s| s.tools.len()).sum::<usize>()
        ));
    }
    Ok(if errors.is_empty() && warnings.is_empty() { Exit::Done } else { Exit::Found })
}

fn engine(cx: &Context, catalogue: &Catalogue) -> Result<Engine, Failure> {
    policies::load(cx.config(), catalogue)?.map_err(|problems| {
        let list: Vec<String> = problems.errors.iter().map(Problem::to_string).collect();
        Failure::new(format!("the policies are not good:\n{}", list.join("\n")))
            .advise("`castra policy check` shows all that is wrong.")
    })
}

fn test(mut cx: Context, given: Vec<PathBuf>) -> Outcome {
    let engine = engine(&cx, &catalogue(&cx)?)?;
    let mut reports = Vec::new();
    let mut failed = 0;
    for file in given {
        let text = files::read_text(&file, TESTS_BYTES_MAX)?;
        let report =
            run_tests(&engine, &text).map_err(|e| Failure::new(format!("{}: {e}", file.display())))?;
        failed += report.failures.len();
        cx.out.line(format_args!("{}\n{report}", file.display()));
        reports.push(json!({ "id": file, "passed": report.passed, "failures": report.failures }));
    }
    cx.out.value(&reports);
    Ok(if failed == 0 { Exit::Done } else { Exit::Found })
}

/// A request, whole, as it is explained.
pub(super) struct Question {
    agent: AgentIdentity,
    operation: Operation,
    resource: ResourceRef,
    facts: (Effect, bool),
    time: Timestamp,
    source: IpAddr,
    revision: String,
    run: Option<RunId>,
    arguments: Option<Vec<u8>>,
    protocol: Protocol,
    findings: Vec<Arc<str>>,
    particulars: Asked,
    flow: Option<FlowFacts>,
    approval: Option<Approval>,
}

/// What an action of its kind had beside what all have, as the record keeps it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Asked {
    #[default]
    None,
    Model {
        kind: String,
        stream: bool,
        tools: Vec<Arc<str>>,
        media: bool,
    },
    Message {
        method: String,
        media: bool,
    },
}

impl Asked {
    fn for_policies(&self) -> Particulars<'_> {
        const KINDS: [&str; 5] = ["chat", "responses", "messages", "embeddings", "count-tokens"];
        match self {
            Self::None => Particulars::None,
            Self::Model { kind, stream, tools, media } => Particulars::Model {
                kind: KINDS.into_iter().find(|known| known == kind).unwrap_or("chat"),
                stream: *stream,
                tools,
                media: *media,
            },
            Self::Message { method, media } => Particulars::Message { method, media: *media },
        }
    }
}

impl Question {
    pub(super) fn request(&self) -> DecisionRequest<'_> {
        DecisionRequest {
            agent: &self.agent,
            operation: self.operation,
            resource: &self.resource,
            effect: self.facts.0,
            external: self.facts.1,
            time: self.time,
            source: self.source,
            protocol: self.protocol,
            revision: &self.revision,
            modern: is_modern(&self.revision),
            run: self.run.as_ref(),
            arguments: self.arguments.as_deref(),
            findings: &self.findings,
            particulars: self.particulars.for_policies(),
            flow: self.flow.as_ref(),
            approval: self.approval.as_ref(),
        }
    }
}

fn is_modern(revision: &str) -> bool {
    use castra_protocol::mcp::{Era, Revision};
    Revision::parse(revision).is_none_or(|revision| revision.era() == Era::Modern)
}

fn explain(mut cx: Context, args: &ExplainArgs) -> Outcome {
    let catalogue = catalogue(&cx)?;
    let question = match (args.action, &args.agent, &args.tool) {
        (Some(action), _, _) => recorded(&mut cx, &catalogue, action)?,
        (None, Some(agent), Some(tool)) => described(&cx, &catalogue, agent, tool, args)?,
        _ => return Err(Failure::usage("say which: an action's id, or --agent and --tool")),
    };
    let explanation = engine(&cx, &catalogue)?.explain(&question.request());
    cx.out.value(&explanation);
    cx.out.line(&explanation);
    Ok(if explanation.decision == Decision::Allow { Exit::Done } else { Exit::Found })
}

fn described(
    cx: &Context,
    catalogue: &Catalogue,
    agent: &AgentName,
    tool: &str,
    args: &ExplainArgs,
) -> Result<Question, Failure> {
    let (server, name) =
        tool.split_once('/').ok_or_else(|| Failure::usage("--tool: expected server/tool"))?;
    let server = ServerName::new(server).map_err(|e| Failure::usage(format!("--tool: {e}")))?;
    if let Some(args) = &args.args {
        let object =
            serde_json::from_str::<Value>(args).map_err(|e| Failure::usage(format!("--args: {e}")))?;
        if !object.is_object() {
            return Err(Failure::usage("--args: expected a JSON object, such as '{\"path\": \"/srv\"}'"));
        }
    }
    let resource = ResourceRef::Tool { server: server.clone(), name: name.into() };
    Ok(Question {
        agent: identity(agent, groups(catalogue, agent), AuthMethod::Token, "explain"),
        operation: Operation::Call,
        facts: policies::facts(catalogue, &server, name),
        time: args.time.unwrap_or(cx.now),
        source: args.source,
        revision: castra_protocol::mcp::Revision::LATEST.as_str().into(),
        run: None,
        arguments: args.args.as_ref().map(|text| text.clone().into_bytes()),
        protocol: Protocol::Mcp,
        findings: Vec::new(),
        particulars: Asked::None,
        flow: Some(outside_of_runs(catalogue, &resource)),
        approval: None,
        resource,
    })
}

fn identity(name: &AgentName, groups: Vec<GroupName>, method: AuthMethod, credential: &str) -> AgentIdentity {
    AgentIdentity {
        name: name.clone(),
        groups,
        method,
        credential: credential.into(),
        expires: None,
        scopes: Vec::new(),
        delegation: Vec::new(),
    }
}

fn groups(catalogue: &Catalogue, agent: &AgentName) -> Vec<GroupName> {
    let known = catalogue.agents.iter().find(|(name, _)| name == agent);
    known.map(|(_, groups)| groups.clone()).unwrap_or_default()
}

/// The request of a recorded action, decided again under the policies of today.
fn recorded(cx: &mut Context, catalogue: &Catalogue, action: ActionId) -> Result<Question, Failure> {
    let reader = reader(cx)?;
    let found = records::of_action(&reader, action)?;
    let opened = cx.open()?;
    let said = match records::payload(&reader, &opened.state, &found.intent)? {
        Payload::Open(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
        Payload::None => Value::Null,
        Payload::Closed(why) => {
            remark(format_args!(
                "The request itself is not here ({why}); it is explained without its arguments."
            ));
            Value::Null
        }
    };
    let Record::Intent(intent) = found.intent.record()? else {
        return Err(Failure::new("this is no intent"));
    };
    cx.out.line(format_args!(
        "Recorded at {}: {} under policy set {}. {}\nUnder the policies of today:",
        intent.time,
        intent.decision.as_str(),
        intent.policy_set.get(..12).unwrap_or(&intent.policy_set),
        intent.reason
    ));
    let too_long = format!("the record's resource {:?} was too long to keep whole", intent.resource);
    question(catalogue, intent, &said).ok_or_else(|| Failure::new(too_long))
}

/// The request of a recorded intent, with what was kept beside it; none if its resource was too long to be kept.
pub(super) fn question(catalogue: &Catalogue, intent: Intent<'_>, said: &Value) -> Option<Question> {
    let resource = policies::parse_resource(&intent.resource)?;
    let external = said.get("external").and_then(Value::as_bool);
    let source = said.get("source").and_then(Value::as_str).and_then(|s| s.parse().ok());
    // A model's tool call is kept as its arguments alone; MCP has them within the request.
    let bare = intent.operation == Operation::Call && intent.protocol != Protocol::Mcp;
    let place = if bare { "/request" } else { "/request/params/arguments" };
    let arguments = said.pointer(place).map(|a| a.to_string().into_bytes());
    let mut agent =
        identity(&intent.agent, groups(catalogue, &intent.agent), intent.auth, &intent.credential);
    agent.delegation = kept(said, "delegation");
    Some(Question {
        agent,
        protocol: intent.protocol,
        findings: kept(said, "findings"),
        particulars: kept(said, "particulars"),
        flow: kept::<Option<KeptFlow>>(said, "flow").map(FlowFacts::from),
        approval: kept::<Option<KeptApproval>>(said, "approval")
            .map(|kept| Approval { by: kept.by, age_secs: kept.age }),
        operation: intent.operation,
        facts: (intent.effect, external.unwrap_or(true)),
        resource,
        time: intent.time,
        source: source.unwrap_or(IpAddr::from([127, 0, 0, 1])),
        revision: intent.revision.into_owned(),
        run: intent.run.as_deref().and_then(RunId::new),
        arguments,
    })
}

/// What is known of a call that nobody makes: it is in no run, so nothing is wrong with where its arguments
/// come from.
fn outside_of_runs(catalogue: &Catalogue, tool: &ResourceRef) -> FlowFacts {
    let known = catalogue.servers.iter().flat_map(|server| {
        server.tools.iter().map(move |tool| (format!("{}/{}", server.name, tool.name), tool.described))
    });
    let described = known.into_iter().any(|(id, described)| described && id == tool.id());
    FlowFacts { described, tainted: false, ..FlowFacts::default() }
}

/// The facts of flow control as they are kept beside an intent.
#[derive(Deserialize)]
struct KeptFlow {
    coverage: Coverage,
    described: bool,
    tainted: bool,
    prompted: bool,
    secret: bool,
    suspect: bool,
    intended: bool,
    unfounded: Vec<Arc<str>>,
    unseen: Vec<Arc<str>>,
    injected: Vec<Arc<str>>,
    active: Vec<Arc<str>>,
    leaking: Vec<Arc<str>>,
}

impl From<KeptFlow> for FlowFacts {
    fn from(kept: KeptFlow) -> Self {
        Self {
            coverage: kept.coverage,
            described: kept.described,
            tainted: kept.tainted,
            prompted: kept.prompted,
            secret: kept.secret,
            suspect: kept.suspect,
            intended: kept.intended,
            unfounded: kept.unfounded,
            unseen: kept.unseen,
            injected: kept.injected,
            active: kept.active,
            leaking: kept.leaking,
        }
    }
}

#[derive(Deserialize)]
struct KeptApproval {
    by: Vec<Arc<str>>,
    age: u64,
}

/// A part of what is kept beside an intent; empty where there was none.
fn kept<T: Default + serde::de::DeserializeOwned>(said: &Value, name: &str) -> T {
    said.get(name).cloned().and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default()
}

fn suggest_from_log(mut cx: Context, wanted: &FilterArgs, output: Option<PathBuf>) -> Outcome {
    let catalogue = catalogue(&cx)?;
    let reader = reader(&cx)?;
    let mut filter = Filter::new(wanted);
    let mut seen: BTreeMap<(AgentName, String, &'static str), Observation> = BTreeMap::new();
    records::scan(&reader, 0, |entry| {
        let record = entry.record()?;
        if !filter.admits(entry.index, &record) {
            return Ok(ControlFlow::Continue(()));
        }
        let Record::Intent(intent) = record else { return Ok(ControlFlow::Continue(())) };
        let Some(resource) = policies::parse_resource(&intent.resource) else {
            return Ok(ControlFlow::Continue(()));
        };
        let key = (intent.agent.clone(), intent.resource.into_owned(), intent.operation.as_str());
        let observation = seen.entry(key).or_insert_with(|| Observation {
            groups: groups(&catalogue, &intent.agent),
            agent: intent.agent,
            operation: intent.operation,
            resource,
            effect: intent.effect,
            count: 0,
            last: intent.time,
            decision: intent.decision,
        });
        observation.count += 1;
        if intent.time >= observation.last {
            (observation.last, observation.effect, observation.decision) =
                (intent.time, intent.effect, intent.decision);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if seen.is_empty() {
        cx.out.line("Nothing was observed. Run the gate with [policy] mode = \"observe\" for a while.");
        cx.out.value(&json!({ "policy": "", "observed": 0 }));
        return Ok(Exit::Found);
    }
    let observed = seen.len();
    let policy = suggest(seen.into_values());
    cx.out.value(&json!({ "policy": policy, "observed": observed }));
    match output {
        Some(file) if file.exists() => {
            return Err(
                Failure::new(format!("{} is there already", file.display())).advise("Give another file.")
            );
        }
        Some(file) => {
            files::write_atomic(&file, policy.as_bytes(), 0o644)?;
            cx.out.line(format_args!("Wrote {}. Read it before you rely on it.", file.display()));
        }
        None if !cx.out.is_json() => cx.out.document(&policy),
        None => {}
    }
    Ok(Exit::Done)
}
