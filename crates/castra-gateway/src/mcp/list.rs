//! Lists: of every list a caller sees only what it may use. One server's list keeps its own bytes
//! where nothing has to go; the federated list joins those of all servers.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use castra_core::{
    AgentName, Effect, Operation, PolicyMode, Refusal, RefusalCode, ResourceRef, ServerName, Step,
};
use castra_protocol::{
    json,
    mcp::{
        self, ListKind, Message, Outcome, ParseLimits, Request, Splice, UriRoutes,
        lists::{self, FederatedCursor, Item, Keep, Page},
    },
};
use http::{Response, StatusCode};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::{
    Scope,
    call::{Caller, Client},
    exchange::{Exchange, Purpose},
    target::may_use_some,
};
use crate::{
    answer::{self, AnswerBody},
    catalogue::Server,
    inspect,
};

/// Pages that are fetched of one server for one federated page; what is left goes on by cursor.
const PAGES_MAX: usize = 50;

/// A URI that no list has shown makes the gate ask all servers; each agent can cause that once in this
/// time, so that a request for nothing does not become many.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Which server a resource of the federated view belongs to, as far as lists have told.
#[derive(Default)]
pub(crate) struct SharedRoutes {
    routes: RwLock<UriRoutes>,
    looked: Mutex<HashMap<AgentName, Instant>>,
}

impl SharedRoutes {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, UriRoutes> {
        self.routes.read()
    }

    /// Forgets what a server listed that is not there any more.
    pub(crate) fn forget(&self, server: &ServerName) {
        self.routes.write().forget(server);
    }

    /// Whether an agent may cause a look at all servers now; then not again for a while.
    fn may_look(&self, agent: &AgentName) -> bool {
        let mut looked = self.looked.lock();
        looked.retain(|_, at| at.elapsed() < LOOK_AGAIN);
        let first = !looked.contains_key(agent);
        if first {
            looked.insert(agent.clone(), Instant::now());
        }
        first
    }
}

/// Answers a list request.
pub(crate) async fn answer(
    caller: &Arc<Caller>,
    request: &Request<'_>,
    bytes: &Bytes,
    kind: ListKind,
) -> Response<AnswerBody> {
    match &caller.scope {
        Scope::Server(name) => match caller.server(name) {
            Ok(server) => {
                let purpose = Purpose::List(kind);
                let exchange =
                    Exchange::start(caller.clone(), server, request, bytes.clone(), None, purpose).await;
                exchange.respond().await
            }
            Err(refusal) => caller.refuse(&refusal, &caller.context(request)),
        },
        Scope::All => match shown(caller, request, kind).await {
            Ok(result) => answer::json(StatusCode::OK, result),
            Err(refusal) => caller.refuse(&refusal, &caller.context(request)),
        },
    }
}

/// The list over all servers, inspected as what single servers answer is.
async fn shown(caller: &Arc<Caller>, request: &Request<'_>, kind: ListKind) -> Result<Bytes, Refusal> {
    let result = federated(caller, request, kind).await?;
    inspect::shown_result(&caller.gate, request.id, &result)
}

/// One server's list as the caller may see it; `None` where it stays as it is.
pub(crate) fn show(
    caller: &Caller,
    server: &Arc<Server>,
    kind: ListKind,
    body: &Bytes,
) -> Result<Option<Bytes>, Refusal> {
    let limits = ParseLimits::from(&*caller.gate.limits);
    let Ok(Message::Response(response)) = mcp::parse(body, &limits) else {
        return Err(unreadable("no response"));
    };
    let Outcome::Result(result) = &response.outcome else { return Ok(None) };
    let text = result.span.of(response.text);
    let page = lists::read(kind, text).map_err(|e| unreadable(&e.to_string()))?;
    learn(caller, server, &page);
    let keep: Vec<Keep> = page
        .items
        .iter()
        .map(|item| if may_see(caller, server, kind, item) { Keep::AsIs } else { Keep::Drop })
        .collect();
    match lists::filter(&page, &keep, depends_on_caller(caller)) {
        std::borrow::Cow::Borrowed(_) => Ok(None),
        std::borrow::Cow::Owned(shown) => {
            let id = response.id.ok_or_else(|| unreadable("the answer has no id"))?;
            Ok(Some(mcp::result_response(id, &shown).into()))
        }
    }
}

fn unreadable(why: &str) -> Refusal {
    let reason = format!("the server's list cannot be read, so nothing of it can be shown: {why}");
    Refusal::new(Step::Act, RefusalCode::UpstreamMisbehaved, reason)
}

fn learn(caller: &Caller, server: &Arc<Server>, page: &Page<'_>) {
    if page.kind == ListKind::Tools && server.absorb(&caller.gate, page) {
        caller.gate.refresh_engine();
    }
}

/// In observe mode everything is shown to everybody.
fn depends_on_caller(caller: &Caller) -> bool {
    caller.gate.mode() == PolicyMode::Enforce
}

fn may_see(caller: &Caller, server: &Arc<Server>, kind: ListKind, item: &Item<'_>) -> bool {
    if !depends_on_caller(caller) {
        return true;
    }
    let engine = caller.gate.engine();
    let name = || Arc::<str>::from(&*item.key);
    match kind {
        ListKind::Tools => {
            let facts = server.tool(&item.key);
            let tool = server.tool_ref(&item.key);
            engine.may_use(
                &caller.agent,
                Operation::Call,
                &tool,
                facts.effect,
                facts.external,
                facts.described(),
            )
        }
        ListKind::Resources | ListKind::ResourceTemplates => {
            let resource = ResourceRef::Resource { server: server.name().clone(), uri: name() };
            engine.may_use(&caller.agent, Operation::Read, &resource, Effect::Read, false, false)
        }
        ListKind::Prompts => {
            let prompt = ResourceRef::Prompt { server: server.name().clone(), name: name() };
            engine.may_use(&caller.agent, Operation::Read, &prompt, Effect::Read, false, false)
        }
    }
}

/// Fetches the lists of the servers of which the caller may read something, so that their URIs can be
/// routed. Says whether it did; an agent gets this only now and then.
pub(crate) async fn look_at_all(caller: &Arc<Caller>) -> bool {
    if !caller.gate.routes.may_look(&caller.agent.name) {
        return false;
    }
    for kind in [ListKind::Resources, ListKind::ResourceTemplates] {
        let request = plain_request(caller, kind);
        if let Ok(Message::Request(request)) = mcp::parse(&request, &ParseLimits::default()) {
            // What cannot be listed cannot be routed either; the caller is told so.
            let _ = federated(caller, &request, kind).await;
        }
    }
    true
}

fn plain_request(caller: &Caller, kind: ListKind) -> Vec<u8> {
    let meta = match caller.client {
        Client::Legacy(_) => String::new(),
        Client::Modern => format!(
            "\"_meta\":{{\"{}\":\"{}\",\"{}\":{{}}}}",
            mcp::meta_key::PROTOCOL_VERSION,
            caller.revision().as_str(),
            mcp::meta_key::CLIENT_CAPABILITIES
        ),
    };
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":\"castra-look\",\"method\":\"{}\",\"params\":{{{meta}}}}}",
        kind.method()
    )
    .into_bytes()
}

/// The list over all servers.
async fn federated(caller: &Arc<Caller>, request: &Request<'_>, kind: ListKind) -> Result<String, Refusal> {
    let wanted = wanted(caller, request, kind)?;
    let budget = Budget::new(caller.gate.limits.answer_bytes_max);
    let fetches =
        wanted.into_iter().map(|(server, cursor)| fetch(caller, request, kind, server, cursor, &budget));
    let fetched = futures_util::future::join_all(fetches).await;
    let mut pages: Vec<(Arc<Server>, String)> = Vec::new();
    let mut next = FederatedCursor::default();
    let mut unavailable = Vec::new();
    for part in fetched {
        match part {
            Fetched::Pages { server, results, more } => {
                if let Some(cursor) = more {
                    next.0.push((server.name().clone(), cursor));
                }
                pages.extend(results.into_iter().map(|r| (server.clone(), r)));
            }
            Fetched::Unavailable(server) => unavailable.push(server),
        }
    }
    Ok(join(caller, kind, &pages, &next, &unavailable))
}

/// A server, and where its list goes on.
type Wanted = (Arc<Server>, Option<String>);

/// Servers of whose list the caller could see something; the others are not even asked.
fn wanted(caller: &Caller, request: &Request<'_>, kind: ListKind) -> Result<Vec<Wanted>, Refusal> {
    let operation = match kind {
        ListKind::Tools => Operation::Call,
        ListKind::Resources | ListKind::ResourceTemplates | ListKind::Prompts => Operation::Read,
    };
    let mut wanted = all_wanted(caller, request)?;
    wanted.retain(|(server, _)| may_use_some(&caller.gate, &caller.agent, Some(operation), server.name()));
    Ok(wanted)
}

fn all_wanted(caller: &Caller, request: &Request<'_>) -> Result<Vec<Wanted>, Refusal> {
    let Some(cursor) = &request.cursor else {
        return Ok(caller.gate.all_servers().into_iter().map(|s| (s, None)).collect());
    };
    let bad = || {
        Refusal::new(
            Step::Understand,
            RefusalCode::Malformed,
            "the cursor is not one that this list gave out",
        )
        .advise("Start the list again without a cursor")
    };
    let cursor = FederatedCursor::decode(cursor).ok_or_else(bad)?;
    cursor
        .0
        .into_iter()
        .map(|(name, inner)| Ok((caller.server(&name).map_err(|_| bad())?, Some(inner))))
        .collect()
}

/// Bytes that one federated list may hold in memory, over all servers and pages.
struct Budget(AtomicUsize);

impl Budget {
    fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    fn take(&self, bytes: usize) -> bool {
        let left = |left: usize| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok()
    }
}

enum Fetched {
    Pages { server: Arc<Server>, results: Vec<String>, more: Option<String> },
    Unavailable(ServerName),
}

/// All pages of one server, up to a number and to what the whole list may hold; the rest goes on by
/// cursor. One that does not answer soon, or whose first page has no room, is left out rather than
/// holding up the others.
async fn fetch(
    caller: &Arc<Caller>,
    request: &Request<'_>,
    kind: ListKind,
    server: Arc<Server>,
    cursor: Option<String>,
    budget: &Budget,
) -> Fetched {
    let all = async {
        let (mut cursor, mut results) = (cursor, Vec::new());
        for _ in 0..PAGES_MAX {
            let splice = match &cursor {
                Some(cursor) => Splice::request(request).set("cursor", &json::quote(cursor)),
                None => Splice::request(request).remove("cursor"),
            };
            let bytes = Bytes::from(splice.finish().into_owned());
            let exchange =
                Exchange::start(caller.clone(), server.clone(), request, bytes, None, Purpose::Plain).await;
            let body = exchange.whole().await?;
            if !budget.take(body.len()) {
                return cursor.map(|cursor| (results, Some(cursor)));
            }
            let Ok(Message::Response(response)) = mcp::parse(&body, &ParseLimits::default()) else {
                return None;
            };
            match &response.outcome {
                Outcome::Result(result) => {
                    let text = result.span.of(response.text).to_owned();
                    cursor = lists::read(kind, &text).ok()?.next_cursor.map(|c| c.into_owned());
                    results.push(text);
                }
                // A server without this kind of thing.
                Outcome::Error(error) if error.code == mcp::code::METHOD_NOT_FOUND => break,
                Outcome::Error(_) => return None,
            }
            if cursor.is_none() {
                break;
            }
        }
        Some((results, cursor))
    };
    match tokio::time::timeout(caller.gate.limits.connect_time_max, all).await {
        Ok(Some((results, more))) => Fetched::Pages { server, results, more },
        _ => Fetched::Unavailable(server.name().clone()),
    }
}

fn join(
    caller: &Caller,
    kind: ListKind,
    pages: &[(Arc<Server>, String)],
    next: &FederatedCursor,
    unavailable: &[ServerName],
) -> String {
    let read: Vec<(&Arc<Server>, Page<'_>)> =
        pages.iter().filter_map(|(server, text)| Some((server, lists::read(kind, text).ok()?))).collect();
    for (server, page) in &read {
        learn(caller, server, page);
    }
    let keeps: Vec<Vec<Keep>> = {
        let mut routes = caller.gate.routes.routes.write();
        read.iter()
            .map(|(server, page)| {
                lists::federate(page, server.name(), &mut routes, |item| may_see(caller, server, kind, item))
            })
            .collect()
    };
    let parts: Vec<(&Page<'_>, &[Keep])> =
        read.iter().zip(&keeps).map(|((_, page), keep)| (page, keep.as_slice())).collect();
    let era = caller.revision().era();
    let merged = lists::merge(kind, &parts, next.encode().as_deref(), era);
    if unavailable.is_empty() {
        return merged;
    }
    let names = serde_json::to_string(unavailable).unwrap_or_default();
    merged.replacen('{', &format!("{{\"_meta\":{{\"castra.dev/unavailable\":{names}}},"), 1)
}
