//! What golden files cannot show: limits, modes, and steps in their order.

use castra_core::StreamMode;
use castra_protocol::model::{
    Api, Form, ToolCall,
    stream::{
        CallVerdict, Framing, SaidText, Step, StreamEnd, StreamEngine, StreamError, StreamOptions,
        UsageSource,
    },
};

use crate::harness::{Literal, SECRET, facts, options, read, run, run_whole};

fn chunk(delta: &str, finish: &str) -> String {
    format!(
        "data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
    )
}

fn content(text: &str) -> String {
    chunk(&format!("{{\"content\":{}}}", serde_json::json!(text)), "null")
}

fn engine(mode: StreamMode) -> StreamEngine<Literal> {
    StreamEngine::new(&facts(Form::OpenAiChat, Api::Chat), options(mode), Box::new(Literal::default))
}

fn failed(options: StreamOptions, bytes: &[u8]) -> StreamError {
    let (out, summary) = run(&facts(Form::OpenAiChat, Api::Chat), options, [bytes]);
    assert!(String::from_utf8_lossy(&out).ends_with("\n\ndata: [DONE]\n\n"), "the stream ends well");
    match summary.end {
        StreamEnd::Failed(error) => error,
        StreamEnd::Complete => panic!("it is complete"),
    }
}

#[test]
fn everything_that_does_not_end_is_ended() {
    let mut short = options(StreamMode::Window);
    short.limits.event_bytes_max = 200;
    short.limits.call_bytes_max = 300;
    short.limits.stream_bytes_max = 3000;
    let long_event = format!("data: {}", "x".repeat(300));
    assert_eq!(failed(short.clone(), long_event.as_bytes()), StreamError::EventTooLong(200));
    let comments = ": on and on\n\n".repeat(400);
    assert_eq!(failed(short.clone(), comments.as_bytes()), StreamError::StreamTooLong(3000));
    let piece = r#"{"tool_calls":[{"index":0,"id":"","function":{"name":"","arguments":"[[[[[[[[[["}}]}"#;
    let begin = r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}"#;
    let mut roomy = short.clone();
    roomy.limits.stream_bytes_max = 1 << 20;
    let call = chunk(begin, "null") + &chunk(piece, "null").repeat(40);
    assert_eq!(failed(roomy.clone(), call.as_bytes()), StreamError::CallTooLong(300));
    // Events that wait for a call are bounded as well.
    let waiting = chunk(begin, "null") + &content("tick").repeat(40);
    assert_eq!(failed(roomy, waiting.as_bytes()), StreamError::CallTooLong(300));
    let kinds: String = (0..100).map(|n| chunk(&format!("{{\"x{n}\":\"y\"}}"), "null")).collect();
    assert_eq!(failed(options(StreamMode::Window), kinds.as_bytes()), StreamError::TooMany("kinds of text"));
    let calls: String = (0..300)
        .map(|n| chunk(&format!(r#"{{"tool_calls":[{{"index":{n},"function":{{"name":"f"}}}}]}}"#), "null"))
        .collect();
    assert_eq!(failed(options(StreamMode::Window), calls.as_bytes()), StreamError::TooMany("tool calls"));
}

#[test]
fn what_is_not_in_its_form_is_refused() {
    for (bytes, code) in [
        ("{\"error\": \"no stream\"}".to_owned(), "not_a_stream"),
        ("data: nonsense\n\n".into(), "stream_malformed"),
        ("data: {\"choices\":[],\"choices\":[]}\n\n".into(), "stream_malformed"),
        (chunk("{\"content\":\"\\ud83d\"}", "null"), "stream_malformed"),
        (chunk("{\"role\":\"tool\"}", "null"), "stream_role"),
        (chunk("{}", "\"stop\"") + &content("and more"), "stream_malformed"),
        (content("no end"), "stream_truncated"),
        (String::new(), "stream_truncated"),
        (
            chunk(
                r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]}"#,
                "null",
            ) + &chunk(r#"{"tool_calls":[{"index":0,"function":{"name":"g"}}]}"#, "null"),
            "tool_call_changed",
        ),
        (
            chunk(
                r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]}"#,
                "\"tool_calls\"",
            ) + &chunk(r#"{"tool_calls":[{"index":0,"function":{"arguments":"x"}}]}"#, "null"),
            "tool_call_changed",
        ),
    ] {
        assert_eq!(failed(options(StreamMode::Window), bytes.as_bytes()).code(), code, "{bytes}");
    }
    let latin = [b"data: {\"id\":\"".as_slice(), &[0xe9], b"\"}\n\n"].concat();
    assert_eq!(failed(options(StreamMode::Window), &latin), StreamError::NotUtf8);
}

#[test]
fn a_name_that_is_said_twice_leaves_once() {
    let call = |arguments: &str| {
        let call = format!(
            r#"{{"tool_calls":[{{"index":0,"id":"a","type":"function","function":{{"name":"f","arguments":"{arguments}"}}}}]}}"#
        );
        chunk(&call, "null")
    };
    let stream = chunk("{\"role\":\"assistant\"}", "null")
        + &call("{\\\"a\\\":")
        + &call("1}")
        + &chunk("{}", "\"tool_calls\"");
    let (out, _) = run_whole(Form::OpenAiChat, Api::Chat, stream.as_bytes());
    assert_eq!(out.matches("\"name\":\"f\"").count(), 1, "{out}");
    assert_eq!(read(Api::Chat, out.as_bytes()).calls, [("f".to_owned(), "{\"a\":1}".to_owned())]);
}

#[test]
fn a_call_is_asked_for_until_it_is_decided_and_nothing_overtakes_it() {
    let mut engine = engine(StreamMode::Window);
    engine.feed(content("first").as_bytes());
    let call =
        r#"{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]}"#;
    engine.feed(chunk(call, "null").as_bytes());
    assert!(matches!(engine.next(), Step::Out(_)), "what came before leaves");
    assert!(matches!(engine.next(), Step::Need), "the call may go on");
    engine.feed((content("second") + &chunk("{}", "\"tool_calls\"") + ": alive\n\n").as_bytes());
    let asked = ToolCall { id: "a".into(), name: "f".into(), arguments: "{}".into() };
    for _ in 0..2 {
        match engine.next() {
            Step::Decide(call) => assert_eq!(call, asked),
            other => panic!("{other:?}"),
        }
    }
    engine.feed(b"data: [DONE]\n\n");
    assert!(matches!(engine.next(), Step::Decide(_)));
    engine.decided(CallVerdict::Release);
    let Step::Out(bytes) = engine.next() else { panic!("all in one piece") };
    let out = String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let place = |what: &str| out.find(what).unwrap_or_else(|| panic!("{what} in {out}"));
    assert!(place("\"name\":\"f\"") < place("second") && place("second") < place("[DONE]"));
    let Step::End(summary) = engine.next() else { panic!("the end") };
    assert_eq!(summary.calls, [(asked, Some(CallVerdict::Release))]);
    assert!(matches!(engine.next(), Step::End(_)), "the end stays");
}

#[test]
fn a_stream_that_is_held_leaves_at_its_end_or_not_at_all() {
    let text = content("so far");
    let mut held = engine(StreamMode::Hold);
    held.feed(text.as_bytes());
    assert!(matches!(held.next(), Step::Need));
    held.feed((chunk("{}", "\"stop\"") + "data: [DONE]\n\n").as_bytes());
    assert!(matches!(held.next(), Step::Out(_)));

    let mut cut = engine(StreamMode::Hold);
    cut.feed(text.as_bytes());
    cut.cut(StreamError::Cut { code: "quarantined", message: "This agent is in quarantine.".into() });
    let Step::Out(bytes) = cut.next() else { panic!("the error") };
    assert_eq!(
        bytes,
        "data: {\"error\":{\"message\":\"This agent is in quarantine.\",\"type\":\"api_error\",\"param\":null,\"code\":\"quarantined\"}}\n\ndata: [DONE]\n\n"
    );
    cut.feed(text.as_bytes());
    assert!(matches!(cut.next(), Step::End(_)), "what comes later is passed over");
}

#[test]
fn a_stream_that_passes_is_counted_and_its_calls_are_decided() {
    let call = r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"forbidden","arguments":"{}"}}]}"#;
    let text = content(SECRET);
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":6}}\n\n";
    let stream =
        text.clone() + &chunk(call, "null") + &chunk("{}", "\"tool_calls\"") + usage + "data: [DONE]\n\n";
    let mut facts = facts(Form::OpenAiChat, Api::Chat);
    facts.usage_asked = false;
    let (out, summary) = run(&facts, options(StreamMode::Pass), [stream.as_bytes()]);
    let out = String::from_utf8(out).expect("UTF-8");
    assert!(out.starts_with(&text), "it is not inspected");
    assert!(out.contains("was refused") && out.contains("\"stop\"") && !out.contains("tool_calls"), "{out}");
    assert!(!out.contains("usage"), "the caller did not ask for it");
    assert_eq!((summary.usage.input_tokens, summary.usage.output_tokens), (5, 6));
    assert_eq!(summary.usage_source, UsageSource::Reported);
    assert!(summary.findings.is_empty());
}

#[test]
fn lines_of_json_are_framed_by_their_ends() {
    assert_eq!(Framing::of("text/event-stream; charset=utf-8"), Some(Framing::Sse));
    assert_eq!(Framing::of("application/x-ndjson"), Some(Framing::NdJson));
    assert_eq!(Framing::of("text/html"), None);
    let mut lines = options(StreamMode::Window);
    lines.framing = Framing::NdJson;
    let data = |event: String| event.trim().trim_start_matches("data: ").to_owned();
    let clean = [data(content("a b")), data(chunk("{}", "\"stop\""))];
    let stream = format!("{}\r\n\n{}", clean[0], clean[1]);
    let facts = facts(Form::OpenAiChat, Api::Chat);
    let (out, summary) = run(&facts, lines.clone(), stream.as_bytes().chunks(3));
    assert_eq!(String::from_utf8_lossy(&out), stream + "\n");
    assert_eq!(summary.end, StreamEnd::Complete);
    let secret = format!("{}\n{}\n", data(content(SECRET)), clean[1]);
    let (out, _) = run(&facts, lines, [secret.as_bytes()]);
    assert_eq!(String::from_utf8_lossy(&out), format!("{}\n{}\n", data(content("[masked]")), clean[1]));
}

#[test]
fn text_beyond_what_is_kept_is_hashed() {
    let mut few = options(StreamMode::Window);
    few.limits.text_kept_max = 10;
    let stream = content("twelve bytes").repeat(3) + &chunk("{}", "\"stop\"");
    let (_, summary) = run(&facts(Form::OpenAiChat, Api::Chat), few, [stream.as_bytes()]);
    let SaidText::Digest { sha256, bytes } = summary.text else { panic!("{:?}", summary.text) };
    assert_eq!(bytes, 36);
    assert_eq!(sha256.to_hex(), "c053804fea3a623e06b0e1c16a2eb62ff74d09af9e5f4c9a696ef8a0872b09a2");
}
