//! The console over a real listener, with a gate that is a few values.

// The tests are a client, which the other crates never are.
#![allow(clippy::disallowed_methods)]

use std::{collections::BTreeSet, net::SocketAddr};

use bytes::Bytes;
use castra_core::{PersonIdentity, PolicyMode, Refusal, RefusalCode, ServerName, Step, Timestamp};
use castra_identity::{Token, TokenKind};
use castra_net::listen::{ListenConfig, Listener, Serving};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::routes::{Access, ROUTES};

struct Gate {
    ready: bool,
    operator: Token,
    link: Token,
    spent: Mutex<BTreeSet<String>>,
}

impl Gate {
    fn new() -> Self {
        Self {
            ready: true,
            operator: Token::new(TokenKind::Operator, [1; 32]),
            link: Token::new(TokenKind::Enrolment, [2; 32]),
            spent: Mutex::default(),
        }
    }
}

const REFUSAL: &[u8] = br#"{"v":1,"kind":"refusal","time":"2026-11-24T22:04:28.000000Z","step":"identify","code":"unauthenticated","reason":"no credential"}"#;

impl GateView for Gate {
    fn checks(&self) -> Vec<Check> {
        let reason = if self.ready { "9 entries" } else { "the disk is <full>" };
        vec![Check { name: "log", ok: self.ready, reason: reason.to_owned() }]
    }

    fn metrics(&self) -> String {
        "# HELP castra_sessions Open sessions.\n# TYPE castra_sessions gauge\ncastra_sessions 0\n".to_owned()
    }

    fn status(&self) -> Status {
        Status {
            version: "0.0.0",
            started: Timestamp::from_secs(1_795_557_868),
            gate: "http://127.0.0.1:8440".to_owned(),
            mode: PolicyMode::Enforce,
            policy_set: "abc".to_owned(),
            policies: 3,
            in_flight: 0,
            log: LogStatus {
                key: "log+1+a".to_owned(),
                appended: 2,
                durable: 2,
                integrated: 1,
                failed: None,
            },
        }
    }

    fn servers(&self) -> Vec<ServerView> {
        let tools = vec![ToolView { id: "files/read".to_owned(), effect: "read" }];
        let id = ServerName::new("files").unwrap();
        vec![ServerView { id, transport: "stdio", revision: Some("2025-11-25"), problem: None, tools }]
    }

    fn approvals(&self) -> Result<Vec<Value>, ViewError> {
        Ok(vec![json!({"id": "lusab-babad"})])
    }

    fn budgets(&self) -> Result<Vec<Value>, ViewError> {
        Ok(vec![json!({"id": "team-day"})])
    }

    fn operator(&self, token: &str) -> Result<Arc<PersonIdentity>, Refusal> {
        if token == self.operator.expose() {
            return Ok(Arc::new(PersonIdentity { id: "ada".into() }));
        }
        Err(Refusal::new(Step::Identify, RefusalCode::BadCredential, "this token is not known"))
    }

    fn agents(&self) -> Result<Vec<Value>, ViewError> {
        Ok(vec![json!({"id": "build-bot"})])
    }

    fn entries(&self, start: u64, limit: usize) -> Result<Vec<Bytes>, ViewError> {
        let all = [Bytes::from_static(REFUSAL), Bytes::from_static(b"{}")];
        Ok(all.into_iter().skip(usize::try_from(start).unwrap_or(usize::MAX)).take(limit).collect())
    }

    fn log_file(&self, path: &str) -> Result<Option<Vec<u8>>, ViewError> {
        match path {
            "checkpoint" | "tile/0/000.p/2" | "tile/entries/x001/234" => Ok(Some(path.as_bytes().to_vec())),
            "tile/0/666" => Err(ViewError("the disk does not answer".to_owned())),
            _ => Ok(None),
        }
    }

    fn enrol(&self, secret: &str) -> Result<Enrolled, EnrolError> {
        if secret != self.link.expose() {
            return Err(EnrolError::Unknown);
        }
        if !self.spent.lock().insert(secret.to_owned()) {
            return Err(EnrolError::Used);
        }
        let token = self.operator.expose().to_owned();
        Ok(Enrolled { person: "ada <ada@a.example>".to_owned(), token, expires: None })
    }
}

struct Rig {
    address: SocketAddr,
    token: String,
    link: String,
    _serving: Serving,
}

type Answer = Response<Bytes>;

impl Rig {
    fn new(gate: Gate, open: bool) -> Self {
        let addresses = vec!["127.0.0.1:0".parse().unwrap()];
        let listen = ListenConfig { name: "console", addresses, tls: None, limits: Default::default() };
        let listener = Listener::bind(listen).unwrap();
        let address = listener.addresses()[0];
        let sites = SiteRules::new(&[address.ip()], &[], &[]).unwrap();
        let (token, link) = (gate.operator.expose().to_owned(), gate.link.expose().to_owned());
        let console = Console::new(ConsoleConfig { sites, open }, Arc::new(gate));
        let serving = listener.serve(move |_| console.service());
        Self { address, token, link, _serving: serving }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[]).await
    }

    async fn get_as(&self, token: &str, path: &str) -> Answer {
        self.send("GET", path, &[("authorization", &format!("Bearer {token}"))]).await
    }
}

fn text(answer: &Answer) -> &str {
    std::str::from_utf8(answer.body()).unwrap()
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |v| v.to_str().unwrap())
}

fn as_json(answer: &Answer) -> Value {
    serde_json::from_slice(answer.body()).unwrap()
}

/// A path of each route that exists in the gate of these tests.
fn example(rig: &Rig, path: &str) -> String {
    match path {
        "/log/{*path}" => "/log/checkpoint".to_owned(),
        "/enroll/{secret}" => format!("/enroll/{}", rig.link),
        plain => plain.to_owned(),
    }
}

#[tokio::test]
async fn every_route_is_given_to_those_who_may_have_it_and_to_nobody_else() {
    for open in [true, false] {
        let rig = Rig::new(Gate::new(), open);
        for route in ROUTES {
            let path = example(&rig, route.path);
            let guarded = match route.access {
                Access::Anyone | Access::Secret => false,
                Access::AnyoneIfOpen => !open,
                Access::Operator => true,
            };
            assert_eq!(route.path.starts_with("/api/"), route.access == Access::Operator, "{path}");
            let (without, with) = (rig.get(&path).await, rig.get_as(&rig.token, &path).await);
            assert_eq!(with.status(), StatusCode::OK, "{path} for an operator");
            assert_eq!(header(&with, "x-content-type-options"), "nosniff", "{path}");
            assert!(header(&with, "content-security-policy").starts_with("default-src 'none'"), "{path}");
            let expected = if guarded { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
            assert_eq!(without.status(), expected, "{path} for anybody");
            if guarded {
                assert_eq!(header(&without, "www-authenticate"), r#"Bearer realm="castra-console""#);
                for bad in [rig.link.as_str(), "", "castra_operator_x"] {
                    let answer = rig.get_as(bad, &path).await;
                    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path} with {bad:?}");
                }
                let basic =
                    rig.send("GET", &path, &[("authorization", &format!("Basic {}", rig.token))]).await;
                assert_eq!(basic.status(), StatusCode::UNAUTHORIZED, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn only_our_own_names_and_sites_are_answered() {
    let rig = Rig::new(Gate::new(), true);
    let foreign: [&[(&str, &str)]; 3] =
        [&[("host", "evil.example")], &[("origin", "https://evil.example")], &[("origin", "null")]];
    for headers in foreign {
        for route in ROUTES {
            let answer = rig.send("GET", &example(&rig, route.path), headers).await;
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{} {headers:?}", route.path);
        }
    }
    let twice = rig.send("GET", "/", &[("origin", "http://localhost"), ("origin", "http://localhost")]).await;
    assert_eq!(twice.status(), StatusCode::BAD_REQUEST);
    let own = format!("http://{}", rig.address);
    assert_eq!(rig.send("GET", "/", &[("origin", &own)]).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn readiness_gives_reasons_to_those_who_may_know() {
    let rig = Rig::new(Gate { ready: false, ..Gate::new() }, false);
    let (anybody, operator) = (rig.get("/readyz").await, rig.get_as(&rig.token, "/readyz").await);
    assert_eq!(anybody.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(as_json(&anybody), json!({"ready": false, "checks": [{"name": "log", "ok": false}]}));
    assert_eq!(as_json(&operator)["checks"][0]["reason"], "the disk is <full>");
    assert_eq!(rig.get("/healthz").await.status(), StatusCode::OK);
    let home = rig.get_as(&rig.token, "/").await;
    assert!(text(&home).contains("the disk is &lt;full&gt;") && text(&home).contains("not ready"));
    assert!(!text(&rig.get("/").await).contains("the disk"));

    let rig = Rig::new(Gate::new(), true);
    assert_eq!(as_json(&rig.get("/readyz").await)["checks"][0]["reason"], "9 entries");
    assert!(header(&rig.get("/metrics").await, "content-type").starts_with("text/plain; version=0.0.4"));
}

#[tokio::test]
async fn the_log_is_served_as_tiles_and_nothing_else() {
    let rig = Rig::new(Gate::new(), true);
    let checkpoint = rig.get("/log/checkpoint").await;
    assert_eq!(header(&checkpoint, "content-type"), "text/plain; charset=utf-8");
    assert_eq!(header(&checkpoint, "cache-control"), "no-store");
    for path in ["tile/0/000.p/2", "tile/entries/x001/234"] {
        let tile = rig.get(&format!("/log/{path}")).await;
        assert_eq!((tile.status(), text(&tile)), (StatusCode::OK, path));
        assert_eq!(header(&tile, "content-type"), "application/octet-stream");
        assert!(header(&tile, "cache-control").contains("immutable"));
    }
    for path in [
        "tile/0/001",
        "tile/0/1",
        "tile/0/000.p/0",
        "tile/../../keys/master",
        "tile/0/%2e%2e/%2e%2e/000",
        "..%2fjournal",
        "checkpoint/",
        "log.vkey",
        "%00",
    ] {
        assert_eq!(rig.get(&format!("/log/{path}")).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let broken = rig.get("/log/tile/0/666").await;
    assert_eq!(broken.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(as_json(&broken)["error"]["message"], "the disk does not answer");
    assert_eq!(header(&broken, "cache-control"), "no-store");
}

#[tokio::test]
async fn an_enrolment_link_works_once_and_only_by_its_form() {
    let rig = Rig::new(Gate::new(), false);
    let path = format!("/enroll/{}", rig.link);
    for _ in 0..2 {
        let page = rig.get(&path).await;
        assert_eq!(page.status(), StatusCode::OK);
        assert!(text(&page).contains(&format!("action=\"{path}\"")) && !text(&page).contains(&rig.token));
        assert_eq!(header(&page, "cache-control"), "no-store");
    }
    let done = rig.send("POST", &path, &[]).await;
    assert_eq!(done.status(), StatusCode::OK);
    assert!(text(&done).contains(&rig.token) && text(&done).contains("ada &lt;ada@a.example&gt;"));
    let again = rig.send("POST", &path, &[]).await;
    assert_eq!(again.status(), StatusCode::GONE);
    assert!(text(&again).contains("was used already") && text(&again).contains("castra person enroll"));

    let cut = rig.get(&path[..path.len() - 1]).await;
    assert!(cut.status() == StatusCode::NOT_FOUND && text(&cut).contains("not complete"));
    let other = Token::new(TokenKind::Enrolment, [9; 32]);
    let unknown = rig.send("POST", &format!("/enroll/{}", other.expose()), &[]).await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    let operator = rig.send("POST", &format!("/enroll/{}", rig.token), &[]).await;
    assert_eq!(operator.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_api_lists_what_there_is() {
    let rig = Rig::new(Gate::new(), true);
    let get = async |path: &str| as_json(&rig.get_as(&rig.token, path).await);
    assert_eq!(get("/api/v1/status").await["log"]["durable"], 2);
    assert_eq!(get("/api/v1/agents").await, json!({"agents": [{"id": "build-bot"}]}));
    assert_eq!(get("/api/v1/approvals").await, json!({"approvals": [{"id": "lusab-babad"}]}));
    assert_eq!(get("/api/v1/budgets").await, json!({"budgets": [{"id": "team-day"}]}));
    assert_eq!(get("/api/v1/servers").await["servers"][0]["tools"][0]["id"], "files/read");
    let all = get("/api/v1/log/records").await;
    assert_eq!(all["records"][0]["record"]["code"], "unauthenticated");
    assert!(all["records"][1]["problem"].is_string() && all["next_after"] == 1);
    assert_eq!(get("/api/v1/log/records?limit=1").await["next_after"], 0);
    assert_eq!(get("/api/v1/log/records?after=1").await, json!({"records": [], "next_after": 1}));
    for bad in ["after=x", "limit=-1", "afer=1"] {
        let answer = rig.get_as(&rig.token, &format!("/api/v1/log/records?{bad}")).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{bad}");
    }
    assert_eq!(rig.get("/api/v2/status").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(rig.send("DELETE", "/api/v1/agents", &[]).await.status(), StatusCode::UNAUTHORIZED);
}
