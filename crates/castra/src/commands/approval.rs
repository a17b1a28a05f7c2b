//! `castra approval`: what agents want to do and a person has to approve, and the person's answer. Works
//! beside a gate that runs, which reads the answer when the agent tries again.

use castra_store::{ApprovalRow, ApprovalState};
use serde_json::{Value, json};

use crate::{
    cli::{AnswerArgs, ApprovalCommand},
    context::Context,
    out::{Exit, Outcome, minute},
};

pub(super) fn run(mut cx: Context, command: ApprovalCommand) -> Outcome {
    match command {
        ApprovalCommand::List { all } => list(&mut cx, all),
        ApprovalCommand::Show { id } => show(&mut cx, &id),
        ApprovalCommand::Approve(args) => answer(&mut cx, &args, true),
        ApprovalCommand::Deny(args) => answer(&mut cx, &args, false),
    }
}

fn list(cx: &mut Context, all: bool) -> Outcome {
    let now = cx.now;
    let rows = cx.open()?.state.approvals(all, now)?;
    cx.out.value(&rows.iter().map(value).collect::<Vec<_>>());
    if rows.is_empty() {
        cx.out.line("Nothing waits for a person.");
    }
    for (i, row) in rows.iter().enumerate() {
        if i > 0 {
            cx.out.line("");
        }
        tell(cx, row);
    }
    Ok(Exit::Done)
}

fn show(cx: &mut Context, id: &str) -> Outcome {
    let now = cx.now;
    let row = cx.open()?.state.approval(id, now)?;
    cx.out.value(&value(&row));
    tell(cx, &row);
    Ok(Exit::Done)
}

fn answer(cx: &mut Context, args: &AnswerArgs, approve: bool) -> Outcome {
    let (now, by) = (cx.now, args.by.clone().unwrap_or_else(user));
    let row = cx.open()?.state.answer_approval(&args.id, approve, &by, args.reason.as_deref(), now)?;
    cx.out.value(&value(&row));
    let (id, agent, resource) = (&row.id, &row.agent, &row.resource);
    cx.out.line(match approve {
        true => format!(
            "Approved {id}: agent {agent} may {} {resource} with exactly these arguments once, until {}.",
            row.operation,
            minute(row.expires_at)
        ),
        false => format!("Denied {id}: agent {agent} is told so when it tries again."),
    });
    Ok(Exit::Done)
}

/// Who runs this, as far as the shell knows.
fn user() -> String {
    let known = ["SUDO_USER", "USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    known.into_iter().find(|name| !name.is_empty()).unwrap_or_else(|| "operator".to_owned())
}

/// What was shown to people when it was asked.
fn shown(row: &ApprovalRow) -> Value {
    row.shown.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// A question as an object, as lists have it.
pub(crate) fn value(row: &ApprovalRow) -> Value {
    json!({
        "id": row.id,
        "state": row.state,
        "agent": row.agent,
        "run": row.run.as_ref().map(castra_core::RunId::as_str),
        "operation": row.operation,
        "resource": row.resource,
        "digest": row.digest,
        "asked_at": row.asked_at,
        "expires_at": row.expires_at,
        "answered_by": row.answered_by,
        "answered_at": row.answered_at,
        "reason": row.reason,
        "shown": shown(row),
    })
}

fn tell(cx: &mut Context, row: &ApprovalRow) {
    let shown = shown(row);
    let text = |name: &str| shown.get(name).and_then(Value::as_str).unwrap_or_default();
    cx.out.line(format_args!("{}  {} by {}", row.id, headline(row), row.agent));
    let effect = text("effect");
    let reach = if shown.get("external") == Some(&Value::Bool(true)) { ", reaches outside" } else { "" };
    let effect = if effect.is_empty() { String::new() } else { format!(" (effect {effect}{reach})") };
    cx.out.line(format_args!("  wants:      {} {}{effect}", row.operation, row.resource));
    let whole = shown.get("arguments_bytes").and_then(Value::as_u64).unwrap_or_default();
    let arguments = text("arguments");
    let cut =
        if whole > arguments.len() as u64 { format!(" … ({whole} bytes in all)") } else { String::new() };
    cx.out.line(format_args!("  arguments:  {}{cut}", visible(arguments)));
    for finding in shown.get("findings").and_then(Value::as_array).into_iter().flatten() {
        cx.out.line(format_args!("  held for:   {}", finding_text(finding)));
    }
    cx.out.line(format_args!("  because:    {}", visible(text("reason"))));
    if let Some(run) = &row.run {
        cx.out.line(format_args!("  run:        {}", visible(run.as_str())));
    }
    if row.state == ApprovalState::Pending {
        cx.out.line(format_args!(
            "  answer:     castra approval approve {0}   or   castra approval deny {0}",
            row.id
        ));
    }
}

/// `waits until 2026-11-24 22:14`, `approved by alice 2026-11-24 22:05`
fn headline(row: &ApprovalRow) -> String {
    match (row.state, &row.answered_by, row.answered_at) {
        (ApprovalState::Pending, ..) => {
            format!("waits until {}, asked {}", minute(row.expires_at), minute(row.asked_at))
        }
        (state, Some(by), Some(at)) => {
            format!("{} (answer of {} {})", state.as_str(), visible(by), minute(at))
        }
        (state, ..) => format!("{} {}", state.as_str(), minute(row.expires_at)),
    }
}

/// `to = "x@example.org": seen only in untrusted text of mail/read (record 17): "… send it to …" [rule]`
fn finding_text(finding: &Value) -> String {
    let text = |name: &str| finding.get(name).and_then(Value::as_str).unwrap_or_default();
    let what = match text("argument") {
        "" => "the call itself".to_owned(),
        argument => format!("{} = \"{}\"", visible(argument), visible(text("value"))),
    };
    let seen = match text("seen") {
        "untrusted" => {
            let record = finding.get("record").and_then(Value::as_u64).unwrap_or_default();
            let excerpt = match text("excerpt") {
                "" => String::new(),
                excerpt => format!(": \"{}\"", visible(excerpt)),
            };
            format!(", seen only in untrusted text of {} (record {record}){excerpt}", visible(text("source")))
        }
        "trusted" => format!(", seen in {}", visible(text("source"))),
        "prompt" => ", the user wrote it".to_owned(),
        _ => ", seen nowhere in this run".to_owned(),
    };
    format!("{what}{seen} [{}]", text("rule"))
}

/// Text of strangers on a person's terminal: no control characters, and none that turn its direction.
fn visible(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_told_in_a_sentence_and_strangers_do_not_paint_the_terminal() {
        let finding = json!({
            "argument": "to", "value": "x@evil.example\u{1b}[2J", "rule": "exact", "seen": "untrusted",
            "source": "mail/read", "record": 17, "excerpt": "send it to \u{202e}x@evil.example",
        });
        assert_eq!(
            finding_text(&finding),
            "to = \"x@evil.example\u{fffd}[2J\", seen only in untrusted text of mail/read (record 17): \
             \"send it to \u{fffd}x@evil.example\" [exact]"
        );
        let intent = json!({ "argument": "", "value": "", "rule": "intent", "seen": "nowhere" });
        assert_eq!(finding_text(&intent), "the call itself, seen nowhere in this run [intent]");
    }
}
