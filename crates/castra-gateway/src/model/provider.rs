//! One provider over HTTP: a prepared body out, with the provider's own key, and the answer from its
//! first byte on. Every way of failing is told apart, because what to do next depends on it.
//!
//! Where a request goes is fixed by the configuration: host and scheme are never taken from a
//! request, and redirects are not followed. Of the caller's headers only those that change the
//! meaning of the body pass ([`PASSED`]), and only to a provider of their own; its credential never.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use castra_core::{RefusalCode, Timestamp};
use castra_net::{
    body,
    client::{ClientError, HttpClient},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::{Body, Frame};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, timeout, timeout_at};

use super::version::{Provider, VersionParts};

/// The caller's headers that pass, each with the provider that it is meant for. They say how the
/// body is to be read, so that leaving them out would change what was asked.
const PASSED: &[(&str, &[Provider])] = &[
    ("anthropic-beta", &[Provider::Anthropic]),
    ("anthropic-version", &[Provider::Anthropic]),
    ("openai-beta", &[Provider::OpenAi, Provider::OpenAiCompatible, Provider::Azure]),
];

/// The interface of Anthropic that is spoken when neither caller nor configuration says another.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// Bytes of a provider's own error that are read; more is no error message.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// A provider's own error is there within this time, or it is left.
const ERROR_TIME_MAX: Duration = Duration::from_secs(5);

/// Why a provider gave no answer that could be used. Holds no content, no key and no URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// No connection came about; nothing was sent.
    #[error("cannot be reached: {0}")]
    Unreachable(Arc<str>),
    /// The connection broke before the answer began.
    #[error("broke the connection: {0}")]
    Broken(Arc<str>),
    /// It ended the answer before the first byte.
    #[error("answered with nothing")]
    Empty,
    /// The answer did not begin in time.
    #[error("gave no answer within {} seconds", after.as_secs())]
    Late {
        /// How long it had.
        after: Duration,
    },
    /// It fell silent in the middle of an answer.
    #[error("said nothing for {} seconds in the middle of an answer", after.as_secs())]
    Silent {
        /// How long.
        after: Duration,
    },
    /// It has had enough for now (429), or failed (408, 5xx).
    #[error("answered with HTTP status {status}")]
    Status {
        /// What it said.
        status: StatusCode,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It does not take the key that is configured, or not from that account.
    #[error("does not take the configured key, or wants its account to be mended (HTTP status {0})")]
    KeyRefused(StatusCode),
    /// It sends us elsewhere. Redirects are not followed: they could lead past the configured provider.
    #[error("answered with a redirect ({0}), which is not followed")]
    Redirected(StatusCode),
    /// It compressed the answer, which it was not asked to.
    #[error("compressed its answer, which it was not asked to")]
    Compressed,
    /// The answer began, and then it was not what it should have been.
    #[error("answered with something that is no answer")]
    Nonsense,
    /// No URL can be made for this.
    #[error("cannot be asked at {0:?}: that is no path")]
    BadEndpoint(String),
}

impl ProviderError {
    /// A word for figures.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Unreachable(_) => FailureKind::Unreachable,
            Self::Broken(_) | Self::Empty => FailureKind::Broken,
            Self::Late { .. } | Self::Silent { .. } => FailureKind::Late,
            Self::Status { status: StatusCode::TOO_MANY_REQUESTS, .. } => FailureKind::RateLimited,
            Self::Status { .. } => FailureKind::ServerError,
            Self::KeyRefused(_) => FailureKind::KeyRefused,
            Self::Redirected(_) | Self::Compressed | Self::Nonsense | Self::BadEndpoint(_) => {
                FailureKind::Nonsense
            }
        }
    }

    /// The kind of refusal that it becomes when nothing else answers.
    pub fn code(&self) -> RefusalCode {
        match self.kind() {
            FailureKind::Late => RefusalCode::UpstreamTimeout,
            FailureKind::RateLimited => RefusalCode::Busy,
            FailureKind::Nonsense => RefusalCode::UpstreamMisbehaved,
            _ => RefusalCode::UpstreamUnavailable,
        }
    }

    /// When the provider wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the same may go well a moment later. A wrong key or address stays wrong.
    pub fn passes(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_)
                | Self::Broken(_)
                | Self::Empty
                | Self::Late { .. }
                | Self::Silent { .. }
                | Self::Status { .. }
        )
    }

    /// What the operator can do about it.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => {
                "The operator should check base_url, and whether the provider can be reached"
            }
            Self::KeyRefused(_) => "The operator should check the version's key; `castra doctor` tries it",
            Self::Redirected(_) | Self::BadEndpoint(_) => "The operator should check the version's base_url",
            Self::Late { .. } => "Ask for less, or the operator raises the timeout of the version",
            Self::Status { .. } => "Try again later",
            _ => "",
        }
    }
}

impl From<ClientError> for ProviderError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Broken(reason) => Self::Broken(reason),
            ClientError::NoConnection(reason) | ClientError::NoRoots(reason) => Self::Unreachable(reason),
        }
    }
}

/// Why calls fail, for figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection.
    Unreachable,
    /// The connection broke.
    Broken,
    /// Nothing came in time.
    Late,
    /// Too many requests or tokens.
    RateLimited,
    /// An error of the provider's own.
    ServerError,
    /// The key is not taken.
    KeyRefused,
    /// What came is no answer.
    Nonsense,
}

impl FailureKind {
    /// Every kind, in order.
    pub const ALL: [Self; 7] = [
        Self::Unreachable,
        Self::Broken,
        Self::Late,
        Self::RateLimited,
        Self::ServerError,
        Self::KeyRefused,
        Self::Nonsense,
    ];

    /// The word that metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Broken => "broken",
            Self::Late => "late",
            Self::RateLimited => "rate-limited",
            Self::ServerError => "server-error",
            Self::KeyRefused => "key-refused",
            Self::Nonsense => "nonsense",
        }
    }
}

/// What is sent to a provider: made from the caller's request for one version.
#[derive(Debug, Clone)]
pub struct Wire {
    /// The path after the base URL, with its query.
    pub endpoint: String,
    /// The body, JSON.
    pub body: Bytes,
}

/// An error that a provider answered with, as far as it was read.
#[derive(Debug, Clone)]
pub struct ProviderAnswer {
    /// The status.
    pub status: StatusCode,
    /// The first 64 KiB of its body; empty if it could not be read.
    pub body: Bytes,
    /// When the provider wants to be asked again.
    pub retry_after: Option<Duration>,
}

/// Where a version is reached and what goes along with every request.
pub(super) struct Endpoint {
    client: HttpClient,
    provider: Provider,
    scheme: Scheme,
    authority: Option<Authority>,
    /// With a slash at its end.
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("provider", &self.provider).field("host", &self.authority).finish()
    }
}

impl Endpoint {
    pub(super) fn new(parts: &VersionParts) -> Self {
        let base = &parts.facts.base_url;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("castra/", env!("CARGO_PKG_VERSION"))),
        );
        for (name, value) in &parts.headers {
            headers.insert(name, value.clone());
        }
        if let Some(key) = &parts.key {
            headers.insert(&key.name, key.value.clone());
        }
        Self {
            client: parts.client.clone(),
            provider: parts.facts.provider,
            scheme: base.scheme().cloned().unwrap_or(Scheme::HTTPS),
            authority: base.authority().cloned(),
            path: format!("{}/", base.path().trim_end_matches('/')),
            query: parts.facts.api_version.as_ref().map(|version| format!("api-version={version}")),
            headers,
        }
    }

    /// Sends a request and waits until the answer begins, at most `patience`. What is good or the
    /// caller's own fault is given from its first byte on; what another attempt may mend is an error.
    pub(super) async fn ask(
        &self,
        wire: &Wire,
        caller: &HeaderMap,
        stream: bool,
        patience: Duration,
        idle: Duration,
        now: fn() -> Timestamp,
    ) -> Result<Response<ProviderBody>, (ProviderError, Option<Box<ProviderAnswer>>)> {
        let deadline = Instant::now() + patience;
        let late = |_| ProviderError::Late { after: patience };
        let request = self.request(wire, caller, stream).map_err(|e| (e, None))?;
        let response = timeout_at(deadline, self.client.send(request)).await;
        let response = response.map_err(late).and_then(|sent| Ok(sent?)).map_err(|e| (e, None))?;
        let (head, body) = response.into_parts();
        if let Some(error) = fault(&head, now) {
            // What is said of the key is the operator's business, not the caller's.
            let answer = match &error {
                ProviderError::Status { status, retry_after } => {
                    let (status, retry_after) = (*status, *retry_after);
                    Some(Box::new(ProviderAnswer { status, body: error_body(body).await, retry_after }))
                }
                _ => None,
            };
            return Err((error, answer));
        }
        let body = timeout_at(deadline, ProviderBody::begun(body, idle)).await;
        let body = body.map_err(late).and_then(|begun| begun).map_err(|e| (e, None))?;
        if body.first.is_none() && head.status.is_success() {
            return Err((ProviderError::Empty, None));
        }
        Ok(Response::from_parts(head, body))
    }

    fn request(
        &self,
        wire: &Wire,
        caller: &HeaderMap,
        stream: bool,
    ) -> Result<Request<Full<Bytes>>, ProviderError> {
        let mut headers = self.passed(caller);
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        let accept = if stream { "text/event-stream" } else { "application/json" };
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        let mut request = Request::new(Full::new(wire.body.clone()));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.url(&wire.endpoint)?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// What of the caller's headers goes along. What the configuration sets stands over it.
    fn passed(&self, caller: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, providers) in PASSED {
            if providers.contains(&self.provider) {
                for value in caller.get_all(*name) {
                    headers.append(HeaderName::from_static(name), value.clone());
                }
            }
        }
        if self.provider == Provider::Anthropic && !headers.contains_key("anthropic-version") {
            headers.insert("anthropic-version", HeaderValue::from_static(ANTHROPIC_VERSION));
        }
        headers
    }

    /// A URL at the configured host, whatever the endpoint says.
    fn url(&self, endpoint: &str) -> Result<Uri, ProviderError> {
        let bad = || ProviderError::BadEndpoint(endpoint.chars().take(80).collect());
        let (path, query) = endpoint.split_once('?').map_or((endpoint, None), |(p, q)| (p, Some(q)));
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(bad());
        }
        let mut text = format!("{}{path}", self.path);
        for (n, query) in query.into_iter().chain(self.query.as_deref()).enumerate() {
            text.push(if n == 0 { '?' } else { '&' });
            text.push_str(query);
        }
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = self.authority.clone();
        parts.path_and_query = Some(PathAndQuery::try_from(text).map_err(|_| bad())?);
        Uri::from_parts(parts).map_err(|_| bad())
    }

    /// Asks what models there are, which costs nothing: whether the provider is there and takes the key.
    pub(super) async fn models(&self, patience: Duration) -> Result<Bytes, ProviderError> {
        let mut request = Request::new(Full::default());
        let query = match self.provider {
            Provider::Anthropic => "models?limit=1000",
            Provider::Gemini => "models?pageSize=1000",
            Provider::OpenAi | Provider::OpenAiCompatible | Provider::Azure => "models",
        };
        *request.uri_mut() = self.url(query)?;
        *request.headers_mut() = self.passed(&HeaderMap::new());
        request.headers_mut().extend(self.headers.clone());
        request.headers_mut().remove(header::CONTENT_TYPE);
        let late = |_| ProviderError::Late { after: patience };
        let (head, body) = timeout(patience, self.client.send(request)).await.map_err(late)??.into_parts();
        if let Some(error) = fault(&head, || Timestamp(0)) {
            return Err(error);
        }
        if !head.status.is_success() {
            return Err(ProviderError::Status { status: head.status, retry_after: None });
        }
        let read = body::read(body, LIST_BYTES_MAX, patience).await;
        read.map_err(|e| ProviderError::Broken(e.to_string().into()))
    }
}

/// Asks a version's provider what models it has, which costs nothing: whether it is there and takes the
/// key. Gives their names as far as they can be read.
pub async fn list_models(parts: &VersionParts, patience: Duration) -> Result<Vec<String>, ProviderError> {
    let body = Endpoint::new(parts).models(patience).await?;
    let list: serde_json::Value = serde_json::from_slice(&body).map_err(|_| ProviderError::Nonsense)?;
    let items = list.get("data").or_else(|| list.get("models")).and_then(serde_json::Value::as_array);
    let name = |item: &serde_json::Value| {
        let name = item.get("id").or_else(|| item.get("name"))?.as_str()?;
        // Gemini's names are paths.
        Some(name.strip_prefix("models/").unwrap_or(name).to_owned())
    };
    Ok(items.into_iter().flatten().filter_map(name).collect())
}

/// Bytes of a list of models.
const LIST_BYTES_MAX: usize = 4 << 20;

/// What is wrong with an answer already by its head, if another attempt or another version could do
/// better. What the caller did wrong (400, 404, 422 …) is none.
fn fault(head: &http::response::Parts, now: fn() -> Timestamp) -> Option<ProviderError> {
    let status = head.status;
    match status.as_u16() {
        401..=403 => return Some(ProviderError::KeyRefused(status)),
        408 | 429 | 500..=599 => {
            let retry_after = retry_after(&head.headers, now);
            return Some(ProviderError::Status { status, retry_after });
        }
        300..=399 | 100..=199 => return Some(ProviderError::Redirected(status)),
        _ => {}
    }
    let encoding = head.headers.get(header::CONTENT_ENCODING);
    encoding
        .is_some_and(|e| !e.as_bytes().eq_ignore_ascii_case(b"identity"))
        .then_some(ProviderError::Compressed)
}

/// When to ask again: `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3), or
/// `retry-after-ms` as OpenAI and Azure send it.
fn retry_after(headers: &HeaderMap, now: fn() -> Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    if let Some(ms) = text("retry-after-ms").and_then(|t| t.parse().ok()) {
        return Some(Duration::from_millis(ms));
    }
    let wish = text("retry-after")?;
    if let Ok(secs) = wish.parse() {
        return Some(Duration::from_secs(secs));
    }
    let micros = http_date(wish)?.0.saturating_sub(now().0);
    Some(Duration::from_micros(micros.try_into().unwrap_or(0)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
fn http_date(text: &str) -> Option<Timestamp> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut words = text.split_once(", ")?.1.split(' ');
    let (day, month, year, time) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let place = MONTHS.find(month).filter(|at| month.len() == 3 && at % 3 == 0)?;
    (words.next()? == "GMT").then_some(())?;
    Timestamp::parse(&format!("{year}-{:02}-{day}T{time}Z", place / 3 + 1))
}

async fn error_body(body: Incoming) -> Bytes {
    body::read(body, ERROR_BYTES_MAX, ERROR_TIME_MAX).await.unwrap_or_default()
}

/// The body of an answer that has begun. An error when it breaks off or falls silent for too long.
#[derive(Debug)]
pub struct ProviderBody {
    first: Option<Bytes>,
    rest: Incoming,
    idle: Duration,
    last: Instant,
    // Armed anew only when it goes off too soon, so that a frame costs no timer.
    timer: Option<Pin<Box<Sleep>>>,
}

impl ProviderBody {
    /// Waits for the first bytes.
    async fn begun(mut rest: Incoming, idle: Duration) -> Result<Self, ProviderError> {
        let first = loop {
            match std::future::poll_fn(|cx| Pin::new(&mut rest).poll_frame(cx)).await {
                None => break None,
                Some(Err(e)) => return Err(broken(&e)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => break Some(data),
                    _ => {}
                },
            }
        };
        Ok(Self { first, rest, idle, last: Instant::now(), timer: None })
    }

    /// Pending, or an error if nothing came for too long.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<ProviderError> {
        loop {
            let until = self.last + self.idle;
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= until {
                return Poll::Ready(ProviderError::Silent { after: self.idle });
            }
            timer.as_mut().reset(until);
        }
    }
}

impl Body for ProviderBody {
    type Data = Bytes;
    type Error = ProviderError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ProviderError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        match Pin::new(&mut self.rest).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.last = Instant::now();
                Poll::Ready(frame.map(|frame| frame.map_err(|e| broken(&e))))
            }
            Poll::Pending => self.wait(cx).map(|error| Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        let rest = self.rest.size_hint();
        let first = self.first.as_ref().map_or(0, Bytes::len) as u64;
        let mut hint = http_body::SizeHint::new();
        // The upper bound first: it may not be less than the lower.
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(first));
        }
        hint.set_lower(rest.lower().saturating_add(first));
        hint
    }
}

fn broken(error: &hyper::Error) -> ProviderError {
    ProviderError::Broken(error.to_string().into())
}
