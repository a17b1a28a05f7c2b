//! Step 7, act: a permitted call on its way to a provider and back, and how it ends. However that is,
//! the outcome is recorded once and the budgets are settled once, at the latest when this is dropped.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use castra_core::{ModelName, Refusal, RefusalCode, Step, StreamMode};
use castra_ledger::{ModelUse, Status};
use castra_net::body;
use castra_protocol::model::{
    ModelError, RefusalNotes, Request, RequestFacts, Usage, prepare, provider_error, stream::Framing,
};
use http::{HeaderMap, Response, StatusCode, header::CONTENT_TYPE};
use tokio_util::sync::CancellationToken;

use super::{
    INSPECTION, MODEL, SET_ASIDE,
    attempts::{Answered, AskError, Attempts},
    call::Caller,
    provider::{ProviderError, Wire},
    refused,
    routes::RouteError,
    tools::Judge,
    version::Version,
    watch::Watch,
    whole::Told,
};
use crate::{
    answer::{self, AnswerBody, RECEIPT},
    budget::{Priced, Reservation, Settled, Used},
    record::{Ending, Noted, Permit},
};

/// Bytes of a provider's error that are looked at.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// A permitted call.
pub(super) struct Exchange {
    pub(super) caller: Arc<Caller>,
    pub(super) judge: Judge,
    pub(super) watch: Watch,
    /// Ends when the caller's credential does, or the gate.
    pub(super) standing: CancellationToken,
    route: ModelName,
    permit: Permit,
    reservation: Reservation,
    started: Instant,
    candidates: Vec<Candidate>,
    answered_by: Option<Candidate>,
    set_aside: Vec<&'static str>,
}

/// A version that may answer, and what that costs.
pub(super) struct Candidate {
    pub(super) version: Arc<Version>,
    pub(super) priced: Priced,
}

/// What came of asking.
enum Heard {
    Whole(Told),
    /// A stream that has begun.
    Stream(Box<Answered>, RequestFacts, Framing),
}

/// Why there is no answer of the model to pass on.
pub(super) enum Failure {
    Refused(Refusal),
    /// The request cannot be put into the form of the route's provider.
    Request(ModelError),
    /// The provider says so itself.
    Provider {
        facts: RequestFacts,
        status: StatusCode,
        body: Bytes,
        retry_after: Option<Duration>,
    },
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What came of an exchange, for the record and the budgets.
pub(super) struct End<'e> {
    pub(super) status: Status,
    pub(super) code: Option<&'e str>,
    /// What the caller will see.
    pub(super) said: &'e [u8],
    pub(super) findings: &'e [Arc<str>],
    pub(super) spent: Spent,
    /// How much of the time was spent waiting for the provider.
    pub(super) upstream: Duration,
}

/// What was used up.
pub(super) enum Spent {
    /// The model did not work: a request, no tokens.
    Request,
    /// So many tokens, by the provider's word or by an estimate.
    Tokens { usage: Usage, reported: bool },
    /// The model worked, and nobody knows how much: what was reserved counts as spent.
    Unknown { so_far: Usage },
}

impl Exchange {
    pub(super) fn new(
        caller: Arc<Caller>,
        judge: Judge,
        route: ModelName,
        watch: Watch,
        candidates: Vec<Candidate>,
        permit: Permit,
        reservation: Reservation,
    ) -> Self {
        let standing = caller.gate.standings.of(&caller.agent);
        Self {
            caller,
            judge,
            watch,
            standing,
            route,
            permit,
            reservation,
            started: Instant::now(),
            candidates,
            answered_by: None,
            set_aside: Vec::new(),
        }
    }

    /// Asks the provider and answers the caller.
    pub(super) async fn act(mut self, request: &Request<'_>, attempts: Attempts) -> Response<AnswerBody> {
        let standing = self.standing.clone();
        let heard = tokio::select! {
            biased;
            () = standing.cancelled() => Err(self.ended().into()),
            heard = self.hear(request, attempts) => heard,
        };
        match heard {
            Ok(Heard::Whole(told)) => self.tell(told).await,
            Ok(Heard::Stream(answered, facts, framing)) => self.stream(request, *answered, &facts, framing),
            Err(failure) => self.fail(failure).await,
        }
    }

    /// An answer, whole or from its first byte on.
    async fn hear(&mut self, request: &Request<'_>, attempts: Attempts) -> Result<Heard, Failure> {
        let (answered, facts) = self.ask(request, attempts).await?;
        if !facts.stream {
            return Ok(Heard::Whole(self.whole(request, answered, &facts).await?));
        }
        match framing(&answered) {
            Ok(framing) => Ok(Heard::Stream(Box::new(answered), facts, framing)),
            Err(refusal) => {
                answered.failed(&ProviderError::Nonsense);
                Err(refusal.into())
            }
        }
    }

    /// Sends the request to one version after another until one answers.
    async fn ask(
        &mut self,
        request: &Request<'_>,
        attempts: Attempts,
    ) -> Result<(Answered, RequestFacts), Failure> {
        let caller = self.caller.clone();
        let now = u64::try_from(caller.gate.now().secs()).unwrap_or(0);
        let mut sent = None;
        // What a budget was asked for is what the answer may be.
        let output_max = self.reservation.bounds_answer().then(|| caller.gate.budgets.output_default());
        let asking = attempts.ask(&caller.headers, request.stream, |version| {
            let prepared = prepare(request, &version.target(request.api, output_max, now))?;
            let wire = Wire {
                endpoint: prepared.endpoint.into_owned(),
                body: match prepared.body {
                    std::borrow::Cow::Borrowed(body) => Bytes::copy_from_slice(body),
                    std::borrow::Cow::Owned(body) => body.into(),
                },
            };
            sent = Some((prepared.facts, prepared.set_aside));
            Ok::<_, ModelError>(wire)
        });
        let answered = match asking.await {
            Ok(answered) => answered,
            Err(AskError::Prepare(error)) => return Err(Failure::Request(error)),
            Err(AskError::Route(error)) => {
                return Err(self.not_answered(&error, sent.map(|(facts, _)| facts)));
            }
        };
        let Some((facts, set_aside)) = sent else { return Err(self.late().into()) };
        self.answers(answered.version.id());
        self.set_aside = set_aside;
        if answered.head.status.is_success() {
            return Ok((answered, facts));
        }
        let status = answered.head.status;
        let retry_after = retry_after(&answered.head.headers);
        let body = body::read(answered.body, ERROR_BYTES_MAX, self.time_left()).await.unwrap_or_default();
        Err(Failure::Provider { facts, status, body, retry_after })
    }

    /// Notes which version answers.
    fn answers(&mut self, id: &str) -> Option<&Candidate> {
        let place = self.candidates.iter().position(|candidate| candidate.version.id() == id)?;
        self.answered_by = Some(self.candidates.swap_remove(place));
        self.answered_by.as_ref()
    }

    /// Of all attempts none brought an answer: the last provider's own error says the most.
    fn not_answered(&mut self, error: &RouteError, facts: Option<RequestFacts>) -> Failure {
        let RouteError::Failed { version: last, answer: Some(answer), .. } = error else {
            return error.refusal().into();
        };
        let (Some(by), Some(facts)) = (self.answers(last), facts) else { return error.refusal().into() };
        Failure::Provider {
            facts: RequestFacts { form: by.version.form(facts.api), ..facts },
            status: answer.status,
            body: answer.body.clone(),
            retry_after: answer.retry_after,
        }
    }

    /// Remembers who got an answer, for a request that goes on from it.
    pub(super) fn gave(&self, answer: &str, version: &Version) {
        self.caller.gate.models.gave(&self.caller.agent.name, answer, &self.route, version);
        if let Some(run) = self.judge.run() {
            self.caller.gate.runs.gave(&self.caller.agent.name, answer, run);
        }
    }

    pub(super) fn time_left(&self) -> Duration {
        self.caller.gate.limits.call_time_max.saturating_sub(self.started.elapsed())
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn late(&self) -> Refusal {
        let after = self.caller.gate.limits.call_time_max;
        let reason =
            format!("the model {} gave no whole answer within {} seconds", self.route, after.as_secs_f32());
        Refusal::new(Step::Act, RefusalCode::UpstreamTimeout, reason)
    }

    /// Why nothing goes on: the gate goes down, or the credential does not count any more.
    pub(super) fn ended(&self) -> Refusal {
        if self.caller.gate.closing.is_cancelled() {
            return Refusal::new(Step::Act, RefusalCode::ShuttingDown, "the gate is shutting down")
                .advise("Try again when it is back");
        }
        let reason = "the credential was revoked, or ended, while the request ran";
        Refusal::new(Step::Identify, RefusalCode::BadCredential, reason)
    }

    /// Ends without an answer of the model, in the caller's own form.
    async fn fail(self, failure: Failure) -> Response<AnswerBody> {
        let api = self.caller.api;
        let (refusal, field, spent) = match failure {
            Failure::Provider { facts, status, body, retry_after } => {
                return self.provider_refused(&facts, status, &body, retry_after).await;
            }
            Failure::Refused(refusal) => {
                let spent = spent_before(refusal.code);
                (refusal, None, spent)
            }
            Failure::Request(error) => (error.refusal(), error.field().map(str::to_owned), Spent::Request),
        };
        self.caller.gate.metrics.refusal(refusal.code);
        let end = End {
            status: status_of(refusal.code),
            code: Some(refusal.code.as_str()),
            said: refusal.reason.as_bytes(),
            findings: &[],
            spent,
            upstream: self.started.elapsed(),
        };
        let receipt = self.conclude(&end).await.ok();
        let notes =
            RefusalNotes { field: field.as_deref(), receipt: receipt.as_deref(), ..RefusalNotes::default() };
        refused(api, &refusal, &notes)
    }

    /// Passes on a provider's own error.
    async fn provider_refused(
        self,
        facts: &RequestFacts,
        status: StatusCode,
        body: &[u8],
        retry_after: Option<Duration>,
    ) -> Response<AnswerBody> {
        let told = provider_error(facts, status.as_u16(), body);
        let code = status.as_u16().to_string();
        let end = End {
            status: Status::Error,
            code: Some(&code),
            said: &told.body,
            findings: &[],
            spent: Spent::Request,
            upstream: self.started.elapsed(),
        };
        let headers = self.headers();
        let api = self.caller.api;
        match self.conclude(&end).await {
            Ok(receipt) => {
                let status = StatusCode::from_u16(told.status).unwrap_or(StatusCode::BAD_GATEWAY);
                let mut response = headers.on(answer::json(status, told.body));
                if let Some(wait) = retry_after {
                    let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                    response = answer::with_header(response, "retry-after", &secs.to_string());
                }
                answer::with_header(response, RECEIPT, &receipt)
            }
            Err(refusal) => refused(api, &refusal, &RefusalNotes::default()),
        }
    }

    /// Settles the budgets and records the outcome; the answer may leave when this returns. Gives the
    /// receipt.
    pub(super) async fn conclude(self, end: &End<'_>) -> Result<String, Refusal> {
        let answered_by = self.answered_by.as_ref();
        let settled = settle(self.reservation, end, answered_by);
        self.permit.conclude(&ending(end, self.watch.noted(), answered_by, settled)).await
    }

    /// The same at once, for an exchange whose caller is gone.
    pub(super) fn abandon(self, end: &End<'_>) {
        let answered_by = self.answered_by.as_ref();
        let settled = settle(self.reservation, end, answered_by);
        self.permit.abandon(&ending(end, self.watch.noted(), answered_by, settled));
    }

    /// Names the call: what an answer without an id of its own is called by.
    pub(super) fn id(&self) -> String {
        self.permit.action().to_string()
    }

    pub(super) fn intent_receipt(&self) -> &str {
        self.permit.intent_receipt()
    }

    /// What the answer's head says.
    pub(super) fn headers(&self) -> Headers {
        Headers {
            model: self.answered_by.as_ref().map(|by| format!("{}@{}", self.route, by.version.id())),
            inspection: self.watch.mode(),
            set_aside: (!self.set_aside.is_empty()).then(|| self.set_aside.join(", ")),
        }
    }
}

/// The head of an answer, as far as it tells of the path.
pub(super) struct Headers {
    model: Option<String>,
    inspection: StreamMode,
    set_aside: Option<String>,
}

impl Headers {
    pub(super) fn on(&self, mut response: Response<AnswerBody>) -> Response<AnswerBody> {
        // What was not inspected says so in a word that nobody takes for a kind of inspection.
        let inspection = if self.inspection == StreamMode::Pass { "none" } else { self.inspection.as_str() };
        let told = [
            (MODEL, self.model.as_deref()),
            (INSPECTION, Some(inspection)),
            (SET_ASIDE, self.set_aside.as_deref()),
        ];
        for (name, value) in told {
            if let Some(value) = value {
                response = answer::with_header(response, name, value);
            }
        }
        response
    }
}

/// Settles what was reserved. What it cost is known where the price of the version is.
fn settle(reservation: Reservation, end: &End<'_>, by: Option<&Candidate>) -> Settled {
    match (&end.spent, by) {
        (Spent::Tokens { usage, .. }, Some(by)) => {
            by.version.health.used(usage.input_tokens, usage.output_tokens);
            let used = Used::reported(
                usage.input_tokens,
                usage.cache_read_tokens,
                usage.cache_write_tokens,
                usage.output_tokens,
            );
            reservation.settle(&used, &by.priced)
        }
        (Spent::Unknown { .. }, _) => {
            drop(reservation);
            Settled { cost_micros: None }
        }
        (Spent::Request | Spent::Tokens { .. }, _) => {
            reservation.spend_request();
            Settled { cost_micros: None }
        }
    }
}

/// What a call that was refused on its way has used up.
fn spent_before(code: RefusalCode) -> Spent {
    match code {
        RefusalCode::UpstreamUnavailable
        | RefusalCode::NotFound
        | RefusalCode::NotAllowedHere
        | RefusalCode::Malformed
        | RefusalCode::Busy => Spent::Request,
        // The provider had the request, and may have done all the work.
        _ => Spent::Unknown { so_far: Usage::default() },
    }
}

fn ending<'e>(
    end: &End<'e>,
    mode: Option<StreamMode>,
    by: Option<&'e Candidate>,
    settled: Settled,
) -> Ending<'e> {
    let (usage, reported) = match &end.spent {
        Spent::Tokens { usage, reported } => (*usage, *reported),
        Spent::Unknown { so_far } => (*so_far, false),
        Spent::Request => (Usage::default(), true),
    };
    let model = by.map(|by| ModelUse {
        version: by.version.id().into(),
        digest: by.version.digest().to_string().into(),
        model: by.version.model().into(),
        input_tokens: usage.input_tokens,
        output_tokens: usage.output_tokens,
        reported,
        cost_micros: settled.cost_micros,
    });
    Ending {
        status: end.status,
        code: end.code,
        said: end.said,
        upstream: end.upstream,
        noted: Noted { findings: end.findings, inspection: mode, model },
    }
}

/// How a refusal of something that was permitted reads in the record.
pub(super) fn status_of(code: RefusalCode) -> Status {
    match code {
        RefusalCode::UpstreamTimeout => Status::Timeout,
        RefusalCode::UpstreamUnavailable | RefusalCode::UpstreamMisbehaved => Status::UpstreamFailed,
        // It was permitted, so a credential that does not count ended since.
        RefusalCode::Cancelled | RefusalCode::ShuttingDown | RefusalCode::BadCredential => Status::Cancelled,
        _ => Status::Refused,
    }
}

/// How the provider's stream is framed, if it is one.
fn framing(answered: &Answered) -> Result<Framing, Refusal> {
    let content_type = content_type(&answered.head.headers);
    Framing::of(content_type).ok_or_else(|| {
        let shown: String = content_type.chars().take(80).collect();
        misbehaved(format!("the provider answers a request for a stream with {shown:?}"))
    })
}

pub(super) fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("no content type")
}

pub(super) fn misbehaved(reason: String) -> Refusal {
    Refusal::new(Step::Act, RefusalCode::UpstreamMisbehaved, reason)
}

/// `Retry-After` in seconds; a date is not taken over, since nobody knows by whose clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let secs = headers.get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(secs))
}
