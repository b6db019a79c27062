//! Embeddings without a model: words, pairs of neighbouring words and character n-grams, hashed into a fixed number of
//! dimensions with a sign.
//!
//! Texts that share words (or parts of words: compounds, inflections, typing mistakes) are near each other; paraphrases
//! are not. Only integer hashing, additions, products and square roots are used, in a fixed order, so the same text gives
//! the same bits on every platform.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::embedding::normalise;
use super::terms::{is_filler, words};
use super::{Calibration, EmbedError, Embedder, Purpose};

const WORD_WEIGHT: f32 = 1.0;
/// Fillers still tell phrasings apart, but must not make two questions alike.
const FILLER_WEIGHT: f32 = 0.1;
const BIGRAM_WEIGHT: f32 = 0.5;
const NGRAM_WEIGHT: f32 = 0.35;
/// Character n-grams are taken of a word with a border mark on both sides.
const NGRAM_CHARACTERS: usize = 4;

#[derive(Debug)]
pub(super) struct HashEmbedder {
    model_id: String,
    dimensions: usize,
}

impl HashEmbedder {
    pub fn new(dimensions: usize) -> Self {
        // The number is the version of the features below: vectors of another version must not be compared with these.
        Self { model_id: format!("hash-{dimensions}-v1"), dimensions }
    }

    fn vector(&self, text: &str) -> Vec<f32> {
        let mut features = features(text);
        features.sort_unstable_by_key(|(hash, _)| *hash);
        let mut vector = vec![0.0_f32; self.dimensions];
        for group in features.chunk_by(|a, b| a.0 == b.0) {
            let Some((hash, weight)) = group.first().copied() else { continue };
            // Dampened: a word said four times counts twice.
            let value = weight * (group.len() as f32).sqrt();
            let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
            let slot = usize::try_from(hash % self.dimensions as u64).unwrap_or_default();
            if let Some(cell) = vector.get_mut(slot) {
                *cell += sign * value;
            }
        }
        normalise(&mut vector);
        vector
    }
}

/// Hash and weight of every feature of a text, repeated as often as it occurs.
fn features(text: &str) -> Vec<(u64, f32)> {
    let words = words(text);
    let weights: Vec<f32> =
        words.iter().map(|word| if is_filler(word, None) { FILLER_WEIGHT } else { WORD_WEIGHT }).collect();
    let mut features = Vec::with_capacity(words.len() * 8);
    for (word, weight) in words.iter().zip(&weights) {
        features.push((hash(b'w', word), *weight));
        let bordered: Vec<char> = std::iter::once('<').chain(word.chars()).chain(std::iter::once('>')).collect();
        for gram in bordered.windows(NGRAM_CHARACTERS) {
            features.push((hash(b'g', &gram.iter().collect::<String>()), weight * NGRAM_WEIGHT));
        }
    }
    for (pair, weight) in words.windows(2).zip(weights.windows(2)) {
        let weight = weight.iter().copied().fold(f32::INFINITY, f32::min) * BIGRAM_WEIGHT;
        features.push((hash(b'b', &pair.join(" ")), weight));
    }
    features
}

/// FNV-1a with a final mix, so that the low bits (the slot) and the top bit (the sign) are independent.
fn hash(kind: u8, text: &str) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for byte in std::iter::once(kind).chain(text.bytes()) {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

impl Embedder for HashEmbedder {
    fn model_id(&self) -> &str {
        &self.model_id
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn calibration(&self) -> Calibration {
        Calibration {
            floor: 0.05,
            ceiling: 0.6,
            lexical_weight: 0.7,
            coverage_weight: 0.85,
            understands_meaning: false,
        }
    }

    fn embed<'a>(&'a self, texts: &'a [String], _: Purpose) -> BoxFuture<'a, Result<Vec<Vec<f32>>, EmbedError>> {
        async move { Ok(texts.iter().map(|text| self.vector(text)).collect()) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn similarity(a: &str, b: &str) -> f32 {
        let embedder = HashEmbedder::new(1_024);
        embedder.vector(a).iter().zip(embedder.vector(b)).map(|(x, y)| x * y).sum()
    }

    #[test]
    fn vectors_are_stable_across_platforms_and_releases() {
        // Golden bits: a change here makes every stored vector stale, so it needs a new version in the model id.
        assert_eq!(hash(b'w', "tea"), 2_894_842_839_210_858_316);
        let vector = HashEmbedder::new(64).vector("Do you ship green tea to Österreich?");
        let bits = vector.iter().fold(0_u64, |state, x| state.rotate_left(5) ^ u64::from(x.to_bits()));
        assert_eq!(bits, 5_721_575_060_640_620_499);
    }

    #[test]
    fn vectors_have_length_one_or_zero() {
        let embedder = HashEmbedder::new(1_024);
        let length = |text: &str| embedder.vector(text).iter().map(|x| x * x).sum::<f32>();
        assert!((length("green tea") - 1.0).abs() < 1e-5);
        assert_eq!(length("  ?! "), 0.0);
        assert_eq!(embedder.vector("").len(), 1_024);
    }

    #[test]
    fn shared_topics_are_nearer_than_shared_phrasing() {
        let question = "Do you ship to Austria?";
        assert!(similarity(question, "We ship to Austria and Germany.") > similarity(question, "Do you have to pay?"));
        assert!(similarity("Lieferung", "Lieferungen") > 0.35);
        assert!(similarity("Größe ändern", "GROSSE ANDERN") > 0.999);
    }
}
