//! What all chores share: where the workspace is, and how a chore ends.

use std::path::{Path, PathBuf};

use crate::tally::Tally;

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where builds go: `CARGO_TARGET_DIR`, or `target` in the workspace.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Prints what failed and what was skipped, then the counts as the last line; Err if anything failed.
pub(crate) fn report(tally: Tally) -> Result<(), String> {
    for what in &tally.skipped {
        println!("skipped: {what}");
    }
    for what in &tally.failures {
        println!("failed: {what}");
    }
    println!("{tally}");
    // A run that checked nothing proves nothing.
    if tally.failures.is_empty() && tally.passed + tally.skipped.len() as u64 > 0 {
        Ok(())
    } else {
        Err(String::new())
    }
}

/// Reads a text file of the workspace; the error names it.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))
}
