//! Keeps one serving policy revision per chain, and swaps it while turns run.
//!
//! # Hot swap
//! File events only wake the reconciler; a slow poll stands behind them. It reads a chain's folder as a whole, waits until
//! two readings give the same hash (somebody may still be writing), and skips what it has already judged. Then
//! *stage* (compile off the async threads, link, check, configure, try) → *store* (revision and components in Postgres)
//! → *activate* (one pointer). A candidate that fails anywhere changes nothing: the old revision serves on, and the
//! reason stands in the log, the metrics, the status page and the table `policy_transitions`.
//!
//! # Invariants
//! - A turn pins its revision with [`Policies::current`] and keeps it to the end; the last holder frees the code.
//! - A revision serves only when it is stored, so every decision can name a revision that still exists, and a start with
//!   a broken folder serves the last good one.

mod artifacts;
mod bundle;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use frontdesk_policy_engine::{Bundle, Engine, EngineOptions, Revision, SnapshotStatus};
use notify_debouncer_full::notify::RecursiveMode;
use serde::Serialize;
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::db;
use crate::settings::{PolicySettings, Settings, ms};

pub use bundle::BundleError;

/// File events are gathered for this long.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Two readings of a folder must agree over this time.
const SETTLE: Duration = Duration::from_millis(60);
/// A folder that keeps changing is looked at again after so many readings.
const SETTLE_READINGS_MAX: usize = 50;

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("the policy engine cannot start: {source}")]
    Engine {
        #[from]
        source: frontdesk_policy_engine::EngineError,
    },
    #[error("{source}")]
    Bundle {
        #[from]
        source: BundleError,
    },
    #[error("{source}")]
    Stage {
        #[from]
        source: frontdesk_policy_engine::StageError,
    },
    #[error("the revision could not be stored: {source}")]
    Store {
        #[from]
        source: sqlx::Error,
    },
    #[error("staging was interrupted: {source}")]
    Interrupted {
        #[from]
        source: tokio::task::JoinError,
    },
}

/// A revision in service.
#[derive(Debug)]
pub struct Serving {
    pub revision: Revision,
    pub since: DateTime<Utc>,
    /// `folder`, or `last-good` when the folder could not be used at the start.
    pub origin: &'static str,
}

/// A candidate that was not activated.
#[derive(Debug, Clone, Serialize)]
pub struct Rejection {
    pub at: DateTime<Utc>,
    /// SHA-256 of what was read, when it could be read.
    pub content_sha256: Option<String>,
    pub reason: String,
}

/// One policy of a serving revision, for the status page.
#[derive(Debug, Clone, Serialize)]
pub struct PolicyStatus {
    pub hook: &'static str,
    pub name: String,
    pub version: String,
    pub component_sha256: String,
    pub settings_sha256: String,
    pub on_fault: &'static str,
    /// `snapshotted`, or why every call has to configure again.
    pub snapshot: String,
    pub unused_grants: Vec<String>,
}

/// What a chain does now.
#[derive(Debug, Clone, Serialize)]
pub struct ChainStatus {
    pub chain: String,
    pub revision: Option<String>,
    pub since: Option<DateTime<Utc>>,
    pub origin: Option<&'static str>,
    pub policies: Vec<PolicyStatus>,
    /// The newest candidate that was refused, unless a later one is serving.
    pub rejected: Option<Rejection>,
}

#[derive(Debug, Default)]
struct Chain {
    serving: Option<Arc<Serving>>,
    /// Hash of the content that was judged last.
    judged: Option<String>,
    rejected: Option<Rejection>,
}

struct Inner {
    engine: Engine,
    pool: PgPool,
    dir: PathBuf,
    names: Vec<String>,
    serving: ArcSwap<BTreeMap<String, Arc<Serving>>>,
    chains: Mutex<BTreeMap<String, Chain>>,
    wake: Notify,
}

/// The serving revisions. Cheap to clone.
#[derive(Clone)]
pub struct Policies {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies").field("chains", &self.inner.names).finish_non_exhaustive()
    }
}

impl Policies {
    /// Stages every chain that a Page names, and begins to watch. A chain without any usable revision leaves its Pages'
    /// turns to people until one is staged.
    pub async fn start(
        pool: PgPool,
        settings: &Settings,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, PolicyError> {
        let policies = Self::build(pool, settings)?;
        for chain in policies.inner.names.clone() {
            policies.reconcile(&chain).await;
            if policies.current(&chain).is_none() {
                policies.serve_last_good(&chain).await;
            }
        }
        let watcher = policies.watch(&settings.policies);
        tasks.spawn(policies.clone().watch_loop(watcher, ms(settings.policies.poll_ms), stop.clone()));
        Ok(policies)
    }

    fn build(pool: PgPool, settings: &Settings) -> Result<Self, PolicyError> {
        let cache = artifacts::FolderCache::open(&settings.engines.data_dir.join("policy-artifacts"));
        let options = EngineOptions {
            max_concurrent_calls: settings.policies.instances_max,
            cache: cache.map(|cache| Arc::new(cache) as Arc<dyn frontdesk_policy_engine::ArtifactCache>),
            ..EngineOptions::default()
        };
        let mut names: BTreeSet<String> = settings.pages.iter().map(|page| page.chain.clone()).collect();
        if names.is_empty() {
            names.insert("default".into());
        }
        Ok(Self {
            inner: Arc::new(Inner {
                engine: Engine::new(options)?,
                pool,
                dir: settings.policies.dir.clone(),
                names: names.into_iter().collect(),
                serving: ArcSwap::default(),
                chains: Mutex::default(),
                wake: Notify::new(),
            }),
        })
    }

    /// The revision that serves a chain now. A turn calls this once and keeps the answer.
    pub fn current(&self, chain: &str) -> Option<Arc<Serving>> {
        self.inner.serving.load().get(chain).cloned()
    }

    /// Looks at the folders now instead of at the next event.
    pub fn wake(&self) {
        self.inner.wake.notify_one();
    }

    /// What every chain does now, for the status page.
    pub fn status(&self) -> Vec<ChainStatus> {
        let chains = self.lock();
        self.inner
            .names
            .iter()
            .map(|name| {
                let chain = chains.get(name);
                let serving = chain.and_then(|chain| chain.serving.clone());
                ChainStatus {
                    chain: name.clone(),
                    revision: serving.as_ref().map(|serving| serving.revision.id().to_string()),
                    since: serving.as_ref().map(|serving| serving.since),
                    origin: serving.as_ref().map(|serving| serving.origin),
                    policies: serving.map(|serving| policies_of(&serving.revision)).unwrap_or_default(),
                    rejected: chain.and_then(|chain| chain.rejected.clone()),
                }
            })
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Chain>> {
        self.inner.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, settings: &PolicySettings) -> Option<impl Send + 'static> {
        let inner = Arc::clone(&self.inner);
        let made = notify_debouncer_full::new_debouncer(DEBOUNCE, None, move |_| inner.wake.notify_one());
        let watched = made.and_then(|mut debouncer| {
            // The folder, never a file: a file that is replaced by a rename is lost to its watcher.
            debouncer.watch(&settings.dir, RecursiveMode::Recursive)?;
            Ok(debouncer)
        });
        match watched {
            Ok(debouncer) => Some(debouncer),
            Err(error) => {
                tracing::warn!(
                    %error, dir = %settings.dir.display(), poll_ms = settings.poll_ms,
                    "the policy folder cannot be watched; it is polled"
                );
                None
            }
        }
    }

    async fn watch_loop(self, watcher: Option<impl Send + 'static>, poll: Duration, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.inner.wake.notified() => {}
                () = tokio::time::sleep(poll) => {}
                () = stop.cancelled() => break,
            }
            for chain in &self.inner.names {
                self.reconcile(chain).await;
            }
        }
        drop(watcher);
    }

    /// Makes the serving revision follow the folder, if the folder holds something new and good.
    async fn reconcile(&self, chain: &str) {
        let started = Instant::now();
        let read = self.read_settled(chain).await;
        let hash = match &read {
            Ok((_, hash)) => hash.clone(),
            // The same failure again is not news; another one is.
            Err(error) => format!("unreadable: {error}"),
        };
        if self.lock().entry(chain.to_owned()).or_default().judged.as_deref() == Some(hash.as_str()) {
            return;
        }
        let read_ms = started.elapsed().as_millis();
        let result = match read {
            Ok((bundle, _)) => self.stage_and_activate(chain, bundle, "folder", read_ms).await,
            Err(error) => Err(error.into()),
        };
        // What could not be stored is tried again: the folder is not to blame.
        if !matches!(result, Err(PolicyError::Store { .. } | PolicyError::Interrupted { .. })) {
            self.lock().entry(chain.to_owned()).or_default().judged = Some(hash.clone());
        }
        if let Err(error) = result {
            self.reject(chain, Some(hash), &error).await;
        }
    }

    /// Reads until two readings agree.
    async fn read_settled(&self, chain: &str) -> Result<(Bundle, String), BundleError> {
        let mut last = self.read(chain).await?;
        if self.lock().get(chain).is_some_and(|known| known.judged.as_deref() == Some(last.1.as_str())) {
            return Ok(last);
        }
        for _ in 0..SETTLE_READINGS_MAX {
            tokio::time::sleep(SETTLE).await;
            let again = self.read(chain).await?;
            if again.1 == last.1 {
                return Ok(again);
            }
            last = again;
        }
        Err(BundleError::Unsettled { chain: chain.to_owned() })
    }

    async fn read(&self, chain: &str) -> Result<(Bundle, String), BundleError> {
        bundle::read(&self.inner.pool, &self.inner.dir, chain).await
    }

    async fn stage_and_activate(
        &self,
        chain: &str,
        bundle: Bundle,
        origin: &'static str,
        read_ms: u128,
    ) -> Result<(), PolicyError> {
        let started = Instant::now();
        let inner = Arc::clone(&self.inner);
        let staged = bundle.clone();
        let revision = tokio::task::spawn_blocking(move || inner.engine.stage(&staged)).await??;
        let stage_ms = started.elapsed().as_millis();
        bundle::store(&self.inner.pool, chain, &bundle, &revision, origin).await?;
        let store_ms = started.elapsed().as_millis() - stage_ms;
        let id = revision.id().clone();
        self.activate(chain, revision, origin);
        metrics::counter!("frontdesk_policy_activations_total", "chain" => chain.to_owned()).increment(1);
        tracing::info!(
            chain,
            revision = id.short(),
            origin,
            read_ms,
            stage_ms,
            store_ms,
            "a policy revision is active"
        );
        Ok(())
    }

    fn activate(&self, chain: &str, revision: Revision, origin: &'static str) {
        let serving = Arc::new(Serving { revision, since: Utc::now(), origin });
        let mut chains = self.lock();
        let entry = chains.entry(chain.to_owned()).or_default();
        let old = entry.serving.replace(Arc::clone(&serving));
        entry.rejected = None;
        let mut all = BTreeMap::clone(&self.inner.serving.load());
        all.insert(chain.to_owned(), serving);
        self.inner.serving.store(Arc::new(all));
        drop(chains);
        // Freeing a component's code takes milliseconds; not on this thread, and not while a turn still holds it.
        if let Some(old) = old {
            std::mem::drop(tokio::task::spawn_blocking(move || drop(old)));
        }
    }

    async fn reject(&self, chain: &str, hash: Option<String>, error: &PolicyError) {
        let reason = describe(error);
        metrics::counter!("frontdesk_policy_rejections_total", "chain" => chain.to_owned()).increment(1);
        tracing::error!(chain, reason, "a policy candidate was rejected; the old revision serves on");
        let rejection = Rejection { at: Utc::now(), content_sha256: hash, reason: reason.clone() };
        self.lock().entry(chain.to_owned()).or_default().rejected = Some(rejection);
        let stored = db::revisions::transition(&self.inner.pool, chain, None, "rejected", "folder", &reason).await;
        if let Err(error) = stored {
            tracing::warn!(%error, chain, "the rejection could not be stored");
        }
    }

    async fn serve_last_good(&self, chain: &str) {
        let bundle = match bundle::last_good(&self.inner.pool, chain).await {
            Ok(Some(bundle)) => bundle,
            Ok(None) => {
                tracing::error!(chain, "there is no usable policy revision; this chain's turns go to people");
                return;
            }
            Err(error) => {
                tracing::error!(%error, chain, "the last good revision could not be read");
                return;
            }
        };
        let rejected = self.lock().get(chain).and_then(|known| known.rejected.clone());
        match self.stage_and_activate(chain, bundle, "last-good", 0).await {
            // The folder is still broken, and the status goes on saying so.
            Ok(()) => self.lock().entry(chain.to_owned()).or_default().rejected = rejected,
            Err(error) => tracing::error!(chain, reason = describe(&error), "the last good revision cannot be staged"),
        }
    }
}

/// The whole chain of causes in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    text
}

fn policies_of(revision: &Revision) -> Vec<PolicyStatus> {
    revision
        .policies()
        .zip(&revision.manifest().policies)
        .map(|(staged, manifest)| PolicyStatus {
            hook: manifest.hook.as_str(),
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            component_sha256: manifest.component_sha256.clone(),
            settings_sha256: manifest.settings_sha256.clone(),
            on_fault: manifest.on_fault.as_str(),
            snapshot: match staged.policy.snapshot() {
                SnapshotStatus::Snapshotted => "snapshotted".to_owned(),
                SnapshotStatus::NotPossible { reason } => format!("configured for each call: {reason}"),
            },
            unused_grants: staged.policy.unused_grants().to_vec(),
        })
        .collect()
}
