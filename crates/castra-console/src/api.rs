//! The operator API. Lists are objects with one array, whose elements have an `id` or an `index`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use castra_core::{Refusal, RefusalCode, Step};
use castra_ledger::Record;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use crate::{Shared, Status, guard::ApiError};

pub(crate) async fn status(State(shared): State<Arc<Shared>>) -> Json<Status> {
    Json(shared.view.status())
}

pub(crate) async fn servers(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({"servers": shared.view.servers()}))
}

pub(crate) async fn agents(State(shared): State<Arc<Shared>>) -> Result<Json<Value>, ApiError> {
    let agents = shared.blocking(|view| view.agents()).await?;
    Ok(Json(json!({"agents": agents})))
}

pub(crate) async fn approvals(State(shared): State<Arc<Shared>>) -> Result<Json<Value>, ApiError> {
    let approvals = shared.blocking(|view| view.approvals()).await?;
    Ok(Json(json!({"approvals": approvals})))
}

pub(crate) async fn budgets(State(shared): State<Arc<Shared>>) -> Result<Json<Value>, ApiError> {
    let budgets = shared.view.budgets()?;
    Ok(Json(json!({"budgets": budgets})))
}

/// Which records: those after the index `after`, from the first on without it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    after: Option<u64>,
    limit: Option<usize>,
}

const RECORDS: usize = 100;
const RECORDS_MAX: usize = 1000;

#[derive(Serialize)]
pub(crate) struct Records {
    records: Vec<RecordAt>,
    /// What to send as `after` for more.
    next_after: Option<u64>,
}

#[derive(Serialize)]
struct RecordAt {
    index: u64,
    /// The record as it is in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Box<RawValue>>,
    /// Why the entry could not be read, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

pub(crate) async fn records(
    State(shared): State<Arc<Shared>>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Records>, ApiError> {
    let Query(Which { after, limit }) = which.map_err(|e| {
        Refusal::new(Step::Understand, RefusalCode::Malformed, format!("the query is not understood: {e}"))
            .advise(format!("Use after=INDEX and limit=1…{RECORDS_MAX}"))
    })?;
    let limit = limit.unwrap_or(RECORDS).clamp(1, RECORDS_MAX);
    let start = after.map_or(0, |index| index.saturating_add(1));
    let entries = shared.blocking(move |view| view.entries(start, limit)).await?;
    let records: Vec<_> = (start..).zip(&entries).map(|(index, entry)| read(index, entry)).collect();
    let next_after = records.last().map(|last| last.index).or(after);
    Ok(Json(Records { records, next_after }))
}

fn read(index: u64, entry: &[u8]) -> RecordAt {
    let raw = || serde_json::from_slice::<Box<RawValue>>(entry).map_err(|e| e.to_string());
    match Record::decode(entry).map_err(|e| e.to_string()).and_then(|_| raw()) {
        Ok(record) => RecordAt { index, record: Some(record), problem: None },
        Err(problem) => RecordAt { index, record: None, problem: Some(problem) },
    }
}
