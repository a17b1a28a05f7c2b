//! A provider of models on a real socket: it says what a test wants in the form that it is started
//! with, whole or as a stream, and can be wrong in any way on top of that.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::server::{self, Seen, Server, Step};

/// The form that a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Chat,
    Responses,
    Messages,
    Gemini,
}

/// What a model says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Says {
    /// Its text, in the pieces in which it is streamed.
    pub(crate) text: Vec<String>,
    /// Calls of tools: name and arguments, the latter in the pieces in which they are streamed.
    pub(crate) calls: Vec<(String, Vec<String>)>,
}

/// Tokens that every answer claims to have cost: of the request, of the answer.
pub(crate) const USAGE: (u64, u64) = (11, 7);

/// The key that the gate shows to providers; callers must not.
pub(crate) const KEY: &str = "s3cret-provider-key";

impl Says {
    pub(crate) fn text(pieces: &[&str]) -> Self {
        Self { text: pieces.iter().map(|p| (*p).to_owned()).collect(), calls: Vec::new() }
    }

    pub(crate) fn call(mut self, name: &str, arguments: &[&str]) -> Self {
        self.calls.push((name.to_owned(), arguments.iter().map(|p| (*p).to_owned()).collect()));
        self
    }
}

/// What a provider does with one request.
pub(crate) enum Does {
    Say(Says),
    /// Exactly these bytes.
    Raw(Vec<Step>),
}

/// Starts a provider. The script sees each request's body.
pub(crate) async fn start(speaks: Speaks, script: impl Fn(&Value) -> Does + Send + Sync + 'static) -> Server {
    let script = Arc::new(script);
    Server::start(move |seen: &Seen| {
        let body: Value = serde_json::from_str(&seen.body).unwrap_or_default();
        match script(&body) {
            Does::Raw(steps) => steps,
            Does::Say(says) if speaks.streamed(&seen.path, &body) => {
                let mut steps = vec![server::stream()];
                steps.extend(speaks.events(&says, &body).into_iter().map(server::piece));
                steps.push(server::end());
                steps
            }
            Does::Say(says) => server::json(speaks.whole(&says, &body).to_string()),
        }
    })
    .await
}

/// Starts a provider that always says the same.
pub(crate) async fn saying(speaks: Speaks, says: Says) -> Server {
    start(speaks, move |_| Does::Say(says.clone())).await
}

impl Speaks {
    fn streamed(self, path: &str, body: &Value) -> bool {
        match self {
            Self::Gemini => path.contains(":streamGenerateContent"),
            _ => body["stream"] == true,
        }
    }

    /// A whole answer.
    pub(crate) fn whole(self, says: &Says, asked: &Value) -> Value {
        let text = says.text.concat();
        let model = asked["model"].as_str().unwrap_or("some-model");
        let (input, output) = USAGE;
        let calls = says.calls.iter().enumerate();
        match self {
            Self::Chat => {
                let calls: Vec<_> = calls
                    .map(|(i, (name, arguments))| {
                        json!({"id": format!("call_{i}"), "type": "function",
                            "function": {"name": name, "arguments": arguments.concat()}})
                    })
                    .collect();
                let stop = if calls.is_empty() { "stop" } else { "tool_calls" };
                let mut message = json!({"role": "assistant", "content": text});
                if !calls.is_empty() {
                    message["tool_calls"] = calls.into();
                }
                json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": model,
                    "choices": [{"index": 0, "message": message, "finish_reason": stop}],
                    "usage": {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output}})
            }
            Self::Responses => {
                let mut items = Vec::new();
                if !text.is_empty() {
                    items.push(
                        json!({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                        "content": [{"type": "output_text", "text": text, "annotations": []}]}),
                    );
                }
                items.extend(calls.map(|(i, (name, arguments))| {
                    json!({"type": "function_call", "id": format!("fc_{i}"), "call_id": format!("call_{i}"),
                        "name": name, "arguments": arguments.concat(), "status": "completed"})
                }));
                json!({"id": "resp_1", "object": "response", "created_at": 1_700_000_000, "status": "completed",
                    "model": model, "output": items,
                    "usage": {"input_tokens": input, "output_tokens": output, "total_tokens": input + output}})
            }
            Self::Messages => {
                let mut blocks = Vec::new();
                if !text.is_empty() {
                    blocks.push(json!({"type": "text", "text": text}));
                }
                blocks.extend(calls.map(|(i, (name, arguments))| {
                    let input: Value = serde_json::from_str(&arguments.concat()).unwrap();
                    json!({"type": "tool_use", "id": format!("toolu_{i}"), "name": name, "input": input})
                }));
                let stop = if says.calls.is_empty() { "end_turn" } else { "tool_use" };
                json!({"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": blocks,
                    "stop_reason": stop, "stop_sequence": null,
                    "usage": {"input_tokens": input, "output_tokens": output}})
            }
            Self::Gemini => {
                let mut parts = Vec::new();
                if !text.is_empty() {
                    parts.push(json!({"text": text}));
                }
                parts.extend(says.calls.iter().map(|(name, arguments)| {
                    let args: Value = serde_json::from_str(&arguments.concat()).unwrap();
                    json!({"functionCall": {"name": name, "args": args}})
                }));
                json!({"candidates": [{"index": 0, "content": {"role": "model", "parts": parts}, "finishReason": "STOP"}],
                    "usageMetadata": {"promptTokenCount": input, "candidatesTokenCount": output,
                        "totalTokenCount": input + output},
                    "modelVersion": model, "responseId": "gemini-1"})
            }
        }
    }

    /// The same as server-sent events, each as it stands on the wire.
    pub(crate) fn events(self, says: &Says, asked: &Value) -> Vec<String> {
        match self {
            Self::Chat => chat_events(says, asked),
            Self::Responses => self.responses_events(says, asked),
            Self::Messages => messages_events(says, asked),
            Self::Gemini => self.gemini_events(says, asked),
        }
    }

    fn responses_events(self, says: &Says, asked: &Value) -> Vec<String> {
        let whole = self.whole(says, asked);
        let mut begun = whole.clone();
        begun["status"] = "in_progress".into();
        begun["output"] = json!([]);
        begun["usage"] = Value::Null;
        let mut events = vec![json!({"type": "response.created", "response": begun})];
        for (index, item) in whole["output"].as_array().unwrap().iter().enumerate() {
            let mut opened = item.clone();
            opened["status"] = "in_progress".into();
            let message = item["type"] == "message";
            if message {
                opened["content"] = json!([])
            } else {
                opened["arguments"] = "".into()
            }
            events.push(json!({"type": "response.output_item.added", "output_index": index, "item": opened}));
            let id = &item["id"];
            if message {
                let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
                let at = json!({"item_id": id, "output_index": index, "content_index": 0});
                let with = |kind: &str, name: &str, value: Value| {
                    let mut event = at.clone();
                    event["type"] = kind.into();
                    event[name] = value;
                    event
                };
                events.push(with("response.content_part.added", "part", part("")));
                for piece in &says.text {
                    events.push(with("response.output_text.delta", "delta", piece.as_str().into()));
                }
                events.push(with("response.output_text.done", "text", says.text.concat().into()));
                events.push(with("response.content_part.done", "part", part(&says.text.concat())));
            } else {
                let of_call = says.calls.iter().find(|(name, _)| *name == item["name"].as_str().unwrap());
                for piece in of_call.map(|(_, arguments)| arguments.as_slice()).unwrap_or_default() {
                    events.push(json!({"type": "response.function_call_arguments.delta", "item_id": id,
                        "output_index": index, "delta": piece}));
                }
                events.push(json!({"type": "response.function_call_arguments.done", "item_id": id,
                    "output_index": index, "name": item["name"], "arguments": item["arguments"]}));
            }
            events.push(json!({"type": "response.output_item.done", "output_index": index, "item": item}));
        }
        events.push(json!({"type": "response.completed", "response": whole}));
        let numbered = events.into_iter().enumerate().map(|(number, mut event)| {
            event["sequence_number"] = number.into();
            let kind = event["type"].as_str().unwrap().to_owned();
            named(&kind, &event)
        });
        numbered.collect()
    }

    fn gemini_events(self, says: &Says, asked: &Value) -> Vec<String> {
        let (input, output) = USAGE;
        let mut parts: Vec<Value> = says.text.iter().map(|piece| json!({"text": piece})).collect();
        parts.extend(says.calls.iter().map(|(name, arguments)| {
            let args: Value = serde_json::from_str(&arguments.concat()).unwrap();
            json!({"functionCall": {"name": name, "args": args}})
        }));
        let last = parts.len().saturating_sub(1);
        let model = asked["model"].as_str().unwrap_or("some-model");
        let chunk = |(i, part): (usize, Value)| {
            let mut candidate = json!({"index": 0, "content": {"role": "model", "parts": [part]}});
            let mut event = json!({"modelVersion": model, "responseId": "gemini-1"});
            if i == last {
                candidate["finishReason"] = "STOP".into();
                event["usageMetadata"] = json!({"promptTokenCount": input, "candidatesTokenCount": output,
                    "totalTokenCount": input + output});
            }
            event["candidates"] = json!([candidate]);
            data(&event)
        };
        parts.into_iter().enumerate().map(chunk).collect()
    }
}

fn chat_events(says: &Says, asked: &Value) -> Vec<String> {
    let model = asked["model"].as_str().unwrap_or("some-model");
    let chunk = |choices: Value| {
        json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": model,
            "choices": choices})
    };
    let delta = |delta: Value, stop: Value| {
        data(&chunk(json!([{"index": 0, "delta": delta, "finish_reason": stop}])))
    };
    let mut events = vec![delta(json!({"role": "assistant", "content": ""}), Value::Null)];
    events.extend(says.text.iter().map(|piece| delta(json!({"content": piece}), Value::Null)));
    for (i, (name, arguments)) in says.calls.iter().enumerate() {
        let begin = json!({"index": i, "id": format!("call_{i}"), "type": "function",
            "function": {"name": name, "arguments": ""}});
        events.push(delta(json!({"tool_calls": [begin]}), Value::Null));
        for piece in arguments {
            let more = json!({"index": i, "function": {"arguments": piece}});
            events.push(delta(json!({"tool_calls": [more]}), Value::Null));
        }
    }
    let stop = if says.calls.is_empty() { "stop" } else { "tool_calls" };
    events.push(delta(json!({}), stop.into()));
    if asked["stream_options"]["include_usage"] == true {
        let (input, output) = USAGE;
        let mut last = chunk(json!([]));
        last["usage"] =
            json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output});
        events.push(data(&last));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn messages_events(says: &Says, asked: &Value) -> Vec<String> {
    let (input, output) = USAGE;
    let model = asked["model"].as_str().unwrap_or("some-model");
    let event = |value: Value| named(value["type"].as_str().unwrap(), &value);
    let mut events =
        vec![event(json!({"type": "message_start", "message": {"id": "msg_1", "type": "message",
        "role": "assistant", "model": model, "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": input, "output_tokens": 1}}}))];
    let mut index = 0;
    let mut block = |begin: Value, deltas: Vec<Value>| {
        events.push(event(json!({"type": "content_block_start", "index": index, "content_block": begin})));
        for delta in deltas {
            events.push(event(json!({"type": "content_block_delta", "index": index, "delta": delta})));
        }
        events.push(event(json!({"type": "content_block_stop", "index": index})));
        index += 1;
    };
    if !says.text.is_empty() {
        let deltas = says.text.iter().map(|piece| json!({"type": "text_delta", "text": piece}));
        block(json!({"type": "text", "text": ""}), deltas.collect());
    }
    for (i, (name, arguments)) in says.calls.iter().enumerate() {
        let deltas = arguments.iter().map(|piece| json!({"type": "input_json_delta", "partial_json": piece}));
        let begin = json!({"type": "tool_use", "id": format!("toolu_{i}"), "name": name, "input": {}});
        block(begin, deltas.collect());
    }
    let stop = if says.calls.is_empty() { "end_turn" } else { "tool_use" };
    events
        .push(event(json!({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": null},
        "usage": {"output_tokens": output}})));
    events.push(event(json!({"type": "message_stop"})));
    events
}

fn data(event: &Value) -> String {
    format!("data: {event}\n\n")
}

fn named(name: &str, event: &Value) -> String {
    format!("event: {name}\ndata: {event}\n\n")
}
