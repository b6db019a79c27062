//! Rows as people, turns and metrics read them.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

#[derive(Debug, Clone, sqlx::FromRow, serde::Serialize)]
pub struct Row {
    pub id: Uuid,
    pub conversation_id: Uuid,
    pub page_id: String,
    /// The conversation's key.
    #[serde(skip)]
    pub psid: String,
    pub turn_id: Option<Uuid>,
    pub author: String,
    pub agent: Option<String>,
    pub text: String,
    pub state: String,
    pub attempts: i32,
    pub message_id: Option<String>,
    pub error: Option<String>,
    pub first_sent_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub settled_at: Option<DateTime<Utc>>,
}

const ROW_COLUMNS: &str = "id, conversation_id, page_id, psid, turn_id, author, agent, text, state, attempts, message_id, \
    error, first_sent_at, created_at, settled_at";

pub async fn get(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<Option<Row>> {
    sqlx::query_as(AssertSqlSafe(format!("select {ROW_COLUMNS} from outbox where id = $1")))
        .bind(id)
        .fetch_optional(db)
        .await
}

pub async fn of_turn(db: impl PgExecutor<'_>, turn_id: Uuid) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as(AssertSqlSafe(format!("select {ROW_COLUMNS} from outbox where turn_id = $1 order by seq")))
        .bind(turn_id)
        .fetch_all(db)
        .await
}

/// The row that Meta's message id belongs to, when we know it.
pub async fn by_message_id(db: impl PgExecutor<'_>, page_id: &str, message_id: &str) -> sqlx::Result<Option<Row>> {
    sqlx::query_as(AssertSqlSafe(format!("select {ROW_COLUMNS} from outbox where page_id = $1 and message_id = $2")))
        .bind(page_id)
        .bind(message_id)
        .fetch_optional(db)
        .await
}

/// Rows by state, for metrics and the operator.
pub async fn counts(pool: &PgPool) -> sqlx::Result<Vec<(String, i64)>> {
    sqlx::query_as("select state, count(*) from outbox where state in ('queued', 'sending', 'unknown') group by state")
        .fetch_all(pool)
        .await
}

/// Rows in doubt, for the agent who settles them.
pub async fn unknown(pool: &PgPool, limit: i64) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {ROW_COLUMNS} from outbox where state = 'unknown' order by created_at limit $1"
    )))
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// What is not settled yet in a conversation, in sending order.
pub async fn open_of_conversation(db: impl PgExecutor<'_>, conversation_id: Uuid) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {ROW_COLUMNS} from outbox
         where conversation_id = $1 and state in ('queued', 'sending', 'unknown') order by seq limit 200"
    )))
    .bind(conversation_id)
    .fetch_all(db)
    .await
}

/// The rows of several turns, in sending order.
pub async fn of_turns(db: impl PgExecutor<'_>, turn_ids: &[Uuid]) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as(AssertSqlSafe(format!("select {ROW_COLUMNS} from outbox where turn_id = any($1) order by seq")))
        .bind(turn_ids)
        .fetch_all(db)
        .await
}

/// Locks a row for a transaction and reads it as it stands now.
pub async fn lock(tx: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<Row>> {
    sqlx::query_as(AssertSqlSafe(format!("select {ROW_COLUMNS} from outbox where id = $1 for update")))
        .bind(id)
        .fetch_optional(tx)
        .await
}

/// Rows that were given up, newest first.
pub async fn failed(pool: &PgPool, limit: i64) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {ROW_COLUMNS} from outbox where state = 'failed' order by settled_at desc limit $1"
    )))
    .bind(limit)
    .fetch_all(pool)
    .await
}
