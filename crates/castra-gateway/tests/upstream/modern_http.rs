//! Stateless servers over HTTP.

use std::{sync::atomic::Ordering, time::Duration};

use castra_core::RefusalCode;
use castra_gateway::upstream::{Answer, Hello, Outgoing, ServerEra, UpstreamError, forwardable};
use castra_protocol::mcp::Revision;
use http::{HeaderMap, HeaderValue};

use super::{all, call, events, eventually, limits, request, server::*, upstream, whole};

const ONE: &str = r#"{ "jsonrpc": "2.0", "id": 1, "result": {"content": []} }"#;
const NOTE: &str =
    r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}"#;

#[tokio::test]
async fn the_bytes_go_through_and_only_the_right_headers() {
    let server = Server::start(|_| json(ONE)).await;
    let upstream = upstream(server.transport(), limits());
    let mut from_caller = HeaderMap::new();
    for (name, value) in [
        ("authorization", "Bearer of-the-caller"),
        ("cookie", "a=b"),
        ("mcp-method", "tools/call"),
        ("mcp-param-region", "x"),
        ("traceparent", "00-1"),
    ] {
        from_caller.insert(name, HeaderValue::from_static(value));
    }
    let mut out = call("1", "echo");
    out.headers = forwardable(&from_caller);
    let sent = out.body.clone();
    // Whatever the layer above hands on, the configured header wins.
    out.headers.insert("authorization", HeaderValue::from_static("Bearer of-the-caller"));
    assert_eq!(whole(upstream.post(out).await), ONE);

    let [seen] = &server.requests()[..] else { panic!("one request") };
    assert_eq!(seen.body.as_bytes(), sent);
    assert_eq!(seen.header("authorization"), "Bearer s3cret-token");
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!(seen.header("accept"), "application/json, text/event-stream");
    assert_eq!([seen.header("mcp-method"), seen.header("mcp-param-region")], ["tools/call", "x"]);
    assert_eq!([seen.header("traceparent"), seen.header("cookie")], ["00-1", ""]);
    assert!(!format!("{:?}", upstream.config()).contains("s3cret"));
}

#[tokio::test]
async fn a_connection_serves_many_answers_of_both_forms() {
    let server =
        Server::start(|seen| if seen.says("tools/call") { messages(&[NOTE, ONE]) } else { json(ONE) }).await;
    let upstream = upstream(server.transport(), limits());
    for _ in 0..10 {
        whole(upstream.post(request(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#)).await);
        let seen = all(events(upstream.post(call("1", "x")).await)).await;
        assert_eq!(seen, [format!("n:{NOTE}"), format!("r:{ONE}")]);
    }
    // The end of a stream may come a moment after its last event, so now and then one is in use.
    assert!(server.connections.load(Ordering::SeqCst) <= 3, "{:?}", server.connections);
}

#[tokio::test]
async fn what_is_no_message_in_a_stream_is_passed_over() {
    let server = Server::start(|_| {
        let text = format!(
            ": keep alive\n\nid: 1\ndata:\n\nevent: endpoint\ndata: /x\n\nevent: message\ndata: {NOTE}\n\n\
             data: {{\"jsonrpc\":\"2.0\",\ndata: \"id\":1,\"result\":{{}}}}\n\ndata: after the answer\n\n"
        );
        vec![stream(), piece(text), end()]
    })
    .await;
    let upstream = upstream(server.transport(), limits());
    let mut stream = events(upstream.post(call("1", "x")).await);
    stream.next().await.unwrap().unwrap();
    // The burst is here already.
    let response = stream.try_next().unwrap().unwrap();
    assert_eq!(response.bytes(), "{\"jsonrpc\":\"2.0\",\n\"id\":1,\"result\":{}}");
    assert!(stream.try_next().is_none() && stream.next().await.is_none());
}

#[tokio::test]
async fn notifications_are_accepted() {
    let server = Server::start(|_| accepted()).await;
    let upstream = upstream(server.transport(), limits());
    let answer = upstream.post(Outgoing::notification(NOTE.into())).await;
    assert!(matches!(answer, Ok(Answer::Accepted)), "{answer:?}");
}

#[tokio::test]
async fn json_rpc_errors_pass_with_their_status_and_get_their_id() {
    let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}"#;
    let without = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"bad","data":[1]}}"#;
    for (status, sent, want) in [
        ("404 Not Found", error, error),
        (
            "400 Bad Request",
            without,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32600,"message":"bad","data":[1]}}"#,
        ),
    ] {
        let server = Server::start(move |_| answer(status, "application/json", sent)).await;
        let upstream = upstream(server.transport(), limits());
        let Ok(Answer::Whole { status: got, body }) = upstream.post(call("1", "x")).await else {
            panic!("{status}")
        };
        assert!(status.starts_with(got.as_str()));
        assert_eq!(body, want);
    }
}

#[tokio::test]
async fn every_misbehaviour_has_its_error() {
    use RefusalCode::{LimitReached, UpstreamMisbehaved as Misbehaved, UpstreamUnavailable as Unavailable};
    let html = |status| answer(status, "text/html", "<html>s3cret page</html>");
    let big = format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{}"}}"#, "x".repeat(70 << 10));
    let long_data = format!("data: {big}\n\n");
    let close = |mut steps: Vec<Step>| {
        steps.push(Step::Close);
        steps
    };
    let cases = [
        (
            answer_with("307 Temporary Redirect", &[("location", "/x")], ""),
            Misbehaved,
            "a redirect (307 Temporary Redirect), which is not followed",
        ),
        (
            html("200 OK"),
            Misbehaved,
            "status 200 OK and content type \"text/html\" instead of JSON or an event stream",
        ),
        (html("502 Bad Gateway"), Unavailable, "answered with HTTP status 502 Bad Gateway"),
        (
            answer("401 Unauthorized", "application/json", r#"{"error":"no"}"#),
            Unavailable,
            "HTTP status 401 Unauthorized. Check the credentials",
        ),
        (answer_with("200 OK", &[], ""), Unavailable, "HTTP status 200"),
        (accepted(), Misbehaved, "took the request without answering it"),
        (
            json(r#"{"jsonrpc":"2.0","id":2,"result":{}}"#),
            Misbehaved,
            "answered another request than the one it was asked",
        ),
        (json(r#"{"jsonrpc":"2.0","id":"1","result":{}}"#), Misbehaved, "answered another request"),
        (json(NOTE), Misbehaved, "sent a notification where the answer had to be"),
        (
            json(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#),
            Misbehaved,
            "sent a request where the answer had to be",
        ),
        (json("{\"jsonrpc\":"), Misbehaved, "sent something that is not a message"),
        (
            json(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"a\":\"\xff\"}}"),
            Misbehaved,
            "sent something that is not a message",
        ),
        (json(format!("[{ONE}]")), Misbehaved, "not a message: batches were removed"),
        (
            json(format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}{}}}", "[".repeat(99), "]".repeat(99))),
            Misbehaved,
            "not a message",
        ),
        (json(&big), LimitReached, "sent an answer of more than 65536 bytes"),
        (vec![stream(), piece(&long_data), end()], LimitReached, "sent an event of more than 65536 bytes"),
        (
            vec![
                Step::Send(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
                        .to_vec(),
                ),
                Step::Close,
            ],
            Unavailable,
            "broke the connection",
        ),
        (vec![Step::Close], Unavailable, "broke the connection"),
        (
            vec![Step::Send(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()), Step::Close],
            Unavailable,
            "broke the connection",
        ),
        (
            close(vec![stream(), piece(format!("data: {NOTE}\n\n"))]),
            Misbehaved,
            "ended the stream before the answer",
        ),
        (messages(&[NOTE]), Misbehaved, "ended the stream before the answer"),
        (messages(&["<html>"]), Misbehaved, "not a message"),
        (
            vec![stream(), piece(b"data: \xff\n\n"), end()],
            Misbehaved,
            "not a message: the stream is not UTF-8",
        ),
        (messages(&[r#"{"jsonrpc":"2.0","id":2,"result":{}}"#]), Misbehaved, "answered another request"),
        (
            messages(&[
                r#"{"jsonrpc":"2.0","id":7,"method":"sampling/createMessage","params":{"messages":[],"maxTokens":1}}"#,
            ]),
            Misbehaved,
            "a request of its own, which revision 2026-07-28 does not allow",
        ),
    ];
    for (steps, code, want) in cases {
        let shown = format!("{steps:.200?}");
        let server = Server::start(move |_| steps.clone()).await;
        let upstream = upstream(server.transport(), limits());
        let error = match upstream.post(call("1", "x")).await {
            Ok(Answer::Events(mut events)) => loop {
                match events.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        assert!(events.next().await.is_none());
                        break error;
                    }
                    None => panic!("no error: {shown}"),
                }
            },
            Ok(other) => panic!("{other:?} for {shown}"),
            Err(error) => error,
        };
        let refusal = error.refusal(upstream.name());
        assert_eq!(refusal.code, code, "{error} for {shown}");
        assert!(refusal.to_string().contains(want), "{refusal} for {shown}");
        assert!(!format!("{error:?} {refusal}").contains("s3cret"), "{error:?}");
    }
}

#[tokio::test]
async fn nobody_there_is_told_and_may_be_tried_elsewhere() {
    let server = Server::start(|_| Vec::new()).await;
    let mut transport = server.transport();
    if let castra_gateway::upstream::Transport::Http { url, .. } = &mut transport {
        *url = "http://127.0.0.1:1/".parse().unwrap();
    }
    let upstream = upstream(transport, limits());
    let error = upstream.post(call("1", "x")).await.unwrap_err();
    assert!(error.retry_elsewhere() && error.code() == RefusalCode::UpstreamUnavailable, "{error}");
    // Probing again and again is slowed down.
    for _ in 0..4 {
        upstream.era().await.unwrap_err();
    }
    let error = upstream.era().await.unwrap_err();
    assert!(matches!(error, UpstreamError::BackingOff { failures: 4, .. }), "{error}");
}

#[tokio::test]
async fn hanging_is_bounded_in_every_place() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";
    for steps in [
        vec![Step::Hold],
        vec![Step::Send(head.into()), Step::Hold],
        vec![stream(), piece(format!("data: {NOTE}\n\n")), Step::Hold],
    ] {
        let server = Server::start(move |_| steps.clone()).await;
        let limits = castra_core::Limits { call_time_max: Duration::from_millis(200), ..limits() };
        let upstream = upstream(server.transport(), limits);
        let error = match upstream.post(call("1", "x")).await {
            Ok(answer) => all(events(Ok(answer))).await.pop().unwrap(),
            Err(error) => error.to_string(),
        };
        assert!(error.ends_with("answer within 0 seconds"), "{error}");
        // The server is told by the end of the connection.
        eventually("the connection is closed", || server.left.load(Ordering::SeqCst) == 1).await;
    }
}

#[tokio::test]
async fn a_long_stream_outlives_the_time_of_a_call_but_not_silence() {
    let server = Server::start(|_| {
        let note = || piece(format!("data: {NOTE}\n\n"));
        let mut steps = vec![stream()];
        for _ in 0..4 {
            steps.extend([note(), Step::Pause(100)]);
        }
        steps.push(if steps.len() > 9 { Step::Hold } else { end() });
        steps
    })
    .await;
    let limits = castra_core::Limits {
        call_time_max: Duration::from_millis(200),
        stream_idle_max: Duration::from_millis(1000),
        ..limits()
    };
    let upstream = upstream(server.transport(), limits);
    let mut out = call("1", "x");
    out.long = true;
    let seen = all(events(upstream.post(out).await)).await;
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(seen.iter().all(|s| s.starts_with("n:")), "{seen:?}");
}

#[tokio::test]
async fn dropping_the_stream_drops_the_connection_which_cancels() {
    let server = Server::start(|_| vec![stream(), piece(format!("data: {NOTE}\n\n")), Step::Hold]).await;
    let upstream = upstream(server.transport(), limits());
    let mut stream = events(upstream.post(call("1", "x")).await);
    stream.next().await.unwrap().unwrap();
    drop(stream);
    eventually("the connection is closed", || server.left.load(Ordering::SeqCst) == 1).await;
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn the_era_is_found_out() {
    let discover = r#"{"resultType":"complete","supportedVersions":["2026-07-28","2025-11-25"],"capabilities":{"tools":{}}}"#;
    let modern = json(format!(r#"{{"jsonrpc":"2.0","id":"discover","result":{discover}}}"#));
    let error = |status, code: i64, data: &str| {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"discover","error":{{"code":{code},"message":"m","data":{data}}}}}"#
        );
        answer(status, "application/json", body)
    };
    let initialize =
        r#"{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"x","version":"1"}}"#;
    let cases = [
        (modern, "modern"),
        (messages(&[&format!(r#"{{"jsonrpc":"2.0","id":"discover","result":{discover}}}"#)]), "modern"),
        (
            error("400 Bad Request", -32022, r#"{"supported":["2025-11-25"],"requested":"2026-07-28"}"#),
            "legacy",
        ),
        (
            error("400 Bad Request", -32022, r#"{"supported":["2030-01-01"],"requested":"2026-07-28"}"#),
            "speaks revision 2030-01-01",
        ),
        (error("400 Bad Request", -32020, "{}"), "refused server/discover with error -32020"),
        (error("400 Bad Request", -32000, "{}"), "legacy"),
        (error("200 OK", -32601, "{}"), "legacy"),
        (answer_with("400 Bad Request", &[], ""), "legacy"),
        (answer("404 Not Found", "text/html", "no"), "legacy"),
        (answer("500 Oh", "text/plain", "no"), "legacy"),
        (answer("401 Unauthorized", "text/plain", "no"), "HTTP status 401"),
        (vec![Step::Close], "broke the connection"),
    ];
    for (steps, want) in cases {
        let shown = format!("{steps:.300?}");
        let server = Server::start(move |seen| {
            if seen.says("server/discover") {
                steps.clone()
            } else if seen.says("initialize") {
                json(format!(r#"{{"jsonrpc":"2.0","id":0,"result":{initialize}}}"#))
            } else {
                accepted()
            }
        })
        .await;
        let upstream = upstream(server.transport(), limits());
        match upstream.era().await {
            Ok(ServerEra::Modern { discover: got, revision }) => {
                assert_eq!(
                    (want, revision, &*got),
                    ("modern", Revision::V2026_07_28, discover.as_bytes()),
                    "{shown}"
                );
                let refused = upstream.open_session(Hello::gate(Revision::LATEST_LEGACY)).await.unwrap_err();
                assert!(matches!(refused, UpstreamError::Stateless));
            }
            Ok(ServerEra::Legacy { initialize: got, revision }) => {
                assert_eq!(
                    (want, revision, &*got),
                    ("legacy", Revision::V2025_06_18, initialize.as_bytes()),
                    "{shown}"
                );
            }
            Err(error) => assert!(error.to_string().contains(want), "{error}: {shown}"),
        }
        let probe = &server.requests()[0];
        assert_eq!(
            [probe.header("mcp-protocol-version"), probe.header("mcp-method")],
            ["2026-07-28", "server/discover"]
        );
        // Found out once.
        let asked = server.requests().len();
        if upstream.known_era().is_some() {
            upstream.era().await.unwrap();
            assert_eq!(server.requests().len(), asked);
        }
    }
}
