//! The way of a document into the tables: read, embed, store.
//!
//! Reading runs in a process of its own or on a blocking thread, embedding before the transaction, storing in one transaction. A crash anywhere
//! leaves the old document as it was; vectors already made stay in the cache and the next attempt finds them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use pgvector::Vector;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

use super::archive::Kept;
use super::document::{Format, NewDocument, Parsed, Unit, check, parse};
use super::extract::{ExtractError, Extracted};
use super::redact::{Originals, Redaction};
use super::{EmbedError, Embedder, IngestError, Knowledge, KnowledgeError, Purpose, language, terms};
use crate::db::documents::{self, Known, NewVersion};
use crate::db::knowledge::{self as db, DocumentRow, PassageRow};

/// Passages embedded at a time.
const EMBED_BATCH: usize = 64;
/// Raised when files are read in another way, so that an upload of a known file reads it again.
const READER: u32 = 2;

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

/// How far an upload is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    pub stage: Stage,
    /// Of `total`; both in passages, and 0 while that is not known.
    pub done: u64,
    pub total: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    #[default]
    Waiting,
    Reading,
    Embedding,
    Storing,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Reading => "reading",
            Self::Embedding => "embedding",
            Self::Storing => "storing",
        }
    }
}

/// Who uploads, and what is known of the file already.
#[derive(Debug, Default)]
pub struct Upload {
    /// For the document's history.
    pub by: String,
    /// The file, when it is in the object store already.
    pub kept: Option<Kept>,
    pub progress: Option<watch::Sender<Progress>>,
}

impl Upload {
    fn at(&self, stage: Stage, done: u64, total: u64) {
        if let Some(progress) = &self.progress {
            progress.send_replace(Progress { stage, done, total });
        }
    }
}

impl Knowledge {
    /// As [`Knowledge::ingest`], for a file that nobody waits for with a progress bar.
    pub async fn add(&self, document: NewDocument) -> Result<Added, IngestError> {
        self.ingest(document, Upload::default()).await
    }

    /// Adds a document, or replaces the one with the same Page scope and source. All or nothing.
    pub async fn ingest(&self, document: NewDocument, upload: Upload) -> Result<Added, IngestError> {
        let language = checked_language(document.language.as_deref())?;
        let interrupted = |error: tokio::task::JoinError| IngestError::Interrupted { reason: error.to_string() };
        let rules = self.rules();
        let (document, format, file) = tokio::task::spawn_blocking(move || {
            let format = check(&document)?;
            let file = File::of(&document, format, &rules);
            Ok::<_, IngestError>((document, format, file))
        })
        .await
        .map_err(interrupted)??;
        let known = documents::find(&self.pool, document.page_id.as_deref(), &document.source).await?;
        if let Some(known) = known.as_ref().filter(|known| known.fingerprint == file.fingerprint) {
            return Ok(unchanged(known));
        }

        upload.at(Stage::Reading, 0, 0);
        let extracted = self.extracted(format, &document).await?;
        let characters = self.settings.passage_characters;
        let (redaction, contacts) = (self.redaction.clone(), self.page_contacts(document.page_id.as_deref()));
        let (document, parsed) = tokio::task::spawn_blocking(move || {
            let redaction = Redaction::new(&redaction, &contacts, &document.labels);
            let parsed = parse(&document, format, extracted, characters, redaction)?;
            Ok::<_, IngestError>((document, parsed))
        })
        .await
        .map_err(interrupted)??;

        let content_hash = document_hash(&document, &parsed, language);
        if let Some(known) = known.as_ref().filter(|known| known.content_hash == content_hash) {
            documents::set_fingerprint(&self.pool, known.id, &file.fingerprint).await?;
            return Ok(unchanged(known));
        }
        // The model may change meanwhile; these rows are for the one that serves now.
        let serving = self.models.serving();
        let (language, rows) = self.rows(&serving.embedder, &document, &parsed, language, &upload).await?;
        upload.at(Stage::Storing, rows.len() as u64, rows.len() as u64);
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
            fingerprint: file.fingerprint,
            redacted: i32::try_from(parsed.originals.len()).unwrap_or(i32::MAX),
            size_bytes: i64::try_from(document.bytes.len()).unwrap_or(i64::MAX),
        };
        let is_held = upload.kept.is_some();
        let kept = self.kept(upload.kept, &document.bytes, &parsed.originals).await?;
        let version = kept.as_ref().map(|(kept, originals)| NewVersion {
            object_key: &kept.object_key,
            raw_sha256: &file.raw_sha256,
            size_bytes: row.size_bytes,
            format: row.format,
            wrapped: &kept.wrapped,
            originals: originals.as_deref(),
            created_by: &upload.by,
            is_held,
            keep: self.versions_kept,
        });
        let stored = db::store(
            &self.pool,
            &row,
            &rows,
            (serving.slot, serving.embedder.model_id()),
            version.as_ref(),
            passage_id,
        )
        .await?;
        let document_id = stored.ok_or(IngestError::TooSlow)?;
        let outcome = if known.is_some() { Outcome::Replaced } else { Outcome::Created };
        Ok(Added { document_id, passages: rows.len() as u64, outcome })
    }

    /// A document, when what can be said without reading it speaks for it.
    ///
    /// # Errors
    /// Names, size, format, language or encoding that are not taken.
    pub async fn checked_document(&self, document: NewDocument) -> Result<NewDocument, IngestError> {
        checked_language(document.language.as_deref())?;
        let checked = tokio::task::spawn_blocking(move || check(&document).map(|_| document)).await;
        checked.map_err(|error| IngestError::Interrupted { reason: error.to_string() })?
    }

    /// Whether files of formats that need a reader can be read here at all.
    pub async fn probe_reader(&self) -> Result<(), ExtractError> {
        self.extractor.probe().await
    }

    async fn extracted(&self, format: Format, document: &NewDocument) -> Result<Option<Extracted>, IngestError> {
        if !format.needs_extraction() {
            return Ok(None);
        }
        let extracted = self.extractor.extract(format, &document.bytes).await;
        extracted.map(Some).map_err(|source| IngestError::Extract { source_name: document.source.clone(), source })
    }

    /// The raw file in the object store, and the sealed originals; `None` without an archive.
    async fn kept(
        &self,
        given: Option<Kept>,
        raw: &[u8],
        originals: &Originals,
    ) -> Result<Option<(Kept, Option<Vec<u8>>)>, IngestError> {
        let Some(archive) = &self.archive else { return Ok(None) };
        let kept = match given {
            Some(kept) => kept,
            None => archive.keep(raw).await?,
        };
        let originals = kept.seal_originals(originals)?;
        Ok(Some((kept, originals)))
    }

    /// What decides, beside the file, what becomes of it: a file that comes again by other rules is read again.
    fn rules(&self) -> String {
        let redaction = serde_json::to_string(&self.redaction).unwrap_or_default();
        let contacts: std::collections::BTreeMap<_, _> = self.page_contacts.iter().collect();
        let contacts = serde_json::to_string(&contacts).unwrap_or_default();
        format!("{READER}\n{}\n{redaction}\n{contacts}", self.settings.passage_characters)
    }

    /// Makes vectors of up to `batch` passages that have none of the current model. Returns how many were made; call it
    /// until it gives 0: then none is missing, and a model that was to come serves. Several replicas may do so at once: at worst one repeats the other's work.
    pub async fn reembed(&self, batch: u32) -> Result<u64, KnowledgeError> {
        let wanted = self.models.wanted();
        let model = wanted.embedder.model_id();
        let stale = db::stale_passages(&self.pool, wanted.slot, model, i64::from(batch)).await?;
        if stale.is_empty() {
            self.models.switch(&self.pool).await?;
            return Ok(0);
        }
        let inputs: Vec<String> =
            stale.iter().map(|p| embedding_input(&p.title, &p.heading, &p.text, p.question.as_deref())).collect();
        let vectors =
            self.vectors(&wanted.embedder, &inputs, &Upload::default()).await.map_err(|error| match error {
                IngestError::Embed(source) => KnowledgeError::Embed(source),
                IngestError::Database { source } => KnowledgeError::Database { source },
                other => KnowledgeError::Embed(EmbedError::Inference { reason: other.to_string() }),
            })?;
        let ids: Vec<Uuid> = stale.iter().map(|passage| passage.id).collect();
        Ok(db::set_vectors(&self.pool, wanted.slot, model, &ids, &vectors).await?)
    }

    /// Forgets cached vectors that no upload has asked for since `before`.
    pub async fn forget_cached_vectors(&self, before: DateTime<Utc>) -> Result<u64, KnowledgeError> {
        Ok(db::forget_cached_vectors(&self.pool, before).await?)
    }

    /// The document's language (given, or that of most of its text) and its passages with their vectors.
    async fn rows(
        &self,
        embedder: &Arc<dyn Embedder>,
        document: &NewDocument,
        parsed: &Parsed,
        given: Option<&'static str>,
        upload: &Upload,
    ) -> Result<(Option<String>, Vec<PassageRow>), IngestError> {
        let each = |main| parsed.units.iter().map(|unit| self.unit_language(unit, given, main)).collect();
        let languages: Vec<Option<&str>> = each(None);
        let main = given.or_else(|| majority(&languages, &parsed.units));
        // A short entry of a document is in the document's language, unless it says otherwise.
        let languages: Vec<Option<&str>> = each(main);
        let inputs: Vec<String> = parsed
            .units
            .iter()
            .map(|unit| embedding_input(&parsed.title, &unit.heading, &unit.text, unit.question.as_deref()))
            .collect();
        let vectors = self.vectors(embedder, &inputs, upload).await?;
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

    /// `main` is the language of most of the document.
    fn unit_language<'a>(&self, unit: &'a Unit, given: Option<&'a str>, main: Option<&str>) -> Option<&'a str> {
        let detect = || {
            let text = format!("{} {}", unit.question.as_deref().unwrap_or_default(), unit.text);
            let likely = language::Likely { page: main, ..language::Likely::default() };
            self.languages.detect_likely(&text, likely).map(|detected| detected.code)
        };
        unit.language.as_deref().or(given).or_else(detect)
    }

    /// Vectors of texts, from the cache where it has them.
    async fn vectors(
        &self,
        embedder: &Arc<dyn Embedder>,
        inputs: &[String],
        upload: &Upload,
    ) -> Result<Vec<Vector>, IngestError> {
        let model = embedder.model_id();
        let hashes: Vec<String> = inputs.iter().map(|input| sha256([input.as_str()])).collect();
        let mut known: HashMap<String, Vector> = HashMap::with_capacity(hashes.len());
        for part in hashes.chunks(1_000) {
            known.extend(db::cached_vectors(&self.pool, model, part).await?);
        }
        let mut seen = HashSet::new();
        let missing: Vec<(&String, &String)> =
            hashes.iter().zip(inputs).filter(|(hash, _)| !known.contains_key(*hash) && seen.insert(*hash)).collect();
        let total = inputs.len() as u64;
        let mut done = total.saturating_sub(missing.len() as u64);
        for part in missing.chunks(EMBED_BATCH) {
            upload.at(Stage::Embedding, done, total);
            done += part.len() as u64;
            let texts: Vec<String> = part.iter().map(|(_, input)| (*input).clone()).collect();
            let vectors = embedder.embed(&texts, Purpose::Passage).await?;
            let made: Vec<Vector> =
                checked(embedder.as_ref(), vectors, texts.len())?.into_iter().map(Vector::from).collect();
            let keys: Vec<String> = part.iter().map(|(hash, _)| (*hash).clone()).collect();
            db::cache_vectors(&self.pool, model, &keys, &made).await?;
            known.extend(keys.into_iter().zip(made));
        }
        let lost = || IngestError::Interrupted { reason: "a vector is missing from its batch".to_owned() };
        hashes.iter().map(|hash| known.get(hash).cloned().ok_or_else(lost)).collect()
    }
}

/// Refuses an embedder's answer that has another count or other dimensions than asked for.
pub(super) fn checked(
    embedder: &dyn Embedder,
    vectors: Vec<Vec<f32>>,
    texts: usize,
) -> Result<Vec<Vec<f32>>, EmbedError> {
    if vectors.len() != texts {
        let reason = format!("{} vectors for {texts} texts", vectors.len());
        return Err(EmbedError::Inference { reason });
    }
    let expected = embedder.dimensions();
    match vectors.iter().find(|vector| vector.len() != expected) {
        Some(vector) => Err(EmbedError::Dimensions { found: vector.len(), expected }),
        None => Ok(vectors),
    }
}

/// A file as it came.
struct File {
    raw_sha256: String,
    fingerprint: String,
}

impl File {
    fn of(document: &NewDocument, format: Format, rules: &str) -> Self {
        let raw_sha256 = hex::encode(Sha256::digest(&document.bytes));
        let fields = [
            raw_sha256.clone(),
            rules.to_owned(),
            format.as_str().to_owned(),
            document.title.clone().unwrap_or_default(),
            document.language.clone().unwrap_or_default(),
        ];
        let labels = document.labels.iter().cloned();
        let times = [document.valid_from, document.valid_until].map(time);
        Self { raw_sha256, fingerprint: sha256(fields.into_iter().chain(times).chain(labels)) }
    }
}

fn time(at: Option<DateTime<Utc>>) -> String {
    at.map(|at| at.to_rfc3339()).unwrap_or_default()
}

fn unchanged(known: &Known) -> Added {
    Added { document_id: known.id, passages: known.passages.unsigned_abs(), outcome: Outcome::Unchanged }
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
        None if !heading.is_empty() => format!("{heading}\n{text}"),
        None if says_something(title) => format!("{title}\n{text}"),
        None => text.to_owned(),
    }
}

/// Whether a title is words, and not the name of a file such as `p17` or `faq_2`, which makes every passage a little more like
/// every other.
fn says_something(title: &str) -> bool {
    let is_plain = |c: char| c.is_alphabetic() || c == '-';
    title.split_whitespace().nth(1).is_some() || (title.chars().count() > 2 && title.chars().all(is_plain))
}

/// Hash of everything that would be stored.
fn document_hash(document: &NewDocument, parsed: &Parsed, language: Option<&str>) -> String {
    let units = parsed.units.iter().flat_map(|unit| {
        let labels = unit.labels.join("\u{1f}");
        let fields = [unit.heading.as_str(), unit.text.as_str(), unit.question.as_deref().unwrap_or_default()];
        let fields = fields.map(str::to_owned);
        fields.into_iter().chain([labels, unit.language.clone().unwrap_or_default()])
    });
    // Two texts may differ in nothing but what was taken out of them.
    let originals = parsed.originals.values().map(|original| original.text.clone());
    let head = [
        parsed.format.as_str().to_owned(),
        parsed.title.clone(),
        language.unwrap_or_default().to_owned(),
        document.labels.join("\u{1f}"),
        time(document.valid_from),
        time(document.valid_until),
    ];
    sha256(head.into_iter().chain(units).chain(originals))
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
