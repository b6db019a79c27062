//! Table `decisions`: one row per turn, with everything that led to it.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

#[derive(Debug, Clone)]
pub struct NewDecision<'a> {
    pub turn_id: Uuid,
    pub conversation_id: Uuid,
    pub page_id: &'a str,
    pub revision: &'a str,
    pub route: &'a str,
    pub outcome: &'a str,
    pub confidence: f32,
    pub reason: &'a str,
    pub mids: &'a [String],
    pub record_version: i32,
    pub record: Value,
    pub duration_us: i64,
}

#[derive(Debug, Clone, sqlx::FromRow, serde::Serialize)]
pub struct Decision {
    pub turn_id: Uuid,
    pub conversation_id: Uuid,
    pub page_id: String,
    pub revision: String,
    pub route: String,
    pub outcome: String,
    pub confidence: f32,
    pub reason: String,
    pub mids: Vec<String>,
    pub record_version: i32,
    pub record: Value,
    pub duration_us: i64,
    pub created_at: DateTime<Utc>,
}

const COLUMNS: &str = "turn_id, conversation_id, page_id, revision, route, outcome, confidence, reason, mids, \
    record_version, record, duration_us, created_at";

pub async fn insert(db: impl PgExecutor<'_>, decision: &NewDecision<'_>) -> sqlx::Result<()> {
    sqlx::query(
        "insert into decisions (turn_id, conversation_id, page_id, revision, route, outcome, confidence, reason, mids,
                                record_version, record, duration_us)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(decision.turn_id)
    .bind(decision.conversation_id)
    .bind(decision.page_id)
    .bind(decision.revision)
    .bind(decision.route)
    .bind(decision.outcome)
    .bind(decision.confidence)
    .bind(decision.reason)
    .bind(decision.mids)
    .bind(decision.record_version)
    .bind(&decision.record)
    .bind(decision.duration_us)
    .execute(db)
    .await?;
    Ok(())
}

pub async fn get(pool: &PgPool, turn_id: Uuid) -> sqlx::Result<Option<Decision>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("select {COLUMNS} from decisions where turn_id = $1")))
        .bind(turn_id)
        .fetch_optional(pool)
        .await
}

/// The turns of a conversation after a time, oldest first.
pub async fn after(
    pool: &PgPool,
    conversation_id: Uuid,
    after: Option<DateTime<Utc>>,
    limit: i64,
) -> sqlx::Result<Vec<Decision>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {COLUMNS} from decisions
         where conversation_id = $1 and ($2::timestamptz is null or created_at > $2)
         order by created_at limit $3"
    )))
    .bind(conversation_id)
    .bind(after)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// The turns of all conversations after a place in time, oldest first.
pub async fn all_after(
    pool: &PgPool,
    after: Option<(DateTime<Utc>, Uuid)>,
    chain: Option<&str>,
    limit: i64,
) -> sqlx::Result<Vec<Decision>> {
    let (at, id) = after.unzip();
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {COLUMNS} from decisions
         where ($1::timestamptz is null or (created_at, turn_id) > ($1, $2::uuid))
           and ($3::text is null or record ->> 'chain' = $3)
         order by created_at, turn_id limit $4"
    )))
    .bind(at)
    .bind(id)
    .bind(chain)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// The records of the newest turns of the Pages that a chain judges, newest first: what a candidate is judged by.
pub async fn newest_records(pool: &PgPool, chain: &str, limit: i64) -> sqlx::Result<Vec<(Uuid, Value)>> {
    sqlx::query_as(
        "select turn_id, record from decisions
          where page_id in (select page_id from pages where chain = $1)
          order by created_at desc limit $2",
    )
    .bind(chain)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// The newest turn that read this message of a customer.
pub async fn by_mid(pool: &PgPool, page_id: &str, mid: &str) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar(
        "select turn_id from decisions where page_id = $1 and mids @> array[$2] order by created_at desc limit 1",
    )
    .bind(page_id)
    .bind(mid)
    .fetch_optional(pool)
    .await
}

/// How often each outcome happened since a time: for analytics and metrics.
pub async fn outcomes_since(pool: &PgPool, since: DateTime<Utc>) -> sqlx::Result<Vec<(String, i64)>> {
    sqlx::query_as("select outcome, count(*) from decisions where created_at >= $1 group by outcome order by outcome")
        .bind(since)
        .fetch_all(pool)
        .await
}

/// Notes which earlier messages a turn was shown, so that a withdrawn one is erased from its record too.
pub async fn note_history(db: impl PgExecutor<'_>, turn_id: Uuid, mids: &[String]) -> sqlx::Result<()> {
    sqlx::query("update decisions set history_mids = $2 where turn_id = $1")
        .bind(turn_id)
        .bind(mids)
        .execute(db)
        .await?;
    Ok(())
}

/// Erases what decisions hold of an unsent message, as a question or as what was said before; that there was a turn, and its
/// numbers, stay.
pub async fn erase(db: impl PgExecutor<'_>, conversation_id: Uuid, mid: &str) -> sqlx::Result<()> {
    sqlx::query(
        "update decisions set record = jsonb_build_object('erased', true), reason = 'the customer withdrew the message'
         where conversation_id = $1
           and (mids @> array[$2] or history_mids is null or history_mids @> array[$2])",
    )
    .bind(conversation_id)
    .bind(mid)
    .execute(db)
    .await?;
    Ok(())
}
