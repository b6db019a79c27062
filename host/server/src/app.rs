//! Wires the parts and runs them until stopped. `main`, the tests and the benchmark start the same [`Server`].

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use secrecy::SecretString;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer::{self, Drafter, ModelSettings};
use crate::clock::Clock;
use crate::db;
use crate::db::lent::Connections;
use crate::embedded::{Durability, Engines, EnginesConfig, Which};
use crate::golden::Goldens;
use crate::inbox::Inbox;
use crate::keys::{self, Keys};
use crate::knowledge::{self, Archive, Knowledge};
use crate::objects::{self, Objects};
use crate::observe::{Load, Observer};
use crate::outbox::Outbox;
use crate::pages::PageTokens;
use crate::policies::Policies;
use crate::queue::{Queue, WakeUps};
use crate::records::{Records, Writer};
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::spending::Budgeted;
use crate::words::WordSeals;

/// How long running turns and sends may take to end after a stop.
const DRAIN: Duration = Duration::from_secs(20);

/// What every part of the host may use.
pub struct App {
    /// All settings, checked.
    pub settings: Settings,
    /// App secrets, verify token, admin token, Page tokens.
    pub secrets: Secrets,
    /// The time that rules go by.
    pub clock: Clock,
    /// The database.
    pub pool: PgPool,
    /// Its connections, for the statements of turns.
    pub connections: Connections,
    /// What is sealed in the database opens with these.
    pub keys: Keys,
    /// Seals and opens people's words.
    pub words: WordSeals,
    /// Decision records: written beside the turns, read in one place.
    pub records: Records,
    /// The Pages' tokens, as they stand now.
    pub tokens: PageTokens,
    /// Redis, or what stands for it.
    pub queue: Queue,
    /// Sends wake-ups without waiting.
    pub wake_ups: WakeUps,
    /// Makes deliveries durable.
    pub inbox: Inbox,
    /// The serving policy revisions, by chain.
    pub policies: Policies,
    /// The Page's knowledge.
    pub knowledge: Arc<Knowledge>,
    /// Raw files of documents.
    pub objects: Objects,
    /// Drafts answers.
    pub drafter: Arc<dyn Drafter>,
    /// Asks golden questions before changes are made.
    pub goldens: Goldens,
    /// Learns from turns that were committed.
    pub observer: Observer,
    /// How busy this process is.
    pub load: Load,
    /// Sends what was committed.
    pub outbox: Outbox,
    /// Supervised Postgres and Valkey, when there are no addresses of one's own.
    pub engines: Option<Engines>,
    /// Renders the metrics page.
    pub metrics: PrometheusHandle,
    /// For outgoing calls that are not to Meta.
    pub http: reqwest::Client,
    /// When this process started.
    pub started: Instant,
    /// This process, in claims and status pages.
    pub replica: String,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("replica", &self.replica).finish_non_exhaustive()
    }
}

/// Which parts a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Webhook, admin API, health, metrics.
    pub serve: bool,
    /// Turns and deliveries.
    pub work: bool,
}

/// A running host.
#[derive(Debug)]
pub struct Server {
    pub app: Arc<App>,
    pub address: SocketAddr,
    roles: Roles,
    listener: Option<TcpListener>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// The inbox writers, wake-ups and acks outlive the webhook and the workers.
    late_tasks: TaskTracker,
    late_stop: CancellationToken,
}

impl Server {
    /// Connects, migrates, stages the policies and binds the port; nothing is served yet.
    pub async fn build(settings: Settings, secrets: Secrets, roles: Roles) -> anyhow::Result<Self> {
        Self::build_at(settings, secrets, roles, Clock::default()).await
    }

    /// As [`Server::build`], by a clock of the caller's.
    pub async fn build_at(settings: Settings, secrets: Secrets, roles: Roles, clock: Clock) -> anyhow::Result<Self> {
        let metrics = metrics_handle()?;
        let (engines, database_url, redis_url) = start_engines(&settings, &secrets).await?;
        let pool = db::connect(&database_url, settings.database.connections_max).await?;
        let keys = Keys::open(keys::obtain(&settings, secrets.keys.as_ref())?, &pool).await?;
        for page in &settings.pages {
            db::pages::upsert(&pool, page).await?;
        }
        let queue = Queue::new(&redis_url, &settings.queue)?;
        queue.probe().await;
        let tasks = TaskTracker::new();
        let late_tasks = TaskTracker::new();
        let (stop, late_stop) = (CancellationToken::new(), CancellationToken::new());
        let wake_ups = queue.start_sender(&late_tasks, &late_stop);
        let inbox_pool = db::connect_more(&database_url, settings.inbox.writers + 1).await?;
        let inbox = Inbox::start(
            inbox_pool,
            keys.clone(),
            &settings.inbox,
            settings.server.ack_timeout_ms,
            wake_ups.clone(),
            &late_tasks,
            &late_stop,
        );
        let writer = Writer::start(pool.clone(), keys.clone(), &settings.records, &late_tasks, &late_stop);
        let words = WordSeals::new(keys.clone());
        let records = Records::new(pool.clone(), keys.clone(), writer);
        let embedder = knowledge::embedder(&settings.embeddings)?;
        let mut drafter = answer::drafters(&settings.model, &settings.fallback_models, Some(Arc::clone(&embedder)))?;
        if drafter.asks_a_model() {
            let instead = answer::drafter(&ModelSettings::default(), Some(Arc::clone(&embedder)))?;
            drafter = Arc::new(Budgeted::new(drafter, instead, settings.model_budget, pool.clone(), clock.clone()));
        }
        let knowledge = Knowledge::new(pool.clone(), embedder, settings.retrieval.clone())?;
        let objects = Objects::open(&settings.objects, secrets.s3.as_ref(), &settings.engines.data_dir, pool.clone())?;
        let contacts = settings.pages.iter().map(|page| (page.id.clone(), page.public_contacts.clone())).collect();
        let knowledge = knowledge
            .with_change_of_model(settings.embeddings.clone())
            .with_extraction(settings.extraction.clone())?
            .with_redaction(settings.redaction.clone(), contacts)?
            .with_archive(Archive::new(objects.clone(), keys.clone()), settings.knowledge.versions_kept);
        let knowledge = Arc::new(knowledge);
        knowledge.prepare().await?;
        // Two hosts in one process are two replicas.
        let replica = format!("{}-{}-{:04x}", hostname(), std::process::id(), rand::random::<u16>());
        let policies = Policies::start(pool.clone(), records.clone(), &settings, &replica, &tasks, &stop).await?;
        let goldens = Goldens::new(
            pool.clone(),
            Arc::clone(&knowledge),
            Arc::clone(&drafter),
            policies.clone(),
            clock.clone(),
            &settings,
        );
        policies.set_examiner(Arc::new(goldens.clone()));
        let tokens = PageTokens::new(pool.clone(), keys.clone(), &secrets.page_tokens);
        tokens.refresh().await?;
        say_pages_without_token(&settings, &tokens);
        let outbox = Outbox::new(&settings, &secrets, tokens.clone())?;
        let observer = Observer::new(policies.clone(), &settings.policies.shadow);
        let load = Load::new(settings.worker.concurrency, settings.policies.instances_max);
        let listener = TcpListener::bind(&settings.server.listen).await.map_err(|source| {
            anyhow::anyhow!(
                "cannot listen on {}: {source}; choose another address with server.listen or FRONTDESK__SERVER__LISTEN",
                settings.server.listen
            )
        })?;
        let app = Arc::new(App {
            drafter,
            goldens,
            settings,
            secrets,
            clock,
            connections: Connections::new(pool.clone()),
            pool,
            keys,
            words,
            records,
            tokens,
            queue,
            wake_ups,
            inbox,
            policies,
            knowledge,
            objects,
            observer,
            load,
            outbox,
            engines,
            metrics,
            http: reqwest::Client::builder().build()?,
            started: Instant::now(),
            replica,
        });
        let address = listener.local_addr()?;
        Ok(Self { app, address, roles, listener: Some(listener), tasks, stop, late_tasks, late_stop })
    }

    /// A handle that ends [`Server::run_until_stopped`].
    pub fn stopper(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Serves until the stop token is cancelled, then lets running turns and sends end.
    pub async fn run_until_stopped(mut self) -> anyhow::Result<()> {
        if self.roles.work {
            crate::worker::start(&self.app, &self.tasks, &self.stop, &self.late_tasks, &self.late_stop);
            Observer::start(&self.app, &self.tasks, &self.stop);
            crate::outbox::start(&self.app, &self.tasks, &self.stop);
            crate::tickets::start(&self.app, &self.tasks, &self.stop);
            crate::ingestion::start(&self.app, &self.tasks, &self.stop);
            crate::privacy::erasure::start(&self.app, &self.tasks, &self.stop);
        }
        crate::health::start(&self.app, &self.tasks, &self.stop);
        crate::records::start_upkeep(&self.app, &self.tasks, &self.stop);
        crate::words::start_upkeep(&self.app, &self.tasks, &self.stop);
        self.app.tokens.start(&self.tasks, &self.stop);
        crate::pages::health::start(&self.app, &self.tasks, &self.stop);
        objects::start_sweeping(self.app.objects.clone(), &self.tasks, &self.stop);
        crate::knowledge::start_reembedding(Arc::clone(&self.app.knowledge), &self.tasks, &self.stop);
        if let Some(listener) = self.listener.take() {
            let stop = self.stop.clone();
            let mut router = crate::health::router(Arc::clone(&self.app));
            if self.roles.serve {
                router = router
                    .merge(crate::privacy::router(Arc::clone(&self.app)))
                    .merge(crate::admin::router(Arc::clone(&self.app)));
            }
            let mut router = router.layer(tower_http::catch_panic::CatchPanicLayer::new());
            if self.roles.serve {
                // It catches panics itself: a layer costs each delivery two boxes.
                router = router.merge(crate::webhook::router(Arc::clone(&self.app)));
            }
            let serving = axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await });
            let overdue = async {
                self.stop.cancelled().await;
                tokio::time::sleep(DRAIN).await;
            };
            tokio::select! {
                served = serving => served?,
                () = overdue => tracing::warn!("some clients did not finish their requests in time"),
            }
        } else {
            self.stop.cancelled().await;
        }
        self.tasks.close();
        if tokio::time::timeout(DRAIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("some turns did not end in time; their leases expire and another process repeats them");
        }
        self.late_stop.cancel();
        self.late_tasks.close();
        let _ = tokio::time::timeout(DRAIN, self.late_tasks.wait()).await;
        self.app.pool.close().await;
        Ok(())
    }
}

/// One recorder for the whole process; tests start several servers in one.
fn metrics_handle() -> anyhow::Result<PrometheusHandle> {
    // Held while the recorder is installed, so that of two servers that start at once one waits for the other's handle.
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut handle = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*handle {
        return Ok(handle.clone());
    }
    let installed = PrometheusBuilder::new().install_recorder()?;
    Ok(handle.insert(installed).clone())
}

/// Starts what the secrets give no address for, and returns both addresses.
async fn start_engines(
    settings: &Settings,
    secrets: &Secrets,
) -> anyhow::Result<(Option<Engines>, SecretString, SecretString)> {
    let which = match (&secrets.database_url, &secrets.redis_url) {
        (Some(database), Some(redis)) => return Ok((None, database.clone(), redis.clone())),
        (Some(_), None) => Which::Valkey,
        (None, Some(_)) => Which::Postgres,
        (None, None) => Which::Both,
    };
    if settings.engines.binaries_dir.as_os_str().is_empty() {
        anyhow::bail!(
            "no database: set DATABASE_URL and REDIS_URL to your own servers, or engines.binaries_dir to what \
             `cargo xtask fetch` unpacked"
        );
    }
    let config = EnginesConfig {
        binaries_dir: settings.engines.binaries_dir.clone(),
        data_dir: settings.engines.data_dir.clone(),
        durability: Durability::Durable,
    };
    let engines = Engines::start(config, which).await?;
    let own = |url: Option<SecretString>, supervised: Option<SecretString>| {
        url.or(supervised).ok_or_else(|| anyhow::anyhow!("a supervised server has no address; this is a defect"))
    };
    let database_url = own(secrets.database_url.clone(), engines.database_url())?;
    let redis_url = own(secrets.redis_url.clone(), engines.redis_url())?;
    Ok((Some(engines), database_url, redis_url))
}

fn say_pages_without_token(settings: &Settings, tokens: &PageTokens) {
    for page in settings.pages.iter().filter(|page| tokens.get(&page.id).is_none()) {
        tracing::warn!(page = page.id, "the Page has no access token yet; connect it with `frontdesk page connect`");
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_else(|| "host".to_owned())
}
