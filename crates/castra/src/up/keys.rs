//! The keys of OpenID Connect issuers: fetched when the gate starts, before they are too old, and when a
//! token names a key that is not known. An issuer that cannot be reached keeps the keys that it had.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use castra_identity::{
    Issuer, IssuerConfig, Jwks, UnknownAgents,
    jwt::{discovery_urls, jwks_url},
};
use castra_net::{
    client::machine_tls,
    fetch::{FetchLimits, Fetcher},
};

use crate::{
    config::{self, Algorithm},
    out::Failure,
};

/// Keys are fetched again at the latest after this time, whatever the issuer says.
const AGE_MAX: Duration = Duration::from_secs(3600);
/// … and not before this time: a token can name any key, and must not make us hammer the issuer.
const AGE_MIN: Duration = Duration::from_secs(10);

/// The issuers with what is known of their keys.
#[derive(Default)]
pub(super) struct Issuers {
    all: Vec<Known>,
    fetcher: Option<Arc<Fetcher>>,
}

struct Known {
    issuer: Issuer,
    /// When the keys were asked for last, and when they are due again.
    asked: Option<Instant>,
    due: Instant,
}

impl Issuers {
    pub(super) fn new(configured: &[config::Issuer]) -> Result<Self, Failure> {
        if configured.is_empty() {
            return Ok(Self::default());
        }
        // The operator names the issuer, so one on the own network or machine is meant.
        let limits = FetchLimits { private_addresses: true, plain_loopback: true, ..FetchLimits::default() };
        let fetcher = Fetcher::new(machine_tls(false)?.into(), limits);
        let known = |c| Known {
            issuer: Issuer::new(issuer_config(c), Jwks::default()),
            asked: None,
            due: Instant::now(),
        };
        Ok(Self { all: configured.iter().map(known).collect(), fetcher: Some(Arc::new(fetcher)) })
    }

    /// As they are before anything was fetched: no token of theirs is good yet.
    pub(super) fn without_keys(&self) -> Vec<Issuer> {
        self.all.iter().map(|known| known.issuer.clone()).collect()
    }

    /// Fetches what is due, or, if a token named an unknown key, all that may be asked again. Gives
    /// the issuers if any keys were fetched.
    pub(super) async fn refresh(&mut self, wanted: bool) -> Option<Vec<Issuer>> {
        let fetcher = self.fetcher.clone()?;
        let mut changed = false;
        for known in &mut self.all {
            let now = Instant::now();
            let rested = known.asked.is_none_or(|asked| now.duration_since(asked) >= AGE_MIN);
            if !(known.due <= now || wanted) || !rested {
                continue;
            }
            known.asked = Some(now);
            match fetch(&fetcher, known.issuer.config()).await {
                Ok((keys, age)) => {
                    known.issuer = known.issuer.with_keys(keys);
                    known.due = now + age.clamp(AGE_MIN, AGE_MAX);
                    changed = true;
                }
                Err(why) => {
                    tracing::warn!(issuer = known.issuer.config().issuer, %why, "keys of an issuer were not fetched");
                    known.due = now + AGE_MIN;
                }
            }
        }
        changed.then(|| self.without_keys())
    }
}

async fn fetch(fetcher: &Fetcher, config: &IssuerConfig) -> Result<(Jwks, Duration), Failure> {
    let url = match &config.jwks_url {
        Some(url) => url.clone(),
        None => discover(fetcher, &config.issuer).await?,
    };
    let fetched = fetcher.get(&url, "application/json").await?;
    let keys = Jwks::parse(&fetched.body)?;
    if keys.is_empty() {
        return Err(Failure::new(format!("{url} holds no key that can be used")));
    }
    Ok((keys, fetched.max_age.unwrap_or(AGE_MAX)))
}

async fn discover(fetcher: &Fetcher, issuer: &str) -> Result<String, Failure> {
    let mut why = Failure::new("no metadata");
    for url in discovery_urls(issuer) {
        match fetcher.get(&url, "application/json").await {
            Ok(document) => return Ok(jwks_url(&document.body, issuer)?),
            Err(e) => why = e.into(),
        }
    }
    Err(why)
}

fn issuer_config(c: &config::Issuer) -> IssuerConfig {
    IssuerConfig {
        jwks_url: c.jwks_url.as_ref().map(ToString::to_string),
        audiences: c.audience.clone(),
        algorithms: c.algorithms.iter().map(|a| algorithm(*a)).collect(),
        agent_claim: c.agent_claim.clone(),
        agents: c.agents.clone(),
        groups_claim: c.groups_claim.clone(),
        groups: c.groups.clone(),
        scope_claim: c.scope_claim.clone(),
        scopes: c.scopes.clone(),
        unknown_agents: if c.auto_agents { UnknownAgents::Accept } else { UnknownAgents::Refuse },
        at_jwt_only: c.access_tokens_only,
        clock_skew_secs: u32::try_from(c.skew.0.as_secs()).unwrap_or(u32::MAX),
        ..IssuerConfig::new(c.issuer.clone())
    }
}

fn algorithm(algorithm: Algorithm) -> castra_identity::jwt::Algorithm {
    use castra_identity::jwt::Algorithm as Theirs;
    match algorithm {
        Algorithm::ES256 => Theirs::Es256,
        Algorithm::ES384 => Theirs::Es384,
        Algorithm::EdDSA => Theirs::EdDsa,
        Algorithm::PS256 => Theirs::Ps256,
        Algorithm::PS384 => Theirs::Ps384,
        Algorithm::PS512 => Theirs::Ps512,
        Algorithm::RS256 => Theirs::Rs256,
        Algorithm::RS384 => Theirs::Rs384,
        Algorithm::RS512 => Theirs::Rs512,
    }
}
