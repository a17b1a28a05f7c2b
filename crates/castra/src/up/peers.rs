//! Peers of the configuration, ready to be reached.

use std::hash::{DefaultHasher, Hash, Hasher};

use castra_core::Limits;
use castra_gateway::{CardSource, DelegationCarrier, PeerParts};
use castra_identity::Jwks;
use castra_store::files;

use super::parts::{Clients, SECRET_BYTES_MAX, header_list, resolved};
use crate::{
    config::{Card, Config, Delegation, Peer},
    out::Failure,
};

/// The peers, ready to be reached.
pub(crate) fn peer_parts(config: &Config, limits: &Limits, own_ca: &str) -> Result<Vec<PeerParts>, Failure> {
    let clients = Clients::new(limits, own_ca);
    let part = |peer: &Peer| {
        peer_part(peer, &clients).map_err(|e| {
            let advice = e.advice().to_owned();
            Failure::new(format!("peer {}: {e}", peer.name)).advise(advice)
        })
    };
    config.peer.iter().map(part).collect()
}

fn peer_part(peer: &Peer, clients: &Clients<'_>) -> Result<PeerParts, Failure> {
    // What is hashed here is what a change of means another look at the card.
    let mut hasher = DefaultHasher::new();
    format!("{peer:?}").hash(&mut hasher);
    let headers = resolved(&peer.headers)?;
    headers.hash(&mut hasher);
    let card = match &peer.card {
        Card::Url(url) => CardSource::Url(url.uri().clone()),
        Card::File(path) => CardSource::Text(files::read_text(path, SECRET_BYTES_MAX)?),
    };
    if let CardSource::Text(text) = &card {
        text.hash(&mut hasher);
    }
    let client = match (&peer.ca, &peer.card) {
        (Some(ca), _) => {
            let roots = files::read_bytes(ca, SECRET_BYTES_MAX)?;
            roots.hash(&mut hasher);
            clients.trusting(roots, peer.tls12)?
        }
        (None, Card::Url(url)) => clients.for_url(url, peer.tls12)?,
        (None, Card::File(_)) => clients.for_machine(peer.tls12)?,
    };
    let mut header_map = http::HeaderMap::new();
    for (name, value) in header_list(headers)? {
        header_map.insert(name, value);
    }
    Ok(PeerParts {
        name: peer.name.clone(),
        card,
        keys: keys(peer, &mut hasher)?,
        key_sets: peer.jku.iter().map(|url| url.uri().clone()).collect(),
        pin: peer.pin,
        origins: peer.origins.iter().map(|url| url.uri().clone()).collect(),
        headers: header_map,
        client,
        push: peer.push.iter().map(ToString::to_string).collect(),
        delegation: match peer.delegation {
            Delegation::Header => DelegationCarrier::Header,
            Delegation::Authorization => DelegationCarrier::Authorization,
            Delegation::Off => DelegationCarrier::Off,
        },
        audience: peer.audience.clone(),
        fingerprint: hasher.finish(),
    })
}

/// All keys of a peer's files: a JWK set where the file is JSON, else PEM.
fn keys(peer: &Peer, hasher: &mut DefaultHasher) -> Result<Option<Jwks>, Failure> {
    let mut all: Option<Jwks> = None;
    for path in &peer.keys {
        let bytes = files::read_bytes(path, SECRET_BYTES_MAX)?;
        bytes.hash(hasher);
        let is_json = bytes.trim_ascii_start().starts_with(b"{");
        let keys = if is_json { Jwks::parse(&bytes) } else { Jwks::from_pem(&bytes) };
        let keys = keys.map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
        all = Some(all.map_or(keys.clone(), |known| known.with(&keys)));
    }
    Ok(all)
}
