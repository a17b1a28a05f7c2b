//! Servers that are child processes, of both eras.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use castra_core::{Limits, RefusalCode};
use castra_gateway::upstream::{Answer, Hello, Incoming, Session, Transport, Upstream, UpstreamError};
use castra_host::Secret;
use castra_protocol::mcp::Revision;

use super::{all, call, events, eventually, limits, request, shown, text, upstream, whole};

fn transport(era: &str) -> Transport {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/child.py");
    Transport::Stdio {
        command: ["python3", "-S", script, era].map(Into::into).to_vec(),
        env: vec![("API_TOKEN".into(), Secret::new("s3cret"))],
        cwd: None,
    }
}

fn hello() -> Hello {
    Hello::gate(Revision::LATEST_LEGACY)
}

async fn open(era: &str, limits: Limits) -> (Arc<Upstream>, Arc<Session>) {
    let upstream = upstream(transport(era), limits);
    let session = upstream.open_session(hello()).await.unwrap();
    (upstream, session)
}

async fn gone(pid: u32) {
    eventually("the process is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists()).await;
}

/// The text of a tool's result.
fn said(response: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(response).unwrap();
    value["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{response}")).to_owned()
}

#[tokio::test]
async fn eras_are_found_out_whatever_the_child_does_with_the_probe() {
    for (era, modern) in [("modern", true), ("legacy", false), ("silent", false), ("touchy", false)] {
        let (upstream, session) = open(era, limits()).await;
        assert_eq!(session.era().is_modern(), modern, "{era}");
        assert_eq!(upstream.known_era().as_ref(), Some(session.era()));
        assert_eq!(said(&whole(session.exchange(call("1", "echo")).await)), "null");
        // The next one is not asked again.
        let again = upstream.open_session(hello()).await.unwrap();
        assert_eq!(said(&whole(again.exchange(call("1", "got")).await)).contains("initialized"), !modern);
    }
}

#[tokio::test]
async fn the_child_of_the_probe_is_used_and_places_are_bounded() {
    let upstream = upstream(transport("legacy"), limits());
    upstream.era().await.unwrap();
    let first = upstream.open_session(hello()).await.unwrap();
    assert_eq!(upstream.counters().started.load(Ordering::Relaxed), 1);
    let second = upstream.open_session(hello()).await.unwrap();
    let error = upstream.open_session(hello()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::TooManyChildren { max: 2 }));
    assert_eq!(error.code(), RefusalCode::Busy);
    let pids = [first.pid().unwrap(), second.pid().unwrap()];
    first.close().await;
    drop((first, second));
    for pid in pids {
        gone(pid).await;
    }
    upstream.open_session(hello()).await.unwrap();
}

#[tokio::test]
async fn callers_do_not_meet() {
    let (_upstream, session) = open("legacy", limits()).await;
    let out = |id: &str| {
        let meta = r#""_meta":{"progressToken":"t"}"#;
        request(format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"progress",{meta}}}}}"#
        ))
    };
    let (one, two) = tokio::join!(session.exchange(out("\"a\"")), session.exchange(out("\"a\"")));
    for answer in [one, two] {
        let seen = all(events(answer)).await;
        assert_eq!(seen.len(), 4);
        for (n, note) in seen[..3].iter().enumerate() {
            assert!(
                note.contains(r#""progressToken": "t""#) && note.contains(&format!(r#""progress": {n}"#)),
                "{note}"
            );
        }
        assert!(seen[3].starts_with(r#"r:{"jsonrpc": "2.0", "id": "a","#), "{}", seen[3]);
    }
    let ids: Vec<u64> = serde_json::from_str(&said(&whole(
        session.exchange(request(r#"{"jsonrpc":"2.0","id":"z","method":"tools/call","params":{"name":"ids","_meta":{"progressToken":7}}}"#)).await,
    )))
    .unwrap();
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_message_over_several_lines_is_sent_as_one() {
    let (_upstream, session) = open("legacy", limits()).await;
    let out = request(
        "{\"jsonrpc\":\"2.0\",\r\n\"id\":1,\n\"method\":\"tools/call\",\"params\":{\"name\":\"echo\",\n\"arguments\":{\"a\":\"\\n\"}}}",
    );
    assert_eq!(said(&whole(session.exchange(out).await)), r#"{"a": "\n"}"#);
}

#[tokio::test]
async fn what_names_nobody_goes_to_the_one_call_or_to_whoever_listens() {
    let (_upstream, session) = open("legacy", limits()).await;
    let mut unsolicited = session.take_unsolicited().unwrap();
    let seen = all(events(session.exchange(call("1", "log")).await)).await;
    assert!(seen[0].starts_with("n:") && seen[0].contains("notifications/message"), "{seen:?}");
    // A change is for all.
    assert!(matches!(session.exchange(call("2", "change")).await, Ok(Answer::Whole { .. })));
    assert!(shown(unsolicited.next().await.unwrap()).contains("tools/list_changed"));
    // With two in flight a question cannot be matched.
    let held = tokio::spawn({
        let session = session.clone();
        async move { session.exchange(call("3", "hold")).await }
    });
    while unsolicited.try_next().is_some() {}
    tokio::time::sleep(Duration::from_millis(50)).await;
    let asking = tokio::spawn({
        let session = session.clone();
        async move { session.exchange(call("4", "ask")).await }
    });
    let question = unsolicited.next().await.unwrap().unwrap();
    assert!(matches!(&question, Incoming::Request(b) if text(b).contains("\"q1\"")), "{question:?}");
    session
        .respond(Bytes::from_static(br#"{"jsonrpc":"2.0","id":"q1","result":{"action":"accept"}}"#))
        .await
        .unwrap();
    assert_eq!(said(&whole(asking.await.unwrap())), r#"{"action": "accept"}"#);
    whole(session.exchange(call("5", "release")).await);
    assert_eq!(said(&whole(held.await.unwrap())), "late");
}

#[tokio::test]
async fn a_question_in_the_only_call_comes_with_it() {
    let (_upstream, session) = open("legacy", limits()).await;
    let mut stream = events(session.exchange(call("1", "ask")).await);
    assert!(matches!(stream.next().await, Some(Ok(Incoming::Request(_)))));
    session
        .respond(Bytes::from_static(br#"{"jsonrpc":"2.0","id":"q1","result":{"action":"decline"}}"#))
        .await
        .unwrap();
    let response = shown(stream.next().await.unwrap());
    assert!(response.starts_with("r:") && response.contains("decline"), "{response}");
    // A ping is answered without anybody's help.
    assert_eq!(said(&whole(session.exchange(call("2", "ping")).await)), "{}");
}

#[tokio::test]
async fn a_question_that_nobody_takes_is_answered_with_an_error() {
    let (_upstream, session) = open("legacy", limits()).await;
    drop(session.take_unsolicited());
    let held = tokio::spawn({
        let session = session.clone();
        async move { session.exchange(call("1", "hold")).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    // The error ends the question, and the script answers the call that asked it.
    assert_eq!(said(&whole(session.exchange(call("2", "ask")).await)), "null");
    held.abort();
}

#[tokio::test]
async fn a_modern_child_subscribes_and_asks_nothing() {
    let limits = Limits { call_time_max: Duration::from_secs(3), ..limits() };
    let (upstream, session) = open("modern", limits).await;
    let mut out = request(
        r#"{"jsonrpc":"2.0","id":"s","method":"subscriptions/listen","params":{"notifications":{}}}"#,
    );
    out.long = true;
    let seen = all(events(session.exchange(out).await)).await;
    assert_eq!(seen.len(), 2, "{seen:?}");
    for note in &seen {
        assert!(
            note.starts_with("n:") && note.contains(r#""io.modelcontextprotocol/subscriptionId": "s""#),
            "{note}"
        );
    }
    let error = session.exchange(call("1", "ask")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Timeout { .. }));
    assert_eq!(upstream.counters().garbage.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn every_misbehaviour_of_a_child_has_its_error() {
    use RefusalCode::{
        LimitReached, UpstreamMisbehaved as Misbehaved, UpstreamTimeout, UpstreamUnavailable as Unavailable,
    };
    let limits = Limits { call_time_max: Duration::from_secs(3), ..limits() };
    for (tool, code, want, lives) in [
        ("hold", UpstreamTimeout, "gave no answer within 3 seconds", true),
        ("die", Unavailable, "ended with exit code 3", false),
        ("close", Unavailable, "ended with signal 9", false),
        ("other", Misbehaved, "answered another request than the one it was asked", true),
        ("broken", Misbehaved, "sent something that is not a message", true),
        ("utf8", Misbehaved, "sent something that is not a message", true),
        ("endless", LimitReached, "sent a line of more than 65536 bytes", false),
    ] {
        let (upstream, session) = open("legacy", limits.clone()).await;
        let error = session.exchange(call("1", tool)).await.unwrap_err();
        let refusal = error.refusal(upstream.name());
        assert_eq!(refusal.code, code, "{tool}: {error}");
        assert!(refusal.to_string().contains(want), "{tool}: {refusal}");
        if lives {
            assert_eq!(said(&whole(session.exchange(call("2", "echo")).await)), "null");
        } else {
            eventually("the session has ended", || session.ended().is_some()).await;
            assert!(session.exchange(call("2", "echo")).await.is_err());
            gone(session.pid().unwrap()).await;
        }
        assert!(!format!("{session:?} {error:?}").contains("s3cret"));
    }
}

#[tokio::test]
async fn small_faults_are_counted_and_passed_over() {
    let (upstream, session) = open("legacy", limits()).await;
    assert_eq!(said(&whole(session.exchange(call("1", "twice")).await)), "first");
    assert_eq!(said(&whole(session.exchange(call("2", "banner")).await)), "done");
    assert_eq!(said(&whole(session.exchange(call("3", "stranger")).await)), "done");
    let no_id = whole(session.exchange(call("\"x\"", "noid")).await);
    assert_eq!(no_id, r#"{"jsonrpc":"2.0","id":"x","error":{"code":-32700,"message":"what?"}}"#);
    let counters = upstream.counters();
    let counts = [&counters.second_answers, &counters.garbage, &counters.dropped, &counters.foreign_ids];
    assert_eq!(counts.map(|c| c.load(Ordering::Relaxed)), [1, 1, 2, 0]);
}

#[tokio::test]
async fn a_flood_ends_its_exchange_and_no_other() {
    let (upstream, session) = open("legacy", limits()).await;
    let out = request(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"flood","_meta":{"progressToken":1}}}"#,
    );
    let flooded = events(session.exchange(out).await);
    // Nobody takes the messages, so the exchange is ended, and the child is read on.
    assert_eq!(said(&whole(session.exchange(call("2", "echo")).await)), "null");
    let seen = all(flooded).await;
    assert!(seen.len() <= 1026, "{}", seen.len());
    assert!(seen.last().unwrap().contains("faster than they could be taken"), "{:?}", seen.last());
    assert_eq!(upstream.counters().flooded.load(Ordering::Relaxed), 1);
    let got = said(&whole(session.exchange(call("3", "got")).await));
    assert!(got.contains("notifications/cancelled"), "{got}");
}

#[tokio::test]
async fn death_fails_all_in_flight_at_once_and_the_next_session_starts_anew() {
    let (upstream, session) = open("legacy", limits()).await;
    let mut unsolicited = session.take_unsolicited().unwrap();
    let held: Vec<_> = (0..5)
        .map(|n| {
            let session = session.clone();
            tokio::spawn(async move { session.exchange(call(&n.to_string(), "hold")).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(matches!(session.exchange(call("9", "die")).await, Err(UpstreamError::Died(_))));
    for waiting in held {
        assert!(matches!(waiting.await.unwrap(), Err(UpstreamError::Died(_))));
    }
    assert!(matches!(unsolicited.next().await, Some(Err(UpstreamError::Died(_)))));
    assert!(unsolicited.next().await.is_none());
    let again = upstream.open_session(hello()).await.unwrap();
    assert_eq!(said(&whole(again.exchange(call("1", "echo")).await)), "null");
    assert_eq!(upstream.counters().died.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_child_that_does_not_come_up_is_tried_less_and_less() {
    let upstream = upstream(transport("broken"), limits());
    let mut errors = Vec::new();
    for _ in 0..5 {
        let error = upstream.open_session(hello()).await.unwrap_err();
        if matches!(error, UpstreamError::BackingOff { .. }) {
            let text = error.to_string();
            assert!(
                text.contains("times in a row, last: it ended with exit code 9; the next attempt is in"),
                "{text}"
            );
            return;
        }
        errors.push(error);
    }
    panic!("no backing off: {errors:?}");
}

#[tokio::test]
async fn a_command_that_is_not_there_is_named() {
    let transport = Transport::Stdio { command: vec!["/no/such/server".into()], env: Vec::new(), cwd: None };
    let upstream = upstream(transport, limits());
    let refusal = upstream.era().await.unwrap_err().refusal(upstream.name());
    assert!(
        refusal.to_string().starts_with("the server test did not start: \"/no/such/server\""),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_its_request_back() {
    let (_upstream, session) = open("legacy", limits()).await;
    for _ in 0..2 {
        let waiting = session.exchange(call("\"mine\"", "hold"));
        tokio::time::timeout(Duration::from_millis(100), waiting).await.unwrap_err();
    }
    let got = said(&whole(session.exchange(call("2", "got")).await));
    assert_eq!(got.matches("the caller went away").count(), 2, "{got}");
    assert!(!got.contains("mine"), "the child knows our numbers: {got}");
    // A late answer to what was taken back is no fault.
    whole(session.exchange(call("3", "release")).await);
    let session_still = said(&whole(session.exchange(call("4", "echo")).await));
    assert_eq!(session_still, "null");
}
