//! The wake-up stream: entries that several conversations share, and the names of workers.

use std::time::Duration;

use frontdesk_server::queue::{ConversationKey, Queue, WakeUp, consumers};
use frontdesk_server::settings::QueueSettings;
use redis::aio::MultiplexedConnection;
use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::host::Ground;

const GROUP: &str = "workers";

async fn command(connection: &mut MultiplexedConnection, words: &[&str]) -> redis::Value {
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(word);
    }
    command.query_async(connection).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

async fn names(connection: &mut MultiplexedConnection, stream: &str) -> Vec<String> {
    let found: Vec<std::collections::HashMap<String, redis::Value>> =
        redis::cmd("XINFO").arg("CONSUMERS").arg(stream).arg(GROUP).query_async(connection).await.unwrap();
    let mut names: Vec<String> =
        found.iter().map(|fields| redis::from_redis_value_ref(&fields["name"]).unwrap()).collect();
    names.sort();
    names
}

fn url() -> String {
    std::env::var("REDIS_URL").expect("REDIS_URL must name a Redis for the tests")
}

async fn pending(connection: &mut MultiplexedConnection, stream: &str) -> u64 {
    let pending: (u64, redis::Value, redis::Value, redis::Value) =
        redis::cmd("XPENDING").arg(stream).arg(GROUP).query_async(connection).await.unwrap();
    pending.0
}

async fn until_pending(connection: &mut MultiplexedConnection, stream: &str, wanted: u64) {
    for _ in 0..3_000 {
        if pending(connection, stream).await == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} entries are pending, not {wanted}", pending(connection, stream).await);
}

async fn receive(from: &mut mpsc::Receiver<WakeUp>, count: usize) -> Vec<WakeUp> {
    let mut received = Vec::new();
    while received.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(60), from.recv()).await;
        received.push(next.expect("a wake-up comes").expect("the receiver runs"));
    }
    received
}

fn keys(wake_ups: &[WakeUp]) -> Vec<&ConversationKey> {
    wake_ups.iter().map(|wake_up| &wake_up.key).collect()
}

#[tokio::test]
async fn what_shares_an_entry_is_acknowledged_when_all_of_it_was_looked_at() {
    let ground = Ground::new().await;
    let queue = |claim_after_ms| {
        // Nothing is unread in this database, so no sweep finds anything.
        let namespace = ground.namespace.clone();
        let settings = QueueSettings { namespace, length_max: 1_000, sweep_ms: 60_000, claim_after_ms };
        Queue::new(&SecretString::from(url()), &settings).unwrap()
    };
    let stream = format!("{}:wakeups", ground.namespace);
    let mut connection = redis::Client::open(url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let (tasks, stop, death) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());

    let dying = queue(60_000);
    let wake_ups = dying.start_sender(&tasks, &stop);
    // A Page's own lane among them.
    let key = |number: u32| ConversationKey { page_id: "1".into(), psid: (number > 0).then(|| number.to_string()) };
    let sent: Vec<ConversationKey> = (0..20).map(key).collect();
    // The writer runs when this waits, so all of them wait for it.
    sent.iter().for_each(|key| wake_ups.send(key.clone()));
    let mut receiver = dying.start_receiver(ground.db.pool.clone(), 64, &tasks, &death);
    let acks = dying.start_acks(&tasks, &stop);
    let taken = receive(&mut receiver, sent.len()).await;
    assert_eq!(keys(&taken), sent.iter().collect::<Vec<_>>());
    assert_eq!(pending(&mut connection, &stream).await, 3, "eight conversations to an entry");
    let looked_at = async |wake_up: &WakeUp| {
        if let Some(id) = wake_up.entry.as_ref().unwrap().looked_at() {
            acks.send(id).await.unwrap();
        }
    };
    for wake_up in &taken[..19] {
        looked_at(wake_up).await;
    }
    until_pending(&mut connection, &stream, 1).await;

    // Its process dies before it looks at the twentieth: whoever claims the entry looks at all that share it.
    death.cancel();
    let mut receiver = queue(200).start_receiver(ground.db.pool.clone(), 64, &tasks, &stop);
    let again = receive(&mut receiver, 4).await;
    assert_eq!(keys(&again), sent[16..].iter().collect::<Vec<_>>());
    for wake_up in &again {
        looked_at(wake_up).await;
    }
    until_pending(&mut connection, &stream, 0).await;
    stop.cancel();
    command(&mut connection, &["DEL", &stream]).await;
}

#[tokio::test]
async fn names_of_dead_workers_go_and_nothing_pending_goes_with_them() {
    let client = redis::Client::open(url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let stream = format!("test-{}:wakeups", uuid::Uuid::new_v4().simple());
    command(&mut connection, &["XGROUP", "CREATE", &stream, GROUP, "0", "MKSTREAM"]).await;
    command(&mut connection, &["XADD", &stream, "*", "p", "1"]).await;
    let read = |name| vec!["XREADGROUP", "GROUP", GROUP, name, "COUNT", "1", "STREAMS", stream.as_str(), ">"];
    // The first takes the entry and never acknowledges it; the others find nothing.
    for name in ["busy", "dead", "dead-too", "own"] {
        command(&mut connection, &read(name)).await;
    }
    let mut remove = connection.clone();
    let mut remove = async |idle: Duration| consumers::remove_idle(&mut remove, &stream, GROUP, "own", idle).await;
    assert_eq!(remove(Duration::from_secs(60)).await.unwrap(), 0, "they were all seen a moment ago");
    assert_eq!(remove(Duration::ZERO).await.unwrap(), 2);
    assert_eq!(names(&mut connection, &stream).await, ["busy", "own"]);
    assert_eq!(pending(&mut connection, &stream).await, 1, "the entry of the busy one can still be claimed");
    command(&mut connection, &["DEL", &stream]).await;
}
