//! `castra init`: a configuration and a policy folder to start from.

use std::path::Path;

use serde_json::json;

use crate::{
    cli::Global,
    config::Config,
    out::{Exit, Failure, Out, Outcome},
};

pub(super) fn run(global: &Global) -> Outcome {
    let mut out = Out::new(global.json);
    let file = match (&global.config, &global.state) {
        (Some(file), _) => file.clone(),
        (None, Some(state)) => state.join(Config::FILE),
        (None, None) => Config::FILE.into(),
    };
    let folder = file.parent().unwrap_or(Path::new(""));
    let policies = folder.join("policies");
    let policy = policies.join(STARTER_FILE);
    for path in [&file, &policy] {
        if path.exists() {
            let what = format!("{} is there already, and init overwrites nothing", path.display());
            return Err(Failure::new(what).advise("Edit it, or remove it first."));
        }
    }
    // In a state folder the state is where the file is.
    let state = if global.state.is_some() && global.config.is_none() { "." } else { "castra-state" };
    let text = CONFIG.replace("{state}", state);
    if !folder.as_os_str().is_empty() {
        // A state folder is nobody else's business; any other folder is likely there already.
        castra_store::files::create_folder(folder, 0o700)?;
    }
    castra_store::files::write_atomic(&file, text.as_bytes(), 0o644)?;
    write_starter_policy(&policies)?;
    out.value(&json!({ "config": file, "policies": policies }));
    out.line(format_args!("Wrote {} and {}.", file.display(), policy.display()));
    out.line("Add your MCP servers to castra.toml (or run `castra wrap`), then start with `castra up`.");
    Ok(Exit::Done)
}

const STARTER_FILE: &str = "starter.cedar";

/// Makes the policy folder with the policy that a new installation starts with.
pub(crate) fn write_starter_policy(folder: &Path) -> Result<(), Failure> {
    castra_store::files::create_folder(folder, 0o755)?;
    let text = castra_policy::STARTER_POLICY.as_bytes();
    Ok(castra_store::files::write_atomic(&folder.join(STARTER_FILE), text, 0o644)?)
}

const CONFIG: &str = r#"# Castra's configuration. Every key may be left out; what is commented here shows the default or an
# example. All keys: docs/reference/configuration.md. Check it with `castra doctor`.

# Where agents come in.
[gate]
listen = "127.0.0.1:8440"          # on another address than loopback it speaks TLS
#hosts = ["gate.example"]          # names under which agents reach it, besides the address

# Where people come in.
[console]
listen = "127.0.0.1:8441"

# Keys, agents, the log. Back it up; nobody else may read it.
[state]
dir = "{state}"

# What may happen: Cedar policies. What no policy permits is refused.
[policy]
dir = "policies"
mode = "enforce"                   # "observe" records what would be refused, and lets it through

# An MCP server, as a child process …
#[[server]]
#name = "files"
#command = ["npx", "-y", "@modelcontextprotocol/server-filesystem", "/srv/files"]
#env = { API_KEY = "env:FILES_API_KEY" }   # or "file:PATH": secrets do not belong here

# … or over HTTP.
#[[server]]
#name = "tickets"
#url = "https://tickets.example/mcp"
#headers = { Authorization = "file:secrets/tickets" }
#manifest = "tickets.toml"         # what the catalogue cannot know: effects of tools
"#;
