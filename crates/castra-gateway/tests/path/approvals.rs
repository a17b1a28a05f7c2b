//! Ask a person: what waits, what a person's word lets through, once, and what it does not.

use castra_store::{ApprovalRow, ApprovalState, clock};
use serde_json::{Value, json};

use crate::{
    rig::{Ask, Got, Rig, Wish, eventually},
    server::Server,
    servers::{self, Era},
};

/// Everything is permitted; to change something takes a person's word.
const POLICIES: &str = r#"
    @id("all") permit (principal, action, resource);
    @id("changes") @ask("person") @reason("changes to files are looked at")
    forbid (principal, action == Castra::Action::"call", resource is Castra::Tool)
    when { resource.effect != "read" }
    unless { context has approval };
    @id("never") forbid (principal, action == Castra::Action::"call", resource == Castra::Tool::"files/plain")
    when { context has approval && context.approval.by.contains("mallory") };
    @id("resources") @ask("person")
    forbid (principal, action == Castra::Action::"read", resource is Castra::Resource)
    unless { context has approval };
"#;

async fn started(era: Era) -> (Rig, Server) {
    let server = match era {
        Era::Modern => servers::modern().await,
        Era::Legacy => servers::legacy().await,
    };
    let wish = Wish {
        servers: vec![("files", server.transport())],
        policies: POLICIES,
        agents: vec!["other"],
        ..Wish::default()
    };
    let rig = Rig::start(wish).await;
    rig.learned("files", servers::TOOLS).await;
    (rig, server)
}

fn change(text: &str) -> Value {
    json!({"name": "change", "arguments": {"text": text, "more": [1, 2]}})
}

/// A call in a run of the modern era.
async fn call(rig: &Rig, run: &str, params: Value) -> Got {
    by(rig, "tester", run, params).await
}

async fn by(rig: &Rig, agent: &str, run: &str, params: Value) -> Got {
    let ask = Ask::modern("tools/call", params, json!({})).by(&rig.tokens[agent]);
    let mut headers = ask.headers();
    headers.push(("castra-run", run));
    rig.request("POST", "/mcp/files", &headers, ask.body.as_bytes()).await
}

/// The id that an answer wants approved; none if it does not want that.
fn asked(got: &Got) -> Option<String> {
    let answer = got.json();
    let result = &answer["result"];
    let asked = &result["_meta"]["castra.dev/approval_required"];
    let id = asked["id"].as_str()?.to_owned();
    assert_eq!(result["isError"], true, "{answer}");
    assert!(asked["expires"].as_str().unwrap().ends_with('Z'), "{answer}");
    let text = result["content"][0]["text"].as_str().unwrap();
    assert!(text.contains(&format!("castra approval approve {id}")), "{text}");
    // What the policies look at is not the agent's business.
    assert!(!got.body.contains("changes"), "{answer}");
    Some(id)
}

fn passed(got: &Got) -> bool {
    got.json()["result"]["content"][0]["text"] == "change done"
}

fn answer(rig: &Rig, id: &str, yes: bool) -> ApprovalRow {
    rig.state.answer_approval(id, yes, "alice", Some("seen"), clock::now()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_lets_exactly_this_through_once() {
    let (rig, server) = started(Era::Modern).await;
    let id = asked(&call(&rig, "r1", change("a")).await).unwrap();
    assert_eq!(asked(&call(&rig, "r1", change("a")).await), Some(id.clone()), "the same question");
    assert!(!server.requests().iter().any(|s| s.says("tools/call")), "it reached the server");

    let waiting = rig.state.approvals(false, clock::now()).unwrap();
    assert_eq!(waiting.len(), 1);
    let shown: Value = serde_json::from_str(waiting[0].shown.as_deref().unwrap()).unwrap();
    assert_eq!(shown["arguments"], r#"{"more":[1,2],"text":"a"}"#);
    assert_eq!((&shown["method"], &shown["effect"]), (&json!("tools/call"), &json!("write")));
    assert!(shown["reason"].as_str().unwrap().contains("changes to files are looked at"), "{shown}");

    answer(&rig, &id, true);
    // Other arguments, another run, another agent, another tool: each is a question of its own.
    let others = [
        call(&rig, "r1", change("b")).await,
        call(&rig, "r2", change("a")).await,
        by(&rig, "other", "r1", change("a")).await,
        call(&rig, "r1", json!({"name": "plain", "arguments": {"text": "a", "more": [1, 2]}})).await,
    ];
    let mut ids: Vec<_> = others.iter().map(|got| asked(got).unwrap()).chain([id.clone()]).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5, "{ids:?}");
    // The same in another order and with other space is the same.
    let same = json!({"arguments": {"more": [1, 2], "text": "a"}, "name": "change"});
    assert!(passed(&call(&rig, "r1", same).await));
    let again = asked(&call(&rig, "r1", change("a")).await).unwrap();
    assert_ne!(again, id, "it is used up");
    assert_eq!(rig.state.approval(&id, clock::now()).unwrap().state, ApprovalState::Used);

    let intents = rig.records_of("intent").await;
    let decisions: Vec<_> = intents.iter().map(|i| i["decision"].as_str().unwrap()).collect();
    assert_eq!(decisions, ["ask", "ask", "ask", "ask", "ask", "ask", "allow", "ask"]);
    assert!(intents[0]["reason"].as_str().unwrap().contains(&id), "{}", intents[0]);
    let used = eventually("the use stands in the log", async || {
        let events = rig.records_of("event").await;
        events.into_iter().find(|e| e["event"] == "approval-used")
    })
    .await;
    assert!(used["detail"].as_str().unwrap().contains(&format!("approval {id} of alice")), "{used}");
    let page = rig.metrics.render();
    assert!(page.contains("castra_approvals_total{what=\"used\"} 1"), "{page}");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_stays_a_no_for_the_run() {
    let (rig, server) = started(Era::Modern).await;
    let id = asked(&call(&rig, "r1", change("a")).await).unwrap();
    answer(&rig, &id, false);
    let got = call(&rig, "r1", change("a")).await;
    assert_eq!(asked(&got), None, "{}", got.body);
    assert!(got.body.contains(&format!("a person said no to this (approval {id})")), "{}", got.body);
    assert_eq!(rig.records_of("intent").await.last().unwrap()["decision"], "deny");
    assert!(asked(&call(&rig, "r2", change("a")).await).is_some(), "another run may ask");
    assert!(!server.requests().iter().any(|s| s.says("tools/call")), "it reached the server");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_lifts_only_what_the_policies_say() {
    let (rig, _server) = started(Era::Modern).await;
    let plain = || json!({"name": "plain", "arguments": {}});
    let id = asked(&call(&rig, "r", plain()).await).unwrap();
    rig.state.answer_approval(&id, true, "mallory", None, clock::now()).unwrap();
    let got = call(&rig, "r", plain()).await;
    assert_eq!(got.json()["result"]["isError"], true, "{}", got.body);
    assert!(got.body.contains("does not lift"), "{}", got.body);
    assert_eq!(rig.state.approval(&id, clock::now()).unwrap().state, ApprovalState::Approved);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_once_one_passes() {
    let (rig, server) = started(Era::Modern).await;
    let id = asked(&call(&rig, "r", change("a")).await).unwrap();
    answer(&rig, &id, true);
    let calls = futures_util::future::join_all((0..8).map(|_| call(&rig, "r", change("a")))).await;
    assert_eq!(calls.iter().filter(|got| passed(got)).count(), 1);
    assert_eq!(server.requests().iter().filter(|s| s.says("tools/call")).count(), 1);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_session_too() {
    for era in [Era::Legacy, Era::Modern] {
        let (rig, _server) = started(era).await;
        let (session, _) = rig.initialize("/mcp/files", json!({"elicitation": {}})).await;
        let go = || rig.legacy("/mcp/files", &session, "tools/call", change("a"));
        let id = asked(&go().await).unwrap();
        answer(&rig, &id, true);
        let got = go().await;
        assert!(got.body.contains("change done"), "{}", got.body);
        assert_ne!(asked(&go().await).unwrap(), id);
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_client_with_a_person_gets_a_question_whose_answer_is_no_approval() {
    for era in [Era::Modern, Era::Legacy] {
        let (rig, server) = started(era).await;
        let go =
            |params| rig.modern_as("/mcp/files", "tools/call", params, json!({"elicitation": {"form": {}}}));
        let got = go(change("a")).await;
        let result = got.json()["result"].clone();
        assert_eq!(result["resultType"], "input_required", "{}", got.body);
        let id = result["_meta"]["castra.dev/approval_required"]["id"].as_str().unwrap().to_owned();
        let (key, question) = result["inputRequests"].as_object().unwrap().iter().next().unwrap();
        assert_eq!(question["method"], "elicitation/create");
        assert_eq!(question["params"]["requestedSchema"], json!({"type": "object", "properties": {}}));
        assert!(question["params"]["message"].as_str().unwrap().contains(&id), "{question}");

        let mut again = change("a");
        again["requestState"] = result["requestState"].clone();
        again["inputResponses"] = json!({ key: {"action": "accept", "content": {}} });
        let got = go(again.clone()).await;
        let still = &got.json()["result"]["_meta"]["castra.dev/approval_required"]["id"];
        assert_eq!(still, &json!(id), "the client's word is not enough: {}", got.body);
        answer(&rig, &id, true);
        let got = go(again).await;
        assert!(got.body.contains("change done"), "{}", got.body);
        let call = server.requests().into_iter().rfind(|s| s.says("tools/call")).unwrap();
        assert!(
            !call.body.contains("requestState") && !call.body.contains("inputResponses"),
            "{}",
            call.body
        );
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_told_in_an_error() {
    let (rig, _server) = started(Era::Modern).await;
    let got = rig.modern("/mcp/files", "resources/read", json!({"uri": "file:///a"})).await;
    let error = got.json()["error"].clone();
    assert_eq!(error["code"], 40306, "{}", got.body);
    let id = error["data"]["castra.dev/approval_required"]["id"].as_str().unwrap();
    assert_eq!(rig.state.approval(id, clock::now()).unwrap().operation, "read");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_bounded() {
    let (rig, _server) = started(Era::Modern).await;
    let bounds = castra_store::ApprovalBounds { of_agent: 2, ..Default::default() };
    rig.gate.set_approval_bounds(bounds);
    for n in 0..2 {
        assert!(asked(&call(&rig, "r", change(&n.to_string())).await).is_some());
    }
    let got = call(&rig, "r", change("2")).await;
    assert_eq!(asked(&got), None);
    assert!(got.body.contains("2 questions of this agent wait already"), "{}", got.body);
    assert!(asked(&by(&rig, "other", "r", change("2")).await).is_some());
    rig.close_and_verify().await;
}
