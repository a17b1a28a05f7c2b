//! However a text is cut into pieces, the masks are those of the whole.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

mod common;

use castra_core::{Severity, TextScanner};
use castra_inspect::{Action, Inspector, Pattern, SWALLOW, Scanner, Settings, WINDOW, kinds};
use proptest::{prelude::*, sample::Index};

fn pattern(name: &str, regex: &str, action: Action) -> Pattern {
    Pattern { name: name.into(), regex: regex.into(), severity: Severity::Low, action }
}

/// The built-in list, and patterns of every awkward kind: without an end, without a literal, in other
/// letters, with counts, overlapping each other.
fn inspectors() -> Vec<Inspector> {
    let awkward = [
        pattern("open", "BEGIN[^!]*", Action::Mask),
        pattern("lazy", "(?s)<<.*?>>", Action::Mask),
        pattern("letters", "(?i)тайна[а-я]+", Action::Mask),
        pattern("digits", r"(?-u:\b)[0-9]{3}-[0-9]{2}-[0-9]{4}(?-u:\b)", Action::Mask),
        pattern("counted", "a[ab]{3,9}c", Action::Mask),
        pattern("wide", "(?s)AK.{0,30}", Action::Report),
        pattern("words", "[a-z]{12,}!", Action::Report),
    ];
    let settings = [
        Settings::default(),
        Settings { patterns: awkward.to_vec(), ..Settings::default() },
        Settings { secrets: Action::Off, patterns: awkward.to_vec() },
        Settings { secrets: Action::Report, patterns: Vec::new() },
    ];
    settings.iter().map(|s| Inspector::new(s).expect("patterns that compile")).collect()
}

fn fragment() -> impl Strategy<Value = String> {
    let secrets: Vec<String> = common::cases().into_iter().map(|(text, _)| text).collect();
    let plain = [
        "the quick brown fox ",
        "sk-",
        "eyJ",
        "AKIA",
        "-----BEGIN ",
        "ghp",
        "_",
        "\n",
        "password = \"",
        "https://",
        "BEGIN",
        "!",
        "<<",
        ">>",
        "тайна",
        "я",
        "é",
        "\u{1f512}",
        "123-45-6789",
        "abab",
        "aabc",
        "c",
        "-",
        " ",
    ];
    prop_oneof![
        4 => prop::sample::select(plain.to_vec()).prop_map(str::to_owned),
        3 => prop::sample::select(secrets.clone()),
        // A secret cut short.
        1 => (prop::sample::select(secrets), any::<Index>()).prop_map(|(text, at)| {
            let ends: Vec<usize> = text.char_indices().map(|(i, _)| i).chain([text.len()]).collect();
            text[..ends[at.index(ends.len())]].to_owned()
        }),
        1 => (prop::sample::select(vec!["BEGIN", "x", "<<", "eyJ", "-----BEGIN PRIVATE KEY-----"]), 1..3 * WINDOW)
            .prop_map(|(begin, n)| format!("{begin}{}", "aé1-".repeat(n / 4))),
        1 => "[ -~]{0,30}",
    ]
}

fn whole(mut scanner: Scanner, text: &str) -> (String, Vec<String>) {
    let mut out = String::new();
    scanner.push(text, &mut out);
    scanner.finish(&mut out);
    (out, seen(&scanner))
}

fn seen(scanner: &Scanner) -> Vec<String> {
    let mut seen: Vec<String> = scanner.findings().iter().map(|kind| kind.to_string()).collect();
    seen.sort();
    seen
}

fn pieces(mut scanner: Scanner, text: &str, cuts: &[Index]) -> (String, Vec<String>) {
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| places[cut.index(places.len())]).collect();
    cuts.sort_unstable();
    let (mut out, mut from) = (String::new(), 0);
    for cut in cuts.into_iter().chain([text.len()]) {
        scanner.push(&text[from..cut], &mut out);
        assert!(scanner.held() <= WINDOW, "{} bytes are held", scanner.held());
        from = cut;
    }
    scanner.finish(&mut out);
    (out, seen(&scanner))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_masks_of_the_whole(
        parts in prop::collection::vec(fragment(), 0..8),
        cuts in prop::collection::vec(any::<Index>(), 0..24),
    ) {
        let text = parts.concat();
        for inspector in inspectors_once() {
            let expected = whole(inspector.scanner(), &text);
            prop_assert_eq!(&pieces(inspector.scanner(), &text, &cuts), &expected);
            let masked = inspector.mask_text(&text);
            let found = masked.as_ref().map(|m| kinds(&m.findings)).unwrap_or_default();
            prop_assert_eq!(found.iter().map(|k| k.to_string()).collect::<Vec<_>>(), expected.1);
            let shown = masked.and_then(|m| m.text).unwrap_or_else(|| text.clone());
            prop_assert_eq!(shown, expected.0);
        }
    }

    #[test]
    fn character_by_character_is_the_same_too(parts in prop::collection::vec(fragment(), 0..4)) {
        let text = parts.concat();
        for inspector in inspectors_once() {
            let mut scanner = inspector.scanner();
            let mut out = String::new();
            for c in text.chars() {
                scanner.push(c.encode_utf8(&mut [0; 4]), &mut out);
            }
            scanner.finish(&mut out);
            prop_assert_eq!((out, seen(&scanner)), whole(inspector.scanner(), &text));
        }
    }
}

fn inspectors_once() -> &'static [Inspector] {
    static ONCE: std::sync::OnceLock<Vec<Inspector>> = std::sync::OnceLock::new();
    ONCE.get_or_init(inspectors)
}

#[test]
fn every_built_in_secret_is_masked_at_every_split() {
    let inspector = Inspector::new(&Settings::default()).expect("the built-in list compiles");
    for (text, expected) in common::cases() {
        for (at, _) in text.char_indices() {
            let (before, after) = text.split_at(at);
            let (mut scanner, mut out) = (inspector.scanner(), String::new());
            scanner.push(before, &mut out);
            scanner.push(after, &mut out);
            scanner.finish(&mut out);
            assert_eq!(out, expected, "cut at {at}");
        }
    }
}

#[test]
fn ordinary_text_is_not_delayed() {
    let inspector = Inspector::new(&Settings::default()).expect("the built-in list compiles");
    let (mut scanner, mut out) = (inspector.scanner(), String::new());
    for word in
        ["Dear ", "reader, ", "this is a ", "password-less, risky task: https", "://x.example/y ", "END. "]
    {
        scanner.push(word, &mut out);
    }
    assert_eq!(scanner.held(), 0);
    assert!(out.ends_with("END. "));
}

#[test]
fn what_outlasts_the_window_is_swallowed_up_to_a_bound() {
    let inspector = Inspector::new(&Settings {
        secrets: Action::Off,
        patterns: vec![
            pattern("open", "BEGIN[^!]*", Action::Mask),
            pattern("late", "(?s)<.*>", Action::Mask),
        ],
    })
    .expect("patterns that compile");
    let masked =
        |text: &str| inspector.mask_text(text).and_then(|m| m.text).unwrap_or_else(|| text.to_owned());

    let long = format!("a BEGIN{}! z", "я".repeat(WINDOW));
    assert_eq!(masked(&long), "a [redacted:open]! z");

    let endless = format!("BEGIN{}", "x".repeat(2 * SWALLOW));
    let shown = masked(&endless);
    assert_eq!(shown.len(), "[redacted:open]".len() + endless.len() - SWALLOW);

    // It has not matched within the window, so it is none.
    let late = format!("<{}>", "x".repeat(WINDOW));
    assert_eq!(masked(&late), late);
    let later = format!("<{}<y>", "x".repeat(WINDOW));
    assert_eq!(masked(&later), format!("<{}[redacted:late]", "x".repeat(WINDOW)));
}

#[test]
fn hostile_text_does_not_pile_up_work() {
    // Every character begins something that only dies, or matches, long after.
    let inspector = Inspector::new(&Settings {
        secrets: Action::Mask,
        patterns: vec![
            pattern("run", "[a-f]{40,}x", Action::Mask),
            pattern("pair", "[0-9][0-9 ]*;", Action::Mask),
        ],
    })
    .expect("patterns that compile");
    for unit in ["abcdef", "-eyJ", "1 ", "https://a:", "sk-ant-"] {
        let text = unit.repeat((1 << 18) / unit.len());
        let _ = inspector.mask_text(&text);
    }
}
