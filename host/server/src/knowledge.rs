//! What a Page knows, and how it is found.
//!
//! # In
//! A document (text, Markdown, HTML, PDF, Word, Excel, PowerPoint, a CSV file of questions and answers) is brought to
//! Markdown, cut into passages along its headings, and stored with one vector and one `tsvector` per passage. Formats that
//! need a parser of size are read by a process that may die ([`extract`]). A document is identified by its Page scope and
//! `source`; it is replaced as a whole, in one transaction, when the hash of what would be stored has changed. Vectors are
//! made before that transaction begins and are cached by content, so a re-upload costs nothing and no transaction waits for
//! a model.
//!
//! # Out
//! A search takes three candidate lists in one statement: curated questions that equal the customer's, the nearest
//! vectors (HNSW over `halfvec`, filters applied inside the index scan), and full text (an OR of the question's
//! lexemes, rarest first, ranked by `ts_rank`). Both signals are then computed for every candidate and fused as
//! scores, never as ranks: rank fusion hurts when the words of question and passage do not overlap.
//!
//! # Invariants
//! - `passage_lexemes` counts, per scope and text search configuration, in how many passages a lexeme occurs. Triggers
//!   keep it, so that no way of deleting a passage can forget it.
//! - A passage's id is made of its document, position and content: an unchanged passage keeps its id over uploads.
//! - [`Hit::score`] says how well a passage fits the question, between 0 and 1, on the same scale for every embedder.
//!   It is not the order: curated answers come first, then fused rank, and diversity may move near-duplicates down.
//! - This module knows neither turns nor policies, and never logs a question or a passage.

pub mod archive;
mod chunk;
mod document;
mod embedding;
pub(crate) mod extract;
mod faq;
mod hash_embedder;
mod ingest;
mod language;
mod local_embedder;
mod models;
pub mod redact;
mod remote_embedder;
mod search;
mod secret;
mod settings;
pub mod spelling;
mod staged;
pub mod terms;
mod upkeep;

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

pub use archive::{Archive, ArchiveError};
pub use document::{
    DOCUMENT_BYTES_MAX, FILE_BYTES_MAX, Format, IngestError, NewDocument, PASSAGES_PER_DOCUMENT_MAX, format_from_name,
};
pub use embedding::{Calibration, EmbedError, Embedder, Purpose, embedder};
pub use extract::{ExtractError, Extractor, Unreadable};
pub use ingest::{Added, Outcome, Progress, Stage, Upload};
pub use language::{Detected, Likely, detect as detect_language, detect_likely, known_languages};
pub use models::Slot;
pub use redact::RedactionSettings;
pub(crate) use search::focus;
pub use search::{Hit, QUERY_CHARACTERS_MAX, SearchOutcome, SearchRequest, Strategy, Why};
pub(crate) use secret::{SecretSource, SecretSourceError};
pub use settings::{EmbeddingSettings, ExtractionSettings, RetrievalSettings};
pub use staged::Staged;
pub use upkeep::start_reembedding;

use crate::db::knowledge as db;
use crate::db::lent::Connections;
use models::Models;

/// Why knowledge could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum KnowledgeError {
    #[error("the knowledge tables cannot be used: {source}; check the database and that its migrations ran")]
    Database {
        #[from]
        source: sqlx::Error,
    },
    #[error(transparent)]
    Embed(#[from] EmbedError),
    #[error("the retrieval settings are wrong: {field} is {found}, expected {expected}")]
    Settings { field: &'static str, found: String, expected: &'static str },
    #[error(
        "another process has been building the vector index for {waited_s} s; look for CREATE INDEX in pg_stat_activity"
    )]
    IndexBusy { waited_s: u64 },
}

/// The Page's knowledge: one per process, shared by all tasks.
#[derive(Debug, Clone)]
pub struct Knowledge {
    pool: PgPool,
    connections: Connections,
    embedder: Arc<dyn Embedder>,
    settings: RetrievalSettings,
    likeness: Arc<search::Likeness>,
    languages: Arc<language::Detector>,
    extractor: Extractor,
    redaction: RedactionSettings,
    /// By Page: addresses and numbers that its documents may hold.
    page_contacts: HashMap<String, Vec<String>>,
    /// `None`: raw files are not kept, and what is taken out of texts is gone.
    archive: Option<Archive>,
    versions_kept: i32,
    models: Arc<Models>,
    /// How the model is made, so that a later host can make it again; `None`: a change of model is not survived by the old one.
    embedding_settings: Option<EmbeddingSettings>,
}

/// What [`Knowledge::prepare`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared {
    /// Whether the vector index was built now (false: it was there already).
    pub index_built: bool,
    /// Passages whose vector is missing or was made by another model; [`Knowledge::reembed`] brings them up to date.
    /// Until then only full text finds them.
    pub stale_passages: u64,
}

/// A stored document, as listings show it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, sqlx::FromRow)]
pub struct DocumentSummary {
    pub document_id: Uuid,
    /// `None`: every Page of this host.
    pub page_id: Option<String>,
    pub source: String,
    pub title: String,
    pub format: String,
    pub language: Option<String>,
    pub labels: Vec<String>,
    pub valid_from: Option<DateTime<Utc>>,
    pub valid_until: Option<DateTime<Utc>>,
    pub size_bytes: i64,
    pub version: i32,
    /// Pieces of personal data that placeholders stand for.
    pub redacted: i32,
    pub passages: i64,
    pub updated_at: DateTime<Utc>,
}

impl Knowledge {
    /// Checks the settings; touches neither database nor model.
    pub fn new(pool: PgPool, embedder: Arc<dyn Embedder>, settings: RetrievalSettings) -> Result<Self, KnowledgeError> {
        settings.check()?;
        let languages = Arc::new(language::Detector::new(&settings.languages)?);
        let extractor = Extractor::new(ExtractionSettings::default());
        Ok(Self {
            connections: Connections::new(pool.clone()),
            pool,
            models: Arc::new(Models::new(Arc::clone(&embedder))),
            embedding_settings: None,
            embedder,
            settings,
            likeness: Arc::default(),
            languages,
            extractor,
            redaction: RedactionSettings::default(),
            page_contacts: HashMap::new(),
            archive: None,
            versions_kept: 1,
        })
    }

    /// Lets the model that served before serve until the vectors of this one, which is made as these settings say, are there.
    #[must_use]
    pub fn with_change_of_model(mut self, settings: EmbeddingSettings) -> Self {
        self.embedding_settings = Some(settings);
        self
    }

    /// Takes personal data out of documents as these settings say; `page_contacts` stay, by Page.
    pub fn with_redaction(
        mut self,
        settings: RedactionSettings,
        page_contacts: HashMap<String, Vec<String>>,
    ) -> Result<Self, KnowledgeError> {
        settings.check()?;
        self.redaction = settings;
        self.page_contacts = page_contacts;
        Ok(self)
    }

    /// Keeps raw files, so many versions of each document, and what was taken out of their texts.
    #[must_use]
    pub fn with_archive(mut self, archive: Archive, versions_kept: u16) -> Self {
        self.archive = Some(archive);
        self.versions_kept = i32::from(versions_kept);
        self
    }

    /// Where raw files are kept.
    pub fn archive(&self) -> Option<&Archive> {
        self.archive.as_ref()
    }

    /// A document for every Page may hold the contacts of each.
    fn page_contacts(&self, page_id: Option<&str>) -> Vec<String> {
        match page_id {
            Some(page_id) => self.page_contacts.get(page_id).cloned().unwrap_or_default(),
            None => self.page_contacts.values().flatten().cloned().collect(),
        }
    }

    /// What somebody said in a conversation with this Page, without personal data.
    pub fn without_personal_data(&self, page_id: &str, text: &str) -> String {
        let (settings, contacts) = (self.redaction.of_conversations(), self.page_contacts(Some(page_id)));
        redact::Redaction::new(&settings, &contacts, &[]).text(text)
    }

    /// Reads files as these settings say.
    pub fn with_extraction(mut self, settings: ExtractionSettings) -> Result<Self, KnowledgeError> {
        settings.check()?;
        self.extractor = Extractor::new(settings);
        Ok(self)
    }

    /// The embedder in use, for callers that compare texts themselves (the evidence gate across languages).
    pub fn embedder(&self) -> &Arc<dyn Embedder> {
        &self.embedder
    }

    /// Makes sure that the current embedding model has its vector index. Safe to call on every start and from many
    /// replicas at once: one builds (without blocking readers or writers), the others wait for it.
    pub async fn prepare(&self) -> Result<Prepared, KnowledgeError> {
        if let Some(settings) = &self.embedding_settings {
            self.models.settle(&self.pool, &self.embedder, settings).await?;
        }
        let (serving, wanted) = (self.models.serving(), self.models.wanted());
        let embedder = &serving.embedder;
        let index_built =
            db::ensure_index(&self.pool, serving.slot, embedder.model_id(), embedder.dimensions()).await?;
        let stale = db::count_stale(&self.pool, wanted.slot, wanted.embedder.model_id()).await?;
        Ok(Prepared { index_built, stale_passages: stale.unsigned_abs() })
    }

    /// All documents of one Page (and those of every Page), or of the whole host; ordered by source.
    pub async fn list(&self, page_id: Option<&str>) -> Result<Vec<DocumentSummary>, KnowledgeError> {
        Ok(db::list_documents(&self.pool, page_id).await?)
    }

    /// Deletes a document with its passages and vectors. False: there was none with this id.
    pub async fn delete(&self, document_id: Uuid) -> Result<bool, KnowledgeError> {
        Ok(db::delete_document(&self.pool, document_id).await?)
    }
}
