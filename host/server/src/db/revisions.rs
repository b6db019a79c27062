//! Tables `policy_*`: immutable revisions, their components, what folders brought in, and every change of state. Which
//! revision is in which place of a chain is in [`super::rollouts`].

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, PgPool};

/// Everything that staging read, so that a revision can be staged again without its folder.
#[derive(Debug, Clone)]
pub struct StoredRevision {
    pub revision: String,
    pub chain_toml: String,
    /// Path → text, for settings.
    pub files: Value,
    /// Path → digest, for components.
    pub components: Value,
    /// Path → text, for golden cases.
    pub cases: Value,
}

/// A revision as lists show it.
#[derive(Debug, Clone, sqlx::FromRow, serde::Serialize)]
pub struct RevisionRow {
    pub chain: String,
    pub revision: String,
    /// `staged`, `shadow`, `canary`, `active`, `retired`, `rejected` or `quarantined`.
    pub state: String,
    pub state_since: DateTime<Utc>,
    pub published_by: String,
    pub created_at: DateTime<Utc>,
    /// What the gate found last.
    pub gate: Option<Value>,
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
    /// What a folder held, for a candidate that never became a revision.
    pub content_sha256: Option<String>,
}

/// Stores a revision with its components, in state `staged` when it is new. One that is stored already stays as it is: what
/// is no part of its id changes with [`renew`], once the gate has let it.
pub async fn store(
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
    let is_new: Option<bool> = sqlx::query_scalar(
        "insert into policy_revisions (chain, revision, chain_toml, files, manifest, cases, state, published_by)
         values ($1, $2, $3, $4, $5, $6, 'staged', $7)
         on conflict (chain, revision) do nothing returning true",
    )
    .bind(chain)
    .bind(&revision.revision)
    .bind(&revision.chain_toml)
    .bind(serde_json::json!({ "settings": revision.files, "components": revision.components }))
    .bind(manifest)
    .bind(&revision.cases)
    .bind(actor)
    .fetch_optional(&mut *tx)
    .await?;
    if is_new.is_some() {
        note(&mut tx, chain, Some(&revision.revision), "staged", actor, reason, None).await?;
    }
    tx.commit().await
}

/// Gives a stored revision the golden cases, thresholds and file names that its chain has now: they are no part of its id.
/// Of one that serves customers they change only when the gate has let them (`may_serve`). Gives whether its `chain.toml` is
/// another one now, which may set other thresholds.
pub async fn renew(
    tx: &mut PgConnection,
    chain: &str,
    revision: &StoredRevision,
    may_serve: bool,
) -> sqlx::Result<bool> {
    let before: Option<String> = sqlx::query_scalar(
        "select chain_toml from policy_revisions
          where chain = $1 and revision = $2 and ($3 or state not in ('active', 'canary')) for update",
    )
    .bind(chain)
    .bind(&revision.revision)
    .bind(may_serve)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(before) = before else { return Ok(false) };
    sqlx::query(
        "update policy_revisions set cases = $3, chain_toml = $4, files = $5 where chain = $1 and revision = $2
            and (cases, chain_toml, files) is distinct from ($3, $4, $5)",
    )
    .bind(chain)
    .bind(&revision.revision)
    .bind(&revision.cases)
    .bind(&revision.chain_toml)
    .bind(serde_json::json!({ "settings": revision.files, "components": revision.components }))
    .execute(tx)
    .await?;
    Ok(before != revision.chain_toml)
}

/// The `chain.toml` of a stored revision.
pub async fn chain_toml(pool: &PgPool, chain: &str, revision: &str) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("select chain_toml from policy_revisions where chain = $1 and revision = $2")
        .bind(chain)
        .bind(revision)
        .fetch_optional(pool)
        .await
}

/// Whether a revision is quarantined; its row stays locked until the end of the transaction.
pub async fn is_quarantined(tx: &mut PgConnection, chain: &str, revision: &str) -> sqlx::Result<bool> {
    let state: Option<String> =
        sqlx::query_scalar("select state from policy_revisions where chain = $1 and revision = $2 for update")
            .bind(chain)
            .bind(revision)
            .fetch_optional(tx)
            .await?;
    Ok(state.as_deref() == Some("quarantined"))
}

/// Whether a revision was ever the active one of its chain.
pub async fn has_served(pool: &PgPool, chain: &str, revision: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "select exists (select 1 from policy_transitions where chain = $1 and revision = $2 and state = 'active')",
    )
    .bind(chain)
    .bind(revision)
    .fetch_one(pool)
    .await
}

/// Gives a revision another state, and notes who did it and why.
pub async fn set_state(
    tx: &mut PgConnection,
    chain: &str,
    revision: &str,
    state: &str,
    actor: &str,
    reason: &str,
) -> sqlx::Result<()> {
    sqlx::query("update policy_revisions set state = $3, state_since = now() where chain = $1 and revision = $2")
        .bind(chain)
        .bind(revision)
        .bind(state)
        .execute(&mut *tx)
        .await?;
    note(tx, chain, Some(revision), state, actor, reason, None).await
}

async fn note(
    tx: &mut PgConnection,
    chain: &str,
    revision: Option<&str>,
    state: &str,
    actor: &str,
    reason: &str,
    content_sha256: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into policy_transitions (chain, revision, state, actor, reason, content_sha256)
         values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(chain)
    .bind(revision)
    .bind(state)
    .bind(actor)
    .bind(reason)
    .bind(content_sha256)
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes that a candidate was refused, unless that is the chain's newest note already: every replica with the same folder
/// finds the same.
pub async fn note_rejected(
    pool: &PgPool,
    chain: &str,
    content_sha256: Option<&str>,
    actor: &str,
    reason: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into policy_transitions (chain, state, actor, reason, content_sha256)
         select $1, 'rejected', $2, $3, $4
          where not exists (
            select 1 from (select * from policy_transitions where chain = $1 order by id desc limit 1) newest
             where newest.state = 'rejected' and newest.reason = $3
               and newest.content_sha256 is not distinct from $4)",
    )
    .bind(chain)
    .bind(actor)
    .bind(reason)
    .bind(content_sha256)
    .execute(pool)
    .await?;
    Ok(())
}

/// What the gate found about a revision; a failed one is `rejected` unless it is in service.
pub async fn set_gate(pool: &PgPool, chain: &str, revision: &str, verdict: &Value) -> sqlx::Result<()> {
    sqlx::query("update policy_revisions set gate = $3 where chain = $1 and revision = $2")
        .bind(chain)
        .bind(revision)
        .bind(verdict)
        .execute(pool)
        .await?;
    Ok(())
}

/// Marks a revision that is in no place of its chain, and never served, as rejected; gives whether it was not so before. One
/// that served stays what it is: going back to it needs no gate.
pub async fn reject(pool: &PgPool, chain: &str, revision: &str, actor: &str, reason: &str) -> sqlx::Result<bool> {
    let mut tx = pool.begin().await?;
    let changed = sqlx::query(
        "update policy_revisions set state = 'rejected', state_since = now()
          where chain = $1 and revision = $2 and state in ('staged', 'retired')
            and not exists (select 1 from policy_transitions t
                             where t.chain = $1 and t.revision = $2 and t.state = 'active')",
    )
    .bind(chain)
    .bind(revision)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if changed > 0 {
        note(&mut tx, chain, Some(revision), "rejected", actor, reason, None).await?;
    }
    tx.commit().await?;
    Ok(changed > 0)
}

const COLUMNS: &str = "chain, revision, state, state_since, published_by, created_at, gate";

/// One revision, by its id.
pub async fn find(pool: &PgPool, chain: &str, revision: &str) -> sqlx::Result<Option<RevisionRow>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {COLUMNS} from policy_revisions where chain = $1 and revision = $2"
    )))
    .bind(chain)
    .bind(revision)
    .fetch_optional(pool)
    .await
}

/// The revisions of a chain whose id begins so; more than one when the beginning is too short. At most two.
pub async fn beginning_with(pool: &PgPool, chain: &str, prefix: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("select revision from policy_revisions where chain = $1 and starts_with(revision, $2) limit 2")
        .bind(chain)
        .bind(prefix)
        .fetch_all(pool)
        .await
}

/// The newest revisions, by their last change of state.
pub async fn list(pool: &PgPool, chain: Option<&str>, limit: i64) -> sqlx::Result<Vec<RevisionRow>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {COLUMNS} from policy_revisions where $1::text is null or chain = $1
         order by state_since desc, revision limit $2"
    )))
    .bind(chain)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// The revision that served before another one did, quarantined ones left out.
pub async fn served_before(pool: &PgPool, chain: &str, revision: &str, not: &str) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar(
        "select t.revision from policy_transitions t
           join policy_revisions r on r.chain = t.chain and r.revision = t.revision and r.state = 'retired'
          where t.chain = $1 and t.state = 'active' and t.revision not in ($2, $3)
            and t.id < (select min(id) from policy_transitions
                         where chain = $1 and state = 'active' and revision = $2)
          order by t.id desc limit 1",
    )
    .bind(chain)
    .bind(revision)
    .bind(not)
    .fetch_optional(pool)
    .await
}

/// Everything that staging a revision needs, but the bytes of its components.
pub async fn stored(pool: &PgPool, chain: &str, revision: &str) -> sqlx::Result<Option<StoredRevision>> {
    let row: Option<(String, Value, Value)> =
        sqlx::query_as("select chain_toml, files, cases from policy_revisions where chain = $1 and revision = $2")
            .bind(chain)
            .bind(revision)
            .fetch_optional(pool)
            .await?;
    Ok(row.map(|(chain_toml, mut files, cases)| StoredRevision {
        revision: revision.to_owned(),
        chain_toml,
        components: files["components"].take(),
        files: files["settings"].take(),
        cases,
    }))
}

pub async fn component(pool: &PgPool, digest: &str) -> sqlx::Result<Option<Vec<u8>>> {
    sqlx::query_scalar("select wasm from policy_components where digest = $1").bind(digest).fetch_optional(pool).await
}

pub async fn has_component(pool: &PgPool, digest: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("select exists(select 1 from policy_components where digest = $1)")
        .bind(digest)
        .fetch_one(pool)
        .await
}

/// What was staged last and waits.
pub async fn newest_staged(pool: &PgPool, chain: &str) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar(
        "select revision from policy_revisions where chain = $1 and state = 'staged'
          order by state_since desc, revision limit 1",
    )
    .bind(chain)
    .fetch_optional(pool)
    .await
}

/// Lets a quarantined revision be used again; gives whether it was quarantined.
pub async fn lift_quarantine(
    pool: &PgPool,
    chain: &str,
    revision: &str,
    actor: &str,
    reason: &str,
) -> sqlx::Result<bool> {
    let mut tx = pool.begin().await?;
    let changed = sqlx::query(
        "update policy_revisions set state = 'retired', state_since = now()
          where chain = $1 and revision = $2 and state = 'quarantined'",
    )
    .bind(chain)
    .bind(revision)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if changed > 0 {
        note(&mut tx, chain, Some(revision), "retired", actor, reason, None).await?;
        let detail = serde_json::json!({ "revision": revision, "reason": reason });
        super::audit::write(&mut *tx, actor, "policy.unquarantine", chain, detail).await?;
    }
    tx.commit().await?;
    Ok(changed > 0)
}

/// The newest changes of state, newest first.
pub async fn transitions(pool: &PgPool, chain: Option<&str>, limit: i64) -> sqlx::Result<Vec<Transition>> {
    sqlx::query_as("select * from policy_transitions where $1::text is null or chain = $1 order by id desc limit $2")
        .bind(chain)
        .bind(limit)
        .fetch_all(pool)
        .await
}

/// What folders brought in: the content that came last, and whether this content came at any time.
pub async fn publications(
    db: impl PgExecutor<'_>,
    chain: &str,
    content_sha256: &str,
) -> sqlx::Result<(Option<String>, bool)> {
    sqlx::query_as(
        "select (select content_sha256 from policy_publications where chain = $1
                  order by published_at desc, content_sha256 limit 1),
                exists (select 1 from policy_publications where chain = $1 and content_sha256 = $2)",
    )
    .bind(chain)
    .bind(content_sha256)
    .fetch_one(db)
    .await
}

/// Notes that a folder brought in this content.
pub async fn published(
    db: impl PgExecutor<'_>,
    chain: &str,
    content_sha256: &str,
    revision: &str,
    actor: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into policy_publications (chain, content_sha256, revision, published_by) values ($1, $2, $3, $4)
         on conflict (chain, content_sha256) do update
            set published_at = clock_timestamp(), published_by = $4, revision = $3",
    )
    .bind(chain)
    .bind(content_sha256)
    .bind(revision)
    .bind(actor)
    .execute(db)
    .await?;
    Ok(())
}
