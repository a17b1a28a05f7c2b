//! A gate from the outside, through the binary: it serves, follows changes, and ends in order.
#![allow(clippy::disallowed_methods)] // a test starts the program and writes its files
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test may fail in this way

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

struct Folder(tempfile::TempDir);

impl Folder {
    /// A folder with a configuration that takes free ports, and the demo's server of notes.
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::create_dir(folder.path().join("notes")).unwrap();
        fs::write(folder.path().join("notes/a.txt"), "hello").unwrap();
        let server =
            json!([env!("CARGO_BIN_EXE_castra"), "demo", "serve-notes", folder.path().join("notes")]);
        let config = format!(
            "[gate]\nlisten = \"127.0.0.1:0\"\n[console]\nlisten = \"127.0.0.1:0\"\n[[server]]\nname = \"notes\"\ncommand = {server}\n"
        );
        fs::write(folder.path().join("castra.toml"), config).unwrap();
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_castra"));
        command.args(args).current_dir(self.path());
        command
    }

    fn json(&self, args: &[&str]) -> (Option<i32>, Value) {
        let output = self.command(args).arg("--json").output().unwrap();
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    fn agent(&self, name: &str) -> String {
        self.json(&["agent", "add", name]).1["token"].as_str().unwrap().to_owned()
    }
}

/// A running gate; killed when dropped.
struct Up {
    child: Child,
    said: Value,
}

impl Up {
    fn start(folder: &Folder) -> Self {
        let mut child =
            folder.command(&["up", "--json"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { said: serde_json::from_str(&line).unwrap(), child }
    }

    fn gate(&self) -> &str {
        self.said["gate"].as_str().unwrap()
    }

    fn signal(&self, signal: &str) {
        assert!(
            Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success()
        );
    }

    fn end(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An MCP client over `castra connect`.
struct Client {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    next: u64,
}

impl Client {
    fn start(folder: &Folder, url: &str, token: &str) -> Self {
        use std::os::unix::fs::OpenOptionsExt;
        let file = folder.path().join("token");
        let mut options = fs::OpenOptions::new();
        options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&file)
            .unwrap()
            .write_all(token.as_bytes())
            .unwrap();
        let mut child = folder
            .command(&["connect", "--server", "notes", "--token-file", "token", "--url", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut client = Self { child, input, output, next: 1 };
        let answer = client.ask("initialize", json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
        }));
        assert_eq!(answer["result"]["protocolVersion"], "2025-11-25", "{answer}");
        client.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        client
    }

    fn say(&mut self, message: &Value) {
        writeln!(self.input.as_mut().unwrap(), "{message}").unwrap();
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.next;
        self.next += 1;
        self.say(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the bridge ended");
            let answer: Value = serde_json::from_str(&line).unwrap();
            if answer["id"] == id {
                return answer;
            }
        }
    }

    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.ask("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// Ends the input and waits for the bridge to end by itself.
    fn end(mut self) -> Option<i32> {
        self.input = None;
        self.child.wait().unwrap().code()
    }
}

/// Waits for something that follows within seconds.
fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_refused(answer: &Value) -> bool {
    answer.to_string().contains("castra.dev/refusal") || answer.get("error").is_some()
}

#[test]
fn a_day_at_the_gate() {
    let folder = Folder::new();
    let token = folder.agent("bot");
    let up = Up::start(&folder);
    assert!(up.said["enrol"].as_str().unwrap().contains("/enroll/"), "{}", up.said);
    let mut client = Client::start(&folder, up.gate(), &token);

    // What reads passes, what writes is refused and explained; both are recorded.
    let read = client.call("read_note", json!({ "name": "a.txt" }));
    assert_eq!(read["result"]["content"][0]["text"], "hello", "{read}");
    let write = client.call("write_note", json!({ "name": "b.txt", "text": "x" }));
    assert!(is_refused(&write), "{write}");
    assert!(!folder.path().join("notes/b.txt").exists());
    let (code, denied) = folder.json(&["log", "query", "--decision", "deny"]);
    assert_eq!(code, Some(0));
    let action = denied[0]["action"].as_str().unwrap().to_owned();
    let (code, why) = folder.json(&["policy", "explain", &action]);
    assert_eq!((code, &why["decision"]), (Some(2), &json!("deny")));
    let (_, shown) = folder.json(&["log", "show", &action]);
    assert_eq!(shown[0]["payload"]["request"]["params"]["arguments"]["name"], "b.txt");

    // A policy that is added counts at once; a wrong one is refused and the old ones stay.
    let policy = folder.path().join("policies/writing.cedar");
    let text = "@id(\"bot-writes\")\npermit (principal == Castra::Agent::\"bot\", action == Castra::Action::\"call\", resource == Castra::Tool::\"notes/write_note\");\n";
    fs::write(&policy, text).unwrap();
    soon("the policy counts", || {
        !is_refused(&client.call("write_note", json!({ "name": "b.txt", "text": "x" })))
    });
    fs::write(&policy, "permit (").unwrap();
    soon("the wrong policy is recorded", || {
        folder.json(&["log", "query", "--kind", "event"]).1.to_string().contains("policy-rejected")
    });
    assert!(!is_refused(&client.call("write_note", json!({ "name": "c.txt", "text": "x" }))));
    fs::write(&policy, text).unwrap();

    // The configuration is read again on SIGHUP.
    let config = folder.path().join("castra.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}[policy]\nmode = \"observe\"\n")).unwrap();
    up.signal("-HUP");
    soon("observing lets through", || !is_refused(&client.call("delete_note", json!({ "name": "c.txt" }))));
    fs::write(&config, format!("{text}[policy]\nmood = \"observe\"\n")).unwrap();
    // The command line would stumble over that file itself, so it is told the state folder.
    soon("the wrong configuration is recorded", || {
        folder
            .json(&["log", "query", "--kind", "event", "--state", "castra-state"])
            .1
            .to_string()
            .contains("config-rejected")
    });

    fs::write(&config, &text).unwrap();

    // A revoked agent is out, wherever it was.
    assert!(folder.command(&["agent", "revoke", "bot"]).output().unwrap().status.success());
    soon("the agent is out", || is_refused(&client.call("list_notes", json!({}))));
    client.end();

    // Everything is suggested, proved, and verified, by a copy with nothing but the key.
    let (code, suggested) = folder.json(&["policy", "suggest"]);
    assert_eq!(code, Some(0));
    assert!(suggested["policy"].as_str().unwrap().contains("notes/write_note"));
    assert_eq!(up.end(), Some(0));
    let receipt = folder.command(&["log", "receipt", &action, "-o", "receipt.txt"]).output().unwrap();
    assert!(receipt.status.success(), "{receipt:?}");
    let (code, proved) = folder.json(&["log", "verify", "--receipt", "receipt.txt"]);
    assert_eq!((code, &proved["holds"]), (Some(0), &json!(true)));
    let key = folder.json(&["log", "key"]).1["key"].as_str().unwrap().to_owned();
    let elsewhere = tempfile::tempdir().unwrap();
    copy(&folder.path().join("castra-state/log"), &elsewhere.path().join("copy"));
    let place = elsewhere.path().join("copy").to_str().unwrap().to_owned();
    assert_eq!(folder.json(&["log", "verify", &place, "--key", &key]).0, Some(0));

    // A flipped bit in any file of it, or of the journal beside it, is found and named.
    let state = folder.path().join("castra-state");
    let whole = folder.json(&["log", "verify"]);
    assert_eq!((whole.0, &whole.1["journal"]), (Some(0), &whole.1["size"]), "{}", whole.1);
    let (log, journal) = (elsewhere.path().join("copy"), state.join("journal"));
    let files = all_files(&log).into_iter().map(|file| (file, &log, vec![place.as_str(), "--key", &key]));
    let segments =
        all_files(&journal).into_iter().filter(|file| file.extension().is_some_and(|end| end == "seg"));
    for (file, root, args) in files.chain(segments.map(|file| (file, &state, vec![]))) {
        let good = fs::read(&file).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(&file, bad).unwrap();
        let (code, report) = folder.json(&[&["log", "verify"], &args[..]].concat());
        let named = file.strip_prefix(root).unwrap().to_str().unwrap();
        assert_eq!((code, &report["findings"][0]["path"]), (Some(2), &json!(named)), "{report}");
        fs::write(&file, good).unwrap();
    }
}

#[test]
fn a_bridge_outlives_the_gate() {
    let folder = Folder::new();
    let token = folder.agent("bot");
    let up = Up::start(&folder);
    let url = up.gate().to_owned();
    let mut client = Client::start(&folder, &url, &token);
    assert_eq!(up.end(), Some(0));
    // The gate comes back at the same place, without the client's session.
    let port = url.rsplit_once(':').unwrap().1;
    let config = folder.path().join("castra.toml");
    let text = fs::read_to_string(&config).unwrap().replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1);
    fs::write(&config, text).unwrap();
    let up = Up::start(&folder);
    let read = client.call("read_note", json!({ "name": "a.txt" }));
    assert_eq!(read["result"]["content"][0]["text"], "hello", "{read}");
    assert_eq!(client.end(), Some(0));
    assert_eq!(up.end(), Some(0));
}

#[test]
fn two_gates_do_not_share_a_state() {
    let folder = Folder::new();
    let _up = Up::start(&folder);
    let second = folder.command(&["up"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("castra-state"), "{said}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn all_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|p| if p.is_dir() { all_files(&p) } else { vec![p] }).collect()
}

#[test]
fn promotions_are_followed_and_stand_in_the_log_also_those_made_while_no_gate_ran() {
    let folder = Folder::new();
    let config = folder.path().join("castra.toml");
    let version = |id: &str| {
        format!(
            "[[model.version]]\nid = \"{id}\"\nprovider = \"openai-compatible\"\nbase_url = \"http://127.0.0.1:9/v1\"\nmodel = \"m-{id}\"\n"
        )
    };
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}[[model]]\nname = \"assistant\"\n{}{}", version("v1"), version("v2")))
        .unwrap();
    let promoted = |version: &str| {
        let (_, events) = folder.json(&["log", "query", "--kind", "event"]);
        let says = |event: &&Value| {
            event["event"] == "model-promoted"
                && event["detail"].as_str().unwrap().contains(&format!("serves: {version} "))
        };
        events.as_array().unwrap().iter().filter(says).count()
    };
    let (code, said) = folder.json(&["model", "promote", "assistant", "v1"]);
    assert_eq!((code, &said["shares"][0]["version"]), (Some(0), &json!("v1")));
    let up = Up::start(&folder);
    soon("what was promoted before is recorded", || promoted("v1") == 1);
    folder.json(&["model", "promote", "assistant", "v2"]);
    soon("what is promoted now is recorded", || promoted("v2") == 1);
    let (_, routes) = folder.json(&["model", "list"]);
    assert_eq!(routes[0]["id"], "assistant");
    assert_eq!(
        (&routes[0]["versions"][0]["share"], &routes[0]["versions"][1]["share"]),
        (&json!(0.0), &json!(100.0))
    );
    assert_eq!(up.end(), Some(0));
    // Nothing is recorded twice.
    let up = Up::start(&folder);
    folder.json(&["model", "rollback", "assistant"]);
    soon("it is taken back", || {
        let (_, events) = folder.json(&["log", "query", "--kind", "event"]);
        events.as_array().unwrap().iter().any(|e| e["event"] == "model-rolled-back")
    });
    assert_eq!((promoted("v1"), promoted("v2")), (1, 1));
    assert_eq!(up.end(), Some(0));
}

#[test]
fn a_person_answers_beside_the_gate_and_a_restart_forgets_nothing() {
    const WRITING: &str = r#"
        @id("writes") permit (principal, action == Castra::Action::"call", resource in Castra::Server::"notes");
        @id("looked-at") @ask("person") @reason("somebody reads notes before they are written")
        forbid (principal, action == Castra::Action::"call", resource == Castra::Tool::"notes/write_note")
        unless { context has approval };"#;
    let folder = Folder::new();
    let token = folder.agent("bot");
    fs::create_dir(folder.path().join("policies")).unwrap();
    fs::write(folder.path().join("policies/own.cedar"), WRITING).unwrap();
    let write = |client: &mut Client, text: &str| {
        client.ask(
            "tools/call",
            json!({
                "name": "write_note", "arguments": { "name": "b.txt", "text": text },
                "_meta": { "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" },
            }),
        )
    };
    let asked = |answer: &Value| {
        let id = &answer["result"]["_meta"]["castra.dev/approval_required"]["id"];
        id.as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let up = Up::start(&folder);
    let mut client = Client::start(&folder, up.gate(), &token);
    let (id, other) = (asked(&write(&mut client, "x")), asked(&write(&mut client, "y")));
    client.end();
    assert_eq!(up.end(), Some(0));

    // While no gate runs one is approved, and while one runs the other is denied.
    let (code, list) = folder.json(&["approval", "list"]);
    assert_eq!((code, list.as_array().unwrap().len()), (Some(0), 2));
    assert_eq!((&list[0]["id"], &list[0]["agent"]), (&json!(id), &json!("bot")));
    assert_eq!(list[0]["shown"]["arguments"], r#"{"name":"b.txt","text":"x"}"#);
    let text = folder.command(&["approval", "show", &id]).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    for part in ["bot", "notes/write_note", "somebody reads notes", "castra approval approve"] {
        assert!(text.contains(part), "{text}");
    }
    let (code, said) = folder.json(&["approval", "approve", &id, "--by", "alice", "--reason", "fine"]);
    assert_eq!((code, &said["state"], &said["answered_by"]), (Some(0), &json!("approved"), &json!("alice")));
    assert_eq!(folder.json(&["approval", "deny", &id]).0, Some(1), "it is answered");
    assert_eq!(folder.json(&["approval", "approve", "nobody-knows"]).0, Some(1));
    let up = Up::start(&folder);
    assert_eq!(folder.json(&["approval", "deny", &other]).0, Some(0));
    let mut client = Client::start(&folder, up.gate(), &token);
    let written = write(&mut client, "x");
    assert!(!is_refused(&written), "{written}");
    assert_eq!(fs::read_to_string(folder.path().join("notes/b.txt")).unwrap(), "x");
    let denied = write(&mut client, "y").to_string();
    assert!(denied.contains("a person said no to this"), "{denied}");

    soon("all of it stands in the log", || {
        let events = folder.json(&["log", "query", "--kind", "event"]).1;
        let count = |kind: &str| events.as_array().unwrap().iter().filter(|e| e["event"] == kind).count();
        ["approval-asked", "approval-given", "approval-denied", "approval-used"].map(count) == [2, 1, 1, 1]
    });
    let (_, waiting) = folder.json(&["log", "query", "--decision", "ask"]);
    assert_eq!(waiting.as_array().unwrap().len(), 2);
    let action = waiting[0]["action"].as_str().unwrap();
    let (code, why) = folder.json(&["policy", "explain", action]);
    assert_eq!((code, &why["decision"]), (Some(2), &json!("ask")));
    assert_eq!(folder.json(&["approval", "list"]).1, json!([]));
    let (_, all) = folder.json(&["approval", "list", "--all"]);
    assert_eq!((&all[0]["state"], &all[1]["state"]), (&json!("used"), &json!("denied")));
    client.end();
    assert_eq!(up.end(), Some(0));
    assert_eq!(folder.json(&["log", "verify"]).0, Some(0));
}
