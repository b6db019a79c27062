//! What is learned from a turn once it is committed: whether its revision should be taken out, and what a shadow would
//! have made of it.
//!
//! ```text
//! worker commits ──> after_turn ──> window of its revision ──┐
//!                        |                                   ├─> tripwire, twice a second ──> Policies::trip
//!                        └─try_send─> shadow queue ─> replay ─┘
//!                                                      └─> policy_shadow_results
//! ```
//!
//! # Invariants
//! - Nothing here delays a turn: [`Observer::after_turn`] takes a lock for microseconds and never waits. A full queue or a
//!   busy host drops the shadow's work, and the drop is counted.
//! - The record of a turn reaches the shadow in memory only. What is stored of a comparison is codes and numbers.

pub mod load;
pub mod shadow;
pub mod tripwire;

use std::sync::Arc;

use frontdesk_policy_engine::TurnCount;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::app::App;
use crate::policies::Policies;
use crate::policies::slots::Slot;
use crate::settings::ShadowSettings;

pub use load::Load;

/// A turn that was committed.
#[derive(Debug)]
pub struct CommittedTurn {
    pub chain: String,
    pub turn_id: Uuid,
    /// The revision that judged it, and where that stood.
    pub revision: String,
    pub slot: Slot,
    pub count: TurnCount,
    /// The decision record as JSON.
    pub record: Value,
}

/// Takes committed turns.
#[derive(Debug)]
pub struct Observer {
    policies: Policies,
    windows: Arc<tripwire::Windows>,
    queue: shadow::Queue,
}

impl Observer {
    /// Nothing is taken from the queue before [`Observer::start`].
    pub fn new(policies: Policies, settings: &ShadowSettings) -> Self {
        Self { policies, windows: Arc::default(), queue: shadow::Queue::new(settings.queue_max) }
    }

    /// Starts the shadow's threads and the tripwires. They end when `stop` is cancelled.
    pub fn start(app: &Arc<App>, tasks: &TaskTracker, stop: &CancellationToken) {
        let observer = &app.observer;
        shadow::start(app, &observer.queue, &observer.windows, tasks, stop);
        let watch = tripwire::Watch {
            policies: observer.policies.clone(),
            windows: Arc::clone(&observer.windows),
            pool: app.pool.clone(),
            replica: app.replica.clone(),
        };
        tasks.spawn(watch.run(stop.clone()));
    }

    /// Counts a turn, and hands it to the chain's shadow if there is one.
    pub fn after_turn(&self, turn: CommittedTurn) {
        if turn.revision.is_empty() {
            return;
        }
        self.windows.count(&turn.chain, &turn.revision, tripwire::Kind::Served, turn.count.clone());
        // The shadow is compared with the active revision; a canary's turn shows another one.
        if turn.slot == Slot::Active && self.policies.shadow(&turn.chain).is_some() {
            self.queue.offer(turn);
        }
    }

    /// Turns that wait for the shadow.
    pub fn shadow_waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// The sliding windows, for status pages.
    pub fn windows(&self) -> &tripwire::Windows {
        &self.windows
    }
}
