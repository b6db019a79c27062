//! Finds phrases in the words of a text: thousands of phrases, one pass, no regular expressions.
//!
//! # The language of phrases
//!
//! Words separated by spaces, written in any spelling (they are folded like the text):
//!
//! | written             | matches                                                        |
//! | ------------------- | -------------------------------------------------------------- |
//! | `talk to a person`  | these words in a row, within one sentence                      |
//! | `refund*`           | any word that begins so                                        |
//! | `(human\|real person)` | one of the alternatives; a word may end in `*`               |
//! | `real?`             | the word or nothing; `(a\|the)?` likewise                       |
//! | `_`, `_?`           | any one word; any one word or nothing                          |
//! | `...`               | up to three words, or none                                     |
//!
//! A phrase begins and ends with a word or a group. An umlaut in a phrase also matches its transliteration (`möchte`, `moechte`,
//! `mochte`). A word of seven letters or more also matches with one typing error (a letter wrong, missing, doubled, or two
//! exchanged) after the first letter. Letters written apart, digits for letters and look-alikes match and are reported
//! as obfuscated.
//!
//! # How
//!
//! Every word of every phrase gets a number. A text's word is looked up once, giving at most four numbers (itself or its
//! nearest correction, and phrase words that are its beginning). Phrases are grouped by their first word, so that each
//! place of the text tries only the phrases that can begin there. A phrase with alternatives of several words is kept as
//! several variants.

use std::collections::BTreeMap;

use super::words::Words;

mod pattern;
mod table;

use pattern::Element;
use table::Table;

/// No text gets more corrected words than this: a correction costs a dozen look-ups.
const CORRECTIONS_MAX: u32 = 32;
/// Words this long and longer are corrected.
const CORRECTED_LETTERS_MIN: usize = 7;
const CORRECTED_LETTERS_MAX: usize = 24;
/// How many words `...` may stand for.
const GAP_WORDS_MAX: usize = 3;
/// No hit is longer: a phrase has at most 24 elements, and each stands for at most three words.
const HIT_WORDS_MAX: u32 = 72;
/// Words a text's word can be: itself, and beginnings of it.
const READINGS: usize = 4;

/// A phrase found in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Which phrase, in the order in which they were added.
    pub phrase: u32,
    /// Index of the first and the last word of the hit.
    pub first: u32,
    pub last: u32,
    /// A word of the hit was written so that a machine would not read it.
    pub obfuscated: bool,
}

/// What is wrong with a phrase: one sentence for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhraseError(pub String);

impl std::fmt::Display for PhraseError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for PhraseError {}

/// Collects phrases for a [`PhraseSet`].
#[derive(Debug, Default)]
pub struct PhraseSetBuilder {
    exact: BTreeMap<String, u16>,
    prefixes: BTreeMap<String, u16>,
    /// Each variant with the number of its phrase.
    variants: Vec<(u32, Vec<Element>)>,
    count: u32,
}

impl PhraseSetBuilder {
    /// No phrases yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a phrase; returns its number, counted from 0.
    ///
    /// # Errors
    /// What is wrong with the phrase, for its author.
    pub fn add(&mut self, phrase: &str) -> Result<u32, PhraseError> {
        let variants = pattern::parse(phrase, |word, is_prefix| {
            let known = self.exact.len() + self.prefixes.len();
            let id = u16::try_from(known + 1).map_err(|_| {
                PhraseError("there are more than 65,534 different words in the phrases; remove some".to_owned())
            })?;
            let words = if is_prefix { &mut self.prefixes } else { &mut self.exact };
            Ok(*words.entry(word).or_insert(id))
        })?;
        let phrase = self.count;
        self.variants.extend(variants.into_iter().map(|elements| (phrase, elements)));
        self.count += 1;
        Ok(phrase)
    }

    /// Builds the tables.
    #[must_use]
    pub fn build(self) -> PhraseSet {
        PhraseSet::build(&self)
    }
}

/// Phrases, ready to be found. Build it in `configure`.
#[derive(Debug, Default)]
pub struct PhraseSet {
    /// The phrase words' letters by number (0 is no word).
    letters: String,
    spans: Vec<(u32, u32)>,
    exact: Table,
    prefixes: Table,
    /// Bit n: there is a prefix of n bytes.
    prefix_lengths: u64,
    /// Every word of seven letters or more with one letter left out.
    deletions: Table,
    elements: Vec<Step>,
    /// The alternatives of all steps.
    ids: Vec<u16>,
    /// A step of each variant (its last word) without which the variant cannot be in a text.
    needed: Vec<u32>,
    /// Where each variant's elements begin; one more entry than variants.
    starts: Vec<u32>,
    /// The phrase of each variant.
    phrase_of: Vec<u32>,
    /// Variants by the number of their first word: `by_first[first_starts[n]..first_starts[n + 1]]`.
    first_starts: Vec<u32>,
    by_first: Vec<u32>,
    /// Phrases of plain words, written together, for letters that were written apart.
    squashed: Vec<(String, u32)>,
}

/// An [`Element`] in flat memory, so that a fresh instance touches few pages.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// `ids[start..start + length]`.
    Words {
        start: u32,
        length: u16,
        optional: bool,
    },
    Any,
    Gap,
}

/// What a word of the text may be: numbers of phrase words, 0 for none.
#[derive(Debug, Clone, Copy, Default)]
struct Readings {
    ids: [u16; READINGS],
    decoded: bool,
}

impl PhraseSet {
    fn build(builder: &PhraseSetBuilder) -> Self {
        let mut set = Self { spans: vec![(0, 0)], ..Self::default() };
        let mut words: Vec<(&String, u16)> =
            builder.exact.iter().chain(&builder.prefixes).map(|(word, id)| (word, *id)).collect();
        words.sort_by_key(|&(_, id)| id);
        for (word, _) in &words {
            let start = set.letters.len() as u32;
            set.letters.push_str(word);
            set.spans.push((start, set.letters.len() as u32));
        }
        set.exact = Table::with_room(builder.exact.len());
        for (word, id) in &builder.exact {
            set.exact.insert(table::hash(word.as_bytes()), *id);
        }
        set.prefixes = Table::with_room(builder.prefixes.len());
        for (word, id) in &builder.prefixes {
            set.prefixes.insert(table::hash(word.as_bytes()), *id);
            set.prefix_lengths |= 1 << word.len().min(63);
        }
        set.build_deletions(builder);
        set.build_phrases(builder);
        set
    }

    fn build_deletions(&mut self, builder: &PhraseSetBuilder) {
        let correctable = || builder.exact.iter().filter(|(word, _)| is_correctable(word));
        self.deletions = Table::with_room(correctable().map(|(word, _)| word.len()).sum());
        for (word, id) in correctable() {
            for left_out in 1..word.len() {
                self.deletions.insert(table::hash_without(word.as_bytes(), left_out), *id);
            }
        }
    }

    fn build_phrases(&mut self, builder: &PhraseSetBuilder) {
        let mut by_first: Vec<Vec<u32>> = vec![Vec::new(); self.spans.len()];
        for (number, (phrase, elements)) in builder.variants.iter().enumerate() {
            self.starts.push(self.elements.len() as u32);
            self.phrase_of.push(*phrase);
            self.push_steps(elements);
            self.needed.push(self.elements.len() as u32 - 1);
            if let Some(first) = elements.first() {
                for id in first.ids() {
                    by_first[*id as usize].push(number as u32);
                }
            }
            if let Some(plain) = self.squash(elements) {
                self.squashed.push((plain, *phrase));
            }
        }
        self.starts.push(self.elements.len() as u32);
        for phrases in by_first {
            self.first_starts.push(self.by_first.len() as u32);
            self.by_first.extend(phrases);
        }
        self.first_starts.push(self.by_first.len() as u32);
    }

    fn push_steps(&mut self, elements: &[Element]) {
        for element in elements {
            let step = match element {
                Element::Words { ids, optional } => {
                    let start = self.ids.len() as u32;
                    self.ids.extend_from_slice(ids);
                    Step::Words { start, length: ids.len() as u16, optional: *optional }
                }
                Element::Any => Step::Any,
                Element::Gap => Step::Gap,
            };
            self.elements.push(step);
        }
    }

    fn ids_of(&self, start: u32, length: u16) -> &[u16] {
        &self.ids[start as usize..start as usize + usize::from(length)]
    }

    /// The letters of a phrase of plain words, if they are enough to be told from chance.
    fn squash(&self, elements: &[Element]) -> Option<String> {
        let mut out = String::new();
        for element in elements {
            match element {
                Element::Words { ids, optional: false } => out.push_str(self.word(*ids.first()?)),
                _ => return None,
            }
        }
        (out.len() >= 4).then_some(out)
    }

    fn word(&self, id: u16) -> &str {
        self.spans.get(id as usize).map_or("", |&(start, end)| &self.letters[start as usize..end as usize])
    }

    /// Whether there is no phrase.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.phrase_of.is_empty()
    }

    /// All hits, by their first word; each phrase at most once for each place.
    #[must_use]
    pub fn find(&self, words: &Words) -> Vec<Hit> {
        if self.is_empty() || words.is_empty() {
            return Vec::new();
        }
        let readings = self.read(words);
        let present = Present::of(&readings, self.spans.len());
        let mut hits = Vec::new();
        for first in 0..words.len() {
            for &id in readings[first].ids.iter().filter(|&&id| id != 0) {
                let from = self.first_starts[id as usize] as usize;
                let to = self.first_starts[id as usize + 1] as usize;
                for &variant in &self.by_first[from..to] {
                    if self.is_possible(variant, &present) {
                        self.try_variant(variant, first, words, &readings, &mut hits);
                    }
                }
            }
        }
        self.find_joined(words, &mut hits);
        hits
    }

    /// Whether the last word of the variant is anywhere in the text: most variants fail here, at little cost.
    fn is_possible(&self, variant: u32, present: &Present) -> bool {
        match self.elements[self.needed[variant as usize] as usize] {
            Step::Words { start, length, .. } => self.ids_of(start, length).iter().any(|id| present.has(*id)),
            Step::Any | Step::Gap => true,
        }
    }

    fn try_variant(&self, variant: u32, first: usize, words: &Words, readings: &[Readings], hits: &mut Vec<Hit>) {
        let (from, to) = (self.starts[variant as usize] as usize, self.starts[variant as usize + 1] as usize);
        let phrase = self.phrase_of[variant as usize];
        let text = Text { words, readings };
        let Some(end) = self.match_from(&self.elements[from..to], first, &text) else { return };
        let hit = Hit {
            phrase,
            first: first as u32,
            last: end as u32 - 1,
            obfuscated: (first..end).any(|at| words.items()[at].obfuscated || readings[at].decoded),
        };
        // Several variants of a phrase, or a word with two readings, can begin here, and a variant inside a longer one:
        // the longest hit counts.
        let mut near = hits.iter_mut().rev().take_while(|known| known.first + HIT_WORDS_MAX >= hit.first);
        match near.find(|known| known.phrase == phrase && known.last >= hit.first) {
            Some(known) if known.first == hit.first && known.last < hit.last => *known = hit,
            Some(known) if known.last >= hit.last => {}
            _ => hits.push(hit),
        }
    }

    fn find_joined(&self, words: &Words, hits: &mut Vec<Hit>) {
        for joined in words.joined() {
            for (plain, phrase) in &self.squashed {
                if joined.text.contains(plain.as_str()) {
                    hits.push(Hit { phrase: *phrase, first: joined.first, last: joined.last, obfuscated: true });
                }
            }
        }
    }

    fn read(&self, words: &Words) -> Vec<Readings> {
        let mut corrections = 0;
        words
            .items()
            .iter()
            .zip(words.iter())
            .map(|(word, folded)| {
                let mut readings = self.look_up(folded);
                if readings.ids[0] == 0 && word.elongated {
                    readings = self.look_up(&without_doubles(folded));
                }
                if readings.ids[0] == 0 && word.mixed_digits && folded.len() <= CORRECTED_LETTERS_MAX {
                    readings = self.decode_digits(folded);
                }
                if readings.ids[0] == 0 && is_correctable(folded) && corrections < CORRECTIONS_MAX {
                    corrections += 1;
                    readings.ids[0] = self.correct(folded);
                }
                readings
            })
            .collect()
    }

    /// The word itself first, then beginnings of it, shortest first; without gaps.
    fn look_up(&self, folded: &str) -> Readings {
        let bytes = folded.as_bytes();
        let mut readings = Readings::default();
        let mut used = 0;
        let mut hash = table::Hash::new();
        let mut keep = |id: Option<u16>| {
            if let (Some(id), true) = (id, used < READINGS) {
                readings.ids[used] = id;
                used += 1;
            }
        };
        for (index, byte) in bytes.iter().enumerate() {
            hash.push(*byte);
            let length = index + 1;
            if length < 63 && self.prefix_lengths >> length & 1 == 1 {
                keep(self.prefixes.get(hash.value(), |id| self.word(id).as_bytes() == &bytes[..length]));
            }
        }
        keep(self.exact.get(hash.value(), |id| self.word(id) == folded));
        readings
    }

    /// Reads digits as the letters they resemble, `1` as `i` and as `l`.
    fn decode_digits(&self, folded: &str) -> Readings {
        for one in ['i', 'l'] {
            let decoded: String = folded
                .chars()
                .map(|c| match c {
                    '0' => 'o',
                    '1' => one,
                    '3' => 'e',
                    '4' => 'a',
                    '5' => 's',
                    '7' => 't',
                    '8' => 'b',
                    '9' => 'g',
                    other => other,
                })
                .collect();
            let readings = self.look_up(&decoded);
            if readings.ids[0] != 0 {
                return Readings { decoded: true, ..readings };
            }
        }
        Readings::default()
    }

    /// The phrase word that is one typing error away, or 0.
    fn correct(&self, folded: &str) -> u16 {
        let bytes = folded.as_bytes();
        let near = |id: u16| one_error_apart(self.word(id).as_bytes(), bytes);
        if let Some(id) = self.deletions.get(table::hash(bytes), near) {
            return id;
        }
        for left_out in 1..bytes.len() {
            let hash = table::hash_without(bytes, left_out);
            if let Some(id) = self.exact.get(hash, |id| is_correctable(self.word(id)) && near(id)) {
                return id;
            }
            if let Some(id) = self.deletions.get(hash, near) {
                return id;
            }
        }
        0
    }
}

fn is_correctable(word: &str) -> bool {
    (CORRECTED_LETTERS_MIN..=CORRECTED_LETTERS_MAX).contains(&word.len())
        && word.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// `heelp` as `help`.
fn without_doubles(folded: &str) -> String {
    let mut out = String::with_capacity(folded.len());
    for c in folded.chars() {
        if !out.ends_with(c) {
            out.push(c);
        }
    }
    out
}

/// Whether one substitution, insertion, deletion or exchange of neighbours (after the first letter) leads from one word
/// to the other.
fn one_error_apart(left: &[u8], right: &[u8]) -> bool {
    let same_start = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    if same_start == 0 {
        return false;
    }
    let (left, right) = (&left[same_start..], &right[same_start..]);
    match left.len().cmp(&right.len()) {
        std::cmp::Ordering::Less => left == &right[1..] && right.len() == left.len() + 1,
        std::cmp::Ordering::Greater => right == &left[1..] && left.len() == right.len() + 1,
        std::cmp::Ordering::Equal => match (left, right) {
            ([a, b, rest_left @ ..], [c, d, rest_right @ ..]) if a == d && b == c => rest_left == rest_right,
            ([_, rest_left @ ..], [_, rest_right @ ..]) => rest_left == rest_right,
            _ => false,
        },
    }
}

/// Which phrase words are in a text, a bit for each.
struct Present(Vec<u64>);

impl Present {
    fn of(readings: &[Readings], count: usize) -> Self {
        let mut bits = vec![0; count / 64 + 1];
        for id in readings.iter().flat_map(|readings| readings.ids) {
            bits[usize::from(id) / 64] |= 1 << (id % 64);
        }
        Self(bits)
    }

    fn has(&self, id: u16) -> bool {
        self.0[usize::from(id) / 64] >> (id % 64) & 1 == 1
    }
}

/// A text to match in.
struct Text<'a> {
    words: &'a Words,
    readings: &'a [Readings],
}

impl Text<'_> {
    /// Whether the word stands in the same sentence as the one before it.
    fn goes_on(&self, at: usize) -> bool {
        let items = self.words.items();
        at < items.len() && (at == 0 || items[at].sentence == items[at - 1].sentence)
    }
}

impl PhraseSet {
    /// Where the match of the steps from word `at` on ends (one past the last word), or `None`.
    fn match_from(&self, steps: &[Step], at: usize, text: &Text) -> Option<usize> {
        let Some((step, rest)) = steps.split_first() else { return Some(at) };
        match *step {
            Step::Words { start, length, optional } => {
                let ids = self.ids_of(start, length);
                let reads =
                    text.readings.get(at).is_some_and(|word| word.ids.iter().any(|id| *id != 0 && ids.contains(id)));
                if reads && let Some(end) = self.match_rest(rest, at + 1, text) {
                    return Some(end);
                }
                if optional { self.match_from(rest, at, text) } else { None }
            }
            Step::Any => text.goes_on(at).then(|| self.match_rest(rest, at + 1, text)).flatten(),
            Step::Gap => (0..=GAP_WORDS_MAX)
                .take_while(|skipped| text.goes_on(at + skipped))
                .find_map(|skipped| self.match_from(rest, at + skipped, text)),
        }
    }

    /// Goes on behind a matched word; what follows must stand in the same sentence.
    fn match_rest(&self, rest: &[Step], at: usize, text: &Text) -> Option<usize> {
        if rest.is_empty() {
            return Some(at);
        }
        if text.goes_on(at) {
            return self.match_from(rest, at, text);
        }
        rest.iter().all(|step| matches!(step, Step::Words { optional: true, .. })).then_some(at)
    }
}

#[cfg(test)]
mod tests;
