//! Events of OpenAI responses: `response.created`; items one after the other, each added, filled and done;
//! `response.completed` with all of them. Every event has the next number.

use super::Head;
use crate::{
    json::quote,
    model::{
        StopReason, ToolCall, Usage,
        stream::{StreamError, frame::Out, part::TextKind},
    },
};

#[derive(Debug)]
pub(crate) struct Responses {
    pub(super) head: Head,
    /// The number of the next event.
    pub(crate) next_number: u64,
    started: bool,
    open: Option<Open>,
    /// Items that are done, as JSON: the response repeats them at its end.
    items: Vec<String>,
    stop: StopReason,
}

/// An item with one part, which is being filled.
#[derive(Debug)]
struct Open {
    kind: TextKind,
    id: String,
    text: String,
}

impl Responses {
    pub(super) fn new(head: Head) -> Self {
        Self { head, next_number: 0, started: false, open: None, items: Vec::new(), stop: StopReason::End }
    }

    pub(super) fn start(&mut self, out: &mut Out) {
        if self.started {
            return;
        }
        self.started = true;
        let response = self.response("in_progress", "null", "null");
        self.event(out, "response.created", &format!(r#""response":{response}"#));
        self.event(out, "response.in_progress", &format!(r#""response":{response}"#));
    }

    pub(super) fn text(&mut self, out: &mut Out, kind: TextKind, text: &str) {
        self.start(out);
        // What another model thought is shown as a summary: only OpenAI's own reasoning has parts that a
        // client could send back.
        let kind = if kind == TextKind::Reasoning { TextKind::Summary } else { kind };
        if self.open.as_ref().is_none_or(|open| open.kind != kind) {
            self.close(out);
            self.open(out, kind);
        }
        let at = self.items.len();
        let Some(open) = &mut self.open else { return };
        open.text.push_str(text);
        let (id, text) = (open.id.clone(), quote(text));
        let (name, place) = delta_place(kind);
        let logprobs = if kind == TextKind::Content { r#","logprobs":[]"# } else { "" };
        self.event(
            out,
            name,
            &format!(r#""item_id":{id},"output_index":{at},"{place}":0,"delta":{text}{logprobs}"#),
        );
    }

    pub(super) fn close(&mut self, out: &mut Out) {
        let Some(open) = self.open.take() else { return };
        let item = self.fill(out, self.items.len(), &open);
        self.items.push(item);
    }

    pub(super) fn call(&mut self, out: &mut Out, call: &ToolCall) {
        self.start(out);
        self.close(out);
        let at = self.items.len();
        let id = self.head.derived("fc", at as u64);
        let (call_id, name, arguments) = (quote(&call.id), quote(&call.name), quote(&call.arguments));
        let item = |status: &str, arguments: &str| {
            format!(
                r#"{{"id":{id},"type":"function_call","status":"{status}","call_id":{call_id},"name":{name},"arguments":{arguments}}}"#
            )
        };
        let place = format!(r#""item_id":{id},"output_index":{at}"#);
        let added = format!(r#""output_index":{at},"item":{}"#, item("in_progress", "\"\""));
        self.event(out, "response.output_item.added", &added);
        self.event(out, "response.function_call_arguments.delta", &format!(r#"{place},"delta":{arguments}"#));
        let done = format!(r#"{place},"name":{name},"arguments":{arguments}"#);
        self.event(out, "response.function_call_arguments.done", &done);
        let item = item("completed", &arguments);
        self.event(out, "response.output_item.done", &format!(r#""output_index":{at},"item":{item}"#));
        self.items.push(item);
    }

    pub(super) fn stop(&mut self, reason: StopReason) {
        self.stop = reason;
    }

    pub(super) fn end(&mut self, out: &mut Out, usage: Usage) {
        self.start(out);
        self.close(out);
        let (status, details) = match self.stop {
            StopReason::MaxTokens | StopReason::ContextFull => {
                ("incomplete", r#"{"reason":"max_output_tokens"}"#)
            }
            StopReason::Refusal => ("incomplete", r#"{"reason":"content_filter"}"#),
            _ => ("completed", "null"),
        };
        let (input, output, total) = (usage.input_tokens, usage.output_tokens, usage.total_tokens());
        let (read, written, reasoning) =
            (usage.cache_read_tokens, usage.cache_write_tokens, usage.reasoning_tokens);
        let usage = format!(
            r#"{{"input_tokens":{input},"input_tokens_details":{{"cached_tokens":{read},"cache_write_tokens":{written}}},"output_tokens":{output},"output_tokens_details":{{"reasoning_tokens":{reasoning}}},"total_tokens":{total}}}"#
        );
        let response = self.response(status, details, &usage);
        self.event(out, &format!("response.{status}"), &format!(r#""response":{response}"#));
    }

    pub(super) fn error(&mut self, out: &mut Out, error: &StreamError) {
        let (code, message) = (quote(error.code()), quote(&error.to_string()));
        self.event(out, "error", &format!(r#""code":{code},"message":{message},"param":null"#));
    }

    /// More of a text whose part is open: the event that the form has for its kind.
    pub(crate) fn more(&mut self, out: &mut Out, item: &str, at: (u32, u32), kind: TextKind, text: &str) {
        let (name, place) = delta_place(kind);
        let logprobs = if kind == TextKind::Content { r#","logprobs":[]"# } else { "" };
        // A provider that names no item leaves none to name.
        let item = if item.is_empty() { "\"\"" } else { item };
        let ((at, sub), text) = (at, quote(text));
        self.event(
            out,
            name,
            &format!(r#""item_id":{item},"output_index":{at},"{place}":{sub},"delta":{text}{logprobs}"#),
        );
    }

    /// A message in place of item `at`.
    pub(crate) fn note(&mut self, out: &mut Out, at: u32, text: &str) {
        let open = self.note_item(at, text);
        let id = &open.id;
        let content = quote(text);
        self.add(out, at as usize, &open);
        self.event(
            out,
            "response.output_text.delta",
            &format!(
                r#""item_id":{id},"output_index":{at},"content_index":0,"delta":{content},"logprobs":[]"#
            ),
        );
        self.fill(out, at as usize, &open);
    }

    /// The item that [`Responses::note`] leaves behind.
    pub(crate) fn noted(&self, at: u32, text: &str) -> String {
        let open = self.note_item(at, text);
        message(&open.id, "completed", &part(TextKind::Content, &quote(text)))
    }

    fn note_item(&self, at: u32, text: &str) -> Open {
        Open { kind: TextKind::Content, id: self.head.derived("msg", at.into()), text: text.into() }
    }

    fn open(&mut self, out: &mut Out, kind: TextKind) {
        let at = self.items.len();
        let prefix = if kind == TextKind::Summary { "rs" } else { "msg" };
        let open = Open { kind, id: self.head.derived(prefix, at as u64), text: String::new() };
        self.add(out, at, &open);
        self.open = Some(open);
    }

    /// The events that begin an item and its part.
    fn add(&mut self, out: &mut Out, at: usize, open: &Open) {
        let (id, empty) = (&open.id, part(open.kind, "\"\""));
        let (item, name, place) = match open.kind {
            TextKind::Summary => (
                format!(r#"{{"id":{id},"type":"reasoning","summary":[]}}"#),
                "response.reasoning_summary_part.added",
                "summary_index",
            ),
            _ => (message(id, "in_progress", ""), "response.content_part.added", "content_index"),
        };
        self.event(out, "response.output_item.added", &format!(r#""output_index":{at},"item":{item}"#));
        let added = format!(r#""item_id":{id},"output_index":{at},"{place}":0,"part":{empty}"#);
        self.event(out, name, &added);
    }

    /// The events that end a part and its item; returns the item.
    fn fill(&mut self, out: &mut Out, at: usize, open: &Open) -> String {
        let (id, text) = (&open.id, quote(&open.text));
        let whole = part(open.kind, &text);
        let (text_done, member, part_done, place) = match open.kind {
            TextKind::Summary => (
                "response.reasoning_summary_text.done",
                "text",
                "response.reasoning_summary_part.done",
                "summary_index",
            ),
            TextKind::Refusal => {
                ("response.refusal.done", "refusal", "response.content_part.done", "content_index")
            }
            _ => ("response.output_text.done", "text", "response.content_part.done", "content_index"),
        };
        let logprobs = if open.kind == TextKind::Content { r#","logprobs":[]"# } else { "" };
        let place = format!(r#""item_id":{id},"output_index":{at},"{place}":0"#);
        self.event(out, text_done, &format!(r#"{place},"{member}":{text}{logprobs}"#));
        self.event(out, part_done, &format!(r#"{place},"part":{whole}"#));
        let item = match open.kind {
            TextKind::Summary => format!(r#"{{"id":{id},"type":"reasoning","summary":[{whole}]}}"#),
            _ => message(id, "completed", &whole),
        };
        self.event(out, "response.output_item.done", &format!(r#""output_index":{at},"item":{item}"#));
        item
    }

    fn event(&mut self, out: &mut Out, name: &str, members: &str) {
        let number = self.next_number;
        self.next_number += 1;
        out.event(Some(name), &format!(r#"{{"type":"{name}","sequence_number":{number},{members}}}"#));
    }

    fn response(&self, status: &str, details: &str, usage: &str) -> String {
        let Head { id, created, model, echo } = &self.head;
        let output = self.items.join(",");
        format!(
            r#"{{"id":{id},"object":"response","created_at":{created},"status":"{status}","error":null,"incomplete_details":{details},"model":{model},"output":[{output}],{echo},"usage":{usage}}}"#
        )
    }
}

fn message(id: &str, status: &str, parts: &str) -> String {
    format!(r#"{{"id":{id},"type":"message","status":"{status}","role":"assistant","content":[{parts}]}}"#)
}

/// A part with its text, which is given as raw JSON.
fn part(kind: TextKind, text: &str) -> String {
    match kind {
        TextKind::Summary => format!(r#"{{"type":"summary_text","text":{text}}}"#),
        TextKind::Refusal => format!(r#"{{"type":"refusal","refusal":{text}}}"#),
        _ => format!(r#"{{"type":"output_text","text":{text},"annotations":[],"logprobs":[]}}"#),
    }
}

/// The event that carries more of a kind of text, and the member that says which part.
fn delta_place(kind: TextKind) -> (&'static str, &'static str) {
    match kind {
        TextKind::Refusal => ("response.refusal.delta", "content_index"),
        TextKind::Reasoning => ("response.reasoning_text.delta", "content_index"),
        TextKind::Summary => ("response.reasoning_summary_text.delta", "summary_index"),
        TextKind::Content | TextKind::Other(_) => ("response.output_text.delta", "content_index"),
    }
}
