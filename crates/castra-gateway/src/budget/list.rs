//! Accounts as lists show them: of the running gate, or of its state from beside it.

use std::{collections::BTreeMap, sync::Arc};

use castra_core::{AgentName, Timestamp};
use castra_store::BudgetRow;
use serde::Serialize;

use super::{Amounts, Ledger, Per, Rule, Saved, Unit, from_row, ledger::AccountView};

/// An account, one element of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountRow {
    /// `budget`, or `budget/agent`.
    pub id: String,
    /// The budget.
    pub budget: Arc<str>,
    /// The agent, where each has its own account.
    pub agent: Option<AgentName>,
    /// What it covers, in words.
    pub covers: String,
    /// Its window.
    pub per: Per,
    /// What may be used, by unit; of the units that are limited. Money in millionths.
    pub limit: BTreeMap<Unit, u64>,
    /// What is spent, of the same units.
    pub spent: BTreeMap<Unit, u64>,
    /// What calls in flight may still spend, of the same units.
    pub reserved: BTreeMap<Unit, u64>,
    /// What money is counted in.
    pub currency: Arc<str>,
    /// When it begins anew.
    pub resets: Timestamp,
}

impl AccountRow {
    /// The row of an account.
    pub fn new(account: &AccountView, currency: &Arc<str>) -> Self {
        let rule = &account.rule;
        let of = |amounts: &Amounts| rule.limit.units().map(|(unit, _)| (unit, amounts.of(unit))).collect();
        Self {
            id: match &account.agent {
                Some(agent) => format!("{}/{agent}", rule.name),
                None => rule.name.to_string(),
            },
            budget: rule.name.clone(),
            agent: account.agent.clone(),
            covers: rule.covers.text(),
            per: rule.per,
            limit: rule.limit.units().collect(),
            spent: of(&account.spent),
            reserved: of(&account.held),
            currency: currency.clone(),
            resets: account.resets,
        }
    }
}

/// Accounts from the rows of a state. While a gate runs on it they are as it wrote them last; otherwise
/// as the next gate will take them up.
pub fn stored_accounts(
    rules: Vec<Rule>,
    rows: Vec<BudgetRow>,
    running: bool,
    now: Timestamp,
) -> Vec<AccountView> {
    let mut ledger = Ledger::new(rules);
    let saved: Vec<Saved> = rows.into_iter().filter_map(from_row).collect();
    if running {
        ledger.look_at(saved);
    } else {
        ledger.restore(saved);
    }
    ledger.accounts(now)
}
