//! What requests bring beside the model's own words, in each API.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)] // a test may fail

use castra_protocol::model::{Api, Brought, ModelLimits, parse_request};
use serde_json::{Value, json};

/// Each thing as one line: `user: …`, or `tool(arguments): …`.
fn brought(api: Api, body: &Value) -> Vec<String> {
    let bytes = serde_json::to_vec(body).unwrap();
    let request = parse_request(api, &bytes, &ModelLimits::default()).unwrap();
    let line = |brought: Brought<'_>| match brought {
        Brought::User(text) => format!("user: {text}"),
        Brought::Model => "model".to_owned(),
        Brought::Result(result) => {
            let failed = if result.is_error { "!" } else { "" };
            let (tool, arguments) = (result.tool.unwrap_or_default(), result.arguments.unwrap_or_default());
            format!("{failed}{tool}({arguments}): {}", result.text)
        }
    };
    request.brought().unwrap().into_iter().map(line).collect()
}

#[test]
fn chat_completions() {
    let got = brought(
        Api::Chat,
        &json!({"model": "m", "messages": [
            {"role": "system", "content": "be good"},
            {"role": "user", "content": "pay the bill"},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "read", "arguments": "{\"path\":\"bill\"}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "a \"bill\"\n"},
            {"role": "user", "content": [{"type": "text", "text": "and \u{e9}"},
                {"type": "image_url", "image_url": {"url": "https://x.example/i"}},
                {"type": "file", "file": {"file_data": "words of a file"}}]},
            {"role": "tool", "tool_call_id": "unknown", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]},
            {"role": "function", "name": "older", "content": "z"},
        ]}),
    );
    assert_eq!(
        got,
        [
            "user: pay the bill",
            "model",
            "read({\"path\":\"bill\"}): a \"bill\"\n",
            "user: and \u{e9}",
            "(): words of a file",
            "(): x\ny",
            "older(): z",
        ]
    );
}

#[test]
fn responses() {
    assert_eq!(brought(Api::Responses, &json!({"model": "m", "input": "hello"})), ["user: hello"]);
    let got = brought(
        Api::Responses,
        &json!({"model": "m", "input": [
            {"role": "developer", "content": "be good"},
            {"role": "user", "content": [{"type": "input_text", "text": "go"}]},
            {"type": "function_call", "call_id": "c", "name": "read", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "found"},
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "mine"}]},
            {"type": "mcp_call", "id": "m", "name": "n", "output": "from afar"},
        ]}),
    );
    assert_eq!(got, ["user: go", "model", "read({}): found", "model", "(): n\nfrom afar"]);
}

#[test]
fn messages() {
    let got = brought(
        Api::Messages,
        &json!({"model": "m", "max_tokens": 9, "system": "be good", "messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [{"type": "text", "text": "mine"},
                {"type": "tool_use", "id": "t", "name": "read", "input": {"path": "p"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t", "is_error": true, "content": [{"type": "text", "text": "no"}]},
                {"type": "text", "text": "on"},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a document"}}]},
        ]}),
    );
    assert_eq!(got, ["user: go", "model", "!read({\"path\":\"p\"}): no", "user: on", "(): a document"]);
}

#[test]
fn offered_tools_and_their_parameters() {
    let schema = json!({"type": "object", "properties": {"to": {}, "amount": {}}});
    let of = |api, body: Value| {
        let bytes = serde_json::to_vec(&body).unwrap();
        let request = parse_request(api, &bytes, &ModelLimits::default()).unwrap();
        let tools = request.offered_tools().unwrap();
        tools
            .iter()
            .map(|t| (t.name.to_string(), t.parameters.clone().map(|p| p.join(" "))))
            .collect::<Vec<_>>()
    };
    let pay = vec![("pay".to_owned(), Some("amount to".to_owned())), ("bare".to_owned(), None)];
    assert_eq!(
        of(
            Api::Chat,
            json!({"model": "m", "messages": [], "tools": [
                {"type": "function", "function": {"name": "pay", "parameters": schema}},
                {"type": "function", "function": {"name": "bare"}}]})
        ),
        pay
    );
    assert_eq!(
        of(
            Api::Messages,
            json!({"model": "m", "max_tokens": 1, "messages": [],
                "tools": [{"name": "pay", "input_schema": schema}, {"name": "bare"}]})
        ),
        pay
    );
    assert_eq!(
        of(
            Api::Responses,
            json!({"model": "m", "input": "x", "tools": [
                {"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "pay", "parameters": schema}]},
                {"type": "function", "name": "bare"}, {"type": "web_search"}]})
        ),
        [pay[0].clone(), ("ns".to_owned(), None), pay[1].clone()]
    );
}
