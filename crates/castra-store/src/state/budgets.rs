//! What is spent of budgets. The gate decides what an amount means; here it is kept.

use castra_core::{AgentName, Timestamp};
use rusqlite::{Row, params};

use super::{State, agents::parse_name, corrupt};
use crate::StoreError;

/// An amount of each unit that budgets count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BudgetAmounts {
    /// Calls.
    pub requests: u64,
    /// Tokens.
    pub tokens: u64,
    /// Millionths of the price table's currency.
    pub money: u64,
}

/// An account of a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetRow {
    /// The budget's name.
    pub budget: String,
    /// The word for its window.
    pub per: String,
    /// Whose account it is, where each agent has its own.
    pub agent: Option<AgentName>,
    /// The first moment of the window.
    pub start: Timestamp,
    /// What was spent when this was written.
    pub spent: BudgetAmounts,
    /// What calls in flight held then.
    pub held: BudgetAmounts,
    /// What counts as spent if the gate did not end in order.
    pub leased: BudgetAmounts,
}

impl State {
    /// Every account, by budget, window and agent.
    pub fn budget_accounts(&self) -> Result<Vec<BudgetRow>, StoreError> {
        self.read(|transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT budget, per, agent, start, spent_requests, spent_tokens, spent_money, held_requests,
                     held_tokens, held_money, leased_requests, leased_tokens, leased_money
                 FROM budget_accounts ORDER BY budget, per, agent",
            )?;
            let mut rows = statement.query([])?;
            let mut accounts = Vec::new();
            while let Some(row) = rows.next()? {
                accounts.push(budget_row(row)?);
            }
            Ok(accounts)
        })
    }

    /// Writes accounts and removes others, all or nothing; it is on disk when this returns. Of those that
    /// are to be gone only budget, window and agent are read.
    pub fn store_budget_accounts(&self, rows: &[BudgetRow], gone: &[BudgetRow]) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut put = transaction.prepare_cached(
                "INSERT OR REPLACE INTO budget_accounts (budget, per, agent, start, spent_requests,
                     spent_tokens, spent_money, held_requests, held_tokens, held_money, leased_requests,
                     leased_tokens, leased_money)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?;
            for row in rows {
                let (spent, held, leased) = (stored(&row.spent), stored(&row.held), stored(&row.leased));
                put.execute(params![
                    row.budget,
                    row.per,
                    agent_text(row),
                    row.start.0,
                    spent.0,
                    spent.1,
                    spent.2,
                    held.0,
                    held.1,
                    held.2,
                    leased.0,
                    leased.1,
                    leased.2,
                ])?;
            }
            let mut remove = transaction.prepare_cached(
                "DELETE FROM budget_accounts WHERE budget = ?1 AND per = ?2 AND agent = ?3",
            )?;
            for row in gone {
                remove.execute(params![row.budget, row.per, agent_text(row)])?;
            }
            Ok(())
        })
    }
}

fn agent_text(row: &BudgetRow) -> &str {
    row.agent.as_ref().map_or("", AgentName::as_str)
}

/// As SQLite has no larger numbers: what is above them is over every limit anyway.
fn stored(amounts: &BudgetAmounts) -> (i64, i64, i64) {
    let of = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    (of(amounts.requests), of(amounts.tokens), of(amounts.money))
}

fn budget_row(row: &Row<'_>) -> Result<BudgetRow, StoreError> {
    let amounts = |first: usize| -> Result<BudgetAmounts, StoreError> {
        let of = |column: usize| {
            let n: i64 = row.get(column)?;
            u64::try_from(n).map_err(|e| corrupt("a budget's amount", e))
        };
        Ok(BudgetAmounts { requests: of(first)?, tokens: of(first + 1)?, money: of(first + 2)? })
    };
    let agent: String = row.get(2)?;
    Ok(BudgetRow {
        budget: row.get(0)?,
        per: row.get(1)?,
        agent: if agent.is_empty() { None } else { Some(parse_name(&agent)?) },
        start: Timestamp(row.get(3)?),
        spent: amounts(4)?,
        held: amounts(7)?,
        leased: amounts(10)?,
    })
}
