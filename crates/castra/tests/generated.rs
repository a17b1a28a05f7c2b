//! What is generated from the source and checked in is what the source says today.
#![allow(clippy::disallowed_methods)] // a test reads checked-in files and starts the program
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test may fail in this way

use std::{fs, path::Path, process::Command};

#[test]
fn references_are_of_today() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    for (file, what) in [
        ("configuration.md", "reference"),
        ("config.schema.json", "config"),
        ("manifest.schema.json", "manifest"),
        ("command-line.md", "cli"),
    ] {
        let generated =
            Command::new(env!("CARGO_BIN_EXE_castra")).args(["schema", what]).output().unwrap().stdout;
        let checked_in = fs::read(docs.join(file)).unwrap_or_default();
        assert!(generated == checked_in, "docs/reference/{file} is not of today: run `cargo xtask gen`");
    }
}

/// The manifests that users of the first version have, word for word.
#[test]
fn manifests_in_use_are_read() {
    let text = "[send_email]\neffect = \"act\"\noutput = \"trusted\"\nattested = [\"id_\"]\nobject = \"email\"\nintent = [\"email\", \"send\"]\nargs = { recipients = \"exact\", attachments = \"id:file\", title = \"composed\", when = \"date\", amount = \"bounded\", password = \"quoted\" }\n[list_files]\neffect = \"read\"\noutput = \"untrusted\"\nkeys = [\"filename\"]\nweak_keys = [\"subject\"]\nsuperlatives = { largest = \"size\" }\nsecret = [\"token\"]\nexternal = false\n";
    let manifest = castra::manifest::parse(text).unwrap();
    assert_eq!(manifest.tools["send_email"].effect, Some(castra_core::Effect::Act));
    assert_eq!(manifest.tools["list_files"].external, Some(false));
}

#[test]
fn the_first_configuration_is_good() {
    // What `castra init` writes, with everything that is commented out taken in.
    let folder = tempfile::tempdir().unwrap();
    let done =
        Command::new(env!("CARGO_BIN_EXE_castra")).arg("init").current_dir(folder.path()).status().unwrap();
    assert!(done.success());
    let text = fs::read_to_string(folder.path().join("castra.toml")).unwrap();
    let uncommented: String = text
        .lines()
        .map(|line| line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line).to_owned() + "\n")
        .collect();
    for text in [text, uncommented] {
        castra::config::Config::parse(&text, folder.path()).unwrap();
    }
}
