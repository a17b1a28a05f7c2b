//! A bounded queue of messages between the one reader of a child and the many who wait for it.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Incoming, UpstreamError};

/// Messages that may wait. A burst of progress passes; a flood does not.
pub(super) const WAITING_MAX: usize = 1024;

type Item = Result<Incoming, UpstreamError>;

/// The queue of one exchange, or of what belongs to none.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Notify,
    emptied: Notify,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    /// No more comes; what waits is still given out.
    closed: bool,
}

impl Queue {
    /// A queue whose messages together have at most `bytes_max` bytes (one message may have more).
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::default(), filled: Notify::new(), emptied: Notify::new(), bytes_max }
    }

    /// Adds a message if there is room, else gives it back. Into a closed queue it vanishes.
    pub(super) fn push(&self, message: Incoming) -> Result<(), Incoming> {
        let mut state = self.state.lock();
        if state.closed {
            return Ok(());
        }
        let size = message.bytes().len();
        let room = state.items.len() < WAITING_MAX && state.bytes + size <= self.bytes_max;
        if !room && !state.items.is_empty() {
            return Err(message);
        }
        state.bytes += size;
        state.items.push_back(Ok(message));
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Adds the last item, room or not, and closes the queue.
    pub(super) fn finish(&self, last: Option<Item>) {
        let mut state = self.state.lock();
        if !state.closed {
            state.bytes += last.as_ref().map_or(0, size);
            state.items.extend(last);
            state.closed = true;
        }
        drop(state);
        self.filled.notify_one();
        self.emptied.notify_one();
    }

    /// Closes the queue and forgets what waits in it.
    pub(super) fn discard(&self) {
        let mut state = self.state.lock();
        *state = State { closed: true, ..State::default() };
        drop(state);
        self.filled.notify_one();
        self.emptied.notify_one();
    }

    /// Waits until something was taken, or the queue closed, since the last wait.
    pub(super) async fn emptied(&self) {
        self.emptied.notified().await;
    }

    /// The next message; none once closed and empty. One waiter at a time.
    pub(super) async fn pop(&self) -> Option<Item> {
        loop {
            if let Some(item) = self.try_pop() {
                return Some(item);
            }
            if self.is_over() {
                return None;
            }
            self.filled.notified().await;
        }
    }

    pub(super) fn try_pop(&self) -> Option<Item> {
        let mut state = self.state.lock();
        let item = state.items.pop_front()?;
        state.bytes -= size(&item);
        drop(state);
        self.emptied.notify_one();
        Some(item)
    }

    /// Whether it is closed and empty.
    pub(super) fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.closed && state.items.is_empty()
    }

    /// Whether nothing more comes in.
    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }
}

fn size(item: &Item) -> usize {
    item.as_ref().map_or(0, |message| message.bytes().len())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(size: usize) -> Incoming {
        Incoming::Notification(Bytes::from(vec![b'x'; size]))
    }

    #[tokio::test]
    async fn count_and_bytes_are_bounded_and_the_last_item_always_fits() {
        let queue = Queue::new(10);
        queue.push(message(20)).expect("one alone may be larger");
        queue.push(message(1)).expect_err("no room");
        queue.pop().await.unwrap().unwrap();
        for _ in 0..10 {
            queue.push(message(1)).unwrap();
        }
        queue.push(message(1)).expect_err("no room");
        queue.finish(Some(Ok(message(30))));
        queue.push(message(1)).expect("vanishes");
        for _ in 0..10 {
            queue.pop().await.unwrap().unwrap();
        }
        assert_eq!(queue.pop().await.unwrap().unwrap(), message(30));
        assert!(queue.pop().await.is_none() && queue.is_over());

        let queue = Queue::new(usize::MAX);
        for _ in 0..WAITING_MAX {
            queue.push(message(0)).unwrap();
        }
        queue.push(message(0)).expect_err("no room");
    }
}
