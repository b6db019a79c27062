//! Words as this crate compares them: folded (no case, no accents), without filler words, stemmed.
//!
//! Used for curated questions, for hash embeddings, for quoting and for the evidence gate. Full text in Postgres has
//! its own stemming and stop words; the filler list is applied to what is sent there too.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use rust_stemmers::Stemmer;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_segmentation::UnicodeSegmentation;

use super::language;

pub(super) static FILLER_LINES: &str = include_str!("words/fillers.txt");

static FILLERS: LazyLock<HashMap<&'static str, HashSet<&'static str>>> = LazyLock::new(|| {
    FILLER_LINES
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(':'))
        .map(|(code, words)| (code.trim(), words.split_whitespace().collect()))
        .collect()
});

pub(super) static CONCEPT_LINES: &str = include_str!("words/concepts.txt");
/// Weekdays and countries, numbered behind the concepts.
pub(super) static NAME_LINES: &str = include_str!("words/names.txt");

/// Number of the first name.
static NAMES_FROM: LazyLock<u16> = LazyLock::new(|| {
    let headings = CONCEPT_LINES.lines().filter(|line| !line.starts_with('#') && !line.contains(':'));
    u16::try_from(headings.count()).unwrap_or(u16::MAX) + 1
});

/// Number of the concept that a stem stands for, by language.
static CONCEPTS: LazyLock<HashMap<&'static str, HashMap<String, u16>>> = LazyLock::new(|| {
    let mut concepts: HashMap<&'static str, HashMap<String, u16>> = HashMap::new();
    let mut number = 0;
    let lines = CONCEPT_LINES.lines().chain(NAME_LINES.lines());
    for line in lines.filter(|line| !line.starts_with('#')) {
        match line.split_once(':') {
            None => number += 1,
            Some((code, words)) => {
                let stems = Stems::new(Some(code));
                let known = concepts.entry(code).or_default();
                known.extend(words.split_whitespace().map(|word| (stems.stem(word), number)));
            }
        }
    }
    concepts
});

/// The words of each concept as they stand in the lists, by language.
static NAMED_ALIKE: LazyLock<HashMap<&'static str, HashMap<u16, Vec<&'static str>>>> = LazyLock::new(|| {
    let mut named: HashMap<&'static str, HashMap<u16, Vec<&'static str>>> = HashMap::new();
    let mut number = 0;
    for line in CONCEPT_LINES.lines().filter(|line| !line.starts_with('#')) {
        match line.split_once(':') {
            None => number += 1,
            Some((code, words)) => {
                named.entry(code).or_default().entry(number).or_default().extend(words.split_whitespace());
            }
        }
    }
    named
});

/// Languages whose concepts are known.
pub(super) fn languages_with_concepts() -> impl Iterator<Item = &'static str> {
    NAMED_ALIKE.keys().copied()
}

/// What else the things of a text are called in its language: "bicycle, bicycles" for "bikes". Weekdays and countries have no
/// other names.
pub(super) fn other_names(text: &str, language: &str) -> Vec<&'static str> {
    let Some(named) = NAMED_ALIKE.get(language) else { return Vec::new() };
    let stems = Stems::new(Some(language));
    let mut seen = HashSet::new();
    let concepts = stems.all(text).into_iter().filter_map(|stem| stems.concept(&stem));
    concepts
        .filter(|concept| seen.insert(*concept))
        .filter_map(|concept| named.get(&concept))
        .flatten()
        .copied()
        .collect()
}

/// Whether a concept is a weekday or a country: one of them is never meant by another.
pub fn is_name(concept: u16) -> bool {
    concept >= *NAMES_FROM
}

/// Snowball makes one stem of the country and the currency, in English and in French: a price is no word about France.
const FRANCS: [&str; 2] = ["franc", "francs"];

/// Lower case, without accents, with ligatures and compatibility forms taken apart: `Größe` becomes `grosse`.
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let mut folded = String::with_capacity(text.len());
    for c in text.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase) {
        match c {
            'ß' => folded.push_str("ss"),
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            'ø' => folded.push('o'),
            'ł' => folded.push('l'),
            'đ' => folded.push('d'),
            'ı' => folded.push('i'),
            '\u{2019}' | '\u{2018}' | '\u{02bc}' => folded.push('\''),
            // Lower-casing may bring a combining mark back (İ).
            c if is_combining_mark(c) => {}
            c => folded.push(c),
        }
    }
    folded
}

/// The folded words of a text, in order. `don't` is `dont`; French elisions (`l'envoi`) lose their article.
pub fn words(text: &str) -> Vec<String> {
    let folded = fold(text);
    folded
        .unicode_words()
        .map(|word| match word.split_once('\'') {
            Some((head, tail)) if head.chars().count() <= 2 && tail.chars().count() >= 3 => tail.to_owned(),
            _ => word.replace(['\'', '.', ',', '_'], ""),
        })
        .filter(|word| !word.is_empty())
        .collect()
}

/// The key by which a customer's question equals a curated one: its folded words, nothing else.
pub fn question_key(text: &str) -> String {
    words(text).join(" ")
}

/// Whether a folded word carries no topic in `language`; without a language, in any of the listed ones that spell it so.
pub fn is_filler(word: &str, language: Option<&str>) -> bool {
    match language.and_then(|code| FILLERS.get(code)) {
        Some(fillers) => fillers.contains(word),
        None if language.is_some() => false,
        None => FILLERS.values().any(|fillers| fillers.contains(word)),
    }
}

/// Stems by Snowball where there is an algorithm, and leaves the word alone elsewhere.
pub struct Stems {
    stemmer: Option<Stemmer>,
    language: Option<String>,
}

impl std::fmt::Debug for Stems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stems").field("language", &self.language).finish_non_exhaustive()
    }
}

impl Stems {
    /// For texts of `language` (ISO 639-1); `None` or unknown: no stemming, fillers of every language.
    pub fn new(language: Option<&str>) -> Self {
        let stemmer = language::stemmer(language).map(Stemmer::create);
        Self { stemmer, language: language.and_then(language::canonical).map(str::to_owned) }
    }

    /// The stem of one folded word. Numbers stay whole.
    pub fn stem(&self, word: &str) -> String {
        if FRANCS.contains(&word) {
            return "francs".to_owned();
        }
        match &self.stemmer {
            Some(stemmer) if !word.chars().any(|c| c.is_ascii_digit()) => stemmer.stem(word).into_owned(),
            _ => word.to_owned(),
        }
    }

    /// The concept that a stem stands for, if it is one that customers and shops call by several names.
    pub fn concept(&self, stem: &str) -> Option<u16> {
        CONCEPTS.get(self.language.as_deref()?)?.get(stem).copied()
    }

    /// ISO 639-1 code of the language, if it is a known one.
    pub fn language(&self) -> Option<&str> {
        self.language.as_deref()
    }

    /// Stems of all words of a text, fillers included.
    pub fn all(&self, text: &str) -> Vec<String> {
        words(text).iter().map(|word| self.stem(word)).collect()
    }

    /// The same stemmer once more.
    pub fn again(&self) -> Self {
        Self::new(self.language.as_deref())
    }

    /// Stems of the words that carry a topic, each once, in order of appearance.
    pub fn content(&self, text: &str) -> Vec<String> {
        self.content_words(text).into_iter().map(|(stem, _)| stem).collect()
    }

    /// As [`Stems::content`], each with the folded word that it was made of. Single letters carry no topic ("do u ship").
    pub fn content_words(&self, text: &str) -> Vec<(String, String)> {
        let mut seen = HashSet::new();
        words(text)
            .into_iter()
            .filter(|word| !is_filler(word, self.language.as_deref()))
            .filter(|word| word.chars().count() > 1 || !word.chars().all(|c| c.is_ascii_alphabetic()))
            .map(|word| (self.stem(&word), word))
            .filter(|(stem, _)| seen.insert(stem.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_takes_away_what_customers_leave_out() {
        for (text, folded) in [
            ("Größe", "grosse"),
            ("Envío", "envio"),
            ("ÇA VA", "ca va"),
            ("ﬁne Ａ１", "fine a1"),
            ("Łódź", "lodz"),
            ("İstanbul", "istanbul"),
            ("don’t", "don't"),
        ] {
            assert_eq!(fold(text), folded, "{text}");
        }
    }

    #[test]
    fn questions_are_equal_whatever_their_case_accents_and_marks() {
        let key = question_key("¿Cuánto cuesta el envío?");
        assert_eq!(key, question_key("cuanto CUESTA el envio"));
        assert_ne!(key, question_key("cuanto cuesta el paquete"));
        assert_eq!(question_key("?!"), "");
    }

    #[test]
    fn a_country_is_not_a_currency() {
        for language in [Some("en"), Some("fr"), None] {
            let stems = Stems::new(language);
            assert_ne!(stems.stem("france"), stems.stem("francs"), "{language:?}");
            assert_eq!(stems.stem("franc"), stems.stem("francs"), "{language:?}");
        }
    }

    #[test]
    fn words_of_one_concept_are_one_in_every_language() {
        let concept = |code: &str, word: &str| {
            let stems = Stems::new(Some(code));
            stems.concept(&stems.stem(&fold(word)))
        };
        let shipping = concept("en", "ships");
        assert!(shipping.is_some());
        for (code, word) in [("en", "delivery"), ("de", "Lieferung"), ("es", "envíos"), ("fr", "livraison")] {
            assert_eq!(concept(code, word), shipping, "{word}");
        }
        assert_ne!(concept("en", "price"), shipping);
        assert_eq!(concept("en", "saddle"), None);
        assert_eq!(concept("de", "Schweiz"), concept("es", "Suiza"));
        assert!(concept("nl", "Duitsland").is_some_and(is_name) && !shipping.is_some_and(is_name));
        // The same letters mean something else in another language.
        assert_ne!(concept("fr", "location"), concept("en", "location"));
    }

    #[test]
    fn things_have_other_names_in_their_language() {
        let names = other_names("Do you have kids bikes?", "en");
        assert!(names.contains(&"bicycles") && names.contains(&"children") && !names.contains(&"price"), "{names:?}");
        assert!(other_names("do you ship to Austria", "en").iter().all(|name| *name != "austria"));
        assert!(other_names("saddle", "en").is_empty() && other_names("bikes", "ja").is_empty());
    }

    #[test]
    fn content_drops_fillers_and_joins_forms() {
        let english = Stems::new(Some("en"));
        assert_eq!(english.content("Hi, do you ship to Austria, please?"), english.content("shipping Austria"));
        let german = Stems::new(Some("de"));
        assert_eq!(german.content("Gibt es Lieferungen nach Österreich?"), german.content("Lieferung Österreich"));
        assert_eq!(Stems::new(Some("fr")).content("l'envoi"), Stems::new(Some("fr")).content("envoi"));
        assert!(Stems::new(None).content("hello please danke").is_empty());
    }
}
