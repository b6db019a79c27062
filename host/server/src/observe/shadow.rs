//! Lets a chain's shadow judge the turns that the active revision has decided, and keeps what would have been different.
//!
//! # Structures
//! - **The queue** holds the records of committed turns in memory. A turn that finds it full is dropped.
//! - **The threads** (one or two) run below the priority of the turns, each with one replay at a time, so a shadow never
//!   holds more than that many of the engine's instances. Before each replay they look at the load of the host and drop the
//!   turn when it is busy.
//! - **The writer** gathers results and stores them in one statement. Its queue is bounded, too.
//!
//! # What is compared
//! The replay answers look-ups from the record and judges the recorded draft, so the shadow asks nobody and sends nothing.
//! `level` says when the draft itself would have been another one, or when there was none to judge.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use frontdesk_policy_engine::{
    Conclusion, Fault, FaultKind, Level, RecordedTurn, Replayed, TurnCount, edit_distance, replay,
};
use serde::Deserialize;
use sqlx::PgPool;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::CommittedTurn;
use super::tripwire::{Kind, Windows};
use crate::app::App;
use crate::background;
use crate::db;
use crate::db::shadow::ShadowResult;

/// Results that wait for the writer.
const RESULTS_MAX: usize = 1_024;
/// Results of one statement.
const BATCH_MAX: usize = 256;
/// How long the writer gathers.
const GATHER: Duration = Duration::from_millis(500);
/// Longest code of a reason that is kept, in bytes; the contract's own limit.
const CODE_BYTES_MAX: usize = 64;

/// Turns on their way to the shadow.
#[derive(Debug)]
pub struct Queue {
    sender: mpsc::Sender<CommittedTurn>,
    receiver: Arc<Mutex<mpsc::Receiver<CommittedTurn>>>,
    waiting: Arc<AtomicUsize>,
}

impl Queue {
    pub fn new(queue_max: usize) -> Self {
        let (sender, receiver) = mpsc::channel(queue_max.max(1));
        Self { sender, receiver: Arc::new(Mutex::new(receiver)), waiting: Arc::default() }
    }

    /// Takes a turn, or drops it when there is no room.
    pub fn offer(&self, turn: CommittedTurn) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(refused) = self.sender.try_send(turn) {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            dropped(&refused.into_inner().chain, "queue-full");
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

fn dropped(chain: &str, why: &'static str) {
    metrics::counter!("frontdesk_shadow_dropped_total", "chain" => chain.to_owned(), "why" => why).increment(1);
}

/// Starts the threads and the writer.
pub fn start(app: &Arc<App>, queue: &Queue, windows: &Arc<Windows>, tasks: &TaskTracker, stop: &CancellationToken) {
    let (results, to_write) = mpsc::channel(RESULTS_MAX);
    tasks.spawn(write(app.pool.clone(), to_write));
    for number in 0..app.settings.policies.shadow.concurrency {
        let shadow = Shadow {
            app: Arc::clone(app),
            windows: Arc::clone(windows),
            receiver: Arc::clone(&queue.receiver),
            waiting: Arc::clone(&queue.waiting),
            results: results.clone(),
            stop: stop.clone(),
        };
        // The tracker waits for the thread, so that nothing outlives the host.
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn(async move { drop(end.await) });
        let spawned = std::thread::Builder::new().name(format!("shadow-{number}")).spawn(move || {
            shadow.run_thread();
            drop(ended);
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "a shadow thread could not be started; shadows judge fewer turns");
        }
    }
}

struct Shadow {
    app: Arc<App>,
    windows: Arc<Windows>,
    receiver: Arc<Mutex<mpsc::Receiver<CommittedTurn>>>,
    waiting: Arc<AtomicUsize>,
    results: mpsc::Sender<ShadowResult>,
    stop: CancellationToken,
}

impl Shadow {
    fn run_thread(self) {
        background::lower_priority();
        match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime.block_on(self.run()),
            Err(error) => tracing::error!(%error, "a shadow thread has no runtime; shadows judge fewer turns"),
        }
    }

    async fn run(self) {
        loop {
            let turn = tokio::select! {
                turn = async { self.receiver.lock().await.recv().await } => turn,
                () = self.stop.cancelled() => return,
            };
            let Some(turn) = turn else { return };
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            if self.app.load.percent(&self.app.policies) > self.app.settings.policies.shadow.load_percent_max {
                dropped(&turn.chain, "load");
                continue;
            }
            tokio::select! {
                () = self.judge(turn) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn judge(&self, turn: CommittedTurn) {
        // Whoever is the shadow now: the queue is short, and a shadow that went is not asked any more.
        let Some(shadow) = self.app.policies.shadow(&turn.chain) else { return };
        let recorded = match RecordedTurn::deserialize(&turn.record) {
            Ok(recorded) => recorded,
            Err(error) => {
                dropped(&turn.chain, "unreadable");
                tracing::error!(%error, turn = %turn.turn_id, "a decision record cannot be read back");
                return;
            }
        };
        let replayed = replay(&shadow.revision, &recorded).await;
        let id = shadow.revision.id().as_str();
        metrics::counter!("frontdesk_shadow_turns_total", "chain" => turn.chain.clone()).increment(1);
        if let Some(fault) = replayed.turn_calls().faults().next() {
            metrics::counter!("frontdesk_shadow_faults_total", "chain" => turn.chain.clone(), "kind" => fault.kind.as_str())
                .increment(1);
            tracing::warn!(chain = turn.chain, revision = shadow.revision.id().short(), turn = %turn.turn_id, %fault,
                "a policy of the shadow faulted; nobody was told anything else because of it");
        }
        // A turn that only its classifier judged has no fuel and no end to compare.
        if replayed.level != Level::NoDraftRecorded || replayed.turn_calls().faults().next().is_some() {
            self.windows.count(&turn.chain, id, Kind::Shadow, shadow_count(&replayed));
            self.windows.count(&turn.chain, id, Kind::BesideShadow, turn.count.clone());
        }
        if let Err(refused) = self.results.try_send(result(&turn, id, &recorded, &replayed)) {
            dropped(&refused.into_inner().chain, "writer-full");
        }
    }
}

/// What counts for the tripwire. Deadlines do not: these threads get what time the turns leave, and fuel is the contract.
fn shadow_count(replayed: &Replayed) -> TurnCount {
    let calls = replayed.turn_calls();
    let mut faults = calls.faults().filter(|fault| !matches!(fault.kind, FaultKind::Deadline { .. }));
    TurnCount {
        fault: faults.next().map(ToString::to_string),
        missed_deadline: false,
        is_escalated: replayed.conclusion.outcome == "ticket",
        fuel: replayed.turn_calls().fuel_used(),
    }
}

fn result(turn: &CommittedTurn, shadow: &str, recorded: &RecordedTurn, replayed: &Replayed) -> ShadowResult {
    let (before, after) = (recorded.conclusion(), &replayed.conclusion);
    let is_known = replayed.level != Level::NoDraftRecorded;
    let fuel = |fuel: u64| i64::try_from(fuel).unwrap_or(i64::MAX);
    #[expect(clippy::cast_possible_truncation, reason = "a share between 0 and 1")]
    let distance = |one: &str, other: &str| edit_distance(one, other) as f32;
    ShadowResult {
        chain: turn.chain.clone(),
        active_revision: turn.revision.clone(),
        shadow_revision: shadow.to_owned(),
        turn_id: turn.turn_id,
        level: replayed.level.as_str(),
        route: (before.route.clone(), after.route.clone()),
        outcome: (before.outcome.clone(), if is_known { after.outcome.clone() } else { "unknown".to_owned() }),
        reason: (reason(&before), if is_known { reason(after) } else { reason(&before) }),
        fault: (
            recorded.turn_calls().faults().next().map(fault_code),
            replayed.turn_calls().faults().next().map(fault_code),
        ),
        text_distance: match (&before.text, &after.text) {
            (Some(one), Some(other)) if is_known => Some(distance(one, other)),
            _ => None,
        },
        fuel: (fuel(recorded.turn_calls().fuel_used()), fuel(replayed.turn_calls().fuel_used())),
    }
}

/// The machine-readable reason of the ticket. The sentence beside it may quote the customer, and is not kept.
fn reason(conclusion: &Conclusion) -> String {
    let Some(ticket) = &conclusion.ticket else { return String::new() };
    let is_code = ticket.reason.len() <= CODE_BYTES_MAX
        && ticket.reason.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'));
    if is_code { ticket.reason.clone() } else { "other".to_owned() }
}

fn fault_code(fault: &Fault) -> String {
    format!("{}/{}", fault.hook.as_str(), fault.kind.as_str())
}

/// Ends when the threads have: they hold the senders.
async fn write(pool: PgPool, mut results: mpsc::Receiver<ShadowResult>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while results.recv_many(&mut batch, 1).await > 0 {
        let until = tokio::time::Instant::now() + GATHER;
        while batch.len() < BATCH_MAX {
            match tokio::time::timeout_at(until, results.recv()).await {
                Ok(Some(result)) => batch.push(result),
                Ok(None) | Err(_) => break,
            }
        }
        if let Err(error) = db::shadow::insert(&pool, &batch).await {
            tracing::warn!(%error, results = batch.len(), "results of shadows could not be stored; they are dropped");
            batch.iter().for_each(|result| dropped(&result.chain, "not-stored"));
        }
        batch.clear();
    }
}

#[cfg(test)]
mod tests {
    use frontdesk_policy_engine::ConcludedTicket;
    use frontdesk_policy_engine::types::Priority;

    use super::*;

    #[test]
    fn only_codes_are_kept_of_reasons() {
        let ended = |reason: &str| Conclusion {
            route: "human".to_owned(),
            outcome: "ticket".to_owned(),
            reason: "the customer wrote: hello".to_owned(),
            text: None,
            ticket: Some(ConcludedTicket { priority: Priority::Low, reason: reason.to_owned() }),
        };
        for (found, kept) in [
            ("low-confidence", "low-confidence"),
            ("topic:legal_2.b", "topic:legal_2.b"),
            ("my name is Sam", "other"),
            ("straße", "other"),
        ] {
            assert_eq!(reason(&ended(found)), kept);
        }
        assert_eq!(reason(&ended(&"x".repeat(64))).len(), 64);
        assert_eq!(reason(&ended(&"x".repeat(65))), "other");
        assert_eq!(reason(&Conclusion { ticket: None, ..ended("x") }), "");
    }

    #[tokio::test]
    async fn a_full_queue_drops_and_counts_what_waits() {
        let queue = Queue::new(2);
        let turn = || CommittedTurn {
            chain: "default".to_owned(),
            turn_id: uuid::Uuid::new_v4(),
            revision: "r".to_owned(),
            slot: crate::policies::slots::Slot::Active,
            count: TurnCount::default(),
            record: serde_json::Value::Null,
        };
        for expected in [1, 2, 2] {
            queue.offer(turn());
            assert_eq!(queue.waiting(), expected);
        }
    }
}
