//! What a connection is doing, told by the bytes, requests and bodies that pass.
//!
//! This is what idle and slow connections are judged by (`connection.rs`). The path of a request
//! only touches three atomics that nobody else touches at the time, and no clock.

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, service::Service};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::body::Gathered;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The head of a request is expected or has begun.
    Head,
    /// A request is being answered.
    Busy,
    /// Nothing since the last answer.
    Idle,
    /// The peer does not take what we write.
    Stalled,
}

/// Shared by the socket, the service and the bodies of one connection.
#[derive(Default)]
pub(super) struct Pace {
    in_flight: AtomicUsize,
    begun: AtomicU64,
    head_begun: AtomicBool,
    stalled: AtomicBool,
}

impl Pace {
    pub(super) fn phase(&self) -> Phase {
        if self.stalled.load(Relaxed) {
            Phase::Stalled
        } else if self.in_flight.load(Relaxed) > 0 {
            Phase::Busy
        } else if self.head_begun.load(Relaxed) || self.begun() == 0 {
            Phase::Head
        } else {
            Phase::Idle
        }
    }

    /// Requests that have begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Relaxed)
    }

    fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        self.begun.fetch_add(1, Relaxed);
        self.head_begun.store(false, Relaxed);
        InFlight(self.clone())
    }
}

/// A request that is not answered to the end yet.
struct InFlight(Arc<Pace>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// The service of one connection, with its requests counted until their answers' bodies are done,
/// and with bodies gathered.
pub(super) struct Counted<S> {
    inner: S,
    pace: Arc<Pace>,
}

impl<S> Counted<S> {
    pub(super) fn new(inner: S, pace: Arc<Pace>) -> Self {
        Self { inner, pace }
    }
}

impl<S, B> Service<Request<Incoming>> for Counted<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body<Data = Bytes>,
{
    type Response = Response<CountedBody<B>>;
    type Error = Infallible;
    type Future = CountedFuture<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        CountedFuture { in_flight: Some(self.pace.begin()), inner: self.inner.call(request) }
    }
}

pin_project! {
    pub(super) struct CountedFuture<F> {
        #[pin]
        inner: F,
        in_flight: Option<InFlight>,
    }
}

impl<F, B> Future for CountedFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<CountedBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(response) = ready!(this.inner.poll(cx));
        let in_flight = this.in_flight.take();
        let counted = |body| CountedBody { inner: Gathered::new(body), _in_flight: in_flight };
        Poll::Ready(Ok(response.map(counted)))
    }
}

pin_project! {
    pub(super) struct CountedBody<B: Body> {
        #[pin]
        inner: Gathered<B>,
        _in_flight: Option<InFlight>,
    }
}

impl<B: Body<Data = Bytes>> Body for CountedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A socket that tells its pace.
pub(super) struct Paced<T> {
    inner: T,
    pace: Arc<Pace>,
    // HTTP/2 sends frames between requests (pings, windows), which are not the head of one.
    heads: bool,
}

impl<T> Paced<T> {
    pub(super) fn new(inner: T, pace: Arc<Pace>, heads: bool) -> Self {
        Self { inner, pace, heads }
    }

    /// TLS takes bytes that the socket did not take yet, so flushing tells too.
    fn wrote<R>(&self, result: Poll<R>) -> Poll<R> {
        if result.is_pending() != self.pace.stalled.load(Relaxed) {
            self.pace.stalled.store(result.is_pending(), Relaxed);
        }
        result
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Paced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if self.heads && buf.filled().len() > before && self.pace.in_flight.load(Relaxed) == 0 {
            self.pace.head_begun.store(true, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Paced<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.wrote(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(result)
    }
}
