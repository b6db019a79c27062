//! Table `messages`: the conversation as people read it. Texts and payloads are sealed, and opened by [`crate::words`] alone.

use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

/// A message about to be stored.
#[derive(Debug, Clone)]
pub struct NewMessage<'a> {
    pub conversation_id: Uuid,
    pub mid: &'a str,
    pub author: &'a str,
    pub source: &'a str,
    pub text: &'a str,
    pub payload: Option<&'a str>,
    pub attachments: Vec<&'a str>,
    pub sent_at: DateTime<Utc>,
    pub outbox_id: Option<Uuid>,
}

#[derive(Debug, Clone, PartialEq, sqlx::FromRow, serde::Serialize)]
pub struct StoredMessage {
    pub id: i64,
    #[serde(skip)]
    pub conversation_id: Uuid,
    pub mid: String,
    pub author: String,
    pub source: String,
    pub text: String,
    pub payload: Option<String>,
    pub attachments: Vec<String>,
    pub sent_at: DateTime<Utc>,
    pub turn_id: Option<Uuid>,
    pub edited_at: Option<DateTime<Utc>>,
    pub deleted_at: Option<DateTime<Utc>>,
}

const COLUMNS: &str =
    "id, conversation_id, mid, author, source, text, payload, attachments, sent_at, turn_id, edited_at, deleted_at";

/// Stores a message once; a repetition, or one that was unsent meanwhile, changes nothing. False: it was unsent before it
/// came, so nothing of its content may be kept anywhere.
pub async fn insert(db: impl PgExecutor<'_>, message: &NewMessage<'_>) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "insert into messages (conversation_id, mid, author, source, text, payload, attachments, sent_at, outbox_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         on conflict (conversation_id, mid) do update set
           outbox_id = coalesce(messages.outbox_id, excluded.outbox_id),
           sent_at = least(messages.sent_at, excluded.sent_at)
         returning deleted_at is null",
    )
    .bind(message.conversation_id)
    .bind(message.mid)
    .bind(message.author)
    .bind(message.source)
    .bind(message.text)
    .bind(message.payload)
    .bind(&message.attachments)
    .bind(message.sent_at)
    .bind(message.outbox_id)
    .fetch_one(db)
    .await
}

/// The id that a sent row has in the transcript as long as Meta's is not known.
pub fn mid_of_row(outbox_id: Uuid) -> String {
    format!("outbox-{outbox_id}")
}

/// Gives a sent row's message Meta's id, once that is known; unless the echo was faster and has brought the message itself.
pub async fn learn_mid(db: impl PgExecutor<'_>, conversation_id: Uuid, outbox_id: Uuid, mid: &str) -> sqlx::Result<()> {
    sqlx::query(
        "update messages set mid = $3 where conversation_id = $1 and mid = $2
           and not exists (select 1 from messages known where known.conversation_id = $1 and known.mid = $3)",
    )
    .bind(conversation_id)
    .bind(mid_of_row(outbox_id))
    .bind(mid)
    .execute(db)
    .await?;
    Ok(())
}

/// Changes the text of an edited message. An edit that overtook its message stores the message with the new text. False: the
/// message was withdrawn, or edited later than this.
pub async fn edit(
    db: impl PgExecutor<'_>,
    conversation_id: Uuid,
    mid: &str,
    author: &str,
    text: &str,
    at: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "insert into messages (conversation_id, mid, author, text, sent_at, edited_at)
         values ($1, $2, $5, $3, $4, $4)
         on conflict (conversation_id, mid) do update set text = $3, edited_at = $4
         where messages.deleted_at is null and (messages.edited_at is null or messages.edited_at <= $4)",
    )
    .bind(conversation_id)
    .bind(mid)
    .bind(text)
    .bind(at)
    .bind(author)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// When the customer first wrote at or after a time; taps on buttons and forms are not written.
pub async fn first_written_since(
    db: impl PgExecutor<'_>,
    conversation_id: Uuid,
    at: DateTime<Utc>,
) -> sqlx::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar(
        "select min(sent_at) from messages
         where conversation_id = $1 and author = 'customer' and source in ('text', 'quick-reply') and sent_at >= $2
           and deleted_at is null",
    )
    .bind(conversation_id)
    .bind(at)
    .fetch_one(db)
    .await
}

/// Erases an unsent message. The row stays (or is made, when the unsend overtook the message), so that a late copy of the
/// message cannot bring the text back.
pub async fn unsend(db: impl PgExecutor<'_>, conversation_id: Uuid, mid: &str, at: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query(
        "insert into messages (conversation_id, mid, author, sent_at, deleted_at) values ($1, $2, 'customer', $3, $3)
         on conflict (conversation_id, mid)
         do update set text = '', payload = null, attachments = '{}', deleted_at = $3",
    )
    .bind(conversation_id)
    .bind(mid)
    .bind(at)
    .execute(db)
    .await?;
    Ok(())
}

/// A message of a turn, or one before it.
#[derive(Debug, Clone, sqlx::FromRow)]
struct TurnMessage {
    #[sqlx(flatten)]
    message: StoredMessage,
    is_asked: bool,
}

/// What a turn is about: the messages with these ids that still have content; and the latest `history_max` others. Both in order.
pub async fn of_turn(
    db: impl PgExecutor<'_>,
    conversation_id: Uuid,
    mids: &[String],
    history_max: i64,
) -> sqlx::Result<(Vec<StoredMessage>, Vec<StoredMessage>)> {
    let found: Vec<TurnMessage> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "(select {COLUMNS}, true as is_asked from messages
           where conversation_id = $1 and mid = any($2) and deleted_at is null)
         union all
         (select {COLUMNS}, false as is_asked from messages
           where conversation_id = $1 and deleted_at is null and not (mid = any($2))
           order by sent_at desc, id desc limit $3)
         order by sent_at, id"
    )))
    .bind(conversation_id)
    .bind(mids)
    .bind(history_max)
    .fetch_all(db)
    .await?;
    let (asked, before): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| found.is_asked);
    let messages = |found: Vec<TurnMessage>| found.into_iter().map(|found| found.message).collect();
    Ok((messages(asked), messages(before)))
}

/// What a ticket's reader is shown: the latest messages with content up to a time, oldest first.
pub async fn shown_until(
    db: impl PgExecutor<'_>,
    conversation_id: Uuid,
    until: Option<DateTime<Utc>>,
    limit: i64,
) -> sqlx::Result<Vec<StoredMessage>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select * from (select {COLUMNS} from messages
           where conversation_id = $1 and deleted_at is null and ($2::timestamptz is null or sent_at <= $2)
           order by sent_at desc, id desc limit $3) latest order by sent_at, id"
    )))
    .bind(conversation_id)
    .bind(until)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// All messages of a conversation, oldest first, at most `limit` of the latest.
pub async fn transcript(pool: &PgPool, conversation_id: Uuid, limit: i64) -> sqlx::Result<Vec<StoredMessage>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select * from (select {COLUMNS} from messages where conversation_id = $1
           order by sent_at desc, id desc limit $2) latest order by sent_at, id"
    )))
    .bind(conversation_id)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Whether a message is known as something else than this outbox row: another row's, or a person's own words.
pub async fn belongs_to_another(
    db: impl PgExecutor<'_>,
    conversation_id: Uuid,
    mid: &str,
    outbox_id: Uuid,
) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "select exists (select 1 from messages where conversation_id = $1 and mid = $2
           and outbox_id is distinct from $3)",
    )
    .bind(conversation_id)
    .bind(mid)
    .bind(outbox_id)
    .fetch_one(db)
    .await
}

/// Whether a message was unsent.
pub async fn is_deleted(db: impl PgExecutor<'_>, conversation_id: Uuid, mid: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "select exists (select 1 from messages where conversation_id = $1 and mid = $2 and deleted_at is not null)",
    )
    .bind(conversation_id)
    .bind(mid)
    .fetch_one(db)
    .await
}
