//! One vector index for each embedding model.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, PgExecutor, PgPool};

use super::{LOCK_INDEX, quoted};
use crate::knowledge::{KnowledgeError, Slot};

/// Breadth of the search for neighbours when a vector is added, twice pgvector's own: several processes build at once, and which
/// neighbours they find differs from build to build, most where many vectors are near each other. An index that stands keeps its own.
const EF_CONSTRUCTION: u32 = 128;
/// How long a replica waits for another one that builds the vector index.
const INDEX_WAIT: Duration = Duration::from_secs(1_800);
const INDEX_POLL: Duration = Duration::from_millis(250);

/// Name of a model's vector index: made of a hash, because names are short and models are called anything.
fn index_name(slot: Slot, model: &str, dimensions: usize) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(format!("{model}\n{dimensions}").as_bytes());
    let name = hex::encode(digest.get(..8).unwrap_or_default());
    match slot {
        Slot::A => format!("passages_hnsw_{name}"),
        Slot::B => format!("passages_hnsw_b_{name}"),
    }
}

/// Makes the vector index of a model unless it is there. True: it was built by this call.
///
/// The advisory lock is only ever tried, never waited for: a session that waits for a lock holds a snapshot, and
/// `create index concurrently` in the session that has the lock would wait for that snapshot, a deadlock.
pub async fn ensure_index(pool: &PgPool, slot: Slot, model: &str, dimensions: usize) -> Result<bool, KnowledgeError> {
    let name = index_name(slot, model, dimensions);
    let mut waited = Duration::ZERO;
    loop {
        if index_is_valid(pool, &name).await? == Some(true) {
            return Ok(false);
        }
        let mut connection = pool.acquire().await?.detach();
        let locked: bool = sqlx::query_scalar("select pg_try_advisory_lock($1, 0)")
            .bind(LOCK_INDEX)
            .fetch_one(&mut connection)
            .await?;
        if locked {
            // The detached connection closes at the end whatever happens, and the session's lock goes with it. Another
            // replica may have finished between the look above and the lock, hence a second look inside.
            let built = build_unless_valid(&mut connection, &name, slot, model, dimensions).await;
            let closed = sqlx::Connection::close(connection).await;
            let built = built?;
            closed?;
            return Ok(built);
        }
        sqlx::Connection::close(connection).await?;
        if waited >= INDEX_WAIT {
            return Err(KnowledgeError::IndexBusy { waited_s: waited.as_secs() });
        }
        tokio::time::sleep(INDEX_POLL).await;
        waited += INDEX_POLL;
    }
}

/// `None`: there is no such index; false: a build was interrupted and left a useless one.
async fn index_is_valid(executor: impl PgExecutor<'_>, name: &str) -> sqlx::Result<Option<bool>> {
    sqlx::query_scalar("select i.indisvalid from pg_index i where i.indexrelid = to_regclass($1)")
        .bind(name)
        .fetch_optional(executor)
        .await
}

async fn build_unless_valid(
    connection: &mut PgConnection,
    name: &str,
    slot: Slot,
    model: &str,
    dimensions: usize,
) -> sqlx::Result<bool> {
    if index_is_valid(&mut *connection, name).await? == Some(true) {
        return Ok(false);
    }
    let drop = format!("drop index concurrently if exists {name}");
    sqlx::query(AssertSqlSafe(drop)).execute(&mut *connection).await?;
    let (vector, of_model, model) = (slot.vector(), slot.model(), quoted(model));
    let create = format!(
        "create index concurrently {name} on passages
         using hnsw (({vector}::halfvec({dimensions})) halfvec_cosine_ops) with (ef_construction = {EF_CONSTRUCTION})
         where {of_model} = {model}"
    );
    sqlx::query(AssertSqlSafe(create)).execute(connection).await?;
    Ok(true)
}
