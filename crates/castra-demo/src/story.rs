//! What happens in the demo, in order.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{
    DemoError,
    agent::{Agent, Era, Outcome},
    program::{Castra, Gate},
    screen::Screen,
};

/// The agent's name.
const AGENT: &str = "scribe";

/// The policy that the second half adds. It names one tool and one agent, and bounds an argument.
const WRITE_POLICY: &str = "\
// Added by `castra demo`: the scribe may write notes whose name begins with \"draft\".
@id(\"scribe-writes-drafts\")
permit (
  principal == Castra::Agent::\"scribe\",
  action == Castra::Action::\"call\",
  resource == Castra::Tool::\"notes/write_note\"
)
when { context.args has name && context.args.name like \"draft*\" };
";

/// Policies are looked at once a second; a busy machine may need longer.
const RELOAD_TRIES: u32 = 100;
const RELOAD_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Tells the whole story in `folder`.
pub(crate) async fn tell(program: &Path, folder: &Path, mut screen: Screen<'_>) -> Result<(), DemoError> {
    screen.title("Castra demo: an agent, a folder of notes, and the gate between them")?;
    let castra = Castra::new(program, folder);
    let notes = set_the_stage(program, folder, &castra, &mut screen)?;
    let token = add_agent(&castra, &mut screen).await?;
    let gate = start(&castra, folder, &mut screen).await?;
    read_but_not_write(&gate, &token, &notes, &mut screen).await?;
    widen(&castra, &gate, folder, &token, &notes, &mut screen).await?;
    screen.chapter("What the log kept")?;
    screen.command("castra log tail")?;
    screen.table(&castra.run(&["log", "tail"]).await?)?;
    gate.stop().await?;
    prove(&castra, folder, &mut screen).await?;
    what_next(folder, &mut screen)
}

fn set_the_stage(
    program: &Path,
    folder: &Path,
    castra: &Castra,
    screen: &mut Screen<'_>,
) -> Result<PathBuf, DemoError> {
    screen.chapter("A folder of notes and a configuration")?;
    let notes = folder.join("notes");
    std::fs::create_dir_all(&notes).map_err(DemoError::file(&notes))?;
    write(&notes.join("groceries.txt"), "bread\nolives\nfigs\n")?;
    write(&notes.join("plans.txt"), "Ides of March: stay at home.\n")?;
    write(&castra.config(), &configuration(program, &notes))?;
    screen.say(format!(
        "{} says: one tool server, \"notes\", run as a child of the gate",
        castra.config().display()
    ))?;
    screen.say(
        "It has four tools: list_notes and read_note only read, write_note changes, delete_note destroys",
    )?;
    Ok(notes)
}

fn configuration(program: &Path, notes: &Path) -> String {
    // Ports are chosen by the system, so that the demo gets in nobody's way. Debug form is TOML's basic string.
    format!(
        "[gate]\nlisten = \"127.0.0.1:0\"\n\n[console]\nlisten = \"127.0.0.1:0\"\n\n[state]\ndir = \"state\"\n\n\
         [policy]\ndir = \"policies\"\n\n[[server]]\nname = \"notes\"\n\
         command = [{program:?}, \"demo\", \"serve-notes\", {notes:?}]\n"
    )
}

async fn add_agent(castra: &Castra, screen: &mut Screen<'_>) -> Result<String, DemoError> {
    screen.chapter("An agent")?;
    screen.command(format!("castra agent add {AGENT}"))?;
    let added = castra.json(&["agent", "add", AGENT]).await?;
    let token = added.get("token").and_then(Value::as_str).ok_or_else(|| DemoError::Words {
        command: format!("castra agent add {AGENT} --json"),
        words: "no token".into(),
    })?;
    let start: String = token.chars().take(18).collect();
    screen.say(format!("Its token is shown once ({start}…); the gate keeps only a hash of it"))?;
    Ok(token.to_owned())
}

async fn start(castra: &Castra, folder: &Path, screen: &mut Screen<'_>) -> Result<Gate, DemoError> {
    screen.chapter("The gate")?;
    screen.command("castra up --config castra.toml")?;
    let gate = castra.up().await?;
    screen.say(format!("It serves at {}. On its first start it made", gate.url))?;
    screen.say(format!("  {}  a CA, keys, a database and an empty log", folder.join("state").display()))?;
    screen.say(format!(
        "  {}  a starter policy: what only reads may happen, nothing else",
        folder.join("policies").display()
    ))?;
    Ok(gate)
}

/// The agent works under the starter policy.
async fn read_but_not_write(
    gate: &Gate,
    token: &str,
    notes: &Path,
    screen: &mut Screen<'_>,
) -> Result<(), DemoError> {
    screen.chapter("The agent works, in MCP 2026-07-28")?;
    let url = format!("{}/mcp/notes", gate.url);
    let agent = Agent::connect(&url, token, Era::Modern).await?;
    screen
        .say(format!("The gate shows it the tools that it may use: {}", agent.tools().await?.join(", ")))?;
    passes(&agent, "list_notes", json!({}), screen).await?;
    passes(&agent, "read_note", json!({"name": "plans.txt"}), screen).await?;
    is_refused(
        &agent,
        "write_note",
        json!({"name": "plans.txt", "text": "Ides of March: go to the senate."}),
        screen,
    )
    .await?;
    is_refused(&agent, "delete_note", json!({"name": "plans.txt"}), screen).await?;
    agent.leave().await;
    unchanged(notes, "plans.txt", "Ides of March: stay at home.\n")?;
    screen.say("The notes are untouched: a refused call never reached the server")?;
    if let Ok(stranger) = Agent::connect(&url, "castra_agent_not-a-token", Era::Modern).await {
        stranger.leave().await;
        return Err(unexpected("a connection with a made-up token", "refused", "it was let in"));
    }
    screen.refused("anyone without a good token", "not even connected")
}

/// A policy is added while the gate runs, and the agent comes back as an older client.
async fn widen(
    castra: &Castra,
    gate: &Gate,
    folder: &Path,
    token: &str,
    notes: &Path,
    screen: &mut Screen<'_>,
) -> Result<(), DemoError> {
    screen.chapter("A policy is added while the gate runs")?;
    let policy = folder.join("policies").join("scribe.cedar");
    let before = policies_loaded(castra).await?;
    write(&policy, WRITE_POLICY)?;
    screen.say(policy.display())?;
    screen.detail(WRITE_POLICY)?;
    await_policy(castra, before).await?;
    screen.say("The same agent as an older client, in MCP 2025-11-25; the gate speaks both:")?;
    let agent = Agent::connect(&format!("{}/mcp/notes", gate.url), token, Era::Legacy).await?;
    let draft = json!({"name": "draft-speech.txt", "text": "Friends, Romans, countrymen"});
    passes(&agent, "write_note", draft, screen).await?;
    is_refused(
        &agent,
        "write_note",
        json!({"name": "plans.txt", "text": "Ides of March: go to the senate."}),
        screen,
    )
    .await?;
    is_refused(&agent, "delete_note", json!({"name": "draft-speech.txt"}), screen).await?;
    agent.leave().await;
    unchanged(notes, "draft-speech.txt", "Friends, Romans, countrymen")
}

/// Waits until the gate has taken over the new policy, which it says in the log.
async fn await_policy(castra: &Castra, before: usize) -> Result<(), DemoError> {
    for _ in 0..RELOAD_TRIES {
        if policies_loaded(castra).await? > before {
            return Ok(());
        }
        tokio::time::sleep(RELOAD_PAUSE).await;
    }
    Err(unexpected("the new policy", "taken over by the gate", "it was not; see gate.log"))
}

/// How often the log says that policies were loaded.
async fn policies_loaded(castra: &Castra) -> Result<usize, DemoError> {
    let records = castra.json(&["log", "tail", "--lines", "1000"]).await?;
    let is_load = |record: &&Value| record.get("event").and_then(Value::as_str) == Some("policy-loaded");
    Ok(records.as_array().map_or(0, |all| all.iter().filter(is_load).count()))
}

/// The index of the newest record of a refused call.
async fn newest_denied(castra: &Castra) -> Result<String, DemoError> {
    let args = ["log", "query", "--agent", AGENT, "--decision", "deny"];
    let records = castra.json(&args).await?;
    let newest = records.as_array().and_then(|all| all.last()).and_then(|record| record.get("id")?.as_u64());
    newest.map(|id| id.to_string()).ok_or_else(|| DemoError::Words {
        command: format!("castra {}", args.join(" ")),
        words: records.to_string(),
    })
}

/// Verifies the log without a gate, and one record without the log.
async fn prove(castra: &Castra, folder: &Path, screen: &mut Screen<'_>) -> Result<(), DemoError> {
    screen.chapter("Proof, without the gate")?;
    screen
        .say("The gate is stopped. Anyone with the log, or a copy of it, and the public key can check it:")?;
    let key = castra.run(&["log", "key"]).await?;
    let key = key.trim();
    screen.command("castra log key")?;
    screen.detail(key)?;
    let log = folder.join("state").join("log").display().to_string();
    screen.command("castra log verify state/log --key …")?;
    screen.detail(&castra.run(&["log", "verify", &log, "--key", key]).await?)?;
    screen
        .say("Every answer named its record. As a proof that needs no log, such as for the last refusal:")?;
    let record = newest_denied(castra).await?;
    let receipt = folder.join("receipt.txt").display().to_string();
    screen.command(format!("castra log receipt {record} --output receipt.txt"))?;
    castra.run(&["log", "receipt", &record, "--output", &receipt]).await?;
    screen.command("castra log verify --receipt receipt.txt --key …")?;
    let verified = castra.run(&["log", "verify", "--receipt", &receipt, "--key", key]).await?;
    screen.detail(verified.lines().next().unwrap_or_default())
}

fn what_next(folder: &Path, screen: &mut Screen<'_>) -> Result<(), DemoError> {
    screen.chapter("What next")?;
    screen.say(format!("Everything is in {}. To go on with it:", folder.display()))?;
    screen.command(format!("castra up --config {}", folder.join("castra.toml").display()))?;
    screen.say("To put your own agent's tool servers behind a gate, and to undo it byte for byte:")?;
    screen.command("castra wrap")?;
    screen.command("castra wrap --undo")
}

/// A call that must pass.
async fn passes(
    agent: &Agent,
    tool: &'static str,
    arguments: Value,
    screen: &mut Screen<'_>,
) -> Result<(), DemoError> {
    let what = call_text(tool, &arguments);
    match agent.call(tool, &arguments).await? {
        Outcome::Answered { text } => screen.passed(&what, text.trim_end()),
        Outcome::Refused { reason } => Err(unexpected(&what, "passed", &reason)),
    }
}

/// A call that must be refused.
async fn is_refused(
    agent: &Agent,
    tool: &'static str,
    arguments: Value,
    screen: &mut Screen<'_>,
) -> Result<(), DemoError> {
    let what = call_text(tool, &arguments);
    match agent.call(tool, &arguments).await? {
        Outcome::Answered { text } => Err(unexpected(&what, "refused", &text)),
        Outcome::Refused { reason } => {
            screen.refused(&what, reason.trim_start_matches("Castra refused this call: "))
        }
    }
}

fn call_text(tool: &str, arguments: &Value) -> String {
    let members = arguments.as_object().into_iter().flatten();
    let shown: Vec<String> = members.map(|(key, value)| format!("{key}: {value}")).collect();
    format!("{tool}({})", shown.join(", "))
}

fn unchanged(notes: &Path, name: &str, expected: &str) -> Result<(), DemoError> {
    let path = notes.join(name);
    let text = std::fs::read_to_string(&path).map_err(DemoError::file(&path))?;
    if text == expected { Ok(()) } else { Err(unexpected(&format!("the note {name}"), "as it was", &text)) }
}

fn unexpected(what: &str, expected: &'static str, found: &str) -> DemoError {
    DemoError::Unexpected { what: what.into(), expected, found: found.into() }
}

fn write(path: &Path, text: &str) -> Result<(), DemoError> {
    std::fs::write(path, text).map_err(DemoError::file(path))
}
