//! A stream of a peer's events, on their way to the caller: each one read, checked, inspected; the
//! protocol is kept to its end, also where the peer does not.

use std::{collections::VecDeque, pin::Pin};

use bytes::Bytes;
use castra_protocol::{
    a2a::{self, Binding},
    sse::{self, Decoder, SseError},
};
use futures_util::FutureExt;
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Duration, timeout};

use super::exchange::{Exchange, Failure, cut_off, error_data, late, marked, misbehaved};
use crate::answer::{self, AnswerBody, RECEIPT};

/// A stream without an event gets a comment after this time, so that nothing between closes it.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Events that are put into one write at most.
const BURST_BYTES_MAX: usize = 256 << 10;
/// What the record keeps of a stream's events; beyond it the record says how many more there were.
const SAID_BYTES_MAX: usize = 1 << 20;

/// The stream as a response.
pub(super) fn respond(exchange: Exchange, theirs: &HeaderMap, body: Incoming) -> Response<AnswerBody> {
    let decoder = Decoder::new(exchange.caller.gate.limits.answer_bytes_max);
    let (watch, receipt) = (&exchange.watch, exchange.intent_receipt().to_owned());
    let head = marked(Response::new(AnswerBody::Whole(None)), theirs, watch, &receipt);
    let flow =
        Flow { exchange, body, decoder, waiting: VecDeque::new(), said: Said::default(), error: false };
    let mut response = answer::events(futures_util::stream::unfold(Turn::Rest(Box::new(flow)), Turn::next));
    response.headers_mut().extend(head.into_parts().0.headers);
    response
}

/// A stream between the peer and the caller.
struct Flow {
    exchange: Exchange,
    body: Incoming,
    decoder: Decoder,
    /// Events that were read and not looked at.
    waiting: VecDeque<Raw>,
    said: Said,
    /// Whether the peer ended it with an error of the protocol.
    error: bool,
}

/// An event as it came.
struct Raw {
    name: String,
    id: Option<String>,
    data: String,
}

/// What the record says of the events.
#[derive(Default)]
struct Said {
    events: Vec<u8>,
    left_out: u64,
}

impl Said {
    fn add(&mut self, data: &str) {
        if self.events.len() + data.len() > SAID_BYTES_MAX {
            self.left_out += 1;
            return;
        }
        self.events.push(if self.events.is_empty() { b'[' } else { b',' });
        self.events.extend_from_slice(data.as_bytes());
    }

    fn finish(&mut self) -> Vec<u8> {
        let mut events = std::mem::take(&mut self.events);
        if events.is_empty() {
            events.push(b'[');
        }
        events.push(b']');
        let Self { left_out, .. } = self;
        [b"{\"events\":", events.as_slice(), format!(",\"leftOut\":{left_out}}}").as_bytes()].concat()
    }
}

/// Where a stream stands between two writes.
enum Turn {
    Rest(Box<Flow>),
    /// The next write is awaited, and goes on being awaited while comments keep the stream alive.
    Waiting(Next),
}

type Next = Pin<Box<dyn Future<Output = (Bytes, Option<Box<Flow>>)> + Send>>;

impl Turn {
    async fn next(self) -> Option<(Bytes, Self)> {
        let mut waiting = match self {
            Self::Rest(flow) => flow.burst().boxed(),
            Self::Waiting(waiting) => waiting,
        };
        tokio::select! {
            (bytes, flow) = &mut waiting => match flow {
                Some(flow) => Some((bytes, Self::Rest(flow))),
                None if bytes.is_empty() => None,
                // One more turn, which gives nothing and ends the stream.
                None => Some((bytes, Self::Waiting(std::future::ready((Bytes::new(), None)).boxed()))),
            },
            () = tokio::time::sleep(KEEP_ALIVE) => {
                Some((Bytes::from_static(sse::KEEP_ALIVE), Self::Waiting(waiting)))
            }
        }
    }
}

impl Flow {
    /// What is ready, at least one event; and the rest of the stream, unless that was its end.
    async fn burst(mut self: Box<Self>) -> (Bytes, Option<Box<Self>>) {
        let mut out = Vec::new();
        loop {
            while let Some(raw) = self.waiting.pop_front() {
                match self.take(&raw, &mut out).await {
                    Ok(false) => {}
                    Ok(true) => return (self.end(out).await, None),
                    Err(failure) => return (self.break_off(out, &failure).await, None),
                }
                if out.len() >= BURST_BYTES_MAX {
                    return (out.into(), Some(self));
                }
            }
            let frame = if out.is_empty() {
                match self.frame().await {
                    Ok(frame) => frame,
                    Err(failure) => return (self.break_off(out, &failure).await, None),
                }
            } else {
                match self.body.frame().now_or_never() {
                    Some(frame) => frame,
                    None => return (out.into(), Some(self)),
                }
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Err(failure) = self.feed(&frame.into_data().unwrap_or_default()) {
                        return (self.break_off(out, &failure).await, None);
                    }
                }
                Some(Err(error)) => {
                    let failure = misbehaved(format!("its stream broke off: {error}"));
                    return (self.break_off(out, &failure).await, None);
                }
                None if self.decoder.is_inside() => {
                    let failure = misbehaved("its stream ended within an event");
                    return (self.break_off(out, &failure).await, None);
                }
                None => return (self.end(out).await, None),
            }
        }
    }

    async fn frame(&mut self) -> Result<Option<Result<http_body::Frame<Bytes>, hyper::Error>>, Failure> {
        let idle = self.exchange.caller.gate.limits.stream_idle_max;
        tokio::select! {
            frame = timeout(idle, self.body.frame()) => frame.map_err(|_| late(idle)),
            () = self.exchange.standing.cancelled() => Err(cut_off()),
        }
    }

    fn feed(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        let waiting = &mut self.waiting;
        let fed = self.decoder.feed(chunk, |event| {
            if !event.data.is_empty() {
                waiting.push_back(Raw {
                    name: event.event.to_owned(),
                    id: event.id.map(str::to_owned),
                    data: event.data.to_owned(),
                });
            }
        });
        fed.map_err(|error| match error {
            SseError::TooLong(max) => misbehaved(format!("it sent an event of more than {max} bytes")),
            SseError::NotUtf8 => misbehaved("its stream is not UTF-8"),
        })
    }

    /// Takes one event; true if it ends the stream.
    async fn take(&mut self, raw: &Raw, out: &mut Vec<u8>) -> Result<bool, Failure> {
        let caller = self.exchange.caller.clone();
        let depth_max = caller.gate.limits.json_depth_max;
        let event = a2a::read_event(caller.binding, caller.id.as_deref(), &raw.data, depth_max)
            .map_err(|fault| misbehaved(format!("it sent an event that is none of the protocol: {fault}")))?;
        self.exchange.check_ids(&event.ids).await?;
        let events = self.exchange.watch.event(&caller.gate, &event)?;
        let last = events.len().saturating_sub(1);
        for (at, data) in events.iter().enumerate() {
            self.said.add(data);
            self.exchange.heard(data).await?;
            // What the gate adds in front is an ordinary event.
            let name = (at == last && raw.name != "message").then_some(raw.name.as_str());
            sse::encode(out, name, raw.id.as_deref().filter(|_| at == last), data.as_bytes());
        }
        self.error |= event.error;
        Ok(event.error)
    }

    /// The stream is at its end: what was held back leaves, and the outcome is recorded.
    async fn end(mut self: Box<Self>, mut out: Vec<u8>) -> Bytes {
        let caller = self.exchange.caller.clone();
        for data in self.exchange.watch.rest(&caller.gate) {
            self.said.add(&data);
            // It is settled with the outcome.
            self.exchange.received(&data);
            sse::encode(&mut out, None, None, data.as_bytes());
        }
        let said = self.said.finish();
        match self.exchange.concluded(&said, self.error).await {
            Ok(receipt) => out.extend_from_slice(format!(": {RECEIPT}: {receipt}\n\n").as_bytes()),
            Err(refusal) => {
                // What is not on record must not look as if it were.
                let data = error_data(&caller, &Failure::from(refusal), None);
                encode_error(&mut out, caller.binding, &data);
            }
        }
        out.into()
    }

    /// The stream cannot go on: an error of the protocol ends it.
    async fn break_off(mut self: Box<Self>, mut out: Vec<u8>, failure: &Failure) -> Bytes {
        let said = self.said.finish();
        let (caller, receipt) = self.exchange.failed(failure, &said).await;
        let data = error_data(&caller, failure, receipt.as_deref());
        encode_error(&mut out, caller.binding, &data);
        out.into()
    }
}

/// HTTP+JSON marks errors within a stream by the event's name; JSON-RPC has them in the response.
fn encode_error(out: &mut Vec<u8>, binding: Binding, data: &str) {
    let name = (binding == Binding::HttpJson).then_some("error");
    sse::encode(out, name, None, data.as_bytes());
}
