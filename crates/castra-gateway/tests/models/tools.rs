//! Tool calls in answers: each an action of its own, whole or streamed, of a server or of the agent.

use castra_core::Effect;
use serde_json::json;

use crate::{
    provider::{self, Says},
    rig::{Rig, Wish},
    servers,
    stage::{ALL_ASKS, MASK, data, local, secret, wish},
};

/// Lets models be asked, and tools be called that only read.
const READERS: &str = r#"
    permit (principal, action == Castra::Action::"complete", resource);
    @reason("tools that only read are let through")
    permit (principal, action == Castra::Action::"call", resource is Castra::Tool) when { resource.effect == "read" };"#;

fn wants() -> Says {
    Says::text(&["I shall look."])
        .call("read_file", &["{\"path\":", "\"a\"}"])
        .call("delete_file", &["{\"path\": \"b\"}"])
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_is_decided_and_a_refused_one_says_so() {
    for asks in ALL_ASKS {
        let server = provider::saying(asks.native(), wants()).await;
        let rig = Rig::start(Wish {
            policies: READERS,
            local_tools: local("read_file", Effect::Read),
            ..wish(asks.native(), &server)
        })
        .await;
        let got = asks.ask_with(&rig, "go", &["read_file", "delete_file"]).await;
        let answer = got.json();
        assert_eq!(
            asks.calls(&answer),
            [("read_file".to_owned(), json!({"path": "a"}))],
            "{asks:?}: {answer}"
        );
        let text = asks.text(&answer);
        assert!(
            text.contains("I shall look.") && text.contains("Castra refused") && text.contains("delete_file"),
            "{text}"
        );
        let intents = rig.records_of("intent").await;
        let of = |resource: &str| {
            intents.iter().find(|i| i["resource"] == resource).unwrap_or_else(|| panic!("{intents:?}"))
        };
        let (read, delete) = (of("Tool::\"local/read_file\""), of("Tool::\"local/delete_file\""));
        assert_eq!(
            (&read["decision"], &read["effect"], &read["operation"]),
            (&json!("allow"), &json!("read"), &json!("call"))
        );
        assert_eq!((&delete["decision"], &delete["effect"]), (&json!("deny"), &json!("act")));
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_in_a_stream() {
    for asks in ALL_ASKS {
        let server = provider::saying(asks.native(), wants()).await;
        let rig = Rig::start(Wish {
            policies: READERS,
            local_tools: local("read_file", Effect::Read),
            ..wish(asks.native(), &server)
        })
        .await;
        let events = asks.stream(&rig, "go", &["read_file", "delete_file"]).await.rest().await;
        assert!(events.contains(asks.end()), "{asks:?}: {events}");
        let text = asks.streamed_text(&events);
        assert!(text.starts_with("I shall look.") && text.contains("Castra refused"), "{asks:?}: {text}");
        assert!(events.contains("read_file"), "{events}");
        // The name stands in the words of the refusal, and the arguments nowhere.
        assert!(!events.contains("\\\"b\\\""), "{asks:?}: {events}");
        assert!(data(&events).len() > 3);
        let intents = rig.records_of("intent").await;
        assert_eq!(intents.iter().filter(|i| i["operation"] == "call").count(), 2, "{intents:?}");
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_of_a_server_has_the_effect_that_is_known_of_it() {
    for stream in [false, true] {
        let tools = servers::modern().await;
        let asks = ALL_ASKS[0];
        let says = Says::default().call("files__look", &["{}"]).call("files__change", &["{}"]);
        let server = provider::saying(asks.native(), says).await;
        let rig = Rig::start(Wish {
            servers: vec![("files", tools.transport())],
            policies: READERS,
            ..wish(asks.native(), &server)
        })
        .await;
        rig.learned("files", servers::TOOLS).await;
        let names = ["files__look", "files__change"];
        if stream {
            asks.stream(&rig, "go", &names).await.rest().await;
        } else {
            asks.ask_with(&rig, "go", &names).await;
        }
        let intents = rig.records_of("intent").await;
        let calls: Vec<_> = intents.iter().filter(|i| i["operation"] == "call").collect();
        let told: Vec<_> = calls
            .iter()
            .map(|i| (i["resource"].as_str().unwrap(), i["decision"].as_str().unwrap()))
            .collect();
        let mut sorted = told.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [("Tool::\"files/change\"", "deny"), ("Tool::\"files/look\"", "allow")]);
        assert!(!tools.requests().iter().any(|s| s.says("tools/call")), "the gate called a tool by itself");
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_that_were_never_offered_and_arguments_that_are_none() {
    for asks in ALL_ASKS {
        let says = Says::text(&["Hm."]).call("dreamt_up", &["{}"]);
        let server = provider::saying(asks.native(), says).await;
        let rig = Rig::start(wish(asks.native(), &server)).await;
        let got = asks.ask_with(&rig, "go", &["read_file"]).await;
        let answer = got.json();
        assert!(asks.calls(&answer).is_empty() && asks.text(&answer).contains("dreamt_up"), "{answer}");
        let events = asks.stream(&rig, "go", &["read_file"]).await.rest().await;
        assert!(asks.streamed_text(&events).contains("offers no tool"), "{asks:?}: {events}");
        let refusals = rig.records_of("refusal").await;
        assert_eq!(refusals.len(), 2);
        assert_eq!(refusals[0]["code"], "not-found");
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_in_arguments_are_masked_before_anybody_decides() {
    for asks in ALL_ASKS {
        let arguments = format!("{{\"path\": \"{}\"}}", secret());
        let says = Says::default().call("read_file", &[&arguments]);
        let server = provider::saying(asks.native(), says).await;
        let rig = Rig::start(wish(asks.native(), &server)).await;
        rig.keep_secret(&secret());
        let answer = asks.ask_with(&rig, "go", &["read_file"]).await.json();
        assert_eq!(asks.calls(&answer), [("read_file".to_owned(), json!({"path": MASK}))], "{asks:?}");
        let events = asks.stream(&rig, "go", &["read_file"]).await.rest().await;
        assert!(events.contains(MASK) && !events.contains(&secret()), "{asks:?}: {events}");
        rig.close_and_verify().await;
    }
}

/// Lets everything happen; to delete takes a person's word, and so does a prompt to another model.
const ASKERS: &str = r#"
    permit (principal, action, resource);
    @ask("person") forbid (principal, action == Castra::Action::"call", resource is Castra::Tool)
    when { resource.name like "*delete*" || resource.name == "change" } unless { context has approval };
    @ask("person") forbid (principal, action == Castra::Action::"complete", resource == Castra::Model::"careful")
    unless { context has approval };"#;

/// The id of an approval, in words such as `castra approval approve lusab-babad`.
fn approval_in(words: &str) -> &str {
    words.split("castra approval approve ").nth(1).and_then(|rest| rest.get(..11)).unwrap_or_default()
}

fn approve(rig: &Rig, id: &str) {
    rig.state.answer_approval(id, true, "alice", None, castra_store::clock::now()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_own_tool_waits_for_a_person_and_passes_once_approved() {
    for asks in ALL_ASKS {
        let server = provider::saying(asks.native(), wants()).await;
        let rig = Rig::start(Wish { policies: ASKERS, ..wish(asks.native(), &server) }).await;
        let names = ["read_file", "delete_file"];
        let got = asks.ask_with(&rig, "go", &names).await.json();
        assert_eq!(asks.calls(&got).len(), 1, "{got}");
        let words = asks.text(&got);
        let id = approval_in(&words).to_owned();
        assert!(words.contains("the tool \"delete_file\" did not happen"), "{words}");
        let events = asks.stream(&rig, "go", &names).await.rest().await;
        assert_eq!(approval_in(&asks.streamed_text(&events)), id, "{asks:?}: the same question");
        approve(&rig, &id);
        let got = asks.ask_with(&rig, "go", &names).await.json();
        assert_eq!(asks.calls(&got).len(), 2, "{asks:?}: {got}");
        let got = asks.ask_with(&rig, "go", &names).await.json();
        assert_eq!(asks.calls(&got).len(), 1, "{asks:?}: it is used up");
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_of_a_server_is_asked_about_when_it_is_called() {
    let tools = servers::modern().await;
    let asks = ALL_ASKS[0];
    let server = provider::saying(asks.native(), Says::default().call("files__change", &["{}"])).await;
    let rig = Rig::start(Wish {
        servers: vec![("files", tools.transport())],
        policies: ASKERS,
        ..wish(asks.native(), &server)
    })
    .await;
    rig.learned("files", servers::TOOLS).await;
    let got = asks.ask_with(&rig, "go", &["files__change"]).await.json();
    assert_eq!(asks.calls(&got), [("files__change".to_owned(), json!({}))], "{got}");
    assert!(rig.state.approvals(true, castra_store::clock::now()).unwrap().is_empty());
    let call = json!({"name": "files__change", "arguments": {}});
    let got = rig.modern("/mcp", "tools/call", call).await;
    assert!(got.body.contains("castra.dev/approval_required"), "{}", got.body);
    let intents = rig.records_of("intent").await;
    let told: Vec<_> = intents
        .iter()
        .filter(|i| i["operation"] == "call")
        .map(|i| (i["decision"].as_str().unwrap(), i["enforced"].as_bool().unwrap()))
        .collect();
    assert_eq!(told, [("ask", false), ("ask", true)]);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_a_model_can_wait_too() {
    for asks in ALL_ASKS {
        let server = provider::saying(asks.native(), Says::text(&["Hello."])).await;
        let models = vec![crate::stage::route("careful", &[("v1", asks.native(), &server)])];
        let rig = Rig::start(Wish { policies: ASKERS, models, ..wish(asks.native(), &server) }).await;
        let mut request = asks.request("go", &[], false);
        request["model"] = json!("careful");
        let ask = async || rig.request("POST", asks.path(), &[], request.to_string().as_bytes()).await;
        let got = ask().await;
        assert_eq!(got.status, 403, "{}", got.body);
        let body = got.json();
        let id = body
            .pointer("/error/castra/approval_required/id")
            .or(body.pointer("/castra/approval_required/id"));
        approve(&rig, id.and_then(serde_json::Value::as_str).unwrap_or_else(|| panic!("{body}")));
        assert_eq!(ask().await.status, 200);
        assert_eq!(ask().await.status, 403);
        rig.close_and_verify().await;
    }
}
