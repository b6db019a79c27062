//! Drafting an answer from passages, and checking that the passages carry it.
//!
//! A [`Drafter`] gets the customer's text, the passages that retrieval found and the parts of the prompt that the tone
//! policy made; it gives back a text whose sentences name the passages they rest on, or declines. Three kinds:
//!
//! - the extractive answerer quotes the best passage word for word, and declines unless it covers the question;
//! - two model adapters (OpenAI-compatible, Anthropic) send one prompt (`prompt`) and read the citations back; where the passages
//!   are in another language than the customer's, the answer is made in theirs and translated (`translation`).
//!
//! Whatever the drafter, [`evidence`] decides: a factual sentence that its passages do not carry is cut, and an answer of
//! which nothing factual is left is declined. A drafter can therefore not smuggle an invented fact past the gate by
//! citing something.
//!
//! Nothing here reads the database or knows policies; prompts, answers and keys are never logged.

mod alignment;
mod anthropic;
mod endpoint;
pub mod evidence;
mod extractive;
mod fallback;
mod model;
mod naming;
mod openai;
mod prompt;
mod reference;
pub mod sentences;
mod settings;
mod translation;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

pub use evidence::{EvidenceSettings, gate};
pub use extractive::Extractive;
pub(crate) use reference::points_back;
pub use settings::{EndpointSettings, ModelSettings};

use crate::knowledge::{Embedder, Hit, SecretSourceError};

/// Most characters of customer text, history, instructions and passages that a prompt may hold together.
pub const PROMPT_CHARACTERS_MAX: usize = 120_000;

/// Everything a draft may rest on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DraftRequest {
    /// The Page that answers, for the budget of models.
    #[serde(default)]
    pub page_id: String,
    /// The customer's text of this turn, joined by newlines.
    pub question: String,
    /// ISO 639-1 code of the language that the question is in; `None`: as the question itself tells.
    #[serde(default)]
    pub asked_in: Option<String>,
    /// The customer's earlier question that this one follows up, when it cannot be understood alone.
    #[serde(default)]
    pub context: Option<String>,
    /// Earlier messages, oldest first: author (`customer`, `bot` or `agent`) and text.
    #[serde(default)]
    pub history: Vec<(String, String)>,
    /// Parts of the system prompt, in order: title and text.
    #[serde(default)]
    pub instructions: Vec<(String, String)>,
    /// Few-shot pairs: what a customer wrote, how the Page answers.
    #[serde(default)]
    pub examples: Vec<(String, String)>,
    /// ISO 639-1 code of the language to answer in; `None`: the question's.
    pub language: Option<String>,
    /// Longest answer, in characters; 0: no limit of its own.
    #[serde(default)]
    pub max_characters: usize,
    /// `None`: the setting's.
    pub temperature: Option<f32>,
    #[serde(default)]
    pub passages: Vec<PassageRef>,
    /// Most tokens that all calls of the turn may cost together; 0: no limit of its own.
    #[serde(default)]
    pub tokens_max: u64,
}

/// Characters of prompt that make a token, roughly and on the careful side: English has about four, other scripts fewer.
const CHARACTERS_PER_TOKEN: usize = 3;

/// Tokens that a text has, by its length.
fn tokens_of(text: &str) -> u64 {
    (text.chars().count() / CHARACTERS_PER_TOKEN) as u64
}

impl DraftRequest {
    /// Tokens that a prompt of this request has, by its length.
    pub fn tokens_expected(&self) -> u64 {
        let pairs = self.history.iter().chain(&self.instructions).chain(&self.examples);
        let texts = pairs.flat_map(|(a, b)| [a, b]).chain([&self.question]);
        let passages = self.passages.iter().flat_map(|passage| [&passage.title, &passage.text]);
        let characters: usize = texts.chain(passages).map(|text| text.chars().count()).sum();
        (characters / CHARACTERS_PER_TOKEN) as u64
    }
}

/// A passage as a drafter sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PassageRef {
    pub id: String,
    pub title: String,
    pub source: String,
    pub text: String,
    /// The curated question, for an entry of a FAQ.
    pub question: Option<String>,
    /// How well it fits, 0 to 1 (see `knowledge::Hit::score`).
    pub score: f32,
    pub language: Option<String>,
}

impl From<Hit> for PassageRef {
    fn from(hit: Hit) -> Self {
        Self {
            id: hit.passage_id.to_string(),
            title: hit.full_title(),
            source: hit.source,
            text: hit.text,
            question: hit.question,
            score: hit.score,
            language: hit.language,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum DraftOutcome {
    Drafted(Drafted),
    /// The passages do not answer the question.
    Declined(Declined),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drafted {
    /// What may be sent: citations stripped, unsupported sentences cut.
    pub text: String,
    pub sentences: Vec<CitedSentence>,
    pub evidence: Evidence,
    /// What wrote it, for the record: `extractive`, or the model as its service named it.
    pub model: String,
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
    /// What was sent to the model, for the record; empty when no model was asked.
    pub prompt: String,
    /// Sentences that the gate cut, for the record.
    #[serde(default)]
    pub cut: Vec<CitedSentence>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Declined {
    /// One sentence for the record and the agent; holds no customer text.
    pub reason: String,
    pub model: String,
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
    pub prompt: String,
    /// Sentences that the gate cut when nothing was left.
    #[serde(default)]
    pub cut: Vec<CitedSentence>,
}

/// A sentence of the answer and what it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CitedSentence {
    pub text: String,
    pub passage_ids: Vec<String>,
    /// How much of the sentence its passages carry, 0 to 1. 1 for sentences that state no fact.
    pub support: f32,
    /// False for greetings, thanks, offers of help and questions.
    pub factual: bool,
    /// Why it is not supported; `None` when it is.
    #[serde(default)]
    pub problem: Option<String>,
}

/// The numbers that escalation judges by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Factual sentences that were drafted, cut ones included.
    pub sentences: u32,
    /// How many of them the passages carry.
    pub supported: u32,
    /// Best fit among the passages that the answer cites, 0 to 1.
    pub best_score: f32,
    /// See [`evidence::confidence`].
    pub confidence: f32,
}

/// Why no draft could be made. Retries have been spent already.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    #[error("model.{field} is {found}, expected {expected}")]
    Settings { field: &'static str, found: String, expected: &'static str },
    #[error(transparent)]
    Secret(#[from] SecretSourceError),
    #[error("the HTTP client for the model cannot be built: {reason}")]
    Client { reason: String },
    #[error("the prompt has {found} characters, at most {PROMPT_CHARACTERS_MAX} are sent")]
    PromptTooLong { found: usize },
    #[error("the model at {host} did not answer within {timeout:?} ({attempts} attempts)")]
    Timeout { host: String, timeout: Duration, attempts: u32 },
    #[error("the model at {host} cannot be reached: {reason} ({attempts} attempts)")]
    Unreachable { host: String, reason: String, attempts: u32 },
    #[error("the model at {host} asks to slow down (status {status}, {attempts} attempts)")]
    RateLimited { host: String, status: u16, attempts: u32 },
    #[error("the model at {host} failed with status {status} ({attempts} attempts)")]
    Unavailable { host: String, status: u16, attempts: u32 },
    #[error(
        "the model at {host} refused the request with status {status} ({kind}); check model.model, model.base_url and the key"
    )]
    Refused { host: String, status: u16, kind: String },
    #[error("the model at {host} sent an answer that cannot be read: {reason}")]
    Malformed { host: String, reason: String },
    #[error("the model at {host} sent more than {limit} bytes")]
    TooLarge { host: String, limit: usize },
    #[error("the prompt has about {expected} tokens, model_budget.tokens_per_turn allows {max}")]
    TurnBudget { expected: u64, max: u64 },
    #[error("the model budget of this {of} is spent; it is renewed at midnight UTC, see model_budget")]
    DayBudget { of: &'static str },
    #[error("it is not known what was spent on models today: {reason}")]
    BudgetUnknown { reason: String },
    #[error("the evidence check could not compare languages: {0}")]
    Embed(#[from] crate::knowledge::EmbedError),
}

impl DraftError {
    /// Whether the turn may be tried again later without anybody changing a setting.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Timeout { .. } | Self::Unreachable { .. } | Self::RateLimited { .. } | Self::Unavailable { .. }
        )
    }

    /// A short, constant name for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Settings { .. } | Self::Secret(_) | Self::Client { .. } => "settings",
            Self::PromptTooLong { .. } => "prompt_too_long",
            Self::Timeout { .. } => "timeout",
            Self::Unreachable { .. } => "unreachable",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable { .. } => "unavailable",
            Self::Refused { .. } => "refused",
            Self::Malformed { .. } => "malformed",
            Self::TooLarge { .. } => "too_large",
            Self::TurnBudget { .. } => "turn_budget",
            Self::DayBudget { .. } => "day_budget",
            Self::BudgetUnknown { .. } => "budget_unknown",
            Self::Embed(_) => "embed",
        }
    }
}

/// Writes answers.
pub trait Drafter: Send + Sync + fmt::Debug {
    /// Makes one draft, already through the evidence gate.
    fn draft<'a>(&'a self, request: &'a DraftRequest) -> BoxFuture<'a, Result<DraftOutcome, DraftError>>;

    /// For logs and metrics: the provider and model, no secret.
    fn name(&self) -> &str;

    /// Whether a draft may cost tokens.
    fn asks_a_model(&self) -> bool {
        true
    }
}

/// Builds the drafter that the settings choose, with those that stand in for it, in order. `embedder` lets the evidence gate
/// compare an answer with passages of another language; without one such sentences count as unsupported.
pub fn drafters(
    settings: &ModelSettings,
    fallbacks: &[ModelSettings],
    embedder: Option<Arc<dyn Embedder>>,
) -> Result<Arc<dyn Drafter>, DraftError> {
    let first = drafter(settings, embedder.clone())?;
    if fallbacks.is_empty() {
        return Ok(first);
    }
    let others = fallbacks.iter().map(|settings| drafter(settings, embedder.clone())).collect::<Result<_, _>>()?;
    Ok(Arc::new(fallback::Fallback::new(first, others)))
}

/// Builds one drafter. `embedder` lets the evidence gate compare an answer with passages of
/// another language; without one such sentences count as unsupported.
pub fn drafter(settings: &ModelSettings, embedder: Option<Arc<dyn Embedder>>) -> Result<Arc<dyn Drafter>, DraftError> {
    settings.check()?;
    match settings {
        ModelSettings::Extractive { score_min } => Ok(Arc::new(Extractive::new(*score_min, embedder))),
        ModelSettings::Openai(endpoint) => {
            let wire = openai::OpenAi::new(endpoint)?;
            Ok(Arc::new(model::ModelDrafter::new(wire, endpoint, embedder)?))
        }
        ModelSettings::Anthropic(endpoint) => {
            let wire = anthropic::Anthropic::new(endpoint)?;
            Ok(Arc::new(model::ModelDrafter::new(wire, endpoint, embedder)?))
        }
    }
}
