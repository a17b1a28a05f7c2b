//! What is learned from the records of a result: ids, addresses and amounts of the records that the user named.
//!
//! A server vouches for some fields of its records (`attested`), but an attacker may choose a record's key (the
//! title of an invitation, the subject of a mail). So a key alone names a record only as far as nobody else can
//! have written it: if the record says who wrote it and that is neither the user nor somebody whom the user has
//! dealt with, its addresses are not learned; if two records bear the name, they give only what they agree on.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::{
    ToolManifest,
    json::{field, records, scalar_text, texts},
    known::Known,
    prompt::Prompt,
    text::{is_stop, words},
};

type Record = Map<String, Value>;

/// Fields that say who wrote a record, where the manifest names none.
const AUTHORS: &[&str] =
    &["sender", "from", "author", "owner", "organizer", "organiser", "creator", "created_by", "from_address"];
/// Names of things that people name by their kind: they do not tell one record from another.
const KINDS: &[&str] = &[
    "appointment",
    "meeting",
    "event",
    "file",
    "document",
    "mail",
    "email",
    "message",
    "note",
    "notes",
    "list",
    "call",
    "task",
    "invoice",
    "payment",
    "transaction",
    "page",
    "issue",
    "ticket",
    "reservation",
    "booking",
    "report",
];
/// Words of a prompt that mention no record in particular.
const COMMON: &[&str] = &[
    "please",
    "from",
    "that",
    "this",
    "with",
    "they",
    "them",
    "have",
    "send",
    "sent",
    "money",
    "transfer",
    "month",
    "date",
    "transaction",
    "transactions",
    "payment",
    "payments",
    "account",
    "amount",
    "week",
    "year",
    "make",
    "what",
    "when",
    "which",
    "where",
    "would",
    "could",
    "should",
    "much",
    "many",
    "about",
    "also",
    "like",
    "last",
    "next",
    "just",
    "into",
    "your",
    "their",
    "there",
    "then",
    "than",
    "some",
    "need",
    "want",
    "sure",
    "true",
    "false",
    "name",
    "time",
    "today",
];

/// What learning needs to know of the run.
pub(crate) struct Lesson<'a> {
    pub(crate) manifest: &'a ToolManifest,
    pub(crate) prompt: &'a Prompt,
    /// Leaves of the call's own arguments: what comes back from them proves nothing.
    pub(crate) echoed: &'a BTreeSet<String>,
    /// Whether all arguments of the call stand in the prompt.
    pub(crate) asked: bool,
    pub(crate) source: u32,
    /// Whether a text was written by a tainted run.
    pub(crate) marked: &'a dyn Fn(&str) -> bool,
}

/// Learns from a result of this tool.
pub(crate) fn learn(lesson: &Lesson<'_>, value: &Value, known: &mut Known) {
    let manifest = lesson.manifest;
    if manifest.attested.iter().any(|f| f == "*") {
        for text in texts(value).iter().filter(|t| !(lesson.marked)(t)) {
            known.add_listed(text, lesson.source);
        }
        return;
    }
    let rows = records(value);
    learn_own(lesson, &rows, known);
    let chosen = chosen(lesson, &rows, known);
    let agreed = agreed(lesson, &rows, &chosen.anchored);
    for (at, row) in rows.iter().enumerate() {
        let standing = Standing {
            anchored: chosen.anchored.contains(&at),
            picked: chosen.picked.contains(&at),
            stranger: is_strangers(lesson, row, known),
        };
        for name in &manifest.attested {
            if standing.anchored && !agreed.contains(name.as_str()) {
                continue;
            }
            if let Some(value) = field(row, name) {
                texts(value).iter().for_each(|text| known.add_attested(text));
                learn_field(lesson, name, value, row, &standing, known);
            }
        }
    }
}

/// What is known of a record.
struct Standing {
    /// The user named it.
    anchored: bool,
    /// It is the only one, or the one that a superlative picks, or the only one that the user may have meant.
    picked: bool,
    /// Somebody wrote it who is neither the user nor known to the user.
    stranger: bool,
}

fn learn_field(
    lesson: &Lesson<'_>,
    name: &str,
    value: &Value,
    row: &Record,
    standing: &Standing,
    known: &mut Known,
) {
    if is_id(name) {
        let safe = standing.anchored || standing.picked;
        // A manifest that says who writes records wants their word for which one is meant.
        let declared = !lesson.manifest.authors.is_empty() && standing.stranger;
        if let Some(object) = lesson.manifest.object.as_deref().filter(|_| safe && !declared) {
            texts(value).iter().for_each(|id| known.add_id(object, id));
        }
        return;
    }
    if let Some(number) = value.as_f64() {
        if standing.anchored || (!standing.stranger && mentioned(lesson.prompt, row)) {
            known.add_amount(number);
        }
        return;
    }
    for text in texts(value).into_iter().filter(|t| !(lesson.marked)(t)) {
        learn_text(lesson, name, &text, standing, known);
    }
}

fn learn_text(lesson: &Lesson<'_>, name: &str, text: &str, standing: &Standing, known: &mut Known) {
    let low = text.to_lowercase();
    let authored = authors(lesson.manifest).any(|a| a == name);
    let trusted = !standing.stranger || known.dealt_with(&low);
    if !low.contains('@') {
        known.add_listed(&low, lesson.source);
        if standing.anchored && trusted && !lesson.echoed.contains(&low) {
            known.add_exact(&low, lesson.source);
        }
        return;
    }
    if standing.anchored && trusted && (!authored || known.dealt_with(&low)) {
        known.add_exact(&low, lesson.source);
    }
    if !authored && !standing.stranger || known.dealt_with(&low) {
        let local = low.split('@').next().unwrap_or_default();
        for part in local.split(|c: char| !c.is_alphabetic()).filter(|p| p.chars().count() >= 3) {
            if lesson.prompt.has_word(part) {
                known.add_name(part, &low);
            }
        }
    }
}

fn is_id(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name).trim_end_matches('_').to_lowercase();
    matches!(last.as_str(), "id" | "ids" | "uuid" | "guid")
        || last.ends_with("_id")
        || last.ends_with("_ids")
        || name.ends_with("Id")
}

fn authors(manifest: &ToolManifest) -> impl Iterator<Item = &str> {
    let declared = manifest.authors.iter().map(String::as_str);
    let usual = AUTHORS
        .iter()
        .copied()
        .filter(|a| manifest.authors.is_empty() && manifest.attested.iter().any(|f| f == a));
    declared.chain(usual)
}

/// The records that the user named, and those that can be nothing else.
struct Chosen {
    anchored: BTreeSet<usize>,
    picked: BTreeSet<usize>,
}

fn chosen(lesson: &Lesson<'_>, rows: &[&Record], known: &mut Known) -> Chosen {
    let named =
        |row: &Record| lesson.manifest.keys.iter().filter_map(|k| field(row, k)).any(|v| names(lesson, v));
    let anchored: BTreeSet<usize> =
        rows.iter().enumerate().filter(|(_, row)| named(row)).map(|(i, _)| i).collect();
    let mut picked = BTreeSet::new();
    if rows.len() == 1 && lesson.asked {
        picked.insert(0);
    }
    for (word, by) in &lesson.manifest.superlatives {
        // Once per run: after an act the next largest is not the user's choice.
        if lesson.prompt.within(word) && !rows.is_empty() && known.resolve(word) {
            picked.extend(best(rows, by));
        }
    }
    if anchored.is_empty() && picked.is_empty() {
        let kin = |row: &Record| {
            lesson
                .manifest
                .keys
                .iter()
                .filter_map(|k| field(row, k)?.as_str())
                .any(|v| is_kin(lesson.prompt, v) && !(lesson.marked)(v))
        };
        let mut alike = rows.iter().enumerate().filter(|(_, row)| kin(row)).map(|(i, _)| i);
        if let (Some(only), None) = (alike.next(), alike.next()) {
            picked.insert(only);
        }
    }
    Chosen { anchored, picked }
}

/// The record with the largest number in a field; the first of equals.
fn best(rows: &[&Record], by: &str) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (i, row) in rows.iter().enumerate() {
        let value = field(row, by).and_then(Value::as_f64);
        if let Some(value) = value.filter(|v| best.is_none_or(|(_, b)| *v > b)) {
            best = Some((i, value));
        }
    }
    best.map(|(i, _)| i)
}

/// Whether the prompt names a record by this value of a key.
fn names(lesson: &Lesson<'_>, key: &Value) -> bool {
    match key {
        Value::Number(n) => n.as_f64().is_some_and(|n| lesson.prompt.has_number(n)),
        Value::Array(items) => items.iter().any(|item| !item.is_array() && names(lesson, item)),
        Value::String(text) => names_text(lesson.prompt, text) && !(lesson.marked)(text),
        _ => false,
    }
}

fn names_text(prompt: &Prompt, key: &str) -> bool {
    if key.chars().count() < 3
        || words(key).all(|w| is_stop(&w.to_lowercase()) || KINDS.contains(&w.to_lowercase().as_str()))
    {
        return false;
    }
    if prompt.within(key) {
        return true;
    }
    let stem =
        key.rsplit_once('.').filter(|(_, end)| (2..=5).contains(&end.len())).map_or(key, |(stem, _)| stem);
    key.contains(['-', '_']) && prompt.within(&stem.replace(['-', '_'], " "))
}

/// Whether the prompt names a record by words that are kin to those of a key, its kind aside.
fn is_kin(prompt: &Prompt, key: &str) -> bool {
    let mut any = false;
    let all =
        words(key).map(str::to_lowercase).filter(|w| !is_stop(w) && !KINDS.contains(&w.as_str())).all(|w| {
            any = true;
            w.chars().count() >= 4 && prompt.has_kin(&w)
        });
    any && all
}

/// Whether the prompt shares a word with a record that says something.
fn mentioned(prompt: &Prompt, row: &Record) -> bool {
    row.values().filter_map(Value::as_str).flat_map(words).any(|word| {
        let word = word.to_lowercase();
        word.chars().count() > 3 && !COMMON.contains(&word.as_str()) && prompt.has_word(&word)
    })
}

/// The attested fields in which all anchored records agree: two records that bear the name that the user gave
/// leave open which one is meant.
fn agreed<'m>(lesson: &Lesson<'m>, rows: &[&Record], anchored: &BTreeSet<usize>) -> BTreeSet<&'m str> {
    let mut named = rows.iter().enumerate().filter(|(i, _)| anchored.contains(i)).map(|(_, row)| row);
    let first = named.next();
    let rest: Vec<&&Record> = named.collect();
    let same = |name: &&str| rest.iter().all(|row| first.is_some_and(|f| field(f, name) == field(row, name)));
    lesson.manifest.attested.iter().map(String::as_str).filter(same).collect()
}

/// Whether a record says who wrote it, and that is somebody whom the user has never dealt with.
fn is_strangers(lesson: &Lesson<'_>, row: &Record, known: &Known) -> bool {
    let mut wrote = authors(lesson.manifest).filter_map(|a| field(row, a)).flat_map(texts).peekable();
    if wrote.peek().is_none() {
        return false;
    }
    wrote.any(|author| {
        !(known.is_own(&author)
            || known.dealt_with(&author)
            || lesson.prompt.wrote(&author)
            || !known.has_own() && !author.contains('@') && lesson.manifest.authors.is_empty())
    })
}

/// Learns who the user is: the one value that every record has among its parties, in at least two records by
/// different authors. A stranger can write records, but the user is a party to each of them, too. Then learns
/// whom the user has dealt with: the parties of the user's own records.
fn learn_own(lesson: &Lesson<'_>, rows: &[&Record], known: &mut Known) {
    let parties = |row: &Record| -> BTreeSet<String> {
        let fields = lesson.manifest.attested.iter().filter(|f| !is_id(f));
        fields
            .filter_map(|f| field(row, f))
            .filter(|v| !v.is_number())
            .flat_map(texts)
            .map(|t| t.to_lowercase())
            .collect()
    };
    let wrote = |row: &Record| -> BTreeSet<String> {
        let fields = authors(lesson.manifest).filter(|a| {
            lesson.manifest.attested.iter().any(|f| f == a) || !lesson.manifest.authors.is_empty()
        });
        fields.filter_map(|a| field(row, a)).filter_map(scalar_text).map(|t| t.to_lowercase()).collect()
    };
    let mut by_author: BTreeMap<String, usize> = BTreeMap::new();
    let mut common: Option<BTreeSet<String>> = None;
    for row in rows {
        wrote(row).into_iter().for_each(|a| *by_author.entry(a).or_default() += 1);
        let here = parties(row);
        common = Some(common.map_or_else(|| here.clone(), |c| c.intersection(&here).cloned().collect()));
    }
    if by_author.len() >= 2
        && let Some(common) = common.filter(|c| c.len() == 1)
    {
        common.iter().for_each(|own| known.add_own(own));
    }
    for row in rows {
        if !wrote(row).iter().any(|author| known.is_own(author)) {
            continue;
        }
        for party in parties(row) {
            if !known.is_own(&party) {
                known.add_dealt(&party);
            }
        }
    }
}
