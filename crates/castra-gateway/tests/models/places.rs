//! Where models are asked over HTTP, who may, and what is said to those who may not.

use serde_json::json;

use crate::{
    provider::{self, Says, Speaks},
    rig::{Rig, Wish},
    stage::{ALL_ASKS, Asks, route, wish},
};

async fn hello(policies: &'static str) -> (Rig, crate::server::Server) {
    let server = provider::saying(Speaks::Chat, Says::text(&["hello"])).await;
    let rig = Rig::start(Wish { policies, ..wish(Speaks::Chat, &server) }).await;
    (rig, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_http_is_said_in_the_apis_own_form() {
    let (rig, server) = hello(crate::rig::ALL).await;
    for (method, path, headers, status, anthropic) in [
        ("POST", "/v1/completions", vec![], 404, false),
        ("POST", "/v1/messages/batches", vec![], 404, true),
        ("GET", "/v1/files", vec![("anthropic-version", "2023-06-01")], 404, true),
        ("GET", "/v1/chat/completions", vec![], 405, false),
        ("DELETE", "/v1/messages", vec![], 405, true),
        ("POST", "/v1/models", vec![], 405, false),
        ("POST", "/v1/responses", vec![("content-type", "text/plain")], 415, false),
        ("POST", "/v1/messages", vec![("authorization", "Bearer castra_agent_wrong")], 401, true),
        ("POST", "/v1/chat/completions", vec![("authorization", "")], 401, false),
        ("POST", "/v1/messages", vec![("host", "evil.example")], 403, true),
    ] {
        let got = rig.request(method, path, &headers, b"{}").await;
        assert_eq!(got.status, status, "{method} {path}: {}", got.body);
        let body = got.json();
        assert_eq!(body["type"] == "error", anthropic, "{method} {path}: {body}");
        assert!(body["error"]["message"].is_string() && body["error"]["type"].is_string(), "{body}");
        assert_eq!(got.header("www-authenticate").is_empty(), status != 401, "{method} {path}");
        assert_eq!(got.header("allow").is_empty(), status != 405, "{method} {path}");
    }
    assert_eq!(rig.records_of("refusal").await.len(), 10);
    assert!(server.requests().is_empty(), "something went to the provider");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_stand_where_anthropics_clients_put_it_and_never_goes_on() {
    let (rig, server) = hello(crate::rig::ALL).await;
    let body = Asks::Chat.request("hi", &[], false).to_string();
    for headers in [
        vec![("authorization", ""), ("x-api-key", rig.token.as_str())],
        vec![("x-api-key", rig.token.as_str())],
    ] {
        let got = rig.request("POST", "/v1/chat/completions", &headers, body.as_bytes()).await;
        assert_eq!(got.status, 200, "{}", got.body);
    }
    let got = rig.request("POST", "/v1/chat/completions", &[("x-api-key", "another")], body.as_bytes()).await;
    assert_eq!(got.status, 401, "{}", got.body);
    // On other endpoints it is no credential.
    let got = rig.request("POST", "/mcp", &[("authorization", ""), ("x-api-key", &rig.token)], b"{}").await;
    assert_eq!(got.status, 401, "{}", got.body);
    for seen in server.requests() {
        assert_eq!(seen.header("authorization"), format!("Bearer {}", provider::KEY));
        assert_eq!(seen.header("x-api-key"), "");
        assert!(!seen.headers.values().any(|value| value.contains(&rig.token)), "{seen:?}");
    }
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sees_the_models_that_it_may_ask() {
    let server = provider::saying(Speaks::Chat, Says::text(&["hello"])).await;
    let models =
        ["assistant", "org/other", "secret"].map(|name| route(name, &[("v1", Speaks::Chat, &server)]));
    let rig = Rig::start(Wish {
        models: models.into(),
        policies: r#"permit (principal, action, resource) unless { resource == Castra::Model::"secret" };"#,
        ..Wish::default()
    })
    .await;
    let list = rig.request("GET", "/v1/models", &[], b"").await.json();
    let ids = |list: &serde_json::Value| -> Vec<String> {
        list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (&list["object"], ids(&list)),
        (&json!("list"), vec!["assistant".to_owned(), "org/other".into()])
    );
    let anthropic = [("anthropic-version", "2023-06-01")];
    let list = rig.request("GET", "/v1/models", &anthropic, b"").await.json();
    assert_eq!((&list["has_more"], ids(&list).len()), (&json!(false), 2));
    for (id, status) in
        [("assistant", 200), ("org/other", 200), ("org%2Fother", 200), ("secret", 404), ("none", 404)]
    {
        let got = rig.request("GET", &format!("/v1/models/{id}"), &[], b"").await;
        assert_eq!(got.status, status, "{id}: {}", got.body);
    }
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_ask_hears_why_and_reaches_nobody() {
    let (rig, server) = hello(r#"permit (principal, action == Castra::Action::"call", resource);"#).await;
    for asks in ALL_ASKS {
        let got = asks.ask(&rig, "hi").await;
        assert_eq!(got.status, 403, "{}", got.body);
        let (_, message) = asks.error(&got);
        assert!(message.contains("no policy permits"), "{message}");
        assert!(!got.header("castra-receipt").is_empty());
    }
    assert!(server.requests().is_empty());
    let intents = rig.records_of("intent").await;
    let first = &intents[0];
    assert_eq!(
        (&first["resource"], &first["operation"]),
        (&json!("Model::\"assistant\""), &json!("complete"))
    );
    assert_eq!(
        (&first["decision"], &first["protocol"], &first["method"]),
        (&json!("deny"), &json!("openai"), &json!("chat"))
    );
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_named_by_header_trace_or_conversation() {
    let (rig, _server) = hello(crate::rig::ALL).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
    let body = Asks::Chat.request("hi", &[], false).to_string();
    for headers in
        [vec![("castra-run", "run-1"), ("traceparent", trace)], vec![("traceparent", trace)], vec![]]
    {
        assert_eq!(rig.request("POST", "/v1/chat/completions", &headers, body.as_bytes()).await.status, 200);
    }
    let runs: Vec<_> = rig.records_of("intent").await.iter().map(|i| i["run"].clone()).collect();
    assert_eq!(runs[..2], [json!("run-1"), json!("0af7651916cd43dd8448eb211c80319c")]);
    // The whole conversation is sent each time: its first words name it.
    assert!(runs[2].as_str().is_some_and(|run| run.starts_with("castra:chat:")), "{runs:?}");
    rig.close_and_verify().await;
}
