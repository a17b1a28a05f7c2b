//! The standard pack: what it holds in which run, and what it never lets through.

use std::sync::Arc;

use castra_core::{Approval, Coverage, Decision, Effect, FlowFacts};
use castra_policy::{Engine, PolicySource, run_tests, standard_policies};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::support::{Ask, catalogue};

const PERMIT_ALL: &str = "@id(\"all\") permit (principal, action, resource);";

fn beside(own: &str) -> Engine {
    let own = PolicySource { file: "own.cedar".into(), text: own.into() };
    Engine::load(&[own, standard_policies()], &catalogue()).unwrap()
}

/// Questions to the pack beside a permit for everything. What `flow` does not name is as in a run of which
/// the gate sees everything and nothing is wrong.
const CASES: &str = r#"
[[test]]
name = "a founded, intended act passes in a tainted run"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
flow = { tainted = true }
expect = "allow"
policies = ["all", "flow-described-tools"]

[[test]]
name = "nothing is held before anything untrusted was read"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
flow = { intended = false, unfounded = ["to"], active = ["body"], secret = true }
expect = "allow"

[[test]]
name = "an act that nobody asked for"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
flow = { tainted = true, intended = false }
expect = "ask"
policies = ["flow-intent"]

[[test]]
name = "reading is not acting"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
effect = "read"
flow = { tainted = true, intended = false, unfounded = ["to"], active = ["body"], secret = true }
expect = "allow"

[[test]]
name = "a recipient out of nowhere"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
flow = { tainted = true, unfounded = ["to"] }
expect = "ask"
policies = ["flow-unfounded"]

[[test]]
name = "a run that nobody named"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
flow = { tainted = true, prompted = false, intended = false, unfounded = ["to"] }
expect = "ask"
policies = ["flow-no-prompt", "flow-unfounded"]

[[test]]
name = "the lethal trifecta"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
flow = { tainted = true, secret = true }
expect = "ask"
policies = ["flow-secret-then-external"]

[[test]]
name = "secrets stay inside"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
external = false
flow = { tainted = true, secret = true }
expect = "allow"

[[test]]
name = "a query outside can carry something confidential"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
effect = "read"
flow = { leaking = ["query"] }
expect = "ask"
policies = ["flow-leak"]

[[test]]
name = "reading inside carries nothing out"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
effect = "read"
external = false
flow = { leaking = ["query"] }
expect = "allow"

[[test]]
name = "a link that only strangers gave"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
flow = { tainted = true, active = ["body"] }
expect = "ask"
policies = ["flow-active-content"]

[[test]]
name = "a person's word lifts all of it"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
flow = { tainted = true, prompted = false, intended = false, unfounded = ["to"], injected = ["to"], active = ["body"], leaking = ["body"], secret = true, suspect = true }
approval = { by = ["alice"], age = 3 }
expect = "allow"

[[test]]
name = "under attack nobody is asked"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
flow = { tainted = true, suspect = true, unfounded = ["to"] }
expect = "deny"
policies = ["flow-suspect", "flow-unfounded"]

[[test]]
name = "under attack what is founded goes on"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
flow = { tainted = true, suspect = true }
expect = "allow"

[[test]]
name = "only tools are seen: what nobody describes is left alone"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
flow = { coverage = "tools", described = false, tainted = true, prompted = false, intended = false, unfounded = ["to"], injected = ["to"], active = ["body"], secret = true, suspect = true }
expect = "allow"
policies = ["all"]

[[test]]
name = "only tools are seen: a described tool takes values from nowhere"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
flow = { coverage = "tools", tainted = true, prompted = false, intended = false, unfounded = ["to"] }
expect = "allow"

[[test]]
name = "only tools are seen: a described tool takes no values that only strangers gave"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
flow = { coverage = "tools", tainted = true, prompted = false, intended = false, unfounded = ["to"], injected = ["to"] }
expect = "ask"
policies = ["flow-injected"]

[[test]]
name = "only tools are seen: the lethal trifecta"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
flow = { coverage = "tools", tainted = true, secret = true, active = ["body"] }
expect = "ask"
policies = ["flow-active-content", "flow-secret-then-external"]

[[test]]
name = "all of it seen: what nobody describes is held like what somebody does"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
flow = { described = false, tainted = true, intended = false, unfounded = ["to"] }
expect = "ask"
policies = ["flow-intent", "flow-undescribed", "flow-unfounded"]

[[test]]
name = "an id out of nowhere is looked up first, and nobody is asked"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
flow = { tainted = true, unfounded = ["to"], unseen = ["to"] }
expect = "deny"
policies = ["flow-unfounded", "flow-unseen"]

[[test]]
name = "asked beside the gate, without a run"
agent = "mailer"
operation = "call"
resource = 'Tool::"mail/send"'
expect = "allow"
policies = ["all"]
"#;

#[test]
fn the_pack_holds_what_it_says() {
    let report = run_tests(&beside(PERMIT_ALL), CASES).unwrap();
    assert!(report.failures.is_empty(), "{report}");
    assert_eq!(report.passed, CASES.matches("[[test]]").count());
}

#[test]
fn an_agent_is_not_told_which_argument_gave_it_away() {
    let mut ask = Ask::new("mailer", "Tool::mail/send");
    let unfounded = vec!["recipient_of_it".into()];
    ask.flow = Some(FlowFacts { coverage: Coverage::Full, suspect: true, unfounded, ..FlowFacts::default() });
    let engine = beside(PERMIT_ALL);
    let verdict = ask.decide(&engine);
    assert_eq!(verdict.decision, Decision::Deny);
    assert!(verdict.reason.contains("nobody is asked about its doubtful actions"), "{}", verdict.reason);
    let told = format!("{} {}", verdict.reason, verdict.advice);
    assert!(!told.contains("recipient_of_it") && !told.contains("context."), "{told}");
    let whole = ask.explain(&engine).to_string();
    assert!(whole.contains("recipient_of_it"), "an operator is: {whole}");
}

#[test]
fn it_loads_without_warnings_and_each_policy_has_a_name_and_a_reason() {
    let engine = beside("");
    assert_eq!(engine.warnings(), []);
    let text = standard_policies().text;
    let policies = text.matches("\npermit (").count() + text.matches("\nforbid (").count();
    assert_eq!(engine.policy_count(), policies);
    assert_eq!(text.matches("\n@id(\"flow-").count(), policies);
    assert_eq!(text.matches("\n@reason(").count(), policies);
}

#[test]
fn by_itself_it_permits_described_tools_and_nothing_else() {
    let engine = beside("");
    let of = |to: &str, described| {
        let mut ask = Ask::new("stranger", to);
        ask.flow = Some(FlowFacts { described, tainted: false, ..FlowFacts::default() });
        let seen =
            engine.may_use(&ask.agent, ask.operation(), &ask.resource, ask.effect, ask.external, described);
        (ask.decide(&engine).decision, seen)
    };
    assert_eq!(of("Tool::mail/send", true), (Decision::Allow, true));
    assert_eq!(of("Tool::mail/send", false), (Decision::Deny, false));
    assert_eq!(of("Resource::mail/inbox:", true), (Decision::Deny, false));
}

#[test]
fn a_copy_among_ones_own_is_an_error_that_says_what_to_do() {
    let own = PolicySource { file: "flow.cedar".into(), text: standard_policies().text };
    let problems = Engine::load(&[own, standard_policies()], &catalogue()).unwrap_err();
    let first = problems.errors[0].to_string();
    assert!(first.contains("the id \"flow-described-tools\" is already that of the policy at"), "{first}");
    assert!(first.contains("standard = false"), "{first}");
}

fn names() -> impl Strategy<Value = Vec<Arc<str>>> {
    vec(select(vec![Arc::from("to"), Arc::from("body"), Arc::from("recipients[2]"), Arc::from("")]), 0..3)
}

fn facts() -> impl Strategy<Value = FlowFacts> {
    let yes = any::<bool>;
    let words = (yes(), yes(), yes(), yes(), yes(), yes(), yes());
    let lists = (names(), names(), names(), names(), names());
    (words, lists).prop_map(|(words, (unfounded, unseen, injected, active, leaking))| {
        let (full, described, tainted, prompted, secret, suspect, intended) = words;
        let coverage = if full { Coverage::Full } else { Coverage::Tools };
        FlowFacts {
            coverage,
            described,
            tainted,
            prompted,
            secret,
            suspect,
            intended,
            unfounded,
            unseen,
            injected,
            active,
            leaking,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever permits everything beside the pack is under flow control all the same.
    #[test]
    fn nothing_unfounded_happens_without_a_person(
        facts in facts(),
        effect in select(vec![Effect::Read, Effect::Write, Effect::Destroy, Effect::Act]),
        external in any::<bool>(),
        approved in any::<bool>(),
    ) {
        let engine = permit_all();
        let mut ask = Ask::new("mailer", "Tool::mail/send");
        (ask.effect, ask.external) = (effect, external);
        ask.approval = approved.then(|| Approval { by: vec!["alice".into()], age_secs: 1 });
        ask.flow = Some(facts.clone());
        let verdict = ask.decide(engine);
        let acts = effect != Effect::Read;
        let FlowFacts { described, tainted, prompted, secret, suspect, intended, .. } = facts;
        let full = facts.coverage == Coverage::Full;
        let (some, looked_at) = (|list: &[Arc<str>]| !list.is_empty(), full || described);
        let doubtful = !prompted || !intended || !described || some(&facts.unfounded);
        let guessed = acts && full && tainted && some(&facts.unseen);
        let held = guessed
            || acts && full && tainted && doubtful
            || acts && !full && tainted && described && some(&facts.injected)
            || acts && looked_at && tainted && secret && external
            || acts && looked_at && tainted && some(&facts.active)
            || (acts || external) && looked_at && some(&facts.leaking);
        let expected = match held {
            _ if approved => Decision::Allow,
            true if suspect || guessed => Decision::Deny,
            true => Decision::Ask,
            // A suspect run in which nothing untrusted was read does not come up.
            false if suspect && !tainted => return Ok(()),
            // Without coverage an injected value is held, with it one that is unfounded; both are suspect.
            false if suspect && full && acts && some(&facts.injected) => Decision::Deny,
            false => Decision::Allow,
        };
        prop_assert_eq!(verdict.decision, expected, "{}", verdict.reason);
    }
}

fn permit_all() -> &'static Engine {
    static ENGINE: std::sync::OnceLock<Engine> = std::sync::OnceLock::new();
    ENGINE.get_or_init(|| beside(PERMIT_ALL))
}
