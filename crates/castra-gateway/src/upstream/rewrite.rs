//! Ids and progress tokens of callers that share a session. Each exchange gets a number of the
//! gate's own, which stands for its id, its progress token and its subscription, so that no caller
//! can collide with another or touch another's request; what comes back is given the caller's words.

use std::borrow::Cow;

use bytes::Bytes;
use castra_protocol::mcp::{Id, Notification, Outcome, Request, Response, Splice, error_response, meta_key};

use super::RequestId;

/// The words of one caller for one exchange.
#[derive(Debug, Clone)]
pub(super) struct Mapping {
    id: RequestId,
    token: Option<RequestId>,
}

impl Mapping {
    /// Notes the caller's words and gives the request with `number` in their place.
    pub(super) fn outgoing(request: &Request<'_>, number: u64) -> (Self, Bytes) {
        let raw = number.to_string();
        let token = request.meta.progress_token;
        let mut splice = Splice::request(request).id(&raw);
        if token.is_some() {
            splice = splice.progress_token(&raw);
        }
        let mapping = Self { id: request.id.into(), token: token.map(RequestId::from) };
        (mapping, bytes(splice.finish()))
    }

    /// The caller's id.
    pub(super) fn id(&self) -> &RequestId {
        &self.id
    }

    /// The response as the caller knows it.
    pub(super) fn response(&self, response: &Response<'_>) -> Bytes {
        let mut splice = Splice::response(response).id(self.id.raw());
        if closes_subscription(response) {
            splice = splice.set_meta(meta_key::SUBSCRIPTION_ID, self.id.raw());
        }
        bytes(splice.finish())
    }

    /// A progress notification, or one of a subscription, as the caller knows it.
    pub(super) fn notification(&self, notification: &Notification<'_>) -> Bytes {
        let mut splice = Splice::notification(notification);
        if let (Some(token), Some(_)) = (&self.token, notification.progress_token) {
            splice = splice.progress_token(token.raw());
        }
        if notification.meta.subscription_id.is_some() {
            splice = splice.set_meta(meta_key::SUBSCRIPTION_ID, self.id.raw());
        }
        bytes(splice.finish())
    }
}

/// The final result of `subscriptions/listen` names its subscription in `_meta`.
fn closes_subscription(response: &Response<'_>) -> bool {
    let Outcome::Result(result) = &response.outcome else { return false };
    let meta = result.meta.map_or("", |span| span.of(response.text));
    meta.contains(meta_key::SUBSCRIPTION_ID)
}

/// The number that an id or token stands for, if it is one of ours.
pub(super) fn number(id: Id<'_>) -> Option<u64> {
    id.raw().parse().ok()
}

/// An error of a server that could not read the id of the request: the same error, with the id.
pub(super) fn with_id(response: &Response<'_>, id: &RequestId) -> Option<Bytes> {
    let Outcome::Error(error) = &response.outcome else { return None };
    let data = error.data.map(|span| span.of(response.text));
    Some(error_response(Id::from_raw(id.raw()), error.code, &error.message, data).into())
}

fn bytes(text: Cow<'_, [u8]>) -> Bytes {
    text.into_owned().into()
}
