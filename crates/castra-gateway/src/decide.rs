//! Step 5, decide: one Cedar decision over who, what, with which arguments, when and from where.

use std::time::Instant;

use castra_core::{Approval, Decision, PolicyMode, Timestamp, Verdict};
use castra_policy::{DecisionRequest, Engine};

use crate::{approval::Question, gate::Gate, metrics::Metrics, understand::Action};

/// An action with its verdict. Only [`decide`] makes one.
pub(crate) struct Decided {
    action: Action,
    verdict: Verdict,
    enforced: bool,
    time: Timestamp,
    question: Option<Question>,
}

/// Asks the policies. Never fails: what cannot be decided is denied, and says so.
pub(crate) fn decide(
    engine: &Engine,
    mode: PolicyMode,
    action: Action,
    time: Timestamp,
    metrics: &Metrics,
) -> Decided {
    let started = Instant::now();
    let verdict = engine.decide(&request(&action, time));
    metrics.decision(started.elapsed());
    Decided { action, verdict, enforced: mode == PolicyMode::Enforce, time, question: None }
}

/// Decides once more, with a person's word or without.
pub(crate) fn decide_again(gate: &Gate, decided: Decided, approval: Option<Approval>) -> Decided {
    let Decided { mut action, time, .. } = decided;
    action.approval = approval;
    decide(&gate.engine.load(), gate.mode(), action, time, &gate.metrics)
}

/// Whether what was permitted would be permitted now; for what goes on for a long time.
pub(crate) fn still_permits(engine: &Engine, mode: PolicyMode, action: &Action, time: Timestamp) -> bool {
    mode == PolicyMode::Observe || engine.decide(&request(action, time)).decision == Decision::Allow
}

fn request(action: &Action, time: Timestamp) -> DecisionRequest<'_> {
    DecisionRequest {
        agent: &action.agent,
        operation: action.operation,
        resource: &action.resource,
        effect: action.effect,
        external: action.external,
        time,
        source: action.source,
        protocol: action.protocol,
        revision: action.revision,
        modern: action.modern,
        run: action.run.as_ref(),
        arguments: action.arguments(),
        findings: &action.findings,
        particulars: action.particulars.for_policies(),
        flow: action.flow.as_ref().map(|judgement| &judgement.facts),
        approval: action.approval.as_ref(),
    }
}

impl Decided {
    pub(crate) fn action(&self) -> &Action {
        &self.action
    }

    pub(crate) fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// When it was decided; the record bears the same time, so that the decision can be replayed.
    pub(crate) fn time(&self) -> Timestamp {
        self.time
    }

    pub(crate) fn enforced(&self) -> bool {
        self.enforced
    }

    /// What a person is asked about it.
    pub(crate) fn question(&self) -> Option<&Question> {
        self.question.as_ref()
    }

    /// It waits for a person's answer.
    pub(crate) fn asking(mut self, question: Question) -> Self {
        self.verdict.decision = Decision::Ask;
        self.verdict.reason.push_str(&format!(" (approval {})", question.id));
        self.question = Some(question);
        self
    }

    /// It may not happen after all, and no person is asked.
    pub(crate) fn refused(mut self, reason: String, advice: String) -> Self {
        self.verdict.decision = Decision::Deny;
        (self.verdict.reason, self.verdict.advice) = (reason, advice);
        self
    }

    /// A no counts, and a question does not: the same is decided again when the call itself comes.
    pub(crate) fn left_to_the_call(mut self) -> Self {
        self.enforced &= self.verdict.decision != Decision::Ask;
        self
    }

    /// Whether it may go on: permitted, or policies are only observed.
    pub(crate) fn permitted(&self) -> bool {
        self.verdict.decision == Decision::Allow || !self.enforced
    }
}
