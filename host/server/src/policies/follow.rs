//! Following the row: what this process runs becomes what the chain's row says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use frontdesk_policy_engine::Revision;

use super::rollout::short;
use super::slots::{Canary, Share, Slots};
use super::{Policies, PolicyError, Serving, bundle};
use crate::db;
use crate::db::rollouts::Rollout;

/// Longest wait for a stored revision with its components.
const RESTORE_MAX: Duration = Duration::from_secs(60);
/// A revision that could not be staged here is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(60);

impl Policies {
    /// Makes this process run what the chain's row says.
    pub(super) async fn follow(&self, chain: &str) {
        let Ok(turnstile) = self.turnstile(chain) else { return };
        let _turn = turnstile.lock().await;
        let row = async {
            self.flush_trips(chain).await?;
            db::rollouts::get(&self.inner.pool, chain).await
        };
        match db::in_time(row).await {
            Ok(Some(row)) => self.install(chain, &row, None).await,
            Ok(None) => {}
            Err(error) => self.set_problem(chain, Some(format!("the chain's row cannot be read: {error}"))),
        }
    }

    /// Puts the row's revisions into their places. The caller has passed the turnstile. `fresh` is a revision that is
    /// staged already.
    pub(super) async fn install(&self, chain: &str, row: &Rollout, fresh: Option<&Arc<Revision>>) {
        let mut problems = Vec::new();
        let mut load = async |slot: &str, revision: &Option<String>| {
            let revision = revision.as_deref()?;
            match self.load(chain, revision, fresh).await {
                Ok(loaded) => Some(loaded),
                Err(error) => {
                    problems.push(format!("the {slot} revision {} cannot be staged: {error}", short(revision)));
                    None
                }
            }
        };
        let active = load("active", &row.active).await;
        let canary = load("canary", &row.canary).await;
        let shadow = load("shadow", &row.shadow).await;
        let previous = load("previous", &row.previous).await;

        let mut chains = self.lock();
        let known = chains.entry(chain.to_owned()).or_default();
        known.tripped.retain(|_, trip| trip.is_pending);
        let now = self.slots(chain);
        let origin = if row.origin == "api" { "api" } else { "folder" };
        let serving = |revision: Option<Arc<Revision>>, held: Option<&Arc<Serving>>| {
            // What a tripwire has taken out meanwhile stays out.
            let revision = revision.filter(|revision| !known.tripped.contains_key(revision.id().as_str()))?;
            Some(match held {
                Some(held) if held.revision.id() == revision.id() => Arc::clone(held),
                _ => Arc::new(Serving { revision, since: Utc::now(), origin }),
            })
        };
        let wanted = Slots {
            // Somebody must serve: what does so goes on when the new one cannot.
            active: serving(active, now.active.as_ref()).or_else(|| row.active.as_ref().and(now.active.clone())),
            canary: serving(canary, now.canary.as_ref().map(|canary| &canary.serving)).map(|serving| Canary {
                serving,
                share: u16::try_from(row.canary_share_bp).ok().and_then(Share::from_basis_points).unwrap_or_default(),
                page_ids: row.canary_page_ids.clone(),
            }),
            shadow: serving(shadow, now.shadow.as_ref()),
            previous: serving(previous, now.previous.as_ref()),
        };
        known.generation = row.generation;
        let changed = wanted.active.as_ref().map(|serving| serving.id()) != now.active.as_ref().map(|it| it.id());
        let problem = (!problems.is_empty()).then(|| problems.join("; "));
        let is_news = problem.is_some() && problem != known.problem;
        known.problem.clone_from(&problem);
        let active = wanted.active.clone();
        self.store_slots(chain, wanted);
        drop(chains);
        if let Some(problem) = problem.filter(|_| is_news) {
            metrics::counter!("frontdesk_policy_rejections_total", "chain" => chain.to_owned()).increment(1);
            tracing::error!(chain, problem, "this replica does not run what the chain's row says");
        }
        if let Some(active) = active.filter(|_| changed) {
            metrics::counter!("frontdesk_policy_activations_total", "chain" => chain.to_owned()).increment(1);
            tracing::info!(chain, revision = short(active.id()), origin, "a policy revision is active");
        }
    }

    fn set_problem(&self, chain: &str, problem: Option<String>) {
        let mut chains = self.lock();
        let known = chains.entry(chain.to_owned()).or_default();
        if let Some(problem) = problem.as_ref().filter(|problem| known.problem.as_ref() != Some(problem)) {
            tracing::warn!(chain, problem, "the chain's row is not followed; what serves goes on");
        }
        known.problem = problem;
    }

    /// A revision, ready to serve: the one that is held already, or staged from what is stored.
    pub(super) async fn load(
        &self,
        chain: &str,
        revision: &str,
        fresh: Option<&Arc<Revision>>,
    ) -> Result<Arc<Revision>, String> {
        if let Some(fresh) = fresh.filter(|fresh| fresh.id().as_str() == revision) {
            return Ok(Arc::clone(fresh));
        }
        if let Some(held) = self.slots(chain).loaded(revision) {
            return Ok(Arc::clone(&held.revision));
        }
        let known = self.lock().get(chain).and_then(|chain| chain.failed.get(revision).cloned());
        if let Some((_, error)) = known.filter(|(at, _)| at.elapsed() < RETRY_AFTER) {
            return Err(error);
        }
        let staged = self.stage_stored(chain, revision).await;
        let mut chains = self.lock();
        let failed = &mut chains.entry(chain.to_owned()).or_default().failed;
        failed.remove(revision);
        staged.map_err(|error| {
            let said = error.describe();
            // What keeps the database from answering says nothing about the revision.
            if !error.is_passing() {
                failed.retain(|_, (at, _)| at.elapsed() < RETRY_AFTER);
                failed.insert(revision.to_owned(), (Instant::now(), said.clone()));
            }
            said
        })
    }

    /// Stages a revision from what is stored.
    async fn stage_stored(&self, chain: &str, revision: &str) -> Result<Arc<Revision>, PolicyError> {
        let restored = tokio::time::timeout(
            RESTORE_MAX,
            bundle::restore(&self.inner.pool, &self.inner.provenance, chain, revision),
        )
        .await;
        let bundle = restored.map_err(|_| PolicyError::Silent { waited_s: RESTORE_MAX.as_secs() })??;
        self.inner.provenance.check(chain, &bundle)?;
        let staged = self.stage(bundle).await?;
        if staged.id().as_str() != revision {
            // Another version of the host may read the same files in another way.
            return Err(PolicyError::UnknownRevision { revision: revision.to_owned() });
        }
        Ok(staged)
    }
}
