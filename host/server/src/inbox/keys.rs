//! The keys of the acknowledgement's path: each process makes one for some minutes, so that no delivery waits for the key of a person.
//!
//! ```text
//! made, stored --10 min--> not used any more --10 min--> refused by the statement that stores events --10 min, and no unread
//!    event needs it--> deleted
//! ```
//! The statement that stores events also looks whether the key still stands in the database and may be used: a process that stood
//! still for long seals again under a new one instead of storing what nobody could read. After the deletion nothing opens what
//! stood in the inbox then, in any copy of the database: what is kept is under its person's key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sqlx::PgConnection;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::db;
use crate::db::inbox::NewEvent;
use crate::keys::{Binding, Cipher, Keys, SealingKey, Wrapped};

const PURPOSE: &str = "inbox-key";
const PAYLOAD: &str = "inbox-payload";
/// How long a process uses one.
const USED: Duration = Duration::from_secs(600);
/// How long the database takes events under it, in minutes: longer than anybody uses it by mistake.
const TAKEN_MINUTES: i32 = 20;
/// Keys of others that are remembered.
const REMEMBERED_MAX: usize = 256;

/// A key with its id.
#[derive(Debug, Clone)]
pub struct InboxKey {
    pub id: Uuid,
    cipher: Arc<Cipher>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<(InboxKey, Instant, SystemTime)>,
    known: HashMap<Uuid, Arc<Cipher>>,
}

/// Makes keys, and finds those of others. Clones share them.
#[derive(Debug, Clone)]
pub struct InboxKeys {
    keys: Keys,
    state: Arc<Mutex<State>>,
}

impl InboxKeys {
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self { keys, state: Arc::default() }
    }

    /// The key to seal under now; a new one is stored first.
    ///
    /// # Errors
    /// When it cannot be made or stored.
    pub async fn current(&self, db: &mut PgConnection) -> sqlx::Result<InboxKey> {
        if let Some((key, since, wall)) = &self.state.lock().unwrap_or_else(PoisonError::into_inner).current
            && since.elapsed() < USED
            // The machine may have slept, which the first clock does not count.
            && wall.elapsed().is_ok_and(|elapsed| elapsed < USED)
        {
            return Ok(key.clone());
        }
        let id = Uuid::now_v7();
        let (key, wrapped) =
            self.keys.new_key(&binding(&[&id.to_string()])).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
        db::keys::insert_inbox_key(&mut *db, id, &wrapped, TAKEN_MINUTES).await?;
        let made = InboxKey { id, cipher: payload_cipher(&key)? };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.current = Some((made.clone(), Instant::now(), SystemTime::now()));
        Ok(made)
    }

    /// Makes the next delivery use a new key.
    pub fn retire(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).current = None;
    }

    /// Opens what some process sealed for the inbox. `None`: it does not open.
    ///
    /// # Errors
    /// When the key cannot be read.
    pub async fn open(
        &self,
        db: &mut PgConnection,
        key_id: &[u8],
        page_id: &str,
        psid: Option<&str>,
        sealed: &[u8],
    ) -> sqlx::Result<Option<Zeroizing<Vec<u8>>>> {
        let Ok(id) = Uuid::from_slice(key_id) else { return Ok(None) };
        let Some(cipher) = self.find(db, id).await? else {
            tracing::error!(key = %id, "an event was sealed under a key that is gone");
            return Ok(None);
        };
        let opened = cipher.open(&payload_binding(&[page_id, psid.unwrap_or_default()]), sealed);
        Ok(opened.inspect_err(|error| tracing::error!(%error, "a stored event does not open")).ok())
    }

    async fn find(&self, db: &mut PgConnection, id: Uuid) -> sqlx::Result<Option<Arc<Cipher>>> {
        {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let own = state.current.as_ref().filter(|(key, ..)| key.id == id).map(|(key, ..)| Arc::clone(&key.cipher));
            if let Some(cipher) = own.or_else(|| state.known.get(&id).cloned()) {
                return Ok(Some(cipher));
            }
        }
        let Some((key_id, sealed)) = db::keys::inbox_key(&mut *db, id).await? else { return Ok(None) };
        let wrapped = Wrapped { key_id, sealed };
        let key = self.keys.open_key(&binding(&[&id.to_string()]), &wrapped);
        let cipher = payload_cipher(&key.map_err(|error| sqlx::Error::Decode(Box::new(error)))?)?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.known.len() >= REMEMBERED_MAX {
            state.known.clear();
        }
        state.known.insert(id, Arc::clone(&cipher));
        Ok(Some(cipher))
    }

    /// Wraps the keys again under the current key-encryption key, at most `limit`. Returns how many.
    ///
    /// # Errors
    /// See [`crate::keys::KeyError`].
    pub async fn rewrap(keys: &Keys, pool: &sqlx::PgPool, limit: i64) -> Result<u64, crate::keys::KeyError> {
        let mut tx = pool.begin().await?;
        let stored = db::keys::inbox_keys_not_under(&mut *tx, keys.ring().current(), limit).await?;
        for (id, key_id, sealed) in &stored {
            let wrapped = Wrapped { key_id: key_id.clone(), sealed: sealed.clone() };
            let again = keys.ring().rewrap(&binding(&[&id.to_string()]), &wrapped)?;
            db::keys::rewrap_inbox_key(&mut *tx, *id, &again).await?;
        }
        tx.commit().await?;
        Ok(stored.len() as u64)
    }
}

impl InboxKey {
    /// An event's payload as `inbox.sealed` holds it.
    ///
    /// # Errors
    /// When the system's random numbers fail.
    pub fn seal(&self, event: &NewEvent) -> sqlx::Result<Vec<u8>> {
        let place = [event.page_id.as_str(), event.psid.as_deref().unwrap_or_default()];
        self.cipher
            .seal(&payload_binding(&place), self.id.as_bytes(), event.payload.as_bytes())
            .map_err(|error| sqlx::Error::Encode(error.into()))
    }
}

fn payload_cipher(key: &SealingKey) -> sqlx::Result<Arc<Cipher>> {
    key.derived(PAYLOAD).cipher().map(Arc::new).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

fn binding<'a>(ids: &'a [&'a str]) -> Binding<'a> {
    Binding { purpose: PURPOSE, version: 1, ids }
}

fn payload_binding<'a>(ids: &'a [&'a str]) -> Binding<'a> {
    Binding { purpose: PAYLOAD, version: 1, ids }
}
