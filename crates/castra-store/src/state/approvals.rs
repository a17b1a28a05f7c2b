//! Questions to people: may this action happen? Each is about exactly one action, its answer is good
//! once and for a time, and it is kept for a while after that, so that people can look back.
//!
//! The gate asks and uses, commands beside it answer. Both look at the same rows, so an answer counts
//! from the agent's next attempt on.

use std::{collections::HashSet, sync::Arc, time::Duration};

use castra_core::{AgentName, Digest, RunId, Timestamp};
use castra_protect::Sealer;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::Serialize;

use super::{State, agents::parse_name, corrupt};
use crate::{StoreError, clock};

/// How long a question is kept after it ended.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Ended questions that are kept; one more, and the oldest goes.
const KEPT_MAX: i64 = 10_000;
/// Attempts at an id that no other question has; they have 32 bits.
const ID_ATTEMPTS: usize = 8;
/// Longest word of a person on why.
const REASON_CHARS_MAX: usize = 500;

/// What a question is about.
#[derive(Debug, Clone, Copy)]
pub struct ApprovalAsk<'a> {
    /// Digest of agent, run, operation, resource and canonical arguments.
    pub digest: Digest,
    /// Who wants to act.
    pub agent: &'a AgentName,
    /// In which run, if the agent named one.
    pub run: Option<&'a RunId>,
    /// What kind of action.
    pub operation: &'a str,
    /// On what, as policies write it.
    pub resource: &'a str,
    /// Whether a value in it was seen only in untrusted text. While such a question waits, no other is
    /// asked for the run: an attack is not to wear people out.
    pub injected: bool,
    /// What a person has to see, JSON.
    pub shown: &'a [u8],
}

/// How many questions may wait, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApprovalBounds {
    /// How long a question waits for its answer, and how long an answer is good.
    pub expires: Duration,
    /// Questions that wait at once for one agent.
    pub of_agent: u64,
    /// Questions that wait at once.
    pub in_all: u64,
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedApproval {
    /// A person is asked; the same question asked again while it waits is the same question.
    Waits {
        /// Its id.
        id: String,
        /// Until when it can be answered.
        expires: Timestamp,
        /// Whether it was asked now.
        new: bool,
    },
    /// A person said no to this, and that still holds.
    Denied {
        /// The question.
        id: String,
    },
    /// Another question of this run waits, and it may be an attack.
    Behind {
        /// The other question.
        id: String,
    },
    /// Too many questions wait, for this agent or in all.
    Full {
        /// How many there may be.
        max: u64,
        /// Whether that is the agent's own bound.
        of_agent: bool,
    },
}

/// Where a question stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ApprovalState {
    /// It waits for its answer.
    Pending,
    /// A person said yes; the action may happen once.
    Approved,
    /// A person said no.
    Denied,
    /// The action happened.
    Used,
    /// Nobody answered in time, or the action was not tried again in time.
    Expired,
}

impl ApprovalState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Used => "used",
            Self::Expired => "expired",
        }
    }
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRow {
    /// Its id, short enough to say.
    pub id: String,
    /// Digest of what it is about.
    pub digest: Digest,
    /// Who wants to act.
    pub agent: AgentName,
    /// In which run.
    pub run: Option<RunId>,
    /// What kind of action.
    pub operation: String,
    /// On what, as policies write it.
    pub resource: String,
    /// What a person has to see, JSON; none where the agent's data key is gone.
    pub shown: Option<String>,
    /// Where it stands.
    pub state: ApprovalState,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// Until when it can be answered; until when the answer is good, once there is one.
    pub expires_at: Timestamp,
    /// Who answered.
    pub answered_by: Option<String>,
    /// When.
    pub answered_at: Option<Timestamp>,
    /// What they said about it.
    pub reason: Option<String>,
}

/// The newest question about exactly one action that still counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApprovalOf {
    /// It waits for its answer.
    Waits {
        /// Its id.
        id: String,
        /// Until when it can be answered.
        expires: Timestamp,
    },
    /// A person said yes, and that was not used yet.
    Granted {
        /// Its id.
        id: String,
        /// Who.
        by: String,
        /// When.
        at: Timestamp,
    },
}

impl Default for ApprovalBounds {
    /// Ten minutes; 1,000 questions, a quarter of them of one agent.
    fn default() -> Self {
        Self { expires: Duration::from_secs(600), of_agent: 250, in_all: 1000 }
    }
}

impl State {
    /// Asks, or says why not.
    pub fn ask_approval(
        &self,
        ask: &ApprovalAsk<'_>,
        bounds: ApprovalBounds,
        now: Timestamp,
    ) -> Result<AskedApproval, StoreError> {
        let (key_id, key) = self.data_key(&subject(ask.agent), now)?;
        let sealer = Sealer::new(&key, key_id, clock::random()?)?;
        self.write(|transaction| {
            prune(transaction, now)?;
            if let Some(known) = known(transaction, ask, now)? {
                return Ok(known);
            }
            for (of_agent, max) in [(true, bounds.of_agent), (false, bounds.in_all)] {
                if waiting(transaction, of_agent.then_some(ask.agent), now)? >= max {
                    return Ok(AskedApproval::Full { max, of_agent });
                }
            }
            let id = unused_id(transaction)?;
            let expires = after(now, bounds.expires);
            let shown = sealer.seal(place(&id).as_bytes(), ask.shown)?;
            transaction.execute(
                "INSERT INTO approvals (id, digest, agent, run, operation, resource, injected, shown, state,
                     asked_at, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'pending', ?9, ?10)",
                params![
                    id,
                    ask.digest.0,
                    ask.agent.as_str(),
                    run_text(ask.run),
                    ask.operation,
                    ask.resource,
                    ask.injected,
                    shown,
                    now.0,
                    expires.0
                ],
            )?;
            count_change(transaction)?;
            Ok(AskedApproval::Waits { id, expires, new: true })
        })
    }

    /// What is asked or was said of exactly this action.
    pub fn approval_of(
        &self,
        agent: &AgentName,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<Option<ApprovalOf>, StoreError> {
        self.read(|transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT id, state, expires_at, answered_by, answered_at FROM approvals
                 WHERE digest = ?1 AND agent = ?2 AND state IN ('pending', 'approved') AND expires_at > ?3
                 ORDER BY asked_at DESC LIMIT 1",
            )?;
            let found = statement
                .query_row(params![digest.0, agent.as_str(), now.0], |row| {
                    let (id, state, answered): (_, String, Option<i64>) =
                        (row.get(0)?, row.get(1)?, row.get(4)?);
                    Ok(match (state.as_str(), answered) {
                        ("approved", Some(at)) => ApprovalOf::Granted {
                            id,
                            by: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
                            at: Timestamp(at),
                        },
                        _ => ApprovalOf::Waits { id, expires: Timestamp(row.get(2)?) },
                    })
                })
                .optional()?;
            Ok(found)
        })
    }

    /// Whether a person said no to something in this run, not long ago.
    pub fn run_refused(
        &self,
        agent: &AgentName,
        run: Option<&RunId>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.read(|transaction| {
            let mut refused = transaction.prepare_cached(
                "SELECT 1 FROM approvals
                 WHERE agent = ?1 AND run = ?2 AND state = 'denied' AND expires_at > ?3 LIMIT 1",
            )?;
            Ok(refused.exists(params![agent.as_str(), run_text(run), now.0])?)
        })
    }

    /// Uses a yes up. False if that was done before, or it is too late.
    pub fn use_approval(&self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        self.write(|transaction| {
            let used = transaction.execute(
                "UPDATE approvals SET state = 'used' WHERE id = ?1 AND state = 'approved' AND expires_at > ?2",
                params![id, now.0],
            )?;
            Ok(used == 1)
        })
    }

    /// A person's answer. It is good for as long as the question was.
    pub fn answer_approval(
        &self,
        id: &str,
        approve: bool,
        by: &str,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<ApprovalRow, StoreError> {
        let reason = reason.map(|reason| reason.chars().take(REASON_CHARS_MAX).collect::<String>());
        let row = self.write(|transaction| {
            let row =
                one(transaction, id, now)?.ok_or_else(|| StoreError::NoApproval { id: shown_id(id) })?;
            if row.state != ApprovalState::Pending {
                return Err(StoreError::ApprovalEnded { id: row.id.clone(), state: row.state });
            }
            let word = if approve { "approved" } else { "denied" };
            let lasts = row.expires_at.0.saturating_sub(row.asked_at.0).max(0);
            transaction.execute(
                "UPDATE approvals SET state = ?2, answered_by = ?3, answered_at = ?4, reason = ?5,
                     expires_at = ?6
                 WHERE id = ?1",
                params![id, word, by, now.0, reason, now.0.saturating_add(lasts)],
            )?;
            count_change(transaction)?;
            one(transaction, id, now)?.ok_or_else(|| StoreError::NoApproval { id: shown_id(id) })
        })?;
        Ok(self.opened(row))
    }

    /// The questions that wait, or all that are kept, oldest first.
    pub fn approvals(&self, all: bool, now: Timestamp) -> Result<Vec<ApprovalRow>, StoreError> {
        let rows = self.read(|transaction| {
            let which = if all { "" } else { "WHERE state = 'pending' AND expires_at > ?1" };
            let sql = format!("{SELECT} {which} ORDER BY asked_at, id");
            let mut statement = transaction.prepare_cached(&sql)?;
            let mut rows = if all { statement.query([])? } else { statement.query([now.0])? };
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(kept(row, now)?);
            }
            Ok(found)
        })?;
        Ok(rows.into_iter().map(|row| self.opened(row)).collect())
    }

    /// One question.
    pub fn approval(&self, id: &str, now: Timestamp) -> Result<ApprovalRow, StoreError> {
        let row = self.read(|transaction| one(transaction, id, now))?;
        row.map(|row| self.opened(row)).ok_or_else(|| StoreError::NoApproval { id: shown_id(id) })
    }

    /// The runs of which something is asked or was answered not long ago: only in those an answer can
    /// matter.
    pub fn runs_with_approvals(
        &self,
        now: Timestamp,
    ) -> Result<HashSet<(AgentName, Option<RunId>)>, StoreError> {
        self.read(|transaction| {
            let sql = "SELECT DISTINCT agent, run FROM approvals WHERE state != 'used' AND expires_at > ?1";
            let mut statement = transaction.prepare_cached(sql)?;
            let mut rows = statement.query([now.0])?;
            let mut runs = HashSet::new();
            while let Some(row) = rows.next()? {
                runs.insert((parse_name(&row.get::<_, String>(0)?)?, RunId::new(&row.get::<_, String>(1)?)));
            }
            Ok(runs)
        })
    }

    /// Notes that an answer stands in the log.
    pub fn set_approval_recorded(&self, id: &str) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.execute("UPDATE approvals SET recorded = 1 WHERE id = ?1", [id])?;
            Ok(())
        })
    }

    fn opened(&self, row: Sealed) -> ApprovalRow {
        let Sealed { mut row, shown } = row;
        row.shown = self.open_shown(&row.id, &shown);
        row
    }

    fn open_shown(&self, id: &str, shown: &[u8]) -> Option<String> {
        let key = self.data_key_by_id(castra_protect::key_id_of(shown).ok()?).ok()?;
        let plain = castra_protect::open(&key, place(id).as_bytes(), shown).ok()?;
        String::from_utf8(plain.to_vec()).ok()
    }
}

/// Looks for answers that this or another process gave.
#[derive(Debug)]
pub struct ApprovalFollower {
    state: Arc<State>,
    seen: Option<i64>,
}

impl ApprovalFollower {
    /// Follows from nothing: the first look gives what no log has yet.
    pub fn new(state: Arc<State>) -> Self {
        Self { state, seen: None }
    }

    /// The answers that no log has yet, when something changed since the last time. Costs some
    /// microseconds when nothing did.
    pub fn poll(&mut self, now: Timestamp) -> Result<Vec<ApprovalRow>, StoreError> {
        let version = self.state.read(version)?;
        if self.seen == Some(version) {
            return Ok(Vec::new());
        }
        let rows = self.state.read(|transaction| {
            let sql = format!("{SELECT} WHERE answered_at IS NOT NULL AND recorded = 0 ORDER BY answered_at");
            let mut statement = transaction.prepare_cached(&sql)?;
            let mut rows = statement.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(kept(row, now)?);
            }
            Ok(found)
        })?;
        self.seen = Some(version);
        // What was shown has no place in the log.
        Ok(rows.into_iter().map(|sealed| sealed.row).collect())
    }
}

/// A row with what it shows still sealed.
struct Sealed {
    row: ApprovalRow,
    shown: Vec<u8>,
}

impl std::ops::Deref for Sealed {
    type Target = ApprovalRow;

    fn deref(&self) -> &ApprovalRow {
        &self.row
    }
}

const SELECT: &str = "SELECT id, digest, agent, run, operation, resource, shown, state, asked_at, expires_at,
    answered_by, answered_at, reason FROM approvals";

/// What stands already, and keeps a new question from being asked.
fn known(
    transaction: &Transaction<'_>,
    ask: &ApprovalAsk<'_>,
    now: Timestamp,
) -> Result<Option<AskedApproval>, StoreError> {
    let mut same = transaction.prepare_cached(
        "SELECT id, state, expires_at FROM approvals
         WHERE digest = ?1 AND agent = ?2 AND state != 'used' AND expires_at > ?3
         ORDER BY asked_at DESC LIMIT 1",
    )?;
    let same: Option<(String, String, i64)> = same
        .query_row(params![ask.digest.0, ask.agent.as_str(), now.0], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    if let Some((id, state, expires)) = same {
        return Ok(Some(match state.as_str() {
            "denied" => AskedApproval::Denied { id },
            // A yes that came in this very moment is found by the next attempt.
            _ => AskedApproval::Waits { id, expires: Timestamp(expires), new: false },
        }));
    }
    let mut other = transaction.prepare_cached(
        "SELECT id FROM approvals
         WHERE agent = ?1 AND run = ?2 AND injected AND state = 'pending' AND expires_at > ?3 LIMIT 1",
    )?;
    let other = other
        .query_row(params![ask.agent.as_str(), run_text(ask.run), now.0], |row| row.get(0))
        .optional()?;
    Ok(other.map(|id| AskedApproval::Behind { id }))
}

fn waiting(
    transaction: &Transaction<'_>,
    agent: Option<&AgentName>,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let mut count = transaction.prepare_cached(
        "SELECT count(*) FROM approvals
         WHERE state = 'pending' AND expires_at > ?1 AND (?2 IS NULL OR agent = ?2)",
    )?;
    let count: i64 = count.query_row(params![now.0, agent.map(AgentName::as_str)], |row| row.get(0))?;
    u64::try_from(count).map_err(|e| corrupt("a count", e))
}

/// Removes what ended long ago, and the oldest of too many.
fn prune(transaction: &Transaction<'_>, now: Timestamp) -> Result<(), StoreError> {
    let long_ago = now.0.saturating_sub(i64::try_from(KEPT.as_micros()).unwrap_or(i64::MAX));
    transaction.execute("DELETE FROM approvals WHERE expires_at < ?1", [long_ago])?;
    transaction.execute(
        "DELETE FROM approvals WHERE id IN (SELECT id FROM approvals WHERE state = 'used' OR expires_at <= ?1
             ORDER BY asked_at DESC LIMIT -1 OFFSET ?2)",
        params![now.0, KEPT_MAX],
    )?;
    Ok(())
}

fn one(transaction: &Transaction<'_>, id: &str, now: Timestamp) -> Result<Option<Sealed>, StoreError> {
    let mut statement = transaction.prepare_cached(&format!("{SELECT} WHERE id = ?1"))?;
    statement.query_row([id], |row| Ok(kept(row, now))).optional()?.transpose()
}

fn kept(row: &Row<'_>, now: Timestamp) -> Result<Sealed, StoreError> {
    let expires_at = Timestamp(row.get(9)?);
    let late = expires_at <= now;
    let state = match row.get::<_, String>(7)?.as_str() {
        "pending" | "approved" if late => ApprovalState::Expired,
        "pending" => ApprovalState::Pending,
        "approved" => ApprovalState::Approved,
        "denied" => ApprovalState::Denied,
        "used" => ApprovalState::Used,
        other => return Err(corrupt("an approval", other)),
    };
    let row_of = ApprovalRow {
        id: row.get(0)?,
        digest: Digest(row.get(1)?),
        agent: parse_name(&row.get::<_, String>(2)?)?,
        run: RunId::new(&row.get::<_, String>(3)?),
        operation: row.get(4)?,
        resource: row.get(5)?,
        shown: None,
        state,
        asked_at: Timestamp(row.get(8)?),
        expires_at,
        answered_by: row.get(10)?,
        answered_at: row.get::<_, Option<i64>>(11)?.map(Timestamp),
        reason: row.get(12)?,
    };
    Ok(Sealed { row: row_of, shown: row.get(6)? })
}

fn unused_id(transaction: &Transaction<'_>) -> Result<String, StoreError> {
    let mut there = transaction.prepare_cached("SELECT 1 FROM approvals WHERE id = ?1")?;
    for _ in 0..ID_ATTEMPTS {
        let id = sayable(u32::from_be_bytes(clock::random()?));
        if !there.exists([&id])? {
            return Ok(id);
        }
    }
    Err(corrupt("approvals", "no unused id was found"))
}

/// Two words of five letters that can be said on the telephone, such as `lusab-babad`: consonants hold
/// four bits and vowels two.
fn sayable(number: u32) -> String {
    const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
    const VOWELS: &[u8; 4] = b"aiou";
    let letter = |of: &[u8], at: u32| char::from(of.get(at as usize).copied().unwrap_or(b'a'));
    let word = |half: u32| -> String {
        [
            letter(CONSONANTS, half >> 12 & 15),
            letter(VOWELS, half >> 10 & 3),
            letter(CONSONANTS, half >> 6 & 15),
            letter(VOWELS, half >> 4 & 3),
            letter(CONSONANTS, half & 15),
        ]
        .into_iter()
        .collect()
    };
    format!("{}-{}", word(number >> 16), word(number & 0xffff))
}

fn version(transaction: &Transaction<'_>) -> Result<i64, StoreError> {
    let mut statement = transaction.prepare_cached("SELECT value FROM counters WHERE name = 'approvals'")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

fn count_change(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    transaction.execute("UPDATE counters SET value = value + 1 WHERE name = 'approvals'", [])?;
    Ok(())
}

fn run_text(run: Option<&RunId>) -> &str {
    run.map_or("", RunId::as_str)
}

fn subject(agent: &AgentName) -> String {
    format!("agent:{agent}")
}

/// Binds what is shown to its question: rows that were swapped in the database do not open.
fn place(id: &str) -> String {
    format!("approval:{id}")
}

fn after(now: Timestamp, time: Duration) -> Timestamp {
    Timestamp(now.0.saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX)))
}

fn shown_id(id: &str) -> String {
    id.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StateDir;

    const NOW: Timestamp = Timestamp(1_795_557_868_000_000);
    const MINUTE: Duration = Duration::from_secs(60);
    const BOUNDS: ApprovalBounds = ApprovalBounds { expires: MINUTE, of_agent: 2, in_all: 3 };

    /// One question of an agent about something.
    struct Asking<'a> {
        agent: &'a str,
        run: Option<&'a str>,
        what: u8,
        injected: bool,
    }

    fn ask(state: &State, of: Asking<'_>, now: Timestamp) -> AskedApproval {
        let (agent, run) = (of.agent.parse().expect("name"), of.run.and_then(RunId::new));
        let ask = ApprovalAsk {
            digest: Digest([of.what; 32]),
            agent: &agent,
            run: run.as_ref(),
            operation: "call",
            resource: "Tool::\"bank/send\"",
            injected: of.injected,
            shown: b"{\"arguments\":1}",
        };
        state.ask_approval(&ask, BOUNDS, now).expect("asked")
    }

    fn plain(agent: &str, what: u8) -> Asking<'_> {
        Asking { agent, run: Some("r"), what, injected: false }
    }

    fn id_of(asked: AskedApproval) -> String {
        match asked {
            AskedApproval::Waits { id, .. } | AskedApproval::Denied { id } | AskedApproval::Behind { id } => {
                id
            }
            AskedApproval::Full { .. } => panic!("full"),
        }
    }

    fn open() -> (tempfile::TempDir, State, State) {
        let root = tempfile::tempdir().expect("folder");
        let dir = StateDir::open_or_create(&root.path().join("state")).expect("made");
        let keys = dir.keys(NOW).expect("keys");
        let open = || dir.state(keys.master.clone()).expect("opened");
        let (gate, command) = (open(), open());
        (root, gate, command)
    }

    fn granted(state: &State, agent: &str, what: u8, now: Timestamp) -> Option<String> {
        let agent = agent.parse().expect("name");
        match state.approval_of(&agent, &Digest([what; 32]), now).expect("read") {
            Some(ApprovalOf::Granted { id, by, .. }) => Some(format!("{id} {by}")),
            Some(ApprovalOf::Waits { .. }) | None => None,
        }
    }

    #[test]
    fn an_answer_is_good_once_for_one_action_and_for_a_time() {
        let (_root, gate, command) = open();
        let id = id_of(ask(&gate, plain("a", 1), NOW));
        let again = ask(&gate, plain("a", 1), after(NOW, MINUTE / 2));
        let expires = after(NOW, MINUTE);
        assert_eq!(again, AskedApproval::Waits { id: id.clone(), expires, new: false });
        assert_eq!(granted(&gate, "a", 1, NOW), None);

        let waiting = command.approvals(false, NOW).expect("listed");
        assert_eq!(waiting.len(), 1);
        assert_eq!(waiting[0].shown.as_deref(), Some("{\"arguments\":1}"));
        let answered = command.answer_approval(&id, true, "alice", Some("fine"), NOW).expect("answered");
        assert_eq!((answered.state, answered.reason.as_deref()), (ApprovalState::Approved, Some("fine")));
        assert_eq!(granted(&gate, "a", 1, NOW), Some(format!("{id} alice")));
        assert_eq!(granted(&gate, "b", 1, NOW), None);
        assert_eq!(granted(&gate, "a", 2, NOW), None);
        assert_eq!(granted(&gate, "a", 1, after(NOW, MINUTE)), None);
        assert!(gate.use_approval(&id, NOW).expect("used") && !gate.use_approval(&id, NOW).expect("asked"));
        assert_eq!(granted(&gate, "a", 1, NOW), None);
        let twice = command.answer_approval(&id, true, "alice", None, NOW).expect_err("twice").to_string();
        assert_eq!(twice, format!("approval {id} is used, so it cannot be answered any more"));
        assert_ne!(id_of(ask(&gate, plain("a", 1), NOW)), id);
    }

    #[test]
    fn a_no_holds_for_a_time_and_tells_of_the_run() {
        let (_root, gate, command) = open();
        let id = id_of(ask(&gate, plain("a", 1), NOW));
        let late = after(NOW, MINUTE * 3 / 4);
        command.answer_approval(&id, false, "alice", None, late).expect("answered");
        let fresh = after(NOW, MINUTE * 3 / 2);
        assert_eq!(ask(&gate, plain("a", 1), fresh), AskedApproval::Denied { id });
        let refused = |run: &str, now| {
            let agent = "a".parse().expect("name");
            gate.run_refused(&agent, RunId::new(run).as_ref(), now).expect("read")
        };
        assert!(refused("r", fresh) && !refused("s", fresh) && !refused("r", after(late, MINUTE)));
        assert!(matches!(
            ask(&gate, plain("a", 1), after(late, MINUTE)),
            AskedApproval::Waits { new: true, .. }
        ));
    }

    #[test]
    fn questions_are_bounded_and_a_likely_attack_is_asked_once() {
        let (_root, gate, command) = open();
        let first = id_of(ask(&gate, Asking { injected: true, ..plain("a", 1) }, NOW));
        assert_eq!(ask(&gate, plain("a", 2), NOW), AskedApproval::Behind { id: first.clone() });
        ask(&gate, Asking { run: Some("other"), ..plain("a", 2) }, NOW);
        let full = ask(&gate, Asking { run: None, ..plain("a", 3) }, NOW);
        assert_eq!(full, AskedApproval::Full { max: 2, of_agent: true });
        ask(&gate, plain("b", 4), NOW);
        assert_eq!(ask(&gate, plain("c", 5), NOW), AskedApproval::Full { max: 3, of_agent: false });
        assert_eq!(gate.runs_with_approvals(NOW).expect("read").len(), 3);
        // Once it is answered, or too late for that, others are asked.
        command.answer_approval(&first, true, "alice", None, NOW).expect("answered");
        assert!(matches!(ask(&gate, plain("a", 6), NOW), AskedApproval::Waits { new: true, .. }));
        let later = after(NOW, MINUTE);
        assert!(gate.approvals(false, later).expect("listed").is_empty());
        let states: Vec<_> =
            gate.approvals(true, later).expect("listed").iter().map(|row| row.state).collect();
        assert_eq!(states, [ApprovalState::Expired; 4]);
        // Long after that nothing of it is kept.
        ask(&gate, plain("z", 1), after(later, KEPT + MINUTE));
        assert_eq!(gate.approvals(true, NOW).expect("listed").len(), 1);
    }

    #[test]
    fn answers_are_followed_until_they_stand_in_the_log() {
        let (_root, gate, command) = open();
        let gate = Arc::new(gate);
        let mut follower = ApprovalFollower::new(gate.clone());
        assert!(follower.poll(NOW).expect("polled").is_empty());
        let id = id_of(ask(&gate, plain("a", 1), NOW));
        assert!(follower.poll(NOW).expect("polled").is_empty());
        command.answer_approval(&id, false, "alice", None, NOW).expect("answered");
        let found = follower.poll(NOW).expect("polled");
        assert_eq!(
            found.iter().map(|row| (&*row.id, row.state)).collect::<Vec<_>>(),
            [(&*id, ApprovalState::Denied)]
        );
        assert!(follower.poll(NOW).expect("polled").is_empty());
        // After a restart it comes again, unless it was noted.
        assert_eq!(ApprovalFollower::new(gate.clone()).poll(NOW).expect("polled").len(), 1);
        gate.set_approval_recorded(&id).expect("noted");
        assert!(ApprovalFollower::new(gate).poll(NOW).expect("polled").is_empty());
    }

    #[test]
    fn ids_can_be_said_and_are_all_different() {
        assert_eq!(sayable(0), "babab-babab");
        assert_eq!(sayable(u32::MAX), "zuzuz-zuzuz");
        assert_eq!(sayable(0x7f00_0001), "lusab-babad");
        let all: std::collections::HashSet<_> = (0..=0xffff).map(sayable).collect();
        assert_eq!(all.len(), 0x1_0000);
    }
}
