//! Streams of events: inspected wherever their pieces end, and ended as the protocol wants.

use castra_core::StreamMode;
use serde_json::{Value, json};

use crate::{
    peer::{Client, Peer, SECRET, events, message, streamed},
    server::{self, Step},
};

fn artifact_text(events: &[Value]) -> String {
    let parts = events.iter().filter_map(|e| e["artifactUpdate"]["artifact"]["parts"].as_array()).flatten();
    parts.filter_map(|part| part["text"].as_str()).collect()
}

#[tokio::test]
async fn a_secret_in_pieces_is_masked_before_the_stream_pauses() {
    let peer = Peer::good().await;
    for policies in
        ["permit (principal, action, resource);", "@inspect(\"hold\") permit (principal, action, resource);"]
    {
        let rig = peer.gate_with(peer.wish(policies)).await;
        for client in Client::both(&rig) {
            let params = json!({"message": message("tell me")});
            let stream = client.open("SendStreamingMessage", "POST /message:stream", params).await;
            assert_eq!(stream.status, 200);
            assert!(stream.headers.contains_key("castra-receipt"));
            let events = client.events(stream).await;
            assert_eq!(artifact_text(&events), "the key is [redacted:aws-access-key] and that", "{events:?}");
            let last = events.last().unwrap();
            assert_eq!(last["statusUpdate"]["status"]["state"], "TASK_STATE_COMPLETED", "{events:?}");
            assert_eq!(last["statusUpdate"]["taskId"], events[0]["task"]["id"]);
        }
        for outcome in rig.outcomes(2).await {
            assert_eq!(outcome["status"], "ok");
            assert_eq!(outcome["findings"], json!(["secret.aws-access-key"]));
        }
        rig.close_and_verify().await;
    }
}

#[tokio::test]
async fn what_passes_uninspected_says_so() {
    let peer = Peer::good().await;
    let policies = "@inspect(\"pass\") permit (principal, action, resource);";
    let rig = peer.gate_with(peer.wish(policies)).await;
    for client in Client::both(&rig) {
        let params = json!({"message": message("tell me")});
        let stream = client.open("SendStreamingMessage", "POST /message:stream", params).await;
        assert_eq!(stream.headers["castra-inspection"], "none");
        assert!(artifact_text(&client.events(stream).await).contains(SECRET));
    }
    for outcome in rig.outcomes(2).await {
        assert_eq!(outcome["inspection"], StreamMode::Pass.as_str());
    }
    rig.close_and_verify().await;
}

#[tokio::test]
async fn a_stream_that_goes_wrong_ends_with_an_error() {
    for (what, after) in [
        ("half an event", vec![server::piece("data: {\"task\":"), server::end()]),
        ("not the protocol", vec![server::piece("data: <html>\n\n"), server::end()]),
        ("another's task", vec![server::piece("data: {\"task\":{\"id\":\"t9\"}}\n\n"), server::end()]),
        ("broken off", vec![Step::Close]),
    ] {
        let peer = Peer::that(move |seen| {
            let mut steps = events(seen, &streamed("t1")[..2]);
            steps.pop();
            steps.extend(after.clone());
            steps
        })
        .await;
        let rig = peer.gate().await;
        let [_, client] = Client::both(&rig);
        let owner = castra_core::AgentName::new("other").unwrap();
        let name = castra_core::PeerName::new("planner").unwrap();
        rig.state
            .claim(&name, castra_store::PeerThing::Task, "t9", &owner, castra_store::clock::now())
            .unwrap();
        let stream = client
            .open("SendStreamingMessage", "POST /message:stream", json!({"message": message("x")}))
            .await;
        let events = client.events(stream).await;
        let error = &events.last().unwrap()["error"];
        assert_eq!(error["details"][0]["reason"], "INVALID_AGENT_RESPONSE", "{what}: {events:?}");
        assert_eq!(rig.outcomes(1).await[0]["status"], "upstream-failed", "{what}");
        rig.close_and_verify().await;
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_credential_that_opened_it() {
    let peer = Peer::that(|seen| {
        let mut steps = events(seen, &streamed("t1")[..1]);
        steps.pop();
        steps.push(Step::Hold);
        steps
    })
    .await;
    let rig = peer.gate().await;
    let [client, _] = Client::both(&rig);
    let params = json!({"message": message("x")});
    let mut stream = client.by("other").open("SendStreamingMessage", "", params).await;
    assert!(stream.next().await.is_some());
    rig.state
        .revoke_agent(&castra_core::AgentName::new("other").unwrap(), castra_store::clock::now())
        .unwrap();
    rig.reload_credentials();
    let last = stream.next().await.unwrap();
    assert_eq!(last["error"]["data"][0]["reason"], "CANCELLED", "{last}");
    assert!(stream.next().await.is_none());
    rig.close_and_verify().await;
}
