//! What the console sees of the running gate, and the one thing that it may order: an enrolment.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use castra_console::{
    Check, EnrolError, Enrolled, GateView, LogStatus, ServerView, Status, ToolView, ViewError,
};
use castra_core::{PersonIdentity, PolicyMode, Refusal, RefusalCode, Step, Timestamp};
use castra_gateway::{Gate, metrics::Metrics};
use castra_identity::CredentialTable;
use castra_ledger::TileSource;
use castra_store::{CredentialFollower, Enrolment, State, clock, log::Log};
use serde_json::Value;

use crate::commands::approval;

pub(super) struct View {
    pub(super) gate: Arc<Gate>,
    pub(super) log: Log,
    pub(super) state: Arc<State>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) started: Timestamp,
    pub(super) address: String,
    /// Set by the follower when the configuration changes.
    pub(super) observing: Arc<AtomicBool>,
    pub(super) operators: Mutex<Operators>,
}

/// The credentials of operators, looked up anew when something changed.
pub(super) struct Operators {
    pub(super) follower: CredentialFollower,
    pub(super) table: CredentialTable,
}

impl GateView for View {
    fn checks(&self) -> Vec<Check> {
        let checks = self.gate.ready().into_iter();
        checks.map(|c| Check { name: c.name, ok: c.ok, reason: c.reason }).collect()
    }

    fn metrics(&self) -> String {
        self.metrics.render()
    }

    fn status(&self) -> Status {
        let engine = self.gate.engine();
        let log = self.log.status();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            started: self.started,
            gate: self.address.clone(),
            mode: if self.observing.load(Ordering::Relaxed) {
                PolicyMode::Observe
            } else {
                PolicyMode::Enforce
            },
            policy_set: engine.policy_set().to_string(),
            policies: engine.policy_count(),
            in_flight: self.metrics.in_flight.sum(),
            log: LogStatus {
                key: self.log.verifier_key().to_string(),
                appended: log.next,
                durable: log.durable,
                integrated: log.integrated,
                failed: log.failed.map(|why| why.to_string()),
            },
        }
    }

    fn servers(&self) -> Vec<ServerView> {
        let catalogue = self.gate.catalogue();
        let tools = |name: &castra_core::ServerName| {
            let known = catalogue.servers.iter().find(|s| s.name == *name);
            let tools = known.map(|s| s.tools.as_slice()).unwrap_or_default();
            tools
                .iter()
                .map(|t| ToolView { id: format!("{name}/{}", t.name), effect: t.effect.as_str() })
                .collect()
        };
        let servers = self.gate.servers().into_iter();
        servers
            .map(|s| ServerView {
                tools: tools(&s.name),
                id: s.name,
                transport: s.transport,
                revision: s.revision,
                problem: s.problem,
            })
            .collect()
    }

    fn operator(&self, token: &str) -> Result<Arc<PersonIdentity>, Refusal> {
        let mut operators = self.operators.lock().unwrap_or_else(PoisonError::into_inner);
        match operators.follower.poll() {
            Ok(Some(table)) => operators.table = table,
            Ok(None) => {}
            // Whoever was revoked meanwhile would still get in: nobody does.
            Err(error) => {
                tracing::error!(%error, "operators cannot be looked up");
                return Err(Refusal::new(
                    Step::Identify,
                    RefusalCode::Undecided,
                    "operators cannot be looked up now",
                ));
            }
        }
        operators.table.authenticate_operator(token, clock::now()).map_err(|e| e.refusal())
    }

    fn agents(&self) -> Result<Vec<Value>, ViewError> {
        let rows = self.state.agents(clock::now()).map_err(|e| ViewError(e.to_string()))?;
        rows.iter().map(|row| serde_json::to_value(row).map_err(|e| ViewError(e.to_string()))).collect()
    }

    fn approvals(&self) -> Result<Vec<Value>, ViewError> {
        let rows = self.state.approvals(false, clock::now()).map_err(|e| ViewError(e.to_string()))?;
        Ok(rows.iter().map(approval::value).collect())
    }

    fn budgets(&self) -> Result<Vec<Value>, ViewError> {
        let rows = self.gate.budgets().rows();
        rows.iter().map(|row| serde_json::to_value(row).map_err(|e| ViewError(e.to_string()))).collect()
    }

    fn entries(&self, start: u64, limit: usize) -> Result<Vec<Bytes>, ViewError> {
        let end = start.saturating_add(limit as u64);
        self.log.entries(start..end).map_err(|e| ViewError(e.to_string()))
    }

    fn log_file(&self, path: &str) -> Result<Option<Vec<u8>>, ViewError> {
        self.log.reader().tiles().read(path).map_err(|e| ViewError(e.to_string()))
    }

    fn enrol(&self, secret: &str) -> Result<Enrolled, EnrolError> {
        let failed = |e: castra_store::StoreError| EnrolError::Failed(e.to_string());
        let now = clock::now();
        match self.state.enrolment(secret, now).map_err(failed)? {
            Enrolment::Unknown => return Err(EnrolError::Unknown),
            Enrolment::Used => return Err(EnrolError::Used),
            Enrolment::Expired => return Err(EnrolError::Expired),
            Enrolment::Open => {}
        }
        let issued = self.state.redeem_enrolment(secret, now).map_err(failed)?;
        Ok(Enrolled {
            person: issued.owner,
            token: issued.token.expose().to_owned(),
            expires: issued.expires,
        })
    }
}
