//! Applies a conversation's unread events to what the host knows: messages, edits and unsends, who owns the thread, the
//! messaging window. What the machine may have to answer is left unread for the turn.
//!
//! All of it happens in one transaction, before any model is asked, so that a takeover counts at once. Applying an event
//! twice changes nothing: a crash before the commit repeats it all.

mod content;
mod owner;
mod page;

use chrono::{DateTime, Duration, Utc};
use frontdesk_messenger::event::{Echo, Event, EventKind};
use frontdesk_messenger::ids::PageId;
use frontdesk_messenger::window::{self, WindowOpener, WindowRule};
use frontdesk_messenger::{Channel, Recipient, event};
use sqlx::{Connection, PgConnection};

use crate::app::App;
use crate::db;
use crate::db::conversations::{Conversation, Opening};
use crate::db::inbox::{Kept, StoredEvent};
use crate::db::messages::NewMessage;
use crate::fail_point::{self, Point};
use crate::tickets;
use crate::webhook::{EchoAuthor, echo_author};
use crate::words::{MESSAGE_PAYLOAD, MESSAGE_TEXT, Sealer};
use content::Words;

pub use page::apply_page_event;

const OWN_MID_PREFIX: &str = "event-";

/// An unread event that the turn must answer.
#[derive(Debug, Clone)]
pub struct TurnEvent {
    pub inbox_id: i64,
    pub mid: String,
    pub attempts: i32,
    pub event_at: DateTime<Utc>,
}

/// What was read of a conversation.
#[derive(Debug)]
pub struct Unread<'a> {
    pub events: &'a [StoredEvent],
    /// Of the payloads that were not under the person's key: what is to be stored instead.
    pub sealed_anew: Vec<Kept>,
    /// Seals what is made of them. Fetched before any savepoint: a key that is made for it must not be rolled back while it is used.
    pub sealer: &'a Sealer,
    /// Whether the turn is one more attempt, not the repetition of one that an edit has overtaken.
    pub counts: bool,
    /// Whether even a single event has a savepoint.
    pub is_careful: bool,
}

struct Intake<'a> {
    app: &'a App,
    sealer: &'a Sealer,
    conversation: Conversation,
    turn: Vec<TurnEvent>,
    /// Events that somebody else answered, because the owner changed after them.
    answered: Vec<i64>,
    /// A failed turn waits for its next try: newer messages wait with it, so that they stay in order.
    is_postponed: bool,
}

/// Applies what is unread, marks all but the turn's as handled, and returns the conversation as it then stands.
///
/// Each event has a savepoint: one that cannot be applied is tried again later, and given up with a ticket in the end, while
/// its neighbours go on. An event that comes alone, as almost all do, does without, unless the caller is careful: then its error
/// is the caller's, who rolls back and is careful.
pub async fn apply(
    app: &App,
    tx: &mut PgConnection,
    conversation: Conversation,
    unread: Unread<'_>,
) -> sqlx::Result<(Conversation, Vec<TurnEvent>)> {
    let Unread { events, mut sealed_anew, sealer, counts, is_careful } = unread;
    let (turn, answered) = (Vec::new(), Vec::new());
    let mut intake = Intake { app, sealer, conversation, turn, answered, is_postponed: false };
    for stored in events {
        let event = Event::from_stored(
            Some(PageId::new(stored.page_id.clone())),
            Channel::from_name(&stored.channel).unwrap_or(Channel::Envelope),
            stored.event_at.map(|at| at.timestamp_millis()),
            stored.payload.clone(),
        );
        if stored.is_unreadable {
            let error = sqlx::Error::Decode("what was stored of the event does not open".into());
            intake.cannot_apply(tx, stored, &error).await?;
        } else if is_careful || events.len() > 1 {
            intake.one_in_savepoint(tx, stored, &event).await?;
        } else {
            intake.one_and_mark(tx, stored, &event).await?;
        }
    }
    db::inbox::mark_done(&mut *tx, &intake.answered, None, Some("a person or another app answers")).await?;
    if intake.is_postponed {
        intake.turn.clear();
    }
    if counts {
        for event in &intake.turn {
            match sealed_anew.iter_mut().find(|kept| kept.id == event.inbox_id) {
                Some(kept) => kept.counts = true,
                None => sealed_anew.push(Kept { id: event.inbox_id, sealed: None, counts: true }),
            }
        }
    }
    db::inbox::keep(&mut *tx, &sealed_anew).await?;
    Ok((intake.conversation, intake.turn))
}

impl Intake<'_> {
    async fn one_in_savepoint(
        &mut self,
        tx: &mut PgConnection,
        stored: &StoredEvent,
        event: &Event,
    ) -> sqlx::Result<()> {
        let (before, turn, answered) = (self.conversation.clone(), self.turn.clone(), self.answered.clone());
        let mut savepoint = tx.begin().await?;
        match self.one_and_mark(&mut savepoint, stored, event).await {
            Ok(()) => savepoint.commit().await,
            Err(error) => {
                savepoint.rollback().await?;
                (self.conversation, self.turn, self.answered) = (before, turn, answered);
                self.cannot_apply(tx, stored, &error).await
            }
        }
    }

    /// Applies one event, and marks it as handled unless it belongs to the turn.
    async fn one_and_mark(&mut self, tx: &mut PgConnection, stored: &StoredEvent, event: &Event) -> sqlx::Result<()> {
        match self.one(tx, stored, event).await? {
            Some(note) => db::inbox::mark_done(&mut *tx, &[stored.id], None, Some(note)).await?,
            None => self.is_postponed |= stored.is_postponed,
        }
        // What the customer writes changes the conversation through its own functions, which tell how it stands.
        if !matches!(event.kind, EventKind::Message(_) | EventKind::Postback(_)) {
            self.read_again(tx).await?;
        }
        Ok(())
    }

    async fn read_again(&mut self, tx: &mut PgConnection) -> sqlx::Result<()> {
        if let Some(fresh) = db::conversations::get(&mut *tx, self.conversation.id).await? {
            self.conversation = fresh;
        }
        Ok(())
    }

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
        if let (Some(_), Some(user_ref)) = (&event.psid, &event.user_ref)
            && let Some(key) = Recipient::UserRef(user_ref.clone()).person_key()
        {
            self.known_before(tx, &key).await?;
        }
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
                let author = if event.from_page { "agent" } else { "customer" };
                let id = self.conversation.id;
                if db::messages::edit(&mut *tx, id, mid.as_str(), author, &text, at).await? {
                    self.reconsider(tx, event, mid.as_str()).await?;
                }
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
                if db::outbox::void_withdrawn(&mut *tx, id, mid.as_str()).await? > 0 {
                    db::conversations::take_reply_back(&mut *tx, id).await?;
                }
                self.reconsider(tx, event, mid.as_str()).await?;
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

    /// The customer changed or withdrew what an answer is about that waits to be sent: it is taken back, and what is left of
    /// its question is this turn's. An answer of which a part has left, or may have, stays.
    async fn reconsider(&mut self, tx: &mut PgConnection, event: &Event, mid: &str) -> sqlx::Result<()> {
        if self.conversation.state != "bot" || event.from_page || event.channel != Channel::Messaging {
            return Ok(());
        }
        let id = self.conversation.id;
        let Some(turn_id) = db::outbox::take_back(&mut *tx, id, mid).await? else { return Ok(()) };
        db::conversations::take_reply_back(&mut *tx, id).await?;
        let mids = db::decisions::supersede(&mut *tx, turn_id).await?;
        let ids: Vec<i64> = mids.iter().filter_map(|mid| mid.strip_prefix(OWN_MID_PREFIX)?.parse().ok()).collect();
        let person = (self.conversation.page_id.as_str(), self.conversation.psid.as_str());
        for again in db::inbox::reopen(&mut *tx, turn_id, person, &mids, &ids).await? {
            let mid = again.mid.unwrap_or_else(|| own_mid(again.id));
            let event_at = again.event_at.unwrap_or(again.received_at).min(again.received_at);
            self.turn.push(TurnEvent { inbox_id: again.id, mid, attempts: 0, event_at });
        }
        tracing::info!(conversation = %id, "an answer that waited was taken back: its question changed");
        Ok(())
    }

    async fn open_window(&mut self, tx: &mut PgConnection, event: &Event, at: DateTime<Utc>) -> sqlx::Result<()> {
        let is_known = self.conversation.last_customer_at.or(self.conversation.window_opened_at).is_some();
        let is_message = matches!(event.kind, EventKind::Message(_));
        let wrote = is_message && !event.from_page && event.channel != Channel::Changes;
        let closes_at = |rule: WindowRule| at + Duration::milliseconds(rule.duration_ms);
        let rules = &self.app.settings.window_rules;
        let rule = rules.opened_by(event).filter(|rule| !rule.needs_existing_thread || is_known);
        let opening = rule.map(|rule| {
            let ad = rules.of(WindowOpener::AdMessage).filter(|_| is_message);
            let after_ad_click = ad.map(|ad| (opener_name(ad.opener), closes_at(ad)));
            Opening { opened_by: opener_name(rule.opener), closes_at: closes_at(rule), after_ad_click }
        });
        if wrote || opening.is_some() {
            let id = self.conversation.id;
            if let Some(fresh) = db::conversations::note_customer(&mut *tx, id, at, wrote, opening).await? {
                self.conversation = fresh;
            }
        }
        if window::is_ad_click(event) {
            self.ad_click(tx, at).await?;
            self.read_again(tx).await?;
        }
        Ok(())
    }

    /// The first message after the click opens the long window, and no later one: when Meta delivers a click after the message
    /// that followed it, that message's window is extended.
    async fn ad_click(&self, tx: &mut PgConnection, at: DateTime<Utc>) -> sqlx::Result<()> {
        let id = self.conversation.id;
        let Some(wrote_at) = db::messages::first_written_since(&mut *tx, id, at).await? else {
            return db::conversations::note_ad_click(&mut *tx, id, at).await;
        };
        let Some(rule) = self.app.settings.window_rules.of(WindowOpener::AdMessage) else { return Ok(()) };
        let closes_at = wrote_at + Duration::milliseconds(rule.duration_ms);
        db::conversations::open_window(&mut *tx, id, opener_name(rule.opener), wrote_at, closes_at).await
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
        // As above: a message that Meta delivers late tells who had the thread when it was written.
        if self.conversation.state == "not_ours" && !self.is_before_owner(at) {
            self.set_owner(tx, "bot", "Meta delivers the thread to us again", at).await?;
        }
        if self.conversation.state == "human" && self.ends_metas_questions(event) {
            self.set_owner(tx, "bot", "Meta's own questions are answered", at).await?;
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
        if stored.attempts + 1 < settings.attempts_max {
            let exponent = u32::try_from(stored.attempts).unwrap_or(0).min(16);
            let after_ms = i64::try_from(settings.retry_ms.saturating_mul(1 << exponent)).unwrap_or(i64::MAX);
            return db::inbox::postpone(&mut *tx, &[stored.id], true, after_ms, "could not be applied").await;
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

    async fn echo(
        &mut self,
        tx: &mut PgConnection,
        stored: &StoredEvent,
        event: &Event,
        echo: &Echo,
        at: DateTime<Utc>,
    ) -> sqlx::Result<&'static str> {
        let words = Words::of_message(&echo.message);
        let mut mid = mid_of(stored);
        let (author, outbox_id, note) = match echo_author(self.app, echo) {
            EchoAuthor::Outbox(id) => match db::outbox::get(&mut *tx, id).await? {
                // The echo proves that Meta took the message, whatever became of the answer to our request; also when it names
                // the person by another id than we sent to, as after a `user_ref`.
                Some(row) if row.page_id == stored.page_id => {
                    self.known_before(tx, &row.psid).await?;
                    db::outbox::mark_sent(&mut *tx, id, stored.mid.as_deref()).await?;
                    match stored.mid.as_deref() {
                        // A person settled it before Meta's id was known.
                        Some(mid) if row.state == "sent" && row.message_id.is_none() => {
                            db::messages::learn_mid(&mut *tx, row.conversation_id, id, mid).await?;
                        }
                        Some(_) => {}
                        // The answer to our request will tell the id.
                        None => mid = row.message_id.unwrap_or_else(|| db::messages::mid_of_row(id)),
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
        if !db::messages::insert(&mut *tx, &message).await? {
            // The unsend overtook its echo.
            db::inbox::forget(&mut *tx, stored.id).await?;
        }
        fail_point::reach(Point::EchoApplied);
        Ok(note)
    }
}

fn mid_of(stored: &StoredEvent) -> String {
    stored.mid.clone().unwrap_or_else(|| own_mid(stored.id))
}

/// The id that the transcript gives an event that Meta gave none.
fn own_mid(inbox_id: i64) -> String {
    format!("{OWN_MID_PREFIX}{inbox_id}")
}

/// The contract's words for what opened the window.
fn opener_name(opener: WindowOpener) -> &'static str {
    match opener {
        WindowOpener::AdMessage => "ad",
        other => other.name(),
    }
}
