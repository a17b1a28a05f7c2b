//! Servers that are child processes: one per agent, replaced when it dies, gone when it should be.

use std::time::Duration;

use castra_core::AgentName;
use castra_store::clock;
use serde_json::{Value, json};

use crate::{
    rig::{ALL, Rig, Wish, eventually, said},
    servers::{self, Era, processes},
};

const KINDS: [&str; 2] = ["lasting", "legacy"];
const PATH: &str = "/mcp/kid";

async fn rig(kind: &str, tag: &str) -> Rig {
    let servers = vec![("kid", servers::child(kind, tag))];
    let rig = Rig::start(Wish { servers, policies: ALL, agents: vec!["other"], ..Wish::default() }).await;
    rig.learned("kid", servers::CHILD_TOOLS).await;
    rig
}

async fn pid_for(rig: &Rig, agent: &str) -> u32 {
    let got = rig.modern_by(&rig.tokens[agent], PATH, "tools/call", json!({"name": "pid"})).await;
    said(&got.json()).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_era_reaches_them_and_each_agent_has_its_own() {
    for kind in KINDS {
        let tag = format!("own-{kind}");
        let rig = rig(kind, &tag).await;
        let (mine, theirs) = (pid_for(&rig, "tester").await, pid_for(&rig, "other").await);
        assert_ne!(mine, theirs, "{kind}");
        assert_eq!(pid_for(&rig, "tester").await, mine, "{kind}");
        for era in [Era::Modern, Era::Legacy] {
            for (path, prefix) in [(PATH, ""), ("/mcp", "kid__")] {
                let case = format!("{kind}, {era:?} at {path}");
                let client = rig.meet(era, path).await;
                let pid: u32 =
                    said(&rig.call(&client, &format!("{prefix}pid")).await.json()).parse().unwrap();
                assert!(processes(&tag).contains(&pid) && pid != theirs, "{case}");
                let mut stream = rig.call_open(&client, &format!("{prefix}progress")).await;
                let seen = stream.until(|m| m["id"] == 7).await;
                let tokens: Vec<_> = seen.iter().map(|m| m["params"]["progressToken"].clone()).collect();
                assert_eq!(tokens, [json!("t-1"), json!("t-1"), json!("t-1"), Value::Null], "{case}");
                let seen =
                    rig.call_open(&client, &format!("{prefix}log")).await.until(|m| m["id"] == 7).await;
                assert_eq!(seen[0]["params"]["data"], "hello", "{case}: {seen:?}");
                // A call that is given up is taken back.
                let tool = format!("{prefix}hold");
                let before = rig.records_of("intent").await.len();
                tokio::select! {
                    got = rig.call(&client, &tool) => panic!("{case}: {}", got.body),
                    () = eventually("it is held", async || {
                        (rig.records_of("intent").await.len() > before).then_some(())
                    }) => {}
                }
                eventually("the child hears of it", async || {
                    let got = said(&rig.call(&client, &format!("{prefix}got")).await.json());
                    got.contains("notifications/cancelled").then_some(())
                })
                .await;
            }
        }
        rig.close_and_verify().await;
        assert_eq!(processes(&tag), [0; 0], "{kind}: processes are left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_dies_in_a_call_is_a_clear_error_and_the_next_call_works() {
    for kind in KINDS {
        let tag = format!("dies-{kind}");
        let rig = rig(kind, &tag).await;
        for (round, era) in [Era::Modern, Era::Legacy].into_iter().enumerate() {
            let case = format!("{kind}, {era:?}");
            let client = rig.meet(era, PATH).await;
            let before = said(&rig.call(&client, "pid").await.json());
            let died = rig.call(&client, "die").await;
            let error = &died.json()["error"];
            assert_eq!(
                error["data"]["castra.dev/refusal"]["code"], "upstream-unavailable",
                "{case}: {}",
                died.body
            );
            assert!(error["message"].as_str().unwrap().contains("kid ended with"), "{case}: {error}");
            let after = rig.call(&client, "pid").await;
            assert_ne!(said(&after.json()), before, "{case}");
            let outcomes = rig.outcomes(3 * (round + 1)).await;
            let ends: Vec<_> = outcomes[3 * round..].iter().map(|o| o["status"].as_str().unwrap()).collect();
            assert_eq!(ends, ["ok", "upstream-failed", "ok"], "{case}");
        }
        // The gate is still there: what ends the processes is that it closes.
        rig.gate.drain().await;
        eventually("all processes end", async || processes(&tag).is_empty().then_some(())).await;
        rig.close_and_verify().await;
        assert_eq!(processes(&tag), [0; 0], "{kind}: processes are left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_an_agent_ends_its_processes() {
    for kind in KINDS {
        let tag = format!("revoked-{kind}");
        let rig = rig(kind, &tag).await;
        let theirs = pid_for(&rig, "other").await;
        let mine = pid_for(&rig, "tester").await;
        let session = rig.meet(Era::Legacy, PATH).await;
        let own: u32 = said(&rig.call(&session, "pid").await.json()).parse().unwrap();
        let wanted = json!({"notifications": {"toolsListChanged": true}});
        let mut stream = rig.modern_open("/mcp", "subscriptions/listen", wanted).await;
        stream.next().await.unwrap();
        rig.state.revoke_agent(&AgentName::new("tester").unwrap(), clock::now()).unwrap();
        rig.reload_credentials();
        eventually("the agent's processes end", async || {
            let left = processes(&tag);
            (!left.contains(&mine) && !left.contains(&own)).then_some(())
        })
        .await;
        while stream.next().await.is_some() {}
        // A follower that comes back would start another one.
        tokio::time::sleep(Duration::from_millis(2300)).await;
        assert_eq!(processes(&tag), [theirs], "{kind}");
        assert_eq!(pid_for(&rig, "other").await, theirs, "{kind}");
        rig.close_and_verify().await;
        assert_eq!(processes(&tag), [0; 0], "{kind}: processes are left");
    }
}
