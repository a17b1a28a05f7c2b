//! A stream that leaves in the form in which it came.
//!
//! An event that needs no change leaves as its bytes. Where text was masked or is held back, only the
//! text's span is another; what is left of a text when it ends leaves in the event that ends it, if that
//! carries text, or else in an event of its own before it.

use castra_core::TextScanner;

use super::{
    Core, StreamError,
    frame::Frame,
    part::{Arguments, CallPart, Channel, Part, TextKind},
    texts::Rest,
    write::{self, Writer},
};
use crate::{
    json::{Scanner, Span, quote},
    model::StopReason,
};

/// Changes of one event.
#[derive(Debug, Default)]
pub(super) struct Edits {
    list: Vec<(Span, String)>,
    /// Some text of the event left otherwise than it came.
    touched: bool,
    /// The event carries something that shall leave.
    carries: bool,
    /// The event does not leave.
    dropped: bool,
}

impl Edits {
    fn clear(&mut self) {
        self.list.clear();
        (self.touched, self.carries, self.dropped) = (false, false, false);
    }

    fn set(&mut self, span: Span, text: String) {
        match self.list.iter_mut().find(|(known, _)| *known == span) {
            Some((_, known)) => *known = text,
            None => self.list.push((span, text)),
        }
    }

    /// The data with its changes, from a byte to another.
    fn apply(&mut self, data: &str, from: usize, to: usize) -> String {
        self.list.sort_by_key(|(span, _)| span.start);
        let mut out = String::with_capacity(to.saturating_sub(from) + 64);
        let mut at = from;
        for (span, text) in self.list.iter().filter(|(span, _)| span.start >= from && span.end <= to) {
            // A span within one that was replaced is gone with it.
            if span.start < at {
                continue;
            }
            out.push_str(data.get(at..span.start).unwrap_or_default());
            out.push_str(text);
            at = span.end;
        }
        out.push_str(data.get(at..to).unwrap_or_default());
        out
    }
}

impl<S: TextScanner> Core<S> {
    /// Sends one event on.
    pub(super) fn pass(&mut self, frame: &Frame<'_>, data: &str, parts: &[Part]) -> Result<(), StreamError> {
        let mut edits = std::mem::take(&mut self.edits);
        edits.clear();
        let passed = self.edit(data, parts, &mut edits);
        if passed.is_ok() && !edits.dropped {
            self.send(frame, data, &mut edits);
        }
        self.edits = edits;
        passed
    }

    fn edit(&mut self, data: &str, parts: &[Part], edits: &mut Edits) -> Result<(), StreamError> {
        for part in parts {
            match part {
                Part::Text { channel, text, item } => {
                    self.pass_text(data, *channel, *text, *item, edits)?;
                }
                // A fragment of JSON that is no call's is text.
                Part::Json { at, text } if self.calls.standing_at(*at).is_none() => {
                    let kind = TextKind::Other(self.names.number("input_json_delta")?);
                    self.pass_text(data, Channel { at: *at, sub: 0, kind }, *text, None, edits)?;
                }
                Part::Whole { text, .. } | Part::Error { message: Some(text) } => {
                    edits.carries = true;
                    self.pass_whole(data, *text, edits)?;
                }
                Part::More | Part::Done | Part::Error { .. } | Part::Ping => edits.carries = true,
                Part::UsageOnly if !self.usage_asked => edits.dropped = true,
                Part::Stop { at, reason, word } => self.pass_stop(*at, *reason, *word, edits),
                _ => {}
            }
        }
        if !self.calls.all().is_empty() {
            self.pass_calls(data, parts, edits)?;
        }
        self.keep_arounds(data, parts, edits);
        for part in parts {
            if let Part::End { at, sub } = part {
                self.pass_end(data, *at, *sub, parts, edits)?;
            }
        }
        self.finish_edits(parts, edits);
        Ok(())
    }

    fn pass_text(
        &mut self,
        data: &str,
        channel: Channel,
        text: Span,
        item: Option<Span>,
        edits: &mut Edits,
    ) -> Result<(), StreamError> {
        let decoded = Scanner::at(data, text).string()?.decode();
        let item = item.map_or("", |item| item.of(data));
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let pushed = self.texts.push(channel, item, &decoded, &mut out);
        // An event with an empty text means something to somebody.
        edits.carries |= !out.is_empty() || decoded.is_empty();
        if *out != *decoded {
            edits.touched = true;
            edits.set(text, quote(&out));
        }
        self.scratch = out;
        pushed
    }

    fn pass_whole(&mut self, data: &str, text: Span, edits: &mut Edits) -> Result<(), StreamError> {
        let decoded = Scanner::at(data, text).string()?.decode();
        if let Some(masked) = self.texts.whole(&decoded) {
            edits.touched = true;
            edits.set(text, quote(&masked));
        }
        Ok(())
    }

    /// A model that waits for results of calls that were all refused would wait forever.
    fn pass_stop(&mut self, at: u32, reason: Option<StopReason>, word: Option<Span>, edits: &mut Edits) {
        let choice = matches!(self.writer, Writer::Chat(_)).then_some(at);
        let outcome = self.calls.outcome(choice);
        let told = match (reason, outcome, word) {
            (Some(StopReason::ToolCalls), Some(false), Some(word)) => {
                edits.set(word, quote(if choice.is_some() { "stop" } else { "end_turn" }));
                Some(StopReason::End)
            }
            // Responses have no word for it.
            (Some(StopReason::End), Some(true), None) => Some(StopReason::ToolCalls),
            (other, ..) => other,
        };
        self.stopped(told);
    }

    /// Ends the texts at a place, and says what stands in place of the calls that were refused there.
    fn pass_end(
        &mut self,
        data: &str,
        at: Option<u32>,
        sub: Option<u32>,
        parts: &[Part],
        edits: &mut Edits,
    ) -> Result<(), StreamError> {
        let mut rests = self.texts.end(at, sub);
        if let (Some(at), None) = (at, sub) {
            self.texts.complete(at);
        }
        if let (Some(at), Writer::Chat(_)) = (at, &self.writer) {
            self.add_refusals(at, &mut rests);
        }
        for rest in rests {
            let here = parts.iter().rev().find_map(|part| match part {
                Part::Text { channel, text, .. } if *channel == rest.channel => Some(*text),
                _ => None,
            });
            match here {
                Some(text) => {
                    let so_far = edits.list.iter().find(|(span, _)| *span == text).map(|(_, new)| &**new);
                    let so_far = so_far.unwrap_or(text.of(data));
                    let mut whole = Scanner::of(so_far, 1).string()?.decode().into_owned();
                    whole.push_str(&rest.text);
                    (edits.touched, edits.carries) = (true, true);
                    edits.set(text, quote(&whole));
                }
                None => self.say_rest(&rest),
            }
        }
        Ok(())
    }

    /// An event of its own for what is left of a text.
    fn say_rest(&mut self, rest: &Rest) {
        let Channel { at, sub, kind } = rest.channel;
        if let TextKind::Other(_) = kind {
            if let Some((before, after)) = &rest.around {
                let data = format!("{before}{}{after}", quote(&rest.text));
                let data = self.numbered(data);
                let name = self.name_of(&data);
                self.out.event(name.as_deref(), &data);
            }
            return;
        }
        match &mut self.writer {
            Writer::Chat(chat) => chat.more(&mut self.out, at, kind, &rest.text),
            Writer::Messages(_) => write::more(&mut self.out, at, kind, &rest.text),
            Writer::Responses(responses) => {
                responses.more(&mut self.out, &rest.item, (at, sub), kind, &rest.text);
            }
        }
    }

    /// Texts that only their form knows are said to the end with an event like their last.
    fn keep_arounds(&mut self, data: &str, parts: &[Part], edits: &mut Edits) {
        if !edits.touched {
            return;
        }
        for part in parts {
            let (channel, text) = match part {
                Part::Text { channel, text, .. } => (*channel, *text),
                Part::Json { at, text } => match self.names.number("input_json_delta") {
                    Ok(number) => (Channel { at: *at, sub: 0, kind: TextKind::Other(number) }, *text),
                    Err(_) => continue,
                },
                _ => continue,
            };
            if !matches!(channel.kind, TextKind::Other(_)) {
                continue;
            }
            let mut around = Edits { list: edits.list.clone(), ..Edits::default() };
            for other in parts {
                match other {
                    Part::Text { text: other, .. } if *other != text => around.set(*other, "\"\"".into()),
                    Part::Calls { value } => around.set(*value, "null".into()),
                    _ => {}
                }
            }
            let before = around.apply(data, 0, text.start);
            let after = around.apply(data, text.end, data.len());
            self.texts.keep_around(channel, (before, after));
        }
    }

    /// What shows a text once more must not show more of it; events are numbered as they leave.
    fn finish_edits(&mut self, parts: &[Part], edits: &mut Edits) {
        let has_text =
            parts.iter().any(|p| matches!(p, Part::Text { .. } | Part::Json { .. } | Part::Call(_)));
        edits.dropped |= has_text && !edits.carries;
        if edits.dropped {
            return;
        }
        for part in parts {
            match part {
                Part::Blank { value, with } if edits.touched => edits.set(*value, (*with).into()),
                Part::Sequence { value, number } => {
                    if let Writer::Responses(responses) = &mut self.writer {
                        if !self.begun {
                            responses.next_number = *number;
                        }
                        if responses.next_number != *number {
                            edits.set(*value, responses.next_number.to_string());
                        }
                        responses.next_number += 1;
                    }
                }
                _ => {}
            }
        }
        self.begun = true;
    }

    fn send(&mut self, frame: &Frame<'_>, data: &str, edits: &mut Edits) {
        if edits.list.is_empty() {
            return self.out.raw(frame.raw);
        }
        let changed = edits.apply(data, 0, data.len());
        match frame.at {
            Some(at) => {
                self.out.raw(frame.raw.get(..at).unwrap_or_default());
                self.out.raw(changed.as_bytes());
                self.out.raw(frame.raw.get(at + data.len()..).unwrap_or_default());
            }
            None => {
                let name = (frame.event != "message").then_some(frame.event);
                self.out.identified(name, frame.id, &changed);
            }
        }
    }

    /// Data of responses with the next number in it.
    fn numbered(&mut self, data: String) -> String {
        let Writer::Responses(responses) = &mut self.writer else { return data };
        let mut place = None;
        let found = Scanner::of(&data, super::part::DEPTH_MAX).members(|s, name| {
            let value = s.skip()?.span;
            if name.decode() == "sequence_number" {
                place = Some(value);
            }
            Ok::<_, StreamError>(())
        });
        let (Ok(()), Some(place)) = (found, place) else { return data };
        let mut edits = Edits::default();
        edits.set(place, responses.next_number.to_string());
        responses.next_number += 1;
        edits.apply(&data, 0, data.len())
    }

    /// The name of an event whose type stands in its data.
    fn name_of(&self, data: &str) -> Option<String> {
        if matches!(self.writer, Writer::Chat(_)) {
            return None;
        }
        let kind = crate::json::get(data, &["type"])?;
        serde_json::from_str(kind).ok()
    }

    fn pass_calls(&mut self, data: &str, parts: &[Part], edits: &mut Edits) -> Result<(), StreamError> {
        match self.writer {
            Writer::Chat(_) => self.pass_chat_calls(data, parts, edits),
            Writer::Messages(_) => self.pass_block(parts, edits),
            Writer::Responses(_) => {
                self.pass_item(parts, edits);
                self.pass_listed(data, parts, edits);
                Ok(())
            }
        }
    }

    /// Refusals of a choice become content of it.
    fn add_refusals(&mut self, at: u32, rests: &mut Vec<Rest>) {
        let mut text = String::new();
        let mut has_content = self.texts.has_content(at);
        for call in self.calls.all_mut().iter_mut().filter(|call| call.at == at && !call.left) {
            let Some(refusal) = call.refusal().filter(|refusal| !refusal.is_empty()) else { continue };
            if has_content {
                text.push_str("\n\n");
            }
            has_content = true;
            text.push_str(refusal);
            call.left = true;
        }
        if text.is_empty() {
            return;
        }
        let channel = Channel { at, sub: 0, kind: TextKind::Content };
        self.texts.add_note(&text);
        match rests.iter_mut().find(|rest| rest.channel == channel) {
            Some(rest) => rest.text.push_str(&text),
            None => rests.push(Rest { channel, text, item: String::new(), around: None }),
        }
    }

    /// Chat: entries of refused calls leave the array, and the others move up.
    fn pass_chat_calls(&mut self, data: &str, parts: &[Part], edits: &mut Edits) -> Result<(), StreamError> {
        let mut rest = parts;
        while let Some(at) = rest.iter().position(|part| matches!(part, Part::Calls { .. })) {
            let (Some(Part::Calls { value }), tail) = (rest.get(at), rest.get(at + 1..).unwrap_or_default())
            else {
                return Ok(());
            };
            let entries = tail.iter().map_while(|part| match part {
                Part::Call(call) => Some(call),
                _ => None,
            });
            let (mut kept, mut changed) = (Vec::new(), false);
            for entry in entries {
                match self.chat_entry(data, entry)? {
                    Entry::Same(text) => kept.push(text.to_owned()),
                    Entry::Changed(text) => {
                        changed = true;
                        kept.push(text);
                    }
                    Entry::Gone => changed = true,
                }
            }
            edits.carries |= !kept.is_empty();
            if changed {
                let is_array = value.of(data).starts_with('[');
                edits.set(
                    *value,
                    match (kept.is_empty(), is_array) {
                        (true, _) => "null".into(),
                        (false, true) => format!("[{}]", kept.join(",")),
                        (false, false) => kept.concat(),
                    },
                );
            }
            rest = tail;
        }
        Ok(())
    }

    fn chat_entry<'d>(&mut self, data: &'d str, part: &CallPart) -> Result<Entry<'d>, StreamError> {
        let entry = part.entry.unwrap_or(Span { start: 0, end: 0 });
        let Some(call) = self.calls.with_key(part.key) else { return Ok(Entry::Gone) };
        if !call.is_released() {
            return Ok(Entry::Gone);
        }
        let mut edits = Edits::default();
        if let Some(index) = part.index {
            let new = self.calls.released_before(call.at, call.key).to_string();
            if new != index.of(data) {
                edits.set(index, new);
            }
        }
        let rewritten = call.is_rewritten();
        if rewritten {
            match part.arguments {
                _ if call.left => return Ok(Entry::Gone),
                Some(arguments) => {
                    edits.set(arguments.span(), arguments.written(call.arguments()));
                    self.calls.set_left(part.key);
                }
                None => {}
            }
        }
        Ok(match edits.list.is_empty() {
            true => Entry::Same(entry.of(data)),
            false => Entry::Changed(edits.apply(data, entry.start, entry.end)),
        })
    }

    /// Messages: a block that is a refused call's becomes a text block.
    fn pass_block(&mut self, parts: &[Part], edits: &mut Edits) -> Result<(), StreamError> {
        for part in parts {
            let (at, opens) = match part {
                Part::Call(call) => (call.at, true),
                Part::Json { at, .. } => (*at, false),
                Part::End { at: Some(at), .. } => (*at, false),
                _ => continue,
            };
            let Some(call) = self.calls.standing_at(at) else { continue };
            let (key, left, arguments) = (call.key, call.left, quote(call.arguments()));
            if let Some(refusal) = call.refusal() {
                edits.dropped = true;
                if opens && !refusal.is_empty() {
                    let refusal = refusal.to_owned();
                    write::note(&mut self.out, at, &refusal);
                    self.texts.add_note(&refusal);
                    self.calls.set_left(key);
                }
                continue;
            }
            edits.carries = true;
            if !call.is_rewritten() {
                continue;
            }
            match part {
                Part::Call(CallPart { arguments: Some(Arguments::Value(span)), .. }) => {
                    let plain = call.arguments().to_owned();
                    edits.set(*span, plain);
                    self.calls.set_left(key);
                }
                Part::Json { .. } if left => edits.dropped = true,
                Part::Json { text, .. } => {
                    edits.set(*text, arguments);
                    self.calls.set_left(key);
                }
                Part::End { .. } if !left => {
                    let plain = call.arguments().to_owned();
                    write::input(&mut self.out, at, &plain);
                    self.calls.set_left(key);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Responses: an item that is a refused call's becomes a message.
    fn pass_item(&mut self, parts: &[Part], edits: &mut Edits) {
        let at = parts.iter().find_map(|part| match part {
            Part::At(at) => Some(*at),
            _ => None,
        });
        let Some(call) = at.and_then(|at| self.calls.standing_at(at)) else { return };
        let (key, at, left) = (call.key, call.at, call.left);
        let ends = parts.iter().any(|part| matches!(part, Part::End { sub: None, .. }));
        if let Some(refusal) = call.refusal() {
            edits.dropped = true;
            if ends && !refusal.is_empty() {
                let refusal = refusal.to_owned();
                self.note_item(key, at, &refusal);
            }
            return;
        }
        edits.carries = true;
        if !call.is_rewritten() {
            return;
        }
        for part in parts {
            let Part::Call(CallPart { arguments: Some(arguments), .. }) = part else { continue };
            match arguments {
                Arguments::Piece(_) | Arguments::FreePiece(_) if left => edits.dropped = true,
                Arguments::Piece(_) | Arguments::FreePiece(_) => {
                    edits.set(arguments.span(), quote(call.arguments()));
                    self.calls.set_left(key);
                    return;
                }
                _ => edits.set(arguments.span(), arguments.written(call.arguments())),
            }
        }
    }

    fn note_item(&mut self, key: u64, at: u32, refusal: &str) {
        if let Writer::Responses(responses) = &mut self.writer {
            responses.note(&mut self.out, at, refusal);
            self.texts.add_note(refusal);
            self.calls.set_left(key);
        }
    }

    /// Responses: the list at the end says the same as the events before it.
    fn pass_listed(&mut self, data: &str, parts: &[Part], edits: &mut Edits) {
        let mut unsaid = Vec::new();
        for part in parts {
            let Part::Call(part @ CallPart { ends: true, entry: Some(entry), .. }) = part else { continue };
            let Some(call) = self.calls.meant(data, part) else { continue };
            match (call.refusal(), &self.writer) {
                (Some(refusal), Writer::Responses(responses)) => {
                    edits.set(*entry, responses.noted(call.at, refusal));
                    if !call.left {
                        unsaid.push((call.key, call.at, refusal.to_owned()));
                    }
                }
                (None, _) if call.is_rewritten() => {
                    if let Some(arguments) = part.arguments {
                        edits.set(arguments.span(), arguments.written(call.arguments()));
                    }
                }
                _ => {}
            }
        }
        // Calls that stand in the list only were not said before.
        for (key, at, refusal) in unsaid {
            self.note_item(key, at, &refusal);
        }
    }

    /// What is left when the stream ends without ending its texts.
    pub(super) fn pass_rests(&mut self) {
        for rest in self.texts.end(None, None) {
            self.say_rest(&rest);
        }
    }
}

/// What becomes of one entry of `tool_calls`.
enum Entry<'d> {
    Same(&'d str),
    Changed(String),
    Gone,
}

impl Arguments {
    fn span(&self) -> Span {
        match self {
            Self::Piece(span)
            | Self::Whole(span)
            | Self::Value(span)
            | Self::FreePiece(span)
            | Self::FreeWhole(span) => *span,
        }
    }

    /// Other arguments, written as these are.
    fn written(&self, arguments: &str) -> String {
        match self {
            Self::Value(_) => arguments.to_owned(),
            _ => quote(arguments),
        }
    }
}
