//! A slice decides as Cedar does over the whole set.

use std::{collections::BTreeSet, str::FromStr};

use crate::support::{Ask, catalogue, load};
use castra_core::Decision;
use cedar_policy::{Authorizer, Context, Entities, EntityUid, PolicySet, Request};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::json;

const PRINCIPALS: [&str; 7] = [
    "principal",
    "principal == Castra::Agent::\"mailer\"",
    "principal in Castra::Agent::\"builder\"",
    "principal in Castra::Group::\"office\"",
    "principal in Castra::Group::\"builders\"",
    "principal is Castra::Agent",
    "principal is Castra::Agent in Castra::Group::\"builders\"",
];
const ACTIONS: [&str; 4] = [
    "action",
    "action == Castra::Action::\"call\"",
    "action in [Castra::Action::\"call\", Castra::Action::\"read\"]",
    "action == Castra::Action::\"read\"",
];
const RESOURCES: [&str; 8] = [
    "resource",
    "resource == Castra::Tool::\"files/read_file\"",
    "resource in Castra::Server::\"files\"",
    "resource == Castra::Server::\"files\"",
    "resource is Castra::Tool",
    "resource is Castra::Resource in Castra::Server::\"mail\"",
    "resource in Castra::Tool::\"mail/send\"",
    "resource == Castra::Resource::\"mail/inbox:\"",
];
const CONDITIONS: [&str; 16] = [
    "",
    "",
    "when { context.time.hour < 12 }",
    "unless { context.source.network == \"private\" }",
    "when { principal in Castra::Group::\"builders\" }",
    "when { resource in Castra::Server::\"mail\" }",
    "when { principal.name like \"*er\" && context.era == \"modern\" }",
    "when { context has run && context.run == \"r\" }",
    "when { resource in Castra::Server::\"mail\" } unless { context has run }",
    "when { principal.name like \"*er\" } when { context.time.hour < 12 } unless { context has run }",
    "unless { context has run && context.run == \"r\" } when { resource in Castra::Server::\"mail\" }",
    "when { Castra::Tool::\"files/delete\".effect == \"destroy\" }",
    "when { Castra::Tool::\"files/gone\".effect == \"destroy\" }",
    "when { Castra::Agent::\"mailer\" in Castra::Group::\"office\" && context.auth.strength > 1 }",
    "when { 9223372036854775807 + context.time.hour > 0 }",
    "when { context.time.datetime > datetime(\"2026-11-24T12:00:00Z\") }",
];

fn policies() -> impl Strategy<Value = String> {
    let one = (any::<bool>(), select(&PRINCIPALS), select(&ACTIONS), select(&RESOURCES), select(&CONDITIONS))
        .prop_map(|(permit, principal, action, resource, condition)| {
            let effect = if permit { "permit" } else { "forbid" };
            format!("{effect} ({principal}, {action}, {resource}) {condition};\n")
        });
    vec(one, 0..12).prop_map(|all| all.concat())
}

fn asks() -> impl Strategy<Value = Ask> {
    const TARGETS: [&str; 7] = [
        "Tool::files/read_file",
        "Tool::files/unlisted",
        "Tool::mail/send",
        "Resource::mail/inbox:",
        "Prompt::files/p",
        "Server::files",
        "Server::mail",
    ];
    const AGENTS: [&str; 4] = ["mailer", "builder", "stranger", "unlisted"];
    (select(&AGENTS), select(&TARGETS), 0..24_u8, any::<bool>(), any::<bool>()).prop_map(
        |(agent, to, hour, private, run)| {
            let mut ask = Ask::new(agent, to).at(&format!("2026-11-24T{hour:02}:30:00Z"));
            ask.source = if private { "192.168.0.1" } else { "198.51.100.1" }.parse().unwrap();
            ask.run = run.then(|| castra_core::RunId::new("r").unwrap());
            ask
        },
    )
}

fn entities(ask: &Ask) -> Entities {
    let server = |name: &str| json!({"uid": {"type": "Castra::Server", "id": name}, "attrs": {"name": name}, "parents": []});
    let uid = |kind: &str, id: &str| json!({"type": format!("Castra::{kind}"), "id": id});
    let mut all = vec![server("files"), server("mail")];
    let mut agents = catalogue().agents;
    agents.retain(|(name, _)| *name != ask.agent.name);
    agents.push((ask.agent.name.clone(), ask.agent.groups.clone()));
    for (name, groups) in agents {
        let groups: Vec<_> = groups.iter().map(|group| uid("Group", group.as_str())).collect();
        all.push(
            json!({"uid": uid("Agent", name.as_str()), "attrs": {"name": name.as_str()}, "parents": groups}),
        );
    }
    let mut add = |kind: &str, of: &str, id: &str, attrs: serde_json::Value| {
        all.push(json!({"uid": uid(kind, id), "attrs": attrs, "parents": [uid("Server", of)]}));
    };
    let own = ask.resource.id();
    for of in catalogue().servers {
        for tool in of.tools {
            let id = format!("{}/{}", of.name, tool.name);
            if id != own {
                add(
                    "Tool",
                    of.name.as_str(),
                    &id,
                    json!({"effect": tool.effect.as_str(), "external": tool.external}),
                );
            }
        }
    }
    if ask.resource.kind() != "Server" {
        let attrs = json!({"effect": ask.effect.as_str(), "external": ask.external});
        add(ask.resource.kind(), ask.resource.server().unwrap().as_str(), &own, attrs);
    }
    Entities::from_json_value(all.into(), None).unwrap()
}

fn context(ask: &Ask) -> Context {
    let time = json!({
        "hour": ask.time.hour(),
        "datetime": {"__extn": {"fn": "datetime", "arg": ask.time.to_string().replace("000Z", "Z")}},
    });
    let private = ask.source.to_string().starts_with("192");
    let mut all = json!({
        "time": time, "era": "modern", "auth": {"strength": 1},
        "source": {"network": if private { "private" } else { "public" }},
    });
    if ask.run.is_some() {
        all["run"] = json!("r");
    }
    Context::from_json_value(all, None).unwrap()
}

/// Decision and determining policies of Cedar over everything; any error denies.
fn whole(text: &str, ask: &Ask) -> (Decision, BTreeSet<String>) {
    // Policies without @id stand on a line each, so the nth is `p.cedar:n`.
    let named: String =
        text.lines().enumerate().map(|(i, line)| format!("@n(\"p.cedar:{}\") {line}\n", i + 1)).collect();
    let set = PolicySet::from_str(&named).unwrap();
    let uid = |text: String| EntityUid::from_str(&text).unwrap();
    let request = Request::new(
        uid(format!("Castra::Agent::\"{}\"", ask.agent.name)),
        uid(format!("Castra::Action::\"{}\"", ask.operation().as_str())),
        uid(format!("Castra::{}", ask.resource)),
        context(ask),
        None,
    )
    .unwrap();
    let response = Authorizer::new().is_authorized(&request, &set, &entities(ask));
    let name = |id: &cedar_policy::PolicyId| set.annotation(id, "n").unwrap().to_owned();
    let reasons: BTreeSet<_> = response.diagnostics().reason().map(name).collect();
    let forbidden = response.decision() == cedar_policy::Decision::Deny && !reasons.is_empty();
    let errors: BTreeSet<_> = response
        .diagnostics()
        .errors()
        .map(|cedar_policy::AuthorizationError::PolicyEvaluationError(error)| name(error.policy_id()))
        .collect();
    match response.decision() {
        _ if !forbidden && !errors.is_empty() => (Decision::Deny, errors),
        cedar_policy::Decision::Allow => (Decision::Allow, reasons),
        cedar_policy::Decision::Deny => (Decision::Deny, reasons),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_slice_decides_like_the_whole(text in policies(), asks in vec(asks(), 1..6)) {
        let Ok(engine) = load(&text) else { return Err(TestCaseError::reject("does not validate")) };
        for ask in asks {
            let first = ask.decide(&engine);
            let got = (first.decision, first.policies.iter().map(|id| id.to_string()).collect());
            prop_assert_eq!(&got, &whole(&text, &ask), "{} {} in\n{}", ask.agent.name, ask.resource, text);
            // Once more out of the cache.
            prop_assert_eq!(ask.decide(&engine), first);
            prop_assert!(got.0 == Decision::Deny || ask.may_use(&engine));
            for operation in [None, Some(ask.operation())] {
                let some = engine.may_use_some(&ask.agent, operation, ask.resource.server().unwrap());
                prop_assert!(got.0 == Decision::Deny || some, "{:?} {} in\n{}", operation, ask.resource, text);
            }
        }
    }
}
