//! A supervised child process that speaks lines on its standard streams.
//!
//! A child leads a process group of its own, sees only the environment it is given and a small base,
//! and never outlives its handle: whoever drops [`Child`] kills the whole group, and a task reaps
//! it. Standard error goes to the log, line by line, with bounded length and rate and with the
//! child's own secrets blanked. When to start a child again is the business of the caller.
//!
//! What this cannot promise without unsafe code: `PR_SET_PDEATHSIG` has to be set between fork and
//! exec, so when the gate itself is killed with SIGKILL a child learns of it only by the end of its
//! standard input. A process that leaves the group with `setsid` escapes the group's signals.

mod lines;
mod stderr;
mod supervise;

use std::{
    ffi::OsString,
    fmt, io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use castra_core::ServerName;
use tokio::{
    io::{AsyncWriteExt, BufWriter},
    process::{ChildStdin, Command},
    sync::{mpsc, watch},
};

pub use lines::Lines;

use crate::Secret;
use supervise::{Order, Supervisor};

/// What is started, for whom.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    /// The server that it is, for the log.
    pub name: ServerName,
    /// The program: a path, or a name that is looked up in `PATH`.
    pub command: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its environment, besides the base of [`BASE_ENVIRONMENT`].
    pub env: Vec<(String, Secret)>,
    /// Its working folder; none is the gate's own.
    pub cwd: Option<PathBuf>,
}

/// The bounds of one child.
#[derive(Debug, Clone, Copy)]
pub struct ChildLimits {
    /// Longest line of standard output, in bytes. A longer one kills the child.
    pub line_bytes_max: usize,
    /// Lines that wait for the child to read them; beyond it [`Reins::send`] waits.
    pub stdin_queue_max: usize,
    /// [`Reins::stop`] waits this long after closing standard input, and again after SIGTERM.
    pub stop_time_max: Duration,
}

/// The variables of the gate's own environment that every child gets: where programs and homes are,
/// and how to write text and times. Nothing that is likely to hold a secret.
pub const BASE_ENVIRONMENT: [&str; 9] =
    ["HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER"];

/// Why a child could not be started or used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChildError {
    /// The operating system would not start it.
    #[error("{command:?} could not be started: {source}")]
    NotStarted {
        /// The program as configured.
        command: OsString,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A line of its output had no end within the limit; it was killed.
    #[error("it wrote a line of more than {max} bytes and was killed")]
    LineTooLong {
        /// The limit in bytes.
        max: usize,
    },
    /// Its output could not be read.
    #[error("its output could not be read: {0}")]
    Output(Arc<io::Error>),
    /// It does not take input any more: it ended, closed its standard input, or was stopped.
    #[error("it takes no more input")]
    InputClosed,
    /// A line that holds a line break would be two lines to the child.
    #[error("a line must not hold a line break")]
    BrokenLine,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// The system would not say.
    Unknown,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("an unknown status"),
        }
    }
}

/// The handle of a running child. Dropping it kills the child and all of its group.
#[derive(Debug)]
pub struct Child(Reins);

/// What can be done with a running child; cloned freely, and unlike [`Child`] dropped without effect.
#[derive(Debug, Clone)]
pub struct Reins {
    pid: u32,
    input: mpsc::Sender<Bytes>,
    orders: watch::Sender<Order>,
    exit: watch::Receiver<Option<Exit>>,
}

/// Starts a child; must be called within a tokio runtime.
pub fn start(spec: &ChildSpec, limits: ChildLimits) -> Result<(Child, Lines), ChildError> {
    let failed = |source| ChildError::NotStarted { command: spec.command.clone(), source: Arc::new(source) };
    let mut process = command(spec).spawn().map_err(failed)?;
    let piped = || failed(io::Error::other("a standard stream is not piped"));
    let stdin = process.stdin.take().ok_or_else(piped)?;
    let stdout = process.stdout.take().ok_or_else(piped)?;
    let stderr = process.stderr.take().ok_or_else(piped)?;
    let pid = process.id().ok_or_else(piped)?;

    let (orders, orders_in) = watch::channel(Order::Run);
    let (exit_out, exit) = watch::channel(None);
    let (input, input_queue) = mpsc::channel(limits.stdin_queue_max.max(1));
    let supervisor = Supervisor::new(process, pid, limits.stop_time_max).map_err(failed)?;
    tokio::spawn(supervisor.run(orders_in.clone(), exit_out));
    tokio::spawn(write(stdin, input_queue, orders_in));
    let secrets = spec.env.iter().map(|(_, secret)| secret.clone()).collect();
    tokio::spawn(stderr::log(stderr, spec.name.clone(), pid, secrets, exit.clone()));

    let lines = Lines::new(stdout, limits.line_bytes_max, exit.clone(), orders.clone());
    Ok((Child(Reins { pid, input, orders, exit }), lines))
}

fn command(spec: &ChildSpec) -> Command {
    let mut command = Command::new(&spec.command);
    command.args(&spec.args).env_clear();
    for name in BASE_ENVIRONMENT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    for (name, value) in &spec.env {
        command.env(name, value.expose());
    }
    if let Some(cwd) = &spec.cwd {
        command.current_dir(cwd);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    command
}

impl std::ops::Deref for Child {
    type Target = Reins;

    fn deref(&self) -> &Reins {
        &self.0
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Reins {
    /// The process id, which is also the id of its group.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Queues one line (given without its line break) for standard input; waits while the queue is
    /// full. Safe to cancel: a line is queued wholly or not at all. That it is queued does not mean
    /// that the child will read it.
    pub async fn send(&self, line: Bytes) -> Result<(), ChildError> {
        check_line(&line)?;
        self.input.send(line).await.map_err(|_| ChildError::InputClosed)
    }

    /// Queues one line if there is room; false when there is none.
    pub fn try_send(&self, line: Bytes) -> Result<bool, ChildError> {
        check_line(&line)?;
        match self.input.try_send(line) {
            Ok(()) => Ok(true),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(false),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(ChildError::InputClosed),
        }
    }

    /// Ends it in good order: what is queued is written and standard input closed, then SIGTERM,
    /// then SIGKILL to its whole group, each after [`ChildLimits::stop_time_max`]. Returns once it
    /// is reaped.
    pub async fn stop(&self) -> Exit {
        self.orders.send_if_modified(|order| order.raise(Order::Stop));
        self.exited().await
    }

    /// Kills the whole group at once.
    pub fn kill(&self) {
        self.orders.send_if_modified(|order| order.raise(Order::Kill));
    }

    /// How it ended, if it has ended and is reaped.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits until it has ended and is reaped.
    pub async fn exited(&self) -> Exit {
        exited(&mut self.exit.clone()).await
    }
}

fn check_line(line: &[u8]) -> Result<(), ChildError> {
    if memchr::memchr(b'\n', line).is_some() { Err(ChildError::BrokenLine) } else { Ok(()) }
}

/// Waits for the end. When the supervisor itself is gone (the runtime goes down), that is an end too.
async fn exited(exit: &mut watch::Receiver<Option<Exit>>) -> Exit {
    match exit.wait_for(Option::is_some).await {
        Ok(exit) => exit.unwrap_or(Exit::Unknown),
        Err(_) => Exit::Unknown,
    }
}

/// Writes queued lines until the queue is closed, the child stops reading, or an order to end comes.
/// Dropping `stdin` at the end is what tells the child to go.
async fn write(stdin: ChildStdin, mut queue: mpsc::Receiver<Bytes>, mut orders: watch::Receiver<Order>) {
    let mut stdin = BufWriter::with_capacity(16 << 10, stdin);
    loop {
        let line = tokio::select! {
            biased;
            line = queue.recv() => line,
            _ = orders.wait_for(|order| *order != Order::Run) => None,
        };
        let Some(line) = line else { return };
        let written = tokio::select! {
            written = write_line(&mut stdin, &line, queue.is_empty()) => written,
            _ = orders.wait_for(|order| *order == Order::Kill) => return,
        };
        if written.is_err() {
            return;
        }
    }
}

async fn write_line(stdin: &mut BufWriter<ChildStdin>, line: &[u8], flush: bool) -> io::Result<()> {
    stdin.write_all(line).await?;
    stdin.write_all(b"\n").await?;
    if flush { stdin.flush().await } else { Ok(()) }
}
