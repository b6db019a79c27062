//! Tables `policy_*`: immutable revisions, their components, which one serves each chain, and every change of state.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgExecutor, PgPool};

/// Everything that staging read, so that a revision can be staged again without its folder.
#[derive(Debug, Clone)]
pub struct StoredRevision {
    pub revision: String,
    pub chain_toml: String,
    /// Path → text, for settings.
    pub files: Value,
    /// Path → digest, for components.
    pub components: Value,
}

#[derive(Debug, Clone, sqlx::FromRow, serde::Serialize)]
pub struct Transition {
    pub id: i64,
    pub at: DateTime<Utc>,
    pub chain: String,
    pub revision: Option<String>,
    pub state: String,
    pub actor: String,
    pub reason: String,
}

/// Stores a revision with its components and makes it the chain's serving one, in one transaction.
pub async fn activate(
    pool: &PgPool,
    chain: &str,
    revision: &StoredRevision,
    wasm: &[(String, &[u8])],
    manifest: &Value,
    actor: &str,
    reason: &str,
) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    for (digest, bytes) in wasm {
        sqlx::query(
            "insert into policy_components (digest, wasm, size_bytes) values ($1, $2, $3) on conflict do nothing",
        )
        .bind(digest)
        .bind(*bytes)
        .bind(i64::try_from(bytes.len()).unwrap_or(i64::MAX))
        .execute(&mut *tx)
        .await?;
    }
    sqlx::query(
        "insert into policy_revisions (chain, revision, chain_toml, files, manifest) values ($1, $2, $3, $4, $5)
         on conflict do nothing",
    )
    .bind(chain)
    .bind(&revision.revision)
    .bind(&revision.chain_toml)
    .bind(serde_json::json!({ "settings": revision.files, "components": revision.components }))
    .bind(manifest)
    .execute(&mut *tx)
    .await?;
    let previous: Option<String> = sqlx::query_scalar("select revision from policy_active where chain = $1 for update")
        .bind(chain)
        .fetch_optional(&mut *tx)
        .await?;
    if previous.as_deref() != Some(revision.revision.as_str()) {
        sqlx::query(
            "insert into policy_active (chain, revision) values ($1, $2)
             on conflict (chain) do update set revision = $2, activated_at = now()",
        )
        .bind(chain)
        .bind(&revision.revision)
        .execute(&mut *tx)
        .await?;
        if let Some(previous) = &previous {
            transition(&mut *tx, chain, Some(previous), "retired", actor, "replaced").await?;
        }
        transition(&mut *tx, chain, Some(&revision.revision), "active", actor, reason).await?;
    }
    tx.commit().await
}

/// Notes a change of state.
pub async fn transition(
    db: impl PgExecutor<'_>,
    chain: &str,
    revision: Option<&str>,
    state: &str,
    actor: &str,
    reason: &str,
) -> sqlx::Result<()> {
    sqlx::query("insert into policy_transitions (chain, revision, state, actor, reason) values ($1, $2, $3, $4, $5)")
        .bind(chain)
        .bind(revision)
        .bind(state)
        .bind(actor)
        .bind(reason)
        .execute(db)
        .await?;
    Ok(())
}

/// The revision that last served a chain.
pub async fn last_good(pool: &PgPool, chain: &str) -> sqlx::Result<Option<StoredRevision>> {
    let row: Option<(String, String, Value)> = sqlx::query_as(
        "select r.revision, r.chain_toml, r.files from policy_active a
         join policy_revisions r on r.chain = a.chain and r.revision = a.revision where a.chain = $1",
    )
    .bind(chain)
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|(revision, chain_toml, mut files)| StoredRevision {
        revision,
        chain_toml,
        components: files["components"].take(),
        files: files["settings"].take(),
    }))
}

pub async fn component(pool: &PgPool, digest: &str) -> sqlx::Result<Option<Vec<u8>>> {
    sqlx::query_scalar("select wasm from policy_components where digest = $1").bind(digest).fetch_optional(pool).await
}

/// The newest changes of state, newest first.
pub async fn transitions(pool: &PgPool, chain: Option<&str>, limit: i64) -> sqlx::Result<Vec<Transition>> {
    sqlx::query_as("select * from policy_transitions where $1::text is null or chain = $1 order by id desc limit $2")
        .bind(chain)
        .bind(limit)
        .fetch_all(pool)
        .await
}
