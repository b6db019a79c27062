//! Leases conversations and makes one turn of all their unread events.
//!
//! # What happens on a crash, between which two lines
//! 1. *lease and intake* in one transaction: messages, owners and windows are applied; what the machine owes stays unread, with
//!    one more attempt counted, so that an event that kills its worker becomes a ticket after `worker.attempts_max`. When
//!    nothing is owed, the lease goes back in the same transaction.
//! 2. *pipeline* … changes nothing; the lease expires, the wake-up is claimed or swept, and it is repeated.
//! 3. *commit* in one statement or transaction: decision, outbox rows, ticket, conversation, inbox rows, the lease. Either all of it or none.
//! 4. *record* … the decision stands and says that its record is on its way; a crash loses the record, never the turn.
//!    A connection that breaks under the commit leaves open whether it is written: then the record follows if it is.
//!
//! # Fencing
//! The commit compares the lease's token (a worker that stood still while another took over changes nothing) and the epoch (a
//! person who took over meanwhile is not interrupted). An edit or unsend that arrived meanwhile repeats the turn, and so do, at
//! most [`GROW_MAX`] times, more messages: a burst gets one answer.

mod ending;

use std::sync::Arc;
use std::time::Instant;

use chrono::TimeDelta;
use sqlx::{Connection, PgConnection};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::app::App;
use crate::db;
use crate::db::conversations::Conversation;
use crate::db::inbox::StoredEvent;
use crate::db::lent::Lent;
use crate::db::messages::StoredMessage;
use crate::db::pages::Page;
use crate::fail_point::{self, Point};
use crate::intake::{self, TurnEvent, Unread};
use crate::observe::CommittedTurn;
use crate::pipeline::{self, TurnInput, TurnResult};
use crate::queue::{ConversationKey, WakeUp};
use crate::settings::ms;
use crate::words::{self, Sealer};
use ending::{commit, give_up, leave, lock_leased, postpone};

/// A turn repeated for an edit that arrived meanwhile is repeated at most this often.
const REDO_MAX: usize = 3;
/// Of these, so many for messages that arrived meanwhile: who keeps writing is answered all the same.
const GROW_MAX: usize = 2;
/// Longest wait for giving a lease back.
const RELEASE: std::time::Duration = std::time::Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    #[error("the database failed: {source}")]
    Database {
        #[from]
        source: sqlx::Error,
    },
    #[error("{source}")]
    Pipeline {
        #[from]
        source: pipeline::PipelineError,
    },
}

/// What became of a commit.
enum Committed {
    /// The lease was given back in the same transaction. `more`: something is unread again.
    Done { more: bool },
    /// Nothing was changed.
    LeaseLost,
    /// Nothing was changed: something arrived that the turn must see.
    Redo,
}

/// Starts the workers of this process. Acknowledgements outlive the turns that make them.
pub fn start(
    app: &Arc<App>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
    late_tasks: &TaskTracker,
    late_stop: &CancellationToken,
) {
    let concurrency = app.settings.worker.concurrency;
    let wake_ups = app.queue.start_receiver(app.pool.clone(), concurrency, tasks, stop);
    let acks = app.queue.start_acks(late_tasks, late_stop);
    tasks.spawn(dispatch(Arc::clone(app), wake_ups, acks, tasks.clone(), stop.clone()));
}

async fn dispatch(
    app: Arc<App>,
    mut wake_ups: mpsc::Receiver<WakeUp>,
    acks: mpsc::Sender<String>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let running = Arc::new(Semaphore::new(app.settings.worker.concurrency));
    loop {
        let Ok(permit) = Arc::clone(&running).acquire_owned().await else { return };
        let wake_up = tokio::select! {
            wake_up = wake_ups.recv() => wake_up,
            () = stop.cancelled() => return,
        };
        let Some(wake_up) = wake_up else { return };
        let (app, acks) = (Arc::clone(&app), acks.clone());
        tasks.spawn(async move {
            fail_point::reach(Point::WakeUpTaken);
            let running = app.load.run();
            handle(&app, &wake_up.key).await;
            drop(running);
            if let Some(entry) = wake_up.entry.and_then(|entry| entry.looked_at()) {
                // An unacknowledged entry is claimed again and finds nothing to do.
                let _ = acks.send(entry).await;
            }
            drop(permit);
        });
    }
}

/// Handles a conversation until nothing of it is unread, or somebody else holds it.
async fn handle(app: &App, key: &ConversationKey) {
    let result = match &key.psid {
        Some(psid) => handle_conversation(app, &key.page_id, psid).await,
        None => db::in_time(handle_page(app, &key.page_id)).await.map_err(TurnError::from),
    };
    if let Err(error) = result {
        metrics::counter!("frontdesk_turn_errors_total").increment(1);
        tracing::error!(%error, page = key.page_id, "a conversation could not be handled; it is tried again");
    }
}

async fn handle_conversation(app: &App, page_id: &str, psid: &str) -> Result<(), TurnError> {
    let lease = ms(app.settings.worker.lease_ms);
    if app.settings.turn.settle_ms > 0 {
        tokio::time::sleep(ms(app.settings.turn.settle_ms)).await;
    }
    loop {
        let started = Instant::now();
        let mut connection = db::in_time(app.connections.take()).await?;
        // Nothing renews a lease that is not committed yet, so taking it must leave most of it.
        let taken = tokio::time::timeout(lease / 3, async {
            match take(app, &mut connection, page_id, psid, false).await {
                // What is wrong with an event must not keep its neighbours waiting.
                Err(_) => take(app, &mut connection, page_id, psid, true).await,
                taken => taken,
            }
        })
        .await;
        let Some((conversation, turn)) = taken.map_err(|_| db::silent(lease / 3))?? else {
            // Its holder looks again after giving the lease back, so what woke us is not forgotten.
            return Ok(());
        };
        let more = if turn.is_empty() {
            let more = db::in_time(db::inbox::has_pending(&mut *connection, page_id, psid)).await?;
            app.connections.give_back(connection);
            more
        } else {
            let (id, token) = (conversation.id, conversation.lease_token);
            let result = tokio::select! {
                result = turns(app, connection, conversation, turn, started) => result,
                // Renewal only ends when the lease is lost: then the commit would be refused anyway.
                () = renew(app, id, token, started) => Ok(Committed::LeaseLost),
            };
            if let Ok(Committed::Done { more }) = result {
                more
            } else {
                // A lease that cannot be given back runs out.
                let released = tokio::time::timeout(RELEASE, db::conversations::release(&app.pool, id, token)).await;
                result?;
                released.unwrap_or(Ok(()))?;
                db::in_time(db::inbox::has_pending(&app.pool, page_id, psid)).await?
            }
        };
        fail_point::reach(Point::LeaseReturned);
        if !more {
            return Ok(());
        }
    }
}

/// Leases a conversation and applies its unread events, in one transaction; gives what the machine owes an answer. When that is
/// nothing, the lease is given back in the same transaction. `None`: another worker holds it, or nothing is unread.
async fn take(
    app: &App,
    connection: &mut PgConnection,
    page_id: &str,
    psid: &str,
    is_careful: bool,
) -> sqlx::Result<Option<(Conversation, Vec<TurnEvent>)>> {
    let lease_ms = i64::try_from(app.settings.worker.lease_ms).unwrap_or(i64::MAX);
    let mut tx = connection.begin().await?;
    // Locks the conversation: takeovers wait for this short transaction.
    let limit = app.settings.turn.events_max;
    let leased = db::conversations::lease(&mut *tx, page_id, psid, lease_ms, limit).await?;
    let Some((conversation, events)) = leased else { return Ok(None) };
    fail_point::reach(Point::Leased);
    let (conversation, turn, sealer) = intake(app, &mut tx, conversation, events, true, is_careful).await?;
    if turn.is_empty() {
        db::conversations::release(&mut *tx, conversation.id, conversation.lease_token).await?;
    }
    fail_point::reach(Point::IntakeApplied);
    tx.commit().await?;
    // A key that was made for a new customer is everybody's from here on.
    app.words.remember(conversation.id, &sealer);
    fail_point::reach(Point::IntakeCommitted);
    Ok(Some((conversation, turn)))
}

async fn intake(
    app: &App,
    tx: &mut PgConnection,
    conversation: Conversation,
    mut events: Vec<StoredEvent>,
    counts: bool,
    is_careful: bool,
) -> sqlx::Result<(Conversation, Vec<TurnEvent>, Sealer)> {
    corrections(app, tx, &conversation, &mut events).await?;
    let sealer = app.words.of(tx, conversation.id).await?;
    let sealed_anew = words::open_events(app, tx, &sealer, &mut events).await?;
    let unread = Unread { events: &events, sealed_anew, sealer: &sealer, counts, is_careful };
    let (conversation, turn) = intake::apply(app, tx, conversation, unread).await?;
    Ok((conversation, turn, sealer))
}

/// Renews a lease that was taken at `since`.
async fn renew(app: &App, id: Uuid, token: i64, since: Instant) {
    let lease_ms = i64::try_from(app.settings.worker.lease_ms).unwrap_or(i64::MAX);
    let every = ms(app.settings.worker.lease_ms / 3);
    let mut renewed = since;
    while renewed.elapsed() < ms(app.settings.worker.lease_ms) {
        tokio::time::sleep(every).await;
        match tokio::time::timeout(every, db::conversations::renew(&app.pool, id, token, lease_ms)).await {
            Ok(Ok(true)) => renewed = Instant::now(),
            // Lost, or just given back by the commit, which must not be cut off for that.
            Ok(Ok(false)) => {}
            Ok(Err(error)) => tracing::warn!(%error, conversation = %id, "the lease could not be renewed"),
            Err(_) => {
                tracing::warn!(conversation = %id, "the database does not answer; the lease could not be renewed")
            }
        }
    }
    tracing::warn!(conversation = %id, "the lease was lost; the turn is left to its next holder");
}

/// Events that belong to a Page, not to a conversation. Applying one twice changes nothing, so no lease is needed.
///
/// The Page's row is locked first: a block and the unblock after it must not be applied in the other order.
async fn handle_page(app: &App, page_id: &str) -> sqlx::Result<()> {
    let limit = app.settings.turn.events_max;
    loop {
        let mut tx = app.pool.begin().await?;
        db::pages::lock(&mut *tx, page_id).await?;
        let mut events = db::inbox::pending(&mut tx, page_id, None, limit).await?;
        words::open_page_events(app, &mut tx, page_id, &mut events).await?;
        for event in &events {
            intake::apply_page_event(app, &mut tx, event).await?;
        }
        tx.commit().await?;
        if i64::try_from(events.len()).unwrap_or(i64::MAX) < limit {
            return Ok(());
        }
    }
}

/// One turn over everything unread, repeated when an edit arrives meanwhile. The connection is given back before anything slow.
async fn turns(
    app: &App,
    connection: Lent,
    mut conversation: Conversation,
    mut turn: Vec<TurnEvent>,
    started: Instant,
) -> Result<Committed, TurnError> {
    let mut connection = Some(connection);
    for redo in 0..=REDO_MAX {
        let mut reading = match connection.take() {
            Some(connection) => connection,
            None => app.connections.take().await?,
        };
        if redo > 0 {
            let again = db::in_time(intake_again(app, &mut reading, &conversation)).await?;
            let Some(again) = again else { return Ok(Committed::LeaseLost) };
            (conversation, turn) = again;
            if turn.is_empty() {
                return Ok(Committed::Redo);
            }
        }
        match one_turn(app, reading, &conversation, &turn, redo < GROW_MAX, started).await {
            Ok(Committed::Redo) => {}
            Ok(committed) => return Ok(committed),
            Err(error) => {
                db::in_time(postpone(app, &turn, &error)).await?;
                return Err(error);
            }
        }
    }
    Ok(Committed::Redo)
}

/// Applies what has arrived since the lease was taken. `None`: the lease is another worker's by now.
async fn intake_again(
    app: &App,
    connection: &mut PgConnection,
    leased: &Conversation,
) -> sqlx::Result<Option<(Conversation, Vec<TurnEvent>)>> {
    let mut tx = connection.begin().await?;
    // The lock shows what takeovers changed since the lease.
    let Some(now) = lock_leased(&mut tx, leased).await? else { return Ok(None) };
    let limit = app.settings.turn.events_max;
    let events = db::inbox::pending(&mut tx, &now.page_id, Some(&now.psid), limit).await?;
    let (conversation, turn, _) = intake(app, &mut tx, now, events, false, true).await?;
    fail_point::reach(Point::IntakeApplied);
    tx.commit().await?;
    fail_point::reach(Point::IntakeCommitted);
    Ok(Some((conversation, turn)))
}

/// Adds to the oldest `turn.events_max` unread events, however many events wait between, what corrects one of them: a question that
/// was edited or withdrawn is not answered as it was first asked.
async fn corrections(
    app: &App,
    tx: &mut PgConnection,
    conversation: &Conversation,
    events: &mut Vec<StoredEvent>,
) -> sqlx::Result<()> {
    if i64::try_from(events.len()).unwrap_or(i64::MAX) < app.settings.turn.events_max {
        return Ok(());
    }
    let ids: Vec<i64> = events.iter().map(|event| event.id).collect();
    let mids: Vec<String> = events.iter().filter_map(|event| event.mid.clone()).collect();
    events.extend(db::inbox::corrections(tx, &conversation.page_id, &conversation.psid, &mids, &ids).await?);
    Ok(())
}

/// The lease is renewed meanwhile, on another connection: whatever is asked of the database has a time in which it must answer, or a
/// connection that died would hold the conversation for ever.
async fn one_turn(
    app: &App,
    reading: Lent,
    conversation: &Conversation,
    turn: &[TurnEvent],
    may_grow: bool,
    started: Instant,
) -> Result<Committed, TurnError> {
    let attempts = turn.iter().map(|event| event.attempts).max().unwrap_or(0);
    if attempts >= app.settings.worker.attempts_max {
        drop(reading);
        return Ok(db::in_time(give_up(app, conversation, turn, attempts)).await?);
    }
    let (page, messages, history) = db::in_time(read(app, reading, conversation, turn)).await?;
    let Some(page) = page else {
        return Ok(db::in_time(leave(app, conversation, turn, "this Page is not configured here")).await?);
    };
    if messages.is_empty() {
        return Ok(db::in_time(leave(app, conversation, turn, "unsent before it was answered")).await?);
    }
    let input = TurnInput {
        turn_id: Uuid::now_v7(),
        now: app.clock.now(),
        page,
        conversation: conversation.clone(),
        messages,
        history,
    };
    let result = pipeline::run(app, &input).await?;
    let committed = db::in_time(commit(app, &input, turn, may_grow, &result, started)).await?;
    if matches!(committed, Committed::Done { .. }) {
        let oldest = turn.iter().map(|event| event.event_at).min().unwrap_or(input.now);
        note(&result, started, app.clock.now() - oldest);
        app.observer.after_turn(CommittedTurn {
            chain: input.page.chain,
            turn_id: input.turn_id,
            revision: result.revision,
            slot: result.slot,
            count: result.count,
            record: result.record,
        });
    }
    Ok(committed)
}

/// The Page, the turn's messages, and those before them.
async fn read(
    app: &App,
    mut reading: Lent,
    conversation: &Conversation,
    turn: &[TurnEvent],
) -> sqlx::Result<(Option<Page>, Vec<StoredMessage>, Vec<StoredMessage>)> {
    let mids: Vec<String> = turn.iter().map(|event| event.mid.clone()).collect();
    let history_max = app.settings.turn.history_max;
    let (mut messages, mut history) = db::messages::of_turn(&mut *reading, conversation.id, &mids, history_max).await?;
    let page = db::pages::get(&mut *reading, &conversation.page_id).await?;
    app.words.open(&mut *reading, &mut messages).await?;
    app.words.open(&mut *reading, &mut history).await?;
    app.connections.give_back(reading);
    Ok((page, messages, history))
}

fn note(result: &TurnResult, started: Instant, waited: TimeDelta) {
    metrics::counter!("frontdesk_turns_total", "route" => result.route, "outcome" => result.outcome).increment(1);
    metrics::histogram!("frontdesk_turn_seconds").record(started.elapsed().as_secs_f64());
    metrics::histogram!("frontdesk_inquiry_to_commit_seconds").record(waited.as_seconds_f64().max(0.0));
}
