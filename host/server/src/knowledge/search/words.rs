//! Which words of a question select passages, and what each tells.

use std::collections::{HashMap, HashSet};

use crate::db::knowledge::{QueryLexeme, TextLexeme, TextQuery};
use crate::knowledge::language;
use crate::knowledge::terms::{Stems, fold};

/// Distinct words of a question that full text uses.
const LEXEMES_MAX: usize = 32;
/// Full text ranks about this many passages: words that more have select only in pairs, see [`Words::selecting`].
const SELECTED_PASSAGES_MAX: i64 = 600;
/// Of the words that are too common to select alone, the rarest so many are paired.
const PAIRED_WORDS_MAX: usize = 8;

/// The question's lexemes with their weights, by text search configuration.
pub(super) struct Words {
    by_config: HashMap<String, Vec<Weighted>>,
}

struct Weighted {
    lexeme: String,
    /// Passages that hold it, of `total`.
    frequency: i64,
    total: i64,
    weight: f32,
    in_focus: bool,
    /// The question says it; else it is another name of what the question says.
    is_said: bool,
    /// Of what it is a name.
    concept: Option<u16>,
}

impl Words {
    pub fn new(lexemes: Vec<QueryLexeme>) -> Self {
        let mut by_config: HashMap<String, Vec<Weighted>> = HashMap::new();
        for found in lexemes {
            let QueryLexeme { ts_config, lexeme, frequency, total, in_focus, is_said } = found;
            let concept = Stems::new(language::of_ts_config(&ts_config)).concept(&fold(&lexeme));
            let word = Weighted { lexeme, frequency, total, weight: 0.0, in_focus, is_said, concept };
            by_config.entry(ts_config).or_default().push(word);
        }
        for words in by_config.values_mut() {
            // Rarest first; a question of more words than this loses other names, and then its most common ones.
            words.sort_by(|a, b| a.frequency.cmp(&b.frequency).then_with(|| a.lexeme.cmp(&b.lexeme)));
            words.sort_by_key(|word| !word.is_said);
            words.truncate(LEXEMES_MAX);
            if words.iter().all(|word| !word.is_said) {
                // "Where are you?" says nothing that full text knows; what it asks for has names all the same.
                words.iter_mut().for_each(|word| word.is_said = true);
            }
            words.sort_by(|a, b| a.frequency.cmp(&b.frequency).then_with(|| a.lexeme.cmp(&b.lexeme)));
            weigh(words);
        }
        Self { by_config }
    }

    pub fn texts(&self) -> Vec<TextQuery> {
        let mut texts: Vec<TextQuery> = self
            .by_config
            .iter()
            .filter_map(|(ts_config, words)| {
                let selecting = selecting(words);
                (!selecting.is_empty()).then(|| TextQuery {
                    ts_config: ts_config.clone(),
                    selecting,
                    ranking: or_query(words.iter()),
                })
            })
            .collect();
        texts.sort_by(|a, b| a.ts_config.cmp(&b.ts_config));
        texts
    }

    /// The lexemes that some passage holds; of the others it is known that no candidate does.
    pub fn lexemes(&self) -> Vec<TextLexeme> {
        let pairs = self.by_config.iter().flat_map(|(config, words)| words.iter().map(move |word| (config, word)));
        let known = pairs.filter(|(_, word)| word.frequency > 0);
        known
            .map(|(config, word)| TextLexeme {
                ts_config: config.clone(),
                lexeme: word.lexeme.clone(),
                query: or_query([word]),
            })
            .collect()
    }

    /// Share of the question's information that the matched lexemes carry, 0 to 1.
    pub fn coverage(&self, ts_config: &str, matched: &[String]) -> f32 {
        let Some(words) = self.by_config.get(ts_config) else { return 0.0 };
        let matched: HashSet<&str> = matched.iter().map(String::as_str).collect();
        let is_matched = |word: &Weighted| matched.contains(word.lexeme.as_str());
        let named: HashSet<u16> =
            words.iter().filter(|word| is_matched(word)).filter_map(|word| word.concept).collect();
        let is_held =
            |word: &Weighted| is_matched(word) || word.concept.is_some_and(|concept| named.contains(&concept));
        let share = |words: &mut dyn Iterator<Item = &Weighted>| {
            let (mut all, mut held) = (0.0_f32, 0.0_f32);
            for word in words.filter(|word| word.is_said) {
                all += word.weight;
                held += if is_held(word) { word.weight } else { 0.0 };
            }
            if all > 0.0 { held / all * (held / (held + 0.5)) } else { 0.0 }
        };
        share(&mut words.iter()).max(share(&mut words.iter().filter(|word| word.in_focus)))
    }
}

/// What a word tells depends on how often the thing is spoken of, by whatever name.
fn weigh(words: &mut [Weighted]) {
    let mut spoken_of: HashMap<u16, i64> = HashMap::new();
    for word in words.iter() {
        if let Some(concept) = word.concept {
            *spoken_of.entry(concept).or_default() += word.frequency;
        }
    }
    for word in words {
        let frequency = word.concept.and_then(|concept| spoken_of.get(&concept)).copied().unwrap_or(word.frequency);
        word.weight = information(frequency.min(word.total.max(word.frequency)), word.total);
    }
}

/// How much a word tells, by how many of all passages have it.
fn information(frequency: i64, total: i64) -> f32 {
    (1.0 + (total.max(frequency) as f32 + 0.5) / (frequency as f32 + 0.5)).ln()
}

/// The tsquery that selects what full text ranks, empty when no passage has any of the words. `words` are sorted, rarest
/// first. Ranking costs in proportion to what is selected, and a passage that has one everyday word of the question and
/// nothing else is beaten by those that have two, so:
/// - rare words select alone, as long as they select few passages together;
/// - of the commoner ones pairs select (`ship & austria`), those that chance would put together least often first;
/// - a lone common word selects, because something must.
fn selecting(words: &[Weighted]) -> String {
    let mut known = words.iter().filter(|word| word.frequency > 0).peekable();
    let mut selected = 0;
    let mut terms = Vec::new();
    while let Some(word) = known.next_if(|word| selected + word.frequency <= SELECTED_PASSAGES_MAX) {
        selected += word.frequency;
        terms.push(quoted(word));
    }
    let common: Vec<&Weighted> = known.take(PAIRED_WORDS_MAX).collect();
    let mut pairs: Vec<(i64, &Weighted, &Weighted)> = Vec::new();
    for (at, first) in common.iter().enumerate() {
        for second in common.iter().skip(at + 1) {
            let expected = first.frequency.saturating_mul(second.frequency) / first.total.max(1);
            pairs.push((expected, first, second));
        }
    }
    // Stable: pairs that are expected equally often stay in the order of their words.
    pairs.sort_by_key(|(expected, ..)| *expected);
    for (expected, first, second) in pairs {
        if selected + expected > SELECTED_PASSAGES_MAX && !terms.is_empty() {
            break;
        }
        selected += expected;
        terms.push(format!("({} & {})", quoted(first), quoted(second)));
    }
    if let ([], [lone, ..]) = (terms.as_slice(), common.as_slice()) {
        terms.push(quoted(lone));
    }
    terms.join(" | ")
}

fn quoted(word: &Weighted) -> String {
    format!("'{}'", word.lexeme.replace('\\', "\\\\").replace('\'', "''"))
}

fn or_query<'a>(words: impl IntoIterator<Item = &'a Weighted>) -> String {
    words.into_iter().map(quoted).collect::<Vec<_>>().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(rows: &[(&str, i64, bool)]) -> Words {
        let lexemes = rows.iter().map(|(lexeme, frequency, in_focus)| QueryLexeme {
            ts_config: "english".to_owned(),
            lexeme: (*lexeme).to_owned(),
            frequency: *frequency,
            total: 100,
            in_focus: *in_focus,
            is_said: true,
        });
        Words::new(lexemes.collect())
    }

    fn matched(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_word_that_no_passage_has_outweighs_everyday_words() {
        let question = words(&[("sell", 40, true), ("car", 0, true)]);
        assert!(question.coverage("english", &matched(&["sell"])) < 0.25);
        let known = words(&[("ship", 10, true), ("austria", 3, true)]);
        assert!(known.coverage("english", &matched(&["ship", "austria"])) > 0.85);
        assert_eq!(known.coverage("german", &matched(&["ship"])), 0.0);
    }

    #[test]
    fn a_thing_is_found_by_its_other_name() {
        let of = |lexeme: &str, frequency, is_said| QueryLexeme {
            ts_config: "english".to_owned(),
            lexeme: lexeme.to_owned(),
            frequency,
            total: 100,
            in_focus: is_said,
            is_said,
        };
        let question = Words::new(vec![of("bike", 0, true), of("saddl", 2, true), of("bicycl", 40, false)]);
        let both = question.coverage("english", &matched(&["bicycl", "saddl"]));
        assert!(both > 0.85 && question.coverage("english", &matched(&["saddl"])) < both);
        // What is only another name is no word of the question: lacking it costs nothing.
        assert!(question.coverage("english", &matched(&["bike", "saddl"])) > 0.85);
    }

    #[test]
    fn common_words_select_in_pairs() {
        let of = |rows: &[(&str, i64, bool)]| words(rows).texts().into_iter().next().map(|text| text.selecting);
        // The helper's total is 100 passages.
        assert_eq!(of(&[("oolong", 3, true), ("tea", 500, true)]).unwrap(), "'oolong' | 'tea'");
        let question = words(&[("oolong", 3, true), ("tea", 700, true), ("shop", 900, true), ("open", 0, true)]);
        let text = &question.texts()[0];
        // 700 * 900 / 100 are more than are ranked, and a rarer word selects already.
        assert_eq!(text.selecting, "'oolong'");
        assert_eq!(text.ranking, "'open' | 'oolong' | 'tea' | 'shop'");
        // Without one, the pair selects all the same.
        assert_eq!(of(&[("tea", 700, true), ("shop", 900, true)]).unwrap(), "('tea' & 'shop')");
        // A lone common word still selects: something must.
        assert_eq!(of(&[("shop", 90_000, true)]).unwrap(), "'shop'");
        // A word that no passage has selects nothing.
        assert_eq!(of(&[("car", 0, true)]), None);
    }

    #[test]
    fn the_rarest_pairs_select_up_to_the_limit() {
        let mut lexemes = Vec::new();
        for (lexeme, frequency) in [("helmet", 2_000), ("carbon", 4_000), ("strap", 10_000), ("warranty", 90_000)] {
            let (ts_config, lexeme) = ("english".to_owned(), lexeme.to_owned());
            lexemes.push(QueryLexeme { ts_config, lexeme, frequency, total: 100_000, in_focus: true, is_said: true });
        }
        // 80 passages are expected to have the first two, 200 the next pair, 400 the third: that would be too many.
        let selecting = &Words::new(lexemes).texts()[0].selecting;
        assert_eq!(selecting, "('helmet' & 'carbon') | ('helmet' & 'strap')");
    }

    #[test]
    fn lexemes_are_quoted_for_tsquery() {
        assert_eq!(words(&[("o'brien\\", 1, true)]).texts()[0].selecting, "'o''brien\\\\'");
    }

    #[test]
    fn chatter_around_the_question_does_not_lower_its_coverage() {
        let question = words(&[("ship", 10, true), ("austria", 3, true), ("vienna", 0, false), ("live", 1, false)]);
        assert!(question.coverage("english", &matched(&["ship", "austria"])) > 0.85);
    }
}
