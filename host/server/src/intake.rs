//! Applies a conversation's unread events to what the host knows: messages, edits and unsends, who owns the thread, the
//! messaging window. What the machine may have to answer is left unread for the turn.
//!
//! All of it happens in one transaction, before any model is asked, so that a takeover counts at once. Applying an event
//! twice changes nothing: a crash before the commit repeats it all.

use chrono::{DateTime, Duration, Utc};
use frontdesk_messenger::event::{
    Attachment, AttachmentKind, Echo, Event, EventKind, Lead, Message, PolicyAction, Postback,
};
use frontdesk_messenger::ids::{AppId, PageId};
use frontdesk_messenger::window::{self, WindowOpener};
use frontdesk_messenger::{Channel, event};
use sqlx::PgConnection;

use crate::app::App;
use crate::db;
use crate::db::conversations::Conversation;
use crate::db::inbox::StoredEvent;
use crate::db::messages::NewMessage;
use crate::webhook::{EchoAuthor, echo_author};

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
    conversation: Conversation,
    turn: Vec<TurnEvent>,
}

/// Applies `events`, marks all but the turn's as handled, and returns the conversation as it then stands.
pub async fn apply(
    app: &App,
    tx: &mut PgConnection,
    conversation: Conversation,
    events: &[StoredEvent],
) -> sqlx::Result<(Conversation, Vec<TurnEvent>)> {
    let mut intake = Intake { app, conversation, turn: Vec::new() };
    for stored in events {
        let event = Event::from_stored(
            Some(PageId::new(stored.page_id.clone())),
            Channel::from_name(&stored.channel).unwrap_or(Channel::Envelope),
            stored.event_at.map(|at| at.timestamp_millis()),
            stored.payload.clone(),
        );
        let note = intake.one(tx, stored, &event).await?;
        if let Some(note) = note {
            db::inbox::mark_done(&mut *tx, &[stored.id], None, Some(note)).await?;
        }
        if let Some(fresh) = db::conversations::get(&mut *tx, intake.conversation.id).await? {
            intake.conversation = fresh;
        }
    }
    // A takeover among the events also takes the messages before it from the machine.
    if intake.conversation.state != "bot" && !intake.turn.is_empty() {
        let ids: Vec<i64> = intake.turn.iter().map(|event| event.inbox_id).collect();
        db::inbox::mark_done(&mut *tx, &ids, None, Some("a person or another app answers")).await?;
        intake.turn.clear();
    }
    let ids: Vec<i64> = intake.turn.iter().map(|event| event.inbox_id).collect();
    db::inbox::count_attempt(&mut *tx, &ids).await?;
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
                db::messages::edit(&mut *tx, self.conversation.id, mid.as_str(), text, at).await?;
                "edit applied"
            }
            EventKind::Unsend { mid: Some(mid) } => {
                db::messages::unsend(&mut *tx, self.conversation.id, mid.as_str(), at).await?;
                db::inbox::erase(&mut *tx, &stored.page_id, &self.conversation.psid, mid.as_str()).await?;
                self.turn.retain(|event| event.mid != mid.as_str());
                "message erased"
            }
            EventKind::PassThreadControl { new_owner, .. } | EventKind::TakeThreadControl { new_owner, .. } => {
                self.new_owner(tx, new_owner.as_ref()).await?;
                "owner noted"
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
            EventKind::ResponseFeedback { verdict, .. } => {
                let verdict = match verdict {
                    event::Feedback::Good => "good",
                    event::Feedback::Bad => "bad",
                    event::Feedback::Other(_) => "other",
                };
                metrics::counter!("frontdesk_feedback_total", "verdict" => verdict).increment(1);
                "feedback counted"
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
        if is_message && event.channel != Channel::Changes {
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
        let message = NewMessage {
            conversation_id: self.conversation.id,
            mid: &mid,
            author,
            source: words.source,
            text: &words.text,
            payload: words.payload,
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
            if self.conversation.state == "bot" {
                self.set_owner(tx, "not_ours", "the thread belongs to another app").await?;
            }
            return Ok(Some("read along in standby"));
        }
        if self.conversation.state == "not_ours" {
            self.set_owner(tx, "bot", "Meta delivers the thread to us again").await?;
        }
        if self.conversation.state == "human" && self.is_quiet(at) {
            self.set_owner(tx, "bot", "no word from a person for handover.quiet_hours").await?;
        }
        if !event::needs_turn(event) {
            return Ok(Some("needs no answer"));
        }
        if self.conversation.state != "bot" {
            return Ok(Some("a person or another app answers"));
        }
        self.turn.push(TurnEvent {
            inbox_id: stored.id,
            mid: mid_of(stored),
            attempts: stored.attempts,
            event_at: at,
        });
        Ok(None)
    }

    fn is_quiet(&self, at: DateTime<Utc>) -> bool {
        let last = self.conversation.last_agent_at.unwrap_or(self.conversation.state_since);
        at - last > Duration::hours(self.app.settings.handover.quiet_hours)
    }

    async fn set_owner(&mut self, tx: &mut PgConnection, state: &str, reason: &str) -> sqlx::Result<()> {
        db::conversations::set_owner(&mut *tx, self.conversation.id, state, reason, None).await?;
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
            text: &words.text,
            payload: None,
            attachments: words.attachments,
            sent_at: at,
            outbox_id,
        };
        db::messages::insert(&mut *tx, &message).await?;
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
        if self.conversation.state_reason.is_some() && at < self.conversation.state_since {
            return Ok(());
        }
        if event.channel == Channel::Standby {
            if self.conversation.state == "bot" {
                self.set_owner(tx, "not_ours", "another app answered").await?;
            }
        } else if self.conversation.state == "human" {
            db::conversations::touch_agent(&mut *tx, self.conversation.id, at).await?;
        } else {
            let reason = match &echo.app_id {
                Some(app_id) if !app_id.is_inbox() => format!("app {app_id} answered"),
                _ => "a person answered in the Page Inbox".to_owned(),
            };
            self.set_owner(tx, "human", &reason).await?;
        }
        Ok(())
    }

    async fn new_owner(&mut self, tx: &mut PgConnection, new_owner: Option<&AppId>) -> sqlx::Result<()> {
        let ours = &self.app.settings.graph.app_id;
        match new_owner {
            Some(owner) if owner.is_inbox() => {
                if self.conversation.state != "human" {
                    self.set_owner(tx, "human", "the Page Inbox took the thread").await?;
                }
            }
            // Without our own app id, a pass that is delivered to us is a pass to us.
            Some(owner) if !ours.is_empty() && owner.as_str() != ours => {
                if self.conversation.state != "not_ours" {
                    let reason = format!("the thread was given to app {owner}");
                    self.set_owner(tx, "not_ours", &reason).await?;
                }
            }
            _ => {
                if self.conversation.state != "bot" {
                    self.set_owner(tx, "bot", "the thread was given to us").await?;
                }
            }
        }
        Ok(())
    }
}

/// Applies an event of a Page's own: enforcement of Meta's policies, roles, posts.
pub async fn apply_page_event(app: &App, tx: &mut PgConnection, stored: &StoredEvent) -> sqlx::Result<()> {
    let event = Event::from_stored(
        Some(PageId::new(stored.page_id.clone())),
        Channel::from_name(&stored.channel).unwrap_or(Channel::Envelope),
        stored.event_at.map(|at| at.timestamp_millis()),
        stored.payload.clone(),
    );
    let note = match &event.kind {
        EventKind::PolicyEnforcement { action, reason } => {
            let reason = reason.as_deref().unwrap_or("no reason given");
            match action {
                PolicyAction::Block => {
                    let text = format!("Meta's policy enforcement blocked the Page: {reason}");
                    db::pages::set_state(&mut *tx, &stored.page_id, "stopped", &text).await?;
                    tracing::error!(page = stored.page_id, reason, "Meta blocked the Page; nothing more is sent");
                }
                PolicyAction::Unblock => {
                    db::pages::set_state(&mut *tx, &stored.page_id, "active", "Meta unblocked the Page").await?;
                    tracing::warn!(page = stored.page_id, "Meta unblocked the Page; sending goes on");
                }
                PolicyAction::Warning | PolicyAction::Other(_) => {
                    tracing::error!(page = stored.page_id, reason, "Meta warned the Page about its messages");
                }
            }
            metrics::counter!("frontdesk_policy_enforcement_total", "page" => stored.page_id.clone()).increment(1);
            app.outbox.wake();
            "enforcement noted"
        }
        EventKind::Malformed { .. } => "malformed",
        EventKind::Unknown { .. } => "unknown kind",
        _ => "belongs to no conversation",
    };
    db::inbox::mark_done(&mut *tx, &[stored.id], None, Some(note)).await
}

/// The words that an event carries.
struct Words<'a> {
    source: &'static str,
    text: String,
    payload: Option<&'a str>,
    attachments: Vec<&'static str>,
}

impl<'a> Words<'a> {
    fn of_message(message: &'a Message) -> Self {
        let payload = message.quick_reply_payload.as_deref();
        let mut attachments: Vec<&'static str> = message.attachments.iter().map(attachment_name).collect();
        if message.order.is_some() || message.is_unsupported {
            attachments.push("other");
        }
        Self {
            source: if payload.is_some() { "quick-reply" } else { "text" },
            text: message.text.clone().unwrap_or_default(),
            payload,
            attachments,
        }
    }

    fn of_postback(postback: &'a Postback) -> Self {
        Self {
            source: "postback",
            text: postback.title.clone().unwrap_or_default(),
            payload: postback.payload.as_deref(),
            attachments: Vec::new(),
        }
    }

    fn of_lead(lead: &'a Lead) -> Self {
        let text = lead
            .answers
            .iter()
            .map(|a| format!("{}: {}", a.question.as_deref().unwrap_or("?"), a.answer.as_deref().unwrap_or("?")))
            .collect::<Vec<_>>()
            .join("\n");
        Self { source: "lead", text, payload: None, attachments: Vec::new() }
    }

    /// Carts and forms hold personal data: only that there was one is told on.
    fn of_form() -> Self {
        Self { source: "text", text: String::new(), payload: None, attachments: vec!["other"] }
    }
}

fn mid_of(stored: &StoredEvent) -> String {
    stored.mid.clone().unwrap_or_else(|| format!("event-{}", stored.id))
}

fn attachment_name(attachment: &Attachment) -> &'static str {
    if attachment.is_sticker() {
        return "sticker";
    }
    match attachment.kind {
        AttachmentKind::Image => "image",
        AttachmentKind::Audio => "audio",
        AttachmentKind::Video => "video",
        AttachmentKind::File => "file",
        AttachmentKind::Location => "location",
        AttachmentKind::Reel | AttachmentKind::Post | AttachmentKind::Fallback | AttachmentKind::Template => "share",
        _ => "other",
    }
}

/// The contract's words for what opened the window.
fn opener_name(opener: WindowOpener) -> &'static str {
    match opener {
        WindowOpener::AdMessage => "ad",
        other => other.name(),
    }
}
