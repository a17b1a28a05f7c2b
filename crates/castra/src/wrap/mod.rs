//! `castra wrap`: puts the MCP servers of the clients on this machine behind the gate, and takes that back.
//!
//! An entry of a client becomes `castra connect`, a bridge over standard input and output that every
//! client can start, so that no token stands in a client's configuration. The server itself moves to
//! castra.toml, and the values of its variables and headers to files that only their owner can read.
//!
//! `clients.rs` knows where configurations are, `entry.rs` what an entry means, `edit.rs` (over `jsonc.rs`
//! and `tomlfile.rs`) how a text is changed, `plan.rs` what would change, `record.rs` what undo needs.

mod clients;
pub(crate) mod connect;
mod edit;
mod entry;
mod jsonc;
mod plan;
mod record;
mod tomlfile;

use std::{
    collections::BTreeSet,
    io::{BufRead, IsTerminal},
    path::{Path, PathBuf},
};

use castra_core::{AgentName, ServerName};
use castra_store::files;
use serde_json::{Value, json};

pub(crate) use clients::ClientKind;
use clients::Shape;
use plan::{FilePlan, Plan, Setting};
use record::{ConfigRecord, EntryRecord, FileRecord, PutBack, Record, Run};

use crate::{
    cli::{Global, WrapArgs},
    config::Config,
    context::{Context, Opened},
    out::{Exit, Failure, Out, Outcome, remark},
};

/// Bytes of a client's configuration. Claude Code keeps histories in its own.
const CLIENT_BYTES_MAX: u64 = 64 << 20;

/// How long the token of a wrapped client is good.
const TOKEN_LIFE: std::time::Duration = std::time::Duration::from_secs(365 * 86_400);

pub(crate) fn run(global: &Global, args: &WrapArgs) -> Outcome {
    let cx = Context::to_write(global)?;
    if args.undo { undo(cx, args) } else { wrap(cx, global, args) }
}

/// The folder of secrets and the folder of tokens in a state folder.
pub(crate) fn secrets_folder(state: &Path) -> PathBuf {
    state.join("secrets")
}

/// The file with an agent's token, for `castra connect`.
pub(crate) fn token_file(state: &Path, agent: &AgentName) -> PathBuf {
    secrets_folder(state).join(format!("{agent}.token"))
}

fn wrap(mut cx: Context, global: &Global, args: &WrapArgs) -> Outcome {
    let config_file =
        std::path::absolute(cx.loaded.file.clone().unwrap_or_else(|| {
            global.config.clone().unwrap_or_else(|| cx.loaded.folder.join(Config::FILE))
        }))?;
    let plan = make_plan(&cx, global, args, &config_file)?;
    say_left(&mut cx.out, &plan);
    if plan.files.is_empty() {
        cx.out.line(if plan.already > 0 {
            "All servers are behind the gate already."
        } else {
            "No servers were found."
        });
        cx.out.value(&summary(&plan, &config_file, false));
        return Ok(Exit::Done);
    }
    let config_text =
        config_file.exists().then(|| files::read_text(&config_file, CLIENT_BYTES_MAX)).transpose()?;
    let additions = additions(&cx, &plan, &config_file, config_text.as_deref())?;
    say_plan(&mut cx.out, &plan, &config_file, &additions);
    if args.dry_run || !(args.yes || agreed()?) {
        cx.out.line("Nothing was changed.");
        cx.out.value(&summary(&plan, &config_file, false));
        return Ok(Exit::Found);
    }
    carry_out(&cx, &plan, &config_file, config_text, additions)?;
    cx.out.value(&summary(&plan, &config_file, true));
    say_done(&mut cx.out, &plan, &config_file);
    Ok(Exit::Done)
}

fn make_plan(cx: &Context, global: &Global, args: &WrapArgs, config_file: &Path) -> Result<Plan, Failure> {
    let home = match &args.home {
        Some(home) => home.clone(),
        None => std::env::home_dir()
            .ok_or_else(|| Failure::usage("your home folder is not known: give it with --home"))?,
    };
    let project = match &args.project {
        Some(project) => whole(project)?,
        None => std::env::current_dir()?,
    };
    let home = whole(&home)?;
    let mut texts = Vec::new();
    for place in clients::places(&home, &project) {
        let wanted = args.client.is_empty() || args.client.contains(&place.client);
        if wanted && place.file.exists() {
            let text = files::read_text(&place.file, CLIENT_BYTES_MAX)?;
            texts.push((place, text));
        }
    }
    let program = std::env::current_exe()?.to_string_lossy().into_owned();
    let state = global.state.as_ref().map(std::path::absolute).transpose()?;
    let taken: Vec<ServerName> = cx.config().server.iter().map(|s| s.name.clone()).collect();
    let setting = Setting {
        home: &home,
        variable: &|name| std::env::var(name).ok(),
        taken: &taken,
        skip: &args.skip,
        command: &program,
        args: &|server, client| connect_args(server, client, config_file, state.as_deref()),
    };
    Ok(plan::plan(texts, &setting))
}

/// A folder as it is really called: without `..`, through links.
fn whole(folder: &Path) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(folder).map_err(|e| Failure::usage(format!("{}: {e}", folder.display())))
}

fn connect_args(server: &ServerName, client: ClientKind, config: &Path, state: Option<&Path>) -> Vec<String> {
    let path = |p: &Path| p.to_string_lossy().into_owned();
    let mut args = vec!["connect".into(), "--server".into(), server.to_string()];
    args.extend(["--agent".into(), client.id().into(), "--config".into(), path(config)]);
    args.extend(state.into_iter().flat_map(|state| ["--state".into(), path(state)]));
    args
}

/// What castra.toml gains.
struct Additions {
    tables: Vec<(ServerName, String)>,
    after: String,
    secrets: plan::SecretFiles,
}

fn additions(cx: &Context, plan: &Plan, config_file: &Path, now: Option<&str>) -> Result<Additions, Failure> {
    let folder = secrets_folder(cx.state_dir());
    let beside = config_file.parent().unwrap_or(Path::new(""));
    let absolute = std::path::absolute(&folder)?;
    let shown = absolute.strip_prefix(beside).unwrap_or(&absolute).to_string_lossy().into_owned();
    let before = now.unwrap_or(NEW_CONFIG);
    let line_break = if before.contains("\r\n") { "\r\n" } else { "\n" };
    let (tables, secrets) = plan::tables(&plan.servers, &shown, line_break);
    let mut after = before.to_owned();
    if !after.is_empty() && !after.ends_with('\n') {
        after.push_str(line_break);
    }
    after.extend(tables.iter().map(|(_, text)| text.as_str()));
    Config::parse(&after, beside).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::new(format!(
            "{} would not be good with the servers: {}",
            config_file.display(),
            problems.join("; ")
        ))
        .advise("Nothing was changed. Mend the file, or leave servers out with --skip.")
    })?;
    Ok(Additions { tables, after, secrets })
}

const NEW_CONFIG: &str =
    "# Castra's configuration, begun by castra wrap. All keys: docs/reference/configuration.md.\n";

/// Makes the change: first what undo needs, then what the clients need, last the clients' files.
fn carry_out(
    cx: &Context,
    plan: &Plan,
    config_file: &Path,
    config_text: Option<String>,
    additions: Additions,
) -> Result<(), Failure> {
    let Opened { state, .. } = cx.open_or_create()?;
    let folder = cx.state_dir();
    let mut record = Record::load(folder)?;
    let mut run = Run {
        files: plan.files.iter().map(file_record).collect(),
        config: Some(ConfigRecord {
            file: config_file.into(),
            before: config_text,
            after: additions.after.clone(),
            tables: additions.tables.iter().map(|(name, text)| (name.to_string(), text.clone())).collect(),
        }),
        secrets: additions.secrets.keys().cloned().collect(),
        tokens: Vec::new(),
    };
    files::create_folder(&secrets_folder(folder), 0o700)?;
    for client in plan.files.iter().map(|f| f.client) {
        let agent = AgentName::new(client.id())?;
        let file = token_file(folder, &agent);
        if file.exists() {
            continue;
        }
        let known = state.agents(cx.now)?.iter().any(|row| row.id == agent);
        let issued = if known {
            state.rotate_token(&agent, Some(TOKEN_LIFE), std::time::Duration::ZERO, cx.now)?
        } else {
            state.add_agent(&agent, &[], Some(TOKEN_LIFE), cx.now)?
        };
        files::write_atomic(&file, issued.token.expose().as_bytes(), 0o600)?;
        run.tokens.push((agent, issued.id));
    }
    record.runs.push(run);
    record.save(folder)?;
    for (file, secret) in &additions.secrets {
        files::write_atomic(&secrets_folder(folder).join(file), secret.as_bytes(), 0o600)?;
    }
    write_keeping_mode(config_file, &additions.after, 0o600)?;
    for file in &plan.files {
        if files::read_text(&file.file, CLIENT_BYTES_MAX)? != file.before {
            let what = format!("{} was changed while you were asked", file.file.display());
            return Err(Failure::new(what).advise("It stays as it is. Run `castra wrap` again."));
        }
        write_keeping_mode(&file.file, &file.after, 0o600)?;
    }
    Ok(())
}

fn file_record(file: &FilePlan) -> FileRecord {
    let entries = file.entries.iter().map(|e| EntryRecord {
        toml: e.shape == Shape::Toml,
        path: e.path.clone(),
        old: e.old.clone(),
        new: e.new.clone(),
    });
    FileRecord {
        client: file.client,
        file: file.file.clone(),
        before: file.before.clone(),
        after: file.after.clone(),
        entries: entries.collect(),
    }
}

/// Writes a file of the user's with the rights that it has.
fn write_keeping_mode(file: &Path, text: &str, new_mode: u32) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(file).map_or(new_mode, |facts| facts.permissions().mode() & 0o777);
    Ok(files::write_atomic(file, text.as_bytes(), mode)?)
}

fn undo(mut cx: Context, args: &WrapArgs) -> Outcome {
    let folder = cx.state_dir().to_owned();
    let mut record = Record::load(&folder)?;
    if record.runs.is_empty() {
        cx.out.line("There is nothing to undo.");
        cx.out.value(&json!({ "files": [] }));
        return Ok(Exit::Done);
    }
    if !(args.dry_run || args.yes) {
        for file in record.runs.iter().flat_map(|run| &run.files) {
            cx.out.line(format_args!("{} ({}) is put back.", file.file.display(), file.client.title()));
        }
        if !agreed()? {
            cx.out.line("Nothing was changed.");
            return Ok(Exit::Found);
        }
    }
    let mut results = Vec::new();
    while let Some(run) = record.runs.pop() {
        for file in run.files.iter().rev() {
            let put_back = put_back(&file.file, |now| file.put_back(now), false, args.dry_run)?;
            say_put_back(&mut cx.out, &file.file, &put_back, &mut results);
        }
        if let Some(config) = &run.config {
            let put_back =
                put_back(&config.file, |now| config.put_back(now), config.before.is_none(), args.dry_run)?;
            say_put_back(&mut cx.out, &config.file, &put_back, &mut results);
        }
        if args.dry_run {
            continue;
        }
        forget(&cx, &run)?;
        record.save(&folder)?;
    }
    cx.out.value(&json!({ "files": results }));
    Ok(if args.dry_run { Exit::Found } else { Exit::Done })
}

/// Puts a file back; a file that was not there before goes again when nothing of it is left.
fn put_back(
    file: &Path,
    decide: impl Fn(&str) -> PutBack,
    made_by_us: bool,
    dry_run: bool,
) -> Result<PutBack, Failure> {
    if !file.exists() {
        return Ok(PutBack::Nothing);
    }
    let decided = decide(&files::read_text(file, CLIENT_BYTES_MAX)?);
    let text = match &decided {
        PutBack::Whole(text) | PutBack::Entries { text, .. } => text,
        PutBack::Nothing => return Ok(decided),
    };
    if dry_run {
        return Ok(decided);
    }
    if made_by_us && text.is_empty() {
        files::remove(file)?;
    } else {
        write_keeping_mode(file, text, 0o600)?;
    }
    Ok(decided)
}

/// Ends the tokens and removes the secrets of a run. Secrets that entries still refer to stay.
fn forget(cx: &Context, run: &Run) -> Result<(), Failure> {
    let folder = cx.state_dir();
    let still_used = run
        .config
        .as_ref()
        .and_then(|c| files::read_text(&c.file, CLIENT_BYTES_MAX).ok())
        .unwrap_or_default();
    for secret in run.secrets.iter().filter(|s| !still_used.contains(s.as_str())) {
        files::remove(&secrets_folder(folder).join(secret))?;
    }
    if run.tokens.is_empty() {
        return Ok(());
    }
    let opened = cx.open()?;
    for (agent, token) in &run.tokens {
        files::remove(&token_file(folder, agent))?;
        if let Err(e) = opened.state.revoke_token(agent, token, cx.now) {
            remark(format_args!("token {token} of agent {agent} could not be revoked: {e}"));
        }
    }
    Ok(())
}

/// Asks; only an answer counts.
fn agreed() -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("nobody is here to be asked: say --yes, or --dry-run to only look"));
    }
    remark("Shall I? [y/N]");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn say_left(out: &mut Out, plan: &Plan) {
    for left in &plan.left {
        let name = if left.name.is_empty() { String::new() } else { format!(" {}", left.name) };
        out.line(format_args!(
            "{}: {}{name} stays as it is: {}.",
            left.client.title(),
            left.file.display(),
            left.why
        ));
    }
}

fn say_plan(out: &mut Out, plan: &Plan, config_file: &Path, additions: &Additions) {
    for file in &plan.files {
        out.line(format_args!("\n--- {} ({})", file.file.display(), file.client.title()));
        for entry in &file.entries {
            out.line(format_args!("@@ {}", entry.path.join(" > ")));
            say_lines(out, '-', &edit::masked(&entry.old, entry.shape));
            say_lines(out, '+', &edit::masked(&entry.new, entry.shape));
        }
    }
    out.line(format_args!("\n--- {}", config_file.display()));
    for (_, table) in &additions.tables {
        say_lines(out, '+', &edit::masked_table(table));
    }
    out.line("");
    for server in &plan.servers {
        let name = &server.name;
        match &server.server {
            entry::Server::Http { headers, url } if headers.is_empty() && url.starts_with("https:") => {
                out.line(format_args!(
                    "{name} is reached without credentials. If it asks for a sign-in, leave it out (--skip) or give it a header in castra.toml."
                ));
            }
            entry::Server::Command { args, .. } if has_secret(args) => {
                out.line(format_args!(
                    "An argument of {name} looks like a secret. It stands in castra.toml, which only you may read; better, give it by a variable."
                ));
            }
            _ => {}
        }
    }
    for file in plan.files.iter().filter(|f| f.in_project) {
        out.line(format_args!(
            "{} belongs to a project. Whoever shares it needs castra, too, at the same place.",
            file.file.display()
        ));
    }
}

fn has_secret(args: &[String]) -> bool {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    edit::secret_args(&args).contains(&true)
}

fn say_lines(out: &mut Out, sign: char, text: &str) {
    for line in text.lines() {
        out.line(format_args!("{sign}{line}"));
    }
}

fn say_done(out: &mut Out, plan: &Plan, config_file: &Path) {
    let clients: BTreeSet<&str> = plan.files.iter().map(|f| f.client.title()).collect();
    let clients: Vec<&str> = clients.into_iter().collect();
    out.line(format_args!(
        "{} servers of {} are behind the gate now.",
        plan.servers.len(),
        clients.join(", ")
    ));
    out.line(format_args!(
        "Start it with `castra up --config {}`, then restart the clients.",
        config_file.display()
    ));
    out.line("A new installation lets through what only reads; write policies for the rest, or start with mode = \"observe\".");
    out.line("`castra wrap --undo` puts everything back.");
}

fn say_put_back(out: &mut Out, file: &Path, put_back: &PutBack, results: &mut Vec<Value>) {
    let (result, stay) = match put_back {
        PutBack::Whole(_) => ("whole", &[] as &[String]),
        PutBack::Nothing => ("nothing", &[] as &[String]),
        PutBack::Entries { stay, .. } => ("entries", stay.as_slice()),
    };
    results.push(json!({ "id": file, "put_back": result, "stay": stay }));
    match put_back {
        PutBack::Whole(_) => out.line(format_args!("{} is as it was.", file.display())),
        PutBack::Nothing => out.line(format_args!("{} needed no change.", file.display())),
        PutBack::Entries { back, stay, .. } => {
            out.line(format_args!(
                "{} was changed since, so only our entries were put back: {}.",
                file.display(),
                if back.is_empty() { "none".into() } else { back.join(", ") }
            ));
            if !stay.is_empty() {
                out.line(format_args!("  Changed by someone else, so they stay: {}.", stay.join(", ")));
            }
        }
    }
}

fn summary(plan: &Plan, config_file: &Path, done: bool) -> Value {
    let files: Vec<Value> = plan
        .files
        .iter()
        .map(|f| {
            let servers: Vec<Value> =
                f.entries.iter().map(|e| json!({ "entry": e.path, "server": e.server })).collect();
            json!({ "id": f.file, "client": f.client, "servers": servers })
        })
        .collect();
    let left: Vec<Value> = plan
        .left
        .iter()
        .map(|l| json!({ "id": l.file, "client": l.client, "server": l.name, "why": l.why }))
        .collect();
    json!({ "done": done, "config": config_file, "files": files, "left": left, "already": plan.already })
}

/// For fuzzing: reads, rewrites and shows every entry of a client's JSON file.
pub(crate) fn fuzz_json(text: &str) {
    fuzz(text, &[Shape::JsonWithProjects]);
}

/// For fuzzing: as above, of a TOML file.
pub(crate) fn fuzz_toml(text: &str) {
    fuzz(text, &[Shape::Toml]);
}

fn fuzz(text: &str, shapes: &[Shape]) {
    let Some(shape) = shapes.first().copied() else { return };
    for found in edit::find(text, shapes).unwrap_or_default() {
        if let Ok(edited) = edit::rewrite(text, shape, &found.path, "castra", &["connect".into()]) {
            let _ = edit::masked(&edited.old, shape);
            let back = edit::put_back(&edited.text, shape, &found.path, &edited.new, &edited.old);
            assert!(back.as_deref() == Some(text), "an entry was not put back");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// Files that look like clients', with comments and blanks in odd places.
    fn json_file() -> impl Strategy<Value = String> {
        let blank = prop_oneof![
            Just(""),
            Just(" "),
            Just("\n\t"),
            Just("\r\n  "),
            Just(" // c\n"),
            Just("/* , } */")
        ];
        let member = prop_oneof![
            Just("\"command\": \"a b\""),
            Just("\"args\":[\"x\", \"\\\"\"]"),
            Just("\"env\": {\"K\": \"s\", }"),
            Just("\"type\":\"stdio\""),
            Just("\"url\": \"https://a/\""),
            Just("\"headers\" : {}"),
            Just("\"timeout\": 5"),
        ];
        let entry = proptest::collection::vec((member, blank.clone(), blank.clone()), 0..6);
        let entries = proptest::collection::vec((entry, blank, any::<bool>()), 1..3);
        entries.prop_map(|entries| {
            let mut text = String::from("{\"mcpServers\": {");
            for (i, (members, blank, trailing)) in entries.iter().enumerate() {
                let members: Vec<String> = members.iter().map(|(m, a, b)| format!("{a}{m}{b}")).collect();
                let end = if *trailing && !members.is_empty() { "," } else { "" };
                text.push_str(&format!("{blank}\"s{i}\": {{{}{end}{blank}}},", members.join(",")));
            }
            text + "}}"
        })
    }

    fn toml_file() -> impl Strategy<Value = String> {
        let line = prop_oneof![
            Just("command = \"a\""),
            Just("args = [ \"x\", # c\n \"y\" ]"),
            Just("env = { K = \"s\" } # e"),
            Just("env.K = 's'"),
            Just("url = \"https://a/\""),
            Just("enabled = true"),
            Just("# a comment"),
            Just(""),
            Just("[mcp_servers.s.env]"),
            Just("[mcp_servers.s.http_headers]"),
            Just("[mcp_servers.t]"),
            Just("[other]"),
            Just("K = \"\"\"\n[x]\n\"\"\""),
        ];
        let ends = prop_oneof![Just("\n"), Just("\r\n")];
        (proptest::collection::vec(line, 0..10), ends)
            .prop_map(|(lines, end)| format!("[mcp_servers.s] # mine{end}{}", lines.join(end)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn entries_are_put_back(json in json_file(), toml in toml_file()) {
            // These assert that what was rewritten is put back to the byte.
            super::fuzz_json(&json);
            super::fuzz_toml(&toml);
        }
    }
}
