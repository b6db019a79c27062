//! Settings of embeddings and retrieval. Keys are not in here: a setting names the variable or file that holds one.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Calibration, KnowledgeError};

/// Largest number of dimensions that pgvector's HNSW index takes for `halfvec`.
pub const DIMENSIONS_MAX: usize = 4_000;

/// Which model turns texts into vectors. `provider` chooses the variant.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(tag = "provider", rename_all = "lowercase", deny_unknown_fields)]
pub enum EmbeddingSettings {
    /// Deterministic hashing of words and character n-grams: no model, no network, no understanding of paraphrase.
    Hash {
        #[serde(default = "default_hash_dimensions")]
        dimensions: usize,
    },
    /// A sentence-embedding model in ONNX or rten form, run in this process.
    Local {
        model_path: PathBuf,
        /// Hugging Face `tokenizer.json` of the same model.
        tokenizer_path: PathBuf,
        dimensions: usize,
        /// Longer texts are cut; a passage is shorter than this by default.
        #[serde(default = "default_tokens_max")]
        tokens_max: usize,
        /// Threads that run the model at the same time.
        #[serde(default = "default_threads")]
        threads: usize,
        /// Written before a question, for models that were trained with it (`query: ` for the E5 family).
        #[serde(default)]
        query_prefix: String,
        /// Written before a passage (`passage: ` for the E5 family).
        #[serde(default)]
        passage_prefix: String,
        /// Where the model's cosine similarities start and stop to mean something.
        #[serde(default)]
        calibration: Option<Calibration>,
    },
    /// An OpenAI-compatible `/embeddings` endpoint.
    Openai {
        /// Without `/embeddings`, for example `https://api.openai.com/v1`.
        base_url: String,
        model: String,
        /// Environment variable that holds the key. Neither this nor the file: no key is sent.
        #[serde(default)]
        api_key_env: Option<String>,
        #[serde(default)]
        api_key_file: Option<PathBuf>,
        dimensions: usize,
        #[serde(default = "default_timeout_ms")]
        timeout_ms: u64,
        /// Texts per request.
        #[serde(default = "default_batch")]
        batch: usize,
        #[serde(default)]
        query_prefix: String,
        #[serde(default)]
        passage_prefix: String,
        #[serde(default)]
        calibration: Option<Calibration>,
    },
}

fn default_hash_dimensions() -> usize {
    1_024
}

fn default_tokens_max() -> usize {
    512
}

fn default_threads() -> usize {
    1
}

fn default_timeout_ms() -> u64 {
    10_000
}

fn default_batch() -> usize {
    64
}

impl Default for EmbeddingSettings {
    fn default() -> Self {
        Self::Hash { dimensions: default_hash_dimensions() }
    }
}

/// The process that reads files of formats that programs write, and what it may use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExtractionSettings {
    /// A `frontdesk` program; empty: the one that runs.
    pub program: PathBuf,
    /// Address space of one process.
    pub memory_mib: u64,
    /// Processor time of one process.
    pub cpu_seconds: u64,
    /// Time on the clock for one file.
    pub timeout_ms: u64,
    /// Most pages of a PDF.
    pub pages_max: u32,
    /// Most text that a file may become.
    pub output_bytes_max: usize,
    /// Processes at once; further files wait.
    pub at_once: usize,
}

impl Default for ExtractionSettings {
    fn default() -> Self {
        Self {
            program: PathBuf::new(),
            memory_mib: 1_024,
            cpu_seconds: 60,
            timeout_ms: 120_000,
            pages_max: 2_000,
            output_bytes_max: 16 << 20,
            at_once: 2,
        }
    }
}

impl ExtractionSettings {
    /// Refuses values that cannot work, naming the field.
    pub(super) fn check(&self) -> Result<(), KnowledgeError> {
        let ranges: [(&'static str, u64, std::ops::RangeInclusive<u64>, &'static str); 6] = [
            ("extraction.memory_mib", self.memory_mib, 256..=65_536, "256 to 65536"),
            ("extraction.cpu_seconds", self.cpu_seconds, 1..=3_600, "1 to 3600"),
            ("extraction.timeout_ms", self.timeout_ms, 1_000..=3_600_000, "1000 to 3600000"),
            ("extraction.pages_max", self.pages_max.into(), 1..=100_000, "1 to 100000"),
            ("extraction.output_bytes_max", self.output_bytes_max as u64, 1_024..=256 << 20, "1024 to 268435456"),
            ("extraction.at_once", self.at_once as u64, 1..=64, "1 to 64"),
        ];
        for (field, found, allowed, expected) in ranges {
            if !allowed.contains(&found) {
                return Err(KnowledgeError::Settings { field, found: found.to_string(), expected });
            }
        }
        Ok(())
    }
}

/// How passages are cut and found.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetrievalSettings {
    /// ISO 639-1 codes of the languages that texts may be in. The shorter the list, the surer the detection.
    pub languages: Vec<String>,
    /// Length that a passage aims for and must not exceed, in characters.
    pub passage_characters: usize,
    /// Candidates taken from each of vector and full-text search.
    pub candidates: usize,
    /// Weight of full text in the ranking, 0 to 1; unset: the embedder's own (high for hashing, low for models).
    pub lexical_weight: Option<f32>,
    /// How much near-duplicates are moved down, 0 (not at all) to 1.
    pub diversity: f32,
    /// HNSW search breadth (`hnsw.ef_search`).
    pub ef_search: u32,
}

impl Default for RetrievalSettings {
    fn default() -> Self {
        let languages =
            ["en", "de", "es", "fr", "it", "pt", "nl", "pl", "tr", "ru", "uk", "el", "ar", "zh", "ja", "ko"];
        Self {
            languages: languages.map(str::to_owned).to_vec(),
            passage_characters: 1_000,
            candidates: 40,
            lexical_weight: None,
            diversity: 0.2,
            ef_search: 200,
        }
    }
}

impl RetrievalSettings {
    /// Refuses values that cannot work, naming the field.
    pub(super) fn check(&self) -> Result<(), KnowledgeError> {
        let wrong = |field, found: String, expected| Err(KnowledgeError::Settings { field, found, expected });
        let share = 0.0..=1.0;
        if !(200..=8_000).contains(&self.passage_characters) {
            return wrong("retrieval.passage_characters", self.passage_characters.to_string(), "200 to 8000");
        }
        if !(1..=200).contains(&self.candidates) {
            return wrong("retrieval.candidates", self.candidates.to_string(), "1 to 200");
        }
        if !(1..=1_000).contains(&self.ef_search) {
            return wrong("retrieval.ef_search", self.ef_search.to_string(), "1 to 1000");
        }
        if let Some(weight) = self.lexical_weight.filter(|w| !share.contains(w)) {
            return wrong("retrieval.lexical_weight", weight.to_string(), "0 to 1");
        }
        if !share.contains(&self.diversity) {
            return wrong("retrieval.diversity", self.diversity.to_string(), "0 to 1");
        }
        Ok(())
    }
}
