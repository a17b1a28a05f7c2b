//! The program under test: built once per run, started and stopped as a user would.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{chores, run, tally::Tally};

/// A gate answers within a second; a loaded machine may need many.
const PATIENCE: Duration = Duration::from_secs(60);

/// The dev build of `castra`, made if it is not there or not fresh.
pub(crate) fn built() -> Result<PathBuf, String> {
    let out = run::echoed(&mut run::cargo(&["build", "--package", "castra"]))?;
    if out.success { Ok(chores::target().join("debug/castra")) } else { Err("castra does not build".into()) }
}

/// A gate that serves; stopped when dropped.
pub(crate) struct Gate {
    child: Child,
    /// The gate's base address, such as `http://127.0.0.1:40123`.
    pub(crate) url: String,
    /// An agent's bearer token.
    pub(crate) token: String,
    /// The program, for further commands.
    pub(crate) program: PathBuf,
    /// Its configuration file.
    pub(crate) config: PathBuf,
}

/// Makes `folder` anew with this configuration and an agent `judge`, and starts the gate there.
///
/// `servers` are the `[[server]]` tables; everything else is set here: ports are chosen by the
/// system, and `policy` is the one policy file.
pub(crate) fn gate(program: &Path, folder: &Path, servers: &str, policy: &str) -> Result<Gate, String> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)
            .map_err(|e| format!("{} cannot be emptied: {e}", folder.display()))?;
    }
    let policies = folder.join("policies");
    std::fs::create_dir_all(&policies).map_err(|e| format!("{} cannot be made: {e}", policies.display()))?;
    let config = folder.join("castra.toml");
    let text = format!(
        "[gate]\nlisten = \"127.0.0.1:0\"\n[console]\nlisten = \"127.0.0.1:0\"\n\
         [state]\ndir = {state:?}\n[policy]\ndir = {policies:?}\n{servers}\n",
        state = folder.join("state"),
    );
    for (path, text) in [(config.clone(), text.as_str()), (policies.join("judge.cedar"), policy)] {
        std::fs::write(&path, text).map_err(|e| format!("{} cannot be written: {e}", path.display()))?;
    }
    let added =
        run::must(Command::new(program).args(["agent", "add", "judge", "--json", "--config"]).arg(&config))?;
    let token = json_text(&added, "token")?;
    let (child, line) = started(program, &config, folder)?;
    // Made before the line is read, so that a wrong line still stops the child.
    let mut gate = Gate { child, url: String::new(), token, program: program.into(), config };
    gate.url = json_text(&line, "gate")?;
    Ok(gate)
}

fn started(program: &Path, config: &Path, folder: &Path) -> Result<(Child, String), String> {
    let log = folder.join("gate.log");
    let errors =
        std::fs::File::create(&log).map_err(|e| format!("{} cannot be written: {e}", log.display()))?;
    let mut child = Command::new(program)
        .args(["up", "--json", "--config"])
        .arg(config)
        // What model routes send; nobody behind them is real.
        .env("CASTRA_JUDGE_KEY", "judge")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .map_err(|e| format!("{} did not start: {e}", program.display()))?;
    match child.stdout.take().and_then(first_line) {
        Some(line) => Ok((child, line)),
        None => {
            stop(&mut child);
            Err(format!("castra up printed no line; its words: {}", chores::read(&log).unwrap_or_default()))
        }
    }
}

/// The first line within [`PATIENCE`]; what follows is read and dropped, so that the writer never blocks.
pub(crate) fn first_line(stream: impl Read + Send + 'static) -> Option<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    receive.recv_timeout(PATIENCE).ok()
}

/// A text member of a JSON object.
pub(crate) fn json_text(json: &str, key: &str) -> Result<String, String> {
    let value: serde_json::Value =
        serde_json::from_str(json.trim()).map_err(|e| format!("expected JSON, found {json:?}: {e}"))?;
    value.get(key).and_then(|v| v.as_str()).map(str::to_owned).ok_or(format!("no text {key:?} in {json}"))
}

impl Gate {
    /// Stops the gate and checks what it recorded: whatever a judge did, the log must hold.
    pub(crate) fn log_holds(mut self) -> Tally {
        stop(&mut self.child);
        let log = self.config.with_file_name("state").join("log");
        let verified = run::must(
            Command::new(&self.program).args(["log", "verify"]).arg(log).arg("--config").arg(&self.config),
        );
        Tally::check(verified.err().map(|why| format!("the log afterwards: {why}")))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// Asks a child to end, and ends it if it does not.
pub(crate) fn stop(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended by itself; then the wait below says so.
        let _ = kill_process(pid, Signal::TERM);
    }
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}
