//! Moving old records to their sealed form, and deleting those whose time is over.
//!
//! Both go in small transactions. Moving is done by one process at a time (a lease), is taken up again after a crash, and
//! ends when no row holds its record itself any more.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Place, mask, seal};
use crate::app::App;
use crate::db;
use crate::db::decisions::NewRecord;
use crate::keys::{KeyError, Keys};
use crate::queue::pause;

/// Records moved in one transaction.
const BATCH: i64 = 50;
const BETWEEN: Duration = Duration::from_millis(100);
/// A batch that failed is tried again after this.
const AFTER_FAILURE: Duration = Duration::from_secs(60);
const LEASE: &str = "records-upkeep";
const LEASE_MS: i64 = 300_000;
/// A record that is on its way for so long is not coming.
const LOST_AFTER_MINUTES: i32 = 15;

/// Starts moving what older versions wrote into the decisions' own rows. Ends by itself.
pub fn start_upkeep(app: &Arc<App>, tasks: &TaskTracker, stop: &CancellationToken) {
    tasks.spawn(move_inline(Arc::clone(app), stop.clone()));
}

async fn move_inline(app: Arc<App>, stop: CancellationToken) {
    let mut wait = Duration::from_millis(rand::rng().random_range(100..=2_000));
    while pause(wait, &stop).await {
        wait = match db::leases::take(&app.pool, LEASE, &app.replica, LEASE_MS).await {
            Ok(true) => match move_batch(&app.pool, &app.keys).await {
                Ok(0) => {
                    let _ = db::leases::release(&app.pool, LEASE, &app.replica).await;
                    return;
                }
                Ok(_) => BETWEEN,
                Err(error) => {
                    tracing::error!(%error, "older decision records could not be encrypted; it is tried again");
                    AFTER_FAILURE
                }
            },
            Ok(false) => AFTER_FAILURE,
            Err(error) => {
                tracing::debug!(%error, "the lease for older decision records could not be asked for");
                AFTER_FAILURE
            }
        };
    }
}

/// Seals some records that stand in their decisions' rows. Returns how many.
async fn move_batch(pool: &sqlx::PgPool, keys: &Keys) -> Result<usize, MoveError> {
    let mut tx = pool.begin().await?;
    let rows = db::decisions::lock_inline(&mut *tx, BATCH).await?;
    let mut people: Vec<(String, String)> = rows.iter().map(|row| (row.page_id.clone(), row.psid.clone())).collect();
    people.sort();
    people.dedup();
    let opened = keys.person_keys(&mut tx, &people).await?;
    let mut records = Vec::with_capacity(rows.len());
    for row in &rows {
        let Some(key) = opened.get(&(row.page_id.clone(), row.psid.clone())) else { continue };
        let json = zeroize::Zeroizing::new(row.record.to_string().into_bytes());
        let place = Place { page_id: &row.page_id, psid: &row.psid, turn_id: row.turn_id };
        records.push(NewRecord {
            turn_id: row.turn_id,
            version: row.record_version,
            sealed: seal(key, &place, row.record_version, &json)?,
            masked: mask::masked(&row.record),
        });
    }
    db::decisions::insert_records(&mut tx, &records).await?;
    tx.commit().await?;
    Ok(rows.len())
}

#[derive(Debug, thiserror::Error)]
enum MoveError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Deletes some records that are older than `keep_days`, and notes those that never came. Returns how many were touched.
pub async fn prune(pool: &sqlx::PgPool, keep_days: i32) -> sqlx::Result<u64> {
    let lost = db::decisions::mark_lost(pool, LOST_AFTER_MINUTES).await?;
    if lost > 0 {
        metrics::counter!("frontdesk_records_total", "result" => "lost").increment(lost);
        tracing::warn!(records = lost, "decision records never came; the process that had them ended");
    }
    Ok(lost + db::decisions::expire(pool, keep_days).await?)
}
