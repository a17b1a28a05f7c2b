//! Golden files of the model forms: each folder below `tests/data/model` holds what goes in and what must
//! come out. `CASTRA_BLESS=1` writes what comes out, for a person to read and to commit.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may fail
#![allow(clippy::disallowed_methods)] // the cases are files

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use castra_core::{Protocol, Refusal, RefusalCode, Step, Timestamp};
use castra_protocol::{
    json,
    model::{
        Api, Asked, Form, ModelEntry, ModelLimits, Prepared, RefusalNotes, RequestFacts, Target, answer,
        models_entry, models_list, parse_request, prepare, provider_error, refusal_answer, replace_calls,
    },
};
use serde_json::{Value, json};

const NOW: u64 = 1_700_000_000;

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/model").join(folder)
}

/// The cases of a folder: name and bytes of every file that ends so.
fn cases(folder: &Path, ending: &str) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut found: Vec<_> = files
        .filter_map(|file| {
            let path = file.expect("a file").path();
            let name = path.file_name()?.to_str()?.strip_suffix(ending)?.to_string();
            Some((name, fs::read(&path).expect("readable")))
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no cases in {}", folder.display());
    found
}

fn folders(parent: &str) -> Vec<(String, PathBuf)> {
    let mut found: Vec<_> = fs::read_dir(data(parent))
        .expect("cases")
        .map(|entry| entry.expect("a folder").path())
        .map(|path| (path.file_name().and_then(|n| n.to_str()).expect("a name").to_string(), path))
        .collect();
    found.sort();
    found
}

/// Compares with the file, or writes it.
fn expect(path: &Path, got: &[u8]) {
    if std::env::var_os("CASTRA_BLESS").is_some() {
        fs::write(path, got).expect("writable");
    }
    let expected = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(got), text(&expected), "{}", path.display());
}

/// Written so that a person can read it, with the members in their order and numbers as they are.
fn pretty(body: &[u8]) -> String {
    let text = json::check(body, 128).expect("strict JSON");
    let mut out = String::new();
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    };
    let mut chars = text.chars().filter(|c| *c != '\r').peekable();
    while let Some(c) = chars.next() {
        if quoted {
            out.push(c);
            (quoted, escaped) = (c != '"' || escaped, c == '\\' && !escaped);
            continue;
        }
        match c {
            ' ' | '\n' | '\t' => {}
            '"' => {
                out.push(c);
                quoted = true;
            }
            '{' | '[' => {
                out.push(c);
                while chars.peek().is_some_and(|c| c.is_whitespace()) {
                    chars.next();
                }
                if chars.peek().is_some_and(|n| matches!(n, '}' | ']')) {
                    out.extend(chars.next());
                } else {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth -= 1;
                newline(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => out.push(c),
        }
    }
    out.push('\n');
    out
}

fn api(word: &str) -> Api {
    match word {
        "chat" => Api::Chat,
        "responses" => Api::Responses,
        "embeddings" => Api::Embeddings,
        "messages" => Api::Messages,
        "count-tokens" => Api::CountTokens,
        _ => panic!("no API {word}"),
    }
}

fn form(word: &str) -> Form {
    match word {
        "chat" | "embeddings" => Form::OpenAiChat,
        "responses" => Form::OpenAiResponses,
        "messages" | "count-tokens" => Form::AnthropicMessages,
        "gemini" => Form::Gemini,
        _ => panic!("no form {word}"),
    }
}

/// The two sides of a folder's name.
fn sides(name: &str) -> (&str, &str) {
    name.split_once("-to-").unwrap_or_else(|| panic!("{name} is not FROM-to-TO"))
}

fn limits() -> ModelLimits {
    ModelLimits::default()
}

/// Prepares a request for the target of a case.
fn prepared<'a>(api: Api, form: Form, request: &'a [u8], target: &Value) -> Result<Prepared<'a>, String> {
    let params: Vec<(String, String)> = target["params"].as_object().map_or(Vec::new(), |params| {
        params.iter().map(|(name, value)| (name.clone(), value.to_string())).collect()
    });
    let tools: Option<Vec<String>> =
        target["tools"].as_array().map(|t| t.iter().map(|t| t.as_str().expect("a name").into()).collect());
    let target = Target {
        form,
        compatible: target["compatible"] == true,
        model: target["model"].as_str().unwrap_or("provider-model"),
        params: &params,
        output_max: target["output_max"].as_u64(),
        system: target["system"].as_str(),
        tools: tools.as_deref(),
        now: NOW,
    };
    let request = parse_request(api, request, &limits()).map_err(|e| describe(&e))?;
    prepare(&request, &target).map_err(|e| describe(&e))
}

fn describe(error: &castra_protocol::model::ModelError) -> String {
    format!("{}: {error}", error.field().unwrap_or_default())
}

#[test]
fn requests_are_prepared() {
    for (name, folder) in folders("request") {
        let (from, to) = sides(&name);
        let (api, form) = (api(from), form(to));
        for (case, request) in cases(&folder, ".request.json") {
            let target = fs::read(folder.join(format!("{case}.target.json")));
            let target = target.map_or(Value::Null, |t| serde_json::from_slice(&t).expect("a target"));
            let prepared =
                prepared(api, form, &request, &target).unwrap_or_else(|e| panic!("{name}/{case}: {e}"));
            let expected = folder.join(format!("{case}.expected.json"));
            if api.native_form() == form {
                assert!(prepared.set_aside.is_empty());
                expect(&expected, &prepared.body);
                continue;
            }
            let max = prepared.max_output_tokens.map_or("null".into(), |m| m.to_string());
            let whole = format!(
                "{{\"endpoint\":{},\"max_output_tokens\":{max},\"set_aside\":{},\"body\":{}}}",
                json!(prepared.endpoint),
                json!(prepared.set_aside),
                std::str::from_utf8(&prepared.body).expect("text"),
            );
            expect(&expected, pretty(whole.as_bytes()).as_bytes());
        }
    }
}

#[test]
fn what_cannot_be_translated_is_refused_by_name() {
    for (name, folder) in folders("request") {
        let (from, to) = sides(&name);
        let Ok(refused) = fs::read(folder.join("refused.json")) else { continue };
        let refused: Vec<Value> = serde_json::from_slice(&refused).expect("cases");
        let mut said = String::new();
        for case in refused {
            let request = case["request"].to_string();
            let error = match prepared(api(from), form(to), request.as_bytes(), &Value::Null) {
                Ok(prepared) => {
                    panic!("{name}: {request} became {}", String::from_utf8_lossy(&prepared.body))
                }
                Err(error) => error,
            };
            let (field, message) = error.split_once(": ").expect("field and message");
            assert_eq!(field, case["field"].as_str().expect("a field"), "{name}: {request}: {error}");
            said.push_str(message);
            said.push('\n');
        }
        expect(&folder.join("refused.txt"), said.as_bytes());
    }
}

fn facts(api: Api, form: Form) -> RequestFacts {
    RequestFacts {
        api,
        form,
        model: "assistant".into(),
        stream: false,
        usage_asked: false,
        created: NOW,
        asked: Asked::Nothing,
    }
}

#[test]
fn answers_are_read_and_translated() {
    for (name, folder) in folders("answer") {
        let (from, to) = sides(&name);
        let facts = facts(api(to), form(from));
        for (case, body) in cases(&folder, ".answer.json") {
            let answer = answer(&facts, &body, &limits()).unwrap_or_else(|e| panic!("{name}/{case}: {e}"));
            let calls: Vec<Value> = answer
                .calls
                .iter()
                .map(|c| json!([c.choice, c.call.id, c.call.name, c.call.arguments]))
                .collect();
            let usage = answer.usage.map(|u| {
                json!([
                    u.input_tokens,
                    u.output_tokens,
                    u.cache_read_tokens,
                    u.cache_write_tokens,
                    u.reasoning_tokens
                ])
            });
            let whole = format!(
                "{{\"stop\":{},\"model\":{},\"usage\":{},\"calls\":{},\"body\":{}}}",
                json!(answer.stop.map(|s| s.as_str())),
                json!(answer.model),
                json!(usage),
                json!(calls),
                std::str::from_utf8(&answer.body).expect("text"),
            );
            expect(&folder.join(format!("{case}.expected.json")), pretty(whole.as_bytes()).as_bytes());
            if facts.api.native_form() == facts.form {
                assert_eq!(*answer.body, *body, "{name}/{case}");
            }
        }
    }
}

#[test]
fn what_is_not_an_answer_is_an_error() {
    for (name, folder) in folders("answer") {
        let (from, to) = sides(&name);
        let Ok(refused) = fs::read(folder.join("refused.json")) else { continue };
        let refused: Vec<Value> = serde_json::from_slice(&refused).expect("cases");
        let mut said = String::new();
        for case in refused {
            let body = case["answer"].as_str().expect("an answer");
            match answer(&facts(api(to), form(from)), body.as_bytes(), &limits()) {
                Ok(answer) => panic!("{name}: {} became {answer:?}", case["name"]),
                Err(error) => {
                    assert_eq!(error.refusal().code, RefusalCode::UpstreamMisbehaved, "{error}");
                    said.push_str(&format!("{}: {error}\n", case["name"].as_str().expect("a name")));
                }
            }
        }
        expect(&folder.join("refused.txt"), said.as_bytes());
    }
}

#[test]
fn refused_calls_become_text() {
    for (name, folder) in folders("replace") {
        let api = api(&name);
        for (case, body) in cases(&folder, ".answer.json") {
            let calls = answer(&facts(api, api.native_form()), &body, &limits()).expect(&case).calls;
            let verdicts: Vec<_> = calls
                .iter()
                .map(|c| (!c.call.name.starts_with("keep_")).then(|| format!("No \"{}\" here.", c.call.name)))
                .collect();
            let replaced = replace_calls(api, &body, &verdicts, &limits()).expect(&case);
            expect(&folder.join(format!("{case}.expected.json")), &replaced);
            let left = answer(&facts(api, api.native_form()), &replaced, &limits()).expect(&case).calls;
            assert_eq!(left.len(), verdicts.iter().filter(|v| v.is_none()).count(), "{name}/{case}");
            let wrong = replace_calls(api, &body, &[Some("a".into()), None, None, None, None], &limits());
            assert!(wrong.is_err(), "{name}/{case}");
        }
    }
}

#[test]
fn errors_of_providers_are_told_in_the_callers_form() {
    for (name, folder) in folders("error") {
        let (from, to) = sides(&name);
        for (case, body) in cases(&folder, ".provider") {
            let (status, _) = case.split_once('-').expect("a status");
            let error = provider_error(&facts(api(to), form(from)), status.parse().expect("a status"), &body);
            let whole =
                format!("{{\"status\":{},\"body\":{}}}", error.status, String::from_utf8_lossy(&error.body));
            expect(&folder.join(format!("{case}.expected.json")), pretty(whole.as_bytes()).as_bytes());
        }
    }
}

#[test]
fn refusals_are_told_in_the_callers_form() {
    let policies: [Arc<str>; 1] = ["no-models".into()];
    let refusal = Refusal::new(Step::Decide, RefusalCode::OverBudget, "The \"day\" budget is used up")
        .advise("Ask again later")
        .retry_after(std::time::Duration::from_secs(90));
    let extra = [("budget", "{\"which\":\"day\"}".to_string())];
    let notes =
        RefusalNotes { policies: &policies, receipt: Some("r1"), field: Some("messages[0]"), extra: &extra };
    let castra = json!({
        "code": "over-budget", "reason": "The \"day\" budget is used up", "advice": "Ask again later",
        "policies": ["no-models"], "receipt": "r1", "retry_after": 90, "budget": {"which": "day"},
    });
    let message = "The \"day\" budget is used up. Ask again later";
    let openai = refusal_answer(Protocol::OpenAi, &refusal, &notes);
    assert_eq!(openai.status, 429);
    assert_eq!(
        serde_json::from_slice::<Value>(&openai.body).expect("JSON"),
        json!({"error": {"message": message, "type": "rate_limit_error", "param": "messages[0]",
               "code": "over-budget", "castra": castra}})
    );
    let anthropic = refusal_answer(Protocol::Anthropic, &refusal, &notes);
    assert_eq!(
        serde_json::from_slice::<Value>(&anthropic.body).expect("JSON"),
        json!({"type": "error", "error": {"type": "rate_limit_error", "message": message, "castra": castra}})
    );
}

#[test]
fn models_are_listed_in_both_forms() {
    let created = Timestamp::from_secs(1_700_000_000);
    let models = [ModelEntry { id: "assistant", created }, ModelEntry { id: "small", created }];
    let read = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).expect("JSON");
    let openai = |id| json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "castra"});
    assert_eq!(
        read(models_list(Protocol::OpenAi, &models)),
        json!({"object": "list", "data": [openai("assistant"), openai("small")]})
    );
    assert_eq!(read(models_entry(Protocol::OpenAi, &models[1])), openai("small"));
    let anthropic = |id| {
        json!({"type": "model", "id": id, "display_name": id, "created_at": "2023-11-14T22:13:20.000000Z",
               "lifecycle": "active"})
    };
    assert_eq!(
        read(models_list(Protocol::Anthropic, &models)),
        json!({"data": [anthropic("assistant"), anthropic("small")], "has_more": false,
               "first_id": "assistant", "last_id": "small"})
    );
    assert_eq!(read(models_list(Protocol::Anthropic, &[]))["first_id"], Value::Null);
}

#[test]
fn what_the_gate_must_understand_of_a_request_must_be_there() {
    let fault = |api, text: &str| match parse_request(api, text.as_bytes(), &limits()) {
        Ok(request) => panic!("{text} was taken: {request:?}"),
        Err(error) => error.to_string(),
    };
    for (api, text, expected) in [
        (
            Api::Chat,
            "",
            "the request is not JSON as this gate takes it: byte 0: the text ends where a value is expected",
        ),
        (Api::Chat, "[]", "`the request` must be an object"),
        (Api::Chat, "{\"messages\":[]}", "`model` is missing; it must be a string"),
        (Api::Chat, "{\"model\":1,\"messages\":[]}", "`model` must be a string"),
        (Api::Chat, "{\"model\":\"m\"}", "`messages` is missing; it must be an array of messages"),
        (Api::Messages, "{\"model\":\"m\",\"messages\":\"hi\"}", "`messages` must be an array of messages"),
        (Api::Embeddings, "{\"model\":\"m\",\"input\":{}}", "`input` must be a string or an array"),
        (Api::Chat, "{\"model\":\"m\",\"messages\":[],\"stream\":1}", "`stream` must be true or false"),
        (Api::Chat, "{\"model\":\"m\",\"messages\":[],\"n\":0}", "`n` must be an integer from 1 to 128"),
        (Api::Chat, "{\"model\":\"m\",\"messages\":[],\"n\":129}", "`n` must be an integer from 1 to 128"),
        (
            Api::Chat,
            "{\"model\":\"m\",\"messages\":[],\"max_tokens\":-1}",
            "`max_tokens` must be an integer that is not negative",
        ),
        (
            Api::Chat,
            "{\"model\":\"m\",\"model\":\"n\",\"messages\":[]}",
            "the request is not JSON as this gate takes it: byte 13: the name \"model\" stands twice in one object",
        ),
        (
            Api::Chat,
            "{\"model\":\"m\",\"messages\":[],\"tools\":[{\"function\":{}}]}",
            "`tools[0].function.name` is missing; it must be a string",
        ),
        (Api::Messages, "{\"model\":\"m\",\"messages\":[],\"tools\":{}}", "`tools` must be an array"),
    ] {
        assert_eq!(fault(api, text), expected, "{text}");
    }
    let many = vec!["{\"name\":\"t\"}"; 1025].join(",");
    let text = format!("{{\"model\":\"m\",\"messages\":[],\"tools\":[{many}]}}");
    assert_eq!(fault(Api::Messages, &text), "`tools` holds more than 1024 entries");
    let deep = format!("{{\"model\":\"m\",\"messages\":[{}{}]}}", "[".repeat(64), "]".repeat(64));
    assert!(fault(Api::Chat, &deep).ends_with("nested deeper than 64 levels"));
}

#[test]
fn a_request_is_seen_as_it_is() {
    let image = "A".repeat(4000);
    let text = format!(
        "{{\"model\":\"as\\u0073istant\",\"max_tokens\":7,\"max_completion_tokens\":9,\"n\":3,\"stream\":true,\
         \"stream_options\":{{\"include_usage\":true}},\"user\":\"u\",\"tools\":[{{\"type\":\"function\",\
         \"function\":{{\"name\":\"a__b\"}}}},{{\"type\":\"custom\",\"custom\":{{\"name\":\"c\"}}}}],\
         \"messages\":[{{\"role\":\"user\",\"content\":[{{\"type\":\"image_url\",\"image_url\":\
         {{\"url\":\"data:image/png;base64,{image}\"}}}},{{\"type\":\"file\",\"file\":{{}}}}]}}]}}"
    );
    let request = parse_request(Api::Chat, text.as_bytes(), &limits()).expect("a request");
    assert_eq!(request.model, "assistant");
    assert!(request.stream && request.usage_asked);
    assert_eq!((request.max_output_tokens, request.choices), (Some(9), 3));
    assert_eq!(request.tools, ["a__b", "c"]);
    assert_eq!((request.media.images, request.media.files, request.media.audio), (1, 1, 0));
    assert_eq!(request.end_user.as_deref(), Some("u"));
    assert!(request.text_bytes < 500 && request.input_estimate() > 21_600);
    // What only looks like media counts as text.
    let text = format!("{{\"model\":\"m\",\"messages\":[{{\"data\":\"{}\"}}]}}", "ab ".repeat(1000));
    let request = parse_request(Api::Messages, text.as_bytes(), &limits()).expect("a request");
    assert!(request.input_estimate() >= 1000);
}

#[test]
fn a_version_bounds_its_tools_and_its_parameters() {
    let request = br#"{"model":"m","messages":[],"tools":[{"name":"a"},{"name":"b"}]}"#;
    let error = prepared(Api::Messages, Form::AnthropicMessages, request, &json!({"tools": ["a"]}));
    let error = error.expect_err("b is foreign");
    assert_eq!(
        error,
        "tools[1]: the tool `b` (`tools[1]`) is not in the tool set of this version of the model"
    );
    assert!(castra_protocol::model::check_param("temperature").is_ok());
    assert!(castra_protocol::model::check_param("messages").is_err());
    let unserved =
        prepared(Api::CountTokens, Form::OpenAiChat, br#"{"model":"m","messages":[]}"#, &Value::Null);
    let unserved = unserved.expect_err("nothing counts there");
    assert_eq!(unserved, ": no count-tokens in the form of this model's provider (OpenAI chat completions)");
}

#[test]
fn an_answer_has_so_many_choices_and_calls_and_no_more() {
    let call = r#"{"id":"a","function":{"name":"f","arguments":"{}"}}"#;
    let chat = |choices: usize, calls: usize| {
        let calls = vec![call; calls].join(",");
        let choice = format!("{{\"message\":{{\"tool_calls\":[{calls}]}},\"finish_reason\":\"stop\"}}");
        format!("{{\"choices\":[{}]}}", vec![choice; choices].join(","))
    };
    for (api, choices, calls, fault) in [
        (Api::Chat, 129, 0, "`choices` holds more than 128 entries"),
        (Api::Chat, 1, 1025, "it has more than 1024 tool calls"),
        (Api::Messages, 1, 1025, "it has more than 1024 tool calls"),
    ] {
        let body = chat(choices, calls);
        let error = answer(&facts(api, Form::OpenAiChat), body.as_bytes(), &limits());
        let error = error.expect_err("too many").to_string();
        assert!(error.ends_with(fault), "{error}");
    }
    assert!(answer(&facts(Api::Chat, Form::OpenAiChat), chat(128, 8).as_bytes(), &limits()).is_ok());
}
