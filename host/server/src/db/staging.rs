//! One connection inside one transaction, as a pool: what is done through it is seen by nobody else until [`commit`].
//!
//! A transaction that is begun in it becomes a savepoint of it. The server ends the transaction when nothing happens for a while.

use sqlx::Connection;
use sqlx::postgres::{PgPool, PgPoolOptions};

/// Questions to a slow model may keep the transaction idle for as long as this.
const SESSION: &str = "select set_config('idle_in_transaction_session_timeout', '300s', false), \
    set_config('jit', 'off', false)";

/// The pool, and the id of the transaction that it is in.
pub async fn begin(pool: &PgPool) -> sqlx::Result<(PgPool, String)> {
    let staged = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .after_connect(|connection, _| {
            Box::pin(async move {
                sqlx::query(SESSION).execute(&mut *connection).await?;
                // The connection counts how deep it is in transactions; forgetting the guard leaves it one deep for good.
                std::mem::forget(connection.begin().await?);
                Ok(())
            })
        })
        .connect_with(PgPool::connect_options(pool).as_ref().clone())
        .await?;
    let id = current(&staged).await?;
    Ok((staged, id))
}

/// Makes everything that was done visible, unless the connection (and all of it) was lost meanwhile.
pub async fn commit(staged: PgPool, id: &str) -> sqlx::Result<()> {
    // A lost connection was replaced by one in a transaction of its own, without the change.
    if current(&staged).await? != id {
        let lost = "the connection of a staged change was lost, and the change with it; make it again";
        return Err(sqlx::Error::Protocol(lost.to_owned()));
    }
    let mut connection = staged.acquire().await?;
    sqlx::raw_sql("commit").execute(&mut *connection).await?;
    drop(connection);
    staged.close().await;
    Ok(())
}

/// Takes everything back. So does dropping the pool, when its connection is closed.
pub async fn undo(staged: PgPool) -> sqlx::Result<()> {
    let mut connection = staged.acquire().await?;
    sqlx::raw_sql("rollback").execute(&mut *connection).await?;
    drop(connection);
    staged.close().await;
    Ok(())
}

async fn current(staged: &PgPool) -> sqlx::Result<String> {
    sqlx::query_scalar("select pg_current_xact_id()::text").fetch_one(staged).await
}
