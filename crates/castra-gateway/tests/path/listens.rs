//! `subscriptions/listen` as an action: decided, recorded, in the gate's own words, and ended when it
//! may not go on.

use std::time::Duration;

use castra_core::PolicyMode;
use castra_policy::{Engine, PolicySource};
use serde_json::{Value, json};

use crate::{
    rig::{Rig, Wish, eventually, parts},
    server::Server,
    servers::{self, Era, Stage},
};

const PATH: &str = "/mcp/files";
const LISTEN: &str = "subscriptions/listen";

async fn files(era: Era, policies: &'static str) -> (Rig, Server, Stage) {
    let (server, stage) = servers::lively(era).await;
    let servers = vec![("files", server.transport())];
    let rig = Rig::start(Wish { servers, policies, ..Wish::default() }).await;
    rig.learned("files", servers::LIVELY).await;
    (rig, server, stage)
}

fn tools_wanted() -> Value {
    json!({"notifications": {"toolsListChanged": true}})
}

fn is_end(message: &Value) -> bool {
    message["id"] == 7 && message["result"]["resultType"] == "complete"
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_decided_recorded_and_asked_in_the_gates_own_words() {
    for era in [Era::Modern, Era::Legacy] {
        let (rig, server, _) = files(era, castra_policy::STARTER_POLICY).await;
        rig.modern("/mcp", "resources/list", json!({})).await;
        let wanted = json!({"notifications": {"toolsListChanged": true, "taskIds": ["not-mine"],
            "resourceSubscriptions": ["test://one"]}});
        let mut stream = rig.modern_open(PATH, LISTEN, wanted).await;
        assert_eq!(stream.status, 200);
        assert!(stream.headers.contains_key("castra-receipt"), "{era:?}: {:?}", stream.headers);
        let first = stream.next().await.unwrap();
        assert_eq!(
            first["params"]["notifications"]["resourceSubscriptions"],
            json!(["test://one"]),
            "{first}"
        );
        let asked = server.requests();
        assert!(!asked.iter().any(|s| s.body.contains("not-mine")), "the caller's own words went on");
        let intents = rig.records_of("intent").await;
        let seen: Vec<_> = intents.iter().map(|i| (i["resource"].clone(), i["method"].clone())).collect();
        let server_ref = json!("Server::\"files\"");
        assert_eq!(seen[0], (server_ref, json!(LISTEN)), "{era:?}");
        assert!(seen[1].0.as_str().unwrap().contains("test://one"), "{era:?}: {seen:?}");
        assert!(intents.iter().all(|i| i["operation"] == "read" && i["decision"] == "allow"), "{intents:?}");
        assert_eq!(rig.records_of("outcome").await.len(), 0, "{era:?}");
        drop(stream);
        let outcomes = rig.outcomes(2).await;
        assert!(outcomes.iter().all(|o| o["status"] == "cancelled"), "{era:?}: {outcomes:?}");
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_policies_do_not_permit_is_not_listened_to() {
    const CALLS: &str = "permit (principal, action == Castra::Action::\"call\", resource);";
    for path in [PATH, "/mcp"] {
        let (rig, server, _) = files(Era::Modern, CALLS).await;
        let got = rig.modern(path, LISTEN, tools_wanted()).await;
        assert!(got.body.contains("denied"), "{path}: {}", got.body);
        assert!(!server.requests().iter().any(|s| s.says(LISTEN)), "{path}: it reached the server");
        let intents = rig.records_of("intent").await;
        assert_eq!((intents.len(), &intents[0]["decision"]), (1, &json!("deny")), "{path}");
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_federated_view_only_what_is_permitted_is_listened_to() {
    const ONE: &str = "permit (principal, action, resource == Castra::Server::\"one\");";
    let ((one, _), (two, _)) = (servers::lively(Era::Modern).await, servers::lively(Era::Modern).await);
    let servers = vec![("one", one.transport()), ("two", two.transport())];
    let rig = Rig::start(Wish { servers, policies: ONE, ..Wish::default() }).await;
    let mut stream = rig.modern_open("/mcp", LISTEN, tools_wanted()).await;
    stream.next().await.unwrap();
    eventually("it listens", async || one.requests().iter().any(|s| s.says(LISTEN)).then_some(())).await;
    assert!(!two.requests().iter().any(|s| s.says(LISTEN)));
    let decisions: Vec<_> =
        rig.records_of("intent").await.iter().map(|i| i["decision"].as_str().unwrap().to_owned()).collect();
    assert_eq!(decisions, ["allow", "deny"]);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_policies_do_not_permit_it_any_more() {
    for path in [PATH, "/mcp"] {
        let (rig, server, stage) = files(Era::Modern, castra_policy::STARTER_POLICY).await;
        // So that the server comes to where it sees that its caller leaves.
        stage.announce.give();
        let mut stream = rig.modern_open(path, LISTEN, tools_wanted()).await;
        stream.until(|m| m["method"] == "notifications/tools/list_changed").await;
        let sources = [PolicySource { file: "none.cedar".into(), text: String::new() }];
        let engine = Engine::load(&sources, &rig.gate.catalogue()).unwrap();
        rig.gate.replace_policies(engine, PolicyMode::Enforce);
        stream.until(is_end).await;
        assert!(stream.next().await.is_none(), "{path}");
        let outcomes = rig.outcomes(1).await;
        assert_eq!((&outcomes[0]["status"], &outcomes[0]["code"]), (&json!("refused"), &json!("denied")));
        eventually("the server is left", async || {
            (server.left.load(std::sync::atomic::Ordering::SeqCst) > 0).then_some(())
        })
        .await;
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_counts_as_in_flight_and_ends_in_order_with_the_gate() {
    let (server, _) = servers::lively(Era::Modern).await;
    let mut wish = Wish { servers: vec![("files", server.transport())], ..Wish::default() };
    wish.limits.calls_per_agent_max = 1;
    // Longer than any test: a stream that a shutdown waited for would be seen.
    wish.limits.drain_time_max = Duration::from_secs(600);
    let rig = Rig::start(wish).await;
    rig.learned("files", servers::LIVELY).await;
    let mut stream = rig.modern_open(PATH, LISTEN, tools_wanted()).await;
    stream.next().await.unwrap();
    let second = rig.modern(PATH, LISTEN, tools_wanted()).await;
    assert!(second.body.contains("which is its limit"), "{}", second.body);
    let (cut, ()) = tokio::join!(rig.gate.drain(), async {
        stream.until(is_end).await;
    });
    assert_eq!(cut, 0);
    assert_eq!(rig.outcomes(1).await[0]["status"], "ok");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_subscriptions_says_so_to_its_caller() {
    let server = servers::modern().await;
    let rig = Rig::start(Wish { servers: vec![("files", server.transport())], ..Wish::default() }).await;
    rig.learned("files", servers::TOOLS).await;
    let got = rig.modern(PATH, LISTEN, tools_wanted()).await;
    assert_eq!((got.status.as_u16(), &got.json()["error"]["code"]), (404, &json!(-32601)), "{}", got.body);
    assert_eq!(rig.outcomes(1).await[0]["status"], "refused");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_when_the_servers_process_died() {
    for kind in ["legacy", "lasting"] {
        let servers = vec![("kid", servers::child(kind, &format!("dies-{kind}")))];
        let rig = Rig::start(Wish { servers, ..Wish::default() }).await;
        rig.learned("kid", servers::CHILD_TOOLS).await;
        let client = rig.meet(Era::Modern, "/mcp/kid").await;
        let mut stream = rig.modern_open("/mcp/kid", LISTEN, tools_wanted()).await;
        stream.next().await.unwrap();
        rig.call(&client, "die").await;
        // The next process; it announces until the gate listens to it again.
        let mut announced = None;
        for _ in 0..200 {
            rig.call(&client, "change").await;
            if let Ok(next) = tokio::time::timeout(Duration::from_millis(100), stream.next()).await {
                announced = next;
                break;
            }
        }
        let announced = announced.unwrap_or_else(|| panic!("{kind}: silent since the process died"));
        assert_eq!(announced["method"], "notifications/tools/list_changed", "{kind}");
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_follows_a_server_to_its_new_place() {
    let ((old, stage), (new, _)) = (servers::lively(Era::Modern).await, servers::lively(Era::Modern).await);
    stage.announce.give();
    let rig = Rig::start(Wish { servers: vec![("files", old.transport())], ..Wish::default() }).await;
    rig.learned("files", servers::LIVELY).await;
    for path in [PATH, "/mcp"] {
        let mut stream = rig.modern_open(path, LISTEN, tools_wanted()).await;
        stream.until(|m| m["method"] == "notifications/tools/list_changed").await;
        rig.gate.replace_servers(vec![parts("files", new.transport(), 2)]);
        eventually("the old place is left", async || {
            (old.left.load(std::sync::atomic::Ordering::SeqCst) > 0).then_some(())
        })
        .await;
        eventually("it listens at the new", async || {
            new.requests().iter().any(|s| s.says(LISTEN)).then_some(())
        })
        .await;
        rig.gate.replace_servers(vec![parts("files", old.transport(), 3)]);
        new.seen.lock().clear();
    }
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_session_follows_only_servers_of_which_its_agent_may_use_something() {
    const ONE: &str = "permit (principal, action, resource in Castra::Server::\"mine\");";
    let ((mine, _), (other, _)) = (servers::lively(Era::Modern).await, servers::lively(Era::Modern).await);
    let servers = vec![("mine", mine.transport()), ("other", other.transport())];
    let rig = Rig::start(Wish { servers, policies: ONE, ..Wish::default() }).await;
    rig.learned("mine", servers::LIVELY).await;
    rig.learned("other", servers::LIVELY).await;
    let (session, _) = rig.initialize("/mcp", json!({})).await;
    let _stream = rig.listen("/mcp", &session).await;
    let listened = |server: &Server| server.requests().iter().any(|s| s.says(LISTEN));
    eventually("the gate listens at the one", async || listened(&mine).then_some(())).await;
    // Both were begun together, so the other would have been asked by now.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!listened(&other), "it listens at a server that the agent may not use");
    rig.close_and_verify().await;
}
