//! Providers and clients that misbehave: the caller hears of it in its own form, the record says it, and
//! the budget is settled.

use std::time::Duration;

use serde_json::json;

use crate::{
    provider::{self, Does, Says, Speaks},
    rig::{Rig, Wish, eventually},
    server::{self, Server, Step, answer, end, piece},
    stage::{ALL_ASKS, Asks, wish},
};

async fn always(speaks: Speaks, steps: impl Fn() -> Vec<Step> + Send + Sync + 'static) -> Server {
    provider::start(speaks, move |_| Does::Raw(steps())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_provider_are_told_in_the_callers_form() {
    for asks in ALL_ASKS {
        for (status, body, told, kind) in [
            (
                "400 Bad Request",
                r#"{"error":{"message":"too many words","type":"invalid_request_error"}}"#,
                400,
                "error",
            ),
            ("404 Not Found", "<html>no</html>", 404, "error"),
            ("500 Internal Server Error", "oops", 500, "error"),
            (
                "401 Unauthorized",
                r#"{"error":{"message":"bad key s3cret-provider-key"}}"#,
                502,
                "upstream-failed",
            ),
            ("302 Found", "", 502, "upstream-failed"),
        ] {
            let server = always(Speaks::Chat, move || answer(status, "application/json", body)).await;
            let rig = Rig::start(wish(Speaks::Chat, &server)).await;
            for stream in [false, true] {
                let body = asks.request("hi", &[], stream).to_string();
                let got = rig.request("POST", asks.path(), &[], body.as_bytes()).await;
                assert_eq!(got.status, told, "{asks:?} {status}: {}", got.body);
                let (_, message) = asks.error(&got);
                assert!(!message.contains("s3cret"), "{message}");
            }
            for outcome in rig.outcomes(2).await {
                assert_eq!(outcome["status"], kind, "{asks:?} {status}: {outcome}");
            }
            rig.close_and_verify().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_none() {
    let html = || answer("200 OK", "text/html", "<html>Please log in</html>");
    let cut = || {
        vec![
            Step::Send(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{\"id\":"
                    .to_vec(),
            ),
            Step::Close,
        ]
    };
    let other = || server::json(r#"{"hello": "world"}"#);
    let roles = || {
        server::json(
            json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [
        {"index": 0, "message": {"role": "user", "content": "I am you"}, "finish_reason": "stop"}]})
            .to_string(),
        )
    };
    type Steps = fn() -> Vec<Step>;
    for (name, steps) in [("html", html as Steps), ("cut", cut), ("other", other), ("roles", roles)] {
        for asks in ALL_ASKS {
            let server = always(Speaks::Chat, steps).await;
            let rig = Rig::start(wish(Speaks::Chat, &server)).await;
            let got = asks.ask(&rig, "hi").await;
            assert_eq!(got.status, 502, "{name} {asks:?}: {}", got.body);
            let (_, message) = asks.error(&got);
            assert!(!message.contains("log in"), "{message}");
            assert_eq!(rig.outcomes(1).await[0]["status"], "upstream-failed", "{name}");
            rig.close_and_verify().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_none_or_end_badly() {
    let events = |says: &Says| Speaks::Chat.events(says, &json!({"model": "m"}));
    let html = vec![server::stream(), piece("<html>"), end()];
    let half = vec![
        server::stream(),
        piece(events(&Says::text(&["hello "]))[..2].concat()),
        piece("data: {\"choices\":[{"),
        end(),
    ];
    let broken = vec![server::stream(), piece(events(&Says::text(&["hello "]))[..2].concat()), Step::Close];
    let open = Says::default().call("read_file", &["{\"path\": \"", "and no end"]);
    let unclosed = vec![server::stream(), piece(events(&open)[..3].concat()), end()];
    let roles = vec![
        server::stream(),
        piece(
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"user\",\"content\":\"I am you\"},\"finish_reason\":null}]}\n\n",
        ),
        end(),
    ];
    for (name, steps) in
        [("html", html), ("half", half), ("broken", broken), ("unclosed", unclosed), ("roles", roles)]
    {
        for asks in ALL_ASKS {
            let steps = steps.clone();
            let server = always(Speaks::Chat, move || steps.clone()).await;
            let rig = Rig::start(wish(Speaks::Chat, &server)).await;
            let events = asks.stream(&rig, "hi", &["read_file"]).await.rest().await;
            assert!(events.contains("error"), "{name} {asks:?}: {events}");
            assert!(
                !events.contains("<html>") && !events.contains("I am you") && !events.contains("and no end"),
                "{name}: {events}"
            );
            let complete = matches!(asks, Asks::Messages | Asks::Responses) && events.contains(asks.end());
            assert!(!complete, "{name} {asks:?} looks complete: {events}");
            assert_eq!(rig.outcomes(1).await[0]["status"], "upstream-failed", "{name} {asks:?}");
            rig.close_and_verify().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_in_place_of_a_stream() {
    for content_type in ["text/html", "application/json"] {
        for asks in ALL_ASKS {
            let server =
                always(Speaks::Chat, move || answer("200 OK", content_type, "{\"choices\":[]}")).await;
            let rig = Rig::start(wish(Speaks::Chat, &server)).await;
            let body = asks.request("hi", &[], true).to_string();
            let got = rig.request("POST", asks.path(), &[], body.as_bytes()).await;
            assert_eq!(got.status, 502, "{content_type} {asks:?}: {}", got.body);
            asks.error(&got);
            rig.close_and_verify().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_without_an_end() {
    let chunk = Speaks::Chat.events(&Says::text(&[&"x".repeat(4000)]), &json!({"model": "m"}))[1].clone();
    let server = provider::start(Speaks::Chat, move |_| {
        let mut steps = vec![server::stream()];
        steps.extend(std::iter::repeat_n(piece(&chunk), 2000));
        Does::Raw(steps)
    })
    .await;
    let limits = castra_core::Limits { answer_bytes_max: 100 << 10, ..Default::default() };
    let rig = Rig::start(Wish { limits, ..wish(Speaks::Chat, &server) }).await;
    let events = Asks::Chat.stream(&rig, "hi", &[]).await.rest().await;
    assert!(events.contains("longer than") && events.len() < 2 << 20, "{} bytes", events.len());
    let outcome = &rig.outcomes(1).await[0];
    assert_eq!(
        (&outcome["status"], &outcome["code"]),
        (&json!("upstream-failed"), &json!("stream_too_long"))
    );
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_that_cannot_be_is_no_answer_and_none_is_estimated() {
    let mut wrong = Speaks::Chat.whole(&Says::text(&["hello"]), &json!({"model": "m"}));
    let mut none = wrong.clone();
    wrong["usage"] = json!({"prompt_tokens": -5, "completion_tokens": "many"});
    none.as_object_mut().unwrap().remove("usage");
    for (answer, status) in [(wrong, 502), (none, 200)] {
        let server = always(Speaks::Chat, move || server::json(answer.to_string())).await;
        let rig = Rig::start(wish(Speaks::Chat, &server)).await;
        let got = Asks::Chat.ask(&rig, "hi").await;
        assert_eq!(got.status, status, "{}", got.body);
        let model = &rig.outcomes(1).await[0]["model"];
        assert_eq!(model["reported"], false, "{model}");
        assert_eq!(model["output_tokens"].as_u64() > Some(0), status == 200, "{model}");
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_read_or_translated_name_the_field() {
    let server = provider::saying(Speaks::Messages, Says::text(&["hello"])).await;
    let rig = Rig::start(wish(Speaks::Messages, &server)).await;
    for (path, body, status, says) in [
        ("/v1/chat/completions", json!({"messages": []}), 400, "model"),
        (
            "/v1/chat/completions",
            json!({"model": "nobody", "messages": [{"role": "user", "content": "x"}]}),
            404,
            "nobody",
        ),
        (
            "/v1/chat/completions",
            json!({"model": "assistant", "logprobs": true, "messages": [{"role": "user", "content": "x"}]}),
            400,
            "logprobs",
        ),
        ("/v1/messages", json!({"model": "assistant", "messages": "x"}), 400, "messages"),
        ("/v1/embeddings", json!({"model": "assistant", "input": "x"}), 400, ""),
    ] {
        let got = rig.request("POST", path, &[], body.to_string().as_bytes()).await;
        assert!(got.status.is_client_error(), "{path} {body}: {}", got.body);
        if status != 0 && !says.is_empty() {
            assert_eq!(got.status, status, "{path} {body}: {}", got.body);
        }
        assert!(got.body.contains(says), "{path} {body}: {}", got.body);
    }
    let got = rig.request("POST", "/v1/messages", &[], b"{\"model\": \"assistant\"").await;
    assert_eq!(
        (got.status.as_u16(), got.json()["error"]["type"].as_str()),
        (400, Some("invalid_request_error"))
    );
    assert!(server.requests().is_empty(), "something went to the provider");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_stops_reading_stops_the_provider_and_is_cut_off() {
    let chunk = Speaks::Chat.events(&Says::text(&[&"x".repeat(60_000)]), &json!({"model": "m"}))[1].clone();
    let server = provider::start(Speaks::Chat, move |_| {
        let mut steps = vec![server::stream()];
        steps.extend(std::iter::repeat_n(piece(&chunk), 800));
        Does::Raw(steps)
    })
    .await;
    let limits = castra_core::Limits { idle_time_max: Duration::from_millis(500), ..Default::default() };
    let rig = Rig::start(Wish { limits, ..wish(Speaks::Chat, &server) }).await;
    let mut socket = tokio::net::TcpStream::connect(rig.address()).await.unwrap();
    let body = Asks::Chat.request("hi", &[], true).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        rig.address(),
        rig.token,
        body.len()
    );
    tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes()).await.unwrap();
    // 48 MB wait; nobody takes them.
    let outcome =
        eventually("it is cut off", async || rig.records_of("outcome").await.into_iter().next()).await;
    assert_eq!(outcome["status"], "cancelled", "{outcome}");
    drop(socket);
    rig.close_and_verify().await;
}
