//! The tool calls of a stream: put together from fragments, then decided, then released or replaced.

use crate::{
    json::{self, Scanner, quote},
    model::{StopReason, ToolCall},
};

use super::{
    StreamError,
    part::{Arguments, CallPart, DEPTH_MAX, Part},
};

/// More calls than this are no answer.
const CALLS_MAX: usize = 256;

/// Where the key of a call is that stands only in the list at the end of a response.
const LISTED: u64 = 1 << 60;

/// Stands in place of a call whose end the model did not reach. It names nothing, since no inspector has
/// seen what the model named.
const CUT_OFF: &str = "A tool call was cut off before its arguments were complete, so it was not made.";

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallVerdict {
    /// It may be made as it is.
    Release,
    /// It may be made with these arguments, which are JSON.
    Rewrite(String),
    /// It may not be made; this text stands in its place, for the model and the agent.
    Refuse(String),
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) at: u32,
    pub(super) key: u64,
    pub(super) call: ToolCall,
    /// The arguments are the free text of a custom tool.
    free: bool,
    /// It is of a tool that only its own form has.
    native: bool,
    /// Namespace of the tool, or the remote server that has it; empty if there is none.
    space: String,
    /// Said in a way that clients read differently, so it is said anew.
    irregular: bool,
    state: State,
    pub(super) verdict: Option<CallVerdict>,
    /// It has left, or what stands in its place.
    pub(super) left: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// It ended and its arguments are not JSON. That is a fault, unless the answer was cut off.
    Broken,
    Complete,
}

impl Call {
    fn new(at: u32, key: u64, call: ToolCall) -> Self {
        let (free, native, irregular, left) = (false, false, false, false);
        let space = String::new();
        Self { at, key, call, free, native, space, irregular, state: State::Open, verdict: None, left }
    }

    /// The arguments to write when the call may be made.
    pub(super) fn arguments(&self) -> &str {
        match &self.verdict {
            Some(CallVerdict::Rewrite(arguments)) => arguments,
            _ => &self.call.arguments,
        }
    }

    pub(super) fn refusal(&self) -> Option<&str> {
        match &self.verdict {
            Some(CallVerdict::Refuse(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether it may be made, but not in the bytes that came.
    pub(super) fn is_rewritten(&self) -> bool {
        matches!(self.verdict, Some(CallVerdict::Rewrite(_)))
    }

    pub(super) fn is_released(&self) -> bool {
        matches!(self.verdict, Some(CallVerdict::Release | CallVerdict::Rewrite(_)))
    }

    /// The call as it leaves in another form; None if no other form has its kind.
    pub(super) fn released(&self) -> Option<ToolCall> {
        let arguments = self.arguments().to_owned();
        (!self.free && !self.native && self.space.is_empty())
            .then(|| ToolCall { arguments, ..self.call.clone() })
    }

    /// The call as it is decided: always with JSON arguments.
    pub(super) fn asked(&self) -> ToolCall {
        let mut call = self.call.clone();
        if self.free {
            call.arguments = quote(&self.call.arguments);
        }
        if self.native {
            // The item is the call of a tool: `shell_call` of `shell`.
            call.name.truncate(call.name.strip_suffix("_call").map_or(call.name.len(), str::len));
        }
        match (&*self.space, self.native) {
            ("", _) => {}
            (server, true) => call.name = format!("mcp:{server}.{}", call.name),
            (space, false) => call.name = format!("{space}.{}", call.name),
        }
        call
    }
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    list: Vec<Call>,
    bytes_max: usize,
    /// Clients join what a stream says twice of a call's name (chat).
    joined: bool,
    /// For calls without an id.
    prefix: String,
    bytes: u64,
    /// Why the model stopped, once it is known.
    stop: Option<StopReason>,
}

impl Calls {
    /// `joined`: clients of the form join what a stream says twice of a call's name. `prefix` begins the
    /// ids of calls that come without one.
    pub(super) fn new(bytes_max: usize, joined: bool, prefix: String) -> Self {
        Self { bytes_max, joined, prefix, ..Self::default() }
    }

    pub(super) fn all(&self) -> &[Call] {
        &self.list
    }

    pub(super) fn all_mut(&mut self) -> &mut [Call] {
        &mut self.list
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a call waits for its end or for its verdict.
    pub(super) fn is_busy(&self) -> bool {
        self.list.iter().any(|call| call.verdict.is_none())
    }

    /// The next call to decide: none before all that are open are complete, so that what waits for them
    /// leaves in order.
    pub(super) fn undecided(&self) -> Option<&Call> {
        match self.list.iter().any(|call| call.state != State::Complete) {
            true => None,
            false => self.list.iter().find(|call| call.verdict.is_none()),
        }
    }

    /// Sets the verdict of the call that is next.
    pub(super) fn decide(&mut self, verdict: CallVerdict) {
        let Some(call) = self.list.iter_mut().find(|call| call.verdict.is_none()) else { return };
        call.verdict = Some(match verdict {
            CallVerdict::Release if call.irregular => CallVerdict::Rewrite(call.call.arguments.clone()),
            CallVerdict::Rewrite(arguments) if call.free => match serde_json::from_str(&arguments) {
                Ok(input) => CallVerdict::Rewrite(input),
                Err(_) => CallVerdict::Refuse("The arguments of this call could not be changed.".into()),
            },
            other => other,
        });
    }

    /// The call that an output item, a block or a fragment belongs to.
    pub(super) fn with_key(&self, key: u64) -> Option<&Call> {
        self.list.iter().find(|call| call.key == key)
    }

    /// The call that stands at a place, where only one can.
    pub(super) fn standing_at(&self, at: u32) -> Option<&Call> {
        self.list.iter().find(|call| call.at == at && call.key & LISTED == 0)
    }

    /// The call that a part is about. What is listed at the end of a response is known by its id.
    pub(super) fn meant(&self, data: &str, part: &CallPart) -> Option<&Call> {
        match listed_id(data, part) {
            Some(id) => self.list.iter().find(|call| call.call.id == id),
            None => self.with_key(part.key),
        }
    }

    pub(super) fn set_left(&mut self, key: u64) {
        if let Some(call) = self.list.iter_mut().find(|call| call.key == key) {
            call.left = true;
        }
    }

    /// Released calls of a choice that came before this one: its index among those that leave.
    pub(super) fn released_before(&self, at: u32, key: u64) -> usize {
        self.list.iter().filter(|call| call.at == at && call.key < key && call.is_released()).count()
    }

    /// Whether a choice has calls; of which any left.
    pub(super) fn outcome(&self, at: Option<u32>) -> Option<bool> {
        let mut of_choice = self.list.iter().filter(|call| at.is_none_or(|at| call.at == at)).peekable();
        of_choice.peek()?;
        Some(of_choice.any(Call::is_released))
    }

    /// The provider gave up: calls that are not complete are not made.
    pub(super) fn abandon(&mut self) {
        for call in self.list.iter_mut().filter(|call| call.verdict.is_none()) {
            call.state = State::Complete;
            call.verdict = Some(CallVerdict::Refuse(String::new()));
        }
    }

    /// The name of a call that has not ended.
    pub(super) fn unfinished(&self) -> Option<&str> {
        self.list.iter().find(|call| call.verdict.is_none()).map(|call| &*call.call.name)
    }

    /// Takes what an event says of calls.
    pub(super) fn collect(&mut self, data: &str, parts: &[Part]) -> Result<(), StreamError> {
        for part in parts {
            match part {
                Part::Call(part) => self.take(data, part)?,
                Part::Json { at, text } => self.json(data, *at, Arguments::Piece(*text))?,
                Part::End { at, sub: None } => self.end(*at)?,
                Part::Stop { reason, .. } => self.stopped(*reason)?,
                Part::Done => self.end(None)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn take(&mut self, data: &str, part: &CallPart) -> Result<(), StreamError> {
        if listed_id(data, part).is_some() {
            return self.take_listed(data, part);
        }
        let position = match self.list.iter().position(|call| call.key == part.key) {
            Some(position) => position,
            None => self.open(part.at, part.key)?,
        };
        let limit = self.bytes_max;
        let Some(call) = self.list.get_mut(position) else { return Ok(()) };
        if call.state != State::Open {
            return Err(StreamError::CallChanged("it goes on after its end"));
        }
        let id_again = name(data, &mut call.call.id, part.id, "another id")?;
        let name_again = name(data, &mut call.call.name, part.name, "another name")?;
        call.native |= part.native;
        name(data, &mut call.space, part.space, "another namespace")?;
        call.irregular |= self.joined && (id_again || name_again);
        if let Some(arguments) = part.arguments {
            self.bytes += call.add(data, arguments)?;
        }
        if self.bytes > limit as u64 {
            return Err(StreamError::CallTooLong(limit));
        }
        if part.ends { self.complete(position) } else { Ok(()) }
    }

    fn open(&mut self, at: u32, key: u64) -> Result<usize, StreamError> {
        if self.list.len() == CALLS_MAX {
            return Err(StreamError::TooMany("tool calls"));
        }
        let call = ToolCall { id: String::new(), name: String::new(), arguments: String::new() };
        self.list.push(Call::new(at, key, call));
        Ok(self.list.len() - 1)
    }

    /// A call in the list at the end must be one that was made, as it was made.
    fn take_listed(&mut self, data: &str, part: &CallPart) -> Result<(), StreamError> {
        let known = self.meant(data, part).map(|call| (call.call.clone(), call.free));
        let Some((known, free)) = known else {
            let key = LISTED | self.list.len() as u64;
            return self.take(data, &CallPart { key, id: None, ends: false, ..*part }).and_then(|()| {
                let last = self.list.len().saturating_sub(1);
                if let (Some(call), Some(id)) = (self.list.get_mut(last), listed_id(data, part)) {
                    call.call.id = id;
                }
                self.complete(last)
            });
        };
        let unsaid = ToolCall { id: known.id.clone(), name: String::new(), arguments: String::new() };
        let mut again = Call::new(part.at, 0, unsaid);
        again.free = free;
        name(data, &mut again.call.name, part.name, "another name")?;
        if let Some(arguments) = part.arguments {
            again.add(data, arguments)?;
        }
        let same = again.call.name == known.name
            && (again.call.arguments == known.arguments
                || again.call.arguments.is_empty() && known.arguments == "{}");
        if same { Ok(()) } else { Err(StreamError::CallChanged("the list at the end says otherwise")) }
    }

    fn json(&mut self, data: &str, at: u32, arguments: Arguments) -> Result<(), StreamError> {
        let limit = self.bytes_max;
        let Some(call) = self.list.iter_mut().find(|call| call.at == at) else { return Ok(()) };
        if call.state != State::Open {
            return Err(StreamError::CallChanged("it goes on after its end"));
        }
        self.bytes += call.add(data, arguments)?;
        if self.bytes > limit as u64 { Err(StreamError::CallTooLong(limit)) } else { Ok(()) }
    }

    fn end(&mut self, at: Option<u32>) -> Result<(), StreamError> {
        for position in 0..self.list.len() {
            let meant = self
                .list
                .get(position)
                .is_some_and(|call| call.state == State::Open && at.is_none_or(|at| at == call.at));
            if meant {
                self.complete(position)?;
            }
        }
        Ok(())
    }

    fn complete(&mut self, position: usize) -> Result<(), StreamError> {
        let Some(call) = self.list.get_mut(position) else { return Ok(()) };
        if call.call.name.is_empty() {
            return Err(StreamError::Unexpected("a tool call without a name"));
        }
        if call.call.id.is_empty() {
            call.call.id = format!("call_{}_{position}", self.prefix);
        }
        if !call.free && call.call.arguments.trim_ascii().is_empty() {
            call.call.arguments = "{}".into();
        }
        let valid = call.free || json::check(call.call.arguments.as_bytes(), DEPTH_MAX).is_ok();
        call.state = if valid { State::Complete } else { State::Broken };
        if valid || self.stop.is_none() { Ok(()) } else { self.stopped(self.stop) }
    }

    /// Why the model stopped says whether a call that is not complete was cut off or is broken.
    fn stopped(&mut self, reason: Option<StopReason>) -> Result<(), StreamError> {
        self.stop = reason.or(Some(StopReason::End));
        let cut_off =
            matches!(reason, Some(StopReason::MaxTokens | StopReason::ContextFull | StopReason::Refusal));
        for call in self.list.iter_mut().filter(|call| call.state == State::Broken) {
            if !cut_off {
                return Err(StreamError::CallBroken { name: call.call.name.clone() });
            }
            call.state = State::Complete;
            call.verdict = Some(CallVerdict::Refuse(CUT_OFF.into()));
        }
        Ok(())
    }
}

impl Call {
    /// Adds arguments; says how many bytes.
    fn add(&mut self, data: &str, arguments: Arguments) -> Result<u64, StreamError> {
        let (span, is_string) = match arguments {
            Arguments::Value(span) => (span, false),
            Arguments::Piece(span) | Arguments::Whole(span) => (span, true),
            Arguments::FreePiece(span) | Arguments::FreeWhole(span) => {
                self.free = true;
                (span, true)
            }
        };
        let decoded = match is_string {
            true => Scanner::at(data, span).string()?.decode(),
            false => span.of(data).into(),
        };
        let known = &mut self.call.arguments;
        match arguments {
            Arguments::Piece(_) | Arguments::FreePiece(_) => known.push_str(&decoded),
            _ if known.is_empty() => known.push_str(&decoded),
            _ if *known == decoded => return Ok(0),
            _ => return Err(StreamError::CallChanged("its arguments were repeated and are others")),
        }
        Ok(decoded.len() as u64)
    }
}

/// Sets a name once. True if it was said again, which some clients would join to the first.
fn name(
    data: &str,
    known: &mut String,
    said: Option<json::Span>,
    what: &'static str,
) -> Result<bool, StreamError> {
    let Some(span) = said else { return Ok(false) };
    let said = Scanner::at(data, span).string()?.decode();
    if said.is_empty() {
        return Ok(false);
    }
    if known.is_empty() {
        known.push_str(&said);
        return Ok(false);
    }
    if *known == said { Ok(true) } else { Err(StreamError::CallChanged(what)) }
}

/// The id of a call in the list at the end of a response, which says everything at once.
fn listed_id(data: &str, part: &CallPart) -> Option<String> {
    let id = part.id.filter(|_| part.ends && part.entry.is_some())?;
    Scanner::at(data, id).string().ok().map(|id| id.decode().into_owned())
}
