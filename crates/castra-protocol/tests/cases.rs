//! Cases as data: what goes in, what must come out. One file per boundary under `cases/mcp`.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

use castra_core::ServerName;
use castra_protocol::{
    json::Span,
    mcp::{
        self, Era, ListKind, Message, Notification, Outcome, ParseLimits, Request, Response, Splice,
        headers::{self, ParamHeaders},
        lists::{self, Keep},
        parse,
    },
};
use serde_json::{Map, Value, json};

fn cases(text: &str) -> Vec<Value> {
    serde_json::from_str(text).expect("cases are JSON")
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}"))
}

/// Small, so that a case can reach it.
const LIMITS: ParseLimits = ParseLimits { depth_max: 16 };

#[test]
fn messages_are_understood_or_refused() {
    for case in cases(include_str!("../cases/mcp/parse.json")) {
        let name = text(&case, "name");
        match parse(text(&case, "text").as_bytes(), &LIMITS) {
            Ok(message) => {
                let mut expected = case["expect"].clone();
                expected.as_object_mut().and_then(|e| e.remove("action"));
                assert_eq!(describe(&message), expected, "{name}");
                if let (Message::Request(request), Some(action)) = (&message, case["expect"].get("action")) {
                    assert_eq!(format!("{:?}", request.action().expect(name)), *action);
                }
            }
            Err(error) => {
                assert_eq!(error.to_string(), text(&case, "error"), "{name}");
                assert_eq!(error.code(), case["code"], "{name}");
                assert_eq!(error.id.as_deref(), case["id"].as_str(), "{name}");
            }
        }
    }
}

#[test]
fn headers_are_compared_and_written() {
    for case in cases(include_str!("../cases/mcp/headers.json")) {
        let name = text(&case, "name");
        let params = case.get("schema").map(|schema| ParamHeaders::from_schema(&schema.to_string()));
        let params = match params.transpose() {
            Ok(params) => params.unwrap_or_default(),
            Err(fault) => {
                assert_eq!(fault.to_string(), case["invalid"], "{name}");
                continue;
            }
        };
        let request = modern(text(&case, "method"), &case["params"]);
        let Ok(Message::Request(request)) = parse(request.as_bytes(), &LIMITS) else { panic!("{name}") };
        let given = case["headers"].as_object().expect(name);
        let lookup = |name: &str| given.get(name).and_then(Value::as_str).map(str::as_bytes);
        let checked = headers::check(&request, lookup, Some(&params)).map_err(|fault| fault.to_string());
        match case.get("error") {
            Some(error) => assert_eq!(checked.as_ref().expect_err(name), error, "{name}"),
            None => {
                assert_eq!(checked, Ok(()), "{name}");
                if case["build"] != false {
                    let built = headers::build(&request, Some(&params)).expect(name);
                    let built: Map<_, _> =
                        built.into_iter().map(|h| (h.name.into(), h.value.into())).collect();
                    assert_eq!(&built, given, "{name}");
                }
            }
        }
    }
}

fn modern(method: &str, params: &Value) -> String {
    let mut params = params.clone();
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}
    });
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
}

#[test]
fn lists_are_read_and_cut() {
    for case in cases(include_str!("../cases/mcp/lists.json")) {
        let name = text(&case, "name");
        let result = text(&case, "result");
        let kind = match text(&case, "kind") {
            "tools" => ListKind::Tools,
            "prompts" => ListKind::Prompts,
            "resources" => ListKind::Resources,
            _ => ListKind::ResourceTemplates,
        };
        let page = match lists::read(kind, result) {
            Ok(page) => page,
            Err(error) => {
                assert_eq!(error.to_string(), case["error"], "{name}");
                continue;
            }
        };
        let keys: Vec<_> = page.items.iter().map(|item| &*item.key).collect();
        assert_eq!(json!(keys), case["keys"], "{name}");
        assert_eq!(page.next_cursor.as_deref(), case["cursor"].as_str(), "{name}");
        let faults: Vec<_> =
            page.faults.iter().map(|f| format!("{} {} {}", f.index, f.name, f.reason)).collect();
        assert_eq!(json!(faults), *case.get("faults").unwrap_or(&json!([])), "{name}");
        if let Some(effects) = case.get("effects") {
            let claimed: Vec<_> = page.items.iter().map(|item| item.hints.effect().as_str()).collect();
            assert_eq!(json!(claimed), *effects, "{name}");
        }
        let keep: Vec<_> = case["keep"].as_array().expect(name).iter().map(keep).collect();
        let filtered = lists::filter(&page, &keep, true);
        let expected = if case["filtered"] == "same" { result } else { text(&case, "filtered") };
        assert_eq!(filtered, expected, "{name}");
        assert_eq!(matches!(filtered, std::borrow::Cow::Borrowed(_)), case["filtered"] == "same", "{name}");
    }
}

fn keep(word: &Value) -> Keep {
    match word.as_str().expect("a word") {
        "drop" => Keep::Drop,
        "as is" => Keep::AsIs,
        name => Keep::Rename(name.into()),
    }
}

#[test]
fn servers_are_merged_into_one_view() {
    let server = |name| ServerName::new(name).expect("a server's name");
    let one = r#"{"tools":[{"name":"read","inputSchema":{}},{"name":"write","inputSchema":{}}],"ttlMs":900,"cacheScope":"public"}"#;
    let two = r#"{"tools":[{"inputSchema":{},"name":"read","x":[1, 2]}],"ttlMs":100,"cacheScope":"public"}"#;
    let (one, two) = (lists::read(ListKind::Tools, one).unwrap(), lists::read(ListKind::Tools, two).unwrap());
    let mut routes = mcp::UriRoutes::default();
    let a = lists::federate(&one, &server("a"), &mut routes, |item| item.key == "read");
    let b = lists::federate(&two, &server("b"), &mut routes, |_| true);
    let parts = [(&one, &*a), (&two, &*b)];
    assert_eq!(
        lists::merge(ListKind::Tools, &parts, Some("n"), Era::Modern),
        r#"{"resultType":"complete","ttlMs":100,"cacheScope":"private","nextCursor":"n","tools":[{"name":"a__read","inputSchema":{}},{"inputSchema":{},"name":"b__read","x":[1, 2]}]}"#
    );
    assert_eq!(lists::merge(ListKind::Tools, &[], None, Era::Legacy), r#"{"tools":[]}"#);
}

#[test]
fn splices_change_what_they_should_and_nothing_else() {
    let changed = |text: &str, change: fn(Splice<'_>) -> Splice<'_>| {
        let message = parse(text.as_bytes(), &LIMITS).expect("a message");
        let splice = match &message {
            Message::Request(r) => Splice::request(r),
            Message::Notification(n) => Splice::notification(n),
            Message::Response(r) => Splice::response(r),
        };
        String::from_utf8(change(splice).finish().into_owned()).expect("text")
    };
    for (before, change, after) in [
        (
            r#"{ "jsonrpc":"2.0", "id":1, "method":"tools/call", "params":{ "name":"s__t", "arguments":{ "a" : [ 1,2 ] } } }"#,
            (|s| s.target("t").id("\"x\"").set_meta("k", "1")) as fn(Splice<'_>) -> Splice<'_>,
            r#"{ "jsonrpc":"2.0", "id":"x", "method":"tools/call", "params":{"_meta":{"k":1}, "name":"t", "arguments":{ "a" : [ 1,2 ] } } }"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
            |s| s.progress_token("7").set_meta("k", "\"v\"").set("p", "{}"),
            r#"{"params":{"p":{},"_meta":{"progressToken":7,"k":"v"}},"jsonrpc":"2.0","id":1,"method":"ping"}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"a":1,"b":2,"progressToken":"p"}}}"#,
            |s| s.progress_token("9").remove_meta("a").set_meta("b", "3").set_meta("c", "4"),
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"c":4,"b":3,"progressToken":9}}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"a":1,"b":2}}}"#,
            |s| s.remove_meta("a").remove_meta("b"),
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{}}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","tools":[],"ttlMs":1}}"#,
            |s| s.id("2").remove("resultType").remove("ttlMs").set_meta("r", "0"),
            r#"{"jsonrpc":"2.0","id":2,"result":{"_meta":{"r":0},"tools":[]}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","error":{"code":1,"message":"m"}}"#,
            |s| s.id("2").set_meta("r", "0"),
            r#"{"id":2,"jsonrpc":"2.0","error":{"code":1,"message":"m"}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":2}}"#,
            |s| s.progress_token("\"p\""),
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":2}}"#,
        ),
    ] {
        assert_eq!(changed(before, change), after);
    }
    let same = parse(br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, &LIMITS).unwrap();
    let Message::Request(request) = &same else { panic!("a request") };
    let spliced = Splice::request(request).id("1").remove("x").remove_meta("y").finish();
    assert!(matches!(spliced, std::borrow::Cow::Borrowed(_)));
}

fn describe(message: &Message<'_>) -> Value {
    match message {
        Message::Request(request) => describe_request(request),
        Message::Notification(notification) => describe_notification(notification),
        Message::Response(response) => describe_response(response),
    }
}

/// Only what is there, so that a case names what it expects and nothing more.
fn put(map: &mut Value, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        map[key] = value.into();
    }
}

fn describe_request(r: &Request<'_>) -> Value {
    let at = |span: Option<Span>| span.map(|s| s.of(r.text));
    let mut d = json!({
        "is": "request", "id": r.id.raw(), "method": r.method, "kind": format!("{:?}", r.kind()),
    });
    put(
        &mut d,
        "target",
        r.target.as_ref().map(|t| json!([format!("{:?}", t.kind), t.text, t.span.of(r.text)])),
    );
    put(&mut d, "arguments", at(r.arguments));
    put(&mut d, "modern", r.is_modern().then_some(true));
    put(&mut d, "clientInfo", at(r.meta.client_info));
    put(&mut d, "clientCapabilities", at(r.meta.client_capabilities));
    put(&mut d, "logLevel", r.meta.log_level.map(|l| l.as_str()));
    put(&mut d, "progressToken", r.meta.progress_token.map(|t| t.raw()));
    put(&mut d, "traceparent", r.meta.traceparent.as_deref());
    put(&mut d, "cursor", r.cursor.as_deref());
    put(&mut d, "inputResponses", at(r.input_responses));
    put(&mut d, "requestState", r.request_state.as_deref());
    put(&mut d, "task", at(r.task));
    put(&mut d, "level", r.level.map(|l| l.as_str()));
    d
}

fn describe_notification(n: &Notification<'_>) -> Value {
    let mut d = json!({"is": "notification", "method": n.method, "kind": format!("{:?}", n.kind())});
    put(&mut d, "requestId", n.request_id.map(|i| i.raw()));
    put(&mut d, "progressToken", n.progress_token.map(|i| i.raw()));
    put(&mut d, "uri", n.uri.as_deref());
    put(&mut d, "level", n.level.map(|l| l.as_str()));
    put(&mut d, "subscriptionId", n.meta.subscription_id.map(|i| i.raw()));
    d
}

fn describe_response(r: &Response<'_>) -> Value {
    let at = |span: Option<Span>| span.map(|s| s.of(r.text));
    let id = r.id.map(|i| i.raw());
    match &r.outcome {
        Outcome::Result(result) => {
            let mut d = json!({"is": "result", "id": id, "isError": result.is_error});
            put(&mut d, "resultType", result.result_type.as_deref());
            put(&mut d, "structuredContent", at(result.structured_content));
            put(&mut d, "meta", at(result.meta));
            put(&mut d, "inputRequests", at(result.input_requests));
            put(&mut d, "requestState", result.request_state.as_deref());
            d
        }
        Outcome::Error(error) => {
            let mut d = json!({"is": "error", "id": id, "code": error.code, "message": error.message});
            put(&mut d, "data", at(error.data));
            d
        }
    }
}
