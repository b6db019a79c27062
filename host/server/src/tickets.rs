//! Tells a CRM about tickets: one signed POST per event, until it is taken.
//!
//! # What is sent
//! `POST tickets.webhook_url`, JSON:
//! ```json
//! { "event": "ticket.opened",
//!   "ticket": { "id": "…", "state": "open", "priority": "high", "reason": "…", "summary": "…", "tags": [],
//!               "transcript": [{ "mid": "…", "author": "customer", "text": "…", "attachments": [], "sent_at": "…" }], "…": "…" },
//!   "conversation": { "id": "…", "page_id": "…", "psid": "…", "customer_name": null, "state": "bot", "…": "…" },
//!   "delivered_at": "2026-11-22T10:20:30Z" }
//! ```
//! When a person is erased of whose tickets the CRM was told, it is told so: their copies are the receiver's to delete.
//! ```json
//! { "event": "person.erased",
//!   "person": { "page_id": "…", "psid": "…", "conversation_id": "…", "ticket_ids": ["…"] },
//!   "delivered_at": "2026-11-22T10:20:30Z" }
//! ```
//! `event` is `ticket.opened`, `ticket.repeated`, `ticket.resolved` or `person.erased`. The ticket is sent as it stands now, not as it stood when the
//! event happened, so a late delivery never takes the receiver back in time. The headers are those of Standard Webhooks:
//! `Webhook-Id` (the same for every attempt, so the receiver can drop repetitions), `Webhook-Timestamp` (Unix seconds) and
//! `Webhook-Signature: v1,<base64 of HMAC-SHA256(secret, "id.timestamp.body")>`. A secret written `whsec_<base64>` stands for
//! the decoded bytes; any other is used as it is.
//!
//! # Delivery
//! A row of `ticket_deliveries` is written in the transaction that changes the ticket, and claimed here for longer than an
//! attempt may take, so replicas do not double it. A crash between the POST and the note of its success repeats it:
//! at least once, never lost.
//!
//! | answer | then |
//! |--------|------|
//! | 2xx | delivered |
//! | 410 | given up: the receiver says that it is gone for good |
//! | 408, 425, 429, 5xx, no answer | again after 5 s, doubled each time up to an hour; `Retry-After` is obeyed within it |
//! | anything else | again after a minute, doubled each time up to 6 hours: somebody must mend the receiver |
//!
//! After `tickets.attempts_max` attempts the row is `failed`, which the metrics and the status page show. Redirects are
//! not followed (a signed body is for one receiver), answers are not read, bodies are never logged.

mod signature;

use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use chrono::{SecondsFormat, Utc};
use frontdesk_messenger::usage::retry_after_ms;
use rand::Rng;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::app::App;
use crate::db;
use crate::db::tickets::{Delivery, NewTicket, Ticket};
use crate::fail_point::{self, Point};
use crate::keys::{Binding, KeyError, Keys, Wrapped};
use crate::queue::pause;
use crate::settings::ms;
use crate::words::TICKET_SUMMARY;
use signature::Signer;

/// How often due rows are looked for.
const POLL: Duration = Duration::from_secs(1);
/// After an outage of the database.
const POLL_AFTER_ERROR: Duration = Duration::from_secs(5);
/// Attempts running at once in this process.
const CONCURRENCY: i64 = 8;
/// A claim outlasts the attempt by this much, for the statements around it.
const CLAIM_MARGIN_MS: u64 = 30_000;
const RETRY_S: u64 = 5;
const RETRY_MAX_S: u64 = 3_600;
const REFUSED_RETRY_S: u64 = 60;
const REFUSED_RETRY_MAX_S: u64 = 6 * 3_600;

/// Messages of a transcript.
const TRANSCRIPT_MAX: i64 = 200;

/// Whether a CRM is to be told about tickets.
pub fn crm_listens(app: &App) -> bool {
    !app.settings.tickets.webhook_url.is_empty()
}

fn notice_binding() -> Binding<'static> {
    Binding { purpose: "erasure-notice", version: 1, ids: &[] }
}

/// Tells a CRM that the person of a conversation is being erased, if it was told of their tickets. In the transaction that erases,
/// before the tickets go.
pub async fn note_erasure(
    app: &App,
    tx: &mut PgConnection,
    conversation_id: Uuid,
    page_id: &str,
    psid: &str,
) -> sqlx::Result<()> {
    let tickets = db::tickets::told_of(&mut *tx, conversation_id).await?;
    if tickets.is_empty() || !crm_listens(app) {
        return Ok(());
    }
    let person = json!({ "page_id": page_id, "psid": psid, "conversation_id": conversation_id, "ticket_ids": tickets });
    let wrapped = app.keys.ring().wrap(&notice_binding(), person.to_string().as_bytes());
    let wrapped = wrapped.map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    db::tickets::queue_notice(tx, &wrapped).await
}

/// Wraps notices that wait again under the current key, at most `limit`. Returns how many.
///
/// # Errors
/// See [`KeyError`].
pub async fn rewrap_notices(keys: &Keys, pool: &PgPool, limit: i64) -> Result<u64, KeyError> {
    let mut tx = pool.begin().await?;
    let stored = db::tickets::notices_not_under(&mut *tx, keys.ring().current(), limit).await?;
    for (id, key_id, sealed) in &stored {
        let wrapped = Wrapped { key_id: key_id.clone(), sealed: sealed.clone() };
        let again = keys.ring().rewrap(&notice_binding(), &wrapped)?;
        db::tickets::rewrap_notice(&mut *tx, *id, &again).await?;
    }
    tx.commit().await?;
    Ok(stored.len() as u64)
}

/// Opens a ticket or adds a matter to the open one, in a transaction that holds the conversation's lock; the summary is sealed. A CRM is
/// told in the same transaction.
pub async fn open(app: &App, tx: &mut PgConnection, ticket: &NewTicket<'_>) -> sqlx::Result<Uuid> {
    let sealer = app.words.of(tx, ticket.conversation_id).await?;
    let summary = sealer.seal(TICKET_SUMMARY, ticket.summary)?;
    db::tickets::open(tx, &NewTicket { summary: &summary, ..ticket.clone() }, crm_listens(app)).await
}

/// A ticket as people read it: words opened, with the messages up to its resolution.
pub async fn read(app: &App, pool: &PgPool, id: Uuid) -> sqlx::Result<Option<Ticket>> {
    let Some(mut ticket) = db::tickets::get(pool, id).await? else { return Ok(None) };
    app.words.open(pool, std::slice::from_mut(&mut ticket)).await?;
    let mut messages =
        db::messages::shown_until(pool, ticket.conversation_id, ticket.resolved_at, TRANSCRIPT_MAX).await?;
    app.words.open(pool, &mut messages).await?;
    let shown = messages.into_iter().map(|message| {
        json!({ "mid": message.mid, "author": message.author, "text": message.text, "attachments": message.attachments,
                "sent_at": message.sent_at })
    });
    ticket.transcript = shown.collect();
    Ok(Some(ticket))
}

/// Starts delivering, when a receiver is configured.
pub fn start(app: &Arc<App>, tasks: &TaskTracker, stop: &CancellationToken) {
    let Some(secret) = &app.secrets.ticket_webhook else { return };
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
    let sender = match client {
        Ok(client) => Arc::new(Sender { app: Arc::clone(app), client, signer: Signer::new(secret) }),
        Err(error) => {
            tracing::error!(%error, "tickets cannot be delivered: the HTTP client cannot be built");
            return;
        }
    };
    tasks.spawn(deliver_loop(sender, stop.clone()));
}

struct Sender {
    app: Arc<App>,
    client: reqwest::Client,
    signer: Signer,
}

async fn deliver_loop(sender: Arc<Sender>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let wait = match deliver_due(&sender).await {
            // A full batch: more may be due.
            Ok(count) if i64::try_from(count).unwrap_or(0) >= CONCURRENCY => continue,
            Ok(_) => POLL,
            Err(error) => {
                tracing::error!(%error, "ticket deliveries could not be read or noted");
                POLL_AFTER_ERROR
            }
        };
        if !pause(wait, &stop).await {
            return;
        }
    }
}

/// One batch, all at once; a stop lets it end. Returns how many were due.
async fn deliver_due(sender: &Sender) -> sqlx::Result<usize> {
    let claim_ms = sender.app.settings.tickets.timeout_ms.saturating_add(CLAIM_MARGIN_MS);
    let claim_ms = i64::try_from(claim_ms).unwrap_or(i64::MAX);
    let due = db::in_time(db::tickets::claim_deliveries(&sender.app.pool, claim_ms, CONCURRENCY)).await?;
    let results = futures::future::join_all(due.iter().map(|delivery| sender.deliver(delivery))).await;
    results.into_iter().collect::<sqlx::Result<Vec<()>>>()?;
    Ok(due.len())
}

impl Sender {
    async fn deliver(&self, delivery: &Delivery) -> sqlx::Result<()> {
        let pool = &self.app.pool;
        let Some(body) = db::in_time(self.body(delivery)).await? else {
            return db::in_time(db::tickets::delivery_failed(pool, delivery.id, None, "the ticket is gone")).await;
        };
        let answer = self.post(delivery.id, body).await;
        let verdict = judge(&answer, delivery.attempts, self.app.settings.tickets.attempts_max);
        metrics::counter!("frontdesk_ticket_deliveries_total", "result" => verdict.name()).increment(1);
        fail_point::reach(Point::TicketPosted);
        let error = answer.describe();
        match verdict {
            Verdict::Delivered => {
                db::in_time(db::tickets::delivery_done(pool, delivery.id)).await?;
                fail_point::reach(Point::TicketNoted);
                Ok(())
            }
            Verdict::Again(seconds) => {
                tracing::warn!(
                    delivery = delivery.id, ticket = ?delivery.ticket_id, attempts = delivery.attempts, error,
                    retry_s = seconds.as_secs(), "a ticket was not delivered"
                );
                let retry_at = self.app.clock.now() + jittered(seconds);
                db::in_time(db::tickets::delivery_failed(pool, delivery.id, Some(retry_at), &error)).await
            }
            Verdict::GivenUp => {
                tracing::error!(
                    delivery = delivery.id, ticket = ?delivery.ticket_id, attempts = delivery.attempts, error,
                    "a ticket was not delivered, and is not tried again"
                );
                db::in_time(db::tickets::delivery_failed(pool, delivery.id, None, &error)).await
            }
        }
    }

    /// `None`: the ticket was deleted meanwhile.
    async fn body(&self, delivery: &Delivery) -> sqlx::Result<Option<Vec<u8>>> {
        let pool = &self.app.pool;
        let Some(ticket_id) = delivery.ticket_id else { return Ok(self.notice(delivery)) };
        let Some(ticket) = read(&self.app, pool, ticket_id).await? else { return Ok(None) };
        let conversation = db::conversations::get(pool, ticket.conversation_id).await?;
        let body = json!({
            "event": delivery.event,
            "ticket": ticket,
            "conversation": conversation,
            "delivered_at": Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
        });
        Ok(Some(body.to_string().into_bytes()))
    }

    /// The notice of an erasure.
    fn notice(&self, delivery: &Delivery) -> Option<Vec<u8>> {
        let (key_id, sealed) = delivery.key_id.clone().zip(delivery.notice.clone())?;
        let opened = self.app.keys.ring().unwrap(&notice_binding(), &Wrapped { key_id, sealed });
        let opened =
            opened.inspect_err(|error| tracing::error!(%error, "the notice of an erasure does not open")).ok()?;
        let person: serde_json::Value = serde_json::from_slice(&opened).ok()?;
        let body = json!({
            "event": delivery.event,
            "person": person,
            "delivered_at": Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
        });
        Some(body.to_string().into_bytes())
    }

    async fn post(&self, id: i64, body: Vec<u8>) -> Answer {
        let settings = &self.app.settings.tickets;
        let id = id.to_string();
        let timestamp = Utc::now().timestamp();
        let signature = self.signer.sign(&id, timestamp, &body);
        let sent = self
            .client
            .post(&settings.webhook_url)
            .timeout(ms(settings.timeout_ms))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("Frontdesk/", env!("CARGO_PKG_VERSION")))
            .header("Webhook-Id", id)
            .header("Webhook-Timestamp", timestamp)
            .header("Webhook-Signature", signature)
            .body(body)
            .send()
            .await;
        match sent {
            Ok(response) => {
                Answer::Status(response.status(), retry_after_ms(response.headers()).map(|ms| ms.div_ceil(1_000)))
            }
            // The address may hold a secret of the receiver's.
            Err(error) => Answer::None(error.without_url().to_string()),
        }
    }
}

/// What the receiver said.
#[derive(Debug)]
enum Answer {
    /// With `Retry-After` in seconds.
    Status(StatusCode, Option<u64>),
    None(String),
}

impl Answer {
    fn describe(&self) -> String {
        match self {
            Self::Status(status, _) => format!("HTTP {}", status.as_u16()),
            Self::None(error) => error.clone(),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Delivered,
    Again(Duration),
    GivenUp,
}

impl Verdict {
    fn name(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Again(_) => "again",
            Self::GivenUp => "given_up",
        }
    }
}

/// `attempts` counts this one.
fn judge(answer: &Answer, attempts: i32, attempts_max: i32) -> Verdict {
    let (first_s, max_s, asked_s) = match answer {
        Answer::Status(status, _) if status.is_success() => return Verdict::Delivered,
        Answer::Status(StatusCode::GONE, _) => return Verdict::GivenUp,
        Answer::Status(status, asked_s) if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) => {
            (RETRY_S, RETRY_MAX_S, asked_s.unwrap_or(0))
        }
        Answer::Status(..) => (REFUSED_RETRY_S, REFUSED_RETRY_MAX_S, 0),
        Answer::None(_) => (RETRY_S, RETRY_MAX_S, 0),
    };
    if attempts >= attempts_max {
        return Verdict::GivenUp;
    }
    let exponent = u32::try_from(attempts.max(1) - 1).unwrap_or(0).min(20);
    Verdict::Again(Duration::from_secs((first_s << exponent).max(asked_s).min(max_s)))
}

/// Up to a quarter more, so that what failed together does not come back together.
fn jittered(pause: Duration) -> Duration {
    pause + pause.mul_f64(rand::rng().random_range(0.0..0.25))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_receiver_says_decides_when_to_try_again() {
        let status = |code: u16, asked| Answer::Status(StatusCode::from_u16(code).unwrap(), asked);
        let again = |seconds| Verdict::Again(Duration::from_secs(seconds));
        let cases = [
            (status(200, None), 1, Verdict::Delivered),
            (status(204, None), 12, Verdict::Delivered),
            (status(410, None), 1, Verdict::GivenUp),
            (status(500, None), 1, again(5)),
            (status(503, None), 3, again(20)),
            (status(429, Some(300)), 1, again(300)),
            (status(429, Some(1_000_000)), 1, again(3_600)),
            (status(408, None), 11, again(3_600)),
            (status(500, None), 12, Verdict::GivenUp),
            (status(404, None), 1, again(60)),
            (status(302, Some(1)), 2, again(120)),
            (status(401, None), 11, again(21_600)),
            (status(400, None), 12, Verdict::GivenUp),
            (Answer::None("timed out".into()), 1, again(5)),
            (Answer::None("refused".into()), 12, Verdict::GivenUp),
        ];
        for (answer, attempts, expected) in cases {
            assert_eq!(judge(&answer, attempts, 12), expected, "{answer:?} at attempt {attempts}");
        }
    }

    #[test]
    fn jitter_only_adds_and_never_much() {
        let pause = Duration::from_secs(100);
        for _ in 0..1_000 {
            assert!((pause..Duration::from_secs(125)).contains(&jittered(pause)));
        }
    }
}
