//! Golden questions: run a file of them, look at earlier runs, compare two.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::Actor;
use super::error::AdminError;
use super::request::{self, Body, Id, Params};
use crate::app::App;
use crate::golden::{GoldenError, GoldenFile, Report};

/// Largest file of goldens that is taken, in bytes.
pub const BODY_BYTES_MAX: usize = 2 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunBody {
    /// The file's text (TOML).
    goldens: String,
    /// Absent: the first Page.
    page_id: Option<String>,
}

/// `POST /admin/golden/runs`: asks the questions now; nothing is sent to anybody.
pub async fn run(
    State(app): State<Arc<App>>,
    Actor(actor): Actor,
    Body(body): Body<RunBody>,
) -> Result<Json<Value>, AdminError> {
    let file = GoldenFile::parse(&body.goldens).map_err(GoldenError::from)?;
    let report = app.goldens.run(body.page_id.as_deref(), &file, &actor).await?;
    Ok(Json(shown(&report)))
}

fn shown(report: &Report) -> Value {
    json!({ "report": report, "passed": report.passed(), "failed": report.failed(), "score": report.score() })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    page_id: Option<String>,
    limit: Option<i64>,
}

/// `GET /admin/golden/runs`: the newest runs, newest first.
pub async fn list(State(app): State<Arc<App>>, Params(params): Params<ListParams>) -> Result<Json<Value>, AdminError> {
    let limit = request::limit(params.limit)?;
    Ok(Json(json!({ "runs": app.goldens.runs(params.page_id.as_deref(), limit).await? })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowParams {
    /// Compare with this earlier run.
    before: Option<Uuid>,
}

/// `GET /admin/golden/runs/{id}`: a run's report; with `before`, what changed since that run.
pub async fn show(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Params(params): Params<ShowParams>,
) -> Result<Json<Value>, AdminError> {
    let report = app.goldens.report(id).await?;
    let mut answer = shown(&report);
    if let Some(before) = params.before {
        let comparison = report.compared(&app.goldens.report(before).await?);
        answer["comparison"] = serde_json::to_value(comparison).unwrap_or_default();
    }
    Ok(Json(answer))
}
