//! Table `outbox`: what is to be sent, is being sent, was sent, or nobody knows.
//!
//! A row is claimed in a transaction that also locks its conversation, so a takeover either voids the row first or waits
//! until the claim has committed: no bot message is claimed after a takeover committed.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

#[derive(Debug, Clone)]
pub struct NewRow<'a> {
    pub id: Uuid,
    pub conversation_id: Uuid,
    pub page_id: &'a str,
    pub psid: &'a str,
    pub turn_id: Option<Uuid>,
    pub epoch: i64,
    /// `None`: the machine speaks.
    pub agent: Option<&'a str>,
    pub text: &'a str,
}

#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Claimed {
    pub id: Uuid,
    pub conversation_id: Uuid,
    pub page_id: String,
    pub psid: String,
    pub author: String,
    pub agent: Option<String>,
    pub text: String,
    pub attempts: i32,
    pub created_at: DateTime<Utc>,
    pub window_closes_at: Option<DateTime<Utc>>,
    pub last_customer_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, sqlx::FromRow)]
pub struct InDoubt {
    pub id: Uuid,
    pub conversation_id: Uuid,
    pub page_id: String,
    pub psid: String,
    pub text: String,
    pub attempts: i32,
    pub first_sent_at: Option<DateTime<Utc>>,
    pub claimed_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, sqlx::FromRow, serde::Serialize)]
pub struct Row {
    pub id: Uuid,
    pub conversation_id: Uuid,
    pub page_id: String,
    pub turn_id: Option<Uuid>,
    pub author: String,
    pub agent: Option<String>,
    pub text: String,
    pub state: String,
    pub attempts: i32,
    pub message_id: Option<String>,
    pub error: Option<String>,
    pub created_at: DateTime<Utc>,
    pub settled_at: Option<DateTime<Utc>>,
}

const ROW_COLUMNS: &str = "id, conversation_id, page_id, turn_id, author, agent, text, state, attempts, message_id, \
    error, created_at, settled_at";

pub async fn insert(db: impl PgExecutor<'_>, row: &NewRow<'_>) -> sqlx::Result<()> {
    sqlx::query(
        "insert into outbox (id, conversation_id, page_id, psid, turn_id, epoch, author, agent, text)
         values ($1, $2, $3, $4, $5, $6, case when $7::text is null then 'bot' else 'agent' end, $7, $8)",
    )
    .bind(row.id)
    .bind(row.conversation_id)
    .bind(row.page_id)
    .bind(row.psid)
    .bind(row.turn_id)
    .bind(row.epoch)
    .bind(row.agent)
    .bind(row.text)
    .execute(db)
    .await?;
    Ok(())
}

/// Claims due rows, the oldest unsent one of each conversation.
///
/// A bot row is only claimed while the conversation is the machine's under the row's epoch, its window is open, its Page
/// may send, and no echo of a person's message waits in the inbox. An agent's row needs a Page that may send.
pub async fn claim(pool: &PgPool, claimed_by: &str, limit: i64) -> sqlx::Result<Vec<Claimed>> {
    sqlx::query_as(
        "with due as (
           select o.id, c.window_closes_at, c.last_customer_at
           from outbox o
           join conversations c on c.id = o.conversation_id
           join pages p on p.page_id = o.page_id
           where o.state = 'queued' and o.not_before <= now()
             and p.state = 'active' and (p.paused_until is null or p.paused_until <= now())
             and (o.author = 'agent' or (
                   c.epoch = o.epoch and c.state <> 'not_ours' and c.window_closes_at > now()
                   and not exists (select 1 from inbox i where i.state = 'pending' and i.page_id = o.page_id
                                     and i.psid = o.psid and i.is_takeover)))
             and not exists (select 1 from outbox e where e.conversation_id = o.conversation_id and e.seq < o.seq
                               and e.state in ('queued', 'sending', 'unknown'))
           order by o.not_before, o.seq
           limit $2
           for update of o skip locked for share of c skip locked)
         update outbox o set state = 'sending', attempts = o.attempts + 1, claimed_at = now(), claimed_by = $1,
                first_sent_at = coalesce(o.first_sent_at, now())
         from due where o.id = due.id
         returning o.id, o.conversation_id, o.page_id, o.psid, o.author, o.agent, o.text, o.attempts, o.created_at,
                   due.window_closes_at, due.last_customer_at",
    )
    .bind(claimed_by)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Bot rows that can no longer go out, with their conversations: another epoch, or the window has closed.
pub async fn unsendable(pool: &PgPool, limit: i64) -> sqlx::Result<Vec<(Uuid, Uuid)>> {
    sqlx::query_as(
        "select o.id, o.conversation_id from outbox o join conversations c on c.id = o.conversation_id
         where o.state = 'queued' and o.author = 'bot'
           and (c.epoch <> o.epoch or c.state = 'not_ours' or c.window_closes_at is null or c.window_closes_at <= now())
         limit $1",
    )
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Settles one of them, if it still cannot go out. Returns its Page, its new state and the reason.
pub async fn settle_unsendable(
    db: impl PgExecutor<'_>,
    id: Uuid,
) -> sqlx::Result<Option<(String, String, String)>> {
    sqlx::query_as(
        "update outbox o set settled_at = now(),
                state = case when c.epoch <> o.epoch or c.state = 'not_ours' then 'void' else 'failed' end,
                error = case when c.epoch <> o.epoch or c.state = 'not_ours' then 'the conversation was taken over'
                             else 'the messaging window has closed' end
         from conversations c
         where o.id = $1 and c.id = o.conversation_id and o.state = 'queued' and o.author = 'bot'
           and (c.epoch <> o.epoch or c.state = 'not_ours' or c.window_closes_at is null or c.window_closes_at <= now())
         returning o.page_id, o.state, o.error",
    )
    .bind(id)
    .fetch_optional(db)
    .await
}

/// Voids everything of the machine's that still waits in a conversation.
pub async fn void_queued(db: &mut PgConnection, conversation_id: Uuid, reason: &str) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "update outbox set state = 'void', settled_at = now(), error = $2
         where conversation_id = $1 and state = 'queued' and author = 'bot'",
    )
    .bind(conversation_id)
    .bind(reason)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Meta confirmed a send: by its answer, by the echo, or through the Conversations API. False: it was known already.
pub async fn mark_sent(db: impl PgExecutor<'_>, id: Uuid, message_id: Option<&str>) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "update outbox set state = 'sent', message_id = coalesce($2, message_id), settled_at = now(), error = null
         where id = $1 and state in ('sending', 'unknown', 'queued')",
    )
    .bind(id)
    .bind(message_id)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Nobody can tell whether Meta sent it.
pub async fn mark_unknown(db: impl PgExecutor<'_>, id: Uuid, error: &str) -> sqlx::Result<()> {
    sqlx::query("update outbox set state = 'unknown', error = $2, not_before = now() where id = $1 and state = 'sending'")
        .bind(id)
        .bind(error)
        .execute(db)
        .await?;
    Ok(())
}

/// The send was refused for good.
pub async fn mark_failed(
    db: impl PgExecutor<'_>,
    id: Uuid,
    code: Option<i64>,
    subcode: Option<i64>,
    error: &str,
) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "update outbox set state = 'failed', settled_at = now(), error_code = $2, error_subcode = $3, error = $4
         where id = $1 and state in ('queued', 'sending', 'unknown')",
    )
    .bind(id)
    .bind(code.and_then(|c| i32::try_from(c).ok()))
    .bind(subcode.and_then(|c| i32::try_from(c).ok()))
    .bind(error)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Everything still open after a failed part of a conversation's reply: an answer with a hole in it is not sent on.
pub async fn fail_following(db: impl PgExecutor<'_>, failed: Uuid, error: &str) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "update outbox o set state = 'failed', settled_at = now(), error = $2
         from outbox f where f.id = $1 and o.conversation_id = f.conversation_id and o.seq > f.seq
           and o.turn_id is not distinct from f.turn_id and o.turn_id is not null and o.state = 'queued'",
    )
    .bind(failed)
    .bind(error)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// The request surely did not take effect: it may be sent again at `not_before`. `counted`: it uses up an attempt.
pub async fn requeue(
    db: impl PgExecutor<'_>,
    id: Uuid,
    not_before: DateTime<Utc>,
    counted: bool,
    error: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "update outbox set state = 'queued', not_before = $2, error = $4,
                attempts = case when $3 then attempts else greatest(attempts - 1, 0) end
         where id = $1 and state in ('sending', 'unknown')",
    )
    .bind(id)
    .bind(not_before)
    .bind(counted)
    .bind(error)
    .execute(db)
    .await?;
    Ok(())
}

/// Claims that never came back (their process died) are in doubt, not to be repeated.
pub async fn doubt_stale(pool: &PgPool, older_than_ms: i64) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "update outbox set state = 'unknown', error = 'no result came back', not_before = now()
         where state = 'sending' and claimed_at < now() - $1 * interval '1 millisecond'",
    )
    .bind(older_than_ms)
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}

/// Rows in doubt that are due to be looked up; the next look-up is put off by `next_ms`, so replicas do not double it.
pub async fn take_in_doubt(pool: &PgPool, grace_ms: i64, next_ms: i64, limit: i64) -> sqlx::Result<Vec<InDoubt>> {
    sqlx::query_as(
        "update outbox o set not_before = now() + $2 * interval '1 millisecond'
         where o.id in (select id from outbox where state = 'unknown' and not_before <= now()
                          and claimed_at < now() - $1 * interval '1 millisecond'
                        order by claimed_at limit $3 for update skip locked)
         returning id, conversation_id, page_id, psid, text, attempts, first_sent_at, claimed_at",
    )
    .bind(grace_ms)
    .bind(next_ms)
    .bind(limit)
    .fetch_all(pool)
    .await
}

pub async fn get(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<Option<Row>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("select {ROW_COLUMNS} from outbox where id = $1")))
        .bind(id)
        .fetch_optional(db)
        .await
}

pub async fn of_turn(db: impl PgExecutor<'_>, turn_id: Uuid) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("select {ROW_COLUMNS} from outbox where turn_id = $1 order by seq")))
        .bind(turn_id)
        .fetch_all(db)
        .await
}

/// The row that Meta's message id belongs to, when we know it.
pub async fn by_message_id(db: impl PgExecutor<'_>, page_id: &str, message_id: &str) -> sqlx::Result<Option<Row>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {ROW_COLUMNS} from outbox where page_id = $1 and message_id = $2"
    )))
    .bind(page_id)
    .bind(message_id)
    .fetch_optional(db)
    .await
}

/// Rows by state, for metrics and the operator.
pub async fn counts(pool: &PgPool) -> sqlx::Result<Vec<(String, i64)>> {
    sqlx::query_as(
        "select state, count(*) from outbox where state in ('queued', 'sending', 'unknown') group by state",
    )
    .fetch_all(pool)
    .await
}

/// Rows in doubt, for the agent who settles them.
pub async fn unknown(pool: &PgPool, limit: i64) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {ROW_COLUMNS} from outbox where state = 'unknown' order by created_at limit $1"
    )))
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// What is not settled yet in a conversation, in sending order.
pub async fn open_of_conversation(db: impl PgExecutor<'_>, conversation_id: Uuid) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {ROW_COLUMNS} from outbox
         where conversation_id = $1 and state in ('queued', 'sending', 'unknown') order by seq limit 200"
    )))
    .bind(conversation_id)
    .fetch_all(db)
    .await
}

/// The rows of several turns, in sending order.
pub async fn of_turns(db: impl PgExecutor<'_>, turn_ids: &[Uuid]) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {ROW_COLUMNS} from outbox where turn_id = any($1) order by seq"
    )))
    .bind(turn_ids)
    .fetch_all(db)
    .await
}

/// Locks a row for a transaction and reads it as it stands now.
pub async fn lock(tx: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<Row>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("select {ROW_COLUMNS} from outbox where id = $1 for update")))
        .bind(id)
        .fetch_optional(tx)
        .await
}

/// Rows that were given up, newest first.
pub async fn failed(pool: &PgPool, limit: i64) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {ROW_COLUMNS} from outbox where state = 'failed' order by settled_at desc limit $1"
    )))
    .bind(limit)
    .fetch_all(pool)
    .await
}
