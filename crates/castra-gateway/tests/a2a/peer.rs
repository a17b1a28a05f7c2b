//! A peer on a real socket, and a gate in front of it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use castra_core::{AgentName, PeerName};
use castra_gateway::{CardSource, DelegationCarrier, PeerParts};
use castra_inspect::{Inspector, Settings};
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    rig::{ALL, Got, Rig, Wish, eventually, http_client},
    server::{self, Seen, Server, Step},
};

pub(crate) const SECRET: &str = "AKIAIOSFODNN7EXAMPLQ";

/// A peer that does what it is told.
pub(crate) struct Peer {
    pub(crate) server: Server,
    pub(crate) card: Arc<Mutex<Value>>,
}

impl Peer {
    /// A peer that answers every operation well.
    pub(crate) async fn good() -> Self {
        let made = Arc::new(AtomicUsize::new(0));
        Self::that(move |seen| good_answer(seen, &made)).await
    }

    /// A peer that answers operations as it is told, and shows its card.
    pub(crate) async fn that(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let card: Arc<Mutex<Value>> = Arc::default();
        let shown = card.clone();
        let server = Server::start(move |seen| match seen.path.as_str() {
            "/.well-known/agent-card.json" => server::json(shown.lock().to_string()),
            _ => script(seen),
        })
        .await;
        let peer = Self { server, card };
        let card = peer.plain_card();
        *peer.card.lock() = card;
        peer
    }

    pub(crate) fn plain_card(&self) -> Value {
        let url = |path: &str| format!("http://{}{path}", self.server.address);
        json!({
            "name": "Planner", "description": "Plans", "version": "1",
            "supportedInterfaces": [
                {"url": url("/rpc"), "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
                {"url": url("/rest/"), "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"},
                {"url": url("/grpc"), "protocolBinding": "GRPC", "protocolVersion": "1.0"}
            ],
            "capabilities": {"streaming": true, "pushNotifications": true, "extendedAgentCard": true},
            "defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"], "skills": []
        })
    }

    pub(crate) fn parts(&self) -> PeerParts {
        let url = format!("http://{}/.well-known/agent-card.json", self.server.address);
        PeerParts {
            name: PeerName::new("planner").unwrap(),
            card: CardSource::Url(url.parse().unwrap()),
            keys: None,
            key_sets: Vec::new(),
            pin: None,
            origins: Vec::new(),
            headers: HeaderMap::from_iter([(
                http::header::AUTHORIZATION,
                HeaderValue::from_static("Bearer s3cret-of-the-gate"),
            )]),
            client: http_client(),
            push: vec!["https://hooks.example/in".to_owned()],
            delegation: DelegationCarrier::Header,
            audience: None,
            fingerprint: 1,
        }
    }

    /// A gate in front of it, under these policies, which looks for secrets.
    pub(crate) fn wish(&self, policies: &'static str) -> Wish {
        let inspector = Inspector::new(&Settings::default()).unwrap();
        Wish { peers: vec![self.parts()], policies, agents: vec!["other"], inspector, ..Wish::default() }
    }

    /// A gate in front of it, once the card counts.
    pub(crate) async fn gate(&self) -> Rig {
        self.gate_with(self.wish(ALL)).await
    }

    pub(crate) async fn gate_with(&self, wish: Wish) -> Rig {
        let rig = Rig::start(wish).await;
        eventually("the card counts", async || {
            rig.gate.peers().iter().all(|peer| peer.problem.is_none()).then_some(())
        })
        .await;
        rig
    }

    /// Requests of the protocol, without those for the card.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.server.requests().into_iter().filter(|seen| !seen.path.contains("well-known")).collect()
    }
}

pub(crate) fn task(id: &str) -> Value {
    json!({"id": id, "contextId": format!("c-{id}"), "status": {"state": "TASK_STATE_COMPLETED"}})
}

/// An answer in the binding of the request.
pub(crate) fn reply(seen: &Seen, result: &Value) -> Vec<Step> {
    if seen.path == "/rpc" {
        let id = &serde_json::from_str::<Value>(&seen.body).unwrap()["id"];
        server::json(json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string())
    } else {
        server::answer("200 OK", "application/a2a+json", result.to_string())
    }
}

/// A stream of events in the binding of the request.
pub(crate) fn events(seen: &Seen, events: &[Value]) -> Vec<Step> {
    let id = serde_json::from_str::<Value>(&seen.body).unwrap_or_default()["id"].clone();
    let mut steps = vec![server::stream()];
    for event in events {
        let data = if seen.path == "/rpc" {
            json!({"jsonrpc": "2.0", "id": id, "result": event})
        } else {
            event.clone()
        };
        steps.push(server::piece(format!("data: {data}\n\n")));
    }
    steps.push(server::end());
    steps
}

fn good_answer(seen: &Seen, made: &AtomicUsize) -> Vec<Step> {
    let body: Value = serde_json::from_str(&seen.body).unwrap_or_default();
    let asked = |field: &str| body["params"][field].as_str().map(str::to_owned);
    let of_path = || seen.path.split(['/', ':', '?']).nth(3).unwrap_or_default().to_owned();
    let id = asked("id").unwrap_or_else(of_path);
    let config = json!({"taskId": id, "id": "p1", "url": "https://hooks.example/in/1", "token": "t"});
    let says = |method: &str, path: &str| {
        seen.says(method)
            || (seen.path.starts_with("/rest") && format!("{} {}", seen.method, seen.path).contains(path))
    };
    if says("SendStreamingMessage", "message:stream") {
        let id = format!("t{}", made.fetch_add(1, Ordering::SeqCst));
        return events(seen, &streamed(&id));
    }
    let result = if says("SendMessage", "message:send") {
        json!({"task": task(&format!("t{}", made.fetch_add(1, Ordering::SeqCst)))})
    } else if says("SubscribeToTask", ":subscribe") {
        return events(seen, &[json!({"task": task(&id)})]);
    } else if says("ListTasks", "GET /rest/tasks?") || seen.path == "/rest/tasks" {
        let all: Vec<Value> = (0..made.load(Ordering::SeqCst)).map(|n| task(&format!("t{n}"))).collect();
        json!({"tasks": all, "totalSize": all.len(), "pageSize": 50, "nextPageToken": ""})
    } else if says("GetExtendedAgentCard", "extendedAgentCard") {
        json!({
            "name": "Planner for friends", "description": "", "version": "1", "skills": [],
            "supportedInterfaces": [{"url": "http://127.0.0.1:1/direct", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]
        })
    } else if says("DeleteTaskPushNotificationConfig", "DELETE") {
        json!({})
    } else if says("ListTaskPushNotificationConfigs", "GET") && seen.path.ends_with("pushNotificationConfigs")
        || seen.says("ListTaskPushNotificationConfigs")
    {
        json!({"configs": [config]})
    } else if says("PushNotificationConfig", "pushNotificationConfigs")
        || seen.says("CreateTaskPushNotificationConfig")
        || seen.says("GetTaskPushNotificationConfig")
    {
        config
    } else {
        task(&id)
    };
    reply(seen, &result)
}

/// What a peer streams: the secret comes in pieces.
pub(crate) fn streamed(id: &str) -> Vec<Value> {
    let context = format!("c-{id}");
    let piece = |text: &str, append: bool, last: bool| {
        json!({"artifactUpdate": {"taskId": id, "contextId": context, "append": append, "lastChunk": last,
            "artifact": {"artifactId": "a", "parts": [{"text": text}]}}})
    };
    let (one, two) = SECRET.split_at(7);
    vec![
        json!({"task": {"id": id, "contextId": context, "status": {"state": "TASK_STATE_WORKING"}}}),
        piece("the key is ", false, false),
        piece(one, true, false),
        json!({"statusUpdate": {"taskId": id, "contextId": context, "status": {"state": "TASK_STATE_WORKING"}}}),
        piece(two, true, false),
        piece(" and that", true, false),
        json!({"statusUpdate": {"taskId": id, "contextId": context, "status": {"state": "TASK_STATE_COMPLETED"}}}),
    ]
}

/// How agents ask.
pub(crate) struct Client<'r> {
    pub(crate) rig: &'r Rig,
    pub(crate) agent: &'static str,
    pub(crate) rpc: bool,
}

impl<'r> Client<'r> {
    /// `tester` in both bindings.
    pub(crate) fn both(rig: &'r Rig) -> [Self; 2] {
        [true, false].map(|rpc| Self { rig, agent: "tester", rpc })
    }

    pub(crate) fn by(&self, agent: &'static str) -> Self {
        Self { agent, ..*self }
    }

    pub(crate) fn headers(&self) -> [(&'static str, String); 3] {
        let name = AgentName::new(self.agent).unwrap();
        let token = format!("Bearer {}", self.rig.tokens[name.as_str()]);
        [
            ("authorization", token),
            ("a2a-version", "1.0".into()),
            ("a2a-extensions", "https://ext.example/1".into()),
        ]
    }

    /// Asks by method and parameters; HTTP+JSON by its own method and path, parameters in the body.
    pub(crate) async fn ask(&self, method: &str, http: &str, params: Value) -> Got {
        let (verb, path, body) = self.request(method, http, params);
        let headers = self.headers();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        self.rig.request(verb, &path, &headers, body.as_bytes()).await
    }

    pub(crate) async fn open(&self, method: &str, http: &str, params: Value) -> crate::rig::Stream {
        let (verb, path, body) = self.request(method, http, params);
        let headers = self.headers();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        self.rig.open(verb, &path, &headers, body.as_bytes()).await
    }

    fn request<'h>(&self, method: &str, http: &'h str, params: Value) -> (&'h str, String, String) {
        if self.rpc {
            let body = json!({"jsonrpc": "2.0", "id": "r1", "method": method, "params": params});
            return ("POST", "/a2a/planner".to_owned(), body.to_string());
        }
        let (verb, path) = http.split_once(' ').unwrap();
        let body = if verb == "POST" { params.to_string() } else { String::new() };
        (verb, format!("/a2a/planner{path}"), body)
    }

    pub(crate) async fn send(&self, message: Value) -> Got {
        self.ask("SendMessage", "POST /message:send", json!({"message": message})).await
    }

    /// Has a task made, and gives its id.
    pub(crate) async fn task(&self) -> String {
        let got = self.send(message("ave")).await;
        self.result(&got)["task"]["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn result(&self, got: &Got) -> Value {
        let json = got.json();
        if self.rpc { json["result"].clone() } else { json }
    }

    /// The reason that the error's details name.
    pub(crate) fn reason(&self, got: &Got) -> String {
        let error = &got.json()["error"];
        let details = if self.rpc { &error["data"] } else { &error["details"] };
        details[0]["reason"].as_str().unwrap_or_else(|| panic!("no error: {}", got.body)).to_owned()
    }

    /// The messages of a stream, without their envelopes.
    pub(crate) async fn events(&self, mut stream: crate::rig::Stream) -> Vec<Value> {
        let mut all = Vec::new();
        while let Some(mut event) = stream.next().await {
            all.push(if self.rpc && event["error"].is_null() { event["result"].take() } else { event });
        }
        all
    }
}

pub(crate) fn message(text: &str) -> Value {
    json!({"messageId": "m", "role": "ROLE_USER", "parts": [{"text": text}]})
}
