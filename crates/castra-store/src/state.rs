//! The database of the state folder: agents and their credentials, operators, data keys, the
//! catalogue, questions to people, what is spent of budgets, what was promoted of model routes, settings.
//!
//! Several processes use it at once: the gate, and commands beside it. Everything that a gate must
//! notice counts up `credentials` in `counters`, so that [`CredentialFollower`] sees it by one small
//! query. Secrets are never in it in clear: tokens as hashes, data keys wrapped.

mod agents;
mod approvals;
mod budgets;
mod catalogue;
mod follow;
mod keys;
mod models;
mod operators;
mod peers;
mod runs;
mod schema;

use std::{fs::OpenOptions, io::ErrorKind, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use castra_core::Timestamp;
use castra_protect::MasterKey;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

pub use self::{
    agents::{AgentDetail, AgentRow, CertificateRow, IssuedToken, TokenRow},
    approvals::{
        ApprovalAsk, ApprovalBounds, ApprovalFollower, ApprovalOf, ApprovalRow, ApprovalState, AskedApproval,
    },
    budgets::{BudgetAmounts, BudgetRow},
    catalogue::{SeenTool, ToolRow},
    follow::CredentialFollower,
    models::{PromotionFollower, PromotionKind, PromotionRow, Promotions, Share},
    operators::Enrolment,
    peers::{PeerCard, PeerRow, PeerThing, SeenCard},
    runs::{KeptRun, RunRow, RunWrite},
};
use crate::StoreError;

/// Another process may be writing; its transactions are short.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The state database. Calls block; they take from microseconds (reads) to the time that the disk
/// needs (writes are durable when they return).
pub struct State {
    connection: Mutex<Connection>,
    master: MasterKey,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("State")
    }
}

impl State {
    pub(crate) const FILE: &'static str = "castra.db";

    pub(crate) fn open(path: &Path, master: MasterKey) -> Result<Self, StoreError> {
        create_private(path)?;
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // WAL lets commands write while the gate reads. FULL, because a revocation that was
        // acknowledged must survive a power cut. secure_delete, because what is deleted is meant
        // to be gone.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "secure_delete", true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        schema::migrate(&mut connection)?;
        Ok(Self { connection: Mutex::new(connection), master })
    }

    /// A setting by its key.
    pub fn setting(&self, key: &str) -> Result<Option<String>, StoreError> {
        let connection = self.connection.lock();
        let mut statement = connection.prepare_cached("SELECT value FROM settings WHERE key = ?1")?;
        Ok(statement.query_row([key], |row| row.get(0)).optional()?)
    }

    /// Sets a setting.
    pub fn set_setting(&self, key: &str, value: &str) -> Result<(), StoreError> {
        let sql =
            "INSERT INTO settings (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";
        self.connection.lock().execute(sql, params![key, value])?;
        Ok(())
    }

    /// Reads with one view of everything.
    fn read<T>(&self, f: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut connection = self.connection.lock();
        f(&connection.transaction()?)
    }

    /// Writes all or nothing. The lock is taken at once, because a transaction that reads first and
    /// then wants to write could find that somebody else wrote between.
    fn write<T>(&self, f: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut connection = self.connection.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = f(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }
}

/// SQLite would make the file with the process's umask, and gives its side files the same mode.
fn create_private(path: &Path) -> Result<(), StoreError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(StoreError::io("made", path)(e)),
        _ => Ok(()),
    }
}

/// Tells running gates that credentials changed.
fn count_change(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    transaction.execute("UPDATE counters SET value = value + 1 WHERE name = 'credentials'", [])?;
    Ok(())
}

fn corrupt(what: &'static str, reason: impl ToString) -> StoreError {
    StoreError::Corrupt { what, reason: reason.to_string() }
}

fn micros(time: Option<Timestamp>) -> Option<i64> {
    time.map(|t| t.0)
}

#[cfg(test)]
mod tests;
