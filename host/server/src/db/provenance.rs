//! Tables `policy_artifacts` and `policy_signatures`: what was pulled from registries, and what was signed.

use sqlx::{PgConnection, PgPool};

/// A component that was pulled.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Artifact {
    pub manifest: Vec<u8>,
    pub component_digest: String,
    pub wasm: Vec<u8>,
}

/// What was pulled under a manifest's digest, if anything was.
pub async fn artifact(pool: &PgPool, manifest_sha256: &str) -> sqlx::Result<Option<Artifact>> {
    sqlx::query_as(
        "select a.manifest, a.component_digest, c.wasm from policy_artifacts a
         join policy_components c on c.digest = a.component_digest where a.manifest_sha256 = $1",
    )
    .bind(manifest_sha256)
    .fetch_optional(pool)
    .await
}

/// Keeps what was pulled.
pub async fn keep_artifact(
    pool: &PgPool,
    manifest_sha256: &str,
    repository: &str,
    artifact: &Artifact,
) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::query("insert into policy_components (digest, wasm, size_bytes) values ($1, $2, $3) on conflict do nothing")
        .bind(&artifact.component_digest)
        .bind(&artifact.wasm)
        .bind(i64::try_from(artifact.wasm.len()).unwrap_or(i64::MAX))
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "insert into policy_artifacts (manifest_sha256, manifest, repository, component_digest)
         values ($1, $2, $3, $4) on conflict do nothing",
    )
    .bind(manifest_sha256)
    .bind(&artifact.manifest)
    .bind(repository)
    .bind(&artifact.component_digest)
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// The signatures of a component, as [`Evidence`](frontdesk_provenance::Evidence) in bytes.
pub async fn signatures(pool: &PgPool, component_digest: &str) -> sqlx::Result<Option<Vec<u8>>> {
    sqlx::query_scalar("select evidence from policy_signatures where component_digest = $1")
        .bind(component_digest)
        .fetch_optional(pool)
        .await
}

/// The same, in a transaction that nobody else passes with the same component until it ends.
pub async fn signatures_locked(tx: &mut PgConnection, component_digest: &str) -> sqlx::Result<Option<Vec<u8>>> {
    sqlx::query("select 1 from policy_components where digest = $1 for update")
        .bind(component_digest)
        .execute(&mut *tx)
        .await?;
    sqlx::query_scalar("select evidence from policy_signatures where component_digest = $1")
        .bind(component_digest)
        .fetch_optional(tx)
        .await
}

/// Replaces the signatures of a component that is stored; of one that is not, nothing is kept.
pub async fn set_signatures(tx: &mut PgConnection, component_digest: &str, evidence: &[u8]) -> sqlx::Result<()> {
    sqlx::query(
        "insert into policy_signatures (component_digest, evidence)
         select digest, $2 from policy_components where digest = $1
         on conflict (component_digest) do update set evidence = $2, found_at = now()",
    )
    .bind(component_digest)
    .bind(evidence)
    .execute(tx)
    .await?;
    Ok(())
}
