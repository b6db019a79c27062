//! Without Redis, with another one, and with one that takes no writes.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use secrecy::SecretString;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::host::{Host, PATIENCE, QUESTION};

/// A Valkey of the test's own, on a port that it keeps over restarts.
struct Valkey {
    binary: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Valkey {
    async fn start() -> Self {
        let engines = std::env::var_os("FRONTDESK_ENGINES_DIR").expect(
            "FRONTDESK_ENGINES_DIR is not set: run `cargo xtask test`, or set it to what `cargo xtask fetch` prints",
        );
        let binary = PathBuf::from(engines).join("bin/valkey-server");
        let folder = tempfile::tempdir().unwrap();
        // Somebody else may take a free port before Valkey does; then another one is tried.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
            let mut valkey = Self {
                binary: binary.clone(),
                folder: tempfile::tempdir_in(folder.path()).unwrap(),
                port,
                child: None,
            };
            if valkey.resume().await {
                valkey.folder = folder;
                return valkey;
            }
        }
        panic!("{} does not start", binary.display());
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it, empty, on its port. False: it did not stay.
    async fn resume(&mut self) -> bool {
        let port = self.port.to_string();
        let arguments = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"];
        let command = Command::new(&self.binary)
            .args(arguments)
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = self.child.insert(command.unwrap_or_else(|error| panic!("{}: {error}", self.binary.display())));
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            if command_of(self.port, "PING").await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Valkey {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn command_of(port: u16, command: &str) -> redis::RedisResult<()> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    redis::cmd(command).query_async::<redis::Value>(&mut connection).await.map(drop)
}

#[tokio::test]
async fn nothing_is_lost_while_redis_is_stopped_flushed_or_new() {
    let mut valkey = Valkey::start().await;
    let url = valkey.url();
    let host = Host::start_with(move |plan| plan.secrets.redis_url = Some(SecretString::from(url.clone()))).await;
    host.teach_answer().await;
    let mut asked = 0;
    let mut ask = async |count: usize| {
        for _ in 0..count {
            asked += 1;
            host.ask(&format!("10{asked:02}"), QUESTION).await;
        }
    };
    ask(2).await;
    host.drained().await;
    assert!(host.app.queue.is_healthy());

    // Stopped amid messages: taken, and answered without it.
    ask(1).await;
    valkey.kill();
    ask(3).await;
    host.drained().await;
    host.until("Redis is known to be away", async || !host.app.queue.is_healthy()).await;

    // Back, with nothing of what it knew.
    ask(1).await;
    assert!(valkey.resume().await);
    ask(2).await;
    host.drained().await;
    host.until("Redis is known to be back", async || host.app.queue.is_healthy()).await;

    // Flushed again and again while messages come.
    for _ in 0..4 {
        ask(2).await;
        command_of(valkey.port, "FLUSHALL").await.unwrap();
    }
    ask(1).await;
    host.drained().await;
    for at in 1..=asked {
        assert_eq!(host.got(&format!("10{at:02}")).len(), 1, "customer {at} of {asked}");
    }
    // The wake-ups work again, not only the sweeper: the group was made anew on the new stream.
    let key = format!("{}:wakeups", host.app.settings.queue.namespace);
    let client = redis::Client::open(valkey.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    host.until("the group is back", async || {
        let mut connection = connection.clone();
        let groups: redis::RedisResult<Vec<redis::Value>> =
            redis::cmd("XINFO").arg("GROUPS").arg(&key).query_async(&mut connection).await;
        groups.is_ok_and(|groups| groups.len() == 1)
    })
    .await;
    let _: () = redis::cmd("PING").query_async::<redis::Value>(&mut connection).await.map(drop).unwrap();
}

/// An address that leads to one Valkey, and later to another: a failover behind one name.
struct Address {
    port: u16,
    target: watch::Sender<u16>,
    task: tokio::task::JoinHandle<()>,
}

impl Address {
    async fn of(valkey: &Valkey) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = watch::Sender::new(valkey.port);
        let targets = target.subscribe();
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut targets = targets.clone();
                tokio::spawn(async move {
                    let port = *targets.borrow_and_update();
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        // Whoever speaks to the old one is cut off.
                        _ = targets.changed() => {}
                    }
                });
            }
        });
        Self { port, target, task }
    }

    fn lead_to(&self, valkey: &Valkey) {
        self.target.send_replace(valkey.port);
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How many groups the wake-up stream has there.
async fn groups_at(valkey: &Valkey, host: &Host) -> usize {
    let client = redis::Client::open(valkey.url()).unwrap();
    let Ok(mut connection) = client.get_multiplexed_async_connection().await else { return 0 };
    let key = format!("{}:wakeups", host.app.settings.queue.namespace);
    let groups: redis::RedisResult<Vec<redis::Value>> =
        redis::cmd("XINFO").arg("GROUPS").arg(&key).query_async(&mut connection).await;
    groups.map_or(0, |groups| groups.len())
}

#[tokio::test]
async fn nothing_is_lost_when_redis_fails_over_or_its_leader_becomes_a_replica() {
    let (mut first, second) = (Valkey::start().await, Valkey::start().await);
    let address = Address::of(&first).await;
    let url = format!("redis://127.0.0.1:{}", address.port);
    let host = Host::start_with(move |plan| plan.secrets.redis_url = Some(SecretString::from(url.clone()))).await;
    host.teach_answer().await;
    let mut asked = 0;
    let mut ask = async |count: usize| {
        for _ in 0..count {
            asked += 1;
            host.ask(&format!("11{asked:02}"), QUESTION).await;
        }
    };
    ask(2).await;
    host.drained().await;

    // Moved: the name leads to another server, which knows nothing of the stream.
    ask(1).await;
    address.lead_to(&second);
    first.kill();
    ask(2).await;
    host.drained().await;
    host.until("the stream is made on the new server", async || groups_at(&second, &host).await == 1).await;
    host.until("Redis is known to answer", async || host.app.queue.is_healthy()).await;
    ask(1).await;
    host.drained().await;

    // Demoted where it stands: it answers, and takes no writes.
    assert!(first.resume().await);
    let port = first.port.to_string();
    let replicate = async |to: &[&str]| {
        let client = redis::Client::open(second.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd("REPLICAOF").arg(to).query_async::<redis::Value>(&mut connection).await.unwrap();
    };
    replicate(&["127.0.0.1", &port]).await;
    ask(2).await;
    host.drained().await;
    // The name follows to the leader, and connections to what leads no longer are given up by themselves.
    address.lead_to(&first);
    ask(1).await;
    host.drained().await;
    host.until("the stream is made on the leader", async || groups_at(&first, &host).await == 1).await;
    for at in 1..=asked {
        assert_eq!(host.got(&format!("11{at:02}")).len(), 1, "customer {at} of {asked}");
    }
}

#[tokio::test]
async fn a_host_starts_and_answers_without_redis() {
    // A port that nobody listens on.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let url = format!("redis://127.0.0.1:{port}");
    let host = Host::start_with(move |plan| plan.secrets.redis_url = Some(SecretString::from(url.clone()))).await;
    host.teach_answer().await;
    host.ask("1101", QUESTION).await;
    host.drained().await;
    assert_eq!(host.got("1101").len(), 1);
}
