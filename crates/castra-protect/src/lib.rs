//! Envelope encryption of what Castra keeps.
//!
//! A master key wraps data keys (`key`), one per agent and purpose, so that destroying a data key
//! destroys everything under it. A data key never encrypts content itself: each process derives a
//! subkey of its own and counts its nonces (`seal`). Commitments (`commitment`) stand in the public
//! log for payloads that only holders of the data key can read. Nothing here does input or output
//! or draws randomness: salts and keys are handed in.

mod commitment;
mod key;
mod seal;

pub use commitment::{Payload, commitment, open_committed};
pub use key::{DataKey, MasterKey};
pub use seal::{Sealer, key_id_of, open};

/// Why something could not be protected or read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtectError {
    /// The cryptographic library refused.
    #[error("the cryptographic library failed; the process should not go on")]
    Library,
    /// The bytes are not what this crate writes.
    #[error("the protected bytes are cut or of a version that is not known here")]
    Malformed,
    /// Wrong key, wrong context, or changed bytes: which of them cannot be told.
    #[error("the protected bytes do not open: another key, another context, or they were changed")]
    DoesNotOpen,
    /// The bytes open, but are not what was committed to.
    #[error("the payload opens, but it is not the one that its commitment stands for")]
    OtherPayload,
    /// As many messages were sealed as one subkey should seal.
    #[error("the sealer has sealed its {max} messages; make a new one with a fresh salt")]
    Exhausted {
        /// The most that one sealer seals.
        max: u64,
    },
}
