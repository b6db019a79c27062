//! Echoes of our own sends, many at a time.
//!
//! Each send comes back as an event. When the send's answer has told Meta's id already, all that is left of the echo is to
//! mark it as read: that takes no turn, no lease and no lock of the conversation, so the echoes of all conversations are
//! marked together, [`EVERY`] so often. Whatever is not as plain as that (the answer is not stored yet, or was lost; the
//! message was withdrawn; Meta names another person) gets its wake-up and is read like any other event.
//!
//! Nothing depends on this: the events are stored before, and what is lost here the sweeper finds.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::db;
use crate::db::inbox::{NewEvent, OwnEcho};
use crate::fail_point::{self, Point};
use crate::queue::{ConversationKey, WakeUps, pause};

/// How long echoes are gathered. The send's own answer, which arrives about when the echo does, is stored by then.
const EVERY: Duration = Duration::from_millis(50);
/// Echoes in one statement.
const BATCH_MAX: usize = 256;
/// Echoes that wait; one more is read like any other event.
const WAITING_MAX: usize = 4_096;
/// How often an echo is looked at before it is read like any other event.
const TRIES: u8 = 2;

/// Where echoes of our own sends go.
#[derive(Debug, Clone)]
pub struct Echoes {
    sender: mpsc::Sender<OwnEcho>,
}

impl Echoes {
    pub fn start(pool: PgPool, wake_ups: WakeUps, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        tasks.spawn(run(pool, wake_ups, receiver, stop.clone()));
        Self { sender }
    }

    /// Takes a stored event, if it is an echo of ours. False: it needs a wake-up.
    pub fn take(&self, event: &NewEvent) -> bool {
        let (Some(row_id), Some(psid), Some(mid)) = (event.own_row, &event.psid, &event.mid) else { return false };
        let echo = OwnEcho {
            dedupe_key: event.dedupe_key.clone(),
            row_id,
            page_id: event.page_id.clone(),
            psid: psid.clone(),
            mid: mid.clone(),
            echoed_at: event.event_at,
            tries: 0,
        };
        self.sender.try_send(echo).is_ok()
    }
}

async fn run(pool: PgPool, wake_ups: WakeUps, mut receiver: mpsc::Receiver<OwnEcho>, stop: CancellationToken) {
    let mut waiting: Vec<OwnEcho> = Vec::new();
    loop {
        if waiting.is_empty() {
            let came = tokio::select! {
                came = receiver.recv_many(&mut waiting, BATCH_MAX) => came,
                () = stop.cancelled() => return,
            };
            if came == 0 {
                return;
            }
        }
        let goes_on = pause(EVERY, &stop).await;
        while waiting.len() < BATCH_MAX
            && let Ok(echo) = receiver.try_recv()
        {
            waiting.push(echo);
        }
        let settled: HashSet<String> = match db::in_time(db::inbox::settle_own_echoes(&pool, &waiting)).await {
            Ok(keys) => keys.into_iter().collect(),
            Err(error) => {
                tracing::warn!(%error, "echoes could not be marked as read; each is read in its conversation");
                HashSet::new()
            }
        };
        fail_point::reach(Point::EchoesSettled);
        metrics::counter!("frontdesk_echoes_settled_total").increment(settled.len() as u64);
        waiting.retain_mut(|echo| {
            if settled.contains(&echo.dedupe_key) {
                return false;
            }
            echo.tries += 1;
            if goes_on && echo.tries < TRIES {
                return true;
            }
            wake_ups.send(ConversationKey { page_id: echo.page_id.clone(), psid: Some(echo.psid.clone()) });
            false
        });
    }
}
