//! `castra connect`: MCP over standard input and output on one side, the gate over HTTP on the other.
//!
//! A message in is one POST; what comes back, whole or as a stream, leaves as lines. For revisions before
//! 2026-07-28 the session is kept here, and opened anew when the gate was restarted, so that the client
//! notices nothing. Neither side's messages are changed.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use castra_core::Limits;
use castra_net::{
    client::{ClientError, ClientSettings, HttpClient, machine_tls},
    tls::{ClientTlsConfig, client_config},
};
use castra_protocol::{
    mcp::{self, Message, ParseLimits, headers::ParamHeaders},
    sse,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
};

use super::token_file;
use crate::{
    cli::{ConnectArgs, Global},
    config::{Tls, Url},
    context::Context,
    out::{Exit, Failure, Out, Outcome},
};

/// Bytes of a token file.
const TOKEN_BYTES_MAX: u64 = 4096;
/// Clients often start when the gate does; so long a first message waits for it.
const START_TIME_MAX: Duration = Duration::from_secs(5);
const RETRY_TIME: Duration = Duration::from_millis(250);
/// What is under way when the input ends gets this long to finish.
const END_TIME_MAX: Duration = Duration::from_secs(2);

pub(crate) fn run(global: &Global, args: &ConnectArgs) -> Outcome {
    let cx = Context::new(global)?;
    let bridge = Arc::new(bridge(&cx, args)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (lines, writer) = writer(cx.out);
    runtime.block_on(bridge.carry(lines));
    runtime.shutdown_background();
    // The writer ends when the last line is out.
    let _ = writer.join();
    Ok(Exit::Done)
}

/// Writes lines to standard output from a thread of its own, so that a client that does not read
/// holds up nothing else.
fn writer(mut out: Out) -> (mpsc::Sender<Bytes>, std::thread::JoinHandle<()>) {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(64);
    let thread = std::thread::spawn(move || {
        while let Some(line) = receiver.blocking_recv() {
            let mut text = String::from_utf8_lossy(&line).replace(['\r', '\n'], " ");
            text.push('\n');
            out.document(&text);
            if out.is_gone() {
                return;
            }
        }
    });
    (sender, thread)
}

fn bridge(cx: &Context, args: &ConnectArgs) -> Result<Bridge, Failure> {
    let base = args.url.clone().unwrap_or_else(|| cx.gate_url());
    let place = args.server.as_ref().map_or(String::new(), |server| format!("/{server}"));
    let url = format!("{}/mcp{place}", base.trim_end_matches('/'));
    let url = Url::parse(&url).ok_or_else(|| Failure::usage(format!("--url: expected {}", Url::RULE)))?;
    if !url.is_protected() {
        let what =
            format!("{url} is plain http to another machine, and the token would be readable on the way");
        return Err(Failure::usage(what).advise("Use https."));
    }
    let file = match (&args.token_file, &args.agent) {
        (Some(file), _) => file.clone(),
        (None, Some(agent)) => token_file(cx.state_dir(), agent),
        (None, None) => return Err(Failure::usage("say who connects: --agent NAME or --token-file FILE")),
    };
    let mut authorization = HeaderValue::try_from(format!("Bearer {}", read_token(&file)?))
        .map_err(|_| Failure::new(format!("{} holds no token", file.display())))?;
    authorization.set_sensitive(true);
    let limits = cx.config().limits.to_limits();
    let own_ca = args.url.is_none() && cx.config().gate.tls() == Tls::Auto;
    let tls = if own_ca {
        let roots = vec![cx.open()?.keys.authority.certificate_pem().as_bytes().to_vec()];
        client_config(&ClientTlsConfig { roots_pem: roots, ..ClientTlsConfig::default() })?
    } else {
        machine_tls(false)?
    };
    let client = HttpClient::new(ClientSettings::from(&limits), &tls);
    Ok(Bridge {
        client,
        url: url.uri().clone(),
        shown: url.to_string(),
        authorization,
        token_file: file.display().to_string(),
        limits,
        session: Mutex::default(),
        reopening: tokio::sync::Mutex::default(),
        under_way: Mutex::default(),
        parameters: Mutex::default(),
        permits: Semaphore::new(256),
    })
}

fn read_token(file: &Path) -> Result<String, Failure> {
    use std::os::unix::fs::PermissionsExt;
    if let Ok(facts) = std::fs::metadata(file)
        && facts.permissions().mode() & 0o077 != 0
    {
        let what = format!("{} can be read by others, so its token is no secret", file.display());
        return Err(Failure::new(what).advise("Make a new one with `castra agent rotate AGENT --to FILE`."));
    }
    let text = castra_store::files::read_text(file, TOKEN_BYTES_MAX)?;
    Ok(text.trim().to_owned())
}

/// The session of a client that speaks a revision with sessions.
#[derive(Clone)]
struct Session {
    id: Option<HeaderValue>,
    revision: HeaderValue,
    /// What opened it, to open another one.
    initialize: Bytes,
}

struct Bridge {
    client: HttpClient,
    url: http::Uri,
    /// The URL as messages show it.
    shown: String,
    authorization: HeaderValue,
    /// Where the token came from, for messages.
    token_file: String,
    limits: Limits,
    /// Stays until another one is open in its place.
    session: Mutex<Option<Session>>,
    reopening: tokio::sync::Mutex<()>,
    /// Requests without an answer, by the raw JSON of their ids, for cancelling.
    under_way: Mutex<HashMap<String, AbortHandle>>,
    /// Tools whose arguments are mirrored in headers (2026-07-28), as tools/list told.
    parameters: Mutex<HashMap<String, Arc<ParamHeaders>>>,
    permits: Semaphore,
}

/// Why a message got no answer.
enum Trouble {
    /// The gate has no such session (any more).
    NoSession,
    /// In words, for the client's user.
    Said(String),
}

impl Bridge {
    /// Carries messages until the input ends.
    async fn carry(self: &Arc<Self>, out: mpsc::Sender<Bytes>) {
        let mut input = BufReader::new(tokio::io::stdin());
        let mut tasks = JoinSet::new();
        loop {
            let line = match read_line(&mut input, self.limits.body_bytes_max).await {
                Line::Message(line) => line,
                Line::TooLong => {
                    let what = format!("a message has at most {} bytes", self.limits.body_bytes_max);
                    let _ = out
                        .send(mcp::error_response(None, mcp::code::INVALID_REQUEST, &what, None).into())
                        .await;
                    continue;
                }
                Line::End => break,
            };
            while tasks.try_join_next().is_some() {}
            self.message(line, &out, &mut tasks).await;
        }
        let rest = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(END_TIME_MAX, rest).await;
        tasks.abort_all();
        self.close().await;
    }

    async fn message(self: &Arc<Self>, line: Bytes, out: &mpsc::Sender<Bytes>, tasks: &mut JoinSet<()>) {
        let limits = ParseLimits { depth_max: self.limits.json_depth_max };
        match mcp::parse(&line, &limits) {
            Err(e) => {
                // The gate would say no better, and would not know whose id it was.
                let id = e.id.clone().unwrap_or_else(|| "null".into());
                let _ = out.send(error(&id, e.code(), &e.to_string())).await;
            }
            Ok(Message::Request(request)) if request.method == "initialize" => {
                let id = request.id.raw().to_owned();
                if let Err(why) = self.initialize(&line, out, tasks).await {
                    let _ = out.send(failed(&id, &why)).await;
                }
            }
            Ok(Message::Request(request)) => {
                let id = request.id.raw().to_owned();
                let headers = self.headers_of(&request);
                let listing = request.is_modern() && request.method == "tools/list";
                let (bridge, line, out) = (self.clone(), line.clone(), out.clone());
                let key = id.clone();
                // Held over both, so that the task cannot end before it is known.
                let mut under_way = lock(&self.under_way);
                let task = tasks.spawn(async move {
                    let Ok(_permit) = bridge.permits.acquire().await else { return };
                    if let Err(trouble) = bridge.exchange(&line, headers, &out, listing).await {
                        let _ = out.send(failed(&id, &trouble.words())).await;
                    }
                    lock(&bridge.under_way).remove(&id);
                });
                under_way.insert(key, task);
            }
            Ok(Message::Notification(notification)) => {
                let cancelled = notification.request_id.as_ref().map(|id| id.raw().to_owned());
                if let (true, Some(id)) = (notification.method == "notifications/cancelled", cancelled)
                    && lock(&self.session).is_none()
                {
                    // Without sessions a request is cancelled by closing its stream (2026-07-28, transports).
                    if let Some(task) = lock(&self.under_way).remove(&id) {
                        task.abort();
                    }
                    return;
                }
                let _ = self.exchange(&line, HeaderMap::new(), out, false).await;
            }
            Ok(Message::Response(_)) => {
                let _ = self.exchange(&line, HeaderMap::new(), out, false).await;
            }
        }
    }

    /// The standard headers of a request of 2026-07-28.
    fn headers_of(&self, request: &mcp::Request<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !request.is_modern() {
            return headers;
        }
        let name = request.target.as_ref().map(|t| t.text.to_string());
        let parameters = name.and_then(|name| lock(&self.parameters).get(&name).cloned());
        for made in mcp::headers::build(request, parameters.as_deref()).unwrap_or_default() {
            let name = HeaderName::try_from(made.name.as_ref());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(made.value)) {
                headers.insert(name, value);
            }
        }
        headers
    }

    /// Opens a session for the client, waiting a little for a gate that is just starting.
    async fn initialize(
        self: &Arc<Self>,
        line: &Bytes,
        out: &mpsc::Sender<Bytes>,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), String> {
        let answer = self.open_session(line).await.map_err(|t| t.words())?;
        let _ = out.send(answer).await;
        let (bridge, out) = (self.clone(), out.clone());
        tasks.spawn(async move { bridge.listen(&out).await });
        Ok(())
    }

    /// Sends `initialize`, keeps the session, and gives the answer.
    async fn open_session(&self, line: &Bytes) -> Result<Bytes, Trouble> {
        let response = self.send(Method::POST, Some(line), HeaderMap::new(), None).await?;
        let id = response.headers().get("mcp-session-id").cloned();
        let answers = self.collect(response).await?;
        let answer = answers.last().cloned().ok_or_else(|| Trouble::Said(self.broke()))?;
        let parsed: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
        if let Some(revision) = parsed.pointer("/result/protocolVersion").and_then(serde_json::Value::as_str)
            && let Ok(revision) = HeaderValue::try_from(revision)
        {
            *lock(&self.session) = Some(Session { id, revision, initialize: line.clone() });
        }
        Ok(answer)
    }

    /// Opens a session in the place of one that the gate no longer knows.
    async fn reopen(&self, lost: &Session) -> Result<(), Trouble> {
        // Calls and the stream notice the loss at the same time; one of them opens, the others wait for it.
        let _turn = self.reopening.lock().await;
        if lock(&self.session).as_ref().is_some_and(|now| now.id != lost.id) {
            return Ok(());
        }
        self.open_session(&lost.initialize).await?;
        let initialized =
            Bytes::from_static(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
        let session = lock(&self.session).clone();
        self.send(Method::POST, Some(&initialized), HeaderMap::new(), session.as_ref()).await?;
        Ok(())
    }

    /// Sends a message and passes on what comes back.
    async fn exchange(
        &self,
        line: &Bytes,
        headers: HeaderMap,
        out: &mpsc::Sender<Bytes>,
        listing: bool,
    ) -> Result<(), Trouble> {
        let session = lock(&self.session).clone();
        let mut sent = self.send(Method::POST, Some(line), headers.clone(), session.as_ref()).await;
        if let (Err(Trouble::NoSession), Some(lost)) = (&sent, &session) {
            self.reopen(lost).await?;
            let session = lock(&self.session).clone();
            sent = self.send(Method::POST, Some(line), headers, session.as_ref()).await;
        }
        let response = sent?;
        if response.status() == StatusCode::ACCEPTED {
            return Ok(());
        }
        if listing {
            for message in self.collect(response).await? {
                self.learn_parameters(&message);
                let _ = out.send(message).await;
            }
            return Ok(());
        }
        self.pass_on(response, out).await
    }

    /// The stream of what the server says without being asked; opened again while the session lasts.
    async fn listen(&self, out: &mpsc::Sender<Bytes>) {
        loop {
            let session = lock(&self.session).clone();
            let Some(session) = session.filter(|s| s.id.is_some()) else { return };
            match self.send(Method::GET, None, HeaderMap::new(), Some(&session)).await {
                Ok(response) if response.status() == StatusCode::OK => {
                    // Its end, for whatever reason, is answered by opening it again.
                    let _ = self.pass_on(response, out).await;
                }
                // Not offered.
                Ok(_) => return,
                Err(Trouble::NoSession) => {
                    if self.reopen(&session).await.is_err() {
                        tokio::time::sleep(START_TIME_MAX).await;
                    }
                }
                Err(Trouble::Said(_)) => tokio::time::sleep(START_TIME_MAX).await,
            }
            tokio::time::sleep(RETRY_TIME).await;
        }
    }

    /// One HTTP request. An error status becomes trouble unless its body is a JSON-RPC message.
    async fn send(
        &self,
        method: Method,
        body: Option<&Bytes>,
        mut headers: HeaderMap,
        session: Option<&Session>,
    ) -> Result<Response<Incoming>, Trouble> {
        headers.insert(header::AUTHORIZATION, self.authorization.clone());
        let accept = if body.is_some() { "application/json, text/event-stream" } else { "text/event-stream" };
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        if body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(session) = session {
            headers.insert("mcp-protocol-version", session.revision.clone());
            if let Some(id) = &session.id {
                headers.insert("mcp-session-id", id.clone());
            }
        }
        let started = tokio::time::Instant::now();
        let response = loop {
            let mut request = Request::new(Full::new(body.cloned().unwrap_or_default()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = self.url.clone();
            *request.headers_mut() = headers.clone();
            match self.client.send(request).await {
                Ok(response) => break response,
                Err(ClientError::NoConnection(_)) if started.elapsed() < START_TIME_MAX => {
                    tokio::time::sleep(RETRY_TIME).await;
                }
                Err(e) => {
                    return Err(Trouble::Said(format!(
                        "the Castra gate at {} is not reached: {e}. Start it with `castra up`",
                        self.shown
                    )));
                }
            }
        };
        self.judge(response, session.is_some()).await
    }

    async fn judge(
        &self,
        response: Response<Incoming>,
        in_session: bool,
    ) -> Result<Response<Incoming>, Trouble> {
        let status = response.status();
        if status.is_success() || (status == StatusCode::METHOD_NOT_ALLOWED) {
            return Ok(response);
        }
        if status == StatusCode::NOT_FOUND && in_session {
            return Err(Trouble::NoSession);
        }
        if is_json(&response) && status != StatusCode::UNAUTHORIZED {
            // A refusal in the protocol's own form; the client shall see it.
            return Ok(response);
        }
        let words = match status {
            StatusCode::UNAUTHORIZED => {
                format!(
                    "it does not take the token in {file}: `castra agent rotate AGENT --to {file}` makes a new one",
                    file = self.token_file
                )
            }
            _ => format!("it answered {status}"),
        };
        Err(Trouble::Said(format!("the Castra gate at {}: {words}", self.shown)))
    }

    /// Passes on an answer as it comes.
    async fn pass_on(&self, response: Response<Incoming>, out: &mpsc::Sender<Bytes>) -> Result<(), Trouble> {
        let (sender, mut messages) = mpsc::channel(16);
        let read = self.read_messages(response, sender);
        let pass = async {
            while let Some(message) = messages.recv().await {
                if out.send(message).await.is_err() {
                    return;
                }
            }
        };
        let (read, ()) = tokio::join!(read, pass);
        read
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Vec<Bytes>, Trouble> {
        let (sender, mut messages) = mpsc::channel(16);
        let mut all = Vec::new();
        let gather = async {
            while let Some(message) = messages.recv().await {
                all.push(message);
            }
        };
        let (read, ()) = tokio::join!(self.read_messages(response, sender), gather);
        read.map(|()| all)
    }

    /// Takes the messages out of an answer: one as JSON, or many as server-sent events.
    async fn read_messages(
        &self,
        response: Response<Incoming>,
        out: mpsc::Sender<Bytes>,
    ) -> Result<(), Trouble> {
        let max = self.limits.answer_bytes_max;
        if is_json(&response) {
            let body = http_body_util::Limited::new(response.into_body(), max).collect().await;
            let body = body.map_err(|e| Trouble::Said(format!("{} ({e})", self.broke())))?.to_bytes();
            if !body.is_empty() {
                let _ = out.send(body).await;
            }
            return Ok(());
        }
        let mut decoder = sse::Decoder::new(max);
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| Trouble::Said(format!("{} ({e})", self.broke())))?;
            let Ok(data) = frame.into_data() else { continue };
            let mut found = Vec::new();
            let fed = decoder.feed(&data, |event| {
                if !event.data.is_empty() {
                    found.push(Bytes::copy_from_slice(event.data.as_bytes()));
                }
            });
            fed.map_err(|e| Trouble::Said(format!("{} ({e})", self.broke())))?;
            for message in found {
                if out.send(message).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Notes which tools mirror arguments in headers.
    fn learn_parameters(&self, message: &Bytes) {
        let limits = ParseLimits { depth_max: self.limits.json_depth_max };
        let Ok(Message::Response(response)) = mcp::parse(message, &limits) else { return };
        let mcp::Outcome::Result(result) = &response.outcome else { return };
        let result = result.span.of(response.text);
        let Ok(page) = mcp::lists::read(mcp::ListKind::Tools, result) else { return };
        let mut known = lock(&self.parameters);
        for item in &page.items {
            match item
                .input_schema
                .and_then(|schema| ParamHeaders::from_schema(schema).ok())
                .filter(|p| !p.is_empty())
            {
                Some(parameters) => known.insert(item.name.to_string(), Arc::new(parameters)),
                None => known.remove(item.name.as_ref()),
            };
        }
    }

    /// Tells the gate that the session is over.
    async fn close(&self) {
        let session = lock(&self.session).take();
        if let Some(session) = session.filter(|s| s.id.is_some()) {
            let end = self.send(Method::DELETE, None, HeaderMap::new(), Some(&session));
            let _ = tokio::time::timeout(END_TIME_MAX, end).await;
        }
    }

    fn broke(&self) -> String {
        format!("the answer of the Castra gate at {} broke off", self.shown)
    }
}

impl Trouble {
    fn words(&self) -> String {
        match self {
            Self::NoSession => "the Castra gate lost the session and opens no other".into(),
            Self::Said(words) => words.clone(),
        }
    }
}

fn failed(id: &str, words: &str) -> Bytes {
    error(id, mcp::code::INTERNAL_ERROR, words)
}

/// A JSON-RPC error; the id is raw JSON.
fn error(id: &str, code: i64, words: &str) -> Bytes {
    let message = castra_protocol::json::quote(words);
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{code},\"message\":{message}}}}}").into()
}

fn is_json(response: &Response<Incoming>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/json"))
}

/// Nothing that holds these locks can panic halfway; a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Line {
    Message(Bytes),
    TooLong,
    End,
}

/// Reads a line of at most `max` bytes; a longer one is skipped to its end.
async fn read_line(input: &mut (impl AsyncBufReadExt + Unpin), max: usize) -> Line {
    loop {
        let mut line = Vec::new();
        let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
        match (&mut *input).take(limit).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return Line::End,
            Ok(_) if line.last() == Some(&b'\n') || line.len() <= max => {
                let text = line.trim_ascii();
                if !text.is_empty() {
                    return Line::Message(Bytes::copy_from_slice(text));
                }
            }
            Ok(_) => return if skip_line(input).await { Line::TooLong } else { Line::End },
        }
    }
}

/// Skips to the end of a line without keeping it. False: the input ended.
async fn skip_line(input: &mut (impl AsyncBufReadExt + Unpin)) -> bool {
    loop {
        let Ok(chunk) = input.fill_buf().await else { return false };
        if chunk.is_empty() {
            return false;
        }
        let (used, found) = match chunk.iter().position(|b| *b == b'\n') {
            Some(at) => (at + 1, true),
            None => (chunk.len(), false),
        };
        input.consume(used);
        if found {
            return true;
        }
    }
}
