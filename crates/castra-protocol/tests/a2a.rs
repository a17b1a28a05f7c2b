//! A2A as data: requests of both bindings and what they mean, answers and what they name, cards and what
//! becomes of them.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

use castra_core::{Refusal, RefusalCode, Step};
use castra_protocol::{
    a2a::{
        self, AgentCard, Binding, ErrorKind, HttpRequest, Ids, Method, Notes,
        card::{CardError, Rewrite},
    },
    json,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const DEPTH_MAX: usize = 32;

fn cases(file: &str) -> Vec<Value> {
    serde_json::from_str(file).expect("cases")
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn requests_mean_the_same_in_both_bindings() {
    for case in cases(include_str!("../cases/a2a/requests.json")) {
        let (name, want) = (&case["name"], &case["want"]);
        let http = &case["http"];
        let body = match (&case["raw"], &case["rpc"], &case["body"]) {
            (Value::String(raw), _, _) => raw.clone(),
            (_, Value::Object(_), _) => case["rpc"].to_string(),
            (_, _, Value::Null) => String::new(),
            (_, _, body) => body.to_string(),
        };
        let parsed = if http.is_null() {
            a2a::parse_rpc(body.as_bytes(), DEPTH_MAX).map_err(|f| f.fault)
        } else {
            let text = |key: &str| http[key].as_str();
            let http = HttpRequest {
                method: text("method").expect("method"),
                path: text("path").expect("path"),
                query: text("query"),
                body: body.as_bytes(),
            };
            a2a::parse_http(&http, DEPTH_MAX)
        };
        if let Some(kind) = want["fault"].as_str() {
            let fault = parsed.expect_err("refused");
            assert_eq!(format!("{:?}", fault.kind()), kind, "{name}: {fault}");
            assert!(fault.to_string().contains(want["says"].as_str().unwrap()), "{name}: {fault}");
            continue;
        }
        let request = parsed.unwrap_or_else(|fault| panic!("{name}: {fault}"));
        assert_eq!(request.method.as_str(), want["method"], "{name}");
        assert_eq!(request.task.as_deref(), want["task"].as_str(), "{name}");
        assert_eq!(request.context.as_deref(), want["context"].as_str(), "{name}");
        assert_eq!(request.tenant.as_deref(), want["tenant"].as_str(), "{name}");
        assert_eq!(request.push.as_deref(), want["push"].as_str(), "{name}");
        assert_eq!(request.references, texts(&want["references"]), "{name}");
        assert_eq!(request.push_urls, texts(&want["push_urls"]), "{name}");
        assert_eq!(request.media, want["media"] == true, "{name}");
        assert_eq!(request.content.len() as u64, want["content"].as_u64().unwrap_or(0), "{name}");
        if http.is_null() {
            assert_eq!(request.id, Some(want["id"].as_str().unwrap_or("\"1\"")), "{name}");
        } else {
            let (method, target) = request.http_target();
            assert_eq!(Some(&*format!("{method} {target}")), want["target"].as_str(), "{name}");
        }
    }
}

#[test]
fn the_table_has_every_operation_in_both_bindings() {
    let cases = cases(include_str!("../cases/a2a/requests.json"));
    for method in Method::ALL {
        assert_eq!(Method::from_name(method.as_str()), Some(method));
        for binding in ["rpc", "http"] {
            let has = |c: &Value| c["want"]["method"] == method.as_str() && !c[binding].is_null();
            assert!(cases.iter().any(has), "{method:?} {binding}");
        }
    }
}

fn ids(task: Option<&str>, context: Option<&str>) -> Ids<'static> {
    Ids { task: task.map(|t| t.to_owned().into()), context: context.map(|c| c.to_owned().into()) }
}

/// The same message as an answer of both bindings.
fn both(result: &Value) -> [(Binding, Option<&'static str>, String); 2] {
    [
        (Binding::HttpJson, None, result.to_string()),
        (Binding::JsonRpc, Some("\"1\""), json!({"jsonrpc": "2.0", "id": "1", "result": result}).to_string()),
    ]
}

#[test]
fn answers_name_tasks_and_conversations() {
    let task = json!({"id": "t1", "contextId": "c1", "status": {"state": "TASK_STATE_WORKING"}});
    for (method, result, expected) in [
        (Method::SendMessage, json!({"task": task}), vec![ids(Some("t1"), Some("c1"))]),
        (Method::SendMessage, json!({"message": {"task_id": "t", "parts": []}}), vec![ids(Some("t"), None)]),
        (Method::GetTask, task.clone(), vec![ids(Some("t1"), Some("c1"))]),
        (Method::CancelTask, task.clone(), vec![ids(Some("t1"), Some("c1"))]),
        (
            Method::ListTasks,
            json!({"tasks": [task, {"id": "t2"}], "totalSize": 2}),
            vec![ids(Some("t1"), Some("c1")), ids(Some("t2"), None)],
        ),
        (Method::ListTasks, json!({}), vec![]),
        (Method::GetExtendedAgentCard, json!({"name": "x"}), vec![]),
        (Method::DeleteTaskPushNotificationConfig, json!({}), vec![]),
    ] {
        for (binding, id, body) in both(&result) {
            let answer =
                a2a::read_answer(binding, method, id, body.as_bytes(), DEPTH_MAX).expect("an answer");
            assert_eq!(answer.ids, expected, "{method:?} {binding:?}");
            assert_eq!(answer.result.of(answer.text), result.to_string());
        }
    }
    for (method, result) in [
        (Method::SendMessage, json!({})),
        (Method::SendMessage, json!({"task": task, "message": {}})),
        (Method::SendMessage, json!([])),
        (Method::GetTask, json!({"contextId": "c"})),
        (Method::ListTasks, json!({"tasks": [{}]})),
        (Method::ListTasks, json!({"tasks": {}})),
    ] {
        for (binding, id, body) in both(&result) {
            let read = a2a::read_answer(binding, method, id, body.as_bytes(), DEPTH_MAX);
            assert!(read.is_err(), "{method:?} {body}");
        }
    }
}

#[test]
fn responses_are_to_the_request_that_was_sent() {
    let read = |body: &str| {
        a2a::read_answer(
            Binding::JsonRpc,
            Method::GetExtendedAgentCard,
            Some("\"a\""),
            body.as_bytes(),
            DEPTH_MAX,
        )
        .is_ok()
    };
    assert!(read(r#"{"jsonrpc":"2.0","id":"\u0061","result":{}}"#));
    for bad in [
        r#"{"jsonrpc":"2.0","id":"b","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":null,"result":{}}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
        r#"{"id":"a","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":"a","result":{},"error":{}}"#,
        r#"{"jsonrpc":"2.0","id":"a","error":{}}"#,
        r#"{"jsonrpc":"2.0","id":"a"}"#,
        "<html>",
    ] {
        assert!(!read(bad), "{bad}");
    }
    let error =
        |body: &str| a2a::read_error(Binding::JsonRpc, Some("\"a\""), body.as_bytes(), DEPTH_MAX).is_ok();
    assert!(error(r#"{"jsonrpc":"2.0","id":"a","error":{"code":-32001}}"#));
    assert!(error(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700}}"#));
    assert!(!error(r#"{"jsonrpc":"2.0","id":"b","error":{"code":-32001}}"#));
    assert!(a2a::read_error(Binding::HttpJson, None, br#"{"error":{"code":404}}"#, DEPTH_MAX).is_ok());
    assert!(a2a::read_error(Binding::HttpJson, None, br#"{"detail":"x"}"#, DEPTH_MAX).is_err());
}

#[test]
fn events_are_told_apart_and_artifacts_can_be_changed() {
    let update = json!({"taskId": "t", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}});
    for (event, expected) in [
        (json!({"task": {"id": "t", "contextId": "c"}}), ids(Some("t"), Some("c"))),
        (json!({"message": {"contextId": "c", "parts": []}}), ids(None, Some("c"))),
        (json!({"statusUpdate": update}), ids(Some("t"), Some("c"))),
    ] {
        for (binding, id, body) in both(&event) {
            let read = a2a::read_event(binding, id, &body, DEPTH_MAX).expect("an event");
            assert_eq!((read.ids, read.error, read.artifact), (expected.clone(), false, None));
        }
    }
    for (event, pauses) in [
        (json!({"statusUpdate": update}), false),
        (json!({"statusUpdate": {"taskId": "t", "status": {"state": 2}}}), false),
        (json!({"statusUpdate": {"taskId": "t", "status": {"state": "TASK_STATE_COMPLETED"}}}), true),
        (json!({"task": {"id": "t", "status": {"state": "TASK_STATE_INPUT_REQUIRED"}}}), true),
        (json!({"message": {"parts": []}}), true),
    ] {
        let read = a2a::read_event(Binding::HttpJson, None, &event.to_string(), DEPTH_MAX).map(|e| e.pauses);
        assert_eq!(read, Ok(pauses), "{event}");
    }
    let piece = json!({"artifactUpdate": {"taskId": "t", "contextId": "c", "append": true, "lastChunk": true,
        "artifact": {"artifactId": "a", "parts": [{"text": "one"}, {"raw": "QQ=="}, {"text": "two"}]}}});
    for (binding, id, body) in both(&piece) {
        let read = a2a::read_event(binding, id, &body, DEPTH_MAX).expect("an event");
        let artifact = read.artifact.clone().expect("an artifact");
        assert!(artifact.append && artifact.last && artifact.id == "a" && artifact.texts.len() == 2);
        let changed = read.with_texts(&["1\n".to_owned(), String::new()]);
        assert_eq!(changed, body.replace("\"one\"", "\"1\\n\"").replace("\"two\"", "\"\""));
        let more = a2a::continuation(binding, id, &read.ids, &artifact.id, "rest");
        let more = a2a::read_event(binding, id, &more, DEPTH_MAX).expect("an event");
        let artifact = more.artifact.expect("an artifact");
        assert_eq!((more.ids, &*artifact.id, artifact.append), (ids(Some("t"), Some("c")), "a", true));
    }
    for bad in [
        "{}",
        "[]",
        r#"{"task":{"id":"t"},"message":{}}"#,
        r#"{"task":{}}"#,
        r#"{"artifactUpdate":{"artifact":{"parts":[{"text":1}]}}}"#,
    ] {
        assert!(a2a::read_event(Binding::HttpJson, None, bad, DEPTH_MAX).is_err(), "{bad}");
    }
    assert!(
        a2a::read_event(Binding::HttpJson, None, r#"{"error":{"code":500}}"#, DEPTH_MAX).expect("read").error
    );
}

#[test]
fn lists_are_cut_to_what_is_the_callers() {
    let body =
        r#"{"totalSize": 3, "tasks": [ {"id":"a"} , {"id":"b","x":[1]}, {"id":"c"}], "nextPageToken":"n"}"#;
    let read = a2a::read_answer(Binding::HttpJson, Method::ListTasks, None, body.as_bytes(), DEPTH_MAX)
        .expect("read");
    assert_eq!(read.keep_tasks(|_| true), None);
    let kept = read.keep_tasks(|ids| ids.task.as_deref() == Some("b")).expect("cut");
    assert_eq!(kept, r#"{"totalSize": 1, "tasks": [{"id":"b","x":[1]}], "nextPageToken":"n"}"#);
    assert_eq!(
        read.keep_tasks(|_| false).expect("cut"),
        r#"{"totalSize": 0, "tasks": [], "nextPageToken":"n"}"#
    );
}

#[test]
fn errors_have_the_form_of_their_binding() {
    let refusal = Refusal::new(Step::Decide, RefusalCode::Denied, "no policy permits it").advise("Ask");
    let notes = Notes { receipt: Some("r"), retry_secs: Some(9), ..Notes::default() };
    let rpc = a2a::error_body(Binding::JsonRpc, Some("\"1\""), ErrorKind::TaskNotFound, &refusal, &notes);
    let rpc: Value = serde_json::from_str(&rpc).expect("JSON");
    assert_eq!(
        rpc,
        json!({"jsonrpc": "2.0", "id": "1", "error": {"code": -32001, "message": "no policy permits it. Ask", "data": [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "TASK_NOT_FOUND", "domain": "a2a-protocol.org",
             "metadata": {"castraCode": "denied", "receipt": "r"}},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "9s"}]}})
    );
    let http = a2a::error_body(Binding::HttpJson, None, ErrorKind::Denied, &refusal, &Notes::default());
    let http: Value = serde_json::from_str(&http).expect("JSON");
    assert_eq!(http["error"]["status"], "PERMISSION_DENIED");
    assert_eq!(http["error"]["code"], 403);
    assert_eq!(http["error"]["details"][0]["domain"], "castra.dev");
    assert_eq!(ErrorKind::Denied.status(Binding::JsonRpc), 200);
    assert_eq!(ErrorKind::TooMuch.status(Binding::JsonRpc), 429);
}

fn card() -> Value {
    json!({
        "name": "Planner", "description": "Plans", "version": "1.2.0",
        "supportedInterfaces": [
            {"url": "https://agent.example/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
            {"url": "https://agent.example/grpc", "protocolBinding": "GRPC", "protocolVersion": "1.0"},
            {"url": "https://agent.example/old", "protocolBinding": "JSONRPC", "protocolVersion": "0.3"},
            {"url": "https://agent.example/rest", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0", "tenant": "acme"}
        ],
        "capabilities": {"streaming": true, "pushNotifications": true, "extensions": [{"uri": "https://x.example", "params": {"a": [1.5, "", {}]}}]},
        "securitySchemes": {"own": {"apiKeySecurityScheme": {"location": "header", "name": "x-key"}}},
        "securityRequirements": [{"schemes": {"own": {"list": []}}}],
        "defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "s", "name": "S", "description": "", "tags": [], "securityRequirements": [{"schemes": {}}]}],
        "signatures": [{"protected": "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsiLCJqa3UiOiJodHRwczovL2FnZW50LmV4YW1wbGUvandrcyJ9", "signature": "QUJD"}],
        "url": "https://agent.example/bypass", "preferredTransport": "JSONRPC",
        "additionalInterfaces": [{"url": "https://agent.example/bypass"}], "x-own": {"url": "https://agent.example"}
    })
}

fn parsed(card: &Value) -> Result<AgentCard, CardError> {
    AgentCard::parse(card.to_string().as_bytes())
}

#[test]
fn a_rewritten_card_leads_to_the_gate_only() {
    let card = parsed(&card()).expect("a card");
    let rewrite = Rewrite { url: "https://gate.example/a2a/planner", mutual_tls: true, push: false };
    let shown = card.rewritten(&rewrite, |interface| interface.binding().is_some()).to_json();
    assert!(!shown.contains("agent.example"), "{shown}");
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(
        shown["supportedInterfaces"],
        json!([
            {"url": "https://gate.example/a2a/planner", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
            {"url": "https://gate.example/a2a/planner", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0", "tenant": "acme"}
        ])
    );
    assert_eq!(shown["capabilities"]["pushNotifications"], false);
    assert_eq!(shown["capabilities"]["extensions"][0]["params"]["a"][0], 1.5);
    assert_eq!(shown["securitySchemes"]["castra"], json!({"httpAuthSecurityScheme": {"scheme": "Bearer"}}));
    assert_eq!(shown["securityRequirements"].as_array().map(Vec::len), Some(2));
    assert!(shown.get("signatures").is_none() && shown["skills"][0].get("securityRequirements").is_none());
}

#[test]
fn a_pin_is_of_what_a_card_says() {
    let before = parsed(&card()).expect("a card").canonical().expect("canonical");
    let mut same = card();
    same["signatures"] = json!([]);
    same["x-own"] = json!(1);
    assert_eq!(parsed(&same).expect("a card").canonical().as_ref(), Ok(&before));
    for (pointer, value) in [
        ("/skills/0/description", json!("other")),
        ("/supportedInterfaces/0/url", json!("https://evil.example")),
        ("/capabilities/extensions/0/params/a/0", json!(2)),
        ("/securityRequirements", json!([])),
    ] {
        let mut changed = card();
        *changed.pointer_mut(pointer).expect("there") = value;
        assert_ne!(parsed(&changed).expect("a card").canonical().as_ref(), Ok(&before), "{pointer}");
    }
}

#[test]
fn signatures_are_of_the_card_without_them() {
    let signatures = parsed(&card()).expect("a card").signatures().expect("canonical");
    let [signature] = signatures.as_slice() else { panic!("{signatures:?}") };
    assert_eq!((&*signature.algorithm, signature.key_id.as_deref()), ("ES256", Some("k")));
    assert_eq!(signature.key_set.as_deref(), Some("https://agent.example/jwks"));
    assert_eq!(signature.signature, b"ABC");
    assert_eq!(signature.signed.len(), 2, "as it is, and without what is empty");
    for bad in [
        "e30",
        "eyJhbGciOiJFUzI1NiIsImNyaXQiOlsiYjY0Il19",
        "not base64",
        "eyJhbGciOiJFUzI1NiIsImFsZyI6Im5vbmUifQ",
    ] {
        let mut other = card();
        other["signatures"][0]["protected"] = json!(bad);
        assert_eq!(parsed(&other).expect("a card").signatures(), Ok(Vec::new()), "{bad}");
    }
}

#[test]
fn what_is_no_card_is_refused() {
    let mut none = card();
    none["supportedInterfaces"] =
        json!([{"url": "https://a.example", "protocolBinding": "GRPC", "protocolVersion": "1.0"}]);
    assert_eq!(parsed(&none), Err(CardError::NoInterface));
    let mut many = card();
    many["skills"] = json!(vec![many["skills"][0].clone(); 257]);
    assert_eq!(parsed(&many), Err(CardError::TooMany { what: "skills" }));
    for field in ["name", "supportedInterfaces", "version"] {
        let mut without = card();
        without.as_object_mut().unwrap().remove(field);
        assert!(matches!(parsed(&without), Err(CardError::Shape { .. })), "{field}");
    }
    assert!(matches!(AgentCard::parse(br#"{"name":"a","name":"b"}"#), Err(CardError::Json(_))));
    assert!(matches!(AgentCard::parse(&vec![b' '; (512 << 10) + 1]), Err(CardError::TooLong { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..120), path in "[/a-z:%0-9A-F?=&]{0,40}") {
        let _ = a2a::parse_rpc(&bytes, DEPTH_MAX);
        let http = HttpRequest { method: "POST", path: &path, query: Some(&path), body: &bytes };
        let _ = (a2a::parse_http(&http, DEPTH_MAX), http.version(), AgentCard::parse(&bytes));
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let _ = a2a::read_event(Binding::JsonRpc, Some("1"), text, DEPTH_MAX);
        }
    }

    /// A target that goes on means what came in.
    #[test]
    fn targets_read_back(task in "[a-zA-Z0-9 :._~!é-]{1,12}", tenant in proptest::option::of("[a-z ]{1,8}")) {
        prop_assume!(task != "." && task != ".." );
        let params = json!({"id": task, "tenant": tenant});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "CancelTask", "params": params}).to_string();
        let request = a2a::parse_rpc(body.as_bytes(), DEPTH_MAX).expect("a request");
        let (method, target) = request.http_target();
        let http = HttpRequest { method, path: &target, query: None, body: b"" };
        let again = a2a::parse_http(&http, DEPTH_MAX).expect("a request");
        prop_assert_eq!((again.method, again.task, again.tenant), (request.method, request.task, request.tenant));
    }

    /// Changed texts are the texts that are read.
    #[test]
    fn texts_survive(one in any::<String>(), two in any::<String>()) {
        let event = r#"{"artifactUpdate":{"taskId":"t","artifact":{"artifactId":"a","parts":[{"text":"x"},{"text":"y"}]}}}"#;
        let read = a2a::read_event(Binding::HttpJson, None, event, DEPTH_MAX).expect("an event");
        let changed = read.with_texts(&[one.clone(), two.clone()]);
        let again = a2a::read_event(Binding::HttpJson, None, &changed, DEPTH_MAX).expect("an event");
        let texts: Vec<_> = again.artifact.expect("there").texts.iter().filter_map(|s| json::decode(s.of(&changed))).map(|t| t.into_owned()).collect();
        prop_assert_eq!(texts, vec![one, two]);
    }
}
