//! Questions and the answers that are meant, over one policy file.

use crate::support::{Ask, catalogue, load, tool};
use castra_core::{Decision, Effect, Operation, ServerName};

const POLICIES: &str = r#"
@id("reads") permit (principal, action == Castra::Action::"call", resource is Castra::Tool)
when { resource.effect == "read" };

@id("resources") permit (principal, action == Castra::Action::"read", resource in Castra::Server::"files");

@id("builders-write")
permit (principal in Castra::Group::"builders", action == Castra::Action::"call", resource in Castra::Server::"files")
when { context.time.hour >= 8 && context.time.hour < 18 }
unless { ["saturday", "sunday"].contains(context.time.weekday) };

@id("mailer-sends")
permit (principal == Castra::Agent::"mailer", action == Castra::Action::"call", resource == Castra::Tool::"mail/send")
when { context.args has to && context.args.to.containsAny(["a@example.org", "b@example.org"]) };

@id("small-amounts") @reason("amounts above 100 need a person")
forbid (principal, action == Castra::Action::"call", resource == Castra::Tool::"mail/send")
when { context.args has amount && context.args.amount.greaterThan(decimal("100.0")) };

@id("no-secrets")
forbid (principal, action == Castra::Action::"call", resource)
when { context.call has "mail/send" && context.call["mail/send"] has options && context.call["mail/send"].options has secret && context.call["mail/send"].options.secret };

@id("only-srv") @description("files outside of /srv are not touched")
forbid (principal, action == Castra::Action::"call", resource in Castra::Server::"files")
when { context.args has path && !(context.args.path like "/srv/*") };

@id("from-here")
forbid (principal, action, resource)
unless { context.source.ip.isInRange(ip("10.0.0.0/8")) || context.source.network == "loopback" };
"#;

#[test]
fn decisions() {
    let engine = load(POLICIES).unwrap();
    assert_eq!(engine.warnings(), []);
    let read = || Ask::new("stranger", "Tool::files/read_file");
    let send = |args: &str| Ask::new("mailer", "Tool::mail/send").args(args);
    let write =
        |time: &str| Ask::new("builder", "Tool::files/write_file").args(r#"{"path": "/srv/a"}"#).at(time);
    let from = |ip: &str| {
        let mut ask = read();
        ask.source = ip.parse().unwrap();
        ask
    };
    let cases: Vec<(Ask, &str, &str)> = vec![
        (read(), "allow reads", r#"policy "reads" permits it"#),
        (read().args(r#"{"path": "/srv/a"}"#), "allow reads", ""),
        (
            read().args(r#"{"path": "/etc/passwd"}"#),
            "deny only-srv",
            r#"policy "only-srv" forbids agent "stranger" to call tool "files/read_file" (effect read): files outside of /srv are not touched. policy "only-srv" (p.cedar:24) would not apply if this were not so: context.args has path (context.args.path is there); !(context.args.path like "/srv/*") (context.args.path is a string of 11 characters)"#,
        ),
        (
            read().args(r#"{"path": 5}"#),
            "deny only-srv",
            r#"agent "stranger" to call tool "files/read_file" (effect read) is denied because policy "only-srv" reads its arguments and argument "path" is a number where the input schema asks for a string. send the argument as the tool's input schema says, or leave it out"#,
        ),
        (read().args(r#"{"path": null}"#), "allow reads", ""),
        (read().args(r#"{"path": "/srv/a", "path": "/etc/passwd"}"#), "deny only-srv", ""),
        (read().args(r#"{"path": "/srv/a", "lines": [{"anything": 1}]}"#), "allow reads", ""),
        (Ask::new("stranger", "Tool::mail/get_time"), "allow reads", ""),
        (Ask::new("stranger", "Resource::files/file:///srv/x"), "allow resources", ""),
        (Ask::new("stranger", "Server::files"), "allow resources", ""),
        (
            Ask::new("stranger", "Prompt::mail/hello"),
            "deny",
            r#"no policy permits agent "stranger" to read prompt "mail/hello". a policy like this would permit it: permit (principal == Castra::Agent::"stranger", action == Castra::Action::"read", resource == Castra::Prompt::"mail/hello");"#,
        ),
        (write("2026-11-24T12:00:00Z"), "allow builders-write", ""),
        (
            write("2026-11-24T22:04:28Z"),
            "deny",
            r#"no policy permits agent "builder" to call tool "files/write_file" (effect write). policy "builders-write" would permit it if this were so: context.time.hour < 18 (context.time.hour is 22); policy "reads" would permit it if this were so: resource.effect == "read" (resource.effect is "write")"#,
        ),
        (
            write("2026-11-22T12:00:00Z"),
            "deny",
            r#"no policy permits agent "builder" to call tool "files/write_file" (effect write). policy "builders-write" would permit it if this were so: not ["saturday", "sunday"].contains(context.time.weekday) (context.time.weekday is "sunday"); policy "reads" would permit it if this were so: resource.effect == "read" (resource.effect is "write")"#,
        ),
        (send(r#"{"to": ["a@example.org"]}"#), "allow mailer-sends", ""),
        (send(r#"{"to": ["x@example.org"]}"#), "deny", ""),
        (send(r#"{"to": "a@example.org"}"#), "deny mailer-sends", ""),
        (send(r#"{"to": ["a@example.org"], "amount": 100}"#), "allow mailer-sends", ""),
        (
            send(r#"{"to": ["a@example.org"], "amount": 100.01}"#),
            "deny small-amounts",
            r#"policy "small-amounts" forbids agent "mailer" to call tool "mail/send" (effect act): amounts above 100 need a person. policy "small-amounts" (p.cedar:16) would not apply if this were not so: context.args has amount (context.args.amount is there); context.args.amount.greaterThan(decimal("100.0")) (context.args.amount is a number)"#,
        ),
        (send(r#"{"to": ["a@example.org"], "amount": 1e300}"#), "deny small-amounts", ""),
        (send(r#"{"to": ["a@example.org"], "amount": 1.00001}"#), "deny small-amounts", ""),
        (send(r#"{"to": ["a@example.org"], "options": {"secret": true}}"#), "deny no-secrets", ""),
        (
            send(r#"{"to": ["a@example.org"], "options": {"secret": false, "tag": [1, "x"]}}"#),
            "allow mailer-sends",
            "",
        ),
        (send(r#"{"to": ["a@example.org"], "options": {"secret": "no"}}"#), "deny no-secrets", ""),
        (send(r#"{"to": ["a@example.org"], "options": 7}"#), "deny no-secrets", ""),
        (from("10.9.9.9"), "allow reads", ""),
        (from("::1"), "allow reads", ""),
        (from("::ffff:10.0.0.1"), "allow reads", ""),
        (
            from("203.0.113.9"),
            "deny from-here",
            r#"policy "from-here" forbids agent "stranger" to call tool "files/read_file" (effect read). whatever is permitted, policy "from-here" (p.cedar:28) has to change first"#,
        ),
    ];
    for (ask, outcome, text) in cases {
        let verdict = ask.decide(&engine);
        let got = format!("{} {}", verdict.decision.as_str(), verdict.policies.join(" "));
        let said = format!("{}. {}", verdict.reason, verdict.advice);
        let question = format!("{:?} {} {:?}: {said}", ask.agent.name, ask.resource, ask.args);
        assert_eq!(got.trim(), outcome, "{question}");
        if !text.is_empty() {
            assert_eq!(said.trim_end_matches(". "), text);
        }
        assert_eq!(ask.explain(&engine).decision, verdict.decision, "{question}");
        let allowed = verdict.decision == Decision::Allow;
        assert!(!allowed || ask.may_use(&engine), "{question}");
    }
}

#[test]
fn a_server_is_closed_to_whom_no_policy_permits_anything_of_it() {
    let text = r#"
        permit (principal == Castra::Agent::"one", action == Castra::Action::"call", resource == Castra::Tool::"files/read_file");
        permit (principal == Castra::Agent::"two", action == Castra::Action::"read", resource in Castra::Server::"mail");
        permit (principal == Castra::Agent::"three", action, resource);
        forbid (principal == Castra::Agent::"three", action, resource in Castra::Server::"mail");
        permit (principal == Castra::Agent::"four", action == Castra::Action::"read", resource is Castra::Prompt);"#;
    let engine = load(text).unwrap();
    let (call, read) = (Some(Operation::Call), Some(Operation::Read));
    for (agent, operation, server, expected) in [
        ("one", None, "files", true),
        ("one", call, "files", true),
        ("one", read, "files", false),
        ("one", None, "mail", false),
        ("one", None, "file", false),
        ("two", read, "mail", true),
        ("two", call, "mail", false),
        ("two", None, "files", false),
        ("three", None, "files", true),
        ("three", None, "mail", false),
        ("four", None, "mail", true),
        ("four", call, "mail", false),
        ("five", None, "files", false),
    ] {
        let agent_named = Ask::new(agent, "Tool::files/read_file").agent;
        let server_name = ServerName::new(server).unwrap();
        let got = engine.may_use_some(&agent_named, operation, &server_name);
        assert_eq!(got, expected, "{agent} {operation:?} {server}");
    }
}

#[test]
fn lists_hide_what_no_circumstance_permits() {
    let engine = load(POLICIES).unwrap();
    for (agent, to, expected) in [
        ("stranger", "Tool::files/read_file", true),
        ("stranger", "Tool::files/write_file", false),
        ("builder", "Tool::files/write_file", true),
        ("mailer", "Tool::mail/send", true),
        ("builder", "Tool::mail/send", false),
        ("stranger", "Prompt::mail/hello", false),
    ] {
        assert_eq!(Ask::new(agent, to).may_use(&engine), expected, "{agent} {to}");
    }
    let closed = load("permit (principal, action, resource); forbid (principal == Castra::Agent::\"mailer\", action, resource);").unwrap();
    assert!(Ask::new("builder", "Tool::mail/send").may_use(&closed));
    assert!(!Ask::new("mailer", "Tool::mail/send").may_use(&closed));
}

#[test]
fn a_policy_that_errs_denies() {
    const PERMIT: &str = "@id(\"all\") permit (principal, action, resource);";
    let ask = Ask::new("stranger", "Tool::files/read_file").args("{}");
    assert_eq!(ask.decide(&load(PERMIT).unwrap()).decision, Decision::Allow);
    for forbid in [
        // The named tool is not in the catalogue, so it has no attributes.
        "when { Castra::Tool::\"files/gone\".effect == \"destroy\" }",
        "when { 9223372036854775807 + context.time.hour < 0 }",
        // Required by the schema, but not sent.
        "when { context.call has \"files/read_file\" && context.call[\"files/read_file\"].path == \"x\" }",
    ] {
        let text = format!(
            "{PERMIT} @id(\"errs\") forbid (principal, action == Castra::Action::\"call\", resource) {forbid};"
        );
        let engine = load(&text).unwrap_or_else(|problems| panic!("{problems}"));
        let verdict = ask.decide(&engine);
        assert_eq!(
            (verdict.decision, verdict.policies.join(" ").as_str()),
            (Decision::Deny, "errs"),
            "{forbid}"
        );
        assert!(verdict.reason.contains("\"errs\" could not be evaluated"), "{}", verdict.reason);
    }
}

#[test]
fn a_changed_catalogue_opens_nothing() {
    let engine = load("permit (principal, action, resource); @id(\"no-etc\") forbid (principal, action == Castra::Action::\"call\", resource) when { context.args has path && context.args.path like \"/etc/*\" };").unwrap();
    let ask = || Ask::new("stranger", "Tool::files/read_file");
    assert_eq!(ask().args(r#"{"path": "/etc/passwd"}"#).decide(&engine).decision, Decision::Deny);
    let mut changed = catalogue();
    // A server that says that a path is a number takes the argument out of the schema.
    changed.servers[1].tools.push(tool(
        "trick",
        Effect::Read,
        serde_json::json!({"path": {"type": "integer"}}),
        &[],
    ));
    let engine = engine.with_catalogue(&changed);
    assert!(
        engine.warnings().iter().any(|w| w.policy.as_deref() == Some("no-etc")),
        "{:?}",
        engine.warnings()
    );
    let verdict = ask().args(r#"{"path": "/etc/passwd"}"#).decide(&engine);
    assert_eq!(
        (verdict.decision, verdict.policies.join(" ").as_str()),
        (Decision::Deny, "no-etc"),
        "{}",
        verdict.reason
    );
    assert_eq!(ask().args("{}").decide(&engine).decision, Decision::Allow);
}

#[test]
fn verdicts_hold_no_argument_values() {
    let engine = load("permit (principal, action == Castra::Action::\"call\", resource == Castra::Tool::\"files/read_file\") when { context.args has path && context.args.path like \"/srv/*\" };").unwrap();
    let ask = Ask::new("stranger", "Tool::files/read_file").args(r#"{"path": "/hunter2"}"#);
    let verdict = ask.decide(&engine);
    let said = format!("{} {}", verdict.reason, verdict.advice);
    assert!(
        said.contains("context.args.path is a string of 8 characters") && !said.contains("hunter2"),
        "{said}"
    );
    let explanation = ask.explain(&engine).to_string();
    assert!(explanation.contains("context.args.path is \"/hunter2\""), "{explanation}");
}

#[test]
fn an_explanation_shows_what_could_matter() {
    let engine = load(POLICIES).unwrap();
    let ask = Ask::new("builder", "Tool::files/write_file").args(r#"{"path": "/srv/a"}"#);
    let expected = r#"deny: no policy permits agent "builder" to call tool "files/write_file" (effect write)
policy "builders-write" would permit it if this were so: context.time.hour < 18 (context.time.hour is 22); policy "reads" would permit it if this were so: resource.effect == "read" (resource.effect is "write")

agent "builder" (in builders, office), call Castra::Tool::"files/write_file", effect write
7 of 8 policies could matter:

permit "reads" (p.cedar:2): does not apply
  NOT when resource.effect == "read" (resource.effect is "write")

permit "builders-write" (p.cedar:7): does not apply
  ok  when context.time.hour >= 8 (context.time.hour is 22)
  NOT when context.time.hour < 18 (context.time.hour is 22)
  ok  unless ["saturday", "sunday"].contains(context.time.weekday) (context.time.weekday is "tuesday")

forbid "no-secrets" (p.cedar:20): does not apply
  NOT when context.call has "mail/send" (context.call["mail/send"] is absent)
  ?   when context.call["mail/send"] has options (context.call["mail/send"].options is absent)
  ?   when context.call["mail/send"].options has secret (context.call["mail/send"].options.secret is absent)
  ?   when context.call["mail/send"].options.secret (context.call["mail/send"].options.secret is absent)

forbid "only-srv" (p.cedar:24): does not apply
  files outside of /srv are not touched
  ok  when context.args has path (context.args.path is there)
  NOT when !(context.args.path like "/srv/*") (context.args.path is "/srv/a")

forbid "from-here" (p.cedar:28): does not apply
  NOT unless context.source.ip.isInRange(ip("10.0.0.0/8")) || context.source.network == "loopback" (context.source.ip is ip("10.1.2.3"), context.source.network is "private")

permit "resources" (p.cedar:5): is for another action

forbid "small-amounts" (p.cedar:16): is for another resource
  amounts above 100 need a person
"#;
    assert_eq!(ask.explain(&engine).to_string(), expected);
}
