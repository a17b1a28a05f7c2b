//! Attacks written with the rules in view. Each case says what happened in the run, which call the attack wants,
//! which calls must still pass, and whether the attack is held: those that succeed say so, with the reason. The test
//! prints the numbers that the documentation publishes.
#![allow(clippy::disallowed_methods)] // a test reads its cases
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail in this way

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::Path,
};

use castra_core::Effect;
use castra_flow::{Content, Coverage, FlowFacts, Manifest, Mark, Returned, Run, Tool, ToolManifest};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    family: String,
    #[serde(default)]
    defaults: Defaults,
    case: Vec<Case>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(deny_unknown_fields, default)]
struct Defaults {
    prompt: Option<String>,
    steps: Vec<String>,
    passes: Vec<String>,
    coverage: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    prompt: Option<String>,
    /// `server/tool ARGUMENTS => RESULT` (`!>` for an error), `said: TEXT`, `peer NAME: TEXT`, `run: PROMPT`.
    steps: Option<Vec<String>>,
    /// `server/tool ARGUMENTS` or `answer: TEXT`.
    attack: String,
    passes: Option<Vec<String>>,
    #[serde(default = "yes")]
    held: bool,
    reason: Option<String>,
}

fn yes() -> bool {
    true
}

/// One or more runs in front of servers that manifests describe.
struct World {
    manifests: BTreeMap<String, Manifest>,
    coverage: Coverage,
    run: Run,
    marks: HashSet<Mark>,
    record: u64,
}

impl World {
    fn new(manifests: BTreeMap<String, Manifest>, coverage: Coverage, prompt: Option<&str>) -> Self {
        let mut world =
            Self { manifests, coverage, run: Run::new(coverage), marks: HashSet::new(), record: 0 };
        world.begin(prompt);
        world
    }

    fn begin(&mut self, prompt: Option<&str>) {
        self.run = Run::new(self.coverage);
        prompt.into_iter().for_each(|p| self.run.user_said(p));
    }

    fn step(&mut self, step: &str) {
        // A restart in the middle must change nothing, so there is one before every step.
        self.run = Run::restore(&serde_json::to_vec(&self.run).unwrap());
        self.record += 1;
        if let Some(text) = step.strip_prefix("said: ") {
            self.run.user_said(text);
        } else if let Some(prompt) = step.strip_prefix("run: ") {
            self.begin(Some(prompt));
        } else if let Some((name, text)) = step.strip_prefix("peer ").and_then(|s| s.split_once(": ")) {
            self.run.received(name, text, self.record);
        } else {
            self.call(step);
        }
        assert!(self.run.size() < 2 << 20);
    }

    fn call(&mut self, step: &str) {
        let is_error = step.contains(" !> ");
        let (call, result) = step.split_once(if is_error { " !> " } else { " => " }).expect(step);
        let (id, arguments) = parse(call);
        let empty = ToolManifest::default();
        let tool = self.tool(&id, &empty).clone_parts();
        let tool = tool.as_tool();
        assert!(
            tool.reads() || !held(&self.run.judge(&tool, &arguments).facts, &tool),
            "the step is held: {step}"
        );
        self.run.went(&tool, &arguments, false);
        self.marks.extend(self.run.wrote());
        let value = serde_json::from_str::<Value>(result).ok();
        let content = value.as_ref().map_or(Content::Text(result), Content::Json);
        self.run.returned(
            &tool,
            &arguments,
            Returned { content, is_error, record: self.record },
            &self.marks,
        );
    }

    fn tool<'a>(&'a self, id: &'a str, empty: &'a ToolManifest) -> Tool<'a> {
        let (server, name) = id.split_once('/').expect(id);
        let entry = self.manifests.get(server).and_then(|m| m.tools.get(name));
        Tool {
            id,
            described: entry.is_some(),
            effect: entry.and_then(|e| e.effect).unwrap_or(Effect::Act),
            external: entry.is_none_or(|e| e.external == Some(true)),
            manifest: entry.unwrap_or(empty),
            schema: None,
        }
    }

    /// Whether a call would be held, and why.
    fn holds(&self, call: &str) -> (bool, String) {
        if let Some(text) = call.strip_prefix("answer: ") {
            let text: String = serde_json::from_str(&format!("\"{text}\"")).unwrap();
            let spans = self.run.answer(&text);
            return (!spans.is_empty(), format!("{spans:?}"));
        }
        let (id, arguments) = parse(call);
        let empty = ToolManifest::default();
        let tool = self.tool(&id, &empty);
        let judgement = self.run.judge(&tool, &arguments);
        (held(&judgement.facts, &tool), format!("{judgement:#?}"))
    }
}

/// A tool that does not borrow the world.
struct OwnedTool {
    id: String,
    described: bool,
    effect: Effect,
    external: bool,
    manifest: ToolManifest,
}

trait CloneParts {
    fn clone_parts(&self) -> OwnedTool;
}

impl CloneParts for Tool<'_> {
    fn clone_parts(&self) -> OwnedTool {
        OwnedTool {
            id: self.id.to_owned(),
            described: self.described,
            effect: self.effect,
            external: self.external,
            manifest: self.manifest.clone(),
        }
    }
}

impl OwnedTool {
    fn as_tool(&self) -> Tool<'_> {
        Tool {
            id: &self.id,
            described: self.described,
            effect: self.effect,
            external: self.external,
            manifest: &self.manifest,
            schema: None,
        }
    }
}

/// What `standard.cedar` of castra-policy makes of the facts, without a person's word. Areas do not know each other,
/// so it is said here once more; the gate's own tests run the policies themselves.
fn held(facts: &FlowFacts, tool: &Tool<'_>) -> bool {
    let full = facts.coverage == Coverage::Full;
    if !full && !facts.described {
        return false;
    }
    let act = !tool.reads() && facts.tainted;
    let asked_for = facts.prompted && facts.intended && facts.unfounded.is_empty() && facts.described;
    let injected = if full { !asked_for } else { !facts.injected.is_empty() };
    let trifecta = facts.secret && tool.external;
    let leaks = !facts.leaking.is_empty() && (!tool.reads() || tool.external);
    leaks || (act && (injected || trifecta || !facts.active.is_empty()))
}

fn parse(call: &str) -> (String, Value) {
    let (id, arguments) = call.split_once(' ').expect(call);
    (id.to_owned(), serde_json::from_str(arguments).unwrap_or_else(|e| panic!("{call}: {e}")))
}

fn manifests(folder: &Path) -> BTreeMap<String, Manifest> {
    let files = fs::read_dir(folder.join("manifests")).unwrap().map(|f| f.unwrap().path());
    files
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, Manifest::parse(&fs::read_to_string(&path).unwrap()).unwrap())
        })
        .collect()
}

#[test]
fn the_adaptive_set_is_held_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/adaptive");
    let manifests = manifests(&folder);
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    paths.sort();
    let (mut wrong, mut attacks, mut succeed, mut calls) = (Vec::new(), 0, Vec::new(), 0);
    for path in paths {
        let file: File =
            toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        for case in &file.case {
            let coverage = if file.defaults.coverage.as_deref() == Some("tools") {
                Coverage::Tools
            } else {
                Coverage::Full
            };
            let prompt = case.prompt.as_deref().or(file.defaults.prompt.as_deref());
            let mut world = World::new(manifests.clone(), coverage, prompt);
            case.steps.as_ref().unwrap_or(&file.defaults.steps).iter().for_each(|step| world.step(step));
            attacks += 1;
            let (held, why) = world.holds(&case.attack);
            if held != case.held {
                wrong.push(format!("{}: {}: held = {held}\n{why}", file.family, case.name));
            }
            if !case.held {
                let reason = case.reason.as_deref().expect("an attack that succeeds says why");
                succeed.push(format!("{}: {}. {reason}", file.family, case.name));
            }
            for pass in case.passes.as_ref().unwrap_or(&file.defaults.passes) {
                calls += 1;
                let (held, why) = world.holds(pass);
                if held {
                    wrong.push(format!("{}: {}: {pass} does not pass\n{why}", file.family, case.name));
                }
            }
        }
    }
    println!("{attacks} attacks, {} succeed; {calls} calls of users, all pass", succeed.len());
    succeed.iter().for_each(|s| println!("- {s}"));
    assert!(wrong.is_empty(), "{}\n{} wrong", wrong.join("\n\n"), wrong.len());
    assert!(attacks >= 80);
}
