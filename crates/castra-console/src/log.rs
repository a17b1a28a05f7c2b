//! The log as static files (C2SP tlog-tiles), for anybody's verifier.
//!
//! Only paths that name a checkpoint or a tile get through, and only in the form that the
//! specification has for them, so nothing else of the disk can be named.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use castra_core::{Refusal, RefusalCode, Step};
use castra_ledger::tile::TilePath;
use http::header;

use crate::{Shared, guard::ApiError};

pub(crate) async fn file(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<String>,
) -> Result<Response, ApiError> {
    let none = || Refusal::new(Step::Understand, RefusalCode::NotFound, "the log has no such file");
    let (path, content_type, cache) = if path == "checkpoint" {
        (path, "text/plain; charset=utf-8", "no-store")
    } else {
        let tile: TilePath = path.parse().map_err(|_| none())?;
        (tile.to_string(), "application/octet-stream", cache_of_tiles(shared.config.open))
    };
    let bytes = shared.blocking(move |view| view.log_file(&path)).await?.ok_or_else(none)?;
    Ok(([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, cache)], bytes).into_response())
}

/// Tiles never change, partial ones included: a wider one has another path.
fn cache_of_tiles(open: bool) -> &'static str {
    if open { "public, max-age=31536000, immutable" } else { "private, max-age=31536000, immutable" }
}
