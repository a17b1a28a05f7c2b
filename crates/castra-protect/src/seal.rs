//! Content under a data key: `version (1) | key id (8) | salt (16) | counter (8) | ciphertext | tag (16)`.
//!
//! AES-GCM breaks when one key encrypts two messages under the same nonce. Why that cannot happen
//! here: a message is encrypted under the subkey HKDF(data key, salt, key id) with its counter as
//! the nonce. (1) Within one `Sealer` the counter comes from one atomic `fetch_add`, so no two
//! threads get the same value, and it stops long before it could wrap. (2) The counter lives only
//! in memory, and a `Sealer` cannot be cloned; after a restart or a crash a new `Sealer` begins
//! at 0, but with a fresh random salt of 128 bits, so under another subkey. Two sealers of one data
//! key share a subkey only if their salts collide: with 2^32 starts that has a chance of 2^-65.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use zeroize::Zeroizing;

use crate::{DataKey, ProtectError, key::derive};

/// Seals messages under a subkey of a data key. Shared between threads without a lock.
pub struct Sealer {
    key: LessSafeKey,
    key_id: u64,
    salt: [u8; SALT_BYTES],
    next: AtomicU64,
}

impl Sealer {
    /// Most messages of one sealer. At 2^40 messages of 1 KiB an attacker tells AES-GCM from an
    /// ideal cipher with a chance below 2^-35 (birthday bound on 2^46 blocks); at 10,000 a second
    /// it lasts for three years.
    pub const MESSAGES_MAX: u64 = 1 << 40;

    /// Makes a sealer. `salt` must be freshly random for every sealer; `key_id` names the data key
    /// to whoever opens the messages.
    pub fn new(key: &DataKey, key_id: u64, salt: [u8; 16]) -> Result<Self, ProtectError> {
        Ok(Self { key: subkey(key, key_id, &salt)?, key_id, salt, next: AtomicU64::new(0) })
    }

    /// The data key's name.
    pub fn key_id(&self) -> u64 {
        self.key_id
    }

    /// Encrypts `plaintext` and binds it to `aad`, which is not kept in the result.
    pub fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, ProtectError> {
        self.seal_parts(aad, &[plaintext])
    }

    /// Encrypts several parts as one plaintext, copying each once.
    pub(crate) fn seal_parts(&self, aad: &[u8], parts: &[&[u8]]) -> Result<Vec<u8>, ProtectError> {
        let counter = self.next.fetch_add(1, Ordering::Relaxed);
        if counter >= Self::MESSAGES_MAX {
            // Holds for all who come later too: 2^64 more calls are out of reach.
            return Err(ProtectError::Exhausted { max: Self::MESSAGES_MAX });
        }
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut out = Vec::with_capacity(OVERHEAD_BYTES + length);
        out.push(VERSION);
        out.extend_from_slice(&self.key_id.to_be_bytes());
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&counter.to_be_bytes());
        for part in parts {
            out.extend_from_slice(part);
        }
        let content = out.get_mut(HEADER_BYTES..).ok_or(ProtectError::Library)?;
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(counter), Aad::from(aad), content)
            .map_err(|_| ProtectError::Library)?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer(key {})", self.key_id)
    }
}

/// Opens a sealed message under the data key that [`key_id_of`] names.
pub fn open(key: &DataKey, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, ProtectError> {
    let header = Header::read(sealed)?;
    let subkey = subkey(key, header.key_id, &header.salt)?;
    let mut buffer = Zeroizing::new(header.content.to_vec());
    let length = subkey
        .open_in_place(nonce(header.counter), Aad::from(aad), &mut buffer)
        .map_err(|_| ProtectError::DoesNotOpen)?
        .len();
    buffer.truncate(length);
    Ok(buffer)
}

/// Which data key a sealed message needs.
pub fn key_id_of(sealed: &[u8]) -> Result<u64, ProtectError> {
    Ok(Header::read(sealed)?.key_id)
}

struct Header<'a> {
    key_id: u64,
    salt: [u8; SALT_BYTES],
    counter: u64,
    content: &'a [u8],
}

impl<'a> Header<'a> {
    /// Every field of the header goes into the subkey or the nonce, so a changed one does not open.
    fn read(sealed: &'a [u8]) -> Result<Self, ProtectError> {
        let read = || {
            let (version, rest) = sealed.split_first()?;
            let (key_id, rest) = rest.split_first_chunk::<8>()?;
            let (salt, rest) = rest.split_first_chunk::<SALT_BYTES>()?;
            let (counter, content) = rest.split_first_chunk::<8>()?;
            let known = *version == VERSION && content.len() >= TAG_BYTES;
            known.then_some(Self {
                key_id: u64::from_be_bytes(*key_id),
                salt: *salt,
                counter: u64::from_be_bytes(*counter),
                content,
            })
        };
        read().ok_or(ProtectError::Malformed)
    }
}

fn subkey(key: &DataKey, key_id: u64, salt: &[u8; SALT_BYTES]) -> Result<LessSafeKey, ProtectError> {
    derive(key.secret(), salt, &[b"castra seal v1\0", &key_id.to_be_bytes()])
}

/// The counter as a 96-bit big-endian number.
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    if let Some(low) = bytes.last_chunk_mut::<8>() {
        *low = counter.to_be_bytes();
    }
    Nonce::assume_unique_for_key(bytes)
}

const VERSION: u8 = 1;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + 8 + SALT_BYTES + 8;
const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn key() -> DataKey {
        DataKey::new([3; 32])
    }

    #[test]
    fn nonces_never_repeat_across_threads() {
        let sealer = Sealer::new(&key(), 5, [1; 16]).expect("sealer");
        let headers: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let seal = || {
                (0..500).map(|_| sealer.seal(b"", b"x").expect("sealed")[..33].to_vec()).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(seal)).collect();
            threads.into_iter().flat_map(|t| t.join().expect("joined")).collect()
        });
        assert_eq!(headers.iter().collect::<HashSet<_>>().len(), 2000);
    }

    #[test]
    fn a_sealer_ends_before_its_bound() {
        let sealer = Sealer::new(&key(), 5, [1; 16]).expect("sealer");
        sealer.next.store(Sealer::MESSAGES_MAX - 1, Ordering::Relaxed);
        assert!(sealer.seal(b"", b"last").is_ok());
        for _ in 0..3 {
            assert_eq!(sealer.seal(b"", b"more"), Err(ProtectError::Exhausted { max: Sealer::MESSAGES_MAX }));
        }
    }

    #[test]
    fn every_bit_counts() {
        let sealer = Sealer::new(&key(), 5, [1; 16]).expect("sealer");
        let sealed = sealer.seal(b"agent:a", b"payload").expect("sealed");
        assert_eq!(open(&key(), b"agent:a", &sealed).expect("opens").as_slice(), b"payload");
        assert_eq!(key_id_of(&sealed), Ok(5));
        assert_eq!(open(&key(), b"agent:b", &sealed), Err(ProtectError::DoesNotOpen));
        assert_eq!(open(&DataKey::new([4; 32]), b"agent:a", &sealed), Err(ProtectError::DoesNotOpen));
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&key(), b"agent:a", &changed).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(open(&key(), b"agent:a", &sealed[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn another_salt_is_another_cipher() {
        let seal = |salt| Sealer::new(&key(), 5, salt).and_then(|s| s.seal(b"", b"same")).expect("sealed");
        assert_ne!(seal([1; 16])[HEADER_BYTES..], seal([2; 16])[HEADER_BYTES..]);
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(aad in any::<Vec<u8>>(), text in any::<Vec<u8>>()) {
            let sealer = Sealer::new(&key(), u64::MAX, [1; 16]).expect("sealer");
            let sealed = sealer.seal(&aad, &text).expect("sealed");
            prop_assert_eq!(sealed.len(), text.len() + OVERHEAD_BYTES);
            prop_assert_eq!(open(&key(), &aad, &sealed).expect("opens").to_vec(), text);
        }

        #[test]
        fn any_bytes_are_judged_without_panic(bytes in any::<Vec<u8>>()) {
            prop_assert!(open(&key(), b"", &bytes).is_err());
            let _ = key_id_of(&bytes);
        }
    }
}
