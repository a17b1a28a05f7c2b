//! `castra log`: reading the log and proving from it. Verification is in `verify.rs`.

use std::ops::ControlFlow;

use castra_ledger::Record;
use castra_store::{files, log::LogReader};
use serde_json::{Value, json};

use super::verify;
use crate::{
    cli::{FilterArgs, Global, LogCommand, RecordRef},
    context::Context,
    out::{Exit, Failure, Outcome},
    records::{self, ActionRecords, Entry, Filter, HEAD, Payload},
};

/// How often a followed log is looked at.
const FOLLOW_TIME: std::time::Duration = std::time::Duration::from_millis(250);

pub(super) fn run(global: &Global, command: LogCommand) -> Outcome {
    match command {
        LogCommand::Verify(args) => verify::run(global, &args),
        LogCommand::Tail { follow, lines, filter } => tail(Context::new(global)?, follow, lines, &filter),
        LogCommand::Query { limit, filter } => query(Context::new(global)?, limit, &filter),
        LogCommand::Show { record } => show(Context::new(global)?, record),
        LogCommand::Receipt { record, output } => {
            let mut cx = Context::new(global)?;
            let reader = reader(&cx)?;
            let index = match record {
                RecordRef::Index(index) => index,
                RecordRef::Action(action) => records::of_action(&reader, action)?.intent.index,
            };
            let Some(receipt) = reader.receipt(index)? else { return Err(no_receipt(&reader, index)?) };
            cx.out.value(&json!({ "id": index, "receipt": receipt.to_string() }));
            match output {
                Some(file) => {
                    files::write_atomic(&file, receipt.to_string().as_bytes(), 0o644)?;
                    cx.out.line(format_args!("Wrote {}.", file.display()));
                }
                None if !cx.out.is_json() => cx.out.document(&receipt.to_string()),
                None => {}
            }
            Ok(Exit::Done)
        }
        LogCommand::Key => {
            let mut cx = Context::new(global)?;
            let key = verify::key_of_state(cx.state_dir())?;
            cx.out.value(&json!({ "key": key.to_string() }));
            cx.out.line(&key);
            Ok(Exit::Done)
        }
    }
}

pub(super) fn reader(cx: &Context) -> Result<LogReader, Failure> {
    let dir = cx.state_dir();
    LogReader::open(dir).map_err(|e| {
        Failure::from(e).advise(format!(
            "Is {} the state folder of a gate that ran? Say which with --state or --config.",
            dir.display()
        ))
    })
}

fn no_receipt(reader: &LogReader, index: u64) -> Result<Failure, Failure> {
    let size = records::size(reader)?;
    Ok(if index < size {
        Failure::new(format!("record {index} is not covered by a checkpoint yet"))
            .advise("A running gate makes one within a second; one that was killed, when it starts again.")
    } else {
        Failure::new(format!("there is no record {index}: the log has {size}"))
    })
}

fn tail(mut cx: Context, follow: bool, lines: u64, wanted: &FilterArgs) -> Outcome {
    let reader = reader(&cx)?;
    let limit = usize::try_from(lines).unwrap_or(usize::MAX);
    let start = records::newest(&reader, wanted, limit)?;
    let mut next = records::size(&reader)?.max(start.last().map_or(0, |e| e.index + 1));
    if !follow {
        say(&mut cx, &start)?;
        return Ok(Exit::Done);
    }
    // One object or line each, as they come: a list or a table has an end.
    for entry in &start {
        say_one(&mut cx, entry)?;
    }
    let mut filter = Filter::new(wanted);
    while !cx.out.is_gone() {
        next = records::scan(&reader, next, |entry| {
            if filter.admits(entry.index, &entry.record()?) {
                say_one(&mut cx, &entry)?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        std::thread::sleep(FOLLOW_TIME);
    }
    Ok(Exit::Done)
}

fn query(mut cx: Context, limit: usize, wanted: &FilterArgs) -> Outcome {
    let found = records::newest(&reader(&cx)?, wanted, limit)?;
    say(&mut cx, &found)?;
    Ok(if found.is_empty() { Exit::Found } else { Exit::Done })
}

fn say(cx: &mut Context, entries: &[Entry]) -> Result<(), Failure> {
    if cx.out.is_json() {
        let values: Vec<Value> = entries.iter().map(Entry::json).collect::<Result<_, _>>()?;
        cx.out.value(&values);
        return Ok(());
    }
    let rows: Vec<[String; 6]> = entries.iter().map(records::row).collect::<Result<_, _>>()?;
    if rows.is_empty() {
        cx.out.line("No records.");
    } else {
        cx.out.table(HEAD, &rows);
    }
    Ok(())
}

fn say_one(cx: &mut Context, entry: &Entry) -> Result<(), Failure> {
    cx.out.value(&entry.json()?);
    cx.out.line(records::row(entry)?.join("  "));
    Ok(())
}

fn show(mut cx: Context, record: RecordRef) -> Outcome {
    let reader = reader(&cx)?;
    let entries = match record {
        RecordRef::Action(action) => {
            let ActionRecords { intent, outcome } = records::of_action(&reader, action)?;
            std::iter::once(intent).chain(outcome).collect()
        }
        RecordRef::Index(index) => {
            let mut entries = Vec::new();
            records::scan(&reader, index, |entry| {
                entries.push(entry);
                Ok(ControlFlow::Break(()))
            })?;
            if entries.is_empty() {
                return Err(no_receipt(&reader, index)?);
            }
            entries
        }
    };
    // The keys are in the state folder; a copy of the log alone still shows its records.
    let opened = cx.open().ok();
    let mut values = Vec::new();
    for entry in &entries {
        let mut value = entry.json()?;
        let said = match &opened {
            Some(opened) => records::payload(&reader, &opened.state, entry)?,
            None => Payload::Closed("the keys are not here".into()),
        };
        say_record(&mut cx, entry, &value, &said)?;
        if let Some(fields) = value.as_object_mut() {
            let (key, said) = match said {
                Payload::Open(bytes) => ("payload", as_json(&bytes)),
                Payload::Closed(why) => ("payload_closed", why.into()),
                Payload::None => ("payload", Value::Null),
            };
            fields.insert(key.into(), said);
        }
        values.push(value);
    }
    cx.out.value(&values);
    Ok(Exit::Done)
}

/// What was said, as JSON if it is, else as text.
fn as_json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned().into())
}

fn say_record(cx: &mut Context, entry: &Entry, value: &Value, said: &Payload) -> Result<(), Failure> {
    let kind = match entry.record()? {
        Record::Intent(_) => "intent",
        Record::Outcome(_) => "outcome",
        Record::Refusal(_) => "refusal",
        Record::Event(_) => "event",
    };
    cx.out.line(format_args!("record {} ({kind})", entry.index));
    let rows: Vec<[String; 2]> = value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != "id" && *key != "kind")
        .map(|(key, value)| {
            [format!("  {key}"), value.as_str().map_or_else(|| value.to_string(), str::to_owned)]
        })
        .collect();
    cx.out.rows(&rows);
    match said {
        Payload::Open(bytes) => {
            let pretty = serde_json::to_string_pretty(&as_json(bytes))?;
            cx.out.line(format_args!("  said:\n{pretty}"));
        }
        Payload::Closed(why) => cx.out.line(format_args!("  what was said is not shown: {why}")),
        Payload::None => {}
    }
    Ok(())
}
