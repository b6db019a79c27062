//! Sends that people must look at: in doubt, or given up.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Actor;
use super::error::AdminError;
use super::request::{self, Body, Id, Params};
use crate::app::App;
use crate::db;
use crate::outbox::{self, SentRow};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    limit: Option<i64>,
}

pub async fn unknown(
    State(app): State<Arc<App>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Value>, AdminError> {
    let mut rows = db::outbox::unknown(&app.pool, request::limit(params.limit)?).await?;
    app.words.open(&app.pool, &mut rows).await?;
    Ok(Json(json!({ "rows": rows })))
}

pub async fn failed(
    State(app): State<Arc<App>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Value>, AdminError> {
    let mut rows = db::outbox::failed(&app.pool, request::limit(params.limit)?).await?;
    app.words.open(&app.pool, &mut rows).await?;
    Ok(Json(json!({ "rows": rows })))
}

/// What a person found when they looked at the conversation in Meta's inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Sent,
    NotSent,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settle {
    outcome: Outcome,
}

/// Settles a send in doubt by a person's word. `sent` enters it in the transcript as any other; `not-sent` gives it up together with the later parts of the same reply;
/// it is never sent again by itself, since by now the conversation may have moved on.
pub async fn settle(
    State(app): State<Arc<App>>,
    Actor(actor): Actor,
    Id(id): Id,
    Body(body): Body<Settle>,
) -> Result<Json<Value>, AdminError> {
    let not_found = || AdminError::not_found("outbox row", id);
    let conversation_id = db::outbox::get(&app.pool, id).await?.ok_or_else(not_found)?.conversation_id;
    let mut tx = app.pool.begin().await?;
    // Lock order everywhere: conversation, then outbox rows.
    db::conversations::lock(&mut tx, conversation_id).await?;
    let mut row = db::outbox::lock(&mut tx, id).await?.ok_or_else(not_found)?;
    app.words.open(&mut *tx, std::slice::from_mut(&mut row)).await?;
    if row.state != "unknown" {
        return Err(AdminError::State { what: "the row's state", found: row.state, expected: "unknown" });
    }
    match body.outcome {
        Outcome::Sent => {
            let sent = SentRow { id, conversation_id, author: &row.author, text: &row.text };
            let sent_at = row.first_sent_at.unwrap_or(row.created_at);
            outbox::write_sent(&app, &mut tx, &sent, row.message_id.as_deref(), sent_at).await?;
        }
        Outcome::NotSent => {
            let error = format!("not sent, as {actor} found");
            db::outbox::mark_failed(&mut *tx, id, None, (None, None), &error).await?;
            db::outbox::fail_following(&mut *tx, id, "an earlier part of the same reply failed").await?;
        }
    }
    let outcome = if body.outcome == Outcome::Sent { "sent" } else { "not-sent" };
    let detail = json!({ "outcome": outcome, "conversation_id": conversation_id });
    db::audit::write(&mut *tx, &actor, "outbox.settle", &id.to_string(), detail).await?;
    let mut row = db::outbox::get(&mut *tx, id).await?.ok_or_else(not_found)?;
    app.words.open(&mut *tx, std::slice::from_mut(&mut row)).await?;
    tx.commit().await?;
    // Later messages of the conversation waited for this one.
    app.outbox.wake();
    Ok(Json(json!({ "row": row })))
}
