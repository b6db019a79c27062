//! The evidence gate: no factual sentence goes out that its passages do not carry.
//!
//! # Support of one sentence
//! Against the passages it cites (all given ones when it cites none), taken together:
//! - `coverage`: the share of its content words (folded, without fillers, stemmed; names of one concept are one word) that
//!   stand in the passages. By default hardly any may be missing: a sentence of nine true words and an invented one is invented;
//! - every number (also in words), date, price, web address and e-mail address of the sentence must stand in a passage: one that
//!   does not makes the support 0;
//! - a number that the passages say of another country, weekday or thing makes it 0, too;
//! - so must every name: a word with a capital that does not begin the sentence (in German that is every noun);
//! - a sentence that denies what the best matching sentence of the passages affirms (or the other way round) has
//!   support 0.
//!
//! When sentence and passage are in different languages, a word is in the passage when it is written alike there, is a name of
//! the same concept, or has a translation there ([`alignment`](super::alignment)); of translations a few may be missed. Besides,
//! the sentence as a whole must be near to one of the passage. Without an embedder that understands meaning the support is 0.
//! Numbers, names and addresses are checked all the same.
//!
//! # Confidence
//! `confidence = (supported / factual) * mean support of the kept factual sentences * (0.5 + 0.5 * best_score)`: cut
//! sentences lower it, weak support lowers it, and passages that fit the question badly lower it by up to half. With no
//! factual sentence kept it is 0.

mod exacts;
mod vocabulary;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::alignment::align;
use super::naming::{is_weekday, named};
use super::sentences::{is_factual, split};
use super::{CitedSentence, DraftError, Evidence, PassageRef};
use crate::knowledge::terms::{Stems, is_filler, words};
use crate::knowledge::{Embedder, Purpose, detect_language};
use exacts::exacts;
pub(super) use exacts::same_exacts;
use vocabulary::says_nothing;
pub(super) use vocabulary::{is_negated, number_word};

/// What the gate demands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvidenceSettings {
    /// Least support of a factual sentence, 0 to 1.
    pub support_min: f32,
}

impl Default for EvidenceSettings {
    fn default() -> Self {
        Self { support_min: 0.9 }
    }
}

/// A sentence as drafted, with the passages it names (by id; unknown ids are ignored).
#[derive(Debug, Clone, PartialEq)]
pub struct DraftedSentence {
    pub text: String,
    pub passage_ids: Vec<String>,
}

/// What the gate let through.
#[derive(Debug, Clone, PartialEq)]
pub struct Gated {
    /// In order, courtesies included.
    pub kept: Vec<CitedSentence>,
    pub cut: Vec<CitedSentence>,
    pub evidence: Evidence,
}

impl Gated {
    /// Whether anything factual is left to say.
    pub fn has_facts(&self) -> bool {
        self.evidence.supported > 0
    }
}

/// Judges every sentence; cuts the factual ones that are not supported. Fails only if the embedder does.
pub async fn gate(
    drafted: Vec<DraftedSentence>,
    passages: &[PassageRef],
    embedder: Option<&Arc<dyn Embedder>>,
    settings: EvidenceSettings,
) -> Result<Gated, DraftError> {
    let carriers: HashMap<&str, Carrier> = passages.iter().map(|p| (p.id.as_str(), Carrier::new(p))).collect();
    let mut kept = Vec::new();
    let mut cut = Vec::new();
    for sentence in drafted {
        let judged = judge(sentence, passages, &carriers, embedder, settings).await?;
        if judged.problem.is_some() { cut.push(judged) } else { kept.push(judged) }
    }
    let evidence = tally(&kept, &cut, best_cited(&kept, passages));
    Ok(Gated { kept, cut, evidence })
}

/// The numbers of an answer, `best_score` being the best fit among the passages that it cites.
pub(super) fn tally(kept: &[CitedSentence], cut: &[CitedSentence], best_score: f32) -> Evidence {
    let supports: Vec<f32> = kept.iter().filter(|s| s.factual).map(|s| s.support).collect();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let factual = supports.len() + cut.len();
    let evidence =
        Evidence { sentences: count(factual), supported: count(supports.len()), best_score, confidence: 0.0 };
    Evidence { confidence: confidence(&evidence, &supports), ..evidence }
}

/// Best fit among the passages that the sentences cite.
fn best_cited(kept: &[CitedSentence], passages: &[PassageRef]) -> f32 {
    let cited: HashSet<&str> = kept.iter().flat_map(|s| s.passage_ids.iter().map(String::as_str)).collect();
    passages.iter().filter(|p| cited.contains(p.id.as_str())).map(|p| p.score).fold(0.0, f32::max)
}

/// See the module's documentation for the formula. `supports` are those of the kept factual sentences.
pub fn confidence(evidence: &Evidence, supports: &[f32]) -> f32 {
    if evidence.sentences == 0 || supports.is_empty() {
        return 0.0;
    }
    let share = evidence.supported as f32 / evidence.sentences as f32;
    let mean = supports.iter().sum::<f32>() / supports.len() as f32;
    (share * mean * (0.5 + 0.5 * evidence.best_score)).clamp(0.0, 1.0)
}

/// A passage, taken apart once for all sentences.
struct Carrier<'a> {
    passage: &'a PassageRef,
    language: Option<String>,
    stems: HashSet<String>,
    words: HashSet<String>,
    concepts: HashSet<u16>,
    exacts: HashSet<String>,
    sentences: Vec<Line>,
}

/// A sentence of a passage.
struct Line {
    stems: HashSet<String>,
    is_negated: bool,
    exacts: HashSet<String>,
    /// Weekdays and countries.
    names: HashSet<u16>,
}

impl<'a> Carrier<'a> {
    fn new(passage: &'a PassageRef) -> Self {
        let full = full_text(passage);
        let language = passage.language.clone().or_else(|| detect_language(&full).map(str::to_owned));
        let stems = Stems::new(language.as_deref());
        let sentences: Vec<Line> = split(&passage.text)
            .into_iter()
            .map(|sentence| Line {
                stems: stems.content(sentence).into_iter().collect(),
                is_negated: is_negated(sentence),
                exacts: exacts(sentence).into_iter().collect(),
                names: named(sentence, &stems),
            })
            .collect();
        let all: HashSet<String> = stems.all(&full).into_iter().collect();
        let concepts = all.iter().filter_map(|stem| stems.concept(stem));
        Self {
            passage,
            concepts: concepts.chain(sentences.iter().flat_map(|line| line.names.iter().copied())).collect(),
            stems: all,
            words: words(&full).into_iter().collect(),
            exacts: exacts(&full).into_iter().collect(),
            sentences,
            language,
        }
    }
}

fn full_text(passage: &PassageRef) -> String {
    format!("{}\n{}\n{}", passage.title, passage.question.as_deref().unwrap_or_default(), passage.text)
}

async fn judge(
    sentence: DraftedSentence,
    passages: &[PassageRef],
    carriers: &HashMap<&str, Carrier<'_>>,
    embedder: Option<&Arc<dyn Embedder>>,
    settings: EvidenceSettings,
) -> Result<CitedSentence, DraftError> {
    let DraftedSentence { text, mut passage_ids } = sentence;
    passage_ids.retain(|id| carriers.contains_key(id.as_str()));
    if !is_factual(&text) {
        return Ok(CitedSentence { text, passage_ids, support: 1.0, factual: false, problem: None });
    }
    let cited: Vec<&Carrier> = match passage_ids.is_empty() {
        true => passages.iter().filter_map(|p| carriers.get(p.id.as_str())).collect(),
        false => passage_ids.iter().filter_map(|id| carriers.get(id.as_str())).collect(),
    };
    let (support, problem) = match missing_exact(&text, &cited).or_else(|| misplaced(&text, &cited)) {
        Some(problem) => (0.0, Some(problem)),
        None => weigh(&text, &cited, embedder).await?,
    };
    let problem =
        problem.or_else(|| (support < settings.support_min).then(|| "its words are not in the passages".to_owned()));
    if passage_ids.is_empty() && problem.is_none() {
        passage_ids.extend(nearest(&text, &cited));
    }
    Ok(CitedSentence { text, passage_ids, support, factual: true, problem })
}

/// A number or address that no passage has. The problem names its kind only: records must not repeat inventions.
fn missing_exact(text: &str, cited: &[&Carrier]) -> Option<String> {
    let missing = exacts(text).into_iter().find(|exact| !cited.iter().any(|carrier| carrier.exacts.contains(exact)))?;
    let kind = if missing.contains('@') || missing.contains('/') || missing.chars().any(char::is_alphabetic) {
        "an address"
    } else {
        "a number"
    };
    Some(format!("it names {kind} that is not in the passages"))
}

/// A number that the passages say of something else: the price of a parcel to another country, the hours of another day, what
/// another product costs.
fn misplaced(text: &str, cited: &[&Carrier]) -> Option<String> {
    let spoken = Stems::new(detect_language(text).or_else(|| cited.first()?.language.as_deref()));
    let told = named(text, &spoken);
    let lines = || cited.iter().flat_map(|carrier| &carrier.sentences);
    // Capitals say nothing in German.
    let mut names = if spoken.language() == Some("de") { HashSet::new() } else { names(text) };
    names.retain(|name| spoken.concept(&spoken.stem(name)).is_none());
    let is_elsewhere = |exact: &String| {
        let with_it: Vec<&Line> = lines().filter(|line| line.exacts.contains(exact)).collect();
        let is_of_another = [true, false].into_iter().any(|weekdays| {
            let of_kind =
                |names: &HashSet<u16>| names.iter().copied().filter(|name| is_weekday(*name) == weekdays).collect();
            let told: HashSet<u16> = of_kind(&told);
            let others: Vec<HashSet<u16>> = with_it.iter().map(|line| of_kind(&line.names)).collect();
            !told.is_empty()
                && !others.is_empty()
                && others.iter().all(|names| !names.is_empty() && names.is_disjoint(&told))
        });
        let has_no_passage = match names.iter().collect::<Vec<_>>().as_slice() {
            [name] => {
                let of_name = || cited.iter().filter(|carrier| carrier.words.contains(*name));
                of_name().next().is_some() && !of_name().any(|carrier| carrier.exacts.contains(exact))
            }
            _ => false,
        };
        is_of_another || has_no_passage
    };
    let problem = "it says a number of something else than the passages do";
    exacts(text).iter().any(is_elsewhere).then(|| problem.to_owned())
}

/// Share of a foreign sentence's words that must have a counterpart; translations of single words are missed now and then.
const ALIGNED_MIN: f32 = 0.7;
/// Least calibrated similarity of a sentence and one of another language that says the same.
const SIMILAR_MIN: f32 = 0.6;

/// Support by words, in the passages' language or across, and whether a name or a negation speaks against it.
async fn weigh(
    text: &str,
    cited: &[&Carrier<'_>],
    embedder: Option<&Arc<dyn Embedder>>,
) -> Result<(f32, Option<String>), DraftError> {
    let spoken = detect_language(text);
    let is_foreign = |carrier: &Carrier| matches!((spoken, carrier.language.as_deref()), (Some(a), Some(b)) if a != b);
    let foreign: Vec<&Carrier> = cited.iter().copied().filter(|carrier| is_foreign(carrier)).collect();
    let mut by_language: HashMap<Option<&str>, Vec<&Carrier>> = HashMap::new();
    // Whatever language a short sentence is taken for: one that is made of the passage's words is in the passage's language.
    for carrier in cited.iter().copied() {
        by_language.entry(carrier.language.as_deref()).or_default().push(carrier);
    }
    let mut best: Option<(f32, bool)> = None;
    for (language, group) in &by_language {
        let judged = coverage(&Stems::new(language.or(spoken)), text, group);
        best = best.max_by_support(judged);
    }
    if let Some((support, names)) = best.filter(|(support, _)| *support >= 0.5 || foreign.is_empty()) {
        if contradicts(text, cited) {
            return Ok((0.0, Some("it denies what the passage says, or affirms what it denies".to_owned())));
        }
        return Ok((support, (!names).then(unknown_name)));
    }
    let Some(embedder) = embedder.filter(|embedder| embedder.calibration().understands_meaning) else {
        return Ok((best.map_or(0.0, |(support, _)| support), None));
    };
    let (aligned, names) = translated(text, spoken, &foreign, embedder).await?;
    if aligned < ALIGNED_MIN || similarity(text, &foreign, embedder).await? < SIMILAR_MIN {
        return Ok((0.0, Some("the passages of the other language do not say so".to_owned())));
    }
    // What is missing up to here is put down to the translation.
    Ok((1.0, (!names).then(unknown_name)))
}

fn unknown_name() -> String {
    "it names something that is not in the passages".to_owned()
}

trait MaxBySupport {
    fn max_by_support(self, other: (f32, bool)) -> Self;
}

impl MaxBySupport for Option<(f32, bool)> {
    fn max_by_support(self, other: (f32, bool)) -> Self {
        match self {
            Some(best) if best.0 >= other.0 => Some(best),
            _ => Some(other),
        }
    }
}

/// Share of the sentence's content words that stand in the passages, and whether all its names do. A sentence of fillers only is
/// judged by those.
fn coverage(stems: &Stems, text: &str, cited: &[&Carrier]) -> (f32, bool) {
    let held = |stem: &String| {
        let concept = stems.concept(stem);
        cited.iter().any(|carrier| {
            carrier.stems.contains(stem) || concept.is_some_and(|concept| carrier.concepts.contains(&concept))
        })
    };
    let mut content: Vec<(String, String)> = stems.content_words(text);
    content.retain(|(_, word)| !says_nothing(word));
    if content.is_empty() {
        content = stems.all(text).into_iter().map(|stem| (stem, String::new())).collect();
    }
    let names = names(text);
    let all_names = content.iter().filter(|(_, word)| names.contains(word)).all(|(stem, _)| held(stem));
    let count = content.iter().filter(|(stem, _)| held(stem)).count();
    (count as f32 / content.len().max(1) as f32, all_names)
}

/// As [`coverage`], across languages.
async fn translated(
    text: &str,
    spoken: Option<&str>,
    cited: &[&Carrier<'_>],
    embedder: &Arc<dyn Embedder>,
) -> Result<(f32, bool), DraftError> {
    let stems = Stems::new(spoken);
    let mut content: Vec<(String, String)> = stems.content_words(text);
    content.retain(|(_, word)| !says_nothing(word));
    let asked: Vec<String> = content.iter().map(|(_, word)| word.clone()).collect();
    let mut given: Vec<String> = cited.iter().flat_map(|carrier| carrier.words.iter().cloned()).collect();
    given.retain(|word| !is_filler(word, None));
    // The order of a set is not the same twice; which words are compared must be.
    given.sort();
    let found = align(Some(embedder), &asked, &given).await?;
    let held = |(stem, word): &(String, String)| {
        let concept = stems.concept(stem);
        let is_there = |carrier: &Carrier| {
            carrier.words.contains(word) || concept.is_some_and(|concept| carrier.concepts.contains(&concept))
        };
        cited.iter().any(|carrier| is_there(carrier)) || found.get(word).is_some_and(|words| !words.is_empty())
    };
    let names = names(text);
    // German writes every noun with a capital: there each noun must be found, which may ask too much, but invents no country.
    let all_names = content.iter().filter(|(_, word)| names.contains(word)).all(held);
    let count = content.iter().filter(|pair| held(pair)).count();
    Ok((count as f32 / content.len().max(1) as f32, all_names))
}

/// Folded words that are written with a capital and do not begin the text.
fn names(text: &str) -> HashSet<String> {
    let capital = |word: &&str| word.chars().find(|c| c.is_alphabetic()).is_some_and(char::is_uppercase);
    text.split_whitespace().skip(1).filter(capital).flat_map(words).collect()
}

async fn similarity(text: &str, cited: &[&Carrier<'_>], embedder: &Arc<dyn Embedder>) -> Result<f32, DraftError> {
    let mut texts = vec![text.to_owned()];
    texts.extend(cited.iter().flat_map(|carrier| split(&carrier.passage.text)).map(str::to_owned).take(64));
    let vectors = embedder.embed(&texts, Purpose::Passage).await?;
    let Some((first, others)) = vectors.split_first() else { return Ok(0.0) };
    let dot = |other: &Vec<f32>| first.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
    let cosine = others.iter().map(dot).fold(0.0, f32::max);
    Ok(embedder.calibration().fit(cosine))
}

/// The cited passage that shares most words with the sentence.
fn nearest(text: &str, cited: &[&Carrier]) -> Option<String> {
    let score =
        |carrier: &Carrier| (coverage(&Stems::new(carrier.language.as_deref()), text, &[carrier]).0 * 1_000.0) as u32;
    // max_by_key takes the last of equals; the first is the better passage.
    cited.iter().rev().max_by_key(|carrier| score(carrier)).map(|carrier| carrier.passage.id.clone())
}

/// Whether the passage sentence that shares most words with `text` (at least half of them) has the other polarity.
fn contradicts(text: &str, cited: &[&Carrier]) -> bool {
    let negated = is_negated(text);
    let mut best: Option<(usize, bool)> = None;
    for carrier in cited {
        let content: HashSet<String> = Stems::new(carrier.language.as_deref()).content(text).into_iter().collect();
        for Line { stems, is_negated: passage_negated, .. } in &carrier.sentences {
            let shared = content.intersection(stems).count();
            if shared * 2 < content.len() || shared < 2 {
                continue;
            }
            // Of equals, one that agrees counts.
            let better = best.is_none_or(|(top, _)| shared > top);
            let agrees = best.is_some_and(|(top, other)| shared == top && other != negated);
            if better || agrees {
                best = Some((shared, *passage_negated));
            }
        }
    }
    best.is_some_and(|(_, passage_negated)| passage_negated != negated)
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
