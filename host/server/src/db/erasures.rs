//! Table `erasures`, and the erasure itself: everything about one person, in one transaction.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use crate::keys::Wrapped;

/// A request as people may see it. It says nothing of the person.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow, serde::Serialize)]
pub struct Erasure {
    pub code: String,
    /// `callback` or `operator`.
    pub source: String,
    /// `queued`, `done` or `failed`.
    pub state: String,
    pub people: i32,
    pub rows_erased: i64,
    pub attempts: i32,
    pub note: Option<String>,
    pub requested_by: String,
    pub requested_at: DateTime<Utc>,
    pub done_at: Option<DateTime<Utc>>,
}

/// A request that was taken to be carried out.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Taken {
    pub code: String,
    pub requested_by: String,
    pub attempts: i32,
    pub key_id: String,
    pub subject: Vec<u8>,
}

const COLUMNS: &str = "code, source, state, people, rows_erased, attempts, note, requested_by, requested_at, done_at";

pub async fn insert(
    db: impl PgExecutor<'_>,
    code: &str,
    source: &str,
    subject: &Wrapped,
    requested_by: &str,
) -> sqlx::Result<()> {
    sqlx::query("insert into erasures (code, source, key_id, subject, requested_by) values ($1, $2, $3, $4, $5)")
        .bind(code)
        .bind(source)
        .bind(&subject.key_id)
        .bind(&subject.sealed)
        .bind(requested_by)
        .execute(db)
        .await?;
    Ok(())
}

pub async fn get(db: impl PgExecutor<'_>, code: &str) -> sqlx::Result<Option<Erasure>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("select {COLUMNS} from erasures where code = $1")))
        .bind(code)
        .fetch_optional(db)
        .await
}

/// The latest requests, newest first.
pub async fn list(pool: &PgPool, limit: i64) -> sqlx::Result<Vec<Erasure>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("select {COLUMNS} from erasures order by requested_at desc limit $1")))
        .bind(limit)
        .fetch_all(pool)
        .await
}

/// Takes one due request and puts it off by `lease_ms`: a process that dies with it only delays it.
pub async fn take(pool: &PgPool, lease_ms: i64) -> sqlx::Result<Option<Taken>> {
    sqlx::query_as(
        "update erasures set attempts = attempts + 1, not_before = now() + $1 * interval '1 millisecond'
         where code = (select code from erasures where state = 'queued' and not_before <= now()
                       order by not_before limit 1 for update skip locked)
         returning code, requested_by, attempts, key_id, subject",
    )
    .bind(lease_ms)
    .fetch_optional(pool)
    .await
}

/// Tries a request again later.
pub async fn postpone(pool: &PgPool, code: &str, after_ms: i64, note: &str) -> sqlx::Result<()> {
    sqlx::query(
        "update erasures set not_before = now() + $2 * interval '1 millisecond', note = $3
         where code = $1 and state = 'queued'",
    )
    .bind(code)
    .bind(after_ms)
    .bind(note)
    .execute(pool)
    .await?;
    Ok(())
}

/// Adds to what a request has erased so far.
pub async fn count(db: impl PgExecutor<'_>, code: &str, people: i32, rows: i64) -> sqlx::Result<()> {
    sqlx::query("update erasures set people = people + $2, rows_erased = rows_erased + $3 where code = $1")
        .bind(code)
        .bind(people)
        .bind(rows)
        .execute(db)
        .await?;
    Ok(())
}

/// Ends a request, and forgets whom it was about.
pub async fn finish(db: impl PgExecutor<'_>, code: &str) -> sqlx::Result<()> {
    sqlx::query(
        "update erasures set state = 'done', done_at = now(), note = null, key_id = null, subject = null where code = $1",
    )
    .bind(code)
    .execute(db)
    .await?;
    Ok(())
}

/// Gives a request up: a person must look at it. Whom it is about stays, so that it can be queued again.
pub async fn fail(pool: &PgPool, code: &str, note: &str) -> sqlx::Result<()> {
    sqlx::query("update erasures set state = 'failed', note = $2 where code = $1 and state = 'queued'")
        .bind(code)
        .bind(note)
        .execute(pool)
        .await?;
    Ok(())
}

/// Queues a failed request again. True when it was failed.
pub async fn retry(db: impl PgExecutor<'_>, code: &str) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "update erasures set state = 'queued', attempts = 0, not_before = now() where code = $1 and state = 'failed'",
    )
    .bind(code)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Some open requests whose subject another key than `current` wraps, locked: code, key id, sealed subject.
pub async fn not_under(
    db: impl PgExecutor<'_>,
    current: &str,
    limit: i64,
) -> sqlx::Result<Vec<(String, String, Vec<u8>)>> {
    sqlx::query_as(
        "select code, key_id, subject from erasures where key_id <> $1 and subject is not null
         order by code limit $2 for update skip locked",
    )
    .bind(current)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Puts a subject that was wrapped again in its place.
pub async fn rewrap(db: impl PgExecutor<'_>, code: &str, subject: &Wrapped) -> sqlx::Result<()> {
    sqlx::query("update erasures set key_id = $2, subject = $3 where code = $1")
        .bind(code)
        .bind(&subject.key_id)
        .bind(&subject.sealed)
        .execute(db)
        .await?;
    Ok(())
}

/// On which Pages somebody with this id is known.
pub async fn pages_of_psid(pool: &PgPool, psid: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "select page_id from conversations where psid = $1
         union select page_id from inbox where psid = $1
         union select page_id from person_keys where psid = $1",
    )
    .bind(psid)
    .fetch_all(pool)
    .await
}

/// Locks a person's conversation: turns, sends and events of theirs wait until the transaction ends.
pub async fn lock_conversation(db: impl PgExecutor<'_>, page_id: &str, psid: &str) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar("select id from conversations where page_id = $1 and psid = $2 for update")
        .bind(page_id)
        .bind(psid)
        .fetch_optional(db)
        .await
}

/// Whether a send to the person is on its way, or its echo is: it would bring words back that were just erased. Half a minute after
/// the send no echo is waited for any more; an app that is not subscribed to echoes gets none.
pub async fn is_sending(db: impl PgExecutor<'_>, conversation_id: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "select exists (
           select 1 from outbox o
           where o.conversation_id = $1
             and (o.state = 'sending' or (o.state = 'sent' and o.settled_at > now() - interval '30 seconds'
                  and not exists (select 1 from inbox i where i.page_id = o.page_id and i.psid = o.psid
                                    and i.mid = o.message_id and i.kind = 'echo' and i.state = 'done'))))",
    )
    .bind(conversation_id)
    .fetch_one(db)
    .await
}

/// Deletes a conversation that the transaction has locked, with messages, decisions, records, outbox, tickets and their
/// deliveries; and takes their ids out of the audit log. Returns how many rows went.
pub async fn delete_conversation(db: &mut PgConnection, id: Uuid, pseudonym: &str) -> sqlx::Result<i64> {
    sqlx::query(
        "with ids as (
           select $1::uuid as id
           union all select id from tickets where conversation_id = $1
           union all select id from outbox where conversation_id = $1
           union all select turn_id from decisions where conversation_id = $1)
         update audit_log a set subject = $2, detail = '{\"erased\": true}'::jsonb from ids where a.subject = ids.id::text",
    )
    .bind(id)
    .bind(pseudonym)
    .execute(&mut *db)
    .await?;
    let rows: i64 = sqlx::query_scalar(
        "select 1 + (select count(*) from messages where conversation_id = $1)
                  + (select count(*) from decisions where conversation_id = $1)
                  + (select count(*) from outbox where conversation_id = $1)
                  + (select count(*) from tickets where conversation_id = $1)",
    )
    .bind(id)
    .fetch_one(&mut *db)
    .await?;
    // Everything else refers to it and goes along.
    sqlx::query("delete from conversations where id = $1").bind(id).execute(db).await?;
    Ok(rows)
}

/// Empties what Meta delivered of a person. The rows of the last two days stay without person and content, because Meta may still
/// repeat their deliveries, which must not bring anything back.
pub async fn erase_inbox(db: &mut PgConnection, page_id: &str, psid: &str) -> sqlx::Result<i64> {
    let gone =
        sqlx::query("delete from inbox where page_id = $1 and psid = $2 and received_at < now() - interval '2 days'")
            .bind(page_id)
            .bind(psid)
            .execute(&mut *db)
            .await?;
    let emptied = sqlx::query(
        "update inbox set psid = null, mid = null, payload = '{}', sealed = null, event_at = null, entry_time = null,
                is_takeover = false, turn_id = null, state = 'done', done_at = coalesce(done_at, now()), note = 'erased'
         where page_id = $1 and psid = $2",
    )
    .bind(page_id)
    .bind(psid)
    .execute(db)
    .await?;
    Ok(i64::try_from(gone.rows_affected() + emptied.rows_affected()).unwrap_or(i64::MAX))
}
