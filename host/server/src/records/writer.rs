//! Writes records after their turns were committed: one task, a bounded queue before it, a batch per transaction.
//!
//! - A full queue, a record that is too large, and a database that stays away cost the record, never the reply.
//! - A dropped record is noted on its row as soon as the database answers; what even that note did not reach (the process
//!   ended) is found later as `lost`.
//! - The keys of a batch's people are read, and made, in the transaction that stores the records: a key that an erasure deletes
//!   meanwhile is never used again, because the erasure waits for the transaction or the transaction finds no decision.
//! - Only rows that still say `pending` get their record: one that was withdrawn meanwhile stays erased.
//! - When a connection broke while a turn was being committed, nobody knows whether its decision stands. Its record comes all the
//!   same, and is written if the row is found within [`UNKNOWN_FOR`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::PgPool;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::{Place, mask, seal};
use crate::db;
use crate::db::decisions::NewRecord;
use crate::keys::{KeyError, Keys};
use crate::settings::RecordSettings;

/// Records in one transaction.
const BATCH: usize = 64;
/// How long the first record of a transaction waits for others.
const GATHER: Duration = Duration::from_millis(20);
/// Tries to store one batch; the pauses between them add up to some twelve seconds.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(200);
/// Dropped ones that are remembered until they can be noted.
const NOTES_MAX: usize = 10_000;
/// So long a decision is looked for of which nobody knows whether it was written: a statement may end after its connection.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// So many are looked for at once.
const UNKNOWN_MAX: usize = 256;
/// Longest wait of a reader for what was taken before it asked.
const CATCH_UP: Duration = Duration::from_secs(1);

/// One record to write.
#[derive(Debug, Clone)]
pub struct Job {
    pub turn_id: Uuid,
    pub page_id: String,
    pub psid: String,
    pub version: i32,
    pub record: Value,
    /// Since when nobody knows whether the decision was written; `None`: it was.
    pub unknown_since: Option<Instant>,
}

/// The queue's entrance. Clones share it.
#[derive(Debug, Clone)]
pub struct Writer {
    queue: mpsc::Sender<Job>,
    /// Taken so far.
    taken: Arc<AtomicU64>,
    /// Settled so far: written or given up.
    settled: watch::Receiver<u64>,
    dropped: Arc<Mutex<Vec<Uuid>>>,
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Writer {
    /// Starts the task; it ends when `stop` is cancelled and the queue is empty.
    #[must_use]
    pub fn start(
        pool: PgPool,
        keys: Keys,
        settings: &RecordSettings,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (queue, jobs) = mpsc::channel(settings.pending_max);
        let (settled, watch) = watch::channel(0);
        let dropped = Arc::new(Mutex::new(Vec::new()));
        let task = Task { pool, keys, bytes_max: settings.bytes_max, settled, dropped: Arc::clone(&dropped) };
        tasks.spawn(task.run(jobs, stop.clone()));
        Self { queue, taken: Arc::new(AtomicU64::new(0)), settled: watch, dropped }
    }

    /// Takes a record, or drops it: never waits.
    pub fn take(&self, job: Job) {
        let turn_id = job.turn_id;
        match self.queue.try_send(job) {
            Ok(()) => {
                self.taken.fetch_add(1, Ordering::Release);
            }
            Err(_) => note_dropped(&self.dropped, &[turn_id], "queue-full"),
        }
    }

    /// Waits, for a second at most, until what this process has taken so far is written: whoever asks right after a reply sees its
    /// record.
    pub async fn caught_up(&self) {
        let taken = self.taken.load(Ordering::Acquire);
        let mut settled = self.settled.clone();
        let _ = tokio::time::timeout(CATCH_UP, settled.wait_for(|settled| *settled >= taken)).await;
    }
}

fn note_dropped(notes: &Mutex<Vec<Uuid>>, turns: &[Uuid], why: &'static str) {
    metrics::counter!("frontdesk_records_total", "result" => "dropped", "why" => why).increment(turns.len() as u64);
    let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    let room = NOTES_MAX.saturating_sub(notes.len());
    notes.extend(turns.iter().take(room));
}

struct Task {
    pool: PgPool,
    keys: Keys,
    bytes_max: usize,
    settled: watch::Sender<u64>,
    dropped: Arc<Mutex<Vec<Uuid>>>,
}

impl Task {
    async fn run(self, mut jobs: mpsc::Receiver<Job>, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut unknown = Vec::new();
        // So that drops are noted, and unknown decisions looked for, when no record comes any more.
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_open = tokio::select! {
                biased;
                count = jobs.recv_many(&mut batch, BATCH) => count > 0,
                _ = tick.tick() => {
                    unknown = self.settle(unknown, &stop).await;
                    true
                }
                () = stop.cancelled() => false,
            };
            if !batch.is_empty() {
                // Nobody waits for a record, and a transaction of several costs little more than one of one.
                tokio::select! {
                    () = tokio::time::sleep(GATHER) => {}
                    () = stop.cancelled() => {}
                }
                while batch.len() < BATCH {
                    let Ok(job) = jobs.try_recv() else { break };
                    batch.push(job);
                }
            }
            let count = batch.len() as u64;
            if count > 0 {
                let not_found = self.settle(std::mem::take(&mut batch), &stop).await;
                unknown.extend(not_found.into_iter().take(UNKNOWN_MAX.saturating_sub(unknown.len())));
                self.settled.send_modify(|settled| *settled += count);
            } else if !is_open {
                self.settle(unknown, &stop).await;
                self.note().await;
                return;
            }
            self.note().await;
        }
    }

    /// Writes a batch, or drops it after some tries. Gives back those whose decision may still appear.
    async fn settle(&self, mut jobs: Vec<Job>, stop: &CancellationToken) -> Vec<Job> {
        if jobs.is_empty() {
            return jobs;
        }
        for attempt in 0..TRIES {
            match self.store_in_time(&jobs).await {
                Ok(pending) => {
                    jobs.retain(|job| {
                        job.unknown_since.is_some_and(|since| since.elapsed() < UNKNOWN_FOR)
                            && !pending.contains(&job.turn_id)
                    });
                    return jobs;
                }
                Err(error) => {
                    tracing::warn!(%error, attempt, records = jobs.len(), "decision records could not be stored");
                    // While the process ends, one more try is all there is time for.
                    let pause = PAUSE * 2_u32.pow(attempt);
                    if stop.is_cancelled() && attempt > 0 {
                        break;
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        }
        let turns: Vec<Uuid> = jobs.iter().map(|job| job.turn_id).collect();
        note_dropped(&self.dropped, &turns, "database");
        Vec::new()
    }

    /// A connection that died must not keep the writer.
    async fn store_in_time(&self, jobs: &[Job]) -> Result<Vec<Uuid>, WriteError> {
        let stored = tokio::time::timeout(db::ANSWER_MAX, self.store(jobs)).await;
        stored.unwrap_or_else(|_| Err(db::silent(db::ANSWER_MAX).into()))
    }

    /// Gives the turns whose decision waited for its record.
    async fn store(&self, jobs: &[Job]) -> Result<Vec<Uuid>, WriteError> {
        let mut people: Vec<(String, String)> =
            jobs.iter().map(|job| (job.page_id.clone(), job.psid.clone())).collect();
        // In one order everywhere, so that two writers do not wait for each other.
        people.sort();
        people.dedup();
        let mut tx = self.pool.begin().await?;
        let pending =
            db::decisions::lock_pending(&mut *tx, &jobs.iter().map(|job| job.turn_id).collect::<Vec<_>>()).await?;
        let keys = self.keys.person_keys(&mut tx, &people).await?;
        let mut records = Vec::with_capacity(jobs.len());
        for job in jobs.iter().filter(|job| pending.contains(&job.turn_id)) {
            let Some(key) = keys.get(&(job.page_id.clone(), job.psid.clone())) else { continue };
            let json = zeroize::Zeroizing::new(job.record.to_string().into_bytes());
            if json.len() > self.bytes_max {
                note_dropped(&self.dropped, &[job.turn_id], "too-large");
                continue;
            }
            let place = Place { page_id: &job.page_id, psid: &job.psid, turn_id: job.turn_id };
            records.push(NewRecord {
                turn_id: job.turn_id,
                version: job.version,
                sealed: seal(key, &place, job.version, &json)?,
                masked: mask::masked(&job.record),
            });
        }
        db::decisions::insert_records(&mut tx, &records).await?;
        tx.commit().await?;
        metrics::counter!("frontdesk_records_total", "result" => "sealed").increment(records.len() as u64);
        Ok(pending)
    }

    /// Notes on the rows what was dropped. What cannot be noted now is tried again.
    async fn note(&self) {
        let turns = std::mem::take(&mut *self.dropped.lock().unwrap_or_else(PoisonError::into_inner));
        if turns.is_empty() {
            return;
        }
        match db::in_time(db::decisions::mark_dropped(&self.pool, &turns)).await {
            Ok(()) => tracing::warn!(records = turns.len(), "decision records were dropped; their decisions stand"),
            Err(error) => {
                tracing::debug!(%error, "dropped records could not be noted yet");
                let mut notes = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
                let room = NOTES_MAX.saturating_sub(notes.len());
                notes.extend(turns.into_iter().take(room));
            }
        }
    }
}
