//! `POST {base_url}/v1/messages` of Anthropic.

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::header::{HeaderMap, HeaderValue};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::DraftError;
use super::endpoint::Endpoint;
use super::model::{Completion, Sampling, Wire};
use super::prompt::Prompt;
use super::settings::EndpointSettings;
use crate::knowledge::SecretSource;

const BASE_URL: &str = "https://api.anthropic.com";
const VERSION: &str = "2023-06-01";

#[derive(Debug)]
pub(super) struct Anthropic {
    endpoint: Endpoint,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    model: String,
    content: Vec<Block>,
    stop_reason: Option<String>,
    usage: Option<Usage>,
}

/// Blocks of other kinds than text are passed over.
#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: String,
}

#[derive(Deserialize, Default)]
struct Usage {
    #[serde(default)]
    input_tokens: u32,
    #[serde(default)]
    output_tokens: u32,
}

impl Anthropic {
    pub fn new(settings: &EndpointSettings) -> Result<Self, DraftError> {
        let base_url = if settings.base_url.is_empty() { BASE_URL } else { &settings.base_url };
        let source = SecretSource { env: settings.api_key_env.clone(), file: settings.api_key_file.clone() };
        let mut headers = HeaderMap::new();
        headers.insert("anthropic-version", HeaderValue::from_static(VERSION));
        if let Some(key) = source.read("model.api_key")? {
            let mut value = HeaderValue::from_str(key.expose_secret()).map_err(|_| DraftError::Settings {
                field: "api_key",
                found: "not printable".to_owned(),
                expected: "printable ASCII",
            })?;
            value.set_sensitive(true);
            headers.insert("x-api-key", value);
        }
        Ok(Self { endpoint: Endpoint::new(settings, base_url, "/v1/messages", headers)? })
    }
}

impl Wire for Anthropic {
    const PROVIDER: &'static str = "anthropic";

    fn complete<'a>(
        &'a self,
        prompt: &'a Prompt,
        sampling: &'a Sampling,
    ) -> BoxFuture<'a, Result<Completion, DraftError>> {
        async move {
            let messages = prompt.messages.iter().map(|(role, content)| json!({ "role": role, "content": content }));
            let body = json!({
                "model": sampling.model,
                "system": prompt.system,
                "messages": messages.collect::<Vec<Value>>(),
                "max_tokens": sampling.max_tokens,
                // Anthropic's scale ends at 1.
                "temperature": sampling.temperature.min(1.0),
            });
            let answer = self.endpoint.post(&body).await?;
            let malformed = |reason: String| DraftError::Malformed { host: self.endpoint.host().to_owned(), reason };
            let response: Response = serde_json::from_value(answer).map_err(|error| malformed(error.to_string()))?;
            let usage = response.usage.unwrap_or_default();
            let stop = response.stop_reason.unwrap_or_default();
            let text: Vec<String> = response.content.into_iter().filter(|b| b.kind == "text").map(|b| b.text).collect();
            Ok(Completion {
                refused: stop == "refusal",
                text: text.concat(),
                model: if response.model.is_empty() { sampling.model.clone() } else { response.model },
                prompt_tokens: usage.input_tokens,
                completion_tokens: usage.output_tokens,
                truncated: stop == "max_tokens",
            })
        }
        .boxed()
    }
}
