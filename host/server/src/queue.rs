//! Wake-ups over Redis Streams: "this conversation has unread events".
//!
//! # Structures
//! - Stream `{namespace}:wakeups`: entries with the fields `p` (Page id) and `s` (PSID; absent for a Page's own events), trimmed to
//!   about `queue.length_max`. What waits to be written at the same time shares entries: up to [`KEYS_PER_ENTRY`] conversations, the
//!   second and later ones in `p1`, `s1`, `p2`, … An entry is acknowledged when all of its conversations have been looked at. A
//!   version that knows only `p` and `s` leaves the others to the sweeper.
//! - Consumer group `workers`; each process is one consumer with a random name and one connection of its own for the
//!   blocking read, because a blocking command stalls every other one on its connection.
//!
//! # Invariants
//! - The queue carries no truth. An entry may be lost, doubled or late: the inbox knows what is unread, and the lease keeps
//!   two workers from one conversation. So a wake-up is sent without being waited for, and dropped when the sender's
//!   buffer is full.
//! - What nobody acknowledged for `queue.claim_after_ms` (its worker died) is claimed by another with `XAUTOCLAIM`.
//! - The name of a process that is gone is removed from the group once nothing is pending under it ([`consumers`]).
//! - The sweeper finds conversations whose events wait longer than a sweep and hands them to this process's own workers.
//!   It needs no Redis: with Redis away, messages are answered a sweep later.

pub mod consumers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::streams::{StreamAutoClaimReply, StreamId, StreamReadReply};
use redis::{AsyncConnectionConfig, RedisResult};
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::db;
use crate::fail_point::{self, Point};
use crate::settings::{QueueSettings, ms};

const GROUP: &str = "workers";
/// Wake-ups that wait to be written; more are left to the sweeper.
const BUFFER: usize = 16_384;
/// Conversations that one entry names. Redis counts by entries; but an entry is one process's.
const KEYS_PER_ENTRY: usize = 8;
/// Wake-ups written in one round trip.
const PIPELINE_MAX: usize = 512;
/// Their fields.
const FIELDS: [(&str, &str); KEYS_PER_ENTRY] =
    [("p", "s"), ("p1", "s1"), ("p2", "s2"), ("p3", "s3"), ("p4", "s4"), ("p5", "s5"), ("p6", "s6"), ("p7", "s7")];
const BLOCK_MS: u64 = 2_000;
/// How often names of dead workers are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(600);
const RECONNECT: Duration = Duration::from_millis(500);
/// Conversations that one sweep hands out.
const SWEEP_MAX: i64 = 1_000;

/// What a wake-up names: a conversation, or a Page's own lane when there is no customer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConversationKey {
    pub page_id: String,
    pub psid: Option<String>,
}

/// A conversation to look at, and the entry to acknowledge afterwards; `None` when it came from the sweeper.
#[derive(Debug, Clone)]
pub struct WakeUp {
    pub key: ConversationKey,
    pub entry: Option<Arc<Entry>>,
}

/// A stream entry in hand.
#[derive(Debug)]
pub struct Entry {
    id: String,
    /// Its conversations that have not been looked at.
    open: AtomicUsize,
}

impl Entry {
    /// Notes that one of its conversations has been looked at. With the last, the id to acknowledge.
    pub fn looked_at(&self) -> Option<String> {
        (self.open.fetch_sub(1, Ordering::AcqRel) == 1).then(|| self.id.clone())
    }
}

/// Sends wake-ups without waiting.
#[derive(Debug, Clone)]
pub struct WakeUps {
    sender: mpsc::Sender<ConversationKey>,
}

impl WakeUps {
    pub fn send(&self, key: ConversationKey) {
        if self.sender.try_send(key).is_err() {
            metrics::counter!("frontdesk_wakeups_dropped_total").increment(1);
        }
    }
}

/// The queue's client side: connections are made when needed and again when lost.
#[derive(Debug, Clone)]
pub struct Queue {
    client: redis::Client,
    stream: Arc<str>,
    consumer: Arc<str>,
    settings: QueueSettings,
    healthy: Arc<AtomicBool>,
}

#[derive(Debug, thiserror::Error)]
#[error("REDIS_URL is not a Redis address (redis://host:port, rediss://… or redis+unix:///socket): {source}")]
pub struct QueueUrlError {
    #[source]
    source: redis::RedisError,
}

impl Queue {
    pub fn new(url: &SecretString, settings: &QueueSettings) -> Result<Self, QueueUrlError> {
        let client = redis::Client::open(url.expose_secret()).map_err(|source| QueueUrlError { source })?;
        Ok(Self {
            client,
            stream: format!("{}:wakeups", settings.namespace).into(),
            consumer: format!("worker-{}", uuid::Uuid::new_v4().simple()).into(),
            settings: settings.clone(),
            healthy: Arc::new(AtomicBool::new(false)),
        })
    }

    /// Whether the last contact with Redis went well.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Asks Redis whether it answers, so that the health page tells the truth before the first wake-up.
    pub async fn probe(&self) {
        let asked = async { redis::cmd("PING").query_async::<()>(&mut self.connect(false).await?).await };
        match asked.await {
            Ok(()) => self.note_contact(),
            Err(error) => tracing::error!(%error, "Redis is away; the sweeper carries on without it"),
        }
    }

    /// Starts the writer of wake-ups.
    pub fn start_sender(&self, tasks: &TaskTracker, stop: &CancellationToken) -> WakeUps {
        let (sender, receiver) = mpsc::channel(BUFFER);
        tasks.spawn(self.clone().send_loop(receiver, stop.clone()));
        WakeUps { sender }
    }

    /// Starts reading, claiming and sweeping; wake-ups arrive in the returned channel, whose bound is the workers' pace.
    pub fn start_receiver(
        &self,
        pool: PgPool,
        capacity: usize,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> mpsc::Receiver<WakeUp> {
        let (sender, receiver) = mpsc::channel(capacity);
        tasks.spawn(self.clone().read_loop(sender.clone(), stop.clone()));
        tasks.spawn(self.clone().claim_loop(sender.clone(), stop.clone()));
        tasks.spawn(self.clone().sweep_loop(pool, sender, stop.clone()));
        receiver
    }

    /// Starts the writer of acknowledgements.
    pub fn start_acks(&self, tasks: &TaskTracker, stop: &CancellationToken) -> mpsc::Sender<String> {
        let (sender, receiver) = mpsc::channel(BUFFER);
        tasks.spawn(self.clone().ack_loop(receiver, stop.clone()));
        sender
    }

    async fn connect(&self, blocking: bool) -> RedisResult<MultiplexedConnection> {
        // A blocking read outlives the client's default response time-out of 500 ms; but a server that vanished without a
        // word must be noticed.
        let timeout = if blocking { BLOCK_MS + 3_000 } else { 5_000 };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_response_timeout(Some(Duration::from_millis(timeout)));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    fn note(&self, what: &'static str, error: &redis::RedisError) {
        // Said once per outage, not once per try.
        if self.healthy.swap(false, Ordering::Relaxed) {
            tracing::error!(%error, what, "Redis is away; the sweeper carries on without it");
        } else {
            tracing::debug!(%error, what, "Redis is still away");
        }
        metrics::counter!("frontdesk_redis_errors_total", "what" => what).increment(1);
    }

    fn note_contact(&self) {
        if !self.healthy.swap(true, Ordering::Relaxed) {
            tracing::info!("Redis answers");
        }
    }

    async fn send_loop(self, mut receiver: mpsc::Receiver<ConversationKey>, stop: CancellationToken) {
        let mut connection = None;
        let mut batch = Vec::new();
        loop {
            batch.clear();
            let received = tokio::select! {
                count = receiver.recv_many(&mut batch, PIPELINE_MAX) => count,
                () = stop.cancelled() => return,
            };
            if received == 0 {
                return;
            }
            if let Err(error) = self.send_batch(&mut connection, &batch).await {
                // Not kept: the sweeper finds them.
                connection = None;
                self.note("write", &error);
                pause(RECONNECT, &stop).await;
            }
        }
    }

    async fn send_batch(
        &self,
        connection: &mut Option<MultiplexedConnection>,
        batch: &[ConversationKey],
    ) -> RedisResult<()> {
        let mut pipeline = redis::Pipeline::with_capacity(batch.len().div_ceil(KEYS_PER_ENTRY));
        for (at, keys) in batch.chunks(KEYS_PER_ENTRY).enumerate() {
            pipeline.cmd("XADD").arg(&*self.stream);
            // One look at the length for all of them.
            if at == 0 {
                pipeline.arg("MAXLEN").arg("~").arg(self.settings.length_max);
            }
            pipeline.arg("*");
            for (key, (page_id, psid)) in keys.iter().zip(FIELDS) {
                pipeline.arg(page_id).arg(&key.page_id);
                if let Some(value) = &key.psid {
                    pipeline.arg(psid).arg(value);
                }
            }
            pipeline.ignore();
        }
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(self.connect(false).await?),
        };
        pipeline.query_async::<()>(connection).await?;
        fail_point::reach(Point::WakeUpWritten);
        self.note_contact();
        Ok(())
    }

    async fn read_loop(self, sender: mpsc::Sender<WakeUp>, stop: CancellationToken) {
        let mut connection = None;
        while !stop.is_cancelled() {
            // Read only what can be handled: what waits in Redis can be taken by another replica.
            let free = tokio::select! {
                permit = sender.reserve() => { if permit.is_err() { return; } sender.capacity() + 1 }
                () = stop.cancelled() => return,
            };
            let read = tokio::select! {
                read = self.read(&mut connection, free) => read,
                () = stop.cancelled() => return,
            };
            match read {
                Ok(entries) => {
                    self.note_contact();
                    if !self.hand_on(entries, &sender).await {
                        return;
                    }
                }
                Err(error) if error.code() == Some("NOGROUP") => {
                    // The server was flushed or replaced; the sweeper finds what its entries stood for.
                    tracing::warn!("the wake-up stream is gone; making it again");
                    self.recreate_group(&mut connection).await;
                }
                Err(error) => {
                    connection = None;
                    self.note("read", &error);
                    pause(RECONNECT, &stop).await;
                }
            }
        }
    }

    async fn read(&self, connection: &mut Option<MultiplexedConnection>, count: usize) -> RedisResult<Vec<StreamId>> {
        if connection.is_none() {
            let mut fresh = self.connect(true).await?;
            self.create_group(&mut fresh).await?;
            *connection = Some(fresh);
        }
        let Some(connection) = connection else { return Ok(Vec::new()) };
        let reply: Option<StreamReadReply> = redis::cmd("XREADGROUP")
            .arg("GROUP")
            .arg(GROUP)
            .arg(&*self.consumer)
            .arg("COUNT")
            .arg(count.clamp(1, 256))
            .arg("BLOCK")
            .arg(BLOCK_MS)
            .arg("STREAMS")
            .arg(&*self.stream)
            .arg(">")
            .query_async(connection)
            .await?;
        Ok(reply.map(|r| r.keys.into_iter().flat_map(|k| k.ids).collect()).unwrap_or_default())
    }

    async fn create_group(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        // From the start of the stream: entries written before the first worker came count too.
        let made: RedisResult<()> = redis::cmd("XGROUP")
            .arg("CREATE")
            .arg(&*self.stream)
            .arg(GROUP)
            .arg("0")
            .arg("MKSTREAM")
            .query_async(connection)
            .await;
        match made {
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            other => other,
        }
    }

    async fn recreate_group(&self, connection: &mut Option<MultiplexedConnection>) {
        if let Some(live) = connection
            && self.create_group(live).await.is_err()
        {
            *connection = None;
        }
    }

    /// Gives entries to the workers. False when they have stopped.
    async fn hand_on(&self, entries: Vec<StreamId>, sender: &mpsc::Sender<WakeUp>) -> bool {
        for stream_entry in entries {
            let field = |name: &str| stream_entry.get::<String>(name);
            let mut keys: Vec<_> = FIELDS
                .iter()
                .filter_map(|(page_id, psid)| Some(ConversationKey { page_id: field(page_id)?, psid: field(psid) }))
                .collect();
            if keys.is_empty() {
                // Nobody's writing: looked at in vain, and gone.
                keys.push(ConversationKey { page_id: String::new(), psid: None });
            }
            let entry = Arc::new(Entry { open: AtomicUsize::new(keys.len()), id: stream_entry.id });
            for key in keys {
                if sender.send(WakeUp { key, entry: Some(Arc::clone(&entry)) }).await.is_err() {
                    return false;
                }
            }
        }
        true
    }

    async fn claim_loop(self, sender: mpsc::Sender<WakeUp>, stop: CancellationToken) {
        let every = ms((self.settings.claim_after_ms / 2).max(100));
        let mut connection = None;
        let mut tidied: Option<Instant> = None;
        while pause(every, &stop).await {
            if tidied.is_none_or(|at| at.elapsed() >= TIDY_EVERY) {
                tidied = Some(Instant::now());
                self.remove_idle_consumers(&mut connection).await;
            }
            match self.claim(&mut connection).await {
                Ok(entries) => {
                    metrics::counter!("frontdesk_wakeups_claimed_total").increment(entries.len() as u64);
                    if !self.hand_on(entries, &sender).await {
                        return;
                    }
                }
                Err(error) if error.code() == Some("NOGROUP") => {}
                Err(error) => {
                    connection = None;
                    self.note("claim", &error);
                }
            }
        }
    }

    async fn remove_idle_consumers(&self, connection: &mut Option<MultiplexedConnection>) {
        let removed = async {
            let connection = match connection {
                Some(connection) => connection,
                None => connection.insert(self.connect(false).await?),
            };
            consumers::remove_idle(connection, &self.stream, GROUP, &self.consumer, consumers::IDLE_MAX).await
        };
        match removed.await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "names of workers that are gone were removed from the wake-up stream"),
            Err(error) if error.code() == Some("NOGROUP") => {}
            // Only tidiness is lost; whether Redis answers shows at the claim that follows.
            Err(error) => tracing::debug!(%error, "idle consumers could not be removed"),
        }
    }

    async fn claim(&self, connection: &mut Option<MultiplexedConnection>) -> RedisResult<Vec<StreamId>> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(self.connect(false).await?),
        };
        let reply: StreamAutoClaimReply = redis::cmd("XAUTOCLAIM")
            .arg(&*self.stream)
            .arg(GROUP)
            .arg(&*self.consumer)
            .arg(self.settings.claim_after_ms)
            .arg("0-0")
            .arg("COUNT")
            .arg(256)
            .query_async(connection)
            .await?;
        Ok(reply.claimed)
    }

    async fn ack_loop(self, mut receiver: mpsc::Receiver<String>, stop: CancellationToken) {
        let mut connection = None;
        let mut batch: Vec<String> = Vec::new();
        loop {
            batch.clear();
            let received = tokio::select! {
                count = receiver.recv_many(&mut batch, PIPELINE_MAX) => count,
                () = stop.cancelled() => return,
            };
            if received == 0 {
                return;
            }
            if let Err(error) = self.ack(&mut connection, &batch).await {
                // An entry that stays unacknowledged is claimed later and finds nothing to do.
                connection = None;
                self.note("ack", &error);
            }
        }
    }

    async fn ack(&self, connection: &mut Option<MultiplexedConnection>, entries: &[String]) -> RedisResult<()> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(self.connect(false).await?),
        };
        redis::cmd("XACK").arg(&*self.stream).arg(GROUP).arg(entries).query_async::<()>(connection).await
    }

    async fn sweep_loop(self, pool: PgPool, sender: mpsc::Sender<WakeUp>, stop: CancellationToken) {
        let every = ms(self.settings.sweep_ms);
        let older_than_ms = i64::try_from(self.settings.sweep_ms).unwrap_or(i64::MAX);
        while pause(every, &stop).await {
            match db::in_time(db::inbox::waiting(&pool, older_than_ms, SWEEP_MAX)).await {
                Ok(found) => {
                    metrics::counter!("frontdesk_wakeups_swept_total").increment(found.len() as u64);
                    for (page_id, psid) in found {
                        let wake_up = WakeUp { key: ConversationKey { page_id, psid }, entry: None };
                        if sender.send(wake_up).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) => tracing::error!(%error, "the inbox could not be swept"),
            }
        }
    }
}

/// Waits; false when stopped meanwhile.
pub async fn pause(time: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => true,
        () = stop.cancelled() => false,
    }
}
