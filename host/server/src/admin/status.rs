//! What the host is doing, and who changed what.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::AdminError;
use super::request::{self, Params};
use crate::app::App;
use crate::db;
use crate::embedded::EngineStatus;
use crate::health::Facts;

pub async fn status(State(app): State<Arc<App>>) -> Result<Json<Value>, AdminError> {
    let facts = Facts::gather(&app).await?;
    let engines = app.engines.as_ref().map(|engines| {
        let status = engines.status();
        json!({ "postgres": status.postgres.map(engine), "valkey": status.valkey.map(engine) })
    });
    Ok(Json(json!({
        "replica": app.replica,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": app.started.elapsed().as_secs(),
        "inbox": {
            "pending": facts.inbox_pending,
            "oldest_age_s": facts.inbox_oldest_s,
            "deliveries_waiting": app.inbox.waiting(),
        },
        "outbox": facts.outbox,
        "tickets": {
            "open": facts.tickets_open,
            "deliveries_queued": facts.ticket_deliveries_queued,
            "deliveries_failed": facts.ticket_deliveries_failed,
        },
        "pages": facts.pages,
        "page_health": facts.page_health,
        "chains": app.policies.status(),
        "redis": { "is_healthy": app.queue.is_healthy() },
        "engines": engines,
        "answers": { "drafter": app.drafter.name(), "embedding_model": app.knowledge.embedder().model_id() },
    })))
}

fn engine(status: EngineStatus) -> Value {
    json!({
        "pid": status.pid,
        "restarts": status.restarts,
        "up_since": status.up_since.map(DateTime::<Utc>::from),
        "last_failure": status.last_failure,
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditParams {
    /// Entries before this id.
    before: Option<i64>,
    limit: Option<i64>,
}

pub async fn audit(
    State(app): State<Arc<App>>,
    Params(params): Params<AuditParams>,
) -> Result<Json<Value>, AdminError> {
    let limit = request::limit(params.limit)?;
    let entries = db::audit::list(&app.pool, params.before, limit).await?;
    let is_full = i64::try_from(entries.len()).unwrap_or(i64::MAX) >= limit;
    let next_before = entries.last().filter(|_| is_full).map(|entry| entry.id);
    Ok(Json(json!({ "entries": entries, "next_before": next_before })))
}
