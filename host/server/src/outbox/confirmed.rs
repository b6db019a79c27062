//! Sends that Meta has answered, many at a time: what comes while one statement runs goes into the next one. A turn's reply then
//! costs a part of a statement, and of a commit, instead of its own.

use std::collections::HashSet;

use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::db;
use crate::db::outbox::Confirmation;

/// Sends in one statement.
const BATCH_MAX: usize = 64;

/// Where confirmed sends go. Clones share the statement; it ends with the last of them.
#[derive(Debug, Clone)]
pub(super) struct Confirmations {
    sender: mpsc::Sender<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    sent: Confirmation,
    settled: oneshot::Sender<bool>,
}

impl Confirmations {
    pub fn start(pool: PgPool, tasks: &TaskTracker) -> Self {
        let (sender, receiver) = mpsc::channel(BATCH_MAX);
        tasks.spawn(run(pool, receiver));
        Self { sender }
    }

    /// Settles a claimed row as sent ([`db::outbox::confirm`]). False: that was not done, or nobody knows.
    pub async fn settle(&self, sent: Confirmation) -> bool {
        let (settled, answer) = oneshot::channel();
        self.sender.send(Waiting { sent, settled }).await.is_ok() && answer.await.unwrap_or(false)
    }
}

async fn run(pool: PgPool, mut receiver: mpsc::Receiver<Waiting>) {
    let mut waiting: Vec<Waiting> = Vec::new();
    while receiver.recv_many(&mut waiting, BATCH_MAX).await > 0 {
        let (sent, answers): (Vec<_>, Vec<_>) = waiting.drain(..).map(|one| (one.sent, one.settled)).unzip();
        let settled: HashSet<_> = match db::in_time(db::outbox::confirm(&pool, &sent)).await {
            Ok(settled) => settled.into_iter().collect(),
            Err(error) => {
                tracing::warn!(%error, sends = sent.len(), "sends could not be settled together; each is settled alone");
                HashSet::new()
            }
        };
        for (sent, answer) in sent.iter().zip(answers) {
            // Who gave up waiting has left the row to the look-up of doubts.
            let _ = answer.send(settled.contains(&sent.id));
        }
    }
}
