//! Proofs about policies: for all requests that the schema allows, and not for those that somebody thought of.
//!
//! Policies and properties are compiled to formulas (cedar-policy-symcc), which the solver cvc5 decides. A
//! counterexample is put before Cedar's own authorizer before anybody is told of it.

use castra_policy::PolicySource;
use cedar_policy::{
    Authorizer, Decision, Effect, Policy, PolicyId, PolicySet, RequestEnv, Schema, ValidationMode, Validator,
};
use cedar_policy_symcc::{CedarSymCompiler, CompiledPolicy, CompiledPolicySet, Env, solver::LocalSolver};
use serde::Serialize;

use crate::out::Failure;

/// What the policies must never permit.
pub(crate) struct Property {
    /// Its `@id`.
    pub(crate) id: String,
    /// Its `@reason`: the statement in words.
    pub(crate) statement: String,
    /// A permit of what the property forbids.
    forbidden: PolicySet,
}

/// What was found of one property or change.
#[derive(Debug, Serialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// It holds for every request.
    Holds {
        /// Kinds of requests that were looked at: principal, action, resource.
        kinds: usize,
    },
    /// It does not.
    Fails(Counterexample),
}

/// A request that shows it, confirmed by the authorizer.
#[derive(Debug, Serialize)]
pub(crate) struct Counterexample {
    /// Who does what to what.
    pub(crate) attempt: String,
    /// The context, as Cedar writes it.
    pub(crate) context: String,
    /// The entities that it needs, in the JSON form of Cedar.
    pub(crate) entities: String,
}

/// Reads properties from a Cedar text: each policy is a `forbid` with an `@id`.
pub(crate) fn properties(file: &str, text: &str) -> Result<Vec<Property>, Failure> {
    let set: PolicySet = text.parse().map_err(|e| Failure::new(format!("{file}: {e}")))?;
    let mut properties = Vec::new();
    for policy in set.policies() {
        let id = policy.annotation("id").unwrap_or_default().to_owned();
        let named = if id.is_empty() { policy.id().to_string() } else { id.clone() };
        if policy.effect() != Effect::Forbid {
            return Err(Failure::new(format!("{file}: the property {named:?} is a permit"))
                .advise("Write what must never be permitted as a `forbid`."));
        }
        let mut json = policy.to_json().map_err(|e| Failure::new(format!("{file}: {named:?}: {e}")))?;
        if let Some(object) = json.as_object_mut() {
            object.insert("effect".into(), "permit".into());
        }
        let permit = Policy::from_json(Some(PolicyId::new(&named)), json)
            .map_err(|e| Failure::new(format!("{file}: {named:?}: {e}")))?;
        let forbidden = PolicySet::from_policies([permit]).map_err(Failure::new)?;
        let statement = policy.annotation("reason").unwrap_or(&named).to_owned();
        properties.push(Property { id: named, statement, forbidden });
    }
    if properties.is_empty() {
        return Err(Failure::new(format!("{file} holds no property")));
    }
    properties.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(properties)
}

/// Proves things about one set of policies.
pub(crate) struct Prover {
    schema: Schema,
    kinds: Vec<RequestEnv>,
    compiler: CedarSymCompiler<LocalSolver>,
    runtime: tokio::runtime::Runtime,
}

impl Prover {
    /// Starts the solver.
    pub(crate) fn start(schema: &str) -> Result<Self, Failure> {
        let (schema, _) = Schema::from_cedarschema_str(schema)
            .map_err(|e| Failure::new(format!("the schema of the catalogue cannot be read: {e}")))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let solver = runtime.block_on(async { LocalSolver::cvc5() }).map_err(|e| {
            Failure::new(format!("the solver cvc5 does not start: {e}"))
                .advise("On Debian: apt-get install cvc5. The variable CVC5 names another program.")
        })?;
        let compiler = CedarSymCompiler::new(solver).map_err(Failure::new)?;
        let kinds = schema.request_envs().collect();
        Ok(Self { schema, kinds, compiler, runtime })
    }

    /// Whether the policies permit nothing that a property forbids.
    pub(crate) fn never_permits(
        &mut self,
        policies: &PolicySet,
        property: &Property,
    ) -> Result<Answer, Failure> {
        self.well_typed(&property.forbidden)?;
        let mut kinds = 0;
        for kind in self.kinds.clone() {
            let forbidden = self.compiled(&property.forbidden, &kind)?;
            let speaks = self.runtime.block_on(self.compiler.check_always_denies_opt(&forbidden));
            // Of this kind of request the property says nothing.
            if speaks.map_err(undecided)? {
                continue;
            }
            kinds += 1;
            let policies_compiled = self.compiled(policies, &kind)?;
            let found = self
                .runtime
                .block_on(
                    self.compiler.check_disjoint_with_counterexample_opt(&policies_compiled, &forbidden),
                )
                .map_err(undecided)?;
            if let Some(env) = found {
                confirm(&env, policies, Decision::Allow)?;
                confirm(&env, &property.forbidden, Decision::Allow)?;
                return Ok(Answer::Fails(shown(&env)));
            }
        }
        if kinds == 0 {
            let what = format!("the property {:?} forbids nothing that can be asked", property.id);
            return Err(Failure::new(what).advise("A property that says nothing would hold of any policies."));
        }
        Ok(Answer::Holds { kinds })
    }

    /// Whether the new policies permit nothing that the old ones do not.
    pub(crate) fn permits_no_more(&mut self, old: &PolicySet, new: &PolicySet) -> Result<Answer, Failure> {
        for kind in self.kinds.clone() {
            self.never_errs(old, &kind)?;
            let (was, is) = (self.compiled(old, &kind)?, self.compiled(new, &kind)?);
            let found = self
                .runtime
                .block_on(self.compiler.check_implies_with_counterexample_opt(&is, &was))
                .map_err(undecided)?;
            if let Some(env) = found {
                confirm(&env, new, Decision::Allow)?;
                confirm(&env, old, Decision::Deny)?;
                return Ok(Answer::Fails(shown(&env)));
            }
        }
        Ok(Answer::Holds { kinds: self.kinds.len() })
    }

    /// The gate denies what a policy cannot be evaluated for, and a formula skips such a policy. Where the old
    /// policies can err, they may permit less than the formula says, and nothing could be proved.
    fn never_errs(&mut self, policies: &PolicySet, kind: &RequestEnv) -> Result<(), Failure> {
        for policy in policies.policies() {
            let compiled = CompiledPolicy::compile(policy, kind, &self.schema).map_err(uncompiled)?;
            if !self.runtime.block_on(self.compiler.check_never_errors_opt(&compiled)).map_err(undecided)? {
                let what = format!("policy {} cannot be evaluated for some requests", policy.id());
                return Err(Failure::new(what)
                    .advise("The gate denies those, which a proof cannot see: mend it first."));
            }
        }
        Ok(())
    }

    fn compiled(&self, policies: &PolicySet, kind: &RequestEnv) -> Result<CompiledPolicySet, Failure> {
        CompiledPolicySet::compile(policies, kind, &self.schema).map_err(uncompiled)
    }

    fn well_typed(&self, policies: &PolicySet) -> Result<(), Failure> {
        let validator = Validator::new(self.schema.clone());
        let result = validator.validate(policies, ValidationMode::Strict);
        match result.validation_errors().next() {
            None => Ok(()),
            Some(error) => Err(Failure::new(error).advise("`castra policy schema` shows what there is.")),
        }
    }
}

/// The policies of several files as one set. Ids only have to differ.
pub(crate) fn policy_set(sources: &[PolicySource]) -> Result<PolicySet, Failure> {
    let mut all = PolicySet::new();
    for source in sources {
        let set: PolicySet =
            source.text.parse().map_err(|e| Failure::new(format!("{}: {e}", source.file)))?;
        for policy in set.policies() {
            let id = PolicyId::new(format!("{}:{}", source.file, policy.id()));
            all.add(policy.new_id(id)).map_err(Failure::new)?;
        }
    }
    Ok(all)
}

fn uncompiled(error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("the policies cannot be put into formulas: {error}"))
}

fn undecided(error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("the solver gave no answer: {error}")).advise("Nothing is proved by that.")
}

/// The solver's word is not taken for it.
fn confirm(env: &Env, policies: &PolicySet, expected: Decision) -> Result<(), Failure> {
    let decided = Authorizer::new().is_authorized(&env.request, policies, &env.entities).decision();
    if decided == expected {
        return Ok(());
    }
    Err(Failure::new("the solver's counterexample is none: the authorizer decides otherwise")
        .advise("Please report it; nothing is proved by that."))
}

fn shown(env: &Env) -> Counterexample {
    let name =
        |uid: Option<&cedar_policy::EntityUid>| uid.map_or_else(|| "?".to_owned(), ToString::to_string);
    let request = &env.request;
    Counterexample {
        attempt: format!(
            "{} does {} to {}",
            name(request.principal()),
            name(request.action()),
            name(request.resource())
        ),
        context: request.context().map(ToString::to_string).unwrap_or_default(),
        entities: env.entities.to_json_value().map(|json| json.to_string()).unwrap_or_default(),
    }
}
