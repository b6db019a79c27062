//! A turn that nobody wrote: judged by the same steps as a customer's, with nothing stored, sent or shown.
//!
//! Golden questions are asked this way, of what serves or of what is to serve: a candidate revision, or knowledge that is
//! not committed yet.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use frontdesk_policy_engine::Revision;
use uuid::Uuid;

use super::{DecisionRecord, Judge, Means, PipelineError, TurnInput, TurnResult, context};
use crate::answer::Drafter;
use crate::db::conversations::Conversation;
use crate::db::messages::StoredMessage;
use crate::db::pages::Page;
use crate::knowledge::Knowledge;
use crate::policies::Serving;
use crate::policies::slots::Slot;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Stage {
    pub page: Page,
    pub knowledge: Arc<Knowledge>,
    pub drafter: Arc<dyn Drafter>,
    pub revision: Arc<Revision>,
    pub passages_max: usize,
    pub now: DateTime<Utc>,
}

/// A judged rehearsal: what would be committed, and the record of it.
#[derive(Debug)]
pub struct Rehearsed {
    pub result: TurnResult,
    pub record: DecisionRecord,
}

/// Judges `question` as a customer's next message after `history` (author, `customer` or `bot`, and text; oldest first).
pub async fn rehearse(
    stage: &Stage,
    question: &str,
    history: &[(&'static str, String)],
) -> Result<Rehearsed, PipelineError> {
    let before = history.iter().enumerate().map(|(at, (author, text))| message(stage, at, author, text));
    let input = TurnInput {
        turn_id: Uuid::now_v7(),
        now: stage.now,
        page: stage.page.clone(),
        conversation: conversation(stage),
        messages: vec![message(stage, history.len(), "customer", question)],
        history: before.collect(),
    };
    let serving = Serving { revision: Arc::clone(&stage.revision), since: stage.now, origin: "rehearsal" };
    let record = DecisionRecord::new(context::turn(&input, 24), &stage.page.chain, Some(&serving));
    let means = Means {
        knowledge: &stage.knowledge,
        drafter: stage.drafter.as_ref(),
        passages_max: stage.passages_max,
        typing: None,
    };
    let mut judge = Judge::new(means, &input, record);
    judge.judge(&serving).await?;
    let result = judge.finish(serving.id().to_owned(), Slot::Active)?;
    let record = serde_json::from_value(result.record.clone())?;
    Ok(Rehearsed { result, record })
}

/// In the middle of a conversation: the customer knows already that a machine answers.
fn conversation(stage: &Stage) -> Conversation {
    Conversation {
        id: Uuid::nil(),
        page_id: stage.page.page_id.clone(),
        psid: "rehearsal".to_owned(),
        customer_name: None,
        customer_locale: None,
        state: "bot".to_owned(),
        state_reason: None,
        state_since: stage.now,
        epoch: 0,
        lease_token: 0,
        agent: None,
        window_opened_by: Some("message".to_owned()),
        window_opened_at: Some(stage.now),
        window_closes_at: Some(stage.now + chrono::Duration::hours(24)),
        automated_turns: 0,
        disclosure_due: false,
        last_customer_at: Some(stage.now),
        last_reply_at: Some(stage.now),
        last_agent_at: None,
        created_at: stage.now,
    }
}

fn message(stage: &Stage, at: usize, author: &str, text: &str) -> StoredMessage {
    StoredMessage {
        id: i64::try_from(at).unwrap_or(i64::MAX),
        conversation_id: Uuid::nil(),
        mid: format!("rehearsal.{at}"),
        author: author.to_owned(),
        source: "text".to_owned(),
        text: text.to_owned(),
        payload: None,
        attachments: Vec::new(),
        sent_at: stage.now,
        turn_id: None,
        edited_at: None,
        deleted_at: None,
    }
}
