//! Table `object_garbage`: keys of objects that nothing uses, or nothing uses yet.

use sqlx::{PgExecutor, PgPool};

/// Says that an object is about to be put: it goes after so many seconds, unless somebody claims it.
pub async fn announce(pool: &PgPool, key: &str, unused_max_s: i64) -> sqlx::Result<()> {
    sqlx::query("insert into object_garbage (object_key, due_at) values ($1, now() + $2 * interval '1 second')")
        .bind(key)
        .bind(unused_max_s)
        .execute(pool)
        .await?;
    Ok(())
}

/// Begins to use an object, in the transaction that names it. False: it is gone already, or somebody else's.
pub async fn claim(db: impl PgExecutor<'_>, key: &str) -> sqlx::Result<bool> {
    let done = sqlx::query("delete from object_garbage where object_key = $1").bind(key).execute(db).await?;
    Ok(done.rows_affected() == 1)
}

/// Gives up an object that nothing has claimed.
pub async fn abandon(pool: &PgPool, key: &str) -> sqlx::Result<()> {
    sqlx::query("update object_garbage set due_at = now() where object_key = $1").bind(key).execute(pool).await?;
    Ok(())
}

/// Some keys whose time has come, locked against a claim; those that another replica deletes are passed over.
pub async fn due(db: impl PgExecutor<'_>, limit: i64) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "select object_key from object_garbage where due_at <= now() order by due_at limit $1 for update skip locked",
    )
    .bind(limit)
    .fetch_all(db)
    .await
}

pub async fn forget(db: impl PgExecutor<'_>, keys: &[String]) -> sqlx::Result<()> {
    sqlx::query("delete from object_garbage where object_key = any($1)").bind(keys).execute(db).await?;
    Ok(())
}

/// How many objects wait to be deleted now.
pub async fn count_due(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from object_garbage where due_at <= now()").fetch_one(pool).await
}
