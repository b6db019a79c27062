//! What was learned from people's answers and customers' thumbs, for a person to decide about.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Actor;
use super::error::AdminError;
use super::request::{self, Body, Id, Params};
use crate::app::App;
use crate::learning;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    state: Option<String>,
    limit: Option<i64>,
}

/// `GET /admin/learning`: proposed entries of the FAQ, newest first.
pub async fn list(State(app): State<Arc<App>>, Params(params): Params<ListParams>) -> Result<Json<Value>, AdminError> {
    let state = request::choice("state", params.state, &["proposed", "approved", "rejected"])?;
    let limit = request::limit(params.limit)?;
    Ok(Json(json!({ "proposals": learning::list(&app, state.as_deref(), limit).await? })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Other words than the proposed ones.
    question: Option<String>,
    answer: Option<String>,
}

/// `POST /admin/learning/{id}/approve`: makes it part of the knowledge.
pub async fn approve(
    State(app): State<Arc<App>>,
    Actor(actor): Actor,
    Id(id): Id,
    Body(body): Body<Approval>,
) -> Result<Json<Value>, AdminError> {
    let proposal = learning::approve(&app, id, &actor, body.question.as_deref(), body.answer.as_deref()).await?;
    Ok(Json(json!({ "proposal": proposal })))
}

/// `POST /admin/learning/{id}/reject`
pub async fn reject(State(app): State<Arc<App>>, Actor(actor): Actor, Id(id): Id) -> Result<Json<Value>, AdminError> {
    Ok(Json(json!({ "proposal": learning::reject(&app, id, &actor).await? })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuggestionParams {
    page_id: String,
}

/// `GET /admin/golden/suggestions`: golden questions out of thumbs and corrections, as TOML.
pub async fn suggestions(
    State(app): State<Arc<App>>,
    Params(params): Params<SuggestionParams>,
) -> Result<Json<Value>, AdminError> {
    Ok(Json(json!({ "goldens": learning::suggested_goldens(&app, &params.page_id).await? })))
}
