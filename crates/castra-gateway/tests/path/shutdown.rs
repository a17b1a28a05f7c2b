//! The end: what runs may finish, what does not is cut with a reason, and nothing new begins.

use std::{sync::Arc, time::Duration};

use castra_core::Limits;
use serde_json::{Value, json};

use crate::{
    rig::{ALL, Client, Rig, Wish, eventually, said},
    servers::{self, Era, Stage, processes},
};

struct All {
    rig: Arc<Rig>,
    stages: [Stage; 2],
}

/// Servers of each kind, as `new`, `old`, `kid` and `kid-old`.
async fn all(drain_time_max: Duration, tag: &str) -> All {
    let ((new, one), (old, two)) = (servers::lively(Era::Modern).await, servers::lively(Era::Legacy).await);
    let servers = vec![
        ("new", new.transport()),
        ("old", old.transport()),
        ("kid", servers::child("lasting", tag)),
        ("kid-old", servers::child("legacy", tag)),
    ];
    let limits = Limits { drain_time_max, ..Limits::default() };
    let rig = Rig::start(Wish { servers, policies: ALL, limits, ..Wish::default() }).await;
    for (server, tools) in [("new", servers::LIVELY), ("old", servers::LIVELY)] {
        rig.learned(server, tools).await;
    }
    rig.learned("kid", servers::CHILD_TOOLS).await;
    rig.learned("kid-old", servers::CHILD_TOOLS).await;
    All { rig: Arc::new(rig), stages: [one, two] }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_may_finish_while_nothing_new_begins() {
    let All { rig, stages } = all(Duration::from_secs(10), "drained").await;
    let mut running = Vec::new();
    let mut client = None;
    for era in [Era::Modern, Era::Legacy] {
        for path in ["/mcp/new", "/mcp/old"] {
            let (met, rig) = (rig.meet(era, path).await, rig.clone());
            let call = async move { said(&rig.call(&met, "wait").await.json()) };
            running.push(tokio::spawn(call));
        }
        client = Some(rig.meet(era, "/mcp/new").await);
    }
    eventually("all run", async || (rig.records_of("intent").await.len() == 4).then_some(())).await;
    let gate = rig.gate.clone();
    let drain = tokio::spawn(async move { gate.drain().await });
    eventually("the gate shuts down", async || {
        rig.gate.ready().iter().any(|c| c.name == "open" && !c.ok).then_some(())
    })
    .await;
    for client in [Client { path: "/mcp/old", session: None }, client.unwrap()] {
        let late = rig.call(&client, "look").await;
        assert_eq!(late.status, 503, "{}", late.body);
        let error = &late.json()["error"];
        assert_eq!(error["data"]["castra.dev/refusal"]["code"], "shutting-down", "{error}");
    }
    assert!(!drain.is_finished());
    stages.iter().for_each(|stage| stage.go.give());
    for call in running {
        assert_eq!(call.await.unwrap(), "waited");
    }
    assert_eq!(drain.await.unwrap(), 0);
    let refusals = rig.records_of("refusal").await;
    assert_eq!(refusals.iter().filter(|r| r["code"] == "shutting-down").count(), 2);
    assert!(rig.records_of("outcome").await.iter().all(|o| o["status"] == "ok"));
    Arc::into_inner(rig).unwrap().close_and_verify().await;
    assert_eq!(processes("drained"), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_finish_in_time_is_cut_and_says_so() {
    let All { rig, .. } = all(Duration::from_millis(400), "cut").await;
    let cases = [
        ("/mcp/new", "hang"),
        ("/mcp/new", "begin"),
        ("/mcp/old", "hang"),
        ("/mcp/old", "begin"),
        ("/mcp/kid", "hold"),
        ("/mcp/kid-old", "hold"),
    ];
    let mut running = Vec::new();
    for era in [Era::Modern, Era::Legacy] {
        for (path, tool) in cases {
            let (met, rig) = (rig.meet(era, path).await, rig.clone());
            let call = async move {
                (rig.call_open(&met, tool).await.rest().await, format!("{era:?} at {path}: {tool}"))
            };
            running.push(tokio::spawn(call));
        }
    }
    let count = running.len();
    eventually("all run", async || (rig.records_of("intent").await.len() == count).then_some(())).await;
    assert_eq!(rig.gate.drain().await, count);
    for call in running {
        let (answer, case) = call.await.unwrap();
        let last = last_message(&answer);
        assert_eq!(last["id"], 7, "{case}: {answer}");
        assert_eq!(last["error"]["data"]["castra.dev/refusal"]["code"], "shutting-down", "{case}: {answer}");
    }
    let outcomes = rig.outcomes(count).await;
    let all = outcomes.iter().all(|o| o["status"] == "cancelled" && o["code"] == "shutting-down");
    assert!(all, "{outcomes:?}");
    Arc::into_inner(rig).unwrap().close_and_verify().await;
    assert_eq!(processes("cut"), [0; 0]);
}

/// The answer, be it whole or the last event.
fn last_message(answer: &str) -> Value {
    let last = answer.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap_or(answer);
    serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {answer:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn open_streams_end() {
    let All { rig, .. } = all(Duration::from_secs(5), "streams").await;
    let mut streams = Vec::new();
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    for path in ["/mcp/new", "/mcp/old", "/mcp/kid", "/mcp/kid-old", "/mcp"] {
        let (session, _) = rig.initialize(path, json!({})).await;
        streams.push((format!("session at {path}"), rig.listen(path, &session).await));
        let mut listening = rig.modern_open(path, "subscriptions/listen", wanted.clone()).await;
        let first = listening.next().await.unwrap();
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{path}: {first}");
        streams.push((format!("subscription at {path}"), listening));
    }
    assert_eq!(rig.gate.drain().await, 0, "a stream that only listens is no call");
    for (case, mut stream) in streams {
        let mut last = None;
        while let Some(message) = stream.next().await {
            last = Some(message);
        }
        if case.starts_with("subscription") {
            let last = last.unwrap_or_else(|| panic!("{case}: nothing says that it ends"));
            assert_eq!(last["id"], 7, "{case}: {last}");
        }
    }
    Arc::into_inner(rig).unwrap().close_and_verify().await;
    assert_eq!(processes("streams"), [0; 0]);
}
