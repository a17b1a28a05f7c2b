//! The order to finish, given once to all connections of a listener.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use tokio::sync::{Notify, futures::OwnedNotified};

/// How far a listener is with going down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It serves.
    Serve = 0,
    /// Nothing new; what is in flight may finish.
    Finish = 1,
    /// What is still there is cut off.
    Abort = 2,
}

/// Shared by a listener and its connections.
#[derive(Default)]
pub(super) struct Drain {
    stage: AtomicU8,
    moved: Arc<Notify>,
}

impl Drain {
    pub(super) fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::SeqCst);
        self.moved.notify_waiters();
    }

    pub(super) fn wait(self: &Arc<Self>) -> Waiting {
        Waiting { drain: self.clone(), seen: Stage::Serve, signal: None }
    }

    fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Serve,
            1 => Stage::Finish,
            _ => Stage::Abort,
        }
    }
}

/// One connection's ear for the order. Looking costs one load while nothing has changed.
pub(super) struct Waiting {
    drain: Arc<Drain>,
    seen: Stage,
    signal: Option<Pin<Box<OwnedNotified>>>,
}

impl Waiting {
    /// The new stage if there is one; otherwise the task is woken when there is. It must always be
    /// polled from the same task.
    pub(super) fn changed(&mut self, cx: &mut Context<'_>) -> Option<Stage> {
        if self.signal.is_none() {
            self.listen(cx);
        }
        let stage = self.drain.stage();
        if stage == self.seen {
            return None;
        }
        self.seen = stage;
        self.listen(cx);
        // The stage may have moved on before we listened again.
        self.seen = self.drain.stage();
        Some(self.seen)
    }

    /// Resolves when the listener no longer serves.
    pub(super) async fn ended(&mut self) {
        std::future::poll_fn(|cx| if self.changed(cx).is_some() { Poll::Ready(()) } else { Poll::Pending })
            .await;
    }

    fn listen(&mut self, cx: &mut Context<'_>) {
        let mut signal = Box::pin(self.drain.moved.clone().notified_owned());
        if signal.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        self.signal = Some(signal);
    }
}
