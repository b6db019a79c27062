//! The tasks of a replica: reading folders, following rows, hearing of changes, telling what it runs.
//!
//! The folder's task may take long (it compiles and judges), so following is another: a rollback reaches a replica that is
//! in the middle of staging something.

use std::time::{Duration, Instant};

use notify_debouncer_full::DebounceEventResult;
use notify_debouncer_full::notify::event::{AccessKind, AccessMode};
use notify_debouncer_full::notify::{EventKind, RecursiveMode};
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::rollout::Move;
use super::{By, Policies};
use crate::db;
use crate::db::replicas::Report;
use crate::settings::{PolicySettings, ms};

/// File events are gathered for this long.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// A replica says what it runs at least this often.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A connection that heard nothing for so long is replaced.
const LISTEN_MAX: Duration = Duration::from_secs(300);
/// Pause before a broken connection for notifications is made again.
const LISTEN_AGAIN: Duration = Duration::from_secs(2);

/// Whether a file may be another one after this event. Opening and reading are what the reader itself does: hearing of that
/// would wake it for ever.
fn may_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(kind) => *kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

impl Policies {
    pub(super) fn start_tasks(&self, settings: &PolicySettings, tasks: &TaskTracker, stop: &CancellationToken) {
        let poll = ms(settings.poll_ms);
        let watcher = self.watch(settings);
        tasks.spawn(self.clone().folder_loop(watcher, poll, stop.clone()));
        tasks.spawn(self.clone().follow_loop(poll.min(HEARTBEAT), stop.clone()));
        tasks.spawn(self.clone().listen_loop(stop.clone()));
    }

    fn watch(&self, settings: &PolicySettings) -> Option<impl Send + 'static> {
        let inner = std::sync::Arc::clone(&self.inner);
        let made = notify_debouncer_full::new_debouncer(DEBOUNCE, None, move |heard: DebounceEventResult| {
            if heard.map_or(true, |events| events.iter().any(|event| may_change(&event.kind))) {
                inner.wake.notify_one();
            }
        });
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

    async fn folder_loop(self, watcher: Option<impl Send + 'static>, poll: Duration, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.inner.wake.notified() => {}
                () = tokio::time::sleep(poll) => {}
                () = stop.cancelled() => break,
            }
            for chain in &self.inner.names {
                self.reconcile_folder(chain).await;
            }
        }
        drop(watcher);
    }

    async fn follow_loop(self, poll: Duration, stop: CancellationToken) {
        let mut told = None;
        loop {
            for chain in &self.inner.names {
                self.advance(chain).await;
                self.follow(chain).await;
            }
            self.tell(&mut told).await;
            tokio::select! {
                () = self.inner.changed.notified() => {}
                () = tokio::time::sleep(poll) => {}
                () = stop.cancelled() => break,
            }
        }
        // Who stops in good order leaves nothing behind.
        let _ = db::in_time(db::replicas::forget(&self.inner.pool, Some(&self.inner.replica))).await;
    }

    /// Hears of changes by `LISTEN`, on a connection of its own: one that listens can do nothing else.
    async fn listen_loop(self, stop: CancellationToken) {
        let listen = async {
            loop {
                if let Err(error) = self.listen().await {
                    tracing::debug!(%error, "changes of policies are not heard; the poll finds them");
                }
                tokio::time::sleep(LISTEN_AGAIN).await;
            }
        };
        tokio::select! {
            () = listen => {}
            () = stop.cancelled() => {}
        }
    }

    async fn listen(&self) -> sqlx::Result<()> {
        let options = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
        let pool = options.connect_with((*self.inner.pool.connect_options()).clone()).await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(db::rollouts::CHANNEL).await?;
        loop {
            // What was announced while nobody listened is found by looking.
            self.inner.changed.notify_one();
            // A connection that died without a word is found by making another.
            match tokio::time::timeout(LISTEN_MAX, listener.recv()).await {
                Ok(heard) => drop(heard?),
                Err(_) => return Ok(()),
            }
        }
    }

    /// Moves a canary to its next step when the clock of the database says so; of all replicas, one does it.
    async fn advance(&self, chain: &str) {
        let row = match db::in_time(db::rollouts::get(&self.inner.pool, chain)).await {
            Ok(Some(row)) if row.canary.is_some() && row.canary_steps.as_array().is_some_and(|it| !it.is_empty()) => {
                row
            }
            _ => return,
        };
        // A step is for a replica that runs the canary: what nobody can stage must not grow.
        let runs = self.slots(chain).canary.as_ref().map(|canary| canary.serving.id().to_owned());
        if runs != row.canary {
            return;
        }
        let by = By { actor: "clock", reason: "the canary's time has come", forced: false };
        match db::in_time(self.change_row(chain, &by, "policy.step", &Move::Advance)).await {
            Ok(db::rollouts::Changed::Done(after)) if after.generation > row.generation => {
                let active = after.active.as_deref().unwrap_or_default();
                let (percent, active) = (f64::from(after.canary_share_bp) / 100.0, super::rollout::short(active));
                tracing::info!(chain, percent, active, "the canary took its next step");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, chain, "the canary's clock cannot be read"),
        }
    }

    /// Tells the fleet what this replica runs, when it changes and as a sign of life.
    async fn tell(&self, told: &mut Option<(Instant, Vec<Report>)>) {
        let reports: Vec<Report> = self.inner.names.iter().map(|chain| self.report(chain)).collect();
        if told.as_ref().is_some_and(|(at, last)| *last == reports && at.elapsed() < HEARTBEAT) {
            return;
        }
        for report in &reports {
            let (pool, version) = (&self.inner.pool, env!("CARGO_PKG_VERSION"));
            let stored = db::replicas::report(pool, &self.inner.replica, version, report);
            if let Err(error) = db::in_time(stored).await {
                tracing::debug!(%error, "the fleet is not told what runs here");
                return;
            }
        }
        let _ = db::in_time(db::replicas::forget(&self.inner.pool, None)).await;
        *told = Some((Instant::now(), reports));
    }

    fn report(&self, chain: &str) -> Report {
        let slots = self.slots(chain);
        let chains = self.lock();
        let known = chains.get(chain);
        let rejected = known.and_then(|known| known.refusal().as_ref()).map(|rejected| rejected.reason.clone());
        Report {
            chain: chain.to_owned(),
            generation: known.map_or(0, |known| known.generation),
            active: slots.active.as_ref().map(|serving| serving.id().to_owned()),
            active_since: slots.active.as_ref().map(|serving| serving.since),
            canary: slots.canary.as_ref().map(|canary| canary.serving.id().to_owned()),
            shadow: slots.shadow.as_ref().map(|serving| serving.id().to_owned()),
            problem: known.and_then(|known| known.problem(slots.active.as_ref().map(|serving| serving.id()))),
            folder: rejected.or_else(|| known.and_then(|known| known.folder.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use notify_debouncer_full::notify::event::{CreateKind, ModifyKind, RemoveKind};

    use super::*;

    #[test]
    fn reading_is_no_change_and_everything_else_may_be_one() {
        for kind in [AccessKind::Read, AccessKind::Open(AccessMode::Any), AccessKind::Close(AccessMode::Read)] {
            assert!(!may_change(&EventKind::Access(kind)), "{kind:?}");
        }
        for kind in [
            EventKind::Any,
            EventKind::Other,
            EventKind::Access(AccessKind::Close(AccessMode::Write)),
            EventKind::Create(CreateKind::Any),
            EventKind::Modify(ModifyKind::Any),
            EventKind::Remove(RemoveKind::Any),
        ] {
            assert!(may_change(&kind), "{kind:?}");
        }
    }
}
