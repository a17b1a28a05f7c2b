//! `[[peer]]`: another agent behind the gate.

use std::{collections::BTreeMap, path::PathBuf};

use castra_core::{Digest, PeerName};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Text, Url};

/// Another agent (A2A 1.0) that agents reach through the gate, at `/a2a/NAME`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "PeerTable")]
pub struct Peer {
    /// Its name in paths, policies and records.
    pub name: PeerName,
    /// Where its card is.
    pub card: Card,
    /// Files with keys under which the card must be signed.
    pub keys: Vec<PathBuf>,
    /// Where such keys may be fetched.
    pub jku: Vec<Url>,
    /// The digest that the card must have.
    pub pin: Option<Digest>,
    /// Where its interfaces may be besides the place of its card.
    pub origins: Vec<Url>,
    /// Headers added to each request.
    pub headers: BTreeMap<String, Text>,
    /// Whether TLS 1.2 is taken too.
    pub tls12: bool,
    /// CAs to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Where it may send notifications.
    pub push: Vec<Url>,
    /// How it learns who acts, and for whom.
    pub delegation: Delegation,
    /// For whom the gate's tokens are meant.
    pub audience: Option<String>,
}

/// Where a card is.
#[derive(Debug, Clone, PartialEq)]
pub enum Card {
    /// It is fetched.
    Url(Url),
    /// It is read.
    File(PathBuf),
}

/// How a peer learns which agent acts, and for whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Delegation {
    /// In the header `Castra-Delegation`.
    #[default]
    Header,
    /// As the bearer token.
    Authorization,
    /// Not at all.
    Off,
}

/// A `[[peer]]` table as it is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Peer")]
struct PeerTable {
    /// Its name in paths, policies and records: lower case letters, digits and `-`, at most 40.
    #[schemars(with = "String")]
    name: PeerName,
    /// Its agent card: a URL such as `"https://planner.example/.well-known/agent-card.json"`, or a file.
    /// One that is fetched may only lead to where it came from (see `origins`); a file is your own word.
    #[serde(deserialize_with = "card")]
    #[schemars(with = "String")]
    card: Card,
    /// Files with public keys (PEM or a JWK set). With any, or with `jku`, a card counts only if it is
    /// signed under one of them.
    #[serde(default)]
    keys: Vec<PathBuf>,
    /// URLs of key sets that a signature may name (`jku`). No other is ever asked.
    #[serde(default)]
    jku: Vec<Url>,
    /// The SHA-256 that the card in canonical form must have, in hex. Left out: the first card that is
    /// seen is pinned, and a changed one waits for `castra peer accept`.
    #[serde(default, deserialize_with = "digest")]
    #[schemars(with = "Option<String>")]
    pin: Option<Digest>,
    /// Further places where its interfaces may be: scheme, host and port, such as `"https://api.example"`.
    #[serde(default)]
    origins: Vec<Url>,
    /// Headers added to each request, such as the gate's own credential. Values may be `env:NAME` or
    /// `file:PATH`. What a caller sends as its credential never goes on.
    #[serde(default)]
    headers: BTreeMap<String, Text>,
    /// Takes TLS 1.2 besides 1.3. Only for peers that cannot do better.
    #[serde(default)]
    tls12: bool,
    /// Permits `http` URLs to another machine: nothing sent there is secret.
    #[serde(default)]
    plaintext: bool,
    /// A PEM file with the CAs to trust, instead of the system's.
    ca: Option<PathBuf>,
    /// Where it may send push notifications: URLs, each with what is below it. They do not pass the gate,
    /// so without any there are none, and the card that agents see says so.
    #[serde(default)]
    push: Vec<Url>,
    /// How it learns which agent acts, and for whom (a JWT with `sub` and `act`, signed by the gate):
    /// `"header"` (`Castra-Delegation`), `"authorization"` (as the bearer token) or `"off"`.
    #[serde(default)]
    delegation: Delegation,
    /// `aud` of these tokens. Left out: the address that the request goes to.
    audience: Option<String>,
}

fn card<'de, D: Deserializer<'de>>(d: D) -> Result<Card, D::Error> {
    let text = String::deserialize(d)?;
    if text.starts_with("http://") || text.starts_with("https://") {
        return Url::parse(&text).map(Card::Url).ok_or_else(|| serde::de::Error::custom(Url::RULE));
    }
    Ok(Card::File(text.into()))
}

fn digest<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Digest>, D::Error> {
    let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
    let hex = text.strip_prefix("sha256:").unwrap_or(&text);
    let bytes: Option<Vec<u8>> = (0..hex.len() / 2)
        .map(|at| hex.get(at * 2..at * 2 + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect();
    let bytes = bytes.filter(|_| hex.len() == 64).and_then(|bytes| bytes.try_into().ok());
    bytes.map(|bytes| Some(Digest(bytes))).ok_or_else(|| {
        serde::de::Error::custom("pin is a SHA-256 of 64 hex digits, as castra peer show prints it")
    })
}

impl TryFrom<PeerTable> for Peer {
    type Error = String;

    fn try_from(t: PeerTable) -> Result<Self, String> {
        let name = &t.name;
        let own = match &t.card {
            Card::Url(url) => Some(url),
            Card::File(_) => None,
        };
        if let Some(url) = own.into_iter().chain(&t.origins).chain(&t.jku).find(|url| !url.is_protected())
            && !t.plaintext
        {
            return Err(format!(
                "peer {name}: {url} is plain http to another machine: use https, or add plaintext = true"
            ));
        }
        let authorization = t.headers.keys().any(|header| header.eq_ignore_ascii_case("authorization"));
        if t.delegation == Delegation::Authorization && authorization {
            return Err(format!(
                "peer {name} has delegation = \"authorization\" and a header Authorization: keep one"
            ));
        }
        Ok(Self {
            name: t.name,
            card: t.card,
            keys: t.keys,
            jku: t.jku,
            pin: t.pin,
            origins: t.origins,
            headers: t.headers,
            tls12: t.tls12,
            ca: t.ca,
            push: t.push,
            delegation: t.delegation,
            audience: t.audience,
        })
    }
}

impl JsonSchema for Peer {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Peer".into()
    }
    fn json_schema(g: &mut schemars::SchemaGenerator) -> schemars::Schema {
        PeerTable::json_schema(g)
    }
}

impl Peer {
    /// Every file that it names, to be anchored, watched and checked.
    pub(crate) fn files_mut(&mut self) -> Vec<&mut PathBuf> {
        let card = match &mut self.card {
            Card::File(path) => Some(path),
            Card::Url(_) => None,
        };
        let texts = self.headers.values_mut().filter_map(|text| match text {
            Text::File(path) => Some(path),
            Text::Plain(_) | Text::Env(_) => None,
        });
        card.into_iter().chain(&mut self.keys).chain(&mut self.ca).chain(texts).collect()
    }

    /// The same, to be looked at.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.clone().files_mut().into_iter().map(|path| path.clone()).collect()
    }
}
