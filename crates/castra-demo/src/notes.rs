//! A small MCP tool server over a folder of notes, as someone might really run one.
//!
//! Four tools with honest annotations: two only read, two change or destroy. It knows nothing of
//! Castra; the gate is what stands in front of it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rmcp::{
    ErrorData, ServerHandler, ServiceExt,
    handler::server::wrapper::Parameters,
    model::{CallToolResult, ContentBlock, ServerCapabilities, ServerConfig},
    tool, tool_handler, tool_router,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::DemoError;

/// Longest note that is written, in bytes.
const NOTE_BYTES_MAX: usize = 64 << 10;

/// Serves the notes of `folder` on standard input and output until the input ends.
pub async fn serve(folder: &Path) -> Result<(), DemoError> {
    let failed = |reason: String| DemoError::Notes { reason };
    let notes = Notes { folder: folder.into() };
    let service = notes.serve(rmcp::transport::stdio()).await.map_err(|e| failed(e.to_string()))?;
    service.waiting().await.map_err(|e| failed(e.to_string()))?;
    Ok(())
}

#[derive(Debug, Clone)]
struct Notes {
    folder: Arc<Path>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Name {
    /// File name of a note, such as `plans.txt`.
    name: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct NewNote {
    /// File name of the note, such as `plans.txt`.
    name: String,
    /// The whole text of the note.
    text: String,
}

#[tool_router]
impl Notes {
    /// Lists the notes by name.
    #[tool(annotations(read_only_hint = true, open_world_hint = false))]
    async fn list_notes(&self) -> Result<CallToolResult, ErrorData> {
        Ok(answer(self.names().map(|names| names.join("\n"))))
    }

    /// Reads one note.
    #[tool(annotations(read_only_hint = true, open_world_hint = false))]
    async fn read_note(
        &self,
        Parameters(Name { name }): Parameters<Name>,
    ) -> Result<CallToolResult, ErrorData> {
        let read = |path: PathBuf| std::fs::read_to_string(&path).map_err(|e| e.to_string());
        Ok(answer(self.path(&name).and_then(read)))
    }

    /// Writes a note, replacing what it said before.
    #[tool(annotations(
        read_only_hint = false,
        destructive_hint = false,
        idempotent_hint = true,
        open_world_hint = false
    ))]
    async fn write_note(
        &self,
        Parameters(NewNote { name, text }): Parameters<NewNote>,
    ) -> Result<CallToolResult, ErrorData> {
        let write = |path: PathBuf| {
            if text.len() > NOTE_BYTES_MAX {
                return Err(format!("a note has at most {NOTE_BYTES_MAX} bytes"));
            }
            std::fs::write(&path, &text).map_err(|e| e.to_string())
        };
        Ok(answer(self.path(&name).and_then(write).map(|()| format!("{name} is written"))))
    }

    /// Deletes a note for good.
    #[tool(annotations(read_only_hint = false, destructive_hint = true, open_world_hint = false))]
    async fn delete_note(
        &self,
        Parameters(Name { name }): Parameters<Name>,
    ) -> Result<CallToolResult, ErrorData> {
        let delete = |path: PathBuf| std::fs::remove_file(&path).map_err(|e| e.to_string());
        Ok(answer(self.path(&name).and_then(delete).map(|()| format!("{name} is gone"))))
    }
}

#[tool_handler]
impl ServerHandler for Notes {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}

impl Notes {
    fn names(&self) -> Result<Vec<String>, String> {
        let entries = std::fs::read_dir(&self.folder).map_err(|e| e.to_string())?;
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// A note's path. Only plain file names: a name cannot lead out of the folder.
    fn path(&self, name: &str) -> Result<PathBuf, String> {
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if plain && !name.is_empty() && !name.starts_with('.') {
            Ok(self.folder.join(name))
        } else {
            Err(format!("{name:?} cannot name a note: letters, digits, '-', '_' and '.' are allowed"))
        }
    }
}

fn answer(outcome: Result<String, String>) -> CallToolResult {
    match outcome {
        Ok(text) => CallToolResult::success(vec![ContentBlock::text(text)]),
        Err(why) => CallToolResult::error(vec![ContentBlock::text(why)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_out_of_the_folder() {
        let notes = Notes { folder: Path::new("/notes").into() };
        assert_eq!(notes.path("plans.txt"), Ok("/notes/plans.txt".into()));
        for bad in ["", "../plans.txt", "/etc/passwd", "..", ".hidden", "a/b", "a\0b"] {
            assert!(notes.path(bad).is_err(), "{bad:?}");
        }
    }
}
