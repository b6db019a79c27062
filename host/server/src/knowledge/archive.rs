//! What is kept of a document beside its passages: the file as it came, and what was taken out of its text.
//!
//! Each version of a document has a data key of its own, wrapped like a person's (see [`crate::keys`]). It seals the raw file,
//! which goes to the object store, and the originals behind the text's placeholders, which stay in the row. Deleting the
//! row deletes the key; the object follows (see [`crate::objects`]), and is noise from that moment on.

use sqlx::PgPool;
use zeroize::Zeroizing;

use super::redact::Originals;
use crate::db::{documents, jobs};
use crate::keys::{Binding, KeyError, Keys, OpenError, SealingKey, Wrapped};
use crate::objects::{ObjectError, Objects};

const DATA_KEY: &str = "document-key";
const RAW: &str = "document-raw";
const ORIGINALS: &str = "document-originals";

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("what was taken out of the document cannot be read: {source}")]
    Originals {
        #[source]
        source: serde_json::Error,
    },
}

/// Keeps raw files and originals, and gives them back.
#[derive(Debug, Clone)]
pub struct Archive {
    objects: Objects,
    keys: Keys,
}

/// A raw file in the object store, and the key of everything of its version.
#[derive(Debug, Clone)]
pub struct Kept {
    pub object_key: String,
    pub wrapped: Wrapped,
    key: SealingKey,
}

impl Archive {
    #[must_use]
    pub fn new(objects: Objects, keys: Keys) -> Self {
        Self { objects, keys }
    }

    /// Seals a file under a new key and puts it. The transaction that stores its version claims it.
    pub async fn keep(&self, raw: &[u8]) -> Result<Kept, ArchiveError> {
        let key = SealingKey::random()?;
        // The object's name is not known before it is put, so the file is bound to its key alone, which no other has.
        let sealed = key.derived(RAW).seal(&binding(RAW, &[]), raw)?;
        let object_key = self.objects.put(sealed).await?;
        let wrapped = self.keys.ring().wrap(&key_binding(&[&object_key]), key.bytes())?;
        Ok(Kept { object_key, wrapped, key })
    }

    /// What a row says of a kept file, opened.
    pub fn reopen(&self, object_key: &str, wrapped: &Wrapped) -> Result<Kept, ArchiveError> {
        let bytes = self.keys.ring().unwrap(&key_binding(&[object_key]), wrapped)?;
        let key = SealingKey::from_slice(&bytes)?;
        Ok(Kept { object_key: object_key.to_owned(), wrapped: wrapped.clone(), key })
    }

    /// The file as it came.
    pub async fn raw(&self, kept: &Kept) -> Result<Zeroizing<Vec<u8>>, ArchiveError> {
        let sealed = self.objects.get(&kept.object_key).await?;
        Ok(kept.key.derived(RAW).open(&binding(RAW, &[]), &sealed)?)
    }
}

impl Kept {
    /// `None`: nothing was taken out.
    pub fn seal_originals(&self, originals: &Originals) -> Result<Option<Vec<u8>>, ArchiveError> {
        if originals.is_empty() {
            return Ok(None);
        }
        let json = serde_json::to_vec(originals).map_err(|source| ArchiveError::Originals { source })?;
        let json = Zeroizing::new(json);
        let ids = [self.object_key.as_str()];
        Ok(Some(self.key.derived(ORIGINALS).seal(&binding(ORIGINALS, &ids), &json)?))
    }

    pub fn open_originals(&self, sealed: &[u8]) -> Result<Originals, ArchiveError> {
        let ids = [self.object_key.as_str()];
        let json = self.key.derived(ORIGINALS).open(&binding(ORIGINALS, &ids), sealed)?;
        serde_json::from_slice(&json).map_err(|source| ArchiveError::Originals { source })
    }
}

fn binding<'a>(purpose: &'static str, ids: &'a [&'a str]) -> Binding<'a> {
    Binding { purpose, version: 1, ids }
}

/// What binds a wrapped data key to its object.
pub(crate) fn key_binding<'a>(ids: &'a [&'a str]) -> Binding<'a> {
    binding(DATA_KEY, ids)
}

/// Wraps data keys of documents, and of files that jobs hold, again under the current key, at most `limit`. Returns how many.
pub(crate) async fn rewrap_document_keys(keys: &Keys, pool: &PgPool, limit: i64) -> Result<u64, KeyError> {
    let mut tx = pool.begin().await?;
    let stored = documents::keys_not_under(&mut *tx, keys.ring().current(), limit).await?;
    for key in &stored {
        let wrapped = Wrapped { key_id: key.key_id.clone(), sealed: key.wrapped.clone() };
        let again = keys.ring().rewrap(&key_binding(&[&key.object_key]), &wrapped)?;
        documents::replace_key(&mut *tx, key.id, &again).await?;
    }
    let held = jobs::keys_not_under(&mut *tx, keys.ring().current(), limit).await?;
    for key in &held {
        let wrapped = Wrapped { key_id: key.key_id.clone(), sealed: key.wrapped.clone() };
        let again = keys.ring().rewrap(&key_binding(&[&key.object_key]), &wrapped)?;
        jobs::replace_key(&mut *tx, key.id, &again).await?;
    }
    tx.commit().await?;
    Ok((stored.len() + held.len()) as u64)
}
