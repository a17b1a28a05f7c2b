//! An answer that comes as a whole: read within bounds, put into the caller's form, inspected, its tool
//! calls decided, and recorded before it leaves.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;
use castra_core::{Refusal, RefusalCode, Step};
use castra_ledger::Status;
use castra_net::body::{self, BodyError};
use castra_protocol::{
    json,
    model::{self, AnswerCall, Api, ModelLimits, RefusalNotes, Request, RequestFacts, Usage, replace_calls},
};
use futures_util::future::join_all;
use http::{Response, StatusCode};

use super::{
    attempts::Answered,
    exchange::{End, Exchange, Failure, Spent, misbehaved},
    provider::ProviderError,
    refused,
    watch::Seen,
};
use crate::answer::{self, AnswerBody, RECEIPT};

/// An answer as the caller will see it.
pub(super) struct Told {
    body: Bytes,
    findings: Vec<Arc<str>>,
    spent: Spent,
    upstream: Duration,
}

impl Exchange {
    /// Makes the caller's answer of the provider's.
    pub(super) async fn whole(
        &mut self,
        request: &Request<'_>,
        answered: Answered,
        facts: &RequestFacts,
    ) -> Result<Told, Failure> {
        let limits = self.caller.gate.limits.clone();
        let (version, _, body, afterwards) = answered.into_parts();
        let bytes = match body::read(body, limits.answer_bytes_max, self.time_left()).await {
            Ok(bytes) => bytes,
            Err(error) => {
                afterwards.failed(&ProviderError::Nonsense);
                return Err(self.unread(&error).into());
            }
        };
        let upstream = self.elapsed();
        let answer = model::answer(facts, &bytes, &ModelLimits::from(&*limits)).map_err(|error| {
            afterwards.failed(&ProviderError::Nonsense);
            error.refusal()
        })?;
        let spent = spent(request, answer.usage, answer.body.len());
        if self.caller.api == Api::Responses
            && let Some(id) = std::str::from_utf8(&answer.body).ok().and_then(|text| json::get(text, &["id"]))
            && let Some(id) = json::decode(id)
        {
            self.gave(&id, &version);
        }
        let Seen { masked, kinds: findings } = self.watch.answer(&answer.body)?;
        let body = masked.map_or(answer.body, Cow::Owned);
        let body = self.with_calls_decided(body, &answer.calls).await?;
        // The provider's own bytes need no copy.
        let body = if body.len() == bytes.len() && *body == *bytes {
            bytes.clone()
        } else {
            body.into_owned().into()
        };
        Ok(Told { body, findings, spent, upstream })
    }

    /// Decides the tool calls of an answer, all at once; a refused one gives way to words that say so.
    async fn with_calls_decided<'a>(
        &self,
        body: Cow<'a, [u8]>,
        calls: &[AnswerCall],
    ) -> Result<Cow<'a, [u8]>, Refusal> {
        if calls.is_empty() {
            return Ok(body);
        }
        let judged = join_all(calls.iter().map(|call| self.judge.of(&call.call))).await;
        let verdicts: Vec<Option<String>> = judged.into_iter().map(|judged| judged.refused()).collect();
        if verdicts.iter().all(Option::is_none) {
            return Ok(body);
        }
        let limits = ModelLimits::from(&*self.caller.gate.limits);
        let replaced = replace_calls(self.caller.api, &body, &verdicts, &limits).map_err(|e| e.refusal())?;
        Ok(Cow::Owned(replaced.into_owned()))
    }

    /// Records the answer and gives it to the caller.
    pub(super) async fn tell(self, told: Told) -> Response<AnswerBody> {
        let Told { body, findings, spent, upstream } = told;
        let end = End { status: Status::Ok, code: None, said: &body, findings: &findings, spent, upstream };
        let (headers, caller) = (self.headers(), self.caller.clone());
        match self.conclude(&end).await {
            Ok(receipt) => {
                let response = headers.on(answer::json(StatusCode::OK, body));
                answer::with_header(response, RECEIPT, &receipt)
            }
            // It happened, but the outcome is not on record: the answer does not leave.
            Err(refusal) => {
                caller.gate.metrics.refusal(refusal.code);
                refused(caller.api, &refusal, &RefusalNotes::default())
            }
        }
    }

    fn unread(&self, error: &BodyError) -> Refusal {
        match error {
            BodyError::TooSlow { .. } => self.late(),
            BodyError::TooLarge { bytes_max } => {
                let reason = format!("the provider's answer has more than {bytes_max} bytes");
                Refusal::new(Step::Act, RefusalCode::LimitReached, reason)
                    .advise("Ask for less, or raise limits.answer_bytes_max")
            }
            BodyError::Broken { .. } => misbehaved("the provider's answer broke off".to_owned()),
        }
    }
}

/// What an answer used: as the provider says, else about a token for four bytes.
fn spent(request: &Request<'_>, said: Option<Usage>, answer_bytes: usize) -> Spent {
    let output_tokens = match request.api {
        // To count is free.
        Api::CountTokens => return Spent::Request,
        Api::Embeddings => 0,
        Api::Chat | Api::Responses | Api::Messages => {
            u64::try_from(answer_bytes.div_ceil(4)).unwrap_or(u64::MAX)
        }
    };
    match said {
        Some(usage) => Spent::Tokens { usage, reported: true },
        None => {
            let usage = Usage { input_tokens: request.input_estimate(), output_tokens, ..Usage::default() };
            Spent::Tokens { usage, reported: false }
        }
    }
}
