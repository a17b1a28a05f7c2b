//! JSON is masked in place: strings as they are meant, everything else byte by byte as it was.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

use castra_inspect::{Action, Inspector, JsonFault, JsonOptions, Settings, kinds};
use proptest::prelude::*;

fn inspector() -> &'static Inspector {
    static ONCE: std::sync::OnceLock<Inspector> = std::sync::OnceLock::new();
    ONCE.get_or_init(|| Inspector::new(&Settings::default()).expect("the built-in list compiles"))
}

/// Put together here, so that no scanner takes this file for a leak.
fn key() -> String {
    format!("AKIA{}", "QWERTYUIOPASDFGH")
}

#[test]
fn what_is_masked_and_what_keeps_its_bytes() {
    let key = key();
    let cases = [
        (
            format!("{{ \"a\" : [1.50, \"x {key}\"] ,\"b\":\"\\u00e4\"}}"),
            "{ \"a\" : [1.50, \"x [redacted:aws-access-key]\"] ,\"b\":\"\\u00e4\"}",
        ),
        (
            format!("[\"\\u0041\\u004B{} \\\"q\\\"\\n\"]", &key[2..]),
            "[\"[redacted:aws-access-key] \\\"q\\\"\\n\"]",
        ),
        (
            format!("{{\"{key}\":1,\"{}\":2}}", key.replace('Q', "R")),
            "{\"[redacted:aws-access-key]\":1,\"[redacted:aws-access-key] 2\":2}",
        ),
        (
            format!("{{\"id\":\"{key}\",\"x\":{{\"id\":\"{key}\"}}}}"),
            "{\"id\":\"KEY\",\"x\":{\"id\":\"[redacted:aws-access-key]\"}}",
        ),
        ("{\"password\":\"abc123def456\"}".into(), "{\"password\":\"[redacted:password]\"}"),
        // JSON within a string stays JSON.
        (
            r#"{"arguments":"{\"password\": \"abc123def456\", \"n\": [1.50]}"}"#.into(),
            r#"{"arguments":"{\"password\": \"[redacted:password]\", \"n\": [1.50]}"}"#,
        ),
        (
            r#"["[\"{\\\"password\\\":\\\"abc123def456\\\"}\"]"]"#.into(),
            r#"["[\"{\\\"password\\\":\\\"[redacted:password]\\\"}\"]"]"#,
        ),
        (
            format!(r#"["{{\"a\": \"{key}\", broken"]"#),
            r#"["{\"a\": \"[redacted:aws-access-key]\", broken"]"#,
        ),
        (
            "{\"p\\u0061ssword\":\"abc123\\u0064ef456\",\"n\":0}".into(),
            "{\"p\\u0061ssword\":\"[redacted:password]\",\"n\":0}",
        ),
    ];
    for (document, expected) in cases {
        let options = JsonOptions { opaque: &[&["id"]], ..JsonOptions::default() };
        let masked = inspector().mask_json(document.as_bytes(), &options).expect("JSON").expect("a finding");
        let shown = String::from_utf8(masked.bytes.expect("a mask")).expect("UTF-8");
        assert_eq!(shown, expected.replace("KEY", &key), "{document}");
    }
    for clean in [
        "{\"password\":\"ask me\"}",
        " [ ] ",
        "\"\\ud800 \\ud83d\\ude00\"",
        "-0.5e-3",
        "{\"a\":{\"b\":[true,false,null]}}",
    ] {
        assert_eq!(inspector().mask_json(clean.as_bytes(), &JsonOptions::default()), Ok(None), "{clean}");
    }
}

#[test]
fn what_is_no_json_is_an_error() {
    for (document, offset) in [
        ("", 0),
        ("{", 1),
        ("[1,]", 3),
        ("{\"a\" 1}", 5),
        ("\"\\x\"", 1),
        ("\"a", 2),
        ("nul", 0),
        ("1 2", 2),
        ("\"\u{1}\"", 1),
        ("01", 1),
    ] {
        let error = inspector().mask_json(document.as_bytes(), &JsonOptions::default()).expect_err(document);
        assert_eq!(error.offset, offset, "{document}: {error}");
    }
    let deep = "[".repeat(65) + &"]".repeat(65);
    let error = inspector().mask_json(deep.as_bytes(), &JsonOptions::default()).expect_err("too deep");
    assert_eq!(error.fault, JsonFault::Depth(64));
    let error = inspector().mask_json(b"\"\xff\"", &JsonOptions::default()).expect_err("not UTF-8");
    assert_eq!(error.fault, JsonFault::NotUtf8);
}

#[test]
fn what_is_only_reported_changes_nothing() {
    let inspector =
        Inspector::new(&Settings { secrets: Action::Report, patterns: Vec::new() }).expect("compiles");
    let document = format!("[\"{}\"]", key());
    let found =
        inspector.mask_json(document.as_bytes(), &JsonOptions::default()).expect("JSON").expect("a finding");
    assert_eq!(found.bytes, None);
    assert_eq!(kinds(&found.findings), ["secret.aws-access-key".into()]);
    assert_eq!(document[found.findings[0].place.clone()], key());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_judged_as_a_common_parser_judges_them(text in "[\\[\\]{}\",:0-9a-z\\\\ .eE+-]{0,40}") {
        let ours = inspector().mask_json(text.as_bytes(), &JsonOptions::default());
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        // Numbers beyond a double are JSON all the same.
        let theirs = theirs.is_ok() || theirs.is_err_and(|e| e.to_string().contains("out of range"));
        prop_assert!(ours.is_ok() == theirs || text.contains("\\u"), "{text:?}: {ours:?}");
    }

    #[test]
    fn masked_json_means_the_masked_strings(text in "[ -~é\n]{0,20}", escape in any::<bool>()) {
        let text = format!("{text} {} {text}", key());
        let masked = inspector().mask_text(&text).and_then(|m| m.text).expect("a mask");
        let document = if escape {
            let units: String = text.encode_utf16().map(|u| format!("\\u{u:04x}")).collect();
            format!("[\"{units}\"]")
        } else {
            serde_json::to_string(&[&text]).expect("JSON")
        };
        let found = inspector().mask_json(document.as_bytes(), &JsonOptions::default()).expect("JSON").expect("a finding");
        let strings: Vec<String> = serde_json::from_slice(&found.bytes.expect("a mask")).expect("JSON still");
        prop_assert_eq!(strings, [masked]);
    }
}

#[test]
fn what_only_its_name_makes_a_secret_stays_if_whoever_sees_it_said_it() {
    let document = format!(r#"{{"password":"correct-horse-123","other":"{}"}}"#, key());
    for (said, kept) in
        [("make my password correct-horse-123, please", true), ("make it correct-horse", false)]
    {
        let options = JsonOptions { said, ..JsonOptions::default() };
        let masked = inspector().mask_json(document.as_bytes(), &options).expect("is JSON").expect("finds");
        let text = String::from_utf8(masked.bytes.expect("a mask")).expect("text");
        assert_eq!(text.contains("correct-horse-123"), kept, "{text}");
        assert!(!text.contains("AKIA"), "{text}");
        assert_eq!(masked.findings.len(), 2);
    }
}
