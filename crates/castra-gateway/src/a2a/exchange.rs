//! One exchange with a peer: out with the gate's own credential, back checked, inspected and recorded.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use castra_core::{Refusal, RefusalCode, Step};
use castra_ledger::Status;
use castra_net::{
    body::{self, BodyError},
    client::ClientError,
};
use castra_protocol::a2a::{
    self, AgentCard, Answer, Binding, EXTENSIONS_HEADER, Ids, MEDIA_TYPE, Method, Notes, Request, VERSION,
    VERSION_HEADER,
};
use castra_store::PeerThing;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method as HttpMethod, Response, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    call::{Caller, Refused},
    card::{self, GoodCard, Reached},
    peers::{DelegationCarrier, shown},
    stream,
    watch::Watch,
};
use crate::{
    answer::{self, AnswerBody, INSPECTION, RECEIPT},
    record::{Ending, Permit},
    run,
};

/// The header with the gate's word of who acts, and for whom.
const DELEGATION: HeaderName = HeaderName::from_static("castra-delegation");
/// What of the caller's headers goes on: extensions of A2A, and the trace.
const PASSING: [&str; 3] = [EXTENSIONS_HEADER, "traceparent", "tracestate"];

/// A request as it goes to the peer.
pub(super) struct Outgoing {
    method: HttpMethod,
    url: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Outgoing {
    /// The caller's request at the peer's address. Nothing of the caller's credential goes along.
    pub(super) fn new(
        caller: &Caller,
        request: &Request<'_>,
        bytes: &Bytes,
        interface: &Reached,
        action: &str,
    ) -> Self {
        let base = interface.url.to_string();
        let base = base.trim_end_matches('/');
        let (method, url, body) = match request.binding {
            Binding::JsonRpc => ("POST", interface.url.to_string(), bytes.clone()),
            Binding::HttpJson => {
                let (method, target) = request.http_target();
                let body = if method == "POST" { bytes.clone() } else { Bytes::new() };
                (method, format!("{base}{target}"), body)
            }
        };
        let method = HttpMethod::from_bytes(method.as_bytes()).unwrap_or(HttpMethod::POST);
        Self { method, url, headers: headers(caller, request, &body, base, action), body }
    }

    fn into_request(self) -> Option<http::Request<Full<Bytes>>> {
        let mut request = http::Request::new(Full::new(self.body));
        *request.uri_mut() = self.url.parse::<Uri>().ok()?;
        *request.method_mut() = self.method;
        *request.headers_mut() = self.headers;
        Some(request)
    }
}

fn headers(caller: &Caller, request: &Request<'_>, body: &Bytes, base: &str, action: &str) -> HeaderMap {
    let parts = &caller.peer.parts;
    let mut headers = HeaderMap::new();
    for name in PASSING {
        for value in caller.headers.get_all(name) {
            headers.append(HeaderName::from_static(name), value.clone());
        }
    }
    headers.insert(HeaderName::from_static(VERSION_HEADER), HeaderValue::from_static(VERSION));
    let accept = match (request.method.streams(), request.binding) {
        (true, _) => "text/event-stream, application/json",
        (false, Binding::JsonRpc) => "application/json",
        (false, Binding::HttpJson) => "application/a2a+json, application/json",
    };
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    if !body.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    for (name, value) in &parts.headers {
        headers.insert(name, value.clone());
    }
    if parts.delegation != DelegationCarrier::Off {
        let audience = parts.audience.as_deref().unwrap_or(base);
        let token = caller.gate.peers.minter.mint(&caller.agent, audience, action, caller.gate.now());
        let (name, value) = match parts.delegation {
            DelegationCarrier::Authorization => (AUTHORIZATION, format!("Bearer {token}")),
            DelegationCarrier::Header | DelegationCarrier::Off => (DELEGATION, token),
        };
        if let Ok(mut value) = HeaderValue::from_str(&value) {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    headers
}

/// An exchange that may happen.
pub(super) struct Exchange {
    pub(super) caller: Arc<Caller>,
    pub(super) method: Method,
    /// The task that was asked about.
    task: Option<String>,
    card: Arc<GoodCard>,
    permit: Permit,
    pub(super) watch: Watch,
    /// Tasks and conversations that were seen to be the caller's.
    owned: Vec<(PeerThing, String)>,
    pub(super) began: Instant,
    /// Ends with the credential that opened it.
    pub(super) standing: CancellationToken,
}

impl Exchange {
    pub(super) fn new(
        caller: Arc<Caller>,
        request: &Request<'_>,
        card: Arc<GoodCard>,
        permit: Permit,
    ) -> Self {
        let watch = Watch::new(&caller.gate, permit.inspect(), caller.binding, caller.id.clone());
        let task = request.task.as_deref().map(str::to_owned);
        let standing = caller.gate.standings.of(&caller.agent);
        let method = request.method;
        Self { caller, method, task, card, permit, watch, owned: Vec::new(), began: Instant::now(), standing }
    }

    /// Steps act to answer.
    pub(super) async fn act(self, outgoing: Outgoing) -> Response<AnswerBody> {
        let deadline = self.began + self.caller.gate.limits.call_time_max;
        let Some(request) = outgoing.into_request() else {
            return self.fail(misbehaved("the address in its card leads nowhere")).await;
        };
        let standing = self.standing.clone();
        let response = tokio::select! {
            response = timeout_at(deadline, self.caller.peer.parts.client.send(request)) => response,
            () = standing.cancelled() => return self.fail(cut_off()).await,
        };
        match response {
            Ok(Ok(response)) => self.answered(response, deadline).await,
            Ok(Err(error)) => {
                let failure = unreachable(&error);
                self.fail(failure).await
            }
            Err(_) => {
                let failure = late(self.caller.gate.limits.call_time_max);
                self.fail(failure).await
            }
        }
    }

    async fn answered(mut self, response: Response<Incoming>, deadline: Instant) -> Response<AnswerBody> {
        let (head, body) = response.into_parts();
        match head.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                // The gate's own credential: the caller can do nothing about it.
                let name = &self.caller.peer.parts.name;
                tracing::warn!(peer = %name, status = %head.status, "a peer does not take the gate's credential");
                let reason = format!("the peer does not take the gate's credential ({})", head.status);
                return self.fail(failure(RefusalCode::UpstreamUnavailable, reason)).await;
            }
            status if status.is_redirection() => {
                return self
                    .fail(misbehaved(format!("it answered {status}, and redirects are not followed")))
                    .await;
            }
            _ => {}
        }
        let media = media_type(&head.headers);
        if self.method.streams()
            && head.status.is_success()
            && media.eq_ignore_ascii_case("text/event-stream")
        {
            return stream::respond(self, &head.headers, body);
        }
        let limits = self.caller.gate.limits.clone();
        let left = deadline.saturating_duration_since(Instant::now());
        let standing = self.standing.clone();
        let bytes = tokio::select! {
            bytes = body::read(body, limits.answer_bytes_max, left) => bytes,
            () = standing.cancelled() => return self.fail(cut_off()).await,
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return self.fail(unreadable(&error)).await,
        };
        match self.whole(head.status, &bytes).await {
            Ok(Whole { body, error }) => self.finish(&head, body, error).await,
            Err(failure) => self.fail(failure).await,
        }
    }

    /// Checks a whole answer and makes of it what the caller may see.
    async fn whole(&mut self, status: StatusCode, bytes: &Bytes) -> Result<Whole, Failure> {
        let (binding, id) = (self.caller.binding, self.caller.id.clone());
        let depth_max = self.caller.gate.limits.json_depth_max;
        let is_error = a2a::read_error(binding, id.as_deref(), bytes, depth_max).is_ok();
        if is_error && (binding == Binding::JsonRpc || !status.is_success()) {
            let body = self.watch.answer(&self.caller.gate, Method::SendMessage, bytes.clone())?;
            return Ok(Whole { body, error: true });
        }
        if !status.is_success() {
            return Err(misbehaved(format!("it answered {status} without an error of the protocol")));
        }
        let answer = a2a::read_answer(binding, self.method, id.as_deref(), bytes, depth_max)
            .map_err(|fault| misbehaved(format!("its answer is not one of the protocol: {fault}")))?;
        let body = match self.method {
            Method::ListTasks => self.own_tasks(&answer).await?.map_or_else(|| bytes.clone(), Bytes::from),
            Method::GetExtendedAgentCard => self.rewritten(&answer).await?,
            _ => {
                for ids in &answer.ids {
                    self.check_ids(ids).await?;
                }
                bytes.clone()
            }
        };
        Ok(Whole { body: self.watch.answer(&self.caller.gate, self.method, body)?, error: false })
    }

    /// A list with the caller's own tasks only; none if it has no others.
    async fn own_tasks(&self, answer: &Answer<'_>) -> Result<Option<String>, Failure> {
        let (peer, owners) = (&self.caller.peer.parts.name, &self.caller.gate.peers.owners);
        let mut own = Vec::with_capacity(answer.ids.len());
        for task in answer.ids.iter().filter_map(|ids| ids.task.as_deref()) {
            if owners.of(peer, PeerThing::Task, task).await?.as_ref() == Some(&self.caller.agent.name) {
                own.push(task);
            }
        }
        Ok(answer.keep_tasks(|ids| ids.task.as_deref().is_some_and(|task| own.contains(&task))))
    }

    /// Another card of the peer leads to the gate as well.
    async fn rewritten(&self, answer: &Answer<'_>) -> Result<Bytes, Failure> {
        let Caller { gate, peer, .. } = &*self.caller;
        let bad = |why: String| misbehaved(format!("its card does not count: {why}"));
        let text = answer.result.of(answer.text);
        let card = AgentCard::parse(text.as_bytes()).map_err(|e| bad(e.to_string()))?;
        card::check_signature(&peer.parts, &gate.limits, &card).await.map_err(|e| bad(e.to_string()))?;
        let shown = shown(gate, peer, &self.card, &card).to_json();
        let (before, after) = (answer.text.get(..answer.result.start), answer.text.get(answer.result.end..));
        Ok(Bytes::from([before.unwrap_or_default(), &shown, after.unwrap_or_default()].concat()))
    }

    /// A peer answers with what is the caller's: what was asked about, or what it makes for a message.
    pub(super) async fn check_ids(&mut self, ids: &Ids<'_>) -> Result<(), Failure> {
        for (thing, id) in [(PeerThing::Task, &ids.task), (PeerThing::Context, &ids.context)] {
            let Some(id) = id.as_deref() else { continue };
            let known = (thing == PeerThing::Task && self.task.as_deref() == Some(id))
                || self.owned.iter().any(|(t, known)| *t == thing && known == id);
            if known {
                continue;
            }
            let asked = thing == PeerThing::Task && !self.method.sends();
            if asked || !self.claim(thing, id).await? {
                let what = if thing == PeerThing::Task { "task" } else { "conversation" };
                return Err(misbehaved(format!("it answered with a {what} that is not the caller's")));
            }
            self.owned.push((thing, id.to_owned()));
        }
        Ok(())
    }

    async fn claim(&self, thing: PeerThing, id: &str) -> Result<bool, Failure> {
        let Caller { gate, peer, agent, .. } = &*self.caller;
        let owner = gate.peers.owners.claim(&peer.parts.name, thing, id, &agent.name, gate.now()).await?;
        Ok(owner == agent.name)
    }

    /// Records the outcome of a whole answer and gives it back.
    async fn finish(self, head: &http::response::Parts, body: Bytes, error: bool) -> Response<AnswerBody> {
        self.permit.received(&texts(&body));
        let status = if error { Status::Error } else { Status::Ok };
        let code = error.then(|| head.status.as_str());
        let ending =
            Ending { status, code, said: &body, upstream: self.began.elapsed(), noted: self.watch.noted() };
        let receipt = match self.permit.conclude(&ending).await {
            Ok(receipt) => receipt,
            Err(refusal) => return told(&self.caller, &refusal.into(), None),
        };
        let mut response = answer::json(head.status, body);
        if self.caller.binding == Binding::HttpJson
            && media_type(&head.headers).eq_ignore_ascii_case(MEDIA_TYPE)
        {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        }
        marked(response, &head.headers, &self.watch, &receipt)
    }

    /// Records a failure and tells it in the protocol's own form.
    async fn fail(self, failure: Failure) -> Response<AnswerBody> {
        let (caller, receipt) = self.failed(&failure, b"").await;
        told(&caller, &failure.refused(&caller), receipt.as_deref())
    }

    /// Records a failure after what was `said`; gives the receipt, unless that could not be done.
    pub(super) async fn failed(self, failure: &Failure, said: &[u8]) -> (Arc<Caller>, Option<String>) {
        let ending = Ending {
            status: failure.status,
            code: Some(failure.refusal.code.as_str()),
            said,
            upstream: self.began.elapsed(),
            noted: self.watch.noted(),
        };
        let receipt = self.permit.conclude(&ending).await.ok();
        self.caller.gate.metrics.refusal(failure.refusal.code);
        (self.caller, receipt)
    }

    /// The receipt of the intent, for answers that begin before their outcome is known.
    pub(super) fn intent_receipt(&self) -> &str {
        self.permit.intent_receipt()
    }

    /// What the caller will see was said.
    pub(super) fn received(&self, data: &str) {
        self.permit.received(&texts(data.as_bytes()));
    }

    /// An event leaves for the caller when the run cannot lose what it says.
    pub(super) async fn heard(&self, data: &str) -> Result<(), Refusal> {
        self.received(data);
        self.permit.settle().await
    }

    /// Records the outcome of a stream; gives the receipt.
    pub(super) async fn concluded(self, said: &[u8], error: bool) -> Result<String, Refusal> {
        let status = if error { Status::Error } else { Status::Ok };
        let ending =
            Ending { status, code: None, said, upstream: self.began.elapsed(), noted: self.watch.noted() };
        self.permit.conclude(&ending).await
    }
}

/// A whole answer as the caller may see it.
struct Whole {
    body: Bytes,
    error: bool,
}

/// What went wrong after the action was admitted.
pub(super) struct Failure {
    status: Status,
    refusal: Refusal,
}

impl Failure {
    pub(super) fn refused(&self, caller: &Caller) -> Refused {
        let mut refusal = self.refusal.clone();
        refusal.reason = format!("peer {}: {}", caller.peer.parts.name, refusal.reason);
        refusal.into()
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code {
            RefusalCode::UpstreamMisbehaved | RefusalCode::UpstreamUnavailable => Status::UpstreamFailed,
            RefusalCode::UpstreamTimeout => Status::Timeout,
            RefusalCode::Cancelled => Status::Cancelled,
            _ => Status::Refused,
        };
        Self { status, refusal }
    }
}

/// What a peer says, as text that strangers may have written.
fn texts(body: &[u8]) -> String {
    serde_json::from_slice(body)
        .map_or_else(|_| String::from_utf8_lossy(body).into_owned(), |value| run::leaves(&value))
}

fn failure(code: RefusalCode, reason: impl Into<String>) -> Failure {
    Refusal::new(Step::Act, code, reason).into()
}

pub(super) fn misbehaved(reason: impl Into<String>) -> Failure {
    failure(RefusalCode::UpstreamMisbehaved, reason)
}

pub(super) fn late(after: Duration) -> Failure {
    failure(RefusalCode::UpstreamTimeout, format!("it did not answer within {} seconds", after.as_secs()))
}

/// The credential that opened the exchange counts no more, or the gate closes.
pub(super) fn cut_off() -> Failure {
    failure(
        RefusalCode::Cancelled,
        "the exchange was cut off: the credential that opened it ended, or the gate closes",
    )
}

fn unreachable(error: &ClientError) -> Failure {
    failure(RefusalCode::UpstreamUnavailable, error.to_string())
}

fn unreadable(error: &BodyError) -> Failure {
    let code = match error {
        BodyError::TooLarge { .. } | BodyError::Broken { .. } => RefusalCode::UpstreamMisbehaved,
        BodyError::TooSlow { .. } => RefusalCode::UpstreamTimeout,
    };
    failure(code, format!("its answer cannot be read: {error}"))
}

/// An error as a response, with the receipt of its record.
fn told(caller: &Caller, refused: &Refused, receipt: Option<&str>) -> Response<AnswerBody> {
    let notes = Notes { receipt, ..Notes::default() };
    let response = caller.tell(refused.kind, &refused.refusal, &notes);
    match receipt {
        Some(receipt) => answer::with_header(response, RECEIPT, receipt),
        None => response,
    }
}

/// What every answer of a peer bears: its extensions, the receipt, and whether it was inspected.
pub(super) fn marked(
    mut response: Response<AnswerBody>,
    theirs: &HeaderMap,
    watch: &Watch,
    receipt: &str,
) -> Response<AnswerBody> {
    for value in theirs.get_all(EXTENSIONS_HEADER) {
        response.headers_mut().append(HeaderName::from_static(EXTENSIONS_HEADER), value.clone());
    }
    if watch.passes() {
        response = answer::with_header(response, INSPECTION, "none");
    }
    answer::with_header(response, RECEIPT, receipt)
}

fn media_type(headers: &HeaderMap) -> &str {
    let text = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
}

/// The error that ends a stream, as the data of an event.
pub(super) fn error_data(caller: &Caller, failure: &Failure, receipt: Option<&str>) -> String {
    let Refused { refusal, kind } = failure.refused(caller);
    let notes = Notes { receipt, ..Notes::default() };
    a2a::error_body(caller.binding, caller.id.as_deref(), kind, &refusal, &notes)
}
