//! Erasures: asking for one, and what became of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::access::Agent;
use super::error::AdminError;
use super::request::{self, Params};
use crate::app::App;
use crate::db;
use crate::privacy::erasure::{self, Subject};

/// Longest id of a person, in bytes; Meta's have some 17 digits.
const PSID_BYTES_MAX: usize = 128;

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    limit: Option<i64>,
}

pub async fn list(State(app): State<Arc<App>>, Params(params): Params<ListParams>) -> Result<Json<Value>, AdminError> {
    let limit = request::limit(params.limit)?;
    Ok(Json(json!({ "erasures": db::erasures::list(&app.pool, limit).await? })))
}

pub async fn show(State(app): State<Arc<App>>, Path(code): Path<String>) -> Result<Json<Value>, AdminError> {
    let erasure = db::erasures::get(&app.pool, &code).await?.ok_or_else(|| AdminError::not_found("erasure", &code))?;
    Ok(Json(json!({ "erasure": erasure })))
}

/// Queues the erasure of a person of a Page. It cannot be called back, so it is done in somebody's name.
pub async fn erase(
    State(app): State<Arc<App>>,
    Agent(agent): Agent,
    Path((page_id, psid)): Path<(String, String)>,
) -> Result<Json<Value>, AdminError> {
    if psid.is_empty() || psid.len() > PSID_BYTES_MAX {
        return Err(AdminError::field("psid", "expected the person's id on this Page"));
    }
    let code = erasure::request(&app, &Subject::Person { page_id, psid }, &agent).await?;
    Ok(Json(json!({ "code": code })))
}

/// Queues a failed erasure again.
pub async fn retry(
    State(app): State<Arc<App>>,
    Agent(agent): Agent,
    Path(code): Path<String>,
) -> Result<Json<Value>, AdminError> {
    let mut tx = app.pool.begin().await?;
    let before = db::erasures::get(&mut *tx, &code).await?.ok_or_else(|| AdminError::not_found("erasure", &code))?;
    if !db::erasures::retry(&mut *tx, &code).await? {
        return Err(AdminError::State { what: "the erasure", found: before.state, expected: "failed" });
    }
    db::audit::write(&mut *tx, &agent, "person.erase.retry", &code, json!({})).await?;
    tx.commit().await?;
    Ok(Json(json!({ "code": code })))
}
