//! From an HTTP request to an action of its agent on a peer, and from there to the exchange.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use castra_core::{
    ActionId, AgentIdentity, Operation, PolicyMode, Protocol, Refusal, RefusalCode, ResourceRef, Step,
};
use castra_identity::oauth;
use castra_net::body::{self, BodyError};
use castra_protocol::a2a::{
    self, Binding, ErrorKind, Fault, HttpRequest, MEDIA_TYPE, Method, Notes, Request, VERSION, VERSION_HEADER,
};
use castra_store::{PeerThing, clock};
use http::{HeaderMap, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use hyper::body::Incoming;

use super::{
    Place,
    card::{GoodCard, Reached},
    exchange::{Exchange, Outgoing},
    peers::{Peer, shown},
    watch,
};
use crate::{
    answer::{self, AnswerBody, RECEIPT},
    gate::Gate,
    listen::{Connection, single},
    path::{self, Stopped},
    record::Asked,
    run,
    understand::{Action, Particulars},
};

/// One HTTP request at a peer's address.
pub(super) struct Door<'c> {
    pub(super) connection: &'c Connection,
    pub(super) agent: Arc<AgentIdentity>,
    pub(super) place: Place,
    pub(super) head: Parts,
}

/// Who calls which peer, for the time of one exchange.
pub(super) struct Caller {
    pub(super) gate: Arc<Gate>,
    pub(super) agent: Arc<AgentIdentity>,
    pub(super) source: IpAddr,
    pub(super) peer: Arc<Peer>,
    pub(super) binding: Binding,
    /// The JSON-RPC id as the caller wrote it.
    pub(super) id: Option<String>,
    pub(super) headers: HeaderMap,
}

/// What is refused, and as which of the protocol's errors.
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) kind: ErrorKind,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let kind = a2a::refusal_kind(&refusal);
        Self { refusal, kind }
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self { kind: fault.kind(), refusal: fault.refusal() }
    }
}

fn refused(kind: ErrorKind, code: RefusalCode, reason: impl Into<String>) -> Refused {
    Refused { kind, refusal: Refusal::new(Step::Understand, code, reason) }
}

impl Door<'_> {
    /// The rewritten card, for agents that may send to the peer.
    pub(super) fn card(self) -> Response<AnswerBody> {
        let gate = self.connection.gate();
        if self.head.method != http::Method::GET {
            return answer::empty(StatusCode::METHOD_NOT_ALLOWED);
        }
        let peer = gate.peers.get(&self.place.peer).filter(|peer| may_send(gate, &self.agent, peer));
        let Some(peer) = peer else { return self.no_such_peer() };
        match peer.card() {
            Ok(good) => answer::json(StatusCode::OK, shown(gate, &peer, &good, &good.card).to_json()),
            Err(refusal) => {
                self.connection.refuse(StatusCode::SERVICE_UNAVAILABLE, &refusal, Some(&self.agent.name))
            }
        }
    }

    /// Any other request: an operation of the protocol.
    pub(super) async fn operation(self, body: Incoming) -> Response<AnswerBody> {
        let gate = self.connection.gate().clone();
        let Some(peer) = gate.peers.get(&self.place.peer) else { return self.no_such_peer() };
        let binding = if self.place.rest.is_empty() { Binding::JsonRpc } else { Binding::HttpJson };
        if binding == Binding::JsonRpc && self.head.method != http::Method::POST {
            let reason = format!("{} is not a method of this endpoint", self.head.method);
            let refusal = Refusal::new(Step::Listen, RefusalCode::NotAllowedHere, reason);
            let response =
                self.connection.refuse(StatusCode::METHOD_NOT_ALLOWED, &refusal, Some(&self.agent.name));
            return answer::with_header(response, "allow", "POST");
        }
        let Self { connection, agent, place, head } = self;
        let mut caller = Caller {
            source: connection.peer().address.ip(),
            gate,
            agent,
            peer,
            binding,
            id: None,
            headers: HeaderMap::new(),
        };
        let bytes =
            match body::read(body, caller.gate.limits.body_bytes_max, caller.gate.limits.body_time_max).await
            {
                Ok(bytes) => bytes,
                Err(error) => return caller.refuse(&body_refusal(&error)),
            };
        if let Err(refused) = declared_as_json(&head, &bytes) {
            return caller.refuse(&refused);
        }
        let (path, query) = (place.rest.as_str(), head.uri.query());
        let http = HttpRequest { method: head.method.as_str(), path, query, body: &bytes };
        let depth_max = caller.gate.limits.json_depth_max;
        let parsed = match binding {
            Binding::HttpJson => a2a::parse_http(&http, depth_max),
            Binding::JsonRpc => a2a::parse_rpc(&bytes, depth_max).map_err(|at| {
                caller.id = at.id.map(str::to_owned);
                at.fault
            }),
        };
        // A client of another version learns that first: its request has other names.
        let parsed = spoken(&head.headers, &http).and(parsed);
        caller.headers = head.headers;
        match parsed {
            Ok(request) => {
                caller.id = request.id.map(str::to_owned);
                caller.call(&request, &bytes).await
            }
            Err(fault) => caller.refuse(&fault.into()),
        }
    }

    fn no_such_peer(&self) -> Response<AnswerBody> {
        let reason = format!("there is no peer {} for agent {}", self.place.peer, self.agent.name);
        let refusal = Refusal::new(Step::Understand, RefusalCode::NotFound, reason).advise(
            "castra peer list shows the peers; castra.toml names them, and policies say who may send",
        );
        self.connection.refuse(StatusCode::NOT_FOUND, &refusal, Some(&self.agent.name))
    }
}

/// Whether an agent may send anything at all to a peer.
fn may_send(gate: &Gate, agent: &AgentIdentity, peer: &Peer) -> bool {
    let resource = ResourceRef::Peer(peer.parts.name.clone());
    let effect = Method::SendMessage.effect();
    gate.engine.load().may_use(agent, Operation::Send, &resource, effect, true, false)
}

fn spoken(headers: &HeaderMap, http: &HttpRequest<'_>) -> Result<(), Fault> {
    let header = single(headers, VERSION_HEADER).map_err(|()| Fault::Version("twice".to_owned()))?;
    a2a::check_version(header, http.version()?.as_deref())
}

fn declared_as_json(head: &Parts, body: &Bytes) -> Result<(), Refused> {
    let declared = head.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let essence = declared.and_then(|value| value.split(';').next()).map(str::trim).unwrap_or_default();
    let good = ["application/json", MEDIA_TYPE].iter().any(|good| essence.eq_ignore_ascii_case(good));
    if good || body.is_empty() {
        return Ok(());
    }
    let mut refused = refused(
        ErrorKind::ContentTypeNotSupported,
        RefusalCode::NotAllowedHere,
        "the body is not declared as JSON",
    );
    refused.refusal = refused.refusal.advise("Send Content-Type: application/json");
    Err(refused)
}

fn body_refusal(error: &BodyError) -> Refused {
    let (kind, code) = match error {
        BodyError::TooLarge { .. } => (ErrorKind::TooLarge, RefusalCode::LimitReached),
        BodyError::TooSlow { .. } => (ErrorKind::InvalidRequest, RefusalCode::LimitReached),
        BodyError::Broken { .. } => (ErrorKind::InvalidRequest, RefusalCode::Malformed),
    };
    refused(kind, code, error.to_string())
}

impl Caller {
    /// The path of an action: understand, inspect, decide, record, act, inspect, record, answer.
    async fn call(self, request: &Request<'_>, bytes: &Bytes) -> Response<AnswerBody> {
        let caller = Arc::new(self);
        let (action, target) = match caller.understand(request, bytes).await {
            Ok(understood) => understood,
            Err(refused) => return caller.refuse(&refused),
        };
        let id = action.id.to_string();
        let permit = match path::admit_one(&caller.gate, action).await {
            Ok(permit) => permit,
            Err(stopped) => return caller.stopped(&stopped),
        };
        let Some(Target { card, interface }) = target else {
            // Policies changed between the two looks at them; dropped, the permit records that nothing was done.
            let reason = "the policies changed while the request was decided";
            return caller.refuse(&refused(ErrorKind::Unavailable, RefusalCode::Undecided, reason));
        };
        let outgoing = Outgoing::new(&caller, request, bytes, &interface, &id);
        Exchange::new(caller, request, card, permit).act(outgoing).await
    }

    /// The action, and where it goes. Whoever may not send to the peer at all learns nothing of it: there
    /// the decision refuses, on record, and there is no target.
    async fn understand(
        &self,
        request: &Request<'_>,
        bytes: &Bytes,
    ) -> Result<(Action, Option<Target>), Refused> {
        oauth::check_scope(&self.agent, Operation::Send)?;
        let action = self.action(request, bytes)?;
        if self.gate.mode() == PolicyMode::Enforce && !may_send(&self.gate, &self.agent, &self.peer) {
            return Ok((action, None));
        }
        let card = self.peer.card()?;
        let interface = self.interface(&card, request)?;
        self.check_push(&card, request)?;
        self.check_owner(request).await?;
        Ok((action, Some(Target { card, interface })))
    }

    fn interface(&self, card: &GoodCard, request: &Request<'_>) -> Result<Reached, Refused> {
        card.interface(self.binding, request.tenant.as_deref()).cloned().ok_or_else(|| {
            let tenant = request.tenant.as_ref().map(|t| format!(" for tenant {t}")).unwrap_or_default();
            let reason =
                format!("peer {} has no {} interface{tenant}", self.peer.parts.name, self.binding.as_str());
            let mut refused = refused(ErrorKind::UnsupportedOperation, RefusalCode::NotFound, reason);
            refused.refusal = refused.refusal.advise("Its card at the gate lists what it has");
            refused
        })
    }

    /// Notifications leave the peer without passing the gate, so they go only where the operator allows.
    fn check_push(&self, card: &GoodCard, request: &Request<'_>) -> Result<(), Refused> {
        let asks = request.method.is_about_push() || !request.push_urls.is_empty();
        if !asks {
            return Ok(());
        }
        if self.peer.parts.push.is_empty() || !card.card.offers_push() {
            let reason = format!("peer {} sends no notifications through this gate", self.peer.parts.name);
            return Err(refused(
                ErrorKind::PushNotificationNotSupported,
                RefusalCode::NotAllowedHere,
                reason,
            ));
        }
        match request.push_urls.iter().find(|url| !self.peer.parts.may_notify(url)) {
            None => Ok(()),
            Some(url) => {
                let url: String = url.chars().take(200).collect();
                let reason = format!("peer {} may not send notifications to {url}", self.peer.parts.name);
                let mut refused = refused(ErrorKind::InvalidParams, RefusalCode::NotAllowedHere, reason);
                refused.refusal =
                    refused.refusal.advise("The operator allows addresses with push of [[peer]]");
                Err(refused)
            }
        }
    }

    /// Tasks are good for the agent that they were made for, and so are conversations once they are begun.
    async fn check_owner(&self, request: &Request<'_>) -> Result<(), Refused> {
        let (peer, owners) = (&self.peer.parts.name, &self.gate.peers.owners);
        for task in request.task.iter().chain(&request.references) {
            if owners.of(peer, PeerThing::Task, task).await?.as_ref() != Some(&self.agent.name) {
                let reason = format!("there is no task {task} of agent {} at peer {peer}", self.agent.name);
                return Err(refused(ErrorKind::TaskNotFound, RefusalCode::NotFound, reason));
            }
        }
        let Some(context) = &request.context else { return Ok(()) };
        let owner = if request.method.sends() {
            let now = self.gate.now();
            Some(owners.claim(peer, PeerThing::Context, context, &self.agent.name, now).await?)
        } else {
            owners.of(peer, PeerThing::Context, context).await?
        };
        match owner {
            Some(owner) if owner != self.agent.name => {
                let reason =
                    format!("conversation {context} at peer {peer} is not one of agent {}", self.agent.name);
                Err(refused(ErrorKind::InvalidParams, RefusalCode::NotFound, reason))
            }
            _ => Ok(()),
        }
    }

    fn action(&self, request: &Request<'_>, bytes: &Bytes) -> Result<Action, Refusal> {
        let random = clock::random()
            .map_err(|e| Refusal::new(Step::Understand, RefusalCode::Undecided, e.to_string()))?;
        let said = match self.binding {
            Binding::JsonRpc => bytes.clone(),
            Binding::HttpJson => {
                let (method, target) = request.http_target();
                let body = if bytes.is_empty() { "null" } else { request.text };
                let target = castra_protocol::json::quote(&format!("{method} {target}"));
                Bytes::from(format!("{{\"http\":{target},\"body\":{body}}}"))
            }
        };
        Ok(Action {
            id: ActionId::new(self.gate.now(), random),
            agent: self.agent.clone(),
            source: self.source,
            run: run::named(&self.headers).or_else(|| run::chosen(request.context.as_deref()?)),
            protocol: Protocol::A2a,
            revision: VERSION,
            modern: true,
            method: request.method.as_str().to_owned(),
            operation: Operation::Send,
            resource: ResourceRef::Peer(self.peer.parts.name.clone()),
            effect: request.method.effect(),
            external: true,
            request: said,
            arguments: None,
            findings: watch::in_request(&self.gate, request)?,
            particulars: Particulars::Message {
                method: request.method.as_str().to_owned(),
                media: request.media,
            },
            flow: None,
            part: None,
            judged_at_call: false,
            approval: None,
        })
    }

    /// Tells why an action was not admitted.
    fn stopped(&self, stopped: &Stopped) -> Response<AnswerBody> {
        let denied = match stopped {
            Stopped::Refused(refusal) => return self.refuse(&refusal.clone().into()),
            Stopped::Denied(denied) => denied,
            Stopped::Asked(asked) => return self.asked(asked),
        };
        let refusal = Refusal::new(Step::Decide, RefusalCode::Denied, denied.verdict.reason.clone())
            .advise(denied.verdict.advice.clone());
        // Already on record, as the intent that was denied.
        self.gate.metrics.refusal(refusal.code);
        let notes =
            Notes { policies: &denied.verdict.policies, receipt: Some(&denied.receipt), ..Notes::default() };
        let response = self.tell(ErrorKind::Denied, &refusal, &notes);
        answer::with_header(response, RECEIPT, &denied.receipt)
    }

    /// Tells that a person has to approve the message first; already on record.
    fn asked(&self, asked: &Asked) -> Response<AnswerBody> {
        let (refusal, expires) = (asked.question.refusal(), asked.question.expires_text());
        self.gate.metrics.refusal(refusal.code);
        let notes = Notes {
            receipt: Some(&asked.receipt),
            approval: Some((&asked.question.id, &expires)),
            ..Notes::default()
        };
        let response = self.tell(ErrorKind::Denied, &refusal, &notes);
        answer::with_header(response, RECEIPT, &asked.receipt)
    }

    /// Refuses in the protocol's own form, on record.
    fn refuse(&self, refused: &Refused) -> Response<AnswerBody> {
        self.gate.recorder.refusal(&refused.refusal, Some(&self.agent.name), self.source);
        self.tell(refused.kind, &refused.refusal, &Notes::default())
    }

    /// An error as a response.
    pub(super) fn tell(&self, kind: ErrorKind, refusal: &Refusal, notes: &Notes<'_>) -> Response<AnswerBody> {
        let notes = Notes { retry_secs: refusal.retry_secs(), ..*notes };
        let body = a2a::error_body(self.binding, self.id.as_deref(), kind, refusal, &notes);
        let status = StatusCode::from_u16(kind.status(self.binding)).unwrap_or(StatusCode::BAD_REQUEST);
        answer::retry_header(answer::json(status, body), refusal)
    }
}

/// Where an admitted action goes.
struct Target {
    card: Arc<GoodCard>,
    interface: Reached,
}
