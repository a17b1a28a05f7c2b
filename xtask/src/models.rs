//! Other people's clients of model APIs in front of the gate, and a mock of the providers behind it.
//!
//! Clients: the official `openai` and `anthropic` SDKs for Python and TypeScript, and LiteLLM. Behind
//! the gate stand two routes, one in OpenAI's form and one in Anthropic's, so that each client speaks
//! to a provider of its own form and to one of the other: both ways of the translation.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::{
    beside::Beside,
    castra::{self, Gate},
    chores, conformance, interop, run,
    tally::Tally,
    tools,
};

/// What the mock says when none of its rules apply; the clients expect it.
const HELLO: &str = "Salve from the model.";

const POLICY: &str = r#"
permit (principal == Castra::Agent::"judge", action == Castra::Action::"complete", resource);
permit (
  principal == Castra::Agent::"judge",
  action == Castra::Action::"call",
  resource == Castra::Tool::"local/get_weather"
);
"#;

const ROUTES: &[&str] = &["in-openai-form", "in-anthropic-form"];

/// A client: the program that runs it, and the SDK.
const CLIENTS: &[(Language, &str)] = &[
    (Language::Python, "openai"),
    (Language::Python, "anthropic"),
    (Language::Python, "litellm"),
    (Language::TypeScript, "openai"),
    (Language::TypeScript, "anthropic"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Python,
    TypeScript,
}

impl Language {
    fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::TypeScript => "typescript",
        }
    }
}

struct Bench {
    node: tools::Node,
    python: PathBuf,
    gate: Gate,
    _mock: Beside,
    _alone: chores::Alone,
}

/// Runs every client with every route and prints a table.
pub(crate) fn run() -> Tally {
    let (node, python) = match (tools::node("models"), tools::python("models")) {
        (Ok(node), Ok(python)) => (node, python),
        (Err(why), _) | (_, Err(why)) => return Tally::skipped("models", why),
    };
    let bench = match bench(node, python) {
        Ok(bench) => bench,
        Err(why) => return Tally::failed(format!("models: {why}")),
    };
    let mut tally = Tally::default();
    for (language, sdk) in CLIENTS {
        for route in ROUTES {
            let start = Instant::now();
            let pair = pair(&bench, *language, sdk, route);
            println!(
                "{:<10} {sdk:<10} {route:<18} {pair} in {} s",
                language.name(),
                start.elapsed().as_secs()
            );
            tally.add(pair);
        }
    }
    tally.add(bench.gate.log_holds());
    tally
}

fn bench(node: tools::Node, python: PathBuf) -> Result<Bench, String> {
    let alone = chores::alone("models")?;
    // The mock does not say which port it took, so one is chosen here.
    let port = conformance::free_port()?;
    let mock = mock(&python, &alone.folder, port)?;
    let program = castra::built()?;
    let gate = castra::gate(&program, &alone.folder.join("gate"), &routes(port), POLICY)?;
    Ok(Bench { node, python, gate, _mock: mock, _alone: alone })
}

fn routes(port: u16) -> String {
    let route = |name: &str, provider: &str| {
        format!(
            "[[model]]\nname = {name:?}\n[[model.version]]\nid = \"v1\"\nprovider = {provider:?}\n\
             base_url = \"http://127.0.0.1:{port}/v1\"\nmodel = \"some-model\"\nkey = \"env:CASTRA_JUDGE_KEY\"\n"
        )
    };
    [route("in-openai-form", "openai"), route("in-anthropic-form", "anthropic")].concat()
}

/// The mock of the providers.
fn mock(python: &Path, folder: &Path, port: u16) -> Result<Beside, String> {
    let mut mock = Command::new(python.join("llm-mock-api"));
    mock.args([
        "start",
        "--port",
        &port.to_string(),
        "-H",
        "127.0.0.1",
        "--latency",
        "1",
        "--fallback",
        HELLO,
    ])
    .args(["--log-level", "error", "--rules"])
    .arg(chores::root().join("eval/models/rules.json"))
    .current_dir(folder);
    Beside::start("mock", &mut mock, folder, &[port])
}

fn pair(bench: &Bench, language: Language, sdk: &str, route: &str) -> Tally {
    let scripts = chores::root().join("eval/models");
    let mut command = Command::new("timeout");
    command.arg(interop::CLIENT_TIME_MAX).current_dir(&bench.node.folder);
    match language {
        Language::Python => command.arg(bench.python.join("python")).arg(scripts.join("client.py")),
        Language::TypeScript => command.arg(&bench.node.node).arg(scripts.join("client.mjs")),
    };
    command.args([&bench.gate.url, &bench.gate.token, sdk, route]);
    let mut tally = run::quiet(&mut command).map_or_else(Tally::failed, |out| interop::checks(&out.text));
    for failure in &mut tally.failures {
        *failure = format!("models {} {sdk} {route}: {failure}", language.name());
    }
    tally
}
