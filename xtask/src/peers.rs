//! Other people's agents behind the gate, and other people's clients of A2A in front of it.
//!
//! The agent is made with the official Python SDK and serves both HTTP bindings, with a card that it
//! signs; the clients are the same SDK's and the TypeScript SDK's, once in each binding. The gate
//! verifies the card, so the run also shows that their signatures are read as they write them.

use std::{path::Path, process::Command};

use crate::{
    beside::Beside,
    castra::{self, Gate},
    chores, conformance, interop, run,
    tally::Tally,
    tools,
};

const POLICY: &str = r#"
permit (
  principal == Castra::Agent::"judge",
  action == Castra::Action::"send",
  resource == Castra::Peer::"echo"
);
"#;

const BINDINGS: &[&str] = &["JSONRPC", "HTTP+JSON"];

/// Runs the client in each binding.
pub(crate) fn run() -> Tally {
    let (node, python) = match (tools::node("a2a"), tools::python("a2a")) {
        (Ok(node), Ok(python)) => (node, python),
        (Err(why), _) | (_, Err(why)) => return Tally::skipped("peers", why),
    };
    match bench(&python) {
        Ok((gate, _agent, _alone)) => {
            let mut tally = Tally::default();
            let scripts = chores::root().join("eval/a2a");
            let clients = [
                ("python", python.join("python"), scripts.join("client.py")),
                ("typescript", node.node.clone(), scripts.join("client.mjs")),
            ];
            for (name, program, script) in &clients {
                for binding in BINDINGS {
                    let mut command = Command::new("timeout");
                    command.arg(interop::CLIENT_TIME_MAX).arg(program).arg(script).current_dir(&node.folder);
                    let pair = pair(command, &gate, name, binding);
                    println!("{name:<12} {binding:<10} {pair}");
                    tally.add(pair);
                }
            }
            tally.add(gate.log_holds());
            tally
        }
        Err(why) => Tally::failed(format!("peers: {why}")),
    }
}

fn bench(python: &Path) -> Result<(Gate, Beside, chores::Alone), String> {
    let alone = chores::alone("peers")?;
    let program = castra::built()?;
    let keys = alone.folder.join("keys.json");
    let port = conformance::free_port()?;
    let mut agent = Command::new(python.join("python"));
    agent.arg(chores::root().join("eval/a2a/server.py")).arg(port.to_string()).arg(&keys);
    let agent = Beside::start("agent", &mut agent, &alone.folder, &[port])?;
    let table = format!(
        "[[peer]]\nname = \"echo\"\ncard = \"http://127.0.0.1:{port}/.well-known/agent-card.json\"\n\
         keys = [{keys:?}]\npush = [\"https://hooks.example/in\"]\n"
    );
    let gate = castra::gate(&program, &alone.folder.join("gate"), &table, POLICY)?;
    Ok((gate, agent, alone))
}

fn pair(mut command: Command, gate: &Gate, name: &str, binding: &str) -> Tally {
    command.args([binding, &format!("{}/a2a/echo", gate.url), &gate.token]);
    let mut tally = run::quiet(&mut command).map_or_else(Tally::failed, |out| interop::checks(&out.text));
    for failure in &mut tally.failures {
        *failure = format!("peers {name} {binding}: {failure}");
    }
    tally
}
