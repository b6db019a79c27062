//! Table `policy_active`: one row per chain, saying which revision is in which place. Every replica follows it.
//!
//! A change is made by [`change`] alone: it locks the row, lets the caller change it, notes every change of state, writes
//! the audit log, tells the other replicas, and commits all of that or nothing.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};

use super::revisions;

/// The channel on which changes are announced; the payload is the chain's name.
pub const CHANNEL: &str = "frontdesk_policies";

/// The places of a chain, by revision.
#[derive(Debug, Clone, Default, PartialEq, sqlx::FromRow, serde::Serialize)]
pub struct Rollout {
    pub chain: String,
    /// Grows with every change.
    pub generation: i64,
    #[sqlx(rename = "revision")]
    pub active: Option<String>,
    #[sqlx(rename = "activated_at")]
    pub active_since: DateTime<Utc>,
    /// `folder` or `api`.
    pub origin: String,
    pub previous: Option<String>,
    pub shadow: Option<String>,
    pub canary: Option<String>,
    pub canary_share_bp: i32,
    pub canary_page_ids: Vec<String>,
    /// The steps of the canary: `[{"share_bp": …, "minutes": …}]`.
    pub canary_steps: Value,
    pub canary_step: i32,
    pub canary_step_at: Option<DateTime<Utc>>,
}

/// A revision's new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    pub revision: String,
    pub state: &'static str,
    /// In place of the reason of the whole change.
    pub reason: Option<String>,
}

/// Who changes a rollout, and why.
#[derive(Debug, Clone)]
pub struct Cause<'a> {
    pub actor: &'a str,
    pub reason: &'a str,
    /// The word of the audit log, such as `policy.promote`.
    pub action: &'a str,
    /// Whether a person overruled the gate.
    pub forced: bool,
}

const COLUMNS: &str = "chain, generation, revision, activated_at, origin, previous, shadow, canary, canary_share_bp, \
    canary_page_ids, canary_steps, canary_step, canary_step_at";

pub async fn get(pool: &PgPool, chain: &str) -> sqlx::Result<Option<Rollout>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("select {COLUMNS} from policy_active where chain = $1")))
        .bind(chain)
        .fetch_optional(pool)
        .await
}

pub async fn list(pool: &PgPool) -> sqlx::Result<Vec<Rollout>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("select {COLUMNS} from policy_active order by chain")))
        .fetch_all(pool)
        .await
}

/// What became of a change.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each change of a chain; a box would cost every reader a word"
)]
pub enum Changed<E> {
    /// It was made; or there was nothing to change, and nothing was written.
    Done(Rollout),
    /// The caller refused it, and nothing was written.
    Refused(E),
    /// A revision that would come into a place was quarantined meanwhile, and nothing was written.
    Quarantined(String),
}

/// Changes a chain's row under its lock. `make` gets the row and the time of the database, and says which revisions
/// change their state.
pub async fn change<E>(
    pool: &PgPool,
    chain: &str,
    cause: &Cause<'_>,
    make: impl FnOnce(&mut Rollout, DateTime<Utc>) -> Result<Vec<StateChange>, E>,
) -> sqlx::Result<Changed<E>> {
    let mut tx = pool.begin().await?;
    let changed = change_in(&mut tx, chain, cause, make).await?;
    match &changed {
        Changed::Done(_) => tx.commit().await?,
        Changed::Refused(_) | Changed::Quarantined(_) => tx.rollback().await?,
    }
    Ok(changed)
}

/// Locks a chain's row until the end of the transaction; it is made when there is none.
pub async fn lock(tx: &mut PgConnection, chain: &str) -> sqlx::Result<Rollout> {
    sqlx::query("insert into policy_active (chain, revision) values ($1, null) on conflict (chain) do nothing")
        .bind(chain)
        .execute(&mut *tx)
        .await?;
    sqlx::query_as(sqlx::AssertSqlSafe(format!("select {COLUMNS} from policy_active where chain = $1 for update")))
        .bind(chain)
        .fetch_one(tx)
        .await
}

/// As [`change`], in the caller's transaction.
pub async fn change_in<E>(
    tx: &mut PgConnection,
    chain: &str,
    cause: &Cause<'_>,
    make: impl FnOnce(&mut Rollout, DateTime<Utc>) -> Result<Vec<StateChange>, E>,
) -> sqlx::Result<Changed<E>> {
    let before = lock(tx, chain).await?;
    let now: DateTime<Utc> = sqlx::query_scalar("select clock_timestamp()").fetch_one(&mut *tx).await?;
    let mut row = before.clone();
    let changes = match make(&mut row, now) {
        Ok(changes) => changes,
        Err(refusal) => return Ok(Changed::Refused(refusal)),
    };
    if row == before && changes.is_empty() {
        return Ok(Changed::Done(row));
    }
    for revision in newly_placed(&before, &row) {
        // Read under a lock: staging and judging take long, and a tripwire may have been faster.
        if revisions::is_quarantined(tx, chain, revision).await? {
            return Ok(Changed::Quarantined(revision.to_owned()));
        }
    }
    row.generation += 1;
    store(tx, &row).await?;
    for change in &changes {
        let reason = change.reason.as_deref().unwrap_or(cause.reason);
        revisions::set_state(tx, chain, &change.revision, change.state, cause.actor, reason).await?;
    }
    let detail = serde_json::json!({
        "reason": cause.reason, "forced": cause.forced, "generation": row.generation, "active": row.active,
        "canary": row.canary, "canary_share_bp": row.canary_share_bp, "shadow": row.shadow,
    });
    super::audit::write(&mut *tx, cause.actor, cause.action, chain, detail).await?;
    sqlx::query("select pg_notify($1, $2)").bind(CHANNEL).bind(chain).execute(&mut *tx).await?;
    Ok(Changed::Done(row))
}

/// Announces to every replica that what a revision was staged from has changed, though no place did.
pub async fn renew(tx: &mut PgConnection, chain: &str) -> sqlx::Result<()> {
    sqlx::query("update policy_active set generation = generation + 1 where chain = $1")
        .bind(chain)
        .execute(&mut *tx)
        .await?;
    sqlx::query("select pg_notify($1, $2)").bind(CHANNEL).bind(chain).execute(tx).await?;
    Ok(())
}

/// The revisions that stand in a place in which they did not stand before.
fn newly_placed<'a>(before: &Rollout, after: &'a Rollout) -> impl Iterator<Item = &'a str> {
    let places = [(&before.active, &after.active), (&before.canary, &after.canary), (&before.shadow, &after.shadow)];
    places.into_iter().filter(|(before, after)| before != after).filter_map(|(_, after)| after.as_deref())
}

async fn store(tx: &mut PgConnection, row: &Rollout) -> sqlx::Result<()> {
    sqlx::query(
        "update policy_active set generation = $2, revision = $3, activated_at = $4, origin = $5, previous = $6,
                shadow = $7, canary = $8, canary_share_bp = $9, canary_page_ids = $10, canary_steps = $11,
                canary_step = $12, canary_step_at = $13
          where chain = $1",
    )
    .bind(&row.chain)
    .bind(row.generation)
    .bind(&row.active)
    .bind(row.active_since)
    .bind(&row.origin)
    .bind(&row.previous)
    .bind(&row.shadow)
    .bind(&row.canary)
    .bind(row.canary_share_bp)
    .bind(&row.canary_page_ids)
    .bind(&row.canary_steps)
    .bind(row.canary_step)
    .bind(row.canary_step_at)
    .execute(tx)
    .await?;
    Ok(())
}
