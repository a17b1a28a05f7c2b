//! What policies can speak of: servers, their tools, agents and their groups. The caller fills a
//! [`Catalogue`] from configuration and pinned definitions; [`Known`] is its form for look-ups.

use std::{collections::BTreeMap, sync::Arc};

use ahash::{AHashMap, AHashSet};
use castra_core::{AgentName, Effect, GroupName, ModelName, PeerName, ServerName};

use crate::types::{ArgumentTypes, Budget, ToolTypes};

/// Everything that the schema is made of.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    /// The configured servers.
    pub servers: Vec<CatalogueServer>,
    /// The known agents, each with its groups.
    pub agents: Vec<(AgentName, Vec<GroupName>)>,
    /// The model routes.
    pub models: Vec<ModelName>,
    /// The peers.
    pub peers: Vec<PeerName>,
}

/// One MCP server.
#[derive(Debug, Clone)]
pub struct CatalogueServer {
    /// Its configured name.
    pub name: ServerName,
    /// Its tools as pinned.
    pub tools: Vec<CatalogueTool>,
}

/// One tool. Name and schema come from the server and are not trusted.
#[derive(Debug, Clone)]
pub struct CatalogueTool {
    /// The server's own name for it.
    pub name: Arc<str>,
    /// What it does to the world.
    pub effect: Effect,
    /// Whether it reaches outside.
    pub external: bool,
    /// Whether the operator's manifest describes it.
    pub described: bool,
    /// The JSON Schema of its arguments.
    pub input_schema: serde_json::Value,
}

/// A tool as decisions need it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KnownTool {
    pub(crate) server: ServerName,
    pub(crate) name: Arc<str>,
    pub(crate) effect: Effect,
    pub(crate) external: bool,
    pub(crate) described: bool,
    pub(crate) types: Arc<ToolTypes>,
}

/// The catalogue, indexed; types are derived once. Keys are Cedar entity ids.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) servers: AHashSet<ServerName>,
    pub(crate) tools: BTreeMap<String, KnownTool>,
    pub(crate) agents: AHashMap<AgentName, Vec<GroupName>>,
    pub(crate) groups: AHashSet<GroupName>,
    pub(crate) models: AHashSet<ModelName>,
    pub(crate) peers: AHashSet<PeerName>,
    pub(crate) arguments: Arc<ArgumentTypes>,
}

/// Entity ids come into messages and keys; longer tool names are left out of the schema.
const TOOL_NAME_BYTES_MAX: usize = 256;

impl Known {
    pub(crate) fn new(catalogue: &Catalogue) -> Self {
        let mut known = Self::default();
        let mut budget = Budget::default();
        let mut arguments = ArgumentTypes::default();
        for server in &catalogue.servers {
            known.servers.insert(server.name.clone());
            for tool in &server.tools {
                if tool.name.len() > TOOL_NAME_BYTES_MAX {
                    continue;
                }
                let types = ToolTypes::of(&tool.input_schema, &mut budget);
                arguments.join(&types);
                let tool = KnownTool {
                    server: server.name.clone(),
                    name: tool.name.clone(),
                    effect: tool.effect,
                    external: tool.external,
                    described: tool.described,
                    types: Arc::new(types),
                };
                known.tools.insert(format!("{}/{}", tool.server, tool.name), tool);
            }
        }
        for (agent, groups) in &catalogue.agents {
            known.groups.extend(groups.iter().cloned());
            known.agents.insert(agent.clone(), groups.clone());
        }
        known.models.extend(catalogue.models.iter().cloned());
        known.peers.extend(catalogue.peers.iter().cloned());
        known.arguments = Arc::new(arguments);
        known
    }
}
