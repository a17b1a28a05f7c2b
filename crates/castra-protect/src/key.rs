//! Keys that wrap keys.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::ProtectError;

/// Wraps data keys. One per installation; lives in a file that only Castra reads.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// Takes 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// Protects the payloads of one subject. Kept wrapped; deleting it erases what it protects.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct DataKey([u8; 32]);

impl DataKey {
    /// Takes 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Encrypts this key under the master key for one context, such as `agent:NAME:payload`:
    /// `version (1) | salt (32) | ciphertext (32) | tag (16)`. `salt` must be random.
    ///
    /// The salt makes an AES-256-GCM key of its own for every wrapping, used for one message, so
    /// its nonce can be fixed.
    pub fn wrap(&self, master: &MasterKey, context: &str, salt: [u8; 32]) -> Result<Vec<u8>, ProtectError> {
        let key = wrapping_key(master, context, &salt)?;
        let mut out = Vec::with_capacity(WRAPPED_BYTES);
        out.push(VERSION);
        out.extend_from_slice(&salt);
        let mut secret = Zeroizing::new(self.0);
        let tag = key
            .seal_in_place_separate_tag(only_nonce(), Aad::from(context.as_bytes()), &mut secret[..])
            .map_err(|_| ProtectError::Library)?;
        out.extend_from_slice(&secret[..]);
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Reads a wrapped key back.
    pub fn unwrap(master: &MasterKey, context: &str, wrapped: &[u8]) -> Result<Self, ProtectError> {
        if wrapped.len() != WRAPPED_BYTES {
            return Err(ProtectError::Malformed);
        }
        let (version, rest) = wrapped.split_first().ok_or(ProtectError::Malformed)?;
        let (salt, sealed) = rest.split_first_chunk::<32>().ok_or(ProtectError::Malformed)?;
        if *version != VERSION {
            return Err(ProtectError::Malformed);
        }
        let key = wrapping_key(master, context, salt)?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let opened = key
            .open_in_place(only_nonce(), Aad::from(context.as_bytes()), &mut sealed)
            .map_err(|_| ProtectError::DoesNotOpen)?;
        let bytes: &[u8; 32] = (&*opened).try_into().map_err(|_| ProtectError::Malformed)?;
        Ok(Self(*bytes))
    }

    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(hidden)")
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(hidden)")
    }
}

/// An AES-256-GCM key by HKDF-SHA256 (RFC 5869). `info` is a list of parts; only the last may vary
/// in length, so that two lists never read the same.
pub(crate) fn derive(secret: &[u8; 32], salt: &[u8], info: &[&[u8]]) -> Result<LessSafeKey, ProtectError> {
    let prk = Salt::new(HKDF_SHA256, salt).extract(secret);
    let okm = prk.expand(info, &AES_256_GCM).map_err(|_| ProtectError::Library)?;
    Ok(LessSafeKey::new(UnboundKey::from(okm)))
}

fn wrapping_key(master: &MasterKey, context: &str, salt: &[u8; 32]) -> Result<LessSafeKey, ProtectError> {
    derive(&master.0, salt, &[b"castra wrap v1\0", context.as_bytes()])
}

fn only_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

const VERSION: u8 = 1;
const WRAPPED_BYTES: usize = 1 + 32 + 32 + 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_under_the_same_master_and_context_only() {
        let (master, other) = (MasterKey::new([1; 32]), MasterKey::new([2; 32]));
        let wrapped = DataKey::new([7; 32]).wrap(&master, "agent:a:payload", [9; 32]).expect("wrapped");
        assert_eq!(wrapped.len(), WRAPPED_BYTES);
        let unwrap =
            |master, context, bytes: &[u8]| DataKey::unwrap(master, context, bytes).map(|k| *k.secret());
        assert_eq!(unwrap(&master, "agent:a:payload", &wrapped), Ok([7; 32]));
        assert_eq!(unwrap(&other, "agent:a:payload", &wrapped), Err(ProtectError::DoesNotOpen));
        assert_eq!(unwrap(&master, "agent:b:payload", &wrapped), Err(ProtectError::DoesNotOpen));
        assert_eq!(unwrap(&master, "agent:a:payload", &wrapped[..80]), Err(ProtectError::Malformed));
        assert_eq!(unwrap(&master, "agent:a:payload", &[]), Err(ProtectError::Malformed));
        for at in 0..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[at] ^= 1;
            assert!(unwrap(&master, "agent:a:payload", &changed).is_err(), "at {at}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(
            format!("{:?}{:?}", MasterKey::new([1; 32]), DataKey::new([1; 32])),
            "MasterKey(hidden)DataKey(hidden)"
        );
    }
}
