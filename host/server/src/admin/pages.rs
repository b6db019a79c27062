//! Pages: whether they may send, what Meta says of them, and connecting them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Actor;
use super::error::AdminError;
use super::request::Body;
use crate::app::App;
use crate::db;
use crate::db::pages::Page;
use crate::pages::{connect, health};

pub async fn list(State(app): State<Arc<App>>) -> Result<Json<Value>, AdminError> {
    let health = db::page_health::list(&app.pool).await?;
    let connections = db::page_tokens::connections(&app.pool).await?;
    let shown = |page: Page| {
        let id = page.page_id.clone();
        let token = match connections.iter().find(|connection| connection.page_id == id) {
            Some(connection) => {
                json!({ "source": "connected", "by": connection.connected_by, "at": connection.connected_at })
            }
            None if app.tokens.is_given(&id) => json!({ "source": "settings" }),
            None => Value::Null,
        };
        let mut view = json!(page);
        view["token"] = token;
        view["health"] = json!(health.iter().find(|health| health.page_id == id));
        view
    };
    let pages: Vec<Value> = db::pages::list(&app.pool).await?.into_iter().map(shown).collect();
    Ok(Json(json!({ "pages": pages })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectBody {
    /// A token of a person who manages the Page. It is used and forgotten.
    user_token: SecretString,
    /// Which Page, when the token reaches several.
    page_id: Option<String>,
    chain: Option<String>,
    time_zone: Option<String>,
    language: Option<String>,
}

/// Connects a Page, or connects it again: see [`connect`].
pub async fn connect(
    State(app): State<Arc<App>>,
    Actor(actor): Actor,
    Body(body): Body<ConnectBody>,
) -> Result<Json<Value>, AdminError> {
    let request = connect::Request {
        user_token: body.user_token,
        page_id: body.page_id,
        chain: body.chain,
        time_zone: body.time_zone,
        language: body.language,
    };
    let connected = connect::connect(&app, &actor, request).await?;
    Ok(Json(json!({ "page": connected })))
}

/// Ends a connection: the token is forgotten, the Page is parked.
pub async fn disconnect(
    State(app): State<Arc<App>>,
    Actor(actor): Actor,
    Path(page_id): Path<String>,
) -> Result<Json<Value>, AdminError> {
    let unsubscribed = connect::disconnect(&app, &actor, &page_id).await?;
    Ok(Json(json!({ "page_id": page_id, "unsubscribed": unsubscribed })))
}

/// Asks Meta about one Page now.
pub async fn check(State(app): State<Arc<App>>, Path(page_id): Path<String>) -> Result<Json<Value>, AdminError> {
    db::pages::get(&app.pool, &page_id).await?.ok_or_else(|| AdminError::not_found("Page", &page_id))?;
    let health = health::check_page(&app, &page_id).await?;
    let health = health.ok_or_else(|| AdminError::not_found("token of the Page", &page_id))?;
    Ok(Json(json!({ "health": health })))
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
