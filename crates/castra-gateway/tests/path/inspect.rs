//! What must not leave: a server's secret is masked in answers of both eras, as JSON, as events and in
//! what comes before an answer; the record names it; a policy can speak of what a request holds.

use castra_gateway::upstream::Transport;
use castra_inspect::{Inspector, Settings};
use serde_json::{Value, json};

use crate::{
    rig::{ALL, Rig, Wish},
    server::{Seen, Server, Step, accepted, messages},
    servers::{Era, json_answer},
};

/// Put together here, so that no scanner takes this file for a leak.
fn secret() -> String {
    format!("AKIA{}", "QWERTYUIOPASDFGH")
}

/// Stands in a tool's description, which the gate keeps as the server said it, to notice when it changes.
fn listed_secret() -> String {
    secret().replace('Q', "Z")
}

const MASK: &str = "[redacted:aws-access-key]";

/// A server of either era whose tool `look` answers with a secret: as JSON, or (`stream`) as events with
/// progress before it. Everywhere its letters are escaped.
async fn leaky(era: Era) -> Server {
    Server::start(move |seen: &Seen| answer(era, seen)).await
}

fn answer(era: Era, seen: &Seen) -> Vec<Step> {
    let message: Value = serde_json::from_str(&seen.body).unwrap_or_default();
    let (id, method) = (&message["id"], message["method"].as_str().unwrap_or_default());
    let done = |mut result: Value| {
        if era == Era::Modern {
            result["resultType"] = json!("complete");
        }
        json!({"jsonrpc": "2.0", "id": id, "result": result})
    };
    let tool = json!({"name": "look", "description": format!("key {}", listed_secret()),
        "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true, "openWorldHint": false}});
    match (era, method) {
        (Era::Modern, "server/discover") => json_answer(&done(json!({"supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "serverInfo": {"name": "leaky", "version": "1"},
            "ttlMs": 0, "cacheScope": "public"}))),
        (Era::Legacy, "initialize") => json_answer(&done(json!({"protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}}, "serverInfo": {"name": "leaky", "version": "1"}}))),
        (_, "tools/list") if era == Era::Modern => {
            json_answer(&done(json!({"tools": [tool], "ttlMs": 1000, "cacheScope": "public"})))
        }
        (_, "tools/list") => json_answer(&done(json!({"tools": [tool]}))),
        (_, "tools/call") => called(
            &message,
            &done(json!({
                "content": [{"type": "text", "text": format!("the key is {} indeed", secret())}]
            })),
        ),
        (Era::Legacy, "notifications/initialized") => accepted(),
        _ => crate::server::answer("400 Bad Request", "text/plain", "no"),
    }
}

fn called(message: &Value, answer: &Value) -> Vec<Step> {
    let escaped = |body: &Value| body.to_string().replace("AKIA", "\\u0041\\u004bIA");
    if message["params"]["arguments"]["stream"] != json!(true) {
        return crate::server::json(escaped(answer));
    }
    let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {
        "progressToken": message["params"]["_meta"]["progressToken"], "progress": 1, "message": format!("got {}", secret())}});
    messages(&[&escaped(&progress), &escaped(answer)])
}

async fn rig(policies: &'static str) -> (Rig, Server, Server) {
    let (new, old) = (leaky(Era::Modern).await, leaky(Era::Legacy).await);
    let servers: Vec<(&str, Transport)> = vec![("new", new.transport()), ("old", old.transport())];
    let inspector = Inspector::new(&Settings::default()).unwrap();
    let rig = Rig::start(Wish { servers, policies, inspector, ..Wish::default() }).await;
    rig.learned("new", 1).await;
    rig.learned("old", 1).await;
    (rig, new, old)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_arrives_masked_and_is_on_record() {
    let (rig, _new, _old) = rig(ALL).await;
    rig.keep_secret(&secret());
    let mut calls = 0;
    for era in [Era::Modern, Era::Legacy] {
        for path in ["/mcp/new", "/mcp/old"] {
            let case = format!("{era:?} at {path}");
            let client = rig.meet(era, path).await;
            for streamed in [false, true] {
                let params = json!({"name": "look", "arguments": {"stream": streamed}, "_meta": {"progressToken": "t-1"}});
                let mut answer = match &client.session {
                    None => rig.modern_open(path, "tools/call", params).await,
                    Some(session) => rig.legacy_open(path, session, "tools/call", params).await,
                };
                let seen = if streamed {
                    answer.until(|message| message["id"] == 7).await
                } else {
                    vec![serde_json::from_str(&answer.rest().await).unwrap()]
                };
                calls += 1;
                let text = seen.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
                assert!(!text.contains(&secret()), "{case}: {text}");
                let last = seen.last().unwrap();
                assert_eq!(
                    last["result"]["content"][0]["text"],
                    format!("the key is {MASK} indeed"),
                    "{case}"
                );
                if streamed {
                    assert_eq!(seen[0]["params"]["message"], format!("got {MASK}"), "{case}: {text}");
                }
            }
            let listed = match &client.session {
                None => rig.modern(path, "tools/list", json!({})).await,
                Some(session) => rig.legacy(path, session, "tools/list", json!({})).await,
            };
            assert_eq!(listed.json()["result"]["tools"][0]["description"], format!("key {MASK}"), "{case}");
        }
    }
    for outcome in rig.outcomes(calls).await {
        assert_eq!(outcome["findings"], json!(["secret.aws-access-key"]), "{outcome}");
        assert_eq!(outcome["inspection"], "window", "{outcome}");
    }
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_can_deny_what_holds_a_secret() {
    let (rig, new, _old) = rig(
        "permit(principal, action, resource);\n@id(\"no-keys\")\nforbid(principal, action == Castra::Action::\"call\", resource) when { context.findings.contains(\"secret.aws-access-key\") };",
    )
    .await;
    let say = |text: String| json!({"name": "look", "arguments": {"text": text}});
    let got = rig.modern("/mcp/new", "tools/call", say("nothing in it".into())).await;
    assert_eq!(got.json()["result"]["content"][0]["text"], format!("the key is {MASK} indeed"));
    let got = rig.modern("/mcp/new", "tools/call", say(format!("use {}", secret()))).await;
    assert!(got.body.contains("no-keys"), "{}", got.body);
    let reached = new.requests().iter().filter(|seen| seen.body.contains(&secret())).count();
    assert_eq!(reached, 0, "it reached the server");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_lets_pass_says_that_nobody_looked() {
    let (rig, _new, _old) = rig("@inspect(\"pass\")\npermit(principal, action, resource);").await;
    let got = rig.modern("/mcp/new", "tools/call", json!({"name": "look", "arguments": {}})).await;
    assert_eq!(got.header("castra-inspection"), "none");
    assert_eq!(got.json()["result"]["content"][0]["text"], format!("the key is {} indeed", secret()));
    let outcome = rig.outcomes(1).await.remove(0);
    assert_eq!(outcome["inspection"], "pass", "{outcome}");
    rig.close_and_verify().await;
}
