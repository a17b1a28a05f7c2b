//! The official MCP conformance suite: directly against our fixture, and through the gate.
//!
//! With a server of the client's own era no scenario may do worse through the gate than directly, and
//! DNS rebinding must be refused. With a server that speaks only the other era every message is bridged;
//! there no scenario may do worse than `eval/conformance/bridged.json` says. The authorization scenarios
//! judge the issuer of a gate's tokens, a real OpenID provider; with a token of that issuer the gate is
//! judged once more. The suite itself is a package of the npm registry; the fixture is
//! `eval/conformance/fixture.mjs`.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{
    castra::{self, Gate},
    chores, interop, run,
    tally::Tally,
    tools::{self, Node},
};

/// A client's revision and the only era that the server behind the gate speaks.
type Pair = (&'static str, &'static str);

const NATIVE: &[Pair] = &[("2025-11-25", "legacy"), ("2026-07-28", "modern")];
const BRIDGED: &[Pair] = &[("2025-11-25", "modern"), ("2026-07-28", "legacy")];

/// The suite's scenario that a gate must pass whatever stands behind it.
const REBINDING: &str = "dns-rebinding-protection";

/// Scenarios that come out differently through the gate and rightly so: (revision, scenario, why). They
/// must still not fail.
const DIFFERENT: &[(&str, &str, &str)] = &[(
    "2025-11-25",
    "server-sse-polling",
    "the gate takes up a stream that the server closed by itself and answers at once, so nothing is left to poll",
)];

const POLICY: &str = "permit (principal == Castra::Agent::\"judge\", action, resource);\n";

/// For agents that an issuer names.
const ANYBODY: &str = "permit (principal, action, resource);\n";

/// Checks of one scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Score {
    passed: u32,
    failed: u32,
}

/// By revision and scenario.
type Scores = BTreeMap<(String, String), Score>;

/// A part of the run: its name and what it does.
type Part = (&'static str, fn(&Node, &Path) -> Result<Tally, String>);

const PARTS: &[Part] = &[("native", native), ("bridged", bridged), ("authorization", authorized)];

/// Runs the suite every way, or the one that is named, and compares.
pub(crate) fn run(only: Option<&str>) -> Tally {
    let node = match tools::node("conformance") {
        Ok(node) => node,
        Err(why) => return Tally::skipped("conformance", why),
    };
    let mut tally = Tally::default();
    match chores::alone("conformance").and_then(|alone| Ok((alone, castra::built()?))) {
        Ok((_alone, program)) => {
            for (_, part) in PARTS.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
                let part = part(&node, &program);
                tally.add(part.unwrap_or_else(|why| Tally::failed(format!("conformance: {why}"))));
            }
        }
        Err(why) => tally.add(Tally::failed(format!("conformance: {why}"))),
    }
    tally
}

/// Each era of client with a server of its own era.
fn native(node: &Node, program: &Path) -> Result<Tally, String> {
    let folder = chores::target().join("conformance");
    let mut direct = Scores::new();
    for (revision, era) in NATIVE {
        let fixture = Script::start(node, "fixture.mjs", &["0", era])?;
        direct.extend(suite(node, &fixture.url, revision, &folder.join("direct"))?);
    }
    // What the fixture reaches is kept, so that a weaker fixture cannot hide a weaker gate.
    if stored("direct.json")? != direct {
        let found = folder.join("direct.json");
        store(&direct, &found)?;
        return Err(format!(
            "directly, the fixture scores otherwise than eval/conformance/direct.json says; see {}",
            found.display()
        ));
    }
    let (through, mut tally) = through_gate(node, program, NATIVE, "native")?;
    tally.add(compared("direct", &direct, "through", &through));
    Ok(tally)
}

/// Each era of client with a server of the other era.
fn bridged(node: &Node, program: &Path) -> Result<Tally, String> {
    let (scores, mut tally) = through_gate(node, program, BRIDGED, "bridged")?;
    store(&scores, &chores::target().join("conformance/bridged.json"))?;
    tally.add(compared("known", &stored("bridged.json")?, "bridged", &scores));
    Ok(tally)
}

/// Runs the suite through a gate per pair; the tally says whether the gates' logs hold.
fn through_gate(node: &Node, program: &Path, pairs: &[Pair], name: &str) -> Result<(Scores, Tally), String> {
    let folder = chores::target().join("conformance").join(name);
    let (mut scores, mut tally) = (Scores::new(), Tally::default());
    for (revision, era) in pairs {
        let fixture = Script::start(node, "fixture.mjs", &["0", era])?;
        let gate = gate(program, &folder.join(format!("gate-{era}")), &fixture)?;
        let bearer = Script::start(node, "bearer.mjs", &[&gate.url, &gate.token])?;
        scores.extend(suite(node, &format!("{}/mcp/fixture", bearer.url), revision, &folder)?);
        tally.add(gate.log_holds());
    }
    Ok((scores, tally))
}

/// The authorization scenarios against an issuer, and the gate with tokens of that issuer.
fn authorized(node: &Node, program: &Path) -> Result<Tally, String> {
    const REVISION: Pair = ("2026-07-28", "modern");
    const ENDPOINT: &str = "/mcp/fixture";
    let folder = chores::target().join("conformance/authorized");
    let callback = free_port()?.to_string();
    let issuer = Script::start(node, "issuer.mjs", &[&callback])?;
    let fixture = Script::start(node, "fixture.mjs", &["0", REVISION.1])?;
    let trusted = format!(
        "{}[[issuer]]\nissuer = {:?}\nagent_claim = \"client_id\"\nauto_agents = true\n",
        server(&fixture),
        issuer.url
    );
    let gate = castra::gate(program, &folder.join("gate"), &trusted, ANYBODY)?;

    let suite_file = node.file("@modelcontextprotocol/conformance/dist/index.js");
    let resource = format!("{}{ENDPOINT}", gate.url);
    let mut command = script(node, "authorization.mjs");
    command.arg(suite_file).args([&issuer.url, &callback, &resource]).arg("-o").arg(folder.join("issuer"));
    let text = run::quiet(&mut command)?.text;
    let found = scenarios(&text);
    let mut tally = Tally::default();
    for name in ["authorization-server-metadata-endpoint", "authorization-code-grant"] {
        let good = found.get(name).is_some_and(|score| score.passed > 0 && score.failed == 0);
        println!("{:<12} {name:<48} {:>9}", "issuer", if good { "passed" } else { "failed" });
        tally.add(Tally::check((!good).then(|| format!("conformance {name}: {text}"))));
    }

    let text = run::quiet(script(node, "tokens.mjs").args([&issuer.url, &gate.url, ENDPOINT]))?.text;
    tally.add(interop::checks(&text));
    let token = castra::json_text(text.lines().last().unwrap_or_default(), "token")?;
    let bearer = Script::start(node, "bearer.mjs", &[&gate.url, &token])?;
    let scores = suite(node, &format!("{}{ENDPOINT}", bearer.url), REVISION.0, &folder)?;
    let direct =
        stored("direct.json")?.into_iter().filter(|((revision, _), _)| revision == REVISION.0).collect();
    tally.add(compared("direct", &direct, "by JWT", &scores));
    tally.add(gate.log_holds());
    Ok(tally)
}

fn gate(program: &Path, folder: &Path, fixture: &Script) -> Result<Gate, String> {
    castra::gate(program, folder, &server(fixture), POLICY)
}

fn server(fixture: &Script) -> String {
    format!(
        "[[server]]\nname = \"fixture\"\nurl = {:?}\nallow = [\"sampling\", \"elicitation\", \"roots\"]\n",
        fixture.url
    )
}

fn compared(first: &str, before: &Scores, second: &str, after: &Scores) -> Tally {
    let mut tally = Tally::default();
    println!("{:<12} {:<48} {first:>9} {second:>9}", "revision", "scenario");
    for ((revision, scenario), known) in before {
        let found = after.get(&(revision.clone(), scenario.clone()));
        let shown = found.map_or("-".to_owned(), |a| format!("{}/{}", a.passed, a.failed));
        println!(
            "{revision:<12} {scenario:<48} {:>9} {shown:>9}",
            format!("{}/{}", known.passed, known.failed)
        );
        let different = DIFFERENT.iter().find(|d| d.0 == revision && d.1 == scenario);
        if let Some((_, _, why)) = different
            && found.is_some_and(|f| f.failed == 0)
        {
            println!("{:<12} {why}", "");
            tally.add(Tally::passed(1));
            continue;
        }
        let problem =
            worse(*known, found.copied()).map(|why| format!("conformance {revision} {scenario}: {why}"));
        tally.add(Tally::check(problem));
        if scenario == REBINDING && found.is_none_or(|a| a.failed > 0 || a.passed == 0) {
            let what = format!("conformance {revision} {scenario}: a gate must refuse foreign hosts itself");
            tally.add(Tally::failed(what));
        }
    }
    tally
}

fn worse(direct: Score, through: Option<Score>) -> Option<String> {
    match through {
        None => Some("did not run through the gate".into()),
        Some(t) if t.failed > direct.failed || t.passed < direct.passed => Some(format!(
            "{} passed, {} failed through the gate, instead of {} and {}",
            t.passed, t.failed, direct.passed, direct.failed
        )),
        Some(_) => None,
    }
}

fn suite(node: &Node, url: &str, revision: &str, folder: &Path) -> Result<Scores, String> {
    let out = folder.join(revision);
    std::fs::create_dir_all(&out).map_err(|e| format!("{} cannot be made: {e}", out.display()))?;
    // It exits with 1 for unscored failures too, so only what it prints counts.
    let mut command = Command::new(&node.node);
    command.arg(node.file("@modelcontextprotocol/conformance/dist/index.js"));
    command.args(["server", "--url", url, "--requirements", revision, "-o"]).arg(&out);
    let text = run::quiet(&mut command)?.text;
    std::fs::write(out.join("suite.log"), &text)
        .map_err(|e| format!("the suite's log cannot be kept: {e}"))?;
    let found = scenarios(&text);
    if found.is_empty() {
        return Err(format!("the suite ran no scenario of {revision} against {url}:\n{text}"));
    }
    Ok(found.into_iter().map(|(name, score)| ((revision.to_owned(), name), score)).collect())
}

/// Reads lines such as `✓ tools-list: 3 passed, 0 failed`.
fn scenarios(text: &str) -> BTreeMap<String, Score> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let line: String = strip_colour(line);
        let Some(rest) = line.strip_prefix("✓ ").or_else(|| line.strip_prefix("✗ ")) else { continue };
        let Some((name, counts)) = rest.split_once(": ") else { continue };
        let count = |word| {
            let before = counts.split(", ").find_map(|part| part.trim().strip_suffix(word))?;
            before.trim().parse::<u32>().ok()
        };
        if let (Some(passed), Some(failed)) = (count("passed"), count("failed")) {
            found.insert(name.to_owned(), Score { passed, failed });
        }
    }
    found
}

fn strip_colour(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}

/// Scores as a file of `eval/conformance` keeps them: per revision and scenario, passed and failed.
fn stored(file: &str) -> Result<Scores, String> {
    let path = chores::root().join("eval/conformance").join(file);
    let by_revision: BTreeMap<String, BTreeMap<String, (u32, u32)>> =
        serde_json::from_str(&chores::read(&path)?).map_err(|e| format!("{}: {e}", path.display()))?;
    let scores = by_revision.into_iter().flat_map(|(revision, scenarios)| {
        let score = |(passed, failed)| Score { passed, failed };
        scenarios.into_iter().map(move |(name, counts)| ((revision.clone(), name), score(counts)))
    });
    Ok(scores.collect())
}

fn store(scores: &Scores, path: &Path) -> Result<(), String> {
    let mut by_revision: BTreeMap<&str, BTreeMap<&str, (u32, u32)>> = BTreeMap::new();
    for ((revision, scenario), score) in scores {
        by_revision.entry(revision).or_default().insert(scenario, (score.passed, score.failed));
    }
    let text = serde_json::to_string_pretty(&by_revision).map_err(|e| e.to_string())?;
    std::fs::write(path, text + "\n").map_err(|e| format!("{} cannot be written: {e}", path.display()))
}

/// A script of `eval/conformance`, to be run where the packages are.
fn script(node: &Node, file: &str) -> Command {
    let mut command = Command::new(&node.node);
    command.arg(chores::root().join("eval/conformance").join(file)).current_dir(&node.folder);
    command
}

/// A port that was free a moment ago, for what cannot choose one itself.
pub(crate) fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|e| format!("no free port: {e}"))
}

/// A script of `eval/conformance` that serves on loopback; stopped when dropped.
struct Script {
    child: Child,
    url: String,
}

impl Script {
    fn start(node: &Node, file: &str, args: &[&str]) -> Result<Self, String> {
        let mut child = script(node, file)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{file} did not start: {e}"))?;
        let line = child.stdout.take().and_then(castra::first_line);
        let mut script = Self { child, url: String::new() };
        script.url = castra::json_text(&line.ok_or_else(|| format!("{file} printed no line"))?, "url")?;
        Ok(script)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        castra::stop(&mut self.child);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_is_read() {
        let text = "\u{1b}[32m✓\u{1b}[0m tools-list: 3 passed, 0 failed\n✗ caching: 7 passed, 1 failed\n  ✓ not-scored (pending)\nTotal: 10 passed, 1 failed\n";
        let found = scenarios(text);
        assert_eq!(found.get("tools-list"), Some(&Score { passed: 3, failed: 0 }));
        assert_eq!(found.get("caching"), Some(&Score { passed: 7, failed: 1 }));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn worse_is_fewer_passed_or_more_failed() {
        let direct = Score { passed: 3, failed: 1 };
        assert_eq!(worse(direct, Some(Score { passed: 4, failed: 0 })), None);
        assert!(worse(direct, Some(Score { passed: 2, failed: 1 })).is_some());
        assert!(worse(direct, Some(Score { passed: 3, failed: 2 })).is_some());
        assert!(worse(direct, None).is_some());
    }
}
