//! The draft repeats its instructions: a run of words that also stands in them, and not in a passage.

use frontdesk_policy_sdk::text::Words;

use crate::Review;
use crate::settings::{Action, Leakage};

/// Instructions are read up to so many words.
const INSTRUCTION_WORDS_MAX: usize = 2_000;

pub(crate) fn review(settings: &Leakage, review: &mut Review) {
    let run = settings.repeated_words;
    if settings.action == Action::Off || run == 0 || review.words.len() < run || review.draft.instructions.is_empty() {
        return;
    }
    let instructed = hashes(review.draft.instructions.iter().map(String::as_str), run);
    if instructed.is_empty() {
        return;
    }
    let drafted = windows(&word_hashes(&review.words), run);
    let Some(at) = drafted.iter().position(|hash| instructed.binary_search(hash).is_ok()) else { return };
    // The host may give the model the passages with the instructions; quoting those is what the draft is for.
    let quoted = hashes(review.passages.iter().map(|passage| passage.text.as_str()), run);
    let leaked = (at..drafted.len())
        .find(|&at| instructed.binary_search(&drafted[at]).is_ok() && quoted.binary_search(&drafted[at]).is_err());
    let Some(at) = leaked else { return };
    let items = review.words.items();
    let mut last = at + run - 1;
    while drafted.get(last + 2 - run).is_some_and(|hash| instructed.binary_search(hash).is_ok()) {
        last += 1;
    }
    let place = if settings.action == Action::Rewrite {
        (review.sentence_around(at).0, review.sentence_around(last).1)
    } else {
        (items[at].start as usize, items[last].end as usize)
    };
    review.found(settings.action, "leakage:repeated", "The draft repeats its instructions.", place, "");
}

/// The hashes of all runs of `run` words, sorted.
fn hashes<'a>(texts: impl Iterator<Item = &'a str>, run: usize) -> Vec<u64> {
    let mut all = Vec::new();
    let mut room = INSTRUCTION_WORDS_MAX;
    for text in texts {
        let words = word_hashes(&Words::scan(text));
        let words = &words[..words.len().min(room)];
        room -= words.len();
        all.extend(windows(words, run));
    }
    all.sort_unstable();
    all
}

fn word_hashes(words: &Words) -> Vec<u64> {
    words
        .iter()
        .map(|word| {
            word.bytes()
                .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
        })
        .collect()
}

/// One hash for each run of `run` words.
fn windows(words: &[u64], run: usize) -> Vec<u64> {
    words
        .windows(run)
        .map(|window| {
            window.iter().fold(0, |hash: u64, word| hash.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word)
        })
        .collect()
}
