//! Speaking to the admin API of a running host.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::multipart::Form;
use super::{Failure, Remote};
use crate::secrets;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A large document is embedded while the client waits.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

pub struct AdminClient {
    base: Url,
    token: SecretString,
    agent: String,
    http: reqwest::Client,
}

impl AdminClient {
    /// The host by its address (`--url`, or `server.listen` of the settings) and FRONTDESK_ADMIN_TOKEN.
    pub fn new(remote: &Remote) -> Result<Self, Failure> {
        let base = match &remote.url {
            Some(url) => url.clone(),
            None => local_url(&remote.config.load().map_err(Failure::usage)?.server.listen),
        };
        let base = parse_base(&base)?;
        let token =
            secrets::required("FRONTDESK_ADMIN_TOKEN", "the bearer token of the admin API").map_err(Failure::usage)?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            // The token is for this host, not for wherever it points to.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Failure::failed(format!("the HTTP client cannot be built: {error}")))?;
        let user =
            std::env::var("USER").ok().filter(|user| user.len() <= 60 && user.bytes().all(|b| b.is_ascii_graphic()));
        Ok(Self { base, token, agent: format!("cli:{}", user.as_deref().unwrap_or("?")), http })
    }

    pub async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Failure> {
        self.send(self.request(Method::GET, path, query)?).await
    }

    pub async fn post(&self, path: &[&str]) -> Result<Value, Failure> {
        self.send(self.request(Method::POST, path, &[])?).await
    }

    pub async fn post_json(&self, path: &[&str], body: &Value) -> Result<Value, Failure> {
        self.send(self.request(Method::POST, path, &[])?.json(body)).await
    }

    pub async fn delete(&self, path: &[&str]) -> Result<Value, Failure> {
        self.send(self.request(Method::DELETE, path, &[])?).await
    }

    pub async fn upload(&self, path: &[&str], form: Form) -> Result<Value, Failure> {
        let (content_type, body) = form.finish();
        self.send(self.request(Method::POST, path, &[])?.header("content-type", content_type).body(body)).await
    }

    fn request(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> Result<RequestBuilder, Failure> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| Failure::usage(format!("{} cannot have a path", self.base)))?
            .pop_if_empty()
            .push("admin")
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(self
            .http
            .request(method, url)
            .bearer_auth(self.token.expose_secret())
            .header("X-Frontdesk-Agent", &self.agent))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let base = self.base.as_str();
        let lost = |error: reqwest::Error| {
            if error.is_connect() {
                return Failure::failed(format!("nothing answers at {base}; does the host run? (--url names another)"));
            }
            Failure::failed(format!("{base}: {}", error.without_url()))
        };
        let mut response = request.send().await.map_err(lost)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Failure::failed(format!("{base}: the answer is larger than {ANSWER_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        let message = answer["error"]["message"].as_str().unwrap_or("no explanation; is that a Frontdesk host?");
        Err(Failure::failed(format!("{message} (HTTP {})", status.as_u16())))
    }
}

fn parse_base(url: &str) -> Result<Url, Failure> {
    match Url::parse(url) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err(Failure::usage(format!("--url is {url:?}, expected for example http://127.0.0.1:8080"))),
    }
}

/// The address at which a host that listens there is reached from the same machine.
fn local_url(listen: &str) -> String {
    match listen.parse::<SocketAddr>() {
        Ok(mut address) => {
            if address.ip().is_unspecified() {
                address.set_ip(match address {
                    SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                    SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
                });
            }
            format!("http://{address}")
        }
        Err(_) => format!("http://{listen}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_address_becomes_one_to_call() {
        let cases = [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:8080", "http://[::1]:8080"),
            ("10.0.0.7:8080", "http://10.0.0.7:8080"),
            ("localhost:8080", "http://localhost:8080"),
        ];
        for (listen, expected) in cases {
            assert_eq!(local_url(listen), expected);
            assert!(parse_base(&local_url(listen)).is_ok());
        }
        for wrong in ["", "127.0.0.1:8080", "ftp://x", "http://"] {
            assert!(matches!(parse_base(wrong), Err(Failure::Usage(_))), "{wrong:?}");
        }
    }
}
