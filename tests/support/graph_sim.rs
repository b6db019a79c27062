//! A Graph server on loopback.
//!
//! # What it does as Meta does
//! - Any version prefix. The token is checked first (190), then `appsecret_proof` if required, then the body: empty or
//!   2000-character texts, `sender_action` with a message (100-2018014), retired tags (100-1893061), unknown persons
//!   (100-2018001), closed windows (10-2018278) unless the tag is HUMAN_AGENT, threads of another app (100-2534037).
//! - A message it takes gets an id of Meta's form, and an echo with the same id and the sender's `metadata` goes to the
//!   webhook, signed.
//! - The rest of what a host calls: conversations, thread owner and control, subscriptions, `debug_token`, profiles,
//!   `me/accounts`, `oauth/access_token`.
//!
//! # What it does on demand
//! [`GraphSim::script`] queues an [`Outcome`] for the next message, one per call: errors, delays, rate limits, pages of
//! HTML, and the two that hurt: taken but the answer is lost, and not taken with the connection cut.
//!
//! # Looking at it
//! Everything taken and every call is kept (bounded); `wait_for_*` returns as soon as the condition holds.

mod answer;
mod edges;
mod messages;
mod server;
mod state;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use state::Shared;

/// A Page of the simulated platform.
#[derive(Clone, Debug)]
pub struct SimPage {
    pub page_id: String,
    pub name: String,
    pub token: String,
}

/// How the platform is set up.
#[derive(Clone, Debug)]
pub struct GraphSimConfig {
    pub listen: SocketAddr,
    pub pages: Vec<SimPage>,
    pub app_id: String,
    pub app_secret: String,
    /// "Require App Secret" in the dashboard.
    pub requires_proof: bool,
    /// Where echoes and thread-control events go; `None` keeps them in.
    pub callback_url: Option<String>,
    /// Refuse persons who never were introduced by [`GraphSim::add_person`]; otherwise everyone is known.
    pub is_strict_about_people: bool,
    pub echoes: EchoPlan,
}

impl Default for GraphSimConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            pages: vec![SimPage {
                page_id: "106000000000001".to_owned(),
                name: "Simulated Page".to_owned(),
                token: "sim-page-token".to_owned(),
            }],
            app_id: "1234567890".to_owned(),
            app_secret: "sim-app-secret".to_owned(),
            requires_proof: false,
            callback_url: None,
            is_strict_about_people: false,
            echoes: EchoPlan::default(),
        }
    }
}

/// How echoes are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoPlan {
    /// 0: never; 2 and more: with duplicates.
    pub copies: u32,
    pub delay: Duration,
}

impl Default for EchoPlan {
    fn default() -> Self {
        Self { copies: 1, delay: Duration::ZERO }
    }
}

impl EchoPlan {
    /// No echoes at all.
    pub const OFF: Self = Self { copies: 0, delay: Duration::ZERO };
}

/// The fate of one call.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// As if nothing were scripted.
    Ok,
    /// Refused with a Graph error.
    Error { status: u16, code: i64, subcode: Option<i64>, is_transient: bool },
    /// Handled normally, answered later.
    Delay(Duration),
    /// Taken and echoed; the connection is cut before the answer.
    LostResponse,
    /// Not taken; the connection is cut.
    CutConnection,
    /// Never answered. Taken and echoed if so said.
    Hang { is_taken: bool },
    /// Taken; the answer is 200 with a body nobody can read.
    UnreadableSuccess,
    /// Refused by Meta's limits, with the headers that say so.
    RateLimited { code: i64, regain_after_minutes: u32 },
    /// Taken, with usage headers at this percentage.
    Usage { percent: u32 },
    /// Not taken; a proxy's HTML page with this status.
    Html { status: u16 },
    /// Not taken; this status and no body.
    Empty { status: u16 },
}

impl Outcome {
    /// A Graph error with HTTP 400.
    pub fn error(code: i64, subcode: i64) -> Self {
        Self::Error { status: 400, code, subcode: (subcode != 0).then_some(subcode), is_transient: false }
    }
}

/// A message that was taken, or one that came from elsewhere, in the order of the conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct SentMessage {
    /// The order in the whole platform, from 1.
    pub seq: u64,
    pub page_id: String,
    pub psid: String,
    pub message_id: String,
    pub text: String,
    pub metadata: Option<String>,
    pub messaging_type: Option<String>,
    pub tag: Option<String>,
    /// The call's body.
    pub body: Value,
    pub at_ms: i64,
}

/// One message of a conversation, whoever wrote it.
#[derive(Clone, Debug, PartialEq)]
pub struct ThreadMessage {
    pub seq: u64,
    pub mid: String,
    pub is_from_page: bool,
    /// Written by a person of the Page in the Inbox.
    pub is_from_inbox: bool,
    pub text: String,
    pub metadata: Option<String>,
    pub at_ms: i64,
}

/// One call, whatever became of it. Tokens are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub method: String,
    /// Without version.
    pub path: String,
    pub query: Vec<(String, String)>,
    pub body: Value,
    /// `None` when the connection was cut or left hanging.
    pub status: Option<u16>,
}

/// A wait that ran out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("waited {waited_ms} ms for {expected}; found {found}")]
pub struct WaitError {
    pub waited_ms: u128,
    pub expected: String,
    pub found: String,
}

/// Why the platform does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the simulated Graph cannot listen on {address}; stop what uses that port or choose another one")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("the HTTP client for echoes cannot be built")]
    Client(#[from] reqwest::Error),
}

/// The running platform. Stops when dropped.
#[derive(Debug)]
pub struct GraphSim {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Drop for GraphSim {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl GraphSim {
    /// Starts on the configured address; port 0 takes a free one.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: GraphSimConfig) -> Result<Self, StartError> {
        let address = config.listen;
        let listener = TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
        let address = listener.local_addr().map_err(|source| StartError::Listen { address, source })?;
        let shared = Arc::new(Shared::new(config)?);
        let router = server::router(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the simulated Graph stopped");
            }
        });
        Ok(Self { address, shared, server })
    }

    /// What a client takes as its base URL.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes where echoes go: the host under test often gets its port later.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn set_callback(&self, callback_url: &str) -> reqwest::Result<()> {
        self.shared.set_callback(callback_url)
    }

    /// Puts the platform's clock ahead of the machine's: what it records from now on carries that time.
    pub fn set_ahead_ms(&self, ahead_ms: i64) {
        self.shared.set_ahead_ms(ahead_ms);
    }

    /// Queues the fate of the next message (not of sender actions).
    pub fn script(&self, outcome: Outcome) {
        self.script_on("messages", outcome);
    }

    /// Queues the fate of the next call of an edge or node: `messages`, `sender_action`, `conversations`, `debug_token`, …
    pub fn script_on(&self, edge: &str, outcome: Outcome) {
        self.shared.lock().script.push_back((edge.to_owned(), outcome));
    }

    /// How many scripted fates have not been used.
    pub fn scripted(&self) -> usize {
        self.shared.lock().script.len()
    }

    /// Changes how echoes are delivered from now on.
    pub fn set_echoes(&self, plan: EchoPlan) {
        self.shared.lock().config.echoes = plan;
    }

    /// Loses the next echoes.
    pub fn drop_next_echoes(&self, count: u32) {
        self.shared.lock().echoes_to_drop = count;
    }

    /// Makes a person known, with a name for their profile.
    pub fn add_person(&self, psid: &str, first_name: &str) {
        self.shared.change(|state| state.person(psid).first_name = Some(first_name.to_owned()));
    }

    /// Opens or closes a person's window.
    pub fn set_window_open(&self, psid: &str, is_open: bool) {
        self.shared.change(|state| state.person(psid).is_window_open = is_open);
    }

    /// Sets who owns a person's thread; `None` is idle.
    pub fn set_thread_owner(&self, psid: &str, app_id: Option<&str>) {
        self.shared.change(|state| state.person(psid).owner_app_id = app_id.map(str::to_owned));
    }

    /// Kills a Page's token with a subcode of error 190.
    pub fn kill_token(&self, page_id: &str, subcode: i64) {
        self.shared.change(|state| state.dead_tokens.insert(page_id.to_owned(), subcode));
    }

    /// Takes a permission away from every token.
    pub fn revoke_scope(&self, scope: &str) {
        self.shared.change(|state| state.scopes.retain(|held| held != scope));
    }

    /// Replaces a Page's token, as connecting it again does. The one of before is unknown from now on.
    pub fn renew_token(&self, page_id: &str, token: &str) {
        self.shared.change(|state| {
            state.dead_tokens.remove(page_id);
            if let Some(page) = state.config.pages.iter_mut().find(|page| page.page_id == page_id) {
                page.token = token.to_owned();
            }
        });
    }

    /// Tells which person of which Page an app-scoped id is.
    pub fn map_user(&self, user_id: &str, page_id: &str, psid: &str) {
        self.shared.change(|state| {
            state.page_ids.entry(user_id.to_owned()).or_default().push((page_id.to_owned(), psid.to_owned()));
        });
    }

    /// The fields that the app is subscribed to for a Page.
    pub fn subscribed_fields(&self, page_id: &str) -> Option<Vec<String>> {
        self.shared.lock().subscriptions.get(page_id).cloned()
    }

    /// Subscribes the app to these fields of a Page only.
    pub fn set_subscribed_fields(&self, page_id: &str, fields: &[&str]) {
        let fields = fields.iter().map(|field| (*field).to_owned()).collect();
        self.shared.change(|state| state.subscriptions.insert(page_id.to_owned(), fields));
    }

    /// Makes a Page's token good again.
    pub fn revive_token(&self, page_id: &str) {
        self.shared.change(|state| state.dead_tokens.remove(page_id));
    }

    /// Unsubscribes the app from a Page, as Meta does after an hour of failed deliveries.
    pub fn unsubscribe(&self, page_id: &str) {
        self.shared.change(|state| state.subscriptions.remove(page_id));
    }

    /// Tells the platform what a person wrote, so that the conversations edge shows it.
    pub fn record_inbound(&self, page_id: &str, psid: &str, mid: &str, text: &str) {
        let at_ms = self.shared.now_ms();
        self.shared.change(|state| state.record_elsewhere(page_id, psid, mid, text, false, at_ms));
    }

    /// Tells the platform what a person of the Page wrote in the Inbox.
    pub fn record_inbox(&self, page_id: &str, psid: &str, mid: &str, text: &str) {
        let at_ms = self.shared.now_ms();
        self.shared.change(|state| state.record_elsewhere(page_id, psid, mid, text, true, at_ms));
    }

    /// Messages taken so far, oldest first.
    pub fn sends(&self) -> Vec<SentMessage> {
        self.shared.lock().sends.clone()
    }

    /// Messages taken for one person, oldest first.
    pub fn sends_to(&self, psid: &str) -> Vec<SentMessage> {
        self.sends().into_iter().filter(|sent| sent.psid == psid).collect()
    }

    /// A whole conversation, oldest first.
    pub fn thread(&self, page_id: &str, psid: &str) -> Vec<ThreadMessage> {
        self.shared.lock().thread(page_id, psid).to_vec()
    }

    /// Calls so far, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls.clone()
    }

    /// Echoes that the callback has answered with 200 so far.
    pub fn echoes_delivered(&self) -> u64 {
        self.shared.lock().echoes_delivered
    }

    /// A number that grows with everything that happens; see [`GraphSim::changed`].
    pub fn version(&self) -> u64 {
        *self.shared.subscribe().borrow()
    }

    /// Waits until something happens after a version, or the time is up; gives the version then.
    pub async fn changed(&self, after: u64, timeout: Duration) -> u64 {
        let mut versions = self.shared.subscribe();
        let _ = tokio::time::timeout(timeout, versions.wait_for(|version| *version > after)).await;
        self.version()
    }

    /// Waits until at least so many messages were taken; gives all of them.
    ///
    /// # Errors
    /// When the time is up.
    pub async fn wait_for_sends(&self, count: usize, timeout: Duration) -> Result<Vec<SentMessage>, WaitError> {
        self.wait_until(&format!("{count} messages"), timeout, |state| state.sends.len() >= count).await?;
        Ok(self.sends())
    }

    /// Waits until at least so many calls of an edge were made; gives those.
    ///
    /// # Errors
    /// When the time is up.
    pub async fn wait_for_calls(&self, edge: &str, count: usize, timeout: Duration) -> Result<Vec<Call>, WaitError> {
        let is_edge = |call: &&Call| call.path.rsplit('/').next() == Some(edge);
        let is_met = |state: &state::State| state.calls.iter().filter(is_edge).count() >= count;
        self.wait_until(&format!("{count} calls of {edge}"), timeout, is_met).await?;
        Ok(self.shared.lock().calls.iter().filter(is_edge).cloned().collect())
    }

    /// Waits until the callback has acknowledged so many echoes.
    ///
    /// # Errors
    /// When the time is up.
    pub async fn wait_for_echoes(&self, count: u64, timeout: Duration) -> Result<(), WaitError> {
        self.wait_until(&format!("{count} echoes"), timeout, |state| state.echoes_delivered >= count).await
    }

    async fn wait_until(
        &self,
        expected: &str,
        timeout: Duration,
        is_met: impl Fn(&state::State) -> bool,
    ) -> Result<(), WaitError> {
        let mut versions = self.shared.subscribe();
        let shared = &self.shared;
        let wait = versions.wait_for(|_| is_met(&shared.lock()));
        let is_done = tokio::time::timeout(timeout, wait).await.is_ok();
        if is_done {
            return Ok(());
        }
        let state = self.shared.lock();
        let found = format!(
            "{} messages, {} calls, {} echoes acknowledged",
            state.sends.len(),
            state.calls.len(),
            state.echoes_delivered
        );
        Err(WaitError { waited_ms: timeout.as_millis(), expected: expected.to_owned(), found })
    }
}
