//! A run: what the gate has seen of one task, and what that says of the next call.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use castra_core::Coverage;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ActiveSpan, ArgumentKind, Confidentiality, Content, Judgement, Mark, Marks, Origin, Output, Returned,
    Secret, Tool,
    active::{Target, targets},
    json::{self, Leaf, Scalar},
    judge,
    known::Known,
    labels::{Label, Labels, Why},
    limits::{HELD_MAX, MARKS_MAX, OWN_MARKS_MAX, PAYEES_MAX},
    mark::{kept_marks, marks},
    prompt::{Prompt, divide},
    records::{Lesson, learn},
    scanned::Scanned,
    seen::Seen,
    text::{hash, is_stop, words},
};

/// The form of a serialised run.
const VERSION: u32 = 1;

/// One task of one agent, as the gate sees it.
///
/// A run only ever gets stricter by itself: what makes it laxer is what the user says and what trusted
/// tools return. When a bound is reached, what does not fit counts as untrusted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    version: u32,
    pub(crate) coverage: Coverage,
    pub(crate) prompt: Prompt,
    pub(crate) tainted: bool,
    pub(crate) secret: bool,
    attacked: bool,
    lost: bool,
    pub(crate) known: Known,
    pub(crate) seen: Seen,
    pub(crate) labels: Labels,
    spent: BTreeMap<Box<str>, f64>,
    spent_full: bool,
    held: BTreeSet<u64>,
    own_marks: HashSet<Mark>,
    own_marks_full: bool,
    marks: Vec<Mark>,
}

/// What is known of a run as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunFacts {
    /// Whether it has read anything that strangers may have written.
    pub tainted: bool,
    /// Whether it has read a secret source.
    pub secret: bool,
    /// Whether an attack on it was seen.
    pub suspect: bool,
    /// Whether anything that the user said is known.
    pub prompted: bool,
}

impl Run {
    /// A run that begins now.
    pub fn new(coverage: Coverage) -> Self {
        Self {
            version: VERSION,
            coverage,
            prompt: Prompt::default(),
            tainted: false,
            secret: false,
            attacked: false,
            lost: false,
            known: Known::default(),
            seen: Seen::default(),
            labels: Labels::default(),
            spent: BTreeMap::new(),
            spent_full: false,
            held: BTreeSet::new(),
            own_marks: HashSet::new(),
            own_marks_full: false,
            marks: Vec::new(),
        }
    }

    /// A run of which nothing is known any more, or was ever known: tainted, with everything seen and
    /// nothing said. What the user says later is not taken either, because it cannot be told from what
    /// tools said before.
    pub fn lost() -> Self {
        let mut run = Self::new(Coverage::Full);
        (run.lost, run.tainted, run.secret) = (true, true, true);
        run.seen.overflow();
        run.labels.overflow();
        run
    }

    /// Reads a run back that was serialised as JSON; what cannot be read, or is of another version, is lost.
    pub fn restore(bytes: &[u8]) -> Self {
        match serde_json::from_slice::<Self>(bytes) {
            Ok(run) if run.version == VERSION => run,
            _ => Self::lost(),
        }
    }

    /// Takes what the user said: each new message of the user, once, in order. What a tool of this run said
    /// before is left out, and what the user shows rather than says counts as untrusted text.
    pub fn user_said(&mut self, text: &str) {
        if self.lost {
            return;
        }
        let (own, shown) = divide(&self.seen.subtract(text));
        for text in shown {
            self.received("what the user showed", &text, 0);
        }
        self.prompt.say(&own);
    }

    /// What is known of a call. Changes nothing.
    pub fn judge(&self, tool: &Tool<'_>, arguments: &Value) -> Judgement {
        judge::judge(self, tool, arguments)
    }

    /// The gate asks a person about this call. Until that person approves it (see [`Run::went`]) the run is
    /// suspect, so that people are asked once and not again and again, also for the same call.
    pub fn held(&mut self, tool: &Tool<'_>, arguments: &Value) {
        if self.held.len() >= HELD_MAX {
            self.attacked = true;
        }
        self.held.insert(call_hash(tool, arguments));
    }

    /// The gate saw an attack on this run: from now on it is suspect.
    pub fn attacked(&mut self) {
        self.attacked = true;
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.attacked || !self.held.is_empty()
    }

    /// A call was permitted and goes now; `approved` if a person said so.
    pub fn went(&mut self, tool: &Tool<'_>, arguments: &Value, approved: bool) {
        if approved {
            self.held.remove(&call_hash(tool, arguments));
        }
        if tool.reads() {
            return;
        }
        if !approved {
            self.book(tool, arguments);
        }
        if self.tainted {
            self.mark(arguments);
        }
    }

    /// What went to the payees of a call before: the most of any of them.
    pub(crate) fn spent(&self, tool: &Tool<'_>, arguments: &Value) -> f64 {
        let before = payees(tool, arguments)
            .iter()
            .filter_map(|p| self.spent.get(p.as_str()).copied())
            .fold(0.0, f64::max);
        if self.spent_full { f64::INFINITY } else { before }
    }

    fn book(&mut self, tool: &Tool<'_>, arguments: &Value) {
        let bounded = tool.manifest.args.iter().filter(|(_, kind)| **kind == ArgumentKind::Bounded);
        let sum: f64 = bounded.filter_map(|(name, _)| arguments.get(name)?.as_f64()).sum();
        if sum <= 0.0 {
            return;
        }
        for payee in payees(tool, arguments) {
            if self.spent.len() >= PAYEES_MAX && !self.spent.contains_key(payee.as_str()) {
                self.spent_full = true;
                return;
            }
            *self.spent.entry(payee.into()).or_default() += sum;
        }
    }

    /// Marks what a tainted run writes, as far as it is not the user's own.
    fn mark(&mut self, arguments: &Value) {
        let Some(leaves) = json::leaves(arguments) else {
            self.own_marks_full = true;
            return;
        };
        for text in leaves.iter().filter_map(Leaf::text).filter(|t| !self.is_users(t)).collect::<Vec<_>>() {
            for mark in kept_marks(&text) {
                if self.own_marks.len() >= OWN_MARKS_MAX {
                    self.own_marks_full = true;
                } else {
                    self.own_marks.insert(mark);
                }
                if self.marks.len() < MARKS_MAX {
                    self.marks.push(mark);
                }
            }
        }
    }

    /// Whether a text is the user's, by its words.
    fn is_users(&self, text: &str) -> bool {
        self.prompt.wrote(text)
            || self.known.exact(text).is_some()
            || words(text).all(|w| {
                let w = w.to_lowercase();
                self.prompt.has_word(&w) || is_stop(&w)
            })
    }

    /// Marks of what this run wrote while it was tainted, since this was last asked. Ask after each
    /// [`Run::went`], and keep them where [`Run::returned`] of all runs can look.
    pub fn wrote(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.marks)
    }

    /// A call returned.
    pub fn returned(
        &mut self,
        tool: &Tool<'_>,
        arguments: &Value,
        returned: Returned<'_>,
        stored: &dyn Marks,
    ) {
        let trusted = tool.described && tool.manifest.output == Some(Output::Trusted);
        self.tainted |= !trusted;
        self.secret |= !returned.is_error && is_secret(tool);
        let parsed;
        let value = match returned.content {
            Content::Json(value) => value,
            Content::Text(text) => {
                parsed = Value::from(text);
                &parsed
            }
        };
        let located = self.located(tool, arguments);
        let source = self.seen.source(tool.id, returned.record, located);
        let Some(leaves) = json::leaves(value) else {
            // Nothing of it is learned, and everything may have been in it.
            self.tainted = true;
            self.seen.overflow();
            if declared(tool).is_some() || !located {
                self.labels.overflow();
            }
            return;
        };
        let text = as_text(&leaves);
        if returned.is_error {
            if !trusted {
                self.seen.add(source, &Scanned::new(&text));
            }
            return;
        }
        let text = Scanned::new(&text);
        self.label(tool, source, located, &leaves, &text);
        self.learn(&Heard { tool, arguments, source, value, leaves: &leaves, trusted }, stored);
        if !trusted {
            self.seen.add(source, &text);
        }
    }

    fn learn(&mut self, heard: &Heard<'_>, stored: &dyn Marks) {
        if !heard.tool.described {
            return;
        }
        let echoed: BTreeSet<String> =
            json::texts(heard.arguments).iter().map(|t| t.to_lowercase()).collect();
        let own = std::mem::take(&mut self.own_marks);
        let full = self.own_marks_full;
        let marked = |text: &str| full || marks(text).any(|m| own.contains(&m) || stored.wrote(m));
        if heard.trusted {
            self.learn_trusted(heard, &echoed, &marked);
        }
        let lesson = Lesson {
            manifest: heard.tool.manifest,
            prompt: &self.prompt,
            echoed: &echoed,
            asked: self.asked(heard.arguments),
            source: heard.source,
            marked: &marked,
        };
        learn(&lesson, heard.value, &mut self.known);
        self.own_marks = own;
    }

    /// Learns the fresh leaves of a trusted read. What a tainted run wrote stays untrusted, whoever returns it.
    fn learn_trusted(&mut self, heard: &Heard<'_>, echoed: &BTreeSet<String>, marked: &dyn Fn(&str) -> bool) {
        let (tool, source) = (heard.tool, heard.source);
        let asked = self.asked(heard.arguments);
        for leaf in heard.leaves {
            let Some(text) = leaf.text() else { continue };
            if echoed.contains(&text.to_lowercase()) {
                continue;
            }
            if marked(&text) {
                self.tainted = true;
                self.seen.add(source, &Scanned::new(&text));
                continue;
            }
            if !tool.reads() || !tool.manifest.keys.is_empty() {
                continue;
            }
            self.known.add_exact(&text, source);
            self.known.add_listed(&text, source);
            self.known.add_text(&text);
            for target in targets(&text).into_iter().filter(|t| !t.order && !t.deceptive) {
                self.known.add_exact(&target.name, source);
            }
            if let (true, Scalar::Value(Value::Number(number))) = (asked, leaf.value) {
                number.as_f64().into_iter().for_each(|n| self.known.add_amount(n));
            }
        }
    }

    /// Labels what a result holds.
    fn label(
        &mut self,
        tool: &Tool<'_>,
        source: u32,
        located: bool,
        leaves: &[Leaf<'_>],
        text: &Scanned<'_>,
    ) {
        let server = tool.server().to_owned();
        let label = |why| Label { why, source, server: server.clone() };
        if let Some((places, fields)) = declared(tool) {
            let secret = label(Why::Declared { places });
            for leaf in leaves.iter().filter(|l| fields.is_none_or(|f| f.iter().any(|f| f == l.key))) {
                let Some(value) = leaf.text().filter(|_| matches!(leaf.value, Scalar::Value(_))) else {
                    continue;
                };
                if self.prompt.wrote(&value) {
                    continue;
                }
                let prompt = &self.prompt;
                self.labels.add_text(secret.clone(), &Scanned::new(&value), |_| prompt.wrote(&value));
                if value.chars().count() >= 4 && words(&value).count() <= 6 {
                    self.labels.add_value(secret.clone(), &value);
                }
            }
        } else if tool.reads() && located {
            self.labels.lift(text);
        } else if tool.reads() {
            let seen = &self.seen;
            self.labels.add_text(label(Why::Unlocated), text, |word| seen.in_located(word));
        }
        let prompt = &self.prompt;
        self.labels.add_credentials(
            text.text,
            source,
            tool.server(),
            |value| prompt.wrote(value),
            &self.seen,
        );
    }

    /// Whether the user asked for what a read returns: every text among its arguments is the user's or comes from
    /// a trusted source, or, without any text, the tool's name speaks of what the user speaks of.
    fn located(&self, tool: &Tool<'_>, arguments: &Value) -> bool {
        let Some(leaves) = json::leaves(arguments) else { return false };
        let values: Vec<(&str, String)> = leaves
            .iter()
            .filter(|l| matches!(l.value, Scalar::Value(Value::String(t)) if !t.is_empty()))
            .filter_map(|l| Some((l.key, l.text()?)))
            .collect();
        if values.is_empty() {
            let ids = leaves
                .iter()
                .filter(|l| matches!(l.value, Scalar::Value(Value::Number(_))))
                .filter_map(Leaf::text);
            let nouns = words(tool.name())
                .flat_map(|w| w.split('_'))
                .filter(|w| w.len() > 3 && !SAYS_NOTHING.contains(w));
            return ids.into_iter().any(|id| self.known.has_any_id(&id))
                || nouns.into_iter().any(|w| self.prompt.has_stem(&w.to_lowercase()));
        }
        values.iter().all(|(key, value)| self.is_asked(value) || is_choice(tool, key, value))
    }

    fn is_asked(&self, value: &str) -> bool {
        let days = crate::dates::days(value);
        self.prompt.wrote(value)
            || self.known.exact(value).is_some()
            || self.known.named(value)
            || self.known.has_any_id(value)
            || (!days.is_empty()
                && days.iter().all(|d| self.prompt.days().contains(d) || self.known.days().contains(d)))
            || words(value).all(|w| {
                let w = w.to_lowercase();
                self.prompt.has_stem(&w) || self.known.has_word(&w) || is_stop(&w)
            })
    }

    /// Whether all texts among the arguments, and at least one, stand in the prompt.
    fn asked(&self, arguments: &Value) -> bool {
        let leaves = json::leaves(arguments).unwrap_or_default();
        let mut any = false;
        let all = leaves
            .iter()
            .filter(|l| matches!(l.value, Scalar::Value(Value::String(_))))
            .filter_map(Leaf::text)
            .filter(|t| !t.is_empty())
            .all(|text| {
                any = true;
                self.prompt.within(&text)
            });
        any && all
    }

    /// Untrusted text came from elsewhere: a peer's answer, a resource, a result of an agent's own tool.
    pub fn received(&mut self, source: &str, text: &str, record: u64) {
        self.tainted = true;
        let index = self.seen.source(source, record, true);
        if text.len() > crate::limits::RESULT_BYTES_MAX {
            self.seen.overflow();
            self.labels.overflow();
            return;
        }
        let prompt = &self.prompt;
        self.labels.add_credentials(text, index, source, |value| prompt.wrote(value), &self.seen);
        self.seen.add(index, &Scanned::new(text));
    }

    pub(crate) fn labels_stand(&self) -> bool {
        self.labels.any()
    }

    /// What is known of the run as a whole.
    pub fn facts(&self) -> RunFacts {
        RunFacts {
            tainted: self.tainted,
            secret: self.secret,
            suspect: self.is_suspect(),
            prompted: !self.prompt.is_empty(),
        }
    }

    /// Links, images and addresses in an answer to the user that no trusted source gave: those whose place was
    /// seen in untrusted text, those that only look like another, and, in a tainted run, images of any place,
    /// because a client fetches them unasked.
    pub fn answer(&self, text: &str) -> Vec<ActiveSpan> {
        if !self.tainted {
            return Vec::new();
        }
        let found = targets(text).into_iter().filter(|t| !t.order && !self.gave(t, text));
        found
            .filter_map(|target| {
                let host = target.name.split(['/', '?', '#']).next().unwrap_or_default();
                let place = self.seen.find_target(&target.name).or_else(|| self.seen.find_target(host));
                let image = text.get(..target.place.start).is_some_and(|t| {
                    t.ends_with("](") || t.ends_with("src=\"") || t.ends_with("src='") || t.ends_with("](<")
                });
                match place {
                    Some(p) => Some(Origin::Untrusted {
                        record: p.record,
                        source: p.source.as_str().into(),
                        excerpt: p.excerpt,
                    }),
                    None if image || target.deceptive || self.lost => Some(Origin::Nowhere),
                    None => None,
                }
                .map(|origin| ActiveSpan { place: target.place, origin })
            })
            .collect()
    }

    /// Whether a trusted source gave a value as it is.
    pub(crate) fn exact(&self, text: &str) -> bool {
        self.prompt.wrote(text) || self.known.exact(text).is_some() || self.known.named(text)
    }

    /// Whether a trusted source gave a link, an address, an order that stands in this text.
    pub(crate) fn gave(&self, target: &Target, text: &str) -> bool {
        if target.order {
            return self.prompt.within(&target.name);
        }
        let raw = text.get(target.place.clone()).unwrap_or_default();
        let raw = raw.trim_matches(|c: char| ".,;:!?()".contains(c));
        let known = || {
            self.prompt.has_target(&target.name)
                || self.known.exact(&target.name).is_some()
                || self.known.named(&target.name)
        };
        self.exact(raw) || (!target.deceptive && known())
    }

    /// Bytes of memory that the run holds, about.
    pub fn size(&self) -> usize {
        size_of::<Self>()
            + self.prompt.size()
            + self.known.size()
            + self.seen.size()
            + self.labels.size()
            + self.spent.keys().map(|payee| payee.len() + 48).sum::<usize>()
            + crate::seen::table(self.own_marks.capacity(), size_of::<Mark>())
            + self.marks.capacity() * size_of::<Mark>()
    }
}

/// A result on its way to being learned from.
struct Heard<'a> {
    tool: &'a Tool<'a>,
    arguments: &'a Value,
    source: u32,
    value: &'a Value,
    leaves: &'a [Leaf<'a>],
    trusted: bool,
}

/// Words of tool names that say nothing of what they return.
const SAYS_NOTHING: &[&str] = &[
    "list", "read", "search", "find", "fetch", "check", "view", "show", "query", "recent", "most", "with",
    "from", "data", "info", "details", "current", "lookup", "retrieve", "download",
];

/// Whether a text is one of the values that the tool's schema lets choose from.
fn is_choice(tool: &Tool<'_>, key: &str, value: &str) -> bool {
    let choices = tool.schema.and_then(|s| s.get("properties")?.get(key)?.get("enum")?.as_array());
    choices.is_some_and(|c| c.iter().any(|c| c.as_str() == Some(value)))
}

/// Where confidential output may go, and which fields are confidential (none: all).
fn declared<'a>(tool: &Tool<'a>) -> Option<(Vec<String>, Option<&'a Vec<String>>)> {
    let manifest = tool.manifest;
    let places = manifest.places.clone();
    match &manifest.secret {
        Secret::All(true) => return Some((places, None)),
        Secret::Fields(fields) => return Some((places, Some(fields))),
        Secret::All(false) => {}
    }
    (manifest.confidentiality >= Some(Confidentiality::Confidential)).then_some((places, None))
}

fn is_secret(tool: &Tool<'_>) -> bool {
    tool.manifest.secret != Secret::All(false)
        || tool.manifest.confidentiality == Some(Confidentiality::Restricted)
}

/// Whom a call serves: the values of its arguments that name somebody or something.
fn payees(tool: &Tool<'_>, arguments: &Value) -> Vec<String> {
    let names = |kind: &ArgumentKind| {
        matches!(
            kind,
            ArgumentKind::Exact | ArgumentKind::Directory | ArgumentKind::Prompt | ArgumentKind::Id(_)
        )
    };
    let named =
        tool.manifest.args.iter().filter(|(_, kind)| names(kind)).filter_map(|(name, _)| arguments.get(name));
    let mut payees: Vec<String> = named.flat_map(json::texts).map(|t| t.to_lowercase()).collect();
    if payees.is_empty() {
        payees.push(tool.id.to_owned());
    }
    payees
}

fn call_hash(tool: &Tool<'_>, arguments: &Value) -> u64 {
    hash(&format!("{}\n{arguments}", tool.id))
}

/// A result as one text, a key before its value.
fn as_text(leaves: &[Leaf<'_>]) -> String {
    let mut text = String::new();
    for leaf in leaves {
        match leaf.value {
            Scalar::Key(key) => {
                text.push_str(key);
                text.push_str(": ");
            }
            Scalar::Value(value) => {
                text.push_str(&json::scalar_text(value).unwrap_or_default());
                text.push('\n');
            }
        }
    }
    text
}
