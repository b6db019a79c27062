//! Which model writes answers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::DraftError;

/// `provider` chooses the variant.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(tag = "provider", rename_all = "lowercase", deny_unknown_fields)]
pub enum ModelSettings {
    /// No model: quotes the best passage or declines.
    Extractive {
        /// Passages that fit worse than this are never quoted, 0 to 1.
        #[serde(default = "default_score_min")]
        score_min: f32,
    },
    /// `POST {base_url}/chat/completions`: OpenAI, xAI, vLLM, Ollama, llama.cpp and others.
    Openai(EndpointSettings),
    /// `POST {base_url}/v1/messages`.
    Anthropic(EndpointSettings),
}

/// A model behind HTTP.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointSettings {
    pub model: String,
    /// For OpenAI-compatible services with its version (`https://api.openai.com/v1`), for Anthropic without.
    /// Empty: the provider's own.
    #[serde(default)]
    pub base_url: String,
    /// Environment variable that holds the key. Neither this nor the file: no key is sent.
    #[serde(default)]
    pub api_key_env: Option<String>,
    #[serde(default)]
    pub api_key_file: Option<PathBuf>,
    /// For one attempt.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// Longest answer that the model may write.
    #[serde(default = "default_max_tokens")]
    pub max_tokens: u32,
    /// Further attempts after a time-out, a 429 or a 5xx.
    #[serde(default = "default_retries")]
    pub retries: u32,
    #[serde(default = "default_temperature")]
    pub temperature: f32,
    /// How much of a factual sentence its passages must carry, 0 to 1.
    #[serde(default = "default_support_min")]
    pub support_min: f32,
    /// Whether an answer is made in the passages' language and translated when the customer's is another one and the evidence
    /// gate finds nothing in a direct answer: three calls more. Otherwise a person takes the turn.
    #[serde(default = "default_translate")]
    pub translate: bool,
    /// Price of a million tokens that the model reads, in any currency; for the metric `frontdesk_model_cost_total` alone.
    #[serde(default)]
    pub input_price: f64,
    /// Price of a million tokens that the model writes.
    #[serde(default)]
    pub output_price: f64,
}

fn default_score_min() -> f32 {
    0.55
}

fn default_timeout_ms() -> u64 {
    20_000
}

fn default_max_tokens() -> u32 {
    600
}

fn default_retries() -> u32 {
    2
}

fn default_temperature() -> f32 {
    0.2
}

fn default_support_min() -> f32 {
    0.9
}

fn default_translate() -> bool {
    true
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self::Extractive { score_min: default_score_min() }
    }
}

impl ModelSettings {
    /// Refuses values that cannot work, naming the field.
    pub(super) fn check(&self) -> Result<(), DraftError> {
        let wrong = |field, found: String, expected| Err(DraftError::Settings { field, found, expected });
        let endpoint = match self {
            Self::Extractive { score_min } if !(0.0..=1.0).contains(score_min) => {
                return wrong("score_min", score_min.to_string(), "0 to 1");
            }
            Self::Extractive { .. } => return Ok(()),
            Self::Openai(endpoint) | Self::Anthropic(endpoint) => endpoint,
        };
        if endpoint.model.trim().is_empty() {
            return wrong("model", "empty".to_owned(), "the name of a model");
        }
        if !(100..=300_000).contains(&endpoint.timeout_ms) {
            return wrong("timeout_ms", endpoint.timeout_ms.to_string(), "100 to 300000");
        }
        if !(1..=32_000).contains(&endpoint.max_tokens) {
            return wrong("max_tokens", endpoint.max_tokens.to_string(), "1 to 32000");
        }
        if endpoint.retries > 5 {
            return wrong("retries", endpoint.retries.to_string(), "0 to 5");
        }
        if !(0.0..=2.0).contains(&endpoint.temperature) {
            return wrong("temperature", endpoint.temperature.to_string(), "0 to 2");
        }
        if !(0.0..=1.0).contains(&endpoint.support_min) {
            return wrong("support_min", endpoint.support_min.to_string(), "0 to 1");
        }
        for (field, price) in [("input_price", endpoint.input_price), ("output_price", endpoint.output_price)] {
            if !(0.0..=1_000_000.0).contains(&price) {
                return wrong(field, price.to_string(), "0 to 1000000");
            }
        }
        Ok(())
    }
}
