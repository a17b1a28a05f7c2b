//! Agents behind the gate: the cards that were accepted of them, and whose their tasks are.

use castra_core::{AgentName, Digest, PeerName, Timestamp};
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::Serialize;

use super::{State, corrupt, count_change};
use crate::StoreError;

/// Tasks and conversations of one agent that are remembered; one more, and the oldest is forgotten.
/// Counted for each agent, so that none can make the gate forget another's.
const THINGS_PER_AGENT_MAX: u32 = 20_000;

/// A card in canonical form, with its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerCard {
    /// SHA-256 of the text.
    pub digest: Digest,
    /// The card.
    #[serde(skip)]
    pub text: String,
    /// When it was accepted, or seen first.
    pub time: Timestamp,
}

/// What is known of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerRow {
    /// Its name.
    pub name: PeerName,
    /// The card that was accepted.
    pub pinned: PeerCard,
    /// Another card that it showed since, which nobody has accepted.
    pub seen: Option<PeerCard>,
}

/// What a card is to the one that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenCard {
    /// It is the first one, and is accepted with that.
    First,
    /// It is the accepted one.
    Same,
    /// It is another one, which was not seen before.
    Changed,
    /// It is the other one that was seen before.
    StillChanged,
}

/// What a peer makes that belongs to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerThing {
    /// A task.
    Task,
    /// A conversation.
    Context,
}

impl PeerThing {
    fn as_str(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Context => "context",
        }
    }
}

impl State {
    /// Notes a card that a peer shows. The first one is accepted; another one waits until somebody
    /// accepts it.
    pub fn see_card(
        &self,
        peer: &PeerName,
        digest: Digest,
        text: &str,
        now: Timestamp,
    ) -> Result<SeenCard, StoreError> {
        self.write(|transaction| {
            let Some(row) = row_of(transaction, peer)? else {
                transaction.execute(
                    "INSERT INTO peers (name, digest, card, pinned) VALUES (?1, ?2, ?3, ?4)",
                    params![peer.as_str(), digest.0, text, now.0],
                )?;
                return Ok(SeenCard::First);
            };
            let changed = row.pinned.digest != digest;
            if row.seen.as_ref().map(|seen| seen.digest) == changed.then_some(digest) {
                return Ok(if changed { SeenCard::StillChanged } else { SeenCard::Same });
            }
            let seen = changed.then_some((digest.0, text, now.0));
            transaction.execute(
                "UPDATE peers SET seen_digest = ?2, seen_card = ?3, seen = ?4 WHERE name = ?1",
                params![peer.as_str(), seen.map(|s| s.0), seen.map(|s| s.1), seen.map(|s| s.2)],
            )?;
            Ok(if changed { SeenCard::Changed } else { SeenCard::Same })
        })
    }

    /// Accepts the card that a peer showed last, if it is another one than before. Gates that run
    /// notice.
    pub fn accept_card(&self, peer: &PeerName, now: Timestamp) -> Result<Option<PeerRow>, StoreError> {
        self.write(|transaction| {
            let changed = transaction.execute(
                "UPDATE peers SET digest = seen_digest, card = seen_card, pinned = ?2,
                     seen_digest = NULL, seen_card = NULL, seen = NULL
                 WHERE name = ?1 AND seen_digest IS NOT NULL",
                params![peer.as_str(), now.0],
            )?;
            if changed == 0 {
                return Ok(None);
            }
            count_change(transaction)?;
            row_of(transaction, peer)
        })
    }

    /// What is known of a peer.
    pub fn peer(&self, peer: &PeerName) -> Result<Option<PeerRow>, StoreError> {
        self.read(|transaction| row_of(transaction, peer))
    }

    /// Every peer that was ever reached, by name.
    pub fn peers(&self) -> Result<Vec<PeerRow>, StoreError> {
        self.read(|transaction| {
            let mut statement = transaction.prepare_cached(&format!("{COLUMNS} ORDER BY name"))?;
            let mut rows = statement.query([])?;
            let mut peers = Vec::new();
            while let Some(row) = rows.next()? {
                peers.push(peer_row(row)?);
            }
            Ok(peers)
        })
    }

    /// Gives a task or conversation to an agent, if it is nobody's, and says whose it is.
    pub fn claim(
        &self,
        peer: &PeerName,
        thing: PeerThing,
        id: &str,
        agent: &AgentName,
        now: Timestamp,
    ) -> Result<AgentName, StoreError> {
        self.write(|transaction| {
            if let Some(owner) = owner_of(transaction, peer, thing, id)? {
                return Ok(owner);
            }
            transaction.execute(
                "INSERT INTO peer_things (peer, kind, id, agent, created) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![peer.as_str(), thing.as_str(), id, agent.as_str(), now.0],
            )?;
            transaction.execute(
                "DELETE FROM peer_things WHERE agent = ?1 AND created <
                     (SELECT created FROM peer_things WHERE agent = ?1 ORDER BY created DESC LIMIT 1 OFFSET ?2)",
                params![agent.as_str(), THINGS_PER_AGENT_MAX],
            )?;
            Ok(agent.clone())
        })
    }

    /// Whose a task or conversation is.
    pub fn owner(
        &self,
        peer: &PeerName,
        thing: PeerThing,
        id: &str,
    ) -> Result<Option<AgentName>, StoreError> {
        self.read(|transaction| owner_of(transaction, peer, thing, id))
    }
}

const COLUMNS: &str = "SELECT name, digest, card, pinned, seen_digest, seen_card, seen FROM peers";

fn row_of(transaction: &Transaction<'_>, peer: &PeerName) -> Result<Option<PeerRow>, StoreError> {
    let mut statement = transaction.prepare_cached(&format!("{COLUMNS} WHERE name = ?1"))?;
    let mut rows = statement.query([peer.as_str()])?;
    rows.next()?.map(peer_row).transpose()
}

fn peer_row(row: &Row<'_>) -> Result<PeerRow, StoreError> {
    let name: String = row.get(0)?;
    let seen: Option<[u8; 32]> = row.get(4)?;
    let seen = match seen {
        None => None,
        Some(digest) => {
            Some(PeerCard { digest: Digest(digest), text: row.get(5)?, time: Timestamp(row.get(6)?) })
        }
    };
    Ok(PeerRow {
        name: PeerName::new(&name).map_err(|e| corrupt("a peer's name", e))?,
        pinned: PeerCard { digest: Digest(row.get(1)?), text: row.get(2)?, time: Timestamp(row.get(3)?) },
        seen,
    })
}

fn owner_of(
    transaction: &Transaction<'_>,
    peer: &PeerName,
    thing: PeerThing,
    id: &str,
) -> Result<Option<AgentName>, StoreError> {
    let mut statement = transaction
        .prepare_cached("SELECT agent FROM peer_things WHERE peer = ?1 AND kind = ?2 AND id = ?3")?;
    let owner: Option<String> =
        statement.query_row(params![peer.as_str(), thing.as_str(), id], |row| row.get(0)).optional()?;
    owner.map(|name| AgentName::new(&name).map_err(|e| corrupt("an agent's name", e))).transpose()
}
