//! Table `outbox`: what is to be sent, is being sent, was sent, or nobody knows.
//!
//! A row is claimed in a transaction that also locks its conversation, so a takeover either voids the row first or waits
//! until the claim has committed: no bot message is claimed after a takeover committed.

mod rows;

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

pub use rows::{Row, by_message_id, counts, failed, get, lock, of_turn, of_turns, open_of_conversation, unknown};

#[derive(Debug, Clone)]
pub struct NewRow<'a> {
    pub id: Uuid,
    pub conversation_id: Uuid,
    pub page_id: &'a str,
    pub psid: &'a str,
    pub turn_id: Option<Uuid>,
    /// What this row is a part of: the turn's answer, or one request of a person.
    pub reply_id: Uuid,
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
    /// Names this claim: a result that comes after another claim changes nothing.
    pub claimed_at: DateTime<Utc>,
    pub window_closes_at: Option<DateTime<Utc>>,
    pub last_customer_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, sqlx::FromRow)]
pub struct InDoubt {
    pub id: Uuid,
    pub conversation_id: Uuid,
    pub page_id: String,
    pub psid: String,
    pub author: String,
    pub text: String,
    pub attempts: i32,
    pub first_sent_at: Option<DateTime<Utc>>,
    pub claimed_at: DateTime<Utc>,
    /// Time since the send, by the database's clock.
    pub age_ms: i64,
}

/// The columns of new rows, in the order of `insert_sql`.
pub(super) struct Columns<'a> {
    ids: Vec<Uuid>,
    conversation_ids: Vec<Uuid>,
    page_ids: Vec<&'a str>,
    psids: Vec<&'a str>,
    turn_ids: Vec<Option<Uuid>>,
    reply_ids: Vec<Uuid>,
    epochs: Vec<i64>,
    agents: Vec<Option<&'a str>>,
    texts: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(rows: &[NewRow<'a>]) -> Self {
        Self {
            ids: rows.iter().map(|row| row.id).collect(),
            conversation_ids: rows.iter().map(|row| row.conversation_id).collect(),
            page_ids: rows.iter().map(|row| row.page_id).collect(),
            psids: rows.iter().map(|row| row.psid).collect(),
            turn_ids: rows.iter().map(|row| row.turn_id).collect(),
            reply_ids: rows.iter().map(|row| row.reply_id).collect(),
            epochs: rows.iter().map(|row| row.epoch).collect(),
            agents: rows.iter().map(|row| row.agent).collect(),
            texts: rows.iter().map(|row| row.text).collect(),
        }
    }

    /// Binds `$1` to `$9`.
    pub(super) fn bind<'q, O>(self, query: Scalar<'q, O>) -> Scalar<'q, O>
    where
        'a: 'q,
    {
        query
            .bind(self.ids)
            .bind(self.conversation_ids)
            .bind(self.page_ids)
            .bind(self.psids)
            .bind(self.turn_ids)
            .bind(self.reply_ids)
            .bind(self.epochs)
            .bind(self.agents)
            .bind(self.texts)
    }
}

type Scalar<'q, O> = sqlx::query::QueryScalar<'q, sqlx::Postgres, O, sqlx::postgres::PgArguments>;

/// Queues the rows of `$1` to `$9` ([`Columns`]), in their order, if a condition holds.
pub(super) fn insert_sql(condition: &str) -> String {
    format!(
        "insert into outbox (id, conversation_id, page_id, psid, turn_id, reply_id, epoch, author, agent, text)
         select id, conversation_id, page_id, psid, turn_id, reply_id, epoch,
                case when agent is null then 'bot' else 'agent' end, agent, text
         from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::uuid[], $7::bigint[], $8::text[], $9::text[])
              with ordinality as n (id, conversation_id, page_id, psid, turn_id, reply_id, epoch, agent, text, part)
         where {condition} order by part"
    )
}

/// Queues the parts of replies, in this order.
pub async fn insert(db: impl PgExecutor<'_>, rows: &[NewRow<'_>]) -> sqlx::Result<()> {
    let query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(format!("{} returning seq", insert_sql("true"))));
    Columns::of(rows).bind(query).fetch_all(db).await?;
    Ok(())
}

/// Claims due rows, the oldest unsent one of each conversation.
///
/// A bot row is only claimed while the conversation is the machine's under the row's epoch, its window is open, its Page
/// may send, and no echo of a person's message waits in the inbox. An agent's row needs a Page that may send, and does not
/// wait for other replies' sends in doubt, only for those of its own reply: its parts stay in order. A row that was tried
/// before waits until all echoes are read: one may be its own. Rows of the Pages in `except` are left alone. The inbox is asked for
/// each row, not read whole, which `not exists` would do here.
pub async fn claim(pool: &PgPool, claimed_by: &str, limit: i64, except: &[String]) -> sqlx::Result<Vec<Claimed>> {
    sqlx::query_as(
        "with due as (
           select o.id, c.window_closes_at, c.last_customer_at
           from outbox o
           join conversations c on c.id = o.conversation_id
           join pages p on p.page_id = o.page_id
           where o.state = 'queued' and o.not_before <= now() and o.page_id <> all($3)
             and p.state = 'active' and (p.paused_until is null or p.paused_until <= now())
             and (o.author = 'agent' or (
                   c.epoch = o.epoch and c.state <> 'not_ours' and c.window_closes_at > now()
                   and (select true from inbox i where i.state = 'pending' and i.page_id = o.page_id
                          and i.psid = o.psid and i.is_takeover limit 1) is null))
             and (o.attempts = 0
                  or (select true from inbox i where i.state = 'pending' and i.page_id = o.page_id
                        and i.psid = o.psid and i.kind = 'echo' limit 1) is null)
             and not exists (select 1 from outbox e where e.conversation_id = o.conversation_id and e.seq < o.seq
                               and (e.state in ('queued', 'sending')
                                    or (e.state = 'unknown' and (o.author = 'bot' or e.reply_id = o.reply_id))))
           order by o.not_before, o.seq
           limit $2
           for update of o skip locked for share of c skip locked)
         update outbox o set state = 'sending', attempts = o.attempts + 1, claimed_at = clock_timestamp(), claimed_by = $1,
                absent_since = null,
                first_sent_at = coalesce(o.first_sent_at, now())
         from due where o.id = due.id
         returning o.id, o.conversation_id, o.page_id, o.psid, o.author, o.agent, o.text, o.attempts, o.created_at,
                   o.claimed_at, due.window_closes_at, due.last_customer_at",
    )
    .bind(claimed_by)
    .bind(limit)
    .bind(except)
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
pub async fn settle_unsendable(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<Option<(String, String, String)>> {
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

/// Meta confirmed a send: by its answer, by the echo, or through the Conversations API. That outweighs whatever was thought
/// before. False: it was known already. An id that Meta gave twice is kept once.
pub async fn mark_sent(db: impl PgExecutor<'_>, id: Uuid, message_id: Option<&str>) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "update outbox o set state = 'sent', settled_at = now(), error = null,
                message_id = case when exists (select 1 from outbox x where x.page_id = o.page_id and x.message_id = $2
                                                 and x.id <> o.id)
                                  then o.message_id else coalesce($2, o.message_id) end
         where o.id = $1 and (o.state <> 'sent' or (o.message_id is null and $2::text is not null))",
    )
    .bind(id)
    .bind(message_id)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// What the answer to a send tells.
#[derive(Debug, Clone)]
pub struct Confirmation {
    pub id: Uuid,
    pub conversation_id: Uuid,
    pub claimed_at: DateTime<Utc>,
    pub message_id: String,
    pub author: String,
    /// As it is to stand in the transcript.
    pub text: String,
    pub sent_at: DateTime<Utc>,
}

/// Settles claimed rows as sent and writes them into the transcript, in one statement and without the conversations' locks. Returns
/// the rows that it settled; it left those that are no longer as they were claimed, or whose id from Meta is another row's.
///
/// An erasure is kept out first, as the transcript's reference would do last: one that has begun is waited for, and leaves no row.
/// Rows are taken in one order, so that two processes do not wait for each other.
pub async fn confirm(db: impl PgExecutor<'_>, sent: &[Confirmation]) -> sqlx::Result<Vec<Uuid>> {
    let column = |f: fn(&Confirmation) -> &str| sent.iter().map(f).collect::<Vec<&str>>();
    sqlx::query_scalar(
        "with told as materialized (
           select * from unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::uuid[])
                    as t (id, claimed_at, message_id, author, text, sent_at, conversation_id)),
         kept as materialized (
           select id from conversations where id in (select conversation_id from told) order by id for key share),
         locked as materialized (
           select o.id, o.conversation_id, o.page_id, o.state, o.claimed_at
             from outbox o where o.id in (select t.id from told t join kept on kept.id = t.conversation_id)
            order by o.id for update),
         still as materialized (
           select o.id, o.conversation_id, t.message_id, t.author, t.text, t.sent_at
             from told t join locked o on o.id = t.id and o.conversation_id = t.conversation_id and o.claimed_at = t.claimed_at
            where o.state = 'sending'
              and not exists (select 1 from outbox x where x.page_id = o.page_id and x.message_id = t.message_id)),
         settled as (
           update outbox o set state = 'sent', settled_at = now(), error = null, message_id = s.message_id
             from still s where o.id = s.id),
         written as (
           insert into messages as m (conversation_id, mid, author, text, sent_at, outbox_id)
           select s.conversation_id, s.message_id, s.author, s.text, s.sent_at, s.id from still s
           on conflict (conversation_id, mid) do update set
             outbox_id = coalesce(m.outbox_id, excluded.outbox_id), sent_at = least(m.sent_at, excluded.sent_at))
         select id from still",
    )
    .bind(sent.iter().map(|s| s.id).collect::<Vec<_>>())
    .bind(sent.iter().map(|s| s.claimed_at).collect::<Vec<_>>())
    .bind(column(|s| &s.message_id))
    .bind(column(|s| &s.author))
    .bind(column(|s| &s.text))
    .bind(sent.iter().map(|s| s.sent_at).collect::<Vec<_>>())
    .bind(sent.iter().map(|s| s.conversation_id).collect::<Vec<_>>())
    .fetch_all(db)
    .await
}

/// Nobody can tell whether Meta sent it.
pub async fn mark_unknown(
    db: impl PgExecutor<'_>,
    id: Uuid,
    claimed_at: DateTime<Utc>,
    error: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "update outbox set state = 'unknown', error = $3, not_before = now()
         where id = $1 and state = 'sending' and claimed_at = $2",
    )
    .bind(id)
    .bind(claimed_at)
    .bind(error)
    .execute(db)
    .await?;
    Ok(())
}

/// The send was refused for good. `claimed_at` names the claim that says so; `None`: a person says so.
pub async fn mark_failed(
    db: impl PgExecutor<'_>,
    id: Uuid,
    claimed_at: Option<DateTime<Utc>>,
    numbers: (Option<i64>, Option<i64>),
    error: &str,
) -> sqlx::Result<bool> {
    let number = |number: Option<i64>| number.and_then(|number| i32::try_from(number).ok());
    let done = sqlx::query(
        "update outbox set state = 'failed', settled_at = now(), error_code = $2, error_subcode = $3, error = $4
         where id = $1 and state in ('queued', 'sending', 'unknown') and ($5::timestamptz is null or claimed_at = $5)",
    )
    .bind(id)
    .bind(number(numbers.0))
    .bind(number(numbers.1))
    .bind(error)
    .bind(claimed_at)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Meta's record does not hold the message. True when it has not for `grace_ms` and no unread echo may say otherwise: only
/// then it surely was not sent. All times are the database's.
pub async fn note_absent(
    db: impl PgExecutor<'_>,
    id: Uuid,
    claimed_at: DateTime<Utc>,
    grace_ms: i64,
) -> sqlx::Result<bool> {
    let sure: Option<bool> = sqlx::query_scalar(
        "update outbox o set absent_since = coalesce(absent_since, now())
         where id = $1 and state = 'unknown' and claimed_at = $2
         returning absent_since <= now() - $3 * interval '1 millisecond'
           and not exists (select 1 from inbox i where i.state = 'pending' and i.page_id = o.page_id and i.psid = o.psid
                             and i.kind = 'echo')",
    )
    .bind(id)
    .bind(claimed_at)
    .bind(grace_ms)
    .fetch_optional(db)
    .await?;
    Ok(sure.unwrap_or(false))
}

/// Everything still open after a failed part of a reply, the machine's or a person's: an answer with a hole in it is not
/// sent on. Other replies of the conversation go their own way.
pub async fn fail_following(db: impl PgExecutor<'_>, failed: Uuid, error: &str) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "update outbox o set state = 'failed', settled_at = now(), error = $2
         from outbox f where f.id = $1 and o.conversation_id = f.conversation_id and o.seq > f.seq
           and o.reply_id = f.reply_id and o.state = 'queued'",
    )
    .bind(failed)
    .bind(error)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// The request surely did not take effect: it may be sent again after `after_ms`. `counted`: it uses up an attempt.
pub async fn requeue(
    db: impl PgExecutor<'_>,
    id: Uuid,
    claimed_at: DateTime<Utc>,
    after_ms: i64,
    counted: bool,
    error: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "update outbox set state = 'queued', not_before = now() + $3 * interval '1 millisecond', error = $5,
                attempts = case when $4 then attempts else greatest(attempts - 1, 0) end
         where id = $1 and state in ('sending', 'unknown') and claimed_at = $2",
    )
    .bind(id)
    .bind(claimed_at)
    .bind(after_ms)
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

/// Rows in doubt that are due to be looked up, of Pages that may call Graph, one of each: Meta allows two such calls a second
/// and Page. The next look-up is put off (the longer the doubt lasts, the longer), so that neither replicas nor a long doubt
/// ask Meta too often.
pub async fn take_in_doubt(pool: &PgPool, grace_ms: i64, next_ms: i64, limit: i64) -> sqlx::Result<Vec<InDoubt>> {
    sqlx::query_as(
        "update outbox o set not_before = now() + greatest($2 * interval '1 millisecond', (now() - o.claimed_at) / 4)
         where o.id in (select d.id from outbox d
                        where d.state = 'unknown' and d.not_before <= now()
                          and d.id in (select distinct on (u.page_id) u.id
                                       from outbox u join pages p on p.page_id = u.page_id
                                       where u.state = 'unknown' and u.not_before <= now()
                                         and u.claimed_at < now() - $1 * interval '1 millisecond'
                                         and p.state = 'active' and (p.paused_until is null or p.paused_until <= now())
                                       order by u.page_id, u.claimed_at)
                        order by d.claimed_at limit $3 for update of d skip locked)
         returning id, conversation_id, page_id, psid, author, text, attempts, first_sent_at, claimed_at,
                   (extract(epoch from now() - claimed_at) * 1000)::bigint as age_ms",
    )
    .bind(grace_ms)
    .bind(next_ms)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Takes the answer to a message back, if all of it still waits under the machine's present epoch. Returns the turn that gave it.
pub async fn take_back(db: impl PgExecutor<'_>, conversation_id: Uuid, mid: &str) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar(
        "with answer as (select m.turn_id, c.epoch from messages m join conversations c on c.id = m.conversation_id
                         where m.conversation_id = $1 and m.mid = $2 and m.turn_id is not null),
              taken as (update outbox o set state = 'void', settled_at = now(), error = 'the customer changed the question'
                        from answer a
                        where o.turn_id = a.turn_id and o.state = 'queued' and o.author = 'bot' and o.epoch = a.epoch
                          and not exists (select 1 from outbox left_already where left_already.turn_id = a.turn_id
                                            and left_already.state in ('sending', 'unknown', 'sent'))
                        returning o.turn_id)
         select turn_id from taken limit 1",
    )
    .bind(conversation_id)
    .bind(mid)
    .fetch_optional(db)
    .await
}

/// Voids what waits as the answer to messages that have all been withdrawn.
pub async fn void_withdrawn(db: impl PgExecutor<'_>, conversation_id: Uuid, mid: &str) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "update outbox o set state = 'void', settled_at = now(), error = 'the customer withdrew the message'
         where o.conversation_id = $1 and o.state = 'queued' and o.author = 'bot'
           and o.turn_id = (select turn_id from messages where conversation_id = $1 and mid = $2)
           and not exists (select 1 from messages m where m.conversation_id = $1 and m.turn_id = o.turn_id
                             and m.author = 'customer' and m.deleted_at is null)",
    )
    .bind(conversation_id)
    .bind(mid)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
