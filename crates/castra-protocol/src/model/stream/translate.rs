//! A stream that leaves in another form than that in which it came.
//!
//! Every event is written anew. A text is what the caller's form joins: all content of a choice in chat
//! completions, one block or part in the other forms, however the provider cut it.

use castra_core::TextScanner;

use super::{
    Core, StreamError,
    part::{Channel, Part, TextKind},
};
use crate::{
    json::{Scanner, Span},
    model::StopReason,
};

impl<S: TextScanner> Core<S> {
    /// Says what an event says in the caller's form.
    pub(super) fn translate(&mut self, data: &str, parts: &[Part]) -> Result<(), StreamError> {
        for part in parts {
            match part {
                Part::Opening { .. } => self.writer.start(&mut self.out),
                Part::Text { channel, text, .. } => {
                    if text.end - text.start > 2 {
                        self.seen(*channel);
                    }
                    self.translate_text(data, *channel, *text)?;
                }
                Part::Json { at, .. } if self.calls.standing_at(*at).is_none() => {
                    return Err(StreamError::Untranslatable("the input of a tool that the provider runs"));
                }
                Part::Whole { channel: Some(channel), text } if !self.has_seen(*channel) => {
                    // Said at once, without deltas.
                    self.translate_text(data, *channel, *text)?;
                }
                Part::Call(call) if call.ends => {
                    let key = self.calls.meant(data, call).map(|call| call.key);
                    self.translate_calls(|call| Some(call.key) == key)?;
                }
                Part::End { at, sub: None } => {
                    self.translate_calls(|call| at.is_none_or(|at| at == call.at))?;
                }
                Part::Stop { at, reason, .. } => {
                    self.pending_stop = Some((*at, reason.unwrap_or(StopReason::End)))
                }
                Part::Foreign(what) => return Err(StreamError::Untranslatable(what)),
                _ => {}
            }
        }
        // Why it stopped comes after what the event ends.
        if let Some((at, reason)) = self.pending_stop.take() {
            self.translate_stop(at, reason)?;
        }
        Ok(())
    }

    /// Remembers that a text came in deltas, so that what repeats it is not said again.
    fn seen(&mut self, channel: Channel) {
        if !self.seen.contains(&channel) {
            self.seen.push(channel);
        }
    }

    fn has_seen(&mut self, channel: Channel) -> bool {
        let known = self.seen.contains(&channel);
        self.seen(channel);
        known
    }

    fn translate_text(&mut self, data: &str, from: Channel, text: Span) -> Result<(), StreamError> {
        let decoded = Scanner::at(data, text).string()?.decode();
        if decoded.is_empty() {
            return Ok(());
        }
        let kind = match from.kind {
            TextKind::Summary => TextKind::Reasoning,
            TextKind::Other(_) => {
                return Err(StreamError::Untranslatable("a text that only its own form has"));
            }
            kind => kind,
        };
        let at = self.choice(from.at)?;
        let channel = Channel { at, sub: 0, kind };
        if self.writer.is_sequential() && self.current.is_some_and(|current| current != channel) {
            self.close_text();
        }
        self.current = Some(channel);
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let pushed = self.texts.push(channel, "", &decoded, &mut out);
        if !out.is_empty() {
            self.writer.text(&mut self.out, at, kind, &out);
        }
        self.scratch = out;
        pushed
    }

    /// The choice of a part: only forms that have choices have more than the first.
    fn choice(&self, at: u32) -> Result<u32, StreamError> {
        let at = if self.has_choices { at } else { 0 };
        match at > 0 && self.writer.is_sequential() {
            true => Err(StreamError::Untranslatable("more than one choice")),
            false => Ok(at),
        }
    }

    /// Ends the text that is being written, where one ends before the next begins.
    fn close_text(&mut self) {
        self.current = None;
        for rest in self.texts.end(None, None) {
            self.writer.text(&mut self.out, rest.channel.at, rest.channel.kind, &rest.text);
        }
        self.texts.forget_ended();
        self.writer.close(&mut self.out);
    }

    fn translate_calls(&mut self, meant: impl Fn(&super::calls::Call) -> bool) -> Result<(), StreamError> {
        let mut ready = Vec::new();
        for call in self.calls.all_mut().iter_mut().filter(|call| !call.left && meant(call)) {
            if call.is_released() {
                let said = call.released();
                ready.push((
                    call.at,
                    Ok(said
                        .ok_or(StreamError::Untranslatable("a call of a tool that only its own form has"))?),
                ));
            } else if let Some(refusal) = call.refusal() {
                ready.push((call.at, Err(refusal.to_owned())));
            } else {
                continue;
            }
            call.left = true;
        }
        for (at, call) in ready {
            let at = self.choice(at)?;
            if self.writer.is_sequential() {
                self.close_text();
            }
            match call {
                Ok(call) => self.writer.call(&mut self.out, at, &call),
                Err(refusal) if refusal.is_empty() => {}
                Err(refusal) => self.translate_refusal(at, &refusal),
            }
        }
        Ok(())
    }

    /// The text in place of a refused call comes after what was held back before it.
    fn translate_refusal(&mut self, at: u32, refusal: &str) {
        let mut text = String::new();
        if !self.writer.is_sequential() {
            for rest in self.texts.end(Some(at), None) {
                self.writer.text(&mut self.out, at, rest.channel.kind, &rest.text);
            }
            if self.texts.has_content(at) {
                text.push_str("\n\n");
            }
            self.texts.forget_ended();
        }
        text.push_str(refusal);
        self.texts.add_note(&text);
        self.writer.note(&mut self.out, at, &text);
    }

    fn translate_stop(&mut self, at: u32, reason: StopReason) -> Result<(), StreamError> {
        let at = self.choice(at)?;
        let of_choice = self.has_choices.then_some(at);
        let reason = match (reason, self.calls.outcome(of_choice)) {
            (StopReason::End | StopReason::ToolCalls, Some(true)) => StopReason::ToolCalls,
            (StopReason::ToolCalls, Some(false)) => StopReason::End,
            (other, _) => other,
        };
        self.translate_rests(Some(at));
        self.texts.complete(at);
        self.writer.stop(&mut self.out, at, reason);
        self.stopped(Some(reason));
        Ok(())
    }

    /// Says what is left of the texts of a choice (None: of all).
    pub(super) fn translate_rests(&mut self, at: Option<u32>) {
        if self.writer.is_sequential() {
            return self.close_text();
        }
        for rest in self.texts.end(at, None) {
            self.writer.text(&mut self.out, rest.channel.at, rest.channel.kind, &rest.text);
        }
    }

    /// The stream is complete.
    pub(super) fn translate_end(&mut self) {
        self.translate_rests(None);
        let usage = self.usage();
        self.writer.end(&mut self.out, usage);
    }
}
