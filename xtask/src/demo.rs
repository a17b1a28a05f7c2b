//! `cargo xtask demo`: builds castra and runs `castra demo` on a fresh state folder.

use std::{path::PathBuf, process::Command};

use crate::{castra, chores, run};

/// Builds, then hands the terminal to the demo.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    // The dev profile: from nothing it builds in about half the time of a release, and what the demo
    // shows does not depend on speed.
    println!("building castra (the first time this takes a few minutes) …");
    let program = castra::built()?;
    let mut demo = Command::new(program);
    demo.arg("demo");
    if args.first() == Some(&"--") {
        demo.args(args.get(1..).unwrap_or_default());
    } else {
        demo.args(args);
    }
    if !args.contains(&"--state") {
        demo.arg("--state").arg(fresh());
    }
    let status = demo.status().map_err(|e| format!("{} did not start: {e}", run::shown(&demo)))?;
    if status.success() { Ok(()) } else { Err("the demo did not show what it should".into()) }
}

/// A folder that does not exist yet.
fn fresh() -> PathBuf {
    let base = chores::target().join("demo");
    (1_u32..).map(|n| base.join(n.to_string())).find(|p| !p.exists()).unwrap_or(base)
}
