//! Callers and servers that reach for what is another's: tasks, headers, resources, memory, servers.

use castra_core::Limits;
use serde_json::{Value, json};

use crate::{
    rig::{ALL, Ask, Got, Rig, Wish, said},
    server::{Seen, Server, answer_with},
    servers::{self, Era, json_answer, tool},
};

/// A server of 2026-07-28 that gives these results, and none for other methods.
async fn modern(results: impl Fn(&str, &Value) -> Option<Value> + Send + Sync + 'static) -> Server {
    Server::start(move |seen| {
        let message: Value = serde_json::from_str(&seen.body).unwrap_or_default();
        let (id, method) = (&message["id"], message["method"].as_str().unwrap_or_default());
        let discovered = json!({"supportedVersions": ["2026-07-28"], "ttlMs": 0, "cacheScope": "public",
            "capabilities": {"tools": {}, "resources": {}}, "serverInfo": {"name": "modern", "version": "1"}});
        let result = if method == "server/discover" { Some(discovered) } else { results(method, &message["params"]) };
        match result {
            Some(mut result) => {
                if result.get("resultType").is_none() {
                    result["resultType"] = "complete".into();
                }
                json_answer(&json!({"jsonrpc": "2.0", "id": id, "result": result}))
            }
            None => {
                let body = json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}});
                answer_with("404 Not Found", &[("content-type", "application/json")], body.to_string())
            }
        }
    })
    .await
}

fn listed(member: &str, items: Value) -> Option<Value> {
    Some(json!({member: items, "ttlMs": 0, "cacheScope": "public"}))
}

fn asked(server: &Server, method: &str) -> Vec<Seen> {
    server.requests().into_iter().filter(|seen| seen.says(method)).collect()
}

async fn initialize_by(rig: &Rig, agent: &str, path: &str, extra: Value) -> Got {
    let mut params = json!({"protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"}});
    params.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}).to_string();
    let token = format!("Bearer {}", rig.tokens[agent]);
    rig.request("POST", path, &[("authorization", &token)], body.as_bytes()).await
}

async fn task_by(rig: &Rig, agent: &str, path: &str, method: &str, id: &str) -> Got {
    let tasks = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let ask = Ask::modern(method, json!({"taskId": id}), tasks).by(&rig.tokens[agent]);
    let mut headers = ask.headers();
    headers.retain(|(name, _)| *name != "mcp-name");
    headers.push(("mcp-name", id));
    rig.request("POST", path, &headers, ask.body.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_its_agents_alone() {
    let server = modern(|method, params| match method {
        "tools/list" => listed("tools", json!([tool("start", json!({"readOnlyHint": true}))])),
        "tools/call" => Some(json!({"resultType": "task", "taskId": "task-1", "status": "working"})),
        "tasks/get" | "tasks/cancel" => Some(json!({"taskId": params["taskId"], "status": "completed"})),
        _ => None,
    })
    .await;
    let (old, _) = servers::lively(Era::Legacy).await;
    let servers = vec![("jobs", server.transport()), ("old", old.transport())];
    let rig = Rig::start(Wish { servers, policies: ALL, agents: vec!["carol"], ..Wish::default() }).await;
    rig.learned("jobs", 1).await;
    let started = rig.modern("/mcp/jobs", "tools/call", json!({"name": "start", "arguments": {}})).await;
    assert_eq!(started.json()["result"]["taskId"], "task-1", "{}", started.body);
    for path in ["/mcp/jobs", "/mcp"] {
        for method in ["tasks/get", "tasks/cancel"] {
            let asked_before = asked(&server, method).len();
            let other = task_by(&rig, "carol", path, method, "task-1").await;
            assert!(other.body.contains("no task with this id was made for this agent"), "{}", other.body);
            let guessed = task_by(&rig, "tester", path, method, "task-2").await;
            assert!(guessed.json()["error"].is_object(), "{}", guessed.body);
            assert_eq!(asked(&server, method).len(), asked_before, "it reached the server");
            let own = task_by(&rig, "tester", path, method, "task-1").await;
            assert_eq!(own.json()["result"]["status"], "completed", "{path} {method}: {}", own.body);
        }
    }
    // The server would list the tasks of everybody behind the gate.
    let (session, _) = rig.initialize("/mcp/old", json!({})).await;
    let list = rig.legacy("/mcp/old", &session, "tasks/list", json!({})).await;
    assert!(list.body.contains("tasks of other agents"), "{}", list.body);
    assert!(asked(&old, "tasks/list").is_empty());
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_mirror_the_body_reach_a_server_only_when_they_agree_with_it() {
    let server = modern(|method, _| match method {
        "tools/list" => {
            let region = json!({"type": "string", "x-mcp-header": "Region"});
            let schema = json!({"type": "object", "properties": {"region": region}});
            listed("tools", json!([{"name": "query", "inputSchema": schema}]))
        }
        "tools/call" => Some(json!({"content": []})),
        "completion/complete" => Some(json!({"completion": {"values": []}})),
        _ => None,
    })
    .await;
    let old = servers::legacy().await;
    let servers = vec![("db", server.transport()), ("old", old.transport())];
    let rig = Rig::start(Wish { servers, policies: ALL, ..Wish::default() }).await;
    rig.learned("db", 1).await;
    rig.learned("old", servers::TOOLS).await;

    let with = async |path: &str, tool: &str, extra: &[(&str, &str)]| {
        let params = json!({"name": tool, "arguments": {"region": "eu"}});
        let ask = Ask::modern("tools/call", params, json!({}));
        let mut headers = ask.headers();
        headers.extend(extra);
        rig.request("POST", path, &headers, ask.body.as_bytes()).await
    };
    for doubled in ["mcp-param-region", "mcp-param-other", "mcp-unheard-of"] {
        let both = [("mcp-param-region", "eu"), (doubled, "eu"), (doubled, "us")];
        let got = with("/mcp/db", "query", &both).await;
        assert_eq!(
            (got.status.as_u16(), &got.json()["error"]["code"]),
            (400, &json!(-32020)),
            "{}",
            got.body
        );
    }
    assert!(asked(&server, "tools/call").is_empty());

    for (path, tool) in [("/mcp/db", "query"), ("/mcp", "db__query")] {
        let got = with(path, tool, &[("mcp-param-region", "eu"), ("mcp-param-tenant", "x")]).await;
        assert_eq!(got.status, 200, "{}", got.body);
        let seen = asked(&server, "tools/call").pop().unwrap();
        let mirrored =
            ["mcp-method", "mcp-name", "mcp-param-region", "mcp-param-tenant"].map(|n| seen.header(n));
        assert_eq!(mirrored, ["tools/call", "query", "eu", ""], "{path}");
    }
    // Nothing is known of this tool, so its server may know more than the gate.
    with("/mcp/db", "new", &[("mcp-param-tenant", "x")]).await;
    assert_eq!(asked(&server, "tools/call").pop().unwrap().header("mcp-param-tenant"), "x");
    // A name is mirrored for some methods only; for others nothing was compared.
    let complete =
        json!({"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": ""}});
    let ask = Ask::modern("completion/complete", complete, json!({}));
    let mut headers = ask.headers();
    headers.extend([("mcp-name", "query"), ("mcp-param-region", "eu")]);
    rig.request("POST", "/mcp/db", &headers, ask.body.as_bytes()).await;
    let seen = asked(&server, "completion/complete").pop().unwrap();
    assert_eq!(
        ["mcp-method", "mcp-name", "mcp-param-region"].map(|n| seen.header(n)),
        ["completion/complete", "", ""]
    );

    let (session, _) = rig.initialize("/mcp/old", json!({})).await;
    let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "look", "arguments": {}}});
    let headers = [
        ("mcp-session-id", session.as_str()),
        ("mcp-protocol-version", "2025-11-25"),
        ("mcp-method", "tools/list"),
        ("mcp-name", "change"),
        ("mcp-param-region", "us"),
    ];
    let got = rig.request("POST", "/mcp/old", &headers, call.to_string().as_bytes()).await;
    assert_eq!(said(&got.json()), "look done");
    let seen = asked(&old, "tools/call").pop().unwrap();
    assert_eq!(["mcp-method", "mcp-name", "mcp-param-region"].map(|name| seen.header(name)), [""; 3]);
    rig.close_and_verify().await;
}

/// A server that lists these resources and says its name when one is read.
async fn library(name: &'static str, uris: Vec<String>, templates: &'static [&'static str]) -> Server {
    modern(move |method, params| match method {
        "resources/list" => {
            listed("resources", uris.iter().map(|uri| json!({"uri": uri, "name": "r"})).collect())
        }
        "resources/templates/list" => listed(
            "resourceTemplates",
            templates.iter().map(|t| json!({"uriTemplate": t, "name": "t"})).collect(),
        ),
        "resources/read" => Some(json!({"contents": [{"uri": params["uri"], "text": name}],
            "ttlMs": 0, "cacheScope": "public"})),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_cannot_take_over_what_another_listed() {
    let own = library("alpha", vec!["demo://x".into()], &["demo://notes/{id}"]).await;
    let flood = (0..1000).map(|n| format!("flood://{n}")).chain(["demo://x".into()]).collect();
    let thief = library("beta", flood, &["demo://notes/a{id}", "demo://notes/{id}"]).await;
    let servers = vec![("alpha", own.transport()), ("beta", thief.transport())];
    let rig = Rig::start(Wish { servers, policies: ALL, ..Wish::default() }).await;
    for _ in 0..3 {
        for method in ["resources/list", "resources/templates/list"] {
            let list = rig.modern("/mcp", method, json!({})).await;
            assert_eq!(list.status, 200, "{}", list.body);
            assert!(
                list.body.contains("castra+beta:demo://"),
                "the second one is shown by its server's name"
            );
        }
    }
    for (uri, reader) in [
        ("demo://x", "alpha"),
        ("castra+beta:demo://x", "beta"),
        ("demo://notes/b", "alpha"),
        ("castra+beta:demo://notes/b", "beta"),
        ("flood://7", "beta"),
    ] {
        let read = rig.modern("/mcp", "resources/read", json!({"uri": uri})).await;
        assert_eq!(read.json()["result"]["contents"][0]["text"], reader, "{uri}: {}", read.body);
    }
    let both = rig.modern("/mcp", "resources/read", json!({"uri": "demo://notes/ab"})).await;
    assert!(both.body.contains("templates of several servers"), "{}", both.body);
    assert!(both.body.contains("castra+server:"), "{}", both.body);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_for_nothing_does_not_become_many_requests() {
    let (open, closed) = (library("open", vec![], &[]).await, library("closed", vec![], &[]).await);
    let servers = vec![("open", open.transport()), ("closed", closed.transport())];
    let policies = r#"permit (principal, action, resource in Castra::Server::"open");
        permit (principal, action == Castra::Action::"call", resource in Castra::Server::"closed");"#;
    let rig = Rig::start(Wish { servers, policies, ..Wish::default() }).await;
    for n in 0..5 {
        let read = rig.modern("/mcp", "resources/read", json!({"uri": format!("none://{n}")})).await;
        assert!(read.body.contains("no server lists it"), "{}", read.body);
    }
    for method in ["resources/list", "resources/templates/list"] {
        assert_eq!((asked(&open, method).len(), asked(&closed, method).len()), (1, 0), "{method}");
    }
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_of_itself_has_a_limit() {
    let server = servers::modern().await;
    let servers = vec![("files", server.transport())];
    let rig = Rig::start(Wish { servers, policies: ALL, ..Wish::default() }).await;
    let text = |bytes: usize| "x".repeat(bytes);
    for (extra, status) in [
        (json!({"clientInfo": {"name": "t", "version": "1", "x": text(60 << 10)}}), 200),
        (json!({"clientInfo": {"name": "t", "version": "1", "x": text(64 << 10)}}), 413),
        (json!({"capabilities": {"experimental": {"x": text(15 << 10)}}}), 200),
        (json!({"capabilities": {"experimental": {"x": text(16 << 10)}}}), 413),
        (json!({"other": text(64 << 10)}), 413),
    ] {
        for path in ["/mcp", "/mcp/files"] {
            let got = initialize_by(&rig, "tester", path, extra.clone()).await;
            assert_eq!(got.status, status, "{}", got.body);
        }
    }
    for (bytes, status) in [(15 << 10, 200), (16 << 10, 413)] {
        let capabilities = json!({"experimental": {"x": text(bytes)}});
        let got = rig.modern_as("/mcp/files", "tools/list", json!({}), capabilities).await;
        assert_eq!(got.status, status, "{}", got.body);
    }
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_federated_list_holds_no_more_than_one_answer_may() {
    let endless = modern(|method, params| {
        let page = params["cursor"].as_str().and_then(|c| c.parse().ok()).unwrap_or(0);
        let description = "x".repeat(6000);
        let item = json!({"uri": format!("demo://{page}"), "name": "r", "description": description});
        let mut list = listed("resources", json!([item]))?;
        list["nextCursor"] = (page + 1).to_string().into();
        (method == "resources/list").then_some(list)
    })
    .await;
    let limits = Limits { answer_bytes_max: 20_000, ..Limits::default() };
    let servers = vec![("endless", endless.transport())];
    let rig = Rig::start(Wish { servers, policies: ALL, limits, ..Wish::default() }).await;
    let first = rig.modern("/mcp", "resources/list", json!({})).await;
    assert!(first.body.len() < 20_000, "{} bytes", first.body.len());
    let uris = |got: &Got| -> Vec<String> {
        let items = got.json()["result"]["resources"].as_array().unwrap().clone();
        items.iter().map(|item| item["uri"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(uris(&first), ["demo://0", "demo://1", "demo://2"]);
    assert_eq!(asked(&endless, "resources/list").len(), 4);
    let cursor = first.json()["result"]["nextCursor"].clone();
    let next = rig.modern("/mcp", "resources/list", json!({"cursor": cursor})).await;
    assert_eq!(uris(&next), ["demo://3", "demo://4", "demo://5"]);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_handshakes_count_among_the_calls_in_flight() {
    let (server, _stage) = servers::lively(Era::Modern).await;
    let limits = Limits { calls_per_agent_max: 1, ..Limits::default() };
    let servers = vec![("files", server.transport())];
    let wish = Wish { servers, policies: ALL, limits, agents: vec!["other"], ..Wish::default() };
    let rig = Rig::start(wish).await;
    rig.learned("files", servers::LIVELY).await;
    let (session, _) = rig.initialize("/mcp/files", json!({})).await;
    let begin = json!({"name": "begin", "arguments": {}, "_meta": {"progressToken": 1}});
    let mut running = rig.modern_open("/mcp/files", "tools/call", begin).await;
    running.next().await.unwrap();
    for path in ["/mcp", "/mcp/files"] {
        for method in ["tools/list", "server/discover"] {
            let got = rig.modern(path, method, json!({})).await;
            assert_eq!(got.status, 429, "{path} {method}: {}", got.body);
        }
        let got = initialize_by(&rig, "tester", path, json!({})).await;
        assert_eq!(got.status, 429, "{path}: {}", got.body);
        assert_eq!(initialize_by(&rig, "other", path, json!({})).await.status, 200);
    }
    let level = rig.legacy("/mcp/files", &session, "logging/setLevel", json!({"level": "info"})).await;
    assert_eq!(level.status, 429, "{}", level.body);
    assert_eq!(rig.legacy("/mcp/files", &session, "ping", json!({})).await.status, 200);
    drop(running);
    rig.outcomes(1).await;
    for _ in 0..3 {
        let list = rig.modern("/mcp/files", "tools/list", json!({})).await;
        assert_eq!(list.status, 200, "a place was not given back: {}", list.body);
    }
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_hears_nothing_of_an_agent_that_may_use_nothing_there() {
    let (server, _stage) = servers::lively(Era::Legacy).await;
    let policies =
        r#"permit (principal == Castra::Agent::"tester", action, resource == Castra::Tool::"files/look");"#;
    let servers = vec![("files", server.transport())];
    let rig = Rig::start(Wish { servers, policies, agents: vec!["carol"], ..Wish::default() }).await;
    rig.learned("files", servers::LIVELY).await;
    let before = server.requests().len();
    let token = &rig.tokens["carol"];
    let closed = [
        initialize_by(&rig, "carol", "/mcp/files", json!({})).await,
        rig.modern_by(token, "/mcp/files", "tools/list", json!({})).await,
        rig.modern_by(token, "/mcp/files", "server/discover", json!({})).await,
    ];
    for got in closed {
        assert!(got.body.contains("no policy permits agent \\\"carol\\\" anything"), "{}", got.body);
        assert_eq!(got.header("mcp-session-id"), "");
    }
    let list = rig.modern_by(token, "/mcp", "tools/list", json!({})).await;
    assert_eq!(list.json()["result"]["tools"], json!([]), "{}", list.body);
    assert_eq!(server.requests().len(), before, "the server was asked");

    let (session, _) = rig.initialize("/mcp/files", json!({})).await;
    let list = rig.legacy("/mcp/files", &session, "tools/list", json!({})).await;
    assert_eq!(list.json()["result"]["tools"].as_array().unwrap().len(), 1, "{}", list.body);
    rig.close_and_verify().await;
}
