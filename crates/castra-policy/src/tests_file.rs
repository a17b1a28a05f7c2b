//! Policy tests: a TOML file of questions with the answers that are meant. `castra policy test`
//! runs them, and so can any CI.

use std::{fmt, net::IpAddr, sync::Arc};

use castra_core::{
    AgentIdentity, AgentName, Approval, AuthMethod, Coverage, Decision, Effect, FlowFacts, GroupName,
    ModelName, Operation, PeerName, Protocol, ResourceRef, RunId, ServerName, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{DecisionRequest, Engine, Particulars};

/// Runs the tests of a file. The format is that of this example; `agent`, `operation`, `resource`
/// and `expect` are required:
///
/// ```toml
/// [[test]]
/// name = "the mailer cannot write at night"
/// agent = "mailer"
/// groups = ["builders"]
/// operation = "call"                  # or "read", "complete", "send"
/// resource = 'Tool::"files/write"'    # or Resource::, Prompt::, Server::, Model::, Peer::
/// effect = "write"                    # default: "act"
/// external = false                    # default: true
/// args = { path = "/srv/a.txt" }
/// time = "2026-11-24T23:00:00Z"       # default: 2026-01-05T12:00:00Z, a Monday
/// source = "10.0.0.7"                 # default: 127.0.0.1
/// auth = "certificate"                # default: "token"
/// revision = "2025-11-25"             # default: 2026-07-28
/// run = "r1"
/// delegation = ["alice"]              # on whose behalf, nearest first; default: nobody's
/// findings = ["secret.aws-access-key"]
/// kind = "messages"                   # of model API; default: "chat"
/// stream = true                       # default: false
/// tools = ["search"]                  # that the model may call
/// media = true                        # images, sound or files; default: false
/// method = "GetTask"                  # of A2A; default: "SendMessage"
/// flow = { tainted = true, unfounded = ["recipient"] }   # what flow control found; default: nothing looked
/// approval = { by = ["alice"], age = 30 }                 # a person's word for it; default: none
/// expect = "deny"                     # or "allow", "ask"
/// policies = ["office-hours"]         # the ids that decide; not checked when absent
/// ```
///
/// # Errors
/// When the file is not such a file; the message names line and key.
pub fn run_tests(engine: &Engine, tests: &str) -> Result<TestReport, TestFileError> {
    let file: File = toml::from_str(tests).map_err(|error| TestFileError::Format(error.to_string()))?;
    if file.test.is_empty() {
        return Err(TestFileError::Empty);
    }
    let mut report = TestReport { passed: 0, failures: Vec::new() };
    for (i, test) in file.test.iter().enumerate() {
        match test.run(engine, i) {
            None => report.passed += 1,
            Some(failure) => report.failures.push(failure),
        }
    }
    Ok(report)
}

/// Why a test file cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TestFileError {
    /// It is not TOML of this form.
    #[error("this is not a file of policy tests: {0}")]
    Format(String),
    /// It has no test, so it would pass whatever the policies say.
    #[error("there is no [[test]] in it")]
    Empty,
}

/// What came of a test file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestReport {
    /// How many tests passed.
    pub passed: usize,
    /// Those that did not.
    pub failures: Vec<TestFailure>,
}

/// A test that did not come out as meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestFailure {
    /// The test's name.
    pub name: String,
    /// What was meant.
    pub expected: String,
    /// What came out.
    pub got: String,
    /// Why it came out so.
    pub reason: String,
    /// What would change it.
    pub advice: String,
}

impl fmt::Display for TestReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            let TestFailure { name, expected, got, reason, advice } = failure;
            writeln!(f, "FAILED {name}\n  expected: {expected}\n  got:      {got}\n  because:  {reason}")?;
            if !advice.is_empty() {
                writeln!(f, "  to change it: {advice}")?;
            }
        }
        write!(f, "{} passed, {} failed", self.passed, self.failures.len())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    test: Vec<Test>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Test {
    name: Option<String>,
    agent: AgentName,
    #[serde(default)]
    groups: Vec<GroupName>,
    operation: Operation,
    resource: Target,
    #[serde(default)]
    effect: Effect,
    external: Option<bool>,
    #[serde(default)]
    args: serde_json::Map<String, serde_json::Value>,
    time: Option<Timestamp>,
    source: Option<IpAddr>,
    auth: Option<AuthMethod>,
    revision: Option<String>,
    run: Option<String>,
    #[serde(default)]
    delegation: Vec<Arc<str>>,
    #[serde(default)]
    findings: Vec<Arc<str>>,
    kind: Option<ModelKind>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    tools: Vec<Arc<str>>,
    #[serde(default)]
    media: bool,
    method: Option<String>,
    flow: Option<Flow>,
    approval: Option<Approved>,
    expect: Decision,
    policies: Option<Vec<String>>,
}

/// `context.flow`: what is not named is as in a run of which the gate sees everything and nothing is wrong.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Flow {
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

impl Default for Flow {
    fn default() -> Self {
        Self {
            coverage: Coverage::Full,
            described: true,
            tainted: false,
            prompted: true,
            secret: false,
            suspect: false,
            intended: true,
            unfounded: Vec::new(),
            unseen: Vec::new(),
            injected: Vec::new(),
            active: Vec::new(),
            leaking: Vec::new(),
        }
    }
}

impl Flow {
    fn facts(&self) -> FlowFacts {
        FlowFacts {
            coverage: self.coverage,
            described: self.described,
            tainted: self.tainted,
            prompted: self.prompted,
            secret: self.secret,
            suspect: self.suspect,
            intended: self.intended,
            unfounded: self.unfounded.clone(),
            unseen: self.unseen.clone(),
            injected: self.injected.clone(),
            active: self.active.clone(),
            leaking: self.leaking.clone(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Approved {
    by: Vec<Arc<str>>,
    #[serde(default)]
    age: u64,
}

/// What is asked of a model, in the words of `context.model.kind`.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum ModelKind {
    Chat,
    Responses,
    Messages,
    Embeddings,
    CountTokens,
}

impl ModelKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Embeddings => "embeddings",
            Self::CountTokens => "count-tokens",
        }
    }

    fn protocol(self) -> Protocol {
        match self {
            Self::Messages | Self::CountTokens => Protocol::Anthropic,
            Self::Chat | Self::Responses | Self::Embeddings => Protocol::OpenAi,
        }
    }
}

/// 2026-01-05T12:00:00Z, a Monday.
const NOON: i64 = 1_767_614_400;
/// The first revision without handshake; revisions are dates and sort as text.
const MODERN: &str = "2026-07-28";

impl Test {
    fn run(&self, engine: &Engine, index: usize) -> Option<TestFailure> {
        let arguments = serde_json::to_vec(&self.args).unwrap_or_default();
        let revision = self.revision.as_deref().unwrap_or(MODERN);
        let run = self.run.as_deref().and_then(RunId::new);
        let flow = self.flow.as_ref().map(Flow::facts);
        let approval = self.approval.as_ref();
        let approval = approval.map(|a| Approval { by: a.by.clone(), age_secs: a.age });
        let verdict = engine.decide(&DecisionRequest {
            agent: &self.identity(),
            operation: self.operation,
            resource: &self.resource.0,
            effect: self.effect,
            external: self.external.unwrap_or(true),
            time: self.time.unwrap_or(Timestamp::from_secs(NOON)),
            source: self.source.unwrap_or(IpAddr::from([127, 0, 0, 1])),
            protocol: self.protocol(),
            revision,
            modern: revision >= MODERN,
            run: run.as_ref(),
            arguments: (self.operation == Operation::Call).then_some(&arguments),
            findings: &self.findings,
            particulars: self.particulars(),
            flow: flow.as_ref(),
            approval: approval.as_ref(),
        });
        let got: Vec<&str> = verdict.policies.iter().map(|id| &**id).collect();
        let mut meant = self.policies.clone();
        meant.iter_mut().for_each(|ids| ids.sort_unstable());
        let mut sorted = got.clone();
        sorted.sort_unstable();
        let good = verdict.decision == self.expect
            && meant.as_ref().is_none_or(|ids| ids.iter().map(String::as_str).eq(sorted.iter().copied()));
        (!good).then(|| TestFailure {
            name: self.name.clone().unwrap_or_else(|| format!("test {}", index + 1)),
            expected: outcome(self.expect, meant.as_ref().map(|ids| ids.join(", "))),
            got: outcome(verdict.decision, Some(got.join(", "))),
            reason: verdict.reason,
            advice: verdict.advice,
        })
    }

    fn protocol(&self) -> Protocol {
        match self.operation {
            Operation::Complete => self.kind.unwrap_or(ModelKind::Chat).protocol(),
            Operation::Send => Protocol::A2a,
            _ => Protocol::Mcp,
        }
    }

    fn particulars(&self) -> Particulars<'_> {
        match self.operation {
            Operation::Complete => Particulars::Model {
                kind: self.kind.unwrap_or(ModelKind::Chat).as_str(),
                stream: self.stream,
                tools: &self.tools,
                media: self.media,
            },
            Operation::Send => Particulars::Message {
                method: self.method.as_deref().unwrap_or("SendMessage"),
                media: self.media,
            },
            _ => Particulars::None,
        }
    }

    fn identity(&self) -> AgentIdentity {
        AgentIdentity {
            name: self.agent.clone(),
            groups: self.groups.clone(),
            method: self.auth.clone().unwrap_or(AuthMethod::Token),
            credential: "policy-test".into(),
            expires: None,
            scopes: Vec::new(),
            delegation: self.delegation.clone(),
        }
    }
}

fn outcome(decision: Decision, policies: Option<String>) -> String {
    match policies {
        None => decision.as_str().to_owned(),
        Some(ids) if ids.is_empty() => format!("{} by no policy", decision.as_str()),
        Some(ids) => format!("{} by {ids}", decision.as_str()),
    }
}

/// A resource in the form that policies write it, with or without `Castra::` in front.
struct Target(ResourceRef);

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        target(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

fn target(text: &str) -> Result<ResourceRef, String> {
    const FORM: &str = "write a resource as Tool::\"server/tool\", Resource::\"server/uri\", Prompt::\"server/name\", Server::\"server\", Model::\"route\" or Peer::\"agent\"";
    let (kind, id) = text.strip_prefix("Castra::").unwrap_or(text).split_once("::").ok_or(FORM)?;
    let id = id.strip_prefix('"').and_then(|id| id.strip_suffix('"')).ok_or(FORM)?;
    let server = |name: &str| ServerName::new(name).map_err(|error| error.to_string());
    match kind {
        "Server" => return Ok(ResourceRef::Server(server(id)?)),
        "Model" => return ModelName::new(id).map(ResourceRef::Model).map_err(|error| error.to_string()),
        "Peer" => return PeerName::new(id).map(ResourceRef::Peer).map_err(|error| error.to_string()),
        _ => {}
    }
    let (of, rest) = id.split_once('/').ok_or(FORM)?;
    let (server, name): (_, Arc<str>) = (server(of)?, rest.into());
    match kind {
        "Tool" => Ok(ResourceRef::Tool { server, name }),
        "Resource" => Ok(ResourceRef::Resource { server, uri: name }),
        "Prompt" => Ok(ResourceRef::Prompt { server, name }),
        _ => Err(FORM.to_owned()),
    }
}
