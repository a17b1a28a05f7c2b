//! Patterns that cannot be used are refused with what to change.
#![allow(clippy::expect_used)] // a test may fail

use castra_core::Severity;
use castra_inspect::{Action, Inspector, Pattern, Settings};

fn built(patterns: &[(&str, &str)]) -> Result<Inspector, String> {
    let pattern = |(name, regex): &(&str, &str)| Pattern {
        name: (*name).into(),
        regex: (*regex).into(),
        severity: Severity::Low,
        action: Action::Mask,
    };
    let settings = Settings { secrets: Action::Off, patterns: patterns.iter().map(pattern).collect() };
    Inspector::new(&settings).map_err(|error| error.to_string())
}

#[test]
fn each_fault_is_told() {
    for (name, regex, told) in [
        ("Case", "x", "another name"),
        ("1st", "x", "another name"),
        ("a", "(", "unclosed group"),
        ("a", "(?=x)", "look-around"),
        ("a", "^x", "the anchor ^"),
        ("a", "x$", "the anchor $"),
        ("a", r"\bx", r"(?-u:\b)"),
        ("a", "x*", "matches the empty text"),
        ("a", r"[^\s\S]", "can match nothing"),
        ("a", r"\w{200}", "too large"),
        ("a", r"(?-u:\xff)", "UTF-8"),
    ] {
        let error = built(&[(name, regex)]).expect_err(regex);
        assert!(error.contains(told), "{regex}: {error}");
    }
    assert!(built(&[("a", "x"), ("a", "y")]).expect_err("twice").contains("rename one"));
    assert!(built(&[("a", &"x".repeat(4096))]).expect_err("long").contains("2048"));
}

#[test]
fn good_ones_are_taken() {
    let inspector =
        built(&[("a", r"(?-u:\b)KD-[0-9]{8}(?-u:\b)"), ("b", "(?i)geheim|тайна"), ("c", "[^!]+!")])
            .expect("good");
    let masked =
        |text: &str| inspector.mask_text(text).and_then(|m| m.text).unwrap_or_else(|| text.to_owned());
    assert_eq!(masked("KD-12345678"), "[redacted:a]");
    assert_eq!(masked("das ist GEHEIM"), "das ist [redacted:b]");
    assert_eq!(masked("ТАЙНА"), "[redacted:b]");
    assert_eq!(masked("x y!z"), "[redacted:c]z");
}
