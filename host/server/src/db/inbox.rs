//! Table `inbox`: every event that was acknowledged to Meta, until a turn (or nothing) came of it.

use chrono::{DateTime, Utc};
use frontdesk_messenger::Channel;
use frontdesk_messenger::event::message_key;
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

/// An event about to be stored.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub page_id: String,
    /// The customer; `None` for events that belong to no conversation.
    pub psid: Option<String>,
    pub channel: &'static str,
    pub kind: &'static str,
    pub dedupe_key: String,
    pub mid: Option<String>,
    pub is_takeover: bool,
    /// The row of our outbox that the event is an echo of.
    pub own_row: Option<Uuid>,
    pub event_at: Option<DateTime<Utc>>,
    /// JSON: the piece of Meta's body.
    pub payload: String,
}

/// An event that waits to be handled.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct StoredEvent {
    #[sqlx(rename = "event_id")]
    pub id: i64,
    pub page_id: String,
    pub psid: Option<String>,
    pub channel: String,
    pub kind: String,
    pub mid: Option<String>,
    pub event_at: Option<DateTime<Utc>>,
    pub received_at: DateTime<Utc>,
    /// What Meta delivered; empty as long as it is in `sealed`.
    pub payload: Value,
    /// See [`crate::words`].
    pub sealed: Option<Vec<u8>>,
    /// What was sealed does not open.
    #[sqlx(skip)]
    pub is_unreadable: bool,
    pub attempts: i32,
    /// Set after a failure: not to be tried again before.
    pub is_postponed: bool,
}

macro_rules! insert {
    ($on_conflict:literal) => {
        concat!(
            "with live as (select 1 from inbox_keys where id = $10 and used_until > now()),
                  stored as (
                    insert into inbox (page_id, psid, channel, kind, dedupe_key, mid, is_takeover, event_at, sealed)
                    select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bool[],
                                         $8::timestamptz[], $9::bytea[])
                    where exists (select 1 from live) ",
            $on_conflict,
            ") select exists (select 1 from live)"
        )
    };
}

/// What to do with events that are stored already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeated {
    /// They are passed over. Looking for each costs a fifth more.
    PassOver,
    /// They make the statement fail with a unique violation, and nothing is stored.
    Fail,
}

/// Stores events in one statement, hence one commit, each with its sealed payload. False: the key may not be used any more, and
/// nothing was stored.
pub async fn insert_sealed(
    db: impl PgExecutor<'_>,
    key_id: Uuid,
    events: &[NewEvent],
    sealed: &[Vec<u8>],
    repeated: Repeated,
) -> sqlx::Result<bool> {
    let column = |f: fn(&NewEvent) -> &str| events.iter().map(f).collect::<Vec<&str>>();
    sqlx::query_scalar(match repeated {
        Repeated::PassOver => insert!("on conflict (dedupe_key) do nothing"),
        Repeated::Fail => insert!(""),
    })
    .bind(column(|e| &e.page_id))
    .bind(events.iter().map(|e| e.psid.as_deref()).collect::<Vec<_>>())
    .bind(column(|e| e.channel))
    .bind(column(|e| e.kind))
    .bind(column(|e| &e.dedupe_key))
    .bind(events.iter().map(|e| e.mid.as_deref()).collect::<Vec<_>>())
    .bind(events.iter().map(|e| e.is_takeover).collect::<Vec<_>>())
    .bind(events.iter().map(|e| e.event_at).collect::<Vec<_>>())
    .bind(sealed)
    .bind(key_id)
    .fetch_one(db)
    .await
}

/// A stored echo of one of our own sends.
#[derive(Debug, Clone)]
pub struct OwnEcho {
    pub dedupe_key: String,
    pub row_id: Uuid,
    pub page_id: String,
    pub psid: String,
    pub mid: String,
    pub echoed_at: Option<DateTime<Utc>>,
    /// How often it was looked at.
    pub tries: u8,
}

/// Marks echoes as read whose send is settled under the same id and stands in the transcript; Meta's time counts there. Returns
/// the keys of those. Nothing is kept of their content: it is the transcript's.
///
/// Rows are looked up by their keys, see [`super::turns::end`]. No row is waited for: a turn that reads such an echo at this moment holds both, in the other order.
pub async fn settle_own_echoes(db: impl PgExecutor<'_>, echoes: &[OwnEcho]) -> sqlx::Result<Vec<String>> {
    let column = |f: fn(&OwnEcho) -> &str| echoes.iter().map(f).collect::<Vec<&str>>();
    sqlx::query_scalar(
        "with sent as materialized (
           select e.dedupe_key, e.mid, e.echoed_at, o.id, o.conversation_id
           from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
                  as e (dedupe_key, row_id, page_id, psid, mid, echoed_at)
           join outbox o on o.id = e.row_id
           where o.page_id = e.page_id and o.psid = e.psid and o.state = 'sent' and o.message_id = e.mid),
         known as materialized (
           select i.id as event, s.echoed_at, m.id as message
           from sent s
           join messages m on m.conversation_id = s.conversation_id and m.mid = s.mid and m.outbox_id = s.id
                          and m.deleted_at is null
           join inbox i on i.dedupe_key = s.dedupe_key and i.state not in ('done', 'failed')
           for update of m, i skip locked),
         dated as (
           update messages m set sent_at = k.echoed_at from known k where m.id = k.message and m.sent_at > k.echoed_at)
         update inbox i set state = 'done', done_at = now(), note = 'our own send', payload = '{}', sealed = null
         from known k where i.id = k.event
         returning i.dedupe_key",
    )
    .bind(column(|e| &e.dedupe_key))
    .bind(echoes.iter().map(|e| e.row_id).collect::<Vec<_>>())
    .bind(column(|e| &e.page_id))
    .bind(column(|e| &e.psid))
    .bind(column(|e| &e.mid))
    .bind(echoes.iter().map(|e| e.echoed_at).collect::<Vec<_>>())
    .fetch_all(db)
    .await
}

/// What is kept of an event that a turn has yet to answer, or that was read.
#[derive(Debug, Clone)]
pub struct Kept {
    pub id: i64,
    /// Its payload under the person's key, where it was under another one.
    pub sealed: Option<Vec<u8>>,
    /// Whether one more attempt to answer it begins, which counts before it is made: a crash counts too.
    pub counts: bool,
}

/// Notes that. What was erased meanwhile stays erased.
pub async fn keep(db: impl PgExecutor<'_>, kept: &[Kept]) -> sqlx::Result<()> {
    if kept.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "update inbox i set attempts = i.attempts + k.counts::int,
                sealed = case when k.sealed is null or i.sealed is null and i.payload = '{}' then i.sealed else k.sealed end,
                payload = case when k.sealed is null then i.payload else '{}' end
         from unnest($1::bigint[], $2::bytea[], $3::bool[]) as k (id, sealed, counts) where i.id = k.id",
    )
    .bind(kept.iter().map(|k| k.id).collect::<Vec<_>>())
    .bind(kept.iter().map(|k| k.sealed.as_deref()).collect::<Vec<_>>())
    .bind(kept.iter().map(|k| k.counts).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

/// The oldest `$4` unread events of the person `$2` of the Page `$1` in Meta's order; postponed ones too, so that no later message
/// overtakes them.
pub(super) const PENDING_OF_PERSON: &str =
    "select id as event_id, page_id, psid, channel, kind, mid, event_at, received_at, payload, sealed, attempts,
            coalesce(not_before > now(), false) as is_postponed,
            row_number() over (order by coalesce(event_at, received_at), id) as place
     from inbox where state = 'pending' and page_id = $1 and psid = $2
     order by place limit $4";

/// The unread events of a conversation in Meta's order, oldest first; `psid` `None` reads a Page's own lane.
pub async fn pending(
    db: &mut PgConnection,
    page_id: &str,
    psid: Option<&str>,
    limit: i64,
) -> sqlx::Result<Vec<StoredEvent>> {
    // Two statements: `is not distinct from` cannot use the index.
    let query = match psid {
        Some(_) => PENDING_OF_PERSON,
        None => {
            "select id as event_id, page_id, psid, channel, kind, mid, event_at, received_at, payload, sealed, attempts,
                    coalesce(not_before > now(), false) as is_postponed
             from inbox where state = 'pending' and page_id = $1 and psid is null and $2::text is null and $3::bigint is null
             order by coalesce(event_at, received_at), id limit $4"
        }
    };
    sqlx::query_as(query).bind(page_id).bind(psid).bind(None::<i64>).bind(limit).fetch_all(db).await
}

/// Unread edits and unsends of these messages that are not among the events with these ids, oldest first. Their number is
/// bounded by Meta: at most five edits and one unsend of a message.
pub async fn corrections(
    db: &mut PgConnection,
    page_id: &str,
    psid: &str,
    mids: &[String],
    except: &[i64],
) -> sqlx::Result<Vec<StoredEvent>> {
    sqlx::query_as(
        "select id as event_id, page_id, psid, channel, kind, mid, event_at, received_at, payload, sealed, attempts,
                coalesce(not_before > now(), false) as is_postponed
         from inbox where state = 'pending' and page_id = $1 and psid = $2 and channel = 'messaging'
           and kind in ('edit', 'unsend') and mid = any($3) and not (id = any($4))
         order by coalesce(event_at, received_at), id",
    )
    .bind(page_id)
    .bind(psid)
    .bind(mids)
    .bind(except)
    .fetch_all(db)
    .await
}

/// Those of these messages that were never stored, by the keys that recognise repeated deliveries.
pub async fn missing_messages(db: impl PgExecutor<'_>, page_id: &str, mids: &[String]) -> sqlx::Result<Vec<String>> {
    let keys: Vec<String> = mids.iter().map(|mid| message_key(page_id, Channel::Messaging, mid)).collect();
    sqlx::query_scalar(
        "select asked.mid from unnest($1::text[], $2::text[]) asked (mid, key)
         where not exists (select 1 from inbox i where i.dedupe_key = asked.key)",
    )
    .bind(mids)
    .bind(keys)
    .fetch_all(db)
    .await
}

/// Whether anything is unread and due.
pub async fn has_pending(db: impl PgExecutor<'_>, page_id: &str, psid: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "select exists (select 1 from inbox where state = 'pending' and page_id = $1
           and psid = $2 and (not_before is null or not_before <= now()))",
    )
    .bind(page_id)
    .bind(psid)
    .fetch_one(db)
    .await
}

/// An event that is unread again.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Reopened {
    pub id: i64,
    pub mid: Option<String>,
    pub event_at: Option<DateTime<Utc>>,
    pub received_at: DateTime<Utc>,
}

/// Makes the events of a turn whose answer was taken back unread again, but for those that were withdrawn meanwhile. They are
/// named by Meta's ids or, where it gave none, by ours.
pub async fn reopen(
    db: impl PgExecutor<'_>,
    turn_id: Uuid,
    (page_id, psid): (&str, &str),
    mids: &[String],
    ids: &[i64],
) -> sqlx::Result<Vec<Reopened>> {
    sqlx::query_as(
        "update inbox set state = 'pending', turn_id = null, done_at = null, note = null, attempts = 0, not_before = null
         where (page_id = $2 and psid = $3 and (mid = any($4) and kind <> 'message' or dedupe_key = any($6)) or id = any($5))
           and turn_id = $1 and state = 'done' and note is distinct from 'unsent'
         returning id, mid, event_at, received_at",
    )
    .bind(turn_id)
    .bind(page_id)
    .bind(psid)
    .bind(mids)
    .bind(ids)
    .bind(message_keys(page_id, mids))
    .fetch_all(db)
    .await
}

/// Marks events as handled, with the turn they became part of, or a note why none was needed.
pub async fn mark_done(
    db: impl PgExecutor<'_>,
    ids: &[i64],
    turn_id: Option<Uuid>,
    note: Option<&str>,
) -> sqlx::Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "update inbox set state = 'done', done_at = now(), turn_id = $2, note = $3
         where id = any($1) and state = 'pending'",
    )
    .bind(ids)
    .bind(turn_id)
    .bind(note)
    .execute(db)
    .await?;
    Ok(())
}

/// Gives events back after a failure, to be tried again after `after_ms`. `counts`: the failure is one of their attempts.
pub async fn postpone(
    db: impl PgExecutor<'_>,
    ids: &[i64],
    counts: bool,
    after_ms: i64,
    note: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "update inbox set not_before = now() + $3 * interval '1 millisecond', note = $4, attempts = attempts + $2::int
         where id = any($1) and state = 'pending'",
    )
    .bind(ids)
    .bind(i32::from(counts))
    .bind(after_ms)
    .bind(note)
    .execute(db)
    .await?;
    Ok(())
}

/// An event that cannot be applied, however often it is tried.
pub async fn mark_failed(db: impl PgExecutor<'_>, id: i64, note: &str) -> sqlx::Result<()> {
    sqlx::query(
        "update inbox set state = 'failed', attempts = attempts + 1, done_at = now(), note = $2
         where id = $1 and state = 'pending'",
    )
    .bind(id)
    .bind(note)
    .execute(db)
    .await?;
    Ok(())
}

/// Conversations with events that have waited longer than `older_than_ms`: their wake-up may be lost.
pub async fn waiting(pool: &PgPool, older_than_ms: i64, limit: i64) -> sqlx::Result<Vec<(String, Option<String>)>> {
    sqlx::query_as(
        "select page_id, psid from inbox i
         where state = 'pending' and received_at <= now() - $1 * interval '1 millisecond'
           and (not_before is null or not_before <= now())
           and not exists (select 1 from conversations c where c.page_id = i.page_id and c.psid = i.psid
                             and c.lease_until > now())
         group by page_id, psid order by min(id) limit $2",
    )
    .bind(older_than_ms)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Unread events, and the age of the oldest in seconds.
pub async fn backlog(pool: &PgPool) -> sqlx::Result<(i64, f64)> {
    sqlx::query_as(
        "select count(*), coalesce(extract(epoch from now() - min(received_at)), 0)::float8
         from inbox where state = 'pending'",
    )
    .fetch_one(pool)
    .await
}

/// Deletes handled events older than `keep_days`, in bounded steps. Returns how many went.
pub async fn prune(pool: &PgPool, keep_days: i32) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "delete from inbox where id in (
           select id from inbox where state <> 'pending' and done_at < now() - make_interval(days => $1) limit 5000)",
    )
    .bind(keep_days)
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}

/// Erases the content of an unsent message from what Meta delivered; the row itself stays, so that a repeated delivery
/// of it is still recognised.
pub async fn erase(db: impl PgExecutor<'_>, page_id: &str, psid: &str, mid: &str) -> sqlx::Result<()> {
    sqlx::query(
        "update inbox set payload = '{}', sealed = null, state = 'done', note = 'unsent',
                done_at = coalesce(done_at, now())
         where page_id = $1 and psid = $2
           and (dedupe_key = any($4) or mid = $3 and kind <> 'message' and (kind = 'edit' or kind = 'echo' and state = 'done'))",
    )
    .bind(page_id)
    .bind(psid)
    .bind(mid)
    .bind(message_keys(page_id, &[mid.to_owned()]))
    .execute(db)
    .await?;
    Ok(())
}

/// The keys under which these messages stand, if they came: as ours to answer, or in standby.
fn message_keys(page_id: &str, mids: &[String]) -> Vec<String> {
    let of = |mid: &String| [Channel::Messaging, Channel::Standby].map(|channel| message_key(page_id, channel, mid));
    mids.iter().flat_map(of).collect()
}

/// Erases what one event says; what becomes of it is the caller's.
pub async fn forget(db: impl PgExecutor<'_>, id: i64) -> sqlx::Result<()> {
    sqlx::query("update inbox set payload = '{}', sealed = null where id = $1").bind(id).execute(db).await?;
    Ok(())
}
