//! What `castra wrap` remembers, so that `--undo` can put everything back: whole files as they were and
//! as they became, and each entry by itself for files that were changed since.

use std::path::{Path, PathBuf};

use castra_core::AgentName;
use castra_store::files;
use serde::{Deserialize, Serialize};

use super::{
    clients::{ClientKind, Shape},
    edit,
};
use crate::out::Failure;

/// Bytes of the record or of a backup; clients' configurations are smaller.
const BYTES_MAX: u64 = 64 << 20;

/// All runs of `castra wrap` that were not undone, oldest first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) runs: Vec<Run>,
}

/// One run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) files: Vec<FileRecord>,
    pub(crate) config: Option<ConfigRecord>,
    /// Files with secrets, under the folder of secrets.
    pub(crate) secrets: Vec<String>,
    /// Tokens that were made.
    pub(crate) tokens: Vec<(AgentName, String)>,
}

/// A client's file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    pub(crate) client: ClientKind,
    pub(crate) file: PathBuf,
    pub(crate) before: String,
    pub(crate) after: String,
    pub(crate) entries: Vec<EntryRecord>,
}

/// An entry of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EntryRecord {
    pub(crate) toml: bool,
    pub(crate) path: Vec<String>,
    pub(crate) old: String,
    pub(crate) new: String,
}

/// castra.toml.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ConfigRecord {
    pub(crate) file: PathBuf,
    /// None: there was none.
    pub(crate) before: Option<String>,
    pub(crate) after: String,
    /// The text of each server's table.
    pub(crate) tables: Vec<(String, String)>,
}

impl Record {
    pub(crate) fn load(state: &Path) -> Result<Self, Failure> {
        let file = record_file(state);
        if !file.exists() {
            return Ok(Self::default());
        }
        let text = files::read_text(&file, BYTES_MAX)?;
        serde_json::from_str(&text).map_err(|e| {
            Failure::new(format!("{} cannot be read: {e}", file.display()))
                .advise("Nothing was changed. The file holds the clients' configurations as they were.")
        })
    }

    /// Saves the record; it holds secrets of the clients' files, so only its owner may read it.
    pub(crate) fn save(&self, state: &Path) -> Result<(), Failure> {
        let file = record_file(state);
        if self.runs.is_empty() {
            return Ok(files::remove(&file)?);
        }
        files::create_folder(&folder(state), 0o700)?;
        Ok(files::write_atomic(&file, &serde_json::to_vec(self)?, 0o600)?)
    }
}

fn folder(state: &Path) -> PathBuf {
    state.join("wrap")
}

fn record_file(state: &Path) -> PathBuf {
    folder(state).join("record.json")
}

/// What putting a file back comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PutBack {
    /// It is as it was, byte for byte.
    Whole(String),
    /// It was changed since, so only these entries were put back; the others (by name) were changed too and stay.
    Entries { text: String, back: Vec<String>, stay: Vec<String> },
    /// It is as it was already.
    Nothing,
}

impl FileRecord {
    /// What the file must say, from what it says now.
    pub(crate) fn put_back(&self, now: &str) -> PutBack {
        if now == self.before {
            return PutBack::Nothing;
        }
        if now == self.after {
            return PutBack::Whole(self.before.clone());
        }
        let mut text = now.to_owned();
        let (mut back, mut stay) = (Vec::new(), Vec::new());
        for entry in &self.entries {
            let name = entry.path.last().cloned().unwrap_or_default();
            let shape = if entry.toml { Shape::Toml } else { Shape::JsonWithProjects };
            match edit::put_back(&text, shape, &entry.path, &entry.new, &entry.old) {
                Some(changed) => {
                    text = changed;
                    back.push(name);
                }
                None => stay.push(name),
            }
        }
        PutBack::Entries { text, back, stay }
    }
}

impl ConfigRecord {
    /// As for a client's file; a table goes if its text still stands there as it was written.
    pub(crate) fn put_back(&self, now: &str) -> PutBack {
        if Some(now) == self.before.as_deref() {
            return PutBack::Nothing;
        }
        if now == self.after {
            return PutBack::Whole(self.before.clone().unwrap_or_default());
        }
        let mut text = now.to_owned();
        let (mut back, mut stay) = (Vec::new(), Vec::new());
        for (name, table) in &self.tables {
            match text.split_once(table.as_str()) {
                Some((head, tail)) if !tail.contains(table.as_str()) => {
                    text = format!("{head}{tail}");
                    back.push(name.clone());
                }
                _ => stay.push(name.clone()),
            }
        }
        PutBack::Entries { text, back, stay }
    }
}
