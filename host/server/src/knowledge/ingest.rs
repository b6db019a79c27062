//! The way of a document into the tables: read, embed, store.
//!
//! Reading runs on a blocking thread, embedding before the transaction, storing in one transaction. A crash anywhere
//! leaves the old document as it was; vectors already made stay in the cache and the next attempt finds them.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use pgvector::Vector;
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::document::{NewDocument, Parsed, Unit, parse};
use super::{EmbedError, IngestError, Knowledge, KnowledgeError, Purpose, language, terms};
use crate::db::knowledge::{self as db, DocumentRow, PassageRow};

/// Passages embedded at a time.
const EMBED_BATCH: usize = 64;

/// What an upload came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Added {
    pub document_id: Uuid,
    pub passages: u64,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Created,
    Replaced,
    /// The stored document is the same already; nothing was written.
    Unchanged,
}

impl Knowledge {
    /// Adds a document, or replaces the one with the same Page scope and source. All or nothing.
    pub async fn add(&self, document: NewDocument) -> Result<Added, IngestError> {
        let language = checked_language(document.language.as_deref())?;
        let characters = self.settings.passage_characters;
        let (document, parsed) = tokio::task::spawn_blocking(move || {
            let parsed = parse(&document, characters)?;
            Ok::<_, IngestError>((document, parsed))
        })
        .await
        .map_err(|error| IngestError::Interrupted { reason: error.to_string() })??;

        let content_hash = document_hash(&document, &parsed, language);
        let page_id = document.page_id.as_deref();
        let known = db::find_document(&self.pool, page_id, &document.source).await?;
        if let Some((document_id, stored_hash)) = &known
            && *stored_hash == content_hash
        {
            let passages = db::count_passages(&self.pool, *document_id).await?.unsigned_abs();
            return Ok(Added { document_id: *document_id, passages, outcome: Outcome::Unchanged });
        }
        let (language, rows) = self.rows(&document, &parsed, language).await?;
        let row = DocumentRow {
            page_id: document.page_id,
            source: document.source,
            title: parsed.title,
            format: parsed.format.as_str(),
            language,
            labels: document.labels,
            valid_from: document.valid_from,
            valid_until: document.valid_until,
            content_hash,
            size_bytes: i64::try_from(document.bytes.len()).unwrap_or(i64::MAX),
        };
        let document_id = db::store(&self.pool, &row, &rows, self.embedder.model_id(), passage_id).await?;
        let outcome = if known.is_some() { Outcome::Replaced } else { Outcome::Created };
        Ok(Added { document_id, passages: rows.len() as u64, outcome })
    }

    /// Makes vectors of up to `batch` passages that have none of the current model. Returns how many were made; call it
    /// until it gives 0. Several replicas may do so at once: at worst one repeats the other's work.
    pub async fn reembed(&self, batch: u32) -> Result<u64, KnowledgeError> {
        let model = self.embedder.model_id();
        let stale = db::stale_passages(&self.pool, model, i64::from(batch)).await?;
        let inputs: Vec<String> =
            stale.iter().map(|p| embedding_input(&p.title, &p.heading, &p.text, p.question.as_deref())).collect();
        let vectors = self.vectors(&inputs).await.map_err(|error| match error {
            IngestError::Embed(source) => KnowledgeError::Embed(source),
            IngestError::Database { source } => KnowledgeError::Database { source },
            other => KnowledgeError::Embed(EmbedError::Inference { reason: other.to_string() }),
        })?;
        let ids: Vec<Uuid> = stale.iter().map(|passage| passage.id).collect();
        Ok(db::set_vectors(&self.pool, model, &ids, &vectors).await?)
    }

    /// Forgets cached vectors that no upload has asked for since `before`.
    pub async fn forget_cached_vectors(&self, before: DateTime<Utc>) -> Result<u64, KnowledgeError> {
        Ok(db::forget_cached_vectors(&self.pool, before).await?)
    }

    /// The document's language (given, or that of most of its text) and its passages with their vectors.
    async fn rows(
        &self,
        document: &NewDocument,
        parsed: &Parsed,
        given: Option<&'static str>,
    ) -> Result<(Option<String>, Vec<PassageRow>), IngestError> {
        let languages: Vec<Option<&str>> = parsed.units.iter().map(|unit| self.unit_language(unit, given)).collect();
        let main = given.or_else(|| majority(&languages, &parsed.units));
        let inputs: Vec<String> = parsed
            .units
            .iter()
            .map(|unit| embedding_input(&parsed.title, &unit.heading, &unit.text, unit.question.as_deref()))
            .collect();
        let vectors = self.vectors(&inputs).await?;
        let rows = parsed.units.iter().zip(languages).zip(inputs.iter().zip(vectors)).enumerate();
        let rows = rows.map(|(position, ((unit, language), (input, embedding)))| {
            let language = language.or(main);
            let mut labels = document.labels.clone();
            labels.extend(unit.labels.iter().filter(|label| !document.labels.contains(label)).cloned());
            PassageRow {
                position: i32::try_from(position).unwrap_or(i32::MAX),
                heading: unit.heading.clone(),
                text: unit.text.clone(),
                question: unit.question.clone(),
                question_key: unit.question.as_deref().map(terms::question_key).filter(|key| !key.is_empty()),
                language: language.map(str::to_owned),
                labels,
                content_hash: sha256([input.as_str()]),
                ts_config: language::ts_config(language),
                embedding,
            }
        });
        Ok((main.map(str::to_owned), rows.collect()))
    }

    fn unit_language<'a>(&self, unit: &'a Unit, given: Option<&'a str>) -> Option<&'a str> {
        let detect =
            || self.languages.detect(&format!("{} {}", unit.question.as_deref().unwrap_or_default(), unit.text));
        unit.language.as_deref().or(given).or_else(detect)
    }

    /// Vectors of texts, from the cache where it has them.
    async fn vectors(&self, inputs: &[String]) -> Result<Vec<Vector>, IngestError> {
        let model = self.embedder.model_id();
        let hashes: Vec<String> = inputs.iter().map(|input| sha256([input.as_str()])).collect();
        let mut known: HashMap<String, Vector> = HashMap::with_capacity(hashes.len());
        for part in hashes.chunks(1_000) {
            known.extend(db::cached_vectors(&self.pool, model, part).await?);
        }
        let mut seen = HashSet::new();
        let missing: Vec<(&String, &String)> =
            hashes.iter().zip(inputs).filter(|(hash, _)| !known.contains_key(*hash) && seen.insert(*hash)).collect();
        for part in missing.chunks(EMBED_BATCH) {
            let texts: Vec<String> = part.iter().map(|(_, input)| (*input).clone()).collect();
            let vectors = self.embedder.embed(&texts, Purpose::Passage).await?;
            let made: Vec<Vector> = self.checked(vectors, texts.len())?.into_iter().map(Vector::from).collect();
            let keys: Vec<String> = part.iter().map(|(hash, _)| (*hash).clone()).collect();
            db::cache_vectors(&self.pool, model, &keys, &made).await?;
            known.extend(keys.into_iter().zip(made));
        }
        let lost = || IngestError::Interrupted { reason: "a vector is missing from its batch".to_owned() };
        hashes.iter().map(|hash| known.get(hash).cloned().ok_or_else(lost)).collect()
    }

    /// Refuses an embedder's answer that has another count or other dimensions than asked for.
    pub(super) fn checked(&self, vectors: Vec<Vec<f32>>, texts: usize) -> Result<Vec<Vec<f32>>, EmbedError> {
        if vectors.len() != texts {
            let reason = format!("{} vectors for {texts} texts", vectors.len());
            return Err(EmbedError::Inference { reason });
        }
        let expected = self.embedder.dimensions();
        match vectors.iter().find(|vector| vector.len() != expected) {
            Some(vector) => Err(EmbedError::Dimensions { found: vector.len(), expected }),
            None => Ok(vectors),
        }
    }
}

fn checked_language(given: Option<&str>) -> Result<Option<&'static str>, IngestError> {
    let Some(code) = given.map(str::trim).filter(|code| !code.is_empty()) else { return Ok(None) };
    let unknown = || IngestError::Language {
        found: code.chars().take(20).collect(),
        expected: language::known_languages().collect::<Vec<_>>().join(", "),
    };
    language::canonical(code).map(Some).ok_or_else(unknown)
}

/// The language that most characters are in.
fn majority<'a>(languages: &[Option<&'a str>], units: &[Unit]) -> Option<&'a str> {
    let mut characters: Vec<(&str, usize)> = Vec::new();
    for (language, unit) in languages.iter().zip(units) {
        let Some(language) = language else { continue };
        match characters.iter_mut().find(|(code, _)| code == language) {
            Some((_, count)) => *count += unit.text.len(),
            None => characters.push((language, unit.text.len())),
        }
    }
    characters.into_iter().max_by_key(|(_, count)| *count).map(|(code, _)| code)
}

/// What a passage's vector is made of. A FAQ entry stands for its question first.
fn embedding_input(title: &str, heading: &str, text: &str, question: Option<&str>) -> String {
    match question {
        Some(question) => format!("{question}\n{text}"),
        None if heading.is_empty() => format!("{title}\n{text}"),
        None => format!("{heading}\n{text}"),
    }
}

/// Hash of everything that would be stored.
fn document_hash(document: &NewDocument, parsed: &Parsed, language: Option<&str>) -> String {
    let units = parsed.units.iter().flat_map(|unit| {
        let labels = unit.labels.join("\u{1f}");
        let fields = [unit.heading.as_str(), unit.text.as_str(), unit.question.as_deref().unwrap_or_default()];
        let fields = fields.map(str::to_owned);
        fields.into_iter().chain([labels, unit.language.clone().unwrap_or_default()])
    });
    let time = |at: Option<DateTime<Utc>>| at.map(|at| at.to_rfc3339()).unwrap_or_default();
    let head = [
        parsed.format.as_str().to_owned(),
        parsed.title.clone(),
        language.unwrap_or_default().to_owned(),
        document.labels.join("\u{1f}"),
        time(document.valid_from),
        time(document.valid_until),
    ];
    sha256(head.into_iter().chain(units))
}

/// SHA-256 of parts, each with its length before it, so that no two lists of parts run together. In hex.
fn sha256(parts: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hex::encode(hasher.finalize())
}

/// Made of document, position and content, so that an unchanged passage keeps its id over uploads.
fn passage_id(document_id: Uuid, row: &PassageRow) -> Uuid {
    let digest = Sha256::digest(format!("{document_id}\n{}\n{}", row.position, row.content_hash).as_bytes());
    let mut bytes = [0_u8; 16];
    bytes.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
