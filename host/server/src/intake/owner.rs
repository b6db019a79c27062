//! Who has a conversation, as far as Meta's events tell: the machine, people, or another app.

use chrono::{DateTime, Duration, Utc};
use frontdesk_messenger::event::{Echo, Event, EventKind};
use frontdesk_messenger::ids::{AppId, LEAD_GENERATION_APP_ID};
use frontdesk_messenger::{Channel, Recipient};
use sqlx::PgConnection;

use super::Intake;
use crate::db;
use crate::fail_point::{self, Point};
use crate::webhook::is_us;

impl Intake<'_> {
    /// Whether the conversation was with Meta's own app, which asks the questions of a lead ad, and this event says that it has
    /// its answers: nobody else would take it from there.
    pub(super) fn ends_metas_questions(&self, event: &Event) -> bool {
        let lead_app = AppId::from(LEAD_GENERATION_APP_ID);
        let is_end = match &event.kind {
            EventKind::Lead(lead) => lead.is_complete,
            EventKind::Message(message) => message.hop_context.iter().any(|hop| hop.app_id.as_ref() == Some(&lead_app)),
            _ => false,
        };
        is_end && self.is_with_metas_questions()
    }

    fn is_with_metas_questions(&self) -> bool {
        self.conversation.agent.is_none() && self.is_reason(&answered_by(&AppId::from(LEAD_GENERATION_APP_ID)))
    }

    fn is_reason(&self, reason: &str) -> bool {
        self.conversation.state_reason.as_deref() == Some(reason)
    }

    pub(super) fn is_quiet(&self, at: DateTime<Utc>) -> bool {
        let last = self.conversation.last_agent_at.unwrap_or(self.conversation.state_since);
        at - last > Duration::hours(self.app.settings.handover.quiet_hours)
    }

    /// Whether something happened before the present owner became it. An owner that nothing changed was always there.
    pub(super) fn is_before_owner(&self, at: DateTime<Utc>) -> bool {
        self.conversation.state_reason.is_some() && at < self.conversation.state_since
    }

    /// As [`Intake::set_owner`], unless it is so already.
    pub(super) async fn change_owner(
        &mut self,
        tx: &mut PgConnection,
        state: &str,
        reason: &str,
        at: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        if self.conversation.state == state { Ok(()) } else { self.set_owner(tx, state, reason, at).await }
    }

    pub(super) async fn set_owner(
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
        self.read_again(tx).await
    }

    /// Notes that the person is the one whom a plugin knew by the `user_ref` of this key. Whoever had that conversation has this one
    /// too, unless somebody has said since who has it.
    pub(super) async fn known_before(&mut self, tx: &mut PgConnection, key: &str) -> sqlx::Result<()> {
        let conversation = &self.conversation;
        if !Recipient::is_user_ref(key) || conversation.psid == key || Recipient::is_user_ref(&conversation.psid) {
            return Ok(());
        }
        let (page_id, psid) = (&conversation.page_id, &conversation.psid);
        let Some(before) = db::conversations::learn_psid(&mut *tx, page_id, key, psid).await? else { return Ok(()) };
        tracing::info!(conversation = %conversation.id, "the person is known from a plugin");
        if before.state == "bot" || conversation.state != "bot" || conversation.state_reason.is_some() {
            return Ok(());
        }
        let reason = before.state_reason.unwrap_or_else(|| "somebody else answers since a plugin began it".to_owned());
        self.set_owner(tx, &before.state, &reason, before.state_since).await
    }

    async fn inbox_took(&mut self, tx: &mut PgConnection, at: DateTime<Utc>) -> sqlx::Result<()> {
        if self.conversation.state == "human" && !self.is_with_metas_questions() {
            return Ok(());
        }
        self.set_owner(tx, "human", "the Page Inbox took the thread", at).await
    }

    pub(super) async fn somebody_else_answers(
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
        let reason = match &echo.app_id {
            Some(app_id) if !app_id.is_inbox() => answered_by(app_id),
            _ => "a person answered in the Page Inbox".to_owned(),
        };
        if event.channel == Channel::Standby {
            if self.conversation.state == "bot" {
                self.set_owner(tx, "not_ours", "another app answered", at).await?;
            }
        } else if self.conversation.state == "human" && (!self.is_with_metas_questions() || self.is_reason(&reason)) {
            db::conversations::touch_agent(&mut *tx, self.conversation.id, at).await?;
            // The machine's own word that a person will come may still wait: the person is there.
            let reason = "a person answered in the Page Inbox";
            db::conversations::silence_machine(tx, self.conversation.id, reason).await?;
        } else {
            self.set_owner(tx, "human", &reason, at).await?;
        }
        Ok(())
    }

    /// Applies that Meta gave the thread to somebody. To us only when it is clear ([`is_us`]), and not in standby. An agent who
    /// took the conversation in Frontdesk keeps it.
    pub(super) async fn new_owner(
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
        let held_by_agent = self.conversation.state == "human" && self.conversation.agent.is_some();
        match new_owner {
            Some(owner) if owner.is_inbox() => self.inbox_took(tx, at).await?,
            Some(owner) if is_us(self.app, owner, is_pass) => {
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

fn answered_by(app_id: &AppId) -> String {
    format!("app {app_id} answered")
}
