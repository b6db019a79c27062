//! The moves of revisions between the places of a chain, as changes of the chain's row. Nothing here does I/O, and the
//! time is the database's.
//!
//! ```text
//! staged ─> shadow ─> canary ─> active ─> retired
//!    └──────────┴────────┴───────^ │
//!                        trip: any place ─> quarantined; the previous revision is active again
//! ```
//! A revision that the gate refuses is `rejected` and stays out of the row.

use chrono::{DateTime, TimeDelta, Utc};
use frontdesk_policy_engine::rollout::CanaryStep;

use super::slots::Share;
use crate::db::rollouts::{Rollout, StateChange};

/// What happens to a chain's row.
#[derive(Debug, Clone, PartialEq)]
pub enum Move {
    /// A revision serves everybody; the one that did stands by.
    Activate { revision: String, origin: &'static str },
    /// A revision serves a share, or these Pages. With steps, the first gives the share and the clock the rest.
    Canary { revision: String, share: Share, page_ids: Vec<String>, steps: Vec<CanaryStep> },
    /// A revision judges beside the one that serves.
    Shadow { revision: String },
    /// An earlier revision serves everybody again; `before` stands by.
    Back { revision: String, before: Option<String> },
    /// The canary ends; everybody is served by the active one.
    EndCanary,
    /// The shadow ends.
    EndShadow,
    /// A revision does harm: it leaves its place and does not come back by itself.
    Trip { revision: String },
    /// The clock: the canary's next step, if its time has come.
    Advance,
}

/// Why a move is not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    #[error("no revision is active in this chain; activate one first, for somebody must serve the others")]
    NothingActive,
    #[error("revision {} is active already", short(revision))]
    Active { revision: String },
    #[error("no {slot} is running in this chain")]
    Empty { slot: &'static str },
    #[error("nothing served before the active revision; activate another one by its id")]
    NothingBefore,
    #[error("a canary needs a share above 0, or at least one Page")]
    NobodyServed,
}

/// The first 12 digits of a revision, for people.
pub fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}

fn to(revision: &str, state: &'static str) -> StateChange {
    StateChange { revision: revision.to_owned(), state, reason: None }
}

fn because(revision: &str, state: &'static str, reason: impl Into<String>) -> StateChange {
    StateChange { revision: revision.to_owned(), state, reason: Some(reason.into()) }
}

impl Move {
    /// Changes the row, and says which revisions change their state.
    pub fn apply(&self, row: &mut Rollout, now: DateTime<Utc>) -> Result<Vec<StateChange>, MoveError> {
        match self {
            Self::Activate { revision, origin } => {
                if row.active.as_ref() == Some(revision) {
                    (*origin).clone_into(&mut row.origin);
                    return Ok(Vec::new());
                }
                vacate(row, revision);
                let mut changes = Vec::new();
                if let Some(old) = row.active.replace(revision.clone()) {
                    changes.push(because(&old, "retired", format!("replaced by {}", short(revision))));
                    row.previous = Some(old);
                }
                (*origin).clone_into(&mut row.origin);
                row.active_since = now;
                changes.push(to(revision, "active"));
                Ok(changes)
            }
            Self::Canary { revision, share, page_ids, steps } => {
                beside_active(row, revision)?;
                let stored = serde_json::to_value(steps).unwrap_or_default();
                let is_running = row.canary.as_ref() == Some(revision) && !steps.is_empty();
                if is_running && row.canary_steps == stored && row.canary_page_ids == *page_ids {
                    // The steps go on; they do not begin again.
                    return Ok(Vec::new());
                }
                let share = steps.first().and_then(|step| Share::from_basis_points(step.share_bp)).unwrap_or(*share);
                if share == Share::default() && page_ids.is_empty() {
                    return Err(MoveError::NobodyServed);
                }
                if row.shadow.as_ref() == Some(revision) {
                    row.shadow = None;
                }
                let mut changes = Vec::new();
                if let Some(old) = row.canary.replace(revision.clone()).filter(|old| old != revision) {
                    changes.push(because(&old, "retired", format!("replaced as canary by {}", short(revision))));
                }
                if row.previous.as_ref() == Some(revision) {
                    row.previous = None;
                }
                row.canary_share_bp = share.basis_points().into();
                row.canary_page_ids.clone_from(page_ids);
                row.canary_steps = stored;
                (row.canary_step, row.canary_step_at) = (0, Some(now));
                changes.push(to(revision, "canary"));
                Ok(changes)
            }
            Self::Shadow { revision } => {
                beside_active(row, revision)?;
                if row.canary.as_ref() == Some(revision) {
                    no_canary(row);
                }
                if row.previous.as_ref() == Some(revision) {
                    row.previous = None;
                }
                let mut changes = Vec::new();
                match row.shadow.replace(revision.clone()) {
                    Some(old) if old == *revision => return Ok(changes),
                    Some(old) => {
                        changes.push(because(&old, "retired", format!("replaced as shadow by {}", short(revision))));
                    }
                    None => {}
                }
                changes.push(to(revision, "shadow"));
                Ok(changes)
            }
            Self::Back { revision, before } => {
                if row.active.as_ref() == Some(revision) {
                    return Err(MoveError::Active { revision: revision.clone() });
                }
                vacate(row, revision);
                let mut changes = Vec::new();
                if let Some(old) = row.active.replace(revision.clone()) {
                    changes.push(to(&old, "retired"));
                }
                row.previous = before.clone().filter(|before| before != revision);
                "api".clone_into(&mut row.origin);
                row.active_since = now;
                changes.push(to(revision, "active"));
                Ok(changes)
            }
            Self::EndCanary => {
                let old = row.canary.take().ok_or(MoveError::Empty { slot: "canary" })?;
                no_canary(row);
                Ok(vec![to(&old, "retired")])
            }
            Self::EndShadow => {
                let old = row.shadow.take().ok_or(MoveError::Empty { slot: "shadow" })?;
                Ok(vec![to(&old, "retired")])
            }
            Self::Trip { revision } => trip(row, revision, now),
            Self::Advance => Ok(advance(row, now)),
        }
    }
}

/// Nobody stands beside nobody, and no revision beside itself.
fn beside_active(row: &Rollout, revision: &str) -> Result<(), MoveError> {
    match row.active.as_deref() {
        None => Err(MoveError::NothingActive),
        Some(active) if active == revision => Err(MoveError::Active { revision: revision.to_owned() }),
        Some(_) => Ok(()),
    }
}

/// Leaves the places beside the active one that a revision holds.
fn vacate(row: &mut Rollout, revision: &str) {
    if row.canary.as_deref() == Some(revision) {
        no_canary(row);
    }
    if row.shadow.as_deref() == Some(revision) {
        row.shadow = None;
    }
    if row.previous.as_deref() == Some(revision) {
        row.previous = None;
    }
}

fn no_canary(row: &mut Rollout) {
    row.canary = None;
    row.canary_share_bp = 0;
    row.canary_page_ids.clear();
    row.canary_steps = serde_json::json!([]);
    (row.canary_step, row.canary_step_at) = (0, None);
}

fn trip(row: &mut Rollout, revision: &str, now: DateTime<Utc>) -> Result<Vec<StateChange>, MoveError> {
    let mut changes = vec![to(revision, "quarantined")];
    if row.active.as_deref() == Some(revision) {
        // Somebody must serve: a chain's only revision stays, and its faults go to people as every fault does.
        let previous = row.previous.take().ok_or(MoveError::NothingBefore)?;
        let why = format!("serves again: {} was taken out", short(revision));
        changes.push(because(&previous, "active", why));
        row.active = Some(previous);
        row.active_since = now;
        "api".clone_into(&mut row.origin);
    }
    vacate(row, revision);
    Ok(changes)
}

fn advance(row: &mut Rollout, now: DateTime<Utc>) -> Vec<StateChange> {
    let steps: Vec<CanaryStep> = serde_json::from_value(row.canary_steps.clone()).unwrap_or_default();
    let (Some(canary), Some(since)) = (row.canary.clone(), row.canary_step_at) else { return Vec::new() };
    let at = usize::try_from(row.canary_step).unwrap_or(usize::MAX);
    let Some(step) = steps.get(at) else { return Vec::new() };
    if now < since + TimeDelta::minutes(step.minutes.into()) {
        return Vec::new();
    }
    let Some(next) = steps.get(at + 1) else {
        // All steps are done.
        let done = Move::Activate { revision: canary, origin: "api" };
        return done.apply(row, now).unwrap_or_default();
    };
    row.canary_step += 1;
    row.canary_share_bp = next.share_bp.into();
    row.canary_step_at = Some(now);
    let percent = f64::from(next.share_bp) / 100.0;
    vec![because(&canary, "canary", format!("step {} of {}: {percent} % of customers", at + 2, steps.len()))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + minutes * 60, 0).unwrap()
    }

    fn name(letter: char) -> String {
        letter.to_string().repeat(64)
    }

    fn row() -> Rollout {
        let canary_steps = serde_json::json!([]);
        Rollout { chain: "default".into(), origin: "folder".into(), canary_steps, ..Rollout::default() }
    }

    fn with_active(letters: &[char]) -> Rollout {
        let mut row = row();
        for letter in letters {
            Move::Activate { revision: name(*letter), origin: "folder" }.apply(&mut row, at(0)).unwrap();
        }
        row
    }

    fn canary(letter: char, points: u16, steps: &[(u16, u32)]) -> Move {
        let steps = steps.iter().map(|&(share_bp, minutes)| CanaryStep { share_bp, minutes }).collect();
        let share = Share::from_basis_points(points).unwrap();
        Move::Canary { revision: name(letter), share, page_ids: Vec::new(), steps }
    }

    fn states(changes: &[StateChange]) -> Vec<(char, &'static str)> {
        changes.iter().map(|change| (change.revision.chars().next().unwrap(), change.state)).collect()
    }

    #[test]
    fn what_was_active_stands_by() {
        let mut row = with_active(&['a']);
        let changes = Move::Activate { revision: name('b'), origin: "api" }.apply(&mut row, at(1)).unwrap();
        assert_eq!(states(&changes), [('a', "retired"), ('b', "active")]);
        assert_eq!((row.active.clone(), row.previous.clone()), (Some(name('b')), Some(name('a'))));
        let again = Move::Activate { revision: name('b'), origin: "api" }.apply(&mut row.clone(), at(2)).unwrap();
        assert_eq!(again, []);
        let back = Move::Back { revision: name('a'), before: None };
        assert_eq!(states(&back.apply(&mut row, at(2)).unwrap()), [('b', "retired"), ('a', "active")]);
        assert_eq!((row.active.clone(), row.previous.clone()), (Some(name('a')), None));
    }

    #[test]
    fn a_revision_is_in_one_place_at_a_time() {
        let mut row = with_active(&['a', 'b']);
        Move::Shadow { revision: name('c') }.apply(&mut row, at(1)).unwrap();
        canary('c', 100, &[]).apply(&mut row, at(2)).unwrap();
        assert_eq!((row.shadow.clone(), row.canary.clone()), (None, Some(name('c'))));
        Move::Activate { revision: name('c'), origin: "api" }.apply(&mut row, at(3)).unwrap();
        assert_eq!((row.canary.clone(), row.canary_share_bp), (None, 0));
        assert_eq!(row.previous, Some(name('b')));
        // What stands by may be tried again, and then stands by no longer.
        canary('b', 100, &[]).apply(&mut row, at(4)).unwrap();
        assert_eq!(row.previous, None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let share = |letter| canary(letter, 1_000, &[]);
        assert_eq!(share('a').apply(&mut row(), at(0)), Err(MoveError::NothingActive));
        let mut row = with_active(&['a']);
        assert_eq!(share('a').apply(&mut row, at(0)), Err(MoveError::Active { revision: name('a') }));
        assert_eq!(canary('b', 0, &[]).apply(&mut row, at(0)), Err(MoveError::NobodyServed));
        assert_eq!(Move::EndCanary.apply(&mut row, at(0)), Err(MoveError::Empty { slot: "canary" }));
        assert_eq!(Move::EndShadow.apply(&mut row, at(0)), Err(MoveError::Empty { slot: "shadow" }));
        assert_eq!(Move::Trip { revision: name('a') }.apply(&mut row, at(0)), Err(MoveError::NothingBefore));
        assert_eq!(row.active, Some(name('a')));
    }

    #[test]
    fn a_trip_takes_a_revision_out_of_whatever_place() {
        let trip = |letter| Move::Trip { revision: name(letter) };
        let mut row = with_active(&['a', 'b']);
        canary('c', 100, &[]).apply(&mut row, at(1)).unwrap();
        Move::Shadow { revision: name('d') }.apply(&mut row, at(1)).unwrap();
        assert_eq!(states(&trip('c').apply(&mut row, at(2)).unwrap()), [('c', "quarantined")]);
        assert_eq!(states(&trip('d').apply(&mut row, at(2)).unwrap()), [('d', "quarantined")]);
        assert_eq!((row.canary.clone(), row.shadow.clone(), row.active.clone()), (None, None, Some(name('b'))));
        assert_eq!(states(&trip('b').apply(&mut row, at(3)).unwrap()), [('b', "quarantined"), ('a', "active")]);
        assert_eq!((row.active.clone(), row.previous.clone()), (Some(name('a')), None));
    }

    #[test]
    fn the_clock_grows_a_canary_and_makes_it_active_after_the_last_step() {
        let mut row = with_active(&['a']);
        canary('b', 0, &[(100, 10), (1_000, 20), (5_000, 5)]).apply(&mut row, at(0)).unwrap();
        assert_eq!(row.canary_share_bp, 100);
        let advance = |row: &mut Rollout, minute| states(&Move::Advance.apply(row, at(minute)).unwrap());
        assert_eq!(advance(&mut row, 9), []);
        assert_eq!(advance(&mut row, 10), [('b', "canary")]);
        assert_eq!((row.canary_share_bp, row.canary_step), (1_000, 1));
        assert_eq!(advance(&mut row, 29), []);
        assert_eq!(advance(&mut row, 31), [('b', "canary")]);
        assert_eq!(row.canary_share_bp, 5_000);
        assert_eq!(advance(&mut row, 36), [('a', "retired"), ('b', "active")]);
        assert_eq!(
            (row.active.clone(), row.canary.clone(), row.previous.clone()),
            (Some(name('b')), None, Some(name('a')))
        );
        assert_eq!(advance(&mut row, 999), []);
        // The same steps again change nothing; other steps begin anew.
        let mut row = with_active(&['a']);
        canary('b', 0, &[(100, 10), (1_000, 20)]).apply(&mut row, at(0)).unwrap();
        assert_eq!(advance(&mut row, 10), [('b', "canary")]);
        assert_eq!(canary('b', 0, &[(100, 10), (1_000, 20)]).apply(&mut row, at(11)).unwrap(), []);
        assert_eq!(row.canary_step, 1);
        assert_eq!(states(&canary('b', 0, &[(200, 10)]).apply(&mut row, at(11)).unwrap()), [('b', "canary")]);
        assert_eq!((row.canary_step, row.canary_share_bp), (0, 200));
        // Without steps the share stays as it is.
        canary('c', 700, &[]).apply(&mut row, at(1_000)).unwrap();
        assert_eq!(advance(&mut row, 99_999), []);
    }
}
