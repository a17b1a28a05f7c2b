//! A server that answers with exactly the bytes of a script, so that it can be wrong in any way.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use castra_gateway::upstream::Transport;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    #[allow(dead_code)] // the tests of models use it
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn says(&self, method: &str) -> bool {
        self.body.contains(&format!("\"method\":\"{method}\""))
    }
}

/// What is done for one request.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Send(Vec<u8>),
    Pause(u64),
    /// Holds the connection until the client closes it, and counts that.
    Hold,
    Close,
    /// Sends what this gives, as soon as it gives something.
    #[allow(dead_code)] // the tests of the path use it
    Later(Later),
}

/// Something that is not known yet.
#[derive(Clone)]
pub(crate) struct Later(pub(crate) Arc<dyn Fn() -> Option<Vec<u8>> + Send + Sync>);

impl std::fmt::Debug for Later {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Later")
    }
}

type Script = Arc<dyn Fn(&Seen) -> Vec<Step> + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    pub(crate) connections: Arc<AtomicUsize>,
    /// Connections that the client closed during [`Step::Hold`].
    pub(crate) left: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) async fn start(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            connections: Arc::default(),
            left: Arc::default(),
        };
        let (script, shared): (Script, _) = (Arc::new(script), server.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(shared.clone().serve(socket, script.clone()));
            }
        });
        server
    }

    pub(crate) fn transport(&self) -> Transport {
        Transport::Http {
            url: format!("http://{}/mcp?key=s3cret-key", self.address).parse().unwrap(),
            headers: vec![(
                http::header::AUTHORIZATION,
                http::HeaderValue::from_static("Bearer s3cret-token"),
            )],
        }
    }

    /// Requests that were seen so far.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    async fn serve(self, mut socket: TcpStream, script: Script) {
        let mut buffer = Vec::new();
        while let Some(seen) = next_request(&mut socket, &mut buffer).await {
            self.seen.lock().push(seen.clone());
            for step in script(&seen) {
                match step {
                    Step::Send(bytes) => {
                        if socket.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                    Step::Pause(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                    Step::Close => return,
                    Step::Later(Later(known)) => {
                        let bytes = loop {
                            match known() {
                                Some(bytes) => break bytes,
                                None => tokio::time::sleep(Duration::from_millis(2)).await,
                            }
                        };
                        if socket.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                    Step::Hold => {
                        let _ = socket.read(&mut [0; 64]).await;
                        self.left.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                }
            }
        }
    }
}

async fn next_request(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
            let mut lines = head.split("\r\n");
            let mut words = lines.next()?.split(' ').map(str::to_owned);
            let (method, path) = (words.next()?, words.next()?);
            let headers: BTreeMap<_, _> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let length = headers.get("content-length").map_or(0, |l| l.parse().unwrap());
            if buffer.len() >= end + 4 + length {
                let body = String::from_utf8(buffer[end + 4..end + 4 + length].to_vec()).unwrap();
                buffer.drain(..end + 4 + length);
                return Some(Seen { method, path, headers, body });
            }
        }
        let mut chunk = [0; 4096];
        match socket.read(&mut chunk).await {
            Ok(n) if n > 0 => buffer.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    }
}

/// A whole answer.
pub(crate) fn answer(status: &str, content_type: &str, body: impl AsRef<[u8]>) -> Vec<Step> {
    answer_with(status, &[("content-type", content_type)], body)
}

pub(crate) fn answer_with(status: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<Step> {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len()).into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    vec![Step::Send(bytes)]
}

pub(crate) fn json(body: impl AsRef<[u8]>) -> Vec<Step> {
    answer("200 OK", "application/json", body)
}

pub(crate) fn accepted() -> Vec<Step> {
    answer_with("202 Accepted", &[], "")
}

/// The head of an event stream.
pub(crate) fn stream() -> Step {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
    Step::Send(head.into())
}

/// A piece of a stream, as one chunk.
pub(crate) fn piece(data: impl AsRef<[u8]>) -> Step {
    let data = data.as_ref();
    let mut bytes = format!("{:x}\r\n", data.len()).into_bytes();
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(b"\r\n");
    Step::Send(bytes)
}

/// The end of a stream.
pub(crate) fn end() -> Step {
    Step::Send(b"0\r\n\r\n".to_vec())
}

/// A stream of these messages.
pub(crate) fn messages(bodies: &[&str]) -> Vec<Step> {
    let mut steps = vec![stream()];
    steps.extend(bodies.iter().map(|body| piece(format!("data: {body}\n\n"))));
    steps.push(end());
    steps
}
