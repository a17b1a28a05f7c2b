//! Streamed answers on the path: as they come, inspected, recorded before their end, and ended when
//! caller, credential or gate end.

use std::time::Duration;

use serde_json::json;

use crate::{
    provider::{self, Does, Says, Speaks, USAGE},
    rig::{Rig, Wish, eventually},
    server::{self, Step, piece},
    stage::{ALL_ASKS, Asks, MASK, last_receipt, secret, wish},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_passes_in_every_api_and_is_on_record() {
    for asks in ALL_ASKS {
        let server = provider::saying(asks.native(), Says::text(&["hello ", "there"])).await;
        let rig = Rig::start(wish(asks.native(), &server)).await;
        let stream = asks.stream(&rig, "hi", &[]).await;
        assert_eq!(stream.status, 200);
        let header = |name: &str| stream.headers.get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "text/event-stream");
        assert_eq!(
            (header("castra-model"), header("castra-inspection")),
            ("assistant@v1".into(), "window".into())
        );
        let first = header("castra-receipt");
        let events = stream.rest().await;
        assert_eq!(asks.streamed_text(&events), "hello there", "{asks:?}: {events}");
        assert!(events.contains(asks.end()), "{asks:?}: {events}");
        assert_ne!(last_receipt(&events), first);
        let outcome = &rig.outcomes(1).await[0];
        assert_eq!(
            (&outcome["status"], &outcome["inspection"]),
            (&json!("ok"), &json!("window")),
            "{outcome}"
        );
        assert_eq!(outcome["model"]["output_tokens"].as_u64(), Some(USAGE.1), "{asks:?}: {outcome}");
        assert_eq!(outcome["model"]["reported"], json!(true));
        rig.close_and_verify().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_pieces_is_masked_in_every_form() {
    let said = secret();
    let pieces = ["the key is ", &said[..7], &said[7..15], &said[15..], " as you see."];
    for asks in ALL_ASKS {
        for speaks in [Speaks::Chat, Speaks::Messages, Speaks::Gemini, asks.native()] {
            let case = format!("{asks:?} to {speaks:?}");
            let server = provider::saying(speaks, Says::text(&pieces)).await;
            let rig = Rig::start(wish(speaks, &server)).await;
            rig.keep_secret(&said);
            let events = asks.stream(&rig, "go", &[]).await.rest().await;
            assert_eq!(
                asks.streamed_text(&events),
                format!("the key is {MASK} as you see."),
                "{case}: {events}"
            );
            assert!(!events.contains(&said) && events.contains(asks.end()), "{case}: {events}");
            assert_eq!(rig.outcomes(1).await[0]["findings"], json!(["secret.aws-access-key"]), "{case}");
            rig.close_and_verify().await;
        }
    }
}

/// A stream of chat completions that says one piece and then waits until the connection closes.
fn hanging(body: &serde_json::Value) -> Does {
    let events = Speaks::Chat.events(&Says::text(&["hello "]), body);
    Does::Raw(vec![server::stream(), piece(events[..2].concat()), Step::Hold])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_ends_the_exchange_with_the_provider() {
    let server = provider::start(Speaks::Chat, hanging).await;
    let rig = Rig::start(wish(Speaks::Chat, &server)).await;
    let mut stream = Asks::Chat.stream(&rig, "hi", &[]).await;
    stream.next().await.unwrap();
    drop(stream);
    let left = || server.left.load(std::sync::atomic::Ordering::SeqCst);
    eventually("the provider is left", async || (left() == 1).then_some(())).await;
    let outcome = &rig.outcomes(1).await[0];
    assert_eq!(
        (&outcome["status"], &outcome["code"]),
        (&json!("cancelled"), &json!("cancelled")),
        "{outcome}"
    );
    assert!(outcome["bytes"].as_u64().unwrap() > 10, "what left is not on record: {outcome}");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_credential_ends_what_runs() {
    let server = provider::start(Speaks::Chat, |body| match body["stream"] == true {
        true => hanging(body),
        false => Does::Raw(vec![Step::Hold]),
    })
    .await;
    let rig = Rig::start(Wish { agents: vec!["other"], ..wish(Speaks::Chat, &server) }).await;
    let mut stream = Asks::Chat.stream(&rig, "hi", &[]).await;
    stream.next().await.unwrap();
    let whole = async { Asks::Chat.ask(&rig, "hi").await };
    let revoked = async {
        eventually("both run", async || (rig.records_of("intent").await.len() == 2).then_some(())).await;
        let agent = castra_core::AgentName::new("tester").unwrap();
        rig.state.revoke_agent(&agent, castra_store::clock::now()).unwrap();
        rig.reload_credentials();
    };
    let (whole, ()) = tokio::join!(whole, revoked);
    assert_eq!(whole.status, 401, "{}", whole.body);
    let rest = tokio::time::timeout(Duration::from_secs(5), stream.rest()).await.unwrap();
    assert!(rest.contains("revoked") && rest.contains("\"error\""), "{rest}");
    for outcome in rig.outcomes(2).await {
        assert_eq!(outcome["status"], "cancelled", "{outcome}");
    }
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_text_waits_for_its_end() {
    let server = provider::start(Speaks::Chat, hanging).await;
    let policies = r#"@inspect("hold") permit (principal, action, resource);"#;
    let limits = castra_core::Limits { call_time_max: Duration::from_millis(300), ..Default::default() };
    let rig = Rig::start(Wish { policies, limits, ..wish(Speaks::Chat, &server) }).await;
    let events = Asks::Chat.stream(&rig, "hi", &[]).await.rest().await;
    // The time was over before all was there, so nothing of it left.
    assert!(!events.contains("hello"), "{events}");
    assert!(events.contains("\"error\""), "{events}");
    assert_eq!(rig.outcomes(1).await[0]["status"], "timeout");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_gate_ends_its_streams() {
    let server = provider::start(Speaks::Chat, hanging).await;
    let limits = castra_core::Limits { drain_time_max: Duration::from_millis(100), ..Default::default() };
    let rig = Rig::start(Wish { limits, ..wish(Speaks::Chat, &server) }).await;
    let mut stream = Asks::Chat.stream(&rig, "hi", &[]).await;
    stream.next().await.unwrap();
    let (rest, cut) = tokio::join!(stream.rest(), rig.gate.drain());
    assert_eq!(cut, 1);
    assert!(rest.contains("shutting down"), "{rest}");
    assert_eq!(rig.outcomes(1).await[0]["status"], "cancelled");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_response_is_gone_on_from_by_whom_it_was_for() {
    let server = provider::saying(Speaks::Responses, Says::text(&["hello"])).await;
    let rig = Rig::start(Wish { agents: vec!["other"], ..wish(Speaks::Responses, &server) }).await;
    Asks::Responses.stream(&rig, "hi", &[]).await.rest().await;
    let mut more = Asks::Responses.request("and?", &[], false);
    more["previous_response_id"] = "resp_1".into();
    let by = async |token: &str| {
        let token = format!("Bearer {token}");
        let headers = [("authorization", token.as_str())];
        rig.request("POST", Asks::Responses.path(), &headers, more.to_string().as_bytes()).await
    };
    assert_eq!(by(&rig.tokens["tester"]).await.status, 200);
    let foreign = by(&rig.tokens["other"]).await;
    assert_eq!(foreign.status, 404, "{}", foreign.body);
    rig.close_and_verify().await;
}
