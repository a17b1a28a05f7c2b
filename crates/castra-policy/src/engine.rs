//! Decides. A request finds its [`Slice`], what is open in it goes to Cedar, and the outcome becomes
//! a verdict with its reasons. An allowed action costs little; the work of explaining is done for
//! denied ones.

use std::{borrow::Cow, fmt::Write, sync::Arc};

use castra_core::{AgentIdentity, Decision, Effect, Operation, ResourceRef, ServerName, Verdict};
use cedar_policy::{AuthorizationError, Authorizer, Context};

use crate::{
    arguments::Misfit,
    catalogue::{Catalogue, Known},
    context::{DecisionRequest, Types},
    explain::{
        Examiner, ExplainedPolicy, Explanation, PolicyOutcome, error_text, policies_text, resource_text,
    },
    names::Names,
    policies::{Loaded, Policies, PolicySource},
    problem::{Place, PolicyProblems, Problem},
    slice::{Ask, Cache, Index, Materials, Outcome, Slice, set},
    starter::STANDARD_FILE,
};

/// A policy set in force. Reading and reloading files is the caller's business: make a new engine
/// and put it in the place of the old one.
#[derive(Debug)]
pub struct Engine {
    names: Arc<Names>,
    policies: Arc<Policies>,
    index: Arc<Index>,
    known: Known,
    authorizer: Authorizer,
    cache: Cache,
    warnings: Vec<Problem>,
}

impl Engine {
    /// Parses the sources and validates them strictly against the catalogue's schema.
    ///
    /// # Errors
    /// When a source does not parse, an id is used twice, a template is in it, or a policy does not
    /// validate. All problems are in the error, with their places.
    pub fn load(sources: &[PolicySource], catalogue: &Catalogue) -> Result<Self, PolicyProblems> {
        let names = Names::new().map_err(|error| {
            let problem = Place { file: "names", text: "" }.problem(0, error.to_string());
            PolicyProblems { errors: vec![problem], warnings: Vec::new() }
        })?;
        let policies = Policies::parse(sources)?;
        let known = Known::new(catalogue);
        let (errors, warnings) = policies.check(&known, &names);
        if !errors.is_empty() {
            return Err(PolicyProblems { errors, warnings });
        }
        let index = Arc::new(Index::new(&policies.list));
        Ok(Self::new(Arc::new(names), Arc::new(policies), index, known, warnings))
    }

    /// The same policies with another catalogue. They stay in force whatever the catalogue says:
    /// what no longer validates becomes a warning, and what it reads in vain denies.
    #[must_use]
    pub fn with_catalogue(&self, catalogue: &Catalogue) -> Self {
        let known = Known::new(catalogue);
        let problems = if known == self.known {
            self.warnings.clone()
        } else {
            let (mut problems, warnings) = self.policies.check(&known, &self.names);
            problems.extend(warnings);
            problems
        };
        Self::new(self.names.clone(), self.policies.clone(), self.index.clone(), known, problems)
    }

    /// What is probably not meant in the sources.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// How many policies are in force.
    pub fn policy_count(&self) -> usize {
        self.policies.list.len()
    }

    /// How many of them are the operator's own, and not of the standard pack.
    pub fn own_policy_count(&self) -> usize {
        let own = |policy: &&Loaded| self.policies.file(policy) != STANDARD_FILE;
        self.policies.list.iter().filter(own).count()
    }

    /// SHA-256 of the sources in hex: over the sources by file name, for each the length (eight
    /// bytes, big-endian) and bytes of name and text.
    pub fn policy_set(&self) -> &Arc<str> {
        &self.policies.digest
    }

    /// Decides. Whatever cannot be decided is denied.
    ///
    /// Reason and advice are recorded and shown to the agent, so they hold no argument values.
    pub fn decide(&self, request: &DecisionRequest<'_>) -> Verdict {
        let slice = match self.slice(request) {
            Ok(slice) => slice,
            Err(error) => return self.undecidable(request, &error),
        };
        if slice.open.is_none() {
            return slice.fixed.get_or_init(|| self.judge(&slice, request).verdict()).clone();
        }
        self.judge(&slice, request).verdict()
    }

    /// Whether some arguments, time or place could be permitted: for lists of what an agent may use.
    pub fn may_use(
        &self,
        agent: &AgentIdentity,
        operation: Operation,
        resource: &ResourceRef,
        effect: Effect,
        external: bool,
        described: bool,
    ) -> bool {
        let ask = Ask { agent: agent.into(), operation, resource, effect, external, described };
        let Ok(slice) = self.cache.get(&ask, &self.materials()) else { return false };
        let permits = |i: &usize| self.policies.list.get(*i).is_some_and(Loaded::permits);
        let open = slice.open.as_ref().is_some_and(|open| open.members.iter().any(permits));
        slice.settled.forbids.is_empty()
            && slice.settled.errors.is_empty()
            && (open || !slice.settled.permits.is_empty())
    }

    /// Whether some policy could permit the agent something at a server: for opening a session there,
    /// or asking for a list. With an operation only that counts. Looks at scopes alone, so it may say
    /// yes where conditions leave nothing over, and never says no where something is permitted.
    /// Takes time in proportion to the number of policies.
    pub fn may_use_some(
        &self,
        agent: &AgentIdentity,
        operation: Option<Operation>,
        server: &ServerName,
    ) -> bool {
        let wanted = crate::scope::Request {
            principal: self.names.agent(&agent.name),
            groups: agent.groups.iter().map(|group| self.names.group(group)).collect(),
            action: self.names.action(operation.unwrap_or(Operation::Call)),
            resource: self.names.server(server),
            server: None,
        };
        let forbids =
            |policy: &Loaded| !policy.permits() && !policy.conditional && policy.scope.covers(&wanted);
        let permits =
            |policy: &Loaded| policy.permits() && policy.scope.reaches(&wanted, operation.is_none());
        self.policies.list.iter().any(permits) && !self.policies.list.iter().any(forbids)
    }

    /// Tells everything about a decision. Takes time in proportion to the number of policies and
    /// shows argument values; not for the path of an action.
    pub fn explain(&self, request: &DecisionRequest<'_>) -> Explanation {
        let verdict = self.decide(request);
        let is_tool = matches!(request.resource, ResourceRef::Tool { .. });
        Explanation {
            decision: verdict.decision,
            reason: verdict.reason,
            advice: verdict.advice,
            agent: request.agent.name.to_string(),
            groups: request.agent.groups.iter().map(ToString::to_string).collect(),
            operation: request.operation,
            resource: format!("Castra::{}", request.resource),
            effect: is_tool.then_some(request.effect),
            external: is_tool.then_some(request.external),
            policies: self.explained(request).unwrap_or_default(),
            policies_in_all: self.policies.list.len(),
            policy_set: self.policies.digest.to_string(),
        }
    }

    fn new(
        names: Arc<Names>,
        policies: Arc<Policies>,
        index: Arc<Index>,
        known: Known,
        warnings: Vec<Problem>,
    ) -> Self {
        Self { names, policies, index, known, authorizer: Authorizer::new(), cache: Cache::new(), warnings }
    }

    fn materials(&self) -> Materials<'_> {
        Materials {
            names: &self.names,
            policies: &self.policies,
            index: &self.index,
            known: &self.known,
            authorizer: &self.authorizer,
        }
    }

    fn slice(&self, request: &DecisionRequest<'_>) -> Result<Arc<Slice>, String> {
        let DecisionRequest { operation, resource, effect, external, .. } = *request;
        let described = request.flow.is_some_and(|flow| flow.described);
        self.cache.get(
            &Ask { agent: request.agent.into(), operation, resource, effect, external, described },
            &self.materials(),
        )
    }

    fn judge<'a>(&'a self, slice: &'a Slice, request: &'a DecisionRequest<'a>) -> Judgement<'a> {
        let mut judgement = Judgement {
            engine: self,
            slice,
            request,
            outcome: Cow::Borrowed(&slice.settled),
            cedar: None,
            misfit: None,
        };
        let context = match &slice.open {
            None => Ok(Context::empty()),
            Some(open) => open.plan.build(request, self.types(slice)),
        };
        match context.and_then(|context| slice.request.cedar(context).map_err(Misfit::new)) {
            Err(misfit) => judgement.misfit = Some(misfit),
            Ok(cedar) => {
                if let Some(open) = &slice.open {
                    let response = self.authorizer.is_authorized(&cedar, &open.set, &slice.entities);
                    judgement.outcome.to_mut().take(&response, &self.policies);
                }
                judgement.cedar = Some(cedar);
            }
        }
        judgement
    }

    fn types<'a>(&'a self, slice: &'a Slice) -> Types<'a> {
        Types { arguments: &self.known.arguments, tool: slice.tool.as_deref() }
    }

    fn undecidable(&self, request: &DecisionRequest<'_>, error: &str) -> Verdict {
        Verdict {
            decision: Decision::Deny,
            policies: Vec::new(),
            ask: Vec::new(),
            reason: format!("{} could not be decided: {error}", attempt(request)),
            advice: "this is a fault of the gate and not of a policy; please report it".to_owned(),
            policy_set: self.policies.digest.clone(),
            inspect: None,
        }
    }

    fn explained(&self, request: &DecisionRequest<'_>) -> Option<Vec<ExplainedPolicy>> {
        let slice = self.slice(request).ok()?;
        let judgement = self.judge(&slice, request);
        let (mut matching, mut near) = (Vec::new(), Vec::new());
        for (i, policy) in self.policies.list.iter().enumerate() {
            let found = policy.scope.matches(&slice.request);
            let explained = |differs| judgement.explained(i, policy, differs);
            match (found.principal, found.action, found.resource) {
                (true, true, true) => matching.push(explained(None)),
                (false, true, true) if near.len() < NEAR_MAX => near.push(explained(Some("principal"))),
                (true, false, true) if near.len() < NEAR_MAX => near.push(explained(Some("action"))),
                (true, true, false) if near.len() < NEAR_MAX => near.push(explained(Some("resource"))),
                _ => {}
            }
        }
        matching.append(&mut near);
        Some(matching)
    }
}

/// Policies of another scope that an explanation lists.
const NEAR_MAX: usize = 50;
/// Forbids that an ask gives the words of.
const WHYS_MAX: usize = 4;
/// Permits that a reason goes into.
const MISSED_MAX: usize = 2;

/// What came of one request, on its way to a verdict.
struct Judgement<'a> {
    engine: &'a Engine,
    slice: &'a Slice,
    request: &'a DecisionRequest<'a>,
    outcome: Cow<'a, Outcome>,
    /// None when the context could not be built.
    cedar: Option<cedar_policy::Request>,
    misfit: Option<Misfit>,
}

impl Judgement<'_> {
    /// A forbid wins over an error, an error over a permit, and without a permit nothing happens. A person is
    /// asked where only forbids that want it stand against a permit.
    fn verdict(&self) -> Verdict {
        if let [first, ..] = self.outcome.forbids.as_slice() {
            let asks = self.policies(&self.outcome.forbids).all(|policy| policy.asks);
            return match asks.then(|| self.permitted_beside()) {
                Some(true) => self.ask(),
                Some(false) => self.forbidden(*first, "; no person is asked, because no policy permits it"),
                // What does not ask is what denies.
                None => {
                    let flat =
                        self.outcome.forbids.iter().find(|i| self.policy(**i).is_some_and(|p| !p.asks));
                    self.forbidden(*flat.unwrap_or(first), "")
                }
            };
        }
        if !self.outcome.errors.is_empty() {
            return self.failed();
        }
        if let Some(misfit) = &self.misfit {
            return self.unfit(misfit);
        }
        if self.outcome.permits.is_empty() {
            return self.unpermitted();
        }
        Verdict {
            decision: Decision::Allow,
            policies: self.ids(&self.outcome.permits),
            ask: Vec::new(),
            reason: {
                let permits = self.policies(&self.outcome.permits);
                let s = if self.outcome.permits.len() == 1 { "s" } else { "" };
                format!("{} permit{s} it", policies_text(permits))
            },
            advice: String::new(),
            policy_set: self.engine.policies.digest.clone(),
            inspect: self.policies(&self.outcome.permits).filter_map(|policy| policy.inspect).max(),
        }
    }

    /// Whether some permit applies, whatever forbids; nothing does where an evaluation failed. Cedar does not
    /// name permits when a forbid applies, so those that read the context are evaluated by themselves.
    fn permitted_beside(&self) -> bool {
        if self.misfit.is_some() || !self.outcome.errors.is_empty() {
            return false;
        }
        if !self.slice.settled.permits.is_empty() {
            return true;
        }
        let members = self.slice.open.as_ref().map_or(&[][..], |open| &open.members);
        let permits = set(self.policies(members).filter(|policy| policy.permits()));
        let (Some(cedar), Ok(permits)) = (&self.cedar, permits) else { return false };
        let response = self.engine.authorizer.is_authorized(cedar, &permits, &self.slice.entities);
        response.decision() == cedar_policy::Decision::Allow
    }

    /// The forbids that apply want a person's word. The reason holds what their authors say, and the advice,
    /// which is for operators, the facts.
    fn ask(&self) -> Verdict {
        let forbids = &self.outcome.forbids;
        let s = if forbids.len() == 1 { "s" } else { "" };
        let mut reason = format!(
            "{} ask{s} a person whether {}",
            policies_text(self.policies(forbids)),
            may(self.request)
        );
        let whys: Vec<_> = self.policies(forbids).filter_map(Loaded::why).take(WHYS_MAX).collect();
        if !whys.is_empty() {
            let _ = write!(reason, ": {}", whys.join("; "));
        }
        let mut advice = "a person can approve it (castra approval)".to_owned();
        if let Some(examiner) = self.examiner() {
            for policy in self.policies(forbids).take(WHYS_MAX) {
                let at = format!("{:?} ({}:{})", policy.id, self.engine.policies.file(policy), policy.line);
                let grounds = examiner.grounds(policy).join("; ");
                let _ = write!(advice, "; policy {at} would not ask if this were not so: {grounds}");
            }
        }
        Verdict {
            decision: Decision::Ask,
            policies: self.ids(forbids),
            ask: self.ids(forbids),
            reason,
            advice,
            policy_set: self.engine.policies.digest.clone(),
            inspect: None,
        }
    }

    fn forbidden(&self, first: usize, beside: &str) -> Verdict {
        let s = if self.outcome.forbids.len() == 1 { "s" } else { "" };
        let named = policies_text(self.policies(&self.outcome.forbids));
        let mut reason = format!("{named} forbid{s} {}", attempt(self.request));
        let mut advice = String::new();
        if let Some(policy) = self.policy(first) {
            if let Some(why) = policy.why() {
                let _ = write!(reason, ": {why}");
            }
            reason.push_str(beside);
            let file = self.engine.policies.file(policy);
            let grounds = self.examiner().map(|e| e.grounds(policy)).unwrap_or_default();
            let at = format!("{:?} ({file}:{})", policy.id, policy.line);
            advice = match grounds.as_slice() {
                // Which argument gave it away is nothing for whoever wrote it.
                _ if file == STANDARD_FILE => {
                    "go on with what the user asked for, with values that the user or trusted sources gave; \
                     an operator sees the rest with `castra policy explain`"
                        .to_owned()
                }
                [] => format!("whatever is permitted, policy {at} has to change first"),
                grounds => format!("policy {at} would not apply if this were not so: {}", grounds.join("; ")),
            };
        }
        self.deny(self.ids(&self.outcome.forbids), reason, advice)
    }

    fn failed(&self) -> Verdict {
        let ids: Vec<_> = self.outcome.errors.iter().map(|(i, _)| *i).collect();
        let mut reason = format!("{} is denied because ", attempt(self.request));
        if let Some((i, AuthorizationError::PolicyEvaluationError(error))) = self.outcome.errors.first()
            && let Some(policy) = self.policy(*i)
        {
            let hide = policy.reads.is_some();
            let _ = write!(
                reason,
                "policy {:?} could not be evaluated: {}",
                policy.id,
                error_text(error.inner(), hide)
            );
        }
        let advice = "mend the policy, for instance with a `has` before the attribute that may be absent";
        self.deny(self.ids(&ids), reason, advice.to_owned())
    }

    fn unfit(&self, misfit: &Misfit) -> Verdict {
        let first = misfit.path.first().map(String::as_str).unwrap_or_default();
        let reads_it = |policy: &&Loaded| policy.reads.as_ref().is_some_and(|reads| self.reads(reads, first));
        let members = self.slice.open.as_ref().map_or(&[][..], |open| &open.members);
        let ids: Vec<usize> =
            members.iter().copied().filter(|i| self.policy(*i).as_ref().is_some_and(reads_it)).collect();
        let verb = if ids.len() == 1 { "reads" } else { "read" };
        let named = policies_text(self.policies(&ids));
        let reason =
            format!("{} is denied because {named} {verb} its arguments and {misfit}", attempt(self.request));
        let advice = "send the argument as the tool's input schema says, or leave it out".to_owned();
        self.deny(self.ids(&ids), reason, advice)
    }

    fn reads(&self, reads: &crate::reads::Reads, argument: &str) -> bool {
        let id = self.request.resource.id();
        reads.needs(&["args", argument]) || reads.needs(&["call", &id, argument])
    }

    fn unpermitted(&self) -> Verdict {
        let mut advice = self.missed().join("; ");
        if advice.is_empty() {
            advice = match clause(self.request, self.slice) {
                Some(clause) => format!("a policy like this would permit it: {clause}"),
                None => "a policy has to permit it".to_owned(),
            };
        }
        self.deny(Vec::new(), format!("no policy permits {}", attempt(self.request)), advice)
    }

    /// Permits whose scope matches and whose conditions do not.
    fn missed(&self) -> Vec<String> {
        let Some(examiner) = self.examiner() else { return Vec::new() };
        let open = self.slice.open.as_ref().map_or(&[][..], |open| &open.members);
        let permits = self.policies(open).filter(|policy| policy.permits());
        permits
            .chain(self.policies(&self.slice.missed))
            .filter_map(|policy| {
                let obstacles = examiner.obstacles(policy);
                let obstacles = if obstacles.is_empty() { return None } else { obstacles.join(" and ") };
                Some(format!("policy {:?} would permit it if this were so: {obstacles}", policy.id))
            })
            .take(MISSED_MAX)
            .collect()
    }

    fn explained(&self, index: usize, policy: &Loaded, differs: Option<&'static str>) -> ExplainedPolicy {
        let error = self.outcome.errors.iter().find(|(i, _)| *i == index);
        let conditions = match (&self.cedar, differs) {
            (Some(cedar), None) => {
                let (policies, entities) = (&*self.engine.policies, &self.slice.entities);
                Examiner { policies, request: cedar, entities, private: true }.conditions(policy)
            }
            _ => Vec::new(),
        };
        let outcome = match (differs, error, &self.misfit) {
            (Some(_), ..) => PolicyOutcome::OutOfScope,
            (_, Some((_, AuthorizationError::PolicyEvaluationError(error))), _) => {
                PolicyOutcome::Error(error_text(error.inner(), false))
            }
            (.., Some(misfit)) if policy.reads.is_some() => PolicyOutcome::Error(misfit.to_string()),
            _ if self.applies(index, policy, &conditions) => PolicyOutcome::Applies,
            _ => PolicyOutcome::DoesNotApply,
        };
        ExplainedPolicy {
            id: policy.id.to_string(),
            file: self.engine.policies.file(policy).to_owned(),
            line: policy.line,
            effect: if policy.permits() { "permit" } else { "forbid" },
            why: policy.why().map(str::to_owned),
            outcome,
            scope_differs: differs,
            conditions,
        }
    }

    /// Cedar does not name permits when a forbid applies; for those the conditions tell.
    fn applies(
        &self,
        index: usize,
        policy: &Loaded,
        conditions: &[crate::explain::ExplainedCondition],
    ) -> bool {
        let named = self.outcome.permits.contains(&index) || self.outcome.forbids.contains(&index);
        let overruled = policy.permits() && !self.outcome.forbids.is_empty();
        named || (overruled && !conditions.is_empty() && conditions.iter().all(|c| c.fulfilled()))
    }

    fn examiner(&self) -> Option<Examiner<'_>> {
        Some(Examiner {
            policies: &self.engine.policies,
            request: self.cedar.as_ref()?,
            entities: &self.slice.entities,
            private: false,
        })
    }

    fn policy(&self, index: usize) -> Option<&Loaded> {
        self.engine.policies.list.get(index)
    }

    fn policies<'s>(&'s self, indexes: &'s [usize]) -> impl Iterator<Item = &'s Loaded> {
        indexes.iter().filter_map(|i| self.policy(*i))
    }

    fn ids(&self, indexes: &[usize]) -> Vec<Arc<str>> {
        self.policies(indexes).map(|policy| policy.id.clone()).collect()
    }

    fn deny(&self, policies: Vec<Arc<str>>, reason: String, advice: String) -> Verdict {
        let policy_set = self.engine.policies.digest.clone();
        Verdict {
            decision: Decision::Deny,
            policies,
            ask: Vec::new(),
            reason,
            advice,
            policy_set,
            inspect: None,
        }
    }
}

/// `agent "mailer" to call tool "files/write_file" (effect act)`
fn attempt(request: &DecisionRequest<'_>) -> String {
    tried(request, "to")
}

/// `agent "mailer" may call tool "files/write_file" (effect act)`
fn may(request: &DecisionRequest<'_>) -> String {
    tried(request, "may")
}

fn tried(request: &DecisionRequest<'_>, to: &str) -> String {
    let (agent, operation) = (&request.agent.name, request.operation.as_str());
    let mut text = format!("agent {:?} {to} {operation} {}", agent.as_str(), resource_text(request.resource));
    if matches!(request.resource, ResourceRef::Tool { .. }) {
        let _ = write!(text, " (effect {})", request.effect.as_str());
    }
    text
}

/// Bytes of a resource's name that a suggested policy repeats.
const CLAUSE_NAME_BYTES_MAX: usize = 300;

fn clause(request: &DecisionRequest<'_>, slice: &Slice) -> Option<String> {
    if request.resource.id().len() > CLAUSE_NAME_BYTES_MAX {
        return None;
    }
    let Slice { request, .. } = slice;
    let (principal, action, resource) = (&request.principal, &request.action, &request.resource);
    Some(format!("permit (principal == {principal}, action == {action}, resource == {resource});"))
}
