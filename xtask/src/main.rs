//! Chores of the workspace: `cargo xtask CHORE`.
//!
//! One file per chore. A chore installs what it needs below `target/tools`, says so, and asks
//! nothing; what this machine cannot do is named as skipped, with the reason, never passed over.
// Chores are run by people: they print, start processes and read files.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)]

mod beside;
mod castra;
mod chores;
mod conformance;
mod crash;
mod demo;
mod docs;
mod dojo;
mod fuzz;
mod generated;
mod interop;
mod layout;
mod models;
mod peers;
mod perf;
mod prove;
mod run;
mod tally;
mod tests;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask CHORE

  test                 everything that CI runs; ends with 'N passed, N failed, N skipped'
  demo [-- ARGS]       builds castra and runs `castra demo`
  layout               which crate may know which, against the manifests and ARCHITECTURE.md
  gen [--check]        writes the generated files; with --check, only compares
  docs                 runs the commands that README.md and docs/ show
  fuzz [EXECUTIONS]    every fuzz target, a fixed number of executions (default 50000)
  crash [--rounds N]   kill -9 under load, N rounds (default 200)
  conformance [PART]   the official MCP conformance suite, directly and through the gate;
                       PART is native, bridged or authorization
  interop [--quick]    other people's servers and clients through the gate
  models               other people's clients of model APIs through the gate
  peers                other people's agents and clients of A2A through the gate
  prove                what flow control promises, with the solver cvc5
  dojo [SUITE] [--quick]
                       AgentDojo with an agent that obeys every injection, through the gate
  perf [ARGS]          eval/perf/run.sh: the gate beside the floors";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["test"] => chores::report(tests::run()),
        ["demo", rest @ ..] => demo::run(rest),
        ["layout"] => chores::report(layout::run()),
        ["gen"] => chores::report(generated::run(generated::Mode::Write)),
        ["gen", "--check"] => chores::report(generated::run(generated::Mode::Check)),
        ["docs"] => chores::report(docs::run()),
        ["fuzz"] => chores::report(fuzz::run(fuzz::EXECUTIONS)),
        ["fuzz", n] => number(n).and_then(|n| chores::report(fuzz::run(n))),
        ["crash"] => chores::report(crash::run(crash::ROUNDS)),
        ["crash", "--rounds", n] => number(n).and_then(|n| chores::report(crash::run(n))),
        ["conformance"] => chores::report(conformance::run(None)),
        ["conformance", part @ ("native" | "bridged" | "authorization")] => {
            chores::report(conformance::run(Some(part)))
        }
        ["interop"] => chores::report(interop::run(interop::Extent::Full)),
        ["interop", "--quick"] => chores::report(interop::run(interop::Extent::Quick)),
        ["peers"] => chores::report(peers::run()),
        ["models"] => chores::report(models::run()),
        ["prove"] => chores::report(prove::run()),
        ["dojo", rest @ ..] => chores::report(dojo::run(rest)),
        ["perf", rest @ ..] => perf::run(rest),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number\n{USAGE}"))
}
