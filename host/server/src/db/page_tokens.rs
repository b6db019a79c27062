//! Table `page_tokens`: access tokens of Pages that were connected while the host ran, wrapped.

use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, PgPool};

use crate::keys::Wrapped;

/// A token as stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct StoredToken {
    pub page_id: String,
    pub key_id: String,
    pub sealed: Vec<u8>,
    pub version: i64,
}

/// Who connected a Page, and when.
#[derive(Debug, Clone, sqlx::FromRow, serde::Serialize)]
pub struct Connection {
    pub page_id: String,
    pub connected_by: String,
    pub connected_at: DateTime<Utc>,
}

/// Stores a Page's token in the place of the one before.
pub async fn put(
    db: impl PgExecutor<'_>,
    page_id: &str,
    token: &Wrapped,
    user_id: Option<&str>,
    connected_by: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into page_tokens (page_id, key_id, sealed, user_id, connected_by) values ($1, $2, $3, $4, $5)
         on conflict (page_id) do update set key_id = $2, sealed = $3, user_id = $4, connected_by = $5,
           connected_at = now(), version = nextval('page_tokens_version')",
    )
    .bind(page_id)
    .bind(&token.key_id)
    .bind(&token.sealed)
    .bind(user_id)
    .bind(connected_by)
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets a Page's token. True when there was one.
pub async fn delete(db: impl PgExecutor<'_>, page_id: &str) -> sqlx::Result<bool> {
    let done = sqlx::query("delete from page_tokens where page_id = $1").bind(page_id).execute(db).await?;
    Ok(done.rows_affected() > 0)
}

/// Which tokens there are, each with the number of its latest change.
pub async fn versions(pool: &PgPool) -> sqlx::Result<Vec<(String, i64)>> {
    sqlx::query_as("select page_id, version from page_tokens").fetch_all(pool).await
}

/// The tokens of these Pages.
pub async fn of_pages(pool: &PgPool, page_ids: &[String]) -> sqlx::Result<Vec<StoredToken>> {
    sqlx::query_as("select page_id, key_id, sealed, version from page_tokens where page_id = any($1)")
        .bind(page_ids)
        .fetch_all(pool)
        .await
}

pub async fn connections(pool: &PgPool) -> sqlx::Result<Vec<Connection>> {
    sqlx::query_as("select page_id, connected_by, connected_at from page_tokens order by page_id").fetch_all(pool).await
}

/// Some tokens that another key than `current` wraps, locked.
pub async fn not_under(db: impl PgExecutor<'_>, current: &str, limit: i64) -> sqlx::Result<Vec<StoredToken>> {
    sqlx::query_as(
        "select page_id, key_id, sealed, version from page_tokens where key_id <> $1
         order by page_id limit $2 for update skip locked",
    )
    .bind(current)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Puts a token that was wrapped again in its place; the token itself is the same.
pub async fn rewrap(db: impl PgExecutor<'_>, page_id: &str, token: &Wrapped) -> sqlx::Result<()> {
    sqlx::query("update page_tokens set key_id = $2, sealed = $3 where page_id = $1")
        .bind(page_id)
        .bind(&token.key_id)
        .bind(&token.sealed)
        .execute(db)
        .await?;
    Ok(())
}

/// The Pages whose token belongs to this person, as far as anybody has said.
pub async fn pages_of_user(db: impl PgExecutor<'_>, user_id: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "select page_id from page_tokens where user_id = $1
         union select h.page_id from page_health h where h.token_user = $1
           and not exists (select 1 from page_tokens t where t.page_id = h.page_id)
         order by 1",
    )
    .bind(user_id)
    .fetch_all(db)
    .await
}
