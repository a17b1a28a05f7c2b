//! Sessions with legacy servers over HTTP.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use castra_core::Limits;
use castra_gateway::upstream::{Hello, Session, Upstream, UpstreamError};
use castra_protocol::mcp::Revision;

use super::{all, call, events, eventually, limits, request, server::*, shown, upstream, whole};

const NOTE: &str =
    r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}"#;
const ASK: &str = r#"{"jsonrpc":"2.0","id":"q1","method":"roots/list"}"#;

/// What every legacy server answers besides what the case is about.
fn legacy(seen: &Seen) -> Option<Vec<Step>> {
    let result =
        r#"{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"x","version":"1"}}"#;
    if seen.says("server/discover") {
        Some(answer("400 Bad Request", "text/plain", "what?"))
    } else if seen.says("initialize") {
        let body = format!(r#"{{"jsonrpc":"2.0","id":0,"result":{result}}}"#);
        Some(answer_with("200 OK", &[("content-type", "application/json"), ("mcp-session-id", "s-1")], body))
    } else if seen.says("notifications/initialized") || seen.says("notifications/cancelled") {
        Some(accepted())
    } else if seen.method == "DELETE" {
        Some(answer_with("200 OK", &[], ""))
    } else {
        None
    }
}

fn hello(shared: bool) -> Hello {
    let params = r#"{"protocolVersion":"2025-11-25","capabilities":{"roots":{}},"clientInfo":{"name":"c","version":"1"}}"#;
    Hello { params: Bytes::from_static(params.as_bytes()), shared }
}

async fn session(
    shared: bool,
    limits: Limits,
    script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
) -> (Server, Arc<Upstream>, Arc<Session>) {
    let server = Server::start(move |seen| legacy(seen).unwrap_or_else(|| script(seen))).await;
    let upstream = upstream(server.transport(), limits);
    let session = upstream.open_session(hello(shared)).await.unwrap();
    // The probe opened a session of its own, which is kept for a while; the cases look at this one.
    server.seen.lock().clear();
    (server, upstream, session)
}

fn reply(seen: &Seen, result: &str) -> String {
    let id = seen.body.split("\"id\":").nth(1).unwrap().split([',', '}']).next().unwrap();
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

#[tokio::test]
async fn a_session_is_opened_used_and_closed() {
    let server = Server::start(|seen| legacy(seen).unwrap_or_else(|| json(reply(seen, "{}")))).await;
    let upstream = upstream(server.transport(), limits());
    let session = upstream.open_session(hello(false)).await.unwrap();
    assert_eq!(session.era().revision(), Revision::V2025_11_25);
    assert!(session.initialize_result().starts_with(b"{\"protocolVersion\""));
    assert_eq!(whole(session.exchange(call("7", "x")).await), r#"{"jsonrpc":"2.0","id":7,"result":{}}"#);
    session.close().await;
    assert!(matches!(session.exchange(call("8", "x")).await, Err(UpstreamError::Closed)));

    let seen = server.requests();
    let told: Vec<_> = seen.iter().filter(|s| !s.says("server/discover")).skip(2).collect();
    let [initialize, initialized, used, deleted] = &told[..] else { panic!("{told:?}") };
    assert!(initialize.says("initialize") && initialize.body.contains(r#""roots":{}"#));
    assert_eq!(initialize.header("mcp-session-id"), "");
    assert!(initialized.says("notifications/initialized"));
    for later in [initialized, used, deleted] {
        assert_eq!(
            [later.header("mcp-session-id"), later.header("mcp-protocol-version")],
            ["s-1", "2025-11-25"]
        );
        assert_eq!(later.header("authorization"), "Bearer s3cret-token");
    }
    assert_eq!(deleted.method, "DELETE");
}

#[tokio::test]
async fn the_session_of_the_probe_serves_the_same_hello_once() {
    let server = Server::start(|seen| legacy(seen).unwrap_or_else(accepted)).await;
    let upstream = upstream(server.transport(), limits());
    upstream.era().await.unwrap();
    let hellos = || server.requests().iter().filter(|s| s.says("initialize")).count();
    assert_eq!(hellos(), 1);
    let hello = Hello::gate(Revision::LATEST_LEGACY);
    let first = upstream.open_session(hello.clone()).await.unwrap();
    assert_eq!(hellos(), 1);
    let second = upstream.open_session(hello).await.unwrap();
    assert_eq!(hellos(), 2);
    drop((first, second));
    eventually("dropped sessions are deleted", || {
        server.requests().iter().filter(|s| s.method == "DELETE").count() == 2
    })
    .await;
}

#[tokio::test]
async fn a_forgotten_session_is_told() {
    let (server, _upstream, session) = session(false, limits(), |_| {
        answer(
            "404 Not Found",
            "application/json",
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}"#,
        )
    })
    .await;
    let error = session.exchange(call("1", "x")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::SessionExpired) && error.retry_elsewhere());
    assert!(matches!(session.ended(), Some(UpstreamError::SessionExpired)));
    assert!(session.notify(Bytes::from_static(NOTE.as_bytes())).await.is_err());
    // It is not asked again, and there is nothing to delete.
    drop(session);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn requests_of_the_server_come_with_the_exchange_and_pings_are_answered() {
    let (server, _upstream, session) = session(false, limits(), |seen| {
        if seen.says("tools/call") {
            let ping = r#"{"jsonrpc":"2.0","id":"p1","method":"ping"}"#;
            messages(&[ASK, ping, &reply(seen, "{}")])
        } else {
            accepted()
        }
    })
    .await;
    let seen = all(events(session.exchange(call("1", "x")).await)).await;
    assert_eq!(seen, [format!("q:{ASK}"), r#"r:{"jsonrpc":"2.0","id":1,"result":{}}"#.into()]);
    session
        .respond(Bytes::from_static(br#"{"jsonrpc":"2.0","id":"q1","result":{"roots":[]}}"#))
        .await
        .unwrap();
    eventually("ping and request are answered", || {
        let bodies: Vec<_> = server.requests().into_iter().map(|s| s.body).collect();
        let has = |text: &str| bodies.iter().any(|b| b.contains(text));
        has(r#""id":"p1","result":{}"#) && has(r#""roots":[]"#)
    })
    .await;
}

#[tokio::test]
async fn a_broken_stream_is_resumed_where_it_was() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let (server, _upstream, session) = session(false, limits(), move |seen| {
        if seen.method == "POST" {
            // An id to resume from, then the connection ends in the middle of an event.
            return vec![stream(), piece("id: e-1\nretry: 10\ndata:\n\n"), piece("data: {\"js"), Step::Close];
        }
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => answer("503 Busy", "text/plain", "later"),
            1 => vec![stream(), piece(format!("id: e-2\ndata: {NOTE}\n\n")), end()],
            _ => messages(&[r#"{"jsonrpc":"2.0","id":1,"result":{}}"#]),
        }
    })
    .await;
    let seen = all(events(session.exchange(call("1", "x")).await)).await;
    assert_eq!(seen, [format!("n:{NOTE}"), r#"r:{"jsonrpc":"2.0","id":1,"result":{}}"#.into()]);
    let gets: Vec<_> = server.requests().into_iter().filter(|s| s.method == "GET").collect();
    let from: Vec<_> = gets.iter().map(|s| s.header("last-event-id")).collect();
    assert_eq!(from, ["e-1", "e-1", "e-2"]);
    assert!(gets.iter().all(|s| s.header("mcp-session-id") == "s-1"));
}

#[tokio::test]
async fn a_stream_that_cannot_be_resumed_ends_the_exchange() {
    for (first, get_status) in [("data:\n\n", "200 OK"), ("id: e-1\nretry: 1\ndata:\n\n", "405 Not Allowed")]
    {
        let (_server, _upstream, session) = session(false, limits(), move |seen| {
            if seen.method == "POST" {
                vec![stream(), piece(first), end()]
            } else {
                answer(get_status, "text/plain", "")
            }
        })
        .await;
        let seen = all(events(session.exchange(call("1", "x")).await)).await;
        assert_eq!(seen, ["e:ended the stream before the answer"]);
    }
}

#[tokio::test]
async fn the_get_stream_gives_what_is_unsolicited_and_comes_back() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let (server, _upstream, session) = session(false, limits(), move |seen| {
        assert_eq!(seen.method, "GET");
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => vec![stream(), piece(format!("id: g-1\nretry: 5\ndata: {NOTE}\n\n")), end()],
            1 => messages(&[ASK]),
            _ => answer("404 Not Found", "text/plain", ""),
        }
    })
    .await;
    let mut unsolicited = session.take_unsolicited().unwrap();
    assert!(session.take_unsolicited().is_none());
    assert!(server.requests().is_empty(), "it is opened when it is asked for");
    assert_eq!(shown(unsolicited.next().await.unwrap()), format!("n:{NOTE}"));
    assert_eq!(shown(unsolicited.next().await.unwrap()), format!("q:{ASK}"));
    assert_eq!(shown(unsolicited.next().await.unwrap()), "e:forgot the session");
    assert!(unsolicited.next().await.is_none());
    assert!(matches!(session.ended(), Some(UpstreamError::SessionExpired)));
    let from: Vec<_> = server.requests().iter().map(|s| s.header("last-event-id").to_owned()).collect();
    assert_eq!(from, ["", "g-1", "g-1"]);
}

#[tokio::test]
async fn a_server_without_a_get_stream_is_no_error() {
    let (_server, _upstream, session) =
        session(false, limits(), |_| answer("405 Method Not Allowed", "text/plain", "")).await;
    assert!(session.take_unsolicited().unwrap().next().await.is_none());
    assert!(session.ended().is_none());
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_its_request_back() {
    let (server, _upstream, session) =
        session(false, limits(), |_| vec![stream(), piece(format!("data: {NOTE}\n\n")), Step::Hold]).await;
    let cancelled = |id: &str| {
        let want = format!(r#""params":{{"requestId":{id},"#);
        server.requests().iter().any(|s| s.says("notifications/cancelled") && s.body.contains(&want))
    };
    // While events come …
    drop(events(session.exchange(call("1", "x")).await));
    eventually("cancelled", || cancelled("1")).await;
    // … or while the head is awaited.
    let waiting = {
        let session = session.clone();
        async move { session.exchange(call("\"b\"", "x")).await }
    };
    let events = tokio::time::timeout(Duration::from_millis(200), waiting).await;
    drop(events);
    eventually("cancelled", || cancelled("\"b\"")).await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_taken_back() {
    let limits = Limits { call_time_max: Duration::from_secs(2), ..limits() };
    let (server, _upstream, session) = session(false, limits, |_| vec![Step::Hold]).await;
    let error = session.exchange(call("1", "x")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Timeout { .. }));
    eventually("cancelled", || server.requests().iter().any(|s| s.says("notifications/cancelled"))).await;
}

#[tokio::test]
async fn callers_of_a_shared_session_do_not_meet() {
    let (server, _upstream, session) = session(true, limits(), |seen| {
        let token =
            seen.body.split("\"progressToken\":").nth(1).unwrap().split('}').next().unwrap().to_owned();
        let note = NOTE.replace(r#""progressToken":1"#, &format!(r#""progressToken":{token}"#));
        messages(&[&note, &reply(seen, "{}")])
    })
    .await;
    let out = || {
        request(
            r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"x","_meta":{"progressToken":"t"}}}"#,
        )
    };
    let (one, two) = tokio::join!(session.exchange(out()), session.exchange(out()));
    for answer in [one, two] {
        let seen = all(events(answer)).await;
        assert_eq!(
            seen,
            [
                r#"n:{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":1}}"#,
                r#"r:{"jsonrpc":"2.0","id":"a","result":{}}"#,
            ]
        );
    }
    let bodies: Vec<_> = server.requests().into_iter().map(|s| s.body).collect();
    assert!(bodies.iter().all(|b| !b.contains("\"a\"") && !b.contains("\"t\"")), "{bodies:?}");
    assert_ne!(bodies[0], bodies[1]);
}

#[tokio::test]
async fn a_bad_handshake_opens_nothing() {
    let initialize = |headers: &[(&str, &str)], result: &str| {
        answer_with("200 OK", headers, format!(r#"{{"jsonrpc":"2.0","id":0,"result":{result}}}"#))
    };
    let good =
        r#"{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"x","version":"1"}}"#;
    let kind = ("content-type", "application/json");
    let cases = [
        (initialize(&[kind, ("mcp-session-id", "a b")], good), "sent a bad Mcp-Session-Id header"),
        (
            initialize(&[kind], r#"{"capabilities":{}}"#),
            "answered initialize without a usable protocolVersion",
        ),
        (
            initialize(&[kind], r#"{"protocolVersion":"1999-01-01"}"#),
            "speaks revision 1999-01-01, which is not spoken here",
        ),
        (
            json(r#"{"jsonrpc":"2.0","id":0,"error":{"code":-1,"message":"go\u001b[31m away"}}"#),
            "refused initialize with error -1: go[31m away",
        ),
        (answer("404 Not Found", "text/html", "no"), "answered with HTTP status 404 Not Found"),
    ];
    for (steps, want) in cases {
        let server = Server::start(move |seen| {
            if seen.says("server/discover") { answer_with("400 Bad Request", &[], "") } else { steps.clone() }
        })
        .await;
        let upstream = upstream(server.transport(), limits());
        let error = upstream.open_session(hello(false)).await.unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
        assert!(upstream.known_era().is_none());
    }
}
