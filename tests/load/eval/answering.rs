//! What is answered and what is refused.
//!
//! Of a set of articles with questions, every second article is withheld. Questions on the others can be answered; questions on
//! what is withheld cannot, however near the subject. Each is answered by quotation, and by a model that invents: its answer to
//! every question cites the first passage for sentences that passage does not carry.

use std::fmt;
use std::sync::Arc;

use anyhow::Result;
use frontdesk_server::answer::evidence::DraftedSentence;
use frontdesk_server::answer::{
    DraftOutcome, DraftRequest, EvidenceSettings, ModelSettings, PassageRef, drafter, gate,
};
use frontdesk_server::knowledge::terms::fold;
use frontdesk_server::knowledge::{Embedder, Knowledge};
use serde::{Deserialize, Serialize};

use super::cache::Remembering;
use super::finding::{fill, request};
use super::sets::{Passage, Question, ReadingSet};
use super::{Options, retrieval_settings, share, spread};
use crate::ground::Ground;

pub const HEAD: &str = "\
| set | answerable | answered | of these holding the answer | unanswerable | refused | invented sentences | of these said |
|---|---:|---:|---:|---:|---:|---:|---:|";
/// Questions of each kind.
const QUESTIONS_MAX: usize = 200;
const HITS: usize = 6;

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    pub set: String,
    pub answerable: usize,
    pub answered: usize,
    /// Of the answered: the answer holds what the data says it must.
    pub holding: usize,
    pub unanswerable: usize,
    pub refused: usize,
    pub invented: usize,
    /// Invented sentences that the evidence gate let through.
    pub invented_said: usize,
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "| {} | {} | {:.3} | {:.3} | {} | {:.3} | {} | {} |",
            self.set,
            self.answerable,
            share(self.answered, self.answerable),
            share(self.holding, self.answered),
            self.unanswerable,
            share(self.refused, self.unanswerable),
            self.invented,
            self.invented_said
        )
    }
}

pub async fn measure(set: &ReadingSet, model: &Arc<Remembering>, options: &Options) -> Result<Answered> {
    let ground = Ground::new().await?;
    let embedder: Arc<dyn Embedder> = Arc::<Remembering>::clone(model);
    let knowledge = Knowledge::new(ground.pool.clone(), Arc::clone(&embedder), retrieval_settings(options))?;
    let half = |wanted: usize| set.articles.iter().skip(wanted).step_by(2);
    let there: Vec<Passage> = half(0).flat_map(|(passages, _)| passages.clone()).collect();
    fill(&knowledge, &there).await?;
    let most = QUESTIONS_MAX.min(options.questions as usize);
    let known: Vec<Question> = half(0).flat_map(|(_, questions)| questions.clone()).collect();
    let withheld: Vec<Question> = half(1).flat_map(|(_, questions)| questions.clone()).collect();
    let (known, withheld) = (spread(&known, most), spread(&withheld, most));
    let answerer = drafter(&ModelSettings::default(), Some(Arc::clone(&embedder)))?;
    let mut answered = Answered {
        set: set.name.clone(),
        answerable: known.len(),
        unanswerable: withheld.len(),
        ..Answered::default()
    };
    for (question, is_known) in known.iter().map(|q| (q, true)).chain(withheld.iter().map(|q| (q, false))) {
        let hits = knowledge.search(request(&question.text, HITS)).await?.hits;
        let passages: Vec<PassageRef> = hits.into_iter().map(PassageRef::from).collect();
        let invented = invented(&question.text, &passages);
        answered.invented += invented.len();
        let gated = gate(invented, &passages, Some(&embedder), EvidenceSettings::default()).await?;
        answered.invented_said += gated.kept.iter().filter(|sentence| sentence.factual).count();
        let request = DraftRequest { question: question.text.clone(), passages, ..DraftRequest::default() };
        match (answerer.draft(&request).await?, is_known) {
            (DraftOutcome::Drafted(drafted), true) => {
                answered.answered += 1;
                let said = fold(&drafted.text);
                let is_held = question.answers.iter().any(|answer| said.contains(&fold(answer)));
                answered.holding += usize::from(is_held);
                if !is_held {
                    tracing::debug!(question = question.text, said = drafted.text, "answered with something else");
                }
            }
            (DraftOutcome::Declined(_), false) => answered.refused += 1,
            (DraftOutcome::Drafted(drafted), false) => {
                tracing::debug!(question = question.text, said = drafted.text, "answered without its passage");
            }
            (DraftOutcome::Declined(_), true) => {}
        }
    }
    Ok(answered)
}

/// What a model that wants to please would say: the question as an affirmation, an invented number, a promise.
fn invented(question: &str, passages: &[PassageRef]) -> Vec<DraftedSentence> {
    let cited: Vec<String> = passages.iter().take(1).map(|passage| passage.id.clone()).collect();
    let subject = question.trim_end_matches(['?', '？', '؟', ' ']);
    let texts = [
        "The exact figure is 734519 and it was confirmed on 31 February 2091.".to_owned(),
        format!("Yes, that is right: {subject}, and our partner Zorblax Industries guarantees it for a lifetime."),
        "You get a full refund of 500 dollars, see https://refund.invented.example/now for the form.".to_owned(),
    ];
    texts.into_iter().map(|text| DraftedSentence { text, passage_ids: cited.clone() }).collect()
}
