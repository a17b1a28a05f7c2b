//! What stays open after a request hangs on the credential that opened it: a call that runs, a stream
//! of events. When the credential is revoked or ends, so does all that hangs on it, at once.

use std::{collections::HashMap, sync::Arc};

use castra_core::{AgentIdentity, AgentName, Timestamp};
use castra_identity::{AgentState, CredentialTable};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

/// The credentials under which something was opened.
pub(crate) struct Standings {
    credentials: RwLock<HashMap<Arc<str>, Standing>>,
    closing: CancellationToken,
}

struct Standing {
    agent: AgentName,
    expires: Option<Timestamp>,
    ended: CancellationToken,
}

impl Standings {
    /// `closing` ends every standing.
    pub(crate) fn new(closing: CancellationToken) -> Self {
        Self { credentials: RwLock::default(), closing }
    }

    /// Is cancelled when this credential counts no more, or the gate closes.
    pub(crate) fn of(&self, identity: &AgentIdentity) -> CancellationToken {
        if let Some(standing) = self.credentials.read().get(&identity.credential) {
            return standing.ended.clone();
        }
        let standing = || Standing {
            agent: identity.name.clone(),
            expires: identity.expires,
            ended: self.closing.child_token(),
        };
        let mut credentials = self.credentials.write();
        credentials.entry(identity.credential.clone()).or_insert_with(standing).ended.clone()
    }

    /// Ends what this table no longer lets stand. What was ended stays known as such, so that a
    /// request which was identified just before cannot open something just after.
    pub(crate) fn review(&self, table: &CredentialTable) {
        let revoked = table.revoked_credentials();
        for (credential, standing) in self.credentials.read().iter() {
            let agent = table.agent(standing.agent.as_str());
            if revoked.contains(&**credential) || agent.is_some_and(|a| a.state == AgentState::Revoked) {
                standing.ended.cancel();
            }
        }
    }

    /// Ends what has expired.
    pub(crate) fn expire(&self, now: Timestamp) {
        self.credentials.write().retain(|_, standing| {
            let over = standing.expires.is_some_and(|at| at <= now);
            if over {
                standing.ended.cancel();
            }
            !over
        });
    }
}

#[cfg(test)]
mod tests {
    use castra_core::AuthMethod;
    use castra_identity::AgentEntry;

    use super::*;

    fn identity(agent: &str, credential: &str, expires: Option<i64>) -> AgentIdentity {
        AgentIdentity {
            name: AgentName::new(agent).unwrap(),
            groups: Vec::new(),
            method: AuthMethod::Jwt,
            credential: credential.into(),
            expires: expires.map(Timestamp::from_secs),
            scopes: Vec::new(),
            delegation: Vec::new(),
        }
    }

    #[test]
    fn each_end_reaches_what_hangs_on_it_and_nothing_else() {
        let closing = CancellationToken::new();
        let standings = Standings::new(closing.clone());
        let [gone, brief, lasting] =
            [identity("gone", "1", None), identity("a", "2", Some(100)), identity("a", "3", Some(200))];
        let [one, two, three] = [&gone, &brief, &lasting].map(|i| standings.of(i));
        let entry = AgentEntry { name: gone.name.clone(), groups: Vec::new(), state: AgentState::Revoked };
        standings.review(&CredentialTable::build(2, vec![entry], Vec::new(), Vec::new()));
        assert!(one.is_cancelled() && standings.of(&gone).is_cancelled() && !two.is_cancelled());
        standings.expire(Timestamp::from_secs(100));
        assert!(two.is_cancelled() && !three.is_cancelled());
        closing.cancel();
        assert!(three.is_cancelled());
    }
}
