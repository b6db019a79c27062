//! The evidence gate: no factual sentence goes out that its passages do not carry.
//!
//! # Support of one sentence
//! Against the passages it cites (all given ones when it cites none), taken together:
//! - `coverage`: the share of its content words (folded, without fillers, stemmed) that stand in the passages;
//! - every number, date, price, web address and e-mail address of the sentence must stand in a passage: one that does
//!   not makes the support 0;
//! - a sentence that denies what the best matching sentence of the passages affirms (or the other way round) has
//!   support 0.
//!
//! When sentence and passage are in different languages, words cannot be compared: with an embedder the support is the
//! calibrated similarity to the nearest passage, without one it is 0. Numbers and addresses are checked all the same.
//!
//! # Confidence
//! `confidence = (supported / factual) * mean support of the kept factual sentences * (0.5 + 0.5 * best_score)`: cut
//! sentences lower it, weak support lowers it, and passages that fit the question badly lower it by up to half. With no
//! factual sentence kept it is 0.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::sentences::{is_factual, split};
use super::{CitedSentence, DraftError, Evidence, PassageRef};
use crate::knowledge::terms::{Stems, fold, words};
use crate::knowledge::{Embedder, Purpose, detect_language};

/// What the gate demands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvidenceSettings {
    /// Least support of a factual sentence, 0 to 1.
    pub support_min: f32,
}

impl Default for EvidenceSettings {
    fn default() -> Self {
        Self { support_min: 0.6 }
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
    let evidence = tally(&kept, &cut, passages);
    Ok(Gated { kept, cut, evidence })
}

fn tally(kept: &[CitedSentence], cut: &[CitedSentence], passages: &[PassageRef]) -> Evidence {
    let supports: Vec<f32> = kept.iter().filter(|s| s.factual).map(|s| s.support).collect();
    let cited: HashSet<&str> = kept.iter().flat_map(|s| s.passage_ids.iter().map(String::as_str)).collect();
    let best_score = passages.iter().filter(|p| cited.contains(p.id.as_str())).map(|p| p.score).fold(0.0, f32::max);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let factual = supports.len() + cut.len();
    let evidence =
        Evidence { sentences: count(factual), supported: count(supports.len()), best_score, confidence: 0.0 };
    Evidence { confidence: confidence(&evidence, &supports), ..evidence }
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
    exacts: HashSet<String>,
    sentences: Vec<(HashSet<String>, bool)>,
}

impl<'a> Carrier<'a> {
    fn new(passage: &'a PassageRef) -> Self {
        let full = full_text(passage);
        let language = passage.language.clone().or_else(|| detect_language(&full).map(str::to_owned));
        let stems = Stems::new(language.as_deref());
        let sentences = split(&passage.text)
            .into_iter()
            .map(|sentence| (stems.content(sentence).into_iter().collect(), is_negated(sentence)))
            .collect();
        Self {
            passage,
            stems: stems.all(&full).into_iter().collect(),
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
    let (support, problem) = match missing_exact(&text, &cited) {
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

/// Support by words, or by similarity across languages, and whether negation speaks against it.
async fn weigh(
    text: &str,
    cited: &[&Carrier<'_>],
    embedder: Option<&Arc<dyn Embedder>>,
) -> Result<(f32, Option<String>), DraftError> {
    let spoken = detect_language(text);
    let mut best = 0.0_f32;
    let mut foreign = Vec::new();
    let mut by_language: HashMap<Option<&str>, Vec<&Carrier>> = HashMap::new();
    for carrier in cited.iter().copied() {
        by_language.entry(carrier.language.as_deref()).or_default().push(carrier);
        if matches!((spoken, carrier.language.as_deref()), (Some(a), Some(b)) if a != b) {
            foreign.push(carrier);
        }
    }
    for (language, group) in &by_language {
        best = best.max(coverage(&Stems::new(*language), text, group));
    }
    if best < 0.5 && !foreign.is_empty() {
        let Some(embedder) = embedder else { return Ok((best, None)) };
        return Ok((similarity(text, &foreign, embedder).await?.max(best), None));
    }
    let contradicted = best > 0.0 && contradicts(text, cited);
    let problem = contradicted.then(|| "it denies what the passage says, or affirms what it denies".to_owned());
    Ok((if contradicted { 0.0 } else { best }, problem))
}

/// Share of the sentence's content words that stand in the passages. A sentence of fillers only is judged by those.
fn coverage(stems: &Stems, text: &str, cited: &[&Carrier]) -> f32 {
    let mut content = stems.content(text);
    if content.is_empty() {
        content = stems.all(text);
    }
    let held = content.iter().filter(|stem| cited.iter().any(|carrier| carrier.stems.contains(*stem))).count();
    held as f32 / content.len().max(1) as f32
}

async fn similarity(text: &str, cited: &[&Carrier<'_>], embedder: &Arc<dyn Embedder>) -> Result<f32, DraftError> {
    // Words are all that a hashing embedder compares; across languages it has nothing to say.
    if !embedder.calibration().understands_meaning {
        return Ok(0.0);
    }
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
        |carrier: &Carrier| (coverage(&Stems::new(carrier.language.as_deref()), text, &[carrier]) * 1_000.0) as u32;
    // max_by_key takes the last of equals; the first is the better passage.
    cited.iter().rev().max_by_key(|carrier| score(carrier)).map(|carrier| carrier.passage.id.clone())
}

/// Whether the passage sentence that shares most words with `text` (at least half of them) has the other polarity.
fn contradicts(text: &str, cited: &[&Carrier]) -> bool {
    let negated = is_negated(text);
    let mut best: Option<(usize, bool)> = None;
    for carrier in cited {
        let content: HashSet<String> = Stems::new(carrier.language.as_deref()).content(text).into_iter().collect();
        for (stems, passage_negated) in &carrier.sentences {
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

/// Words that deny, folded as [`words`] folds them, of the languages whose fillers are known.
const NEGATIONS: &[&str] = &[
    "not",
    "no",
    "never",
    "cannot",
    "cant",
    "dont",
    "doesnt",
    "didnt",
    "wont",
    "isnt",
    "arent",
    "wasnt",
    "couldnt",
    "shouldnt",
    "without",
    "neither",
    "nor",
    "unfortunately",
    "unable",
    "impossible",
    "nicht",
    "kein",
    "keine",
    "keinen",
    "keinem",
    "keiner",
    "keines",
    "nie",
    "niemals",
    "ohne",
    "leider",
    "weder",
    "nunca",
    "jamas",
    "sin",
    "tampoco",
    "pas",
    "jamais",
    "aucun",
    "aucune",
    "sans",
    "ni",
    "non",
    "mai",
    "nessun",
    "nessuna",
    "senza",
    "nao",
    "nem",
    "nenhum",
    "nenhuma",
    "sem",
    "niet",
    "geen",
    "nooit",
    "zonder",
];

fn is_negated(text: &str) -> bool {
    words(text).iter().any(|word| NEGATIONS.contains(&word.as_str()))
}

/// Numbers and addresses in a comparable form: `4,90 €` and `4.90 EUR` give `4.9`; `1.000` gives `1000`.
fn exacts(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for token in
        text.split(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | '<' | '>' | '"' | '|' | '*' | '[' | ']'))
    {
        let token = token.trim_matches(|c: char| !c.is_alphanumeric());
        if let Some(address) = address(token) {
            found.push(address);
            continue;
        }
        let digits = |c: char| c.is_numeric() || matches!(c, '.' | ',' | '\'' | '’');
        found.extend(token.split(|c: char| !digits(c)).filter_map(number));
    }
    found
}

/// A web or mail address without scheme, `www.` and final slash, in lower case.
fn address(token: &str) -> Option<String> {
    let lower = fold(token);
    let is_mail = lower.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'));
    let bare = lower.split_once("://").map_or(lower.as_str(), |(_, rest)| rest);
    let bare = bare.strip_prefix("www.").unwrap_or(bare).trim_end_matches('/');
    let had_scheme = lower.contains("://") || lower.starts_with("www.");
    let host = bare.split(['/', '?', '#']).next().unwrap_or_default();
    let is_host = host.rsplit_once('.').is_some_and(|(name, top)| {
        let letters = |part: &str| part.len() >= 2 && part.chars().all(|c| c.is_ascii_alphabetic());
        letters(top) && name.chars().any(char::is_alphabetic) && name.chars().count() >= 2
    });
    (is_mail || had_scheme || is_host).then(|| bare.to_owned())
}

/// A number without grouping, with a dot, without trailing zeros: `1.000,50` and `1,000.5` are the same.
fn number(token: &str) -> Option<String> {
    let token = token.trim_matches(['.', ',', '\'', '’']);
    if !token.chars().any(char::is_numeric) {
        return None;
    }
    let plain: String = token.chars().filter(|c| !matches!(c, '\'' | '’')).collect();
    let last = plain.rfind(['.', ',']);
    let (whole, fraction) = match last.map(|at| (plain.get(..at), plain.get(at + 1..))) {
        // Three digits after a single kind of separator group thousands; anything else is a fraction.
        Some((Some(whole), Some(fraction))) if fraction.chars().count() != 3 || mixed(&plain) => (whole, fraction),
        _ => (plain.as_str(), ""),
    };
    let whole: String = whole.chars().filter(|c| c.is_numeric()).collect();
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") })
}

fn mixed(number: &str) -> bool {
    number.contains('.') && number.contains(',')
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
