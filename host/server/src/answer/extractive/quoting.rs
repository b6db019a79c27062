//! Which part of a passage answers a question.

use super::plain::{is_item, is_markup, table_header};
use super::topic::Topic;
use super::{DraftRequest, PassageRef};
use crate::answer::evidence::is_negated;
use crate::answer::sentences::split;
use crate::knowledge::terms::words;

/// Sentences in one quotation of prose.
const SENTENCES_MAX: usize = 3;
/// Lines of a list or table that is given whole.
const LINES_MAX: usize = 10;
/// Share of the question's topic words that a quotation must hold, with its heading.
const COVERAGE_MIN: f32 = 0.6;
/// Share that one of its sentences must hold, with its heading.
const SINGLE_COVERAGE_MIN: f32 = 0.5;
/// Share that the question of a FAQ's entry must hold by itself.
const ENTRY_COVERAGE_MIN: f32 = 0.33;
/// A further sentence joins the quotation when it adds more than this share of the question's words.
const GAIN_MIN: f32 = 0.15;

/// A part of a passage, word for word.
pub(super) struct Quotation<'a> {
    pub passage: &'a PassageRef,
    pub sentences: Vec<&'a str>,
    pub coverage: f32,
    /// Share of the topic words in what the passage says it is about: its heading, or its curated question.
    pub about: f32,
    /// How much what it is about echoes the question's words.
    pub echo: f32,
    /// It is in another language than the question.
    pub is_foreign: bool,
    /// To be said before it: without "What is not covered" its lines would say the opposite.
    pub heading: Option<&'a str>,
}

impl<'a> Quotation<'a> {
    fn of(passage: &'a PassageRef, sentences: Vec<&'a str>, coverage: f32, about: f32) -> Self {
        Self { passage, sentences, coverage, about, echo: 0.0, is_foreign: false, heading: None }
    }
}

/// The part of a passage to quote; `None` when no part of it speaks of what was asked, or fits into the allowed length.
pub(super) fn quote<'a>(request: &DraftRequest, passage: &'a PassageRef, topic: &Topic) -> Option<Quotation<'a>> {
    let denying = innermost(&passage.title).filter(|inner| is_negated(inner) && passage.question.is_none());
    let fits = |sentences: &[&str]| {
        let spoken = sentences.iter().copied().chain(denying);
        let length: usize = spoken.map(|s| s.chars().count() + 1).sum();
        request.max_characters == 0 || length <= request.max_characters + 1
    };
    let all: Vec<&str> = split(&passage.text).into_iter().filter(|sentence| !is_markup(sentence)).collect();
    let heading = heading_of(&passage.title);
    let about = topic.about(passage.question.as_deref().unwrap_or(&heading));
    if topic.is_another_dealing(passage.question.as_deref().unwrap_or(&heading)) {
        return None;
    }
    let header = table_header(&passage.text).join(" ");
    let texts = [passage.question.as_deref().unwrap_or_default(), heading.as_str(), header.as_str()];
    let accepts = |sentences: &[&str], coverage: f32| {
        // One concept may be met in passing, by another of its names: then only the heading says what the passage is about.
        let is_anchored =
            about > 0.0 || (coverage >= 1.0 && topic.says_enough(sentences) && topic.is_met_word_for_word(sentences));
        coverage >= COVERAGE_MIN
            && is_anchored
            && topic.is_of_the_kind(sentences)
            && topic.holds_essentials(&texts, sentences)
            && topic.says_what_is_new(&texts, sentences)
    };
    let quotation = match &passage.question {
        Some(question) => {
            let coverage = topic.coverage(&[question.as_str(), heading.as_str()], &all);
            let speaks = match is_polar(&passage.text) {
                true => topic.equals(question, &all),
                false => coverage >= COVERAGE_MIN && about >= ENTRY_COVERAGE_MIN,
            };
            (fits(&all) && !all.is_empty() && speaks).then_some(Quotation::of(passage, all, coverage, about))
        }
        None => whole_list(topic, passage, &all, &fits, about)
            .or_else(|| best_run(topic, passage, &all, &|run, coverage| fits(run) && accepts(run, coverage), about)),
    };
    let quotation = quotation.filter(|quotation| accepts(&quotation.sentences, quotation.coverage));
    let echo = topic.echo(passage.question.as_deref().or(innermost(&passage.title)).unwrap_or_default());
    quotation.map(|quotation| Quotation { is_foreign: topic.is_foreign, heading: denying, echo, ..quotation })
}

/// The heading right above a passage.
fn innermost(title: &str) -> Option<&str> {
    title.split(": ").flat_map(|part| part.split(" > ")).last().map(str::trim)
}

/// A list or table under a heading that is what was asked about, unless one of its lines says more of the question itself.
fn whole_list<'a>(
    topic: &Topic,
    passage: &'a PassageRef,
    all: &[&'a str],
    fits: &dyn Fn(&[&str]) -> bool,
    about: f32,
) -> Option<Quotation<'a>> {
    let lines: Vec<&str> = all.iter().copied().filter(|line| is_item(line)).collect();
    let header = table_header(&passage.text);
    let lines: Vec<&str> = lines.into_iter().skip(usize::from(!header.is_empty())).collect();
    let says: Vec<f32> = lines.iter().map(|line| topic.coverage(&[], &[line])).collect();
    let one_says_more = says.iter().any(|one| *one > says.iter().copied().fold(f32::INFINITY, f32::min));
    // Where something is, no list says: it would be found for the thing alone.
    let is_whole = !topic.asks.place
        && (2..=LINES_MAX).contains(&lines.len())
        && about >= COVERAGE_MIN
        && !one_says_more
        && fits(&lines);
    is_whole.then_some(Quotation::of(passage, lines, about, about))
}

/// Words that join several topics in one heading, folded.
const JOINTS: &[&str] = &["and", "und", "y", "e", "et", "en", "or", "oder", "o", "ou"];

/// What a passage's title and path of headings say of this very passage. Under "Shipping and returns", the part "Returns" is
/// not about shipping, nor is the part "Opening hours": an outer heading that names several things says of none of its parts
/// which it is about.
pub(super) fn heading_of(title: &str) -> String {
    let parts: Vec<&str> = title.split(": ").flat_map(|part| part.split(" > ")).collect();
    let Some((inner, outer)) = parts.split_last() else { return String::new() };
    let names_one = |part: &&str| {
        !part.contains(['&', ',', '/']) && !words(part).iter().any(|word| JOINTS.contains(&word.as_str()))
    };
    let mut kept: Vec<&str> = outer.iter().copied().filter(names_one).collect();
    kept.push(inner);
    kept.join(": ")
}

/// The run of one to three neighbouring sentences that covers most of the question. Words must not only stand somewhere
/// in the run: one of its sentences has to carry most of them, or the run speaks of several things and of none as asked.
fn best_run<'a>(
    topic: &Topic,
    passage: &'a PassageRef,
    all: &[&'a str],
    accepts: &dyn Fn(&[&str], f32) -> bool,
    about: f32,
) -> Option<Quotation<'a>> {
    let header = table_header(&passage.text).join(" ");
    let heading = heading_of(&passage.title);
    let context = [heading.as_str(), header.as_str()];
    let mut best: Option<(f32, f32, std::ops::Range<usize>)> = None;
    // A short passage is one thought, and is given whole; a list's lines are as many.
    let is_list = all.len() > 1 && all.iter().all(|line| is_item(line));
    let is_elsewhere = all.iter().any(|sentence| topic.is_elsewhere(sentence));
    let whole = all.len() <= SENTENCES_MAX
        && header.is_empty()
        && !is_list
        && !is_elsewhere
        && accepts(all, topic.coverage(&context, all));
    for start in 0..all.len() {
        for length in 1..=SENTENCES_MAX.min(all.len() - start) {
            if whole && length < all.len() {
                continue;
            }
            let run = all.get(start..start + length).unwrap_or_default();
            // What holds for another country or day leads up to the answer at most.
            if is_elsewhere && run.last().is_some_and(|last| topic.is_elsewhere(last)) {
                continue;
            }
            // "Our prices:" promises what the next line says.
            if run.last().is_some_and(|last| last.trim_end().ends_with(':')) {
                continue;
            }
            let single = run.iter().map(|sentence| topic.coverage(&context, &[sentence])).fold(0.0, f32::max);
            let own = run.iter().map(|sentence| topic.coverage(&[], &[sentence])).fold(0.0, f32::max);
            if single < SINGLE_COVERAGE_MIN {
                continue;
            }
            let coverage = topic.coverage(&context, run);
            // A longer run must earn its length, and what the sentence itself says counts beside its heading.
            // Of two runs that hold the same, the one whose every sentence speaks of it.
            let each: f32 = run.iter().map(|sentence| topic.coverage(&[], &[sentence])).sum::<f32>() / length as f32;
            let value = coverage + 0.5 * single + 0.5 * own + 0.5 * each - GAIN_MIN * length as f32;
            if best.as_ref().is_none_or(|(top, ..)| value > *top) && accepts(run, coverage) {
                best = Some((value, coverage, start..start + length));
            }
        }
    }
    let (_, coverage, run) = best?;
    let run = if topic.is_general() {
        widened(topic, all, run, &context, &|run| accepts(run, topic.coverage(&context, run)))
    } else {
        run
    };
    let sentences = beside(topic, all, run, &context, accepts);
    Some(Quotation::of(passage, sentences, coverage, about))
}

/// The run with those other sentences that answer a question for a price or a time as well as it does, each by itself: where a parcel
/// and a bicycle have prices of their own, the price of one is half an answer to what shipping costs.
fn beside<'a>(
    topic: &Topic,
    all: &[&'a str],
    run: std::ops::Range<usize>,
    context: &[&str],
    accepts: &dyn Fn(&[&str], f32) -> bool,
) -> Vec<&'a str> {
    let quoted = all.get(run.clone()).unwrap_or_default();
    let asks = topic.asks.amount || topic.asks.duration;
    let least = quoted.iter().map(|sentence| topic.coverage(context, &[sentence])).fold(0.0, f32::max);
    let answers = |at: usize, sentence: &str| {
        asks && !run.contains(&at)
            && !sentence.trim_end().ends_with(':')
            && !topic.is_elsewhere(sentence)
            && topic.coverage(context, &[sentence]) >= least
            && topic.coverage(&[], &[sentence]) > 0.0
            && accepts(&[sentence], least)
    };
    let others: Vec<usize> = all.iter().enumerate().filter(|(at, one)| answers(*at, one)).map(|(at, _)| at).collect();
    let room = SENTENCES_MAX.saturating_sub(quoted.len());
    let mut places: Vec<usize> = run.clone().chain(others.into_iter().take(room)).collect();
    places.sort_unstable();
    let sentences: Vec<&str> = places.into_iter().filter_map(|at| all.get(at).copied()).collect();
    if accepts(&sentences, topic.coverage(context, &sentences)) { sentences } else { quoted.to_vec() }
}

/// The run with neighbours that answer as well as it does, when nothing says which of them is meant.
fn widened(
    topic: &Topic,
    all: &[&str],
    run: std::ops::Range<usize>,
    context: &[&str],
    fits: &dyn Fn(&[&str]) -> bool,
) -> std::ops::Range<usize> {
    let answers = |at: usize| {
        all.get(at).is_some_and(|sentence| {
            topic.is_of_the_kind(&[sentence]) && topic.coverage(context, &[sentence]) >= COVERAGE_MIN
        })
    };
    let mut run = run;
    loop {
        let before = run.start.checked_sub(1).filter(|at| answers(*at)).map(|at| at..run.end);
        let wider = before.or_else(|| answers(run.end).then(|| run.start..run.end + 1));
        match wider.filter(|wider| wider.len() <= SENTENCES_MAX && all.get(wider.clone()).is_some_and(fits)) {
            Some(wider) => run = wider,
            None => return run,
        }
    }
}

/// Whether an answer begins with yes or no.
fn is_polar(answer: &str) -> bool {
    const POLAR: [&str; 10] = ["yes", "no", "ja", "nein", "si", "oui", "non", "sim", "nao", "nee"];
    words(answer).first().is_some_and(|word| POLAR.contains(&word.as_str()))
}
