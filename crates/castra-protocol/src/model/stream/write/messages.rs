//! Events of Anthropic messages: `message_start`; blocks one after the other, each with start, deltas and
//! stop; `message_delta` with why it stopped and the usage; `message_stop`.

use super::Head;
use crate::{
    json::quote,
    model::{
        StopReason, ToolCall, Usage,
        stream::{frame::Out, part::TextKind},
    },
};

#[derive(Debug)]
pub(crate) struct Messages {
    pub(super) head: Head,
    /// Input tokens as far as they are known when the message begins.
    input_tokens: u64,
    started: bool,
    /// The block that is open, and its kind.
    open: Option<TextKind>,
    next: u32,
    stop: StopReason,
}

impl Messages {
    pub(super) fn new(head: Head, input_tokens: u64) -> Self {
        Self { head, input_tokens, started: false, open: None, next: 0, stop: StopReason::End }
    }

    pub(super) fn start(&mut self, out: &mut Out) {
        if self.started {
            return;
        }
        self.started = true;
        let Head { id, model, .. } = &self.head;
        let input = self.input_tokens;
        out.event(
            Some("message_start"),
            &format!(
                r#"{{"type":"message_start","message":{{"id":{id},"type":"message","role":"assistant","model":{model},"content":[],"stop_reason":null,"stop_sequence":null,"usage":{{"input_tokens":{input},"output_tokens":0}}}}}}"#
            ),
        );
    }

    pub(super) fn text(&mut self, out: &mut Out, kind: TextKind, text: &str) {
        self.start(out);
        let kind = match kind {
            TextKind::Reasoning | TextKind::Summary => TextKind::Reasoning,
            _ => TextKind::Content,
        };
        if self.open != Some(kind) {
            self.close(out);
            let block = match kind {
                TextKind::Reasoning => r#"{"type":"thinking","thinking":"","signature":""}"#,
                _ => r#"{"type":"text","text":""}"#,
            };
            begin(out, self.next, block);
            self.open = Some(kind);
        }
        more(out, self.next, kind, text);
    }

    pub(super) fn close(&mut self, out: &mut Out) {
        if self.open.take().is_some() {
            end(out, self.next);
            self.next += 1;
        }
    }

    pub(super) fn call(&mut self, out: &mut Out, call: &ToolCall) {
        self.start(out);
        self.close(out);
        let (id, name) = (quote(&call.id), quote(&call.name));
        begin(out, self.next, &format!(r#"{{"type":"tool_use","id":{id},"name":{name},"input":{{}}}}"#));
        input(out, self.next, &call.arguments);
        end(out, self.next);
        self.next += 1;
    }

    pub(super) fn stop(&mut self, reason: StopReason) {
        self.stop = reason;
    }

    pub(super) fn end(&mut self, out: &mut Out, usage: Usage) {
        self.start(out);
        self.close(out);
        let reason = self.stop.as_messages();
        let (read, written) = (usage.cache_read_tokens, usage.cache_write_tokens);
        let (input, output) = (usage.uncached_input_tokens(), usage.output_tokens);
        out.event(
            Some("message_delta"),
            &format!(
                r#"{{"type":"message_delta","delta":{{"stop_reason":"{reason}","stop_sequence":null}},"usage":{{"input_tokens":{input},"cache_creation_input_tokens":{written},"cache_read_input_tokens":{read},"output_tokens":{output}}}}}"#
            ),
        );
        stop(out);
    }
}

/// `message_stop`.
pub(crate) fn stop(out: &mut Out) {
    out.event(Some("message_stop"), r#"{"type":"message_stop"}"#);
}

/// More of a text in block `at`.
pub(crate) fn more(out: &mut Out, at: u32, kind: TextKind, text: &str) {
    let text = quote(text);
    let delta = match kind {
        TextKind::Reasoning | TextKind::Summary => {
            format!(r#"{{"type":"thinking_delta","thinking":{text}}}"#)
        }
        _ => format!(r#"{{"type":"text_delta","text":{text}}}"#),
    };
    block_delta(out, at, &delta);
}

/// Arguments of the call in block `at`.
pub(crate) fn input(out: &mut Out, at: u32, arguments: &str) {
    block_delta(out, at, &format!(r#"{{"type":"input_json_delta","partial_json":{}}}"#, quote(arguments)));
}

/// A text block in place of block `at`.
pub(crate) fn note(out: &mut Out, at: u32, text: &str) {
    begin(out, at, r#"{"type":"text","text":""}"#);
    more(out, at, TextKind::Content, text);
    end(out, at);
}

fn begin(out: &mut Out, at: u32, block: &str) {
    let data = format!(r#"{{"type":"content_block_start","index":{at},"content_block":{block}}}"#);
    out.event(Some("content_block_start"), &data);
}

fn block_delta(out: &mut Out, at: u32, delta: &str) {
    let data = format!(r#"{{"type":"content_block_delta","index":{at},"delta":{delta}}}"#);
    out.event(Some("content_block_delta"), &data);
}

fn end(out: &mut Out, at: u32) {
    out.event(Some("content_block_stop"), &format!(r#"{{"type":"content_block_stop","index":{at}}}"#));
}
