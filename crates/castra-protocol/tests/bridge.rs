//! Translation between the eras: the cases of `cases/mcp/bridge.json`, and whole conversations.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

use std::borrow::Cow;

use castra_protocol::mcp::{
    Id, LogLevel, Message, Notification, ParseLimits, Request, Response, Revision,
    bridge::{self, ClientFacts, LegacyAnswer, LegacyStep, ModernStep, ServerFacts, SubscriptionFilter},
    parse,
};
use serde_json::{Value, json};

fn message(text: &str) -> Message<'_> {
    parse(text.as_bytes(), &ParseLimits::default()).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn request(text: &str) -> Request<'_> {
    let Message::Request(request) = message(text) else { panic!("a request: {text}") };
    request
}

fn response(text: &str) -> Response<'_> {
    let Message::Response(response) = message(text) else { panic!("a response: {text}") };
    response
}

fn notification(text: &str) -> Notification<'_> {
    let Message::Notification(notification) = message(text) else { panic!("a notification: {text}") };
    notification
}

fn utf8(bytes: impl Into<Vec<u8>>) -> String {
    String::from_utf8(bytes.into()).expect("text")
}

struct Case(Value);

impl Case {
    fn get(&self, key: &str) -> Option<&str> {
        self.0[key].as_str()
    }

    fn client(&self) -> ClientFacts {
        ClientFacts {
            revision: self
                .get("revision")
                .map_or(Revision::V2025_11_25, |r| Revision::parse(r).expect("spoken")),
            info: Some(r#"{"name":"c","version":"1"}"#.into()),
            capabilities: self.get("capabilities").unwrap_or(r#"{"elicitation":{}}"#).into(),
            log_level: self.level(),
        }
    }

    fn level(&self) -> Option<LogLevel> {
        self.get("log_level").and_then(LogLevel::parse)
    }
}

fn server() -> ServerFacts {
    ServerFacts {
        info: Some(r#"{"name":"s","version":"2"}"#.into()),
        capabilities: r#"{"tools":{"listChanged":true},"prompts":{"listChanged":false},"resources":{"subscribe":true},"tasks":{}}"#.into(),
        instructions: Some("Ask \"nicely\".".into()),
        versions: vec!["2025-11-25".into()],
    }
}

#[test]
fn cases() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../cases/mcp/bridge.json")).expect("cases");
    for case in cases.into_iter().map(Case) {
        let name = case.get("name").expect("a name");
        let text = case.get("text").expect(name);
        match case.get("op").expect(name) {
            "legacy request" => {
                let (step, out) = legacy_step(bridge::legacy_to_modern(&message(text), &case.client()));
                assert_eq!(Some(&*step), case.get("step"), "{name}");
                assert_eq!(out.as_deref(), case.get("out"), "{name}");
            }
            "modern answer" => modern_answer(&case, name, text),
            "modern request" => {
                let (step, out) =
                    modern_step(bridge::modern_to_legacy(&request(text), &server(), Revision::V2025_11_25));
                assert_eq!(Some(&*step), case.get("step"), "{name}");
                assert_eq!(out.as_deref(), case.get("out"), "{name}");
            }
            "legacy answer" => {
                let method = case.get("method").expect(name);
                let out = bridge::legacy_answer_to_modern(&response(text), method, &server(), &case.client());
                assert_eq!(Some(&*utf8(out)), case.get("out"), "{name}");
            }
            "legacy question" => {
                let parked = [request(text)];
                let id = Id::from_raw("1").expect("an id");
                let out = bridge::input_required(&parked, "state", id, &server());
                assert_eq!(Some(&*utf8(out)), case.get("out"), "{name}");
                let responses = case.0["responses"].as_object().expect(name).iter();
                let responses: Vec<_> =
                    responses.map(|(k, v)| (k.clone(), v.as_str().expect(name).into())).collect();
                let replies = bridge::legacy_replies(&parked, &responses);
                assert_eq!(replies.len(), 1);
                assert_eq!(Some(&*utf8(replies[0].clone())), case.get("reply"), "{name}");
            }
            "notification" => {
                let notification = notification(text);
                let utf8 = |bytes: Cow<'_, [u8]>| utf8(bytes);
                let to_legacy = bridge::modern_notification_to_legacy(&notification).map(utf8);
                assert_eq!(to_legacy.as_deref(), case.get("to_legacy"), "{name}");
                let on_call = bridge::legacy_notification_to_modern(&notification, case.level()).map(utf8);
                assert_eq!(on_call.as_deref(), case.get("on_call"), "{name}");
                let filter =
                    SubscriptionFilter { tools: true, uris: vec!["a://b".into()], ..Default::default() };
                let id = Id::from_raw("\"l\"").expect("an id");
                let on_stream =
                    bridge::listen_notification(&notification, &filter, id).map(|b| utf8(b.into()));
                assert_eq!(on_stream.as_deref(), case.get("on_stream"), "{name}");
            }
            other => panic!("{other}"),
        }
    }
}

fn legacy_step(step: LegacyStep<'_>) -> (String, Option<String>) {
    let with = |word: String, bytes| (word, Some(utf8(bytes)));
    match step {
        LegacyStep::Forward(body) => with("forward".into(), body),
        LegacyStep::AnswerHere(body) => with("answer".into(), body),
        LegacyStep::SetLogLevel { level, answer } => with(format!("level {}", level.as_str()), answer),
        LegacyStep::Subscribe { uri, answer } => with(format!("subscribe {uri}"), answer),
        LegacyStep::Unsubscribe { uri, answer } => with(format!("unsubscribe {uri}"), answer),
        LegacyStep::Cancel { request_id } => (format!("cancel {}", request_id.raw()), None),
        LegacyStep::Swallow => ("swallow".into(), None),
        LegacyStep::ClientAnswer => ("client answer".into(), None),
        LegacyStep::Refuse(refusal) => (format!("refuse {} {refusal}", refusal.code.as_str()), None),
    }
}

fn modern_step(step: ModernStep) -> (String, Option<String>) {
    match step {
        ModernStep::Forward(body) => ("forward".into(), Some(utf8(body))),
        ModernStep::Discover => ("discover".into(), None),
        ModernStep::Listen(filter) => {
            let id = Id::from_raw("1").expect("an id");
            let told: Value =
                serde_json::from_slice(&bridge::listen_acknowledged(id, &filter)).expect("JSON");
            assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 1);
            // serde_json sorts names; the case has them in the order of the specification.
            let mut told = told["params"]["notifications"].clone();
            let uris =
                told.as_object_mut().and_then(|t| t.remove("resourceSubscriptions")).unwrap_or(json!([]));
            let flags = told.to_string();
            let flags = flags.trim_end_matches('}');
            (format!("listen {flags},\"resourceSubscriptions\":{uris}}}"), None)
        }
        ModernStep::Retry { request_state, responses } => {
            let responses: Vec<_> = responses.iter().map(|(k, v)| format!("{k}={v}")).collect();
            (format!("retry {request_state} {}", responses.join(" ")), None)
        }
        ModernStep::Refuse(refusal) => (format!("refuse {} {refusal}", refusal.code.as_str()), None),
    }
}

fn modern_answer(case: &Case, name: &str, text: &str) {
    let client = case.client();
    let needed =
        match bridge::modern_answer_to_legacy(&response(text), case.get("method").expect(name), &client) {
            Ok(LegacyAnswer::Final(body)) => {
                return assert_eq!(Some(&*utf8(body)), case.get("out"), "{name}");
            }
            Ok(LegacyAnswer::NeedsInput(needed)) => needed,
            Err(fault) => return assert_eq!(Some(&*fault.to_string()), case.get("error"), "{name}"),
        };
    let asked: Vec<_> = needed.requests.iter().map(|r| utf8(r.to_legacy("9", client.revision))).collect();
    assert_eq!(json!(asked), case.0["ask"], "{name}");
    let answers = case.0["answers"].as_array().expect(name).iter().map(|a| response(a.as_str().expect(name)));
    let answers: Vec<_> = needed.requests.iter().map(|r| r.key.clone()).zip(answers).collect();
    let original = request(case.get("original").expect(name));
    match needed.retry(&original, "\"r\"", &answers) {
        Ok(body) => assert_eq!(Some(&*utf8(body)), case.get("retry"), "{name}"),
        Err(fault) => assert_eq!(Some(&*fault.to_string()), case.get("retry_error"), "{name}"),
    }
}

#[test]
fn each_side_is_introduced_to_the_other() {
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{"roots":{"listChanged":true}},"clientInfo":{"name":"c","version":"1"}}}"#;
    let (client, asked) = ClientFacts::from_initialize(&request(initialize)).expect("facts");
    assert_eq!((client.revision, &*asked), (Revision::V2025_06_18, "2025-06-18"));

    let discover = r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{},"extensions":{"io.modelcontextprotocol/tasks":{}}},"instructions":"i","ttlMs":1,"cacheScope":"public","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"2"}}}"#;
    let modern = ServerFacts::from_discover_result(discover).expect("facts");
    assert_eq!(modern.versions, ["2026-07-28"]);
    assert_eq!(
        modern.initialize_result(client.revision),
        r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"2"},"instructions":"i"}"#
    );
    let listen =
        utf8(bridge::listen_request("5", &client, &SubscriptionFilter { tools: true, ..Default::default() }));
    let listen = request(&listen);
    assert_eq!(listen.revision(), Some(Revision::LATEST));
    let again = SubscriptionFilter::from_request(&listen).expect("a filter");
    assert!(again.tools && !again.prompts && again.uris.is_empty());

    let legacy = ServerFacts::from_initialize_result(
        r#"{"protocolVersion":"2025-11-25","capabilities":{"logging":{},"tasks":{"list":{}}},"serverInfo":{"name":"s","version":"2"}}"#,
    )
    .expect("facts");
    assert_eq!(
        legacy.discover_result(&[Revision::LATEST]),
        r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"logging":{}},"ttlMs":0,"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"2"}}}"#
    );
    let hello = ClientFacts { capabilities: r#"{"sampling":{},"extensions":{"a/b":{}}}"#.into(), ..client };
    assert_eq!(
        utf8(bridge::initialize_request("0", &hello)),
        r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{"sampling":{}},"clientInfo":{"name":"c","version":"1"}}}"#
    );
}

#[test]
fn what_a_side_says_of_itself_is_checked() {
    for (text, reason) in [
        (
            "{",
            "the server's description of itself is not JSON: byte 1: the text ends where a name in quotes is expected",
        ),
        ("{}", "protocolVersion must be a string"),
        (r#"{"protocolVersion":"x"}"#, "capabilities must be an object"),
        (r#"{"protocolVersion":"x","capabilities":[]}"#, "capabilities must be an object"),
    ] {
        assert_eq!(ServerFacts::from_initialize_result(text).expect_err(text).to_string(), reason);
    }
    for text in ["{}", r#"{"supportedVersions":7,"capabilities":{}}"#, r#"{"supportedVersions":[]}"#] {
        assert!(ServerFacts::from_discover_result(text).is_err(), "{text}");
    }
    for params in
        ["{}", r#"{"protocolVersion":7}"#, r#"{"protocolVersion":"x","capabilities":{},"clientInfo":[]}"#]
    {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{params}}}"#);
        assert!(ClientFacts::from_initialize(&request(&text)).is_err(), "{text}");
    }
}

#[test]
fn a_client_is_asked_only_in_the_modes_that_it_declared() {
    let form = r#"{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{"message":"m"}}"#;
    let url =
        r#"{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{"mode":"url","message":"m"}}"#;
    let roots = r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#;
    for (capabilities, expected) in [
        ("{}", [false, false, false]),
        (r#"{"elicitation":{}}"#, [true, false, false]),
        (r#"{"elicitation":{"url":{}},"roots":{}}"#, [false, true, true]),
        (r#"{"elicitation":{"form":{},"url":{}}}"#, [true, true, false]),
    ] {
        let facts = ClientFacts { capabilities: capabilities.into(), ..Case(json!({})).client() };
        assert_eq!([form, url, roots].map(|q| facts.can_answer(&request(q))), expected, "{capabilities}");
    }
}
