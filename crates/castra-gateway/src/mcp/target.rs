//! From a request to what it is directed at: which server, which tool, resource or prompt under
//! the server's own name, and what is known of it.

use std::sync::Arc;

use bytes::Bytes;
use castra_core::{Effect, Operation, Refusal, RefusalCode, ResourceRef, RunId, ServerName, Step};
use castra_protocol::mcp::{ActionOn, ListKind, Request, Splice, headers::ParamHeaders, split_name};

use super::{Scope, call::Caller, list};
use crate::catalogue::Server;

/// What a request is directed at.
pub(crate) struct Target {
    pub(crate) server: Arc<Server>,
    pub(crate) operation: Operation,
    pub(crate) resource: ResourceRef,
    pub(crate) effect: Effect,
    pub(crate) external: bool,
    /// The request as the server knows it: the caller's own bytes where names are unchanged.
    pub(crate) request: Bytes,
    /// Which arguments the tool wants mirrored into headers.
    pub(crate) params: Option<Arc<ParamHeaders>>,
}

/// Finds what a request is directed at, or says that there is no such thing.
pub(crate) async fn resolve(
    caller: &Arc<Caller>,
    request: &Request<'_>,
    bytes: &Bytes,
    operation: Operation,
    on: ActionOn,
) -> Result<Target, Refusal> {
    let named = request.target.as_ref().map(|t| &*t.text).unwrap_or_default();
    let place = match &caller.scope {
        Scope::Server(server) => Place { server: caller.server(server)?, name: named.to_owned() },
        Scope::All => route(caller, named, on).await?,
    };
    let renamed = if place.name == named {
        bytes.clone()
    } else {
        Bytes::from(Splice::request(request).target(&place.name).finish().into_owned())
    };
    let server = place.server;
    let name: Arc<str> = place.name.into();
    let (resource, effect, external, params) = match on {
        ActionOn::Tool => {
            let facts = server.tool(&name);
            (server.tool_ref(&name), facts.effect, facts.external, facts.params.clone())
        }
        ActionOn::Resource => {
            (ResourceRef::Resource { server: server.name().clone(), uri: name }, Effect::Read, false, None)
        }
        ActionOn::Prompt => {
            (ResourceRef::Prompt { server: server.name().clone(), name }, Effect::Read, false, None)
        }
        ActionOn::Server => {
            let effect = if operation == Operation::Read { Effect::Read } else { Effect::Act };
            (ResourceRef::Server(server.name().clone()), effect, false, None)
        }
    };
    Ok(Target { server, operation, resource, effect, external, request: renamed, params })
}

struct Place {
    server: Arc<Server>,
    name: String,
}

/// Which server of all a name belongs to.
async fn route(caller: &Arc<Caller>, named: &str, on: ActionOn) -> Result<Place, Refusal> {
    match on {
        ActionOn::Tool | ActionOn::Prompt => {
            let (server, name) =
                split_name(named).ok_or_else(|| unknown(named, "names are server__name here"))?;
            let server = caller.server(&server).map_err(|_| unknown(named, "no such server"))?;
            Ok(Place { server, name: name.to_owned() })
        }
        ActionOn::Resource => {
            if let Some(place) = route_uri(caller, named) {
                return Ok(place);
            }
            // The client may know the URI from elsewhere: look once at what the servers list.
            for kind in [ListKind::Resources, ListKind::ResourceTemplates] {
                list::look_at_all(caller, kind).await;
            }
            route_uri(caller, named).ok_or_else(|| unknown(named, "no server lists it"))
        }
        ActionOn::Server => {
            let server = caller.gate.tasks.get(&caller.agent.name, named);
            let server = server.ok_or_else(|| unknown(named, "no such task of this agent"))?;
            Ok(Place { server: caller.server(&server)?, name: named.to_owned() })
        }
    }
}

fn route_uri(caller: &Caller, uri: &str) -> Option<Place> {
    let (server, inner) = {
        let routes = caller.gate.routes.read();
        let (server, inner) = routes.route(uri)?;
        (server, inner.to_owned())
    };
    Some(Place { server: caller.server(&server).ok()?, name: inner })
}

fn unknown(named: &str, why: &str) -> Refusal {
    let shown: String = named.chars().take(120).collect();
    Refusal::new(Step::Understand, RefusalCode::NotFound, format!("{shown:?} is not known: {why}"))
        .advise("List what there is first")
}

impl Caller {
    pub(crate) fn server(&self, name: &ServerName) -> Result<Arc<Server>, Refusal> {
        self.gate.server(name).ok_or_else(|| {
            Refusal::new(Step::Understand, RefusalCode::NotFound, format!("there is no server {name}"))
        })
    }

    /// The run that a request belongs to: named by the agent, else its trace, else its session.
    pub(crate) fn run(&self, request: &Request<'_>) -> Option<RunId> {
        let header = |name: &str| self.headers.get(name).and_then(|v| v.to_str().ok());
        header("castra-run")
            .and_then(RunId::new)
            .or_else(|| header("traceparent").and_then(trace_id))
            .or_else(|| request.meta.traceparent.as_deref().and_then(trace_id))
            .or_else(|| self.session().map(|s| s.run().clone()))
    }
}

/// The trace id of a W3C `traceparent` (Trace Context, section 3.2).
fn trace_id(traceparent: &str) -> Option<RunId> {
    let id = traceparent.split('-').nth(1)?;
    let good = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) && id.bytes().any(|b| b != b'0');
    if good { RunId::new(id) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_names_a_run() {
        let id = trace_id("00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01").unwrap();
        assert_eq!(id.as_str(), "0af7651916cd43dd8448eb211c80319c");
        for bad in ["", "00-0-1-2", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "x"] {
            assert!(trace_id(bad).is_none(), "{bad}");
        }
    }
}
