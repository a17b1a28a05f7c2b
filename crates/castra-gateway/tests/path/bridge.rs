//! Old clients at new servers and new clients at old servers.

use serde_json::json;

use crate::{
    rig::{ALL, Rig, Wish},
    servers,
};

async fn both() -> Rig {
    let (modern, legacy) = (servers::modern().await, servers::legacy().await);
    let servers = vec![("new", modern.transport()), ("old", legacy.transport())];
    let rig = Rig::start(Wish { servers, policies: ALL, ..Wish::default() }).await;
    rig.learned("new", servers::TOOLS).await;
    rig.learned("old", servers::TOOLS).await;
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn each_era_reaches_each() {
    let rig = both().await;
    for path in ["/mcp/new", "/mcp/old"] {
        let got = rig.modern(path, "tools/call", json!({"name": "look", "arguments": {}})).await;
        assert_eq!(got.json()["result"]["content"][0]["text"], "look done", "{path}: {}", got.body);
        assert_eq!(got.json()["result"]["resultType"], "complete", "{path}");
        let list = rig.modern(path, "tools/list", json!({})).await.json();
        assert_eq!(list["result"]["tools"].as_array().unwrap().len(), servers::TOOLS, "{path}");
        assert!(list["result"]["ttlMs"].is_number() && list["result"]["cacheScope"].is_string(), "{list}");
        let discovered = rig.modern(path, "server/discover", json!({})).await.json();
        assert!(discovered["result"]["supportedVersions"].to_string().contains("2026-07-28"), "{discovered}");

        let (session, hello) = rig.initialize(path, json!({})).await;
        assert_eq!(hello.json()["result"]["protocolVersion"], "2025-11-25", "{path}: {}", hello.body);
        assert!(!session.is_empty());
        let got = rig.legacy(path, &session, "tools/call", json!({"name": "change", "arguments": {}})).await;
        assert_eq!(got.json()["result"]["content"][0]["text"], "change done", "{path}: {}", got.body);
        assert!(got.json()["result"].get("resultType").is_none(), "{path}: {}", got.body);
        let list = rig.legacy(path, &session, "tools/list", json!({})).await.json();
        assert_eq!(list["result"]["tools"].as_array().unwrap().len(), servers::TOOLS, "{path}: {list}");
        assert!(list["result"].get("ttlMs").is_none(), "{list}");
        assert_eq!(rig.legacy(path, &session, "ping", json!({})).await.json()["result"], json!({}));
        let gone = rig.request("DELETE", path, &[("mcp-session-id", &session)], b"").await;
        assert_eq!(gone.status, 200);
        assert_eq!(rig.legacy(path, &session, "tools/list", json!({})).await.status, 404);
    }
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_client_answers_an_old_servers_question() {
    let rig = both().await;
    let call = json!({"name": "ask", "arguments": {"text": "hi"}});
    let able = json!({"elicitation": {}});
    let got = rig.modern_as("/mcp/old", "tools/call", call.clone(), able.clone()).await;
    let answer = got.json();
    assert_eq!(answer["result"]["resultType"], "input_required", "{}", got.body);
    let state = answer["result"]["requestState"].as_str().unwrap();
    let (key, question) = answer["result"]["inputRequests"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(question["method"], "elicitation/create");
    let mut retry = call.clone();
    retry["requestState"] = state.into();
    retry["inputResponses"] = json!({key: {"action": "accept", "content": {"name": "Ada"}}});

    let mut other = retry.clone();
    other["arguments"] = json!({"text": "something else"});
    let refused = rig.modern_as("/mcp/old", "tools/call", other, able.clone()).await;
    assert!(!refused.body.contains("hello"), "a state was good for another request: {}", refused.body);

    let got = rig.modern_as("/mcp/old", "tools/call", retry.clone(), able.clone()).await;
    assert_eq!(got.json()["result"]["content"][0]["text"], "hello Ada", "{}", got.body);
    assert_eq!(got.json()["id"], 7);
    let again = rig.modern_as("/mcp/old", "tools/call", retry, able).await;
    assert!(!again.body.contains("hello"), "a state was good twice: {}", again.body);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_client_that_cannot_answer_is_not_asked() {
    let rig = both().await;
    let got = rig.modern("/mcp/old", "tools/call", json!({"name": "ask", "arguments": {}})).await;
    assert_eq!(got.json()["result"]["content"][0]["text"], "hello nobody", "{}", got.body);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_client_answers_a_new_servers_question() {
    let rig = both().await;
    for path in ["/mcp/new", "/mcp/old"] {
        let (session, _) = rig.initialize(path, json!({"elicitation": {}})).await;
        let call = json!({"name": "ask", "arguments": {}});
        let mut stream = rig.legacy_open(path, &session, "tools/call", call).await;
        let receipt = stream.headers["castra-receipt"].to_str().unwrap().to_owned();
        assert!(receipt.starts_with("test.example/log;index="), "{path}: {receipt}");
        let question = stream.next().await.unwrap();
        assert_eq!(question["method"], "elicitation/create", "{path}: {question}");
        let content = json!({"action": "accept", "content": {"name": "Bob"}});
        let reply = json!({"jsonrpc": "2.0", "id": question["id"], "result": content}).to_string();
        let took = rig.request("POST", path, &[("mcp-session-id", &session)], reply.as_bytes()).await;
        assert_eq!(took.status, 202, "{path}: {}", took.body);
        let rest = stream.rest().await;
        assert!(rest.contains(": castra-receipt: test.example/log;index="), "{path}: {rest}");
        assert!(rest.contains("hello Bob"), "{path}: {rest}");
    }
    let outcomes = rig.records_of("outcome").await;
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes.iter().all(|o| o["status"] == "ok"), "{outcomes:?}");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_federated_view_joins_both() {
    let rig = both().await;
    let list = rig.modern("/mcp", "tools/list", json!({})).await.json();
    let names: Vec<_> =
        list["result"]["tools"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 2 * servers::TOOLS, "{list}");
    assert!(names.contains(&"new__look") && names.contains(&"old__look"));
    let (session, _) = rig.initialize("/mcp", json!({})).await;
    for name in ["new__change", "old__change"] {
        let call = json!({"name": name, "arguments": {"text": "x"}});
        let got = rig.modern("/mcp", "tools/call", call.clone()).await;
        assert_eq!(got.json()["result"]["content"][0]["text"], "change done", "{name}: {}", got.body);
        let got = rig.legacy("/mcp", &session, "tools/call", call).await;
        assert_eq!(got.json()["result"]["content"][0]["text"], "change done", "{name}: {}", got.body);
    }
    let read = rig.modern("/mcp", "resources/read", json!({"uri": "test://one"})).await;
    assert_eq!(read.json()["result"]["contents"][0]["text"], "1", "{}", read.body);
    let nowhere = rig.modern("/mcp", "tools/call", json!({"name": "none__look", "arguments": {}})).await;
    assert!(nowhere.body.contains("no such server"), "{}", nowhere.body);
    rig.close_and_verify().await;
}
