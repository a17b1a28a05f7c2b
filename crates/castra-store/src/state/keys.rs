//! Data keys: one per subject, made on first use, kept wrapped.

use castra_core::Timestamp;
use castra_protect::DataKey;
use rusqlite::{OptionalExtension, Transaction, params};

use super::{State, corrupt};
use crate::{StoreError, clock};

const SUBJECT_CHARS_MAX: usize = 200;

impl State {
    /// The data key of a subject, such as `agent:NAME`, with its id.
    pub fn data_key(&self, subject: &str, now: Timestamp) -> Result<(u64, DataKey), StoreError> {
        if subject.is_empty()
            || subject.len() > SUBJECT_CHARS_MAX
            || !subject.bytes().all(|b| b.is_ascii_graphic())
        {
            let subject = subject.chars().take(SUBJECT_CHARS_MAX).collect();
            return Err(StoreError::BadSubject { subject, max: SUBJECT_CHARS_MAX });
        }
        if let Some((id, wrapped)) = self.read(|transaction| find(transaction, subject))? {
            return Ok((id, self.unwrap(subject, &wrapped)?));
        }
        let key = DataKey::new(clock::random()?);
        let wrapped = key.wrap(&self.master, &context(subject), clock::random()?)?;
        self.write(|transaction| {
            // Another process may have been quicker.
            if let Some((id, wrapped)) = find(transaction, subject)? {
                return Ok((id, self.unwrap(subject, &wrapped)?));
            }
            let sql = "INSERT INTO data_keys (subject, wrapped, created) VALUES (?1, ?2, ?3)";
            transaction.execute(sql, params![subject, wrapped, now.0])?;
            let id = u64::try_from(transaction.last_insert_rowid()).map_err(|e| corrupt("a key id", e))?;
            Ok((id, key))
        })
    }

    /// The data key with an id, as sealed payloads name it.
    pub fn data_key_by_id(&self, id: u64) -> Result<DataKey, StoreError> {
        let row_id = i64::try_from(id).map_err(|_| StoreError::NoDataKey { id })?;
        let found: Option<(String, Vec<u8>)> = self.read(|transaction| {
            let mut statement =
                transaction.prepare_cached("SELECT subject, wrapped FROM data_keys WHERE id = ?1")?;
            Ok(statement.query_row([row_id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
        })?;
        let (subject, wrapped) = found.ok_or(StoreError::NoDataKey { id })?;
        self.unwrap(&subject, &wrapped)
    }

    fn unwrap(&self, subject: &str, wrapped: &[u8]) -> Result<DataKey, StoreError> {
        Ok(DataKey::unwrap(&self.master, &context(subject), wrapped)?)
    }
}

/// Binds a wrapped key to its subject: rows that were swapped in the database do not open.
fn context(subject: &str) -> String {
    format!("data-key:{subject}")
}

fn find(transaction: &Transaction<'_>, subject: &str) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
    let mut statement = transaction.prepare_cached("SELECT id, wrapped FROM data_keys WHERE subject = ?1")?;
    let found: Option<(i64, Vec<u8>)> =
        statement.query_row([subject], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    found
        .map(|(id, wrapped)| Ok((u64::try_from(id).map_err(|e| corrupt("a key id", e))?, wrapped)))
        .transpose()
}
