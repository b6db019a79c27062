//! How a turn ends: written, left, given up, or put off.

use std::time::Instant;

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{Committed, TurnError};
use crate::app::App;
use crate::db;
use crate::db::conversations::Conversation;
use crate::db::decisions::NewDecision;
use crate::db::lent::Lent;
use crate::db::outbox::NewRow;
use crate::db::tickets::NewTicket;
use crate::db::turns::{Ending, Verdict};
use crate::fail_point::{self, Point};
use crate::intake::TurnEvent;
use crate::pipeline::{self, TurnInput, TurnResult};
use crate::records::{Job, Records};
use crate::tickets;
use crate::words::{OUTBOX_TEXT, Sealer};

/// Longest pause before a failed turn is tried again.
const RETRY_MS_MAX: u64 = 300_000;

/// Everything that the turn decided, at once: by one statement, or by a transaction where more belongs to it than the statement
/// writes (a ticket, a person's first key).
pub(super) async fn commit(
    app: &App,
    input: &TurnInput,
    turn: &[TurnEvent],
    may_grow: bool,
    result: &TurnResult,
    started: Instant,
) -> sqlx::Result<Committed> {
    let conversation = &input.conversation;
    let mids: &[String] = &turn.iter().map(|event| event.mid.clone()).collect::<Vec<_>>();
    let ids: Vec<i64> = turn.iter().map(|event| event.inbox_id).collect();
    let shown: Vec<String> = input.history.iter().map(|message| message.mid.clone()).collect();
    let decision = NewDecision {
        turn_id: input.turn_id,
        page_id: &conversation.page_id,
        chain: &input.page.chain,
        revision: &result.revision,
        slot: result.slot.as_str(),
        route: result.route,
        outcome: result.outcome,
        confidence: result.confidence,
        reason: &result.reason,
        mids,
        history_mids: &shown,
        record_version: pipeline::RECORD_VERSION,
        duration_us: i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX),
    };
    let mut ending = Ending {
        conversation,
        decision,
        inbox_ids: &ids,
        may_grow,
        answers: !result.replies.is_empty(),
        disclosed: result.disclosed,
        answered_at: input.now,
        rows: &[],
    };
    let mut connection = app.connections.take().await?;
    let record = Record::of(app, input, result);
    let sealer = if result.replies.is_empty() { None } else { app.words.recall(conversation.id) };
    let is_plain = result.ticket.is_none() && (sealer.is_some() || result.replies.is_empty());
    let verdict = if is_plain {
        let texts = sealed(sealer.as_ref(), result)?;
        let rows: Vec<NewRow<'_>> = rows(input, &texts, conversation.epoch).collect();
        ending.rows = &rows;
        db::turns::end(&mut *connection, &ending).await?
    } else {
        let mut tx = connection.begin().await?;
        let verdict = db::turns::end(&mut *tx, &ending).await?;
        if verdict == Verdict::Written {
            effects(app, &mut tx, input, result).await?;
        }
        fail_point::reach(Point::TurnWritten);
        tx.commit().await?;
        verdict
    };
    match verdict {
        Verdict::Written | Verdict::Superseded => {}
        Verdict::LeaseLost => {
            record.discard();
            return Ok(Committed::LeaseLost);
        }
        Verdict::Redo => {
            record.discard();
            return Ok(Committed::Redo);
        }
    }
    fail_point::reach(Point::TurnCommitted);
    app.outbox.wake();
    // Beside the reply's path: what becomes of the record changes nothing about the turn.
    record.write();
    Ok(Committed::Done { more: more(app, connection, conversation).await })
}

/// The record of a turn that is being committed. Dropped undecided (the statement failed, or was cut off with its lease), it is
/// handed on as one whose decision may stand or not.
struct Record<'a> {
    records: &'a Records,
    job: Option<Job>,
}

impl<'a> Record<'a> {
    fn of(app: &'a App, input: &TurnInput, result: &TurnResult) -> Self {
        let job = Job {
            turn_id: input.turn_id,
            page_id: input.conversation.page_id.clone(),
            psid: input.conversation.psid.clone(),
            version: pipeline::RECORD_VERSION,
            record: result.record.clone(),
            unknown_since: None,
        };
        Self { records: &app.records, job: Some(job) }
    }

    /// The decision is written.
    fn write(mut self) {
        if let Some(job) = self.job.take() {
            self.records.write(job);
        }
    }

    /// The decision is not written.
    fn discard(mut self) {
        self.job = None;
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            self.records.write(Job { unknown_since: Some(Instant::now()), ..job });
        }
    }
}

/// The replies as the outbox holds them.
fn sealed(sealer: Option<&Sealer>, result: &TurnResult) -> sqlx::Result<Vec<String>> {
    let Some(sealer) = sealer else { return Ok(Vec::new()) };
    result.replies.iter().map(|text| sealer.seal(OUTBOX_TEXT, text)).collect()
}

/// The parts of the turn's answer, sealed, as rows under an epoch.
fn rows<'a>(input: &'a TurnInput, texts: &'a [String], epoch: i64) -> impl Iterator<Item = NewRow<'a>> {
    texts.iter().map(move |text| NewRow {
        id: Uuid::now_v7(),
        conversation_id: input.conversation.id,
        page_id: &input.conversation.page_id,
        psid: &input.conversation.psid,
        turn_id: Some(input.turn_id),
        reply_id: input.turn_id,
        epoch,
        agent: None,
        text,
    })
}

/// Whether something of a conversation is unread, after its lease was given back. When nobody can tell, it is looked at again.
async fn more(app: &App, mut connection: Lent, conversation: &Conversation) -> bool {
    let (page_id, psid) = (&conversation.page_id, &conversation.psid);
    let Ok(more) = db::in_time(db::inbox::has_pending(&mut *connection, page_id, psid)).await else { return true };
    app.connections.give_back(connection);
    more
}

/// Ticket, owner and replies of a turn whose decision the transaction has written. A hand-over changes the owner first, so that the
/// notice belongs to the new epoch.
async fn effects(app: &App, tx: &mut PgConnection, input: &TurnInput, result: &TurnResult) -> sqlx::Result<()> {
    let conversation = &input.conversation;
    let mut epoch = conversation.epoch;
    if let Some(ticket) = &result.ticket {
        let new = NewTicket {
            conversation_id: conversation.id,
            page_id: &conversation.page_id,
            turn_id: Some(input.turn_id),
            priority: ticket.priority,
            reason: &ticket.reason,
            summary: &ticket.summary,
            tags: &ticket.tags,
        };
        tickets::open(app, tx, &new).await?;
        metrics::counter!("frontdesk_tickets_total", "priority" => ticket.priority).increment(1);
        if ticket.hands_over {
            db::conversations::set_owner(tx, conversation.id, "human", &ticket.reason, None, None).await?;
            epoch += 1;
        }
    }
    if !result.replies.is_empty() {
        let sealer = app.words.of(tx, conversation.id).await?;
        let texts = sealed(Some(&sealer), result)?;
        db::outbox::insert(&mut *tx, &rows(input, &texts, epoch).collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// Marks the turn's events as handled without an answer, unless another worker has the conversation by now.
pub(super) async fn leave(
    app: &App,
    conversation: &Conversation,
    turn: &[TurnEvent],
    why: &str,
) -> sqlx::Result<Committed> {
    let mut connection = app.connections.take().await?;
    let mut tx = connection.begin().await?;
    if lock_leased(&mut tx, conversation).await?.is_none() {
        return Ok(Committed::LeaseLost);
    }
    let ids: Vec<i64> = turn.iter().map(|event| event.inbox_id).collect();
    db::inbox::mark_done(&mut *tx, &ids, None, Some(why)).await?;
    db::conversations::release(&mut *tx, conversation.id, conversation.lease_token).await?;
    tx.commit().await?;
    tracing::warn!(conversation = %conversation.id, page = conversation.page_id, why, "events are left unanswered");
    Ok(Committed::Done { more: more(app, connection, conversation).await })
}

/// Locks the conversation for a transaction and reads it as it stands now. `None`: the lease is another worker's by now.
pub(super) async fn lock_leased(tx: &mut PgConnection, leased: &Conversation) -> sqlx::Result<Option<Conversation>> {
    let now = db::conversations::lock(tx, leased.id).await?;
    Ok(now.filter(|now| now.lease_token == leased.lease_token))
}

/// A turn that keeps failing becomes a matter for a person.
pub(super) async fn give_up(
    app: &App,
    conversation: &Conversation,
    turn: &[TurnEvent],
    attempts: i32,
) -> sqlx::Result<Committed> {
    let mut connection = app.connections.take().await?;
    let mut tx = connection.begin().await?;
    let Some(now) = lock_leased(&mut tx, conversation).await? else { return Ok(Committed::LeaseLost) };
    let summary = format!("This inquiry could not be processed in {attempts} attempts. Please answer it by hand.");
    let ticket = NewTicket {
        conversation_id: now.id,
        page_id: &now.page_id,
        turn_id: None,
        priority: "high",
        reason: "processing-failed",
        summary: &summary,
        tags: &["processing".to_owned()],
    };
    tickets::open(app, &mut tx, &ticket).await?;
    db::conversations::set_owner(&mut tx, now.id, "human", "processing-failed", None, None).await?;
    let ids: Vec<i64> = turn.iter().map(|event| event.inbox_id).collect();
    db::inbox::mark_done(&mut *tx, &ids, None, Some("given up; a ticket was opened")).await?;
    db::conversations::release(&mut *tx, now.id, now.lease_token).await?;
    tx.commit().await?;
    metrics::counter!("frontdesk_turns_given_up_total").increment(1);
    Ok(Committed::Done { more: more(app, connection, &now).await })
}

pub(super) async fn postpone(app: &App, turn: &[TurnEvent], error: &TurnError) -> sqlx::Result<()> {
    let attempts = turn.iter().map(|event| event.attempts).max().unwrap_or(0);
    let exponent = u32::try_from(attempts).unwrap_or(0).min(16);
    let pause_ms = app.settings.worker.retry_ms.saturating_mul(1 << exponent).min(RETRY_MS_MAX);
    let ids: Vec<i64> = turn.iter().map(|event| event.inbox_id).collect();
    let kind = match error {
        TurnError::Database { .. } => "database",
        TurnError::Pipeline { .. } => "pipeline",
    };
    db::inbox::postpone(&app.pool, &ids, false, i64::try_from(pause_ms).unwrap_or(i64::MAX), kind).await
}
