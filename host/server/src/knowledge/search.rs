//! Finding the passages that answer a question.
//!
//! # How a hit is ranked
//! 1. A curated question with the same folded words comes first (score 1).
//! 2. The others by a weighted sum of nearness and words. Nearness is the z-score of the cosine similarity over all candidates;
//!    that of a piece of a longer text is for one half the mean of the pieces around it and of itself, because it is read with what
//!    it was cut from. Words are coverage (which knows how rare a word is), by how far it is from the candidates' mean, in standard
//!    deviations that are no smaller than is usual: where hardly a word of the question is known, as across languages, differences
//!    stay as small as the evidence. Where the embedder knows nothing but words itself, they are the mean of the z-scores of
//!    coverage and `ts_rank` (which knows where a word stands). Their weight is the embedder's or the setting's, half of it for a
//!    passage whose language is surely not the question's (what is written alike in two languages are names and numbers), and 0
//!    for one that is written without spaces. `cargo xtask eval` measures what the weight does: with a model, up to 0.2 is better than nearness alone
//!    where questions share words with their passages and no worse elsewhere; 0.3 and more begins to hurt.
//!    A text that was cut into more pieces has more chances that one of them is near: where the embedder understands meaning, each
//!    doubling of the pieces takes about a tenth of a standard deviation from the nearness of all of them.
//! 3. Near-duplicates of better hits move down by `diversity` times their word overlap, and so does a piece of a text that
//!    was cut for its length, behind a better one near it: one of them stands for both.
//!
//! Equal ranks are ordered by source and position, so the same data gives the same order everywhere.
//!
//! # How a hit is scored
//! `coverage` is the share of the question's information that the passage's words carry: each lexeme weighs
//! `ln(1 + (N + 0.5) / (df + 0.5))`, so a word that no passage has weighs most, and a question about something that the
//! knowledge does not hold covers badly however many everyday words match. It is taken of the whole text and of the
//! sentences that ask, whichever covers better (a word counts as carried by another name of the same thing, such as "bicycle" for
//! "bike"), and dampened by `m / (m + 0.5)` for a matched weight `m`, because one
//! everyday word is little evidence. `score = w * coverage + (1 - w) * fit(cosine)`, `w` and `fit` by the embedder's
//! [`Calibration`](super::Calibration); across languages `w` is 0 where the embedder understands meaning.

mod likeness;
mod rank;
mod words;

use chrono::{DateTime, Utc};
use pgvector::Vector;
use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;
use uuid::Uuid;

use super::{Embedder, Knowledge, KnowledgeError, Purpose, language, spelling, terms};
use crate::db::in_time;
use crate::db::knowledge::{self as db, Candidates};
pub(super) use likeness::Likeness;
use rank::{Signals, diversify, rank};
use words::Words;

/// Longest question that is searched for; the rest is cut off.
pub const QUERY_CHARACTERS_MAX: usize = 2_000;
/// Most hits that one search gives.
pub const HITS_MAX: usize = 50;
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
/// mean, in standard deviations (of coverage: no smaller ones than usual).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// `(1 - weight) * vector + weight * words - near_duplicate`, by which hits are ordered behind curated equals.
    pub fused: f32,
    /// Of the cosine similarity, leaning on that of the pieces beside it, less what a text of many pieces has by chance.
    pub vector: f32,
    /// Of the share of the question's information that the passage's words carry.
    pub words: f32,
    /// Weight of words for this passage: half when its language is surely not the question's, 0 when it is written without spaces.
    pub weight: f32,
    /// What likeness to better hits, or being a piece of the same text, took away.
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
        let [topic, focus] = [topic, focus].map(|text| spelling::corrected(&text, language, |_| false).unwrap_or(text));
        let page_id = request.page_id.as_deref();

        let serving = self.models.serving();
        let embedder = serving.embedder.as_ref();
        let (vector, mut connection) =
            tokio::try_join!(self.query_vector(embedder, &query), async { Ok(self.connections.take().await?) })?;
        let names = other_names(&topic);
        let reading = async {
            let words = Words::new(db::query_lexemes(&mut connection, page_id, &topic, &focus, &names).await?);
            let asked = Candidates {
                page_id,
                slot: serving.slot,
                model: embedder.model_id(),
                dimensions: embedder.dimensions(),
                reads_beside: embedder.calibration().understands_meaning,
                vector,
                question_key: &terms::question_key(&query),
                texts: &words.texts(),
                lexemes: &words.lexemes(),
                labels: &request.labels,
                languages: &request.passage_languages,
                now: request.now,
                limit: i64::try_from(self.settings.candidates).unwrap_or(40),
                ef_search: self.settings.ef_search,
            };
            let rows = db::candidates(&mut connection, &asked).await?;
            self.connections.give_back(connection);
            Ok((words, rows))
        };
        let (words, rows) = in_time(reading).await?;

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
        let hits = diversify(ranked, &self.likeness, self.settings.diversity, request.limit.min(HITS_MAX));
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

/// What the things of a question are called besides, by text search configuration.
fn other_names(text: &str) -> Vec<(&'static str, String)> {
    let pairs = terms::languages_with_concepts().map(|code| (code, terms::other_names(text, code)));
    let named = pairs.filter(|(_, names)| !names.is_empty());
    named.map(|(code, names)| (language::ts_config(Some(code)), names.join(" "))).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentences_that_ask_are_the_focus() {
        assert_eq!(focus("Hi! I live in Vienna. Do you ship to Austria?"), "Do you ship to Austria?");
        assert_eq!(focus("shipping to austria"), "shipping to austria");
    }

    #[test]
    fn fillers_go_unless_nothing_else_is_there() {
        assert_eq!(without_fillers("Hello, do you ship to Austria please?", Some("en")), "ship Austria");
        assert_eq!(without_fillers("Hello!", Some("en")), "Hello!");
    }
}
