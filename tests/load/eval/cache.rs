//! Remembers vectors, so that the measures of one run embed every text once and all see the same numbers. With a folder they
//! outlive the run: an evaluation that was stopped goes on where it was, and one of a changed ranking embeds nothing.
//!
//! The folder has one file per model. A record is the SHA-256 of purpose and text, then the vector's numbers (f32, little-endian);
//! what a stop left of the last record is cut off.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use frontdesk_server::knowledge::{Calibration, EmbedError, Embedder, Purpose};
use futures::FutureExt;
use futures::future::BoxFuture;
use sha2::{Digest, Sha256};

const KEY_BYTES: usize = 32;
const NUMBER_BYTES: usize = 4;

type Key = [u8; KEY_BYTES];

#[derive(Debug)]
pub struct Remembering {
    inner: Arc<dyn Embedder>,
    known: Mutex<HashMap<Key, Vec<f32>>>,
    file: Option<Mutex<File>>,
}

impl Remembering {
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn new(inner: Arc<dyn Embedder>, folder: Option<&Path>) -> Result<Self> {
        let Some(folder) = folder else { return Ok(Self { inner, known: Mutex::default(), file: None }) };
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let path = folder.join(format!("{}.vectors", inner.model_id()));
        let open = || -> Result<(HashMap<Key, Vec<f32>>, File)> {
            let mut file = File::options().read(true).append(true).create(true).open(&path)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let record = KEY_BYTES + inner.dimensions() * NUMBER_BYTES;
            file.set_len((bytes.len() - bytes.len() % record) as u64)?;
            Ok((bytes.chunks_exact(record).filter_map(read_record).collect(), file))
        };
        let (known, file) = open().with_context(|| format!("{} cannot be read and written", path.display()))?;
        Ok(Self { inner, known: Mutex::new(known), file: Some(Mutex::new(file)) })
    }

    fn look(&self, key: &Key) -> Option<Vec<f32>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn keep(&self, made: Vec<(Key, Vec<f32>)>) -> std::io::Result<()> {
        if let Some(file) = &self.file {
            let mut bytes = Vec::new();
            for (key, vector) in &made {
                bytes.extend_from_slice(key);
                vector.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
            }
            file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes)?;
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).extend(made);
        Ok(())
    }
}

fn key(text: &str, purpose: Purpose) -> Key {
    let purpose: &[u8] = if purpose == Purpose::Query { b"q" } else { b"p" };
    Sha256::new().chain_update(purpose).chain_update(text).finalize().into()
}

fn read_record(record: &[u8]) -> Option<(Key, Vec<f32>)> {
    let (key, numbers) = record.split_first_chunk::<KEY_BYTES>()?;
    let (numbers, _) = numbers.as_chunks::<NUMBER_BYTES>();
    Some((*key, numbers.iter().map(|number| f32::from_le_bytes(*number)).collect()))
}

impl Embedder for Remembering {
    fn model_id(&self) -> &str {
        self.inner.model_id()
    }

    fn dimensions(&self) -> usize {
        self.inner.dimensions()
    }

    fn calibration(&self) -> Calibration {
        self.inner.calibration()
    }

    fn embed<'a>(&'a self, texts: &'a [String], purpose: Purpose) -> BoxFuture<'a, Result<Vec<Vec<f32>>, EmbedError>> {
        async move {
            let keys: Vec<Key> = texts.iter().map(|text| key(text, purpose)).collect();
            let missing = texts.iter().zip(&keys).filter(|(_, key)| self.look(key).is_none());
            let (missing, missing_keys): (Vec<String>, Vec<Key>) =
                missing.map(|(text, key)| (text.clone(), *key)).unzip();
            if !missing.is_empty() {
                let made = self.inner.embed(&missing, purpose).await?;
                self.keep(missing_keys.into_iter().zip(made).collect()).map_err(|error| EmbedError::Inference {
                    reason: format!("the vectors cannot be kept: {error}"),
                })?;
            }
            let lost = || EmbedError::Inference { reason: "a vector is missing from its batch".to_owned() };
            keys.iter().map(|key| self.look(key).ok_or_else(lost)).collect()
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use frontdesk_server::knowledge::{EmbeddingSettings, embedder};

    #[tokio::test]
    async fn vectors_outlive_the_run_and_a_torn_record_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Remembering::new(embedder(&EmbeddingSettings::default()).unwrap(), Some(folder.path())).unwrap();
        let texts = ["one text".to_owned(), "another".to_owned()];
        let made = open().embed(&texts, Purpose::Passage).await.unwrap();
        let path = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let whole = std::fs::metadata(&path).unwrap().len();
        File::options().append(true).open(&path).unwrap().write_all(b"torn").unwrap();
        let again = open();
        assert_eq!(again.known.lock().unwrap().len(), 2);
        assert_eq!(again.embed(&texts, Purpose::Passage).await.unwrap(), made);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), whole, "nothing was made twice");
        // A question is embedded in another way than a passage.
        assert!(again.look(&key("another", Purpose::Query)).is_none());
    }
}
