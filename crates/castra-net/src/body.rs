//! Bodies: read whole within bounds, or gathered so that bursts of small events leave in few writes.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

/// Why a body could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More bytes than allowed.
    #[error("the body has more than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// Not all there in time.
    #[error("the body was not there within {} seconds", time_max.as_secs())]
    TooSlow {
        /// The limit.
        time_max: Duration,
    },
    /// The peer went away or broke its framing.
    #[error("the body ended early: {reason}")]
    Broken {
        /// What the HTTP layer said.
        reason: String,
    },
}

/// Reads a whole body of at most `bytes_max` bytes that must be there within `time_max`. A body
/// that came in one frame, which small ones do, is not copied, and no timer is set for it.
pub async fn read<B>(body: B, bytes_max: usize, time_max: Duration) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(BodyError::TooLarge { bytes_max });
    }
    let mut reading = pin!(read_frames(body, bytes_max));
    if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await {
        return done;
    }
    tokio::time::timeout(time_max, reading).await.unwrap_or(Err(BodyError::TooSlow { time_max }))
}

async fn read_frames<B>(body: B, bytes_max: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let mut body = pin!(body);
    let mut held = Held::default();
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let frame = frame.map_err(|e| BodyError::Broken { reason: e.to_string() })?;
        if let Ok(data) = frame.into_data() {
            held.push(data);
            if held.len() > bytes_max {
                return Err(BodyError::TooLarge { bytes_max });
            }
        }
    }
    Ok(held.take().unwrap_or_default())
}

/// Bytes put together, without a copy while there is only one piece.
#[derive(Default)]
struct Held {
    first: Option<Bytes>,
    joined: BytesMut,
}

impl Held {
    fn push(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        if self.joined.is_empty() {
            match self.first.take() {
                None => return self.first = Some(data),
                Some(first) => {
                    self.joined.reserve(first.len() + data.len());
                    self.joined.extend_from_slice(&first);
                }
            }
        }
        self.joined.extend_from_slice(&data);
    }

    fn len(&self) -> usize {
        self.first.as_ref().map_or(self.joined.len(), Bytes::len)
    }

    fn take(&mut self) -> Option<Bytes> {
        let joined = || Some(self.joined.split().freeze()).filter(|b| !b.is_empty());
        self.first.take().or_else(joined)
    }
}

pin_project! {
    /// A stream of small events whose frames are put together: what arrives until the scheduler has
    /// been round once without bringing more leaves as one frame, and so as one write. It costs a stream
    /// one turn of the scheduler, some microseconds, and saves a system call for each event of a burst.
    /// What comes first leaves at once: somebody waits for it.
    pub(crate) struct Gathered<B: Body> {
        #[pin]
        inner: B,
        held: Held,
        // Something has left.
        begun: bool,
        // The turn that held bytes wait for.
        turn: Option<Arc<Turn>>,
        // What ended the stream, while held bytes go out first.
        after: Option<After<B::Error>>,
    }
}

enum After<E> {
    End,
    Trailers(http::HeaderMap),
    Error(E),
}

/// One TLS record; beyond it gathering saves nothing.
const GATHERED_BYTES_MAX: usize = 16 << 10;

impl<B: Body<Data = Bytes>> Gathered<B> {
    /// Gathers the frames of `body`.
    pub(crate) fn new(body: B) -> Self {
        Self { inner: body, held: Held::default(), begun: false, turn: None, after: None }
    }
}

impl<B: Body<Data = Bytes>> Body for Gathered<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        while this.after.is_none() && this.held.len() < GATHERED_BYTES_MAX {
            match this.inner.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        this.held.push(data);
                        // hyper hands out one chunk of an upstream's burst a turn: while they come, they are waited for.
                        *this.turn = None;
                    }
                    Err(other) => *this.after = other.into_trailers().ok().map(After::Trailers),
                },
                Poll::Ready(Some(Err(error))) => *this.after = Some(After::Error(error)),
                Poll::Ready(None) => *this.after = Some(After::End),
                Poll::Pending if this.held.len() == 0 => return Poll::Pending,
                Poll::Pending if !*this.begun => break,
                Poll::Pending if this.turn.get_or_insert_with(Turn::begin).is_done(cx) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        *this.turn = None;
        if let Some(data) = this.held.take() {
            *this.begun = true;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        Poll::Ready(match this.after.replace(After::End) {
            Some(After::Trailers(map)) => Some(Ok(Frame::trailers(map))),
            Some(After::Error(error)) => Some(Err(error)),
            Some(After::End) | None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        let nothing_more = match self.after {
            None => self.inner.is_end_stream(),
            Some(After::End) => true,
            Some(After::Trailers(_) | After::Error(_)) => false,
        };
        nothing_more && self.held.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.held.len() == 0 { self.inner.size_hint() } else { SizeHint::default() }
    }
}

/// One turn of the scheduler: done when the tasks that were ready have run and the sockets were
/// looked at. Being polled again says nothing of that, for hyper polls a body several times over.
struct Turn {
    done: AtomicBool,
    task: AtomicWaker,
}

impl Turn {
    fn begin() -> Arc<Self> {
        let turn = Arc::new(Self { done: AtomicBool::new(false), task: AtomicWaker::new() });
        // tokio keeps the waker of a yield until the turn is over, and then wakes it.
        let waker = Waker::from(turn.clone());
        let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker));
        turn
    }

    fn is_done(&self, cx: &Context<'_>) -> bool {
        self.task.register(cx.waker());
        self.done.load(Ordering::Acquire)
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.done.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, task::ready};

    use http_body_util::{Full, StreamBody};
    use tokio::sync::mpsc;

    use super::*;

    type Item = Result<Frame<Bytes>, Infallible>;

    fn streamed(items: mpsc::Receiver<Item>) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let stream =
            futures_util::stream::unfold(items, async |mut items| Some((items.recv().await?, items)));
        StreamBody::new(Box::pin(stream))
    }

    fn data(text: &'static str) -> Item {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    async fn next_data<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Option<Result<Bytes, B::Error>> {
        poll_fn(|cx| {
            loop {
                match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                    None => return Poll::Ready(None),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Poll::Ready(Some(Ok(data)));
                        }
                    }
                }
            }
        })
        .await
    }

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn bodies_are_read_whole_within_bounds() {
        let body = || Full::new(Bytes::from_static(b"12345"));
        assert_eq!(read(body(), 5, SOON).await.unwrap(), "12345");
        assert_eq!(read(body(), 4, SOON).await, Err(BodyError::TooLarge { bytes_max: 4 }));
        assert_eq!(read(Full::new(Bytes::new()), 0, SOON).await.unwrap(), "");

        let (send, items) = mpsc::channel(8);
        for piece in ["12", "", "345"] {
            send.try_send(data(piece)).unwrap();
        }
        drop(send);
        assert_eq!(read(streamed(items), 5, SOON).await.unwrap(), "12345");

        let (send, items) = mpsc::channel(8);
        send.try_send(data("123")).unwrap();
        send.try_send(data("456")).unwrap();
        assert_eq!(read(streamed(items), 5, SOON).await, Err(BodyError::TooLarge { bytes_max: 5 }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_is_given_up() {
        let (send, items) = mpsc::channel(8);
        send.try_send(data("123")).unwrap();
        assert_eq!(read(streamed(items), 5, SOON).await, Err(BodyError::TooSlow { time_max: SOON }));
        drop(send);
    }

    #[tokio::test]
    async fn being_polled_again_is_no_turn() {
        let (send, items) = mpsc::channel(1);
        let mut gathered = Gathered::new(streamed(items));
        send.try_send(data("first")).unwrap();
        assert_eq!(next_data(&mut gathered).await.unwrap().unwrap(), "first");
        send.try_send(data("a")).unwrap();
        for _ in 0..3 {
            let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut gathered).poll_frame(cx))).await;
            assert!(polled.is_pending());
        }
        assert_eq!(next_data(&mut gathered).await.unwrap().unwrap(), "a");
    }

    /// The channel takes one frame at a time, as that of hyper's client does.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn bursts_leave_together() {
        let (send, items) = mpsc::channel(1);
        let writer = tokio::spawn(async move {
            for _ in 0..20 {
                send.send(data("event.")).await.unwrap();
            }
            send.send(Ok(Frame::trailers(http::HeaderMap::new()))).await.unwrap();
        });
        let reader = tokio::spawn(async move {
            let mut gathered = Gathered::new(streamed(items));
            let mut frames = Vec::new();
            while let Some(frame) = next_data(&mut gathered).await {
                frames.push(frame.unwrap());
            }
            assert!(gathered.is_end_stream() && next_data(&mut gathered).await.is_none());
            frames
        });
        let frames = reader.await.unwrap();
        assert_eq!(frames.concat(), "event.".repeat(20).as_bytes());
        assert!(frames.len() < 10, "{} frames", frames.len());
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn gathering_is_bounded() {
        let (send, items) = mpsc::channel(8);
        let piece = Bytes::from(vec![b'x'; 10 << 10]);
        for _ in 0..4 {
            send.try_send(Ok(Frame::data(piece.clone()))).unwrap();
        }
        drop(send);
        let mut gathered = Gathered::new(streamed(items));
        for _ in 0..2 {
            assert_eq!(next_data(&mut gathered).await.unwrap().unwrap().len(), 20 << 10);
        }
        assert!(next_data(&mut gathered).await.is_none());
    }
}
