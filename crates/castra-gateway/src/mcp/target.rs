//! From a request to what it is directed at: which server, which tool, resource or prompt under
//! the server's own name, and what is known of it.

use std::sync::Arc;

use bytes::Bytes;
use castra_core::{
    AgentIdentity, Effect, Operation, PolicyMode, Refusal, RefusalCode, ResourceRef, RunId, ServerName, Step,
};
use castra_protocol::mcp::{
    ActionOn, NoRoute, Request, Splice, TargetKind, headers::ParamHeaders, split_name,
};

use super::{Scope, call::Caller, list};
use crate::{catalogue::Server, gate::Gate, run};

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
    let place = match (&caller.scope, on) {
        (_, ActionOn::Server) => task_place(caller, request, named)?,
        (Scope::Server(server), _) => Place { server: caller.server(server)?, name: named.to_owned() },
        (Scope::All, _) => route(caller, named, on).await?,
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

/// The server of a task. Servers see one client, the gate, and so cannot tell whose task it is: the
/// gate must (2025-11-25 and the extension of 2026-07-28, tasks, "Task Isolation and Access Control").
fn task_place(caller: &Caller, request: &Request<'_>, named: &str) -> Result<Place, Refusal> {
    let place = |server| Place { server, name: named.to_owned() };
    if !matches!(&request.target, Some(target) if target.kind == TargetKind::Task) {
        return all_tasks_place(caller).map(place);
    }
    let owns = |server: &ServerName| caller.gate.tasks.owns(&caller.agent.name, named, server);
    let servers = match &caller.scope {
        Scope::Server(server) => vec![caller.server(server)?],
        Scope::All => caller.gate.all_servers(),
    };
    let mut own = servers.into_iter().filter(|server| owns(server.name()));
    let server = own.next().ok_or_else(|| {
        unknown(named, "no task with this id was made for this agent since the gate started")
            .advise("Start the task anew")
    })?;
    if own.next().is_some() {
        return Err(unknown(named, "several servers made a task with this id")
            .advise("Ask at the server's own endpoint, /mcp/{server}"));
    }
    Ok(place(server))
}

/// A list of tasks is the agent's own only in a process that nobody else uses.
fn all_tasks_place(caller: &Caller) -> Result<Arc<Server>, Refusal> {
    let server = match &caller.scope {
        Scope::Server(server) => Some(caller.server(server)?),
        Scope::All => None,
    };
    server.filter(|server| caller.session().is_some() && !server.upstream().is_http()).ok_or_else(|| {
        let reason = "the list would hold the tasks of other agents, which share the server's credential";
        Refusal::new(Step::Understand, RefusalCode::NotFound, reason).advise("Ask for each task by its id")
    })
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
        ActionOn::Resource | ActionOn::Server => {
            let mut routed = route_uri(caller, named);
            // The client may know the URI from elsewhere: look at what the servers list.
            if matches!(routed, Err(NoRoute::Unlisted)) && list::look_at_all(caller).await {
                routed = route_uri(caller, named);
            }
            routed.map_err(|why| {
                unknown(named, &why.to_string())
                    .advise("List the resources first, or name the server: castra+server:uri")
            })
        }
    }
}

fn route_uri(caller: &Caller, uri: &str) -> Result<Place, NoRoute> {
    let (server, inner) = {
        let routes = caller.gate.routes.read();
        let (server, inner) = routes.route(uri)?;
        (server, inner.to_owned())
    };
    let server = caller.gate.server(&server).ok_or(NoRoute::Unlisted)?;
    Ok(Place { server, name: inner })
}

/// Whether an agent may use something at a server, or anything with one operation; in observe mode
/// everybody may.
pub(crate) fn may_use_some(
    gate: &Gate,
    agent: &AgentIdentity,
    operation: Option<Operation>,
    server: &ServerName,
) -> bool {
    gate.mode() == PolicyMode::Observe || gate.engine.load().may_use_some(agent, operation, server)
}

/// Stands before everything that opens something at a server without being an action.
pub(crate) fn check_may_use_some(
    gate: &Gate,
    agent: &AgentIdentity,
    server: &ServerName,
) -> Result<(), Refusal> {
    if may_use_some(gate, agent, None, server) {
        return Ok(());
    }
    let reason = format!("no policy permits agent {:?} anything at server {server}", agent.name.as_str());
    Err(Refusal::new(Step::Decide, RefusalCode::Denied, reason).advise(format!(
        "A policy has to permit the agent something there: permit (principal == \
         Castra::Agent::{:?}, action, resource in Castra::Server::{:?});",
        agent.name.as_str(),
        server.as_str()
    )))
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
        run::named(&self.headers)
            .or_else(|| request.meta.traceparent.as_deref().and_then(run::trace_id))
            .or_else(|| self.session().map(|s| s.run().clone()))
    }
}
