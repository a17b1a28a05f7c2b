//! `cargo xtask test`: everything that CI runs, cheapest first, and one closing line over all of it.

use std::time::Instant;

use crate::{
    conformance, docs, fuzz, interop, layout, models, peers, prove, run,
    tally::{self, Tally},
};

/// A part of the run: its name and what it does.
type Part = (&'static str, fn() -> Tally);

const PARTS: &[Part] = &[
    ("format", format),
    ("layout", layout::run),
    ("lints", lints),
    ("tests", tests),
    ("documentation tests", doc_tests),
    ("commands shown in the documentation", docs::run),
    ("fuzz targets", || fuzz::run(fuzz::EXECUTIONS)),
    ("conformance suite", || conformance::run(None)),
    ("other people's agents", peers::run),
    ("other people's servers and clients", || interop::run(interop::Extent::Full)),
    ("other people's clients of model APIs", models::run),
    ("proofs", prove::run),
    ("dependencies", dependencies),
];

/// Runs every part, whatever the others came to.
pub(crate) fn run() -> Tally {
    let mut total = Tally::default();
    for (name, part) in PARTS {
        println!("== {name}");
        let start = Instant::now();
        let tally = part();
        println!("== {name}: {tally} in {} s", start.elapsed().as_secs());
        total.add(tally);
    }
    total
}

fn format() -> Tally {
    command("format: run `cargo fmt --all`", &["fmt", "--all", "--check"])
}

fn lints() -> Tally {
    command("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

fn dependencies() -> Tally {
    if !run::exists("cargo-deny") {
        return Tally::skipped("dependencies", "cargo-deny is not installed; cargo install cargo-deny");
    }
    // Not the advisories: they come from the network, and a new one must not break an old commit.
    command("dependencies: see deny.toml", &["deny", "check", "bans", "licenses", "sources"])
}

pub(crate) fn command(what: &str, args: &[&str]) -> Tally {
    Tally::check(match run::echoed(&mut run::cargo(args)) {
        Ok(out) if out.success => None,
        Ok(_) => Some(what.to_owned()),
        Err(why) => Some(format!("{what}: {why}")),
    })
}

fn tests() -> Tally {
    let nextest: &[&str] =
        &["nextest", "run", "--workspace", "--no-fail-fast", "--status-level", "fail", "--no-tests", "fail"];
    let libtest: &[&str] = &["test", "--workspace", "--all-targets", "--no-fail-fast"];
    counted("tests", if run::exists("cargo-nextest") { nextest } else { libtest })
}

fn doc_tests() -> Tally {
    counted("documentation tests", &["test", "--workspace", "--doc", "--no-fail-fast"])
}

pub(crate) fn counted(what: &str, args: &[&str]) -> Tally {
    let out = match run::echoed(&mut run::cargo(args)) {
        Ok(out) => out,
        Err(why) => return Tally::failed(format!("{what}: {why}")),
    };
    match tally::from_test_output(&out.text) {
        Some(tally) if out.success || !tally.failures.is_empty() => tally,
        _ => Tally::failed(format!("{what}: the run ended with an error before it could count")),
    }
}
