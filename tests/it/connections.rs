//! Connections that go from statement to statement.

use std::time::{Duration, Instant};

use frontdesk_server::db::lent::{Connections, Lent};
use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::database::fresh_database;

/// Longest wait for a connection to be back in its pool.
const PATIENCE: Duration = Duration::from_secs(10);

async fn server_process(lent: &mut Lent) -> i32 {
    sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut **lent).await.unwrap()
}

async fn until_idle(pool: &PgPool) {
    let begin = Instant::now();
    while pool.num_idle() == 0 {
        assert!(begin.elapsed() < PATIENCE, "no connection goes back to the pool");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_connection_is_lent_again_at_once_when_it_was_given_back_and_returns_to_its_pool_later() {
    let db = fresh_database().await;
    let pool = PgPoolOptions::new().max_connections(4).connect(&db.url).await.unwrap();
    let connections = Connections::new(pool.clone());

    let mut first = connections.take().await.unwrap();
    let process = server_process(&mut first).await;
    connections.give_back(first);
    assert_eq!((connections.kept(), pool.num_idle()), (1, 0), "it is kept, not returned");
    let mut again = connections.take().await.unwrap();
    assert_eq!(server_process(&mut again).await, process);

    connections.give_back(again);
    until_idle(&pool).await;
    assert_eq!(pool.size(), 1, "the pool has the one that it made");
}

#[tokio::test]
async fn one_that_was_dropped_goes_to_its_pool_and_nothing_is_kept_while_others_may_wait() {
    let db = fresh_database().await;
    let pool = PgPoolOptions::new().max_connections(4).connect(&db.url).await.unwrap();
    let connections = Connections::new(pool.clone());
    drop(connections.take().await.unwrap());
    assert_eq!(connections.kept(), 0, "it may have been cut off in the middle");

    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(connections.take().await.unwrap());
    }
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire().await.map(drop) }
    });
    connections.give_back(all.pop().unwrap());
    assert_eq!(connections.kept(), 0, "the pool has no other");
    tokio::time::timeout(PATIENCE, waiting).await.expect("whoever waits gets it").unwrap().unwrap();
    until_idle(&pool).await;
    connections.give_back(all.pop().unwrap());
    assert_eq!(connections.kept(), 1, "now it has");
}
