//! What the words and letters of a text say of its language: all that speaks in a text of two to five words, where the
//! statistics of letters behind `whatlang` guess.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use crate::knowledge::terms;

static LINES: &str = include_str!("../words/telltales.txt");

/// The languages that have a folded word among their fillers, concepts or telltales.
static SPEAKERS: LazyLock<HashMap<&'static str, Vec<&'static str>>> = LazyLock::new(|| {
    let mut speakers: HashMap<&'static str, Vec<&'static str>> = HashMap::new();
    let lines = [terms::FILLER_LINES, terms::CONCEPT_LINES, terms::NAME_LINES, LINES].into_iter().flat_map(str::lines);
    for (code, words) in lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(':')) {
        for word in words.split_whitespace() {
            let codes = speakers.entry(word).or_default();
            if !codes.contains(&code.trim()) {
                codes.push(code.trim());
            }
        }
    }
    speakers
});

/// Letters and marks that few languages write, and what each says.
const LETTERS: &[(char, &[(&str, f32)])] = &[
    ('ß', &[("de", 2.0)]),
    ('¿', &[("es", 2.0)]),
    ('¡', &[("es", 2.0)]),
    ('ñ', &[("es", 1.5)]),
    ('ã', &[("pt", 1.5)]),
    ('õ', &[("pt", 1.5)]),
    ('ç', &[("fr", 0.4), ("pt", 0.4), ("tr", 0.4)]),
    ('œ', &[("fr", 1.5)]),
    ('ê', &[("fr", 0.5), ("pt", 0.5)]),
    ('è', &[("fr", 0.5), ("it", 0.5)]),
    ('ù', &[("fr", 0.5), ("it", 0.5)]),
    ('ò', &[("it", 0.7)]),
    ('û', &[("fr", 0.7)]),
    ('ä', &[("de", 0.4), ("sv", 0.4), ("fi", 0.4)]),
    ('ö', &[("de", 0.3), ("sv", 0.3), ("fi", 0.3), ("tr", 0.3), ("hu", 0.3)]),
    ('ü', &[("de", 0.5), ("tr", 0.4), ("hu", 0.2)]),
    ('å', &[("sv", 0.5), ("da", 0.5), ("nb", 0.5)]),
    ('ø', &[("da", 0.8), ("nb", 0.8)]),
    ('æ', &[("da", 0.8), ("nb", 0.7)]),
    ('ł', &[("pl", 1.5)]),
    ('ą', &[("pl", 1.2)]),
    ('ę', &[("pl", 1.2)]),
    ('ż', &[("pl", 1.5)]),
    ('ř', &[("cs", 1.5)]),
    ('ě', &[("cs", 1.5)]),
    ('ů', &[("cs", 1.5)]),
    ('ľ', &[("sk", 1.5)]),
    ('ő', &[("hu", 1.5)]),
    ('ű', &[("hu", 1.5)]),
    ('ı', &[("tr", 1.5)]),
    ('ğ', &[("tr", 1.5)]),
    ('ş', &[("tr", 1.0), ("ro", 0.5)]),
    ('ș', &[("ro", 1.5)]),
    ('ț', &[("ro", 1.5)]),
    ('ă', &[("ro", 1.0), ("vi", 0.5)]),
    ('đ', &[("vi", 1.0), ("hr", 0.7)]),
];

/// What speaks for each language, in words that are its own: one that `n` languages spell so counts `1/n` for each.
#[derive(Debug, Default)]
pub(super) struct Telltales {
    by_language: HashMap<&'static str, f32>,
    /// Words of the text.
    words: usize,
}

impl Telltales {
    pub fn of(text: &str) -> Self {
        let words = terms::words(text);
        let mut by_language: HashMap<&'static str, f32> = HashMap::new();
        for word in &words {
            let speakers = SPEAKERS.get(word.as_str()).map(Vec::as_slice).unwrap_or_default();
            let own = if word.chars().count() == 1 { 0.5 } else { 1.0 };
            for code in speakers {
                *by_language.entry(code).or_default() += own / speakers.len() as f32;
            }
        }
        let special: HashSet<char> = text.chars().filter(|c| !c.is_ascii()).flat_map(char::to_lowercase).collect();
        for (_, says) in LETTERS.iter().filter(|(letter, _)| special.contains(letter)) {
            for (code, weight) in *says {
                *by_language.entry(code).or_default() += weight;
            }
        }
        Self { by_language, words: words.len() }
    }

    /// What speaks for one language.
    pub fn of_language(&self, code: &str) -> f32 {
        self.by_language.get(code).copied().unwrap_or_default()
    }

    /// The languages that anything speaks for, best first, with how much.
    pub fn best_first(&self) -> Vec<(&'static str, f32)> {
        let mut all: Vec<(&'static str, f32)> = self.by_language.iter().map(|(code, value)| (*code, *value)).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        all
    }

    /// Whether there are enough words for the statistics of their letters to say something without them.
    pub fn are_many(&self) -> bool {
        self.words > 3
    }

    /// How much a value is of all that the text's words could say.
    pub fn share(&self, value: f32) -> f32 {
        value / self.words.max(1) as f32
    }
}
