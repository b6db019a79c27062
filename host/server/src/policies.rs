//! Keeps the policy revisions of every chain in their places, and swaps them while turns run.
//!
//! # Who decides
//! One row per chain in Postgres ([`crate::db::rollouts`]) says which revision is active, which is the canary and which the
//! shadow; every replica follows it ([`follow`]): `LISTEN` wakes it, a poll stands behind. Two things change the row:
//!
//! - **A folder** ([`folder`]). File events only wake the reader; it reads a chain's folder as a whole, waits until two
//!   readings give the same hash (somebody may still be writing), and skips what it has judged. New content is staged
//!   (compiled off the async threads, linked, checked, configured, tried), stored, judged by the [`gate`], and moved to where
//!   `[rollout]` of chain.toml says. A candidate that fails anywhere changes nothing: the old revision serves on, and the
//!   reason stands in the log, the metrics, the status page and the table `policy_transitions`.
//! - **A person or rule** ([`moves`], [`trip`]) through the admin API, by the canary's clock, or by a tripwire.
//!
//! The newest word counts: what a person decided stays until a folder's *content* changes again. A replica that starts with
//! a folder that was published before and replaced since has a stale one; it says so and follows the row, so that
//! replicas of two releases do not fight.
//!
//! # Invariants
//! - A turn takes its revision once, with [`Policies::pick`], and keeps it to the end; the last holder frees the code.
//! - A revision serves only when it is stored, so every decision can name a revision that still exists, and a start with
//!   a broken folder serves the last good one.
//! - A replica that cannot stage what the row says goes on with what it has, and says why.
//! - What was taken out by a tripwire is not loaded again, by nobody, until a person lifts the quarantine.

mod bundle;
mod error;
mod fleet;
mod folder;
mod follow;
mod gate;
mod moves;
pub(crate) mod provenance;
pub mod rollout;
pub mod slots;
mod status;
mod trip;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use frontdesk_policy_bundle::FolderCache;
use frontdesk_policy_engine::{ArtifactCache, Bundle, Engine, EngineOptions, PoolUse, Revision};
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::background;
use crate::records::Records;
use crate::settings::{Settings, is_plain_name, ms};
use slots::Slots;

pub use error::PolicyError;
pub use gate::{Examination, Examiner};
pub use moves::{By, Moved, Placement};
use provenance::Provenance;
pub use provenance::ProvenanceError;
pub use provenance::settings::{KeySettings, RegistrySettings, TrustError, TrustSettings};
pub use status::{ChainStatus, PolicyStatus, Rejection};
pub use trip::Tripped;

/// A revision in one of the places of its chain.
#[derive(Debug)]
pub struct Serving {
    pub revision: Arc<Revision>,
    /// Since when this process has it in this place.
    pub since: DateTime<Utc>,
    /// What put it there: `folder`, `api`, or `last-good` when the folder could not be used at the start.
    pub origin: &'static str,
}

impl Serving {
    /// The revision's id.
    pub fn id(&self) -> &str {
        self.revision.id().as_str()
    }
}

/// What this process knows of a chain beside its places.
#[derive(Debug, Default)]
struct Chain {
    /// The content of the folder that was judged last: its hash, or what was wrong with content that is no chain.
    seen: Option<String>,
    /// Why that content was refused.
    rejected: Option<Rejection>,
    /// Why the folder could not be read or judged at all, until it can.
    trouble: Option<Rejection>,
    /// Why the folder is not used, though nothing is wrong with it.
    folder: Option<String>,
    /// Why the row is not followed.
    problem: Option<String>,
    /// The row's generation that was followed last.
    generation: i64,
    /// A revision that does harm where nothing stands by to serve instead, and what it does.
    harm: Option<(String, String)>,
    /// What was taken out here, and is to stay out.
    tripped: BTreeMap<String, trip::Trip>,
    /// Revisions that are held with other thresholds than are stored.
    other_forms: Vec<String>,
    /// Revisions that cannot be staged here, and when that was tried.
    failed: BTreeMap<String, (Instant, String)>,
}

impl Chain {
    /// Why the folder is not what serves.
    fn refusal(&self) -> &Option<Rejection> {
        if self.trouble.is_some() { &self.trouble } else { &self.rejected }
    }

    /// What a person has to look at, while this revision is the active one.
    fn problem(&self, active: Option<&str>) -> Option<String> {
        let harm = self.harm.as_ref().filter(|(revision, _)| active == Some(revision.as_str()));
        let harm = harm.map(|(revision, reason)| {
            format!(
                "revision {} does harm, and serves on because nothing stands by to go back to: {reason}",
                rollout::short(revision)
            )
        });
        let problems: Vec<String> = self.problem.iter().cloned().chain(harm).collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }
}

/// Most compiled components that are kept.
const ARTIFACTS_MAX: usize = 64;

/// Compiled components on disk; `None` when the folder cannot be trusted, and the log says why.
fn artifacts(dir: &Path) -> Option<Arc<dyn ArtifactCache>> {
    match FolderCache::open(dir, ARTIFACTS_MAX) {
        Ok(cache) => Some(Arc::new(cache)),
        Err(error) => {
            tracing::warn!(%error, dir = %dir.display(), "compiled policies are not kept");
            None
        }
    }
}

struct Inner {
    engine: Engine,
    provenance: Provenance,
    pool: PgPool,
    /// What candidates are judged by.
    records: Records,
    replica: String,
    dir: PathBuf,
    /// Two readings of a folder must agree over this time.
    settle: Duration,
    names: Vec<String>,
    slots: ArcSwap<BTreeMap<String, Arc<Slots>>>,
    chains: Mutex<BTreeMap<String, Chain>>,
    /// Whoever follows or changes a chain's row goes through here, one at a time.
    turnstiles: BTreeMap<String, tokio::sync::Mutex<()>>,
    /// Asks golden questions of candidates; set once the rest of the host is there.
    examiner: OnceLock<Arc<dyn Examiner>>,
    /// The folders are to be read.
    wake: Notify,
    /// The rows are to be followed.
    changed: Notify,
}

/// The revisions in service. Cheap to clone.
#[derive(Clone)]
pub struct Policies {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies").field("chains", &self.inner.names).finish_non_exhaustive()
    }
}

/// Longest time for staging: some interpreters with their libraries take a minute to compile on a small machine.
const STAGE_MAX: Duration = Duration::from_secs(300);
/// Most folders that are looked at for chains.
const FOLDERS_MAX: usize = 1_000;

/// The chains that lie in the policy folder, whether or not a Page names them yet: a Page that is connected while the host
/// runs may.
fn folders(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().take(FOLDERS_MAX);
    entries
        .filter(|entry| entry.path().join("chain.toml").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_plain_name(name))
        .collect()
}

impl Policies {
    /// Brings every chain into service that a Page names or that has a folder, and begins to watch. A chain without any usable
    /// revision leaves its Pages' turns to people until there is one.
    pub async fn start(
        pool: PgPool,
        records: Records,
        settings: &Settings,
        replica: &str,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, PolicyError> {
        let connected = crate::db::pages::chains(&pool).await?;
        let policies = Self::build(pool, records, settings, connected, replica)?;
        for chain in &policies.inner.names {
            // What served last serves first: a new folder is judged against it, and a broken one changes nothing.
            Box::pin(policies.follow(chain)).await;
            Box::pin(policies.reconcile_folder(chain)).await;
            policies.mark_last_good(chain);
            if policies.current(chain).is_none() {
                tracing::error!(chain, "there is no usable policy revision; this chain's turns go to people");
            }
        }
        policies.start_tasks(&settings.policies, tasks, stop);
        Ok(policies)
    }

    /// Lets golden questions be asked of every candidate from now on. What the start finds in its folders is judged before.
    pub fn set_examiner(&self, examiner: Arc<dyn Examiner>) {
        let _ = self.inner.examiner.set(examiner);
    }

    /// Says of what serves at the start that it does so for want of a usable folder.
    fn mark_last_good(&self, chain: &str) {
        let chains = self.lock();
        let is_rejected = chains.get(chain).is_some_and(|known| known.refusal().is_some());
        let slots = self.slots(chain);
        if let Some(active) = slots.active.as_ref().filter(|_| is_rejected) {
            let (revision, since) = (Arc::clone(&active.revision), active.since);
            let active = Some(Arc::new(Serving { revision, since, origin: "last-good" }));
            self.store_slots(chain, Slots { active, ..Slots::clone(&slots) });
        }
    }

    fn build(
        pool: PgPool,
        records: Records,
        settings: &Settings,
        connected: Vec<String>,
        replica: &str,
    ) -> Result<Self, PolicyError> {
        let cache = artifacts(&settings.engines.data_dir.join("policy-artifacts"));
        let options =
            EngineOptions { max_concurrent_calls: settings.policies.instances_max, cache, ..EngineOptions::default() };
        let mut names: BTreeSet<String> = settings.pages.iter().map(|page| page.chain.clone()).collect();
        names.extend(connected);
        names.extend(folders(&settings.policies.dir));
        if names.is_empty() {
            names.insert("default".into());
        }
        Ok(Self {
            inner: Arc::new(Inner {
                engine: Engine::new(options)?,
                provenance: Provenance::build(pool.clone(), &settings.policies.registries, &settings.policies.trust)?,
                pool,
                records,
                replica: replica.to_owned(),
                dir: settings.policies.dir.clone(),
                settle: ms(settings.policies.settle_ms),
                turnstiles: names.iter().map(|name| (name.clone(), tokio::sync::Mutex::default())).collect(),
                names: names.into_iter().collect(),
                slots: ArcSwap::default(),
                chains: Mutex::default(),
                examiner: OnceLock::new(),
                wake: Notify::new(),
                changed: Notify::new(),
            }),
        })
    }

    /// The revision that serves a customer's turn: the canary when the customer falls under it, else the active one. A turn
    /// calls this once and keeps the answer. Takes no lock.
    pub fn pick(&self, chain: &str, page_id: &str, psid: &str) -> Option<Arc<Serving>> {
        self.inner.slots.load().get(chain).and_then(|slots| slots.pick(chain, page_id, psid)).cloned()
    }

    /// The active revision of a chain.
    pub fn current(&self, chain: &str) -> Option<Arc<Serving>> {
        self.inner.slots.load().get(chain).and_then(|slots| slots.active.clone())
    }

    /// The revision that judges beside the one that serves, if one does.
    pub fn shadow(&self, chain: &str) -> Option<Arc<Serving>> {
        self.inner.slots.load().get(chain).and_then(|slots| slots.shadow.clone())
    }

    /// All places of a chain as they are now.
    pub fn slots(&self, chain: &str) -> Arc<Slots> {
        self.inner.slots.load().get(chain).cloned().unwrap_or_default()
    }

    /// The chains of this host.
    pub fn chains(&self) -> &[String] {
        &self.inner.names
    }

    /// How much of the engine is in use.
    pub fn pool_use(&self) -> PoolUse {
        self.inner.engine.pool_use()
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
                let mut status = ChainStatus::of(name, &self.slots(name));
                if let Some(chain) = chains.get(name) {
                    status.rejected.clone_from(chain.refusal());
                    status.folder.clone_from(&chain.folder);
                    status.problem = chain.problem(status.revision.as_deref());
                }
                status
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Chain>> {
        self.inner.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turnstile(&self, chain: &str) -> Result<&tokio::sync::Mutex<()>, PolicyError> {
        self.inner
            .turnstiles
            .get(chain)
            .ok_or_else(|| PolicyError::UnknownChain { chain: chain.to_owned(), known: self.inner.names.clone() })
    }

    /// Stages a bundle beside the turns, and behind them when the host is busy. A compiler cannot be interrupted: one that takes too
    /// long goes on by itself, and what comes of it is dropped.
    async fn stage(&self, bundle: Bundle) -> Result<Arc<Revision>, PolicyError> {
        let inner = Arc::clone(&self.inner);
        let staging = background::run("policy-stage", move || inner.engine.stage(&bundle));
        let staged = tokio::time::timeout(STAGE_MAX, staging).await;
        let revision = staged.map_err(|_| PolicyError::StageSlow { waited_s: STAGE_MAX.as_secs() })???;
        Ok(Arc::new(revision))
    }

    /// Puts a chain's places in force. The caller holds the lock, so that nobody else does the same.
    fn store_slots(&self, chain: &str, slots: Slots) {
        let mut all = BTreeMap::clone(&self.inner.slots.load());
        let old = all.insert(chain.to_owned(), Arc::new(slots));
        self.inner.slots.store(Arc::new(all));
        // Freeing a component's code takes milliseconds; not on this thread, and not while a turn still holds it.
        if let Some(old) = old {
            std::mem::drop(tokio::task::spawn_blocking(move || drop(old)));
        }
    }
}
