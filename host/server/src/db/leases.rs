//! Table `leases`: work that one process at a time does, such as asking Meta about every Page.

use sqlx::{PgExecutor, PgPool};

/// Takes or renews a lease for `lease_ms`. False: another process holds it.
pub async fn take(db: impl PgExecutor<'_>, name: &str, holder: &str, lease_ms: i64) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "insert into leases as l (name, holder, until) values ($1, $2, now() + $3 * interval '1 millisecond')
         on conflict (name) do update set holder = excluded.holder, until = excluded.until
         where l.holder = excluded.holder or l.until < now()",
    )
    .bind(name)
    .bind(holder)
    .bind(lease_ms)
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Gives a lease back, if it is still ours.
pub async fn release(pool: &PgPool, name: &str, holder: &str) -> sqlx::Result<()> {
    sqlx::query("delete from leases where name = $1 and holder = $2").bind(name).bind(holder).execute(pool).await?;
    Ok(())
}
