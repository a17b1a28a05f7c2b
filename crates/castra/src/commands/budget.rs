//! `castra budget`: what is spent of what agents may use, as the state has it.

use castra_gateway::budget::{AccountRow, Unit, money_text, stored_accounts};
use castra_store::StateDir;

use crate::{
    cli::BudgetCommand,
    context::Context,
    out::{Exit, Outcome, minute},
    up,
};

pub(super) fn run(mut cx: Context, command: BudgetCommand) -> Outcome {
    let BudgetCommand::List = command;
    let settings = up::budgets(cx.config())?;
    let (rows, running) = if cx.state_dir().exists() {
        let running = StateDir::open(cx.state_dir())?.lock_gate().is_err();
        (cx.open()?.state.budget_accounts()?, running)
    } else {
        (Vec::new(), false)
    };
    let currency = settings.prices.currency.clone();
    let accounts: Vec<AccountRow> = stored_accounts(settings.rules, rows, running, cx.now)
        .iter()
        .map(|account| AccountRow::new(account, &currency))
        .collect();
    cx.out.value(&accounts);
    let cells: Vec<[String; 8]> = accounts.iter().flat_map(lines).collect();
    if cells.is_empty() && cx.config().budget.is_empty() {
        cx.out.line("There are no budgets. A [[budget]] table in castra.toml makes one.");
    } else {
        let heads = ["ACCOUNT", "COVERS", "PER", "UNIT", "SPENT", "RESERVED", "LIMIT", "RESETS"];
        cx.out.table(heads, &cells);
    }
    Ok(Exit::Done)
}

/// A line per unit that is limited.
fn lines(account: &AccountRow) -> impl Iterator<Item = [String; 8]> {
    account.limit.iter().map(|(unit, limit)| {
        let text = |n: u64| if *unit == Unit::Money { money_text(n) } else { n.to_string() };
        let of = |amounts: &std::collections::BTreeMap<Unit, u64>| {
            text(amounts.get(unit).copied().unwrap_or_default())
        };
        let unit_text = match unit {
            Unit::Money => account.currency.to_string(),
            Unit::Requests | Unit::Tokens => unit.as_str().to_owned(),
        };
        [
            account.id.clone(),
            account.covers.clone(),
            account.per.as_str().to_owned(),
            unit_text,
            of(&account.spent),
            of(&account.reserved),
            text(*limit),
            minute(account.resets),
        ]
    })
}
