//! A SHA-256 digest. How it is computed is the business of the crates that hash.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// 32 bytes that stand for content; shown and serialised as 64 lower case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

const HEX: &[u8; 16] = b"0123456789abcdef";

impl Digest {
    /// Reads 64 hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return None;
        }
        let mut out = [0; 32];
        for (slot, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            if pair.starts_with('+') {
                return None;
            }
            *slot = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(out))
    }

    /// The 64 hex digits.
    pub fn to_hex(self) -> String {
        let digit = |n: u8| char::from(*HEX.get(usize::from(n)).unwrap_or(&b'0'));
        self.0.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("expected 64 hex digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways() {
        let d = Digest(std::array::from_fn(|i| (i * 9) as u8));
        assert_eq!(Digest::from_hex(&d.to_hex()), Some(d));
        for bad in ["", "00", &"+1".repeat(32), &"zz".repeat(32)] {
            assert_eq!(Digest::from_hex(bad), None, "{bad}");
        }
    }
}
