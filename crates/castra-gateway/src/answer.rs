//! Step 9, answer: the body types and small responses of the gate.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use castra_core::{Refusal, RefusalCode, Step};
use castra_net::body::BodyError;
use futures_util::{Stream, StreamExt};
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use http_body::{Body, Frame, SizeHint};

/// The header that carries a receipt.
pub(crate) const RECEIPT: &str = "castra-receipt";

/// The header that says how an answer was inspected.
pub(crate) const INSPECTION: &str = "castra-inspection";

/// The body of an answer: whole, or events as they come.
pub enum AnswerBody {
    /// All there; `None` once it was taken.
    Whole(Option<Bytes>),
    /// A stream of whole server-sent events; each item is what was ready at once, so one write.
    Events(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => {
                Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b))))
            }
            Self::Events(events) => events.as_mut().poll_next(cx).map(|b| b.map(|b| Ok(Frame::data(b)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None)) || matches!(self, Self::Whole(Some(b)) if b.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Whole(None));
    *response.status_mut() = status;
    response
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Whole(Some(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer of server-sent events.
pub(crate) fn events(stream: impl Stream<Item = Bytes> + Send + 'static) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Events(Box::pin(stream)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Keeps something for as long as the answer is being sent.
pub(crate) fn holding<T: Send + 'static>(response: Response<AnswerBody>, held: T) -> Response<AnswerBody> {
    response.map(|body| match body {
        AnswerBody::Whole(bytes) => AnswerBody::Whole(bytes),
        AnswerBody::Events(events) => AnswerBody::Events(Box::pin(events.inspect(move |_| {
            let _ = &held;
        }))),
    })
}

/// Tells when a refused call may pass: `Retry-After` (RFC 9110, section 10.2.3) where the status is 429.
pub(crate) fn retry_header(response: Response<AnswerBody>, refusal: &Refusal) -> Response<AnswerBody> {
    match refusal.retry_secs() {
        Some(secs) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
            with_header(response, "retry-after", &secs.to_string())
        }
        _ => response,
    }
}

/// Adds a header whose value the gate made; a value that no header can hold is left out.
pub(crate) fn with_header(
    mut response: Response<AnswerBody>,
    name: &'static str,
    value: &str,
) -> Response<AnswerBody> {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// How a body that could not be read is refused.
pub(crate) fn body_refusal(error: &BodyError) -> (StatusCode, Refusal) {
    let (status, code, advice) = match error {
        BodyError::TooLarge { .. } => (
            StatusCode::PAYLOAD_TOO_LARGE,
            RefusalCode::LimitReached,
            "Send less, or raise limits.body_bytes_max",
        ),
        BodyError::TooSlow { .. } => {
            (StatusCode::REQUEST_TIMEOUT, RefusalCode::LimitReached, "Send the body faster")
        }
        BodyError::Broken { .. } => (StatusCode::BAD_REQUEST, RefusalCode::Malformed, ""),
    };
    (status, Refusal::new(Step::Listen, code, error.to_string()).advise(advice))
}
