//! `castra wrap` and `--undo` on the files of each client, byte for byte.
#![allow(clippy::disallowed_methods)] // a test starts the program and writes its files
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test may fail in this way

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

type Files = BTreeMap<PathBuf, Vec<u8>>;

struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    /// A machine with the clients of `tests/fixtures/wrap`.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wrap");
        for (file, bytes) in files(&fixtures) {
            let to = folder.path().join(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, bytes).unwrap();
        }
        Self { folder }
    }

    fn castra(&self, args: &[&str]) -> Output {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let mut command = Command::new(env!("CARGO_BIN_EXE_castra"));
        command.args(args).args(["--config", &path("castra.toml")]);
        if args.contains(&"wrap") && !args.contains(&"--undo") {
            command.args(["--home", &path("home"), "--project", &path("project")]);
        }
        command.current_dir(self.folder.path()).env("GEMINI_FIXTURE_KEY", "s3cret-gemini").output().unwrap()
    }

    fn clients(&self) -> Files {
        let mut all = files(&self.folder.path().join("home"));
        all.extend(
            files(&self.folder.path().join("project"))
                .into_iter()
                .map(|(f, b)| (Path::new("project").join(f), b)),
        );
        all
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap()
    }
}

fn files(root: &Path) -> Files {
    let mut found = Files::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn undo_is_byte_identical() {
    let machine = Machine::new();
    let before = machine.clients();
    assert!(before.len() >= 9);
    succeeded(&machine.castra(&["wrap", "--yes"]));
    let wrapped = machine.clients();
    let changed = before.iter().filter(|(file, bytes)| wrapped[*file] != **bytes).count();
    assert_eq!(changed, before.len(), "every fixture has a server that moves");
    succeeded(&machine.castra(&["wrap", "--yes", "--undo"]));
    assert_eq!(machine.clients(), before);
    assert!(!machine.folder.path().join("castra.toml").exists());
    assert_eq!(files(&machine.folder.path().join("castra-state/secrets")), Files::new());
}

#[test]
fn two_runs_are_undone_together() {
    let machine = Machine::new();
    let before = machine.clients();
    fs::write(machine.folder.path().join("castra.toml"), "# mine\n[policy]\nmode = \"observe\"").unwrap();
    succeeded(&machine.castra(&["wrap", "--yes", "--client", "cursor"]));
    succeeded(&machine.castra(&["wrap", "--yes"]));
    assert!(machine.text("castra.toml").starts_with("# mine\n[policy]\nmode = \"observe\"\n\n# Moved"));
    succeeded(&machine.castra(&["wrap", "--yes", "--undo"]));
    assert_eq!(machine.clients(), before);
    assert_eq!(machine.text("castra.toml"), "# mine\n[policy]\nmode = \"observe\"");
}

#[test]
fn comments_order_and_line_ends_stay() {
    let machine = Machine::new();
    succeeded(&machine.castra(&["wrap", "--yes"]));
    let vscode = machine.text("home/.config/Code/User/mcp.json");
    assert!(vscode.starts_with('\u{feff}'));
    for kept in [
        "// Servers for every workspace.",
        "/* this one is mine */",
        "// where it keeps things",
        "\"watch\": \"src/**\"",
    ] {
        assert!(vscode.contains(kept), "{kept}: {vscode}");
    }
    let cursor = machine.text("home/.cursor/mcp.json");
    assert_eq!(cursor.matches('\n').count(), cursor.matches("\r\n").count());
    let codex = machine.text("home/.codex/config.toml");
    for kept in [
        "# Codex\nmodel",
        "[mcp_servers.git] # the repository",
        "startup_timeout_sec = 20",
        "# who commits",
        "enabled = true",
        "[profiles.fast]",
    ] {
        assert!(codex.contains(kept), "{kept}: {codex}");
    }
    let claude = machine.text("home/.claude.json");
    assert!(
        claude.find("numStartups") < claude.find("projects")
            && claude.find("projects") < claude.find("theme")
    );
    assert!(claude.contains("https://old.example/sse"), "what cannot move stays");
}

#[test]
fn secrets_are_neither_shown_nor_left_in_clients() {
    let machine = Machine::new();
    let shown = succeeded(&machine.castra(&["wrap", "--yes"]));
    for text in ["s3cret", "hunter2"] {
        assert!(!shown.contains(text), "{shown}");
        for (file, bytes) in machine.clients() {
            assert!(!String::from_utf8_lossy(&bytes).contains(text), "{}", file.display());
        }
    }
    let secrets = files(&machine.folder.path().join("castra-state/secrets"));
    assert_eq!(secrets[Path::new("git.GIT_TOKEN")], b"s3cret-git-token");
    assert_eq!(secrets[Path::new("tickets.Authorization")], b"Bearer s3cret-ticket-token");
    for file in secrets.keys() {
        use std::os::unix::fs::PermissionsExt;
        let path = machine.folder.path().join("castra-state/secrets").join(file);
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    let config = machine.text("castra.toml");
    assert!(
        config.contains("file:castra-state/secrets/git.GIT_TOKEN") && !config.contains("s3cret-git-token")
    );
    // The same server in two clients is one server.
    assert_eq!(config.matches("name = \"tickets\"").count(), 1);
    assert_eq!(config.matches("name = \"files\"").count(), 1);
}

#[test]
fn a_file_that_was_edited_since_keeps_the_edit() {
    let machine = Machine::new();
    let file = machine.folder.path().join("home/.codex/config.toml");
    let before = machine.text("home/.codex/config.toml");
    succeeded(&machine.castra(&["wrap", "--yes", "--client", "codex"]));
    let edited = machine.text("home/.codex/config.toml").replace("gpt-6-mini", "gpt-7-mini");
    fs::write(&file, edited).unwrap();
    let shown = succeeded(&machine.castra(&["wrap", "--yes", "--undo"]));
    assert!(shown.contains("was changed since, so only our entries were put back: git, wiki."), "{shown}");
    assert_eq!(machine.text("home/.codex/config.toml"), before.replace("gpt-6-mini", "gpt-7-mini"));
}
