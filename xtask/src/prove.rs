//! What flow control promises, proved: the tests of castra's feature `prove`, with the solver cvc5.
//!
//! They are a part of their own because the feature builds Cedar once more.

use std::process::Command;

use crate::{run, tally::Tally, tests};

/// Runs the proofs; installs the solver if it is missing and this may.
pub(crate) fn run() -> Tally {
    let solver = std::env::var_os("CVC5").unwrap_or_else(|| "cvc5".into());
    if !run::exists(&solver) {
        println!("installing the solver cvc5 by apt-get");
        let installed = run::must(Command::new("apt-get").args(["install", "--yes", "--quiet", "cvc5"]));
        if installed.is_err() || !run::exists(&solver) {
            return Tally::skipped("proofs", "cvc5 is not installed; on Debian: apt-get install cvc5");
        }
    }
    let lints =
        ["clippy", "--package", "castra", "--features", "prove", "--all-targets", "--", "-D", "warnings"];
    let mut tally = tests::command("lints of the prover", &lints);
    tally.add(tests::counted(
        "proofs",
        &["test", "--package", "castra", "--features", "prove", "--test", "prove"],
    ));
    tally
}
