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
use crate::tickets::{self, crm_listens};

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
    let mut rows = db::tickets::list_page(&app.pool, state.as_deref(), before, limit).await?;
    app.words.open(&app.pool, &mut rows).await?;
    let next_before = request::next_before(rows.len(), limit, rows.last().map(|row| (row.created_at, row.id)));
    Ok(Json(json!({ "tickets": rows, "next_before": next_before })))
}

pub async fn show(State(app): State<Arc<App>>, Id(id): Id) -> Result<Json<Value>, AdminError> {
    let ticket = tickets::read(&app, &app.pool, id).await?.ok_or_else(|| AdminError::not_found("ticket", id))?;
    let conversation = db::conversations::get(&app.pool, ticket.conversation_id).await?;
    let deliveries = db::tickets::deliveries_of(&app.pool, id, 50).await?;
    Ok(Json(json!({ "ticket": ticket, "conversation": conversation, "deliveries": deliveries })))
}

/// Idempotent: a resolved ticket stays as it is. A conversation that only waited for this matter (the machine handed it over, and
/// nobody took it) is the machine's again, or nobody would answer what comes next; one that an agent took stays theirs.
pub async fn resolve(State(app): State<Arc<App>>, Actor(actor): Actor, Id(id): Id) -> Result<Json<Value>, AdminError> {
    let missing = || AdminError::not_found("ticket", id);
    let conversation_id = db::tickets::get(&app.pool, id).await?.ok_or_else(missing)?.conversation_id;
    let mut tx = app.pool.begin().await?;
    let conversation = db::conversations::lock(&mut tx, conversation_id).await?.ok_or_else(missing)?;
    let changed = db::tickets::resolve_by_id(&mut tx, id, crm_listens(&app)).await?;
    let ticket = db::tickets::get(&mut *tx, id).await?.ok_or_else(missing)?;
    let only_waited = conversation.state == "human"
        && conversation.agent.is_none()
        && conversation.state_reason.as_deref() == Some(ticket.reason.as_str());
    if changed && only_waited {
        let reason = format!("ticket resolved by {actor}");
        db::conversations::set_owner(&mut tx, conversation_id, "bot", &reason, None, None).await?;
    }
    if changed {
        let detail = json!({ "conversation_id": conversation_id, "handed_back": only_waited });
        db::audit::write(&mut *tx, &actor, "ticket.resolve", &id.to_string(), detail).await?;
    }
    tx.commit().await?;
    let ticket = tickets::read(&app, &app.pool, id).await?.unwrap_or(ticket);
    Ok(Json(json!({ "changed": changed, "handed_back": changed && only_waited, "ticket": ticket })))
}
