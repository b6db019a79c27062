//! Taking a revision out at once.
//!
//! First in memory, so that the next turn of this process is served by another; then in the database, so that the other
//! replicas follow and nobody loads it again. While the database is away, the second half waits and is tried again with
//! every look at the row.

use super::rollout::{Move, MoveError, short};
use super::slots::Slot;
use super::{By, Policies};
use crate::db::rollouts::Changed;

/// What is to stay out, and why.
#[derive(Debug, Clone)]
pub(super) struct Trip {
    reason: String,
    /// Whether the database does not know of it yet.
    pub is_pending: bool,
}

/// What became of a trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tripped {
    /// It is out of this place; if that was the active one, the revision before it serves again.
    Out(Slot),
    /// It stood nowhere here; the rest of the fleet is told all the same.
    Nowhere,
    /// It is the active one, and nothing served before it: it serves on, for somebody must.
    NothingBefore,
}

impl Policies {
    /// Takes a canary, a shadow or a fresh active revision out of service, everywhere, and quarantines it: no folder, no
    /// replica and no clock brings it back, until a person lifts the quarantine. The next [`Policies::pick`] of this process
    /// gives another revision already. Where nothing stands by to go back to, the log and the status say so.
    pub async fn trip(&self, chain: &str, revision: &str, reason: &str) -> Tripped {
        let tripped = self.trip_in_memory(chain, revision, reason);
        let slot = match tripped {
            Tripped::Out(slot) => slot.as_str(),
            Tripped::Nowhere => "none",
            Tripped::NothingBefore => {
                let harm = Some((revision.to_owned(), reason.to_owned()));
                self.lock().entry(chain.to_owned()).or_default().harm = harm;
                tracing::error!(
                    chain,
                    revision = short(revision),
                    reason,
                    "the active policy revision does harm, and nothing served before it; it serves on"
                );
                return tripped;
            }
        };
        metrics::counter!("frontdesk_policy_trips_total", "chain" => chain.to_owned(), "slot" => slot).increment(1);
        tracing::error!(chain, revision = short(revision), slot, reason, "a policy revision was taken out of service");
        self.follow(chain).await;
        tripped
    }

    fn trip_in_memory(&self, chain: &str, revision: &str, reason: &str) -> Tripped {
        let mut chains = self.lock();
        let now = self.slots(chain);
        let tripped = match now.without(revision) {
            Some((left, slot)) => {
                self.store_slots(chain, left);
                Tripped::Out(slot)
            }
            None if now.slot_of(revision).is_some() => return Tripped::NothingBefore,
            None => Tripped::Nowhere,
        };
        let trip = Trip { reason: reason.to_owned(), is_pending: true };
        chains.entry(chain.to_owned()).or_default().tripped.insert(revision.to_owned(), trip);
        tripped
    }

    /// Tells the database what was taken out here. The caller has passed the turnstile.
    pub(super) async fn flush_trips(&self, chain: &str) -> sqlx::Result<()> {
        let pending: Vec<(String, String)> = {
            let chains = self.lock();
            let tripped = chains.get(chain).into_iter().flat_map(|chain| &chain.tripped);
            let pending = tripped.filter(|(_, trip)| trip.is_pending);
            pending.map(|(revision, trip)| (revision.clone(), trip.reason.clone())).collect()
        };
        for (revision, reason) in pending {
            let by = By { actor: "tripwire", reason: &reason, forced: false };
            let moved = Move::Trip { revision: revision.clone() };
            match self.change_row(chain, &by, "policy.trip", &moved).await? {
                Changed::Done(_) | Changed::Refused(MoveError::NothingBefore) => {}
                Changed::Refused(error) => tracing::error!(chain, %error, "a trip could not be stored"),
                // The revision that was to come back is out, too: the harmful one stays, and its faults go to people.
                Changed::Quarantined(previous) => {
                    tracing::error!(chain, previous = short(&previous), "nothing good is left to go back to");
                }
            }
            if let Some(trip) = self.lock().get_mut(chain).and_then(|chain| chain.tripped.get_mut(&revision)) {
                trip.is_pending = false;
            }
        }
        Ok(())
    }
}
