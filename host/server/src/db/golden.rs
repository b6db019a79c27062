//! Table `golden_runs`: what golden questions came to, run by run.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

/// A run to be kept.
#[derive(Debug)]
pub struct NewRun<'a> {
    pub id: Uuid,
    pub occasion: &'a str,
    pub subject: &'a str,
    pub actor: &'a str,
    pub page_id: &'a str,
    pub chain: &'a str,
    pub revision: &'a str,
    pub passed: i32,
    pub failed: i32,
    pub report: &'a Value,
}

/// A run as listings show it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow, serde::Serialize, serde::Deserialize)]
pub struct Run {
    pub id: Uuid,
    pub at: DateTime<Utc>,
    pub occasion: String,
    pub subject: String,
    pub actor: String,
    pub page_id: String,
    pub chain: String,
    pub revision: String,
    pub passed: i32,
    pub failed: i32,
}

/// Keeps a run, and the newest `kept` of its Page.
pub async fn store(pool: &PgPool, run: &NewRun<'_>, kept: i64) -> sqlx::Result<()> {
    let mut transaction = pool.begin().await?;
    sqlx::query(
        "insert into golden_runs (id, occasion, subject, actor, page_id, chain, revision, passed, failed, report)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(run.id)
    .bind(run.occasion)
    .bind(run.subject)
    .bind(run.actor)
    .bind(run.page_id)
    .bind(run.chain)
    .bind(run.revision)
    .bind(run.passed)
    .bind(run.failed)
    .bind(run.report)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "delete from golden_runs where id in (
             select id from golden_runs where page_id = $1 order by at desc, id desc offset $2)",
    )
    .bind(run.page_id)
    .bind(kept)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}

/// The newest runs, newest first.
pub async fn list(pool: &PgPool, page_id: Option<&str>, limit: i64) -> sqlx::Result<Vec<Run>> {
    sqlx::query_as(
        "select id, at, occasion, subject, actor, page_id, chain, revision, passed, failed from golden_runs
          where $1::text is null or page_id = $1 order by at desc, id desc limit $2",
    )
    .bind(page_id)
    .bind(limit)
    .fetch_all(pool)
    .await
}

pub async fn report(pool: &PgPool, id: Uuid) -> sqlx::Result<Option<Value>> {
    sqlx::query_scalar("select report from golden_runs where id = $1").bind(id).fetch_optional(pool).await
}
