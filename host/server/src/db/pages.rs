//! Table `pages`: what the host knows of each Page, and whether it may send.

use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, PgPool};

use crate::settings::PageSettings;

/// How the reason begins when Meta's enforcement stopped a Page.
pub const ENFORCEMENT: &str = "Meta's policy enforcement";

/// A Page as stored.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow, serde::Serialize)]
pub struct Page {
    pub page_id: String,
    pub name: String,
    pub chain: String,
    pub time_zone: String,
    pub language: String,
    /// `active`, `parked` (token dead) or `stopped` (sending forbidden).
    pub state: String,
    pub state_reason: Option<String>,
    pub state_since: DateTime<Utc>,
    pub paused_until: Option<DateTime<Utc>>,
}

/// Makes the table agree with the settings. The sending state survives a restart: a Page that Meta stopped stays stopped.
pub async fn upsert(pool: &PgPool, page: &PageSettings) -> sqlx::Result<()> {
    sqlx::query(
        "insert into pages (page_id, name, chain, time_zone, language) values ($1, $2, $3, $4, $5)
         on conflict (page_id) do update set name = $2, chain = $3, time_zone = $4, language = $5",
    )
    .bind(&page.id)
    .bind(&page.name)
    .bind(&page.chain)
    .bind(&page.time_zone)
    .bind(&page.language)
    .execute(pool)
    .await?;
    Ok(())
}

pub async fn get(db: impl PgExecutor<'_>, page_id: &str) -> sqlx::Result<Option<Page>> {
    sqlx::query_as("select * from pages where page_id = $1").bind(page_id).fetch_optional(db).await
}

pub async fn list(pool: &PgPool) -> sqlx::Result<Vec<Page>> {
    sqlx::query_as("select * from pages order by page_id").fetch_all(pool).await
}

/// The chains of the Pages that were connected while a host ran.
pub async fn chains(pool: &PgPool) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("select distinct p.chain from pages p join page_tokens t using (page_id)").fetch_all(pool).await
}

/// Makes a connected Page known; what is not given stays as it is, or gets the default. Returns its sending state.
pub async fn connect(
    db: impl PgExecutor<'_>,
    page_id: &str,
    name: &str,
    (chain, time_zone, language): (Option<&str>, Option<&str>, Option<&str>),
) -> sqlx::Result<String> {
    sqlx::query_scalar(
        "insert into pages as p (page_id, name, chain, time_zone, language)
         values ($1, $2, coalesce($3, 'default'), coalesce($4, 'UTC'), coalesce($5, 'en'))
         on conflict (page_id) do update set name = case when $2 = '' then p.name else $2 end,
           chain = coalesce($3, p.chain), time_zone = coalesce($4, p.time_zone), language = coalesce($5, p.language)
         returning state",
    )
    .bind(page_id)
    .bind(name)
    .bind(chain)
    .bind(time_zone)
    .bind(language)
    .fetch_one(db)
    .await
}

/// Locks the row, so that events of the Page's own are applied one after the other.
pub async fn lock(db: impl PgExecutor<'_>, page_id: &str) -> sqlx::Result<()> {
    sqlx::query("select 1 from pages where page_id = $1 for update").bind(page_id).execute(db).await?;
    Ok(())
}

/// Lets a Page send again that Meta's enforcement had stopped; one that stands still for another reason stays so.
pub async fn lift_enforcement(db: impl PgExecutor<'_>, page_id: &str, reason: &str) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "update pages set state = 'active', state_reason = $2, state_since = now()
         where page_id = $1 and state = 'stopped' and starts_with(state_reason, $3)",
    )
    .bind(page_id)
    .bind(reason)
    .bind(ENFORCEMENT)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Changes the sending state; a page already in that state keeps its first reason, and a stopped one is not merely parked: a
/// new token would let it send again. True when something changed.
pub async fn set_state(db: impl PgExecutor<'_>, page_id: &str, state: &str, reason: &str) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "update pages set state = $2, state_reason = $3, state_since = now()
         where page_id = $1 and state <> $2 and not ($2 = 'parked' and state = 'stopped')",
    )
    .bind(page_id)
    .bind(state)
    .bind(reason)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Pauses a Page's lane; an earlier, longer pause stays.
pub async fn pause_for(db: impl PgExecutor<'_>, page_id: &str, pause_ms: i64) -> sqlx::Result<()> {
    sqlx::query(
        "update pages set paused_until = greatest(paused_until, now() + $2 * interval '1 millisecond') where page_id = $1",
    )
        .bind(page_id)
        .bind(pause_ms)
        .execute(db)
        .await?;
    Ok(())
}
