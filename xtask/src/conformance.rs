//! The official MCP conformance suite: first directly against our fixture, then through the gate.
//!
//! The gate passes if no scenario does worse through it than directly, and DNS rebinding is refused.
//! The suite itself is a package of the npm registry; the fixture is `eval/conformance/fixture.mjs`.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{
    castra::{self, Gate},
    chores, run,
    tally::Tally,
    tools::{self, Node},
};

const REVISIONS: &[&str] = &["2025-11-25", "2026-07-28"];

/// The suite's scenario that a gate must pass whatever stands behind it.
const REBINDING: &str = "dns-rebinding-protection";

const POLICY: &str = "permit (principal == Castra::Agent::\"judge\", action, resource);\n";

/// Checks of one scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Score {
    passed: u32,
    failed: u32,
}

/// By revision and scenario.
type Scores = BTreeMap<(String, String), Score>;

/// Runs the suite both ways and compares.
pub(crate) fn run() -> Tally {
    let node = match tools::node("conformance") {
        Ok(node) => node,
        Err(why) => return Tally::skipped("conformance", why),
    };
    match both_ways(&node) {
        Ok((direct, through, log)) => {
            let mut tally = compared(&direct, &through);
            tally.add(log);
            tally
        }
        Err(why) => Tally::failed(format!("conformance: {why}")),
    }
}

fn both_ways(node: &Node) -> Result<(Scores, Scores, Tally), String> {
    let folder = chores::target().join("conformance");
    let program = castra::built()?;
    let fixture = Script::start(node, "fixture.mjs", &["0"])?;
    let direct = suite(node, &fixture.url, &folder.join("direct"))?;
    same_as_stored(&direct)?;
    let servers = format!(
        "[[server]]\nname = \"fixture\"\nurl = {:?}\nallow = [\"sampling\", \"elicitation\", \"roots\"]\n",
        fixture.url
    );
    let gate: Gate = castra::gate(&program, &folder.join("gate"), &servers, POLICY)?;
    let bearer = Script::start(node, "bearer.mjs", &[&gate.url, &gate.token])?;
    let through = suite(node, &format!("{}/mcp/fixture", bearer.url), &folder.join("through"))?;
    Ok((direct, through, gate.log_holds()))
}

fn compared(direct: &Scores, through: &Scores) -> Tally {
    let mut tally = Tally::default();
    println!("{:<12} {:<48} {:>9} {:>9}", "revision", "scenario", "direct", "through");
    for ((revision, scenario), before) in direct {
        let after = through.get(&(revision.clone(), scenario.clone()));
        let shown = after.map_or("-".to_owned(), |a| format!("{}/{}", a.passed, a.failed));
        println!(
            "{revision:<12} {scenario:<48} {:>9} {shown:>9}",
            format!("{}/{}", before.passed, before.failed)
        );
        tally.add(Tally::check(
            worse(*before, after.copied()).map(|why| format!("conformance {revision} {scenario}: {why}")),
        ));
        if scenario == REBINDING && after.is_none_or(|a| a.failed > 0 || a.passed == 0) {
            tally.add(Tally::failed(format!(
                "conformance {revision} {scenario}: a gate must refuse foreign hosts itself"
            )));
        }
    }
    tally
}

fn worse(direct: Score, through: Option<Score>) -> Option<String> {
    match through {
        None => Some("did not run through the gate".into()),
        Some(t) if t.failed > direct.failed || t.passed < direct.passed => Some(format!(
            "{} passed, {} failed through the gate; directly {} passed, {} failed",
            t.passed, t.failed, direct.passed, direct.failed
        )),
        Some(_) => None,
    }
}

fn suite(node: &Node, url: &str, folder: &Path) -> Result<Scores, String> {
    let mut scores = Scores::new();
    let program = node.file("@modelcontextprotocol/conformance/dist/index.js");
    for revision in REVISIONS {
        let out = folder.join(revision);
        std::fs::create_dir_all(&out).map_err(|e| format!("{} cannot be made: {e}", out.display()))?;
        // It exits with 1 for unscored failures too, so only what it prints counts.
        let mut command = Command::new(&node.node);
        command.arg(&program).args(["server", "--url", url, "--requirements", revision, "-o"]).arg(&out);
        let text = run::quiet(&mut command)?.text;
        std::fs::write(out.join("suite.log"), &text)
            .map_err(|e| format!("the suite's log cannot be kept: {e}"))?;
        let found = scenarios(&text);
        if found.is_empty() {
            return Err(format!("the suite ran no scenario of {revision} against {url}:\n{text}"));
        }
        scores.extend(found.into_iter().map(|(name, score)| (((*revision).to_owned(), name), score)));
    }
    Ok(scores)
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

/// What the fixture reaches is kept in `direct.json`, so that a weaker fixture cannot hide a weaker gate.
fn same_as_stored(direct: &Scores) -> Result<(), String> {
    let mut shown = serde_json::Map::new();
    for ((revision, scenario), score) in direct {
        let scenarios = shown.entry(revision.clone()).or_insert_with(|| serde_json::json!({}));
        if let Some(map) = scenarios.as_object_mut() {
            map.insert(scenario.clone(), serde_json::json!([score.passed, score.failed]));
        }
    }
    let stored = chores::root().join("eval/conformance/direct.json");
    let now = serde_json::Value::Object(shown);
    let known = chores::read(&stored)
        .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).map_err(|e| e.to_string()));
    if known.as_ref() == Ok(&now) {
        return Ok(());
    }
    let found = chores::target().join("conformance/direct.json");
    let text = serde_json::to_string_pretty(&now).map_err(|e| e.to_string())?;
    std::fs::write(&found, text + "\n").map_err(|e| format!("{} cannot be written: {e}", found.display()))?;
    Err(format!(
        "directly, the fixture scores otherwise than eval/conformance/direct.json says; what it scored now is in {}",
        found.display()
    ))
}

/// A script of `eval/conformance` that serves on loopback; stopped when dropped.
struct Script {
    child: Child,
    url: String,
}

impl Script {
    fn start(node: &Node, file: &str, args: &[&str]) -> Result<Self, String> {
        let mut child = Command::new(&node.node)
            .arg(chores::root().join("eval/conformance").join(file))
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
