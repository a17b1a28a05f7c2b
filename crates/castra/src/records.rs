//! Records of the log for commands: scanning with a filter, finding an action's records, opening the
//! payloads that stand beside them, and turning them into lines and JSON.

use std::{
    collections::{HashMap, VecDeque},
    ops::{ControlFlow, Range},
};

use bytes::Bytes;
use castra_core::{ActionId, Digest, Timestamp};
use castra_ledger::{Intent, Outcome, Record};
use castra_store::{
    State,
    log::{ENTRIES_MAX, LogReader},
};
use serde_json::{Value, json};

use crate::{
    cli::{FilterArgs, RecordKind},
    out::{Failure, minute},
};

/// An entry with its place.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) index: u64,
    bytes: Bytes,
}

impl Entry {
    /// What it says. `castra log verify` is the judge of entries that say nothing.
    pub(crate) fn record(&self) -> Result<Record<'_>, Failure> {
        let record = Record::decode(&self.bytes);
        record.map_err(|e| Failure::new(format!("record {} cannot be read: {e}", self.index)))
    }

    /// For machines: the record with its index as `id`.
    pub(crate) fn json(&self) -> Result<Value, Failure> {
        let mut value = serde_json::to_value(self.record()?)?;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("id".into(), self.index.into());
        }
        Ok(value)
    }
}

/// Reads the log from an index to its end, or until `visit` breaks off. Gives the index to go on from.
pub(crate) fn scan(
    reader: &LogReader,
    from: u64,
    mut visit: impl FnMut(Entry) -> Result<ControlFlow<()>, Failure>,
) -> Result<u64, Failure> {
    let mut next = from;
    loop {
        let entries = reader.entries(chunk(next))?;
        if entries.is_empty() {
            return Ok(next);
        }
        for bytes in entries {
            let visited = visit(Entry { index: next, bytes })?;
            next += 1;
            if visited.is_break() {
                return Ok(next);
            }
        }
    }
}

fn chunk(from: u64) -> Range<u64> {
    from..from.saturating_add(ENTRIES_MAX as u64)
}

/// How many entries there are, signed or not yet.
pub(crate) fn size(reader: &LogReader) -> Result<u64, Failure> {
    let mut size = reader.head()?.size;
    loop {
        let more = reader.entries(chunk(size))?.len() as u64;
        if more == 0 {
            return Ok(size);
        }
        size += more;
    }
}

/// A filter with what it must remember: outcomes are asked for what their intents say.
pub(crate) struct Filter<'a> {
    wanted: &'a FilterArgs,
    /// Intents whose outcome is still to come, and whether they matched.
    open: HashMap<u64, bool>,
}

impl<'a> Filter<'a> {
    pub(crate) fn new(wanted: &'a FilterArgs) -> Self {
        Self { wanted, open: HashMap::new() }
    }

    /// Whether a record is wanted. Records must come in their order.
    pub(crate) fn admits(&mut self, index: u64, record: &Record<'_>) -> bool {
        let wanted = self.wanted;
        let about = match record {
            Record::Intent(intent) => {
                let matched = self.about_intent(intent);
                self.open.insert(index, matched);
                matched
            }
            // The intent of an outcome stands before the place where the scan began, or it was seen.
            Record::Outcome(outcome) => {
                let seen = self.open.remove(&outcome.intent);
                seen.unwrap_or_else(|| self.asks_for_no_intent())
            }
            Record::Refusal(refusal) => {
                wanted.tool.is_none()
                    && wanted.run.is_none()
                    && wanted.decision.is_none()
                    && wanted.agent.as_ref().is_none_or(|agent| refusal.agent.as_ref() == Some(agent))
            }
            Record::Event(event) => {
                let subject = event.subject.as_deref();
                wanted.tool.is_none()
                    && wanted.run.is_none()
                    && wanted.decision.is_none()
                    && wanted.agent.as_ref().is_none_or(|agent| subject == Some(agent.as_str()))
            }
        };
        let time = record.time();
        about
            && wanted.kind.is_none_or(|kind| kind == kind_of(record))
            && wanted.since.is_none_or(|since| time >= since)
            && wanted.until.is_none_or(|until| time < until)
    }

    fn about_intent(&self, intent: &Intent<'_>) -> bool {
        let wanted = self.wanted;
        wanted.agent.as_ref().is_none_or(|agent| intent.agent == *agent)
            && wanted.tool.as_deref().is_none_or(|tool| is_on(&intent.resource, tool))
            && wanted.decision.is_none_or(|decision| intent.decision == decision)
            && wanted.run.as_deref().is_none_or(|run| intent.run.as_deref() == Some(run))
    }

    fn asks_for_no_intent(&self) -> bool {
        let wanted = self.wanted;
        wanted.agent.is_none() && wanted.tool.is_none() && wanted.decision.is_none() && wanted.run.is_none()
    }
}

/// Whether a resource (`Tool::"server/name"`) is the tool `server/name`, or one of the server `server/`.
fn is_on(resource: &str, tool: &str) -> bool {
    let id = resource.split_once("::\"").map_or(resource, |(_, id)| id.strip_suffix('"').unwrap_or(id));
    if tool.ends_with('/') { id.starts_with(tool) || format!("{id}/") == tool } else { id == tool }
}

fn kind_of(record: &Record<'_>) -> RecordKind {
    match record {
        Record::Intent(_) => RecordKind::Intent,
        Record::Outcome(_) => RecordKind::Outcome,
        Record::Refusal(_) => RecordKind::Refusal,
        Record::Event(_) => RecordKind::Event,
    }
}

/// The newest entries that a filter admits, at most `limit`, oldest first.
pub(crate) fn newest(reader: &LogReader, wanted: &FilterArgs, limit: usize) -> Result<Vec<Entry>, Failure> {
    let mut filter = Filter::new(wanted);
    let mut kept = VecDeque::new();
    let from = first_at(reader, wanted.since)?;
    scan(reader, from, |entry| {
        if filter.admits(entry.index, &entry.record()?) {
            kept.push_back(entry);
            if kept.len() > limit {
                kept.pop_front();
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(kept.into())
}

/// How far entries may stand from their place in time: writers take the time first and the place after.
const DISORDER_SECS: i64 = 60;

/// An index before which no entry has `time` or later.
fn first_at(reader: &LogReader, time: Option<Timestamp>) -> Result<u64, Failure> {
    let Some(time) = time.map(|t| t.plus_secs(-DISORDER_SECS)) else { return Ok(0) };
    let (mut low, mut high) = (0, reader.head()?.size);
    while low < high {
        let middle = low + (high - low) / 2;
        let Some(bytes) = reader.entry(middle)? else { break };
        if (Entry { index: middle, bytes }).record()?.time() < time {
            low = middle + 1
        } else {
            high = middle
        }
    }
    Ok(low)
}

/// The records of an action.
pub(crate) struct ActionRecords {
    pub(crate) intent: Entry,
    pub(crate) outcome: Option<Entry>,
}

/// Finds the records of an action. Its id begins with its time, which says where to look.
pub(crate) fn of_action(reader: &LogReader, action: ActionId) -> Result<ActionRecords, Failure> {
    let (mut intent, mut outcome) = (None, None);
    let from = first_at(reader, Some(time_of(action)))?;
    scan(reader, from, |entry| {
        match entry.record()? {
            Record::Intent(record) if record.action == action => intent = Some(entry.clone()),
            Record::Outcome(record) if record.action == action => outcome = Some(entry.clone()),
            _ => {}
        }
        // Nothing comes after the outcome.
        Ok(if outcome.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    let intent = intent.ok_or_else(|| {
        Failure::new(format!("there is no action {action} in this log"))
            .advise("`castra log query` finds actions by agent, tool and time.")
    })?;
    Ok(ActionRecords { intent, outcome })
}

/// When an action's id was made: its first ten digits, in base 32, are milliseconds (the ULID form).
fn time_of(action: ActionId) -> Timestamp {
    const DIGITS: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let digit = |c: char| DIGITS.find(c).and_then(|n| i64::try_from(n).ok()).unwrap_or(0);
    let millis = action.to_string().chars().take(10).fold(0_i64, |n, c| n << 5 | digit(c));
    Timestamp(millis.saturating_mul(1000))
}

/// What stands beside a record, opened.
pub(crate) enum Payload {
    /// What was said.
    Open(Vec<u8>),
    /// Why it cannot be shown.
    Closed(String),
    /// There is none: nothing was said.
    None,
}

/// Opens the payload of an intent or outcome; its digest is checked against the record.
pub(crate) fn payload(reader: &LogReader, state: &State, entry: &Entry) -> Result<Payload, Failure> {
    let (place, commit) = match entry.record()? {
        Record::Intent(Intent { action, commit, .. }) => (format!("{action}/intent"), commit),
        Record::Outcome(Outcome { action, commit: Some(commit), .. }) => {
            (format!("{action}/outcome"), commit)
        }
        _ => return Ok(Payload::None),
    };
    let sealed = match reader.payload(entry.index)? {
        Some(sealed) if !sealed.is_empty() => sealed,
        _ => return Ok(Payload::Closed("it was too large to keep, or was erased".into())),
    };
    Ok(match open(state, &place, &sealed, &commit) {
        Ok(bytes) => Payload::Open(bytes),
        Err(failure) => match salt(state, &place, &sealed) {
            Some(salt) => Payload::Closed(format!(
                "it was too large to keep; SHA-256 over the salt {salt} and the payload gives the record's commitment"
            )),
            None => Payload::Closed(failure.to_string()),
        },
    })
}

/// Of a payload that was too large, only the salt of its commitment is kept.
fn salt(state: &State, place: &str, sealed: &[u8]) -> Option<String> {
    let key = state.data_key_by_id(castra_protect::key_id_of(sealed).ok()?).ok()?;
    let salt = castra_protect::open(&key, format!("{place}/salt").as_bytes(), sealed).ok()?;
    Some(castra_core::Digest(salt.as_slice().try_into().ok()?).to_hex())
}

fn open(state: &State, place: &str, sealed: &[u8], commit: &Digest) -> Result<Vec<u8>, Failure> {
    let key = state.data_key_by_id(castra_protect::key_id_of(sealed)?)?;
    Ok(castra_protect::open_committed(&key, place.as_bytes(), sealed, commit)?.bytes().to_vec())
}

/// Headings of [`row`].
pub(crate) const HEAD: [&str; 6] = ["INDEX", "TIME", "KIND", "AGENT", "WHAT", "RESULT"];

/// A record as a row for people.
pub(crate) fn row(entry: &Entry) -> Result<[String; 6], Failure> {
    let record = entry.record()?;
    let time = minute(record.time());
    let index = entry.index.to_string();
    let none = || "-".to_owned();
    Ok(match record {
        Record::Intent(r) => {
            let observed = if r.enforced { "" } else { " (not enforced)" };
            let result = format!("{}{observed}", r.decision.as_str());
            [index, time, "intent".into(), r.agent.to_string(), r.resource.into_owned(), result]
        }
        Record::Outcome(r) => {
            let what = format!("of {}, {} ms", r.intent, r.micros / 1000);
            let code = r.code.map_or(String::new(), |code| format!(" ({code})"));
            [index, time, "outcome".into(), none(), what, format!("{}{code}", r.status.as_str())]
        }
        Record::Refusal(r) => {
            let agent = r.agent.map_or_else(none, |a| a.to_string());
            let result = format!("{} at {}", r.code.as_str(), r.step.as_str());
            [index, time, "refusal".into(), agent, r.reason.into_owned(), result]
        }
        Record::Event(r) => {
            let what = json!(r.event).as_str().unwrap_or_default().to_owned();
            let subject = r.subject.map_or_else(none, |s| s.into_owned());
            [index, time, "event".into(), subject, what, r.detail.into_owned()]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_their_time() {
        let time = Timestamp::from_secs(1_795_557_868);
        assert_eq!(time_of(ActionId::new(time, [255; 10])), time);
    }

    #[test]
    fn tools_are_matched_whole() {
        assert!(is_on("Tool::\"files/read\"", "files/read"));
        assert!(is_on("Tool::\"files/read\"", "files/"));
        assert!(is_on("Server::\"files\"", "files/"));
        assert!(!is_on("Tool::\"files/read\"", "files/rea"));
        assert!(!is_on("Tool::\"files-2/read\"", "files/"));
    }
}
