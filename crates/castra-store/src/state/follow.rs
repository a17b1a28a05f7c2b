//! What a running gate knows of credentials, and how it learns that they changed.

use std::sync::Arc;

use castra_core::{Digest, Timestamp};
use castra_identity::{
    AgentEntry, AgentState, CertificateEntry, CredentialTable, TokenEntry, TokenHash, TokenOwner,
};
use rusqlite::Transaction;

use super::{
    State,
    agents::{parse_groups, parse_name},
    corrupt,
};
use crate::StoreError;

impl State {
    /// Counts up with every change of credentials, by whichever process.
    pub fn credential_version(&self) -> Result<u64, StoreError> {
        self.read(version)
    }

    /// Everything that authenticates, as of now.
    pub fn credential_table(&self) -> Result<CredentialTable, StoreError> {
        self.read(|transaction| {
            Ok(CredentialTable::build(
                version(transaction)?,
                agents(transaction)?,
                tokens(transaction)?,
                certificates(transaction)?,
            ))
        })
    }
}

/// Looks for changes that this or another process made.
#[derive(Debug)]
pub struct CredentialFollower {
    state: Arc<State>,
    seen: u64,
}

impl CredentialFollower {
    /// Follows from the table that the gate has now; `seen` is its version.
    pub fn new(state: Arc<State>, seen: u64) -> Self {
        Self { state, seen }
    }

    /// The new table, when something changed since the last time. Costs some microseconds when
    /// nothing did; meant to be asked a few times a second.
    pub fn poll(&mut self) -> Result<Option<CredentialTable>, StoreError> {
        if self.state.credential_version()? == self.seen {
            return Ok(None);
        }
        let table = self.state.credential_table()?;
        self.seen = table.version();
        Ok(Some(table))
    }
}

fn version(transaction: &Transaction<'_>) -> Result<u64, StoreError> {
    let mut statement =
        transaction.prepare_cached("SELECT value FROM counters WHERE name = 'credentials'")?;
    let value: i64 = statement.query_row([], |row| row.get(0))?;
    u64::try_from(value).map_err(|e| corrupt("a counter", e))
}

fn agents(transaction: &Transaction<'_>) -> Result<Vec<AgentEntry>, StoreError> {
    let mut statement = transaction.prepare_cached("SELECT name, groups, revoked IS NOT NULL FROM agents")?;
    let mut rows = statement.query([])?;
    let mut agents = Vec::new();
    while let Some(row) = rows.next()? {
        let state = if row.get(2)? { AgentState::Revoked } else { AgentState::Active };
        let (name, groups) =
            (parse_name(&row.get::<_, String>(0)?)?, parse_groups(&row.get::<_, String>(1)?)?);
        agents.push(AgentEntry { name, groups, state });
    }
    Ok(agents)
}

fn tokens(transaction: &Transaction<'_>) -> Result<Vec<TokenEntry>, StoreError> {
    let sql = "SELECT hash, agent, person, expires, revoked IS NOT NULL FROM tokens";
    let mut statement = transaction.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut tokens = Vec::new();
    while let Some(row) = rows.next()? {
        let owner = match (row.get::<_, Option<String>>(1)?, row.get::<_, Option<String>>(2)?) {
            (Some(agent), None) => TokenOwner::Agent(parse_name(&agent)?),
            (None, Some(person)) => TokenOwner::Operator(person.into()),
            _ => return Err(corrupt("a token", "it has not exactly one owner")),
        };
        let expires = row.get::<_, Option<i64>>(3)?.map(Timestamp);
        tokens.push(TokenEntry { hash: TokenHash(row.get(0)?), owner, expires, revoked: row.get(4)? });
    }
    Ok(tokens)
}

fn certificates(transaction: &Transaction<'_>) -> Result<Vec<CertificateEntry>, StoreError> {
    let sql = "SELECT fingerprint, agent, expires, revoked IS NOT NULL FROM certificates";
    let mut statement = transaction.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut certificates = Vec::new();
    while let Some(row) = rows.next()? {
        certificates.push(CertificateEntry {
            fingerprint: Digest(row.get(0)?),
            agent: parse_name(&row.get::<_, String>(1)?)?,
            expires: Timestamp(row.get(2)?),
            revoked: row.get(3)?,
        });
    }
    Ok(certificates)
}
