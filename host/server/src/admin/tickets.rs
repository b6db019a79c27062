//! Tickets: matters for people.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Actor;
use super::error::AdminError;
use super::request::{self, Id, Params};
use crate::app::App;
use crate::db;
use crate::handover::crm_listens;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    state: Option<String>,
    before: Option<String>,
    limit: Option<i64>,
}

pub async fn list(State(app): State<Arc<App>>, Params(params): Params<ListParams>) -> Result<Json<Value>, AdminError> {
    let state = request::choice("state", params.state, &["open", "resolved"])?;
    let before = request::before(params.before.as_deref())?;
    let limit = request::limit(params.limit)?;
    let rows = db::tickets::list_page(&app.pool, state.as_deref(), before, limit).await?;
    let next_before = request::next_before(rows.len(), limit, rows.last().map(|row| (row.created_at, row.id)));
    Ok(Json(json!({ "tickets": rows, "next_before": next_before })))
}

pub async fn show(State(app): State<Arc<App>>, Id(id): Id) -> Result<Json<Value>, AdminError> {
    let ticket = db::tickets::get(&app.pool, id).await?.ok_or_else(|| AdminError::not_found("ticket", id))?;
    let conversation = db::conversations::get(&app.pool, ticket.conversation_id).await?;
    let deliveries = db::tickets::deliveries_of(&app.pool, id, 50).await?;
    Ok(Json(json!({ "ticket": ticket, "conversation": conversation, "deliveries": deliveries })))
}

/// Idempotent: a resolved ticket stays as it is. The conversation's owner does not change; see `handback`.
pub async fn resolve(State(app): State<Arc<App>>, Actor(actor): Actor, Id(id): Id) -> Result<Json<Value>, AdminError> {
    let mut tx = app.pool.begin().await?;
    let changed = db::tickets::resolve_by_id(&mut tx, id, crm_listens(&app)).await?;
    let ticket = db::tickets::get(&mut *tx, id).await?.ok_or_else(|| AdminError::not_found("ticket", id))?;
    if changed {
        let detail = json!({ "conversation_id": ticket.conversation_id });
        db::audit::write(&mut *tx, &actor, "ticket.resolve", &id.to_string(), detail).await?;
    }
    tx.commit().await?;
    Ok(Json(json!({ "changed": changed, "ticket": ticket })))
}
