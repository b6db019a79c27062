//! Recall and reciprocal rank: the host's search beside BM25 and plain vector search.
//!
//! Each passage is a document of its own. The baselines see the whole passages; the host cuts long ones, so that several of
//! its hits may be of one passage: they count as they stand, and take each other's places.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result};
use chrono::Utc;
use frontdesk_server::knowledge::{Embedder, Format, Hit, Knowledge, NewDocument, Purpose, SearchRequest};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::bm25::Bm25;
use super::cache::Remembering;
use super::sets::{FindingSet, Passage, Question};
use super::{Options, retrieval_settings, share, spread};
use crate::ground::Ground;

pub const HEAD: &str = "\
| set | questions | passages | R@1 host | BM25 | vector | R@5 host | BM25 | vector | MRR host | BM25 | vector | level |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|";
/// Hits that reciprocal ranks are taken of.
const DEPTH: usize = 10;
const TRACED: usize = 50;
/// Two figures that differ by less are level.
const LEVEL: f64 = 1e-9;

/// Figures of one way of searching.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    pub recall_at_1: f64,
    pub recall_at_5: f64,
    pub mrr_at_10: f64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    pub set: String,
    pub questions: usize,
    pub passages: usize,
    pub host: Figures,
    pub bm25: Figures,
    pub vector: Figures,
}

/// Places of the first wanted hit, counted from 1; 0: not among the first ten.
#[derive(Debug, Default)]
struct Places(Vec<usize>);

impl Places {
    fn add<'a>(&mut self, question: &Question, keys: impl Iterator<Item = &'a str>) {
        let place = keys.take(DEPTH).position(|key| question.wanted.contains(key)).map_or(0, |at| at + 1);
        self.0.push(place);
    }

    #[expect(clippy::cast_precision_loss, reason = "places are at most ten")]
    fn figures(&self) -> Figures {
        let within =
            |most: usize| share(self.0.iter().filter(|place| (1..=most).contains(*place)).count(), self.0.len());
        let sum: f64 = self.0.iter().filter(|place| **place > 0).map(|place| 1.0 / *place as f64).sum();
        let mrr_at_10 = sum / share(self.0.len(), 1).max(1.0);
        Figures { recall_at_1: within(1), recall_at_5: within(5), mrr_at_10 }
    }
}

impl Found {
    /// Whether no figure is below the better baseline's.
    pub fn is_level(&self) -> bool {
        let pairs = |of: fn(&Figures) -> f64| of(&self.host) + LEVEL >= of(&self.bm25).max(of(&self.vector));
        pairs(|f| f.recall_at_1) && pairs(|f| f.recall_at_5) && pairs(|f| f.mrr_at_10)
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| {} | {} | {} ", self.set, self.questions, self.passages)?;
        for of in [|f: &Figures| f.recall_at_1, |f: &Figures| f.recall_at_5, |f: &Figures| f.mrr_at_10] {
            write!(f, "| {:.3} | {:.3} | {:.3} ", of(&self.host), of(&self.bm25), of(&self.vector))?;
        }
        write!(f, "| {} |", if self.is_level() { "yes" } else { "NO" })
    }
}

/// The mean over sets, each counted once.
pub fn mean(found: &[Found]) -> Found {
    let of = |figures: fn(&Found) -> Figures| {
        let all: Vec<Figures> = found.iter().map(figures).collect();
        let mean = |of: fn(&Figures) -> f64| all.iter().map(of).sum::<f64>() / share(all.len(), 1).max(1.0);
        Figures {
            recall_at_1: mean(|f| f.recall_at_1),
            recall_at_5: mean(|f| f.recall_at_5),
            mrr_at_10: mean(|f| f.mrr_at_10),
        }
    };
    Found {
        set: "mean of the sets".to_owned(),
        questions: found.iter().map(|found| found.questions).sum(),
        passages: found.iter().map(|found| found.passages).sum(),
        host: of(|found| found.host),
        bm25: of(|found| found.bm25),
        vector: of(|found| found.vector),
    }
}

/// Adds passages as documents of their own.
pub async fn fill(knowledge: &Knowledge, passages: &[Passage]) -> Result<()> {
    for passage in passages {
        let document = NewDocument {
            source: format!("{}.txt", passage.key),
            format: Some(Format::Text),
            bytes: passage.text.clone().into_bytes(),
            ..NewDocument::default()
        };
        knowledge.add(document).await.with_context(|| format!("adding {}", passage.key))?;
    }
    knowledge.prepare().await?;
    Ok(())
}

pub fn request(question: &str, limit: usize) -> SearchRequest {
    SearchRequest {
        page_id: None,
        query: question.to_owned(),
        language: None,
        labels: Vec::new(),
        passage_languages: Vec::new(),
        limit,
        now: Utc::now(),
    }
}

fn key(hit: &Hit) -> &str {
    hit.source.strip_suffix(".txt").unwrap_or(&hit.source)
}

pub async fn measure(
    set: &FindingSet,
    model: &Arc<Remembering>,
    options: &Options,
    mut trace: Option<&mut std::io::BufWriter<std::fs::File>>,
) -> Result<Found> {
    let ground = Ground::new().await?;
    let embedder: Arc<dyn Embedder> = Arc::<Remembering>::clone(model);
    let knowledge = Knowledge::new(ground.pool.clone(), embedder, retrieval_settings(options))?;
    fill(&knowledge, &set.passages).await?;
    let plain = Plain::new(set, model).await?;
    let bm25 = Bm25::new(set.passages.iter().map(|passage| passage.text.as_str()), set.language.as_deref());
    let questions = spread(&set.questions, options.questions as usize);
    let (mut host, mut words, mut vectors) = (Places::default(), Places::default(), Places::default());
    for question in &questions {
        let hits = knowledge.search(request(&question.text, DEPTH)).await?.hits;
        host.add(question, hits.iter().map(key));
        let lexical = bm25.scores(&question.text);
        let nearness = plain.scores(&question.text, model).await?;
        words.add(question, best(&set.passages, &lexical));
        vectors.add(question, best(&set.passages, &nearness));
        if let Some(trace) = trace.as_deref_mut() {
            let hits = knowledge.search(request(&question.text, TRACED)).await?;
            let of = |scores: &[f64]| -> HashMap<&str, f64> {
                set.passages.iter().map(|passage| passage.key.as_str()).zip(scores.iter().copied()).collect()
            };
            let (lexical, nearness) = (of(&lexical), of(&nearness));
            let candidates: Vec<_> = hits
                .hits
                .iter()
                .map(|hit| {
                    json!({
                        "key": key(hit), "wanted": question.wanted.contains(key(hit)), "score": hit.score,
                        "vector_score": hit.vector_score, "lexical_score": hit.lexical_score, "why": hit.why,
                        "bm25": lexical.get(key(hit)), "cosine": nearness.get(key(hit)),
                    })
                })
                .collect();
            let line = json!({ "set": set.name, "question": question.text, "language": hits.strategy.language,
                "lexical_weight": hits.strategy.lexical_weight, "candidates": candidates });
            writeln!(trace, "{line}")?;
        }
    }
    Ok(Found {
        set: set.name.clone(),
        questions: questions.len(),
        passages: set.passages.len(),
        host: host.figures(),
        bm25: words.figures(),
        vector: vectors.figures(),
    })
}

/// Keys, best first; of equals the first passage.
fn best<'a>(passages: &'a [Passage], scores: &[f64]) -> impl Iterator<Item = &'a str> {
    let mut order: Vec<(usize, f64)> = scores.iter().copied().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let keys: Vec<&str> = order.iter().filter_map(|(at, _)| passages.get(*at)).map(|p| p.key.as_str()).collect();
    keys.into_iter()
}

/// Plain vector search: one vector a passage, every one compared.
struct Plain {
    vectors: Vec<Vec<f32>>,
}

impl Plain {
    async fn new(set: &FindingSet, model: &Remembering) -> Result<Self> {
        let texts: Vec<String> = set.passages.iter().map(|passage| passage.text.clone()).collect();
        Ok(Self { vectors: model.embed(&texts, Purpose::Passage).await? })
    }

    async fn scores(&self, question: &str, model: &Remembering) -> Result<Vec<f64>> {
        let asked = model.embed(&[question.to_owned()], Purpose::Query).await?;
        let asked = asked.first().context("the embedder gives no vector")?;
        let dot = |other: &Vec<f32>| f64::from(asked.iter().zip(other).map(|(a, b)| a * b).sum::<f32>());
        Ok(self.vectors.iter().map(dot).collect())
    }
}
