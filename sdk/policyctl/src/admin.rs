//! A running host's admin API. `GET` changes nothing; `POST` moves revisions, in somebody's name and for a reason.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::cli::Failure;

const TOKEN: &str = "FRONTDESK_ADMIN_TOKEN";
/// Names the person who acts, for the host's audit log.
const AGENT_HEADER: &str = "x-frontdesk-agent";
const TOKEN_BYTES_MAX: u64 = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(60);
/// Time of a change: the host may judge thousands of decisions before it answers.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(900);
/// Longest answer that is read: a page of decision records is the longest.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Which host to ask. The token comes from FRONTDESK_ADMIN_TOKEN, or from the file that FRONTDESK_ADMIN_TOKEN_FILE names.
#[derive(Debug, Clone, clap::Args)]
pub struct Remote {
    /// Address of the host. Its admin token is taken from FRONTDESK_ADMIN_TOKEN, or from the file that
    /// FRONTDESK_ADMIN_TOKEN_FILE names.
    #[arg(long, value_name = "URL", env = "FRONTDESK_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
}

/// A host.
#[derive(Debug)]
pub struct AdminClient {
    base: Url,
    token: SecretString,
    http: reqwest::Client,
}

impl AdminClient {
    pub fn new(remote: &Remote) -> Result<Self, Failure> {
        let base = match Url::parse(&remote.url) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => url,
            _ => {
                let found = &remote.url;
                return Err(Failure::input(format!("--url is {found:?}, expected for example http://127.0.0.1:8080")));
            }
        };
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            // The token is for this host, not for wherever it points to.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Failure::unreachable(format!("the HTTP client cannot be built: {error}")))?;
        Ok(Self { base, token: token()?, http })
    }

    /// The answer to `GET /admin/<path>`; none when there is no such thing.
    pub async fn find(&self, path: &[&str], query: &[(&str, String)]) -> Result<Option<Value>, Failure> {
        let mut url = self.url(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.send(self.http.get(url)).await
    }

    /// The answer to `POST /admin/<path>`, in this person's name.
    pub async fn post(&self, path: &[&str], actor: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.http.post(self.url(path)?).header(AGENT_HEADER, actor).json(body).timeout(CHANGE_TIMEOUT);
        let found = self.send(request).await?;
        found.ok_or_else(|| Failure::input(format!("{}: there is no {}", self.base, path.join("/"))))
    }

    fn url(&self, path: &[&str]) -> Result<Url, Failure> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| Failure::input(format!("--url is {}, which cannot have a path", self.base)))?
            .pop_if_empty()
            .push("admin")
            .extend(path);
        Ok(url)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Option<Value>, Failure> {
        let base = self.base.as_str();
        let lost = |error: reqwest::Error| {
            if error.is_connect() {
                return Failure::unreachable(format!(
                    "nothing answers at {base}; does the host run? (--url names another)"
                ));
            }
            if error.is_timeout() {
                return Failure::unreachable(format!(
                    "{base} gave no answer in time. What it was asked to change, it may still change: see `policyctl status`"
                ));
            }
            Failure::unreachable(format!("{base}: {}", error.without_url()))
        };
        let mut response = request.bearer_auth(self.token.expose_secret()).send().await.map_err(lost)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Failure::unreachable(format!(
                    "{base}: the answer is larger than {ANSWER_BYTES_MAX} bytes"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        let answer: Option<Value> = serde_json::from_slice(&body).ok();
        if status.is_success() {
            let not_json =
                || Failure::unreachable(format!("{base} does not answer with JSON; is that a Frontdesk host?"));
            return answer.map(Some).ok_or_else(not_json);
        }
        let answer = answer.unwrap_or_default();
        let said = answer["error"]["message"].as_str().unwrap_or("no explanation; is that a Frontdesk host?");
        let message = format!("{base}: {} (HTTP {})", crate::words::one_line(said, 2_000), status.as_u16());
        match status {
            StatusCode::NOT_FOUND if answer["error"]["code"] == "not_found" => Ok(None),
            // What the host's engine or gate refuses is the component's matter.
            _ if matches!(answer["error"]["code"].as_str(), Some("gate" | "refused" | "quarantined")) => {
                Err(Failure::refused(message))
            }
            StatusCode::UNAUTHORIZED => Err(Failure::input(format!("{message}: check {TOKEN}"))),
            status if status.is_client_error() => Err(Failure::input(message)),
            _ => Err(Failure::unreachable(message)),
        }
    }

    /// The answer to `GET /admin/<path>`.
    pub async fn get(&self, path: &[&str], query: &[(&str, String)]) -> Result<Value, Failure> {
        let found = self.find(path, query).await?;
        found.ok_or_else(|| Failure::input(format!("{}: there is no {}", self.base, path.join("/"))))
    }
}

fn token() -> Result<SecretString, Failure> {
    let (text, source) = match (std::env::var(TOKEN), std::env::var_os(format!("{TOKEN}_FILE"))) {
        (Ok(text), _) => (text, TOKEN.to_owned()),
        (Err(_), Some(path)) => {
            let path = PathBuf::from(path);
            let mut text = String::new();
            std::fs::File::open(&path)
                .and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text))
                .map_err(|error| Failure::file(&path, "read", &error))?;
            (text, path.display().to_string())
        }
        (Err(_), None) => {
            return Err(Failure::input(format!(
                "{TOKEN} is not set; set it to the host's admin token, or {TOKEN}_FILE to the path of a file that holds it"
            )));
        }
    };
    let text = text.trim();
    if text.is_empty() {
        return Err(Failure::input(format!("{source} is empty; expected the host's admin token")));
    }
    Ok(SecretString::from(text))
}
