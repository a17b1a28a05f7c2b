//! The `castra` program, as a user runs it from a shell.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::DemoError;

/// A gate starts within a second; a busy machine may need many.
const START_TIME_MAX: Duration = Duration::from_secs(30);
/// A gate that was asked to stop gets this long for its calls in flight.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// The program and the configuration that every command is given.
pub(crate) struct Castra {
    program: PathBuf,
    folder: PathBuf,
}

impl Castra {
    pub(crate) fn new(program: &Path, folder: &Path) -> Self {
        Self { program: program.into(), folder: folder.into() }
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("castra.toml")
    }

    /// Runs a command to its end and gives what it printed.
    pub(crate) async fn run(&self, args: &[&str]) -> Result<String, DemoError> {
        let command = shown(args);
        let started = self.command(args).output().await;
        let output = started.map_err(|source| DemoError::Start { command: command.clone(), source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let words = [output.stdout, output.stderr].concat();
        Err(DemoError::Command { command, words: String::from_utf8_lossy(&words).trim().to_owned() })
    }

    /// Runs a command with `--json` and gives what it printed.
    pub(crate) async fn json(&self, args: &[&str]) -> Result<Value, DemoError> {
        let args = [args, &["--json"]].concat();
        let text = self.run(&args).await?;
        serde_json::from_str(text.trim()).map_err(|_| DemoError::Words { command: shown(&args), words: text })
    }

    /// Starts the gate and waits until it serves.
    pub(crate) async fn up(&self) -> Result<Gate, DemoError> {
        let args = ["up", "--json"];
        let log = self.folder.join("gate.log");
        let errors = std::fs::File::create(&log).map_err(DemoError::file(&log))?;
        let mut child = self
            .command(&args)
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| DemoError::Start { command: shown(&args), source })?;
        let line = match child.stdout.take() {
            Some(stdout) => {
                let mut lines = BufReader::new(stdout).lines();
                tokio::time::timeout(START_TIME_MAX, lines.next_line()).await
            }
            None => Ok(Ok(None)),
        };
        let failed = |words: String| DemoError::Command { command: shown(&args), words };
        let Ok(Ok(Some(line))) = line else {
            return Err(failed(std::fs::read_to_string(&log).unwrap_or_default()));
        };
        let url = text_member(&line, "gate").ok_or_else(|| failed(line.clone()))?;
        Ok(Gate { child, url })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).arg("--config").arg(self.config()).stdin(Stdio::null()).current_dir(&self.folder);
        command
    }
}

/// A gate that serves; killed if the demo ends early.
pub(crate) struct Gate {
    child: Child,
    /// Its base address, such as `http://127.0.0.1:40123`.
    pub(crate) url: String,
}

impl Gate {
    /// Asks the gate to stop as `systemd` would, and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<(), DemoError> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        // No pid, or nobody by it: the gate has ended already, and waiting says how.
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        match tokio::time::timeout(STOP_TIME_MAX, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            ended => Err(DemoError::Command {
                command: "castra up".into(),
                words: format!("it did not stop cleanly: {ended:?}"),
            }),
        }
    }
}

/// A text member of a JSON object.
pub(crate) fn text_member(json: &str, key: &str) -> Option<String> {
    serde_json::from_str::<Value>(json).ok()?.get(key)?.as_str().map(str::to_owned)
}

/// The command as the demo shows it.
fn shown(args: &[&str]) -> String {
    std::iter::once("castra").chain(args.iter().copied()).collect::<Vec<_>>().join(" ")
}
