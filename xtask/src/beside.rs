//! A program that stands beside the gate for a run: a mock, an agent, a rig's server. It is started on a
//! port of its own, waited for, and stopped when dropped.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{castra, chores};

/// On a loaded machine an interpreter takes a minute to import what it needs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running program.
pub(crate) struct Beside {
    child: Child,
}

impl Beside {
    /// Starts it and waits until it listens at all these ports of the loopback. What it says goes to
    /// `NAME.log` in the folder, and into the error if it does not come up.
    pub(crate) fn start(
        name: &str,
        command: &mut Command,
        folder: &Path,
        ports: &[u16],
    ) -> Result<Self, String> {
        let log: PathBuf = folder.join(format!("{name}.log"));
        let cannot = |e: std::io::Error| format!("{} cannot be written: {e}", log.display());
        let output = std::fs::File::create(&log).map_err(cannot)?;
        let errors = output.try_clone().map_err(cannot)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|e| format!("{name} did not start: {e}"))?;
        // Made before it is waited for, so that one that does not come up is stopped too.
        let beside = Self { child };
        let until = Instant::now() + PATIENCE;
        for port in ports {
            while std::net::TcpStream::connect(("127.0.0.1", *port)).is_err() {
                if Instant::now() > until {
                    return Err(format!(
                        "{name} does not listen: {}",
                        chores::read(&log).unwrap_or_default()
                    ));
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(beside)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        castra::stop(&mut self.child);
    }
}
