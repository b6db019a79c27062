//! Answering without a model: the best passage's own words, or nothing.
//!
//! An entry of a FAQ is given whole, because its answer was written for this, and so is a passage of at most three
//! sentences. Of longer prose, the run of one to three neighbouring sentences that covers most of the question is quoted.
//! The answerer declines when the best passage's score is below the setting. Every sentence it gives is a sentence of the
//! passage, so nothing can be unsupported; only Markdown's marks are taken off, because Messenger shows them as they are.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::evidence::confidence;
use super::sentences::split;
use super::{CitedSentence, Declined, DraftError, DraftOutcome, DraftRequest, Drafted, Drafter, Evidence, PassageRef};
use crate::knowledge::terms::Stems;

/// Sentences in one quotation of prose.
const SENTENCES_MAX: usize = 3;
/// A further sentence joins the quotation when it adds more than this share of the question's words.
const GAIN_MIN: f32 = 0.15;
/// Passages that are looked at; the others fit worse than all of these.
const PASSAGES_MAX: usize = 5;
/// A passage this much worse than the best is not preferred for its sentences.
const SCORE_SLACK: f32 = 0.1;
const MODEL: &str = "extractive";

/// See the module's documentation.
#[derive(Debug)]
pub struct Extractive {
    score_min: f32,
}

struct Quotation<'a> {
    passage: &'a PassageRef,
    sentences: Vec<&'a str>,
    coverage: f32,
}

impl Extractive {
    pub fn new(score_min: f32) -> Self {
        Self { score_min }
    }

    /// The draft for a request. Pure: same request, same answer.
    pub fn answer(&self, request: &DraftRequest) -> DraftOutcome {
        let fitting = request.passages.iter().filter(|passage| passage.score >= self.score_min).take(PASSAGES_MAX);
        let best = fitting.clone().map(|passage| passage.score).fold(0.0, f32::max);
        let quotations: Vec<Quotation> =
            fitting.filter(|p| p.score >= best - SCORE_SLACK).filter_map(|p| quote(request, p)).collect();
        // max_by takes the last of equals, retrieval put the best first.
        let value = |q: &Quotation| q.passage.score + 0.5 * q.coverage;
        match quotations.into_iter().rev().max_by(|a, b| value(a).total_cmp(&value(b))) {
            Some(quotation) => DraftOutcome::Drafted(drafted(&quotation)),
            None => DraftOutcome::Declined(self.declined(request)),
        }
    }

    fn declined(&self, request: &DraftRequest) -> Declined {
        let best = request.passages.iter().map(|passage| passage.score).fold(0.0, f32::max);
        let reason = match request.passages.len() {
            0 => "no passage was found".to_owned(),
            _ if best < self.score_min => {
                format!("the best passage fits with {best:.2}, at least {:.2} is asked for", self.score_min)
            }
            _ => "no passage fits into the allowed length".to_owned(),
        };
        let (model, prompt) = (MODEL.to_owned(), String::new());
        Declined { reason, model, prompt_tokens: 0, completion_tokens: 0, prompt, cut: Vec::new() }
    }
}

/// The part of a passage to quote; `None` when no part of it fits into the allowed length.
fn quote<'a>(request: &DraftRequest, passage: &'a PassageRef) -> Option<Quotation<'a>> {
    let stems = Stems::new(passage.language.as_deref().or(request.language.as_deref()));
    let wanted = stems.content(&request.question);
    let fits = |sentences: &[&str]| {
        let length: usize = sentences.iter().map(|s| s.chars().count() + 1).sum();
        request.max_characters == 0 || length <= request.max_characters + 1
    };
    let all: Vec<&str> = split(&passage.text).into_iter().filter(|sentence| !is_markup(sentence)).collect();
    if passage.question.is_some() || all.len() <= SENTENCES_MAX && !passage.text.contains("|--") && fits(&all) {
        let question = passage.question.as_deref().unwrap_or_default();
        let coverage = covered(&stems, &wanted, &[question], &all);
        return fits(&all)
            .then_some(Quotation { passage, sentences: all, coverage })
            .filter(|q| !q.sentences.is_empty());
    }
    let mut best: Option<Quotation> = None;
    for start in 0..all.len() {
        for length in 1..=SENTENCES_MAX.min(all.len() - start) {
            let run = all.get(start..start + length).unwrap_or_default();
            if !fits(run) {
                break;
            }
            let coverage = covered(&stems, &wanted, &[], run);
            // A longer run must earn its length, a later one must be better.
            let value = |coverage: f32, length: usize| coverage - GAIN_MIN * length as f32;
            if best.as_ref().is_none_or(|q| value(coverage, length) > value(q.coverage, q.sentences.len())) {
                best = Some(Quotation { passage, sentences: run.to_vec(), coverage });
            }
        }
    }
    best
}

/// Lines that are headings or table rules: structure, not words to send.
fn is_markup(sentence: &str) -> bool {
    sentence.starts_with('#') || !sentence.chars().any(char::is_alphanumeric)
}

/// Share of the question's content words in the texts.
fn covered(stems: &Stems, wanted: &[String], more: &[&str], sentences: &[&str]) -> f32 {
    let held: std::collections::HashSet<String> =
        more.iter().chain(sentences).flat_map(|text| stems.all(text)).collect();
    wanted.iter().filter(|stem| held.contains(*stem)).count() as f32 / wanted.len().max(1) as f32
}

fn drafted(quotation: &Quotation<'_>) -> Drafted {
    let passage = quotation.passage;
    let header = table_header(&passage.text);
    let plain: Vec<String> = quotation.sentences.iter().map(|sentence| plain(sentence, &header)).collect();
    let sentences: Vec<CitedSentence> = plain
        .iter()
        .map(|text| CitedSentence {
            text: text.clone(),
            passage_ids: vec![passage.id.clone()],
            support: 1.0,
            factual: true,
            problem: None,
        })
        .collect();
    let count = u32::try_from(sentences.len()).unwrap_or(u32::MAX);
    let evidence = Evidence { sentences: count, supported: count, best_score: passage.score, confidence: 0.0 };
    let supports = vec![1.0; sentences.len()];
    let evidence = Evidence { confidence: confidence(&evidence, &supports), ..evidence };
    // A FAQ's answer keeps its own lines; a quotation of prose is one paragraph.
    let text = match passage.question {
        Some(_) => passage.text.trim().lines().map(plain_line).collect::<Vec<_>>().join("\n"),
        None => plain.join(" "),
    };
    let (model, prompt) = (MODEL.to_owned(), String::new());
    Drafted { text, sentences, evidence, model, prompt_tokens: 0, completion_tokens: 0, prompt, cut: Vec::new() }
}

/// The cells of the passage's first table row, if it is a table.
fn table_header(text: &str) -> Vec<String> {
    let mut lines = text.lines().map(str::trim).filter(|line| line.starts_with('|'));
    match (lines.next(), lines.next()) {
        (Some(header), Some(rule)) if rule.contains("--") => cells(header),
        _ => Vec::new(),
    }
}

fn cells(row: &str) -> Vec<String> {
    row.trim().trim_matches('|').split('|').map(|cell| plain_line(cell.trim())).collect()
}

/// A sentence as Messenger can show it. A table's row becomes `Tea: Sencha, 100 g: 12.50 EUR`.
fn plain(sentence: &str, header: &[String]) -> String {
    if !sentence.starts_with('|') {
        return plain_line(sentence);
    }
    let pairs = cells(sentence).into_iter().enumerate().filter(|(_, cell)| !cell.is_empty());
    let pairs = pairs.map(|(at, cell)| match header.get(at) {
        Some(name) if !name.is_empty() && *name != cell => format!("{name}: {cell}"),
        _ => cell,
    });
    pairs.collect::<Vec<_>>().join(", ")
}

/// Without emphasis, code marks and quote marks; a link `[text](address)` becomes `text (address)`.
fn plain_line(line: &str) -> String {
    let line = line.trim_start_matches("> ").replace("**", "").replace("__", "").replace('`', "");
    let mut text = String::with_capacity(line.len());
    let mut rest = line.as_str();
    while let Some((before, after)) = rest.split_once('[') {
        let link = after.split_once("](").and_then(|(label, tail)| Some((label, tail.split_once(')')?)));
        match link {
            Some((label, (address, tail))) if !label.contains(['[', ']']) => {
                text.push_str(before);
                text.push_str(label);
                if label != address {
                    text.push_str(&format!(" ({address})"));
                }
                rest = tail;
            }
            _ => {
                text.push_str(before);
                text.push('[');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text.replace("\\", "")
}

impl Drafter for Extractive {
    fn draft<'a>(&'a self, request: &'a DraftRequest) -> BoxFuture<'a, Result<DraftOutcome, DraftError>> {
        async move { Ok(self.answer(request)) }.boxed()
    }

    fn name(&self) -> &str {
        MODEL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prose(text: &str, score: f32) -> PassageRef {
        PassageRef {
            id: "p".to_owned(),
            text: text.to_owned(),
            score,
            language: Some("en".to_owned()),
            ..PassageRef::default()
        }
    }

    fn answer(question: &str, passages: Vec<PassageRef>, max_characters: usize) -> DraftOutcome {
        let request =
            DraftRequest { question: question.to_owned(), passages, max_characters, ..DraftRequest::default() };
        Extractive::new(0.55).answer(&request)
    }

    fn text(outcome: DraftOutcome) -> String {
        match outcome {
            DraftOutcome::Drafted(drafted) => drafted.text,
            DraftOutcome::Declined(declined) => panic!("{}", declined.reason),
        }
    }

    const SHOP: &str = "Our shop is in Graz. We ship to Austria and Germany. Parcels arrive within 3 days. Shipping costs 4.90 EUR. We love cats.";

    #[test]
    fn prose_is_quoted_around_the_best_sentence() {
        for (question, expected) in [
            ("Do you ship to Austria?", "We ship to Austria and Germany."),
            ("Where is your shop?", "Our shop is in Graz."),
            (
                "When do parcels arrive and what does shipping cost?",
                "Parcels arrive within 3 days. Shipping costs 4.90 EUR.",
            ),
        ] {
            assert_eq!(text(answer(question, vec![prose(SHOP, 0.8)], 0)), expected, "{question}");
        }
    }

    #[test]
    fn answers_of_a_faq_are_given_whole() {
        let entry =
            PassageRef { question: Some("Do you ship?".to_owned()), ..prose("Yes.\n\nTo Austria. And Germany.", 0.9) };
        assert_eq!(text(answer("do you ship", vec![entry], 0)), "Yes.\n\nTo Austria. And Germany.");
    }

    #[test]
    fn every_sentence_is_the_passages_own_and_cites_it() {
        let DraftOutcome::Drafted(drafted) = answer("shipping costs", vec![prose(SHOP, 0.8)], 0) else {
            panic!("declined")
        };
        assert!(drafted.sentences.iter().all(|s| SHOP.contains(&s.text) && s.passage_ids == ["p"] && s.support == 1.0));
        assert_eq!(drafted.evidence.sentences, drafted.evidence.supported);
        assert!((drafted.evidence.confidence - 0.9).abs() < 1e-6);
    }

    #[test]
    fn markdown_becomes_plain_text() {
        let table = prose("| Tea | 100 g |\n|---|---|\n| Sencha | 12.50 EUR |\n| Assam | 9 EUR |", 0.9);
        assert_eq!(text(answer("price of sencha", vec![table], 0)), "Tea: Sencha, 100 g: 12.50 EUR");
        let marked = prose("**Returns** go to [our form](https://tea.example/r), see `help`.", 0.9);
        assert_eq!(
            text(answer("returns form", vec![marked], 0)),
            "Returns go to our form (https://tea.example/r), see help."
        );
    }

    #[test]
    fn it_declines_below_the_score_and_beyond_the_length() {
        for outcome in [
            answer("Do you sell cars?", vec![prose(SHOP, 0.54)], 0),
            answer("Do you sell cars?", vec![], 0),
            answer("Do you ship?", vec![prose(SHOP, 0.9)], 5),
        ] {
            assert!(matches!(outcome, DraftOutcome::Declined(_)), "{outcome:?}");
        }
        assert!(matches!(answer("Do you ship to Austria?", vec![prose(SHOP, 0.55)], 0), DraftOutcome::Drafted(_)));
        assert_eq!(
            text(answer("Do you ship to Austria?", vec![prose(SHOP, 0.9)], 31)),
            "We ship to Austria and Germany."
        );
    }
}
