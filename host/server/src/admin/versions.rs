//! A document's history, and what its text does not say any more.
//!
//! Raw files and the originals behind placeholders are personal data. Who asks for them shows a second token
//! (`X-Frontdesk-Reveal-Token`), is named, and gives a reason; all of it is in the audit log before the answer leaves.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::{Agent, may_reveal};
use super::error::AdminError;
use super::request::{self, Body, Id};
use crate::app::App;
use crate::db;
use crate::db::documents::Sealed;
use crate::keys::Wrapped;
use crate::knowledge::archive::Kept;
use crate::knowledge::{Archive, redact::Originals};

const REASON_CHARACTERS_MAX: usize = 500;

/// The versions of a document, newest first.
pub async fn list(State(app): State<Arc<App>>, Id(id): Id) -> Result<Json<Value>, AdminError> {
    let document =
        db::knowledge::document(&app.pool, id).await?.ok_or_else(|| AdminError::not_found("document", id))?;
    let versions = db::documents::versions(&app.pool, id).await?;
    Ok(Json(json!({ "document": document, "versions": versions })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reveal {
    /// For the audit log.
    reason: String,
    /// Absent: the newest.
    version: Option<i32>,
}

/// What the placeholders of a version stand for.
pub async fn reveal(
    State(app): State<Arc<App>>,
    Agent(agent): Agent,
    headers: HeaderMap,
    Id(id): Id,
    Body(body): Body<Reveal>,
) -> Result<Json<Value>, AdminError> {
    let (sealed, kept, _) = open(&app, &agent, &headers, id, &body, "knowledge.reveal").await?;
    let originals = match &sealed.originals {
        Some(sealed) => kept.open_originals(sealed)?,
        None => Originals::new(),
    };
    Ok(Json(json!({ "document_id": id, "version": sealed.version, "originals": originals })))
}

/// The file of a version as it was uploaded.
pub async fn raw(
    State(app): State<Arc<App>>,
    Agent(agent): Agent,
    headers: HeaderMap,
    Id(id): Id,
    Body(body): Body<Reveal>,
) -> Result<Response, AdminError> {
    let (sealed, kept, archive) = open(&app, &agent, &headers, id, &body, "knowledge.raw").await?;
    let raw = archive.raw(&kept).await?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment")),
        (HeaderName::from_static("x-frontdesk-version"), HeaderValue::from(sealed.version)),
    ];
    Ok((headers, raw.to_vec()).into_response())
}

async fn open<'a>(
    app: &'a App,
    agent: &str,
    headers: &HeaderMap,
    id: Uuid,
    body: &Reveal,
    action: &str,
) -> Result<(Sealed, Kept, &'a Archive), AdminError> {
    may_reveal(headers, app.secrets.reveal_token.as_ref())?;
    let reason = request::text("reason", &body.reason, REASON_CHARACTERS_MAX)?;
    if reason.is_empty() {
        return Err(AdminError::field("reason", "it is empty, expected why this has to be seen"));
    }
    let missing = || AdminError::not_found("version kept of document", id);
    let archive = app.knowledge.archive().ok_or_else(missing)?;
    let sealed = db::documents::sealed(&app.pool, id, body.version).await?.ok_or_else(missing)?;
    let wrapped = Wrapped { key_id: sealed.key_id.clone(), sealed: sealed.wrapped.clone() };
    let kept = archive.reopen(&sealed.object_key, &wrapped)?;
    let detail = json!({ "version": sealed.version, "reason": reason });
    db::audit::write(&app.pool, agent, action, &id.to_string(), detail).await?;
    Ok((sealed, kept, archive))
}
