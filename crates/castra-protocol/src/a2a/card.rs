//! Agent cards (specification, section 4.4 and 8): read strictly, in the form that is signed, and
//! rewritten so that whoever follows one comes to the gate.
//!
//! A card is taken apart into the fields that 1.0 has. What is not among them is dropped: an older
//! version's `url`, or a field that nobody knows, could name the agent's own address and lead past
//! the gate, and most signers do not sign it.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Binding,
    jcs::{JcsError, canonical},
};
use crate::json::{self, JsonError};

/// Longest card. Those with many skills reach some tens of KiB.
pub const CARD_BYTES_MAX: usize = 512 << 10;
/// Most interfaces, skills, extensions and signatures of a card.
const LIST_MAX: usize = 256;
const DEPTH_MAX: usize = 32;

/// Why a card is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// Too long.
    #[error("the card has {bytes} bytes, and {CARD_BYTES_MAX} are the most")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// Not JSON as it is taken here.
    #[error("the card is not JSON as it is taken here: {0}")]
    Json(JsonError),
    /// Not the document that 1.0 describes.
    #[error("the card is not an A2A 1.0 agent card: {reason}")]
    Shape {
        /// What the parser says.
        reason: String,
    },
    /// More of something than any card needs.
    #[error("the card has more than {LIST_MAX} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
    /// It has no canonical form, so no digest and no signature.
    #[error("the card has no canonical form: {0}")]
    Canonical(#[from] JcsError),
    /// Nothing in it can be reached through the gate.
    #[error("the card offers no JSONRPC or HTTP+JSON interface of version 1.0")]
    NoInterface,
}

/// An agent's card: the fields of 1.0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentCard {
    /// What it calls itself.
    pub name: String,
    /// What it says of itself.
    pub description: String,
    /// Where it is reached, preferred ones first.
    pub supported_interfaces: Vec<Interface>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider: Option<Provider>,
    /// Its own version.
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    documentation_url: Option<String>,
    #[serde(default)]
    capabilities: Capabilities,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    security_schemes: BTreeMap<String, Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    security_requirements: Vec<Value>,
    #[serde(default)]
    default_input_modes: Vec<String>,
    #[serde(default)]
    default_output_modes: Vec<String>,
    #[serde(default)]
    skills: Vec<Skill>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    signatures: Vec<RawSignature>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    icon_url: Option<String>,
}

/// One way to reach an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// The address.
    pub url: String,
    /// The binding's name.
    pub protocol_binding: String,
    /// Which of several agents at that address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// The protocol's version there.
    pub protocol_version: String,
}

impl Interface {
    /// Its binding, if it is one that the gate speaks in the version that it speaks.
    pub fn binding(&self) -> Option<Binding> {
        let version = super::check_version(Some(&self.protocol_version), None);
        version.ok().and_then(|()| Binding::from_name(&self.protocol_binding))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Provider {
    url: String,
    organization: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Capabilities {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    streaming: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    push_notifications: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    extensions: Vec<Extension>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extended_agent_card: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Extension {
    #[serde(default)]
    uri: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    params: Option<Map<String, Value>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Skill {
    id: String,
    name: String,
    description: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    examples: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    input_modes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    output_modes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    security_requirements: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RawSignature {
    protected: String,
    signature: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    header: Option<Map<String, Value>>,
}

/// A signature of a card, ready to be verified (RFC 7515, detached payload).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardSignature {
    /// The algorithm that it claims (`alg`).
    pub algorithm: String,
    /// The key that it names (`kid`).
    pub key_id: Option<String>,
    /// Where that key would be (`jku`).
    pub key_set: Option<String>,
    /// What may have been signed: the same card in each form that signers make of it.
    pub signed: Vec<String>,
    /// The signature itself.
    pub signature: Vec<u8>,
}

/// What replaces a card's own addresses and demands.
#[derive(Debug, Clone, Copy)]
pub struct Rewrite<'a> {
    /// Where the agent is at the gate, for both bindings.
    pub url: &'a str,
    /// Whether clients may authenticate by certificate too.
    pub mutual_tls: bool,
    /// Whether notifications may go anywhere.
    pub push: bool,
}

impl AgentCard {
    /// Reads a card.
    ///
    /// # Errors
    /// What makes it none.
    pub fn parse(bytes: &[u8]) -> Result<Self, CardError> {
        if bytes.len() > CARD_BYTES_MAX {
            return Err(CardError::TooLong { bytes: bytes.len() });
        }
        // Doubled names and depth are refused first: another parser might take the other one.
        let text = json::check(bytes, DEPTH_MAX).map_err(CardError::Json)?;
        let card: Self =
            serde_json::from_str(text).map_err(|e| CardError::Shape { reason: e.to_string() })?;
        for (what, count) in [
            ("interfaces", card.supported_interfaces.len()),
            ("skills", card.skills.len()),
            ("extensions", card.capabilities.extensions.len()),
            ("signatures", card.signatures.len()),
            ("security schemes", card.security_schemes.len()),
        ] {
            if count > LIST_MAX {
                return Err(CardError::TooMany { what });
            }
        }
        if card.supported_interfaces.iter().all(|i| i.binding().is_none()) {
            return Err(CardError::NoInterface);
        }
        Ok(card)
    }

    /// The card without its signatures, in canonical form: what a pin is the digest of. Who signs it
    /// anew, or lays it out otherwise, has not changed it.
    ///
    /// # Errors
    /// When it has none.
    pub fn canonical(&self) -> Result<String, CardError> {
        Ok(canonical(&self.unsigned())?)
    }

    fn unsigned(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Some(members) = value.as_object_mut() {
            members.remove("signatures");
        }
        value
    }

    /// Its signatures. Those whose header is not readable, or demands an extension (`crit`), are left out.
    ///
    /// What is signed is the card without `signatures` in canonical form (specification, section
    /// 8.4). Signers differ in what they leave out of it, so there are several candidates; each of
    /// them says all that this type holds.
    ///
    /// # Errors
    /// When it has no canonical form.
    pub fn signatures(&self) -> Result<Vec<CardSignature>, CardError> {
        let whole = self.unsigned();
        let mut forms = vec![canonical(&whole)?];
        // The SDKs leave out whatever is empty, at every depth.
        let lean = canonical(&without_empty(whole).unwrap_or(Value::Null))?;
        if !forms.contains(&lean) {
            forms.push(lean);
        }
        Ok(self.signatures.iter().filter_map(|raw| raw.read(&forms)).collect())
    }

    /// Whether it bears any signature.
    pub fn is_signed(&self) -> bool {
        !self.signatures.is_empty()
    }

    /// Whether it offers notifications.
    pub fn offers_push(&self) -> bool {
        self.capabilities.push_notifications == Some(true)
    }

    /// The card that agents are shown: the same skills, at the gate's address, with the gate's own way
    /// to authenticate, and no signature, because it is another document now. Of the interfaces
    /// those stay that `kept` picks.
    #[must_use]
    pub fn rewritten(&self, rewrite: &Rewrite<'_>, kept: impl Fn(&Interface) -> bool) -> Self {
        let mut card = self.clone();
        card.supported_interfaces = self
            .supported_interfaces
            .iter()
            .filter(|interface| kept(interface))
            .map(|interface| Interface {
                url: rewrite.url.to_owned(),
                protocol_version: super::VERSION.to_owned(),
                ..interface.clone()
            })
            .collect();
        card.supported_interfaces.dedup();
        card.signatures.clear();
        if !rewrite.push && card.capabilities.push_notifications.is_some() {
            card.capabilities.push_notifications = Some(false);
        }
        (card.security_schemes, card.security_requirements) = gate_security(rewrite.mutual_tls);
        for skill in &mut card.skills {
            skill.security_requirements.clear();
        }
        card
    }

    /// The card as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// How agents authenticate at the gate: a bearer token, or a client certificate where there is TLS.
fn gate_security(mutual_tls: bool) -> (BTreeMap<String, Value>, Vec<Value>) {
    const TOKEN: &str = "castra";
    const CERTIFICATE: &str = "castraCertificate";
    let requirement = |name: &str| serde_json::json!({ "schemes": { name: { "list": [] } } });
    let scheme = serde_json::json!({ "httpAuthSecurityScheme": { "scheme": "Bearer" } });
    let mut schemes = BTreeMap::from([(TOKEN.to_owned(), scheme)]);
    let mut requirements = vec![requirement(TOKEN)];
    if mutual_tls {
        schemes.insert(CERTIFICATE.to_owned(), serde_json::json!({ "mtlsSecurityScheme": {} }));
        requirements.push(requirement(CERTIFICATE));
    }
    (schemes, requirements)
}

impl RawSignature {
    fn read(&self, forms: &[String]) -> Option<CardSignature> {
        #[derive(Deserialize)]
        struct Header {
            alg: String,
            kid: Option<String>,
            jku: Option<String>,
            crit: Option<serde::de::IgnoredAny>,
        }
        let header = URL_SAFE_NO_PAD.decode(&self.protected).ok()?;
        json::check(&header, DEPTH_MAX).ok()?;
        let header: Header = serde_json::from_slice(&header).ok()?;
        if header.crit.is_some() {
            return None;
        }
        let input = |form: &String| format!("{}.{}", self.protected, URL_SAFE_NO_PAD.encode(form));
        Some(CardSignature {
            algorithm: header.alg,
            key_id: header.kid,
            key_set: header.jku,
            signed: forms.iter().map(input).collect(),
            signature: URL_SAFE_NO_PAD.decode(&self.signature).ok()?,
        })
    }
}

/// The value without empty texts, lists, objects and null, at every depth.
fn without_empty(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then_some(Value::String(text)),
        Value::Array(list) => {
            let list: Vec<Value> = list.into_iter().filter_map(without_empty).collect();
            (!list.is_empty()).then_some(Value::Array(list))
        }
        Value::Object(members) => {
            let members: Map<String, Value> =
                members.into_iter().filter_map(|(name, value)| Some((name, without_empty(value)?))).collect();
            (!members.is_empty()).then_some(Value::Object(members))
        }
        other => Some(other),
    }
}
