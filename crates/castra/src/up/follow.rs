//! Carries changes into a running gate: agents that were added or revoked by another process, edited
//! policies, configuration, manifests and certificates, fresh keys of issuers. What is wrong is said and
//! recorded, and what was good before stays in force.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use castra_core::PolicyMode;
use castra_gateway::Gate;
use castra_identity::Authority;
use castra_ledger::EventKind;
use castra_store::{
    ApprovalFollower, ApprovalRow, ApprovalState, CredentialFollower, PromotionFollower, PromotionKind,
    PromotionRow, State, StateDir, clock,
    files::{Stamp, stamp},
};
use tokio::signal::unix::Signal;

use super::{
    keys::Issuers,
    models::{self, model_parts},
    parts::{self, Listening, server_parts},
    peers::peer_parts,
};
use crate::{
    config::{Config, Loaded, SecretRef, Text, Tls, Upstream},
    out::Failure,
    policies,
};

/// How often changes of agents are looked for, which costs some microseconds. A revoked agent is out
/// well within a second, and one that was just added is in before its first call.
const CREDENTIALS_TIME: Duration = Duration::from_millis(50);
/// How often files are looked at.
const FILES_TIME: Duration = Duration::from_secs(1);
/// How often certificates of the built-in CA are looked at for renewal.
const CERTIFICATES_TIME: Duration = Duration::from_secs(6 * 3600);

pub(super) struct Follower {
    loaded: Loaded,
    gate: Arc<Gate>,
    credentials: CredentialFollower,
    promotions: PromotionFollower,
    approvals: ApprovalFollower,
    state: Arc<State>,
    issuers: Issuers,
    listening: Listening,
    dir: StateDir,
    authority: Authority,
    policies_seen: Stamp,
    files_seen: Stamp,
    certificates_seen: Instant,
    observing: Arc<AtomicBool>,
}

impl Follower {
    #[allow(clippy::too_many_arguments)] // the parts that can change, once
    pub(super) fn new(
        loaded: &Loaded,
        gate: Arc<Gate>,
        state: Arc<State>,
        credentials_seen: u64,
        issuers: Issuers,
        listening: Listening,
        dir: StateDir,
        authority: Authority,
        observing: Arc<AtomicBool>,
    ) -> Self {
        Self {
            policies_seen: stamp(&[&loaded.config.policy.dir]),
            files_seen: files_stamp(loaded),
            certificates_seen: Instant::now(),
            loaded: loaded.clone(),
            gate,
            credentials: CredentialFollower::new(state.clone(), credentials_seen),
            promotions: PromotionFollower::new(state.clone()),
            approvals: ApprovalFollower::new(state.clone()),
            state,
            issuers,
            listening,
            dir,
            authority,
            observing,
        }
    }

    /// Follows until the gate cannot go on.
    pub(super) async fn run(&mut self, reload: &mut Signal) -> Failure {
        let gate = self.gate.clone();
        let mut credentials = tokio::time::interval(CREDENTIALS_TIME);
        let mut files = tokio::time::interval(FILES_TIME);
        loop {
            tokio::select! {
                _ = credentials.tick() => {
                    self.follow_credentials();
                    self.follow_promotions();
                    self.follow_approvals();
                }
                _ = files.tick() => {
                    self.follow_files(false).await;
                    self.follow_keys(false).await;
                }
                _ = reload.recv() => self.follow_files(true).await,
                () = gate.keys_wanted().notified() => self.follow_keys(true).await,
            }
        }
    }

    fn follow_credentials(&mut self) {
        match self.credentials.poll() {
            Ok(Some(table)) => self.gate.replace_credentials(table),
            Ok(None) => {}
            // The table that is in force stays; a state that cannot be read is seen by /readyz, too.
            Err(error) => tracing::error!(%error, "changes of agents cannot be followed"),
        }
    }

    fn follow_promotions(&mut self) {
        match self.promotions.poll() {
            Ok(Some((promotions, changes))) => {
                self.gate.replace_promotions(promotions);
                for change in changes {
                    self.record_promotion(&change);
                }
            }
            Ok(None) => {}
            // What served before goes on serving.
            Err(error) => tracing::error!(%error, "promotions of models cannot be followed"),
        }
    }

    /// Writes a change of what serves into the log, once: what was done while no gate ran, too.
    fn record_promotion(&self, change: &PromotionRow) {
        let event = match change.kind {
            PromotionKind::Promote => EventKind::ModelPromoted,
            PromotionKind::Rollback => EventKind::ModelRolledBack,
        };
        let serves = models::told(change.shares.as_deref());
        let detail = format!("since {} serves: {serves}", change.time);
        tracing::info!(route = %change.route, %serves, "what serves a model has changed");
        self.gate.record_event(event, Some(change.route.as_str()), &detail);
        if let Err(error) = self.state.set_promotions_recorded(change.id) {
            tracing::error!(%error, "a promotion may stand in the log twice");
        }
    }

    /// Writes what people answered into the log, once: what was said while no gate ran, too. The answers
    /// themselves need no following; the gate reads them when the agent tries again.
    fn follow_approvals(&mut self) {
        match self.approvals.poll(clock::now()) {
            Ok(answers) => answers.iter().for_each(|answer| self.record_answer(answer)),
            Err(error) => tracing::error!(%error, "answers to approvals cannot be followed"),
        }
    }

    fn record_answer(&self, answer: &ApprovalRow) {
        let (Some(by), Some(at)) = (&answer.answered_by, answer.answered_at) else { return };
        // What was approved may be used by now.
        let (event, word) = match answer.state {
            ApprovalState::Denied => (EventKind::ApprovalDenied, "denied"),
            _ => (EventKind::ApprovalGiven, "approved"),
        };
        let why = answer.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let detail = format!(
            "approval {} {word} by {by} at {at}, for {} on {}{why}",
            answer.id, answer.operation, answer.resource
        );
        tracing::info!(agent = %answer.agent, approval = %answer.id, %by, word, "a person answered");
        self.gate.record_event(event, Some(answer.agent.as_str()), &detail);
        if let Err(error) = self.state.set_approval_recorded(&answer.id) {
            tracing::error!(%error, "an answer may stand in the log twice");
        }
    }

    async fn follow_keys(&mut self, wanted: bool) {
        if let Some(issuers) = self.issuers.refresh(wanted).await {
            self.gate.replace_issuers(issuers);
        }
    }

    async fn follow_files(&mut self, all: bool) {
        let seen = files_stamp(&self.loaded);
        if all || seen != self.files_seen {
            self.files_seen = seen;
            self.reload_configuration();
        }
        let seen = stamp(&[&self.loaded.config.policy.dir]);
        if all || seen != self.policies_seen {
            self.policies_seen = seen;
            self.reload_policies();
        }
        if all || self.certificates_seen.elapsed() > CERTIFICATES_TIME {
            self.certificates_seen = Instant::now();
            self.reload_certificates();
        }
    }

    fn reload_policies(&self) {
        let config = &self.loaded.config;
        match policies::load(config, &self.gate.catalogue()) {
            Ok(Ok(engine)) => {
                tracing::info!(policies = engine.policy_count(), set = %engine.policy_set(), "policies are in force");
                self.gate.replace_policies(engine, config.policy.mode);
                self.observing.store(config.policy.mode == PolicyMode::Observe, Ordering::Relaxed);
            }
            Ok(Err(problems)) => self.policies_rejected(&problems.to_string()),
            Err(failure) => self.policies_rejected(&failure.to_string()),
        }
    }

    fn policies_rejected(&self, why: &str) {
        tracing::error!(why, "the changed policies are not good; the ones before stay in force");
        self.gate.policies_rejected(why);
    }

    fn reload_configuration(&mut self) {
        let state = self.loaded.config.state.dir.clone();
        let read = match &self.loaded.file {
            Some(file) => Config::load(Some(file), Path::new("")).map_err(Failure::from),
            None => Ok(self.loaded.clone()),
        };
        let changed = read.and_then(|mut loaded| {
            // It may have been given on the command line, and cannot change while the gate runs.
            loaded.config.state.dir = state;
            self.take(&loaded.config)?;
            Ok(loaded)
        });
        match changed {
            Ok(loaded) => {
                for key in needs_restart(&self.loaded.config, &loaded.config) {
                    tracing::warn!(key, "this change takes effect when castra is started again");
                }
                let mode_changed = loaded.config.policy != self.loaded.config.policy;
                self.loaded = loaded;
                self.files_seen = files_stamp(&self.loaded);
                if mode_changed {
                    self.reload_policies();
                }
                self.reload_certificates();
                tracing::info!("the configuration is in force");
                self.gate.record_event(EventKind::ConfigReloaded, None, "");
            }
            Err(failure) => {
                tracing::error!(why = %failure, "the changed configuration is not good; the one before stays in force");
                self.gate.record_event(EventKind::ConfigRejected, None, &failure.to_string());
            }
        }
    }

    /// Hands the parts that can change to the gate; either all of them or none.
    fn take(&mut self, config: &Config) -> Result<(), Failure> {
        let limits = self.loaded.config.limits.to_limits();
        let servers = server_parts(config, &limits, self.authority.certificate_pem())?;
        let models = model_parts(config, &limits, self.authority.certificate_pem())?;
        let peers = peer_parts(config, &limits, self.authority.certificate_pem())?;
        let local_tools = parts::local_tools(config)?;
        let sites = parts::gate_sites(config)?;
        let budgets = parts::budgets(config)?;
        let inspector =
            (config.inspect != self.loaded.config.inspect).then(|| parts::inspector(config)).transpose()?;
        let issuers =
            (config.issuer != self.loaded.config.issuer).then(|| Issuers::new(&config.issuer)).transpose()?;
        self.gate.replace_servers(servers);
        self.gate.replace_models(models);
        self.gate.replace_peers(peers);
        self.gate.replace_local_tools(local_tools);
        self.gate.replace_flow(config.flow.settings(!config.model.is_empty()));
        self.gate.replace_sites(sites);
        self.gate.budgets().replace(budgets);
        self.gate.set_approval_bounds(config.approvals.bounds());
        if let Some(inspector) = inspector {
            self.gate.replace_inspector(inspector, config.inspect.mode);
        }
        if let Some(issuers) = issuers {
            self.gate.replace_issuers(issuers.without_keys());
            self.issuers = issuers;
        }
        Ok(())
    }

    fn reload_certificates(&self) {
        let config = &self.loaded.config;
        if let Err(failure) = self.listening.reload(config, &self.dir, &self.authority, clock::now()) {
            tracing::error!(why = %failure, "the changed certificate is not good; the one before stays in use");
        }
    }
}

/// What is read once, when castra starts.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let same_gate = |a: &Config, b: &Config| {
        (a.gate.listen, a.gate.tls(), &a.gate.trust_domain, &a.gate.public_url)
            == (b.gate.listen, b.gate.tls(), &b.gate.trust_domain, &b.gate.public_url)
    };
    [
        ("gate.listen, tls, trust_domain or public_url", same_gate(old, new)),
        ("console", old.console == new.console),
        ("record", old.record == new.record),
        ("limits", old.limits == new.limits),
        ("log", old.log == new.log),
    ]
    .into_iter()
    .filter_map(|(key, same)| (!same).then_some(key))
    .collect()
}

/// A stamp of every file that the configuration is made of, besides the policies.
fn files_stamp(loaded: &Loaded) -> Stamp {
    let config = &loaded.config;
    let own = loaded.file.iter().chain(&config.gate.client_ca).chain(&config.budgets.prices);
    let own = own.chain(&config.local.manifest);
    let mut files: Vec<PathBuf> = own.cloned().collect();
    for tls in [config.gate.tls(), config.console.tls()] {
        if let Tls::Files { cert, key } = tls {
            files.extend([cert, key]);
        }
    }
    files.extend(config.peer.iter().flat_map(crate::config::Peer::files));
    for server in &config.server {
        files.extend(server.manifest.clone());
        let texts = match &server.upstream {
            Upstream::Command { env, .. } => env,
            Upstream::Http { headers, ca, .. } => {
                files.extend(ca.clone());
                headers
            }
        };
        files.extend(texts.values().filter_map(|text| match text {
            Text::File(file) => Some(file.clone()),
            Text::Plain(_) | Text::Env(_) => None,
        }));
    }
    for version in config.model.iter().flat_map(|model| &model.version) {
        files.extend(version.ca.clone());
        let key = version.key.as_ref().map(SecretRef::text);
        files.extend(key.into_iter().chain(&version.system).chain(version.headers.values()).filter_map(
            |text| match text {
                Text::File(file) => Some(file.clone()),
                Text::Plain(_) | Text::Env(_) => None,
            },
        ));
    }
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    stamp(&files)
}
