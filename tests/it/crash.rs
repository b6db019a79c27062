//! `kill -9` at any moment: what was acknowledged is answered, and once.
//!
//! `FRONTDESK_CRASH_ROUNDS` sets how often the process dies, `FRONTDESK_CRASH_SEED` repeats a run's chances.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use frontdesk_testkit::{GraphSim, Outcome, WebhookSender, wire};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::host::{
    ADMIN_TOKEN, ANSWER, APP_SECRET, Ground, OTHER_PAGE_TOKEN, PAGE, PAGE_TOKEN, QUESTION, VERIFY_TOKEN, settings,
    simulated_meta,
};

/// Much longer than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Customers who write in one round.
const CUSTOMERS: usize = 3;

/// A host that is a process of its own, with everything it stands on.
struct Installation {
    ground: Arc<Ground>,
    graph: Arc<GraphSim>,
    config: PathBuf,
}

struct Process {
    child: Child,
    address: String,
    meta: WebhookSender,
}

impl Installation {
    async fn new() -> Self {
        let (ground, graph) = (Ground::new().await, simulated_meta().await);
        let mut settings = settings(&ground, &graph);
        settings.graph.timeout_ms = 300;
        settings.outbox.in_doubt_after_ms = 500;
        settings.outbox.echo_grace_ms = 200;
        // The lease of a dead worker has to expire.
        settings.worker.lease_ms = 1_000;
        // Each crash costs the events an attempt; here they are to be answered, however often it takes.
        settings.worker.attempts_max = 100;
        settings.outbox.attempts_max = 100;
        settings.queue.claim_after_ms = 500;
        settings.pages[0].token_env = Some("TEST_PAGE_TOKEN".into());
        settings.pages[1].token_env = Some("TEST_OTHER_PAGE_TOKEN".into());
        let config = ground.dir.path().join("frontdesk.toml");
        std::fs::write(&config, toml::to_string(&settings).unwrap()).unwrap();
        Self { ground, graph, config }
    }

    /// Starts the host and waits until it serves.
    async fn start(&self) -> Process {
        let redis = std::env::var("REDIS_URL").expect("REDIS_URL must name a Redis for the tests");
        let mut child = Command::new(env!("CARGO_BIN_EXE_frontdesk-under-test"))
            .args(["serve", "--config"])
            .arg(&self.config)
            .env_clear()
            .env("DATABASE_URL", &self.ground.db.url)
            .env("REDIS_URL", redis)
            .env("FRONTDESK_APP_SECRET", APP_SECRET)
            .env("FRONTDESK_VERIFY_TOKEN", VERIFY_TOKEN)
            .env("FRONTDESK_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("TEST_PAGE_TOKEN", PAGE_TOKEN)
            .env("TEST_OTHER_PAGE_TOKEN", OTHER_PAGE_TOKEN)
            .env("FRONTDESK_LOG_FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let started = tokio::time::timeout(PATIENCE, async {
            while let Some(line) = log.next_line().await.unwrap() {
                let entry: Value = serde_json::from_str(&line).unwrap_or_default();
                if entry["message"] == "Frontdesk runs" {
                    return entry["address"].as_str().map(str::to_owned);
                }
                said.push(line);
            }
            None
        });
        let address = started.await.ok().flatten();
        let Some(address) = address else { panic!("the host did not start; it said:\n{}", said.join("\n")) };
        // A full pipe would stop the host.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        let callback = format!("http://{address}/meta/webhook");
        self.graph.set_callback(&callback).unwrap();
        let meta = WebhookSender::new(&callback, APP_SECRET, PAGE).unwrap();
        Process { child, address, meta }
    }

    async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.ground.db.pool).await.unwrap()
    }

    /// Waits until nothing is unread and nothing unsent.
    async fn drained(&self) {
        let begin = Instant::now();
        loop {
            let open = "select (select count(*) from inbox where state = 'pending')
                             + (select count(*) from outbox where state in ('queued', 'sending', 'unknown'))";
            if self.count(open).await == 0 {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "the host did not finish; {}", self.leftovers().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn leftovers(&self) -> String {
        let unread: Vec<(String, Option<String>, i32)> =
            sqlx::query_as("select kind, psid, attempts from inbox where state = 'pending'")
                .fetch_all(&self.ground.db.pool)
                .await
                .unwrap();
        let unsent: Vec<(String, String, Option<String>)> =
            sqlx::query_as("select psid, state, error from outbox where state in ('queued', 'sending', 'unknown')")
                .fetch_all(&self.ground.db.pool)
                .await
                .unwrap();
        format!("unread: {unread:?}, unsent: {unsent:?}")
    }
}

impl Process {
    /// No signal handler, no destructor, no flush.
    async fn kill_9(mut self) {
        self.child.kill().await.unwrap();
    }

    async fn teach_answer(&self) {
        let answer = reqwest::Client::new()
            .post(format!("http://{}/admin/knowledge/text", self.address))
            .bearer_auth(ADMIN_TOKEN)
            .json(&json!({ "title": "Shipping to Austria", "text": ANSWER }))
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }
}

/// A customer's only message.
#[derive(Clone)]
struct Inquiry {
    psid: String,
    mid: String,
    stamp_ms: i64,
}

/// Posts as Meta does; gives whether it was acknowledged.
async fn deliver(meta: WebhookSender, inquiry: Inquiry) -> Option<Inquiry> {
    let piece = wire::from_person(PAGE, &inquiry.psid, inquiry.stamp_ms, wire::text(&inquiry.mid, QUESTION));
    let status = meta.post(&wire::body(PAGE, inquiry.stamp_ms, vec![piece])).await;
    (!matches!(status, Ok(200))).then_some(inquiry)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_inquiry_survives_kill_9_and_is_answered_once() {
    let rounds: usize =
        std::env::var("FRONTDESK_CRASH_ROUNDS").map_or(20, |rounds| rounds.parse().expect("a number of rounds"));
    let seed: u64 = std::env::var("FRONTDESK_CRASH_SEED")
        .map_or_else(|_| rand::rng().random(), |seed| seed.parse().expect("a number as seed"));
    println!("FRONTDESK_CRASH_SEED={seed} repeats this run");
    let mut chance = StdRng::seed_from_u64(seed);
    let installation = Installation::new().await;
    let first = installation.start().await;
    first.teach_answer().await;
    first.kill_9().await;

    let mut all: Vec<Inquiry> = Vec::new();
    let mut unacknowledged: Vec<Inquiry> = Vec::new();
    let mut crashes_amid_work = 0;
    for round in 0..rounds {
        let process = installation.start().await;
        for _ in 0..CUSTOMERS {
            match chance.random_range(0..10) {
                0..=4 => installation.graph.script(Outcome::Delay(Duration::from_millis(chance.random_range(10..150)))),
                5 => installation.graph.script(Outcome::LostResponse),
                6 => installation.graph.script(Outcome::Hang { is_taken: chance.random() }),
                _ => {}
            }
        }
        for customer in 0..CUSTOMERS {
            let inquiry =
                Inquiry { psid: format!("9{round:03}{customer}"), mid: wire::new_mid(), stamp_ms: wire::now_ms() };
            installation.graph.record_inbound(PAGE, &inquiry.psid, &inquiry.mid, QUESTION);
            all.push(inquiry.clone());
            unacknowledged.push(inquiry);
        }
        // Meta repeats what was not acknowledged.
        let deliveries: Vec<_> =
            unacknowledged.drain(..).map(|inquiry| tokio::spawn(deliver(process.meta.clone(), inquiry))).collect();
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..400))).await;
        process.kill_9().await;
        for delivery in deliveries {
            unacknowledged.extend(delivery.await.unwrap());
        }
        let amid = "select (select count(*) from inbox where state = 'pending' and kind = 'message')
                         + (select count(*) from outbox where state in ('queued', 'sending'))";
        crashes_amid_work += i64::from(installation.count(amid).await > 0);
    }

    let last = installation.start().await;
    for inquiry in unacknowledged {
        assert!(deliver(last.meta.clone(), inquiry).await.is_none());
    }
    installation.drained().await;
    println!("{} inquiries, {rounds} crashes, {crashes_amid_work} of them amid work", all.len());
    assert!(crashes_amid_work > 0, "no crash met any work: the test shows nothing");
    for inquiry in &all {
        let got = installation.graph.sends_to(&inquiry.psid);
        assert_eq!(got.len(), 1, "{} got {:?}", inquiry.psid, got.iter().map(|sent| &sent.text).collect::<Vec<_>>());
        assert!(got[0].text.contains(ANSWER), "{}", got[0].text);
        let decided: i64 = sqlx::query_scalar("select count(*) from decisions where mids = array[$1]")
            .bind(&inquiry.mid)
            .fetch_one(&installation.ground.db.pool)
            .await
            .unwrap();
        assert_eq!(decided, 1, "{}", inquiry.psid);
    }
    assert_eq!(installation.count("select count(*) from tickets").await, 0);
    assert_eq!(installation.count("select count(*) from outbox where state <> 'sent'").await, 0);
    assert_eq!(
        installation.count("select count(*) from inbox where kind = 'message'").await,
        i64::try_from(all.len()).unwrap()
    );
    last.kill_9().await;
}
