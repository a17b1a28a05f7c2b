//! What comes before an answer and what is said unasked: each through every pairing of eras.

use serde_json::{Value, json};

use crate::{
    rig::{ALL, Rig, Stream, Wish, eventually, said},
    server::Server,
    servers::{self, BURST, Era, Stage},
};

const ERAS: [Era; 2] = [Era::Modern, Era::Legacy];

struct Both {
    rig: Rig,
    new: (Server, Stage),
    old: (Server, Stage),
}

/// A server of each era, as `new` and `old`.
async fn both() -> Both {
    let (new, old) = (servers::lively(Era::Modern).await, servers::lively(Era::Legacy).await);
    let servers = vec![("new", new.0.transport()), ("old", old.0.transport())];
    let rig = Rig::start(Wish { servers, policies: ALL, ..Wish::default() }).await;
    rig.learned("new", servers::LIVELY).await;
    rig.learned("old", servers::LIVELY).await;
    Both { rig, new, old }
}

fn is_answer(message: &Value) -> bool {
    message["id"] == 7
}

/// A server's name in the path and its tools' names there.
const PLACES: [(&str, &str); 4] = [("/mcp/new", ""), ("/mcp/old", ""), ("/mcp", "new__"), ("/mcp", "old__")];

#[tokio::test(flavor = "multi_thread")]
async fn progress_and_log_messages_reach_the_caller_in_its_own_words() {
    let Both { rig, .. } = both().await;
    for era in ERAS {
        for (path, prefix) in PLACES {
            let case = format!("{era:?} at {path} {prefix}");
            let client = rig.meet(era, path).await;
            let mut stream = rig.call_open(&client, &format!("{prefix}progress")).await;
            assert_eq!(stream.status, 200, "{case}");
            assert_eq!(stream.headers["content-type"], "text/event-stream", "{case}");
            let seen = stream.until(is_answer).await;
            assert_eq!(seen.len(), 4, "{case}: {seen:?}");
            for (n, note) in seen[..3].iter().enumerate() {
                assert_eq!(note["method"], "notifications/progress", "{case}");
                let params = &note["params"];
                assert_eq!(
                    (&params["progressToken"], &params["progress"]),
                    (&json!("t-1"), &json!(n)),
                    "{case}"
                );
            }
            assert_eq!(said(&seen[3]), "done", "{case}");
            assert!(stream.next().await.is_none(), "{case}");

            if let Some(session) = &client.session {
                let level = json!({"level": "info"});
                let set = rig.legacy(path, session, "logging/setLevel", level).await;
                assert_eq!(set.json()["result"], json!({}), "{case}: {}", set.body);
            }
            let seen = rig.call_open(&client, &format!("{prefix}log")).await.until(is_answer).await;
            assert_eq!(seen[0]["params"]["data"], "hello", "{case}: {seen:?}");
            assert_eq!(seen[0]["method"], "notifications/message", "{case}");
            assert_eq!(said(&seen[1]), "done", "{case}");
        }
    }
    // Whoever speaks the modern era asks for log messages with the request, or gets none.
    let quiet = rig.modern("/mcp/old", "tools/call", json!({"name": "log"})).await;
    assert!(!quiet.body.contains("hello"), "{}", quiet.body);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_arrives_whole_in_order_and_in_few_pieces() {
    let Both { rig, .. } = both().await;
    for era in ERAS {
        for (path, prefix) in PLACES {
            let case = format!("{era:?} at {path} {prefix}");
            let client = rig.meet(era, path).await;
            let mut stream = rig.call_open(&client, &format!("{prefix}burst")).await;
            let seen = stream.until(is_answer).await;
            let numbers: Vec<_> =
                seen[..seen.len() - 1].iter().map(|m| m["params"]["progress"].clone()).collect();
            assert_eq!(numbers, (0..BURST).map(|n| json!(n)).collect::<Vec<_>>(), "{case}");
            assert!(stream.frames <= 20, "{case}: {} pieces", stream.frames);
        }
    }
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_takes_its_call_back() {
    let Both { rig, new, old } = both().await;
    let cancelled = || old.0.requests().iter().filter(|s| s.says("notifications/cancelled")).count();
    let (mut left, mut taken_back, mut outcomes) = (0, 0, 0);
    for era in ERAS {
        for (path, prefix) in PLACES {
            let case = format!("{era:?} at {path} {prefix}");
            let client = rig.meet(era, path).await;
            let mut stream = rig.call_open(&client, &format!("{prefix}begin")).await;
            assert_eq!(stream.next().await.unwrap()["params"]["progress"], 0, "{case}");
            drop(stream);
            let server = if path.contains("new") || prefix.contains("new") { &new.0 } else { &old.0 };
            let hangs = || server.requests().iter().filter(|s| s.body.contains("\"hang\"")).count();
            let (before, tool) = (hangs(), format!("{prefix}hang"));
            tokio::select! {
                got = rig.call(&client, &tool) => panic!("{case}: {}", got.body),
                () = eventually("it hangs", async || (hangs() > before).then_some(())) => {}
            }
            outcomes += 2;
            let seen = rig.outcomes(outcomes).await;
            assert!(seen.iter().all(|o| o["status"] == "cancelled"), "{case}: {seen:?}");
            if path.contains("new") || prefix.contains("new") {
                left += 2;
                let gone =
                    async || (new.0.left.load(std::sync::atomic::Ordering::SeqCst) == left).then_some(());
                eventually(&format!("the server is left: {case}"), gone).await;
            } else {
                taken_back += 2;
                eventually(&format!("taken back: {case}"), async || {
                    (cancelled() == taken_back).then_some(())
                })
                .await;
            }
        }
    }
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_client_takes_a_call_back() {
    let Both { rig, .. } = both().await;
    let mut intents = 0;
    for (path, prefix) in PLACES {
        let case = format!("{path} {prefix}");
        let client = rig.meet(Era::Legacy, path).await;
        let session = client.session.as_deref().unwrap();
        let cancel = async || {
            rig.notify(path, session, "notifications/cancelled", json!({"requestId": 7})).await;
        };
        let mut stream = rig.call_open(&client, &format!("{prefix}begin")).await;
        stream.next().await.unwrap();
        cancel().await;
        assert!(stream.next().await.is_none(), "{case}: an answer to what was taken back");

        intents += 2;
        let tool = format!("{prefix}hang");
        let (hung, ()) = tokio::join!(rig.call(&client, &tool), async {
            eventually("it runs", async || (rig.records_of("intent").await.len() == intents).then_some(()))
                .await;
            cancel().await;
        });
        assert_eq!(hung.body, "", "{case}");
        // The session goes on.
        let look = rig.call(&client, &format!("{prefix}look")).await;
        assert_eq!(said(&look.json()), "look done", "{case}");
        intents += 1;
        let seen = rig.outcomes(intents).await;
        let ends: Vec<_> = seen[intents - 3..].iter().map(|o| o["status"].as_str().unwrap()).collect();
        assert_eq!(ends, ["cancelled", "cancelled", "ok"], "{case}");
    }
    rig.close_and_verify().await;
}

async fn hears(stream: &mut Stream, case: &str) {
    let tools = |m: &Value| m["method"] == "notifications/tools/list_changed";
    let resource =
        |m: &Value| m["method"] == "notifications/resources/updated" && m["params"]["uri"] == "test://one";
    let mut seen = stream.until(|m| tools(m) || resource(m)).await;
    let first_was_tools = seen.last().is_some_and(tools);
    seen.extend(stream.until(|m| if first_was_tools { resource(m) } else { tools(m) }).await);
    let stamped = |m: &Value| m.to_string().contains("subscriptionId");
    assert!(!seen.iter().any(stamped), "{case}: words of the other era: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_session_hears_of_changes_at_servers_of_each_era() {
    for (path, name) in [("/mcp/new", "new"), ("/mcp/old", "old"), ("/mcp", "new"), ("/mcp", "old")] {
        let case = format!("{path} {name}");
        let Both { rig, new, old } = both().await;
        let (session, _) = rig.initialize(path, json!({})).await;
        let mut stream = rig.listen(path, &session).await;
        assert_eq!(stream.status, 200, "{case}");
        let listed = rig.legacy(path, &session, "resources/list", json!({})).await;
        assert!(listed.body.contains("test://one"), "{case}: {}", listed.body);
        let (server, stage) = if name == "new" { &new } else { &old };
        if path != "/mcp" {
            let uri = json!({"uri": "test://one"});
            let subscribed = rig.legacy(path, &session, "resources/subscribe", uri).await;
            assert_eq!(subscribed.json()["result"], json!({}), "{case}: {}", subscribed.body);
        }
        if name == "new" {
            let listens = async || {
                let wanted = if path == "/mcp" { "toolsListChanged" } else { "test://one" };
                let listening =
                    |s: &crate::server::Seen| s.says("subscriptions/listen") && s.body.contains(wanted);
                server.requests().iter().any(listening).then_some(())
            };
            eventually("the gate listens", listens).await;
        }
        stage.announce.give();
        if path == "/mcp" {
            stream.until(|m| m["method"] == "notifications/tools/list_changed").await;
        } else {
            hears(&mut stream, &case).await;
        }
        // One stream at a time, and the newest counts.
        let newer = rig.listen(path, &session).await;
        assert_eq!(newer.status, 200, "{case}");
        // What was on its way may still come; then it ends.
        while stream.next().await.is_some() {}
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_client_listens_at_servers_of_each_era() {
    for (path, name) in [("/mcp/new", "new"), ("/mcp/old", "old"), ("/mcp", "new"), ("/mcp", "old")] {
        let case = format!("{path} {name}");
        let Both { rig, new, old } = both().await;
        rig.modern("/mcp", "resources/list", json!({})).await;
        let uris = if path == "/mcp" { json!([]) } else { json!(["test://one"]) };
        let wanted = json!({"notifications": {"toolsListChanged": true, "resourceSubscriptions": uris}});
        let mut stream = rig.modern_open(path, "subscriptions/listen", wanted.clone()).await;
        let first = stream.next().await.unwrap();
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{case}");
        assert_eq!(first["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 7, "{case}");
        assert_eq!(first["params"]["notifications"]["toolsListChanged"], true, "{case}: {first}");
        let (server, stage) = if name == "new" { &new } else { &old };
        if path == "/mcp" && name == "new" {
            let listening =
                async || server.requests().iter().any(|s| s.says("subscriptions/listen")).then_some(());
            eventually("the gate listens", listening).await;
        }
        stage.announce.give();
        let mut seen = stream.until(|m| m["method"] == "notifications/tools/list_changed").await;
        if path != "/mcp" {
            seen.extend(stream.until(|m| m["method"] == "notifications/resources/updated").await);
        }
        for message in &seen {
            assert_eq!(
                message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 7,
                "{case}: {message}"
            );
        }
        drop(stream);
        if name == "new" {
            let left = async || (new.0.left.load(std::sync::atomic::Ordering::SeqCst) > 0).then_some(());
            eventually("listening ends with the client", left).await;
        }
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_client_listens_to_child_processes() {
    for (kind, path) in
        [("lasting", "/mcp/kid"), ("legacy", "/mcp/kid"), ("lasting", "/mcp"), ("legacy", "/mcp")]
    {
        let case = format!("{kind} at {path}");
        let tag = format!("listen-{kind}-{}", path.len());
        let servers = vec![("kid", servers::child(kind, &tag))];
        let rig = Rig::start(Wish { servers, policies: ALL, ..Wish::default() }).await;
        rig.learned("kid", servers::CHILD_TOOLS).await;
        let client = rig.meet(Era::Modern, "/mcp/kid").await;
        rig.call(&client, "pid").await;
        let wanted = json!({"notifications": {"toolsListChanged": true}});
        let mut stream = rig.modern_open(path, "subscriptions/listen", wanted).await;
        let first = stream.next().await.unwrap();
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{case}");
        // At the federated view the gate has acknowledged before the child has.
        let mut announced = None;
        for _ in 0..50 {
            rig.call(&client, "change").await;
            let next = tokio::time::timeout(std::time::Duration::from_millis(100), stream.next()).await;
            if let Ok(Some(message)) = next {
                announced = Some(message);
                break;
            }
        }
        let announced = announced.unwrap_or_else(|| panic!("{case}: nothing was announced"));
        assert_eq!(announced["method"], "notifications/tools/list_changed", "{case}");
        for message in [&first, &announced] {
            assert_eq!(
                message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 7,
                "{case}: {message}"
            );
        }
        drop(stream);
        if kind == "lasting" {
            eventually("listening ends with the client", async || {
                let got = rig.call(&client, "got").await;
                said(&got.json()).contains("notifications/cancelled").then_some(())
            })
            .await;
        }
        rig.close_and_verify().await;
    }
}
