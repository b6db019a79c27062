//! When a revision that judges real turns is taken out by itself: the limits of `chain.toml`, the numbers they are held
//! against, and the comparison. Pure: the time comes from the caller.
//!
//! ```toml
//! [tripwire]                         # optional, each field too; these are the defaults
//! enabled = true
//! window_s = 300                     # only the turns of so many seconds count
//! turns_min = 30                     # rates of escalation and fuel are not judged on fewer turns, here or there
//! faults_min = 3                     # fewer faulted turns say nothing about a rate
//! fault_rate_max = 0.05              # share of turns with a fault
//! deadline_misses_max = 5            # turns with a call past its deadline
//! escalation_factor_max = 1.5        # both must be passed: so many times the other's share of turns for people,
//! escalation_difference_max = 0.10   # and so much more of it
//! fuel_factor_max = 2.0              # 99 % of turns use at most so many times the other's
//! probation_s = 1800                 # how long a revision that became active is compared with the one before
//! ```
//! A canary is compared with the active revision at the same time, a shadow with what the active one made of the same
//! turns, a revision that became active with the last numbers of the one before it.
//!
//! A value is good up to its limit: only what is past it trips.

mod window;

use serde::{Deserialize, Serialize};

pub use window::{Counts, FAULT_BYTES_MAX, FuelHistogram, TurnCount, Window};

/// Limits past which a revision is taken out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tripwire {
    /// Whether anything trips at all.
    pub enabled: bool,
    /// Length of the sliding window, in seconds. Default 300; 10 to 86,400.
    pub window_s: u32,
    /// Least turns, of both revisions, for a comparison. Default 30; 1 to 100,000.
    pub turns_min: u32,
    /// Least faulted turns for a fault rate. Default 3; 1 to 100,000.
    pub faults_min: u32,
    /// Largest share of turns with a fault. Default 0.05; 0 to 1.
    pub fault_rate_max: f64,
    /// Most turns with a call past its deadline. Default 5; 0 to 100,000.
    pub deadline_misses_max: u32,
    /// How many times the other's share of turns for people it may have. Default 1.5; 1 to 100.
    pub escalation_factor_max: f64,
    /// How much more than the other's share it may be. Default 0.1; 0 to 1.
    pub escalation_difference_max: f64,
    /// How many times the other's fuel its own may be, each at the 99th percentile of turns. Default 2; 1 to 1,000.
    pub fuel_factor_max: f64,
    /// How long a revision that became active is compared with the one before, in seconds. Default 1,800; 0 to 604,800.
    pub probation_s: u32,
}

impl Default for Tripwire {
    fn default() -> Self {
        Self {
            enabled: true,
            window_s: 300,
            turns_min: 30,
            faults_min: 3,
            fault_rate_max: 0.05,
            deadline_misses_max: 5,
            escalation_factor_max: 1.5,
            escalation_difference_max: 0.10,
            fuel_factor_max: 2.0,
            probation_s: 1_800,
        }
    }
}

/// A limit outside its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("[tripwire] {field} is {found}; it must be between {least} and {most}")]
pub struct TripwireError {
    /// The field.
    pub field: &'static str,
    /// What was found.
    pub found: f64,
    /// The smallest value allowed.
    pub least: f64,
    /// The largest value allowed.
    pub most: f64,
}

impl Tripwire {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field outside its range.
    pub fn checked(self) -> Result<Self, TripwireError> {
        let ranges: [(&'static str, f64, f64, f64); 9] = [
            ("window_s", self.window_s.into(), 10.0, 86_400.0),
            ("turns_min", self.turns_min.into(), 1.0, 100_000.0),
            ("faults_min", self.faults_min.into(), 1.0, 100_000.0),
            ("fault_rate_max", self.fault_rate_max, 0.0, 1.0),
            ("deadline_misses_max", self.deadline_misses_max.into(), 0.0, 100_000.0),
            ("escalation_factor_max", self.escalation_factor_max, 1.0, 100.0),
            ("escalation_difference_max", self.escalation_difference_max, 0.0, 1.0),
            ("fuel_factor_max", self.fuel_factor_max, 1.0, 1_000.0),
            ("probation_s", self.probation_s.into(), 0.0, 604_800.0),
        ];
        for (field, found, least, most) in ranges {
            // A NaN is in no range.
            if !(least..=most).contains(&found) {
                return Err(TripwireError { field, found, least, most });
            }
        }
        Ok(self)
    }

    /// Whether a revision with these numbers is to be taken out, and why. `other` are the numbers that it is compared
    /// with; without them only its own faults are judged.
    #[must_use]
    pub fn judge(&self, own: &Counts, other: Option<&Counts>) -> Option<Trip> {
        if !self.enabled {
            return None;
        }
        let fault_rate = share(own.faulted, own.turns);
        if own.faulted >= self.faults_min.into() && fault_rate > self.fault_rate_max {
            let (faulted, turns, latest) = (own.faulted, own.turns, own.latest_fault.clone());
            return Some(Trip::Faults { faulted, turns, rate: fault_rate, limit: self.fault_rate_max, latest });
        }
        if own.deadline_misses > self.deadline_misses_max.into() {
            let (missed, limit, latest) = (own.deadline_misses, self.deadline_misses_max, own.latest_fault.clone());
            return Some(Trip::DeadlineMisses { missed, limit, latest });
        }
        let enough = u64::from(self.turns_min);
        let other = other.filter(|other| own.turns >= enough && other.turns >= enough)?;
        let (rate, others) = (share(own.escalated, own.turns), share(other.escalated, other.turns));
        let (factor, difference) = (self.escalation_factor_max, self.escalation_difference_max);
        if rate > others * factor + ROUNDING && rate - others > difference + ROUNDING {
            return Some(Trip::Escalations { rate, other: others });
        }
        let (fuel, others) = (own.fuel.p99(), other.fuel.p99());
        if as_f64(fuel) > as_f64(others) * self.fuel_factor_max {
            return Some(Trip::Fuel { p99: fuel, other: others, factor_max: self.fuel_factor_max });
        }
        None
    }
}

/// Two shares that are exactly at a limit must not trip because binary fractions are not decimal ones.
const ROUNDING: f64 = 1e-9;

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { as_f64(part) / as_f64(whole) }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of turns and units of fuel stay far below 2^52")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

/// Why a revision is taken out.
#[derive(Clone, Debug, PartialEq)]
pub enum Trip {
    /// Too many turns with a fault.
    Faults {
        /// Turns with a fault.
        faulted: u64,
        /// All turns.
        turns: u64,
        /// Their share.
        rate: f64,
        /// The largest share allowed.
        limit: f64,
        /// The latest of them.
        latest: Option<String>,
    },
    /// Too many turns with a call past its deadline.
    DeadlineMisses {
        /// How many.
        missed: u64,
        /// How many are allowed.
        limit: u32,
        /// The latest fault.
        latest: Option<String>,
    },
    /// Too many more turns for people than the other.
    Escalations {
        /// Its share.
        rate: f64,
        /// The other's.
        other: f64,
    },
    /// Too much more fuel than the other.
    Fuel {
        /// Its 99th percentile.
        p99: u64,
        /// The other's.
        other: u64,
        /// How many times as much is allowed.
        factor_max: f64,
    },
}

impl Trip {
    /// The word for metrics: `faults`, `deadline-misses`, `escalations` or `fuel`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Faults { .. } => "faults",
            Self::DeadlineMisses { .. } => "deadline-misses",
            Self::Escalations { .. } => "escalations",
            Self::Fuel { .. } => "fuel",
        }
    }
}

impl std::fmt::Display for Trip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let latest =
            |latest: &Option<String>| latest.as_ref().map(|fault| format!("; the latest: {fault}")).unwrap_or_default();
        match self {
            Self::Faults { faulted, turns, rate, limit, latest: fault } => write!(
                f,
                "{faulted} of {turns} turns had a fault ({:.1} %; fault_rate_max is {:.1} %){}",
                rate * 100.0,
                limit * 100.0,
                latest(fault)
            ),
            Self::DeadlineMisses { missed, limit, latest: fault } => {
                let fault = latest(fault);
                write!(f, "{missed} turns had a call past its deadline; deadline_misses_max is {limit}{fault}")
            }
            Self::Escalations { rate, other } => write!(
                f,
                "{:.1} % of its turns go to people, {:.1} % of those it is compared with",
                rate * 100.0,
                other * 100.0
            ),
            Self::Fuel { p99, other, factor_max } => write!(
                f,
                "its turns use up to {p99} units of fuel (99th percentile), those it is compared with {other}; \
                 fuel_factor_max is {factor_max}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(turns: u64, faulted: u64, deadline_misses: u64, escalated: u64, fuel: u64) -> Counts {
        let mut counts = Counts::default();
        for n in 0..turns {
            let (fault, missed_deadline) = ((n < faulted).then(|| format!("fault {n}")), n < deadline_misses);
            counts.add(TurnCount { fault, missed_deadline, is_escalated: n < escalated, fuel });
        }
        counts
    }

    #[test]
    fn each_limit_holds_at_the_limit_and_trips_one_past_it() {
        let wire = Tripwire::default();
        let usual = counts(100, 0, 0, 20, 1_000);
        // What the revision did, and why it is taken out.
        let cases: [(Counts, Option<&str>); 14] = [
            (counts(0, 0, 0, 0, 0), None),
            (counts(100, 5, 0, 20, 1_000), None),
            (counts(100, 6, 0, 20, 1_000), Some("faults")),
            (counts(2, 2, 0, 0, 1_000), None),
            (counts(3, 3, 0, 0, 1_000), Some("faults")),
            (counts(100, 0, 5, 20, 1_000), None),
            (counts(100, 0, 6, 20, 1_000), Some("deadline-misses")),
            // A factor of 1.5 of 20 % is 30 %, which is also the difference allowed.
            (counts(100, 0, 0, 30, 1_000), None),
            (counts(100, 0, 0, 31, 1_000), Some("escalations")),
            (counts(29, 0, 0, 29, 1_000), None),
            (counts(30, 0, 0, 30, 1_000), Some("escalations")),
            (counts(100, 0, 0, 20, 2_000), None),
            (counts(100, 0, 0, 20, 2_400), Some("fuel")),
            (counts(29, 0, 0, 5, 2_400), None),
        ];
        for (own, expected) in cases {
            let trip = wire.judge(&own, Some(&usual));
            assert_eq!(trip.as_ref().map(Trip::kind), expected, "{own:?}: {trip:?}");
        }
    }

    #[test]
    fn both_the_factor_and_the_difference_must_be_passed() {
        let wire = Tripwire::default();
        let rarely = counts(1_000, 0, 0, 10, 1_000);
        assert_eq!(wire.judge(&counts(1_000, 0, 0, 110, 1_000), Some(&rarely)), None, "ten more in a hundred");
        let trip = wire.judge(&counts(1_000, 0, 0, 111, 1_000), Some(&rarely)).unwrap();
        assert_eq!(trip.kind(), "escalations");
        assert!(trip.to_string().contains("11.1 %") && trip.to_string().contains("1.0 %"), "{trip}");
        let often = counts(1_000, 0, 0, 600, 1_000);
        assert_eq!(wire.judge(&counts(1_000, 0, 0, 900, 1_000), Some(&often)), None, "1.5 times as often");
        assert!(wire.judge(&counts(1_000, 0, 0, 901, 1_000), Some(&often)).is_some());
    }

    #[test]
    fn without_another_only_its_own_faults_are_judged() {
        let wire = Tripwire::default();
        assert_eq!(wire.judge(&counts(100, 0, 0, 100, 1 << 40), None), None);
        assert_eq!(wire.judge(&counts(100, 0, 0, 100, 1 << 40), Some(&counts(29, 0, 0, 0, 1))), None);
        assert!(wire.judge(&counts(100, 100, 0, 100, 1), None).is_some());
        let off = Tripwire { enabled: false, ..wire };
        assert_eq!(off.judge(&counts(100, 100, 100, 100, 1), Some(&counts(100, 0, 0, 0, 1))), None);
    }

    #[test]
    fn limits_are_checked_at_their_ends_and_unknown_ones_refused() {
        let read = |text: &str| toml::from_str::<Tripwire>(text).map_err(|error| error.to_string());
        assert_eq!(read("").unwrap(), Tripwire::default());
        assert!(read("fault_rate = 0.1").unwrap_err().contains("fault_rate"));
        assert!(read("window_s = 10\nfault_rate_max = 1.0\nprobation_s = 0").unwrap().checked().is_ok());
        for (text, field) in [
            ("window_s = 9", "window_s"),
            ("turns_min = 0", "turns_min"),
            ("fault_rate_max = 1.01", "fault_rate_max"),
            ("fault_rate_max = nan", "fault_rate_max"),
            ("escalation_factor_max = 0.99", "escalation_factor_max"),
            ("fuel_factor_max = inf", "fuel_factor_max"),
            ("probation_s = 604801", "probation_s"),
        ] {
            let error = read(text).unwrap().checked().unwrap_err();
            assert_eq!(error.field, field, "{error}");
        }
    }
}
