//! The gate: what must hold before a revision serves customers, and what was found.
//!
//! ```toml
//! [gate]                                   # optional, each field too; these are the defaults
//! golden_failures_max = 0                  # golden cases of the chain that may fail
//! replay_last = 100                        # newest recorded decisions that are judged again; 0: none
//! replay_ms_max = 500                      # for at most so long
//! replay_min = 20                          # with fewer decisions, changed routes are a warning only
//! routes_changed_max_percent = 10.0        # decisions whose route may be another than now
//! new_faults_max = 0                       # decisions that may end in a fault and do not now
//! fuel_warn_percent = 25.0                 # more fuel than now is a warning
//! ```
//! Golden cases are judged by [`crate::cases`], recorded decisions by [`crate::replay`]; whoever activates revisions
//! fetches them, bounds the time, and gathers the findings here. The gate says nothing about what a revision does, so its
//! thresholds are no part of a revision's id.
//!
//! A recorded decision is compared with what the active revision says of it, not with what was said at the time: what
//! earlier changes changed is not held against this one. Routes follow from the classifier alone, so they count whatever
//! the [`Level`](crate::Level) of the replay; and so do faults, because a call that was made did fault, whichever draft it
//! was given. Fuel counts where the same calls are made: the replay is exact, or would only differ in the draft.

use serde::{Deserialize, Serialize};

use crate::replay::{Level, RecordedTurn, Replayed};

/// Most decisions that a gate judges.
pub const REPLAY_MAX: u32 = 10_000;
/// Longest time for them, in milliseconds.
pub const REPLAY_MS_MAX: u64 = 600_000;
/// Failures that a verdict names.
pub const SHOWN_MAX: usize = 10;

/// The `[gate]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GateSpec {
    /// Golden cases that may fail.
    pub golden_failures_max: u32,
    /// Newest recorded decisions that are judged again.
    pub replay_last: u32,
    /// For at most so long, in milliseconds.
    pub replay_ms_max: u64,
    /// With fewer decisions, changed routes are a warning only.
    pub replay_min: u32,
    /// Decisions whose route may change.
    pub routes_changed_max_percent: f64,
    /// Decisions that may end in a fault and do not now.
    pub new_faults_max: u32,
    /// More fuel than now is a warning.
    pub fuel_warn_percent: f64,
}

impl Default for GateSpec {
    fn default() -> Self {
        Self {
            golden_failures_max: 0,
            replay_last: 100,
            replay_ms_max: 500,
            replay_min: 20,
            routes_changed_max_percent: 10.0,
            new_faults_max: 0,
            fuel_warn_percent: 25.0,
        }
    }
}

impl GateSpec {
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.replay_last > REPLAY_MAX {
            return Err(("replay_last", format!("{} was given, expected 0 to {REPLAY_MAX}", self.replay_last)));
        }
        if !(1..=REPLAY_MS_MAX).contains(&self.replay_ms_max) {
            return Err(("replay_ms_max", format!("{} was given, expected 1 to {REPLAY_MS_MAX}", self.replay_ms_max)));
        }
        for (field, found, most) in [
            ("routes_changed_max_percent", self.routes_changed_max_percent, 100.0),
            ("fuel_warn_percent", self.fuel_warn_percent, 10_000.0),
        ] {
            if !(0.0..=most).contains(&found) {
                return Err((field, format!("{found} was given, expected 0 to {most}")));
            }
        }
        Ok(())
    }
}

/// What was found about golden cases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Golden {
    /// Cases that were judged.
    pub cases: u32,
    /// Those that do not hold.
    pub failed: u32,
    /// The first of them, with what was expected and found.
    pub failures: Vec<String>,
    /// Why the cases cannot be read, if they cannot.
    pub unreadable: Option<String>,
}

/// What was found about recorded decisions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Replays {
    /// Decisions that were judged.
    pub records: u32,
    /// Decisions that there was no time for.
    pub skipped: u32,
    /// Replays by level.
    pub exact: u32,
    /// Replays by level.
    pub draft_would_differ: u32,
    /// Replays by level.
    pub no_draft_recorded: u32,
    /// Decisions whose route changed.
    pub routes_changed: u32,
    /// The first of them: turn, route now, route then.
    pub changes: Vec<String>,
    /// Decisions that end in a fault and do not now.
    pub new_faults: u32,
    /// Fuel of the decisions whose route did not change, now.
    pub fuel_before: u64,
    /// The same, of the candidate.
    pub fuel_after: u64,
}

/// How a decision ends with a revision, as far as the gate looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// How far it can be trusted.
    pub level: Level,
    /// Where the turn goes.
    pub route: String,
    /// Fuel of all calls.
    pub fuel_used: u64,
    /// Whether any call faulted.
    pub is_fault: bool,
}

impl From<&Replayed> for Judged {
    fn from(replayed: &Replayed) -> Self {
        let calls = replayed.calls();
        Self {
            level: replayed.level,
            route: replayed.conclusion.route.clone(),
            fuel_used: calls.iter().map(|(_, fuel, _)| fuel).sum(),
            is_fault: calls.iter().any(|(_, _, is_fault)| *is_fault),
        }
    }
}

/// As it was recorded, which is as the revision that recorded it would judge it again.
impl From<&RecordedTurn> for Judged {
    fn from(recorded: &RecordedTurn) -> Self {
        Self {
            level: Level::Exact,
            route: recorded.conclusion().route,
            fuel_used: recorded.fuel_used(),
            is_fault: recorded.is_fault(),
        }
    }
}

impl Replays {
    /// Counts a decision: as it is judged now, and as the candidate judges it.
    pub fn add(&mut self, turn_id: &str, now: &Judged, candidate: &Judged) {
        self.records += 1;
        match candidate.level {
            Level::Exact => self.exact += 1,
            Level::DraftWouldDiffer => self.draft_would_differ += 1,
            Level::NoDraftRecorded => self.no_draft_recorded += 1,
        }
        self.new_faults += u32::from(candidate.is_fault && !now.is_fault);
        if now.route != candidate.route {
            self.routes_changed += 1;
            if self.changes.len() < SHOWN_MAX {
                self.changes.push(format!("turn {turn_id}: {} -> {}", now.route, candidate.route));
            }
        } else if now.level != Level::NoDraftRecorded && candidate.level != Level::NoDraftRecorded {
            self.fuel_before += now.fuel_used;
            self.fuel_after += candidate.fuel_used;
        }
    }

    /// Changed routes, in percent of the decisions.
    #[must_use]
    pub fn routes_changed_percent(&self) -> f64 {
        if self.records == 0 { 0.0 } else { f64::from(self.routes_changed) * 100.0 / f64::from(self.records) }
    }
}

/// What the gate says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether the revision may serve.
    pub passed: bool,
    /// Why not; empty when it may.
    pub failures: Vec<String>,
    /// What a person should look at.
    pub warnings: Vec<String>,
    /// The golden cases.
    pub golden: Golden,
    /// The recorded decisions.
    pub replays: Replays,
    /// The thresholds that were applied.
    pub spec: GateSpec,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
}

impl Verdict {
    /// Applies the thresholds.
    #[must_use]
    pub fn of(spec: &GateSpec, golden: Golden, replays: Replays, elapsed_ms: u64) -> Self {
        let (mut failures, mut warnings) = (Vec::new(), Vec::new());
        if let Some(problem) = &golden.unreadable {
            failures.push(format!("the golden cases cannot be read: {problem}"));
        }
        if golden.failed > spec.golden_failures_max {
            let first = golden.failures.first().map(|first| format!("; the first: {first}")).unwrap_or_default();
            failures.push(format!(
                "{} of {} golden cases fail (at most {} may){first}",
                golden.failed, golden.cases, spec.golden_failures_max
            ));
        }
        let changed = replays.routes_changed_percent();
        if changed > spec.routes_changed_max_percent {
            let found = format!(
                "{} of {} recorded decisions would take another route: {changed:.1} % (at most {} % may)",
                replays.routes_changed, replays.records, spec.routes_changed_max_percent
            );
            if replays.records >= spec.replay_min {
                failures.push(found);
            } else {
                warnings.push(format!("{found}; too few decisions to refuse it"));
            }
        }
        if replays.new_faults > spec.new_faults_max {
            failures.push(format!(
                "{} of {} recorded decisions would end in a fault that they do not end in now (at most {} may)",
                replays.new_faults, replays.records, spec.new_faults_max
            ));
        }
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let growth = match replays.fuel_before {
            0 => 0.0,
            before => (replays.fuel_after as f64 / before as f64 - 1.0) * 100.0,
        };
        if growth > spec.fuel_warn_percent {
            warnings.push(format!("the recorded decisions would use {growth:.0} % more fuel"));
        }
        if replays.skipped > 0 {
            let asked = replays.records + replays.skipped;
            warnings.push(format!("only {} of {asked} recorded decisions were judged in time", replays.records));
        }
        Self { passed: failures.is_empty(), failures, warnings, golden, replays, spec: spec.clone(), elapsed_ms }
    }

    /// Why the revision may not serve, in one line.
    #[must_use]
    pub fn reason(&self) -> String {
        self.failures.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(route: &str, fuel_used: u64) -> Judged {
        Judged { level: Level::Exact, route: route.to_owned(), fuel_used, is_fault: false }
    }

    fn replays(records: u32, changed: u32) -> Replays {
        let mut replays = Replays::default();
        for n in 0..records {
            let after = if n < changed { "human" } else { "answer" };
            replays.add(&format!("t{n}"), &judged("answer", 100), &judged(after, 100));
        }
        replays
    }

    fn verdict(golden: Golden, replays: Replays) -> Verdict {
        Verdict::of(&GateSpec::default(), golden, replays, 1)
    }

    #[test]
    fn thresholds_hold_at_the_limit_and_one_past_it() {
        assert!(verdict(Golden::default(), replays(100, 10)).passed);
        let one_more = verdict(Golden::default(), replays(100, 11));
        assert!(!one_more.passed && one_more.reason().contains("11 of 100"), "{one_more:?}");
        assert_eq!(one_more.replays.changes.len(), SHOWN_MAX);

        let golden = |failed| Golden { cases: 50, failed, failures: vec!["x".to_owned()], unreadable: None };
        assert!(verdict(golden(0), replays(0, 0)).passed);
        assert!(verdict(golden(1), replays(0, 0)).reason().contains("1 of 50 golden cases fail"));
        let lenient = GateSpec { golden_failures_max: 1, ..GateSpec::default() };
        assert!(Verdict::of(&lenient, golden(1), Replays::default(), 1).passed);
        assert!(!Verdict::of(&lenient, golden(2), Replays::default(), 1).passed);
        let unreadable = Golden { unreadable: Some("classify.toml".to_owned()), ..Golden::default() };
        assert!(!verdict(unreadable, Replays::default()).passed);
    }

    #[test]
    fn few_decisions_warn_and_do_not_refuse() {
        let few = verdict(Golden::default(), replays(19, 19));
        assert!(few.passed && few.warnings[0].contains("too few"), "{few:?}");
        assert!(!verdict(Golden::default(), replays(20, 20)).passed);
    }

    #[test]
    fn fuel_warns_one_past_the_limit() {
        let with = |after| {
            let mut replays = Replays::default();
            replays.add("t", &judged("answer", 1_000), &judged("answer", after));
            verdict(Golden::default(), replays)
        };
        assert_eq!(with(1_250).warnings, [""; 0]);
        let more = with(1_260);
        assert!(more.passed && more.warnings[0].contains("26 % more fuel"), "{more:?}");
    }

    #[test]
    fn only_faults_that_are_new_count() {
        let fault = Judged { is_fault: true, ..judged("human", 1) };
        let mut same = Replays::default();
        same.add("t", &fault, &fault);
        assert!(verdict(Golden::default(), same).passed);
        let mut new = Replays::default();
        new.add("t", &judged("human", 1), &fault);
        assert!(verdict(Golden::default(), new).reason().contains("end in a fault"));
    }

    #[test]
    fn the_table_is_checked() {
        let check = |text: &str| {
            let spec: GateSpec = toml::from_str(text).map_err(|error| error.to_string())?;
            spec.check().map_err(|(field, problem)| format!("{field}: {problem}"))
        };
        check("replay_last = 10000\nreplay_ms_max = 600000\nroutes_changed_max_percent = 100.0").unwrap();
        for (text, expected) in [
            ("replay_last = 10001", "replay_last"),
            ("replay_ms_max = 0", "replay_ms_max"),
            ("routes_changed_max_percent = 100.1", "routes_changed_max_percent"),
            ("fuel_warn_percent = -1.0", "fuel_warn_percent"),
            ("golden = 1", "golden"),
        ] {
            let found = check(text).unwrap_err();
            assert!(found.contains(expected), "{found}");
        }
    }
}
