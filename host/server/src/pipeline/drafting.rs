//! From a plan to what a drafter is asked, and from its answer to what the record says.
//!
//! Turns are drafted with it, and recorded turns are drafted again with another plan.

use frontdesk_policy_engine::assembly;
use frontdesk_policy_engine::types as policy;

use super::record::Citation;
use super::{context, follow_up};
use crate::answer::{Declined, DraftOutcome, DraftRequest, PassageRef};
use crate::knowledge::redact::has_placeholder;

/// What a drafter is asked. `questions` are the curated questions of the passages, in their order, where there are any.
pub fn request(
    page_id: &str,
    turn: &policy::Turn,
    plan: &policy::Plan,
    passages: &[policy::Passage],
    questions: &[Option<String>],
) -> DraftRequest {
    let author = |author: policy::Author| match author {
        policy::Author::Customer => "customer",
        policy::Author::Bot => "bot",
        policy::Author::Agent => "agent",
    };
    let questions = questions.iter().cloned().chain(std::iter::repeat(None));
    DraftRequest {
        page_id: page_id.to_owned(),
        question: assembly::question(turn),
        asked_in: context::asked_in(turn),
        context: follow_up::context(turn),
        history: turn.history.iter().map(|m| (author(m.author).to_owned(), m.text.clone())).collect(),
        instructions: plan.instructions.iter().map(|i| (i.title.clone(), i.text.clone())).collect(),
        examples: plan.examples.iter().map(|e| (e.customer.clone(), e.reply.clone())).collect(),
        language: plan.language.clone().or_else(|| turn.detected_language.as_ref().map(|(tag, _)| tag.clone())),
        max_characters: usize::try_from(plan.max_characters).unwrap_or(usize::MAX),
        temperature: plan.temperature,
        tokens_max: 0,
        passages: passages
            .iter()
            .zip(questions)
            .map(|(passage, question)| PassageRef {
                id: passage.id.clone(),
                title: passage.title.clone(),
                source: passage.source.clone(),
                text: passage.text.clone(),
                question,
                score: passage.score,
                language: passage.language.clone(),
            })
            .collect(),
    }
}

/// What came of drafting, in the fields of the record.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Drafting {
    pub answer: Option<String>,
    pub citations: Vec<Citation>,
    pub evidence: policy::Evidence,
    pub no_draft_reason: Option<String>,
    pub draft: Option<DraftOutcome>,
}

impl Drafting {
    /// From a drafter's answer.
    pub fn of(outcome: DraftOutcome, passages: &[policy::Passage]) -> Self {
        let drafted = match outcome {
            // A placeholder says nothing to a customer, and what it stands for is not for them: a person answers.
            DraftOutcome::Drafted(drafted) if has_placeholder(&drafted.text) => {
                let declined = Declined {
                    reason: "the answer holds personal data that was taken out of its document".to_owned(),
                    model: drafted.model,
                    prompt_tokens: drafted.prompt_tokens,
                    completion_tokens: drafted.completion_tokens,
                    prompt: drafted.prompt,
                    cut: drafted.sentences,
                };
                return Self { draft: Some(DraftOutcome::Declined(declined)), ..Self::without("declined", passages) };
            }
            DraftOutcome::Drafted(drafted) => drafted,
            declined @ DraftOutcome::Declined(_) => {
                return Self { draft: Some(declined), ..Self::without("declined", passages) };
            }
        };
        Self {
            answer: Some(drafted.text.clone()),
            citations: drafted.sentences.iter().map(Citation::of).collect(),
            evidence: policy::Evidence {
                sentences: drafted.evidence.sentences,
                supported: drafted.evidence.supported,
                best_score: drafted.evidence.best_score,
                confidence: drafted.evidence.confidence,
            },
            no_draft_reason: None,
            draft: Some(DraftOutcome::Drafted(drafted)),
        }
    }

    /// No draft: `declined` or `model-unavailable`.
    pub fn without(reason: &str, passages: &[policy::Passage]) -> Self {
        let best_score = passages.first().map_or(0.0, |passage| passage.score);
        Self {
            no_draft_reason: Some(reason.to_owned()),
            evidence: policy::Evidence { best_score, ..policy::Evidence::default() },
            ..Self::default()
        }
    }

    /// The model that was asked, as its service names it; `extractive` without one; `None` when nobody was asked.
    pub fn model(&self) -> Option<&str> {
        self.draft.as_ref().map(|outcome| match outcome {
            DraftOutcome::Drafted(drafted) => drafted.model.as_str(),
            DraftOutcome::Declined(declined) => declined.model.as_str(),
        })
    }
}
