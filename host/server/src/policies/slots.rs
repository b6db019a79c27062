//! Which revision judges whom: the places of a chain, and who falls under a canary.
//!
//! ```text
//! active    serves everybody who is not under the canary
//! canary    serves the listed Pages, and a share of all customers
//! shadow    judges beside the one that serves; nobody is told what it says
//! previous  serves again when the active one is taken out
//! ```
//!
//! # Invariants
//! - A customer's place in the canary follows from chain, Page and PSID alone. So the same customer is always on the same
//!   side, on every replica, and a share that grows keeps everybody who was in.
//! - The places are swapped as a whole; a turn takes its revision once and keeps it.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Serving;

/// All of a share, in basis points.
const WHOLE: u16 = 10_000;

/// A share of customers, in basis points: 0 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Share(u16);

impl Share {
    /// Everybody.
    pub const ALL: Self = Self(WHOLE);

    /// `None` beyond 10,000 basis points.
    pub fn from_basis_points(points: u16) -> Option<Self> {
        (points <= WHOLE).then_some(Self(points))
    }

    /// A percentage in steps of 0.01; `None` outside 0 to 100.
    pub fn from_percent(percent: f64) -> Option<Self> {
        if !(0.0..=100.0).contains(&percent) {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10,000, checked above")]
        let points = (percent * 100.0).round() as u16;
        Self::from_basis_points(points)
    }

    pub fn basis_points(self) -> u16 {
        self.0
    }

    pub fn percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// Whether a customer falls under this share of a chain.
    pub fn holds(self, chain: &str, page_id: &str, psid: &str) -> bool {
        match self.0 {
            0 => false,
            WHOLE => true,
            points => point_of(chain, page_id, psid) < points,
        }
    }
}

/// A customer's fixed point between 0 and 9,999. The revision is not part of it.
fn point_of(chain: &str, page_id: &str, psid: &str) -> u16 {
    let mut hash = Sha256::new();
    for part in [chain, page_id, psid] {
        // Lengths keep neighbouring parts from running into each other.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    let head = digest.iter().take(8).fold(0_u128, |head, byte| head << 8 | u128::from(*byte));
    // The high bits, spread evenly: a remainder would favour low points.
    u16::try_from((head * u128::from(WHOLE)) >> 64).unwrap_or(WHOLE - 1)
}

/// A revision that serves some.
#[derive(Debug, Clone)]
pub struct Canary {
    pub serving: Arc<Serving>,
    pub share: Share,
    /// Pages whose customers it serves all.
    pub page_ids: Vec<String>,
}

impl Canary {
    fn holds(&self, chain: &str, page_id: &str, psid: &str) -> bool {
        self.page_ids.iter().any(|listed| listed == page_id) || self.share.holds(chain, page_id, psid)
    }
}

/// The places of one chain.
#[derive(Debug, Clone, Default)]
pub struct Slots {
    pub active: Option<Arc<Serving>>,
    pub canary: Option<Canary>,
    pub shadow: Option<Arc<Serving>>,
    pub previous: Option<Arc<Serving>>,
}

/// A place of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    Active,
    Canary,
    Shadow,
}

impl Slot {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Canary => "canary",
            Self::Shadow => "shadow",
        }
    }
}

impl Slots {
    /// The revision for a customer's turn.
    pub fn pick(&self, chain: &str, page_id: &str, psid: &str) -> Option<&Arc<Serving>> {
        match &self.canary {
            Some(canary) if canary.holds(chain, page_id, psid) => Some(&canary.serving),
            _ => self.active.as_ref(),
        }
    }

    /// Where a revision stands, if it does.
    pub fn slot_of(&self, revision: &str) -> Option<Slot> {
        let is = |serving: Option<&Arc<Serving>>| serving.is_some_and(|serving| serving.id() == revision);
        if is(self.active.as_ref()) {
            Some(Slot::Active)
        } else if is(self.canary.as_ref().map(|canary| &canary.serving)) {
            Some(Slot::Canary)
        } else if is(self.shadow.as_ref()) {
            Some(Slot::Shadow)
        } else {
            None
        }
    }

    /// A revision that is loaded already, in whatever place.
    pub fn loaded(&self, revision: &str) -> Option<&Arc<Serving>> {
        let canary = self.canary.as_ref().map(|canary| &canary.serving);
        [self.active.as_ref(), canary, self.shadow.as_ref(), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|serving| serving.id() == revision)
    }

    /// Takes a revision out. `None`: it stands nowhere, or it is the active one and nothing served before it.
    pub fn without(&self, revision: &str) -> Option<(Self, Slot)> {
        let slot = self.slot_of(revision)?;
        let mut left = self.clone();
        match slot {
            Slot::Canary => left.canary = None,
            Slot::Shadow => left.shadow = None,
            Slot::Active => left.active = Some(left.previous.take()?),
        }
        Some((left, slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDERS: usize = 100_000;

    fn members(share: Share) -> Vec<bool> {
        (0..SENDERS).map(|n| share.holds("default", "1002003004", &format!("24{n:014}"))).collect()
    }

    #[test]
    fn a_share_of_ten_percent_is_ten_percent_and_each_sender_stays_on_its_side() {
        let share = Share::from_percent(10.0).unwrap();
        let first = members(share);
        let count = first.iter().filter(|is_in| **is_in).count();
        assert!((9_000..=11_000).contains(&count), "{count} of {SENDERS}");
        assert_eq!(first, members(share));
    }

    #[test]
    fn a_share_that_grows_keeps_its_members() {
        let mut before = members(Share::default());
        assert!(before.iter().all(|is_in| !is_in));
        for percent in [0.1, 1.0, 10.0, 50.0, 99.9, 100.0] {
            let now = members(Share::from_percent(percent).unwrap());
            assert!(before.iter().zip(&now).all(|(was, is)| *is || !*was), "{percent} % lost somebody");
            #[expect(clippy::cast_precision_loss, reason = "100,000 at most")]
            let found = now.iter().filter(|is_in| **is_in).count() as f64 / SENDERS as f64 * 100.0;
            assert!((found - percent).abs() < 1.0, "{found} % for {percent} %");
            before = now;
        }
        assert!(before.iter().all(|is_in| *is_in));
    }

    #[test]
    fn the_point_depends_on_each_part_and_not_on_where_they_meet() {
        let point = point_of("a", "bc", "d");
        for other in [("ab", "c", "d"), ("a", "b", "cd"), ("a", "bc", "e"), ("x", "bc", "d")] {
            assert_ne!(point, point_of(other.0, other.1, other.2), "{other:?}");
        }
    }

    #[test]
    fn shares_are_checked_at_their_limits() {
        assert_eq!(Share::from_percent(0.1).unwrap().basis_points(), 10);
        assert_eq!(Share::from_percent(100.0), Some(Share::ALL));
        assert_eq!(Share::from_basis_points(10_001), None);
        for wrong in [-0.01, 100.01, f64::NAN, f64::INFINITY] {
            assert_eq!(Share::from_percent(wrong), None, "{wrong}");
        }
    }
}
