//! Reads policy sources: parse, name, validate, and keep each policy with what decisions need to
//! know of it. The policies that come out do not depend on the catalogue; only problems do.

use std::{
    str::FromStr,
    sync::{Arc, OnceLock},
};

use ahash::{AHashMap, AHashSet};
use aws_lc_rs::digest::{Context as Hash, SHA256};
use castra_core::{AgentName, Digest, GroupName, ModelName, PeerName, ServerName, StreamMode};
use cedar_policy::{Effect, EntityUid, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};

use crate::{
    catalogue::Known,
    clauses::Clause,
    names::Names,
    parallel,
    problem::{Findings, Mark, Place, PolicyProblems, Problem},
    reads::Reads,
    schema,
    scope::Scope,
    starter::STANDARD_FILE,
    tokens::{Token, space_and_comments, tokens},
};

/// One policy file. The name is used in messages and in the ids of policies without `@id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySource {
    /// File name as people know it.
    pub file: String,
    /// Its content, in Cedar's syntax.
    pub text: String,
}

/// A policy with what is known of it from load on.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) id: Arc<str>,
    pub(crate) source: usize,
    pub(crate) line: u32,
    pub(crate) offset: usize,
    pub(crate) policy: Policy,
    pub(crate) scope: Scope,
    /// Without `when` and `unless` it applies whenever its scope matches.
    pub(crate) conditional: bool,
    /// What it reads of the context; `None` when it reads nothing of it.
    pub(crate) reads: Option<Reads>,
    /// Whether it questions with `has`, so that something absent is an answer to it and not an error.
    pub(crate) questions: bool,
    /// Whether a person is asked where it forbids (`@ask("person")`).
    pub(crate) asks: bool,
    /// Entities that its conditions name.
    pub(crate) named: Box<[EntityUid]>,
    /// How the answer to what it permits is to be inspected (`@inspect`).
    pub(crate) inspect: Option<StreamMode>,
    bare: OnceLock<Policy>,
    prelude: OnceLock<Option<Policy>>,
    /// Its conditions in parts, from the first time that somebody asks why.
    clauses: OnceLock<Box<[Clause]>>,
}

impl Loaded {
    pub(crate) fn permits(&self) -> bool {
        self.policy.effect() == Effect::Permit
    }

    /// The policy for requests that its scope matches.
    pub(crate) fn in_scope(&self) -> &Policy {
        self.bare.get_or_init(|| without_scope(&self.policy))
    }

    /// The policy with those of its conditions that stand before the first one with a `has`, for requests
    /// that its scope matches; none where there are none. Where it does not apply, the policy does not:
    /// conditions are joined, and evaluated in their order.
    pub(crate) fn prelude(&self) -> Option<&Policy> {
        self.prelude.get_or_init(|| prelude(self.in_scope())).as_ref()
    }

    /// Where it begins in its source.
    fn mark(&self) -> Mark {
        Mark { offset: self.offset, line: self.line }
    }

    /// What its author says about it.
    pub(crate) fn why(&self) -> Option<&str> {
        let text = annotation(&self.policy, "reason").or_else(|| annotation(&self.policy, "description"))?;
        Some(text.trim()).filter(|text| !text.is_empty())
    }
}

/// A policy with what is known of it without the others.
struct Parsed {
    policy: Policy,
    mark: Mark,
    scope: Scope,
    conditional: bool,
    reads: Option<Reads>,
    questions: bool,
    named: Box<[EntityUid]>,
}

impl Parsed {
    /// The policies of a source, and what is wrong with it.
    fn of_source(source: &PolicySource) -> (Vec<Self>, Vec<Problem>) {
        let place = Place { file: &source.file, text: &source.text };
        let set = match PolicySet::from_str(&source.text) {
            Ok(set) => set,
            Err(found) => {
                let problems = found.iter().map(|error| place.diagnostic(error, Mark::START));
                return (Vec::new(), problems.collect());
            }
        };
        let (mut policies, mut problems) = (Vec::with_capacity(set.num_of_policies()), Vec::new());
        let mut walk = Walk { text: &source.text, offset: 0, counted: 0, line: 1 };
        for n in 0..set.num_of_policies() + set.num_of_templates() {
            let id = PolicyId::new(format!("policy{n}"));
            if let Some(template) = set.template(&id) {
                let mark = walk.next(&template.to_cedar());
                problems.push(
                    place
                        .problem_near(mark, mark.offset, "a template decides nothing by itself")
                        .help("write the principal or resource in place of ?principal or ?resource"),
                );
            } else if let Some(policy) = set.policy(&id) {
                let mark = walk.next(&policy.to_cedar().unwrap_or_default());
                policies.push(Self::of(policy.clone(), mark));
            }
        }
        (policies, problems)
    }

    fn of(policy: Policy, mark: Mark) -> Self {
        let conditional = policy.has_non_scope_constraint();
        Self {
            mark,
            scope: Scope::of(&policy),
            reads: if conditional { reads(&policy) } else { None },
            questions: conditional && questions(&policy),
            named: if conditional { policy.entity_literals().into() } else { Box::default() },
            conditional,
            policy,
        }
    }
}

/// All policies, in the order of the sources.
#[derive(Debug)]
pub(crate) struct Policies {
    pub(crate) sources: Vec<PolicySource>,
    pub(crate) list: Vec<Loaded>,
    by_id: AHashMap<Arc<str>, usize>,
    pub(crate) digest: Arc<str>,
}

/// Ids are shown, recorded and compared.
const ID_BYTES_MAX: usize = 200;
/// Policies that one thread validates before it asks for more.
const VALIDATED_AT_ONCE: usize = 64;

impl Policies {
    /// Parses and names. Does not validate.
    pub(crate) fn parse(sources: &[PolicySource]) -> Result<Self, PolicyProblems> {
        let mut policies = Self {
            sources: sources.to_vec(),
            list: Vec::new(),
            by_id: AHashMap::new(),
            digest: digest(sources),
        };
        let mut errors = Findings::default();
        let parsed = parallel::map(sources, Parsed::of_source);
        for (index, (source, (parsed, problems))) in sources.iter().zip(parsed).enumerate() {
            let place = Place { file: &source.file, text: &source.text };
            problems.into_iter().for_each(|problem| errors.add(problem));
            parsed.into_iter().for_each(|policy| policies.add(index, place, policy, &mut errors));
        }
        if errors.is_empty() {
            Ok(policies)
        } else {
            Err(PolicyProblems { errors: errors.finish(), warnings: Vec::new() })
        }
    }

    /// Validates against the schema of a catalogue. Gives errors and warnings.
    pub(crate) fn check(&self, known: &Known, names: &Names) -> (Vec<Problem>, Vec<Problem>) {
        let (mut errors, mut warnings) = (Findings::default(), Findings::default());
        self.validate(known, &mut errors, &mut warnings);
        self.warn_of_unknown(known, names, &mut warnings);
        self.warn_of_untyped(known, &mut warnings);
        (errors.finish(), warnings.finish())
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<(usize, &Loaded)> {
        let index = *self.by_id.get(id)?;
        Some((index, self.list.get(index)?))
    }

    pub(crate) fn file(&self, policy: &Loaded) -> &str {
        self.sources.get(policy.source).map_or("", |source| &source.file)
    }

    pub(crate) fn clauses<'p>(&self, policy: &'p Loaded) -> &'p [Clause] {
        policy.clauses.get_or_init(|| Clause::of(self.text(policy)))
    }

    /// The sources from where the policy starts.
    pub(crate) fn text(&self, policy: &Loaded) -> &str {
        let source = self.sources.get(policy.source).map_or("", |source| &source.text);
        source.get(policy.offset..).unwrap_or_default()
    }

    fn add(&mut self, source: usize, place: Place<'_>, parsed: Parsed, errors: &mut Findings) {
        let Parsed { policy, mark, scope, conditional, reads, questions, named } = parsed;
        let id: Arc<str> = match annotation(&policy, "id") {
            Some(id) => id.into(),
            None => self.unused_id(place.file, mark.line),
        };
        if id.is_empty() || id.len() > ID_BYTES_MAX || id.chars().any(char::is_control) {
            let what = format!("an @id has 1 to {ID_BYTES_MAX} bytes and no control characters");
            errors.add(place.problem_near(mark, mark.offset, what));
            return;
        }
        if let Some((_, other)) = self.by_id(&id) {
            let at = format!("{}:{}", self.file(other), other.line);
            let what = format!("the id {id:?} is already that of the policy at {at}");
            errors.add(place.problem_near(mark, mark.offset, what).of_policy(&id).help(
                if self.file(other) == STANDARD_FILE || place.file == STANDARD_FILE {
                    "a copy of the standard pack stands in its place with `standard = false` under [policy]"
                } else {
                    "ids name policies in decisions and records, so each is used once"
                },
            ));
            return;
        }
        let inspect = match annotation(&policy, "inspect").map(str::parse::<StreamMode>).transpose() {
            Ok(mode) => mode,
            Err(modes) => {
                let problem = place.problem_near(mark, mark.offset, format!("@inspect: {modes}"));
                errors.add(problem.of_policy(&id));
                return;
            }
        };
        let asks = match asks(&policy, reads.as_ref()) {
            Ok(asks) => asks,
            Err(wrong) => {
                let at = place.text.get(mark.offset..).and_then(|text| text.find("@ask")).unwrap_or(0);
                let problem = place.problem_near(mark, mark.offset + at, wrong.to_string());
                errors.add(problem.of_policy(&id).help(wrong.help()));
                return;
            }
        };
        self.by_id.insert(id.clone(), self.list.len());
        self.list.push(Loaded {
            inspect,
            questions,
            policy: policy.new_id(PolicyId::new(&*id)),
            scope,
            reads,
            asks,
            named,
            conditional,
            bare: OnceLock::new(),
            prelude: OnceLock::new(),
            clauses: OnceLock::new(),
            id,
            source,
            line: mark.line,
            offset: mark.offset,
        });
    }

    /// `file:line`, with a count when several policies stand on one line.
    fn unused_id(&self, file: &str, line: u32) -> Arc<str> {
        let mut id: Arc<str> = format!("{file}:{line}").into();
        let mut count = 1;
        while self.by_id.contains_key(&id) {
            count += 1;
            id = format!("{file}:{line}.{count}").into();
        }
        id
    }

    fn validate(&self, known: &Known, errors: &mut Findings, warnings: &mut Findings) {
        let schema = match Schema::from_cedarschema_str(&schema::text(known)) {
            Ok((schema, _)) => schema,
            Err(error) => {
                let place = Place { file: "schema", text: "" };
                errors.add(place.problem(0, format!("the catalogue makes no valid schema: {error}")));
                return;
            }
        };
        let validator = Validator::new(schema);
        let parts: Vec<_> = self.list.chunks(VALIDATED_AT_ONCE).collect();
        for (found, unmeant) in parallel::map(&parts, |part| self.validate_part(&validator, part)) {
            found.into_iter().for_each(|problem| errors.add(problem));
            unmeant.into_iter().for_each(|problem| warnings.add(problem));
        }
    }

    /// Cedar validates each policy by itself, so that parts of a set give what the whole would.
    fn validate_part(&self, validator: &Validator, part: &[Loaded]) -> (Vec<Problem>, Vec<Problem>) {
        let set = match PolicySet::from_policies(part.iter().map(|loaded| loaded.policy.clone())) {
            Ok(set) => set,
            Err(error) => {
                let place = Place { file: "policies", text: "" };
                return (vec![place.problem(0, error.to_string())], Vec::new());
            }
        };
        let result = validator.validate(&set, ValidationMode::Strict);
        let errors = result.validation_errors().filter_map(|error| self.problem(error.policy_id(), error));
        let warnings =
            result.validation_warnings().filter_map(|warning| self.problem(warning.policy_id(), warning));
        (errors.collect(), warnings.collect())
    }

    fn problem(&self, id: &PolicyId, diagnostic: &dyn miette::Diagnostic) -> Option<Problem> {
        let (_, loaded) = self.by_id(id.as_ref())?;
        let source = self.sources.get(loaded.source)?;
        let place = Place { file: &source.file, text: &source.text };
        let mut problem = place.diagnostic(diagnostic, loaded.mark()).of_policy(&loaded.id);
        if let Some(help) = scope_help(&problem.message) {
            problem.help = Some(help.to_owned());
        }
        Some(problem)
    }

    fn warn_of_unknown(&self, known: &Known, names: &Names, warnings: &mut Findings) {
        let mut seen = AHashSet::new();
        for loaded in &self.list {
            for uid in loaded.scope.named().chain(&loaded.named) {
                if warnings.is_full() {
                    return;
                }
                let Some(what) = unknown(uid, known, names) else { continue };
                if !seen.insert((uid, loaded.source)) {
                    continue;
                }
                let mut problem = self.problem_at(loaded, &uid.to_string(), format!("{what} is not known"));
                problem.help = nearest(uid, known, names).map(|name| format!("did you mean {name:?}?"));
                warnings.add(problem);
            }
        }
    }

    /// Cedar lets `has` ask for attributes that the schema lacks, and then skips what follows.
    fn warn_of_untyped(&self, known: &Known, warnings: &mut Findings) {
        for loaded in self.list.iter().filter(|loaded| loaded.reads.is_some()) {
            let Some(reads) = loaded.reads.as_ref().filter(|_| !warnings.is_full()) else { return };
            for name in reads.field("args").into_iter().flat_map(|args| args.fields.keys()) {
                let what = match known.arguments.0.get(name) {
                    Some(Some(_)) => continue,
                    Some(None) => format!("argument {name:?} has no type that all tools with it share"),
                    None => format!("no tool has an argument {name:?}"),
                };
                let names = known.arguments.0.keys().map(String::as_str);
                warnings.add(self.untyped(loaded, name, what, names));
            }
            for (id, fields) in reads.field("call").into_iter().flat_map(|call| &call.fields) {
                let Some(tool) = known.tools.get(id) else {
                    let names = known.tools.keys().map(String::as_str);
                    warnings.add(self.untyped(loaded, id, format!("tool {id:?} is not known"), names));
                    continue;
                };
                for name in
                    fields.fields.keys().filter(|name| !matches!(tool.types.fields.get(*name), Some(Some(_))))
                {
                    let what = format!("tool {id:?} has no argument {name:?} that Cedar can type");
                    let names = tool.types.fields.keys().map(String::as_str);
                    warnings.add(self.untyped(loaded, name, what, names));
                }
            }
        }
    }

    fn untyped<'n>(
        &self,
        loaded: &Loaded,
        name: &str,
        what: String,
        names: impl Iterator<Item = &'n str>,
    ) -> Problem {
        let what = format!("{what}; a call that sends it is denied where this policy reads it");
        let mut problem = self.problem_at(loaded, name, what);
        let nearest = nearest_of(name, names).filter(|nearest| nearest != name);
        problem.help = nearest.map(|name| format!("did you mean {name:?}?"));
        problem
    }

    /// A problem at the first place where a policy mentions something.
    fn problem_at(&self, loaded: &Loaded, mention: &str, message: String) -> Problem {
        let text = self.sources.get(loaded.source).map_or("", |source| &source.text);
        let at = self.text(loaded).find(mention).unwrap_or(0) + loaded.offset;
        let place = Place { file: self.file(loaded), text };
        place.problem_near(loaded.mark(), at, message).of_policy(&loaded.id)
    }
}

/// The attributes that new authors miss are those of tools and of calls; Cedar's own guess would be
/// another attribute instead of the narrower scope that is meant.
fn scope_help(message: &str) -> Option<&'static str> {
    let attribute = message.strip_prefix("attribute `")?.split('`').next()?;
    match attribute {
        "effect" | "external" if message.contains("entity type") => Some(
            "only tools have it: write `action == Castra::Action::\"call\", resource is Castra::Tool` in the scope",
        ),
        "args" | "call" => {
            Some("only calls have arguments: write `action == Castra::Action::\"call\"` in the scope")
        }
        _ => None,
    }
}

/// Finds the policies of a text in their order, with their lines, reading the text once.
struct Walk<'a> {
    text: &'a str,
    offset: usize,
    counted: usize,
    line: u32,
}

impl Walk<'_> {
    fn next(&mut self, policy: &str) -> Mark {
        let rest = self.text.get(self.offset..).unwrap_or_default();
        let mut start = self.offset + space_and_comments(rest);
        if !self.text.get(start..).unwrap_or_default().starts_with(policy) {
            start = self.offset + rest.find(policy).unwrap_or(0);
        }
        let between = self.text.get(self.counted..start).unwrap_or_default();
        let lines = between.bytes().filter(|b| *b == b'\n').count();
        self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        (self.counted, self.offset) = (start, start + policy.len());
        Mark { offset: start, line: self.line }
    }
}

/// Cedar's own look-up parses the key each time, which takes longer than all that is done with it.
fn annotation<'p>(policy: &'p Policy, key: &str) -> Option<&'p str> {
    policy.annotations().find(|(name, _)| *name == key).map(|(_, value)| value)
}

/// A policy that does not give its text back is taken to read everything.
fn reads(policy: &Policy) -> Option<Reads> {
    let reads = policy.to_cedar().map_or_else(Reads::all, |text| Reads::of_policy(&text));
    (reads != Reads::default()).then_some(reads)
}

/// Whether a person is asked where the policy forbids.
fn asks(policy: &Policy, reads: Option<&Reads>) -> Result<bool, AskError> {
    match annotation(policy, "ask") {
        None => Ok(false),
        Some(_) if policy.effect() == Effect::Permit => Err(AskError::Permit),
        Some("person") if reads.is_some_and(|reads| reads.needs(&["approval"])) => Ok(true),
        Some("person") => Err(AskError::Unliftable),
        Some(other) => Err(AskError::Whom(other.chars().take(40).collect())),
    }
}

/// What is wrong with an `@ask`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum AskError {
    #[error("@ask on a permit: only what forbids can ask a person instead")]
    Permit,
    #[error("@ask({0:?}): nobody is known by that word")]
    Whom(String),
    #[error("this asks a person, and would forbid all the same when one has said yes")]
    Unliftable,
}

impl AskError {
    fn help(&self) -> &'static str {
        match self {
            Self::Permit => {
                "permit the action, and forbid it with @ask(\"person\") and `unless { context has approval }`"
            }
            Self::Whom(_) => "write @ask(\"person\")",
            Self::Unliftable => "add `unless { context has approval }`",
        }
    }
}

/// A policy that does not give its text back is taken to question.
fn questions(policy: &Policy) -> bool {
    policy.to_cedar().is_none_or(|text| tokens(&text).any(|(_, token)| token == Token::Word("has")))
}

/// The policy without its scope, which the slice has matched already; Cedar would match it again in
/// each decision. The policy as it is when Cedar does not write it as JSON and back.
fn without_scope(policy: &Policy) -> Policy {
    let bare = || {
        let mut json = policy.to_json().ok()?;
        for part in ["principal", "action", "resource"] {
            *json.get_mut(part)? = serde_json::json!({"op": "All"});
        }
        Policy::from_json(Some(policy.id().clone()), json).ok()
    };
    bare().unwrap_or_else(|| policy.clone())
}

/// The policy without the conditions from the first one on that questions with `has`.
fn prelude(policy: &Policy) -> Option<Policy> {
    let mut json = policy.to_json().ok()?;
    let conditions = json.get_mut("conditions")?.as_array_mut()?;
    let first = conditions.iter().position(has_has).unwrap_or(conditions.len());
    conditions.truncate(first);
    if conditions.is_empty() {
        return None;
    }
    Policy::from_json(Some(policy.id().clone()), json).ok()
}

/// Whether `has` is an operator somewhere in an expression in Cedar's JSON form. A record with an attribute
/// of that name counts as one too.
fn has_has(expression: &serde_json::Value) -> bool {
    use serde_json::Value;
    match expression {
        Value::Object(parts) => parts.iter().any(|(name, part)| name == "has" || has_has(part)),
        Value::Array(parts) => parts.iter().any(has_has),
        _ => false,
    }
}

/// SHA-256 over the sources by name: for each the length and bytes of name and text, lengths as
/// eight bytes, big-endian.
fn digest(sources: &[PolicySource]) -> Arc<str> {
    let mut sorted: Vec<_> = sources.iter().collect();
    sorted.sort_by(|a, b| (&a.file, &a.text).cmp(&(&b.file, &b.text)));
    let mut hash = Hash::new(&SHA256);
    for part in sorted.iter().flat_map(|source| [&source.file, &source.text]) {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut out = [0; 32];
    for (slot, byte) in out.iter_mut().zip(hash.finish().as_ref()) {
        *slot = *byte;
    }
    Digest(out).to_hex().into()
}

/// What a name stands for, when the catalogue does not have it.
fn unknown(uid: &EntityUid, known: &Known, names: &Names) -> Option<String> {
    let (kind, id) = (uid.type_name(), uid.id().unescaped());
    let server = || id.split_once('/').map_or(id, |(server, _)| server);
    if *kind == names.agent {
        (!known.agents.contains_key(id)).then(|| format!("agent {id:?}"))
    } else if *kind == names.group {
        (!known.groups.contains(id)).then(|| format!("group {id:?}"))
    } else if *kind == names.server {
        (!known.servers.contains(id) && !is_local(id)).then(|| format!("server {id:?}"))
    } else if *kind == names.model {
        (!known.models.contains(id)).then(|| format!("model {id:?}"))
    } else if *kind == names.peer {
        (!known.peers.contains(id)).then(|| format!("peer {id:?}"))
    } else if *kind == names.tool {
        // Nobody lists the tools that agents have of their own.
        (!known.tools.contains_key(id) && !is_local(server())).then(|| format!("tool {id:?}"))
    } else if *kind == names.resource || *kind == names.prompt {
        (!known.servers.contains(server())).then(|| format!("server {:?}", server()))
    } else {
        None
    }
}

fn is_local(server: &str) -> bool {
    server == ServerName::LOCAL
}

/// Names that are compared for one suggestion; more would make loading slow.
const COMPARED_MAX: usize = 10_000;

fn nearest(uid: &EntityUid, known: &Known, names: &Names) -> Option<String> {
    let (kind, id) = (uid.type_name(), uid.id().unescaped());
    if *kind == names.agent {
        nearest_of(id, known.agents.keys().map(AgentName::as_str))
    } else if *kind == names.group {
        nearest_of(id, known.groups.iter().map(GroupName::as_str))
    } else if *kind == names.server {
        nearest_of(id, known.servers.iter().map(ServerName::as_str))
    } else if *kind == names.model {
        nearest_of(id, known.models.iter().map(ModelName::as_str))
    } else if *kind == names.peer {
        nearest_of(id, known.peers.iter().map(PeerName::as_str))
    } else if *kind == names.tool {
        nearest_of(id, known.tools.keys().map(String::as_str))
    } else {
        None
    }
}

fn nearest_of<'n>(id: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
    let mut best: Option<(f64, &str)> = None;
    for name in names.take(COMPARED_MAX) {
        let score = strsim::jaro_winkler(id, name);
        if score > 0.85 && best.is_none_or(|(other, of)| (score, name) > (other, of)) {
            best = Some((score, name));
        }
    }
    best.map(|(_, name)| name.to_owned())
}
