//! The accounts of all budgets: what is spent, what calls in flight may still spend, and how much of it
//! is promised on disk. Plain functions on values; the time and everything that was stored is handed in.
//!
//! An account belongs to a budget and, where each agent has its own, to an agent. It counts within one
//! window of time and begins anew with the next. A call *reserves* the most that it can use in every
//! account that covers it, all or nothing, and *settles* with what it used; both under one lock, so
//! `spent + held <= limit` holds for any order of calls, as long as none uses more than it reserved.
//! What one uses beyond that was really used: it is counted, and the next call is refused.
//!
//! **Leases.** What was spent must outlive the process without a write per call. So an account promises
//! ahead: the amount on disk (`leased`) is what is spent and held and a sixteenth of the limit more, and
//! a reservation may be used only when the disk's amount covers it. After a crash the whole amount on
//! disk counts as spent: up to a sixteenth, and what calls in flight had reserved, is lost to the
//! callers, and nobody ever overspends. An orderly stop writes what was really spent. An account costs
//! some sixteen writes per window, however many calls there are.
//!
//! **Clocks** that go back do not open a window again: the account stays in its later window. Only when
//! that lies ahead by more than its own length (a clock that was wrong and is now right) does the
//! account come back to the present, with everything that it counted.

use std::{collections::HashMap, sync::Arc};

use castra_core::{AgentName, GroupName, ModelName, Timestamp};

use super::{
    amounts::{Amounts, Limit, Unit},
    window::{Per, Window},
};

/// Accounts at once. Agents that an issuer vouches for make accounts too; beyond this calls are refused.
const ACCOUNTS_MAX: usize = 200_000;

/// A lease is this part of the limit: more parts lose less in a crash and write more often.
const LEASES_PER_LIMIT: u64 = 16;

/// When calls in flight hold what is missing, it may come back with any of them.
const HELD_RETRY_SECS: i64 = 1;

/// A budget as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: Arc<str>,
    /// Whose calls it covers.
    pub covers: Covers,
    /// Whether each agent has an account of its own.
    pub each: bool,
    /// How long it counts.
    pub per: Per,
    /// What may be used in that time.
    pub limit: Limit,
}

/// Which calls a budget covers: those that meet everything that is given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Covers {
    /// Of this agent.
    pub agent: Option<AgentName>,
    /// Of agents in this group.
    pub group: Option<GroupName>,
    /// On behalf of this person.
    pub person: Option<Arc<str>>,
    /// To this model route.
    pub model: Option<ModelName>,
}

impl Covers {
    fn covers(&self, call: &Call<'_>) -> bool {
        self.agent.as_ref().is_none_or(|agent| agent == call.agent)
            && self.group.as_ref().is_none_or(|group| call.groups.contains(group))
            && self.person.as_deref().is_none_or(|person| call.person == Some(person))
            && self.model.as_ref().is_none_or(|model| call.model == Some(model))
    }

    /// In words, such as `group ci, model gpt`; `everything` for all calls.
    pub fn text(&self) -> String {
        let parts = [
            ("agent", self.agent.as_ref().map(AgentName::as_str)),
            ("group", self.group.as_ref().map(GroupName::as_str)),
            ("person", self.person.as_deref()),
            ("model", self.model.as_ref().map(ModelName::as_str)),
        ];
        let given: Vec<String> =
            parts.iter().filter_map(|(what, name)| Some(format!("{what} {}", (*name)?))).collect();
        if given.is_empty() { "everything".into() } else { given.join(", ") }
    }
}

/// Who calls what, as far as budgets are concerned.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The agent.
    pub agent: &'a AgentName,
    /// Its groups.
    pub groups: &'a [GroupName],
    /// On whose behalf it acts.
    pub person: Option<&'a str>,
    /// The model route, if it is a model call.
    pub model: Option<&'a ModelName>,
}

/// Names an account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The budget.
    pub budget: Arc<str>,
    /// Its window; a budget that gets another begins anew.
    pub per: Per,
    /// The agent, where each has its own account.
    pub agent: Option<AgentName>,
}

/// An account as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Which account.
    pub key: Key,
    /// The first moment of its window.
    pub start: Timestamp,
    /// What was spent when this was written.
    pub spent: Amounts,
    /// What calls in flight held then.
    pub held: Amounts,
    /// What counts as spent when the process ends without a word.
    pub leased: Amounts,
    /// Tells this life of the account from others in memory; not stored.
    pub(crate) epoch: u64,
}

/// An account as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountView {
    /// The budget.
    pub rule: Rule,
    /// The agent, where each has its own account.
    pub agent: Option<AgentName>,
    /// What is spent.
    pub spent: Amounts,
    /// What calls in flight may still spend.
    pub held: Amounts,
    /// When it begins anew.
    pub resets: Timestamp,
}

/// Why a call does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// An account has too little left.
    UsedUp(Box<UsedUp>),
    /// A budget limits money, and what the call will cost is not known.
    Unpriced {
        /// The budget.
        budget: Arc<str>,
    },
    /// There are as many accounts as there may be.
    TooManyAccounts,
}

/// What an account has, and what was asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedUp {
    /// The budget.
    pub budget: Arc<str>,
    /// What it covers, in words.
    pub covers: String,
    /// The agent, where each has its own account.
    pub agent: Option<AgentName>,
    /// Its window.
    pub per: Per,
    /// What there is too little of.
    pub unit: Unit,
    /// What may be used.
    pub limit: u64,
    /// What is spent.
    pub spent: u64,
    /// What calls in flight may still spend.
    pub held: u64,
    /// What the call may use.
    pub asked: u64,
    /// When the window ends.
    pub resets: Timestamp,
    /// From when the same call may fit; `None` if it is more than the whole budget.
    pub until: Option<Timestamp>,
}

/// What a call may use: at most `amounts`; its money is not known if it is `unpriced`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ask {
    /// At most.
    pub amounts: Amounts,
    /// Whether what it will cost is not known; a budget of money that covers it refuses it then.
    pub unpriced: bool,
}

/// What a call holds. It must come back to [`Ledger::settle`], once.
#[must_use = "what is held stays held until it is settled"]
#[derive(Debug)]
pub struct Hold {
    places: Vec<Place>,
    amounts: Amounts,
    bounds_answer: bool,
}

impl Hold {
    /// Whether a budget that counts what an answer is long is among them.
    pub fn bounds_answer(&self) -> bool {
        self.bounds_answer
    }

    /// What is held.
    pub fn amounts(&self) -> Amounts {
        self.amounts
    }
}

/// One account that a call holds something of.
#[derive(Debug)]
struct Place {
    key: Key,
    epoch: u64,
    /// Spent and held in the account when this was reserved: once the disk promises that much, the call may go.
    level: Amounts,
}

#[derive(Debug)]
struct Account {
    window: Window,
    /// A new one with each window: what was held in an earlier window is of no concern in this one.
    epoch: u64,
    spent: Amounts,
    held: Amounts,
    /// What the disk promises.
    leased: Amounts,
    /// In the list of what changed since it was written.
    touched: bool,
    /// In the list of what must be written soon.
    wanted: bool,
}

impl Account {
    fn new(window: Window, epoch: u64) -> Self {
        Self {
            window,
            epoch,
            spent: Amounts::default(),
            held: Amounts::default(),
            leased: Amounts::default(),
            touched: false,
            wanted: false,
        }
    }

    /// What must be promised on disk.
    fn need(&self) -> Amounts {
        self.spent.plus(self.held)
    }
}

/// All accounts.
#[derive(Debug, Default)]
pub struct Ledger {
    rules: Vec<Rule>,
    accounts: HashMap<Key, Account>,
    epochs: u64,
    touched: Vec<Key>,
    wanted: Vec<Key>,
}

impl Ledger {
    /// A ledger without accounts.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Takes other budgets. Accounts of budgets that keep their name and window keep what they counted, also
    /// when a budget is gone for a while.
    pub fn replace_rules(&mut self, rules: Vec<Rule>) {
        self.rules = rules;
    }

    /// Takes accounts that were stored. All that was promised counts as spent.
    pub fn restore(&mut self, saved: impl IntoIterator<Item = Saved>) {
        for row in saved {
            let epoch = self.next_epoch();
            let mut account = Account::new(row.key.per.window(row.start), epoch);
            account.spent = row.spent.max(row.leased);
            account.leased = row.leased;
            self.accounts.insert(row.key, account);
        }
    }

    /// Takes accounts as another process, which goes on, wrote them last: for looking at, not for reserving.
    pub fn look_at(&mut self, saved: impl IntoIterator<Item = Saved>) {
        for row in saved {
            let epoch = self.next_epoch();
            let mut account = Account::new(row.key.per.window(row.start), epoch);
            (account.spent, account.held) = (row.spent, row.held);
            self.accounts.insert(row.key, account);
        }
    }

    /// Reserves in every account that covers the call, or in none.
    pub fn reserve(&mut self, call: &Call<'_>, ask: Ask, now: Timestamp) -> Result<Hold, Refused> {
        let covering: Vec<usize> = self.covering(call).collect();
        let keys = self.open_accounts(&covering, call.agent, now)?;
        let (mut refused, mut bounds_answer) = (None, false);
        for (rule, key) in self.pairs(&covering, &keys) {
            bounds_answer |= rule.limit.tokens.is_some() || rule.limit.money.is_some();
            if ask.unpriced && rule.limit.money.is_some() {
                return Err(Refused::Unpriced { budget: rule.name.clone() });
            }
            let Some(account) = self.accounts.get(key) else { continue };
            for (unit, limit) in rule.limit.units() {
                refused =
                    later(refused, used_up(rule, key, account, (unit, limit), ask.amounts.of(unit), now));
            }
        }
        if let Some(used_up) = refused {
            return Err(Refused::UsedUp(Box::new(used_up)));
        }
        let places = keys.into_iter().filter_map(|key| self.hold(key, ask.amounts)).collect();
        Ok(Hold { places, amounts: ask.amounts, bounds_answer })
    }

    /// Ends a reservation: what was held is free again, what was used is spent. A call belongs to the
    /// window in which it began; one that ends after that window changes nothing in the next.
    pub fn settle(&mut self, hold: Hold, used: Amounts) {
        for place in hold.places {
            let Some(account) = self.accounts.get_mut(&place.key).filter(|a| a.epoch == place.epoch) else {
                continue;
            };
            account.held = account.held.minus(hold.amounts);
            account.spent = account.spent.plus(used);
            self.note(place.key);
        }
    }

    /// Whether the disk promises what a reservation may use, so that the call may go.
    pub fn covered(&self, hold: &Hold) -> bool {
        hold.places.iter().all(|place| {
            let Some(account) = self.accounts.get(&place.key).filter(|a| a.epoch == place.epoch) else {
                return true;
            };
            let Some(rule) = self.rule_of(&place.key) else { return true };
            let need = account.need();
            rule.limit.units().all(|(unit, _)| {
                let leased = account.leased.of(unit);
                place.level.of(unit) <= leased || need.of(unit) <= leased
            })
        })
    }

    /// Whether something must be written soon.
    pub fn wants_write(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// What is to be written now: what is wanted soon, and with `all` whatever changed. A lease may get
    /// smaller here, and counts as smaller from now on; it gets larger with [`Self::written`].
    pub fn to_write(&mut self, all: bool) -> Vec<Saved> {
        let mut keys = std::mem::take(&mut self.wanted);
        if all {
            keys.append(&mut self.touched);
        }
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            let limit = self.rule_of(&key).map(|rule| rule.limit).unwrap_or_default();
            let Some(account) = self.accounts.get_mut(&key) else { continue };
            account.wanted = false;
            if all {
                account.touched = false;
            }
            rows.push(saved(key, account, lease(account.need(), &limit)));
        }
        rows
    }

    /// The last word of an orderly stop: every account with what it really spent. Nothing may be reserved after.
    pub fn to_close(&mut self) -> Vec<Saved> {
        let keys: Vec<Key> = self.accounts.keys().cloned().collect();
        let rows = keys.into_iter().filter_map(|key| {
            let account = self.accounts.get_mut(&key)?;
            let need = account.need();
            Some(saved(key, account, need))
        });
        rows.collect()
    }

    /// Takes note that rows are on disk.
    pub fn written(&mut self, rows: &[Saved]) {
        for row in rows {
            if let Some(account) = self.accounts.get_mut(&row.key).filter(|a| a.epoch == row.epoch) {
                account.leased = row.leased;
            }
        }
    }

    /// Takes note that rows could not be written: they are to be written the next time.
    pub fn not_written(&mut self, rows: Vec<Saved>) {
        for row in rows {
            self.want(row.key);
        }
    }

    /// Forgets accounts whose window ended at least its own length ago and that hold nothing; gives their keys.
    pub fn forget_old(&mut self, now: Timestamp) -> Vec<Key> {
        let old = |account: &Account| {
            let length = account.window.end.0.saturating_sub(account.window.start.0);
            account.window.end.0.saturating_add(length) <= now.0 && account.held == Amounts::default()
        };
        let gone: Vec<Key> =
            self.accounts.iter().filter(|(_, a)| old(a)).map(|(key, _)| key.clone()).collect();
        for key in &gone {
            self.accounts.remove(key);
        }
        gone
    }

    /// Every account of the budgets there are; a shared one also before its first call.
    pub fn accounts(&self, now: Timestamp) -> Vec<AccountView> {
        let mut views = Vec::new();
        for rule in &self.rules {
            let fresh = Account::new(rule.per.window(now), 0);
            if !rule.each {
                let key = Key { budget: rule.name.clone(), per: rule.per, agent: None };
                views.push(view(rule, None, self.accounts.get(&key).unwrap_or(&fresh), now));
                continue;
            }
            let of_rule = |key: &Key| key.budget == rule.name && key.per == rule.per && key.agent.is_some();
            let own = self.accounts.iter().filter(|(key, _)| of_rule(key));
            let mut own: Vec<_> =
                own.map(|(key, account)| view(rule, key.agent.clone(), account, now)).collect();
            own.sort_by(|a, b| a.agent.cmp(&b.agent));
            views.append(&mut own);
        }
        views
    }

    fn covering<'s>(&'s self, call: &'s Call<'_>) -> impl Iterator<Item = usize> + 's {
        self.rules.iter().enumerate().filter(|(_, rule)| rule.covers.covers(call)).map(|(index, _)| index)
    }

    fn pairs<'s>(&'s self, rules: &'s [usize], keys: &'s [Key]) -> impl Iterator<Item = (&'s Rule, &'s Key)> {
        rules.iter().filter_map(|index| self.rules.get(*index)).zip(keys)
    }

    /// The accounts of some budgets, opened if need be and brought to the window of now.
    fn open_accounts(
        &mut self,
        rules: &[usize],
        agent: &AgentName,
        now: Timestamp,
    ) -> Result<Vec<Key>, Refused> {
        let mut keys = Vec::with_capacity(rules.len());
        for index in rules {
            let Some(rule) = self.rules.get(*index) else { continue };
            let own = rule.each.then(|| agent.clone());
            let key = Key { budget: rule.name.clone(), per: rule.per, agent: own };
            let present = key.per.window(now);
            match self.accounts.get(&key).map(|account| account.window) {
                Some(window) if window == present => {}
                Some(window) if window.start < present.start => {
                    let epoch = self.next_epoch();
                    self.accounts.insert(key.clone(), Account::new(present, epoch));
                    // Its marks are gone with the account, the lists may still name it: that is harmless.
                }
                Some(window) if window.is_far_ahead_of(now) => {
                    if let Some(account) = self.accounts.get_mut(&key) {
                        account.window = present;
                    }
                    self.note(key.clone());
                }
                // A clock that went back a little: the later window goes on.
                Some(_) => {}
                None if self.accounts.len() >= ACCOUNTS_MAX => return Err(Refused::TooManyAccounts),
                None => {
                    let epoch = self.next_epoch();
                    self.accounts.insert(key.clone(), Account::new(present, epoch));
                }
            }
            keys.push(key);
        }
        Ok(keys)
    }

    fn hold(&mut self, key: Key, amounts: Amounts) -> Option<Place> {
        let account = self.accounts.get_mut(&key)?;
        account.held = account.held.plus(amounts);
        let place = Place { key: key.clone(), epoch: account.epoch, level: account.need() };
        self.note(key);
        Some(place)
    }

    /// Puts an account into the lists that it belongs to.
    fn note(&mut self, key: Key) {
        let Some(limit) = self.rule_of(&key).map(|rule| rule.limit) else { return self.touch(key) };
        let Some(account) = self.accounts.get(&key) else { return };
        let need = account.need();
        let low = limit.units().any(|(unit, limit)| {
            let (leased, need) = (account.leased.of(unit), need.of(unit));
            // Half a lease before the end, so that as a rule nobody waits for the disk.
            let left = leased.saturating_sub(need);
            need > leased || (left < lease_size(limit) / 2 && leased < limit)
        });
        if low {
            self.want(key);
        } else {
            self.touch(key);
        }
    }

    fn want(&mut self, key: Key) {
        if let Some(account) = self.accounts.get_mut(&key).filter(|account| !account.wanted) {
            account.wanted = true;
            self.wanted.push(key);
        }
    }

    fn touch(&mut self, key: Key) {
        if let Some(account) = self.accounts.get_mut(&key).filter(|account| !account.touched) {
            account.touched = true;
            self.touched.push(key);
        }
    }

    fn rule_of(&self, key: &Key) -> Option<&Rule> {
        self.rules
            .iter()
            .find(|rule| rule.per == key.per && rule.each == key.agent.is_some() && rule.name == key.budget)
    }

    fn next_epoch(&mut self) -> u64 {
        self.epochs += 1;
        self.epochs
    }
}

/// The row of an account that promises `leased`. What is promised less than before counts at once.
fn saved(key: Key, account: &mut Account, leased: Amounts) -> Saved {
    account.leased = account.leased.min(leased);
    Saved {
        key,
        start: account.window.start,
        spent: account.spent,
        held: account.held,
        leased,
        epoch: account.epoch,
    }
}

fn lease_size(limit: u64) -> u64 {
    limit.div_ceil(LEASES_PER_LIMIT)
}

/// What to promise: what is needed and a lease more, where there is a limit to keep; never beyond the
/// limit, which nobody could use.
fn lease(need: Amounts, limit: &Limit) -> Amounts {
    let of = |need: u64, limit: Option<u64>| match limit {
        Some(limit) => need.max(need.saturating_add(lease_size(limit)).min(limit)),
        None => need,
    };
    Amounts {
        requests: of(need.requests, limit.requests),
        tokens: of(need.tokens, limit.tokens),
        money: of(need.money, limit.money),
    }
}

fn used_up(
    rule: &Rule,
    key: &Key,
    account: &Account,
    (unit, limit): (Unit, u64),
    asked: u64,
    now: Timestamp,
) -> Option<UsedUp> {
    let (spent, held) = (account.spent.of(unit), account.held.of(unit));
    let fits_beside = |used: u64| used.checked_add(asked).is_some_and(|sum| sum <= limit);
    // Whoever asks for nothing of a unit is not held up by it.
    if asked == 0 || spent.checked_add(held).is_some_and(fits_beside) {
        return None;
    }
    let resets = account.window.end;
    let until = if asked > limit {
        None
    } else if fits_beside(spent) {
        Some(resets.min(now.plus_secs(HELD_RETRY_SECS)))
    } else {
        Some(resets)
    };
    Some(UsedUp {
        budget: rule.name.clone(),
        covers: rule.covers.text(),
        agent: key.agent.clone(),
        per: rule.per,
        unit,
        limit,
        spent,
        held,
        asked,
        resets,
        until,
    })
}

/// The refusal that lasts longer: a call must fit everywhere.
fn later(one: Option<UsedUp>, other: Option<UsedUp>) -> Option<UsedUp> {
    let lasts = |used_up: &UsedUp| used_up.until.map_or(i64::MAX, |until| until.0);
    match (one, other) {
        (Some(one), Some(other)) => Some(if lasts(&other) > lasts(&one) { other } else { one }),
        (one, other) => one.or(other),
    }
}

fn view(rule: &Rule, agent: Option<AgentName>, account: &Account, now: Timestamp) -> AccountView {
    let present = rule.per.window(now);
    // An account of a window that is over has not been told so yet.
    let over = account.window.start < present.start;
    let shown = |amounts: Amounts| if over { Amounts::default() } else { amounts };
    AccountView {
        rule: rule.clone(),
        agent,
        spent: shown(account.spent),
        held: shown(account.held),
        resets: if over { present.end } else { account.window.end },
    }
}

#[cfg(test)]
mod tests;
