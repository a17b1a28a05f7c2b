//! Announcements of servers: `subscriptions/listen` for modern clients, the stream of a session for
//! legacy ones, each fed from servers of either era.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use castra_core::{AgentName, Effect, Operation, Refusal, RefusalCode, ResourceRef, ServerName, Step};
use castra_ledger::Status;
use castra_protocol::{
    json,
    mcp::{
        self, Id, Message, Missing, NotificationKind, Outcome, ParseLimits, RefusalContext, Request,
        bridge::{self, ClientFacts, SubscriptionFilter},
    },
    sse,
};
use http::Response;
use tokio::{
    sync::{broadcast, mpsc},
    task::AbortHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Scope,
    call::Caller,
    channel::{Channel, Unreached, standard_headers},
    session::Session,
    target::{self, Target},
};
use crate::{
    answer::{self, AnswerBody, RECEIPT},
    catalogue::Server,
    decide::still_permits,
    gate::Gate,
    inspect::Watch,
    path::{self, Stopped},
    record::{Ending, Noted, Permit},
    understand::Action,
    upstream::{Answer, EventStream, Incoming, Outgoing, RequestId, ServerEra, UpstreamError},
};

/// Announcements that wait for a slow client before newer ones are dropped.
const WAITING_MAX: usize = 256;

/// A comment goes out on a quiet stream after this time.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// The first wait before a stream of announcements that broke is opened again; it doubles.
const AGAIN: Duration = Duration::from_secs(2);

/// The longest wait before that.
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// How often it is asked whether an open stream would still be permitted.
const STILL_PERMITTED: Duration = Duration::from_secs(5);

/// Answers `subscriptions/listen`: an action like others, which lasts as long as its stream.
pub(crate) async fn answer(
    caller: &Arc<Caller>,
    request: &Request<'_>,
    bytes: &Bytes,
) -> Response<AnswerBody> {
    if let Some(refused) = caller.lacks_scope(request, Operation::Read) {
        return refused;
    }
    let understood = SubscriptionFilter::from_request(request)
        .and_then(|filter| Ok((filter, ClientFacts::from_modern(request)?)));
    let (filter, facts) = match understood {
        Ok(understood) => understood,
        Err(fault) => {
            let refusal = Refusal::new(Step::Understand, RefusalCode::Malformed, fault.to_string());
            return caller.refuse(&refusal, &caller.context(request));
        }
    };
    let mut wanted = match wanted(caller, &filter) {
        Ok(wanted) => wanted,
        Err(refusal) => return caller.refuse(&refusal, &caller.context(request)),
    };
    let held = match admit(caller, request, bytes, &mut wanted).await {
        Ok(held) => held,
        Err(stopped) => return caller.stopped(request, &stopped),
    };
    let mut listeners: Vec<_> = wanted
        .into_iter()
        .map(|wanted| Listener {
            gate: caller.gate.clone(),
            agent: caller.agent.name.clone(),
            server: wanted.server,
            filter: wanted.filter,
            id: request.id.raw().to_owned(),
            facts: facts.clone(),
            first: None,
        })
        .collect();
    let honoured = match (&caller.scope, listeners.as_mut_slice()) {
        // One server speaks for itself: what it does not take, the caller is told at once.
        (Scope::Server(_), [listener]) => match listener.open_or_again().await {
            Ok(opened) => {
                let honoured = opened.honoured.clone();
                listener.first = Some(opened);
                honoured
            }
            Err(error) => return held.failed(caller, request, &error, listener.server.name()).await,
        },
        _ => filter,
    };
    stream(caller, request, held, listeners, &honoured)
}

/// Opens the caller's stream and everything that feeds and ends it.
fn stream(
    caller: &Arc<Caller>,
    request: &Request<'_>,
    held: Held,
    listeners: Vec<Listener>,
    honoured: &SubscriptionFilter,
) -> Response<AnswerBody> {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    // There is room: nothing else was sent.
    let _ = sender.try_send(Bytes::from(bridge::listen_acknowledged(request.id, honoured)));
    let (over, gone) = (CancellationToken::new(), CancellationToken::new());
    let receipt = held.receipt();
    tokio::spawn(held.until_over(caller.clone(), over.clone(), gone.clone()));
    for listener in listeners {
        tokio::spawn(listener.run(sender.clone(), over.clone()));
    }
    let ended = Bytes::from(bridge::listen_ended(request.id));
    let stream = Stream { receiver, over, ended: Some(ended), _gone: gone.drop_guard(), _sender: sender };
    let events = futures_util::stream::unfold(stream, |mut stream| async move {
        let burst = stream.next().await?;
        Some((burst, stream))
    });
    match receipt {
        Some(receipt) => answer::with_header(answer::events(events), RECEIPT, &receipt),
        None => answer::events(events),
    }
}

/// The caller's stream. Dropping it says that the caller is gone.
struct Stream {
    receiver: mpsc::Receiver<Bytes>,
    over: CancellationToken,
    /// The last message, until it was sent.
    ended: Option<Bytes>,
    _gone: DropGuard,
    /// Keeps the stream open when all servers are gone: one may come back.
    _sender: mpsc::Sender<Bytes>,
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        let mut buffer = Vec::new();
        self.ended.as_ref()?;
        tokio::select! {
            biased;
            () = self.over.cancelled() => {
                sse::encode(&mut buffer, Some("message"), None, &self.ended.take()?);
                return Some(buffer.into());
            }
            message = self.receiver.recv() => sse::encode(&mut buffer, Some("message"), None, &message?),
            () = tokio::time::sleep(KEEP_ALIVE) => buffer.extend_from_slice(sse::KEEP_ALIVE),
        }
        while let Ok(message) = self.receiver.try_recv() {
            sse::encode(&mut buffer, Some("message"), None, &message);
        }
        Some(buffer.into())
    }
}

/// What is wanted of one server.
struct Wanted {
    server: Arc<Server>,
    filter: SubscriptionFilter,
}

impl Wanted {
    fn lists(&self) -> bool {
        self.filter.tools || self.filter.prompts || self.filter.resources
    }
}

/// The servers to listen to, each with what is wanted of it.
fn wanted(caller: &Caller, filter: &SubscriptionFilter) -> Result<Vec<Wanted>, Refusal> {
    if let Scope::Server(name) = &caller.scope {
        return Ok(vec![Wanted { server: caller.server(name)?, filter: filter.clone() }]);
    }
    let bare = SubscriptionFilter { uris: Vec::new(), ..filter.clone() };
    let servers = caller.gate.all_servers().into_iter();
    let mut wanted: Vec<_> = servers.map(|server| Wanted { server, filter: bare.clone() }).collect();
    for uri in &filter.uris {
        let routes = caller.gate.routes.read();
        let (server, inner) = routes.route(uri).map_err(|why| unknown(uri, &why.to_string()))?;
        let of_server = wanted.iter_mut().find(|w| *w.server.name() == server);
        let of_server = of_server.ok_or_else(|| unknown(uri, "its server is gone"))?;
        of_server.filter.uris.push(inner.to_owned());
    }
    if !filter.uris.is_empty() {
        wanted.retain(|w| w.lists() || !w.filter.uris.is_empty());
    }
    Ok(wanted)
}

fn unknown(uri: &str, why: &str) -> Refusal {
    let shown: String = uri.chars().take(120).collect();
    let reason = format!("{shown:?} is not known: {why}");
    Refusal::new(Step::Understand, RefusalCode::NotFound, reason).advise("List the resources first")
}

/// Takes a subscription through decision and record: that a server's lists are listened to, and
/// each resource. At the federated view servers that may not be listened to are left out, as from
/// lists; where nothing is left, it is denied.
async fn admit(
    caller: &Caller,
    request: &Request<'_>,
    bytes: &Bytes,
    wanted: &mut Vec<Wanted>,
) -> Result<Held, Stopped> {
    let mut held = Held::default();
    let mut denied = None;
    let mut kept = Vec::new();
    for mut wanted in wanted.drain(..) {
        let server = wanted.server.name().clone();
        if wanted.lists() || wanted.filter.uris.is_empty() {
            match held
                .admit(caller, request, bytes, &wanted.server, ResourceRef::Server(server.clone()))
                .await
            {
                Ok(()) => {}
                Err(Stopped::Denied(no)) if caller.scope == Scope::All => {
                    denied = Some(no);
                    wanted.filter = SubscriptionFilter { uris: wanted.filter.uris, ..Default::default() };
                    if wanted.filter.uris.is_empty() {
                        continue;
                    }
                }
                Err(stopped) => return Err(stopped),
            }
        }
        for uri in &wanted.filter.uris {
            let resource = ResourceRef::Resource { server: server.clone(), uri: uri.as_str().into() };
            held.admit(caller, request, bytes, &wanted.server, resource).await?;
        }
        kept.push(wanted);
    }
    *wanted = kept;
    match denied {
        Some(denied) if held.actions.is_empty() => Err(Stopped::Denied(denied)),
        _ => Ok(held),
    }
}

/// The permits of one stream, and for what they were given.
#[derive(Default)]
struct Held {
    actions: Vec<Action>,
    permits: Vec<Permit>,
}

/// Why a stream ends that its caller did not leave.
enum Over {
    /// The gate takes no more calls.
    Closing,
    /// The credential was revoked, or ended.
    Standing,
    /// Policies do not permit it any more.
    Denied,
}

impl Held {
    async fn admit(
        &mut self,
        caller: &Caller,
        request: &Request<'_>,
        bytes: &Bytes,
        server: &Arc<Server>,
        resource: ResourceRef,
    ) -> Result<(), Stopped> {
        let target = Target {
            server: server.clone(),
            operation: Operation::Read,
            resource,
            effect: Effect::Read,
            external: false,
            request: bytes.clone(),
            params: None,
        };
        let action = caller.action(request, &target)?;
        self.permits.push(path::admit_one(&caller.gate, action.clone()).await?);
        self.actions.push(action);
        Ok(())
    }

    fn receipt(&self) -> Option<String> {
        self.permits.first().map(|permit| permit.intent_receipt().to_owned())
    }

    /// Ends the stream when it may not go on, and records how it ended. When the caller goes first,
    /// dropping the permits records that.
    async fn until_over(self, caller: Arc<Caller>, over: CancellationToken, gone: CancellationToken) {
        let _over = over.drop_guard();
        let why = tokio::select! {
            () = gone.cancelled() => return,
            why = self.reason_to_end(&caller) => why,
        };
        let (status, code, said) = match why {
            Over::Closing => (Status::Ok, None, ""),
            Over::Standing => {
                (Status::Cancelled, Some(RefusalCode::BadCredential), "the credential was revoked, or ended")
            }
            Over::Denied => {
                (Status::Refused, Some(RefusalCode::Denied), "policies do not permit it any more")
            }
        };
        self.conclude(status, code, said).await;
    }

    async fn reason_to_end(&self, caller: &Caller) -> Over {
        let gate = &caller.gate;
        let standing = gate.standings.of(&caller.agent);
        loop {
            tokio::select! {
                biased;
                () = gate.in_flight.closing().cancelled() => return Over::Closing,
                () = standing.cancelled() => return Over::Standing,
                () = tokio::time::sleep(STILL_PERMITTED) => {}
            }
            let (engine, mode, now) = (gate.engine(), gate.mode(), gate.now());
            if !self.actions.iter().all(|action| still_permits(&engine, mode, action, now)) {
                return Over::Denied;
            }
        }
    }

    async fn conclude(self, status: Status, code: Option<RefusalCode>, said: &str) {
        for permit in self.permits {
            let code = code.map(RefusalCode::as_str);
            let ending = Ending {
                status,
                code,
                said: said.as_bytes(),
                upstream: Duration::ZERO,
                noted: Noted::default(),
            };
            if let Err(refusal) = permit.conclude(&ending).await {
                tracing::error!(%refusal, "the end of a subscription could not be recorded");
            }
        }
    }

    /// The one server that was to be listened to cannot be.
    async fn failed(
        self,
        caller: &Caller,
        request: &Request<'_>,
        error: &Unreached,
        server: &ServerName,
    ) -> Response<AnswerBody> {
        let refusal = error.refusal(server);
        let status = match refusal.code {
            RefusalCode::UpstreamTimeout => Status::Timeout,
            RefusalCode::UpstreamUnavailable | RefusalCode::UpstreamMisbehaved => Status::UpstreamFailed,
            _ => Status::Refused,
        };
        self.conclude(status, Some(refusal.code), &refusal.reason).await;
        let missing = if refusal.code == RefusalCode::NotFound { Missing::Method } else { Missing::Target };
        caller.refuse(&refusal, &RefusalContext { missing, ..caller.context(request) })
    }
}

/// Follows one server for one subscription.
struct Listener {
    gate: Arc<Gate>,
    agent: AgentName,
    server: Arc<Server>,
    filter: SubscriptionFilter,
    id: String,
    facts: ClientFacts,
    /// What was opened before the caller was answered.
    first: Option<Opened>,
}

/// Where announcements come from.
struct Opened {
    source: Source,
    /// What of the wanted the server announces.
    honoured: SubscriptionFilter,
}

enum Source {
    Stream(EventStream),
    Link(broadcast::Receiver<Bytes>),
}

impl Listener {
    async fn run(mut self, sender: mpsc::Sender<Bytes>, over: CancellationToken) {
        tokio::select! {
            () = self.keep_listening(&sender) => {}
            () = sender.closed() => {}
            () = over.cancelled() => {}
        }
    }

    /// Opens the server's announcements again whenever they end, until the server is gone for good.
    async fn keep_listening(&mut self, sender: &mpsc::Sender<Bytes>) {
        let mut again = Again::default();
        loop {
            let server = self.server.clone();
            tokio::select! {
                followed = self.follow(sender) => broke_off(&server, followed),
                () = server.gone().cancelled() => {}
            }
            again.wait(&server).await;
            match self.gate.server(self.server.name()) {
                Some(server) => self.server = server,
                None => return,
            }
        }
    }

    async fn follow(&mut self, sender: &mpsc::Sender<Bytes>) -> Result<(), Unreached> {
        let opened = match self.first.take() {
            Some(opened) => opened,
            None => self.open().await?,
        };
        match opened.source {
            Source::Stream(events) => {
                follow_events(events, &self.server, |body| self.tell(sender, &body)).await
            }
            Source::Link(mut heard) => loop {
                use broadcast::error::RecvError;
                match heard.recv().await {
                    Ok(body) => self.tell(sender, &body),
                    Err(RecvError::Lagged(missed)) => {
                        tracing::debug!(missed, "a subscriber was too slow for some announcements");
                    }
                    Err(RecvError::Closed) => return Ok(()),
                }
            },
        }
    }

    /// A session that turns out to be gone is opened again, once.
    async fn open_or_again(&self) -> Result<Opened, Unreached> {
        match self.open().await {
            Err(error) if error.retry_elsewhere() => self.open().await,
            opened => opened,
        }
    }

    async fn open(&self) -> Result<Opened, Unreached> {
        match self.server.upstream().era().await? {
            ServerEra::Legacy { .. } => self.open_link().await,
            ServerEra::Modern { .. } => {
                open_stream(&self.gate, &self.agent, &self.server, &self.facts, &self.filter).await
            }
        }
    }

    /// Subscribes at a legacy server. Only the receiver is kept: it keeps the link from idling out,
    /// and ends with it.
    async fn open_link(&self) -> Result<Opened, Unreached> {
        let link = self.gate.links.get(&self.gate, &self.agent, &self.server, Some(&self.facts)).await?;
        let heard = link.listen();
        for (number, uri) in self.filter.uris.iter().enumerate() {
            let id = format!("\"castra-subscribe-{number}\"");
            let body = format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"resources/subscribe\",\"params\":{{\"uri\":{}}}}}",
                json::quote(uri)
            );
            let out = Outgoing::request(body.into(), RequestId::from(id.as_str()));
            link.session().exchange(out).await?;
        }
        Ok(Opened { source: Source::Link(heard), honoured: self.filter.restricted_to(link.facts()) })
    }

    fn tell(&self, sender: &mpsc::Sender<Bytes>, body: &Bytes) {
        let (Ok(Message::Notification(notification)), Some(id)) =
            (mcp::parse(body, &ParseLimits::default()), Id::from_raw(&self.id))
        else {
            return;
        };
        let stamped = bridge::listen_notification(&notification, &self.filter, id);
        let shown = |stamped: Vec<u8>| Watch::new(&self.gate, None).announcement(&self.gate, stamped.into());
        if let Some(shown) = stamped.and_then(shown) {
            // A client that does not read loses announcements, not the gate its memory.
            let _ = sender.try_send(shown);
        }
    }
}

/// Waits between attempts: longer each time, until one has lasted.
struct Again {
    wait: Duration,
    since: Instant,
}

impl Default for Again {
    fn default() -> Self {
        Self { wait: AGAIN, since: Instant::now() }
    }
}

impl Again {
    /// A server that is gone is not waited for.
    async fn wait(&mut self, server: &Server) {
        if self.since.elapsed() > AGAIN_MAX {
            self.wait = AGAIN;
        }
        tokio::select! {
            () = tokio::time::sleep(self.wait) => {}
            () = server.gone().cancelled() => {}
        }
        self.wait = (self.wait * 2).min(AGAIN_MAX);
        self.since = Instant::now();
    }
}

fn broke_off(server: &Server, followed: Result<(), Unreached>) {
    if let Err(error) = followed {
        let reason = error.refusal(server.name()).reason;
        tracing::debug!(server = %server.name(), reason, "announcements broke off");
    }
}

/// Asks a modern server for its announcements, in the gate's own words: what a client added of its
/// own to the request was not understood, so it goes nowhere.
async fn open_stream(
    gate: &Gate,
    agent: &AgentName,
    server: &Arc<Server>,
    facts: &ClientFacts,
    filter: &SubscriptionFilter,
) -> Result<Opened, Unreached> {
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
    let mut events = match channel.send(out).await? {
        Answer::Events(events) => events,
        Answer::Whole { body, .. } => return Err(not_taken(&body).into()),
        Answer::Accepted => return Err(UpstreamError::NoAnswer.into()),
    };
    // Its first word says what it announces. One that keeps it back is listened to all the same.
    let first = timeout(gate.limits.connect_time_max, events.next()).await;
    let honoured = match first {
        Ok(Some(Ok(Incoming::Notification(body)))) => acknowledged(&body, filter),
        Ok(Some(Ok(Incoming::Response(body)))) => return Err(not_taken(&body).into()),
        Ok(Some(Err(error))) => return Err(error.into()),
        Ok(None) => return Err(UpstreamError::EndedEarly.into()),
        Ok(Some(Ok(Incoming::Request(_)))) => return Err(UpstreamError::UnaskedRequest.into()),
        Err(_) => None,
    };
    Ok(Opened { source: Source::Stream(events), honoured: honoured.unwrap_or_else(|| filter.clone()) })
}

/// Why a server answered instead of opening a stream.
fn not_taken(body: &Bytes) -> Refusal {
    let (code, why) = match mcp::parse(body, &ParseLimits::default()) {
        Ok(Message::Response(response)) => match response.outcome {
            Outcome::Error(error) if error.code == mcp::code::METHOD_NOT_FOUND => {
                (RefusalCode::NotFound, "it has no subscriptions".to_owned())
            }
            Outcome::Error(error) => (RefusalCode::UpstreamMisbehaved, format!("error {}", error.code)),
            Outcome::Result(_) => (RefusalCode::UpstreamMisbehaved, "it ended at once".to_owned()),
        },
        _ => (RefusalCode::UpstreamMisbehaved, "it answered nonsense".to_owned()),
    };
    Refusal::new(Step::Act, code, format!("the server does not take the subscription: {why}"))
}

/// What of a filter a server's acknowledgement names.
fn acknowledged(body: &Bytes, filter: &SubscriptionFilter) -> Option<SubscriptionFilter> {
    let Ok(Message::Notification(n)) = mcp::parse(body, &ParseLimits::default()) else { return None };
    if n.kind() != Some(NotificationKind::SubscriptionAcknowledged) {
        return None;
    }
    let named = json::get(n.text, &["params", "notifications"])?;
    let on = |name| json::get(named, &[name]) == Some("true");
    let uris: Vec<String> = json::get(named, &["resourceSubscriptions"])
        .and_then(|uris| serde_json::from_str(uris).ok())
        .unwrap_or_default();
    Some(SubscriptionFilter {
        tools: filter.tools && on("toolsListChanged"),
        prompts: filter.prompts && on("promptsListChanged"),
        resources: filter.resources && on("resourcesListChanged"),
        uris: filter.uris.iter().filter(|uri| uris.contains(uri)).cloned().collect(),
    })
}

/// Hands on what a modern server announces, until it ends the stream.
async fn follow_events(
    mut events: EventStream,
    server: &Server,
    tell: impl Fn(Bytes),
) -> Result<(), Unreached> {
    while let Some(event) = events.next().await {
        match event? {
            Incoming::Notification(body) => {
                server.heard(&body);
                tell(body);
            }
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
        let follower = Follower { gate: gate.clone(), session: Arc::downgrade(session), filter };
        let task = tokio::spawn(follower.run(server.clone(), session.closed().clone()));
        self.task = Some(task.abort_handle());
    }
}

/// Follows one modern server for one session.
struct Follower {
    gate: Arc<Gate>,
    session: std::sync::Weak<Session>,
    filter: SubscriptionFilter,
}

impl Follower {
    async fn run(self, mut server: Arc<Server>, closed: CancellationToken) {
        let mut again = Again::default();
        loop {
            tokio::select! {
                biased;
                () = closed.cancelled() => return,
                () = server.gone().cancelled() => {}
                followed = self.follow(&server) => broke_off(&server, followed),
            }
            tokio::select! {
                () = closed.cancelled() => return,
                () = again.wait(&server) => {}
            }
            match self.gate.server(server.name()) {
                Some(now) => server = now,
                None => return,
            }
        }
    }

    async fn follow(&self, server: &Arc<Server>) -> Result<(), Unreached> {
        if !server.upstream().era().await?.is_modern() {
            // What replaced it announces in the session's own session there.
            server.gone().cancelled().await;
            return Ok(());
        }
        let Some(session) = self.session.upgrade() else { return Ok(()) };
        // Asked each time that it connects: what may be used can change while the session lasts.
        if !target::may_use_some(&self.gate, session.agent(), None, server.name()) {
            return Ok(());
        }
        let (agent, facts) = (session.agent().name.clone(), session.facts());
        drop(session);
        let opened = open_stream(&self.gate, &agent, server, &facts, &self.filter).await?;
        let Source::Stream(events) = opened.source else { return Ok(()) };
        follow_events(events, server, |body| self.tell(&body)).await
    }

    fn tell(&self, body: &Bytes) {
        if let (Some(session), Ok(Message::Notification(n))) =
            (self.session.upgrade(), mcp::parse(body, &ParseLimits::default()))
            && let Some(told) = bridge::modern_notification_to_legacy(&n)
        {
            let told = told.into_owned().into();
            if let Some(told) = Watch::new(&self.gate, None).announcement(&self.gate, told) {
                session.tell(told);
            }
        }
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
