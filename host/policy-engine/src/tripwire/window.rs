//! What is counted of a revision's turns, and the sliding window that forgets them again.

use serde::{Deserialize, Serialize};

/// What is counted of one turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TurnCount {
    /// The first fault of its calls, as [`Fault`](crate::Fault)'s `Display` says it: free of the guest's words.
    pub fault: Option<String>,
    /// Whether any of its calls ran past its deadline.
    pub missed_deadline: bool,
    /// Whether it went to a person.
    pub is_escalated: bool,
    /// Fuel of all its calls.
    pub fuel: u64,
}

/// The turns of one revision, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Turns.
    pub turns: u64,
    /// Turns with a fault.
    pub faulted: u64,
    /// Turns with a call past its deadline.
    pub deadline_misses: u64,
    /// Turns that went to a person.
    pub escalated: u64,
    /// How much fuel they used.
    pub fuel: FuelHistogram,
    /// The latest fault, shortened to [`FAULT_BYTES_MAX`]: which component, function and limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_fault: Option<String>,
}

/// Longest fault that is kept beside the numbers, in bytes.
pub const FAULT_BYTES_MAX: usize = 300;

impl Counts {
    /// Counts a turn.
    pub fn add(&mut self, turn: TurnCount) {
        self.turns += 1;
        self.faulted += u64::from(turn.fault.is_some());
        self.deadline_misses += u64::from(turn.missed_deadline);
        self.escalated += u64::from(turn.is_escalated);
        self.fuel.add(turn.fuel);
        if let Some(mut fault) = turn.fault {
            fault.truncate(fault.floor_char_boundary(FAULT_BYTES_MAX));
            self.latest_fault = Some(fault);
        }
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        self.turns += other.turns;
        self.faulted += other.faulted;
        self.deadline_misses += other.deadline_misses;
        self.escalated += other.escalated;
        self.fuel.merge(&other.fuel);
        if other.latest_fault.is_some() {
            self.latest_fault.clone_from(&other.latest_fault);
        }
    }
}

/// Fuel in classes, eight to each power of two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FuelHistogram {
    /// Turns by class; classes without any are absent. Bounded by the number of classes.
    turns: std::collections::BTreeMap<u16, u64>,
}

/// Classes to an octave.
const CLASSES: u16 = 8;

impl FuelHistogram {
    fn add(&mut self, fuel: u64) {
        *self.turns.entry(class_of(fuel)).or_default() += 1;
    }

    fn merge(&mut self, other: &Self) {
        for (class, turns) in &other.turns {
            *self.turns.entry(*class).or_default() += turns;
        }
    }

    /// What 99 % of the turns do not exceed, at most an eighth too high; 0 without any turn.
    #[must_use]
    pub fn p99(&self) -> u64 {
        let turns: u64 = self.turns.values().sum();
        let wanted = turns - turns / 100;
        let mut seen = 0;
        for (class, turns) in &self.turns {
            seen += turns;
            if seen >= wanted {
                return end_of(*class);
            }
        }
        0
    }
}

/// 0 to 7 by themselves, then eight classes to each power of two.
fn class_of(fuel: u64) -> u16 {
    let Some(octave) = fuel.checked_ilog2().and_then(|log| log.checked_sub(3)) else {
        return u16::try_from(fuel).unwrap_or(0);
    };
    let within = u16::try_from((fuel >> octave) & 7).unwrap_or(0);
    (u16::try_from(octave).unwrap_or(0) + 1) * CLASSES + within
}

/// The end of a class, which makes twice the fuel read as twice the number.
fn end_of(class: u16) -> u64 {
    let (octave, within) = (class / CLASSES, u64::from(class % CLASSES));
    match octave.checked_sub(1) {
        None => within,
        Some(octave) => (u128::from(8 + within + 1) << octave).try_into().unwrap_or(u64::MAX),
    }
}

/// The slices that a window is made of: a turn leaves it at most one slice early.
const SLICES: u64 = 30;

/// The counts of the last so many seconds, of one revision in one process.
#[derive(Clone, Debug)]
pub struct Window {
    slice_ms: u64,
    /// Number of the slice since the epoch, and its counts, oldest first; at most [`SLICES`].
    slices: std::collections::VecDeque<(u64, Counts)>,
}

impl Window {
    /// An empty window of `window_s` seconds.
    #[must_use]
    pub fn new(window_s: u32) -> Self {
        Self { slice_ms: (u64::from(window_s) * 1_000 / SLICES).max(1), slices: std::collections::VecDeque::new() }
    }

    /// Counts a turn.
    pub fn add(&mut self, now_ms: u64, turn: TurnCount) {
        self.forget(now_ms);
        // A clock that was set back counts into the newest slice.
        let number = (now_ms / self.slice_ms).max(self.slices.back().map_or(0, |(number, _)| *number));
        match self.slices.back_mut() {
            Some((newest, counts)) if *newest == number => counts.add(turn),
            _ => {
                let mut counts = Counts::default();
                counts.add(turn);
                self.slices.push_back((number, counts));
            }
        }
    }

    /// The counts of the window that ends now.
    #[must_use]
    pub fn counts(&mut self, now_ms: u64) -> Counts {
        self.forget(now_ms);
        let mut all = Counts::default();
        self.slices.iter().for_each(|(_, counts)| all.merge(counts));
        all
    }

    fn forget(&mut self, now_ms: u64) {
        let now = now_ms / self.slice_ms;
        while self.slices.front().is_some_and(|(number, _)| number + SLICES <= now) {
            self.slices.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::as_f64;
    use super::*;

    /// So many turns that used so much fuel.
    fn fuel(turns: u64, fuel: u64) -> Counts {
        let mut counts = Counts::default();
        (0..turns).for_each(|_| counts.add(TurnCount { fuel, ..TurnCount::default() }));
        counts
    }

    #[test]
    fn fuel_is_read_back_within_an_eighth() {
        for used in (0..200).chain([255, 256, 257, 1_000, 50_000_000, 5_000_000_000, u64::MAX - 1, u64::MAX]) {
            let read = end_of(class_of(used));
            assert!(read >= used, "{read} for {used}");
            assert!(as_f64(read) <= as_f64(used) * 1.125, "{read} for {used}");
        }
        let mut mixed = fuel(99, 100);
        mixed.merge(&fuel(1, 1 << 30));
        assert!(mixed.fuel.p99() < 120, "one turn in a hundred is beyond the percentile");
        mixed.merge(&fuel(1, 1 << 30));
        assert!(mixed.fuel.p99() >= 1 << 30);
        let json = serde_json::to_string(&mixed).unwrap();
        assert_eq!(serde_json::from_str::<Counts>(&json).unwrap(), mixed);
    }

    #[test]
    fn a_window_forgets_what_is_older_and_survives_a_clock_set_back() {
        let mut window = Window::new(30);
        let turn = TurnCount { fault: Some("ü".repeat(FAULT_BYTES_MAX)), ..TurnCount::default() };
        window.add(1_000_000, turn.clone());
        window.add(1_010_000, turn.clone());
        assert_eq!(window.counts(1_029_999).faulted, 2);
        assert_eq!(window.counts(1_030_000).faulted, 1);
        window.add(900_000, turn.clone());
        assert_eq!(window.counts(1_030_000).faulted, 2);
        assert_eq!(window.counts(2_000_000), Counts::default());
        for second in 0..100_000 {
            window.add(3_000_000 + second * 1_000, turn.clone());
        }
        assert!(window.slices.len() <= 30, "{}", window.slices.len());
    }
}
