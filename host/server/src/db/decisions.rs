//! Tables `decisions` and `decision_records`: one row per turn, and apart from it everything that led to it, sealed.
//!
//! Only [`crate::records`] reads the records; see there for their states.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

/// A decision about to be stored; its record follows.
#[derive(Debug, Clone)]
pub struct NewDecision<'a> {
    pub turn_id: Uuid,
    pub page_id: &'a str,
    pub chain: &'a str,
    pub revision: &'a str,
    /// `active` or `canary`.
    pub slot: &'a str,
    pub route: &'a str,
    pub outcome: &'a str,
    pub confidence: f32,
    pub reason: &'a str,
    pub mids: &'a [String],
    /// The earlier messages that the turn was shown: when one of them is unsent, its record goes too.
    pub history_mids: &'a [String],
    pub record_version: i32,
    pub duration_us: i64,
}

/// A decision, its record as stored, and the wrapped key of the person.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct StoredDecision {
    pub turn_id: Uuid,
    pub conversation_id: Uuid,
    pub page_id: String,
    pub psid: String,
    pub chain: Option<String>,
    pub revision: String,
    /// Where the revision stood: `active` or `canary`.
    pub slot: String,
    pub route: String,
    pub outcome: String,
    pub confidence: f32,
    pub reason: String,
    pub mids: Vec<String>,
    pub record_version: i32,
    pub record_state: String,
    pub record: Option<Value>,
    pub sealed: Option<Vec<u8>>,
    pub masked: Option<Value>,
    pub key_id: Option<String>,
    pub wrapped: Option<Vec<u8>>,
    pub duration_us: i64,
    pub created_at: DateTime<Utc>,
}

/// A sealed record about to be stored.
#[derive(Debug, Clone)]
pub struct NewRecord {
    pub turn_id: Uuid,
    pub version: i32,
    pub sealed: Vec<u8>,
    pub masked: Value,
}

/// A record that still stands in its decision's row.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct InlineRecord {
    pub turn_id: Uuid,
    pub page_id: String,
    pub psid: String,
    pub record_version: i32,
    pub record: Value,
}

/// `$clear`: the sealed form and the key; otherwise the masked form.
const SELECT: &str = "select d.turn_id, d.conversation_id, d.page_id, c.psid, coalesce(d.chain, d.record ->> 'chain') as chain, d.revision,
        d.slot, d.route, d.outcome, d.confidence, d.reason, d.mids, d.record_version, d.record_state, d.record,
        case when $1 then r.sealed end as sealed, case when not $1 then r.masked end as masked,
        case when $1 then k.key_id end as key_id, case when $1 then k.wrapped end as wrapped, d.duration_us, d.created_at
     from decisions d
     join conversations c on c.id = d.conversation_id
     left join decision_records r on r.turn_id = d.turn_id
     left join person_keys k on k.page_id = c.page_id and k.psid = c.psid";

pub async fn get(pool: &PgPool, turn_id: Uuid, clear: bool) -> sqlx::Result<Option<StoredDecision>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("{SELECT} where d.turn_id = $2")))
        .bind(clear)
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
    clear: bool,
) -> sqlx::Result<Vec<StoredDecision>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{SELECT} where d.conversation_id = $2 and ($3::timestamptz is null or d.created_at > $3)
         order by d.created_at limit $4"
    )))
    .bind(clear)
    .bind(conversation_id)
    .bind(after)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// The turns of all conversations after a place in time, oldest first, up to the first one whose record is on its way.
pub async fn all_after(
    pool: &PgPool,
    after: Option<(DateTime<Utc>, Uuid)>,
    chain: Option<&str>,
    limit: i64,
    clear: bool,
) -> sqlx::Result<Vec<StoredDecision>> {
    let (at, id) = after.unzip();
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{SELECT}
         where ($2::timestamptz is null or (d.created_at, d.turn_id) > ($2, $3::uuid))
           and ($4::text is null or d.chain = $4 or (d.chain is null and d.record ->> 'chain' = $4))
           and not exists (select 1 from decisions p where p.record_state = 'pending'
                             and p.created_at <= d.created_at and p.created_at > now() - interval '1 minute')
         order by d.created_at, d.turn_id limit $5"
    )))
    .bind(clear)
    .bind(at)
    .bind(id)
    .bind(chain)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// The latest turns of a chain before a place in time that have a record, newest first, in the clear form.
pub async fn latest(
    pool: &PgPool,
    chain: &str,
    before: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> sqlx::Result<Vec<StoredDecision>> {
    let (at, id) = before.unzip();
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "{SELECT}
         where d.record_state in ('inline', 'sealed')
           and (d.chain = $2 or (d.chain is null and d.record ->> 'chain' = $2))
           and (d.created_at, d.turn_id)
             < (coalesce($4, 'infinity'::timestamptz), coalesce($5, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
         order by d.created_at desc, d.turn_id desc limit $3"
    )))
    .bind(true)
    .bind(chain)
    .bind(limit)
    .bind(at)
    .bind(id)
    .fetch_all(pool)
    .await
}

/// How many turns of a chain have a record; counted up to `most`.
pub async fn count_recorded(pool: &PgPool, chain: &str, most: i64) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "select count(*) from (
           select 1 from decisions d
            where d.record_state in ('inline', 'sealed')
              and (d.chain = $1 or (d.chain is null and d.record ->> 'chain' = $1))
            limit $2) n",
    )
    .bind(chain)
    .bind(most)
    .fetch_one(pool)
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

/// The turn's answer was taken back before it left; another turn decides. Returns the messages that it was about.
pub async fn supersede(db: impl PgExecutor<'_>, turn_id: Uuid) -> sqlx::Result<Vec<String>> {
    let mids = sqlx::query_scalar("update decisions set outcome = 'superseded' where turn_id = $1 returning mids")
        .bind(turn_id)
        .fetch_optional(db)
        .await?;
    Ok(mids.unwrap_or_default())
}

/// Which of these still wait for their record; they are locked, in one order.
pub async fn lock_pending(db: impl PgExecutor<'_>, turns: &[Uuid]) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar(
        "select turn_id from decisions where turn_id = any($1) and record_state = 'pending' order by turn_id for update",
    )
    .bind(turns)
    .fetch_all(db)
    .await
}

/// Some rows that hold their record themselves, locked; those that another process holds are passed over.
pub async fn lock_inline(db: impl PgExecutor<'_>, limit: i64) -> sqlx::Result<Vec<InlineRecord>> {
    sqlx::query_as(
        "select d.turn_id, c.page_id, c.psid, d.record_version, d.record from decisions d
         join conversations c on c.id = d.conversation_id
         where d.record_state = 'inline' and d.record is not null
         order by d.created_at limit $1 for update of d skip locked",
    )
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Stores records of rows that the transaction has locked, and notes on the rows that they are there.
pub async fn insert_records(db: &mut PgConnection, records: &[NewRecord]) -> sqlx::Result<()> {
    let turns: Vec<Uuid> = records.iter().map(|record| record.turn_id).collect();
    sqlx::query(
        "insert into decision_records (turn_id, version, sealed, masked, created_at)
         select n.turn_id, n.version, n.sealed, n.masked, d.created_at
         from unnest($1::uuid[], $2::int[], $3::bytea[], $4::jsonb[]) as n (turn_id, version, sealed, masked)
         join decisions d on d.turn_id = n.turn_id
         on conflict (turn_id) do nothing",
    )
    .bind(&turns)
    .bind(records.iter().map(|record| record.version).collect::<Vec<_>>())
    .bind(records.iter().map(|record| record.sealed.as_slice()).collect::<Vec<_>>())
    .bind(records.iter().map(|record| &record.masked).collect::<Vec<_>>())
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "update decisions set record_state = 'sealed', chain = coalesce(chain, record ->> 'chain'), record = null
         where turn_id = any($1)",
    )
    .bind(&turns)
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that these records will not come.
pub async fn mark_dropped(pool: &PgPool, turns: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query("update decisions set record_state = 'dropped' where turn_id = any($1) and record_state = 'pending'")
        .bind(turns)
        .execute(pool)
        .await?;
    Ok(())
}

/// Notes which records never came.
pub async fn mark_lost(pool: &PgPool, after_minutes: i32) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "update decisions set record_state = 'lost'
         where record_state = 'pending' and created_at < now() - make_interval(mins => $1)",
    )
    .bind(after_minutes)
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes records older than `keep_days`, at most a thousand; the decisions stay. Returns how many went.
pub async fn expire(pool: &PgPool, keep_days: i32) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "with old as (
           select turn_id from decisions
           where created_at < now() - make_interval(days => $1) and record_state in ('inline', 'sealed')
           order by created_at limit 1000 for update skip locked),
         gone as (delete from decision_records r using old where r.turn_id = old.turn_id)
         update decisions d set record = null, record_state = 'expired' from old where d.turn_id = old.turn_id",
    )
    .bind(keep_days)
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}

/// Erases what decisions hold of an unsent message, as a question or as what was said before; that there was a turn, and its
/// numbers, stay.
pub async fn erase(db: impl PgExecutor<'_>, conversation_id: Uuid, mid: &str) -> sqlx::Result<()> {
    sqlx::query(
        "with withdrawn as (
           update decisions set record = null, record_state = 'erased', reason = 'the customer withdrew the message'
           where conversation_id = $1
             and (mids @> array[$2] or history_mids is null or history_mids @> array[$2]) returning turn_id)
         delete from decision_records r using withdrawn w where r.turn_id = w.turn_id",
    )
    .bind(conversation_id)
    .bind(mid)
    .execute(db)
    .await?;
    Ok(())
}
