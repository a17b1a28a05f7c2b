//! The built-in list against texts that hold secrets, and such as only look so.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

mod common;

use castra_inspect::{Inspector, Settings};

#[test]
fn each_case_is_masked_as_it_should_be() {
    let inspector = Inspector::new(&Settings::default()).expect("the built-in list compiles");
    let mut wrong = Vec::new();
    for (text, expected) in common::cases() {
        let masked = inspector.mask_text(&text).and_then(|m| m.text).unwrap_or_else(|| text.clone());
        if masked != expected {
            wrong.push(format!("{text:?}\n  gives    {masked:?}\n  expected {expected:?}"));
        }
        // Alone in a JSON string, written with an escape for every character, it is the same.
        let hidden: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        let document = format!("[\"{hidden}\"]");
        let found = inspector.mask_json(document.as_bytes(), &Default::default()).expect("JSON");
        let shown = found.and_then(|m| m.bytes).unwrap_or_else(|| document.into_bytes());
        let strings: Vec<String> = serde_json::from_slice(&shown).expect("JSON still");
        if strings != [expected.clone()] {
            wrong.push(format!("{text:?} in JSON gives {strings:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
