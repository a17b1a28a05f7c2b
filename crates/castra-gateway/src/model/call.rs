//! Who is asking, and the way of one request from here: understood, inspected, routed, reserved and
//! admitted, or refused in the caller's own form.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use castra_core::{
    ActionId, AgentIdentity, Effect, ModelName, Operation, Refusal, RefusalCode, ResourceRef, RunId, Step,
    StreamMode,
};
use castra_identity::oauth;
use castra_protocol::{
    mcp::ApprovalRequired,
    model::{Api, Brought, ModelError, ModelLimits, RefusalNotes, Request, parse_request},
};
use castra_store::clock;
use http::{HeaderMap, Response};

use super::{
    ENDPOINT,
    attempts::Attempts,
    exchange::{Candidate, Exchange},
    list::no_such_model,
    refused,
    routes::Asker,
    tools::{Judge, Offered},
    version::Version,
    watch::{Seen, Watch},
};
use crate::{
    answer::{self, AnswerBody},
    budget::{BudgetAsk, Priced, Reservation, Tokens},
    gate::Gate,
    path::{self, Stopped},
    record::{Asked, Denied, Permit},
    run,
    understand::{Action, Particulars},
};

/// The revision of both APIs that callers speak; what changes within is told in headers.
pub(super) const REVISION: &str = "v1";

/// An agent that asks a model, for the time of one request.
pub(crate) struct Caller {
    pub(crate) gate: Arc<Gate>,
    pub(crate) agent: Arc<AgentIdentity>,
    pub(crate) source: IpAddr,
    pub(crate) api: Api,
    pub(crate) headers: HeaderMap,
}

/// Why a request does not become a permitted action.
enum Stop {
    Refused(Refusal),
    /// The request cannot be read or passed on; the error may name the field.
    Request(ModelError),
    Denied(Denied),
    Asked(Asked),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ModelError> for Stop {
    fn from(error: ModelError) -> Self {
        Self::Request(error)
    }
}

impl From<Stopped> for Stop {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Refused(refusal) => Self::Refused(refusal),
            Stopped::Denied(denied) => Self::Denied(denied),
            Stopped::Asked(asked) => Self::Asked(asked),
        }
    }
}

impl Caller {
    /// Answers a request with this body.
    pub(super) async fn answer(self: &Arc<Self>, body: Bytes) -> Response<AnswerBody> {
        match self.ask(body).await {
            Ok(response) => response,
            Err(stop) => self.stopped(&stop),
        }
    }

    /// The path of an action: understand, inspect, route, reserve, decide, record, act.
    async fn ask(self: &Arc<Self>, body: Bytes) -> Result<Response<AnswerBody>, Stop> {
        oauth::check_scope(&self.agent, Operation::Complete)?;
        let limits = ModelLimits::from(&*self.gate.limits);
        let request = parse_request(self.api, &body, &limits)?;
        let brought = request.brought()?;
        let watch = Watch::new(&self.gate, &brought);
        let Seen { masked, kinds } = watch.request(&body)?;
        // What is masked stays as it was otherwise, so this reads the same request once more.
        let (request, brought) = match &masked {
            Some(masked) => {
                let request = parse_request(self.api, masked, &limits)?;
                let brought = request.brought()?;
                (request, brought)
            }
            None => (request, brought),
        };
        let run = self.run(&request, &brought);
        let (route, attempts) = self.route(&request, run.as_ref())?;
        let action = self.action(&request, route.clone(), run, kinds, &body)?;
        let candidates = self.priced(&attempts);
        let reservation = self.reserve(&request, &route, &candidates).await?;
        let (run, offered) = (action.run.clone(), offered(&request, &action)?);
        let permit = match path::admit(&self.gate, action).await {
            Ok(permit) => permit,
            Err(stopped) => {
                reservation.release();
                return Err(stopped.into());
            }
        };
        if let Err(refusal) = self.tell_run(&permit, &brought, &offered).await {
            reservation.release();
            return Err(refusal.into());
        }
        let watch = watch.answers_in(self.mode(&attempts, &permit));
        let judge = Judge::new(self.clone(), run, offered, watch.clone());
        let exchange = Exchange::new(self.clone(), judge, route, watch, candidates, permit, reservation);
        Ok(exchange.act(&request, attempts).await)
    }

    /// How the answer is inspected: as a policy that permitted says, else the route, else the configuration.
    fn mode(&self, attempts: &Attempts, permit: &Permit) -> Option<StreamMode> {
        match self.api {
            Api::Chat | Api::Responses | Api::Messages => {
                permit.inspect().or_else(|| attempts.route().inspection())
            }
            // Numbers, in which nothing can be found and everything could be broken.
            Api::Embeddings | Api::CountTokens => Some(StreamMode::Pass),
        }
    }

    /// The run that a request belongs to: named by the agent, else its trace, else its conversation.
    fn run(&self, request: &Request<'_>, brought: &[Brought<'_>]) -> Option<RunId> {
        run::named(&self.headers).or_else(|| self.conversation(request, brought))
    }

    /// Which versions of which model are asked, in order.
    fn route(&self, request: &Request<'_>, run: Option<&RunId>) -> Result<(ModelName, Attempts), Refusal> {
        let name = ModelName::new(&request.model).map_err(|_| no_such_model(&request.model))?;
        let asker = Asker {
            agent: &self.agent.name,
            run: run.map(RunId::as_str),
            continues: request.continues.as_deref(),
        };
        match self.gate.models.pick(&name, &asker) {
            Ok(attempts) => Ok((name, attempts)),
            Err(error) => Err(error.refusal()),
        }
    }

    fn action(
        &self,
        request: &Request<'_>,
        route: ModelName,
        run: Option<RunId>,
        findings: Vec<Arc<str>>,
        body: &Bytes,
    ) -> Result<Action, Refusal> {
        let media = request.media;
        Ok(Action {
            id: self.action_id()?,
            agent: self.agent.clone(),
            source: self.source,
            run,
            protocol: self.api.protocol(),
            revision: REVISION,
            modern: true,
            method: self.api.as_str().to_owned(),
            operation: Operation::Complete,
            resource: ResourceRef::Model(route),
            // To ask changes nothing; what the model wants changed are tool calls, decided by themselves.
            effect: Effect::Read,
            external: true,
            request: body.clone(),
            arguments: None,
            findings,
            particulars: Particulars::Model {
                kind: self.api.as_str(),
                stream: request.stream,
                tools: request.tools.iter().map(|name| Arc::from(&**name)).collect(),
                media: media.images + media.files + media.audio > 0,
            },
            flow: None,
            part: None,
            judged_at_call: false,
            approval: None,
        })
    }

    pub(super) fn action_id(&self) -> Result<ActionId, Refusal> {
        let random = clock::random()
            .map_err(|e| Refusal::new(Step::Understand, RefusalCode::Undecided, e.to_string()))?;
        Ok(ActionId::new(self.gate.now(), random))
    }

    /// The versions that may answer, with what they cost.
    fn priced(&self, attempts: &Attempts) -> Vec<Candidate> {
        let priced =
            |version: &Version| self.gate.budgets.price(version.provider().as_str(), version.model());
        let versions = attempts.candidates().iter();
        versions.map(|version| Candidate { version: version.clone(), priced: priced(version) }).collect()
    }

    /// Takes from the budgets what the call may cost at most, whichever version answers.
    async fn reserve(
        &self,
        request: &Request<'_>,
        route: &ModelName,
        candidates: &[Candidate],
    ) -> Result<Reservation, Refusal> {
        let budgets = &self.gate.budgets;
        let by_version =
            candidates.iter().filter_map(|candidate| candidate.version.max_output_tokens()).max();
        let output = match self.api {
            Api::Embeddings | Api::CountTokens => 0,
            Api::Chat | Api::Responses | Api::Messages => {
                let bound = request.max_output_tokens.or(by_version);
                bound.unwrap_or_else(|| budgets.output_default()).saturating_mul(request.choices)
            }
        };
        let tokens = Tokens { input: request.input_estimate(), output };
        let prices: Vec<Priced> = candidates.iter().map(|candidate| candidate.priced.clone()).collect();
        let ask = BudgetAsk::model(&self.agent, route, tokens, &prices);
        budgets.reserve(&ask).await.map_err(Refusal::from)
    }

    /// Tells why a request was not admitted.
    fn stopped(&self, stop: &Stop) -> Response<AnswerBody> {
        let denied = match stop {
            Stop::Refused(refusal) => return self.refuse(refusal),
            Stop::Request(error) => {
                return self.refuse_with(
                    &error.refusal(),
                    &RefusalNotes { field: error.field(), ..RefusalNotes::default() },
                );
            }
            Stop::Denied(denied) => denied,
            Stop::Asked(asked) => return self.asked(asked),
        };
        let refusal = Refusal::new(Step::Decide, RefusalCode::Denied, denied.verdict.reason.clone())
            .advise(denied.verdict.advice.clone());
        // Already on record, as the intent that was denied.
        self.gate.metrics.refusal(refusal.code);
        let notes = RefusalNotes {
            policies: &denied.verdict.policies,
            receipt: Some(&denied.receipt),
            ..RefusalNotes::default()
        };
        refused(self.api, &refusal, &notes)
    }

    /// Tells that a person has to approve the request first; already on record.
    fn asked(&self, asked: &Asked) -> Response<AnswerBody> {
        let (refusal, expires) = (asked.question.refusal(), asked.question.expires_text());
        self.gate.metrics.refusal(refusal.code);
        let approval = ApprovalRequired { id: &asked.question.id, expires: &expires };
        let extra = [("approval_required", approval.to_json())];
        let notes = RefusalNotes { receipt: Some(&asked.receipt), extra: &extra, ..RefusalNotes::default() };
        refused(self.api, &refusal, &notes)
    }

    /// Refuses in the API's own form, on record.
    pub(super) fn refuse(&self, refusal: &Refusal) -> Response<AnswerBody> {
        let response = self.refuse_with(refusal, &RefusalNotes::default());
        if refusal.code != RefusalCode::InsufficientScope {
            return response;
        }
        let challenge = self.gate.resource().insufficient_scope(ENDPOINT, Operation::Complete);
        answer::with_header(response, "www-authenticate", &challenge)
    }

    fn refuse_with(&self, refusal: &Refusal, notes: &RefusalNotes<'_>) -> Response<AnswerBody> {
        self.gate.recorder.refusal(refusal, Some(&self.agent.name), self.source);
        refused(self.api, refusal, notes)
    }
}

/// Which tools the model may call: those that the request offers, and where it goes on from an earlier
/// one those that may have been offered then.
fn offered(request: &Request<'_>, action: &Action) -> Result<Offered, ModelError> {
    let names = match &action.particulars {
        Particulars::Model { tools, .. } if request.continues.is_none() => Some(tools.clone()),
        _ => None,
    };
    let parameters = request.offered_tools()?.into_iter().filter_map(|tool| {
        let names = tool.parameters?.into_iter().map(Arc::from).collect();
        Some((Arc::from(tool.name), names))
    });
    Ok(Offered::new(names, parameters.collect()))
}
