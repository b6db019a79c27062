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
//! What a question is about must be there, whatever the shares: a name, a number, what stands behind "of your" ([`asked`]). A
//! question for a length of time or a price is answered by one. Of equally good quotations one in the customer's language is
//! taken; where there is none, another language's is given as it is, because nothing here can translate.
//!
//! What a customer writes with a slip, in a verb's two parts, or by a kind's name for one of the kind is put right first, each only
//! where it leaves no doubt (`knowledge::spelling`, [`wording`]).
//!
//! A question that follows up another is answered when the quotation holds everything that it says itself, and most of what both
//! say together.
//!
//! Every sentence given is a sentence of the passage, so nothing can be unsupported; only Markdown's marks are taken off,
//! because Messenger shows them as they are.

mod asked;
mod plain;
mod quoting;
mod topic;
mod wording;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::evidence::is_negated;
use super::{Declined, DraftError, DraftOutcome, DraftRequest, Drafter, PassageRef};
use crate::knowledge::Embedder;
use plain::drafted;
use quoting::{Quotation, quote};
use topic::{Texts, Topic};

/// A passage that fits by so much less than the setting asks is looked at, when the words say that it answers.
const SCORE_GRACE: f32 = 0.15;
/// The same for one that holds all words of the question, in its language.
const WORDS_GRACE: f32 = 0.25;
/// Share of the question's topic words that a quotation of such a passage must hold; translations are missed now and then.
const GRACE_COVERAGE_MIN: f32 = 1.0;
const GRACE_COVERAGE_MIN_FOREIGN: f32 = 0.65;
/// Below the grace everything of the question must stand there, and so much of it in what the passage says that it is about.
const CLEAR_ABOUT_MIN: f32 = 0.75;
/// The same for an entry of a FAQ, whose question says more than a heading.
const CLEAR_ENTRY_ABOUT_MIN: f32 = 0.5;
/// Passages that fit less than this are not looked at.
const SCORE_MIN: f32 = 0.05;
/// How well a passage fits by its words alone when they hold everything that was asked, in the heading or curated question too.
const FIT_BY_WORDS: f32 = 0.5;
/// What a heading adds that asks in the question's own words.
const ECHO: f32 = 0.3;
/// What a quotation that denies loses when the question does not.
const DENIAL: f32 = 0.25;
/// What a quotation in another language than the question's loses: it is better than none, and no more.
const FOREIGN: f32 = 0.25;
/// Passages that are looked at; the others fit worse than all of these.
const PASSAGES_MAX: usize = 8;
const MODEL: &str = "extractive";

/// See the module's documentation.
#[derive(Debug)]
pub struct Extractive {
    score_min: f32,
    /// Finds translations; without one, passages of other languages are not quoted.
    embedder: Option<Arc<dyn Embedder>>,
    texts: Arc<Texts>,
}

impl Extractive {
    pub fn new(score_min: f32, embedder: Option<Arc<dyn Embedder>>) -> Self {
        Self { score_min, embedder, texts: Arc::default() }
    }

    /// The draft for a request. Same request, same answer.
    pub async fn answer(&self, request: &DraftRequest) -> Result<DraftOutcome, DraftError> {
        let mut quotations: Vec<Quotation> = Vec::new();
        for passage in request.passages.iter().filter(|passage| passage.score >= SCORE_MIN).take(PASSAGES_MAX) {
            let mut topic = Topic::new(request, passage, Arc::clone(&self.texts));
            if topic.is_foreign {
                topic.translate(passage, self.embedder.as_ref()).await?;
            }
            quotations.extend(quote(request, passage, &topic).filter(|quotation| self.fits_enough(quotation)));
        }
        // max_by takes the last of equals, retrieval put the best first.
        let asks_denial = is_negated(&request.question);
        // One of three sentences may well deny something else.
        let denies = |q: &Quotation| {
            let denying = q.sentences.iter().filter(|sentence| is_negated(sentence)).count();
            !asks_denial && 2 * denying >= q.sentences.len()
        };
        let value = |q: &Quotation| {
            let (denial, foreign) = (if denies(q) { DENIAL } else { 0.0 }, if q.is_foreign { FOREIGN } else { 0.0 });
            q.passage.score + 0.5 * q.coverage + 0.5 * q.about + ECHO * q.echo - denial - foreign
        };
        Ok(match quotations.into_iter().rev().max_by(|a, b| value(a).total_cmp(&value(b))) {
            Some(quotation) => DraftOutcome::Drafted(drafted(&quotation)),
            None => DraftOutcome::Declined(self.declined(request)),
        })
    }

    /// The worse a passage fits by its score, the more its words must say. Short questions fit badly in other languages.
    fn fits_enough(&self, quotation: &Quotation) -> bool {
        let Quotation { passage, coverage, about, is_foreign, .. } = quotation;
        if passage.score >= self.score_min {
            return true;
        }
        if passage.score >= self.score_min - SCORE_GRACE {
            return *coverage >= if *is_foreign { GRACE_COVERAGE_MIN_FOREIGN } else { GRACE_COVERAGE_MIN };
        }
        // What stands there word for word, in one language, need not be near as well.
        if passage.score >= self.score_min - WORDS_GRACE && !is_foreign && *coverage >= 1.0 {
            return true;
        }
        let is_about = if passage.question.is_some() { CLEAR_ENTRY_ABOUT_MIN } else { CLEAR_ABOUT_MIN };
        *coverage >= 1.0 && *about >= is_about
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
#[path = "extractive_tests.rs"]
mod tests;
