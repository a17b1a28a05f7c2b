//! Tool manifest files. What may stand in them and what it means is `castra-flow`'s.

use std::path::Path;

pub use castra_flow::{Manifest, ToolManifest};

use crate::config::{ConfigError, Problem, read_strictly};

/// Reads a manifest; problems name their line, and unknown keys the one that was probably meant.
pub fn parse(text: &str) -> Result<Manifest, Vec<Problem>> {
    read_strictly(text).map(|(manifest, _)| manifest)
}

/// Reads a manifest file.
pub fn load(file: &Path) -> Result<Manifest, ConfigError> {
    let text = crate::config::read_file(file)?;
    parse(&text).map_err(|problems| ConfigError::Wrong { file: file.into(), problems })
}
