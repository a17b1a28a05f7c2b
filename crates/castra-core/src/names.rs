//! Names that people choose, checked once so that they can be used in paths, policies and records.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameError {
    what: &'static str,
    name: String,
    rule: &'static str,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} cannot name {}: use {}", self.name, self.what, self.rule)
    }
}

impl std::error::Error for NameError {}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks a name.
            pub fn new(name: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(name) {
                    Ok(Self(name.into()))
                } else {
                    let shown = name.chars().take(80).collect();
                    Err(NameError { what: $what, name: shown, rule: $rule })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
        impl FromStr for $type {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                Self::new(s)
            }
        }
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

fn starts_and_continues(name: &str, max: usize, more: fn(u8) -> bool) -> bool {
    let bytes = name.as_bytes();
    let first = bytes.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let last = bytes.last().is_some_and(u8::is_ascii_alphanumeric);
    first && last && bytes.len() <= max && bytes.iter().all(|b| more(*b))
}

name!(
    /// An agent's name: lower case letters, digits, `.`, `_`, `-`; at most 64 characters.
    AgentName,
    "an agent",
    "1 to 64 lower case letters, digits, '.', '_' or '-', starting and ending with a letter or digit",
    |n| starts_and_continues(n, 64, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
);

name!(
    /// A group of agents or people.
    GroupName,
    "a group",
    "1 to 64 lower case letters, digits, '.', '_' or '-', starting and ending with a letter or digit",
    |n| starts_and_continues(n, 64, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
);

name!(
    /// A server's name. It has no `_`, so that `server__tool` can be taken apart in one way only.
    ServerName,
    "a server",
    "1 to 40 lower case letters, digits or '-', starting and ending with a letter or digit",
    |n| starts_and_continues(n, 40, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
);

impl ServerName {
    /// The server that an agent's own tools count as part of, in policies and records: those that a
    /// model may call and that no server of the gate offers. No configured server may bear the name.
    pub const LOCAL: &str = "local";

    /// [`Self::LOCAL`] as a name.
    pub fn local() -> Self {
        Self(Self::LOCAL.into())
    }
}

name!(
    /// A model route's name, as agents send it in `model`: letters, digits, `.`, `_`, `-`, `:`, `/`,
    /// so that the names that providers use can be kept; at most 128 characters.
    ModelName,
    "a model route",
    "1 to 128 letters, digits, '.', '_', '-', ':' or '/', starting and ending with a letter or digit",
    |n| {
        let end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = n.as_bytes();
        end(bytes.first())
            && end(bytes.last())
            && bytes.len() <= 128
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._-:/".contains(b))
    }
);

name!(
    /// A peer's name: another agent behind the gate, at `/a2a/NAME`.
    PeerName,
    "a peer",
    "1 to 40 lower case letters, digits or '-', starting and ending with a letter or digit",
    |n| starts_and_continues(n, 40, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "build-bot", "0", "a.b_c-d"] {
            assert!(AgentName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a b", "a/b", "ä", &"a".repeat(65)] {
            assert!(AgentName::new(bad).is_err(), "{bad}");
        }
        assert!(ServerName::new("my-files").is_ok());
        assert!(ServerName::new("my_files").is_err());
        assert_eq!(ServerName::new(ServerName::LOCAL), Ok(ServerName::local()));
        for good in ["gpt-4.1-mini", "llama3.1:8b", "Qwen/Qwen3"] {
            assert!(ModelName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a b", &"a".repeat(129)] {
            assert!(ModelName::new(bad).is_err(), "{bad}");
        }
        let e = ServerName::new("My Files").expect_err("refused");
        assert!(e.to_string().contains("\"My Files\" cannot name a server"));
    }
}
