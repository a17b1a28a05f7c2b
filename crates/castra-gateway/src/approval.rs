//! Between decide and record: where policies ask a person, the question is written down, and a person's
//! answer is used.
//!
//! A question is about exactly one action: agent, run, operation, resource and the canonical form of the
//! arguments. Its yes lifts, once, what the policies say that it lifts; the action is decided again with
//! it. Nothing that an agent or its client says is an answer: only an operator's word is, which comes
//! through the state.

use std::{collections::HashSet, sync::Arc};

use aws_lc_rs::digest::{Context as Hash, SHA256};
use castra_core::{AgentName, Approval, Decision, Digest, Refusal, RefusalCode, RunId, Step, Timestamp};
use castra_flow::{ArgumentFinding, Origin};
use castra_ledger::EventKind;
use castra_protocol::canonical;
use castra_store::{ApprovalAsk, ApprovalBounds, ApprovalOf, AskedApproval, State, StoreError};
use parking_lot::RwLock;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    decide::{Decided, decide_again},
    gate::Gate,
    metrics::{Counter, Page},
    understand::Action,
};

/// Characters of arguments that a person is shown.
const ARGUMENTS_SHOWN_MAX: usize = 4000;
/// Findings that a person is shown.
const FINDINGS_SHOWN_MAX: usize = 16;

/// A question that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) id: String,
    pub(crate) expires: Timestamp,
}

impl Question {
    /// What agent and model are told: what to do, and nothing about policies, which an attacker could use.
    pub(crate) fn refusal(&self) -> Refusal {
        let reason = format!(
            "Castra holds this until a person approves it: approval {}, which can be answered until {}",
            self.id,
            self.expires_text()
        );
        Refusal::new(Step::Decide, RefusalCode::ApprovalRequired, reason).advise(format!(
            "The person who runs this agent can look at it and say yes with `castra approval approve {}`. \
             After that, try exactly the same once more; with anything in it changed it is a new question. \
             Until then go on with what does not depend on it",
            self.id
        ))
    }

    /// Until when it can be answered, to the second.
    pub(crate) fn expires_text(&self) -> String {
        let text = self.expires.to_string();
        format!("{}Z", text.get(..19).unwrap_or(&text))
    }
}

/// What is asked of people, and how it is counted.
pub(crate) struct Approvals {
    state: Arc<State>,
    bounds: RwLock<ApprovalBounds>,
    /// Runs of which something was asked lately; in all others there is nothing to look up.
    runs: RwLock<HashSet<(AgentName, Option<RunId>)>>,
    asked: Counter,
    used: Counter,
    not_asked: Counter,
}

impl Approvals {
    /// Knows what was asked before the gate started.
    pub(crate) fn new(state: Arc<State>, bounds: ApprovalBounds, now: Timestamp) -> Self {
        let runs = state.runs_with_approvals(now).unwrap_or_else(|error| {
            tracing::error!(%error, "earlier approvals cannot be read, and do not count");
            HashSet::new()
        });
        let (asked, used, not_asked) = Default::default();
        Self { state, bounds: RwLock::new(bounds), runs: RwLock::new(runs), asked, used, not_asked }
    }

    pub(crate) fn set_bounds(&self, bounds: ApprovalBounds) {
        *self.bounds.write() = bounds;
    }

    pub(crate) fn show(&self, page: &mut Page) {
        for (what, counter) in [("asked", &self.asked), ("used", &self.used), ("not-asked", &self.not_asked)]
        {
            let help = "Questions to people: asked, used by the action they were about, or not asked because \
                        too many wait, one of the run does, or a person said no already.";
            page.counter("castra_approvals_total", help, &[("what", what)], counter.sum());
        }
    }

    fn concern(&self, action: &Action) -> bool {
        let runs = self.runs.read();
        !runs.is_empty() && runs.contains(&(action.agent.name.clone(), action.run.clone()))
    }
}

/// Tells flow control what people said: after a no, nobody is asked about this run for a while.
pub(crate) async fn note_refusals(gate: &Gate, action: &mut Action) -> Result<(), Refusal> {
    if action.flow.is_none() || !gate.approvals.concern(action) {
        return Ok(());
    }
    let (agent, run, now) = (action.agent.name.clone(), action.run.clone(), gate.now());
    let refused = ask_store(gate, move |state| state.run_refused(&agent, run.as_ref(), now)).await?;
    if let Some(judgement) = action.flow.as_mut() {
        judgement.facts.suspect |= refused;
    }
    Ok(())
}

/// What becomes of an action that policies do not permit as it is: a person's yes lets it through, a
/// question waits for an answer, or it stays as it was decided.
pub(crate) async fn settle(gate: &Gate, decided: Decided) -> Result<Decided, Refusal> {
    let asks = decided.verdict().decision == Decision::Ask;
    if !asks && !gate.approvals.concern(decided.action()) {
        return Ok(decided);
    }
    let subject = Subject::of(decided.action());
    let subject = tokio::task::spawn_blocking(move || subject.digested());
    let (digest, arguments) = subject.await.map_err(|error| undecided(&error.to_string()))??;
    let (agent, now) = (decided.action().agent.name.clone(), gate.now());
    match ask_store(gate, move |state| state.approval_of(&agent, &digest, now)).await? {
        Some(ApprovalOf::Granted { id, by, at }) => {
            let age_secs = now.0.saturating_sub(at.0).max(0).unsigned_abs() / 1_000_000;
            let decided = lifted(gate, decided, &id, Approval { by: vec![by.into()], age_secs }).await?;
            if decided.permitted() {
                return Ok(decided);
            }
            // What the yes does not lift is not asked again while it stands.
            Ok(decided
                .refused(format!("approval {id} does not lift all that stands against it"), String::new()))
        }
        Some(ApprovalOf::Waits { id, expires }) if asks || would_lift(gate, &decided) => {
            if asks || !injected(decided.action()) {
                return Ok(decided.asking(Question { id, expires }));
            }
            // Most likely an attack that insists. A person has the question already, and once is enough.
            gate.approvals.not_asked.add(1);
            let reason = format!("a person is asked about this already (approval {id})");
            Ok(decided
                .refused(reason, "Wait for the answer, or go on with what needs no approval".to_owned()))
        }
        Some(ApprovalOf::Waits { .. }) => Ok(decided),
        None if asks => ask(gate, decided, digest, &arguments).await,
        None => Ok(decided),
    }
}

/// The action with a person's yes, which is used up if it lets the action through.
async fn lifted(gate: &Gate, decided: Decided, id: &str, approval: Approval) -> Result<Decided, Refusal> {
    let by = approval.by.join(", ");
    let with = decide_again(gate, decided, Some(approval));
    if !with.permitted() {
        return Ok(decide_again(gate, with, None));
    }
    let (wanted, now) = (id.to_owned(), gate.now());
    if !ask_store(gate, move |state| state.use_approval(&wanted, now)).await? {
        // The same action was tried twice at once, and the other one has it.
        return Ok(decide_again(gate, with, None));
    }
    gate.approvals.used.add(1);
    let detail =
        format!("approval {id} of {by}, for action {} on {}", with.action().id, with.action().resource);
    gate.recorder.event(EventKind::ApprovalUsed, Some(with.action().agent.name.as_str()), &detail);
    Ok(with)
}

/// Whether a yes could let through what is denied as it is: so it is where a run became suspect by this
/// very question.
fn would_lift(gate: &Gate, decided: &Decided) -> bool {
    let mut action = decided.action().clone();
    action.approval = Some(Approval { by: Vec::new(), age_secs: 0 });
    crate::decide::still_permits(&gate.engine.load(), gate.mode(), &action, decided.time())
}

/// Whether an argument has a value that was seen only in untrusted text.
fn injected(action: &Action) -> bool {
    action.flow.as_ref().is_some_and(|judgement| !judgement.facts.injected.is_empty())
}

async fn ask(gate: &Gate, decided: Decided, digest: Digest, arguments: &str) -> Result<Decided, Refusal> {
    let action = decided.action();
    let findings = action.flow.as_ref().map_or(&[][..], |judgement| &judgement.findings);
    let shown = serde_json::to_vec(&Shown::of(action, arguments, &decided.verdict().reason, findings))
        .map_err(|error| undecided(&error.to_string()))?;
    let injected = injected(action);
    let (agent, run, operation) = (action.agent.name.clone(), action.run.clone(), action.operation.as_str());
    let (resource, bounds, now) = (action.resource.to_string(), *gate.approvals.bounds.read(), gate.now());
    let (asked, runs) = ask_store(gate, move |state| {
        let ask = ApprovalAsk {
            digest,
            agent: &agent,
            run: run.as_ref(),
            operation,
            resource: &resource,
            injected,
            shown: &shown,
        };
        Ok((state.ask_approval(&ask, bounds, now)?, state.runs_with_approvals(now)?))
    })
    .await?;
    *gate.approvals.runs.write() = runs;
    let (reason, advice) = match asked {
        AskedApproval::Waits { id, expires, new } => {
            if new {
                gate.approvals.asked.add(1);
                let detail =
                    format!("approval {id}, for {} on {}", action.operation.as_str(), action.resource);
                gate.recorder.event(EventKind::ApprovalAsked, Some(action.agent.name.as_str()), &detail);
            }
            // Doubts about arguments are put before people once; until they are lifted, the run is suspect.
            let doubtful = action.flow.as_ref().is_some_and(|of| of.facts.tainted && !of.findings.is_empty());
            if let Some(part) = action.part.as_ref().filter(|_| doubtful) {
                part.held();
            }
            return Ok(decided.asking(Question { id, expires }));
        }
        AskedApproval::Denied { id } => {
            (format!("a person said no to this (approval {id})"), "Go on without it")
        }
        AskedApproval::Behind { id } => (
            format!(
                "this run waits for a person's word on another action (approval {id}), and until then no other is asked"
            ),
            "Wait for that answer, or go on with what needs no approval",
        ),
        AskedApproval::Full { max, of_agent } => {
            let whose = if of_agent { " of this agent" } else { "" };
            (
                format!("a person would have to approve this, and {max} questions{whose} wait already"),
                "Try again when some of them are answered",
            )
        }
    };
    gate.approvals.not_asked.add(1);
    Ok(decided.refused(reason, advice.to_owned()))
}

/// What an approval is bound to.
struct Subject {
    said: Vec<u8>,
    rest: [String; 4],
}

impl Subject {
    fn of(action: &Action) -> Self {
        let run = action.run.as_ref().map_or_else(String::new, |run| format!("run {}", run.as_str()));
        Self {
            said: said(action).to_vec(),
            rest: [
                action.agent.name.to_string(),
                run,
                action.operation.as_str().to_owned(),
                action.resource.to_string(),
            ],
        }
    }

    /// The digest, and the canonical form of what was said.
    fn digested(self) -> Result<(Digest, String), Refusal> {
        let said = if self.said.is_empty() { &b"{}"[..] } else { &self.said };
        let said = canonical(said).map_err(|error| undecided(&error.to_string()))?;
        let mut hash = Hash::new(&SHA256);
        for part in self.rest.iter().chain([&said]) {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mut digest = [0; 32];
        digest.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Ok((Digest(digest), said))
    }
}

/// What of an action's message is its content: the arguments, else the parameters of a message to a peer,
/// else all that a model is asked. Ids of requests and other metadata differ each time.
fn said(action: &Action) -> &[u8] {
    use castra_core::Operation;
    match action.operation {
        Operation::Call | Operation::Read => action.arguments().unwrap_or_default(),
        _ => params(&action.request).unwrap_or(&action.request),
    }
}

fn params(message: &[u8]) -> Option<&[u8]> {
    #[derive(serde::Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        params: Option<&'a RawValue>,
    }
    let message: Message<'_> = serde_json::from_slice(message).ok()?;
    message.params.map(|params| params.get().as_bytes())
}

/// What a person sees of a question.
#[derive(Serialize)]
struct Shown<'a> {
    protocol: &'static str,
    method: &'a str,
    effect: &'static str,
    external: bool,
    /// In canonical form, as far as it is shown.
    arguments: &'a str,
    arguments_bytes: usize,
    reason: &'a str,
    findings: Vec<ShownFinding<'a>>,
}

#[derive(Serialize)]
struct ShownFinding<'a> {
    argument: &'a str,
    value: &'a str,
    rule: &'a str,
    fix: &'a str,
    /// `prompt`, `trusted`, `untrusted` or `nowhere`.
    seen: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    excerpt: Option<&'a str>,
}

impl<'a> Shown<'a> {
    fn of(action: &'a Action, arguments: &'a str, reason: &'a str, findings: &'a [ArgumentFinding]) -> Self {
        let end = arguments.char_indices().nth(ARGUMENTS_SHOWN_MAX).map_or(arguments.len(), |(at, _)| at);
        Self {
            protocol: action.protocol.as_str(),
            method: &action.method,
            effect: action.effect.as_str(),
            external: action.external,
            arguments: arguments.get(..end).unwrap_or_default(),
            arguments_bytes: arguments.len(),
            reason,
            findings: findings.iter().take(FINDINGS_SHOWN_MAX).map(ShownFinding::of).collect(),
        }
    }
}

impl<'a> ShownFinding<'a> {
    fn of(finding: &'a ArgumentFinding) -> Self {
        let (seen, source, record, excerpt) = match &finding.origin {
            Origin::Prompt => ("prompt", None, None, None),
            Origin::Trusted { tool } => ("trusted", Some(&**tool), None, None),
            Origin::Untrusted { record, source, excerpt } => {
                ("untrusted", Some(&**source), Some(*record), Some(excerpt.as_str()))
            }
            Origin::Nowhere => ("nowhere", None, None, None),
        };
        Self {
            argument: &finding.argument,
            value: &finding.shown,
            rule: finding.rule,
            fix: &finding.fix,
            seen,
            source,
            record,
            excerpt,
        }
    }
}

/// Asks the state beside the threads that serve connections.
async fn ask_store<T: Send + 'static>(
    gate: &Gate,
    ask: impl FnOnce(&State) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Refusal> {
    let state = gate.approvals.state.clone();
    match tokio::task::spawn_blocking(move || ask(&state)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(undecided(&error.to_string())),
        Err(error) => Err(undecided(&error.to_string())),
    }
}

fn undecided(why: &str) -> Refusal {
    tracing::error!(why, "what people said about an action cannot be had, so it is refused");
    let reason = "the gate cannot look up what people said about this, so it may not happen";
    Refusal::new(Step::Decide, RefusalCode::Undecided, reason)
        .advise("Ask the operator to look at the gate's log and disk (castra doctor)")
}
