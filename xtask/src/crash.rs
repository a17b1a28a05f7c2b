//! kill -9 at random points under load: no acknowledged record is lost, and the log verifies.
//!
//! The rounds are a test of the program (`crates/castra/tests/crash.rs`), which reads their number
//! from `CASTRA_CRASH_ROUNDS`; this chore runs many of them, CI few.

use crate::{
    run,
    tally::{self, Tally},
};

/// Rounds of the chore; CI's own test run does 20.
pub(crate) const ROUNDS: u32 = 200;

/// Runs the crash test with this many rounds.
pub(crate) fn run(rounds: u32) -> Tally {
    let mut command = run::cargo(&["test", "--package", "castra", "--test", "crash", "--", "--nocapture"]);
    command.env("CASTRA_CRASH_ROUNDS", rounds.to_string());
    match run::echoed(&mut command) {
        Ok(out) => tally::from_test_output(&out.text)
            .filter(|t| t.passed > 0 || !t.failures.is_empty())
            .unwrap_or_else(|| Tally::failed("crash: the test did not run")),
        Err(why) => Tally::failed(format!("crash: {why}")),
    }
}
