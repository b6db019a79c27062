//! Connections for the statements of turns, which follow each other within milliseconds.
//!
//! A connection that goes back to its pool is tested twice, by us and by sqlx: two round trips for each use, several times a
//! turn. One that was given back in order, with nothing half done on it, needs no test to be used again at once. So it is kept
//! here for [`KEPT_FOR`], and then goes back to the pool, with the tests. One that is dropped instead (an error, work that was cut
//! off) goes there directly. Nothing is kept while others may be waiting for the pool.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};

use super::FRESH;

/// As long as a connection counts as tested.
const KEPT_FOR: std::time::Duration = FRESH;

/// Lends a pool's connections. Clones share what is kept.
#[derive(Debug, Clone)]
pub struct Connections {
    pool: PgPool,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Each with the time since when.
    connections: Vec<(PoolConnection<Postgres>, Instant)>,
    /// Somebody looks after those that nobody takes.
    is_watched: bool,
}

/// A connection; dropped, it goes back to its pool.
#[derive(Debug)]
pub struct Lent(PoolConnection<Postgres>);

impl Connections {
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool, kept: Arc::default() }
    }

    /// One that was just in use, else one of the pool's.
    ///
    /// # Errors
    /// The pool's.
    pub async fn take(&self) -> sqlx::Result<Lent> {
        let kept = self.lock().connections.pop();
        match kept {
            Some((connection, since)) if since.elapsed() < KEPT_FOR => Ok(Lent(connection)),
            _ => Ok(Lent(self.pool.acquire().await?)),
        }
    }

    /// Takes back one on which everything ended in order: no transaction is open, and every answer was read.
    pub fn give_back(&self, lent: Lent) {
        let max = self.pool.options().get_max_connections();
        if self.pool.size() >= max && self.pool.num_idle() == 0 {
            // Somebody may be waiting.
            return;
        }
        let mut kept = self.lock();
        if kept.connections.len() >= usize::try_from(max / 4).unwrap_or(0) {
            return;
        }
        kept.connections.push((lent.0, Instant::now()));
        if !std::mem::replace(&mut kept.is_watched, true) {
            tokio::spawn(return_old(Arc::clone(&self.kept)));
        }
    }

    /// How many wait to be lent again.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.lock().connections.len()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns to the pool what nobody has taken for a while, until nothing is left.
async fn return_old(kept: Arc<Mutex<Kept>>) {
    loop {
        tokio::time::sleep(KEPT_FOR).await;
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.connections.retain(|(_, since)| since.elapsed() < KEPT_FOR);
        if kept.connections.is_empty() {
            kept.is_watched = false;
            return;
        }
    }
}

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}
