//! `castra tool`: what the servers offer, as the gate has seen it.

use crate::{
    cli::ToolCommand,
    context::Context,
    out::{Exit, Outcome, minute},
};

pub(super) fn run(mut cx: Context, command: ToolCommand) -> Outcome {
    let ToolCommand::List { server } = command;
    let mut rows = cx.open()?.state.catalogue()?;
    rows.retain(|row| server.as_ref().is_none_or(|server| row.server == *server));
    cx.out.value(&rows);
    let cells: Vec<[String; 5]> = rows
        .iter()
        .map(|row| {
            let reach = if row.external { "outside" } else { "inside" };
            let digest = row.digest.to_hex().chars().take(12).collect();
            [row.id.clone(), row.effect.as_str().into(), reach.into(), digest, minute(row.changed)]
        })
        .collect();
    if cells.is_empty() {
        cx.out.line("No tools were seen yet. The gate learns them when it runs and reaches the servers.");
    } else {
        cx.out.table(["TOOL", "EFFECT", "REACHES", "DEFINITION", "CHANGED"], &cells);
    }
    Ok(Exit::Done)
}
