//! One HTTP call to a model service: time-out, size cap, classed errors, bounded retries.
//!
//! Neither bodies nor headers are logged, and errors carry no text from the service but a short error type: services
//! like to quote the prompt in their messages.

use std::time::Duration;

use frontdesk_messenger::usage::retry_after_ms;
use rand::Rng;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::DraftError;
use super::settings::EndpointSettings;

const RESPONSE_BYTES_MAX: usize = 1024 * 1024;
const BACKOFF_MS: u64 = 250;
/// A service that asks for a longer pause is given up for this turn.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
const KIND_CHARACTERS_MAX: usize = 60;

#[derive(Debug)]
pub(super) struct Endpoint {
    url: reqwest::Url,
    host: String,
    headers: HeaderMap,
    timeout: Duration,
    retries: u32,
    client: reqwest::Client,
}

enum Failure {
    Final(DraftError),
    Again { error: DraftError, after: Option<Duration> },
}

impl Endpoint {
    pub fn new(
        settings: &EndpointSettings,
        base_url: &str,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Self, DraftError> {
        let expected = "an http or https address such as https://api.openai.com/v1";
        let wrong = |found: String| DraftError::Settings { field: "base_url", found, expected };
        let text = format!("{}{path}", base_url.trim_end_matches('/'));
        let url = reqwest::Url::parse(&text).map_err(|error| wrong(error.to_string()))?;
        let host = match (url.scheme(), url.host_str()) {
            ("http" | "https", Some(host)) => host.to_owned(),
            (scheme, _) => return Err(wrong(format!("an address of scheme {scheme}"))),
        };
        let timeout = Duration::from_millis(settings.timeout_ms);
        // A redirect would carry the key to another host.
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| DraftError::Client { reason: error.to_string() })?;
        Ok(Self { url, host, headers, timeout, retries: settings.retries, client })
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// Posts until it succeeds, fails for good, or the retries are spent.
    pub async fn post(&self, body: &Value) -> Result<Value, DraftError> {
        let mut attempts = 1;
        loop {
            match self.attempt(body, attempts).await {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again { error, after }) => {
                    let wait = after.unwrap_or_else(|| backoff(attempts));
                    if attempts > self.retries || wait > RETRY_AFTER_MAX {
                        return Err(error);
                    }
                    tokio::time::sleep(wait).await;
                    attempts += 1;
                }
            }
        }
    }

    async fn attempt(&self, body: &Value, attempts: u32) -> Result<Value, Failure> {
        let transport = |error: reqwest::Error| self.transport(&error, attempts);
        let request = self.client.post(self.url.clone()).headers(self.headers.clone()).json(body);
        let mut response = request.send().await.map_err(transport)?;
        let status = response.status();
        let after = retry_after_ms(response.headers()).map(Duration::from_millis);
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if bytes.len() + chunk.len() > RESPONSE_BYTES_MAX {
                return Err(Failure::Final(DraftError::TooLarge {
                    host: self.host.clone(),
                    limit: RESPONSE_BYTES_MAX,
                }));
            }
            bytes.extend_from_slice(&chunk);
        }
        let (host, code) = (self.host.clone(), status.as_u16());
        match code {
            200..=299 => serde_json::from_slice(&bytes)
                .map_err(|error| Failure::Final(DraftError::Malformed { host, reason: error.to_string() })),
            429 => Err(Failure::Again { error: DraftError::RateLimited { host, status: code, attempts }, after }),
            408 | 500..=599 => {
                Err(Failure::Again { error: DraftError::Unavailable { host, status: code, attempts }, after })
            }
            _ => Err(Failure::Final(DraftError::Refused { host, status: code, kind: error_kind(&bytes) })),
        }
    }

    fn transport(&self, error: &reqwest::Error, attempts: u32) -> Failure {
        let host = self.host.clone();
        let error = if error.is_timeout() {
            DraftError::Timeout { host, timeout: self.timeout, attempts }
        } else {
            let reason = if error.is_connect() { "no connection" } else { "the connection broke" };
            DraftError::Unreachable { host, reason: reason.to_owned(), attempts }
        };
        Failure::Again { error, after: None }
    }
}

/// Doubles with each attempt; up to half of it is chance, so that many turns do not come back at once.
fn backoff(attempts: u32) -> Duration {
    let base = BACKOFF_MS << attempts.min(6);
    Duration::from_millis(base + rand::rng().random_range(0..=base / 2))
}

/// The service's error type (`invalid_api_key`), which holds no customer text, unlike its message.
fn error_kind(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = body.get("error").unwrap_or(&body);
    let kind = ["code", "type"].iter().find_map(|name| error.get(name)?.as_str()).unwrap_or("no error type given");
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    kind.chars().filter(plain).take(KIND_CHARACTERS_MAX).collect()
}
