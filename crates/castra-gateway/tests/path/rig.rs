//! A whole gate on a real socket, with its state in a folder that goes away.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use castra_core::{AgentName, Effect, Limits, PolicyMode, ServerName};
use castra_gateway::{
    AllowedAsks, Gate, GateParts, ServerParts, ToolOverride,
    metrics::Metrics,
    upstream::{Transport, UpstreamConfig},
};
use castra_identity::{ResourceServer, SiteRules};
use castra_ledger::{Record, Signer, VerifierKey, verify_log};
use castra_net::{
    client::{ClientSettings, HttpClient},
    listen::{ListenConfig, Listener, Serving, answer},
};
use castra_policy::{Catalogue, Engine, PolicySource};
use castra_store::{
    StateDir, clock,
    log::{FolderSource, Log, LogOptions},
};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tempfile::TempDir;

/// What a test wants.
pub(crate) struct Wish {
    pub(crate) servers: Vec<(&'static str, Transport)>,
    pub(crate) policies: &'static str,
    pub(crate) mode: PolicyMode,
    pub(crate) limits: Limits,
    /// Effects that the manifest states, as `server/tool`.
    pub(crate) effects: Vec<(&'static str, Effect)>,
    pub(crate) allow: AllowedAsks,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            policies: castra_policy::STARTER_POLICY,
            mode: PolicyMode::Enforce,
            limits: Limits::default(),
            effects: Vec::new(),
            allow: AllowedAsks { sampling: true, elicitation: true, roots: true },
        }
    }
}

pub(crate) struct Rig {
    pub(crate) gate: Arc<Gate>,
    pub(crate) token: String,
    pub(crate) log: Log,
    address: String,
    client: HttpClient,
    folder: TempDir,
    serving: Option<Serving>,
}

pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The messages of a stream of events.
    pub(crate) fn events(&self) -> Vec<serde_json::Value> {
        let data = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

fn http_client() -> HttpClient {
    let tls = castra_net::client::machine_tls(false).unwrap();
    HttpClient::new(ClientSettings::from(&Limits::default()), &tls)
}

impl Rig {
    pub(crate) async fn start(wish: Wish) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now = clock::now();
        let dir = StateDir::open_or_create(&folder.path().join("state")).unwrap();
        let keys = dir.keys(now).unwrap();
        let state = Arc::new(dir.state(keys.master.clone()).unwrap());
        let agent = AgentName::new("tester").unwrap();
        let token = state.add_agent(&agent, &[], None, now).unwrap().token.expose().to_owned();
        let signer = Signer::from_seed("test.example/log", &keys.log_seed).unwrap();
        let options = LogOptions { interval: Duration::from_millis(50), ..LogOptions::default() };
        let log = Log::open(dir.path(), signer, options).unwrap();
        let metrics = Arc::new(Metrics::new("test"));
        let sources = [PolicySource { file: "test.cedar".into(), text: wish.policies.into() }];
        let engine = Engine::load(&sources, &Catalogue { servers: vec![], agents: vec![] }).unwrap();
        let servers = wish.servers.into_iter().map(|(name, transport)| {
            let of_server = wish.effects.iter().filter_map(|(tool, effect)| {
                let tool = tool.strip_prefix(name)?.strip_prefix('/')?;
                Some((tool.to_owned(), ToolOverride { effect: Some(*effect), external: None }))
            });
            ServerParts {
                config: UpstreamConfig { name: ServerName::new(name).unwrap(), transport },
                client: http_client(),
                tools: of_server.collect::<HashMap<_, _>>(),
                allow: wish.allow,
                fingerprint: 1,
            }
        });
        let gate = Gate::new(GateParts {
            limits: Arc::new(wish.limits.clone()),
            credentials: state.credential_table().unwrap(),
            state,
            log: log.clone(),
            clock: clock::now,
            metrics,
            engine,
            mode: wish.mode,
            issuers: Vec::new(),
            certificate_rules: Vec::new(),
            sites: SiteRules::new(&["127.0.0.1".parse().unwrap()], &[], &[]).unwrap(),
            resource: ResourceServer::new("http://127.0.0.1:8440", vec![]).unwrap(),
            servers: servers.collect(),
            reads_wait: false,
            payload_bytes_max: 1 << 20,
        });
        let listener = Listener::bind(ListenConfig {
            name: "gate",
            addresses: vec!["127.0.0.1:0".parse().unwrap()],
            tls: None,
            limits: wish.limits,
        })
        .unwrap();
        let address = listener.addresses()[0].to_string();
        let serving = listener.serve({
            let gate = gate.clone();
            move |peer| {
                let connection = gate.connection(peer);
                answer(move |request| connection.clone().call(request))
            }
        });
        Self { gate, token, log, address, client: http_client(), folder, serving: Some(serving) }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Got {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        let defaults =
            [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        for (name, value) in defaults.iter().filter(|(name, _)| !headers.iter().any(|(n, _)| n == name)) {
            request = request.header(*name, *value);
        }
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let response = self.client.send(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Got { status: head.status, headers: head.headers, body }
    }

    /// A request of the modern era, with the headers that belong to it.
    pub(crate) async fn modern(&self, path: &str, method: &str, params: serde_json::Value) -> Got {
        self.modern_as(path, method, params, serde_json::json!({})).await
    }

    pub(crate) async fn modern_as(
        &self,
        path: &str,
        method: &str,
        mut params: serde_json::Value,
        capabilities: serde_json::Value,
    ) -> Got {
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities;
        let name = params
            .get("name")
            .or_else(|| params.get("uri"))
            .and_then(|v| v.as_str())
            .unwrap_or("")
            .to_owned();
        let body = serde_json::json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        let mut headers = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
        if !name.is_empty() {
            headers.push(("mcp-name", &name));
        }
        self.request("POST", path, &headers, body.to_string().as_bytes()).await
    }

    /// Opens a legacy session and gives its id.
    pub(crate) async fn initialize(&self, path: &str, capabilities: serde_json::Value) -> (String, Got) {
        let body = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": capabilities,
            "clientInfo": {"name": "test", "version": "1"}}});
        let got = self.request("POST", path, &[], body.to_string().as_bytes()).await;
        let session = got.header("mcp-session-id").to_owned();
        let note = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        if !session.is_empty() {
            let told = self.request("POST", path, &[("mcp-session-id", &session)], note).await;
            assert_eq!(told.status, 202, "{}", told.body);
        }
        (session, got)
    }

    pub(crate) async fn legacy(
        &self,
        path: &str,
        session: &str,
        method: &str,
        params: serde_json::Value,
    ) -> Got {
        let body = serde_json::json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        let headers = [("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")];
        self.request("POST", path, &headers, body.to_string().as_bytes()).await
    }

    /// Waits until the gate knows a number of tools of a server.
    pub(crate) async fn learned(&self, server: &str, tools: usize) {
        for _ in 0..500 {
            let known = self.gate.servers();
            if known.iter().any(|s| s.name.as_str() == server && s.tools >= tools) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", self.gate.servers());
    }

    /// Everything on record so far, as JSON.
    pub(crate) async fn records(&self) -> Vec<serde_json::Value> {
        let size = self.log.status().next;
        if size > 0 {
            self.log.durable(size - 1).await.unwrap();
        }
        let entries = self.log.entries(0..size).unwrap();
        for entry in &entries {
            Record::decode(entry).unwrap();
        }
        entries.iter().map(|entry| serde_json::from_slice(entry).unwrap()).collect()
    }

    pub(crate) async fn records_of(&self, kind: &str) -> Vec<serde_json::Value> {
        self.records().await.into_iter().filter(|r| r["kind"] == kind).collect()
    }

    /// Ends the gate and verifies its log as a stranger would: from the public folder and key.
    pub(crate) async fn close_and_verify(mut self) -> u64 {
        let key: VerifierKey = self.log.verifier_key().clone();
        self.gate.drain().await;
        if let Some(serving) = self.serving.take() {
            serving.drain().await;
        }
        let log = self.log.clone();
        tokio::task::spawn_blocking(move || log.close().unwrap()).await.unwrap();
        let source = FolderSource::open(&self.state().join("log"));
        let report = verify_log(&source, &[key], None, &mut |_| {}).unwrap();
        assert!(report.holds(), "{report}");
        report.entries
    }
}
