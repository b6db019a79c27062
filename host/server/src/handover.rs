//! Giving a conversation to a person, letting that person answer, and giving it back to the machine.
//!
//! Each of the three is one transaction that locks the conversation first (the lock order everywhere: conversation, then
//! outbox rows and tickets), so it happens entirely before or entirely after a turn's commit and a send's claim:
//!
//! - **takeover**: the epoch rises, what the machine had queued is void, and a turn that is being judged meanwhile
//!   finds another epoch when it commits. Repeated by the same person it changes nothing.
//! - **reply**: takes over when needed, and queues the person's words under the current epoch. A crash before the commit
//!   queued nothing; after it, the outbox sends. With a key for repetitions, the same request queues them once.
//! - **handback**: the epoch rises again, the open ticket is resolved unless asked not to, and the next message of the
//!   customer gets an automated answer, which discloses again that a machine speaks (Meta: "when the chat moves from
//!   human back to automated").
//!
//! A person may write while the messaging window is open, and up to `window_rules.human_agent_hours` (seven days) after the
//! customer's last message with the HUMAN_AGENT tag (Send API, message tags); the outbox decides the tag when it sends.
//! Later nobody may, so the reply is refused here, where the person still sees it.

pub mod thread;

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use frontdesk_messenger::split::split_text;
use frontdesk_messenger::window::WindowRules;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::app::App;
use crate::db;
use crate::db::conversations::Conversation;
use crate::db::outbox::NewRow;
use crate::fail_point::{self, Point};
use crate::tickets;
use crate::words::OUTBOX_TEXT;

/// Longest reply of a person, in characters (Unicode scalar values); it becomes several messages.
pub const REPLY_CHARACTERS_MAX: usize = 8_000;

/// Why a hand-over did not happen. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("there is no conversation {id}")]
    NoConversation { id: Uuid },
    #[error("text: {problem}")]
    Text { problem: String },
    #[error(
        "another app owns this thread in Messenger; take the conversation over first if you are to answer all the same"
    )]
    NotOurs,
    #[error("the Page {page_id} is {state} ({reason}); mend that, then POST /admin/pages/{page_id}/resume")]
    PageCannotSend { page_id: String, state: String, reason: String },
    #[error(
        "the customer last wrote at {last_customer_at}, and Meta lets a person answer for {hours} hours, until {closed_at}; \
         the customer must write first"
    )]
    WindowClosed { last_customer_at: String, closed_at: String, hours: u32 },
    #[error("the customer has not written yet, so Meta lets nobody write to them")]
    NeverWrote,
    #[error(
        "Meta did not do it ({found}, code {code:?}, subcode {subcode:?}); who has the thread now is at GET …/thread, and only \
         its owner, or the Page's default app, may change that"
    )]
    Graph { found: &'static str, code: Option<i64>, subcode: Option<i64> },
    #[error("the hand-over could not be stored")]
    Database {
        #[from]
        source: sqlx::Error,
    },
}

/// What a takeover or handback came to.
#[derive(Debug, Clone, Serialize)]
pub struct Handover {
    /// False: it was so already.
    pub changed: bool,
    /// Unsent messages of the machine that will not go out any more.
    pub voided: u64,
    /// The ticket that a handback resolved.
    pub resolved_ticket: Option<Uuid>,
    pub conversation: Conversation,
}

/// How the outbox will send a person's words, as things stand now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SendsAs {
    /// `messaging_type` RESPONSE: the window is open.
    Response,
    /// `messaging_type` MESSAGE_TAG with the tag HUMAN_AGENT.
    HumanAgent,
}

/// What a reply came to.
#[derive(Debug, Clone, Serialize)]
pub struct Replied {
    /// One per message, in sending order.
    pub outbox_ids: Vec<Uuid>,
    pub sends_as: SendsAs,
    /// The same request was made before; nothing was queued now.
    pub repeated: bool,
    /// The reply took the conversation over.
    pub took_over: bool,
    pub conversation: Conversation,
}

/// Gives the conversation to `agent`. Idempotent; another person's conversation is reassigned.
pub async fn take_over(app: &App, id: Uuid, agent: &str, reason: &str) -> Result<Handover, HandoverError> {
    let mut tx = app.pool.begin().await?;
    let conversation = lock(&mut tx, id).await?;
    if conversation.state == "human" && conversation.agent.as_deref() == Some(agent) {
        return Ok(Handover { changed: false, voided: 0, resolved_ticket: None, conversation });
    }
    let (conversation, voided) = make_human(&mut tx, &conversation, agent, reason).await?;
    fail_point::reach(Point::TakeoverWritten);
    tx.commit().await?;
    fail_point::reach(Point::TakeoverCommitted);
    announce(app, &conversation);
    Ok(Handover { changed: true, voided, resolved_ticket: None, conversation })
}

/// Queues a person's words, taking the conversation over when it is not theirs yet. `request_key` makes repetitions of
/// one request (a double click, a retry after a lost answer) harmless.
pub async fn reply(
    app: &App,
    id: Uuid,
    agent: &str,
    text: &str,
    request_key: Option<&str>,
) -> Result<Replied, HandoverError> {
    let parts = parts(text)?;
    let mut tx = app.pool.begin().await?;
    let before = lock(&mut tx, id).await?;
    let outbox_ids: Vec<Uuid> = (0..parts.len()).map(|index| row_id(id, request_key, index)).collect();
    let now = app.clock.now();
    let sends_as = allowed(&app.settings.window_rules, now, before.window_closes_at, before.last_customer_at);
    if let Some(first) = outbox_ids.first()
        && request_key.is_some()
        && db::outbox::get(&mut *tx, *first).await?.is_some()
    {
        let sends_as = sends_as.unwrap_or(SendsAs::HumanAgent);
        return Ok(Replied { outbox_ids, sends_as, repeated: true, took_over: false, conversation: before });
    }
    let sends_as = sends_as?;
    page_may_send(&mut tx, &before.page_id).await?;
    if before.state == "not_ours" {
        return Err(HandoverError::NotOurs);
    }
    let is_theirs = before.state == "human" && before.agent.as_deref() == Some(agent);
    let conversation = if is_theirs {
        db::conversations::touch_agent(&mut *tx, id, now).await?;
        before
    } else {
        make_human(&mut tx, &before, agent, "replied").await?.0
    };
    // Named after its first part, which a repeated request finds again.
    let reply_id = outbox_ids.first().copied().unwrap_or_else(Uuid::now_v7);
    let sealer = app.words.of(&mut tx, id).await?;
    let texts = parts.iter().map(|text| sealer.seal(OUTBOX_TEXT, text)).collect::<sqlx::Result<Vec<_>>>()?;
    let rows = outbox_ids.iter().zip(&texts);
    let rows: Vec<NewRow<'_>> = rows
        .map(|(row, text)| NewRow {
            id: *row,
            reply_id,
            conversation_id: id,
            page_id: &conversation.page_id,
            psid: &conversation.psid,
            turn_id: None,
            epoch: conversation.epoch,
            agent: Some(agent),
            text,
        })
        .collect();
    db::outbox::insert(&mut *tx, &rows).await?;
    let detail = json!({ "messages": parts.len(), "outbox_ids": outbox_ids, "sends_as": sends_as });
    db::audit::write(&mut *tx, agent, "conversation.reply", &id.to_string(), detail).await?;
    fail_point::reach(Point::ReplyWritten);
    tx.commit().await?;
    fail_point::reach(Point::ReplyCommitted);
    if is_theirs {
        app.outbox.wake();
    } else {
        announce(app, &conversation);
    }
    Ok(Replied { outbox_ids, sends_as, repeated: false, took_over: !is_theirs, conversation })
}

/// Gives the conversation back to the machine, and resolves its open ticket when `resolve` is set. Idempotent.
pub async fn hand_back(app: &App, id: Uuid, agent: &str, resolve: bool) -> Result<Handover, HandoverError> {
    let mut tx = app.pool.begin().await?;
    let before = lock(&mut tx, id).await?;
    let resolved_ticket =
        if resolve { db::tickets::resolve(&mut tx, id, tickets::crm_listens(app)).await? } else { None };
    let changed = before.state != "bot";
    let mut voided = 0;
    if changed {
        let reason = format!("handed back by {agent}");
        voided = db::conversations::set_owner(&mut tx, id, "bot", &reason, None, None).await?;
    }
    let conversation = lock(&mut tx, id).await?;
    if changed || resolved_ticket.is_some() {
        let detail = json!({ "from": before.state, "epoch": conversation.epoch, "resolved_ticket": resolved_ticket });
        db::audit::write(&mut *tx, agent, "conversation.handback", &id.to_string(), detail).await?;
    }
    tx.commit().await?;
    fail_point::reach(Point::HandbackCommitted);
    if changed {
        announce(app, &conversation);
    }
    Ok(Handover { changed, voided, resolved_ticket, conversation })
}

/// Until when a person may write, as far as Meta's rules are known here.
pub fn agent_may_write_until(rules: &WindowRules, conversation: &Conversation) -> Option<DateTime<Utc>> {
    let tagged = conversation.last_customer_at.map(|at| at + Duration::milliseconds(rules.human_agent_ms()));
    tagged.max(conversation.window_closes_at)
}

async fn lock(tx: &mut PgConnection, id: Uuid) -> Result<Conversation, HandoverError> {
    db::conversations::lock(tx, id).await?.ok_or(HandoverError::NoConversation { id })
}

/// Bumps the epoch, voids what the machine queued, and notes who did it. Returns the conversation as it is now.
async fn make_human(
    tx: &mut PgConnection,
    before: &Conversation,
    agent: &str,
    reason: &str,
) -> Result<(Conversation, u64), HandoverError> {
    let why =
        if reason.is_empty() { format!("taken over by {agent}") } else { format!("taken over by {agent}: {reason}") };
    let voided = db::conversations::set_owner(&mut *tx, before.id, "human", &why, Some(agent), None).await?;
    let conversation = lock(&mut *tx, before.id).await?;
    let detail = json!({
        "from": before.state, "from_agent": before.agent, "epoch": conversation.epoch, "voided": voided, "reason": reason,
    });
    db::audit::write(tx, agent, "conversation.takeover", &before.id.to_string(), detail).await?;
    Ok((conversation, voided))
}

fn announce(app: &App, conversation: &Conversation) {
    metrics::counter!("frontdesk_owner_changes_total", "to" => conversation.state.clone()).increment(1);
    tracing::info!(conversation = %conversation.id, state = conversation.state, "the conversation changed its owner");
    app.outbox.wake();
}

async fn page_may_send(tx: &mut PgConnection, page_id: &str) -> Result<(), HandoverError> {
    let (state, reason) = match db::pages::get(&mut *tx, page_id).await? {
        Some(page) if page.state == "active" => return Ok(()),
        Some(page) => (page.state, page.state_reason.unwrap_or_else(|| "no reason was noted".to_owned())),
        None => ("unknown".to_owned(), "it is not in [[pages]]".to_owned()),
    };
    Err(HandoverError::PageCannotSend { page_id: page_id.to_owned(), state, reason })
}

fn parts(text: &str) -> Result<Vec<String>, HandoverError> {
    let text = text.trim();
    let characters = text.chars().count();
    let problem = if text.is_empty() {
        "it is empty, expected the words for the customer".to_owned()
    } else if characters > REPLY_CHARACTERS_MAX {
        format!("it has {characters} characters, expected at most {REPLY_CHARACTERS_MAX}")
    } else if text.contains('\0') {
        "it holds a NUL character, which Messenger cannot show".to_owned()
    } else {
        return Ok(split_text(text, &[]));
    };
    Err(HandoverError::Text { problem })
}

fn allowed(
    rules: &WindowRules,
    now: DateTime<Utc>,
    window_closes_at: Option<DateTime<Utc>>,
    last_customer_at: Option<DateTime<Utc>>,
) -> Result<SendsAs, HandoverError> {
    if window_closes_at.is_some_and(|closes_at| closes_at > now) {
        return Ok(SendsAs::Response);
    }
    let last_customer_at = last_customer_at.ok_or(HandoverError::NeverWrote)?;
    let closed_at = last_customer_at + Duration::milliseconds(rules.human_agent_ms());
    if closed_at > now {
        return Ok(SendsAs::HumanAgent);
    }
    let shown = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    Err(HandoverError::WindowClosed {
        last_customer_at: shown(last_customer_at),
        closed_at: shown(closed_at),
        hours: rules.human_agent_hours,
    })
}

/// A new id; or, for a request with a key, the id that the same request always gets.
fn row_id(conversation_id: Uuid, request_key: Option<&str>, index: usize) -> Uuid {
    let Some(key) = request_key else { return Uuid::now_v7() };
    let mut hash = Sha256::new();
    hash.update(conversation_id.as_bytes());
    hash.update((index as u64).to_be_bytes());
    hash.update(key.as_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(digest.split_at(16).0);
    // Version 8 (RFC 9562): a UUID whose bits have a meaning of our own.
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_may_answer_for_seven_days_and_not_a_moment_longer() {
        let (rules, now) = (WindowRules::default(), Utc::now());
        let ago = |ms: i64| Some(now - Duration::milliseconds(ms));
        let day = 86_400_000;
        let cases = [
            (ago(-1), ago(day - 1), Some(SendsAs::Response)),
            // The long window of an ad is open although the last message is old.
            (ago(-1), ago(8 * day), Some(SendsAs::Response)),
            (ago(0), ago(day), Some(SendsAs::HumanAgent)),
            (None, ago(7 * day - 1), Some(SendsAs::HumanAgent)),
            (ago(6 * day), ago(7 * day), None),
            (None, None, None),
        ];
        for (closes_at, last_customer_at, expected) in cases {
            assert_eq!(
                allowed(&rules, now, closes_at, last_customer_at).ok(),
                expected,
                "{closes_at:?} {last_customer_at:?}"
            );
        }
        let message = allowed(&rules, now, None, ago(9 * day)).unwrap_err().to_string();
        assert!(message.contains("for 168 hours"), "{message}");
    }

    #[test]
    fn a_long_reply_becomes_several_messages_and_a_longer_one_is_refused() {
        assert_eq!(parts(" Hello. ").unwrap(), ["Hello."]);
        let longest = "word ".repeat(REPLY_CHARACTERS_MAX / 5 - 1) + "words";
        assert_eq!(longest.chars().count(), REPLY_CHARACTERS_MAX);
        let split = parts(&longest).unwrap();
        assert!(split.len() >= 5);
        assert!(split.iter().all(|part| part.encode_utf16().count() < 2_000));
        assert_eq!(split.join(" "), longest);
        assert!(parts(&format!("{longest}x")).is_err());
        assert!(parts("  ").is_err());
        assert!(parts("a\0b").is_err());
    }

    #[test]
    fn the_same_request_gets_the_same_rows_and_others_do_not() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(row_id(one, Some("k"), 0), row_id(one, Some("k"), 0));
        let others =
            [row_id(one, Some("k"), 1), row_id(one, Some("l"), 0), row_id(two, Some("k"), 0), row_id(one, None, 0)];
        for other in others {
            assert_ne!(row_id(one, Some("k"), 0), other);
        }
        assert_ne!(row_id(one, None, 0), row_id(one, None, 0));
        assert_eq!(row_id(one, Some("k"), 0).get_version_num(), 8);
    }
}
