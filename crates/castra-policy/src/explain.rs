//! Why: sentences for a refusal, and the whole story of one decision for an operator.

use std::fmt::{self, Write};

use castra_core::{Decision, Operation, ResourceRef};
use cedar_policy::{Entities, EvalResult, EvaluationError, eval_expression};
use serde::Serialize;

use crate::{
    clauses::{Clause, Fact},
    policies::{Loaded, Policies},
};

/// Everything about one decision. Holds argument values: for operators, not for records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What was decided.
    pub decision: Decision,
    /// Why, as in the verdict.
    pub reason: String,
    /// What would have to change, as in the verdict.
    pub advice: String,
    /// Who asked.
    pub agent: String,
    /// The groups that the agent is in.
    pub groups: Vec<String>,
    /// What it asked for.
    pub operation: Operation,
    /// To what, as policies write it.
    pub resource: String,
    /// The tool's effect; none for what is no tool.
    pub effect: Option<castra_core::Effect>,
    /// Whether the tool reaches outside; none for what is no tool.
    pub external: Option<bool>,
    /// The policies that could matter: those whose scope matches, then those of whose scope one
    /// part does not.
    pub policies: Vec<ExplainedPolicy>,
    /// How many there are in all.
    pub policies_in_all: usize,
    /// Digest of the policy set.
    pub policy_set: String,
}

/// What came of one policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainedPolicy {
    /// Its id.
    pub id: String,
    /// Its file.
    pub file: String,
    /// Its first line.
    pub line: u32,
    /// `permit` or `forbid`.
    pub effect: &'static str,
    /// What its author says about it (`@reason`, `@description`).
    pub why: Option<String>,
    /// What came of it.
    pub outcome: PolicyOutcome,
    /// The part of its scope that does not match (`principal`, `action`, `resource`).
    pub scope_differs: Option<&'static str>,
    /// Its conditions in parts; empty when its scope does not match.
    pub conditions: Vec<ExplainedCondition>,
}

/// What came of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyOutcome {
    /// It applies.
    Applies,
    /// Its conditions do not hold.
    DoesNotApply,
    /// Its scope does not match.
    OutOfScope,
    /// It could not be evaluated, which denies.
    Error(String),
}

/// One part of a `when` or `unless`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainedCondition {
    /// `when` or `unless`.
    pub kind: &'static str,
    /// As the author wrote it.
    pub text: String,
    /// Whether it is true; none when it could not be evaluated.
    pub holds: Option<bool>,
    /// What it reads and what that was.
    pub values: Vec<(String, String)>,
}

impl ExplainedCondition {
    /// Whether it lets its policy apply.
    pub(crate) fn fulfilled(&self) -> bool {
        self.holds == Some(self.kind == "when")
    }

    /// `context.time.hour < 18 (context.time.hour is 22)`
    fn sentence(&self) -> String {
        let mut out = self.text.clone();
        for (i, (name, value)) in self.values.iter().enumerate() {
            let _ = write!(out, "{}{name} is {value}", if i == 0 { " (" } else { ", " });
        }
        if !self.values.is_empty() {
            out.push(')');
        }
        out
    }
}

/// Looks at policies in the light of one request.
pub(crate) struct Examiner<'a> {
    pub(crate) policies: &'a Policies,
    pub(crate) request: &'a cedar_policy::Request,
    pub(crate) entities: &'a Entities,
    /// Whether values of arguments may be shown.
    pub(crate) private: bool,
}

/// Characters of a value in a sentence.
const VALUE_CHARS_MAX: usize = 100;

impl Examiner<'_> {
    pub(crate) fn conditions(&self, policy: &Loaded) -> Vec<ExplainedCondition> {
        self.policies.clauses(policy).iter().map(|clause| self.condition(clause)).collect()
    }

    /// What keeps a policy from applying, as a clause of a sentence.
    pub(crate) fn obstacles(&self, policy: &Loaded) -> Vec<String> {
        let conditions = self.conditions(policy);
        conditions
            .iter()
            .filter(|condition| condition.holds.is_some() && !condition.fulfilled())
            .map(|condition| match condition.kind {
                "when" => condition.sentence(),
                _ => format!("not {}", condition.sentence()),
            })
            .collect()
    }

    /// What makes a policy apply.
    pub(crate) fn grounds(&self, policy: &Loaded) -> Vec<String> {
        let conditions = self.conditions(policy);
        conditions
            .iter()
            .filter(|c| c.fulfilled() && c.kind == "when")
            .map(ExplainedCondition::sentence)
            .collect()
    }

    fn condition(&self, clause: &Clause) -> ExplainedCondition {
        let holds = match eval_expression(self.request, self.entities, &clause.expression) {
            Ok(EvalResult::Bool(holds)) => Some(holds),
            _ => None,
        };
        ExplainedCondition {
            kind: if clause.when { "when" } else { "unless" },
            text: clause.text.clone(),
            holds,
            values: clause.facts.iter().map(|fact| (fact.text.clone(), self.value(fact))).collect(),
        }
    }

    fn value(&self, fact: &Fact) -> String {
        match eval_expression(self.request, self.entities, &fact.expression) {
            Err(_) => "absent".to_owned(),
            Ok(EvalResult::Bool(there)) if fact.presence => if there { "there" } else { "absent" }.to_owned(),
            Ok(value) if fact.private && !self.private => shape(&value),
            Ok(value) => shortened(&value.to_string()),
        }
    }
}

/// What may be said of a value that is the caller's own.
fn shape(value: &EvalResult) -> String {
    match value {
        EvalResult::Bool(_) => "a boolean".to_owned(),
        EvalResult::Long(_) => "an integer".to_owned(),
        EvalResult::String(text) => format!("a string of {} characters", text.chars().count()),
        EvalResult::Set(set) => format!("a set of {}", set.len()),
        EvalResult::Record(_) => "an object".to_owned(),
        EvalResult::EntityUid(_) | EvalResult::ExtensionValue(_) => "a number".to_owned(),
    }
}

pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
    }
}

/// The kind of an evaluation error. Some of Cedar's messages quote values, which may be arguments.
pub(crate) fn error_text(error: &EvaluationError, hide: bool) -> String {
    match error {
        EvaluationError::IntegerOverflow(_) if hide => "a sum leaves the range of integers".to_owned(),
        EvaluationError::FailedExtensionFunctionExecution(_) | EvaluationError::NonValue(_) if hide => {
            "a function was given a value that it does not take".to_owned()
        }
        other => shortened(&other.to_string()),
    }
}

/// `tool "files/read_file"`, in short form.
pub(crate) fn resource_text(resource: &ResourceRef) -> String {
    let kind = match resource {
        ResourceRef::Tool { .. } => "tool",
        ResourceRef::Resource { .. } => "resource",
        ResourceRef::Prompt { .. } => "prompt",
        ResourceRef::Server(_) => "server",
        ResourceRef::Model(_) => "model",
        ResourceRef::Peer(_) => "peer",
    };
    format!("{kind} {}", shortened(&format!("{:?}", resource.id())))
}

/// `policy "a"`, `policies "a" and "b"`, `policies "a", "b" and 3 more`.
pub(crate) fn policies_text<'p>(policies: impl Iterator<Item = &'p Loaded>) -> String {
    const NAMED_MAX: usize = 3;
    let ids: Vec<_> = policies.map(|policy| &*policy.id).collect();
    match ids.as_slice() {
        [one] => format!("policy {one:?}"),
        [one, other] => format!("policies {one:?} and {other:?}"),
        many => {
            let named: Vec<_> = many.iter().take(NAMED_MAX).map(|id| format!("{id:?}")).collect();
            let more = many.len().saturating_sub(NAMED_MAX);
            let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("policies {}{tail}", named.join(", "))
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.decision.as_str(), self.reason)?;
        if !self.advice.is_empty() {
            writeln!(f, "{}", self.advice)?;
        }
        write!(f, "\nagent {:?}", self.agent)?;
        if !self.groups.is_empty() {
            write!(f, " (in {})", self.groups.join(", "))?;
        }
        write!(f, ", {} {}", self.operation.as_str(), self.resource)?;
        if let (Some(effect), Some(external)) = (self.effect, self.external) {
            let reach = if external { ", reaches outside" } else { "" };
            write!(f, ", effect {}{reach}", effect.as_str())?;
        }
        writeln!(f, "\n{} of {} policies could matter:", self.policies.len(), self.policies_in_all)?;
        self.policies.iter().try_for_each(|policy| write!(f, "{policy}"))
    }
}

impl fmt::Display for ExplainedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{} {:?} ({}:{}): ", self.effect, self.id, self.file, self.line)?;
        match &self.outcome {
            PolicyOutcome::Applies => writeln!(f, "applies")?,
            PolicyOutcome::DoesNotApply => writeln!(f, "does not apply")?,
            PolicyOutcome::OutOfScope => {
                writeln!(f, "is for another {}", self.scope_differs.unwrap_or("action"))?
            }
            PolicyOutcome::Error(error) => writeln!(f, "could not be evaluated: {error}")?,
        }
        if let Some(why) = &self.why {
            writeln!(f, "  {why}")?;
        }
        for condition in &self.conditions {
            let mark = match condition.holds {
                None => "?   ",
                Some(_) if condition.fulfilled() => "ok  ",
                Some(_) => "NOT ",
            };
            writeln!(f, "  {mark}{} {}", condition.kind, condition.sentence())?;
        }
        Ok(())
    }
}
