//! Golden files of translations that Gemini or the Responses API has a part in: what a caller sends and what a provider gets of it, what the provider
//! answers and what the caller gets of that.
//!
//! Under `tests/data/model/{gemini,responses}/CALLER-to-PROVIDER` stand, per case, `NAME.request.json` with
//! `NAME.prepared.json` (or `NAME.refused.json`), and for some `NAME.answer.json` with
//! `NAME.told.json`. `CASTRA_BLESS=1 cargo test -p castra-protocol --test model_golden` writes the second
//! of each pair anew; look at the difference before you commit it.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may fail
#![allow(clippy::disallowed_methods)] // reads and writes golden files

use std::{
    fs,
    path::{Path, PathBuf},
};

use castra_protocol::model::{
    Api, Form, ModelError, ModelLimits, Prepared, Target, WholeAnswer, answer, parse_request, prepare,
};
use serde_json::{Value, json};

/// The time of every request.
const NOW: u64 = 1_700_000_000;

#[test]
fn every_golden_file_holds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/model");
    let mut cases = 0;
    for group in ["gemini", "responses"] {
        for pair in folders(&root.join(group)) {
            let name = pair.file_name().unwrap().to_str().unwrap().to_owned();
            let (caller, provider) = name.split_once("-to-").unwrap();
            for request in files(&pair, ".request.json") {
                check(api_of(caller), form_of(provider), &request);
                cases += 1;
            }
        }
    }
    assert!(cases > 20, "only {cases} cases were found");
}

fn folders(of: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(of).unwrap().map(|e| e.unwrap().path()).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    found
}

fn files(of: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(of).unwrap().map(|e| e.unwrap().path()).collect();
    found.retain(|path| path.to_str().unwrap().ends_with(suffix));
    found.sort();
    found
}

fn api_of(word: &str) -> Api {
    match word {
        "chat" => Api::Chat,
        "responses" => Api::Responses,
        "messages" => Api::Messages,
        "embeddings" => Api::Embeddings,
        _ => panic!("no API {word}"),
    }
}

fn form_of(word: &str) -> Form {
    match word {
        "chat" => Form::OpenAiChat,
        "responses" => Form::OpenAiResponses,
        "messages" => Form::AnthropicMessages,
        "gemini" => Form::Gemini,
        _ => panic!("no form {word}"),
    }
}

fn check(api: Api, form: Form, path: &Path) {
    let body = fs::read(path).unwrap();
    let limits = ModelLimits::default();
    let request = parse_request(api, &body, &limits).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    // A route named `assistant` has the same model everywhere; any other name is the model's own.
    let model = if request.model == "assistant" { "provider-model" } else { &request.model };
    let target = Target {
        form,
        compatible: false,
        model,
        params: &[],
        output_max: None,
        system: None,
        tools: None,
        now: NOW,
    };
    let prepared = match prepare(&request, &target) {
        Ok(prepared) => {
            same(path, "prepared", &shown(&prepared));
            prepared
        }
        Err(refused) => return same(path, "refused", &refusal(&refused)),
    };
    let answered = sibling(path, "answer");
    if answered.exists() {
        let body = fs::read(&answered).unwrap();
        let told = match answer(&prepared.facts, &body, &limits) {
            Ok(told) => whole(&told),
            Err(refused) => refusal(&refused),
        };
        same(path, "told", &told);
    }
}

fn shown(prepared: &Prepared<'_>) -> Value {
    let body: Value = serde_json::from_slice(&prepared.body).expect("a body is JSON");
    json!({
        "endpoint": prepared.endpoint,
        "max_output_tokens": prepared.max_output_tokens,
        "set_aside": prepared.set_aside,
        "body": body,
    })
}

fn whole(told: &WholeAnswer<'_>) -> Value {
    let body: Value = serde_json::from_slice(&told.body).expect("a body is JSON");
    let calls: Vec<_> =
        told.calls.iter().map(|c| json!([c.call.id, c.call.name, c.call.arguments])).collect();
    json!({
        "stop": told.stop.map(|stop| stop.as_str()),
        "calls": calls,
        "usage": told.usage.map(|u| json!({
            "input": u.input_tokens,
            "output": u.output_tokens,
            "cache_read": u.cache_read_tokens,
            "reasoning": u.reasoning_tokens,
        })),
        "body": body,
    })
}

fn refusal(error: &ModelError) -> Value {
    json!({ "field": error.field(), "reason": error.to_string() })
}

fn sibling(path: &Path, kind: &str) -> PathBuf {
    PathBuf::from(path.to_str().unwrap().replace(".request.json", &format!(".{kind}.json")))
}

fn same(path: &Path, kind: &str, found: &Value) {
    let golden = sibling(path, kind);
    if std::env::var_os("CASTRA_BLESS").is_some() {
        let text = serde_json::to_string_pretty(found).unwrap();
        return fs::write(&golden, format!("{text}\n")).unwrap();
    }
    let text = fs::read_to_string(&golden).unwrap_or_else(|e| panic!("{}: {e}", golden.display()));
    let expected: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(*found, expected, "{}", golden.display());
}
