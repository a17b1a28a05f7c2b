//! What must hold of every translation of model APIs: nothing that is said is lost on the way, what
//! comes out is JSON, and what need not change does not.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

use castra_protocol::{
    json,
    model::{
        Api, Form, ModelLimits, RequestFacts, Target, answer, parse_request, prepare, provider_error,
        replace_calls,
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};

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
        now: 1,
    }
}

fn body_of(api: Api, request: &Value, form: Form) -> String {
    let bytes = serde_json::to_vec(request).unwrap();
    let limits = ModelLimits::default();
    let parsed = parse_request(api, &bytes, &limits).expect("a request");
    let prepared = prepare(&parsed, &target(form, "m")).unwrap_or_else(|e| panic!("{form:?}: {e}"));
    String::from_utf8(prepared.body.into_owned()).unwrap()
}

fn facts(api: Api, form: Form) -> RequestFacts {
    let request = match api {
        Api::Messages => {
            json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]})
        }
        Api::Responses => json!({"model": "m", "input": "x"}),
        _ => json!({"model": "m", "messages": [{"role": "user", "content": "x"}]}),
    };
    let bytes = serde_json::to_vec(&request).unwrap();
    let parsed = parse_request(api, &bytes, &ModelLimits::default()).unwrap();
    prepare(&parsed, &target(form, "m")).unwrap().facts
}

/// Something said: never empty, and not a part of anything else that is written.
fn said() -> impl Strategy<Value = String> {
    "[a-z\"\\\\\n\u{e9}\u{1f600}]{0,8}".prop_map(|text| format!("<{text}>"))
}

/// A step of a conversation.
#[derive(Debug, Clone)]
enum Step {
    Asked(String),
    Answered(String),
    Called { text: String, result: String },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        said().prop_map(Step::Asked),
        said().prop_map(Step::Answered),
        (said(), said()).prop_map(|(text, result)| Step::Called { text, result }),
    ];
    prop::collection::vec(step, 0..6)
}

/// The conversation as a Responses request, and all that is said in it.
fn responses_request(system: &str, steps: &[Step]) -> (Value, Vec<String>) {
    let mut input = vec![json!({"role": "user", "content": "<start>"})];
    let mut all = vec![system.to_owned(), "<start>".to_owned()];
    for (index, step) in steps.iter().enumerate() {
        let id = format!("call_{index}");
        match step {
            Step::Asked(text) => input.push(json!({"role": "user", "content": [{"type": "input_text", "text": text}]})),
            Step::Answered(text) => input.push(json!({"type": "message", "role": "assistant", "id": "msg_1",
                "status": "completed", "content": [{"type": "output_text", "text": text, "annotations": []}]})),
            Step::Called { text, .. } => {
                let arguments = json!({"q": text}).to_string();
                input.push(json!({"type": "function_call", "call_id": id, "name": "find", "arguments": arguments}));
            }
        }
        match step {
            Step::Asked(text) | Step::Answered(text) => all.push(text.clone()),
            Step::Called { text, result } => {
                input.push(json!({"type": "function_call_output", "call_id": id, "output": result}));
                all.extend([text.clone(), result.clone(), id]);
            }
        }
    }
    (json!({"model": "m", "instructions": system, "input": input}), all)
}

/// All strings of a JSON text, those that are JSON themselves opened.
fn strings(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            if let Ok(inner @ Value::Object(_)) = serde_json::from_str(text) {
                strings(&inner, into);
            }
            into.push(text.clone());
        }
        Value::Array(list) => list.iter().for_each(|v| strings(v, into)),
        Value::Object(members) => members.values().for_each(|v| strings(v, into)),
        _ => {}
    }
}

fn strings_of(body: &str) -> Vec<String> {
    json::check(body.as_bytes(), 64).expect("strict JSON");
    let mut found = Vec::new();
    strings(&serde_json::from_str(body).unwrap(), &mut found);
    found
}

/// The same answer of a model in every form of a provider.
fn provider_answer(form: Form, text: &str, argument: &str) -> Value {
    let args = json!({"q": argument});
    match form {
        Form::OpenAiChat => {
            json!({"id": "c", "model": "m", "choices": [{"index": 0, "finish_reason": "tool_calls",
            "message": {"role": "assistant", "content": text,
                "tool_calls": [{"id": "id1", "type": "function", "function": {"name": "find", "arguments": args.to_string()}}]}}]})
        }
        Form::OpenAiResponses => json!({"id": "r", "model": "m", "status": "completed", "output": [
            {"type": "message", "id": "msg", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": text, "annotations": []}]},
            {"type": "function_call", "id": "fc", "call_id": "id1", "name": "find", "arguments": args.to_string()}]}),
        Form::AnthropicMessages => json!({"id": "m", "type": "message", "role": "assistant", "model": "m",
            "content": [{"type": "text", "text": text}, {"type": "tool_use", "id": "id1", "name": "find", "input": args}],
            "stop_reason": "tool_use", "stop_sequence": null, "usage": {"input_tokens": 1, "output_tokens": 2}}),
        Form::Gemini => {
            json!({"responseId": "g", "candidates": [{"finishReason": "STOP", "content": {"role": "model",
            "parts": [{"text": text}, {"functionCall": {"id": "id1", "name": "find", "args": args}}]}}]})
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nothing_that_is_said_is_lost(system in said(), steps in steps()) {
        let (request, all) = responses_request(&system, &steps);
        for form in FORMS {
            let found = strings_of(&body_of(Api::Responses, &request, form)).concat();
            for text in &all {
                prop_assert!(found.contains(text.as_str()), "{form:?} lost {text:?}: {found:?}");
            }
        }
    }

    #[test]
    fn the_same_form_passes_untouched(system in said(), steps in steps(), space in " {0,3}") {
        let (request, _) = responses_request(&system, &steps);
        let text = format!("{space}{}{space}", serde_json::to_string_pretty(&request).unwrap());
        let limits = ModelLimits::default();
        let parsed = parse_request(Api::Responses, text.as_bytes(), &limits).unwrap();
        let prepared = prepare(&parsed, &target(Form::OpenAiResponses, "m")).unwrap();
        prop_assert_eq!(&*prepared.body, text.as_bytes());
    }

    #[test]
    fn an_answer_is_the_same_in_every_form(text in said(), argument in said()) {
        let limits = ModelLimits::default();
        for api in [Api::Chat, Api::Responses, Api::Messages] {
            for form in FORMS {
                let facts = facts(api, form);
                let bytes = serde_json::to_vec(&provider_answer(form, &text, &argument)).unwrap();
                let told = answer(&facts, &bytes, &limits).unwrap_or_else(|e| panic!("{api:?} {form:?}: {e}"));
                let body = std::str::from_utf8(&told.body).unwrap();
                let found = strings_of(body);
                prop_assert!(found.contains(&text) && found.contains(&argument), "{api:?} {form:?}: {body}");
                let [call] = &told.calls[..] else { panic!("{api:?} {form:?}: {:?}", told.calls) };
                prop_assert_eq!((&*call.call.id, &*call.call.name), ("id1", "find"));

                // What the caller gets is an answer of its own form, also after its call was refused.
                let refused = replace_calls(api, &told.body, &[Some("<refused>".into())], &limits).unwrap();
                let own = RequestFacts { form: api.native_form(), ..facts };
                let left = answer(&own, &refused, &limits).unwrap();
                prop_assert!(left.calls.is_empty(), "{api:?} {form:?}");
                let found = strings_of(std::str::from_utf8(&refused).unwrap()).concat();
                prop_assert!(found.contains("<refused>") && found.contains(&text), "{api:?} {form:?}");
            }
        }
    }

    #[test]
    fn what_is_broken_is_refused_without_a_panic(
        system in said(), steps in steps(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let (request, _) = responses_request(&system, &steps);
        let mut bytes = serde_json::to_vec(&request).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let limits = ModelLimits::default();
        let Ok(parsed) = parse_request(Api::Responses, &bytes, &limits) else { return Ok(()) };
        for form in FORMS {
            if let Ok(prepared) = prepare(&parsed, &target(form, "m")) {
                prop_assert!(json::check(&prepared.body, 64).is_ok(), "{form:?}");
            }
        }
    }

    #[test]
    fn a_broken_answer_of_gemini_is_refused_without_a_panic(
        text in said(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let limits = ModelLimits::default();
        for form in [Form::Gemini, Form::OpenAiResponses] {
            let mut bytes = serde_json::to_vec(&provider_answer(form, &text, "x")).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            for api in [Api::Chat, Api::Responses, Api::Messages] {
                if let Ok(told) = answer(&facts(api, form), &bytes, &limits) {
                    prop_assert!(json::check(&told.body, 64).is_ok());
                }
            }
        }
    }
}

#[test]
fn tools_are_found_wherever_they_are_offered() {
    let function = |name: &str| json!({"type": "function", "name": name, "parameters": {}, "strict": true});
    let request = json!({"model": "m", "previous_response_id": "resp_1",
        "tools": [function("a"), {"type": "web_search"}, {"type": "mcp", "server_label": "s", "server_url": "https://s"},
            {"type": "namespace", "name": "n", "description": "d", "tools": [function("b"), {"type": "custom", "name": "c"}]}],
        "input": [{"type": "additional_tools", "role": "developer", "tools": [function("d")]},
            {"type": "mcp_list_tools", "id": "l", "server_label": "s", "tools": [{"name": "e", "input_schema": {}}]}]});
    let bytes = serde_json::to_vec(&request).unwrap();
    let limits = ModelLimits::default();
    let parsed = parse_request(Api::Responses, &bytes, &limits).unwrap();
    assert_eq!(parsed.tools, ["a", "web_search", "mcp:s", "b", "c", "d"]);
    assert_eq!(parsed.continues.as_deref(), Some("resp_1"));
    let allowed: Vec<String> = ["a", "b", "c", "d"].map(String::from).to_vec();
    let target = Target { tools: Some(&allowed), ..target(Form::OpenAiResponses, "m") };
    let refused = prepare(&parsed, &target).expect_err("hosted tools are not in the set");
    assert!(refused.to_string().contains("web_search"), "{refused}");
}

#[test]
fn the_system_prompt_of_a_version_stands_before_the_callers() {
    let bytes = br#"{"model":"m","instructions":"<caller>","input":"x"}"#;
    let parsed = parse_request(Api::Responses, bytes, &ModelLimits::default()).unwrap();
    for form in FORMS {
        let target = Target { system: Some("<version>"), ..target(form, "m") };
        let prepared = prepare(&parsed, &target).unwrap();
        let body = std::str::from_utf8(&prepared.body).unwrap();
        let at = |text| body.find(text).unwrap_or_else(|| panic!("{form:?} lost {text}: {body}"));
        assert!(at("<version>") < at("<caller>"), "{form:?}: {body}");
        assert!(prepared.facts.repeated().is_none_or(|r| !r.contains("<version>")), "{form:?}");
    }
}

#[test]
fn what_a_version_sets_of_the_generation_stands_beside_the_rest() {
    let request = br#"{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":1,"top_p":0.5}"#;
    let parsed = parse_request(Api::Chat, request, &ModelLimits::default()).unwrap();
    let params = [("generationConfig".to_string(), r#"{"temperature":0,"maxOutputTokens":7}"#.to_string())];
    let target = Target { params: &params, ..target(Form::Gemini, "gemini-3-pro") };
    let prepared = prepare(&parsed, &target).unwrap();
    assert_eq!(prepared.max_output_tokens, Some(7));
    let body: Value = serde_json::from_slice(&prepared.body).unwrap();
    assert_eq!(body["generationConfig"], json!({"temperature": 0, "maxOutputTokens": 7, "topP": 0.5}));
}

#[test]
fn errors_of_gemini_and_of_responses_are_told_in_the_callers_form() {
    let quota =
        br#"[{"error":{"code":429,"message":"Quota exceeded","status":"RESOURCE_EXHAUSTED","details":[]}}]"#;
    let key = br#"{"error":{"code":400,"message":"API key not valid: AIza123","status":"INVALID_ARGUMENT",
        "details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}"#;
    let openai =
        br#"{"error":{"message":"Bad item","type":"invalid_request_error","param":"input[0]","code":null}}"#;
    let told = |api, form, status, body: &[u8]| {
        let error = provider_error(&facts(api, form), status, body);
        (error.status, serde_json::from_slice::<Value>(&error.body).unwrap())
    };
    let (status, error) = told(Api::Responses, Form::Gemini, 429, quota);
    assert_eq!(
        (status, &error["error"]["message"], &error["error"]["code"]),
        (429, &json!("Quota exceeded"), &json!("RESOURCE_EXHAUSTED"))
    );
    let (status, error) = told(Api::Messages, Form::Gemini, 429, quota);
    assert_eq!((status, &error["error"]["type"]), (429, &json!("rate_limit_error")));
    let (status, error) = told(Api::Chat, Form::Gemini, 400, key);
    assert_eq!(status, 502);
    assert!(!error.to_string().contains("AIza"), "{error}");
    let (status, error) = told(Api::Responses, Form::OpenAiResponses, 400, openai);
    assert_eq!((status, &error["error"]["param"]), (400, &json!("input[0]")));
    let (status, error) = told(Api::Messages, Form::OpenAiResponses, 400, openai);
    assert_eq!(
        (status, &error["type"], &error["error"]["message"]),
        (400, &json!("error"), &json!("Bad item"))
    );
}
