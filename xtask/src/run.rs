//! Running other programs: echoed and captured, with errors that name the command.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    process::{Command, Stdio},
    thread,
};

/// A finished command.
pub(crate) struct Output {
    /// Whether it ended with 0.
    pub(crate) success: bool,
    /// What it wrote to both streams, in the order of arrival per stream.
    pub(crate) text: String,
}

/// A cargo command in the workspace, by the same cargo that runs this chore.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(crate::chores::root());
    // Set by the cargo that runs this chore, for this package only; a child must not inherit it.
    command.env_remove("CARGO_MANIFEST_DIR");
    command
}

/// Runs to the end, echoing line by line while keeping the text.
pub(crate) fn echoed(command: &mut Command) -> Result<Output, String> {
    let shown = shown(command);
    println!("$ {shown}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{shown} did not start: {e}"))?;
    let out = child.stdout.take().map(|s| thread::spawn(move || tee(s, &mut std::io::stdout())));
    let err = child.stderr.take().map(|s| thread::spawn(move || tee(s, &mut std::io::stderr())));
    let status = child.wait().map_err(|e| format!("{shown} was lost: {e}"))?;
    let text = [out, err].into_iter().flatten().filter_map(|t| t.join().ok()).collect();
    Ok(Output { success: status.success(), text })
}

/// Runs to the end in silence.
pub(crate) fn quiet(command: &mut Command) -> Result<Output, String> {
    let shown = shown(command);
    let out = command.stdin(Stdio::null()).output().map_err(|e| format!("{shown} did not start: {e}"))?;
    let mut text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&out.stderr));
    Ok(Output { success: out.status.success(), text })
}

/// Runs to the end in silence; Err with its words if it failed.
pub(crate) fn must(command: &mut Command) -> Result<String, String> {
    let out = quiet(command)?;
    if out.success {
        Ok(out.text)
    } else {
        Err(format!("{} failed:\n{}", shown(command), out.text.trim_end()))
    }
}

/// Whether a program of this name can be started.
pub(crate) fn exists(program: impl AsRef<OsStr>) -> bool {
    let probe = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    probe.is_ok_and(|out| out.status.success())
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn tee(source: impl Read, echo: &mut dyn Write) -> String {
    let mut text = String::new();
    let mut source = BufReader::new(source);
    let mut line = Vec::new();
    while source.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        // A closed terminal is no reason to stop the run.
        let _ = echo.write_all(&line);
        text.push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
    text
}
