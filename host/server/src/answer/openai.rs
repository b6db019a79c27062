//! `POST {base_url}/chat/completions` as OpenAI defined it and xAI, vLLM, Ollama, llama.cpp and others serve it.

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::DraftError;
use super::endpoint::Endpoint;
use super::model::{Completion, Sampling, Wire};
use super::prompt::Prompt;
use super::settings::EndpointSettings;
use crate::knowledge::SecretSource;

const BASE_URL: &str = "https://api.openai.com/v1";

#[derive(Debug)]
pub(super) struct OpenAi {
    endpoint: Endpoint,
    /// OpenAI's own models refuse `max_tokens`; most other services know nothing else.
    limit_field: &'static str,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    model: String,
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    refusal: Option<String>,
}

#[derive(Deserialize, Default)]
struct Usage {
    #[serde(default)]
    prompt_tokens: u32,
    #[serde(default)]
    completion_tokens: u32,
}

impl OpenAi {
    pub fn new(settings: &EndpointSettings) -> Result<Self, DraftError> {
        let base_url = if settings.base_url.is_empty() { BASE_URL } else { &settings.base_url };
        let source = SecretSource { env: settings.api_key_env.clone(), file: settings.api_key_file.clone() };
        let mut headers = HeaderMap::new();
        if let Some(key) = source.read("model.api_key")? {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret())).map_err(|_| {
                DraftError::Settings {
                    field: "api_key",
                    found: "not printable".to_owned(),
                    expected: "printable ASCII",
                }
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let endpoint = Endpoint::new(settings, base_url, "/chat/completions", headers)?;
        let limit_field = if endpoint.host() == "api.openai.com" { "max_completion_tokens" } else { "max_tokens" };
        Ok(Self { endpoint, limit_field })
    }
}

impl Wire for OpenAi {
    const PROVIDER: &'static str = "openai";

    fn complete<'a>(
        &'a self,
        prompt: &'a Prompt,
        sampling: &'a Sampling,
    ) -> BoxFuture<'a, Result<Completion, DraftError>> {
        async move {
            let system = std::iter::once(json!({ "role": "system", "content": prompt.system }));
            let turns = prompt.messages.iter().map(|(role, content)| json!({ "role": role, "content": content }));
            let body = json!({
                "model": sampling.model,
                "messages": system.chain(turns).collect::<Vec<Value>>(),
                "temperature": sampling.temperature,
                (self.limit_field): sampling.max_tokens,
                "stream": false,
            });
            let answer = self.endpoint.post(&body).await?;
            let malformed = |reason: String| DraftError::Malformed { host: self.endpoint.host().to_owned(), reason };
            let response: Response = serde_json::from_value(answer).map_err(|error| malformed(error.to_string()))?;
            let choice =
                response.choices.into_iter().next().ok_or_else(|| malformed("it has no choices".to_owned()))?;
            let usage = response.usage.unwrap_or_default();
            let finish = choice.finish_reason.unwrap_or_default();
            Ok(Completion {
                refused: choice.message.refusal.is_some() || finish == "content_filter",
                text: choice.message.content.unwrap_or_default(),
                model: if response.model.is_empty() { sampling.model.clone() } else { response.model },
                prompt_tokens: usage.prompt_tokens,
                completion_tokens: usage.completion_tokens,
                truncated: finish == "length",
            })
        }
        .boxed()
    }
}
