//! Files that come from the code: written by `castra` itself, checked in so that a diff is reviewed.

use std::process::Command;

use crate::{castra, chores, run, tally::Tally};

/// What to do with a generated file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Write it.
    Write,
    /// Compare it with what would be written.
    Check,
}

/// Each file and the arguments that make `castra` print it.
const FILES: &[(&str, &[&str])] = &[
    ("docs/reference/configuration.md", &["schema", "reference"]),
    ("docs/reference/config.schema.json", &["schema", "config"]),
    ("docs/reference/manifest.schema.json", &["schema", "manifest"]),
    ("docs/reference/command-line.md", &["schema", "cli"]),
];

/// Writes or compares every generated file.
pub(crate) fn run(mode: Mode) -> Tally {
    let castra = match castra::built() {
        Ok(castra) => castra,
        Err(why) => return Tally::failed(format!("generated files: {why}")),
    };
    let mut tally = Tally::default();
    for (file, args) in FILES {
        let outcome = run::must(Command::new(&castra).args(*args)).and_then(|text| settle(mode, file, &text));
        tally.add(Tally::check(outcome.err().map(|why| format!("generated files: {why}"))));
    }
    tally
}

fn settle(mode: Mode, file: &str, text: &str) -> Result<(), String> {
    let path = chores::root().join(file);
    match mode {
        Mode::Write => std::fs::write(&path, text).map_err(|e| format!("{file} cannot be written: {e}")),
        Mode::Check if chores::read(&path)? == text => Ok(()),
        Mode::Check => {
            Err(format!("{file} is not what the code says; run `cargo xtask gen` and review the change"))
        }
    }
}
