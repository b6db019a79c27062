//! The Graph API client: a call goes out, one [`Reply`] comes back.
//!
//! # What a reply holds
//! `result` is the success or one [`Failure`], decided by [`crate::classify`] from numbers. `usage` is what the rate-limit
//! headers say and comes with successes too, so that a lane can slow down before it is stopped. `trace` is what may be
//! logged: statuses, codes, `fbtrace_id`; never the token, never the text.
//!
//! # Sent, not sent, or unknown
//! The Send API has no idempotency key. So the client itself never repeats a call and follows no redirect, and it tells
//! apart how a call broke: no connection → surely not sent ([`Failure::Retry`]); after the request may have left, or with
//! an unreadable success → [`Failure::Ambiguous`], which the echo's `metadata` or [`GraphClient::conversation`] settles.
//!
//! # Tokens
//! They travel in the `Authorization` header, not in addresses, which end up in logs. With an app secret each call carries
//! `appsecret_proof`.

mod answers;
mod call;
mod connect;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

pub use answers::{
    ConnectedApp, Conversation, ConversationMessage, DebugToken, FeatureStatus, GranularScope, Profile, ThreadOwner,
};

pub use connect::{Account, LongLivedToken, PagePerson};

use crate::classify::{Failure, GraphError, PermanentReason};
use crate::ids::{AppId, Mid, PageId, Psid};
use crate::outbound::{OutboundMessage, Recipient, SenderAction};
use crate::usage::UsageReport;

/// Graph API version used unless set otherwise. Meta runs an expired one silently as the oldest that lives.
pub const DEFAULT_VERSION: &str = "v26.0";
/// Where Graph lives.
pub const DEFAULT_BASE_URL: &str = "https://graph.facebook.com";

/// Whether calls carry `appsecret_proof`; only possible with an app secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofForm {
    Plain,
    /// With `appsecret_time`, valid for five minutes: needs a correct clock.
    Timed,
}

/// How to reach Graph.
#[derive(Clone, Debug)]
pub struct GraphConfig {
    /// Without version or trailing slash.
    pub base_url: String,
    /// `vNN.N`.
    pub version: String,
    /// Signs `appsecret_proof`. Without it calls go without proof.
    pub app_secret: Option<SecretString>,
    pub proof_form: ProofForm,
    pub connect_timeout_ms: u64,
    /// For the whole call. A send that takes longer is ambiguous, so rather long.
    pub request_timeout_ms: u64,
}

impl Default for GraphConfig {
    fn default() -> Self {
        Self {
            base_url: DEFAULT_BASE_URL.to_owned(),
            version: DEFAULT_VERSION.to_owned(),
            app_secret: None,
            proof_form: ProofForm::Plain,
            connect_timeout_ms: 5_000,
            request_timeout_ms: 20_000,
        }
    }
}

/// A Page and its token.
#[derive(Clone, Debug)]
pub struct PageCredentials {
    pub page_id: PageId,
    pub token: SecretString,
}

/// A message that Graph took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub message_id: Mid,
    /// Absent for recipients that are not PSIDs.
    pub recipient_id: Option<Psid>,
}

/// What a log and a row may keep of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallTrace {
    /// `None` when no answer came.
    pub http_status: Option<u16>,
    pub code: Option<i64>,
    pub subcode: Option<i64>,
    /// What Meta's support asks for.
    pub fbtrace_id: Option<String>,
    /// How the connection broke, without the address.
    pub transport_error: Option<String>,
}

/// The answer to one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply<T> {
    pub result: Result<T, Failure>,
    pub usage: UsageReport,
    pub trace: CallTrace,
}

impl<T> Reply<T> {
    /// Reads the success further.
    fn and_then<U>(self, read: impl FnOnce(T) -> Result<U, Failure>) -> Reply<U> {
        Reply { result: self.result.and_then(read), usage: self.usage, trace: self.trace }
    }
}

/// Why a client cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphConfigError {
    #[error("the Graph address {base_url:?} is not an http or https URL without a query")]
    BaseUrl { base_url: String },
    #[error("the Graph version {version:?} is not of the form v26.0")]
    Version { version: String },
    #[error("a time-out is 0 ms; give at least 1")]
    ZeroTimeout,
    #[error("the HTTP client cannot be built; check the system's certificates")]
    Client {
        #[source]
        source: reqwest::Error,
    },
}

/// The client. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct GraphClient {
    http: reqwest::Client,
    /// Base address and version.
    root: reqwest::Url,
    config: GraphConfig,
}

impl GraphClient {
    /// Checks the configuration and builds the client; connects to nothing yet.
    ///
    /// # Errors
    /// See [`GraphConfigError`].
    pub fn new(config: GraphConfig) -> Result<Self, GraphConfigError> {
        let base = config.base_url.trim_end_matches('/').to_owned();
        if !is_version(&config.version) {
            return Err(GraphConfigError::Version { version: config.version });
        }
        let root = reqwest::Url::parse(&format!("{base}/{}", config.version)).ok();
        let is_usable = |url: &reqwest::Url| matches!(url.scheme(), "http" | "https") && url.query().is_none();
        let root = root.filter(is_usable).ok_or(GraphConfigError::BaseUrl { base_url: base })?;
        if config.connect_timeout_ms == 0 || config.request_timeout_ms == 0 {
            return Err(GraphConfigError::ZeroTimeout);
        }
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
            .timeout(Duration::from_millis(config.request_timeout_ms))
            // A redirected POST could be sent twice, and a token must not follow to another host.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|source| GraphConfigError::Client { source })?;
        Ok(Self { http, root, config })
    }

    /// Sends one message. `POST /{page}/messages`
    pub async fn send(&self, page: &PageCredentials, message: &OutboundMessage) -> Reply<Sent> {
        self.post(page, "messages", &message.to_json()).await.and_then(|body| answers::sent(&body))
    }

    /// Shows typing, marks seen or reacts. `POST /{page}/messages` without a message.
    pub async fn sender_action(
        &self,
        page: &PageCredentials,
        recipient: &Recipient,
        action: &SenderAction,
    ) -> Reply<()> {
        self.post(page, "messages", &action.to_json(recipient)).await.and_then(|_| Ok(()))
    }

    /// Gives the thread to another app. Sends that app and the standby apps a webhook.
    pub async fn pass_thread_control(
        &self,
        page: &PageCredentials,
        psid: &Psid,
        target: &AppId,
        metadata: Option<&str>,
    ) -> Reply<()> {
        let mut body = thread_body(psid, metadata);
        body["target_app_id"] = json!(target);
        self.post(page, "pass_thread_control", &body).await.and_then(|body| answers::success(&body))
    }

    /// Takes the thread; refused where the Page has no default app.
    pub async fn take_thread_control(&self, page: &PageCredentials, psid: &Psid, metadata: Option<&str>) -> Reply<()> {
        let body = thread_body(psid, metadata);
        self.post(page, "take_thread_control", &body).await.and_then(|body| answers::success(&body))
    }

    /// Leaves the thread idle. Sends no webhook.
    pub async fn release_thread_control(
        &self,
        page: &PageCredentials,
        psid: &Psid,
        metadata: Option<&str>,
    ) -> Reply<()> {
        let body = thread_body(psid, metadata);
        self.post(page, "release_thread_control", &body).await.and_then(|body| answers::success(&body))
    }

    /// Asks the owner for the thread.
    pub async fn request_thread_control(
        &self,
        page: &PageCredentials,
        psid: &Psid,
        metadata: Option<&str>,
    ) -> Reply<()> {
        let body = thread_body(psid, metadata);
        self.post(page, "request_thread_control", &body).await.and_then(|body| answers::success(&body))
    }

    /// Keeps the thread for up to seven days of inactivity instead of one.
    pub async fn extend_thread_control(&self, page: &PageCredentials, psid: &Psid, duration_s: u32) -> Reply<()> {
        let body = json!({ "recipient": { "id": psid }, "duration": duration_s });
        self.post(page, "extend_thread_control", &body).await.and_then(|body| answers::success(&body))
    }

    /// Who owns the thread; `None` when it is idle or not visible to us.
    pub async fn thread_owner(&self, page: &PageCredentials, psid: &Psid) -> Reply<Option<ThreadOwner>> {
        let query = [("recipient", psid.as_str())];
        self.get(&[page.page_id.as_str(), "thread_owner"], &query, &page.token, true)
            .await
            .and_then(|body| answers::thread_owner(&body))
    }

    /// The apps subscribed to the Page, with their fields: the probe for Meta's silent unsubscription.
    pub async fn subscribed_apps(&self, page: &PageCredentials) -> Reply<Vec<ConnectedApp>> {
        self.get(&[page.page_id.as_str(), "subscribed_apps"], &[], &page.token, true)
            .await
            .and_then(|body| answers::subscribed_apps(&body))
    }

    /// Subscribes this app to the Page's events.
    pub async fn subscribe(&self, page: &PageCredentials, fields: &[&str]) -> Reply<()> {
        let body = json!({ "subscribed_fields": fields.join(",") });
        self.post(page, "subscribed_apps", &body).await.and_then(|body| answers::success(&body))
    }

    /// What Meta knows of a token. A failure says nothing about the token, only about this call.
    pub async fn debug_token(
        &self,
        app_id: &AppId,
        app_secret: &SecretString,
        token: &SecretString,
    ) -> Reply<DebugToken> {
        let app_token = SecretString::from(format!("{app_id}|{}", app_secret.expose_secret()));
        let query = [("input_token", token.expose_secret())];
        self.get(&["debug_token"], &query, &app_token, false).await.and_then(|body| answers::debug_token(&body))
    }

    /// The newest messages with a person: where an ambiguous send is looked up. `None` when no conversation exists.
    pub async fn conversation(
        &self,
        page: &PageCredentials,
        psid: &Psid,
        messages_max: u32,
    ) -> Reply<Option<Conversation>> {
        let limit = messages_max.clamp(1, 100);
        let fields = format!("id,messages.limit({limit}){{id,created_time,from,to,message}}");
        let query = [("user_id", psid.as_str()), ("platform", "messenger"), ("fields", &fields)];
        self.get(&[page.page_id.as_str(), "conversations"], &query, &page.token, true)
            .await
            .and_then(|body| answers::conversation(&body))
    }

    /// A person's name. Where none can be read (2018218, 2018247) the profile is empty; keep that answer too.
    pub async fn profile(&self, page: &PageCredentials, psid: &Psid) -> Reply<Profile> {
        let query = [("fields", "first_name,last_name,profile_pic")];
        let reply = self.get(&[psid.as_str()], &query, &page.token, true).await;
        let mut reply = reply.and_then(|body| Ok(answers::profile(&body)));
        if reply.result == Err(Failure::Permanent { reason: PermanentReason::ProfileUnavailable }) {
            reply.result = Ok(Profile::default());
        }
        reply
    }

    /// Which conversation features Meta has switched on for the Page.
    pub async fn feature_status(&self, page: &PageCredentials) -> Reply<FeatureStatus> {
        let query = [("fields", "messaging_feature_status")];
        self.get(&["me"], &query, &page.token, true).await.and_then(|body| Ok(answers::feature_status(&body)))
    }

    async fn post(&self, page: &PageCredentials, edge: &str, body: &Value) -> Reply<Value> {
        let url = self.url(&[page.page_id.as_str(), edge]);
        let request = self.http.post(url).query(&self.proof(&page.token)).json(body);
        call::run(request.bearer_auth(page.token.expose_secret())).await
    }

    async fn get(&self, path: &[&str], query: &[(&str, &str)], token: &SecretString, with_proof: bool) -> Reply<Value> {
        let proof = if with_proof { self.proof(token) } else { Vec::new() };
        let request = self.http.get(self.url(path)).query(query).query(&proof);
        call::run(request.bearer_auth(token.expose_secret())).await
    }

    /// Ids come from outside: each is one path segment, whatever it contains.
    fn url(&self, path: &[&str]) -> reqwest::Url {
        let mut url = self.root.clone();
        // Always there for http and https, which the constructor has checked.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        url
    }

    fn proof(&self, token: &SecretString) -> Vec<(&'static str, String)> {
        let Some(secret) = &self.config.app_secret else { return Vec::new() };
        match self.config.proof_form {
            ProofForm::Plain => vec![("appsecret_proof", crate::proof::appsecret_proof(secret, token))],
            ProofForm::Timed => {
                // Meta compares with its own clock, so this is the one place that reads ours.
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let unix_s = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
                let proof = crate::proof::appsecret_proof_at(secret, token, unix_s);
                vec![("appsecret_proof", proof), ("appsecret_time", unix_s.to_string())]
            }
        }
    }
}

fn thread_body(psid: &Psid, metadata: Option<&str>) -> Value {
    let mut body = json!({ "recipient": { "id": psid } });
    if let Some(metadata) = metadata {
        body["metadata"] = json!(metadata);
    }
    body
}

fn is_version(version: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    version.strip_prefix('v').and_then(|rest| rest.split_once('.')).is_some_and(|(a, b)| is_number(a) && is_number(b))
}
