//! The wall clock of everything that a rule depends on: windows, replies of people, disclosures.
//!
//! It is the machine's, except in simulations, which put it ahead to live through days in seconds. Whoever does so puts
//! Postgres' `now()` ahead by as much: rules that stand in SQL go by that one. Time-outs, pauses and leases' renewals are not rules
//! of Messenger's, and run on the machine's own time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};

/// A clock that all its clones share.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    ahead_ms: Arc<AtomicI64>,
}

impl Clock {
    pub fn now(&self) -> DateTime<Utc> {
        Utc::now() + TimeDelta::milliseconds(self.ahead_ms.load(Ordering::Relaxed))
    }

    /// Puts it ahead of the machine's clock.
    pub fn set_ahead_ms(&self, ahead_ms: i64) {
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_put_ahead_is_so_for_everybody() {
        let clock = Clock::default();
        let other = clock.clone();
        let hour_ms = 3_600_000;
        assert!((other.now() - Utc::now()).abs() < TimeDelta::milliseconds(hour_ms / 2));
        clock.set_ahead_ms(hour_ms);
        assert!((other.now() - Utc::now()) > TimeDelta::milliseconds(hour_ms / 2));
    }
}
