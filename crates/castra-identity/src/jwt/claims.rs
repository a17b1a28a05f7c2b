//! The claims of a token whose signature holds, read in Castra's words.

use std::{fmt, sync::Arc};

use castra_core::{AgentName, GroupName, Timestamp};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{IssuerConfig, JwtError, delegation, shown, unreadable};
use crate::oauth::covers;

/// Most groups or scopes of one token.
const LIST_MAX: usize = 256;
/// Longest `jti` or subject that is taken into a credential's name.
const CREDENTIAL_CHARS_MAX: usize = 128;

#[derive(Debug)]
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, JwtError> {
        serde_json::from_slice(bytes).map_err(|e| unreadable("payload", &e))
    }

    pub(super) fn check_issuer(&self, config: &IssuerConfig) -> Result<(), JwtError> {
        let found = self.text("iss")?;
        if found == config.issuer {
            return Ok(());
        }
        Err(JwtError::Issuer { found: shown(found), expected: config.issuer.clone() })
    }

    /// RFC 8707 section 2 and the MCP authorization specification: a token counts only where it
    /// was meant to be used. A token for the gate or for `/mcp` as a whole covers what is below.
    pub(super) fn check_audience(&self, config: &IssuerConfig, resource: &str) -> Result<(), JwtError> {
        let found = self.texts("aud").ok_or_else(|| claim("aud", "a text or a list of texts"))?;
        let meant =
            |audience: &&str| config.audiences.iter().any(|a| a == *audience) || covers(audience, resource);
        if found.iter().any(meant) {
            return Ok(());
        }
        let found = found.iter().take(8).map(|a| shown(a)).collect();
        Err(JwtError::Audience { found, resource: resource.to_owned() })
    }

    /// Checks `exp`, `nbf` and `iat` (RFC 7519 section 4.1) and says until when the token counts.
    pub(super) fn check_times(&self, config: &IssuerConfig, now: Timestamp) -> Result<Timestamp, JwtError> {
        let skew = i64::from(config.clock_skew_secs);
        let exp = self.time("exp")?.ok_or_else(|| claim("exp", "seconds since 1970"))?;
        let expires = exp.plus_secs(skew);
        if expires <= now {
            return Err(JwtError::Expired { at: exp });
        }
        let latest = now.plus_secs(skew);
        if let Some(at) = self.time("nbf")?.filter(|at| *at > latest) {
            return Err(JwtError::NotYet { at });
        }
        if let Some(at) = self.time("iat")?.filter(|at| *at > latest) {
            return Err(JwtError::IssuedInFuture { at });
        }
        Ok(expires)
    }

    /// The agent, and on whose behalf it acts. In a token with `act` (RFC 8693) that claim names the
    /// agent, whatever [`IssuerConfig::agent_claim`] says: the other claims are of the subject.
    pub(super) fn agent(&self, config: &IssuerConfig) -> Result<(AgentName, Vec<Arc<str>>), JwtError> {
        match self.0.get("act") {
            None => Ok((named(config, &config.agent_claim, self.text(&config.agent_claim)?)?, Vec::new())),
            Some(act) => {
                let delegation = delegation::read(act, self.text("sub")?, &config.issuer)?;
                Ok((named(config, "act.sub", &delegation.actor)?, delegation.chain))
            }
        }
    }

    pub(super) fn groups(&self, config: &IssuerConfig) -> Result<Vec<GroupName>, JwtError> {
        if self.find(&config.groups_claim).is_none() {
            return Ok(Vec::new());
        }
        let values = self.list(&config.groups_claim)?;
        let named = |value: &&str| config.groups.get(*value).cloned().or_else(|| GroupName::new(value).ok());
        Ok(values.iter().filter_map(named).collect())
    }

    /// A token without the claim is not limited by scopes. One that has the claim and grants
    /// nothing is refused, because no scopes at all would read as no limit.
    pub(super) fn scopes(&self, config: &IssuerConfig) -> Result<Vec<Arc<str>>, JwtError> {
        let name = &config.scope_claim;
        if self.find(name).is_none() {
            return Ok(Vec::new());
        }
        let mut scopes: Vec<Arc<str>> = Vec::new();
        for word in self.list(name)?.iter().flat_map(|text| text.split(' ')).filter(|word| !word.is_empty()) {
            match config.scopes.get(word) {
                Some(meaning) => scopes.extend(meaning.iter().map(|scope| Arc::from(scope.as_str()))),
                None => scopes.push(word.into()),
            }
        }
        match scopes.len() {
            0 => Err(JwtError::NoScope { claim: name.clone() }),
            n if n > LIST_MAX => Err(JwtError::TooMany { claim: name.clone(), max: LIST_MAX }),
            _ => Ok(scopes),
        }
    }

    pub(super) fn credential(&self, config: &IssuerConfig) -> Arc<str> {
        let short =
            |name| self.find(name).and_then(Value::as_str).map(|text| printable(text, CREDENTIAL_CHARS_MAX));
        let what = match (short("jti"), short("sub")) {
            (Some(jti), _) => format!("jti:{jti}"),
            (None, Some(sub)) => format!("sub:{sub}"),
            (None, None) => "unnamed".to_owned(),
        };
        format!("jwt:{} {what}", config.issuer).into()
    }

    pub(super) fn text(&self, name: &str) -> Result<&str, JwtError> {
        self.find(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| claim(name, "a text"))
    }

    fn list(&self, name: &str) -> Result<Vec<&str>, JwtError> {
        let list = self.texts(name).ok_or_else(|| claim(name, "a text or a list of texts"))?;
        if list.len() > LIST_MAX {
            return Err(JwtError::TooMany { claim: name.to_owned(), max: LIST_MAX });
        }
        Ok(list)
    }

    /// A text or a list of nothing but texts.
    fn texts(&self, name: &str) -> Option<Vec<&str>> {
        match self.find(name)? {
            Value::String(text) => Some(vec![text]),
            Value::Array(list) => list.iter().map(Value::as_str).collect(),
            _ => None,
        }
    }

    /// RFC 7519 section 2, NumericDate: seconds, perhaps with a fraction.
    fn time(&self, name: &str) -> Result<Option<Timestamp>, JwtError> {
        let Some(value) = self.find(name) else { return Ok(None) };
        let secs = value
            .as_i64()
            .or_else(|| value.as_f64().filter(|secs| (0.0..=1e12).contains(secs)).map(|secs| secs as i64));
        secs.map(|secs| Some(Timestamp::from_secs(secs))).ok_or_else(|| claim(name, "seconds since 1970"))
    }

    /// A claim by its name, or by a path of names joined with dots. The whole name goes first,
    /// because claims with dots in their names (URLs) are common.
    fn find(&self, name: &str) -> Option<&Value> {
        if let Some(value) = self.0.get(name) {
            return Some(value);
        }
        let mut names = name.split('.');
        let first = self.0.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name))
    }
}

/// Reads an object and refuses claims that occur twice (RFC 7519 section 4 allows refusing them).
impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Claims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of claims")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Claims, A::Error> {
                let mut claims = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if claims.contains_key(&name) {
                        return Err(A::Error::custom(format!("claim {:?} occurs twice", shown(&name))));
                    }
                    claims.insert(name, value);
                }
                Ok(Claims(claims))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The agent that a value of a claim means.
fn named(config: &IssuerConfig, claim: &str, value: &str) -> Result<AgentName, JwtError> {
    match config.agents.get(value) {
        Some(name) => Ok(name.clone()),
        None => AgentName::new(value)
            .map_err(|e| JwtError::AgentName { claim: claim.to_owned(), reason: e.to_string() }),
    }
}

pub(super) fn claim(name: &str, expected: &'static str) -> JwtError {
    JwtError::Claim { claim: name.to_owned(), expected }
}

/// Text from the token for records: no control characters, bounded.
fn printable(text: &str, chars_max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(chars_max).collect()
}
