//! Listeners on real sockets. Where time matters it is tokio's paused clock, which jumps to the
//! next timer when nothing else can happen.

use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use castra_core::Timestamp;
use http_body_util::{BodyExt, Empty, Full};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Notify, Semaphore},
};
use tokio_rustls::TlsConnector;

use super::*;
use crate::tls::{ClientTlsConfig, ServerTlsConfig, client_config};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn loopback(limits: Limits, tls: Option<Arc<ServerTls>>) -> Listener {
    let addresses = vec!["127.0.0.1:0".parse().unwrap()];
    Listener::bind(ListenConfig { name: "test", addresses, tls, limits }).unwrap()
}

fn text(text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::new(Full::new(text.into()))
}

/// Answers with what the connection knows of its peer.
fn serve_peers(listener: Listener) -> (SocketAddr, Serving) {
    let address = listener.addresses()[0];
    let serving = listener.serve(|peer| {
        let known = peer.tls.as_ref().map_or("plain".to_owned(), |tls| {
            format!(
                "{} {} {:?}",
                tls.version,
                tls.group,
                tls.client_certificate.as_ref().map(|c| c.len() > 100)
            )
        });
        answer(move |_| std::future::ready(text(known.clone())))
    });
    (address, serving)
}

async fn read_answer(stream: &mut TcpStream) -> String {
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let head_end = got.windows(4).position(|w| w == b"\r\n\r\n");
        let length = |head: &str| {
            head.lines()
                .find_map(|l| l.strip_prefix("content-length: "))
                .and_then(|l| l.parse::<usize>().ok())
        };
        if let Some(end) = head_end {
            let head = String::from_utf8_lossy(&got[..end]).into_owned();
            if got.len() >= end + 4 + length(&head).unwrap_or(0) {
                return String::from_utf8(got).unwrap();
            }
        }
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => got.extend_from_slice(&buffer[..n]),
            _ => return String::from_utf8(got).unwrap(),
        }
    }
}

async fn closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.is_err() || rest.is_empty()
}

#[test]
fn plain_text_stays_on_this_machine() {
    for address in ["0.0.0.0:0", "192.0.2.1:8440", "[::]:0"] {
        let addresses = vec![address.parse().unwrap()];
        let config = ListenConfig { name: "gate", addresses, tls: None, limits: Limits::default() };
        let said = Listener::bind(config).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(said.contains("without TLS") && said.contains(address), "{said}");
    }
}

#[tokio::test]
async fn a_taken_port_is_said() {
    let taken = loopback(Limits::default(), None);
    let addresses = taken.addresses().to_vec();
    let config = ListenConfig { name: "gate", addresses, tls: None, limits: Limits::default() };
    let said = Listener::bind(config).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(said.contains("the gate cannot listen on 127.0.0.1:") && said.contains("another port"), "{said}");
}

#[tokio::test]
async fn one_service_answers_all_requests_of_a_connection() {
    let listener = loopback(Limits::default(), None);
    let address = listener.addresses()[0];
    let services = Arc::new(AtomicUsize::new(0));
    let made = services.clone();
    let serving = listener.serve(move |peer| {
        made.fetch_add(1, Relaxed);
        assert!(peer.address.ip().is_loopback() && peer.tls.is_none());
        answer(|request: Request<Incoming>| async move {
            text(request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default())
        })
    });
    let mut stream = TcpStream::connect(address).await.unwrap();
    for body in ["one", "two", "six"] {
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(read_answer(&mut stream).await.ends_with(&format!("\r\n\r\n{body}")));
    }
    assert_eq!(services.load(Relaxed), 1);
    assert_eq!(serving.stats().accepted.load(Relaxed), 1);
    assert_eq!(serving.drain().await, Drained { finished: 1, aborted: 0 });
    assert!(closed(&mut stream).await);
}

#[tokio::test]
async fn bad_heads_are_refused_and_told() {
    let limits = Limits { header_bytes_max: 1024, ..Limits::default() };
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let listener = loopback(limits, None).on_refusal(move |source, refusal| {
        tell.send((source, refusal.code, refusal.to_string())).unwrap();
    });
    let (address, serving) = serve_peers(listener);
    let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(2000));
    for (request, status, code, reason) in [
        (large.as_str(), "HTTP/1.1 431 ", RefusalCode::LimitReached, "more than 1024 bytes"),
        ("{}\r\n\r\n", "HTTP/1.1 400 ", RefusalCode::Malformed, "not HTTP"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(read_answer(&mut stream).await.starts_with(status));
        let (source, told_code, told_reason) = told.recv().await.unwrap();
        assert_eq!((source, told_code), (address.ip(), code));
        assert!(told_reason.contains(reason), "{told_reason}");
    }
    assert_eq!(serving.stats().closed_large_head.load(Relaxed), 1);
    assert_eq!(serving.stats().closed_malformed.load(Relaxed), 1);
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let (address, serving) = serve_peers(loopback(limits, None));
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(GET).await.unwrap();
    assert!(read_answer(&mut first).await.ends_with("plain"));
    let mut second = TcpStream::connect(address).await.unwrap();
    assert!(closed(&mut second).await);
    assert_eq!(serving.stats().refused_full.load(Relaxed), 1);
    drop(first);
    while serving.stats().open.load(Relaxed) > 0 {
        tokio::task::yield_now().await;
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    third.write_all(GET).await.unwrap();
    assert!(read_answer(&mut third).await.ends_with("plain"));
}

#[tokio::test(start_paused = true)]
async fn slow_heads_and_idle_connections_are_closed() {
    let (address, serving) = serve_peers(loopback(Limits::default(), None));
    let stats = serving.stats();
    let opened = tokio::time::Instant::now();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(&GET[..10]).await.unwrap();
    assert!(closed(&mut slow).await);
    assert_eq!(stats.closed_slow_head.load(Relaxed), 1);
    assert!(opened.elapsed() < Limits::default().idle_time_max);

    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(GET).await.unwrap();
    assert!(read_answer(&mut idle).await.ends_with("plain"));
    let answered = tokio::time::Instant::now();
    assert!(closed(&mut idle).await);
    assert_eq!(stats.closed_idle.load(Relaxed), 1);
    assert!(answered.elapsed() >= Limits::default().idle_time_max - Duration::from_secs(1));

    let mut slow_again = TcpStream::connect(address).await.unwrap();
    slow_again.write_all(GET).await.unwrap();
    assert!(read_answer(&mut slow_again).await.ends_with("plain"));
    slow_again.write_all(&GET[..10]).await.unwrap();
    assert!(closed(&mut slow_again).await);
    assert_eq!(stats.closed_slow_head.load(Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_is_not_idle_but_one_that_nobody_takes_is() {
    let listener = loopback(Limits::default(), None);
    let address = listener.addresses()[0];
    let long = Limits::default().idle_time_max * 3;
    let serving = listener.serve(move |_| {
        answer(move |request: Request<Incoming>| async move {
            match request.uri().path() {
                "/long" => tokio::time::sleep(long).await,
                _ => return text(vec![b'x'; 64 << 20]),
            }
            text("late")
        })
    });
    let mut patient = TcpStream::connect(address).await.unwrap();
    patient.write_all(b"GET /long HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(read_answer(&mut patient).await.ends_with("late"));

    let mut deaf = TcpStream::connect(address).await.unwrap();
    deaf.write_all(GET).await.unwrap();
    while serving.stats().closed_stalled.load(Relaxed) == 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Frames come one at a time, as from hyper's client; each chunk that the peer sees was one write.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_burst_of_events_leaves_in_few_writes() {
    let listener = loopback(Limits::default(), None);
    let address = listener.addresses()[0];
    let _serving = listener.serve(|_| {
        answer(|_| async {
            let (send, items) = tokio::sync::mpsc::channel(1);
            tokio::spawn(async move {
                for _ in 0..20 {
                    send.send(Bytes::from_static(b"data: x\n\n")).await.unwrap();
                }
            });
            let events = futures_util::stream::unfold(items, async |mut items| {
                let event: Bytes = items.recv().await?;
                Some((Ok::<_, Infallible>(http_body::Frame::data(event)), items))
            });
            Response::new(http_body_util::StreamBody::new(events))
        })
    });
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut got = String::new();
    stream.read_to_string(&mut got).await.unwrap();
    let (_, body) = got.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.matches("data: x").count(), 20);
    let chunks = body.matches("\r\n").count() / 2;
    assert!(chunks < 10, "{chunks} chunks");
}

#[tokio::test]
async fn a_peer_that_leaves_cancels_its_call() {
    let listener = loopback(Limits::default(), None);
    let address = listener.addresses()[0];
    let begun = Arc::new(Notify::new());
    let dropped = Arc::new(Notify::new());
    let (began, gone) = (begun.clone(), dropped.clone());
    let _serving = listener.serve(move |_| {
        let (began, gone) = (began.clone(), gone.clone());
        answer(move |_| {
            let (began, gone) = (began.clone(), gone.clone());
            async move {
                let _tell = OnDrop(gone);
                began.notify_one();
                std::future::pending::<Response<Empty<Bytes>>>().await
            }
        })
    });
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(GET).await.unwrap();
    begun.notified().await;
    drop(stream);
    dropped.notified().await;
}

struct OnDrop(Arc<Notify>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_calls_finish_and_cuts_off_what_does_not() {
    let listener = loopback(Limits::default(), None);
    let address = listener.addresses()[0];
    let begun = Arc::new(Semaphore::new(0));
    let finish = Arc::new(Notify::new());
    let (began, finished) = (begun.clone(), finish.clone());
    let serving = listener.serve(move |_| {
        let (began, finished) = (began.clone(), finished.clone());
        answer(move |request: Request<Incoming>| {
            let (began, finished) = (began.clone(), finished.clone());
            async move {
                began.add_permits(1);
                match request.uri().path() {
                    "/never" => std::future::pending().await,
                    _ => finished.notified().await,
                }
                text("done")
            }
        })
    });
    let mut polite = TcpStream::connect(address).await.unwrap();
    polite.write_all(GET).await.unwrap();
    let mut endless = TcpStream::connect(address).await.unwrap();
    endless.write_all(b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut silent = TcpStream::connect(address).await.unwrap();
    let _two = begun.acquire_many(2).await.unwrap();
    while serving.stats().open.load(Relaxed) < 3 {
        tokio::task::yield_now().await;
    }

    let drain = tokio::spawn(serving.drain());
    assert!(closed(&mut silent).await);
    assert!(TcpStream::connect(address).await.is_err());
    finish.notify_one();
    let last = read_answer(&mut polite).await;
    assert!(last.ends_with("done") && last.contains("connection: close"), "{last}");
    assert!(closed(&mut polite).await);
    assert_eq!(drain.await.unwrap(), Drained { finished: 2, aborted: 1 });
    assert!(closed(&mut endless).await);
}

struct Authority {
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { ca: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn pem(&self) -> Vec<u8> {
        self.ca.pem().into_bytes()
    }

    fn issue(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> (Vec<u8>, zeroize::Zeroizing<Vec<u8>>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes().into())
    }

    fn server(&self, client_roots_pem: Vec<Vec<u8>>) -> Arc<ServerTls> {
        let (certificate_pem, key_pem) = self.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        let config = ServerTlsConfig { certificate_pem, key_pem, client_roots_pem, http2: true };
        ServerTls::new(&config, Timestamp::from_secs(1_795_557_868)).unwrap()
    }

    fn client(&self, identity: Option<&Authority>, alpn: &[&[u8]]) -> ClientConfig {
        let issue = |ca: &Authority| ca.issue("agent.example", ExtendedKeyUsagePurpose::ClientAuth);
        let config = ClientTlsConfig {
            roots_pem: vec![self.pem()],
            identity_pem: identity.map(issue),
            alpn: alpn.iter().map(|p| p.to_vec()).collect(),
            ..ClientTlsConfig::default()
        };
        client_config(&config).unwrap()
    }
}

async fn over_tls(address: SocketAddr, config: ClientConfig) -> io::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn tls_is_1_3_with_the_post_quantum_group_and_certificates_are_checked() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let codes = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let listener = loopback(Limits::default(), Some(ours.server(vec![ours.pem()]))).on_refusal({
        let codes = codes.clone();
        move |_, refusal| codes.lock().push(refusal.code)
    });
    let (address, serving) = serve_peers(listener);

    let without = over_tls(address, ours.client(None, &[])).await.unwrap();
    assert!(without.ends_with("TLSv1_3 X25519MLKEM768 None"), "{without}");
    let with = over_tls(address, ours.client(Some(&ours), &[])).await.unwrap();
    assert!(with.ends_with("TLSv1_3 X25519MLKEM768 Some(true)"), "{with}");

    assert!(over_tls(address, ours.client(Some(&foreign), &[])).await.is_err());
    assert!(over_tls(address, foreign.client(None, &[])).await.is_err());
    let old = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    assert!(over_tls(address, old).await.is_err());
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(GET).await.unwrap();
    assert!(!read_answer(&mut plain).await.starts_with("HTTP/"));
    while serving.stats().open.load(Relaxed) > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(serving.stats().handshakes_failed.load(Relaxed), 4);
    use RefusalCode::{BadCredential, Malformed, UnsupportedVersion};
    assert_eq!(*codes.lock(), [BadCredential, Malformed, UnsupportedVersion, Malformed]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_does_not_hold_a_handshake() {
    let ours = Authority::new();
    let (address, serving) = serve_peers(loopback(Limits::default(), Some(ours.server(Vec::new()))));
    let mut silent = TcpStream::connect(address).await.unwrap();
    assert!(closed(&mut silent).await);
    assert_eq!(serving.stats().handshakes_late.load(Relaxed), 1);
}

#[tokio::test]
async fn http2_is_spoken_when_asked_for() {
    let ours = Authority::new();
    let (address, serving) = serve_peers(loopback(Limits::default(), Some(ours.server(Vec::new()))));
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let config = Arc::new(ours.client(None, &[b"h2"]));
    let stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(Spawn, TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..2 {
        let request = Request::get("https://localhost/").body(Empty::<Bytes>::new()).unwrap();
        let body = sender.send_request(request).await.unwrap().collect().await.unwrap().to_bytes();
        assert!(body.starts_with(b"TLSv1_3"));
    }
    assert_eq!(serving.drain().await, Drained { finished: 1, aborted: 0 });
}

#[tokio::test]
async fn a_new_certificate_serves_new_connections() {
    let (old, new) = (Authority::new(), Authority::new());
    let tls = old.server(Vec::new());
    let (address, _serving) = serve_peers(loopback(Limits::default(), Some(tls.clone())));
    assert!(over_tls(address, old.client(None, &[])).await.is_ok());
    let (certificate_pem, key_pem) = new.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    let config = ServerTlsConfig { certificate_pem, key_pem, client_roots_pem: Vec::new(), http2: false };
    tls.reload(&config, Timestamp::from_secs(1_795_557_868)).unwrap();
    assert!(over_tls(address, old.client(None, &[])).await.is_err());
    assert!(over_tls(address, new.client(None, &[])).await.is_ok());
}
