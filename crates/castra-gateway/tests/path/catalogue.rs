//! What the gate believes of servers' tools, how often it asks, and what it puts on record of that.

use serde_json::{Value, json};

use crate::{
    rig::{ALL, Rig, Wish, eventually},
    server::{Server, Step},
    servers::{self, Era, Stage, tool},
};

const PATH: &str = "/mcp/files";

async fn lively(policies: &'static str) -> (Rig, Server, Stage) {
    let (server, stage) = servers::lively(Era::Modern).await;
    let servers = vec![("files", server.transport())];
    let rig = Rig::start(Wish { servers, policies, ..Wish::default() }).await;
    rig.learned("files", servers::LIVELY).await;
    (rig, server, stage)
}

fn lists(server: &Server) -> usize {
    server.requests().iter().filter(|s| s.says("tools/list")).count()
}

async fn details(rig: &Rig, with: &str) -> usize {
    let events = rig.records_of("event").await;
    events.iter().filter(|e| e["detail"].as_str().is_some_and(|d| d.contains(with))).count()
}

/// Has the gate see the list, through an agent that lists.
async fn list(rig: &Rig) {
    assert_eq!(rig.modern(PATH, "tools/list", json!({})).await.status, 200);
}

async fn effect_of(rig: &Rig, name: &str) -> String {
    rig.modern(PATH, "tools/call", json!({"name": name})).await;
    let intents = rig.records_of("intent").await;
    intents.last().unwrap()["effect"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_not_believed_is_on_record_once() {
    let (rig, _, stage) = lively(ALL).await;
    let claims = [json!({"readOnlyHint": true}), json!({"destructiveHint": false})];
    for n in 0..20 {
        *stage.tools.lock().as_array_mut().unwrap().last_mut().unwrap() = tool("wipe", claims[n % 2].clone());
        list(&rig).await;
    }
    assert_eq!(details(&rig, "tool wipe now claims the effect read, was destroy").await, 1);
    assert_eq!(details(&rig, "tool wipe now claims the effect write, was destroy").await, 1);
    assert_eq!(effect_of(&rig, "wipe").await, "destroy");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_said_nothing_and_now_destroys_is_one_that_destroys() {
    let (rig, _, stage) = lively(ALL).await;
    let set = |hints: Value| {
        let mut tools = stage.tools.lock();
        let tools = tools.as_array_mut().unwrap();
        tools.retain(|t| t["name"] != "plain");
        tools.push(tool("plain", hints));
    };
    for (hints, effect) in
        [(json!({}), "act"), (json!({"destructiveHint": true}), "destroy"), (json!({}), "destroy")]
    {
        set(hints);
        list(&rig).await;
        assert_eq!(effect_of(&rig, "plain").await, effect);
    }
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_reached_outside_still_does() {
    const INSIDE: &str = "permit (principal, action == Castra::Action::\"call\", resource is Castra::Tool) when { !resource.external };";
    let (rig, _, stage) = lively(INSIDE).await;
    let outside = rig.modern(PATH, "tools/call", json!({"name": "look"})).await;
    assert!(outside.body.contains("denied"), "{}", outside.body);
    stage.tools.lock()[0] = tool("look", json!({"readOnlyHint": true, "openWorldHint": false}));
    list(&rig).await;
    let outside = rig.modern(PATH, "tools/call", json!({"name": "look"})).await;
    assert!(outside.body.contains("denied"), "{}", outside.body);
    assert_eq!(details(&rig, "tool look now claims to reach nothing outside").await, 1);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_nobody_knows_do_not_make_the_gate_ask_on_and_on() {
    const READS: &str = "permit (principal, action == Castra::Action::\"read\", resource);";
    for (policies, asked) in [(READS, 0), (ALL, 1)] {
        let (rig, server, _) = lively(policies).await;
        let before = lists(&server);
        for n in 0..30 {
            rig.modern(PATH, "tools/call", json!({"name": format!("invented-{n}")})).await;
        }
        if asked > 0 {
            eventually("it asks", async || (lists(&server) > before).then_some(())).await;
        }
        assert_eq!(lists(&server), before + asked, "{policies}");
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_holds_up_no_other() {
    let hung = Server::start(|_| vec![Step::Hold]).await;
    let (server, stage) = servers::lively(Era::Modern).await;
    let servers = vec![("hung", hung.transport()), ("files", server.transport())];
    let rig = Rig::start(Wish { servers, policies: ALL, ..Wish::default() }).await;
    rig.learned("files", servers::LIVELY).await;
    stage.tools.lock().as_array_mut().unwrap().push(tool("fresh", json!({"readOnlyHint": true})));
    rig.gate.refresh_catalogue();
    rig.learned("files", servers::LIVELY + 1).await;
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_tools_hides_no_change_of_those_that_are_known() {
    const KEPT: usize = 10_000;
    let (rig, _, stage) = lively(ALL).await;
    {
        let mut tools = stage.tools.lock();
        let tools = tools.as_array_mut().unwrap();
        let flood = (0..KEPT).map(|n| tool(&format!("flood-{n}"), json!({})));
        tools.splice(0..0, flood);
        tools.retain(|t| t["name"] != "look");
        tools.push(tool("look", json!({"destructiveHint": true})));
    }
    list(&rig).await;
    list(&rig).await;
    assert_eq!(rig.gate.servers()[0].tools, KEPT);
    assert_eq!(details(&rig, "are not taken in").await, 1);
    assert_eq!(effect_of(&rig, "look").await, "destroy");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_is_too_large_is_kept_by_its_digest() {
    let (rig, _, stage) = lively(ALL).await;
    let mut large = tool("large", json!({"readOnlyHint": true}));
    large["description"] = "x".repeat(70 << 10).into();
    stage.tools.lock().as_array_mut().unwrap().push(large.clone());
    list(&rig).await;
    list(&rig).await;
    assert_eq!(effect_of(&rig, "large").await, "read");
    let catalogue = rig.gate.catalogue();
    let schema = |name: &str| {
        catalogue.servers[0].tools.iter().find(|t| &*t.name == name).unwrap().input_schema.clone()
    };
    assert_eq!((schema("look"), schema("large")), (json!({"type": "object"}), Value::Null));
    assert_eq!(details(&rig, "1 tools new or changed").await, 1);
    let stored = eventually("it is stored", async || {
        rig.state.catalogue().unwrap().into_iter().find(|row| row.name == "large")
    })
    .await;
    assert!(stored.definition.len() < 200, "{}", stored.definition.len());
    rig.close_and_verify().await;
}
