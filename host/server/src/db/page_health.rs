//! Table `page_health`: what Meta said about each Page when it was last asked.

use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, PgPool};

/// The latest look at a Page.
#[derive(Debug, Clone, Default, PartialEq, sqlx::FromRow, serde::Serialize)]
pub struct PageHealth {
    pub page_id: String,
    pub checked_at: DateTime<Utc>,
    /// `None`: Meta did not say.
    pub token_valid: Option<bool>,
    /// App-scoped id of the person whose token it is.
    #[serde(skip)]
    pub token_user: Option<String>,
    pub token_error_subcode: Option<i64>,
    /// `None`: never.
    pub expires_at: Option<DateTime<Utc>>,
    pub data_access_expires_at: Option<DateTime<Utc>>,
    pub scopes: Vec<String>,
    pub scopes_missing: Vec<String>,
    pub fields: Vec<String>,
    pub fields_missing: Vec<String>,
    /// What a person has to mend.
    pub problem: Option<String>,
}

pub async fn get(db: impl PgExecutor<'_>, page_id: &str) -> sqlx::Result<Option<PageHealth>> {
    sqlx::query_as("select * from page_health where page_id = $1").bind(page_id).fetch_optional(db).await
}

pub async fn list(pool: &PgPool) -> sqlx::Result<Vec<PageHealth>> {
    sqlx::query_as("select * from page_health order by page_id").fetch_all(pool).await
}

pub async fn put(db: impl PgExecutor<'_>, health: &PageHealth) -> sqlx::Result<()> {
    sqlx::query(
        "insert into page_health (page_id, checked_at, token_valid, token_user, token_error_subcode, expires_at,
                                  data_access_expires_at, scopes, scopes_missing, fields, fields_missing, problem)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         on conflict (page_id) do update set checked_at = $2, token_valid = $3, token_user = $4, token_error_subcode = $5,
           expires_at = $6, data_access_expires_at = $7, scopes = $8, scopes_missing = $9, fields = $10,
           fields_missing = $11, problem = $12",
    )
    .bind(&health.page_id)
    .bind(health.checked_at)
    .bind(health.token_valid)
    .bind(&health.token_user)
    .bind(health.token_error_subcode)
    .bind(health.expires_at)
    .bind(health.data_access_expires_at)
    .bind(&health.scopes)
    .bind(&health.scopes_missing)
    .bind(&health.fields)
    .bind(&health.fields_missing)
    .bind(&health.problem)
    .execute(db)
    .await?;
    Ok(())
}
