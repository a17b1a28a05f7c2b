//! `castra policy prove` and `diff` with the solver: what holds is proved, what does not is shown with a request
//! that the authorizer permits. Needs cvc5; `cargo xtask prove` sees to that.
#![cfg(feature = "prove")]
#![allow(clippy::disallowed_methods)] // a test starts programs and writes files itself
#![allow(clippy::unwrap_used, clippy::panic)] // a test may fail in this way

use std::{
    path::Path,
    process::{Command, Output},
};

const ALL: &str = "permit (principal, action, resource);";

/// A folder with a configuration and two policy folders: what `castra init` writes, and a permit of everything.
fn folder(standard: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    assert!(castra(folder.path(), &["init"]).status.success());
    let config = folder.path().join("castra.toml");
    let text = format!("[state]\ndir = \"state\"\n[policy]\ndir = \"policies\"\nstandard = {standard}\n");
    std::fs::write(config, text).unwrap();
    std::fs::create_dir(folder.path().join("all")).unwrap();
    std::fs::write(folder.path().join("all/all.cedar"), ALL).unwrap();
    folder
}

fn castra(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_castra")).args(args).current_dir(folder).output().unwrap()
}

/// The exit code and the JSON of a command.
fn answer(folder: &Path, args: &[&str]) -> (Option<i32>, serde_json::Value) {
    let out = castra(folder, &[args, &["--json"]].concat());
    let said = String::from_utf8_lossy(&out.stdout);
    let json = serde_json::from_str(&said);
    (
        out.status.code(),
        json.unwrap_or_else(|e| panic!("{e}: {said}{}", String::from_utf8_lossy(&out.stderr))),
    )
}

#[test]
fn the_standard_pack_keeps_what_flow_control_promises_whatever_else_is_permitted() {
    let folder = folder(true);
    for policies in ["policies", "all"] {
        let (code, proved) = answer(folder.path(), &["policy", "prove", "--policies", policies]);
        let proved = proved.as_array().unwrap();
        assert!(proved.len() >= 4, "{proved:?}");
        for property in proved {
            assert_eq!(property.pointer("/proof/answer").unwrap(), "holds", "{property}");
        }
        assert_eq!(code, Some(0));
    }
}

#[test]
fn what_does_not_hold_is_shown_by_a_request() {
    let folder = folder(false);
    let (code, proved) = answer(folder.path(), &["policy", "prove", "--policies", "all"]);
    assert_eq!(code, Some(2));
    for property in proved.as_array().unwrap() {
        assert_eq!(property.pointer("/proof/answer").unwrap(), "fails", "{property}");
        let attempt = property.pointer("/proof/attempt").unwrap().as_str().unwrap();
        assert!(attempt.contains("Castra::Action::\"call\" to Castra::Tool"), "{attempt}");
    }
}

#[test]
fn a_change_that_permits_more_is_found_and_one_that_does_not_is_proved() {
    let folder = folder(true);
    let (code, wider) = answer(folder.path(), &["policy", "diff", "policies", "all"]);
    assert_eq!(
        (code, wider.pointer("/nothing_more_is_permitted/answer").unwrap().as_str()),
        (Some(2), Some("fails"))
    );
    let (code, narrower) = answer(folder.path(), &["policy", "diff", "all", "policies"]);
    let holds = narrower.pointer("/nothing_more_is_permitted/answer").unwrap().as_str();
    assert_eq!((code, holds), (Some(0), Some("holds")));
}

#[test]
fn a_property_that_says_nothing_or_permits_is_refused() {
    let folder = folder(true);
    let vacuous =
        r#"@id("never") forbid (principal, action == Castra::Action::"call", resource) when { false };"#;
    for (property, why) in
        [(ALL, "is a permit"), (vacuous, "forbids nothing that can be asked"), ("", "no property")]
    {
        let file = folder.path().join("property.cedar");
        std::fs::write(&file, property).unwrap();
        let out = castra(folder.path(), &["policy", "prove", "property.cedar"]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && said.contains(why), "{said}");
    }
}

#[test]
fn nothing_is_proved_from_policies_that_can_fail_to_be_evaluated() {
    let folder = folder(true);
    let errs = "permit (principal, action, resource);\nforbid (principal, action, resource) when { context.time.epoch + 1 > 0 };";
    std::fs::write(folder.path().join("all/all.cedar"), errs).unwrap();
    let out = castra(folder.path(), &["policy", "diff", "all", "policies"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(1) && said.contains("cannot be evaluated for some requests"), "{said}");
}
