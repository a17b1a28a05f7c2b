//! Who is calling, and the way of one request from here: an action takes the path, everything else
//! is answered by what shows only what the caller may use.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use castra_core::{ActionId, AgentIdentity, Effect, Operation, Protocol, Refusal, ResourceRef};
use castra_identity::oauth;
use castra_protocol::{
    json,
    mcp::{
        self, ActionOn, ApprovalRequired, Handshake, Message, MethodKind, Missing, ParseLimits,
        RefusalContext, Request, Revision, Splice,
    },
};
use castra_store::clock;
use http::{HeaderMap, Response, StatusCode};

use super::{
    Scope, context_of_request, exchange::Exchange, handshake, list, refused, session::Session, subscribe,
    target,
};
use crate::{
    answer::{self, AnswerBody, RECEIPT},
    gate::Gate,
    inspect,
    path::{self, Stopped},
    record::{Asked, Permit},
    understand::{Action, Particulars},
};

/// An agent at an endpoint, for the time of one request.
pub(crate) struct Caller {
    pub(crate) gate: Arc<Gate>,
    pub(crate) agent: Arc<AgentIdentity>,
    pub(crate) source: IpAddr,
    pub(crate) scope: Scope,
    pub(crate) client: Client,
    /// What came with the request; of those that mirror the body only what may go on to a server.
    pub(crate) headers: HeaderMap,
}

/// How the caller speaks.
pub(crate) enum Client {
    /// Each request by itself (2026-07-28).
    Modern,
    /// Within a session (2025-11-25 and before).
    Legacy(Arc<Session>),
}

impl Caller {
    pub(crate) fn session(&self) -> Option<&Arc<Session>> {
        match &self.client {
            Client::Modern => None,
            Client::Legacy(session) => Some(session),
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.session().map_or(Revision::LATEST, |s| s.revision())
    }

    /// Answers a request whose method exists in the caller's era.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        request: &Request<'_>,
        bytes: &Bytes,
    ) -> Response<AnswerBody> {
        if let Some((operation, on)) = request.action() {
            let Some(bytes) = Self::without_own_state(request) else {
                return self.act(request, bytes, operation, on).await;
            };
            return match mcp::parse(&bytes, &ParseLimits::default()) {
                Ok(Message::Request(request)) => self.act(&request, &bytes, operation, on).await,
                _ => {
                    let refusal = Refusal::new(
                        castra_core::Step::Understand,
                        castra_core::RefusalCode::Malformed,
                        "the request could not be read without the state of the approval",
                    );
                    self.refuse(&refusal, &self.context(request))
                }
            };
        }
        match request.kind() {
            MethodKind::List(kind) => {
                self.holding_place(request, list::answer(self, request, bytes, kind)).await
            }
            // Asks nobody, and tells a client that the gate is there even when it is busy.
            MethodKind::Handshake(Handshake::Ping) => {
                handshake::answer(self, request, bytes, Handshake::Ping).await
            }
            MethodKind::Handshake(step) => {
                self.holding_place(request, handshake::answer(self, request, bytes, step)).await
            }
            MethodKind::Subscription => subscribe::answer(self, request, bytes).await,
            _ => {
                let reason = format!("{:?} is not something a client asks", request.method);
                let refusal =
                    Refusal::new(castra_core::Step::Understand, castra_core::RefusalCode::NotFound, reason);
                let context = RefusalContext { missing: Missing::Method, ..self.context(request) };
                self.refuse(&refusal, &context)
            }
        }
    }

    /// Answers what is no action: at a server of which the agent may use something, and within the
    /// number of calls that it may have in flight.
    async fn holding_place(
        &self,
        request: &Request<'_>,
        answer: impl Future<Output = Response<AnswerBody>>,
    ) -> Response<AnswerBody> {
        let may = match &self.scope {
            Scope::Server(name) => target::check_may_use_some(&self.gate, &self.agent, name),
            Scope::All => Ok(()),
        };
        match may.and_then(|()| self.gate.in_flight.enter(&self.agent.name)) {
            Ok(place) => answer::holding(answer.await, place),
            Err(refusal) => self.refuse(&refusal, &self.context(request)),
        }
    }

    /// The path of an action: understand, decide, record, act, record, answer.
    async fn act(
        self: &Arc<Self>,
        request: &Request<'_>,
        bytes: &Bytes,
        operation: Operation,
        on: ActionOn,
    ) -> Response<AnswerBody> {
        if let Some(refused) = self.lacks_scope(request, operation) {
            return refused;
        }
        if let Some(refused) = self.lacks_tasks(request) {
            return refused;
        }
        let target = match target::resolve(self, request, bytes, operation, on).await {
            Ok(target) => target,
            Err(refusal) => return self.refuse(&refusal, &self.context(request)),
        };
        let action = match self.action(request, &target) {
            Ok(action) => action,
            Err(refusal) => return self.refuse(&refusal, &self.context(request)),
        };
        let admitted = path::admit_one(&self.gate, action).await;
        self.look_again_for(&target, &admitted);
        match admitted {
            Ok(permit) => Exchange::act(self.clone(), request, target, permit).await.respond().await,
            Err(stopped) => self.stopped(request, &stopped),
        }
    }

    /// A tool that nobody has seen may be new. The decision did not wait for that: it acts, outside.
    /// Only for callers that could use it, if it were harmless, the gate looks again.
    fn look_again_for(&self, target: &target::Target, admitted: &Result<Permit, Stopped>) {
        let ResourceRef::Tool { name, .. } = &target.resource else { return };
        if target.server.knows_tool(name) {
            return;
        }
        let could = || {
            let engine = self.gate.engine.load();
            engine.may_use(&self.agent, Operation::Call, &target.resource, Effect::Read, false, false)
        };
        if admitted.is_ok() || (matches!(admitted, Err(Stopped::Denied(_))) && could()) {
            target.server.look_again();
        }
    }

    /// The refusal of a credential that has no scope for an operation.
    pub(super) fn lacks_scope(
        &self,
        request: &Request<'_>,
        operation: Operation,
    ) -> Option<Response<AnswerBody>> {
        let refusal = oauth::check_scope(&self.agent, operation).err()?;
        let response = self.refuse(&refusal, &self.context(request));
        let challenge = self.gate.resource().insufficient_scope(&self.scope.path(), operation);
        Some(answer::with_header(response, "www-authenticate", &challenge))
    }

    /// Tells why an action was not admitted.
    pub(super) fn stopped(&self, request: &Request<'_>, stopped: &Stopped) -> Response<AnswerBody> {
        let denied = match stopped {
            Stopped::Refused(refusal) => return self.refuse(refusal, &self.context(request)),
            Stopped::Denied(denied) => denied,
            Stopped::Asked(asked) => return self.asked(request, asked),
        };
        let refusal = Refusal::new(
            castra_core::Step::Decide,
            castra_core::RefusalCode::Denied,
            denied.verdict.reason.clone(),
        )
        .advise(denied.verdict.advice.clone());
        // Already on record, as the intent that was denied.
        self.gate.metrics.refusal(refusal.code);
        let context = RefusalContext {
            policies: &denied.verdict.policies,
            receipt: Some(&denied.receipt),
            ..self.context(request)
        };
        refused(&refusal, &context)
    }

    /// Tells that a person has to approve the action first. A modern client that can put a question before
    /// its person does so and tries again; the answer is no approval, and what comes back is judged anew.
    fn asked(&self, request: &Request<'_>, asked: &Asked) -> Response<AnswerBody> {
        let (refusal, expires) = (asked.question.refusal(), asked.question.expires_text());
        self.gate.metrics.refusal(refusal.code);
        let approval = ApprovalRequired { id: &asked.question.id, expires: &expires };
        let context = RefusalContext {
            approval: Some(approval),
            receipt: Some(&asked.receipt),
            ..self.context(request)
        };
        if !self.can_ask_its_person(request) {
            return refused(&refusal, &context);
        }
        let body = mcp::approval_question(request.id, &refusal, approval, &context);
        answer::with_header(answer::json(StatusCode::OK, body), RECEIPT, &asked.receipt)
    }

    /// Whether a question may stand in place of a result (2026-07-28, basic/patterns/mrtr): the client
    /// declares elicitation, and does not carry state of the server's own, which would be lost.
    fn can_ask_its_person(&self, request: &Request<'_>) -> bool {
        let declared = request.meta.client_capabilities.map_or("{}", |span| request.slice(span));
        self.session().is_none()
            && matches!(&*request.method, "tools/call" | "prompts/get" | "resources/read")
            && request.request_state.is_none()
            && json::get(declared, &["elicitation"]).is_some()
    }

    /// The request without the state and the answers that belong to a question of the gate's own, which no
    /// server is to see.
    fn without_own_state(request: &Request<'_>) -> Option<Bytes> {
        let own = request.request_state.as_ref().is_some_and(|state| state.starts_with(mcp::APPROVAL_STATE));
        own.then(|| {
            let splice = Splice::request(request).remove("requestState").remove("inputResponses");
            Bytes::from(splice.finish().into_owned())
        })
    }

    /// A modern client that did not declare the tasks extension is told so before anything else
    /// (2026-07-28, basic, error -32021).
    fn lacks_tasks(&self, request: &Request<'_>) -> Option<Response<AnswerBody>> {
        const NEEDED: &str =
            r#"{"requiredCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}}"#;
        if !request.method.starts_with("tasks/") || self.session().is_some() {
            return None;
        }
        let declared = request.meta.client_capabilities.map_or("{}", |span| request.slice(span));
        if json::get(declared, &["extensions", "io.modelcontextprotocol/tasks"]).is_some() {
            return None;
        }
        let reason = "the client does not declare the tasks extension";
        let refusal =
            Refusal::new(castra_core::Step::Understand, castra_core::RefusalCode::Malformed, reason);
        self.gate.recorder.refusal(&refusal, Some(&self.agent.name), self.source);
        let body = mcp::error_response(Some(request.id), mcp::code::MISSING_CAPABILITY, reason, Some(NEEDED));
        Some(answer::json(StatusCode::BAD_REQUEST, body))
    }

    pub(super) fn action(&self, request: &Request<'_>, target: &target::Target) -> Result<Action, Refusal> {
        let random = clock::random().map_err(|e| {
            Refusal::new(castra_core::Step::Understand, castra_core::RefusalCode::Undecided, e.to_string())
        })?;
        // Spans are of the caller's own bytes; where the name was replaced, the rest moved by the difference.
        let arguments = request.arguments.map(|span| {
            let moved = request
                .target
                .as_ref()
                .filter(|t| t.span.end <= span.start)
                .map_or(0, |_| target.request.len() as isize - request.text.len() as isize);
            span.start.saturating_add_signed(moved)..span.end.saturating_add_signed(moved)
        });
        Ok(Action {
            id: ActionId::new(self.gate.now(), random),
            agent: self.agent.clone(),
            source: self.source,
            run: self.run(request),
            protocol: Protocol::Mcp,
            revision: self.revision().as_str(),
            modern: self.session().is_none(),
            method: request.method.to_string(),
            operation: target.operation,
            resource: target.resource.clone(),
            effect: target.effect,
            external: target.external,
            request: target.request.clone(),
            arguments,
            findings: inspect::in_request(&self.gate, &target.request)?,
            particulars: Particulars::None,
            flow: None,
            part: None,
            judged_at_call: false,
            approval: None,
        })
    }

    /// Refuses in the protocol's own form, on record.
    pub(crate) fn refuse(&self, refusal: &Refusal, context: &RefusalContext<'_>) -> Response<AnswerBody> {
        self.gate.recorder.refusal(refusal, Some(&self.agent.name), self.source);
        refused(refusal, context)
    }

    pub(crate) fn context<'a>(&self, request: &'a Request<'_>) -> RefusalContext<'a> {
        RefusalContext { revision: Some(self.revision()), ..context_of_request(request) }
    }
}

impl Scope {
    /// The endpoint's path.
    pub(crate) fn path(&self) -> String {
        match self {
            Self::All => "/mcp".to_owned(),
            Self::Server(name) => format!("/mcp/{name}"),
        }
    }
}
