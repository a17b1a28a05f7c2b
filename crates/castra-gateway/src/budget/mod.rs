//! Budgets and rates: what agents may use in a minute, an hour, a day or a month, reserved before a call
//! and settled after it.
//!
//! [`Ledger`] is the accounting, without input or output; [`Budgets`] gives it the clock and the disk, and
//! is what the path of an action asks. `price` says what models cost, `estimate` how much a call may use
//! before anybody has counted.

mod amounts;
pub mod estimate;
mod ledger;
mod list;
mod price;
mod refused;
mod window;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use castra_core::{AgentIdentity, ModelName, Timestamp};
use castra_store::{BudgetAmounts, BudgetRow, State, StoreError};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

pub use self::{
    amounts::{Amounts, Limit, Unit, money_text},
    ledger::{AccountView, Ask, Call, Covers, Hold, Key, Ledger, Refused, Rule, Saved, UsedUp},
    list::{AccountRow, stored_accounts},
    price::{Price, Priced, Prices, Rates, Tokens, Used},
    refused::OverBudget,
    window::{Per, Window},
};
use crate::metrics::Page;

/// How often what changed is written down, besides leases, for lists and so that leases do not stay
/// larger than they need to be.
const FLUSH: Duration = Duration::from_secs(5);

/// Names that refusals and unknown prices are counted by at most; beyond it they are counted together.
const COUNTED_MAX: usize = 1000;
/// The name under which those are counted.
const OTHERS: &str = "(others)";

/// What budgets there are, and what goes with them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The budgets.
    pub rules: Vec<Rule>,
    /// The price table.
    pub prices: Prices,
    /// What a budget of money does with a model whose price is not known.
    pub unknown_price: UnknownPrice,
    /// Tokens that are reserved for an answer whose length nothing limits.
    pub output_default: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            prices: Prices::default(),
            unknown_price: UnknownPrice::default(),
            output_default: estimate::OUTPUT_DEFAULT,
        }
    }
}

/// What a budget of money does with a model whose price is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownPrice {
    /// It refuses it: what cannot be counted cannot be limited.
    #[default]
    Refuse,
    /// It lets it pass and counts no money; requests and tokens are counted.
    Allow,
}

/// A call that asks for its share.
#[derive(Debug, Clone, Copy)]
pub struct BudgetAsk<'a> {
    agent: &'a AgentIdentity,
    model: Option<(&'a ModelName, Tokens, &'a [Priced])>,
}

impl<'a> BudgetAsk<'a> {
    /// A call that counts as a request and nothing else.
    pub fn request(agent: &'a AgentIdentity) -> Self {
        Self { agent, model: None }
    }

    /// A call of a model: the route that the agent named, the most tokens that it can use, and every
    /// model that may come to answer; money is reserved for the dearest.
    pub fn model(
        agent: &'a AgentIdentity,
        route: &'a ModelName,
        tokens: Tokens,
        prices: &'a [Priced],
    ) -> Self {
        Self { agent, model: Some((route, tokens, prices)) }
    }

    fn call(&self) -> Call<'_> {
        Call {
            agent: &self.agent.name,
            groups: &self.agent.groups,
            person: self.agent.person().map(|person| &**person),
            model: self.model.map(|(route, ..)| route),
        }
    }

    fn ask(&self, unknown: UnknownPrice) -> Ask {
        let Some((_, tokens, prices)) = self.model else {
            return Ask { amounts: Amounts::REQUEST, unpriced: false };
        };
        let most = prices.iter().filter_map(|p| Some(p.price.as_ref()?.most(tokens))).max();
        let known = !prices.is_empty() && prices.iter().all(|p| p.price.is_some());
        let amounts = Amounts {
            requests: 1,
            tokens: tokens.input.saturating_add(tokens.output),
            money: most.unwrap_or(0),
        };
        Ask { amounts, unpriced: !known && unknown == UnknownPrice::Refuse }
    }
}

/// The budgets of a gate. One per process.
pub struct Budgets {
    settings: ArcSwap<Settings>,
    ledger: Mutex<Ledger>,
    state: Arc<State>,
    clock: fn() -> Timestamp,
    closed: AtomicBool,
    /// Wakes the writer.
    wanted: Arc<Notify>,
    /// The result of the newest write.
    written: watch::Sender<Result<(), Arc<str>>>,
    /// One write at a time.
    turn: tokio::sync::Mutex<()>,
    /// Refusals by budget.
    refusals: Mutex<BTreeMap<Arc<str>, u64>>,
    /// Calls of models whose price is not known, by the provider's name for the model.
    unpriced: Mutex<BTreeMap<Arc<str>, u64>>,
}

impl std::fmt::Debug for Budgets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Budgets")
    }
}

impl Budgets {
    /// Takes up what was spent before and starts the writer. Needs a tokio runtime; reads the state, so it
    /// blocks for as long as the disk takes.
    pub fn open(
        state: Arc<State>,
        clock: fn() -> Timestamp,
        settings: Settings,
    ) -> Result<Arc<Self>, StoreError> {
        let mut ledger = Ledger::new(settings.rules.clone());
        ledger.restore(state.budget_accounts()?.into_iter().filter_map(from_row));
        let budgets = Arc::new(Self {
            settings: ArcSwap::from_pointee(settings),
            ledger: Mutex::new(ledger),
            state,
            clock,
            closed: AtomicBool::new(false),
            wanted: Arc::default(),
            written: watch::Sender::new(Ok(())),
            turn: tokio::sync::Mutex::default(),
            refusals: Mutex::default(),
            unpriced: Mutex::default(),
        });
        tokio::spawn(writer(Arc::downgrade(&budgets), budgets.wanted.clone()));
        Ok(budgets)
    }

    /// Takes other budgets, prices and rules for unknown prices. What was spent stays spent.
    pub fn replace(&self, settings: Settings) {
        self.ledger.lock().replace_rules(settings.rules.clone());
        self.settings.store(Arc::new(settings));
    }

    /// Tokens to reserve for an answer whose length neither the request nor the version limits.
    pub fn output_default(&self) -> u64 {
        self.settings.load().output_default
    }

    /// The price of a provider's model. An unknown one is a warning, the first time.
    pub fn price(&self, provider: &str, model: &str) -> Priced {
        let price = self.settings.load().prices.find(provider, model);
        if price.is_none() {
            self.warn_once(provider, model);
        }
        Priced { model: model.into(), price }
    }

    /// Reserves what a call may use in every budget that covers it, or says which one it does not fit.
    /// Waits for the disk only where what is promised there is used up.
    pub async fn reserve(self: &Arc<Self>, ask: &BudgetAsk<'_>) -> Result<Reservation, OverBudget> {
        let settings = self.settings.load_full();
        if settings.rules.is_empty() {
            return Ok(Reservation { budgets: self.clone(), hold: None });
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(OverBudget::Closed);
        }
        let now = (self.clock)();
        let reserved = self.ledger.lock().reserve(&ask.call(), ask.ask(settings.unknown_price), now);
        let hold = reserved.map_err(|refused| {
            let over = OverBudget::new(refused, now, &settings.prices.currency);
            self.count_refusal(&over);
            over
        })?;
        let pending = Pending { budgets: self, hold: Some(hold) };
        self.wait_for_lease(&pending).await?;
        Ok(pending.granted())
    }

    /// Every account, as of now.
    pub fn accounts(&self) -> Vec<AccountView> {
        self.ledger.lock().accounts((self.clock)())
    }

    /// Every account as lists show it, as of now.
    pub fn rows(&self) -> Vec<AccountRow> {
        let currency = self.settings.load().prices.currency.clone();
        self.accounts().iter().map(|account| AccountRow::new(account, &currency)).collect()
    }

    /// Ends in order: writes what was really spent, and grants nothing from here on.
    pub async fn close(&self) -> Result<(), OverBudget> {
        self.closed.store(true, Ordering::Release);
        let _turn = self.turn.lock().await;
        let rows = self.ledger.lock().to_close();
        self.store(&rows, Vec::new()).await.map_err(|why| OverBudget::Unwritten { why })
    }

    /// Figures for the page of metrics.
    pub fn show(&self, page: &mut Page) {
        // One line per budget and unit: where each agent has its own account, the fullest one speaks.
        let mut fullest: BTreeMap<(Arc<str>, &'static str), (u64, u64)> = BTreeMap::new();
        for account in self.accounts() {
            for (unit, limit) in account.rule.limit.units() {
                let spent = account.spent.of(unit);
                let shown = fullest.entry((account.rule.name.clone(), unit.as_str())).or_insert((0, limit));
                shown.0 = shown.0.max(spent);
            }
        }
        for ((budget, unit), (spent, limit)) in &fullest {
            let labels = [("budget", &**budget), ("unit", *unit)];
            let help = "What is spent of a budget; of the fullest account where each agent has its own. Money in millionths.";
            page.gauge("castra_budget_spent", help, &labels, *spent as f64);
            let help = "What may be spent of a budget. Money in millionths.";
            page.gauge("castra_budget_limit", help, &labels, *limit as f64);
        }
        for (budget, count) in &*self.refusals.lock() {
            let help = "Calls that a budget refused.";
            page.counter("castra_budget_refusals_total", help, &[("budget", budget)], *count);
        }
        for (model, count) in &*self.unpriced.lock() {
            let help = "Calls of a model whose price is not known.";
            page.counter("castra_budget_unpriced_calls_total", help, &[("model", model)], *count);
        }
    }

    /// Until the disk promises what was reserved.
    async fn wait_for_lease(&self, pending: &Pending<'_>) -> Result<(), OverBudget> {
        let granted = |ledger: &Ledger| pending.hold.as_ref().is_none_or(|hold| ledger.covered(hold));
        let (covered, wants_write) = {
            let ledger = self.ledger.lock();
            (granted(&ledger), ledger.wants_write())
        };
        if covered {
            if wants_write {
                self.wanted.notify_one();
            }
            return Ok(());
        }
        let mut written = self.written.subscribe();
        loop {
            self.wanted.notify_one();
            // The sender lives as long as this does.
            let _ = written.changed().await;
            if let Err(why) = &*written.borrow_and_update() {
                return Err(OverBudget::Unwritten { why: why.clone() });
            }
            if granted(&self.ledger.lock()) {
                return Ok(());
            }
        }
    }

    fn settle(&self, hold: Hold, used: Amounts) {
        let wants_write = {
            let mut ledger = self.ledger.lock();
            ledger.settle(hold, used);
            ledger.wants_write()
        };
        if wants_write {
            self.wanted.notify_one();
        }
    }

    /// Writes leases that are wanted, or with `all` whatever changed.
    async fn write(&self, all: bool) {
        let _turn = self.turn.lock().await;
        if self.closed.load(Ordering::Acquire) {
            // The last word was said; what is granted no more needs no lease.
            let _ = self.written.send_replace(Err("the gate is shutting down".into()));
            return;
        }
        let (rows, gone) = {
            let mut ledger = self.ledger.lock();
            (ledger.to_write(all), if all { ledger.forget_old((self.clock)()) } else { Vec::new() })
        };
        let stored = self.store(&rows, gone).await;
        {
            let mut ledger = self.ledger.lock();
            match &stored {
                Ok(()) => ledger.written(&rows),
                Err(_) => ledger.not_written(rows),
            }
        }
        // Said once: every call that needs a lease tries again.
        if let (Err(why), true) = (&stored, self.written.borrow().is_ok()) {
            tracing::error!(%why, "what is spent of budgets cannot be written, so calls that need more are refused");
        }
        let _ = self.written.send_replace(stored);
    }

    async fn store(&self, rows: &[Saved], gone: Vec<Key>) -> Result<(), Arc<str>> {
        if rows.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let (rows, gone): (Vec<BudgetRow>, Vec<BudgetRow>) = (
            rows.iter().map(to_row).collect(),
            gone.into_iter().map(|key| to_row(&Saved::empty(key))).collect(),
        );
        let state = self.state.clone();
        let written = tokio::task::spawn_blocking(move || state.store_budget_accounts(&rows, &gone)).await;
        match written {
            Ok(stored) => stored.map_err(|e| e.to_string().into()),
            Err(panicked) => Err(panicked.to_string().into()),
        }
    }

    fn warn_once(&self, provider: &str, model: &str) {
        let mut unpriced = self.unpriced.lock();
        if unpriced.contains_key(model) || unpriced.len() >= COUNTED_MAX {
            return;
        }
        unpriced.insert(model.into(), 0);
        tracing::warn!(
            provider,
            model,
            "the price of this model is not known, so what it costs is not counted; add it to the table that [budgets] prices names"
        );
    }

    fn count_unpriced(&self, model: &Arc<str>) {
        count(&mut self.unpriced.lock(), model);
    }

    fn count_refusal(&self, over: &OverBudget) {
        if let Some(budget) = over.budget() {
            count(&mut self.refusals.lock(), budget);
        }
    }
}

fn count(counts: &mut BTreeMap<Arc<str>, u64>, name: &Arc<str>) {
    let known = counts.len() < COUNTED_MAX || counts.contains_key(name);
    let entry = counts.entry(if known { name.clone() } else { OTHERS.into() }).or_default();
    *entry = entry.saturating_add(1);
}

/// Writes leases when they are wanted, and now and then whatever changed.
async fn writer(budgets: Weak<Budgets>, wanted: Arc<Notify>) {
    let mut flush = tokio::time::interval(FLUSH);
    flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let all = tokio::select! {
            () = wanted.notified() => false,
            _ = flush.tick() => true,
        };
        let Some(budgets) = budgets.upgrade() else { return };
        budgets.write(all).await;
    }
}

/// What is reserved while the disk is waited for. Dropped, nothing was used: the call has not gone out.
struct Pending<'a> {
    budgets: &'a Arc<Budgets>,
    hold: Option<Hold>,
}

impl Pending<'_> {
    fn granted(mut self) -> Reservation {
        Reservation { budgets: self.budgets.clone(), hold: self.hold.take() }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            self.budgets.settle(hold, Amounts::default());
        }
    }
}

/// What a call may use. Settle it with what the call used; dropped without that, all of it counts as
/// used, since nobody knows better.
#[must_use = "what is reserved counts as used unless it is settled or released"]
pub struct Reservation {
    budgets: Arc<Budgets>,
    /// None where no budget is configured, and once it is settled.
    hold: Option<Hold>,
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation").field("hold", &self.hold).finish()
    }
}

/// What a call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Millionths of the price table's currency; `None` where the price is not known.
    pub cost_micros: Option<u64>,
}

impl Reservation {
    /// Whether a budget of tokens or money covers the call, so that its answer must not outgrow what is
    /// reserved.
    pub fn bounds_answer(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.bounds_answer())
    }

    /// Settles with the tokens that the provider counted, at the price of the model that answered.
    pub fn settle(mut self, used: &Used, priced: &Priced) -> Settled {
        let cost_micros = priced.price.as_ref().map(|price| price.cost(used));
        if cost_micros.is_none() {
            self.budgets.count_unpriced(&priced.model);
        }
        self.end(used.amounts(cost_micros));
        Settled { cost_micros }
    }

    /// Settles a call of which the provider said no usage: as many tokens as so many bytes may be. The
    /// record should say that they are estimated.
    pub fn settle_unreported(
        self,
        request_bytes: u64,
        answer_bytes: u64,
        priced: &Priced,
    ) -> (Used, Settled) {
        let used = Used {
            input: estimate::tokens(request_bytes),
            output: estimate::tokens(answer_bytes),
            ..Used::default()
        };
        let settled = self.settle(&used, priced);
        (used, settled)
    }

    /// Settles a call that counts as a request and used nothing else: one of a tool or a peer, or one that
    /// failed before a model worked on it.
    pub fn spend_request(mut self) {
        self.end(Amounts::REQUEST);
    }

    /// Gives everything back: the call did not happen.
    pub fn release(mut self) {
        self.end(Amounts::default());
    }

    fn end(&mut self, used: Amounts) {
        if let Some(hold) = self.hold.take() {
            self.budgets.settle(hold, used);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            let all = hold.amounts();
            self.budgets.settle(hold, all);
        }
    }
}

impl Saved {
    fn empty(key: Key) -> Self {
        let none = Amounts::default();
        Self { key, start: Timestamp(0), spent: none, held: none, leased: none, epoch: 0 }
    }
}

/// The row of an account.
fn to_row(saved: &Saved) -> BudgetRow {
    let amounts = |a: Amounts| BudgetAmounts { requests: a.requests, tokens: a.tokens, money: a.money };
    BudgetRow {
        budget: saved.key.budget.to_string(),
        per: saved.key.per.as_str().to_owned(),
        agent: saved.key.agent.clone(),
        start: saved.start,
        spent: amounts(saved.spent),
        held: amounts(saved.held),
        leased: amounts(saved.leased),
    }
}

/// The account of a row; none where the row is of a window that this version does not know.
fn from_row(row: BudgetRow) -> Option<Saved> {
    let amounts = |a: BudgetAmounts| Amounts { requests: a.requests, tokens: a.tokens, money: a.money };
    Some(Saved {
        key: Key { budget: row.budget.into(), per: Per::parse(&row.per)?, agent: row.agent },
        start: row.start,
        spent: amounts(row.spent),
        held: amounts(row.held),
        leased: amounts(row.leased),
        epoch: 0,
    })
}

#[cfg(test)]
mod tests;
