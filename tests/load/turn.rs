//! Whole turns in a running host: a message is stored in the inbox, and the time runs until the reply's call of the Send
//! API arrives. Policies, retrieval and outbox are the shipped ones, the drafter is the extractive one (no model's time),
//! Meta answers at once and echoes every message.
//!
//! Customers are closed loops: each writes, waits for its reply, and writes again. Few of them show what a turn takes on
//! an idle host; many show what the host can do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use frontdesk_policy_engine::{Level, RecordedTurn, replay};
use frontdesk_server::app::{App, Roles};
use frontdesk_server::knowledge::{NewDocument, format_from_name};
use frontdesk_testkit::wire;
use sqlx::PgPool;

use crate::Options;
use crate::graph_stub::{self, GraphStub};
use crate::ground::{self, Ground, PAGE};
use crate::machine::Cores;
use crate::table::{Aim, Figure, Findings, Row, Times};

const MEASURE: &str = "turn";
/// Customers on a host with little to do, and their pause between a reply and the next message.
const FEW: usize = 2;
const PAUSE: Duration = Duration::from_millis(40);
/// Twice what works at once by default, so that somebody always waits.
const MANY: usize = 64;
/// A customer who asks more is somebody else: the escalation policy looks at long conversations.
const QUESTIONS_PER_CUSTOMER: usize = 3;
const REPLY_MAX: Duration = Duration::from_secs(30);
/// Decisions that are judged again.
const REPLAYS: u32 = 1_000;

pub async fn measure(options: &Options) -> Result<Findings> {
    let ground = Ground::new().await?;
    let graph = Arc::new(GraphStub::start().await?);
    let settings = ground.settings(&graph.base_url, &ground::policies()?)?;
    let host = ground.start(settings, Roles { serve: true, work: true }).await?;
    graph.echo_to(&host.app);
    let findings = run(options, &ground.pool, &host.app, &graph).await;
    host.stop().await?;
    findings
}

/// What asks.
pub struct Crowd {
    app: Arc<App>,
    graph: Arc<GraphStub>,
    /// Those that the machine answers.
    questions: Vec<String>,
    customers: AtomicU64,
    asked: AtomicU64,
}

async fn run(options: &Options, pool: &PgPool, app: &Arc<App>, graph: &Arc<GraphStub>) -> Result<Findings> {
    let (crowd, known) = Crowd::gather(pool, app, graph).await?;
    let crowd = Arc::new(crowd);
    let mut findings = Findings::default();
    findings.notes.push(format!(
        "{} of the {known} questions of the demonstration's FAQ are answered by the machine; those are asked",
        crowd.questions.len()
    ));
    few(options, pool, &crowd, &mut findings).await?;
    many(options, pool, &crowd, &mut findings).await?;
    check(pool, &crowd, &mut findings).await?;
    replays(app, &mut findings).await?;
    Ok(findings)
}

/// The newest decisions, judged again by the revision that made them: every verdict must be the same to the byte.
async fn replays(app: &App, findings: &mut Findings) -> Result<()> {
    let serving = app.policies.current("default").context("no revision serves")?;
    let (began, mut equal, mut judged) = (Instant::now(), 0, 0);
    for decision in app.records.latest("default", REPLAYS).await? {
        let recorded: RecordedTurn = serde_json::from_value(decision.record)?;
        let replayed = replay(&serving.revision, &recorded).await;
        judged += 1;
        equal += u64::from(replayed.level == Level::Exact && replayed.differences(&recorded).is_empty());
    }
    if equal != judged {
        findings.failures.push(format!("{} of {judged} replayed decisions differ from their records", judged - equal));
    }
    findings.rows.push(
        Row::new(MEASURE, "recorded decisions replayed, equal to the byte", Figure::Count(equal))
            .against("decisions", Figure::Count(judged))
            .aim(Aim::RatioAtLeast(1.0)),
    );
    findings.notes.push(format!("{judged} decisions replayed in {:.1} s", began.elapsed().as_secs_f64()));
    Ok(())
}

async fn few(options: &Options, pool: &PgPool, crowd: &Arc<Crowd>, findings: &mut Findings) -> Result<()> {
    let began = Utc::now();
    let times = ask_for(crowd, FEW, PAUSE, options.duration()).await?;
    // Warmed up by the questions before, which are in the summary too.
    let turn = |quantile: &str| {
        let text = crowd.app.metrics.render();
        let line = format!("frontdesk_turn_seconds{{quantile=\"{quantile}\"}}");
        let value = text.lines().find_map(|found| found.strip_prefix(&line)?.trim().parse::<f64>().ok());
        value.map(|seconds| Figure::Millis(seconds * 1_000.0)).context("the host counts no turns")
    };
    findings
        .rows
        .push(Row::new(MEASURE, "lease to commit, few customers: median", turn("0.5")?).aim(Aim::AtMost(10.0)));
    findings.rows.push(Row::new(MEASURE, "lease to commit, few customers: p99", turn("0.99")?).aim(Aim::AtMost(40.0)));
    findings.rows.push(Row::new(MEASURE, "stored to Send API call, few customers: median", times.median_ms()));
    findings.rows.push(Row::new(MEASURE, "stored to Send API call, few customers: p99", times.p99_ms()));
    findings.notes.push(format!(
        "few: {FEW} customers, {} turns; medians of the steps: {}",
        times.len(),
        steps(pool, began).await?
    ));
    Ok(())
}

async fn many(options: &Options, pool: &PgPool, crowd: &Arc<Crowd>, findings: &mut Findings) -> Result<()> {
    let before = transactions(pool).await?;
    let (began, cores) = (Instant::now(), Cores::watch());
    let times = ask_for(crowd, MANY, Duration::ZERO, options.duration()).await?;
    let (elapsed, used) = (began.elapsed().as_secs_f64(), cores.used());
    #[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^52")]
    let (per_second, transactions) =
        (times.len() as f64 / elapsed, (transactions(pool).await? - before) as f64 / times.len().max(1) as f64);
    findings.rows.push(
        Row::new(MEASURE, format!("turns, {MANY} customers at once"), Figure::PerSecond(per_second))
            .aim(Aim::AtLeast(500.0)),
    );
    findings.rows.push(Row::new(
        MEASURE,
        format!("stored to Send API call, {MANY} customers: median"),
        times.median_ms(),
    ));
    findings.rows.push(Row::new(MEASURE, format!("stored to Send API call, {MANY} customers: p99"), times.p99_ms()));
    findings.notes.push(format!(
        "{MANY} customers: {} turns, each with a message and an echo stored; {transactions:.1} \
         transactions a turn; cores busy {:.2} of the machine, {:.2} of them this process (host, simulated Meta and customers)",
        times.len(),
        used.machine,
        used.process
    ));
    Ok(())
}

/// Transactions that the database has ended so far.
async fn transactions(pool: &PgPool) -> sqlx::Result<i64> {
    // Sessions that are busy report once a second.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    sqlx::query_scalar("select xact_commit from pg_stat_database where datname = current_database()")
        .fetch_one(pool)
        .await
}

/// Nothing may be left unread, and every message has exactly one decision.
pub async fn check(pool: &PgPool, crowd: &Crowd, findings: &mut Findings) -> Result<()> {
    let begin = Instant::now();
    let mut unread: i64 = 1;
    while unread > 0 && begin.elapsed() < REPLY_MAX {
        unread = sqlx::query_scalar("select count(*) from inbox where state = 'pending'").fetch_one(pool).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let asked = crowd.asked.load(Ordering::Relaxed);
    let decided: i64 = sqlx::query_scalar("select count(*) from decisions").fetch_one(pool).await?;
    let outcomes: Vec<(String, i64)> =
        sqlx::query_as("select outcome, count(*) from decisions group by 1 order by 2 desc").fetch_all(pool).await?;
    findings.notes.push(format!("{asked} messages, {} replies at Meta, decisions: {outcomes:?}", crowd.graph.sends()));
    if unread > 0 {
        findings.failures.push(format!("{unread} events stayed unread for {} s", REPLY_MAX.as_secs()));
    }
    if decided.unsigned_abs() != asked {
        findings.failures.push(format!("{asked} messages led to {decided} decisions"));
    }
    if crowd.graph.lost_echoes() > 0 {
        findings.failures.push(format!("{} echoes were not stored", crowd.graph.lost_echoes()));
    }
    Ok(())
}

async fn ask_for(crowd: &Arc<Crowd>, customers: usize, pause: Duration, duration: Duration) -> Result<Times> {
    let deadline = Instant::now() + duration;
    let running = (0..customers).map(|_| {
        let crowd = Arc::clone(crowd);
        tokio::spawn(async move { crowd.keep_asking(pause, deadline).await })
    });
    let mut micros = Vec::new();
    for customer in running.collect::<Vec<_>>() {
        micros.extend(customer.await??);
    }
    Ok(Times::new(micros))
}

impl Crowd {
    /// Teaches the host the demonstration's knowledge, and tells which of how many questions it answers.
    pub async fn gather(pool: &PgPool, app: &Arc<App>, graph: &Arc<GraphStub>) -> Result<(Self, usize)> {
        let mut crowd = Self {
            app: Arc::clone(app),
            graph: Arc::clone(graph),
            questions: teach(app).await?,
            customers: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        };
        let known = crowd.questions.len();
        crowd.questions = crowd.answered(pool).await?;
        Ok((crowd, known))
    }

    /// A customer who never wrote before asks one question.
    pub async fn ask_once(&self) -> Result<Duration> {
        let number = self.customers.fetch_add(1, Ordering::Relaxed);
        let at = usize::try_from(number)? % self.questions.len();
        let question = self.questions.get(at).context("the machine answers no question")?;
        self.ask(&psid(number), question).await
    }

    async fn keep_asking(&self, pause: Duration, deadline: Instant) -> Result<Vec<f64>> {
        let mut micros = Vec::new();
        loop {
            let number = self.customers.fetch_add(1, Ordering::Relaxed);
            let first = usize::try_from(number)?;
            for question in
                self.questions.iter().cycle().skip(first % self.questions.len()).take(QUESTIONS_PER_CUSTOMER)
            {
                if Instant::now() >= deadline {
                    return Ok(micros);
                }
                micros.push(self.ask(&psid(number), question).await?.as_secs_f64() * 1e6);
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Stores a message and waits for its reply: the time from stored to sent.
    async fn ask(&self, psid: &str, question: &str) -> Result<Duration> {
        let fields = wire::text(&wire::new_mid(), question);
        let events = graph_stub::events(&self.app, wire::from_person(PAGE, psid, wire::now_ms(), fields))?;
        let reply = self.graph.expect(psid);
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.app.inbox.store(events).await?;
        let stored = Instant::now();
        let arrived = tokio::time::timeout(REPLY_MAX, reply)
            .await
            .with_context(|| format!("a message got no reply within {} s", REPLY_MAX.as_secs()))??;
        Ok(arrived.saturating_duration_since(stored))
    }

    /// Asks every question once and keeps those that the machine answers.
    async fn answered(&self, pool: &PgPool) -> Result<Vec<String>> {
        let mut kept = Vec::new();
        for question in &self.questions {
            let psid = psid(self.customers.fetch_add(1, Ordering::Relaxed));
            self.ask(&psid, question).await?;
            let outcome: String = sqlx::query_scalar(
                "select d.outcome from decisions d join conversations c on c.id = d.conversation_id where c.psid = $1",
            )
            .bind(&psid)
            .fetch_one(pool)
            .await?;
            if outcome == "sent" {
                kept.push(question.clone());
            }
        }
        if kept.len() < QUESTIONS_PER_CUSTOMER {
            bail!("the machine answers {} of the demonstration's questions; the benchmark needs more", kept.len());
        }
        Ok(kept)
    }
}

fn psid(number: u64) -> String {
    (6_000_000_000_000_000 + number).to_string()
}

/// Puts the demonstration's documents into the knowledge; gives the questions of its FAQ.
async fn teach(app: &App) -> Result<Vec<String>> {
    let folder = ground::policies()?.join("default/demo-knowledge");
    let mut questions = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if format_from_name(&name).is_none() {
            continue;
        }
        let bytes = std::fs::read(&path)?;
        if name == "faq.csv" {
            let text = String::from_utf8(bytes.clone())?;
            questions =
                text.lines().skip(1).filter_map(|line| Some(line.split_once("?,")?.0.to_owned() + "?")).collect();
        }
        app.knowledge.add(NewDocument { source: name, bytes, ..NewDocument::default() }).await?;
    }
    Ok(questions)
}

/// The medians of a turn's steps since a moment.
async fn steps(pool: &PgPool, since: DateTime<Utc>) -> Result<String> {
    let rows: Vec<(String, f64)> = sqlx::query_as(
        "select t.key, percentile_cont(0.5) within group (order by t.value::float8)
           from decisions d join decision_records r using (turn_id) cross join lateral jsonb_each_text(r.masked -> 'times') t
          where d.created_at >= $1 group by t.key
         union all
         select 'all_until_commit_us', percentile_cont(0.5) within group (order by duration_us)
           from decisions where created_at >= $1
          order by 1",
    )
    .bind(since)
    .fetch_all(pool)
    .await?;
    let step = |(name, us): (String, f64)| {
        format!("{} {:.2} ms", name.trim_end_matches("_us").replace('_', " "), us / 1_000.0)
    };
    Ok(rows.into_iter().map(step).collect::<Vec<_>>().join(", "))
}
