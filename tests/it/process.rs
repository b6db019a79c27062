//! A host that is a process of its own: it can be killed, or told at which point to die.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use frontdesk_server::fail_point::Point;
use frontdesk_server::settings::Settings;
use frontdesk_testkit::{GraphSim, WebhookSender};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::host::{
    ADMIN_TOKEN, ANSWER, APP_SECRET, Ground, OTHER_PAGE_TOKEN, PAGE, PAGE_TOKEN, TICKET_SECRET, VERIFY_TOKEN, settings,
    simulated_meta,
};

/// Much longer than anything here takes, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// What a host may log before the rest is let go.
const LOG_LINES_MAX: usize = 100_000;

/// A host that is a process of its own, with everything it stands on.
pub struct Installation {
    pub ground: Arc<Ground>,
    pub graph: Arc<GraphSim>,
    config: PathBuf,
}

pub struct Process {
    child: Child,
    pub address: String,
    pub meta: WebhookSender,
    log: Arc<Mutex<Vec<Value>>>,
}

/// The command line, as it was built with the tests (`cargo test --workspace`).
fn policyctl_binary() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_frontdesk-under-test")).with_file_name("policyctl");
    assert!(path.is_file(), "{} is not there: run the tests with `--workspace`, which builds it", path.display());
    path
}

impl Process {
    /// What `policyctl` says about this host, whatever its exit code.
    pub async fn policyctl(&self, arguments: &[&str]) -> String {
        let output = Command::new(policyctl_binary())
            .args(arguments)
            .env("FRONTDESK_URL", format!("http://{}", self.address))
            .env("FRONTDESK_ADMIN_TOKEN", ADMIN_TOKEN)
            .output()
            .await
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }
}

impl Installation {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With settings of the test's own.
    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
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
        change(&mut settings);
        let config = ground.dir.path().join("frontdesk.toml");
        std::fs::write(&config, toml::to_string(&settings).unwrap()).unwrap();
        Self { ground, graph, config }
    }

    /// Starts the host and waits until it serves.
    pub async fn start(&self) -> Process {
        self.start_to_die_at(None).await
    }

    /// The settings' file.
    pub fn config(&self) -> &str {
        self.config.to_str().unwrap()
    }

    /// The program with what this installation gives it, and nothing else.
    pub fn command(&self, args: &[&str]) -> Command {
        let redis = std::env::var("REDIS_URL").expect("REDIS_URL must name a Redis for the tests");
        let mut command = Command::new(env!("CARGO_BIN_EXE_frontdesk-under-test"));
        command
            .args(args)
            .env_clear()
            .env("DATABASE_URL", &self.ground.db.url)
            .env("REDIS_URL", redis)
            .env("FRONTDESK_APP_SECRET", APP_SECRET)
            .env("FRONTDESK_VERIFY_TOKEN", VERIFY_TOKEN)
            .env("FRONTDESK_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("TEST_PAGE_TOKEN", PAGE_TOKEN)
            .env("TEST_OTHER_PAGE_TOKEN", OTHER_PAGE_TOKEN)
            .env("FRONTDESK_TICKET_WEBHOOK_SECRET", TICKET_SECRET)
            .stdin(Stdio::null());
        command
    }

    /// Starts a host that dies when it passes this point for the first time.
    pub async fn start_to_die_at(&self, point: Option<Point>) -> Process {
        let point = point.map(|point| ("FRONTDESK_FAIL_POINT", point.name()));
        self.start_with_env(point.as_slice()).await
    }

    /// Starts a host with more environment.
    pub async fn start_with_env(&self, envs: &[(&str, &str)]) -> Process {
        let mut child = self
            .command(&["serve", "--config", self.config()])
            .env("FRONTDESK_LOG_FORMAT", "json")
            .envs(envs.iter().copied())
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
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keeps = Arc::clone(&kept);
        tokio::spawn(async move {
            while let Ok(Some(line)) = log.next_line().await {
                let mut kept = keeps.lock().unwrap();
                if kept.len() < LOG_LINES_MAX {
                    kept.push(serde_json::from_str(&line).unwrap_or(Value::String(line)));
                }
            }
        });
        let callback = format!("http://{address}/meta/webhook");
        self.graph.set_callback(&callback).unwrap();
        let meta = WebhookSender::new(&callback, APP_SECRET, PAGE).unwrap();
        Process { child, address, meta, log: kept }
    }

    pub async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.ground.db.pool).await.unwrap()
    }

    /// Waits until nothing is unread and nothing unsent, as long as less and less is: what is in doubt is looked up at the pace
    /// that Meta allows.
    pub async fn drained(&self) {
        let (mut since, mut least) = (Instant::now(), i64::MAX);
        loop {
            let open = "select (select count(*) from inbox where state = 'pending')
                             + (select count(*) from outbox where state in ('queued', 'sending', 'unknown'))";
            let left = self.count(open).await;
            if left == 0 {
                return;
            }
            if left < least {
                (since, least) = (Instant::now(), left);
            }
            assert!(since.elapsed() < PATIENCE, "the host did not finish; {}", self.leftovers().await);
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
    /// What the host has logged so far with this message.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|entry| entry["message"] == message).cloned().collect()
    }

    /// Memory of the process that is in use now, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// The answer of the admin API.
    pub async fn ask_admin(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.address);
        let answer = reqwest::Client::new().get(url).bearer_auth(ADMIN_TOKEN).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// The text of the metrics page.
    pub async fn metrics(&self) -> String {
        reqwest::get(format!("http://{}/metrics", self.address)).await.unwrap().text().await.unwrap()
    }

    /// No signal handler, no destructor, no flush.
    pub async fn kill_9(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits until it ends by itself; `None` when it does not.
    pub async fn ended(&mut self, patience: Duration) -> Option<ExitStatus> {
        tokio::time::timeout(patience, self.child.wait()).await.ok().map(Result::unwrap)
    }

    /// Calls the admin API as agent Ada. `None` when no answer comes: the process may have died.
    pub async fn admin(&self, method: reqwest::Method, path: &str, body: Value) -> Option<(u16, Value)> {
        let request = reqwest::Client::new()
            .request(method, format!("http://{}{path}", self.address))
            .bearer_auth(ADMIN_TOKEN)
            .header("X-Frontdesk-Agent", "ada")
            // The same for a repetition of the same call.
            .header("Idempotency-Key", path.rsplit('/').next().unwrap_or("call"))
            .json(&body);
        let answer = request.send().await.ok()?;
        Some((answer.status().as_u16(), answer.json().await.ok()?))
    }

    pub async fn teach_answer(&self) {
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
