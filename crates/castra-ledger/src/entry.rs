//! What one entry of the log says: the versioned record schema, as compact JSON so that an auditor
//! can read it with any tool.
//!
//! Version 1 has four kinds. An `intent` is what an agent tries and what was decided; an `outcome`
//! is how it ended and names its intent; a `refusal` is a request that never became an action; an
//! `event` is something that the operator or the system did. What an action carried is not in the
//! log: only a salted commitment to it ([`commitment`]). Fields may be added within version 1, so
//! readers pass over those that they do not know; a field that changes its meaning makes version 2.

use std::{borrow::Cow, net::IpAddr};

use castra_core::{
    ActionId, AgentName, AuthMethod, Decision, Digest, Effect, Operation, Protocol, RefusalCode, Step,
    StreamMode, Timestamp,
};
use serde::{Deserialize, Serialize, Serializer};

use crate::merkle;

/// Bytes of an entry: its length is two bytes in an entry bundle (C2SP tlog-tiles, "Log entries").
pub const ENTRY_BYTES_MAX: usize = 65_535;

const VERSION: u64 = 1;

// Where texts are cut, in bytes. JSON writes a byte as at most six (`\u001f`), so that a record
// with every text at its limit still fits an entry: `longest_records_fit` checks the sum.
const NAME_MAX: usize = 256;
const METHOD_MAX: usize = 128;
const RESOURCE_MAX: usize = 2048;
const TEXT_MAX: usize = 2048;
const POLICY_MAX: usize = 128;
const POLICIES_MAX: usize = 16;

/// Bytes that are not an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Larger than an entry can be.
    #[error("an entry of {bytes} bytes does not fit the log, which takes {ENTRY_BYTES_MAX}")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// Not JSON of the schema.
    #[error("it is not a record: {cause}")]
    Malformed {
        /// What the JSON reader met, and where.
        cause: String,
    },
    /// A version that this build does not know.
    #[error("it is a record of version {version}, which this build of Castra cannot read; use a newer one")]
    Version {
        /// The version that it states.
        version: u64,
    },
    /// A kind that version 1 does not have.
    #[error("version {VERSION} has no records of kind {kind:?}")]
    Kind {
        /// The kind that it states.
        kind: String,
    },
}

/// SHA-256 over the salt and the payload. The salt is kept with the sealed payload, so that nobody
/// who reads the log can confirm a guess, and erasing the payload erases the way to check it.
pub fn commitment(salt: &[u8; 32], payload: &[u8]) -> Digest {
    merkle::hash(&[salt, payload])
}

/// One record of the log.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record<'a> {
    /// An agent tries something.
    Intent(Intent<'a>),
    /// How that ended.
    Outcome(Outcome<'a>),
    /// A request never became an action.
    Refusal(RefusedRequest<'a>),
    /// The operator or the system did something.
    Event(Event<'a>),
}

/// What an agent tries, and what was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intent<'a> {
    /// When it was decided.
    pub time: Timestamp,
    /// Names the action.
    pub action: ActionId,
    /// Who.
    pub agent: AgentName,
    /// Names the credential without giving it away; cut at 256 bytes.
    #[serde(borrow, serialize_with = "cut::<NAME_MAX, _>")]
    pub credential: Cow<'a, str>,
    /// How the agent proved itself.
    pub auth: AuthMethod,
    /// The run, if the agent named one; cut at 256 bytes.
    #[serde(
        borrow,
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "cut_some::<NAME_MAX, _>"
    )]
    pub run: Option<Cow<'a, str>>,
    /// The protocol that it came in.
    pub protocol: Protocol,
    /// Its revision, such as `2026-07-28`; cut at 128 bytes.
    #[serde(borrow, serialize_with = "cut::<METHOD_MAX, _>")]
    pub revision: Cow<'a, str>,
    /// The verb that policies know.
    pub operation: Operation,
    /// The protocol's own name for it, such as `tools/call`; cut at 128 bytes.
    #[serde(borrow, serialize_with = "cut::<METHOD_MAX, _>")]
    pub method: Cow<'a, str>,
    /// What it is directed at, as `Tool::"server/name"`; cut at 2,048 bytes.
    #[serde(borrow, serialize_with = "cut::<RESOURCE_MAX, _>")]
    pub resource: Cow<'a, str>,
    /// What that does to the world.
    pub effect: Effect,
    /// What was decided.
    pub decision: Decision,
    /// False in observe mode: a denied action went ahead all the same.
    pub enforced: bool,
    /// The policies that determined the decision; at most 16 of 128 bytes each.
    #[serde(serialize_with = "cut_list")]
    pub policies: Vec<Cow<'a, str>>,
    /// Why, in a sentence; cut at 2,048 bytes.
    #[serde(borrow, serialize_with = "cut::<TEXT_MAX, _>")]
    pub reason: Cow<'a, str>,
    /// Digest of the policy set that decided; cut at 128 bytes.
    #[serde(borrow, serialize_with = "cut::<POLICY_MAX, _>")]
    pub policy_set: Cow<'a, str>,
    /// [`commitment`] to what the action carried.
    pub commit: Digest,
    /// Bytes of what the action carried.
    pub bytes: u64,
}

/// How an action ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome<'a> {
    /// When it ended.
    pub time: Timestamp,
    /// Names the action.
    pub action: ActionId,
    /// Index of the action's intent in this log.
    pub intent: u64,
    /// How.
    pub status: Status,
    /// The protocol's error code or Castra's refusal code, if there was one; cut at 128 bytes.
    #[serde(
        borrow,
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "cut_some::<METHOD_MAX, _>"
    )]
    pub code: Option<Cow<'a, str>>,
    /// [`commitment`] to the answer, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Digest>,
    /// Bytes of the answer.
    pub bytes: u64,
    /// Microseconds from the intent to the end.
    pub micros: u64,
    /// Kinds of what inspectors saw in the answer; at most 16 of 128 bytes each.
    #[serde(default, skip_serializing_if = "Vec::is_empty", serialize_with = "cut_list")]
    pub findings: Vec<Cow<'a, str>>,
    /// How the answer was inspected on its way; absent where nothing inspects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspection: Option<StreamMode>,
    /// Which model answered and what that used, for an action that asks a model.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Box<ModelUse<'a>>>,
}

/// Which model answered, and what that used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelUse<'a> {
    /// The version of the route that was taken, by its id; cut at 128 bytes.
    #[serde(borrow, serialize_with = "cut::<METHOD_MAX, _>")]
    pub version: Cow<'a, str>,
    /// Digest of what makes that version: provider, model, parameters, system prompt, tools; in hex.
    #[serde(borrow, serialize_with = "cut::<METHOD_MAX, _>")]
    pub digest: Cow<'a, str>,
    /// The provider's name for the model that answered; cut at 256 bytes.
    #[serde(borrow, serialize_with = "cut::<NAME_MAX, _>")]
    pub model: Cow<'a, str>,
    /// Tokens of the request.
    pub input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// Whether the provider said how many tokens it were; otherwise they are estimated.
    pub reported: bool,
    /// What it cost in millionths of the price table's currency; absent where the price is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
}

/// How an action can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// As wished.
    Ok,
    /// The tool ran and reported an error.
    ToolError,
    /// The upstream answered with a protocol error.
    Error,
    /// Castra refused it.
    Refused,
    /// The caller went away or took it back.
    Cancelled,
    /// The upstream did not answer in time.
    Timeout,
    /// The upstream could not be reached, died, or answered nonsense.
    UpstreamFailed,
}

impl Status {
    /// The word that records and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ToolError => "tool-error",
            Self::Error => "error",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::UpstreamFailed => "upstream-failed",
        }
    }
}

/// A request that never became an action: unauthenticated, malformed, over a limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefusedRequest<'a> {
    /// When.
    pub time: Timestamp,
    /// Where on the path.
    pub step: Step,
    /// What kind.
    pub code: RefusalCode,
    /// Why, in a sentence; cut at 2,048 bytes.
    #[serde(borrow, serialize_with = "cut::<TEXT_MAX, _>")]
    pub reason: Cow<'a, str>,
    /// Who, if that was known by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// Where it came from, if that is worth keeping: above all when nobody is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
}

/// Something that the operator or the system did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event<'a> {
    /// When.
    pub time: Timestamp,
    /// What.
    pub event: EventKind,
    /// What it happened to: an agent, a policy set, a key, a server; cut at 256 bytes.
    #[serde(
        borrow,
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "cut_some::<NAME_MAX, _>"
    )]
    pub subject: Option<Cow<'a, str>>,
    /// More, in a sentence; may be empty; cut at 2,048 bytes.
    #[serde(borrow, serialize_with = "cut::<TEXT_MAX, _>")]
    pub detail: Cow<'a, str>,
}

/// What events there are. Kinds may be added within version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The gate began to serve.
    Start,
    /// The gate stopped in order.
    Stop,
    /// A policy set took effect.
    PolicyLoaded,
    /// A policy set was wrong; the old one stays.
    PolicyRejected,
    /// An agent was added.
    AgentAdded,
    /// An agent got a new credential.
    AgentRotated,
    /// An agent's credentials were revoked.
    AgentRevoked,
    /// A configuration took effect.
    ConfigReloaded,
    /// A configuration was wrong; the old one stays.
    ConfigRejected,
    /// A key was used outside the path of an action, such as to read a sealed payload.
    KeyUsed,
    /// An upstream server was started or connected.
    ServerStarted,
    /// An upstream server died or could not be started.
    ServerFailed,
    /// A server's catalogue changed.
    CatalogueChanged,
    /// A server asked a client something, in or outside of a call.
    ClientAsked,
    /// A client answered a server's question.
    ClientAnswered,
    /// A peer's card was seen for the first time, and is pinned.
    PeerPinned,
    /// A peer shows another card than the pinned one, and is closed until that is accepted.
    PeerChanged,
    /// A changed card was accepted.
    PeerAccepted,
    /// A peer's card could not be had, or not be believed.
    PeerFailed,
    /// Another version of a model route serves, or with another share.
    ModelPromoted,
    /// The last promotion of a model route was taken back.
    ModelRolledBack,
    /// A person was asked whether an action may happen.
    ApprovalAsked,
    /// A person said that an action may happen.
    ApprovalGiven,
    /// A person said that an action may not happen.
    ApprovalDenied,
    /// A person's word was used up by the action that it was for.
    ApprovalUsed,
    /// An event that a later build wrote; never written.
    #[serde(other, skip_serializing)]
    Unknown,
}

impl<'a> Record<'a> {
    /// Writes the record as an entry: compact JSON that begins with `v` and `kind`. Longer texts
    /// are cut where their field says, and end in `…[N bytes cut]`.
    ///
    /// # Errors
    /// For [`EventKind::Unknown`] only; a record of this crate's making always fits an entry.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        #[derive(Serialize)]
        struct Versioned<'r, 'a> {
            v: u64,
            #[serde(flatten)]
            record: &'r Record<'a>,
        }
        let mut entry = Vec::with_capacity(768);
        serde_json::to_writer(&mut entry, &Versioned { v: VERSION, record: self }).map_err(malformed)?;
        if entry.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLong { bytes: entry.len() });
        }
        Ok(entry)
    }

    /// Reads an entry. Strict on all that version 1 writes; fields that it does not know are
    /// passed over.
    ///
    /// # Errors
    /// When it is too long, not JSON of the schema, or of another version.
    pub fn decode(entry: &'a [u8]) -> Result<Self, EntryError> {
        #[derive(Deserialize)]
        struct Head<'h> {
            v: u64,
            #[serde(borrow)]
            kind: Cow<'h, str>,
        }
        if entry.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLong { bytes: entry.len() });
        }
        let head: Head<'_> = serde_json::from_slice(entry).map_err(malformed)?;
        if head.v != VERSION {
            return Err(EntryError::Version { version: head.v });
        }
        match &*head.kind {
            "intent" => serde_json::from_slice(entry).map(Self::Intent),
            "outcome" => serde_json::from_slice(entry).map(Self::Outcome),
            "refusal" => serde_json::from_slice(entry).map(Self::Refusal),
            "event" => serde_json::from_slice(entry).map(Self::Event),
            other => return Err(EntryError::Kind { kind: other.chars().take(40).collect() }),
        }
        .map_err(malformed)
    }

    /// When it happened.
    pub fn time(&self) -> Timestamp {
        match self {
            Self::Intent(record) => record.time,
            Self::Outcome(record) => record.time,
            Self::Refusal(record) => record.time,
            Self::Event(record) => record.time,
        }
    }
}

fn malformed(cause: serde_json::Error) -> EntryError {
    EntryError::Malformed { cause: cause.to_string() }
}

/// The text, or as much of it as fits `max` bytes together with a mark of how much is missing.
fn shortened(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    // `…[` and ` bytes cut]` take 15 bytes, a number up to 20.
    let mut end = max.saturating_sub(35);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}\u{2026}[{} bytes cut]", text.get(..end).unwrap_or_default(), text.len() - end))
}

fn cut<const MAX: usize, S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&shortened(text, MAX))
}

fn cut_some<const MAX: usize, S: Serializer>(text: &Option<Cow<'_, str>>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_some(&text.as_deref().map(|text| shortened(text, MAX)))
}

fn cut_list<S: Serializer>(list: &[Cow<'_, str>], to: S) -> Result<S::Ok, S::Error> {
    let shown = if list.len() <= POLICIES_MAX { list.len() } else { POLICIES_MAX - 1 };
    let texts = list.iter().take(shown).map(|text| shortened(text, POLICY_MAX));
    let more = (list.len() > shown).then(|| Cow::Owned(format!("\u{2026}[{} more cut]", list.len() - shown)));
    to.collect_seq(texts.chain(more))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn action(n: u64) -> ActionId {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&n.to_be_bytes());
        ActionId::new(Timestamp::from_secs(1_795_557_868), random)
    }

    pub(crate) fn intent(n: u64) -> Record<'static> {
        Record::Intent(Intent {
            time: Timestamp::from_secs(1_795_557_868),
            action: action(n),
            agent: AgentName::new("build-bot").expect("name"),
            credential: "tok_7".into(),
            auth: AuthMethod::Token,
            run: None,
            protocol: Protocol::Mcp,
            revision: "2026-07-28".into(),
            operation: Operation::Call,
            method: "tools/call".into(),
            resource: r#"Tool::"files/read_text_file""#.into(),
            effect: Effect::Read,
            decision: Decision::Allow,
            enforced: true,
            policies: vec!["readers".into()],
            reason: "permitted by readers".into(),
            policy_set: "3f2a".into(),
            commit: commitment(&[7; 32], b"{}"),
            bytes: 2,
        })
    }

    pub(crate) fn outcome(n: u64, intent: u64) -> Record<'static> {
        Record::Outcome(Outcome {
            time: Timestamp::from_secs(1_795_557_869),
            action: action(n),
            intent,
            status: Status::Ok,
            code: None,
            commit: Some(commitment(&[8; 32], b"[]")),
            bytes: 2,
            micros: 950,
            findings: Vec::new(),
            inspection: None,
            model: None,
        })
    }

    #[test]
    fn an_intent_reads_as_documented() {
        let entry = String::from_utf8(intent(1).encode().expect("encodes")).expect("text");
        assert_eq!(
            entry,
            concat!(
                r#"{"v":1,"kind":"intent","time":"2026-11-24T22:04:28.000000Z","action":"01M87SDGF00000000000000001","#,
                r#""agent":"build-bot","credential":"tok_7","auth":"token","protocol":"mcp","revision":"2026-07-28","#,
                r#""operation":"call","method":"tools/call","resource":"Tool::\"files/read_text_file\"","effect":"read","#,
                r#""decision":"allow","enforced":true,"policies":["readers"],"reason":"permitted by readers","#,
                r#""policy_set":"3f2a","commit":"605dcbfd3c387c45b6db7e7b1fb961bdd75d762260c4879b3c3b4f15edacad42","bytes":2}"#
            )
        );
    }

    #[test]
    fn every_kind_goes_both_ways() {
        let refusal = RefusedRequest {
            time: Timestamp(1),
            step: Step::Identify,
            code: RefusalCode::BadCredential,
            reason: "the token has expired".into(),
            agent: None,
            source: Some([127, 0, 0, 1].into()),
        };
        let event = Event {
            time: Timestamp(2),
            event: EventKind::AgentAdded,
            subject: Some("build-bot".into()),
            detail: "by the \"operator\"\n".into(),
        };
        let Record::Outcome(plain) = outcome(4, 1) else { panic!("an outcome") };
        let of_a_model = Record::Outcome(Outcome {
            findings: vec!["secret.aws-access-key".into()],
            inspection: Some(StreamMode::Window),
            model: Some(Box::new(ModelUse {
                version: "v2".into(),
                digest: "3f2a".into(),
                model: "some-model".into(),
                input_tokens: 12,
                output_tokens: 7,
                reported: true,
                cost_micros: Some(95),
            })),
            ..plain
        });
        for record in [intent(3), outcome(3, 0), of_a_model, Record::Refusal(refusal), Record::Event(event)] {
            let entry = record.encode().expect("encodes");
            assert_eq!(Record::decode(&entry), Ok(record));
        }
    }

    #[test]
    fn what_is_not_version_1_is_refused() {
        let good = String::from_utf8(outcome(1, 0).encode().expect("encodes")).expect("text");
        let decode = |text: &str| Record::decode(text.as_bytes()).map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(decode(&good.replace(r#""bytes":2"#, r#""bytes":2,"later":[{}]"#)), Ok(()));
        for (bad, says) in [
            (good.replace(r#""v":1"#, r#""v":2"#), "version 2"),
            (good.replace("\"outcome\"", "\"dream\""), "\"dream\""),
            (good.replace(r#""v":1,"#, ""), "`v`"),
            (good.replace(r#""v":1,"#, r#""v":1,"v":1,"#), "duplicate"),
            (good.replace(r#""bytes":2"#, r#""bytes":2,"bytes":3"#), "duplicate"),
            (good.replace("\"ok\"", "\"fine\""), "fine"),
            (good.replace("2026-11-24T", "2026-13-24T"), "time"),
            (good.replace('}', ""), "EOF"),
            (format!("{good}{good}"), "trailing"),
            ("[".repeat(60_000), "not a record"),
            (format!("{good:60000}{good:10000}"), "70000 bytes"),
        ] {
            let error = decode(&bad).expect_err("refused");
            assert!(error.contains(says), "{error}: {says}");
        }
        let unknown =
            r#"{"v":1,"kind":"event","time":"2026-11-24T00:00:00Z","event":"moon-rose","detail":""}"#;
        let Ok(Record::Event(event)) = Record::decode(unknown.as_bytes()) else { panic!("an event") };
        assert_eq!(event.event, EventKind::Unknown);
        assert!(Record::Event(event).encode().is_err());
    }

    #[test]
    fn longest_records_fit() {
        let long = || Cow::<'static, str>::from("\u{1f}".repeat(100_000));
        let Record::Intent(intent) = intent(1) else { panic!("an intent") };
        let record = Record::Intent(Intent {
            credential: long(),
            run: Some(long()),
            revision: long(),
            method: long(),
            resource: long(),
            policies: vec![long(); 1000],
            reason: long(),
            policy_set: long(),
            agent: AgentName::new(&"a".repeat(64)).expect("name"),
            ..intent
        });
        let entry = record.encode().expect("fits");
        assert!(entry.len() > ENTRY_BYTES_MAX / 2, "{}", entry.len());
        let Ok(Record::Intent(read)) = Record::decode(&entry) else { panic!("an intent") };
        assert!(read.reason.ends_with("\u{2026}[97987 bytes cut]"), "{}", read.reason.len());
        assert_eq!((read.reason.len(), read.policies.len()), (2033, 16));
        assert_eq!(read.policies[15], "\u{2026}[985 more cut]");
    }

    proptest! {
        #[test]
        fn texts_are_cut_at_their_limit(text in "\\PC{0,200}", max in 40_usize..300) {
            let short = shortened(&text, max);
            prop_assert!(short.len() <= max);
            prop_assert_eq!(text.len() <= max, *short == *text);
        }

        #[test]
        fn any_text_goes_both_ways(reason in "(?s).{0,300}", subject in proptest::option::of("(?s).{0,50}")) {
            let record = Record::Event(Event {
                time: Timestamp(5), event: EventKind::Stop, subject: subject.map(Cow::Owned), detail: reason.into(),
            });
            let entry = record.encode().expect("encodes");
            prop_assert_eq!(Record::decode(&entry), Ok(record));
        }
    }
}
