//! Kill -9 at random moments under load: what was acknowledged is there afterwards, and the log holds.
//!
//! Each round starts `castra up` on the same state, lets several clients call tools that change
//! something, and kills the process without warning. Every answer that reached a client bears a
//! receipt; the record that it names must be on disk, byte for byte, after the next start.
//! `CASTRA_CRASH_ROUNDS` says how many rounds (20 unless told; `cargo xtask crash --rounds 200`).
#![allow(clippy::disallowed_methods)] // a test speaks HTTP and starts programs itself
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test may fail in this way

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use castra_ledger::{ReceiptHeader, merkle};
use castra_store::log::LogReader;

const CLIENTS: usize = 6;

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let rounds: u64 = std::env::var("CASTRA_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let folder = tempfile::tempdir().unwrap();
    let server = tool_server();
    let config = folder.path().join("castra.toml");
    std::fs::write(
        &config,
        format!(
            "[gate]\nlisten = \"127.0.0.1:0\"\n[console]\nlisten = \"127.0.0.1:0\"\n[record]\ncheckpoint = \"20ms\"\n\
             [[server]]\nname = \"tools\"\nurl = \"http://{server}/mcp\"\n"
        ),
    )
    .unwrap();
    std::fs::create_dir(folder.path().join("policies")).unwrap();
    std::fs::write(
        folder.path().join("policies/all.cedar"),
        "@id(\"all\") permit (principal, action, resource);",
    )
    .unwrap();
    let token = add_agent(&config);
    let state = folder.path().join("castra-state");
    let mut acknowledged: HashMap<u64, ReceiptHeader> = HashMap::new();
    let mut checked = 0_u64;

    for round in 0..rounds {
        let (mut gate, address) = up(&config);
        // What earlier rounds acknowledged is there, exactly.
        let reader = LogReader::open(&state).unwrap();
        for (index, receipt) in acknowledged.drain() {
            let entry = reader.entry(index).unwrap();
            let entry = entry.unwrap_or_else(|| panic!("round {round}: acknowledged record {index} is lost"));
            assert_eq!(
                merkle::leaf_hash(&entry),
                receipt.leaf,
                "round {round}: record {index} is another one"
            );
            checked += 1;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let receipts: Arc<Mutex<Vec<ReceiptHeader>>> = Arc::default();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (stop, receipts, token, address) =
                    (stop.clone(), receipts.clone(), token.clone(), address.clone());
                thread::spawn(move || call_until_it_dies(&address, &token, &stop, &receipts))
            })
            .collect();
        // Somewhere between "hardly begun" and "many checkpoints later".
        thread::sleep(Duration::from_millis(30 + round.wrapping_mul(2_654_435_761) % 270));
        gate.kill().unwrap();
        gate.wait().unwrap();
        stop.store(true, Ordering::SeqCst);
        for client in clients {
            client.join().unwrap();
        }
        acknowledged.extend(receipts.lock().unwrap().drain(..).map(|r| (r.index, r)));
    }

    let (mut gate, _) = up(&config);
    let reader = LogReader::open(&state).unwrap();
    for (index, receipt) in acknowledged {
        let entry =
            reader.entry(index).unwrap().unwrap_or_else(|| panic!("acknowledged record {index} is lost"));
        assert_eq!(merkle::leaf_hash(&entry), receipt.leaf);
        checked += 1;
    }
    let _ = gate.kill();
    let _ = gate.wait();
    let verified = Command::new(env!("CARGO_BIN_EXE_castra"))
        .args(["log", "verify"])
        .arg(state.join("log"))
        .arg("--config")
        .arg(&config)
        .output()
        .unwrap();
    assert!(verified.status.success(), "{}{}", text(&verified.stdout), text(&verified.stderr));
    assert!(checked > rounds, "only {checked} answers in {rounds} rounds: the test shows nothing");
    println!("{checked} acknowledged records over {rounds} kills: all there");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn add_agent(config: &Path) -> String {
    let added = Command::new(env!("CARGO_BIN_EXE_castra"))
        .args(["agent", "add", "crasher", "--json", "--config"])
        .arg(config)
        .output()
        .unwrap();
    assert!(added.status.success(), "{}", text(&added.stderr));
    let added: serde_json::Value = serde_json::from_slice(&added.stdout).unwrap();
    added["token"].as_str().unwrap().to_owned()
}

/// Starts a gate and waits until it says that it serves.
fn up(config: &Path) -> (Child, String) {
    let mut gate = Command::new(env!("CARGO_BIN_EXE_castra"))
        .args(["up", "--json", "--config"])
        .arg(config)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(gate.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let address = said["gate"].as_str().unwrap().trim_start_matches("http://").to_owned();
    (gate, address)
}

fn call_until_it_dies(address: &str, token: &str, stop: &AtomicBool, receipts: &Mutex<Vec<ReceiptHeader>>) {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"change","arguments":{"text":"x"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let request = format!(
        "POST /mcp/tools HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\n\
         mcp-name: change\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let Ok(mut socket) = TcpStream::connect(address) else { return };
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    while !stop.load(Ordering::SeqCst) {
        if socket.write_all(request.as_bytes()).is_err() {
            return;
        }
        let Some((head, body)) = read_answer(&mut socket) else { return };
        // Only an answer that came whole is an acknowledgement.
        if !body.contains("done") {
            continue;
        }
        let receipt = head.lines().find_map(|line| line.strip_prefix("castra-receipt: ")).unwrap();
        receipts.lock().unwrap().push(receipt.trim().parse().unwrap());
    }
}

/// The next whole message on a socket: its head and its body.
fn read_answer(socket: &mut TcpStream) -> Option<(String, String)> {
    let mut buffer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = text(&buffer[..end]).to_ascii_lowercase();
            let original = text(&buffer[..end]);
            let length: usize =
                head.lines().find_map(|l| l.strip_prefix("content-length: "))?.trim().parse().ok()?;
            if buffer.len() >= end + 4 + length {
                let lowered = original.replacen("Castra-Receipt", "castra-receipt", 1);
                return Some((lowered, text(&buffer[end + 4..end + 4 + length])));
            }
        }
        match socket.read(&mut chunk) {
            Ok(n) if n > 0 => buffer.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    }
}

/// An MCP server of 2026-07-28 with one tool that changes something.
fn tool_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            thread::spawn(move || serve(socket));
        }
    });
    address
}

fn serve(mut socket: TcpStream) {
    while let Some((_, body)) = read_answer(&mut socket) {
        let message: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        let result = match message["method"].as_str().unwrap_or_default() {
            "server/discover" => {
                r#""supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"serverInfo":{"name":"t","version":"1"},"ttlMs":0,"cacheScope":"public""#
            }
            "tools/list" => {
                r#""tools":[{"name":"change","inputSchema":{"type":"object"}}],"ttlMs":0,"cacheScope":"public""#
            }
            _ => r#""content":[{"type":"text","text":"done"}]"#,
        };
        let answer = format!(
            r#"{{"jsonrpc":"2.0","id":{},"result":{{"resultType":"complete",{result}}}}}"#,
            message["id"]
        );
        let whole = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        );
        if socket.write_all(whole.as_bytes()).is_err() {
            return;
        }
    }
}
