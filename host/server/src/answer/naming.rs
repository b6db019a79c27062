//! Weekdays and countries in texts: what may not be taken for one another.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use crate::knowledge::terms::{Stems, is_name, words};

/// The concepts of the seven weekdays.
static WEEK: LazyLock<Option<RangeInclusive<u16>>> = LazyLock::new(|| {
    let english = Stems::new(Some("en"));
    let of = |word: &str| english.concept(&english.stem(word));
    Some(of("monday")?..=of("sunday")?)
});

/// Which of two kinds a name is of.
pub(super) fn is_weekday(concept: u16) -> bool {
    WEEK.as_ref().is_some_and(|week| week.contains(&concept))
}

/// The weekdays and countries that a text names, those between two weekdays included.
pub(super) fn named(text: &str, stems: &Stems) -> HashSet<u16> {
    let all = words(text);
    let concepts: Vec<Option<u16>> = all.iter().map(|word| stems.concept(&stems.stem(word))).collect();
    let mut named: HashSet<u16> = concepts.iter().flatten().copied().filter(|concept| is_name(*concept)).collect();
    named.extend(weekdays_between(text, &all, &concepts));
    named
}

/// "Monday to Friday" is Tuesday, too. Of a text, its words and what each stands for.
fn weekdays_between(text: &str, words: &[String], concepts: &[Option<u16>]) -> Vec<u16> {
    const RANGES: &[&str] = &["to", "through", "till", "until", "bis", "a", "al", "au", "ate", "tot"];
    let weekdays = concepts.iter().enumerate();
    let found: Vec<(usize, u16)> =
        weekdays.filter_map(|(at, concept)| Some((at, concept.filter(|concept| is_weekday(*concept))?))).collect();
    let mut between = Vec::new();
    for pair in found.windows(2) {
        let [(at, first), (next, last)] = pair else { continue };
        // With a dash nothing stands between, with a word just that.
        let gap = words.get(at + 1..*next).unwrap_or_default();
        let is_range = match gap {
            [] => text.contains(['-', '–']),
            [word] => RANGES.contains(&word.as_str()),
            _ => false,
        };
        if is_range && first < last {
            between.extend(*first..=*last);
        }
    }
    between
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_between_are_named() {
        for (language, text, days) in [
            ("en", "Monday to Friday: 9:00 to 18:00", 5),
            ("de", "Montag bis Freitag von 9 bis 18 Uhr, Samstag bis 13 Uhr", 6),
            ("fr", "du lundi au jeudi", 4),
            ("en", "Monday-Wednesday", 3),
            ("en", "Monday and Friday", 2),
            ("en", "Every day", 0),
        ] {
            assert_eq!(named(text, &Stems::new(Some(language))).len(), days, "{text}");
        }
    }
}
