//! Agent2Agent 1.0 on the gate's side of the wire: other agents, at `/a2a/{peer}`, in both HTTP bindings.
//!
//! A request comes in ([`serve`]), becomes an action of its agent on the peer (`call`), passes the
//! path, and is carried to the peer and back (`exchange`, `stream`), where what comes back is
//! inspected (`watch`). `peers` knows the peers and their cards (`card`): fetched, verified,
//! pinned and rewritten, so that whoever follows a card comes here. `owners` keeps tasks apart.
//! Nothing here decides or records: that is `path`.

mod call;
mod card;
mod exchange;
mod owners;
mod peers;
mod stream;
mod watch;

use std::sync::Arc;

use castra_core::{AgentIdentity, PeerName};
use castra_protocol::a2a::CARD_PATH;
use http::{Response, request::Parts};
use hyper::body::Incoming;

pub use self::card::{CardFacts, look_at_card};
pub(crate) use self::peers::Peers;
pub use self::peers::{CardSource, DelegationCarrier, PeerParts, PeerStatus};
use crate::{answer::AnswerBody, listen::Connection};

/// Where the public key of the gate's own tokens is.
pub(crate) const KEY_SET_PATH: &str = "/.well-known/jwks.json";

/// A place below `/a2a`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    peer: PeerName,
    /// What follows the peer's name: nothing, or a path with its slash.
    rest: String,
}

impl Place {
    /// The place at a path, if there can be one.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let below = path.strip_prefix("/a2a/")?;
        let at = below.find('/').unwrap_or(below.len());
        let (name, rest) = below.split_at_checked(at)?;
        let rest = if rest == "/" { "" } else { rest };
        Some(Self { peer: PeerName::new(name).ok()?, rest: rest.to_owned() })
    }

    /// The peer's address at the gate, which is what a credential must be good for.
    pub(crate) fn endpoint<'p>(&self, path: &'p str) -> &'p str {
        path.get(..path.len().saturating_sub(self.rest.len())).unwrap_or(path).trim_end_matches('/')
    }

    fn is_card(&self) -> bool {
        self.rest == CARD_PATH
    }
}

/// Answers one HTTP request of an identified agent.
pub(crate) async fn serve(
    connection: &Connection,
    agent: Arc<AgentIdentity>,
    place: Place,
    head: Parts,
    body: Incoming,
) -> Response<AnswerBody> {
    let door = call::Door { connection, agent, place, head };
    if door.place.is_card() { door.card() } else { door.operation(body).await }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_apart() {
        let of = |path: &str| Place::of(path).map(|p| (p.endpoint(path).to_owned(), p.rest));
        let place = |endpoint: &str, rest: &str| Some((endpoint.to_owned(), rest.to_owned()));
        assert_eq!(of("/a2a/planner"), place("/a2a/planner", ""));
        assert_eq!(of("/a2a/planner/"), place("/a2a/planner", ""));
        assert_eq!(of("/a2a/planner/message:send"), place("/a2a/planner", "/message:send"));
        for bad in ["/a2a", "/a2a/", "/a2a/Planner", "/a2a//x", "/a2ab/x"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
