//! A session with a child process, in either era. One task reads its output and gives each message
//! to whom it belongs: an answer by its id, progress by its token, a subscription by its id, and
//! what names nobody to the one exchange in flight, or to whoever takes what is unsolicited.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use castra_core::{Limits, ServerName};
use castra_host::child::{Child, ChildError, Lines, Reins};
use castra_protocol::mcp::{
    Message, Notification, NotificationKind, ParseLimits, Request, Response, code, error_response,
    result_response,
};
use http::StatusCode;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Answer, Counters, EventStream, Incoming, Outgoing, RequestId, UpstreamError,
    backoff::Health,
    error::shown,
    handshake,
    message::read,
    queue::{Queue, WAITING_MAX},
    rewrite::{self, Mapping},
};

/// The reader waits this long for an exchange that does not keep up, which slows the child down;
/// then the exchange is ended, so that the others go on.
const FLOOD_PATIENCE: Duration = Duration::from_secs(1);
/// A child that closed its output has this long to end by itself.
const END_PATIENCE: Duration = Duration::from_millis(500);
/// Exchanges that were taken back and may still be answered.
const TAKEN_BACK_MAX: usize = 256;

/// The handle of the session. Dropping it kills the child.
#[derive(Debug)]
pub(super) struct ChildSession {
    child: Child,
    inner: Arc<Inner>,
}

/// What the handle, the reader and the exchanges share.
#[derive(Debug)]
struct Inner {
    server: ServerName,
    limits: Arc<Limits>,
    parse: ParseLimits,
    counters: Arc<Counters>,
    started: Instant,
    health: Health,
    reins: Reins,
    /// Settled by the handshake; a modern server asks its client nothing.
    modern: AtomicBool,
    next_number: AtomicU64,
    table: Mutex<Table>,
    unsolicited: Queue,
    ended: OnceLock<UpstreamError>,
}

#[derive(Debug, Default)]
struct Table {
    exchanges: HashMap<u64, Arc<Exchange>>,
    taken_back: VecDeque<u64>,
}

#[derive(Debug)]
struct Exchange {
    number: u64,
    mapping: Mapping,
    long: bool,
    queue: Queue,
}

impl ChildSession {
    /// Begins to read; says nothing to the child yet.
    pub(super) fn new(
        server: ServerName,
        child: Child,
        lines: Lines,
        limits: Arc<Limits>,
        counters: Arc<Counters>,
        health: Health,
    ) -> Self {
        let inner = Arc::new(Inner {
            server,
            parse: ParseLimits::from(&*limits),
            unsolicited: Queue::new(limits.answer_bytes_max),
            limits,
            counters,
            reins: Reins::clone(&child),
            modern: AtomicBool::new(false),
            started: Instant::now(),
            health,
            next_number: AtomicU64::new(1),
            table: Mutex::default(),
            ended: OnceLock::new(),
        });
        tokio::spawn(inner.clone().read(lines));
        Self { child, inner }
    }

    /// The process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// From here on it is spoken to in the modern era.
    pub(super) fn speaks_modern(&self) {
        self.inner.modern.store(true, Ordering::Relaxed);
    }

    pub(super) fn parse_limits(&self) -> &ParseLimits {
        &self.inner.parse
    }

    /// Sends a request. The first message decides the form of the answer: the response alone, or a
    /// stream.
    pub(super) async fn exchange(&self, out: Outgoing) -> Result<Answer, UpstreamError> {
        if out.id.is_none() {
            self.tell(out.body).await?;
            return Ok(Answer::Accepted);
        }
        let mut events = self.inner.clone().begin(out).await?;
        match events.next().await {
            Some(Ok(Incoming::Response(body))) => Ok(Answer::Whole { status: StatusCode::OK, body }),
            Some(Ok(first)) => {
                events.first = Some(first);
                Ok(Answer::Events(EventStream::child(events)))
            }
            Some(Err(error)) => Err(error),
            None => Err(UpstreamError::EndedEarly),
        }
    }

    /// Sends what has no answer.
    pub(super) async fn tell(&self, body: Bytes) -> Result<(), UpstreamError> {
        self.inner.send(body).await
    }

    pub(super) fn unsolicited(&self) -> ChildUnsolicited {
        ChildUnsolicited(self.inner.clone())
    }

    pub(super) fn ended(&self) -> Option<UpstreamError> {
        self.inner.ended.get().cloned()
    }

    pub(super) async fn close(&self) {
        let _ = self.inner.ended.set(UpstreamError::Closed);
        self.child.stop().await;
    }
}

impl Drop for ChildSession {
    fn drop(&mut self) {
        let _ = self.inner.ended.set(UpstreamError::Closed);
    }
}

impl Inner {
    async fn begin(self: Arc<Self>, out: Outgoing) -> Result<ChildEvents, UpstreamError> {
        let Message::Request(request) = read(&out.body, &self.parse)? else {
            return Err(UpstreamError::NotAnAnswer { kind: "notification" });
        };
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let (mapping, body) = Mapping::outgoing(&request, number);
        let queue = Queue::new(self.limits.answer_bytes_max);
        let exchange = Arc::new(Exchange { number, mapping, long: out.long, queue });
        // In the table before it is sent, for the answer may be quick; out of it again if it is not
        // sent, by the drop of `events`.
        self.table.lock().exchanges.insert(number, exchange.clone());
        let deadline = Instant::now() + self.limits.call_time_max;
        let mut events = ChildEvents { inner: self, exchange, deadline, first: None, sent: false };
        match timeout_at(deadline, events.inner.send(body)).await {
            Ok(sent) => sent?,
            Err(_) => return Err(events.late()),
        }
        events.sent = true;
        Ok(events)
    }

    async fn send(&self, body: Bytes) -> Result<(), UpstreamError> {
        self.check()?;
        self.reins.send(one_line(body)).await.map_err(|_| self.why_ended())
    }

    /// Sends from where nothing may wait.
    fn send_soon(self: &Arc<Self>, body: Bytes) {
        if let Ok(false) = self.reins.try_send(body.clone()) {
            let inner = self.clone();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move { inner.reins.send(body).await });
            }
        }
    }

    fn check(&self) -> Result<(), UpstreamError> {
        self.ended.get().map_or(Ok(()), |why| Err(why.clone()))
    }

    fn why_ended(&self) -> UpstreamError {
        let died = || UpstreamError::Died(self.reins.exit().unwrap_or(castra_host::child::Exit::Unknown));
        self.ended.get().cloned().unwrap_or_else(died)
    }

    /// Reads until the child ends, then tells everybody why.
    async fn read(self: Arc<Self>, mut lines: Lines) {
        let why = loop {
            match lines.next().await {
                Ok(Some(line)) => self.route(line).await,
                Ok(None) => break self.death().await,
                Err(ChildError::LineTooLong { max }) => {
                    break UpstreamError::TooLarge { what: "a line", max };
                }
                Err(error) => break UpstreamError::Broken(shown(&error.to_string())),
            }
        };
        self.reins.kill();
        let _ = self.ended.set(why);
        let why = self.why_ended();
        let exchanges = std::mem::take(&mut self.table.lock().exchanges);
        for exchange in exchanges.into_values() {
            exchange.queue.finish(Some(Err(why.clone())));
        }
        self.unsolicited.finish(Some(Err(why)));
    }

    async fn death(&self) -> UpstreamError {
        let ended = timeout(END_PATIENCE, self.reins.exited()).await;
        let exit = match ended {
            Ok(exit) => exit,
            Err(_) => {
                self.reins.kill();
                self.reins.exited().await
            }
        };
        if self.ended.get().is_none() {
            Counters::add(&self.counters.died);
            tracing::warn!(server = %self.server, pid = self.reins.pid(), %exit, "the child process ended");
            self.health.ended(self.started.elapsed(), &UpstreamError::Died(exit));
        }
        UpstreamError::Died(exit)
    }

    async fn route(self: &Arc<Self>, line: Bytes) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        match read(&line, &self.parse) {
            Ok(Message::Response(response)) => self.route_response(&response, &line),
            Ok(Message::Notification(notification)) => self.route_notification(&notification, &line).await,
            Ok(Message::Request(request)) => self.route_request(&request, &line).await,
            Err(error) => self.route_garbage(&line, error),
        }
    }

    fn route_response(&self, response: &Response<'_>, line: &Bytes) {
        let Some(id) = response.id else {
            // An error about something that it could not read: about the one request there is.
            match self.only_exchange() {
                Some(exchange) => {
                    let body =
                        rewrite::with_id(response, exchange.mapping.id()).unwrap_or_else(|| line.clone());
                    self.finish(&exchange, Ok(Incoming::Response(body)));
                }
                None => self.count(&self.counters.dropped, "an error without an id"),
            }
            return;
        };
        let number = rewrite::number(id);
        let exchange = number.and_then(|n| self.table.lock().exchanges.get(&n).cloned());
        if let Some(exchange) = exchange {
            self.finish(&exchange, Ok(Incoming::Response(exchange.mapping.response(response))));
        } else if number.is_some_and(|n| self.table.lock().taken_back.contains(&n)) {
            // A late answer to what was taken back is no fault.
        } else if number.is_some_and(|n| n < self.next_number.load(Ordering::Relaxed)) {
            self.count(&self.counters.second_answers, "a second answer to a request");
        } else {
            self.count(&self.counters.foreign_ids, "an answer to a request that was not made");
            // With one request in flight it can only be meant for that, and no other will come.
            if let Some(exchange) = self.only_exchange() {
                self.finish(&exchange, Err(UpstreamError::ForeignId));
            }
        }
    }

    async fn route_notification(self: &Arc<Self>, notification: &Notification<'_>, line: &Bytes) {
        let kind = notification.kind();
        let named = match kind {
            Some(NotificationKind::Progress) => notification.progress_token,
            Some(NotificationKind::Cancelled) => notification.request_id,
            _ => None,
        };
        let named = notification.meta.subscription_id.or(named);
        let found =
            named.and_then(rewrite::number).and_then(|n| self.table.lock().exchanges.get(&n).cloned());
        if let Some(exchange) = found {
            if kind == Some(NotificationKind::Cancelled) {
                // The server ends a subscription so (2026-07-28, basic/patterns/subscriptions).
                return self.close(&exchange);
            }
            let message = Incoming::Notification(exchange.mapping.notification(notification));
            return self.give(&exchange, message).await;
        }
        if kind == Some(NotificationKind::Progress) || notification.meta.subscription_id.is_some() {
            return self.count(&self.counters.dropped, "a notification for nobody");
        }
        // A change is everybody's business; a log message is taken for the call's that runs.
        let of_a_call =
            matches!(kind, None | Some(NotificationKind::Message | NotificationKind::ElicitationComplete));
        let message = Incoming::Notification(line.clone());
        match self.only_exchange().filter(|_| of_a_call) {
            Some(exchange) => self.give(&exchange, message).await,
            None => self.give_unsolicited(message),
        }
    }

    async fn route_request(self: &Arc<Self>, request: &Request<'_>, line: &Bytes) {
        if request.method == "ping" {
            return self.send_soon(result_response(request.id, "{}").into());
        }
        if self.modern.load(Ordering::Relaxed) {
            return self.count(&self.counters.garbage, "a request, which 2026-07-28 does not allow");
        }
        let message = Incoming::Request(line.clone());
        match self.only_exchange() {
            Some(exchange) => self.give(&exchange, message).await,
            None => self.give_unsolicited(message),
        }
    }

    /// Programs print banners and logs where only messages may stand; what does not even begin like
    /// a message is counted and passed over. A broken message is the broken answer of whoever waits.
    fn route_garbage(&self, line: &Bytes, error: UpstreamError) {
        self.count(&self.counters.garbage, "a line that is not a message");
        let begins_like_one = line.trim_ascii_start().first().is_some_and(|b| b"{[".contains(b));
        if let Some(exchange) = self.only_exchange().filter(|_| begins_like_one) {
            self.finish(&exchange, Err(error));
        }
    }

    /// The exchange in flight, if there is exactly one that waits for an answer.
    fn only_exchange(&self) -> Option<Arc<Exchange>> {
        let table = self.table.lock();
        let mut waiting = table.exchanges.values().filter(|e| !e.long);
        let only = waiting.next()?;
        waiting.next().is_none().then(|| only.clone())
    }

    /// Gives a message to an exchange, waiting a moment for room.
    async fn give(self: &Arc<Self>, exchange: &Arc<Exchange>, message: Incoming) {
        let Err(mut message) = exchange.queue.push(message) else { return };
        let until = Instant::now() + FLOOD_PATIENCE;
        while timeout_at(until, exchange.queue.emptied()).await.is_ok() {
            match exchange.queue.push(message) {
                Ok(()) => return,
                Err(back) => message = back,
            }
        }
        Counters::add(&self.counters.flooded);
        self.take_back(exchange.number);
        exchange.queue.finish(Some(Err(UpstreamError::Flooded { max: WAITING_MAX })));
    }

    fn give_unsolicited(self: &Arc<Self>, message: Incoming) {
        let nobody = self.unsolicited.is_closed();
        let Some(lost) = (if nobody { Some(message) } else { self.unsolicited.push(message).err() }) else {
            return;
        };
        self.count(&self.counters.dropped, "more unsolicited messages than were taken");
        // A request must have an answer, or the server waits for ever.
        if let Incoming::Request(bytes) = lost
            && let Ok(Message::Request(request)) = read(&bytes, &self.parse)
        {
            let text = "no client is there to answer this";
            self.send_soon(error_response(Some(request.id), code::INTERNAL_ERROR, text, None).into());
        }
    }

    fn finish(&self, exchange: &Exchange, last: Result<Incoming, UpstreamError>) {
        self.table.lock().exchanges.remove(&exchange.number);
        exchange.queue.finish(Some(last));
    }

    fn close(&self, exchange: &Exchange) {
        self.table.lock().exchanges.remove(&exchange.number);
        let early = (!exchange.long).then_some(Err(UpstreamError::EndedEarly));
        exchange.queue.finish(early);
    }

    /// Tells the child that nobody waits for this any more, unless it has been answered.
    fn take_back(self: &Arc<Self>, number: u64) {
        let mut table = self.table.lock();
        if table.exchanges.remove(&number).is_none() {
            return;
        }
        if table.taken_back.len() == TAKEN_BACK_MAX {
            table.taken_back.pop_front();
        }
        table.taken_back.push_back(number);
        drop(table);
        if self.ended.get().is_none() {
            self.send_soon(handshake::cancelled(&RequestId::number(number)).into());
        }
    }

    fn count(&self, counter: &AtomicU64, what: &str) {
        if Counters::add(counter) {
            tracing::warn!(server = %self.server, pid = self.reins.pid(), "the server sent {what}; it was passed over, and so will others be");
        }
    }
}

/// The messages of one exchange with a child. Dropped before the response, it takes the request back.
#[derive(Debug)]
pub(super) struct ChildEvents {
    inner: Arc<Inner>,
    exchange: Arc<Exchange>,
    deadline: Instant,
    first: Option<Incoming>,
    sent: bool,
}

impl ChildEvents {
    pub(super) fn try_next(&mut self) -> Option<Result<Incoming, UpstreamError>> {
        self.first.take().map(Ok).or_else(|| self.exchange.queue.try_pop())
    }

    pub(super) async fn next(&mut self) -> Option<Result<Incoming, UpstreamError>> {
        // A child that never stops sending is late too; an answer that is here is not.
        if !self.exchange.long && self.deadline <= Instant::now() && !self.exchange.queue.is_closed() {
            return Some(Err(self.give_up()));
        }
        if let Some(message) = self.try_next() {
            return Some(message);
        }
        // Silence on a pipe says nothing of a subscription: a child that is gone is noticed at once.
        if self.exchange.long {
            return self.exchange.queue.pop().await;
        }
        let silent = Instant::now() + self.inner.limits.stream_idle_max;
        let waited = timeout_at(silent.min(self.deadline), self.exchange.queue.pop()).await;
        waited.unwrap_or_else(|_| Some(Err(self.give_up())))
    }

    fn give_up(&mut self) -> UpstreamError {
        self.inner.take_back(self.exchange.number);
        self.exchange.queue.discard();
        self.late()
    }

    fn late(&self) -> UpstreamError {
        UpstreamError::Timeout { awaited: "answer", after: self.inner.limits.call_time_max }
    }
}

impl Drop for ChildEvents {
    fn drop(&mut self) {
        self.exchange.queue.discard();
        if self.sent {
            self.inner.take_back(self.exchange.number);
        } else {
            self.inner.table.lock().exchanges.remove(&self.exchange.number);
        }
    }
}

/// What a child says that belongs to no exchange.
#[derive(Debug)]
pub(super) struct ChildUnsolicited(Arc<Inner>);

impl ChildUnsolicited {
    pub(super) async fn next(&mut self) -> Option<Result<Incoming, UpstreamError>> {
        self.0.unsolicited.pop().await
    }

    pub(super) fn try_next(&mut self) -> Option<Result<Incoming, UpstreamError>> {
        self.0.unsolicited.try_pop()
    }
}

impl Drop for ChildUnsolicited {
    fn drop(&mut self) {
        self.0.unsolicited.discard();
    }
}

/// The message in one line. A line break outside of strings is white space in JSON, and inside of
/// strings it cannot stand.
fn one_line(body: Bytes) -> Bytes {
    if memchr::memchr2(b'\n', b'\r', &body).is_none() {
        return body;
    }
    body.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }).collect::<Vec<_>>().into()
}
