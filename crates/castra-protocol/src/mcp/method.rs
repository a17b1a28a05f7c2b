//! Every method of both eras: what it is, and in which era it exists.
//!
//! Sources: `schema/2025-11-25/schema.ts` and `schema/2026-07-28/schema.ts` of the specification, and
//! the tasks extension (`io.modelcontextprotocol/tasks`) for the modern `tasks/*`.

use castra_core::Operation;

use super::Era;

/// What a method is to the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodKind {
    /// An action, which policy decides. For `completion/complete` see [`super::Request::action`].
    Action {
        /// The verb of the action.
        operation: Operation,
        /// The kind of what it is directed at.
        on: ActionOn,
    },
    /// A list, which is answered with what the caller may use.
    List(ListKind),
    /// Getting to know each other.
    Handshake(Handshake),
    /// A stream of change notifications (`subscriptions/listen`).
    Subscription,
    /// A message without an answer.
    Notification(NotificationKind),
    /// What a legacy server asks of its client.
    ClientRequest(InputKind),
    /// Not a method of either era.
    Unknown,
}

/// What an action is directed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ActionOn {
    Tool,
    Resource,
    Prompt,
    Server,
}

/// The four lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ListKind {
    Tools,
    Resources,
    ResourceTemplates,
    Prompts,
}

impl ListKind {
    /// The method that asks for the list.
    pub fn method(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Resources => "resources/list",
            Self::ResourceTemplates => "resources/templates/list",
            Self::Prompts => "prompts/list",
        }
    }

    /// The member of the result that holds the items.
    pub fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Resources => "resources",
            Self::ResourceTemplates => "resourceTemplates",
            Self::Prompts => "prompts",
        }
    }
}

/// Requests about the conversation itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Handshake {
    Initialize,
    Discover,
    Ping,
    SetLogLevel,
}

/// Messages without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum NotificationKind {
    Initialized,
    Cancelled,
    Progress,
    Message,
    ToolsChanged,
    PromptsChanged,
    ResourcesChanged,
    ResourceUpdated,
    RootsChanged,
    ElicitationComplete,
    SubscriptionAcknowledged,
    TaskStatus,
}

/// What a server can ask of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InputKind {
    /// `elicitation/create`: a person is asked.
    Elicit,
    /// `sampling/createMessage`: the client's model is asked.
    Sample,
    /// `roots/list`: which folders may be worked on.
    Roots,
}

impl InputKind {
    /// The method that asks for it.
    pub fn method(self) -> &'static str {
        match self {
            Self::Elicit => "elicitation/create",
            Self::Sample => "sampling/createMessage",
            Self::Roots => "roots/list",
        }
    }

    /// The client capability that permits it.
    pub fn capability(self) -> &'static str {
        match self {
            Self::Elicit => "elicitation",
            Self::Sample => "sampling",
            Self::Roots => "roots",
        }
    }
}

/// Says what a method is.
pub fn classify(method: &str) -> MethodKind {
    find(method).map_or(MethodKind::Unknown, |(kind, _)| kind)
}

/// Whether a method exists in an era, in either direction.
pub fn exists_in(method: &str, era: Era) -> bool {
    find(method).is_some_and(|(_, eras)| eras.contains(&era))
}

const LEGACY: &[Era] = &[Era::Legacy];
const MODERN: &[Era] = &[Era::Modern];
const BOTH: &[Era] = &[Era::Legacy, Era::Modern];

fn find(method: &str) -> Option<(MethodKind, &'static [Era])> {
    use Handshake::*;
    use ListKind::*;
    use MethodKind::{ClientRequest, Handshake as Shake, List, Notification, Subscription};
    use NotificationKind::*;
    use Operation::{Call, Read};
    let action = |operation, on| MethodKind::Action { operation, on };
    Some(match method {
        "tools/call" => (action(Call, ActionOn::Tool), BOTH),
        "tools/list" => (List(Tools), BOTH),
        "resources/list" => (List(Resources), BOTH),
        "resources/templates/list" => (List(ResourceTemplates), BOTH),
        "prompts/list" => (List(Prompts), BOTH),
        "resources/read" => (action(Read, ActionOn::Resource), BOTH),
        "resources/subscribe" | "resources/unsubscribe" => (action(Read, ActionOn::Resource), LEGACY),
        "prompts/get" => (action(Read, ActionOn::Prompt), BOTH),
        "completion/complete" => (action(Read, ActionOn::Prompt), BOTH),
        "tasks/get" => (action(Read, ActionOn::Server), BOTH),
        "tasks/cancel" => (action(Call, ActionOn::Server), BOTH),
        "tasks/list" | "tasks/result" => (action(Read, ActionOn::Server), LEGACY),
        "tasks/update" => (action(Call, ActionOn::Server), MODERN),
        "initialize" => (Shake(Initialize), LEGACY),
        "ping" => (Shake(Ping), LEGACY),
        "logging/setLevel" => (Shake(SetLogLevel), LEGACY),
        "server/discover" => (Shake(Discover), MODERN),
        "subscriptions/listen" => (Subscription, MODERN),
        "elicitation/create" => (ClientRequest(InputKind::Elicit), LEGACY),
        "sampling/createMessage" => (ClientRequest(InputKind::Sample), LEGACY),
        "roots/list" => (ClientRequest(InputKind::Roots), LEGACY),
        "notifications/initialized" => (Notification(Initialized), LEGACY),
        "notifications/cancelled" => (Notification(Cancelled), BOTH),
        "notifications/progress" => (Notification(Progress), BOTH),
        "notifications/message" => (Notification(Message), BOTH),
        "notifications/tools/list_changed" => (Notification(ToolsChanged), BOTH),
        "notifications/prompts/list_changed" => (Notification(PromptsChanged), BOTH),
        "notifications/resources/list_changed" => (Notification(ResourcesChanged), BOTH),
        "notifications/resources/updated" => (Notification(ResourceUpdated), BOTH),
        "notifications/roots/list_changed" => (Notification(RootsChanged), LEGACY),
        "notifications/elicitation/complete" => (Notification(ElicitationComplete), LEGACY),
        "notifications/tasks/status" => (Notification(TaskStatus), LEGACY),
        "notifications/tasks" => (Notification(TaskStatus), MODERN),
        "notifications/subscriptions/acknowledged" => (Notification(SubscriptionAcknowledged), MODERN),
        _ => return None,
    })
}
