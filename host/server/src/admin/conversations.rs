//! Conversations, and what people do with them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Agent;
use super::error::AdminError;
use super::request::{self, Body, Id, Params};
use crate::app::App;
use crate::db;
use crate::handover;

/// Latest messages shown with a conversation.
const TRANSCRIPT_MAX: i64 = 500;
const REASON_CHARACTERS_MAX: usize = 200;
const REQUEST_KEY_BYTES_MAX: usize = 128;
const STATES: &[&str] = &["bot", "human", "not_ours"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    state: Option<String>,
    before: Option<String>,
    limit: Option<i64>,
}

pub async fn list(State(app): State<Arc<App>>, Params(params): Params<ListParams>) -> Result<Json<Value>, AdminError> {
    let state = request::choice("state", params.state, STATES)?;
    let before = request::before(params.before.as_deref())?;
    let limit = request::limit(params.limit)?;
    let rows = db::conversations::list_page(&app.pool, state.as_deref(), before, limit).await?;
    let last = rows.last().map(|row| (row.last_customer_at.unwrap_or(row.created_at), row.id));
    let next_before = request::next_before(rows.len(), limit, last);
    Ok(Json(json!({ "conversations": rows, "next_before": next_before })))
}

pub async fn show(State(app): State<Arc<App>>, Id(id): Id) -> Result<Json<Value>, AdminError> {
    let conversation =
        db::conversations::get(&app.pool, id).await?.ok_or_else(|| AdminError::not_found("conversation", id))?;
    let mut transcript = db::messages::transcript(&app.pool, id, TRANSCRIPT_MAX).await?;
    let mut tickets = db::tickets::of_conversation(&app.pool, id, 20).await?;
    let mut outbox = db::outbox::open_of_conversation(&app.pool, id).await?;
    let also_known_as = db::conversations::other_keys(&app.pool, &conversation.page_id, &conversation.psid).await?;
    app.words.open(&app.pool, &mut transcript).await?;
    app.words.open(&app.pool, &mut tickets).await?;
    app.words.open(&app.pool, &mut outbox).await?;
    let window = json!({
        "opened_by": conversation.window_opened_by,
        "opened_at": conversation.window_opened_at,
        "closes_at": conversation.window_closes_at,
        "is_open": conversation.window_closes_at.is_some_and(|at| at > app.clock.now()),
        "agent_may_write_until": handover::agent_may_write_until(&app.settings.window_rules, &conversation),
    });
    Ok(Json(json!({
        "conversation": conversation,
        "also_known_as": also_known_as,
        "window": window,
        "transcript": transcript,
        "open_ticket": tickets.iter().find(|ticket| ticket.state == "open"),
        "tickets": tickets,
        "outbox": outbox,
    })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakeOver {
    #[serde(default)]
    reason: String,
}

pub async fn take_over(
    State(app): State<Arc<App>>,
    Agent(agent): Agent,
    Id(id): Id,
    Body(body): Body<TakeOver>,
) -> Result<Json<handover::Handover>, AdminError> {
    let reason = request::text("reason", &body.reason, REASON_CHARACTERS_MAX)?;
    Ok(Json(handover::take_over(&app, id, &agent, &reason).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    text: String,
}

/// 202: the words are queued; 200: the same request was queued before.
pub async fn reply(
    State(app): State<Arc<App>>,
    Agent(agent): Agent,
    Id(id): Id,
    headers: HeaderMap,
    Body(body): Body<Reply>,
) -> Result<(StatusCode, Json<handover::Replied>), AdminError> {
    let key = match headers.get("idempotency-key").map(|value| value.to_str()) {
        None => None,
        Some(Ok(key)) if !key.is_empty() && key.len() <= REQUEST_KEY_BYTES_MAX => Some(key),
        Some(_) => {
            let problem = format!("expected 1 to {REQUEST_KEY_BYTES_MAX} visible ASCII characters");
            return Err(AdminError::field("Idempotency-Key", problem));
        }
    };
    let replied = handover::reply(&app, id, &agent, &body.text, key).await?;
    if !replied.repeated {
        let app = Arc::clone(&app);
        // The reply is on its way whatever becomes of this.
        tokio::spawn(async move {
            if let Err(error) = crate::learning::propose(&app, id, &agent, &body.text).await {
                tracing::warn!(%error, conversation = %id, "nothing could be learned from a reply");
            }
        });
    }
    let status = if replied.repeated { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(replied)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandBack {
    #[serde(default = "yes")]
    resolve: bool,
}

fn yes() -> bool {
    true
}

pub async fn hand_back(
    State(app): State<Arc<App>>,
    Agent(agent): Agent,
    Id(id): Id,
    Body(body): Body<HandBack>,
) -> Result<Json<handover::Handover>, AdminError> {
    Ok(Json(handover::hand_back(&app, id, &agent, body.resolve).await?))
}

/// Who has the thread at Meta.
pub async fn thread(State(app): State<Arc<App>>, Id(id): Id) -> Result<Json<handover::thread::Owner>, AdminError> {
    Ok(Json(handover::thread::owner(&app, id).await?))
}

/// Passes, takes, releases, requests or keeps the thread: `{"action": "pass", "app_id": …}`.
pub async fn control_thread(
    State(app): State<Arc<App>>,
    Agent(agent): Agent,
    Id(id): Id,
    Body(body): Body<handover::thread::Control>,
) -> Result<Json<Value>, AdminError> {
    let conversation = handover::thread::control(&app, id, &agent, &body).await?;
    Ok(Json(json!({ "conversation": conversation })))
}
