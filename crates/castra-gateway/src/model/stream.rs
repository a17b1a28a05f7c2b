//! An answer that comes as a stream. The caller draws it: the provider is read only when the caller
//! takes more, and what is readable at once leaves in one write. The outcome is recorded before the
//! last event leaves; a caller that goes away ends the exchange with the provider, and that is an
//! outcome too.

use std::{future::poll_fn, pin::Pin, time::Duration};

use bytes::{Bytes, BytesMut};
use castra_core::{Refusal, RefusalCode, Step as PathStep};
use castra_inspect::Scanner;
use castra_ledger::Status;
use castra_protocol::{
    json,
    model::{
        Api, Request, RequestFacts,
        stream::{
            CallVerdict, Framing, SaidText, Step, StreamEnd, StreamEngine, StreamError, StreamLimits,
            StreamOptions, Summary, UsageSource,
        },
        stream_error,
    },
    sse,
};
use futures_util::stream;
use http::Response;
use http_body::Body;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{
    attempts::Answered,
    exchange::{End, Exchange, Spent, misbehaved, status_of},
    provider::ProviderError,
    tools::{Judge, Judged},
};
use crate::answer::{self, AnswerBody, RECEIPT};

/// A stream on which nothing left for this long gets a comment, so that nothing between closes it.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// How long the end of a provider's body is waited for when its last event is there: a body that was
/// read to its end leaves a connection that can be used again.
const LEFTOVERS_TIME_MAX: Duration = Duration::from_millis(200);

impl Exchange {
    /// Gives the caller the answer as a stream, of which the provider's first bytes are here.
    pub(super) fn stream(
        self,
        request: &Request<'_>,
        answered: Answered,
        facts: &RequestFacts,
        framing: Framing,
    ) -> Response<AnswerBody> {
        let headers = self.headers();
        let receipt = self.intent_receipt().to_owned();
        let streamed = Box::new(Streamed::new(self, request, answered, facts, framing));
        let response = headers.on(answer::events(stream::unfold(streamed, Streamed::next)));
        answer::with_header(response, RECEIPT, &receipt)
    }
}

/// An answer on its way.
struct Streamed {
    /// None once the outcome is recorded.
    exchange: Option<Exchange>,
    answered: Answered,
    api: Api,
    judge: Judge,
    engine: StreamEngine<Scanner>,
    /// Why the gate ended it, if it did.
    cut: Option<Refusal>,
    /// Ends with the caller's credential, or the gate.
    standing: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Fires when a time may be over; what that means is looked at then.
    alarm: Pin<Box<Sleep>>,
    deadline: Instant,
    wrote: Instant,
}

/// What reading the provider brought.
enum Read {
    Bytes(Bytes),
    End,
    /// Nothing for now.
    Nothing,
    /// The stream must not go on.
    Cut(Refusal),
    /// Nothing left for a while.
    Silence,
}

impl Streamed {
    fn new(
        exchange: Exchange,
        request: &Request<'_>,
        answered: Answered,
        facts: &RequestFacts,
        framing: Framing,
    ) -> Self {
        let gate = exchange.caller.gate.clone();
        let options = StreamOptions {
            mode: exchange.watch.mode(),
            framing,
            limits: StreamLimits::from(&*gate.limits),
            input_tokens: request.input_estimate(),
            id: exchange.id(),
        };
        let watch = exchange.watch.clone();
        let engine = StreamEngine::new(facts, options, Box::new(move || watch.scanner()));
        let now = Instant::now();
        Self {
            answered,
            api: facts.api,
            judge: exchange.judge.clone(),
            engine,
            cut: None,
            standing: Box::pin(exchange.standing.clone().cancelled_owned()),
            alarm: Box::pin(tokio::time::sleep(KEEP_ALIVE.min(exchange.time_left()))),
            deadline: now + exchange.time_left(),
            wrote: now,
            exchange: Some(exchange),
        }
    }

    /// What the caller gets next; none after the end. What comes together is put together behind this
    /// (`castra_net::body`).
    async fn next(mut self: Box<Self>) -> Option<(Bytes, Box<Self>)> {
        if self.exchange.is_none() {
            self.read_leftovers().await;
            return None;
        }
        let mut ready = Bytes::new();
        loop {
            match self.engine.next() {
                Step::Out(bytes) => ready = joined(ready, bytes),
                // What is ready does not wait for what follows, unless that is the end.
                Step::Need | Step::Decide(_) if !ready.is_empty() => {
                    self.wrote = Instant::now();
                    return Some((ready, self));
                }
                Step::Need => match self.read().await {
                    Read::Bytes(bytes) => self.engine.feed(&bytes),
                    Read::End => self.engine.finish(),
                    Read::Cut(refusal) => self.cut(refusal),
                    Read::Nothing => {}
                    Read::Silence => return Some((Bytes::from_static(sse::KEEP_ALIVE), self)),
                },
                Step::Decide(call) => {
                    let verdict = match self.judge.of(&call).await {
                        Judged::Release => CallVerdict::Release,
                        Judged::Masked(arguments) => CallVerdict::Rewrite(arguments),
                        Judged::Refused(words) => CallVerdict::Refuse(words),
                    };
                    self.engine.decided(verdict);
                }
                Step::End(summary) => {
                    let last = self.conclude(&summary, ready).await;
                    return Some((last, self));
                }
            }
        }
    }
}

impl Streamed {
    /// Waits for the provider, for as long as it may be waited for.
    async fn read(&mut self) -> Read {
        tokio::select! {
            biased;
            () = &mut self.standing => Read::Cut(self.ended()),
            frame = poll_fn(|cx| Pin::new(&mut self.answered.body).poll_frame(cx)) => match frame {
                Some(Ok(frame)) => frame.into_data().map_or(Read::Nothing, Read::Bytes),
                Some(Err(error)) => Read::Cut(broken(&error)),
                None => Read::End,
            },
            () = &mut self.alarm => self.alarmed(),
        }
    }

    fn ended(&self) -> Refusal {
        match &self.exchange {
            Some(exchange) => exchange.ended(),
            None => Refusal::new(PathStep::Act, RefusalCode::Cancelled, "the stream has ended"),
        }
    }

    fn alarmed(&mut self) -> Read {
        let now = Instant::now();
        if now >= self.deadline {
            return match &self.exchange {
                Some(exchange) => Read::Cut(exchange.late()),
                None => Read::End,
            };
        }
        let silent = now >= self.wrote + KEEP_ALIVE;
        if silent {
            self.wrote = now;
        }
        self.alarm.as_mut().reset(self.deadline.min(self.wrote + KEEP_ALIVE));
        if silent { Read::Silence } else { Read::Nothing }
    }

    /// Ends the stream with an error of the gate.
    fn cut(&mut self, refusal: Refusal) {
        self.engine.cut(StreamError::Cut { code: refusal.code.as_str(), message: refusal.to_string() });
        self.cut = Some(refusal);
    }

    /// Records how it ended; gives the last bytes for the caller.
    async fn conclude(&mut self, summary: &Summary, last: Bytes) -> Bytes {
        let Some(exchange) = self.exchange.take() else { return last };
        let (status, code) = self.status(summary);
        if status == Status::UpstreamFailed {
            self.answered.failed(&ProviderError::Nonsense);
        }
        self.remember(&exchange, summary);
        exchange.watch.found(&summary.findings);
        let said = said(summary);
        let metrics = exchange.caller.gate.metrics.clone();
        let end = End {
            status,
            code,
            said: said.as_bytes(),
            findings: &summary.findings,
            spent: Spent::Tokens {
                usage: summary.usage,
                reported: summary.usage_source == UsageSource::Reported,
            },
            upstream: exchange.elapsed(),
        };
        match exchange.conclude(&end).await {
            // A comment, which no client takes for an event.
            Ok(receipt) => joined(last, format!(": {RECEIPT}: {receipt}\n\n").into()),
            // It happened, but the outcome is not on record: the stream must not look complete.
            Err(refusal) => {
                metrics.refusal(refusal.code);
                error_event(self.api, &refusal)
            }
        }
    }

    /// A response that the provider keeps can be gone on from, by the agent that got it.
    fn remember(&self, exchange: &Exchange, summary: &Summary) {
        if let (Api::Responses, Some(id)) = (self.api, &summary.id) {
            exchange.gave(id, &self.answered.version);
        }
    }

    /// How the end reads in the record.
    fn status(&self, summary: &Summary) -> (Status, Option<&'static str>) {
        match (&summary.end, &self.cut) {
            (StreamEnd::Complete, _) => (Status::Ok, None),
            (StreamEnd::Failed(_), Some(refusal)) => (status_of(refusal.code), Some(refusal.code.as_str())),
            (StreamEnd::Failed(error @ StreamError::Provider(_)), None) => {
                (Status::Error, Some(error.code()))
            }
            (StreamEnd::Failed(error), None) => (Status::UpstreamFailed, Some(error.code())),
        }
    }

    async fn read_leftovers(&mut self) {
        let body = &mut self.answered.body;
        let to_the_end =
            async { while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {} };
        // A provider that goes on is cut off when this is dropped.
        let _ = tokio::time::timeout(LEFTOVERS_TIME_MAX, to_the_end).await;
    }
}

impl Drop for Streamed {
    /// The caller went away: the provider's stream ends with this, and what left so far is recorded.
    fn drop(&mut self) {
        let Some(exchange) = self.exchange.take() else { return };
        let refusal = Refusal::new(PathStep::Answer, RefusalCode::Cancelled, "the caller went away");
        self.cut(refusal);
        let summary = loop {
            match self.engine.next() {
                Step::End(summary) => break Some(summary),
                Step::Decide(_) => self.engine.decided(CallVerdict::Refuse(String::new())),
                Step::Out(_) => {}
                Step::Need => break None,
            }
        };
        if let Some(summary) = &summary {
            self.remember(&exchange, summary);
        }
        let said = summary.as_deref().map(said).unwrap_or_default();
        let upstream = exchange.elapsed();
        exchange.abandon(&End {
            status: Status::Cancelled,
            code: Some(RefusalCode::Cancelled.as_str()),
            said: said.as_bytes(),
            findings: summary.as_deref().map_or(&[], |summary| &summary.findings),
            spent: Spent::Unknown { so_far: summary.as_deref().map(|s| s.usage).unwrap_or_default() },
            upstream,
        });
    }
}

/// How a provider that breaks off is told of.
fn broken(error: &ProviderError) -> Refusal {
    let mut refusal = misbehaved(format!("the provider {error}"));
    refusal.code = error.code();
    refusal
}

/// What left, for the record: one JSON object, since the events themselves only repeat themselves.
fn said(summary: &Summary) -> String {
    let mut said = String::from("{");
    match &summary.text {
        SaidText::Whole(text) => member(&mut said, "text", text),
        SaidText::Digest { sha256, bytes } => {
            member(&mut said, "text_sha256", &sha256.to_string());
            said.push_str(&format!(",\"text_bytes\":{bytes}"));
        }
    }
    said.push_str(",\"calls\":[");
    for (i, (call, verdict)) in summary.calls.iter().enumerate() {
        said.push_str(if i > 0 { ",{" } else { "{" });
        member(&mut said, "name", &call.name);
        said.push(',');
        match verdict {
            None => member(&mut said, "undecided", &call.arguments),
            Some(CallVerdict::Release) => member(&mut said, "arguments", &call.arguments),
            Some(CallVerdict::Rewrite(arguments)) => member(&mut said, "arguments", arguments),
            Some(CallVerdict::Refuse(words)) => member(&mut said, "refused", words),
        }
        said.push('}');
    }
    said.push_str("]}");
    said
}

fn member(object: &mut String, name: &str, text: &str) {
    json::push_quoted(object, name);
    object.push(':');
    json::push_quoted(object, text);
}

/// The end of a stream whose outcome could not be recorded.
fn error_event(api: Api, refusal: &Refusal) -> Bytes {
    let body = stream_error(api, 500, &refusal.to_string(), refusal.code.as_str());
    let name = if api == Api::Chat { "" } else { "event: error\n" };
    format!("{name}data: {body}\n\n").into()
}

/// One after the other, without a copy where one is empty.
fn joined(first: Bytes, second: Bytes) -> Bytes {
    if first.is_empty() {
        return second;
    }
    if second.is_empty() {
        return first;
    }
    let mut both = BytesMut::with_capacity(first.len() + second.len());
    both.extend_from_slice(&first);
    both.extend_from_slice(&second);
    both.freeze()
}
