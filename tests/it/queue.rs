//! The names of workers in the wake-up stream.

use std::time::Duration;

use frontdesk_server::queue::consumers;
use redis::aio::MultiplexedConnection;

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

#[tokio::test]
async fn names_of_dead_workers_go_and_nothing_pending_goes_with_them() {
    let url = std::env::var("REDIS_URL").expect("REDIS_URL must name a Redis for the tests");
    let client = redis::Client::open(url).unwrap();
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
    let pending: (u64, redis::Value, redis::Value, redis::Value) =
        redis::cmd("XPENDING").arg(&stream).arg(GROUP).query_async(&mut connection).await.unwrap();
    assert_eq!(pending.0, 1, "the entry of the busy one can still be claimed");
    command(&mut connection, &["DEL", &stream]).await;
}
