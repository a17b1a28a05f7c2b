//! Input that is wrong: each gets an error in the protocol's own form and a record.

use castra_core::Limits;
use serde_json::json;

use crate::{
    rig::{ALL, Rig, Wish},
    server::Server,
    servers,
};

async fn rig() -> (Rig, Server) {
    let server = servers::modern().await;
    let limits = Limits { body_bytes_max: 4096, json_depth_max: 16, ..Limits::default() };
    let servers = vec![("files", server.transport())];
    let rig = Rig::start(Wish { servers, policies: ALL, limits, ..Wish::default() }).await;
    rig.learned("files", servers::TOOLS).await;
    (rig, server)
}

/// Body, status, JSON-RPC code.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_messages() {
    let (rig, _server) = rig().await;
    let deep = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{}1{}}}",
        "[".repeat(40),
        "]".repeat(40)
    );
    let cases: &[(&[u8], u16, i64)] = &[
        (b"", 400, -32700),
        (b"{", 400, -32700),
        (b"\xff\xfe", 400, -32700),
        (b"[]", 400, -32600),
        (br#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, 400, -32600),
        (br#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, 400, -32700),
        (br#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, 400, -32600),
        (br#"{"jsonrpc":"2.0","id":1,"method":7}"#, 400, -32600),
        (br#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, 400, -32600),
        (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}"#, 400, -32600),
        (deep.as_bytes(), 413, 41301),
    ];
    for (body, status, code) in cases {
        let got = rig.request("POST", "/mcp/files", &[], body).await;
        let shown = String::from_utf8_lossy(body).chars().take(80).collect::<String>();
        assert_eq!(got.status, *status, "{shown}: {}", got.body);
        assert_eq!(got.json()["error"]["code"], *code, "{shown}: {}", got.body);
    }
    assert_eq!(rig.records_of("refusal").await.len(), cases.len());
    let large = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x{}\"}}", "y".repeat(5000));
    assert_eq!(rig.request("POST", "/mcp/files", &[], large.as_bytes()).await.status, 413);
    assert_eq!(rig.request("POST", "/mcp/files", &[("content-type", "text/plain")], b"{}").await.status, 415);
    assert_eq!(rig.request("PUT", "/mcp/files", &[], b"{}").await.status, 405);
    assert_eq!(rig.request("POST", "/mcp/none", &[], b"{}").await.status, 404);
    assert_eq!(rig.request("POST", "/elsewhere", &[], b"{}").await.status, 404);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_must_agree_with_the_body() {
    let (rig, server) = rig().await;
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "change", "arguments": {}, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}}}})
    .to_string();
    let good = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "change")];
    let cases: &[(&str, &str, i64)] = &[
        ("mcp-method", "tools/list", -32020),
        ("mcp-method", "", -32020),
        ("mcp-name", "look", -32020),
        ("mcp-name", "", -32020),
        ("mcp-protocol-version", "2025-11-25", -32020),
        ("mcp-protocol-version", "", -32020),
    ];
    for (name, value, code) in cases {
        let mut headers = good;
        for header in &mut headers {
            if header.0 == *name {
                header.1 = value;
            }
        }
        let got = rig.request("POST", "/mcp/files", &headers, call.as_bytes()).await;
        assert_eq!(got.status, 400, "{name}: {value}: {}", got.body);
        assert_eq!(got.json()["error"]["code"], *code, "{name}: {value}: {}", got.body);
    }
    assert!(!server.requests().iter().any(|s| s.says("tools/call")));
    let version = [("mcp-protocol-version", "1900-01-01")];
    let got =
        rig.request("POST", "/mcp/files", &version, br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await;
    assert_eq!((got.status.as_u16(), &got.json()["error"]["code"]), (400, &json!(-32022)), "{}", got.body);
    let unknown = rig.modern("/mcp/files", "tools/explode", json!({})).await;
    assert_eq!((unknown.status.as_u16(), &unknown.json()["error"]["code"]), (404, &json!(-32601)));
    assert_eq!(unknown.json()["id"], 7);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_belongs_to_its_agent_and_endpoint() {
    let (rig, _server) = rig().await;
    let (session, _) = rig.initialize("/mcp/files", json!({})).await;
    let ping = |path: &'static str, session: String| {
        let rig = &rig;
        async move { rig.legacy(path, &session, "ping", json!({})).await.status.as_u16() }
    };
    assert_eq!(ping("/mcp/files", session.clone()).await, 200);
    assert_eq!(ping("/mcp", session.clone()).await, 404);
    assert_eq!(ping("/mcp/files", "0".repeat(32)).await, 404);
    let none =
        rig.request("POST", "/mcp/files", &[], br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).await;
    assert_eq!(none.status, 400, "{}", none.body);
    let stream = rig.request("GET", "/mcp/files", &[("accept", "application/json")], b"").await;
    assert_eq!(stream.status, 405);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_a_clear_answer() {
    let server = servers::modern().await;
    let transport = server.transport();
    let nowhere = match transport {
        castra_gateway::upstream::Transport::Http { headers, .. } => {
            castra_gateway::upstream::Transport::Http {
                url: "http://127.0.0.1:1/mcp".parse().unwrap(),
                headers,
            }
        }
        other => other,
    };
    let rig = Rig::start(Wish { servers: vec![("files", nowhere)], policies: ALL, ..Wish::default() }).await;
    let got = rig.modern("/mcp/files", "tools/call", json!({"name": "look", "arguments": {}})).await;
    let answer = got.json();
    assert!(answer["error"]["code"].is_number() || answer["result"]["isError"] == true, "{}", got.body);
    assert!(got.body.contains("files"), "{}", got.body);
    assert!(!got.body.contains("s3cret"), "{}", got.body);
    let outcomes = rig.records_of("outcome").await;
    assert_eq!(outcomes[0]["status"], "upstream-failed");
    let list = rig.modern("/mcp", "tools/list", json!({})).await.json();
    assert_eq!(list["result"]["_meta"]["castra.dev/unavailable"], json!(["files"]), "{list}");
    rig.close_and_verify().await;
}
