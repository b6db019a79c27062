//! Tables `encryption_keys`, `person_keys` and `inbox_keys`: which keys the database was given, and the wrapped data keys.

use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use crate::keys::Wrapped;

/// Key of the advisory lock under which a process compares its keys with the registered ones.
const REGISTRY_LOCK: i64 = 0x6674_6b65_7973;

/// A person's key as stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct StoredKey {
    pub page_id: String,
    pub psid: String,
    pub key_id: String,
    pub wrapped: Vec<u8>,
}

/// Until the end of the transaction nobody else registers.
pub async fn lock_registry(db: impl PgExecutor<'_>) -> sqlx::Result<()> {
    sqlx::query("select pg_advisory_xact_lock($1)").bind(REGISTRY_LOCK).execute(db).await?;
    Ok(())
}

/// Ids and check values of the keys that this database has been given.
pub async fn registered(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<(String, Vec<u8>)>> {
    sqlx::query_as("select key_id, check_value from encryption_keys order by first_seen_at, key_id").fetch_all(db).await
}

/// Ids of the keys without which something cannot be read.
pub async fn in_use(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "select key_id from encryption_keys e
         where exists (select 1 from person_keys p where p.key_id = e.key_id)
            or exists (select 1 from page_tokens t where t.key_id = e.key_id)
            or exists (select 1 from erasures r where r.key_id = e.key_id)
            or exists (select 1 from inbox_keys i where i.key_id = e.key_id)
            or exists (select 1 from ticket_deliveries d where d.key_id = e.key_id)
            or exists (select 1 from document_versions v where v.key_id = e.key_id)
            or exists (select 1 from ingest_jobs j where j.key_id = e.key_id and j.object_key is not null)
         order by key_id",
    )
    .fetch_all(db)
    .await
}

pub async fn register(db: impl PgExecutor<'_>, key_id: &str, check_value: &[u8]) -> sqlx::Result<()> {
    sqlx::query("insert into encryption_keys (key_id, check_value) values ($1, $2) on conflict do nothing")
        .bind(key_id)
        .bind(check_value)
        .execute(db)
        .await?;
    Ok(())
}

/// How many values each key wraps: of people, of tokens, of requests to erase, of the inbox, of
/// notices to a CRM, of documents. Keys that wrap nothing are there too.
pub async fn usage(pool: &PgPool) -> sqlx::Result<Vec<(String, i64)>> {
    sqlx::query_as(
        "select e.key_id, (select count(*) from person_keys p where p.key_id = e.key_id)
                         + (select count(*) from page_tokens t where t.key_id = e.key_id)
                         + (select count(*) from erasures r where r.key_id = e.key_id)
                         + (select count(*) from inbox_keys i where i.key_id = e.key_id)
                         + (select count(*) from ticket_deliveries d where d.key_id = e.key_id)
                         + (select count(*) from document_versions v where v.key_id = e.key_id)
                         + (select count(*) from ingest_jobs j where j.key_id = e.key_id and j.object_key is not null)
         from encryption_keys e order by e.first_seen_at, e.key_id",
    )
    .fetch_all(pool)
    .await
}

/// The keys of these people that exist, locked against an erasure until the transaction ends.
pub async fn of_people(db: impl PgExecutor<'_>, people: &[(String, String)]) -> sqlx::Result<Vec<StoredKey>> {
    let (pages, psids): (Vec<&str>, Vec<&str>) =
        people.iter().map(|(page, psid)| (page.as_str(), psid.as_str())).unzip();
    sqlx::query_as(
        "select k.page_id, k.psid, k.key_id, k.wrapped from person_keys k
         join unnest($1::text[], $2::text[]) as p (page_id, psid) on p.page_id = k.page_id and p.psid = k.psid
         for share of k",
    )
    .bind(pages)
    .bind(psids)
    .fetch_all(db)
    .await
}

/// A conversation with its person's key, if there is one.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct ConversationKey {
    pub conversation_id: Uuid,
    pub page_id: String,
    pub psid: String,
    pub key_id: Option<String>,
    pub wrapped: Option<Vec<u8>>,
    /// False for a key that this very transaction may have made.
    pub is_committed: bool,
}

/// The people of these conversations, with their keys.
pub async fn of_conversations(db: impl PgExecutor<'_>, ids: &[Uuid]) -> sqlx::Result<Vec<ConversationKey>> {
    sqlx::query_as(
        "select c.id as conversation_id, c.page_id, c.psid, k.key_id, k.wrapped,
                coalesce(k.created_at < now(), false) as is_committed
         from conversations c left join person_keys k on k.page_id = c.page_id and k.psid = c.psid
         where c.id = any($1)",
    )
    .bind(ids)
    .fetch_all(db)
    .await
}

/// Stores a key of the inbox, under which events are taken for `taken_minutes`.
pub async fn insert_inbox_key(
    db: impl PgExecutor<'_>,
    id: Uuid,
    wrapped: &Wrapped,
    taken_minutes: i32,
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into inbox_keys (id, key_id, wrapped, used_until) values ($1, $2, $3, now() + make_interval(mins => $4))",
    )
    .bind(id)
    .bind(&wrapped.key_id)
    .bind(&wrapped.sealed)
    .bind(taken_minutes)
    .execute(db)
    .await?;
    Ok(())
}

/// A key of the inbox as stored: the id of its key-encryption key, and itself.
pub async fn inbox_key(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<Option<(String, Vec<u8>)>> {
    sqlx::query_as("select key_id, wrapped from inbox_keys where id = $1").bind(id).fetch_optional(db).await
}

/// Some keys of the inbox that another key than `current` wraps, locked.
pub async fn inbox_keys_not_under(
    db: impl PgExecutor<'_>,
    current: &str,
    limit: i64,
) -> sqlx::Result<Vec<(Uuid, String, Vec<u8>)>> {
    sqlx::query_as(
        "select id, key_id, wrapped from inbox_keys where key_id <> $1 order by id limit $2 for update skip locked",
    )
    .bind(current)
    .bind(limit)
    .fetch_all(db)
    .await
}

pub async fn rewrap_inbox_key(db: impl PgExecutor<'_>, id: Uuid, wrapped: &Wrapped) -> sqlx::Result<()> {
    sqlx::query("update inbox_keys set key_id = $2, wrapped = $3 where id = $1")
        .bind(id)
        .bind(&wrapped.key_id)
        .bind(&wrapped.sealed)
        .execute(db)
        .await?;
    Ok(())
}

/// Deletes keys of the inbox that nobody has used for a while and no unread event needs. The first bytes of `inbox.sealed` name the
/// key; `uuid_send` gives an id's sixteen bytes.
pub async fn delete_dead_inbox_keys(db: impl PgExecutor<'_>) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "delete from inbox_keys k where used_until < now() - interval '10 minutes'
           and not exists (select 1 from inbox i where i.state = 'pending' and substring(i.sealed from 1 for 16) = uuid_send(k.id))",
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Stores a person's key, unless there is one. True: it is this one.
pub async fn insert(db: impl PgExecutor<'_>, page_id: &str, psid: &str, wrapped: &Wrapped) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "insert into person_keys (page_id, psid, key_id, wrapped) values ($1, $2, $3, $4) on conflict do nothing",
    )
    .bind(page_id)
    .bind(psid)
    .bind(&wrapped.key_id)
    .bind(&wrapped.sealed)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Some keys of people that another key than `current` wraps, locked; those that another process holds are passed over.
pub async fn not_under(db: impl PgExecutor<'_>, current: &str, limit: i64) -> sqlx::Result<Vec<StoredKey>> {
    sqlx::query_as(
        "select page_id, psid, key_id, wrapped from person_keys where key_id <> $1
         order by page_id, psid limit $2 for update skip locked",
    )
    .bind(current)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Puts wrapped keys in the place of others.
pub async fn replace(db: impl PgExecutor<'_>, keys: &[StoredKey]) -> sqlx::Result<()> {
    let column = |f: fn(&StoredKey) -> &str| keys.iter().map(f).collect::<Vec<&str>>();
    sqlx::query(
        "update person_keys k set key_id = n.key_id, wrapped = n.wrapped
         from unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) as n (page_id, psid, key_id, wrapped)
         where k.page_id = n.page_id and k.psid = n.psid",
    )
    .bind(column(|key| &key.page_id))
    .bind(column(|key| &key.psid))
    .bind(column(|key| &key.key_id))
    .bind(keys.iter().map(|key| key.wrapped.as_slice()).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

/// Shreds a person's key. True when there was one.
pub async fn delete(db: impl PgExecutor<'_>, page_id: &str, psid: &str) -> sqlx::Result<bool> {
    let done = sqlx::query("delete from person_keys where page_id = $1 and psid = $2")
        .bind(page_id)
        .bind(psid)
        .execute(db)
        .await?;
    Ok(done.rows_affected() > 0)
}
