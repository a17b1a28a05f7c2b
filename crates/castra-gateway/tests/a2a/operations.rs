//! Every operation passes in both bindings, on record, with the gate's own credential.

use serde_json::{Value, json};

use crate::peer::{Client, Peer, message};

#[tokio::test]
async fn every_operation_passes_in_both_bindings() {
    let peer = Peer::good().await;
    let rig = peer.gate().await;
    let mut actions = 0;
    for client in Client::both(&rig) {
        let id = client.task().await;
        let path = |rest: &str| rest.replace("ID", &id);
        let config = json!({"taskId": id, "url": "https://hooks.example/in/1"});
        let of_config = json!({"taskId": id, "id": "p1"});
        let one = json!({"id": id});
        for (method, http, params, field) in [
            ("GetTask", path("GET /tasks/ID"), one.clone(), "/id"),
            ("ListTasks", path("GET /tasks"), json!({}), "/tasks/0/id"),
            ("CancelTask", path("POST /tasks/ID:cancel"), one, "/id"),
            (
                "CreateTaskPushNotificationConfig",
                path("POST /tasks/ID/pushNotificationConfigs"),
                config,
                "/url",
            ),
            (
                "GetTaskPushNotificationConfig",
                path("GET /tasks/ID/pushNotificationConfigs/p1"),
                of_config.clone(),
                "/token",
            ),
            (
                "ListTaskPushNotificationConfigs",
                path("GET /tasks/ID/pushNotificationConfigs"),
                json!({"taskId": id}),
                "/configs/0/url",
            ),
            (
                "DeleteTaskPushNotificationConfig",
                path("DELETE /tasks/ID/pushNotificationConfigs/p1"),
                of_config,
                "",
            ),
            ("GetExtendedAgentCard", path("GET /extendedAgentCard"), json!({}), "/name"),
        ] {
            let got = client.ask(method, &http, params).await;
            assert_eq!(got.status, 200, "{method}: {}", got.body);
            assert!(client.result(&got).pointer(field).is_some(), "{method}: {}", got.body);
            assert!(!got.header("castra-receipt").is_empty(), "{method}");
            let last = peer.requests().pop().unwrap();
            assert_eq!(last.header("authorization"), "Bearer s3cret-of-the-gate", "{method}");
            assert_eq!(last.header("a2a-version"), "1.0");
            assert_eq!(last.header("a2a-extensions"), "https://ext.example/1");
            assert!(!last.header("castra-delegation").is_empty());
            actions += 1;
        }
        let subscribed =
            client.open("SubscribeToTask", &path("GET /tasks/ID:subscribe"), json!({"id": id})).await;
        assert_eq!(client.events(subscribed).await[0]["task"]["id"], *id);
        actions += 2;
    }
    rig.outcomes(actions).await;
    let intents = rig.records_of("intent").await;
    assert_eq!(intents.len(), actions);
    for intent in intents {
        assert_eq!(
            (intent["agent"].as_str(), intent["resource"].as_str()),
            (Some("tester"), Some("Peer::\"planner\""))
        );
        assert_eq!((intent["protocol"].as_str(), intent["operation"].as_str()), (Some("a2a"), Some("send")));
    }
    rig.close_and_verify().await;
}

#[tokio::test]
async fn refusals_are_in_the_protocols_own_form() {
    let peer = Peer::good().await;
    let policies = r#"permit (principal, action == Castra::Action::"send", resource) when { context.message.method != "CancelTask" };"#;
    let rig = peer.gate_with(peer.wish(policies)).await;
    for client in Client::both(&rig) {
        let id = client.task().await;
        let got = client.ask("CancelTask", &format!("POST /tasks/{id}:cancel"), json!({"id": id})).await;
        assert_eq!(client.reason(&got), "PERMISSION_DENIED");
        assert_eq!(got.status, if client.rpc { 200 } else { 403 });
        let got = client.ask("GetTask", "GET /tasks/none", json!({"id": "none"})).await;
        assert_eq!(client.reason(&got), "TASK_NOT_FOUND");
        let got = client.ask("SendMessage", "POST /message:send", json!({})).await;
        assert_eq!(client.reason(&got), "INVALID_PARAMS");
        let got = client.ask("message/send", "POST /nothing", json!({})).await;
        assert_eq!(client.reason(&got), "METHOD_NOT_FOUND");
        let push = json!({"message": message("x"), "configuration": {"taskPushNotificationConfig": {"url": "https://evil.example"}}});
        let got = client.ask("SendMessage", "POST /message:send", push).await;
        assert_eq!(client.reason(&got), "INVALID_PARAMS", "{}", got.body);
        let (path, body) = if client.rpc {
            (
                "/a2a/planner",
                json!({"jsonrpc": "2.0", "id": 7, "method": "message/send", "params": {}}).to_string(),
            )
        } else {
            ("/a2a/planner/v1/message:send", String::new())
        };
        let got = rig.request("POST", path, &[], body.as_bytes()).await;
        assert_eq!(client.reason(&got), "VERSION_NOT_SUPPORTED", "{}", got.body);
    }
    let elsewhere = rig.request("POST", "/a2a/nobody", &[("a2a-version", "1.0")], b"{}").await;
    assert_eq!(elsewhere.status, 404);
    let unknown = rig.request("POST", "/a2a/planner", &[("authorization", "")], b"{}").await;
    assert_eq!(unknown.status, 401);
    let sent: Vec<Value> = peer.requests().iter().map(|s| json!(s.path)).collect();
    assert_eq!(sent.len(), 2, "only the two messages went out: {sent:?}");
    rig.close_and_verify().await;
}

#[tokio::test]
async fn what_is_found_in_a_message_reaches_the_policies() {
    let peer = Peer::good().await;
    let policies = r#"permit (principal, action, resource);
        forbid (principal, action == Castra::Action::"send", resource) when { context.findings.contains("secret.aws-access-key") };
        forbid (principal, action == Castra::Action::"send", resource) when { context.message.media };"#;
    let rig = peer.gate_with(peer.wish(policies)).await;
    for client in Client::both(&rig) {
        assert_eq!(client.send(message("plain")).await.status, 200);
        let got = client.send(message(crate::peer::SECRET)).await;
        assert_eq!(client.reason(&got), "PERMISSION_DENIED");
        let got = client.send(json!({"messageId": "m", "parts": [{"url": "https://files.example/x"}]})).await;
        assert_eq!(client.reason(&got), "PERMISSION_DENIED");
    }
    rig.close_and_verify().await;
}

#[tokio::test]
async fn a_message_can_wait_for_a_person() {
    let peer = Peer::good().await;
    let policies = r#"permit (principal, action, resource);
        @ask("person") forbid (principal, action == Castra::Action::"send", resource)
        when { context.message.method == "SendMessage" } unless { context has approval };"#;
    let rig = peer.gate_with(peer.wish(policies)).await;
    for client in Client::both(&rig) {
        let got = client.send(message("x")).await;
        assert_eq!(client.reason(&got), "PERMISSION_DENIED");
        let body = got.json();
        let error = &body["error"];
        let details = if client.rpc { &error["data"] } else { &error["details"] };
        let id = details[0]["metadata"]["approval_required"].as_str().unwrap_or_else(|| panic!("{body}"));
        assert!(error["message"].as_str().unwrap().contains(id), "{body}");
        rig.state.answer_approval(id, true, "alice", None, castra_store::clock::now()).unwrap();
        assert_eq!(client.send(message("x")).await.status, 200);
        assert_eq!(client.reason(&client.send(message("x")).await), "PERMISSION_DENIED");
    }
    rig.close_and_verify().await;
}
