//! The promises of design.md that the path keeps: no way around, recorded before it happens, every
//! answer explained, check it yourself.

use castra_core::PolicyMode;
use serde_json::json;

use crate::{
    rig::{Rig, Wish},
    servers,
};

async fn one_modern(wish: Wish) -> (Rig, crate::server::Server) {
    let server = servers::modern().await;
    let rig = Rig::start(Wish { servers: vec![("files", server.transport())], ..wish }).await;
    rig.learned("files", servers::TOOLS).await;
    (rig, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_reads_passes_and_the_bytes_are_the_servers() {
    let (rig, server) = one_modern(Wish::default()).await;
    let got =
        rig.modern("/mcp/files", "tools/call", json!({"name": "look", "arguments": {"text": "x"}})).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert_eq!(got.json()["result"]["content"][0]["text"], "look done");
    assert!(got.header("castra-receipt").starts_with("test.example/log;index="), "{:?}", got.headers);
    let seen = server.requests().into_iter().rfind(|s| s.says("tools/call")).unwrap();
    assert_eq!(seen.header("mcp-name"), "look");
    assert!(!seen.header("authorization").contains(&rig.token), "the caller's credential went to the server");

    let intents = rig.records_of("intent").await;
    let outcomes = rig.records_of("outcome").await;
    assert_eq!((intents.len(), outcomes.len()), (1, 1));
    assert_eq!(intents[0]["resource"], "Tool::\"files/look\"");
    assert_eq!(intents[0]["decision"], "allow");
    assert_eq!(intents[0]["policies"], json!(["tools-that-only-read"]));
    assert_eq!(outcomes[0]["action"], intents[0]["action"]);
    assert_eq!(outcomes[0]["status"], "ok");
    assert!(rig.close_and_verify().await >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_policy_permits_so_it_is_refused_with_the_reason_and_recorded() {
    let (rig, server) = one_modern(Wish::default()).await;
    let got = rig.modern("/mcp/files", "tools/call", json!({"name": "change", "arguments": {}})).await;
    let answer = got.json();
    assert_eq!(answer["result"]["isError"], true, "{}", got.body);
    let text = answer["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("tester") && text.contains("files/change"), "{text}");
    let refusal = &answer["result"]["_meta"]["castra.dev/refusal"];
    assert_eq!(refusal["code"], "denied");
    assert!(refusal["advice"].as_str().unwrap().contains("permit"), "{refusal}");
    assert!(!server.requests().iter().any(|s| s.says("tools/call")), "it reached the server");

    let intents = rig.records_of("intent").await;
    assert_eq!(intents[0]["decision"], "deny");
    assert!(!got.header("castra-receipt").is_empty());
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_only_what_the_caller_may_use() {
    let (rig, _server) = one_modern(Wish::default()).await;
    let got = rig.modern("/mcp/files", "tools/list", json!({})).await.json();
    let names: Vec<_> =
        got["result"]["tools"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["look", "ask"]);
    assert_eq!(got["result"]["cacheScope"], "private", "a list cut for one caller must not be shared");
    let all = rig.modern("/mcp", "tools/list", json!({})).await.json();
    let names: Vec<_> =
        all["result"]["tools"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["files__look", "files__ask"]);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn observe_mode_records_the_no_and_lets_it_pass() {
    let (rig, server) = one_modern(Wish { mode: PolicyMode::Observe, ..Wish::default() }).await;
    let got = rig.modern("/mcp/files", "tools/call", json!({"name": "change", "arguments": {}})).await;
    assert_eq!(got.json()["result"]["content"][0]["text"], "change done");
    assert!(server.requests().iter().any(|s| s.says("tools/call")));
    let intents = rig.records_of("intent").await;
    assert_eq!((&intents[0]["decision"], &intents[0]["enforced"]), (&json!("deny"), &json!(false)));
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erring_forbid_denies() {
    const POLICIES: &str = r#"
        @id("all") permit (principal, action, resource);
        @id("no-secrets") forbid (principal, action == Castra::Action::"call", resource)
        when { context.args has text && context.args.text like "*secret*" };
    "#;
    let (rig, _server) =
        one_modern(Wish { policies: "permit (principal, action, resource);", ..Wish::default() }).await;
    let sources = [castra_policy::PolicySource { file: "t.cedar".into(), text: POLICIES.into() }];
    let engine = castra_policy::Engine::load(&sources, &rig.gate.catalogue()).unwrap();
    rig.gate.replace_policies(engine, PolicyMode::Enforce);
    let call = |text: serde_json::Value| json!({"name": "look", "arguments": {"text": text}});
    let fine = rig.modern("/mcp/files", "tools/call", call("hello".into())).await;
    assert_eq!(fine.json()["result"]["content"][0]["text"], "look done");
    for bad in [json!("a secret"), json!(17), json!({"x": 1})] {
        let got = rig.modern("/mcp/files", "tools/call", call(bad.clone())).await;
        assert_eq!(got.json()["result"]["isError"], true, "{bad}: {}", got.body);
    }
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_does_not_happen() {
    let (rig, server) =
        one_modern(Wish { policies: "permit (principal, action, resource);", ..Wish::default() }).await;
    let log = rig.log.clone();
    tokio::task::spawn_blocking(move || log.close().unwrap()).await.unwrap();
    let got = rig.modern("/mcp/files", "tools/call", json!({"name": "look", "arguments": {}})).await;
    let answer = got.json();
    assert!(answer.get("error").is_some() || answer["result"]["isError"] == true, "{}", got.body);
    assert!(got.body.contains("could not be recorded"), "{}", got.body);
    assert!(!server.requests().iter().any(|s| s.says("tools/call")), "it happened all the same");
    assert!(rig.gate.ready().iter().any(|check| check.name == "log" && !check.ok));
    rig.leave_unverified();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changing_call_is_on_disk_before_the_server_hears_of_it() {
    let (rig, server) =
        one_modern(Wish { policies: "permit (principal, action, resource);", ..Wish::default() }).await;
    for _ in 0..20 {
        rig.modern("/mcp/files", "tools/call", json!({"name": "change", "arguments": {}})).await;
        // Outcome and intent are both acknowledged: they must survive a crash at this very instant.
        let durable = rig.log.status().durable;
        let records = rig.records().await;
        let last = records.iter().rposition(|r| r["kind"] == "outcome").unwrap() as u64;
        assert!(durable > last, "acknowledged, but not on disk: {durable} <= {last}");
    }
    assert_eq!(server.requests().iter().filter(|s| s.says("tools/call")).count(), 20);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_known_credential_nobody_gets_in() {
    let (rig, _server) = one_modern(Wish::default()).await;
    let body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let mut forged = rig.token.clone();
    forged.replace_range(20..22, "zz");
    for (header, expect) in [
        ("", "unauthenticated"),
        ("Bearer nonsense", "bad-credential"),
        ("Basic dGVzdDp0ZXN0", "bad-credential"),
        (&format!("Bearer {forged}"), "bad-credential"),
    ] {
        let got = rig.request("POST", "/mcp/files", &[("authorization", header)], body).await;
        assert_eq!(got.status, 401, "{header}");
        assert_eq!(got.json()["error"]["code"], expect, "{header}");
        assert!(got.header("www-authenticate").starts_with("Bearer"), "{:?}", got.headers);
    }
    let refusals = rig.records_of("refusal").await;
    assert_eq!(refusals.len(), 4);
    assert!(!refusals.iter().any(|r| r.to_string().contains("nonsense")), "a secret is on record");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_sites_pages_are_kept_out() {
    let (rig, _server) = one_modern(Wish::default()).await;
    let body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    for headers in [[("origin", "http://evil.example")], [("host", "evil.example")]] {
        let got = rig.request("POST", "/mcp/files", &headers, body).await;
        assert_eq!(got.status, 403, "{headers:?}");
        assert_eq!(got.json()["error"]["code"], "foreign-origin");
    }
    rig.close_and_verify().await;
}
