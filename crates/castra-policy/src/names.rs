//! The Cedar names of things: entity types, actions and ids in the namespace `Castra`.

use std::str::FromStr;

use castra_core::{AgentName, GroupName, Operation, ResourceRef, ServerName};
use cedar_policy::{EntityId, EntityTypeName, EntityUid, ParseErrors};

/// Entity type names, parsed once.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) agent: EntityTypeName,
    pub(crate) group: EntityTypeName,
    pub(crate) server: EntityTypeName,
    pub(crate) tool: EntityTypeName,
    pub(crate) resource: EntityTypeName,
    pub(crate) prompt: EntityTypeName,
    pub(crate) model: EntityTypeName,
    pub(crate) peer: EntityTypeName,
    action: EntityTypeName,
}

impl Names {
    pub(crate) fn new() -> Result<Self, Box<ParseErrors>> {
        Ok(Self {
            agent: EntityTypeName::from_str("Castra::Agent")?,
            group: EntityTypeName::from_str("Castra::Group")?,
            server: EntityTypeName::from_str("Castra::Server")?,
            tool: EntityTypeName::from_str("Castra::Tool")?,
            resource: EntityTypeName::from_str("Castra::Resource")?,
            prompt: EntityTypeName::from_str("Castra::Prompt")?,
            model: EntityTypeName::from_str("Castra::Model")?,
            peer: EntityTypeName::from_str("Castra::Peer")?,
            action: EntityTypeName::from_str("Castra::Action")?,
        })
    }

    pub(crate) fn agent(&self, name: &AgentName) -> EntityUid {
        uid(&self.agent, name.as_str())
    }

    pub(crate) fn group(&self, name: &GroupName) -> EntityUid {
        uid(&self.group, name.as_str())
    }

    pub(crate) fn server(&self, name: &ServerName) -> EntityUid {
        uid(&self.server, name.as_str())
    }

    pub(crate) fn action(&self, operation: Operation) -> EntityUid {
        uid(&self.action, operation.as_str())
    }

    pub(crate) fn resource(&self, resource: &ResourceRef) -> EntityUid {
        let kind = match resource {
            ResourceRef::Tool { .. } => &self.tool,
            ResourceRef::Resource { .. } => &self.resource,
            ResourceRef::Prompt { .. } => &self.prompt,
            ResourceRef::Server(_) => &self.server,
            ResourceRef::Model(_) => &self.model,
            ResourceRef::Peer(_) => &self.peer,
        };
        uid(kind, &resource.id())
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}
