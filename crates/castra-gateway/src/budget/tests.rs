use std::{
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use castra_core::{AgentName, AuthMethod, Refusal, RefusalCode};
use castra_store::StateDir;

use super::*;

const NOW: &str = "2026-11-25T10:15:30Z";

fn noon() -> Timestamp {
    Timestamp::parse(NOW).expect("a time")
}

fn state(root: &Path) -> Arc<State> {
    let dir = StateDir::open_or_create(&root.join("state")).expect("made");
    let keys = dir.keys(noon()).expect("keys");
    Arc::new(dir.state(keys.master.clone()).expect("opened"))
}

fn agent(name: &str) -> AgentIdentity {
    AgentIdentity {
        name: AgentName::new(name).expect("a name"),
        groups: Vec::new(),
        method: AuthMethod::Token,
        credential: "token:1".into(),
        expires: None,
        scopes: Vec::new(),
        delegation: Vec::new(),
    }
}

fn day(name: &str, limit: Limit) -> Rule {
    Rule { name: name.into(), covers: Covers::default(), each: false, per: Per::Day, limit }
}

fn tokens(n: u64) -> Settings {
    let limit = Limit { tokens: Some(n), ..Limit::default() };
    Settings { rules: vec![day("b", limit)], ..Settings::default() }
}

fn model() -> ModelName {
    ModelName::new("assistant").expect("a name")
}

/// One of the currency per million tokens, so that a token is a millionth.
fn priced() -> Priced {
    let rates =
        Rates { input: 1_000_000, cached_input: 1_000_000, cache_write: 1_000_000, output: 1_000_000 };
    Priced { model: "m".into(), price: Some(Arc::new(Price { rates, long: None })) }
}

fn unpriced() -> Priced {
    Priced { model: "unknown".into(), price: None }
}

async fn reserve(budgets: &Arc<Budgets>, name: &str, n: u64) -> Result<Reservation, OverBudget> {
    let (agent, route, prices) = (agent(name), model(), [priced()]);
    budgets.reserve(&BudgetAsk::model(&agent, &route, Tokens { input: n, output: 0 }, &prices)).await
}

fn input(n: u64) -> Used {
    Used { input: n, ..Used::default() }
}

fn spent(budgets: &Budgets) -> (u64, u64) {
    let account = &budgets.accounts()[0];
    (account.spent.tokens, account.held.tokens)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_callers_spend_to_the_last_token_and_not_one_more() {
    const LIMIT: u64 = 20_000;
    let root = tempfile::tempdir().unwrap();
    let budgets = Budgets::open(state(root.path()), noon, tokens(LIMIT)).unwrap();
    let total = Arc::new(AtomicU64::new(0));
    let caller = |caller: u64| {
        let (budgets, total) = (budgets.clone(), total.clone());
        async move {
            let mut turn = caller;
            loop {
                turn += 1;
                let most = turn % 13 + 1;
                let Ok(reservation) = reserve(&budgets, "a", most).await else {
                    // What others hold may come back; a token at a time until nothing is left.
                    match reserve(&budgets, "a", 1).await {
                        Ok(one) => {
                            one.settle(&input(1), &priced());
                            total.fetch_add(1, Ordering::SeqCst);
                            continue;
                        }
                        Err(OverBudget::UsedUp { account, .. }) if account.spent < LIMIT => {
                            tokio::task::yield_now().await;
                            continue;
                        }
                        Err(_) => return,
                    }
                };
                tokio::task::yield_now().await;
                let used = match turn % 5 {
                    0 => {
                        reservation.release();
                        0
                    }
                    1 => {
                        drop(reservation);
                        most
                    }
                    _ => {
                        reservation.settle(&input(most / 2), &priced());
                        most / 2
                    }
                };
                let sum = total.fetch_add(used, Ordering::SeqCst) + used;
                assert!(sum <= LIMIT, "{sum}");
            }
        }
    };
    let callers: Vec<_> = (0..64).map(|n| tokio::spawn(caller(n))).collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(total.load(Ordering::SeqCst), LIMIT);
    assert_eq!(spent(&budgets), (LIMIT, 0));
}

#[tokio::test]
async fn an_orderly_stop_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let state = state(root.path());
    let budgets = Budgets::open(state.clone(), noon, tokens(1600)).unwrap();
    reserve(&budgets, "a", 500).await.unwrap().settle(&input(37), &priced());
    let open = reserve(&budgets, "a", 100).await.unwrap();
    budgets.close().await.unwrap();
    assert_eq!(reserve(&budgets, "a", 1).await.unwrap_err(), OverBudget::Closed);
    // What was still open may have used all that it had reserved.
    drop(open);
    let listed = |running| {
        let rows = state.budget_accounts().unwrap();
        let views = stored_accounts(tokens(1600).rules, rows, running, noon());
        let row = AccountRow::new(&views[0], &"USD".into());
        (row.id, row.spent[&Unit::Tokens], row.reserved[&Unit::Tokens])
    };
    assert_eq!(listed(true), ("b".to_owned(), 37, 100));
    assert_eq!(listed(false), ("b".to_owned(), 137, 0));
    let again = Budgets::open(state, noon, tokens(1600)).unwrap();
    assert_eq!(spent(&again), (137, 0));
}

#[tokio::test]
async fn after_a_crash_what_was_promised_is_spent() {
    let root = tempfile::tempdir().unwrap();
    let state = state(root.path());
    let budgets = Budgets::open(state.clone(), noon, tokens(1600)).unwrap();
    reserve(&budgets, "a", 50).await.unwrap().settle(&input(50), &priced());
    let in_flight = reserve(&budgets, "a", 40).await.unwrap();
    // No close: the process is gone, and the call with it.
    std::mem::forget(in_flight);
    drop(budgets);
    let again = Budgets::open(state, noon, tokens(1600)).unwrap();
    let (lost, held) = spent(&again);
    assert!((90..=190).contains(&lost) && held == 0, "{lost}");
    let left = 1600 - lost;
    assert!(reserve(&again, "a", left + 1).await.is_err());
    reserve(&again, "a", left).await.unwrap().settle(&input(left), &priced());
}

#[tokio::test]
async fn what_cannot_be_written_may_not_happen() {
    let root = tempfile::tempdir().unwrap();
    let state = state(root.path());
    let budgets = Budgets::open(state, noon, tokens(1600)).unwrap();
    let promised = reserve(&budgets, "a", 50).await.unwrap();
    let database = rusqlite::Connection::open(root.path().join("state/castra.db")).unwrap();
    database.execute("ALTER TABLE budget_accounts RENAME TO gone", []).unwrap();
    let over = reserve(&budgets, "a", 1000).await.unwrap_err();
    assert!(matches!(over, OverBudget::Unwritten { .. }), "{over:?}");
    assert_eq!(Refusal::from(over).code, RefusalCode::Unrecorded);
    // It holds nothing, and what is promised already may go on.
    assert_eq!(spent(&budgets), (0, 50));
    reserve(&budgets, "a", 10).await.unwrap().release();
    promised.release();
    database.execute("ALTER TABLE gone RENAME TO budget_accounts", []).unwrap();
    reserve(&budgets, "a", 1000).await.unwrap().release();
}

#[tokio::test]
async fn money_is_reserved_for_the_dearest_and_settled_for_the_one_that_answered() {
    let root = tempfile::tempdir().unwrap();
    let limit = Limit { money: Some(1000), ..Limit::default() };
    let settings = Settings { rules: vec![day("m", limit)], ..Settings::default() };
    let budgets = Budgets::open(state(root.path()), noon, settings.clone()).unwrap();
    let dear = {
        let rates = Rates { input: 9_000_000, cached_input: 0, cache_write: 0, output: 9_000_000 };
        Priced { model: "dear".into(), price: Some(Arc::new(Price { rates, long: None })) }
    };
    let (agent, route) = (agent("a"), model());
    let ask = |prices| BudgetAsk::model(&agent, &route, Tokens { input: 50, output: 50 }, prices);
    let prices = [priced(), dear];
    let reservation = budgets.reserve(&ask(&prices)).await.unwrap();
    assert_eq!(budgets.accounts()[0].held.money, 900);
    let settled = reservation.settle(&Used { input: 40, output: 20, ..Used::default() }, &priced());
    assert_eq!((settled.cost_micros, budgets.accounts()[0].spent.money), (Some(60), 60));
    // A price that is not known is not zero.
    let unknown = [priced(), unpriced()];
    let over = budgets.reserve(&ask(&unknown)).await.unwrap_err();
    let refusal = Refusal::from(over);
    assert_eq!((refusal.code, refusal.retry_after), (RefusalCode::OverBudget, None));
    assert!(refusal.reason.contains("price of a model"), "{refusal}");
    // Unless the operator says so; then it is counted as a call of unknown price.
    budgets.replace(Settings { unknown_price: UnknownPrice::Allow, ..settings });
    let reservation = budgets.reserve(&ask(&unknown)).await.unwrap();
    let (used, settled) = reservation.settle_unreported(100, 31, &unpriced());
    assert_eq!((used.input, used.output, settled.cost_micros), (50, 16, None));
    assert_eq!((budgets.accounts()[0].spent.money, budgets.accounts()[0].spent.tokens), (60, 126));
    let mut page = Page::default();
    budgets.show(&mut page);
    let page = page.finish();
    for line in [
        r#"castra_budget_spent{budget="m",unit="money"} 60"#,
        r#"castra_budget_limit{budget="m",unit="money"} 1000"#,
        r#"castra_budget_refusals_total{budget="m"} 1"#,
        r#"castra_budget_unpriced_calls_total{model="unknown"} 1"#,
    ] {
        assert!(page.contains(line), "{line} in\n{page}");
    }
}

#[tokio::test]
async fn a_refusal_says_how_much_is_used_and_when_it_works_again() {
    let root = tempfile::tempdir().unwrap();
    let limit = Limit { requests: Some(2), tokens: Some(1000), money: Some(5_000_000) };
    let settings = Settings { rules: vec![day("team-day", limit)], ..Settings::default() };
    let budgets = Budgets::open(state(root.path()), noon, settings).unwrap();
    let first = reserve(&budgets, "a", 900).await.unwrap();
    let refusal = Refusal::from(reserve(&budgets, "a", 200).await.unwrap_err());
    assert_eq!(
        refusal.to_string(),
        "budget team-day (everything): 0 of 1000 tokens for this day are used, 900 are held by calls in flight, and this \
         call may take 200. Calls in flight hold what is missing, so try again in a moment; the budget begins anew at \
         2026-11-26T00:00:00Z (in 13 h 44 min)"
    );
    assert_eq!(refusal.retry_secs(), Some(1));
    first.settle(&input(900), &priced());
    let refusal = Refusal::from(reserve(&budgets, "a", 200).await.unwrap_err());
    assert!(refusal.advice.starts_with("It works again at 2026-11-26T00:00:00Z"), "{refusal}");
    assert_eq!(refusal.retry_secs(), Some(13 * 3600 + 44 * 60 + 30));
    reserve(&budgets, "a", 0).await.unwrap().spend_request();
    let agent = agent("a");
    let refusal = Refusal::from(budgets.reserve(&BudgetAsk::request(&agent)).await.unwrap_err());
    assert!(refusal.reason.contains("2 of 2 requests for this day are used"), "{refusal}");
    // More than the whole budget never fits.
    let refusal = Refusal::from(reserve(&budgets, "b", 2000).await.unwrap_err());
    assert_eq!((refusal.code, refusal.retry_after), (RefusalCode::OverBudget, None));
    assert!(refusal.advice.contains("never fit"), "{refusal}");
}

#[tokio::test]
async fn without_budgets_nothing_is_counted() {
    let root = tempfile::tempdir().unwrap();
    let state = state(root.path());
    let budgets = Budgets::open(state.clone(), noon, Settings::default()).unwrap();
    let settled = reserve(&budgets, "a", u64::MAX).await.unwrap().settle(&input(5), &priced());
    assert_eq!((settled.cost_micros, budgets.accounts().len()), (Some(5), 0));
    budgets.close().await.unwrap();
    assert!(state.budget_accounts().unwrap().is_empty());
}
