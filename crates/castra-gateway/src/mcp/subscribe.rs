//! Announcements of servers: `subscriptions/listen` for modern clients, the stream of a session for
//! legacy ones, each fed from servers of either era.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use castra_core::{Effect, Operation, Refusal, RefusalCode, ResourceRef, Step};
use castra_protocol::{
    json,
    mcp::{
        self, Id, Message, ParseLimits, Request,
        bridge::{self, ClientFacts, ServerFacts, SubscriptionFilter},
    },
    sse,
};
use http::Response;
use tokio::{sync::mpsc, task::AbortHandle};

use super::{
    Scope,
    call::Caller,
    channel::{Channel, Unreached, standard_headers},
    exchange::{Exchange, Purpose},
    session::Session,
};
use crate::{
    answer::{self, AnswerBody},
    catalogue::Server,
    gate::Gate,
    upstream::{Answer, Incoming, Outgoing, RequestId, ServerEra},
};

/// Announcements that wait for a slow client before newer ones are dropped.
const WAITING_MAX: usize = 256;

/// A comment goes out on a quiet stream after this time.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Waits before a stream of announcements that broke is opened again.
const AGAIN: Duration = Duration::from_secs(2);

/// Answers `subscriptions/listen`.
pub(crate) async fn answer(
    caller: &Arc<Caller>,
    request: &Request<'_>,
    bytes: &Bytes,
) -> Response<AnswerBody> {
    let filter = match SubscriptionFilter::from_request(request) {
        Ok(filter) => filter,
        Err(fault) => {
            let refusal = Refusal::new(Step::Understand, RefusalCode::Malformed, fault.to_string());
            return caller.refuse(&refusal, &caller.context(request));
        }
    };
    let targets = match targets(caller, &filter) {
        Ok(targets) => targets,
        Err(refusal) => return caller.refuse(&refusal, &caller.context(request)),
    };
    if let (Scope::Server(_), [(server, _)]) = (&caller.scope, targets.as_slice())
        && matches!(server.upstream().era().await, Ok(ServerEra::Modern { .. }))
    {
        let exchange =
            Exchange::start(caller.clone(), server.clone(), request, bytes.clone(), None, Purpose::Plain)
                .await;
        return exchange.respond().await;
    }
    let facts = match ClientFacts::from_modern(request) {
        Ok(facts) => facts,
        Err(fault) => {
            let refusal = Refusal::new(Step::Understand, RefusalCode::Malformed, fault.to_string());
            return caller.refuse(&refusal, &caller.context(request));
        }
    };
    let id = request.id.raw().to_owned();
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let honoured = honoured(&caller.scope, &targets, &filter);
    // There is room: nothing else was sent.
    let _ = sender.try_send(Bytes::from(bridge::listen_acknowledged(request.id, &honoured)));
    let ended = Bytes::from(bridge::listen_ended(request.id));
    for (server, filter) in targets {
        let listener =
            Listener { caller: caller.clone(), server, filter, id: id.clone(), facts: facts.clone() };
        tokio::spawn(listener.run(sender.clone()));
    }
    drop(sender);
    let closing = caller.gate.standings.of(&caller.agent);
    answer::events(futures_util::stream::unfold(Some(receiver), move |receiver| {
        let (closing, ended) = (closing.clone(), ended.clone());
        async move {
            let mut receiver = receiver?;
            let mut buffer = Vec::new();
            tokio::select! {
                message = receiver.recv() => sse::encode(&mut buffer, Some("message"), None, &message?),
                () = closing.cancelled() => {
                    sse::encode(&mut buffer, Some("message"), None, &ended);
                    return Some((Bytes::from(buffer), None));
                }
                () = tokio::time::sleep(KEEP_ALIVE) => buffer.extend_from_slice(sse::KEEP_ALIVE),
            }
            while let Ok(message) = receiver.try_recv() {
                sse::encode(&mut buffer, Some("message"), None, &message);
            }
            Some((Bytes::from(buffer), Some(receiver)))
        }
    }))
}

/// What of a subscription is acknowledged: what the one server can announce; all that was asked of
/// the federated view, some of whose servers can.
fn honoured(
    scope: &Scope,
    targets: &[(Arc<Server>, SubscriptionFilter)],
    filter: &SubscriptionFilter,
) -> SubscriptionFilter {
    let (Scope::Server(_), [(server, _)]) = (scope, targets) else { return filter.clone() };
    let Some(ServerEra::Legacy { initialize, .. }) = server.upstream().known_era() else {
        return filter.clone();
    };
    let facts =
        std::str::from_utf8(&initialize).ok().and_then(|said| ServerFacts::from_initialize_result(said).ok());
    facts.map_or_else(|| filter.clone(), |facts| filter.restricted_to(&facts))
}

/// The servers to listen to, each with what is wanted of it. Resources must be readable.
fn targets(
    caller: &Caller,
    filter: &SubscriptionFilter,
) -> Result<Vec<(Arc<Server>, SubscriptionFilter)>, Refusal> {
    let mut targets: Vec<(Arc<Server>, SubscriptionFilter)> = match &caller.scope {
        Scope::Server(name) => vec![(caller.server(name)?, filter.clone())],
        Scope::All => {
            let bare = SubscriptionFilter { uris: Vec::new(), ..filter.clone() };
            caller.gate.all_servers().into_iter().map(|s| (s, bare.clone())).collect()
        }
    };
    for uri in &filter.uris {
        let (server, inner) = match &caller.scope {
            Scope::Server(name) => (name.clone(), uri.clone()),
            Scope::All => {
                let routes = caller.gate.routes.read();
                let (server, inner) = routes.route(uri).ok_or_else(|| unreadable(uri))?;
                (server, inner.to_owned())
            }
        };
        let resource = ResourceRef::Resource { server: server.clone(), uri: inner.as_str().into() };
        let engine = caller.gate.engine();
        if !engine.may_use(&caller.agent, Operation::Read, &resource, Effect::Read, false)
            && caller.gate.mode() == castra_core::PolicyMode::Enforce
        {
            return Err(unreadable(uri));
        }
        if caller.scope == Scope::All
            && let Some((_, filter)) = targets.iter_mut().find(|(s, _)| *s.name() == server)
        {
            filter.uris.push(inner);
        }
    }
    Ok(targets)
}

fn unreadable(uri: &str) -> Refusal {
    let shown: String = uri.chars().take(120).collect();
    let reason = format!("no policy permits reading {shown:?}, so its changes are not announced either");
    Refusal::new(Step::Decide, RefusalCode::Denied, reason)
        .advise("Permit the action \"read\" on the resource")
}

/// Follows one server for one subscription.
struct Listener {
    caller: Arc<Caller>,
    server: Arc<Server>,
    filter: SubscriptionFilter,
    id: String,
    facts: ClientFacts,
}

impl Listener {
    async fn run(self, sender: mpsc::Sender<Bytes>) {
        loop {
            let followed = tokio::select! {
                followed = self.follow(&sender) => followed,
                () = sender.closed() => return,
            };
            if let Err(error) = followed {
                tracing::debug!(server = %self.server.name(), reason = %error.refusal(self.server.name()).reason, "announcements broke off");
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = sender.closed() => return,
            }
        }
    }

    async fn follow(&self, sender: &mpsc::Sender<Bytes>) -> Result<(), Unreached> {
        match self.server.upstream().era().await? {
            ServerEra::Legacy { .. } => self.follow_legacy(sender).await,
            ServerEra::Modern { .. } => {
                let gate = &self.caller.gate;
                let tell = |body: Bytes| self.tell(sender, &body);
                follow_modern(gate, &self.caller.agent.name, &self.server, &self.facts, &self.filter, tell)
                    .await
            }
        }
    }

    async fn follow_legacy(&self, sender: &mpsc::Sender<Bytes>) -> Result<(), Unreached> {
        let (gate, agent) = (&self.caller.gate, &self.caller.agent.name);
        let link = gate.links.get(gate, agent, &self.server, Some(&self.facts)).await?;
        let mut heard = link.listen();
        for (number, uri) in self.filter.uris.iter().enumerate() {
            let id = format!("\"castra-subscribe-{number}\"");
            let body = format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"resources/subscribe\",\"params\":{{\"uri\":{}}}}}",
                json::quote(uri)
            );
            let out = Outgoing::request(body.into(), RequestId::from(id.as_str()));
            link.session().exchange(out).await?;
        }
        loop {
            use tokio::sync::broadcast::error::RecvError;
            match heard.recv().await {
                Ok(body) => self.tell(sender, &body),
                Err(RecvError::Lagged(missed)) => {
                    tracing::debug!(missed, "a subscriber was too slow for some announcements");
                }
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }

    fn tell(&self, sender: &mpsc::Sender<Bytes>, body: &Bytes) {
        let (Ok(Message::Notification(notification)), Some(id)) =
            (mcp::parse(body, &ParseLimits::default()), Id::from_raw(&self.id))
        else {
            return;
        };
        if let Some(stamped) = bridge::listen_notification(&notification, &self.filter, id) {
            // A client that does not read loses announcements, not the gate its memory.
            let _ = sender.try_send(stamped.into());
        }
    }
}

/// Listens to a modern server until it ends the stream.
async fn follow_modern(
    gate: &Gate,
    agent: &castra_core::AgentName,
    server: &Arc<Server>,
    facts: &ClientFacts,
    filter: &SubscriptionFilter,
    tell: impl Fn(Bytes),
) -> Result<(), Unreached> {
    const ID: &str = "\"castra-listen\"";
    let facts = ClientFacts { revision: mcp::Revision::LATEST, ..facts.clone() };
    let body = Bytes::from(bridge::listen_request(ID, &facts, filter));
    let mut out = Outgoing::request(body.clone(), RequestId::from(ID));
    out.long = true;
    if let Ok(Message::Request(request)) = mcp::parse(&body, &ParseLimits::default()) {
        out.headers = standard_headers(&request, None);
    }
    let channel = if server.upstream().is_http() {
        Channel::Stateless(server.upstream().clone())
    } else {
        Channel::Session(gate.links.get(gate, agent, server, None).await?.session().clone())
    };
    let Answer::Events(mut events) = channel.send(out).await? else { return Ok(()) };
    while let Some(event) = events.next().await {
        match event? {
            Incoming::Notification(body) => tell(body),
            Incoming::Request(_) | Incoming::Response(_) => {}
        }
    }
    Ok(())
}

/// What a legacy session follows at one modern server.
#[derive(Default)]
pub(crate) struct Kept {
    uris: BTreeSet<String>,
    task: Option<AbortHandle>,
}

impl Kept {
    pub(crate) fn change(&mut self, uri: &str, on: bool) {
        if on {
            self.uris.insert(uri.to_owned());
        } else {
            self.uris.remove(uri);
        }
    }

    /// Opens the server's stream of announcements anew, for what is wanted now.
    pub(crate) fn restart(&mut self, session: &Arc<Session>, gate: &Arc<Gate>, server: &Arc<Server>) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        let filter = SubscriptionFilter {
            tools: true,
            prompts: true,
            resources: true,
            uris: self.uris.iter().cloned().collect(),
        };
        let (gate, server, session) = (gate.clone(), server.clone(), Arc::downgrade(session));
        let task = tokio::spawn(async move {
            loop {
                let Some(strong) = session.upgrade() else { return };
                let (agent, facts, closed) =
                    (strong.agent().clone(), strong.facts(), strong.closed().clone());
                drop(strong);
                let tell = |body: Bytes| {
                    if let (Some(session), Ok(Message::Notification(n))) =
                        (session.upgrade(), mcp::parse(&body, &ParseLimits::default()))
                        && let Some(told) = bridge::modern_notification_to_legacy(&n)
                    {
                        session.tell(told.into_owned().into());
                    }
                };
                let followed = follow_modern(&gate, &agent, &server, &facts, &filter, tell);
                tokio::select! {
                    followed = followed => if let Err(error) = followed {
                        tracing::debug!(server = %server.name(), reason = %error.refusal(server.name()).reason, "announcements broke off");
                    },
                    () = closed.cancelled() => return,
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
        self.task = Some(task.abort_handle());
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Follows all modern servers of a session's endpoint, from when its client is ready.
pub(crate) async fn follow_modern_servers(session: &Arc<Session>, gate: &Arc<Gate>) {
    let servers = match session.scope() {
        Scope::Server(name) => gate.server(name).into_iter().collect(),
        Scope::All => gate.all_servers(),
    };
    for server in servers {
        if matches!(server.upstream().known_era(), Some(ServerEra::Modern { .. })) {
            session.follow(gate, &server);
        }
    }
}
