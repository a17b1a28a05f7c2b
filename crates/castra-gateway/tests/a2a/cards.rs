//! Cards: rewritten, shown to those who may send, verified, pinned.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use castra_identity::Jwks;
use castra_protocol::a2a::AgentCard;
use castra_store::clock;
use serde_json::{Value, json};

use crate::{
    peer::{Client, Peer, message},
    rig::{ALL, Rig, Wish, eventually},
};

const CARD: &str = "/a2a/planner/.well-known/agent-card.json";

async fn problem(rig: &Rig, wanted: impl Fn(Option<&str>) -> bool) -> Option<String> {
    eventually("the card is judged", async || {
        let problem = rig.gate.peers()[0].problem.clone();
        wanted(problem.as_deref()).then_some(problem)
    })
    .await
}

#[tokio::test]
async fn the_card_leads_to_the_gate_and_is_for_those_who_may_send() {
    let peer = Peer::good().await;
    let policies = r#"permit (principal == Castra::Agent::"tester", action, resource);"#;
    let wish = Wish { peers: vec![peer.parts()], policies, agents: vec!["other"], ..Wish::default() };
    let rig = peer.gate_with(wish).await;
    let got = rig.request("GET", CARD, &[], b"").await;
    assert_eq!(got.status, 200);
    assert!(!got.body.contains(&peer.server.address.to_string()), "{}", got.body);
    let card = got.json();
    for interface in card["supportedInterfaces"].as_array().unwrap() {
        assert_eq!(interface["url"], "https://gate.example/a2a/planner");
    }
    assert_eq!(card["supportedInterfaces"].as_array().unwrap().len(), 2);
    let token = format!("Bearer {}", rig.tokens["other"]);
    let got = rig.request("GET", CARD, &[("authorization", &token)], b"").await;
    assert_eq!(got.status, 404);
    assert_eq!(rig.request("GET", CARD, &[("authorization", "")], b"").await.status, 401);
    for client in Client::both(&rig) {
        let got = client.ask("GetExtendedAgentCard", "GET /extendedAgentCard", json!({})).await;
        let card = client.result(&got);
        assert_eq!(card["name"], "Planner for friends");
        assert_eq!(card["supportedInterfaces"][0]["url"], "https://gate.example/a2a/planner");
        assert!(!got.body.contains("direct"), "{}", got.body);
    }
    let keys = rig.request("GET", "/.well-known/jwks.json", &[("authorization", "")], b"").await;
    assert!(Jwks::parse(keys.body.as_bytes()).is_ok());
    rig.close_and_verify().await;
}

#[tokio::test]
async fn a_changed_card_closes_the_peer_until_it_is_accepted() {
    let peer = Peer::good().await;
    let rig = peer.gate().await;
    let [client, _] = Client::both(&rig);
    assert_eq!(client.send(message("x")).await.status, 200);
    peer.card.lock()["description"] = json!("Plans otherwise");
    rig.reload_credentials();
    let why = problem(&rig, |p| p.is_some()).await.unwrap();
    assert!(why.contains("another card"), "{why}");
    let got = client.send(message("x")).await;
    assert_eq!(client.reason(&got), "AGENT_UNAVAILABLE");
    assert!(got.body.contains("castra peer accept planner"), "{}", got.body);
    assert_eq!(rig.request("GET", CARD, &[], b"").await.status, 503);
    let name = castra_core::PeerName::new("planner").unwrap();
    rig.state.accept_card(&name, clock::now()).unwrap().unwrap();
    rig.reload_credentials();
    problem(&rig, |p| p.is_none()).await;
    assert_eq!(client.send(message("x")).await.status, 200);
    let events: Vec<Value> =
        rig.records_of("event").await.into_iter().filter(|e| e["subject"] == "planner").collect();
    let kinds: Vec<&str> = events.iter().filter_map(|e| e["event"].as_str()).collect();
    assert_eq!(kinds, ["peer-pinned", "peer-changed", "peer-accepted"]);
    rig.close_and_verify().await;
}

/// Signs a card as the specification says.
fn signed(card: &Value, pair: &Ed25519KeyPair) -> Value {
    let payload = AgentCard::parse(card.to_string().as_bytes()).unwrap().canonical().unwrap();
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"k1","typ":"JOSE"}"#);
    let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(input.as_bytes()).as_ref());
    let mut card = card.clone();
    card["signatures"] = json!([{"protected": header, "signature": signature}]);
    card
}

#[tokio::test]
async fn where_keys_are_given_the_card_must_be_signed() {
    let peer = Peer::good().await;
    let pair = Ed25519KeyPair::generate().unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k1"}]}).to_string();
    let mut parts = peer.parts();
    parts.keys = Some(Jwks::parse(keys.as_bytes()).unwrap());
    let wish = Wish { peers: vec![parts], policies: ALL, ..Wish::default() };
    let rig = Rig::start(wish).await;
    let why = problem(&rig, |p| p.is_some_and(|p| !p.contains("not here yet"))).await.unwrap();
    assert!(why.contains("no signature"), "{why}");
    let mut forged = signed(&peer.plain_card(), &pair);
    forged["version"] = json!("2");
    *peer.card.lock() = forged;
    rig.reload_credentials();
    assert!(problem(&rig, |p| p.is_some()).await.unwrap().contains("no signature"));
    *peer.card.lock() = signed(&peer.plain_card(), &pair);
    rig.reload_credentials();
    problem(&rig, |p| p.is_none()).await;
    assert!(rig.gate.peers()[0].verified);
    rig.close_and_verify().await;
}

#[tokio::test]
async fn a_card_that_leads_elsewhere_does_not_count() {
    let peer = Peer::good().await;
    peer.card.lock()["supportedInterfaces"][0]["url"] = json!("http://169.254.169.254/latest");
    let rig = Rig::start(Wish { peers: vec![peer.parts()], policies: ALL, ..Wish::default() }).await;
    let why = problem(&rig, |p| p.is_some_and(|p| !p.contains("not here yet"))).await.unwrap();
    assert!(why.contains("169.254.169.254"), "{why}");
    rig.close_and_verify().await;
}
