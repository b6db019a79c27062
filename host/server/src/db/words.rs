//! Rows that hold people's words as an earlier version stored them, and their sealed form; see [`crate::words`]. Each query reads a
//! partial index of such rows, which is empty once all are sealed.

use serde_json::Value;
use sqlx::PgExecutor;
use uuid::Uuid;

/// A message or a row of the outbox.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct PlainText<Id> {
    pub id: Id,
    pub conversation_id: Uuid,
    pub page_id: String,
    pub psid: String,
    pub text: String,
    pub payload: Option<String>,
}

#[derive(Debug, Clone, sqlx::FromRow)]
pub struct PlainTicket {
    pub id: Uuid,
    pub conversation_id: Uuid,
    pub page_id: String,
    pub psid: String,
    pub summary: String,
    pub matters: Value,
}

#[derive(Debug, Clone, sqlx::FromRow)]
pub struct PlainEvent {
    pub id: i64,
    pub page_id: String,
    pub psid: Option<String>,
    pub payload: Value,
}

/// Some messages, locked; those that others hold are passed over.
pub async fn plain_messages(db: impl PgExecutor<'_>, limit: i64) -> sqlx::Result<Vec<PlainText<i64>>> {
    sqlx::query_as(
        "select m.id, m.conversation_id, c.page_id, c.psid, m.text, m.payload
         from messages m join conversations c on c.id = m.conversation_id
         where (m.text <> '' and not starts_with(m.text, E'\\x01')) or (m.payload <> '' and not starts_with(m.payload, E'\\x01'))
         order by m.id limit $1 for update of m skip locked",
    )
    .bind(limit)
    .fetch_all(db)
    .await
}

pub async fn seal_message(db: impl PgExecutor<'_>, id: i64, text: &str, payload: Option<&str>) -> sqlx::Result<()> {
    sqlx::query("update messages set text = $2, payload = $3 where id = $1")
        .bind(id)
        .bind(text)
        .bind(payload)
        .execute(db)
        .await?;
    Ok(())
}

/// Some rows of the outbox, locked.
pub async fn plain_outbox(db: impl PgExecutor<'_>, limit: i64) -> sqlx::Result<Vec<PlainText<Uuid>>> {
    sqlx::query_as(
        "select id, conversation_id, page_id, psid, text, null::text as payload from outbox
         where text <> '' and not starts_with(text, E'\\x01')
         order by seq limit $1 for update skip locked",
    )
    .bind(limit)
    .fetch_all(db)
    .await
}

pub async fn seal_outbox(db: impl PgExecutor<'_>, id: Uuid, text: &str) -> sqlx::Result<()> {
    sqlx::query("update outbox set text = $2 where id = $1").bind(id).bind(text).execute(db).await?;
    Ok(())
}

/// Some tickets, locked.
pub async fn plain_tickets(db: impl PgExecutor<'_>, limit: i64) -> sqlx::Result<Vec<PlainTicket>> {
    sqlx::query_as(
        "select t.id, t.conversation_id, c.page_id, c.psid, t.summary, t.matters
         from tickets t join conversations c on c.id = t.conversation_id
         where t.summary <> '' and not starts_with(t.summary, E'\\x01')
         order by t.created_at limit $1 for update of t skip locked",
    )
    .bind(limit)
    .fetch_all(db)
    .await
}

pub async fn seal_ticket(db: impl PgExecutor<'_>, id: Uuid, summary: &str, matters: &Value) -> sqlx::Result<()> {
    sqlx::query("update tickets set summary = $2, matters = $3 where id = $1")
        .bind(id)
        .bind(summary)
        .bind(matters)
        .execute(db)
        .await?;
    Ok(())
}

/// Some events, locked.
pub async fn plain_events(db: impl PgExecutor<'_>, limit: i64) -> sqlx::Result<Vec<PlainEvent>> {
    sqlx::query_as(
        "select id, page_id, psid, payload from inbox where sealed is null and payload <> '{}'::jsonb
         order by id limit $1 for update skip locked",
    )
    .bind(limit)
    .fetch_all(db)
    .await
}
