//! The program's clock and its source of chance, handed to everything that needs them.

use std::time::{SystemTime, UNIX_EPOCH};

use castra_core::Timestamp;

use crate::StoreError;

/// The time now. A clock before 1970 reads as 1970.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Random bytes of the operating system, good for keys. Not those of the cryptographic library, which
/// measures the processor's jitter for some 20 ms before it gives the first.
pub fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| StoreError::NoRandomness)?;
    Ok(bytes)
}
