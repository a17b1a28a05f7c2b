//! A peer's card: fetched, verified, and held against the one that was accepted.

use std::{sync::Arc, time::Duration};

use castra_core::{Digest, Limits, Timestamp};
use castra_identity::Jwks;
use castra_net::{
    body::{self, BodyError},
    client::{ClientError, HttpClient},
};
use castra_protocol::a2a::{
    AgentCard, Binding,
    card::{CARD_BYTES_MAX, CardError, Interface},
};
use castra_store::{SeenCard, State, StoreError};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Full;

use super::peers::{CardSource, PeerParts};

/// A card or a key set must be there within this time; neither is large.
const FETCH_TIME_MAX: Duration = Duration::from_secs(10);

/// Why a peer's card does not count.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub(crate) enum NoCard {
    #[error("{what} cannot be had from {url}: {source}")]
    Unreachable { what: &'static str, url: String, source: ClientError },
    #[error("{what} cannot be had: {url} answered {status}")]
    Status { what: &'static str, url: String, status: StatusCode },
    #[error("{what} cannot be had from {url}: {source}")]
    Body { what: &'static str, url: String, source: BodyError },
    #[error("{what} did not come from {url} within {} seconds", FETCH_TIME_MAX.as_secs())]
    Late { what: &'static str, url: String },
    #[error(transparent)]
    Card(#[from] CardError),
    #[error("the card leads to {url}, which is neither where the card is nor among the peer's origins")]
    Foreign { url: String },
    #[error("the card has no signature under a key of this peer")]
    Unsigned,
    #[error("the card has digest {found}, and the configuration pins {pinned}")]
    NotPinned { found: String, pinned: String },
    #[error("the peer shows another card ({found}) than the one that was accepted ({pinned})")]
    Changed { found: String, pinned: String, new: bool },
    #[error("the card cannot be kept: {0}")]
    Store(#[from] StoreError),
    #[error("the gate was interrupted")]
    Interrupted,
}

/// A card that counts.
#[derive(Debug)]
pub(crate) struct GoodCard {
    pub(crate) card: AgentCard,
    pub(crate) digest: Digest,
    /// Whether it was seen for the first time just now.
    pub(crate) first: bool,
    pub(crate) interfaces: Vec<Reached>,
    /// Whether a signature of it was verified.
    pub(crate) verified: bool,
}

/// An interface of a peer that the gate can speak to.
#[derive(Debug, Clone)]
pub(crate) struct Reached {
    pub(crate) binding: Binding,
    pub(crate) tenant: String,
    pub(crate) url: Uri,
    shown: Interface,
}

impl GoodCard {
    /// The interface for a binding and a tenant.
    pub(crate) fn interface(&self, binding: Binding, tenant: Option<&str>) -> Option<&Reached> {
        let tenant = tenant.unwrap_or_default();
        self.interfaces.iter().find(|i| i.binding == binding && i.tenant == tenant)
    }

    /// Whether an interface of the card is one that agents are shown.
    pub(crate) fn shows(&self, interface: &Interface) -> bool {
        self.interfaces.iter().any(|i| i.shown == *interface)
    }
}

/// What a look at a peer's card shows, for whoever does not pin it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardFacts {
    /// What the peer calls itself.
    pub title: String,
    /// SHA-256 of the card in canonical form.
    pub digest: Digest,
    /// Whether a signature was verified.
    pub verified: bool,
}

/// Gets a peer's card and checks all of it except whether it is the accepted one. Keeps nothing.
///
/// # Errors
/// Why it does not count, in a sentence.
pub async fn look_at_card(parts: &PeerParts, limits: &Limits) -> Result<CardFacts, String> {
    let good = fetched(parts, limits).await.map_err(|why| why.to_string())?;
    Ok(CardFacts { title: good.card.name, digest: good.digest, verified: good.verified })
}

/// Gets the card and takes it if it counts.
pub(crate) async fn obtain(
    parts: &PeerParts,
    limits: &Limits,
    state: &Arc<State>,
    now: Timestamp,
) -> Result<GoodCard, NoCard> {
    let mut good = fetched(parts, limits).await?;
    let seen = pin(parts, state, good.digest, good.card.canonical()?, now).await?;
    good.first = seen == SeenCard::First;
    Ok(good)
}

async fn fetched(parts: &PeerParts, limits: &Limits) -> Result<GoodCard, NoCard> {
    let bytes = match &parts.card {
        CardSource::Text(text) => text.as_bytes().to_vec(),
        CardSource::Url(url) => get(parts, limits, "the card", url, true).await?,
    };
    let card = AgentCard::parse(&bytes)?;
    let verified = verify(parts, limits, &card).await?;
    let interfaces = interfaces(parts, &card)?;
    let digest = sha256(card.canonical()?.as_bytes());
    Ok(GoodCard { card, digest, first: false, interfaces, verified })
}

/// Checks a further card of the peer, such as the one that it shows to those it knows.
pub(crate) async fn check_signature(
    parts: &PeerParts,
    limits: &Limits,
    card: &AgentCard,
) -> Result<(), NoCard> {
    verify(parts, limits, card).await.map(drop)
}

/// Whether a signature was verified. Where keys are configured, one must be.
async fn verify(parts: &PeerParts, limits: &Limits, card: &AgentCard) -> Result<bool, NoCard> {
    if parts.keys.is_none() && parts.key_sets.is_empty() {
        return Ok(false);
    }
    let signatures = card.signatures()?;
    let good = |keys: &Jwks, signature: &castra_protocol::a2a::card::CardSignature| {
        signature.signed.iter().any(|signed| {
            keys.verifies(
                signature.key_id.as_deref(),
                &signature.algorithm,
                signed.as_bytes(),
                &signature.signature,
            )
        })
    };
    if parts.keys.as_ref().is_some_and(|keys| signatures.iter().any(|s| good(keys, s))) {
        return Ok(true);
    }
    // Only addresses that the configuration names are asked for keys, whatever a signature says.
    for url in &parts.key_sets {
        let asked = url.to_string();
        let named: Vec<_> = signatures.iter().filter(|s| s.key_set.as_deref() == Some(&*asked)).collect();
        if named.is_empty() {
            continue;
        }
        let document = get(parts, limits, "the key set", url, false).await?;
        let Ok(keys) = Jwks::parse(&document) else { continue };
        if named.into_iter().any(|s| good(&keys, s)) {
            return Ok(true);
        }
    }
    Err(NoCard::Unsigned)
}

/// The interfaces that the gate can speak to. A card that was fetched may name only the place where it
/// was, and places that the configuration allows: the gate's credential goes there.
fn interfaces(parts: &PeerParts, card: &AgentCard) -> Result<Vec<Reached>, NoCard> {
    let mut reached = Vec::new();
    for interface in &card.supported_interfaces {
        let Some(binding) = interface.binding() else { continue };
        let foreign = || NoCard::Foreign { url: interface.url.chars().take(200).collect() };
        let url: Uri = interface.url.trim_end_matches('/').parse().map_err(|_| foreign())?;
        if !parts.may_reach(&url) {
            return Err(foreign());
        }
        reached.push(Reached { binding, tenant: interface.tenant.clone(), url, shown: interface.clone() });
    }
    Ok(reached)
}

async fn pin(
    parts: &PeerParts,
    state: &Arc<State>,
    digest: Digest,
    text: String,
    now: Timestamp,
) -> Result<SeenCard, NoCard> {
    if let Some(pinned) = parts.pin
        && pinned != digest
    {
        return Err(NoCard::NotPinned { found: digest.to_hex(), pinned: pinned.to_hex() });
    }
    let (state, name) = (state.clone(), parts.name.clone());
    let configured = parts.pin.is_some();
    let work = move || {
        let mut seen = state.see_card(&name, digest, &text, now)?;
        if configured && matches!(seen, SeenCard::Changed | SeenCard::StillChanged) {
            // Whoever wrote the pin into the configuration has accepted it.
            state.accept_card(&name, now)?;
            seen = SeenCard::Same;
        }
        let pinned = state.peer(&name)?.map(|row| row.pinned.digest);
        Ok::<_, StoreError>((seen, pinned))
    };
    let (seen, pinned) = tokio::task::spawn_blocking(work).await.map_err(|_| NoCard::Interrupted)??;
    match seen {
        SeenCard::First | SeenCard::Same => Ok(seen),
        SeenCard::Changed | SeenCard::StillChanged => Err(NoCard::Changed {
            found: digest.to_hex(),
            pinned: pinned.map(|digest| digest.to_hex()).unwrap_or_default(),
            new: seen == SeenCard::Changed,
        }),
    }
}

/// Gets a small document. Redirects are not followed.
async fn get(
    parts: &PeerParts,
    limits: &Limits,
    what: &'static str,
    url: &Uri,
    credential: bool,
) -> Result<Vec<u8>, NoCard> {
    let late = |_| NoCard::Late { what, url: url.to_string() };
    let bytes = tokio::time::timeout(
        FETCH_TIME_MAX,
        ask(&parts.client, what, url, credential.then_some(&parts.headers), limits),
    )
    .await
    .map_err(late)??;
    Ok(bytes)
}

async fn ask(
    client: &HttpClient,
    what: &'static str,
    url: &Uri,
    headers: Option<&HeaderMap>,
    limits: &Limits,
) -> Result<Vec<u8>, NoCard> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = url.clone();
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    for (name, value) in headers.into_iter().flatten() {
        request.headers_mut().insert(name, value.clone());
    }
    let unreachable = |source| NoCard::Unreachable { what, url: url.to_string(), source };
    let response = client.send(request).await.map_err(unreachable)?;
    let status = response.status();
    if status != StatusCode::OK {
        return Err(NoCard::Status { what, url: url.to_string(), status });
    }
    let bytes_max = CARD_BYTES_MAX.min(limits.answer_bytes_max);
    let bytes = body::read(response.into_body(), bytes_max, FETCH_TIME_MAX).await;
    bytes.map(|bytes| bytes.to_vec()).map_err(|source| NoCard::Body { what, url: url.to_string(), source })
}

fn sha256(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    out.iter_mut().zip(digest.as_ref()).for_each(|(slot, byte)| *slot = *byte);
    Digest(out)
}

/// The card that was accepted before. Whoever verified it then had its signatures.
pub(crate) fn of_state(parts: &PeerParts, text: &str, digest: Digest) -> Result<GoodCard, NoCard> {
    let card = AgentCard::parse(text.as_bytes())?;
    let interfaces = interfaces(parts, &card)?;
    Ok(GoodCard { card, digest, first: false, interfaces, verified: false })
}
