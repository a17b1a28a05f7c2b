use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("a time")
}

fn agent(name: &str) -> AgentName {
    AgentName::new(name).expect("a name")
}

fn rule(name: &str, per: Per, limit: Limit) -> Rule {
    Rule { name: name.into(), covers: Covers::default(), each: false, per, limit }
}

fn tokens(n: u64) -> Limit {
    Limit { tokens: Some(n), ..Limit::default() }
}

fn ask(n: u64) -> Ask {
    Ask { amounts: Amounts { requests: 1, tokens: n, money: 0 }, unpriced: false }
}

fn used(n: u64) -> Amounts {
    ask(n).amounts
}

fn by(agent: &AgentName) -> Call<'_> {
    Call { agent, groups: &[], person: None, model: None }
}

fn refusal(refused: Result<Hold, Refused>) -> UsedUp {
    match refused {
        Err(Refused::UsedUp(used_up)) => *used_up,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_must_fit_every_budget_that_covers_it() {
    let (ci, model) = (GroupName::new("ci").unwrap(), ModelName::new("gpt").unwrap());
    let covers = |covers: Covers| Rule { covers, ..rule("x", Per::Day, tokens(100)) };
    let named = |name: &str, rule: Rule| Rule { name: name.into(), ..rule };
    let mut ledger = Ledger::new(vec![
        named("of-all", rule("", Per::Month, tokens(1000))),
        named("of-group", covers(Covers { group: Some(ci.clone()), ..Covers::default() })),
        named("of-agent", covers(Covers { agent: Some(agent("a")), ..Covers::default() })),
        named("of-person", covers(Covers { person: Some("eve".into()), ..Covers::default() })),
        named(
            "of-group-and-model",
            Rule {
                limit: tokens(30),
                ..covers(Covers { group: Some(ci.clone()), model: Some(model.clone()), ..Covers::default() })
            },
        ),
    ]);
    let now = at("2026-11-25T10:00:00Z");
    let (a, b, groups) = (agent("a"), agent("b"), [ci]);
    let of = |agent, person, model| Call { agent, groups: &groups, person, model };
    let mut take = |call: Call<'_>, n| ledger.reserve(&call, ask(n), now);
    // The narrowest decides; what it refuses took nothing anywhere.
    assert_eq!(&*refusal(take(of(&a, None, Some(&model)), 31)).budget, "of-group-and-model");
    let first = take(of(&a, None, Some(&model)), 30).unwrap();
    assert_eq!(&*refusal(take(of(&b, None, Some(&model)), 1)).budget, "of-group-and-model");
    let second = take(of(&b, Some("eve"), None), 70).unwrap();
    assert_eq!(&*refusal(take(of(&b, None, None), 1)).budget, "of-group");
    let alone = take(by(&b), 900).unwrap();
    // The month lasts longer than the day, so that is what the caller is told.
    assert_eq!(&*refusal(take(of(&b, None, None), 1)).budget, "of-all");
    for hold in [first, second, alone] {
        ledger.settle(hold, Amounts::default());
    }
    let left: Vec<_> = ledger.accounts(now).into_iter().filter(|v| v.spent.plus(v.held).tokens > 0).collect();
    assert_eq!(left, []);
}

#[test]
fn each_agent_has_its_own_account() {
    let mut ledger = Ledger::new(vec![Rule { each: true, ..rule("each", Per::Hour, tokens(10)) }]);
    let now = at("2026-11-25T10:00:00Z");
    let (a, b) = (agent("a"), agent("b"));
    let _a = ledger.reserve(&by(&a), ask(10), now).unwrap();
    let _b = ledger.reserve(&by(&b), ask(4), now).unwrap();
    let refused = refusal(ledger.reserve(&by(&a), ask(1), now));
    assert_eq!((refused.agent.as_ref(), refused.held), (Some(&a), 10));
    let shown: Vec<_> =
        ledger.accounts(now).into_iter().map(|v| (v.agent.unwrap().to_string(), v.held.tokens)).collect();
    assert_eq!(shown, [("a".to_owned(), 10), ("b".to_owned(), 4)]);
}

#[test]
fn a_refusal_knows_when_it_works_again() {
    let mut ledger = Ledger::new(vec![rule("b", Per::Hour, tokens(10))]);
    let (a, now, end) = (agent("a"), at("2026-11-25T10:59:00Z"), at("2026-11-25T11:00:00Z"));
    let until = |ledger: &mut Ledger, n| refusal(ledger.reserve(&by(&a), ask(n), now)).until;
    assert_eq!(until(&mut ledger, 11), None);
    let hold = ledger.reserve(&by(&a), ask(8), now).unwrap();
    assert_eq!(until(&mut ledger, 3), Some(now.plus_secs(1)));
    ledger.settle(hold, used(8));
    assert_eq!(until(&mut ledger, 3), Some(end));
    // Whoever asks for none of what is used up passes: another unit may be limited elsewhere.
    assert!(ledger.reserve(&by(&a), ask(0), now).is_ok());
    assert!(ledger.reserve(&by(&a), ask(10), end).is_ok());
}

#[test]
fn a_window_that_ends_takes_its_reservations_along() {
    let mut ledger = Ledger::new(vec![rule("b", Per::Minute, tokens(10))]);
    let (a, before, after) = (agent("a"), at("2026-11-25T10:00:59Z"), at("2026-11-25T10:01:00Z"));
    let hold = ledger.reserve(&by(&a), ask(10), before).unwrap();
    let next = ledger.reserve(&by(&a), ask(7), after).unwrap();
    // The earlier call ends in the new window, and changes nothing there.
    ledger.settle(hold, used(10));
    let shown = &ledger.accounts(after)[0];
    assert_eq!((shown.spent.tokens, shown.held.tokens), (0, 7));
    assert_eq!(refusal(ledger.reserve(&by(&a), ask(4), after)).held, 7);
    ledger.settle(next, used(7));
    // Nobody called since: the list knows all the same that the window is over.
    let later = at("2026-11-25T12:00:30Z");
    let shown = &ledger.accounts(later)[0];
    assert_eq!((shown.spent.tokens, shown.resets), (0, at("2026-11-25T12:01:00Z")));
}

#[test]
fn a_clock_that_goes_back_opens_nothing_again() {
    let mut ledger = Ledger::new(vec![rule("b", Per::Hour, tokens(10))]);
    let a = agent("a");
    let spend = |ledger: &mut Ledger, n, time: &str| {
        let hold = ledger.reserve(&by(&a), ask(n), at(time))?;
        ledger.settle(hold, used(n));
        Ok::<_, Refused>(())
    };
    spend(&mut ledger, 4, "2026-11-25T09:59:59Z").unwrap();
    spend(&mut ledger, 9, "2026-11-25T10:00:01Z").unwrap();
    // Back by two seconds, and forward again: still the account of ten o'clock.
    assert!(spend(&mut ledger, 2, "2026-11-25T09:59:59Z").is_err());
    assert!(spend(&mut ledger, 2, "2026-11-25T10:00:02Z").is_err());
    spend(&mut ledger, 1, "2026-11-25T09:59:59Z").unwrap();
    // A clock that was a year ahead is set right: what was spent then counts now, and time goes on.
    assert!(spend(&mut ledger, 3, "2027-11-25T10:00:00Z").is_ok());
    assert!(spend(&mut ledger, 8, "2026-11-25T10:30:00Z").is_err());
    assert!(spend(&mut ledger, 7, "2026-11-25T10:30:00Z").is_ok());
    assert!(spend(&mut ledger, 10, "2026-11-25T11:00:00Z").is_ok());
}

#[test]
fn what_was_used_beyond_the_reservation_is_counted() {
    let mut ledger = Ledger::new(vec![rule("b", Per::Day, tokens(100))]);
    let (a, now) = (agent("a"), at("2026-11-25T10:00:00Z"));
    let hold = ledger.reserve(&by(&a), ask(10), now).unwrap();
    ledger.settle(hold, used(150));
    let refused = refusal(ledger.reserve(&by(&a), ask(1), now));
    assert_eq!((refused.spent, refused.limit), (150, 100));
    let endless = Ask { amounts: Amounts { tokens: u64::MAX, ..Amounts::REQUEST }, unpriced: false };
    assert_eq!(refusal(ledger.reserve(&by(&a), endless, now)).until, None);
}

#[test]
fn money_of_unknown_amount_is_refused_where_money_is_limited() {
    let money = Limit { money: Some(5), ..Limit::default() };
    let mut ledger = Ledger::new(vec![rule("tokens", Per::Day, tokens(100))]);
    let (a, now) = (agent("a"), at("2026-11-25T10:00:00Z"));
    let unpriced = Ask { unpriced: true, ..ask(1) };
    assert!(ledger.reserve(&by(&a), unpriced, now).is_ok());
    ledger.replace_rules(vec![rule("tokens", Per::Day, tokens(100)), rule("money", Per::Day, money)]);
    let refused = ledger.reserve(&by(&a), unpriced, now).unwrap_err();
    assert_eq!(refused, Refused::Unpriced { budget: "money".into() });
}

#[test]
fn other_limits_keep_what_was_spent() {
    let mut ledger = Ledger::new(vec![rule("b", Per::Day, tokens(10))]);
    let (a, now) = (agent("a"), at("2026-11-25T10:00:00Z"));
    let hold = ledger.reserve(&by(&a), ask(6), now).unwrap();
    ledger.settle(hold, used(6));
    let open = ledger.reserve(&by(&a), ask(4), now).unwrap();
    ledger.replace_rules(Vec::new());
    assert!(ledger.accounts(now).is_empty());
    ledger.replace_rules(vec![rule("b", Per::Day, tokens(20))]);
    // Also what was reserved before, and is settled after.
    ledger.settle(open, used(3));
    assert_eq!(refusal(ledger.reserve(&by(&a), ask(12), now)).spent, 9);
    // Another window is another budget.
    ledger.replace_rules(vec![rule("b", Per::Hour, tokens(20))]);
    assert!(ledger.reserve(&by(&a), ask(20), now).is_ok());
}

#[test]
fn few_writes_carry_many_calls() {
    let mut ledger = Ledger::new(vec![rule("b", Per::Day, tokens(16_000))]);
    let (a, now) = (agent("a"), at("2026-11-25T10:00:00Z"));
    let mut writes = 0;
    for _ in 0..16_000 {
        let hold = ledger.reserve(&by(&a), ask(1), now).unwrap();
        if ledger.wants_write() {
            let rows = ledger.to_write(false);
            writes += rows.len();
            ledger.written(&rows);
        }
        assert!(ledger.covered(&hold));
        ledger.settle(hold, used(1));
    }
    assert!(ledger.reserve(&by(&a), ask(1), now).is_err());
    assert!((16..=40).contains(&writes), "{writes}");
}

#[test]
fn a_lease_that_is_too_large_is_given_back() {
    let mut ledger = Ledger::new(vec![rule("b", Per::Day, tokens(1600))]);
    let (a, now) = (agent("a"), at("2026-11-25T10:00:00Z"));
    let hold = ledger.reserve(&by(&a), ask(1000), now).unwrap();
    let rows = ledger.to_write(false);
    assert_eq!(rows[0].leased.tokens, 1100);
    ledger.written(&rows);
    ledger.settle(hold, used(10));
    let rows = ledger.to_write(true);
    assert_eq!((rows[0].spent.tokens, rows[0].leased.tokens), (10, 110));
    // It counts as smaller before it is written: a crash may come after.
    let hold = ledger.reserve(&by(&a), ask(500), now).unwrap();
    assert!(!ledger.covered(&hold));
    ledger.not_written(rows);
    assert!(ledger.wants_write());
    assert_eq!(ledger.to_close()[0].leased.tokens, 510);
}

#[test]
fn accounts_of_long_ago_are_forgotten() {
    let mut ledger = Ledger::new(vec![Rule { each: true, ..rule("b", Per::Minute, tokens(10)) }]);
    let (a, now) = (agent("a"), at("2026-11-25T10:00:00Z"));
    let open = ledger.reserve(&by(&a), ask(1), now).unwrap();
    let later = now.plus_secs(3600);
    assert!(ledger.forget_old(later).is_empty());
    ledger.settle(open, used(1));
    assert!(ledger.forget_old(now.plus_secs(119)).is_empty());
    assert_eq!(ledger.forget_old(later).len(), 1);
    assert!(ledger.accounts(later).is_empty());
}

/// One thing that happens to a ledger.
#[derive(Debug, Clone)]
enum Step {
    Reserve {
        agent: usize,
        tokens: u64,
        money: u64,
    },
    /// The call ends having used so many percent of what it reserved.
    End {
        which: usize,
        percent: u64,
    },
    /// It does not happen after all.
    Release {
        which: usize,
    },
    Later {
        secs: i64,
    },
    /// A write begins, unless one is under way.
    Write {
        all: bool,
    },
    /// It ends. Also what is said to have failed may be on the disk.
    Written {
        succeeds: bool,
        landed: bool,
    },
    /// A write under way may be on the disk then.
    Crash {
        landed: bool,
    },
    Stop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..3_usize, 0..60_u64, 0..400_u64)
            .prop_map(|(agent, tokens, money)| Step::Reserve { agent, tokens, money }),
        6 => (0..8_usize, 0..=100_u64).prop_map(|(which, percent)| Step::End { which, percent }),
        1 => (0..8_usize).prop_map(|which| Step::Release { which }),
        2 => (0..90_i64).prop_map(|secs| Step::Later { secs }),
        1 => (3000..90_000_i64).prop_map(|secs| Step::Later { secs }),
        6 => any::<bool>().prop_map(|all| Step::Write { all }),
        6 => (prop::bool::weighted(0.8), any::<bool>())
            .prop_map(|(succeeds, landed)| Step::Written { succeeds, landed: succeeds || landed }),
        1 => any::<bool>().prop_map(|landed| Step::Crash { landed }),
        1 => Just(Step::Stop),
    ];
    prop::collection::vec(step, 1..120)
}

/// A ledger, its disk, and beside them a plain count of what calls really used.
struct World {
    ledger: Ledger,
    disk: HashMap<Key, Saved>,
    writing: Option<Vec<Saved>>,
    now: Timestamp,
    calls: Vec<Running>,
    used: BTreeMap<(String, i64), Amounts>,
}

/// A call that was given a reservation.
struct Running {
    hold: Hold,
    ask: Amounts,
    accounts: Vec<(String, i64)>,
    /// Whether the disk promised what it needs, so that it went out.
    out: bool,
}

impl World {
    const AGENTS: [(&str, bool); 3] = [("a", true), ("b", true), ("c", false)];

    fn rules() -> Vec<Rule> {
        let limit = |requests, tokens, money| Limit { requests, tokens, money };
        let team = Covers { group: GroupName::new("team").ok(), ..Covers::default() };
        let only_a = Covers { agent: AgentName::new("a").ok(), ..Covers::default() };
        vec![
            rule("rate", Per::Minute, limit(Some(5), None, None)),
            Rule { each: true, ..rule("each", Per::Hour, limit(None, Some(100), None)) },
            Rule { covers: team, ..rule("team", Per::Day, limit(None, Some(200), Some(1000))) },
            Rule { covers: only_a, ..rule("a", Per::Month, limit(Some(20), None, Some(3000))) },
        ]
    }

    fn new() -> Self {
        Self {
            ledger: Ledger::new(Self::rules()),
            disk: HashMap::new(),
            writing: None,
            now: at("2026-11-29T23:58:00Z"),
            calls: Vec::new(),
            used: BTreeMap::new(),
        }
    }

    /// The accounts that cover an agent's call now, worked out without the ledger.
    fn accounts_of(&self, (name, in_team): (&str, bool)) -> Vec<(String, i64)> {
        let start = |per: Per| per.window(self.now).start.0;
        let mut accounts =
            vec![("rate".to_owned(), start(Per::Minute)), (format!("each/{name}"), start(Per::Hour))];
        accounts.extend(in_team.then(|| ("team".to_owned(), start(Per::Day))));
        accounts.extend((name == "a").then(|| ("a".to_owned(), start(Per::Month))));
        accounts
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Reserve { agent: index, tokens, money } => {
                let who = Self::AGENTS[index];
                let (name, groups) = (agent(who.0), [GroupName::new("team").unwrap()]);
                let groups = if who.1 { &groups[..] } else { &[] };
                let ask = Amounts { requests: 1, tokens, money };
                let call = Call { agent: &name, groups, person: None, model: None };
                let wish = Ask { amounts: ask, unpriced: false };
                if let Ok(hold) = self.ledger.reserve(&call, wish, self.now) {
                    let accounts = self.accounts_of(who);
                    self.calls.push(Running { hold, ask, accounts, out: false });
                }
            }
            Step::End { which, percent } => {
                let Some(call) = self.nth(which) else { return };
                let part = |n: u64| n * percent / 100;
                let used =
                    Amounts { requests: 1, tokens: part(call.ask.tokens), money: part(call.ask.money) };
                let used = if call.out { used } else { Amounts::default() };
                self.really_used(&call.accounts, used);
                self.ledger.settle(call.hold, used);
            }
            Step::Release { which } => {
                let Some(call) = self.nth(which) else { return };
                self.ledger.settle(call.hold, Amounts::default());
            }
            Step::Later { secs } => self.now = self.now.plus_secs(secs),
            Step::Write { all } => {
                if self.writing.is_none() {
                    self.writing = Some(self.ledger.to_write(all));
                }
            }
            Step::Written { succeeds, landed } => {
                let Some(rows) = self.writing.take() else { return };
                if landed {
                    self.keep(&rows);
                }
                if succeeds {
                    self.ledger.written(&rows);
                } else {
                    self.ledger.not_written(rows);
                }
            }
            Step::Crash { landed } => {
                if let Some(rows) = self.writing.take().filter(|_| landed) {
                    self.keep(&rows);
                }
                self.start_again();
            }
            Step::Stop => {
                // As `Budgets::close` does, after a write that is under way.
                self.writing = None;
                let rows = self.ledger.to_close();
                self.keep(&rows);
                self.start_again();
            }
        }
        for call in &mut self.calls {
            call.out = call.out || self.ledger.covered(&call.hold);
        }
    }

    fn nth(&mut self, which: usize) -> Option<Running> {
        (!self.calls.is_empty()).then(|| self.calls.remove(which % self.calls.len()))
    }

    fn really_used(&mut self, accounts: &[(String, i64)], used: Amounts) {
        for account in accounts {
            let sum = self.used.entry(account.clone()).or_default();
            *sum = sum.plus(used);
        }
    }

    fn keep(&mut self, rows: &[Saved]) {
        self.disk.extend(rows.iter().map(|row| (row.key.clone(), row.clone())));
    }

    /// The process is gone. Calls that were out may have used all that they reserved.
    fn start_again(&mut self) {
        for call in std::mem::take(&mut self.calls) {
            if call.out {
                self.really_used(&call.accounts, call.ask);
            }
        }
        self.ledger = Ledger::new(Self::rules());
        self.ledger.restore(self.disk.values().cloned());
    }

    /// Nothing is overspent, and the disk promises no less than what is and may be used.
    fn check(&self) {
        let mut most = self.used.clone();
        for call in self.calls.iter().filter(|call| call.out) {
            for account in &call.accounts {
                let sum = most.entry(account.clone()).or_default();
                *sum = sum.plus(call.ask);
            }
        }
        for ((name, start), amounts) in &most {
            let budget = name.split('/').next().unwrap();
            let rule = Self::rules().into_iter().find(|rule| &*rule.name == budget).unwrap();
            let is_row = |row: &&Saved| {
                let own = row.key.agent.as_ref().map_or_else(String::new, |agent| format!("/{agent}"));
                *name == format!("{}{own}", row.key.budget) && row.start.0 == *start
            };
            let on_disk = self.disk.values().find(is_row);
            let soon = self.writing.iter().flatten().filter(is_row);
            let over = rule.per.window(self.now).start.0 != *start;
            for (unit, limit) in rule.limit.units() {
                assert!(amounts.of(unit) <= limit, "{name}: {} of {limit} {unit:?}", amounts.of(unit));
                if !over {
                    // What is being written may be there already, or not yet.
                    let now = on_disk.map_or(0, |row| row.leased.of(unit));
                    let promised = soon.clone().map(|row| row.leased.of(unit)).fold(now, u64::min);
                    assert!(
                        amounts.of(unit) <= promised,
                        "{name}: {} used, {promised} on disk",
                        amounts.of(unit)
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_overspends(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
            world.check();
        }
    }
}
