//! Following the row: what this process runs becomes what the chain's row says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use frontdesk_policy_engine::{ChainSpec, Revision};

use super::folder::count_rejection;
use super::rollout::short;
use super::slots::{Canary, Share, Slots};
use super::{Policies, PolicyError, Serving, bundle};
use crate::db;
use crate::db::rollouts::Rollout;

/// Longest wait for a stored revision with its components.
const RESTORE_MAX: Duration = Duration::from_secs(60);
/// A revision that could not be staged here is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// A row that changes while its revisions are staged is read again at most so often before what was read is followed.
const READINGS_MAX: u32 = 5;

/// The revisions of a row, as far as they can be staged here.
struct Places {
    active: Option<Arc<Revision>>,
    canary: Option<Arc<Revision>>,
    shadow: Option<Arc<Revision>>,
    previous: Option<Arc<Revision>>,
    problems: Vec<String>,
}

impl Policies {
    /// Makes this process run what the chain's row says.
    pub(super) async fn follow(&self, chain: &str) {
        let Ok(turnstile) = self.turnstile(chain) else { return };
        let _turn = turnstile.lock().await;
        let row = async {
            self.flush_trips(chain).await?;
            db::rollouts::get(&self.inner.pool, chain).await
        };
        let mut row = db::in_time(row).await;
        for _ in 0..READINGS_MAX {
            let read = match row {
                Ok(Some(read)) => read,
                Ok(None) => return,
                Err(error) => {
                    return self.set_problem(chain, Some(format!("the chain's row cannot be read: {error}")));
                }
            };
            let places = self.load_places(chain, &read, None).await;
            // Staging takes long; what was rolled back or quarantined meanwhile must not serve for a moment.
            row = db::in_time(db::rollouts::get(&self.inner.pool, chain)).await;
            let is_old = matches!(&row, Ok(Some(now)) if now.generation != read.generation);
            if !is_old {
                return self.put(chain, &read, places);
            }
        }
    }

    /// Puts the row's revisions into their places. The caller has passed the turnstile. `fresh` is a revision that is
    /// staged already.
    pub(super) async fn install(&self, chain: &str, row: &Rollout, fresh: Option<&Arc<Revision>>) {
        let places = self.load_places(chain, row, fresh).await;
        self.put(chain, row, places);
    }

    async fn load_places(&self, chain: &str, row: &Rollout, fresh: Option<&Arc<Revision>>) -> Places {
        let mut problems = Vec::new();
        let is_known = self.lock().get(chain).is_some_and(|known| known.generation == row.generation);
        if !is_known {
            self.forget_other_forms(chain, row).await;
        }
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
        Places { active, canary, shadow, previous, problems }
    }

    /// Thresholds are no part of a revision's id. One that is held with others than are stored now is staged again.
    async fn forget_other_forms(&self, chain: &str, row: &Rollout) {
        let mut others = Vec::new();
        for revision in [&row.active, &row.canary, &row.shadow].into_iter().flatten() {
            let held = self.slots(chain).loaded(revision).map(|held| Arc::clone(&held.revision));
            let Some(held) = held else { continue };
            let stored = db::in_time(db::revisions::chain_toml(&self.inner.pool, chain, revision)).await;
            if let Ok(Some(text)) = stored
                && ChainSpec::parse(&text).is_ok_and(|stored| stored != *held.spec())
            {
                others.push(revision.clone());
            }
        }
        if let Some(known) = self.lock().get_mut(chain) {
            known.other_forms = others;
        }
    }

    fn put(&self, chain: &str, row: &Rollout, places: Places) {
        let Places { active, canary, shadow, previous, mut problems } = places;
        let mut chains = self.lock();
        let known = chains.entry(chain.to_owned()).or_default();
        known.tripped.retain(|_, trip| trip.is_pending);
        let now = self.slots(chain);
        let origin = if row.origin == "api" { "api" } else { "folder" };
        let serving = |revision: Option<Arc<Revision>>, held: Option<&Arc<Serving>>| {
            // What a tripwire has taken out meanwhile stays out.
            let revision = revision.filter(|revision| !known.tripped.contains_key(revision.id().as_str()))?;
            Some(match held {
                Some(held) if Arc::ptr_eq(&held.revision, &revision) => Arc::clone(held),
                // The same revision with other thresholds has been here since then.
                Some(held) if held.revision.id() == revision.id() => {
                    Arc::new(Serving { revision, since: held.since, origin: held.origin })
                }
                _ => Arc::new(Serving { revision, since: Utc::now(), origin }),
            })
        };
        // Somebody must serve: what does so goes on when the new one cannot, and at the start the one before steps in.
        let stands_in = || now.active.clone().or_else(|| serving(previous.clone(), now.previous.as_ref()));
        let active = serving(active, now.active.as_ref()).or_else(|| row.active.as_ref().and_then(|_| stands_in()));
        if let (Some(wanted), Some(active)) = (&row.active, &active)
            && active.id() != wanted
        {
            problems.push(format!("revision {} serves in its place", short(active.id())));
        }
        let wanted = Slots {
            active,
            canary: serving(canary, now.canary.as_ref().map(|canary| &canary.serving)).map(|serving| Canary {
                serving,
                share: u16::try_from(row.canary_share_bp).ok().and_then(Share::from_basis_points).unwrap_or_default(),
                page_ids: row.canary_page_ids.clone(),
            }),
            shadow: serving(shadow, now.shadow.as_ref()),
            previous: serving(previous, now.previous.as_ref()),
        };
        known.generation = row.generation;
        known.other_forms.clear();
        let changed = wanted.active.as_ref().map(|serving| serving.id()) != now.active.as_ref().map(|it| it.id());
        let problem = (!problems.is_empty()).then(|| problems.join("; "));
        if changed {
            known.harm = None;
        }
        let is_news = problem.is_some() && problem != known.problem;
        known.problem.clone_from(&problem);
        let active = wanted.active.clone();
        self.store_slots(chain, wanted);
        drop(chains);
        if let Some(problem) = problem.filter(|_| is_news) {
            count_rejection(chain, "row-not-followed".to_owned());
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
        let has_other_form =
            self.lock().get(chain).is_some_and(|known| known.other_forms.iter().any(|other| other == revision));
        if let Some(held) = self.slots(chain).loaded(revision).filter(|_| !has_other_form) {
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
            return Err(PolicyError::OtherVersion { revision: revision.to_owned(), found: staged.id().to_string() });
        }
        Ok(staged)
    }
}
