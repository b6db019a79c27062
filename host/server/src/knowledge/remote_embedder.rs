//! Embeddings from an OpenAI-compatible `POST {base_url}/embeddings`.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

use super::embedding::normalise;
use super::{Calibration, EmbedError, Embedder, Purpose};

/// Further attempts after a time-out, a 429 or a 5xx.
const RETRIES: u32 = 2;
const BACKOFF_MS: u64 = 200;
/// A batch of 2,048 vectors of 4,000 numbers in decimal stays below this.
const RESPONSE_BYTES_MAX: usize = 192 * 1024 * 1024;
const ERROR_CHARACTERS_MAX: usize = 200;

/// What the settings say about the service.
#[derive(Debug, Clone)]
pub(super) struct RemoteModel {
    pub base_url: String,
    pub model: String,
    pub api_key: Option<SecretString>,
    pub dimensions: usize,
    pub timeout: Duration,
    pub batch: usize,
    pub query_prefix: String,
    pub passage_prefix: String,
}

#[derive(Debug)]
pub(super) struct RemoteEmbedder {
    settings: RemoteModel,
    model_id: String,
    url: reqwest::Url,
    host: String,
    client: reqwest::Client,
    calibration: Calibration,
}

#[derive(Deserialize)]
struct Response {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct Failure {
    error: FailureBody,
}

#[derive(Deserialize)]
struct FailureBody {
    message: String,
}

impl RemoteEmbedder {
    pub fn new(settings: RemoteModel, calibration: Calibration) -> Result<Self, EmbedError> {
        let wrong = |found: String| EmbedError::Settings {
            field: "base_url",
            found,
            expected: "an http or https address such as https://api.openai.com/v1".to_owned(),
        };
        let text = format!("{}/embeddings", settings.base_url.trim_end_matches('/'));
        let url = reqwest::Url::parse(&text).map_err(|error| wrong(error.to_string()))?;
        let host = match (url.scheme(), url.host_str()) {
            ("http" | "https", Some(host)) => host.to_owned(),
            (scheme, _) => return Err(wrong(format!("an address of scheme {scheme}"))),
        };
        let client = reqwest::Client::builder()
            .timeout(settings.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| EmbedError::Unreachable { host: host.clone(), reason: error.to_string() })?;
        let model_id = format!("{}@{host}-{}", settings.model, settings.dimensions);
        Ok(Self { settings, model_id, url, host, client, calibration })
    }

    async fn batch(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, EmbedError> {
        let mut attempt = 0;
        loop {
            match self.request(&texts).await {
                Err(error) if error.is_retryable() && attempt < RETRIES => {
                    attempt += 1;
                    let base = BACKOFF_MS << attempt;
                    let jitter = rand::rng().random_range(0..=base / 2);
                    tokio::time::sleep(Duration::from_millis(base + jitter)).await;
                }
                other => return other,
            }
        }
    }

    async fn request(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let body = json!({ "model": self.settings.model, "input": texts, "encoding_format": "float" });
        let mut request = self.client.post(self.url.clone()).json(&body);
        if let Some(key) = &self.settings.api_key {
            request = request.bearer_auth(key.expose_secret());
        }
        let response = request.send().await.map_err(|error| self.transport(&error))?;
        let status = response.status();
        let body = self.body(response).await?;
        if !status.is_success() {
            let reason = serde_json::from_slice::<Failure>(&body)
                .map_or_else(|_| "no reason given".to_owned(), |f| f.error.message);
            let reason = reason.chars().take(ERROR_CHARACTERS_MAX).collect();
            return Err(EmbedError::Refused { host: self.host.clone(), status: status.as_u16(), reason });
        }
        let malformed = |reason: String| EmbedError::Malformed { host: self.host.clone(), reason };
        let mut response: Response = serde_json::from_slice(&body).map_err(|error| malformed(error.to_string()))?;
        response.data.sort_by_key(|item| item.index);
        if response.data.iter().enumerate().any(|(at, item)| item.index != at) || response.data.len() != texts.len() {
            return Err(malformed(format!("{} vectors for {} texts", response.data.len(), texts.len())));
        }
        response.data.into_iter().map(|item| self.vector(item.embedding)).collect()
    }

    fn vector(&self, mut vector: Vec<f32>) -> Result<Vec<f32>, EmbedError> {
        if vector.len() != self.settings.dimensions {
            return Err(EmbedError::Dimensions { found: vector.len(), expected: self.settings.dimensions });
        }
        if vector.iter().any(|x| !x.is_finite()) {
            return Err(EmbedError::Malformed { host: self.host.clone(), reason: "a number is not finite".to_owned() });
        }
        normalise(&mut vector);
        Ok(vector)
    }

    async fn body(&self, mut response: reqwest::Response) -> Result<Vec<u8>, EmbedError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.transport(&error))? {
            if body.len() + chunk.len() > RESPONSE_BYTES_MAX {
                let reason = format!("it is longer than {RESPONSE_BYTES_MAX} bytes");
                return Err(EmbedError::Malformed { host: self.host.clone(), reason });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn transport(&self, error: &reqwest::Error) -> EmbedError {
        if error.is_timeout() {
            return EmbedError::Timeout { host: self.host.clone(), timeout: self.settings.timeout };
        }
        let reason = if error.is_connect() { "no connection" } else { "the connection broke" };
        EmbedError::Unreachable { host: self.host.clone(), reason: reason.to_owned() }
    }
}

impl Embedder for RemoteEmbedder {
    fn model_id(&self) -> &str {
        &self.model_id
    }

    fn dimensions(&self) -> usize {
        self.settings.dimensions
    }

    fn calibration(&self) -> Calibration {
        self.calibration
    }

    fn embed<'a>(&'a self, texts: &'a [String], purpose: Purpose) -> BoxFuture<'a, Result<Vec<Vec<f32>>, EmbedError>> {
        let prefix = match purpose {
            Purpose::Query => &self.settings.query_prefix,
            Purpose::Passage => &self.settings.passage_prefix,
        };
        async move {
            let mut vectors = Vec::with_capacity(texts.len());
            for part in texts.chunks(self.settings.batch) {
                // Services refuse an empty text; a space is one token.
                let batch = part.iter().map(|text| format!("{prefix}{text}"));
                let batch = batch.map(|text| if text.is_empty() { " ".to_owned() } else { text }).collect();
                vectors.extend(self.batch(batch).await?);
            }
            Ok(vectors)
        }
        .boxed()
    }
}
