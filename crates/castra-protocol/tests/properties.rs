//! What holds for every input: parsing never panics, and a splice changes what it should and nothing else.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

use castra_protocol::{
    json,
    mcp::{
        Id, ListKind, Message, ParseLimits, Revision, Splice,
        bridge::{self, ClientFacts, LegacyAnswer, LegacyStep, ModernStep, ServerFacts},
        lists, parse,
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The texts of all cases.
fn message_text() -> impl Strategy<Value = String> {
    let files = [include_str!("../cases/mcp/parse.json"), include_str!("../cases/mcp/bridge.json")];
    let cases = files.map(|file| serde_json::from_str::<Vec<Value>>(file).expect("cases")).concat();
    prop::sample::select(
        cases.iter().map(|case| case["text"].as_str().expect("text").into()).collect::<Vec<String>>(),
    )
}

/// Both sides of a bridge at their most talkative.
fn sides() -> (ClientFacts, ServerFacts) {
    let client = ClientFacts {
        revision: Revision::V2025_11_25,
        info: None,
        capabilities: r#"{"elicitation":{"form":{},"url":{}},"sampling":{},"roots":{}}"#.into(),
        log_level: None,
    };
    let capabilities = r#"{"tools":{"listChanged":true},"resources":{"subscribe":true}}"#.into();
    (client, ServerFacts { info: Some("{}".into()), capabilities, instructions: None, versions: Vec::new() })
}

/// What a bridge makes of a message in either direction and for any method.
fn bridged(message: &Message<'_>, method: &str) -> Vec<Vec<u8>> {
    let (client, server) = sides();
    let id = Id::from_raw("1").expect("an id");
    let mut out = Vec::new();
    match bridge::legacy_to_modern(message, &client) {
        LegacyStep::Forward(body) | LegacyStep::AnswerHere(body) => out.push(body),
        _ => {}
    }
    match message {
        Message::Request(request) => {
            if let ModernStep::Forward(body) = bridge::modern_to_legacy(request, &server, client.revision) {
                out.push(body);
            }
            out.push(bridge::input_required(std::slice::from_ref(request), "s", id, &server));
            out.extend(bridge::legacy_replies(std::slice::from_ref(request), &[]));
        }
        Message::Response(response) => {
            out.push(bridge::legacy_answer_to_modern(response, method, &server, &client));
            match bridge::modern_answer_to_legacy(response, method, &client) {
                Ok(LegacyAnswer::Final(body)) => out.push(body),
                Ok(LegacyAnswer::NeedsInput(n)) => {
                    out.extend(n.requests.iter().map(|r| r.to_legacy("1", client.revision)))
                }
                Err(_) => {}
            }
        }
        Message::Notification(notification) => {
            out.extend(bridge::modern_notification_to_legacy(notification).map(Into::into));
            out.extend(bridge::legacy_notification_to_modern(notification, None).map(Into::into));
            let filter = bridge::SubscriptionFilter { tools: true, ..Default::default() };
            out.extend(bridge::listen_notification(notification, &filter, id));
        }
    }
    out
}

/// A request with members in any order, some of them unknown.
fn request() -> impl Strategy<Value = Value> {
    let meta = prop::option::of(prop::collection::btree_map("[a-e]|progressToken", 0..9_i64, 0..4));
    let extra = prop::collection::btree_map("[a-z]{1,3}", any::<String>(), 0..3);
    (meta, extra, "[a-z\"\\\\ü]{0,6}", any::<i64>()).prop_map(|(meta, extra, name, id)| {
        let mut params = json!({"name": name, "arguments": {"x": extra}});
        if let Some(meta) = meta {
            params["_meta"] = json!(meta);
        }
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
    })
}

proptest! {
    #[test]
    fn parsing_never_panics(text in message_text(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Err(error) = parse(&bytes, &ParseLimits::default()) {
            prop_assert!(!error.to_string().is_empty());
            prop_assert!(error.id.is_none_or(|id| Id::from_raw(&id).is_some()));
        }
    }

    #[test]
    fn what_a_bridge_makes_of_a_message_is_a_message(
        text in message_text(), at in any::<prop::sample::Index>(), byte in any::<u8>(), broken in any::<bool>(),
        method in prop::sample::select(vec!["tools/call", "tools/list", "resources/read", "x"]),
    ) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        if broken {
            bytes[at] = byte;
        }
        if let Ok(message) = parse(&bytes, &ParseLimits::default()) {
            for body in bridged(&message, method) {
                let read = parse(&body, &ParseLimits::default()).map(drop);
                prop_assert!(read.is_ok(), "{read:?}: {}", String::from_utf8_lossy(&body));
            }
        }
    }

    #[test]
    fn splices_do_what_they_say(
        request in request(), target in any::<String>(), key in "[a-e]|progressToken", gone in "[a-e]", pretty in any::<bool>(),
    ) {
        let text = if pretty { serde_json::to_string_pretty(&request) } else { serde_json::to_string(&request) }.unwrap();
        let Ok(Message::Request(view)) = parse(text.as_bytes(), &ParseLimits::default()) else { panic!("{text}") };
        let spliced = Splice::request(&view).id("\"new\"").target(&target).remove_meta(&gone).set_meta(&key, "[1]");
        let after = spliced.set("requestState", "\"s\"").remove("none").finish();
        let after: Value = serde_json::from_str(json::check(&after, 64).expect("still valid")).unwrap();

        let mut expected = request;
        expected["id"] = json!("new");
        expected["params"]["name"] = json!(target);
        expected["params"]["requestState"] = json!("s");
        if let Some(meta) = expected["params"]["_meta"].as_object_mut() {
            meta.remove(&gone);
        }
        expected["params"]["_meta"][&key] = json!([1]);
        prop_assert_eq!(after, expected);
    }

    #[test]
    fn a_filtered_list_is_the_list_without_what_was_dropped(kept in prop::collection::vec(any::<bool>(), 0..7), gap in "[ \n]{0,2}") {
        let tools: Vec<Value> = (0..kept.len()).map(|i| json!({"name": format!("t{i}"), "inputSchema": {"a": i}})).collect();
        let list = tools.iter().map(Value::to_string).collect::<Vec<_>>().join(&format!("{gap},{gap}"));
        let result = format!("{{\"tools\":[{gap}{list}{gap}],\"other\":1}}");
        let page = lists::read(ListKind::Tools, &result).expect("a page");
        let keep: Vec<_> = kept.iter().map(|k| if *k { lists::Keep::AsIs } else { lists::Keep::Drop }).collect();
        let filtered: Value = serde_json::from_str(&lists::filter(&page, &keep, false)).expect("still JSON");
        let expected: Vec<_> = tools.into_iter().zip(&kept).filter(|(_, k)| **k).map(|(t, _)| t).collect();
        prop_assert_eq!(filtered, json!({"tools": expected, "other": 1}));
    }

    #[test]
    fn lists_never_panic(text in "[\\[\\]{}\":,a-z0-9]{0,60}") {
        let _ = lists::read(ListKind::Tools, &text);
        let _ = lists::read(ListKind::Tools, &format!("{{\"tools\":[{text}]}}"));
    }
}
