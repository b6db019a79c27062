//! Delivers what was committed, through the Send API.
//!
//! # The life of a row
//! ```text
//! queued --claim--> sending --200--------------------------------> sent
//!    ^                 |-----refused, may be repeated-----> queued (later, counted)
//!    |                 |-----rate limit, token, restriction-> queued (the Page's lane pauses, parks or stops)
//!    |                 |-----refused for good-------------> failed (and a ticket)
//!    |                 `-----nobody can tell--------------> unknown
//!    `----the Conversations API shows that it did not go----'  |--echo, or the Conversations API shows it--> sent
//!                                                              `--an agent settles it
//! queued --takeover--> void
//! ```
//! # Invariants
//! - Nothing is sent twice: the Send API has no idempotency key, so a send without a clear result is never repeated
//!   before Meta's own record (the echo's metadata, then the Conversations API) shows that it did not take place.
//! - A crash while a row is `sending` puts it in doubt, not back in the queue.
//! - Parts of a reply leave in order, and replies of a conversation too: a row waits for all earlier ones.
//! - One Page's limit, dead token or restriction stops that Page's lane only, and no Page takes all places ([`lanes`]).
//! - Only a row written by an authenticated agent's action can carry the HUMAN_AGENT tag: it takes an
//!   [`AgentReply`], which takes an agent's id.

mod confirmed;
mod doubt;
mod lanes;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use frontdesk_messenger::graph::{CallTrace, ProofForm};
use frontdesk_messenger::outbound::SenderAction;
use frontdesk_messenger::window::WindowRules;
use frontdesk_messenger::{
    AgentId, AgentReply, Failure, GraphClient, GraphConfig, OutboundMessage, PageCredentials, Recipient, Reply,
};
use sqlx::PgConnection;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::app::App;
use crate::db;
use crate::db::outbox::Claimed;
use crate::db::tickets::NewTicket;
use crate::fail_point::{self, Point};
use crate::pages::PageTokens;
use crate::secrets::Secrets;
use crate::settings::{Settings, ms};
use crate::tickets;
use crate::words::MESSAGE_TEXT;
use confirmed::Confirmations;
use lanes::{Lanes, Room};
use verdict::{Verdict, backoff, describe, verdict};

/// Marks our own metadata, with a version for the day its form changes.
const METADATA_PREFIX: &str = "frontdesk:1:";
/// When any budget in the usage headers passes this, the Page pauses before Meta refuses.
const USAGE_PERCENT_MAX: u32 = 95;
/// Pause when a limit was hit and the headers do not say for how long.
const LIMIT_PAUSE_MS: u64 = 60_000;

/// What goes into a message's `metadata`, and comes back in its echo.
pub fn metadata_of_row(id: Uuid) -> String {
    format!("{METADATA_PREFIX}{id}")
}

/// The outbox row that an echo's metadata names, if it is ours.
pub fn row_of_metadata(metadata: &str) -> Option<Uuid> {
    metadata.strip_prefix(METADATA_PREFIX).and_then(|id| id.parse().ok())
}

/// The sender's side that other parts use.
#[derive(Debug, Clone)]
pub struct Outbox {
    graph: GraphClient,
    tokens: PageTokens,
    wake: Arc<Notify>,
}

impl Outbox {
    pub fn new(settings: &Settings, secrets: &Secrets, tokens: PageTokens) -> anyhow::Result<Self> {
        let graph = GraphClient::new(GraphConfig {
            base_url: settings.graph.base_url.clone(),
            version: settings.graph.version.clone(),
            app_secret: secrets.app_secrets.first().cloned(),
            proof_form: ProofForm::Plain,
            connect_timeout_ms: settings.graph.timeout_ms.min(5_000),
            request_timeout_ms: settings.graph.timeout_ms,
        })?;
        Ok(Self { graph, tokens, wake: Arc::new(Notify::new()) })
    }

    /// Says that there may be something to send.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// A Page's token as it stands now.
    pub fn page(&self, page_id: &str) -> Option<Arc<PageCredentials>> {
        self.tokens.get(page_id)
    }

    pub fn graph(&self) -> &GraphClient {
        &self.graph
    }

    /// Shows "is typing". It is a courtesy: a failure is counted and forgotten.
    pub async fn show_typing(&self, page_id: &str, psid: &str) {
        let Some(page) = self.page(page_id) else { return };
        let recipient = Recipient::of_person(psid);
        // Meta documents a plugin's `user_ref` for messages alone.
        if matches!(recipient, Recipient::UserRef(_)) {
            return;
        }
        let reply = self.graph.sender_action(&page, &recipient, &SenderAction::TypingOn).await;
        let result = reply.result.as_ref().map_or_else(Failure::name, |()| "sent");
        metrics::counter!("frontdesk_typing_total", "result" => result).increment(1);
    }
}

/// Starts the sender and the one who settles doubts.
pub fn start(app: &Arc<App>, tasks: &TaskTracker, stop: &CancellationToken) {
    tasks.spawn(send_loop(Arc::clone(app), tasks.clone(), stop.clone()));
    tasks.spawn(doubt::run(Arc::clone(app), stop.clone()));
}

async fn send_loop(app: Arc<App>, tasks: TaskTracker, stop: CancellationToken) {
    let settings = &app.settings.outbox;
    let running = Arc::new(Semaphore::new(settings.concurrency));
    let lanes = Arc::new(Lanes::default());
    let confirmations = Confirmations::start(app.pool.clone(), &tasks);
    let mut poll = tokio::time::interval(ms(settings.poll_ms));
    // Its own clock: with a reply every few milliseconds, a pause that each of them restarts would never end.
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        let free = running.available_permits();
        let room = lanes.room(free, settings.concurrency, app.outbox.tokens.pages());
        let claimed =
            if room.limit == 0 { 0 } else { claim(&app, &room, &running, &lanes, &confirmations, &tasks).await };
        // More may be due, unless less came than was asked for.
        if claimed > 0 && claimed == room.limit {
            continue;
        }
        tokio::select! {
            () = app.outbox.wake.notified() => {}
            _ = poll.tick() => settle_unsendable(&app).await,
            () = stop.cancelled() => return,
        }
    }
}

/// Claims what is due and sends each in a task of its own. Returns how many were claimed.
async fn claim(
    app: &Arc<App>,
    room: &Room,
    running: &Arc<Semaphore>,
    lanes: &Arc<Lanes>,
    confirmations: &Confirmations,
    tasks: &TaskTracker,
) -> usize {
    let limit = i64::try_from(room.limit).unwrap_or(i64::MAX);
    let asked = Asked::now();
    let claimed = async {
        let mut rows = db::outbox::claim(&app.pool, &app.replica, limit, &room.full).await?;
        app.words.open(&app.pool, &mut rows).await?;
        Ok(rows)
    };
    let rows = match db::in_time(claimed).await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::error!(%error, "due messages could not be claimed");
            return 0;
        }
    };
    let count = rows.len();
    if count > 0 {
        fail_point::reach(Point::RowsClaimed);
    }
    for row in rows {
        let Ok(permit) = Arc::clone(running).acquire_owned().await else { return count };
        let (app, place, confirmations) = (Arc::clone(app), lanes.enter(&row.page_id), confirmations.clone());
        tasks.spawn(async move {
            send(&app, row, asked, &confirmations).await;
            drop((permit, place));
            // The next part of the same reply may go now.
            app.outbox.wake();
        });
    }
    count
}

/// When a claim was asked for, by two clocks: one of them goes on while the machine sleeps.
#[derive(Debug, Clone, Copy)]
struct Asked {
    monotonic: std::time::Instant,
    wall: std::time::SystemTime,
}

impl Asked {
    fn now() -> Self {
        Self { monotonic: std::time::Instant::now(), wall: std::time::SystemTime::now() }
    }

    /// Whether so much time has passed that others may take the send for lost before it could end.
    fn is_stale(&self, settings: &Settings) -> bool {
        let limit = ms(settings.outbox.in_doubt_after_ms.saturating_sub(settings.graph.timeout_ms));
        self.monotonic.elapsed() >= limit || self.wall.elapsed().is_ok_and(|elapsed| elapsed >= limit)
    }
}

async fn send(app: &App, row: Claimed, asked: Asked, confirmations: &Confirmations) {
    let id = row.id;
    let Some(page) = app.outbox.tokens.find(&row.page_id).await else {
        let reason = "the Page has no access token; connect it, or give its token in [[pages]]".to_owned();
        settle(app, &row, Verdict::PageState { state: "parked", reason }, None, confirmations).await;
        return;
    };
    let message = match message(&app.settings.window_rules, &row, app.clock.now()) {
        Ok(message) => message,
        Err(reason) => {
            settle(app, &row, Verdict::Fail(reason), None, confirmations).await;
            return;
        }
    };
    if asked.is_stale(&app.settings) {
        // Others may already take it for lost and look it up. This claim has sent nothing, and nobody else speaks for it.
        tracing::warn!(outbox = %id, "this process stood still after it had claimed a message; it is claimed again");
        let after = backoff(&app.settings.outbox, row.attempts);
        let error = "the process stood still before it sent".to_owned();
        settle(app, &row, Verdict::Again { after, counted: false, error }, None, confirmations).await;
        return;
    }
    fail_point::reach(Point::BeforeSend);
    let started = std::time::Instant::now();
    let reply = app.outbox.graph.send(&page, &message).await;
    fail_point::reach(Point::Sent);
    let result = reply.result.as_ref().map_or_else(Failure::name, |_| "sent");
    metrics::counter!("frontdesk_sends_total", "page" => row.page_id.clone(), "result" => result).increment(1);
    metrics::histogram!("frontdesk_send_seconds").record(started.elapsed().as_secs_f64());
    if reply.result.is_ok() {
        let waited = (app.clock.now() - row.created_at).as_seconds_f64();
        metrics::histogram!("frontdesk_outbox_wait_seconds").record(waited.max(0.0));
    } else {
        let trace = &reply.trace;
        tracing::warn!(
            outbox = %id, page = row.page_id, result, status = trace.http_status, code = trace.code,
            subcode = trace.subcode, fbtrace_id = trace.fbtrace_id, transport = trace.transport_error,
            "a message was not sent"
        );
    }
    pause_when_full(app, &row.page_id, &reply).await;
    let mut verdict = verdict(&app.settings.outbox, &row, &reply);
    if matches!(reply.result, Err(Failure::TokenDead { .. })) && !app.outbox.tokens.is_current(&page).await {
        // The Page was connected again meanwhile: it was the old token that died.
        verdict = Verdict::Again { after: Duration::ZERO, counted: false, error: "sent with a token of before".into() };
    }
    settle(app, &row, verdict, Some(&reply.trace), confirmations).await;
}

/// The message as the Send API takes it. Past the window an agent's words go out as HUMAN_AGENT, as long as the rules say.
fn message(rules: &WindowRules, row: &Claimed, now: DateTime<Utc>) -> Result<OutboundMessage, String> {
    let recipient = Recipient::of_person(&row.psid);
    let message = OutboundMessage::text(recipient, row.text.clone())
        .and_then(|message| message.with_metadata(metadata_of_row(row.id)))
        .map_err(|error| error.to_string())?;
    let Some(agent) = &row.agent else { return Ok(message) };
    let reply = AgentReply::new(AgentId::new(agent.clone()), message);
    if row.window_closes_at.is_some_and(|closes_at| closes_at > now) {
        return Ok(reply.within_window());
    }
    let tagged_until = row.last_customer_at.map(|at| at + chrono::Duration::milliseconds(rules.human_agent_ms()));
    if tagged_until.is_some_and(|until| until > now) {
        return Ok(reply.as_human_agent());
    }
    let hours = rules.human_agent_hours;
    Err(format!("the customer's last message is more than {hours} hours old: Meta lets nobody answer it"))
}

/// Pauses a Page's lane when Meta refuses for its limits, or is about to.
async fn pause_when_full<T>(app: &App, page_id: &str, reply: &Reply<T>) {
    let usage = reply.usage.for_page(page_id);
    metrics::gauge!("frontdesk_graph_usage_percent", "page" => page_id.to_owned()).set(f64::from(usage.max_percent));
    let is_limited = matches!(reply.result, Err(Failure::RateLimited { .. }));
    if is_limited || usage.max_percent >= USAGE_PERCENT_MAX {
        let pause_ms = usage.resume_after_ms().unwrap_or(LIMIT_PAUSE_MS);
        tracing::warn!(page = page_id, pause_ms, percent = usage.max_percent, "the Page pauses for Meta's limits");
        let pause_ms = i64::try_from(pause_ms).unwrap_or(i64::MAX);
        if let Err(error) = db::in_time(db::pages::pause_for(&app.pool, page_id, pause_ms)).await {
            tracing::error!(%error, page = page_id, "the pause could not be stored");
        }
    }
}

async fn settle(app: &App, row: &Claimed, verdict: Verdict, trace: Option<&CallTrace>, confirmations: &Confirmations) {
    if let Err(error) = db::in_time(store(app, row, &verdict, trace, confirmations)).await {
        // The row stays `sending` and falls into doubt, which is looked up: nothing is sent twice.
        tracing::error!(%error, outbox = %row.id, "the result of a send could not be stored");
    }
}

async fn store(
    app: &App,
    row: &Claimed,
    verdict: &Verdict,
    trace: Option<&CallTrace>,
    confirmations: &Confirmations,
) -> sqlx::Result<()> {
    let id = row.id;
    match verdict {
        Verdict::Sent(message_id) => confirm_claimed(app, row, message_id, confirmations).await,
        Verdict::Again { after, counted, error } => {
            let after_ms = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
            db::outbox::requeue(&app.pool, id, row.claimed_at, after_ms, *counted, error).await
        }
        Verdict::Unknown(error) => db::outbox::mark_unknown(&app.pool, id, row.claimed_at, error).await,
        Verdict::PageState { state, reason } => {
            stop_page(app, &row.page_id, state, reason).await?;
            db::outbox::requeue(&app.pool, id, row.claimed_at, 0, false, reason).await
        }
        Verdict::Fail(error) | Verdict::NotOurs(error) | Verdict::WindowClosed(error) => {
            fail(app, row, verdict, error, trace).await
        }
    }
}

async fn stop_page(app: &App, page_id: &str, state: &str, reason: &str) -> sqlx::Result<()> {
    if db::pages::set_state(&app.pool, page_id, state, reason).await? {
        tracing::error!(page = page_id, state, reason, "the Page can no longer send");
    }
    Ok(())
}

/// A row that Meta has taken.
pub(crate) struct SentRow<'a> {
    pub id: Uuid,
    pub conversation_id: Uuid,
    pub author: &'a str,
    pub text: &'a str,
}

/// As [`confirm`], but almost always together with others: nobody else has settled the row since it was claimed.
async fn confirm_claimed(
    app: &App,
    row: &Claimed,
    message_id: &str,
    confirmations: &Confirmations,
) -> sqlx::Result<()> {
    let sent_at = app.clock.now();
    // Claiming the row has opened its text, so its key is remembered, if the text was sealed.
    if let Some(sealer) = app.words.recall(row.conversation_id) {
        let sent = db::outbox::Confirmation {
            id: row.id,
            conversation_id: row.conversation_id,
            claimed_at: row.claimed_at,
            message_id: message_id.to_owned(),
            author: row.author.clone(),
            text: sealer.seal(MESSAGE_TEXT, &row.text)?,
            sent_at,
        };
        if confirmations.settle(sent).await {
            fail_point::reach(Point::Settled);
            return Ok(());
        }
    }
    let sent = SentRow { id: row.id, conversation_id: row.conversation_id, author: &row.author, text: &row.text };
    confirm(app, &sent, message_id, sent_at).await
}

/// Settles a row as sent, and writes it into the transcript.
async fn confirm(app: &App, row: &SentRow<'_>, message_id: &str, sent_at: DateTime<Utc>) -> sqlx::Result<()> {
    let mut tx = app.pool.begin().await?;
    // The echo may be applied at this moment. Lock order everywhere: conversation, then outbox rows.
    db::conversations::lock(&mut tx, row.conversation_id).await?;
    write_sent(app, &mut tx, row, Some(message_id), sent_at).await?;
    tx.commit().await?;
    fail_point::reach(Point::Settled);
    Ok(())
}

/// Marks a row as sent and writes it into the transcript, in the caller's transaction, which holds the conversation's lock.
/// Without Meta's id (a person saw the message in Meta's inbox) the transcript has one of our own until the echo tells it.
pub(crate) async fn write_sent(
    app: &App,
    tx: &mut PgConnection,
    row: &SentRow<'_>,
    message_id: Option<&str>,
    sent_at: DateTime<Utc>,
) -> sqlx::Result<()> {
    db::outbox::mark_sent(&mut *tx, row.id, message_id).await?;
    if let Some(message_id) = message_id {
        db::messages::learn_mid(&mut *tx, row.conversation_id, row.id, message_id).await?;
    }
    let own = db::messages::mid_of_row(row.id);
    let text = app.words.of(tx, row.conversation_id).await?.seal(MESSAGE_TEXT, row.text)?;
    let message = db::messages::NewMessage {
        conversation_id: row.conversation_id,
        mid: message_id.unwrap_or(&own),
        author: row.author,
        source: "text",
        text: &text,
        payload: None,
        attachments: Vec::new(),
        sent_at,
        outbox_id: Some(row.id),
    };
    db::messages::insert(&mut *tx, &message).await?;
    Ok(())
}

/// Settles a row as failed. The customer is still owed an answer, so a person gets a ticket.
async fn fail(app: &App, row: &Claimed, verdict: &Verdict, error: &str, trace: Option<&CallTrace>) -> sqlx::Result<()> {
    let mut tx = app.pool.begin().await?;
    // Lock order everywhere: conversation, then outbox rows.
    db::conversations::lock(&mut tx, row.conversation_id).await?;
    let numbers = trace.map_or((None, None), |trace| (trace.code, trace.subcode));
    if db::outbox::mark_failed(&mut *tx, row.id, Some(row.claimed_at), numbers, error).await? {
        db::conversations::disclose_again(&mut *tx, row.conversation_id).await?;
        db::outbox::fail_following(&mut *tx, row.id, "an earlier part of the same reply failed").await?;
        match verdict {
            Verdict::NotOurs(_) => {
                // What the customer wrote after the answer was made may have brought the thread back already.
                let since = Some(row.created_at);
                db::conversations::set_owner(&mut tx, row.conversation_id, "not_ours", error, None, since).await?;
            }
            Verdict::WindowClosed(_) => db::conversations::close_window(&mut *tx, row.conversation_id).await?,
            _ => {}
        }
        open_delivery_ticket(app, &mut tx, row.conversation_id, &row.page_id, "delivery-failed", error).await?;
    }
    tx.commit().await
}

async fn open_delivery_ticket(
    app: &App,
    tx: &mut PgConnection,
    conversation_id: Uuid,
    page_id: &str,
    reason: &str,
    error: &str,
) -> sqlx::Result<()> {
    let summary = format!("A reply did not reach the customer. {error}");
    let ticket = NewTicket {
        conversation_id,
        page_id,
        turn_id: None,
        priority: "high",
        reason,
        summary: &summary,
        tags: &["delivery".to_owned()],
    };
    tickets::open(app, tx, &ticket).await?;
    Ok(())
}

/// Rows that takeovers and closed windows left behind. Each is settled together with its ticket: a crash in between would
/// leave a customer without an answer and nobody to know.
async fn settle_unsendable(app: &App) {
    let rows = match db::in_time(db::outbox::unsendable(&app.pool, 500)).await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::error!(%error, "unsendable messages could not be read");
            return;
        }
    };
    for (id, conversation_id) in rows {
        match db::in_time(settle_one_unsendable(app, id, conversation_id)).await {
            Ok(Some(state)) => metrics::counter!("frontdesk_outbox_unsendable_total", "state" => state).increment(1),
            // Claimed or settled meanwhile.
            Ok(None) => {}
            Err(error) => tracing::error!(%error, outbox = %id, "an unsendable message could not be settled"),
        }
    }
}

async fn settle_one_unsendable(app: &App, id: Uuid, conversation_id: Uuid) -> sqlx::Result<Option<String>> {
    let mut tx = app.pool.begin().await?;
    db::conversations::lock(&mut tx, conversation_id).await?;
    let Some((page_id, state, error)) = db::outbox::settle_unsendable(&mut *tx, id).await? else { return Ok(None) };
    if state == "failed" {
        db::conversations::disclose_again(&mut *tx, conversation_id).await?;
        open_delivery_ticket(app, &mut tx, conversation_id, &page_id, "window-closed", &error).await?;
    }
    tx.commit().await?;
    Ok(Some(state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_names_the_row_and_nothing_else_is_taken_for_it() {
        let id = Uuid::new_v4();
        assert_eq!(row_of_metadata(&metadata_of_row(id)), Some(id));
        for other in ["", "frontdesk:1:", "frontdesk:2:9d2e", "campaign-7", &id.to_string()] {
            assert_eq!(row_of_metadata(other), None, "{other}");
        }
    }
}
