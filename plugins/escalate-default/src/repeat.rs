//! Has the customer asked the same before? The share of common words among all words of both (Jaccard), of folded words, so
//! that capitals, accents and punctuation do not matter.

use frontdesk_policy_sdk::text::Words;
use frontdesk_policy_sdk::types::Author;

use crate::Case;
use crate::settings::Repeated;

/// Shorter questions are too often alike by chance ("and now?").
const WORDS_MIN: usize = 3;

pub(crate) fn is_repeated(settings: &Repeated, case: &Case) -> bool {
    if !settings.enabled || case.turn.history.is_empty() {
        return false;
    }
    let asked = sorted(&case.words);
    if asked.len() < WORDS_MIN {
        return false;
    }
    // What was asked before the last answer; another message before it is still the same question.
    let answered = case.turn.history.iter().rposition(|message| message.author != Author::Customer);
    let Some(answered) = answered else { return false };
    let before = case.turn.history[..answered].iter().filter(|message| message.author == Author::Customer);
    let times =
        before.filter(|message| alike(&asked, &sorted(&Words::scan(&message.text))) >= settings.similarity).count();
    times >= settings.times
}

fn sorted(words: &Words) -> Vec<String> {
    let mut all: Vec<String> = words.iter().map(str::to_owned).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn alike(left: &[String], right: &[String]) -> f32 {
    let common = left.iter().filter(|word| right.binary_search(word).is_ok()).count();
    let all = left.len() + right.len() - common;
    if all == 0 { 0.0 } else { common as f32 / all as f32 }
}
