//! Cutting a text into messages that Messenger takes.
//!
//! `message.text` must have fewer than 2000 characters (Send API reference). Meta does not say which unit it counts; the
//! cautious one is UTF-16 code units, of which there are never fewer than characters. A part never ends inside a grapheme
//! (a flag, a family emoji, an accented letter), prefers a given hint, then the end of a paragraph, line, sentence or word,
//! and only cuts a word when it alone is too long.

use unicode_segmentation::UnicodeSegmentation;

/// The most UTF-16 units in one message's text.
pub const TEXT_UNITS_MAX: usize = 1999;

/// The length as limits count it here.
pub fn text_units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Splits at the limit of the Send API. `hints` are byte offsets in `text` at which a part should rather end; those that
/// are out of range or inside a grapheme are ignored. Blank text gives no part; blanks at the cuts are dropped; nothing
/// else is lost or reordered.
pub fn split_text(text: &str, hints: &[usize]) -> Vec<String> {
    split_text_at(text, hints, TEXT_UNITS_MAX)
}

/// As [`split_text`] with another limit in UTF-16 units (at least 1; a single character of two units exceeds a limit of 1).
pub fn split_text_at(text: &str, hints: &[usize], units_max: usize) -> Vec<String> {
    let units_max = units_max.max(1);
    let mut parts = Vec::new();
    let mut start = 0;
    loop {
        start += leading_blank(&text[start..]);
        let rest = &text[start..];
        if rest.trim_end().is_empty() {
            return parts;
        }
        if text_units(rest.trim_end()) <= units_max {
            parts.push(rest.trim_end().to_owned());
            return parts;
        }
        let end = start + cut(rest, start, hints, units_max);
        let part = text[start..end].trim_end();
        if !part.is_empty() {
            parts.push(part.to_owned());
        }
        start = end;
    }
}

fn leading_blank(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// How good a place to cut is; a better one wins over a later one unless it would leave a part less than a third full.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Quality {
    Grapheme,
    Word,
    Sentence,
    Line,
    Paragraph,
    Hint,
}

/// The byte offset in `rest`, greater than 0, at which the next part ends. `rest` is too long for one part.
fn cut(rest: &str, base: usize, hints: &[usize], units_max: usize) -> usize {
    let mut best: Option<(Quality, usize)> = None;
    let mut units = 0;
    let mut previous = "";
    for (at, grapheme) in rest.grapheme_indices(true) {
        if at > 0 {
            let quality = quality_at(rest, at, previous, grapheme, hints.contains(&(base + at)));
            let is_full_enough = quality <= Quality::Word || units * 3 >= units_max;
            if is_full_enough && best.is_none_or(|(seen, _)| quality >= seen) {
                best = Some((quality, at));
            }
        }
        units += text_units(grapheme);
        if units > units_max {
            return best.map_or_else(|| cut_inside(rest, units_max), |(_, at)| at);
        }
        previous = grapheme;
    }
    rest.len()
}

/// The quality of cutting before `next`.
fn quality_at(rest: &str, at: usize, previous: &str, next: &str, is_hint: bool) -> Quality {
    if is_hint {
        return Quality::Hint;
    }
    if is_blank(previous) || !is_blank(next) {
        return Quality::Grapheme;
    }
    let blanks = &rest[at..at + leading_blank(&rest[at..])];
    match blanks.matches('\n').count() {
        0 if ends_sentence(rest, at) => Quality::Sentence,
        0 => Quality::Word,
        1 => Quality::Line,
        _ => Quality::Paragraph,
    }
}

fn is_blank(grapheme: &str) -> bool {
    !grapheme.is_empty() && grapheme.chars().all(char::is_whitespace)
}

fn ends_sentence(rest: &str, at: usize) -> bool {
    let before = rest[..at].trim_end_matches(['"', '\'', ')', ']', '”', '’', '»']);
    before.ends_with(['.', '!', '?', '…', '。', '！', '？', ':', ';', '؟', '।'])
}

/// A single grapheme is longer than a whole message (stacked accents without end): cut between characters.
fn cut_inside(rest: &str, units_max: usize) -> usize {
    let mut units = 0;
    for (at, character) in rest.char_indices() {
        units += character.len_utf16();
        if units > units_max && at > 0 {
            return at;
        }
    }
    rest.len()
}
