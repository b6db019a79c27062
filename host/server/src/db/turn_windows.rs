//! Table `policy_turn_windows`: the sliding windows of each replica, for the tripwires of all.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgPool;

/// A window of one replica.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct TurnWindow {
    pub revision: String,
    pub kind: String,
    pub counts: Value,
}

/// Replaces a replica's windows of a chain: revision, kind and counts of each.
pub async fn store(
    pool: &PgPool,
    replica: &str,
    chain: &str,
    windows: &[(String, &'static str, Value)],
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into policy_turn_windows (chain, revision, kind, replica, counts)
         select $1, w.revision, w.kind, $2, w.counts
         from unnest($3::text[], $4::text[], $5::jsonb[]) as w (revision, kind, counts)
         on conflict (chain, revision, kind, replica) do update set counts = excluded.counts, updated_at = now()",
    )
    .bind(chain)
    .bind(replica)
    .bind(windows.iter().map(|(revision, _, _)| revision.as_str()).collect::<Vec<_>>())
    .bind(windows.iter().map(|(_, kind, _)| *kind).collect::<Vec<_>>())
    .bind(windows.iter().map(|(_, _, counts)| counts).collect::<Vec<_>>())
    .execute(pool)
    .await?;
    Ok(())
}

/// The windows that other replicas have renewed within `fresh_s` seconds, and those of the kind `before` that were stored
/// since `before_since`: they are the last numbers of what is gone, and do not age.
pub async fn of_others(
    pool: &PgPool,
    replica: &str,
    chain: &str,
    fresh_s: f64,
    before_since: Option<DateTime<Utc>>,
) -> sqlx::Result<Vec<TurnWindow>> {
    sqlx::query_as(
        "select revision, kind, counts from policy_turn_windows
         where chain = $1 and replica <> $2
           and (updated_at > now() - make_interval(secs => $3) or (kind = 'before' and updated_at >= $4))",
    )
    .bind(chain)
    .bind(replica)
    .bind(fresh_s)
    .bind(before_since)
    .fetch_all(pool)
    .await
}

/// Deletes what nobody renews any more; the numbers of a revision before, when the longest probation is over. Returns how
/// many went.
pub async fn prune(pool: &PgPool) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "delete from policy_turn_windows
          where updated_at < now() - case when kind = 'before' then interval '8 days' else interval '1 hour' end",
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}
