//! Length: Messenger takes fewer than 2,000 characters a message; a draft may be cut into a few messages.
//!
//! A cut is never inside a grapheme cluster (UAX #29), and the best place is taken that leaves a part at least half full:
//! behind a paragraph, a line, a sentence, a word.

use frontdesk_policy_sdk::types::Finding;
use unicode_segmentation::UnicodeSegmentation;

use crate::settings::{Action, Length};

pub(crate) enum Fit {
    Fits,
    Shortened(String),
    TooLong,
}

pub(crate) fn fit(settings: &Length, text: &str) -> Fit {
    // A character has at least one byte.
    if settings.action == Action::Off || text.len() <= settings.characters_per_message {
        return Fit::Fits;
    }
    let cuts = cuts(settings, text);
    if cuts.len() < settings.messages {
        return Fit::Fits;
    }
    match settings.action {
        Action::Block => Fit::TooLong,
        Action::Rewrite => {
            let end = cuts[settings.messages - 1];
            let kept = text[..end].trim_end();
            // Half a sentence says the wrong thing.
            let sentence =
                kept.rfind(['.', '!', '?', '…', '\n']).map_or(kept, |at| &kept[..kept.ceil_char_boundary(at + 1)]);
            Fit::Shortened(sentence.trim_end().to_owned())
        }
        Action::Note | Action::Off => Fit::Fits,
    }
}

pub(crate) fn finding(settings: &Length) -> Finding {
    let (messages, characters) = (settings.messages, settings.characters_per_message);
    let detail = format!("The draft does not fit into {messages} messages of {characters} characters.");
    Finding { rule: "length".to_owned(), detail, at: None }
}

/// Where to cut `text`; empty when it fits into one message.
pub(crate) fn split_hints(settings: &Length, text: &str) -> Vec<u32> {
    if text.len() <= settings.characters_per_message {
        return Vec::new();
    }
    cuts(settings, text).into_iter().map(|at| at as u32).collect()
}

/// Byte offsets of the cuts, ascending, each part of at most the limit's characters.
fn cuts(settings: &Length, text: &str) -> Vec<usize> {
    let mut cuts = Vec::new();
    let mut start = 0;
    loop {
        let rest = &text[start..];
        let Some((limit, _)) = rest.char_indices().nth(settings.characters_per_message) else { return cuts };
        let cut = start + best_cut(rest, limit);
        if cut >= text.len() {
            return cuts;
        }
        cuts.push(cut);
        start = cut;
    }
}

/// The best place to cut in `rest[..=limit]`; more than 0.
fn best_cut(rest: &str, limit: usize) -> usize {
    let head = &rest[..limit];
    let least = limit / 2;
    let behind = |mark: &str| head.rfind(mark).map(|at| at + mark.len()).filter(|at| *at >= least);
    let sentence = [". ", "! ", "? ", "… ", "。"].into_iter().filter_map(behind).max();
    let place = behind("\n\n").or_else(|| behind("\n")).or(sentence).or_else(|| behind(" "));
    if let Some(place) = place.filter(|at| *at > 0) {
        return place;
    }
    let mut last = 0;
    for (at, _) in rest.grapheme_indices(true) {
        if at > limit {
            break;
        }
        last = at;
    }
    // One grapheme cluster longer than a message: cut it, for the host cannot send it otherwise.
    if last == 0 { limit } else { last }
}
