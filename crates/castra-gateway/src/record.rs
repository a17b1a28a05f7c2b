//! Steps 6 and 8, record: the intent before anything happens, the outcome before the answer leaves.
//!
//! The log entry says who tried what and how it was decided; what was said stands beside it,
//! encrypted under a key of the agent, and the entry only commits to it. A [`Permit`] is the proof
//! that an intent is written; dropping one without an outcome records that it was cancelled.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use castra_core::{
    ActionId, AgentName, Decision, Digest, FlowFacts, Refusal, RefusalCode, Step, StreamMode, Timestamp,
    Verdict,
};
use castra_ledger::{Event, EventKind, Intent, ModelUse, Outcome, Record, RefusedRequest, Status};
use castra_protect::Sealer;
use castra_store::{
    State, clock,
    log::{Appended, Log, LogError},
};
use parking_lot::{Mutex, RwLock};

use crate::{
    approval::Question,
    decide::Decided,
    in_flight::Slot,
    metrics::{Decided as Counted, Metrics, Outcome as CountedOutcome},
    run::Part,
};

/// Refusals of one agent, or of nobody known, are recorded singly up to this rate; beyond it they are
/// counted and one record says how many. Without it anybody could fill the disk.
const REFUSALS_PER_SECOND_MAX: u32 = 200;

/// Writes records. One per gate.
pub(crate) struct Recorder {
    log: Log,
    state: Arc<State>,
    sealers: RwLock<HashMap<AgentName, Arc<Sealer>>>,
    clock: fn() -> Timestamp,
    metrics: Arc<Metrics>,
    reads_wait: bool,
    payload_bytes_max: usize,
    refusals: RefusalRate,
}

impl Recorder {
    pub(crate) fn new(
        log: Log,
        state: Arc<State>,
        clock: fn() -> Timestamp,
        metrics: Arc<Metrics>,
        reads_wait: bool,
        payload_bytes_max: usize,
    ) -> Self {
        Self {
            log,
            state,
            sealers: RwLock::default(),
            clock,
            metrics,
            reads_wait,
            payload_bytes_max,
            refusals: RefusalRate::default(),
        }
    }

    /// Records the intent. For an action that changes something this returns when the record is on
    /// the disk; one that only reads is recorded alongside, unless the configuration says otherwise.
    pub(crate) async fn intent(self: &Arc<Self>, decided: Decided, slot: Slot) -> Result<Recorded, Refusal> {
        let started = Instant::now();
        let sealer = self.sealer(&decided.action().agent.name).await?;
        let action = decided.action();
        let said = request_payload(&decided);
        let (commit, sealed) = self.seal(&sealer, action.id, "intent", &said)?;
        let entry = encode(&Record::Intent(Intent {
            time: decided.time(),
            action: action.id,
            agent: action.agent.name.clone(),
            credential: Cow::Borrowed(&action.agent.credential),
            auth: action.agent.method.clone(),
            run: action.run.as_ref().map(|r| Cow::Borrowed(r.as_str())),
            protocol: action.protocol,
            revision: Cow::Borrowed(action.revision),
            operation: action.operation,
            method: Cow::Borrowed(&action.method),
            resource: Cow::Owned(action.resource.to_string()),
            effect: action.effect,
            decision: decided.verdict().decision,
            enforced: decided.enforced(),
            policies: decided.verdict().policies.iter().map(|p| Cow::Borrowed(&**p)).collect(),
            reason: Cow::Borrowed(&decided.verdict().reason),
            policy_set: Cow::Borrowed(&decided.verdict().policy_set),
            commit,
            bytes: said.len() as u64,
        }))?;
        let intent = self.append(entry, sealed)?;
        let receipt = self.log.receipt_header(&intent).to_string();
        if !decided.permitted() {
            if let Some(question) = decided.question() {
                self.metrics.action(action.operation, Counted::Ask, CountedOutcome::Refused);
                return Ok(Recorded::Asked(Asked { question: question.clone(), receipt }));
            }
            self.metrics.action(action.operation, Counted::Deny, CountedOutcome::Refused);
            return Ok(Recorded::Denied(Denied { verdict: decided.verdict().clone(), receipt }));
        }
        // From here on there will be an outcome, whatever happens: also when the caller goes away
        // while this waits for the disk.
        let permit = Permit {
            recorder: self.clone(),
            sealer,
            action: action.id,
            operation: action.operation,
            decision: decided.verdict().decision,
            inspect: decided.verdict().inspect,
            part: action.part.clone(),
            intent: intent.index,
            waits: self.reads_wait || action.effect.changes(),
            started,
            receipt,
            concluded: false,
            _slot: slot,
        };
        if permit.waits {
            self.durable(intent.index).await?;
        }
        if let Some(part) = &permit.part {
            part.went(action.approval.is_some());
        }
        Ok(Recorded::Permitted(permit))
    }

    /// Records a request that never became an action. Never fails: it is refused anyway.
    pub(crate) fn refusal(&self, refusal: &Refusal, agent: Option<&AgentName>, source: std::net::IpAddr) {
        self.metrics.refusal(refusal.code);
        let time = (self.clock)();
        let Some(left_out) = self.refusals.admit(time, agent) else { return };
        let reason = if left_out > 0 {
            Cow::Owned(format!(
                "{} ({left_out} more refusals before this one were only counted)",
                refusal.reason
            ))
        } else {
            Cow::Borrowed(refusal.reason.as_str())
        };
        let record = Record::Refusal(RefusedRequest {
            time,
            step: refusal.step,
            code: refusal.code,
            reason,
            agent: agent.cloned(),
            source: Some(source),
        });
        self.write("refusal", &record);
    }

    /// Records an event of the gate itself.
    pub(crate) fn event(&self, event: EventKind, subject: Option<&str>, detail: &str) {
        let record = Record::Event(Event {
            time: (self.clock)(),
            event,
            subject: subject.map(Cow::Borrowed),
            detail: Cow::Borrowed(detail),
        });
        self.write("event", &record);
    }

    fn write(&self, what: &str, record: &Record<'_>) {
        let written = record
            .encode()
            .map_err(|e| e.to_string())
            .and_then(|entry| self.log.append(entry, Vec::new()).map_err(|e| e.to_string()));
        if let Err(error) = written {
            tracing::error!(%error, what, "a record could not be written");
        }
    }

    async fn sealer(&self, agent: &AgentName) -> Result<Arc<Sealer>, Refusal> {
        if let Some(sealer) = self.sealers.read().get(agent) {
            return Ok(sealer.clone());
        }
        let (state, now, subject) = (self.state.clone(), (self.clock)(), format!("agent:{agent}"));
        let made = tokio::task::spawn_blocking(move || state.data_key(&subject, now)).await;
        let (id, key) = match made {
            Ok(Ok(key)) => key,
            Ok(Err(error)) => return Err(unrecorded(&error.to_string())),
            Err(error) => return Err(unrecorded(&error.to_string())),
        };
        let mut sealers = self.sealers.write();
        if let Some(sealer) = sealers.get(agent) {
            return Ok(sealer.clone());
        }
        // A salt of its own makes the sealer's subkey unique, so that its counter may start at zero.
        let salt = clock::random().map_err(|e| unrecorded(&e.to_string()))?;
        let sealer = Sealer::new(&key, id, salt).map_err(|e| unrecorded(&e.to_string()))?;
        Ok(sealers.entry(agent.clone()).or_insert(Arc::new(sealer)).clone())
    }

    fn seal(
        &self,
        sealer: &Sealer,
        action: ActionId,
        kind: &str,
        said: &[u8],
    ) -> Result<(Digest, Vec<u8>), Refusal> {
        let salt = clock::random::<32>().map_err(|e| unrecorded(&e.to_string()))?;
        if said.len() > self.payload_bytes_max {
            // Too large to keep. The record commits to it and the salt is kept, so that whoever has
            // the payload can show that it was this one.
            let place = format!("{action}/{kind}/salt");
            let sealed = sealer.seal(place.as_bytes(), &salt).map_err(|e| unrecorded(&e.to_string()))?;
            return Ok((castra_protect::commitment(&salt, said), sealed));
        }
        let place = format!("{action}/{kind}");
        sealer.seal_committed(place.as_bytes(), &salt, said).map_err(|e| unrecorded(&e.to_string()))
    }

    fn append(&self, entry: Vec<u8>, payload: Vec<u8>) -> Result<Appended, Refusal> {
        self.log.append(entry, payload).map_err(|e| log_refusal(&e))
    }

    async fn durable(&self, index: u64) -> Result<(), Refusal> {
        let started = Instant::now();
        let done = self.log.durable(index).await.map_err(|e| log_refusal(&e));
        self.metrics.durable_wait(started.elapsed());
        done
    }
}

fn encode(record: &Record<'_>) -> Result<Vec<u8>, Refusal> {
    record.encode().map_err(|e| unrecorded(&e.to_string()))
}

fn unrecorded(why: &str) -> Refusal {
    tracing::error!(why, "an action could not be recorded and is refused");
    Refusal::new(
        Step::Record,
        RefusalCode::Unrecorded,
        "the action could not be recorded, so it may not happen",
    )
    .advise("Ask the operator to look at the gate's log and disk (castra doctor)")
}

fn log_refusal(error: &LogError) -> Refusal {
    unrecorded(&error.to_string())
}

/// What the caller said and from where, as one JSON object; kept sealed beside the intent.
fn request_payload(decided: &Decided) -> Vec<u8> {
    let action = decided.action();
    let source = format!("{{\"source\":\"{}\",\"external\":{},", action.source, action.external);
    let mut said = Vec::with_capacity(source.len() + action.request.len() + 16);
    said.extend_from_slice(source.as_bytes());
    let flow = action.flow.as_ref().map(|judgement| serde_json::to_vec(&flow_json(&judgement.facts)));
    let approval = action.approval.as_ref().map(|approval| {
        let by: Vec<&str> = approval.by.iter().map(|by| &**by).collect();
        serde_json::to_vec(&serde_json::json!({ "by": by, "age": approval.age_secs }))
    });
    let facts: [(&str, Option<serde_json::Result<Vec<u8>>>); 5] = [
        ("flow", flow),
        ("approval", approval),
        ("particulars", action.particulars.some().map(serde_json::to_vec)),
        ("findings", Some(&action.findings).filter(|f| !f.is_empty()).map(serde_json::to_vec)),
        ("delegation", Some(&action.agent.delegation).filter(|d| !d.is_empty()).map(serde_json::to_vec)),
    ];
    // What was decided on and does not stand in the request, so that the decision can be replayed.
    for (name, value) in facts {
        if let Some(Ok(value)) = value {
            said.extend_from_slice(format!("\"{name}\":").as_bytes());
            said.extend_from_slice(&value);
            said.push(b',');
        }
    }
    said.extend_from_slice(b"\"request\":");
    said.extend_from_slice(&action.request);
    said.push(b'}');
    said
}

/// The facts of flow control, by the names that policies have for them.
fn flow_json(facts: &FlowFacts) -> serde_json::Value {
    let texts = |of: &[Arc<str>]| of.iter().map(|text| &**text).collect::<Vec<&str>>().into();
    let pairs: [(&str, serde_json::Value); 12] = [
        ("coverage", facts.coverage.as_str().into()),
        ("described", facts.described.into()),
        ("tainted", facts.tainted.into()),
        ("prompted", facts.prompted.into()),
        ("secret", facts.secret.into()),
        ("suspect", facts.suspect.into()),
        ("intended", facts.intended.into()),
        ("unfounded", texts(&facts.unfounded)),
        ("unseen", texts(&facts.unseen)),
        ("injected", texts(&facts.injected)),
        ("active", texts(&facts.active)),
        ("leaking", texts(&facts.leaking)),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<serde_json::Map<_, _>>().into()
}

/// An action whose decision is written down.
pub(crate) enum Recorded {
    /// It may happen.
    Permitted(Permit),
    /// It may not.
    Denied(Denied),
    /// It may once a person has said so.
    Asked(Asked),
}

/// A recorded question to a person.
pub(crate) struct Asked {
    pub(crate) question: Question,
    pub(crate) receipt: String,
}

/// A recorded no.
pub(crate) struct Denied {
    pub(crate) verdict: Verdict,
    pub(crate) receipt: String,
}

/// The right to act once, on an action whose intent is written; only [`Recorder::intent`] gives one.
/// Its outcome is written exactly once, at the latest when it is dropped.
pub(crate) struct Permit {
    recorder: Arc<Recorder>,
    sealer: Arc<Sealer>,
    action: ActionId,
    operation: castra_core::Operation,
    decision: Decision,
    inspect: Option<StreamMode>,
    part: Option<Arc<Part>>,
    intent: u64,
    waits: bool,
    started: Instant,
    receipt: String,
    concluded: bool,
    _slot: Slot,
}

/// How an action ended.
pub(crate) struct Ending<'a> {
    pub(crate) status: Status,
    pub(crate) code: Option<&'a str>,
    /// What came back, as the caller will see it.
    pub(crate) said: &'a [u8],
    /// How much of the time was spent waiting for the server.
    pub(crate) upstream: Duration,
    /// What else the record says.
    pub(crate) noted: Noted<'a>,
}

/// What the record of an outcome says beside how it ended.
#[derive(Default)]
pub(crate) struct Noted<'a> {
    /// Kinds of what inspectors saw in the answer.
    pub(crate) findings: &'a [Arc<str>],
    /// How the answer was inspected on its way.
    pub(crate) inspection: Option<StreamMode>,
    /// Which model answered.
    pub(crate) model: Option<ModelUse<'a>>,
}

impl Permit {
    /// Names the action.
    pub(crate) fn action(&self) -> ActionId {
        self.action
    }

    /// Receipt of the intent: all that is known before the end.
    pub(crate) fn intent_receipt(&self) -> &str {
        &self.receipt
    }

    /// How the answer is to be inspected, where a policy that permitted says so.
    pub(crate) fn inspect(&self) -> Option<StreamMode> {
        self.inspect
    }

    /// The action's part in its run, and the index of its intent.
    pub(crate) fn part(&self) -> Option<(&Arc<Part>, u64)> {
        self.part.as_ref().map(|part| (part, self.intent))
    }

    /// Text came that strangers may have written: an answer, or a question on the way to it. It may leave
    /// when [`Permit::settle`] has returned, or when the outcome is recorded.
    pub(crate) fn received(&self, text: &str) {
        if let Some(part) = &self.part {
            part.received(text, self.intent);
        }
    }

    /// Returns when what the run has learned cannot be lost.
    pub(crate) async fn settle(&self) -> Result<(), Refusal> {
        match &self.part {
            Some(part) => part.settle().await,
            None => Ok(()),
        }
    }

    /// Records the outcome; the answer may leave when this returns. Gives the receipt.
    pub(crate) async fn conclude(mut self, ending: &Ending<'_>) -> Result<String, Refusal> {
        let appended = self.outcome(ending)?;
        if self.waits {
            self.recorder.durable(appended.index).await?;
        }
        self.settle().await?;
        let overhead = self.started.elapsed().saturating_sub(ending.upstream);
        self.recorder.metrics.overhead(overhead);
        Ok(self.recorder.log.receipt_header(&appended).to_string())
    }

    /// Records the outcome of something whose caller is gone, so that nobody waits for it.
    pub(crate) fn abandon(mut self, ending: &Ending<'_>) {
        if let Err(refusal) = self.outcome(ending) {
            tracing::error!(%refusal, "the outcome of an abandoned action could not be recorded");
        }
    }

    fn outcome(&mut self, ending: &Ending<'_>) -> Result<Appended, Refusal> {
        let recorder = &self.recorder;
        let (commit, sealed) = recorder.seal(&self.sealer, self.action, "outcome", ending.said)?;
        let entry = encode(&Record::Outcome(Outcome {
            time: (recorder.clock)(),
            action: self.action,
            intent: self.intent,
            status: ending.status,
            code: ending.code.map(Cow::Borrowed),
            commit: Some(commit),
            bytes: ending.said.len() as u64,
            micros: u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
            findings: ending.noted.findings.iter().map(|kind| Cow::Borrowed(&**kind)).collect(),
            inspection: ending.noted.inspection,
            model: ending.noted.model.clone().map(Box::new),
        }))?;
        let appended = recorder.append(entry, sealed)?;
        let counted = match self.decision {
            Decision::Allow => Counted::Allow,
            Decision::Deny => Counted::Deny,
            Decision::Ask => Counted::Ask,
        };
        recorder.metrics.action(self.operation, counted, counted_outcome(ending.status));
        self.concluded = true;
        Ok(appended)
    }
}

fn counted_outcome(status: Status) -> CountedOutcome {
    match status {
        Status::Ok | Status::ToolError | Status::Error => CountedOutcome::Answered,
        Status::Refused => CountedOutcome::Refused,
        Status::Cancelled => CountedOutcome::Cancelled,
        Status::Timeout | Status::UpstreamFailed => CountedOutcome::Failed,
    }
}

impl Drop for Permit {
    /// The caller went away, or the gate cut it off: that is an outcome too.
    fn drop(&mut self) {
        if self.concluded {
            return;
        }
        let ending = Ending {
            status: Status::Cancelled,
            code: None,
            said: b"",
            upstream: Duration::ZERO,
            noted: Noted::default(),
        };
        if let Err(refusal) = self.outcome(&ending) {
            tracing::error!(%refusal, "the outcome of a cancelled action could not be recorded");
        }
    }
}

/// Counts refusals of the current second: those of nobody known together, those of each agent apart,
/// so that none can fill the disk or keep the others' refusals off the record.
#[derive(Default)]
struct RefusalRate {
    counts: Mutex<RefusalCounts>,
}

#[derive(Default)]
struct RefusalCounts {
    second: i64,
    of_this_second: HashMap<Option<AgentName>, u32>,
    left_out: u64,
}

impl RefusalRate {
    /// Whether to record one now, and how many were left out before.
    fn admit(&self, now: Timestamp, agent: Option<&AgentName>) -> Option<u64> {
        let mut counts = self.counts.lock();
        if counts.second != now.secs() {
            counts.second = now.secs();
            counts.of_this_second.clear();
        }
        let count = counts.of_this_second.entry(agent.cloned()).or_default();
        *count = count.saturating_add(1);
        if *count <= REFUSALS_PER_SECOND_MAX {
            return Some(std::mem::take(&mut counts.left_out));
        }
        counts.left_out += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_counted_not_written() {
        let (rate, now) = (RefusalRate::default(), Timestamp::from_secs(100));
        let agent = AgentName::new("flooder").unwrap();
        for who in [None, Some(&agent)] {
            let written = (0..1000).filter(|_| rate.admit(now, who).is_some()).count();
            assert_eq!(written as u32, REFUSALS_PER_SECOND_MAX);
        }
        let other = AgentName::new("other").unwrap();
        assert_eq!(rate.admit(now, Some(&other)), Some(1000 - u64::from(REFUSALS_PER_SECOND_MAX)));
        assert_eq!(rate.admit(now.plus_secs(1), None), Some(0));
    }
}
