//! Chunks of OpenAI chat completions: the role first, then text and calls, then why it stopped, then the
//! usage if it was asked for, then `[DONE]`.

use super::Head;
use crate::{
    json::push_quoted,
    model::{
        StopReason, ToolCall, Usage,
        stream::{frame::Out, part::TextKind},
    },
};

#[derive(Debug)]
pub(crate) struct Chat {
    pub(super) head: Head,
    usage_asked: bool,
    /// Choices that have begun, and how many calls each has.
    calls: Vec<(u32, usize)>,
}

impl Chat {
    pub(super) fn new(head: Head, usage_asked: bool) -> Self {
        Self { head, usage_asked, calls: Vec::new() }
    }

    pub(super) fn text(&mut self, out: &mut Out, at: u32, kind: TextKind, text: &str) {
        self.begin(out, at);
        self.more(out, at, kind, text);
    }

    /// More of a text in a stream that has begun.
    pub(crate) fn more(&self, out: &mut Out, at: u32, kind: TextKind, text: &str) {
        let key = match kind {
            TextKind::Content | TextKind::Other(_) => "content",
            TextKind::Refusal => "refusal",
            TextKind::Reasoning => "reasoning_content",
            TextKind::Summary => "reasoning",
        };
        let mut delta = format!("{{\"{key}\":");
        push_quoted(&mut delta, text);
        delta.push('}');
        self.chunk(out, at, &delta, "null");
    }

    pub(super) fn call(&mut self, out: &mut Out, at: u32, call: &ToolCall) {
        self.begin(out, at);
        let mut delta = format!(r#"{{"tool_calls":[{{"index":{},"id":"#, self.next_call(at));
        push_quoted(&mut delta, &call.id);
        delta.push_str(r#","type":"function","function":{"name":"#);
        push_quoted(&mut delta, &call.name);
        delta.push_str(r#","arguments":"#);
        push_quoted(&mut delta, &call.arguments);
        delta.push_str("}}]}");
        self.chunk(out, at, &delta, "null");
    }

    pub(super) fn stop(&mut self, out: &mut Out, at: u32, reason: StopReason) {
        self.begin(out, at);
        // A pause is the end of this answer; chat completions have no word for it.
        let word = reason.as_chat().unwrap_or("stop");
        self.chunk(out, at, "{}", &format!("\"{word}\""));
    }

    pub(super) fn end(&mut self, out: &mut Out, usage: Usage) {
        if self.usage_asked {
            let Head { id, created, model, .. } = &self.head;
            let (input, output, total) = (usage.input_tokens, usage.output_tokens, usage.total_tokens());
            let (cached, reasoning) = (usage.cache_read_tokens, usage.reasoning_tokens);
            out.event(
                None,
                &format!(
                    r#"{{"id":{id},"object":"chat.completion.chunk","created":{created},"model":{model},"choices":[],"usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{total},"prompt_tokens_details":{{"cached_tokens":{cached}}},"completion_tokens_details":{{"reasoning_tokens":{reasoning}}}}}}}"#
                ),
            );
        }
        out.done();
    }

    /// Says the role of a choice before anything else of it.
    fn begin(&mut self, out: &mut Out, at: u32) {
        if !self.calls.iter().any(|(choice, _)| *choice == at) {
            self.chunk(out, at, r#"{"role":"assistant","content":""}"#, "null");
            self.calls.push((at, 0));
        }
    }

    /// The index of the next call of a choice.
    fn next_call(&mut self, at: u32) -> usize {
        let calls = self.calls.iter_mut().find(|(choice, _)| *choice == at);
        calls.map_or(0, |(_, count)| std::mem::replace(count, *count + 1))
    }

    fn chunk(&self, out: &mut Out, at: u32, delta: &str, finish: &str) {
        let Head { id, created, model, .. } = &self.head;
        out.event(
            None,
            &format!(
                r#"{{"id":{id},"object":"chat.completion.chunk","created":{created},"model":{model},"choices":[{{"index":{at},"delta":{delta},"finish_reason":{finish}}}]}}"#
            ),
        );
    }
}
