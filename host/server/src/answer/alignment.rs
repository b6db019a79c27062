//! Which words of two languages say the same: "Österreich" and "Austria", "perro" and "dog".
//!
//! An embedding model of many languages puts a word and its translation nearer to each other than any two words that merely
//! are of one kind (measured with multilingual-e5-small: Österreich–Austria .955, Alemania–Germany .936, perro–dog .919;
//! Spanien–Italy .875, gato–dog .877, voitures–parking .885). So the bound lies high, and it is used across languages alone:
//! within one, kindred words ("cat", "dog": .901) are as near as translations.
//!
//! Vectors of words are remembered for the whole process: customers and passages use the same few thousand words.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use crate::knowledge::{EmbedError, Embedder, Purpose};

/// Least calibrated similarity of a word and its translation.
const FIT_MIN: f32 = 0.9;
/// Words of one text that are compared; of a longer one the first.
const ASKED_MAX: usize = 24;
const GIVEN_MAX: usize = 160;
/// Vectors that are remembered: about 30 MB of 384 numbers each.
const KNOWN_MAX: usize = 20_000;

type Known = HashMap<(String, String), Arc<Vec<f32>>>;
static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

/// For each word of `asked` the words of `given` that may translate it. Empty without a model that understands meaning.
pub(super) async fn align(
    embedder: Option<&Arc<dyn Embedder>>,
    asked: &[String],
    given: &[String],
) -> Result<HashMap<String, HashSet<String>>, EmbedError> {
    let Some(embedder) = embedder.filter(|embedder| embedder.calibration().understands_meaning) else {
        return Ok(HashMap::new());
    };
    let (asked, given) = (distinct(asked, ASKED_MAX), distinct(given, GIVEN_MAX));
    if asked.is_empty() || given.is_empty() {
        return Ok(HashMap::new());
    }
    let both: Vec<String> = asked.iter().chain(&given).cloned().collect();
    let vectors = vectors(embedder, &both).await?;
    let (ours, theirs) = vectors.split_at(asked.len().min(vectors.len()));
    let calibration = embedder.calibration();
    let fits = |a: &[f32], b: &[f32]| calibration.fit(a.iter().zip(b).map(|(x, y)| x * y).sum()) >= FIT_MIN;
    let pairs = asked.into_iter().zip(ours).map(|(word, vector)| {
        let same = given.iter().zip(theirs).filter(|(_, other)| fits(vector, other)).map(|(word, _)| word.clone());
        (word, same.collect())
    });
    Ok(pairs.collect())
}

fn distinct(words: &[String], most: usize) -> Vec<String> {
    let mut seen = HashSet::new();
    words.iter().filter(|word| seen.insert(word.as_str())).take(most).cloned().collect()
}

async fn vectors(embedder: &Arc<dyn Embedder>, words: &[String]) -> Result<Vec<Arc<Vec<f32>>>, EmbedError> {
    let model = embedder.model_id();
    let key = |word: &String| (model.to_owned(), word.clone());
    let missing: Vec<String> = {
        let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        words.iter().filter(|word| !known.contains_key(&key(word))).cloned().collect()
    };
    let made = if missing.is_empty() { Vec::new() } else { embedder.embed(&missing, Purpose::Query).await? };
    let made: HashMap<(String, String), Arc<Vec<f32>>> =
        missing.iter().map(key).zip(made.into_iter().map(Arc::new)).collect();
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() + made.len() > KNOWN_MAX {
        known.clear();
    }
    let nothing: Arc<Vec<f32>> = Arc::default();
    let find = |word: &String| made.get(&key(word)).or_else(|| known.get(&key(word))).unwrap_or(&nothing).clone();
    let found = words.iter().map(find).collect();
    known.extend(made);
    Ok(found)
}
