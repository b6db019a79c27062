//! How alike passages are, by the words at their beginnings: near-duplicates show themselves there.
//!
//! The same passages are found again and again, and what a passage says never changes under its id. So each is read once, and hashes
//! of its words are kept, which say nothing about it without the key that this process made at its start.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use crate::knowledge::terms;

const CHARACTERS_MAX: usize = 600;
/// Passages that are remembered, about one KiB each; then all are read again.
const PASSAGES_MAX: usize = 8_192;

/// Words as hashes, sorted, each once.
pub(in crate::knowledge) type Words = Arc<[u64]>;

/// What was read.
#[derive(Default)]
pub(in crate::knowledge) struct Likeness {
    key: RandomState,
    read: Mutex<HashMap<Uuid, Words>>,
}

impl std::fmt::Debug for Likeness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Likeness").finish_non_exhaustive()
    }
}

impl Likeness {
    /// The words of the passage `id`, whose text stands behind its question.
    pub fn words(&self, id: Uuid, question: Option<&str>, text: &str) -> Words {
        let read = || self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(words) = read().get(&id) {
            return Arc::clone(words);
        }
        let head = question.into_iter().flat_map(str::chars).chain([' ']).chain(text.chars());
        let head: String = head.take(CHARACTERS_MAX).collect();
        let mut hashes: Vec<u64> = terms::words(&head).iter().map(|word| self.key.hash_one(word)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let words = Words::from(hashes);
        let mut read = read();
        if read.len() >= PASSAGES_MAX {
            read.clear();
        }
        read.insert(id, Arc::clone(&words));
        words
    }
}

/// Share of the words of two passages that both have, 0 to 1.
pub(super) fn overlap(a: &[u64], b: &[u64]) -> f32 {
    let shared = a.iter().filter(|word| b.binary_search(word).is_ok()).count();
    shared as f32 / (a.len() + b.len()).saturating_sub(shared).max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_common_words_is_told_whatever_their_order_and_number() {
        let likeness = Likeness::default();
        let of = |question, text| likeness.words(Uuid::new_v4(), question, text);
        let same = overlap(&of(None, "We ship to Austria."), &of(Some("Austria"), "ship: we ship TO"));
        assert!((same - 1.0).abs() < f32::EPSILON, "{same}");
        let half = overlap(&of(None, "bikes and pumps"), &of(None, "bikes or pumps"));
        assert!((half - 0.5).abs() < f32::EPSILON, "{half}");
        assert!(overlap(&of(None, "bikes"), &of(None, "pumps")).abs() < f32::EPSILON);
        assert!(overlap(&of(None, ""), &of(None, "")).abs() < f32::EPSILON);
    }

    #[test]
    fn a_passage_is_read_once_and_what_is_remembered_is_bounded() {
        let likeness = Likeness::default();
        let id = Uuid::new_v4();
        let first = likeness.words(id, None, "We ship to Austria.");
        assert_eq!(likeness.words(id, None, "never looked at"), first);
        for number in 0..2 * PASSAGES_MAX {
            likeness.words(Uuid::from_u128(number as u128), None, "");
        }
        assert!(likeness.read.lock().unwrap().len() <= PASSAGES_MAX);
        assert_eq!(likeness.words(id, None, "We ship to Austria."), first);
    }
}
