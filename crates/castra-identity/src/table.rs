//! All credentials of an installation as one immutable value.
//!
//! The store builds a table whenever something changed; the gate swaps it in whole, so a revoked
//! agent is gone from one request to the next and no request sees half a change. Looking up a
//! token is one SHA-256 and one hash map lookup, and allocates nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ahash::RandomState;
use castra_core::{AgentIdentity, AgentName, AuthMethod, Digest, GroupName, PersonIdentity, Timestamp};

use crate::{
    BadCredential, PeerCertificate, TokenHash, TokenKind, UnknownAgents, VerifiedJwt,
    token::{is_intact, kind_of},
};

/// A registered agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentEntry {
    /// Its name.
    pub name: AgentName,
    /// Groups that it belongs to.
    pub groups: Vec<GroupName>,
    /// Whether it may act at all.
    pub state: AgentState,
}

/// Whether an agent may act at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentState {
    /// Its credentials count.
    Active,
    /// None of its credentials count, whatever they are.
    Revoked,
}

impl AgentState {
    /// The word that the store and lists use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Revoked => "revoked",
        }
    }
}

/// A token as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEntry {
    /// SHA-256 of its text.
    pub hash: TokenHash,
    /// Whose it is.
    pub owner: TokenOwner,
    /// When it ends, if it does.
    pub expires: Option<Timestamp>,
    /// Whether it was taken back.
    pub revoked: bool,
}

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenOwner {
    /// An agent.
    Agent(AgentName),
    /// A person who operates the gate, by stable id.
    Operator(Arc<str>),
}

/// A certificate that was issued here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateEntry {
    /// SHA-256 of its DER form.
    pub fingerprint: Digest,
    /// Whose it is.
    pub agent: AgentName,
    /// When it ends.
    pub expires: Timestamp,
    /// Whether it was taken back.
    pub revoked: bool,
}

/// Every credential, ready to be looked up.
#[derive(Debug, Default)]
pub struct CredentialTable {
    version: u64,
    agents: HashMap<AgentName, AgentEntry, RandomState>,
    agent_tokens: HashMap<TokenHash, Credential<AgentIdentity>, RandomState>,
    operator_tokens: HashMap<TokenHash, Credential<PersonIdentity>, RandomState>,
    certificates: HashMap<Digest, Credential<AgentIdentity>, RandomState>,
}

#[derive(Debug)]
struct Credential<T> {
    who: Arc<T>,
    expires: Option<Timestamp>,
    standing: Standing,
}

/// Settled when the table is built, so that a request needs one lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Good,
    Revoked,
    AgentRevoked(AgentName),
}

impl CredentialTable {
    /// A table that knows nobody.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Builds a table. `version` is the store's counter of changes. Credentials of agents that are
    /// not in `agents` are left out, so they are unknown.
    pub fn build(
        version: u64,
        agents: Vec<AgentEntry>,
        tokens: Vec<TokenEntry>,
        certificates: Vec<CertificateEntry>,
    ) -> Self {
        let mut table = Self {
            version,
            agents: agents.into_iter().map(|agent| (agent.name.clone(), agent)).collect(),
            ..Self::default()
        };
        for token in tokens {
            table.insert_token(token);
        }
        for certificate in certificates {
            table.insert_certificate(certificate);
        }
        table
    }

    /// The store's counter of changes when this table was built. What was remembered under another
    /// version must be asked again.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whose agent token this is. Runs for every request.
    pub fn authenticate_token(
        &self,
        text: &str,
        now: Timestamp,
    ) -> Result<Arc<AgentIdentity>, BadCredential> {
        expect_kind(text, TokenKind::Agent)?;
        let found = self.agent_tokens.get(&TokenHash::of(text)).ok_or_else(|| not_found(text))?;
        found.check(now)
    }

    /// Whose operator token this is.
    pub fn authenticate_operator(
        &self,
        text: &str,
        now: Timestamp,
    ) -> Result<Arc<PersonIdentity>, BadCredential> {
        expect_kind(text, TokenKind::Operator)?;
        let found = self.operator_tokens.get(&TokenHash::of(text)).ok_or_else(|| not_found(text))?;
        found.check(now)
    }

    /// Whose certificate this is. The chain and possession of the key were verified by TLS when the
    /// connection began; what may have changed since is asked here, for every request.
    pub fn authenticate_certificate(
        &self,
        peer: &PeerCertificate,
        now: Timestamp,
    ) -> Result<Arc<AgentIdentity>, BadCredential> {
        if peer.expires <= now {
            return Err(BadCredential::Expired { at: peer.expires });
        }
        match self.certificates.get(&peer.fingerprint) {
            Some(found) => found.check(now),
            // A certificate of the built-in CA that the store does not list was made with a stolen
            // CA key or by another state folder.
            None if peer.issued_here => Err(BadCredential::UnknownCertificate),
            None => {
                let agent = self.active_agent(&peer.agent)?;
                Ok(Arc::new(AgentIdentity {
                    name: agent.name.clone(),
                    groups: agent.groups.clone(),
                    method: AuthMethod::Certificate,
                    credential: certificate_id(&peer.fingerprint),
                    expires: Some(peer.expires),
                    scopes: Vec::new(),
                    delegation: Vec::new(),
                }))
            }
        }
    }

    /// The agent that a verified JWT speaks for. Its groups are those registered here together with
    /// those that the issuer vouches for.
    pub fn admit_jwt(&self, verified: &VerifiedJwt) -> Result<Arc<AgentIdentity>, BadCredential> {
        let registered = match self.active_agent(&verified.agent) {
            Ok(agent) => agent.groups.as_slice(),
            Err(BadCredential::UnknownAgent { .. }) if verified.unknown_agents == UnknownAgents::Accept => {
                &[]
            }
            Err(e) => return Err(e),
        };
        let mut groups = registered.to_vec();
        for group in &verified.groups {
            if !groups.contains(group) {
                groups.push(group.clone());
            }
        }
        Ok(Arc::new(AgentIdentity {
            name: verified.agent.clone(),
            groups,
            method: AuthMethod::Jwt,
            credential: verified.credential.clone(),
            expires: Some(verified.expires),
            scopes: verified.scopes.clone(),
            delegation: verified.delegation.clone(),
        }))
    }

    /// A registered agent by name.
    pub fn agent(&self, name: &str) -> Option<&AgentEntry> {
        self.agents.get(name)
    }

    /// Every registered agent, in no order.
    pub fn agents(&self) -> impl Iterator<Item = &AgentEntry> {
        self.agents.values()
    }

    /// The tokens and certificates that are listed and were taken back, by themselves or with their
    /// agent, as [`AgentIdentity::credential`] names them.
    pub fn revoked_credentials(&self) -> HashSet<&str> {
        let listed = self.agent_tokens.values().chain(self.certificates.values());
        listed.filter(|c| c.standing != Standing::Good).map(|c| &*c.who.credential).collect()
    }

    fn active_agent(&self, name: &AgentName) -> Result<&AgentEntry, BadCredential> {
        match self.agents.get(name) {
            Some(agent) if agent.state == AgentState::Active => Ok(agent),
            Some(_) => Err(BadCredential::AgentRevoked { agent: name.clone() }),
            None => Err(BadCredential::UnknownAgent { agent: name.clone() }),
        }
    }

    fn insert_token(&mut self, token: TokenEntry) {
        match token.owner {
            TokenOwner::Agent(name) => {
                let id = format!("token:{}", token.hash.id()).into();
                if let Some(c) = self.credential(&name, AuthMethod::Token, id, token.expires, token.revoked) {
                    self.agent_tokens.insert(token.hash, c);
                }
            }
            TokenOwner::Operator(id) => {
                let standing = if token.revoked { Standing::Revoked } else { Standing::Good };
                let who = Arc::new(PersonIdentity { id });
                self.operator_tokens.insert(token.hash, Credential { who, expires: token.expires, standing });
            }
        }
    }

    fn insert_certificate(&mut self, entry: CertificateEntry) {
        let id = certificate_id(&entry.fingerprint);
        let expires = Some(entry.expires);
        if let Some(c) = self.credential(&entry.agent, AuthMethod::Certificate, id, expires, entry.revoked) {
            self.certificates.insert(entry.fingerprint, c);
        }
    }

    fn credential(
        &self,
        name: &AgentName,
        method: AuthMethod,
        credential: Arc<str>,
        expires: Option<Timestamp>,
        revoked: bool,
    ) -> Option<Credential<AgentIdentity>> {
        let agent = self.agents.get(name)?;
        let standing = match (agent.state, revoked) {
            (AgentState::Revoked, _) => Standing::AgentRevoked(name.clone()),
            (AgentState::Active, true) => Standing::Revoked,
            (AgentState::Active, false) => Standing::Good,
        };
        let (name, groups) = (name.clone(), agent.groups.clone());
        let who = Arc::new(AgentIdentity {
            name,
            groups,
            method,
            credential,
            expires,
            scopes: Vec::new(),
            delegation: Vec::new(),
        });
        Some(Credential { who, expires, standing })
    }
}

impl<T> Credential<T> {
    fn check(&self, now: Timestamp) -> Result<Arc<T>, BadCredential> {
        match &self.standing {
            Standing::AgentRevoked(agent) => {
                return Err(BadCredential::AgentRevoked { agent: agent.clone() });
            }
            Standing::Revoked => return Err(BadCredential::Revoked),
            Standing::Good => {}
        }
        match self.expires {
            Some(at) if at <= now => Err(BadCredential::Expired { at }),
            _ => Ok(Arc::clone(&self.who)),
        }
    }
}

fn expect_kind(text: &str, expected: TokenKind) -> Result<(), BadCredential> {
    match kind_of(text) {
        Some(found) if found == expected => Ok(()),
        Some(found) => Err(BadCredential::WrongKind { expected, found }),
        None if TokenKind::ALL.iter().any(|kind| text.starts_with(kind.prefix())) => {
            Err(BadCredential::Damaged)
        }
        None => Err(BadCredential::NotACredential),
    }
}

fn not_found(text: &str) -> BadCredential {
    if is_intact(text) { BadCredential::Unknown } else { BadCredential::Damaged }
}

fn certificate_id(fingerprint: &Digest) -> Arc<str> {
    format!("certificate:{fingerprint}").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Token;

    fn name(text: &str) -> AgentName {
        AgentName::new(text).expect("name")
    }

    fn agent(text: &str, state: AgentState) -> AgentEntry {
        AgentEntry { name: name(text), groups: vec![GroupName::new("builders").expect("group")], state }
    }

    fn entry(token: &Token, owner: &str, expires: Option<i64>, revoked: bool) -> TokenEntry {
        let owner = TokenOwner::Agent(name(owner));
        TokenEntry { hash: token.hash(), owner, expires: expires.map(Timestamp::from_secs), revoked }
    }

    #[test]
    fn tokens_are_told_apart() {
        let token = |n| Token::new(TokenKind::Agent, [n; 32]);
        let operator = Token::new(TokenKind::Operator, [9; 32]);
        let table = CredentialTable::build(
            7,
            vec![agent("a", AgentState::Active), agent("gone", AgentState::Revoked)],
            vec![
                entry(&token(1), "a", None, false),
                entry(&token(2), "a", Some(100), false),
                entry(&token(3), "a", Some(1000), true),
                entry(&token(4), "gone", None, false),
                entry(&token(5), "never-added", None, false),
                TokenEntry {
                    hash: operator.hash(),
                    owner: TokenOwner::Operator("admin".into()),
                    expires: None,
                    revoked: false,
                },
            ],
            vec![],
        );
        let now = Timestamp::from_secs(100);
        let ask = |t: &Token| table.authenticate_token(t.expose(), now).map(|a| a.name.to_string());
        assert_eq!(ask(&token(1)), Ok("a".into()));
        assert_eq!(ask(&token(2)), Err(BadCredential::Expired { at: now }));
        assert!(table.authenticate_token(token(2).expose(), Timestamp::from_secs(99)).is_ok());
        assert_eq!(ask(&token(3)), Err(BadCredential::Revoked));
        assert_eq!(ask(&token(4)), Err(BadCredential::AgentRevoked { agent: name("gone") }));
        assert_eq!(ask(&token(5)), Err(BadCredential::Unknown));
        assert_eq!(ask(&token(6)), Err(BadCredential::Unknown));
        assert!(matches!(ask(&operator), Err(BadCredential::WrongKind { found: TokenKind::Operator, .. })));
        assert_eq!(
            table.authenticate_operator(operator.expose(), now).map(|p| p.id.to_string()),
            Ok("admin".into())
        );
        let cut = &token(1).expose()[..40].to_owned();
        assert_eq!(table.authenticate_token(cut, now), Err(BadCredential::Damaged));
        let whole = token(1);
        let last = if whole.expose().ends_with('0') { "1" } else { "0" };
        let mistyped = [&whole.expose()[..whole.expose().len() - 1], last].concat();
        assert_eq!(table.authenticate_token(&mistyped, now), Err(BadCredential::Damaged));
        assert_eq!(table.authenticate_token("nonsense", now), Err(BadCredential::NotACredential));
        assert_eq!(table.version(), 7);
    }

    #[test]
    fn certificates_issued_here_must_be_listed() {
        let listed = PeerCertificate {
            agent: name("a"),
            fingerprint: Digest([1; 32]),
            serial: "01".into(),
            expires: Timestamp::from_secs(1000),
            issued_here: true,
        };
        let entry = |fingerprint, revoked| CertificateEntry {
            fingerprint,
            agent: name("a"),
            expires: Timestamp::from_secs(1000),
            revoked,
        };
        let table = CredentialTable::build(
            1,
            vec![agent("a", AgentState::Active), agent("gone", AgentState::Revoked)],
            vec![],
            vec![entry(Digest([1; 32]), false), entry(Digest([2; 32]), true)],
        );
        let now = Timestamp::from_secs(10);
        let ask =
            |peer: &PeerCertificate| table.authenticate_certificate(peer, now).map(|a| a.name.to_string());
        assert_eq!(ask(&listed), Ok("a".into()));
        assert_eq!(
            ask(&PeerCertificate { fingerprint: Digest([2; 32]), ..listed.clone() }),
            Err(BadCredential::Revoked)
        );
        let stranger = PeerCertificate { fingerprint: Digest([3; 32]), ..listed.clone() };
        assert_eq!(ask(&stranger), Err(BadCredential::UnknownCertificate));
        let given = PeerCertificate { issued_here: false, ..stranger };
        assert_eq!(ask(&given), Ok("a".into()));
        let revoked = PeerCertificate { agent: name("gone"), ..given.clone() };
        assert_eq!(ask(&revoked), Err(BadCredential::AgentRevoked { agent: name("gone") }));
        let nobody = PeerCertificate { agent: name("nobody"), ..given };
        assert_eq!(ask(&nobody), Err(BadCredential::UnknownAgent { agent: name("nobody") }));
        let late = table.authenticate_certificate(&listed, Timestamp::from_secs(1000));
        assert_eq!(late, Err(BadCredential::Expired { at: Timestamp::from_secs(1000) }));
    }
}
