//! Watches the revisions that are new to real turns, and takes one out when it goes past a limit of its chain.
//!
//! Watched are a canary (beside the active revision), a shadow (beside what the active revision made of the same turns), and
//! for a while a revision that became active (beside the last numbers of the one before it). What the limits mean is
//! [`frontdesk_policy_engine::tripwire`]; what taking out means is [`Policies::trip`].
//!
//! # Replicas
//! Each replica counts its own turns in memory. While anything is watched, it stores its windows every two seconds and adds
//! those that the others have stored lately to its own, so that a fault which each of them sees rarely is seen by all. Without
//! the database every replica goes by its own turns. Several replicas may trip at once; the second finds nothing to do.
//!
//! # After a restart
//! Probation goes on to its end, which follows from when the chain's row changed. The numbers of the revision before are those
//! that were stored for it, also by processes that are gone; the own turns are counted anew.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use frontdesk_policy_engine::{Counts, Trip, Tripwire, TurnCount, Window};
use serde::Serialize;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::db;
use crate::policies::slots::{Slot, Slots};
use crate::policies::{Policies, Tripped};
use crate::queue::pause;

/// How often the windows are judged.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looks between two exchanges with the other replicas.
const LOOKS_PER_EXCHANGE: u32 = 4;
/// Windows that a replica has not renewed for so long are not counted: it is gone, or has nothing to watch.
const FRESH_S: f64 = 15.0;
/// Until a chain's own is known.
const WINDOW_S: u32 = 300;
/// Former revisions of a chain that are remembered, so that going back to one is not taken for a new one.
const SERVED_MAX: usize = 50;
/// A revision that could not be taken out is judged again after so many looks.
const LOOKS_PER_TRY: u32 = 10;

/// Which turns a window counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Turns that the revision judged for customers.
    Served,
    /// What it made of turns as a shadow.
    Shadow,
    /// What the active revision made of the turns that this shadow judged.
    BesideShadow,
    /// The last window of the revision that this one replaced.
    Before,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Served, Self::Shadow, Self::BesideShadow, Self::Before];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Shadow => "shadow",
            Self::BesideShadow => "beside-shadow",
            Self::Before => "before",
        }
    }
}

type Key = (String, Kind);

#[derive(Debug)]
struct ChainWindows {
    window_s: u32,
    windows: BTreeMap<Key, Window>,
}

impl Default for ChainWindows {
    fn default() -> Self {
        Self { window_s: WINDOW_S, windows: BTreeMap::new() }
    }
}

/// The sliding windows of this process, by chain, revision and kind.
#[derive(Debug, Default)]
pub struct Windows {
    chains: Mutex<BTreeMap<String, ChainWindows>>,
}

/// A window, for status pages.
#[derive(Debug, Clone, Serialize)]
pub struct WindowStatus {
    pub revision: String,
    pub kind: &'static str,
    pub turns: u64,
    pub faulted: u64,
    pub deadline_misses: u64,
    pub escalated: u64,
    pub fuel_p99: u64,
}

impl Windows {
    /// Counts a turn.
    pub fn count(&self, chain: &str, revision: &str, kind: Kind, turn: TurnCount) {
        let mut chains = self.lock();
        if !chains.contains_key(chain) {
            chains.insert(chain.to_owned(), ChainWindows::default());
        }
        let Some(ChainWindows { window_s, windows }) = chains.get_mut(chain) else { return };
        let window = windows.entry((revision.to_owned(), kind)).or_insert_with(|| Window::new(*window_s));
        window.add(now_ms(), turn);
    }

    /// What this process has counted of a chain lately.
    pub fn status(&self, chain: &str) -> Vec<WindowStatus> {
        let counts = self.counts(chain);
        counts
            .into_iter()
            .map(|((revision, kind), counts)| WindowStatus {
                revision,
                kind: kind.as_str(),
                turns: counts.turns,
                faulted: counts.faulted,
                deadline_misses: counts.deadline_misses,
                escalated: counts.escalated,
                fuel_p99: counts.fuel.p99(),
            })
            .collect()
    }

    fn counts(&self, chain: &str) -> BTreeMap<Key, Counts> {
        let (mut chains, now_ms) = (self.lock(), now_ms());
        let windows = chains.get_mut(chain).map(|chain| &mut chain.windows);
        windows.into_iter().flatten().map(|(key, window)| (key.clone(), window.counts(now_ms))).collect()
    }

    /// Forgets revisions that stand nowhere, and windows of another length.
    fn fit(&self, chain: &str, slots: &Slots, window_s: u32) {
        let mut chains = self.lock();
        let chain = chains.entry(chain.to_owned()).or_default();
        if chain.window_s != window_s {
            *chain = ChainWindows { window_s, windows: BTreeMap::new() };
        }
        chain.windows.retain(|(revision, _), _| slots.loaded(revision).is_some());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, ChainWindows>> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now_ms() -> u64 {
    u64::try_from(Utc::now().timestamp_millis()).unwrap_or(0)
}

/// A revision that became active lately.
#[derive(Debug)]
struct Probation {
    revision: String,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
    /// The last window of the one before it, in this process.
    before: Counts,
}

/// What is known of one chain.
#[derive(Debug, Default)]
struct Watched {
    active: Option<String>,
    /// Since when, as it was known when this process started.
    active_since: Option<DateTime<Utc>>,
    probation: Option<Probation>,
    /// Revisions that were active before the one that is, oldest first; at most [`SERVED_MAX`].
    served: VecDeque<String>,
    /// What the other replicas have counted.
    others: BTreeMap<Key, Counts>,
    /// Looks until the chain is judged again.
    wait: u32,
    /// A revision is being taken out.
    trip: Option<tokio::task::JoinHandle<Tripped>>,
    /// What stood where when there was nothing to go back to: the active one is judged again when anything has moved.
    stuck: Option<Stands>,
}

/// The revisions of a chain by their places: active, canary, shadow, previous.
type Stands = [Option<String>; 4];

fn stands(slots: &Slots) -> Stands {
    let canary = slots.canary.as_ref().map(|canary| &canary.serving);
    [slots.active.as_ref(), canary, slots.shadow.as_ref(), slots.previous.as_ref()]
        .map(|place| place.map(|serving| serving.id().to_owned()))
}

/// A revision that is to be taken out.
#[derive(Debug)]
struct Found {
    slot: Slot,
    revision: String,
    trip: Trip,
}

/// The task that judges.
#[derive(Debug)]
pub struct Watch {
    pub policies: Policies,
    pub windows: std::sync::Arc<Windows>,
    pub pool: PgPool,
    pub replica: String,
}

impl Watch {
    /// Judges until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut chains: BTreeMap<String, Watched> = BTreeMap::new();
        let mut look = 0_u32;
        while pause(LOOK_EVERY, &stop).await {
            look = look.wrapping_add(1);
            for chain in self.policies.chains() {
                let slots = self.policies.slots(chain);
                let watched = chains.entry(chain.clone()).or_default();
                if watched.active.is_none() && slots.active.is_some() {
                    // Whether it is still on probation is known by the database alone, which was there a moment ago.
                    match self.active_since(chain).await {
                        Ok(since) => watched.active_since = since,
                        Err(_) => continue,
                    }
                }
                if look.is_multiple_of(LOOKS_PER_EXCHANGE) {
                    self.exchange(chain, &slots, watched).await;
                }
                self.look(chain, &slots, watched).await;
            }
        }
    }

    /// Since when the chain's active revision is active, by the word of all replicas.
    async fn active_since(&self, chain: &str) -> sqlx::Result<Option<DateTime<Utc>>> {
        let row = db::in_time(db::rollouts::get(&self.pool, chain)).await?;
        Ok(row.map(|row| row.active_since))
    }

    async fn look(&self, chain: &str, slots: &Slots, watched: &mut Watched) {
        let own = self.windows.counts(chain);
        watched.follow(slots, &own, Utc::now());
        self.windows.fit(chain, slots, window_s(slots));
        if let Some(rest) = watched.wait.checked_sub(1) {
            watched.wait = rest;
            return;
        }
        if let Some(trip) = watched.trip.take() {
            if !trip.is_finished() {
                watched.trip = Some(trip);
                return;
            }
            match trip.await {
                Ok(Tripped::Out(_)) => {}
                // It was said, and saying it again helps nobody: until something moves, the active one is left alone.
                Ok(Tripped::NothingBefore) => watched.stuck = Some(stands(slots)),
                Ok(Tripped::Nowhere) | Err(_) => {
                    watched.wait = LOOKS_PER_TRY;
                    return;
                }
            }
        }
        let Some(Found { slot, revision, trip }) = watched.judge(slots, &own) else { return };
        let kind = trip.kind();
        metrics::counter!("frontdesk_policy_tripwires_total", "chain" => chain.to_owned(), "kind" => kind).increment(1);
        // It says in the log what became of it. Beside this task, because telling the database and following it may take long,
        // and the other chains are to be watched meanwhile.
        let (policies, chain) = (self.policies.clone(), chain.to_owned());
        let reason = format!("tripwire on the {}: {trip}", slot.as_str());
        watched.trip = Some(tokio::spawn(async move { policies.trip(&chain, &revision, &reason).await }));
    }

    /// Tells the other replicas what this one counted, and hears what they did.
    async fn exchange(&self, chain: &str, slots: &Slots, watched: &mut Watched) {
        if slots.canary.is_none() && slots.shadow.is_none() && watched.probation.is_none() {
            watched.others.clear();
            return;
        }
        let mut own = self.windows.counts(chain);
        if let Some(probation) = &watched.probation {
            own.insert((probation.revision.clone(), Kind::Before), probation.before.clone());
        }
        let rows: Vec<_> = own
            .into_iter()
            .filter_map(|((revision, kind), counts)| {
                Some((revision, kind.as_str(), serde_json::to_value(counts).ok()?))
            })
            .collect();
        let exchanged = async {
            db::turn_windows::store(&self.pool, &self.replica, chain, &rows).await?;
            // The last numbers of the revision before stay true when who counted them is gone, such as this replica's own
            // former life.
            let before_since = watched.probation.as_ref().map(|probation| probation.since);
            db::turn_windows::of_others(&self.pool, &self.replica, chain, FRESH_S, before_since).await
        };
        watched.others.clear();
        match db::in_time(exchanged).await {
            Ok(rows) => {
                for row in rows {
                    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == row.kind);
                    let counts = serde_json::from_value::<Counts>(row.counts);
                    if let (Some(kind), Ok(counts)) = (kind, counts) {
                        watched.others.entry((row.revision, kind)).or_default().merge(&counts);
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, chain, "the windows of other replicas are not known; this one goes by its own");
            }
        }
    }
}

impl Watched {
    /// Notices that another revision became active, and whether it is to be compared with the one before.
    fn follow(&mut self, slots: &Slots, own: &BTreeMap<Key, Counts>, now: DateTime<Utc>) {
        let active = slots.active.as_ref();
        let is_same = self.active.as_deref() == active.map(|serving| serving.id());
        if is_same {
            self.probation.take_if(|probation| probation.until <= now);
            return;
        }
        let is_first = self.active.is_none();
        if let Some(before) = std::mem::replace(&mut self.active, active.map(|serving| serving.id().to_owned())) {
            self.served.retain(|served| *served != before);
            self.served.push_back(before);
            if self.served.len() > SERVED_MAX {
                self.served.pop_front();
            }
        }
        self.probation = None;
        let (Some(active), Some(previous)) = (active, &slots.previous) else { return };
        // A revision that came back because its successor went is not new.
        if self.served.iter().any(|served| served == active.id()) {
            return;
        }
        let since = if is_first { self.active_since.unwrap_or_default() } else { now };
        let until = since + chrono::Duration::seconds(active.revision.spec().tripwire.probation_s.into());
        if until > now {
            let before = own.get(&(previous.id().to_owned(), Kind::Served)).cloned().unwrap_or_default();
            self.probation = Some(Probation { revision: active.id().to_owned(), since, until, before });
        }
    }

    fn judge(&self, slots: &Slots, own: &BTreeMap<Key, Counts>) -> Option<Found> {
        let all = |revision: &str, kind: Kind| {
            let key = (revision.to_owned(), kind);
            let mut counts = own.get(&key).cloned().unwrap_or_default();
            if let Some(others) = self.others.get(&key) {
                counts.merge(others);
            }
            counts
        };
        let found = |slot: Slot, revision: &str, wire: &Tripwire, own: Counts, other: Counts| {
            let trip = wire.judge(&own, Some(&other))?;
            Some(Found { slot, revision: revision.to_owned(), trip })
        };
        if let (Some(canary), Some(active)) = (&slots.canary, &slots.active) {
            let (id, wire) = (canary.serving.id(), &canary.serving.revision.spec().tripwire);
            let trip = found(Slot::Canary, id, wire, all(id, Kind::Served), all(active.id(), Kind::Served));
            if trip.is_some() {
                return trip;
            }
        }
        if let Some(shadow) = &slots.shadow {
            let (id, wire) = (shadow.id(), &shadow.revision.spec().tripwire);
            let trip = found(Slot::Shadow, id, wire, all(id, Kind::Shadow), all(id, Kind::BesideShadow));
            if trip.is_some() {
                return trip;
            }
        }
        let (active, probation) = (slots.active.as_ref()?, self.probation.as_ref()?);
        if self.stuck.as_ref().is_some_and(|stuck| *stuck == stands(slots)) {
            return None;
        }
        let mut before = probation.before.clone();
        if let Some(others) = self.others.get(&(probation.revision.clone(), Kind::Before)) {
            before.merge(others);
        }
        let (id, wire) = (active.id(), &active.revision.spec().tripwire);
        found(Slot::Active, id, wire, all(id, Kind::Served), before)
    }
}

/// One length for all windows of a chain: that of its newest revision.
fn window_s(slots: &Slots) -> u32 {
    let canary = slots.canary.as_ref().map(|canary| &canary.serving);
    let newest = [canary, slots.shadow.as_ref(), slots.active.as_ref()].into_iter().flatten().next();
    newest.map_or(WINDOW_S, |serving| serving.revision.spec().tripwire.window_s)
}
