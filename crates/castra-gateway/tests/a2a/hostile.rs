//! What a peer should not answer, and callers should not send.

use serde_json::json;

use crate::{
    peer::{Client, Peer, message, reply, task},
    server::{self, Seen, Step},
};

type Script = fn(&Seen) -> Vec<Step>;

#[tokio::test]
async fn a_peer_that_misbehaves_is_told_so_in_the_protocols_form() {
    let scripts: [(&str, Script, &str); 7] = [
        ("html", |_| server::answer("200 OK", "text/html", "<html>"), "INVALID_AGENT_RESPONSE"),
        ("nothing", |_| server::answer("500 Oops", "text/plain", ""), "INVALID_AGENT_RESPONSE"),
        (
            "redirect",
            |_| server::answer_with("307 Temporary", &[("location", "http://127.0.0.1:1/")], ""),
            "INVALID_AGENT_RESPONSE",
        ),
        ("no task", |seen| reply(seen, &json!({"task": {}})), "INVALID_AGENT_RESPONSE"),
        ("doubled", |_| server::json(r#"{"task":{"id":"a","id":"b"}}"#), "INVALID_AGENT_RESPONSE"),
        (
            "credential",
            |_| server::answer("401 No", "application/json", r#"{"error":{"code":401}}"#),
            "AGENT_UNAVAILABLE",
        ),
        ("gone", |_| vec![Step::Close], "AGENT_UNAVAILABLE"),
    ];
    for (what, script, reason) in scripts {
        let peer = Peer::that(script).await;
        let rig = peer.gate().await;
        for client in Client::both(&rig) {
            let got = client.send(message("x")).await;
            assert_eq!(client.reason(&got), reason, "{what}: {}", got.body);
            assert!(!got.header("castra-receipt").is_empty(), "{what}");
        }
        for outcome in rig.outcomes(2).await {
            assert_eq!(outcome["status"], "upstream-failed", "{what}");
        }
        rig.close_and_verify().await;
    }
}

#[tokio::test]
async fn a_task_of_another_agent_is_no_answer() {
    let peer = Peer::that(|seen| reply(seen, &json!({"task": task("t1")}))).await;
    let rig = peer.gate().await;
    let [client, _] = Client::both(&rig);
    assert_eq!(client.task().await, "t1");
    let got = client.by("other").send(message("x")).await;
    assert_eq!(client.reason(&got), "INVALID_AGENT_RESPONSE");
    assert!(!got.body.contains("c-t1"));
    rig.close_and_verify().await;
}

#[tokio::test]
async fn errors_of_the_peer_pass_masked() {
    let peer = Peer::that(|seen| {
        let text = format!("no such thing, but {}", crate::peer::SECRET);
        if seen.path == "/rpc" {
            server::json(
                json!({"jsonrpc": "2.0", "id": "r1", "error": {"code": -32002, "message": text}}).to_string(),
            )
        } else {
            let error = json!({"error": {"code": 400, "status": "FAILED_PRECONDITION", "message": text}});
            server::answer("400 Bad Request", "application/json", error.to_string())
        }
    })
    .await;
    let rig = peer.gate().await;
    for client in Client::both(&rig) {
        let got = client.send(message("x")).await;
        assert_eq!(got.status, if client.rpc { 200 } else { 400 });
        assert!(got.body.contains("but [redacted:aws-access-key]"), "{}", got.body);
    }
    for outcome in rig.outcomes(2).await {
        assert_eq!(outcome["status"], "error");
    }
    rig.close_and_verify().await;
}

#[tokio::test]
async fn a_body_that_two_readers_could_read_differently_goes_nowhere() {
    let peer = Peer::good().await;
    let rig = peer.gate().await;
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"a","id":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"parts":[],"taskId":"a","task_id":"b"}}}"#,
        r#"[{"jsonrpc":"2.0","id":1,"method":"ListTasks"}]"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ListTasks","method":"GetTask"}"#,
    ] {
        let got = rig.request("POST", "/a2a/planner", &[("a2a-version", "1.0")], body.as_bytes()).await;
        assert!(got.json()["error"]["code"].as_i64().unwrap() < 0, "{}", got.body);
    }
    assert!(peer.requests().is_empty());
    rig.close_and_verify().await;
}
