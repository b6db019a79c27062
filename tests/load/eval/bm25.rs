//! BM25 (Robertson and Zaragoza 2009) over stemmed words: the floor that needs no model.

use std::collections::HashMap;

use frontdesk_server::knowledge::terms::Stems;

const K1: f64 = 1.2;
const B: f64 = 0.75;

pub struct Bm25 {
    stems: Stems,
    /// Passage and frequency, by stem.
    postings: HashMap<String, Vec<(usize, f64)>>,
    lengths: Vec<f64>,
    mean_length: f64,
}

#[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^52")]
impl Bm25 {
    pub fn new<'a>(passages: impl Iterator<Item = &'a str>, language: Option<&str>) -> Self {
        let stems = Stems::new(language);
        let mut postings: HashMap<String, Vec<(usize, f64)>> = HashMap::new();
        let mut lengths = Vec::new();
        for (at, passage) in passages.enumerate() {
            let mut counts: HashMap<String, f64> = HashMap::new();
            let words = stems.all(passage);
            lengths.push(words.len() as f64);
            words.into_iter().for_each(|word| *counts.entry(word).or_default() += 1.0);
            counts.into_iter().for_each(|(word, count)| postings.entry(word).or_default().push((at, count)));
        }
        let mean_length = lengths.iter().sum::<f64>() / lengths.len().max(1) as f64;
        Self { stems, postings, lengths, mean_length }
    }

    /// A score for each passage.
    pub fn scores(&self, question: &str) -> Vec<f64> {
        let mut scores = vec![0.0; self.lengths.len()];
        for stem in self.stems.all(question) {
            let Some(postings) = self.postings.get(&stem) else { continue };
            let (all, held) = (self.lengths.len() as f64, postings.len() as f64);
            let idf = (1.0 + (all - held + 0.5) / (held + 0.5)).ln();
            for (at, count) in postings {
                let length = self.lengths.get(*at).copied().unwrap_or_default() / self.mean_length;
                if let Some(score) = scores.get_mut(*at) {
                    *score += idf * count * (K1 + 1.0) / (count + K1 * (1.0 - B + B * length));
                }
            }
        }
        scores
    }
}
