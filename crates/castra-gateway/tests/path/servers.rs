//! Small MCP servers of each era, right or wrong as a test wants.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use castra_gateway::upstream::Transport;
use castra_host::Secret;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::server::{Later, Seen, Server, Step, accepted, answer_with, end, piece, stream};

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

/// Which era a server is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    Modern,
    Legacy,
}

/// A signal that a test gives to a server.
#[derive(Clone, Default)]
pub(crate) struct Cue(Arc<AtomicBool>);

impl Cue {
    pub(crate) fn give(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Sends these bytes as soon as the signal is given.
    fn then(&self, steps: Vec<Step>) -> Step {
        let bytes: Vec<u8> =
            steps.into_iter().flat_map(|s| if let Step::Send(b) = s { b } else { Vec::new() }).collect();
        let given = self.0.clone();
        Step::Later(Later(Arc::new(move || given.load(Ordering::SeqCst).then(|| bytes.clone()))))
    }
}

/// What a test does with a lively server while it runs.
#[derive(Clone)]
pub(crate) struct Stage {
    /// Ends calls of `wait`.
    pub(crate) go: Cue,
    /// Announces that the tools and the resource `test://one` have changed.
    pub(crate) announce: Cue,
    /// What `tools/list` says.
    pub(crate) tools: Arc<Mutex<Value>>,
}

/// Tools of a lively server.
pub(crate) const LIVELY: usize = 10;

/// Events of the tool `burst`.
pub(crate) const BURST: usize = 200;

/// Bytes in the answer of the tool `huge`.
pub(crate) const HUGE: usize = 300 << 10;

pub(crate) fn tool(name: &str, hints: Value) -> Value {
    json!({"name": name, "inputSchema": {"type": "object"}, "annotations": hints})
}

fn lively_tools() -> Value {
    let reads = ["look", "progress", "log", "burst", "wait", "begin", "hang", "huge"];
    let mut all: Vec<Value> = reads.iter().map(|name| tool(name, json!({"readOnlyHint": true}))).collect();
    all.push(tool("change", json!({"readOnlyHint": false, "destructiveHint": false})));
    all.push(tool("wipe", json!({"readOnlyHint": false, "destructiveHint": true})));
    all.into()
}

/// A server over HTTP that streams, announces, waits and hangs, each when it is told to.
pub(crate) async fn lively(era: Era) -> (Server, Stage) {
    let tools = Arc::new(Mutex::new(lively_tools()));
    let stage = Stage { go: Cue::default(), announce: Cue::default(), tools };
    let sessions = AtomicUsize::new(0);
    let script = {
        let stage = stage.clone();
        move |seen: &Seen| match era {
            Era::Modern => modern_reply(seen, &stage),
            Era::Legacy => legacy_reply(seen, &stage, &sessions),
        }
    };
    (Server::start(script).await, stage)
}

fn modern_reply(seen: &Seen, stage: &Stage) -> Vec<Step> {
    let message = message(seen);
    let id = &message["id"];
    let result = |mut result: Value| {
        result["resultType"] = json!("complete");
        json!({"jsonrpc": "2.0", "id": id, "result": result})
    };
    let listed = |name: &str, items: Value| {
        json_answer(&result(json!({name: items, "ttlMs": 1000, "cacheScope": "public"})))
    };
    match message["method"].as_str().unwrap_or_default() {
        "server/discover" => json_answer(&result(json!({"supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {"listChanged": true}, "resources": {"subscribe": true, "listChanged": true},
                "logging": {}},
            "serverInfo": {"name": "modern", "version": "1"}, "ttlMs": 0, "cacheScope": "public"}))),
        "tools/list" => listed("tools", stage.tools.lock().clone()),
        "resources/list" => listed("resources", json!([{"uri": "test://one", "name": "one"}])),
        "tools/call" => called(&message, stage, &result),
        "subscriptions/listen" => {
            let meta = json!({"io.modelcontextprotocol/subscriptionId": id});
            let note = |method: &str, mut params: Value| {
                params["_meta"] = meta.clone();
                noted(method, params)
            };
            let wanted = json!({"notifications": message["params"]["notifications"]});
            let changes = vec![
                note("notifications/tools/list_changed", json!({})),
                note("notifications/resources/updated", json!({"uri": "test://one"})),
            ];
            vec![
                stream(),
                note("notifications/subscriptions/acknowledged", wanted),
                stage.announce.then(changes),
                Step::Hold,
            ]
        }
        _ => http(
            "404 Not Found",
            "application/json",
            "",
            &json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}}).to_string(),
        ),
    }
}

fn legacy_reply(seen: &Seen, stage: &Stage, sessions: &AtomicUsize) -> Vec<Step> {
    let message = message(seen);
    let id = &message["id"];
    let result = |result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result});
    match (seen.method.as_str(), message["method"].as_str()) {
        ("GET", _) => {
            let changes = vec![
                noted("notifications/tools/list_changed", json!({})),
                noted("notifications/resources/updated", json!({"uri": "test://one"})),
            ];
            vec![stream(), stage.announce.then(changes), Step::Hold]
        }
        ("DELETE", _) => answer_with("200 OK", &[], ""),
        (_, Some("server/discover")) => answer_with("400 Bad Request", &[], "no session"),
        (_, Some("initialize")) => {
            let session = format!("upstream-{}", sessions.fetch_add(1, Ordering::SeqCst));
            let body = result(json!({"protocolVersion": "2025-11-25",
                "capabilities": {"tools": {"listChanged": true}, "logging": {},
                    "resources": {"subscribe": true, "listChanged": true}},
                "serverInfo": {"name": "legacy", "version": "1"}}));
            let headers = [("content-type", "application/json"), ("mcp-session-id", session.as_str())];
            answer_with("200 OK", &headers, body.to_string())
        }
        _ if !seen.header("mcp-session-id").starts_with("upstream-") => {
            answer_with("400 Bad Request", &[], "no session")
        }
        (_, Some("tools/list")) => json_answer(&result(json!({"tools": *stage.tools.lock()}))),
        (_, Some("resources/list")) => {
            json_answer(&result(json!({"resources": [{"uri": "test://one", "name": "one"}]})))
        }
        (_, Some("tools/call")) => called(&message, stage, &result),
        (_, Some("resources/subscribe" | "resources/unsubscribe" | "logging/setLevel")) => {
            json_answer(&result(json!({})))
        }
        _ if id.is_null() => accepted(),
        _ => json_answer(&json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}})),
    }
}

/// What a tool does in either era.
fn called(message: &Value, stage: &Stage, result: &dyn Fn(Value) -> Value) -> Vec<Step> {
    let params = &message["params"];
    let name = params["name"].as_str().unwrap_or_default();
    let token = &params["_meta"]["progressToken"];
    let progress = |n: usize| {
        let params = json!({"progressToken": token, "progress": n});
        format!(
            "data: {}\n\n",
            json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        )
    };
    let done = |text: &str| result(json!({"content": [{"type": "text", "text": text}]}));
    let last = |text: &str| piece(format!("data: {}\n\n", done(text)));
    match name {
        "progress" => {
            vec![stream(), piece(progress(0)), piece(progress(1)), piece(progress(2)), last("done"), end()]
        }
        "log" => {
            let note = noted("notifications/message", json!({"level": "warning", "data": "hello"}));
            vec![stream(), note, last("done"), end()]
        }
        "burst" => {
            let all: String = (0..BURST).map(progress).collect();
            vec![stream(), piece(all), last("done"), end()]
        }
        "wait" => vec![stage.go.then(json_answer(&done("waited")))],
        "begin" => vec![stream(), piece(progress(0)), Step::Hold],
        "hang" => vec![Step::Hold],
        "deep" => {
            let deep: Value =
                serde_json::from_str(&format!("{}1{}", "[".repeat(40), "]".repeat(40))).unwrap();
            json_answer(&result(json!({"content": [], "structuredContent": {"deep": deep}})))
        }
        "huge" => json_answer(&done(&"x".repeat(HUGE))),
        _ => json_answer(&done(&format!("{name} done"))),
    }
}

/// A notification as an event.
fn noted(method: &str, params: Value) -> Step {
    piece(event(&json!({"jsonrpc": "2.0", "method": method, "params": params})))
}

/// A child process (see `child.py`), of a kind that its first argument names.
///
/// `tag` stands in its command line, so that its processes can be found.
pub(crate) fn child(kind: &str, tag: &str) -> Transport {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/child.py");
    Transport::Stdio {
        command: ["python3", "-S", script, kind, tag].map(Into::into).to_vec(),
        env: vec![("API_TOKEN".into(), Secret::new("s3cret"))],
        cwd: None,
    }
}

/// Processes with this tag.
pub(crate) fn processes(tag: &str) -> Vec<u32> {
    let all = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let tagged = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).any(|word| word == tag.as_bytes())
    };
    all.filter(tagged).collect()
}

/// Tools of a child.
pub(crate) const CHILD_TOOLS: usize = 6;
