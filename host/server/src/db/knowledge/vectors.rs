//! Vectors of passages, and those that are remembered by content.

use chrono::{DateTime, Utc};
use pgvector::Vector;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use crate::knowledge::Slot;

/// Passages without a vector of this model.
pub async fn count_stale(pool: &PgPool, slot: Slot, model: &str) -> sqlx::Result<i64> {
    let statement = format!("select count(*) from passages where {} is distinct from $1", slot.model());
    sqlx::query_scalar(AssertSqlSafe(statement)).bind(model).fetch_one(pool).await
}

/// Whether any passage has a vector of this model.
pub async fn has_vectors(pool: &PgPool, slot: Slot, model: &str) -> sqlx::Result<bool> {
    let statement = format!("select exists (select 1 from passages where {} = $1)", slot.model());
    sqlx::query_scalar(AssertSqlSafe(statement)).bind(model).fetch_one(pool).await
}

/// A passage whose vector is missing or was made by another model.
#[derive(Debug, sqlx::FromRow)]
pub struct StalePassage {
    pub id: Uuid,
    pub title: String,
    pub heading: String,
    pub text: String,
    pub question: Option<String>,
}

pub async fn stale_passages(pool: &PgPool, slot: Slot, model: &str, limit: i64) -> sqlx::Result<Vec<StalePassage>> {
    let statement = format!(
        "select p.id, d.title, p.heading, p.text, p.question
           from passages p join documents d on d.id = p.document_id
          where p.{} is distinct from $1
          order by p.id limit $2",
        slot.model()
    );
    sqlx::query_as(AssertSqlSafe(statement)).bind(model).bind(limit).fetch_all(pool).await
}

pub async fn set_vectors(
    pool: &PgPool,
    slot: Slot,
    model: &str,
    ids: &[Uuid],
    vectors: &[Vector],
) -> sqlx::Result<u64> {
    let (vector, of_model) = (slot.vector(), slot.model());
    let statement = format!(
        "update passages p set {vector} = n.embedding, {of_model} = $1
           from unnest($2::uuid[], $3::vector[]) as n (id, embedding) where p.id = n.id"
    );
    let done = sqlx::query(AssertSqlSafe(statement)).bind(model).bind(ids).bind(vectors).execute(pool).await?;
    Ok(done.rows_affected())
}

/// Vectors of a model that are known already, by content hash. Marks them as used.
pub async fn cached_vectors(pool: &PgPool, model: &str, hashes: &[String]) -> sqlx::Result<Vec<(String, Vector)>> {
    sqlx::query_as(
        "update embedding_cache set used_at = now() where model = $1 and content_hash = any($2)
         returning content_hash, embedding",
    )
    .bind(model)
    .bind(hashes)
    .fetch_all(pool)
    .await
}

pub async fn cache_vectors(pool: &PgPool, model: &str, hashes: &[String], vectors: &[Vector]) -> sqlx::Result<()> {
    sqlx::query(
        "insert into embedding_cache (model, content_hash, embedding)
         select $1, n.content_hash, n.embedding from unnest($2::text[], $3::vector[]) as n (content_hash, embedding)
          order by 2
         on conflict do nothing",
    )
    .bind(model)
    .bind(hashes)
    .bind(vectors)
    .execute(pool)
    .await?;
    Ok(())
}

/// Forgets cached vectors that nothing has asked for since `before`. Returns how many.
pub async fn forget_cached_vectors(pool: &PgPool, before: DateTime<Utc>) -> sqlx::Result<u64> {
    let done = sqlx::query("delete from embedding_cache where used_at < $1").bind(before).execute(pool).await?;
    Ok(done.rows_affected())
}
