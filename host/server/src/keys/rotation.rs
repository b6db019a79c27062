//! Wraps everything again under the current key, a batch at a time.
//!
//! Each batch is a transaction of its own that locks its rows and passes over rows that others hold, so a rotation can be
//! stopped, repeated, and run twice at once, beside a host that works. It is complete when nothing is left under another key;
//! only then may an old key be taken out of FRONTDESK_KEYS.

use sqlx::PgPool;

use super::{KeyError, Keys, Wrapped, person_binding};
use crate::db;
use crate::inbox::InboxKeys;
use crate::knowledge::archive;
use crate::pages;
use crate::privacy::erasure;
use crate::tickets;

/// Data keys in one transaction.
const BATCH: i64 = 500;

/// Wraps all again; `progress` hears the number done so far. Returns that number.
///
/// # Errors
/// See [`KeyError`]; what was done until then stays done.
pub async fn rotate(keys: &Keys, pool: &PgPool, mut progress: impl FnMut(u64)) -> Result<u64, KeyError> {
    let mut done = 0;
    loop {
        let batch = rotate_batch(keys, pool).await?
            + pages::rewrap_tokens(keys, pool, BATCH).await?
            + erasure::rewrap_subjects(keys, pool, BATCH).await?
            + InboxKeys::rewrap(keys, pool, BATCH).await?
            + tickets::rewrap_notices(keys, pool, BATCH).await?
            + archive::rewrap_document_keys(keys, pool, BATCH).await?;
        if batch == 0 {
            return Ok(done);
        }
        done += batch;
        progress(done);
    }
}

async fn rotate_batch(keys: &Keys, pool: &PgPool) -> Result<u64, KeyError> {
    let mut tx = pool.begin().await?;
    let mut stored = db::keys::not_under(&mut *tx, keys.ring().current(), BATCH).await?;
    for key in &mut stored {
        let wrapped = Wrapped { key_id: std::mem::take(&mut key.key_id), sealed: std::mem::take(&mut key.wrapped) };
        let again = keys.ring().rewrap(&person_binding(&[&key.page_id, &key.psid]), &wrapped)?;
        (key.key_id, key.wrapped) = (again.key_id, again.sealed);
    }
    if !stored.is_empty() {
        db::keys::replace(&mut *tx, &stored).await?;
    }
    tx.commit().await?;
    Ok(u64::try_from(stored.len()).unwrap_or(u64::MAX))
}
