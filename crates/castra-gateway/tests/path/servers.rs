//! Small MCP servers of each era, right or wrong as a test wants.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::server::{Later, Seen, Server, Step};

pub(crate) const TOOLS: usize = 4;

fn tools() -> Value {
    let schema = json!({"type": "object", "properties": {"text": {"type": "string"}}});
    json!([
        {"name": "look", "inputSchema": schema, "annotations": {"readOnlyHint": true, "openWorldHint": false}},
        {"name": "change", "inputSchema": schema, "annotations": {"readOnlyHint": false, "destructiveHint": false}},
        {"name": "plain", "inputSchema": schema},
        {"name": "ask", "inputSchema": schema, "annotations": {"readOnlyHint": true}},
    ])
}

fn http(status: &str, kind: &str, extra: &str, body: &str) -> Vec<Step> {
    vec![Step::Send(
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n{extra}\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )]
}

pub(crate) fn json_answer(body: &Value) -> Vec<Step> {
    http("200 OK", "application/json", "", &body.to_string())
}

fn event(body: &Value) -> String {
    format!("event: message\ndata: {body}\n\n")
}

fn message(seen: &Seen) -> Value {
    serde_json::from_str(&seen.body).unwrap_or_default()
}

fn text(value: &str) -> Value {
    json!({"content": [{"type": "text", "text": value}]})
}

/// A server of 2026-07-28.
pub(crate) async fn modern() -> Server {
    Server::start(|seen| {
        let message = message(seen);
        let id = &message["id"];
        let done = |mut result: Value| {
            result["resultType"] = json!("complete");
            json_answer(&json!({"jsonrpc": "2.0", "id": id, "result": result}))
        };
        match message["method"].as_str().unwrap_or_default() {
            "server/discover" => done(json!({"supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {}}, "serverInfo": {"name": "modern", "version": "1"},
                "ttlMs": 0, "cacheScope": "public"})),
            "tools/list" => done(json!({"tools": tools(), "ttlMs": 1000, "cacheScope": "public"})),
            "tools/call" => {
                let params = &message["params"];
                match params["name"].as_str().unwrap_or_default() {
                    "ask" if params.get("inputResponses").is_none() => json_answer(&json!({
                        "jsonrpc": "2.0", "id": id, "result": {"resultType": "input_required",
                            "requestState": "state-1", "inputRequests": {"who": {
                                "method": "elicitation/create", "params": {"mode": "form", "message": "Who?",
                                    "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}}}}}})),
                    "ask" => done(text(&format!(
                        "hello {} {}",
                        params["inputResponses"]["who"]["content"]["name"].as_str().unwrap_or("nobody"),
                        params["requestState"].as_str().unwrap_or("no state"),
                    ))),
                    name => done(text(&format!("{name} done"))),
                }
            }
            "resources/list" => done(json!({"resources": [{"uri": "test://one", "name": "one"}],
                "ttlMs": 0, "cacheScope": "public"})),
            "resources/read" => done(json!({"contents": [{"uri": "test://one", "text": "1"}],
                "ttlMs": 0, "cacheScope": "public"})),
            _ => http("404 Not Found", "application/json", "",
                &json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}}).to_string()),
        }
    })
    .await
}

/// A server of 2025-11-25 with sessions, which asks in the middle of the tool `ask`.
pub(crate) async fn legacy() -> Server {
    let answers: Arc<Mutex<Vec<Value>>> = Arc::default();
    Server::start(move |seen| {
        let message = message(seen);
        let id = &message["id"];
        let done = |result: Value| json_answer(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
        if seen.method == "GET" {
            return http("405 Method Not Allowed", "text/plain", "", "");
        }
        if seen.method == "DELETE" {
            return http("200 OK", "text/plain", "", "");
        }
        if message.get("method").is_none() {
            answers.lock().push(message);
            return http("202 Accepted", "text/plain", "", "");
        }
        match message["method"].as_str().unwrap_or_default() {
            "server/discover" => http("400 Bad Request", "text/plain", "", "no session"),
            "initialize" => http("200 OK", "application/json", "mcp-session-id: upstream-1\r\n",
                &json!({"jsonrpc": "2.0", "id": id, "result": {"protocolVersion": "2025-11-25",
                    "capabilities": {"tools": {}}, "serverInfo": {"name": "legacy", "version": "1"}}}).to_string()),
            "notifications/initialized" => http("202 Accepted", "text/plain", "", ""),
            _ if seen.header("mcp-session-id") != "upstream-1" => http("400 Bad Request", "text/plain", "", "no session"),
            "tools/list" => done(json!({"tools": tools()})),
            "tools/call" if message["params"]["name"] == "ask" => {
                let question = json!({"jsonrpc": "2.0", "id": "q1", "method": "elicitation/create",
                    "params": {"message": "Who?", "requestedSchema": {"type": "object",
                        "properties": {"name": {"type": "string"}}}}});
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                let first = event(&question);
                let start = format!("{head}{:x}\r\n{first}\r\n", first.len());
                let (id, answers) = (id.clone(), answers.clone());
                let later = Later(Arc::new(move || {
                    let answer = answers.lock().pop()?;
                    let name = answer["result"]["content"]["name"].as_str().unwrap_or("nobody");
                    let last =
                        event(&json!({"jsonrpc": "2.0", "id": id, "result": text(&format!("hello {name}"))}));
                    Some(format!("{:x}\r\n{last}\r\n0\r\n\r\n", last.len()).into_bytes())
                }));
                vec![Step::Send(start.into_bytes()), Step::Later(later)]
            }
            "tools/call" => done(text(&format!("{} done", message["params"]["name"].as_str().unwrap_or("?")))),
            _ => json_answer(&json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}})),
        }
    })
    .await
}
