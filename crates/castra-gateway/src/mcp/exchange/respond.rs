//! Step 9, answer: an exchange as an HTTP response, whole or as a stream of events.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use castra_protocol::sse;
use http::{Response, StatusCode};

use super::{Exchange, Out, Purpose, Source};
use crate::{
    answer::{self, AnswerBody, INSPECTION, RECEIPT},
    inspect::Watch,
    upstream::Incoming,
};

/// A stream without an event gets a comment after this time, so that nothing between closes it.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Events that are put into one write at most.
const BURST_BYTES_MAX: usize = 256 << 10;

impl Exchange {
    /// Step 9: the whole answer as JSON, or a stream of events where something comes before it.
    pub(crate) async fn respond(self) -> Response<AnswerBody> {
        let uninspected = self.watch.as_ref().is_some_and(Watch::passes);
        let response = self.begin().await;
        if uninspected { answer::with_header(response, INSPECTION, "none") } else { response }
    }

    async fn begin(mut self) -> Response<AnswerBody> {
        match self.next().await {
            Some(Out::Final(last)) => {
                let response = answer::json(last.status, last.body);
                match last.receipt {
                    Some(receipt) => answer::with_header(response, RECEIPT, &receipt),
                    None => response,
                }
            }
            Some(first) => {
                let receipt = match &self.purpose {
                    Some(Purpose::Act(permit)) => Some(permit.intent_receipt().to_owned()),
                    _ => None,
                };
                let events = futures_util::stream::unfold(Turn::Begin(self, first), Turn::burst);
                let response = answer::events(events);
                match receipt {
                    Some(receipt) => answer::with_header(response, RECEIPT, &receipt),
                    None => response,
                }
            }
            None => answer::empty(StatusCode::ACCEPTED),
        }
    }

    fn burst(&mut self, first: Out) -> Bytes {
        let mut buffer = Vec::new();
        let mut next = Some(first);
        while let Some(out) = next {
            match out {
                Out::Message(body) => sse::encode(&mut buffer, Some("message"), None, &body),
                Out::Final(last) => {
                    if let Some(receipt) = &last.receipt {
                        // A comment: the messages' bytes stay as the server sent them.
                        buffer.extend_from_slice(format!(": {RECEIPT}: {receipt}\n").as_bytes());
                    }
                    sse::encode(&mut buffer, Some("message"), None, &last.body);
                    break;
                }
            }
            next = if buffer.len() < BURST_BYTES_MAX { self.ready() } else { None };
        }
        buffer.into()
    }

    /// What is ready without waiting, so that a burst leaves in one write.
    fn ready(&mut self) -> Option<Out> {
        if let Some(out) = self.out.pop_front() {
            return Some(out);
        }
        let Source::Events(events) = &mut self.source else { return None };
        match events.try_next()? {
            Ok(Incoming::Notification(body)) => self.notification(body),
            Ok(incoming) => {
                if let Source::Events(events) = std::mem::replace(&mut self.source, Source::Nothing) {
                    self.source = Source::Next(incoming, Some(events));
                }
                None
            }
            Err(error) => {
                self.source = Source::Failed(error.into());
                None
            }
        }
    }
}

/// The exchange with its next message, when there is one.
type Next = Pin<Box<dyn Future<Output = Option<(Exchange, Out)>> + Send>>;

/// Where a streamed exchange stands between two writes.
enum Turn {
    Begin(Exchange, Out),
    Rest(Exchange),
    /// The next message is awaited. It goes on being awaited while comments keep the stream alive:
    /// what waits behind it (reconnecting, time limits) must not start anew with each.
    Waiting(Next),
}

impl Turn {
    async fn burst(self) -> Option<(Bytes, Self)> {
        let mut waiting = match self {
            Self::Begin(mut exchange, first) => {
                let burst = exchange.burst(first);
                return Some((burst, Self::Rest(exchange)));
            }
            Self::Waiting(waiting) => waiting,
            Self::Rest(mut exchange) => Box::pin(async move {
                let next = exchange.next().await?;
                Some((exchange, next))
            }),
        };
        tokio::select! {
            next = &mut waiting => {
                let (mut exchange, next) = next?;
                let burst = exchange.burst(next);
                Some((burst, Self::Rest(exchange)))
            }
            () = tokio::time::sleep(KEEP_ALIVE) => {
                Some((Bytes::from_static(sse::KEEP_ALIVE), Self::Waiting(waiting)))
            }
        }
    }
}
