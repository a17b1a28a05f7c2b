//! Remembers who a JWT or a given certificate stands for, so that it is verified once in its life
//! and not once per request.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use ahash::RandomState;
use castra_core::{AgentIdentity, Digest, Timestamp};

use crate::sha256;

/// Names a verified credential together with what it was verified for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey(Digest);

impl CacheKey {
    /// A JWT shown at one resource. The resource belongs to the key because the audience was
    /// checked against it.
    pub fn jwt(token: &str, resource: &str) -> Self {
        // NUL occurs in neither, so two pairs never look alike.
        Self(sha256(&[token.as_bytes(), b"\0", resource.as_bytes()]))
    }

    /// A client certificate.
    pub fn certificate(fingerprint: &Digest) -> Self {
        Self(*fingerprint)
    }
}

/// A bounded memory of verified credentials. An entry is good until the credential expires, at most
/// [`IdentityCache::LIFE_SECS_MAX`], and only for the table version that it was admitted under: a
/// revoked agent is forgotten at once.
#[derive(Debug)]
pub struct IdentityCache {
    shards: Vec<Mutex<HashMap<CacheKey, Entry, RandomState>>>,
    entries_per_shard_max: usize,
}

#[derive(Debug)]
struct Entry {
    identity: Arc<AgentIdentity>,
    table_version: u64,
    until: Timestamp,
}

impl IdentityCache {
    /// Longest time that an entry is believed, so that keys withdrawn by an issuer stop counting.
    pub const LIFE_SECS_MAX: i64 = 300;
    const SHARDS: usize = 16;

    /// A cache for about `entries_max` credentials.
    pub fn new(entries_max: usize) -> Self {
        Self {
            shards: (0..Self::SHARDS).map(|_| Mutex::default()).collect(),
            entries_per_shard_max: entries_max.div_ceil(Self::SHARDS).max(1),
        }
    }

    /// Who it stands for, when that is still known.
    pub fn get(&self, key: &CacheKey, table_version: u64, now: Timestamp) -> Option<Arc<AgentIdentity>> {
        let shard = self.shard(key)?.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = shard.get(key)?;
        entry.good(table_version, now).then(|| Arc::clone(&entry.identity))
    }

    /// Remembers a verified credential. When there is no room, entries that no longer count go
    /// first, then an arbitrary one: losing an entry only costs a verification.
    pub fn put(&self, key: CacheKey, table_version: u64, identity: Arc<AgentIdentity>, now: Timestamp) {
        let latest = now.plus_secs(Self::LIFE_SECS_MAX);
        let until = identity.expires.map_or(latest, |expires| expires.min(latest));
        let Some(shard) = self.shard(&key) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= self.entries_per_shard_max {
            shard.retain(|_, entry| entry.good(table_version, now));
        }
        if shard.len() >= self.entries_per_shard_max
            && let Some(victim) = shard.keys().next().copied()
        {
            shard.remove(&victim);
        }
        shard.insert(key, Entry { identity, table_version, until });
    }

    fn shard(&self, key: &CacheKey) -> Option<&Mutex<HashMap<CacheKey, Entry, RandomState>>> {
        let first = key.0.0.first().copied().unwrap_or(0);
        self.shards.get(usize::from(first) % Self::SHARDS)
    }
}

impl Entry {
    fn good(&self, table_version: u64, now: Timestamp) -> bool {
        self.table_version == table_version && now < self.until
    }
}

#[cfg(test)]
mod tests {
    use castra_core::{AgentName, AuthMethod};

    use super::*;

    fn identity(expires: i64) -> Arc<AgentIdentity> {
        Arc::new(AgentIdentity {
            name: AgentName::new("a").expect("name"),
            groups: vec![],
            method: AuthMethod::Jwt,
            credential: "x".into(),
            expires: Some(Timestamp::from_secs(expires)),
            scopes: vec![],
            delegation: Vec::new(),
        })
    }

    #[test]
    fn entries_end_with_the_credential_the_table_and_five_minutes() {
        let cache = IdentityCache::new(100);
        let (short, long) = (CacheKey::jwt("a", "r"), CacheKey::jwt("b", "r"));
        let at = Timestamp::from_secs;
        cache.put(short, 1, identity(60), at(0));
        cache.put(long, 1, identity(10_000), at(0));
        assert!(cache.get(&short, 1, at(59)).is_some());
        assert!(cache.get(&short, 1, at(60)).is_none());
        assert!(cache.get(&long, 1, at(299)).is_some());
        assert!(cache.get(&long, 1, at(300)).is_none());
        assert!(cache.get(&long, 2, at(1)).is_none());
        assert!(cache.get(&CacheKey::jwt("b", "other"), 1, at(1)).is_none());
    }

    #[test]
    fn it_stays_bounded() {
        let cache = IdentityCache::new(32);
        for n in 0..1000 {
            cache.put(CacheKey::jwt(&n.to_string(), "r"), 1, identity(10_000), Timestamp::from_secs(0));
        }
        let held: usize = cache.shards.iter().map(|s| s.lock().map_or(0, |s| s.len())).sum();
        assert!(held <= 32, "{held}");
    }
}
