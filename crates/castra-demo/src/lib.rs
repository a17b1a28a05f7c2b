//! `castra demo`: a tool server and an agent, both on the official MCP SDK, and the gate between them.
//!
//! The demo plays the user. It drives the `castra` program through its command line, as a shell
//! would, and knows none of its parts; so what it shows is what a user gets. A step that does not
//! show what it must show ends the demo with an error.
// The demo plays the user: it writes the user's files and starts the programs that a user starts.
#![allow(clippy::disallowed_methods)]

mod agent;
mod notes;
mod program;
mod screen;
mod story;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use notes::serve as serve_notes;

/// What `castra demo` was asked for.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// The castra program, run as a user would run it (`std::env::current_exe()`).
    pub castra: PathBuf,
    /// Where the demo leaves its state: a folder that does not exist or is empty. None: `castra-demo`
    /// in the working folder, or `castra-demo-2` and so on where that is taken.
    pub state: Option<PathBuf>,
    /// Whether to colour what is shown: the caller knows whether it writes to a terminal.
    pub colour: bool,
}

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum DemoError {
    #[error("{} is not empty; name another folder with --state, or remove it", .folder.display())]
    Taken { folder: PathBuf },
    #[error("{} could not be written or read: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("what the demo shows could not be written: {0}")]
    Screen(#[source] io::Error),
    #[error("`{command}` did not start: {source}")]
    Start { command: String, source: io::Error },
    #[error("`{command}` failed: {words}")]
    Command { command: String, words: String },
    #[error("`{command}` printed something unexpected: {words}")]
    Words { command: String, words: String },
    #[error("the agent could not connect to the gate: {reason}")]
    Connect { reason: String },
    #[error("{what} should have been {expected}, but: {found}")]
    Unexpected { what: String, expected: &'static str, found: String },
    #[error("the notes server failed: {reason}")]
    Notes { reason: String },
}

impl DemoError {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File { path, source }
    }
}

/// Runs the demo; every line goes to `out`.
pub async fn run(options: DemoOptions, out: &mut (dyn io::Write + Send)) -> Result<(), DemoError> {
    let folder = fresh_folder(options.state)?;
    let screen = screen::Screen::new(out, options.colour);
    story::tell(&options.castra, &folder, screen).await
}

fn fresh_folder(wanted: Option<PathBuf>) -> Result<PathBuf, DemoError> {
    let folder = match wanted {
        Some(folder) if is_free(&folder) => folder,
        Some(folder) => return Err(DemoError::Taken { folder }),
        None => (1_u32..)
            .map(|n| if n == 1 { "castra-demo".into() } else { format!("castra-demo-{n}") })
            .map(PathBuf::from)
            .find(|folder| is_free(folder))
            .unwrap_or_default(),
    };
    std::fs::create_dir_all(&folder).map_err(DemoError::file(&folder))?;
    folder.canonicalize().map_err(DemoError::file(&folder))
}

fn is_free(folder: &Path) -> bool {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) => e.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_in_it_is_not_touched() {
        let base = tempfile::tempdir().expect("a folder");
        let fresh = base.path().join("fresh");
        assert_eq!(fresh_folder(Some(fresh.clone())).expect("free"), fresh.canonicalize().expect("made"));
        assert!(fresh_folder(Some(fresh.clone())).is_ok(), "empty is free");
        std::fs::write(fresh.join("mine"), "x").expect("written");
        assert!(matches!(fresh_folder(Some(fresh)), Err(DemoError::Taken { .. })));
    }
}
