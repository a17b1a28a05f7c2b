//! The scope of a policy (its head), matched by ourselves so that policies can be found by it.
//! Tests compare the result with Cedar's own.

use cedar_policy::{
    ActionConstraint, EntityTypeName, EntityUid, Policy, PrincipalConstraint, ResourceConstraint,
};

/// Who acts on what, with everything that each is in.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) principal: EntityUid,
    pub(crate) groups: Vec<EntityUid>,
    pub(crate) action: EntityUid,
    pub(crate) resource: EntityUid,
    /// The server that the resource is in; none for a server itself.
    pub(crate) server: Option<EntityUid>,
}

/// Principal, action and resource of a policy.
#[derive(Debug)]
pub(crate) struct Scope {
    principal: Part,
    action: Option<Box<[EntityUid]>>,
    resource: Part,
}

/// Which part of a scope did not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) principal: bool,
    pub(crate) action: bool,
    pub(crate) resource: bool,
}

impl Match {
    pub(crate) fn all(self) -> bool {
        self.principal && self.action && self.resource
    }
}

impl Scope {
    pub(crate) fn of(policy: &Policy) -> Self {
        Self {
            principal: match policy.principal_constraint() {
                PrincipalConstraint::Any => Part::Any,
                PrincipalConstraint::Eq(uid) => Part::Eq(uid),
                PrincipalConstraint::In(uid) => Part::In(uid),
                PrincipalConstraint::Is(kind) => Part::Is(kind),
                PrincipalConstraint::IsIn(kind, uid) => Part::IsIn(kind, uid),
            },
            action: match policy.action_constraint() {
                ActionConstraint::Any => None,
                ActionConstraint::Eq(uid) => Some(Box::new([uid])),
                ActionConstraint::In(uids) => Some(uids.into()),
            },
            resource: match policy.resource_constraint() {
                ResourceConstraint::Any => Part::Any,
                ResourceConstraint::Eq(uid) => Part::Eq(uid),
                ResourceConstraint::In(uid) => Part::In(uid),
                ResourceConstraint::Is(kind) => Part::Is(kind),
                ResourceConstraint::IsIn(kind, uid) => Part::IsIn(kind, uid),
            },
        }
    }

    pub(crate) fn matches(&self, request: &Request) -> Match {
        Match {
            principal: self.principal.matches(&request.principal, &request.groups),
            action: self.action.as_ref().is_none_or(|actions| actions.contains(&request.action)),
            resource: self.resource.matches(&request.resource, request.server.as_slice()),
        }
    }

    /// Whether an agent's action at a server can be in the scope, for some resource of the server or
    /// the server itself. The action of `wanted` counts only where `any_action` does not hold.
    pub(crate) fn reaches(&self, wanted: &Request, any_action: bool) -> bool {
        self.principal.matches(&wanted.principal, &wanted.groups)
            && (any_action || self.action.as_ref().is_none_or(|actions| actions.contains(&wanted.action)))
            && self.resource.reaches(&wanted.resource)
    }

    /// Whether every action of an agent with everything of a server is in the scope.
    pub(crate) fn covers(&self, wanted: &Request) -> bool {
        let everything = match &self.resource {
            Part::Any => true,
            Part::In(uid) => *uid == wanted.resource,
            Part::Eq(_) | Part::Is(_) | Part::IsIn(..) => false,
        };
        everything && self.action.is_none() && self.principal.matches(&wanted.principal, &wanted.groups)
    }

    /// The entities that principal and resource have to be, or be in.
    pub(crate) fn key(&self) -> (Option<EntityUid>, Option<EntityUid>) {
        (self.principal.uid().cloned(), self.resource.uid().cloned())
    }

    pub(crate) fn named(&self) -> impl Iterator<Item = &EntityUid> {
        self.principal.uid().into_iter().chain(self.resource.uid())
    }
}

#[derive(Debug)]
enum Part {
    Any,
    Eq(EntityUid),
    In(EntityUid),
    Is(EntityTypeName),
    IsIn(EntityTypeName, EntityUid),
}

impl Part {
    fn matches(&self, uid: &EntityUid, parents: &[EntityUid]) -> bool {
        match self {
            Self::Any => true,
            Self::Eq(wanted) => uid == wanted,
            Self::In(wanted) => uid == wanted || parents.contains(wanted),
            Self::Is(kind) => uid.type_name() == kind,
            Self::IsIn(kind, wanted) => {
                uid.type_name() == kind && (uid == wanted || parents.contains(wanted))
            }
        }
    }

    /// Whether a server, or something that it could offer, fits. Ids of what a server offers are
    /// `server/name`.
    fn reaches(&self, server: &EntityUid) -> bool {
        match self {
            Self::Any | Self::Is(_) => true,
            Self::Eq(uid) | Self::In(uid) | Self::IsIn(_, uid) => {
                uid == server
                    || uid
                        .id()
                        .unescaped()
                        .strip_prefix(server.id().unescaped())
                        .is_some_and(|rest| rest.starts_with('/'))
            }
        }
    }

    fn uid(&self) -> Option<&EntityUid> {
        match self {
            Self::Any | Self::Is(_) => None,
            Self::Eq(uid) | Self::In(uid) | Self::IsIn(_, uid) => Some(uid),
        }
    }
}
