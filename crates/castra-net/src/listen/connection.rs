//! Drives one connection to its end: until the peer is done, it is too slow or idle for too long,
//! or the listener drains.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use castra_core::Limits;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    drain::{Drain, Stage},
    pace::{Pace, Phase},
};

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The peer or HTTP was done with it.
    Done,
    /// The peer went away in the middle of something.
    Broken,
    /// What came is not HTTP, and why.
    Malformed(String),
    /// More bytes of head than allowed.
    LargeHead,
    /// No whole head in time.
    SlowHead,
    /// No request for too long.
    Idle,
    /// The peer did not take what we wrote for too long.
    Stalled,
    /// Cut off at the end of a drain.
    Aborted,
}

impl End {
    fn of(error: &hyper::Error) -> Self {
        if error.is_parse_too_large() {
            Self::LargeHead
        } else if error.is_parse() {
            Self::Malformed(error.to_string())
        } else {
            Self::Broken
        }
    }
}

/// Polls `connection`, an HTTP connection of hyper, and ends it when it must end. `finish` asks it
/// to answer what it has and then close.
pub(super) async fn drive<C>(
    connection: C,
    finish: impl Fn(Pin<&mut C>),
    pace: &Pace,
    limits: &Limits,
    drain: &Arc<Drain>,
) -> End
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    let mut watch = Watch::new(limits);
    let mut draining = drain.wait();
    poll_fn(|cx| {
        match draining.changed(cx) {
            None => {}
            Some(Stage::Abort) => return Poll::Ready(End::Aborted),
            Some(_) => finish(connection.as_mut()),
        }
        match connection.as_mut().poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(End::Done),
            Poll::Ready(Err(error)) => Poll::Ready(End::of(&error)),
            Poll::Pending => watch.check(pace, cx),
        }
    })
    .await
}

/// Watches the pace of one connection with one timer. The timer is only touched when it fires or
/// a head stays incomplete, so a request costs one look at the clock and no timer.
struct Watch {
    timer: Pin<Box<Sleep>>,
    armed: bool,
    phase: Phase,
    since: Instant,
    begun: u64,
    head_time_max: Duration,
    idle_time_max: Duration,
}

impl Watch {
    fn new(limits: &Limits) -> Self {
        let (head_time_max, idle_time_max) = (limits.head_time_max, limits.idle_time_max);
        let since = Instant::now();
        let timer = Box::pin(sleep_until(since + head_time_max));
        Self { timer, armed: false, phase: Phase::Head, since, begun: 0, head_time_max, idle_time_max }
    }

    fn check(&mut self, pace: &Pace, cx: &mut Context<'_>) -> Poll<End> {
        self.follow(pace);
        let due = self.due();
        if self.timer.is_elapsed() {
            let now = Instant::now();
            match due {
                Some((at, end)) if at <= now => return Poll::Ready(end),
                Some((at, _)) => self.arm(at),
                None => self.arm(now + self.idle_time_max),
            }
        } else if let Some((at, _)) = due.filter(|(at, _)| *at < self.timer.deadline()) {
            self.arm(at);
        }
        if !self.armed {
            self.armed = true;
            // Outside of tokio's budget, since a poll that the budget cuts short would register nothing.
            let timer = tokio::task::unconstrained(self.timer.as_mut());
            if pin!(timer).poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn follow(&mut self, pace: &Pace) {
        let (phase, begun) = (pace.phase(), pace.begun());
        if phase != self.phase || begun != self.begun {
            (self.phase, self.begun) = (phase, begun);
            if phase != Phase::Busy {
                self.since = Instant::now();
            }
        }
    }

    fn due(&self) -> Option<(Instant, End)> {
        match self.phase {
            Phase::Busy => None,
            Phase::Head => Some((self.since + self.head_time_max, End::SlowHead)),
            Phase::Idle => Some((self.since + self.idle_time_max, End::Idle)),
            Phase::Stalled => Some((self.since + self.idle_time_max, End::Stalled)),
        }
    }

    fn arm(&mut self, at: Instant) {
        self.timer.as_mut().reset(at);
        self.armed = false;
    }
}
