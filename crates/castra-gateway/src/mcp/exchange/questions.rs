//! The bridge's questions: what a server asks of a client in the middle of a call.
//!
//! A legacy server's question becomes `input_required` for a modern client, and the call is parked; a
//! modern server's `input_required` becomes questions to a legacy client, and the retry is made here.
//! Between sides of one era a question passes, if the server may ask it and the client can answer.

use std::time::Duration;

use bytes::Bytes;
use castra_core::{Refusal, RefusalCode, Step};
use castra_ledger::EventKind;
use castra_protocol::mcp::{
    self, InputKind, Message, MethodKind, Outcome, ParseLimits, Request, Response as Reply,
    bridge::{self, ClientFacts, InputNeeded, LegacyAnswer},
};
use http::StatusCode;
use tokio::sync::oneshot;

use super::{Exchange, Lane, Purpose, Source, malformed, modern_facts, parse_request};
use crate::{
    mcp::{
        call::Client,
        channel::{Channel, Unreached},
        parked::{self, Parked},
        session::Expected,
    },
    upstream::Incoming,
};

/// Rounds of "needs more input" that one call may take; a server that asks on and on is cut off.
const ROUNDS_MAX: u8 = 16;

/// How long a legacy server's further questions are waited for, once it has asked one.
const ONE_BREATH: Duration = Duration::from_millis(10);

pub(super) const ASKS_TOO_MUCH: &str = "the server asks the client something that it may not ask (the server's key `allow`) or that the client cannot answer";

/// Questions to a legacy client, on behalf of a modern server.
pub(super) struct Asked {
    needed: InputNeeded,
    answers: Vec<(String, oneshot::Receiver<Bytes>)>,
    _forget: Vec<Expected>,
}

impl Exchange {
    /// Takes up a parked call with the client's input.
    pub(super) async fn resume(
        &mut self,
        request: &Request<'_>,
        state: &str,
        responses: &[(String, String)],
    ) -> Result<(), Unreached> {
        let key = parked::key_of(request, self.server.name());
        let Some(parked) = self.caller.gate.parked.take(state, &self.caller.agent.name, &key) else {
            let refusal = Refusal::new(
                Step::Understand,
                RefusalCode::Malformed,
                "no call of this agent waits under this requestState, or it waits for another request",
            )
            .advise("Start the call again without requestState and inputResponses");
            self.finish_refused(&refusal).await;
            return Ok(());
        };
        let questions: Vec<_> = parked.questions.iter().filter_map(parse_request).collect();
        for reply in bridge::legacy_replies(&questions, responses) {
            parked.channel.respond(reply.into()).await?;
        }
        drop(questions);
        self.channel = Some(parked.channel);
        self.source = Source::Events(parked.events);
        Ok(())
    }

    /// A legacy server asks the client something in the middle of a call.
    pub(super) async fn server_asks(&mut self, body: Bytes) {
        let Some(question) = parse_request(&body) else { return };
        let MethodKind::ClientRequest(kind) = question.kind() else {
            let why = "a server may ask for elicitation, sampling or roots only";
            self.turn_down(&question, why).await;
            return;
        };
        if !matches!(self.purpose, Some(Purpose::Act(_))) {
            self.turn_down(&question, "no call is under way in which a client could be asked").await;
            return;
        }
        if !self.may_ask(kind) {
            let why = "the gate does not let this server ask that (the server's key `allow`)";
            self.turn_down(&question, why).await;
            return;
        }
        match (&self.lane, &self.caller.client) {
            (Lane::Straight, Client::Legacy(session)) => {
                let Some(Channel::Session(upstream)) = &self.channel else { return };
                let able = session.facts().can_answer(&question);
                match if able { session.pass_on(upstream, &question, &body) } else { None } {
                    Some((asked, id)) => {
                        self.questions.push(session.expected(id));
                        self.note_question(&question);
                        let asked = self.message(asked);
                        self.out.extend(asked);
                    }
                    None => self.turn_down(&question, "the client cannot answer this, or not now").await,
                }
            }
            (Lane::ToLegacyServer { client, .. }, _) if client.can_answer(&question) => {
                self.park(body.clone()).await
            }
            (Lane::ToLegacyServer { .. }, _) => {
                self.turn_down(&question, "the client did not declare that it can answer this").await;
            }
            // The modern era has no questions on a stream.
            _ => {
                let refusal = Refusal::new(
                    Step::Act,
                    RefusalCode::UpstreamMisbehaved,
                    "the server sent a request of its own, which its revision does not know",
                );
                self.finish_refused(&refusal).await;
            }
        }
    }

    /// Leaves the call open at the server and tells the modern client what it wants to know.
    async fn park(&mut self, question: Bytes) {
        let Lane::ToLegacyServer { server, .. } = &self.lane else { return };
        let server = server.clone();
        let (Some(channel), Source::Events(mut events)) =
            (self.channel.clone(), std::mem::replace(&mut self.source, Source::Nothing))
        else {
            return;
        };
        // A server that needs several things asks for them in one breath: the client is told once.
        tokio::time::sleep(ONE_BREATH).await;
        let mut questions = vec![question];
        while let Some(Ok(incoming)) = events.try_next() {
            match incoming {
                Incoming::Request(more) if self.can_pass_on(&more) => questions.push(more),
                Incoming::Request(more) => {
                    if let Some(more) = parse_request(&more) {
                        self.turn_down(&more, "the client cannot or may not be asked this").await;
                    }
                }
                Incoming::Notification(_) => {}
                // It does not wait for the answers.
                answer @ Incoming::Response(_) => {
                    self.source = Source::Next(answer, Some(events));
                    return;
                }
            }
        }
        let limits = ParseLimits::from(&*self.caller.gate.limits);
        let request = self.request.clone();
        let Ok(Message::Request(original)) = mcp::parse(&request, &limits) else { return };
        let parked = Parked {
            agent: self.caller.agent.name.clone(),
            key: parked::key_of(&original, self.server.name()),
            questions: questions.clone(),
            channel,
            events,
        };
        match self.caller.gate.parked.put(parked) {
            Ok(state) => {
                let asked: Vec<_> = questions.iter().filter_map(parse_request).collect();
                let body = bridge::input_required(&asked, &state, original.id, &server);
                self.finish(StatusCode::OK, body.into()).await;
            }
            Err(refusal) => self.finish_refused(&refusal).await,
        }
    }

    /// A modern server needs input: asks the legacy client for it.
    pub(super) async fn ask_client(&mut self, needed: InputNeeded) {
        self.rounds += 1;
        let Client::Legacy(session) = &self.caller.client else { return };
        let session = session.clone();
        let facts = session.facts();
        let able = self.may_ask_all(&needed, &facts);
        if !able || self.rounds > ROUNDS_MAX {
            let reason = if able {
                "the server keeps asking for more input"
            } else {
                "the server needs input that this client cannot give or may not be asked for"
            };
            let refusal = Refusal::new(Step::Act, RefusalCode::UpstreamMisbehaved, reason);
            self.finish_refused(&refusal).await;
            return;
        }
        let mut answers = Vec::new();
        let mut forget = Vec::new();
        for request in &needed.requests {
            let (id, expected, answer) = session.expect_answer();
            let question = Bytes::from(request.to_legacy(&id, facts.revision));
            let question = self.message(question);
            self.out.extend(question);
            answers.push((request.key.clone(), answer));
            forget.push(expected);
        }
        self.asked = Some(Asked { needed, answers, _forget: forget });
    }

    /// Waits for the legacy client's answers and repeats the call with them.
    pub(super) async fn hear(&mut self, asked: Asked) {
        let Asked { needed, answers, _forget } = asked;
        let collect = async {
            let mut all = Vec::new();
            for (key, answer) in answers {
                all.push((key, answer.await.ok()?));
            }
            Some(all)
        };
        let all = tokio::select! {
            all = tokio::time::timeout(self.caller.gate.limits.parked_time_max, collect) => all.ok().flatten(),
            () = self.cancel.cancelled() => return,
        };
        let Some(all) = all else {
            let refusal = Refusal::new(
                Step::Act,
                RefusalCode::UpstreamTimeout,
                "the client did not give the input in time",
            );
            self.finish_refused(&refusal).await;
            return;
        };
        let retry = self.retry(&needed, &all);
        let sent = match retry {
            Ok(body) => self.send_modern(body).await,
            Err(reason) => {
                self.finish_refused(&malformed(&reason)).await;
                return;
            }
        };
        if let Err(error) = sent {
            self.source = Source::Failed(error);
        }
    }

    fn retry(&self, needed: &InputNeeded, answers: &[(String, Bytes)]) -> Result<Bytes, String> {
        let limits = ParseLimits::default();
        let Ok(Message::Request(sent)) = mcp::parse(&self.sent, &limits) else {
            return Err("the request could not be read again".to_owned());
        };
        let mut replies = Vec::new();
        for (key, bytes) in answers {
            match mcp::parse(bytes, &limits) {
                Ok(Message::Response(reply)) => replies.push((key.clone(), reply)),
                _ => return Err("the client's input is not a response".to_owned()),
            }
        }
        let id = format!("\"castra-retry-{}-{}\"", self.rounds, self.id.trim_matches('"'));
        needed.retry(&sent, &id, &replies).map(Bytes::from).map_err(|fault| fault.to_string())
    }

    /// Whether a modern server asks its modern client what it may not ask, or what the client did not
    /// say that it can answer.
    pub(super) fn asks_too_much(&self, response: &Reply<'_>) -> bool {
        let Outcome::Result(result) = &response.outcome else { return false };
        if result.result_type.as_deref() != Some("input_required") {
            return false;
        }
        let Ok(facts) = modern_facts(&self.request) else { return true };
        match bridge::modern_answer_to_legacy(response, &self.method, &facts) {
            Ok(LegacyAnswer::NeedsInput(needed)) => !self.may_ask_all(&needed, &facts),
            _ => true,
        }
    }

    fn may_ask_all(&self, needed: &InputNeeded, facts: &ClientFacts) -> bool {
        needed.requests.iter().all(|request| {
            let question = Bytes::from(request.to_legacy("0", facts.revision));
            self.may_ask(request.kind) && parse_request(&question).is_some_and(|q| facts.can_answer(&q))
        })
    }

    /// Whether a legacy server wants a person to visit an address (-32042), which is an elicitation too.
    pub(super) fn sends_elsewhere(&self, response: &Reply<'_>) -> bool {
        let Outcome::Error(error) = &response.outcome else { return false };
        error.code == mcp::code::LEGACY_URL_ELICITATION && !self.may_ask(InputKind::Elicit)
    }

    /// Whether a legacy server's question may go to this modern client.
    fn can_pass_on(&self, question: &Bytes) -> bool {
        let (Some(question), Lane::ToLegacyServer { client, .. }) = (parse_request(question), &self.lane)
        else {
            return false;
        };
        let may = matches!(question.kind(), MethodKind::ClientRequest(kind) if self.may_ask(kind));
        may && client.can_answer(&question)
    }

    fn may_ask(&self, kind: InputKind) -> bool {
        let allow = self.server.allow();
        match kind {
            InputKind::Elicit => allow.elicitation,
            InputKind::Sample => allow.sampling,
            InputKind::Roots => allow.roots,
        }
    }

    /// A question leaves for the client: that is on record, what it says is in the outcome's payload or
    /// the client's own.
    fn note_question(&self, question: &Request<'_>) {
        let detail =
            format!("agent {} was asked {} during {}", self.caller.agent.name, question.method, self.method);
        self.caller.gate.recorder.event(EventKind::ClientAsked, Some(self.server.name().as_str()), &detail);
    }

    async fn turn_down(&self, question: &Request<'_>, why: &str) {
        tracing::warn!(server = %self.server.name(), method = %question.method, why, "a server's question was turned down");
        let body = mcp::error_response(Some(question.id), mcp::code::METHOD_NOT_FOUND, why, None);
        if let Some(channel) = &self.channel
            && let Err(error) = channel.respond(body.into()).await
        {
            tracing::debug!(%error, "the server did not take the answer");
        }
    }
}
