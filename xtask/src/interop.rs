//! Other people's servers behind the gate, and other people's clients in front of it.
//!
//! Servers: the reference servers of the protocol's own project, as child processes of the gate.
//! Clients: its Python, TypeScript (both lines) and Rust SDKs and its inspector, in both eras. Each
//! client prints a line per check, `ok NAME` or `failed NAME: why`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::{
    castra::{self, Gate},
    chores, run,
    tally::Tally,
    tools,
};

/// How much to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Every client with the server that has everything.
    Quick,
    /// Every client with every server.
    Full,
}

const SERVERS: &[&str] = &["everything", "filesystem", "memory", "git", "time"];
const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

const POLICY: &str = "permit (principal == Castra::Agent::\"judge\", action, resource);\n";

/// Longest time for one client with one server, in seconds (coreutils' `timeout`).
pub(crate) const CLIENT_TIME_MAX: &str = "120";

/// What is installed and built for the run.
struct Bench {
    node: tools::Node,
    python: PathBuf,
    rust: PathBuf,
    folder: PathBuf,
    gate: Gate,
    _alone: chores::Alone,
}

/// A client in one era.
struct Client {
    name: &'static str,
    era: &'static str,
}

const CLIENTS: &[Client] = &[
    Client { name: "python", era: LEGACY },
    Client { name: "python", era: MODERN },
    Client { name: "ts1", era: LEGACY },
    Client { name: "ts2", era: LEGACY },
    Client { name: "ts2", era: MODERN },
    Client { name: "rust", era: LEGACY },
    Client { name: "rust", era: MODERN },
    Client { name: "inspector", era: LEGACY },
];

/// Runs every pair and prints a table.
pub(crate) fn run(extent: Extent) -> Tally {
    let (node, python) = match (tools::node("interop"), tools::python("interop")) {
        (Ok(node), Ok(python)) => (node, python),
        (Err(why), _) | (_, Err(why)) => return Tally::skipped("interop", why),
    };
    let bench = match bench(node, python) {
        Ok(bench) => bench,
        Err(why) => return Tally::failed(format!("interop: {why}")),
    };
    let servers = if extent == Extent::Quick { SERVERS.get(..1).unwrap_or_default() } else { SERVERS };
    let mut tally = Tally::default();
    for server in servers {
        for client in CLIENTS {
            let start = Instant::now();
            let pair = pair(&bench, client, server);
            println!(
                "{server:<12} {:<10} {:<11} {pair} in {} s",
                client.name,
                client.era,
                start.elapsed().as_secs()
            );
            tally.add(pair);
        }
    }
    tally.add(bench.gate.log_holds());
    tally
}

fn bench(node: tools::Node, python: PathBuf) -> Result<Bench, String> {
    let alone = chores::alone("interop")?;
    let folder = &alone.folder;
    let program = castra::built()?;
    let built = run::echoed(&mut run::cargo(&["build", "--package", "castra-demo", "--example", "interop"]))?;
    if !built.success {
        return Err("the Rust client does not build".into());
    }
    let work = worktree(&folder.join("work"))?;
    let gate = castra::gate(&program, &folder.join("gate"), &servers(&node, &python, folder, &work), POLICY)?;
    let rust = chores::target().join("debug/examples/interop");
    Ok(Bench { node, python, rust, folder: work, gate, _alone: alone })
}

/// A git repository with one commit, which the filesystem and git servers work in.
fn worktree(folder: &Path) -> Result<PathBuf, String> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)
            .map_err(|e| format!("{} cannot be emptied: {e}", folder.display()))?;
    }
    std::fs::create_dir_all(folder).map_err(|e| format!("{} cannot be made: {e}", folder.display()))?;
    for args in [
        &["init", "--quiet", "--initial-branch=main"][..],
        &[
            "-c",
            "user.name=judge",
            "-c",
            "user.email=judge@example.invalid",
            "commit",
            "--quiet",
            "--allow-empty",
            "-m",
            "first",
        ],
    ] {
        run::must(Command::new("git").args(args).current_dir(folder))?;
    }
    folder.canonicalize().map_err(|e| format!("{} is gone: {e}", folder.display()))
}

fn servers(node: &tools::Node, python: &Path, folder: &Path, work: &Path) -> String {
    let script = |package: &str| node.file(&format!("@modelcontextprotocol/{package}/dist/index.js"));
    let table = |name: &str, command: &[&Path], rest: &str| {
        format!("[[server]]\nname = {name:?}\ncommand = {command:?}\n{rest}")
    };
    let memory = folder.join("gate/memory.jsonl");
    [
        table(
            "everything",
            &[&node.node, &script("server-everything"), Path::new("stdio")],
            "allow = [\"sampling\", \"elicitation\", \"roots\"]\n",
        ),
        table("filesystem", &[&node.node, &script("server-filesystem"), work], ""),
        table(
            "memory",
            &[&node.node, &script("server-memory")],
            &format!("env = {{ MEMORY_FILE_PATH = {memory:?} }}\n"),
        ),
        table("git", &[&python.join("mcp-server-git"), Path::new("--repository"), work], ""),
        table(
            "time",
            &[&python.join("mcp-server-time"), Path::new("--local-timezone"), Path::new("UTC")],
            "",
        ),
    ]
    .join("\n")
}

fn pair(bench: &Bench, client: &Client, server: &str) -> Tally {
    let url = format!("{}/mcp/{server}", bench.gate.url);
    let outcome = if client.name == "inspector" {
        inspector(bench, &url)
    } else {
        run::quiet(&mut command(bench, client, server, &url)).map(|out| checks(&out.text))
    };
    let mut tally = outcome.unwrap_or_else(Tally::failed);
    if tally.passed == 0 && tally.failures.is_empty() {
        tally = Tally::failed("it checked nothing");
    }
    for failure in &mut tally.failures {
        *failure = format!("interop {server} {} {}: {failure}", client.name, client.era);
    }
    tally
}

fn command(bench: &Bench, client: &Client, server: &str, url: &str) -> Command {
    let scripts = chores::root().join("eval/interop");
    let mut command = Command::new("timeout");
    command.arg(CLIENT_TIME_MAX).current_dir(&bench.node.folder);
    match client.name {
        "python" => command.arg(bench.python.join("python")).arg(scripts.join("client.py")),
        "rust" => command.arg(&bench.rust),
        sdk => command.arg(&bench.node.node).arg(scripts.join("client.mjs")).arg(sdk),
    };
    command.args([client.era, url, &bench.gate.token, server]).arg(&bench.folder);
    command
}

/// The inspector's command line: one process per question, its answer in JSON on the output.
fn inspector(bench: &Bench, url: &str) -> Result<Tally, String> {
    let mut tally = Tally::default();
    for (method, expected) in
        [("tools/list", "\"tools\""), ("resources/list", "\"resources\""), ("prompts/list", "\"prompts\"")]
    {
        let mut command = Command::new("timeout");
        command
            .arg(CLIENT_TIME_MAX)
            .arg(&bench.node.node)
            .arg(bench.node.file("@modelcontextprotocol/inspector/clients/launcher/build/index.js"))
            .args(["--cli", url, "--transport", "http", "--method", method, "--header"])
            .arg(format!("Authorization: Bearer {}", bench.gate.token))
            .env("HOME", &bench.folder);
        let out = run::quiet(&mut command)?;
        // A server without resources or prompts says so, and the inspector passes that on.
        let good = out.success && out.text.contains(expected)
            || method != "tools/list" && out.text.contains("-32601");
        tally.add(Tally::check(
            (!good).then(|| format!("{method}: {}", out.text.lines().last().unwrap_or_default())),
        ));
    }
    Ok(tally)
}

/// Counts the lines that a client printed.
pub(crate) fn checks(text: &str) -> Tally {
    let mut tally = Tally::default();
    for line in text.lines() {
        if line.starts_with("ok ") {
            tally.passed += 1;
        } else if let Some(failure) = line.strip_prefix("failed ") {
            tally.failures.push(failure.to_owned());
        }
    }
    if tally.passed == 0 && tally.failures.is_empty() {
        tally.failures.push(text.lines().last().unwrap_or("it printed nothing").to_owned());
    }
    tally
}
