//! `cargo xtask perf`: the gate beside the floors, in a rig that lives outside this repository.

use std::process::Command;

use crate::chores;

/// Hands over to `eval/perf/run.sh`, which says what it needs.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let script = chores::root().join("eval/perf/run.sh");
    let status = Command::new("bash").arg(&script).args(args).current_dir(chores::root()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("eval/perf/run.sh did not finish".into()),
        Err(e) => Err(format!("{} did not start: {e}", script.display())),
    }
}
