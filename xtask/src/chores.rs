//! What all chores share: where the workspace is, and how a chore ends.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

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

/// A folder of the target folder for one chore, and the lock on it: two runs at once would empty each
/// other's folders, so the second waits.
pub(crate) struct Alone {
    /// The folder.
    pub(crate) folder: PathBuf,
    _lock: File,
}

/// Takes the chore's folder, made if missing.
pub(crate) fn alone(chore: &str) -> Result<Alone, String> {
    let folder = target().join(chore);
    std::fs::create_dir_all(&folder).map_err(|e| format!("{} cannot be made: {e}", folder.display()))?;
    let path = folder.join("lock");
    let lock = File::create(&path).map_err(|e| format!("{} cannot be written: {e}", path.display()))?;
    if lock.try_lock().is_err() {
        println!("waiting for another run of this chore ({})", path.display());
        lock.lock().map_err(|e| format!("{} cannot be locked: {e}", path.display()))?;
    }
    Ok(Alone { folder, _lock: lock })
}
