//! The task that owns a child process: it carries out orders, sees the end, kills what is left of
//! the group and reaps the child.

use std::{io, time::Duration};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::{
    process::Child as Process,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::timeout,
};

use super::Exit;

/// What the child is to do; an order is never taken back, only raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    Run,
    Stop,
    Kill,
}

impl Order {
    /// Raises to `to`; false when it is already there.
    pub(super) fn raise(&mut self, to: Self) -> bool {
        let higher = to > *self;
        if higher {
            *self = to;
        }
        higher
    }
}

/// Owns the process until it is reaped. Dropped before that (the runtime goes down), it kills the
/// group; the process itself then falls to tokio's orphan queue or to init.
pub(super) struct Supervisor {
    process: Process,
    group: Group,
    children: tokio::signal::unix::Signal,
    stop_time_max: Duration,
}

impl Supervisor {
    pub(super) fn new(process: Process, pid: u32, stop_time_max: Duration) -> io::Result<Self> {
        let leader = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let leader = leader.ok_or_else(|| io::Error::other("the process has no id"))?;
        let group = Group { leader, live: true };
        Ok(Self { process, group, children: signal(SignalKind::child())?, stop_time_max })
    }

    pub(super) async fn run(mut self, mut orders: watch::Receiver<Order>, exit: watch::Sender<Option<Exit>>) {
        self.until_ended(&mut orders).await;
        // The leader is a zombie now, so its id, which is the group's, cannot have been given to
        // another process: this is the moment to kill whatever it left behind.
        self.group.kill();
        self.group.live = false;
        let status = self.process.wait().await;
        exit.send_replace(Some(status.map_or(Exit::Unknown, Exit::from)));
    }

    async fn until_ended(&mut self, orders: &mut watch::Receiver<Order>) {
        tokio::select! {
            () = self.ended() => return,
            () = order(orders, Order::Stop) => {}
        }
        // Standard input is closed by its writer on the same order.
        tokio::select! {
            () = self.asked_to_go() => {}
            () = order(orders, Order::Kill) => {}
        }
        self.group.kill();
        self.ended().await;
    }

    async fn asked_to_go(&mut self) {
        let patience = self.stop_time_max;
        if timeout(patience, self.ended()).await.is_err() {
            self.group.signal(Signal::TERM);
            let _ = timeout(patience, self.ended()).await;
        }
    }

    /// Waits until the process has ended, without reaping it. SIGCHLD tells that some child ended;
    /// which one is asked after each, and once before in case it came earlier.
    async fn ended(&mut self) {
        while self.group.leader_runs() {
            if self.children.recv().await.is_none() {
                return;
            }
        }
    }
}

/// Waits for an order of at least this weight. A handle that is gone is an order to kill.
async fn order(orders: &mut watch::Receiver<Order>, weight: Order) {
    let _ = orders.wait_for(|order| *order >= weight).await;
}

/// A process group whose leader is not yet reaped.
struct Group {
    leader: Pid,
    live: bool,
}

impl Group {
    fn leader_runs(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::Pid(self.leader), look), Ok(None))
    }

    fn signal(&self, signal: Signal) {
        // ESRCH: all of it is gone already.
        let _ = kill_process_group(self.leader, signal);
    }

    fn kill(&self) {
        self.signal(Signal::KILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.live {
            self.kill();
        }
    }
}
