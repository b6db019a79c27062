//! Applies a conversation's unread events to what the host knows: messages, edits and unsends, who owns the thread, the
//! messaging window. What the machine may have to answer is left unread for the turn.
//!
//! All of it happens in one transaction, before any model is asked, so that a takeover counts at once. Applying an event
//! twice changes nothing: a crash before the commit repeats it all.

mod content;
mod page;

use chrono::{DateTime, Duration, Utc};
use frontdesk_messenger::event::{Echo, Event, EventKind};
use frontdesk_messenger::ids::{AppId, PageId};
use frontdesk_messenger::window::{self, WindowOpener};
use frontdesk_messenger::{Channel, event};
use sqlx::{Acquire, PgConnection};

use crate::app::App;
use crate::db;
use crate::db::conversations::Conversation;
use crate::db::inbox::StoredEvent;
use crate::db::messages::NewMessage;
use crate::fail_point::{self, Point};
use crate::tickets;
use crate::webhook::{EchoAuthor, echo_author};
use crate::words::{MESSAGE_PAYLOAD, MESSAGE_TEXT, Sealer};
use content::Words;

pub use page::apply_page_event;

/// An unread event that the turn must answer.
#[derive(Debug, Clone)]
pub struct TurnEvent {
    pub inbox_id: i64,
    pub mid: String,
    pub attempts: i32,
    pub event_at: DateTime<Utc>,
}

struct Intake<'a> {
    app: &'a App,
    /// Fetched before any savepoint: a key that is made for it must not be rolled back while it is used.
    sealer: Sealer,
    conversation: Conversation,
    turn: Vec<TurnEvent>,
    /// Events that somebody else answered, because the owner changed after them.
    answered: Vec<i64>,
    /// A failed turn waits for its next try: newer messages wait with it, so that they stay in order.
    is_postponed: bool,
}

/// Applies `events`, marks all but the turn's as handled, and returns the conversation as it then stands. `counts`: the
/// turn is one more attempt, not the repetition of one that an edit has overtaken.
///
/// Each event has a savepoint: one that cannot be applied is tried again later, and given up with a ticket in the end, while
/// its neighbours go on.
pub async fn apply(
    app: &App,
    tx: &mut PgConnection,
    conversation: Conversation,
    events: &[StoredEvent],
    counts: bool,
) -> sqlx::Result<(Conversation, Vec<TurnEvent>)> {
    let (turn, answered) = (Vec::new(), Vec::new());
    let sealer = app.words.of(tx, conversation.id).await?;
    let mut intake = Intake { app, sealer, conversation, turn, answered, is_postponed: false };
    for stored in events {
        let event = Event::from_stored(
            Some(PageId::new(stored.page_id.clone())),
            Channel::from_name(&stored.channel).unwrap_or(Channel::Envelope),
            stored.event_at.map(|at| at.timestamp_millis()),
            stored.payload.clone(),
        );
        let (before, turn, answered) = (intake.conversation.clone(), intake.turn.clone(), intake.answered.clone());
        let mut savepoint = tx.begin().await?;
        let applied = if stored.is_unreadable {
            Err(sqlx::Error::Decode("what was stored of the event does not open".into()))
        } else {
            intake.one(&mut savepoint, stored, &event).await
        };
        match applied {
            Ok(note) => {
                if let Some(note) = note {
                    db::inbox::mark_done(&mut *savepoint, &[stored.id], None, Some(note)).await?;
                } else {
                    intake.is_postponed |= stored.is_postponed;
                }
                savepoint.commit().await?;
            }
            Err(error) => {
                savepoint.rollback().await?;
                (intake.conversation, intake.turn, intake.answered) = (before, turn, answered);
                intake.cannot_apply(tx, stored, &error).await?;
            }
        }
        if let Some(fresh) = db::conversations::get(&mut *tx, intake.conversation.id).await? {
            intake.conversation = fresh;
        }
    }
    db::inbox::mark_done(&mut *tx, &intake.answered, None, Some("a person or another app answers")).await?;
    if intake.is_postponed {
        intake.turn.clear();
    }
    if counts {
        let ids: Vec<i64> = intake.turn.iter().map(|event| event.inbox_id).collect();
        db::inbox::count_attempt(&mut *tx, &ids).await?;
    }
    Ok((intake.conversation, intake.turn))
}

impl Intake<'_> {
    /// Applies one event. `Some(note)`: it is handled. `None`: it belongs to the turn.
    async fn one(
        &mut self,
        tx: &mut PgConnection,
        stored: &StoredEvent,
        event: &Event,
    ) -> sqlx::Result<Option<&'static str>> {
        // Meta's clock counts, but never from the future: it would hold the window open too long.
        let at = stored.event_at.unwrap_or(stored.received_at).min(stored.received_at);
        self.open_window(tx, event, at).await?;
        let note = match &event.kind {
            EventKind::Message(message) => {
                self.customer_message(tx, stored, event, &Words::of_message(message), at).await?;
                return self.owe_answer(tx, stored, event, at).await;
            }
            EventKind::Postback(postback) => {
                self.customer_message(tx, stored, event, &Words::of_postback(postback), at).await?;
                return self.owe_answer(tx, stored, event, at).await;
            }
            EventKind::Lead(lead) => {
                self.customer_message(tx, stored, event, &Words::of_lead(lead), at).await?;
                return self.owe_answer(tx, stored, event, at).await;
            }
            EventKind::Order(_) | EventKind::CustomerInformation { .. } => {
                self.customer_message(tx, stored, event, &Words::of_form(), at).await?;
                return self.owe_answer(tx, stored, event, at).await;
            }
            EventKind::Echo(echo) => self.echo(tx, stored, event, echo, at).await?,
            EventKind::Edit { mid: Some(mid), text: Some(text), .. } => {
                let text = self.sealer.seal(MESSAGE_TEXT, text)?;
                db::messages::edit(&mut *tx, self.conversation.id, mid.as_str(), &text, at).await?;
                if db::messages::is_deleted(&mut *tx, self.conversation.id, mid.as_str()).await? {
                    db::inbox::erase(&mut *tx, &stored.page_id, &self.conversation.psid, mid.as_str()).await?;
                }
                "edit applied"
            }
            EventKind::Unsend { mid: Some(mid) } => {
                db::messages::unsend(&mut *tx, self.conversation.id, mid.as_str(), at).await?;
                db::inbox::erase(&mut *tx, &stored.page_id, &self.conversation.psid, mid.as_str()).await?;
                self.turn.retain(|event| event.mid != mid.as_str());
                let id = self.conversation.id;
                db::outbox::void_withdrawn(&mut *tx, id, mid.as_str()).await?;
                db::decisions::erase(&mut *tx, id, mid.as_str()).await?;
                db::tickets::erase_summary(&mut *tx, id, mid.as_str()).await?;
                db::tickets::touch(&mut *tx, id).await?;
                "message erased"
            }
            EventKind::PassThreadControl { new_owner, .. } => {
                self.new_owner(tx, event.channel, new_owner.as_ref(), true, at).await?;
                "owner noted"
            }
            EventKind::TakeThreadControl { new_owner, .. } => {
                self.new_owner(tx, event.channel, new_owner.as_ref(), false, at).await?;
                "owner noted"
            }
            EventKind::PolicyEnforcement { action, reason } => {
                page::enforce(self.app, tx, &stored.page_id, action, reason.as_deref()).await?;
                "enforcement noted"
            }
            EventKind::RequestThreadControl { requested_owner, .. } => {
                tracing::info!(
                    conversation = %self.conversation.id,
                    requested_owner = requested_owner.as_ref().map(|id| id.as_str()),
                    "another app asks for the thread"
                );
                "request noted"
            }
            EventKind::Referral(_) | EventKind::Optin(_) | EventKind::Reaction(_) => "window noted",
            EventKind::ResponseFeedback { verdict, mid } => {
                let verdict = match verdict {
                    event::Feedback::Good => "good",
                    event::Feedback::Bad => "bad",
                    event::Feedback::Other(_) => "other",
                };
                metrics::counter!("frontdesk_feedback_total", "verdict" => verdict).increment(1);
                if let Some(mid) = mid {
                    db::learning::note_feedback(&mut *tx, self.conversation.id, mid.as_str(), verdict, at).await?;
                }
                "feedback noted"
            }
            EventKind::Delivery { .. } | EventKind::Read { .. } => "receipt",
            EventKind::Malformed { .. } => "malformed",
            EventKind::Unknown { .. } => "unknown kind",
            _ => "no action",
        };
        Ok(Some(note))
    }

    async fn open_window(&self, tx: &mut PgConnection, event: &Event, at: DateTime<Utc>) -> sqlx::Result<()> {
        let id = self.conversation.id;
        let is_message = matches!(event.kind, EventKind::Message(_));
        if is_message && !event.from_page && event.channel != Channel::Changes {
            db::conversations::touch_customer(&mut *tx, id, at).await?;
        }
        if let Some(mut rule) = window::opens_window(event)
            && (!rule.needs_existing_thread || self.conversation.last_customer_at.is_some())
        {
            if is_message && db::conversations::take_ad_click(&mut *tx, id, at).await? {
                rule = WindowOpener::AdMessage.rule();
            }
            let closes_at = at + Duration::milliseconds(rule.duration_ms);
            db::conversations::open_window(&mut *tx, id, opener_name(rule.opener), at, closes_at).await?;
        }
        if window::is_ad_click(event) {
            db::conversations::note_ad_click(&mut *tx, id, at).await?;
        }
        Ok(())
    }

    async fn customer_message(
        &self,
        tx: &mut PgConnection,
        stored: &StoredEvent,
        event: &Event,
        words: &Words<'_>,
        at: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        let mid = mid_of(stored);
        let author = if event.from_page { "agent" } else { "customer" };
        let payload = words.payload.map(|payload| self.sealer.seal(MESSAGE_PAYLOAD, payload)).transpose()?;
        let message = NewMessage {
            conversation_id: self.conversation.id,
            mid: &mid,
            author,
            source: words.source,
            text: &self.sealer.seal(MESSAGE_TEXT, &words.text)?,
            payload: payload.as_deref(),
            attachments: words.attachments.clone(),
            sent_at: at,
            outbox_id: None,
        };
        if !db::messages::insert(&mut *tx, &message).await? {
            // The unsend overtook its message: what Meta delivered now is erased too.
            db::inbox::erase(&mut *tx, &stored.page_id, &self.conversation.psid, &mid).await?;
        }
        Ok(())
    }

    /// Decides whether a customer's event needs the machine's answer.
    async fn owe_answer(
        &mut self,
        tx: &mut PgConnection,
        stored: &StoredEvent,
        event: &Event,
        at: DateTime<Utc>,
    ) -> sqlx::Result<Option<&'static str>> {
        if event.channel == Channel::Standby {
            // A copy from before the thread was given to us says nothing about now.
            if self.conversation.state == "bot" && !self.is_before_owner(at) {
                self.set_owner(tx, "not_ours", "the thread belongs to another app", at).await?;
            }
            return Ok(Some("read along in standby"));
        }
        if self.conversation.state == "not_ours" {
            self.set_owner(tx, "bot", "Meta delivers the thread to us again", at).await?;
        }
        if self.conversation.state == "human" && self.is_quiet(at) {
            self.set_owner(tx, "bot", "no word from a person for handover.quiet_hours", at).await?;
        }
        if !event::needs_turn(event) {
            return Ok(Some("needs no answer"));
        }
        if self.conversation.state != "bot" {
            db::tickets::touch(&mut *tx, self.conversation.id).await?;
            return Ok(Some("a person or another app answers"));
        }
        self.turn.push(TurnEvent { inbox_id: stored.id, mid: mid_of(stored), attempts: stored.attempts, event_at: at });
        Ok(None)
    }

    fn is_quiet(&self, at: DateTime<Utc>) -> bool {
        let last = self.conversation.last_agent_at.unwrap_or(self.conversation.state_since);
        at - last > Duration::hours(self.app.settings.handover.quiet_hours)
    }

    /// Whether something happened before the present owner became it. An owner that nothing changed was always there.
    fn is_before_owner(&self, at: DateTime<Utc>) -> bool {
        self.conversation.state_reason.is_some() && at < self.conversation.state_since
    }

    /// Tries an event again later; after `worker.attempts_max` it is kept as failed, and a person is told.
    async fn cannot_apply(
        &mut self,
        tx: &mut PgConnection,
        stored: &StoredEvent,
        error: &sqlx::Error,
    ) -> sqlx::Result<()> {
        tracing::error!(%error, event = stored.id, kind = stored.kind, "an event could not be applied");
        metrics::counter!("frontdesk_events_failed_total", "kind" => stored.kind.clone()).increment(1);
        let settings = &self.app.settings.worker;
        db::inbox::count_attempt(&mut *tx, &[stored.id]).await?;
        if stored.attempts + 1 < settings.attempts_max {
            let exponent = u32::try_from(stored.attempts).unwrap_or(0).min(16);
            let after_ms = i64::try_from(settings.retry_ms.saturating_mul(1 << exponent)).unwrap_or(i64::MAX);
            return db::inbox::postpone(&mut *tx, &[stored.id], after_ms, "could not be applied").await;
        }
        db::inbox::mark_failed(&mut *tx, stored.id, "could not be applied").await?;
        let ticket = db::tickets::NewTicket {
            conversation_id: self.conversation.id,
            page_id: &stored.page_id,
            turn_id: None,
            priority: "high",
            reason: "processing-failed",
            summary: "An event of this conversation could not be processed. Please look at it in the Page Inbox.",
            tags: &["processing".to_owned()],
        };
        tickets::open(self.app, tx, &ticket).await?;
        Ok(())
    }

    /// As [`Intake::set_owner`], unless it is so already.
    async fn change_owner(
        &mut self,
        tx: &mut PgConnection,
        state: &str,
        reason: &str,
        at: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        if self.conversation.state == state { Ok(()) } else { self.set_owner(tx, state, reason, at).await }
    }

    async fn set_owner(
        &mut self,
        tx: &mut PgConnection,
        state: &str,
        reason: &str,
        at: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        if state != "bot" {
            // What came before belongs to the new owner too, whoever owns the thread later.
            self.answered.extend(self.turn.drain(..).map(|event| event.inbox_id));
        }
        db::conversations::set_owner(&mut *tx, self.conversation.id, state, reason, None, Some(at)).await?;
        fail_point::reach(Point::OwnerChanged);
        metrics::counter!("frontdesk_owner_changes_total", "to" => state.to_owned()).increment(1);
        tracing::info!(conversation = %self.conversation.id, state, reason, "the conversation changed its owner");
        if let Some(fresh) = db::conversations::get(&mut *tx, self.conversation.id).await? {
            self.conversation = fresh;
        }
        Ok(())
    }

    async fn echo(
        &mut self,
        tx: &mut PgConnection,
        stored: &StoredEvent,
        event: &Event,
        echo: &Echo,
        at: DateTime<Utc>,
    ) -> sqlx::Result<&'static str> {
        let words = Words::of_message(&echo.message);
        let mid = mid_of(stored);
        let (author, outbox_id, note) = match echo_author(self.app, echo) {
            EchoAuthor::Outbox(id) => match db::outbox::get(&mut *tx, id).await? {
                // The echo proves that Meta took the message, whatever became of the answer to our request.
                Some(row) if row.conversation_id == self.conversation.id => {
                    db::outbox::mark_sent(&mut *tx, id, Some(&mid)).await?;
                    if row.state == "sent" && row.message_id.is_none() {
                        // A person settled it before Meta's id was known.
                        db::messages::learn_mid(&mut *tx, row.conversation_id, id, &mid).await?;
                    }
                    (if row.author == "agent" { "agent" } else { "bot" }, Some(id), "our own send")
                }
                _ => ("bot", None, "a send that this installation does not know"),
            },
            EchoAuthor::Harmless => ("bot", None, "sent by our app, not by a person"),
            EchoAuthor::SomebodyElse => {
                self.somebody_else_answers(tx, event, echo, at).await?;
                ("agent", None, "somebody else answered")
            }
        };
        let message = NewMessage {
            conversation_id: self.conversation.id,
            mid: &mid,
            author,
            source: "text",
            text: &self.sealer.seal(MESSAGE_TEXT, &words.text)?,
            payload: None,
            attachments: words.attachments,
            sent_at: at,
            outbox_id,
        };
        db::messages::insert(&mut *tx, &message).await?;
        fail_point::reach(Point::EchoApplied);
        Ok(note)
    }

    async fn somebody_else_answers(
        &mut self,
        tx: &mut PgConnection,
        event: &Event,
        echo: &Echo,
        at: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        // An echo of before the conversation was handed back says nothing about now.
        if self.is_before_owner(at) {
            return Ok(());
        }
        if event.channel == Channel::Standby {
            if self.conversation.state == "bot" {
                self.set_owner(tx, "not_ours", "another app answered", at).await?;
            }
        } else if self.conversation.state == "human" {
            db::conversations::touch_agent(&mut *tx, self.conversation.id, at).await?;
            // The machine's own word that a person will come may still wait: the person is there.
            let reason = "a person answered in the Page Inbox";
            db::conversations::silence_machine(tx, self.conversation.id, reason).await?;
        } else {
            let reason = match &echo.app_id {
                Some(app_id) if !app_id.is_inbox() => format!("app {app_id} answered"),
                _ => "a person answered in the Page Inbox".to_owned(),
            };
            self.set_owner(tx, "human", &reason, at).await?;
        }
        Ok(())
    }

    /// Applies that Meta gave the thread to somebody. To us only when it is clear: without an app id of our own, a pass that is
    /// delivered to us (not in standby) is a pass to us; a take is always another's. An agent who took the conversation in
    /// Frontdesk keeps it.
    async fn new_owner(
        &mut self,
        tx: &mut PgConnection,
        channel: Channel,
        new_owner: Option<&AppId>,
        is_pass: bool,
        at: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        if self.is_before_owner(at) {
            return Ok(());
        }
        let ours = &self.app.settings.graph.app_id;
        let held_by_agent = self.conversation.state == "human" && self.conversation.agent.is_some();
        match new_owner {
            Some(owner) if owner.is_inbox() => {
                self.change_owner(tx, "human", "the Page Inbox took the thread", at).await?
            }
            Some(owner) if owner.as_str() == ours || (ours.is_empty() && is_pass) => {
                if channel == Channel::Standby || held_by_agent {
                    return Ok(());
                }
                self.change_owner(tx, "bot", "the thread was given to us", at).await?;
            }
            Some(owner) => {
                let reason = format!("the thread was given to app {owner}");
                self.change_owner(tx, "not_ours", &reason, at).await?;
            }
            // Idle: whoever may answer shows when the next message arrives.
            None => {}
        }
        Ok(())
    }
}

fn mid_of(stored: &StoredEvent) -> String {
    stored.mid.clone().unwrap_or_else(|| format!("event-{}", stored.id))
}

/// The contract's words for what opened the window.
fn opener_name(opener: WindowOpener) -> &'static str {
    match opener {
        WindowOpener::AdMessage => "ad",
        other => other.name(),
    }
}
