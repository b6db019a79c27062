//! Table `document_versions`, and what `documents` says of a document as a whole.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use crate::keys::Wrapped;

/// A stored document as an upload compares itself with it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Known {
    pub id: Uuid,
    pub content_hash: String,
    pub fingerprint: String,
    pub passages: i64,
}

pub async fn find(pool: &PgPool, page_id: Option<&str>, source: &str) -> sqlx::Result<Option<Known>> {
    sqlx::query_as(
        "select id, content_hash, fingerprint,
                (select count(*) from passages p where p.document_id = documents.id) as passages
           from documents where coalesce(page_id, '') = coalesce($1, '') and source = $2",
    )
    .bind(page_id)
    .bind(source)
    .fetch_optional(pool)
    .await
}

/// The same passages came of another file, or of the same file by other rules.
pub async fn set_fingerprint(pool: &PgPool, document_id: Uuid, fingerprint: &str) -> sqlx::Result<()> {
    sqlx::query("update documents set fingerprint = $2 where id = $1")
        .bind(document_id)
        .bind(fingerprint)
        .execute(pool)
        .await?;
    Ok(())
}

/// A version as it is written.
#[derive(Debug)]
pub struct NewVersion<'a> {
    pub object_key: &'a str,
    pub raw_sha256: &'a str,
    pub size_bytes: i64,
    pub format: &'a str,
    pub wrapped: &'a Wrapped,
    pub originals: Option<&'a [u8]>,
    pub created_by: &'a str,
    /// A job holds the object; it is no garbage that would have to be claimed.
    pub is_held: bool,
    /// Versions that stay; older ones go.
    pub keep: i32,
}

/// Writes a document's newest version and lets go of the oldest ones.
pub async fn insert_version(db: &mut PgConnection, document_id: Uuid, new: &NewVersion<'_>) -> sqlx::Result<()> {
    sqlx::query(
        "insert into document_versions (document_id, version, object_key, raw_sha256, size_bytes, format, key_id, wrapped,
                                        originals, created_by)
         select d.id, d.version, $2, $3, $4, $5, $6, $7, $8, $9 from documents d where d.id = $1",
    )
    .bind(document_id)
    .bind(new.object_key)
    .bind(new.raw_sha256)
    .bind(new.size_bytes)
    .bind(new.format)
    .bind(&new.wrapped.key_id)
    .bind(&new.wrapped.sealed)
    .bind(new.originals)
    .bind(new.created_by)
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "delete from document_versions v using documents d
          where d.id = $1 and v.document_id = d.id and v.version <= d.version - $2",
    )
    .bind(document_id)
    .bind(new.keep)
    .execute(db)
    .await?;
    Ok(())
}

/// A version as listings show it.
#[derive(Debug, Clone, serde::Serialize, sqlx::FromRow)]
pub struct Version {
    pub version: i32,
    pub raw_sha256: String,
    pub size_bytes: i64,
    pub format: String,
    pub has_originals: bool,
    pub created_by: String,
    pub created_at: DateTime<Utc>,
}

pub async fn versions(pool: &PgPool, document_id: Uuid) -> sqlx::Result<Vec<Version>> {
    sqlx::query_as(
        "select version, raw_sha256, size_bytes, format, originals is not null as has_originals, created_by, created_at
           from document_versions where document_id = $1 order by version desc",
    )
    .bind(document_id)
    .fetch_all(pool)
    .await
}

/// What is sealed of a version.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Sealed {
    pub version: i32,
    pub object_key: String,
    pub format: String,
    pub key_id: String,
    pub wrapped: Vec<u8>,
    pub originals: Option<Vec<u8>>,
}

/// Of this version, or of the newest.
pub async fn sealed(pool: &PgPool, document_id: Uuid, version: Option<i32>) -> sqlx::Result<Option<Sealed>> {
    sqlx::query_as(
        "select version, object_key, format, key_id, wrapped, originals from document_versions
          where document_id = $1 and ($2::int is null or version = $2) order by version desc limit 1",
    )
    .bind(document_id)
    .bind(version)
    .fetch_optional(pool)
    .await
}

/// A wrapped data key, by the object that it belongs to.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct StoredKey {
    pub id: Uuid,
    pub object_key: String,
    pub key_id: String,
    pub wrapped: Vec<u8>,
}

/// Some data keys that another key than `current` wraps, locked; those that another process holds are passed over.
pub async fn keys_not_under(db: impl PgExecutor<'_>, current: &str, limit: i64) -> sqlx::Result<Vec<StoredKey>> {
    sqlx::query_as(
        "select id, object_key, key_id, wrapped from document_versions where key_id <> $1
         order by id limit $2 for update skip locked",
    )
    .bind(current)
    .bind(limit)
    .fetch_all(db)
    .await
}

pub async fn replace_key(db: impl PgExecutor<'_>, id: Uuid, wrapped: &Wrapped) -> sqlx::Result<()> {
    sqlx::query("update document_versions set key_id = $2, wrapped = $3 where id = $1")
        .bind(id)
        .bind(&wrapped.key_id)
        .bind(&wrapped.sealed)
        .execute(db)
        .await?;
    Ok(())
}
