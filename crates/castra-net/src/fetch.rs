//! Gets small documents of other people, such as the keys and metadata of an identity provider:
//! HTTPS, bounded in bytes, time and redirects, and by default only from public addresses.
//!
//! The address that was checked is the address that is connected to, so that a name which answers
//! differently the second time gains nothing. Each document gets a connection of its own; they
//! are few.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header, uri::Scheme};
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::body::{self, BodyError};

/// Bounds of a fetch.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// Bytes of the document.
    pub bytes_max: usize,
    /// Time from the first look-up to the last byte, redirects included.
    pub time_max: Duration,
    /// Redirects that are followed; each target is checked like the first.
    pub redirects_max: usize,
    /// Whether addresses that are not public may be asked. An operator who names an identity
    /// provider on the own network says yes; a document that names another URL never does.
    pub private_addresses: bool,
    /// Whether `http://` will do; only to loopback addresses, and only with `private_addresses`.
    pub plain_loopback: bool,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            bytes_max: 512 << 10,
            time_max: Duration::from_secs(10),
            redirects_max: 3,
            private_addresses: false,
            plain_loopback: false,
        }
    }
}

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its `Content-Type`, as sent; empty if there was none.
    pub content_type: String,
    /// How long it may be kept (`Cache-Control: max-age`); None if it does not say.
    pub max_age: Option<Duration>,
    /// The document.
    pub body: Bytes,
}

/// Why a document could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not a URL that is fetched.
    #[error("{url:?} is not fetched: {reason}")]
    BadUrl {
        /// The URL.
        url: String,
        /// Why.
        reason: &'static str,
    },
    /// It would lead into a private network.
    #[error(
        "{host} is at {address}, which is not a public address; allow private addresses for it if that is meant"
    )]
    Private {
        /// The host.
        host: String,
        /// Where it is.
        address: IpAddr,
    },
    /// The name cannot be looked up, or nobody listens there, or TLS failed.
    #[error("cannot connect to {host}: {reason}")]
    Connect {
        /// The host.
        host: String,
        /// Why.
        reason: String,
    },
    /// Another answer than a document.
    #[error("{host} answered {status} instead of a document")]
    Status {
        /// The host.
        host: String,
        /// What it said.
        status: StatusCode,
    },
    /// Too many redirects, or one without a good target.
    #[error("{host} redirects {reason}")]
    Redirect {
        /// The host.
        host: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The document is too large or broke off.
    #[error("the document of {host} cannot be read: {source}")]
    Body {
        /// The host.
        host: String,
        /// Why.
        source: BodyError,
    },
    /// Not there in time.
    #[error("{url} did not answer within {} seconds", time_max.as_secs())]
    TooSlow {
        /// The URL.
        url: String,
        /// The limit.
        time_max: Duration,
    },
}

/// Fetches documents under one set of limits.
pub struct Fetcher {
    tls: TlsConnector,
    limits: FetchLimits,
}

impl Fetcher {
    /// A fetcher that trusts what `tls` trusts (`tls::client_config`).
    pub fn new(tls: Arc<ClientConfig>, limits: FetchLimits) -> Self {
        Self { tls: tls.into(), limits }
    }

    /// Gets the document at `url`; `accept` is the media type wanted.
    pub async fn get(&self, url: &str, accept: &str) -> Result<Fetched, FetchError> {
        let time_max = self.limits.time_max;
        let late = || FetchError::TooSlow { url: url.to_owned(), time_max };
        tokio::time::timeout(time_max, self.follow(url, accept)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn follow(&self, url: &str, accept: &str) -> Result<Fetched, FetchError> {
        let mut target = Target::parse(url, &self.limits)?;
        for _ in 0..=self.limits.redirects_max {
            let answer = self.ask(&target, accept).await?;
            if answer.status() == StatusCode::OK {
                return self.read(target, answer).await;
            }
            target = target.redirected(&answer, &self.limits)?;
        }
        Err(FetchError::Redirect { host: target.host, reason: "too often" })
    }

    async fn ask(&self, target: &Target, accept: &str) -> Result<Response<Incoming>, FetchError> {
        let failed = |reason: String| FetchError::Connect { host: target.host.clone(), reason };
        let request = Request::get(&target.path)
            .header(header::HOST, &target.authority)
            .header(header::ACCEPT, accept)
            .header(header::USER_AGENT, concat!("castra/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|e| failed(e.to_string()))?;
        let stream =
            TcpStream::connect(&*self.addresses(target).await?).await.map_err(|e| failed(e.to_string()))?;
        if !target.tls {
            return exchange(stream, request).await.map_err(failed);
        }
        let name = ServerName::try_from(target.host.clone()).map_err(|e| failed(e.to_string()))?;
        let stream = self.tls.connect(name, stream).await.map_err(|e| failed(e.to_string()))?;
        exchange(stream, request).await.map_err(failed)
    }

    /// Looks the host up and checks every address, for one bad one among good ones is a trap.
    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, FetchError> {
        let failed = |reason: String| FetchError::Connect { host: target.host.clone(), reason };
        let found = tokio::net::lookup_host((&*target.host, target.port)).await;
        let found: Vec<_> = found.map_err(|e| failed(e.to_string()))?.collect();
        for address in found.iter().map(SocketAddr::ip) {
            if !(self.limits.private_addresses || is_public(address)) {
                return Err(FetchError::Private { host: target.host.clone(), address });
            }
            if !(target.tls || address.is_loopback()) {
                return Err(failed(format!("{address} is beyond this machine, so https:// is required")));
            }
        }
        if found.is_empty() { Err(failed("the name has no address".to_owned())) } else { Ok(found) }
    }

    async fn read(&self, target: Target, answer: Response<Incoming>) -> Result<Fetched, FetchError> {
        let (head, body) = answer.into_parts();
        let text = |name| head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let max_age = max_age(text(header::CACHE_CONTROL));
        let content_type = text(header::CONTENT_TYPE).to_owned();
        let body = body::read(body, self.limits.bytes_max, self.limits.time_max).await;
        let body = body.map_err(|source| FetchError::Body { host: target.host, source })?;
        Ok(Fetched { content_type, max_age, body })
    }
}

/// One request on a connection of its own.
async fn exchange<T>(stream: T, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, String>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    // Ends with the request: when the answer's body is read or dropped.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(|e| e.to_string())
}

/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 32 << 10;

struct Target {
    tls: bool,
    host: String,
    authority: String,
    port: u16,
    path: String,
}

impl Target {
    fn parse(url: &str, limits: &FetchLimits) -> Result<Self, FetchError> {
        let bad = |reason| FetchError::BadUrl { url: url.chars().take(200).collect(), reason };
        let uri: Uri = url.parse().map_err(|_| bad("it is not an absolute URL"))?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP && limits.plain_loopback && limits.private_addresses => {
                false
            }
            _ => return Err(bad("it must begin with https://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it holds credentials"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(bad("it has no host"));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        Ok(Self { tls, host, authority: authority.to_string(), port, path })
    }

    fn redirected(self, answer: &Response<Incoming>, limits: &FetchLimits) -> Result<Self, FetchError> {
        let status = answer.status();
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Err(FetchError::Status { host: self.host, status });
        }
        let location = answer.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
        match location {
            None => Err(FetchError::Redirect { host: self.host, reason: "without saying where to" }),
            Some(path) if path.starts_with('/') && !path.starts_with("//") => {
                Ok(Self { path: path.to_owned(), ..self })
            }
            Some(url) => {
                let target = Self::parse(url, limits)?;
                if self.tls && !target.tls {
                    return Err(FetchError::Redirect { host: self.host, reason: "from https:// to http://" });
                }
                Ok(target)
            }
        }
    }
}

fn max_age(cache_control: &str) -> Option<Duration> {
    let mut directives = cache_control.split(',').map(str::trim);
    let seconds = directives.find_map(|d| d.strip_prefix("max-age="))?.trim_matches('"');
    seconds.parse().ok().map(Duration::from_secs)
}

/// Whether an address is one of the public internet, by the special-purpose registries of IANA
/// (RFC 6890 and its updates). Transition addresses count by the IPv4 address that they carry.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        // Shared by carriers (RFC 6598), protocol assignments, 6to4 relays, benchmarks (RFC 2544).
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b))
        // Multicast, reserved, broadcast.
        || a >= 224;
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let carried = |high: u16, low: u16| {
        let ([p, q], [r, s]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(p, q, r, s))
    };
    match (a, b) {
        // NAT64 (RFC 6052) and 6to4 (RFC 3056).
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => carried(g, h),
        (0x2002, _) => carried(b, c),
        // Protocol assignments with Teredo, and documentation (RFC 3849, RFC 9637).
        (0x2001, ..0x200 | 0xdb8) | (0x3fff, ..0x1000) => false,
        // Otherwise only global unicast: not ::, ::1, fc00::/7, fe80::/10, ff00::/8.
        _ => (0x2000..0x4000).contains(&a),
    }
}

#[cfg(test)]
mod tests {
    use castra_core::Limits;
    use http_body_util::Full;

    use super::*;
    use crate::{
        listen::{ListenConfig, Listener, Serving, answer},
        tls::{ClientTlsConfig, client_config},
    };

    #[test]
    fn public_addresses_are_told_from_others() {
        for public in ["1.1.1.1", "192.0.1.1", "2606:4700::1111", "64:ff9b::101:101", "::ffff:8.8.8.8"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for not in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::1",
            "fc00::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!is_public(not.parse().unwrap()), "{not}");
        }
    }

    #[test]
    fn only_good_urls_are_fetched() {
        let limits = FetchLimits::default();
        let refused =
            |url: &str| Target::parse(url, &limits).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(refused("http://a.example/").contains("https://"));
        assert!(refused("file:///etc/passwd").contains("not fetched"));
        assert!(refused("/keys").contains("https://"));
        assert!(refused("https://user:pass@a.example/").contains("credentials"));
        let target = Target::parse("https://[2001:db8::1]:8443/keys?a=b", &limits).ok().unwrap();
        assert_eq!(
            (target.host.as_str(), target.port, target.path.as_str()),
            ("2001:db8::1", 8443, "/keys?a=b")
        );
    }

    #[test]
    fn ages_are_read() {
        assert_eq!(max_age("public, max-age=300"), Some(Duration::from_secs(300)));
        assert_eq!(max_age("no-store"), None);
        assert_eq!(max_age("max-age=soon"), None);
    }

    fn fetcher(limits: FetchLimits) -> Fetcher {
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let roots_pem = vec![made.cert.pem().into_bytes()];
        let tls = client_config(&ClientTlsConfig { roots_pem, ..ClientTlsConfig::default() }).unwrap();
        Fetcher::new(Arc::new(tls), limits)
    }

    /// A server of documents and of trouble.
    fn serve() -> (String, Serving) {
        let addresses = vec!["127.0.0.1:0".parse().unwrap()];
        let config = ListenConfig { name: "test", addresses, tls: None, limits: Limits::default() };
        let listener = Listener::bind(config).unwrap();
        let base = format!("http://{}", listener.addresses()[0]);
        let serving = listener.serve(|_| {
            answer(|request: Request<Incoming>| async move {
                let path = request.uri().path().to_owned();
                let build = match path.as_str() {
                    "/keys" => Response::builder().header("cache-control", "max-age=60"),
                    "/moved" => Response::builder().status(302).header("location", "/keys"),
                    "/round" => Response::builder().status(302).header("location", "/round"),
                    "/away" => Response::builder().status(307).header("location", "file:///etc/passwd"),
                    "/gone" => Response::builder().status(404),
                    _ => std::future::pending().await,
                };
                build.body(Full::new(Bytes::from_static(b"{\"keys\":[]}"))).unwrap()
            })
        });
        (base, serving)
    }

    #[tokio::test(start_paused = true)]
    async fn documents_come_within_bounds() {
        let (base, _serving) = serve();
        let local = FetchLimits { private_addresses: true, plain_loopback: true, ..FetchLimits::default() };
        let open = fetcher(local.clone());
        let get = async |path: &str| open.get(&format!("{base}{path}"), "application/json").await;
        let keys = get("/keys").await.unwrap();
        assert_eq!((&keys.body[..], keys.max_age), (&b"{\"keys\":[]}"[..], Some(Duration::from_secs(60))));
        assert_eq!(get("/moved").await.unwrap().body, keys.body);
        assert!(matches!(get("/round").await, Err(FetchError::Redirect { reason: "too often", .. })));
        assert!(matches!(get("/away").await, Err(FetchError::BadUrl { .. })));
        assert!(matches!(get("/gone").await, Err(FetchError::Status { status: StatusCode::NOT_FOUND, .. })));
        assert!(matches!(get("/hangs").await, Err(FetchError::TooSlow { .. })));
        let small = fetcher(FetchLimits { bytes_max: 5, ..local });
        assert!(matches!(small.get(&format!("{base}/keys"), "*/*").await, Err(FetchError::Body { .. })));
    }

    #[tokio::test]
    async fn private_networks_are_not_reached() {
        let strict = fetcher(FetchLimits::default());
        for url in
            ["https://127.0.0.1:1/", "https://[::1]:1/", "https://localhost:1/", "https://169.254.169.254/"]
        {
            let said = strict.get(url, "*/*").await.err().map(|e| e.to_string()).unwrap_or_default();
            assert!(said.contains("not a public address"), "{url}: {said}");
        }
    }
}
