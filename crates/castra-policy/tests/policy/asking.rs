//! Forbids that ask a person: when the outcome is a question, and when a person's word lifts it.

use castra_core::{Approval, Decision, FlowFacts};

use crate::support::{Ask, load};

/// A permit, an ask and other policies; which forbid applies depends on the hour and the argument.
const POLICIES: &str = r#"
@id("mail") permit (principal == Castra::Agent::"mailer", action == Castra::Action::"call", resource == Castra::Tool::"mail/send");

@id("by-day") permit (principal == Castra::Agent::"builder", action == Castra::Action::"call", resource == Castra::Tool::"mail/send")
when { context.time.hour >= 8 && context.time.hour < 18 };

@id("afternoon") @ask("person") @reason("mail in the afternoon is looked at")
forbid (principal, action == Castra::Action::"call", resource == Castra::Tool::"mail/send")
when { context.time.hour >= 12 }
unless { context has approval };

@id("late") @ask("person") @reason("late mail takes the word of the chief")
forbid (principal, action == Castra::Action::"call", resource == Castra::Tool::"mail/send")
when { context.time.hour >= 16 }
unless { context has approval && context.approval.by.contains("chief") && context.approval.age < 60 };

@id("never") forbid (principal, action == Castra::Action::"call", resource == Castra::Tool::"mail/send")
when { context.args has amount && context.args.amount.greaterThan(decimal("100.0")) };

@id("broken") forbid (principal, action == Castra::Action::"call", resource == Castra::Tool::"mail/send")
when { 9223372036854775807 + context.time.minute_of_day > 0 && context.time.minute_of_day == 900 };
"#;

#[test]
fn a_person_is_asked_where_only_asks_stand_against_a_permit() {
    // Sums overflow at any minute but 0, so the last policy is left out where nothing is said of it.
    let without_error = POLICIES.rsplit_once("@id(\"broken\")").unwrap().0;
    let (engine, broken) = (load(without_error).unwrap(), load(POLICIES).unwrap());
    let by = |by: &[&str], age_secs| {
        Some(Approval { by: by.iter().map(|name| (*name).into()).collect(), age_secs })
    };
    let small = r#"{"to": ["a"], "amount": 5}"#;
    for (agent, hour, args, approval, outcome, asks) in [
        ("mailer", 9, small, None, "allow mail", ""),
        ("mailer", 13, small, None, "ask afternoon", "afternoon"),
        ("mailer", 17, small, None, "ask afternoon late", "afternoon late"),
        ("mailer", 13, small, by(&["alice"], 0), "allow mail", ""),
        ("mailer", 17, small, by(&["alice"], 0), "ask late", "late"),
        ("mailer", 17, small, by(&["alice", "chief"], 59), "allow mail", ""),
        ("mailer", 17, small, by(&["chief"], 60), "ask late", "late"),
        ("mailer", 13, r#"{"to": ["a"], "amount": 500}"#, None, "deny afternoon never", ""),
        ("mailer", 13, r#"{"to": ["a"], "amount": 500}"#, by(&["chief"], 0), "deny never", ""),
        // A permit that reads the context counts like one that does not.
        ("builder", 13, small, None, "ask afternoon", "afternoon"),
        ("builder", 19, small, None, "deny afternoon late", ""),
        ("stranger", 13, small, None, "deny afternoon", ""),
        ("stranger", 13, small, by(&["chief"], 0), "deny", ""),
        // What cannot be typed denies.
        ("mailer", 13, r#"{"to": ["a"], "amount": "5"}"#, None, "deny never", ""),
    ] {
        let mut ask =
            Ask::new(agent, "Tool::mail/send").args(args).at(&format!("2026-11-24T{hour:02}:15:00Z"));
        ask.approval = approval;
        let verdict = ask.decide(&engine);
        let got = format!("{} {}", verdict.decision.as_str(), verdict.policies.join(" "));
        assert_eq!(got.trim(), outcome, "{agent} {hour} {args}: {}", verdict.reason);
        assert_eq!(verdict.ask.join(" "), asks, "{agent} {hour} {args}");
        assert_eq!(ask.explain(&engine).decision, verdict.decision);
        // Where an evaluation fails nobody is asked.
        assert_eq!(ask.decide(&broken).decision, Decision::Deny, "{agent} {hour} {args}");
        assert_eq!(ask.may_use(&engine), agent != "stranger");
    }
}

#[test]
fn an_ask_says_why_and_what_would_change_it() {
    let engine = load(POLICIES.rsplit_once("@id(\"broken\")").unwrap().0).unwrap();
    let said = |agent| {
        let ask = Ask::new(agent, "Tool::mail/send").at("2026-11-24T13:00:00Z");
        let verdict = ask.decide(&engine);
        format!("{}. {}", verdict.reason, verdict.advice)
    };
    assert_eq!(
        said("mailer"),
        r#"policy "afternoon" asks a person whether agent "mailer" may call tool "mail/send" (effect act): mail in the afternoon is looked at. a person can approve it (castra approval); policy "afternoon" (p.cedar:7) would not ask if this were not so: context.time.hour >= 12 (context.time.hour is 13)"#
    );
    assert!(said("stranger").contains("; no person is asked, because no policy permits it"));
}

#[test]
fn facts_of_flow_control_are_in_the_context() {
    let engine = load(
        r#"
        @id("all") permit (principal, action, resource);
        @id("lists") forbid (principal, action, resource)
        when { context.flow.unfounded.contains("to") || context.flow.injected.contains("to") ||
               context.flow.active.contains("body") || context.flow.leaking.contains("body") };
        @id("words") forbid (principal, action, resource)
        when { context.flow.coverage == "full" && context.flow.described && context.flow.prompted &&
               context.flow.secret && context.flow.intended && !context.flow.suspect && context.flow.tainted };
        @id("described") forbid (principal, action == Castra::Action::"call", resource is Castra::Tool)
        when { resource.described && context.flow.tainted };
    "#,
    )
    .unwrap();
    let of = |flow: Option<FlowFacts>| {
        let mut ask = Ask::new("mailer", "Tool::mail/send");
        ask.flow = flow;
        ask.decide(&engine).policies.join(" ")
    };
    let (to, body): (std::sync::Arc<str>, std::sync::Arc<str>) = ("to".into(), "body".into());
    let with = |change: fn(&mut FlowFacts, std::sync::Arc<str>), name: &std::sync::Arc<str>| {
        let mut facts = FlowFacts::default();
        change(&mut facts, name.clone());
        of(Some(facts))
    };
    assert_eq!(of(None), "all");
    assert_eq!(of(Some(FlowFacts::default())), "all");
    assert_eq!(with(|facts, name| facts.unfounded.push(name), &to), "lists");
    assert_eq!(with(|facts, name| facts.injected.push(name), &to), "lists");
    assert_eq!(with(|facts, name| facts.active.push(name), &body), "lists");
    assert_eq!(with(|facts, name| facts.leaking.push(name), &body), "lists");
    assert_eq!(with(|facts, name| facts.leaking.push(name), &to), "all");
    let everything = FlowFacts {
        coverage: castra_core::Coverage::Full,
        described: true,
        prompted: true,
        secret: true,
        intended: true,
        ..FlowFacts::default()
    };
    assert_eq!(of(Some(everything)), "words described");
}
