//! `subscriptions/listen` of the modern era (2026-07-28, basic/patterns/subscriptions).

use super::{BridgeFault, ClientFacts, ServerFacts, facts::strings, object};
use crate::{
    json::{self, quote},
    mcp::{
        Id, Notification, NotificationKind, Request, Splice, field::Field, message::members_of, meta_key,
        result_response,
    },
};

/// What a client wants to hear of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubscriptionFilter {
    /// Changes of the list of tools.
    pub tools: bool,
    /// Changes of the list of prompts.
    pub prompts: bool,
    /// Changes of the list of resources.
    pub resources: bool,
    /// Changes of these resources.
    pub uris: Vec<String>,
}

impl SubscriptionFilter {
    /// Resources that one stream may follow; each costs a subscription at a legacy server.
    pub const URIS_MAX: usize = 256;

    /// What a `subscriptions/listen` request asks for. What extensions add to it (`taskIds`) is left out,
    /// and so left out of the acknowledgement too.
    pub fn from_request(request: &Request<'_>) -> Result<Self, BridgeFault> {
        let wrong = BridgeFault::Field { field: "params.notifications", want: "an object" };
        let params = request.params.ok_or(wrong.clone())?;
        let [filter] = members_of(request.text, params, ["notifications"])?;
        let filter = filter.filter(|v| v.kind == json::Kind::Object).ok_or(wrong)?.span;
        let names =
            ["toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions"];
        let [tools, prompts, resources, uris] = members_of(request.text, filter, names)?;
        let flag = |name, value| Field { text: request.text, name, value }.boolean();
        let list = match uris {
            None => Vec::new(),
            Some(list) if list.kind == json::Kind::Array => strings(list.span.of(request.text))?,
            Some(_) => {
                return Err(BridgeFault::Field {
                    field: "notifications.resourceSubscriptions",
                    want: "a list",
                });
            }
        };
        if list.len() > Self::URIS_MAX {
            return Err(BridgeFault::TooMany { max: Self::URIS_MAX });
        }
        Ok(Self {
            tools: flag("notifications.toolsListChanged", tools)?.unwrap_or(false),
            prompts: flag("notifications.promptsListChanged", prompts)?.unwrap_or(false),
            resources: flag("notifications.resourcesListChanged", resources)?.unwrap_or(false),
            uris: list,
        })
    }

    /// What of it a server can announce, which is what may be acknowledged.
    pub fn restricted_to(&self, server: &ServerFacts) -> Self {
        Self {
            tools: self.tools && server.offers(&["tools", "listChanged"]),
            prompts: self.prompts && server.offers(&["prompts", "listChanged"]),
            resources: self.resources && server.offers(&["resources", "listChanged"]),
            uris: if server.offers(&["resources", "subscribe"]) { self.uris.clone() } else { Vec::new() },
        }
    }

    fn wants(&self, notification: &Notification<'_>) -> bool {
        match notification.kind() {
            Some(NotificationKind::ToolsChanged) => self.tools,
            Some(NotificationKind::PromptsChanged) => self.prompts,
            Some(NotificationKind::ResourcesChanged) => self.resources,
            Some(NotificationKind::ResourceUpdated) => {
                // It may be a part of what was subscribed to (`notifications/resources/updated`).
                let is_part = |whole: &String, uri: &str| {
                    uri.strip_prefix(&**whole).is_some_and(|rest| {
                        rest.is_empty() || whole.ends_with('/') || rest.starts_with(['/', '#', '?'])
                    })
                };
                notification
                    .uri
                    .as_deref()
                    .is_some_and(|uri| self.uris.iter().any(|whole| is_part(whole, uri)))
            }
            _ => false,
        }
    }

    fn to_json(&self) -> String {
        let flags = [
            ("toolsListChanged", self.tools),
            ("promptsListChanged", self.prompts),
            ("resourcesListChanged", self.resources),
        ];
        let flags = flags.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name, "true".into()));
        let uris: Vec<String> = self.uris.iter().map(|uri| quote(uri)).collect();
        let uris =
            (!uris.is_empty()).then(|| ("resourceSubscriptions", format!("[{}]", uris.join(",")).into()));
        object(flags.chain(uris))
    }
}

/// The request that opens a stream at a modern server on behalf of a client. `id` is raw JSON.
pub fn listen_request(id: &str, facts: &ClientFacts, filter: &SubscriptionFilter) -> Vec<u8> {
    let described = facts.modern_meta();
    let meta = object(described.iter().map(|(key, raw)| (*key, raw.into())));
    let params = object([("_meta", meta.into()), ("notifications", filter.to_json().into())]);
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"subscriptions/listen\",\"params\":{params}}}")
        .into_bytes()
}

/// The first message on a stream: what will be announced. `subscription` is the id of the request that
/// opened it.
pub fn listen_acknowledged(subscription: Id<'_>, filter: &SubscriptionFilter) -> Vec<u8> {
    let meta = object([(meta_key::SUBSCRIPTION_ID, subscription.raw().into())]);
    let params = object([("_meta", meta.into()), ("notifications", filter.to_json().into())]);
    let method = "notifications/subscriptions/acknowledged";
    format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{params}}}").into_bytes()
}

/// A legacy server's notification as it goes onto a stream. None if the stream did not ask for it.
pub fn listen_notification(
    notification: &Notification<'_>,
    filter: &SubscriptionFilter,
    subscription: Id<'_>,
) -> Option<Vec<u8>> {
    if !filter.wants(notification) {
        return None;
    }
    let splice = Splice::notification(notification).set_meta(meta_key::SUBSCRIPTION_ID, subscription.raw());
    Some(splice.finish().into_owned())
}

/// The last message on a stream that the gate ends in an orderly way.
pub fn listen_ended(subscription: Id<'_>) -> Vec<u8> {
    let meta = object([(meta_key::SUBSCRIPTION_ID, subscription.raw().into())]);
    result_response(subscription, &object([("resultType", "\"complete\"".into()), ("_meta", meta.into())]))
}
