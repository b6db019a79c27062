//! Pages: whether they may send.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::access::Actor;
use super::error::AdminError;
use crate::app::App;
use crate::db;

pub async fn list(State(app): State<Arc<App>>) -> Result<Json<Value>, AdminError> {
    Ok(Json(json!({ "pages": db::pages::list(&app.pool).await? })))
}

/// Lets a parked or stopped Page send again. Idempotent; a pause for Meta's rate limit stays.
pub async fn resume(
    State(app): State<Arc<App>>,
    Actor(actor): Actor,
    Path(page_id): Path<String>,
) -> Result<Json<Value>, AdminError> {
    let not_found = || AdminError::not_found("Page", &page_id);
    let mut tx = app.pool.begin().await?;
    let before = db::pages::get(&mut *tx, &page_id).await?.ok_or_else(not_found)?;
    let changed = db::pages::set_state(&mut *tx, &page_id, "active", &format!("resumed by {actor}")).await?;
    if changed {
        let detail = json!({ "from": before.state, "reason": before.state_reason });
        db::audit::write(&mut *tx, &actor, "page.resume", &page_id, detail).await?;
    }
    let page = db::pages::get(&mut *tx, &page_id).await?.ok_or_else(not_found)?;
    tx.commit().await?;
    if changed {
        tracing::warn!(page = page_id, actor, "the Page was resumed");
        app.outbox.wake();
    }
    Ok(Json(json!({ "changed": changed, "page": page })))
}
