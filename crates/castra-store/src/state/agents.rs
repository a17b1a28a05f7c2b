//! Agents, their tokens and their certificates.

use std::time::Duration;

use castra_core::{AgentName, Digest, GroupName, Timestamp};
use castra_identity::{Authority, IssuedCertificate, Token, TokenKind, TrustDomain};
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::Serialize;

use super::{State, corrupt, count_change, micros};
use crate::{StoreError, clock};

/// Live tokens of one agent at most: rotation needs two, rollouts a few.
pub(super) const LIVE_TOKENS_MAX: usize = 8;

/// A token that was just made. Its text exists here only.
#[derive(Debug)]
pub struct IssuedToken {
    /// Whose it is: an agent's name or a person's id.
    pub owner: String,
    /// The token itself.
    pub token: Token,
    /// Names it in lists and records.
    pub id: String,
    /// When it ends, if it does.
    pub expires: Option<Timestamp>,
}

/// An agent as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AgentRow {
    /// Its name.
    pub id: AgentName,
    /// Groups that it belongs to.
    pub groups: Vec<GroupName>,
    /// `active` or `revoked`.
    pub state: &'static str,
    /// When it was added.
    pub created: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// Tokens that count now.
    pub live_tokens: u32,
    /// Certificates that count now.
    pub live_certificates: u32,
}

/// A token as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenRow {
    /// First 12 hex digits of its hash.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends, if it does.
    pub expires: Option<Timestamp>,
    /// When it was taken back.
    pub revoked: Option<Timestamp>,
}

/// A certificate as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateRow {
    /// Serial number in hex.
    pub id: String,
    /// SHA-256 of its DER form.
    pub fingerprint: Digest,
    /// When it was issued.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// When it was taken back.
    pub revoked: Option<Timestamp>,
}

/// An agent with all its credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AgentDetail {
    /// The agent.
    #[serde(flatten)]
    pub agent: AgentRow,
    /// Its tokens, newest first.
    pub tokens: Vec<TokenRow>,
    /// Its certificates, newest first.
    pub certificates: Vec<CertificateRow>,
}

impl State {
    /// Adds an agent with a first token.
    pub fn add_agent(
        &self,
        name: &AgentName,
        groups: &[GroupName],
        life: Option<Duration>,
        now: Timestamp,
    ) -> Result<IssuedToken, StoreError> {
        let random = clock::random()?;
        let groups = serde_json::to_string(groups).map_err(|e| corrupt("groups", e))?;
        self.write(|transaction| {
            match revoked_of(transaction, name)? {
                None => {}
                Some(None) => return Err(StoreError::AgentExists { name: name.clone() }),
                Some(Some(_)) => return Err(StoreError::AgentRevoked { name: name.clone() }),
            }
            let sql = "INSERT INTO agents (name, groups, created) VALUES (?1, ?2, ?3)";
            transaction.execute(sql, params![name.as_str(), groups, now.0])?;
            insert_token(transaction, name, random, life, now)
        })
    }

    /// Every agent, by name.
    pub fn agents(&self, now: Timestamp) -> Result<Vec<AgentRow>, StoreError> {
        self.read(|transaction| {
            let mut statement = transaction.prepare_cached(&format!("{SELECT_AGENT} ORDER BY name"))?;
            let mut rows = statement.query([now.0])?;
            let mut agents = Vec::new();
            while let Some(row) = rows.next()? {
                agents.push(agent_row(row)?);
            }
            Ok(agents)
        })
    }

    /// One agent with its credentials.
    pub fn agent(&self, name: &AgentName, now: Timestamp) -> Result<AgentDetail, StoreError> {
        self.read(|transaction| {
            let mut statement = transaction.prepare_cached(&format!("{SELECT_AGENT} WHERE name = ?2"))?;
            let mut rows = statement.query(params![now.0, name.as_str()])?;
            let row = rows.next()?.ok_or_else(|| StoreError::NoAgent { name: name.clone() })?;
            Ok(AgentDetail {
                agent: agent_row(row)?,
                tokens: tokens_of(transaction, name)?,
                certificates: certificates_of(transaction, name)?,
            })
        })
    }

    /// Gives an agent a new token. The old ones count for `overlap` more, so that the new one can
    /// be put in place without a gap.
    pub fn rotate_token(
        &self,
        name: &AgentName,
        life: Option<Duration>,
        overlap: Duration,
        now: Timestamp,
    ) -> Result<IssuedToken, StoreError> {
        let random = clock::random()?;
        self.write(|transaction| {
            expect_active(transaction, name)?;
            let end = after(now, overlap);
            transaction.execute(
                "UPDATE tokens SET expires = ?2
                 WHERE agent = ?1 AND revoked IS NULL AND (expires IS NULL OR expires > ?2)",
                params![name.as_str(), end.0],
            )?;
            let live: usize = transaction.query_row(
                "SELECT count(*) FROM tokens
                 WHERE agent = ?1 AND revoked IS NULL AND (expires IS NULL OR expires > ?2)",
                params![name.as_str(), now.0],
                |row| row.get::<_, u32>(0).map(|n| n as usize),
            )?;
            if live >= LIVE_TOKENS_MAX {
                return Err(StoreError::TooManyTokens { name: name.clone(), max: LIVE_TOKENS_MAX });
            }
            insert_token(transaction, name, random, life, now)
        })
    }

    /// Shuts an agent out with all its credentials. Doing it again changes nothing.
    pub fn revoke_agent(&self, name: &AgentName, now: Timestamp) -> Result<(), StoreError> {
        self.write(|transaction| {
            let sql = "UPDATE agents SET revoked = coalesce(revoked, ?2) WHERE name = ?1";
            if transaction.execute(sql, params![name.as_str(), now.0])? == 0 {
                return Err(StoreError::NoAgent { name: name.clone() });
            }
            count_change(transaction)
        })
    }

    /// Takes back one token of an agent.
    pub fn revoke_token(&self, name: &AgentName, token_id: &str, now: Timestamp) -> Result<(), StoreError> {
        self.write(|transaction| {
            let sql = "UPDATE tokens SET revoked = ?3 WHERE agent = ?1 AND id = ?2 AND revoked IS NULL";
            if transaction.execute(sql, params![name.as_str(), token_id, now.0])? == 0 {
                return Err(StoreError::NoToken {
                    name: name.clone(),
                    id: token_id.chars().take(80).collect(),
                });
            }
            count_change(transaction)
        })
    }

    /// Takes back a certificate that was issued here.
    pub fn revoke_certificate(&self, serial: &str, now: Timestamp) -> Result<(), StoreError> {
        self.write(|transaction| {
            let sql = "UPDATE certificates SET revoked = ?2 WHERE serial = ?1 AND revoked IS NULL";
            if transaction.execute(sql, params![serial, now.0])? == 0 {
                return Err(StoreError::NoCertificate { serial: serial.chars().take(80).collect() });
            }
            count_change(transaction)
        })
    }

    /// Issues a client certificate for an agent and lists it. The key is in the result only.
    pub fn issue_certificate(
        &self,
        name: &AgentName,
        authority: &Authority,
        domain: &TrustDomain,
        life_days: u32,
        now: Timestamp,
    ) -> Result<IssuedCertificate, StoreError> {
        let serial = clock::random()?;
        self.write(|transaction| {
            expect_active(transaction, name)?;
            let issued = authority.issue_agent(name, domain, now, life_days, serial)?;
            transaction.execute(
                "INSERT INTO certificates (serial, fingerprint, agent, created, expires) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![issued.serial, issued.fingerprint.0, name.as_str(), now.0, issued.not_after.0],
            )?;
            count_change(transaction)?;
            Ok(issued)
        })
    }
}

const SELECT_AGENT: &str = "SELECT name, groups, created, revoked,
    (SELECT count(*) FROM tokens t WHERE t.agent = a.name AND a.revoked IS NULL AND t.revoked IS NULL
        AND (t.expires IS NULL OR t.expires > ?1)),
    (SELECT count(*) FROM certificates c WHERE c.agent = a.name AND a.revoked IS NULL AND c.revoked IS NULL
        AND c.expires > ?1)
    FROM agents a";

fn agent_row(row: &Row<'_>) -> Result<AgentRow, StoreError> {
    let revoked = row.get::<_, Option<i64>>(3)?.map(Timestamp);
    Ok(AgentRow {
        id: parse_name(&row.get::<_, String>(0)?)?,
        groups: parse_groups(&row.get::<_, String>(1)?)?,
        state: if revoked.is_some() { "revoked" } else { "active" },
        created: Timestamp(row.get(2)?),
        revoked,
        live_tokens: row.get(4)?,
        live_certificates: row.get(5)?,
    })
}

fn tokens_of(transaction: &Transaction<'_>, name: &AgentName) -> Result<Vec<TokenRow>, StoreError> {
    let sql = "SELECT id, created, expires, revoked FROM tokens WHERE agent = ?1 ORDER BY created DESC, id";
    let mut statement = transaction.prepare_cached(sql)?;
    let rows = statement.query_map([name.as_str()], |row| {
        Ok(TokenRow {
            id: row.get(0)?,
            created: Timestamp(row.get(1)?),
            expires: row.get::<_, Option<i64>>(2)?.map(Timestamp),
            revoked: row.get::<_, Option<i64>>(3)?.map(Timestamp),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn certificates_of(
    transaction: &Transaction<'_>,
    name: &AgentName,
) -> Result<Vec<CertificateRow>, StoreError> {
    let sql = "SELECT serial, fingerprint, created, expires, revoked FROM certificates
               WHERE agent = ?1 ORDER BY created DESC, serial";
    let mut statement = transaction.prepare_cached(sql)?;
    let rows = statement.query_map([name.as_str()], |row| {
        Ok(CertificateRow {
            id: row.get(0)?,
            fingerprint: Digest(row.get(1)?),
            created: Timestamp(row.get(2)?),
            expires: Timestamp(row.get(3)?),
            revoked: row.get::<_, Option<i64>>(4)?.map(Timestamp),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn insert_token(
    transaction: &Transaction<'_>,
    name: &AgentName,
    random: [u8; 32],
    life: Option<Duration>,
    now: Timestamp,
) -> Result<IssuedToken, StoreError> {
    let token = Token::new(TokenKind::Agent, random);
    let (hash, expires) = (token.hash(), life.map(|life| after(now, life)));
    transaction.execute(
        "INSERT INTO tokens (hash, id, agent, created, expires) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![hash.0, hash.id(), name.as_str(), now.0, micros(expires)],
    )?;
    count_change(transaction)?;
    Ok(IssuedToken { owner: name.to_string(), token, id: hash.id(), expires })
}

/// When an agent was revoked: none if there is no such agent.
fn revoked_of(transaction: &Transaction<'_>, name: &AgentName) -> Result<Option<Option<i64>>, StoreError> {
    let sql = "SELECT revoked FROM agents WHERE name = ?1";
    Ok(transaction.query_row(sql, [name.as_str()], |row| row.get(0)).optional()?)
}

fn expect_active(transaction: &Transaction<'_>, name: &AgentName) -> Result<(), StoreError> {
    match revoked_of(transaction, name)? {
        Some(None) => Ok(()),
        Some(Some(_)) => Err(StoreError::AgentRevoked { name: name.clone() }),
        None => Err(StoreError::NoAgent { name: name.clone() }),
    }
}

pub(super) fn after(now: Timestamp, span: Duration) -> Timestamp {
    now.plus_secs(i64::try_from(span.as_secs()).unwrap_or(i64::MAX))
}

pub(super) fn parse_name(name: &str) -> Result<AgentName, StoreError> {
    AgentName::new(name).map_err(|e| corrupt("an agent's name", e))
}

pub(super) fn parse_groups(groups: &str) -> Result<Vec<GroupName>, StoreError> {
    serde_json::from_str(groups).map_err(|e| corrupt("an agent's groups", e))
}
