//! On whose behalf: the chain comes in with a token, policies limit it, and it is carried on.

use castra_core::{AgentIdentity, AgentName, AuthMethod};
use castra_identity::{Issuer, IssuerConfig, Jwks, Minter, jwt};
use castra_store::clock;
use serde_json::json;

use crate::{
    peer::{Peer, message},
    rig::Wish,
};

/// A token of the issuer that says that `tester` acts for others.
fn token(issuer: &Minter, chain: &[&str]) -> String {
    let agent = AgentIdentity {
        name: AgentName::new("tester").unwrap(),
        groups: Vec::new(),
        method: AuthMethod::Token,
        credential: "x".into(),
        expires: None,
        scopes: Vec::new(),
        delegation: chain.iter().map(|name| (*name).into()).collect(),
    };
    issuer.mint(&agent, "https://gate.example/a2a/planner", "j1", clock::now())
}

#[tokio::test]
async fn the_chain_is_limited_by_policy_and_carried_on() {
    let peer = Peer::good().await;
    let minter = Minter::new(&[3; 32], "https://issuer.example").unwrap();
    let keys = Jwks::parse(minter.key_set().as_bytes()).unwrap();
    let issuer = Issuer::new(IssuerConfig::new("https://issuer.example"), keys);
    let policies = "permit (principal, action, resource) when { context.delegation.depth <= 2 };";
    let wish = Wish { peers: vec![peer.parts()], policies, issuers: vec![issuer], ..Wish::default() };
    let rig = peer.gate_with(wish).await;
    let gates_keys = rig.request("GET", "/.well-known/jwks.json", &[], b"").await;
    let gates_keys = Jwks::parse(gates_keys.body.as_bytes()).unwrap();
    let gate = Issuer::new(IssuerConfig::new("https://gate.example"), gates_keys);
    for (chain, passes) in
        [(&[][..], true), (&["alice"], true), (&["intake", "alice"], true), (&["b", "a", "alice"], false)]
    {
        let bearer = format!("Bearer {}", token(&minter, chain));
        let body =
            json!({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message("x")}});
        let headers = [("authorization", bearer.as_str()), ("a2a-version", "1.0")];
        let got = rig.request("POST", "/a2a/planner", &headers, body.to_string().as_bytes()).await;
        assert_eq!(got.json()["error"].is_null(), passes, "{chain:?}: {}", got.body);
        if !passes {
            continue;
        }
        let seen = peer.requests().pop().unwrap();
        let audience = format!("http://{}/rpc", peer.server.address);
        let carried = jwt::verify(seen.header("castra-delegation"), &gate, &audience, clock::now()).unwrap();
        assert_eq!(carried.agent.as_str(), "tester");
        assert_eq!(carried.delegation.iter().map(|n| &**n).collect::<Vec<_>>(), chain);
        assert!(!seen.body.contains(&bearer) && !seen.headers.values().any(|v| *v == bearer));
    }
    rig.close_and_verify().await;
}
