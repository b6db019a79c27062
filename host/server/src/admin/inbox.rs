//! The inbox: whether what Meta says it delivered has arrived.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::AdminError;
use super::request::Body;
use crate::app::App;
use crate::db;

/// Message ids in one question.
const MIDS_MAX: usize = 1_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    page_id: String,
    mids: Vec<String>,
}

/// Which of these messages of customers never arrived, or are older than `inbox.keep_days`.
pub async fn missing(State(app): State<Arc<App>>, Body(question): Body<Question>) -> Result<Json<Value>, AdminError> {
    if question.mids.len() > MIDS_MAX {
        let problem = format!("it has {} ids, expected at most {MIDS_MAX}", question.mids.len());
        return Err(AdminError::field("mids", problem));
    }
    let missing = db::inbox::missing_messages(&app.pool, &question.page_id, &question.mids).await?;
    Ok(Json(json!({ "missing": missing })))
}
