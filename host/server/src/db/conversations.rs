//! Table `conversations`: who owns a conversation, under which epoch, and until when the messaging window is open.
//!
//! Two counters fence it. `lease_token` belongs to workers: one that lost its lease cannot commit. `epoch` belongs to
//! ownership: everything that gives the conversation to a person (or another app) bumps it, and an outbox row written
//! under an older epoch is void.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::inbox::StoredEvent;

#[derive(Debug, Clone, PartialEq, sqlx::FromRow, serde::Serialize)]
pub struct Conversation {
    pub id: Uuid,
    pub page_id: String,
    pub psid: String,
    pub customer_name: Option<String>,
    pub customer_locale: Option<String>,
    /// `bot`, `human` or `not_ours`.
    pub state: String,
    pub state_reason: Option<String>,
    pub state_since: DateTime<Utc>,
    pub epoch: i64,
    #[serde(skip)]
    pub lease_token: i64,
    pub agent: Option<String>,
    pub window_opened_by: Option<String>,
    pub window_opened_at: Option<DateTime<Utc>>,
    pub window_closes_at: Option<DateTime<Utc>>,
    pub automated_turns: i32,
    pub disclosure_due: bool,
    pub last_customer_at: Option<DateTime<Utc>>,
    pub last_reply_at: Option<DateTime<Utc>>,
    pub last_agent_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

const COLUMNS: &str = "id, page_id, psid, customer_name, customer_locale, state, state_reason, state_since, epoch, \
    lease_token, agent, window_opened_by, window_opened_at, window_closes_at, automated_turns, disclosure_due, \
    last_customer_at, last_reply_at, last_agent_at, created_at";

/// Takes the lease of a conversation with unread events, which is created when it is new, and reads the oldest `limit` of them
/// ([`super::inbox::pending`]). `None`: another worker holds it, or nothing is unread: a wake-up that comes late must not bring a
/// person back who was erased. A lease that shows is not waited for; one that is just being taken is.
pub async fn lease(
    db: impl PgExecutor<'_>,
    page_id: &str,
    psid: &str,
    lease_ms: i64,
    limit: i64,
) -> sqlx::Result<Option<(Conversation, Vec<StoredEvent>)>> {
    let rows: Vec<Leased> = sqlx::query_as(AssertSqlSafe(format!(
        "with leased as (
           insert into conversations as c (page_id, psid, lease_token, lease_until)
           select $1, $2, 1, now() + $3 * interval '1 millisecond'
           where exists (select 1 from inbox where state = 'pending' and page_id = $1 and psid = $2)
             and not exists (select 1 from conversations where page_id = $1 and psid = $2 and lease_until >= now())
           on conflict (page_id, psid) do update
             set lease_token = c.lease_token + 1, lease_until = excluded.lease_until
             where c.lease_until is null or c.lease_until < now()
           returning {COLUMNS})
         select l.*, i.event_id, i.channel, i.kind, i.mid, i.event_at, i.received_at, i.payload, i.sealed, i.attempts, i.is_postponed
         from leased l cross join lateral ({}) i order by i.place",
        super::inbox::PENDING_OF_PERSON
    )))
    .bind(page_id)
    .bind(psid)
    .bind(lease_ms)
    .bind(limit)
    .fetch_all(db)
    .await?;
    let mut conversation = None;
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        events.push(row.event);
        conversation = Some(row.conversation);
    }
    Ok(conversation.map(|conversation| (conversation, events)))
}

/// A leased conversation beside one of its unread events.
#[derive(Debug, sqlx::FromRow)]
struct Leased {
    #[sqlx(flatten)]
    conversation: Conversation,
    #[sqlx(flatten)]
    event: StoredEvent,
}

/// Extends a lease that is still ours. False: it was lost, or given back; a renewal that waited for the transaction that gives it
/// back must not take it again for nobody.
pub async fn renew(pool: &PgPool, id: Uuid, lease_token: i64, lease_ms: i64) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "update conversations set lease_until = now() + $3 * interval '1 millisecond'
         where id = $1 and lease_token = $2 and lease_until is not null",
    )
    .bind(id)
    .bind(lease_token)
    .bind(lease_ms)
    .execute(pool)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Gives the lease back, if it is still ours.
pub async fn release(db: impl PgExecutor<'_>, id: Uuid, lease_token: i64) -> sqlx::Result<()> {
    sqlx::query("update conversations set lease_until = null where id = $1 and lease_token = $2")
        .bind(id)
        .bind(lease_token)
        .execute(db)
        .await?;
    Ok(())
}

/// Locks the row for a transaction and reads it as it stands now. Rows that refer to it may be written meanwhile, as when a
/// send is confirmed; only an erasure, which deletes it, keeps those out too.
pub async fn lock(tx: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<Conversation>> {
    sqlx::query_as(AssertSqlSafe(format!("select {COLUMNS} from conversations where id = $1 for no key update")))
        .bind(id)
        .fetch_optional(tx)
        .await
}

pub async fn get(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<Option<Conversation>> {
    sqlx::query_as(AssertSqlSafe(format!("select {COLUMNS} from conversations where id = $1")))
        .bind(id)
        .fetch_optional(db)
        .await
}

pub async fn by_psid(db: impl PgExecutor<'_>, page_id: &str, psid: &str) -> sqlx::Result<Option<Conversation>> {
    sqlx::query_as(AssertSqlSafe(format!("select {COLUMNS} from conversations where page_id = $1 and psid = $2")))
        .bind(page_id)
        .bind(psid)
        .fetch_optional(db)
        .await
}

/// Latest conversations first. `state` filters; `before` continues an earlier page (by creation time).
pub async fn list(
    pool: &PgPool,
    state: Option<&str>,
    before: Option<DateTime<Utc>>,
    limit: i64,
) -> sqlx::Result<Vec<Conversation>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {COLUMNS} from conversations
         where ($1::text is null or state = $1) and ($2::timestamptz is null or coalesce(last_customer_at, created_at) < $2)
         order by coalesce(last_customer_at, created_at) desc limit $3"
    )))
    .bind(state)
    .bind(before)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Who had the conversation that a plugin began with somebody.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct KnownBefore {
    pub state: String,
    pub state_reason: Option<String>,
    pub state_since: DateTime<Utc>,
}

/// Notes that the person of the conversation `user_ref` (a key with its prefix) writes as `psid`. `None`: that was known, or there is
/// no such conversation.
pub async fn learn_psid(
    tx: &mut PgConnection,
    page_id: &str,
    user_ref: &str,
    psid: &str,
) -> sqlx::Result<Option<KnownBefore>> {
    sqlx::query_as(
        "update conversations set known_as = $3 where page_id = $1 and psid = $2 and known_as is distinct from $3
         returning state, state_reason, state_since",
    )
    .bind(page_id)
    .bind(user_ref)
    .bind(psid)
    .fetch_optional(tx)
    .await
}

/// The other keys under which the person of a conversation's key is known on the Page: the PSID of a `user_ref`, or the other way round.
pub async fn other_keys(db: impl PgExecutor<'_>, page_id: &str, key: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "with psid as (
           select coalesce((select known_as from conversations where page_id = $1 and psid = $2), $2) as psid)
         select key from (select psid as key from psid
                          union select c.psid from conversations c, psid where c.page_id = $1 and c.known_as = psid.psid) k
         where key <> $2 order by key limit 100",
    )
    .bind(page_id)
    .bind(key)
    .fetch_all(db)
    .await
}

/// Changes the owner: bumps the epoch, and voids what the machine has not sent yet. Returns how many rows became void.
///
/// `since` is the event's own time, where an event changed the owner: a later look at an older event must not undo it.
/// Sends that are on their way cannot be called back; the outbox claims rows under the lock that this update takes, so
/// nothing is claimed after the transaction has committed.
pub async fn set_owner(
    tx: &mut PgConnection,
    id: Uuid,
    state: &str,
    reason: &str,
    agent: Option<&str>,
    since: Option<DateTime<Utc>>,
) -> sqlx::Result<u64> {
    sqlx::query(
        "update conversations set epoch = epoch + 1, state = $2, state_reason = $3, agent = $4,
           state_since = coalesce($5, now()),
           automated_turns = case when $2 = 'bot' then 0 else automated_turns end,
           disclosure_due = disclosure_due or $2 = 'bot',
           last_agent_at = case when $2 = 'human' then coalesce($5, now()) else last_agent_at end
         where id = $1",
    )
    .bind(id)
    .bind(state)
    .bind(reason)
    .bind(agent)
    .bind(since)
    .execute(&mut *tx)
    .await?;
    super::outbox::void_queued(tx, id, reason).await
}

/// Takes back what the machine has not sent yet, in a conversation that is a person's already: a new epoch, as with a change
/// of owner, so that a send in doubt is not repeated either. Without anything unsent nothing changes.
pub async fn silence_machine(tx: &mut PgConnection, id: Uuid, reason: &str) -> sqlx::Result<u64> {
    sqlx::query(
        "update conversations set epoch = epoch + 1
         where id = $1 and exists (select 1 from outbox where conversation_id = $1 and author = 'bot'
                                     and state in ('queued', 'sending', 'unknown'))",
    )
    .bind(id)
    .execute(&mut *tx)
    .await?;
    super::outbox::void_queued(tx, id, reason).await
}

/// Notes a word from a person, which restarts the quiet time.
pub async fn touch_agent(db: impl PgExecutor<'_>, id: Uuid, at: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query("update conversations set last_agent_at = greatest(coalesce(last_agent_at, $2), $2) where id = $1")
        .bind(id)
        .bind(at)
        .execute(db)
        .await?;
    Ok(())
}

/// Opens or extends the messaging window; an older event never shortens it.
pub async fn open_window(
    db: impl PgExecutor<'_>,
    id: Uuid,
    opened_by: &str,
    opened_at: DateTime<Utc>,
    closes_at: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query(
        "update conversations set window_opened_by = $2, window_opened_at = $3, window_closes_at = $4
         where id = $1 and (window_closes_at is null or window_closes_at < $4)",
    )
    .bind(id)
    .bind(opened_by)
    .bind(opened_at)
    .bind(closes_at)
    .execute(db)
    .await?;
    Ok(())
}

/// Closes the window now: Meta said that it is closed, and Meta is the authority.
pub async fn close_window(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<()> {
    sqlx::query("update conversations set window_closes_at = least(window_closes_at, now()) where id = $1")
        .bind(id)
        .execute(db)
        .await?;
    Ok(())
}

/// What a customer's event changes about the messaging window.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    pub opened_by: &'a str,
    pub closes_at: DateTime<Utc>,
    /// As what, and until when, it opens the window instead if the customer clicked on an ad before; the click is used up.
    pub after_ad_click: Option<(&'a str, DateTime<Utc>)>,
}

/// Notes a customer's event of the time `at`: their last word, when they `wrote`, and what it opens. An older event never shortens
/// the window. Returns the conversation as it then stands.
pub async fn note_customer(
    db: impl PgExecutor<'_>,
    id: Uuid,
    at: DateTime<Utc>,
    wrote: bool,
    opening: Option<Opening<'_>>,
) -> sqlx::Result<Option<Conversation>> {
    const AFTER_AD: &str = "($7::timestamptz is not null and ad_click_at <= $2)";
    let after_ad = opening.and_then(|opening| opening.after_ad_click);
    sqlx::query_as(AssertSqlSafe(format!(
        "with found as (
           select id as found_id, {AFTER_AD} as is_after_ad, case when {AFTER_AD} then $7 else $5 end as new_closes_at
           from conversations where id = $1)
         update conversations set
           last_customer_at = case when $3 then greatest(last_customer_at, $2) else last_customer_at end,
           ad_click_at = case when is_after_ad then null else ad_click_at end,
           window_opened_by = case when new_closes_at > coalesce(window_closes_at, '-infinity')
                                   then case when is_after_ad then $6 else $4 end else window_opened_by end,
           window_opened_at = case when new_closes_at > coalesce(window_closes_at, '-infinity') then $2 else window_opened_at end,
           window_closes_at = greatest(window_closes_at, new_closes_at)
         from found where id = found_id
         returning {COLUMNS}"
    )))
    .bind(id)
    .bind(at)
    .bind(wrote)
    .bind(opening.map(|opening| opening.opened_by))
    .bind(opening.map(|opening| opening.closes_at))
    .bind(after_ad.map(|(opened_by, _)| opened_by))
    .bind(after_ad.map(|(_, closes_at)| closes_at))
    .fetch_optional(db)
    .await
}

pub async fn set_profile(
    db: impl PgExecutor<'_>,
    id: Uuid,
    name: Option<&str>,
    locale: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query(
        "update conversations set customer_name = coalesce($2, customer_name),
           customer_locale = coalesce($3, customer_locale), profile_checked_at = now() where id = $1",
    )
    .bind(id)
    .bind(name)
    .bind(locale)
    .execute(db)
    .await?;
    Ok(())
}

/// Notes a click on an ad: the next message opens the long window.
pub async fn note_ad_click(db: impl PgExecutor<'_>, id: Uuid, at: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query("update conversations set ad_click_at = greatest(ad_click_at, $2) where id = $1")
        .bind(id)
        .bind(at)
        .execute(db)
        .await?;
    Ok(())
}

/// Latest conversations first, by the customer's last word. `before` is the time and id of the last row of an earlier
/// page; conversations of the same instant are told apart by their ids, so none is left out between two pages.
pub async fn list_page(
    pool: &PgPool,
    state: Option<&str>,
    before: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> sqlx::Result<Vec<Conversation>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {COLUMNS} from conversations
         where ($1::text is null or state = $1)
           and ($2::timestamptz is null or (coalesce(last_customer_at, created_at), id) < ($2, $3::uuid))
         order by coalesce(last_customer_at, created_at) desc, id desc limit $4"
    )))
    .bind(state)
    .bind(before.map(|(at, _)| at))
    .bind(before.map(|(_, id)| id))
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// An answer was taken back before it left: it does not count, and what it disclosed was never said.
pub async fn take_reply_back(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<()> {
    sqlx::query(
        "update conversations set disclosure_due = true, automated_turns = greatest(automated_turns - 1, 0) where id = $1",
    )
    .bind(id)
    .execute(db)
    .await?;
    Ok(())
}

/// The customer did not get the message that said that a machine answers: the next one must say it.
pub async fn disclose_again(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<()> {
    sqlx::query("update conversations set disclosure_due = true where id = $1").bind(id).execute(db).await?;
    Ok(())
}
