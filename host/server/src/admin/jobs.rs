//! Long work on knowledge: begun, watched, stopped.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::multipart::Multipart;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Actor;
use super::error::AdminError;
use super::knowledge::{checked_page, read_form};
use super::request::{Body, Id, Params};
use crate::app::App;
use crate::db;
use crate::ingestion::{self, WebsiteParams};

const LIST_DEFAULT: i64 = 50;
const LIST_MAX: i64 = 200;
/// Lines of a website's report.
const LINES_MAX: i64 = 1_000;

/// Takes what `POST /admin/knowledge/file` takes, and answers at once.
pub async fn add_file(
    State(app): State<Arc<App>>,
    Actor(actor): Actor,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<(StatusCode, Json<Value>), AdminError> {
    let form = form.map_err(|error| AdminError::Body { problem: error.body_text() })?;
    let document = read_form(form).await?;
    checked_page(&app, document.page_id.as_deref()).await?;
    let id = ingestion::queue_file(&app, &actor, document).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "job_id": id }))))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Website {
    /// The site (its sitemaps are looked for), or a sitemap.
    url: String,
    page_id: Option<String>,
    language: Option<String>,
    #[serde(default)]
    labels: Vec<String>,
    pages_max: Option<u32>,
    #[serde(default)]
    prune: bool,
}

pub async fn add_website(
    State(app): State<Arc<App>>,
    Actor(actor): Actor,
    Body(body): Body<Website>,
) -> Result<(StatusCode, Json<Value>), AdminError> {
    checked_page(&app, body.page_id.as_deref()).await?;
    let params =
        WebsiteParams { language: body.language, labels: body.labels, pages_max: body.pages_max, prune: body.prune };
    let id = ingestion::queue_website(&app, &actor, body.page_id.as_deref(), &body.url, &params).await?;
    let detail = json!({ "url": body.url, "page_id": body.page_id });
    db::audit::write(&app.pool, &actor, "knowledge.website", &id.to_string(), detail).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "job_id": id }))))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    limit: Option<i64>,
}

pub async fn list(State(app): State<Arc<App>>, Params(params): Params<ListParams>) -> Result<Json<Value>, AdminError> {
    let limit = params.limit.unwrap_or(LIST_DEFAULT);
    if !(1..=LIST_MAX).contains(&limit) {
        return Err(AdminError::field("limit", format!("{limit} was given, expected 1 to {LIST_MAX}")));
    }
    Ok(Json(json!({ "jobs": db::jobs::list(&app.pool, limit).await? })))
}

/// A job; of a website also what came of each address.
pub async fn show(State(app): State<Arc<App>>, Id(id): Id) -> Result<Json<Value>, AdminError> {
    let job = db::jobs::get(&app.pool, id).await?.ok_or_else(|| AdminError::not_found("job", id))?;
    let lines = match job.kind.as_str() {
        "website" => db::jobs::lines(&app.pool, id, LINES_MAX).await?,
        _ => Vec::new(),
    };
    Ok(Json(json!({ "job": job, "pages": lines })))
}

/// Stops a job: at once when it waits, within a second or two when it runs. What it has stored by then stays.
pub async fn cancel(State(app): State<Arc<App>>, Actor(actor): Actor, Id(id): Id) -> Result<Json<Value>, AdminError> {
    match db::jobs::cancel(&app.pool, id).await? {
        None => Err(AdminError::not_found("job", id)),
        Some(false) => {
            Err(AdminError::State { what: "the job", found: "over".to_owned(), expected: "one that waits or runs" })
        }
        Some(true) => {
            db::audit::write(&app.pool, &actor, "knowledge.cancel", &id.to_string(), json!({})).await?;
            Ok(Json(json!({ "cancelled": id })))
        }
    }
}
