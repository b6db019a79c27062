//! Whether this process lives, may be given traffic, and how it fares: open to everybody, so nothing here tells more than
//! names and numbers.
//!
//! | route | answers |
//! |-------|---------|
//! | `GET /healthz` | 200 `ok` as long as the process runs; for a supervisor's restart |
//! | `GET /readyz` | 200 when messages can be taken and judged, else 503; JSON says which check failed |
//! | `GET /metrics` | Prometheus text |
//! | `GET /` | 302 to `server.home_url`, or a short page about this host |
//!
//! Ready means: the database answers within a second, and the chain of every configured Page has a serving revision.
//! Redis away is `degraded` but ready: the sweeper finds unread messages in the database.

mod facts;
mod gauges;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use serde::Serialize;
use sqlx::{Connection, PgPool};

use crate::app::App;

pub use facts::Facts;
pub use gauges::start;

/// A database that takes longer cannot acknowledge webhooks in time either.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(1);

const SECURITY_HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

const HOME: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Frontdesk</title>\
<meta name=\"viewport\" content=\"width=device-width\"><style>body{font:16px/1.5 system-ui,sans-serif;max-width:40em;\
margin:4em auto;padding:0 1em}</style></head><body><h1>Frontdesk</h1>\
<p>This host answers a Facebook Page's Messenger inquiries from the Page's own knowledge.</p>\
<ul><li><a href=\"/healthz\">/healthz</a>: does it run</li><li><a href=\"/readyz\">/readyz</a>: may it be given messages</li>\
<li><a href=\"/metrics\">/metrics</a>: how it fares</li></ul></body></html>\n";

pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .layer(middleware::map_response(guard))
        .with_state(app)
}

async fn guard(mut response: Response) -> Response {
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn home(State(app): State<Arc<App>>) -> Response {
    let url = &app.settings.server.home_url;
    match HeaderValue::from_str(url) {
        Ok(location) if !url.is_empty() => (StatusCode::FOUND, [(header::LOCATION, location)]).into_response(),
        _ => Html(HOME).into_response(),
    }
}

async fn metrics_page(State(app): State<Arc<App>>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], app.metrics.render() + &gauges::policy_info(&app.policies)).into_response()
}

/// What `/readyz` says.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Readiness {
    /// `ready`, `degraded` (ready, but something is away) or `not_ready`.
    status: &'static str,
    database: bool,
    redis: bool,
    /// Chains that a Page names and that no revision serves; their turns go to people.
    chains_without_revision: Vec<String>,
}

impl Readiness {
    fn of(database: bool, redis: bool, chains_without_revision: Vec<String>) -> (StatusCode, Self) {
        let (code, status) = match (database && chains_without_revision.is_empty(), redis) {
            (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
            (true, false) => (StatusCode::OK, "degraded"),
            (true, true) => (StatusCode::OK, "ready"),
        };
        (code, Self { status, database, redis, chains_without_revision })
    }
}

async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, Json<Readiness>) {
    let mut missing: Vec<String> = app
        .settings
        .pages
        .iter()
        .map(|page| page.chain.clone())
        .filter(|chain| app.policies.current(chain).is_none())
        .collect();
    missing.sort();
    missing.dedup();
    let (code, readiness) = Readiness::of(database_answers(&app.pool).await, app.queue.is_healthy(), missing);
    (code, Json(readiness))
}

async fn database_answers(pool: &PgPool) -> bool {
    let ping = async { pool.acquire().await?.ping().await };
    matches!(tokio::time::timeout(DATABASE_TIMEOUT, ping).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_alone_never_makes_a_host_unready() {
        let cases = [
            ((true, true, vec![]), (200, "ready")),
            ((true, false, vec![]), (200, "degraded")),
            ((false, true, vec![]), (503, "not_ready")),
            ((true, true, vec!["default".to_owned()]), (503, "not_ready")),
            ((false, false, vec![]), (503, "not_ready")),
        ];
        for ((database, redis, chains), (code, status)) in cases {
            let (found, readiness) = Readiness::of(database, redis, chains);
            assert_eq!((found.as_u16(), readiness.status), (code, status));
        }
    }
}
