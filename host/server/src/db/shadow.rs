//! Table `policy_shadow_results`: what a shadow revision made of the turns that another one decided.

use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

/// One turn, judged twice.
#[derive(Debug, Clone, PartialEq)]
pub struct ShadowResult {
    pub chain: String,
    pub active_revision: String,
    pub shadow_revision: String,
    pub turn_id: Uuid,
    pub level: &'static str,
    pub route: (String, String),
    pub outcome: (String, String),
    pub reason: (String, String),
    pub fault: (Option<String>, Option<String>),
    pub text_distance: Option<f32>,
    pub fuel: (i64, i64),
}

/// Stores results; a turn that this shadow has judged before is left as it is.
pub async fn insert(pool: &PgPool, results: &[ShadowResult]) -> sqlx::Result<()> {
    let each = |pick: fn(&ShadowResult) -> &str| results.iter().map(pick).collect::<Vec<&str>>();
    let faults = |pick: fn(&ShadowResult) -> Option<&str>| results.iter().map(pick).collect::<Vec<Option<&str>>>();
    sqlx::query(
        "insert into policy_shadow_results
             (chain, active_revision, shadow_revision, turn_id, level, route_before, route_after, outcome_before,
              outcome_after, reason_before, reason_after, fault_before, fault_after, text_distance, fuel_before,
              fuel_after)
         select * from unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::text[],
              $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::real[], $15::bigint[],
              $16::bigint[])
         on conflict (shadow_revision, turn_id) do nothing",
    )
    .bind(each(|it| &it.chain))
    .bind(each(|it| &it.active_revision))
    .bind(each(|it| &it.shadow_revision))
    .bind(results.iter().map(|it| it.turn_id).collect::<Vec<_>>())
    .bind(each(|it| it.level))
    .bind(each(|it| &it.route.0))
    .bind(each(|it| &it.route.1))
    .bind(each(|it| &it.outcome.0))
    .bind(each(|it| &it.outcome.1))
    .bind(each(|it| &it.reason.0))
    .bind(each(|it| &it.reason.1))
    .bind(faults(|it| it.fault.0.as_deref()))
    .bind(faults(|it| it.fault.1.as_deref()))
    .bind(results.iter().map(|it| it.text_distance).collect::<Vec<_>>())
    .bind(results.iter().map(|it| it.fuel.0).collect::<Vec<_>>())
    .bind(results.iter().map(|it| it.fuel.1).collect::<Vec<_>>())
    .execute(pool)
    .await?;
    Ok(())
}

/// How often one thing became another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Change {
    pub from: String,
    pub to: String,
    pub turns: i64,
}

/// A turn that would have ended differently.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
pub struct Sample {
    pub turn_id: Uuid,
    pub level: String,
    pub route_before: String,
    pub route_after: String,
    pub outcome_before: String,
    pub outcome_after: String,
    pub reason_before: String,
    pub reason_after: String,
    pub fault_after: Option<String>,
    pub text_distance: Option<f32>,
}

/// Numbers over all results of a shadow.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
pub struct Totals {
    pub turns: i64,
    pub first_at: Option<chrono::DateTime<chrono::Utc>>,
    pub last_at: Option<chrono::DateTime<chrono::Utc>>,
    /// Turns with another route, outcome or reason, or another text.
    pub changed: i64,
    pub draft_would_differ: i64,
    pub no_draft_recorded: i64,
    pub texts_changed: i64,
    /// Of the changed texts.
    pub distance_median: Option<f64>,
    pub distance_max: Option<f64>,
    /// Fuel of the shadow's calls by that of the deciding one's, where both made them all.
    pub fuel_ratio_median: Option<f64>,
    pub fuel_ratio_p99: Option<f64>,
}

/// What was changed: the condition that totals and samples share.
macro_rules! is_changed {
    () => {
        "(route_before <> route_after or (outcome_after <> 'unknown' and outcome_before <> outcome_after)
          or reason_before <> reason_after or fault_after is distinct from fault_before
          or coalesce(text_distance, 0) > 0)"
    };
}

pub async fn totals(pool: &PgPool, chain: &str, shadow: &str) -> sqlx::Result<Totals> {
    sqlx::query_as(concat!(
        "select count(*) as turns, min(at) as first_at, max(at) as last_at,
                count(*) filter (where ",
        is_changed!(),
        ") as changed,
                count(*) filter (where level = 'draft-would-differ') as draft_would_differ,
                count(*) filter (where level = 'no-draft-recorded') as no_draft_recorded,
                count(*) filter (where text_distance > 0) as texts_changed,
                percentile_cont(0.5) within group (order by text_distance::float8)
                    filter (where text_distance > 0) as distance_median,
                max(text_distance)::float8 as distance_max,
                percentile_cont(0.5) within group (order by fuel_after::float8 / fuel_before)
                    filter (where fuel_before > 0 and level <> 'no-draft-recorded') as fuel_ratio_median,
                percentile_cont(0.99) within group (order by fuel_after::float8 / fuel_before)
                    filter (where fuel_before > 0 and level <> 'no-draft-recorded') as fuel_ratio_p99
         from policy_shadow_results where chain = $1 and shadow_revision = $2"
    ))
    .bind(chain)
    .bind(shadow)
    .fetch_one(pool)
    .await
}

/// What a report counts by its changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Route,
    Outcome,
    /// Only the turns on which it changed.
    Reason,
    /// Only the turns with a fault, before or after.
    Fault,
}

/// How often each thing became which other, most frequent first.
pub async fn changes(pool: &PgPool, chain: &str, shadow: &str, by: By, limit: i64) -> sqlx::Result<Vec<Change>> {
    let (from, to, filter) = match by {
        By::Route => ("route_before", "route_after", "true"),
        By::Outcome => ("outcome_before", "outcome_after", "true"),
        By::Reason => ("reason_before", "reason_after", "reason_before <> reason_after"),
        By::Fault => (
            "coalesce(fault_before, 'none')",
            "coalesce(fault_after, 'none')",
            "(fault_before is not null or fault_after is not null)",
        ),
    };
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {from} as \"from\", {to} as \"to\", count(*) as turns from policy_shadow_results
         where chain = $1 and shadow_revision = $2 and {filter} group by 1, 2 order by 3 desc, 1, 2 limit $3"
    )))
    .bind(chain)
    .bind(shadow)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// The newest turns that would have ended differently.
pub async fn samples(pool: &PgPool, chain: &str, shadow: &str, limit: i64) -> sqlx::Result<Vec<Sample>> {
    sqlx::query_as(concat!(
        "select turn_id, level, route_before, route_after, outcome_before, outcome_after, reason_before,
                reason_after, fault_after, text_distance
         from policy_shadow_results where chain = $1 and shadow_revision = $2 and ",
        is_changed!(),
        " order by id desc limit $3"
    ))
    .bind(chain)
    .bind(shadow)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// The shadow that a chain's newest result is of, with the revision that decided.
pub async fn newest(pool: &PgPool, chain: &str) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("select shadow_revision from policy_shadow_results where chain = $1 order by id desc limit 1")
        .bind(chain)
        .fetch_optional(pool)
        .await
}

/// Deletes old results, in bounded steps. Returns how many went.
pub async fn prune(pool: &PgPool, keep_days: i32) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "delete from policy_shadow_results where id in (
           select id from policy_shadow_results where at < now() - make_interval(days => $1) limit 5000)",
    )
    .bind(keep_days)
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}
