//! Streams through the engine with the real inspector: what a client joins is what the inspector makes of
//! the whole text. The two know each other only here; the engine's own tests have a scanner of theirs.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

use std::sync::LazyLock;

use castra_core::StreamMode;
use castra_inspect::{Inspector, Settings};
use castra_protocol::{
    model::{
        Api, Asked, Form, RequestFacts,
        stream::{CallVerdict, Framing, Step, StreamEnd, StreamEngine, StreamLimits, StreamOptions},
    },
    sse,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Its patterns are compiled once.
static INSPECTOR: LazyLock<Inspector> =
    LazyLock::new(|| Inspector::new(&Settings::default()).expect("the built-in list"));

/// Secrets that the built-in list knows, whole and in halves, and words around them.
fn text() -> impl Strategy<Value = String> {
    let secret = prop_oneof![
        "AKIA[A-Z2-7]{16}",
        "ghp_[A-Za-z0-9]{36}",
        "sk-ant-api03-[A-Za-z0-9]{90}",
        Just("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----".to_owned()),
    ];
    let half =
        (secret.clone(), any::<prop::sample::Index>()).prop_map(|(s, at)| s[..at.index(s.len())].to_owned());
    let piece = prop_oneof![secret, half, "[a-z =:\"'\n]{0,12}", "[ -~ü漢]{0,8}"];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.join(" "))
}

fn chat(pieces: &[&str]) -> String {
    let event = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        format!("data: {}\n\n", json!({"id": "c", "created": 1, "model": "m", "choices": [choice]}))
    };
    let mut stream = event(json!({"role": "assistant", "content": ""}), Value::Null);
    for piece in pieces {
        stream += &event(json!({"content": piece}), Value::Null);
    }
    stream + &event(json!({}), json!("stop")) + "data: [DONE]\n\n"
}

/// What a client joins.
fn joined(api: Api, bytes: &[u8]) -> String {
    let mut content = String::new();
    let read = sse::Decoder::new(1 << 24).feed(bytes, |event| {
        let Ok(data) = serde_json::from_str::<Value>(event.data) else { return };
        let more = match api {
            Api::Chat => &data["choices"][0]["delta"]["content"],
            Api::Messages => &data["delta"]["text"],
            _ if data["type"] == "response.output_text.delta" => &data["delta"],
            _ => return,
        };
        content += more.as_str().unwrap_or_default();
    });
    read.expect("events");
    content
}

fn run(api: Api, inspector: &Inspector, chunks: &[&[u8]]) -> Vec<u8> {
    let facts = RequestFacts {
        api,
        form: Form::OpenAiChat,
        model: "m".into(),
        stream: true,
        usage_asked: false,
        created: 1,
        asked: Asked::Nothing,
    };
    let options = StreamOptions {
        mode: StreamMode::Window,
        framing: Framing::Sse,
        limits: StreamLimits::default(),
        input_tokens: 1,
        id: "a".into(),
    };
    let inspector = inspector.clone();
    let mut engine = StreamEngine::new(&facts, options, Box::new(move || inspector.scanner()));
    let (mut chunks, mut out) = (chunks.iter(), Vec::new());
    loop {
        match engine.next() {
            Step::Out(bytes) => out.extend_from_slice(&bytes),
            Step::Decide(_) => engine.decided(CallVerdict::Release),
            Step::Need => match chunks.next() {
                Some(chunk) => engine.feed(chunk),
                None => engine.finish(),
            },
            Step::End(summary) => {
                assert_eq!(summary.end, StreamEnd::Complete);
                return out;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_masked_stream_is_the_masked_whole(
        text in text(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12), size in 1_usize..400,
        api in prop::sample::select(vec![Api::Chat, Api::Messages, Api::Responses]),
    ) {
        let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| ends[cut.index(ends.len())]).collect();
        cuts.sort_unstable();
        let mut from = 0;
        let mut pieces = Vec::new();
        for to in cuts.into_iter().chain([text.len()]) {
            pieces.push(&text[from..to]);
            from = to;
        }
        let stream = chat(&pieces);
        let chunks: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
        let whole = INSPECTOR.mask_text(&text).and_then(|masked| masked.text).unwrap_or(text);
        prop_assert_eq!(joined(api, &run(api, &INSPECTOR, &chunks)), whole);
    }
}
