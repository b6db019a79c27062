//! Documents: in, out, listed and searched.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::multipart::{Multipart, MultipartError};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use futures::FutureExt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Actor;
use super::error::AdminError;
use super::request::{self, Body, Id, Params};
use crate::app::App;
use crate::db;
use crate::golden::KnowledgeChange;
use crate::knowledge::{
    Added, DOCUMENT_BYTES_MAX, FILE_BYTES_MAX, Format, NewDocument, Outcome, QUERY_CHARACTERS_MAX, SearchRequest,
    Upload, format_from_name,
};

/// JSON may need two bytes for one (`\n`, `\"`), and some room for the other fields.
pub const TEXT_BODY_BYTES_MAX: usize = 2 * DOCUMENT_BYTES_MAX + 64 * 1024;
pub const FILE_BODY_BYTES_MAX: usize = FILE_BYTES_MAX + 64 * 1024;
/// Parts of a multipart body.
const PARTS_MAX: usize = 64;
/// Hits of one search.
const HITS_MAX: usize = 50;
const HITS_DEFAULT: usize = 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewText {
    title: String,
    text: String,
    /// Identifies the document within its Page scope; absent: made of the title.
    source: Option<String>,
    page_id: Option<String>,
    language: Option<String>,
    #[serde(default)]
    labels: Vec<String>,
    /// `text`, `markdown`, `html` or `csv-faq` (files have further formats); absent: by the ending of `source`, else `text`.
    format: Option<Format>,
    valid_from: Option<DateTime<Utc>>,
    valid_until: Option<DateTime<Utc>>,
}

pub async fn add_text(
    State(app): State<Arc<App>>,
    Actor(actor): Actor,
    Body(body): Body<NewText>,
) -> Result<(StatusCode, Json<Value>), AdminError> {
    if body.title.trim().is_empty() {
        return Err(AdminError::field("title", "it is empty, expected the document's name"));
    }
    let source = body.source.unwrap_or_else(|| format!("text: {}", body.title.trim()));
    let format = body.format.or_else(|| format_from_name(&source)).unwrap_or(Format::Text);
    let document = NewDocument {
        page_id: body.page_id,
        title: Some(body.title),
        format: Some(format),
        bytes: body.text.into_bytes(),
        language: body.language,
        labels: body.labels,
        valid_from: body.valid_from,
        valid_until: body.valid_until,
        source,
    };
    add(&app, &actor, document).await
}

/// Takes the part `file`, and as further parts `source` (absent: the file's name), `title`, `page_id`, `language`,
/// `labels` (comma-separated, or several parts), `format`, `valid_from` and `valid_until` (RFC 3339).
pub async fn add_file(
    State(app): State<Arc<App>>,
    Actor(actor): Actor,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<(StatusCode, Json<Value>), AdminError> {
    let form = form.map_err(|error| AdminError::Body { problem: error.body_text() })?;
    add(&app, &actor, read_form(form).await?).await
}

pub(super) async fn read_form(mut form: Multipart) -> Result<NewDocument, AdminError> {
    let mut document = NewDocument::default();
    let mut file_name = None;
    let mut has_file = false;
    for _ in 0..PARTS_MAX {
        let Some(part) = form.next_field().await.map_err(|error| refused_form(&error))? else {
            if !has_file {
                return Err(AdminError::field("file", "this part is missing, expected the document"));
            }
            if document.source.is_empty() {
                document.source = file_name.unwrap_or_default();
            }
            return Ok(document);
        };
        let name = part.name().unwrap_or_default().to_owned();
        if name == "file" {
            has_file = true;
            file_name = part.file_name().map(str::to_owned);
            document.bytes = part.bytes().await.map_err(|error| refused_form(&error))?.to_vec();
        } else {
            let value = part.text().await.map_err(|error| refused_form(&error))?;
            set_field(&mut document, &name, value.trim())?;
        }
    }
    Err(AdminError::Body { problem: format!("it has more than {PARTS_MAX} parts") })
}

/// An empty part is an empty input of a form: not given.
fn set_field(document: &mut NewDocument, name: &str, value: &str) -> Result<(), AdminError> {
    let given = || (!value.is_empty()).then(|| value.to_owned());
    let time = |field| match value {
        "" => Ok(None),
        value => DateTime::parse_from_rfc3339(value)
            .map(|at| Some(at.to_utc()))
            .map_err(|_| AdminError::field(field, "expected an RFC 3339 time such as 2027-01-31T00:00:00Z")),
    };
    match name {
        "source" => document.source = value.to_owned(),
        "title" => document.title = given(),
        "page_id" => document.page_id = given(),
        "language" => document.language = given(),
        "labels" => {
            document
                .labels
                .extend(value.split(',').map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned));
        }
        "format" => document.format = given().map(|format| format.parse()).transpose()?,
        "valid_from" => document.valid_from = time("valid_from")?,
        "valid_until" => document.valid_until = time("valid_until")?,
        other => {
            let problem = format!(
                "the part {other:?} is not known, expected file, source, title, page_id, language, labels, format, \
                 valid_from or valid_until"
            );
            return Err(AdminError::Body { problem });
        }
    }
    Ok(())
}

fn refused_form(error: &MultipartError) -> AdminError {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return AdminError::TooLarge;
    }
    AdminError::Body { problem: error.body_text() }
}

/// Refuses a Page that this host does not know.
pub(super) async fn checked_page(app: &App, page_id: Option<&str>) -> Result<(), AdminError> {
    match page_id {
        Some(page_id) if db::pages::get(&app.pool, page_id).await?.is_none() => {
            let problem = format!("there is no Page {page_id:?}; GET /admin/pages lists them");
            Err(AdminError::field("page_id", problem))
        }
        _ => Ok(()),
    }
}

/// 201: a new document; 200: replaced, or the same as before.
async fn add(app: &App, actor: &str, document: NewDocument) -> Result<(StatusCode, Json<Value>), AdminError> {
    checked_page(app, document.page_id.as_deref()).await?;
    let (source, page_id) = (document.source.clone(), document.page_id.clone());
    let upload = Upload { by: actor.to_owned(), ..Upload::default() };
    let change = app
        .goldens
        .admit(page_id.as_deref(), &source, actor, |knowledge| {
            async move { knowledge.ingest(document, upload).await }.boxed()
        })
        .await?;
    let (added, warnings) = match change {
        KnowledgeChange::Made { value, warnings } => (value, warnings),
        KnowledgeChange::Refused { problems, .. } => return Err(AdminError::Regressed { problems }),
    };
    if added.outcome != Outcome::Unchanged {
        let detail = json!({
            "source": source, "page_id": page_id, "outcome": added.outcome, "passages": added.passages,
        });
        db::audit::write(&app.pool, actor, "knowledge.add", &added.document_id.to_string(), detail).await?;
    }
    let status = if added.outcome == Outcome::Created { StatusCode::CREATED } else { StatusCode::OK };
    let Added { document_id, passages, outcome } = added;
    let mut body = json!({ "document_id": document_id, "source": source, "outcome": outcome, "passages": passages });
    if !warnings.is_empty() {
        body["warnings"] = json!(warnings);
    }
    Ok((status, Json(body)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    page_id: Option<String>,
}

pub async fn list(State(app): State<Arc<App>>, Params(params): Params<ListParams>) -> Result<Json<Value>, AdminError> {
    Ok(Json(json!({ "documents": app.knowledge.list(params.page_id.as_deref()).await? })))
}

pub async fn delete(State(app): State<Arc<App>>, Actor(actor): Actor, Id(id): Id) -> Result<Json<Value>, AdminError> {
    let change = app
        .goldens
        .admit(None, &id.to_string(), &actor, |knowledge| async move { knowledge.delete(id).await }.boxed())
        .await?;
    match change {
        KnowledgeChange::Made { value: true, .. } => {}
        KnowledgeChange::Made { value: false, .. } => return Err(AdminError::not_found("document", id)),
        KnowledgeChange::Refused { problems, .. } => return Err(AdminError::Regressed { problems }),
    }
    db::audit::write(&app.pool, &actor, "knowledge.delete", &id.to_string(), json!({})).await?;
    Ok(Json(json!({ "deleted": id })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchParams {
    q: String,
    page_id: Option<String>,
    /// The question's language; absent: detected.
    language: Option<String>,
    limit: Option<usize>,
}

/// What a turn would find for this question. `score` is the fused one, `vector_score` and `lexical_score` are its parts.
pub async fn search(
    State(app): State<Arc<App>>,
    Params(params): Params<SearchParams>,
) -> Result<Json<crate::knowledge::SearchOutcome>, AdminError> {
    let query = request::text("q", &params.q, QUERY_CHARACTERS_MAX)?;
    if query.is_empty() {
        return Err(AdminError::field("q", "it is empty, expected a question"));
    }
    let limit = params.limit.unwrap_or(HITS_DEFAULT);
    if !(1..=HITS_MAX).contains(&limit) {
        return Err(AdminError::field("limit", format!("{limit} was given, expected 1 to {HITS_MAX}")));
    }
    let found = app
        .knowledge
        .search(SearchRequest {
            page_id: params.page_id,
            query,
            language: params.language,
            labels: Vec::new(),
            passage_languages: Vec::new(),
            limit,
            now: Utc::now(),
        })
        .await?;
    Ok(Json(found))
}
