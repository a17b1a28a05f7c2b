//! Few policies out of many. An index by scope finds the policies that can apply to an agent and a
//! resource; a [`Slice`] is what is left of them for one agent, operation and resource: what does
//! not depend on the circumstances is decided once, only the rest goes to Cedar for each action.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use ahash::{AHashMap, RandomState};
use castra_core::{AgentIdentity, AgentName, Effect, GroupName, Operation, ResourceRef, Verdict};
use cedar_policy::{
    AuthorizationError, Authorizer, Context, Decision, Entities, Entity, EntityUid, PolicySet, Response,
    RestrictedExpression,
};
use parking_lot::RwLock;

use crate::{
    catalogue::Known,
    context::Plan,
    names::Names,
    policies::{Loaded, Policies},
    reads::Reads,
    scope::Request,
    types::ToolTypes,
};

/// Finds policies by the entities that their scopes name.
#[derive(Debug, Default)]
pub(crate) struct Index(AHashMap<(Option<EntityUid>, Option<EntityUid>), Vec<usize>>);

impl Index {
    pub(crate) fn new(policies: &[Loaded]) -> Self {
        let mut index = Self::default();
        for (i, policy) in policies.iter().enumerate() {
            index.0.entry(policy.scope.key()).or_default().push(i);
        }
        index
    }

    /// All policies whose scope matches, in order.
    pub(crate) fn find(&self, request: &Request, policies: &[Loaded]) -> Vec<usize> {
        let principals = request.groups.iter().chain([&request.principal]).map(Some).chain([None]);
        let mut found: Vec<usize> = Vec::new();
        for principal in principals {
            for resource in [Some(&request.resource), request.server.as_ref(), None] {
                let key = (principal.cloned(), resource.cloned());
                found.extend(self.0.get(&key).into_iter().flatten());
            }
        }
        found.sort_unstable();
        found.dedup();
        found.retain(|i| policies.get(*i).is_some_and(|policy| policy.scope.matches(request).all()));
        found
    }
}

/// What decides about one agent, operation and resource.
#[derive(Debug)]
pub(crate) struct Slice {
    key: Key,
    /// Whether it was asked for since the last sweep of the cache.
    used: AtomicBool,
    pub(crate) request: Request,
    pub(crate) entities: Entities,
    /// What does not depend on the circumstances.
    pub(crate) settled: Outcome,
    /// Permits that do not apply here and would under no circumstances.
    pub(crate) missed: Vec<usize>,
    /// What does.
    pub(crate) open: Option<Open>,
    /// Types of the called tool.
    pub(crate) tool: Option<Arc<ToolTypes>>,
    /// The verdict, where no policy reads the circumstances.
    pub(crate) fixed: OnceLock<Verdict>,
}

/// The policies of a slice that read the context.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) members: Vec<usize>,
    pub(crate) set: PolicySet,
    pub(crate) plan: Plan,
}

/// Policies by what came of them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Outcome {
    pub(crate) permits: Vec<usize>,
    pub(crate) forbids: Vec<usize>,
    pub(crate) errors: Vec<(usize, AuthorizationError)>,
}

impl Outcome {
    /// Takes what Cedar found. Cedar names permits only when no forbid applies.
    pub(crate) fn take(&mut self, response: &Response, policies: &Policies) {
        let reasons = response.diagnostics().reason().filter_map(|id| policies.by_id(id.as_ref()));
        let list = match response.decision() {
            Decision::Allow => &mut self.permits,
            Decision::Deny => &mut self.forbids,
        };
        list.extend(reasons.map(|(i, _)| i));
        list.sort_unstable();
        for error in response.diagnostics().errors() {
            let AuthorizationError::PolicyEvaluationError(inner) = error;
            if let Some((i, _)) = policies.by_id(inner.policy_id().as_ref()) {
                self.errors.push((i, error.clone()));
            }
        }
        self.errors.sort_unstable_by_key(|(i, _)| *i);
    }
}

/// What a slice is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Materials<'a> {
    pub(crate) names: &'a Names,
    pub(crate) policies: &'a Policies,
    pub(crate) index: &'a Index,
    pub(crate) known: &'a Known,
    pub(crate) authorizer: &'a Authorizer,
}

/// Why a slice could not be made; denies.
pub(crate) type SliceError = String;

impl Materials<'_> {
    pub(crate) fn slice(&self, ask: &Ask<'_>) -> Result<Slice, SliceError> {
        let request = self.request(ask);
        let found = self.index.find(&request, &self.policies.list);
        let members = || found.iter().filter_map(|i| Some((*i, self.policies.list.get(*i)?)));
        let entities = self.entities(ask, &request, members().map(|(_, policy)| policy))?;
        let (mut settled, missed) =
            self.settle(&request, &entities, members().filter(|(_, p)| p.reads.is_none()))?;
        let mut missed = missed;
        let mut open = Vec::new();
        for (i, policy) in members().filter(|(_, policy)| policy.reads.is_some()) {
            match self.in_any_case(&request, &entities, policy)? {
                None => open.push((i, policy)),
                Some(true) if policy.permits() => settled.permits.push(i),
                Some(true) => settled.forbids.push(i),
                Some(false) if policy.permits() => missed.push(i),
                Some(false) => {}
            }
        }
        missed.sort_unstable();
        settled.permits.sort_unstable();
        settled.forbids.sort_unstable();
        let tool = self.known.tools.get(&*ask.resource.id()).filter(|_| is_tool(ask.resource));
        Ok(Slice {
            key: ask.to_key(),
            used: AtomicBool::new(false),
            fixed: OnceLock::new(),
            settled,
            missed,
            open: self.open(open.into_iter())?,
            tool: tool.map(|tool| tool.types.clone()),
            request,
            entities,
        })
    }

    fn request(&self, ask: &Ask<'_>) -> Request {
        let server = match ask.resource {
            ResourceRef::Server(_) => None,
            other => other.server().map(|server| self.names.server(server)),
        };
        Request {
            principal: self.names.agent(ask.agent.name),
            groups: ask.agent.groups.iter().map(|group| self.names.group(group)).collect(),
            action: self.names.action(ask.operation),
            resource: self.names.resource(ask.resource),
            server,
        }
    }

    /// The entities of the request, and those of the catalogue that conditions name.
    fn entities<'p>(
        &self,
        ask: &Ask<'_>,
        request: &Request,
        policies: impl Iterator<Item = &'p Loaded>,
    ) -> Result<Entities, SliceError> {
        let mut entities: AHashMap<EntityUid, Entity> = AHashMap::new();
        for uid in policies.flat_map(|policy| &policy.named) {
            if !entities.contains_key(uid)
                && let Some(entity) = self.catalogued(uid)?
            {
                entities.insert(uid.clone(), entity);
            }
        }
        let uid = &request.resource;
        let resource = match ask.resource {
            ResourceRef::Tool { server, name } => {
                let facts =
                    ToolFacts { effect: ask.effect, external: ask.external, described: ask.described };
                tool(uid, &self.names.server(server), name, facts)?
            }
            ResourceRef::Resource { server, uri } => offered(uid, &self.names.server(server), "uri", uri)?,
            ResourceRef::Prompt { server, name } => offered(uid, &self.names.server(server), "name", name)?,
            ResourceRef::Server(name) => named(uid, name.as_str())?,
            ResourceRef::Model(name) => named(uid, name.as_str())?,
            ResourceRef::Peer(name) => named(uid, name.as_str())?,
        };
        let server = match (ask.resource.server(), &request.server) {
            (Some(name), Some(uid)) => Some(named(uid, name.as_str())?),
            _ => None,
        };
        let own = [agent(&request.principal, request.groups.iter().cloned())?, resource];
        entities.extend(own.into_iter().chain(server).map(|entity| (entity.uid(), entity)));
        Entities::from_entities(entities.into_values(), None).map_err(|error| error.to_string())
    }

    fn catalogued(&self, uid: &EntityUid) -> Result<Option<Entity>, SliceError> {
        let (kind, id) = (uid.type_name(), uid.id().unescaped());
        if *kind == self.names.tool {
            let Some(of) = self.known.tools.get(id) else { return Ok(None) };
            let server = self.names.server(&of.server);
            let facts = ToolFacts { effect: of.effect, external: of.external, described: of.described };
            return tool(uid, &server, &of.name, facts).map(Some);
        }
        if *kind == self.names.agent {
            let Some(groups) = self.known.agents.get(id) else { return Ok(None) };
            return agent(uid, groups.iter().map(|group| self.names.group(group))).map(Some);
        }
        let is_known = (*kind == self.names.server && self.known.servers.contains(id))
            || (*kind == self.names.model && self.known.models.contains(id))
            || (*kind == self.names.peer && self.known.peers.contains(id));
        if is_known {
            return named(uid, id).map(Some);
        }
        Ok(None)
    }

    /// Decides what the circumstances cannot change. Also gives the permits that do not apply.
    fn settle<'p>(
        &self,
        request: &Request,
        entities: &Entities,
        policies: impl Iterator<Item = (usize, &'p Loaded)>,
    ) -> Result<(Outcome, Vec<usize>), SliceError> {
        let mut outcome = Outcome::default();
        let mut conditional = (Vec::new(), Vec::new());
        for (i, policy) in policies {
            match (policy.conditional, policy.permits()) {
                (false, true) => outcome.permits.push(i),
                (false, false) => outcome.forbids.push(i),
                (true, true) => conditional.0.push((i, policy)),
                (true, false) => conditional.1.push((i, policy)),
            }
        }
        // Apart, because Cedar does not tell which permits apply when a forbid does.
        for members in [&conditional.0, &conditional.1] {
            if !members.is_empty() {
                let set = set(members.iter().map(|(_, policy)| *policy))?;
                let response =
                    self.authorizer.is_authorized(&request.cedar(Context::empty())?, &set, entities);
                outcome.take(&response, self.policies);
            }
        }
        let missed = conditional.0.iter().map(|(i, _)| *i).filter(|i| !outcome.permits.contains(i)).collect();
        Ok((outcome, missed))
    }

    /// Whether a policy that reads the context applies whatever that holds; `None` where it depends.
    /// Cedar stops at the first part that decides (`resource.effect == "destroy" && context…`), and
    /// with an empty context every access is an error: an evaluation without one never got there.
    fn in_any_case(
        &self,
        request: &Request,
        entities: &Entities,
        policy: &Loaded,
    ) -> Result<Option<bool>, SliceError> {
        if policy.reads.as_ref().is_none_or(|reads| reads.whole) {
            return Ok(None);
        }
        // To `has` the empty context is an answer, so only what stands before it can settle the matter.
        let settling = if policy.questions { policy.prelude() } else { Some(policy.in_scope()) };
        let Some(settling) = settling else { return Ok(None) };
        let request = request.cedar(Context::empty())?;
        let alone = PolicySet::from_policies([settling.clone()]).map_err(|error| error.to_string())?;
        let response = self.authorizer.is_authorized(&request, &alone, entities);
        let diagnostics = response.diagnostics();
        let erred = diagnostics.errors().next().is_some();
        let applies = (!erred).then(|| diagnostics.reason().next().is_some());
        Ok(applies.filter(|applies| !(*applies && policy.questions)))
    }

    fn open<'p>(
        &self,
        policies: impl Iterator<Item = (usize, &'p Loaded)>,
    ) -> Result<Option<Open>, SliceError> {
        let policies: Vec<_> = policies.collect();
        if policies.is_empty() {
            return Ok(None);
        }
        let mut reads = Reads::default();
        policies.iter().filter_map(|(_, policy)| policy.reads.as_ref()).for_each(|more| reads.join(more));
        Ok(Some(Open {
            members: policies.iter().map(|(i, _)| *i).collect(),
            set: set(policies.iter().map(|(_, policy)| *policy))?,
            plan: Plan::new(reads),
        }))
    }
}

impl Request {
    pub(crate) fn cedar(&self, context: Context) -> Result<cedar_policy::Request, SliceError> {
        let (principal, action, resource) =
            (self.principal.clone(), self.action.clone(), self.resource.clone());
        cedar_policy::Request::new(principal, action, resource, context, None).map_err(|e| e.to_string())
    }
}

fn is_tool(resource: &ResourceRef) -> bool {
    matches!(resource, ResourceRef::Tool { .. })
}

pub(crate) fn set<'p>(policies: impl Iterator<Item = &'p Loaded>) -> Result<PolicySet, SliceError> {
    PolicySet::from_policies(policies.map(|policy| policy.in_scope().clone()))
        .map_err(|error| error.to_string())
}

type Attribute = (&'static str, RestrictedExpression);

fn entity(
    uid: &EntityUid,
    parents: impl IntoIterator<Item = EntityUid>,
    attributes: impl IntoIterator<Item = Attribute>,
) -> Result<Entity, SliceError> {
    let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Entity::new(uid.clone(), attributes, parents.into_iter().collect()).map_err(|error| error.to_string())
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn agent(uid: &EntityUid, groups: impl IntoIterator<Item = EntityUid>) -> Result<Entity, SliceError> {
    entity(uid, groups, [("name", text(uid.id().unescaped()))])
}

fn named(uid: &EntityUid, name: &str) -> Result<Entity, SliceError> {
    entity(uid, [], [("name", text(name))])
}

fn offered(
    uid: &EntityUid,
    server: &EntityUid,
    key: &'static str,
    value: &str,
) -> Result<Entity, SliceError> {
    let attributes = [("server", RestrictedExpression::new_entity_uid(server.clone())), (key, text(value))];
    entity(uid, [server.clone()], attributes)
}

/// What a tool's entity says of it.
struct ToolFacts {
    effect: Effect,
    external: bool,
    described: bool,
}

fn tool(uid: &EntityUid, server: &EntityUid, name: &str, facts: ToolFacts) -> Result<Entity, SliceError> {
    let attributes = [
        ("server", RestrictedExpression::new_entity_uid(server.clone())),
        ("name", text(name)),
        ("effect", text(facts.effect.as_str())),
        ("external", RestrictedExpression::new_bool(facts.external)),
        ("described", RestrictedExpression::new_bool(facts.described)),
    ];
    entity(uid, [server.clone()], attributes)
}

/// What a slice is asked for by.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct Ask<'a> {
    pub(crate) agent: AskAgent<'a>,
    pub(crate) operation: Operation,
    pub(crate) resource: &'a ResourceRef,
    pub(crate) effect: Effect,
    pub(crate) external: bool,
    pub(crate) described: bool,
}

/// The part of an identity that slices depend on.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct AskAgent<'a> {
    pub(crate) name: &'a AgentName,
    pub(crate) groups: &'a [GroupName],
}

impl<'a> From<&'a AgentIdentity> for AskAgent<'a> {
    fn from(identity: &'a AgentIdentity) -> Self {
        Self { name: &identity.name, groups: &identity.groups }
    }
}

#[derive(Debug)]
struct Key {
    agent: AgentName,
    groups: Vec<GroupName>,
    operation: Operation,
    resource: ResourceRef,
    effect: Effect,
    external: bool,
    described: bool,
}

impl Ask<'_> {
    fn to_key(self) -> Key {
        Key {
            agent: self.agent.name.clone(),
            groups: self.agent.groups.to_vec(),
            operation: self.operation,
            resource: self.resource.clone(),
            effect: self.effect,
            external: self.external,
            described: self.described,
        }
    }

    fn is(&self, key: &Key) -> bool {
        *self.agent.name == key.agent
            && *self.agent.groups == *key.groups
            && self.operation == key.operation
            && *self.resource == key.resource
            && self.effect == key.effect
            && self.external == key.external
            && self.described == key.described
    }
}

/// Slices that were used lately. Bounded, because resources are named by agents.
#[derive(Debug)]
pub(crate) struct Cache {
    hasher: RandomState,
    shards: Box<[Shard]>,
}

/// By the hash of what was asked; what a slice was made for is compared, so two that meet only lose time.
type Shard = RwLock<AHashMap<u64, Arc<Slice>>>;

const SHARDS: usize = 16;
/// 4,096 slices in all: what some dozens of agents use of some dozens of tools; a slice takes a few
/// KiB when policies read the context, else less.
const SLICES_PER_SHARD_MAX: usize = 256;

impl Cache {
    pub(crate) fn new() -> Self {
        Self { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| RwLock::default()).collect() }
    }

    /// The slice, made if need be. Two threads may make the same one; both are right.
    pub(crate) fn get(&self, ask: &Ask<'_>, materials: &Materials<'_>) -> Result<Arc<Slice>, SliceError> {
        let hash = self.hasher.hash_one(ask);
        let Some(shard) = self.shards.get(hash as usize % SHARDS) else {
            return materials.slice(ask).map(Arc::new);
        };
        if let Some(slice) = shard.read().get(&hash).filter(|slice| ask.is(&slice.key)) {
            slice.used.store(true, Ordering::Relaxed);
            return Ok(slice.clone());
        }
        let slice = Arc::new(materials.slice(ask)?);
        let mut shard = shard.write();
        if shard.len() >= SLICES_PER_SHARD_MAX {
            shard.retain(|_, slice| slice.used.swap(false, Ordering::Relaxed));
        }
        if shard.len() >= SLICES_PER_SHARD_MAX {
            let mut nth = 0;
            shard.retain(|_, _| {
                nth += 1;
                nth % 2 == 0
            });
        }
        shard.insert(hash, slice.clone());
        Ok(slice)
    }
}
