//! For machines that watch: alive, ready, metrics.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;

use crate::{Shared, guard::is_operator};

/// The process lives. It says nothing else on purpose: what restarts processes asks here.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// The gate can decide and record. Reasons are only for those who may know them.
pub(crate) async fn readyz(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let checks = shared.view.checks();
    let ready = !checks.is_empty() && checks.iter().all(|check| check.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let checks = if shared.config.open || is_operator(&shared, &headers) {
        json!(checks)
    } else {
        checks.iter().map(|check| json!({"name": check.name, "ok": check.ok})).collect()
    };
    (status, Json(json!({"ready": ready, "checks": checks}))).into_response()
}

/// Counters and histograms for Prometheus.
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.view.metrics())
}
