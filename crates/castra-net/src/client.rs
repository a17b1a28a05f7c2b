//! The HTTP client towards upstreams: pooled connections, HTTP/1.1, and HTTP/2 where TLS agrees on
//! it. Answers stream; nothing is followed, retried, decompressed or kept, so that the caller sees
//! exactly what the upstream said. Times other than connecting are the caller's to keep.

use std::{
    error::Error as StdError,
    fmt::Write,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use castra_core::Limits;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tower_service::Service;

/// Bounds and times of a client.
#[derive(Debug, Clone, Copy)]
pub struct ClientSettings {
    /// Name look-up, TCP and TLS together must be done within this time.
    pub connect_time_max: Duration,
    /// A pooled connection without a request is closed after this time.
    pub idle_time_max: Duration,
    /// Connections without a request that are kept per upstream.
    pub idle_per_host_max: usize,
    /// Bytes of all headers of an answer.
    pub header_bytes_max: usize,
}

impl From<&Limits> for ClientSettings {
    fn from(limits: &Limits) -> Self {
        Self {
            connect_time_max: limits.connect_time_max,
            // Node and uvicorn, on which most MCP servers stand, close idle connections after 5 s.
            // Being first spares a call the race against their close, which cannot be told from a
            // call that arrived.
            idle_time_max: limits.idle_time_max.min(Duration::from_secs(4)),
            idle_per_host_max: limits.calls_per_agent_max,
            header_bytes_max: limits.header_bytes_max,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// No connection came about (name, TCP, TLS, time), so nothing was sent.
    #[error("no connection: {0}")]
    NoConnection(Arc<str>),
    /// The connection broke or the answer was not HTTP; the request may have arrived.
    #[error("the connection failed: {0}")]
    Broken(Arc<str>),
    /// The trust roots of this machine could not be used.
    #[error("the certificate store of this machine cannot be used: {0}")]
    NoRoots(Arc<str>),
}

/// A pooled client; cheap to clone, clones share the pool.
#[derive(Clone)]
pub struct HttpClient {
    pool: Client<InTime<HttpsConnector<HttpConnector>>, Full<Bytes>>,
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpClient")
    }
}

impl HttpClient {
    /// Makes a client; opens nothing. ALPN of `tls` is set here.
    pub fn new(settings: ClientSettings, tls: &rustls::ClientConfig) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(settings.connect_time_max));
        // A stream may be silent for minutes; without this a vanished peer would never be noticed.
        tcp.set_keepalive(Some(Duration::from_secs(60)));
        let mut tls = tls.clone();
        tls.alpn_protocols.clear();
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(tcp);
        let connector = InTime { inner: https, time_max: settings.connect_time_max };

        let header_bytes_max = settings.header_bytes_max.max(HYPER_BUFFER_MIN);
        let pool = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(settings.idle_time_max)
            .pool_max_idle_per_host(settings.idle_per_host_max)
            .http1_max_buf_size(header_bytes_max)
            .http2_max_header_list_size(u32::try_from(header_bytes_max).unwrap_or(u32::MAX))
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(Duration::from_secs(60))
            .build(connector);
        Self { pool }
    }

    /// Sends one request and waits for the head of the answer. Dropping the future, or the answer's
    /// body before its end, closes the connection (HTTP/1.1) or resets the stream (HTTP/2).
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ClientError> {
        self.pool.request(request).await.map_err(|e| {
            let text = chain(&e).into();
            if e.is_connect() { ClientError::NoConnection(text) } else { ClientError::Broken(text) }
        })
    }
}

/// TLS that trusts what this machine trusts: version 1.3, and 1.2 only if asked for.
pub fn machine_tls(allow_tls12: bool) -> Result<rustls::ClientConfig, ClientError> {
    let versions: &[_] = if allow_tls12 { rustls::ALL_VERSIONS } else { &[&rustls::version::TLS13] };
    let no_roots = |e: &dyn StdError| ClientError::NoRoots(chain(e).into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|e| no_roots(&e))?;
    Ok(builder.with_native_roots().map_err(|e| no_roots(&e))?.with_no_client_auth())
}

/// An error with its causes in one line. hyper's errors say little by themselves.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Smallest buffer that hyper takes (`http1_max_buf_size` panics below it).
const HYPER_BUFFER_MIN: usize = 8192;

/// A connector with a limit on all of connecting; hyper-util's own covers TCP alone.
#[derive(Clone)]
struct InTime<C> {
    inner: C,
    time_max: Duration,
}

type BoxError = Box<dyn StdError + Send + Sync>;

impl<C> Service<Uri> for InTime<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.inner.call(uri);
        let time_max = self.time_max;
        Box::pin(async move {
            let late = |_| format!("not connected within {} ms", time_max.as_millis());
            tokio::time::timeout(time_max, connecting).await.map_err(late)?
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use rustls::RootCertStore;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn client(connect_ms: u64) -> HttpClient {
        let settings = ClientSettings {
            connect_time_max: Duration::from_millis(connect_ms),
            idle_time_max: Duration::from_secs(5),
            idle_per_host_max: 4,
            header_bytes_max: 8192,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        HttpClient::new(settings, &tls)
    }

    /// Answers every connection with the same bytes and holds it open.
    async fn server(answer: Vec<u8>) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let _ = socket.read(&mut head).await;
                let _ = socket.write_all(&answer).await;
                held.push(socket);
            }
        });
        address
    }

    async fn get(client: &HttpClient, uri: String) -> Result<Response<Incoming>, ClientError> {
        client.send(Request::get(uri).body(Full::default()).unwrap()).await
    }

    #[tokio::test]
    async fn redirects_come_back_as_they_are() {
        let answer = b"HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 2\r\n\r\nno".to_vec();
        let address = server(answer).await;
        let response = get(&client(1000), format!("http://{address}/")).await.unwrap();
        assert_eq!(response.status(), 302);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no");
    }

    #[tokio::test]
    async fn heads_are_bounded() {
        let mut answer = b"HTTP/1.1 200 OK\r\nx-long: ".to_vec();
        answer.resize(1 << 20, b'x');
        let address = server(answer).await;
        let error = get(&client(1000), format!("http://{address}/")).await.unwrap_err();
        assert!(matches!(error, ClientError::Broken(_)), "{error}");
    }

    #[tokio::test]
    async fn nobody_there_is_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = get(&client(1000), format!("http://{address}/")).await.unwrap_err();
        assert!(matches!(error, ClientError::NoConnection(_)), "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn a_peer_that_does_not_shake_hands_is_given_up() {
        // It accepts TCP and reads, and never says a word of TLS.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let error = get(&client(50), format!("https://{address}/")).await.unwrap_err();
        assert!(matches!(error, ClientError::NoConnection(_)), "{error}");
        assert!(error.to_string().ends_with("not connected within 50 ms"), "{error}");
    }
}
