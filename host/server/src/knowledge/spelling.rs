//! Slips in the words that customers and shops share: "shiping" is "shipping", "austira" is "austria".
//!
//! Only words of the lists of concepts and names are ever meant by a slip, and only where the letters leave no doubt, because a
//! word that is taken for another answers what was not asked. A slip loses a letter, doubles or adds one, or changes the places of
//! two neighbours, inside the word. Another letter in a letter's place is no slip here: it makes "shopping" of "shipping".

use std::collections::HashMap;
use std::sync::LazyLock;

use unicode_segmentation::UnicodeSegmentation;

use super::language;
use super::terms::{CONCEPT_LINES, NAME_LINES, Stems, fold, is_filler};

/// Shorter words have too many neighbours: "cost" and "coast".
const LETTERS_MIN: usize = 6;

/// The words of the lists that are long enough, by language and first letter.
static KNOWN: LazyLock<HashMap<&'static str, HashMap<u8, Vec<&'static str>>>> = LazyLock::new(|| {
    let mut known: HashMap<&'static str, HashMap<u8, Vec<&'static str>>> = HashMap::new();
    let lines = CONCEPT_LINES.lines().chain(NAME_LINES.lines()).filter(|line| !line.starts_with('#'));
    for (code, listed) in lines.filter_map(|line| line.split_once(':')) {
        for word in listed.split_whitespace().filter(|word| is_comparable(word)) {
            let of_letter = known.entry(code).or_default().entry(word.as_bytes().first().copied().unwrap_or_default());
            of_letter.or_default().push(word);
        }
    }
    known
});

/// The word that a folded word of a language is a slip of; `None` when it is none, or when it could be of two things.
pub fn meant(word: &str, language: Option<&str>) -> Option<&'static str> {
    let code = language.and_then(language::canonical)?;
    let stems = Stems::new(Some(code));
    if !is_comparable(word) || is_filler(word, language) || stems.concept(&stems.stem(word)).is_some() {
        return None;
    }
    let mut near = KNOWN.get(code)?.get(word.as_bytes().first()?)?.iter().filter(|known| is_slip(word, known));
    let first = near.next()?;
    let concept = stems.concept(&stems.stem(first));
    near.all(|other| stems.concept(&stems.stem(other)) == concept).then_some(first)
}

/// The text with what is meant in the place of slips; `None` when there is none. Words that `is_used` are no slips, whatever they
/// look like.
pub fn corrected(text: &str, language: Option<&str>, is_used: impl Fn(&str) -> bool) -> Option<String> {
    let mut corrected = String::with_capacity(text.len());
    let mut copied = 0;
    for (at, written) in text.unicode_word_indices() {
        let said = fold(written);
        if let Some(meant) = meant(&said, language).filter(|_| !is_used(&said)) {
            corrected.push_str(text.get(copied..at).unwrap_or_default());
            corrected.push_str(meant);
            copied = at + written.len();
        }
    }
    corrected.push_str(text.get(copied..).unwrap_or_default());
    (copied > 0).then_some(corrected)
}

fn is_comparable(word: &str) -> bool {
    word.len() >= LETTERS_MIN && word.bytes().all(|letter| letter.is_ascii_lowercase())
}

/// Whether one inner letter was lost or added, or two inner neighbours have changed places.
fn is_slip(said: &str, meant: &str) -> bool {
    let (said, meant) = (said.as_bytes(), meant.as_bytes());
    if said.last() != meant.last() || said == meant {
        return false;
    }
    let common = said.iter().zip(meant).take_while(|(a, b)| a == b).count();
    let rest = |word: &[u8], skipped: usize| word.get(common + skipped..).unwrap_or_default().to_vec();
    match (said.len(), meant.len()) {
        (a, b) if a == b => {
            let mut turned = rest(said, 0);
            if turned.len() < 2 {
                return false;
            }
            turned.swap(0, 1);
            turned == rest(meant, 0)
        }
        (a, b) if a + 1 == b => rest(said, 0) == rest(meant, 1),
        (a, b) if a == b + 1 => rest(said, 1) == rest(meant, 0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_means_the_word_that_it_is_of() {
        for (language, said, expected) in [
            ("en", "shiping", Some("shipping")),
            ("en", "shippping", Some("shipping")),
            ("en", "delivrey", Some("delivery")),
            ("en", "austira", Some("austria")),
            ("en", "germny", Some("germany")),
            ("de", "ruckgbae", Some("ruckgabe")),
            ("de", "lieferugn", None),
            ("de", "osterreihc", None),
            ("de", "osterrecih", Some("osterreich")),
            // Words of their own.
            ("en", "shipping", None),
            ("en", "shopping", None),
            ("en", "australia", None),
            ("en", "austrian", None),
            ("en", "german", None),
            ("en", "coasts", None),
            ("en", "prince", None),
            ("en", "x100shipping", None),
            ("ja", "shiping", None),
        ] {
            assert_eq!(meant(said, Some(language)), expected, "{said}");
        }
        assert_eq!(meant("shiping", None), None);
    }

    #[test]
    fn only_slips_are_corrected() {
        let of = |text: &str, used: &str| corrected(text, Some("en"), |word| word == used);
        assert_eq!(of("Hi! Shiping to Austira?", "").as_deref(), Some("Hi! shipping to austria?"));
        assert_eq!(of("Shiping to Austira?", "austira").as_deref(), Some("shipping to Austira?"));
        assert_eq!(of("Shipping to Austria?", ""), None);
    }
}
