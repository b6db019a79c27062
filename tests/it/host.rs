//! A host under test: its own database, its own stream, its own simulated Meta.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use frontdesk_server::app::{App, Roles, Server};
use frontdesk_server::clock::Clock;
use frontdesk_server::secrets::Secrets;
use frontdesk_server::settings::{PageSettings, Settings};
use frontdesk_testkit::{GraphSim, GraphSimConfig, SimPage, WebhookSender};
use secrecy::SecretString;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::database::{TestDb, fresh_database};

pub const PAGE: &str = "100200300400500";
pub const OTHER_PAGE: &str = "100200300400501";
pub const APP_ID: &str = "777000111222333";
pub const APP_SECRET: &str = "an app secret of the tests";
pub const ADMIN_TOKEN: &str = "an admin token of the tests";
pub const REVEAL_TOKEN: &str = "a reveal token of the tests";
pub const VERIFY_TOKEN: &str = "a verify token of the tests";
pub const PAGE_TOKEN: &str = "token of the page";
pub const OTHER_PAGE_TOKEN: &str = "token of the other page";
/// One key-encryption key.
pub const KEYS: &str = "test-1:dGhpcnR5LXR3byBieXRlcyBmb3IgdGhlIHRlc3RzISE=";
pub const TICKET_SECRET: &str = "a webhook secret of the tests";
/// Everything here takes milliseconds; this is only how long a broken host may keep a test.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What [`Host::teach_answer`] teaches answers this question with a quotation of [`ANSWER`].
pub const QUESTION: &str = "Do you ship to Austria?";
pub const ANSWER: &str = "Yes, we ship every parcel to Austria within three working days.";

/// What a test may change before the host starts.
pub struct Plan {
    pub settings: Settings,
    pub secrets: Secrets,
    pub roles: Roles,
    pub clock: Clock,
}

/// A running host and what it stands on.
pub struct Host {
    pub app: Arc<App>,
    pub address: String,
    pub graph: Arc<GraphSim>,
    pub meta: WebhookSender,
    pub http: reqwest::Client,
    stop: CancellationToken,
    task: Option<JoinHandle<anyhow::Result<()>>>,
    /// A runtime of its own, which can be ended with everything in it, wherever it is.
    mortal: Option<tokio::runtime::Runtime>,
    plan: Planner,
    ground: Arc<Ground>,
}

/// Changes the plan of a host, at its start and at each restart.
type Planner = Arc<dyn Fn(&mut Plan) + Send + Sync>;

/// What outlives a restart of the host.
pub struct Ground {
    pub db: TestDb,
    pub namespace: String,
    pub dir: tempfile::TempDir,
}

impl Ground {
    pub async fn new() -> Arc<Self> {
        Arc::new(Self {
            db: fresh_database().await,
            namespace: format!("test-{}", Uuid::new_v4().simple()),
            dir: tempfile::tempdir().unwrap(),
        })
    }
}

/// Meta with two Pages.
pub async fn simulated_meta() -> Arc<GraphSim> {
    let page = |id: &str, token: &str| SimPage { page_id: id.into(), name: "Lindner Tea".into(), token: token.into() };
    let config = GraphSimConfig {
        pages: vec![page(PAGE, PAGE_TOKEN), page(OTHER_PAGE, OTHER_PAGE_TOKEN)],
        app_id: APP_ID.into(),
        app_secret: APP_SECRET.into(),
        requires_proof: true,
        ..GraphSimConfig::default()
    };
    Arc::new(GraphSim::start(config).await.unwrap())
}

/// The folder of chains that the repository ships, with built components.
pub fn shipped_policies() -> PathBuf {
    let built = std::env::var_os("FRONTDESK_COMPONENTS_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/components"), PathBuf::from);
    assert!(
        built.join("classify-rules.wasm").is_file(),
        "no components in {}: run `cargo xtask components`",
        built.display()
    );
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

fn own_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

impl Host {
    /// Starts a host with the shipped policies and a little knowledge.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(plan: impl Fn(&mut Plan) + Send + Sync + 'static) -> Self {
        Self::start_on(Ground::new().await, simulated_meta().await, Arc::new(plan)).await
    }

    /// On a database that the test has prepared.
    pub async fn start_on_ground(ground: Arc<Ground>, plan: impl Fn(&mut Plan) + Send + Sync + 'static) -> Self {
        Self::start_on(ground, simulated_meta().await, Arc::new(plan)).await
    }

    /// As [`Host::start_on_ground`], for a host that is to die: see [`Host::die_and_start`].
    pub async fn start_mortal(ground: Arc<Ground>, plan: impl Fn(&mut Plan) + Send + Sync + 'static) -> Self {
        Self::start_in(Some(own_runtime()), ground, simulated_meta().await, Arc::new(plan)).await
    }

    /// Ends the host amid whatever it does (no task of it goes on, its connections break) and starts another on what it left.
    pub async fn die_and_start(&mut self) {
        let mortal = self.mortal.take().expect("the host was started as a mortal one");
        mortal.shutdown_background();
        self.task = None;
        let (ground, graph, plan) = (Arc::clone(&self.ground), Arc::clone(&self.graph), Arc::clone(&self.plan));
        *self = Self::start_in(Some(own_runtime()), ground, graph, plan).await;
    }

    async fn start_on(ground: Arc<Ground>, graph: Arc<GraphSim>, plan: Planner) -> Self {
        Self::start_in(None, ground, graph, plan).await
    }

    async fn start_in(
        mortal: Option<tokio::runtime::Runtime>,
        ground: Arc<Ground>,
        graph: Arc<GraphSim>,
        plan: Planner,
    ) -> Self {
        let mut wanted = Plan {
            settings: settings(&ground, &graph),
            secrets: secrets(&ground),
            roles: Roles { serve: true, work: true },
            clock: Clock::default(),
        };
        plan(&mut wanted);
        let building = Server::build_at(wanted.settings, wanted.secrets, wanted.roles, wanted.clock);
        let server = match &mortal {
            Some(runtime) => runtime.spawn(building).await.unwrap(),
            None => building.await,
        };
        let server = server.unwrap();
        let (app, stop) = (Arc::clone(&server.app), server.stopper());
        let address = format!("http://{}", server.address);
        let callback = format!("{address}/meta/webhook");
        graph.set_callback(&callback).unwrap();
        let meta = WebhookSender::new(&callback, APP_SECRET, PAGE).unwrap();
        let serving = server.run_until_stopped();
        let task = Some(match &mortal {
            Some(runtime) => runtime.spawn(serving),
            None => tokio::spawn(serving),
        });
        Self { app, address, graph, meta, http: reqwest::Client::new(), stop, task, mortal, plan, ground }
    }

    /// The database below the host.
    pub fn pool(&self) -> &sqlx::PgPool {
        &self.ground.db.pool
    }

    /// The address of the database below the host.
    pub fn database_url(&self) -> &str {
        &self.ground.db.url
    }

    /// Stops the host and starts another on the same database.
    pub async fn restart(mut self) -> Self {
        let (ground, graph, plan) = (Arc::clone(&self.ground), Arc::clone(&self.graph), Arc::clone(&self.plan));
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.await.unwrap().unwrap();
        }
        Self::start_on(ground, graph, plan).await
    }

    /// Puts a document into the Page's knowledge.
    pub async fn teach(&self, title: &str, text: &str) {
        let body = serde_json::json!({ "title": title, "text": text });
        let (status, answer) = self.admin("POST", "/admin/knowledge/text", Some(body)).await;
        assert!((200..300).contains(&status), "{status}: {answer}");
    }

    /// Calls the admin API as agent Ada.
    pub async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.address))
            .bearer_auth(ADMIN_TOKEN)
            .header("X-Frontdesk-Agent", "ada");
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    /// The turns that were decided for a person so far.
    pub async fn turns(&self, psid: &str) -> Vec<Value> {
        let (status, answer) =
            self.admin("GET", &format!("/admin/conversations/by-psid/{PAGE}/{psid}/turns"), None).await;
        if status == 404 {
            return Vec::new();
        }
        assert_eq!(status, 200, "{answer}");
        answer["turns"].as_array().cloned().unwrap_or_default()
    }

    /// What a person's conversation shows: author, message id, text; oldest first.
    pub async fn transcript(&self, psid: &str) -> Vec<(String, String, String)> {
        let id = self.conversation(psid).await;
        let (status, answer) = self.admin("GET", &format!("/admin/conversations/{id}"), None).await;
        assert_eq!(status, 200, "{answer}");
        let text = |message: &Value, key: &str| message[key].as_str().unwrap_or_default().to_owned();
        let messages = answer["transcript"].as_array().cloned().unwrap_or_default();
        messages.iter().map(|m| (text(m, "author"), text(m, "mid"), text(m, "text"))).collect()
    }

    /// The texts that a person wrote, oldest first.
    pub async fn said(&self, psid: &str) -> Vec<String> {
        let transcript = self.transcript(psid).await;
        transcript.into_iter().filter(|(author, ..)| author == "customer").map(|(.., text)| text).collect()
    }

    /// The id of a person's conversation.
    pub async fn conversation(&self, psid: &str) -> Uuid {
        sqlx::query_scalar("select id from conversations where page_id = $1 and psid = $2")
            .bind(PAGE)
            .bind(psid)
            .fetch_one(self.pool())
            .await
            .unwrap()
    }

    /// Waits until nothing is unread and nothing is about to be sent: the host has done what it can.
    pub async fn drained(&self) {
        let started = Instant::now();
        let open = "select (select count(*) from inbox where state = 'pending')
                         + (select count(*) from outbox where state in ('queued', 'sending', 'unknown'))
                         + (select count(*) from decisions where record_state = 'pending')";
        while self.count(open).await > 0 {
            if started.elapsed() > PATIENCE {
                let left: Vec<Value> = sqlx::query_scalar(
                    "select jsonb_build_object('unread', i.kind, 'psid', i.psid, 'attempts', i.attempts, 'not_before', i.not_before,
                                               'note', i.note, 'lease_until', c.lease_until, 'token', c.lease_token, 'now', now())
                       from inbox i left join conversations c on c.page_id = i.page_id and c.psid = i.psid
                       where i.state = 'pending'
                     union all
                     select to_jsonb(o) - 'text' from outbox o where o.state in ('queued', 'sending', 'unknown')
                     union all
                     select jsonb_build_object('unrecorded', d.turn_id, 'outcome', d.outcome, 'since', d.created_at, 'now', now())
                       from decisions d where d.record_state = 'pending'",
                )
                .fetch_all(self.pool())
                .await
                .unwrap();
                panic!("after {PATIENCE:?} there is still: {left:#?}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for a condition, asking again at short intervals; a test never passes by mere waiting.
    pub async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let started = Instant::now();
        while !condition().await {
            assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} for: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Posts a question that the host has to take, and tells Meta's record of it; gives its id.
    pub async fn ask(&self, psid: &str, text: &str) -> String {
        let (mid, status) = self.meta.text(psid, text).await.unwrap();
        assert_eq!(status, 200, "{text}");
        self.graph.record_inbound(self.meta.page_id(), psid, &mid, text);
        mid
    }

    /// Teaches the sentence that answers [`QUESTION`].
    pub async fn teach_answer(&self) {
        self.teach("Shipping to Austria", ANSWER).await;
    }

    /// The texts that a person got.
    pub fn got(&self, psid: &str) -> Vec<String> {
        self.graph.sends_to(psid).into_iter().map(|sent| sent.text).collect()
    }

    /// A sender of another Page's events.
    pub fn meta_of(&self, page_id: &str) -> WebhookSender {
        WebhookSender::new(format!("{}/meta/webhook", self.address), APP_SECRET, page_id).unwrap()
    }

    /// The rows of a person's outbox in sending order: state, attempts, error code, subcode.
    pub async fn outbox(&self, psid: &str) -> Vec<(String, i32, Option<i32>, Option<i32>)> {
        sqlx::query_as("select state, attempts, error_code, error_subcode from outbox where psid = $1 order by seq")
            .bind(psid)
            .fetch_all(self.pool())
            .await
            .unwrap()
    }

    /// Waits until a person's outbox rows are in these states.
    pub async fn until_outbox(&self, psid: &str, states: &[&str]) {
        self.until(&format!("{psid}'s messages {states:?}"), async || {
            self.outbox(psid).await.iter().map(|row| row.0.as_str()).eq(states.iter().copied())
        })
        .await;
    }

    /// The reasons of a person's tickets, oldest first.
    pub async fn tickets(&self, psid: &str) -> Vec<String> {
        sqlx::query_scalar(
            "select t.reason from tickets t join conversations c on c.id = t.conversation_id
             where c.psid = $1 order by t.created_at",
        )
        .bind(psid)
        .fetch_all(self.pool())
        .await
        .unwrap()
    }

    /// Who owns a person's conversation: `bot`, `human` or `not_ours`.
    pub async fn owner(&self, psid: &str) -> String {
        sqlx::query_scalar("select state from conversations where psid = $1")
            .bind(psid)
            .fetch_one(self.pool())
            .await
            .unwrap()
    }

    /// A Page's state: `active`, `parked` or `stopped`.
    pub async fn page_state(&self, page_id: &str) -> String {
        sqlx::query_scalar("select state from pages where page_id = $1")
            .bind(page_id)
            .fetch_one(self.pool())
            .await
            .unwrap()
    }

    /// Waits until nothing is unread.
    pub async fn read_all(&self) {
        self.until("nothing unread", async || {
            self.count("select count(*) from inbox where state = 'pending'").await == 0
        })
        .await;
    }

    /// One number from the database.
    pub async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(self.pool()).await.unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(mortal) = self.mortal.take() {
            // A runtime that is merely dropped would wait, which asynchronous code may not.
            mortal.shutdown_background();
        }
    }
}

/// Settings whose pauses are short, for a host on this ground.
pub fn settings(ground: &Ground, graph: &GraphSim) -> Settings {
    let mut settings = Settings::load(None).unwrap();
    settings.server.listen = "127.0.0.1:0".into();
    settings.graph.base_url = graph.base_url();
    settings.graph.app_id = APP_ID.into();
    settings.graph.timeout_ms = 2_000;
    settings.queue.namespace.clone_from(&ground.namespace);
    settings.queue.sweep_ms = 200;
    settings.database.connections_max = 8;
    settings.outbox.poll_ms = 50;
    settings.outbox.retry_ms = 20;
    settings.outbox.in_doubt_after_ms = 2_500;
    settings.outbox.echo_grace_ms = 300;
    settings.worker.retry_ms = 50;
    settings.policies.dir = shipped_policies();
    settings.extraction.program = crate::ingestion::program();
    settings.policies.instances_max = 16;
    // Compiled policies are kept here, so that not every test compiles them again.
    settings.objects.dir = ground.dir.path().join("objects");
    settings.engines.data_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("host-data");
    settings.pages = vec![page(PAGE), page(OTHER_PAGE)];
    settings
}

fn page(id: &str) -> PageSettings {
    PageSettings {
        id: id.into(),
        name: "Lindner Tea".into(),
        chain: "default".into(),
        time_zone: "Europe/Vienna".into(),
        language: "en".into(),
        token_file: None,
        token_env: None,
        public_contacts: Vec::new(),
    }
}

fn secrets(ground: &Ground) -> Secrets {
    let redis =
        std::env::var("REDIS_URL").expect("REDIS_URL must name a Redis for the tests (cargo xtask test sets it)");
    Secrets {
        app_secrets: vec![SecretString::from(APP_SECRET)],
        verify_token: SecretString::from(VERIFY_TOKEN),
        admin_token: SecretString::from(ADMIN_TOKEN),
        page_tokens: [(PAGE, PAGE_TOKEN), (OTHER_PAGE, OTHER_PAGE_TOKEN)]
            .map(|(id, token)| (id.to_owned(), SecretString::from(token)))
            .into(),
        ticket_webhook: Some(SecretString::from(TICKET_SECRET)),
        reveal_token: Some(SecretString::from(REVEAL_TOKEN)),
        s3: None,
        keys: Some(SecretString::from(KEYS)),
        database_url: Some(SecretString::from(ground.db.url.clone())),
        redis_url: Some(SecretString::from(redis)),
    }
}
