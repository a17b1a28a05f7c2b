//! Which crate may know which, held against the manifests and against the picture in ARCHITECTURE.md.
//!
//! The arrows stand here and nowhere else. A new crate or a new arrow is a change of this table,
//! of the picture, and of a sentence in the commit that says why.

use std::{collections::BTreeMap, path::Path};

use crate::{chores, tally::Tally};

/// A crate of ours: its level in the picture (0 is the top) and which of ours it may depend on.
struct Place {
    name: &'static str,
    level: usize,
    knows: &'static [&'static str],
}

const fn place(name: &'static str, level: usize, knows: &'static [&'static str]) -> Place {
    Place { name, level, knows }
}

const LEVELS: usize = 5;

const PLACES: &[Place] = &[
    place(
        "castra",
        0,
        &[
            "castra-gateway",
            "castra-console",
            "castra-demo",
            "castra-net",
            "castra-store",
            "castra-host",
            "castra-protocol",
            "castra-identity",
            "castra-policy",
            "castra-ledger",
            "castra-protect",
            "castra-inspect",
            "castra-flow",
            "castra-core",
        ],
    ),
    place(
        "castra-console",
        1,
        &["castra-gateway", "castra-store", "castra-net", "castra-identity", "castra-ledger", "castra-core"],
    ),
    place(
        "castra-gateway",
        1,
        &[
            "castra-net",
            "castra-store",
            "castra-host",
            "castra-protocol",
            "castra-identity",
            "castra-policy",
            "castra-ledger",
            "castra-protect",
            "castra-inspect",
            "castra-flow",
            "castra-core",
        ],
    ),
    // The demo plays the user: it drives the program from outside and knows none of its parts.
    place("castra-demo", 1, &[]),
    place("castra-net", 2, &["castra-core"]),
    place("castra-store", 2, &["castra-ledger", "castra-identity", "castra-protect", "castra-core"]),
    place("castra-host", 2, &["castra-core"]),
    place("castra-protocol", 3, &["castra-core"]),
    place("castra-identity", 3, &["castra-core"]),
    place("castra-policy", 3, &["castra-core"]),
    place("castra-ledger", 3, &["castra-core"]),
    place("castra-protect", 3, &["castra-core"]),
    place("castra-inspect", 3, &["castra-core"]),
    place("castra-flow", 3, &["castra-core"]),
    place("castra-core", 4, &[]),
];

/// Arrows that tests alone may draw: (crate, what its tests know, why).
const TEST_ARROWS: &[(&str, &str, &str)] = &[];

/// The level whose crates do no input or output, and what they must therefore not depend on.
const AREAS: usize = 3;
const NOT_IN_AREAS: &[&str] = &[
    "tokio",
    "tokio-rustls",
    "hyper",
    "hyper-util",
    "hyper-rustls",
    "axum",
    "reqwest",
    "rusqlite",
    "rustix",
    "rustls",
    "tempfile",
    "rmcp",
];

/// The manifest of one crate, as far as the layout is concerned.
struct Manifest {
    normal: Vec<String>,
    dev: Vec<String>,
    inherits_lints: bool,
}

/// Compares table, manifests and picture.
pub(crate) fn run() -> Tally {
    let root = chores::root();
    let picture = chores::read(&root.join("ARCHITECTURE.md")).and_then(|text| picture(&text));
    match (manifests(&root.join("crates")), picture) {
        (Ok(manifests), Ok(picture)) => check(&manifests, &picture),
        (manifests, picture) => {
            let mut tally = Tally::default();
            for problem in [manifests.err(), picture.err()].into_iter().flatten() {
                tally.add(Tally::failed(format!("layout: {problem}")));
            }
            tally
        }
    }
}

fn check(manifests: &BTreeMap<String, Manifest>, picture: &[Vec<String>]) -> Tally {
    let mut problems = Vec::new();
    for (name, manifest) in manifests {
        match PLACES.iter().find(|p| p.name == name) {
            Some(place) => problems.extend(wrong_arrows(place, manifest)),
            None => problems.push(format!(
                "crates/{name} has no place in the layout; add it to PLACES in xtask/src/layout.rs and to the picture"
            )),
        }
    }
    for place in PLACES.iter().filter(|p| !manifests.contains_key(p.name)) {
        problems.push(format!("{} is in the layout but there is no crates/{}", place.name, place.name));
    }
    problems.extend(wrong_picture(picture));
    let mut tally = Tally::passed(if problems.is_empty() { manifests.len() as u64 } else { 0 });
    tally.failures = problems.into_iter().map(|p| format!("layout: {p}")).collect();
    tally
}

fn wrong_arrows(place: &Place, manifest: &Manifest) -> Vec<String> {
    let mut problems = Vec::new();
    if !manifest.inherits_lints {
        problems.push(format!(
            "{} does not inherit the workspace's lints; add `[lints] workspace = true`",
            place.name
        ));
    }
    for to in manifest.normal.iter().filter(|d| is_ours(d) && !place.knows.contains(&d.as_str())) {
        problems.push(format!("{} → {to} is not allowed: {}", place.name, why_not(place, to)));
    }
    for to in manifest.dev.iter().filter(|d| is_ours(d) && !place.knows.contains(&d.as_str())) {
        if !TEST_ARROWS.iter().any(|(from, known, _)| *from == place.name && known == to) {
            problems.push(format!(
                "{} → {to} in tests is not listed in TEST_ARROWS: {}",
                place.name,
                why_not(place, to)
            ));
        }
    }
    if place.level == AREAS {
        for to in manifest.normal.iter().filter(|d| NOT_IN_AREAS.contains(&d.as_str())) {
            problems.push(format!("{} → {to} is not allowed: areas do no input or output", place.name));
        }
    }
    problems
}

fn is_ours(dependency: &str) -> bool {
    dependency == "castra" || dependency.starts_with("castra-") || dependency == "xtask"
}

fn why_not(from: &Place, to: &str) -> String {
    let Some(to) = PLACES.iter().find(|p| p.name == to) else {
        return "it is no crate of the layout".into();
    };
    match to.level.cmp(&from.level) {
        std::cmp::Ordering::Less => "arrows go down only, and this one goes up".into(),
        std::cmp::Ordering::Equal if from.level == AREAS => {
            "areas know core and never each other; hand the value in from the layer above".into()
        }
        std::cmp::Ordering::Equal => "crates of one level do not know each other".into(),
        std::cmp::Ordering::Greater => format!("{} knows only: {}", from.name, from.knows.join(", ")),
    }
}

fn wrong_picture(picture: &[Vec<String>]) -> Vec<String> {
    let mut problems = Vec::new();
    if picture.len() != LEVELS {
        problems.push(format!(
            "the picture in ARCHITECTURE.md has {} levels and the layout has {LEVELS}; a blank branch line divides levels",
            picture.len()
        ));
        return problems;
    }
    for (level, names) in picture.iter().enumerate() {
        for name in names {
            match PLACES.iter().find(|p| p.name == name) {
                None => problems
                    .push(format!("the picture in ARCHITECTURE.md shows {name}, which is not in the layout")),
                Some(p) if p.level != level => problems.push(format!(
                    "the picture in ARCHITECTURE.md shows {name} on level {level}, the layout has it on {}",
                    p.level
                )),
                Some(_) => {}
            }
        }
    }
    let shown = |name: &str| picture.iter().flatten().any(|n| n == name);
    for place in PLACES.iter().filter(|p| !shown(p.name)) {
        problems.push(format!("the picture in ARCHITECTURE.md does not show {}", place.name));
    }
    problems
}

/// Reads the block after `<!-- layout -->`: crate names per level, levels divided by lines without a name.
fn picture(markdown: &str) -> Result<Vec<Vec<String>>, String> {
    let missing = "ARCHITECTURE.md has no fenced block after the line `<!-- layout -->`";
    let (_, after) = markdown.split_once("<!-- layout -->").ok_or(missing)?;
    let block = after.split("```").nth(1).ok_or(missing)?;
    let mut levels = vec![Vec::new()];
    for line in block.lines().skip(1) {
        let first = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).find(|w| !w.is_empty());
        match (first, levels.last_mut()) {
            (Some(name), Some(level)) if is_ours(name) => level.push(name.to_owned()),
            // Words that are no crate: a heading of a level.
            (Some(_), _) => {}
            (None, Some(level)) if !level.is_empty() => levels.push(Vec::new()),
            (None, _) => {}
        }
    }
    levels.retain(|level| !level.is_empty());
    Ok(levels)
}

fn manifests(crates: &Path) -> Result<BTreeMap<String, Manifest>, String> {
    let folders =
        std::fs::read_dir(crates).map_err(|e| format!("{} cannot be read: {e}", crates.display()))?;
    let mut found = BTreeMap::new();
    for folder in folders.flatten() {
        let path = folder.path().join("Cargo.toml");
        if path.exists() {
            let (name, manifest) =
                manifest(&chores::read(&path)?).map_err(|e| format!("{}: {e}", path.display()))?;
            found.insert(name, manifest);
        }
    }
    Ok(found)
}

fn manifest(text: &str) -> Result<(String, Manifest), String> {
    let table: toml::Table = text.parse().map_err(|e| format!("{e}"))?;
    let name = table.get("package").and_then(|p| p.get("name")).and_then(|n| n.as_str());
    let mut manifest = Manifest {
        normal: dependencies(table.get("dependencies")),
        dev: dependencies(table.get("dev-dependencies")),
        inherits_lints: table.get("lints").and_then(|l| l.get("workspace")).and_then(toml::Value::as_bool)
            == Some(true),
    };
    manifest.normal.extend(dependencies(table.get("build-dependencies")));
    for platform in table.get("target").and_then(|t| t.as_table()).into_iter().flat_map(|t| t.values()) {
        manifest.normal.extend(dependencies(platform.get("dependencies")));
        manifest.dev.extend(dependencies(platform.get("dev-dependencies")));
    }
    Ok((name.ok_or("it has no package name")?.to_owned(), manifest))
}

/// Names of the packages in a dependency table, whatever they are renamed to.
fn dependencies(table: Option<&toml::Value>) -> Vec<String> {
    let entries = table.and_then(toml::Value::as_table).into_iter().flatten();
    entries
        .map(|(key, value)| value.get("package").and_then(toml::Value::as_str).unwrap_or(key).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(name: &str, dependencies: &str) -> Vec<String> {
        let text = format!("[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n{dependencies}");
        let (name, manifest) = manifest(&text).expect("a manifest");
        let place = PLACES.iter().find(|p| p.name == name).expect("a place");
        wrong_arrows(place, &manifest)
    }

    #[test]
    fn wrong_arrows_are_named_with_the_reason() {
        for (name, dependencies, expected) in [
            ("castra-policy", "[dependencies]\ncastra-core.workspace = true", None),
            ("castra-policy", "[dependencies]\ncastra-ledger.workspace = true", Some("never each other")),
            ("castra-core", "[dependencies]\ncastra-store.workspace = true", Some("goes up")),
            ("castra-ledger", "[dev-dependencies]\ncastra-protect.workspace = true", Some("TEST_ARROWS")),
            ("castra-net", "[dependencies]\ncastra-store.workspace = true", Some("one level")),
            ("castra-net", "[dependencies]\ncastra-policy.workspace = true", Some("knows only: castra-core")),
            ("castra-protocol", "[dependencies]\ntokio.workspace = true", Some("no input or output")),
            (
                "castra-policy",
                "[dependencies]\nx = { package = \"castra-net\", path = \"\" }",
                Some("goes up"),
            ),
            ("castra-host", "[target.'cfg(unix)'.dependencies]\ncastra-policy = \"1\"", Some("knows only")),
        ] {
            let found = problems(name, dependencies).join("; ");
            match expected {
                None => assert_eq!(found, ""),
                Some(reason) => assert!(found.contains(reason), "{name}: {found}"),
            }
        }
    }

    #[test]
    fn every_arrow_of_the_table_goes_down() {
        for place in PLACES {
            for known in place.knows {
                let to = PLACES.iter().find(|p| p.name == *known).expect("a known crate");
                let console_reads_the_gate = place.name == "castra-console" && *known == "castra-gateway";
                assert!(to.level > place.level || console_reads_the_gate, "{} → {known}", place.name);
            }
        }
    }

    #[test]
    fn the_picture_is_read_by_levels() {
        let text = "x\n<!-- layout -->\n```text\ncastra   the program\n│\n├─ castra-gateway   path of castra-core\n├─ castra-console\n│\n├─ areas, which know core:\n│    castra-policy\n```\n";
        assert_eq!(
            picture(text),
            Ok(vec![
                vec!["castra".to_owned()],
                vec!["castra-gateway".into(), "castra-console".into()],
                vec!["castra-policy".into()]
            ])
        );
        assert!(picture("no block").is_err());
    }
}
