//! Publishing a candidate, and moving revisions between the places of a chain.
//!
//! ```text
//! bundle ─> stage ─> store ─> gate ─> row ─> every replica
//! ```
//! The gate's verdict is stored with the revision. It decides who may serve customers, as canary or as the active one;
//! what is only stored or judges in the shadow is judged by the gate, too, but not held back. A person may overrule it,
//! with a reason that the audit log keeps. Going back to a revision that served before needs no gate.

use std::sync::Arc;
use std::time::Instant;

use frontdesk_policy_bundle::Document;
use frontdesk_policy_engine::gate::Verdict;
use frontdesk_policy_engine::rollout::{CanaryStep, OnChange, RolloutSpec};
use frontdesk_policy_engine::{Bundle, Revision};

use super::folder::count_rejection;
use super::rollout::{Move, MoveError};
use super::slots::{Share, Slot};
use super::{Policies, PolicyError, bundle, gate};
use crate::db;
use crate::db::rollouts::{Cause, Changed, Rollout};

/// Who moves a revision, and why.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    pub actor: &'a str,
    pub reason: &'a str,
    /// Whether the gate is overruled.
    pub forced: bool,
}

/// Where a revision is to go.
#[derive(Debug, Clone, PartialEq)]
pub enum Placement {
    Stage,
    Shadow,
    Canary { share: Share, page_ids: Vec<String>, steps: Vec<CanaryStep> },
    Activate,
}

impl Placement {
    /// What `[rollout]` of a chain says about a changed folder.
    pub fn on_change(spec: &RolloutSpec) -> Self {
        match spec.on_change {
            OnChange::Activate => Self::Activate,
            OnChange::Stage => Self::Stage,
            OnChange::Shadow => Self::Shadow,
            OnChange::Canary => {
                Self::Canary { share: Share::default(), page_ids: Vec::new(), steps: spec.steps.clone() }
            }
        }
    }

    fn serves_customers(&self) -> bool {
        matches!(self, Self::Canary { .. } | Self::Activate)
    }

    fn action(&self) -> &'static str {
        match self {
            Self::Stage => "policy.stage",
            Self::Shadow => "policy.shadow",
            Self::Canary { .. } => "policy.canary",
            Self::Activate => "policy.activate",
        }
    }

    fn as_move(&self, revision: &str, origin: &'static str) -> Option<Move> {
        let revision = revision.to_owned();
        Some(match self.clone() {
            Self::Stage => return None,
            Self::Shadow => Move::Shadow { revision },
            Self::Canary { share, page_ids, steps } => Move::Canary { revision, share, page_ids, steps },
            Self::Activate => Move::Activate { revision, origin },
        })
    }
}

/// What became of it.
#[derive(Debug, Clone)]
pub struct Moved {
    pub revision: String,
    pub rollout: Option<Rollout>,
    /// What the gate found, where it was asked.
    pub gate: Option<Verdict>,
}

/// How long each stage of a publication took, in milliseconds.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Times {
    pub read_ms: u128,
    pub settle_ms: u128,
    pub stage_ms: u128,
    pub store_ms: u128,
    pub gate_ms: u128,
    pub activate_ms: u128,
}

impl Times {
    /// For the metrics.
    pub fn count(self) {
        let Self { read_ms, settle_ms, stage_ms, store_ms, gate_ms, activate_ms } = self;
        for (stage, taken_ms) in [
            ("read", read_ms),
            ("settle", settle_ms),
            ("stage", stage_ms),
            ("store", store_ms),
            ("gate", gate_ms),
            ("activate", activate_ms),
        ] {
            let taken = std::time::Duration::from_millis(u64::try_from(taken_ms).unwrap_or(u64::MAX));
            metrics::histogram!("frontdesk_policy_swap_seconds", "stage" => stage).record(taken.as_secs_f64());
        }
    }
}

/// What a folder brings in.
pub(super) struct FromFolder<'a> {
    pub content_sha256: &'a str,
}

impl Policies {
    /// Takes a bundle from a person: stores it as a revision, judges it, and moves it.
    pub async fn publish(
        &self,
        chain: &str,
        document: Document,
        to: Placement,
        by: By<'_>,
    ) -> Result<Moved, PolicyError> {
        self.turnstile(chain)?;
        let taken = async {
            let read = document.into_bundle()?;
            let bundle = bundle::complete(&self.inner.pool, &self.inner.provenance, chain, read).await?;
            Box::pin(self.take(chain, bundle, Some(to), by, None, &mut Times::default())).await
        };
        self.noted(chain, by, taken.await).await
    }

    /// A refusal of what a person brought stands in the same places as that of a folder.
    async fn noted(&self, chain: &str, by: By<'_>, taken: Result<Moved, PolicyError>) -> Result<Moved, PolicyError> {
        let Err(error) = &taken else { return taken };
        let is_refusal = !error.is_passing() && !matches!(error, PolicyError::Move(_) | PolicyError::NothingWaits);
        if is_refusal {
            let reason = error.describe();
            let code = error.code().into_owned();
            count_rejection(chain, code.clone());
            tracing::error!(
                chain,
                actor = by.actor,
                code = code.as_str(),
                reason,
                "a policy candidate was rejected; the old revision serves on"
            );
            // The gate's refusal is noted with its revision.
            if !matches!(error, PolicyError::Gate { .. }) {
                let named = format!("{code}: {reason}");
                let noted = db::revisions::note_rejected(&self.inner.pool, chain, None, by.actor, &named);
                if let Err(error) = db::in_time(noted).await {
                    tracing::warn!(%error, chain, "the rejection could not be stored");
                }
            }
        }
        taken
    }

    /// Takes a bundle. Without a placement the chain's own word counts.
    pub(super) async fn take(
        &self,
        chain: &str,
        bundle: Bundle,
        to: Option<Placement>,
        by: By<'_>,
        folder: Option<FromFolder<'_>>,
        times: &mut Times,
    ) -> Result<Moved, PolicyError> {
        self.inner.provenance.check(chain, &bundle)?;
        let started = Instant::now();
        let candidate = self.stage(bundle.clone()).await?;
        times.stage_ms = started.elapsed().as_millis();
        let to = to.unwrap_or_else(|| Placement::on_change(&candidate.spec().rollout));
        // Nobody serves anywhere: that this replica cannot serve would be no reason to change what all do.
        let is_first = folder.is_some()
            && db::rollouts::get(&self.inner.pool, chain).await?.is_none_or(|row| row.active.is_none());
        let to = if is_first { Placement::Activate } else { to };

        let started = Instant::now();
        bundle::store(&self.inner.pool, chain, &bundle, &candidate, by.actor, by.reason).await?;
        self.inner.provenance.keep(&bundle).await?;
        times.store_ms = started.elapsed().as_millis();
        self.refuse_quarantined(chain, candidate.id().as_str()).await?;

        let started = Instant::now();
        let verdict = self.judge(chain, &candidate, &bundle).await?;
        times.gate_ms = started.elapsed().as_millis();
        self.hold_back(chain, &candidate, &verdict, &to, by).await?;

        let started = Instant::now();
        let origin = if folder.is_some() { "folder" } else { "api" };
        let id = candidate.id().as_str();
        let made = to.as_move(id, origin);
        let rollout = self.move_to(chain, (&candidate, &bundle), made, to.action(), by, folder).await?;
        times.activate_ms = started.elapsed().as_millis();
        Ok(Moved { revision: id.to_owned(), rollout, gate: Some(verdict) })
    }

    /// Moves a stored revision. Without one, what waits is meant: the canary, the shadow, or what was staged last.
    pub async fn place(
        &self,
        chain: &str,
        revision: Option<&str>,
        to: Placement,
        by: By<'_>,
    ) -> Result<Moved, PolicyError> {
        self.turnstile(chain)?;
        let placed = Box::pin(self.place_stored(chain, revision, to, by)).await;
        self.noted(chain, by, placed).await
    }

    async fn place_stored(
        &self,
        chain: &str,
        revision: Option<&str>,
        to: Placement,
        by: By<'_>,
    ) -> Result<Moved, PolicyError> {
        let revision = match revision {
            Some(revision) => revision.to_owned(),
            None => self.waiting(chain).await?,
        };
        self.refuse_quarantined(chain, &revision).await?;
        let bundle = bundle::restore(&self.inner.pool, &self.inner.provenance, chain, &revision).await?;
        self.inner.provenance.check(chain, &bundle)?;
        let candidate = match self.slots(chain).loaded(&revision) {
            Some(held) => Arc::clone(&held.revision),
            None => self.stage(bundle.clone()).await?,
        };
        if candidate.id().as_str() != revision {
            return Err(PolicyError::OtherVersion { revision, found: candidate.id().to_string() });
        }
        let verdict = self.judge(chain, &candidate, &bundle).await?;
        self.hold_back(chain, &candidate, &verdict, &to, by).await?;
        let made = to.as_move(&revision, "api");
        let rollout = self.move_to(chain, (&candidate, &bundle), made, to.action(), by, None).await?;
        Ok(Moved { revision, rollout, gate: Some(verdict) })
    }

    /// Ends the canary or the shadow, or goes back to an earlier revision. Without a place, the canary is meant if there is
    /// one, else the active revision.
    pub async fn roll_back(
        &self,
        chain: &str,
        slot: Option<Slot>,
        revision: Option<&str>,
        by: By<'_>,
    ) -> Result<Moved, PolicyError> {
        let turnstile = self.turnstile(chain)?;
        let row = db::rollouts::get(&self.inner.pool, chain).await?.unwrap_or_default();
        let slot = slot.unwrap_or(match (revision, &row.canary) {
            (None, Some(_)) => Slot::Canary,
            _ => Slot::Active,
        });
        let (revision, made) = match slot {
            Slot::Canary => (row.canary.ok_or(MoveError::Empty { slot: "canary" })?, Move::EndCanary),
            Slot::Shadow => (row.shadow.ok_or(MoveError::Empty { slot: "shadow" })?, Move::EndShadow),
            Slot::Active => {
                let to = match (revision, row.previous) {
                    (Some(revision), _) => revision.to_owned(),
                    (None, previous) => previous.ok_or(MoveError::NothingBefore)?,
                };
                self.refuse_quarantined(chain, &to).await?;
                if !db::revisions::has_served(&self.inner.pool, chain, &to).await? {
                    return Err(PolicyError::NeverServed { revision: to });
                }
                let active = row.active.unwrap_or_default();
                let before = db::revisions::served_before(&self.inner.pool, chain, &to, &active).await?;
                (to.clone(), Move::Back { revision: to, before })
            }
        };
        // What cannot be staged must not become active.
        let staged = match slot {
            Slot::Active => Some(
                self.load(chain, &revision, None)
                    .await
                    .map_err(|reason| PolicyError::NotStaged { revision: revision.clone(), reason })?,
            ),
            Slot::Canary | Slot::Shadow => None,
        };
        let _turn = turnstile.lock().await;
        let rollout = match self.change_row(chain, &by, "policy.rollback", &made).await? {
            Changed::Done(row) => row,
            Changed::Refused(error) => return Err(error.into()),
            Changed::Quarantined(revision) => return Err(PolicyError::Quarantined { revision }),
        };
        self.install(chain, &rollout, staged.as_ref()).await;
        Ok(Moved { revision, rollout: Some(rollout), gate: None })
    }

    /// Everything that a stored revision was staged from.
    pub async fn bundle_of(&self, chain: &str, revision: &str) -> Result<Bundle, PolicyError> {
        bundle::restore(&self.inner.pool, &self.inner.provenance, chain, revision).await
    }

    /// Lets a revision be used again.
    pub async fn lift_quarantine(&self, chain: &str, revision: &str, by: By<'_>) -> Result<(), PolicyError> {
        self.turnstile(chain)?;
        if db::revisions::lift_quarantine(&self.inner.pool, chain, revision, by.actor, by.reason).await? {
            return Ok(());
        }
        Err(PolicyError::NotQuarantined { revision: revision.to_owned() })
    }

    async fn waiting(&self, chain: &str) -> Result<String, PolicyError> {
        let row = db::rollouts::get(&self.inner.pool, chain).await?.unwrap_or_default();
        if let Some(revision) = row.canary.or(row.shadow) {
            return Ok(revision);
        }
        db::revisions::newest_staged(&self.inner.pool, chain).await?.ok_or(PolicyError::NothingWaits)
    }

    async fn refuse_quarantined(&self, chain: &str, revision: &str) -> Result<(), PolicyError> {
        match db::revisions::find(&self.inner.pool, chain, revision).await? {
            None => Err(PolicyError::UnknownRevision { revision: revision.to_owned() }),
            Some(row) if row.state == "quarantined" => Err(PolicyError::Quarantined { revision: revision.to_owned() }),
            Some(_) => Ok(()),
        }
    }

    /// Asks the gate, and stores what it says.
    async fn judge(&self, chain: &str, candidate: &Arc<Revision>, bundle: &Bundle) -> Result<Verdict, PolicyError> {
        let trial = gate::Trial {
            records: self.inner.records.clone(),
            chain: chain.to_owned(),
            candidate: Arc::clone(candidate),
            cases: bundle.cases.clone(),
            active: self.current(chain).map(|serving| Arc::clone(&serving.revision)),
        };
        let verdict = Box::pin(trial.judge(self.inner.examiner.get())).await?;
        let stored = serde_json::to_value(&verdict).unwrap_or_default();
        db::revisions::set_gate(&self.inner.pool, chain, candidate.id().as_str(), &stored).await?;
        Ok(verdict)
    }

    /// Refuses what the gate refuses, if it is to serve customers and nobody overrules the gate.
    async fn hold_back(
        &self,
        chain: &str,
        candidate: &Revision,
        verdict: &Verdict,
        to: &Placement,
        by: By<'_>,
    ) -> Result<(), PolicyError> {
        if verdict.passed || !to.serves_customers() {
            return Ok(());
        }
        let revision = candidate.id().to_string();
        if by.forced {
            tracing::warn!(
                chain,
                revision = candidate.id().short(),
                actor = by.actor,
                reason = by.reason,
                gate = verdict.reason(),
                "the gate was overruled"
            );
            return Ok(());
        }
        db::revisions::reject(&self.inner.pool, chain, &revision, by.actor, &verdict.reason()).await?;
        Err(PolicyError::Gate { revision, verdict: Box::new(verdict.clone()) })
    }

    /// Changes the row, and follows it here at once.
    async fn move_to(
        &self,
        chain: &str,
        (candidate, bundle): (&Arc<Revision>, &Bundle),
        made: Option<Move>,
        action: &'static str,
        by: By<'_>,
        folder: Option<FromFolder<'_>>,
    ) -> Result<Option<Rollout>, PolicyError> {
        let _turn = self.turnstile(chain)?.lock().await;
        let may_serve = matches!(made, Some(Move::Activate { .. } | Move::Canary { .. }));
        let mut tx = self.inner.pool.begin().await?;
        if let Some(FromFolder { content_sha256 }) = folder {
            let row = db::rollouts::lock(&mut tx, chain).await?;
            let (last, _) = db::revisions::publications(&mut *tx, chain, content_sha256).await?;
            if row.active.is_some() && last.as_deref() == Some(content_sha256) {
                // Another replica with the same folder was faster.
                tx.rollback().await?;
                self.install(chain, &row, Some(candidate)).await;
                return Ok(Some(row));
            }
            let id = candidate.id().as_str();
            db::revisions::published(&mut *tx, chain, content_sha256, id, by.actor).await?;
        }
        let row = match made {
            None => {
                let detail = serde_json::json!({ "revision": candidate.id().as_str(), "reason": by.reason });
                db::audit::write(&mut *tx, by.actor, action, chain, detail).await?;
                None
            }
            Some(made) => {
                let cause = Cause { actor: by.actor, reason: by.reason, action, forced: by.forced };
                match db::rollouts::change_in(&mut tx, chain, &cause, |row, now| made.apply(row, now)).await? {
                    Changed::Done(row) => Some(row),
                    // A folder that holds what is active already asks for nothing.
                    Changed::Refused(MoveError::Active { .. }) if by.actor == self.inner.replica => None,
                    Changed::Refused(error) => return Err(error.into()),
                    Changed::Quarantined(revision) => return Err(PolicyError::Quarantined { revision }),
                }
            }
        };
        let (stored, _) = bundle::stored_form(bundle, candidate);
        let is_renewed = db::revisions::renew(&mut tx, chain, &stored, may_serve).await?;
        if is_renewed {
            db::rollouts::renew(&mut tx, chain).await?;
        }
        tx.commit().await?;
        let row = match row {
            Some(_) if is_renewed => db::rollouts::get(&self.inner.pool, chain).await?,
            row => row,
        };
        if let Some(row) = &row {
            self.install(chain, row, Some(candidate)).await;
        }
        Ok(row)
    }

    pub(super) async fn change_row(
        &self,
        chain: &str,
        by: &By<'_>,
        action: &'static str,
        made: &Move,
    ) -> sqlx::Result<Changed<MoveError>> {
        let cause = Cause { actor: by.actor, reason: by.reason, action, forced: by.forced };
        db::rollouts::change(&self.inner.pool, chain, &cause, |row, now| made.apply(row, now)).await
    }
}
