//! How many sends of each Page run in this process.
//!
//! All Pages share `outbox.concurrency` places. A Page for which Meta answers slowly, or which comes back from a pause with a
//! long queue, must not take all of them: while a host serves several Pages, each leaves a quarter to the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
pub(super) struct Lanes {
    running: Mutex<HashMap<String, usize>>,
}

/// A place that a send of a Page takes, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    lanes: Arc<Lanes>,
    page_id: String,
}

/// What may be claimed now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// At most so many rows: as many as any one Page may still take.
    pub limit: usize,
    /// Of none of these Pages.
    pub full: Vec<String>,
}

impl Lanes {
    /// `free` of `concurrency` places are free; the host has so many Pages.
    pub fn room(&self, free: usize, concurrency: usize, pages: usize) -> Room {
        let max = if pages > 1 { (concurrency - concurrency / 4).max(1) } else { concurrency };
        let running = self.lock();
        let full = running.iter().filter(|(_, count)| **count >= max).map(|(page, _)| page.clone()).collect();
        let fullest = running.values().copied().filter(|count| *count < max).max().unwrap_or(0);
        Room { limit: free.min(max - fullest), full }
    }

    /// Takes a place.
    pub fn enter(self: &Arc<Self>, page_id: &str) -> Place {
        *self.lock().entry(page_id.to_owned()).or_default() += 1;
        Place { lanes: Arc::clone(self), page_id: page_id.to_owned() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = self.lanes.lock();
        if let Some(count) = running.get_mut(&self.page_id) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.page_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_leaves_a_quarter_of_the_places_to_others() {
        let lanes = Arc::new(Lanes::default());
        assert_eq!(lanes.room(8, 8, 2), Room { limit: 6, full: vec![] });
        let mut held: Vec<Place> = (0..5).map(|_| lanes.enter("slow")).collect();
        assert_eq!(lanes.room(3, 8, 2), Room { limit: 1, full: vec![] });
        held.push(lanes.enter("slow"));
        assert_eq!(lanes.room(2, 8, 2), Room { limit: 2, full: vec!["slow".to_owned()] });
        held.clear();
        assert_eq!(lanes.room(8, 8, 2), Room { limit: 6, full: vec![] });
        assert!(lanes.lock().is_empty());
    }

    #[test]
    fn a_page_alone_has_all_places_and_each_page_has_at_least_one() {
        let lanes = Arc::new(Lanes::default());
        assert_eq!(lanes.room(8, 8, 1).limit, 8);
        for concurrency in 1..5 {
            assert!(lanes.room(concurrency, concurrency, 9).limit >= 1, "{concurrency}");
        }
    }
}
