//! Tables `tickets` and `ticket_deliveries`: matters for people, and telling a CRM about them. Summaries are sealed, and opened by
//! [`crate::words`] alone.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use crate::keys::Wrapped;

/// Matters kept of one ticket.
const MATTERS_MAX: i32 = 50;
/// What stands in place of a matter whose message the customer withdrew.
const WITHDRAWN: &str = "The customer withdrew the message.";

#[derive(Debug, Clone)]
pub struct NewTicket<'a> {
    pub conversation_id: Uuid,
    pub page_id: &'a str,
    pub turn_id: Option<Uuid>,
    pub priority: &'a str,
    pub reason: &'a str,
    pub summary: &'a str,
    pub tags: &'a [String],
}

#[derive(Debug, Clone, sqlx::FromRow, serde::Serialize)]
pub struct Ticket {
    pub id: Uuid,
    pub conversation_id: Uuid,
    pub page_id: String,
    pub turn_id: Option<Uuid>,
    pub state: String,
    pub priority: String,
    pub reason: String,
    pub summary: String,
    pub tags: Vec<String>,
    /// The latest messages up to its resolution: filled in by [`crate::tickets`], which reads them when they are asked for.
    #[sqlx(skip)]
    pub transcript: Value,
    /// What there is to do, oldest first: `at`, `turn_id`, `priority`, `reason`, `summary`, `tags`. The latest
    /// [`MATTERS_MAX`] are kept; `priority` above is the highest of all, `reason` and `summary` are the newest's.
    pub matters: Value,
    pub repeats: i32,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub resolved_at: Option<DateTime<Utc>>,
}

/// Opens a ticket, or adds a matter to the open one: one open ticket per conversation. The
/// CRM is told in the same transaction when `notify` is set.
pub async fn open(tx: &mut PgConnection, ticket: &NewTicket<'_>, notify: bool) -> sqlx::Result<Uuid> {
    let (id, repeated): (Uuid, bool) = sqlx::query_as(
        "insert into tickets as t (conversation_id, page_id, turn_id, priority, reason, summary, tags, matters)
         values ($1, $2, $3, $4, $5, $6, $7,
           jsonb_build_array(jsonb_build_object('at', now(), 'turn_id', $3::uuid, 'priority', $4::text, 'reason', $5::text,
                                                'summary', $6::text, 'tags', $7::text[])))
         on conflict (conversation_id) where state = 'open' do update set
           repeats = t.repeats + 1, updated_at = now(), reason = excluded.reason, summary = excluded.summary,
           matters = (select jsonb_agg(matter order by place)
                      from jsonb_array_elements(t.matters || excluded.matters) with ordinality as every (matter, place)
                      where place > jsonb_array_length(t.matters) + 1 - $8),
           priority = case when array_position(array['low','normal','high','urgent'], excluded.priority)
                             > array_position(array['low','normal','high','urgent'], t.priority)
                           then excluded.priority else t.priority end,
           tags = (select array_agg(distinct tag) from unnest(t.tags || excluded.tags) tag)
         returning id, repeats > 0",
    )
    .bind(ticket.conversation_id)
    .bind(ticket.page_id)
    .bind(ticket.turn_id)
    .bind(ticket.priority)
    .bind(ticket.reason)
    .bind(ticket.summary)
    .bind(ticket.tags)
    .bind(MATTERS_MAX)
    .fetch_one(&mut *tx)
    .await?;
    if notify {
        queue_delivery(tx, id, if repeated { "ticket.repeated" } else { "ticket.opened" }).await?;
    }
    Ok(id)
}

async fn queue_delivery(db: &mut PgConnection, ticket_id: Uuid, event: &str) -> sqlx::Result<()> {
    sqlx::query("insert into ticket_deliveries (ticket_id, event) values ($1, $2)")
        .bind(ticket_id)
        .bind(event)
        .execute(db)
        .await?;
    Ok(())
}

/// Closes the open ticket of a conversation, if there is one.
pub async fn resolve(tx: &mut PgConnection, conversation_id: Uuid, notify: bool) -> sqlx::Result<Option<Uuid>> {
    let id: Option<Uuid> = sqlx::query_scalar(
        "update tickets set state = 'resolved', resolved_at = now(), updated_at = now()
         where conversation_id = $1 and state = 'open' returning id",
    )
    .bind(conversation_id)
    .fetch_optional(&mut *tx)
    .await?;
    if let (Some(id), true) = (id, notify) {
        queue_delivery(tx, id, "ticket.resolved").await?;
    }
    Ok(id)
}

pub async fn get(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<Option<Ticket>> {
    sqlx::query_as("select * from tickets where id = $1").bind(id).fetch_optional(db).await
}

pub async fn open_of_conversation(db: impl PgExecutor<'_>, conversation_id: Uuid) -> sqlx::Result<Option<Ticket>> {
    sqlx::query_as("select * from tickets where conversation_id = $1 and state = 'open'")
        .bind(conversation_id)
        .fetch_optional(db)
        .await
}

/// A delivery to make, claimed until `claimed_until` passes.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Delivery {
    pub id: i64,
    /// `None` for the notice of an erasure, which has taken the ticket along.
    pub ticket_id: Option<Uuid>,
    pub event: String,
    pub attempts: i32,
    pub created_at: DateTime<Utc>,
    /// The notice of an erasure, and the id of the key-encryption key that wraps it.
    pub key_id: Option<String>,
    pub notice: Option<Vec<u8>>,
}

/// The event that tells of an erasure.
pub const PERSON_ERASED: &str = "person.erased";

/// Queues the notice that a person was erased.
pub async fn queue_notice(db: impl PgExecutor<'_>, notice: &Wrapped) -> sqlx::Result<()> {
    sqlx::query("insert into ticket_deliveries (event, key_id, notice) values ($1, $2, $3)")
        .bind(PERSON_ERASED)
        .bind(&notice.key_id)
        .bind(&notice.sealed)
        .execute(db)
        .await?;
    Ok(())
}

/// Some notices that another key than `current` wraps, locked: id, key id, notice.
pub async fn notices_not_under(
    db: impl PgExecutor<'_>,
    current: &str,
    limit: i64,
) -> sqlx::Result<Vec<(i64, String, Vec<u8>)>> {
    sqlx::query_as(
        "select id, key_id, notice from ticket_deliveries where key_id <> $1 and notice is not null
         order by id limit $2 for update skip locked",
    )
    .bind(current)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Puts a notice that was wrapped again in its place.
pub async fn rewrap_notice(db: impl PgExecutor<'_>, id: i64, notice: &Wrapped) -> sqlx::Result<()> {
    sqlx::query("update ticket_deliveries set key_id = $2, notice = $3 where id = $1")
        .bind(id)
        .bind(&notice.key_id)
        .bind(&notice.sealed)
        .execute(db)
        .await?;
    Ok(())
}

/// The tickets of a conversation that somebody was, or is to be, told of.
pub async fn told_of(db: impl PgExecutor<'_>, conversation_id: Uuid) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar(
        "select t.id from tickets t where t.conversation_id = $1
           and exists (select 1 from ticket_deliveries d where d.ticket_id = t.id) order by t.created_at, t.id",
    )
    .bind(conversation_id)
    .fetch_all(db)
    .await
}

pub async fn claim_deliveries(pool: &PgPool, claim_ms: i64, limit: i64) -> sqlx::Result<Vec<Delivery>> {
    sqlx::query_as(
        "update ticket_deliveries set attempts = attempts + 1, claimed_until = now() + $1 * interval '1 millisecond'
         where id in (select id from ticket_deliveries where state = 'queued' and not_before <= now()
                        and (claimed_until is null or claimed_until < now())
                      order by id limit $2 for update skip locked)
         returning id, ticket_id, event, attempts, created_at, key_id, notice",
    )
    .bind(claim_ms)
    .bind(limit)
    .fetch_all(pool)
    .await
}

pub async fn delivery_done(pool: &PgPool, id: i64) -> sqlx::Result<()> {
    sqlx::query(
        "update ticket_deliveries set state = 'delivered', delivered_at = now(), last_error = null,
                key_id = null, notice = null
         where id = $1 and state <> 'delivered'",
    )
    .bind(id)
    .execute(pool)
    .await?;
    Ok(())
}

/// Tries again later, or gives up when `retry_at` is `None`. What another replica has delivered meanwhile stays delivered.
pub async fn delivery_failed(pool: &PgPool, id: i64, retry_at: Option<DateTime<Utc>>, error: &str) -> sqlx::Result<()> {
    sqlx::query(
        "update ticket_deliveries set state = case when $2::timestamptz is null then 'failed' else 'queued' end,
                not_before = coalesce($2, not_before), claimed_until = null, last_error = $3,
                key_id = case when $2::timestamptz is null then null else key_id end,
                notice = case when $2::timestamptz is null then null else notice end
         where id = $1 and state = 'queued'",
    )
    .bind(id)
    .bind(retry_at)
    .bind(error)
    .execute(pool)
    .await?;
    Ok(())
}

/// Open tickets, and deliveries that wait or failed for good.
pub async fn counts(pool: &PgPool) -> sqlx::Result<(i64, i64, i64)> {
    sqlx::query_as(
        "select (select count(*) from tickets where state = 'open'),
                (select count(*) from ticket_deliveries where state = 'queued'),
                (select count(*) from ticket_deliveries where state = 'failed')",
    )
    .fetch_one(pool)
    .await
}

/// A ticket without its transcript, for lists.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow, serde::Serialize)]
pub struct TicketSummary {
    pub id: Uuid,
    pub conversation_id: Uuid,
    pub page_id: String,
    pub turn_id: Option<Uuid>,
    pub state: String,
    pub priority: String,
    pub reason: String,
    pub summary: String,
    pub tags: Vec<String>,
    pub repeats: i32,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub resolved_at: Option<DateTime<Utc>>,
}

const SUMMARY_COLUMNS: &str = "id, conversation_id, page_id, turn_id, state, priority, reason, summary, tags, repeats, \
    created_at, updated_at, resolved_at";

/// Newest first, by state. `before` is the time and id of the last row of an earlier page.
pub async fn list_page(
    pool: &PgPool,
    state: Option<&str>,
    before: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> sqlx::Result<Vec<TicketSummary>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {SUMMARY_COLUMNS} from tickets
         where ($1::text is null or state = $1) and ($2::timestamptz is null or (created_at, id) < ($2, $3::uuid))
         order by created_at desc, id desc limit $4"
    )))
    .bind(state)
    .bind(before.map(|(at, _)| at))
    .bind(before.map(|(_, id)| id))
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// The latest tickets of a conversation, newest first.
pub async fn of_conversation(
    db: impl PgExecutor<'_>,
    conversation_id: Uuid,
    limit: i64,
) -> sqlx::Result<Vec<TicketSummary>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {SUMMARY_COLUMNS} from tickets where conversation_id = $1 order by created_at desc, id desc limit $2"
    )))
    .bind(conversation_id)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Closes one ticket. False: it is closed already, or there is none with this id.
pub async fn resolve_by_id(tx: &mut PgConnection, id: Uuid, notify: bool) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "update tickets set state = 'resolved', resolved_at = now(), updated_at = now()
         where id = $1 and state = 'open'",
    )
    .bind(id)
    .execute(&mut *tx)
    .await?;
    let changed = done.rows_affected() > 0;
    if changed && notify {
        queue_delivery(tx, id, "ticket.resolved").await?;
    }
    Ok(changed)
}

/// What became of telling the CRM about a ticket.
#[derive(Debug, Clone, sqlx::FromRow, serde::Serialize)]
pub struct DeliveryStatus {
    pub id: i64,
    pub event: String,
    /// `queued`, `delivered` or `failed`.
    pub state: String,
    pub attempts: i32,
    pub not_before: DateTime<Utc>,
    pub last_error: Option<String>,
    pub delivered_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

/// The latest deliveries of a ticket, newest first.
pub async fn deliveries_of(db: impl PgExecutor<'_>, ticket_id: Uuid, limit: i64) -> sqlx::Result<Vec<DeliveryStatus>> {
    sqlx::query_as(
        "select id, event, state, attempts, not_before, last_error, delivered_at, created_at
         from ticket_deliveries where ticket_id = $1 order by id desc limit $2",
    )
    .bind(ticket_id)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Notes on the open ticket that its transcript has changed: something was written or withdrawn since.
pub async fn touch(db: impl PgExecutor<'_>, conversation_id: Uuid) -> sqlx::Result<()> {
    sqlx::query("update tickets set updated_at = now() where conversation_id = $1 and state = 'open'")
        .bind(conversation_id)
        .execute(db)
        .await?;
    Ok(())
}

/// Erases a withdrawn message from the summaries of the matters that its turn brought up.
pub async fn erase_summary(db: impl PgExecutor<'_>, conversation_id: Uuid, mid: &str) -> sqlx::Result<()> {
    sqlx::query(
        "update tickets t set updated_at = now(),
           summary = case when t.matters -> -1 ->> 'turn_id' = withdrawn.turn_id::text then $3 else t.summary end,
           matters = (select jsonb_agg(case when matter ->> 'turn_id' = withdrawn.turn_id::text
                                            then matter || jsonb_build_object('summary', $3::text) else matter end
                                       order by place)
                      from jsonb_array_elements(t.matters) with ordinality as every (matter, place))
         from (select turn_id from messages where conversation_id = $1 and mid = $2 and turn_id is not null) withdrawn
         where t.conversation_id = $1
           and t.matters @> jsonb_build_array(jsonb_build_object('turn_id', withdrawn.turn_id))",
    )
    .bind(conversation_id)
    .bind(mid)
    .bind(WITHDRAWN)
    .execute(db)
    .await?;
    Ok(())
}
