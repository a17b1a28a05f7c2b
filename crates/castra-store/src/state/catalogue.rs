//! What servers were seen to offer, so that a server that is down is still known and a definition
//! that changed is noticed.

use aws_lc_rs::digest::{SHA256, digest};
use castra_core::{Digest, Effect, ServerName, Timestamp};
use rusqlite::{Row, params};
use serde::Serialize;

use super::{State, corrupt};
use crate::StoreError;

/// A tool as a server listed it just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenTool {
    /// The server's name for it.
    pub name: String,
    /// Its definition, JSON as the server sent it.
    pub definition: String,
    /// What it does to the world, as far as is known.
    pub effect: Effect,
    /// Whether it reaches outside.
    pub external: bool,
}

/// A tool of the stored catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToolRow {
    /// `server/name`, as policies write it.
    pub id: String,
    /// The server.
    pub server: ServerName,
    /// The server's name for it.
    pub name: String,
    /// Its definition, JSON as the server sent it.
    #[serde(skip)]
    pub definition: String,
    /// SHA-256 of the definition.
    pub digest: Digest,
    /// What it does to the world.
    pub effect: Effect,
    /// Whether it reaches outside.
    pub external: bool,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// When its definition last differed from before.
    pub changed: Timestamp,
}

impl State {
    /// Remembers tools that a server listed. Those that it no longer lists stay, with the time when
    /// they were last seen.
    pub fn record_tools(
        &self,
        server: &ServerName,
        tools: &[SeenTool],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut statement = transaction.prepare_cached(
                "INSERT INTO tools (server, name, definition, digest, effect, external, first_seen, last_seen, changed)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?7)
                 ON CONFLICT (server, name) DO UPDATE SET
                     changed = CASE WHEN digest = ?4 THEN changed ELSE ?7 END,
                     definition = ?3, digest = ?4, effect = ?5, external = ?6, last_seen = ?7",
            )?;
            for tool in tools {
                let digest = digest(&SHA256, tool.definition.as_bytes());
                statement.execute(params![
                    server.as_str(),
                    tool.name,
                    tool.definition,
                    digest.as_ref(),
                    tool.effect.as_str(),
                    tool.external,
                    now.0
                ])?;
            }
            Ok(())
        })
    }

    /// Every tool that was ever seen, by server and name.
    pub fn catalogue(&self) -> Result<Vec<ToolRow>, StoreError> {
        self.read(|transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT server, name, definition, digest, effect, external, first_seen, last_seen, changed
                 FROM tools ORDER BY server, name",
            )?;
            let mut rows = statement.query([])?;
            let mut tools = Vec::new();
            while let Some(row) = rows.next()? {
                tools.push(tool_row(row)?);
            }
            Ok(tools)
        })
    }
}

fn tool_row(row: &Row<'_>) -> Result<ToolRow, StoreError> {
    let (server, name): (String, String) = (row.get(0)?, row.get(1)?);
    Ok(ToolRow {
        id: format!("{server}/{name}"),
        server: ServerName::new(&server).map_err(|e| corrupt("a server's name", e))?,
        name,
        definition: row.get(2)?,
        digest: Digest(row.get(3)?),
        effect: parse_effect(&row.get::<_, String>(4)?)?,
        external: row.get(5)?,
        first_seen: Timestamp(row.get(6)?),
        last_seen: Timestamp(row.get(7)?),
        changed: Timestamp(row.get(8)?),
    })
}

fn parse_effect(word: &str) -> Result<Effect, StoreError> {
    [Effect::Read, Effect::Write, Effect::Destroy, Effect::Act]
        .into_iter()
        .find(|effect| effect.as_str() == word)
        .ok_or_else(|| corrupt("a tool's effect", word))
}
