//! Configuration to model routes: keys and prompts are looked up, names and files checked.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use castra_core::Limits;
use castra_gateway::model::{BreakerSettings, Key, ModelParts, RouteSettings, VersionFacts, VersionParts};
use castra_store::{Share, files};

use super::parts::{Clients, SECRET_BYTES_MAX, header_list, resolve, resolved};
use crate::{
    config::{Config, Model, ModelVersion},
    out::Failure,
};

/// Providers of the internet keep idle connections for minutes, and a handshake with one costs a call
/// more than a connection costs to keep. Servers of one's own, mostly plain HTTP on uvicorn, Node or
/// llama.cpp, close them after 5 s, so those keep the time of MCP servers.
const IDLE_TIME_OVER_TLS: Duration = Duration::from_secs(60);

/// The routes, ready to be asked.
pub(crate) fn model_parts(
    config: &Config,
    limits: &Limits,
    own_ca: &str,
) -> Result<Vec<ModelParts>, Failure> {
    let near = Clients::new(limits, own_ca);
    let far = Clients::new(limits, own_ca).idle(limits.idle_time_max.min(IDLE_TIME_OVER_TLS));
    let version = |model: &Model, version: &ModelVersion| {
        let over_tls = version.base_url.uri().scheme_str() == Some("https");
        let clients = if over_tls { &far } else { &near };
        version_part(version, clients).map_err(|e| {
            Failure::new(format!("model {}, version {}: {e}", model.name, version.id)).advise(e.advice())
        })
    };
    let part = |model: &Model| {
        let versions = model.version.iter().map(|v| version(model, v)).collect::<Result<_, _>>()?;
        Ok(ModelParts { name: model.name.clone(), settings: settings(model, limits), versions })
    };
    config.model.iter().map(part).collect()
}

fn settings(model: &Model, limits: &Limits) -> RouteSettings {
    RouteSettings {
        inspection: model.inspection,
        fallback: model.fallback.clone(),
        retries: model.retries,
        retry_after_max: model.retry_after_max,
        timeout: model.timeout.unwrap_or(limits.call_time_max),
        breaker: BreakerSettings {
            failures: model.breaker_failures,
            rest: model.breaker_rest,
            rest_max: model.breaker_rest.saturating_mul(10),
        },
    }
}

fn version_part(version: &ModelVersion, clients: &Clients<'_>) -> Result<VersionParts, Failure> {
    // What is hashed here is what a change of means a new connection and a fresh breaker.
    let mut hasher = DefaultHasher::new();
    let facts = version_facts(version)?;
    format!("{facts:?}{:?}{:?}", version.timeout, version.tls12).hash(&mut hasher);
    let key = match &version.key {
        None => None,
        Some(place) => {
            let key = resolve("key", place.text())?;
            key.hash(&mut hasher);
            let bad = "the key is empty or cannot stand in an HTTP header";
            Some(Key::new(version.provider, &key).ok_or_else(|| Failure::new(bad))?)
        }
    };
    let headers = resolved(&version.headers)?;
    headers.hash(&mut hasher);
    let client = match &version.ca {
        Some(ca) => {
            let roots = files::read_bytes(ca, SECRET_BYTES_MAX)?;
            roots.hash(&mut hasher);
            clients.trusting(roots, version.tls12)?
        }
        None => clients.for_url(&version.base_url, version.tls12)?,
    };
    Ok(VersionParts {
        id: version.id.clone(),
        facts,
        key,
        headers: header_list(headers)?,
        client,
        weight: version.weight,
        timeout: version.timeout,
        fingerprint: hasher.finish(),
    })
}

/// What makes a version, with its system prompt looked up. Needs no key.
pub(crate) fn version_facts(version: &ModelVersion) -> Result<VersionFacts, Failure> {
    let system = version.system.as_ref().map(|text| resolve("system", text)).transpose()?;
    Ok(version.facts(system))
}

/// Shares in words.
pub(crate) fn told(shares: Option<&[Share]>) -> String {
    let Some(shares) = shares else { return "what the configuration says".into() };
    let share = |s: &Share| {
        let digest: String = s.digest.to_hex().chars().take(12).collect();
        format!("{} (weight {}, digest {digest})", s.version, s.weight)
    };
    shares.iter().map(share).collect::<Vec<_>>().join(", ")
}
