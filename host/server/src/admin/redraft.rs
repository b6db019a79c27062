//! `POST /admin/turns/{id}/redraft` with `{"plan": …}`: what this host's drafting would make of a recorded turn if it were told
//! something else.
//!
//! The drafter gets the recorded conversation and passages, and the plan that is given: the one that a candidate's tone policy
//! makes. Nothing is sent to anybody, and the record stays as it is. A model costs what it costs, within the host's budget.
//!
//! The answer is one of those that the model may give, and says nothing exact about the candidate. So it is for people who want
//! to read what would come; the gate never asks for it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use frontdesk_policy_engine::types as policy;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Actor;
use super::error::AdminError;
use super::request::{Body, Id};
use super::turns;
use crate::app::App;
use crate::db;
use crate::pipeline::drafting::{self, Drafting};
use crate::records::Form;

/// Largest body, in bytes: a plan holds no more text than a prompt may.
pub const BODY_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedraftBody {
    plan: policy::Plan,
}

/// The part of a record that a draft is made from; of every version 1.
#[derive(Debug, Deserialize)]
struct Inputs {
    turn: policy::Turn,
    #[serde(default)]
    passages: Vec<policy::Passage>,
    #[serde(default)]
    questions: Vec<Option<String>>,
}

pub async fn redraft(
    State(app): State<Arc<App>>,
    actor: Actor,
    Id(id): Id,
    Body(body): Body<RedraftBody>,
) -> Result<Json<Value>, AdminError> {
    let decision = app.records.load(id, Form::Clear).await?.ok_or_else(|| AdminError::not_found("turn", id))?;
    turns::audit(&app, &actor, Form::Clear, std::slice::from_ref(&decision)).await?;
    // An erased record, too, has no turn any more. What the reader says might repeat a customer's words.
    let inputs: Inputs = serde_json::from_value(decision.record).map_err(|_| AdminError::State {
        what: "the turn's record",
        found: decision.record_state,
        expected: "one that holds the conversation",
    })?;
    db::audit::write(&app.pool, &actor.0, "turn.redraft", &id.to_string(), json!({})).await?;
    let request = drafting::request(&decision.page_id, &inputs.turn, &body.plan, &inputs.passages, &inputs.questions);
    let drafting = if request.question.trim().is_empty() {
        Drafting::without("declined", &inputs.passages)
    } else {
        Drafting::of(app.drafter.draft(&request).await?, &inputs.passages)
    };
    Ok(Json(json!({
        "turn_id": id,
        "model": drafting.model(),
        "answer": drafting.answer,
        "citations": drafting.citations,
        "evidence": drafting.evidence,
        "no_draft_reason": drafting.no_draft_reason,
    })))
}
