//! Table `audit_log`: who did what. Never a customer's words.

use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

#[derive(Debug, Clone, sqlx::FromRow, serde::Serialize)]
pub struct AuditEntry {
    pub id: i64,
    pub at: DateTime<Utc>,
    pub actor: String,
    pub action: String,
    pub subject: String,
    pub detail: serde_json::Value,
}

pub async fn write(
    db: impl PgExecutor<'_>,
    actor: &str,
    action: &str,
    subject: &str,
    detail: serde_json::Value,
) -> sqlx::Result<()> {
    sqlx::query("insert into audit_log (actor, action, subject, detail) values ($1, $2, $3, $4)")
        .bind(actor)
        .bind(action)
        .bind(subject)
        .bind(detail)
        .execute(db)
        .await?;
    Ok(())
}

/// Notes that a person reads these turns' records in the clear, one entry a turn. A page that asks again and again is noted once
/// in ten minutes.
pub async fn record_reads(db: impl PgExecutor<'_>, actor: &str, turns: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query(
        "insert into audit_log (actor, action, subject, detail)
         select $1, 'record.read', t::text, '{\"form\": \"clear\"}'::jsonb from unnest($2::uuid[]) t
         where not exists (select 1 from audit_log a where a.at > now() - interval '10 minutes' and a.actor = $1
                             and a.action = 'record.read' and a.subject = t::text)",
    )
    .bind(actor)
    .bind(turns)
    .execute(db)
    .await?;
    Ok(())
}

/// The newest entries, newest first; `before` continues an earlier page.
pub async fn list(pool: &PgPool, before: Option<i64>, limit: i64) -> sqlx::Result<Vec<AuditEntry>> {
    sqlx::query_as("select * from audit_log where $1::bigint is null or id < $1 order by id desc limit $2")
        .bind(before)
        .bind(limit)
        .fetch_all(pool)
        .await
}
