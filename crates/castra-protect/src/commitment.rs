//! Commitments: what the public log says about a payload that it does not show.
//!
//! A commitment is SHA-256(salt || payload). The salt has a fixed length, so a commitment binds to
//! one salt and one payload; it is random, so a payload with few possible values cannot be guessed
//! from it. The salt is kept inside the sealed payload: once the data key is destroyed nobody can
//! link the commitment to anything, and the log still verifies.

use aws_lc_rs::digest::{Context, SHA256};
use castra_core::Digest;
use zeroize::Zeroizing;

use crate::{DataKey, ProtectError, Sealer, open};

/// SHA-256(salt || payload).
pub fn commitment(salt: &[u8; 32], payload: &[u8]) -> Digest {
    let mut context = Context::new(&SHA256);
    context.update(salt);
    context.update(payload);
    let mut out = [0; 32];
    out.iter_mut().zip(context.finish().as_ref()).for_each(|(slot, byte)| *slot = *byte);
    Digest(out)
}

impl Sealer {
    /// Commits to `payload` and seals it together with `salt`, which must be freshly random for
    /// every payload.
    pub fn seal_committed(
        &self,
        aad: &[u8],
        salt: &[u8; 32],
        payload: &[u8],
    ) -> Result<(Digest, Vec<u8>), ProtectError> {
        Ok((commitment(salt, payload), self.seal_parts(aad, &[salt, payload])?))
    }
}

/// A payload with the salt that it was committed with.
pub struct Payload(Zeroizing<Vec<u8>>);

impl Payload {
    /// The salt, which lets somebody else check the commitment.
    pub fn salt(&self) -> &[u8] {
        self.0.get(..SALT_BYTES).unwrap_or_default()
    }

    /// The payload itself.
    pub fn bytes(&self) -> &[u8] {
        self.0.get(SALT_BYTES..).unwrap_or_default()
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({} bytes)", self.bytes().len())
    }
}

/// Opens what [`Sealer::seal_committed`] sealed and checks that it is what `expected` stands for.
pub fn open_committed(
    key: &DataKey,
    aad: &[u8],
    sealed: &[u8],
    expected: &Digest,
) -> Result<Payload, ProtectError> {
    let opened = open(key, aad, sealed)?;
    let (salt, payload) = opened.split_first_chunk::<SALT_BYTES>().ok_or(ProtectError::Malformed)?;
    if commitment(salt, payload) != *expected {
        return Err(ProtectError::OtherPayload);
    }
    Ok(Payload(opened))
}

const SALT_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_open_only_with_their_commitment() {
        let key = DataKey::new([3; 32]);
        let sealer = Sealer::new(&key, 1, [1; 16]).expect("sealer");
        let (digest, sealed) = sealer.seal_committed(b"a", &[9; 32], b"arguments").expect("sealed");
        let payload = open_committed(&key, b"a", &sealed, &digest).expect("opens");
        assert_eq!((payload.salt(), payload.bytes()), (&[9; 32][..], &b"arguments"[..]));
        assert_eq!(commitment(&[9; 32], b"arguments"), digest);

        let other = open_committed(&key, b"a", &sealed, &Digest([0; 32])).map(|_| ());
        assert_eq!(other, Err(ProtectError::OtherPayload));
        let short = sealer.seal(b"a", b"no salt").expect("sealed");
        assert_eq!(open_committed(&key, b"a", &short, &digest).map(|_| ()), Err(ProtectError::Malformed));
        let (empty, sealed) = sealer.seal_committed(b"a", &[9; 32], b"").expect("sealed");
        assert!(open_committed(&key, b"a", &sealed, &empty).expect("opens").bytes().is_empty());
    }
}
