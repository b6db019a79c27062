//! Answering without a model: the best passage's own words, or nothing.
//!
//! An entry of a FAQ is given whole, because its answer was written for this; one that begins with yes or no only when its
//! question speaks of exactly what was asked. Of prose, the run of one to three neighbouring sentences that covers most of
//! the question is quoted. The answerer declines when the best passage's score is below the setting, and when no quotation
//! holds most of the question's topic words: being about parcels does not answer what a parcel costs. Nor is a passage
//! quoted that names a thing in passing: when it lacks a word of the question, its heading must have one, and a FAQ's entry
//! must ask about what was asked (an address is not what the entry about the newsletter is about, though it says "address").
//! Every sentence given is a sentence of the passage, so nothing can be unsupported; only Markdown's marks are taken off,
//! because Messenger shows them as they are.

use std::collections::HashMap;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::evidence::confidence;
use super::sentences::split;
use super::{CitedSentence, Declined, DraftError, DraftOutcome, DraftRequest, Drafted, Drafter, Evidence, PassageRef};
use crate::knowledge::terms::{Stems, words};
use crate::knowledge::{detect_language, focus};

/// Sentences in one quotation of prose.
const SENTENCES_MAX: usize = 3;
/// Share of the question's topic words that a quotation must hold, with its heading.
const COVERAGE_MIN: f32 = 0.6;
/// Share that one of its sentences must hold, with its heading.
const SINGLE_COVERAGE_MIN: f32 = 0.5;
/// Share that the question of a FAQ's entry must hold by itself.
const ENTRY_COVERAGE_MIN: f32 = 0.33;
/// A further sentence joins the quotation when it adds more than this share of the question's words.
const GAIN_MIN: f32 = 0.15;
/// Passages that are looked at; the others fit worse than all of these.
const PASSAGES_MAX: usize = 5;
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
    /// Share of the topic words in what the passage says it is about: its heading, or its curated question.
    about: f32,
}

impl Extractive {
    pub fn new(score_min: f32) -> Self {
        Self { score_min }
    }

    /// The draft for a request. Pure: same request, same answer.
    pub fn answer(&self, request: &DraftRequest) -> DraftOutcome {
        let fitting = request.passages.iter().filter(|passage| passage.score >= self.score_min).take(PASSAGES_MAX);
        let quotations: Vec<Quotation> = fitting.filter_map(|passage| quote(request, passage)).collect();
        // max_by takes the last of equals, retrieval put the best first.
        let value = |q: &Quotation| q.passage.score + 0.5 * q.coverage + 0.5 * q.about;
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
            _ => "no passage speaks of just what was asked and fits into the allowed length".to_owned(),
        };
        let (model, prompt) = (MODEL.to_owned(), String::new());
        Declined { reason, model, prompt_tokens: 0, completion_tokens: 0, prompt, cut: Vec::new() }
    }
}

/// The part of a passage to quote; `None` when no part of it speaks of what was asked, or fits into the allowed length.
fn quote<'a>(request: &DraftRequest, passage: &'a PassageRef) -> Option<Quotation<'a>> {
    let topic = Topic::new(request, passage);
    let fits = |sentences: &[&str]| {
        let length: usize = sentences.iter().map(|s| s.chars().count() + 1).sum();
        request.max_characters == 0 || length <= request.max_characters + 1
    };
    let all: Vec<&str> = split(&passage.text).into_iter().filter(|sentence| !is_markup(sentence)).collect();
    let about = topic.coverage(&[passage.question.as_deref().unwrap_or(&passage.title)], &[]);
    let quotation = match &passage.question {
        Some(question) => {
            let coverage = topic.coverage(&[question.as_str(), passage.title.as_str()], &all);
            let speaks = match is_polar(&passage.text) {
                true => topic.equals(question),
                false => coverage >= COVERAGE_MIN && about >= ENTRY_COVERAGE_MIN,
            };
            (fits(&all) && !all.is_empty() && (speaks || topic.is_foreign)).then_some(Quotation {
                passage,
                sentences: all,
                coverage,
                about,
            })
        }
        None => best_run(&topic, passage, &all, &fits, about),
    };
    quotation.filter(|quotation| {
        let is_anchored = quotation.coverage >= 1.0 || about > 0.0;
        topic.is_foreign || (quotation.coverage >= COVERAGE_MIN && is_anchored)
    })
}

/// The run of one to three neighbouring sentences that covers most of the question. Words must not only stand somewhere
/// in the run: one of its sentences has to carry most of them, or the run speaks of several things and of none as asked.
fn best_run<'a>(
    topic: &Topic,
    passage: &'a PassageRef,
    all: &[&'a str],
    fits: &dyn Fn(&[&str]) -> bool,
    about: f32,
) -> Option<Quotation<'a>> {
    let header = table_header(&passage.text).join(" ");
    let context = [passage.title.as_str(), header.as_str()];
    let mut best: Option<(f32, Quotation)> = None;
    // A short passage is one thought, and is given whole.
    let whole = all.len() <= SENTENCES_MAX && header.is_empty() && fits(all);
    for start in 0..all.len() {
        for length in 1..=SENTENCES_MAX.min(all.len() - start) {
            if whole && length < all.len() {
                continue;
            }
            let run = all.get(start..start + length).unwrap_or_default();
            if !fits(run) {
                break;
            }
            // "Our prices:" promises what the next line says.
            if run.last().is_some_and(|last| last.trim_end().ends_with(':')) {
                continue;
            }
            let single = run.iter().map(|sentence| topic.coverage(&context, &[sentence])).fold(0.0, f32::max);
            let own = run.iter().map(|sentence| topic.coverage(&[], &[sentence])).fold(0.0, f32::max);
            if single < SINGLE_COVERAGE_MIN && !topic.is_foreign {
                continue;
            }
            let coverage = topic.coverage(&context, run);
            // A longer run must earn its length, and what the sentence itself says counts beside its heading.
            let value = coverage + 0.5 * single + 0.5 * own - GAIN_MIN * length as f32;
            if best.as_ref().is_none_or(|(top, _)| value > *top) {
                best = Some((value, Quotation { passage, sentences: run.to_vec(), coverage, about }));
            }
        }
    }
    best.map(|(_, quotation)| quotation)
}

/// The words of the question that carry its topic.
struct Topic {
    stems: Stems,
    /// Stem and folded word.
    wanted: Vec<(String, String)>,
    /// The passage is in another language than the question: words cannot be compared, only the score speaks.
    is_foreign: bool,
}

impl Topic {
    fn new(request: &DraftRequest, passage: &PassageRef) -> Self {
        let asked = detect_language(&request.question);
        let is_foreign = matches!((asked, passage.language.as_deref()), (Some(a), Some(b)) if a != b);
        let stems = Stems::new(passage.language.as_deref().or(request.language.as_deref()));
        let wanted = stems.content_words(&focus(&request.question));
        Self { stems, wanted, is_foreign }
    }

    /// Share of the topic words that the texts hold.
    fn coverage(&self, more: &[&str], sentences: &[&str]) -> f32 {
        let mut held: HashMap<String, Vec<String>> = HashMap::new();
        for word in more.iter().chain(sentences).flat_map(|text| words(text)) {
            held.entry(self.stems.stem(&word)).or_default().push(word);
        }
        let holds = |(stem, word): &&(String, String)| {
            held.get(stem).is_some_and(|forms| forms.iter().any(|form| is_same_word(word, form)))
        };
        self.wanted.iter().filter(holds).count() as f32 / self.wanted.len().max(1) as f32
    }

    /// Whether a curated question speaks of the same things, no more and no less. A "yes" or "no" is only an answer to the
    /// very question that it was written for.
    fn equals(&self, question: &str) -> bool {
        let theirs = Self { stems: self.stems.again(), wanted: self.stems.content_words(question), is_foreign: false };
        let ours: Vec<&str> = self.wanted.iter().map(|(_, word)| word.as_str()).collect();
        !ours.is_empty() && self.coverage(&[question], &[]) >= 1.0 && theirs.coverage(&[&ours.join(" ")], &[]) >= 1.0
    }
}

/// Whether two words of one stem are one word. Stemmers make `france` and `francs` one; no language inflects so.
fn is_same_word(a: &str, b: &str) -> bool {
    let common = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let rests = (a.get(common..).unwrap_or_default(), b.get(common..).unwrap_or_default());
    !matches!(rests, ("e", "s") | ("s", "e"))
}

/// Whether an answer begins with yes or no.
fn is_polar(answer: &str) -> bool {
    const POLAR: [&str; 10] = ["yes", "no", "ja", "nein", "si", "oui", "non", "sim", "nao", "nee"];
    words(answer).first().is_some_and(|word| POLAR.contains(&word.as_str()))
}

/// Lines that are headings or table rules: structure, not words to send.
fn is_markup(sentence: &str) -> bool {
    sentence.starts_with('#') || !sentence.chars().any(char::is_alphanumeric)
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
        None => joined(&quotation.sentences, &plain),
    };
    let (model, prompt) = (MODEL.to_owned(), String::new());
    Drafted { text, sentences, evidence, model, prompt_tokens: 0, completion_tokens: 0, prompt, cut: Vec::new() }
}

/// Sentences in a row, items of lists and tables on lines of their own.
fn joined(sentences: &[&str], plain: &[String]) -> String {
    let mut text = String::new();
    for (sentence, plain) in sentences.iter().zip(plain) {
        if !text.is_empty() {
            let is_item = sentence.starts_with('|') || without_marker(sentence) != *sentence;
            text.push(if is_item { '\n' } else { ' ' });
        }
        text.push_str(plain);
    }
    text
}

/// A list's item without its bullet or number.
fn without_marker(line: &str) -> &str {
    if let Some(item) = ["- ", "* ", "+ "].iter().find_map(|mark| line.strip_prefix(mark)) {
        return item.trim_start();
    }
    match line.split_once(". ") {
        Some((number, item)) if (1..=2).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit()) => {
            item.trim_start()
        }
        _ => line,
    }
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
    let line = without_marker(line.trim_start_matches("> ")).replace("**", "").replace("__", "").replace('`', "");
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

    fn asks_a_model(&self) -> bool {
        false
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

    fn faq(question: &str, text: &str) -> PassageRef {
        PassageRef { question: Some(question.to_owned()), ..prose(text, 0.9) }
    }

    #[test]
    fn a_yes_or_no_answers_only_its_own_question() {
        let swiss = || faq("Do you ship to Switzerland?", "Yes. A parcel to Switzerland costs 14.90 francs.");
        assert!(matches!(answer("do u ship to switzerland", vec![swiss()], 0), DraftOutcome::Drafted(_)));
        for question in ["do u ship to france", "Do you ship to Switzerland and Norway?", "Do you ship?"] {
            assert!(matches!(answer(question, vec![swiss()], 0), DraftOutcome::Declined(_)), "{question}");
        }
    }

    #[test]
    fn words_scattered_over_a_passage_do_not_make_an_answer() {
        let returns = prose("Put the label on the parcel. Hand it in. Returns from Austria and Germany are free.", 0.9);
        let asked = answer("How much does a parcel to Germany cost?", vec![returns], 0);
        assert!(matches!(asked, DraftOutcome::Declined(_)), "{asked:?}");
        let table = "| Country | Parcel |\n|---|---|\n| Austria | 4.90 euros |\n| Germany | 6.90 euros |";
        let prices = PassageRef { title: "Shipping: what a parcel costs".to_owned(), ..prose(table, 0.9) };
        let asked = answer("How much does a parcel to Germany cost?", vec![prices], 0);
        assert_eq!(text(asked), "Country: Germany, Parcel: 6.90 euros");
    }

    #[test]
    fn a_passage_about_something_else_is_not_quoted_for_a_word_in_passing() {
        let newsletter =
            faq("How do I subscribe to the newsletter?", "Enter your address at the bottom of our website.");
        let asked = answer("What is your address?", vec![newsletter], 0);
        assert!(matches!(asked, DraftOutcome::Declined(_)), "{asked:?}");
        let titled = |title: &str, text: &str| PassageRef { title: title.to_owned(), ..prose(text, 0.9) };
        let job = || titled("Contact > Jobs", "We are looking for a bicycle mechanic for 30 hours a week.");
        let asked = answer("What is the salary of a bicycle mechanic?", vec![job()], 0);
        assert!(matches!(asked, DraftOutcome::Declined(_)), "{asked:?}");
        // Of two that hold the words, the one whose heading does is about them.
        let pick_up = titled("Shipping > Pick-up", "Your order is ready within two hours during opening hours.");
        let hours = PassageRef { score: 0.85, ..titled("Opening hours > Shop", "Saturday: 9:00 to 13:00.") };
        assert_eq!(text(answer("What are your opening hours?", vec![pick_up, hours], 0)), "Saturday: 9:00 to 13:00.");
    }

    #[test]
    fn lists_keep_their_lines_and_lose_their_marks() {
        let hours = prose("Opening hours on Saturday:\n\n- Saturday: 9:00 to 13:00\n- Sunday: closed", 0.9);
        let said = text(answer("What are your opening hours on Saturday?", vec![hours], 0));
        assert!(said.contains("\nSaturday: 9:00 to 13:00"), "{said:?}");
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
        let table = "| Tea | 100 g |\n|---|---|\n| Sencha | 12.50 EUR |\n| Assam | 9 EUR |";
        let table = PassageRef { title: "Prices".to_owned(), ..prose(table, 0.9) };
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
