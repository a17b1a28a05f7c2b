//! What changes while the gate runs: policies, servers, and what the servers say of their tools.

use castra_core::PolicyMode;
use castra_policy::{Engine, PolicySource};
use serde_json::{Value, json};

use crate::{
    rig::{ALL, Got, Rig, Wish, eventually, parts, said},
    server::Server,
    servers::{self, Era, Stage, tool},
};

const PATH: &str = "/mcp/files";

async fn lively(era: Era, policies: &'static str) -> (Rig, Server, Stage) {
    let (server, stage) = servers::lively(era).await;
    let rig =
        Rig::start(Wish { servers: vec![("files", server.transport())], policies, ..Wish::default() }).await;
    rig.learned("files", servers::LIVELY).await;
    (rig, server, stage)
}

#[track_caller]
fn denied(got: &Got) {
    let answer = got.json();
    assert_eq!(answer["result"]["_meta"]["castra.dev/refusal"]["code"], "denied", "{}", got.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_call_is_decided_by_the_new_policies() {
    let (rig, server, _) = lively(Era::Modern, ALL).await;
    let client = rig.meet(Era::Legacy, PATH).await;
    assert_eq!(said(&rig.call(&client, "look").await.json()), "look done");
    let text = "@id(\"only-change\") permit (principal, action, resource == Castra::Tool::\"files/change\");";
    let sources = [PolicySource { file: "new.cedar".into(), text: text.into() }];
    let engine = Engine::load(&sources, &rig.gate.catalogue()).unwrap();
    let (old, new) = (rig.gate.engine().policy_set().to_string(), engine.policy_set().to_string());
    assert_ne!(old, new);
    rig.gate.replace_policies(engine, PolicyMode::Enforce);
    denied(&rig.call(&client, "look").await);
    assert_eq!(said(&rig.call(&client, "change").await.json()), "change done");
    rig.gate.policies_rejected("line 3: not Cedar");
    assert_eq!(said(&rig.call(&client, "change").await.json()), "change done");
    let sets: Vec<_> =
        rig.records_of("intent").await.iter().map(|i| i["policy_set"].as_str().unwrap().to_owned()).collect();
    assert_eq!(sets, [old, new.clone(), new.clone(), new.clone()]);
    let events = rig.records_of("event").await;
    let of = |kind: &str| events.iter().find(|e| e["event"] == kind).unwrap()["detail"].as_str().unwrap();
    assert!(of("policy-loaded").contains(&new), "{events:?}");
    assert_eq!(of("policy-rejected"), "line 3: not Cedar");
    assert_eq!(server.requests().iter().filter(|s| s.says("tools/call")).count(), 3);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_stay_as_they_are_keep_their_sessions_and_others_do_not() {
    let ((one, _), (two, _)) = (servers::lively(Era::Legacy).await, servers::lively(Era::Legacy).await);
    let (first, stage) = servers::lively(Era::Modern).await;
    // So that it comes to where it sees who leaves.
    stage.announce.give();
    let servers = vec![("one", one.transport()), ("two", two.transport()), ("new", first.transport())];
    let rig = Rig::start(Wish { servers, policies: ALL, ..Wish::default() }).await;
    for name in ["one", "two", "new"] {
        rig.learned(name, servers::LIVELY).await;
    }
    let ping =
        async |path: &str, session: &str| rig.legacy(path, session, "ping", json!({})).await.status.as_u16();
    let (at_one, _) = rig.initialize("/mcp/one", json!({})).await;
    let (at_two, _) = rig.initialize("/mcp/two", json!({})).await;
    let (at_all, _) = rig.initialize("/mcp", json!({})).await;
    for name in ["one__look", "two__look", "new__look"] {
        let got = rig.legacy("/mcp", &at_all, "tools/call", json!({"name": name})).await;
        assert_eq!(said(&got.json()), "look done", "{}", got.body);
        rig.modern("/mcp", "tools/call", json!({"name": name})).await;
    }
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let mut joined = rig.modern_open("/mcp", "subscriptions/listen", wanted).await;
    joined.next().await.unwrap();
    let deleted = |server: &Server| server.requests().iter().filter(|s| s.method == "DELETE").count();
    let before = deleted(&two);
    let used = async |session: &str| {
        rig.legacy("/mcp/one", session, "tools/call", json!({"name": "look"})).await;
        let last = one.requests().into_iter().rfind(|s| s.says("tools/call")).unwrap();
        last.header("mcp-session-id").to_owned()
    };
    let kept = used(&at_one).await;

    // `one` stays, `two` moves, `new` goes.
    let (moved, _) = servers::lively(Era::Legacy).await;
    rig.gate.replace_servers(vec![parts("one", one.transport(), 1), parts("two", moved.transport(), 2)]);
    eventually("the session at the changed server ends", async || {
        (ping("/mcp/two", &at_two).await == 404).then_some(())
    })
    .await;
    // The client's own session, the one for its calls at /mcp, and that of the modern calls.
    eventually("so do all at the server", async || (deleted(&two) >= before + 3).then_some(())).await;
    assert_eq!(used(&at_one).await, kept, "the session at an unchanged server was lost");
    assert_eq!(rig.modern("/mcp/new", "tools/list", json!({})).await.status, 404);
    let gone = rig.legacy("/mcp", &at_all, "tools/call", json!({"name": "new__look"})).await;
    assert!(gone.body.contains("no such server"), "{}", gone.body);
    eventually("nobody listens to the server that is gone", async || {
        (first.left.load(std::sync::atomic::Ordering::SeqCst) >= 2).then_some(())
    })
    .await;

    let (asked_two, asked_first) = (two.requests().len(), first.requests().len());
    for _ in 0..2 {
        for client in ["modern", "legacy"] {
            let call = json!({"name": "two__look"});
            let got = match client {
                "modern" => rig.modern("/mcp", "tools/call", call).await,
                _ => rig.legacy("/mcp", &at_all, "tools/call", call).await,
            };
            assert_eq!(said(&got.json()), "look done", "{client}: {}", got.body);
        }
        // Long enough for whatever follows announcements to come back.
        tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    }
    assert_eq!(two.requests().len(), asked_two, "the old place of the server is still used");
    assert_eq!(first.requests().len(), asked_first, "a server that is gone is still used");
    assert!(moved.requests().iter().any(|s| s.says("tools/call")));
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_claims_to_have_become_harmless_is_not_believed() {
    let (rig, _, stage) = lively(Era::Modern, castra_policy::STARTER_POLICY).await;
    let call = async |name: &str| rig.modern(PATH, "tools/call", json!({"name": name})).await;
    denied(&call("wipe").await);
    {
        let mut tools = stage.tools.lock();
        let tools = tools.as_array_mut().unwrap();
        *tools.last_mut().unwrap() = tool("wipe", json!({"readOnlyHint": true}));
        tools[0] = tool("look", json!({"readOnlyHint": false, "destructiveHint": true}));
    }
    rig.gate.refresh_catalogue();
    let events = async || {
        let events = rig.records_of("event").await;
        events.into_iter().find(|e| e["detail"].as_str().is_some_and(|d| d.contains("tool wipe now claims")))
    };
    let event = eventually("the claim is on record", events).await;
    assert_eq!((&event["event"], &event["subject"]), (&json!("catalogue-changed"), &json!("files")));
    denied(&call("wipe").await);
    // The other way it is believed at once.
    eventually("the stricter claim counts", async || {
        call("look").await.json()["result"]["isError"].as_bool().filter(|e| *e)
    })
    .await;
    // Nor does a client that lists for itself change that.
    rig.modern(PATH, "tools/list", json!({})).await;
    denied(&call("wipe").await);
    let intents = rig.records_of("intent").await;
    assert!(
        intents.iter().filter(|i| i["resource"] == "Tool::\"files/wipe\"").all(|i| i["effect"] == "destroy")
    );
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_nobody_has_seen_acts_until_it_is_known() {
    let (rig, server, stage) = lively(Era::Modern, castra_policy::STARTER_POLICY).await;
    stage.tools.lock().as_array_mut().unwrap().push(tool("fresh", json!({"readOnlyHint": true})));
    let fresh = json!({"name": "fresh"});
    denied(&rig.modern(PATH, "tools/call", fresh.clone()).await);
    assert_eq!(rig.records_of("intent").await[0]["effect"], "act");
    rig.learned("files", servers::LIVELY + 1).await;
    let got = rig.modern(PATH, "tools/call", fresh).await;
    assert_eq!(said(&got.json()), "fresh done", "{}", got.body);
    denied(&rig.modern(PATH, "tools/call", json!({"name": "invented"})).await);
    assert_eq!(server.requests().iter().filter(|s| s.says("tools/call")).count(), 1);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_announces_is_learned_whoever_listens() {
    let listen = json!({"notifications": {"toolsListChanged": true}});
    for era in [Era::Modern, Era::Legacy] {
        for (client, path) in
            [(Era::Modern, PATH), (Era::Modern, "/mcp"), (Era::Legacy, PATH), (Era::Legacy, "/mcp")]
        {
            let case = format!("{era:?} server, {client:?} client at {path}");
            let (rig, server, stage) = lively(era, ALL).await;
            let mut stream = match client {
                Era::Modern => {
                    let mut stream = rig.modern_open(path, "subscriptions/listen", listen.clone()).await;
                    stream.next().await.unwrap();
                    stream
                }
                Era::Legacy => {
                    let (session, _) = rig.initialize(path, json!({})).await;
                    let name = if path == PATH { "look" } else { "files__look" };
                    rig.legacy(path, &session, "tools/call", json!({"name": name})).await;
                    rig.listen(path, &session).await
                }
            };
            eventually("the gate listens", async || {
                let listens = |s: &crate::server::Seen| s.says("subscriptions/listen") || s.method == "GET";
                server.requests().iter().any(listens).then_some(())
            })
            .await;
            stage.tools.lock().as_array_mut().unwrap().push(tool("fresh", json!({"readOnlyHint": true})));
            stage.announce.give();
            let told = stream.until(|m: &Value| m["method"] == "notifications/tools/list_changed").await;
            assert!(!told.is_empty(), "{case}");
            eventually(&case, async || {
                let known = rig.gate.servers()[0].tools;
                (known == servers::LIVELY + 1).then_some(())
            })
            .await;
            rig.close_and_verify().await;
        }
    }
}
