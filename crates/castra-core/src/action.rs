//! What an agent tries.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{ModelName, PeerName, ServerName, Timestamp};

/// Names one action. 48 bits of milliseconds and 80 random bits in Crockford base 32, so that ids
/// sort by time (the ULID form).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionId(u128);

const BASE32: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl ActionId {
    /// Makes an id from the time and ten random bytes.
    pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
        let mut low = [0; 16];
        if let Some(slot) = low.last_chunk_mut::<10>() {
            *slot = random;
        }
        Self(((now.millis() as u128 & 0xffff_ffff_ffff) << 80) | u128::from_be_bytes(low))
    }
}

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for i in (0..26).rev() {
            let digit = (self.0 >> (i * 5)) as usize & 31;
            f.write_char(char::from(*BASE32.get(digit).unwrap_or(&b'0')))?;
        }
        Ok(())
    }
}

impl fmt::Debug for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ActionId {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WHAT: &str = "an action id has 26 characters of 0-9 and A-Z without I, L, O, U";
        if text.len() != 26 || !text.starts_with(|c| ('0'..='7').contains(&c)) {
            return Err(WHAT);
        }
        let mut n = 0_u128;
        for b in text.bytes() {
            let digit = BASE32.iter().position(|d| *d == b).ok_or(WHAT)?;
            n = n << 5 | digit as u128;
        }
        Ok(Self(n))
    }
}

impl Serialize for ActionId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ActionId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Names one run: a task of an agent. Chosen by the agent (`Castra-Run`), or taken from a trace
/// id or the protocol's own conversation; only ever meaningful together with the agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunId(Arc<str>);

impl RunId {
    /// Longest id that is taken; more is refused rather than cut, so that two runs never become one.
    pub const LENGTH_MAX: usize = 128;

    /// Takes visible ASCII of 1 to [`Self::LENGTH_MAX`] characters.
    pub fn new(text: &str) -> Option<Self> {
        let good = (1..=Self::LENGTH_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        good.then(|| Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The verb of an action, as policies name it (`Castra::Action::"call"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// A tool is called.
    Call,
    /// A resource, prompt or completion is read.
    Read,
    /// A model is asked.
    Complete,
    /// A peer is sent a message.
    Send,
    /// An inference server is asked.
    Infer,
    /// A connection is opened.
    Connect,
}

impl Operation {
    /// The word that records and policies use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Read => "read",
            Self::Complete => "complete",
            Self::Send => "send",
            Self::Infer => "infer",
            Self::Connect => "connect",
        }
    }
}

/// What a tool does to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It only reads.
    Read,
    /// It changes something, and what it changed can be changed back.
    Write,
    /// It may destroy something.
    Destroy,
    /// Nothing is known of it, so it counts as one that acts.
    #[default]
    Act,
}

impl Effect {
    /// The word that records and policies use (`resource.effect`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destroy => "destroy",
            Self::Act => "act",
        }
    }

    /// Whether its intent must be durable before it is forwarded.
    pub fn changes(self) -> bool {
        self != Self::Read
    }
}

/// The protocol that an action came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Model Context Protocol.
    Mcp,
    /// OpenAI's API (chat completions, responses, embeddings) and what is compatible with it.
    OpenAi,
    /// Anthropic's API (messages).
    Anthropic,
    /// Agent2Agent.
    A2a,
}

impl Protocol {
    /// The word that records and policies use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mcp => "mcp",
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::A2a => "a2a",
        }
    }
}

/// What an action is directed at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ResourceRef {
    /// A tool of an MCP server, under the server's own name for it.
    Tool {
        /// The server.
        server: ServerName,
        /// The tool's name as the server lists it.
        name: Arc<str>,
    },
    /// A resource of an MCP server.
    Resource {
        /// The server.
        server: ServerName,
        /// Its URI as the server lists it.
        uri: Arc<str>,
    },
    /// A prompt of an MCP server.
    Prompt {
        /// The server.
        server: ServerName,
        /// Its name as the server lists it.
        name: Arc<str>,
    },
    /// An MCP server as a whole.
    Server(ServerName),
    /// A model route, under the name that agents use.
    Model(ModelName),
    /// Another agent, reached over A2A.
    Peer(PeerName),
}

impl ResourceRef {
    /// The MCP server that it belongs to or is; models and peers have none.
    pub fn server(&self) -> Option<&ServerName> {
        match self {
            Self::Tool { server, .. } | Self::Resource { server, .. } | Self::Prompt { server, .. } => {
                Some(server)
            }
            Self::Server(server) => Some(server),
            Self::Model(_) | Self::Peer(_) => None,
        }
    }

    /// Its Cedar entity type without the namespace.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tool { .. } => "Tool",
            Self::Resource { .. } => "Resource",
            Self::Prompt { .. } => "Prompt",
            Self::Server(_) => "Server",
            Self::Model(_) => "Model",
            Self::Peer(_) => "Peer",
        }
    }

    /// Its Cedar entity id: `server/name`, or the name alone.
    pub fn id(&self) -> String {
        match self {
            Self::Tool { server, name } | Self::Prompt { server, name } => format!("{server}/{name}"),
            Self::Resource { server, uri } => format!("{server}/{uri}"),
            Self::Server(server) => server.to_string(),
            Self::Model(route) => route.to_string(),
            Self::Peer(peer) => peer.to_string(),
        }
    }
}

impl fmt::Display for ResourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{:?}", self.kind(), self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_read_back() {
        let a = ActionId::new(Timestamp::from_secs(1_795_557_868), [255; 10]);
        let b = ActionId::new(Timestamp::from_secs(1_795_557_869), [0; 10]);
        assert!(a < b && a.to_string() < b.to_string());
        assert_eq!(a.to_string().parse(), Ok(a));
        assert!("8ZZZZZZZZZZZZZZZZZZZZZZZZZ".parse::<ActionId>().is_err());
        assert!("".parse::<ActionId>().is_err());
    }

    #[test]
    fn runs_are_bounded() {
        assert!(RunId::new("a").is_some());
        assert!(RunId::new("").is_none());
        assert!(RunId::new("a b").is_none());
        assert!(RunId::new(&"x".repeat(129)).is_none());
    }
}
