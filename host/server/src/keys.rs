//! Envelope encryption: what is kept about people, and the tokens of Pages, is unreadable without a key that is not in the
//! database.
//!
//! ```text
//! key-encryption key (FRONTDESK_KEYS, or a 0600 file)      never in the database
//!    |-- wraps --> data key of a person (person_keys)       one per Page and person, made on first use
//!    |                 `-- seals --> decision records, texts, events (crate::words)
//!    |-- wraps --> inbox key (inbox_keys)                one per process, for minutes: seals events until they are read
//!    `-- wraps --> access token of a Page (page_tokens)
//! ```
//!
//! # What holds
//! - **AES-256-GCM-SIV** (RFC 8452) with random nonces: a nonce that comes twice reveals only that two texts are equal.
//! - **Each use has its own key**: HKDF-SHA256 of the key above it, with the purpose as its info.
//! - **A ciphertext belongs to its row.** The associated data names purpose, format version and the row's ids, so a value that
//!   somebody copies into another row, or an old one put back under another version, does not open.
//! - **Several key-encryption keys may be held**; each wrapped value says the id of its own. The first one wraps. A rotation
//!   (`frontdesk keys rotate`) wraps the data keys again, a batch at a time; the sealed data itself is not touched.
//! - **Deleting a person's data key ends the data**: nothing else opens it. For backups, see "Erasure" in `ARCHITECTURE.md`.
//! - **A database remembers which keys it was given** (`encryption_keys`, by id and a check value that tells nothing of the key).
//!   A process that holds none of them does not start: two replicas with a key each would soon lose what the other wrote.
//! - Keys are wiped from memory when dropped, and no `Debug` shows one.

mod ring;
mod rotation;
mod seal;
mod source;

use sqlx::PgPool;

use crate::db;

pub use ring::{KeyId, KeyRing, Wrapped};
pub use rotation::rotate;
pub use seal::{Binding, Cipher, OpenError, SealingKey};
pub use source::{KEYS_FILE, obtain};

/// Purpose of a wrapped person key.
const PERSON_KEY: &str = "person-key";

/// Why there are no usable keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(
        "FRONTDESK_KEYS, line {line}: {problem}; expected lines of the form id:key, as `frontdesk keys new` prints them"
    )]
    Unreadable { line: usize, problem: String },
    #[error("FRONTDESK_KEYS holds the key id {id} twice; each key has its own id")]
    Twice { id: String },
    #[error("FRONTDESK_KEYS holds no key; make one with `frontdesk keys new`")]
    Empty,
    #[error("the key file {path} cannot be {action}: {source}")]
    File {
        path: std::path::PathBuf,
        action: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the key file {path} may be read by others (mode {mode:o}); make it private with `chmod 600`, and think of a \
         rotation (`frontdesk keys new`)"
    )]
    Exposed { path: std::path::PathBuf, mode: u32 },
    #[error(
        "no encryption key: FRONTDESK_KEYS is not set and keys.generate is false; make one with `frontdesk keys new` and \
         give it to every replica (FRONTDESK_KEYS, or FRONTDESK_KEYS_FILE with a path)"
    )]
    None,
    #[error(
        "this database is encrypted under the key(s) {needed}, and this process holds only {held}; give it the same \
         FRONTDESK_KEYS as the other replicas (or the key file of the host that was here before)"
    )]
    Foreign { needed: String, held: String },
    #[error(
        "the key {id} is not the one that this database was encrypted under by that name; look for the right FRONTDESK_KEYS"
    )]
    OtherKeySameId { id: String },
    #[error("the encryption keys cannot be checked against the database: {source}")]
    Database {
        #[from]
        source: sqlx::Error,
    },
    #[error("the system's random numbers failed")]
    Random,
    #[error("the key {id}, under which this value is wrapped, is not among FRONTDESK_KEYS")]
    Missing { id: String },
    #[error(transparent)]
    Open {
        #[from]
        source: OpenError,
    },
}

/// The key of one person of one Page.
#[derive(Debug, Clone)]
pub struct PersonKey(SealingKey);

impl PersonKey {
    /// Seals for one purpose. The purpose is part of the binding and of the key.
    ///
    /// # Errors
    /// [`OpenError::Sealing`] when the system's random numbers fail.
    pub fn seal(&self, binding: &Binding<'_>, plain: &[u8]) -> Result<Vec<u8>, OpenError> {
        self.0.derived(binding.purpose).seal(binding, plain)
    }

    /// Opens what [`PersonKey::seal`] made under the same binding.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&self, binding: &Binding<'_>, sealed: &[u8]) -> Result<zeroize::Zeroizing<Vec<u8>>, OpenError> {
        self.0.derived(binding.purpose).open(binding, sealed)
    }
}

/// The keys of a process and the wrapped ones in its database.
#[derive(Debug, Clone)]
pub struct Keys {
    ring: std::sync::Arc<KeyRing>,
}

impl Keys {
    /// Registers the keys with the database, or finds that it belongs to others.
    ///
    /// # Errors
    /// [`KeyError::Foreign`] and [`KeyError::OtherKeySameId`] when this process could not read what is there.
    pub async fn open(ring: KeyRing, pool: &PgPool) -> Result<Self, KeyError> {
        let mut tx = pool.begin().await?;
        db::keys::lock_registry(&mut *tx).await?;
        let known = db::keys::registered(&mut *tx).await?;
        let held = |id: &str| ring.check_value(id);
        for (id, check) in &known {
            if held(id).is_some_and(|value| value[..] != check[..]) {
                return Err(KeyError::OtherKeySameId { id: id.clone() });
            }
        }
        let in_use = db::keys::in_use(&mut *tx).await?;
        let missing: Vec<String> = in_use.into_iter().filter(|id| held(id).is_none()).collect();
        let is_stranger = !known.is_empty() && known.iter().all(|(id, _)| held(id).is_none());
        if is_stranger || !missing.is_empty() {
            let needed = if missing.is_empty() { known.into_iter().map(|(id, _)| id).collect() } else { missing };
            return Err(KeyError::Foreign { needed: needed.join(", "), held: ring.ids().join(", ") });
        }
        for id in ring.ids() {
            if let Some(value) = ring.check_value(&id) {
                db::keys::register(&mut *tx, &id, &value).await?;
            }
        }
        tx.commit().await?;
        Ok(Self { ring: std::sync::Arc::new(ring) })
    }

    /// For wrapping single values, such as tokens.
    #[must_use]
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Keys without a database, for tests of what they seal.
    #[cfg(test)]
    pub(crate) fn of_ring(ring: KeyRing) -> Self {
        Self { ring: std::sync::Arc::new(ring) }
    }

    /// A new data key, with its wrapped form for the database.
    ///
    /// # Errors
    /// When the system's random numbers fail.
    pub fn new_key(&self, binding: &Binding<'_>) -> Result<(SealingKey, Wrapped), KeyError> {
        let key = SealingKey::random().map_err(|_| KeyError::Random)?;
        let wrapped = self.ring.wrap(binding, key.bytes())?;
        Ok((key, wrapped))
    }

    /// A data key from its wrapped form.
    ///
    /// # Errors
    /// When the key-encryption key is not held, or the value is not this binding's.
    pub fn open_key(&self, binding: &Binding<'_>, wrapped: &Wrapped) -> Result<SealingKey, KeyError> {
        Ok(SealingKey::from_slice(&self.ring.unwrap(binding, wrapped)?)?)
    }

    /// A new key for a person, with its wrapped form for the database.
    ///
    /// # Errors
    /// When the system's random numbers fail.
    pub fn new_person_key(&self, page_id: &str, psid: &str) -> Result<(PersonKey, Wrapped), KeyError> {
        let (key, wrapped) = self.new_key(&person_binding(&[page_id, psid]))?;
        Ok((PersonKey(key), wrapped))
    }

    /// A person's key from its wrapped form.
    ///
    /// # Errors
    /// When the key-encryption key is not held, or the value is not this person's.
    pub fn person_key(&self, page_id: &str, psid: &str, wrapped: &Wrapped) -> Result<PersonKey, KeyError> {
        Ok(PersonKey(self.open_key(&person_binding(&[page_id, psid]), wrapped)?))
    }

    /// Makes the key of a person who has none. `None`: another replica was faster, and what stands in the table counts.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn make_person_key(
        &self,
        db: &mut sqlx::PgConnection,
        page_id: &str,
        psid: &str,
    ) -> Result<Option<PersonKey>, KeyError> {
        let (key, wrapped) = self.new_person_key(page_id, psid)?;
        Ok(db::keys::insert(&mut *db, page_id, psid, &wrapped).await?.then_some(key))
    }

    /// The keys of these people, made where there are none yet. In the caller's transaction, so that a key is never used
    /// that an erasure has deleted.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn person_keys(
        &self,
        db: &mut sqlx::PgConnection,
        people: &[(String, String)],
    ) -> Result<std::collections::HashMap<(String, String), PersonKey>, KeyError> {
        let mut stored = db::keys::of_people(&mut *db, people).await?;
        let has = |stored: &[db::keys::StoredKey], person: &(String, String)| {
            stored.iter().any(|key| key.page_id == person.0 && key.psid == person.1)
        };
        let mut keys = std::collections::HashMap::new();
        let mut lost_race = false;
        for person in people {
            if !has(&stored, person) && !keys.contains_key(person) {
                match self.make_person_key(db, &person.0, &person.1).await? {
                    Some(key) => drop(keys.insert(person.clone(), key)),
                    None => lost_race = true,
                }
            }
        }
        if lost_race {
            stored = db::keys::of_people(&mut *db, people).await?;
        }
        for key in stored {
            let wrapped = Wrapped { key_id: key.key_id, sealed: key.wrapped };
            let opened = self.person_key(&key.page_id, &key.psid, &wrapped)?;
            keys.insert((key.page_id, key.psid), opened);
        }
        Ok(keys)
    }
}

/// What binds a wrapped person key to its row.
pub(crate) fn person_binding<'a>(ids: &'a [&'a str]) -> Binding<'a> {
    Binding { purpose: PERSON_KEY, version: 1, ids }
}
