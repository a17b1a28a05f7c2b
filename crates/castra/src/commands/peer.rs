//! `castra peer`: other agents behind the gate, and the cards that were accepted of them.

use castra_core::PeerName;
use castra_store::{PeerCard, PeerRow};
use serde_json::{Value, json};

use crate::{
    cli::PeerCommand,
    context::Context,
    out::{Exit, Failure, Outcome, minute},
};

pub(super) fn run(mut cx: Context, command: PeerCommand) -> Outcome {
    match command {
        PeerCommand::List => list(&mut cx),
        PeerCommand::Show { name } => show(&mut cx, &name),
        PeerCommand::Accept { name } => accept(&mut cx, &name),
    }
}

fn list(cx: &mut Context) -> Outcome {
    let rows = cx.open()?.state.peers()?;
    let configured: Vec<PeerName> = cx.config().peer.iter().map(|peer| peer.name.clone()).collect();
    let known = |name: &PeerName| rows.iter().find(|row| row.name == *name);
    let values: Vec<Value> = configured
        .iter()
        .map(|name| {
            let row = known(name);
            json!({ "name": name, "state": state(row), "pinned": row.map(|r| &r.pinned), "seen": row.and_then(|r| r.seen.as_ref()) })
        })
        .collect();
    cx.out.value(&values);
    let cells: Vec<[String; 4]> = configured
        .iter()
        .map(|name| {
            let row = known(name);
            let digest = row.map(|row| short(&row.pinned)).unwrap_or_else(|| "-".into());
            let pinned = row.map_or("-".into(), |row| minute(row.pinned.time));
            [name.to_string(), state(row).into(), digest, pinned]
        })
        .collect();
    if cells.is_empty() {
        cx.out.line("No peers are configured. [[peer]] in castra.toml names them.");
    } else {
        cx.out.table(["PEER", "CARD", "DIGEST", "ACCEPTED"], &cells);
    }
    Ok(Exit::Done)
}

fn state(row: Option<&PeerRow>) -> &'static str {
    match row {
        None => "not seen yet",
        Some(PeerRow { seen: Some(_), .. }) => "changed, waits",
        Some(_) => "accepted",
    }
}

fn short(card: &PeerCard) -> String {
    card.digest.to_hex().chars().take(12).collect()
}

fn row(cx: &mut Context, name: &PeerName) -> Result<PeerRow, Failure> {
    cx.open()?.state.peer(name)?.ok_or_else(|| {
        Failure::new(format!("no card of peer {name} was seen yet"))
            .advise("The gate fetches it when it runs; `castra doctor` says what is wrong with it.")
    })
}

/// The pinned card, and what is different in the one that waits. Exit code 2 if one waits.
fn show(cx: &mut Context, name: &PeerName) -> Outcome {
    let row = row(cx, name)?;
    let parsed = |card: &PeerCard| serde_json::from_str::<Value>(&card.text).unwrap_or_default();
    let pinned = parsed(&row.pinned);
    let seen = row.seen.as_ref().map(parsed);
    cx.out.value(&json!({ "peer": row, "card": pinned, "seen_card": seen }));
    cx.out.line(format_args!(
        "{name}: card {}, accepted {}",
        row.pinned.digest.to_hex(),
        minute(row.pinned.time)
    ));
    cx.out.line(serde_json::to_string_pretty(&pinned).unwrap_or_default());
    let (Some(card), Some(seen)) = (&row.seen, seen) else { return Ok(Exit::Done) };
    cx.out.line(format_args!(
        "Another card ({}) was seen {} and is not accepted:",
        card.digest.to_hex(),
        minute(card.time)
    ));
    for line in differences(&pinned, &seen) {
        cx.out.line(line);
    }
    Ok(Exit::Found)
}

/// The members of the top level that differ.
fn differences(old: &Value, new: &Value) -> Vec<String> {
    let empty = serde_json::Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let mut lines = Vec::new();
    for name in names {
        let (before, after) = (old.get(name), new.get(name));
        if before != after {
            lines.extend(before.map(|value| format!("- {name}: {value}")));
            lines.extend(after.map(|value| format!("+ {name}: {value}")));
        }
    }
    lines
}

fn accept(cx: &mut Context, name: &PeerName) -> Outcome {
    row(cx, name)?;
    let now = cx.now;
    match cx.open()?.state.accept_card(name, now)? {
        Some(row) => {
            cx.out.value(&json!({ "peer": name, "accepted": row.pinned.digest }));
            cx.out.line(format_args!(
                "Card {} of peer {name} is accepted. A gate that runs takes it at once.",
                row.pinned.digest.to_hex()
            ));
        }
        None => {
            cx.out.value(&json!({ "peer": name, "accepted": null }));
            cx.out.line(format_args!("Nothing waits: the card of peer {name} is the one that was accepted."));
        }
    }
    Ok(Exit::Done)
}
