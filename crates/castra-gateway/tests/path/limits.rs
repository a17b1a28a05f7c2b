//! Every limit on what one caller, or one server, can take up: reached, said, recorded, and free again.

use std::{sync::Arc, time::Duration};

use castra_core::Limits;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    rig::{ALL, Rig, Wish, eventually, said},
    server::Server,
    servers::{self, Era, Stage},
};

async fn lively(era: Era, limits: Limits) -> (Rig, Server, Stage) {
    let (server, stage) = servers::lively(era).await;
    let servers = vec![("files", server.transport())];
    let rig =
        Rig::start(Wish { servers, policies: ALL, limits, agents: vec!["other"], ..Wish::default() }).await;
    rig.learned("files", servers::LIVELY).await;
    (rig, server, stage)
}

const PATH: &str = "/mcp/files";

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_one_agent_at_once() {
    for era in [Era::Modern, Era::Legacy] {
        let limits = Limits { calls_per_agent_max: 2, ..Limits::default() };
        let (rig, _server, stage) = lively(Era::Modern, limits).await;
        let rig = Arc::new(rig);
        let client = Arc::new(rig.meet(era, PATH).await);
        let running: Vec<_> = (0..2)
            .map(|_| {
                let (rig, client) = (rig.clone(), client.clone());
                tokio::spawn(async move { said(&rig.call(&client, "wait").await.json()) })
            })
            .collect();
        eventually("both run", async || (rig.records_of("intent").await.len() == 2).then_some(())).await;
        let busy = rig.call(&client, "look").await;
        assert_eq!(busy.status, 429, "{}", busy.body);
        let error = &busy.json()["error"];
        assert_eq!(busy.json()["id"], 7);
        assert_eq!(error["data"]["castra.dev/refusal"]["code"], "busy", "{error}");
        assert!(error["message"].as_str().unwrap().contains("2 calls in flight"), "{error}");
        let refusals = rig.records_of("refusal").await;
        assert_eq!((&refusals[0]["code"], &refusals[0]["agent"]), (&json!("busy"), &json!("tester")));
        // Not at the cost of others.
        let other = rig.modern_by(&rig.tokens["other"], PATH, "tools/call", json!({"name": "look"})).await;
        assert_eq!(said(&other.json()), "look done");
        stage.go.give();
        for call in running {
            assert_eq!(call.await.unwrap(), "waited");
        }
        assert_eq!(said(&rig.call(&client, "look").await.json()), "look done");
        drop(client);
        Arc::into_inner(rig).unwrap().close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_too_large_or_too_slow() {
    let limits =
        Limits { body_bytes_max: 2000, body_time_max: Duration::from_millis(300), ..Limits::default() };
    let (rig, server, _) = lively(Era::Modern, limits).await;
    let large =
        rig.modern(PATH, "tools/call", json!({"name": "look", "arguments": {"x": "y".repeat(2000)}})).await;
    assert_eq!((large.status.as_u16(), &large.json()["error"]["code"]), (413, &json!("limit-reached")));

    for length in ["content-length: 100", "transfer-encoding: chunked"] {
        let mut slow = TcpStream::connect(rig.address()).await.unwrap();
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n{length}\r\n\r\n",
            rig.address(),
            rig.token
        );
        slow.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let n = slow.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..n]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{length}: {answer}");
        // The rest of the body could be taken for the next request.
        assert_eq!(slow.read(&mut [0; 64]).await.unwrap_or(0), 0, "{length}: the connection is still open");
    }
    let refusals = rig.records_of("refusal").await;
    assert_eq!(refusals.iter().filter(|r| r["code"] == "limit-reached" && r["agent"] == "tester").count(), 3);
    assert!(!server.requests().iter().any(|s| s.says("tools/call")));
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_too_many_sessions_the_one_unused_longest_ends() {
    let limits = Limits { sessions_per_agent_max: 3, ..Limits::default() };
    let (rig, server, _) = lively(Era::Legacy, limits).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(rig.meet(Era::Legacy, PATH).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let live = async |client: &crate::rig::Client| {
        let session = client.session.as_deref().unwrap();
        rig.legacy(PATH, session, "ping", json!({})).await.status == 200
    };
    assert!(live(&clients[0]).await);
    // A stream that is open is use.
    let stream = rig.listen(PATH, clients[1].session.as_deref().unwrap()).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let more = rig.meet(Era::Legacy, PATH).await;
    assert!(!live(&clients[2]).await, "another one than the one unused longest ended");
    assert!(live(&clients[0]).await && live(&clients[1]).await && live(&more).await);
    eventually("its session at the server ends too", async || {
        server
            .requests()
            .iter()
            .any(|s| s.method == "DELETE" && s.header("mcp-session-id") != "upstream-0")
            .then_some(())
    })
    .await;
    drop(stream);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_for_the_clients_input() {
    let server = servers::legacy().await;
    let limits =
        Limits { parked_per_agent_max: 1, parked_time_max: Duration::from_millis(500), ..Limits::default() };
    let servers = vec![("old", server.transport())];
    let rig = Rig::start(Wish { servers, policies: ALL, limits, ..Wish::default() }).await;
    rig.learned("old", servers::TOOLS).await;
    let ask = async |extra: Value| {
        let mut call = json!({"name": "ask", "arguments": {}});
        for (name, value) in extra.as_object().unwrap() {
            call[name] = value.clone();
        }
        rig.modern_as("/mcp/old", "tools/call", call, json!({"elicitation": {}})).await
    };
    let first = ask(json!({})).await.json();
    assert_eq!(first["result"]["resultType"], "input_required", "{first}");
    let busy = ask(json!({})).await;
    assert_eq!(busy.json()["error"]["data"]["castra.dev/refusal"]["code"], "busy", "{}", busy.body);
    let taken_back = || server.requests().iter().filter(|s| s.says("notifications/cancelled")).count();
    eventually("the second is taken back at the server", async || (taken_back() == 1).then_some(())).await;

    tokio::time::sleep(Duration::from_millis(600)).await;
    let key = first["result"]["inputRequests"].as_object().unwrap().keys().next().unwrap().clone();
    let late = json!({"requestState": first["result"]["requestState"],
        "inputResponses": {key: {"action": "accept", "content": {"name": "Ada"}}}});
    let late = ask(late).await;
    assert!(late.json()["error"]["message"].as_str().unwrap().contains("requestState"), "{}", late.body);
    eventually("the first is taken back as well", async || (taken_back() == 2).then_some(())).await;
    let again = ask(json!({})).await.json();
    assert_eq!(again["result"]["resultType"], "input_required", "{again}");
    let outcomes = rig.records_of("outcome").await;
    let ends: Vec<_> =
        outcomes.iter().map(|o| (o["status"].as_str().unwrap(), o["code"].as_str().unwrap())).collect();
    let waits = ("ok", "input_required");
    assert_eq!(ends, [waits, ("refused", "busy"), ("refused", "malformed"), waits]);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_too_large_too_deep_or_too_late() {
    for (era, server_era) in [
        (Era::Modern, Era::Modern),
        (Era::Modern, Era::Legacy),
        (Era::Legacy, Era::Modern),
        (Era::Legacy, Era::Legacy),
    ] {
        let case = format!("{era:?} client, {server_era:?} server");
        let limits = Limits {
            answer_bytes_max: 100 << 10,
            json_depth_max: 32,
            call_time_max: Duration::from_millis(400),
            ..Limits::default()
        };
        let (rig, server, _) = lively(server_era, limits).await;
        let client = rig.meet(era, PATH).await;
        for (count, (tool, code, status, says)) in [
            ("huge", "limit-reached", "refused", "more than 102400 bytes"),
            ("deep", "upstream-misbehaved", "upstream-failed", "deep"),
            ("hang", "upstream-timeout", "timeout", "gave no"),
        ]
        .into_iter()
        .enumerate()
        {
            let got = rig.call(&client, tool).await;
            let error = &got.json()["error"];
            assert_eq!(got.json()["id"], 7, "{case}: {tool}: {}", got.body);
            assert_eq!(error["data"]["castra.dev/refusal"]["code"], code, "{case}: {tool}: {}", got.body);
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("files") && message.contains(says), "{case}: {message}");
            let outcomes = rig.outcomes(count + 1).await;
            assert_eq!(
                (&outcomes[count]["status"], &outcomes[count]["code"]),
                (&json!(status), &json!(code)),
                "{case}"
            );
            assert!(!got.header("castra-receipt").is_empty(), "{case}: {tool}");
        }
        // Late in the middle of a stream.
        let seen = rig.call_open(&client, "begin").await.until(|m| m["id"] == 7).await;
        assert_eq!(seen.len(), 2, "{case}: {seen:?}");
        assert_eq!(
            seen[1]["error"]["data"]["castra.dev/refusal"]["code"], "upstream-timeout",
            "{case}: {seen:?}"
        );
        assert_eq!(rig.outcomes(4).await[3]["status"], "timeout", "{case}");
        if server_era == Era::Legacy {
            let told = || server.requests().iter().filter(|s| s.says("notifications/cancelled")).count();
            eventually("both late calls are taken back", async || (told() == 2).then_some(())).await;
        }
        assert_eq!(said(&rig.call(&client, "look").await.json()), "look done", "{case}");
        rig.close_and_verify().await;
    }
}
