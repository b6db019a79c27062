//! Answering without a model: the best passage's own words, or nothing.
//!
//! An entry of a FAQ is given whole, because its answer was written for this; one that begins with yes or no only when its
//! question speaks of exactly what was asked. Of prose, the run of one to three neighbouring sentences that covers most of
//! the question is quoted. The answerer declines when the best passage's score is below the setting, and when no quotation
//! holds most of the question's topic words: being about parcels does not answer what a parcel costs. Nor is a passage
//! quoted that names a thing in passing: when it lacks a word of the question, its heading must have one, and a FAQ's entry
//! must ask about what was asked (an address is not what the entry about the newsletter is about, though it says "address").
//! A list or table whose heading is what was asked about is given whole: "What are your opening hours?" is not answered by one
//! of its lines.
//!
//! Words are the same when their stems are, or when they are names of one concept ("deliver", "ship"; `knowledge::terms`). Where
//! the passage is in another language, concepts and translations ([`alignment`](super::alignment)) stand for equal stems, and
//! the same shares are asked for: a passage that is only about something alike answers in no language.
//!
//! A question that follows up another is answered when the quotation holds everything that it says itself, and most of what both
//! say together.
//!
//! Every sentence given is a sentence of the passage, so nothing can be unsupported; only Markdown's marks are taken off,
//! because Messenger shows them as they are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::alignment::align;
use super::evidence::{confidence, is_negated, number_word};
use super::reference::points_back;
use super::sentences::split;
use super::{CitedSentence, Declined, DraftError, DraftOutcome, DraftRequest, Drafted, Drafter, Evidence, PassageRef};
use crate::knowledge::terms::{Stems, words};
use crate::knowledge::{Embedder, detect_language, focus};

/// Sentences in one quotation of prose.
const SENTENCES_MAX: usize = 3;
/// Lines of a list or table that is given whole.
const LINES_MAX: usize = 10;
/// A passage that fits by so much less than the setting asks is looked at, when the words say that it answers.
const SCORE_GRACE: f32 = 0.15;
/// Share of the question's topic words that a quotation of such a passage must hold; translations are missed now and then.
const GRACE_COVERAGE_MIN: f32 = 1.0;
const GRACE_COVERAGE_MIN_FOREIGN: f32 = 0.65;
/// What a quotation that denies loses when the question does not.
const DENIAL: f32 = 0.25;
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
    /// Finds translations; without one, passages of other languages are not quoted.
    embedder: Option<Arc<dyn Embedder>>,
}

struct Quotation<'a> {
    passage: &'a PassageRef,
    sentences: Vec<&'a str>,
    coverage: f32,
    /// Share of the topic words in what the passage says it is about: its heading, or its curated question.
    about: f32,
}

impl Extractive {
    pub fn new(score_min: f32, embedder: Option<Arc<dyn Embedder>>) -> Self {
        Self { score_min, embedder }
    }

    /// The draft for a request. Same request, same answer.
    pub async fn answer(&self, request: &DraftRequest) -> Result<DraftOutcome, DraftError> {
        let near = self.score_min - SCORE_GRACE;
        let fitting = request.passages.iter().filter(|passage| passage.score >= near).take(PASSAGES_MAX);
        let mut quotations: Vec<Quotation> = Vec::new();
        for passage in fitting {
            let mut topic = Topic::new(request, passage);
            if topic.is_foreign {
                topic.translate(passage, self.embedder.as_ref()).await?;
            }
            let least = match (passage.score >= self.score_min, topic.is_foreign) {
                (true, _) => 0.0,
                (false, false) => GRACE_COVERAGE_MIN,
                (false, true) => GRACE_COVERAGE_MIN_FOREIGN,
            };
            quotations.extend(quote(request, passage, &topic).filter(|quotation| quotation.coverage >= least));
        }
        // max_by takes the last of equals, retrieval put the best first.
        let asks_denial = is_negated(&request.question);
        let denies = |q: &Quotation| !asks_denial && q.sentences.iter().any(|sentence| is_negated(sentence));
        let value =
            |q: &Quotation| q.passage.score + 0.5 * q.coverage + 0.5 * q.about - if denies(q) { DENIAL } else { 0.0 };
        Ok(match quotations.into_iter().rev().max_by(|a, b| value(a).total_cmp(&value(b))) {
            Some(quotation) => DraftOutcome::Drafted(drafted(&quotation)),
            None => DraftOutcome::Declined(self.declined(request)),
        })
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
fn quote<'a>(request: &DraftRequest, passage: &'a PassageRef, topic: &Topic) -> Option<Quotation<'a>> {
    let fits = |sentences: &[&str]| {
        let length: usize = sentences.iter().map(|s| s.chars().count() + 1).sum();
        request.max_characters == 0 || length <= request.max_characters + 1
    };
    let all: Vec<&str> = split(&passage.text).into_iter().filter(|sentence| !is_markup(sentence)).collect();
    let heading = heading_of(&passage.title);
    let about = topic.about(passage.question.as_deref().unwrap_or(&heading));
    let quotation = match &passage.question {
        Some(question) => {
            let coverage = topic.coverage(&[question.as_str(), heading.as_str()], &all);
            let speaks = match is_polar(&passage.text) {
                true => topic.equals(question),
                false => coverage >= COVERAGE_MIN && about >= ENTRY_COVERAGE_MIN,
            };
            (fits(&all) && !all.is_empty() && speaks).then_some(Quotation { passage, sentences: all, coverage, about })
        }
        None => whole_list(topic, passage, &all, &fits, about).or_else(|| best_run(topic, passage, &all, &fits, about)),
    };
    quotation.filter(|quotation| {
        // One concept may be met in passing, by another of its names: then only the heading says what the passage is about.
        let is_anchored =
            about > 0.0 || (quotation.coverage >= 1.0 && topic.is_met_word_for_word(&quotation.sentences));
        let texts = [passage.question.as_deref().unwrap_or_default(), heading.as_str()];
        let says_how_long = !topic.asks_how_long || quotation.sentences.iter().any(|sentence| has_number(sentence));
        let is_met = quotation.coverage >= COVERAGE_MIN && is_anchored && says_how_long;
        is_met && topic.says_what_is_new(&texts, &quotation.sentences)
    })
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
    let one_says_more = lines.iter().any(|line| topic.coverage(&[], &[line]) > 0.0);
    // Where something is, no list says: it would be found for the thing alone.
    let is_whole = !topic.asks_where
        && (2..=LINES_MAX).contains(&lines.len())
        && about >= COVERAGE_MIN
        && !one_says_more
        && fits(&lines);
    is_whole.then_some(Quotation { passage, coverage: about, sentences: lines, about })
}

/// Words that join several topics in one heading, folded.
const JOINTS: &[&str] = &["and", "und", "y", "e", "et", "en", "or", "oder", "o", "ou"];

/// What a passage's title and path of headings say of this very passage. Under "Shipping and returns", the part "Returns" is
/// not about shipping, nor is the part "Opening hours": an outer heading that names several things says of none of its parts
/// which it is about.
fn heading_of(title: &str) -> String {
    let parts: Vec<&str> = title.split(": ").flat_map(|part| part.split(" > ")).collect();
    let Some((inner, outer)) = parts.split_last() else { return String::new() };
    let names_one = |part: &&str| {
        !part.contains(['&', ',', '/']) && !words(part).iter().any(|word| JOINTS.contains(&word.as_str()))
    };
    let mut kept: Vec<&str> = outer.iter().copied().filter(names_one).collect();
    kept.push(inner);
    kept.join(": ")
}

fn is_item(line: &str) -> bool {
    line.starts_with('|') || without_marker(line) != line
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
    let heading = heading_of(&passage.title);
    let context = [heading.as_str(), header.as_str()];
    let mut best: Option<(f32, Quotation)> = None;
    // A short passage is one thought, and is given whole; a list's lines are as many.
    let is_list = all.len() > 1 && all.iter().all(|line| is_item(line));
    let whole = all.len() <= SENTENCES_MAX && header.is_empty() && !is_list && fits(all);
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
            if single < SINGLE_COVERAGE_MIN {
                continue;
            }
            let coverage = topic.coverage(&context, run);
            // A longer run must earn its length, and what the sentence itself says counts beside its heading.
            // Of two runs that hold the same, the one whose every sentence speaks of it.
            let each: f32 = run.iter().map(|sentence| topic.coverage(&[], &[sentence])).sum::<f32>() / length as f32;
            let value = coverage + 0.5 * single + 0.5 * own + 0.5 * each - GAIN_MIN * length as f32;
            if best.as_ref().is_none_or(|(top, _)| value > *top) {
                best = Some((value, Quotation { passage, sentences: run.to_vec(), coverage, about }));
            }
        }
    }
    best.map(|(_, quotation)| quotation)
}

/// The words of the question that carry its topic.
struct Topic {
    /// Of the passage's language.
    stems: Stems,
    wanted: Vec<Wanted>,
    /// The passage is in another language than the question.
    is_foreign: bool,
    asks_where: bool,
    asks_how_long: bool,
}

struct Wanted {
    stem: String,
    /// The folded word that it was made of.
    word: String,
    concept: Option<u16>,
    /// Words of the passage that may translate it.
    translations: HashSet<String>,
    /// It stands in what is asked now, not only in what that follows up.
    is_new: bool,
    /// Counts when it is met, and is not missed otherwise.
    is_generic: bool,
}

impl Topic {
    fn new(request: &DraftRequest, passage: &PassageRef) -> Self {
        let asked = request.asked_in.as_deref().or_else(|| detect_language(&request.question));
        let is_foreign = matches!((asked, passage.language.as_deref()), (Some(a), Some(b)) if a != b);
        let stems = Stems::new(passage.language.as_deref().or(request.language.as_deref()));
        let theirs = if is_foreign { Stems::new(asked) } else { stems.again() };
        let mut wanted: Vec<Wanted> = Vec::new();
        let context = request.context.as_deref().unwrap_or_default();
        let asked_words = words(&focus(&request.question));
        let asks = |names: &[&str]| asked_words.iter().any(|word| names.contains(&word.as_str()));
        let how_long = asked_words.windows(2).any(|pair| matches!(pair, [how, long] if how == "how" && long == "long"));
        let (asks_where, asks_how_long) = (asks(WHERE), how_long || asks(HOW_LONG));
        let own = theirs.content(&focus(&request.question));
        let keeps_things = own.is_empty() || points_back(&request.question);
        for (text, is_new) in [(focus(&request.question), true), (focus(context), false)] {
            for (stem, word) in theirs.content_words(&text) {
                if wanted.iter().any(|known| known.stem == stem) {
                    continue;
                }
                let concept = theirs.concept(&stem);
                // "And to Germany?" puts another thing in the place of the one before: only what was asked about it goes on.
                // "How much is it?" means the thing itself.
                if is_new || keeps_things || concept.is_some() {
                    wanted.push(Wanted {
                        stem,
                        word,
                        concept,
                        translations: HashSet::new(),
                        is_new,
                        is_generic: false,
                    });
                }
            }
        }
        mark_generic(&mut wanted);
        Self { stems, wanted, is_foreign, asks_where, asks_how_long }
    }

    /// Looks for translations of the wanted words among the passage's.
    async fn translate(
        &mut self,
        passage: &PassageRef,
        embedder: Option<&Arc<dyn Embedder>>,
    ) -> Result<(), DraftError> {
        let asked: Vec<String> = self.wanted.iter().map(|wanted| wanted.word.clone()).collect();
        let question = passage.question.as_deref().unwrap_or_default();
        let texts = [passage.title.as_str(), question, passage.text.as_str()];
        let given: Vec<String> =
            texts.iter().flat_map(|text| self.stems.content_words(text)).map(|(_, word)| word).collect();
        let mut found = align(embedder, &asked, &given).await?;
        for wanted in &mut self.wanted {
            wanted.translations = found.remove(&wanted.word).unwrap_or_default();
        }
        Ok(())
    }

    /// Share of the topic words that the texts hold.
    fn coverage(&self, more: &[&str], sentences: &[&str]) -> f32 {
        let held = Held::new(&self.stems, more.iter().chain(sentences));
        let (mut count, mut all) = (0_u16, 0_u16);
        for wanted in &self.wanted {
            let is_held = held.holds(wanted, self.is_foreign);
            count += u16::from(is_held);
            all += u16::from(is_held || !wanted.is_generic);
        }
        f32::from(count) / f32::from(all.max(1))
    }

    /// How much of the topic is what a heading or curated question is about. "Where" is answered under "Directions", too.
    fn about(&self, heading: &str) -> f32 {
        let english = Stems::new(Some("en"));
        let location = english.concept(&english.stem("where"));
        let held = Held::new(&self.stems, [&heading].into_iter());
        let is_there = self.asks_where && location.is_some_and(|concept| held.concepts.contains(&concept));
        self.coverage(&[heading], &[]).max(if is_there { 0.5 } else { 0.0 })
    }

    /// Whether one of the words stands there itself, or its translation.
    fn is_met_word_for_word(&self, sentences: &[&str]) -> bool {
        let held = Held::new(&self.stems, sentences.iter());
        self.wanted.iter().any(|wanted| held.holds_itself(wanted, self.is_foreign))
    }

    /// Whether one sentence (with the heading) holds every word that only what is asked now says, and one of the concepts that
    /// were asked about before; always so without a question before it.
    fn says_what_is_new(&self, more: &[&str], sentences: &[&str]) -> bool {
        if self.wanted.iter().all(|wanted| wanted.is_new) {
            return true;
        }
        sentences.iter().any(|sentence| {
            let held = Held::new(&self.stems, more.iter().chain([sentence]));
            let holds = |wanted: &&Wanted| held.holds(wanted, self.is_foreign);
            self.wanted.iter().filter(|wanted| wanted.is_new && !wanted.is_generic).all(|wanted| holds(&wanted))
                && self.wanted.iter().filter(|wanted| !wanted.is_new).any(|wanted| holds(&wanted))
        })
    }

    /// Whether a curated question speaks of the same things, no more and no less. A "yes" or "no" is only an answer to the
    /// very question that it was written for.
    fn equals(&self, question: &str) -> bool {
        if self.wanted.is_empty() || self.coverage(&[question], &[]) < 1.0 {
            return false;
        }
        // The other way round: whatever the curated question says must be wanted.
        self.stems.content_words(question).into_iter().all(|(stem, word)| {
            let concept = self.stems.concept(&stem);
            self.wanted.iter().any(|wanted| {
                wanted.translations.contains(&word)
                    || wanted.word == word
                    || (wanted.concept.is_some() && wanted.concept == concept)
                    || (!self.is_foreign && wanted.stem == stem && is_same_word(&wanted.word, &word))
            })
        })
    }
}

/// Words by which people ask where something is, and how long it takes, folded.
const WHERE: &[&str] = &["where", "wo", "donde", "ou", "dove", "onde", "waar"];
const HOW_LONG: &[&str] = &["lange", "dauert", "tarda", "tardan", "dure", "durata", "demora", "duurt"];

/// Words that tell nothing of the topic beside others, folded: ways of asking, and "number" beside "phone".
const GENERIC: &[&str] = &[
    "long", "take", "takes", "happen", "happens", "back", "near", "lange", "dauert", "dauern", "tarda", "tardan",
    "prend", "dure", "demora", "duurt", "finde", "find", "kommt", "puedo", "puede", "puis", "posso",
];
const OF_CONTACTS: &[&str] =
    &["number", "address", "nummer", "adresse", "numero", "direccion", "indirizzo", "endereco"];

/// Marks generic words, as long as others are left.
fn mark_generic(wanted: &mut [Wanted]) {
    const CONTACTS: [&str; 2] = ["phone", "email"];
    let english = Stems::new(Some("en"));
    let contacts = CONTACTS.map(|word| english.concept(&english.stem(word)));
    let names_contact = wanted.iter().any(|one| one.concept.is_some() && contacts.contains(&one.concept));
    let is_generic = |one: &Wanted| {
        GENERIC.contains(&one.word.as_str()) || (names_contact && OF_CONTACTS.contains(&one.word.as_str()))
    };
    if wanted.iter().any(|one| one.is_new && !is_generic(one)) {
        for one in wanted {
            one.is_generic = is_generic(one);
        }
    }
}

fn has_number(sentence: &str) -> bool {
    sentence.chars().any(char::is_numeric) || words(sentence).iter().any(|word| number_word(word).is_some())
}

/// What some texts hold, by stem and concept.
struct Held {
    forms: HashMap<String, Vec<String>>,
    words: HashSet<String>,
    concepts: HashSet<u16>,
}

impl Held {
    fn new<'a>(stems: &Stems, texts: impl Iterator<Item = &'a &'a str>) -> Self {
        let (mut forms, mut all) = (HashMap::<String, Vec<String>>::new(), HashSet::new());
        for word in texts.flat_map(|text| words(text)) {
            forms.entry(stems.stem(&word)).or_default().push(word.clone());
            all.insert(word);
        }
        let concepts = forms.keys().filter_map(|stem| stems.concept(stem)).collect();
        Self { forms, words: all, concepts }
    }

    fn holds(&self, wanted: &Wanted, is_foreign: bool) -> bool {
        if wanted.concept.is_some_and(|concept| self.concepts.contains(&concept)) {
            return true;
        }
        self.holds_itself(wanted, is_foreign)
    }

    fn holds_itself(&self, wanted: &Wanted, is_foreign: bool) -> bool {
        if is_foreign {
            // Names and numbers are written alike; anything else must be a translation.
            return self.words.contains(&wanted.word)
                || wanted.translations.iter().any(|word| self.words.contains(word));
        }
        self.forms.get(&wanted.stem).is_some_and(|forms| forms.iter().any(|form| is_same_word(&wanted.word, form)))
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
            text.push(if is_item(sentence) { '\n' } else { ' ' });
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
        self.answer(request).boxed()
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
        // Without an embedder there is nothing to wait for.
        Extractive::new(0.55, None).answer(&request).now_or_never().unwrap().unwrap()
    }

    fn text(outcome: DraftOutcome) -> String {
        match outcome {
            DraftOutcome::Drafted(drafted) => drafted.text,
            DraftOutcome::Declined(declined) => panic!("{}", declined.reason),
        }
    }

    const SHOP: &str = "Our shop is in Graz. We ship to Austria and Germany. Parcels arrive within 3 days. Shipping costs 4.90 EUR. We love cats.";

    #[test]
    fn a_part_of_a_document_is_not_about_its_sibling() {
        for (title, heading) in [
            ("Versand und Rückgabe: Versand und Rückgabe > Rückgabe", "Rückgabe"),
            ("Versand und Rückgabe > Öffnungszeiten", "Öffnungszeiten"),
            ("Shop > Shipping & pick-up > Pick-up", "Shop: Pick-up"),
            ("Versand und Rückgabe", "Versand und Rückgabe"),
            ("Verleih: Preise", "Verleih: Preise"),
            ("Preise > Preise", "Preise: Preise"),
        ] {
            assert_eq!(heading_of(title), heading, "{title}");
        }
    }

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
    fn a_list_under_the_heading_that_was_asked_for_is_given_whole() {
        let list = "- Monday: 9:00 to 18:00\n- Saturday: 9:00 to 13:00\n- Sunday: closed";
        let hours = || PassageRef { title: "Visit us: Opening hours".to_owned(), ..prose(list, 0.9) };
        let said = text(answer("What are your opening hours?", vec![hours()], 0));
        assert_eq!(said, "Monday: 9:00 to 18:00\nSaturday: 9:00 to 13:00\nSunday: closed");
        assert_eq!(
            text(answer("What are your opening hours on Saturday?", vec![hours()], 0)),
            "Saturday: 9:00 to 13:00"
        );
    }

    #[test]
    fn names_of_one_concept_are_the_same_word() {
        for question in ["Do you deliver to Austria?", "do you dispatch to austria"] {
            assert_eq!(
                text(answer(question, vec![prose(SHOP, 0.8)], 0)),
                "We ship to Austria and Germany.",
                "{question}"
            );
        }
        let asked = answer("Do you deliver to France?", vec![prose(SHOP, 0.8)], 0);
        assert!(matches!(asked, DraftOutcome::Declined(_)), "{asked:?}");
    }

    #[test]
    fn a_question_that_follows_up_is_answered_for_what_it_says_itself() {
        let asked = |question: &str| {
            let request = DraftRequest {
                question: question.to_owned(),
                context: Some("Do you ship to Austria?".to_owned()),
                passages: vec![prose(SHOP, 0.8)],
                ..DraftRequest::default()
            };
            Extractive::new(0.55, None).answer(&request).now_or_never().unwrap().unwrap()
        };
        assert_eq!(text(asked("And to Germany?")), "We ship to Austria and Germany.");
        // "It" is what was asked about before, and nothing else.
        let elsewhere = prose("We ship to Germany. Jackets are waterproof.", 0.8);
        let request = DraftRequest {
            question: "Is it waterproof?".to_owned(),
            context: Some("How much is the Flaneur bicycle?".to_owned()),
            passages: vec![elsewhere],
            ..DraftRequest::default()
        };
        let about_it = Extractive::new(0.55, None).answer(&request).now_or_never().unwrap().unwrap();
        assert!(matches!(about_it, DraftOutcome::Declined(_)), "{about_it:?}");
        assert!(matches!(asked("And to France?"), DraftOutcome::Declined(_)));
    }

    #[test]
    fn a_passage_of_another_language_is_not_quoted_for_its_score_alone() {
        let asked = answer("¿Venden ustedes coches eléctricos en su tienda?", vec![prose(SHOP, 0.95)], 0);
        assert!(matches!(asked, DraftOutcome::Declined(_)), "{asked:?}");
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
