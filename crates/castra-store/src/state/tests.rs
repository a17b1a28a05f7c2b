use std::sync::Arc;

use castra_core::{AgentName, Digest, Effect, GroupName, ModelName, ServerName};
use castra_identity::{BadCredential, NameRule, TokenKind, TrustDomain, certificate};
use castra_protect::{Sealer, open};

use super::*;
use crate::{KeyFiles, StateDir};

const NOW: Timestamp = Timestamp(1_795_557_868_000_000);
const HOUR: Duration = Duration::from_secs(3600);

struct Place {
    _root: tempfile::TempDir,
    dir: StateDir,
    keys: KeyFiles,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("folder");
        let dir = StateDir::open_or_create(&root.path().join("state")).expect("made");
        let keys = dir.keys(NOW).expect("keys");
        Self { _root: root, dir, keys }
    }

    fn open(&self) -> State {
        self.dir.state(self.keys.master.clone()).expect("opened")
    }
}

fn agent(name: &str) -> AgentName {
    AgentName::new(name).expect("name")
}

#[test]
fn a_gate_sees_what_a_command_changes() {
    let place = Place::new();
    let (gate, command) = (Arc::new(place.open()), place.open());
    let table = gate.credential_table().expect("table");
    let mut follower = CredentialFollower::new(gate.clone(), table.version());
    assert!(follower.poll().expect("asked").is_none());

    let groups = [GroupName::new("builders").expect("group")];
    let issued = command.add_agent(&agent("a"), &groups, Some(HOUR), NOW).expect("added");
    let table = follower.poll().expect("asked").expect("changed");
    let identity = table.authenticate_token(issued.token.expose(), NOW).expect("known");
    assert_eq!((identity.name.as_str(), &identity.groups[..]), ("a", &groups[..]));
    assert_eq!(&*identity.credential, format!("token:{}", issued.id));
    assert!(follower.poll().expect("asked").is_none());

    // Own changes count as well.
    gate.revoke_agent(&agent("a"), NOW).expect("revoked");
    let table = follower.poll().expect("asked").expect("changed");
    let refused = table.authenticate_token(issued.token.expose(), NOW);
    assert_eq!(refused, Err(BadCredential::AgentRevoked { agent: agent("a") }));
    // What no credential depends on is not a change.
    command.set_setting("k", "v").expect("set");
    assert!(follower.poll().expect("asked").is_none());
    assert_eq!(gate.setting("k").expect("read").as_deref(), Some("v"));
}

#[test]
fn rotation_overlaps_and_is_bounded() {
    let place = Place::new();
    let state = place.open();
    let first = state.add_agent(&agent("a"), &[], None, NOW).expect("added");
    let second = state.rotate_token(&agent("a"), Some(24 * HOUR), HOUR, NOW).expect("rotated");
    let table = state.credential_table().expect("table");
    let ask = |token: &IssuedToken, secs| {
        table.authenticate_token(token.token.expose(), NOW.plus_secs(secs)).is_ok()
    };
    assert!(ask(&first, 3599) && !ask(&first, 3600));
    assert!(ask(&second, 3600) && !ask(&second, 24 * 3600));
    // A token that ends sooner than the overlap is not made to live longer.
    state.rotate_token(&agent("a"), None, 48 * HOUR, NOW).expect("rotated");
    let detail = state.agent(&agent("a"), NOW).expect("shown");
    let ends: Vec<_> = detail.tokens.iter().map(|t| (t.id.clone(), t.expires)).collect();
    assert!(ends.contains(&(first.id.clone(), Some(NOW.plus_secs(3600)))), "{ends:?}");
    assert!(ends.contains(&(second.id.clone(), Some(NOW.plus_secs(24 * 3600)))));
    assert_eq!(detail.agent.live_tokens, 3);

    for _ in 3..agents::LIVE_TOKENS_MAX {
        state.rotate_token(&agent("a"), None, 48 * HOUR, NOW).expect("rotated");
    }
    let refused = state.rotate_token(&agent("a"), None, 48 * HOUR, NOW);
    assert!(matches!(refused, Err(StoreError::TooManyTokens { .. })));
    let last = state.rotate_token(&agent("a"), None, Duration::ZERO, NOW).expect("all others end");
    assert_eq!(state.agent(&agent("a"), NOW).expect("shown").agent.live_tokens, 1);
    state.revoke_token(&agent("a"), &last.id, NOW).expect("revoked");
    assert!(matches!(state.revoke_token(&agent("a"), &last.id, NOW), Err(StoreError::NoToken { .. })));
    let table = state.credential_table().expect("table");
    assert_eq!(table.authenticate_token(last.token.expose(), NOW), Err(BadCredential::Revoked));
}

#[test]
fn names_are_used_once() {
    let place = Place::new();
    let state = place.open();
    state.add_agent(&agent("a"), &[], None, NOW).expect("added");
    assert!(matches!(state.add_agent(&agent("a"), &[], None, NOW), Err(StoreError::AgentExists { .. })));
    state.revoke_agent(&agent("a"), NOW).expect("revoked");
    state.revoke_agent(&agent("a"), NOW.plus_secs(9)).expect("revoked again");
    assert!(matches!(state.add_agent(&agent("a"), &[], None, NOW), Err(StoreError::AgentRevoked { .. })));
    let rotate = |name| state.rotate_token(&agent(name), None, HOUR, NOW).err();
    assert!(matches!(rotate("a"), Some(StoreError::AgentRevoked { .. })));
    assert!(matches!(rotate("b"), Some(StoreError::NoAgent { .. })));
    assert!(matches!(state.revoke_agent(&agent("b"), NOW), Err(StoreError::NoAgent { .. })));
    assert!(matches!(state.agent(&agent("b"), NOW), Err(StoreError::NoAgent { .. })));
    let listed = state.agents(NOW).expect("listed");
    assert_eq!(listed.len(), 1);
    let json = serde_json::to_value(&listed[0]).expect("JSON");
    assert_eq!(
        (&json["id"], &json["state"], &json["live_tokens"]),
        (&"a".into(), &"revoked".into(), &0.into())
    );
    assert_eq!(listed[0].revoked, Some(NOW));
}

#[test]
fn certificates_are_listed_and_taken_back() {
    let place = Place::new();
    let state = place.open();
    let domain = TrustDomain::default();
    let issue = |name| state.issue_certificate(&agent(name), &place.keys.authority, &domain, 30, NOW);
    assert!(matches!(issue("a"), Err(StoreError::NoAgent { .. })));
    state.add_agent(&agent("a"), &[], None, NOW).expect("added");
    let issued = issue("a").expect("issued");
    let der = pem_der(&issued.certificate_pem);
    let peer = certificate::read_peer(&der, &NameRule::Issued(domain.clone())).expect("read");
    let table = state.credential_table().expect("table");
    assert_eq!(table.authenticate_certificate(&peer, NOW).map(|a| a.name.to_string()), Ok("a".into()));
    state.revoke_certificate(&issued.serial, NOW).expect("revoked");
    assert!(matches!(state.revoke_certificate(&issued.serial, NOW), Err(StoreError::NoCertificate { .. })));
    let table = state.credential_table().expect("table");
    assert_eq!(table.authenticate_certificate(&peer, NOW), Err(BadCredential::Revoked));
    assert_eq!(state.agent(&agent("a"), NOW).expect("shown").certificates.len(), 1);
}

fn pem_der(pem: &str) -> Vec<u8> {
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM").to_vec()
}

#[test]
fn an_enrolment_is_redeemed_once() {
    let place = Place::new();
    let state = place.open();
    assert!(!state.has_operator(NOW).expect("asked"));
    let old = state.create_enrolment("admin", NOW).expect("made");
    let secret = state.create_enrolment("admin", NOW).expect("made");
    let ask = |token: &IssuedToken, secs| {
        state.enrolment(token.token.expose(), NOW.plus_secs(secs)).expect("asked")
    };
    assert_eq!(ask(&old, 0), Enrolment::Unknown);
    assert_eq!((ask(&secret, 86_399), ask(&secret, 86_400)), (Enrolment::Open, Enrolment::Expired));
    let late = state.redeem_enrolment(secret.token.expose(), NOW.plus_secs(86_400));
    assert!(matches!(late, Err(StoreError::Enrolment { state: Enrolment::Expired })));
    let operator = state.redeem_enrolment(secret.token.expose(), NOW).expect("redeemed");
    assert_eq!((operator.owner.as_str(), operator.token.kind()), ("admin", TokenKind::Operator));
    let again = state.redeem_enrolment(secret.token.expose(), NOW);
    assert!(matches!(again, Err(StoreError::Enrolment { state: Enrolment::Used })));
    assert!(state.has_operator(NOW).expect("asked"));
    assert!(!state.has_operator(NOW.plus_secs(31 * 86_400)).expect("asked"));
    let table = state.credential_table().expect("table");
    let person = table.authenticate_operator(operator.token.expose(), NOW).expect("known");
    assert_eq!(&*person.id, "admin");
    for bad in ["", "a\nb", &"x".repeat(129)] {
        assert!(matches!(state.create_enrolment(bad, NOW), Err(StoreError::BadSubject { .. })));
    }
}

#[test]
fn data_keys_last_and_need_their_master() {
    let place = Place::new();
    let (one, two) = (place.open(), place.open());
    let (id, key) = one.data_key("agent:a", NOW).expect("made");
    let sealed = Sealer::new(&key, id, [1; 16]).and_then(|s| s.seal(b"", b"text")).expect("sealed");
    let (same, _) = two.data_key("agent:a", NOW).expect("read");
    assert_eq!(same, id);
    assert_ne!(two.data_key("agent:b", NOW).expect("made").0, id);
    let read = place.open().data_key_by_id(id).expect("read");
    assert_eq!(open(&read, b"", &sealed).expect("opens").as_slice(), b"text");
    let stranger = place.dir.state(MasterKey::new([0; 32])).expect("opened");
    assert!(matches!(stranger.data_key_by_id(id), Err(StoreError::Protect(_))));
    assert!(matches!(one.data_key_by_id(99), Err(StoreError::NoDataKey { id: 99 })));
    assert!(matches!(one.data_key("a b", NOW), Err(StoreError::BadSubject { .. })));
    // A row under another subject's name does not open.
    one.connection
        .lock()
        .execute("UPDATE data_keys SET subject = 'agent:c' WHERE id = ?1", [id as i64])
        .expect("changed");
    assert!(matches!(one.data_key("agent:c", NOW), Err(StoreError::Protect(_))));
}

#[test]
fn the_catalogue_notices_changes() {
    let place = Place::new();
    let state = place.open();
    let files = ServerName::new("files").expect("name");
    let tool = |name: &str, definition: &str| SeenTool {
        name: name.into(),
        definition: definition.into(),
        effect: Effect::Read,
        external: false,
    };
    state.record_tools(&files, &[tool("read", "{}"), tool("list", "{}")], NOW).expect("recorded");
    let later = NOW.plus_secs(5);
    state.record_tools(&files, &[tool("read", "{}"), tool("list", "{\"a\":1}")], later).expect("recorded");
    let rows = state.catalogue().expect("listed");
    let times: Vec<_> = rows.iter().map(|r| (r.id.as_str(), r.first_seen, r.last_seen, r.changed)).collect();
    assert_eq!(times, [("files/list", NOW, later, later), ("files/read", NOW, later, NOW)]);
    assert_eq!(rows[0].definition, "{\"a\":1}");
}

#[test]
fn promotions_are_followed_and_rolled_back_step_by_step() {
    let place = Place::new();
    let (gate, command) = (Arc::new(place.open()), place.open());
    let route = ModelName::new("assistant").expect("name");
    let share = |version: &str, weight| Share { version: version.into(), weight, digest: Digest([7; 32]) };
    let mut follower = PromotionFollower::new(gate.clone());
    let (found, unrecorded) = follower.poll().expect("asked").expect("the first look");
    assert_eq!((found.of(&route), unrecorded.len()), (None, 0));
    assert!(follower.poll().expect("asked").is_none());
    assert!(matches!(command.roll_back(&route, NOW), Err(StoreError::NothingPromoted { .. })));

    let first = command.promote(&route, NOW, |was| {
        assert_eq!(was, None);
        vec![share("v2", 100)]
    });
    let first = first.expect("promoted").id;
    command
        .promote(&route, NOW.plus_secs(1), |was| {
            assert_eq!(was, Some(&[share("v2", 100)][..]));
            vec![share("v2", 90), share("v3", 10)]
        })
        .expect("promoted");
    let (found, unrecorded) = follower.poll().expect("asked").expect("changed");
    assert_eq!(found.of(&route), Some(&[share("v2", 90), share("v3", 10)][..]));
    assert_eq!(unrecorded.iter().map(|row| row.kind).collect::<Vec<_>>(), [PromotionKind::Promote; 2]);
    gate.set_promotions_recorded(unrecorded[1].id).expect("noted");

    let (row, was) = command.roll_back(&route, NOW.plus_secs(2)).expect("rolled back");
    assert_eq!((row.shares, was.len()), (Some(vec![share("v2", 100)]), 2));
    let (found, unrecorded) = follower.poll().expect("asked").expect("changed");
    assert_eq!(found.of(&route), Some(&[share("v2", 100)][..]));
    assert_eq!(unrecorded.iter().map(|row| row.kind).collect::<Vec<_>>(), [PromotionKind::Rollback]);
    let (row, _) = command.roll_back(&route, NOW.plus_secs(3)).expect("rolled back");
    assert_eq!(row.shares, None);
    assert_eq!(gate.promotions().expect("read"), Promotions::default());
    assert!(matches!(command.roll_back(&route, NOW), Err(StoreError::NothingPromoted { .. })));
    // After a promotion that follows, a rollback leads to the configuration again.
    command.promote(&route, NOW, |_| vec![share("v4", 1)]).expect("promoted");
    assert_eq!(command.roll_back(&route, NOW).expect("rolled back").0.shares, None);
    assert_eq!(gate.promotion_history(first).expect("read").len(), 5);
}

#[test]
fn migration_happens_once_and_never_backwards() {
    let place = Place::new();
    let dump = |state: &State| {
        let connection = state.connection.lock();
        let mut statement =
            connection.prepare("SELECT sql FROM sqlite_schema ORDER BY name").expect("prepared");
        let rows = statement.query_map([], |row| row.get::<_, Option<String>>(0)).expect("asked");
        rows.collect::<Result<Vec<_>, _>>().expect("read")
    };
    let first = dump(&place.open());
    let again = place.open();
    assert_eq!(first, dump(&again));
    again.connection.lock().pragma_update(None, "user_version", 99).expect("set");
    let refused = place.dir.state(place.keys.master.clone());
    assert!(matches!(refused, Err(StoreError::NewerSchema { found: 99, .. })));
}

#[test]
fn processes_that_start_at_once_agree() {
    let root = tempfile::tempdir().expect("folder");
    let path = root.path().join("state");
    let seeds: Vec<_> = std::thread::scope(|scope| {
        let start = || {
            let dir = StateDir::open_or_create(&path).expect("made");
            let keys = dir.keys(NOW).expect("keys");
            let state = dir.state(keys.master.clone()).expect("opened");
            (*keys.log_seed, state.data_key("agent:a", NOW).expect("key").0)
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|t| t.join().expect("joined")).collect()
    });
    assert!(seeds.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn what_is_spent_of_budgets_lasts() {
    let place = Place::new();
    let state = place.open();
    let amounts = |n| BudgetAmounts { requests: n, tokens: n * 10, money: n * 100 };
    let row = |budget: &str, of: Option<&str>, n| BudgetRow {
        budget: budget.into(),
        per: "day".into(),
        agent: of.map(agent),
        start: NOW,
        spent: amounts(n),
        held: amounts(1),
        leased: amounts(n + 2),
    };
    let rows = [row("b", None, 1), row("b", Some("a"), 2), row("c", None, 3)];
    state.store_budget_accounts(&rows, &[]).expect("written");
    assert_eq!(place.open().budget_accounts().expect("read"), rows);
    let most = BudgetAmounts { tokens: u64::MAX, ..amounts(9) };
    let newer = BudgetRow { spent: most, start: NOW.plus_secs(9), ..row("b", None, 9) };
    state.store_budget_accounts(&[newer], &rows[1..]).expect("written");
    let read = place.open().budget_accounts().expect("read");
    assert_eq!((read.len(), read[0].start, read[0].spent.requests), (1, NOW.plus_secs(9), 9));
    assert_eq!(read[0].spent.tokens, i64::MAX as u64);
    state.connection.lock().execute("UPDATE budget_accounts SET held_money = -1", []).expect("spoilt");
    assert!(matches!(state.budget_accounts(), Err(StoreError::Corrupt { .. })));
}

#[test]
fn a_card_is_pinned_and_another_one_waits() {
    let place = Place::new();
    let state = place.open();
    let peer = castra_core::PeerName::new("planner").expect("name");
    let digest = |n: u8| castra_core::Digest([n; 32]);
    let see = |n: u8| state.see_card(&peer, digest(n), &format!("card {n}"), NOW).expect("seen");
    assert_eq!(state.peer(&peer).expect("read"), None);
    assert_eq!(state.accept_card(&peer, NOW).expect("asked"), None);
    assert_eq!([see(1), see(1)], [SeenCard::First, SeenCard::Same]);
    assert_eq!([see(2), see(2), see(3)], [SeenCard::Changed, SeenCard::StillChanged, SeenCard::Changed]);
    assert_eq!(state.peers().expect("read").len(), 1);
    // Back to the accepted one: nothing waits any more.
    assert_eq!(see(1), SeenCard::Same);
    assert_eq!(state.accept_card(&peer, NOW).expect("asked"), None);
    assert_eq!(see(2), SeenCard::Changed);
    let before = state.credential_version().expect("read");
    let row = state.accept_card(&peer, NOW.plus_secs(9)).expect("accepted").expect("one waited");
    assert_eq!((row.pinned.digest, row.seen), (digest(2), None));
    assert!(state.credential_version().expect("read") > before, "a running gate notices");
    assert_eq!([see(2), see(1)], [SeenCard::Same, SeenCard::Changed]);
}

#[test]
fn a_task_is_whose_it_was_first_and_the_oldest_are_forgotten() {
    let place = Place::new();
    let state = place.open();
    let [planner, other] = ["planner", "other"].map(|n| castra_core::PeerName::new(n).expect("name"));
    let [alice, carol] = ["alice", "carol"].map(|n| AgentName::new(n).expect("name"));
    let claim = |peer, thing, agent, secs| {
        state.claim(peer, thing, "1", agent, NOW.plus_secs(secs)).expect("claimed")
    };
    assert_eq!(claim(&planner, PeerThing::Task, &alice, 0), alice);
    assert_eq!(claim(&planner, PeerThing::Task, &carol, 1), alice);
    assert_eq!(claim(&planner, PeerThing::Context, &carol, 1), carol);
    assert_eq!(claim(&other, PeerThing::Task, &carol, 1), carol);
    assert_eq!(state.owner(&planner, PeerThing::Task, "1").expect("read"), Some(alice));
    assert_eq!(state.owner(&planner, PeerThing::Task, "2").expect("read"), None);
    // It outlives the process.
    assert_eq!(place.open().owner(&other, PeerThing::Task, "1").expect("read"), Some(carol));
}

#[test]
fn a_run_that_is_held_has_no_state() {
    use super::runs::{KeptRun, RunWrite};
    let place = Place::new();
    let state = place.open();
    let write = |kept| RunWrite {
        agent: agent("alice"),
        run: "r".to_owned(),
        began: Timestamp(1),
        used: Timestamp(2),
        kept,
    };
    let kept_of = || state.run(&agent("alice"), "r").expect("read").map(|row| row.state);
    assert_eq!(kept_of(), None);
    for (kept, expected) in [
        (KeptRun::Held, None),
        (KeptRun::Whole(vec![1]), Some(vec![1])),
        (KeptRun::Held, None),
        (KeptRun::Ended, None),
    ] {
        state.keep_runs(&[write(kept)], &[], NOW).expect("kept");
        assert_eq!(kept_of(), Some(expected));
    }
    let both = [write(KeptRun::Held), write(KeptRun::Whole(vec![2]))];
    state.keep_runs(&both, &[7, u64::MAX, 7], NOW).expect("kept");
    assert_eq!(kept_of(), Some(Some(vec![2])), "the last word counts");
    let mut marks = state.marks().expect("read");
    marks.sort_unstable();
    assert_eq!(marks, [7, u64::MAX]);
    assert_eq!(state.run(&agent("carol"), "r").expect("read"), None);
}
