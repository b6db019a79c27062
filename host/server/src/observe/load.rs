//! How busy this process is, for those whose work can be left out.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::policies::Policies;

/// Turns that run, out of those that may.
#[derive(Debug)]
pub struct Load {
    turns_running: AtomicUsize,
    turns_max: usize,
    instances_max: u32,
}

/// A running turn; it ends when this is dropped.
#[derive(Debug)]
pub struct Running<'a> {
    load: &'a Load,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.load.turns_running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Load {
    pub fn new(turns_max: usize, instances_max: u32) -> Self {
        Self { turns_running: AtomicUsize::new(0), turns_max: turns_max.max(1), instances_max: instances_max.max(1) }
    }

    /// Counts a turn until the guard is dropped.
    pub fn run(&self) -> Running<'_> {
        self.turns_running.fetch_add(1, Ordering::Relaxed);
        Running { load: self }
    }

    /// How much of what is bounded is in use, in percent: the larger of workers and instances of policies.
    pub fn percent(&self, policies: &Policies) -> u32 {
        let turns = percent(self.turns_running.load(Ordering::Relaxed), self.turns_max);
        let instances_max = usize::try_from(self.instances_max).unwrap_or(usize::MAX);
        let instances = instances_max.saturating_sub(policies.pool_use().free_calls);
        turns.max(percent(instances, instances_max))
    }
}

fn percent(used: usize, all: usize) -> u32 {
    u32::try_from(used.saturating_mul(100) / all).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_counted_while_they_run() {
        let load = Load::new(4, 16);
        let running: Vec<_> = (0..3).map(|_| load.run()).collect();
        assert_eq!(percent(load.turns_running.load(Ordering::Relaxed), load.turns_max), 75);
        drop(running);
        assert_eq!(load.turns_running.load(Ordering::Relaxed), 0);
    }
}
