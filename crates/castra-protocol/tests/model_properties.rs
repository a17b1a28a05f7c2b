//! What holds for every request and answer of a model API: nothing panics, what need not change keeps its
//! bytes, and what both forms can say survives a translation there and back.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

use castra_protocol::{
    json,
    model::{
        Api, Asked, Form, ModelLimits, RequestFacts, Target, answer, parse_request, prepare, provider_error,
        replace_calls,
    },
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const APIS: [Api; 5] = [Api::Chat, Api::Responses, Api::Embeddings, Api::Messages, Api::CountTokens];
const FORMS: [Form; 4] = [Form::OpenAiChat, Form::OpenAiResponses, Form::AnthropicMessages, Form::Gemini];

fn target(form: Form, model: &str) -> Target<'_> {
    Target {
        form,
        compatible: false,
        model,
        params: &[],
        output_max: None,
        system: None,
        tools: None,
        now: 1_700_000_000,
    }
}

fn facts(api: Api, form: Form) -> RequestFacts {
    RequestFacts {
        api,
        form,
        model: "m".into(),
        stream: false,
        usage_asked: false,
        created: 0,
        asked: Asked::Nothing,
    }
}

/// How many calls an answer in the caller's form has.
fn calls_left(api: Api, body: &[u8]) -> usize {
    let limits = ModelLimits { depth_max: 128, ..ModelLimits::default() };
    answer(&facts(api, api.native_form()), body, &limits).expect("an answer").calls.len()
}

/// Everything that can be done with some bytes.
fn exercise(bytes: &[u8]) {
    let limits = ModelLimits::default();
    for api in APIS {
        if let Ok(request) = parse_request(api, bytes, &limits) {
            let _ = request.input_estimate();
            for form in FORMS {
                for compatible in [false, true] {
                    let params = [("temperature".to_string(), "0.5".to_string())];
                    let system = Some("Be \"brief\".");
                    let target = Target { compatible, params: &params, system, ..target(form, "p") };
                    if let Ok(prepared) = prepare(&request, &target) {
                        json::check(&prepared.body, 128).expect("what is sent is strict JSON");
                    }
                }
            }
        }
        for form in FORMS {
            let facts = facts(api, form);
            if let Ok(answer) = answer(&facts, bytes, &limits) {
                json::check(&answer.body, 128).expect("what is answered is strict JSON");
                let verdicts = vec![Some("No.".to_string()); answer.calls.len()];
                let replaced = replace_calls(api, &answer.body, &verdicts, &limits).expect("read before");
                json::check(&replaced, 128).expect("what is answered is strict JSON");
                let left = calls_left(api, &replaced);
                assert_eq!(left, 0, "all calls were replaced");
            }
            let error = provider_error(&facts, 400, bytes);
            json::check(&error.body, 128).expect("an error is strict JSON");
        }
    }
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{1,12}", "\\PC{1,6}", Just("line\nbreak \"quoted\" \\".to_string())]
        .prop_filter("not blank", |text: &String| !text.is_empty())
}

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_-]{0,8}"
}

fn arguments() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(
        name(),
        prop_oneof![any::<i32>().prop_map(Value::from), words().prop_map(Value::from)],
        0..3,
    )
    .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>()))
}

/// A user's message that both forms can say.
fn user() -> impl Strategy<Value = Vec<Value>> {
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}});
    let link = json!({"type": "image_url", "image_url": {"url": "https://pictures.example/a.png"}});
    let file = json!({"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}});
    let parts = words().prop_map(
        move |text| json!([{"type": "text", "text": text}, image.clone(), link.clone(), file.clone()]),
    );
    prop_oneof![words().prop_map(Value::from), parts]
        .prop_map(|content| vec![json!({"role": "user", "content": content})])
}

/// A turn of the assistant, with the results of its calls.
fn assistant() -> impl Strategy<Value = Vec<Value>> {
    let calls = prop::collection::vec((name(), arguments(), words()), 0..4);
    (prop::option::of(words()), calls).prop_filter_map("says something", |(text, calls)| {
        if text.is_none() && calls.is_empty() {
            return None;
        }
        let mut message = json!({"role": "assistant", "content": text});
        let mut turn = Vec::new();
        if !calls.is_empty() {
            let written = calls.iter().enumerate().map(|(i, (name, arguments, _))| {
                json!({"id": format!("call_{i}"), "type": "function",
                       "function": {"name": name, "arguments": arguments.to_string()}})
            });
            message["tool_calls"] = written.collect();
        }
        turn.push(message);
        for (i, (_, _, result)) in calls.iter().enumerate() {
            turn.push(json!({"role": "tool", "tool_call_id": format!("call_{i}"), "content": result}));
        }
        Some(turn)
    })
}

/// A chat request of which nothing is lost in messages.
fn common_request() -> impl Strategy<Value = Value> {
    let rounds = prop::collection::vec((user(), assistant()), 0..3);
    let tools = prop::collection::vec((name(), prop::option::of(words()), any::<bool>()), 0..3);
    let choice = prop::sample::select(vec![json!("auto"), json!("none"), json!("required")]);
    let numbers = (1_u64..100_000, prop::option::of(0_u8..=10), prop::option::of(0_u8..=10));
    let rest = (any::<bool>(), prop::option::of(words()), prop::collection::vec(words(), 0..3));
    let effort =
        prop::option::of(prop::sample::select(vec!["none", "low", "medium", "high", "xhigh", "max"]));
    (prop::option::of(words()), rounds, user(), tools, choice, numbers, rest, effort).prop_map(
        |(system, rounds, last, tools, choice, (max, temperature, top_p), (stream, who, stop), effort)| {
            let mut messages: Vec<Value> =
                system.map(|text| json!({"role": "system", "content": text})).into_iter().collect();
            for (user, assistant) in rounds {
                messages.extend(user);
                messages.extend(assistant);
            }
            messages.extend(last);
            let mut request =
                json!({"model": "route", "messages": messages, "max_completion_tokens": max, "stream": stream});
            if !tools.is_empty() {
                let written = tools.into_iter().map(|(name, description, strict)| {
                    let mut function = json!({"name": name, "parameters": {"type": "object"}, "strict": strict});
                    if let Some(description) = description {
                        function["description"] = description.into();
                    }
                    json!({"type": "function", "function": function})
                });
                request["tools"] = written.collect();
                request["tool_choice"] = choice;
            }
            for (name, number) in [("temperature", temperature), ("top_p", top_p)] {
                if let Some(number) = number {
                    request[name] = json!(f64::from(number) / 10.0);
                }
            }
            if let Some(who) = who {
                request["safety_identifier"] = who.into();
            }
            if !stop.is_empty() {
                request["stop"] = json!(stop);
            }
            if let Some(effort) = effort {
                request["reasoning_effort"] = effort.into();
            }
            request
        },
    )
}

fn translated(api: Api, form: Form, request: &Value, model: &str) -> Value {
    let text = request.to_string();
    let read = parse_request(api, text.as_bytes(), &ModelLimits::default()).expect("a request");
    let prepared = prepare(&read, &target(form, model)).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert!(prepared.set_aside.is_empty());
    serde_json::from_slice(&prepared.body).expect("JSON")
}

/// A request without what says nothing.
fn normal(mut request: Value) -> Value {
    let members = request.as_object_mut().expect("an object");
    if members.get("stream") == Some(&json!(false)) {
        members.remove("stream");
    }
    members.remove("stream_options");
    request
}

/// Texts with something broken in them.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let files = [
        include_str!("data/model/request/chat-to-messages/tools.request.json"),
        include_str!("data/model/request/chat-to-messages/content.request.json"),
        include_str!("data/model/request/messages-to-chat/tools.request.json"),
        include_str!("data/model/request/messages-to-chat/structured-output.request.json"),
        include_str!("data/model/answer/chat-to-messages/tools.answer.json"),
        include_str!("data/model/answer/messages-to-chat/tools.answer.json"),
    ];
    let compact = files.map(|file| serde_json::from_str::<Value>(file).expect("JSON").to_string());
    let pieces =
        vec!["null", "{}", "[]", "\"x\"", "1e400", "-1", "true", "\\u0000", "\"", "}", "{\"type\":\"text\"}"];
    (
        prop::sample::select(compact.to_vec()),
        any::<prop::sample::Index>(),
        0_usize..12,
        prop::sample::select(pieces),
    )
        .prop_map(|(text, at, cut, piece)| {
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, piece.bytes());
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        exercise(&bytes);
    }

    #[test]
    fn nothing_panics_on_what_is_nearly_right(bytes in damaged()) {
        exercise(&bytes);
    }

    #[test]
    fn what_need_not_change_keeps_its_bytes(request in common_request(), space in "[ \n\t]{0,4}") {
        let mut request = request;
        request["brand_new"] = json!({"kept": [1, null]});
        request["stream_options"] = json!({"include_usage": true});
        let text = format!("{space}{}{space}", serde_json::to_string_pretty(&request).unwrap());
        for api in [Api::Chat, Api::Messages] {
            let read = parse_request(api, text.as_bytes(), &ModelLimits::default()).expect("a request");
            let prepared = prepare(&read, &target(api.native_form(), "route")).expect("the same form");
            prop_assert_eq!(&*prepared.body, text.as_bytes());
        }
    }

    #[test]
    fn what_both_forms_can_say_survives(request in common_request()) {
        let there = translated(Api::Chat, Form::AnthropicMessages, &request, "route");
        let roles: Vec<_> = there["messages"].as_array().unwrap().iter().map(|m| m["role"].clone()).collect();
        prop_assert!(roles.windows(2).all(|pair| pair[0] != pair[1]), "roles alternate: {there}");
        let back = translated(Api::Messages, Form::OpenAiChat, &there, "route");
        prop_assert_eq!(normal(back), normal(request));
    }
}
