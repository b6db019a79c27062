//! Without Postgres, and with connections to it that break or fall silent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use frontdesk_server::settings::Settings;
use frontdesk_testkit::wire;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use crate::host::{Host, PAGE, PATIENCE, QUESTION};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Open,
    /// Connections are closed, new ones at once.
    Cut,
    /// Connections stay, nothing gets through.
    Dead,
    /// The connections there were are dead for ever; new ones work: a firewall has forgotten them.
    Forgotten,
    /// What is asked arrives; instead of its answer the connection is closed.
    Unanswered,
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
        let is_open = matches!(now, Line::Open | Line::Unanswered) || (is_new && now == Line::Forgotten);
        let forwarded = tokio::select! {
            changed = line.changed() => { if changed.is_err() { return } Ok(()) }
            read = client.read(&mut up), if is_open => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => server.write_all(&up[..count]).await,
            },
            read = server.read(&mut down), if is_open => match read {
                Ok(0) | Err(_) => return,
                Ok(_) if now == Line::Unanswered => return,
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

#[tokio::test]
async fn a_turn_whose_commit_was_not_confirmed_keeps_its_record() {
    let proxy = Proxy::start().await;
    let port = proxy.port;
    let host = Host::start_with(move |plan| {
        plan.settings.worker.lease_ms = 1_000;
        plan.secrets.database_url = plan.secrets.database_url.as_ref().map(|url| Proxy::through(port, url));
    })
    .await;
    host.teach_answer().await;
    // The turn's last statement waits here until its answer is sure to be lost.
    let mut tx = host.pool().begin().await.unwrap();
    sqlx::query("lock table decisions in exclusive mode").execute(&mut *tx).await.unwrap();
    host.ask("1401", QUESTION).await;
    // Other tests' databases have the same numbers for their tables.
    let waiting = "select pid from pg_locks where relation = 'decisions'::regclass and not granted
                     and database = (select oid from pg_database where datname = current_database())";
    let waits = async || sqlx::query_scalar::<_, i32>(waiting).fetch_optional(host.pool()).await.unwrap();
    host.until("the turn to be committed", async || waits().await.is_some()).await;
    let pid = waits().await.unwrap();
    proxy.set(Line::Unanswered);
    tx.commit().await.unwrap();
    let ended = async || {
        let lives = sqlx::query_scalar::<_, bool>("select exists (select from pg_stat_activity where pid = $1)");
        !lives.bind(pid).fetch_one(host.pool()).await.unwrap()
    };
    host.until("the end of the connection", ended).await;
    proxy.set(Line::Open);
    host.drained().await;
    assert_eq!((host.got("1401").len(), host.turns("1401").await.len()), (1, 1));
    assert_eq!(host.count("select count(*) from decisions where record_state = 'sealed'").await, 1);
}
