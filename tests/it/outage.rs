//! What the host does while something it stands on is away: Redis, Postgres, its policies.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use frontdesk_server::settings::Settings;
use frontdesk_testkit::wire;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use crate::fleet::{copy_folder, own_policies, replace};
use crate::host::{ANSWER, Host, PAGE, PATIENCE, QUESTION};

// ---- Redis ----

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

// ---- Postgres ----

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Open,
    /// Connections are closed, new ones at once.
    Cut,
    /// Connections stay, nothing gets through.
    Dead,
    /// The connections there were are dead for ever; new ones work: a firewall has forgotten them.
    Forgotten,
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Stands between the host and Postgres.
pub struct Proxy {
    pub port: u16,
    line: watch::Sender<Line>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Leads to the server that `DATABASE_URL` names.
    pub async fn start() -> Self {
        let url = std::env::var("DATABASE_URL").expect("DATABASE_URL must name a Postgres server for the tests");
        let target: Arc<PgConnectOptions> = Arc::new(url.parse().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = watch::Sender::new(Line::Open);
        let receiver = line.subscribe();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, Arc::clone(&target), receiver.clone()));
            }
        });
        Self { port, line, task }
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// The same database, reached through here.
    pub fn through(port: u16, url: &SecretString) -> SecretString {
        let mut url = reqwest::Url::parse(url.expose_secret()).unwrap();
        let kept: Vec<(String, String)> = url
            .query_pairs()
            .filter(|(key, _)| key != "host" && key != "port")
            .map(|(k, v)| (k.into(), v.into()))
            .collect();
        url.set_query(None);
        if !kept.is_empty() {
            url.query_pairs_mut().extend_pairs(kept);
        }
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(port)).unwrap();
        SecretString::from(url.to_string())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(target: &PgConnectOptions) -> std::io::Result<Box<dyn Duplex>> {
    let port = target.get_port();
    if let Some(folder) = target.get_socket() {
        return Ok(Box::new(UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await?));
    }
    Ok(Box::new(TcpStream::connect((target.get_host(), port)).await?))
}

async fn forward(mut client: TcpStream, target: Arc<PgConnectOptions>, mut line: watch::Receiver<Line>) {
    let Ok(mut server) = connect(&target).await else { return };
    let (mut up, mut down) = (vec![0; 16_384], vec![0; 16_384]);
    let is_new = *line.borrow() == Line::Forgotten;
    loop {
        let now = *line.borrow_and_update();
        if now == Line::Cut {
            return;
        }
        let is_open = now == Line::Open || (is_new && now == Line::Forgotten);
        let forwarded = tokio::select! {
            changed = line.changed() => { if changed.is_err() { return } Ok(()) }
            read = client.read(&mut up), if is_open => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => server.write_all(&up[..count]).await,
            },
            read = server.read(&mut down), if is_open => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => client.write_all(&down[..count]).await,
            },
        };
        if forwarded.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn without_postgres_the_webhook_refuses_in_time_and_loses_nothing() {
    let shipped = Settings::load(None).unwrap();
    assert!(shipped.server.ack_timeout_ms < 5_000, "Meta waits 5 s");
    let proxy = Proxy::start().await;
    let port = proxy.port;
    let host = Host::start_with(move |plan| {
        plan.settings.server.ack_timeout_ms = 1_500;
        plan.secrets.database_url = plan.secrets.database_url.as_ref().map(|url| Proxy::through(port, url));
    })
    .await;
    host.teach_answer().await;
    host.ask("1201", QUESTION).await;
    host.drained().await;

    for (psid, line) in [("1211", Line::Cut), ("1212", Line::Dead)] {
        proxy.set(line);
        let now_ms = wire::now_ms();
        let mid = wire::new_mid();
        let body = wire::body(PAGE, now_ms, vec![wire::from_person(PAGE, psid, now_ms, wire::text(&mid, QUESTION))]);
        host.graph.record_inbound(PAGE, psid, &mid, QUESTION);
        let begin = Instant::now();
        assert_eq!(host.meta.post(&body).await.unwrap(), 503, "{line:?}");
        let took = begin.elapsed();
        assert!(took < Duration::from_millis(4_500), "{line:?}: the answer took {took:?}");
        proxy.set(Line::Open);
        // Meta repeats it until it is taken.
        let begin = Instant::now();
        while host.meta.post(&body).await.ok() != Some(200) {
            assert!(begin.elapsed() < PATIENCE, "{line:?}: the host does not recover");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        host.until(&format!("an answer after {line:?}"), async || host.got(psid).len() == 1).await;
        host.drained().await;
        assert_eq!(host.got(psid).len(), 1, "{line:?}");
        assert_eq!(host.turns(psid).await.len(), 1, "{line:?}");
    }
}

#[tokio::test]
async fn connections_that_die_without_a_word_are_given_up_by_everybody() {
    let proxy = Proxy::start().await;
    let port = proxy.port;
    let host = Host::start_with(move |plan| {
        plan.settings.server.ack_timeout_ms = 1_500;
        plan.settings.worker.lease_ms = 2_000;
        plan.settings.worker.attempts_max = 100;
        plan.settings.graph.timeout_ms = 400;
        plan.settings.outbox.in_doubt_after_ms = 600;
        plan.secrets.database_url = plan.secrets.database_url.as_ref().map(|url| Proxy::through(port, url));
    })
    .await;
    host.teach_answer().await;
    // All connections are in use, by the inbox, turns, claims and sweeps, when they die.
    let mut psids: Vec<String> = Vec::new();
    for at in 0..12 {
        let psid = format!("127{at:02}");
        host.ask(&psid, QUESTION).await;
        psids.push(psid);
    }
    proxy.set(Line::Forgotten);
    let late = "12799".to_owned();
    let mid = wire::new_mid();
    host.graph.record_inbound(PAGE, &late, &mid, QUESTION);
    let body = wire::body(
        PAGE,
        wire::now_ms(),
        vec![wire::from_person(PAGE, &late, wire::now_ms(), wire::text(&mid, QUESTION))],
    );
    let begin = Instant::now();
    while host.meta.post(&body).await.ok() != Some(200) {
        assert!(begin.elapsed() < PATIENCE, "the inbox does not recover");
    }
    psids.push(late);
    // The old connections never come back: whoever waited for one has to take another. What they had locked is free when the
    // server has given them up too.
    let begin = Instant::now();
    let open = "select (select count(*) from inbox where state = 'pending')
                     + (select count(*) from outbox where state in ('queued', 'sending', 'unknown'))";
    while host.count(open).await > 0 {
        assert!(begin.elapsed() < 3 * PATIENCE, "somebody still waits for a dead connection");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for psid in &psids {
        assert_eq!((host.got(psid).len(), host.tickets(psid).await.len()), (1, 0), "{psid}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_between_broken_connections_is_stored_and_answered() {
    let proxy = Proxy::start().await;
    let port = proxy.port;
    let host = Host::start_with(move |plan| {
        plan.settings.server.ack_timeout_ms = 1_000;
        plan.settings.worker.lease_ms = 1_000;
        plan.settings.worker.attempts_max = 100;
        plan.settings.graph.timeout_ms = 400;
        plan.settings.outbox.in_doubt_after_ms = 600;
        plan.secrets.database_url = plan.secrets.database_url.as_ref().map(|url| Proxy::through(port, url));
    })
    .await;
    host.teach_answer().await;
    let mut acknowledged = Vec::new();
    for round in 0..8 {
        let posts = (0..3).map(|at| {
            let (psid, mid, meta) = (format!("13{round}{at}"), wire::new_mid(), host.meta.clone());
            host.graph.record_inbound(PAGE, &psid, &mid, QUESTION);
            tokio::spawn(async move {
                let status = meta.from_person(&psid, wire::text(&mid, QUESTION)).await;
                (psid, mid, matches!(status, Ok(200)))
            })
        });
        let posts: Vec<_> = posts.collect();
        // Each round breaks at another moment of the work.
        tokio::time::sleep(Duration::from_millis(15 * round)).await;
        proxy.set(Line::Cut);
        for post in posts {
            let (psid, mid, is_acknowledged) = post.await.unwrap();
            if is_acknowledged {
                let stored: bool = sqlx::query_scalar("select exists (select from inbox where mid = $1)")
                    .bind(&mid)
                    .fetch_one(host.pool())
                    .await
                    .unwrap();
                assert!(stored, "{psid} was acknowledged and is not stored");
                acknowledged.push(psid);
            }
        }
        proxy.set(Line::Open);
    }
    assert!(!acknowledged.is_empty(), "no message was acknowledged: the test shows nothing");
    host.drained().await;
    for psid in &acknowledged {
        let (got, tickets) = (host.got(psid).len(), host.tickets(psid).await);
        assert_eq!((got, tickets.len()), (1, 0), "{psid}: {tickets:?}");
    }
}

// ---- policies ----

async fn host_on(policies: &Path) -> Host {
    let dir = policies.to_owned();
    let host = Host::start_with(move |plan| {
        plan.settings.policies.dir.clone_from(&dir);
        plan.settings.policies.poll_ms = 500;
    })
    .await;
    host.teach_answer().await;
    host
}

pub async fn chain(host: &Host) -> Value {
    let (status, answer) = host.admin("GET", "/admin/policies", None).await;
    assert_eq!(status, 200, "{answer}");
    answer["chains"][0].clone()
}

#[tokio::test]
async fn without_any_policy_a_person_gets_the_turn() {
    let empty = tempfile::tempdir().unwrap();
    let host = host_on(empty.path()).await;
    let status = chain(&host).await;
    assert_eq!(status["revision"], Value::Null, "{status}");
    assert!(status["rejected"]["reason"].as_str().unwrap().contains("chain.toml"), "{status}");
    host.ask("1401", QUESTION).await;
    host.drained().await;
    assert_eq!(host.got("1401"), [""; 0]);
    assert_eq!(host.tickets("1401").await, ["no-policy"]);
    assert_eq!(host.owner("1401").await, "human");
    // The folder is filled while the host runs.
    copy_folder(own_policies().path(), empty.path());
    host.until("the policies serve", async || chain(&host).await["revision"].is_string()).await;
    host.ask("1402", QUESTION).await;
    host.drained().await;
    assert_eq!(host.got("1402").len(), 1);
}

#[tokio::test]
async fn a_start_with_a_broken_folder_serves_what_served_last() {
    let policies = own_policies();
    let host = host_on(policies.path()).await;
    let before = chain(&host).await;
    assert_eq!(before["origin"], "folder", "{before}");
    std::fs::write(policies.path().join("default/chain.toml"), "version = 1\n[[policy]]\nhook = \"nonsense\"\n")
        .unwrap();
    let host = host.restart().await;
    let after = chain(&host).await;
    assert_eq!((&after["origin"], &after["revision"]), (&json!("last-good"), &before["revision"]), "{after}");
    assert!(after["rejected"]["reason"].as_str().is_some_and(|reason| reason.contains("nonsense")), "{after}");
    host.ask("1501", QUESTION).await;
    host.drained().await;
    assert!(host.got("1501")[0].contains(ANSWER));
}

#[tokio::test]
async fn a_changed_component_serves_without_a_restart_and_a_broken_one_never() {
    let policies = own_policies();
    let host = host_on(policies.path()).await;
    let component = policies.path().join("components/filter-safety.wasm");
    let good = std::fs::read(&component).unwrap();
    let first = chain(&host).await["revision"].clone();
    host.ask("1601", QUESTION).await;
    host.drained().await;
    assert_eq!(host.turns("1601").await[0]["revision"], first);

    // The same component with a custom section more: other bytes, the same behaviour.
    let mut changed = good.clone();
    changed.extend_from_slice(&[0, 5, 4, b't', b'e', b's', b't']);
    replace(&component, &changed);
    host.until("the changed component serves", async || {
        let now = chain(&host).await["revision"].clone();
        now.is_string() && now != first
    })
    .await;
    let second = chain(&host).await["revision"].clone();
    host.ask("1602", QUESTION).await;
    host.drained().await;
    assert_eq!(host.turns("1602").await[0]["revision"], second);

    // A broken component and broken settings change nothing, and the reason is told.
    let settings = policies.path().join("default/tone-brand.toml");
    let good_settings = std::fs::read(&settings).unwrap();
    let broken: [(&Path, &[u8], &[u8], &str); 3] = [
        (&component, &good[..good.len() / 2], &changed, "filter-safety"),
        (&component, b"not wasm at all", &changed, "filter-safety"),
        (&settings, b"tone = 5\n", &good_settings, "tone"),
    ];
    for (at, (path, content, mended, said)) in broken.into_iter().enumerate() {
        replace(path, content);
        host.until("the broken one is rejected", async || !chain(&host).await["rejected"].is_null()).await;
        let status = chain(&host).await;
        assert_eq!(status["revision"], second, "{status}");
        let reason = status["rejected"]["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains(said), "{reason}");
        let psid = format!("161{at}");
        host.ask(&psid, QUESTION).await;
        host.drained().await;
        assert_eq!(host.turns(&psid).await[0]["revision"], second);
        assert_eq!(host.got(&psid).len(), 1);
        // Mended: the complaint goes, and the same revision serves on.
        replace(path, mended);
        host.until("the complaint is gone", async || chain(&host).await["rejected"].is_null()).await;
        assert_eq!(chain(&host).await["revision"], second);
    }
    assert!(host.count("select count(*) from policy_transitions").await >= 5);

    // Settings alone are enough for a new revision, and its words are the ones that are sent.
    let text = String::from_utf8(good_settings).unwrap();
    let reworded =
        text.replace("You are chatting with the automated assistant", "You are writing to the automated assistant");
    assert_ne!(reworded, text);
    replace(&settings, reworded.as_bytes());
    host.until("the settings serve", async || chain(&host).await["revision"] != second).await;
    host.ask("1620", QUESTION).await;
    host.drained().await;
    assert!(host.got("1620")[0].contains("You are writing to the automated assistant"), "{:?}", host.got("1620"));
}
