//! The peers behind the gate: how each is reached, and whether its card counts just now.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use castra_core::{Digest, PeerName, Refusal, RefusalCode, Step};
use castra_identity::{Jwks, Minter};
use castra_ledger::EventKind;
use castra_net::client::HttpClient;
use castra_protocol::a2a::AgentCard;
use castra_store::State;
use http::{HeaderMap, Uri};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    card::{self, GoodCard, NoCard},
    owners::Owners,
};
use crate::gate::Gate;

/// How often a card is looked at again.
const EVERY: Duration = Duration::from_secs(300);
/// How soon after a card could not be had.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// One peer behind the gate.
#[derive(Debug)]
pub struct PeerParts {
    /// Its name in paths, policies and records.
    pub name: PeerName,
    /// Where its card is.
    pub card: CardSource,
    /// Keys under which the card must be signed.
    pub keys: Option<Jwks>,
    /// Where such keys may be fetched when a signature names one of these addresses (`jku`).
    pub key_sets: Vec<Uri>,
    /// The digest that the card must have.
    pub pin: Option<Digest>,
    /// Where its interfaces may be besides the place of the card: scheme, host and port.
    pub origins: Vec<Uri>,
    /// The gate's own credential, added to each request.
    pub headers: HeaderMap,
    /// The HTTP client to use.
    pub client: HttpClient,
    /// Where the peer may send notifications: what an address must begin with.
    pub push: Vec<String>,
    /// How the peer learns who acts, and for whom.
    pub delegation: DelegationCarrier,
    /// For whom the gate's tokens are meant; the interface's address where none is given.
    pub audience: Option<String>,
    /// Changes when the configuration of this peer changes; an unchanged one keeps its state.
    pub fingerprint: u64,
}

/// Where a card comes from.
#[derive(Debug, Clone)]
pub enum CardSource {
    /// It is fetched, and looked at again from time to time.
    Url(Uri),
    /// It was given by the operator, who vouches for the addresses in it.
    Text(String),
}

/// How a peer learns which agent acts, and on whose behalf (a JWT with `sub` and `act`, RFC 8693).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DelegationCarrier {
    /// In the header `Castra-Delegation`.
    #[default]
    Header,
    /// As the bearer token: the peer believes the gate's key, as another gate can.
    Authorization,
    /// Not at all.
    Off,
}

impl PeerParts {
    /// Whether an address is one to which the gate may send its credential.
    pub(crate) fn may_reach(&self, url: &Uri) -> bool {
        let place =
            |url: &Uri| Some((url.scheme_str()?.to_owned(), url.host()?.to_ascii_lowercase(), port_of(url)?));
        let asked = place(url);
        let own = match &self.card {
            CardSource::Url(card) => vec![card],
            // The operator gave the card, and may have given an address without TLS with it.
            CardSource::Text(_) => return asked.is_some(),
        };
        asked.is_some() && own.into_iter().chain(&self.origins).any(|allowed| place(allowed) == asked)
    }

    /// Whether notifications may go to an address.
    pub(crate) fn may_notify(&self, url: &str) -> bool {
        let Ok(parsed) = url.parse::<Uri>() else { return false };
        let plain =
            parsed.authority().is_some_and(|a| !a.as_str().contains('@')) && !url.contains(['#', '\\']);
        let dots =
            parsed.path().split('/').any(|segment| matches!(segment, "." | "..") || segment.contains('%'));
        plain && !dots && self.push.iter().any(|allowed| begins(url, allowed))
    }
}

/// Whether `url` is `allowed` or below it, so that `https://a.example` does not allow
/// `https://a.example.evil`.
fn begins(url: &str, allowed: &str) -> bool {
    let allowed = allowed.trim_end_matches('/');
    url.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

fn port_of(url: &Uri) -> Option<u16> {
    url.port_u16().or(match url.scheme_str()? {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    })
}

/// What the gate knows of a peer.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// Its name.
    pub name: PeerName,
    /// What it calls itself, once its card counts.
    pub title: Option<String>,
    /// Whether a signature of its card was verified.
    pub verified: bool,
    /// Why its card does not count.
    pub problem: Option<String>,
}

/// A peer with what is known of its card.
pub(crate) struct Peer {
    pub(crate) parts: PeerParts,
    card: ArcSwap<Result<Arc<GoodCard>, String>>,
    again: Notify,
    gone: CancellationToken,
}

impl Peer {
    /// The card, if it counts; else why the peer is closed.
    pub(crate) fn card(&self) -> Result<Arc<GoodCard>, Refusal> {
        match &**self.card.load() {
            Ok(card) => Ok(card.clone()),
            Err(why) => {
                let reason = format!("peer {} is closed: {why}", self.parts.name);
                Err(Refusal::new(Step::Act, RefusalCode::UpstreamUnavailable, reason).advise(format!(
                    "The operator can look at it with castra peer show {name}, and accept a changed card with castra peer accept {name}",
                    name = self.parts.name
                )))
            }
        }
    }

    fn status(&self) -> PeerStatus {
        let card = self.card.load();
        PeerStatus {
            name: self.parts.name.clone(),
            title: card.as_ref().as_ref().ok().map(|good| good.card.name.clone()),
            verified: card.as_ref().as_ref().is_ok_and(|good| good.verified),
            problem: card.as_ref().as_ref().err().cloned(),
        }
    }

    /// Looks at the card once. True if it counts.
    async fn look(&self, gate: &Gate) -> bool {
        let found = card::obtain(&self.parts, &gate.limits, &gate.state, gate.now()).await;
        let found = match found {
            // What was accepted counts while the place of the card is down; the peer may well be up.
            Err(why) if is_absent(&why) => match self.remembered(gate).await {
                Some(card) => {
                    tracing::warn!(peer = %self.parts.name, %why, "the card that was accepted before is used");
                    self.set(gate, Ok(card));
                    return false;
                }
                None => Err(why),
            },
            other => other,
        };
        let good = found.is_ok();
        self.set(gate, found);
        good
    }

    fn set(&self, gate: &Gate, found: Result<GoodCard, NoCard>) {
        let name = Some(self.parts.name.as_str());
        let before = self.card.load_full();
        let now = match found {
            Ok(good) => {
                let hex = good.digest.to_hex();
                if good.first {
                    gate.recorder.event(EventKind::PeerPinned, name, &format!("card {hex}"));
                } else if matches!(&*before, Err(why) if why.starts_with(CHANGED)) {
                    gate.recorder.event(EventKind::PeerAccepted, name, &format!("card {hex}"));
                }
                Ok(Arc::new(good))
            }
            Err(why) => {
                let text = match &why {
                    NoCard::Changed { .. } => format!("{CHANGED}: {why}"),
                    _ => why.to_string(),
                };
                if !matches!(&*before, Err(known) if *known == text) {
                    let kind = if text.starts_with(CHANGED) {
                        EventKind::PeerChanged
                    } else {
                        EventKind::PeerFailed
                    };
                    tracing::warn!(peer = %self.parts.name, %why, "a peer is closed");
                    gate.recorder.event(kind, name, &why.to_string());
                }
                Err(text)
            }
        };
        self.card.store(Arc::new(now));
    }

    /// The card that was accepted before, from the state.
    async fn remembered(&self, gate: &Gate) -> Option<GoodCard> {
        let (state, name) = (gate.state.clone(), self.parts.name.clone());
        let row = tokio::task::spawn_blocking(move || state.peer(&name)).await.ok()?.ok()??;
        let wanted = self.parts.pin.is_none_or(|pin| pin == row.pinned.digest);
        // A card that waits for acceptance keeps the peer closed.
        (wanted && row.seen.is_none())
            .then(|| card::of_state(&self.parts, &row.pinned.text, row.pinned.digest).ok())
            .flatten()
    }
}

/// How the reason begins while a changed card waits.
const CHANGED: &str = "its card changed";

/// Whether there is no card at all just now, rather than one that does not count.
fn is_absent(why: &NoCard) -> bool {
    matches!(
        why,
        NoCard::Unreachable { .. } | NoCard::Late { .. } | NoCard::Body { .. } | NoCard::Status { .. }
    )
}

/// All peers.
pub(crate) struct Peers {
    all: ArcSwap<HashMap<PeerName, Arc<Peer>>>,
    pub(crate) owners: Owners,
    pub(crate) minter: Minter,
}

impl Peers {
    pub(crate) fn new(state: Arc<State>, minter: Minter) -> Self {
        Self { all: ArcSwap::default(), owners: Owners::new(state), minter }
    }

    pub(crate) fn get(&self, name: &PeerName) -> Option<Arc<Peer>> {
        self.all.load().get(name).cloned()
    }

    /// Their names, in order.
    pub(crate) fn names(&self) -> Vec<PeerName> {
        let mut names: Vec<_> = self.all.load().keys().cloned().collect();
        names.sort();
        names
    }

    pub(crate) fn statuses(&self) -> Vec<PeerStatus> {
        let mut all: Vec<_> = self.all.load().values().map(|peer| peer.status()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Looks at every card again, soon.
    pub(crate) fn look_again(&self) {
        for peer in self.all.load().values() {
            peer.again.notify_one();
        }
    }

    /// Swaps the peers. One whose fingerprint is unchanged keeps its card.
    pub(crate) fn replace(&self, gate: &Arc<Gate>, parts: Vec<PeerParts>) {
        let old = self.all.load_full();
        let mut new = HashMap::with_capacity(parts.len());
        for part in parts {
            let name = part.name.clone();
            let peer = match old.get(&name) {
                Some(peer) if peer.parts.fingerprint == part.fingerprint => peer.clone(),
                _ => Self::begin(gate, part),
            };
            new.insert(name, peer);
        }
        for (name, peer) in old.iter() {
            if new.get(name).is_none_or(|n| !Arc::ptr_eq(n, peer)) {
                peer.gone.cancel();
            }
        }
        self.all.store(Arc::new(new));
    }

    fn begin(gate: &Arc<Gate>, parts: PeerParts) -> Arc<Peer> {
        let peer = Arc::new(Peer {
            parts,
            card: ArcSwap::from_pointee(Err("its card is not here yet".to_owned())),
            again: Notify::new(),
            gone: gate.closing.child_token(),
        });
        tokio::spawn(follow(Arc::downgrade(gate), peer.clone()));
        peer
    }
}

/// Follows a peer's card until the peer is gone.
async fn follow(gate: Weak<Gate>, peer: Arc<Peer>) {
    let mut retry = FIRST_RETRY;
    loop {
        let Some(strong) = gate.upgrade() else { return };
        let good = tokio::select! {
            good = peer.look(&strong) => good,
            () = peer.gone.cancelled() => return,
        };
        drop(strong);
        let wait = if good { EVERY } else { retry };
        retry = if good { FIRST_RETRY } else { (retry * 2).min(LAST_RETRY) };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = peer.again.notified() => {}
            () = peer.gone.cancelled() => return,
        }
    }
}

/// What agents are shown of a card.
pub(crate) fn shown(gate: &Gate, peer: &Peer, good: &GoodCard, card: &AgentCard) -> AgentCard {
    let url = gate.resource().resource(&format!("/a2a/{}", peer.parts.name));
    let rewrite = castra_protocol::a2a::card::Rewrite {
        mutual_tls: url.starts_with("https://"),
        url: &url,
        push: !peer.parts.push.is_empty(),
    };
    // The pinned card's interfaces are those that count, whatever another card of the peer lists.
    let interfaces = good.card.rewritten(&rewrite, |i| good.shows(i)).supported_interfaces;
    let mut shown = card.rewritten(&rewrite, |_| false);
    shown.supported_interfaces = interfaces;
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowed_address_allows_what_is_below_it() {
        for good in ["https://hooks.example/a", "https://hooks.example/a/b", "https://hooks.example/a?x=1"] {
            assert!(begins(good, "https://hooks.example/a/"), "{good}");
        }
        for bad in ["https://hooks.example/ab", "https://hooks.example", "http://hooks.example/a"] {
            assert!(!begins(bad, "https://hooks.example/a"), "{bad}");
        }
        assert!(!begins("https://hooks.example.evil/a", "https://hooks.example"));
        assert!(!begins("https://hooks.example:8443/a", "https://hooks.example"));
    }
}
