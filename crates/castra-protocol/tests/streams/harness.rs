//! Runs a stream and reads what a client would read.

use std::sync::Arc;

use castra_core::{StreamMode, TextScanner};
use castra_protocol::{
    model::{
        Api, Asked, Form, RequestFacts,
        stream::{CallVerdict, Framing, SaidText, Step, StreamEngine, StreamLimits, StreamOptions, Summary},
    },
    sse,
};
use serde_json::Value;

pub(crate) const SECRET: &str = "sk-Ω\"7\n-🔑-sk-5";
pub(crate) const MASK: &str = "[masked]";

/// Masks one literal: holds back the longest end that the literal begins with.
#[derive(Default)]
pub(crate) struct Literal {
    held: String,
    found: Vec<Arc<str>>,
}

impl TextScanner for Literal {
    fn push(&mut self, text: &str, out: &mut String) {
        self.held.push_str(text);
        while let Some(at) = self.held.find(SECRET) {
            out.push_str(&self.held[..at]);
            out.push_str(MASK);
            self.held.drain(..at + SECRET.len());
            self.found = vec!["secret.test".into()];
        }
        let ends = SECRET.char_indices().map(|(at, _)| at).rev();
        let keep = ends.filter(|at| self.held.ends_with(&SECRET[..*at])).max().unwrap_or(0);
        out.push_str(&self.held[..self.held.len() - keep]);
        self.held.drain(..self.held.len() - keep);
    }

    fn finish(&mut self, out: &mut String) {
        out.push_str(&std::mem::take(&mut self.held));
    }

    fn findings(&self) -> &[Arc<str>] {
        &self.found
    }
}

pub(crate) fn facts(form: Form, api: Api) -> RequestFacts {
    let (stream, usage_asked) = (true, true);
    RequestFacts {
        api,
        form,
        model: "route".into(),
        stream,
        usage_asked,
        created: 1_700_000_000,
        asked: Asked::Nothing,
    }
}

pub(crate) fn options(mode: StreamMode) -> StreamOptions {
    let limits = StreamLimits::default();
    StreamOptions { mode, framing: Framing::Sse, limits, input_tokens: 11, id: "castra1".into() }
}

/// Tools whose name says so are refused or get other arguments.
pub(crate) fn verdict(name: &str) -> CallVerdict {
    if name.contains("forbidden") {
        CallVerdict::Refuse(format!("The call of {name} was refused: no policy permits it."))
    } else if name.contains("changed") {
        CallVerdict::Rewrite("{\"path\":\"/elsewhere\"}".into())
    } else {
        CallVerdict::Release
    }
}

/// Runs chunks through an engine, as a gate would.
pub(crate) fn run<'c>(
    facts: &RequestFacts,
    options: StreamOptions,
    chunks: impl IntoIterator<Item = &'c [u8]>,
) -> (Vec<u8>, Summary) {
    let mut engine = StreamEngine::new(facts, options, Box::new(Literal::default));
    let mut out = Vec::new();
    let mut chunks = chunks.into_iter();
    loop {
        match engine.next() {
            Step::Out(bytes) => out.extend_from_slice(&bytes),
            Step::Decide(call) => engine.decided(verdict(&call.name)),
            Step::Need => match chunks.next() {
                Some(chunk) => engine.feed(chunk),
                None => engine.finish(),
            },
            Step::End(summary) => {
                assert_eq!(summary.bytes_out, out.len() as u64);
                return (out, *summary);
            }
        }
    }
}

pub(crate) fn run_whole(form: Form, api: Api, bytes: &[u8]) -> (String, Summary) {
    let (out, summary) = run(&facts(form, api), options(StreamMode::Window), [bytes]);
    (String::from_utf8(out).expect("UTF-8"), summary)
}

/// Events as a client reads them: name and data.
pub(crate) fn events(bytes: &[u8]) -> Vec<(String, String)> {
    let mut decoder = sse::Decoder::new(1 << 24);
    let mut events = Vec::new();
    decoder.feed(bytes, |e| events.push((e.event.to_owned(), e.data.to_owned()))).expect("events");
    assert!(!decoder.is_inside(), "half an event at the end");
    events
}

/// What a client makes of a stream, which must keep all rules of its form.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Read {
    pub(crate) content: String,
    pub(crate) reasoning: String,
    pub(crate) calls: Vec<(String, String)>,
    pub(crate) stop: String,
    pub(crate) error: Option<String>,
}

pub(crate) fn read(api: Api, bytes: &[u8]) -> Read {
    match api {
        Api::Chat => read_chat(bytes),
        Api::Messages => read_messages(bytes),
        _ => read_responses(bytes),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn read_chat(bytes: &[u8]) -> Read {
    let mut events = events(bytes);
    assert_eq!(events.pop().map(|e| e.1).as_deref(), Some("[DONE]"), "the end");
    let mut read = Read::default();
    let mut role = false;
    for (_, data) in events {
        let chunk: Value = serde_json::from_str(&data).expect("JSON");
        if let Some(error) = chunk.get("error") {
            read.error = Some(text(&error["message"]).into());
            continue;
        }
        assert!(read.error.is_none(), "nothing follows an error");
        for choice in chunk["choices"].as_array().expect("choices") {
            let delta = &choice["delta"];
            role |= delta["role"] == "assistant";
            assert!(role, "the role comes first: {data}");
            assert!(read.stop.is_empty(), "nothing follows the finish: {data}");
            read.content += text(&delta["content"]);
            read.reasoning += text(&delta["reasoning_content"]);
            for call in delta["tool_calls"].as_array().into_iter().flatten() {
                let index = call["index"].as_u64().expect("index") as usize;
                if index == read.calls.len() {
                    read.calls.push((text(&call["function"]["name"]).into(), String::new()));
                }
                read.calls[index].1 += text(&call["function"]["arguments"]);
            }
            read.stop += text(&choice["finish_reason"]);
        }
    }
    read
}

fn read_messages(bytes: &[u8]) -> Read {
    let mut read = Read::default();
    let (mut open, mut next, mut started, mut stopped) = (None::<String>, 0, false, false);
    for (name, data) in events(bytes) {
        let event: Value = serde_json::from_str(&data).expect("JSON");
        assert_eq!(event["type"], name, "the name is the type");
        assert!(!stopped && read.error.is_none(), "nothing follows the end: {data}");
        match &*name {
            "ping" => {}
            "error" => read.error = Some(text(&event["error"]["message"]).into()),
            "message_start" => {
                assert!(!std::mem::replace(&mut started, true), "one start");
            }
            "content_block_start" => {
                assert!(started && open.is_none(), "blocks follow each other: {data}");
                assert_eq!(event["index"], next);
                let block = &event["content_block"];
                if block["type"] == "tool_use" {
                    read.calls.push((text(&block["name"]).into(), String::new()));
                }
                read.content += text(&block["text"]);
                open = Some(text(&block["type"]).into());
            }
            "content_block_delta" => {
                assert_eq!(event["index"], next);
                let delta = &event["delta"];
                match (&*open.clone().expect("an open block"), text(&delta["type"])) {
                    ("text", "text_delta") => read.content += text(&delta["text"]),
                    ("thinking", "thinking_delta") => read.reasoning += text(&delta["thinking"]),
                    ("thinking", "signature_delta") | ("server_tool_use", "input_json_delta") => {}
                    ("tool_use", "input_json_delta") => {
                        read.calls.last_mut().expect("a call").1 += text(&delta["partial_json"]);
                    }
                    other => panic!("{other:?}: {data}"),
                }
            }
            "content_block_stop" => {
                assert_eq!(event["index"], next);
                assert!(open.take().is_some());
                next += 1;
            }
            "message_delta" => {
                assert!(open.is_none(), "blocks end before the message");
                read.stop += text(&event["delta"]["stop_reason"]);
            }
            "message_stop" => {
                assert!(!read.stop.is_empty(), "why it stopped comes first");
                stopped = true;
            }
            _ => {}
        }
    }
    assert!(stopped || read.error.is_some(), "the end");
    read
}

fn read_responses(bytes: &[u8]) -> Read {
    let mut read = Read::default();
    let mut items: Vec<Value> = Vec::new();
    let mut texts = String::new();
    for (number, (name, data)) in events(bytes).into_iter().enumerate() {
        let event: Value = serde_json::from_str(&data).expect("JSON");
        assert_eq!(event["type"], name, "the name is the type");
        assert_eq!(event["sequence_number"], number, "numbers follow each other: {data}");
        assert!(read.stop.is_empty() && read.error.is_none(), "nothing follows the end: {data}");
        match &*name {
            "response.created" => assert_eq!(number, 0),
            "response.output_item.added" => assert_eq!(event["output_index"], items.len()),
            "response.output_text.delta" => {
                texts += text(&event["delta"]);
                read.content += text(&event["delta"]);
            }
            "response.reasoning_summary_text.delta" => read.reasoning += text(&event["delta"]),
            "response.output_text.done" => {
                assert_eq!(text(&event["text"]), texts, "the whole repeats the deltas");
                texts.clear();
            }
            "response.function_call_arguments.delta" => texts += text(&event["delta"]),
            "response.function_call_arguments.done" => {
                assert_eq!(text(&event["arguments"]), texts, "the whole repeats the deltas");
                texts.clear();
            }
            "response.output_item.done" => {
                let item = event["item"].clone();
                if item["type"] == "function_call" {
                    read.calls.push((text(&item["name"]).into(), text(&item["arguments"]).into()));
                }
                items.push(item);
            }
            "response.completed" | "response.incomplete" => {
                read.stop = text(&event["response"]["status"]).into();
                let listed = event["response"]["output"].as_array().expect("output");
                assert!(items.iter().all(|item| listed.contains(item)), "the list repeats the items: {data}");
            }
            "response.failed" => read.error = Some(text(&event["response"]["error"]["message"]).into()),
            "error" => read.error = Some(text(&event["message"]).into()),
            _ => {}
        }
    }
    assert!(!read.stop.is_empty() || read.error.is_some(), "the end");
    read
}

/// The text of a summary.
pub(crate) fn said(summary: &Summary) -> &str {
    match &summary.text {
        SaidText::Whole(text) => text,
        SaidText::Digest { .. } => "",
    }
}
