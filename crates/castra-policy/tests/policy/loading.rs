//! What is refused or warned of at load, where, and what the schema says.

use std::fmt::Write;

use crate::support::{catalogue, load};
use castra_policy::{Catalogue, CatalogueServer, Engine, PolicySource, schema_text};
use serde_json::{Value, json};

#[test]
fn problems_have_places() {
    for (text, expected) in [
        ("permit (principal, action, resource)", "p.cedar:1:37: unexpected end of input"),
        (
            "\n\npermit (principal, action, resource) when { context.nope == 1 };",
            "p.cedar:3:45: attribute `nope` in context",
        ),
        (
            "// one\n@id(\"x\") permit (principal, action, resource);\n@id(\"x\") forbid (principal, action, resource);",
            "p.cedar:3:1: the id \"x\" is already that of the policy at p.cedar:2",
        ),
        (
            "permit (principal == ?principal, action, resource);",
            "p.cedar:1:1: a template decides nothing by itself",
        ),
        ("@id(\"\") permit (principal, action, resource);", "p.cedar:1:1: an @id has 1 to 200 bytes"),
        (
            "permit (principal, action, resource) when { resource.effect == \"read\" };",
            "only tools have it: write",
        ),
        ("permit (principal, action, resource) when { context.args has path };", "only calls have arguments"),
        (
            "\n@ask(\"person\")\npermit (principal, action, resource);",
            "p.cedar:2:1: @ask on a permit: only what forbids can ask a person instead",
        ),
        (
            "@id(\"a\")\n@ask(\"bot\")\nforbid (principal, action, resource);",
            "p.cedar:2:1: @ask(\"bot\"): nobody is known by that word (policy \"a\"); write @ask(\"person\")",
        ),
        (
            "@ask(\"person\") forbid (principal, action, resource) when { context.time.hour < 8 };",
            "would forbid all the same when one has said yes (policy \"p.cedar:1\"); add `unless { context has approval }`",
        ),
        ("permit (principal is Nobody, action, resource);", "unrecognized entity type"),
        ("permit (principal, action == Castra::Action::\"cal\", resource);", "did you mean"),
        (
            "permit (principal, action == Castra::Action::\"call\", resource) when { context.args.path == \"x\" };",
            "has",
        ),
    ] {
        let problems = load(text).err().map(|p| p.to_string()).unwrap_or_default();
        assert!(problems.contains(expected), "{text}\ngave: {problems}");
    }
}

#[test]
fn unknown_names_are_warned_of() {
    let engine = load(
        "permit (principal == Castra::Agent::\"mailr\", action, resource);\n\
         permit (principal in Castra::Group::\"office\", action, resource in Castra::Server::\"file\");\n\
         permit (principal, action, resource is Castra::Tool) when { [Castra::Tool::\"files/readfile\", Castra::Tool::\"mail/send\"].contains(resource) };",
    )
    .unwrap();
    let warnings: Vec<_> = engine.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "p.cedar:1:22: agent \"mailr\" is not known (policy \"p.cedar:1\"); did you mean \"mailer\"?",
            "p.cedar:2:67: server \"file\" is not known (policy \"p.cedar:2\"); did you mean \"files\"?",
            "p.cedar:3:62: tool \"files/readfile\" is not known (policy \"p.cedar:3\"); did you mean \"files/read_file\"?",
        ]
    );
}

#[test]
fn untyped_arguments_are_warned_of() {
    for (condition, expected) in [
        (
            "context.args has lines",
            "p.cedar:1:104: argument \"lines\" has no type that all tools with it share; a call",
        ),
        ("context.args has pth", "no tool has an argument \"pth\""),
        ("context.call has \"files/readfile\"", "did you mean \"files/read_file\"?"),
        (
            "context.call has \"mail/send\" && context.call[\"mail/send\"] has payload",
            "has no argument \"payload\" that Cedar can type",
        ),
    ] {
        let text = format!(
            "forbid (principal, action == Castra::Action::\"call\", resource is Castra::Tool) when {{ {condition} }};"
        );
        let engine = load(&text).unwrap_or_else(|problems| panic!("{problems}"));
        let warnings: Vec<_> = engine.warnings().iter().map(ToString::to_string).collect();
        assert!(warnings.iter().any(|warning| warning.contains(expected)), "{condition}: {warnings:#?}");
    }
}

#[test]
fn digests_do_not_depend_on_the_order_of_files() {
    let source = |file: &str, text: &str| PolicySource { file: file.into(), text: text.into() };
    let (a, b) = (source("a", "permit (principal, action, resource);"), source("b", ""));
    let digest =
        |sources: &[PolicySource]| Engine::load(sources, &Catalogue::default()).unwrap().policy_set().clone();
    assert_eq!(digest(&[a.clone(), b.clone()]), digest(&[b.clone(), a.clone()]));
    assert_ne!(digest(std::slice::from_ref(&a)), digest(&[a, b]));
    assert_eq!(digest(&[]).len(), 64);
}

#[test]
fn the_schema_is_readable_and_stable() {
    let schema = schema_text(&catalogue());
    assert_eq!(schema, schema_text(&catalogue()));
    for part in [
        "    \"amount\"?: decimal,\n",
        "    \"mail/send\"?: {\n      \"amount\"?: decimal,\n",
        "      \"options\"?: {\n        \"secret\"?: Bool,\n      },\n",
        "      \"to\": Set<String>,\n",
        "    // 1 more that Cedar cannot type\n    \"mail/send\"?",
        "    \"files/delete\"?: {\n      \"force\"?: Bool,\n      \"path\": String,\n    },\n",
    ] {
        assert!(schema.contains(part), "{part}\nis not in\n{schema}");
    }
    assert!(!schema.contains("\"payload\""), "a union has no type");
    let arguments = &schema[schema.find("type Arguments").unwrap()..schema.find("type Calls").unwrap()];
    assert!(!arguments.contains("\"lines\""), "two tools disagree on it");
}

fn nested(depth: usize) -> Value {
    (0..depth)
        .fold(json!({"type": "string"}), |inner, _| json!({"type": "object", "properties": {"x": inner}}))
}

#[test]
fn hostile_schemas_are_bounded() {
    let wide: serde_json::Map<String, Value> =
        (0..20_000).map(|i| (format!("p{i}"), json!({"type": "string"}))).collect();
    let schemas = [
        json!(null),
        json!([]),
        json!("x"),
        json!({"type": "object", "properties": 5, "required": "x"}),
        json!({"type": "object", "properties": wide}),
        json!({"type": "object", "properties": {"deep": nested(100)}}),
        json!({"type": "object", "properties": {"a\"}; namespace Evil {\n": {"type": "string"}, "": {"type": "string"}, "\u{0}\u{202e}é": {"type": "integer"}}}),
        json!({"type": "object", "properties": {"x".repeat(10_000): {"type": "string"}}}),
        json!({"type": "object", "properties": {"r": {"$ref": "#"}, "t": {"type": ["string", "integer"]}, "n": {"type": "null"}, "e": {"enum": [1, "a"]}, "s": {"enum": ["a", null]}, "i": {"type": "array", "items": {"type": ["string", "null"]}}, "m": {"type": "array", "items": [{}]}, "l": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}}}),
    ];
    let tools = schemas
        .into_iter()
        .enumerate()
        .map(|(i, input_schema)| castra_policy::CatalogueTool {
            name: format!("t{i}").into(),
            effect: Default::default(),
            external: true,
            described: false,
            input_schema,
        })
        .chain(["\"}\n; x", &"n".repeat(100_000)].map(|name| castra_policy::CatalogueTool {
            name: name.into(),
            effect: Default::default(),
            external: true,
            described: false,
            input_schema: json!({}),
        }))
        .collect();
    let hostile = Catalogue {
        servers: vec![CatalogueServer { name: "evil".parse().unwrap(), tools }],
        ..Catalogue::default()
    };
    let schema = schema_text(&hostile);
    assert!(schema.len() < 100_000, "{}", schema.len());
    assert!(schema.contains("\"l\"?: Set<Set<Long>>") && schema.contains("\"s\"?: String"), "{schema}");
    for absent in ["\"r\"?", "\"t\"?", "\"n\"?", "\"e\"?", "\"i\"?", "\"m\"?"] {
        assert!(!schema.contains(absent), "{absent}");
    }
    let source = PolicySource { file: "p".into(), text: "permit (principal, action, resource);".into() };
    Engine::load(&[source], &hostile).unwrap();
}

#[test]
fn ids_come_from_annotations_or_places() {
    let engine = load("permit (principal, action, resource); /* not a comment */");
    assert!(engine.is_err());
    let text = "// permit (principal, action, resource);\npermit (principal, action, resource);permit (principal, action, resource);\n@id(\"named\")\npermit (principal, action, resource);";
    let verdict = crate::support::Ask::new("mailer", "Tool::mail/send").decide(&load(text).unwrap());
    assert_eq!(verdict.policies.join(" "), "p.cedar:2 p.cedar:2.2 named");
}

#[test]
fn policy_tests_run() {
    let engine = load("@id(\"by-day\") permit (principal in Castra::Group::\"office\", action, resource in Castra::Server::\"files\") when { context.time.hour < 18 };").unwrap();
    let mut tests = String::new();
    for (time, expect, policies) in
        [("12", "allow", "\"by-day\""), ("20", "deny", ""), ("20", "allow", "\"by-day\"")]
    {
        let _ = writeln!(
            tests,
            "[[test]]\nagent = \"mailer\"\ngroups = [\"office\"]\noperation = \"call\"\nresource = 'Tool::\"files/read_file\"'\n\
             effect = \"read\"\nargs = {{ path = \"/srv\" }}\ntime = \"2026-11-24T{time}:00:00Z\"\nexpect = \"{expect}\"\npolicies = [{policies}]"
        );
    }
    let report = castra_policy::run_tests(&engine, &tests).unwrap();
    assert_eq!(
        report.to_string(),
        "FAILED test 3\n  expected: allow by by-day\n  got:      deny by no policy\n  because:  no policy permits agent \"mailer\" to call tool \"files/read_file\" (effect read)\n  \
         to change it: policy \"by-day\" would permit it if this were so: context.time.hour < 18 (context.time.hour is 20)\n2 passed, 1 failed"
    );
    for (bad, expected) in [
        ("", "there is no [[test]] in it"),
        (
            "[[test]]\nagent = \"a\"\noperation = \"call\"\nresource = 'files/x'\nexpect = \"deny\"",
            "write a resource as Tool::",
        ),
        ("[[test]]\nagnt = \"a\"", "unknown field `agnt`"),
    ] {
        let error = castra_policy::run_tests(&engine, bad).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
