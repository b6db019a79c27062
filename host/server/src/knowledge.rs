//! What a Page knows, and how it is found.
//!
//! # In
//! A document (text, Markdown, HTML, a CSV file of questions and answers) is decoded, brought to Markdown, cut into
//! passages along its headings, and stored with one vector and one `tsvector` per passage. A document is identified by
//! its Page scope and `source`; it is replaced as a whole, in one transaction, when the hash of what would be stored
//! has changed. Vectors are made before that transaction begins and are cached by content, so a re-upload costs nothing
//! and no transaction waits for a model.
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

mod chunk;
mod document;
mod embedding;
mod faq;
mod hash_embedder;
mod ingest;
mod language;
mod local_embedder;
mod remote_embedder;
mod search;
mod secret;
mod settings;
pub mod terms;
mod upkeep;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

pub use document::{DOCUMENT_BYTES_MAX, Format, IngestError, NewDocument, PASSAGES_PER_DOCUMENT_MAX, format_from_name};
pub use embedding::{Calibration, EmbedError, Embedder, Purpose, embedder};
pub use ingest::{Added, Outcome};
pub use language::{detect as detect_language, known_languages};
pub(crate) use search::focus;
pub use search::{Hit, QUERY_CHARACTERS_MAX, SearchOutcome, SearchRequest, Strategy};
pub(crate) use secret::{SecretSource, SecretSourceError};
pub use settings::{EmbeddingSettings, RetrievalSettings};
pub use upkeep::start_reembedding;

use crate::db::knowledge as db;

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
    embedder: Arc<dyn Embedder>,
    settings: RetrievalSettings,
    languages: Arc<language::Detector>,
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
    pub passages: i64,
    pub updated_at: DateTime<Utc>,
}

impl Knowledge {
    /// Checks the settings; touches neither database nor model.
    pub fn new(pool: PgPool, embedder: Arc<dyn Embedder>, settings: RetrievalSettings) -> Result<Self, KnowledgeError> {
        settings.check()?;
        let languages = Arc::new(language::Detector::new(&settings.languages)?);
        Ok(Self { pool, embedder, settings, languages })
    }

    /// The embedder in use, for callers that compare texts themselves (the evidence gate across languages).
    pub fn embedder(&self) -> &Arc<dyn Embedder> {
        &self.embedder
    }

    /// Makes sure that the current embedding model has its vector index. Safe to call on every start and from many
    /// replicas at once: one builds (without blocking readers or writers), the others wait for it.
    pub async fn prepare(&self) -> Result<Prepared, KnowledgeError> {
        let index_built = db::ensure_index(&self.pool, self.embedder.model_id(), self.embedder.dimensions()).await?;
        let stale = db::count_stale(&self.pool, self.embedder.model_id()).await?;
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
