//! Settles sends of which nobody knows whether Meta took them: by Meta's own record, never by sending again and hoping.
//!
//! The echo (read by `intake`) is the first witness, the Conversations API the second. Its silence counts only when it lasts and
//! no unread echo may break it. What neither settles is shown to a person.

use std::sync::Arc;

use frontdesk_messenger::{Failure, Recipient};
use tokio_util::sync::CancellationToken;

use super::{SentRow, confirm, describe, open_delivery_ticket, pause_when_full, stop_page};
use crate::app::App;
use crate::db;
use crate::db::outbox::InDoubt;
use crate::fail_point::{self, Point};
use crate::pages::TOKEN_DEAD;
use crate::settings::ms;

/// A look-up of a send in doubt is repeated after this long.
const LOOK_AGAIN_MS: i64 = 5_000;
/// Rows looked up in one step: few, so that a step ends before the rows may be taken again.
const LOOK_UPS_MAX: i64 = 4;
/// Meta's clock and ours may differ by this much.
const CLOCK_SKEW_MS: i64 = 900_000;
/// Messages looked through for a send in doubt.
const LOOK_THROUGH_MAX: u32 = 50;

/// Looks up sends whose result is not known.
pub(super) async fn run(app: Arc<App>, stop: CancellationToken) {
    let settings = &app.settings.outbox;
    let every = ms(settings.poll_ms.max(200));
    let stale_ms = i64::try_from(settings.in_doubt_after_ms).unwrap_or(i64::MAX);
    let grace_ms = i64::try_from(settings.echo_grace_ms).unwrap_or(i64::MAX);
    while crate::queue::pause(every, &stop).await {
        let doubted = async {
            db::outbox::doubt_stale(&app.pool, stale_ms).await?;
            let mut rows = db::outbox::take_in_doubt(&app.pool, grace_ms, LOOK_AGAIN_MS, LOOK_UPS_MAX).await?;
            app.words.open(&app.pool, &mut rows).await?;
            Ok(rows)
        };
        match db::in_time(doubted).await {
            Ok(rows) => {
                for row in rows {
                    // Nothing is half done when it is dropped: what it settles, it settles in one transaction at its end.
                    let limit = ms(app.settings.graph.timeout_ms) + 2 * db::ANSWER_MAX;
                    if tokio::time::timeout(limit, look_up(&app, &row)).await.is_err() {
                        tracing::error!(outbox = %row.id, "the look-up of a send in doubt did not end in time");
                    }
                }
            }
            Err(error) => tracing::error!(%error, "sends in doubt could not be read"),
        }
    }
}

async fn look_up(app: &App, row: &InDoubt) {
    fail_point::reach(Point::DoubtTaken);
    let seen = match find_in_conversation(app, row).await {
        Ok(seen) => seen,
        Err(reason) => {
            metrics::counter!("frontdesk_doubts_total", "result" => "unanswered").increment(1);
            ask_a_person(app, row, &reason).await;
            return;
        }
    };
    fail_point::reach(Point::DoubtLookedUp);
    if seen.is_none() {
        // Meta's record may lag behind its acceptance: only absence that lasts counts.
        let grace_ms = i64::try_from(app.settings.outbox.echo_grace_ms).unwrap_or(i64::MAX);
        match db::outbox::note_absent(&app.pool, row.id, row.claimed_at, grace_ms).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::error!(%error, outbox = %row.id, "a look-up could not be noted");
                return;
            }
        }
    }
    let result = match seen {
        Some(message_id) => {
            metrics::counter!("frontdesk_doubts_total", "result" => "sent").increment(1);
            let sent =
                SentRow { id: row.id, conversation_id: row.conversation_id, author: &row.author, text: &row.text };
            confirm(app, &sent, &message_id, row.claimed_at).await
        }
        None if row.attempts >= app.settings.outbox.attempts_max => {
            let error = format!("not in the conversation, and given up after {} attempts", row.attempts);
            fail_in_doubt(app, row, &error).await
        }
        None => {
            metrics::counter!("frontdesk_doubts_total", "result" => "not_sent").increment(1);
            let error = "the Conversations API shows that it was not sent";
            db::outbox::requeue(&app.pool, row.id, row.claimed_at, 0, true, error).await
        }
    };
    match result {
        Ok(()) => app.outbox.wake(),
        Err(error) => tracing::error!(%error, outbox = %row.id, "a send in doubt could not be settled"),
    }
}

/// Meta's own record: the message's id when it is there, `None` when it surely is not, an error when nobody can say.
async fn find_in_conversation(app: &App, row: &InDoubt) -> Result<Option<String>, String> {
    let page = app.outbox.page(&row.page_id).ok_or("this Page has no access token here")?;
    let Recipient::Psid(psid) = Recipient::of_person(&row.psid) else {
        return Err("a person known by user_ref alone cannot be looked up".into());
    };
    let reply = app.outbox.graph.conversation(&page, &psid, LOOK_THROUGH_MAX).await;
    pause_when_full(app, &row.page_id, &reply).await;
    if matches!(reply.result, Err(Failure::TokenDead { .. })) && app.outbox.tokens.is_current(&page).await {
        let reason = format!("{TOKEN_DEAD}: {}", describe(&reply.trace));
        stop_page(app, &row.page_id, "parked", &reason).await.map_err(|error| error.to_string())?;
    }
    let conversation = reply.result.map_err(|failure| {
        format!("the Conversations API did not help ({}): {}", failure.name(), describe(&reply.trace))
    })?;
    // The person wrote to the Page, so a conversation exists; none shown means that we may not see it.
    let conversation = conversation.ok_or("the Conversations API shows no conversation with this person")?;
    let since_ms = row.first_sent_at.map_or(0, |at| at.timestamp_millis()) - CLOCK_SKEW_MS;
    for message in &conversation.messages {
        let is_ours = message.from_id.as_deref() == Some(row.page_id.as_str())
            && message.created_ms.is_none_or(|at| at >= since_ms)
            && message.text.as_deref().is_some_and(|text| has_words_of(text, &row.text));
        if !is_ours {
            continue;
        }
        // The same words may have been sent before, by another row, or by a person.
        let known = db::messages::belongs_to_another(&app.pool, row.conversation_id, message.id.as_str(), row.id)
            .await
            .map_err(|error| error.to_string())?;
        if !known {
            return Ok(Some(message.id.as_str().to_owned()));
        }
    }
    let reaches_back = conversation.messages.len() < LOOK_THROUGH_MAX as usize
        || conversation.messages.iter().any(|m| m.created_ms.is_some_and(|at| at < since_ms));
    if reaches_back { Ok(None) } else { Err("the conversation has too many newer messages to be sure".into()) }
}

/// Whether two texts differ in their blanks at most: what is kept of a message may have other line ends than what was sent, and
/// taking it for another would send it again.
fn has_words_of(kept: &str, sent: &str) -> bool {
    kept.split_whitespace().eq(sent.split_whitespace())
}

/// After a while a person is asked to look; the row stays visible and unsettled.
async fn ask_a_person(app: &App, row: &InDoubt, reason: &str) {
    if row.age_ms < i64::try_from(app.settings.outbox.unknown_ticket_after_ms).unwrap_or(i64::MAX) {
        return;
    }
    let opened = async {
        let mut tx = app.pool.begin().await?;
        db::conversations::lock(&mut tx, row.conversation_id).await?;
        if db::tickets::open_of_conversation(&mut *tx, row.conversation_id).await?.is_none() {
            let text = format!("Meta may or may not have sent it; look at the conversation and settle it. {reason}");
            open_delivery_ticket(app, &mut tx, row.conversation_id, &row.page_id, "delivery-unknown", &text).await?;
        }
        tx.commit().await
    };
    if let Err(error) = opened.await {
        tracing::error!(%error, outbox = %row.id, "no ticket could be opened for a send in doubt");
    }
}

async fn fail_in_doubt(app: &App, row: &InDoubt, error: &str) -> sqlx::Result<()> {
    let mut tx = app.pool.begin().await?;
    db::conversations::lock(&mut tx, row.conversation_id).await?;
    if db::outbox::mark_failed(&mut *tx, row.id, Some(row.claimed_at), (None, None), error).await? {
        db::conversations::disclose_again(&mut *tx, row.conversation_id).await?;
        db::outbox::fail_following(&mut *tx, row.id, "an earlier part of the same reply failed").await?;
        open_delivery_ticket(app, &mut tx, row.conversation_id, &row.page_id, "delivery-failed", error).await?;
    }
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::has_words_of;

    #[test]
    fn a_kept_text_may_differ_in_blanks_alone() {
        let sent = "Yes.\n\n  We ship to Austria. ";
        for kept in [sent, "Yes.\r\n\r\nWe ship to Austria.", "Yes. We ship to Austria."] {
            assert!(has_words_of(kept, sent), "{kept:?}");
        }
        for kept in ["", "Yes.", "Yes. We ship to Australia.", "Yes. We ship to Austria. Yes."] {
            assert!(!has_words_of(kept, sent), "{kept:?}");
        }
    }
}
