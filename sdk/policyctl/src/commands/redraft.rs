//! `policyctl replay DECISION --redraft`: the host's drafting is asked again, for what the candidate would tell it.
//!
//! The candidate's hooks then judge the new draft. A model may write something else each time, and look-ups are answered from
//! the record of the old draft; so what comes of it is to be read, and counts for nothing: neither for the replay's verdict and
//! exit code nor for any gate.

use std::fmt::Write;

use frontdesk_policy_engine::types::Evidence;
use frontdesk_policy_engine::{Conclusion, Level, RecordedCitation, RecordedTurn, Replayed, Revision, replay};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::admin::AdminClient;
use crate::cli::Failure;
use crate::records::Record;
use crate::words;

/// What the host's drafting gave.
#[derive(Debug, Deserialize)]
struct Fresh {
    model: Option<String>,
    answer: Option<String>,
    #[serde(default)]
    citations: Vec<RecordedCitation>,
    #[serde(default)]
    evidence: Evidence,
    no_draft_reason: Option<String>,
}

/// What would come of a new draft.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Redraft {
    Judged {
        /// Always false.
        exact: bool,
        /// Who wrote it; absent when nobody was asked.
        model: Option<String>,
        /// The draft before preamble, closing and filters.
        answer: Option<String>,
        no_draft_reason: Option<String>,
        conclusion: Conclusion,
    },
    NotPossible {
        not_possible: String,
    },
}

impl Redraft {
    /// Asks the host, and judges what it drafts.
    pub async fn ask(
        client: &AdminClient,
        actor: &str,
        revision: &Revision,
        record: &Record,
        replayed: &Replayed,
    ) -> Result<Self, Failure> {
        let Some(plan) = &replayed.plan else {
            let not_possible = match replayed.level {
                Level::NoDraftRecorded => "the record holds no passages to draft from".to_owned(),
                _ => format!("the candidate drafts nothing: its route is {}", replayed.conclusion.route),
            };
            return Ok(Self::NotPossible { not_possible });
        };
        let answer = client.post(&["turns", &record.turn_id, "redraft"], actor, &json!({ "plan": plan })).await?;
        let fresh: Fresh = serde_path_to_error::deserialize(answer)
            .map_err(|error| Failure::unreachable(format!("the host's draft cannot be read: {error}")))?;
        let Fresh { model, answer, citations, evidence, no_draft_reason } = fresh;
        let redrafted = RecordedTurn {
            plan: Some(plan.clone()),
            answer: answer.clone(),
            citations,
            evidence,
            no_draft_reason: no_draft_reason.clone(),
            ..record.recorded.clone()
        };
        let conclusion = replay(revision, &redrafted).await.conclusion;
        Ok(Self::Judged { exact: false, model, answer, no_draft_reason, conclusion })
    }

    /// For people.
    pub fn text(&self) -> String {
        let (model, answer, no_draft_reason, conclusion) = match self {
            Self::Judged { model, answer, no_draft_reason, conclusion, .. } => {
                (model, answer, no_draft_reason, conclusion)
            }
            Self::NotPossible { not_possible } => return format!("\nNot drafted again: {not_possible}.\n"),
        };
        let model = model.as_deref().unwrap_or("nobody");
        let mut out = format!(
            "\nDrafted again by {model}. This is NOT exact: a model may write something else each time. No gate uses it.\n"
        );
        let _ = match answer {
            Some(text) => writeln!(out, "  draft    {}", words::one_line(text, 2_000)),
            None => writeln!(out, "  no draft {}", no_draft_reason.as_deref().unwrap_or("without a reason")),
        };
        let reason = words::one_line(&conclusion.reason, 200);
        let _ = writeln!(out, "  ends     {} -> {} ({reason})", conclusion.route, conclusion.outcome);
        if let Some(text) = &conclusion.text {
            let _ = writeln!(out, "  told     {}", words::one_line(text, 2_000));
        }
        out
    }
}
