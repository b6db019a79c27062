//! What a chain's shadow would have changed, and the sliding windows that its tripwires look at.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::AdminError;
use super::request::{self, Params};
use crate::app::App;
use crate::db;
use crate::db::shadow::By;

/// Kinds of changes that are listed.
const CHANGES_MAX: i64 = 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportParams {
    /// The shadow to report on; without it the present one, or else the one that judged last.
    revision: Option<String>,
    /// Sample turns.
    limit: Option<i64>,
}

/// `GET /admin/policies/{chain}/shadow`
pub async fn report(
    State(app): State<Arc<App>>,
    Path(chain): Path<String>,
    Params(params): Params<ReportParams>,
) -> Result<Json<Value>, AdminError> {
    if !app.policies.chains().contains(&chain) {
        return Err(AdminError::not_found("chain", chain));
    }
    let limit = request::limit(params.limit)?;
    let slots = app.policies.slots(&chain);
    let present = slots.shadow.as_ref().map(|serving| serving.id().to_owned());
    let asked = match params.revision.or_else(|| present.clone()) {
        Some(revision) => Some(revision),
        None => db::shadow::newest(&app.pool, &chain).await?,
    };
    let Some(shadow) = asked else { return Err(AdminError::not_found("shadow of chain", chain)) };
    let pool = &app.pool;
    let changes = async |by: By| db::shadow::changes(pool, &chain, &shadow, by, CHANGES_MAX).await;
    Ok(Json(json!({
        "replica": app.replica,
        "chain": chain,
        "active": slots.active.as_ref().map(|serving| serving.id()),
        "shadow": shadow,
        "is_present": present.as_deref() == Some(shadow.as_str()),
        "waiting": app.observer.shadow_waiting(),
        "totals": db::shadow::totals(pool, &chain, &shadow).await?,
        "routes": changes(By::Route).await?,
        "outcomes": changes(By::Outcome).await?,
        "reasons": changes(By::Reason).await?,
        "faults": changes(By::Fault).await?,
        "samples": db::shadow::samples(pool, &chain, &shadow, limit).await?,
        "windows": app.observer.windows().status(&chain),
    })))
}
