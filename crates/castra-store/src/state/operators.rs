//! People who operate the gate, and how the first of them comes in: a secret that is shown once and
//! redeemed once for an operator token.

use std::{fmt, time::Duration};

use castra_core::Timestamp;
use castra_identity::{Token, TokenHash, TokenKind};
use rusqlite::{OptionalExtension, Transaction, params};

use super::{IssuedToken, State, agents::after, count_change};
use crate::{StoreError, clock};

/// An enrolment secret is good for this long.
const ENROLMENT_LIFE: Duration = Duration::from_secs(24 * 3600);
/// An operator token is good for this long.
const OPERATOR_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
const PERSON_CHARS_MAX: usize = 128;

/// What an enrolment secret is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enrolment {
    /// It can be redeemed.
    Open,
    /// It was redeemed before.
    Used,
    /// Its time is over.
    Expired,
    /// Nobody made it here, or a newer one replaced it.
    Unknown,
}

impl fmt::Display for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "can be redeemed",
            Self::Used => "was redeemed before",
            Self::Expired => "has expired",
            Self::Unknown => "is not known here",
        })
    }
}

impl State {
    /// Whether anybody can operate the gate now.
    pub fn has_operator(&self, now: Timestamp) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM tokens WHERE person IS NOT NULL AND revoked IS NULL
                   AND (expires IS NULL OR expires > ?1))";
        Ok(self.connection.lock().query_row(sql, [now.0], |row| row.get(0))?)
    }

    /// Makes a secret that lets `person` (any stable id, such as an address) in, once, within 24
    /// hours. It replaces an earlier one of the same person that was not redeemed.
    pub fn create_enrolment(&self, person: &str, now: Timestamp) -> Result<IssuedToken, StoreError> {
        let printable = person.chars().all(|c| !c.is_control());
        if person.is_empty() || person.chars().count() > PERSON_CHARS_MAX || !printable {
            let subject = person.chars().take(PERSON_CHARS_MAX).collect();
            return Err(StoreError::BadSubject { subject, max: PERSON_CHARS_MAX });
        }
        let token = Token::new(TokenKind::Enrolment, clock::random()?);
        let (hash, expires) = (token.hash(), after(now, ENROLMENT_LIFE));
        self.write(|transaction| {
            let sql = "INSERT INTO people (id, created) VALUES (?1, ?2) ON CONFLICT (id) DO NOTHING";
            transaction.execute(sql, params![person, now.0])?;
            transaction.execute("DELETE FROM enrolments WHERE person = ?1 AND redeemed IS NULL", [person])?;
            transaction.execute(
                "INSERT INTO enrolments (hash, person, created, expires) VALUES (?1, ?2, ?3, ?4)",
                params![hash.0, person, now.0, expires.0],
            )?;
            Ok(IssuedToken { owner: person.to_owned(), token, id: hash.id(), expires: Some(expires) })
        })
    }

    /// What a secret is worth, without redeeming it.
    pub fn enrolment(&self, text: &str, now: Timestamp) -> Result<Enrolment, StoreError> {
        self.read(|transaction| Ok(find(transaction, &TokenHash::of(text), now)?.0))
    }

    /// Redeems a secret for an operator token of its person.
    pub fn redeem_enrolment(&self, text: &str, now: Timestamp) -> Result<IssuedToken, StoreError> {
        let (secret, token) = (TokenHash::of(text), Token::new(TokenKind::Operator, clock::random()?));
        let (hash, expires) = (token.hash(), after(now, OPERATOR_LIFE));
        self.write(|transaction| {
            let person = match find(transaction, &secret, now)? {
                (Enrolment::Open, Some(person)) => person,
                (state, _) => return Err(StoreError::Enrolment { state }),
            };
            transaction
                .execute("UPDATE enrolments SET redeemed = ?2 WHERE hash = ?1", params![secret.0, now.0])?;
            transaction.execute(
                "INSERT INTO tokens (hash, id, person, created, expires) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![hash.0, hash.id(), person, now.0, expires.0],
            )?;
            count_change(transaction)?;
            Ok(IssuedToken { owner: person, token, id: hash.id(), expires: Some(expires) })
        })
    }
}

fn find(
    transaction: &Transaction<'_>,
    secret: &TokenHash,
    now: Timestamp,
) -> Result<(Enrolment, Option<String>), StoreError> {
    let sql = "SELECT person, expires, redeemed FROM enrolments WHERE hash = ?1";
    let columns =
        |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get::<_, Option<i64>>(2)?));
    Ok(match transaction.query_row(sql, [secret.0], columns).optional()? {
        None => (Enrolment::Unknown, None),
        Some((_, _, Some(_))) => (Enrolment::Used, None),
        Some((_, expires, None)) if expires <= now.0 => (Enrolment::Expired, None),
        Some((person, _, None)) => (Enrolment::Open, Some(person)),
    })
}
