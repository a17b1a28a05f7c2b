//! Runs the transcripts in `tests/cli/`: what is typed, and what must come back.
//!
//! A transcript is a text file. `$ castra …` runs the program in the transcript's own folder (words are
//! split at spaces, `'…'` keeps them together); the lines below are what it must print, standard output
//! before standard error, up to the next `$`, `%` or `#`. `…` stands for any part of a line, `...` alone
//! for any lines. `[exit N]` is the exit code, 0 if it is not said. `%write NAME` writes the lines below,
//! each begun with `|`, to a file; `%mode NAME OCTAL` and `%remove NAME` do what they say.
#![allow(clippy::disallowed_methods)] // a test starts the program and writes its files
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test may fail in this way

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

#[test]
fn transcripts_come_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 5, "the transcripts are gone");
    let failures: Vec<String> = files.iter().filter_map(|file| play(file).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn play(file: &Path) -> Result<(), String> {
    let text = fs::read_to_string(file).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let start = at;
        at += 1;
        if let Some(name) = line.strip_prefix("%write ") {
            let body: Vec<&str> = lines[at..].iter().map_while(|l| l.strip_prefix('|')).collect();
            at += body.len();
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, body.join("\n") + "\n").unwrap();
        } else if let Some(rest) = line.strip_prefix("%mode ") {
            let (name, mode) = rest.split_once(' ').unwrap();
            let mode = fs::Permissions::from_mode(u32::from_str_radix(mode, 8).unwrap());
            fs::set_permissions(folder.path().join(name), mode).unwrap();
        } else if let Some(name) = line.strip_prefix("%remove ") {
            fs::remove_file(folder.path().join(name)).unwrap();
        } else if let Some(typed) = line.strip_prefix("$ castra") {
            let answer = |l: &&&str| !l.starts_with(['$', '%', '#']);
            let expected: Vec<&str> = lines[at..].iter().take_while(answer).copied().collect();
            at += expected.len();
            let got = castra(folder.path(), typed);
            if !fits(&expected, &got) {
                let place = format!("{}:{}", file.display(), start + 1);
                return Err(format!(
                    "{place}: {line}\nexpected:\n{}\ngot:\n{}",
                    expected.join("\n"),
                    got.join("\n")
                ));
            }
        } else if !line.is_empty() && !line.starts_with('#') {
            return Err(format!("{}:{}: what is {line:?}?", file.display(), start + 1));
        }
    }
    Ok(())
}

/// Runs the program; its lines, with the exit code last if it is not 0.
fn castra(folder: &Path, typed: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_castra"))
        .args(words(typed))
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let mut lines: Vec<String> = Vec::new();
    for stream in [output.stdout, output.stderr] {
        let text = String::from_utf8(stream).unwrap();
        lines.extend(text.lines().map(|line| line.trim_end().to_owned()));
    }
    match output.status.code() {
        Some(0) => {}
        code => lines.push(format!("[exit {}]", code.map_or("by signal".into(), |c| c.to_string()))),
    }
    lines
}

fn words(typed: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (i, part) in typed.split('\'').enumerate() {
        if i % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

fn fits(expected: &[&str], got: &[String]) -> bool {
    // Empty lines at the end only set commands apart.
    let end = expected.iter().rposition(|l| !l.is_empty()).map_or(0, |last| last + 1);
    lines_fit(&expected[..end], got)
}

fn lines_fit(expected: &[&str], got: &[String]) -> bool {
    match expected {
        [] => got.is_empty(),
        ["...", rest @ ..] => (0..=got.len()).any(|skipped| lines_fit(rest, &got[skipped..])),
        [first, rest @ ..] => {
            got.first().is_some_and(|line| line_fits(first, line)) && lines_fit(rest, &got[1..])
        }
    }
}

fn line_fits(expected: &str, got: &str) -> bool {
    let mut parts = expected.trim_end().split('…');
    let Some(mut rest) = got.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(found) = rest.find(part) else { return false };
        rest = &rest[found + part.len()..];
    }
    rest.ends_with(last)
}
