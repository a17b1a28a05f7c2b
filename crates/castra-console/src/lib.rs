//! Operator interface: health, metrics, the public log, enrolment.
//!
//! It only reads views and issues orders, through [`GateView`]; the program implements that over
//! the gate, the store and the log. `routes` lists every path with who may have it, `guard` holds
//! what all of them have in common, and the other files answer.

mod api;
mod enrol;
mod guard;
mod health;
mod log;
mod page;
mod routes;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;

use axum::Router;
use castra_identity::SiteRules;
use hyper_util::service::TowerToHyperService;

pub use self::view::{
    Check, EnrolError, Enrolled, GateView, LogStatus, ServerView, Status, ToolView, ViewError,
};

/// How the console behaves.
pub struct ConsoleConfig {
    /// Names that it answers to and sites that may speak to it.
    pub sites: SiteRules,
    /// Whether metrics, the log and the reasons of `/readyz` are given without an operator token.
    /// Meant for a console that only this machine can reach; elsewhere they tell too much.
    pub open: bool,
}

/// The operator interface. One per process.
pub struct Console {
    router: Router,
}

impl Console {
    /// A console over `view`.
    pub fn new(config: ConsoleConfig, view: Arc<dyn GateView>) -> Self {
        Self { router: routes::router(Arc::new(Shared { config, view })) }
    }

    /// The service of one connection, for a listener of castra-net.
    pub fn service(&self) -> TowerToHyperService<Router> {
        TowerToHyperService::new(self.router.clone())
    }
}

/// What all handlers share.
struct Shared {
    config: ConsoleConfig,
    view: Arc<dyn GateView>,
}

impl Shared {
    /// Runs a call of the view that may wait for a disk.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn GateView) -> Result<T, ViewError> + Send + 'static,
    ) -> Result<T, ViewError> {
        let view = self.view.clone();
        let done = tokio::task::spawn_blocking(move || call(&*view)).await;
        done.unwrap_or_else(|e| Err(ViewError(format!("the call did not come to an end: {e}"))))
    }
}
