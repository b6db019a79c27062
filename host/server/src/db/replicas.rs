//! Table `policy_replicas`: what each replica runs, by its own word.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

/// A replica that has not been heard of for this long is gone.
const LIVE_S: i32 = 60;
/// Its row is kept for this long.
const KEEP_S: i32 = 3_600;

/// What a replica says about a chain.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    pub chain: String,
    pub generation: i64,
    pub active: Option<String>,
    pub active_since: Option<DateTime<Utc>>,
    pub canary: Option<String>,
    pub shadow: Option<String>,
    pub problem: Option<String>,
    pub folder: Option<String>,
}

#[derive(Debug, Clone, sqlx::FromRow, serde::Serialize)]
pub struct Replica {
    pub replica: String,
    pub chain: String,
    pub version: String,
    pub generation: i64,
    pub active: Option<String>,
    pub active_since: Option<DateTime<Utc>>,
    pub canary: Option<String>,
    pub shadow: Option<String>,
    /// Why it does not run what the chain's row says.
    pub problem: Option<String>,
    /// Why its folder is not used.
    pub folder: Option<String>,
    pub seen_at: DateTime<Utc>,
    /// Whether it was heard of within a minute.
    pub is_live: bool,
}

pub async fn report(pool: &PgPool, replica: &str, version: &str, report: &Report) -> sqlx::Result<()> {
    sqlx::query(
        "insert into policy_replicas
            (replica, chain, version, generation, active, active_since, canary, shadow, problem, folder)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         on conflict (replica, chain) do update
            set version = $3, generation = $4, active = $5, active_since = $6, canary = $7, shadow = $8, problem = $9,
                folder = $10, seen_at = now()",
    )
    .bind(replica)
    .bind(&report.chain)
    .bind(version)
    .bind(report.generation)
    .bind(&report.active)
    .bind(report.active_since)
    .bind(&report.canary)
    .bind(&report.shadow)
    .bind(&report.problem)
    .bind(&report.folder)
    .execute(pool)
    .await?;
    Ok(())
}

/// Removes a replica that stops, and all that have not been heard of for an hour.
pub async fn forget(pool: &PgPool, replica: Option<&str>) -> sqlx::Result<()> {
    sqlx::query(
        "delete from policy_replicas where replica = $1 or seen_at < now() - make_interval(secs => $2::double precision)",
    )
    .bind(replica)
    .bind(KEEP_S)
    .execute(pool)
    .await?;
    Ok(())
}

pub async fn list(pool: &PgPool) -> sqlx::Result<Vec<Replica>> {
    sqlx::query_as(
        "select *, seen_at > now() - make_interval(secs => $1::double precision) as is_live
           from policy_replicas order by chain, replica",
    )
    .bind(LIVE_S)
    .fetch_all(pool)
    .await
}
