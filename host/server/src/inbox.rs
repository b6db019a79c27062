//! Makes deliveries durable, many at a time.
//!
//! Each delivery waits in a bounded channel with a way to be told. A writer takes everything that waits (up to a limit),
//! stores it in one statement, hence with one flush of the write-ahead log, and tells all of them. Several writers overlap
//! so that the next group forms while one is flushed. Durability is not weakened: nobody is told before the commit.
//!
//! Payloads are sealed before they are stored, under a key of this process ([`keys`]).
//!
//! Each writer keeps a connection of its own: the tests of a pool, before and after each use, would cost as much as the insert.
//! A connection that broke while it lay idle is replaced and the insert repeated, which is harmless: `dedupe_key` knows what
//! is stored.
//!
//! Repeated deliveries are rare, and looking for them costs each insert: so a group is inserted as if there were none. Where there is
//! one, Postgres stores nothing of it (the unique `dedupe_key`), the group is inserted again with a look at each, and so are those that
//! follow for a while, since Meta repeats what it could not deliver in rows.
//!
//! When a group's statement is refused (not: fails to reach the database), each delivery is tried alone, so one that
//! Postgres cannot take never costs its neighbours.

mod echoes;
mod keys;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{PgConnection, PgPool};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::db;
use crate::db::inbox::{NewEvent, Repeated};
use crate::fail_point::{self, Point};
use crate::keys::Keys;
use crate::queue::{ConversationKey, WakeUps};
use crate::settings::{InboxSettings, ms};

use echoes::Echoes;
pub use keys::{InboxKey, InboxKeys};

/// A connection that has lain idle for this long is tested before its next use.
const TEST_AFTER: Duration = Duration::from_secs(5);

/// Tries of one statement that Postgres may ask for, or that a repeated delivery needs.
const TRIES: usize = 4;

/// After a repeated delivery, more are expected for so long.
const REPEATS_EXPECTED: Duration = Duration::from_secs(10);

/// Why a delivery was not stored. In all cases Meta repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InboxError {
    #[error("the inbox is full: more deliveries wait for the database than inbox.pending_max")]
    Full,
    #[error("the database refused the events, or cannot be reached")]
    Refused,
}

struct Delivery {
    events: Vec<NewEvent>,
    done: oneshot::Sender<Result<(), InboxError>>,
}

/// The entrance to the inbox.
#[derive(Debug, Clone)]
pub struct Inbox {
    sender: mpsc::Sender<Delivery>,
    keys: InboxKeys,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery").field("events", &self.events.len()).finish()
    }
}

impl Inbox {
    /// Starts the writers. They end when `stop` is cancelled and what waits is stored.
    ///
    /// `pool` should be theirs alone, with a connection for each, which they keep, and one more: acknowledgements must not wait
    /// for a connection that a turn holds.
    pub fn start(
        pool: PgPool,
        keys: Keys,
        settings: &InboxSettings,
        ack_timeout_ms: u64,
        wake_ups: WakeUps,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(settings.pending_max);
        let receiver = Arc::new(Mutex::new(receiver));
        let keys = InboxKeys::new(keys);
        let echoes = Echoes::start(pool.clone(), wake_ups.clone(), tasks, stop);
        for _ in 0..settings.writers {
            let writer = Writer {
                pool: pool.clone(),
                keys: keys.clone(),
                kept: None,
                timeout: ms(ack_timeout_ms),
                repeats_until: None,
                receiver: Arc::clone(&receiver),
                rows_max: settings.rows_per_insert_max,
                wake_ups: wake_ups.clone(),
                echoes: echoes.clone(),
            };
            tasks.spawn(writer.run(stop.clone()));
        }
        Self { sender, keys }
    }

    /// Returns once the events are durable. How long to wait is the caller's to say: what is dropped meanwhile is not stored, unless
    /// it is on its way already.
    pub async fn store(&self, events: Vec<NewEvent>) -> Result<(), InboxError> {
        let (done, stored) = oneshot::channel();
        self.sender.try_send(Delivery { events, done }).map_err(|_| InboxError::Full)?;
        stored.await.unwrap_or(Err(InboxError::Refused))
    }

    /// The keys under which unread events are sealed.
    pub fn keys(&self) -> &InboxKeys {
        &self.keys
    }

    /// Deliveries that wait for the database.
    pub fn waiting(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }
}

struct Writer {
    /// Where connections come from.
    pool: PgPool,
    keys: InboxKeys,
    /// The connection in use, and when it last answered.
    kept: Option<(PgConnection, Instant)>,
    /// A database that does not answer for this long has lost the connection, though nobody said so.
    timeout: Duration,
    /// Until when repeated deliveries are expected.
    repeats_until: Option<Instant>,
    receiver: Arc<Mutex<mpsc::Receiver<Delivery>>>,
    rows_max: usize,
    wake_ups: WakeUps,
    echoes: Echoes,
}

impl Writer {
    async fn run(mut self, stop: CancellationToken) {
        while let Some(group) = self.next_group(&stop).await {
            self.store(group).await;
        }
    }

    /// Everything that waits, up to the limit; `None` when stopped and nothing waits.
    async fn next_group(&self, stop: &CancellationToken) -> Option<Vec<Delivery>> {
        let mut receiver = self.receiver.lock().await;
        let first = tokio::select! {
            biased;
            delivery = receiver.recv() => delivery?,
            () = stop.cancelled() => return None,
        };
        let mut rows = first.events.len();
        let mut group = vec![first];
        while rows < self.rows_max {
            let Ok(delivery) = receiver.try_recv() else { break };
            rows += delivery.events.len();
            group.push(delivery);
        }
        Some(group)
    }

    async fn store(&mut self, mut group: Vec<Delivery>) {
        // Those that were given up on meanwhile have been answered with 503 and will be repeated.
        group.retain(|delivery| !delivery.done.is_closed());
        if group.is_empty() {
            return;
        }
        metrics::histogram!("frontdesk_inbox_group_deliveries").record(group.len() as f64);
        let mut counts = Vec::with_capacity(group.len());
        let mut events = Vec::new();
        for delivery in &mut group {
            counts.push(delivery.events.len());
            events.append(&mut delivery.events);
        }
        match self.insert(&events).await {
            Ok(()) => {
                fail_point::reach(Point::InboxCommitted);
                self.wake(&events);
                fail_point::reach(Point::BeforeAck);
                for delivery in group {
                    let _ = delivery.done.send(Ok(()));
                }
            }
            Err(error) if is_refusal(&error) => {
                tracing::warn!(%error, deliveries = group.len(), "a group of deliveries was refused; storing each alone");
                for (delivery, count) in group.into_iter().zip(counts) {
                    let own: Vec<NewEvent> = events.drain(..count).collect();
                    // The ones before it may have taken longer than Meta waits.
                    if delivery.done.is_closed() {
                        continue;
                    }
                    let result = self.insert_tolerantly(&own).await;
                    if result.is_ok() {
                        self.wake(&own);
                    }
                    let _ = delivery.done.send(result.map_err(|error| note(&error)));
                }
            }
            Err(error) => {
                let reason = note(&error);
                for delivery in group {
                    let _ = delivery.done.send(Err(reason));
                }
            }
        }
    }

    async fn insert(&mut self, events: &[NewEvent]) -> sqlx::Result<()> {
        // One that broke while nobody used it says nothing about the database.
        let was_kept = match self.kept.take() {
            Some((connection, at)) => match self.insert_on(connection, at, events).await {
                Err(error) if !is_refusal(&error) => Some(error),
                other => return other,
            },
            None => None,
        };
        if let Some(error) = was_kept {
            tracing::debug!(%error, "a kept connection was lost; another is tried");
        }
        let fresh = tokio::time::timeout(self.timeout, self.pool.acquire()).await;
        let fresh = fresh.map_err(|_| sqlx::Error::PoolTimedOut)??;
        self.insert_on(fresh.detach(), Instant::now(), events).await
    }

    /// Inserts on a connection, and keeps it if it works. One that is dropped amid a statement is closed.
    async fn insert_on(
        &mut self,
        mut connection: PgConnection,
        answered_at: Instant,
        events: &[NewEvent],
    ) -> sqlx::Result<()> {
        if answered_at.elapsed() > TEST_AFTER {
            db::test(&mut connection).await?;
        }
        let inserted = insert(&mut connection, &self.keys, &mut self.repeats_until, events);
        let result = match tokio::time::timeout(self.timeout, inserted).await {
            Ok(result) => result,
            Err(_) => return Err(sqlx::Error::PoolTimedOut),
        };
        if result.as_ref().err().is_none_or(is_refusal) {
            self.kept = Some((connection, Instant::now()));
        }
        result
    }

    /// Stores the events of one delivery one by one when they are refused together. Of one that Postgres cannot take, the fact
    /// that it came is kept, so that its neighbours are acknowledged and Meta does not repeat it for ever.
    async fn insert_tolerantly(&mut self, events: &[NewEvent]) -> sqlx::Result<()> {
        match self.insert(events).await {
            Err(error) if is_refusal(&error) => {}
            other => return other,
        }
        for event in events {
            match self.insert(std::slice::from_ref(event)).await {
                Err(error) if is_refusal(&error) => {
                    tracing::error!(%error, kind = event.kind, "an event cannot be stored; only that it came is kept");
                    let bare = NewEvent { payload: r#"{"unstorable":true}"#.to_owned(), mid: None, ..event.clone() };
                    self.insert(&[bare]).await?;
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn wake(&self, events: &[NewEvent]) {
        let mut seen = std::collections::HashSet::new();
        for event in events {
            if !self.echoes.take(event) && seen.insert((&event.page_id, &event.psid)) {
                self.wake_ups.send(ConversationKey { page_id: event.page_id.clone(), psid: event.psid.clone() });
            }
        }
    }
}

/// Seals and inserts; a deadlock or serialisation failure is Postgres asking for another try, a key that may not be used any more
/// is replaced, and a repeated delivery makes the next try look for it.
async fn insert(
    connection: &mut PgConnection,
    keys: &InboxKeys,
    repeats_until: &mut Option<Instant>,
    events: &[NewEvent],
) -> sqlx::Result<()> {
    let mut refused = sqlx::Error::PoolTimedOut;
    for _ in 0..TRIES {
        let key = keys.current(connection).await?;
        let sealed = events.iter().map(|event| key.seal(event)).collect::<sqlx::Result<Vec<_>>>()?;
        let repeated = match repeats_until {
            Some(until) if *until > Instant::now() => Repeated::PassOver,
            _ => Repeated::Fail,
        };
        match db::inbox::insert_sealed(&mut *connection, key.id, events, &sealed, repeated).await {
            Ok(true) => return Ok(()),
            Ok(false) => keys.retire(),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() && repeated == Repeated::Fail => {
                *repeats_until = Some(Instant::now() + REPEATS_EXPECTED);
                refused = sqlx::Error::Database(error);
            }
            Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("40P01" | "40001")) => {
                refused = sqlx::Error::Database(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

/// Whether Postgres looked at the rows and said no, rather than being away: shutting down or starting (class 57), out of
/// room or connections (53), broken (58, XX), or behind a broken connection (08).
fn is_refusal(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Encode(_) => true,
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            !["08", "53", "57", "58", "XX"].iter().any(|class| code.starts_with(class))
        }
        _ => false,
    }
}

fn note(error: &sqlx::Error) -> InboxError {
    tracing::error!(%error, "events could not be stored");
    InboxError::Refused
}
