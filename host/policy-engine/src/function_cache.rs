//! The machine code of single functions, kept for the next compilation.
//!
//! New settings make a new snapshot of the same component: other initial memory, the same functions. The compiler knows a
//! function again by its intermediate form and takes what it made of it before, so that a change of settings does not cost a
//! compilation of everything while customers wait for the same cores.
//!
//! Entries come from this process's own compiler and never leave its memory.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use wasmtime::CacheStore;

/// Bytes kept in each of two generations. One of the first-party components takes some 5 MiB.
const GENERATION_BYTES_MAX: usize = 32 << 20;

type Entries = HashMap<Vec<u8>, Vec<u8>>;

/// What was compiled lately, in a bounded room: what is not used while the younger generation fills goes with the older one.
#[derive(Default)]
pub(crate) struct FunctionCache {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    young: Entries,
    young_bytes: usize,
    old: Entries,
}

impl Kept {
    fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.young_bytes += key.len() + value.len();
        if let Some(before) = self.young.insert(key, value) {
            self.young_bytes = self.young_bytes.saturating_sub(before.len());
        }
        if self.young_bytes > GENERATION_BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }
}

impl std::fmt::Debug for FunctionCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FunctionCache").finish_non_exhaustive()
    }
}

impl CacheStore for FunctionCache {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = kept.young.get(key) {
            return Some(Cow::Owned(value.clone()));
        }
        let (key, value) = kept.old.remove_entry(key)?;
        kept.insert(key, value.clone());
        Some(Cow::Owned(value))
    }

    fn insert(&self, key: &[u8], value: Vec<u8>) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(key.to_vec(), value);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_room_is_bounded() {
        let cache = FunctionCache::default();
        let large = vec![1; GENERATION_BYTES_MAX / 8];
        assert!(cache.insert(b"used", large.clone()));
        for round in 0_u32..64 {
            assert!(cache.insert(&round.to_le_bytes(), large.clone()));
            assert_eq!(cache.get(b"used").as_deref(), Some(&large[..]), "{round}");
        }
        assert!(cache.get(&0_u32.to_le_bytes()).is_none());
        let kept = cache.kept.lock().unwrap();
        assert!(kept.young.len() + kept.old.len() <= 18, "{} + {}", kept.young.len(), kept.old.len());
    }
}
