//! Policies as the program handles them: read from their folder, checked against a catalogue that is
//! made of the configuration, the state and the manifests.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use castra_core::{Effect, ServerName, Timestamp};
use castra_policy::{Catalogue, CatalogueServer, CatalogueTool, Engine, PolicyProblems, PolicySource};
use castra_store::{State, files};

use crate::{config::Config, manifest::Manifest, out::Failure};

/// The tool manifests of the configured servers that have one.
pub(crate) type Manifests = BTreeMap<ServerName, Manifest>;

/// Reads all manifests.
pub(crate) fn manifests(config: &Config) -> Result<Manifests, Failure> {
    let mut all = Manifests::new();
    for server in &config.server {
        if let Some(file) = &server.manifest {
            all.insert(server.name.clone(), crate::manifest::load(file)?);
        }
    }
    Ok(all)
}

/// The policy files of a folder.
pub(crate) fn sources(folder: &Path) -> Result<Vec<PolicySource>, Failure> {
    let files = files::read_policy_folder(folder).map_err(|e| {
        Failure::from(e).advise("`castra init` makes a policy folder; [policy] dir names another one.")
    })?;
    Ok(files.into_iter().map(|file| PolicySource { file: file.name, text: file.text }).collect())
}

/// What policies can speak of: configured servers with their tools as they were last seen, and agents.
pub(crate) fn catalogue(
    config: &Config,
    state: Option<&State>,
    now: Timestamp,
) -> Result<Catalogue, Failure> {
    let manifests = manifests(config)?;
    let mut servers: BTreeMap<ServerName, Vec<CatalogueTool>> =
        config.server.iter().map(|server| (server.name.clone(), Vec::new())).collect();
    for row in state.map(State::catalogue).transpose()?.unwrap_or_default() {
        let Some(tools) = servers.get_mut(&row.server) else { continue };
        let stated = manifests.get(&row.server).and_then(|m| m.tools.get(&row.name));
        tools.push(CatalogueTool {
            name: row.name.as_str().into(),
            effect: stated.and_then(|s| s.effect).unwrap_or(row.effect),
            external: stated.and_then(|s| s.external).unwrap_or(row.external),
            described: stated.is_some(),
            input_schema: input_schema(&row.definition),
        });
    }
    let agents = state.map(|state| state.agents(now)).transpose()?.unwrap_or_default();
    Ok(Catalogue {
        servers: servers.into_iter().map(|(name, tools)| CatalogueServer { name, tools }).collect(),
        agents: agents.into_iter().map(|row| (row.id, row.groups)).collect(),
        models: config.model.iter().map(|model| model.name.clone()).collect(),
        peers: config.peer.iter().map(|peer| peer.name.clone()).collect(),
    })
}

fn input_schema(definition: &str) -> serde_json::Value {
    let definition: serde_json::Value = serde_json::from_str(definition).unwrap_or_default();
    definition.get("inputSchema").cloned().unwrap_or_default()
}

/// Loads the folder's policies, and the standard pack beside them if it is wanted.
pub(crate) fn load(
    config: &Config,
    catalogue: &Catalogue,
) -> Result<Result<Engine, PolicyProblems>, Failure> {
    Ok(Engine::load(&all_sources(config, &config.policy.dir)?, catalogue))
}

/// The policies of a folder, with the standard pack if the configuration wants it.
pub(crate) fn all_sources(config: &Config, folder: &Path) -> Result<Vec<PolicySource>, Failure> {
    let mut sources = sources(folder)?;
    if config.policy.standard {
        sources.push(castra_policy::standard_policies());
    }
    Ok(sources)
}

/// What is known of a tool: its effect, and whether it reaches outside. A tool that was never seen may do anything.
pub(crate) fn facts(catalogue: &Catalogue, server: &ServerName, tool: &str) -> (Effect, bool) {
    let server = catalogue.servers.iter().find(|s| s.name == *server);
    let tool = server.and_then(|s| s.tools.iter().find(|t| *t.name == *tool));
    tool.map_or((Effect::Act, true), |t| (t.effect, t.external))
}

/// Reads a resource in the form that records have it: `Tool::"server/name"`.
pub(crate) fn parse_resource(text: &str) -> Option<castra_core::ResourceRef> {
    use castra_core::{ModelName, PeerName, ResourceRef};
    let (kind, quoted) = text.split_once("::")?;
    let id = unquoted(quoted)?;
    match kind {
        "Server" => return Some(ResourceRef::Server(ServerName::new(&id).ok()?)),
        "Model" => return Some(ResourceRef::Model(ModelName::new(&id).ok()?)),
        "Peer" => return Some(ResourceRef::Peer(PeerName::new(&id).ok()?)),
        _ => {}
    }
    let (server, name) = id.split_once('/')?;
    let (server, name): (_, Arc<str>) = (ServerName::new(server).ok()?, name.into());
    match kind {
        "Tool" => Some(ResourceRef::Tool { server, name }),
        "Resource" => Some(ResourceRef::Resource { server, uri: name }),
        "Prompt" => Some(ResourceRef::Prompt { server, name }),
        _ => None,
    }
}

/// Takes the quotes and escapes off that Rust's `{:?}` puts on a text.
fn unquoted(text: &str) -> Option<String> {
    let mut rest = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut out = String::with_capacity(rest.len());
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        let mut chars = escape.chars();
        match chars.next()? {
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            '0' => out.push('\0'),
            c @ ('\\' | '"' | '\'') => out.push(c),
            'u' => {
                let (code, tail) = chars.as_str().strip_prefix('{')?.split_once('}')?;
                out.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
                rest = tail;
                continue;
            }
            _ => return None,
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use castra_core::ResourceRef;

    use super::*;

    #[test]
    fn resources_read_back_as_records_show_them() {
        let server = ServerName::new("files").unwrap();
        for name in ["read", "a\"b\\c\n", "\u{1b}[0m/x", "é"] {
            let name: Arc<str> = name.into();
            for resource in [
                ResourceRef::Tool { server: server.clone(), name: name.clone() },
                ResourceRef::Resource { server: server.clone(), uri: name.clone() },
                ResourceRef::Server(server.clone()),
            ] {
                assert_eq!(parse_resource(&resource.to_string()), Some(resource));
            }
        }
        for bad in
            ["", "Tool", "Tool::x", "Tool::\"a\"", "Tool::\"A/b\"", "Other::\"a/b\"", "Tool::\"a/\\q\""]
        {
            assert_eq!(parse_resource(bad), None, "{bad}");
        }
    }
}
