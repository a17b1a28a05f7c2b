//! Checks the documentation: links lead somewhere, the book lists its pages, and the commands that
//! README.md and docs/ show are run, so that none of them is only true on paper.
//!
//! A fenced block that begins with ```` ```sh run ```` is run; with ```` ```sh run background ```` it is
//! started, and what follows waits for its first line. The blocks of a page run in order in one
//! shell, in a fresh folder, with the built `castra` first in the PATH.

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{castra, chores, run, tally::Tally};

/// Castra's default ports.
const PORTS: &[u16] = &[8440, 8441];

/// The two commands that README promises, which `xtask test` itself and its demo part run.
const PROMISED: &[&str] = &["cargo xtask demo", "cargo xtask test"];

/// Runs every page that has marked blocks.
pub(crate) fn run() -> Tally {
    match prepared() {
        Ok((castra, pages, alone)) => {
            let mut tally = promised();
            tally.add(linked(&pages));
            // The pages show the default ports, so that a gate which runs here already is in the way.
            if let Some(port) = PORTS.iter().find(|port| TcpStream::connect(("127.0.0.1", **port)).is_ok()) {
                tally.add(Tally::skipped(
                    "commands shown in the documentation",
                    format!("port {port} is in use"),
                ));
                return tally;
            }
            for page in pages {
                tally.add(run_page(&castra, &page, &alone.folder));
            }
            tally
        }
        Err(why) => Tally::failed(format!("documentation: {why}")),
    }
}

fn prepared() -> Result<(PathBuf, Vec<PathBuf>, chores::Alone), String> {
    let mut pages = vec![chores::root().join("README.md")];
    markdown(&chores::root().join("docs"), &mut pages)?;
    Ok((castra::built()?, pages, chores::alone("documentation")?))
}

fn markdown(folder: &Path, pages: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries =
        std::fs::read_dir(folder).map_err(|e| format!("{} cannot be read: {e}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            markdown(&path, pages)?;
        } else if path.extension().is_some_and(|e| e == "md") {
            pages.push(path);
        }
    }
    Ok(())
}

fn promised() -> Tally {
    let readme = chores::read(&chores::root().join("README.md")).unwrap_or_default();
    let missing = PROMISED.iter().find(|command| !readme.contains(*command));
    Tally::check(missing.map(|command| format!("documentation: README.md does not show `{command}`")))
}

/// Checks that relative links lead to files, and that the book lists every page and no other.
fn linked(pages: &[PathBuf]) -> Tally {
    let root = chores::root();
    let others =
        ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(|name| root.join(name));
    let summary = root.join("docs/SUMMARY.md");
    let mut tally = Tally::default();
    for page in pages.iter().chain(&others) {
        let broken = chores::read(page).map(|text| broken_links(&text, page)).unwrap_or_else(|why| vec![why]);
        tally.add(Tally::check(
            (!broken.is_empty()).then(|| format!("{}: no such file: {}", page.display(), broken.join(", "))),
        ));
    }
    let listed = chores::read(&summary)
        .map(|text| links(&text).map(str::to_owned).collect::<Vec<_>>())
        .unwrap_or_default();
    for page in pages.iter().filter(|page| **page != summary) {
        if let Ok(name) = page.strip_prefix(root.join("docs")) {
            let known = listed.iter().any(|link| Path::new(link) == name);
            tally.add(Tally::check(
                (!known).then(|| format!("docs/SUMMARY.md does not list {}", name.display())),
            ));
        }
    }
    tally
}

fn broken_links(text: &str, page: &Path) -> Vec<String> {
    let folder = page.parent().unwrap_or(page);
    let file = |link: &&str| !link.contains("://") && !link.starts_with('#');
    let missing = |link: &&str| !folder.join(link.split('#').next().unwrap_or_default()).exists();
    links(text).filter(file).filter(missing).map(str::to_owned).collect()
}

/// Targets of `[words](target)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(link, _)| link))
}

fn run_page(castra: &Path, page: &Path, folder: &Path) -> Tally {
    let name = page.strip_prefix(chores::root()).unwrap_or(page).display().to_string();
    let blocks = match chores::read(page) {
        Ok(text) => blocks(&text),
        Err(why) => return Tally::failed(why),
    };
    if blocks.is_empty() {
        return Tally::default();
    }
    let outcome = in_fresh_folder(folder, &name).and_then(|folder| {
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(script(&blocks)).current_dir(&folder);
        shell.env("PATH", path_with(castra)).env("NO_COLOR", "1").env("HOME", &folder);
        let out = run::quiet(&mut shell)?;
        if out.success { Ok(()) } else { Err(out.text) }
    });
    match outcome {
        Ok(()) => {
            println!("{name}: {} blocks", blocks.len());
            Tally::passed(blocks.len() as u64)
        }
        Err(why) => Tally::failed(format!("documentation {name}: {}", why.trim_end())),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Block {
    line: usize,
    background: bool,
    text: String,
}

fn blocks(markdown: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in markdown.lines().enumerate() {
        match (&mut open, line.trim_end()) {
            (None, "```sh run") => {
                open = Some(Block { line: index + 1, background: false, text: String::new() })
            }
            (None, "```sh run background") => {
                open = Some(Block { line: index + 1, background: true, text: String::new() });
            }
            (Some(_), "```") => found.extend(open.take()),
            (Some(block), line) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, _) => {}
        }
    }
    found
}

/// One script of all blocks. A failing command names its block's line and ends the page.
fn script(blocks: &[Block]) -> String {
    let mut script = String::from(
        "set -euo pipefail\nstarted=()\n\
         trap 'for p in \"${started[@]}\"; do kill \"$p\" 2>/dev/null || true; wait \"$p\" 2>/dev/null || true; done' EXIT\n\
         trap 'echo \"the block of line $block failed: $BASH_COMMAND\" >&2; cat background-*.log 2>/dev/null || true' ERR\n",
    );
    for block in blocks {
        script.push_str(&format!("block={}\n", block.line));
        if block.background {
            let log = format!("background-{}.log", block.line);
            let command = block.text.trim_end();
            script.push_str(&format!("{command} >{log} 2>&1 &\nstarted+=($!)\n"));
            script.push_str(&format!(
                "for i in $(seq 600); do [ -s {log} ] && break; kill -0 $! || false; sleep 0.1; done\n"
            ));
        } else {
            script.push_str(&block.text);
        }
    }
    script
}

fn in_fresh_folder(folder: &Path, page: &str) -> Result<PathBuf, String> {
    let folder = folder.join(page.replace(['/', '.'], "-"));
    if folder.exists() {
        std::fs::remove_dir_all(&folder)
            .map_err(|e| format!("{} cannot be emptied: {e}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).map_err(|e| format!("{} cannot be made: {e}", folder.display()))?;
    Ok(folder)
}

fn path_with(castra: &Path) -> String {
    let folder = castra.parent().unwrap_or(Path::new(".")).display().to_string();
    format!("{folder}:{}", std::env::var("PATH").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_blocks_are_run() {
        let text =
            "```sh\nrm -rf /\n```\n```sh run\ncastra --version\n```\n```sh run background\ncastra up\n```\n";
        assert_eq!(
            blocks(text),
            [
                Block { line: 4, background: false, text: "castra --version\n".into() },
                Block { line: 7, background: true, text: "castra up\n".into() }
            ]
        );
    }

    #[test]
    fn links_are_found() {
        let found: Vec<&str> = links("[a](b.md), [c](https://x/y) and `f(x)` [d](e.md#f)").collect();
        assert_eq!(found, ["b.md", "https://x/y", "e.md#f"]);
    }

    #[test]
    fn a_failing_command_fails_the_page() {
        let run = |text: &str| {
            let script = script(&blocks(&format!("```sh run\n{text}\n```\n")));
            Command::new("bash").args(["-c", &script]).output().expect("bash").status.success()
        };
        assert!(run("true"));
        assert!(!run("false\ntrue"));
        assert!(!run("false | cat"));
    }
}
