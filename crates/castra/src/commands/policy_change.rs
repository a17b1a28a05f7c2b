//! `castra policy simulate`, `diff` and `prove`: what a change of policies would do, before it does it.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use castra_core::{Decision, Verdict};
use castra_ledger::Record;
use castra_policy::{Catalogue, Engine, Problem};
use castra_store::files;
use serde::Serialize;
use serde_json::{Value, json};

use super::{log::reader, policy};
use crate::{
    cli::FilterArgs,
    context::Context,
    out::{Exit, Failure, Outcome, remark},
    policies,
    records::{self, Entry, Filter, Payload},
};

/// Bytes of a file of properties.
const PROPERTIES_BYTES_MAX: u64 = 1 << 20;

/// Examples of each kind of change that are told.
const EXAMPLES_MAX: usize = 5;

/// What the standard pack promises.
const STANDARD_PROPERTIES: &str = include_str!("../properties.cedar");

/// How often actions of one kind would be decided otherwise, with examples.
#[derive(Default, Serialize)]
struct Change {
    count: u64,
    examples: Vec<Example>,
}

#[derive(Serialize)]
struct Example {
    action: String,
    reason: String,
}

/// Decisions that would change, by agent, resource, and what becomes of them.
#[derive(Default)]
struct Changes {
    decided: u64,
    by_kind: BTreeMap<(String, String, &'static str, &'static str), Change>,
    /// Requests whose payload is not here any more: they are decided without it.
    incomplete: u64,
}

impl Changes {
    fn note(
        &mut self,
        entry: &Entry,
        who: (String, String),
        old: &Verdict,
        new: &Verdict,
    ) -> Result<(), Failure> {
        self.decided += 1;
        if old.decision == new.decision {
            return Ok(());
        }
        let key = (who.0, who.1, old.decision.as_str(), new.decision.as_str());
        let change = self.by_kind.entry(key).or_default();
        change.count += 1;
        if change.examples.len() < EXAMPLES_MAX
            && let Record::Intent(intent) = entry.record()?
        {
            change.examples.push(Example { action: intent.action.to_string(), reason: new.reason.clone() });
        }
        Ok(())
    }

    /// How many would be permitted that are not.
    fn wider(&self) -> u64 {
        let wider = self.by_kind.iter().filter(|((_, _, _, new), _)| *new == Decision::Allow.as_str());
        wider.map(|(_, change)| change.count).sum()
    }

    fn json(&self) -> Value {
        let changes = self.by_kind.iter().map(|((agent, resource, old, new), change)| {
            json!({ "agent": agent, "resource": resource, "old": old, "new": new,
                    "count": change.count, "examples": change.examples })
        });
        json!({ "decided": self.decided, "permitted_now": self.wider(), "incomplete": self.incomplete,
                "changes": changes.collect::<Vec<_>>() })
    }

    fn tell(&self, cx: &mut Context) {
        for ((agent, resource, old, new), change) in &self.by_kind {
            cx.out.line(format_args!("{agent} on {resource}: {old} becomes {new}, {} times", change.count));
            for Example { action, reason } in &change.examples {
                cx.out.line(format_args!("  {action}: {reason}"));
            }
        }
        cx.out.line(format_args!(
            "{} recorded actions were decided again; {} that are not permitted would be.",
            self.decided,
            self.wider()
        ));
        if self.incomplete > 0 {
            remark(format_args!(
                "Of {} actions the request itself is not here any more; they were decided without arguments.",
                self.incomplete
            ));
        }
    }

    fn exit(&self) -> Exit {
        if self.wider() == 0 { Exit::Done } else { Exit::Found }
    }
}

pub(super) fn simulate(mut cx: Context, folder: &Path, wanted: &FilterArgs) -> Outcome {
    let catalogue = policy::catalogue(&cx)?;
    let now = good(policies::load(cx.config(), &catalogue)?)?;
    let then = engine_of(&cx, folder, &catalogue)?;
    let changes = replay(&cx, &catalogue, &now, &then, wanted)?;
    cx.out.value(&changes.json());
    changes.tell(&mut cx);
    Ok(changes.exit())
}

pub(super) fn diff(mut cx: Context, old: &Path, new: &Path) -> Outcome {
    let catalogue = policy::catalogue(&cx)?;
    let (was, is) = (engine_of(&cx, old, &catalogue)?, engine_of(&cx, new, &catalogue)?);
    if let Some(outcome) = proved::diff(&mut cx, &catalogue, old, new)? {
        return Ok(outcome);
    }
    let changes = replay(&cx, &catalogue, &was, &is, &FilterArgs::default())?;
    if changes.decided == 0 {
        return Err(Failure::new(
            "nothing can be said: no traffic is recorded, and this build has no prover",
        )
        .advise(
            "Build castra with `--features prove` and install cvc5, or compare after the gate has run.",
        ));
    }
    cx.out.value(&json!({ "by": "recorded traffic", "changes": changes.json() }));
    changes.tell(&mut cx);
    if changes.wider() == 0 {
        remark(
            "This speaks of the recorded actions only: this build of castra has no prover (feature `prove`).",
        );
    }
    Ok(changes.exit())
}

pub(super) fn prove(mut cx: Context, given: &[PathBuf], folder: Option<&Path>) -> Outcome {
    let catalogue = policy::catalogue(&cx)?;
    let mut texts = Vec::new();
    for file in given {
        texts.push((file.display().to_string(), files::read_text(file, PROPERTIES_BYTES_MAX)?));
    }
    if texts.is_empty() {
        texts.push(("castra:properties.cedar".to_owned(), STANDARD_PROPERTIES.to_owned()));
    }
    proved::prove(&mut cx, &catalogue, &texts, folder)
}

/// Decides recorded actions under both engines.
fn replay(
    cx: &Context,
    catalogue: &Catalogue,
    old: &Engine,
    new: &Engine,
    wanted: &FilterArgs,
) -> Result<Changes, Failure> {
    let mut changes = Changes::default();
    // Policies are changed before the first start, too.
    if !cx.state_dir().join("log/checkpoint").exists() {
        return Ok(changes);
    }
    let (reader, state) = (reader(cx)?, cx.open()?.state);
    let mut filter = Filter::new(wanted);
    records::scan(&reader, 0, |entry| {
        let record = entry.record()?;
        if !filter.admits(entry.index, &record) {
            return Ok(ControlFlow::Continue(()));
        }
        let Record::Intent(intent) = record else { return Ok(ControlFlow::Continue(())) };
        let who = (intent.agent.to_string(), intent.resource.to_string());
        let said = match records::payload(&reader, &state, &entry)? {
            Payload::Open(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Payload::None | Payload::Closed(_) => {
                changes.incomplete += 1;
                Value::Null
            }
        };
        if let Some(question) = policy::question(catalogue, intent, &said) {
            let request = question.request();
            changes.note(&entry, who, &old.decide(&request), &new.decide(&request))?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(changes)
}

fn engine_of(cx: &Context, folder: &Path, catalogue: &Catalogue) -> Result<Engine, Failure> {
    let sources = policies::all_sources(cx.config(), folder)?;
    good(Engine::load(&sources, catalogue))
        .map_err(|failure| Failure::new(format!("{}: {failure}", folder.display())).advise(failure.advice()))
}

fn good(loaded: Result<Engine, castra_policy::PolicyProblems>) -> Result<Engine, Failure> {
    loaded.map_err(|problems| {
        let list: Vec<String> = problems.errors.iter().map(Problem::to_string).collect();
        Failure::new(format!("the policies are not good:\n{}", list.join("\n")))
            .advise("`castra policy check` shows all that is wrong in the configured folder.")
    })
}

#[cfg(feature = "prove")]
mod proved {
    use super::*;
    use crate::prove::{Answer, Property, Prover, policy_set, properties};

    /// What is proved about a change.
    pub(super) fn diff(
        cx: &mut Context,
        catalogue: &Catalogue,
        old: &Path,
        new: &Path,
    ) -> Result<Option<Exit>, Failure> {
        let mut prover = Prover::start(&castra_policy::schema_text(catalogue))?;
        let was = policy_set(&policies::all_sources(cx.config(), old)?)?;
        let is = policy_set(&policies::all_sources(cx.config(), new)?)?;
        let answer = prover.permits_no_more(&was, &is)?;
        cx.out.value(&json!({ "by": "proof", "nothing_more_is_permitted": answer }));
        Ok(Some(match &answer {
            Answer::Holds { kinds } => {
                cx.out.line(format_args!(
                    "Nothing more is permitted: proved for all requests of {kinds} kinds whose arguments fit their tools' schemas."
                ));
                Exit::Done
            }
            Answer::Fails(example) => {
                cx.out.line(format_args!("This becomes permitted:\n{}", words(example)));
                Exit::Found
            }
        }))
    }

    pub(super) fn prove(
        cx: &mut Context,
        catalogue: &Catalogue,
        texts: &[(String, String)],
        folder: Option<&Path>,
    ) -> Outcome {
        let folder = folder.unwrap_or(&cx.config().policy.dir).to_owned();
        let policies = policy_set(&policies::all_sources(cx.config(), &folder)?)?;
        let mut prover = Prover::start(&castra_policy::schema_text(catalogue))?;
        let (mut all, mut fail) = (Vec::new(), false);
        for (file, text) in texts {
            for property in properties(file, text)? {
                let answer = prover.never_permits(&policies, &property)?;
                fail |= matches!(answer, Answer::Fails(_));
                tell(cx, &property, &answer);
                all.push(json!({ "id": property.id, "statement": property.statement, "proof": answer }));
            }
        }
        cx.out.value(&all);
        Ok(if fail { Exit::Found } else { Exit::Done })
    }

    fn tell(cx: &mut Context, property: &Property, answer: &Answer) {
        let Property { id, statement, .. } = property;
        match answer {
            Answer::Holds { kinds } => {
                cx.out.line(format_args!("holds  {id}: {statement} ({kinds} kinds of requests)"));
            }
            Answer::Fails(example) => {
                cx.out.line(format_args!("FAILS  {id}: {statement}\n{}", words(example)));
            }
        }
    }

    fn words(example: &crate::prove::Counterexample) -> String {
        format!("  {}\n  with the context {}", example.attempt, example.context)
    }
}

/// Without the prover.
#[cfg(not(feature = "prove"))]
mod proved {
    use super::*;

    /// Nothing can be said for all requests.
    pub(super) fn diff(_: &mut Context, _: &Catalogue, _: &Path, _: &Path) -> Result<Option<Exit>, Failure> {
        Ok(None)
    }

    pub(super) fn prove(_: &mut Context, _: &Catalogue, _: &[(String, String)], _: Option<&Path>) -> Outcome {
        Err(Failure::new("this build of castra has no prover").advise(
            "Build it with `cargo build --release --package castra --features prove`, and install cvc5.",
        ))
    }
}
