//! Turning texts into vectors: the one trait, its errors, and the choice by settings.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::hash_embedder::HashEmbedder;
use super::local_embedder::{LocalEmbedder, LocalModel};
use super::remote_embedder::{RemoteEmbedder, RemoteModel};
use super::settings::DIMENSIONS_MAX;
use super::{EmbeddingSettings, SecretSource, SecretSourceError};

/// What a text is embedded for; some models want the two told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Query,
    Passage,
}

/// How a model's numbers are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Cosine similarity of texts that have nothing to do with each other: fit 0.
    pub floor: f32,
    /// Cosine similarity of a question and the passage that answers it: fit 1.
    pub ceiling: f32,
    /// Weight of full text in the ranking when no setting gives one.
    pub lexical_weight: f32,
    /// Weight of word coverage in [`Hit::score`](super::Hit::score); the rest is the calibrated similarity.
    pub coverage_weight: f32,
    /// Whether nearness means likeness of meaning, and so across languages too. Not so for hashed words.
    #[serde(default = "understands")]
    pub understands_meaning: bool,
}

fn understands() -> bool {
    true
}

impl Calibration {
    /// Sentence models of the MiniLM kind. Word coverage keeps a passage that is merely about the same topic from looking
    /// like one that holds the answer.
    pub const SEMANTIC: Self =
        Self { floor: 0.15, ceiling: 0.8, lexical_weight: 0.2, coverage_weight: 0.45, understands_meaning: true };

    /// `cosine` on the scale from floor to ceiling, clamped to 0..=1.
    pub fn fit(&self, cosine: f32) -> f32 {
        ((cosine - self.floor) / (self.ceiling - self.floor).max(f32::EPSILON)).clamp(0.0, 1.0)
    }
}

/// Makes unit-length vectors of texts.
pub trait Embedder: Send + Sync + fmt::Debug {
    /// Names the model and everything that changes its vectors. Vectors of different ids are never compared.
    fn model_id(&self) -> &str;

    fn dimensions(&self) -> usize;

    fn calibration(&self) -> Calibration;

    /// One vector per text, in order, each of [`Self::dimensions`] numbers and length 1 (all zero for a text without
    /// any content).
    fn embed<'a>(&'a self, texts: &'a [String], purpose: Purpose) -> BoxFuture<'a, Result<Vec<Vec<f32>>, EmbedError>>;
}

/// Why texts could not be embedded.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    #[error("embeddings.{field} is {found}, expected {expected}")]
    Settings { field: &'static str, found: String, expected: String },
    #[error(transparent)]
    Secret(#[from] SecretSourceError),
    #[error("the embedding model {path} cannot be loaded: {reason}; expected an ONNX or rten file of a sentence-embedding model", path = path.display())]
    Load { path: PathBuf, reason: String },
    #[error("the tokenizer {path} cannot be loaded: {reason}; expected the model's tokenizer.json", path = path.display())]
    Tokenizer { path: PathBuf, reason: String },
    #[error("the local embedding model failed: {reason}")]
    Inference { reason: String },
    #[error("the model gave vectors of {found} dimensions, embeddings.dimensions says {expected}; set it to {found}")]
    Dimensions { found: usize, expected: usize },
    #[error("the embedding service at {host} did not answer within {timeout:?}")]
    Timeout { host: String, timeout: Duration },
    #[error("the embedding service at {host} cannot be reached: {reason}")]
    Unreachable { host: String, reason: String },
    #[error("the embedding service at {host} answered {status}: {reason}")]
    Refused { host: String, status: u16, reason: String },
    #[error("the embedding service at {host} sent a body that is not an embeddings response: {reason}")]
    Malformed { host: String, reason: String },
}

impl EmbedError {
    /// Whether the same call may succeed later without anybody changing a setting.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }
}

/// Builds the embedder that the settings choose. Loads the local model, which takes about 0.1 s and its size in memory.
pub fn embedder(settings: &EmbeddingSettings) -> Result<Arc<dyn Embedder>, EmbedError> {
    match settings.clone() {
        EmbeddingSettings::Hash { dimensions } => {
            check("dimensions", dimensions, 64, DIMENSIONS_MAX)?;
            Ok(Arc::new(HashEmbedder::new(dimensions)))
        }
        EmbeddingSettings::Local {
            model_path,
            tokenizer_path,
            dimensions,
            tokens_max,
            threads,
            query_prefix,
            passage_prefix,
            calibration,
        } => {
            check("dimensions", dimensions, 2, DIMENSIONS_MAX)?;
            check("tokens_max", tokens_max, 16, 8_192)?;
            check("threads", threads, 1, 64)?;
            let calibration = checked_calibration(calibration)?;
            let model = LocalModel {
                model_path,
                tokenizer_path,
                dimensions,
                tokens_max,
                threads,
                query_prefix,
                passage_prefix,
            };
            Ok(Arc::new(LocalEmbedder::load(model, calibration)?))
        }
        EmbeddingSettings::Openai {
            base_url,
            model,
            api_key_env,
            api_key_file,
            dimensions,
            timeout_ms,
            batch,
            query_prefix,
            passage_prefix,
            calibration,
        } => {
            check("dimensions", dimensions, 2, DIMENSIONS_MAX)?;
            check("batch", batch, 1, 2_048)?;
            check("timeout_ms", usize::try_from(timeout_ms).unwrap_or(usize::MAX), 100, 120_000)?;
            let api_key = SecretSource { env: api_key_env, file: api_key_file }.read("embeddings.api_key")?;
            let calibration = checked_calibration(calibration)?;
            let timeout = Duration::from_millis(timeout_ms);
            let model =
                RemoteModel { base_url, model, api_key, dimensions, timeout, batch, query_prefix, passage_prefix };
            Ok(Arc::new(RemoteEmbedder::new(model, calibration)?))
        }
    }
}

fn check(field: &'static str, found: usize, min: usize, max: usize) -> Result<(), EmbedError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(EmbedError::Settings { field, found: found.to_string(), expected: format!("{min} to {max}") })
}

fn checked_calibration(given: Option<Calibration>) -> Result<Calibration, EmbedError> {
    let calibration = given.unwrap_or(Calibration::SEMANTIC);
    let shares = [calibration.lexical_weight, calibration.coverage_weight];
    if calibration.floor < calibration.ceiling && shares.iter().all(|share| (0.0..=1.0).contains(share)) {
        return Ok(calibration);
    }
    Err(EmbedError::Settings {
        field: "calibration",
        found: format!("{calibration:?}"),
        expected: "floor < ceiling and weights from 0 to 1".to_owned(),
    })
}

/// Scales to length 1. A vector without length stays as it is.
pub(super) fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    }
}
