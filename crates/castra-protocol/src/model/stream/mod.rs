//! The stream engine: what a provider streams, inspected and decided on its way to the caller.
//!
//! [`StreamEngine`] takes the bytes of the provider's answer and gives bytes for the caller, without input,
//! output or a clock. Each event is read into parts ([`part`]) and leaves in one of two ways: as the bytes
//! that came, with the spans changed that must change (`same.rs`), or written anew in the caller's form
//! (`translate.rs`). Every text runs through a scanner of its own, which holds back what may still become
//! a secret (`texts.rs`). Tool calls are put together first (`calls.rs`); while one is open, all later
//! events wait, so that what leaves keeps its order, and no call leaves undecided.
//!
//! A stream that is not in its form ends with an error event in the caller's form, and the [`Summary`]
//! says why.

mod calls;
mod error;
mod frame;
mod like;
mod part;
mod read;
mod same;
mod texts;
mod translate;
mod write;

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use castra_core::{StreamMode, TextScanner};

pub use calls::CallVerdict;
pub use error::StreamError;
pub use frame::{Frame, Framer, Framing};
pub use texts::{SaidText, Scanners};

use super::{Form, RequestFacts, StopReason, ToolCall, Usage};
use crate::json::{self, Scanner, Span};
use calls::Calls;
use frame::Out;
use like::Likeness;
use part::{Channel, Names, Part, Reading};
use same::Edits;
use texts::Texts;
use write::{Head, Writer};

/// What of a stream is bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamLimits {
    /// Bytes of one event; at its end a response repeats all of it in one.
    pub event_bytes_max: usize,
    /// Bytes of the arguments of all tool calls, and of the events that wait for their decision.
    pub call_bytes_max: usize,
    /// Bytes of the stream: events that never end are ended.
    pub stream_bytes_max: u64,
    /// Bytes of text that are kept for the record; beyond, a digest is.
    pub text_kept_max: usize,
}

impl From<&castra_core::Limits> for StreamLimits {
    fn from(limits: &castra_core::Limits) -> Self {
        Self {
            event_bytes_max: limits.answer_bytes_max,
            call_bytes_max: limits.answer_bytes_max / 4,
            // The framing of a stream is some twenty times its text.
            stream_bytes_max: limits.answer_bytes_max as u64 * 8,
            text_kept_max: 64 << 10,
        }
    }
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self::from(&castra_core::Limits::default())
    }
}

/// How a stream is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamOptions {
    /// How its text is inspected.
    pub mode: StreamMode,
    /// How its events are told apart.
    pub framing: Framing,
    /// What of it is bounded.
    pub limits: StreamLimits,
    /// Input tokens as the gate estimates them, used where the provider does not count.
    pub input_tokens: u64,
    /// An id for the answer, used where the provider gives none.
    pub id: String,
}

/// What the engine wants next.
#[derive(Debug)]
pub enum Step {
    /// Bytes for the caller: all that became readable.
    Out(Bytes),
    /// A tool call to decide with [`StreamEngine::decided`].
    Decide(ToolCall),
    /// More bytes of the provider, with [`StreamEngine::feed`] or [`StreamEngine::finish`].
    Need,
    /// Nothing more comes.
    End(Box<Summary>),
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEnd {
    /// With its end.
    Complete,
    /// Before; the caller was told.
    Failed(StreamError),
}

/// Where token counts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageSource {
    /// The provider counted.
    Reported,
    /// It did not, or what it said cannot be: about a token for four bytes.
    Estimated,
}

/// What is to be said of a stream when it is over.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The id of the answer, as the caller was told; None if it was told none.
    pub id: Option<String>,
    /// How it ended.
    pub end: StreamEnd,
    /// Why the model stopped, as the caller was told; of the first choice that stopped.
    pub stop: Option<StopReason>,
    /// Tokens used.
    pub usage: Usage,
    /// Where these counts come from.
    pub usage_source: UsageSource,
    /// Kinds of what inspectors found, each once.
    pub findings: Vec<Arc<str>>,
    /// Tool calls with what became of them; None for one that was not decided.
    pub calls: Vec<(ToolCall, Option<CallVerdict>)>,
    /// The text that left.
    pub text: SaidText,
    /// Bytes of the provider.
    pub bytes_in: u64,
    /// Bytes for the caller.
    pub bytes_out: u64,
    /// Events of the provider.
    pub events: u64,
}

/// Serves one stream. Feed it, then take steps until it needs more:
///
/// ```
/// # use castra_protocol::model::{Api, Form, RequestFacts, stream::*};
/// # use castra_core::TextScanner;
/// # struct Nothing;
/// # impl TextScanner for Nothing {
/// #     fn push(&mut self, text: &str, out: &mut String) { out.push_str(text) }
/// #     fn finish(&mut self, _: &mut String) {}
/// #     fn findings(&self) -> &[std::sync::Arc<str>] { &[] }
/// # }
/// # let facts = RequestFacts { api: Api::Chat, form: Form::OpenAiChat, model: "m".into(), stream: true, usage_asked: false, created: 0, asked: Default::default() };
/// # let options = StreamOptions { mode: Default::default(), framing: Framing::Sse, limits: Default::default(), input_tokens: 1, id: "a".into() };
/// let mut engine = StreamEngine::new(&facts, options, Box::new(|| Nothing));
/// engine.feed(b"data: [DONE]\n\n");
/// engine.finish();
/// let mut said = Vec::new();
/// loop {
///     match engine.next() {
///         Step::Out(bytes) => said.extend_from_slice(&bytes),
///         Step::Decide(call) => engine.decided(CallVerdict::Refuse(format!("No {} here.", call.name))),
///         Step::Need => unreachable!("it has finished"),
///         Step::End(summary) => break assert_eq!(summary.end, StreamEnd::Complete),
///     }
/// }
/// assert_eq!(said, b"data: [DONE]\n\n");
/// ```
pub struct StreamEngine<S> {
    framer: Framer,
    /// Events that wait for a decision: their lengths, and their numbers unless they have left already.
    waiting: VecDeque<(usize, Option<u64>)>,
    finished: bool,
    closed: bool,
    core: Core<S>,
}

/// All but the framing.
struct Core<S> {
    form: Form,
    same: bool,
    has_choices: bool,
    usage_asked: bool,
    mode: StreamMode,
    limits: StreamLimits,
    input_tokens: u64,
    texts: Texts<S>,
    calls: Calls,
    names: Names,
    writer: Writer,
    out: Out,
    end: Option<StreamEnd>,
    /// The answer's head is known.
    opened: bool,
    /// An event has left.
    begun: bool,
    stop: Option<StopReason>,
    has_stopped: bool,
    reported: Option<Usage>,
    usage_wrong: bool,
    events: u64,
    bytes_in: u64,
    /// Texts that came in deltas (translation).
    seen: Vec<Channel>,
    /// The text that is being written (translation).
    current: Option<Channel>,
    pending_stop: Option<(u32, StopReason)>,
    like: Likeness,
    parts: Vec<Part>,
    edits: Edits,
    scratch: String,
}

/// What became of an event when it arrived.
enum Arrival {
    /// It has left.
    Gone,
    /// It waits for a decision.
    Waits,
}

impl<S: TextScanner> StreamEngine<S> {
    /// For the answer to a request. `scanners` makes a scanner for each text.
    pub fn new(facts: &RequestFacts, options: StreamOptions, scanners: Scanners<S>) -> Self {
        let StreamOptions { mode, framing, limits, input_tokens, id } = options;
        let same = facts.api.native_form() == facts.form;
        let inspect = mode != StreamMode::Pass;
        let joined = facts.form == Form::OpenAiChat;
        // Another form is written as server-sent events, whatever came.
        let out = Out::new(if same { framing } else { Framing::Sse });
        let core = Core {
            form: facts.form,
            same,
            has_choices: matches!(facts.form, Form::OpenAiChat | Form::Gemini),
            usage_asked: facts.usage_asked,
            mode,
            input_tokens,
            texts: Texts::new(scanners, inspect, limits.text_kept_max),
            calls: Calls::new(limits.call_bytes_max, joined, id.clone()),
            names: Names::default(),
            writer: Writer::new(facts, Head::new(facts, &id), input_tokens),
            out,
            end: None,
            opened: false,
            begun: false,
            stop: None,
            has_stopped: false,
            reported: None,
            usage_wrong: false,
            events: 0,
            bytes_in: 0,
            seen: Vec::new(),
            current: None,
            pending_stop: None,
            like: Likeness::default(),
            parts: Vec::new(),
            edits: Edits::default(),
            scratch: String::new(),
            limits,
        };
        Self {
            framer: Framer::new(framing, core.limits.event_bytes_max),
            waiting: VecDeque::new(),
            finished: false,
            closed: false,
            core,
        }
    }

    /// Takes the next bytes of the provider. After the stream's end they are passed over.
    pub fn feed(&mut self, chunk: &[u8]) {
        if self.core.end.is_some() {
            return;
        }
        self.core.bytes_in += chunk.len() as u64;
        self.framer.push(chunk);
        self.core.out.reserve(chunk.len());
        if self.core.bytes_in > self.core.limits.stream_bytes_max {
            return self.core.fail(StreamError::StreamTooLong(self.core.limits.stream_bytes_max));
        }
        self.run();
    }

    /// The provider's answer is over.
    pub fn finish(&mut self) {
        self.finished = true;
        self.run();
    }

    /// Ends the stream from the gate's side: the caller gets `why` as an error event.
    pub fn cut(&mut self, why: StreamError) {
        self.core.fail(why);
    }

    /// Says what becomes of the call of the last [`Step::Decide`].
    pub fn decided(&mut self, verdict: CallVerdict) {
        if self.core.calls.undecided().is_some() {
            self.core.calls.decide(verdict);
            self.run();
        }
    }

    /// What the engine wants next. A call is asked for until it is decided, and the end stays the end.
    #[allow(clippy::should_implement_trait)] // there is no end of steps, only a last one
    pub fn next(&mut self) -> Step {
        let ended = self.core.end.is_some();
        let may_leave = ended || self.core.mode != StreamMode::Hold;
        if let Some(bytes) = may_leave.then(|| self.core.out.take()).flatten() {
            return Step::Out(bytes);
        }
        match (ended, self.core.calls.undecided()) {
            (true, _) => Step::End(Box::new(self.core.summary())),
            (false, Some(call)) => Step::Decide(call.asked()),
            (false, None) => Step::Need,
        }
    }

    fn run(&mut self) {
        while self.core.end.is_none() {
            match self.advance() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => self.core.fail(error),
            }
        }
    }

    /// Does one thing; false if there is nothing to do without more bytes or a decision.
    fn advance(&mut self) -> Result<bool, StreamError> {
        if self.core.calls.undecided().is_some() {
            return Ok(false);
        }
        if !self.waiting.is_empty() && !self.core.calls.is_busy() {
            return self.release().map(|()| true);
        }
        match self.framer.cut()? {
            Some(length) => self.arrive(length).map(|()| true),
            None if self.finished => self.close(),
            None => Ok(false),
        }
    }

    /// The first event that waited leaves.
    fn release(&mut self) -> Result<(), StreamError> {
        let Some((length, number)) = self.waiting.pop_front() else { return Ok(()) };
        if let Some(number) = number {
            let (place, core) = (self.framer.first(length), &mut self.core);
            self.framer.read(place, |frame| core.leave(&frame, number))?;
        }
        self.framer.leave(length);
        Ok(())
    }

    fn arrive(&mut self, length: usize) -> Result<(), StreamError> {
        self.core.events += 1;
        let (number, waits) = (self.core.events, !self.waiting.is_empty());
        let (place, core) = (self.framer.latest(length), &mut self.core);
        let arrival = self.framer.read(place, |frame| core.arrive(&frame, number, waits))?;
        match arrival {
            Arrival::Gone if waits => self.waiting.push_back((length, None)),
            Arrival::Gone => self.framer.leave(length),
            Arrival::Waits => self.waiting.push_back((length, Some(number))),
        }
        // The framing of a call is many times its arguments.
        let waiting_max = self.core.limits.call_bytes_max.saturating_mul(8);
        if self.framer.waiting() > waiting_max {
            return Err(StreamError::CallTooLong(self.core.limits.call_bytes_max));
        }
        Ok(())
    }

    /// The provider's bytes are over: the last event may lack its end, and the stream its end marker.
    fn close(&mut self) -> Result<bool, StreamError> {
        if !self.closed && self.framer.close() {
            self.closed = true;
            return match self.advance() {
                Err(StreamError::BadEvent(_)) => Err(StreamError::Truncated),
                other => other,
            };
        }
        self.core.complete_without_marker()?;
        Ok(false)
    }
}

impl<S: TextScanner> Core<S> {
    /// An event has arrived.
    fn arrive(&mut self, frame: &Frame<'_>, number: u64, waits: bool) -> Result<Arrival, StreamError> {
        let Some(data) = frame.data.filter(|data| !data.is_empty()) else {
            match self.same && !waits {
                true => self.out.raw(frame.raw),
                false => self.out.keep_alive(),
            }
            return Ok(Arrival::Gone);
        };
        let parts = self.parts_of(frame, data, number)?;
        let arrival = self.sort(frame, data, &parts, waits);
        self.parts = parts;
        arrival
    }

    fn sort(
        &mut self,
        frame: &Frame<'_>,
        data: &str,
        parts: &[Part],
        waits: bool,
    ) -> Result<Arrival, StreamError> {
        let is_sign_of_life = matches!(parts, [Part::Ping] | [Part::Sequence { .. }, Part::Ping]);
        if is_sign_of_life && waits && self.same {
            self.out.raw(frame.raw);
            return Ok(Arrival::Gone);
        }
        if parts.iter().any(|part| matches!(part, Part::Error { .. })) {
            self.calls.abandon();
        }
        if self.calls.is_busy() || parts.iter().any(|part| matches!(part, Part::Call(_) | Part::Json { .. }))
        {
            self.calls.collect(data, parts)?;
        }
        if waits || self.calls.is_busy() {
            return Ok(Arrival::Waits);
        }
        self.go(frame, data, parts)?;
        Ok(Arrival::Gone)
    }

    /// An event that waited leaves.
    fn leave(&mut self, frame: &Frame<'_>, number: u64) -> Result<(), StreamError> {
        let Some(data) = frame.data.filter(|data| !data.is_empty()) else { return Ok(()) };
        let parts = self.parts_of(frame, data, number)?;
        let gone = self.go(frame, data, &parts);
        self.parts = parts;
        gone
    }

    fn parts_of(&mut self, frame: &Frame<'_>, data: &str, number: u64) -> Result<Vec<Part>, StreamError> {
        let mut parts = std::mem::take(&mut self.parts);
        parts.clear();
        if let Some(part) = self.like.read(frame.event, data) {
            parts.push(part);
            return Ok(parts);
        }
        let mut reading = Reading { names: &mut self.names, parts: &mut parts };
        read::event(self.form, frame.event, data, number, &mut reading)?;
        // The first event names the answer, which none that is like it needs to do again.
        if self.opened {
            self.like.learn(frame.event, data, &parts);
        }
        Ok(parts)
    }

    /// Sends an event on its way, in the one form or the other.
    fn go(&mut self, frame: &Frame<'_>, data: &str, parts: &[Part]) -> Result<(), StreamError> {
        let mut failed = None;
        let mut done = false;
        for part in parts {
            match part {
                Part::Opening { id, created, model } if !self.opened => {
                    self.open(data, *id, *created, *model);
                }
                // Chat chunks and responses name the answer more than once; a message begins once.
                Part::Opening { .. } if self.form == Form::AnthropicMessages => {
                    return Err(StreamError::Unexpected("a second `message_start`"));
                }
                Part::Usage(usage) => self.count(*usage),
                Part::Error { message } => failed = Some(self.said_error(data, *message)?),
                Part::Done => done = true,
                _ => {}
            }
        }
        match (&failed, self.same) {
            (Some(message), false) => {
                let error = StreamError::Provider(message.clone());
                self.writer.error(&mut self.out, &error);
            }
            (_, false) => self.translate(data, parts)?,
            (_, true) => self.pass(frame, data, parts)?,
        }
        if let Some(message) = failed {
            if self.same && self.form == Form::OpenAiChat {
                self.out.done();
            }
            self.end = Some(StreamEnd::Failed(StreamError::Provider(message)));
        } else if done {
            self.complete();
        }
        if self.out.len() as u64 > self.limits.stream_bytes_max {
            return Err(StreamError::StreamTooLong(self.limits.stream_bytes_max));
        }
        Ok(())
    }

    /// Takes over what names the answer; a translated answer bears the name by which it was asked for.
    fn open(&mut self, data: &str, id: Option<Span>, created: Option<Span>, model: Option<Span>) {
        self.opened = true;
        let same = self.same;
        let head = self.writer.head();
        let places =
            [(id, &mut head.id), (created, &mut head.created), (model.filter(|_| same), &mut head.model)];
        for (span, place) in places {
            if let Some(span) = span {
                *place = span.of(data).into();
            }
        }
    }

    fn count(&mut self, usage: Option<Usage>) {
        let Some(usage) = usage else {
            self.usage_wrong = true;
            return;
        };
        // Counts come more than once and grow.
        let known = self.reported.get_or_insert_default();
        known.input_tokens = known.input_tokens.max(usage.input_tokens);
        known.output_tokens = known.output_tokens.max(usage.output_tokens);
        known.cache_read_tokens = known.cache_read_tokens.max(usage.cache_read_tokens);
        known.cache_write_tokens = known.cache_write_tokens.max(usage.cache_write_tokens);
        known.reasoning_tokens = known.reasoning_tokens.max(usage.reasoning_tokens);
    }

    fn said_error(&mut self, data: &str, message: Option<Span>) -> Result<String, StreamError> {
        let Some(message) = message else { return Ok("it did not say why".into()) };
        let said = Scanner::at(data, message).string()?.decode();
        Ok(self.texts.whole(&said).unwrap_or_else(|| said.into_owned()))
    }

    fn stopped(&mut self, reason: Option<StopReason>) {
        self.has_stopped = true;
        self.stop = self.stop.or(reason);
    }

    fn complete(&mut self) {
        match self.same {
            true => self.pass_rests(),
            false => self.translate_end(),
        }
        self.end = Some(StreamEnd::Complete);
    }

    /// The body ended: fine if the model had stopped and only the marker is missing.
    fn complete_without_marker(&mut self) -> Result<(), StreamError> {
        if let Some(name) = self.calls.unfinished() {
            return Err(StreamError::CallUnfinished { name: name.into() });
        }
        if !self.has_stopped || self.form == Form::OpenAiResponses {
            return Err(StreamError::Truncated);
        }
        self.complete();
        if self.same {
            match self.form {
                Form::OpenAiChat => self.out.done(),
                Form::AnthropicMessages => write::stop(&mut self.out),
                Form::OpenAiResponses | Form::Gemini => {}
            }
        }
        Ok(())
    }

    /// Ends the stream with an error event. What was held back stays back.
    fn fail(&mut self, error: StreamError) {
        if self.end.is_some() {
            return;
        }
        if self.mode == StreamMode::Hold {
            self.out.discard();
        }
        let error = self.inspected(error);
        self.writer.error(&mut self.out, &error);
        self.end = Some(StreamEnd::Failed(error));
    }

    /// What a model names a tool is text of the model.
    fn inspected(&mut self, error: StreamError) -> StreamError {
        let mut name = |name: String| self.texts.whole(&name).unwrap_or(name);
        match error {
            StreamError::CallBroken { name: said } => StreamError::CallBroken { name: name(said) },
            StreamError::CallUnfinished { name: said } => StreamError::CallUnfinished { name: name(said) },
            other => other,
        }
    }

    /// Tokens used, as far as they are known.
    fn usage(&self) -> Usage {
        self.judged_usage().0
    }

    fn judged_usage(&self) -> (Usage, UsageSource) {
        let said = self.texts.bytes() + self.calls.bytes();
        match self.reported {
            Some(usage) if !self.usage_wrong && (usage.output_tokens > 0 || said == 0) => {
                (usage, UsageSource::Reported)
            }
            reported => {
                let known = reported.unwrap_or_default();
                let input_tokens =
                    if known.input_tokens > 0 { known.input_tokens } else { self.input_tokens };
                let output_tokens = known.output_tokens.max(said.div_ceil(4));
                (Usage { input_tokens, output_tokens, ..known }, UsageSource::Estimated)
            }
        }
    }

    fn answer_id(&mut self) -> Option<String> {
        if !self.opened {
            return None;
        }
        json::decode(&self.writer.head().id).map(|id| id.into_owned())
    }

    fn summary(&mut self) -> Summary {
        let (usage, usage_source) = self.judged_usage();
        let (findings, text) = self.texts.conclude();
        Summary {
            id: self.answer_id(),
            end: self.end.clone().unwrap_or(StreamEnd::Failed(StreamError::Truncated)),
            stop: self.stop,
            usage,
            usage_source,
            findings,
            calls: self.calls.all().iter().map(|call| (call.asked(), call.verdict.clone())).collect(),
            text,
            bytes_in: self.bytes_in,
            bytes_out: self.out.total(),
            events: self.events,
        }
    }
}
