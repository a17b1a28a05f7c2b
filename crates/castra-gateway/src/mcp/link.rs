//! Links: upstream sessions that the gate keeps for modern clients, whose protocol has none.
//!
//! One per agent, server and set of client capabilities, so that no agent sees another's state at a
//! legacy server or in a child process.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use bytes::Bytes;
use castra_core::{AgentName, Limits, Refusal, RefusalCode, ServerName, Step, Timestamp};
use castra_protocol::mcp::{
    self, Message, ParseLimits, Revision,
    bridge::{self, ClientFacts, ServerFacts},
};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, broadcast};

use super::channel::Unreached;
use crate::{
    catalogue::Server,
    gate::Gate,
    upstream::{Hello, Incoming, ServerEra, Session, UpstreamError},
};

/// Notifications that a slow subscriber may be behind before it loses some.
const BEHIND_MAX: usize = 256;

/// A session at a server, kept for one agent.
pub(crate) struct Link {
    session: Arc<Session>,
    facts: Arc<ServerFacts>,
    revision: Revision,
    heard: broadcast::Sender<Bytes>,
    used: AtomicI64,
}

impl Link {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(crate) fn facts(&self) -> &Arc<ServerFacts> {
        &self.facts
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Notifications that belong to no request.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Bytes> {
        self.heard.subscribe()
    }
}

#[derive(PartialEq, Eq, Hash, Clone)]
struct Key {
    agent: AgentName,
    server: ServerName,
    /// Of the server's configuration: a changed server is another server.
    fingerprint: u64,
    /// What the client said that it can do; a server behaves differently for each.
    capabilities: String,
}

/// Links of one agent to one server. Clients choose their capabilities' text, and each text makes
/// another link; with more than this the least used one ends.
const LINKS_PER_SERVER_MAX: usize = 4;

type Place = Arc<OnceCell<Arc<Link>>>;

/// All links.
pub(crate) struct LinkPool {
    places: Mutex<HashMap<Key, Place>>,
    limits: Arc<Limits>,
}

impl LinkPool {
    pub(crate) fn new(limits: Arc<Limits>) -> Self {
        Self { places: Mutex::default(), limits }
    }

    /// The link of an agent to a server, opened if there is none. Without `client` the server is of
    /// the modern era and does not care who asks.
    pub(crate) async fn get(
        &self,
        gate: &Gate,
        agent: &AgentName,
        server: &Arc<Server>,
        client: Option<&ClientFacts>,
    ) -> Result<Arc<Link>, Unreached> {
        let capabilities = client.map(|c| c.capabilities.clone()).unwrap_or_default();
        let fingerprint = server.fingerprint();
        let key = Key { agent: agent.clone(), server: server.name().clone(), fingerprint, capabilities };
        let place = self.place(&key)?;
        let link = place.get_or_try_init(|| open(server, client)).await;
        let link = match link {
            Ok(link) if link.session.ended().is_none() => link.clone(),
            Ok(_) => {
                // It died since; whoever asks next opens a new one.
                self.remove(&key, &place);
                return Err(UpstreamError::SessionExpired.into());
            }
            Err(error) => {
                self.remove(&key, &place);
                return Err(error);
            }
        };
        link.used.store(gate.now().secs(), Ordering::Relaxed);
        Ok(link)
    }

    fn place(&self, key: &Key) -> Result<Place, Refusal> {
        let mut places = self.places.lock();
        if let Some(place) = places.get(key) {
            return Ok(place.clone());
        }
        let same = |k: &&Key| k.agent == key.agent && k.server == key.server;
        if places.keys().filter(same).count() >= LINKS_PER_SERVER_MAX {
            let least_used = places
                .iter()
                .filter(|(k, _)| same(k))
                .min_by_key(|(_, place)| {
                    place.get().map_or(i64::MAX, |link| link.used.load(Ordering::Relaxed))
                })
                .map(|(k, _)| k.clone());
            // Calls that still run on it keep it alive; dropping the last handle closes it.
            least_used.and_then(|k| places.remove(&k));
        }
        let of_agent = places.keys().filter(|k| k.agent == key.agent).count();
        if of_agent >= self.limits.sessions_per_agent_max {
            let reason =
                format!("agent {} has {of_agent} sessions at servers, which is its limit", key.agent);
            return Err(Refusal::new(Step::Act, RefusalCode::Busy, reason)
                .advise("Wait until unused ones lapse, or raise limits.sessions_per_agent_max"));
        }
        Ok(places.entry(key.clone()).or_default().clone())
    }

    fn remove(&self, key: &Key, place: &Place) {
        let mut places = self.places.lock();
        if places.get(key).is_some_and(|p| Arc::ptr_eq(p, place)) {
            places.remove(key);
        }
    }

    pub(crate) async fn forget(&self, agent: &AgentName, server: &ServerName) {
        self.close_where(|key, link| {
            key.agent == *agent && key.server == *server && link.is_none_or(|l| l.session.ended().is_some())
        })
        .await;
    }

    /// Closes links that nobody used for a while, and those that died.
    pub(crate) async fn close_idle(&self) {
        let idle = self.limits.session_idle_max.as_secs() as i64;
        let now = castra_store::clock::now();
        self.close_where(|_, link| {
            link.is_some_and(|l| {
                let quiet = now.secs() - Timestamp::from_secs(l.used.load(Ordering::Relaxed)).secs();
                let in_use = Arc::strong_count(&l.session) > 2 || l.heard.receiver_count() > 0;
                l.session.ended().is_some() || (quiet > idle && !in_use)
            })
        })
        .await;
    }

    pub(crate) async fn close_of(&self, agent: &AgentName) {
        self.close_where(|key, _| key.agent == *agent).await;
    }

    pub(crate) async fn close_to(&self, server: &ServerName) {
        self.close_where(|key, _| key.server == *server).await;
    }

    pub(crate) async fn close_all(&self) {
        self.close_where(|_, _| true).await;
    }

    async fn close_where(&self, which: impl Fn(&Key, Option<&Arc<Link>>) -> bool) {
        let mut closed = Vec::new();
        self.places.lock().retain(|key, place| {
            let close = which(key, place.get());
            if close {
                closed.extend(place.get().cloned());
            }
            !close
        });
        futures_util::future::join_all(closed.iter().map(|link| in_time(link.session.close()))).await;
    }
}

/// How long the closing of a session at a server is waited for; its server may hang.
const CLOSING_MAX: std::time::Duration = std::time::Duration::from_secs(5);

/// Gives up on what closes too slowly; dropping it ends it at our side.
pub(crate) async fn in_time(closing: impl Future<Output = ()>) {
    // Late is as good as done: whoever closes does not wait for the other side's manners.
    let _ = tokio::time::timeout(CLOSING_MAX, closing).await;
}

async fn open(server: &Arc<Server>, client: Option<&ClientFacts>) -> Result<Arc<Link>, Unreached> {
    let upstream = server.upstream();
    let era = upstream.era().await?;
    let hello = match client {
        Some(client) => Hello { params: hello_params(client, era.revision()), shared: true },
        None => Hello::gate(era.revision()),
    };
    let session = upstream.open_session(hello).await?;
    let said = std::str::from_utf8(session.initialize_result()).unwrap_or_default();
    let facts = match session.era() {
        ServerEra::Legacy { .. } => ServerFacts::from_initialize_result(said),
        ServerEra::Modern { .. } => ServerFacts::from_discover_result(said),
    };
    let facts = facts.map_err(|fault| {
        Refusal::new(Step::Act, RefusalCode::UpstreamMisbehaved, format!("the server's handshake: {fault}"))
    })?;
    let revision = session.era().revision();
    let (heard, _) = broadcast::channel(BEHIND_MAX);
    if let Some(unsolicited) = session.take_unsolicited() {
        tokio::spawn(pump(unsolicited, heard.clone(), Arc::downgrade(&session), server.clone()));
    }
    let used = AtomicI64::new(castra_store::clock::now().secs());
    Ok(Arc::new(Link { session, facts: Arc::new(facts), revision, heard, used }))
}

/// The params of `initialize` on behalf of a modern client.
fn hello_params(client: &ClientFacts, revision: Revision) -> Bytes {
    let facts = ClientFacts { revision, ..client.clone() };
    let request = bridge::initialize_request("1", &facts);
    match mcp::parse(&request, &ParseLimits::default()) {
        Ok(Message::Request(parsed)) => {
            let params = parsed.params.map(|span| parsed.slice(span)).unwrap_or("{}");
            Bytes::copy_from_slice(params.as_bytes())
        }
        _ => Bytes::from_static(b"{}"),
    }
}

/// Hands on what the server says unasked. A question outside of a call has nobody to answer it.
async fn pump(
    mut unsolicited: crate::upstream::Unsolicited,
    heard: broadcast::Sender<Bytes>,
    session: std::sync::Weak<Session>,
    server: Arc<Server>,
) {
    while let Some(Ok(incoming)) = unsolicited.next().await {
        match incoming {
            Incoming::Notification(body) => {
                server.heard(&body);
                // Nobody listens: then it is of no interest.
                let _ = heard.send(body);
            }
            Incoming::Request(body) => {
                let Some(session) = session.upgrade() else { return };
                if let Ok(Message::Request(question)) = mcp::parse(&body, &ParseLimits::default()) {
                    let why = "no call is under way in which a client could be asked";
                    let answer =
                        mcp::error_response(Some(question.id), mcp::code::METHOD_NOT_FOUND, why, None);
                    if session.respond(answer.into()).await.is_err() {
                        return;
                    }
                }
            }
            Incoming::Response(_) => {}
        }
    }
}
