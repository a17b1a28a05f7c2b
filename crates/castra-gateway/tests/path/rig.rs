//! A whole gate on a real socket, with its state in a folder that goes away.

use std::{
    collections::HashMap,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use castra_core::{AgentName, Effect, Limits, PolicyMode, ServerName, StreamMode};
use castra_flow::{Manifest, ToolManifest};
use castra_gateway::{
    AllowedAsks, FlowSettings, Gate, GateParts, PeerParts, ServerParts,
    budget::{Budgets, Settings},
    metrics::Metrics,
    model::ModelParts,
    upstream::{Transport, UpstreamConfig},
};
use castra_identity::{Authority, Issuer, Minter, NameRule, ResourceServer, SiteRules, TrustDomain};
use castra_inspect::Inspector;
use castra_ledger::{Record, Signer, VerifierKey, verify_log};
use castra_net::{
    client::{ClientError, ClientSettings, HttpClient},
    listen::{ListenConfig, Listener, Serving, answer},
    tls::{ClientTlsConfig, ServerTls, ServerTlsConfig, client_config},
};
use castra_policy::{Catalogue, Engine, PolicySource};
use castra_store::{
    State, StateDir, clock,
    log::{FolderSource, Log, LogOptions},
};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::servers::Era;

/// Lets everything through.
pub(crate) const ALL: &str = "permit (principal, action, resource);";

/// What no record, log line or file of the gate may hold, whatever the servers are configured with.
const UPSTREAM_SECRET: &str = "s3cret";

/// What a test logs itself, to be sure that it would find a secret.
const HEARD: &str = "a gate is set up";

/// Longest that a test waits for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a test wants.
pub(crate) struct Wish {
    pub(crate) servers: Vec<(&'static str, Transport)>,
    pub(crate) models: Vec<ModelParts>,
    /// What is said of agents' own tools.
    pub(crate) local_tools: HashMap<String, ToolManifest>,
    pub(crate) policies: &'static str,
    pub(crate) mode: PolicyMode,
    pub(crate) limits: Limits,
    /// Effects that the manifest states, as `server/tool`.
    pub(crate) effects: Vec<(&'static str, Effect)>,
    /// What manifests say of tools, by server, as TOML.
    pub(crate) manifests: Vec<(&'static str, &'static str)>,
    pub(crate) flow: FlowSettings,
    pub(crate) allow: AllowedAsks,
    pub(crate) budgets: Settings,
    /// Agents besides `tester`.
    pub(crate) agents: Vec<&'static str>,
    /// Whether the gate listens with TLS and takes client certificates of the built-in CA.
    pub(crate) tls: bool,
    pub(crate) issuers: Vec<Issuer>,
    pub(crate) peers: Vec<PeerParts>,
    pub(crate) inspector: Inspector,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            models: Vec::new(),
            local_tools: HashMap::new(),
            policies: castra_policy::STARTER_POLICY,
            mode: PolicyMode::Enforce,
            limits: Limits::default(),
            effects: Vec::new(),
            manifests: Vec::new(),
            flow: FlowSettings::default(),
            allow: AllowedAsks { sampling: true, elicitation: true, roots: true },
            budgets: Settings::default(),
            agents: Vec::new(),
            tls: false,
            issuers: Vec::new(),
            peers: Vec::new(),
            inspector: Inspector::default(),
        }
    }
}

/// The gate under test. A test ends with [`Rig::close_and_verify`], which checks what must hold of
/// every run.
pub(crate) struct Rig {
    pub(crate) gate: Arc<Gate>,
    #[allow(dead_code)] // the tests of models use it
    pub(crate) metrics: Arc<Metrics>,
    /// The token of `tester`.
    pub(crate) token: String,
    pub(crate) log: Log,
    pub(crate) state: Arc<State>,
    pub(crate) authority: Authority,
    /// Tokens by agent, `tester` too.
    pub(crate) tokens: HashMap<&'static str, String>,
    base: String,
    client: HttpClient,
    folder: TempDir,
    serving: Option<Serving>,
    secrets: Mutex<Vec<String>>,
    verified: bool,
}

pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

/// An answer that is read as it comes.
pub(crate) struct Stream {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Pieces in which the body came so far.
    pub(crate) frames: usize,
    body: Incoming,
    text: String,
}

impl Stream {
    /// The next message; none when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        tokio::time::timeout(PATIENCE, self.message()).await.expect("a message, or the end, in time")
    }

    /// Messages up to and with the first for which `last` holds.
    pub(crate) async fn until(&mut self, last: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut seen = Vec::new();
        while let Some(message) = self.next().await {
            let done = last(&message);
            seen.push(message);
            if done {
                return seen;
            }
        }
        panic!("the stream ended after {seen:?}");
    }

    /// All that is left, as text.
    pub(crate) async fn rest(mut self) -> String {
        while let Some(Ok(frame)) = self.body.frame().await {
            self.text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
        self.text
    }

    async fn message(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: ")).map(str::to_owned);
                self.text = rest.to_owned();
                match data {
                    Some(data) => return Some(serde_json::from_str(&data).unwrap()),
                    None => continue,
                }
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.frames += 1;
                self.text.push_str(std::str::from_utf8(&data).unwrap());
            }
        }
    }
}

/// Waits for something that happens beside the test.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let until = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < until {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// Everything that the gate logged in this process, at any level.
static LOGGED: LazyLock<Mutex<Vec<u8>>> = LazyLock::new(|| {
    tracing_subscriber::fmt()
        .with_env_filter("info,castra=trace")
        .with_ansi(false)
        .with_writer(|| Logged)
        .init();
    Mutex::default()
});

struct Logged;

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOGGED.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) fn http_client() -> HttpClient {
    let tls = castra_net::client::machine_tls(false).unwrap();
    HttpClient::new(ClientSettings::from(&Limits::default()), &tls)
}

impl Rig {
    pub(crate) async fn start(wish: Wish) -> Self {
        LazyLock::force(&LOGGED);
        tracing::trace!(target: "castra", "{HEARD}");
        let folder = tempfile::tempdir().unwrap();
        let now = clock::now();
        let dir = StateDir::open_or_create(&folder.path().join("state")).unwrap();
        let keys = dir.keys(now).unwrap();
        let state = Arc::new(dir.state(keys.master.clone()).unwrap());
        let agents = wish.agents.iter().copied().chain(["tester"]);
        let tokens: HashMap<_, _> = agents
            .map(|name| {
                let agent = AgentName::new(name).unwrap();
                (name, state.add_agent(&agent, &[], None, now).unwrap().token.expose().to_owned())
            })
            .collect();
        let signer = Signer::from_seed("test.example/log", &keys.log_seed).unwrap();
        let options = LogOptions { interval: Duration::from_millis(50), ..LogOptions::default() };
        let log = Log::open(dir.path(), signer, options).unwrap();
        let metrics = Arc::new(Metrics::new("test"));
        let sources = [PolicySource { file: "test.cedar".into(), text: wish.policies.into() }];
        let engine = Engine::load(&sources, &Catalogue::default()).unwrap();
        let servers = wish.servers.into_iter().map(|(name, transport)| {
            let of_server = wish.effects.iter().filter_map(|(tool, effect)| {
                let tool = tool.strip_prefix(name)?.strip_prefix('/')?;
                Some((tool.to_owned(), ToolManifest { effect: Some(*effect), ..ToolManifest::default() }))
            });
            let described = wish.manifests.iter().filter(|(server, _)| *server == name);
            let described = described.flat_map(|(_, toml)| Manifest::parse(toml).unwrap().tools);
            ServerParts {
                tools: of_server.chain(described).collect(),
                allow: wish.allow,
                ..parts(name, transport, 1)
            }
        });
        let authorization_servers = wish.issuers.iter().map(|i| i.config().issuer.clone()).collect();
        let budgets = Budgets::open(state.clone(), clock::now, wish.budgets).unwrap();
        let gate = Gate::new(GateParts {
            budgets,
            limits: Arc::new(wish.limits.clone()),
            credentials: state.credential_table().unwrap(),
            state: state.clone(),
            log: log.clone(),
            clock: clock::now,
            metrics: metrics.clone(),
            engine,
            mode: wish.mode,
            issuers: wish.issuers,
            certificate_rules: vec![NameRule::Issued(domain())],
            sites: SiteRules::new(&["127.0.0.1".parse().unwrap()], &[], &[]).unwrap(),
            resource: ResourceServer::new("https://gate.example", authorization_servers).unwrap(),
            servers: servers.collect(),
            peers: wish.peers,
            minter: Minter::new(&dir.token_seed().unwrap(), "https://gate.example").unwrap(),
            local_tools: wish.local_tools,
            flow: wish.flow,
            approvals: castra_store::ApprovalBounds::default(),
            inspector: wish.inspector,
            inspection_mode: StreamMode::Window,
            models: wish.models,
            promotions: castra_store::Promotions::default(),
            reads_wait: false,
            payload_bytes_max: 1 << 20,
        });
        let listener = Listener::bind(ListenConfig {
            name: "gate",
            addresses: vec!["127.0.0.1:0".parse().unwrap()],
            tls: wish.tls.then(|| server_tls(&dir, &keys.authority)),
            limits: wish.limits,
        })
        .unwrap()
        .on_refusal({
            let gate = gate.clone();
            move |source, refusal| gate.record_refusal(&refusal, source)
        });
        let scheme = if wish.tls { "https" } else { "http" };
        let base = format!("{scheme}://{}", listener.addresses()[0]);
        let client = if wish.tls { tls_client(&keys.authority, None) } else { http_client() };
        let serving = listener.serve({
            let gate = gate.clone();
            move |peer| {
                let connection = gate.connection(peer);
                answer(move |request| connection.clone().call(request))
            }
        });
        Self {
            gate,
            metrics,
            token: tokens["tester"].clone(),
            log,
            state,
            authority: keys.authority,
            secrets: Mutex::new(tokens.values().cloned().chain([UPSTREAM_SECRET.to_owned()]).collect()),
            tokens,
            base,
            client,
            folder,
            serving: Some(serving),
            verified: false,
        }
    }

    fn folder(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// What must not be found in any record, log line or file afterwards.
    pub(crate) fn keep_secret(&self, secret: &str) {
        self.secrets.lock().push(secret.to_owned());
    }

    /// The same gate for a client with a certificate of its own.
    pub(crate) fn client_with(&self, certificate_pem: &str, key_pem: &str) -> HttpClient {
        tls_client(&self.authority, Some((certificate_pem, key_pem)))
    }

    /// What a change of credentials by another process leads to.
    pub(crate) fn reload_credentials(&self) {
        self.gate.replace_credentials(self.state.credential_table().unwrap());
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Got {
        self.request_by(&self.client, method, path, headers, body).await.unwrap()
    }

    /// A request by a client of its own, which may not get through at all.
    pub(crate) async fn request_by(
        &self,
        client: &HttpClient,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Got, ClientError> {
        let (head, body) = self.send(client, method, path, headers, body).await?.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Ok(Got { status: head.status, headers: head.headers, body })
    }

    /// A request whose answer is read as it comes.
    pub(crate) async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Stream {
        let (head, body) = self.send(&self.client, method, path, headers, body).await.unwrap().into_parts();
        Stream { status: head.status, headers: head.headers, frames: 0, body, text: String::new() }
    }

    async fn send(
        &self,
        client: &HttpClient,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let token = format!("Bearer {}", self.token);
        let defaults = [
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("authorization", token.as_str()),
        ];
        for (name, value) in defaults.iter().filter(|(name, _)| !headers.iter().any(|(n, _)| n == name)) {
            request = request.header(*name, *value);
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        client.send(request.body(Full::new(Bytes::copy_from_slice(body))).unwrap()).await
    }

    /// A request of the modern era, with the headers that belong to it.
    pub(crate) async fn modern(&self, path: &str, method: &str, params: Value) -> Got {
        self.modern_as(path, method, params, json!({})).await
    }

    pub(crate) async fn modern_as(
        &self,
        path: &str,
        method: &str,
        params: Value,
        capabilities: Value,
    ) -> Got {
        let ask = Ask::modern(method, params, capabilities);
        self.request("POST", path, &ask.headers(), ask.body.as_bytes()).await
    }

    /// The same by whoever holds the token.
    pub(crate) async fn modern_by(&self, token: &str, path: &str, method: &str, params: Value) -> Got {
        let ask = Ask::modern(method, params, json!({})).by(token);
        self.request("POST", path, &ask.headers(), ask.body.as_bytes()).await
    }

    /// A request of the modern era whose answer is read as it comes.
    pub(crate) async fn modern_open(&self, path: &str, method: &str, params: Value) -> Stream {
        let ask = Ask::modern(method, params, json!({}));
        self.open("POST", path, &ask.headers(), ask.body.as_bytes()).await
    }

    /// A request within a session whose answer is read as it comes.
    pub(crate) async fn legacy_open(&self, path: &str, session: &str, method: &str, params: Value) -> Stream {
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string();
        self.open("POST", path, &in_session(session), body.as_bytes()).await
    }

    /// A session's stream of what is said unasked.
    pub(crate) async fn listen(&self, path: &str, session: &str) -> Stream {
        self.open("GET", path, &in_session(session), b"").await
    }

    pub(crate) async fn notify(&self, path: &str, session: &str, method: &str, params: Value) {
        let body = json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string();
        let told = self.request("POST", path, &in_session(session), body.as_bytes()).await;
        assert_eq!(told.status, 202, "{}", told.body);
    }

    /// A client of an era at an endpoint.
    pub(crate) async fn meet(&self, era: Era, path: &'static str) -> Client {
        let session = match era {
            Era::Modern => None,
            Era::Legacy => Some(self.initialize(path, json!({})).await.0),
        };
        Client { path, session }
    }

    pub(crate) async fn call(&self, client: &Client, tool: &str) -> Got {
        match &client.session {
            None => self.modern(client.path, "tools/call", call_of(tool)).await,
            Some(session) => self.legacy(client.path, session, "tools/call", call_of(tool)).await,
        }
    }

    /// A call whose answer is read as it comes.
    pub(crate) async fn call_open(&self, client: &Client, tool: &str) -> Stream {
        match &client.session {
            None => self.modern_open(client.path, "tools/call", call_of(tool)).await,
            Some(session) => self.legacy_open(client.path, session, "tools/call", call_of(tool)).await,
        }
    }

    /// Host and port of the gate.
    pub(crate) fn address(&self) -> &str {
        self.base.rsplit('/').next().unwrap()
    }

    /// Opens a legacy session and gives its id.
    pub(crate) async fn initialize(&self, path: &str, capabilities: Value) -> (String, Got) {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
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

    pub(crate) async fn legacy(&self, path: &str, session: &str, method: &str, params: Value) -> Got {
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        self.request("POST", path, &in_session(session), body.to_string().as_bytes()).await
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
    pub(crate) async fn records(&self) -> Vec<Value> {
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

    pub(crate) async fn records_of(&self, kind: &str) -> Vec<Value> {
        self.records().await.into_iter().filter(|r| r["kind"] == kind).collect()
    }

    /// Waits for the outcomes of a number of actions; they may follow the answer's end.
    pub(crate) async fn outcomes(&self, count: usize) -> Vec<Value> {
        let what = format!("{count} outcomes");
        eventually(&what, async || Some(self.records_of("outcome").await).filter(|o| o.len() >= count)).await
    }

    /// Ends the gate and verifies its log as a stranger would: from the public folder and key. Then
    /// looks for what must hold of every run: each record can be read, each permitted action has
    /// exactly one outcome, and no secret is anywhere.
    pub(crate) async fn close_and_verify(mut self) -> u64 {
        self.verified = true;
        self.gate.drain().await;
        if let Some(serving) = self.serving.take() {
            serving.drain().await;
        }
        let records = self.records().await;
        each_permitted_action_has_one_outcome(&records);
        let log = self.log.clone();
        tokio::task::spawn_blocking(move || log.close().unwrap()).await.unwrap();
        self.nothing_secret_is_kept();
        let key: VerifierKey = self.log.verifier_key().clone();
        let source = FolderSource::open(&self.folder().join("log"));
        let report = verify_log(&source, &[key], None, &mut |_| {}).unwrap();
        assert!(report.holds(), "{report}");
        assert_eq!(report.entries, records.len() as u64);
        report.entries
    }

    /// For a test after which the log cannot be verified.
    pub(crate) fn leave_unverified(mut self) {
        self.nothing_secret_is_kept();
        self.verified = true;
    }

    fn nothing_secret_is_kept(&self) {
        let logged = LOGGED.lock().clone();
        assert!(holds(&logged, HEARD), "the log is not heard");
        for secret in self.secrets.lock().iter() {
            assert!(!holds(&logged, secret), "a secret was logged: {secret}");
            for file in files(&self.folder()) {
                let kept = std::fs::read(&file).unwrap();
                assert!(!holds(&kept, secret), "a secret is in {}: {secret}", file.display());
            }
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        assert!(self.verified || std::thread::panicking(), "the test does not end with close_and_verify");
    }
}

/// A client of one era at one endpoint.
pub(crate) struct Client {
    pub(crate) path: &'static str,
    pub(crate) session: Option<String>,
}

/// A call that wants progress and log messages.
fn call_of(tool: &str) -> Value {
    let meta = json!({"progressToken": "t-1", "io.modelcontextprotocol/logLevel": "info"});
    json!({"name": tool, "arguments": {}, "_meta": meta})
}

/// The text of a tool's result.
#[track_caller]
pub(crate) fn said(answer: &Value) -> String {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// A request that is to be sent.
pub(crate) struct Ask {
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Ask {
    /// One of the modern era: what is said in the body stands in the headers too.
    pub(crate) fn modern(method: &str, mut params: Value, capabilities: Value) -> Self {
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities;
        let name = params.get("name").or_else(|| params.get("uri")).and_then(Value::as_str).unwrap_or("");
        let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", method), ("mcp-name", name)];
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string();
        Self { headers, body }
    }

    /// By whoever holds this token; an empty one is not sent.
    pub(crate) fn by(mut self, token: &str) -> Self {
        let value = if token.is_empty() { String::new() } else { format!("Bearer {token}") };
        self.headers.push(("authorization".to_owned(), value));
        self
    }

    pub(crate) fn headers(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}

/// The trust domain of the gate's certificates.
pub(crate) fn domain() -> TrustDomain {
    TrustDomain::new("castra.test").unwrap()
}

/// A server as the configuration would give it.
pub(crate) fn parts(name: &str, transport: Transport, fingerprint: u64) -> ServerParts {
    ServerParts {
        config: UpstreamConfig { name: ServerName::new(name).unwrap(), transport },
        client: http_client(),
        tools: HashMap::new(),
        allow: AllowedAsks { sampling: true, elicitation: true, roots: true },
        fingerprint,
    }
}

fn in_session(session: &str) -> [(&'static str, &str); 2] {
    [("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")]
}

fn server_tls(dir: &StateDir, authority: &Authority) -> Arc<ServerTls> {
    let now = clock::now();
    let own = dir.server_certificate(authority, &["127.0.0.1".to_owned()], now).unwrap();
    let config = ServerTlsConfig {
        certificate_pem: own.chain_pem.into_bytes(),
        key_pem: own.key_pem.as_bytes().to_vec().into(),
        client_roots_pem: vec![authority.certificate_pem().as_bytes().to_vec()],
        http2: true,
    };
    ServerTls::new(&config, now).unwrap()
}

fn tls_client(authority: &Authority, identity: Option<(&str, &str)>) -> HttpClient {
    let tls = client_config(&ClientTlsConfig {
        roots_pem: vec![authority.certificate_pem().as_bytes().to_vec()],
        identity_pem: identity.map(|(cert, key)| (cert.into(), key.as_bytes().to_vec().into())),
        ..ClientTlsConfig::default()
    });
    HttpClient::new(ClientSettings::from(&Limits::default()), &tls.unwrap())
}

fn each_permitted_action_has_one_outcome(records: &[Value]) {
    let mut outcomes: HashMap<&str, usize> = HashMap::new();
    for (index, record) in records.iter().enumerate().filter(|(_, r)| r["kind"] == "outcome") {
        let intent = &records[record["intent"].as_u64().unwrap() as usize];
        assert_eq!((&intent["kind"], &intent["action"]), (&json!("intent"), &record["action"]), "{record}");
        assert!(record["intent"].as_u64().unwrap() < index as u64, "{record}");
        *outcomes.entry(record["action"].as_str().unwrap()).or_default() += 1;
    }
    for intent in records.iter().filter(|r| r["kind"] == "intent") {
        let permitted = intent["decision"] == "allow" || intent["enforced"] == false;
        let ended = outcomes.get(intent["action"].as_str().unwrap()).copied().unwrap_or(0);
        assert_eq!(ended, usize::from(permitted), "outcomes of {intent}");
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}
