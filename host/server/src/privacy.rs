//! Meta's privacy callbacks, and forgetting a person.
//!
//! | route | does |
//! |-------|------|
//! | `POST /meta/data-deletion` | a person asks Meta to have their data deleted: queues an erasure, answers its status page and code |
//! | `GET /meta/data-deletion/{code}` | how far that is, for the person; says nothing of them |
//! | `POST /meta/deauthorize` | the person who connected a Page removed the app: the Page is parked, customers' data stays |
//!
//! Both posts carry a `signed_request` form field, verified with the app secret before it is read.
//!
//! # Whom a deletion names
//! Meta names an *app-scoped* id, and this host knows people by *Page-scoped* ids. `ids_for_pages` maps one to the other where
//! Meta allows it; besides, the id is looked for as a Page-scoped one. When neither finds anybody, there is nothing to delete.
//! An operator erases by Page and PSID: `frontdesk person erase`.
//!
//! # What an erasure does
//! [`erasure`] deletes in one transaction per person; see there. It is queued first, so it survives restarts.

pub mod erasure;

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Form, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use frontdesk_messenger::signed_request::{SIGNED_REQUEST_BYTES_MAX, SignedRequest, parse_signed_request};
use serde_json::json;

use crate::app::App;
use crate::db;
use crate::db::erasures::Erasure;
use erasure::Subject;

/// How the reason begins when a deauthorisation parked a Page.
const DEAUTHORIZED: &str = "the person who connected the Page removed the app; connect the Page again";

pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/meta/data-deletion", post(delete_data))
        .route("/meta/data-deletion/{code}", get(status_page))
        .route("/meta/deauthorize", post(deauthorize))
        .layer(DefaultBodyLimit::max(SIGNED_REQUEST_BYTES_MAX * 2))
        .layer(middleware::map_response(guard))
        .with_state(app)
}

async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    );
    response
}

/// Why a callback was not carried out.
#[derive(Debug, thiserror::Error)]
enum CallbackError {
    #[error("{source}")]
    Refused {
        #[from]
        source: frontdesk_messenger::signed_request::SignedRequestError,
    },
    #[error("there is no signed_request in the form")]
    Missing,
    #[error("the request could not be stored; send it again")]
    Erasure {
        #[from]
        source: erasure::ErasureError,
    },
    #[error("the request could not be stored; send it again")]
    Database {
        #[from]
        source: sqlx::Error,
    },
}

impl IntoResponse for CallbackError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Refused { source } => source.http_status(),
            Self::Missing => 400,
            Self::Erasure { .. } | Self::Database { .. } => 503,
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        tracing::warn!(
            error = &self as &dyn std::error::Error,
            status = status.as_u16(),
            "a privacy callback was refused"
        );
        (status, self.to_string()).into_response()
    }
}

fn verified(app: &App, form: &HashMap<String, String>) -> Result<SignedRequest, CallbackError> {
    let field = form.get("signed_request").ok_or(CallbackError::Missing)?;
    Ok(parse_signed_request(field, &app.secrets.app_secrets, chrono::Utc::now().timestamp())?)
}

async fn delete_data(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Result<Response, CallbackError> {
    let request = verified(&app, &form)?;
    let code = erasure::request(&app, &Subject::User { user_id: request.user_id }, "meta").await?;
    let url = format!("{}/meta/data-deletion/{code}", public_url(&app, &headers));
    Ok(Json(json!({ "url": url, "confirmation_code": code })).into_response())
}

/// The address under which people reach this host: the setting, else what the request was sent to.
fn public_url(app: &App, headers: &HeaderMap) -> String {
    let set = app.settings.server.public_url.trim_end_matches('/');
    if !set.is_empty() {
        return set.to_owned();
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let is_plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    // Meta calls by HTTPS only, whatever the proxy in front makes of it.
    format!("https://{}", if is_plain { host } else { "localhost" })
}

async fn deauthorize(
    State(app): State<Arc<App>>,
    Form(form): Form<HashMap<String, String>>,
) -> Result<Response, CallbackError> {
    let request = verified(&app, &form)?;
    let mut tx = app.pool.begin().await?;
    let pages = db::page_tokens::pages_of_user(&mut *tx, &request.user_id).await?;
    for page_id in &pages {
        db::pages::set_state(&mut *tx, page_id, "parked", DEAUTHORIZED).await?;
        db::audit::write(&mut *tx, "meta", "page.deauthorize", page_id, json!({})).await?;
    }
    tx.commit().await?;
    if !pages.is_empty() {
        tracing::error!(
            pages = pages.join(","),
            "the person who connected the Page(s) removed the app; they are parked"
        );
    }
    Ok(StatusCode::OK.into_response())
}

async fn status_page(State(app): State<Arc<App>>, Path(code): Path<String>) -> Result<Response, CallbackError> {
    let found = if erasure::is_code(&code) { db::erasures::get(&app.pool, &code).await? } else { None };
    Ok(match found {
        Some(erasure) => Html(page(&said(&erasure))).into_response(),
        None => (StatusCode::NOT_FOUND, Html(page("There is no request with this code."))).into_response(),
    })
}

fn said(erasure: &Erasure) -> String {
    let day = |at: chrono::DateTime<chrono::Utc>| at.format("%Y-%m-%d %H:%M UTC").to_string();
    let asked = day(erasure.requested_at);
    match (erasure.state.as_str(), erasure.done_at) {
        ("done", Some(at)) if erasure.people == 0 => {
            format!("Your request of {asked} was completed on {}: nothing about you was stored here.", day(at))
        }
        ("done", Some(at)) => {
            format!("Your request of {asked} was completed on {}: what was stored about you is deleted.", day(at))
        }
        ("failed", _) => {
            format!("Your request of {asked} needs a person's attention. They have been told; please come back later.")
        }
        _ => format!("Your request of {asked} is being carried out. This page says when it is done."),
    }
}

/// The text holds only what [`said`] made: no input reaches the page.
fn page(text: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Deletion of your data</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>body{{font:16px/1.5 system-ui,sans-serif;max-width:40em;\
         margin:4em auto;padding:0 1em}}</style></head><body><h1>Deletion of your data</h1><p>{text}</p></body></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_page_says_how_far_it_is_and_nothing_else() {
        let at = chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let erasure = |state: &str, people| Erasure {
            code: "abc".into(),
            source: "callback".into(),
            state: state.into(),
            people,
            rows_erased: 7,
            attempts: 1,
            note: Some("HTTP 500".into()),
            requested_by: "meta".into(),
            requested_at: at,
            done_at: (state == "done").then_some(at),
        };
        let cases = [
            (erasure("queued", 0), "is being carried out"),
            (erasure("done", 2), "what was stored about you is deleted"),
            (erasure("done", 0), "nothing about you was stored"),
            (erasure("failed", 1), "needs a person"),
        ];
        for (erasure, expected) in cases {
            let text = said(&erasure);
            assert!(text.contains(expected) && text.contains("2027-01-15"), "{text}");
            assert!(!text.contains("HTTP 500") && !text.contains("meta"), "{text}");
        }
    }
}
