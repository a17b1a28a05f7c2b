//! Every path of the console and who may have it. The router is made from this list, and the test
//! of access goes through it, so that no path can be forgotten.

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::{from_fn, from_fn_with_state},
    routing::{MethodRouter, get},
};

use crate::{Shared, api, enrol, guard, health, log, page};

/// Who may have a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody who can reach the console.
    Anyone,
    /// Anybody if the console is open (`ConsoleConfig::open`), else operators.
    AnyoneIfOpen,
    /// Operators, by bearer token.
    Operator,
    /// Whoever has the secret that is part of the path.
    Secret,
}

pub(crate) struct Route {
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    handler: fn() -> MethodRouter<Arc<Shared>>,
}

pub(crate) const ROUTES: &[Route] = &[
    Route { path: "/", access: Access::Anyone, handler: || get(page::home) },
    Route { path: "/style.css", access: Access::Anyone, handler: || get(page::style) },
    Route { path: "/healthz", access: Access::Anyone, handler: || get(health::healthz) },
    Route { path: "/readyz", access: Access::Anyone, handler: || get(health::readyz) },
    Route { path: "/metrics", access: Access::AnyoneIfOpen, handler: || get(health::metrics) },
    Route { path: "/log/{*path}", access: Access::AnyoneIfOpen, handler: || get(log::file) },
    Route {
        path: "/enroll/{secret}",
        access: Access::Secret,
        handler: || get(enrol::explain).post(enrol::redeem),
    },
    Route { path: "/api/v1/status", access: Access::Operator, handler: || get(api::status) },
    Route { path: "/api/v1/agents", access: Access::Operator, handler: || get(api::agents) },
    Route { path: "/api/v1/approvals", access: Access::Operator, handler: || get(api::approvals) },
    Route { path: "/api/v1/budgets", access: Access::Operator, handler: || get(api::budgets) },
    Route { path: "/api/v1/servers", access: Access::Operator, handler: || get(api::servers) },
    Route { path: "/api/v1/log/records", access: Access::Operator, handler: || get(api::records) },
];

/// No path takes more than an empty form.
const BODY_BYTES_MAX: usize = 4 << 10;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let handler = (route.handler)();
        let guarded = match route.access {
            Access::Anyone | Access::Secret => handler,
            Access::AnyoneIfOpen if shared.config.open => handler,
            Access::AnyoneIfOpen | Access::Operator => {
                handler.layer(from_fn_with_state(shared.clone(), guard::operators_only))
            }
        };
        router = router.route(route.path, guarded);
    }
    router
        .fallback(guard::not_found)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(shared.clone(), guard::own_sites_only))
        .layer(from_fn(guard::headers))
        .with_state(shared)
}
