//! Finding the passages that answer a question.
//!
//! # How a hit is ranked
//! 1. A curated question with the same folded words comes first (score 1).
//! 2. The others by a weighted sum of two z-scores over all candidates: cosine similarity, and words. Words are coverage
//!    (which knows how rare a word is); where the embedder knows nothing but words itself, the mean of it and `ts_rank`
//!    (which knows where a word stands). Their weight is the embedder's or the setting's, and 0 for a passage whose language
//!    is surely not the question's, or is written without spaces. `cargo xtask eval` measures what the weight does: with a
//!    model, up to 0.2 is better than nearness alone where questions share words with their passages and no worse elsewhere;
//!    0.3 and more begins to hurt.
//! 3. Near-duplicates of better hits move down by `diversity` times their word overlap.
//!
//! Equal ranks are ordered by source and position, so the same data gives the same order everywhere.
//!
//! # How a hit is scored
//! `coverage` is the share of the question's information that the passage's words carry: each lexeme weighs
//! `ln(1 + (N + 0.5) / (df + 0.5))`, so a word that no passage has weighs most, and a question about something that the
//! knowledge does not hold covers badly however many everyday words match. It is taken of the whole text and of the
//! sentences that ask, whichever covers better, and dampened by `m / (m + 0.5)` for a matched weight `m`, because one
//! everyday word is little evidence. `score = w * coverage + (1 - w) * fit(cosine)`, `w` and `fit` by the embedder's
//! [`Calibration`](super::Calibration); across languages `w` is 0 where the embedder understands meaning.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use pgvector::Vector;
use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;
use uuid::Uuid;

use super::{Calibration, Embedder, Knowledge, KnowledgeError, Purpose, language, terms};
use crate::db::knowledge::{self as db, CandidateRow, Candidates, QueryLexeme, TextLexeme, TextQuery};

/// Longest question that is searched for; the rest is cut off.
pub const QUERY_CHARACTERS_MAX: usize = 2_000;
/// Most hits that one search gives.
pub const HITS_MAX: usize = 50;
/// Distinct words of a question that full text uses.
const LEXEMES_MAX: usize = 32;
/// Full text ranks about this many passages: words that more have select only in pairs, see [`Words::selecting`].
const SELECTED_PASSAGES_MAX: i64 = 600;
/// Of the words that are too common to select alone, the rarest so many are paired.
const PAIRED_WORDS_MAX: usize = 8;

/// Near-duplicates show themselves in their first characters.
const COMPARED_CHARACTERS_MAX: usize = 600;

/// What to look for.
#[derive(Debug, Clone)]
pub struct SearchRequest {
    /// Searches this Page's knowledge and that of every Page; `None`: all there is.
    pub page_id: Option<String>,
    pub query: String,
    /// Language of the question (ISO 639-1) if known; `None`: detected. It does not filter.
    pub language: Option<String>,
    /// Passages with at least one of these; empty: all.
    pub labels: Vec<String>,
    /// Passages in one of these languages; empty: all.
    pub passage_languages: Vec<String>,
    pub limit: usize,
    /// Passages that are not valid at this time are not found.
    pub now: DateTime<Utc>,
}

/// What was found, best first.
#[derive(Debug, Clone, Serialize)]
pub struct SearchOutcome {
    pub hits: Vec<Hit>,
    pub strategy: Strategy,
}

/// How it was found, for people who ask why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Strategy {
    pub model: String,
    /// The question's language as given or detected; `None`: not sure.
    pub language: Option<String>,
    pub lexical_weight: f32,
    /// Candidates before ranking.
    pub candidates: usize,
    /// Whether a curated question equals the customer's.
    pub exact: bool,
}

/// A passage that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    pub passage_id: Uuid,
    pub document_id: Uuid,
    pub title: String,
    pub source: String,
    pub heading: String,
    pub text: String,
    /// The curated question, for an entry of a FAQ.
    pub question: Option<String>,
    pub language: Option<String>,
    pub labels: Vec<String>,
    /// How well it fits the question, 0 to 1.
    pub score: f32,
    /// Cosine similarity of the vectors, -1 to 1.
    pub vector_score: f32,
    /// Share of the question's information that the passage's words carry, 0 to 1.
    pub lexical_score: f32,
    /// Its curated question is the customer's.
    pub exact: bool,
    /// What put it in its place.
    #[serde(default)]
    pub why: Why,
}

/// What put a hit in its place, for people who ask why. Values are measured against the other candidates: deviations from their
/// mean, in standard deviations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// `(1 - weight) * vector + weight * words - near_duplicate`, by which hits are ordered behind curated equals.
    pub fused: f32,
    /// Of the cosine similarity.
    pub vector: f32,
    /// Of the share of the question's information that the passage's words carry.
    pub words: f32,
    /// Weight of words for this passage: 0 when its language is surely not the question's, or is written without spaces.
    pub weight: f32,
    /// What likeness to better hits took away.
    pub near_duplicate: f32,
    /// Its language is surely not the question's.
    pub foreign: bool,
}

impl Hit {
    /// Title and heading, as policies, models and people see them.
    pub fn full_title(&self) -> String {
        if self.heading.is_empty() || self.heading == self.title {
            return self.title.clone();
        }
        format!("{}: {}", self.title, self.heading)
    }
}

impl Knowledge {
    /// Finds the passages that fit `request.query`. A question without any word gives no hits.
    pub async fn search(&self, request: SearchRequest) -> Result<SearchOutcome, KnowledgeError> {
        let query: String = request.query.chars().take(QUERY_CHARACTERS_MAX).filter(|c| *c != '\0').collect();
        let given = request.language.as_deref().and_then(language::canonical);
        let language = given.or_else(|| self.languages.detect(&query));
        let topic = without_fillers(&query, language);
        let focus = without_fillers(&focus(&query), language);
        let page_id = request.page_id.as_deref();

        let serving = self.models.serving();
        let embedder = serving.embedder.as_ref();
        let (vector, mut connection) =
            tokio::try_join!(self.query_vector(embedder, &query), async { Ok(self.pool.acquire().await?) })?;
        let words = Words::new(db::query_lexemes(&mut connection, page_id, &topic, &focus).await?);
        let rows = db::candidates(
            &mut connection,
            &Candidates {
                page_id,
                slot: serving.slot,
                model: embedder.model_id(),
                dimensions: embedder.dimensions(),
                vector,
                question_key: &terms::question_key(&query),
                texts: &words.texts(),
                lexemes: &words.lexemes(),
                labels: &request.labels,
                languages: &request.passage_languages,
                now: request.now,
                limit: i64::try_from(self.settings.candidates).unwrap_or(40),
                ef_search: self.settings.ef_search,
            },
        )
        .await?;
        drop(connection);

        let calibration = embedder.calibration();
        let lexical_weight = self.settings.lexical_weight.unwrap_or(calibration.lexical_weight);
        let strategy = Strategy {
            model: embedder.model_id().to_owned(),
            language: language.map(str::to_owned),
            lexical_weight,
            candidates: rows.len(),
            exact: rows.iter().any(|row| row.exact),
        };
        let signals = rows.into_iter().map(|row| Signals::new(row, &words, language, calibration)).collect();
        let ranked = rank(signals, lexical_weight, calibration.understands_meaning);
        let hits = diversify(ranked, self.settings.diversity, request.limit.min(HITS_MAX));
        Ok(SearchOutcome { hits: hits.into_iter().map(Signals::into_hit).collect(), strategy })
    }

    /// `None` for a text of which the embedder can make nothing.
    async fn query_vector(&self, embedder: &dyn Embedder, query: &str) -> Result<Option<Vector>, KnowledgeError> {
        if query.trim().is_empty() {
            return Ok(None);
        }
        let vectors = match embedder.embed(&[query.to_owned()], Purpose::Query).await {
            Ok(vectors) => vectors,
            Err(error) => {
                // Full text still finds what shares the question's words; better than no answer at all.
                metrics::counter!("frontdesk_query_embedding_errors_total").increment(1);
                tracing::error!(%error, "a question could not be embedded; searching by its words alone");
                return Ok(None);
            }
        };
        let vector = super::ingest::checked(embedder, vectors, 1)?.into_iter().next();
        Ok(vector.filter(|vector| vector.iter().any(|x| *x != 0.0)).map(Vector::from))
    }
}

/// The text without words that carry no topic; the text itself when nothing else is in it.
fn without_fillers(text: &str, language: Option<&str>) -> String {
    let kept: Vec<&str> = text
        .unicode_words()
        .filter(|word| !terms::words(word).iter().all(|folded| terms::is_filler(folded, language)))
        .collect();
    if kept.is_empty() { text.to_owned() } else { kept.join(" ") }
}

/// The sentences that ask, or everything when none does.
pub fn focus(text: &str) -> String {
    let asking: Vec<&str> = text
        .unicode_sentences()
        .filter(|sentence| sentence.trim_end().ends_with(['?', '？', ';', '؟']) && sentence.contains(['?', '？', '؟']))
        .collect();
    if asking.is_empty() { text.to_owned() } else { asking.concat() }
}

/// The question's lexemes with their weights, by text search configuration.
struct Words {
    by_config: HashMap<String, Vec<Weighted>>,
}

struct Weighted {
    lexeme: String,
    /// Passages that hold it, of `total`.
    frequency: i64,
    total: i64,
    weight: f32,
    in_focus: bool,
}

impl Words {
    fn new(lexemes: Vec<QueryLexeme>) -> Self {
        let mut by_config: HashMap<String, Vec<Weighted>> = HashMap::new();
        for found in lexemes {
            let weight = information(found.frequency, found.total);
            let QueryLexeme { ts_config, lexeme, frequency, total, in_focus } = found;
            let word = Weighted { lexeme, frequency, total, weight, in_focus };
            by_config.entry(ts_config).or_default().push(word);
        }
        for words in by_config.values_mut() {
            // Rarest first; a question of more words than this loses its most common ones.
            words.sort_by(|a, b| a.frequency.cmp(&b.frequency).then_with(|| a.lexeme.cmp(&b.lexeme)));
            words.truncate(LEXEMES_MAX);
        }
        Self { by_config }
    }

    fn texts(&self) -> Vec<TextQuery> {
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
    fn lexemes(&self) -> Vec<TextLexeme> {
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
    fn coverage(&self, ts_config: &str, matched: &[String]) -> f32 {
        let Some(words) = self.by_config.get(ts_config) else { return 0.0 };
        let matched: HashSet<&str> = matched.iter().map(String::as_str).collect();
        let share = |words: &mut dyn Iterator<Item = &Weighted>| {
            let (mut all, mut held) = (0.0_f32, 0.0_f32);
            for word in words {
                all += word.weight;
                held += if matched.contains(word.lexeme.as_str()) { word.weight } else { 0.0 };
            }
            if all > 0.0 { held / all * (held / (held + 0.5)) } else { 0.0 }
        };
        share(&mut words.iter()).max(share(&mut words.iter().filter(|word| word.in_focus)))
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

/// A candidate and what speaks for it.
struct Signals {
    row: CandidateRow,
    cosine: f32,
    coverage: f32,
    /// Its language is surely not the question's.
    foreign: bool,
    /// Its words cannot be compared with the question's.
    wordless: bool,
    score: f32,
    rank: f32,
    why: Why,
}

impl Signals {
    fn new(row: CandidateRow, words: &Words, language: Option<&str>, calibration: Calibration) -> Self {
        let cosine = row.cosine.filter(|x| x.is_finite()).map_or(0.0, |x| x as f32);
        let coverage = words.coverage(&row.ts_config, &row.matched);
        let foreign = matches!((language, row.language.as_deref()), (Some(a), Some(b)) if a != b);
        // An embedder that knows words only has nothing to say across languages: there its weight stays on coverage.
        let wordless = foreign || !language::separates_words(row.language.as_deref());
        let weight = if wordless && calibration.understands_meaning { 0.0 } else { calibration.coverage_weight };
        let fit = weight * coverage + (1.0 - weight) * calibration.fit(cosine);
        let score = if row.exact { 1.0 } else { fit.clamp(0.0, 0.99) };
        Self { row, cosine, coverage, foreign, wordless, score, rank: 0.0, why: Why::default() }
    }

    fn into_hit(self) -> Hit {
        let row = self.row;
        Hit {
            passage_id: row.id,
            document_id: row.document_id,
            title: row.title,
            source: row.source,
            heading: row.heading,
            text: row.text,
            question: row.question,
            language: row.language,
            labels: row.labels,
            score: self.score,
            vector_score: self.cosine,
            lexical_score: self.coverage,
            exact: row.exact,
            why: self.why,
        }
    }
}

/// Best first.
fn rank(mut signals: Vec<Signals>, lexical_weight: f32, understands_meaning: bool) -> Vec<Signals> {
    let cosine = z_scores(signals.iter().map(|s| s.cosine));
    let text = z_scores(signals.iter().map(|s| s.row.rank));
    let coverage = z_scores(signals.iter().map(|s| s.coverage));
    for (signal, ((cosine, text), coverage)) in signals.iter_mut().zip(cosine.iter().zip(text).zip(coverage)) {
        let weight = if signal.wordless { 0.0 } else { lexical_weight };
        let words = if understands_meaning { coverage } else { 0.5 * (text + coverage) };
        signal.rank = (1.0 - weight) * cosine + weight * words;
        let (vector, fused, foreign) = (*cosine, signal.rank, signal.foreign);
        signal.why = Why { fused, vector, words, weight, near_duplicate: 0.0, foreign };
    }
    signals.sort_by(best_first);
    signals
}

fn best_first(a: &Signals, b: &Signals) -> Ordering {
    let place = |s: &Signals| (s.row.source.clone(), s.row.position);
    b.row.exact.cmp(&a.row.exact).then_with(|| b.rank.total_cmp(&a.rank)).then_with(|| place(a).cmp(&place(b)))
}

fn z_scores(values: impl Iterator<Item = f32>) -> Vec<f32> {
    let values: Vec<f32> = values.collect();
    let count = values.len().max(1) as f32;
    let mean = values.iter().sum::<f32>() / count;
    let deviation = (values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / count).sqrt();
    if deviation <= f32::EPSILON {
        return vec![0.0; values.len()];
    }
    values.iter().map(|x| (x - mean) / deviation).collect()
}

/// Takes `limit` hits, each time the one whose rank less its likeness to those taken is best. Only the head of the
/// list competes, so that diversity reorders good hits and never digs up bad ones.
fn diversify(mut ranked: Vec<Signals>, diversity: f32, limit: usize) -> Vec<Signals> {
    ranked.truncate(limit.saturating_mul(2));
    let mut pool: Vec<(Signals, HashSet<String>)> = ranked
        .into_iter()
        .map(|signals| {
            let text = signals.row.question.iter().flat_map(|question| question.chars()).chain([' ']);
            let text: String = text.chain(signals.row.text.chars()).take(COMPARED_CHARACTERS_MAX).collect();
            let words = terms::words(&text);
            (signals, words.into_iter().collect())
        })
        .collect();
    let mut taken: Vec<(Signals, HashSet<String>)> = Vec::with_capacity(limit);
    while taken.len() < limit && !pool.is_empty() {
        let penalty = |words: &HashSet<String>| {
            let likeness = taken.iter().map(|(_, other)| overlap(words, other)).fold(0.0, f32::max);
            diversity * likeness * likeness
        };
        let value = |(signals, words): &(Signals, HashSet<String>)| {
            // Curated equals are in front of everything, whatever they resemble.
            if signals.row.exact { f32::INFINITY } else { signals.rank - penalty(words) }
        };
        let values: Vec<f32> = pool.iter().map(value).collect();
        // The first of equals, which best_first put in front.
        let best = values
            .iter()
            .enumerate()
            .fold(0, |best, (at, value)| if values.get(best).is_some_and(|top| value > top) { at } else { best });
        let (mut signals, words) = pool.remove(best);
        signals.why.near_duplicate = penalty(&words);
        signals.why.fused = signals.rank - signals.why.near_duplicate;
        taken.push((signals, words));
    }
    taken.into_iter().map(|(signals, _)| signals).collect()
}

fn overlap(a: &HashSet<String>, b: &HashSet<String>) -> f32 {
    let shared = a.intersection(b).count();
    shared as f32 / (a.len() + b.len()).saturating_sub(shared).max(1) as f32
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
    fn chatter_around_the_question_does_not_lower_its_coverage() {
        let question = words(&[("ship", 10, true), ("austria", 3, true), ("vienna", 0, false), ("live", 1, false)]);
        assert!(question.coverage("english", &matched(&["ship", "austria"])) > 0.85);
        assert_eq!(focus("Hi! I live in Vienna. Do you ship to Austria?"), "Do you ship to Austria?");
        assert_eq!(focus("shipping to austria"), "shipping to austria");
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
            lexemes.push(QueryLexeme { ts_config, lexeme, frequency, total: 100_000, in_focus: true });
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
    fn fillers_go_unless_nothing_else_is_there() {
        assert_eq!(without_fillers("Hello, do you ship to Austria please?", Some("en")), "ship Austria");
        assert_eq!(without_fillers("Hello!", Some("en")), "Hello!");
    }

    #[test]
    fn z_scores_of_equals_are_zero() {
        assert_eq!(z_scores([2.0, 2.0].into_iter()), [0.0, 0.0]);
        assert_eq!(z_scores([1.0, 3.0].into_iter()), [-1.0, 1.0]);
        assert!(z_scores(std::iter::empty()).is_empty());
    }
}
