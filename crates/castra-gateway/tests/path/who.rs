//! Who gets in, and for how long: tokens, client certificates, JWTs and their scopes.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use castra_core::AgentName;
use castra_identity::{Issuer, IssuerConfig, Jwks, certificate};
use castra_net::client::HttpClient;
use castra_store::clock;
use serde_json::{Value, json};

use crate::{
    rig::{ALL, Ask, Got, Rig, Wish, domain, eventually},
    server::Server,
    servers::{self, Era},
};

const PATH: &str = "/mcp/files";

async fn rig(wish: Wish) -> (Rig, Server) {
    let server = servers::modern().await;
    let rig = Rig::start(Wish { servers: vec![("files", server.transport())], policies: ALL, ..wish }).await;
    rig.learned("files", servers::TOOLS).await;
    (rig, server)
}

fn look() -> Value {
    json!({"name": "look", "arguments": {}})
}

#[track_caller]
fn passed(got: &Got) {
    assert_eq!(got.status, 200, "{}", got.body);
    assert_eq!(got.json()["result"]["content"][0]["text"], "look done", "{}", got.body);
}

#[track_caller]
fn turned_away(got: &Got, why: &str) {
    assert_eq!(got.status, 401, "{}", got.body);
    assert_eq!(got.json()["error"]["code"], "bad-credential", "{}", got.body);
    assert!(got.json()["error"]["message"].as_str().unwrap().contains(why), "{why}: {}", got.body);
    assert!(got.header("www-authenticate").contains("error=\"invalid_token\""), "{:?}", got.headers);
}

fn name(agent: &str) -> AgentName {
    AgentName::new(agent).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_agent_is_out_with_everything_that_it_has_open() {
    let (modern, stage) = servers::lively(Era::Modern).await;
    let (legacy, _) = servers::lively(Era::Legacy).await;
    let servers = vec![("new", modern.transport()), ("old", legacy.transport())];
    let rig = Rig::start(Wish { servers, policies: ALL, agents: vec!["other"], ..Wish::default() }).await;
    rig.learned("new", servers::LIVELY).await;
    rig.learned("old", servers::LIVELY).await;
    let (session, _) = rig.initialize("/mcp/old", json!({})).await;
    let mut heard = rig.listen("/mcp/old", &session).await;
    rig.modern("/mcp/old", "tools/call", look()).await;
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let mut subscribed = rig.modern_open("/mcp/new", "subscriptions/listen", wanted.clone()).await;
    subscribed.next().await.unwrap();
    let mut joined = rig.modern_open("/mcp", "subscriptions/listen", wanted).await;
    joined.next().await.unwrap();
    let mut running = rig
        .modern_open("/mcp/new", "tools/call", json!({"name": "begin", "_meta": {"progressToken": 1}}))
        .await;
    running.next().await.unwrap();
    let gate = &rig.gate;
    let deleted = || legacy.requests().iter().filter(|s| s.method == "DELETE").count();
    let before = deleted();

    rig.state.revoke_agent(&name("tester"), clock::now()).unwrap();
    rig.reload_credentials();
    turned_away(&rig.modern("/mcp/new", "tools/call", look()).await, "revoked");
    assert!(heard.next().await.is_none(), "the session's stream goes on");
    let end = running.next().await.expect("the call that runs is answered");
    assert!(end["error"]["message"].as_str().unwrap().contains("revoked"), "{end}");
    assert!(running.next().await.is_none());
    while subscribed.next().await.is_some() {}
    while joined.next().await.is_some() {}
    // One session of the client's own, one that the gate kept for the modern calls.
    eventually("both sessions at the server end", async || (deleted() >= before + 2).then_some(())).await;

    // Nothing of it comes back by itself, and others are not touched.
    let asked = modern.requests().len();
    tokio::time::sleep(Duration::from_millis(2300)).await;
    assert_eq!(modern.requests().len(), asked, "something goes on for a revoked agent");
    let other = rig.modern_by(&rig.tokens["other"], "/mcp/new", "tools/call", look()).await;
    assert_eq!(other.json()["result"]["content"][0]["text"], "look done", "{}", other.body);
    assert_eq!(gate.servers().len(), 2);
    stage.go.give();
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_ends_what_was_opened_with_it() {
    let (server, _stage) = servers::lively(Era::Modern).await;
    let servers = vec![("files", server.transport())];
    let rig = Rig::start(Wish { servers, policies: ALL, ..Wish::default() }).await;
    rig.learned("files", servers::LIVELY).await;
    let (session, _) = rig.initialize(PATH, json!({})).await;
    let mut heard = rig.listen(PATH, &session).await;
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let mut subscribed = rig.modern_open("/mcp", "subscriptions/listen", wanted).await;
    subscribed.next().await.unwrap();

    let now = clock::now();
    let fresh = rig.state.rotate_token(&name("tester"), None, Duration::from_secs(60), now).unwrap();
    rig.keep_secret(fresh.token.expose());
    let detail = rig.state.agent(&name("tester"), now).unwrap();
    let old = detail.tokens.iter().find(|t| t.id != fresh.id).unwrap();
    rig.state.revoke_token(&name("tester"), &old.id, now).unwrap();
    rig.reload_credentials();
    turned_away(&rig.modern(PATH, "tools/call", look()).await, "revoked");
    assert!(heard.next().await.is_none(), "the stream goes on");
    while subscribed.next().await.is_some() {}
    // The agent itself is as good as before.
    passed(&rig.modern_by(fresh.token.expose(), PATH, "tools/call", look()).await);
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_end_and_overlap() {
    let (rig, _server) = rig(Wish::default()).await;
    let now = clock::now();
    let life = Some(Duration::from_secs(60));
    let old = rig.state.add_agent(&name("old"), &[], life, now.plus_secs(-120)).unwrap();
    rig.keep_secret(old.token.expose());
    rig.reload_credentials();
    turned_away(&rig.modern_by(old.token.expose(), PATH, "tools/call", look()).await, "expired");

    let overlap = Duration::from_secs(3);
    let fresh = rig.state.rotate_token(&name("tester"), None, overlap, clock::now()).unwrap();
    rig.keep_secret(fresh.token.expose());
    rig.reload_credentials();
    passed(&rig.modern(PATH, "tools/call", look()).await);
    passed(&rig.modern_by(fresh.token.expose(), PATH, "tools/call", look()).await);
    tokio::time::sleep(overlap).await;
    turned_away(&rig.modern(PATH, "tools/call", look()).await, "expired");
    passed(&rig.modern_by(fresh.token.expose(), PATH, "tools/call", look()).await);
    rig.close_and_verify().await;
}

/// A call by a client with this certificate and this token, if any.
async fn call_by(rig: &Rig, client: &HttpClient, token: &str) -> Result<Got, String> {
    let ask = Ask::modern("tools/call", look(), json!({})).by(token);
    let got = rig.request_by(client, "POST", PATH, &ask.headers(), ask.body.as_bytes()).await;
    got.map_err(|e| e.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_of_the_built_in_ca() {
    let (rig, _server) = rig(Wish { tls: true, agents: vec!["other"], ..Wish::default() }).await;
    let now = clock::now();
    let issued = rig.state.issue_certificate(&name("tester"), &rig.authority, &domain(), 7, now).unwrap();
    rig.reload_credentials();
    let client = rig.client_with(&issued.certificate_pem, &issued.key_pem);
    passed(&call_by(&rig, &client, "").await.unwrap());
    let intents = rig.records_of("intent").await;
    assert_eq!((&intents[0]["agent"], &intents[0]["auth"]), (&json!("tester"), &json!("certificate")));

    passed(&call_by(&rig, &client, &rig.token).await.unwrap());
    let foreign = call_by(&rig, &client, &rig.tokens["other"]).await.unwrap();
    assert_eq!(foreign.status, 401);
    assert!(foreign.body.contains("another agent"), "{}", foreign.body);
    // Without a certificate a token will do, and with neither nothing does.
    passed(&rig.modern(PATH, "tools/call", look()).await);
    assert_eq!(rig.modern_by("", PATH, "tools/call", look()).await.status, 401);

    // A certificate that the CA's key made behind the store's back.
    let forged = rig.authority.issue_agent(&name("tester"), &domain(), now, 7, [7; 16]).unwrap();
    let forger = rig.client_with(&forged.certificate_pem, &forged.key_pem);
    turned_away(&call_by(&rig, &forger, "").await.unwrap(), "certificate");

    rig.state.revoke_certificate(&issued.serial, clock::now()).unwrap();
    rig.reload_credentials();
    // On the connection that is open already.
    turned_away(&call_by(&rig, &client, "").await.unwrap(), "revoked");

    let ca = certificate::create_authority("stranger", certificate::Curve::P256, now, [9; 16]).unwrap();
    let stranger = certificate::Authority::load(&ca.certificate_pem, &ca.key_pem).unwrap();
    let theirs = stranger.issue_agent(&name("tester"), &domain(), now, 7, [8; 16]).unwrap();
    let refused = call_by(&rig, &rig.client_with(&theirs.certificate_pem, &theirs.key_pem), "").await;
    assert!(refused.is_err(), "a foreign CA's certificate got through the handshake");
    eventually("the handshake's refusal is on record", async || {
        rig.records_of("refusal").await.iter().any(|r| r["step"] == "listen").then_some(())
    })
    .await;
    rig.close_and_verify().await;
}

const ISSUER: &str = "https://idp.example";

struct Idp {
    key: Ed25519KeyPair,
    kid: &'static str,
}

impl Idp {
    fn new(kid: &'static str) -> Self {
        Self { key: Ed25519KeyPair::generate().unwrap(), kid }
    }

    fn issuer(&self) -> Issuer {
        let x = URL_SAFE_NO_PAD.encode(self.key.public_key().as_ref());
        let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": x}]});
        Issuer::new(IssuerConfig::new(ISSUER), Jwks::parse(keys.to_string().as_bytes()).unwrap())
    }

    /// A good token but for these claims.
    fn token(&self, claims: Value) -> String {
        let now = clock::now().secs();
        let mut all = json!({"iss": ISSUER, "sub": "tester", "aud": "https://gate.example/mcp/files",
            "exp": now + 300, "iat": now});
        for (claim, value) in claims.as_object().unwrap() {
            all[claim] = value.clone();
        }
        let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": self.kid});
        let text = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let signed = format!("{}.{}", text(&header), text(&all));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()).as_ref()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jwts_of_an_issuer() {
    let idp = Idp::new("k1");
    let (rig, _server) = rig(Wish { issuers: vec![idp.issuer()], ..Wish::default() }).await;
    let call = async |token: &str| {
        rig.keep_secret(token);
        rig.modern_by(token, PATH, "tools/call", look()).await
    };
    let good = idp.token(json!({}));
    passed(&call(&good).await);
    passed(&call(&good).await);
    let intents = rig.records_of("intent").await;
    assert_eq!((&intents[0]["agent"], &intents[0]["auth"]), (&json!("tester"), &json!("jwt")));
    // What was verified for one resource is not for another.
    turned_away(&rig.modern_by(&good, "/mcp", "tools/list", json!({})).await, "meant for");
    passed(&call(&idp.token(json!({"aud": ["x", "https://gate.example/"]}))).await);

    let past = clock::now().secs() - 3600;
    for (claims, why) in [
        (json!({"aud": "https://other.example/mcp"}), "meant for"),
        (json!({"exp": past}), "expired"),
        (json!({"sub": "nobody"}), "nobody"),
        (json!({"iss": "https://other.example"}), "issuer"),
    ] {
        turned_away(&call(&idp.token(claims)).await, why);
    }
    turned_away(&call(&Idp::new("k1").token(json!({}))).await, "signature");

    rig.state.revoke_agent(&name("tester"), clock::now()).unwrap();
    rig.reload_credentials();
    turned_away(&call(&good).await, "revoked");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_keys_of_an_issuer_arrive_while_a_request_waits() {
    let (old, new) = (Idp::new("k1"), Idp::new("k2"));
    let (rig, _server) = rig(Wish { issuers: vec![old.issuer()], ..Wish::default() }).await;
    let gate = rig.gate.clone();
    let fresh = new.issuer();
    let fetcher = tokio::spawn(async move {
        gate.keys_wanted().notified().await;
        gate.replace_issuers(vec![fresh]);
    });
    let token = new.token(json!({}));
    rig.keep_secret(&token);
    passed(&rig.modern_by(&token, PATH, "tools/call", look()).await);
    fetcher.await.unwrap();
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_narrow_what_a_token_is_good_for() {
    let idp = Idp::new("k1");
    let (rig, server) = rig(Wish { issuers: vec![idp.issuer()], ..Wish::default() }).await;
    let token = idp.token(json!({"scope": "mcp:read openid"}));
    rig.keep_secret(&token);
    let got = rig.modern_by(&token, PATH, "tools/call", look()).await;
    assert_eq!(got.status, 403, "{}", got.body);
    assert_eq!(got.json()["id"], 7, "{}", got.body);
    let challenge = got.header("www-authenticate");
    assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
    assert!(challenge.contains("scope=\"") && challenge.contains("mcp:call"), "{challenge}");
    assert!(challenge.contains("resource_metadata=\"https://gate.example/.well-known/"), "{challenge}");
    assert!(!server.requests().iter().any(|s| s.says("tools/call")), "it reached the server");
    let read = rig.modern_by(&token, PATH, "resources/read", json!({"uri": "test://one"})).await;
    assert_eq!(read.json()["result"]["contents"][0]["text"], "1", "{}", read.body);
    let refusals = rig.records_of("refusal").await;
    assert_eq!(refusals[0]["code"], "insufficient-scope");

    // Listening is reading.
    let token = idp.token(json!({"scope": "mcp:call"}));
    rig.keep_secret(&token);
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let got = rig.modern_by(&token, PATH, "subscriptions/listen", wanted).await;
    assert_eq!(got.status, 403, "{}", got.body);
    assert!(got.header("www-authenticate").contains("mcp:read"), "{:?}", got.headers);
    assert!(!server.requests().iter().any(|s| s.says("subscriptions/listen")), "it reached the server");
    rig.close_and_verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anybody_may_read_how_to_authenticate() {
    let idp = Idp::new("k1");
    let (rig, _server) = rig(Wish { issuers: vec![idp.issuer()], ..Wish::default() }).await;
    let path = "/.well-known/oauth-protected-resource/mcp/files";
    let got = rig.request("GET", path, &[("authorization", "")], b"").await;
    assert_eq!(got.status, 200);
    let document = got.json();
    assert_eq!(document["resource"], "https://gate.example/mcp/files");
    assert_eq!(document["authorization_servers"], json!([ISSUER]));
    assert!(document["scopes_supported"].to_string().contains("mcp:call"), "{document}");
    assert_eq!(rig.request("GET", "/.well-known/oauth-protected-resource/else", &[], b"").await.status, 404);
    assert_eq!(rig.request("POST", path, &[("authorization", "")], b"").await.status, 405);
    let challenge = rig.modern_by("", PATH, "tools/list", json!({})).await;
    let named = format!("resource_metadata=\"https://gate.example{path}\"");
    assert!(challenge.header("www-authenticate").contains(&named), "{:?}", challenge.headers);
    rig.close_and_verify().await;
}

/// Several agents at once keep their own names in the record.
#[tokio::test(flavor = "multi_thread")]
async fn calls_of_many_agents_do_not_mix() {
    let agents = vec!["a", "b", "c", "d"];
    let (rig, _server) = rig(Wish { agents: agents.clone(), ..Wish::default() }).await;
    let rig = Arc::new(rig);
    let calls = agents.iter().copied().map(|agent| {
        let rig = rig.clone();
        tokio::spawn(async move {
            for _ in 0..10 {
                passed(&rig.modern_by(&rig.tokens[agent], PATH, "tools/call", look()).await);
            }
        })
    });
    futures_util::future::join_all(calls).await.into_iter().for_each(|done| done.unwrap());
    let intents = rig.records_of("intent").await;
    for agent in agents {
        assert_eq!(intents.iter().filter(|i| i["agent"] == agent).count(), 10, "{agent}");
    }
    Arc::into_inner(rig).unwrap().close_and_verify().await;
}
