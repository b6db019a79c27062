//! The order of what was found: both signals fused, near-duplicates moved down.

use std::cmp::Ordering;

use super::likeness::{self, Likeness, overlap};
use super::words::Words;
use super::{Hit, Why};
use crate::db::knowledge::{CandidateRow, PIECES_BESIDE_MAX};
use crate::knowledge::{Calibration, language};

/// Share of the words' weight that is left where the languages differ: only names, numbers and loanwords are written alike there.
const FOREIGN_WORDS: f32 = 0.5;
/// What a piece loses behind a better one of a text that was cut for its length: the better one stands for both.
const PIECE: f32 = 0.75;

/// What each doubling of a cut text's pieces takes from the nearness of all of them, in standard deviations: of many draws the
/// best is better by chance alone.
const CHANCE: f32 = 0.11;
/// How far a piece's nearness is its whole text's.
const TEXT: f32 = 0.5;

/// Least standard deviation that coverage is measured in, well below what it usually is. Where next to no word is found, the
/// difference that one everyday word makes is no evidence, however far it stands out.
const COVERAGE_DEVIATION_MIN: f32 = 0.08;

/// A candidate and what speaks for it.
pub(super) struct Signals {
    row: CandidateRow,
    cosine: f32,
    coverage: f32,
    /// Its language is surely not the question's.
    foreign: bool,
    /// Its language is written with blanks between words.
    separates_words: bool,
    score: f32,
    rank: f32,
    why: Why,
}

impl Signals {
    pub fn new(row: CandidateRow, words: &Words, language: Option<&str>, calibration: Calibration) -> Self {
        let cosine = row.cosine.filter(|x| x.is_finite()).map_or(0.0, |x| x as f32);
        let coverage = words.coverage(&row.ts_config, &row.matched);
        let foreign = matches!((language, row.language.as_deref()), (Some(a), Some(b)) if a != b);
        // An embedder that knows words only has nothing to say across languages: there its weight stays on coverage.
        let separates_words = language::separates_words(row.language.as_deref());
        let wordless = foreign || !separates_words;
        let weight = if wordless && calibration.understands_meaning { 0.0 } else { calibration.coverage_weight };
        let fit = weight * coverage + (1.0 - weight) * calibration.fit(cosine);
        let score = if row.exact { 1.0 } else { fit.clamp(0.0, 0.99) };
        Self { row, cosine, coverage, foreign, separates_words, score, rank: 0.0, why: Why::default() }
    }

    /// Whether both are pieces of one text under one heading, near each other. Entries of a FAQ are texts of their own.
    fn continues(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.row, &other.row);
        let is_entry = ours.question.is_some() || theirs.question.is_some();
        let is_of_one_text = ours.document_id == theirs.document_id && ours.heading == theirs.heading;
        !is_entry && is_of_one_text && (1..=PIECES_BESIDE_MAX).contains(&ours.position.abs_diff(theirs.position))
    }

    /// Pieces that its text was cut into, as far as they stand near it.
    fn pieces(&self) -> f32 {
        1.0 + self.row.beside.max(0) as f32
    }

    /// Its cosine similarity, leaning on the mean of its whole text's: a piece is read with what it was cut from.
    fn nearness(&self) -> f32 {
        let Some(beside) = self.row.beside_cosine.filter(|x| x.is_finite()) else { return self.cosine };
        let text = (self.cosine + beside as f32 * (self.pieces() - 1.0)) / self.pieces();
        (1.0 - TEXT) * self.cosine + TEXT * text
    }

    pub fn into_hit(self) -> Hit {
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
pub(super) fn rank(mut signals: Vec<Signals>, lexical_weight: f32, understands_meaning: bool) -> Vec<Signals> {
    // The database gives them in any order, and sums of fractions depend on it.
    signals.sort_by(by_place);
    let near = |s: &Signals| if understands_meaning { s.nearness() } else { s.cosine };
    let cosine = z_scores(signals.iter().map(near));
    let text = z_scores(signals.iter().map(|s| s.row.rank));
    let least = if understands_meaning { COVERAGE_DEVIATION_MIN } else { f32::EPSILON };
    let coverage = deviations(signals.iter().map(|s| s.coverage), least);
    for (signal, ((cosine, text), coverage)) in signals.iter_mut().zip(cosine.iter().zip(text).zip(coverage)) {
        let weight = match (signal.separates_words, signal.foreign) {
            (false, _) => 0.0,
            (true, true) => FOREIGN_WORDS * lexical_weight,
            (true, false) => lexical_weight,
        };
        let words = if understands_meaning { coverage } else { 0.5 * (text + coverage) };
        let chance = if understands_meaning { CHANCE * signal.pieces().log2() } else { 0.0 };
        signal.rank = (1.0 - weight) * (cosine - chance) + weight * words;
        let (vector, fused, foreign) = (cosine - chance, signal.rank, signal.foreign);
        signal.why = Why { fused, vector, words, weight, near_duplicate: 0.0, foreign };
    }
    signals.sort_by(best_first);
    signals
}

fn best_first(a: &Signals, b: &Signals) -> Ordering {
    b.row.exact.cmp(&a.row.exact).then_with(|| b.rank.total_cmp(&a.rank)).then_with(|| by_place(a, b))
}

/// By what the passages are, not by their ids, which are random.
fn by_place(a: &Signals, b: &Signals) -> Ordering {
    fn place(s: &Signals) -> (&str, i32, &str) {
        (&s.row.source, s.row.position, &s.row.text)
    }
    place(a).cmp(&place(b))
}

fn z_scores(values: impl Iterator<Item = f32>) -> Vec<f32> {
    deviations(values, f32::EPSILON)
}

/// How far each is from the mean, in standard deviations, taken as no smaller than `least`.
fn deviations(values: impl Iterator<Item = f32>, least: f32) -> Vec<f32> {
    let values: Vec<f32> = values.collect();
    let count = values.len().max(1) as f32;
    let mean = values.iter().sum::<f32>() / count;
    let deviation = (values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / count).sqrt();
    if deviation <= f32::EPSILON {
        return vec![0.0; values.len()];
    }
    let unit = deviation.max(least);
    values.iter().map(|x| (x - mean) / unit).collect()
}

/// Takes `limit` hits, each time the one whose rank less its likeness to those taken is best. Only the head of the
/// list competes, so that diversity reorders good hits and never digs up bad ones.
pub(super) fn diversify(mut ranked: Vec<Signals>, likeness: &Likeness, diversity: f32, limit: usize) -> Vec<Signals> {
    ranked.truncate(limit.saturating_mul(2));
    let read = |signals: Signals| {
        let row = &signals.row;
        let words = likeness.words(row.id, row.question.as_deref(), &row.text);
        (signals, words)
    };
    let mut pool: Vec<(Signals, likeness::Words)> = ranked.into_iter().map(read).collect();
    let mut taken: Vec<(Signals, likeness::Words)> = Vec::with_capacity(limit);
    while taken.len() < limit && !pool.is_empty() {
        let penalty = |(signals, words): &(Signals, likeness::Words)| {
            let likeness = taken.iter().map(|(_, other)| overlap(words, other)).fold(0.0, f32::max);
            let is_piece = diversity > 0.0 && taken.iter().any(|(other, _)| signals.continues(other));
            diversity * likeness * likeness + if is_piece { PIECE } else { 0.0 }
        };
        let value = |candidate: &(Signals, likeness::Words)| {
            // Curated equals are in front of everything, whatever they resemble.
            if candidate.0.row.exact { f32::INFINITY } else { candidate.0.rank - penalty(candidate) }
        };
        let values: Vec<f32> = pool.iter().map(value).collect();
        // The first of equals, which best_first put in front.
        let best = values
            .iter()
            .enumerate()
            .fold(0, |best, (at, value)| if values.get(best).is_some_and(|top| value > top) { at } else { best });
        let chosen = pool.remove(best);
        let near_duplicate = penalty(&chosen);
        let (mut signals, words) = chosen;
        signals.why.near_duplicate = near_duplicate;
        signals.why.fused = signals.rank - signals.why.near_duplicate;
        taken.push((signals, words));
    }
    taken.into_iter().map(|(signals, _)| signals).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn candidate(source: &str, cosine: f64, pieces: i64) -> Signals {
        let row = CandidateRow {
            id: Uuid::new_v4(),
            document_id: Uuid::new_v4(),
            title: String::new(),
            source: source.to_owned(),
            position: 0,
            heading: String::new(),
            text: String::new(),
            question: None,
            language: Some("en".to_owned()),
            labels: Vec::new(),
            ts_config: "english".to_owned(),
            exact: false,
            cosine: Some(cosine),
            rank: 0.0,
            matched: Vec::new(),
            beside: pieces - 1,
            beside_cosine: None,
        };
        Signals::new(row, &Words::new(Vec::new()), Some("en"), Calibration::SEMANTIC)
    }

    #[test]
    fn the_best_of_many_pieces_needs_to_be_nearer_than_a_short_text() {
        let order = |long: f64, understands_meaning| {
            let candidates = vec![candidate("long", long, 4), candidate("short", 0.84, 1), candidate("far", 0.7, 1)];
            let ranked = rank(candidates, 0.0, understands_meaning);
            ranked.into_iter().map(|signals| signals.row.source).collect::<Vec<_>>()
        };
        assert_eq!(order(0.85, true), ["short", "long", "far"]);
        assert_eq!(order(0.95, true), ["long", "short", "far"], "much nearer is nearer all the same");
        assert_eq!(order(0.85, false), ["long", "short", "far"], "words say nothing about chance");
    }

    #[test]
    fn a_piece_is_read_with_what_it_was_cut_from() {
        let piece = |source: &str, cosine, beside: Option<f64>| {
            let mut signals = candidate(source, cosine, 2);
            signals.row.beside_cosine = beside;
            signals
        };
        let order = |beside| {
            let candidates =
                vec![piece("stray", 0.86, beside), piece("at home", 0.85, Some(0.85)), piece("far", 0.7, None)];
            let ranked = rank(candidates, 0.0, true);
            ranked.into_iter().map(|signals| signals.row.source).collect::<Vec<_>>()
        };
        assert_eq!(order(Some(0.7)), ["at home", "stray", "far"], "what stands beside it is about something else");
        assert_eq!(order(Some(0.84)), ["stray", "at home", "far"]);
        assert_eq!(order(None), ["stray", "at home", "far"], "what has no vector says nothing");
    }

    #[test]
    fn one_everyday_word_is_no_evidence_however_far_it_stands_out() {
        let order = |coverage: f32| {
            let far = |n: i32| candidate(&format!("far {n}"), 0.7 + 0.005 * f64::from(n), 1);
            let mut candidates: Vec<Signals> = (0..9).map(far).collect();
            candidates.push(candidate("near", 0.76, 1));
            let mut word = candidate("word", 0.75, 1);
            word.coverage = coverage;
            candidates.push(word);
            rank(candidates, 0.2, true).swap_remove(0).row.source
        };
        assert_eq!(order(0.05), "near");
        assert_eq!(order(0.9), "word", "nearly all of its words are");
    }

    #[test]
    fn z_scores_of_equals_are_zero() {
        assert_eq!(z_scores([2.0, 2.0].into_iter()), [0.0, 0.0]);
        assert_eq!(z_scores([1.0, 3.0].into_iter()), [-1.0, 1.0]);
        assert!(z_scores(std::iter::empty()).is_empty());
    }
}
